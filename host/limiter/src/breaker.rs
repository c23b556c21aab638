//! Whether what several processes share is asked at all: not while it does not answer in time.

use std::time::Duration;

/// Answers in a row that are late or errors.
const FAILURES_MAX: u32 = 3;
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Closed for so long, it begins anew with the shortest wait.
const STEADY_TIME: Duration = Duration::from_secs(10);

/// ```text
/// open -- reached --> closed -- three in a row are late or refused, or the connection is lost --> open
/// ```
///
/// getters: `is_closed`, `probe_at`; events: `handle_reached`, `handle_answer`, `handle_failure`, `handle_lost`. Nobody but a probe
/// asks while it is open, and there is one at a time.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    state: State,
    /// How long it was open last.
    wait: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { since: Duration, failures: u32 },
    Open { until: Duration },
}

impl Default for Breaker {
    /// Open, to be probed at once.
    fn default() -> Self {
        Self { state: State::Open { until: Duration::ZERO }, wait: Duration::ZERO }
    }
}

impl Breaker {
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// While it is open: when to try again.
    pub(super) fn probe_at(&self) -> Option<Duration> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until } => Some(until),
        }
    }

    /// A probe was answered in time.
    pub(super) fn handle_reached(&mut self, now: Duration) {
        self.state = State::Closed { since: now, failures: 0 };
    }

    pub(super) fn handle_answer(&mut self) {
        if let State::Closed { failures, .. } = &mut self.state {
            *failures = 0;
        }
    }

    /// An answer is late, or an error.
    pub(super) fn handle_failure(&mut self, now: Duration) {
        if let State::Closed { failures, .. } = &mut self.state {
            *failures += 1;
            if *failures >= FAILURES_MAX {
                self.handle_lost(now);
            }
        }
    }

    /// There is no connection any more, or none could be made.
    pub(super) fn handle_lost(&mut self, now: Duration) {
        self.wait = match self.state {
            State::Closed { since, .. } if now.saturating_sub(since) >= STEADY_TIME => WAIT_MIN,
            State::Open { until } if now < until => return,
            _ => (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX),
        };
        self.state = State::Open { until: now + self.wait };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_each_wait_is_longer() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.probe_at(), Some(Duration::ZERO));
        breaker.handle_reached(ms(0));
        for _ in 0..5 {
            breaker.handle_failure(ms(1));
            breaker.handle_failure(ms(2));
            breaker.handle_answer();
        }
        assert!(breaker.is_closed());
        for _ in 0..3 {
            breaker.handle_failure(ms(3));
        }
        assert_eq!(breaker.probe_at(), Some(ms(103)));
        breaker.handle_lost(ms(50));
        assert_eq!(breaker.probe_at(), Some(ms(103)), "that was known");
        breaker.handle_lost(ms(104));
        assert_eq!(breaker.probe_at(), Some(ms(304)), "the probe has failed");
        // It is reached, and lost at once: it waits on. After a while it begins anew.
        breaker.handle_reached(ms(400));
        breaker.handle_lost(ms(500));
        assert_eq!(breaker.probe_at(), Some(ms(900)));
        breaker.handle_reached(ms(1_000));
        breaker.handle_lost(ms(11_000));
        assert_eq!(breaker.probe_at(), Some(ms(11_100)));
    }
}
