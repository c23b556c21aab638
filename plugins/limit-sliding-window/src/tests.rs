use super::*;
use tidegate_sdk::testing::{configured, identity, select};

fn buckets(config: &str, identity: &Identity) -> Vec<(String, u32, OverLimit)> {
    let policy: SlidingWindow = configured(config).unwrap();
    let LimitPlan::Buckets(all) = policy.plan_limit(&select("orders").shape(), identity) else {
        panic!("no buckets")
    };
    assert_eq!(all.scope, Scope::EveryShape);
    all.buckets.into_iter().map(|bucket| (bucket.key, bucket.limit, bucket.over)).collect()
}

fn end_user(name: &str) -> Identity {
    Identity { end_user: Some(name.to_owned()), ..identity("app") }
}

#[test]
fn each_end_user_has_a_hundred_a_minute_and_all_ten_thousand() {
    let own = ("{end-user}".to_owned(), 100, OverLimit::Reject);
    let all = ("all".to_owned(), 10_000, OverLimit::Reject);
    assert_eq!(buckets("", &end_user("7")), [own, all.clone()]);
    assert_eq!(buckets("", &identity("app")), [all]);
}

#[test]
fn who_is_over_may_wait_and_administrators_need_not() {
    let config = r#"{"wait_ms": 250, "administrators": ["dba"]}"#;
    let over = |identity: &Identity| buckets(config, identity).pop().unwrap().2;
    assert_eq!(over(&identity("app")), OverLimit::Queue(250));
    assert_eq!(over(&identity("dba")), OverLimit::Count);
}

#[test]
fn administrators_are_counted_and_never_refused() {
    let config = r#"{"administrators": ["7", "dba"]}"#;
    let dba = Identity { roles: vec!["dba".to_owned()], ..end_user("8") };
    for administrator in [dba, identity("dba")] {
        let buckets = buckets(config, &administrator);
        assert!(!buckets.is_empty());
        assert!(buckets.iter().all(|(.., over)| *over == OverLimit::Count), "{buckets:?}");
    }
    // An application says who its user is; whoever can write a comment could say anything.
    for other in ["7", "8"] {
        let buckets = buckets(config, &end_user(other));
        assert!(buckets.iter().all(|(.., over)| *over == OverLimit::Reject));
    }
}

#[test]
fn a_limit_of_zero_is_none() {
    let policy: SlidingWindow = configured(r#"{"end_user": 0, "all": 0}"#).unwrap();
    let plan = policy.plan_limit(&select("orders").shape(), &end_user("7"));
    assert!(matches!(plan, LimitPlan::Unlimited(Scope::EveryIdentity)));
    assert!(buckets(r#"{"end_user": 0, "all": 5}"#, &end_user("7")).len() == 1);
    assert!(configured::<SlidingWindow>(r#"{"window_ms": 0}"#).is_err());
}
