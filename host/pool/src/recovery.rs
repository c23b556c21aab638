//! Whether a server that was lost has come back: one probe at a time for all pools of all workers.

use std::time::{Duration, Instant};
use tidegate_core::limits::{
    CONNECT_TIME_MAX, PROBE_PAUSE_FIRST, PROBE_PAUSE_MAX, PROBE_PAUSE_WANTED_MAX, PROBE_WANTED_TIME,
};

/// One server, as all pools that connect to it see it.
///
/// ```text
/// well -- handle_lost --> lost -- handle_answered (a probe's or anybody's connection) --> well
/// ```
///
/// Breakers and backoffs spare a server; the probe asks for all of them, so that nobody waits for
/// theirs when it is back. getter: `is_lost`; events: `handle_lost`, `handle_wanted`,
/// `handle_answered`, `handle_probe_failed`; result: `poll_probe`.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Well,
    Lost {
        /// Probes that failed in a row.
        failures: u32,
        probe: Probe,
        /// When a client last wanted a connection.
        wanted_at: Option<Instant>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    /// Nothing is under way since then.
    Resting { since: Instant },
    /// One whose outcome never comes is given up at `until`.
    UnderWay { until: Instant },
}

/// Whether a server was thought lost until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WasLost {
    No,
    Yes,
}

impl Recovery {
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }

    /// Pools give up on the server for a while.
    pub fn handle_lost(&mut self, now: Instant) {
        if !self.is_lost() {
            let probe = Probe::Resting { since: now };
            self.state = State::Lost { failures: 0, probe, wanted_at: None };
        }
    }

    /// A client wants a connection: probes come at shorter pauses for a while.
    pub fn handle_wanted(&mut self, now: Instant) {
        if let State::Lost { wanted_at, .. } = &mut self.state {
            *wanted_at = Some(now);
        }
    }

    /// The server answered somebody, if only to say no.
    pub fn handle_answered(&mut self) -> WasLost {
        match std::mem::take(&mut self.state) {
            State::Well => WasLost::No,
            State::Lost { .. } => WasLost::Yes,
        }
    }

    pub fn handle_probe_failed(&mut self, now: Instant) {
        if let State::Lost { failures, probe, .. } = &mut self.state {
            *failures = failures.saturating_add(1);
            *probe = Probe::Resting { since: now };
        }
    }

    /// When the next probe may start; `None` while the server is well.
    pub fn probe_due(&self, now: Instant) -> Option<Instant> {
        let State::Lost { failures, probe, wanted_at } = self.state else { return None };
        Some(match probe {
            Probe::UnderWay { until } => until,
            Probe::Resting { since } => {
                let wanted = wanted_at
                    .is_some_and(|at| now.saturating_duration_since(at) < PROBE_WANTED_TIME);
                since
                    + pause(failures, if wanted { PROBE_PAUSE_WANTED_MAX } else { PROBE_PAUSE_MAX })
            }
        })
    }

    /// Whether to start a probe now. Whoever is told so does, and tells how it ended.
    pub fn poll_probe(&mut self, now: Instant) -> bool {
        let due = self.probe_due(now).is_some_and(|due| due <= now);
        if let State::Lost { probe, .. } = &mut self.state
            && due
        {
            *probe = Probe::UnderWay { until: now + CONNECT_TIME_MAX * 2 };
        }
        due
    }
}

/// Doubles with each failure.
fn pause(failures: u32, longest: Duration) -> Duration {
    (PROBE_PAUSE_FIRST * (1 << failures.min(8))).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Lost at `start` and probed in vain until `time` has passed; the moments of the probes.
    fn probes(start: Instant, time: Duration, wanted: impl Fn(Duration) -> bool) -> Vec<Duration> {
        let mut recovery = Recovery::default();
        recovery.handle_lost(start);
        let mut moments = Vec::new();
        let mut passed = Duration::ZERO;
        while passed < time {
            let now = start + passed;
            if wanted(passed) {
                recovery.handle_wanted(now);
            }
            if recovery.poll_probe(now) {
                assert!(!recovery.poll_probe(now), "one at a time");
                recovery.handle_probe_failed(now);
                moments.push(passed);
            }
            passed += 50 * MILLISECOND;
        }
        moments
    }

    #[test]
    fn a_server_that_clients_want_is_probed_every_two_seconds_and_one_that_nobody_wants_more_rarely()
     {
        let start = Instant::now();
        let hour = Duration::from_secs(3_600);
        for (wanted, longest) in [(true, PROBE_PAUSE_WANTED_MAX), (false, PROBE_PAUSE_MAX)] {
            let moments = probes(start, hour, |_| wanted);
            assert_eq!(moments[0], PROBE_PAUSE_FIRST);
            let pauses = moments.windows(2).map(|pair| pair[1] - pair[0]);
            assert_eq!(pauses.max(), Some(longest), "wanted: {wanted}");
        }
    }

    #[test]
    fn a_client_that_comes_late_shortens_the_pause() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let moments = probes(start, minute * 2, |passed| passed >= minute);
        let after = moments.iter().find(|moment| **moment >= minute).unwrap();
        assert!(*after - minute <= PROBE_PAUSE_WANTED_MAX);
    }

    #[test]
    fn a_probe_whose_outcome_never_comes_is_given_up() {
        let start = Instant::now();
        let mut recovery = Recovery::default();
        assert_eq!(recovery.probe_due(start), None);
        recovery.handle_lost(start);
        let first = recovery.probe_due(start).unwrap();
        assert!(recovery.poll_probe(first));
        let next = recovery.probe_due(first).unwrap();
        assert!(next > first + CONNECT_TIME_MAX);
        assert!(!recovery.poll_probe(next - MILLISECOND) && recovery.poll_probe(next));
        assert_eq!(recovery.handle_answered(), WasLost::Yes);
        assert_eq!((recovery.handle_answered(), recovery.probe_due(next)), (WasLost::No, None));
    }

    proptest! {
        /// Whatever happens in whatever order: at most one probe is under way, and while clients want the
        /// server and it is lost, the next one is never further away than the bound.
        #[test]
        fn at_most_one_probe_and_never_late(
            events in proptest::collection::vec((0_u8..5, 0_u64..3_000), 1..200),
        ) {
            let mut now = Instant::now();
            let mut recovery = Recovery::default();
            let mut under_way: Option<Instant> = None;
            for (event, passed) in events {
                now += MILLISECOND * u32::try_from(passed).unwrap();
                match event {
                    0 => recovery.handle_lost(now),
                    1 => recovery.handle_wanted(now),
                    2 => {
                        recovery.handle_answered();
                        prop_assert!(!recovery.is_lost());
                        under_way = None;
                    }
                    3 => {
                        recovery.handle_probe_failed(now);
                        under_way = None;
                    }
                    _ => {
                        if recovery.poll_probe(now) {
                            let free = under_way.is_none_or(|at| now - at >= CONNECT_TIME_MAX);
                            prop_assert!(free, "two at a time");
                            under_way = Some(now);
                        }
                    }
                }
                recovery.handle_wanted(now);
                let due = recovery.probe_due(now);
                prop_assert_eq!(due.is_some(), recovery.is_lost());
                if under_way.is_none() && let Some(due) = due {
                    prop_assert!(due <= now + PROBE_PAUSE_WANTED_MAX);
                }
            }
        }
    }
}
