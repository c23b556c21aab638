//! Primaries that die, hang, restart or are demoted: who takes over, what clients see, and what must not happen.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Node, Passing, Relay, Tidegate, TidegateOptions, password_of,
    pipeline, wait_until,
};

/// A failover, or the certainty that there is none, takes no longer here, however busy the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn cluster(replicas: usize) -> Cluster {
    let options = ClusterOptions { replicas, ..ClusterOptions::default() };
    let cluster = Cluster::start(&options).unwrap();
    cluster.primary().psql("CREATE TABLE t (n bigint PRIMARY KEY)").unwrap();
    cluster.wait_until_caught_up().unwrap();
    cluster
}

pub(crate) fn options(cluster: &Cluster, failover: &str) -> TidegateOptions {
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

pub(crate) fn tidegate(cluster: &Cluster, failover: &str) -> Tidegate {
    Tidegate::start(options(cluster, failover))
}

pub(crate) fn url(tidegate: &Tidegate) -> String {
    tidegate.url("postgres", "postgres")
}

/// The cluster as the admin API tells of it.
pub(crate) fn topology(tidegate: &Tidegate) -> serde_json::Value {
    serde_json::from_str(&tidegate.admin_get("/api/v1/cluster").body).unwrap()
}

pub(crate) fn primary_of(tidegate: &Tidegate) -> String {
    topology(tidegate)["primary"].as_str().unwrap().to_owned()
}

pub(crate) fn wait_until_steady(tidegate: &Tidegate) {
    wait_until(LONG, "the cluster is steady", || topology(tidegate)["state"] == "steady");
}

/// Numbers written one by one by some clients, until told to stop.
pub(crate) struct Writers {
    next: AtomicU64,
    pub(crate) stop: AtomicBool,
    /// Those whose write was acknowledged.
    told: Mutex<BTreeSet<u64>>,
    /// Errors by SQLSTATE, and connections that ended.
    pub(crate) errors: Mutex<Vec<String>>,
}

impl Writers {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            told: Mutex::default(),
            errors: Mutex::default(),
        }
    }

    pub(crate) fn run(&self, url: &str) {
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
                // A server that ends since another of its processes has crashed warns first.
                let mut answers = std::iter::from_fn(|| client.read_message_or_end());
                let Some(answer) = answers.find(|answer| answer.tag != b'N') else { break };
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

    pub(crate) fn told(&self) -> BTreeSet<u64> {
        self.told.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    pub(crate) fn wait_for_more(&self, more: usize) {
        let before = self.count();
        wait_until(LONG, "writes go on", || self.count() >= before + more);
    }
}

pub(crate) fn numbers_on(node: &Node) -> BTreeSet<u64> {
    let rows = node.psql("SELECT n FROM t WHERE n >= 0").unwrap();
    rows.lines().map(|row| row.parse().unwrap()).collect()
}

#[test]
fn property_5_a_killed_primary_is_replaced_and_clients_see_a_pause() {
    let cluster = cluster(2);
    cluster.primary().psql(&documented_grants()).unwrap();
    cluster.wait_until_caught_up().unwrap();
    let tidegate = tidegate(&cluster, AS_KEEPER);
    let url = url(&tidegate);
    wait_until_steady(&tidegate);
    let mut idle = Client::connect(&url);
    idle.query("SET app.me = 'idle'");
    let mut begun = Client::connect(&url);
    begun.query("BEGIN");
    begun.query("INSERT INTO t VALUES (-1)");
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
    // Whoever was in a transaction repeats it, on the same connection.
    begun.send(pipeline().query("COMMIT"));
    begun.expect("E:40001 ZE");
    begun.query("ROLLBACK");
    begun.query("BEGIN");
    begun.query("INSERT INTO t VALUES (-2)");
    assert_eq!(begun.query("COMMIT")[0].describe(), "C COMMIT");
    // The other replica follows.
    wait_until(LONG, "the other replica follows the new primary", || {
        promoted.psql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").unwrap()
            == "1"
    });
    let mut client = Client::connect(&url);
    client.query("INSERT INTO t VALUES (0)");
    assert_eq!(client.value("SELECT count(*) FROM t WHERE n = -1").as_deref(), Some("0"));
    assert_eq!(client.value("SELECT count(*) FROM t WHERE n = -2").as_deref(), Some("1"));
    wait_until(LONG, "a row arrives there", || numbers_on(other).contains(&0));
    let log = tidegate.log();
    assert!(log.contains("is told to become primary"), "{log}");
}

/// A client that tries until a write is acknowledged.
pub(crate) fn wait_until_writable(url: &str, number: u64) {
    let mut client = None;
    wait_until(LONG, "a write is acknowledged", || {
        let connected = client.take().or_else(|| Client::try_connect(url, &[]).ok());
        let Some(mut connected) = connected else { return false };
        connected.send(pipeline().query(&format!("INSERT INTO t VALUES ({number})")));
        match connected.read_message_or_end() {
            Some(answer) if answer.tag == b'C' => true,
            Some(answer) if answer.field(b'S').as_deref() == Some("ERROR") => {
                connected.read_message_or_end();
                client = Some(connected);
                false
            }
            _ => false,
        }
    });
}

pub(crate) fn promotions(tidegate: &Tidegate) -> usize {
    tidegate.log().matches("is told to become primary").count()
}

/// Nothing is promoted, and writes go on, though this happens; the events tell `word`.
fn assert_no_failover(cluster: &Cluster, tidegate: &Tidegate, number: u64) {
    wait_until_writable(&url(tidegate), number);
    wait_until_steady(tidegate);
    assert_eq!((promotions(tidegate), primary_of(tidegate).as_str()), (0, "primary"));
    assert_eq!(cluster.primary().psql("SELECT pg_is_in_recovery()").unwrap(), "f");
}

#[test]
fn a_hung_primary_is_replaced_when_its_replicas_miss_it_and_serves_nobody_when_it_wakes() {
    let conf = vec!["wal_receiver_timeout = 2s".to_owned()];
    let options_of = ClusterOptions { replicas: 2, conf, ..ClusterOptions::default() };
    let cluster = Cluster::start(&options_of).unwrap();
    cluster.primary().psql("CREATE TABLE t (n bigint PRIMARY KEY)").unwrap();
    let tidegate = tidegate(&cluster, "mode = \"embedded\"\nhold_max = \"60s\"");
    wait_until_steady(&tidegate);
    wait_until_writable(&url(&tidegate), 1);
    let mut listens = Client::connect(&url(&tidegate));
    listens.query("LISTEN c");
    let mut held = Client::connect(&url(&tidegate));
    held.query("BEGIN");
    held.query("INSERT INTO t VALUES (2)");
    let mut waits = Client::connect(&url(&tidegate));
    cluster.primary().pause();
    wait_until(LONG, "statements are held", || topology(&tidegate)["held"] == true);
    waits.send(pipeline().query("INSERT INTO t VALUES (3)"));
    waits.expect("C ZI");
    // Whoever was in a transaction there has lost it, and is told so; nothing of it is anywhere.
    held.send(pipeline().query("COMMIT"));
    held.expect("E:40001 ZE");
    held.send(pipeline().query("SELECT 1"));
    held.expect("E:25P02 ZE");
    held.send(pipeline().query("COMMIT"));
    assert_eq!(held.expect("C ZI")[0].describe(), "C ROLLBACK");
    // Whoever listens is told that notifications may have been lost, without asking.
    listens.expect("E:08006 (end)");
    cluster.primary().resume();
    let log = || tidegate.log();
    wait_until(LONG, "the old primary is found to be a leftover", || {
        log().contains("\"primary\" is a primary on timeline 1")
    });
    for number in 10..20 {
        wait_until_writable(&url(&tidegate), number);
    }
    let name = primary_of(&tidegate);
    let promoted = cluster.replicas().iter().find(|node| node.name() == name).unwrap();
    let kept: BTreeSet<u64> = numbers_on(promoted);
    assert_eq!(kept, BTreeSet::from_iter([1, 3].into_iter().chain(10..20)));
    assert_eq!(numbers_on(cluster.primary()), BTreeSet::from([1]));
    assert_eq!(promotions(&tidegate), 1);
}

#[test]
fn a_primary_that_is_restarted_keeps_its_place() {
    let cluster = cluster(1);
    let tidegate =
        tidegate(&cluster, "mode = \"embedded\"\nrestart_max = \"60s\"\nhold_max = \"60s\"");
    wait_until_steady(&tidegate);
    let mut client = Client::connect(&url(&tidegate));
    client.query("INSERT INTO t VALUES (1)");
    cluster.primary().stop();
    client.send(pipeline().query("INSERT INTO t VALUES (2)"));
    cluster.primary().start().unwrap();
    // It was held, and has run.
    client.expect("C ZI");
    assert_no_failover(&cluster, &tidegate, 3);
}

#[test]
fn a_primary_that_only_tidegate_cannot_reach_keeps_its_place() {
    let cluster = cluster(1);
    let relay = Relay::start(&cluster);
    let mut options =
        options(&cluster, "mode = \"embedded\"\nsilent_max = \"1s\"\nhold_max = \"3s\"");
    options.primary = relay.url_of(&options.primary);
    let tidegate = Tidegate::start(options);
    wait_until_steady(&tidegate);
    let mut reader = Client::connect(&url(&tidegate));
    wait_until(LONG, "reads go to the replica", || {
        reader.query("SELECT count(*) FROM t");
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT count(*) FROM t'";
        cluster.replica(0).psql(sql).unwrap() != "0"
    });
    relay.set_passing(Passing::RequestsLost);
    relay.cut();
    wait_until(LONG, "it is said why there is no failover", || {
        tidegate.log().contains("so only Tidegate cannot reach it")
    });
    wait_until(LONG, "statements are held no longer", || topology(&tidegate)["held"] == false);
    // Reads go on meanwhile.
    assert_eq!(reader.value("SELECT count(*) FROM t").as_deref(), Some("0"));
    relay.set_passing(Passing::On);
    relay.cut();
    assert_no_failover(&cluster, &tidegate, 1);
}

#[test]
fn a_full_primary_and_a_dead_replica_are_no_reason_for_a_failover() {
    let conf =
        vec!["max_connections = 20".to_owned(), "superuser_reserved_connections = 0".to_owned()];
    let options_of = ClusterOptions { replicas: 2, conf, ..ClusterOptions::default() };
    let cluster = Cluster::start(&options_of).unwrap();
    cluster.primary().psql("CREATE TABLE t (n bigint PRIMARY KEY)").unwrap();
    let tidegate = tidegate(&cluster, "mode = \"embedded\"");
    wait_until_steady(&tidegate);
    cluster.replica(0).kill();
    let direct = cluster.primary().url("postgres", "postgres");
    let mut others: Vec<Client> = Vec::new();
    while let Ok(client) = Client::try_connect(&direct, &[]) {
        others.push(client);
    }
    // Its own connection is ended, and there is no room for another.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidegate: health'";
    others[0].query(sql);
    let mut next = Client::try_connect(&direct, &[]);
    let denied = "refuses our user or has no room";
    wait_until(LONG, "it is seen to be full, or has let Tidegate in again", || {
        let server = topology(&tidegate)["servers"][0].clone();
        server["fault"] == denied || server["fault"].is_null()
    });
    drop((next.as_mut().ok(), others));
    assert_no_failover(&cluster, &tidegate, 1);
}

#[test]
fn who_only_follows_sends_writes_to_whom_somebody_else_has_promoted() {
    let cluster = cluster(2);
    let tidegate = tidegate(&cluster, "hold_max = \"60s\"");
    wait_until_steady(&tidegate);
    let mut client = Client::connect(&url(&tidegate));
    client.query("INSERT INTO t VALUES (1)");
    cluster.wait_until_caught_up().unwrap();
    cluster.primary().kill();
    client.send(pipeline().query("INSERT INTO t VALUES (2)"));
    wait_until(LONG, "the primary is suspected", || topology(&tidegate)["state"] == "suspect");
    assert_eq!(promotions(&tidegate), 0);
    cluster.replica(1).psql("SELECT pg_promote(true)").unwrap();
    client.expect("C ZI");
    wait_until_steady(&tidegate);
    assert_eq!(primary_of(&tidegate), "replica-2");
    assert_eq!(numbers_on(cluster.replica(1)), BTreeSet::from([1, 2]));
    // A reload with the file as it was changes nothing, and so does a restart of Tidegate.
    tidegate.reload();
    wait_until_steady(&tidegate);
    client.query("INSERT INTO t VALUES (3)");
    let again = self::tidegate(&cluster, "hold_max = \"60s\"");
    wait_until(LONG, "another Tidegate finds the primary", || {
        topology(&again)["primary"] == "replica-2" && topology(&again)["state"] == "steady"
    });
    wait_until_writable(&url(&again), 4);
    assert_eq!(numbers_on(cluster.replica(1)), BTreeSet::from([1, 2, 3, 4]));
}

/// What docs/failover.md has an operator run, with a password.
pub(crate) fn documented_grants() -> String {
    let page = include_str!("../../../docs/failover.md");
    let (_, rest) = page.split_once("```sql\n").unwrap();
    let (sql, _) = rest.split_once("```").unwrap();
    sql.replace("'…'", "'keeper-password'")
}

/// As a role that is no superuser, with the rights that the documentation asks for.
pub(crate) const AS_KEEPER: &str =
    "mode = \"embedded\"\nuser = \"tidegate\"\npassword = \"keeper-password\"";

#[test]
fn a_switchover_loses_nothing_and_fails_nobody() {
    let cluster = cluster(2);
    cluster.primary().psql(&documented_grants()).unwrap();
    cluster.wait_until_caught_up().unwrap();
    let tidegate = tidegate(&cluster, AS_KEEPER);
    let url = url(&tidegate);
    wait_until_steady(&tidegate);
    let writers = Writers::new();
    let said = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| writers.run(&url));
        }
        writers.wait_for_more(200);
        let said = tidegate.command(&["switchover", "--to", "replica-2"]);
        writers.wait_for_more(200);
        writers.stop.store(true, Ordering::Relaxed);
        said
    });
    assert_eq!(said.0, 0, "{}", said.1);
    assert!(said.1.starts_with("replica-2 is the primary now, after "), "{}", said.1);
    assert_eq!(*writers.errors.lock().unwrap(), [""; 0]);
    let kept = numbers_on(cluster.replica(1));
    let lost: Vec<u64> = writers.told.lock().unwrap().difference(&kept).copied().collect();
    assert_eq!(lost, [0; 0]);
    // Nobody writes on the old one, whatever they set, and the other replica follows the new one.
    let direct = Client::connect(&cluster.primary().url("postgres", "postgres"));
    let mut direct = direct;
    assert_eq!(direct.query("INSERT INTO t VALUES (0)")[0].sqlstate(), "25006");
    wait_until(LONG, "the other replica follows", || numbers_on(cluster.replica(0)) == kept);
    let (code, topology) = tidegate.command(&["topology"]);
    assert_eq!(code, 0, "{topology}");
    assert!(topology.contains("* replica-2") && topology.contains("timeline 2"), "{topology}");
}

#[test]
fn a_stopped_primary_rejoins_as_it_is_after_a_switchover() {
    let cluster = cluster(1);
    // The test stops and starts the servers, as an agent would; the commands wait for it.
    let command = |path: &str| {
        format!(
            "[\"sh\", \"-c\", \"env | grep TIDEGATE_ > {path}.tmp; mv {path}.tmp {path}; while [ -e {path} ]; do sleep 0.02; done\"]"
        )
    };
    let failover = format!(
        "mode = \"embedded\"\nfencing = \"required\"\nfence_timeout = \"60s\"\nfence_command = {}\nrejoin_command = {}",
        command("fence"),
        command("rejoin")
    );
    let tidegate = tidegate(&cluster, &failover);
    let folder = tidegate.log_path().parent().unwrap().to_owned();
    let (fence, rejoin) = (folder.join("fence"), folder.join("rejoin"));
    wait_until_steady(&tidegate);
    wait_until_writable(&url(&tidegate), 1);
    let old = cluster.primary();
    let said = thread::scope(|scope| {
        let command = scope.spawn(|| tidegate.command(&["switchover", "--wait", "2min"]));
        wait_until(LONG, "the primary is to be stopped", || fence.exists());
        let told = std::fs::read_to_string(&fence).unwrap();
        assert!(told.contains("TIDEGATE_ACTION=switchover"), "{told}");
        assert!(told.contains(&format!("TIDEGATE_PORT={}", old.port())), "{told}");
        old.stop();
        std::fs::remove_file(&fence).unwrap();
        wait_until(LONG, "the old primary is to rejoin", || rejoin.exists());
        let told = std::fs::read_to_string(&rejoin).unwrap();
        let new_port = format!("TIDEGATE_PRIMARY_PORT={}", cluster.replica(0).port());
        assert!(told.contains("TIDEGATE_ACTION=rejoin") && told.contains(&new_port), "{told}");
        follow(old, cluster.replica(0));
        old.start().unwrap();
        std::fs::remove_file(&rejoin).unwrap();
        command.join().unwrap()
    });
    assert_eq!(said.0, 0, "{}", said.1);
    wait_until_writable(&url(&tidegate), 2);
    wait_until(LONG, "the old primary follows the new one", || {
        numbers_on(old) == BTreeSet::from([1, 2])
    });
    // And it may become primary again: nothing of the switchover is left there.
    wait_until(LONG, "its settings are as before", || {
        old.psql("SHOW synchronous_standby_names").unwrap().is_empty()
    });
    wait_until(LONG, "it serves reads", || {
        topology(&tidegate)["servers"][1]["serves_reads"] == true
    });
}

/// Makes a stopped server a replica of another.
fn follow(server: &Node, primary: &Node) {
    let data = server.data_directory();
    std::fs::write(data.join("standby.signal"), "").unwrap();
    let conninfo = format!(
        "\nprimary_conninfo = 'host=127.0.0.1 port={} user=postgres password={}'\n",
        primary.port(),
        password_of("postgres")
    );
    let path = data.join("postgresql.auto.conf");
    let settings = std::fs::read_to_string(&path).unwrap() + &conninfo;
    std::fs::write(path, settings).unwrap();
}
