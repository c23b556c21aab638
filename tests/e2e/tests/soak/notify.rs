//! LISTEN and NOTIFY in the soak: each client has a channel of its own, and what is sent there says for whom it is.
//!
//! A listener's place on the board tells others that what they send now must arrive. They hold it while they send, so
//! that it cannot stop listening in between; before it stops, it waits for all that it is owed.

use super::{Gone, Soaker};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use tidegate_test_support::Message;

/// Listeners at once: who waits for what it is owed does nothing else meanwhile.
const LISTENERS_MAX: usize = 2;

/// What one client has told the others.
#[derive(Default)]
struct Place {
    /// The session in which it listens now.
    session: RwLock<Option<u64>>,
    /// What was sent to that session and has been acknowledged to the sender.
    owed: Mutex<HashSet<String>>,
}

/// The places of all clients.
pub(super) struct Board {
    places: Vec<Place>,
    listeners: AtomicUsize,
    sessions: AtomicU64,
}

impl Board {
    pub(super) fn new(clients: usize) -> Board {
        let places = (0..clients).map(|_| Place::default()).collect();
        Board { places, listeners: AtomicUsize::new(0), sessions: AtomicU64::new(1) }
    }
}

/// What a client knows while it listens.
pub(super) struct Listening {
    session: u64,
    heard: HashSet<String>,
}

fn channel(index: usize) -> String {
    format!("channel_{index}")
}

impl Soaker<'_> {
    /// A notification has come: it is for this client, and for what it listens to in this session.
    pub(super) fn hear(&mut self, message: &Message) {
        let (heard_on, payload) = message.notification();
        let Some(listening) = &mut self.listening else {
            panic!("{} does not listen, and heard {payload:?}", self.me)
        };
        assert_eq!(heard_on, channel(self.index), "{} heard {payload:?}", self.me);
        let mut parts = payload.split(':');
        assert_eq!(parts.next(), Some(self.me.as_str()), "{} heard {payload:?}", self.me);
        if let Some(session) = parts.next().and_then(|part| part.parse::<u64>().ok()) {
            assert_eq!(session, listening.session, "{} heard {payload:?} late", self.me);
        }
        listening.heard.insert(payload);
        self.counts.heard.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn notifications(&mut self) -> Result<(), Gone> {
        match self.random.below(8) {
            0 => self.listen_in_vain(),
            1 | 2 if self.listening.is_some() => self.stop_listening(),
            1 | 2 => self.listen(),
            3 => self.notify_nobody(),
            _ => self.notify_a_listener(),
        }
    }

    fn listen(&mut self) -> Result<(), Gone> {
        let one_more = |now| (now < LISTENERS_MAX).then_some(now + 1);
        let listeners = &self.board.listeners;
        if listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return Ok(());
        }
        let session = self.board.sessions.fetch_add(1, Ordering::Relaxed);
        self.listening = Some(Listening { session, heard: HashSet::new() });
        self.quiet(&format!("LISTEN {}", channel(self.index)), 'I')?;
        *self.board.places[self.index].session.write().unwrap() = Some(session);
        // One of its own comes before its acknowledgement.
        let payload = format!("{}:{session}:to myself", self.me);
        self.quiet(&format!("NOTIFY {}, '{payload}'", channel(self.index)), 'I')?;
        let heard = self.listening.as_ref().is_some_and(|now| now.heard.contains(&payload));
        if heard { Ok(()) } else { self.lose_listener() }
    }

    /// It did not hear itself, so who listened for it was lost: it is told that next, and nothing else.
    fn lose_listener(&mut self) -> Result<(), Gone> {
        let mut told = String::new();
        while let Some(message) = self.client.read_message_or_end() {
            assert_eq!(message.tag, b'E', "{} did not hear itself, and got {message:?}", self.me);
            told.push_str(&message.describe());
            drop(self.judge(&message));
        }
        assert!(told.contains("08006"), "{} did not hear itself, and was told {told:?}", self.me);
        Err(Gone)
    }

    /// Nobody may send to this client any more; then all that was sent is waited for.
    fn stop_listening(&mut self) -> Result<(), Gone> {
        let place = &self.board.places[self.index];
        *place.session.write().unwrap() = None;
        let owed = std::mem::take(&mut *place.owed.lock().unwrap());
        while self.listening.as_ref().is_some_and(|now| !owed.is_subset(&now.heard)) {
            match self.client.read_message_or_end() {
                Some(message) if message.tag == b'A' => self.hear(&message),
                Some(message) if message.tag == b'E' => drop(self.judge(&message)),
                Some(message) => panic!("{} got {message:?} unasked", self.me),
                None => return Err(Gone),
            }
        }
        self.quiet("UNLISTEN *", 'I')?;
        self.leave_the_board();
        self.ask('I')
    }

    /// The session listens no more, or is gone.
    pub(super) fn leave_the_board(&mut self) {
        if self.listening.take().is_some() {
            let place = &self.board.places[self.index];
            *place.session.write().unwrap() = None;
            place.owed.lock().unwrap().clear();
            self.board.listeners.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn listen_in_vain(&mut self) -> Result<(), Gone> {
        if self.listening.is_some() {
            return Ok(());
        }
        self.quiet("BEGIN", 'T')?;
        self.quiet(&format!("LISTEN {}", channel(self.index)), 'T')?;
        self.quiet("ROLLBACK", 'I')?;
        self.notify(self.index, "rolled back")?;
        self.ask('I')
    }

    /// Most likely: whoever has the server now on which that client may have listened once must not hear it.
    fn notify_nobody(&mut self) -> Result<(), Gone> {
        let target = self.random.below(self.board.places.len() as u64) as usize;
        self.notify(target, "perhaps nobody").map(drop)
    }

    fn notify_a_listener(&mut self) -> Result<(), Gone> {
        let (board, me) = (self.board, self.index);
        let first = self.random.below(board.places.len() as u64) as usize;
        for target in (first..board.places.len()).chain(0..first).filter(|target| *target != me) {
            let place = &board.places[target];
            // Held until the notification is acknowledged.
            let session = place.session.read().unwrap();
            if let Some(session) = *session {
                self.number += 1;
                let what = format!("{session}:{} from {}", self.number, self.me);
                let payload = self.notify(target, &what)?;
                place.owed.lock().unwrap().insert(payload);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the payload that was sent.
    fn notify(&mut self, target: usize, what: &str) -> Result<String, Gone> {
        let payload = format!("client {target}:{what}");
        self.quiet(&format!("NOTIFY {}, '{payload}'", channel(target)), 'I')?;
        Ok(payload)
    }
}
