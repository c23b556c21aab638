//! Statements, replicas and people that a plugin is asked about before it is asked in earnest.

use crate::ask::Question;
use crate::bindings::questions;
use crate::bindings::since_v0_1::index::{Batch, ColumnStatistics, SlowShape, TableStatistics};
use crate::bindings::since_v0_1::types::Identity;
use tidegate_core::policy::ReplicaMetrics;
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, Family, Fingerprint, Shape, ShapeKind, TableUse,
};

/// The replicas there are.
pub const REPLICAS: [&str; 2] = ["replica-1", "replica-2"];

/// A read, a write, and something unknown.
pub fn few() -> [Shape; 3] {
    [
        small(ShapeKind::Select, Access::Reads, "SELECT a FROM t WHERE id = $1"),
        small(ShapeKind::Update, Access::Writes, "UPDATE t SET a = $1 WHERE id = $2"),
        small(ShapeKind::Unknown, Access::Unknown, ""),
    ]
}

fn small(kind: ShapeKind, access: Access, normalized: &str) -> Shape {
    let is_known = kind != ShapeKind::Unknown;
    let id = column("id", Comparison::Equal, By::Parameter(1));
    let tables = if is_known { vec![table("t", access, vec![id])] } else { Vec::new() };
    let parameters = if is_known { 2 } else { 0 };
    shape(kind, access, normalized, (tables, parameters))
}

/// An ordinary statement of an application: two tables, five columns that are compared.
pub fn ordinary() -> Shape {
    let orders = vec![
        column("customer_id", Comparison::Join, By::Column),
        column("status", Comparison::Equal, By::Parameter(1)),
        column("total", Comparison::Range, By::Parameter(2)),
        column("created_at", Comparison::Order, By::Expression),
    ];
    let customers = vec![column("id", Comparison::Join, By::Column)];
    let tables = vec![
        table("shop_order", Access::Reads, orders),
        table("shop_customer", Access::Reads, customers),
    ];
    let normalized = "SELECT o.id, o.status, o.total, c.name, c.email FROM shop_order o INNER JOIN \
        shop_customer c ON o.customer_id = c.id WHERE o.status = $1 AND o.total >= $2 ORDER BY \
        o.created_at DESC LIMIT $3";
    shape(ShapeKind::Select, Access::Reads, normalized, (tables, 3))
}

fn shape(
    kind: ShapeKind,
    access: Access,
    normalized: &str,
    (tables, parameters): (Vec<TableUse>, u16),
) -> Shape {
    Shape {
        fingerprint: Fingerprint(kind as u128 + 1),
        family: Family(kind as u128 + 1),
        normalized: normalized.into(),
        kind,
        access,
        locks: false,
        tables,
        columns: Vec::new(),
        functions: Vec::new(),
        parameters,
        literal_dependent: false,
        incomplete: None,
    }
}

fn table(name: &str, access: Access, columns: Vec<ColumnUse>) -> TableUse {
    TableUse { schema: None, name: name.into(), access, columns }
}

fn column(name: &str, comparison: Comparison, by: By) -> ColumnUse {
    ColumnUse { column: name.into(), comparison, by, always: true }
}

/// A replica that is half busy.
pub fn replica(name: &str) -> ReplicaMetrics {
    ReplicaMetrics {
        name: name.into(),
        healthy: true,
        cpu_percent: Some(50.0),
        response_ms: Some(1.0),
        lag: None,
        active: 1,
        base_weight: 100.0,
    }
}

/// Somebody without an end user, roles or tags.
pub fn somebody() -> Identity {
    Identity {
        user: "user".to_owned(),
        database: "database".to_owned(),
        application: String::new(),
        end_user: None,
        roles: Vec::new(),
        tags: Vec::new(),
    }
}

/// Nothing to advise on.
pub fn nothing_slow() -> Batch {
    Batch { shapes: Vec::new(), tables: Vec::new() }
}

/// These statements, slow, with statistics of the tables that they name.
pub fn slow(asked: &[Question<'_>]) -> Batch {
    let mut tables: Vec<TableStatistics> = Vec::new();
    for used in asked.iter().flat_map(|question| &question.shape.tables) {
        if !tables.iter().any(|table| *table.name == *used.name) {
            tables.push(statistics(used));
        }
    }
    Batch { shapes: asked.iter().copied().map(slow_shape).collect(), tables }
}

/// A statement as if it had been slow.
pub fn slow_shape(question: Question<'_>) -> SlowShape {
    let shape = questions::shape(question.shape, question.tags);
    SlowShape { shape, calls: 1_000, mean_ms: 250.0, plan: None }
}

fn statistics(used: &TableUse) -> TableStatistics {
    let mut names: Vec<&str> = used.columns.iter().map(|used| &*used.column).collect();
    names.sort_unstable();
    names.dedup();
    let column = |name: &str| ColumnStatistics {
        name: name.to_owned(),
        type_name: "int8".to_owned(),
        distinct: 100_000.0,
        null_fraction: 0.0,
        correlation: None,
        width: 8,
        common: Vec::new(),
    };
    TableStatistics {
        schema: used.schema.as_deref().unwrap_or("public").to_owned(),
        name: used.name.to_string(),
        rows: 1e6,
        bytes: 128 << 20,
        writes_per_second: 1.0,
        columns: names.into_iter().map(column).collect(),
        indexes: Vec::new(),
    }
}
