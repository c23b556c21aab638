//! Canaries: which sessions use the candidate, and when it is given up or good enough.

use crate::limits::{
    POLICY_CANARY_CALLS_GOOD, POLICY_CANARY_CALLS_MIN, POLICY_CANARY_ERROR_POINTS,
    POLICY_CANARY_FAULTS_MAX, POLICY_CANARY_LATENCY_PERCENT, POLICY_CANARY_LATENCY_SLACK,
};
use std::time::Duration;

/// A share of sessions, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u8);

impl Share {
    /// `None` above 100.
    pub fn percent(percent: u8) -> Option<Share> {
        (percent <= 100).then_some(Share(percent))
    }

    /// In percent.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether a session is in the share: always the same answer for the same session, and a larger share has all of
    /// a smaller one.
    pub fn takes(self, session: u64) -> bool {
        // The finaliser of SplitMix64: neighbouring numbers land anywhere.
        let mut mixed = session.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 100 < u64::from(self.0)
    }
}

/// What was seen of statements that one version of a policy decided about, since the canary began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub statements: u64,
    /// Statements that ended in an error.
    pub errors: u64,
    /// Faults of the plugin itself.
    pub faults: u64,
    /// Of all statements together.
    pub time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too little was seen.
    Wait,
    /// As good as the active one, seen often enough to promote it.
    Good,
    RollBack(Reason),
}

/// Why a candidate is given up; the words of the alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Faults,
    Errors,
    Latency,
}

impl Reason {
    pub const ALL: [Reason; 3] = [Reason::Faults, Reason::Errors, Reason::Latency];

    pub fn name(self) -> &'static str {
        match self {
            Reason::Faults => "faults",
            Reason::Errors => "errors",
            Reason::Latency => "latency",
        }
    }
}

/// Holds a candidate against the active version. Faults need no comparison; the rest needs statements on both sides.
pub fn judge(active: &Sample, candidate: &Sample) -> Verdict {
    if candidate.faults >= POLICY_CANARY_FAULTS_MAX {
        return Verdict::RollBack(Reason::Faults);
    }
    if active.statements.min(candidate.statements) < POLICY_CANARY_CALLS_MIN {
        return Verdict::Wait;
    }
    // In hundredths of a percent.
    let rate = |sample: &Sample| sample.errors.saturating_mul(10_000) / sample.statements.max(1);
    if rate(candidate) > rate(active).saturating_add(POLICY_CANARY_ERROR_POINTS * 100) {
        return Verdict::RollBack(Reason::Errors);
    }
    let mean = |sample: &Sample| sample.time.as_nanos() / u128::from(sample.statements.max(1));
    let bearable = mean(active) * (100 + POLICY_CANARY_LATENCY_PERCENT) / 100
        + POLICY_CANARY_LATENCY_SLACK.as_nanos();
    if mean(candidate) > bearable {
        return Verdict::RollBack(Reason::Latency);
    }
    if candidate.statements >= POLICY_CANARY_CALLS_GOOD { Verdict::Good } else { Verdict::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(statements: u64, errors: u64, mean_us: u64) -> Sample {
        let time = Duration::from_micros(statements * mean_us);
        Sample { statements, errors, faults: 0, time }
    }

    #[test]
    fn faults_count_at_once_and_the_rest_needs_numbers() {
        let active = sample(10_000, 10, 500);
        let faulty = Sample { faults: POLICY_CANARY_FAULTS_MAX, ..Sample::default() };
        assert_eq!(judge(&Sample::default(), &faulty), Verdict::RollBack(Reason::Faults));
        let few = sample(POLICY_CANARY_CALLS_MIN - 1, POLICY_CANARY_CALLS_MIN - 1, 90_000);
        assert_eq!(judge(&active, &few), Verdict::Wait);
    }

    #[test]
    fn regressions_roll_back() {
        let active = sample(10_000, 10, 500);
        assert_eq!(judge(&active, &sample(1_000, 30, 500)), Verdict::RollBack(Reason::Errors));
        assert_eq!(judge(&active, &sample(1_000, 1, 5_000)), Verdict::RollBack(Reason::Latency));
        let good = sample(POLICY_CANARY_CALLS_GOOD, 1, 520);
        assert_eq!(judge(&active, &good), Verdict::Good);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_candidate_like_the_active_one_is_never_rolled_back(
            statements in 0..1_000_000u64,
            error_percent in 0..=100u64,
            mean_us in 0..1_000_000u64,
            scale in 1..20u64,
        ) {
            let active = sample(statements * scale, statements * scale * error_percent / 100, mean_us);
            let candidate = sample(statements, statements * error_percent / 100, mean_us);
            prop_assert!(!matches!(judge(&active, &candidate), Verdict::RollBack(_)));
        }

        #[test]
        fn shares_are_stable_and_nested(session in any::<u64>(), small in 0..=100u8, more in 0..=100u8) {
            let large = small.saturating_add(more).min(100);
            let (small, large) = (Share::percent(small).unwrap(), Share::percent(large).unwrap());
            prop_assert!(!small.takes(session) || large.takes(session));
            prop_assert!(Share(100).takes(session) && !Share(0).takes(session));
            prop_assert_eq!(Share::percent(101), None);
        }
    }

    #[test]
    fn a_share_is_about_as_large_as_it_says() {
        let share = Share::percent(20).unwrap();
        let taken = (0..10_000).filter(|session| share.takes(*session)).count();
        assert!((1_800..2_200).contains(&taken), "{taken}");
    }
}
