//! What went wrong in a call: its kind for metrics, its words for the log.

use crate::watch::Exceeded;
use std::fmt;
use tidegate_core::policy::Nonsense;
use tidegate_core::policy::faults::FaultKind;
use wasmtime::Trap;

/// Bytes of a plugin's backtrace that are kept.
const DETAIL_BYTES_MAX: usize = 2_048;

/// A call that gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// For the log alone: it may hold the plugin's own names and texts.
    pub detail: Box<str>,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, detail: &str) -> Fault {
        let mut end = detail.len().min(DETAIL_BYTES_MAX);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        Fault { kind, detail: detail.get(..end).unwrap_or_default().into() }
    }

    pub(crate) fn of(error: &wasmtime::Error) -> Fault {
        let words = format!("{error:#}");
        let kind = match (error.downcast_ref::<Exceeded>(), error.downcast_ref::<Trap>()) {
            (Some(Exceeded::Memory), _) => FaultKind::Memory,
            (Some(Exceeded::HostCalls | Exceeded::Handles), _) => FaultKind::HostCalls,
            (None, Some(Trap::Interrupt)) => FaultKind::Deadline,
            // wasmtime keeps this error's type to itself; a test holds its words.
            _ if words.contains("fuel allocated for hostcalls") => FaultKind::HostCalls,
            _ => FaultKind::Trap,
        };
        Fault::new(kind, &words)
    }
}

impl From<Nonsense> for Fault {
    fn from(nonsense: Nonsense) -> Fault {
        Fault::new(FaultKind::Answer, &nonsense.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}
