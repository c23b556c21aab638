//! Whom to promote.

use super::observation::{Observation, Role, bytes_between};
use super::policy::{Memory, Policy};
use std::cmp::Reverse;
use tidegate_core::route::Lsn;

/// One replica that stands for election, as it was last heard.
#[derive(Clone, Copy, Debug)]
pub struct Elector<'a> {
    pub member: usize,
    /// `None`: it has not answered since the primary is suspected.
    pub seen: Option<&'a Observation>,
}

/// Why a replica may not become primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEligible {
    NoAnswer,
    /// It is a server of another cluster.
    OtherSystem,
    /// It follows another timeline than the primary's.
    OtherTimeline {
        timeline: u32,
    },
    /// Somebody has paused its replay.
    Paused,
    /// It is no replica.
    NoReplica,
    /// It lacks too much.
    Lags {
        bytes: u64,
    },
}

impl NotEligible {
    pub fn sentence(self) -> String {
        match self {
            Self::NoAnswer => "it does not answer".to_owned(),
            Self::OtherSystem => "it is a server of another cluster".to_owned(),
            Self::OtherTimeline { timeline } => format!("it is on timeline {timeline}"),
            Self::Paused => "its replay is paused".to_owned(),
            Self::NoReplica => "it is no replica".to_owned(),
            Self::Lags { bytes } => format!("it lacks {bytes} bytes of the primary's log"),
        }
    }
}

/// The outcome, with what stood against each of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elected {
    /// Who has most of the log; among equals, who has least left to replay; then the first.
    pub member: Option<usize>,
    pub against: Vec<(usize, NotEligible)>,
}

/// Chooses among the replicas.
pub fn elect<'a>(
    electors: impl IntoIterator<Item = Elector<'a>>,
    memory: &Memory,
    policy: &Policy,
) -> Elected {
    let mut against = Vec::new();
    let mut best: Option<(Lsn, Reverse<u64>, Reverse<usize>)> = None;
    for elector in electors {
        match rank(elector, memory, policy) {
            Ok((has, backlog)) => {
                best = best.max(Some((has, Reverse(backlog), Reverse(elector.member))));
            }
            Err(reason) => against.push((elector.member, reason)),
        }
    }
    Elected { member: best.map(|(_, _, Reverse(member))| member), against }
}

/// How much of the log it has, and what of it is left to replay.
fn rank(elector: Elector<'_>, memory: &Memory, policy: &Policy) -> Result<(Lsn, u64), NotEligible> {
    let seen = elector.seen.ok_or(NotEligible::NoAnswer)?;
    if memory.system.is_some_and(|system| system != seen.system) {
        return Err(NotEligible::OtherSystem);
    }
    let Role::Replica { replayed, paused, .. } = seen.role else {
        return Err(NotEligible::NoReplica);
    };
    if seen.timeline != memory.timeline {
        return Err(NotEligible::OtherTimeline { timeline: seen.timeline });
    }
    if paused {
        return Err(NotEligible::Paused);
    }
    let has = seen.position().unwrap_or_default();
    let lacks = bytes_between(has, memory.written);
    if lacks > policy.lag_bytes_max {
        return Err(NotEligible::Lags { bytes: lacks });
    }
    Ok((has, bytes_between(replayed.unwrap_or_default(), has)))
}
