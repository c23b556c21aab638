//! The admin HTTP API: its own thread and runtime, so that it answers while the data plane is
//! saturated.
//!
//! It knows the rest of the process only through [`Control`].

mod alerts; // POST /api/v1/alerts/test
mod cache; // /api/v1/cache
mod clients; // GET /api/v1/clients
mod cluster; // GET /api/v1/cluster, POST /api/v1/cluster/…
mod config; // GET /api/v1/config
mod drain; // POST /api/v1/drain
mod explain; // POST /api/v1/explain
mod metrics; // GET /metrics
mod openapi; // GET /openapi.json
mod pausing; // POST /api/v1/pause, /resume, /reconnect
mod plugins; // /api/v1/plugins
mod pools; // GET /api/v1/pools
mod probes; // GET /healthz, /readyz
mod record; // POST /api/v1/record
mod reload; // POST /api/v1/reload
mod reply; // JSON answers and problem details
mod router; // the table of routes, tokens, dispatch
mod server; // the thread, connections and their bounds
mod servers; // GET /api/v1/servers

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::alerts::Tried;
use crate::config::Config;
pub use crate::config::diff::ReloadReport;
use crate::explain::{ExplainQuestion, Explanation};
use crate::observe::snapshot::{Scope, Snapshot};
use crate::plugins::{Order, Outcome, SlotDetail, SlotReport, Who};
use crate::view::Ordered;
pub use alerts::{AlertsTried, ReceiverTried};
pub use cache::{
    AnswersReport, CacheControl, CacheReport, DeniedReport, EntriesReport, InspectedReport,
    Invalidated, Invalidation, LogReport, NotDone, NotWarmed, RuleReport, WarmQuestion, WarmReport,
};
pub use cluster::{
    ClusterReport, ClusterVerb, EventReport, FailoverQuestion, ServerQuestion, ServerReport,
    SwitchoverQuestion,
};
pub use pausing::{PoolsOrder, PoolsQuestion, PoolsReport, PoolsVerb};
pub use server::{AdminHandle, start};
use tidegate_core::policy::Slot;

/// A future of [`Control`].
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the admin API may ask of the process. Futures resolve on the admin thread's runtime and are
/// given up after `ADMIN_ANSWER_TIME_MAX`.
pub trait Control: CacheControl + Send + Sync + 'static {
    fn phase(&self) -> Phase;

    /// Whether the primary can be reached: open connections to it tell, or a new one is tried.
    ///
    /// # Errors
    /// Why not, as a sentence.
    fn ready(&self) -> Answer<Result<(), String>>;

    /// Workers answer within a deadline; those that do not are counted in the snapshot.
    fn snapshot(&self, scope: Scope) -> Answer<Snapshot>;

    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// Reads the configuration again and puts it in force, or changes nothing and says what is
    /// wrong.
    fn reload(&self) -> Answer<Result<ReloadReport, Vec<String>>>;

    /// Every slot of plugins.
    fn plugins(&self) -> Vec<SlotReport>;

    /// One slot, with all that is known of it.
    fn plugin(&self, slot: Slot) -> SlotDetail;

    /// Does what an operator orders about plugins, or changes nothing and says why. Compiling takes seconds: this is
    /// given up after `PLUGIN_LOAD_TIME_MAX`, and then nothing has changed either.
    fn order_plugin(&self, order: Order, who: Who) -> Answer<Outcome>;

    /// What Tidegate and its policies make of a statement. It does not run; the catalogue is asked about its tables.
    fn explain(&self, question: ExplainQuestion) -> Answer<Explanation>;

    /// Records what runs, and resolves to lines of JSON when the order says; `None` while somebody else records. Dropping
    /// the future ends it.
    fn record(&self, order: RecordOrder, who: Who) -> Option<Answer<Vec<u8>>>;

    /// Pauses, resumes or reconnects pools. A pause resolves when no server connection is left, or at the end of the
    /// order's wait; it is in force all the same.
    ///
    /// # Errors
    /// Why nothing was done, as a sentence.
    fn order_pools(&self, order: PoolsOrder, who: Who) -> Answer<Result<PoolsReport, String>>;

    /// The servers as they were last seen; `None` where there is but one, or nothing was heard yet.
    fn cluster(&self) -> Option<ClusterReport>;

    /// Begins what is ordered about the cluster, and says what there is to know of it.
    ///
    /// # Errors
    /// Why it has not begun, as a sentence.
    fn order_cluster(&self, what: Ordered, who: Who) -> Answer<Result<String, String>>;

    /// Sends a test to every receiver of alerts.
    fn test_alerts(&self, who: Who) -> Answer<Tried>;

    /// Starts what SIGTERM starts: no new clients, the others end, the process exits. Returns at
    /// once.
    fn drain(&self);
}

/// When a record ends: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOrder {
    pub time: Duration,
    pub executions_max: u64,
}

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Starting,
    Serving,
    Draining,
    Stopped,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}
