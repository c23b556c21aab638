//! What a plugin answered, as core's plain data. Sense is checked by core.

use super::since_v0_1::{cache, index, limit, route};
use std::time::Duration;
use tidegate_core::ids::Priority;
use tidegate_core::policy::cache::{CacheRuleText, ExpiryMode, KeyPart, Tier, WriteMode};
use tidegate_core::policy::index as advice;
use tidegate_core::policy::limit::{BucketText, OverLimit, Scope};
use tidegate_core::policy::route::{Fallback, ReplicaRule, RoutePlan, RouteTarget};
use tidegate_core::policy::{ReplicaMetrics, Weight};

impl From<route::RoutePlan> for RoutePlan {
    fn from(plan: route::RoutePlan) -> RoutePlan {
        let target = match plan.target {
            route::Target::BuiltIn => RouteTarget::BuiltIn,
            route::Target::Primary => RouteTarget::Primary,
            route::Target::Replicas(rule) => RouteTarget::Replicas(rule.into()),
            route::Target::Reject(reason) => RouteTarget::Reject(reason.into()),
            route::Target::Ask(id) => RouteTarget::Ask(id),
        };
        let priority = match plan.priority {
            route::Priority::Normal => Priority::Normal,
            route::Priority::Critical => Priority::Critical,
        };
        RoutePlan { target, priority, label: plan.label.map(Into::into) }
    }
}

impl From<route::ReplicaRule> for ReplicaRule {
    fn from(rule: route::ReplicaRule) -> ReplicaRule {
        ReplicaRule {
            servers: boxed(rule.servers),
            lag_max: rule.max_lag_ms.map(|ms| Duration::from_millis(ms.into())),
            otherwise: match rule.otherwise {
                route::Fallback::Primary => Fallback::Primary,
                route::Fallback::Refuse => Fallback::Refuse,
            },
        }
    }
}

impl From<route::Weight> for Weight {
    fn from(weight: route::Weight) -> Weight {
        Weight { name: weight.name.into(), weight: weight.weight }
    }
}

impl From<&ReplicaMetrics> for route::ReplicaMetrics {
    fn from(replica: &ReplicaMetrics) -> route::ReplicaMetrics {
        let ms = |lag: Duration| u32::try_from(lag.as_millis()).unwrap_or(u32::MAX);
        route::ReplicaMetrics {
            name: replica.name.to_string(),
            healthy: replica.healthy,
            cpu_percent: replica.cpu_percent,
            response_ms: replica.response_ms,
            lag_ms: replica.lag.map(ms),
            active: replica.active,
            base_weight: replica.base_weight,
        }
    }
}

impl From<cache::CacheRule> for CacheRuleText {
    fn from(rule: cache::CacheRule) -> CacheRuleText {
        CacheRuleText {
            ttl_ms: rule.ttl_ms,
            tier: match rule.tier {
                cache::Tier::Ttl => Tier::Ttl,
                cache::Tier::Bounded => Tier::Bounded,
                cache::Tier::Fresh => Tier::Fresh,
                cache::Tier::Strict => Tier::Strict,
            },
            key: rule.key.into_iter().map(Into::into).collect(),
            tags: rule.tags,
            bytes_max: rule.max_bytes,
            write: if rule.write_through { WriteMode::WriteThrough } else { WriteMode::Invalidate },
            expiry: if rule.warm { ExpiryMode::Warm } else { ExpiryMode::Expire },
        }
    }
}

impl From<cache::KeyPart> for KeyPart {
    fn from(part: cache::KeyPart) -> KeyPart {
        match part {
            cache::KeyPart::User => KeyPart::User,
            cache::KeyPart::Application => KeyPart::Application,
            cache::KeyPart::EndUser => KeyPart::EndUser,
            cache::KeyPart::Tag(name) => KeyPart::Tag(name.into()),
        }
    }
}

impl From<limit::Bucket> for BucketText {
    fn from(bucket: limit::Bucket) -> BucketText {
        let over = match bucket.over {
            limit::OverLimit::Reject => OverLimit::Reject,
            limit::OverLimit::Queue(ms) => OverLimit::Queue(Duration::from_millis(ms.into())),
            limit::OverLimit::Count => OverLimit::Count,
        };
        let limit::Bucket { name, key, limit, window_ms, cost, .. } = bucket;
        BucketText { name, key, limit, window_ms, cost, over }
    }
}

impl From<limit::Scope> for Scope {
    fn from(scope: limit::Scope) -> Scope {
        match scope {
            limit::Scope::ThisShape => Scope::ThisShape,
            limit::Scope::EveryShape => Scope::EveryShape,
            limit::Scope::EveryIdentity => Scope::EveryIdentity,
        }
    }
}

impl From<index::Suggestion> for advice::Suggestion {
    fn from(suggestion: index::Suggestion) -> advice::Suggestion {
        advice::Suggestion {
            schema: suggestion.schema.into(),
            table: suggestion.table.into(),
            method: match suggestion.method {
                index::IndexMethod::Btree => advice::Method::Btree,
                index::IndexMethod::Hash => advice::Method::Hash,
                index::IndexMethod::Gin => advice::Method::Gin,
                index::IndexMethod::Gist => advice::Method::Gist,
                index::IndexMethod::Brin => advice::Method::Brin,
            },
            keys: suggestion.keys.into_iter().map(Into::into).collect(),
            include: boxed(suggestion.include),
            predicate: suggestion.predicate.map(Into::into),
            shapes: suggestion.shapes.iter().map(super::questions::number).collect(),
            confidence: match suggestion.confidence {
                index::Confidence::Verifiable => advice::Confidence::Verifiable,
                index::Confidence::Heuristic => advice::Confidence::Heuristic,
            },
            reason: suggestion.reason.into(),
        }
    }
}

impl From<index::IndexKey> for advice::Key {
    fn from(key: index::IndexKey) -> advice::Key {
        let source = match key.source {
            index::KeySource::Column(column) => advice::Source::Column(column.into()),
            index::KeySource::FunctionOf((function, column)) => {
                advice::Source::FunctionOf { function: function.into(), column: column.into() }
            }
        };
        let order =
            if key.descending { advice::Order::Descending } else { advice::Order::Ascending };
        advice::Key { source, order, operator_class: key.operator_class.map(Into::into) }
    }
}

impl From<index::Predicate> for advice::Predicate {
    fn from(predicate: index::Predicate) -> advice::Predicate {
        match predicate {
            index::Predicate::IsNull(column) => advice::Predicate::IsNull(column.into()),
            index::Predicate::IsNotNull(column) => advice::Predicate::IsNotNull(column.into()),
            index::Predicate::IsTrue(column) => advice::Predicate::IsTrue(column.into()),
            index::Predicate::Equals((column, value)) => {
                advice::Predicate::Equals { column: column.into(), value: value.into() }
            }
        }
    }
}

fn boxed(texts: Vec<String>) -> Vec<Box<str>> {
    texts.into_iter().map(Into::into).collect()
}
