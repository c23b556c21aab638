//! Servers that die, clients that vanish, pools that are full, cancels that must hit the right one.

use crate::own::{
    SOON, behind_relay, cluster_with, pool_of, tidegate, wait_for_state, wait_until_running,
};
use std::io::Read;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Passing, Tidegate, TidegateOptions, password_of, pipeline,
    shared_cluster, test_database, wait_until,
};

/// Cancel requests to servers that one worker has under way at once (`data/worker.rs`).
const CANCELS_AT_ONCE_MAX: usize = 16;

/// Waits until no session of the database is in a transaction, runs a statement, or holds an advisory lock.
#[track_caller]
fn wait_until_clean(cluster: &Cluster, database: &str) {
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state <> 'idle') \
         + (SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
            WHERE locktype = 'advisory' AND datname = '{database}')"
    );
    wait_until(SOON, "no session holds anything", || cluster.primary().psql(&sql).unwrap() == "0");
}

/// The next connection that works; errors until then are about the server's absence.
#[track_caller]
fn connect_again(url: &str) -> Client {
    let mut client = None;
    wait_until(SOON, "a connection works again", || {
        match Client::try_connect(url, &[]) {
            Ok(connected) => client = Some(connected),
            Err(error) => {
                let code = error.sqlstate();
                assert!(code.starts_with("08") || code.starts_with("57P"), "{error:?}");
            }
        }
        client.as_mut().is_some_and(|client| {
            let answer = client.query("SELECT 1");
            answer[0].tag == b'T'
        })
    });
    client.unwrap()
}

#[test]
fn trap_31_a_server_killed_in_mid_query_is_one_error_and_the_next_connection_works() {
    let cluster = cluster_with("killed");
    let tidegate = tidegate(&cluster, "killed", &pool_of(3));
    let url = tidegate.url(ROLE, "killed");
    let mut client = Client::connect(&url);
    client.send(pipeline().query("SELECT pg_sleep(60)"));
    wait_until_running(&cluster, "killed", "pg_sleep(60)", 1);
    cluster.primary().kill();
    let mut last = client.read_message();
    if last.tag == b'T' {
        last = client.read_message();
    }
    assert_eq!(last.tag, b'E', "{last:?}");
    assert!(["08007", "57P01", "57P02"].contains(&last.sqlstate().as_str()), "{last:?}");
    // Where the server has said nothing itself, the session goes on.
    match last.field(b'S').as_deref() {
        Some("FATAL") => assert!(client.read_message_or_end().is_none()),
        _ => assert_eq!(client.read_message().describe(), "Z I"),
    }
    cluster.primary().start().unwrap();
    assert_eq!(connect_again(&url).value("SELECT 2").as_deref(), Some("2"));
}

#[test]
fn idle_clients_survive_a_restart_of_the_server() {
    let cluster = cluster_with("restarted");
    let tidegate = tidegate(&cluster, "restarted", &pool_of(3));
    let url = tidegate.url(ROLE, "restarted");
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(&url)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.query(&format!("SET app.me = '{number}'"));
        client.send(pipeline().parse("s", "SELECT current_setting('app.me')", &[]).sync());
        client.expect("1 ZI");
    }
    cluster.primary().restart().unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(pipeline().bind("", "s", &[]).execute("").sync());
        let rows = client.expect("2 D C ZI");
        assert_eq!(rows[1].describe(), format!("D {number}"));
    }
}

/// A row in a transaction that is not committed, on a client of its own.
fn in_transaction(url: &str) -> Client {
    let mut client = Client::connect(url);
    client.query("BEGIN");
    client.query("INSERT INTO t VALUES (1)");
    client
}

#[test]
fn a_restart_ends_transactions_in_the_servers_words_and_spares_the_rest() {
    let cluster = cluster_with("restart_tx");
    let tidegate = tidegate(&cluster, "restart_tx", &pool_of(4));
    let url = tidegate.url(ROLE, "restart_tx");
    let mut outside = Client::connect(&url);
    outside.query("CREATE TABLE t (a int)");
    outside.query("SET app.me = 'outside'");
    let mut idle = in_transaction(&url);
    let mut busy = in_transaction(&url);
    busy.send(pipeline().query("SELECT pg_sleep(60)"));
    wait_until_running(&cluster, "restart_tx", "pg_sleep(60)", 1);
    let mut failed = in_transaction(&url);
    failed.query("SELECT 1/0");
    cluster.primary().stop();
    for (client, tags) in [
        (&mut idle, "E:57P01 (end)"),
        (&mut failed, "E:57P01 (end)"),
        (&mut busy, "T E:57P01 (end)"),
    ] {
        let messages = client.expect(tags);
        let error = messages.last().unwrap();
        assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    }
    // While there is no server, a statement fails and says what to do; its session stays.
    outside.send(pipeline().query("SELECT 1"));
    let error = &outside.expect("E:08006 ZI")[0];
    assert_eq!(error.field(b'S').as_deref(), Some("ERROR"), "{}", error.describe());
    assert!(error.field(b'H').is_some(), "{}", error.describe());
    cluster.primary().start().unwrap();
    wait_until(SOON, "the session works again", || {
        outside.send(pipeline().query("SELECT current_setting('app.me')"));
        let answer = outside.read_until_ready();
        let is_row = answer.len() == 4 && answer[1].describe() == "D outside";
        assert!(is_row || answer[0].sqlstate().starts_with("08"), "{answer:?}");
        is_row
    });
    assert_eq!(connect_again(&url).value("SELECT count(*) FROM t").as_deref(), Some("0"));
}

#[test]
fn a_crash_rolls_transactions_back_and_says_so() {
    let cluster = cluster_with("crash_tx");
    let tidegate = tidegate(&cluster, "crash_tx", &pool_of(4));
    let url = tidegate.url(ROLE, "crash_tx");
    Client::connect(&url).query("CREATE TABLE t (a int)");
    let mut idle = in_transaction(&url);
    cluster.primary().kill();
    wait_until(SOON, "the loss is seen", || {
        let metrics = tidegate.admin_get("/metrics").body;
        metrics.lines().any(|line| line.contains("kind=\"server_lost\"") && !line.ends_with(" 0"))
    });
    // It asks for nothing now; what it asks for next fails, and what retry loops know says why.
    idle.send(pipeline().query("COMMIT"));
    let error = &idle.expect("E:40001 ZE")[0];
    assert!(error.field(b'M').unwrap().contains("rolled back"), "{}", error.describe());
    assert!(error.field(b'H').unwrap().contains("Repeat"), "{}", error.describe());
    cluster.primary().start().unwrap();
    assert_eq!(idle.query("ROLLBACK")[0].describe(), "C ROLLBACK");
    assert_eq!(connect_again(&url).value("SELECT count(*) FROM t").as_deref(), Some("0"));
}

#[test]
fn a_server_connection_terminated_by_an_operator_is_57p01_once() {
    let database = test_database("terminated");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let url = tidegate.url(ROLE, &database);
    let mut client = Client::connect(&url);
    client.query("BEGIN");
    let pid = client.server_pid();
    shared_cluster().primary().psql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let error = client.read_message();
    assert_eq!((error.tag, error.sqlstate().as_str()), (b'E', "57P01"));
    assert!(client.read_message_or_end().is_none());
    // An idle one is replaced without anybody noticing.
    let mut client = Client::connect(&url);
    let pid = client.server_pid();
    shared_cluster().primary().psql(&format!("SELECT pg_terminate_backend({pid}, 5000)")).unwrap();
    assert_ne!(client.server_pid(), pid);
}

#[test]
fn a_wrong_password_at_the_server_is_said_once_and_clearly() {
    let cluster = cluster_with("password");
    let tidegate = tidegate(&cluster, "password", &pool_of(2));
    let url = tidegate.url(ROLE, "password");
    Client::connect(&url).query("SELECT 1");
    let wrong = url.replace("app-password", "wrong");
    let error = Client::try_connect(&wrong, &[]).unwrap_err();
    assert_eq!(error.sqlstate(), "28P01");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    // Those who know it are served as before.
    assert_eq!(Client::connect(&url).value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn a_full_pool_says_what_was_waited_for_how_long_and_how_many_wait() {
    let database = test_database("full");
    let config = pool_of(1) + "wait_max = \"300ms\"\n[routing]\nreads = \"primary\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &config);
    let url = tidegate.url(ROLE, &database);
    let (mut holder, mut waiter) = (Client::connect(&url), Client::connect(&url));
    holder.query("BEGIN");
    waiter.send(pipeline().query("SELECT 1"));
    let error = &waiter.expect("E:53300 ZI")[0];
    let detail = error.field(b'D').unwrap();
    for part in ["Waited 0.", "write pool", ROLE, &database, "1 of at most 1", "0 other"] {
        assert!(detail.contains(part), "{part:?} is not in {detail}");
    }
    assert!(error.field(b'H').is_some());
    // The extended protocol fails as a batch, and the same connection works when there is room.
    waiter.send(pipeline().parse("s", "SELECT 1", &[]).bind("", "s", &[]).execute("").sync());
    waiter.expect("E:53300 ZI");
    holder.query("COMMIT");
    assert_eq!(waiter.value("SELECT 1").as_deref(), Some("1"));
}

/// A server with five connections for all, and twelve users with a database each.
fn crowd(prefix: &str) -> (Cluster, Vec<String>) {
    // Three of the eight are for superusers.
    let conf = ["max_connections = 8", "superuser_reserved_connections = 3"];
    let options = ClusterOptions {
        replicas: 0,
        conf: conf.map(str::to_owned).to_vec(),
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(&options).unwrap();
    let names: Vec<String> = (0..12).map(|number| format!("{prefix}_{number}")).collect();
    for name in &names {
        cluster.create_role(name).unwrap();
        cluster.create_database(name, name).unwrap();
    }
    (cluster, names)
}

#[test]
fn many_users_log_in_by_a_server_with_few_connections() {
    // Passwords are tried at the server.
    let (cluster, names) = crowd("guest");
    let options = TidegateOptions {
        primary: cluster.primary().url(&names[0], &names[0]),
        toml: Some("workers = 2\n[pool]\nsize_min = 0\nsize_max = 3\n".to_owned()),
        ..TidegateOptions::default()
    };
    let tidegate = Tidegate::start(options);
    let mut clients = Vec::new();
    for name in &names {
        let mut client = Client::connect(&tidegate.url(name, name));
        assert_eq!(client.value("SELECT current_user").as_ref(), Some(name));
        clients.push(client);
    }
}

#[test]
fn many_users_and_databases_share_a_server_with_few_connections() {
    let (cluster, names) = crowd("crowd");
    let users: String =
        names.iter().map(|name| format!("\"{name}\" \"{}\"\n", password_of(name))).collect();
    let file = std::env::temp_dir().join(format!("tidegate-crowd-{}", std::process::id()));
    std::fs::write(&file, users).unwrap();
    let toml = format!(
        "workers = 2\n[pool]\nsize_min = 0\nsize_max = 3\n\
         [auth]\nmethod = \"scram-sha-256\"\nusers_file = \"{}\"\n",
        file.display()
    );
    let options = TidegateOptions {
        primary: cluster.primary().url(&names[0], &names[0]),
        toml: Some(toml),
        ..TidegateOptions::default()
    };
    let tidegate = Tidegate::start(options);
    let mut clients: Vec<Client> =
        names.iter().map(|name| Client::connect(&tidegate.url(name, name))).collect();
    for _ in 0..3 {
        for (client, name) in clients.iter_mut().zip(&names) {
            assert_eq!(client.value("SELECT current_user").as_ref(), Some(name));
        }
    }
    // What is in use makes no room: then the server's own words are the answer.
    for client in &mut clients[..5] {
        client.query("BEGIN");
        client.query("SELECT 1");
    }
    clients[5].send(pipeline().query("SELECT 1"));
    clients[5].expect("E:53300 ZI");
    clients[0].query("COMMIT");
    assert_eq!(clients[5].value("SELECT 1").as_deref(), Some("1"));
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_client_that_vanishes_leaves_no_lock_and_no_transaction() {
    let database = test_database("vanish");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    let url = tidegate.url(ROLE, &database);
    Client::connect(&url).query("CREATE TABLE t (a int PRIMARY KEY)");
    type Ending = fn(&mut Client);
    let endings: [Ending; 7] = [
        |_| {},
        |c| c.send(pipeline().query("SELECT pg_sleep(60)")),
        |c| c.send(&pipeline().query("SELECT pg_sleep(60)").bytes()[..9]),
        |c| c.send(pipeline().query("COPY t FROM STDIN").copy_data(b"5\n")),
        |c| c.send(&pipeline().query("COPY t FROM STDIN").copy_data(b"1234567\n").bytes()[..35]),
        |c| c.send(pipeline().query("COPY (SELECT generate_series(1, 3000000)) TO STDOUT")),
        |c| {
            c.send(pipeline().parse("s", "SELECT pg_sleep(60)", &[]).bind("", "s", &[]).execute(""))
        },
    ];
    for (number, ending) in endings.iter().enumerate() {
        for in_transaction in [true, false] {
            let mut client = Client::connect(&url);
            if in_transaction {
                client.query("BEGIN");
                client.query("INSERT INTO t VALUES (1)");
                client.query("SELECT pg_advisory_lock(1)");
            }
            ending(&mut client);
            drop(client);
            let mut next = Client::connect(&url);
            next.send(pipeline().query("INSERT INTO t VALUES (1)").query("DELETE FROM t"));
            let answer = [next.read_until_ready(), next.read_until_ready()].concat();
            assert!(answer.iter().all(|m| m.tag != b'E'), "after ending {number}: {answer:?}");
            next.send(pipeline().terminate());
        }
    }
    wait_until_clean(shared_cluster(), &database);
}

#[test]
fn trap_74_a_cancel_of_a_queued_statement_takes_it_out_of_the_queue() {
    let database = test_database("cancel_queued");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    let url = tidegate.url(ROLE, &database);
    let (mut holder, mut queued) = (Client::connect(&url), Client::connect(&url));
    holder.query("BEGIN");
    queued.send(pipeline().query("CREATE TABLE never ()"));
    wait_for_state(&tidegate, "waiting");
    queued.cancel();
    queued.expect("E:57014 ZI");
    holder.query("COMMIT");
    assert_eq!(queued.value("SELECT to_regclass('never') IS NULL").as_deref(), Some("t"));
}

#[test]
fn a_late_cancel_does_not_hit_the_next_client_of_the_connection() {
    let database = test_database("cancel_late");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    let url = tidegate.url(ROLE, &database);
    let (mut one, mut other) = (Client::connect(&url), Client::connect(&url));
    let pid = one.server_pid();
    assert_eq!(other.server_pid(), pid, "they share a connection");
    for _ in 0..30 {
        // The cancel races with the end of the first client's statement; the second's must never feel it.
        one.send(pipeline().query("SELECT pg_sleep(0.002)"));
        let key = std::thread::scope(|scope| {
            let canceller = scope.spawn(|| one.cancel());
            other.send(pipeline().query("SELECT pg_sleep(0.02)"));
            other.expect("T D C ZI");
            canceller.join()
        });
        key.unwrap();
        let answer = one.read_until_ready();
        let error = answer.iter().find(|message| message.tag == b'E');
        assert!(error.is_none_or(|error| error.sqlstate() == "57014"), "{answer:?}");
    }
}

#[test]
fn trap_79_a_storm_of_cancels_reaches_the_server_a_few_at_a_time() {
    const STORM: usize = 3 * CANCELS_AT_ONCE_MAX;
    let database = test_database("trap_79");
    let (tidegate, relay) = behind_relay(&database, &pool_of(STORM + 1));
    let url = tidegate.url(ROLE, &database);
    let mut clients: Vec<Client> = (0..STORM).map(|_| Client::connect(&url)).collect();
    for client in &mut clients {
        client.send(pipeline().query("SELECT pg_sleep(60)"));
    }
    wait_until_running(shared_cluster(), &database, "pg_sleep(60)", STORM);
    relay.hold_cancels();
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| client.cancel());
        }
        wait_until(SOON, "the first cancels are under way", || {
            relay.cancels_held() == CANCELS_AT_ONCE_MAX
        });
        // Others are served meanwhile, and no further cancel comes.
        assert_eq!(Client::connect(&url).value("SELECT 1").as_deref(), Some("1"));
        assert_eq!(relay.cancels_held(), CANCELS_AT_ONCE_MAX);
        relay.release_cancels();
    });
    for client in &mut clients {
        client.expect("T E:57014 ZI");
        assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    }
}

/// What the network does to the acknowledgement, or to the statement itself.
#[test]
fn trap_95_a_commit_without_an_answer_is_in_doubt_and_never_repeated() {
    let database = test_database("trap_95");
    let primary = shared_cluster().primary();
    primary.psql_in(&database, "CREATE TABLE t (a int); GRANT ALL ON t TO app").unwrap();
    let commit = pipeline().query("COMMIT");
    let extended = pipeline().parse("", "COMMIT", &[]).bind("", "", &[]).execute("").sync();
    let alone = pipeline().query("INSERT INTO t VALUES (1)");
    for (begins, last) in [(true, &commit), (true, &extended), (false, &alone)] {
        for (passing, rows) in [(Passing::RepliesLost, "1"), (Passing::RequestsLost, "0")] {
            primary.psql_in(&database, "TRUNCATE t").unwrap();
            let (tidegate, relay) = behind_relay(&database, &pool_of(2));
            let mut client = Client::connect(&tidegate.url(ROLE, &database));
            client.query("SELECT 1");
            if begins {
                client.query("BEGIN");
                client.query("INSERT INTO t VALUES (1)");
            }
            relay.set_passing(passing);
            client.send(last);
            wait_until(SOON, "the network has lost something", || relay.lost() > 0);
            relay.set_passing(Passing::On);
            relay.cut();
            let error = &client.expect("E:08007 ZI")[0];
            assert_eq!(error.field(b'S').as_deref(), Some("ERROR"));
            let detail = error.field(b'D').unwrap();
            assert!(detail.contains("is not known"), "{detail}");
            wait_until_clean(shared_cluster(), &database);
            assert_eq!(primary.psql_in(&database, "SELECT count(*) FROM t").unwrap(), rows);
            // The next one is none the wiser, and works.
            let mut next = Client::connect(&tidegate.url(ROLE, &database));
            assert_eq!(next.value("SELECT count(*) FROM t").as_deref(), Some(rows));
        }
    }
}

#[test]
fn a_transaction_whose_commit_was_not_asked_for_is_said_to_be_rolled_back() {
    let database = test_database("lost_open");
    let (tidegate, relay) = behind_relay(&database, &pool_of(1));
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.query("BEGIN");
    client.query("SELECT pg_advisory_xact_lock(1)");
    // Whatever is under way, but for its COMMIT.
    client.send(pipeline().query("SELECT pg_sleep(60)").query("ROLLBACK"));
    wait_until_running(shared_cluster(), &database, "pg_sleep(60)", 1);
    relay.cut();
    let error = &client.expect("E:08006 (end)")[0];
    assert!(error.field(b'D').unwrap().contains("rolled back"), "{}", error.describe());
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ";
    shared_cluster().primary().psql(&format!("{end}'{database}'")).unwrap();
}

#[test]
fn a_server_lost_in_the_middle_of_a_row_is_no_message_inside_the_row() {
    let database = test_database("lost_in_row");
    let (tidegate, relay) = behind_relay(&database, &pool_of(1));
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.keep_unread_bytes(64 << 10);
    client.send(pipeline().query("SELECT repeat('x', 30000000)"));
    client.expect("T");
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'ClientWrite'"
    );
    wait_until(SOON, "the row is under way", || {
        shared_cluster().primary().psql(&blocked).unwrap() == "1"
    });
    relay.cut();
    let mut row = Vec::new();
    client.stream().read_to_end(&mut row).unwrap();
    assert!(row.iter().skip(11).all(|byte| *byte == b'x'), "something else is in the row");
}
