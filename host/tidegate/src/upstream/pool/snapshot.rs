//! Plain data about one worker's pools, for the admin API and the metrics.

use super::{PoolCell, PoolKey};
use std::time::{Duration, Instant};
use tidegate_core::ids::{ClientId, ServerId};
use tidegate_pool::breaker::BreakerState;
use tidegate_pool::{CloseReason, Counts, PoolConfig, WorkerId};

/// Counters of one worker's part of a pool, since it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolTotals {
    pub opened: u64,
    /// By reason, in the order of `CloseReason::ALL`.
    pub closed: [u64; CloseReason::ALL.len()],
    pub connect_errors: u64,
    /// Connections lent.
    pub leases: u64,
    /// Clients that had to wait, and how long those whose wait ended waited.
    pub waits: u64,
    pub wait_total: Duration,
    pub wait_max: Duration,
    /// Waits that ended at their deadline.
    pub expired: u64,
    /// Clients that were refused at once.
    pub refused: u64,
    /// Connections given to other workers.
    pub donated: u64,
}

impl PoolTotals {
    pub(super) fn count_close(&mut self, reason: CloseReason) {
        let index = CloseReason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = index.and_then(|index| self.closed.get_mut(index)) {
            *count += 1;
        }
    }

    pub(super) fn waited(&mut self, since: Option<Instant>, now: Instant) {
        let Some(since) = since else { return };
        let waited = now.saturating_duration_since(since);
        self.wait_total += waited;
        self.wait_max = self.wait_max.max(waited);
    }

    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }
}

/// One worker's part of one pool.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    pub worker: WorkerId,
    pub key: PoolKey,
    pub target: String,
    pub config: PoolConfig,
    pub counts: Counts,
    /// Whether an operator holds its clients.
    pub is_paused: bool,
    /// Connections that are replaced when they come back.
    pub stale: usize,
    /// How long the client that waits longest has waited.
    pub waiting_max: Duration,
    /// Whether the utilisation warning stands.
    pub is_warned: bool,
    /// Why the last attempt to open a connection failed; `None` after a success.
    pub failing: Option<String>,
    pub breaker: BreakerState,
    pub totals: PoolTotals,
    pub servers: Vec<ServerSnapshot>,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPlace {
    Idle,
    Lent(ClientId),
}

/// One server connection.
#[derive(Clone, Debug)]
pub struct ServerSnapshot {
    pub id: ServerId,
    pub place: ServerPlace,
    /// How long it has been there.
    pub place_age: Duration,
    /// How long it has been open.
    pub age: Duration,
    /// Times it was lent by this worker.
    pub leases: u64,
    /// The backend's process id, as in `pg_stat_activity`.
    pub process_id: Option<i32>,
    pub is_encrypted: bool,
}

impl PoolCell {
    pub(super) fn snapshot(&self, now: Instant) -> PoolSnapshot {
        let inner = self.inner.borrow();
        let servers = inner.servers.iter().map(|(id, entry)| ServerSnapshot {
            id: *id,
            place: entry.client.map_or(ServerPlace::Idle, ServerPlace::Lent),
            place_age: now.saturating_duration_since(entry.since),
            age: now.saturating_duration_since(entry.opened_at),
            leases: entry.leases,
            process_id: entry.process_id,
            is_encrypted: entry.is_encrypted,
        });
        let mut servers: Vec<ServerSnapshot> = servers.collect();
        servers.sort_by_key(|server| server.id);
        PoolSnapshot {
            worker: self.home.worker,
            key: self.key.clone(),
            target: inner.target.name.to_string(),
            config: inner.pool.config().clone(),
            counts: inner.pool.counts(),
            is_paused: inner.pool.is_paused(),
            stale: inner.pool.stale(),
            waiting_max: inner.pool.waiting_longest(now),
            is_warned: self.shared.is_warned.load(std::sync::atomic::Ordering::Relaxed),
            failing: inner.last_failure.as_ref().map(|failure| failure.text.clone()),
            breaker: inner.breaker.state(),
            totals: inner.totals.clone(),
            servers,
        }
    }
}
