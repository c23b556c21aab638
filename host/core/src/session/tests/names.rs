//! Trap 61: SQL's PREPARE and EXECUTE and the protocol's Parse and Bind share their names; and who shares what they name.

use super::fake::Map;
use super::program::*;
use super::world::{World, map};
use crate::session::Pins;

fn two() -> World {
    World::new(&[Map::new(), Map::new()])
}

fn q(sql: &str) -> Vec<u8> {
    query(sql)
}

fn is_pinned(world: &World) -> bool {
    world.clients[0].session.pins().contains(Pins::SQL_PREPARED)
}

#[test]
fn trap_61_execute_finds_what_parse_made_and_pins_until_it_is_gone() {
    let ends = [
        bytes(&[CloseStatement("s"), Sync]),
        q("DEALLOCATE s"),
        q("DEALLOCATE ALL"),
        bytes(&[run("DEALLOCATE s"), vec![Sync]].concat()),
    ];
    for end in ends {
        let mut world = two();
        world.ask(0, &bytes(&[parse("s", "SELECT 'mine'"), Sync]));
        assert!(!is_pinned(&world), "a name of the protocol alone keeps no server");
        let got = world.ask(0, &q("EXECUTE s"));
        assert!(got[1].starts_with("D mine#0"), "{got:?}");
        assert!(is_pinned(&world));
        let got = world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), Sync]));
        assert_eq!(got[0], "2", "a message goes on finding it");
        world.ask(0, &end);
        assert!(!is_pinned(&world));
        assert_eq!(world.ask(0, &bytes(&[bind("", "s"), Sync]))[0], "E ERROR 26000");
        // The other client has the same server now, and finds nothing.
        assert_eq!(world.ask(1, &q("EXECUTE s")), ["E ERROR 26000", "Z I"]);
        assert_eq!(world.servers.len(), 1);
    }
}

#[test]
fn trap_61_a_name_is_taken_whoever_took_it() {
    let mut world = two();
    world.ask(0, &q("PREPARE s AS SELECT 'sql'"));
    let again = bytes(&[parse("s", "SELECT 'message'"), Sync]);
    assert_eq!(world.ask(0, &again), ["E ERROR 42P05", "Z I"]);
    assert_eq!(world.ask(0, &bytes(&[parse("t", "SELECT 't'"), Sync])), ["1", "Z I"]);
    assert_eq!(world.ask(0, &q("PREPARE t AS SELECT 'sql'")), ["E ERROR 42P05", "Z I"]);
    // In one go, too: whether the first one succeeds is not known when the second is sent.
    let both = [q("PREPARE u AS SELECT 'sql'"), bytes(&[parse("u", "SELECT 'u'"), Sync])].concat();
    assert_eq!(world.ask(0, &both), ["C PREPARE", "Z I", "E ERROR 42P05", "Z I"]);
}

#[test]
fn trap_61_a_statement_that_cannot_be_made_again_fails_as_its_execution_would() {
    let mut world = two();
    world.ask(0, &bytes(&[parse("s", "SELECT 'x' FROM missing"), Sync]));
    assert_eq!(world.ask(0, &q("EXECUTE s")), ["E ERROR 26000", "Z I"], "it was never made");
    world.ask(0, &q("BEGIN"));
    world.ask(0, &bytes(&[parse("s", "SELECT 'mine'"), Sync]));
    world.ask(0, &q("SELECT 1/0"));
    // Nothing is made in a failed transaction; and afterwards it is.
    assert_eq!(world.ask(0, &q("EXECUTE s")), ["E ERROR 25P02", "Z E"]);
    world.ask(0, &q("ROLLBACK"));
    assert!(world.ask(0, &q("EXECUTE s"))[1].starts_with("D mine#0"));
}

#[test]
fn trap_61_names_that_look_like_ours_are_reached_by_messages_alone() {
    let mut world = two();
    world.ask(1, &bytes(&[parse("other", "SELECT 'secret'"), Sync]));
    for name in ["tidegate_1", "tidegate_2"] {
        world.ask(0, &bytes(&[parse(name, "SELECT 'mine'"), Sync]));
        let execute = q(&format!("EXECUTE {name}"));
        assert_eq!(world.ask(0, &execute), ["E ERROR 26000", "Z I"]);
        let got = world.ask(0, &bytes(&[bind("", name), Execute("", 0), Sync]));
        assert!(got[1].starts_with("D mine#0"), "{got:?}");
    }
    assert!(!is_pinned(&world));
}

#[test]
fn trap_61_names_of_the_protocol_alone_cost_nothing() {
    let mut world = two();
    world.ask(0, &bytes(&[parse("s", "SELECT 'mine'"), Sync]));
    world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), CloseStatement("s"), Sync]));
    world.ask(0, &bytes(&[bind("", "s"), Sync]));
    assert_eq!(world.seen().iter().filter(|sql| *sql == "SELECT 'mine'").count(), 1);
    // A name that is not there may have been anything, so that is asked about; nothing else was.
    assert_eq!(world.seen().iter().filter(|sql| sql.contains("'sql_prepared'")).count(), 1);
}

#[test]
fn trap_61_a_batch_that_fails_gives_the_name_back() {
    let mut world = two();
    world.ask(0, &bytes(&[parse("s", "SELECT 'mine'"), Sync]));
    // The batch fails before the statement is made, and after.
    for fails_first in [true, false] {
        let mut batch = run("SELECT 1/0");
        let at = if fails_first { batch.len() } else { 0 };
        batch.splice(at..at, run("EXECUTE s"));
        // The next batch is on its way before the failure is known.
        batch.extend([Sync, bind("", "s"), Execute("", 0), Sync]);
        let got = world.ask(0, &bytes(&batch));
        assert_eq!(got[got.len() - 5], "Z I", "{got:?}");
        assert!(got[got.len() - 3].starts_with("D mine#0"), "{got:?}");
        assert_eq!(is_pinned(&world), !fails_first);
    }
}

#[test]
fn trap_61_a_statement_that_only_the_server_knows_may_write() {
    let mut world = two();
    world.router.splits = true;
    world.ask(0, &q("PREPARE s AS SELECT 'sql'"));
    assert!(!world.clients[0].session.take_wrote());
    world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), Sync]));
    assert!(world.clients[0].session.take_wrote());
}

#[test]
fn a_name_of_the_application_does_not_make_a_server_parse_again() {
    let named = |name: &str| map(&[("application_name", name)]);
    let elsewhere = map(&[("application_name", "c"), ("timezone", "S")]);
    let mut world = World::new(&[named("a"), named("b"), elsewhere]);
    for (client, times) in [(0, 1), (1, 1), (0, 1), (2, 2), (1, 2)] {
        let run = bytes(&[bind("", "s"), Execute("", 0), Sync]);
        if world.clients[client].session.prepared_count() == 0 {
            world.ask(client, &bytes(&[parse("s", "SELECT 'shared'"), Sync]));
        }
        assert!(world.ask(client, &run)[1].starts_with("D shared#0"));
        let parsed = world.seen().iter().filter(|sql| *sql == "SELECT 'shared'").count();
        assert_eq!((parsed, world.servers.len()), (times, 1), "client {client}");
    }
}
