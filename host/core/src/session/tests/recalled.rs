//! Reads that are answered without a server: what the session knows of its statements afterwards.

use super::program::*;
use super::world::{Memory, World, map};
use crate::limits;

fn remembering() -> World {
    let mut world = World::new(&[map(&[])]);
    world.router.memory = Some(Memory::default());
    world
}

fn answered(world: &World) -> usize {
    world.router.memory.as_ref().unwrap().answered
}

#[test]
fn a_statement_that_was_never_parsed_is_there_when_it_is_needed() {
    let mut world = remembering();
    let batch = [parse("s", "SELECT 'a'"), bind("", "s"), DescribePortal(""), Execute("", 0), Sync];
    let kept = world.ask(0, &bytes(&batch));
    assert_eq!(kept[0], "1");
    assert_eq!(kept.last().unwrap(), "Z I");
    assert_eq!((answered(&world), world.seen().len()), (1, 0));
    // By name alone, and by whatever server there is.
    let by_name = world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), Sync]));
    assert_eq!((answered(&world), world.seen().len()), (2, 0));
    world.router.memory = None;
    for _ in 0..2 {
        assert_eq!(world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), Sync])), by_name);
        world.servers.iter_mut().for_each(|server| server.fake.dead = true);
        world.servers.clear();
    }
    let described = world.ask(0, &bytes(&[DescribeStatement("s"), Sync]));
    assert_eq!(described, ["t", "T", "Z I"]);
    assert_eq!(world.ask(0, &bytes(&[parse("s", "SELECT 'b'"), Sync]))[0], "E ERROR 42P05");
    world.ask(0, &bytes(&[CloseStatement("s"), Sync]));
    assert_eq!(world.ask(0, &bytes(&[bind("", "s"), Sync]))[0], "E ERROR 26000");
}

#[test]
fn it_is_answered_as_drivers_ask() {
    let mut world = remembering();
    let sql = "SELECT 'p' || $1";
    let one = |s| Bind("", s, Some("x".into()));
    let kept: [(&[Message], &[&str]); 7] = [
        // psycopg, node-postgres and Npgsql; the last closes what made room for it.
        (
            &[
                CloseStatement("old"),
                parse("a", sql),
                one("a"),
                DescribePortal(""),
                Execute("", 0),
                Sync,
            ],
            &["3", "1", "2", "T", "D", "C"],
        ),
        // asyncpg and tokio-postgres.
        (&[one("a"), Execute("", 0), Sync], &["2", "D", "C"]),
        // The JDBC driver.
        (
            &[parse("b", sql), DescribeStatement("b"), one("b"), Execute("", 0), Sync],
            &["1", "t", "T", "2", "D", "C"],
        ),
        (&[DescribeStatement("b"), one("b"), Execute("", 0), Sync], &["t", "T", "2", "D", "C"]),
        // sqlx.
        (&[one("b"), Execute("", 0), ClosePortal(""), Sync], &["2", "D", "C", "3"]),
        // asyncpg's fetchrow: there may be more rows, or not.
        (&[one("b"), Execute("", 1), Sync], &["2", "D", "s"]),
        (&[one("b"), Execute("", 2), Sync], &["2", "D", "C"]),
    ];
    for (batch, wanted) in kept {
        let told = world.ask(0, &bytes(batch));
        let kinds: Vec<&str> = told.iter().map(|word| &word[..1]).collect();
        assert_eq!(kinds, [wanted, &["Z"]].concat(), "{batch:?}");
    }
    assert_eq!((answered(&world), world.seen().len()), (7, 0));
    let run: [&[Message]; 6] = [
        &[parse("c", sql), one("a"), Execute("", 0), Sync],
        &[DescribeStatement("a"), one("b"), Execute("", 0), Sync],
        &[DescribeStatement("b"), one("b"), DescribePortal(""), Execute("", 0), Sync],
        &[one("b"), Execute("", 0), CloseStatement("b"), Sync],
        &[one("a"), Execute("", 1), Execute("", 1), Sync],
        &[parse("a", sql), one("a"), Execute("", 0), Sync],
    ];
    for batch in run {
        world.ask(0, &bytes(batch));
        assert_eq!(answered(&world), 7, "{batch:?}");
    }
}

#[test]
fn as_many_statements_as_one_client_may_hold() {
    let mut world = remembering();
    let names: Vec<&'static str> = (0..=limits::PREPARED_PER_CLIENT_MAX)
        .map(|n| &*Box::leak(format!("n{n}").into_boxed_str()))
        .collect();
    let (last, most) = names.split_last().unwrap();
    let batch = |name| bytes(&[parse(name, "SELECT 'a'"), bind("", name), Execute("", 0), Sync]);
    for name in most {
        assert_eq!(world.ask(0, &batch(name))[0], "1");
    }
    assert_eq!(answered(&world), most.len());
    assert_eq!(world.ask(0, &batch(last)), ["E ERROR 54000", "Z I"]);
    assert_eq!(answered(&world), most.len());
}
