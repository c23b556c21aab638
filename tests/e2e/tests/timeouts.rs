//! Clients that say nothing for too long, and those that only seem to.

use crate::own::{json, pool_of, tidegate, wait_for_state};
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, Tidegate, pipeline, shared_cluster, test_database};

/// Longer than a test needs between two statements, on a machine that is busy.
const LIMIT: Duration = Duration::from_millis(800);

/// With this limit on what `limit` names.
fn limited(name: &str, limit: &str, pool: &str) -> (Tidegate, String) {
    let database = test_database(name);
    let limits = format!("[limits]\n{limit} = \"{}ms\"\n", LIMIT.as_millis());
    // What is read waits for the same connection.
    let toml = format!("{pool}{limits}[routing]\nreads = \"primary\"\n");
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database);
    Client::connect(&url).query("CREATE TABLE t (a int)");
    (tidegate, url)
}

/// SQL that takes longer than the limit.
fn long() -> String {
    format!("SELECT pg_sleep({})", 1.5 * LIMIT.as_secs_f64())
}

#[track_caller]
fn ended(client: &mut Client, sqlstate: &str, key: &str) {
    let error = &client.expect(&format!("E:{sqlstate} (end)"))[0];
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert!(error.field(b'H').unwrap().contains(key), "{}", error.describe());
}

#[test]
fn trap_91_a_client_idle_in_a_transaction_is_ended_once_and_rolled_back() {
    let (_tidegate, url) = limited("trap_91", "idle_in_transaction_timeout", &pool_of(1));
    type Begin = fn(&mut Client);
    let begins: [Begin; 4] = [
        |c| {
            c.send(pipeline().query("BEGIN").query("INSERT INTO t VALUES (1)"));
            c.expect("C ZT C ZT");
        },
        |c| {
            c.send(pipeline().query("BEGIN; INSERT INTO t VALUES (1); SELECT 1/0"));
            c.expect("C C E:22012 ZE");
        },
        // A batch without its end holds the server just as well.
        |c| {
            let insert = "INSERT INTO t VALUES (1)";
            c.send(pipeline().parse("", insert, &[]).bind("", "", &[]).execute("").flush());
            c.expect("1 2 C");
        },
        |c| {
            c.query("CREATE TEMP TABLE pinned ()");
            c.send(pipeline().query("BEGIN").query("INSERT INTO t VALUES (1)"));
            c.expect("C ZT C ZT");
        },
    ];
    for begin in begins {
        let (mut client, mut next) = (Client::connect(&url), Client::connect(&url));
        begin(&mut client);
        // The pool's only connection is held: this one waits for the end.
        next.send(pipeline().query("SELECT count(*) FROM t"));
        ended(&mut client, "25P03", "idle_in_transaction_timeout");
        assert_eq!(next.expect("T D C ZI")[1].describe(), "D 0");
    }
}

#[test]
fn a_transaction_in_which_something_happens_is_not_idle() {
    let (_tidegate, url) = limited("not_idle", "idle_in_transaction_timeout", &pool_of(2));
    let (mut client, mut outside) = (Client::connect(&url), Client::connect(&url));
    client.query("BEGIN");
    // One statement that takes longer than the limit, and several that do together.
    client.send(pipeline().query(&long()));
    client.expect("T D C ZT");
    for _ in 0..5 {
        let part = format!("SELECT pg_sleep({})", 0.3 * LIMIT.as_secs_f64());
        client.send(pipeline().query(&part));
        client.expect("T D C ZT");
    }
    client.send(pipeline().query("COPY t FROM STDIN").copy_data(b"1\n"));
    client.expect("G");
    assert!(client.is_silent_for(LIMIT * 3 / 2), "a copy waits for its data");
    client.send(pipeline().copy_done().query("COMMIT"));
    client.expect("C ZT C ZI");
    // Nor is one that is in none.
    assert_eq!(outside.value("SELECT count(*) FROM t").as_deref(), Some("1"));
}

#[test]
fn an_idle_client_is_ended_whatever_it_keeps() {
    let session = pool_of(2) + "mode = \"session\"\n";
    for (name, pool) in [("idle", pool_of(2)), ("idle_session", session)] {
        let (tidegate, url) = limited(name, "client_idle_timeout", &pool);
        let begins = ["SELECT 1", "CREATE TEMP TABLE pinned ()"];
        for begin in begins {
            let mut client = Client::connect(&url);
            client.query(begin);
            ended(&mut client, "57P05", "client_idle_timeout");
        }
        ended(&mut Client::connect(&url), "57P05", "client_idle_timeout");
        let errors = tidegate.admin_get("/metrics").body;
        let counted = errors.lines().find(|line| line.contains("kind=\"idle_timeout\""));
        assert_eq!(counted.and_then(|line| line.rsplit(' ').next()), Some("3"), "each once");
        assert!(json(&tidegate, "/api/v1/clients")["total"].as_u64() < Some(3));
    }
}

#[test]
fn a_client_that_waits_or_works_is_not_idle() {
    let session = pool_of(1) + "mode = \"session\"\n";
    for (name, pool) in [("works", pool_of(1)), ("works_session", session)] {
        let (tidegate, url) = limited(name, "client_idle_timeout", &pool);
        let (mut works, mut waits) = (Client::connect(&url), Client::connect(&url));
        works.query("CREATE TEMP TABLE pinned ()");
        works.send(pipeline().query(&long()));
        waits.send(pipeline().query("SELECT 1"));
        wait_for_state(&tidegate, "waiting");
        works.expect("T D C ZI");
        works.query("BEGIN");
        assert!(works.is_silent_for(LIMIT * 3 / 2), "that is the other limit's matter");
        works.send(pipeline().query("COMMIT").terminate());
        works.expect("C ZI (end)");
        waits.expect("T D C ZI");
    }
}

#[test]
fn a_statement_that_runs_too_long_is_cancelled_and_its_client_told_why() {
    let (tidegate, url) = limited("statement", "statement_timeout", &pool_of(2));
    let long = "SELECT pg_sleep(60)";
    let mut client = Client::connect(&url);
    let extended = pipeline().parse("", long, &[]).bind("", "", &[]).execute("").sync();
    for (sent, tags) in [(pipeline().query(long), "T E:57014 ZI"), (extended, "1 2 E:57014 ZI")] {
        client.send(sent);
        let messages = client.expect(tags);
        let error = &messages[messages.len() - 2];
        assert_eq!(
            error.field(b'M').as_deref(),
            Some("canceling statement due to statement timeout")
        );
        assert!(error.field(b'H').unwrap().contains("limits.statement_timeout"), "{error:?}");
    }
    // In a transaction each statement has its own time, and time without a statement is none.
    client.query("BEGIN");
    let short = format!("SELECT pg_sleep({})", 0.6 * LIMIT.as_secs_f64());
    for _ in 0..3 {
        client.query(&short);
    }
    assert!(client.is_silent_for(LIMIT * 3 / 2));
    client.query("SELECT 1");
    client.send(pipeline().query(long).query("ROLLBACK"));
    client.expect("T E:57014 ZE C ZI");
    // Whoever waits before others has a limit of their own, here none; a cancel by hand is told as ever.
    for sql in
        ["BEGIN", "SET tidegate.priority = 'critical'", &self::long(), "COMMIT", &self::long()]
    {
        client.query(sql);
    }
    client.send(pipeline().query(long));
    wait_for_state(&tidegate, "active");
    client.cancel();
    let error = client.expect("T E:57014 ZI").remove(1);
    assert_eq!(error.field(b'M').as_deref(), Some("canceling statement due to user request"));
    let metrics = tidegate.admin_get("/metrics").body;
    let counted = metrics.lines().find(|line| line.contains("kind=\"statement_timeout\""));
    assert_eq!(counted.and_then(|line| line.rsplit(' ').next()), Some("3"));
}
