//! What one process alone lets through.

use super::*;
use proptest::prelude::*;
use tidegate_core::policy::Template;
use tidegate_core::policy::template::Holes;

const SECOND: Duration = Duration::from_secs(1);

/// A statement between transactions that has waited for nothing.
pub(super) const IDLE: Execution = Execution {
    charge: Charge::ONE,
    transaction: TransactionState::Idle,
    waited: Duration::ZERO,
    asked: Duration::ZERO,
};

/// Where nothing is shared, nobody asks.
fn unnamed(_: usize) -> Name {
    panic!("nobody shares")
}

pub(super) fn bucket(name: &str, limit: u32, over: OverLimit) -> Bucket {
    let key = Template::parse("all", Holes::Identity).unwrap();
    Bucket { name: name.into(), key, limit, window: 60 * SECOND, cost: 1, over }
}

fn admit(limiter: &mut Limiter, buckets: &[Keyed<'_>], charge: Charge, at: u64) -> Verdict {
    let statement = Execution { charge, ..IDLE };
    limiter.admit(buckets, &statement, &mut unnamed, at as u32 * SECOND)
}

// Property 28: the refusal says what, how much, and when to come again.
#[test]
fn the_refusal_says_which_limit_and_when_there_is_room() {
    let own = bucket("end user", 2, OverLimit::Reject);
    let mut limiter = Limiter::default();
    let buckets = [(&own, 7)];
    assert_eq!(admit(&mut limiter, &buckets, Charge::ONE, 1), Verdict::Pass);
    assert_eq!(admit(&mut limiter, &buckets, Charge::ONE, 1), Verdict::Pass);
    let Verdict::Over(over) = admit(&mut limiter, &buckets, Charge::ONE, 10) else {
        panic!("passed")
    };
    let refusal = over.refusal();
    assert_eq!(refusal.sqlstate, "53400");
    assert_eq!(refusal.message, "rate limit \"end user\" exceeded: 2 statements in 60 s");
    let detail = "bucket=end user limit=2 window_s=60 remaining=0 retry_after_ms=52000";
    assert_eq!(refusal.detail.as_deref(), Some(detail));
    assert_eq!(refusal.hint.as_deref(), Some("Retry after 52 s."));
    assert_eq!(
        admit(&mut limiter, &[(&own, 8)], Charge::ONE, 10),
        Verdict::Pass,
        "somebody else's"
    );
    assert_eq!(admit(&mut limiter, &buckets, Charge::ONE, 62), Verdict::Pass);
}

// Property 26 and 27: one end user's limit and everybody's act together.
#[test]
fn nothing_is_charged_when_one_bucket_has_no_room() {
    let (own, all) = (bucket("own", 100, OverLimit::Reject), bucket("all", 1, OverLimit::Reject));
    let mut limiter = Limiter::default();
    assert_eq!(admit(&mut limiter, &[(&own, 1), (&all, 0)], Charge::ONE, 1), Verdict::Pass);
    for _ in 0..200 {
        let verdict = admit(&mut limiter, &[(&own, 1), (&all, 0)], Charge::ONE, 2);
        assert!(matches!(verdict, Verdict::Over(over) if &*over.bucket == "all"));
    }
    for _ in 0..99 {
        assert_eq!(admit(&mut limiter, &[(&own, 1)], Charge::ONE, 3), Verdict::Pass);
    }
    assert!(matches!(admit(&mut limiter, &[(&own, 1)], Charge::ONE, 3), Verdict::Over(_)));
}

#[test]
fn who_may_wait_is_told_how_long_and_is_refused_when_that_is_too_long() {
    let all = bucket("all", 1, OverLimit::Queue(5 * SECOND));
    let mut limiter = Limiter::default();
    assert_eq!(admit(&mut limiter, &[(&all, 0)], Charge::ONE, 0), Verdict::Pass);
    assert!(matches!(admit(&mut limiter, &[(&all, 0)], Charge::ONE, 50), Verdict::Over(_)));
    assert_eq!(admit(&mut limiter, &[(&all, 0)], Charge::ONE, 57), Verdict::Later(4 * SECOND));
    let ask = |limiter: &mut Limiter, waited: u32| {
        let statement = Execution { waited: waited * SECOND, ..IDLE };
        limiter.admit(&[(&all, 0)], &statement, &mut unnamed, 57 * SECOND)
    };
    assert!(matches!(ask(&mut limiter, 2), Verdict::Over(_)), "it has waited before");
    assert_eq!(admit(&mut limiter, &[(&all, 0)], Charge::ONE, 61), Verdict::Pass);
}

#[test]
fn a_transaction_begins_only_where_a_statement_fits_in_and_costs_nothing_itself() {
    let all = bucket("all", 2, OverLimit::Reject);
    let mut limiter = Limiter::default();
    for _ in 0..10 {
        assert_eq!(admit(&mut limiter, &[(&all, 0)], Charge::Transaction, 1), Verdict::Pass);
    }
    for _ in 0..2 {
        assert_eq!(admit(&mut limiter, &[(&all, 0)], Charge::ONE, 1), Verdict::Pass);
    }
    let begin = admit(&mut limiter, &[(&all, 0)], Charge::Transaction, 1);
    assert!(matches!(begin, Verdict::Over(_)));
}

#[test]
fn what_costs_more_than_the_limit_is_never_let_through() {
    let all = bucket("all", 10, OverLimit::Queue(60 * SECOND));
    let dear = Charge::Statement { factor: 11 };
    let verdict = admit(&mut Limiter::default(), &[(&all, 0)], dear, 1);
    let Verdict::Over(over) = verdict else { panic!("{verdict:?}") };
    assert_eq!(over.retry_after, None);
    assert!(over.refusal().hint.is_some_and(|hint| hint.contains("cannot run")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Property 30: administrators pass, and are counted. The same holds inside a transaction.
    #[test]
    fn whoever_is_only_counted_passes_and_takes_room_from_others(
        limit in 1..20u32,
        steps in prop::collection::vec((any::<bool>(), any::<bool>()), 1..60),
    ) {
        let strict = bucket("all", limit, OverLimit::Reject);
        let counted = bucket("all", limit, OverLimit::Count);
        let mut limiter = Limiter::default();
        let mut used = 0;
        for (is_administrator, is_open) in steps {
            let bucket = if is_administrator { &counted } else { &strict };
            let transaction = if is_open { TransactionState::Open } else { TransactionState::Idle };
            let statement = Execution { transaction, ..IDLE };
            let verdict = limiter.admit(&[(bucket, 0)], &statement, &mut unnamed, SECOND);
            let passes = is_administrator || is_open || used < limit;
            prop_assert_eq!(verdict == Verdict::Pass, passes);
            used += u32::from(passes);
        }
    }
}
