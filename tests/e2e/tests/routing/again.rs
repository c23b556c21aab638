//! Reads that a replica begins and does not end: the primary answers them, once.

use super::Split;
use crate::own::{SOON, cluster_like, cluster_with_replicas};
use std::time::Duration;
use tidegate_test_support::pipeline::Of;
use tidegate_test_support::{ClusterOptions, Tidegate, pipeline, wait_until};

/// Reads that were run again on the primary.
fn repeated(tidegate: &Tidegate) -> u32 {
    counter(tidegate, "tidegate_reads_repeated_total ")
}

fn disproved(tidegate: &Tidegate) -> u32 {
    counter(tidegate, "tidegate_reads_disproved_total ")
}

fn counter(tidegate: &Tidegate, name: &str) -> u32 {
    let metrics = tidegate.admin_get("/metrics").body;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap()
}

#[test]
fn a_read_whose_replica_is_killed_is_answered_by_the_primary() {
    let cluster = cluster_with_replicas("killed_in_read", 1);
    let mut split = Split::start(&cluster, "killed_in_read".to_owned());
    let replica = &cluster.replicas()[0];
    let reads = [
        ("T D C ZI", pipeline().query("SELECT 8")),
        ("1 2 D C ZI", pipeline().parse("", "SELECT 8", &[]).bind("", "", &[]).execute("").sync()),
    ];
    for (count, (answer, read)) in (1..).zip(reads) {
        let mut client = split.connect();
        assert!(split.on_replica(&mut client, "SELECT 'warm'"));
        // Frozen, it takes the read and does not answer.
        replica.pause();
        client.send(read);
        assert!(client.is_silent_for(Duration::from_millis(300)), "nobody is to answer yet");
        replica.kill();
        let answer = client.expect(answer);
        assert!(answer.iter().any(|message| message.describe() == "D 8"), "{answer:?}");
        assert_eq!(repeated(&split.tidegate), count);
        assert_eq!(client.value("SELECT 9").as_deref(), Some("9"));
        replica.start().unwrap();
        split.wait_until_split();
    }
}

#[test]
fn trap_109_a_read_that_the_replica_cancels_for_what_it_replays_is_answered_by_the_primary() {
    let conf =
        vec!["max_standby_streaming_delay = 0".to_owned(), "hot_standby_feedback = off".to_owned()];
    let options = ClusterOptions { replicas: 1, conf, ..ClusterOptions::default() };
    let cluster = cluster_like("conflict", &options);
    let (primary, replica) = (cluster.primary(), &cluster.replicas()[0]);
    let change = |sql: &str| primary.psql_in("conflict", sql).unwrap();
    change(
        "CREATE TABLE vacuumed AS SELECT n FROM generate_series(1, 1000) n; GRANT SELECT ON vacuumed TO PUBLIC",
    );
    cluster.wait_until_caught_up().unwrap();
    // Afterwards, so that the table is known.
    let split = Split::start(&cluster, "conflict".to_owned());
    let mut client = split.connect();
    client.send(pipeline().query(
        "SELECT count(*) FROM vacuumed, generate_series(1, 4000) a, generate_series(1, 100) b",
    ));
    wait_until(SOON, "the replica runs it", || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query LIKE '%generate_series(1, 4000) a%' AND pid <> pg_backend_pid()";
        replica.psql(running).unwrap() == "1"
    });
    // What its snapshot still sees goes.
    change("DELETE FROM vacuumed");
    change("VACUUM vacuumed");
    let answer = client.expect("T D C ZI");
    assert_eq!(answer[1].describe(), "D 0", "the primary's answer");
    assert_eq!(repeated(&split.tidegate), 1);
}

#[test]
fn what_was_proven_to_read_and_does_not_is_answered_by_the_primary() {
    let cluster = cluster_with_replicas("disproved", 1);
    let primary = cluster.primary();
    let change = |sql: &str| primary.psql_in("disproved", sql).unwrap();
    change(
        "CREATE TABLE told (n int); GRANT ALL ON told TO PUBLIC; \
         CREATE FUNCTION tell() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM told'",
    );
    cluster.wait_until_caught_up().unwrap();
    let split = Split::start(&cluster, "disproved".to_owned());
    let mut client = split.connect();
    let mut asker = split.connect();
    assert_eq!(client.value("SELECT tell()").as_deref(), Some("0"));
    assert_eq!(repeated(&split.tidegate), 0);
    // Past Tidegate, which learns of it by the replica's refusal.
    change(
        "CREATE OR REPLACE FUNCTION tell() RETURNS bigint VOLATILE LANGUAGE sql AS \
         'INSERT INTO told VALUES (1); SELECT count(*) FROM told'",
    );
    cluster.wait_until_caught_up().unwrap();
    client.send(pipeline().query("SELECT tell()"));
    let answer = client.expect("T D C ZI");
    assert_eq!(answer[1].describe(), "D 1", "the primary's answer");
    assert_eq!((repeated(&split.tidegate), disproved(&split.tidegate)), (1, 1));
    // Once is enough for a client; another one's reads go on.
    client.send(
        pipeline()
            .parse("", "SELECT tell()", &[])
            .bind("", "", &[])
            .describe(Of::Portal(""))
            .execute("")
            .sync(),
    );
    client.expect("1 2 T D C ZI");
    assert_eq!(disproved(&split.tidegate), 1);
    // Who asked for replicas is told.
    asker.value("SET tidegate.route = 'replica'");
    asker.send(pipeline().query("SELECT tell()"));
    asker.expect("T E:25006 ZI");
    assert_eq!(disproved(&split.tidegate), 1);
    assert_eq!(primary.psql_in("disproved", "SELECT count(*) FROM told").unwrap(), "2");
}

#[test]
fn a_read_whose_replica_stops_at_once_is_answered_by_the_primary() {
    let cluster = cluster_with_replicas("stopped_in_read", 1);
    let split = Split::start(&cluster, "stopped_in_read".to_owned());
    let replica = &cluster.replicas()[0];
    let sql = "SELECT count(*) FROM generate_series(1, 4000) a, generate_series(1, 4000) b";
    let mut client = split.connect();
    client.send(pipeline().query(sql));
    wait_until(SOON, "the replica runs it", || {
        let running = "SELECT count(*) FROM pg_stat_activity \
                       WHERE state = 'active' AND query LIKE '%generate_series(1, 4000) a%' \
                       AND pid <> pg_backend_pid()";
        replica.psql(running).unwrap() == "1"
    });
    replica.stop_now();
    // PostgreSQL sends the head of the answer along when it says that it stops: nobody is told twice.
    let answer = client.expect("T D C ZI");
    assert_eq!(answer[1].describe(), "D 16000000");
    assert_eq!(repeated(&split.tidegate), 1);
}
