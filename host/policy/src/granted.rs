//! What a slot's plugins share at the host: their store, their log's budget, their metrics.

use crate::event::{Event, Level, MetricKind, Sink};
use crate::locks::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use tidegate_core::limits::{POLICY_LABEL_BYTES_MAX, POLICY_METRICS_MAX};
use tidegate_core::policy::Slot;
use tidegate_core::policy::log::{self, LogBudget, Verdict};
use tidegate_core::policy::state::StateStore;

/// One a slot, for as long as the process lives: it outlasts generations.
pub struct Granted {
    pub(crate) slot: Slot,
    sink: Arc<dyn Sink>,
    began: Instant,
    seed: AtomicU64,
    state: Mutex<StateStore>,
    log: Mutex<LogBudget>,
    metrics: Mutex<Vec<(Box<str>, MetricKind)>>,
}

impl Granted {
    /// The same seed gives the same random numbers, instance by instance.
    pub fn new(slot: Slot, seed: u64, sink: Arc<dyn Sink>) -> Granted {
        Granted {
            slot,
            sink,
            began: Instant::now(),
            seed: AtomicU64::new(seed),
            state: Mutex::default(),
            log: Mutex::default(),
            metrics: Mutex::default(),
        }
    }

    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.sink.handle(self.slot, event);
    }

    /// A seed for one instance.
    pub(crate) fn next_seed(&self) -> u64 {
        self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    pub(crate) fn age_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, StateStore> {
        lock(&self.state)
    }

    pub(crate) fn log(&self, level: Level, message: &str) {
        let verdict = lock(&self.log).handle_line(Instant::now());
        if let Verdict::Write { dropped } = verdict {
            self.emit(&Event::Log { level, message: &log::clean(message), dropped });
        }
    }

    pub(crate) fn define(&self, name: &str, kind: MetricKind) -> Result<u32, String> {
        let good = !name.is_empty()
            && name.len() <= POLICY_LABEL_BYTES_MAX
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !good {
            return Err("a metric's name is short and of a-z, 0-9 and _".to_owned());
        }
        let mut metrics = lock(&self.metrics);
        if let Some(place) = metrics.iter().position(|(own, _)| **own == *name) {
            return match metrics.get(place) {
                Some((_, own)) if *own == kind => number(place),
                _ => Err(format!("{name} is a metric of another kind")),
            };
        }
        if metrics.len() >= POLICY_METRICS_MAX {
            return Err(format!("there are {POLICY_METRICS_MAX} metrics already"));
        }
        metrics.push((name.into(), kind));
        number(metrics.len() - 1)
    }

    pub(crate) fn record(&self, metric: u32, value: f64) {
        let known = lock(&self.metrics).get(metric as usize).cloned();
        if let Some((name, kind)) = known.filter(|_| value.is_finite()) {
            self.emit(&Event::Metric { name: &name, kind, value });
        }
    }
}

fn number(place: usize) -> Result<u32, String> {
    u32::try_from(place).map_err(|error| error.to_string())
}
