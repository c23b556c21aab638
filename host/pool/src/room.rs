//! A server without room: which idle connection of another pool makes way for a client that waits.

use super::state::Pool;
use super::*;
use tidegate_core::limits::{ROOM_PAUSE, ROOM_TRIES_MAX};

/// What a part of a pool could give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    /// Idle connections above the pool's minimum; at least one.
    pub count: usize,
    /// Since when the one that would go is idle.
    pub idle_since: Instant,
}

/// Whose idle connection goes: of the pool with the most above its minimum, and of several the one
/// that is idle for longest.
pub fn give_up<K>(spares: impl IntoIterator<Item = (K, Spare)>) -> Option<K> {
    let rank = |spare: &Spare| (spare.count, std::cmp::Reverse(spare.idle_since));
    let chosen = spares.into_iter().max_by_key(|(_, spare)| rank(spare));
    chosen.map(|(key, _)| key)
}

impl Pool {
    /// What this part could give up for another pool's client.
    pub fn spare(&self, budget: &impl Budget) -> Option<Spare> {
        let idle_since = self.idle.front()?.since;
        if self.opening > 0 {
            // It may fail: the minimum must not count on it.
            return None;
        }
        let above = budget.taken().saturating_sub(self.config.size_min);
        let count = self.idle.len().min(above);
        (count > 0).then_some(Spare { count, idle_since })
    }

    /// Gives up the connection that is idle for longest, unless the minimum keeps it: close it.
    pub fn give_up_idle(&mut self, budget: &mut impl Budget) -> Option<(ServerId, CloseReason)> {
        self.spare(budget)?;
        if !budget.try_give_back(self.config.size_min) {
            return None;
        }
        let closed = self.close_idle(0, CloseReason::MadeRoom);
        self.observe();
        closed
    }

    /// Whether others should make room when the server has none: somebody waits here, and it has not
    /// been in vain too often.
    pub fn may_ask_for_room(&self) -> bool {
        !self.waiters.is_empty() && self.room_tries < ROOM_TRIES_MAX
    }

    /// The attempt found the server full, and others make room: nobody is told, and the next attempt
    /// comes after a moment. Attempts that ran at the same time are one try.
    pub fn handle_crowded(&mut self, now: Instant, budget: &mut impl Budget) {
        self.opening = self.opening.saturating_sub(1);
        budget.give_back();
        if self.backoff.is_ready(now) {
            self.room_tries += 1;
            self.backoff.hold_until(now + ROOM_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_with_most_above_its_minimum_gives_up_its_longest_idle_one() {
        let now = Instant::now();
        let spare =
            |count, seconds| Spare { count, idle_since: now - Duration::from_secs(seconds) };
        assert_eq!(give_up::<u8>([]), None);
        let spares =
            [("few, long", spare(1, 900)), ("many", spare(4, 1)), ("as many", spare(4, 9))];
        assert_eq!(give_up(spares), Some("as many"));
    }
}
