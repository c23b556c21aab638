//! How many clients and server connections one database or one user may have.

use crate::own::{SOON, pool_of, tidegate, wait_for_state};
use std::process::{Child, Stdio};
use std::sync::Once;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::pipeline::startup;
use tidegate_test_support::{Client, pipeline, shared_cluster, test_database, wait_until};

/// Another role that may use every test's database.
fn other() -> &'static str {
    static MADE: Once = Once::new();
    MADE.call_once(|| shared_cluster().create_role("quota_other").unwrap());
    "quota_other"
}

fn quota(of: &str, name: &str, bounds: &str) -> String {
    format!("[[quotas]]\n{of} = \"{name}\"\n{bounds}\n")
}

/// Sessions of the database at the primary that are not Tidegate's own.
fn sessions(database: &str) -> usize {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' \
         AND usename IN ('{ROLE}', '{}') AND application_name NOT LIKE 'tidegate%'",
        other()
    );
    shared_cluster().primary().psql(&sql).unwrap().parse().unwrap()
}

/// What a client is told that may not come in.
#[track_caller]
fn refusal(url: &str) -> (String, String) {
    let refused = Client::try_connect(url, &[]).err().unwrap();
    (refused.sqlstate(), refused.field(b'M').unwrap())
}

#[test]
fn a_user_and_a_database_have_a_number_of_clients_each_and_a_reload_changes_it() {
    let database = test_database("quota_clients");
    let toml = pool_of(2)
        + &quota("user", ROLE, "clients_max = 1")
        + &quota("database", &database, "clients_max = 2");
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let [mine, others] = [ROLE, other()].map(|user| tidegate.url(user, &database));
    let mut one = Client::connect(&mine);
    assert_eq!(
        refusal(&mine),
        ("53300".into(), format!("too many connections for role \"{ROLE}\""))
    );
    let _two = Client::connect(&others);
    let told = format!("too many connections for database \"{database}\"");
    assert_eq!(refusal(&others), ("53300".into(), told));
    // Who has not proven who they are learns nothing.
    let wrong = mine.replacen(":", ":wrong", 2).replacen("postgres:wrong//", "postgres://", 1);
    assert_eq!(refusal(&wrong).0, "28P01");
    let mut silent = Client::open(&tidegate.address());
    silent.send(startup(196_608, &[("user", ROLE), ("database", &database)]));
    assert_eq!(silent.read_message().tag, b'R', "asked for a password like anybody");
    one.send(pipeline().terminate());
    one.expect("(end)");
    wait_until(SOON, "there is room again", || Client::try_connect(&mine, &[]).is_ok());
    let more = pool_of(2) + &quota("user", "*", "clients_max = 3");
    tidegate.write_config(&more);
    tidegate.reload();
    let kept: Vec<Client> = (0..3).map(|_| Client::connect(&mine)).collect();
    assert_eq!(refusal(&mine).0, "53300");
    drop(kept);
}

#[test]
fn a_pool_makes_place_for_another_of_the_same_database_and_a_reload_changes_how_many_there_are() {
    let database = test_database("quota_servers");
    let routing = "[routing]\nreads = \"primary\"\n";
    let bounded = |most: usize| {
        let bounds = format!("servers_max = {most}");
        pool_of(5) + routing + &quota("database", &database, &bounds)
    };
    let tidegate = tidegate(shared_cluster(), &database, &bounded(2));
    let [mine, others] = [ROLE, other()].map(|user| tidegate.url(user, &database));
    let mut held: Vec<Client> = (0..2).map(|_| Client::connect(&mine)).collect();
    let mut waits = Client::connect(&others);
    assert_eq!(waits.value("SELECT 1").as_deref(), Some("1"), "an idle one makes room");
    for client in &mut held {
        client.query("BEGIN");
    }
    assert_eq!(sessions(&database), 2);
    waits.send(pipeline().query("SELECT 'at last'"));
    wait_for_state(&tidegate, "waiting");
    held[0].query("COMMIT");
    assert_eq!(waits.expect("T D C ZI")[1].describe(), "D at last");
    assert_eq!(sessions(&database), 2);
    tidegate.write_config(&bounded(1));
    tidegate.reload();
    wait_until(SOON, "the idle one is closed", || sessions(&database) == 1);
    held[1].query("COMMIT");
    tidegate.write_config(&bounded(4));
    tidegate.reload();
    for client in held.iter_mut().chain([&mut waits]) {
        client.query("BEGIN");
    }
    assert_eq!(sessions(&database), 3);
}

#[test]
fn two_users_that_never_rest_share_the_connections_of_a_database() {
    const EACH: usize = 100;
    let database = test_database("quota_shared");
    let toml = "workers = 2\n[pool]\nsize_min = 0\nsize_max = 5\n[routing]\nreads = \"primary\"\n";
    let toml = toml.to_owned() + &quota("database", "*", "servers_max = 2");
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let primary = shared_cluster().primary();
    let table = "CREATE TABLE t (a text); GRANT ALL ON t TO PUBLIC";
    Client::connect(&tidegate.url(ROLE, &database)).query(table);
    let script = std::env::temp_dir().join(format!("{database}-{}.sql", std::process::id()));
    std::fs::write(&script, "INSERT INTO t VALUES (current_user);\n").unwrap();
    let start = |user: &str| -> Child {
        let mut command = primary.client("pgbench");
        command.args(["-n", "-c", "4", "-j", "4", "-t", &EACH.to_string(), "-f"]).arg(&script);
        command.arg(tidegate.url(user, &database)).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut running = [start(ROLE), start(other())];
    let mut most = 0;
    wait_until(SOON, "both end", || {
        most = most.max(sessions(&database));
        running.iter_mut().all(|child| child.try_wait().unwrap().is_some())
    });
    std::fs::remove_file(&script).unwrap();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // A connection that is closed is seen until its process has ended: of each of the two, and of its successor.
    assert!((1..=4).contains(&most), "{most} at once");
    let rows = primary.psql_in(&database, "SELECT count(*) FROM t").unwrap();
    assert_eq!(rows, (2 * 4 * EACH).to_string());
}
