use super::*;
use Comparison::{Assigned, Equal, Range};
use tidegate_sdk::testing::{configured, delete, insert, select, update};

const CONFIG: &str = r#"{"rules": [
    {"table": "orders", "ttl_ms": 60000, "row": "id", "write_through": true},
    {"table": "users", "statement": "profile", "ttl_ms": 1000},
    {"table": "users", "ttl_ms": 5000, "per_end_user": true, "warm": true}
]}"#;

fn policy() -> CacheTables {
    configured(CONFIG).unwrap()
}

fn stored(shape: &Shape) -> CacheRule {
    match policy().plan_cache(shape) {
        CachePlan::Store(rule) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_shortest_life_and_the_strictest_key_of_all_tables_count() {
    let rule = stored(&select("orders").join("users").shape());
    assert_eq!((rule.ttl_ms, rule.tier), (5_000, Tier::Fresh));
    assert_eq!(rule.key, [KeyPart::EndUser]);
    assert!(rule.write_through && rule.warm);
}

#[test]
fn a_statement_can_have_a_rule_of_its_own() {
    let mut shape = select("users").shape();
    assert_eq!(stored(&shape).ttl_ms, 5_000);
    shape.normalized = "select profile from users".to_owned();
    assert_eq!(stored(&shape).ttl_ms, 1_000);
}

#[test]
fn what_no_rule_names_is_not_kept() {
    let off = select("orders").tag("cache", "off");
    let without_table = select("orders").shape();
    let without_table = Shape { tables: Vec::new(), ..without_table };
    for shape in [
        select("secrets").shape(),
        select("orders").join("secrets").shape(),
        select("orders").for_update().shape(),
        update("orders").shape(),
        off.shape(),
        without_table,
    ] {
        assert_eq!(policy().plan_cache(&shape), CachePlan::Bypass, "{shape:?}");
    }
}

#[test]
fn every_write_reaches_every_read_that_it_may_change() {
    let one = select("orders").by("id", Equal).shape();
    let many = select("orders").by("id", Range).shape();
    assert_eq!(stored(&one).tags, ["orders:row:{1}", "orders:rows"]);
    assert_eq!(stored(&many).tags, ["orders:any"]);
    let tags = |shape: &Shape| policy().plan_invalidate(shape);
    let row = ["orders:row:{1}", "orders:any"];
    assert_eq!(tags(&update("orders").by("id", Equal).shape()), row);
    assert_eq!(tags(&delete("orders").by("id", Equal).shape()), row);
    let all = ["orders:rows", "orders:any"];
    assert_eq!(tags(&delete("orders").shape()), all);
    assert_eq!(tags(&insert("orders").by("id", Assigned).shape()), all);
    let moved = update("orders").by("id", Equal).by("id", Assigned).shape();
    assert_eq!(tags(&moved), all, "a row that changes its number is two rows");
    assert!(tags(&insert("secrets").join("orders").shape()).is_empty());
}

#[test]
fn a_rule_may_name_more() {
    let policy: CacheTables = configured(
        r#"{"rules": [{"table": "orders", "ttl_ms": 1, "tags": ["board"]}, {"table": "users", "ttl_ms": 1, "takes": ["board"]}]}"#,
    )
    .unwrap();
    let CachePlan::Store(rule) = policy.plan_cache(&select("orders").shape()) else { panic!() };
    assert_eq!(rule.tags, ["orders:any", "board"]);
    assert_eq!(
        policy.plan_invalidate(&delete("users").shape()),
        ["users:rows", "users:any", "board"]
    );
    assert!(policy.plan_invalidate(&select("users").shape()).is_empty());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for bad in [r#"{"rules": [{"table": "t"}]}"#, r#"{"rules": [{"ttl_ms": 1}]}"#, r#"{"t": 1}"#] {
        assert!(configured::<CacheTables>(bad).is_err(), "{bad}");
    }
}
