//! Limits: what is asked about, once each, and what a refusal leaves behind.

use super::program::*;
use super::world::{Limit, World, forbidden, map, over_limit};
use crate::plan::Admission;
use crate::plan::Charge;
use crate::policy::limit::TransactionState::{self, Idle, Open};
use proptest::prelude::*;
use std::time::Duration;

fn limited(answers: Vec<Admission>) -> World {
    let mut world = World::new(&[map(&[])]);
    world.router.limit = Some(Limit { answers, ..Limit::default() });
    world
}

fn asked(world: &World) -> Vec<(&str, Charge, TransactionState)> {
    let limit = world.router.limit.as_ref().unwrap();
    limit.asked.iter().map(|(sql, charge, state)| (sql.as_str(), *charge, *state)).collect()
}

#[test]
fn a_query_over_the_limit_costs_the_database_nothing() {
    let mut world = limited(vec![over_limit()]);
    assert_eq!(world.ask(0, &query("SELECT 'a'")), ["E ERROR 53400", "Z I"]);
    assert_eq!(world.leases, 0);
    // The connection goes on, and drivers find it alive.
    assert_eq!(world.ask(0, &query("select 1;")).last().unwrap(), "Z I");
    assert_eq!(asked(&world), [("SELECT 'a'", Charge::ONE, Idle)]);
}

#[test]
fn a_batch_over_the_limit_is_skipped_to_its_sync_and_costs_the_database_nothing() {
    let mut world = limited(vec![over_limit(), Admission::Pass]);
    let batch = bytes(&[parse("s", "SELECT 'a'"), bind("", "s"), Execute("", 0), Sync]);
    assert_eq!(world.ask(0, &batch), ["E ERROR 53400", "Z I"]);
    assert_eq!(world.leases, 0);
    // The name is free: its Parse was refused.
    let got = world.ask(0, &batch);
    assert_eq!(got[..2], ["1", "2"], "{got:?}");
    assert_eq!(asked(&world).len(), 2);
}

#[test]
fn a_bind_whose_parse_has_gone_before_is_refused_in_its_batch() {
    let mut world = limited(vec![over_limit()]);
    world.arrive(0, &bytes(&[parse("s", "SELECT 'a'")]));
    let got = world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), Sync]));
    assert_eq!(got, ["1", "E ERROR 53400", "Z I"]);
    // As on PostgreSQL, what was parsed before the error is there.
    world.router.limit = None;
    assert_eq!(world.ask(0, &bytes(&[bind("", "s"), Sync])), ["2", "Z I"]);
}

#[test]
fn preparing_is_free_and_each_execution_is_asked_about_once() {
    let mut world = limited(vec![Admission::Pass]);
    world.ask(0, &bytes(&[parse("s", "SELECT 'a'"), DescribeStatement("s"), Sync]));
    assert_eq!(asked(&world), []);
    let once = [bind("", "s"), Execute("", 0)];
    world.ask(0, &bytes(&[&once[..], &once[..], &[Sync]].concat()));
    let one = |state| ("SELECT 'a'", Charge::ONE, state);
    // The second one runs in the implicit transaction that the first has opened.
    assert_eq!(asked(&world), [one(Idle), one(Open)]);
}

#[test]
fn inside_a_transaction_statements_are_counted_and_never_refused() {
    let pass = Admission::Pass;
    let mut world = limited(vec![pass, over_limit()]);
    for sql in ["BEGIN", "SELECT 'a'", "COMMIT"] {
        let got = world.ask(0, &query(sql));
        assert!(!got[0].starts_with('E'), "{got:?}");
    }
    let statement = ("SELECT 'a'", Charge::ONE, Open);
    assert_eq!(asked(&world), [("BEGIN", Charge::Transaction, Idle), statement]);
    assert_eq!(world.ask(0, &query("BEGIN")), ["E ERROR 53400", "Z I"]);
}

#[test]
fn what_is_pipelined_behind_a_begin_is_inside_the_transaction() {
    let mut world = limited(vec![Admission::Pass, over_limit()]);
    let all = ["BEGIN", "SELECT 'a'", "COMMIT"].map(query).concat();
    let got = world.ask(0, &all);
    assert!(!got.iter().any(|reply| reply.starts_with('E')), "{got:?}");
}

#[test]
fn a_pinned_client_is_refused_between_transactions_too() {
    let mut world = limited(vec![Admission::Pass, over_limit()]);
    world.ask(0, &query("LISTEN a"));
    assert!(!world.clients[0].session.pins().is_empty());
    assert_eq!(world.ask(0, &query("SELECT 'a'")), ["E ERROR 53400", "Z I"]);
    let batch = bytes(&[&run("SELECT 'a'")[..], &[Sync]].concat());
    assert_eq!(world.ask(0, &batch), ["E ERROR 53400", "Z I"]);
    world.router.limit = None;
    assert!(world.ask(0, &query("SELECT 'a'"))[1].starts_with("D a"));
}

#[test]
fn who_is_told_to_wait_is_asked_about_again() {
    let later = Admission::Later(Duration::from_millis(5));
    let mut world = limited(vec![later.clone(), later, Admission::Pass]);
    assert!(world.ask(0, &query("SELECT 'a'"))[1].starts_with("D a"));
    assert_eq!(asked(&world).len(), 3);
}

#[test]
fn batches_that_are_sent_at_once_are_limited_each() {
    let batch = |sql| bytes(&[&run(sql)[..], &[Sync]].concat());
    let mut world = limited(vec![Admission::Pass, over_limit()]);
    let got = world.ask(0, &["SELECT 'a'", "SELECT 'b'", "SELECT 'c'"].map(batch).concat());
    let refused = got.iter().filter(|reply| *reply == "E ERROR 53400").count();
    assert_eq!(refused, 2, "{got:?}");
    assert_eq!(got.iter().filter(|reply| *reply == "Z I").count(), 3, "{got:?}");
    // However they arrive.
    let mut world = limited(vec![Admission::Pass, over_limit()]);
    let all = [batch("SELECT 'a'"), batch("SELECT 'b'"), batch("SELECT 'c'")].concat();
    for end in 1..=all.len() {
        world.arrive(0, &all[end - 1..end]);
    }
    let got = world.ask(0, &[]);
    let refused = got.iter().filter(|reply| *reply == "E ERROR 53400").count();
    assert_eq!(refused, 2, "{got:?}");
}

#[test]
fn what_is_forbidden_fails_the_transaction_it_stands_in() {
    let statement = bytes(&[&run("SELECT 'a'")[..], &[Sync]].concat());
    for (forbidden_one, answer) in [
        (query("SELECT 'a'"), &["E ERROR 42501", "Z E"][..]),
        (statement, &["E ERROR 42501", "Z E"][..]),
    ] {
        let mut world = limited(vec![Admission::Pass, forbidden(), Admission::Pass]);
        world.ask(0, &query("BEGIN"));
        assert_eq!(world.ask(0, &forbidden_one), answer);
        assert_eq!(world.ask(0, &query("SELECT 'b'")), ["E ERROR 25P02", "Z E"]);
        assert_eq!(world.ask(0, &query("ROLLBACK")), ["C ROLLBACK", "Z I"]);
        assert!(world.ask(0, &query("SELECT 'b'"))[1].starts_with("D b"));
    }
}

#[test]
fn what_is_forbidden_between_transactions_costs_the_database_nothing() {
    let mut world = limited(vec![forbidden()]);
    assert_eq!(world.ask(0, &query("SELECT 'a'")), ["E ERROR 42501", "Z I"]);
    let batch = bytes(&[parse("s", "SELECT 'a'"), bind("", "s"), Execute("", 0), Sync]);
    assert_eq!(world.ask(0, &batch), ["E ERROR 42501", "Z I"]);
    assert_eq!(world.leases, 0);
}

#[test]
fn a_query_that_ends_a_batch_is_refused_in_its_place() {
    for (refused, sqlstate) in [(over_limit(), "53400"), (forbidden(), "42501")] {
        let mut world = limited(vec![refused]);
        world.arrive(0, &bytes(&[parse("s", "SELECT 'a'")]));
        let got = world.ask(0, &query("SELECT 'b'"));
        assert_eq!(got, ["1".to_owned(), format!("E ERROR {sqlstate}"), "Z I".to_owned()]);
        world.router.limit = None;
        assert!(world.ask(0, &query("SELECT 'b'"))[1].starts_with("D b"));
    }
}

/// What a client sends at once, and what that comes to.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Query,
    Batch,
    Named,
    Begin,
    Commit,
    Settings,
}

fn unit() -> impl Strategy<Value = Unit> {
    use Unit::*;
    prop_oneof![Just(Query), Just(Batch), Just(Named), Just(Begin), Just(Commit), Just(Settings)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Property 28: refusals come in their place, and nothing else is any different.
    #[test]
    fn each_unit_is_answered_in_turn_by_its_rows_or_by_one_refusal(
        units in prop::collection::vec(unit(), 1..20),
        refused in prop::collection::vec(any::<bool>(), 1..40),
        pieces in prop::collection::vec(1..60usize, 1..10),
        is_pinned in any::<bool>(),
    ) {
        let answer = |refused: bool| if refused { over_limit() } else { Admission::Pass };
        let mut world = limited(Vec::new());
        if is_pinned {
            world.ask(0, &query("LISTEN a"));
        }
        world.ask(0, &bytes(&[parse("named", "SELECT 'named'"), Sync]));
        world.router.limit = Some(Limit {
            answers: refused.into_iter().map(answer).collect(),
            ..Limit::default()
        });
        let mut all = Vec::new();
        for (number, unit) in units.iter().enumerate() {
            let row = format!("SELECT 'row{number}'");
            all.extend(match unit {
                Unit::Query => query(&row),
                Unit::Batch => bytes(&[&run(&row)[..], &[Sync]].concat()),
                Unit::Named => bytes(&[bind("", "named"), Execute("", 0), Sync]),
                Unit::Begin => query("BEGIN"),
                Unit::Commit => query("COMMIT"),
                Unit::Settings => query("SET work_mem = 'A'"),
            });
        }
        world.clients[0].received.clear();
        let (mut rest, mut sizes) = (&all[..], pieces.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            world.arrive(0, piece);
            rest = after;
        }
        let got = world.told_in_all(0);
        let mut answers = got.split_inclusive(|reply| reply.starts_with('Z'));
        let mut is_open = false;
        for (number, unit) in units.iter().enumerate() {
            let one = answers.next().unwrap();
            let is_refused = one.iter().any(|reply| reply == "E ERROR 53400");
            prop_assert!(!(is_refused && is_open), "refused in a transaction: {:?}", one);
            let text = format!("{one:?}");
            match unit {
                _ if is_refused => prop_assert!(one.len() <= 3 && !text.contains("\"D "), "{}", text),
                Unit::Query | Unit::Batch => {
                    prop_assert!(text.contains(&format!("D row{number}#")), "{text}")
                }
                Unit::Named => prop_assert!(text.contains("D named#"), "{text}"),
                Unit::Begin => is_open = true,
                Unit::Commit => is_open = false,
                Unit::Settings => prop_assert!(text.contains("C SET"), "{text}"),
            }
            let status = if is_open { "Z T" } else { "Z I" };
            prop_assert_eq!(one.last().map(String::as_str), Some(status));
        }
        prop_assert!(answers.next().is_none());
    }
}

#[test]
fn trap_61_an_execution_whose_statement_cannot_be_laid_open_is_asked_about_once() {
    let mut world = limited(vec![Admission::Pass]);
    world.ask(0, &bytes(&[parse("good", "SELECT 'a'"), Sync]));
    world.ask(0, &bytes(&[parse("bad", "SELECT 'x' FROM missing"), Sync]));
    for sql in ["EXECUTE good", "EXECUTE bad", "EXECUTE good"] {
        world.ask(0, &query(sql));
    }
    let texts: Vec<_> = asked(&world).iter().map(|(sql, _, _)| *sql).collect();
    assert_eq!(texts, ["EXECUTE good", "EXECUTE bad", "EXECUTE good"]);
}
