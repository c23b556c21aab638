//! What reads on replicas see: by `routing.causality`, by positions, and after a wait.

use super::Split;
use crate::own::{SOON, cluster_with_replicas, pool_of};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, Cluster, pipeline, wait_until};

const READ: &str = "SELECT n FROM counters";

/// A database of its own with one counter, and a Tidegate in front that takes a replica for good however far behind it is.
fn split(cluster: &Cluster, database: &str, routing: &str) -> Split {
    Client::connect(&cluster.primary().url(ROLE, database))
        .query("CREATE TABLE counters (n int); INSERT INTO counters VALUES (0)");
    let toml =
        format!("{}[routing]\nlag_max = \"10m\"\nlag_return = \"10m\"\n{routing}", pool_of(5));
    Split::start_with(cluster, database.to_owned(), &toml)
}

fn pause_replay(cluster: &Cluster) {
    let replica = &cluster.replicas()[0];
    replica.psql("SELECT pg_wal_replay_pause()").unwrap();
    wait_until(SOON, "replay is paused", || {
        replica.psql("SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
    });
}

#[test]
fn causality_says_whose_writes_a_read_sees() {
    let cluster = cluster_with_replicas("causality", 1);
    // What the session that wrote sees, and what another one.
    let cases = [("session", "1", "0"), ("global", "1", "1"), ("off", "0", "0")];
    let splits: Vec<Split> = cases
        .iter()
        .map(|(causality, ..)| {
            let database = format!("causality_{causality}");
            cluster.create_database(&database, ROLE).unwrap();
            split(&cluster, &database, &format!("causality = \"{causality}\"\n"))
        })
        .collect();
    cluster.wait_until_caught_up().unwrap();
    pause_replay(&cluster);
    for ((causality, own, others), split) in cases.into_iter().zip(&splits) {
        let (mut writer, mut other) = (split.connect(), split.connect());
        assert_eq!(other.value(READ).as_deref(), Some("0"), "{causality}");
        for end in ["", "; COMMIT"] {
            writer.query(&format!(
                "{}UPDATE counters SET n = 1",
                if end.is_empty() { "" } else { "BEGIN; " }
            ));
            writer.query(end.trim_start_matches("; "));
            assert_eq!(writer.value(READ).as_deref(), Some(own), "{causality}");
            assert_eq!(other.value(READ).as_deref(), Some(others), "{causality}");
        }
    }
}

#[test]
fn a_position_carries_what_was_written_to_another_session() {
    let cluster = cluster_with_replicas("positions", 1);
    let mut split = split(&cluster, "positions", "");
    cluster.wait_until_caught_up().unwrap();
    pause_replay(&cluster);
    let mut writer = split.connect();
    writer.query("UPDATE counters SET n = 1");
    let position = writer.value("SHOW tidegate.min_lsn").unwrap();
    let told = |client: &mut Client| client.value(READ);
    let mut reader = split.connect();
    assert_eq!(told(&mut reader).as_deref(), Some("0"));
    reader.query(&format!("SET tidegate.min_lsn = '{position}'"));
    assert_eq!(told(&mut reader).as_deref(), Some("1"));
    // By the extended protocol, too; and what it asks for it hands on, even from a replica.
    for route in ["auto", "replica"] {
        let mut next = split.connect();
        next.query(&format!("SET tidegate.route = '{route}'"));
        next.query(&format!("SET tidegate.min_lsn = '{position}'"));
        let show = pipeline().parse("", "SHOW tidegate.min_lsn", &[]).bind("", "", &[]);
        next.send(show.execute("").sync());
        let handed_on = next.expect("1 2 D C ZI")[2].row().swap_remove(0).unwrap();
        let behind = format!("SELECT '{handed_on}'::pg_lsn >= '{position}'::pg_lsn");
        assert_eq!(cluster.primary().psql(&behind).unwrap(), "t", "{handed_on}");
    }
    // Who asks for less may see less.
    let url = split.tidegate.url(ROLE, "positions");
    let mut early = Client::try_connect(&url, &[("tidegate.min_lsn", "0/0")]).unwrap();
    assert_eq!(told(&mut early).as_deref(), Some("0"));
    early.send(pipeline().query("SET tidegate.min_lsn = 'soon'"));
    let error = early.expect("E:22023 ZI").remove(0);
    assert!(error.field(b'H').unwrap().contains("SHOW tidegate.min_lsn"), "{error:?}");
    // One that no text shows is taken for more than there is.
    early.query("SELECT set_config('tidegate.min_lsn', 'soon', false)");
    assert_eq!(told(&mut early).as_deref(), Some("1"));
    cluster.replicas()[0].psql("SELECT pg_wal_replay_resume()").unwrap();
    wait_until(SOON, "the replica has what is asked for", || split.on_replica(&mut reader, READ));
    assert_eq!(told(&mut reader).as_deref(), Some("1"));
}

#[test]
fn a_read_after_a_write_waits_for_a_replica_that_catches_up() {
    let cluster = cluster_with_replicas("catches_up", 1);
    let mut split = split(&cluster, "catches_up", "catch_up_max = \"20s\"\n");
    let mut client = split.connect();
    for n in 1..=20 {
        client.query(&format!("UPDATE counters SET n = {n}"));
        assert!(split.on_replica(&mut client, READ), "{n}");
        assert_eq!(client.value(READ), Some(n.to_string()));
    }
    let metrics = split.tidegate.admin_get("/metrics").body;
    let waited = metrics.lines().find_map(|line| line.strip_prefix("tidegate_reads_waited_total "));
    assert!(waited.unwrap().parse::<u32>().unwrap() > 0);
    // A cancel ends the wait.
    pause_replay(&cluster);
    client.query("UPDATE counters SET n = 0");
    client.send(pipeline().query(READ));
    crate::own::wait_for_state(&split.tidegate, "waiting");
    client.cancel();
    client.expect("E:57014 ZI");
}
