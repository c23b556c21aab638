//! The questions that a generation can be asked: each makes one call, and checks that the answer makes sense.

use crate::bindings::questions;
use crate::bindings::since_v0_1::route::ClusterState;
use crate::bindings::since_v0_1::{cache, index, limit, route, types};
use crate::fault::Fault;
use crate::generation::Generation;
use crate::instance::{Exports, Pace};
use std::time::Duration;
use tidegate_core::policy::cache::{self as core_cache, CachePlan, CacheRuleText};
use tidegate_core::policy::faults::FaultKind;
use tidegate_core::policy::index::{KnownTable, Suggestion, check_suggestions};
use tidegate_core::policy::limit::{self as core_limit, BucketText, LimitPlan};
use tidegate_core::policy::route::{Decision, RoutePlan, check_weights};
use tidegate_core::policy::{AskId, ReplicaMetrics, Template, Weight};
use tidegate_core::statement::Shape;

/// A shape, with those of its tags that policies are told of.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub shape: &'a Shape,
    pub tags: &'a [(&'a str, &'a str)],
}

impl Question<'_> {
    fn wit(&self) -> types::Shape {
        questions::shape(self.shape, self.tags)
    }
}

/// One execution, for plans that ask.
#[derive(Clone, Copy, Debug)]
pub struct Execution {
    pub id: AskId,
    pub session: types::SessionFlags,
    pub fingerprint_low: u64,
    /// 0 when no end user is known.
    pub end_user_hash: u64,
}

/// A generation asked for another world's answer: loading checked the world, so this is never seen.
fn other_world() -> Fault {
    Fault::new(FaultKind::Start, "the plugin is of another world")
}

/// Makes a call into one world's exports.
macro_rules! ask {
    ($generation:expr, $pace:expr, $world:ident, |$exports:ident, $store:ident| $call:expr) => {
        $generation
            .call($pace, |instance| {
                let $store = &mut instance.store;
                match &instance.exports {
                    Exports::$world($exports) => $call.map(Some),
                    _ => Ok(None),
                }
            })
            .and_then(|answer| answer.ok_or_else(other_world))
    };
}

impl Generation {
    /// Where a shape's statements run. `replicas` are the names of those that are configured.
    pub fn plan_route(
        &self,
        question: Question<'_>,
        replicas: &[&str],
    ) -> Result<RoutePlan, Fault> {
        let shape = question.wit();
        let plan = ask!(self, Pace::Plan, Routing, |exports, store| {
            exports.tidegate_policy_route().call_plan_route(store, &shape)
        })?;
        Ok(RoutePlan::from(plan).check(replicas)?)
    }

    /// The shares of replicas from now on.
    pub fn weigh(&self, replicas: &[ReplicaMetrics]) -> Result<Vec<Weight>, Fault> {
        let wit: Vec<route::ReplicaMetrics> = replicas.iter().map(Into::into).collect();
        let weights = ask!(self, Pace::Weigh, Routing, |exports, store| {
            exports.tidegate_policy_route().call_weigh(store, &wit)
        })?;
        Ok(check_weights(weights.into_iter().map(Into::into).collect(), replicas)?)
    }

    /// Tells every instance of the cluster before its next decision.
    pub fn cluster_changed(&self, primary: Option<&str>, replicas: &[ReplicaMetrics]) {
        let primary = primary.map(str::to_owned);
        let replicas = replicas.iter().map(Into::into).collect();
        self.set_cluster(ClusterState { primary, replicas });
    }

    /// Where one execution runs.
    #[inline]
    pub fn decide_route(&self, execution: Execution) -> Result<Decision, Fault> {
        let cluster = self.cluster();
        let answer = self.call(Pace::Decide, |instance| {
            let Exports::Routing(exports) = &instance.exports else { return Ok(None) };
            let route = exports.tidegate_policy_route();
            if let Some(cluster) = cluster.as_ref().filter(|c| c.number != instance.told) {
                route.call_cluster_changed(&mut instance.store, &cluster.state)?;
                instance.told = cluster.number;
            }
            let Execution { id, session, fingerprint_low, end_user_hash } = execution;
            let store = &mut instance.store;
            route.call_decide(store, id, session, fingerprint_low, end_user_hash).map(Some)
        })?;
        let replicas = cluster.as_ref().map_or(0, |cluster| cluster.state.replicas.len());
        Ok(Decision::read(answer.ok_or_else(other_world)?, replicas)?)
    }

    /// Whether and how a shape's results are kept.
    pub fn plan_cache(&self, question: Question<'_>) -> Result<CachePlan, Fault> {
        let shape = question.wit();
        let plan = ask!(self, Pace::Plan, Caching, |exports, store| {
            exports.tidegate_policy_cache().call_plan_cache(store, &shape)
        })?;
        let check = |rule| CacheRuleText::from(rule).check(shape.parameters);
        Ok(match plan {
            cache::CachePlan::Bypass => CachePlan::Bypass,
            cache::CachePlan::Store(rule) => CachePlan::Store(check(rule)?),
            cache::CachePlan::Ask(cache::Asked { id, rule }) => CachePlan::Ask(id, check(rule)?),
        })
    }

    /// What a shape's writes invalidate, besides its tables.
    pub fn plan_invalidate(&self, question: Question<'_>) -> Result<Vec<Template>, Fault> {
        let shape = question.wit();
        let tags = ask!(self, Pace::Plan, Caching, |exports, store| {
            exports.tidegate_policy_cache().call_plan_invalidate(store, &shape)
        })?;
        Ok(core_cache::check_tags(&tags, shape.parameters)?)
    }

    /// How long one execution's result is kept.
    pub fn decide_cache(&self, execution: Execution) -> Result<Option<Duration>, Fault> {
        let Execution { id, session, fingerprint_low, end_user_hash } = execution;
        let answer = ask!(self, Pace::Decide, Caching, |exports, store| {
            let cache = exports.tidegate_policy_cache();
            cache.call_decide(store, id, session, fingerprint_low, end_user_hash)
        })?;
        Ok(core_cache::read_decision(answer)?)
    }

    /// How somebody's statements of a shape are limited.
    pub fn plan_limit(
        &self,
        question: Question<'_>,
        identity: &types::Identity,
    ) -> Result<LimitPlan, Fault> {
        let shape = question.wit();
        let plan = ask!(self, Pace::Plan, Limiting, |exports, store| {
            exports.tidegate_policy_limit().call_plan_limit(store, &shape, identity)
        })?;
        let check = |buckets: Vec<limit::Bucket>| {
            let texts: Vec<BucketText> = buckets.into_iter().map(Into::into).collect();
            core_limit::check_buckets(&texts)
        };
        Ok(match plan {
            limit::LimitPlan::Unlimited(scope) => LimitPlan::Unlimited(scope.into()),
            limit::LimitPlan::Buckets(limit::Buckets { buckets, scope }) => {
                LimitPlan::Buckets(check(buckets)?, scope.into())
            }
            limit::LimitPlan::Ask(limit::Asked { id, buckets }) => {
                LimitPlan::Ask(id, check(buckets.buckets)?, buckets.scope.into())
            }
        })
    }

    /// What one execution costs.
    pub fn decide_limit(&self, execution: Execution) -> Result<core_limit::Decision, Fault> {
        let Execution { id, session, fingerprint_low, end_user_hash } = execution;
        let answer = ask!(self, Pace::Decide, Limiting, |exports, store| {
            let limit = exports.tidegate_policy_limit();
            limit.call_decide(store, id, session, fingerprint_low, end_user_hash)
        })?;
        Ok(core_limit::read_decision(answer)?)
    }

    /// Which indexes slow statements miss. In the background.
    pub fn advise(&self, batch: &index::Batch) -> Result<Vec<Suggestion>, Fault> {
        let suggestions = ask!(self, Pace::Background, Advising, |exports, store| {
            exports.tidegate_policy_index().call_advise(store, batch)
        })?;
        let suggestions = suggestions.into_iter().map(Into::into).collect();
        let tables: Vec<KnownTable<'_>> = batch.tables.iter().map(known).collect();
        let shapes = batch.shapes.iter().map(|slow| questions::number(&slow.shape.fingerprint));
        let shapes: Vec<u128> = shapes.collect();
        Ok(check_suggestions(suggestions, &tables, &shapes)?)
    }
}

fn known(table: &index::TableStatistics) -> KnownTable<'_> {
    KnownTable {
        schema: &table.schema,
        name: &table.name,
        columns: table.columns.iter().map(|column| column.name.as_str()).collect(),
    }
}
