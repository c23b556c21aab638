//! Builders for answers.

use crate::types::{
    AskedCache, AskedLimit, Bucket, Buckets, CachePlan, CacheRule, Fallback, IndexKey, KeyPart,
    KeySource, LimitPlan, OverLimit, Priority, ReplicaRule, RoutePlan, Scope, Target, Tier,
};

impl Default for RoutePlan {
    /// What the host does without a policy.
    fn default() -> RoutePlan {
        RoutePlan { target: Target::BuiltIn, priority: Priority::Normal, label: None }
    }
}

impl RoutePlan {
    fn to(target: Target) -> RoutePlan {
        RoutePlan { target, ..RoutePlan::default() }
    }

    /// The primary.
    pub fn primary() -> RoutePlan {
        RoutePlan::to(Target::Primary)
    }

    /// Any replica, and the primary when there is none.
    pub fn replicas() -> RoutePlan {
        RoutePlan::to(Target::Replicas(ReplicaRule::default()))
    }

    /// Replicas as a rule says.
    pub fn replicas_that(rule: ReplicaRule) -> RoutePlan {
        RoutePlan::to(Target::Replicas(rule))
    }

    /// Refused, with words for the client.
    pub fn reject(reason: impl Into<String>) -> RoutePlan {
        RoutePlan::to(Target::Reject(reason.into()))
    }

    /// Asked again for each execution.
    pub fn ask(id: u32) -> RoutePlan {
        RoutePlan::to(Target::Ask(id))
    }

    /// Uses reserved connections and never waits behind normal statements.
    #[must_use]
    pub fn critical(mut self) -> RoutePlan {
        self.priority = Priority::Critical;
        self
    }

    /// Named so in metrics.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> RoutePlan {
        self.label = Some(label.into());
        self
    }
}

impl Default for ReplicaRule {
    fn default() -> ReplicaRule {
        ReplicaRule { servers: Vec::new(), max_lag_ms: None, otherwise: Fallback::Primary }
    }
}

impl CacheRule {
    /// Kept so long, and never older than an acknowledged write.
    pub fn ttl_ms(ttl_ms: u64) -> CacheRule {
        CacheRule {
            ttl_ms,
            tier: Tier::Fresh,
            key: Vec::new(),
            tags: Vec::new(),
            max_bytes: 0,
            write_through: false,
            warm: false,
        }
    }

    /// How old an answer may be after a write.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> CacheRule {
        self.tier = tier;
        self
    }

    /// One more part of the key.
    #[must_use]
    pub fn key(mut self, part: KeyPart) -> CacheRule {
        self.key.push(part);
        self
    }

    /// One more tag; `{1}` stands for the value of `$1`.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> CacheRule {
        self.tags.push(tag.into());
        self
    }

    /// As a plan.
    pub fn store(self) -> CachePlan {
        CachePlan::Store(self)
    }

    /// As a plan that asks for each execution.
    pub fn ask(self, id: u32) -> CachePlan {
        CachePlan::Ask(AskedCache { id, rule: self })
    }
}

impl Bucket {
    /// So many statements in a sliding window; over it, statements are refused.
    pub fn per_window(
        name: impl Into<String>,
        key: impl Into<String>,
        limit: u32,
        window_ms: u64,
    ) -> Bucket {
        let (name, key) = (name.into(), key.into());
        Bucket { name, key, limit, window_ms, cost: 1, over: OverLimit::Reject }
    }

    /// Over the limit, statements wait so long at most, and then are refused.
    #[must_use]
    pub fn queue_ms(mut self, wait_ms: u32) -> Bucket {
        self.over = OverLimit::Queue(wait_ms);
        self
    }

    /// Counts and never refuses.
    #[must_use]
    pub fn count_only(mut self) -> Bucket {
        self.over = OverLimit::Count;
        self
    }
}

impl LimitPlan {
    /// Nobody's statements are limited, whatever they are.
    pub fn unlimited() -> LimitPlan {
        LimitPlan::Unlimited(Scope::EveryIdentity)
    }

    /// The buckets, for every statement of this identity; without any, no limit.
    pub fn for_every_shape(buckets: Vec<Bucket>) -> LimitPlan {
        if buckets.is_empty() {
            return LimitPlan::Unlimited(Scope::EveryShape);
        }
        LimitPlan::Buckets(Buckets { buckets, scope: Scope::EveryShape })
    }

    /// The buckets, for this statement of this identity.
    pub fn for_this_shape(buckets: Vec<Bucket>) -> LimitPlan {
        LimitPlan::Buckets(Buckets { buckets, scope: Scope::ThisShape })
    }

    /// The buckets, with their costs asked for each execution of this statement.
    pub fn ask(id: u32, buckets: Vec<Bucket>) -> LimitPlan {
        let buckets = Buckets { buckets, scope: Scope::ThisShape };
        LimitPlan::Ask(AskedLimit { id, buckets })
    }
}

impl IndexKey {
    /// A column, ascending.
    pub fn column(name: impl Into<String>) -> IndexKey {
        let source = KeySource::Column(name.into());
        IndexKey { source, descending: false, operator_class: None }
    }
}
