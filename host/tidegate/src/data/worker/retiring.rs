//! The end of a reload: connections to where servers were are used no more.

use std::sync::Arc;

use super::Shared;
use crate::config;
use crate::results::Results;
use crate::upstream::pool::{PrimaryHold, SharedPools};

/// The end of a reload: when the last worker has dropped this, all open connections to the new targets, and those to
/// the old ones are used no more. Earlier, a worker that has not heard of the reload would open new ones to the old.
#[derive(Debug)]
pub struct Retiring {
    pools: Arc<SharedPools>,
    results: Arc<Results>,
    /// By `PoolKey::instance`: whose target is another now.
    instances: Vec<usize>,
    pub(super) transactions: Transactions,
    /// Until then, where another server is the primary.
    #[expect(dead_code, reason = "dropping it is what counts")]
    hold: Option<PrimaryHold>,
}

/// What becomes of transactions on a primary that is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transactions {
    /// They run to their ends.
    Finish,
    /// They are lost with it: nothing that it says is believed.
    Lost,
}

impl Drop for Retiring {
    fn drop(&mut self) {
        self.pools.reconnect(|key| self.instances.contains(&key.instance));
        // What was read from servers that are others now may never have been, for those.
        self.results.forget_all();
    }
}

impl Shared {
    /// What a reload to other targets has to retire, once all workers have it.
    pub fn retiring(
        &self,
        old: &config::ClusterConfig,
        new: &config::ClusterConfig,
        transactions: Transactions,
        hold: Option<PrimaryHold>,
    ) -> Arc<Retiring> {
        let count = 1 + old.replicas.len().max(new.replicas.len());
        let changed = |i: &usize| !old.server(*i).is_reached_like(new.server(*i));
        let instances = (0..count).filter(changed).collect();
        let (pools, results) = (self.pools.clone(), self.results.clone());
        Arc::new(Retiring { pools, results, instances, transactions, hold })
    }
}
