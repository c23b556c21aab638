//! Commits that clients have been told of, for the day on which their primary is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tidegate_core::limits::COMMITS_KEPT_MAX;

/// One of them. No text, and no value, is kept.
#[derive(Clone, Debug)]
pub struct Commit {
    /// What committed it was not sent before.
    pub sent_at: Instant,
    /// The server had told of it.
    pub acknowledged_at: Instant,
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub application: Arc<str>,
    /// What it did that writes, first of all: `INSERT`, `UPDATE`, …
    pub verb: &'static str,
    /// Whose word it was.
    pub server: Arc<str>,
}

/// One worker's last commits.
#[derive(Debug, Default)]
pub struct Ring {
    commits: VecDeque<Commit>,
    /// When the newest of those was acknowledged that made room for others.
    dropped_at: Option<Instant>,
}

/// A worker's hold of its own. Nobody else wants it but when a primary has been lost.
pub type Kept = Arc<Mutex<Ring>>;

/// All workers'.
#[derive(Debug, Default)]
pub struct Commits {
    wanted: AtomicBool,
    rings: Mutex<Vec<Kept>>,
}

/// What was kept, as far back as it goes.
#[derive(Debug, Default)]
pub struct Recalled {
    pub commits: Vec<Commit>,
    /// Some that were acknowledged up to then are not among them.
    pub dropped_at: Option<Instant>,
}

impl Commits {
    /// For one worker.
    pub fn ring(&self) -> Kept {
        let ring = Kept::default();
        self.rings.lock().unwrap_or_else(PoisonError::into_inner).push(ring.clone());
        ring
    }

    /// Are there replicas, one of which may be primary one day?
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// All that are kept, oldest first.
    pub fn recall(&self) -> Recalled {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recalled = Recalled::default();
        for ring in rings.iter() {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            recalled.commits.extend(ring.commits.iter().cloned());
            recalled.dropped_at = recalled.dropped_at.max(ring.dropped_at);
        }
        recalled.commits.sort_by_key(|commit| commit.acknowledged_at);
        recalled
    }
}

/// Before its client is told.
pub fn keep(ring: &Kept, commit: Commit) {
    let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
    if ring.commits.len() >= COMMITS_KEPT_MAX {
        ring.dropped_at = ring.commits.pop_front().map(|oldest| oldest.acknowledged_at);
    }
    ring.commits.push_back(commit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_last_ones_are_kept_and_it_is_known_that_others_are_not() {
        let commits = Commits::default();
        let (first, second) = (commits.ring(), commits.ring());
        let start = Instant::now();
        let commit = |ms: u64| Commit {
            sent_at: start,
            acknowledged_at: start + Duration::from_millis(ms),
            user: "u".into(),
            database: "d".into(),
            application: "a".into(),
            verb: "INSERT",
            server: "primary".into(),
        };
        keep(&second, commit(1));
        assert_eq!(commits.recall().dropped_at, None);
        for ms in 0..=COMMITS_KEPT_MAX as u64 {
            keep(&first, commit(2 * ms));
        }
        let recalled = commits.recall();
        assert_eq!(recalled.dropped_at, Some(start));
        assert_eq!(recalled.commits.len(), COMMITS_KEPT_MAX + 1);
        assert!(recalled.commits.is_sorted_by_key(|commit| commit.acknowledged_at));
    }
}
