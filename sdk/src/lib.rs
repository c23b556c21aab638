//! Write policies for Tidegate: a trait for each kind, with defaults, and one line that registers it.
//!
//! ```
//! use tidegate_sdk::prelude::*;
//!
//! #[derive(Default, Deserialize)]
//! #[serde(crate = "tidegate_sdk::serde", default)]
//! struct ReportsToReplica {
//!     schema: String,
//! }
//!
//! impl Policy for ReportsToReplica {}
//!
//! impl Routing for ReportsToReplica {
//!     fn plan_route(&self, shape: &Shape) -> RoutePlan {
//!         if shape.reads_only() && shape.uses_schema(&self.schema) {
//!             RoutePlan::replicas().label("analytics")
//!         } else {
//!             RoutePlan::default()
//!         }
//!     }
//! }
//!
//! tidegate_sdk::register!(routing: ReportsToReplica);
//! # fn main() {}
//! ```
//!
//! A policy's fields are its settings: the host hands them over as JSON. It is built with `crate-type = ["cdylib"]`
//! for `wasm32-unknown-unknown`; its tests run as native code, with [`testing`].

mod advice; // questions to a batch of slow statements
pub mod bindings; // generated from WIT
pub mod host; // what a policy may ask the host: log, clock, random, state, metrics
mod plans; // builders for answers
mod register; // the macro
mod shapes; // questions to shapes and identities
pub mod testing; // shapes and a host for tests

/// One trait for each kind of policy.
pub mod policies;

pub use serde;
pub use serde_json;

/// Everything that a policy usually names.
pub mod prelude {
    pub use crate::policies::{Advising, Caching, Limiting, Policy, Routing};
    pub use crate::types::*;
    pub use serde::{self, Deserialize};
}

/// The types of WIT.
pub mod types {
    pub use crate::bindings::advising::exports::tidegate::policy::index::{
        Batch, ColumnStatistics, Confidence, ExistingIndex, IndexKey, IndexMethod, KeySource,
        Predicate, SlowShape, Suggestion, TableStatistics,
    };
    pub use crate::bindings::caching::exports::tidegate::policy::cache::{
        Asked as AskedCache, CachePlan, CacheRule, KeyPart, Tier,
    };
    pub use crate::bindings::limiting::exports::tidegate::policy::limit::{
        Asked as AskedLimit, Bucket, Buckets, LimitPlan, OverLimit, Scope,
    };
    pub use crate::bindings::routing::exports::tidegate::policy::route::{
        ClusterState, Fallback, Priority, ReplicaMetrics, ReplicaRule, RoutePlan, Target, Weight,
    };
    pub use crate::bindings::routing::tidegate::policy::types::{
        Access, ColumnUse, Comparison, Fingerprint, FunctionForm, FunctionUse, Identity, Operand,
        PluginInfo, SessionFlags, Shape, StatementKind, TableUse, Tag,
    };
}

/// For the macro alone.
#[doc(hidden)]
pub mod internal {
    pub use crate::register::configured;
    #[cfg(target_arch = "wasm32")]
    pub use crate::register::report_panics;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::register::{advising, caching, limiting, routing};
}
