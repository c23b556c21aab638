use super::*;
use tidegate_sdk::testing::{self, configured, select, update};

fn balanced(config: &str) -> Balanced {
    configured(config).unwrap()
}

fn replica(name: &str, cpu_percent: f64, response_ms: f64) -> ReplicaMetrics {
    ReplicaMetrics {
        name: name.to_owned(),
        healthy: true,
        cpu_percent: Some(cpu_percent),
        response_ms: Some(response_ms),
        lag_ms: Some(0),
        active: 0,
        base_weight: 100.0,
    }
}

#[test]
fn reads_go_to_replicas_that_keep_up() {
    let plan = balanced(r#"{"lag_ms_max": 900}"#).plan_route(&select("orders").shape());
    let Target::Replicas(rule) = plan.target else { panic!("{plan:?}") };
    assert_eq!((rule.max_lag_ms, rule.otherwise), (Some(900), Fallback::Primary));
}

#[test]
fn writes_locks_and_named_tables_stay_on_the_primary() {
    let policy = balanced(r#"{"primary_tables": ["sessions"]}"#);
    let unknown = testing::statement(StatementKind::Unknown, Access::Unknown);
    let shapes = [update("orders"), select("orders").for_update(), select("app.sessions"), unknown];
    for shape in shapes {
        assert_eq!(policy.plan_route(&shape.shape()).target, Target::Primary);
    }
}

#[test]
fn hints_decide_for_reads_and_never_send_a_write_to_a_replica() {
    let policy = balanced("");
    let plan = |shape: testing::ShapeBuilder| policy.plan_route(&shape.shape());
    assert_eq!(plan(select("orders").tag("route", "primary")).target, Target::Primary);
    let replica = plan(select("orders").tag("route", "replica"));
    assert!(matches!(replica.target, Target::Replicas(_)) && replica.label.is_some());
    assert_eq!(plan(update("orders").tag("route", "replica")).target, Target::Primary);
}

#[test]
fn critical_statements_are_known_by_tag_or_table() {
    let policy = balanced(r#"{"critical_tables": ["payments"]}"#);
    let priority = |shape: testing::ShapeBuilder| policy.plan_route(&shape.shape()).priority;
    assert_eq!(priority(select("payments")), Priority::Critical);
    assert_eq!(priority(update("orders").tag("priority", "critical")), Priority::Critical);
    assert_eq!(priority(select("orders")), Priority::Normal);
}

#[test]
fn busy_and_slow_replicas_get_less_and_everybody_something() {
    let policy = balanced(r#"{"cpu_percent_max": 60}"#);
    let replicas = [
        replica("a", 10.0, 2.0),
        replica("b", 60.0, 2.0),
        replica("c", 10.0, 8.0),
        replica("d", 500.0, 1e9),
    ];
    let weights: Vec<f64> = policy.weigh(&replicas).iter().map(|weight| weight.weight).collect();
    assert!(weights[1] < weights[0] / 5.0 && weights[2] < weights[0] / 3.0, "{weights:?}");
    assert!(weights[3] >= 1.0 && policy.weigh(&[]).is_empty());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for bad in [r#"{"cpu_percent_max": 0}"#, r#"{"cpu_percent_max": 101}"#, r#"{"cpu": 1}"#] {
        assert!(configured::<Balanced>(bad).is_err(), "{bad}");
    }
}
