//! Databases whose log is followed: where all have to be, nothing is kept of the others, nor given.
//!
//! Who follows a database holds a lease on it, as of when everything that was visible there had been heeded. When that is over, and
//! nobody says so, nothing is given until it is renewed: what has been heeded by then stands.

use super::{Store, Tag};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Instant;

/// By database: whose lease, and until when.
pub(super) type Followed = FxHashMap<Arc<str>, (u64, Instant)>;

impl Store {
    /// From now on every database has to be followed.
    pub fn follow(&mut self) {
        self.followed.get_or_insert_default();
    }

    /// How often everything was forgotten: who follows since before has to begin anew.
    pub fn age(&self) -> u32 {
        self.age
    }

    /// From now on somebody follows the database: nothing that was kept before stands. The number is of this lease alone.
    pub fn begin_lease(&mut self, database: &Arc<str>, until: Instant, now: Instant) -> u64 {
        let lease = self.next_version();
        if let Some(followed) = &mut self.followed {
            followed.insert(database.clone(), (lease, until));
        }
        self.bump(&[Tag::Database(database.clone())], now);
        lease
    }

    /// It holds until then, if it is the one that was begun last.
    pub fn renew_lease(&mut self, database: &Arc<str>, lease: u64, until: Instant) {
        let held = self.followed.as_mut().and_then(|followed| followed.get_mut(database));
        if let Some((_, held_until)) = held.filter(|(held, _)| *held == lease) {
            *held_until = (*held_until).max(until);
        }
    }

    /// Nobody follows it any more: nothing of it stands.
    pub fn end_lease(&mut self, database: &Arc<str>, lease: u64, now: Instant) {
        let Some(followed) = &mut self.followed else { return };
        if followed.get(database).is_some_and(|(held, _)| *held == lease) {
            followed.remove(database);
            self.bump(&[Tag::Database(database.clone())], now);
        }
    }

    /// Is it, where it has to be?
    pub fn is_followed(&self, database: &Arc<str>, now: Instant) -> bool {
        let Some(followed) = &self.followed else { return true };
        followed.get(database).is_some_and(|(_, until)| now < *until)
    }

    pub(super) fn forget_followed(&mut self) {
        if let Some(followed) = &mut self.followed {
            followed.clear();
        }
    }
}
