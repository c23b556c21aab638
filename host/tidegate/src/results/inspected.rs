//! Inspections: how many answers that were given were read once more, and which was not what the primary has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// People are told of a difference for so long.
const TOLD_TIME: Duration = Duration::from_secs(600);

/// What inspections have come to.
#[derive(Debug)]
pub struct Inspected {
    /// In a second, by each worker.
    pub per_second_max: u32,
    all: AtomicU64,
    different: AtomicU64,
    /// When an answer was last found to be another than the primary's, and which.
    last: Mutex<Option<(Instant, String)>>,
}

impl Inspected {
    pub fn new(per_second_max: u32) -> Self {
        let zero = || AtomicU64::new(0);
        Self { per_second_max, all: zero(), different: zero(), last: Mutex::default() }
    }

    /// An answer was read once more while nothing was written, and was the same.
    pub fn note_same(&self) {
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    /// It was another.
    pub fn note_different(&self, database: &str, statement: &str, now: Instant) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.different.fetch_add(1, Ordering::Relaxed);
        let words = format!("in database \"{database}\": {statement}");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, words));
    }

    /// How many were, and how many differed.
    pub fn counts(&self) -> (u64, u64) {
        (self.all.load(Ordering::Relaxed), self.different.load(Ordering::Relaxed))
    }

    /// What people are to be told, if it is not long ago.
    pub fn recent(&self, now: Instant) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, words) = last.as_ref()?;
        if now.saturating_duration_since(*at) >= TOLD_TIME {
            return None;
        }
        let (all, different) = self.counts();
        Some(format!(
            "an answer that was given from memory or Redis was not what the primary has, and nothing had been written through Tidegate \
             ({different} of {all} inspected); all answers of its tables have been taken. The last one, {words}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_for_ten_minutes() {
        let (inspected, now) = (Inspected::new(1), Instant::now());
        inspected.note_same();
        assert_eq!((inspected.counts(), inspected.recent(now)), ((1, 0), None));
        inspected.note_different("shop", "SELECT v FROM t WHERE id = $1", now);
        assert_eq!(inspected.counts(), (2, 1));
        let told = inspected.recent(now + TOLD_TIME - Duration::from_secs(1)).unwrap();
        assert!(told.contains("1 of 2") && told.contains("SELECT v FROM t"), "{told}");
        assert_eq!(inspected.recent(now + TOLD_TIME), None);
    }
}
