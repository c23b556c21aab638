//! Reads whose replica dies: nobody is told anything twice, or anything wrong, and most are told all of it.

use super::fake::Fake;
use super::program::*;
use super::world::{World, map, over_limit, told};
use crate::plan::Admission;
use crate::session::CloseReason;
use proptest::prelude::*;
use proptest::sample::select;
use tidegate_wire::frame::Header;

fn splitting() -> World {
    let mut world = World::new(&[map(&[])]);
    world.router.splits = true;
    world.choice = 1;
    world
}

/// What a server of the client's own says.
fn alone(bytes: &[u8]) -> Vec<u8> {
    let mut fake = Fake::new(map(&[]));
    fake.feed(bytes);
    fake.take_output(usize::MAX)
}

fn on_replica(world: &World) -> bool {
    world.clients[0].server.is_some_and(|at| world.servers[at].replica)
}

fn lose(world: &mut World) {
    world.server_vanished(0);
    world.run_dry();
}

fn select_word(word: &str) -> Vec<Message> {
    vec![Query(format!("SELECT '{word}'"))]
}

fn in_batch(mut messages: Vec<Message>) -> Vec<Message> {
    messages.push(Sync);
    messages
}

/// Units of reads. `s1` is prepared before them.
fn units() -> Vec<Vec<Message>> {
    vec![
        select_word("a"),
        vec![Query("SELECT 1/0".to_owned())],
        in_batch(run("SELECT 'a'")),
        in_batch([run("SELECT 'a'"), run("SELECT 'b'")].concat()),
        in_batch([run("SELECT 'a'"), run("SELECT 1/0"), run("SELECT 'b'")].concat()),
        vec![bind("p1", "s1"), DescribePortal("p1"), Execute("p1", 0), ClosePortal("p1"), Sync],
        vec![
            bind("", "s1"),
            Execute("", 0),
            parse("s2", "SELECT 'b'"),
            DescribeStatement("s2"),
            Sync,
        ],
        vec![bind("", "s1"), Execute("", 0), CloseStatement("s1"), Sync],
        vec![parse("s3", "SELECT 'c'"), bind("", "s3"), Flush, Execute("", 0), Sync],
    ]
}

/// Shows what names the client has, and that its session goes on.
fn afterwards() -> Vec<u8> {
    bytes(&[
        bind("", "s1"),
        Execute("", 0),
        Sync,
        DescribeStatement("s2"),
        Sync,
        DescribeStatement("s3"),
        Sync,
        DescribeStatement(""),
        Sync,
        Query("SELECT 'end'".to_owned()),
    ])
}

#[test]
fn a_read_whose_replica_dies_after_any_byte_is_answered_once_or_cut_short() {
    let prepare = bytes(&[parse("s1", "SELECT 'p'"), Sync]);
    for unit in units() {
        let all = [prepare.clone(), bytes(&unit), afterwards()].concat();
        let wanted = alone(&all);
        for delivered in 0..400 {
            let mut world = splitting();
            world.arrive(0, &prepare);
            world.run_dry();
            let before = world.clients[0].received.len();
            world.arrive(0, &bytes(&unit));
            assert!(on_replica(&world), "{unit:?}");
            world.deliver(0, delivered);
            if world.clients[0].server.is_none() {
                break;
            }
            let told = world.clients[0].received.len() > before;
            lose(&mut world);
            let context = format!("{unit:?}, {delivered} delivered");
            assert_eq!(world.repeated, usize::from(!told), "{context}");
            world.arrive(0, &afterwards());
            world.run_dry();
            let (client, got) = (&world.clients[0], &world.clients[0].received);
            match client.closed {
                None => assert_eq!(*got, wanted, "{context}"),
                Some(reason) => {
                    assert_eq!(reason, CloseReason::ServerDisconnected);
                    assert!(told && wanted.starts_with(got), "{context}");
                }
            }
        }
    }
}

#[test]
fn a_server_that_says_that_it_goes_is_lost() {
    for unit in units() {
        for (sqlstate, answered) in [("57P01", 0), ("57P02", 0), ("57P01", 30), ("57P02", 60)] {
            let all = [bytes(&[parse("s1", "SELECT 'p'"), Sync]), bytes(&unit)].concat();
            let mut world = splitting();
            world.arrive(0, &bytes(&[parse("s1", "SELECT 'p'"), Sync]));
            world.run_dry();
            world.arrive(0, &bytes(&unit));
            let at = world.clients[0].server.unwrap();
            let fake = &mut world.servers[at].fake;
            // What it says in the end comes with whole messages of an answer, none of which went to the client.
            let answer = fake.take_output(usize::MAX);
            let begun = whole_messages(&answer[..answered.min(answer.len() - 6)]);
            fake.out.extend(begun);
            fake.notice(sqlstate);
            world.run_dry();
            assert_eq!(world.repeated, 1, "{unit:?} {answered}");
            assert_eq!(world.clients[0].received, alone(&all), "{unit:?} {answered}");
        }
    }
}

#[test]
fn trap_109_a_read_that_stands_in_the_way_of_replay_is_run_on_the_primary() {
    for unit in units() {
        for sqlstate in ["40001", "40P01", "25006"] {
            let prepare = bytes(&[parse("s1", "SELECT 'p'"), Sync]);
            let all = [prepare.clone(), bytes(&unit), afterwards()].concat();
            let mut world = splitting();
            world.arrive(0, &prepare);
            world.run_dry();
            world.arrive(0, &bytes(&unit));
            let at = world.clients[0].server.unwrap();
            world.servers[at].fake.take_output(usize::MAX);
            world.servers[at].fake.cancel_for_replay(sqlstate);
            world.run_dry();
            assert_eq!(world.repeated, 1, "{unit:?}");
            world.arrive(0, &afterwards());
            world.run_dry();
            assert_eq!(world.clients[0].received, alone(&all), "{unit:?}");
        }
    }
    // Another error is the client's, and so is this one when rows have gone before it.
    let mut world = splitting();
    world.arrive(0, &query("SELECT 'a'"));
    let at = world.clients[0].server.unwrap();
    world.servers[at].fake.take_output(usize::MAX);
    world.servers[at].fake.cancel_for_replay("57014");
    world.run_dry();
    assert_eq!(world.repeated, 0);
    let mut world = splitting();
    world.arrive(0, &query("SELECT 'a'"));
    let at = world.clients[0].server.unwrap();
    let answer = world.servers[at].fake.take_output(usize::MAX);
    let rows = whole_messages(&answer[..answer.len() - 6]);
    world.servers[at].fake.out.extend(rows);
    world.servers[at].fake.cancel_for_replay("40001");
    world.run_dry();
    assert_eq!(world.repeated, 0);
}

/// What is done to a read, in words.
type Spoil = (&'static str, fn(&mut World));

/// What is done to a read before its replica dies, so that it is not run again.
fn spoils() -> Vec<Spoil> {
    vec![
        ("it is cancelled", |world| world.clients[0].session.forget_unit()),
        ("another notice passes", |world| {
            let at = world.clients[0].server.unwrap();
            world.servers[at].fake.take_output(usize::MAX);
            world.servers[at].fake.notice("01000");
            world.deliver(0, usize::MAX);
        }),
        ("another read is sent behind it", |world| world.arrive(0, &query("SELECT 'b'"))),
        ("a batch is begun behind it", |world| world.arrive(0, &bytes(&run("SELECT 'b'")))),
        ("a Sync is sent behind it", |world| world.arrive(0, &bytes(&[Sync]))),
        ("the client leaves", |world| world.arrive(0, &bytes(&[Terminate]))),
        ("the client vanishes", |world| world.vanish(0)),
    ]
}

#[test]
fn in_doubt_a_read_is_not_run_again() {
    for (what, spoil) in spoils() {
        let mut world = splitting();
        world.arrive(0, &query("SELECT 'a'"));
        assert!(on_replica(&world));
        spoil(&mut world);
        lose(&mut world);
        assert_eq!(world.repeated, 0, "{what}");
    }
    let mut world = splitting();
    let long = format!("SELECT '{}'", "a".repeat(crate::limits::UNIT_KEPT_BYTES_MAX));
    world.arrive(0, &query(&long));
    assert!(on_replica(&world));
    lose(&mut world);
    assert_eq!(world.repeated, 0, "it is long");
}

#[test]
fn what_runs_on_the_primary_is_not_run_again() {
    let mut world = splitting();
    world.arrive(0, &query("SELECT 'a'"));
    lose(&mut world);
    world.arrive(0, &query("SET work_mem = 'A'"));
    lose(&mut world);
    assert_eq!(world.repeated, 1);
    let mut world = splitting();
    world.arrive(0, &query("SELECT 'a'"));
    world.server_vanished(0);
    // Once is enough.
    lose(&mut world);
    assert_eq!(world.repeated, 1);
    assert_eq!(told(&world.clients[0].received), ["E ERROR 08007", "Z I"]);
    assert_eq!(world.clients[0].closed, None);
}

#[test]
fn limits_charge_it_once() {
    for unit in [select_word("a"), in_batch(run("SELECT 'a'"))] {
        let mut world = splitting();
        let limit = world.router.limit.get_or_insert_default();
        limit.answers = vec![Admission::Pass, over_limit()];
        world.arrive(0, &bytes(&unit));
        lose(&mut world);
        assert_eq!(world.repeated, 1);
        assert_eq!(world.clients[0].received, alone(&bytes(&unit)));
        let asked = |world: &World| world.router.limit.as_ref().map(|limit| limit.asked.len());
        assert_eq!(asked(&world), Some(1));
        world.ask(0, &query("SELECT 'b'"));
        assert_eq!(asked(&world), Some(2));
    }
}

/// What comes in any order: reads, what ends their turn, and names that change.
fn part() -> impl Strategy<Value = Vec<Message>> {
    let all = [
        units(),
        vec![
            vec![Query("SET work_mem = 'A'".to_owned())],
            vec![Query("BEGIN".to_owned())],
            vec![Query("COMMIT".to_owned())],
            in_batch(run("SET work_mem = 'B'")),
            vec![parse("s1", "SELECT 'p'"), Sync],
            vec![CloseStatement("s2"), CloseStatement("s3"), Sync],
            vec![Query("DEALLOCATE s1".to_owned())],
            vec![Sync],
            vec![Flush],
        ],
    ];
    select(all.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Whatever is lost at whatever moment: what the client is told is what a server of its own says, as far as it goes.
    #[test]
    fn no_answer_is_given_twice_or_changed(
        parts in proptest::collection::vec(part(), 1..12),
        steps in proptest::collection::vec((0_u8..8, any::<u8>(), 1_usize..90), 0..80),
    ) {
        let all = bytes(&parts.concat());
        let wanted = told(&alone(&all));
        let mut world = splitting();
        let mut sent = 0;
        for (what, choice, count) in steps {
            world.choice = usize::from(choice);
            match what {
                0..4 => {
                    let end = (sent + count).min(all.len());
                    world.arrive(0, &all[sent..end]);
                    sent = end;
                }
                4..7 => { world.deliver(0, count); }
                _ if on_replica(&world) => world.server_vanished(0),
                _ => {}
            }
        }
        world.arrive(0, &all[sent..]);
        world.run_dry();
        let client = &world.clients[0];
        let got = told(whole_messages(&client.received));
        if client.closed.is_none() {
            prop_assert_eq!(got, wanted);
        } else {
            prop_assert!(wanted.starts_with(&got), "{:?}, but {:?}", got, wanted);
        }
    }
}

/// Without the half of a message at the end.
pub(super) fn whole_messages(bytes: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(header) = Header::peek(&bytes[end..], 1 << 30).unwrap() {
        if end + header.frame_bytes() > bytes.len() {
            break;
        }
        end += header.frame_bytes();
    }
    &bytes[..end]
}
