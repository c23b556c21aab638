//! Replication connections: PostgreSQL's own programs take backups and read the log through Tidegate.

use crate::own::{Folder, SOON, cluster_with, pool_of, tidegate};
use std::process::{Child, Command, Stdio};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::pipeline::pipeline;
use tidegate_test_support::{
    Client, Cluster, Tidegate, TidegateOptions, password_of, shared_cluster, test_database,
    wait_until,
};

/// A role that may replicate.
fn replicator(cluster: &Cluster, name: &str) {
    cluster.create_role(name).unwrap();
    cluster.primary().psql(&format!("ALTER ROLE {name} REPLICATION")).unwrap();
}

/// One of PostgreSQL's programs, as this user of Tidegate.
fn program(tidegate: &Tidegate, name: &str, user: &str, arguments: &[&str]) -> Command {
    let mut program = shared_cluster().installation().client(name);
    let port = tidegate.address().rsplit_once(':').unwrap().1.to_owned();
    program.env("PGPASSWORD", password_of(user));
    program.args(["-h", "127.0.0.1", "-p", &port, "-U", user, "--no-password"]).args(arguments);
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

#[track_caller]
fn succeed(mut program: Command) -> String {
    let output = program.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// How many clients the admin API shows that replicate.
fn replicating(tidegate: &Tidegate) -> Vec<serde_json::Value> {
    let list = crate::own::json(tidegate, "/api/v1/clients");
    let mut all = list["clients"].as_array().cloned().unwrap_or_default();
    all.retain(|client| client["state"] == "replicating");
    all
}

/// What a program that goes on until it is stopped does with a log.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pg_basebackup_takes_a_whole_backup_through() {
    replicator(shared_cluster(), "repl_backup");
    let database = test_database("backup");
    shared_cluster()
        .primary()
        .psql_in(
            &database,
            "CREATE TABLE t AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n",
        )
        .unwrap();
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    let folder = Folder::new();
    let into = folder.file("backup");
    let into = into.to_str().unwrap();
    let arguments = ["-D", into, "--wal-method=stream", "--checkpoint=fast", "--no-sync"];
    succeed(program(&tidegate, "pg_basebackup", "repl_backup", &arguments));
    let mut verify = shared_cluster().installation().client("pg_verifybackup");
    verify.arg(into);
    assert!(succeed(verify).contains("backup successfully verified"));
    assert!(replicating(&tidegate).is_empty());
    // Its connections are none of the pool's.
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    assert_eq!(
        client.value("SELECT count(*) FROM pg_stat_replication WHERE usename = 'repl_backup'"),
        Some("0".to_owned())
    );
}

#[test]
fn trap_70_pg_recvlogical_reads_changes_as_they_are_made() {
    replicator(shared_cluster(), "repl_logical");
    let database = test_database("logical");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let logical = |arguments: &[&str]| {
        let arguments = [&["-d", &database, "--slot", "repl_logical"], arguments].concat();
        program(&tidegate, "pg_recvlogical", "repl_logical", &arguments)
    };
    succeed(logical(&["--create-slot", "--plugin", "test_decoding"]));
    let folder = Folder::new();
    let file = folder.file("changes");
    let mut reader = logical(&["--start", "--status-interval", "1", "-f", file.to_str().unwrap()]);
    let mut running = Running(reader.spawn().unwrap());
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.query("CREATE TABLE t (n int); INSERT INTO t VALUES (4711)");
    let seen = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until(SOON, "the change is read", || seen().contains("INSERT: n[integer]:4711"));
    let shown = replicating(&tidegate);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["user"], "repl_logical");
    assert_eq!(shown[0]["database"], database);
    assert_eq!(shown[0]["application"], "pg_recvlogical");
    // It stops of its own accord, having told the server.
    succeed({
        let mut kill = Command::new("kill");
        kill.args(["-INT", &running.0.id().to_string()]);
        kill
    });
    wait_until(SOON, "it ends", || running.0.try_wait().unwrap().is_some());
    wait_until(SOON, "its server connection ends", || {
        let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'repl_logical'";
        shared_cluster().primary().psql(active).unwrap() == "f"
    });
    assert!(replicating(&tidegate).is_empty());
    succeed(logical(&["--drop-slot"]));
}

#[test]
fn trap_15_a_replication_connection_speaks_for_itself_and_a_cancel_finds_it() {
    replicator(shared_cluster(), "repl_raw");
    let database = test_database("repl_raw");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    let url = tidegate.url("repl_raw", &database);
    let own =
        [("replication", "database"), ("application_name", "raw"), ("options", "-c work_mem=1MB")];
    let mut client = Client::connect_with(&url, &own);
    assert_eq!(client.parameters["application_name"], "raw");
    let answer = client.query("IDENTIFY_SYSTEM");
    assert_eq!(answer[1].row()[3].as_deref(), Some(database.as_str()));
    assert_eq!(client.value("SHOW work_mem").as_deref(), Some("1MB"));
    // Its process is the server's: by that clients find themselves in pg_stat_replication.
    let shown =
        format!("SELECT application_name FROM pg_stat_activity WHERE pid = {}", client.told_pid());
    assert_eq!(shared_cluster().primary().psql(&shown).unwrap(), "raw");
    // Beside it the one connection of the pool serves others.
    let mut other = Client::connect(&tidegate.url(ROLE, &database));
    assert_eq!(other.value("SELECT 1").as_deref(), Some("1"));
    client.send(pipeline().query("SELECT pg_sleep(60)"));
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND usename = 'repl_raw'";
    wait_until(SOON, "it sleeps", || shared_cluster().primary().psql(running).unwrap() == "1");
    client.cancel();
    client.expect("T E:57014 ZI");
    // Whoever may not replicate hears it from the server.
    let refused = Client::try_connect(&tidegate.url(ROLE, &database), &[("replication", "true")]);
    assert_eq!(refused.unwrap_err().sqlstate(), "42501");
}

#[test]
fn a_client_that_goes_takes_its_server_connection_along_and_the_other_way() {
    replicator(shared_cluster(), "repl_gone");
    let database = test_database("repl_gone");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    let url = tidegate.url("repl_gone", &database);
    let senders = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'repl_gone' AND backend_type = 'walsender'";
    let count = |wanted: &str| shared_cluster().primary().psql(senders).unwrap() == wanted;
    let mut client = Client::connect_with(&url, &[("replication", "true")]);
    client.query("IDENTIFY_SYSTEM");
    assert!(count("1"));
    drop(client);
    wait_until(SOON, "the server connection ends", || count("0"));
    let mut client = Client::connect_with(&url, &[("replication", "true")]);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'repl_gone'";
    shared_cluster().primary().psql(end).unwrap();
    client.expect("E:57P01 (end)");
    wait_until(SOON, "the client is forgotten", || replicating(&tidegate).is_empty());
}

#[test]
fn a_drain_leaves_replication_be_until_its_deadline() {
    let cluster = cluster_with("repl_drain");
    replicator(&cluster, "repl_drain");
    let toml = pool_of(1) + "[limits]\nshutdown_grace = \"3s\"\n";
    for outlasts in [false, true] {
        let mut tidegate = Tidegate::start(TidegateOptions {
            toml: Some(toml.clone()),
            ..TidegateOptions::for_cluster(&cluster, "repl_drain")
        });
        let url = tidegate.url("repl_drain", "repl_drain");
        let mut client = Client::connect_with(&url, &[("replication", "database")]);
        let mut idle = Client::connect(&tidegate.url(ROLE, "repl_drain"));
        tidegate.sigterm();
        idle.expect("E:57P01 (end)");
        client.send(pipeline().query("SELECT 'still here'"));
        assert_eq!(client.expect("T D C ZI")[1].row(), [Some("still here".to_owned())]);
        if outlasts {
            client.expect("(end)");
        } else {
            drop(client);
        }
        let code = tidegate.wait();
        assert_eq!(code == 0, !outlasts, "{code}");
    }
}
