//! A new process in the place of the one that runs, without a client noticing.

use crate::own::{Folder, SOON, json, pool_of, wait_until_running};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database, wait_until,
};

fn options(database: &str, dir: &Path, toml: &str) -> TidegateOptions {
    let handover = format!("[handover]\ndir = \"{}\"\n", dir.display());
    let toml = Some(format!("{toml}{handover}"));
    TidegateOptions { toml, ..TidegateOptions::for_cluster(shared_cluster(), database) }
}

fn pgbench(arguments: &[&str], url: &str) -> Child {
    let mut command = shared_cluster().primary().client("pgbench");
    command.args(arguments).arg(url);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn succeeds(pgbench: Child) {
    let output = pgbench.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("failed transactions: 0 "), "{told}");
}

#[test]
fn three_hand_overs_one_after_the_other_are_not_noticed() {
    const EACH: usize = 400;
    let (database, folder) = (test_database("handover"), Folder::new());
    let dir = folder.file("sockets");
    let toml = "workers = 2\n[pool]\nsize_min = 1\nsize_max = 4\n[routing]\nreads = \"primary\"\n";
    let options = options(&database, &dir, toml);
    let mut processes = vec![Tidegate::start(options.clone())];
    let url = processes[0].url(ROLE, &database);
    let mut longest = Client::connect(&url);
    longest.query("CREATE TABLE t (a int)");
    longest.query("SET app.me = 'still here'");
    longest.query("BEGIN");
    let script = folder.file("insert.sql");
    std::fs::write(&script, "INSERT INTO t VALUES (1);\n").unwrap();
    let script = script.to_str().unwrap();
    let each = EACH.to_string();
    let long = pgbench(&["-n", "-c", "3", "-j", "3", "-t", &each, "-f", script], &url);
    let stop = AtomicBool::new(false);
    let connected = thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                succeeds(pgbench(
                    &["-n", "-C", "-c", "2", "-j", "2", "-t", "10", "-f", script],
                    &url,
                ));
                count += 20;
            }
            count
        });
        for number in 1..=3 {
            let rows = || shared_cluster().primary().psql_in(&database, "SELECT count(*) FROM t");
            wait_until(SOON, "it runs", || rows().unwrap().parse::<usize>().unwrap() > 60 * number);
            let successor = processes[number - 1].start_successor(options.clone());
            processes.push(successor);
            // The one before has a client that stays, and so does each other one.
            assert_eq!(
                longest.value("SELECT current_setting('app.me')").as_deref(),
                Some("still here")
            );
        }
        stop.store(true, Ordering::Relaxed);
        connecting.join().unwrap()
    });
    succeeds(long);
    longest.query("COMMIT");
    let rows = shared_cluster().primary().psql_in(&database, "SELECT count(*) FROM t").unwrap();
    assert_eq!(rows, (3 * EACH + connected).to_string(), "no statement is lost, none runs twice");
    for process in &mut processes[1..3] {
        assert_eq!(process.wait(), 0, "its clients have gone");
    }
    assert_eq!(longest.value("SELECT 1").as_deref(), Some("1"));
    longest.send(pipeline().terminate());
    assert_eq!(processes[0].wait(), 0);
    assert_eq!(Client::connect(&url).value("SELECT 1").as_deref(), Some("1"));
    let last = processes.pop().unwrap();
    assert!(last.is_healthy());
    assert_eq!(json(&last, "/api/v1/pools")["paused"]["all"], false);
    assert_eq!(last.terminate(), 0);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "each removes its own socket");
}

#[test]
fn a_hand_over_that_fails_changes_nothing() {
    let (database, folder) = (test_database("handover_fails"), Folder::new());
    let dir = folder.file("sockets");
    let good = options(&database, &dir, &pool_of(2));
    let tidegate = Tidegate::start(good.clone());
    let url = tidegate.url(ROLE, &database);
    let mut client = Client::connect(&url);
    client.query("BEGIN");
    let mut wrong = tidegate.launch_successor(options(&database, &dir, "[pol]\n"));
    assert_eq!(wrong.wait(), 2, "{}", wrong.log());
    // It has got the sockets, and fails after that.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut fails = good.clone();
    let address = taken.local_addr().unwrap().to_string();
    fails.arguments.extend(["--listen".to_owned(), address]);
    let mut late = tidegate.launch_successor(fails);
    assert_eq!(late.wait(), 3, "{}", late.log());
    wait_until(SOON, "it is noticed", || tidegate.log().contains("failed: serving on"));
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    assert_eq!(Client::connect(&url).value("SELECT 1").as_deref(), Some("1"));
    assert!(tidegate.is_healthy());
    assert_eq!(tidegate.command(&["pause", "elsewhere"]).0, 0);
    let mut paused = tidegate.launch_successor(good.clone());
    assert_eq!(paused.wait(), 3);
    assert!(paused.log().contains("databases are paused"), "{}", paused.log());
    assert_eq!(tidegate.command(&["resume"]).0, 0);
    let next = tidegate.start_successor(good);
    assert_eq!(Client::connect(&url).value("SELECT 1").as_deref(), Some("1"));
    client.query("COMMIT");
    drop(next);
}

#[test]
fn a_cancel_request_finds_the_process_that_has_the_client() {
    let (database, folder) = (test_database("handover_cancel"), Folder::new());
    let options = options(&database, &folder.file("sockets"), &pool_of(2));
    let first = Tidegate::start(options.clone());
    let mut client = Client::connect(&first.url(ROLE, &database));
    let second = first.start_successor(options.clone());
    let third = second.start_successor(options);
    // At once, since it has no clients.
    let mut second = second;
    assert_eq!(second.wait(), 0);
    client.send(pipeline().query("SELECT pg_sleep(60)"));
    wait_until_running(shared_cluster(), &database, "pg_sleep(60)", 1);
    client.cancel();
    client.expect("T E:57014 ZI");
    let mut new = Client::connect(&third.url(ROLE, &database));
    new.send(pipeline().query("SELECT pg_sleep(61)"));
    wait_until_running(shared_cluster(), &database, "pg_sleep(61)", 1);
    new.cancel();
    new.expect("T E:57014 ZI");
}

#[test]
fn the_end_of_the_grace_and_a_signal_drain_the_process_that_was_taken_over() {
    let (database, folder) = (test_database("handover_grace"), Folder::new());
    let options = options(&database, &folder.file("sockets"), &pool_of(2));
    let toml = options.toml.clone().unwrap() + "grace = \"300ms\"\n";
    let mut first = Tidegate::start(TidegateOptions { toml: Some(toml), ..options.clone() });
    let url = first.url(ROLE, &database);
    let mut client = Client::connect(&url);
    let mut second = first.start_successor(options.clone());
    client.expect("E:57P01 (end)");
    assert_eq!(first.wait(), 0);
    let mut client = Client::connect(&url);
    client.query("BEGIN");
    let _third = second.start_successor(options);
    second.sigterm();
    client.send(pipeline().query("COMMIT"));
    client.expect("C ZI E:57P01 (end)");
    assert_eq!(second.wait(), 0);
}
