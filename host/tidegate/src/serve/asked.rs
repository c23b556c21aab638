//! What the admin API may ask of the process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_core::policy::Slot;
use tokio::sync::oneshot;

use super::{Handle, PHASES, pausing, record, snapshot};
use crate::admin::{
    Answer, ClusterReport, Control, Phase, PoolsOrder, PoolsReport, RecordOrder, ReloadReport,
};
use crate::alerts::Tried;
use crate::config::Config;
use crate::control::ClusterOrder;
use crate::explain::{ExplainQuestion, Explanation};
use crate::observe::snapshot::{Scope, Snapshot};
use crate::plugins::{Order, Outcome, SlotDetail, SlotReport, Who};
use crate::view::Ordered;

impl Control for Handle {
    fn phase(&self) -> Phase {
        PHASES
            .get(usize::from(self.phase.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or(Phase::Stopped)
    }

    fn ready(&self) -> Answer<Result<(), String>> {
        let (shared, settled) = (self.shared.clone(), self.settled());
        let readiness = self.readiness.clone();
        Box::pin(async move { readiness.check(&shared, &settled).await })
    }

    fn snapshot(&self, scope: Scope) -> Answer<Snapshot> {
        let shared = self.shared.clone();
        let (started_at, settled) = (self.started_at, self.settled());
        let (plugins, http) = (self.plugins.clone(), self.http.totals.get());
        Box::pin(async move {
            let mut snapshot = snapshot::take(&shared, &settled, scope, started_at).await;
            snapshot::add_plugins(&mut snapshot, &plugins);
            snapshot.http = http;
            snapshot
        })
    }

    fn config(&self) -> Arc<Config> {
        self.settled().config.clone()
    }

    fn reload(&self) -> Answer<Result<ReloadReport, Vec<String>>> {
        // Files are read and certificates parsed in a moment; the admin thread can wait for it.
        let outcome = self.reload_now();
        Box::pin(async move { outcome })
    }

    fn plugins(&self) -> Vec<SlotReport> {
        self.plugins.slots()
    }

    fn plugin(&self, slot: Slot) -> SlotDetail {
        self.plugins.slot(slot)
    }

    fn order_plugin(&self, order: Order, who: Who) -> Answer<Outcome> {
        Box::pin(self.plugins.clone().order(order, who))
    }

    fn explain(&self, question: ExplainQuestion) -> Answer<Explanation> {
        let (shared, plugins) = (self.shared.clone(), self.plugins.clone());
        Box::pin(super::explain::run(shared, self.settled(), plugins, question))
    }

    fn record(&self, order: RecordOrder, who: Who) -> Option<Answer<Vec<u8>>> {
        let round = self.shared.recording.begin()?;
        tracing::info!(target: "tidegate::audit", %who, seconds = order.time.as_secs(), "record");
        let policies = Arc::clone(self.plugins.registry());
        Some(Box::pin(record::run(self.shared.clone(), policies, round, order)))
    }

    fn order_pools(&self, order: PoolsOrder, who: Who) -> Answer<Result<PoolsReport, String>> {
        Box::pin(pausing::run(self.shared.clone(), order, who))
    }

    fn cluster(&self) -> Option<ClusterReport> {
        self.shared.views.latest().topology.as_deref().map(ClusterReport::from)
    }

    fn order_cluster(&self, what: Ordered, who: Who) -> Answer<Result<String, String>> {
        tracing::info!(target: "tidegate::audit", %who, order = ?what, "cluster");
        let orders = self.orders.clone();
        Box::pin(async move {
            let gone = || "Tidegate is stopping".to_owned();
            let (answer, answered) = oneshot::channel();
            orders.try_send(ClusterOrder { what, answer }).map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        })
    }

    fn test_alerts(&self, who: Who) -> Answer<Tried> {
        tracing::info!(target: "tidegate::audit", %who, "test of alerts");
        let alerts = self.alerts.clone();
        Box::pin(async move { alerts.test().await })
    }

    fn drain(&self) {
        self.drain.notify_one();
    }
}
