//! One bucket that several processes count together, as one of them sees it: what it has in hand, and what it has still to tell.

use super::ring::{Span, Taken, Taking};
use super::window::Window;
use std::time::Duration;

/// Units taken ahead of their use, at most.
const EXTRA_MAX: u32 = 64;
/// Those that statements wait for, beyond the first of them, at most.
const ALSO_MAX: u32 = 4_096;
/// All processes together take ahead one of so many parts of what is left.
const PARTS: u32 = 4;

/// What a bucket is called among all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub [u8; 16]);

/// Is there room for units?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// They are in hand.
    Here,
    /// After so long; `None`: never.
    After(Option<Duration>),
    /// Whoever shares has to be asked.
    Unknown,
    /// And cannot be.
    Lost,
}

/// A question that is under way.
#[derive(Clone, Debug)]
struct Flight {
    number: u64,
    session: u64,
    sent_at: Duration,
    limit: u32,
    need: u32,
    /// What it tells, to be told again if it is lost.
    telling: Option<Box<Window>>,
}

/// There was no room.
#[derive(Clone, Copy, Debug)]
struct Denied {
    /// Believed so long.
    until: Duration,
    room_at: Duration,
    units: u32,
    limit: u32,
}

/// When and by whom it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub now: Duration,
    /// Questions are numbered.
    pub number: u64,
    pub session: u64,
    pub members: u32,
}

/// getters: `room`, `is_asked`, `is_pending`, `wants_to_tell`; commands: `use_up`, `owe`, `wait_for`, `ask`, `tell`; events:
/// `handle_taken`, `handle_refused`.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) name: Name,
    span: Span,
    /// Of the ring, as told last; 0: never.
    life: u64,
    /// In which session that was.
    session: u64,
    /// Units in hand, until when, and the slot of the ring that they were taken from.
    held: u32,
    held_until: Duration,
    held_tick: u64,
    /// Of them, used so far.
    used: u32,
    /// How many are taken ahead.
    extra: u32,
    /// What statements wait for that came when a question was under way.
    waiting: u32,
    denied: Option<Denied>,
    flight: Option<Flight>,
    /// Used without having been taken.
    untold: Option<Box<Window>>,
    back: Option<(u64, u32)>,
    /// Is it in the list of those that may have something to tell?
    pub(super) is_listed: bool,
}

impl Share {
    pub(super) fn new(name: Name, window: Duration) -> Self {
        Self {
            name,
            span: Span::of(window),
            life: 0,
            session: 0,
            held: 0,
            held_until: Duration::ZERO,
            held_tick: 0,
            used: 0,
            extra: 0,
            waiting: 0,
            denied: None,
            flight: None,
            untold: None,
            back: None,
            is_listed: false,
        }
    }

    #[inline]
    pub(super) fn room(&mut self, units: u32, limit: u32, now: Duration) -> Room {
        if units > limit {
            return Room::After(None);
        }
        self.expire(now);
        if self.held >= units {
            return Room::Here;
        }
        match self.denied {
            // Another limit may have come with another policy.
            Some(denied)
                if now < denied.until && units >= denied.units && limit == denied.limit =>
            {
                Room::After(Some(denied.room_at.saturating_sub(now)))
            }
            _ => Room::Unknown,
        }
    }

    /// Takes units from those in hand, if they are.
    #[inline]
    pub(super) fn use_up(&mut self, units: u32, now: Duration) -> bool {
        self.expire(now);
        let is_here = self.held >= units;
        if is_here {
            self.held -= units;
            self.used = self.used.saturating_add(units);
        }
        is_here
    }

    /// Units were used that nobody has taken.
    pub(super) fn owe(&mut self, units: u32, window: Duration, now: Duration) {
        let fresh = || Box::new(Window::new(window));
        self.untold.get_or_insert_with(fresh).charge(units, now);
    }

    /// Since when a question is under way.
    pub(super) fn asked_at(&self, session: u64) -> Option<Duration> {
        self.flight.as_ref().filter(|flight| flight.session == session).map(|flight| flight.sent_at)
    }

    /// A statement waits for the answer to the question that is under way.
    pub(super) fn wait_for(&mut self, units: u32) {
        self.waiting = self.waiting.saturating_add(units).min(ALSO_MAX);
    }

    /// What to ask for a statement of these units. None may be under way.
    pub(super) fn ask(&mut self, need: u32, limit: u32, asking: Asking) -> Taking {
        self.settle(asking.session, asking.now);
        // What is used up before its time was too little; what was left over, too much.
        self.extra = if asking.now < self.held_until {
            (self.extra * 2).clamp(1, EXTRA_MAX)
        } else {
            self.extra.min(self.used.saturating_sub(need))
        };
        let also = std::mem::take(&mut self.waiting);
        self.begin(need, limit, (also, self.extra), asking)
    }

    /// What to ask in order to tell. None may be under way.
    pub(super) fn tell(&mut self, asking: Asking) -> Taking {
        self.settle(asking.session, asking.now);
        self.begin(0, 0, (0, 0), asking)
    }

    fn begin(&mut self, need: u32, limit: u32, more: (u32, u32), asking: Asking) -> Taking {
        let Asking { now, number, session, members } = asking;
        self.expire(now);
        let mut telling = self.untold.take();
        let mut told: Vec<(u32, u32)> = Vec::new();
        for (age, units) in telling.iter_mut().flat_map(|window| window.history(now)) {
            let age = age.as_micros() / u128::from(self.span.micros);
            let age = u32::try_from(age).unwrap_or(u32::MAX);
            match told.last_mut() {
                Some((last, sum)) if *last == age => *sum = sum.saturating_add(units),
                _ => told.push((age, units)),
            }
        }
        self.flight = Some(Flight { number, session, sent_at: now, limit, need, telling });
        Taking {
            span: self.span,
            limit,
            need,
            also: more.0,
            extra: more.1,
            parts: PARTS.saturating_mul(members.max(1)),
            life: self.life,
            back: self.back.take(),
            told,
        }
    }

    /// The answer to a question; `used` is all that this process has used within the window.
    pub(super) fn handle_taken(
        &mut self,
        number: u64,
        taken: &Taken,
        used: &Window,
        now: Duration,
    ) {
        let Some(flight) = self.flight.take_if(|flight| flight.number == number) else { return };
        if self.life != 0 && self.life != taken.life {
            // What was counted before is lost, and what was told now not heeded: all of it is told anew.
            (self.held, self.back) = (0, None);
            self.untold = Some(Box::new(used.clone()));
        }
        (self.life, self.session) = (taken.life, flight.session);
        if flight.need == 0 {
            return;
        }
        if taken.granted == 0 {
            let room_at = now + taken.retry;
            // Others may give something back before.
            let until = room_at.min(now + Duration::from_micros(self.span.micros));
            let (units, limit) = (flight.need, flight.limit);
            self.denied = Some(Denied { until, room_at, units, limit });
            self.waiting = 0;
            return;
        }
        self.denied = None;
        self.leave(self.held_tick, self.held);
        self.held = taken.granted;
        self.held_until = flight.sent_at + self.span.lease();
        self.held_tick = taken.tick;
        self.used = 0;
        self.waiting = self.waiting.saturating_sub(taken.granted);
    }

    /// A question came to nothing, and what it told may not have been heard.
    pub(super) fn handle_refused(&mut self, number: u64, now: Duration) {
        if let Some(flight) = self.flight.take_if(|flight| flight.number == number) {
            self.tell_again(flight, now);
        }
    }

    /// Gives up the question of an earlier session.
    pub(super) fn settle(&mut self, session: u64, now: Duration) {
        if let Some(flight) = self.flight.take_if(|flight| flight.session != session) {
            self.tell_again(flight, now);
        }
    }

    fn tell_again(&mut self, flight: Flight, now: Duration) {
        self.waiting = 0;
        let Some(mut telling) = flight.telling else { return };
        match &mut self.untold {
            Some(untold) => untold.merge(&mut telling, now),
            None => self.untold = Some(telling),
        }
    }

    /// Is there something in hand, or on its way?
    pub(super) fn is_pending(&mut self, now: Duration) -> bool {
        self.expire(now);
        self.held > 0 || self.flight.is_some()
    }

    /// Is there something to tell, or anything to ask whether it is still counted?
    pub(super) fn wants_to_tell(&mut self, session: u64, used: &mut Window, now: Duration) -> bool {
        self.expire(now);
        let in_doubt = self.life != 0 && self.session != session;
        self.back.is_some()
            || self.untold.as_mut().is_some_and(|untold| untold.used(now) > 0)
            || in_doubt && used.used(now) > 0
    }

    #[inline]
    fn expire(&mut self, now: Duration) {
        if self.held > 0 && now >= self.held_until {
            self.leave(self.held_tick, self.held);
            self.held = 0;
        }
    }

    /// Units that were taken and are not used go back, when there is something to say.
    fn leave(&mut self, tick: u64, units: u32) {
        match &mut self.back {
            _ if units == 0 => {}
            Some((same, sum)) if *same == tick => *sum = sum.saturating_add(units),
            back => *back = Some((tick, units)),
        }
    }
}
