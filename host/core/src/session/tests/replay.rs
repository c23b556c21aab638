//! Transactions that are run again: their client sees one that nothing has interrupted, or one that has failed.

use super::again::whole_messages;
use super::fake::Fake;
use super::program::*;
use super::world::{World, map, told};
use crate::limits;
use crate::plan::REPLAY_SETTING;
use crate::refusal::Refusal;
use crate::session::{CloseReason, ReplayObstacle, ReplayTally, Work};
use proptest::prelude::*;
use proptest::sample::select;
use std::time::{Duration, Instant};

fn world() -> World {
    World::new(&[map(&[(REPLAY_SETTING, "on")])])
}

/// The same whose server has the client's settings.
fn warm() -> World {
    let mut world = world();
    world.ask(0, &query("SELECT 'warm'"));
    world.clients[0].received.clear();
    world
}

/// What a server of the client's own says.
fn alone(bytes: &[u8]) -> Vec<u8> {
    let mut fake = Fake::new(map(&[(REPLAY_SETTING, "on")]));
    fake.feed(bytes);
    fake.take_output(usize::MAX)
}

fn tally(world: &mut World) -> ReplayTally {
    world.clients[0].session.take_tally().replays
}

fn ran_again(times: u8) -> ReplayTally {
    ReplayTally { tried: times, succeeded: times, ..ReplayTally::default() }
}

fn given_up(why: ReplayObstacle) -> ReplayTally {
    ReplayTally { given_up: Some(why), ..ReplayTally::default() }
}

fn in_batch(sql: &str) -> Vec<Message> {
    [run(sql), vec![Sync]].concat()
}

fn lose(world: &mut World) {
    world.server_vanished(0);
    world.run_dry();
}

/// Has the client's server say for its next statement that it cannot be serialized.
fn conflict(world: &mut World, sqlstate: &'static str) {
    let at = world.clients[0].server.unwrap();
    world.servers[at].fake.conflict = Some(sqlstate);
}

/// Transactions but for their ends, of units that are sent one at a time.
fn transactions() -> Vec<Vec<Vec<Message>>> {
    vec![
        vec![vec![q("BEGIN")], vec![q("SELECT 'a'")], vec![q("SELECT 'series'")]],
        vec![vec![q("BEGIN")], in_batch("SELECT 'a'"), in_batch("SELECT 'series'")],
        vec![[run("BEGIN"), run("SELECT 'a'"), vec![Sync]].concat(), in_batch("SELECT 'b'")],
        vec![
            vec![q("BEGIN")],
            vec![q("SET timezone = 'A'")],
            vec![q("SET LOCAL work_mem = 'B'")],
            vec![q("SELECT 'a'")],
        ],
        vec![
            vec![q("BEGIN")],
            vec![parse("s2", "SELECT 'b'"), DescribeStatement("s2"), Sync],
            vec![bind("", "s2"), Execute("", 0), bind("", "s1"), Execute("", 0), Sync],
            vec![CloseStatement("s1"), Sync],
            vec![parse("s1", "SELECT 'c'"), bind("", "s1"), Flush, Execute("", 0), Sync],
        ],
        vec![
            vec![q("BEGIN")],
            vec![q("SAVEPOINT a")],
            vec![q("SELECT 1/0")],
            vec![q("ROLLBACK TO a")],
            vec![q("SELECT 'a'")],
        ],
        vec![
            vec![q("BEGIN")],
            vec![parse("", "SELECT 'series'"), bind("p1", ""), Execute("p1", 2), Sync],
            vec![Execute("p1", 0), Sync],
        ],
        vec![vec![q("BEGIN;SELECT 'a'")], vec![q("SELECT 'b';SELECT 'c'")]],
    ]
}

fn prepared() -> Vec<u8> {
    bytes(&[parse("s1", "SELECT 'p'"), Sync])
}

/// Ends it, and shows what names the client has.
fn afterwards() -> Vec<Vec<Message>> {
    vec![
        vec![q("COMMIT")],
        vec![DescribeStatement("s1"), Sync],
        vec![DescribeStatement("s2"), Sync],
        vec![DescribeStatement(""), Sync],
        vec![q("SELECT 'end'")],
    ]
}

#[test]
fn a_server_that_is_lost_after_any_unit_is_not_missed() {
    for transaction in transactions() {
        let all = [transaction.clone(), afterwards()].concat();
        let wanted = alone(&[prepared(), bytes(&all.concat())].concat());
        for lost in 0..transaction.len() {
            let mut world = world();
            world.ask(0, &prepared());
            world.clients[0].received.clear();
            for (number, unit) in all.iter().enumerate() {
                world.arrive(0, &bytes(unit));
                world.run_dry();
                if number == lost {
                    lose(&mut world);
                }
            }
            let told = [alone(&prepared()), world.clients[0].received.clone()].concat();
            assert_eq!(told, wanted, "{transaction:?} {lost}");
            assert_eq!(tally(&mut world), ran_again(1), "{transaction:?} {lost}");
        }
    }
}

#[test]
fn a_server_that_is_lost_after_any_byte_of_an_answer_is_not_missed() {
    for transaction in transactions() {
        let all = [transaction.clone(), afterwards()].concat();
        let wanted = alone(&[prepared(), bytes(&all.concat())].concat());
        for lost in 0..transaction.len() {
            for delivered in (0..400).step_by(7) {
                let mut world = world();
                world.arrive(0, &prepared());
                world.run_dry();
                for (number, unit) in all.iter().enumerate() {
                    world.arrive(0, &bytes(unit));
                    if number == lost {
                        world.deliver(0, delivered);
                        lose(&mut world);
                    }
                    world.run_dry();
                }
                let context = format!("{transaction:?} {lost} {delivered}");
                assert_eq!(world.clients[0].received, wanted, "{context}");
                assert_eq!(tally(&mut world), ran_again(1), "{context}");
            }
        }
    }
}

#[test]
fn what_cannot_be_serialized_is_run_again() {
    for sqlstate in ["40001", "40P01"] {
        let begun = [q("BEGIN"), q("SELECT 'a'")];
        let ends: [&[Message]; 3] = [&[q("SELECT 'b'")], &in_batch("SELECT 'b'"), &[q("COMMIT")]];
        for unit in ends {
            let mut world = world();
            for message in &begun {
                world.arrive(0, &bytes(std::slice::from_ref(message)));
                world.run_dry();
            }
            conflict(&mut world, sqlstate);
            world.arrive(0, &bytes(unit));
            world.run_dry();
            let all = [&begun[..], unit, &[q("COMMIT")]].concat();
            world.arrive(0, &query("COMMIT"));
            world.run_dry();
            assert_eq!(world.clients[0].received, alone(&bytes(&all)), "{unit:?}");
            assert_eq!(tally(&mut world), ran_again(1));
            assert_eq!(world.clients[0].server, None);
        }
    }
    // A statement outside a transaction is one.
    for unit in [vec![q("SELECT 'b'")], in_batch("SELECT 'b'")] {
        let mut world = warm();
        world.arrive(0, &bytes(&unit));
        // It has run already; its answer is another.
        let at = world.clients[0].server.unwrap();
        world.servers[at].fake.take_output(usize::MAX);
        world.servers[at].fake.cancel_for_replay("40001");
        world.servers[at].fake.feed(&[]);
        let ready = alone(&bytes(&[Sync]));
        world.servers[at].fake.out.extend(ready);
        world.run_dry();
        assert_eq!(world.clients[0].received, alone(&bytes(&unit)), "{unit:?}");
        assert_eq!(tally(&mut world), ran_again(1));
    }
}

#[test]
fn it_is_tried_so_often_and_then_told() {
    let mut world = world();
    world.ask(0, &bytes(&[q("BEGIN")]));
    for _ in 0..limits::REPLAYS_MAX {
        conflict(&mut world, "40001");
        world.clients[0].received.clear();
        world.arrive(0, &query("SELECT 'a'"));
        world.run_dry();
        assert_eq!(told(&world.clients[0].received).last().map(String::as_str), Some("Z T"));
    }
    conflict(&mut world, "40001");
    assert_eq!(world.ask(0, &query("SELECT 'a'")), ["E ERROR 40001", "Z E"]);
    assert_eq!(world.ask(0, &query("ROLLBACK")), ["C ROLLBACK", "Z I"]);
    let told = ReplayTally {
        given_up: Some(ReplayObstacle::Attempts),
        ..ran_again(limits::REPLAYS_MAX.try_into().unwrap())
    };
    assert_eq!(tally(&mut world), told);
}

/// What a transaction comes to whose first answer is another on each server.
fn differing(after: &[&[Message]]) -> (World, Vec<Vec<String>>) {
    let mut world = world();
    world.ask(0, &query("BEGIN"));
    world.ask(0, &query("SELECT 'tick'"));
    let first = world.clients[0].server.unwrap();
    world.servers[first].fake.tick = 7;
    let all = after.iter().map(|messages| world.ask(0, &bytes(messages))).collect();
    (world, all)
}

#[test]
fn other_answers_are_not_told_and_the_transaction_fails() {
    // At rest, the next statement is told, and a batch as a whole.
    for next in [vec![q("SELECT 'b'")], in_batch("SELECT 'b'")] {
        let (mut world, _) = differing(&[]);
        lose(&mut world);
        assert_eq!(world.ask(0, &bytes(&next)), ["E ERROR 40001", "Z E"], "{next:?}");
        assert_eq!(world.ask(0, &query("SELECT 'b'")), ["E ERROR 25P02", "Z E"]);
        assert_eq!(world.ask(0, &query("COMMIT")), ["C ROLLBACK", "Z I"]);
        assert_eq!(world.ask(0, &query("SELECT 'c'")).len(), 4);
        let told = ReplayTally { tried: 1, differed: 1, ..ReplayTally::default() };
        assert_eq!(tally(&mut world), told);
        assert_eq!(world.clients[0].server, None, "nothing is left of it");
    }
    // In the middle of one, that one is.
    let (mut world, _) = differing(&[]);
    world.clients[0].received.clear();
    world.arrive(0, &query("SELECT 'b'"));
    lose(&mut world);
    assert_eq!(told(&world.clients[0].received), ["E ERROR 40001", "Z E"]);
    assert_eq!(world.ask(0, &query("ROLLBACK")), ["C ROLLBACK", "Z I"]);
    // The same when its server has undone it and lives.
    let (mut world, _) = differing(&[]);
    let at = world.clients[0].server.unwrap();
    conflict(&mut world, "40001");
    world.servers[at].fake.tick = 8;
    assert_eq!(world.ask(0, &query("SELECT 'b'")), ["E ERROR 40001", "Z E"]);
    assert_eq!(world.ask(0, &query("ROLLBACK")), ["C ROLLBACK", "Z I"]);
    assert_eq!(world.servers.len(), 1, "the server is as good as any");
}

#[test]
fn half_a_message_that_is_not_completed_ends_the_client() {
    let (mut world, _) = differing(&[]);
    world.clients[0].received.clear();
    world.arrive(0, &query("SELECT 'series'"));
    world.deliver(0, 40);
    let heard = world.clients[0].received.clone();
    lose(&mut world);
    assert_eq!(world.clients[0].closed, Some(CloseReason::ServerDisconnected));
    assert_eq!(world.clients[0].received, heard, "nothing can be said");
}

#[test]
fn a_rollback_runs_nothing_again() {
    let mut world = world();
    world.ask(0, &query("BEGIN"));
    world.ask(0, &query("SELECT 'a'"));
    lose(&mut world);
    assert_eq!(world.ask(0, &query("ROLLBACK")), ["C ROLLBACK", "Z I"]);
    assert_eq!(tally(&mut world).tried, 0);
    assert_eq!(world.ask(0, &query("SELECT 'a'")).len(), 4);
}

#[test]
fn a_commit_in_doubt_is_never_run_again() {
    for commit in [vec![q("COMMIT")], in_batch("COMMIT"), vec![q("SELECT 'a';COMMIT")]] {
        let mut world = world();
        world.ask(0, &query("BEGIN"));
        world.clients[0].received.clear();
        world.arrive(0, &bytes(&commit));
        lose(&mut world);
        assert_eq!(told(&world.clients[0].received), ["E ERROR 08007", "Z I"], "{commit:?}");
        assert_eq!(world.servers.len(), 1, "{commit:?}");
        assert_eq!(world.ask(0, &query("SELECT 'a'")).len(), 4);
    }
    // Nor is a statement outside a transaction, which commits itself.
    let mut world = warm();
    world.arrive(0, &query("SELECT 'a'"));
    lose(&mut world);
    assert_eq!(told(&world.clients[0].received), ["E ERROR 08007", "Z I"]);
    assert_eq!(tally(&mut world), given_up(ReplayObstacle::InDoubt));
}

#[test]
fn nothing_that_was_committed_is_run_again() {
    // The second part of what was sent at once cannot be serialized; the first has been committed.
    for unit in
        [vec![q("COMMIT;SELECT 'b'")], [run("COMMIT"), run("SELECT 'b'"), vec![Sync]].concat()]
    {
        let mut world = world();
        world.ask(0, &query("BEGIN"));
        world.ask(0, &query("SELECT 'a'"));
        world.clients[0].received.clear();
        let at = world.clients[0].server.unwrap();
        let before = world.servers[at].fake.seen.len();
        world.arrive(0, &bytes(&unit));
        let answer = world.servers[at].fake.take_output(usize::MAX);
        // Up to behind the tag of COMMIT.
        let tag = answer.windows(7).position(|seven| seven == b"COMMIT\0").unwrap() + 7;
        world.servers[at].fake.out.extend(&answer[..tag]);
        world.servers[at].fake.cancel_for_replay("40001");
        world.servers[at].fake.out.extend(alone(&bytes(&[Sync])));
        world.run_dry();
        let got = told(&world.clients[0].received);
        assert!(got.contains(&"E ERROR 40001".to_owned()), "{got:?}");
        let again = world.servers[at].fake.seen[before..].iter().filter(|sql| *sql == "BEGIN");
        assert_eq!(again.count(), 0);
        assert_eq!(tally(&mut world).tried, 0);
    }
}

#[test]
fn without_the_setting_all_is_as_ever() {
    let mut world = World::new(&[map(&[])]);
    world.ask(0, &query("BEGIN"));
    lose(&mut world);
    assert_eq!(world.ask(0, &query("SELECT 'a'")), ["E ERROR 40001", "Z E"]);
    assert_eq!(tally(&mut world), ReplayTally::default());
    world.ask(0, &query("ROLLBACK"));
    world.ask(0, &bytes(&[q("SET tidegate.transaction_replay = 'on'")]));
    world.ask(0, &query("BEGIN"));
    lose(&mut world);
    assert_eq!(world.ask(0, &query("SELECT 'a'")).len(), 4);
    assert_eq!(tally(&mut world), ran_again(1));
}

#[test]
fn what_leaves_more_behind_or_is_too_much_is_not_run_again() {
    let long = format!("SELECT '{}'", "a".repeat(limits::REPLAY_BYTES_MAX));
    let cases: [(&str, ReplayObstacle); 5] = [
        ("SELECT pg_advisory_lock(1)", ReplayObstacle::SessionState),
        ("CREATE TEMP TABLE t ()", ReplayObstacle::SessionState),
        ("LISTEN a", ReplayObstacle::SessionState),
        ("COPY t TO STDOUT", ReplayObstacle::Copy),
        (&long, ReplayObstacle::TooLong),
    ];
    for (sql, why) in cases {
        let mut world = world();
        world.ask(0, &query("BEGIN"));
        world.ask(0, &query(sql));
        lose(&mut world);
        world.ask(0, &query("SELECT 'a'"));
        assert_eq!(tally(&mut world), given_up(why), "{sql:.40}");
    }
    let mut world = world();
    let now = Instant::now();
    world.ask(0, &query("BEGIN"));
    world.clients[0].session.handle_time(now);
    world.clients[0].session.handle_time(now + limits::REPLAY_AGE_MAX + Duration::from_secs(1));
    lose(&mut world);
    assert_eq!(world.ask(0, &query("SELECT 'a'")), ["E ERROR 40001", "Z E"]);
    assert_eq!(tally(&mut world), given_up(ReplayObstacle::TooOld));
    let mut world = self::world();
    world.ask(0, &query("BEGIN"));
    for _ in 0..limits::REPLAY_UNITS_MAX {
        world.ask(0, &bytes(&[Sync]));
    }
    lose(&mut world);
    assert_eq!(world.ask(0, &query("SELECT 'a'")), ["E ERROR 40001", "Z E"]);
    assert_eq!(tally(&mut world), given_up(ReplayObstacle::TooMany));
}

#[test]
fn without_a_server_in_time_the_transaction_fails() {
    for waits in [true, false] {
        let mut world = world();
        world.ask(0, &query("BEGIN"));
        world.ask(0, &query("SELECT 'a'"));
        world.refusal = Some(Refusal::error("57P03", "no primary"));
        world.clients[0].received.clear();
        if waits {
            world.arrive(0, &query("SELECT 'b'"));
            lose(&mut world);
        } else {
            lose(&mut world);
            world.arrive(0, &query("SELECT 'b'"));
        }
        assert_eq!(told(&world.clients[0].received), ["E ERROR 40001", "Z E"], "{waits}");
        world.refusal = None;
        assert_eq!(world.ask(0, &query("SELECT 'b'")), ["E ERROR 25P02", "Z E"]);
        assert_eq!(world.ask(0, &query("ROLLBACK")), ["C ROLLBACK", "Z I"]);
        assert_eq!(tally(&mut world), given_up(ReplayObstacle::NoServer));
    }
}

#[test]
fn a_client_that_goes_meanwhile_leaves_nothing() {
    for vanishes in [true, false] {
        let mut world = world();
        world.ask(0, &query("BEGIN"));
        world.ask(0, &query("SELECT 'a'"));
        world.arrive(0, &query("SELECT 'b'"));
        world.server_vanished(0);
        if vanishes {
            world.vanish(0);
        } else {
            world.arrive(0, &bytes(&[Terminate]));
        }
        world.run_dry();
        // Its new server has been given back clean, which the world looks at, or it is in no use.
        assert_eq!(world.clients[0].server, None, "{vanishes}");
    }
}

/// What comes in a transaction in any order.
fn part() -> impl Strategy<Value = Vec<Message>> {
    select(vec![
        vec![q("SELECT 'a'")],
        vec![q("SELECT 'series'")],
        vec![q("SELECT 1/0")],
        vec![q("SAVEPOINT a")],
        vec![q("ROLLBACK TO a")],
        vec![q("SET timezone = 'A'")],
        vec![q("SET LOCAL app.x = 'B'")],
        vec![q("RESET timezone")],
        vec![q("SELECT poke('work_mem', 'C')")],
        vec![parse("s1", "SELECT 'p'"), Sync],
        vec![parse("s2", "SELECT 'q' || $1"), DescribeStatement("s2"), Sync],
        vec![bind("", "s1"), DescribePortal(""), Execute("", 0), Sync],
        vec![Bind("", "s2", Some("x".to_owned())), Execute("", 0), Sync],
        vec![CloseStatement("s1"), CloseStatement("s2"), Sync],
        vec![q("DEALLOCATE s1")],
        in_batch("SELECT 'b'"),
        [run("SELECT 'c'"), run("SELECT 1/0"), run("SELECT 'd'"), vec![Sync]].concat(),
        vec![Sync],
    ])
}

/// A transaction between its BEGIN and its end.
fn transaction() -> impl Strategy<Value = Vec<Vec<Message>>> {
    let ends = select(vec![vec![q("COMMIT")], vec![q("ROLLBACK")], in_batch("COMMIT")]);
    let begins = select(vec![vec![q("BEGIN")], in_batch("BEGIN")]);
    (begins, proptest::collection::vec(part(), 0..8), ends)
        .prop_map(|(begin, parts, end)| [vec![begin], parts, vec![end]].concat())
}

/// May it be interrupted now without anybody being in doubt?
fn may_interrupt(world: &World) -> bool {
    let session = &world.clients[0].session;
    world.clients[0].server.is_some()
        && session.work_at_stake() == Work::RolledBack
        && session.pins().is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Property 5: a transaction that is interrupted wherever that may be, by the loss of its server or by its word that it
    // cannot be serialized, is for its client one that was not: all bytes are those that a server of its own would send.
    #[test]
    fn an_interrupted_transaction_is_answered_as_one_that_is_not(
        transactions in proptest::collection::vec(transaction(), 1..4),
        steps in proptest::collection::vec((0_u8..8, 1_usize..90), 0..60),
    ) {
        let units = transactions.concat();
        let wanted = alone(&bytes(&units.concat()));
        let mut world = world();
        let (mut sent, mut interrupted) = (0, 0);
        for (what, count) in steps {
            match what {
                0..3 => {
                    // Several at once now and then.
                    let end = (sent + count % 3 + 1).min(units.len());
                    world.arrive(0, &bytes(&units[sent..end].concat()));
                    sent = end;
                }
                3..6 => { world.deliver(0, count); }
                6 if interrupted < 3 && may_interrupt(&world) => {
                    world.server_vanished(0);
                    interrupted += 1;
                }
                7 if interrupted < 3 && may_interrupt(&world) => {
                    conflict(&mut world, "40001");
                    interrupted += 1;
                }
                _ => {}
            }
        }
        world.arrive(0, &bytes(&units[sent..].concat()));
        world.run_dry();
        let given_up = tally(&mut world).given_up;
        let client = &world.clients[0];
        use ReplayObstacle::{HalfTold, Refused, SessionState};
        if matches!(given_up, Some(SessionState | HalfTold | Refused)) {
            // It has bound a name that only its server could know, heard a part of what its COMMIT said, or given a name
            // twice: as it is without replay.
            let got = told(whole_messages(&client.received));
            let wanted = told(&wanted);
            let same = got.iter().zip(&wanted).take_while(|(got, wanted)| got == wanted).count();
            let next = got.get(same).map(String::as_str);
            prop_assert!(matches!(next, None | Some("E ERROR 40001")), "{:?}", got);
            return Ok(());
        }
        prop_assert_eq!(client.closed, None);
        prop_assert_eq!(told(&client.received), told(&wanted));
        prop_assert!(client.received == wanted);
    }

    // Property 5: one whose answers are others the second time fails with 40001, and nothing is told twice.
    #[test]
    fn one_that_is_answered_otherwise_fails_and_tells_nothing_twice(
        parts in proptest::collection::vec(part(), 0..6),
        (heard, in_flight) in (0_usize..120, any::<bool>()),
    ) {
        let mut units = [vec![vec![q("BEGIN")]], parts].concat();
        units.insert(1, vec![q("SELECT 'tick'")]);
        let mut world = world();
        let mut sent = Vec::new();
        for unit in &units {
            world.arrive(0, &bytes(unit));
            world.run_dry();
            sent.extend(bytes(unit));
        }
        let before = world.clients[0].received.clone();
        prop_assert_eq!(told(&before), told(&alone(&sent)));
        prop_assert!(told(&before).iter().any(|word| word.contains("tick0")));
        prop_assume!(may_interrupt(&world));
        let mut more = Vec::new();
        if in_flight {
            world.arrive(0, &query("SELECT 'series'"));
            world.deliver(0, heard);
            sent.extend(query("SELECT 'series'"));
            more = alone(&sent)[before.len()..].to_vec();
        }
        let had = world.clients[0].received.clone();
        prop_assert!([&before[..], &more].concat().starts_with(&had));
        lose(&mut world);
        let told_at_once = world.clients[0].closed.is_some() || world.clients[0].received != had;
        if !told_at_once {
            // It was at rest, or has been answered.
            world.arrive(0, &query("SELECT 'x'"));
            world.run_dry();
        }
        let client = &world.clients[0];
        prop_assert!(client.received.starts_with(&had));
        if client.closed.is_none() {
            let tail = told(&client.received[had.len()..]);
            prop_assert_eq!(tail, ["E ERROR 40001", "Z E"]);
        } else {
            prop_assert_eq!(&client.received, &had);
        }
    }
}
