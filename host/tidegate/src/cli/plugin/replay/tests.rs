//! Answers of two sides are compared by what they come to.

use tidegate_policy::embedded;

use super::super::sandbox::Reader;
use super::*;
use crate::trace::{Counts, FORMAT, Head, ShapeLine};

fn trace(statements: &[(&str, u64)]) -> Trace {
    let mut reader = Reader::new();
    let line = |(sql, count): &(&str, u64)| {
        let statement = reader.read(sql);
        Line {
            shape: ShapeLine::from(statement.shape.as_ref()),
            tags: statement.tags,
            user: "ann".to_owned(),
            database: "shop".to_owned(),
            application: String::new(),
            end_user: None,
            server: "primary".to_owned(),
            plan: None,
            cache: None,
            error: None,
            counts: Counts { count: *count, ..Counts::default() },
        }
    };
    let head = Head {
        tidegate_record: FORMAT,
        version: String::new(),
        began_ms: 0,
        replicas: vec!["replica-1".to_owned()],
    };
    Trace { head, lines: statements.iter().map(line).collect(), tail: None }
}

fn replay(slot: Slot, settings: &str, against: Side<'_>, trace: &Trace) -> Value {
    let after = Side::Plugin { bytes: embedded(slot).bytes, settings };
    let replay = Replay { slot, before: against, after, trace, most: 2, format: Format::Json };
    match run(replay).unwrap() {
        Outcome::Same(told) | Outcome::Differs(told) => serde_json::from_str(&told).unwrap(),
    }
}

#[test]
fn a_plugin_against_itself_is_the_same() {
    let trace = trace(&[("SELECT a FROM t WHERE id = 1", 10), ("UPDATE t SET a = 1", 5)]);
    for slot in [Slot::Routing, Slot::Caching, Slot::Limiting] {
        let own = Side::Plugin { bytes: embedded(slot).bytes, settings: "" };
        let told = replay(slot, "", own, &trace);
        assert_eq!(told["different"]["kinds"], 0, "{told}");
        assert_eq!(told["all"]["executions"], 15);
    }
}

#[test]
fn differences_are_counted_with_their_executions_and_the_first_are_shown() {
    let mut trace =
        trace(&[("SELECT a FROM t", 10), ("SELECT b FROM t", 20), ("SELECT c FROM t", 3)]);
    let elsewhere = Line { server: "replica-1".to_owned(), ..trace.lines[0].clone() };
    trace.lines.push(elsewhere);
    let rules = r#"{"rules": [{"table": "t", "ttl_ms": 1000}]}"#;
    let told = replay(Slot::Caching, rules, Side::BuiltIn, &trace);
    assert_eq!(told["different"]["executions"], 43, "{told}");
    assert_eq!(told["differences"][0]["executions"], 20, "those of both servers");
    assert_eq!(told["differences"].as_array().unwrap().len(), 2);
    assert_eq!(told["differences"][0]["before"], "bypass");
    assert!(told["differences"][0]["after"].as_str().unwrap().starts_with("store 1000 ms"));
}

#[test]
fn what_the_host_does_anyway_is_no_difference() {
    let trace = trace(&[("UPDATE t SET a = 1", 4), ("SELECT a FROM t FOR UPDATE", 6)]);
    let told = replay(Slot::Routing, "", Side::BuiltIn, &trace);
    assert_eq!(told["different"]["kinds"], 0, "{told}");
}

#[test]
fn what_is_read_says_how_much_is_missing() {
    let cut = trace(&[("SELECT 1", 1)]);
    let side = Side::BuiltIn;
    let replay = Replay {
        slot: Slot::Routing,
        before: side,
        after: side,
        trace: &cut,
        most: 1,
        format: Format::Table,
    };
    let Ok(Outcome::Same(told)) = run(replay) else { panic!("not the same") };
    assert!(told.contains("0 of 1 kinds") && told.contains("cut off"), "{told}");
    assert!(run(Replay { slot: Slot::Advising, ..replay }).unwrap_err().contains("advice"));
}
