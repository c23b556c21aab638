//! What is written past Tidegate, and followed in the log.

use super::{CONFIG, Kept, SCHEMA};
use crate::own::{SOON, metric, policies_answer};
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Node, Redis, Tidegate, TidegateOptions, password_of, pipeline,
    wait_until,
};

const DATABASE: &str = "followed";
const FOLLOWER: &str = "follower";
/// However busy the machine is.
const LONG: Duration = Duration::from_secs(60);

/// A server of its own, since nobody follows while transactions of others last.
fn cluster(conf: &str) -> Cluster {
    let options = ClusterOptions { conf: vec![conf.to_owned()], ..ClusterOptions::default() };
    let cluster = Cluster::start(&options).unwrap_or_else(|error| panic!("{error}"));
    for role in [ROLE, FOLLOWER] {
        cluster.create_role(role).unwrap_or_else(|error| panic!("{error}"));
    }
    cluster.create_database(DATABASE, ROLE).unwrap_or_else(|error| panic!("{error}"));
    for sql in [
        format!("ALTER ROLE {FOLLOWER} REPLICATION"),
        format!("ALTER DATABASE {DATABASE} SET log_statement = 'all'"),
    ] {
        cluster.primary().psql(&sql).unwrap();
    }
    let answer = direct(&cluster).query(SCHEMA);
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    cluster
}

fn direct(cluster: &Cluster) -> Client {
    Client::connect(&cluster.primary().url(ROLE, DATABASE))
}

fn start(cluster: &Cluster) -> Kept {
    start_with(cluster, "", "")
}

/// With more at the begin and the end of the configuration.
fn start_with(cluster: &Cluster, first: &str, last: &str) -> Kept {
    let mut options = TidegateOptions::for_cluster(cluster, DATABASE);
    let password = password_of(FOLLOWER);
    options.toml = Some(format!(
        "{first}{CONFIG}[cache]\nfollow_wal = true\nfollow_user = \"{FOLLOWER}\"\n\
         follow_password = \"{password}\"\n{last}"
    ));
    let tidegate = Tidegate::start(options);
    wait_until(SOON, "policies answer", || policies_answer(&tidegate));
    let logs = cluster.nodes().map(Node::log_path).collect();
    let kept = Kept { tidegate, database: DATABASE.to_owned(), logs, marks: 0 };
    let rules = r#"{"rules": [{"table": "t", "ttl_ms": 60000}]}"#;
    let answer = kept.tidegate.admin_put("/api/v1/plugins/caching/config", rules);
    assert_eq!(answer.status, 200, "{answer:?}");
    kept
}

fn is_followed(kept: &Kept) -> bool {
    metric(&kept.tidegate, "tidegate_cache_log_followed") == 1.0
}

/// Until it is answered from memory.
fn wait_until_served(kept: &mut Kept, client: &mut Client, sql: &str) {
    wait_until(LONG, "an answer is served that is kept", || !kept.runs(client, sql));
}

/// A read that is served from memory, what is run past Tidegate, and what the read brings then.
fn takes(kept: &mut Kept, cluster: &Cluster, read: &str, past: &str, then: Option<&str>) {
    let mut client = kept.connect();
    wait_until_served(kept, &mut client, read);
    let answer = direct(cluster).query(past);
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    wait_until(SOON, past, || client.value(read).as_deref() == then);
    for _ in 0..20 {
        assert_eq!(client.value(read).as_deref(), then, "{past}");
    }
}

#[test]
fn what_is_written_past_it_is_taken_as_soon_as_it_is_visible() {
    let cluster = cluster("wal_level = logical");
    // What is warmed waits for it.
    let warm = "[[cache.warm]]\nstatements = [\"SELECT v FROM t WHERE id = 8\"]\n";
    let mut kept = start_with(&cluster, "", warm);
    wait_until(LONG, "it is warmed", || kept.counter("tidegate_cache_warmed_total") == 1);
    kept.set_rules(r#""ttl_ms": 60000"#);
    let mut other = kept.connect();
    wait_until_served(&mut kept, &mut other, "SELECT v FROM u WHERE id = 3");
    let t = "SELECT v FROM t WHERE id = 1";
    takes(&mut kept, &cluster, t, "UPDATE t SET v = 70 WHERE id = 1", Some("70"));
    assert!(!kept.runs(&mut other, "SELECT v FROM u WHERE id = 3"), "another table's answer stays");
    let child = "SELECT count(*) FROM parent";
    takes(&mut kept, &cluster, child, "DELETE FROM child", Some("0"));
    let part = "SELECT sum(v) FROM p";
    takes(&mut kept, &cluster, part, "UPDATE p2 SET v = 0", Some("45"));
    takes(&mut kept, &cluster, "SELECT count(*) FROM u", "TRUNCATE u", Some("0"));
    let (view, refresh) = ("SELECT v FROM tm", "REFRESH MATERIALIZED VIEW tm");
    takes(&mut kept, &cluster, view, refresh, Some("124"));
    // Names in one transaction with rows, as tools that migrate do it.
    let replace = "BEGIN; CREATE OR REPLACE VIEW tv AS SELECT id, v + 100 AS v FROM t; INSERT INTO audit (v) VALUES (1); COMMIT";
    takes(&mut kept, &cluster, "SELECT v FROM tv WHERE id = 2", replace, Some("102"));
    let rewrite = "ALTER TABLE t ALTER COLUMN m TYPE int USING 5";
    takes(&mut kept, &cluster, "SELECT m FROM t WHERE id = 3", rewrite, Some("5"));
    waits_until_it_is_visible(&mut kept, &cluster);
    begins_anew(&mut kept, &cluster);
}

/// A commit is in the log, and told, before it is visible: here because its replica is not there.
fn waits_until_it_is_visible(kept: &mut Kept, cluster: &Cluster) {
    let (mut client, primary) = (kept.connect(), cluster.primary());
    let read = "SELECT v FROM t WHERE id = 5";
    wait_until_served(kept, &mut client, read);
    let told = metric(&kept.tidegate, "tidegate_cache_log_transactions_total");
    primary.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").unwrap();
    primary.psql("SELECT pg_reload_conf()").unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let mut writer = direct(cluster);
    wait_until(SOON, "the setting holds", || {
        writer.value("SHOW synchronous_standby_names").as_deref() == Some("nobody")
    });
    writer.send(pipeline().query("UPDATE t SET v = 500 WHERE id = 5"));
    wait_until(SOON, "it waits", || primary.psql(waiting).unwrap().trim() == "1");
    wait_until(SOON, "it is told", || {
        metric(&kept.tidegate, "tidegate_cache_log_transactions_total") > told
    });
    for _ in 0..20 {
        assert_eq!(client.value(read).as_deref(), Some("5"), "it is not visible yet");
    }
    primary.psql("ALTER SYSTEM RESET synchronous_standby_names").unwrap();
    primary.psql("SELECT pg_reload_conf()").unwrap();
    writer.read_until_ready();
    wait_until(SOON, "it is taken", || client.value(read).as_deref() == Some("500"));
    assert_eq!(client.value(read).as_deref(), Some("500"));
}

/// Nothing is served between the end of what follows and its next beginning.
fn begins_anew(kept: &mut Kept, cluster: &Cluster) {
    let (mut client, primary) = (kept.connect(), cluster.primary());
    let read = "SELECT v FROM t WHERE id = 6";
    wait_until_served(kept, &mut client, read);
    primary.psql(&format!("ALTER ROLE {FOLLOWER} NOREPLICATION")).unwrap();
    let end = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots";
    assert_eq!(primary.psql(end).unwrap().trim(), "1");
    wait_until(SOON, "it is not followed", || !is_followed(kept));
    for n in 0..5 {
        primary.psql_in(DATABASE, &format!("UPDATE t SET v = {n} WHERE id = 6")).unwrap();
        assert_eq!(client.value(read), Some(n.to_string()));
        assert!(kept.runs(&mut client, read), "nobody follows");
    }
    wait_until(SOON, "it says why", || kept.tidegate.log().contains("ALTER ROLE ... REPLICATION"));
    primary.psql(&format!("ALTER ROLE {FOLLOWER} REPLICATION")).unwrap();
    wait_until_served(kept, &mut client, read);
    assert_eq!(client.value(read).as_deref(), Some("4"));
    takes(kept, cluster, read, "UPDATE t SET v = 60 WHERE id = 6", Some("60"));
}

#[test]
fn where_the_log_cannot_be_followed_nothing_is_kept_and_the_words_say_why() {
    let cluster = cluster("wal_level = replica");
    let mut kept = start(&cluster);
    let mut client = kept.connect();
    let report = |kept: &Kept| kept.tidegate.admin_get("/api/v1/cache").body;
    wait_until(SOON, "it says why", || {
        client.query("SELECT 1");
        report(&kept).contains("wal_level >= logical")
    });
    assert!(kept.tidegate.log().contains("ALTER SYSTEM SET wal_level = 'logical'"));
    let read = "SELECT v FROM t WHERE id = 1";
    for _ in 0..5 {
        assert!(kept.runs(&mut client, read), "{}", report(&kept));
    }
    // What the words say helps.
    cluster.primary().psql("ALTER SYSTEM SET wal_level = 'logical'").unwrap();
    cluster.primary().restart().unwrap();
    wait_until(LONG, "it is followed", || is_followed(&kept));
    let mut client = kept.connect();
    wait_until_served(&mut kept, &mut client, read);
    takes(&mut kept, &cluster, read, "UPDATE t SET v = 70 WHERE id = 1", Some("70"));
}

#[test]
fn what_is_written_past_two_is_taken_from_both_and_from_their_redis() {
    let (cluster, redis) = (cluster("wal_level = logical"), Redis::start(&[]));
    let mut both = [1, 2].map(|own| {
        let peer = 3 - own;
        let first = format!("peer_id = {own}\n");
        let peers = format!("[[peers]]\nid = {peer}\naddress = \"127.0.0.1:1\"\n");
        // On a machine that is busy with other tests nothing is to be late.
        let url = redis.url();
        let shared = format!("[cache.redis]\nurl = \"{url}\"\ndeadline = \"1s\"\nlease = \"3s\"\n");
        start_with(&cluster, &first, &format!("{shared}{peers}"))
    });
    let mut clients = [0, 1].map(|which: usize| both[which].connect());
    let read = "SELECT v FROM t WHERE id = 1";
    for n in 100..103 {
        for which in [0, 1, 0] {
            wait_until_served(&mut both[which], &mut clients[which], read);
        }
        direct(&cluster).query(&format!("UPDATE t SET v = {n} WHERE id = 1"));
        let then = Some(n.to_string());
        for client in &mut clients {
            wait_until(SOON, "it is taken", || client.value(read) == then);
        }
        for round in 0..20 {
            assert_eq!(clients[round % 2].value(read), then);
        }
    }
    assert!(both.iter().all(|one| metric(&one.tidegate, "tidegate_cache_log_followed") == 1.0));
}
