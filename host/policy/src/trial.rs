//! What is seen of a candidate: differences from the active version, and how statements fared on either side.

use crate::locks::lock;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_core::limits::POLICY_DIFFERENCES_MAX;
use tidegate_core::policy::canary::{Sample, Verdict, judge};

/// One candidate's, from when it was first tried out.
pub struct Trial {
    generation: u64,
    compared: AtomicU64,
    different: AtomicU64,
    first: Mutex<VecDeque<Difference>>,
    active: Tally,
    candidate: Tally,
}

/// Two answers to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What was asked about.
    pub question: Box<str>,
    pub active: Box<str>,
    pub candidate: Box<str>,
}

/// Whose answer a statement followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Active,
    Candidate,
}

/// How a statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Error,
}

#[derive(Default)]
struct Tally {
    statements: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

impl Tally {
    fn sample(&self, faults: u64) -> Sample {
        Sample {
            statements: self.statements.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            faults,
            time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

impl Trial {
    pub(crate) fn new(generation: u64) -> Trial {
        Trial {
            generation,
            compared: AtomicU64::new(0),
            different: AtomicU64::new(0),
            first: Mutex::default(),
            active: Tally::default(),
            candidate: Tally::default(),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Questions that both versions answered.
    pub fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    /// Those that they answered differently.
    pub fn different(&self) -> u64 {
        self.different.load(Ordering::Relaxed)
    }

    /// The first hundred that are unlike: workers ask for themselves, and what several of them are told is kept once.
    pub fn differences(&self) -> Vec<Difference> {
        lock(&self.first).iter().cloned().collect()
    }

    /// Counts a comparison; `difference` is made only when it is kept.
    pub(crate) fn compare(&self, is_same: bool, difference: impl FnOnce() -> Difference) {
        self.compared.fetch_add(1, Ordering::Relaxed);
        if is_same {
            return;
        }
        self.different.fetch_add(1, Ordering::Relaxed);
        let mut first = lock(&self.first);
        if first.len() < POLICY_DIFFERENCES_MAX {
            let difference = difference();
            if !first.contains(&difference) {
                first.push_back(difference);
            }
        }
    }

    /// Counts a statement.
    pub(crate) fn handle_statement(&self, side: Side, outcome: Outcome, time: Duration) {
        let tally = match side {
            Side::Active => &self.active,
            Side::Candidate => &self.candidate,
        };
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        tally.statements.fetch_add(1, Ordering::Relaxed);
        tally.nanos.fetch_add(nanos, Ordering::Relaxed);
        if outcome == Outcome::Error {
            tally.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the numbers say of the candidate, with its faults.
    pub fn verdict(&self, faults: u64) -> Verdict {
        judge(&self.active.sample(0), &self.candidate.sample(faults))
    }
}
