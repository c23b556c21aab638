//! Where a connection that nobody uses goes, and when it is too old.

use super::state::{Idle, Mode, Place, Pool, Server};
use super::*;

impl Pool {
    pub(super) fn adopt(&mut self, donation: Donation) {
        let Donation { server, opened_at, generation } = donation;
        self.servers.insert(server, Server { opened_at, generation, place: Place::InUse });
    }

    /// Finds the place of a connection that is in the books and that nobody uses.
    #[inline]
    pub(super) fn place(
        &mut self,
        id: ServerId,
        now: Instant,
        budget: &mut impl Budget,
    ) -> Released {
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
        if self.is_paused() {
            budget.give_back();
            return Released::Close(CloseReason::Paused);
        }
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
        match budget.pressure() {
            Pressure::None => {}
            Pressure::Over => {
                budget.give_back();
                return Released::Close(CloseReason::OverMaximum);
            }
            Pressure::Wanted(since) => {
                if first.is_none_or(|waiter| since < waiter.since) {
                    budget.give_back();
                    return Released::Close(CloseReason::MadeRoom);
                }
            }
        }
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

    /// Gives a place back for a connection that is too old, if the minimum allows that and its
    /// successor can be expected to open. A pool of fixed size has no room for the successor first:
    /// it undercuts the minimum by one until the next poll.
    pub(super) fn try_retire(&self, budget: &mut impl Budget) -> bool {
        let PoolConfig { size_min, size_max, .. } = self.config;
        let floor = if size_min == size_max { size_min - 1 } else { size_min };
        self.backoff.failures() == 0 && budget.try_give_back(floor)
    }

    /// Spread over the last tenth of the lifetime, so that a pool warmed at once is not replaced at
    /// once.
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

    pub(super) fn forget(&mut self, server: ServerId, budget: &mut impl Budget) {
        if self.servers.remove(&server).is_some() {
            budget.give_back();
        }
        self.observe();
    }

    pub(super) fn doom_idle(&mut self, reason: CloseReason) {
        for idle in std::mem::take(&mut self.idle) {
            self.servers.remove(&idle.server);
            self.doomed.push((idle.server, reason));
        }
    }
}
