//! How far the primary has written and each replica has replayed, asked in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::route::{Freshness, LagGate, Lsn, ReplicaView};
use tidegate_policy::Registry;
use tokio::time::timeout;

use super::weighing::Weighing;
use super::{Asker, Watched};

/// A server that does not answer within this is not read from until it does.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
const WRITTEN_SQL: &str =
    "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END";
const REPLAYED_SQL: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END";

/// One cluster under watch.
pub(super) struct Watcher {
    primary: Asker,
    replicas: Vec<Asker>,
    freshness: Freshness,
    gates: Vec<LagGate>,
    weighing: Weighing,
    /// As last told in the log.
    usable: Vec<bool>,
}

impl Watcher {
    pub(super) fn new(watched: &Watched, policies: Arc<Registry>) -> Self {
        let config = &watched.config;
        let mut askers = watched.targets.iter().enumerate().map(|(instance, target)| {
            Asker::new(config, instance, target.clone(), "tidegate: freshness")
        });
        let primary = askers.next().unwrap_or_else(|| {
            Asker::new(config, 0, watched.targets[0].clone(), "tidegate: freshness")
        });
        let replicas: Vec<Asker> = askers.collect();
        let name = |asker: &Asker| asker.target.name.clone();
        let names = replicas.iter().map(name).collect();
        let gate = LagGate::new(config.routing.lag_max, config.routing.lag_return);
        Self {
            freshness: Freshness::new(replicas.len()),
            gates: vec![gate; replicas.len()],
            usable: vec![false; replicas.len()],
            weighing: Weighing::new(policies, name(&primary), names),
            primary,
            replicas,
        }
    }

    /// Asks everybody once; at most a few seconds.
    pub(super) async fn round(&mut self) -> Vec<ReplicaView> {
        let asked_at = Instant::now();
        if let Some(written) = position(&mut self.primary, WRITTEN_SQL).await {
            self.freshness.primary_wrote(asked_at, written);
        }
        for index in 0..self.replicas.len() {
            let asked_at = Instant::now();
            match position(&mut self.replicas[index], REPLAYED_SQL).await {
                Some(replayed) => {
                    self.weighing.measured(index, asked_at.elapsed());
                    self.freshness.replica_replayed(index, replayed);
                }
                None => self.freshness.replica_lost(index),
            }
        }
        let now = Instant::now();
        let mut views: Vec<ReplicaView> =
            (0..self.replicas.len()).map(|index| self.view(index, now)).collect();
        self.weighing.weigh(&mut views, now);
        views
    }

    fn view(&mut self, index: usize, now: Instant) -> ReplicaView {
        let fresh_as_of = self.freshness.as_of(index);
        let lag = fresh_as_of.map(|as_of| now.saturating_duration_since(as_of));
        let usable = self.gates[index].update(lag);
        if usable != self.usable[index] {
            self.usable[index] = usable;
            let replica = &*self.replicas[index].target.name;
            match (usable, lag) {
                (true, _) => tracing::info!(replica, "reads may use the replica"),
                (false, Some(lag)) => {
                    tracing::warn!(
                        replica,
                        lag_ms = lag.as_millis(),
                        "reads leave the replica: it lags"
                    );
                }
                (false, None) => {
                    tracing::warn!(
                        replica,
                        "reads leave the replica: it does not answer as a replica"
                    );
                }
            }
        }
        ReplicaView { fresh_as_of, usable, weight: 0 }
    }
}

/// What the server answers, if it is what it should be.
async fn position(asker: &mut Asker, sql: &str) -> Option<Lsn> {
    let rows = match timeout(ANSWER_TIME_MAX, asker.ask(sql)).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => {
            tracing::debug!(server = &*asker.target.name, %error, "cannot ask how far it is");
            return None;
        }
        Err(_) => return None,
    };
    Lsn::parse(rows.first()?.first()?.as_deref()?)
}
