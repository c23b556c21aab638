//! What an operator does: reload, drain, look, listen on a Unix socket; and how the process ends.

use crate::own::{
    SOON, client, cluster_with, json, pool_of, tidegate, wait_until_running, write_pool,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::http;
use tidegate_test_support::pipeline::startup;
use tidegate_test_support::{
    Client, Cluster, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database, wait_until,
};

const PROTOCOL_3_0: u32 = 196_608;

fn size_max(tidegate: &Tidegate) -> u64 {
    json(tidegate, "/api/v1/pools")["pools"][0]["size_max"].as_u64().unwrap()
}

#[test]
fn a_reload_changes_the_pool_and_drops_nobody() {
    let database = test_database("reload");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.query("SET app.me = 'still here'");
    client.query("BEGIN");
    assert_eq!(size_max(&tidegate), 2);
    tidegate.write_config(&pool_of(5));
    tidegate.sighup();
    wait_until(SOON, "SIGHUP is heeded", || size_max(&tidegate) == 5);
    tidegate.write_config(&pool_of(4));
    tidegate.reload();
    wait_until(SOON, "the call is heeded", || size_max(&tidegate) == 4);
    client.send(pipeline().query("SELECT current_setting('app.me')"));
    assert_eq!(client.expect("T D C ZT")[1].describe(), "D still here");
    client.query("COMMIT");
}

#[test]
fn a_pool_shrinks_and_grows_while_it_is_used() {
    let database = test_database("resize");
    let primary = "[routing]\nreads = \"primary\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &(pool_of(4) + primary));
    let url = tidegate.url(ROLE, &database);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&url)).collect();
    let resize = |size| {
        tidegate.write_config(&(pool_of(size) + primary));
        tidegate.reload();
    };
    let open = || {
        let pool = write_pool(&tidegate);
        pool["idle"].as_u64().unwrap() + pool["active"].as_u64().unwrap()
    };
    clients.iter_mut().for_each(|client| drop(client.query("BEGIN")));
    clients[..2].iter_mut().for_each(|client| drop(client.query("COMMIT")));
    assert_eq!(open(), 4);
    resize(1);
    wait_until(SOON, "those that are free are closed", || open() == 2);
    // What is in use stays until its transaction ends.
    clients[2..].iter_mut().for_each(|client| drop(client.query("SELECT 1")));
    clients[2].query("COMMIT");
    wait_until(SOON, "one is left", || open() == 1);
    clients[0].send(pipeline().query("SELECT 'now'"));
    wait_until(SOON, "it waits", || write_pool(&tidegate)["waiting"] == 1);
    resize(2);
    assert_eq!(clients[0].expect("T D C ZI")[1].describe(), "D now");
    clients[3].query("COMMIT");
}

#[test]
fn a_server_connection_is_replaced_when_it_is_old() {
    let database = test_database("lifetime");
    let config = pool_of(1) + "lifetime_max = \"500ms\"\n[routing]\nreads = \"primary\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &config);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.query("BEGIN");
    let pid = |client: &mut Client| client.server_pid();
    let first = pid(&mut client);
    assert!(client.is_silent_for(std::time::Duration::from_secs(1)));
    assert_eq!(pid(&mut client), first, "not in a transaction");
    client.query("COMMIT");
    assert_ne!(pid(&mut client), first);
    let second = pid(&mut client);
    wait_until(SOON, "the next one", || pid(&mut client) != second);
}

#[test]
fn a_reload_to_another_server_leaves_the_old_one_as_transactions_end() {
    let (old, new) = (cluster_with("moved"), cluster_with("moved"));
    let config = |cluster: &Cluster| {
        let primary = cluster.primary().url(ROLE, "moved");
        format!("[cluster]\nprimary = \"{primary}\"\n[pool]\nsize_min = 2\nsize_max = 4\n")
    };
    let toml = Some(format!("workers = 2\n{}", config(&old)));
    let tidegate = Tidegate::start(TidegateOptions { toml, ..TidegateOptions::default() });
    let url = tidegate.url(ROLE, "moved");
    let port = |client: &mut Client| client.value("SELECT current_setting('port')").unwrap();
    let ports = [&old, &new].map(|cluster| cluster.primary().psql("SHOW port").unwrap());
    let (mut busy, mut idle) = (Client::connect(&url), Client::connect(&url));
    busy.query("BEGIN");
    assert_eq!([port(&mut busy), port(&mut idle)], [ports[0].clone(), ports[0].clone()]);
    tidegate.write_config(&format!("workers = 2\n{}", config(&new)));
    tidegate.reload();
    wait_until(SOON, "statements go to the new server", || port(&mut idle) == ports[1]);
    assert_eq!(port(&mut busy), ports[0], "a transaction ends where it began");
    busy.query("COMMIT");
    assert_eq!(port(&mut busy), ports[1]);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'moved'";
    wait_until(SOON, "the old server is left", || old.primary().psql(left).unwrap() == "0");
    assert_eq!(Client::connect(&url).value("SHOW port"), Some(ports[1].clone()));
}

#[test]
fn a_configuration_with_an_error_is_refused_and_the_old_one_kept() {
    let database = test_database("reload_wrong");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.query("SELECT 1");
    tidegate.write_config("[pool]\nsize_maxx = 5\n");
    let answer = tidegate.admin_post("/api/v1/reload", "");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.body.contains("size_max"), "names the nearest key: {}", answer.body);
    assert_eq!(size_max(&tidegate), 2);
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
}

/// `work_mem` and the time zone of a new session, as it is told and as the server says.
#[track_caller]
fn defaults(url: &str) -> (String, String) {
    let mut client = Client::connect(url);
    let zone = client.parameters["TimeZone"].clone();
    assert_eq!(client.value("SHOW timezone"), Some(zone.clone()), "told at login and in force");
    (client.value("SHOW work_mem").unwrap(), zone)
}

#[test]
fn trap_85_changed_defaults_of_roles_and_databases_hold_for_the_next_session() {
    let database = test_database("trap_85");
    shared_cluster().create_role("trap_85_other").unwrap();
    let toml = pool_of(2).replace("workers = 1", "workers = 2");
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let (url, other) = (tidegate.url(ROLE, &database), tidegate.url("trap_85_other", &database));
    // One client on each worker, and connections of both users' pools.
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&url)).collect();
    for client in &mut clients {
        assert_eq!(client.value("SHOW work_mem").as_deref(), Some("4MB"));
    }
    let before = defaults(&url);
    let mut kept = Client::connect(&other);
    let pid = kept.server_pid();
    let alter = &mut clients[0];
    // Each holds for the database of this test alone.
    alter.send(
        pipeline().query(&format!("ALTER ROLE {ROLE} IN DATABASE {database} SET work_mem = '5MB'")),
    );
    alter.expect("C ZI");
    assert_eq!(defaults(&url), ("5MB".to_owned(), before.1.clone()));
    let sql = format!("ALTER ROLE CURRENT_USER IN DATABASE {database} SET timezone = 'Asia/Tokyo'");
    alter.send(pipeline().parse("", &sql, &[]).bind("", "", &[]).execute("").sync());
    alter.expect("1 2 C ZI");
    assert_eq!(defaults(&url), ("5MB".to_owned(), "Asia/Tokyo".to_owned()));
    alter.query("BEGIN");
    alter.query(&format!("ALTER ROLE {ROLE} IN DATABASE {database} RESET work_mem"));
    assert_eq!(defaults(&url).0, "5MB", "it is not committed");
    alter.query("COMMIT");
    assert_eq!(defaults(&url).0, "4MB");
    // What concerns others, and what is refused, leaves a pool's connections alone.
    assert_eq!(kept.server_pid(), pid);
    alter.send(pipeline().query("ALTER ROLE trap_85_other SET work_mem = '6MB'"));
    alter.expect("E:42501 ZI");
    assert_eq!(kept.server_pid(), pid);
    alter.query(&format!("ALTER DATABASE {database} SET work_mem = '7MB'"));
    assert_eq!(defaults(&url).0, "7MB");
    assert_eq!(defaults(&other).0, "7MB");
    assert_ne!(kept.server_pid(), pid);
    // A value that a client has set stays its own.
    clients[1].query("SET work_mem = '8MB'");
    clients[0].query(&format!("ALTER DATABASE {database} SET work_mem = '9MB'"));
    assert_eq!(clients[1].value("SHOW work_mem").as_deref(), Some("8MB"));
}

#[test]
fn a_database_that_no_client_is_connected_to_can_be_dropped() {
    let (database, dropped) = (test_database("drops"), test_database("dropped"));
    let toml = pool_of(2).replace("workers = 1", "workers = 2");
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    for _ in 0..4 {
        let mut client = Client::connect(&tidegate.url(ROLE, &dropped));
        assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    }
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.send(pipeline().query(&format!("DROP DATABASE {dropped}")));
    client.expect("C ZI");
}

#[test]
fn a_database_that_no_client_is_connected_to_can_be_copied_and_renamed() {
    let (database, source) = (test_database("copies"), test_database("copied"));
    shared_cluster().create_role("copies_root").unwrap();
    shared_cluster().primary().psql("ALTER ROLE copies_root SUPERUSER").unwrap();
    let toml = pool_of(2).replace("workers = 1", "workers = 2");
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let mut client = Client::connect(&tidegate.url("copies_root", &database));
    let (copy, renamed) = (format!("{source}_copy"), format!("{source}_renamed"));
    for sql in [
        format!("CREATE DATABASE {copy} TEMPLATE {source}"),
        format!("ALTER DATABASE {source} RENAME TO {renamed}"),
    ] {
        // On both workers.
        for _ in 0..4 {
            Client::connect(&tidegate.url(ROLE, &source)).query("SELECT 1");
        }
        client.send(pipeline().query(&sql));
        client.expect("C ZI");
    }
}

#[test]
fn a_drain_lets_transactions_end_and_tells_the_idle() {
    let database = test_database("drain");
    let mut tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let url = tidegate.url(ROLE, &database);
    let (mut busy, mut idle) = (Client::connect(&url), Client::connect(&url));
    busy.query("CREATE TABLE t (a int)");
    idle.query("SELECT 1");
    busy.query("BEGIN");
    busy.query("INSERT INTO t VALUES (1)");
    tidegate.sigterm();
    idle.expect("E:57P01 (end)");
    wait_until(SOON, "it is not healthy", || !tidegate.is_healthy());
    busy.query("INSERT INTO t VALUES (2)");
    busy.send(pipeline().query("COMMIT"));
    busy.expect("C ZI E:57P01 (end)");
    assert_eq!(tidegate.wait(), 0);
    let rows = shared_cluster().primary().psql_in(&database, "SELECT count(*) FROM t");
    assert_eq!(rows.unwrap(), "2");
}

#[test]
fn trap_22_clients_beyond_the_maximum_are_told_before_they_log_in() {
    let database = test_database("too_many");
    let config = pool_of(2) + "[limits]\nclients_max = 2\n";
    let tidegate = tidegate(shared_cluster(), &database, &config);
    let url = tidegate.url(ROLE, &database);
    let (mut one, mut other) = (Client::connect(&url), Client::connect(&url));
    let mut third = Client::open(&tidegate.address());
    third.send(startup(PROTOCOL_3_0, &[("user", "nobody in particular")]));
    let refused = third.expect("E:53300 (end)");
    assert_eq!(refused[0].field(b'S').as_deref(), Some("FATAL"));
    // A cancel request is no client more.
    one.send(pipeline().query("SELECT pg_sleep(60)"));
    wait_until_running(shared_cluster(), &database, "pg_sleep(60)", 1);
    one.cancel();
    one.expect("T E:57014 ZI");
    other.send(pipeline().terminate());
    other.expect("(end)");
    wait_until(SOON, "there is room again", || Client::try_connect(&url, &[]).is_ok());
}

#[test]
fn trap_22_clients_that_come_during_a_drain_are_told_before_they_log_in() {
    let database = test_database("drain_late");
    let mut tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let mut busy = Client::connect(&tidegate.url(ROLE, &database));
    busy.query("BEGIN");
    let mut late = Client::open(&tidegate.address());
    let mut logging_in = Client::open(&tidegate.address());
    logging_in.send(startup(PROTOCOL_3_0, &[("user", ROLE), ("database", &database)]));
    assert_eq!(logging_in.read_message().tag, b'R');
    // So the other one, which came first, is accepted as well.
    tidegate.sigterm();
    wait_until(SOON, "it is not healthy", || !tidegate.is_healthy());
    late.send(startup(PROTOCOL_3_0, &[("user", "nobody in particular")]));
    late.expect("E:57P03 (end)");
    drop(logging_in);
    busy.send(pipeline().query("COMMIT"));
    busy.expect("C ZI E:57P01 (end)");
    assert_eq!(tidegate.wait(), 0);
}

#[test]
fn the_end_of_the_grace_cuts_and_says_so() {
    let database = test_database("grace");
    let config = pool_of(2) + "[limits]\nshutdown_grace = \"200ms\"\n";
    let mut tidegate = tidegate(shared_cluster(), &database, &config);
    let mut busy = Client::connect(&tidegate.url(ROLE, &database));
    busy.query("BEGIN");
    tidegate.sigterm();
    busy.expect("E:57P01 (end)");
    assert_eq!(tidegate.wait(), 4);
}

#[test]
fn a_drain_by_the_admin_api_ends_the_process() {
    let database = test_database("drain_api");
    let mut tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let answer = tidegate.admin_post("/api/v1/drain", "");
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(tidegate.wait(), 0);
}

#[test]
fn the_admin_api_answers_those_with_the_token() {
    let database = test_database("admin");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let mut c =
        Client::connect_with(&tidegate.url(ROLE, &database), &[("application_name", "looked at")]);
    c.query("BEGIN");
    for path in ["/api/v1/pools", "/api/v1/clients", "/api/v1/servers", "/metrics"] {
        let refused = http::request(tidegate.admin_address(), "GET", path, "", "").unwrap();
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(tidegate.admin_get(path).status, 200, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        wait_until(SOON, &format!("{path} says 200"), || {
            let open = http::request(tidegate.admin_address(), "GET", path, "", "");
            open.is_ok_and(|answer| answer.status == 200)
        });
    }
    wait_until(SOON, "the client is shown in its transaction", || {
        client(&tidegate, "looked at").is_some_and(|client| client["state"] == "in_transaction")
    });
    let pid: i64 = c.server_pid().parse().unwrap();
    let servers = json(&tidegate, "/api/v1/servers");
    let servers = servers["servers"].as_array().unwrap();
    let held = servers.iter().find(|server| server["backend_pid"] == pid).unwrap();
    assert_eq!(held["state"], "active");
    assert!(tidegate.admin_get("/metrics").body.contains("tidegate_"));
    assert_eq!(tidegate.admin_get("/api/v1/nothing").status, 404);
}

#[test]
fn a_proxy_without_server_connections_is_ready_as_long_as_the_primary_is_there() {
    let cluster = cluster_with("readiness");
    let tidegate = tidegate(&cluster, "readiness", &pool_of(2));
    let ready = || http::request(tidegate.admin_address(), "GET", "/readyz", "", "").unwrap();
    let pools = json(&tidegate, "/api/v1/pools").to_string();
    assert!(!pools.contains(r#""active":1"#) && !pools.contains(r#""idle":1"#), "{pools}");
    assert_eq!(ready().status, 200, "{:?}", ready());
    cluster.primary().kill();
    wait_until(SOON, "it is not ready", || ready().status == 503);
    assert!(ready().body.contains("primary cannot be reached"), "{:?}", ready());
    cluster.primary().start().unwrap();
    wait_until(SOON, "it is ready again", || ready().status == 200);
}

#[test]
fn clients_come_in_by_a_unix_socket_that_goes_with_the_process() {
    let database = test_database("unix");
    let folder = std::env::temp_dir().join(format!("tidegate-unix-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join(".s.PGSQL.6432");
    let mut options = TidegateOptions::for_cluster(shared_cluster(), &database);
    options.toml = Some(format!("{}[auth]\nmethod = \"trust\"\n", pool_of(2)));
    options.arguments = vec!["--listen".to_owned(), format!("unix:{}", socket.display())];
    let tidegate = Tidegate::start(options);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(&startup(PROTOCOL_3_0, &[("user", ROLE), ("database", &database)])).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"Z\0\0\0\x05I") {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..count]);
    }
    drop(stream);
    assert_eq!(tidegate.terminate(), 0);
    assert!(!socket.exists(), "the socket is removed");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_wrong_configuration_is_exit_code_2_and_a_taken_address_3() {
    let database = test_database("exit_codes");
    let options = TidegateOptions::for_cluster(shared_cluster(), &database);
    let wrong = TidegateOptions { toml: Some("[pol]\n".to_owned()), ..options.clone() };
    let mut wrong = Tidegate::launch(wrong);
    assert_eq!(wrong.wait(), 2);
    assert!(wrong.log().contains("tidegate.toml:1"), "{}", wrong.log());
    let unknown =
        TidegateOptions { arguments: vec!["--no-such-flag".to_owned()], ..options.clone() };
    assert_eq!(Tidegate::launch(unknown).wait(), 2);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut second = options;
    second.arguments = vec!["--listen".to_owned(), address.clone()];
    let mut second = Tidegate::launch(second);
    assert_eq!(second.wait(), 3);
    assert!(second.log().contains(&address), "{}", second.log());
}
