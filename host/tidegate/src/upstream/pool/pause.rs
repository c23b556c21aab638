//! What operators order about pools: pause, resume, reconnect; and how far that has come.
//!
//! An order is a flag in what the workers share. Each worker heeds it at the next event of a pool, at its
//! next tick at the latest, or at once when it is told to (`Pools::maintain`).

use super::cell::Inner;
use super::shared::{SharedPool, SharedPools};
use super::{PoolCell, PoolKey};
use std::sync::PoisonError;
use std::time::Instant;
use tidegate_core::pool::{Pauses, TooManyNames};

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

/// Whether the pool is of this database; none is every one.
fn is_of(key: &PoolKey, database: Option<&str>) -> bool {
    database.is_none_or(|wanted| wanted == &*key.database)
}

impl Inner {
    /// Does what operators have ordered meanwhile.
    #[inline]
    pub(super) fn heed(&mut self, shared: &SharedPool, now: Instant) {
        self.pool.set_generation(shared.generation());
        if shared.is_paused() != self.pool.is_paused() {
            self.turn(shared, now);
        }
    }

    #[cold]
    fn turn(&mut self, shared: &SharedPool, now: Instant) {
        if shared.is_paused() {
            self.pool.pause(now);
        } else {
            self.pool.resume(now);
            // What failed before the pause says nothing of the server that is there now.
            self.breaker = tidegate_core::breaker::Breaker::new(now);
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
