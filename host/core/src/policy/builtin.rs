//! What the host answers by itself: when there is no plugin, and when a plugin failed.

use super::limit::{Bucket, LimitPlan, OverLimit, Scope};
use super::route::{Fallback, ReplicaMetrics, ReplicaRule, RouteTarget, Safety, Weight};
use super::template::{Holes, Problem};
use super::{CachePlan, Template};
use crate::limits::{
    POLICY_CPU_PERCENT_HIGH, POLICY_LIMIT_WAIT_DEFAULT, POLICY_LIMIT_WINDOW_DEFAULT,
    POLICY_WEIGHT_MAX,
};
use std::time::Duration;

/// Reads to any replica within the host's lag bound, else to the primary.
pub fn route(safety: Safety) -> RouteTarget {
    match safety {
        Safety::ReadsOnly => RouteTarget::Replicas(ReplicaRule {
            servers: Vec::new(),
            lag_max: None,
            otherwise: Fallback::Primary,
        }),
        Safety::PrimaryOnly => RouteTarget::Primary,
    }
}

/// Nothing is cached unless a policy names it.
pub fn cache() -> CachePlan {
    CachePlan::Bypass
}

/// Weights by CPU and response time: half idle has three quarters of the share, a replica at or above the high mark a
/// tenth, and one that answers in twice the fastest one's time half.
pub fn weigh(replicas: &[ReplicaMetrics]) -> Vec<Weight> {
    let positive = |ms: Option<f64>| ms.filter(|ms| ms.is_finite() && *ms > 0.0);
    let fastest = replicas.iter().filter_map(|replica| positive(replica.response_ms));
    let fastest = fastest.fold(f64::INFINITY, f64::min);
    let weigh = |replica: &ReplicaMetrics| {
        let cpu = replica.cpu_percent.filter(|cpu| cpu.is_finite()).unwrap_or(0.0);
        let idle = if cpu >= POLICY_CPU_PERCENT_HIGH { 0.1 } else { 1.0 - cpu.max(0.0) / 200.0 };
        let speed = positive(replica.response_ms).map_or(1.0, |ms| fastest / ms);
        let weight = (replica.base_weight * idle * speed).clamp(1.0, POLICY_WEIGHT_MAX);
        Weight { name: replica.name.clone(), weight }
    };
    replicas.iter().map(weigh).collect()
}

/// The limits of the configuration, which act without a plugin too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub window: Duration,
    /// Statements of one end user in a window; `None` for no limit.
    pub end_user: Option<u32>,
    /// Statements of all together in a window; `None` for no limit.
    pub all: Option<u32>,
    /// A statement over a limit waits so long at most, then is refused.
    pub wait: Duration,
}

impl Limits {
    /// No limits: they act only where a configuration names them.
    pub const NONE: Limits = Limits {
        window: POLICY_LIMIT_WINDOW_DEFAULT,
        end_user: None,
        all: None,
        wait: POLICY_LIMIT_WAIT_DEFAULT,
    };
}

/// Whom the limits are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Counted, never refused.
    Administrator,
    /// One whom the application named.
    EndUser,
    /// The application itself.
    Application,
}

/// The limits for somebody. The error names a template of ours that cannot be read, which there is none of.
pub fn limit(limits: &Limits, who: Who) -> Result<LimitPlan, Problem> {
    let over = match who {
        Who::Administrator => OverLimit::Count,
        Who::EndUser | Who::Application if limits.wait.is_zero() => OverLimit::Reject,
        Who::EndUser | Who::Application => OverLimit::Queue(limits.wait),
    };
    let bucket = |name: &str, key: &str, limit: u32| {
        let key = Template::parse(key, Holes::Identity)?;
        Ok(Bucket { name: name.into(), key, limit, window: limits.window, cost: 1, over })
    };
    let own = limits.end_user.filter(|_| who != Who::Application);
    let own = own.map(|limit| bucket("end user", "{end-user}", limit));
    let all = limits.all.map(|limit| bucket("all", "all", limit));
    let buckets = own.into_iter().chain(all).collect::<Result<Vec<_>, Problem>>()?;
    let nobody = limits.end_user.is_none() && limits.all.is_none();
    Ok(if nobody {
        LimitPlan::Unlimited(Scope::EveryIdentity)
    } else if buckets.is_empty() {
        LimitPlan::Unlimited(Scope::EveryShape)
    } else {
        LimitPlan::Buckets(buckets, Scope::EveryShape)
    })
}

#[cfg(test)]
mod tests {
    use super::super::route::check_weights;
    use super::*;
    use proptest::prelude::*;

    fn replica(name: &str, cpu: f64, ms: f64) -> ReplicaMetrics {
        ReplicaMetrics {
            name: name.into(),
            healthy: true,
            cpu_percent: Some(cpu),
            response_ms: Some(ms),
            lag: None,
            active: 0,
            base_weight: 100.0,
        }
    }

    #[test]
    fn what_may_write_stays_on_the_primary() {
        assert_eq!(route(Safety::PrimaryOnly), RouteTarget::Primary);
        assert!(matches!(route(Safety::ReadsOnly), RouteTarget::Replicas(_)));
        assert_eq!(cache(), CachePlan::Bypass);
    }

    const LIMITED: Limits = Limits { end_user: Some(100), all: Some(10_000), ..Limits::NONE };

    #[test]
    fn limits_refuse_end_users_and_count_administrators() {
        let buckets = |limits: &Limits, who| match limit(limits, who).unwrap() {
            LimitPlan::Buckets(buckets, Scope::EveryShape) => buckets,
            other => panic!("{other:?}"),
        };
        let user = buckets(&LIMITED, Who::EndUser);
        let summary: Vec<_> = user.iter().map(|b| (b.limit, b.window.as_secs(), b.over)).collect();
        let over = OverLimit::Queue(POLICY_LIMIT_WAIT_DEFAULT);
        assert_eq!(summary, [(100, 60, over), (10_000, 60, over)]);
        let admin = buckets(&LIMITED, Who::Administrator);
        assert!(admin.len() == 2 && admin.iter().all(|bucket| bucket.over == OverLimit::Count));
        assert_eq!(buckets(&LIMITED, Who::Application).len(), 1);
        let none = limit(&Limits::NONE, Who::EndUser);
        assert_eq!(none, Ok(LimitPlan::Unlimited(Scope::EveryIdentity)));
        let at_once = Limits { wait: Duration::ZERO, ..LIMITED };
        assert_eq!(buckets(&at_once, Who::EndUser)[0].over, OverLimit::Reject);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn busier_and_slower_replicas_get_less(
            cpu in 0.0..79.0f64, more in 1.0..20.0f64, ms in 0.1..50.0f64, slower in 1.1..10.0f64,
        ) {
            let weights = weigh(&[
                replica("a", cpu, ms),
                replica("b", cpu + more, ms),
                replica("c", cpu, ms * slower),
                replica("d", 80.0 + more, ms),
            ]);
            prop_assert!(weights[0].weight > weights[1].weight);
            prop_assert!(weights[0].weight > weights[2].weight);
            prop_assert!(weights[3].weight <= weights[0].weight / 5.0);
        }

        #[test]
        fn built_in_weights_always_pass_the_checks(
            measured in prop::collection::vec((any::<f64>(), any::<f64>(), any::<bool>()), 0..6),
        ) {
            let replicas: Vec<_> = measured
                .iter()
                .enumerate()
                .map(|(index, (cpu, ms, healthy))| ReplicaMetrics {
                    healthy: *healthy,
                    ..replica(&index.to_string(), *cpu, *ms)
                })
                .collect();
            prop_assert!(check_weights(weigh(&replicas), &replicas).is_ok());
        }
    }
}
