//! One worker's part of a pool: its books, and what events do to them.

use super::*;
use crate::limits::{CONNECT_ATTEMPTS_MAX, POOL_BEG_INTERVAL, POOL_DEBTS_MAX};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// One worker's part of a pool (see the module for its states).
///
/// - getters: `counts`, `config`, `connect_failures`, `retry_at`
/// - commands: `acquire`, `cancel_wait`, `set_config`, `set_generation`, `drain`, `take_idle`, `hold_opens_until`,
///   `retry_now`
/// - events: `handle_released`, `handle_opened`, `handle_open_failed`, `handle_closed`, `handle_donated`,
///   `handle_begged`, `handle_elsewhere`
/// - results: `poll_action` until `None`, then again at `poll_timeout` or after the next event
///
/// A connection is idle only while nobody waits: it is handed straight to the first waiter otherwise. `acquire` with an
/// idle connection and `handle_released` without waiters are O(1), allocate nothing and scan nothing.
#[derive(Debug)]
pub struct Pool {
    pub(super) config: PoolConfig,
    pub(super) mode: Mode,
    pub(super) generation: Generation,
    /// Every connection of this part except those in `doomed`.
    pub(super) servers: FxHashMap<ServerId, Server>,
    /// Least recently used first, so `since` ascends; the last is used next, which keeps few connections hot.
    pub(super) idle: VecDeque<Idle>,
    pub(super) in_use: usize,
    pub(super) opening: usize,
    /// Connections in use in the other workers' parts, as last told.
    pub(super) in_use_elsewhere: usize,
    pub(super) waiters: Waiters,
    /// To be closed as soon as somebody polls; they still hold their places in the budget.
    pub(super) doomed: Vec<(ServerId, CloseReason)>,
    /// Clients whose connection could not be opened, to be told at the next poll, and after how many attempts.
    pub(super) failed: VecDeque<(ClientId, u32)>,
    pub(super) debts: VecDeque<(Debt, Instant)>,
    pub(super) backoff: Backoff,
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
            generation,
            servers: FxHashMap::default(),
            idle: VecDeque::new(),
            in_use: 0,
            opening: 0,
            in_use_elsewhere: 0,
            waiters: Waiters::default(),
            doomed: Vec::new(),
            failed: VecDeque::new(),
            debts: VecDeque::new(),
            backoff: Backoff::default(),
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

    // --- getters -------------------------------------------------------------------------------------

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
        self.in_use + self.in_use_elsewhere + self.idle.len() > 0
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

    // --- commands ------------------------------------------------------------------------------------

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

    /// New bounds, at once for new connections; polls close what is too many. A minimum above the maximum is lowered.
    pub fn set_config(&mut self, config: PoolConfig) {
        let size_max = config.size_max.max(1);
        self.config = PoolConfig { size_min: config.size_min.min(size_max), size_max, ..config };
        self.idle_recheck_at = None;
        self.age_due = self.servers.values().map(|s| s.opened_at).min();
        self.observe();
    }

    /// Connections of earlier generations are closed: idle ones at the next poll, used ones when they come back.
    pub fn set_generation(&mut self, generation: Generation) {
        if generation <= self.generation {
            return;
        }
        self.generation = generation;
        self.doom_idle(CloseReason::Stale);
        self.retry_now();
    }

    /// No new work, no minimum: idle connections close at the next poll, others when they come back and nobody waits.
    pub fn drain(&mut self) {
        self.mode = Mode::Draining;
        self.config.size_min = 0;
        self.doom_idle(CloseReason::Drained);
    }

    /// Takes the least recently used idle connection out, place in the budget included, for another worker.
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

    // --- events --------------------------------------------------------------------------------------

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
        self.idle_recheck_at = None;
        if self.warming == Warming::Dormant {
            self.warming = Warming::Wanted;
        }
        self.adopt(Donation { server, opened_at: now, generation: attempt.generation });
        self.place(server, now, budget)
    }

    /// The attempt failed. Of attempts that ran at the same time only the first failure counts.
    ///
    /// Waiters are told when `CONNECT_ATTEMPTS_MAX` attempts in a row failed, or at once after a definitive failure;
    /// but not while connections exist that will become free for them.
    pub fn handle_open_failed(
        &mut self,
        attempt: Attempt,
        failure: OpenFailure,
        jitter: Jitter,
        now: Instant,
        budget: &mut impl Budget,
    ) {
        self.opening = self.opening.saturating_sub(1);
        budget.give_back();
        if attempt.generation < self.generation || attempt.number <= self.backoff.failures() {
            return;
        }
        self.backoff.handle_failure(now, jitter);
        if failure == OpenFailure::Definitive {
            self.warming = Warming::Dormant;
        }
        let exhausted = self.backoff.failures() >= CONNECT_ATTEMPTS_MAX;
        if (exhausted || failure == OpenFailure::Definitive) && !self.is_served() {
            let attempts = self.backoff.failures();
            while let Some(waiter) = self.waiters.pop() {
                self.failed.push_back((waiter.client, attempts));
            }
        }
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

    /// Connections in use in the other workers' parts, for utilisation and for the decision whether waiting has sense.
    pub fn handle_elsewhere(&mut self, in_use: usize) {
        self.in_use_elsewhere = in_use;
        self.observe();
    }

    // --- inside --------------------------------------------------------------------------------------

    fn adopt(&mut self, donation: Donation) {
        let Donation { server, opened_at, generation } = donation;
        self.servers.insert(server, Server { opened_at, generation, place: Place::InUse });
    }

    /// Finds the place of a connection that is in the books and that nobody uses.
    #[inline]
    fn place(&mut self, id: ServerId, now: Instant, budget: &mut impl Budget) -> Released {
        let Some(server) = self.servers.get(&id).copied() else {
            return Released::Close(CloseReason::Unfit);
        };
        let released = self.place_of(id, server, now, budget);
        match released {
            Released::HandTo(_) => self.in_use += 1,
            Released::Idle => {
                if let Some(server) = self.servers.get_mut(&id) {
                    server.place = Place::Idle;
                }
                self.idle.push_back(Idle { server: id, since: now });
                let due = self.lifetime_end(id, server.opened_at);
                self.age_due = Some(self.age_due.map_or(due, |at| at.min(due)));
            }
            Released::Close(_) | Released::Donate(..) => {
                self.servers.remove(&id);
            }
        }
        self.observe();
        released
    }

    /// Decides, and gives the place in the budget back when the answer is `Close`.
    fn place_of(
        &mut self,
        id: ServerId,
        server: Server,
        now: Instant,
        budget: &mut impl Budget,
    ) -> Released {
        if server.generation < self.generation {
            budget.give_back();
            return Released::Close(CloseReason::Stale);
        }
        if budget.try_give_back(self.config.size_max) {
            return Released::Close(CloseReason::OverMaximum);
        }
        if self.lifetime_end(id, server.opened_at) <= now && self.try_retire(budget) {
            return Released::Close(CloseReason::TooOld);
        }
        let first = self.waiters.first();
        if let Some(debt) = self.debt_before(first, now) {
            let Server { opened_at, generation, .. } = server;
            return Released::Donate(debt.worker, Donation { server: id, opened_at, generation });
        }
        if let Some(waiter) = first {
            self.waiters.remove(waiter.client);
            return Released::HandTo(waiter.client);
        }
        if self.mode == Mode::Draining {
            budget.give_back();
            return Released::Close(CloseReason::Drained);
        }
        Released::Idle
    }

    /// The debt to a worker whose client comes before our own first waiter.
    fn debt_before(&mut self, first: Option<Waiter>, now: Instant) -> Option<Debt> {
        if self.debts.is_empty() {
            return None;
        }
        self.debts.retain(|(_, until)| *until > now);
        let rank = |debt: &Debt| (debt.priority, debt.since);
        let index = (0..self.debts.len()).min_by_key(|index| rank(&self.debts[*index].0))?;
        let debt = self.debts[index].0;
        if first.is_some_and(|waiter| (waiter.priority, waiter.since) <= rank(&debt)) {
            return None;
        }
        self.debts.remove(index);
        Some(debt)
    }

    /// Gives a place back for a connection that is too old, if the minimum allows that and its successor can be
    /// expected to open. A pool of fixed size has no room for the successor first: it undercuts the minimum by one
    /// until the next poll.
    pub(super) fn try_retire(&self, budget: &mut impl Budget) -> bool {
        let PoolConfig { size_min, size_max, .. } = self.config;
        let floor = if size_min == size_max { size_min - 1 } else { size_min };
        self.backoff.failures() == 0 && budget.try_give_back(floor)
    }

    /// Spread over the last tenth of the lifetime, so that a pool warmed at once is not replaced at once.
    pub(super) fn lifetime_end(&self, server: ServerId, opened_at: Instant) -> Instant {
        let spread = (server.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u32;
        let lifetime = self.config.lifetime_max;
        opened_at + (lifetime - lifetime / 10 * spread / 256)
    }

    #[cfg(test)]
    pub(super) fn is_too_old(&self, server: ServerId, now: Instant) -> bool {
        let opened_at = self.servers.get(&server).map(|server| server.opened_at);
        opened_at.is_some_and(|opened_at| self.lifetime_end(server, opened_at) <= now)
    }

    fn forget(&mut self, server: ServerId, budget: &mut impl Budget) {
        if self.servers.remove(&server).is_some() {
            budget.give_back();
        }
        self.observe();
    }

    fn doom_idle(&mut self, reason: CloseReason) {
        for idle in std::mem::take(&mut self.idle) {
            self.servers.remove(&idle.server);
            self.doomed.push((idle.server, reason));
        }
    }

    #[inline]
    pub(super) fn observe(&mut self) {
        self.utilisation.observe(self.in_use + self.in_use_elsewhere, self.config.size_max);
    }
}
