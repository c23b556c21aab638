//! What operators order about pools: pause, resume, reconnect; and how far that has come.
//!
//! An order is a flag in what the workers share. Each worker heeds it at the next event of a pool, at its
//! next tick at the latest, or at once when it is told to (`Pools::maintain`).

use super::cell::Inner;
use super::shared::{SharedInstance, SharedPool, SharedPools};
use super::{PoolCell, PoolKey};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Instant;
use tidegate_pool::{Pauses, TooManyNames, WorkerId};

/// What is left of the server connections that an order is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Open, or being opened or moved.
    pub open: usize,
    /// Of these, lent to a client, as the workers last told.
    pub in_use: usize,
}

impl SharedPools {
    /// Holds the clients of a database, or of all, and closes its server connections as they come free.
    /// From any thread.
    ///
    /// # Errors
    /// Too many databases are paused by name; nothing has changed.
    pub fn pause(&self, database: Option<&str>) -> Result<(), TooManyNames> {
        self.change_pauses(|pauses| pauses.pause(database))
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// Too many databases are exceptions to a pause of all; nothing has changed.
    pub fn resume(&self, database: Option<&str>) -> Result<(), TooManyNames> {
        self.change_pauses(|pauses| pauses.resume(database))
    }

    /// What is paused.
    pub fn pauses(&self) -> Pauses {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change_pauses(
        &self,
        change: impl FnOnce(&mut Pauses) -> Result<(), TooManyNames>,
    ) -> Result<(), TooManyNames> {
        // Held while the pools are told: a pool that is made meanwhile asks after that.
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut pauses)?;
        self.for_each(|key, pool| pool.set_paused(pauses.is_paused(&key.database)));
        Ok(())
    }

    /// The server connections of a database, or of all: exact once every worker has heeded a pause.
    pub fn held(&self, database: Option<&str>) -> Held {
        let mut held = Held::default();
        self.for_each(|key, pool| {
            if is_of(key, database) {
                held.open += pool.taken();
                held.in_use += pool.in_use();
            }
        });
        held
    }
}

/// While it lives, clients of the primary's pools are held, as by a pause: it is not certain that it is the primary.
#[derive(Debug)]
pub struct PrimaryHold {
    pools: Arc<SharedPools>,
    instance: Arc<SharedInstance>,
}

impl SharedPools {
    /// Holds the clients of the primary's pools. From any thread.
    pub fn hold_primary(self: &Arc<Self>) -> PrimaryHold {
        let instance = self.instance(0);
        instance.holds.fetch_add(1, Ordering::Relaxed);
        PrimaryHold { pools: Arc::clone(self), instance }
    }

    /// From then on clients of the primary's pools are held, until another moment is set; `None`: they are not. So a process that
    /// was stopped for a while sends nothing to a primary that may have been replaced meanwhile. From any thread.
    pub fn hold_primary_from(&self, moment: Option<Instant>) {
        let instance = self.instance(0);
        let was_held = instance.is_held();
        let ms = moment.map_or(0, ms_of);
        instance.held_from_ms.store(ms, Ordering::Release);
        if was_held
            && !instance.is_held()
            && let Some(nudge) = self.nudge.get()
        {
            nudge();
        }
    }

    /// What has every worker look at once whether its clients are held. The first one given counts.
    pub fn set_nudge(&self, nudge: impl Fn() + Send + Sync + 'static) {
        let _ = self.nudge.set(Box::new(nudge));
    }

    /// Of the connections to one server, those that are lent, as the workers last told.
    pub fn in_use(&self, instance: usize) -> usize {
        let mut in_use = 0;
        self.for_each(|key, pool| {
            if key.instance == instance {
                in_use += pool.in_use();
            }
        });
        in_use
    }
}

impl Drop for PrimaryHold {
    fn drop(&mut self) {
        let before = self.instance.holds.fetch_sub(1, Ordering::Release);
        if before == 1
            && let Some(nudge) = self.pools.nudge.get()
        {
            nudge();
        }
    }
}

impl SharedInstance {
    pub(super) fn is_held(&self) -> bool {
        // Who sees that the last hold has ended sees what was changed before.
        self.holds.load(Ordering::Acquire) > 0 || self.is_past()
    }

    /// The clock is looked at only where there is a moment.
    fn is_past(&self) -> bool {
        let from_ms = self.held_from_ms.load(Ordering::Acquire);
        from_ms != 0 && ms_of(Instant::now()) >= from_ms
    }
}

/// Since this process first asked, which was at 1.
fn ms_of(moment: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let ms = moment.saturating_duration_since(*START).as_millis();
    u64::try_from(ms).unwrap_or(u64::MAX).saturating_add(1)
}

/// Whether the pool is of this database; none is every one.
fn is_of(key: &PoolKey, database: Option<&str>) -> bool {
    database.is_none_or(|wanted| wanted == &*key.database)
}

impl Inner {
    /// What the other workers and operators did meanwhile, and tells them what there is here.
    pub(super) fn learn(
        &mut self,
        shared: &SharedPool,
        instance: &SharedInstance,
        worker: WorkerId,
        now: Instant,
    ) {
        let counts = self.pool.counts();
        self.pool.handle_elsewhere(shared.exchange(worker, counts));
        shared.tell_breaker(worker, self.breaker.state());
        self.heed(shared, instance, now);
        if counts.in_use > 0 {
            self.used_at = now;
        }
    }

    /// Does what operators have ordered meanwhile.
    #[inline]
    pub(super) fn heed(&mut self, shared: &SharedPool, instance: &SharedInstance, now: Instant) {
        // In this order: a hold ends after the generation has changed.
        let is_held = shared.is_paused() || instance.is_held();
        self.pool.set_generation(shared.generation());
        if is_held != self.pool.is_paused() {
            self.turn(is_held, now);
        }
    }

    #[cold]
    fn turn(&mut self, is_held: bool, now: Instant) {
        if is_held {
            self.pool.pause(now);
        } else {
            self.pool.resume(now);
            // What failed before the pause says nothing of the server that is there now.
            self.breaker = tidegate_pool::breaker::Breaker::new(now);
            self.last_failure = None;
        }
    }
}

impl PoolCell {
    /// Whether an operator holds its clients.
    pub(super) fn is_paused(&self) -> bool {
        self.inner.borrow().pool.is_paused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn clients_of_the_primary_are_held_from_a_moment_on() {
        let pools = SharedPools::new(1);
        let is_held = || pools.instance(0).is_held();
        let hour = Duration::from_secs(3_600);
        pools.hold_primary_from(Some(Instant::now()));
        assert!(is_held() && !pools.instance(1).is_held());
        pools.hold_primary_from(Some(Instant::now() + hour));
        assert!(!is_held());
        let hold = pools.hold_primary();
        assert!(is_held());
        drop(hold);
        pools.hold_primary_from(None);
        assert!(!is_held());
    }
}
