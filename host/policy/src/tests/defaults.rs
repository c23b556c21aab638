//! The embedded policies answer what they say they do.

use super::load;
use crate::{Generation, Question, embedded};
use tidegate_core::policy::route::{Priority, ReplicaMetrics, RouteTarget};
use tidegate_core::policy::Slot;
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, Effects, Family, Fingerprint, Shape, ShapeKind, TableUse,
};

fn default(slot: Slot, settings: &str) -> Generation {
    load(slot, embedded(slot).bytes, settings).unwrap()
}

fn shape(kind: ShapeKind, access: Access, table: &str, column: &str) -> Shape {
    let by = ColumnUse {
        column: column.into(),
        comparison: Comparison::Equal,
        by: By::Parameter(1),
        always: true,
    };
    let table = TableUse { schema: None, name: table.into(), access, columns: vec![by] };
    Shape {
        fingerprint: Fingerprint(0x1234_5678_9abc_def0_0fed_cba9_8765_4321),
        family: Family(1),
        normalized: format!("select * from {} where {column} = $1", table.name).into(),
        kind,
        access,
        locks: false,
        effects: Effects::default(),
        tables: vec![table],
        columns: Vec::new(),
        functions: Vec::new(),
        parameters: 1,
        literal_dependent: false,
        incomplete: None,
    }
}

fn select(table: &str) -> Shape {
    shape(ShapeKind::Select, Access::Reads, table, "id")
}

fn update(table: &str) -> Shape {
    shape(ShapeKind::Update, Access::Writes, table, "id")
}

#[test]
fn reads_go_to_replicas_and_hints_are_heeded() {
    let policy = default(Slot::Routing, r#"{"critical_tables": ["payments"]}"#);
    assert_eq!(policy.info().name, "route-balanced");
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
    let replica = |name: &str, cpu, ms| ReplicaMetrics {
        name: name.into(),
        healthy: true,
        cpu_percent: Some(cpu),
        response_ms: Some(ms),
        lag: None,
        active: 0,
        base_weight: 100.0,
    };
    let replicas =
        [replica("a", 10.0, 1.0), replica("b", 85.0, 1.0), replica("c", 10.0, 4.0)];
    let weights = policy.weigh(&replicas).unwrap();
    assert!(weights[0].weight > 3.0 * weights[1].weight, "{weights:?}");
    assert!(weights[0].weight > 3.0 * weights[2].weight, "{weights:?}");
}
