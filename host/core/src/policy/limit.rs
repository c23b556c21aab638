//! Limiting: what a policy may say about rates, and how far the host follows it.

use super::template::Holes;
use super::{AskId, Nonsense, Template, at_most, is_text};
use crate::limits::{
    POLICY_BUCKETS_MAX, POLICY_LABEL_BYTES_MAX, POLICY_LIMIT_FACTOR_MAX, POLICY_LIMIT_WINDOW_MAX,
    POLICY_QUEUE_TIME_MAX,
};
use std::time::Duration;

/// A policy's answer about one shape and identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitPlan {
    Unlimited(Scope),
    Buckets(Vec<Bucket>, Scope),
    /// Asked again for each execution what it costs.
    Ask(AskId, Vec<Bucket>, Scope),
}

impl Default for LimitPlan {
    fn default() -> Self {
        LimitPlan::Unlimited(Scope::EveryIdentity)
    }
}

/// For which other statements of the same identity a plan also stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    ThisShape,
    EveryShape,
    /// And of everybody else.
    EveryIdentity,
}

/// Units that are used up within a sliding window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// For metrics and for the error that a client gets.
    pub name: Box<str>,
    /// Which executions share it.
    pub key: Template,
    /// Units per window, at least 1.
    pub limit: u32,
    pub window: Duration,
    /// Units that one execution takes.
    pub cost: u32,
    pub over: OverLimit,
}

/// What happens over the limit. Inside an open transaction: always [`OverLimit::Count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverLimit {
    #[default]
    Reject,
    /// Waits so long at most, then is refused.
    Queue(Duration),
    /// Never refuses: how administrators bypass.
    Count,
}

/// Whether the statement is the first of its transaction, or runs inside an open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    Idle,
    Open,
}

impl OverLimit {
    /// A refusal never comes inside an open transaction, whose locks it would keep waiting.
    pub fn bind(self, transaction: TransactionState) -> OverLimit {
        match transaction {
            TransactionState::Idle => self,
            TransactionState::Open => OverLimit::Count,
        }
    }
}

/// A bucket as a plugin wrote it.
#[derive(Clone, Debug, Default)]
pub struct BucketText {
    pub name: String,
    pub key: String,
    pub limit: u32,
    pub window_ms: u64,
    pub cost: u32,
    pub over: OverLimit,
}

impl BucketText {
    fn check(&self) -> Result<Bucket, Nonsense> {
        is_text(&self.name, POLICY_LABEL_BYTES_MAX, "bucket name")?;
        let window = Duration::from_millis(self.window_ms);
        if window.is_zero() || window > POLICY_LIMIT_WINDOW_MAX {
            return Err(Nonsense::OutOfRange { what: "window-ms" });
        }
        if self.limit == 0 {
            return Err(Nonsense::OutOfRange { what: "limit" });
        }
        if self.cost > self.limit {
            // Nothing could ever pass: a policy refuses by a plan that says so.
            return Err(Nonsense::OutOfRange { what: "cost" });
        }
        if matches!(self.over, OverLimit::Queue(wait) if wait > POLICY_QUEUE_TIME_MAX) {
            return Err(Nonsense::OutOfRange { what: "queue" });
        }
        let key = Template::parse(&self.key, Holes::Identity).map_err(Nonsense::BadTemplate)?;
        let Self { limit, cost, over, .. } = *self;
        Ok(Bucket { name: self.name.as_str().into(), key, limit, window, cost, over })
    }
}

/// Refuses what no honest plugin says.
pub fn check_buckets(buckets: &[BucketText]) -> Result<Vec<Bucket>, Nonsense> {
    at_most(buckets.len(), POLICY_BUCKETS_MAX, "buckets")?;
    for (place, bucket) in buckets.iter().enumerate() {
        let before = buckets.iter().take(place);
        if before.filter(|other| other.name == bucket.name).count() > 0 {
            return Err(Nonsense::Twice { what: "bucket name" });
        }
    }
    buckets.iter().map(BucketText::check).collect()
}

/// What a decision for one execution means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Costs are multiplied by this.
    Factor(u32),
    Refuse,
}

/// Reads the number that `decide` returned.
pub fn read_decision(answer: i64) -> Result<Decision, Nonsense> {
    match answer {
        -1 => Ok(Decision::Refuse),
        _ => u32::try_from(answer)
            .ok()
            .filter(|factor| *factor <= POLICY_LIMIT_FACTOR_MAX)
            .map(Decision::Factor)
            .ok_or(Nonsense::UnknownDecision(answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket() -> BucketText {
        BucketText {
            name: "per end user".to_owned(),
            key: "{end-user}".to_owned(),
            limit: 100,
            window_ms: 60_000,
            cost: 1,
            over: OverLimit::Reject,
        }
    }

    #[test]
    fn buckets_must_be_able_to_let_something_through() {
        assert!(check_buckets(&[bucket()]).is_ok());
        for (bad, what) in [
            (BucketText { limit: 0, cost: 0, ..bucket() }, "limit"),
            (BucketText { cost: 101, ..bucket() }, "cost"),
            (BucketText { window_ms: 0, ..bucket() }, "window-ms"),
            (BucketText { window_ms: u64::MAX, ..bucket() }, "window-ms"),
            (BucketText { over: OverLimit::Queue(Duration::MAX), ..bucket() }, "queue"),
        ] {
            assert_eq!(check_buckets(&[bad]), Err(Nonsense::OutOfRange { what }));
        }
        assert_eq!(
            check_buckets(&[bucket(), bucket()]),
            Err(Nonsense::Twice { what: "bucket name" })
        );
        let parameter = BucketText { key: "{1}".to_owned(), ..bucket() };
        assert!(matches!(check_buckets(&[parameter]), Err(Nonsense::BadTemplate(_))));
    }

    #[test]
    fn decisions_are_factors_or_a_refusal() {
        assert_eq!(read_decision(0), Ok(Decision::Factor(0)));
        assert_eq!(read_decision(-1), Ok(Decision::Refuse));
        for bad in [-2, i64::MIN, i64::from(POLICY_LIMIT_FACTOR_MAX) + 1, i64::MAX] {
            assert_eq!(read_decision(bad), Err(Nonsense::UnknownDecision(bad)));
        }
    }

    fn over() -> impl Strategy<Value = OverLimit> {
        prop_oneof![
            Just(OverLimit::Reject),
            Just(OverLimit::Count),
            any::<u32>().prop_map(|ms| OverLimit::Queue(Duration::from_millis(ms.into()))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_is_refused_inside_a_transaction(over in over()) {
            prop_assert_eq!(over.bind(TransactionState::Open), OverLimit::Count);
            prop_assert_eq!(over.bind(TransactionState::Idle), over);
        }

        #[test]
        fn a_bucket_that_passes_is_within_the_hosts_bounds(
            limit in any::<u32>(),
            cost in any::<u32>(),
            window_ms in prop_oneof![any::<u64>(), 0..100_000u64],
            over in over(),
        ) {
            let text = BucketText { limit, cost, window_ms, over, ..bucket() };
            if let Ok(buckets) = check_buckets(&[text]) {
                let bucket = &buckets[0];
                prop_assert!(bucket.limit >= 1 && bucket.cost <= bucket.limit);
                prop_assert!(!bucket.window.is_zero() && bucket.window <= POLICY_LIMIT_WINDOW_MAX);
            }
        }
    }
}
