//! What plugins do, told to the log and kept for `/metrics`; and who is to write it down.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tidegate_core::policy::Slot;
use tidegate_core::policy::canary::Reason;
use tidegate_core::policy::faults::FaultKind;
use tidegate_policy::{Event, Level, MetricKind, Sink};

use super::thread::{Job, Settled};

/// A value that a plugin keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Recorded {
    pub slot: &'static str,
    /// A histogram is two: `…_count` and `…_sum`.
    pub name: String,
    pub value: f64,
}

/// What has happened in a slot since the process began, whatever has become of the versions that it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    pub slot: Slot,
    /// Versions that failed too often and were taken out.
    pub quarantines: u64,
    /// Canaries that were given up, by why.
    pub canaries_given_up: BTreeMap<&'static str, u64>,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Happened {
    /// With each kind, so that one that has not happened yet is seen as none.
    fn nothing(slot: Slot) -> Self {
        Self {
            slot,
            quarantines: 0,
            canaries_given_up: Reason::ALL.map(|reason| (reason.name(), 0)).into(),
            faults: FaultKind::ALL.map(|kind| (kind.name(), 0)).into(),
        }
    }
}

pub(super) struct Notes {
    jobs: SyncSender<Job>,
    happened: Mutex<[Happened; Slot::ALL.len()]>,
    /// Bounded by `POLICY_METRICS_MAX` a slot, which the sandbox holds plugins to.
    recorded: Mutex<BTreeMap<(Slot, String), f64>>,
}

impl Notes {
    pub(super) fn new(jobs: SyncSender<Job>) -> Self {
        let happened = Mutex::new(Slot::ALL.map(Happened::nothing));
        Self { jobs, happened, recorded: Mutex::default() }
    }

    /// By slot.
    pub(super) fn happened(&self) -> Vec<Happened> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner).to_vec()
    }

    fn count(&self, slot: Slot, count: impl FnOnce(&mut Happened)) {
        let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut happened[slot.index()]);
    }

    pub(super) fn recorded(&self) -> Vec<Recorded> {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |((slot, name), value): (&(Slot, String), &f64)| Recorded {
            slot: slot.name(),
            name: name.clone(),
            value: *value,
        };
        recorded.iter().map(one).collect()
    }

    fn record(&self, slot: Slot, name: &str, kind: MetricKind, value: f64) {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut add = |name: String, by: f64| *recorded.entry((slot, name)).or_default() += by;
        match kind {
            MetricKind::Counter => add(name.to_owned(), value),
            MetricKind::Histogram => {
                add(format!("{name}_count"), 1.0);
                add(format!("{name}_sum"), value);
            }
            MetricKind::Gauge => {
                recorded.insert((slot, name.to_owned()), value);
            }
        }
    }

    /// A full queue means that orders are being followed, each of which writes down what is.
    fn settle(&self, settled: Settled) {
        let _ = self.jobs.try_send(Job::Settle(settled));
    }
}

impl Sink for Notes {
    fn handle(&self, slot: Slot, event: &Event<'_>) {
        let slot_name = slot.name();
        match event {
            Event::Log { level, message, dropped } => match level {
                Level::Debug => tracing::debug!(slot = slot_name, dropped, "plugin: {message}"),
                Level::Info => tracing::info!(slot = slot_name, dropped, "plugin: {message}"),
                Level::Warn => tracing::warn!(slot = slot_name, dropped, "plugin: {message}"),
                Level::Error => tracing::error!(slot = slot_name, dropped, "plugin: {message}"),
            },
            Event::Metric { name, kind, value } => self.record(slot, name, *kind, *value),
            Event::Fault { generation, kind, detail } => {
                let kind = kind.name();
                self.count(slot, |happened| *happened.faults.entry(kind).or_default() += 1);
                tracing::warn!(slot = slot_name, generation, kind, detail, "a plugin failed");
            }
            Event::Quarantined { generation, last, restored } => {
                let last = last.name();
                self.count(slot, |happened| happened.quarantines += 1);
                tracing::error!(
                    slot = slot_name,
                    generation,
                    last,
                    restored,
                    "a plugin failed too often and was taken out"
                );
                let why = format!("quarantined after {last} faults");
                self.settle(Settled { slot, generation: *generation, why });
            }
            Event::RolledBack { generation, reason } => {
                let reason = reason.name();
                self.count(slot, |happened| {
                    *happened.canaries_given_up.entry(reason).or_default() += 1;
                });
                tracing::error!(slot = slot_name, generation, reason, "a canary was given up");
                let why = format!("canary given up: {reason}");
                self.settle(Settled { slot, generation: *generation, why });
            }
            Event::Swapped { from, to } => {
                tracing::info!(slot = slot_name, from, to, "another plugin answers");
            }
        }
    }
}
