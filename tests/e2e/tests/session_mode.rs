//! `mode = "session"`: a client keeps its server until it leaves, and nothing of it is left there.

use crate::own::{json, pool_of, tidegate, wait_for_state};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, Tidegate, pipeline, shared_cluster, test_database};

fn one_server(name: &str) -> (Tidegate, String) {
    let database = test_database(name);
    let toml = pool_of(1) + "mode = \"session\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database);
    (tidegate, url)
}

/// What a session may leave behind.
const TRACES: &str = "SELECT current_setting('work_mem'), coalesce(current_setting('app.me', true), ''), \
    (SELECT count(*) FROM pg_class WHERE relname = 'mine'), (SELECT count(*) FROM pg_prepared_statements), \
    (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_listening_channels()), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";

#[test]
fn a_client_keeps_its_server_and_all_that_it_makes_there() {
    let (_tidegate, url) = one_server("session_kept");
    let mut client = Client::connect(&url);
    let pid = client.server_pid();
    for sql in [
        "SET work_mem = '9MB'",
        "SET app.me = 'x'",
        "CREATE TEMP TABLE mine AS SELECT 1 AS a",
        "PREPARE by_sql AS SELECT 'prepared'",
        "LISTEN news",
        "SELECT pg_advisory_lock(5)",
        "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 'fetched'; COMMIT",
    ] {
        let answer = client.query(sql);
        assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
    }
    client.send(pipeline().parse("by_message", "SELECT 'bound'", &[]).sync());
    client.expect("1 ZI");
    assert_eq!(client.query(TRACES)[1].describe(), "D 9MB|x|1|2|1|1|1");
    assert_eq!(client.value("EXECUTE by_sql").as_deref(), Some("prepared"));
    assert_eq!(client.value("FETCH held").as_deref(), Some("fetched"));
    client.send(pipeline().bind("", "by_message", &[]).execute("").sync());
    assert_eq!(client.expect("2 D C ZI")[1].describe(), "D bound");
    client.query("NOTIFY news, 'heard'");
    assert!(client.transcript().iter().any(|line| line == "A news \"heard\""));
    assert_eq!(client.server_pid(), pid);
}

#[test]
fn the_next_client_waits_for_the_end_and_finds_nothing() {
    type Ending = fn(Client);
    let endings: [Ending; 3] = [
        |mut client| {
            client.send(pipeline().terminate());
            client.expect("(end)");
        },
        drop,
        |mut client| {
            client.query("BEGIN");
            client.query("SELECT 1/0");
        },
    ];
    let (tidegate, url) = one_server("session_next");
    for ending in endings {
        let (mut client, mut next) = (Client::connect(&url), Client::connect(&url));
        let pid = client.server_pid();
        for sql in ["SET work_mem = '9MB'", "SET app.me = 'x'", "CREATE TEMP TABLE mine (a int)"] {
            client.query(sql);
        }
        client.send(pipeline().parse("mine", "SELECT 1", &[]).query("LISTEN news").sync());
        client.expect("1 C ZI ZI");
        client.query("SELECT pg_advisory_lock(6)");
        next.send(pipeline().query(TRACES).query("SELECT pid FROM pg_backend_pid() AS pid"));
        wait_for_state(&tidegate, "waiting");
        ending(client);
        assert_eq!(next.expect("T D C ZI")[1].describe(), "D 4MB||0|0|0|0|0");
        let same = next.expect("T D C ZI")[1].row();
        assert_eq!(same, [Some(pid)], "the connection is cleaned, not replaced");
    }
}

#[test]
fn the_mode_is_a_pools_own() {
    let database = test_database("session_pools");
    shared_cluster().create_role("session_user").unwrap();
    let toml = pool_of(1) + "[[pools]]\nuser = \"session_user\"\nmode = \"session\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let held = |user: &str| {
        let mut client = Client::connect(&tidegate.url(user, &database));
        client.query("SELECT 1");
        let clients = json(&tidegate, "/api/v1/clients");
        let clients = clients["clients"].as_array().unwrap();
        let mine = clients.iter().find(|client| client["user"] == user).unwrap();
        !mine["server"].is_null()
    };
    assert!(held("session_user"));
    assert!(!held(ROLE));
}
