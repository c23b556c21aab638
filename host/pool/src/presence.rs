//! A server that health checks miss: all its pools give up on it at once, before their own attempts have shown it.

use std::time::{Duration, Instant};
use tidegate_core::limits::{PRESENCE_FAULTS_MIN, PRESENCE_TIME_MAX};

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appearance {
    /// Nobody has answered there for `PRESENCE_TIME_MAX`.
    Gone,
    /// Somebody does again.
    Back,
}

/// ```text
/// Here ── no answer ──▶ Missed ── none for 3 s, three times ──▶ Gone
///   ▲ ◀──────────────────── an answer, if only a refusal ──────── │
/// ```
///
/// A server that restarts is back before it counts as gone: who waits for it then is served instead of refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presence {
    missed: Option<Missed>,
}

#[derive(Clone, Copy, Debug)]
struct Missed {
    since: Instant,
    faults: u32,
    is_told: bool,
}

impl Presence {
    pub fn is_gone(&self) -> bool {
        self.missed.is_some_and(|missed| missed.is_told)
    }

    /// Nobody has answered: nobody listens, or not in time, or the network cannot reach it.
    pub fn handle_silence(&mut self, now: Instant) -> Option<Appearance> {
        let missed = self.missed.get_or_insert(Missed { since: now, faults: 0, is_told: false });
        missed.faults = missed.faults.saturating_add(1);
        let lasts = now.saturating_duration_since(missed.since);
        if missed.is_told || missed.faults < PRESENCE_FAULTS_MIN || lasts < PRESENCE_TIME_MAX {
            return None;
        }
        missed.is_told = true;
        Some(Appearance::Gone)
    }

    /// It has answered, whatever it said.
    pub fn handle_answer(&mut self) -> Option<Appearance> {
        let missed = self.missed.take()?;
        missed.is_told.then_some(Appearance::Back)
    }
}

const _: () = assert!(PRESENCE_TIME_MAX.as_nanos() > Duration::ZERO.as_nanos());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_restart_is_not_the_end() {
        let start = Instant::now();
        let mut presence = Presence::default();
        for tenth in 0..25 {
            let now = start + Duration::from_millis(100) * tenth;
            assert_eq!(presence.handle_silence(now), None);
        }
        assert_eq!(presence.handle_answer(), None);
        assert_eq!(presence.handle_silence(start + Duration::from_secs(60)), None);
    }

    #[test]
    fn who_is_asked_rarely_is_asked_three_times() {
        let start = Instant::now();
        let mut presence = Presence::default();
        let mut ask = |seconds| presence.handle_silence(start + Duration::from_secs(seconds));
        assert_eq!([ask(0), ask(10), ask(20), ask(30)], [None, None, Some(Appearance::Gone), None]);
        assert!(presence.is_gone());
        assert_eq!(presence.handle_answer(), Some(Appearance::Back));
        assert!(!presence.is_gone());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 42: a server is called gone only when it has been silent for the whole time, and then once; and each answer ends it.
        #[test]
        fn gone_is_who_was_silent_for_long(steps in prop::collection::vec((0..1_500_u64, prop::bool::weighted(0.2)), 1..100)) {
            let mut now = Instant::now();
            let mut presence = Presence::default();
            let mut silent: Vec<Instant> = Vec::new();
            for (pause_ms, answers) in steps {
                now += Duration::from_millis(pause_ms);
                let was_gone = presence.is_gone();
                if answers {
                    let back = presence.handle_answer();
                    prop_assert_eq!(back == Some(Appearance::Back), was_gone);
                    silent.clear();
                } else {
                    let told = presence.handle_silence(now);
                    silent.push(now);
                    let gone = silent.len() >= PRESENCE_FAULTS_MIN as usize
                        && now - silent[0] >= PRESENCE_TIME_MAX;
                    prop_assert_eq!(presence.is_gone(), gone);
                    prop_assert_eq!(told.is_some(), gone && !was_gone);
                }
            }
        }
    }
}
