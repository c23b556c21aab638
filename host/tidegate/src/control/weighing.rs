//! The shares of replicas: what is measured of them goes to the routing policy at each health check, and its weights come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::policy::ReplicaMetrics;
use tidegate_core::route::{ReplicaView, shares};
use tidegate_policy::{Reader, Registry};

/// How often the policy is asked.
const WEIGH_INTERVAL: Duration = Duration::from_secs(1);
/// The weight of a replica unless the policy gives it another.
const WEIGHT_ORDINARY: u32 = 100;
/// What the newest answer counts for in the mean response time.
const NEWEST_PART: f64 = 0.2;

/// One cluster's.
pub(super) struct Weighing {
    policies: Arc<Registry>,
    reader: Reader,
    primary: Arc<str>,
    names: Vec<Arc<str>>,
    /// By replica, in milliseconds.
    response_ms: Vec<Option<f64>>,
    shares: Vec<u32>,
    due: Instant,
    /// What the policy was last told.
    told: Vec<ReplicaMetrics>,
}

impl Weighing {
    pub(super) fn new(policies: Arc<Registry>, primary: Arc<str>, names: Vec<Arc<str>>) -> Self {
        Self {
            reader: policies.reader(),
            policies,
            primary,
            response_ms: vec![None; names.len()],
            shares: vec![WEIGHT_ORDINARY; names.len()],
            names,
            due: Instant::now(),
            told: Vec::new(),
        }
    }

    /// A replica has answered within this time.
    pub(super) fn measured(&mut self, index: usize, time: Duration) {
        if let Some(mean) = self.response_ms.get_mut(index) {
            let ms = time.as_secs_f64() * 1_000.0;
            *mean = Some(mean.map_or(ms, |mean| mean + NEWEST_PART * (ms - mean)));
        }
    }

    /// Gives the replicas their shares, which are asked for anew now and then, and at once when one leaves or comes back.
    /// Lag is told as of `seen`: when the primary last said how far it was.
    pub(super) fn weigh(&mut self, replicas: &mut [ReplicaView], seen: Instant, now: Instant) {
        let changed = replicas
            .iter()
            .zip(self.told.iter().map(|told| told.healthy).chain(std::iter::repeat(false)))
            .any(|(replica, healthy)| replica.usable != healthy);
        if now >= self.due || changed {
            self.due = now + WEIGH_INTERVAL;
            self.told = self.metrics(replicas, seen);
            self.policies.cluster_changed(Some(&self.primary), &self.told);
            let weights = self.policies.weigh(self.reader.view(), &self.told).plan;
            let names: Vec<&str> = self.names.iter().map(|name| &**name).collect();
            self.shares = shares(&names, &weights, WEIGHT_ORDINARY);
        }
        for (replica, share) in replicas.iter_mut().zip(&self.shares) {
            replica.weight = *share;
        }
    }

    fn metrics(&self, replicas: &[ReplicaView], now: Instant) -> Vec<ReplicaMetrics> {
        let metrics =
            |((replica, name), response_ms): ((&ReplicaView, &Arc<str>), &Option<f64>)| {
                ReplicaMetrics {
                    name: (**name).into(),
                    healthy: replica.usable,
                    // PostgreSQL does not tell.
                    cpu_percent: None,
                    response_ms: *response_ms,
                    lag: replica.fresh_as_of.map(|as_of| now.saturating_duration_since(as_of)),
                    active: 0,
                    base_weight: WEIGHT_ORDINARY.into(),
                }
            };
        replicas.iter().zip(&self.names).zip(&self.response_ms).map(metrics).collect()
    }
}
