use super::host::{advance_ms, logged, metric};
use super::{select, update};
use crate::host::{self, Level, Metric, MetricKind, StateError, state};
use crate::types::{Comparison, Operand};

#[test]
fn values_live_as_long_as_they_say() {
    state::put("a", b"1", 10).unwrap();
    state::put("b", b"2", 0).unwrap();
    advance_ms(10);
    assert_eq!((state::get("a"), state::get("b")), (None, Some(b"2".to_vec())));
    assert_eq!(state::add("b", 1, 0), Err(StateError::NotACounter));
    assert_eq!((state::add("c", 2, 5), state::add("c", 3, 5)), (Ok(2), Ok(5)));
    assert_eq!(state::compare_and_put("b", Some(b"x"), b"3", 0), Ok(false));
    assert_eq!(state::compare_and_put("b", Some(b"2"), b"3", 0), Ok(true));
    state::remove("b");
    assert_eq!(state::compare_and_put("b", None, b"4", 0), Ok(true));
}

#[test]
fn what_a_policy_told_can_be_looked_at() {
    host::warn("careful");
    assert_eq!(logged(), [(Level::Warn, "careful".to_owned())]);
    let calls = Metric::define("calls", MetricKind::Counter).unwrap();
    assert_eq!(Metric::define("calls", MetricKind::Counter), Ok(calls));
    calls.record(1.0);
    calls.record(2.0);
    assert_eq!(metric("calls"), Some(3.0));
    let before = (host::wall_ms(), host::monotonic_ns());
    advance_ms(3);
    assert_eq!((host::wall_ms(), host::monotonic_ns()), (before.0 + 3, before.1 + 3_000_000));
    assert_ne!(host::random(), host::random());
}

#[test]
fn shapes_are_said_in_a_few_words() {
    let shape = select("app.orders").by("id", Comparison::Equal).join("users").shape();
    assert!(shape.uses_table("orders") && shape.uses_table("app.orders"));
    assert!(!shape.uses_table("other.orders") && shape.uses_table("any.users"));
    assert!(shape.uses_schema("app") && !shape.uses_schema("users"));
    assert_eq!(shape.tables[0].full_name(), "app.orders");
    assert_eq!(shape.tables[0].parameter_of("id"), Some(1));
    let literal = update("orders").by_operand("id", Comparison::Equal, Operand::Literal).shape();
    assert_eq!(literal.tables[0].parameter_of("id"), None);
    assert!(!literal.reads_only());
}
