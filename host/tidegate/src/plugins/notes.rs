//! What plugins do, told to the log and kept for `/metrics`; and who is to write it down.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tidegate_core::policy::Slot;
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

pub(super) struct Notes {
    jobs: SyncSender<Job>,
    /// Bounded by `POLICY_METRICS_MAX` a slot, which the sandbox holds plugins to.
    recorded: Mutex<BTreeMap<(Slot, String), f64>>,
}

impl Notes {
    pub(super) fn new(jobs: SyncSender<Job>) -> Self {
        Self { jobs, recorded: Mutex::default() }
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
                tracing::warn!(slot = slot_name, generation, kind, detail, "a plugin failed");
            }
            Event::Quarantined { generation, last, restored } => {
                let last = last.name();
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
