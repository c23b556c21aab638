//! A primary's disk that is full: of data, which is its clients' trouble, and of log, which is its end.

use crate::failover::{
    LONG, Writers, cluster, numbers_on, primary_of, promotions, tidegate, topology, url,
    wait_until_steady, wait_until_writable,
};
use crate::own::sqlstate;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;
use tidegate_test_support::{Client, SmallDisk, wait_until};

#[test]
fn a_disk_that_is_full_of_data_is_told_by_the_primary_itself_and_is_no_reason_for_a_failover() {
    let cluster = cluster(1);
    let primary = cluster.primary();
    let database = primary.psql("SELECT oid FROM pg_database WHERE datname = 'postgres'").unwrap();
    let folder = primary.data_directory().join("base").join(database);
    primary.stop();
    let mut disk = SmallDisk::in_place_of(&folder, 8);
    disk.inside(|| primary.start()).unwrap();
    cluster.wait_until_streaming().unwrap();
    let tidegate = tidegate(&cluster, "mode = \"embedded\"");
    wait_until_steady(&tidegate);
    // Later numbers have room on the same page.
    wait_until_writable(&url(&tidegate), 1);
    let mut client = Client::connect(&url(&tidegate));
    assert_eq!(sqlstate(&mut client, "CREATE TABLE long (text text)"), "");
    let fill = "INSERT INTO long SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    let mut last = String::new();
    wait_until(LONG, "the disk is full", || {
        last = sqlstate(&mut client, fill);
        !last.is_empty()
    });
    assert_eq!(last, "53100");
    for number in 2..20 {
        wait_until_writable(&url(&tidegate), number);
        assert_eq!(sqlstate(&mut client, fill), "53100");
    }
    wait_until_steady(&tidegate);
    assert_eq!((promotions(&tidegate), primary_of(&tidegate).as_str()), (0, "primary"));
    disk.grow(64);
    assert_eq!(sqlstate(&mut client, fill), "");
    assert_eq!(numbers_on(primary), BTreeSet::from_iter(1..20));
}

#[test]
fn a_primary_that_ends_since_its_disk_is_full_of_log_is_replaced_and_what_is_lost_is_told() {
    let cluster = cluster(2);
    let primary = cluster.primary();
    primary.stop();
    // Less than the next segment of the log.
    let disk = SmallDisk::in_place_of(&primary.data_directory().join("pg_wal"), 8);
    disk.inside(|| primary.start()).unwrap();
    cluster.wait_until_streaming().unwrap();
    let tidegate =
        tidegate(&cluster, "mode = \"embedded\"\nhold_max = \"60s\"\nrestart_max = \"1s\"");
    let url = url(&tidegate);
    wait_until_steady(&tidegate);
    let writers = Writers::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| writers.run(&url));
        }
        writers.wait_for_more(100);
        wait_until(LONG, "there is no room for the log", || {
            primary.psql("SELECT pg_switch_wal()").is_err()
        });
        wait_until(LONG, "a replica takes over", || {
            let now = topology(&tidegate);
            now["state"] == "steady" && now["primary"] != "primary"
        });
        writers.wait_for_more(100);
        writers.stop.store(true, Ordering::Relaxed);
    });
    let log = std::fs::read_to_string(primary.log_path()).unwrap();
    assert!(log.contains("PANIC:  could not write to file"), "{}", primary.log_tail());
    assert!(log.contains("No space left on device"), "{}", primary.log_tail());
    assert_eq!(promotions(&tidegate), 1);
    wait_until(LONG, "it is told what is lost", || !topology(&tidegate)["losses"].is_null());
    let losses = topology(&tidegate)["losses"].clone();
    let said = ["lost", "uncertain"].map(|what| losses[what].as_u64().unwrap()).iter().sum();
    let name = primary_of(&tidegate);
    let promoted = cluster.replicas().iter().find(|node| node.name() == name).unwrap();
    let lost = writers.told().difference(&numbers_on(promoted)).count() as u64;
    assert!(lost <= said, "{lost} are lost, and {said} are said to be: {losses}");
}
