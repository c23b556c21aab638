//! One process among several that share their answers: may it serve them, and may it commit what the others have not heard of?
//!
//! ```text
//!          reached, and what is under way is marked there        what was there before is void
//!  Apart ───────────────────────────────────────────▶ Connected ───────────────────────────▶ Joined ─┐
//!    ▲                                                    │                                     │    │ beats
//!    └──── anything that is late, refused or lost ────────┴─────────────────────────────────────┘ ◀──┘
//! ```
//!
//! All processes agree by leases whose time each reader measures itself, so no clock is compared with another's and no message
//! may be too late. What is shared has a counter that each beat moves on. A beat tells the highest number that its sender had
//! heard before it made the beat. Whoever drew a number at or below that one knows: the beat was made after I sent for mine.
//!
//! - A process serves only while it is joined, and while it knows of each other one that it made a beat less than
//!   [`Config::lease`] ago.
//! - A process that is apart makes no beats. So when the lease is over since its last one, nobody serves, and what it commits
//!   without telling anybody is missed by nobody ([`Membership::free_at`]).
//! - Before it beats again, it has taken everything away that was kept, and marked what it has under way.
//! - What is shared may be somewhere else by then, while others still find what was there before: a replica that was promoted, and
//!   a primary that does not know yet. Nothing is done in another place before the lease is over since the last beat in the one before
//!   ([`Membership::usable_at`]); nor, where nothing is known of the one before, since the process began.
//! - What was told of versions may be relied on for a moment ([`Config::reliance`]), counted from before it was asked for, as long as
//!   nobody was silent since. Who may change what is relied on lets that moment pass before it commits ([`Membership::wait`]),
//!   and a process that comes back does before it commits anything: what others rely on may have been forgotten.
//!
//! Verbs: `handle_connected`, `handle_joined`, `handle_beat`, `handle_lost` take what happened; `begin_beat` before one is
//! sent; `begin`, `end` for commits that are under way; getters `may_serve`, `may_rely`, `wait`,
//! `usable_at`, `free_at`, `is_free`, `standing`.

use crate::store::Tag;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Own beats that are remembered: no lease is longer than so many.
const BEATS_MAX: usize = 64;
/// Clocks of two machines run at the same speed up to this part.
const DRIFT_DIVISOR: u32 = 64;
const DRIFT_MIN: Duration = Duration::from_millis(1);

/// Who shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The number of this process.
    pub own: u8,
    /// Those of all others that write to the same database.
    pub peers: Box<[u8]>,
    /// How long a beat counts.
    pub lease: Duration,
    /// How long versions may be relied on that were told; zero: not at all.
    pub reliance: Duration,
}

/// How far a process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nothing is shared.
    #[default]
    Apart,
    /// What it commits is told to the others, who do not rely on that yet.
    Connected,
    /// It beats.
    Joined,
}

/// Another process.
#[derive(Clone, Debug, Default)]
struct Peer {
    /// It must be heard; else it has but shown up by itself, and is gone when it says so.
    is_configured: bool,
    seen: Option<u64>,
    /// It has made a beat since then.
    heard_at: Option<Instant>,
}

/// A commit that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// The server process that commits.
    pub process: Option<i32>,
    /// What it changes.
    pub tags: Arc<[Tag]>,
}

/// What one process knows. See the module.
#[derive(Clone, Debug)]
pub struct Membership {
    config: Config,
    standing: Standing,
    /// Counts times of being connected.
    session: u64,
    /// The last session that it joined in.
    joined: u64,
    /// In which run of what is shared that was, or is to be; none yet: a process of before, under this number, may have been anywhere.
    run: Option<Box<str>>,
    peers: FxHashMap<u8, Peer>,
    /// Own beats of this session, with the numbers they drew; the newest last.
    beats: VecDeque<(Instant, u64)>,
    /// The highest number that was heard.
    heard: u64,
    last_beat: Option<Instant>,
    /// All others have been heard without a pause since then.
    serves_since: Option<Instant>,
    flights: FxHashMap<u64, Flight>,
}

impl Membership {
    /// Apart, with nothing under way. A process of before, under this number, may have made a beat just now.
    pub fn new(config: Config, now: Instant) -> Self {
        let mut membership = Self {
            standing: Standing::Apart,
            session: 0,
            joined: 0,
            run: None,
            peers: FxHashMap::default(),
            beats: VecDeque::new(),
            heard: 0,
            last_beat: Some(now),
            serves_since: None,
            flights: FxHashMap::default(),
            config,
        };
        membership.set_peers();
        membership
    }

    /// Others share from now on. Before, `handle_lost`.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
        self.set_peers();
    }

    fn set_peers(&mut self) {
        let configured = |id: &u8| (*id, Peer { is_configured: true, ..Peer::default() });
        self.peers = self.config.peers.iter().map(configured).collect();
    }

    /// Who shares.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How far it has come.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The number of the session, or of the last one.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The number of the last session that it joined in; 0 is none.
    pub fn joined(&self) -> u64 {
        self.joined
    }

    /// A commit of these changes is about to be sent.
    pub fn begin(&mut self, token: u64, flight: Flight) {
        self.flights.insert(token, flight);
    }

    /// Nothing of these commits is under way any more.
    pub fn end(&mut self, tokens: &[u64]) {
        for token in tokens {
            self.flights.remove(token);
        }
    }

    /// What is shared is found in this run of it. From when on it may be used; `None`: now.
    pub fn usable_at(&self, run: &str) -> Option<Instant> {
        // Whoever heard the beats of the same run finds what is done there now.
        if self.run.as_deref() == Some(run) { None } else { self.free_at() }
    }

    /// What is shared can be used, in this run of it ([`Membership::usable_at`]), under this number: all that is under way is to be
    /// marked there first.
    pub fn handle_connected(&mut self, run: &str) -> Vec<(u64, Flight)> {
        self.run = Some(run.into());
        self.session += 1;
        self.standing = Standing::Connected;
        self.flights.iter().map(|(token, flight)| (*token, flight.clone())).collect()
    }

    /// Before a beat is made: the number that it tells.
    pub fn begin_beat(&mut self, now: Instant) -> u64 {
        self.last_beat = Some(now);
        self.heard
    }

    /// The number that was heard before the first beat of a session.
    pub fn handle_number(&mut self, number: u64) {
        self.heard = self.heard.max(number);
    }

    /// Everything that was kept before is void, the first beat has arrived, and [`Membership::wait`] is over since then.
    pub fn handle_joined(&mut self, now: Instant) {
        self.standing = Standing::Joined;
        self.serves_since = Some(now);
        self.joined = self.session;
    }

    /// The answer to a beat that was made at `made_at`, now: the number that it drew, and what the others have told.
    pub fn handle_beat(&mut self, made_at: Instant, number: u64, told: &[(u8, u64)], now: Instant) {
        if self.standing == Standing::Apart {
            return;
        }
        self.heard = self.heard.max(number);
        self.beats.push_back((made_at, number));
        if self.beats.len() > BEATS_MAX {
            self.beats.pop_front();
        }
        for (id, seen) in told.iter().filter(|(id, _)| *id != self.config.own) {
            let peer = self.peers.entry(*id).or_default();
            if peer.seen.is_some_and(|before| before == *seen) {
                continue;
            }
            peer.seen = Some(*seen);
            // The newest of ours that it had heard, or one that was drawn after, before it made its own.
            let proof = self.beats.iter().rev().find(|(_, number)| number <= seen);
            let was_silent = peer.heard_at.is_none_or(|at| now > at + self.config.lease);
            if proof.is_some() && was_silent {
                self.serves_since = Some(now);
            }
            peer.heard_at = peer.heard_at.max(proof.map(|(at, _)| *at));
        }
        let tells = |id: &u8| told.iter().any(|(known, _)| known == id);
        self.peers.retain(|id, peer| peer.is_configured || tells(id));
    }

    /// It cannot be told any more what is committed here.
    pub fn handle_lost(&mut self) {
        self.standing = Standing::Apart;
        self.beats.clear();
        self.heard = 0;
        for peer in self.peers.values_mut() {
            (peer.seen, peer.heard_at) = (None, None);
        }
    }

    /// May what is shared be believed?
    pub fn may_serve(&self, now: Instant) -> bool {
        self.standing == Standing::Joined && self.silent(now).is_none()
    }

    /// May versions still be relied on, without being asked for again, that were told a question sent `from` then?
    pub fn may_rely(&self, from: Instant, now: Instant) -> bool {
        now < from + self.config.reliance
            && self.serves_since.is_some_and(|since| from >= since)
            && self.may_serve(now)
    }

    /// After this nobody relies any more on what was told before.
    pub fn wait(&self) -> Duration {
        match self.config.reliance {
            Duration::ZERO => Duration::ZERO,
            reliance => reliance + drift(reliance),
        }
    }

    /// One of the others that has not been heard for too long.
    pub fn silent(&self, now: Instant) -> Option<u8> {
        let is_heard = |peer: &Peer| peer.heard_at.is_some_and(|at| now <= at + self.config.lease);
        // One that nobody expects, and that has never been heard, has left long ago.
        let counts = |peer: &Peer| peer.is_configured || peer.heard_at.is_some();
        let mut silent = self.peers.iter().filter(|(_, peer)| counts(peer) && !is_heard(peer));
        silent.next().map(|(id, _)| *id)
    }

    /// From then on nobody serves who has not heard a later beat; `None`: nobody does now.
    pub fn free_at(&self) -> Option<Instant> {
        let lease = self.config.lease;
        self.last_beat.filter(|_| !self.peers.is_empty()).map(|at| at + lease + drift(lease))
    }

    /// May a commit go on that could not be told in a session, or while apart after it? Either nobody serves, or it has joined
    /// again since, marked what was under way and taken all answers away.
    pub fn is_free(&self, session: u64, now: Instant) -> bool {
        if self.joined > session {
            return true;
        }
        let is_over = self.standing != Standing::Joined || self.session != session;
        is_over && self.free_at().is_none_or(|at| now >= at)
    }

    /// All numbers that it knows, for the model.
    #[cfg(test)]
    pub(crate) fn numbers(&self, out: &mut Vec<u64>) {
        out.push(self.heard);
        out.extend(self.peers.values().filter_map(|peer| peer.seen));
        out.extend(self.beats.iter().map(|(_, number)| *number));
    }

    /// Everything that decides about what comes, for the model; of numbers only their order.
    #[cfg(test)]
    pub(crate) fn describe(
        &self,
        (start, now): (Instant, Instant),
        number: &dyn Fn(u64) -> u64,
        out: &mut Vec<u64>,
    ) {
        let at = |time: Instant| time.saturating_duration_since(start).as_millis() as u64;
        let lease = self.config.lease;
        // What is over stays over.
        let lasting = |time: Option<Instant>| {
            time.filter(|time| now <= *time + lease).map_or(0, |time| at(time) + 1)
        };
        let free_at = self.free_at().filter(|time| now < *time).map_or(0, |time| at(time) + 1);
        let is_joined = u64::from(self.joined == self.session);
        out.push(self.run.as_ref().and_then(|run| run.parse().ok()).unwrap_or_default());
        // Whatever is relied on now was told later than that.
        let since = self.serves_since.filter(|since| now < *since + self.config.reliance);
        let since = since.map_or(0, |since| at(since) + 1);
        out.extend([self.standing as u64, self.session, is_joined, number(self.heard), free_at]);
        out.push(since);
        let mut ids: Vec<&u8> = self.peers.keys().collect();
        ids.sort_unstable();
        for id in ids {
            let peer = &self.peers[id];
            out.extend([peer.seen.map_or(0, |seen| number(seen) + 1), lasting(peer.heard_at)]);
        }
        let beats = self.beats.iter().filter(|(made_at, _)| now <= *made_at + lease);
        out.extend(beats.flat_map(|(made_at, drawn)| [at(*made_at), number(*drawn)]));
        let mut tokens: Vec<u64> = self.flights.keys().copied().collect();
        tokens.sort_unstable();
        out.extend(tokens);
    }
}

/// By how much another's clock may have run faster meanwhile.
fn drift(time: Duration) -> Duration {
    (time / DRIFT_DIVISOR).max(DRIFT_MIN)
}

#[cfg(test)]
mod tests;
