//! What a plugin of any slot plans for a statement, as one type: for tools that do not care which slot it is.

use crate::ask::{Execution, Question};
use crate::bindings::since_v0_1::types::Identity;
use crate::fault::Fault;
use crate::generation::Generation;
use std::fmt;
use std::time::Duration;
use tidegate_core::ids::Priority;
use tidegate_core::policy::cache::{ExpiryMode, WriteMode};
use tidegate_core::policy::faults::FaultKind;
use tidegate_core::policy::index::Suggestion;
use tidegate_core::policy::limit::{self, LimitPlan};
use tidegate_core::policy::route::{self, Fallback, RoutePlan, RouteTarget, Safety};
use tidegate_core::policy::{
    AskId, Bucket, CachePlan, CacheRule, OverLimit, Scope, Slot, Template, Weight, builtin,
};
use tidegate_core::statement::Shape;

/// Everything that a plan may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub question: Question<'a>,
    pub identity: &'a Identity,
    /// Names of the replicas that are configured.
    pub replicas: &'a [&'a str],
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    Route(RoutePlan),
    /// With what a write invalidates on top of its tables.
    Cache(CachePlan, Vec<Template>),
    Limit(LimitPlan),
}

/// An answer in words for people: what differences between two versions are told in.
pub(crate) trait Told: PartialEq {
    fn told(&self) -> Box<str>;

    /// Whether the host follows both in the same way, for statements of this shape.
    fn comes_to(&self, other: &Self, _shape: &Shape) -> bool {
        self == other
    }
}

impl Told for RoutePlan {
    fn comes_to(&self, other: &Self, shape: &Shape) -> bool {
        effective(self, shape) == effective(other, shape)
    }

    fn told(&self) -> Box<str> {
        Plan::Route(self.clone()).to_string().into()
    }
}

impl Told for CachePlan {
    fn told(&self) -> Box<str> {
        Plan::Cache(self.clone(), Vec::new()).to_string().into()
    }
}

/// What a write invalidates; `None` is everything that a policy has tagged.
impl Told for Option<Vec<Template>> {
    fn told(&self) -> Box<str> {
        match self.as_deref() {
            None => "invalidates everything".into(),
            Some([]) => "invalidates nothing more".into(),
            Some(tags) => {
                let tags: Vec<String> = tags.iter().map(Template::to_string).collect();
                format!("invalidates {}", tags.join(", ")).into()
            }
        }
    }
}

impl Told for Vec<Suggestion> {
    fn told(&self) -> Box<str> {
        let indexes: Vec<String> = self.iter().map(Suggestion::sql).collect();
        indexes.join("; ").into()
    }
}

impl Told for LimitPlan {
    fn told(&self) -> Box<str> {
        Plan::Limit(self.clone()).to_string().into()
    }
}

impl Told for Vec<Weight> {
    fn told(&self) -> Box<str> {
        let weights = self.iter().map(|own| format!("{} {}", own.name, own.weight));
        weights.collect::<Vec<String>>().join(", ").into()
    }
}

/// The plan as far as the host follows it. That functions and views only read cannot be seen here, so a statement counts
/// as a read when its text says so.
fn effective(plan: &RoutePlan, shape: &Shape) -> RoutePlan {
    let safety = if shape.is_plain_read() { Safety::ReadsOnly } else { Safety::PrimaryOnly };
    let target = match plan.bind(safety) {
        RouteTarget::BuiltIn => builtin::route(safety),
        target => target.clone(),
    };
    RoutePlan { target, ..plan.clone() }
}

/// What a plan that asks was told for one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Route(route::Decision),
    Cache(Option<Duration>),
    Limit(limit::Decision),
}

impl Plan {
    /// The host's own answer; none for advice.
    pub fn built_in(slot: Slot) -> Option<Plan> {
        match slot {
            Slot::Routing => Some(Plan::Route(RoutePlan::default())),
            Slot::Caching => Some(Plan::Cache(builtin::cache(), Vec::new())),
            Slot::Limiting => Some(Plan::Limit(LimitPlan::default())),
            Slot::Advising => None,
        }
    }

    /// The number that `decide` is called with for each execution; none for a plan that is static.
    pub fn asks(&self) -> Option<AskId> {
        match self {
            Plan::Route(RoutePlan { target: RouteTarget::Ask(id), .. })
            | Plan::Cache(CachePlan::Ask(id, _), _)
            | Plan::Limit(LimitPlan::Ask(id, ..)) => Some(*id),
            Plan::Route(_) | Plan::Cache(..) | Plan::Limit(_) => None,
        }
    }

    /// What it comes to for statements of this shape: the same for plans that the host follows in the same way.
    pub fn effective(&self, shape: &Shape) -> Plan {
        match self {
            Plan::Route(plan) => Plan::Route(effective(plan, shape)),
            other => other.clone(),
        }
    }

    /// Its first word: which of the answers of its slot it is.
    pub fn word(&self) -> &'static str {
        match self {
            Plan::Route(plan) => match plan.target {
                RouteTarget::BuiltIn => "built-in",
                RouteTarget::Primary => "primary",
                RouteTarget::Replicas(_) => "replicas",
                RouteTarget::Reject(_) => "reject",
                RouteTarget::Ask(_) => "ask",
            },
            Plan::Cache(plan, _) => match plan {
                CachePlan::Bypass => "bypass",
                CachePlan::Store(_) => "store",
                CachePlan::Ask(..) => "ask",
            },
            Plan::Limit(plan) => match plan {
                LimitPlan::Unlimited(_) => "unlimited",
                LimitPlan::Buckets(..) => "buckets",
                LimitPlan::Ask(..) => "ask",
            },
        }
    }

    /// Every word that [`Plan::word`] has for a slot.
    pub fn words(slot: Slot) -> &'static [&'static str] {
        match slot {
            Slot::Routing => &["built-in", "primary", "replicas", "reject", "ask"],
            Slot::Caching => &["bypass", "store", "ask"],
            Slot::Limiting => &["unlimited", "buckets", "ask"],
            Slot::Advising => &[],
        }
    }
}

impl Generation {
    /// What the plugin plans, whatever its slot.
    ///
    /// # Errors
    /// The call gave no usable answer, or the slot makes no plans.
    pub fn plan(&self, subject: Subject<'_>) -> Result<Plan, Fault> {
        let Subject { question, identity, replicas } = subject;
        match self.slot() {
            Slot::Routing => self.plan_route(question, replicas).map(Plan::Route),
            Slot::Caching => {
                Ok(Plan::Cache(self.plan_cache(question)?, self.plan_invalidate(question)?))
            }
            Slot::Limiting => self.plan_limit(question, identity).map(Plan::Limit),
            Slot::Advising => Err(no_plans()),
        }
    }

    /// What the plugin decides for one execution, whatever its slot.
    ///
    /// # Errors
    /// As [`Generation::plan`].
    pub fn decide(&self, execution: Execution) -> Result<Decision, Fault> {
        match self.slot() {
            Slot::Routing => self.decide_route(execution).map(Decision::Route),
            Slot::Caching => self.decide_cache(execution).map(Decision::Cache),
            Slot::Limiting => self.decide_limit(execution).map(Decision::Limit),
            Slot::Advising => Err(no_plans()),
        }
    }
}

fn no_plans() -> Fault {
    Fault::new(FaultKind::Start, "an advising plugin makes no plans for statements")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Plan::Route(plan) => route(plan, f),
            Plan::Cache(plan, invalidates) => {
                if let CachePlan::Store(rule) | CachePlan::Ask(_, rule) = plan {
                    cache(rule, f)?;
                }
                listed(f, ", invalidates ", invalidates)
            }
            Plan::Limit(plan) => limit(plan, f),
        }
    }
}

fn route(plan: &RoutePlan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match &plan.target {
        RouteTarget::Replicas(rule) => {
            listed(f, " ", &rule.servers)?;
            if let Some(lag) = rule.lag_max {
                write!(f, ", lag at most {} ms", lag.as_millis())?;
            }
            if rule.otherwise == Fallback::Refuse {
                f.write_str(", or refuse")?;
            }
        }
        RouteTarget::Reject(reason) => write!(f, ": {reason}")?,
        RouteTarget::Ask(id) => write!(f, " ({id})")?,
        RouteTarget::BuiltIn | RouteTarget::Primary => {}
    }
    if plan.priority == Priority::Critical {
        f.write_str(", critical")?;
    }
    match &plan.label {
        Some(label) => write!(f, " [{label}]"),
        None => Ok(()),
    }
}

fn cache(rule: &CacheRule, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, " {} ms, {:?}", rule.ttl.as_millis(), rule.tier)?;
    for part in &rule.key {
        write!(f, ", by {part:?}")?;
    }
    listed(f, ", tags ", &rule.tags)?;
    write!(f, ", at most {} bytes", rule.bytes_max)?;
    if rule.write == WriteMode::WriteThrough {
        f.write_str(", written through")?;
    }
    if rule.expiry == ExpiryMode::Warm {
        f.write_str(", kept warm")?;
    }
    Ok(())
}

fn limit(plan: &LimitPlan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (buckets, scope): (&[Bucket], Scope) = match plan {
        LimitPlan::Unlimited(scope) => (&[], *scope),
        LimitPlan::Buckets(buckets, scope) | LimitPlan::Ask(_, buckets, scope) => (buckets, *scope),
    };
    for bucket in buckets {
        let Bucket { name, key, limit, window, cost, over } = bucket;
        write!(f, " {name}({key}): {cost} of {limit} in {} ms,", window.as_millis())?;
        match over {
            OverLimit::Reject => f.write_str(" else reject;")?,
            OverLimit::Queue(time) => write!(f, " else wait {} ms;", time.as_millis())?,
            OverLimit::Count => f.write_str(" only counted;")?,
        }
    }
    f.write_str(match scope {
        Scope::ThisShape => " for this shape",
        Scope::EveryShape => " for every shape",
        Scope::EveryIdentity => " for everybody",
    })
}

fn listed(f: &mut fmt::Formatter<'_>, before: &str, things: &[impl fmt::Display]) -> fmt::Result {
    for (place, thing) in things.iter().enumerate() {
        write!(f, "{}{thing}", if place == 0 { before } else { ", " })?;
    }
    Ok(())
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Route(route::Decision::BuiltIn) => f.write_str("built-in"),
            Decision::Route(route::Decision::Primary) => f.write_str("primary"),
            Decision::Route(route::Decision::AnyReplica) => f.write_str("any replica"),
            Decision::Route(route::Decision::Replica(index)) => write!(f, "replica {index}"),
            Decision::Cache(None) => f.write_str("bypass"),
            Decision::Cache(Some(ttl)) => write!(f, "store {} ms", ttl.as_millis()),
            Decision::Limit(limit::Decision::Factor(times)) => write!(f, "costs {times} times"),
            Decision::Limit(limit::Decision::Refuse) => f.write_str("refuse"),
        }
    }
}
