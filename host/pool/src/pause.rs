//! PAUSE and RESUME: an operator takes a database's server connections away, and gives them back.
//!
//! ```text
//!   Running ---- pause ---> Paused ---- resume ---> Resumed
//!                             ^                        |
//!                             +-------- pause ---------+
//! ```
//!
//! While a pool is paused nothing is granted and nothing opened; idle connections close at once, others
//! when they come back. Clients wait in the queue, in order. Their wait does not count against `wait_max`,
//! which begins anew at the resume; `pause_max` bounds it instead.

use super::state::Pool;
use super::*;
use std::collections::BTreeSet;

/// Whether an operator holds the pool's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Running,
    /// Since then.
    Paused(Instant),
    /// It was paused, until then.
    Resumed(Instant),
}

impl Pool {
    pub fn is_paused(&self) -> bool {
        matches!(self.hold, Hold::Paused(_))
    }

    /// Grants and opens nothing any more. Idle connections close at the next poll, used ones when they come
    /// back, also where clients wait.
    pub fn pause(&mut self, now: Instant) {
        if self.is_paused() {
            return;
        }
        self.hold = Hold::Paused(now);
        self.doom_idle(CloseReason::Paused);
    }

    /// Clients that were held go on, in order; poll to open connections for them.
    pub fn resume(&mut self, now: Instant) {
        if self.is_paused() {
            self.hold = Hold::Resumed(now);
            self.retry_now();
        }
    }

    /// When this client's wait ends, and which bound ends it.
    pub(super) fn wait_end(&self, waiter: &Waiter) -> (Instant, WaitBound) {
        let PoolConfig { wait_max, pause_max, .. } = self.config;
        match self.hold {
            Hold::Running => (waiter.since + wait_max, WaitBound::WaitMax),
            Hold::Resumed(at) => (waiter.since.max(at) + wait_max, WaitBound::WaitMax),
            Hold::Paused(at) => (waiter.since.max(at) + pause_max, WaitBound::PauseMax),
        }
    }
}

/// Which databases are paused: all but some, or none but some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    all: bool,
    /// Those for which the opposite of `all` holds. At most `PAUSED_DATABASES_MAX`.
    others: BTreeSet<Box<str>>,
}

/// More databases are named than can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyNames;

impl Pauses {
    pub fn is_paused(&self, database: &str) -> bool {
        self.all != self.others.contains(database)
    }

    /// Whether any database is.
    pub fn is_any(&self) -> bool {
        self.all || !self.others.is_empty()
    }

    /// Whether every database is that is not named.
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// The databases that are named: exceptions where all are paused, else those that are.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(AsRef::as_ref)
    }

    /// # Errors
    /// Too many databases are named; nothing has changed.
    pub fn pause(&mut self, scope: Option<&str>) -> Result<(), TooManyNames> {
        self.set(scope, true)
    }

    /// # Errors
    /// Too many databases are named; nothing has changed.
    pub fn resume(&mut self, scope: Option<&str>) -> Result<(), TooManyNames> {
        self.set(scope, false)
    }

    fn set(&mut self, scope: Option<&str>, paused: bool) -> Result<(), TooManyNames> {
        match scope {
            None => *self = Self { all: paused, others: BTreeSet::new() },
            Some(database) if self.all == paused => {
                self.others.remove(database);
            }
            Some(_) if self.others.len() >= limits::PAUSED_DATABASES_MAX => {
                return Err(TooManyNames);
            }
            Some(database) => {
                self.others.insert(database.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_paused_one_by_one_or_all_but_some() {
        let mut pauses = Pauses::default();
        assert!(!pauses.is_any());
        pauses.pause(Some("shop")).unwrap();
        pauses.pause(Some("shop")).unwrap();
        assert!(pauses.is_paused("shop") && !pauses.is_paused("reports") && !pauses.is_all());
        pauses.pause(None).unwrap();
        pauses.resume(Some("reports")).unwrap();
        assert!(pauses.is_paused("shop") && !pauses.is_paused("reports") && pauses.is_all());
        assert_eq!(pauses.named().collect::<Vec<_>>(), ["reports"]);
        pauses.pause(Some("reports")).unwrap();
        assert!(pauses.is_paused("reports"));
        pauses.resume(None).unwrap();
        assert!(!pauses.is_any() && !pauses.is_paused("shop"));
    }

    #[test]
    fn names_are_bounded() {
        let mut pauses = Pauses::default();
        for number in 0..limits::PAUSED_DATABASES_MAX {
            pauses.pause(Some(&format!("d{number}"))).unwrap();
        }
        assert_eq!(pauses.pause(Some("one more")), Err(TooManyNames));
        pauses.resume(Some("d0")).unwrap();
        pauses.pause(Some("one more")).unwrap();
    }
}
