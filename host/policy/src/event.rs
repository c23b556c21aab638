//! What happens with plugins: told to whoever writes logs, metrics and alerts.

use tidegate_core::policy::Slot;
use tidegate_core::policy::canary::Reason;
use tidegate_core::policy::faults::FaultKind;

/// How urgent a plugin's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// How a metric's records add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// A plugin's message, after so many that were dropped.
    Log { level: Level, message: &'a str, dropped: u64 },
    /// A record of a plugin's own metric.
    Metric { name: &'a str, kind: MetricKind, value: f64 },
    /// The built-in answer stood in. `detail` is for the log alone.
    Fault { generation: u64, kind: FaultKind, detail: &'a str },
    /// A generation is taken out; `restored` stands in, or the host itself.
    Quarantined { generation: u64, last: FaultKind, restored: Option<u64> },
    /// A canary is given up.
    RolledBack { generation: u64, reason: Reason },
    /// Another generation answers from now on; `None` is the host itself.
    Swapped { from: Option<u64>, to: Option<u64> },
}

/// Takes events, from any thread, without waiting.
pub trait Sink: Send + Sync {
    fn handle(&self, slot: Slot, event: &Event<'_>);
}

/// Drops everything.
pub struct Silence;

impl Sink for Silence {
    fn handle(&self, _slot: Slot, _event: &Event<'_>) {}
}
