//! Which acknowledged commits a new primary does not have.
//!
//! The primary is asked again and again how far it has written. A commit that was acknowledged before such a question is in what
//! the answer says; one that was sent after the answer is behind that. The new primary tells where it left the old one's log:
//! what was in an answer up to there is safe, what is behind one from there on is lost, and of what lies between nobody knows.

use std::collections::VecDeque;
use std::time::Instant;
use tidegate_core::route::Lsn;

/// Answers that are kept: minutes, as often as servers are asked, and seconds where reads wait for replicas all the time.
pub const LOG_SAMPLES_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Asked at, for the last time with this answer.
    asked_at: Instant,
    /// Answered at, for the first time.
    answered_at: Instant,
    written: Lsn,
}

/// How far a primary had written when.
#[derive(Debug, Default)]
pub struct WrittenLog {
    /// Oldest first; no part decreases.
    samples: VecDeque<Sample>,
}

/// What becomes of commits, by when they were sent and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// What was acknowledged until then is there; `None`: nothing is known to be.
    pub safe_until: Option<Instant>,
    /// What was sent after this is not; `None`: nothing is known not to be.
    pub lost_from: Option<Instant>,
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Safe,
    Lost,
    /// It may be either.
    Unknown,
}

impl WrittenLog {
    /// The primary was asked, and has answered.
    pub fn handle_answer(&mut self, asked_at: Instant, answered_at: Instant, written: Lsn) {
        if let Some(last) = self.samples.back_mut() {
            if written < last.written || asked_at < last.asked_at {
                // Of another primary.
                self.samples.clear();
            } else if written == last.written {
                last.asked_at = asked_at;
                return;
            }
        }
        if self.samples.len() >= LOG_SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { asked_at, answered_at, written });
    }

    /// Another primary goes on from here with the log.
    pub fn losses(&self, fork: Lsn) -> Losses {
        let safe = self.samples.iter().rev().find(|sample| sample.written <= fork);
        let lost = self.samples.iter().find(|sample| sample.written >= fork);
        Losses {
            safe_until: safe.map(|sample| sample.asked_at),
            lost_from: lost.map(|sample| sample.answered_at),
        }
    }
}

impl Losses {
    /// What becomes of a commit whose statement was not sent before `sent_at`, and that its server had acknowledged at
    /// `acknowledged_at`.
    pub fn fate(&self, sent_at: Instant, acknowledged_at: Instant) -> Fate {
        if self.safe_until.is_some_and(|until| acknowledged_at <= until) {
            Fate::Safe
        } else if self.lost_from.is_some_and(|from| sent_at > from) {
            Fate::Lost
        } else {
            Fate::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[derive(Clone, Debug)]
    enum Event {
        /// A commit is sent, takes so long, and writes so much.
        Commit {
            takes: u64,
            bytes: u64,
        },
        /// The primary is asked, and answers after so long.
        Ask {
            takes: u64,
        },
        /// It writes what is no commit.
        Write(u64),
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..5_u64, 1..100_u64).prop_map(|(takes, bytes)| Event::Commit { takes, bytes }),
            2 => (0..5_u64).prop_map(|takes| Event::Ask { takes }),
            1 => (0..100_u64).prop_map(Event::Write),
            2 => (1..5_u64).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 5: what is called safe is on the new primary, and what is called lost is not.
        #[test]
        fn nothing_is_claimed_that_is_not_so(
            events in proptest::collection::vec(event(), 1..120),
            fork in 0.0..1.0_f64,
        ) {
            let start = Instant::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let (mut now, mut written) = (0, 0);
            let mut log = WrittenLog::default();
            let mut commits = Vec::new();
            for event in events {
                match event {
                    Event::Commit { takes, bytes } => {
                        let sent = now;
                        now += takes;
                        written += bytes;
                        let end = written;
                        // The word of it takes its time as well.
                        commits.push((at(sent), at(now), end));
                        now += takes;
                    }
                    Event::Ask { takes } => {
                        let asked = now;
                        now += takes;
                        log.handle_answer(at(asked), at(now), Lsn(written));
                        now += 1;
                    }
                    Event::Write(bytes) => written += bytes,
                    Event::Pass(ms) => now += ms,
                }
            }
            let fork = (written as f64 * fork) as u64;
            let losses = log.losses(Lsn(fork));
            for (sent_at, acknowledged_at, end) in commits {
                match losses.fate(sent_at, acknowledged_at) {
                    Fate::Safe => prop_assert!(end <= fork),
                    Fate::Lost => prop_assert!(end > fork),
                    Fate::Unknown => {}
                }
            }
        }
    }

    #[test]
    fn an_idle_primary_leaves_no_doubt() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut log = WrittenLog::default();
        log.handle_answer(at(0), at(1), Lsn(10));
        log.handle_answer(at(200), at(201), Lsn(20));
        log.handle_answer(at(900), at(901), Lsn(20));
        let losses = log.losses(Lsn(20));
        assert_eq!(losses.fate(at(100), at(800)), Fate::Safe);
        assert_eq!(losses.fate(at(950), at(960)), Fate::Lost, "it wrote after all that is there");
        let losses = log.losses(Lsn(15));
        assert_eq!(losses.fate(at(0), at(0)), Fate::Safe);
        assert_eq!(losses.fate(at(100), at(150)), Fate::Unknown);
        assert_eq!(losses.fate(at(300), at(310)), Fate::Lost);
        assert_eq!(WrittenLog::default().losses(Lsn(5)).fate(at(0), at(1)), Fate::Unknown);
        // Another primary's answers are not mixed with these.
        log.handle_answer(at(1_000), at(1_001), Lsn(5));
        assert_eq!(log.losses(Lsn(20)).safe_until, Some(at(1_000)));
    }

    #[test]
    fn the_log_is_bounded() {
        let mut log = WrittenLog::default();
        for n in 0..3 * LOG_SAMPLES_MAX as u64 {
            let at = Instant::now();
            log.handle_answer(at, at, Lsn(n));
        }
        assert_eq!(log.samples.len(), LOG_SAMPLES_MAX);
    }
}
