//! One version of a plugin with its settings: a sharded pool of instances, and the count of its faults.

use crate::bindings::since_v0_1::route::ClusterState;
use crate::bindings::since_v0_1::types::PluginInfo;
use crate::component::{self, Checked, Linked};
use crate::defaults::embedded;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::event::Event;
use crate::fault::Fault;
use crate::granted::Granted;
use crate::instance::{Instance, Pace};
use crate::locks::lock;
use arc_swap::ArcSwapOption;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};
use tidegate_core::limits::POLICY_SETTINGS_BYTES_MAX;
use tidegate_core::policy::Slot;
use tidegate_core::policy::faults::{FaultKind, FaultWindow, Verdict};

/// Ready to be asked, from any thread.
pub struct Generation {
    /// Unique in the process, from 1.
    pub(crate) number: u64,
    engine: Arc<Engine>,
    linked: Linked,
    granted: Arc<Granted>,
    settings: Box<str>,
    is_untouched: bool,
    info: PluginInfo,
    bytes: usize,
    /// An instance each, made when first needed. A thread keeps to its own where it can.
    shards: Box<[Mutex<Option<Instance>>]>,
    cluster: ArcSwapOption<Cluster>,
    counts: Counts,
    faults: Mutex<FaultWindow>,
    is_quarantined: AtomicBool,
}

/// What instances are told before they decide.
pub(crate) struct Cluster {
    pub(crate) number: u64,
    pub(crate) state: ClusterState,
}

/// Bounds of the histogram of calls for plans.
pub const PLAN_TIMES: [Duration; 7] = [
    Duration::from_micros(10),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(50),
];

#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    weighings: AtomicU64,
    plans: AtomicU64,
    plan_nanos: AtomicU64,
    /// By the shortest of `PLAN_TIMES` that they took no longer than; the last for all others.
    plan_times: [AtomicU64; PLAN_TIMES.len() + 1],
    faults: [AtomicU64; FaultKind::ALL.len()],
}

/// Where a new generation's plugin and settings come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub slot: Slot,
    /// A component, or a core module with embedded types.
    pub bytes: &'a [u8],
    /// A JSON object; empty for `{}`.
    pub settings: &'a str,
}

/// Numbers generations and stamps over all registries of the process, so that no two are ever taken for one.
pub(crate) fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

impl Generation {
    /// Checks, compiles, and starts a first instance. Takes tens of milliseconds and more.
    pub fn load(
        engine: &Arc<Engine>,
        granted: &Arc<Granted>,
        source: Source<'_>,
    ) -> Result<Generation, LoadError> {
        let Source { slot, bytes, settings } = source;
        if settings.len() > POLICY_SETTINGS_BYTES_MAX {
            let bytes = settings.len();
            return Err(LoadError::Settings { bytes, most: POLICY_SETTINGS_BYTES_MAX });
        }
        let checked = component::check(engine, slot, bytes)?;
        let is_untouched = settings.is_empty() && bytes == embedded(slot).bytes;
        let generation = Generation::begin(engine, granted, checked, settings)?;
        Ok(Generation { is_untouched, ..generation })
    }

    /// The part of [`Generation::load`] that follows the checks.
    pub(crate) fn begin(
        engine: &Arc<Engine>,
        granted: &Arc<Granted>,
        checked: Checked,
        settings: &str,
    ) -> Result<Generation, LoadError> {
        let (first, info) = Instance::start(engine, &checked.linked, granted, settings)?;
        let more = (1..engine.settings().instances).map(|_| Mutex::new(None));
        Ok(Generation {
            number: next_number(),
            engine: Arc::clone(engine),
            linked: checked.linked,
            granted: Arc::clone(granted),
            settings: settings.into(),
            is_untouched: false,
            info,
            bytes: checked.bytes,
            shards: std::iter::once(Mutex::new(Some(first))).chain(more).collect(),
            cluster: ArcSwapOption::empty(),
            counts: Counts::default(),
            faults: Mutex::default(),
            is_quarantined: AtomicBool::new(false),
        })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Is it the one that comes with Tidegate, with no settings? Then it is known what it never says.
    pub fn is_untouched(&self) -> bool {
        self.is_untouched
    }

    pub fn slot(&self) -> Slot {
        self.granted.slot
    }

    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// Its file, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// Memory of its largest instance, in bytes. Waits for calls that are under way.
    pub fn memory_bytes(&self) -> usize {
        let of = |shard: &Mutex<Option<Instance>>| {
            lock(shard).as_ref().map_or(0, |own| own.store.data().watch.memory_bytes())
        };
        self.shards.iter().map(of).max().unwrap_or(0)
    }

    pub fn calls(&self) -> u64 {
        self.counts.calls.load(Ordering::Relaxed)
    }

    /// Calls for the shares of replicas, for which no statement waits.
    pub fn weighings(&self) -> u64 {
        self.counts.weighings.load(Ordering::Relaxed)
    }

    /// Calls for plans, and how long they took together: the calls that a statement waits for longest.
    pub fn plans(&self) -> (u64, Duration) {
        let nanos = self.counts.plan_nanos.load(Ordering::Relaxed);
        (self.counts.plans.load(Ordering::Relaxed), Duration::from_nanos(nanos))
    }

    /// How many calls for plans took no longer than each of [`PLAN_TIMES`].
    pub fn plans_within(&self) -> [u64; PLAN_TIMES.len()] {
        let mut total = 0;
        let mut within = [0; PLAN_TIMES.len()];
        for (within, count) in within.iter_mut().zip(&self.counts.plan_times) {
            total += count.load(Ordering::Relaxed);
            *within = total;
        }
        within
    }

    pub fn faults(&self, kind: FaultKind) -> u64 {
        self.counts.faults.get(kind as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Faults of all kinds.
    pub fn faults_total(&self) -> u64 {
        FaultKind::ALL.iter().map(|kind| self.faults(*kind)).sum()
    }

    /// Not asked any more.
    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined.load(Ordering::Relaxed)
    }

    /// What instances are told before their next decision.
    pub fn set_cluster(&self, state: ClusterState) {
        let number = self.cluster.load().as_ref().map_or(0, |cluster| cluster.number) + 1;
        self.cluster.store(Some(Arc::new(Cluster { number, state })));
    }

    pub(crate) fn cluster(&self) -> arc_swap::Guard<Option<Arc<Cluster>>> {
        self.cluster.load()
    }

    /// Makes a call into an instance of this thread, or another's when that is busy. A fault costs the instance.
    pub(crate) fn call<T>(
        &self,
        pace: Pace,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Fault> {
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        if pace == Pace::Weigh {
            self.counts.weighings.fetch_add(1, Ordering::Relaxed);
        }
        let mut place = self.shard();
        let instance = match &mut *place {
            Some(instance) => instance,
            empty => empty.insert(self.start()?),
        };
        instance.arm(pace);
        // A decision is too short to be timed: that would cost a quarter of it.
        let begun = (pace == Pace::Plan).then(Instant::now);
        let answer = call(instance);
        if let Some(begun) = begun {
            let time = begun.elapsed();
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let place = PLAN_TIMES.partition_point(|most| *most < time);
            if let Some(count) = self.counts.plan_times.get(place) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            self.counts.plans.fetch_add(1, Ordering::Relaxed);
            self.counts.plan_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
        if answer.is_err() {
            *place = None;
        }
        drop(place);
        answer.map_err(|error| Fault::of(&error))
    }

    pub(crate) fn start(&self) -> Result<Instance, Fault> {
        let started = Instance::start(&self.engine, &self.linked, &self.granted, &self.settings);
        let (instance, _info) =
            started.map_err(|error| Fault::new(FaultKind::Start, &error.to_string()))?;
        Ok(instance)
    }

    /// This thread's shard; when it is taken, the next free one; when all are, this thread's once it is free, which is
    /// soon, since every call ends.
    fn shard(&self) -> MutexGuard<'_, Option<Instance>> {
        let own = thread_number() % self.shards.len().max(1);
        let (before, after) = self.shards.split_at(own.min(self.shards.len()));
        for shard in after.iter().chain(before) {
            match shard.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => {
                    // Whoever panicked did so within a call: the instance may be half way.
                    let mut guard = poisoned.into_inner();
                    *guard = None;
                    shard.clear_poison();
                    return guard;
                }
                Err(TryLockError::WouldBlock) => {}
            }
        }
        // There is at least one shard: `load` makes the first.
        lock(&self.shards[own])
    }

    /// Counts a fault and tells of it; the caller acts on quarantine, which is said once.
    pub(crate) fn handle_fault(&self, fault: &Fault, now: Instant) -> Verdict {
        if let Some(count) = self.counts.faults.get(fault.kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.granted.emit(&Event::Fault {
            generation: self.number,
            kind: fault.kind,
            detail: &fault.detail,
        });
        let verdict = lock(&self.faults).handle_fault(now);
        if verdict == Verdict::Quarantine {
            self.is_quarantined.store(true, Ordering::Relaxed);
        }
        verdict
    }
}

/// A number for this thread, small and its own.
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}
