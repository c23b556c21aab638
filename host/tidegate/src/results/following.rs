//! Writes that do not pass Tidegate: of which databases the log is followed, and what that has brought.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_cache::OutsideCounts;

/// How it stands with one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowState {
    /// The log is asked for, or transactions of before are not over.
    Starting,
    /// Everything that was visible then has been heeded.
    Following(Instant),
    /// Why it is not followed.
    Lost(Arc<str>),
}

/// What is followed, if anything has to be.
#[derive(Debug, Default)]
pub struct FollowedLogs {
    states: Mutex<BTreeMap<Arc<str>, FollowState>>,
    bytes: AtomicU64,
    transactions: AtomicU64,
    taken: AtomicU64,
    renamed: AtomicU64,
    losses: AtomicU64,
}

/// What happened so far, and how it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FollowedCounts {
    pub databases: usize,
    pub followed: usize,
    /// Since the oldest moment up to which everything has been heeded, of those that are followed.
    pub lag: Duration,
    pub bytes: u64,
    pub transactions: u64,
    pub taken: u64,
    pub renamed: u64,
    pub losses: u64,
}

impl FollowedLogs {
    fn states(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, FollowState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stood before.
    pub fn note(&self, database: &Arc<str>, state: FollowState) -> Option<FollowState> {
        if matches!(state, FollowState::Lost(_)) {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        self.states().insert(database.clone(), state)
    }

    /// Nobody wants it any more.
    pub fn forget(&self, database: &str) {
        self.states().remove(database);
    }

    /// The same of all.
    pub fn forget_all(&self) {
        self.states().clear();
    }

    /// How it stands with one.
    pub fn state(&self, database: &str) -> Option<FollowState> {
        self.states().get(database).cloned()
    }

    /// How it stands with each.
    pub fn all(&self) -> Vec<(Arc<str>, FollowState)> {
        self.states().iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    /// So many bytes have come, and what they have brought since `before`.
    pub fn count(&self, bytes: usize, before: OutsideCounts, after: OutsideCounts) {
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.bytes, bytes as u64);
        add(&self.transactions, after.transactions - before.transactions);
        add(&self.taken, after.taken - before.taken);
        add(&self.renamed, after.renamed - before.renamed);
    }

    /// What happened so far.
    pub fn counts(&self, now: Instant) -> FollowedCounts {
        let states = self.states();
        let lags = states.values().filter_map(|state| match state {
            FollowState::Following(as_of) => Some(now.saturating_duration_since(*as_of)),
            FollowState::Starting | FollowState::Lost(_) => None,
        });
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FollowedCounts {
            databases: states.len(),
            followed: lags.clone().count(),
            lag: lags.max().unwrap_or_default(),
            bytes: get(&self.bytes),
            transactions: get(&self.transactions),
            taken: get(&self.taken),
            renamed: get(&self.renamed),
            losses: get(&self.losses),
        }
    }
}
