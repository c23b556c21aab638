//! The shares of replicas: what is measured of them goes to the routing policy at each health check, and its weights come back.
//! Who is slow or fails has none for a time; who begins to serve reads has a small one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_cluster::{Change, Ejection, Outliers, SlowStart, Standings};
use tidegate_core::policy::ReplicaMetrics;
use tidegate_core::route::{ReplicaView, shares};
use tidegate_policy::{Reader, Registry};

use super::hosts::Hosts;
use super::{Input, Watched};
use crate::config::ServerAddress;
use crate::observe::served::ServerStats;
use crate::upstream::pool::SharedPools;

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
    pools: Arc<SharedPools>,
    /// What each has done.
    served: Vec<Arc<ServerStats>>,
    outliers: Outliers,
    slow_start: SlowStart,
    /// By replica, in milliseconds.
    response_ms: Vec<Option<f64>>,
    shares: Vec<u32>,
    due: Instant,
    /// What the policy was last told.
    told: Vec<ReplicaMetrics>,
}

impl Weighing {
    /// `before`: how replicas stood under another configuration, or another primary.
    pub(super) fn new(
        input: &Input,
        watched: &Watched,
        before: &[(ServerAddress, Standings)],
        now: Instant,
    ) -> Self {
        let mut names = watched.targets.iter().map(|target| target.name.clone());
        let primary = names.next().unwrap_or_else(|| "".into());
        let names: Vec<Arc<str>> = names.collect();
        let (policies, pools) = (input.policies.clone(), input.pools.clone());
        let routing = &watched.config.routing;
        let mut outliers = Outliers::new(routing.outliers, names.len(), now);
        for (index, target) in watched.targets.iter().skip(1).enumerate() {
            if let Some((_, stood)) = before.iter().find(|(known, _)| *known == target.address) {
                outliers.restore(index, *stood, now);
            }
        }
        Self {
            reader: policies.reader(),
            policies,
            primary,
            served: names.iter().map(|name| pools.served.of(name)).collect(),
            pools,
            outliers,
            slow_start: SlowStart::new(routing.slow_start, names.len()),
            response_ms: vec![None; names.len()],
            shares: vec![WEIGHT_ORDINARY; names.len()],
            names,
            due: now,
            told: Vec::new(),
        }
    }

    /// A replica has answered within this time.
    pub(super) fn measured(&mut self, index: usize, time: Duration) {
        if let Some(mean) = self.response_ms.get_mut(index) {
            let ms = time.as_secs_f64() * 1_000.0;
            *mean = Some(mean.map_or(ms, |mean| mean + NEWEST_PART * (ms - mean)));
        }
        self.outliers.handle_answer(index, time);
    }

    /// A replica has served reads until now, under another primary.
    pub(super) fn set_full(&mut self, index: usize) {
        self.slow_start.set_full(index);
    }

    /// Who leaves since it is slow or fails, and who returns, of those that are good otherwise.
    pub(super) fn judge(&mut self, good: &[bool], now: Instant) -> Vec<Change> {
        for (index, served) in self.served.iter().enumerate() {
            self.outliers.handle_reads(index, served.reads());
        }
        self.outliers.judge(good, now)
    }

    /// How each stands, for a Weighing after this.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standings> {
        (0..self.names.len()).map(|index| self.outliers.standings(index))
    }

    pub(super) fn why_out(&self, index: usize) -> Option<Ejection> {
        self.outliers.why_out(index)
    }

    /// Gives the replicas their shares, which are asked for anew now and then, and at once when one leaves or comes back.
    /// Lag is told as of `seen`: when the primary last said how far it was.
    pub(super) fn weigh(
        &mut self,
        replicas: &mut [ReplicaView],
        hosts: &Hosts,
        seen: Instant,
        now: Instant,
    ) {
        let changed = replicas
            .iter()
            .zip(self.told.iter().map(|told| told.healthy).chain(std::iter::repeat(false)))
            .any(|(replica, healthy)| replica.usable != healthy);
        if now >= self.due || changed {
            self.due = now + WEIGH_INTERVAL;
            self.told = self.metrics(replicas, hosts, seen);
            self.policies.cluster_changed(Some(&self.primary), &self.told);
            let weights = self.policies.weigh(self.reader.view(), &self.told).plan;
            let names: Vec<&str> = self.names.iter().map(|name| &**name).collect();
            self.shares = shares(&names, &weights, WEIGHT_ORDINARY);
        }
        for (index, replica) in replicas.iter().enumerate() {
            self.slow_start.handle_serves(index, replica.usable, now);
        }
        let mut shares = self.shares.clone();
        self.slow_start.apply(&mut shares, now);
        for (replica, share) in replicas.iter_mut().zip(shares) {
            replica.weight = share;
        }
    }

    fn metrics(
        &self,
        replicas: &[ReplicaView],
        hosts: &Hosts,
        now: Instant,
    ) -> Vec<ReplicaMetrics> {
        let metrics = |(index, (replica, name)): (usize, (&ReplicaView, &Arc<str>))| {
            let member = index + 1;
            ReplicaMetrics {
                name: (**name).into(),
                healthy: replica.usable,
                cpu_percent: hosts.load(member).load.cpu_percent,
                response_ms: self.response_ms.get(index).copied().flatten(),
                lag: replica.fresh_as_of.map(|as_of| now.saturating_duration_since(as_of)),
                active: u32::try_from(self.pools.in_use(member)).unwrap_or(u32::MAX),
                base_weight: WEIGHT_ORDINARY.into(),
            }
        };
        replicas.iter().zip(&self.names).enumerate().map(metrics).collect()
    }
}
