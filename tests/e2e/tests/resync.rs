//! Replicas that do not follow the primary: told again who that is, then made anew.

use crate::failover::{
    LONG, cluster, numbers_on, tidegate, topology, url, wait_until_steady, wait_until_writable,
};
use std::collections::BTreeSet;
use tidegate_test_support::{Cluster, Node, password_of, wait_until};

// Property 25: a replica whose log the primary has removed is made anew, and one that was told of another primary is told again.
#[test]
fn a_replica_that_cannot_follow_is_told_again_and_then_made_anew() {
    let cluster = cluster(1);
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    // The test stops, rebuilds and starts the server, as an agent would; the command waits for it.
    let failover = "mode = \"embedded\"\nresync_after = \"3s\"\nrejoin_command = [\"sh\", \"-c\", \
        \"env | grep TIDEGATE_ > rejoin.tmp; mv rejoin.tmp rejoin; while [ -e rejoin ]; do sleep 0.02; done\"]";
    let tidegate = tidegate(&cluster, failover);
    let rejoin = tidegate.log_path().parent().unwrap().join("rejoin");
    wait_until_steady(&tidegate);
    wait_until_writable(&url(&tidegate), 1);
    let serves_reads = || topology(&tidegate)["servers"][1]["serves_reads"] == true;
    wait_until(LONG, "it serves reads", serves_reads);

    // Told of a primary that is none.
    let conninfo = replica.psql("SHOW primary_conninfo").unwrap();
    let astray = conninfo.replace(&format!("port={}", primary.port()), "port=1");
    replica
        .psql(&format!("ALTER SYSTEM SET primary_conninfo = '{}'", astray.replace('\'', "''")))
        .unwrap();
    replica.psql("SELECT pg_reload_conf()").unwrap();
    wait_until(LONG, "it does not receive", || {
        replica
            .psql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'")
            .unwrap()
            == "0"
    });
    wait_until_writable(&url(&tidegate), 2);
    wait_until(LONG, "it is told again", || numbers_on(replica) == BTreeSet::from([1, 2]));
    assert!(!rejoin.exists(), "that was enough");

    // What it needs is there no more.
    replica.stop();
    for sql in [
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active",
        "ALTER SYSTEM SET wal_keep_size = 0",
        "ALTER SYSTEM SET max_wal_size = '32MB'",
        "ALTER SYSTEM SET min_wal_size = '32MB'",
        "SELECT pg_reload_conf()",
    ] {
        primary.psql(sql).unwrap();
    }
    for _ in 0..6 {
        primary.psql("CREATE TABLE IF NOT EXISTS filler (n int); INSERT INTO filler VALUES (1); SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    }
    wait_until_writable(&url(&tidegate), 3);
    replica.start().unwrap();
    wait_until(LONG, "it is to be made anew", || rejoin.exists());
    let told = std::fs::read_to_string(&rejoin).unwrap();
    assert!(told.contains("TIDEGATE_ACTION=resync"), "{told}");
    assert!(told.contains(&format!("TIDEGATE_PRIMARY_PORT={}", primary.port())), "{told}");
    // While the command runs there is no second one.
    let (code, said) = tidegate.command(&["resync", replica.name()]);
    assert!(code == 1 && said.contains("runs for it already"), "{said}");
    rebuild(&cluster, replica);
    std::fs::remove_file(&rejoin).unwrap();
    wait_until(LONG, "it follows", || numbers_on(replica) == BTreeSet::from([1, 2, 3]));
    wait_until(LONG, "it serves reads again", serves_reads);

    // And by order.
    let (code, said) = tidegate.command(&["resync", primary.name()]);
    assert!(code == 1 && said.contains("is the primary"), "{said}");
    let (code, said) = tidegate.command(&["resync", replica.name()]);
    assert_eq!(code, 0, "{said}");
    wait_until(LONG, "it is to be made anew", || rejoin.exists());
    std::fs::remove_file(&rejoin).unwrap();
    wait_until(LONG, "that is over", || {
        tidegate.command(&["topology"]).1.matches("has rejoined").count() == 2
    });
}

/// Replaces a replica's data directory by a copy of the primary's.
fn rebuild(cluster: &Cluster, replica: &Node) {
    let own = std::fs::read_to_string(replica.data_directory().join("node.conf")).unwrap();
    replica.stop();
    std::fs::remove_dir_all(replica.data_directory()).unwrap();
    let primary = format!(
        "host=127.0.0.1 port={} user=postgres password={}",
        cluster.primary().port(),
        password_of("postgres")
    );
    let mut backup = cluster.installation().server("pg_basebackup");
    backup
        .arg("-D")
        .arg(replica.data_directory())
        .args(["-R", "-X", "stream", "-c", "fast", "-d", &primary]);
    let output = backup.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let settings = replica.data_directory().join("node.conf");
    std::fs::write(&settings, own).unwrap();
    cluster.installation().hand_over(&settings).unwrap();
    replica.start().unwrap();
}
