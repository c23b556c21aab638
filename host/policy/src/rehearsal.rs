//! A new generation is asked about a few statements before it answers for anybody.

use crate::ask::Question;
use crate::fault::Fault;
use crate::generation::Generation;
use crate::samples::{REPLICAS, few, nothing_slow, replica, somebody};
use tidegate_core::policy::Slot;

impl Generation {
    /// Asks what the host will ask: a read, a write and something unknown, and about two replicas.
    ///
    /// # Errors
    /// The first call that gave no usable answer.
    pub fn rehearse(&self) -> Result<(), Fault> {
        for shape in &few() {
            let question = Question { shape, tags: &[] };
            match self.slot() {
                Slot::Routing => drop(self.plan_route(question, &REPLICAS)?),
                Slot::Caching => {
                    self.plan_cache(question)?;
                    self.plan_invalidate(question)?;
                }
                Slot::Limiting => drop(self.plan_limit(question, &somebody())?),
                Slot::Advising => {}
            }
        }
        match self.slot() {
            Slot::Routing => drop(self.weigh(&REPLICAS.map(replica))?),
            Slot::Advising => drop(self.advise(&nothing_slow())?),
            Slot::Caching | Slot::Limiting => {}
        }
        Ok(())
    }
}
