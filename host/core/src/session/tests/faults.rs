//! Faults at every point: whoever vanishes, the servers stay fit for everybody else.

use super::program::*;
use super::world::{World, map};
use crate::session::CloseReason;

/// A bit of everything.
fn programs() -> Vec<Vec<Message>> {
    let q = |sql: &str| Query(sql.to_owned());
    vec![
        vec![
            q("SELECT 'a'"),
            q("BEGIN"),
            q("SET timezone = 'A'"),
            q("SELECT 1/0"),
            q("ROLLBACK"),
            q("LISTEN c"),
        ],
        [
            vec![
                parse("s1", "SELECT 'p' || $1"),
                Bind("", "s1", Some("value".into())),
                Execute("", 0),
                Sync,
            ],
            run("BEGIN"),
            run("CREATE TEMP TABLE t ()"),
            vec![Sync, bind("", "no"), Execute("", 0), Sync],
        ]
        .concat(),
        [
            run("COPY t FROM STDIN"),
            vec![
                Sync,
                CopyData("row"),
                CopyDone,
                Sync,
                q("COPY t FROM STDIN"),
                CopyData("row"),
                CopyFail,
            ],
        ]
        .concat(),
        [
            vec![q("SELECT poke('work_mem', 'A')")],
            run("DISCARD ALL"),
            vec![
                Sync,
                q("SELECT pg_advisory_lock(1)"),
                parse("s1", "SELECT 'a'"),
                q("DEALLOCATE s1"),
                FunctionCall,
                q("PREPARE q1 AS SELECT 'q'"),
                CloseStatement("s2"),
                Sync,
            ],
        ]
        .concat(),
        [
            vec![parse("s1", "SELECT 'a'"), parse("s2", "SELECT 'b'"), Sync, q("EXECUTE s1")],
            run("EXECUTE s2"),
            vec![parse("s1", "SELECT 'c'"), Sync, bind("", "s2"), Execute("", 0), Sync],
        ]
        .concat(),
    ]
}

/// After whatever happened to client 0, another client gets its own answers from a clean server.
fn check_next(world: &mut World, context: &str) {
    world.run_dry();
    assert!(world.clients[0].server.is_none(), "{context}: the server is neither back nor closed");
    let got = world.ask(1, &bytes(&[Query("SELECT 'next'".into()), Sync]));
    assert_eq!(
        got,
        [
            "T",
            "D next#0 timezone=UTC work_mem=4MB app.x= app.y= role=none",
            "C SELECT 1",
            "Z I",
            "Z I"
        ],
        "{context}"
    );
}

fn world() -> World {
    World::new(&[map(&[]), map(&[])])
}

#[test]
fn a_client_vanishes_at_every_byte_and_whatever_has_come_back() {
    for program in programs() {
        let all = bytes(&program);
        for cut in 0..=all.len() {
            for delivered in [0, 7, 60, usize::MAX] {
                let mut world = world();
                let half = cut / 2;
                world.arrive(0, &all[..half]);
                world.deliver(0, delivered);
                world.arrive(0, &all[half..cut]);
                world.deliver(0, delivered);
                world.vanish(0);
                check_next(&mut world, &format!("{program:?} cut at {cut}, {delivered} delivered"));
            }
        }
    }
}

#[test]
fn a_server_vanishes_or_ends_at_every_point() {
    for program in programs() {
        let all = bytes(&program);
        for cut in 0..=all.len() {
            for (delivered, fatal) in
                [(0, None), (9, None), (usize::MAX, Some("57P01")), (usize::MAX, None)]
            {
                let mut world = world();
                world.arrive(0, &all[..cut]);
                world.deliver(0, delivered);
                let Some(at) = world.clients[0].server else { continue };
                match fatal {
                    None => {
                        world.server_vanished(0);
                        if world.clients[0].closed.is_none() {
                            world.vanish(0);
                        }
                    }
                    Some(sqlstate) => {
                        world.servers[at].fake.say_unasked(Some(sqlstate));
                        world.run_dry();
                        let fatals = super::world::told(&world.clients[0].received);
                        let fatals =
                            fatals.iter().filter(|word| word.starts_with("E FATAL")).count();
                        assert_eq!(fatals, 1, "{program:?} cut at {cut}");
                        assert_eq!(world.clients[0].closed, Some(CloseReason::ServerFatal));
                    }
                }
                check_next(&mut world, &format!("{program:?} cut at {cut}"));
            }
        }
    }
}

#[test]
fn trap_24_input_cut_at_every_byte_reads_the_same() {
    for program in programs() {
        let all = bytes(&program);
        let wanted = super::world::alone(&map(&[]), &all);
        for cut in 0..=all.len() {
            let mut world = world();
            world.arrive(0, &all[..cut]);
            world.deliver(0, 11);
            world.arrive(0, &all[cut..]);
            while world.deliver(0, 1) {}
            assert_eq!(
                super::world::told(&world.clients[0].received),
                wanted,
                "{program:?} at {cut}"
            );
        }
    }
}
