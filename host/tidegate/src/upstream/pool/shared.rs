//! What all workers share: a count of connections for each pool, and messages about moving them.

use super::quota::{Quota, QuotaOf, Quotas, RoomIn};
use super::{MovedServer, PoolKey};
use crate::observe::served::ServersStats;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tidegate_core::ids::ServerId;
use tidegate_core::limits::QUOTA_PATIENCE;
use tidegate_pool::breaker::BreakerState;
use tidegate_pool::{
    Budget, Counts, Elsewhere, Generation, Pauses, Pressure, Priority, Recovery, WasLost, WorkerId,
};

/// Pools of which it is told at once that something is wrong with them.
const POOL_TROUBLES_MAX: usize = 32;

/// The counts of all pools. A worker locks it when it first sees a pool, never after.
pub struct SharedPools {
    workers: usize,
    next_server: AtomicU64,
    pools: Mutex<FxHashMap<PoolKey, Arc<SharedPool>>>,
    /// Which databases are paused. Locked before `pools`.
    pub(super) pauses: Mutex<Pauses>,
    /// Locked after `pools`.
    pub(super) quotas: Mutex<Quotas>,
    next_pool: AtomicU64,
    /// Has the workers look at what is ordered, when it is not to wait for their ticks.
    pub(super) nudge: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// What each server has done, by its name.
    pub served: ServersStats,
    /// By `PoolKey::instance`. As many as ever were configured at a time.
    instances: Mutex<FxHashMap<usize, Arc<SharedInstance>>>,
}

/// What all pools of all workers know of one server.
#[derive(Debug, Default)]
pub(super) struct SharedInstance {
    recovery: Mutex<Recovery>,
    /// Whether `recovery` says so: read where a lock would be too much.
    is_lost: AtomicBool,
    /// Health checks have had no answer from it for a while.
    is_gone: AtomicBool,
    /// How often the server has come back.
    recoveries: AtomicU64,
    /// How many reasons there are to hold clients of its pools, while it is not certain which server it is.
    pub(super) holds: AtomicUsize,
    /// From when on they are held in any case, in milliseconds of this process; 0: never.
    pub(super) held_from_ms: AtomicU64,
}

/// The counts of one pool over all workers.
#[derive(Debug)]
pub(super) struct SharedPool {
    id: u64,
    taken: AtomicUsize,
    /// What it shares with other pools, as in `QuotaOf::ALL`.
    quotas: [Arc<Quota>; 2],
    generation: AtomicU64,
    /// Whether an operator holds its clients.
    is_paused: AtomicBool,
    /// Whether its database is about to be dropped: a part that no client holds closes what it has.
    is_vacated: AtomicBool,
    /// Whether the utilisation warning stands, so that only one worker logs it.
    pub(super) is_warned: AtomicBool,
    /// By worker, as each last told.
    parts: Box<[SharedPart]>,
}

/// One worker's part of a pool in numbers, for the others.
#[derive(Debug, Default)]
struct SharedPart {
    idle: AtomicUsize,
    in_use: AtomicUsize,
    /// Its circuit breaker is not closed.
    is_tripped: AtomicBool,
}

/// What is wrong with a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolTrouble {
    /// A worker's circuit breaker is open, or lets a probe through.
    Tripped,
    /// The utilisation warning stands.
    NearlyUsedUp,
}

impl std::fmt::Debug for SharedPools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedPools").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl SharedPools {
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers,
            next_server: AtomicU64::new(1),
            pools: Mutex::default(),
            pauses: Mutex::default(),
            quotas: Mutex::default(),
            next_pool: AtomicU64::new(1),
            nudge: OnceLock::new(),
            served: ServersStats::new(workers),
            instances: Mutex::default(),
        })
    }

    /// Connections of the pools that match are used no more: idle ones close within a tick of their
    /// workers, others when they come back. From any thread.
    pub fn reconnect(&self, matches: impl Fn(&PoolKey) -> bool) {
        self.for_each(|key, pool| {
            if matches(key) {
                pool.generation.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// These databases are about to be dropped, for which nobody may be connected to them; the server
    /// waits five seconds for that. Parts of their pools that no client holds are given up at their workers' next ticks.
    pub fn vacate(&self, databases: &[String]) {
        if !databases.is_empty() {
            self.for_each(|key, pool| {
                if databases.iter().any(|name| **name == *key.database) {
                    pool.set_vacated(true);
                }
            });
        }
    }

    /// Pools that something is wrong with, in order; of many, some.
    pub fn troubles(&self) -> Vec<(PoolKey, PoolTrouble)> {
        let mut troubles = Vec::new();
        self.for_each(|key, pool| {
            let is_tripped = pool.parts.iter().any(|part| part.is_tripped.load(Ordering::Relaxed));
            if troubles.len() < POOL_TROUBLES_MAX && is_tripped {
                troubles.push((key.clone(), PoolTrouble::Tripped));
            }
            if troubles.len() < POOL_TROUBLES_MAX && pool.is_warned.load(Ordering::Relaxed) {
                troubles.push((key.clone(), PoolTrouble::NearlyUsedUp));
            }
        });
        troubles.sort_by(|(one, _), (other, _)| one.cmp(other));
        troubles
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&PoolKey, &SharedPool)) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().for_each(|(key, pool)| visit(key, pool));
    }

    pub(super) fn pool(&self, key: &PoolKey) -> Arc<SharedPool> {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::new(SharedPool {
                id: self.next_pool.fetch_add(1, Ordering::Relaxed),
                taken: AtomicUsize::new(0),
                quotas: quotas.of(key),
                generation: AtomicU64::new(0),
                is_vacated: AtomicBool::new(false),
                is_paused: AtomicBool::new(pauses.is_paused(&key.database)),
                is_warned: AtomicBool::new(false),
                parts: (0..self.workers).map(|_| SharedPart::default()).collect(),
            })
        };
        Arc::clone(pools.entry(key.clone()).or_insert_with(new))
    }

    /// The worker but `worker` with most idle connections in pools that may make room for the pool `key`.
    pub(super) fn most_idle(
        &self,
        worker: WorkerId,
        key: &PoolKey,
        room: RoomIn,
    ) -> Option<WorkerId> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle = vec![0; self.workers];
        for (other, pool) in pools.iter() {
            if room.includes(key, other) {
                for (sum, part) in idle.iter_mut().zip(&pool.parts) {
                    *sum += part.idle.load(Ordering::Relaxed);
                }
            }
        }
        let others = idle.into_iter().enumerate().filter(|(index, _)| *index != worker.0);
        let (index, most) = others.max_by_key(|(_, idle)| *idle)?;
        (most > 0).then_some(WorkerId(index))
    }

    pub(super) fn instance(&self, instance: usize) -> Arc<SharedInstance> {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(instances.entry(instance).or_default())
    }

    /// Somebody outside the pools got an answer from the server: pools that hold back may try again.
    pub fn handle_answered(&self, instance: usize) {
        self.instance(instance).handle_answered();
    }

    /// Health checks have had no answer from the server for a while: its pools reject at once whom no open connection can
    /// serve.
    pub fn handle_gone(&self, instance: usize, now: Instant) {
        self.instance(instance).handle_gone(now);
    }

    /// Other servers may have these numbers now.
    pub fn forget_gone(&self) {
        let instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        instances.values().for_each(|instance| instance.is_gone.store(false, Ordering::Relaxed));
    }

    /// Forgets the counts of pools no worker has any more.
    pub(super) fn forget_unused(&self) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody can take another reference while the map is locked.
        pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner).forget_unused();
    }

    pub(super) fn next_server(&self) -> ServerId {
        ServerId(self.next_server.fetch_add(1, Ordering::Relaxed))
    }
}

impl SharedInstance {
    fn recovery(&self) -> MutexGuard<'_, Recovery> {
        self.recovery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle_lost(&self, now: Instant) {
        let mut recovery = self.recovery();
        recovery.handle_lost(now);
        self.is_lost.store(true, Ordering::Relaxed);
    }

    fn handle_gone(&self, now: Instant) {
        self.handle_lost(now);
        self.is_gone.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// A client wants a connection of a pool that holds back.
    pub(super) fn handle_wanted(&self, now: Instant) {
        self.recovery().handle_wanted(now);
    }

    /// The server answered an attempt.
    pub(super) fn handle_answered(&self) {
        if !self.is_lost.load(Ordering::Relaxed) {
            return;
        }
        let mut recovery = self.recovery();
        self.is_lost.store(false, Ordering::Relaxed);
        self.is_gone.store(false, Ordering::Relaxed);
        if recovery.handle_answered() == WasLost::Yes {
            self.recoveries.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn handle_probe_failed(&self, now: Instant) {
        self.recovery().handle_probe_failed(now);
    }

    /// Whether the one who asks is to probe now.
    pub(super) fn poll_probe(&self, now: Instant) -> bool {
        self.is_lost.load(Ordering::Relaxed) && self.recovery().poll_probe(now)
    }

    pub(super) fn recoveries(&self) -> u64 {
        self.recoveries.load(Ordering::Relaxed)
    }
}

impl SharedPool {
    /// Whether this worker's circuit breaker is closed.
    pub(super) fn tell_breaker(&self, worker: WorkerId, state: BreakerState) {
        if let Some(part) = self.parts.get(worker.0) {
            part.is_tripped.store(state != BreakerState::Closed, Ordering::Relaxed);
        }
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Relaxed))
    }

    fn give_back_own(&self) {
        let next = |taken: usize| taken.checked_sub(1);
        let before = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        debug_assert!(before.is_ok(), "a place was given back twice");
    }

    pub(super) fn is_vacated(&self) -> bool {
        self.is_vacated.load(Ordering::Relaxed)
    }

    /// A client that comes meanwhile is one more reason why its database can't be dropped.
    pub(super) fn set_vacated(&self, vacated: bool) {
        self.is_vacated.store(vacated, Ordering::Relaxed);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.is_paused.store(paused, Ordering::Relaxed);
    }

    /// Server connections over all workers, open or being opened.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The bound that keeps the pool from opening a connection, if one does; its client has waited since
    /// then.
    pub(super) fn want_place(&self, since: Instant, now: Instant) -> Option<QuotaOf> {
        let full = self.quotas.iter().zip(QuotaOf::ALL).find(|(quota, _)| quota.is_full());
        full.map(|(quota, of)| {
            if now.saturating_duration_since(since) >= QUOTA_PATIENCE {
                quota.want(self.id, since, now);
            }
            of
        })
    }

    /// Of these, those in use, as the workers last told.
    pub(super) fn in_use(&self) -> usize {
        self.parts.iter().map(|part| part.in_use.load(Ordering::Relaxed)).sum()
    }

    /// Tells the others what `worker` has; answers what they have.
    pub(super) fn exchange(&self, worker: WorkerId, own: Counts) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        for (index, part) in self.parts.iter().enumerate() {
            if index == worker.0 {
                part.idle.store(own.idle, Ordering::Relaxed);
                part.in_use.store(own.in_use, Ordering::Relaxed);
            } else {
                elsewhere.idle += part.idle.load(Ordering::Relaxed);
                elsewhere.in_use += part.in_use.load(Ordering::Relaxed);
            }
        }
        elsewhere
    }
}

/// Relaxed is enough: the count orders nothing but itself.
pub(super) struct SharedBudget<'a>(pub(super) &'a SharedPool);

impl Budget for SharedBudget<'_> {
    fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    fn try_take(&mut self, limit: usize) -> bool {
        let next = |taken| (taken < limit).then(|| taken + 1);
        if self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err() {
            return false;
        }
        let [first, second] = &self.0.quotas;
        if first.try_take(self.0.id) {
            if second.try_take(self.0.id) {
                return true;
            }
            first.give_back();
        }
        self.0.give_back_own();
        false
    }

    fn give_back(&mut self) {
        self.0.give_back_own();
        self.0.quotas.iter().for_each(|quota| quota.give_back());
    }

    fn try_give_back(&mut self, floor: usize) -> bool {
        // A plain load first: this is asked at every release, and other workers read the same line.
        if self.taken() <= floor {
            return false;
        }
        let next = |taken| (taken > floor).then(|| taken - 1);
        let given = self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if given {
            self.0.quotas.iter().for_each(|quota| quota.give_back());
        }
        given
    }

    fn pressure(&self) -> Pressure {
        let [first, second] = &self.0.quotas;
        match (first.pressure(self.0.id), second.pressure(self.0.id)) {
            (Pressure::Over, _) | (_, Pressure::Over) => Pressure::Over,
            (Pressure::Wanted(one), Pressure::Wanted(other)) => Pressure::Wanted(one.min(other)),
            (Pressure::None, other) | (other, Pressure::None) => other,
        }
    }
}

/// The place in the budget of a connection between two workers: given back unless the connection
/// arrives.
#[derive(Debug)]
pub(super) struct TravellingPlace {
    pool: Option<Arc<SharedPool>>,
}

impl TravellingPlace {
    pub(super) fn new(pool: Arc<SharedPool>) -> Self {
        Self { pool: Some(pool) }
    }

    /// The receiver's books have it from now on.
    pub(super) fn arrive(mut self) {
        self.pool = None;
    }
}

impl Drop for TravellingPlace {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            SharedBudget(&pool).give_back();
        }
    }
}

/// What one worker's pools tell another's. Losing one is harmless: a lost connection is closed and
/// its place free.
#[derive(Debug)]
pub enum PoolMessage {
    /// `worker` has a client waiting and cannot open a connection.
    Beg { key: PoolKey, worker: WorkerId, priority: Priority, since: Instant },
    /// An idle connection, with its place in the budget.
    Donate { key: PoolKey, server: Box<MovedServer> },
    /// A place in the budget became free: open a connection of your own.
    Freed { key: PoolKey },
    /// The server is full, or a bound that pools share is reached, and a client of this pool waits: close an
    /// idle connection of another pool.
    MakeRoom { key: PoolKey, room: RoomIn },
}

impl PoolMessage {
    pub(super) fn key(&self) -> &PoolKey {
        match self {
            PoolMessage::Beg { key, .. }
            | PoolMessage::Donate { key, .. }
            | PoolMessage::Freed { key }
            | PoolMessage::MakeRoom { key, .. } => key,
        }
    }
}

/// The way to the other workers; the worker's wiring provides it.
pub trait Neighbours {
    /// Never blocks; gives the message back when the other's queue is full or gone.
    fn try_send(&self, to: WorkerId, message: PoolMessage) -> Result<(), Box<PoolMessage>>;
    /// How many workers there are, the own one included.
    fn workers(&self) -> usize;
}

/// A process with one worker.
impl Neighbours for () {
    fn try_send(&self, _: WorkerId, message: PoolMessage) -> Result<(), Box<PoolMessage>> {
        Err(Box::new(message))
    }

    fn workers(&self) -> usize {
        1
    }
}

const _: fn() = || {
    fn crosses_threads<T: Send>() {}
    crosses_threads::<PoolMessage>();
    crosses_threads::<SharedPools>();
};
