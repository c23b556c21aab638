//! Faults of plugins: their kinds, and when there are too many of them.

use crate::limits::{POLICY_FAULT_WINDOW, POLICY_FAULTS_MAX};
use std::collections::VecDeque;
use std::time::Instant;

/// What a plugin did wrong. The built-in answer stood in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It panicked, overflowed its stack, or did something else that WebAssembly forbids.
    Trap,
    /// It took too much time.
    Deadline,
    /// It asked for too much memory.
    Memory,
    /// It called the host too often, or handed over too much.
    HostCalls,
    /// Its answer was nonsense.
    Answer,
    /// A new instance of it could not be made.
    Start,
}

impl FaultKind {
    pub const ALL: [FaultKind; 6] = [
        FaultKind::Trap,
        FaultKind::Deadline,
        FaultKind::Memory,
        FaultKind::HostCalls,
        FaultKind::Answer,
        FaultKind::Start,
    ];

    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Trap => "trap",
            FaultKind::Deadline => "deadline",
            FaultKind::Memory => "memory",
            FaultKind::HostCalls => "host_calls",
            FaultKind::Answer => "answer",
            FaultKind::Start => "start",
        }
    }
}

/// What a fault leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Counted,
    /// Too many within the window: the plugin is taken out. Said once.
    Quarantine,
}

/// ```text
/// trusted -- POLICY_FAULTS_MAX faults within POLICY_FAULT_WINDOW --> quarantined (for good)
/// ```
///
/// getter: `is_quarantined`; event: `handle_fault`.
#[derive(Clone, Debug, Default)]
pub struct FaultWindow {
    /// The last faults, oldest first, one fewer than quarantine takes.
    recent: VecDeque<Instant>,
    is_quarantined: bool,
}

impl FaultWindow {
    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined
    }

    pub fn handle_fault(&mut self, now: Instant) -> Verdict {
        if self.is_quarantined {
            return Verdict::Counted;
        }
        let outside = |then: &Instant| now.saturating_duration_since(*then) >= POLICY_FAULT_WINDOW;
        while self.recent.front().is_some_and(outside) {
            self.recent.pop_front();
        }
        if self.recent.len() + 1 >= POLICY_FAULTS_MAX {
            self.is_quarantined = true;
            self.recent.clear();
            return Verdict::Quarantine;
        }
        self.recent.push_back(now);
        Verdict::Counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn quarantine_comes_with_the_nth_fault_within_the_window(
            pauses_ms in prop::collection::vec(0..15_000u64, 1..60),
        ) {
            let start = Instant::now();
            let mut window = FaultWindow::default();
            let mut faults: Vec<Instant> = Vec::new();
            let mut now = start;
            let mut expected = false;
            for pause in pauses_ms {
                now += Duration::from_millis(pause);
                faults.push(now);
                let recent = faults.iter().filter(|then| now - **then < POLICY_FAULT_WINDOW);
                let is_first = !expected && recent.count() >= POLICY_FAULTS_MAX;
                expected |= is_first;
                let verdict = window.handle_fault(now);
                prop_assert_eq!(verdict == Verdict::Quarantine, is_first);
                prop_assert_eq!(window.is_quarantined(), expected);
                prop_assert!(window.recent.len() < POLICY_FAULTS_MAX);
            }
        }
    }
}
