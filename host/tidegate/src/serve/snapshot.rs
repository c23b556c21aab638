//! What the admin API is told of this moment, gathered from the workers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_pool::breaker::BreakerState;
use tokio::sync::oneshot;

use super::pausing;
use crate::data::listening::ListenerSnapshot;
use crate::data::worker::{Message, Settled, Shared, WorkerSnapshot};
use crate::observe::snapshot::{
    KeptSnapshot, LimitsSnapshot, LogsSnapshot, MemberSnapshot, PluginSlotSnapshot, PluginSnapshot,
    PoolSnapshot, RecordedSnapshot, Scope, ServerSnapshot, SharedSnapshot, Snapshot,
};
use crate::plugins::{Plugins, VersionReport};
use crate::rates::{Counters, Standing};
use crate::results::{FollowedLogs, Results};
use crate::sharing::Sharing;
use crate::upstream::pool::ServerPlace;
use crate::view::{MemberView, Topology};

/// A worker answers for a snapshot within this, or is counted as silent.
const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(2);

/// Asks every worker, and adds up what they say.
pub(super) async fn take(
    shared: &Shared,
    settled: &Settled,
    scope: Scope,
    started_at: Instant,
) -> Snapshot {
    let mut snapshot = Snapshot {
        uptime_ms: millis(started_at.elapsed()),
        workers: shared.senders.len(),
        databases_hidden_state: shared.hidden.count(),
        kept: kept(&shared.results),
        limits: limits(&shared.limits.counters),
        paused: pausing::told(&shared.pools.pauses()),
        ..Snapshot::default()
    };
    let topology = shared.views.latest().topology.clone();
    add_cluster(&mut snapshot, topology.as_deref());
    snapshot.served = shared.pools.served.snapshot();
    let mut asked = Vec::new();
    for sender in &shared.senders {
        let (reply, answer) = oneshot::channel();
        asked.push(sender.try_send(Message::Snapshot(reply)).ok().map(|()| answer));
    }
    for answer in asked {
        let answer = match answer {
            Some(answer) => {
                tokio::time::timeout(SNAPSHOT_TIME_MAX, answer).await.ok().and_then(Result::ok)
            }
            None => None,
        };
        match answer {
            Some(worker) => add_worker(&mut snapshot, worker, settled, scope),
            None => snapshot.workers_silent += 1,
        }
    }
    for pool in &mut snapshot.pools {
        let mut members = topology.iter().flat_map(|topology| &topology.members);
        pool.drained = members.any(|m| m.is_drained && *m.name == *pool.server);
    }
    // Last, since workers that are asked write down what they count elsewhere.
    for stats in &shared.stats {
        snapshot.totals.add(&stats.totals());
    }
    snapshot
}

fn add_cluster(snapshot: &mut Snapshot, topology: Option<&Topology>) {
    let Some(topology) = topology else { return };
    let member = |member: &MemberView| MemberSnapshot {
        server: member.name.to_string(),
        is_up: member.is_primary.is_some(),
        is_primary: member.is_in_force,
        serves_reads: member.serves_reads,
        lag_seconds: member.lag.map(|lag| lag.as_secs_f64()),
        is_ejected: member.ejected.is_some(),
        cpu_percent: member.load.load.cpu_percent,
        memory_percent: member.load.load.memory_percent,
        disk_percent: member.load.load.disk_percent,
    };
    snapshot.cluster = topology.members.iter().map(member).collect();
    snapshot.primary_held = topology.is_held;
    snapshot.primary_changes = topology.primary_changes;
}

fn kept(results: &Results) -> KeptSnapshot {
    let (counts, entries, bytes) = results.counts();
    let follow = results.follow_counts();
    let (inspected, different) = results.inspected.counts();
    KeptSnapshot {
        entries,
        bytes,
        hits: counts.hits,
        misses: counts.misses,
        stale: counts.stale,
        refreshes: counts.refreshes,
        unseen: counts.unseen,
        puts: counts.puts,
        packed: counts.packed,
        packed_saved: counts.packed_saved,
        evictions: counts.evictions,
        invalidations: counts.invalidations,
        rereads: results.rereads(),
        warmed: results.warmed(),
        inspected,
        different,
        followed: follow.followed,
        followed_served: follow.served,
        denied: results.denied(),
        shared: results.sharing().map(|sharing| shared(sharing)).unwrap_or_default(),
        logs: results.logs().map(logs).unwrap_or_default(),
    }
}

fn logs(logs: &FollowedLogs) -> LogsSnapshot {
    let counts = logs.counts(Instant::now());
    LogsSnapshot {
        databases: counts.databases,
        followed: counts.followed,
        lag_ms: u64::try_from(counts.lag.as_millis()).unwrap_or(u64::MAX),
        bytes: counts.bytes,
        transactions: counts.transactions,
        taken: counts.taken,
        renamed: counts.renamed,
        losses: counts.losses,
    }
}

fn shared(sharing: &Sharing) -> SharedSnapshot {
    let (standing, serves) = sharing.standing();
    let counts = &sharing.counts;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    SharedSnapshot {
        is_joined: standing == tidegate_cache::Standing::Joined,
        serves,
        looks: count(&counts.looks),
        relied: count(&counts.relied),
        hits: count(&counts.hits),
        puts: count(&counts.puts),
        late: count(&counts.late),
        untold: count(&counts.untold),
        losses: count(&counts.losses),
    }
}

fn limits(counters: &Counters) -> LimitsSnapshot {
    let Some(Standing { is_shared, members, counts, .. }) = counters.standing() else {
        return LimitsSnapshot::default();
    };
    LimitsSnapshot {
        is_shared,
        members,
        round_trips: counts.orders,
        taken: counts.taken,
        returned: counts.returned,
        leased: counts.leased,
        alone: counts.alone,
        denied: counts.denied,
        failures: counts.failures,
        losses: counts.losses,
    }
}

fn add_worker(snapshot: &mut Snapshot, worker: WorkerSnapshot, settled: &Settled, scope: Scope) {
    let pinned = worker.clients.iter().filter(|client| !client.pinned_by.is_empty());
    let pinned: Vec<Option<u64>> = pinned.map(|client| client.server).collect();
    for pool in worker.pools {
        let totals = &mut snapshot.totals;
        totals.pool_waits += pool.totals.waits;
        totals.pool_wait_micros +=
            u64::try_from(pool.totals.wait_total.as_micros()).unwrap_or(u64::MAX);
        totals.servers_opened += pool.totals.opened;
        totals.servers_closed += pool.totals.closed_total();
        totals.server_connect_failures += pool.totals.connect_errors;
        let mode = settled.config.pool_settings(&pool.key.database, &pool.key.user).mode.as_str();
        add_pool(&mut snapshot.pools, &pool, mode, &pinned);
        if scope == Scope::Servers {
            let target = settled.pools.targets.get(pool.key.instance);
            let address = target.map_or_else(String::new, |target| target.address.to_string());
            for server in &pool.servers {
                let client = match server.place {
                    ServerPlace::Idle => None,
                    ServerPlace::Lent(client) => Some(client.0),
                };
                snapshot.servers.push(ServerSnapshot {
                    id: server.id.0,
                    worker: worker.worker,
                    server: pool.target.clone(),
                    address: address.clone(),
                    user: pool.key.user.to_string(),
                    database: pool.key.database.to_string(),
                    tls: server.is_encrypted,
                    state: if client.is_some() { "active" } else { "idle" },
                    client,
                    backend_pid: server.process_id,
                    connected_ms: millis(server.age),
                    state_ms: millis(server.place_age),
                    transactions: server.leases,
                    prepared: 0,
                });
            }
        }
    }
    for listener in &worker.listeners {
        add_listener(&mut snapshot.pools, listener);
    }
    if scope == Scope::Clients {
        snapshot.clients.extend(worker.clients);
    }
}

/// Adds one worker's listener to the pool of its database and user, which it stands beside.
fn add_listener(pools: &mut [PoolSnapshot], listener: &ListenerSnapshot) {
    let (database, user, role) =
        (&*listener.key.database, &*listener.key.user, listener.key.kind.name());
    let is_its = |pool: &&mut PoolSnapshot| {
        pool.database == database && pool.user == user && pool.role == role
    };
    if let Some(pool) = pools.iter_mut().find(is_its) {
        pool.listeners += usize::from(listener.is_connected);
        pool.listening += listener.clients;
    }
}

/// Adds one worker's part of a pool to what the others said of it.
fn add_pool(
    pools: &mut Vec<PoolSnapshot>,
    part: &crate::upstream::pool::PoolSnapshot,
    mode: &'static str,
    pinned: &[Option<u64>],
) {
    let (database, user, role) = (&*part.key.database, &*part.key.user, part.key.kind.name());
    let known = pools.iter_mut().find(|known| {
        known.database == database
            && known.user == user
            && known.server == part.target
            && known.role == role
    });
    let pool = match known {
        Some(known) => known,
        None => {
            pools.push(PoolSnapshot {
                database: database.to_owned(),
                user: user.to_owned(),
                server: part.target.clone(),
                role,
                mode,
                size_min: part.config.size_min,
                size_max: part.config.size_max,
                ..PoolSnapshot::default()
            });
            let last = pools.len() - 1;
            &mut pools[last]
        }
    };
    pool.idle += part.counts.idle;
    pool.active += part.counts.in_use;
    pool.pinned += part.servers.iter().filter(|server| pinned.contains(&Some(server.id.0))).count();
    pool.connecting += part.counts.opening;
    pool.waiting += part.counts.waiting;
    pool.waiting_ms_max = pool.waiting_ms_max.max(millis(part.waiting_max));
    pool.paused |= part.is_paused;
    pool.stale += part.stale;
    pool.warned |= part.is_warned;
    pool.breakers_open += usize::from(part.breaker != BreakerState::Closed);
    if pool.failing.is_none() {
        pool.failing.clone_from(&part.failing);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Adds what is known of plugins.
pub(super) fn add_plugins(snapshot: &mut Snapshot, plugins: &Plugins) {
    for slot in plugins.slots() {
        let name = slot.slot.name();
        let versions = [("active", &slot.active), ("previous", &slot.previous)];
        for (state, version) in versions {
            snapshot.plugins.extend(version.as_ref().map(|version| plugin(name, state, version)));
        }
        snapshot.plugins.extend(slot.candidate.as_ref().map(|candidate| PluginSnapshot {
            compared: candidate.compared,
            different: candidate.different,
            ..plugin(name, candidate.mode, &candidate.version)
        }));
    }
    let happened = plugins.happened().into_iter();
    snapshot.plugin_slots.extend(happened.map(|own| PluginSlotSnapshot {
        slot: own.slot.name(),
        quarantines: own.quarantines,
        canaries_given_up: own.canaries_given_up,
        faults: own.faults,
    }));
    let recorded = plugins.recorded().into_iter();
    snapshot.recorded.extend(recorded.map(|own| RecordedSnapshot {
        slot: own.slot,
        name: own.name,
        value: own.value,
    }));
}

fn plugin(slot: &'static str, state: &'static str, version: &VersionReport) -> PluginSnapshot {
    PluginSnapshot {
        slot,
        state,
        plugin: version.name.clone(),
        generation: version.generation,
        calls: version.calls,
        weighings: version.weighings,
        plans: version.plans,
        plan_micros: version.plan_microseconds,
        plans_within: version.plans_within,
        memory_bytes: version.memory_bytes as u64,
        faults: version.faults.clone(),
        ..PluginSnapshot::default()
    }
}
