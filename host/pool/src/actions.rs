//! What is due in a pool: connections to open and close, waits that end, warnings, calls for help.

use super::state::{Mode, Pool, Replacement, Warming};
use super::*;
use tidegate_core::limits::{
    POOL_BEG_AFTER, POOL_BEG_INTERVAL, POOL_CONNECTING_MAX, POOL_IDLE_RECHECK,
};

impl Pool {
    /// The next thing to do. Poll after every event but the hot ones (a grant, a release that
    /// became `Idle` or `HandTo`), and at `poll_timeout`.
    pub fn poll_action(&mut self, now: Instant, budget: &mut impl Budget) -> Option<PoolAction> {
        if let Some((server, reason)) = self.doomed.pop() {
            budget.give_back();
            return Some(PoolAction::Close(server, reason));
        }
        if let Some((waiter, attempts)) = self.failed.pop_front() {
            return Some(PoolAction::Fail { waiter, attempts });
        }
        if let Some(expired) = self.poll_expired(now, budget) {
            return Some(PoolAction::Expire(expired));
        }
        if let Some(crossing) = self.utilisation.poll() {
            return Some(PoolAction::Utilisation(crossing));
        }
        if let Some((server, reason)) = self.poll_close(now, budget) {
            return Some(PoolAction::Close(server, reason));
        }
        if self.may_open(now, budget) {
            self.opening += 1;
            let number = self.backoff.failures() + 1;
            return Some(PoolAction::Open(Attempt { number, generation: self.generation }));
        }
        self.poll_beg(now)
    }

    /// When to poll again though nothing happens: a waiter's deadline, the next attempt, an idle
    /// connection that is due, the next call for help.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expires = self.waiters.oldest().map(|waiter| self.wait_end(&waiter).0);
        let idle = self.idle.front().filter(|_| self.opening == 0).map(|idle| {
            let due = idle.since + self.config.idle_max;
            let due = self.age_due.map_or(due, |at| at.min(due));
            self.idle_recheck_at.map_or(due, |at| at.max(due))
        });
        [expires, self.open_due, idle, self.beg_due()].into_iter().flatten().min()
    }

    fn poll_expired(&mut self, now: Instant, budget: &impl Budget) -> Option<Expired> {
        let waiter = self.waiters.oldest()?;
        let (end, bound) = self.wait_end(&waiter);
        if now < end {
            return None;
        }
        self.waiters.remove(waiter.client);
        Some(Expired {
            waiter: waiter.client,
            bound,
            waited: now.saturating_duration_since(waiter.since),
            waiting: self.waiters.len(),
            size: budget.taken(),
            size_max: self.config.size_max,
        })
    }

    /// Whether to open a connection now; takes its place in the budget.
    fn may_open(&mut self, now: Instant, budget: &mut impl Budget) -> bool {
        if self.is_paused() {
            self.open_due = None;
            return false;
        }
        let below = self.mode == Mode::Open && budget.taken() < self.config.size_min;
        self.warming = match self.warming {
            Warming::Dormant => Warming::Dormant,
            _ if below => Warming::Below,
            _ => Warming::Wanted,
        };
        self.open_due = None;
        // After a failure one attempt at a time: it stands for all.
        let connecting_max = if self.backoff.failures() > 0 { 1 } else { POOL_CONNECTING_MAX };
        if self.opening >= connecting_max {
            return false;
        }
        let is_waited_for = self.waiters.len() > self.opening;
        if !self.backoff.is_ready(now) {
            let is_wanted = is_waited_for || self.warming == Warming::Below;
            self.open_due = self.backoff.retry_at().filter(|_| is_wanted);
            return false;
        }
        if is_waited_for && budget.try_take(self.config.size_max) {
            return true;
        }
        if self.warming == Warming::Below && budget.try_take(self.config.size_min) {
            return true;
        }
        if self.replacement == Replacement::Due
            && self.warming != Warming::Dormant
            && self.too_old(now).is_some()
            && budget.try_take(self.config.size_max)
        {
            self.replacement = Replacement::None;
            return true;
        }
        false
    }

    /// A part that serves its clients, if slowly, leaves the others alone for a while: where every
    /// part is busy, moving connections around helps nobody.
    fn beg_due(&self) -> Option<Instant> {
        if self.is_paused() || self.waiters.len() <= self.opening {
            return None;
        }
        let since = self.waiters.oldest()?.since;
        let has_none = self.in_use + self.opening == 0;
        let due = if has_none { since } else { since + POOL_BEG_AFTER };
        Some(self.beg_at.map_or(due, |at| at.max(due)))
    }

    fn poll_beg(&mut self, now: Instant) -> Option<PoolAction> {
        self.beg_due().filter(|due| *due <= now)?;
        let Waiter { priority, since, .. } = self.waiters.first()?;
        self.beg_at = Some(now + POOL_BEG_INTERVAL);
        Some(PoolAction::Beg { priority, since })
    }

    fn poll_close(
        &mut self,
        now: Instant,
        budget: &mut impl Budget,
    ) -> Option<(ServerId, CloseReason)> {
        let coldest = *self.idle.front()?;
        if budget.try_give_back(self.config.size_max) {
            return self.close_idle(0, CloseReason::OverMaximum);
        }
        if budget.pressure() == Pressure::Over {
            budget.give_back();
            return self.close_idle(0, CloseReason::OverMaximum);
        }
        // A connection that is being opened may fail: the minimum must not count on it.
        if self.opening > 0 || self.idle_recheck_at.is_some_and(|at| at > now) {
            return None;
        }
        self.replacement = Replacement::None;
        let is_idle_too_long = now.saturating_duration_since(coldest.since) >= self.config.idle_max;
        if is_idle_too_long && budget.try_give_back(self.config.size_min) {
            return self.close_idle(0, CloseReason::IdleTooLong);
        }
        if let Some(index) = self.too_old(now) {
            if self.try_retire(budget) {
                return self.close_idle(index, CloseReason::TooOld);
            }
            // The minimum holds it until its successor is there.
            self.replacement = Replacement::Due;
            self.idle_recheck_at = Some(now + POOL_IDLE_RECHECK);
        } else if is_idle_too_long {
            // The minimum keeps it. Other workers may change that, so look again.
            self.idle_recheck_at = Some(now + POOL_IDLE_RECHECK);
        }
        None
    }

    pub(super) fn close_idle(
        &mut self,
        index: usize,
        reason: CloseReason,
    ) -> Option<(ServerId, CloseReason)> {
        let idle = self.idle.remove(index)?;
        self.servers.remove(&idle.server);
        Some((idle.server, reason))
    }

    /// An idle connection past its lifetime. Scans, but only when one may be due.
    fn too_old(&mut self, now: Instant) -> Option<usize> {
        if self.age_due.is_none_or(|at| at > now) {
            return None;
        }
        let ends = |index: &usize| {
            let server = self.idle[*index].server;
            let opened_at = self.servers.get(&server).map_or(now, |server| server.opened_at);
            self.lifetime_end(server, opened_at)
        };
        let first = (0..self.idle.len()).min_by_key(ends)?;
        let due = ends(&first);
        self.age_due = Some(due);
        (due <= now).then_some(first)
    }
}
