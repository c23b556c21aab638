//! The embedded policies answer what they say they do.

use super::{by, load, question, replica, select, shape, table, update};
use crate::bindings::since_v0_1::index::{
    Batch, ColumnStatistics, ExistingIndex, IndexMethod, SlowShape, TableStatistics,
};
use crate::bindings::since_v0_1::types::Identity;
use crate::{EMBEDDED, Generation, LoadError, Question, embedded};
use std::time::Duration;
use tidegate_core::ids::Priority;
use tidegate_core::policy::cache::{KeyPart, Tier, WriteMode};
use tidegate_core::policy::index::Source as IndexSource;
use tidegate_core::policy::route::RouteTarget;
use tidegate_core::policy::template::Values;
use tidegate_core::policy::{CachePlan, LimitPlan, OverLimit, Scope, Slot, Template};
use tidegate_core::statement::{Access, Comparison, Shape, ShapeKind};

fn default(slot: Slot, settings: &str) -> Generation {
    load(slot, embedded(slot).bytes, settings).unwrap()
}

#[test]
fn every_slot_has_its_default() {
    for (slot, own) in Slot::ALL.into_iter().zip(EMBEDDED) {
        assert_eq!(own.slot, slot);
        let policy = default(slot, "");
        assert_eq!(policy.info().name, own.name);
        assert!(!policy.info().description.is_empty() && policy.slot() == slot);
        let bad = load(slot, own.bytes, r#"{"no_such_setting": 1}"#);
        assert!(matches!(bad.err(), Some(LoadError::Refused(why)) if why.contains("no_such")));
    }
}

#[test]
fn reads_go_to_replicas_and_hints_are_heeded() {
    let policy = default(Slot::Routing, r#"{"critical_tables": ["payments"]}"#);
    let plan = |shape: &Shape, tags: &[(&str, &str)]| {
        policy.plan_route(Question { shape, tags }, &["r1"]).unwrap()
    };
    assert!(matches!(plan(&select("orders"), &[]).target, RouteTarget::Replicas(_)));
    assert_eq!(plan(&select("orders"), &[("route", "primary")]).target, RouteTarget::Primary);
    assert_eq!(plan(&update("orders"), &[]).target, RouteTarget::Primary);
    assert_eq!(plan(&select("payments"), &[]).priority, Priority::Critical);
    assert_eq!(plan(&select("orders"), &[]).priority, Priority::Normal);
    assert_eq!((policy.calls(), policy.faults_total()), (5, 0));
}

#[test]
fn busy_and_slow_replicas_get_less() {
    let policy = default(Slot::Routing, "");
    let replicas = [replica("a", 10.0, 1.0), replica("b", 85.0, 1.0), replica("c", 10.0, 4.0)];
    let weights = policy.weigh(&replicas).unwrap();
    assert!(weights[0].weight > 3.0 * weights[1].weight, "{weights:?}");
    assert!(weights[0].weight > 3.0 * weights[2].weight, "{weights:?}");
}

const CACHE: &str = r#"{"rules": [
    {"table": "orders", "ttl_ms": 60000, "row": "id", "write_through": true},
    {"table": "users", "ttl_ms": 5000, "per_end_user": true}
]}"#;

fn rendered(tags: &[Template]) -> Vec<String> {
    let parameters = [Some("42")];
    let values = Values { parameters: &parameters, ..Values::default() };
    let render = |tag: &Template| {
        let mut text = String::new();
        tag.render(&values, &mut text);
        text
    };
    tags.iter().map(render).collect()
}

#[test]
fn tables_are_cached_as_the_settings_say() {
    let policy = default(Slot::Caching, CACHE);
    let plan = |shape: &Shape| policy.plan_cache(question(shape)).unwrap();
    let CachePlan::Store(rule) = plan(&select("orders")) else { panic!("not kept") };
    assert_eq!((rule.ttl, rule.tier), (Duration::from_secs(60), Tier::Fresh));
    assert_eq!(rule.write, WriteMode::WriteThrough);
    assert_eq!(rendered(&rule.tags), ["orders:row:42", "orders:rows"]);
    let tables = vec![table("orders", Access::Reads), table("users", Access::Reads)];
    let CachePlan::Store(both) = plan(&shape(ShapeKind::Select, Access::Reads, tables)) else {
        panic!("not kept")
    };
    assert_eq!((both.ttl, both.key), (Duration::from_secs(5), vec![KeyPart::EndUser]));
    assert_eq!(rendered(&both.tags), ["orders:row:42", "orders:rows", "users:any"]);
    assert_eq!(plan(&select("secrets")), CachePlan::Bypass);
    assert_eq!(plan(&update("orders")), CachePlan::Bypass);
    let off = Question { shape: &select("orders"), tags: &[("cache", "off")] };
    assert_eq!(policy.plan_cache(off).unwrap(), CachePlan::Bypass);
}

#[test]
fn a_write_invalidates_its_row_and_what_reads_many() {
    let policy = default(Slot::Caching, CACHE);
    let tags = |shape: &Shape| rendered(&policy.plan_invalidate(question(shape)).unwrap());
    assert_eq!(tags(&update("orders")), ["orders:row:42", "orders:any"]);
    assert_eq!(tags(&update("users")), ["users:rows", "users:any"]);
    assert!(tags(&update("secrets")).is_empty() && tags(&select("orders")).is_empty());
}

#[test]
fn end_users_are_limited_and_administrators_counted() {
    let policy = default(Slot::Limiting, r#"{"administrators": ["root", "dba"]}"#);
    let somebody = |user: &str, end_user: Option<&str>, roles: &[&str]| Identity {
        user: user.to_owned(),
        database: "app".to_owned(),
        application: String::new(),
        end_user: end_user.map(str::to_owned),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        tags: Vec::new(),
    };
    let plan = |identity: &Identity| {
        let select = select("orders");
        match policy.plan_limit(question(&select), identity).unwrap() {
            LimitPlan::Buckets(buckets, Scope::EveryShape) => buckets
                .iter()
                .map(|bucket| (bucket.limit, bucket.window.as_secs(), bucket.over))
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    let reject = [(100, 60, OverLimit::Reject), (10_000, 60, OverLimit::Reject)];
    let count = [(100, 60, OverLimit::Count), (10_000, 60, OverLimit::Count)];
    assert_eq!(plan(&somebody("app", Some("7"), &[])), reject);
    assert_eq!(plan(&somebody("app", None, &[])), reject[1..]);
    assert_eq!(plan(&somebody("root", Some("7"), &[])), count);
    assert_eq!(plan(&somebody("app", Some("7"), &["dba"])), count);
    // Only the application says who its user is: that makes nobody an administrator.
    assert_eq!(plan(&somebody("app", Some("root"), &[])), reject);
    let none = default(Slot::Limiting, r#"{"end_user": 0, "all": 0}"#);
    let plan = none.plan_limit(question(&select("orders")), &somebody("app", Some("7"), &[]));
    assert_eq!(plan.unwrap(), LimitPlan::Unlimited(Scope::EveryIdentity));
}

fn batch(rows: f64, indexes: Vec<ExistingIndex>) -> Batch {
    let mut orders = table("orders", Access::Reads);
    orders.columns = vec![
        by("status", Comparison::Equal),
        by("customer_id", Comparison::Equal),
        by("total", Comparison::Range),
    ];
    let shape = shape(ShapeKind::Select, Access::Reads, vec![orders]);
    let shape = crate::bindings::questions::shape(&shape, &[]);
    let column = |name: &str, distinct| ColumnStatistics {
        name: name.to_owned(),
        type_name: "int4".to_owned(),
        distinct,
        null_fraction: 0.0,
        correlation: None,
        width: 4,
        common: Vec::new(),
    };
    let columns = vec![column("status", 5.0), column("customer_id", 9e4), column("total", 1e5)];
    let orders = TableStatistics {
        schema: "public".to_owned(),
        name: "orders".to_owned(),
        rows,
        bytes: 1 << 26,
        writes_per_second: 1.0,
        columns,
        indexes,
    };
    let slow = SlowShape { shape, calls: 100, mean_ms: 250.0, plan: None };
    Batch { shapes: vec![slow], tables: vec![orders] }
}

#[test]
fn indexes_are_suggested_by_how_columns_are_compared() {
    let policy = default(Slot::Advising, "");
    let advise = |batch: &Batch| {
        let suggestions = policy.advise(batch).unwrap();
        let columns = suggestions.iter().map(|suggestion| {
            let keys = suggestion.keys.iter().map(|key| match &key.source {
                IndexSource::Column(column) => column.to_string(),
                IndexSource::FunctionOf { function, column } => format!("{function}({column})"),
            });
            keys.collect::<Vec<_>>().join(",")
        });
        columns.collect::<Vec<_>>()
    };
    let found = advise(&batch(1e6, Vec::new()));
    assert_eq!(found, ["customer_id,status", "customer_id", "customer_id,status,total"]);
    assert!(advise(&batch(100.0, Vec::new())).is_empty());
    let existing = ExistingIndex {
        name: "i".to_owned(),
        method: IndexMethod::Btree,
        columns: vec!["customer_id".to_owned(), "status".to_owned()],
        unique: false,
        partial: false,
    };
    assert_eq!(advise(&batch(1e6, vec![existing])), ["customer_id,status,total"]);
}
