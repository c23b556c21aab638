//! Answers too much, as its settings say: for the tests of the host.

use tidegate_sdk::policies::Execution;
use tidegate_sdk::prelude::*;

#[derive(Default, Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default)]
struct Hostile {
    tags: usize,
    tag: String,
    ttl_ms: u64,
}

impl Policy for Hostile {}

impl Caching for Hostile {
    fn plan_cache(&self, shape: &Shape) -> CachePlan {
        let mut rule = CacheRule::ttl_ms(self.ttl_ms);
        rule.tags = self.plan_invalidate(shape);
        rule.store()
    }

    fn plan_invalidate(&self, _shape: &Shape) -> Vec<String> {
        vec![self.tag.clone(); self.tags]
    }

    fn decide(&self, _execution: Execution) -> Option<u32> {
        Some(u32::try_from(self.ttl_ms).unwrap_or(u32::MAX))
    }
}

tidegate_sdk::register!(caching: Hostile);
