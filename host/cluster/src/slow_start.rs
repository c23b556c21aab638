//! A replica that begins to serve reads, or does so again, gets few at first: its memory is cold, and what made it leave may
//! still be there.

use std::time::{Duration, Instant};
use tidegate_core::route::WEIGHT_MAX;

/// The part of its share that it begins with.
const FIRST_PART: f64 = 0.1;

/// ```text
/// Out ── serves reads ──▶ Warming ── its time is over ──▶ Full
///  ▲ ◀── serves none ─────── │ ◀──────── serves none ────── │
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Out,
    Warming { since: Instant },
    Full,
}

/// The replicas of one cluster. event: `handle_serves`; command: `apply`.
#[derive(Debug)]
pub struct SlowStart {
    /// `None`: all that serve have their whole share at once.
    time: Option<Duration>,
    replicas: Vec<State>,
}

impl SlowStart {
    pub fn new(time: Option<Duration>, replicas: usize) -> Self {
        Self { time, replicas: vec![State::Out; replicas] }
    }

    /// This one has served reads until now.
    pub fn set_full(&mut self, replica: usize) {
        if let Some(state) = self.replicas.get_mut(replica) {
            *state = State::Full;
        }
    }

    /// It serves reads now, or does not.
    pub fn handle_serves(&mut self, replica: usize, serves: bool, now: Instant) {
        let Some(state) = self.replicas.get_mut(replica) else { return };
        *state = match (*state, serves, self.time) {
            (_, false, _) => State::Out,
            (_, true, None) => State::Full,
            (State::Out, true, Some(_)) => State::Warming { since: now },
            (State::Warming { since }, true, Some(time)) if now >= since + time => State::Full,
            (state, true, Some(_)) => state,
        };
    }

    /// Makes the shares of those smaller that have begun of late. Who has a share keeps one.
    pub fn apply(&self, shares: &mut [u32], now: Instant) {
        if !self.replicas.iter().any(|state| matches!(state, State::Warming { .. })) {
            return;
        }
        let largest = shares.iter().copied().max().unwrap_or(0).max(1);
        for (share, state) in shares.iter_mut().zip(&self.replicas) {
            // On the largest scale there is, or a small share could not become smaller.
            let scaled = f64::from(*share) * f64::from(WEIGHT_MAX) / f64::from(largest);
            let least = u32::from(*share > 0);
            *share = ((scaled * self.part(*state, now)).round() as u32).max(least);
        }
    }

    fn part(&self, state: State, now: Instant) -> f64 {
        let (State::Warming { since }, Some(time)) = (state, self.time) else { return 1.0 };
        let passed = now.saturating_duration_since(since).as_secs_f64();
        (passed / time.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(FIRST_PART, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: Duration = Duration::from_secs(10);

    fn shares_at(warm: &SlowStart, shares: [u32; 2], now: Instant) -> [u32; 2] {
        let mut shares = shares;
        warm.apply(&mut shares, now);
        shares
    }

    #[test]
    fn one_that_returns_gets_a_tenth_then_more_and_more() {
        let start = Instant::now();
        let mut warm = SlowStart::new(Some(TIME), 2);
        warm.set_full(0);
        warm.handle_serves(0, true, start);
        warm.handle_serves(1, true, start);
        assert_eq!(shares_at(&warm, [100, 100], start), [1000, 100]);
        assert_eq!(shares_at(&warm, [1, 1], start + TIME / 2), [1000, 500]);
        warm.handle_serves(1, true, start + TIME);
        assert_eq!(shares_at(&warm, [100, 100], start + TIME), [100, 100]);
        warm.handle_serves(1, false, start + TIME);
        warm.handle_serves(1, true, start + TIME);
        assert_eq!(shares_at(&warm, [100, 0], start + TIME), [1000, 0]);
        let mut at_once = SlowStart::new(None, 2);
        at_once.set_full(0);
        at_once.handle_serves(1, true, start);
        assert_eq!(shares_at(&at_once, [100, 100], start), [100, 100]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 35: while it begins, a replica's part of the reads grows from a tenth of its share to all of it, and neither it
        // nor another is left without.
        #[test]
        fn a_share_grows_to_what_the_weights_say(
            weights in prop::collection::vec(0..1_000_u32, 3), steps in prop::collection::vec(0..3_000_u64, 1..20),
        ) {
            let start = Instant::now();
            let mut warm = SlowStart::new(Some(TIME), 3);
            warm.set_full(0);
            warm.set_full(1);
            let (mut now, mut before) = (start, 0.0);
            for step in steps {
                now += Duration::from_millis(step);
                (0..3).for_each(|replica| warm.handle_serves(replica, true, now));
                let mut shares = weights.clone();
                warm.apply(&mut shares, now);
                prop_assert!(shares.iter().zip(&weights).all(|(share, w)| (*share > 0) == (*w > 0)));
                let part = |of: &[u32]| f64::from(of[2]) / f64::from(of.iter().sum::<u32>().max(1));
                let (own, whole) = (part(&shares), part(&weights));
                // Whole numbers are rounded.
                prop_assert!(own + 0.01 >= before && own <= whole + 0.01, "{shares:?} {weights:?}");
                before = own;
            }
        }
    }
}
