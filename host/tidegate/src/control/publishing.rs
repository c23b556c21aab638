//! What the data plane and the admin API see of a cluster.

use std::sync::Arc;
use std::time::Instant;

use tidegate_cluster::{Ejection, Fault};
use tidegate_core::route::ReplicaView;
use tracing::Level;

use super::cluster::Cluster;
use crate::config::{FailoverMode, Reads};
use crate::upstream::Target;
use crate::view::{MemberView, Topology};

/// Fewer good replicas than this, or than there are, is told.
const REPLICAS_MIN: usize = 2;

impl Cluster<'_> {
    /// What the data plane sees, and the admin API.
    pub(super) fn publish(&mut self, now: Instant) {
        // Nobody knows how far a replica is behind a primary that does not answer: then it is as far as it was.
        let last = if self.machine.is_primary_well() { None } else { self.freshness.last_asked() };
        let seen = last.unwrap_or(now);
        let mut replicas: Vec<ReplicaView> =
            (0..self.gates.len()).map(|index| self.replica(index, seen)).collect();
        self.count_replicas();
        for (index, replica) in replicas.iter_mut().enumerate() {
            replica.usable &= !self.is_drained(index + 1) && !self.is_kept_from_reads(index + 1);
        }
        self.leave_out_outliers(&mut replicas, now);
        self.weighing.weigh(&mut replicas, &self.hosts, seen, now);
        self.report(&replicas, seen, now);
        let splits = self.watched.config.routing.reads == Reads::Split;
        let topology = Arc::new(self.topology(&replicas, seen));
        self.input.views.update(|view| {
            view.names = self.names.clone();
            view.topology = Some(topology);
            if splits {
                view.replicas = replicas;
            }
        });
    }

    /// Two good replicas are what it takes to lose a server without losing sleep.
    fn count_replicas(&mut self) {
        let (all, good) = (self.usable.len(), self.usable.iter().filter(|usable| **usable).count());
        let is_thin = good < REPLICAS_MIN.min(all);
        if (is_thin && !self.is_settled())
            || std::mem::replace(&mut self.standing.is_thin, is_thin) == is_thin
        {
            return;
        }
        match is_thin {
            true => self.tell(Level::ERROR, format!("only {good} of {all} replicas are good")),
            false => self.tell(Level::INFO, format!("{good} of {all} replicas are good again")),
        }
    }

    /// Why a replica that could serve reads is left out.
    fn ejection(&self, member: usize) -> Option<Ejection> {
        let index = member.checked_sub(1)?;
        let is_good = self.usable.get(index) == Some(&true) && !self.is_drained(member);
        self.weighing.why_out(index).filter(|_| is_good)
    }

    fn is_drained(&self, member: usize) -> bool {
        let address = self.address(member);
        member > 0 && address.is_some_and(|address| self.standing.drained.contains(&address))
    }

    fn replica(&mut self, index: usize, now: Instant) -> ReplicaView {
        // Until it is heard, what was carried over from under the primary before stands.
        let stands = self.machine.may_read(index + 1) || self.machine.is_unheard(index + 1);
        let fresh_as_of = self.freshness.as_of(index).filter(|_| stands);
        let lag = fresh_as_of.map(|as_of| now.saturating_duration_since(as_of));
        let usable = self.gates.get_mut(index).is_some_and(|gate| gate.update(lag));
        if self.usable.get(index).is_some_and(|before| *before != usable) {
            self.usable[index] = usable;
            let replica = self.name(index + 1).to_owned();
            let (level, text) = match (usable, lag) {
                (true, _) => (Level::INFO, format!("reads may use \"{replica}\"")),
                (false, Some(lag)) => {
                    let lag_ms = lag.as_millis();
                    (Level::WARN, format!("reads leave \"{replica}\": it is {lag_ms} ms behind"))
                }
                (false, None) => {
                    let why = "it does not answer as a replica of the primary";
                    (Level::WARN, format!("reads leave \"{replica}\": {why}"))
                }
            };
            self.tell(level, text);
        }
        let replayed = fresh_as_of.and_then(|_| self.freshness.replayed(index));
        ReplicaView { fresh_as_of, usable, weight: 0, replayed }
    }

    fn topology(&self, replicas: &[ReplicaView], now: Instant) -> Topology {
        let member = |(member, target): (usize, &Arc<Target>)| {
            let seen = self.machine.seen(member);
            let replica = member.checked_sub(1).and_then(|index| replicas.get(index));
            let lag = replica.and_then(|replica| replica.fresh_as_of);
            MemberView {
                name: target.name.clone(),
                address: target.address.to_string().into(),
                is_in_force: member == 0,
                is_primary: seen.map(|seen| seen.is_primary()),
                timeline: seen.map(|seen| seen.timeline),
                position: seen.and_then(|seen| seen.position()),
                lag: lag.map(|as_of| now.saturating_duration_since(as_of)),
                is_drained: self.is_drained(member),
                serves_reads: replica.is_some_and(|replica| replica.usable),
                ejected: self.ejection(member).map(Ejection::label),
                load: self.hosts.load(member),
                fault: self.machine.fault(member).map(Fault::label),
            }
        };
        Topology {
            state: self.machine.status().label(),
            is_changing_roles: self.machine.status().is_changing_roles(),
            is_held: self.machine.is_held(),
            mode: FailoverMode(self.watched.config.failover.policy.mode).as_str(),
            members: self.watched.targets.iter().enumerate().map(member).collect(),
            primary_changes: self.standing.changes,
            events: self.standing.events.clone(),
            losses: self.standing.losses.clone(),
        }
    }
}
