//! Pauses between failed connection attempts: 1 s, 2 s, 4 s … up to a bound (property 16).

use std::time::{Duration, Instant};
use tidegate_core::limits::{CONNECT_BACKOFF_FIRST, CONNECT_BACKOFF_MAX};

/// A random part for one pause, drawn by the caller: 0 adds nothing, 255 adds a quarter of the
/// pause.
///
/// It keeps the workers (and other Tidegates) from trying in step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jitter(pub u8);

impl Jitter {
    pub const NONE: Jitter = Jitter(0);

    fn of(self, pause: Duration) -> Duration {
        pause * u32::from(self.0) / (4 * 255)
    }
}

/// Consecutive failures and the moment from which the next attempt may start.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    /// The pause after the `failures`-th consecutive failure (1-based), without jitter.
    pub fn pause(failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        (CONNECT_BACKOFF_FIRST * (1 << doublings)).min(CONNECT_BACKOFF_MAX)
    }

    /// Consecutive failures so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Before this moment no attempt may start; `None` when nothing failed.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub fn is_ready(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    pub fn handle_failure(&mut self, now: Instant, jitter: Jitter) {
        self.failures = self.failures.saturating_add(1);
        let pause = Self::pause(self.failures);
        self.retry_at = Some(now + pause + jitter.of(pause));
    }

    pub fn handle_success(&mut self) {
        *self = Self::default();
    }

    /// Postpones the next attempt to `until` when that is later (an open circuit breaker).
    pub fn hold_until(&mut self, until: Instant) {
        self.retry_at = Some(self.retry_at.map_or(until, |at| at.max(until)));
    }
}
