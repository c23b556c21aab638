//! Two clients on a pool of one connection: nothing of one is seen by the other, and pins end with their cause.

use crate::own::{pool_of, tidegate, wait_for_pins};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::pipeline::Of;
use tidegate_test_support::{Client, Tidegate, pipeline, shared_cluster, test_database};

/// What a statement leaves on a session, as far as another client could see it.
const TRACES: &str = "SELECT current_setting('work_mem'), current_user, session_user, \
    (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid)), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors), \
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
    coalesce(current_setting('app.tenant', true), ''), current_setting('search_path'), \
    current_setting('transaction_read_only'), current_setting('role'), current_setting('TimeZone')";

struct Pair {
    // Dropped before the Tidegate.
    one: Client,
    other: Client,
    tidegate: Tidegate,
}

impl Pair {
    fn new(name: &str) -> Pair {
        let database = test_database(name);
        let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
        let url = tidegate.url(ROLE, &database);
        let (one, other) = (Client::connect(&url), Client::connect(&url));
        Pair { one, other, tidegate }
    }
}

#[track_caller]
fn ok(client: &mut Client, sql: &str) {
    let answer = client.query(sql);
    assert!(answer.iter().all(|m| m.tag != b'E'), "{sql}: {:?}", answer[0].describe());
}

#[track_caller]
fn traces(client: &mut Client) -> String {
    let answer = client.query(TRACES);
    answer[answer.len().saturating_sub(3)].describe()
}

#[test]
fn what_can_move_is_not_seen_by_the_other_client_and_is_still_there() {
    let Pair { mut one, mut other, tidegate } = Pair::new("leaks_moved");
    shared_cluster().primary().psql("CREATE ROLE leaks_member; GRANT leaks_member TO app").unwrap();
    let before = traces(&mut other);
    let kept: [(&str, &str, &str); 8] = [
        ("SET work_mem = '9MB'", "SHOW work_mem", "9MB"),
        ("SET app.tenant = 'one'", "SHOW app.tenant", "one"),
        ("SET TIME ZONE 'Asia/Tokyo'", "SHOW timezone", "Asia/Tokyo"),
        ("SET search_path = pg_catalog", "SHOW search_path", "pg_catalog"),
        ("SELECT set_config('work_mem', '10MB', false)", "SHOW work_mem", "10MB"),
        (
            "DO $$ BEGIN PERFORM set_config('app.tenant', 'two', false); END $$",
            "SHOW app.tenant",
            "two",
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SHOW transaction_read_only",
            "on",
        ),
        ("SET ROLE leaks_member", "SELECT current_user", "leaks_member"),
    ];
    for (sql, look, wanted) in kept {
        ok(&mut one, sql);
        assert_eq!(traces(&mut other), before, "after {sql}");
        assert_eq!(one.value(look).as_deref(), Some(wanted), "after {sql}");
        assert_eq!(traces(&mut other), before, "after {look}");
    }
    wait_for_pins(&tidegate, &[]);
}

#[test]
fn a_setting_that_only_a_function_names_reaches_nobody_else() {
    let Pair { mut one, mut other, tidegate: _tidegate } = Pair::new("leaks_function");
    ok(
        &mut one,
        "CREATE SCHEMA s; CREATE FUNCTION s.sneaky() RETURNS int LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM set_config('app.tenant', 'sneaked', false); RETURN 1; END $$",
    );
    let before = traces(&mut other);
    ok(&mut one, "SELECT s.sneaky()");
    assert_eq!(traces(&mut other), before);
    one.send(pipeline().parse("f", "SELECT s.sneaky()", &[]).bind("", "f", &[]).execute("").sync());
    one.expect("1 2 D C ZI");
    assert_eq!(traces(&mut other), before);
}

#[test]
fn a_setting_that_only_a_function_names_does_not_outlive_the_pin_either() {
    let Pair { mut one, mut other, tidegate } = Pair::new("leaks_function_pinned");
    ok(
        &mut one,
        "CREATE FUNCTION sneaky() RETURNS int LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM set_config('app.tenant', 'sneaked', false); RETURN 1; END $$",
    );
    let before = traces(&mut other);
    let sneaks =
        ["SELECT sneaky()", "PREPARE p AS SELECT sneaky()", "DROP TABLE t; SELECT sneaky()"];
    for sneak in sneaks {
        ok(&mut one, "CREATE TEMP TABLE t (a int)");
        ok(&mut one, sneak);
        if sneak.starts_with("PREPARE") {
            one.send(pipeline().bind("", "p", &[]).execute("").sync());
            one.expect("2 D C ZI");
        }
        ok(&mut one, "DROP TABLE IF EXISTS t; DEALLOCATE ALL");
        wait_for_pins(&tidegate, &[]);
        assert_eq!(traces(&mut other), before, "after {sneak}");
        assert_eq!(traces(&mut one), before, "after {sneak}");
    }
}

#[test]
fn what_cannot_move_pins_until_it_ends() {
    let Pair { mut one, mut other, tidegate } = Pair::new("leaks_pins");
    let before = traces(&mut other);
    let pins: [(&str, &str, &str); 6] = [
        ("CREATE TEMP TABLE t (a int)", "DROP TABLE t", "temporary_objects"),
        ("CREATE TEMP TABLE t AS SELECT 1", "DISCARD TEMP", "temporary_objects"),
        ("SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)", "advisory_locks"),
        (
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 3); COMMIT",
            "CLOSE c",
            "hold_cursors",
        ),
        ("PREPARE p AS SELECT 1", "DEALLOCATE p", "sql_prepared"),
        (
            "SELECT pg_try_advisory_lock(1), pg_try_advisory_lock(1)",
            "DISCARD ALL",
            "advisory_locks",
        ),
    ];
    for (begin, end, cause) in pins {
        ok(&mut one, begin);
        wait_for_pins(&tidegate, &[cause]);
        // The only connection is held: the other client waits until the pin ends.
        other.send(pipeline().query(TRACES));
        crate::own::wait_for_state(&tidegate, "waiting");
        ok(&mut one, end);
        let answer = other.read_until_ready();
        assert_eq!(answer[1].describe(), before, "after {begin}");
        wait_for_pins(&tidegate, &[]);
    }
}

#[test]
fn trap_61_names_laid_open_for_sql_pin_until_they_are_gone() {
    let Pair { mut one, mut other, tidegate } = Pair::new("leaks_names_open");
    let before = traces(&mut other);
    let ends = ["DEALLOCATE mine", "DEALLOCATE ALL", "DISCARD ALL"];
    for end in ends {
        one.send(pipeline().parse("mine", "SELECT 'secret'", &[]).sync());
        one.expect("1 ZI");
        wait_for_pins(&tidegate, &[]);
        assert_eq!(one.value("EXECUTE mine").as_deref(), Some("secret"));
        wait_for_pins(&tidegate, &["sql_prepared"]);
        other.send(pipeline().query("EXECUTE mine").query(TRACES));
        crate::own::wait_for_state(&tidegate, "waiting");
        ok(&mut one, end);
        assert_eq!(other.expect("E:26000 ZI T D C ZI")[3].describe(), before, "after {end}");
        wait_for_pins(&tidegate, &[]);
    }
    // Closed by a message, or left behind.
    for number in 0..2 {
        one.send(pipeline().parse("mine", "SELECT 'secret'", &[]).sync().query("EXECUTE mine"));
        one.expect("1 ZI T D C ZI");
        wait_for_pins(&tidegate, &["sql_prepared"]);
        if number == 0 {
            one.send(pipeline().close(Of::Statement("mine")).sync());
            one.expect("3 ZI");
            wait_for_pins(&tidegate, &[]);
        }
    }
    drop(one);
    other.send(pipeline().query("EXECUTE mine").bind("", "mine", &[]).sync());
    other.expect("E:26000 ZI E:26000 ZI");
    assert_eq!(traces(&mut other), before);
}

#[test]
fn what_a_statement_of_sql_sets_when_a_message_binds_it_is_its_clients_own() {
    let Pair { mut one, mut other, tidegate } = Pair::new("leaks_bound");
    let before = traces(&mut other);
    ok(&mut one, "PREPARE sets AS SELECT set_config('work_mem', '9MB', false)");
    // The text is forgotten; only the server knows what the name stands for.
    ok(&mut one, "RESET work_mem");
    one.send(pipeline().bind("", "sets", &[]).execute("").sync());
    one.expect("2 D C ZI");
    ok(&mut one, "DEALLOCATE sets");
    wait_for_pins(&tidegate, &[]);
    assert_eq!(traces(&mut other), before);
    assert_eq!(one.value("SHOW work_mem").as_deref(), Some("9MB"));
}

#[test]
fn a_pinned_client_that_leaves_unpins_and_cleans() {
    let Pair { mut one, mut other, tidegate } = Pair::new("leaks_leave");
    let before = traces(&mut other);
    for sql in ["CREATE TEMP TABLE t (a int)", "LISTEN news", "SELECT pg_advisory_lock(8)"] {
        ok(&mut one, sql);
    }
    other.send(pipeline().query(TRACES));
    crate::own::wait_for_state(&tidegate, "waiting");
    drop(one);
    assert_eq!(other.read_until_ready()[1].describe(), before);
    wait_for_pins(&tidegate, &[]);
}

#[test]
fn a_transaction_that_is_rolled_back_pins_nothing() {
    let Pair { mut one, mut other, tidegate } = Pair::new("leaks_rollback");
    let before = traces(&mut other);
    ok(&mut one, "BEGIN");
    for sql in ["CREATE TEMP TABLE t (a int)", "SET work_mem = '9MB'", "SET LOCAL app.tenant = 'x'"]
    {
        ok(&mut one, sql);
    }
    ok(&mut one, "ROLLBACK");
    assert_eq!(traces(&mut other), before);
    assert_eq!(traces(&mut one), before);
    wait_for_pins(&tidegate, &[]);
}

#[test]
fn the_same_statement_name_means_what_its_client_prepared() {
    let Pair { mut one, mut other, tidegate: _tidegate } = Pair::new("leaks_names");
    one.send(pipeline().parse("s", "SELECT 'one'", &[]).sync());
    one.expect("1 ZI");
    other.send(pipeline().parse("s", "SELECT 'other'", &[]).sync());
    other.expect("1 ZI");
    for _ in 0..3 {
        for (client, wanted) in [(&mut one, "D one"), (&mut other, "D other")] {
            client.send(pipeline().bind("", "s", &[]).execute("").sync());
            assert_eq!(client.expect("2 D C ZI")[1].describe(), wanted);
        }
    }
}

#[test]
fn what_a_server_has_parsed_serves_clients_of_every_name_but_not_of_every_zone() {
    let Pair { mut one, mut other, tidegate: _running } = Pair::new("leaks_shared");
    let text = "SELECT '2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC'";
    let kept =
        format!("SELECT count(*) FROM pg_prepared_statements WHERE statement = $t${text}$t$");
    let cases = [("UTC", "2024-01-01 00:00:00", "1"), ("Asia/Tokyo", "2023-12-31 15:00:00", "2")];
    ok(&mut one, "SET application_name = 'one'; SET timezone = 'UTC'");
    one.send(pipeline().parse("s", text, &[]).sync());
    one.expect("1 ZI");
    for (zone, wanted, count) in cases {
        ok(&mut other, &format!("SET application_name = 'other'; SET timezone = '{zone}'"));
        let again = pipeline().parse(zone, text, &[]).bind("", zone, &[]).execute("").sync();
        other.send(again);
        assert!(other.expect("1 2 D C ZI")[2].describe().contains(wanted), "in {zone}");
        assert_eq!(other.value(&kept).as_deref(), Some(count), "in {zone}");
    }
}
