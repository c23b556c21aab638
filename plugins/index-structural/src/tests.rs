use super::*;
use tidegate_sdk::testing::{configured, select};

fn column(name: &str, distinct: f64) -> ColumnStatistics {
    ColumnStatistics {
        name: name.to_owned(),
        type_name: "int4".to_owned(),
        distinct,
        null_fraction: 0.0,
        correlation: None,
        width: 4,
        common: Vec::new(),
    }
}

fn orders(rows: f64, indexes: &[&[&str]]) -> TableStatistics {
    let index = |columns: &&[&str]| ExistingIndex {
        name: columns.join("_"),
        method: IndexMethod::Btree,
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        unique: false,
        partial: false,
    };
    TableStatistics {
        schema: "public".to_owned(),
        name: "orders".to_owned(),
        rows,
        bytes: 1 << 26,
        writes_per_second: 1.0,
        columns: vec![column("status", 5.0), column("customer", 9e4), column("at", 1e5)],
        indexes: indexes.iter().map(index).collect(),
    }
}

fn advise(table: TableStatistics, shapes: Vec<Shape>) -> Vec<(String, usize)> {
    let slow = |shape| SlowShape { shape, calls: 10, mean_ms: 300.0, plan: None };
    let batch = Batch { shapes: shapes.into_iter().map(slow).collect(), tables: vec![table] };
    let policy: Structural = configured("").unwrap();
    let name = |key: &IndexKey| match &key.source {
        KeySource::Column(column) => column.clone(),
        KeySource::FunctionOf((function, column)) => format!("{function}({column})"),
    };
    let text = |s: &Suggestion| s.keys.iter().map(name).collect::<Vec<_>>().join(",");
    policy.advise(&batch).iter().map(|s| (text(s), s.shapes.len())).collect()
}

fn columns(found: &[(String, usize)]) -> Vec<&str> {
    found.iter().map(|(columns, _)| columns.as_str()).collect()
}

#[test]
fn the_most_telling_column_comes_first_then_a_range_then_the_order() {
    let shape = select("orders").by("status", Equal).by("customer", Equal).by("at", Range);
    let found = advise(orders(1e6, &[]), vec![shape.shape()]);
    assert_eq!(columns(&found), ["customer,status", "customer", "customer,status,at"]);
    let ordered = select("orders").by("customer", Equal).ordered_by("at").shape();
    assert_eq!(columns(&advise(orders(1e6, &[]), vec![ordered])), ["customer", "customer,at"]);
    let misnamed =
        select("orders").by("customer", Equal).by("nothing", Equal).ordered_by("nowhere");
    assert_eq!(columns(&advise(orders(1e6, &[]), vec![misnamed.shape()])), ["customer"]);
    let only_ordered = select("orders").ordered_by("at").shape();
    assert_eq!(columns(&advise(orders(1e6, &[]), vec![only_ordered])), ["at"]);
}

#[test]
fn joins_are_tried_on_either_side_of_what_is_equal() {
    let shape = select("orders").by("status", Equal).by("customer", Join).shape();
    let found = advise(orders(1e6, &[]), vec![shape]);
    assert_eq!(columns(&found), ["status", "customer", "customer,status", "status,customer"]);
}

#[test]
fn small_tables_and_what_an_index_covers_are_left_alone() {
    let shape = || select("orders").by("customer", Equal).shape();
    assert!(advise(orders(499.0, &[]), vec![shape()]).is_empty());
    assert!(advise(orders(1e6, &[&["customer", "at"]]), vec![shape()]).is_empty());
    assert_eq!(advise(orders(1e6, &[&["at", "customer"]]), vec![shape()]).len(), 1);
    assert!(advise(orders(1e6, &[]), vec![select("users").by("id", Equal).shape()]).is_empty());
}

#[test]
fn shapes_that_miss_the_same_index_share_a_suggestion() {
    let shape = |low| select("orders").by("customer", Equal).fingerprint(0, low).shape();
    let found = advise(orders(1e6, &[]), vec![shape(1), shape(2), shape(1)]);
    assert_eq!(found, [("customer".to_owned(), 2)]);
}
