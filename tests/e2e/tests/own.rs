//! A Tidegate of a test's own, and what its admin API says about clients and pools.

use serde_json::Value;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Message, Relay, Tidegate, TidegateOptions, shared_cluster,
    wait_until,
};

/// What is expected to happen soon happens within this.
pub const SOON: Duration = Duration::from_secs(20);

/// One worker, so that two clients meet the same connections, and pools of this size.
pub fn pool_of(size: usize) -> String {
    format!("workers = 1\n[pool]\nsize_min = 0\nsize_max = {size}\n")
}

/// A Tidegate in front of a cluster with this configuration.
#[track_caller]
pub fn tidegate(cluster: &Cluster, database: &str, toml: &str) -> Tidegate {
    let options = TidegateOptions::for_cluster(cluster, database);
    Tidegate::start(TidegateOptions { toml: Some(toml.to_owned()), ..options })
}

/// A Tidegate that reaches the shared cluster's primary through a relay, and knows no replica.
#[track_caller]
pub fn behind_relay(database: &str, toml: &str) -> (Tidegate, Relay) {
    let relay = Relay::start(shared_cluster());
    let options = TidegateOptions {
        primary: relay.url_of(&shared_cluster().primary().url(ROLE, database)),
        toml: Some(toml.to_owned()),
        ..TidegateOptions::default()
    };
    (Tidegate::start(options), relay)
}

/// A primary that the test may kill, with the tests' role and a database of that role.
pub fn cluster_with(database: &str) -> Cluster {
    cluster_with_replicas(database, 0)
}

/// The same with replicas, which the test may kill as well.
pub fn cluster_with_replicas(database: &str, replicas: usize) -> Cluster {
    cluster_like(database, &ClusterOptions { replicas, ..ClusterOptions::default() })
}

/// The same with these options.
pub fn cluster_like(database: &str, options: &ClusterOptions) -> Cluster {
    let cluster = Cluster::start(options).unwrap_or_else(|error| panic!("{error}"));
    cluster.create_role(ROLE).unwrap_or_else(|error| panic!("{error}"));
    cluster.create_database(database, ROLE).unwrap_or_else(|error| panic!("{error}"));
    cluster.wait_until_caught_up().unwrap_or_else(|error| panic!("{error}"));
    cluster
}

#[track_caller]
pub fn json(tidegate: &Tidegate, path: &str) -> Value {
    let answer = tidegate.admin_get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A metric without labels.
#[track_caller]
pub fn metric(tidegate: &Tidegate, name: &str) -> f64 {
    let text = tidegate.admin_get("/metrics").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is not in {text}"))
}

/// The only pool for writes that there is.
#[track_caller]
pub fn write_pool(tidegate: &Tidegate) -> Value {
    let pools = json(tidegate, "/api/v1/pools");
    let mut pools = pools["pools"].as_array().unwrap().iter();
    pools.find(|pool| pool["role"] == "write").unwrap().clone()
}

/// The client with this `application_name`.
pub fn client(tidegate: &Tidegate, application: &str) -> Option<Value> {
    let list = json(tidegate, "/api/v1/clients");
    list["clients"].as_array()?.iter().find(|client| client["application"] == application).cloned()
}

/// Waits until a client with this state is there.
#[track_caller]
pub fn wait_for_state(tidegate: &Tidegate, state: &str) {
    wait_until(SOON, &format!("a client is {state}"), || {
        let list = json(tidegate, "/api/v1/clients");
        list["clients"].as_array().is_some_and(|all| all.iter().any(|c| c["state"] == state))
    });
}

/// Waits until so many sessions of the database run this.
#[track_caller]
pub fn wait_until_running(cluster: &Cluster, database: &str, what: &str, count: usize) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active' \
         AND query LIKE '%{what}%'"
    );
    wait_until(SOON, &format!("{count} × {what}"), || {
        cluster.primary().psql(&sql).unwrap() == count.to_string()
    });
}

/// Waits until all clients together are pinned by exactly these causes.
#[track_caller]
pub fn wait_for_pins(tidegate: &Tidegate, wanted: &[&str]) {
    wait_until(SOON, &format!("clients are pinned by {wanted:?}"), || {
        let list = json(tidegate, "/api/v1/clients");
        let clients = list["clients"].as_array().cloned().unwrap_or_default();
        let seen: Vec<String> = clients
            .iter()
            .flat_map(|client| client["pinned_by"].as_array().cloned().unwrap_or_default())
            .filter_map(|cause| cause.as_str().map(str::to_owned))
            .collect();
        seen == wanted
    });
}

/// SQLSTATE of the error in the answer to a text; empty for none.
#[track_caller]
pub fn sqlstate(client: &mut Client, sql: &str) -> String {
    let answer = client.query(sql);
    answer.iter().find(|message| message.tag == b'E').map(Message::sqlstate).unwrap_or_default()
}

/// A temporary folder of one test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("tidegate-e2e-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Is there an active policy in every slot?
pub fn policies_answer(tidegate: &Tidegate) -> bool {
    const SLOTS: [&str; 4] = ["routing", "caching", "limiting", "advising"];
    let active = |slot| json(tidegate, &format!("/api/v1/plugins/{slot}"))["active"].is_object();
    SLOTS.into_iter().all(active)
}
