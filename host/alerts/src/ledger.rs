//! Which alerts are open: each is told once, again while it lasts, and when it is over.
//!
//! ```text
//!          long enough              every `repeat`
//! Pending ─────────────▶ Told ◀────────────────── (again)
//!    └── gone: nothing    └── gone for CLEAR_AFTER: told that it is over
//! ```

use super::finding::Finding;
use std::time::{Duration, Instant};

/// What is gone for so long is over. What comes and goes within it is one and the same.
pub const CLEAR_AFTER: Duration = Duration::from_secs(3);
/// Open at once; what comes on top is not told. More than servers and conditions of any cluster that one Tidegate serves.
pub const ALERTS_MAX: usize = 256;

/// getters: `wake_at`, `open`; `handle_findings` says what is to be told.
#[derive(Debug)]
pub struct Ledger {
    /// What lasts is told again after this.
    repeat: Duration,
    alerts: Vec<Alert>,
}

#[derive(Debug)]
struct Alert {
    finding: Finding,
    since: Instant,
    seen: Instant,
    told: Option<Instant>,
}

/// Why something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Fired,
    Repeated,
    Cleared,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub occasion: Occasion,
    /// As it was last.
    pub finding: Finding,
    pub since: Instant,
}

impl Ledger {
    pub fn new(repeat: Duration) -> Self {
        Self { repeat, alerts: Vec::new() }
    }

    /// Alerts that were told and are not over.
    pub fn open(&self) -> usize {
        self.alerts.iter().filter(|alert| alert.told.is_some()).count()
    }

    /// All that is wrong now; or the same as before, since time has passed.
    pub fn handle_findings(&mut self, findings: &[Finding], now: Instant) -> Vec<Told> {
        for finding in findings {
            let has_room = self.alerts.len() < ALERTS_MAX;
            let known = self.alerts.iter_mut().find(|alert| alert.finding.is_of(finding));
            match known {
                Some(alert) => {
                    let is_urgent = alert.finding.is_urgent || finding.is_urgent;
                    alert.finding = Finding { is_urgent, ..finding.clone() };
                    alert.seen = now;
                }
                None if has_room => {
                    let finding = finding.clone();
                    self.alerts.push(Alert { finding, since: now, seen: now, told: None });
                }
                None => {}
            }
        }
        let mut told = Vec::new();
        let repeat = self.repeat;
        self.alerts.retain_mut(|alert| {
            let is_there = findings.iter().any(|finding| finding.is_of(&alert.finding));
            let (occasion, stays) = alert.next(is_there, repeat, now);
            if let Some(occasion) = occasion {
                let (finding, since) = (alert.finding.clone(), alert.since);
                told.push(Told { occasion, finding, since });
            }
            stays
        });
        told
    }

    /// When it is to be asked again, although nothing has changed.
    pub fn wake_at(&self) -> Option<Instant> {
        let due = |alert: &Alert| {
            let after = alert.finding.condition.told_after();
            let next = alert.told.map_or(alert.since + after, |told| told + self.repeat);
            next.min(alert.seen + CLEAR_AFTER)
        };
        self.alerts.iter().map(due).min()
    }
}

impl Alert {
    /// What is to be told, and whether it stays.
    fn next(&mut self, is_there: bool, repeat: Duration, now: Instant) -> (Option<Occasion>, bool) {
        let lasted = |since: Instant| now.saturating_duration_since(since);
        let after = self.finding.condition.told_after();
        match (is_there, self.told) {
            (true, None) if self.finding.is_urgent || lasted(self.since) >= after => {
                self.told = Some(now);
                (Some(Occasion::Fired), true)
            }
            (true, Some(told)) if lasted(told) >= repeat => {
                self.told = Some(now);
                (Some(Occasion::Repeated), true)
            }
            (true, _) => (None, true),
            (false, None) => (None, false),
            (false, Some(_)) if lasted(self.seen) >= CLEAR_AFTER => {
                (Some(Occasion::Cleared), false)
            }
            (false, Some(_)) => (None, true),
        }
    }
}

impl Occasion {
    pub fn label(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Repeated => "repeated",
            Self::Cleared => "cleared",
        }
    }
}
