//! Directed tests, named after the traps of the protocol that the session decides.

use super::fake::Map;
use super::program::*;
use super::world::{World, alone, told};
use crate::limits;
use crate::refusal::Refusal;
use crate::session::{CloseReason, Pins, PoolMode};

fn one() -> World {
    World::new(&[Map::new()])
}

fn two() -> World {
    World::new(&[Map::new(), Map::new()])
}

/// The same bytes get the same answer through us as from a server of one's own, step by step.
#[track_caller]
fn same_as_alone(steps: &[Vec<Message>]) -> World {
    let mut world = one();
    let mut all = Vec::new();
    for step in steps {
        all.extend(bytes(step));
        world.arrive(0, &bytes(step));
        world.run_dry();
    }
    assert_eq!(told(&world.clients[0].received), alone(&Map::new(), &all));
    world
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

const ROW: &str = "timezone=UTC work_mem=4MB app.x= app.y= role=none";

#[test]
fn trap_27_28_a_client_that_leaves_in_a_transaction_is_rolled_back_and_its_server_serves_on() {
    let mut world = two();
    world.ask(0, &bytes(&[q("BEGIN"), q("SET timezone = 'A'")]));
    world.arrive(0, &bytes(&[Terminate]));
    world.run_dry();
    assert_eq!(world.clients[0].closed, Some(CloseReason::ClientTerminated));
    assert_eq!(world.releases, 1);
    assert_eq!(
        world.ask(1, &query("SELECT 'b'")),
        words(&["T", &format!("D b#0 {ROW}"), "C SELECT 1", "Z I"])
    );
    assert_eq!(world.servers.len(), 1);
}

#[test]
fn trap_29_half_a_message_closes_the_server() {
    let mut world = one();
    let whole = query("SELECT 'a long one'");
    world.arrive(0, &bytes(&run("SELECT 'x'")));
    let bind = bytes(&[Bind("", "", Some("parameter".into()))]);
    world.arrive(0, &bind[..bind.len() - 3]);
    world.vanish(0);
    world.run_dry();
    assert!(world.clients[0].server.is_none());
    assert_eq!(world.releases, 0, "the server has half a Bind");
    let mut world = one();
    world.arrive(0, &whole[..whole.len() - 3]);
    assert_eq!(world.leases, 0, "nothing is lent for half a Query");
}

#[test]
fn trap_32_fatal_passes_once_and_ends_the_session() {
    let mut world = one();
    let got = world.ask(0, &query("SELECT pg_terminate_backend(0)"));
    assert_eq!(got, words(&["E FATAL 57P01"]));
    assert_eq!(world.clients[0].closed, Some(CloseReason::ServerFatal));
}

#[test]
fn trap_33_notices_pass_to_the_client_that_holds_the_server() {
    let mut world = one();
    world.ask(0, &query("BEGIN"));
    world.servers[0].fake.say_unasked(None);
    world.run_dry();
    assert_eq!(told(&world.clients[0].received).last().unwrap(), "N 00000");
}

#[test]
fn trap_34_empty_query() {
    same_as_alone(&[
        vec![q("")],
        vec![q(" ; ;")],
        vec![parse("", ""), bind("", ""), Execute("", 0), Sync],
    ]);
}

#[test]
fn trap_35_several_statements_in_one_query() {
    same_as_alone(&[
        vec![q("SELECT 'a'; BEGIN; SELECT 'b'")],
        vec![q("COMMIT; SELECT 'c'")],
        vec![q("SELECT 'd'; SELECT 1/0; SELECT 'e'")],
        vec![q("SET timezone = 'A'; SELECT 1/0"), q("SHOW timezone")],
    ]);
}

#[test]
fn trap_36_37_only_ready_for_query_decides_about_release() {
    let world = same_as_alone(&[
        vec![q("BEGIN")],
        vec![q("SAVEPOINT a")],
        vec![q("SELECT 1/0")],
        vec![q("ROLLBACK TO a")],
        vec![q("SELECT 1/0")],
        vec![q("COMMIT")],
    ]);
    assert_eq!((world.leases, world.releases), (1, 1));
}

#[test]
fn trap_38_simple_in_the_middle_of_extended() {
    let mut batch = run("SELECT 'a'");
    batch.extend([q("SELECT 'b'"), bind("", ""), Sync]);
    same_as_alone(&[batch]);
    let mut batch = run("SELECT 1/0");
    batch.extend([q("SELECT 'b'"), Sync, q("SELECT 'c'")]);
    same_as_alone(&[batch]);
}

#[test]
fn trap_39_function_call_is_forwarded_and_answered() {
    same_as_alone(&[vec![FunctionCall], vec![q("BEGIN"), FunctionCall, q("COMMIT")]]);
}

#[test]
fn trap_40_an_unknown_type_ends_the_session() {
    let mut world = one();
    assert_eq!(world.ask(0, b"y\0\0\0\x04"), words(&["E FATAL 08P01"]));
    assert_eq!(world.clients[0].closed, Some(CloseReason::ClientProtocol));
}

#[test]
fn trap_41_our_own_answers_stop_after_an_error_too() {
    same_as_alone(&[
        vec![parse("s1", "SELECT 'a'"), Sync],
        vec![
            bind("", "nothing"),
            CloseStatement("s1"),
            parse("s2", "SELECT 'a'"),
            Sync,
            bind("", "s1"),
            Execute("", 0),
            Sync,
            bind("", "s2"),
            Sync,
        ],
    ]);
}

#[test]
fn trap_42_released_after_the_last_of_several_syncs() {
    let mut batch = run("SELECT 'a'");
    batch.extend([Sync, Sync]);
    batch.extend(run("SELECT 'b'"));
    batch.push(Sync);
    let world = same_as_alone(&[batch]);
    assert_eq!(world.releases, 1);
}

#[test]
fn trap_43_flush_delivers_and_keeps_the_server() {
    let mut world = one();
    let got = world.ask(0, &bytes(&[parse("", "SELECT 'a'"), DescribeStatement(""), Flush]));
    assert_eq!(got, words(&["1", "t", "T"]));
    assert!(world.clients[0].server.is_some());
    let got = world.ask(0, &bytes(&[bind("", ""), Execute("", 0), Sync]));
    assert_eq!(got, words(&["2", &format!("D a#0 {ROW}"), "C SELECT 1", "Z I"]));
    assert!(world.clients[0].server.is_none());
}

#[test]
fn trap_44_45_a_refusal_in_a_transaction_fails_it_at_the_server_too() {
    let world = same_as_alone(&[
        vec![q("BEGIN"), parse("s", "SELECT 'a'"), Sync],
        vec![parse("s", "SELECT 'b'"), bind("", "s"), Execute("", 0), Sync],
        vec![q("SELECT 'c'"), q("COMMIT")],
    ]);
    assert_eq!(world.releases, 1);
}

#[test]
fn trap_44_a_lease_refused_is_answered_once_whatever_the_first_frame() {
    let refusal = Refusal::error("53300", "no server");
    let extended = [
        parse("", "SELECT 'a'"),
        bind("", ""),
        DescribeStatement("s"),
        DescribePortal("p"),
        Execute("", 0),
    ];
    for first in extended {
        let mut world = one();
        world.refusal = Some(refusal.clone());
        let got = world.ask(
            0,
            &bytes(&[first, parse("", "x"), bind("", ""), q("SELECT 'q'"), Execute("", 0)]),
        );
        assert_eq!(got, words(&["E ERROR 53300"]), "no ReadyForQuery before the Sync");
        assert_eq!(world.ask(0, &bytes(&[Sync])), words(&["Z I"]));
        world.refusal = None;
        assert_eq!(world.ask(0, &query("SELECT 'a'")).last().unwrap(), "Z I");
    }
    for first in [q("SELECT 'a'"), FunctionCall] {
        let mut world = one();
        world.refusal = Some(refusal.clone());
        assert_eq!(world.ask(0, &bytes(&[first])), words(&["E ERROR 53300", "Z I"]));
    }
    for first in [Sync, Flush, CopyDone, CopyData("late"), CloseStatement("s"), ClosePortal("p")] {
        let mut world = one();
        world.refusal = Some(refusal.clone());
        let got = world.ask(0, &bytes(&[first, Sync]));
        assert!(!got.iter().any(|word| word.starts_with('E')), "needs no server: {got:?}");
    }
    let mut world = one();
    world.refusal = Some(Refusal::fatal("57P01", "shutting down"));
    assert_eq!(world.ask(0, &query("SELECT 'a'")), words(&["E FATAL 57P01"]));
    assert_eq!(world.clients[0].closed, Some(CloseReason::Refused));
}

#[test]
fn trap_46_names_that_exist_or_do_not_keep_the_connection() {
    same_as_alone(&[
        vec![parse("s", "SELECT 'a'"), Sync],
        vec![parse("s", "SELECT 'b'"), Sync],
        vec![bind("", "no"), Sync],
        vec![DescribeStatement("no"), Sync],
        vec![DescribePortal("no"), Sync],
        vec![Execute("no", 0), Sync],
        vec![bind("", "tidegate_1"), Sync],
        vec![CloseStatement("tidegate_1"), Sync, bind("", "s"), Execute("", 0), Sync],
    ]);
}

#[test]
fn trap_46_an_error_of_the_text_comes_before_that_of_the_name() {
    same_as_alone(&[
        vec![parse("s", "SELECT 'a'"), Sync],
        vec![parse("s", "SELEC"), Sync],
        vec![q("BEGIN"), q("SELECT 1/0"), parse("s", "SELECT 'b'"), Sync, q("ROLLBACK")],
    ]);
}

#[test]
fn trap_47_a_failed_or_skipped_parse_defines_nothing() {
    same_as_alone(&[
        vec![parse("s", "SELECT 'x' FROM missing"), parse("t", "SELECT 'a'"), Sync],
        vec![bind("", "s"), Sync, bind("", "t"), Sync],
        vec![
            parse("s", "SELECT 'b'"),
            parse("t", "SELECT 'c'"),
            bind("", "s"),
            Execute("", 0),
            Sync,
        ],
    ]);
    // All at once, so that nothing is known when the names are used.
    same_as_alone(&[vec![
        parse("s", "SELECT 'x' FROM missing"),
        parse("t", "SELECT 'a'"),
        Sync,
        bind("", "s"),
        Sync,
        bind("", "t"),
        Sync,
        parse("t", "SELECT 'c'"),
        bind("", "t"),
        Execute("", 0),
        Sync,
    ]]);
}

#[test]
fn trap_48_close_of_what_is_not_there() {
    same_as_alone(&[vec![CloseStatement("no"), ClosePortal("no"), CloseStatement(""), Sync]]);
}

#[test]
fn trap_49_the_unnamed_statement_survives_to_the_next_server() {
    let mut world = two();
    world.ask(0, &bytes(&[parse("", "SELECT 'mine'"), DescribeStatement(""), Sync]));
    world.ask(1, &bytes(&[parse("", "SELECT 'other'"), Sync]));
    let got = world.ask(0, &bytes(&[bind("", ""), Execute("", 0), Sync]));
    assert_eq!(got, words(&["2", &format!("D mine#0 {ROW}"), "C SELECT 1", "Z I"]));
    world.ask(0, &query("SELECT 'q'"));
    let got = world.ask(0, &bytes(&[bind("", ""), Execute("", 0), Sync]));
    assert_eq!(got, words(&["E ERROR 26000", "Z I"]), "a Query ends it");
}

#[test]
fn trap_49_another_clients_unnamed_statement_is_out_of_reach() {
    let mut world = two();
    world.ask(1, &bytes(&[parse("", "SELECT 'secret'"), Sync]));
    assert_eq!(
        world.ask(0, &bytes(&[bind("", ""), Execute("", 0), Sync])),
        words(&["E ERROR 26000", "Z I"])
    );
    // The same in flight behind a batch that fails before its Parse.
    world.ask(1, &bytes(&[parse("", "SELECT 'secret'"), Sync]));
    let mut all = vec![bind("", "no"), parse("", "SELECT 'mine'"), Sync];
    all.extend([bind("", ""), Execute("", 0), Sync]);
    assert_eq!(
        world.ask(0, &bytes(&all)),
        words(&["E ERROR 26000", "Z I", "E ERROR 26000", "Z I"])
    );
}

#[test]
fn trap_49_our_own_query_does_not_lose_the_unnamed_statement() {
    let mut world = one();
    // The question after LISTEN is a Query of ours, behind the Parse.
    world.arrive(0, &bytes(&[q("LISTEN c"), parse("", "SELECT 'a'"), Sync]));
    world.run_dry();
    let got = world.ask(0, &bytes(&[bind("", ""), Execute("", 0), Sync]));
    assert_eq!(got[0], "2");
}

#[test]
fn trap_50_statements_are_shared_only_under_the_same_settings() {
    let text = "SELECT timestamptz 'T'";
    let mut world = two();
    // The second client's statement was parsed under SET LOCAL, the first's was not.
    world.ask(
        1,
        &bytes(&[q("BEGIN"), q("SET LOCAL timezone = 'B'"), parse("s", text), Sync, q("COMMIT")]),
    );
    let got = world.ask(0, &bytes(&[parse("s", text), bind("", "s"), Execute("", 0), Sync]));
    assert_eq!(got[2], format!("D TUTC#0 {ROW}"));
    // Nor is one that had to be parsed again under later settings.
    let mut world = World::new(&[Map::new(), Map::new(), Map::new()]);
    world.prepared_max = 1;
    world.ask(0, &bytes(&[parse("s", text), Sync, q("SET timezone = 'A'")]));
    world.ask(1, &bytes(&[parse("x", "SELECT 'evicts'"), Sync]));
    world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), Sync]));
    let got = world.ask(2, &bytes(&[parse("s", text), bind("", "s"), Execute("", 0), Sync]));
    assert_eq!(got[2], format!("D TUTC#0 {ROW}"));
}

#[test]
fn trap_51_no_made_up_answer_to_parse_in_a_failed_transaction() {
    let world = same_as_alone(&[
        vec![parse("s", "SELECT 'a'"), Sync],
        vec![q("BEGIN"), q("SELECT 1/0")],
        vec![parse("t", "SELECT 'a'"), Sync],
        vec![q("BEGIN"), parse("t", "SELECT 'a'"), Sync],
        vec![q("ROLLBACK")],
        vec![parse("t", "SELECT 'a'"), bind("", "t"), Execute("", 0), Sync],
    ]);
    assert_eq!(world.servers[0].fake.named_count(), 1, "nothing is left behind");
}

#[test]
fn trap_51_not_known_yet_whether_the_transaction_fails() {
    same_as_alone(&[
        vec![parse("s", "SELECT 'a'"), Sync],
        vec![
            q("BEGIN"),
            q("SELECT 1/0"),
            parse("t", "SELECT 'a'"),
            bind("", "t"),
            Sync,
            q("ROLLBACK"),
        ],
        vec![bind("", "t"), Sync],
    ]);
}

#[test]
fn trap_52_made_up_answers_keep_their_place() {
    same_as_alone(&[
        vec![parse("s", "SELECT 'a'"), Sync],
        vec![
            parse("", "SELECT 'b'"),
            bind("", ""),
            Execute("", 0),
            parse("t", "SELECT 'a'"),
            bind("", "t"),
            Execute("", 0),
            CloseStatement("s"),
            DescribeStatement("t"),
            CloseStatement("t"),
            Sync,
        ],
    ]);
}

#[test]
fn trap_53_eviction_spares_the_batch_and_a_skipped_close_is_not_forgotten() {
    let mut world = one();
    world.prepared_max = 2;
    let names = ["a", "b", "c", "d"];
    let texts = ["SELECT 'a'", "SELECT 'b'", "SELECT 'c'", "SELECT 'd'"];
    for (name, text) in names.into_iter().zip(texts) {
        world.ask(0, &bytes(&[parse(name, text), Sync]));
    }
    // All four in one batch, more than the server keeps.
    let batch: Vec<_> =
        names.iter().flat_map(|name| [bind("", name), Execute("", 0)]).chain([Sync]).collect();
    let got = world.ask(0, &bytes(&batch));
    assert_eq!(got.iter().filter(|word| word.starts_with("D ")).count(), 4);
    for _ in 0..20 {
        world.ask(0, &bytes(&[bind("", "no"), bind("", "a"), bind("", "b"), Sync]));
        world.ask(0, &bytes(&[bind("", "c"), bind("", "d"), Sync]));
    }
    assert!(world.servers[0].fake.named_count() <= 4, "{}", world.servers[0].fake.named_count());
}

#[test]
fn trap_54_a_renamed_bind_keeps_its_tail_at_every_cut() {
    let all = bytes(&[
        parse("s", "SELECT 'p' || $1"),
        Bind("", "s", Some("value".into())),
        Execute("", 0),
        Sync,
    ]);
    let wanted = alone(&Map::new(), &all);
    for cut in 0..all.len() {
        let mut world = one();
        world.arrive(0, &all[..cut]);
        world.arrive(0, &all[cut..]);
        world.run_dry();
        assert_eq!(told(&world.clients[0].received), wanted, "cut at {cut}");
    }
}

#[test]
fn trap_57_suspended_portals() {
    same_as_alone(&[
        vec![
            parse("", "SELECT 'a' FROM generate_series(1, 3)"),
            bind("", ""),
            Execute("", 2),
            Flush,
        ],
        vec![Execute("", 2), Sync],
        vec![
            q("BEGIN"),
            parse("s", "SELECT 'a' FROM generate_series(1, 3)"),
            bind("p1", "s"),
            Execute("p1", 1),
            Sync,
        ],
        vec![Execute("p1", 1), Sync, Execute("p1", 0), Sync, q("COMMIT"), Execute("p1", 0), Sync],
    ]);
}

#[test]
fn trap_58_odd_orders_follow_the_server() {
    same_as_alone(&[
        vec![
            parse("s", "SELECT 'a'"),
            DescribeStatement("s"),
            DescribeStatement("s"),
            Execute("", 0),
            Sync,
        ],
        vec![
            q("BEGIN"),
            bind("p1", "s"),
            Sync,
            CloseStatement("s"),
            DescribePortal("p1"),
            Execute("p1", 0),
            Sync,
        ],
        vec![q("ROLLBACK")],
    ]);
}

#[test]
fn trap_60_deallocate_and_discard_by_every_way() {
    for sql in ["DEALLOCATE s1", "DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE PREPARE s1"] {
        if sql.contains("PREPARE ") {
            continue;
        }
        let ways = [
            vec![q(sql)],
            [run(sql), vec![Sync]].concat(),
            [run("SELECT 'x'"), vec![q(sql), Sync]].concat(),
        ];
        for way in ways {
            // DISCARD ALL is refused behind other statements of a batch by newer servers only.
            let make = vec![parse("s1", "SELECT 'a'"), parse("s2", "SELECT 'b'"), Sync];
            let then = vec![
                bind("", "s1"),
                Execute("", 0),
                Sync,
                bind("", "s2"),
                Execute("", 0),
                Sync,
                parse("s1", "SELECT 'a'"),
                bind("", "s1"),
                Execute("", 0),
                Sync,
            ];
            same_as_alone(&[make.clone(), way.clone(), then.clone()]);
            same_as_alone(&[[make, way, then].concat()]);
        }
    }
}

#[test]
fn trap_60_deallocate_in_the_middle_of_a_batch_ends_the_batch() {
    let mut world = one();
    world.ask(0, &bytes(&[parse("s1", "SELECT 'a'"), Sync]));
    let got = world.ask(0, &bytes(&[run("SELECT 'x'"), vec![q("DEALLOCATE s1")]].concat()));
    assert_eq!(got.last().unwrap(), "Z I");
    assert!(world.clients[0].server.is_none(), "no transaction is left open");
}

#[test]
fn trap_60_deallocate_waits_its_turn_and_fails_with_its_transaction() {
    same_as_alone(&[
        vec![parse("s1", "SELECT 'a'"), Sync],
        vec![
            q("BEGIN"),
            q("SELECT 1/0"),
            q("DEALLOCATE s1"),
            q("ROLLBACK"),
            bind("", "s1"),
            Execute("", 0),
            Sync,
        ],
        vec![q("BEGIN"), q("DEALLOCATE s1"), q("ROLLBACK"), bind("", "s1"), Sync],
    ]);
}

#[test]
fn trap_61_sql_prepare_pins_until_it_is_gone() {
    let mut world = one();
    world.ask(0, &query("PREPARE q1 AS SELECT 'q'"));
    assert!(world.clients[0].session.pins().contains(Pins::SQL_PREPARED));
    assert_eq!(world.ask(0, &query("EXECUTE q1")).last().unwrap(), "Z I");
    let got = world.ask(0, &bytes(&[bind("", "q1"), Execute("", 0), Sync]));
    assert_eq!(got[0], "2", "the protocol reaches it, too");
    world.ask(0, &query("DEALLOCATE q1"));
    assert!(world.clients[0].server.is_none());
}

#[test]
fn trap_61_sql_does_not_reach_what_we_prepared_for_others() {
    let mut world = two();
    world.ask(1, &bytes(&[parse("s", "SELECT 'secret'"), Sync]));
    for sql in ["EXECUTE tidegate_1", "DEALLOCATE tidegate_1"] {
        assert_eq!(world.ask(0, &query(sql)), words(&["E ERROR 26000", "Z I"]));
        let batch = [run(sql), vec![Sync]].concat();
        assert_eq!(world.ask(0, &bytes(&batch)), words(&["1", "2", "E ERROR 26000", "Z I"]));
    }
    assert_eq!(world.ask(1, &bytes(&[bind("", "s"), Execute("", 0), Sync]))[0], "2");
}

#[test]
fn trap_62_63_discard_in_a_transaction_and_prepare_in_one_rolled_back() {
    same_as_alone(&[
        vec![
            parse("s1", "SELECT 'a'"),
            q("SET timezone = 'A'"),
            q("BEGIN"),
            q("DISCARD ALL"),
            q("ROLLBACK"),
        ],
        vec![bind("", "s1"), Execute("", 0), Sync],
        vec![
            q("BEGIN"),
            parse("s2", "SELECT 'b'"),
            Sync,
            q("ROLLBACK"),
            bind("", "s2"),
            Execute("", 0),
            Sync,
        ],
    ]);
}

#[test]
fn trap_64_pipelined_batches_stay_on_one_server_in_order() {
    let mut all = Vec::new();
    for _ in 0..50 {
        all.extend(run("SELECT 'a'"));
        all.push(Sync);
    }
    let world = same_as_alone(&[all]);
    assert_eq!(world.leases, 1);
}

#[test]
fn trap_65_a_sync_before_copy_data_is_swallowed() {
    let data = || vec![CopyData("row"), CopyDone, Sync];
    for early in [vec![], vec![Sync], vec![Flush], vec![Sync, Flush, Sync]] {
        let start = [run("COPY t FROM STDIN"), early].concat();
        let world = same_as_alone(&[start.clone(), data()]);
        assert_eq!(world.releases, 1);
        let world = same_as_alone(&[[start.clone(), data()].concat()]);
        assert_eq!(world.releases, 1);
        same_as_alone(&[[start, data(), vec![q("SELECT 'a'")]].concat()]);
    }
    same_as_alone(&[
        vec![q("COPY t FROM STDIN")],
        vec![CopyData("row"), Sync, Flush],
        vec![CopyData("row"), CopyDone],
    ]);
}

#[test]
fn trap_65_what_no_copy_takes_is_not_held_back_for_ever() {
    let mut world = one();
    let drops = [run("BEGIN"), run("DEALLOCATE ALL"), vec![Sync]].concat();
    world.ask(0, &bytes(&drops));
    let copy = [run("COPY t FROM STDIN"), vec![Sync, q("SELECT 'a'")]].concat();
    assert_eq!(world.ask(0, &bytes(&copy)).last().unwrap(), "E FATAL 08P01");
}

#[test]
fn trap_66_67_late_copy_data_reaches_nobody() {
    for start in [vec![q("COPY t FROM STDIN")], run("COPY t FROM STDIN"), vec![q("SELECT 1/0")]] {
        let end = vec![CopyData("row"), CopyDone, Sync, q("SELECT 'a'")];
        let world = same_as_alone(&[start.clone(), vec![CopyData("bad")], end.clone()]);
        assert!(world.clients[0].server.is_none());
        same_as_alone(&[[start, vec![CopyData("bad")], end].concat()]);
    }
}

#[test]
fn trap_66_a_failed_copy_with_held_syncs_is_not_left_hanging() {
    let mut world = one();
    world.ask(0, &bytes(&run("COPY t FROM STDIN").into_iter().chain([Flush]).collect::<Vec<_>>()));
    assert_eq!(world.ask(0, &bytes(&[CopyData("bad"), Sync])), words(&["E ERROR 22P04", "Z I"]));
}

#[test]
fn trap_68_copy_fail_and_a_client_that_leaves_in_a_copy() {
    same_as_alone(&[
        vec![q("COPY t FROM STDIN")],
        vec![CopyData("row"), CopyFail],
        vec![q("SELECT 'a'")],
    ]);
    for start in [
        vec![q("COPY t FROM STDIN")],
        run("COPY t FROM STDIN"),
        [run("COPY t FROM STDIN"), vec![Sync]].concat(),
    ] {
        for delivered in [0, usize::MAX] {
            let mut world = one();
            world.arrive(0, &bytes(&start));
            world.deliver(0, delivered);
            world.vanish(0);
            world.run_dry();
            assert_eq!(world.releases, 1, "{start:?} with {delivered} delivered");
        }
    }
}

#[test]
fn trap_69_71_copy_out_and_several_copies() {
    same_as_alone(&[
        vec![q("COPY t TO STDOUT")],
        [run("COPY t TO STDOUT"), vec![Sync]].concat(),
        vec![q("COPY t FROM STDIN; COPY t TO STDOUT; COPY u FROM STDIN; SELECT 'a'")],
        vec![CopyData("row"), CopyDone],
        vec![CopyData("row"), CopyData("row"), CopyDone],
    ]);
}

#[test]
fn trap_80_a_set_follows_its_client_and_nobody_else() {
    let mut world = two();
    world.ask(0, &query("SET timezone = 'A'"));
    let row = |world: &mut World, client| world.ask(client, &query("SELECT 'a'"))[1].clone();
    assert!(row(&mut world, 1).contains("timezone=UTC"));
    assert!(row(&mut world, 0).contains("timezone=A"));
    assert!(row(&mut world, 1).contains("timezone=UTC"));
    let before = world.servers[0].fake.seen.len();
    world.ask(1, &query("SELECT 'b'"));
    assert_eq!(
        world.servers[0].fake.seen.len(),
        before + 1,
        "nothing is sent when nothing differs"
    );
}

#[test]
fn trap_82_rollbacks_savepoints_and_set_local() {
    let world = same_as_alone(&[
        vec![q("SET app.x = 'A'"), q("BEGIN"), q("SET timezone = 'A'"), q("SET LOCAL app.x = 'B'")],
        vec![
            q("SAVEPOINT a"),
            q("SET work_mem = 'A'"),
            q("ROLLBACK TO a"),
            q("COMMIT"),
            q("SELECT 'a'"),
        ],
        vec![q("BEGIN"), q("SET timezone = 'B'"), q("ROLLBACK"), q("SELECT 'b'")],
    ]);
    assert_eq!(world.clients[0].session.settings().get("timezone"), Some("A"));
}

#[test]
fn trap_84_a_role_follows_its_client_and_nobody_else() {
    let mut world = two();
    world.ask(0, &query("SET role = 'A'"));
    assert!(world.ask(1, &query("SELECT 'a'"))[1].contains("role=none"));
    assert!(world.ask(0, &query("SELECT 'a'"))[1].contains("role=A"));
    // A reset of everything else keeps it.
    assert!(
        world.ask(0, &bytes(&[q("SELECT poke('work_mem', 'B')"), q("SELECT 'a'")]))[5]
            .contains("work_mem=B app.x= app.y= role=A")
    );
    assert!(world.ask(1, &query("SELECT 'a'"))[1].contains("work_mem=4MB app.x= app.y= role=none"));
}

#[test]
fn trap_86_87_89_state_that_cannot_move_pins_until_it_is_gone() {
    let cases = [
        ("SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)", Pins::ADVISORY_LOCKS),
        ("CREATE TEMP TABLE t ()", "DROP TABLE t", Pins::TEMPORARY_OBJECTS),
        ("LISTEN c", "UNLISTEN *", Pins::LISTEN),
        ("PREPARE q1 AS SELECT 'q'", "DEALLOCATE ALL", Pins::SQL_PREPARED),
    ];
    for (takes, gives, pin) in cases {
        let mut world = one();
        world.ask(0, &query(takes));
        assert_eq!(world.clients[0].session.pins(), pin, "{takes}");
        world.ask(0, &query("SELECT 'a'"));
        assert!(world.clients[0].server.is_some());
        world.ask(0, &query(gives));
        assert!(world.clients[0].session.pins().is_empty(), "{gives}");
        assert!(world.clients[0].server.is_none());
        // What is rolled back does not pin, unless it is no part of the transaction.
        world.ask(0, &bytes(&[q("BEGIN"), q(takes), q("ROLLBACK")]));
        let outlives = matches!(pin, Pins::ADVISORY_LOCKS | Pins::SQL_PREPARED);
        assert_eq!(world.clients[0].server.is_some(), outlives, "{takes}");
        // A client that leaves with it leaves nothing.
        let mut world = two();
        world.ask(0, &query(takes));
        world.vanish(0);
        world.run_dry();
        assert_eq!(world.releases, 1);
        world.ask(1, &query("SELECT 'a'"));
        assert_eq!(world.servers.len(), 1);
    }
}

#[test]
fn trap_90_lastval_of_another_client_is_out_of_reach() {
    let mut world = two();
    world.ask(0, &query("SELECT nextval('secret')"));
    let got = world.ask(1, &query("SELECT lastval()"));
    assert_eq!(got, words(&["E ERROR 55000", "Z I"]));
    world.vanish(1);
    world.run_dry();
    // In one go with what makes it, or in one transaction, it works.
    let mut world = two();
    let got = world.ask(
        0,
        &bytes(&[q("BEGIN"), q("SELECT nextval('mine')"), q("SELECT lastval()"), q("COMMIT")]),
    );
    assert!(!got.iter().any(|word| word.starts_with("E ")), "{got:?}");
}

#[test]
fn trap_92_nothing_is_asked_when_nothing_can_be_left() {
    let mut world = one();
    world.ask(0, &bytes(&[q("BEGIN"), q("SELECT 'a'"), q("COMMIT"), q("SELECT 'b'")]));
    assert_eq!(world.seen(), words(&["BEGIN", "SELECT 'a'", "COMMIT", "SELECT 'b'"]));
}

#[test]
fn session_mode_keeps_its_server_and_leaves_it_clean() {
    let mut world = World::with_mode(&[Map::new(), Map::new()], PoolMode::Session);
    world.ask(0, &bytes(&[q("SET timezone = 'A'"), q("SELECT 'a'")]));
    assert!(world.clients[0].server.is_some());
    world.vanish(0);
    world.run_dry();
    assert_eq!(world.releases, 1);
    assert!(world.ask(1, &query("SELECT 'a'"))[1].contains("timezone=UTC"));
}

#[test]
fn a_pipeline_longer_than_the_bound_goes_on() {
    let count = limits::OUTSTANDING_REPLIES_MAX;
    let mut with_syncs = Vec::new();
    let mut without = Vec::new();
    for _ in 0..count {
        without.extend(run("SELECT 'a'"));
        with_syncs.extend([
            parse("", "SELECT 'a'"),
            bind("", ""),
            Sync,
            CloseStatement("s"),
            parse("s", "SELECT 'b'"),
        ]);
    }
    without.push(Sync);
    with_syncs.push(Sync);
    same_as_alone(&[without]);
    let world = same_as_alone(&[with_syncs]);
    assert!(world.clients[0].input.is_empty());
    // Many held Syncs are bounded as well.
    same_as_alone(&[vec![Sync; 3 * count]]);
}

#[test]
fn an_idle_session_is_small() {
    assert!(
        size_of::<crate::session::Session>() <= 480,
        "{}",
        size_of::<crate::session::Session>()
    );
}
