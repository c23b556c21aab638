//! Every metric, in one table: what it is called, what it means, where its value comes from.
//!
//! `docs/metrics.md` is [`markdown`] of the table; a test holds the two together. A scrape fills a
//! recorder of its own, so that a pool that is gone is gone from `/metrics` too.

mod markdown; // the table, for people

pub use markdown::markdown;

use std::collections::BTreeMap;

use metrics::{Key, KeyName, Label, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use tidegate_cache::Deny;
use tidegate_policy::PLAN_TIMES;

use super::served::ServedSnapshot;
use super::snapshot::{
    KeptSnapshot, MemberSnapshot, PluginSlotSnapshot, PluginSnapshot, PoolSnapshot, SharedSnapshot,
    Snapshot,
};
use super::stats::{
    CounterLabel, ErrorKind, GivenUp, HttpOutcome, PinReason, PlanSlot, WorkerTotals,
};

/// One metric.
pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
    read: Read,
}

/// Where the value of a metric is found, which also says whether it is a counter or a gauge.
enum Read {
    Counter(fn(&WorkerTotals) -> u64),
    Gauge(fn(&Snapshot) -> f64),
    /// A counter for each value of a label.
    CounterBy(&'static str, &'static [&'static str], fn(&WorkerTotals) -> &[u64]),
    /// A gauge for each pool.
    Pool(fn(&PoolSnapshot) -> f64),
    /// A counter of the process that no worker has.
    Process(fn(&Snapshot) -> u64),
    /// The same by a label.
    ProcessBy(&'static str, &'static [&'static str], fn(&Snapshot) -> &[u64]),
    /// A gauge for each server of the cluster, where it has a value.
    Member(fn(&MemberSnapshot) -> Option<f64>),
    /// A counter for each server that was ever asked.
    Served(fn(&ServedSnapshot) -> u64),
    /// A counter for each version of a plugin that is loaded.
    Plugin(fn(&PluginSnapshot) -> u64),
    /// The same by kind of fault.
    PluginFaults,
    /// The same by how long calls for plans took, as a histogram's buckets.
    PluginPlanTimes,
    /// A gauge for each version of a plugin.
    PluginMemory,
    /// A counter for each slot of plugins.
    Slot(fn(&PluginSlotSnapshot) -> u64),
    /// The same by a label, the last of these.
    SlotBy(
        &'static str,
        &'static [&'static str],
        fn(&PluginSlotSnapshot) -> &BTreeMap<&'static str, u64>,
    ),
    /// What plugins record themselves.
    Recorded,
    /// Counters and gauges of answers that are kept, by where.
    Kept(fn(&KeptSnapshot) -> u64),
    Shared(fn(&SharedSnapshot) -> u64),
    KeptNow(fn(&KeptSnapshot) -> usize),
    KeptNot,
}

const POOL_LABELS: [&str; 4] = ["database", "user", "server", "role"];
const PLUGIN_LABELS: [&str; 4] = ["slot", "state", "plugin", "generation"];
const FAULT_LABELS: [&str; 5] = ["slot", "state", "plugin", "generation", "fault"];
const TIME_LABELS: [&str; 5] = ["slot", "state", "plugin", "generation", "le"];
const MEMBER_LABELS: [&str; 1] = ["server"];
const SLOT_LABELS: [&str; 1] = ["slot"];
const SLOT_FAULT_LABELS: [&str; 2] = ["slot", "fault"];
const SLOT_REASON_LABELS: [&str; 2] = ["slot", "reason"];
const LAYER_LABELS: [&str; 1] = ["layer"];
const RULE_LABELS: [&str; 2] = ["rule", "reason"];
const RECORDED_LABELS: [&str; 2] = ["slot", "name"];

/// The table, in the order of the documentation.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    counter("tidegate_clients_accepted_total", "Client connections accepted.", |t| t.clients_accepted),
    gauge("tidegate_clients", "Client connections open now, logging in included.", |s| s.totals.clients_open as f64),
    gauge("tidegate_listeners", "Server connections that listen for clients: at most one for each database and user of a worker, beside the pools.", |s| s.totals.listeners_open as f64),
    counter("tidegate_logins_total", "Clients that logged in.", |t| t.logins_ok),
    counter("tidegate_logins_failed_total", "Clients that were refused at login.", |t| t.logins_failed),
    counter("tidegate_transactions_total", "Transactions that ended, committed or not; a statement outside a block is one.", |t| t.transactions),
    counter("tidegate_statements_total", "Statements sent to servers for clients.", |t| t.statements),
    counter("tidegate_client_received_bytes_total", "Bytes read from clients.", |t| t.bytes_from_clients),
    counter("tidegate_client_sent_bytes_total", "Bytes written to clients.", |t| t.bytes_to_clients),
    counter("tidegate_server_sent_bytes_total", "Bytes written to servers.", |t| t.bytes_to_servers),
    counter("tidegate_server_received_bytes_total", "Bytes read from servers.", |t| t.bytes_from_servers),
    counter("tidegate_cancels_total", "Cancel requests passed to a server.", |t| t.cancels),
    counter("tidegate_probes_total", "Times a server was asked what state a client had left in its session.", |t| t.probes),
    counter("tidegate_settings_applied_total", "Settings sent to a server so that it has what its client set.", |t| t.settings_applied),
    counter("tidegate_reprepared_total", "Prepared statements sent again since the server did not know them.", |t| t.reprepared),
    counter("tidegate_reads_waited_total", "Reads that no replica was fresh enough for and that waited, up to routing.catch_up_max, for one to catch up.", |t| t.reads_waited),
    counter("tidegate_reads_fallen_back_total", "Reads for the primary since no replica was fit for them, or the one that was chosen did not take them (routing.fallback_percent).", |t| t.reads_fallen_back),
    counter("tidegate_reads_repeated_total", "Reads run again on the primary since the replica that had them was lost, cancelled them for what it replays, or refused them as writes.", |t| t.reads_repeated),
    counter("tidegate_reads_disproved_total", "Of those run again: statements that were proven to be reads and that the replica refused as writes (25006).", |t| t.reads_disproved),
    counter("tidegate_replays_total", "Interrupted transactions run again, each time that was tried (pool.transaction_replay).", |t| t.replays),
    counter("tidegate_replays_succeeded_total", "Of those, the ones that came back as their clients had been told, and went on.", |t| t.replays_succeeded),
    counter("tidegate_replays_differed_total", "Of those, the ones that were answered otherwise and were rolled back with 40001.", |t| t.replays_differed),
    counter_by::<GivenUp>("tidegate_replays_given_up_total", "Interrupted transactions of clients that want them run again, and that were not, by why.", "reason", |t| &t.replays_given_up),
    counter("tidegate_prepared_evicted_total", "Prepared statements closed on a server to keep within its bound.", |t| t.prepared_evicted),
    counter("tidegate_listeners_lost_total", "Connections lost that listened for clients, who were told.", |t| t.listeners_lost),
    counter("tidegate_notifications_total", "Notifications that came for clients, whatever their number.", |t| t.notifications),
    counter("tidegate_pool_waits_total", "Times a client waited for a server connection.", |t| t.pool_waits),
    counter("tidegate_pool_wait_microseconds_total", "Microseconds clients waited for server connections.", |t| t.pool_wait_micros),
    counter("tidegate_servers_opened_total", "Server connections opened.", |t| t.servers_opened),
    counter("tidegate_servers_closed_total", "Server connections closed.", |t| t.servers_closed),
    counter("tidegate_server_connect_failures_total", "Attempts to open a server connection that failed.", |t| t.server_connect_failures),
    counter_by::<ErrorKind>("tidegate_errors_total", "Errors of Tidegate's own that a client was answered with or that ended its connection.", "kind", |t| &t.errors),
    counter_by::<PinReason>("tidegate_pins_total", "Times a client kept its server beyond a transaction.", "reason", |t| &t.pins),
    pool("tidegate_pool_size_min", "Connections the pool keeps at least.", |p| p.size_min as f64),
    pool("tidegate_pool_size_max", "Connections the pool opens at most.", |p| p.size_max as f64),
    pool("tidegate_pool_idle", "Connections that wait for a client.", |p| p.idle as f64),
    pool("tidegate_pool_active", "Connections lent to a client.", |p| p.active as f64),
    pool("tidegate_pool_pinned", "Of the active connections, those a client keeps beyond its transaction.", |p| p.pinned as f64),
    pool("tidegate_pool_connecting", "Connections being opened.", |p| p.connecting as f64),
    pool("tidegate_pool_listeners", "Connections beside the pool that listen for its clients: at most one for each worker.", |p| p.listeners as f64),
    pool("tidegate_pool_listening", "Clients that listen by those.", |p| p.listening as f64),
    pool("tidegate_pool_waiting", "Clients in the queue of the pool.", |p| p.waiting as f64),
    pool("tidegate_pool_waiting_seconds_max", "How long the first client of the queue has waited.", |p| p.waiting_ms_max as f64 / 1000.0),
    pool("tidegate_pool_paused", "1 while an operator holds the clients of the pool (`tidegate pause`).", |p| f64::from(u8::from(p.paused))),
    pool("tidegate_pool_stale", "Connections that are replaced when they come free, since an operator said reconnect or the server's address changed.", |p| p.stale as f64),
    pool("tidegate_pool_utilisation_ratio", "Active connections over the maximum, zero to one.", |p| p.utilisation_percent() / 100.0),
    pool("tidegate_pool_utilisation_warning", "1 while the utilisation warning of the pool stands.", |p| f64::from(u8::from(p.warned))),
    pool("tidegate_pool_breakers_open", "Workers whose circuit breaker of the pool is not closed.", |p| p.breakers_open as f64),
    pool("tidegate_pool_failing", "1 while connections of the pool can't be opened.", |p| f64::from(u8::from(p.failing.is_some()))),
    counter("tidegate_shapes_found_total", "Texts that were read whose shape was known already.", |t| t.shapes_found),
    counter("tidegate_shapes_made_total", "Texts that PostgreSQL's grammar had to parse.", |t| t.shapes_made),
    counter("tidegate_shapes_evicted_total", "Shapes that were forgotten to make room for others.", |t| t.shapes_evicted),
    counter_by::<PlanSlot>("tidegate_plans_found_total", "Statements whose plan was known already: nobody was asked.", "slot", |t| &t.plans_found),
    counter_by::<PlanSlot>("tidegate_plans_made_total", "Plans made and kept, by a plugin or Tidegate itself: the rate of hits is found / (found + made).", "slot", |t| &t.plans_made),
    plugin("tidegate_plugin_calls_total", "Calls of a version of a plugin, of every kind, those of its self-test included.", |p| p.calls),
    plugin("tidegate_plugin_weighings_total", "Of these, those for the shares of replicas, about one a second.", |p| p.weighings),
    plugin("tidegate_plugin_plans_total", "Of these, those for plans, which each worker asks for once for each shape of statements (and whom it runs for, where that matters).", |p| p.plans),
    plugin("tidegate_plugin_plan_microseconds_total", "Microseconds that those took.", |p| p.plan_micros),
    Metric { name: "tidegate_plugin_plan_seconds_bucket", help: "Calls for plans that took no longer than `le` seconds.", read: Read::PluginPlanTimes },
    Metric { name: "tidegate_plugin_memory_bytes", help: "Memory of its largest instance; there is one for each thread.", read: Read::PluginMemory },
    plugin("tidegate_plugin_compared_total", "Questions that a shadow and the active version both answered.", |p| p.compared),
    plugin("tidegate_plugin_different_total", "Of these, those that they answered differently.", |p| p.different),
    Metric { name: "tidegate_plugin_faults_total", help: "Calls of a version that is loaded which gave no usable answer: the host answered itself.", read: Read::PluginFaults },
    Metric { name: "tidegate_plugin_slot_faults_total", help: "The same of all versions that a slot has had since the process began: what alerts watch.", read: Read::SlotBy("fault", &SLOT_FAULT_LABELS, |s| &s.faults) },
    Metric { name: "tidegate_plugin_quarantines_total", help: "Versions that failed too often and were taken out of a slot.", read: Read::Slot(|s| s.quarantines) },
    Metric { name: "tidegate_plugin_canaries_given_up_total", help: "Canaries of a slot that Tidegate gave up.", read: Read::SlotBy("reason", &SLOT_REASON_LABELS, |s| &s.canaries_given_up) },
    Metric { name: "tidegate_plugin_recorded", help: "What plugins count or measure themselves, under their own names.", read: Read::Recorded },
    member("tidegate_server_up", "Whether the server of the cluster answers.", |m| Some(f64::from(u8::from(m.is_up)))),
    member("tidegate_server_primary", "Whether writes go there.", |m| Some(f64::from(u8::from(m.is_primary)))),
    member("tidegate_server_serves_reads", "Whether reads may go there: it follows the primary, and not too far behind.", |m| Some(f64::from(u8::from(m.serves_reads)))),
    member("tidegate_server_lag_seconds", "How far the replica is behind the primary.", |m| m.lag_seconds),
    member("tidegate_server_ejected", "1 while the replica gets no reads since it is much slower than the others, or fails (routing.eject_time).", |m| Some(f64::from(u8::from(m.is_ejected)))),
    member("tidegate_server_cpu_percent", "How busy the processors of its machine are, where that is known.", |m| m.cpu_percent),
    member("tidegate_server_memory_percent", "The memory of its machine that is in use, where that is known.", |m| m.memory_percent),
    member("tidegate_server_disk_percent", "The used part of the file system that its data are on, where a node_exporter tells.", |m| m.disk_percent),
    served("tidegate_server_statements_total", "Statements sent to the server for clients.", |s| s.statements),
    served("tidegate_server_errors_total", "Of those, the ones that it answered with an error.", |s| s.errors),
    served("tidegate_server_transactions_total", "Times that a connection to the server was lent: for a transaction, or for as long as a client kept it.", |s| s.transactions),
    served("tidegate_server_busy_microseconds_total", "For how long, in all.", |s| s.busy_micros),
    gauge("tidegate_primary_held", "Whether statements for the primary wait until it is certain which server it is.", |s| f64::from(u8::from(s.primary_held))),
    Metric { name: "tidegate_primary_changes_total", help: "How often another server has become the primary, by whomever.", read: Read::Process(|s| s.primary_changes) },
    kept("tidegate_cache_hits_total", "Statements answered without a server.", |k| k.hits),
    kept("tidegate_cache_misses_total", "Statements that may be kept, and of which no answer was there that stood.", |k| k.misses),
    kept("tidegate_cache_stale_total", "Of the misses, those of which an answer was there that a write had taken.", |k| k.stale),
    kept("tidegate_cache_refreshes_total", "Of the misses, those of which an answer was there that stood, and was read anew before its time was over.", |k| k.refreshes),
    kept("tidegate_cache_unseen_total", "Of the misses, those that are not kept since there was no room and they were asked for once (`cache.admission = \"second\"`).", |k| k.unseen),
    kept("tidegate_cache_puts_total", "Answers kept.", |k| k.puts),
    kept("tidegate_cache_compressed_total", "Of these, those kept compressed (`cache.compress_kib_min`).", |k| k.packed),
    kept("tidegate_cache_compression_saved_bytes_total", "What they took less than they would have as they came.", |k| k.packed_saved),
    kept("tidegate_cache_evictions_total", "Answers that made room for others.", |k| k.evictions),
    kept("tidegate_cache_invalidations_total", "Tables and the like that committed writes took the answers of.", |k| k.invalidations),
    kept("tidegate_cache_rereads_total", "Answers that were read again, before the writer was told, since it had changed them (write-through).", |k| k.rereads),
    kept("tidegate_cache_warmed_total", "Answers that were kept since `[[cache.warm]]` or an order of `tidegate cache warm` names their statements.", |k| k.warmed),
    kept("tidegate_cache_inspected_total", "Answers that were given from memory or Redis, and read once more on the primary while nothing of what they are read from was written (`cache.inspect_per_second`).", |k| k.inspected),
    kept("tidegate_cache_inspected_different_total", "Of these, those that differed: something writes past Tidegate, or the answer need not be the same twice.", |k| k.different),
    gauge("tidegate_cache_inspected_nines", "So many nines of the answers that are given are known to be true: 3 when of 999 none differed.", |s| tidegate_cache::nines(s.kept.inspected, s.kept.different)),
    kept("tidegate_cache_followed_total", "Statements that waited for another client's of the same, which ran.", |k| k.followed),
    kept("tidegate_cache_followed_served_total", "Of these, those that were answered with what it brought.", |k| k.followed_served),
    Metric { name: "tidegate_cache_entries", help: "Answers that are there.", read: Read::KeptNow(|k| k.entries) },
    Metric { name: "tidegate_cache_bytes", help: "Memory of them and their keys.", read: Read::KeptNow(|k| k.bytes) },
    Metric { name: "tidegate_cache_denied_total", help: "Statements that a policy wanted kept and that may not be, by the rule of docs/cache.md.", read: Read::KeptNot },
    Metric { name: "tidegate_http_requests_total", help: "Requests to the HTTP endpoint, by what has become of them.", read: Read::ProcessBy("outcome", HttpOutcome::LABELS, |s| &s.http) },
    gauge("tidegate_cache_l2_joined", "1 while others who share the Redis of [cache.redis] can be told of writes.", |s| f64::from(u8::from(s.kept.shared.is_joined))),
    gauge("tidegate_cache_l2_serving", "1 while, besides, all of [[peers]] are heard: only then are answers served or kept.", |s| f64::from(u8::from(s.kept.shared.serves))),
    shared("tidegate_cache_l2_looks_total", "Questions to Redis whether an answer stands, or for one.", |k| k.looks),
    shared("tidegate_cache_l2_relied_total", "Answers from memory without a question to Redis, since what it had told a moment before stood.", |k| k.relied),
    shared("tidegate_cache_l2_hits_total", "Answers that Redis had and this process had not.", |k| k.hits),
    shared("tidegate_cache_l2_puts_total", "Answers put into Redis.", |k| k.puts),
    shared("tidegate_cache_l2_late_total", "Questions that were not answered within the deadline: a server was asked.", |k| k.late),
    shared("tidegate_cache_l2_untold_total", "Times that a commit could not be told the others: it waited until nobody served what it changed.", |k| k.untold),
    shared("tidegate_cache_l2_losses_total", "Times that Redis was lost.", |k| k.losses),
    gauge("tidegate_cache_log_databases", "Databases whose log is to be followed, for writes that do not pass Tidegate (`cache.follow_wal`).", |s| s.kept.logs.databases as f64),
    gauge("tidegate_cache_log_followed", "Of these, those that are followed: nothing is kept of the others.", |s| s.kept.logs.followed as f64),
    gauge("tidegate_cache_log_lag_seconds", "Since the moment up to which everything is known to have been heeded, of the one that is last; beyond 3 s none of its answers are given.", |s| s.kept.logs.lag_ms as f64 / 1000.0),
    process("tidegate_cache_log_bytes_total", "Bytes of logs that servers have sent.", |s| s.kept.logs.bytes),
    process("tidegate_cache_log_transactions_total", "Transactions that logs have told of, those through Tidegate included.", |s| s.kept.logs.transactions),
    process("tidegate_cache_log_taken_total", "Tables and the like that they have taken the answers of.", |s| s.kept.logs.taken),
    process("tidegate_cache_log_renamed_total", "Changes of schemas or rights that were found so: all answers were taken.", |s| s.kept.logs.renamed),
    process("tidegate_cache_log_losses_total", "Times that a database could not be followed, or not any more.", |s| s.kept.logs.losses),
    gauge("tidegate_limits_shared", "1 while limits are counted with other Tidegates in the Redis of [rates.redis].", |s| f64::from(u8::from(s.limits.is_shared))),
    gauge("tidegate_limits_members", "Tidegates that count together, as far as this one knows.", |s| f64::from(s.limits.members)),
    process("tidegate_limits_round_trips_total", "Questions to that Redis.", |s| s.limits.round_trips),
    process("tidegate_limits_units_taken_total", "Units taken from it, to be used at once or within a slot of their window.", |s| s.limits.taken),
    process("tidegate_limits_units_returned_total", "Of them, those that were not used and given back.", |s| s.limits.returned),
    process("tidegate_limits_leased_total", "Statements that passed with units that had been taken.", |s| s.limits.leased),
    process("tidegate_limits_local_total", "Statements that passed as this process counts alone, since Redis did not answer.", |s| s.limits.alone),
    process("tidegate_limits_denied_locally_total", "Statements refused, or told to wait for room, without a question.", |s| s.limits.denied),
    process("tidegate_limits_failures_total", "Answers that were errors, or late.", |s| s.limits.failures),
    process("tidegate_limits_losses_total", "Times that Redis was lost.", |s| s.limits.losses),
    gauge("tidegate_databases_hidden_state", "Databases with triggers, defaults, views, operators or the like that may leave state in sessions: a probe follows what may have run one.", |s| s.databases_hidden_state as f64),
    gauge("tidegate_workers", "Data-plane threads.", |s| s.workers as f64),
    gauge("tidegate_workers_silent", "Workers that did not answer this scrape in time: what they hold is missing from the gauges of pools.", |s| s.workers_silent as f64),
    gauge("tidegate_uptime_seconds", "Since the process started.", |s| s.uptime_ms as f64 / 1000.0),
];

const fn counter(name: &'static str, help: &'static str, read: fn(&WorkerTotals) -> u64) -> Metric {
    Metric { name, help, read: Read::Counter(read) }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Snapshot) -> f64) -> Metric {
    Metric { name, help, read: Read::Gauge(read) }
}

const fn process(name: &'static str, help: &'static str, read: fn(&Snapshot) -> u64) -> Metric {
    Metric { name, help, read: Read::Process(read) }
}

const fn counter_by<L: CounterLabel>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    read: fn(&WorkerTotals) -> &[u64],
) -> Metric {
    Metric { name, help, read: Read::CounterBy(label, L::LABELS, read) }
}

const fn plugin(
    name: &'static str,
    help: &'static str,
    read: fn(&PluginSnapshot) -> u64,
) -> Metric {
    Metric { name, help, read: Read::Plugin(read) }
}

const fn member(
    name: &'static str,
    help: &'static str,
    read: fn(&MemberSnapshot) -> Option<f64>,
) -> Metric {
    Metric { name, help, read: Read::Member(read) }
}

const fn served(
    name: &'static str,
    help: &'static str,
    read: fn(&ServedSnapshot) -> u64,
) -> Metric {
    Metric { name, help, read: Read::Served(read) }
}

const fn kept(name: &'static str, help: &'static str, read: fn(&KeptSnapshot) -> u64) -> Metric {
    Metric { name, help, read: Read::Kept(read) }
}

const fn shared(
    name: &'static str,
    help: &'static str,
    read: fn(&SharedSnapshot) -> u64,
) -> Metric {
    Metric { name, help, read: Read::Shared(read) }
}

const fn pool(name: &'static str, help: &'static str, read: fn(&PoolSnapshot) -> f64) -> Metric {
    Metric { name, help, read: Read::Pool(read) }
}

impl Metric {
    /// `counter` or `gauge`.
    pub fn kind(&self) -> &'static str {
        match self.read {
            Read::Counter(_)
            | Read::Process(_)
            | Read::ProcessBy(..)
            | Read::CounterBy(..)
            | Read::Plugin(_)
            | Read::PluginFaults
            | Read::Slot(_)
            | Read::SlotBy(..)
            | Read::Kept(_)
            | Read::Served(_)
            | Read::Shared(_)
            | Read::KeptNot
            | Read::PluginPlanTimes => "counter",
            Read::Gauge(_)
            | Read::Member(_)
            | Read::Pool(_)
            | Read::PluginMemory
            | Read::KeptNow(_)
            | Read::Recorded => "gauge",
        }
    }

    /// The names of its labels.
    pub fn labels(&self) -> &[&'static str] {
        match &self.read {
            Read::Counter(_) | Read::Process(_) | Read::Shared(_) | Read::Gauge(_) => &[],
            Read::Member(_) | Read::Served(_) => &MEMBER_LABELS,
            Read::CounterBy(label, ..) | Read::ProcessBy(label, ..) => std::slice::from_ref(label),
            Read::Pool(_) => &POOL_LABELS,
            Read::Plugin(_) | Read::PluginMemory => &PLUGIN_LABELS,
            Read::PluginPlanTimes => &TIME_LABELS,
            Read::PluginFaults => &FAULT_LABELS,
            Read::Slot(_) => &SLOT_LABELS,
            Read::SlotBy(_, labels, _) => labels,
            Read::Recorded => &RECORDED_LABELS,
            Read::Kept(_) | Read::KeptNow(_) => &LAYER_LABELS,
            Read::KeptNot => &RULE_LABELS,
        }
    }

    fn record(&self, snapshot: &Snapshot, to: &dyn Recorder) {
        let counter = |labels: Vec<Label>, value: u64| {
            let key = Key::from_parts(self.name, labels);
            to.register_counter(&key, &METADATA).absolute(value);
        };
        let gauge = |labels: Vec<Label>, value: f64| {
            let key = Key::from_parts(self.name, labels);
            to.register_gauge(&key, &METADATA).set(value);
        };
        match &self.read {
            Read::Counter(read) => counter(Vec::new(), read(&snapshot.totals)),
            Read::Gauge(read) => gauge(Vec::new(), read(snapshot)),
            Read::Process(read) => counter(Vec::new(), read(snapshot)),
            Read::Shared(read) => counter(Vec::new(), read(&snapshot.kept.shared)),
            Read::Member(read) => {
                for member in &snapshot.cluster {
                    if let Some(value) = read(member) {
                        gauge(server_label(&member.server), value);
                    }
                }
            }
            Read::Served(read) => {
                let each = snapshot.served.iter();
                each.for_each(|served| counter(server_label(&served.server), read(served)));
            }
            Read::CounterBy(label, names, read) => {
                let values = read(&snapshot.totals);
                by_label(label, names, values, &counter);
            }
            Read::ProcessBy(label, names, read) => {
                by_label(label, names, read(snapshot), &counter);
            }
            Read::Pool(read) => {
                for pool in &snapshot.pools {
                    gauge(pool_labels(pool), read(pool));
                }
            }
            Read::Recorded => {
                for own in &snapshot.recorded {
                    let labels = [("slot", own.slot.to_owned()), ("name", own.name.clone())];
                    gauge(labels.map(|(name, value)| Label::new(name, value)).into(), own.value);
                }
            }
            Read::PluginMemory => {
                for plugin in &snapshot.plugins {
                    gauge(plugin_labels(plugin), plugin.memory_bytes as f64);
                }
            }
            Read::Slot(read) => {
                for slot in &snapshot.plugin_slots {
                    counter(vec![Label::new("slot", slot.slot)], read(slot));
                }
            }
            Read::SlotBy(label, _, read) => {
                for slot in &snapshot.plugin_slots {
                    for (value, count) in read(slot) {
                        let labels =
                            vec![Label::new("slot", slot.slot), Label::new(*label, *value)];
                        counter(labels, *count);
                    }
                }
            }
            Read::Kept(read) => counter(vec![MEMORY], read(&snapshot.kept)),
            Read::KeptNow(read) => gauge(vec![MEMORY], read(&snapshot.kept) as f64),
            Read::KeptNot => record_denied(&snapshot.kept, &counter),
            Read::Plugin(_) | Read::PluginFaults | Read::PluginPlanTimes => {
                snapshot.plugins.iter().for_each(|plugin| self.record_plugin(plugin, &counter));
            }
        }
    }

    fn record_plugin(&self, plugin: &PluginSnapshot, counter: &dyn Fn(Vec<Label>, u64)) {
        let labelled = |name: &'static str, value: String| {
            let mut labels = plugin_labels(plugin);
            labels.push(Label::new(name, value));
            labels
        };
        match &self.read {
            Read::Plugin(read) => counter(plugin_labels(plugin), read(plugin)),
            Read::PluginFaults => {
                for (fault, count) in &plugin.faults {
                    counter(labelled("fault", (*fault).to_owned()), *count);
                }
            }
            Read::PluginPlanTimes => {
                let bounds = PLAN_TIMES.map(|most| most.as_secs_f64().to_string());
                let within = bounds.into_iter().zip(plugin.plans_within);
                for (most, count) in within.chain([("+Inf".to_owned(), plugin.plans)]) {
                    counter(labelled("le", most), count);
                }
            }
            _ => {}
        }
    }
}

fn by_label(
    label: &'static str,
    names: &[&'static str],
    values: &[u64],
    counter: &dyn Fn(Vec<Label>, u64),
) {
    for (index, name) in names.iter().enumerate() {
        counter(vec![Label::new(label, *name)], values.get(index).copied().unwrap_or(0));
    }
}

fn record_denied(kept: &KeptSnapshot, counter: &dyn Fn(Vec<Label>, u64)) {
    for (index, why) in Deny::ALL.iter().enumerate() {
        let count = kept.denied.get(index).copied().unwrap_or(0);
        let labels = [("rule", why.rule()), ("reason", why.label())];
        counter(labels.map(|(name, value)| Label::new(name, value)).into(), count);
    }
}

const MEMORY: Label = Label::from_static_parts("layer", "memory");

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

fn server_label(server: &str) -> Vec<Label> {
    vec![Label::new("server", server.to_owned())]
}

fn pool_labels(pool: &PoolSnapshot) -> Vec<Label> {
    let values = [&pool.database, &pool.user, &pool.server, pool.role];
    POOL_LABELS
        .iter()
        .zip(values)
        .map(|(name, value)| Label::new(*name, value.to_owned()))
        .collect()
}

fn plugin_labels(plugin: &PluginSnapshot) -> Vec<Label> {
    let generation = plugin.generation.to_string();
    let values = [plugin.slot, plugin.state, &plugin.plugin, &generation];
    let labels = PLUGIN_LABELS.iter().zip(values);
    labels.map(|(name, value)| Label::new(*name, value.to_owned())).collect()
}

/// The snapshot in Prometheus' text format.
pub fn render(snapshot: &Snapshot) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    for metric in METRICS {
        let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
        match metric.kind() {
            "counter" => recorder.describe_counter(name, None, help),
            _ => recorder.describe_gauge(name, None, help),
        }
        metric.record(snapshot, &recorder);
    }
    recorder.handle().render()
}
