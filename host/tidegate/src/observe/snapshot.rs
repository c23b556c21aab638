//! Plain data about this moment: what `SHOW POOLS` is to PgBouncer, as JSON.
//!
//! Ages are milliseconds up to the snapshot, so that nothing here needs a wall clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_policy::PLAN_TIMES;

use super::served::ServedSnapshot;
use super::stats::WorkerTotals;

/// How much a snapshot holds: a scrape must not copy ten thousand clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Totals and pools; `clients` and `servers` may stay empty.
    Pools,
    /// And clients.
    Clients,
    /// And servers.
    Servers,
}

/// The process at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    pub uptime_ms: u64,
    pub workers: usize,
    /// Workers that did not answer in time; what they hold is missing below, their totals are not.
    pub workers_silent: usize,
    /// Databases with code that may leave state unseen.
    pub databases_hidden_state: usize,
    /// Summed over the workers.
    pub totals: WorkerTotals,
    /// Requests over HTTP, by `HttpOutcome`.
    pub http: Vec<u64>,
    /// Answers that are kept.
    pub kept: KeptSnapshot,
    /// Limits that several processes count together.
    pub limits: LimitsSnapshot,
    /// What operators hold.
    pub paused: PausedSnapshot,
    /// Empty where there is but one server.
    pub cluster: Vec<MemberSnapshot>,
    /// What each server has done.
    pub served: Vec<ServedSnapshot>,
    /// Statements for the primary wait until it is certain which server it is.
    pub primary_held: bool,
    /// How often another server has become the primary in force.
    pub primary_changes: u64,
    pub pools: Vec<PoolSnapshot>,
    pub clients: Vec<ClientSnapshot>,
    pub servers: Vec<ServerSnapshot>,
    /// Slots of plugins, whoever is in them.
    pub plugin_slots: Vec<PluginSlotSnapshot>,
    /// Versions of plugins that are loaded.
    pub plugins: Vec<PluginSnapshot>,
    /// What plugins count themselves.
    pub recorded: Vec<RecordedSnapshot>,
}

/// One server of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemberSnapshot {
    /// `primary`, `replica-1`, …, whatever it is now.
    pub server: String,
    /// It answers.
    pub is_up: bool,
    /// Writes go there.
    pub is_primary: bool,
    pub serves_reads: bool,
    /// Of a replica, where it is known.
    pub lag_seconds: Option<f64>,
    /// It would serve reads, and is left out since it is slow or fails.
    pub is_ejected: bool,
    /// How busy its machine is, in percent, where it is known.
    pub cpu_percent: Option<f64>,
    pub memory_percent: Option<f64>,
    pub disk_percent: Option<f64>,
}

/// Answers that are kept in memory, and what became of those who looked for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeptSnapshot {
    pub entries: usize,
    pub bytes: usize,
    pub hits: u64,
    pub misses: u64,
    /// Of the misses: an answer was there and stood no more.
    pub stale: u64,
    /// Of the misses: an answer was there and stood, and was read anew before its time.
    pub refreshes: u64,
    /// Of the misses: they were asked for once, and there was no room.
    pub unseen: u64,
    pub puts: u64,
    /// Of these, those kept compressed; and the bytes that has saved.
    pub packed: u64,
    pub packed_saved: u64,
    pub evictions: u64,
    /// Tables, databases and the like that committed writes have taken the answers of.
    pub invalidations: u64,
    /// Answers that were read again since they had been written.
    pub rereads: u64,
    /// Answers that are kept since an operator has named their statements.
    pub warmed: u64,
    /// Answers that were given and read once more, and those that differed.
    pub inspected: u64,
    pub different: u64,
    /// Reads that waited for another of the same.
    pub followed: u64,
    /// Of these, those that were answered with what it brought.
    pub followed_served: u64,
    /// Statements whose answers a policy wanted kept and that may not be: by `tidegate_cache::Deny::ALL`.
    pub denied: Vec<u64>,
    /// What several processes share.
    pub shared: SharedSnapshot,
    /// Writes that do not pass.
    pub logs: LogsSnapshot,
}

/// Databases whose log is followed, and what that has brought. All 0 where none is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogsSnapshot {
    pub databases: usize,
    pub followed: usize,
    /// Of those that are followed, since the oldest moment up to which everything has been heeded.
    pub lag_ms: u64,
    pub bytes: u64,
    pub transactions: u64,
    /// Tables and the like whose answers were taken.
    pub taken: u64,
    /// Changes of names or rights.
    pub renamed: u64,
    pub losses: u64,
}

/// Answers in Redis, and what became of those who asked for one. All 0 where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SharedSnapshot {
    /// Others can be told of writes.
    pub is_joined: bool,
    /// And all others are heard.
    pub serves: bool,
    pub looks: u64,
    pub relied: u64,
    pub hits: u64,
    pub puts: u64,
    pub late: u64,
    pub untold: u64,
    pub losses: u64,
}

/// What is counted in Redis, and what became of statements that asked. All 0 where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitsSnapshot {
    /// Those who count together are reached.
    pub is_shared: bool,
    /// How many they are, this one included.
    pub members: u32,
    pub round_trips: u64,
    /// Units taken from Redis; of them, those that were given back.
    pub taken: u64,
    pub returned: u64,
    /// Statements that passed with units in hand, and those that were counted by this process alone.
    pub leased: u64,
    pub alone: u64,
    /// Statements refused, or told to wait, without asking.
    pub denied: u64,
    pub failures: u64,
    pub losses: u64,
}

/// Which databases are paused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PausedSnapshot {
    pub all: bool,
    /// Where not all are, the ones that are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Where all are, the ones that are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

impl Snapshot {
    /// Whether something is missing.
    pub fn is_partial(&self) -> bool {
        self.workers_silent > 0
    }
}

/// The server connections of one database and user at one server, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PoolSnapshot {
    pub database: String,
    pub user: String,
    /// `primary`, `replica-1`, …
    pub server: String,
    /// `write` or `read`.
    pub role: &'static str,
    /// `transaction` or `session`.
    pub mode: &'static str,
    pub size_min: usize,
    pub size_max: usize,
    pub idle: usize,
    /// Lent to a client, pinned ones included.
    pub active: usize,
    /// Of the active ones, those a client keeps beyond its transaction.
    pub pinned: usize,
    pub connecting: usize,
    /// Connections beside those, which listen for clients, at most one for each worker; and how many clients listen by them.
    pub listeners: usize,
    pub listening: usize,
    /// Clients in the queue, and how long the first of them has waited.
    pub waiting: usize,
    pub waiting_ms_max: u64,
    /// Whether an operator holds its clients.
    pub paused: bool,
    /// Whether an operator wants no new reads at its server.
    pub drained: bool,
    /// Of the connections, those that are replaced when they come back.
    pub stale: usize,
    /// Whether the utilisation warning stands.
    pub warned: bool,
    /// Why connections can't be made now, if so.
    pub failing: Option<String>,
    /// Workers whose circuit breaker of it is not closed.
    pub breakers_open: usize,
}

impl PoolSnapshot {
    /// Open connections.
    pub fn size(&self) -> usize {
        self.idle + self.active
    }

    /// Of `size_max`, in use; zero to one hundred.
    pub fn utilisation_percent(&self) -> f64 {
        if self.size_max == 0 { 0.0 } else { self.active as f64 * 100.0 / self.size_max as f64 }
    }
}

/// One client connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClientSnapshot {
    pub id: u64,
    pub worker: usize,
    pub user: String,
    pub database: String,
    /// `application_name`, as the client last set it.
    pub application: String,
    /// `127.0.0.1:50000` or `unix`.
    pub peer: String,
    pub tls: bool,
    /// `login`, `idle`, `active`, `waiting`, `in_transaction`, `in_failed_transaction`, `replicating`, …
    pub state: &'static str,
    pub pinned_by: Vec<&'static str>,
    /// The server connection it holds.
    pub server: Option<u64>,
    pub connected_ms: u64,
    /// How long it has been in `state`.
    pub state_ms: u64,
    pub transactions: u64,
    pub statements: u64,
    pub prepared: usize,
}

/// One server connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServerSnapshot {
    pub id: u64,
    pub worker: usize,
    /// `primary`, `replica-1`, …
    pub server: String,
    pub address: String,
    pub user: String,
    pub database: String,
    pub tls: bool,
    /// `connecting`, `idle`, `active`, `pinned`, `closing`.
    pub state: &'static str,
    /// The client that holds it.
    pub client: Option<u64>,
    /// The backend's process id, as in `pg_stat_activity`.
    pub backend_pid: Option<i32>,
    pub connected_ms: u64,
    pub state_ms: u64,
    pub transactions: u64,
    pub prepared: usize,
}

/// What has happened in one slot of plugins since the process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PluginSlotSnapshot {
    pub slot: &'static str,
    /// Versions that were taken out.
    pub quarantines: u64,
    /// By why.
    pub canaries_given_up: BTreeMap<&'static str, u64>,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
}

/// One version of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PluginSnapshot {
    pub slot: &'static str,
    /// `active`, `previous`, `shadow` or `canary`.
    pub state: &'static str,
    pub plugin: String,
    pub generation: u64,
    pub calls: u64,
    /// Calls for the shares of replicas.
    pub weighings: u64,
    /// Calls for plans, and how long they took together.
    pub plans: u64,
    pub plan_micros: u64,
    /// How many took no longer than each of `tidegate_policy::PLAN_TIMES`.
    pub plans_within: [u64; PLAN_TIMES.len()],
    /// Of its largest instance.
    pub memory_bytes: u64,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Of a shadow: questions that both versions answered, and those that they answered differently.
    pub compared: u64,
    pub different: u64,
}

/// A value that a plugin keeps itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RecordedSnapshot {
    pub slot: &'static str,
    pub name: String,
    pub value: f64,
}
