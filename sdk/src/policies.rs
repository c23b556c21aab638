//! One trait for each kind of policy, with defaults that leave everything to the host.

use crate::types::{
    Batch, CachePlan, ClusterState, Identity, LimitPlan, ReplicaMetrics, RoutePlan, Scope,
    SessionFlags, Shape, Suggestion, Weight,
};

/// What all policies have: settings, which they may refuse.
pub trait Policy: Default + serde::de::DeserializeOwned + 'static {
    /// Looks at the settings before anything else is asked. The error is shown to whoever uploads the policy.
    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// What is known about one execution, for plans that ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Execution {
    /// The number that the plan gave.
    pub id: u32,
    pub session: SessionFlags,
    /// The lower half of the shape's fingerprint.
    pub fingerprint_low: u64,
    /// The same for the same end user; 0 when none is known.
    pub end_user_hash: u64,
}

/// Where one execution runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteDecision {
    /// By its number in the state that [`Routing::cluster_changed`] was last told.
    Replica(u32),
    Primary,
    AnyReplica,
    BuiltIn,
}

impl RouteDecision {
    /// As WIT says it.
    pub fn number(self) -> i64 {
        match self {
            RouteDecision::Replica(index) => i64::from(index),
            RouteDecision::Primary => -1,
            RouteDecision::AnyReplica => -2,
            RouteDecision::BuiltIn => -3,
        }
    }
}

/// Which server runs a statement.
pub trait Routing: Policy {
    /// Asked once per shape.
    fn plan_route(&self, _shape: &Shape) -> RoutePlan {
        RoutePlan::default()
    }

    /// Asked at each health check. Replicas that are not in the answer keep their base weight.
    fn weigh(&self, _replicas: &[ReplicaMetrics]) -> Vec<Weight> {
        Vec::new()
    }

    /// Told when a server comes, goes, or changes by more than a little.
    fn cluster_changed(&self, _state: ClusterState) {}

    /// Asked for each execution of a plan that says so.
    fn decide(&self, _execution: Execution) -> RouteDecision {
        RouteDecision::BuiltIn
    }
}

/// Whose results are kept.
pub trait Caching: Policy {
    /// Asked once per shape.
    fn plan_cache(&self, _shape: &Shape) -> CachePlan {
        CachePlan::Bypass
    }

    /// Tags to invalidate after a write, on top of its tables. Asked once per shape.
    fn plan_invalidate(&self, _shape: &Shape) -> Vec<String> {
        Vec::new()
    }

    /// The TTL in milliseconds, or none. Asked for each execution of a plan that says so.
    fn decide(&self, _execution: Execution) -> Option<u32> {
        None
    }
}

/// What one execution costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitDecision {
    /// The buckets' costs, so many times.
    Times(u32),
    Refuse,
}

impl LimitDecision {
    /// As WIT says it.
    pub fn number(self) -> i64 {
        match self {
            LimitDecision::Times(factor) => i64::from(factor),
            LimitDecision::Refuse => -1,
        }
    }
}

/// Who may run how much.
pub trait Limiting: Policy {
    /// Asked once per shape and identity, or once per identity where the answer stands for every shape.
    fn plan_limit(&self, _shape: &Shape, _identity: &Identity) -> LimitPlan {
        LimitPlan::Unlimited(Scope::EveryIdentity)
    }

    /// Asked for each execution of a plan that says so.
    fn decide(&self, _execution: Execution) -> LimitDecision {
        LimitDecision::Times(1)
    }
}

/// Which indexes slow statements miss.
pub trait Advising: Policy {
    /// Called in the background, now and then.
    fn advise(&self, batch: &Batch) -> Vec<Suggestion>;
}
