//! Routing: what a policy may say about where a statement runs, and how far the host follows it.

use super::{AskId, Nonsense, at_most, is_text};
use crate::ids::Priority;
use crate::limits::{
    POLICY_LABEL_BYTES_MAX, POLICY_LAG_MAX, POLICY_REASON_BYTES_MAX, POLICY_SERVERS_MAX,
    POLICY_WEIGHT_MAX,
};
use std::time::Duration;

/// Whether a replica could run the statement at all: what the text, the catalogue and the session say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Proven to read only.
    ReadsOnly,
    /// Writes, locks, calls what may write, runs inside a transaction that does, or is not understood.
    PrimaryOnly,
}

/// A policy's answer about one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePlan {
    pub target: RouteTarget,
    /// While it waits for a server.
    pub priority: Priority,
    /// A name for metrics.
    pub label: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouteTarget {
    /// See [`super::builtin::route`].
    #[default]
    BuiltIn,
    Primary,
    Replicas(ReplicaRule),
    /// The client gets this text.
    Reject(Box<str>),
    /// Asked again for each execution.
    Ask(AskId),
}

/// Which replicas will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaRule {
    /// None of them named means all.
    pub servers: Vec<Box<str>>,
    /// On top of the host's own bound, never instead of it.
    pub lag_max: Option<Duration>,
    pub otherwise: Fallback,
}

/// What happens when no replica will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    #[default]
    Primary,
    Refuse,
}

impl RoutePlan {
    /// Refuses what no honest plugin says. `replicas` are those of the configuration.
    pub fn check(self, replicas: &[&str]) -> Result<RoutePlan, Nonsense> {
        if let Some(label) = &self.label {
            is_text(label, POLICY_LABEL_BYTES_MAX, "label")?;
        }
        match &self.target {
            RouteTarget::Replicas(rule) => rule.check(replicas)?,
            RouteTarget::Reject(reason) => is_text(reason, POLICY_REASON_BYTES_MAX, "reason")?,
            RouteTarget::BuiltIn | RouteTarget::Primary | RouteTarget::Ask(_) => {}
        }
        Ok(self)
    }

    /// Where the statement may go: a policy can refuse it or keep it from replicas, but send nothing to a replica that
    /// is not proven to read only.
    pub fn bind(&self, safety: Safety) -> &RouteTarget {
        match (&self.target, safety) {
            (RouteTarget::Reject(_), _) | (_, Safety::ReadsOnly) => &self.target,
            (_, Safety::PrimaryOnly) => &RouteTarget::Primary,
        }
    }
}

impl ReplicaRule {
    fn check(&self, replicas: &[&str]) -> Result<(), Nonsense> {
        at_most(self.servers.len(), POLICY_SERVERS_MAX, "servers")?;
        for name in &self.servers {
            known(name, replicas)?;
        }
        if self.lag_max.is_some_and(|lag| lag > POLICY_LAG_MAX) {
            return Err(Nonsense::OutOfRange { what: "max-lag-ms" });
        }
        Ok(())
    }

    /// Whether a replica of this name will do.
    pub fn allows(&self, name: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|server| **server == *name)
    }
}

fn known(name: &str, replicas: &[&str]) -> Result<(), Nonsense> {
    if replicas.contains(&name) { Ok(()) } else { Err(Nonsense::UnknownReplica(cut(name))) }
}

/// A name for an error message, however long the plugin made it.
fn cut(name: &str) -> Box<str> {
    name.chars().take(POLICY_LABEL_BYTES_MAX / 4).collect::<String>().into()
}

/// What a decision for one execution means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    BuiltIn,
    Primary,
    AnyReplica,
    /// By its place in the cluster state that the plugin was last told.
    Replica(usize),
}

impl Decision {
    /// Reads the number that `decide` returned; `replicas` is how many the plugin was told of.
    pub fn read(answer: i64, replicas: usize) -> Result<Decision, Nonsense> {
        match answer {
            -1 => Ok(Decision::Primary),
            -2 => Ok(Decision::AnyReplica),
            -3 => Ok(Decision::BuiltIn),
            _ => usize::try_from(answer)
                .ok()
                .filter(|index| *index < replicas)
                .map(Decision::Replica)
                .ok_or(Nonsense::UnknownDecision(answer)),
        }
    }

    /// As [`RoutePlan::bind`].
    pub fn bind(self, safety: Safety) -> Decision {
        match safety {
            Safety::ReadsOnly => self,
            Safety::PrimaryOnly => Decision::Primary,
        }
    }
}

/// A replica as measured at a health check.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaMetrics {
    pub name: Box<str>,
    pub healthy: bool,
    /// Of all its cores, 0 to 100; `None` when the server does not tell.
    pub cpu_percent: Option<f64>,
    /// A moving mean; `None` when nothing was measured yet.
    pub response_ms: Option<f64>,
    pub lag: Option<Duration>,
    /// Statements under way.
    pub active: u32,
    /// From the configuration; 100 unless set.
    pub base_weight: f64,
}

/// A replica's share among all; 0 for none.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    pub name: Box<str>,
    pub weight: f64,
}

/// Refuses weights that are no numbers, negative, too large, or for nobody. If no healthy replica would get any share,
/// the answer is nonsense too: a policy takes a replica away by a plan, not by weights.
pub fn check_weights(
    weights: Vec<Weight>,
    replicas: &[ReplicaMetrics],
) -> Result<Vec<Weight>, Nonsense> {
    at_most(weights.len(), replicas.len(), "weights")?;
    for (place, Weight { name, weight }) in weights.iter().enumerate() {
        if !replicas.iter().any(|replica| replica.name == *name) {
            return Err(Nonsense::UnknownReplica(cut(name)));
        }
        if weights.iter().take(place).any(|other| other.name == *name) {
            return Err(Nonsense::Twice { what: "replica" });
        }
        if !(0.0..=POLICY_WEIGHT_MAX).contains(weight) {
            return Err(Nonsense::OutOfRange { what: "weight" });
        }
    }
    let weightless = |replica: &ReplicaMetrics| {
        weights.iter().any(|w| w.name == replica.name && w.weight == 0.0)
    };
    let mut healthy = replicas.iter().filter(|replica| replica.healthy).peekable();
    if healthy.peek().is_some() && healthy.all(weightless) {
        return Err(Nonsense::OutOfRange { what: "sum of weights" });
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replicas(rule: ReplicaRule) -> RoutePlan {
        RoutePlan { target: RouteTarget::Replicas(rule), ..RoutePlan::default() }
    }

    #[test]
    fn replicas_that_do_not_exist_are_nonsense() {
        let rule = |name: &str| ReplicaRule { servers: vec![name.into()], ..Default::default() };
        assert!(replicas(rule("r1")).check(&["r1", "r2"]).is_ok());
        assert_eq!(replicas(rule("r3")).check(&["r1"]), Err(Nonsense::UnknownReplica("r3".into())));
        let many = ReplicaRule {
            servers: vec!["r1".into(); POLICY_SERVERS_MAX + 1],
            ..Default::default()
        };
        assert!(matches!(replicas(many).check(&["r1"]), Err(Nonsense::TooMany { .. })));
    }

    #[test]
    fn texts_are_bounded() {
        let reject = |text: String| RoutePlan {
            target: RouteTarget::Reject(text.into()),
            ..RoutePlan::default()
        };
        assert!(reject("reports run at night".to_owned()).check(&[]).is_ok());
        for bad in [String::new(), "a\0b".to_owned(), "x".repeat(POLICY_REASON_BYTES_MAX + 1)] {
            assert_eq!(reject(bad).check(&[]), Err(Nonsense::BadText { what: "reason" }));
        }
        let label = "x".repeat(POLICY_LABEL_BYTES_MAX + 1);
        let labelled = RoutePlan { label: Some(label.into()), ..RoutePlan::default() };
        assert_eq!(labelled.check(&[]), Err(Nonsense::BadText { what: "label" }));
    }

    #[test]
    fn decisions_are_few() {
        assert_eq!(Decision::read(-1, 2), Ok(Decision::Primary));
        assert_eq!(Decision::read(-2, 0), Ok(Decision::AnyReplica));
        assert_eq!(Decision::read(-3, 0), Ok(Decision::BuiltIn));
        assert_eq!(Decision::read(1, 2), Ok(Decision::Replica(1)));
        for bad in [2, i64::MAX, -4, i64::MIN] {
            assert_eq!(Decision::read(bad, 2), Err(Nonsense::UnknownDecision(bad)));
        }
    }

    fn metrics(name: &str, healthy: bool) -> ReplicaMetrics {
        ReplicaMetrics {
            name: name.into(),
            healthy,
            cpu_percent: None,
            response_ms: None,
            lag: None,
            active: 0,
            base_weight: 100.0,
        }
    }

    #[test]
    fn weights_leave_somebody_to_ask() {
        let two = [metrics("a", true), metrics("b", false)];
        let weight = |name: &str, weight| Weight { name: name.into(), weight };
        assert!(check_weights(vec![], &two).is_ok());
        assert!(check_weights(vec![weight("a", 1.0), weight("b", 0.0)], &two).is_ok());
        assert_eq!(
            check_weights(vec![weight("a", 0.0)], &two),
            Err(Nonsense::OutOfRange { what: "sum of weights" })
        );
        assert_eq!(
            check_weights(vec![weight("a", 1.0), weight("a", 2.0)], &two),
            Err(Nonsense::Twice { what: "replica" })
        );
        assert!(check_weights(vec![weight("b", 0.0)], &[metrics("b", false)]).is_ok());
        for bad in [f64::NAN, f64::INFINITY, -1.0, POLICY_WEIGHT_MAX * 2.0] {
            assert_eq!(
                check_weights(vec![weight("a", bad)], &two),
                Err(Nonsense::OutOfRange { what: "weight" })
            );
        }
    }

    fn target() -> impl Strategy<Value = RouteTarget> {
        prop_oneof![
            Just(RouteTarget::BuiltIn),
            Just(RouteTarget::Primary),
            Just(RouteTarget::Replicas(ReplicaRule::default())),
            Just(RouteTarget::Reject("no".into())),
            any::<u32>().prop_map(RouteTarget::Ask),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_answer_sends_to_a_replica_what_may_write(target in target(), answer in -5..5i64) {
            let plan = RoutePlan { target, ..RoutePlan::default() };
            let bound = plan.bind(Safety::PrimaryOnly);
            prop_assert!(matches!(bound, RouteTarget::Primary | RouteTarget::Reject(_)));
            prop_assert_eq!(plan.bind(Safety::ReadsOnly), &plan.target);
            if let Ok(decision) = Decision::read(answer, 3) {
                prop_assert_eq!(decision.bind(Safety::PrimaryOnly), Decision::Primary);
            }
        }

        #[test]
        fn weights_that_pass_are_usable(
            values in prop::collection::vec(prop_oneof![any::<f64>(), 0.0..200.0f64], 0..4),
        ) {
            let four: Vec<_> = ["a", "b", "c", "d"].map(|name| metrics(name, true)).into();
            let weights = values.iter().zip(&four).map(|(weight, replica)| Weight {
                name: replica.name.clone(),
                weight: *weight,
            });
            if let Ok(weights) = check_weights(weights.collect(), &four) {
                let sum: f64 = weights.iter().map(|w| w.weight).sum();
                prop_assert!(sum.is_finite() && weights.iter().all(|w| w.weight >= 0.0));
            }
        }
    }
}
