//! As of when each replica shows everything that was committed.

use crate::limits;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// A position in the write-ahead log, in bytes. Source: PostgreSQL's `pg_lsn`, `high/low` in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl Lsn {
    /// Reads PostgreSQL's text form, `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
        Some(Self(half(high)? << 32 | half(low)?))
    }
}

/// What the primary was found to have written, and when it was asked.
#[derive(Clone, Copy, Debug)]
struct Sample {
    asked_at: Instant,
    written: Lsn,
}

/// The watcher's record of one primary and its replicas.
#[derive(Debug, Default)]
pub struct Freshness {
    /// Oldest first; both parts never decrease.
    samples: VecDeque<Sample>,
    replicas: Vec<Option<Instant>>,
    /// How far each has replayed.
    replayed: Vec<Option<Lsn>>,
}

impl Freshness {
    /// Nothing is known of any of so many replicas.
    pub fn new(replicas: usize) -> Self {
        Self {
            samples: VecDeque::new(),
            replicas: vec![None; replicas],
            replayed: vec![None; replicas],
        }
    }

    /// The primary, asked at `asked_at`, had written its log up to `written`.
    ///
    /// A position behind an earlier one means another primary or another timeline: what was known is void.
    pub fn primary_wrote(&mut self, asked_at: Instant, written: Lsn) {
        if let Some(last) = self.samples.back_mut() {
            if written < last.written || asked_at < last.asked_at {
                self.forget();
            } else if written == last.written {
                // Nothing was written in between, so who has all of it is as fresh as of now.
                last.asked_at = asked_at;
                return;
            }
        }
        if self.samples.len() >= limits::FRESHNESS_SAMPLES_MAX {
            // Whoever had replayed only so much seems a little older than it is; the newest samples are those that
            // say who is fresh.
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { asked_at, written });
    }

    /// A replica has replayed up to `replayed`.
    pub fn replica_replayed(&mut self, replica: usize, replayed: Lsn) {
        let Some(place) = self.replicas.get_mut(replica) else { return };
        self.replayed[replica] = self.replayed[replica].max(Some(replayed));
        let reached = self.samples.iter().rev().find(|sample| sample.written <= replayed);
        if let Some(sample) = reached {
            *place = Some(place.map_or(sample.asked_at, |before| before.max(sample.asked_at)));
        }
    }

    /// What was known of a replica under another primary, whose log this one's goes on with.
    pub fn carry(&mut self, replica: usize, as_of: Instant, replayed: Option<Lsn>) {
        if let Some(place) = self.replicas.get_mut(replica) {
            *place = Some(as_of);
            self.replayed[replica] = replayed;
        }
    }

    /// A replica cannot be asked any more.
    pub fn replica_lost(&mut self, replica: usize) {
        if let Some(place) = self.replicas.get_mut(replica) {
            *place = None;
            self.replayed[replica] = None;
        }
    }

    /// As of when this replica shows every commit that was acknowledged until then; `None`: not known.
    pub fn as_of(&self, replica: usize) -> Option<Instant> {
        self.replicas.get(replica).copied().flatten()
    }

    /// How far this replica has replayed at least; `None`: not known.
    pub fn replayed(&self, replica: usize) -> Option<Lsn> {
        self.replayed.get(replica).copied().flatten()
    }

    /// When the primary last said how far it was.
    pub fn last_asked(&self) -> Option<Instant> {
        self.samples.back().map(|sample| sample.asked_at)
    }

    /// Nothing of what was known holds: the primary is another.
    pub fn forget(&mut self) {
        self.samples.clear();
        self.replicas.fill(None);
        self.replayed.fill(None);
    }
}

/// Takes a replica out of the rotation above one lag, and back below another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagGate {
    pub lag_max: Duration,
    /// Below `lag_max`, so that a replica near it does not come and go.
    pub lag_return: Duration,
    open: bool,
}

impl LagGate {
    /// Closed until the first lag below `lag_return` is seen.
    pub fn new(lag_max: Duration, lag_return: Duration) -> Self {
        Self { lag_max, lag_return: lag_return.min(lag_max), open: false }
    }

    /// Open: the replica has served reads until now.
    #[must_use]
    pub fn opened(self) -> Self {
        Self { open: true, ..self }
    }

    /// May the replica serve reads, with this lag? `None`: nothing is known of it.
    pub fn update(&mut self, lag: Option<Duration>) -> bool {
        self.open = match lag {
            None => false,
            Some(lag) if self.open => lag <= self.lag_max,
            Some(lag) => lag < self.lag_return,
        };
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn positions_read_as_postgresql_writes_them() {
        assert_eq!(Lsn::parse("16/B374D848"), Some(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn::parse("0/0"), Some(Lsn(0)));
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        for bad in ["", "16", "16/", "/1", "x/1", "1/2/3", "100000000/0"] {
            assert_eq!(Lsn::parse(bad), None, "{bad}");
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Write(u64),
        AskPrimary,
        Replay { replica: usize, bytes: u64 },
        AskReplica(usize),
        Lose(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..1000_u64).prop_map(Event::Write),
            Just(Event::AskPrimary),
            (0..3_usize, 0..1500_u64).prop_map(|(replica, bytes)| Event::Replay { replica, bytes }),
            (0..3_usize).prop_map(Event::AskReplica),
            (0..3_usize).prop_map(Event::Lose),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 22: the lag that is told is never smaller than the true one, and none on an idle primary.
        #[test]
        fn a_replica_shows_all_that_was_written_before_it_is_called_fresh(
            events in proptest::collection::vec(event(), 1..200),
        ) {
            let start = Instant::now();
            let mut known = Freshness::new(3);
            let (mut written, mut replayed) = (0, [0_u64; 3]);
            // Each write with its time and the log's end after it.
            let mut writes: Vec<(Instant, u64)> = Vec::new();
            for (step, event) in events.into_iter().enumerate() {
                let now = start + Duration::from_millis(step as u64);
                match event {
                    Event::Write(bytes) => {
                        written += bytes;
                        writes.push((now, written));
                    }
                    Event::AskPrimary => known.primary_wrote(now, Lsn(written)),
                    Event::Replay { replica, bytes } => {
                        replayed[replica] = written.min(replayed[replica] + bytes);
                    }
                    Event::AskReplica(replica) => known.replica_replayed(replica, Lsn(replayed[replica])),
                    Event::Lose(replica) => known.replica_lost(replica),
                }
                for (replica, replayed) in replayed.iter().enumerate() {
                    let Some(as_of) = known.as_of(replica) else { continue };
                    for (at, end) in &writes {
                        prop_assert!(*at > as_of || end <= replayed);
                    }
                }
            }
            // Then the primary rests and all is replayed.
            let now = start + Duration::from_secs(60);
            known.primary_wrote(now, Lsn(written));
            for replica in 0..3 {
                known.replica_replayed(replica, Lsn(written));
                prop_assert_eq!(known.as_of(replica), Some(now));
            }
        }

        // Property 10: out above one bound, back below another.
        #[test]
        fn the_gate_keeps_to_its_bounds(lags in proptest::collection::vec(0..8000_u64, 1..100)) {
            let mut gate = LagGate::new(Duration::from_secs(5), Duration::from_secs(2));
            let mut open = false;
            for lag in lags {
                let now = gate.update(Some(Duration::from_millis(lag)));
                prop_assert!(!now || lag <= 5000);
                prop_assert!(now || lag >= 2000);
                if now != open {
                    let passed = if now { lag < 2000 } else { lag > 5000 };
                    prop_assert!(passed);
                }
                open = now;
            }
            prop_assert!(!gate.update(None));
        }
    }

    #[test]
    fn another_timeline_voids_what_was_known() {
        let start = Instant::now();
        let mut known = Freshness::new(1);
        known.primary_wrote(start, Lsn(100));
        known.replica_replayed(0, Lsn(100));
        assert_eq!(known.as_of(0), Some(start));
        known.primary_wrote(start + Duration::from_secs(1), Lsn(50));
        assert_eq!(known.as_of(0), None);
    }

    #[test]
    fn the_record_is_bounded() {
        let start = Instant::now();
        let mut known = Freshness::new(1);
        for step in 0..10 * limits::FRESHNESS_SAMPLES_MAX as u64 {
            known.primary_wrote(start + Duration::from_millis(step), Lsn(step));
        }
        assert_eq!(known.samples.len(), limits::FRESHNESS_SAMPLES_MAX);
    }
}
