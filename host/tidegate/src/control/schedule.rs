//! When a database's catalogue is read again.

use std::time::{Duration, Instant};

use tidegate_core::limits::SCHEMA_SEEN_TIME_MAX;

use super::catalogues::REREAD_INTERVAL_MIN;

/// After a first failure it is tried again in this time, and in twice the time after each further one.
const RETRY_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// A database that can be read again is read after this at the latest.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// ```text
/// Never ─▶ Read ◀─▶ Failing (twice the pause with each failure)
/// ```
///
/// getters: `is_due`, `is_failing`; `handle_reading`, `handle_failure`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Schedule {
    #[default]
    Never,
    Read {
        at: Instant,
    },
    Failing {
        at: Instant,
        pause: Duration,
    },
}

impl Schedule {
    /// `is_changed`: a change of a schema has passed that is not in what was read.
    pub(super) fn is_due(&self, is_changed: bool, now: Instant) -> bool {
        let age = |at: Instant| now.saturating_duration_since(at);
        match *self {
            Self::Never => true,
            Self::Read { at } => {
                age(at) >= SCHEMA_SEEN_TIME_MAX || (is_changed && age(at) >= REREAD_INTERVAL_MIN)
            }
            Self::Failing { at, pause } => age(at) >= pause,
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        matches!(self, Self::Failing { .. })
    }

    /// A reading that began then was good.
    pub(super) fn handle_reading(&mut self, at: Instant) {
        *self = Self::Read { at };
    }

    /// A reading failed just now.
    pub(super) fn handle_failure(&mut self, at: Instant) {
        let pause = match *self {
            Self::Failing { pause, .. } => (pause * 2).min(RETRY_INTERVAL_MAX),
            Self::Never | Self::Read { .. } => RETRY_INTERVAL_MIN,
        };
        *self = Self::Failing { at, pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_and_less_and_what_changes_at_most_once_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert!(schedule.is_due(false, start));
        let (mut now, mut tries) = (start, Vec::new());
        for tenth in 0..3_000 {
            now = start + Duration::from_millis(100) * tenth;
            if schedule.is_due(true, now) {
                tries.push(now.duration_since(start).as_secs());
                schedule.handle_failure(now);
                assert!(schedule.is_failing());
            }
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181, 211, 241, 271]);
        schedule.handle_reading(now);
        let after = |ms| now + Duration::from_millis(ms);
        assert!(!schedule.is_failing());
        assert!(!schedule.is_due(true, after(999)) && schedule.is_due(true, after(1_000)));
        assert!(!schedule.is_due(false, after(59_999)) && schedule.is_due(false, after(60_000)));
        schedule.handle_failure(after(60_000));
        assert!(schedule.is_due(false, after(61_000)), "it begins anew");
    }
}
