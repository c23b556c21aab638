//! Clients that listen, through what operators do: pauses, reconnects, drains, hand-overs, logins by SCRAM; and what is
//! told of the connections that listen for them.

use crate::own::{Folder, SOON, json, pool_of, tidegate, write_pool};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database, wait_until,
};

/// The processes of Tidegate's own connections that listen in this database.
fn listeners(database: &str) -> String {
    let sql = format!(
        "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity \
         WHERE datname = '{database}' AND application_name = 'tidegate listener'"
    );
    shared_cluster().primary().psql(&sql).unwrap()
}

/// Notifies past Tidegate.
fn notify(database: &str, payload: &str) {
    shared_cluster().primary().psql_in(database, &format!("NOTIFY news, '{payload}'")).unwrap();
}

#[track_caller]
fn hears(client: &mut Client, payload: &str) {
    assert_eq!(client.read_message().describe(), format!("A news \"{payload}\""));
}

fn started(name: &str) -> (Tidegate, String, String) {
    let database = test_database(name);
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(2));
    let url = tidegate.url(ROLE, &database);
    (tidegate, url, database)
}

#[test]
fn who_listens_hears_during_a_pause_and_after_a_reconnect_by_the_same_connection() {
    let (tidegate, url, database) = started("listen_paused");
    let [mut client, mut held] = [(); 2].map(|()| Client::connect(&url));
    client.query("LISTEN news");
    let before = listeners(&database);
    let (code, told) = tidegate.command(&["pause", &database]);
    assert_eq!(code, 0, "{told}");
    notify(&database, "paused");
    hears(&mut client, "paused");
    // What would begin waits, LISTEN and NOTIFY as all else.
    held.send(pipeline().query("LISTEN news"));
    client.send(pipeline().query("NOTIFY news, 'held'"));
    wait_until(SOON, "both wait", || write_pool(&tidegate)["waiting"] == 2);
    assert_eq!(tidegate.command(&["resume", &database]).0, 0);
    assert_eq!(held.read_message().text(), "LISTEN");
    client.expect("C A ZI");
    held.read_until_ready();
    notify(&database, "resumed");
    hears(&mut client, "resumed");
    assert_eq!(tidegate.command(&["reconnect", &database]).0, 0);
    wait_until(SOON, "all are replaced", || write_pool(&tidegate)["stale"] == 0);
    client.query("SELECT 1");
    notify(&database, "reconnected");
    hears(&mut client, "reconnected");
    assert_eq!(listeners(&database), before);
}

#[test]
fn a_drain_ends_who_listens_between_transactions_and_lets_others_hear_first() {
    let (mut tidegate, url, database) = started("listen_drained");
    let [mut idle, mut busy] = [(); 2].map(|()| Client::connect(&url));
    idle.query("LISTEN news");
    busy.query("LISTEN news");
    busy.query("BEGIN");
    tidegate.sigterm();
    idle.expect("E:57P01 (end)");
    notify(&database, "meanwhile");
    busy.query("NOTIFY news, 'own'");
    busy.send(pipeline().query("COMMIT"));
    let answer = busy.expect("C A A ZI E:57P01 (end)");
    assert_eq!(answer[1].describe(), "A news \"meanwhile\"");
    assert_eq!(answer[2].describe(), "A news \"own\"");
    assert_eq!(tidegate.wait(), 0);
    wait_until(SOON, "nobody listens", || listeners(&database).is_empty());
}

#[test]
fn who_listens_hears_on_through_a_hand_over() {
    let (database, folder) = (test_database("listen_handed"), Folder::new());
    let toml =
        format!("{}[handover]\ndir = \"{}\"\n", pool_of(2), folder.file("sockets").display());
    let options = TidegateOptions {
        toml: Some(toml),
        ..TidegateOptions::for_cluster(shared_cluster(), &database)
    };
    let mut before = Tidegate::start(options.clone());
    let url = before.url(ROLE, &database);
    let mut old = Client::connect(&url);
    old.query("LISTEN news");
    let after = before.start_successor(options);
    let mut new = Client::connect(&url);
    new.query("LISTEN news");
    assert_eq!(write_pool(&after)["listening"], 1, "the other has its own");
    for (sender, payload) in [(0, "by the old"), (1, "by the new")] {
        let [sender, other] = if sender == 0 { [&mut old, &mut new] } else { [&mut new, &mut old] };
        sender.send(pipeline().query(&format!("NOTIFY news, '{payload}'")));
        sender.expect("C A ZI");
        hears(other, payload);
    }
    // It can still change what it listens to.
    old.query("UNLISTEN *");
    old.query("LISTEN other");
    new.query("NOTIFY news, 'unheard'");
    new.query("NOTIFY other, 'heard'");
    assert_eq!(old.read_message().describe(), "A other \"heard\"");
    old.send(pipeline().terminate());
    assert_eq!(before.wait(), 0, "its last client has gone");
    notify(&database, "still");
    hears(&mut new, "still");
}

#[test]
fn who_logs_in_by_scram_is_listened_for_by_what_it_has_proven() {
    let database = test_database("listen_scram");
    let secret = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'");
    let secret = shared_cluster().primary().psql(&secret).unwrap();
    let folder = Folder::new();
    let file = folder.file("users.txt");
    std::fs::write(&file, format!("\"{ROLE}\" \"{secret}\"\n")).unwrap();
    let toml = format!(
        "{}[auth]\nmethod = \"scram-sha-256\"\nusers_file = \"{}\"\n",
        pool_of(2),
        file.display()
    );
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database);
    let [mut client, mut other] = [(); 2].map(|()| Client::connect(&url));
    client.query("LISTEN news");
    other.query("NOTIFY news, 'proven'");
    hears(&mut client, "proven");
    assert_eq!(listeners(&database).split(' ').count(), 1);
    // It is lost, and comes about again.
    let end = format!("SELECT pg_terminate_backend({})", listeners(&database));
    shared_cluster().primary().psql(&end).unwrap();
    client.expect("E:08006 (end)");
    other.query("LISTEN news");
    notify(&database, "again");
    hears(&mut other, "again");
}

#[test]
fn the_connections_that_listen_are_told_beside_their_pools() {
    let database = test_database("listen_told");
    let toml = pool_of(2).replace("workers = 1", "workers = 2");
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(&url)).collect();
    for client in &mut clients[..4] {
        client.query("LISTEN news");
    }
    let pool = write_pool(&tidegate);
    let open = listeners(&database).split(' ').count();
    assert_eq!((&pool["listeners"], &pool["listening"]), (&open.into(), &4.into()), "{pool}");
    let metrics = tidegate.admin_get("/metrics").body;
    let mut lines = metrics.lines().filter(|line| line.starts_with("tidegate_pool_listening{"));
    let line = lines.find(|line| line.contains("role=\"write\"")).unwrap();
    assert!(line.contains(&database) && line.ends_with(" 4"), "{line}");
    assert!(json(&tidegate, "/api/v1/pools").to_string().contains("\"listeners\""));
    clients.clear();
    wait_until(SOON, "nobody listens", || write_pool(&tidegate)["listening"] == 0);
    wait_until(SOON, "they are closed", || write_pool(&tidegate)["listeners"] == 0);
}
