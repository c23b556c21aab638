//! A new generation is asked about a few statements before it answers for anybody.

use crate::ask::Question;
use crate::engine::Settings;
use crate::fault::Fault;
use crate::generation::Generation;
use crate::samples::{REPLICAS, few, nothing_slow, replica, somebody};
use std::fmt;
use tidegate_core::limits::{
    POLICY_BACKGROUND_TIME_MAX, POLICY_CPU_TIME_MAX, POLICY_HANDLES_MAX, POLICY_HOST_CALLS_MAX,
};
use tidegate_core::policy::Slot;
use tidegate_core::policy::faults::FaultKind;
use tidegate_core::statement::Shape;

/// A call of the rehearsal that gave no usable answer. Its words hold nothing that the plugin wrote, but for names in an
/// answer that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub fault: Fault,
    /// What it was asked.
    asked: String,
    /// What it has to keep within.
    limit: String,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unfit { fault, asked, limit } = self;
        write!(f, "the plugin failed when it was asked {asked}: {}, {limit}", fault.kind.name())
    }
}

impl std::error::Error for Unfit {}

impl Generation {
    /// Asks what the host will ask: a read, a write and something unknown, and about two replicas.
    ///
    /// # Errors
    /// The first call that gave no usable answer.
    pub fn rehearse(&self) -> Result<(), Unfit> {
        for shape in &few() {
            let question = Question { shape, tags: &[] };
            let answered = match self.slot() {
                Slot::Routing => self.plan_route(question, &REPLICAS).map(drop),
                Slot::Caching => {
                    self.plan_cache(question).and_then(|_| self.plan_invalidate(question)).map(drop)
                }
                Slot::Limiting => self.plan_limit(question, &somebody()).map(drop),
                Slot::Advising => Ok(()),
            };
            answered.map_err(|fault| self.unfit(fault, about(shape)))?;
        }
        let (answered, asked) = match self.slot() {
            Slot::Routing => {
                let asked = format!("for the shares of {}", REPLICAS.join(" and "));
                (self.weigh(&REPLICAS.map(replica)).map(drop), asked)
            }
            Slot::Advising => {
                (self.advise(&nothing_slow()).map(drop), "for advice on no statement".to_owned())
            }
            Slot::Caching | Slot::Limiting => return Ok(()),
        };
        answered.map_err(|fault| self.unfit(fault, asked))
    }

    fn unfit(&self, fault: Fault, asked: String) -> Unfit {
        let limit = limit(&fault, self.slot(), &self.engine().settings());
        Unfit { fault, asked, limit }
    }
}

fn about(shape: &Shape) -> String {
    match &*shape.normalized {
        "" => "about a statement that was not understood".to_owned(),
        text => format!("about `{text}`"),
    }
}

fn limit(fault: &Fault, slot: Slot, settings: &Settings) -> String {
    match fault.kind {
        FaultKind::Deadline if slot == Slot::Advising => {
            format!("a call may take {} ms", POLICY_BACKGROUND_TIME_MAX.as_millis())
        }
        FaultKind::Deadline => format!(
            "a call may take {:?} (plugins.plan_time_max), and {POLICY_CPU_TIME_MAX:?} of processor time after that",
            settings.plan_time_max
        ),
        FaultKind::Memory => {
            format!(
                "an instance may have {} bytes (plugins.memory_mib_max)",
                settings.memory_bytes_max
            )
        }
        FaultKind::HostCalls => format!(
            "a call may make {POLICY_HOST_CALLS_MAX} calls of the host, and an instance hold {POLICY_HANDLES_MAX} handles"
        ),
        FaultKind::Answer => fault.detail.to_string(),
        FaultKind::Trap => "the log says where; a panic of the plugin is a trap".to_owned(),
        FaultKind::Start => "it began anew for this; the log says more".to_owned(),
    }
}
