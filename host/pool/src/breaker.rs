//! A circuit breaker over the last minute: stops asking a server that mostly fails, and probes it
//! (property 42).

use std::time::{Duration, Instant};
use tidegate_core::limits::{
    BREAKER_BURST_FAILURES, BREAKER_BURST_PERCENT, BREAKER_BURST_SECS, BREAKER_CALLS_MIN,
    BREAKER_FAILURE_PERCENT, BREAKER_OPEN_TIME, BREAKER_WINDOW_SECS,
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
}

/// Answer to "may I call?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    Allowed,
    /// This call decides whether the breaker closes: its outcome must be told.
    Probe,
    /// Not before `until`; while a probe is under way that is when another probe may start.
    Rejected {
        until: Instant,
    },
}

/// The state as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// ```text
/// closed -- half of at least 5 calls in 60 s failed --> open
/// closed -- early: at least 3 of the last 5 s failed, and nine tenths of all of them --> open
/// closed -- early: the server is known to be gone (trip) --> open
/// open -- 30 s, then a call --> half-open (that call is the probe)
/// half-open -- the probe failed --> open
/// half-open -- the probe succeeded --> closed
/// ```
///
/// getters: `state`, `open_until`; commands: `try_call`, `trip`; event: `handle_outcome`. A call that
/// was allowed before the breaker opened and ends after changes nothing. What it lets through are
/// attempts to connect, which are Tidegate's own: no client's statement is ever the probe.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    window: Window,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// A probe whose outcome never comes is given up at `until`.
    HalfOpen {
        until: Instant,
    },
}

impl Breaker {
    /// Closed. `now` is where the window's seconds are counted from.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Closed, window: Window::new(now) }
    }

    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// While not closed: when the next probe may start.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Open { until } | State::HalfOpen { until } => Some(until),
        }
    }

    /// Asks to make a call; tell its end with `handle_outcome`.
    pub fn try_call(&mut self, now: Instant) -> Permit {
        match self.state {
            State::Closed => Permit::Allowed,
            State::Open { until } | State::HalfOpen { until } if now < until => {
                Permit::Rejected { until }
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { until: now + BREAKER_OPEN_TIME };
                Permit::Probe
            }
        }
    }

    pub fn handle_outcome(&mut self, outcome: Outcome, now: Instant) {
        match (self.state, outcome) {
            (State::Closed, _) => {
                self.window.record(outcome, now);
                if outcome == Outcome::Failure && self.window.is_failing(now) {
                    self.open(now);
                }
            }
            (State::HalfOpen { .. }, Outcome::Success) => *self = Self::new(now),
            (State::HalfOpen { .. }, Outcome::Failure) => self.open(now),
            (State::Open { .. }, _) => {}
        }
    }

    /// The server is known to be gone, whatever calls have shown so far. One that is open stays as it is.
    pub fn trip(&mut self, now: Instant) {
        if self.state() == BreakerState::Closed {
            self.open(now);
        }
    }

    fn open(&mut self, now: Instant) {
        *self = Self {
            state: State::Open { until: now + BREAKER_OPEN_TIME },
            window: Window::new(now),
        };
    }
}

/// Calls and failures of the last minute, in one-second buckets; the present second is the newest
/// bucket.
#[derive(Clone, Debug)]
struct Window {
    start: Instant,
    /// Seconds since `start` of the newest bucket.
    second: u64,
    buckets: [Bucket; BREAKER_WINDOW_SECS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(start: Instant) -> Self {
        Self { start, second: 0, buckets: [Bucket::default(); BREAKER_WINDOW_SECS] }
    }

    fn record(&mut self, outcome: Outcome, now: Instant) {
        self.advance(now);
        let bucket = &mut self.buckets[self.second as usize % BREAKER_WINDOW_SECS];
        bucket.calls = bucket.calls.saturating_add(1);
        if outcome == Outcome::Failure {
            bucket.failures = bucket.failures.saturating_add(1);
        }
    }

    fn is_failing(&mut self, now: Instant) -> bool {
        self.advance(now);
        let (calls, failures) = self.sum(BREAKER_WINDOW_SECS);
        let often = calls >= u64::from(BREAKER_CALLS_MIN)
            && failures * 100 >= calls * u64::from(BREAKER_FAILURE_PERCENT);
        let (calls, failures) = self.sum(BREAKER_BURST_SECS);
        let at_once = failures >= u64::from(BREAKER_BURST_FAILURES)
            && failures * 100 >= calls * u64::from(BREAKER_BURST_PERCENT);
        often || at_once
    }

    /// Calls and failures of the last seconds.
    fn sum(&self, seconds: usize) -> (u64, u64) {
        let newest = self.second as usize + BREAKER_WINDOW_SECS;
        let buckets = (0..seconds).map(|back| &self.buckets[(newest - back) % BREAKER_WINDOW_SECS]);
        buckets.fold((0, 0), |(calls, failures), bucket| {
            (calls + u64::from(bucket.calls), failures + u64::from(bucket.failures))
        })
    }

    /// Empties the buckets of the seconds that passed. A clock that seems to go back changes
    /// nothing.
    fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        let passed = second.saturating_sub(self.second).min(BREAKER_WINDOW_SECS as u64);
        for step in 1..=passed {
            let index = (second - passed + step) as usize % BREAKER_WINDOW_SECS;
            self.buckets[index] = Bucket::default();
        }
        self.second = self.second.max(second);
    }
}

const _: () = assert!(BREAKER_WINDOW_SECS > 0 && BREAKER_CALLS_MIN > 0);
const _: () = assert!(BREAKER_FAILURE_PERCENT > 0 && BREAKER_FAILURE_PERCENT <= 100);
const _: () = assert!(BREAKER_BURST_SECS > 0 && BREAKER_BURST_SECS < BREAKER_WINDOW_SECS);
const _: () = assert!(BREAKER_BURST_FAILURES > 0 && BREAKER_BURST_FAILURES < BREAKER_CALLS_MIN);
const _: () = assert!(BREAKER_BURST_PERCENT > BREAKER_FAILURE_PERCENT);
const _: () = assert!(BREAKER_OPEN_TIME.as_nanos() > Duration::ZERO.as_nanos());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failing(start: Instant) -> Breaker {
        let mut breaker = Breaker::new(start);
        for _ in 0..BREAKER_BURST_FAILURES {
            assert_eq!(breaker.try_call(start), Permit::Allowed);
            breaker.handle_outcome(Outcome::Failure, start);
        }
        breaker
    }

    /// One failure in so many seconds, which is no burst.
    fn failing_slowly(start: Instant, failures: u32) -> (Breaker, Instant) {
        let (mut breaker, mut now) = (Breaker::new(start), start);
        for _ in 0..failures {
            breaker.handle_outcome(Outcome::Failure, now);
            now += SECOND * (BREAKER_BURST_SECS as u32 / 2 + 1);
        }
        (breaker, now)
    }

    #[test]
    fn too_few_calls_prove_nothing() {
        let (mut breaker, now) = failing_slowly(Instant::now(), BREAKER_CALLS_MIN - 1);
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker.handle_outcome(Outcome::Failure, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.open_until(), Some(now + BREAKER_OPEN_TIME));
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let start = Instant::now();
        let (mut breaker, _) = failing_slowly(start, BREAKER_CALLS_MIN - 1);
        let later = start + SECOND * BREAKER_WINDOW_SECS as u32;
        breaker.handle_outcome(Outcome::Failure, later);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_burst_of_failures_opens_it_before_the_full_count() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        // As attempts are made: at once, after one second, after two more.
        for (second, state) in
            [(0, BreakerState::Closed), (1, BreakerState::Closed), (3, BreakerState::Open)]
        {
            breaker.handle_outcome(Outcome::Failure, start + SECOND * second);
            assert_eq!(breaker.state(), state, "after {second} s");
        }
        // With successes among them it is none.
        let mut breaker = Breaker::new(start);
        for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure] {
            breaker.handle_outcome(outcome, start);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_server_that_is_known_to_be_gone_opens_it_without_a_call() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        breaker.trip(start);
        let until = start + BREAKER_OPEN_TIME;
        assert_eq!(breaker.try_call(start), Permit::Rejected { until });
        breaker.trip(start + SECOND);
        assert_eq!(breaker.open_until(), Some(until), "it is open already");
        assert_eq!(breaker.try_call(until), Permit::Probe);
        breaker.trip(until);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "the probe decides");
    }

    #[test]
    fn one_probe_at_a_time_and_a_lost_probe_is_replaced() {
        let start = Instant::now();
        let mut breaker = failing(start);
        let until = start + BREAKER_OPEN_TIME;
        assert_eq!(breaker.try_call(until - SECOND), Permit::Rejected { until });
        assert_eq!(breaker.try_call(until), Permit::Probe);
        let next = until + BREAKER_OPEN_TIME;
        assert_eq!(breaker.try_call(until), Permit::Rejected { until: next });
        assert_eq!(breaker.try_call(next), Permit::Probe);
        breaker.handle_outcome(Outcome::Success, next);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.try_call(next), Permit::Allowed);
    }

    #[test]
    fn a_failed_probe_opens_for_another_period() {
        let start = Instant::now();
        let mut breaker = failing(start);
        let probe_at = start + BREAKER_OPEN_TIME;
        assert_eq!(breaker.try_call(probe_at), Permit::Probe);
        breaker.handle_outcome(Outcome::Failure, probe_at + SECOND);
        assert_eq!(breaker.open_until(), Some(probe_at + SECOND + BREAKER_OPEN_TIME));
    }

    /// The property in its own words: keeps every outcome, and looks at all of them.
    struct Model {
        start: Instant,
        outcomes: Vec<(u64, Outcome)>,
        state: BreakerState,
        until: Instant,
    }

    impl Model {
        fn second(&self, now: Instant) -> u64 {
            now.duration_since(self.start).as_secs()
        }

        /// Calls and failures of so many seconds.
        fn last(&self, seconds: u64, now: Instant) -> (usize, usize) {
            let oldest = (self.second(now) + 1).saturating_sub(seconds);
            let recent = self.outcomes.iter().filter(|(second, _)| *second >= oldest);
            let failures = recent.clone().filter(|(_, o)| *o == Outcome::Failure).count();
            (recent.count(), failures)
        }

        fn trip(&mut self, now: Instant) {
            if self.state == BreakerState::Closed {
                self.outcomes.clear();
                (self.start, self.state) = (now, BreakerState::Open);
                self.until = now + BREAKER_OPEN_TIME;
            }
        }

        fn try_call(&mut self, now: Instant) -> Permit {
            if self.state == BreakerState::Closed {
                return Permit::Allowed;
            }
            if now < self.until {
                return Permit::Rejected { until: self.until };
            }
            self.state = BreakerState::HalfOpen;
            self.until = now + BREAKER_OPEN_TIME;
            Permit::Probe
        }

        fn outcome(&mut self, outcome: Outcome, now: Instant) {
            let fails = match self.state {
                BreakerState::Open => return,
                BreakerState::HalfOpen => outcome == Outcome::Failure,
                BreakerState::Closed => {
                    self.outcomes.push((self.second(now), outcome));
                    let (calls, failures) = self.last(60, now);
                    let (burst_calls, burst) = self.last(5, now);
                    let often = calls >= 5 && failures * 2 >= calls;
                    let at_once = burst >= 3 && burst * 10 >= burst_calls * 9;
                    if outcome == Outcome::Success || !(often || at_once) {
                        return;
                    }
                    true
                }
            };
            self.outcomes.clear();
            self.start = now;
            self.state = if fails { BreakerState::Open } else { BreakerState::Closed };
            self.until = now + BREAKER_OPEN_TIME;
        }
    }

    fn step() -> impl Strategy<Value = (u64, bool, bool, bool)> {
        let pause_ms = prop_oneof![6 => 0..1_500u64, 2 => 1_500..20_000u64, 1 => 20_000..90_000u64];
        (pause_ms, any::<bool>(), prop::bool::weighted(0.6), prop::bool::weighted(0.02))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 42: opens at 50 % failures over 60 s (with a minimum of calls), earlier at a burst
        // of failures and when the server is known to be gone, rejects at once, after 30 s lets one
        // probe through, closes or reopens.
        #[test]
        fn the_breaker_is_its_model(steps in prop::collection::vec(step(), 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut breaker = Breaker::new(start);
            let mut model = Model {
                start, outcomes: Vec::new(), state: BreakerState::Closed, until: start,
            };
            for (pause_ms, is_outcome, fails, is_gone) in steps {
                now += Duration::from_millis(pause_ms);
                if is_gone {
                    breaker.trip(now);
                    model.trip(now);
                }
                let permit = breaker.try_call(now);
                prop_assert_eq!(permit, model.try_call(now));
                if is_outcome || matches!(permit, Permit::Rejected { .. }) {
                    // Also late outcomes of calls from before the breaker opened.
                    let outcome = if fails { Outcome::Failure } else { Outcome::Success };
                    breaker.handle_outcome(outcome, now);
                    model.outcome(outcome, now);
                }
                prop_assert_eq!(breaker.state(), model.state);
                let until = (model.state != BreakerState::Closed).then_some(model.until);
                prop_assert_eq!(breaker.open_until(), until);
            }
        }
    }
}
