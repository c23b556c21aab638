//! Nothing of one client reaches another: not when it leaves properly, not when it vanishes.

use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::differential::front_url;
use tidegate_test_support::{
    Client, differential, pipeline, shared_cluster, test_database, wait_until,
};

const CLEAN_TIME_MAX: Duration = Duration::from_secs(20);

/// Waits until no session of the database is in a transaction or runs a statement.
fn wait_until_quiet(database: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state <> 'idle'"
    );
    wait_until(CLEAN_TIME_MAX, "no session is in a transaction", || {
        shared_cluster().primary().psql(&sql).unwrap() == "0"
    });
}

#[test]
fn trap_28_terminate_inside_a_transaction_rolls_it_back() {
    let database = test_database("trap_28");
    let url = front_url(ROLE, &database);
    Client::connect(&url).query("CREATE TABLE t (a int)");
    for _ in 0..20 {
        let mut client = Client::connect(&url);
        client.query("BEGIN");
        client.query("INSERT INTO t VALUES (1)");
        client.send(pipeline().terminate());
        client.expect("(end)");
    }
    wait_until_quiet(&database);
    assert_eq!(Client::connect(&url).value("SELECT count(*) FROM t").as_deref(), Some("0"));
}

#[test]
fn trap_28_what_was_sent_before_terminate_is_done_first() {
    differential("DROP TABLE IF EXISTS t28; CREATE TABLE t28 (a int)", |c| {
        c.send(
            pipeline()
                .query("BEGIN; INSERT INTO t28 VALUES (1)")
                .parse("", "SELECT pg_sleep(0.1)", &[])
                .bind("", "", &[])
                .execute("")
                .sync()
                .query("COMMIT")
                .terminate(),
        );
        c.expect("C C ZT 1 2 D C ZT C ZI (end)");
    });
    // Nobody has to read the answers, or to stay until they come.
    let url = front_url(ROLE, &test_database("trap_28_unread"));
    Client::connect(&url).query("CREATE TABLE t (a int)");
    for _ in 0..5 {
        let mut client = Client::connect(&url);
        client.send(pipeline().query("INSERT INTO t SELECT 1 FROM pg_sleep(0.1)").terminate());
    }
    let mut last = Client::connect(&url);
    wait_until(CLEAN_TIME_MAX, "all is done that was sent", || {
        last.value("SELECT count(*) FROM t").as_deref() == Some("5")
    });
}

#[test]
fn trap_29_clients_that_vanish_leave_nothing() {
    let database = test_database("trap_29");
    let url = front_url(ROLE, &database);
    Client::connect(&url).query("CREATE TABLE t (a int)");
    type Ending = fn(&mut Client);
    let endings: [Ending; 6] = [
        |c| c.send(pipeline().query("SELECT pg_sleep(0.05)")),
        |c| c.send(pipeline().parse("s", "SELECT 1", &[]).flush()),
        // Half a Bind: the server must never get the rest from somebody else.
        |c| c.send(&pipeline().bind("", "s", &[Some("a long parameter")]).bytes()[..12]),
        |c| c.send(pipeline().query("COPY t FROM STDIN").copy_data(b"1\n")),
        |c| c.send(&pipeline().query("COPY t FROM STDIN").copy_data(b"1234567\n").bytes()[..35]),
        |c| c.send(pipeline().query("SELECT repeat('x', 1000) FROM generate_series(1, 10000)")),
    ];
    for (number, ending) in endings.iter().cycle().take(30).enumerate() {
        let mut client = Client::connect(&url);
        client.query("SET application_name = 'vanished'");
        if number % 2 == 0 {
            client.query("BEGIN");
            client.query("INSERT INTO t VALUES (1)");
        }
        ending(&mut client);
        drop(client);
        let mut next = Client::connect(&url);
        let name = next.value("SHOW application_name");
        assert_eq!(name.as_deref(), Some(""), "after ending {number}");
    }
    wait_until_quiet(&database);
    assert_eq!(Client::connect(&url).value("SELECT count(*) FROM t").as_deref(), Some("0"));
}

#[test]
fn trap_30_what_a_session_had_is_gone_with_it() {
    let database = test_database("trap_30");
    let url = front_url(ROLE, &database);
    let leave: [&str; 8] = [
        "SET work_mem = '9MB'",
        "CREATE TEMP TABLE left_behind (a int)",
        "PREPARE left_behind AS SELECT 1",
        "BEGIN; DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "LISTEN left_behind",
        "SELECT pg_advisory_lock(30)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET my.secret = 'mine'",
    ];
    for sql in leave {
        for _ in 0..3 {
            let mut client = Client::connect(&url);
            client.query(sql);
            client.send(pipeline().terminate());
            client.expect("(end)");
        }
    }
    // A server ends an advisory lock a moment after its session.
    wait_until(CLEAN_TIME_MAX, "the advisory lock is free", || {
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 30";
        shared_cluster().primary().psql(sql).unwrap() == "0"
    });
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&url)).collect();
    for client in &mut clients {
        client.send(pipeline().query("BEGIN"));
        client.expect("C ZT"); // each holds a server connection of its own now
    }
    for client in &mut clients {
        let sql = "SELECT current_setting('work_mem'), \
                   (SELECT count(*) FROM pg_class WHERE relname = 'left_behind'), \
                   (SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'), \
                   (SELECT count(*) FROM pg_cursors WHERE name = 'left_behind'), \
                   (SELECT count(*) FROM pg_listening_channels()), \
                   current_setting('transaction_read_only'), \
                   coalesce(current_setting('my.secret', true), '')";
        let rows = client.query(sql);
        assert_eq!(rows[1].describe(), "D 4MB|0|0|0|0|off|");
    }
}

#[test]
fn trap_73_a_cancel_ends_only_its_own_statement() {
    let url = front_url(ROLE, &test_database("trap_73"));
    let (mut one, mut other) = (Client::connect(&url), Client::connect(&url));
    for client in [&mut one, &mut other] {
        client.send(pipeline().query("SELECT pg_sleep(60)"));
    }
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'trap_73%' AND query LIKE '%pg_sleep(60)%'";
    wait_until(CLEAN_TIME_MAX, "both sleep", || {
        shared_cluster().primary().psql(sleeping).unwrap() == "2"
    });
    one.cancel();
    one.expect("T E:57014 ZI");
    assert!(other.is_silent_for(Duration::from_millis(50)) || other.read_message().tag == b'T');
    other.cancel();
    let last = other.read_until_ready();
    assert_eq!(last[last.len() - 2].sqlstate(), "57014");
    // Nothing runs: nothing is cancelled, now or later.
    one.cancel();
    for client in [&mut one, &mut other] {
        client.send(pipeline().query("SELECT pg_sleep(0.01)"));
        client.expect("T D C ZI");
    }
}
