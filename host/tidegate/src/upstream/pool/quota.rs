//! Bounds that several pools share: the server connections of one database, or of one user, at one server.
//!
//! A pool that may open no connection since such a bound is reached says since when its client waits. A pool
//! that has an idle connection then closes it, and one whose connection comes back gives it up to a client
//! that has waited for `QUOTA_PATIENCE` and for longer than its own.

use super::shared::SharedPools;
use super::{PoolCell, PoolKey};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tidegate_core::limits::QUOTA_WANT_TIME;
use tidegate_pool::Pressure;

/// What pools share a bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaOf {
    Database,
    User,
}

impl QuotaOf {
    pub(super) const ALL: [Self; 2] = [Self::Database, Self::User];

    fn name(self, key: &PoolKey) -> &Arc<str> {
        match self {
            Self::Database => &key.database,
            Self::User => &key.user,
        }
    }
}

/// The bound of a database or user of this name, if there is one.
pub type QuotaLimits = Box<dyn Fn(QuotaOf, &str) -> Option<usize> + Send + Sync>;

/// All bounds, by server.
#[derive(Default)]
pub(super) struct Quotas {
    limits: Option<QuotaLimits>,
    /// As many as there are databases and users with a pool.
    known: FxHashMap<(usize, QuotaOf, Arc<str>), Arc<Quota>>,
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Quotas {
    fn limit(&self, of: QuotaOf, name: &str) -> usize {
        let limit = self.limits.as_ref().and_then(|limits| limits(of, name));
        limit.unwrap_or(usize::MAX)
    }

    /// The bounds that a pool is under.
    pub(super) fn of(&mut self, key: &PoolKey) -> [Arc<Quota>; QuotaOf::ALL.len()] {
        QuotaOf::ALL.map(|of| {
            let name = of.name(key);
            let limit = self.limit(of, name);
            let place = self.known.entry((key.instance, of, Arc::clone(name)));
            Arc::clone(place.or_insert_with(|| Arc::new(Quota::new(limit))))
        })
    }

    /// Forgets those that no pool is under.
    pub(super) fn forget_unused(&mut self) {
        self.known.retain(|_, quota| Arc::strong_count(quota) > 1);
    }

    fn set_limits(&mut self, limits: QuotaLimits) {
        self.limits = Some(limits);
        for ((_, of, name), quota) in &self.known {
            quota.limit.store(self.limit(*of, name), Ordering::Relaxed);
        }
    }
}

impl SharedPools {
    /// New bounds for databases and users, at once. From any thread.
    pub fn set_quotas(&self, limits: QuotaLimits) {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner).set_limits(limits);
    }
}

impl PoolCell {
    /// The bound, shared with other pools, that keeps this one from opening a connection for its clients.
    pub(super) fn wants_place(&self, now: Instant) -> Option<QuotaOf> {
        let pool = &self.inner.borrow().pool;
        let counts = pool.counts();
        let may_open = self.shared.taken() < pool.config().size_max
            && pool.retry_at().is_none_or(|at| at <= now)
            && !pool.is_paused();
        if counts.waiting <= counts.opening || !may_open {
            return None;
        }
        self.shared.want_place(now - pool.waiting_longest(now), now)
    }
}

/// One bound, over all workers.
#[derive(Debug)]
pub(super) struct Quota {
    taken: AtomicUsize,
    /// `usize::MAX` is none.
    limit: AtomicUsize,
    /// Whether `want` may say something: read where a lock would be too much.
    is_wanted: AtomicBool,
    want: Mutex<Option<Want>>,
}

/// A pool's call for a place.
#[derive(Clone, Copy, Debug)]
struct Want {
    by: u64,
    /// Since when its client waits.
    since: Instant,
    until: Instant,
}

impl Quota {
    fn new(limit: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            is_wanted: AtomicBool::new(false),
            want: Mutex::default(),
        }
    }

    /// A place for the pool `own`, unless another one has called for it.
    pub(super) fn try_take(&self, own: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let next = |taken| (taken < limit).then(|| taken + 1);
        let take = || self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if !self.is_wanted.load(Ordering::Relaxed) {
            return take();
        }
        let mut want = self.want.lock().unwrap_or_else(PoisonError::into_inner);
        if want.is_some_and(|want| want.by != own && want.until > Instant::now()) || !take() {
            return false;
        }
        // Whoever goes on wanting one says so again.
        self.is_wanted.store(false, Ordering::Relaxed);
        *want = None;
        true
    }

    pub(super) fn give_back(&self) {
        let next = |taken: usize| taken.checked_sub(1);
        let before = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        debug_assert!(before.is_ok(), "a place was given back twice");
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed)
    }

    /// The pool `by` has a client that has waited for a place since then.
    pub(super) fn want(&self, by: u64, since: Instant, now: Instant) {
        let mut want = self.want.lock().unwrap_or_else(PoisonError::into_inner);
        if want.is_none_or(|known| known.by == by || known.until <= now || since < known.since) {
            *want = Some(Want { by, since, until: now + QUOTA_WANT_TIME });
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// What it asks of the pool `own`.
    pub(super) fn pressure(&self, own: u64) -> Pressure {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == usize::MAX {
            return Pressure::None;
        }
        if self.taken.load(Ordering::Relaxed) > limit {
            return Pressure::Over;
        }
        if !self.is_wanted.load(Ordering::Relaxed) {
            return Pressure::None;
        }
        let want = *self.want.lock().unwrap_or_else(PoisonError::into_inner);
        match want {
            Some(want) if want.by != own && want.until > Instant::now() => {
                Pressure::Wanted(want.since)
            }
            _ => Pressure::None,
        }
    }
}

/// Where room is to be made for a pool's client: which other pools may have to close an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomIn {
    /// Those of the same server.
    Server,
    /// Those that share a bound as well.
    Quota(QuotaOf),
}

impl RoomIn {
    pub(super) fn includes(self, wanting: &PoolKey, other: &PoolKey) -> bool {
        let shares = match self {
            Self::Server => true,
            Self::Quota(of) => of.name(wanting) == of.name(other),
        };
        shares && other.instance == wanting.instance && other != wanting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bound_is_asked_for_by_the_one_who_waits_longest_and_of_others() {
        let (quota, now) = (Quota::new(1), Instant::now());
        assert!(quota.try_take(1) && quota.is_full() && !quota.try_take(1));
        assert_eq!(quota.pressure(1), Pressure::None);
        let earlier = now - Duration::from_secs(1);
        quota.want(2, now, now);
        quota.want(1, earlier, now);
        quota.want(2, now, now);
        assert_eq!(
            [quota.pressure(1), quota.pressure(2)],
            [Pressure::None, Pressure::Wanted(earlier)]
        );
        quota.give_back();
        assert!(!quota.try_take(2), "the other one comes first");
        assert!(quota.try_take(1));
        assert_eq!(quota.pressure(2), Pressure::None, "it was served");
        quota.limit.store(0, Ordering::Relaxed);
        assert_eq!(quota.pressure(1), Pressure::Over);
    }

    #[test]
    fn a_want_that_nobody_repeats_is_forgotten() {
        let quota = Quota::new(1);
        let before = Instant::now() - QUOTA_WANT_TIME;
        quota.want(2, before, before);
        assert_eq!(quota.pressure(1), Pressure::None);
        let now = Instant::now();
        quota.want(3, now, now);
        assert_eq!(quota.pressure(1), Pressure::Wanted(now));
    }
}
