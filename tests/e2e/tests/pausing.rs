//! Server connections taken away, given back, replaced: pause, resume, reconnect.

use crate::own::{
    SOON, cluster_with, json, pool_of, sqlstate, tidegate, wait_for_state, write_pool,
};
use std::process::Stdio;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database, wait_until,
};

/// Sessions of the database at the server, but for Tidegate's own.
fn sessions(database: &str) -> String {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' \
         AND application_name NOT LIKE 'tidegate%'"
    );
    shared_cluster().primary().psql(&sql).unwrap()
}

#[test]
fn a_restart_of_the_server_during_a_pause_is_not_noticed() {
    const EACH: usize = 300;
    let cluster = cluster_with("paused");
    let options = TidegateOptions::for_cluster(&cluster, "paused");
    let toml = Some("workers = 2\n[pool]\nsize_min = 1\nsize_max = 3\n".to_owned());
    let tidegate = Tidegate::start(TidegateOptions { toml, ..options });
    let url = tidegate.url(ROLE, "paused");
    let primary = cluster.primary();
    let done = primary.client("pgbench").args(["-i", "-q", &url]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let pgbench = |mode: &str| {
        let mut command = primary.client("pgbench");
        command.args(["-M", mode, "-c", "4", "-j", "4", "-t", &EACH.to_string(), "-n", &url]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running = [pgbench("prepared"), pgbench("simple")];
    let count = || -> usize {
        let sql = "SELECT count(*) FROM pgbench_history";
        primary.psql_in("paused", sql).unwrap().parse().unwrap()
    };
    for restart in 1..=2 {
        wait_until(SOON, "it runs", || count() >= 300 * restart);
        let (code, told) = tidegate.command(&["pause", "paused"]);
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("paused: paused; no server connection is left"), "{told}");
        let before = count();
        primary.restart().unwrap();
        assert_eq!(count(), before, "nothing runs during a pause");
        assert_eq!(tidegate.command(&["resume", "paused"]).0, 0);
    }
    for pgbench in running {
        let output = pgbench.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{told}");
        let all = 4 * EACH;
        assert!(told.contains(&format!("actually processed: {all}/{all}")), "{told}");
        assert!(told.contains("failed transactions: 0 "), "{told}");
    }
    assert_eq!(count(), 2 * 4 * EACH);
}

#[test]
fn trap_119_a_pause_lets_run_what_has_begun_and_holds_what_would_begin() {
    let (database, other) = (test_database("pause"), test_database("not_paused"));
    let toml = pool_of(3) + "[routing]\nreads = \"primary\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database);
    let [mut busy, mut first, mut second] = [(); 3].map(|()| Client::connect(&url));
    let mut elsewhere = Client::connect(&tidegate.url(ROLE, &other));
    first.query("SELECT 1");
    busy.query("BEGIN");
    let (code, told) = tidegate.command(&["pause", &database, "--wait", "200ms"]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("1 server connections are open, 1 in use"), "{told}");
    assert!(told.contains("transactions have not ended in time"), "{told}");
    first.send(pipeline().query("SELECT 'first'"));
    wait_for_state(&tidegate, "waiting");
    second.send(pipeline().query("SELECT 'second'"));
    wait_until(SOON, "both are held", || {
        let pools = json(&tidegate, "/api/v1/pools");
        let mut pools = pools["pools"].as_array().unwrap().iter();
        pools.any(|pool| pool["waiting"] == 2 && pool["paused"] == true)
    });
    assert_eq!(elsewhere.value("SELECT 1").as_deref(), Some("1"), "another database goes on");
    assert_eq!(busy.value("SELECT 1").as_deref(), Some("1"), "a transaction goes on");
    let mut new = Client::connect(&url);
    busy.query("COMMIT");
    let (code, told) = tidegate.command(&["pause", &database]);
    assert_eq!((code, sessions(&database).as_str()), (0, "0"), "{told}");
    assert!(tidegate.admin_get("/metrics").body.contains(&format!(
        "tidegate_pool_paused{{database=\"{database}\",user=\"{ROLE}\",server=\"primary\",role=\"write\"}} 1"
    )));
    new.send(pipeline().query("SELECT 'cancelled'"));
    wait_until(SOON, "it is held", || {
        json(&tidegate, "/api/v1/pools").to_string().contains("\"waiting\":3")
    });
    new.cancel();
    new.expect("E:57014 ZI");
    let (code, told) = tidegate.command(&["resume"]);
    assert_eq!((code, told.as_str()), (0, "nothing is paused\n"));
    assert_eq!(first.expect("T D C ZI")[1].describe(), "D first");
    assert_eq!(second.expect("T D C ZI")[1].describe(), "D second");
    assert_eq!(busy.value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn a_held_statement_waits_for_pause_max_not_for_wait_max() {
    let database = test_database("pause_max");
    let toml = pool_of(1) + "wait_max = \"1s\"\npause_max = \"1500ms\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    assert_eq!(tidegate.command(&["pause"]).0, 0);
    let began = std::time::Instant::now();
    assert_eq!(sqlstate(&mut client, "SELECT 1"), "57P03");
    assert!(began.elapsed().as_millis() >= 1500);
    client.send(pipeline().query("SELECT 'held'"));
    wait_for_state(&tidegate, "waiting");
    assert_eq!(tidegate.command(&["resume"]).0, 0);
    assert_eq!(client.expect("T D C ZI")[1].describe(), "D held");
}

#[test]
fn all_but_some_databases_are_paused_and_an_order_that_makes_no_sense_is_refused() {
    let (database, other) = (test_database("pause_all"), test_database("pause_all_but"));
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    assert_eq!(
        tidegate.command(&["pause"]).1,
        "all databases are paused; no server connection is left\n"
    );
    let told = tidegate.command(&["resume", &other]).1;
    assert_eq!(told, format!("all databases are paused but {other}\n"));
    // A login needs a server only where start-up settings are new.
    let mut client = Client::connect(&tidegate.url(ROLE, &other));
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    let paused = &json(&tidegate, "/api/v1/pools")["paused"];
    assert_eq!(*paused, serde_json::json!({ "all": true, "except": [other] }));
    for wrong in ["{", r#"{"databases": "x"}"#, r#"{"database": ""}"#, r#"{"wait_ms": 99999999}"#] {
        assert_eq!(tidegate.admin_post("/api/v1/pause", wrong).status, 400, "{wrong}");
    }
}

#[test]
fn a_reconnect_replaces_connections_as_they_come_free() {
    let database = test_database("reconnect");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let url = tidegate.url(ROLE, &database);
    let (mut busy, mut idle) = (Client::connect(&url), Client::connect(&url));
    busy.query("BEGIN");
    let before = [busy.server_pid(), idle.server_pid()];
    let (code, told) = tidegate.command(&["reconnect", &database]);
    assert_eq!((code, told.as_str()), (0, "1 server connections are in use and replaced later\n"));
    assert_eq!(write_pool(&tidegate)["stale"], 1);
    assert_ne!(idle.server_pid(), before[1]);
    assert_eq!(busy.server_pid(), before[0], "a transaction ends where it began");
    busy.query("COMMIT");
    assert_ne!(busy.server_pid(), before[0]);
    wait_until(SOON, "none is left", || write_pool(&tidegate)["stale"] == 0);
    let of_others = tidegate.command(&["reconnect", "another"]);
    let pid = idle.server_pid();
    assert_eq!((of_others.0, idle.server_pid()), (0, pid));
}
