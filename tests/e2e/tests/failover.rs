//! Primaries that die, hang, restart or are demoted: who takes over, what clients see, and what must not happen.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Node, Tidegate, TidegateOptions, pipeline, wait_until,
};

/// A failover, or the certainty that there is none, takes no longer here, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

fn cluster(replicas: usize) -> Cluster {
    let options = ClusterOptions { replicas, ..ClusterOptions::default() };
    let cluster = Cluster::start(&options).unwrap();
    cluster.primary().psql("CREATE TABLE t (n bigint PRIMARY KEY)").unwrap();
    cluster.wait_until_caught_up().unwrap();
    cluster
}

fn options(cluster: &Cluster, failover: &str) -> TidegateOptions {
    let url = |node: &Node| node.url("postgres", "postgres");
    TidegateOptions {
        primary: url(cluster.primary()),
        replicas: cluster.replicas().iter().map(url).collect(),
        toml: Some(format!(
            "[pool]\nsize_min = 0\nsize_max = 5\nutilisation_warn_percent = 100\n[failover]\n{failover}\n"
        )),
        ..TidegateOptions::default()
    }
}

fn tidegate(cluster: &Cluster, failover: &str) -> Tidegate {
    Tidegate::start(options(cluster, failover))
}

fn url(tidegate: &Tidegate) -> String {
    tidegate.url("postgres", "postgres")
}

/// The cluster as the admin API tells of it.
fn topology(tidegate: &Tidegate) -> serde_json::Value {
    serde_json::from_str(&tidegate.admin_get("/api/v1/cluster").body).unwrap()
}

fn primary_of(tidegate: &Tidegate) -> String {
    topology(tidegate)["primary"].as_str().unwrap().to_owned()
}

fn wait_until_steady(tidegate: &Tidegate) {
    wait_until(LONG, "the cluster is steady", || topology(tidegate)["state"] == "steady");
}

/// Numbers written one by one by some clients, until told to stop.
struct Writers {
    next: AtomicU64,
    stop: AtomicBool,
    /// Those whose write was acknowledged.
    told: Mutex<BTreeSet<u64>>,
    /// Errors by SQLSTATE, and connections that ended.
    errors: Mutex<Vec<String>>,
}

impl Writers {
    fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            told: Mutex::default(),
            errors: Mutex::default(),
        }
    }

    fn run(&self, url: &str) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut client = match Client::try_connect(url, &[]) {
                Ok(client) => client,
                Err(error) => {
                    self.errors.lock().unwrap().push(format!("login {}", error.sqlstate()));
                    continue;
                }
            };
            while !self.stop.load(Ordering::Relaxed) {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                client.send(pipeline().query(&format!("INSERT INTO t VALUES ({number})")));
                let Some(answer) = client.read_message_or_end() else { break };
                if answer.tag == b'C' {
                    self.told.lock().unwrap().insert(number);
                } else {
                    self.errors.lock().unwrap().push(answer.sqlstate());
                    if answer.field(b'S').as_deref() == Some("FATAL") {
                        break;
                    }
                }
                if client.read_message_or_end().is_none() {
                    break;
                }
            }
        }
    }

    fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    fn wait_for_more(&self, more: usize) {
        let before = self.count();
        wait_until(LONG, "writes go on", || self.count() >= before + more);
    }
}

fn numbers_on(node: &Node) -> BTreeSet<u64> {
    let rows = node.psql("SELECT n FROM t").unwrap();
    rows.lines().map(|row| row.parse().unwrap()).collect()
}

#[test]
fn property_5_a_killed_primary_is_replaced_and_clients_see_a_pause() {
    let cluster = cluster(2);
    let tidegate = tidegate(&cluster, "mode = \"embedded\"");
    let url = url(&tidegate);
    wait_until_steady(&tidegate);
    let mut idle = Client::connect(&url);
    idle.query("SET app.me = 'idle'");
    let writers = Writers::new();
    let paused = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| writers.run(&url));
        }
        writers.wait_for_more(200);
        cluster.primary().kill();
        let killed = Instant::now();
        // Each writer has been told of a commit that began after the kill.
        writers.wait_for_more(50);
        let paused = killed.elapsed();
        writers.wait_for_more(200);
        writers.stop.store(true, Ordering::Relaxed);
        paused
    });
    eprintln!(
        "writes went on {paused:?} after the kill; errors: {:?}",
        writers.errors.lock().unwrap()
    );
    let name = primary_of(&tidegate);
    let promoted = cluster.replicas().iter().find(|node| node.name() == name).unwrap();
    let other = cluster.replicas().iter().find(|node| node.name() != name).unwrap();
    // What was acknowledged is there, but for what the dead primary had not sent: at most one for each connection.
    let kept = numbers_on(promoted);
    let told = writers.told.lock().unwrap();
    let lost: Vec<_> = told.difference(&kept).collect();
    assert!(lost.len() <= 5, "{lost:?}");
    // Whoever was in the middle of a statement is told that it is not known what became of it; nobody else is told anything.
    for error in writers.errors.lock().unwrap().iter() {
        assert!(["08006", "08007", "57P01"].contains(&error.as_str()), "{error}");
    }
    assert_eq!(idle.value("SELECT current_setting('app.me')").as_deref(), Some("idle"));
    // The other replica follows.
    wait_until(LONG, "the other replica follows the new primary", || {
        promoted.psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").unwrap()
            == "1"
    });
    let mut client = Client::connect(&url);
    client.query("INSERT INTO t VALUES (0)");
    wait_until(LONG, "a row arrives there", || numbers_on(other).contains(&0));
    let log = tidegate.log();
    assert!(log.contains("is told to become primary"), "{log}");
}
