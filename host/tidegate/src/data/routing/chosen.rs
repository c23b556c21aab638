//! Where one read goes, and what its plan says of that.

use tidegate_core::policy::route::Fallback;
use tidegate_core::policy::{RoutePlan, RouteTarget};
use tidegate_core::route::Choice;

/// Where a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub choice: Choice,
    pub otherwise: Fallback,
    pub among: Among,
}

/// Which replicas a read was free to use, as far as the policy is concerned: how long it takes is compared only where all do
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    All,
    Some,
}

/// Does the policy leave the choice to the host?
pub(super) fn among(plan: &RoutePlan) -> Among {
    match &plan.target {
        RouteTarget::Replicas(rule) if !rule.servers.is_empty() => Among::Some,
        _ => Among::All,
    }
}

pub(super) fn otherwise(plan: &RoutePlan) -> Fallback {
    match &plan.target {
        RouteTarget::Replicas(rule) => rule.otherwise,
        _ => Fallback::Primary,
    }
}
