//! Servers that are lost under their clients: transactions fail as PostgreSQL's do, and sessions go on.

use super::program::*;
use super::world::{World, map, told};
use crate::session::CloseReason;

/// What the client is told when `before` is answered as a whole, `sent` is sent, and its server is lost without another word;
/// then of each of `after`.
fn lost(before: &[Message], sent: &[Message], after: &[&[Message]]) -> (World, Vec<Vec<String>>) {
    let mut world = World::new(&[map(&[])]);
    // One by one, so that what is left of each is known before the next.
    for message in before.split_inclusive(|message| matches!(message, Query(_) | Sync)) {
        world.ask(0, &bytes(message));
    }
    let heard = world.clients[0].received.len();
    world.arrive(0, &bytes(sent));
    assert!(world.clients[0].server.is_some(), "{before:?} {sent:?}: it has no server to lose");
    world.server_vanished(0);
    world.run_dry();
    let mut all = vec![told(&world.clients[0].received[heard..])];
    all.extend(after.iter().map(|messages| world.ask(0, &bytes(messages))));
    (world, all)
}

const FAILED: [&str; 2] = ["E ERROR 40001", "Z E"];
const SELECTED: [&str; 4] =
    ["T", "D a#0 timezone=B work_mem=4MB app.x= app.y= role=none", "C SELECT 1", "Z I"];

#[test]
fn at_rest_in_a_transaction_the_next_statement_is_told() {
    let begun = [q("SET timezone = 'B'"), q("BEGIN"), q("SET timezone = 'A'")];
    let select = [q("SELECT 'a'")];
    let after: [&[Message]; 5] =
        [&select, &select, &[q("COMMIT")], &select, &[q("BEGIN"), q("COMMIT")]];
    let (world, got) = lost(&begun, &[], &after);
    assert_eq!(got[0], [""; 0], "nobody asked anything");
    assert_eq!(got[1], FAILED);
    assert_eq!(got[2], ["E ERROR 25P02", "Z E"]);
    assert_eq!(got[3], ["C ROLLBACK", "Z I"]);
    assert_eq!(got[4], SELECTED, "the setting of the transaction is gone, the one before is not");
    assert_eq!(got[5], ["C BEGIN", "Z T", "C COMMIT", "Z I"]);
    assert_eq!(world.clients[0].closed, None);
}

#[test]
fn a_commit_is_never_taken_for_done() {
    for commit in [[q("COMMIT")].to_vec(), [run("COMMIT"), vec![Sync]].concat()] {
        let (_, got) = lost(&[q("BEGIN")], &[], &[&commit, &[q("ROLLBACK")]]);
        assert_eq!(
            (got[1].as_slice(), got[2].as_slice()),
            (&FAILED.map(String::from)[..], &["C ROLLBACK", "Z I"].map(String::from)[..]),
            "{commit:?}"
        );
    }
    // Sent and not answered, it may have been done.
    let (_, got) = lost(&[q("BEGIN")], &[q("COMMIT")], &[&[q("SELECT 'a'")]]);
    assert_eq!(got[0], ["E ERROR 08007", "Z I"]);
    assert_eq!(got[1].last().map(String::as_str), Some("Z I"));
}

#[test]
fn a_rollback_is_all_there_is_to_say() {
    for rollback in ["ROLLBACK", " rollback ; "] {
        let (world, got) = lost(&[q("BEGIN")], &[], &[&[q(rollback)]]);
        assert_eq!(got[1], ["C ROLLBACK", "Z I"]);
        assert_eq!(world.clients[0].closed, None);
    }
    let (_, got) = lost(&[q("BEGIN"), q("SAVEPOINT a")], &[], &[&[q("ROLLBACK TO a")]]);
    assert_eq!(got[1], FAILED);
}

#[test]
fn in_the_middle_of_a_transaction_the_statement_fails() {
    for sent in [vec![q("SELECT 'b'")], [run("SELECT 'b'"), vec![Sync]].concat()] {
        let after: [&[Message]; 3] = [&[q("SELECT 'a'")], &[q("ROLLBACK")], &[q("SELECT 'c'")]];
        let (_, got) = lost(&[q("BEGIN")], &sent, &after);
        assert_eq!(got[0], FAILED, "{sent:?}");
        assert_eq!(got[1], ["E ERROR 25P02", "Z E"], "{sent:?}");
        assert_eq!(got[2], ["C ROLLBACK", "Z I"], "{sent:?}");
        assert_eq!(got[3].len(), 4, "{sent:?}");
    }
    // A batch that comes afterwards fails as a whole, and so does one that comes bit by bit.
    let batch = [run("SELECT 'b'"), run("SELECT 'c'"), vec![Sync]].concat();
    let after: [&[Message]; 4] = [&run("SELECT 'a'"), &[Sync], &batch, &[q("ROLLBACK")]];
    let (_, got) = lost(&[q("BEGIN")], &[], &after);
    assert_eq!(got[1], ["E ERROR 40001"]);
    assert_eq!(got[2], ["Z E"]);
    assert_eq!(got[3], ["E ERROR 25P02", "Z E"]);
    assert_eq!(got[4], ["C ROLLBACK", "Z I"]);
}

#[test]
fn outside_a_transaction_nobody_knows() {
    for sent in [vec![q("SELECT 'b'")], [run("SELECT 'b'"), vec![Sync]].concat()] {
        let (world, got) =
            lost(&[q("SET timezone = 'B'")], &sent, &[&[q("SELECT 'a'")], &[q("COMMIT")]]);
        assert_eq!(got[0], ["E ERROR 08007", "Z I"], "{sent:?}");
        assert_eq!(got[1], SELECTED, "{sent:?}");
        assert_eq!(world.repeated, 0, "{sent:?}");
    }
}

#[test]
fn names_that_the_lost_statement_gave_are_given_back() {
    let sent = [parse("s2", "SELECT 'b'"), CloseStatement("s1"), Sync];
    let after: [&[Message]; 3] = [
        &[bind("", "s1"), Execute("", 0), Sync],
        &[bind("", "s2"), Sync],
        &[parse("s2", "SELECT 'a'"), bind("", "s2"), Execute("", 0), Sync],
    ];
    let (_, got) = lost(&[parse("s1", "SELECT 'a'"), Sync], &sent, &after);
    assert_eq!(got[0], ["E ERROR 08007", "Z I"]);
    assert!(got[1].contains(&"C SELECT 1".to_owned()), "{:?}", got[1]);
    assert_eq!(got[2].first().map(String::as_str), Some("E ERROR 26000"));
    assert!(got[3].contains(&"C SELECT 1".to_owned()), "{:?}", got[3]);
}

#[test]
fn what_cannot_move_ends_its_client() {
    let cases: [(&str, Vec<Message>, Vec<Message>); 5] = [
        ("temporary objects", vec![q("CREATE TEMP TABLE t ()")], vec![q("SELECT 'a'")]),
        ("a lock", vec![q("SELECT pg_advisory_lock(1)")], vec![q("SELECT 'a'")]),
        (
            "a name by SQL in this transaction",
            vec![q("BEGIN")],
            vec![q("PREPARE q1 AS SELECT 'q'")],
        ),
        ("half a batch", vec![], run("SELECT 'a'")),
        ("two statements", vec![], vec![q("SELECT 'a'"), q("SELECT 'b'")]),
    ];
    for (what, before, sent) in cases {
        let (world, _) = lost(&before, &sent, &[]);
        assert_eq!(world.clients[0].closed, Some(CloseReason::ServerDisconnected), "{what}");
    }
}

#[test]
fn a_setting_of_which_nobody_knows_whether_it_stands_ends_its_client() {
    let mut world = World::new(&[map(&[])]);
    let got = world.ask(0, &bytes(&[q("SET timezone = 'A'"), q("BEGIN")]));
    assert_eq!(got.last().map(String::as_str), Some("Z T"), "{got:?}");
    world.server_vanished(0);
    assert_eq!(world.clients[0].closed, Some(CloseReason::ServerDisconnected));
}
