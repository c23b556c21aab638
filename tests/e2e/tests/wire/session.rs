//! What belongs to a session: settings, notifications, temporary things.

use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::differential::front_url;
use tidegate_test_support::{
    Client, differential, pipeline, shared_cluster, shared_tidegate, test_database,
};

#[test]
fn trap_80_settings_are_validated_and_remembered() {
    differential("", |c| {
        c.query("SET work_mem = '8MB'");
        c.query("SHOW work_mem");
        c.query("SET work_mem = 'much'");
        c.query("SET no_such_setting = 1");
        c.query("SHOW work_mem");
        c.query("SET \"my.own\" = 'x'");
        c.query("SHOW my.own");
        c.query("SELECT set_config('work_mem', '9MB', false)");
        c.query("SHOW work_mem");
    });
}

#[test]
fn trap_81_reported_settings_arrive_in_their_canonical_form() {
    differential("", |c| {
        for sql in [
            "SET datestyle = 'german'",
            "SET DateStyle TO iso",
            "SET timezone = 'asia/tokyo'",
            "SET TIME ZONE LOCAL",
            "SET application_name = 'äpp'",
            "SET client_encoding = latin1",
            "SET NAMES 'utf8'",
            "SET intervalstyle = 'iso_8601'",
            "SET standard_conforming_strings = off",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "RESET ALL",
        ] {
            c.query(sql);
        }
        c.query("SELECT now() - now(), current_setting('timezone')");
    });
}

#[test]
fn trap_82_settings_follow_their_transaction() {
    differential("", |c| {
        for sql in [
            "SET application_name = 'outside'",
            "BEGIN",
            "SET application_name = 'inside'",
            "SAVEPOINT s",
            "SET application_name = 'deeper'",
            "SET LOCAL work_mem = '7MB'",
            "ROLLBACK TO s",
            "SHOW application_name",
            "SHOW work_mem",
            "ROLLBACK",
            "SHOW application_name",
            "BEGIN",
            "SET LOCAL timezone = 'Asia/Tokyo'",
            "SHOW timezone",
            "COMMIT",
            "SHOW timezone",
            "SET LOCAL timezone = 'Asia/Tokyo'",
            "SHOW timezone",
            "BEGIN",
            "SET timezone = 'Asia/Tokyo'",
            "SELECT 1/0",
            "COMMIT",
            "SHOW timezone",
            "SET timezone = 'Asia/Tokyo'; SELECT 1/0",
            "SHOW timezone",
        ] {
            c.query(sql);
        }
    });
}

#[test]
fn trap_83_reset_goes_back_to_what_the_client_started_with() {
    let database = test_database("trap_83");
    let url = front_url(ROLE, &database);
    let parameters =
        [("options", "-c statement_timeout=9s -c work_mem=5MB"), ("DateStyle", "german")];
    let mut c = Client::connect_with(&url, &parameters);
    let value = |c: &mut Client, name: &str| c.value(&format!("SHOW {name}")).unwrap();
    assert_eq!(value(&mut c, "statement_timeout"), "9s");
    for reset in
        ["RESET statement_timeout", "RESET ALL", "DISCARD ALL", "SET statement_timeout TO DEFAULT"]
    {
        c.query("SET statement_timeout = '1s'");
        assert_eq!(value(&mut c, "statement_timeout"), "1s");
        c.query(reset);
        assert_eq!(value(&mut c, "statement_timeout"), "9s", "{reset}");
    }
    assert_eq!(value(&mut c, "work_mem"), "5MB");
    assert_eq!(value(&mut c, "datestyle"), "German, DMY");
    assert_eq!(value(&mut Client::connect(&url), "work_mem"), "4MB");
}

#[test]
fn trap_62_discard_all_inside_a_transaction_changes_nothing() {
    differential("", |c| {
        c.query("SET work_mem = '8MB'");
        c.send(pipeline().parse("s", "SELECT 1", &[]).sync());
        c.expect("1 ZI");
        c.query("BEGIN");
        c.send(pipeline().query("DISCARD ALL"));
        c.expect("E:25001 ZE");
        c.query("ROLLBACK");
        c.query("SHOW work_mem");
        c.send(pipeline().bind("", "s", &[]).execute("").sync());
        c.expect("2 D C ZI");
    });
}

#[test]
fn trap_84_roles_and_session_authorization() {
    differential("", |c| {
        c.query("SET ROLE none");
        c.query("SET ROLE postgres");
        c.query("SELECT current_user, session_user");
        c.query("SET SESSION AUTHORIZATION app");
        c.query("RESET SESSION AUTHORIZATION");
        c.query("SELECT current_user, session_user");
    });
}

#[test]
fn trap_86_advisory_locks_are_counted() {
    differential("", |c| {
        for sql in [
            "SELECT pg_advisory_lock(86)",
            "SELECT pg_advisory_lock(86)",
            "SELECT pg_advisory_unlock(86)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 86 AND pid = pg_backend_pid()",
            "SELECT pg_advisory_unlock(86)",
            "SELECT pg_advisory_unlock(86)",
            "BEGIN",
            "SELECT pg_advisory_xact_lock(86)",
            "ROLLBACK",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 86 AND pid = pg_backend_pid()",
        ] {
            c.query(sql);
        }
    });
}

#[test]
fn trap_88_cursors_with_hold() {
    differential("", |c| {
        for sql in [
            "DECLARE plain CURSOR FOR SELECT 1",
            "BEGIN",
            "DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 5)",
            "DECLARE plain CURSOR FOR SELECT generate_series(1, 5)",
            "FETCH 2 FROM held",
            "FETCH 2 FROM plain",
            "COMMIT",
            "FETCH 2 FROM plain",
            "FETCH 2 FROM held",
            "MOVE BACKWARD ALL FROM held",
            "CLOSE held",
            "FETCH held",
        ] {
            c.query(sql);
        }
    });
}

#[test]
fn trap_89_notifications_follow_their_transaction() {
    differential("", |c| {
        c.query("LISTEN t89");
        c.query("NOTIFY t89, 'to myself'");
        c.query("BEGIN");
        c.query("NOTIFY t89, 'undone'");
        c.query("ROLLBACK");
        c.query("BEGIN");
        c.query("NOTIFY t89, 'kept'");
        c.query("SELECT pg_notify('t89', 'kept too')");
        c.query("COMMIT");
        c.query("SELECT * FROM pg_listening_channels()");
        c.query("UNLISTEN t89");
        c.query("NOTIFY t89, 'unheard'");
        c.query("SELECT 1");
    });
}

#[test]
fn trap_89_a_notification_reaches_an_idle_client() {
    let url = front_url(ROLE, &test_database("trap_89"));
    let (mut listener, mut other) = (Client::connect(&url), Client::connect(&url));
    listener.query("LISTEN t89");
    other.query("NOTIFY t89, 'from afar'");
    assert_eq!(listener.read_message().describe(), "A t89 \"from afar\"");
    other.query("SELECT 1");
}

#[test]
fn trap_87_temporary_tables() {
    differential("", |c| {
        for sql in [
            "CREATE TEMP TABLE t87 AS SELECT 1 AS a",
            "SELECT * FROM t87",
            "BEGIN",
            "CREATE TEMP TABLE t87b (a int) ON COMMIT DROP",
            "COMMIT",
            "SELECT * FROM t87b",
            "SELECT a INTO TEMP t87c FROM t87",
            "SELECT * FROM pg_temp.t87c",
            "DISCARD TEMP",
            "SELECT * FROM t87",
        ] {
            c.query(sql);
        }
    });
}

#[test]
fn a_wrong_word_for_tidegates_own_setting_fails_like_that_of_an_enum_setting() {
    let database = test_database("route_word");
    // The word for it sends what follows to a replica.
    shared_cluster().wait_until_caught_up().unwrap();
    let url = shared_tidegate().url(ROLE, &database);
    let transcript = |setting: &str, valid: &str, values: &str| {
        let mut c = Client::connect(&url);
        for sql in [
            "SET @ = 'sideways'",
            "SET @ TO sideways; ",
            "SELECT 1",
            "BEGIN",
            "SET LOCAL @ = 'sideways'",
            "SELECT 1",
            "SET @ = 'sideways'",
            "ROLLBACK",
            "SET @ = '!'",
            "RESET @",
            "SELECT 2",
        ] {
            c.query(&sql.replace('@', setting).replace('!', valid));
        }
        let refusal = Client::try_connect(&url, &[(setting, "sideways")]).unwrap_err();
        let seen = c.transcript().iter().cloned().chain([refusal.describe()]);
        let same = |line: String| line.replace(setting, "@").replace(values, "!");
        seen.map(same).collect::<Vec<_>>()
    };
    let own = transcript("tidegate.route", "Replica", "auto, primary, replica");
    assert_eq!(own, transcript("bytea_output", "Hex", "escape, hex"));
    assert!(own[0].contains("22023") && own[0].contains("Available values: !."), "{own:?}");
    // Prepared, it is refused before it is bound, and the batch fails.
    let mut c = Client::connect(&url);
    c.send(
        pipeline()
            .parse("s", "SET tidegate.route = 'sideways'", &[])
            .bind("", "s", &[])
            .execute("")
            .sync(),
    );
    c.expect("E:22023 ZI");
    assert_eq!(c.value("SELECT 1").as_deref(), Some("1"));
}
