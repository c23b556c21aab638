//! One worker's part of a pool: its books, and what events do to them.

use super::pause::Hold;
use super::*;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use tidegate_core::limits::{
    CONFIG_DURATION_MAX, CONNECT_ATTEMPTS_MAX, POOL_BEG_INTERVAL, POOL_DEBTS_MAX,
};

/// One worker's part of a pool (see the module for its states).
///
/// - getters: `counts`, `config`, `stale`, `is_paused`, `connect_failures`, `retry_at`
/// - commands: `acquire`, `cancel_wait`, `set_config`, `set_generation`, `pause`, `resume`,
///   `drain`, `take_idle`,
///   `give_up_idle`, `hold_opens_until`, `retry_now`
/// - events: `handle_released`, `handle_opened`, `handle_open_failed`, `handle_closed`,
///   `handle_donated`,
///   `handle_begged`, `handle_elsewhere`, `handle_crowded`
/// - results: `poll_action` until `None`, then again at `poll_timeout` or after the next event
///
/// A connection is idle only while nobody waits: it is handed straight to the first waiter
/// otherwise. `acquire` with an idle connection and `handle_released` without waiters are O(1),
/// allocate nothing and scan nothing.
#[derive(Debug)]
pub struct Pool {
    pub(super) config: PoolConfig,
    pub(super) mode: Mode,
    pub(super) hold: Hold,
    pub(super) generation: Generation,
    /// Every connection of this part except those in `doomed`.
    pub(super) servers: FxHashMap<ServerId, Server>,
    /// Least recently used first, so `since` ascends; the last is used next, which keeps few
    /// connections hot.
    pub(super) idle: VecDeque<Idle>,
    pub(super) in_use: usize,
    pub(super) opening: usize,
    pub(super) elsewhere: Elsewhere,
    pub(super) waiters: Waiters,
    /// To be closed as soon as somebody polls; they still hold their places in the budget.
    pub(super) doomed: Vec<(ServerId, CloseReason)>,
    /// Clients whose connection could not be opened, to be told at the next poll, and after how
    /// many attempts.
    pub(super) failed: VecDeque<(ClientId, u32)>,
    pub(super) debts: VecDeque<(Debt, Instant)>,
    pub(super) backoff: Backoff,
    /// Attempts in a row that found the server full while others made room.
    pub(super) room_tries: u32,
    pub(super) warming: Warming,
    pub(super) replacement: Replacement,
    pub(super) utilisation: Utilisation,
    /// Before this moment no idle connection is due (a lower bound).
    pub(super) age_due: Option<Instant>,
    pub(super) idle_recheck_at: Option<Instant>,
    pub(super) beg_at: Option<Instant>,
    /// Set by the last poll: a connection is wanted, and may be tried from then.
    pub(super) open_due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub opened_at: Instant,
    pub generation: Generation,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Idle,
    InUse,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub server: ServerId,
    pub since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    Draining,
}

/// Whether the minimum is kept filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Warming {
    Wanted,
    /// At the last poll the minimum was not reached.
    Below,
    /// The server refused this user or database: only a client's wish opens a connection.
    Dormant,
}

/// Whether a connection is to be opened for one that is too old and that the minimum keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    None,
    Due,
}

impl Pool {
    pub fn new(config: PoolConfig, generation: Generation) -> Self {
        let mut pool = Self {
            config: PoolConfig::default(),
            mode: Mode::Open,
            hold: Hold::Running,
            generation,
            servers: FxHashMap::default(),
            idle: VecDeque::new(),
            in_use: 0,
            opening: 0,
            elsewhere: Elsewhere::default(),
            waiters: Waiters::default(),
            doomed: Vec::new(),
            failed: VecDeque::new(),
            debts: VecDeque::new(),
            backoff: Backoff::default(),
            room_tries: 0,
            warming: Warming::Wanted,
            replacement: Replacement::None,
            utilisation: Utilisation::default(),
            age_due: None,
            idle_recheck_at: None,
            beg_at: None,
            open_due: None,
        };
        pool.set_config(config);
        pool
    }

    // --- getters ----------------------------------------------------------

    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    pub fn counts(&self) -> Counts {
        Counts {
            idle: self.idle.len() + self.doomed.len(),
            in_use: self.in_use,
            opening: self.opening,
            waiting: self.waiters.len(),
            utilisation_percent: self.utilisation.percent(),
        }
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Connections of an earlier generation: in use still, and closed when they come back. Looks at each.
    pub fn stale(&self) -> usize {
        self.servers.values().filter(|server| server.generation < self.generation).count()
    }

    /// Consecutive failed attempts to open a connection.
    pub fn connect_failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// When the next attempt may start, after a failure.
    pub fn retry_at(&self) -> Option<Instant> {
        self.backoff.retry_at()
    }

    /// Whether a connection exists anywhere that could become free for a client of this part.
    pub fn is_served(&self) -> bool {
        self.in_use + self.idle.len() + self.elsewhere.in_use + self.elsewhere.idle > 0
    }

    /// Whether all connections that it may have are in use, here and elsewhere.
    pub fn is_used_up(&self, budget: &impl Budget) -> bool {
        self.idle.is_empty() && self.elsewhere.idle == 0 && budget.taken() >= self.config.size_max
    }

    /// How long the client that waits longest has waited; zero when nobody does.
    pub fn waiting_longest(&self, now: Instant) -> Duration {
        let oldest = self.waiters.oldest();
        oldest.map_or(Duration::ZERO, |waiter| now.saturating_duration_since(waiter.since))
    }

    /// No connection, no client, nothing under way: the part can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
            && self.doomed.is_empty()
            && self.failed.is_empty()
            && self.opening == 0
            && self.waiters.is_empty()
    }

    // --- commands ----------------------------------------------------------

    /// Asks for a connection. After `Queued`, poll: a connection may have to be opened.
    #[inline]
    pub fn acquire(&mut self, waiter: ClientId, priority: Priority, now: Instant) -> Acquire {
        if self.mode == Mode::Draining {
            return Acquire::Refused(WaitRefusal::Draining);
        }
        if let Some(idle) = self.idle.pop_back() {
            if let Some(server) = self.servers.get_mut(&idle.server) {
                server.place = Place::InUse;
            }
            self.in_use += 1;
            self.observe();
            return Acquire::Granted(idle.server);
        }
        self.queue(Waiter { client: waiter, priority, since: now })
    }

    fn queue(&mut self, waiter: Waiter) -> Acquire {
        let waiting = self.waiters.len();
        if waiting >= self.config.waiters_max && !self.waiters.contains(waiter.client) {
            let size_max = self.config.size_max;
            return Acquire::Refused(WaitRefusal::QueueFull { waiting, size_max });
        }
        self.waiters.push(waiter);
        Acquire::Queued
    }

    /// The client does not wait any more; false when it did not.
    pub fn cancel_wait(&mut self, waiter: ClientId) -> bool {
        if self.waiters.remove(waiter) {
            return true;
        }
        let before = self.failed.len();
        self.failed.retain(|(failed, _)| *failed != waiter);
        self.failed.len() < before
    }

    /// New bounds, at once for new connections; polls close what is too many. Bounds that make no
    /// sense are put right.
    pub fn set_config(&mut self, config: PoolConfig) {
        let size_max = config.size_max.max(1);
        self.config = PoolConfig {
            size_min: config.size_min.min(size_max),
            size_max,
            // No deadline may overflow the clock.
            idle_max: config.idle_max.min(CONFIG_DURATION_MAX),
            lifetime_max: config.lifetime_max.min(CONFIG_DURATION_MAX),
            wait_max: config.wait_max.min(CONFIG_DURATION_MAX),
            pause_max: config.pause_max.min(CONFIG_DURATION_MAX),
            waiters_max: config.waiters_max,
        };
        self.idle_recheck_at = None;
        self.age_due = self.servers.values().map(|s| s.opened_at).min();
        self.observe();
    }

    /// Connections of earlier generations are closed: idle ones at the next poll, used ones when
    /// they come back.
    pub fn set_generation(&mut self, generation: Generation) {
        if generation <= self.generation {
            return;
        }
        self.generation = generation;
        self.doom_idle(CloseReason::Stale);
        self.retry_now();
    }

    /// No new work, no minimum: idle connections close at the next poll, others when they come back
    /// and nobody waits.
    pub fn drain(&mut self) {
        self.mode = Mode::Draining;
        self.config.size_min = 0;
        self.doom_idle(CloseReason::Drained);
    }

    /// Takes the least recently used idle connection out, place in the budget included, for another
    /// worker.
    pub fn take_idle(&mut self) -> Option<Donation> {
        let idle = self.idle.pop_front()?;
        let server = self.servers.remove(&idle.server)?;
        let Server { opened_at, generation, .. } = server;
        Some(Donation { server: idle.server, opened_at, generation })
    }

    /// No attempt to open a connection before `until` (an open circuit breaker).
    pub fn hold_opens_until(&mut self, until: Instant) {
        self.backoff.hold_until(until);
    }

    /// Forgets earlier failures: there is a reason to think that the next attempt succeeds.
    pub fn retry_now(&mut self) {
        self.backoff.handle_success();
        self.warming = Warming::Wanted;
    }

    // --- events ----------------------------------------------------------

    /// A client gives `server` back.
    #[inline]
    pub fn handle_released(
        &mut self,
        server: ServerId,
        fitness: Fitness,
        now: Instant,
        budget: &mut impl Budget,
    ) -> Released {
        match self.servers.get(&server) {
            Some(Server { place: Place::InUse, .. }) => self.in_use -= 1,
            // Not ours, or given back twice: whatever it is, nobody may use it again.
            _ => return Released::Close(CloseReason::Unfit),
        }
        if fitness == Fitness::Unfit {
            self.forget(server, budget);
            return Released::Close(CloseReason::Unfit);
        }
        self.place(server, now, budget)
    }

    /// The attempt that `PoolAction::Open` asked for succeeded.
    pub fn handle_opened(
        &mut self,
        server: ServerId,
        attempt: Attempt,
        now: Instant,
        budget: &mut impl Budget,
    ) -> Released {
        self.opening = self.opening.saturating_sub(1);
        self.backoff.handle_success();
        self.room_tries = 0;
        self.idle_recheck_at = None;
        if self.warming == Warming::Dormant {
            self.warming = Warming::Wanted;
        }
        self.adopt(Donation { server, opened_at: now, generation: attempt.generation });
        self.place(server, now, budget)
    }

    /// The attempt failed. Of attempts that ran at the same time only the first failure counts.
    ///
    /// Waiters are told when `CONNECT_ATTEMPTS_MAX` attempts in a row failed, or at once when the
    /// failure does not pass by itself; but not while connections exist that will become free for
    /// them.
    pub fn handle_open_failed(
        &mut self,
        attempt: Attempt,
        failure: OpenFailure,
        jitter: Jitter,
        now: Instant,
        budget: &mut impl Budget,
    ) -> FailureCount {
        self.opening = self.opening.saturating_sub(1);
        budget.give_back();
        let is_old = attempt.generation < self.generation || self.is_paused();
        if is_old || attempt.number <= self.backoff.failures() {
            return FailureCount::Repeated;
        }
        self.backoff.handle_failure(now, jitter);
        self.room_tries = 0;
        if failure == OpenFailure::Definitive {
            self.warming = Warming::Dormant;
        }
        let exhausted = self.backoff.failures() >= CONNECT_ATTEMPTS_MAX;
        if (exhausted || failure != OpenFailure::Passing) && !self.is_served() {
            let attempts = self.backoff.failures();
            while let Some(waiter) = self.waiters.pop() {
                self.failed.push_back((waiter.client, attempts));
            }
        }
        FailureCount::Counted
    }

    /// A connection ended without our doing, idle or in use. False when it was not in the books.
    pub fn handle_closed(&mut self, server: ServerId, budget: &mut impl Budget) -> bool {
        match self.servers.get(&server).map(|server| server.place) {
            Some(Place::InUse) => self.in_use -= 1,
            Some(Place::Idle) => self.idle.retain(|idle| idle.server != server),
            None => return false,
        }
        self.forget(server, budget);
        self.observe();
        true
    }

    /// Another worker sent a connection; its place in the budget came along.
    pub fn handle_donated(
        &mut self,
        donation: Donation,
        now: Instant,
        budget: &mut impl Budget,
    ) -> Released {
        self.adopt(donation);
        self.place(donation.server, now, budget)
    }

    /// Another worker's client waits and its part cannot open a connection.
    pub fn handle_begged(&mut self, debt: Debt, now: Instant) -> Begged {
        if let Some(donation) = self.take_idle() {
            return Begged::Donate(donation);
        }
        self.debts.retain(|(owed, _)| owed.worker != debt.worker);
        if self.debts.len() < POOL_DEBTS_MAX {
            // It repeats the call while it starves; a debt nobody repeats is stale.
            self.debts.push_back((debt, now + POOL_BEG_INTERVAL * 2));
        }
        Begged::Owed
    }

    /// Connections in use in the other workers' parts, for utilisation and for the decision whether
    /// waiting has sense.
    pub fn handle_elsewhere(&mut self, elsewhere: Elsewhere) {
        self.elsewhere = elsewhere;
        self.observe();
    }

    #[inline]
    pub(super) fn observe(&mut self) {
        self.utilisation.observe(self.in_use + self.elsewhere.in_use, self.config.size_max);
    }
}
