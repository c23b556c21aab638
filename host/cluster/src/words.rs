//! What goes in and out of the machine, in words.

use super::elect::NotEligible;
use super::external::{Leader, Request};
use super::observation::Fault;
use super::witness::Testimony;

/// What the shell is to do. Members are numbered in the order that the machine was made with: 0 is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Statements for the primary wait.
    Hold,
    Release,
    /// Make sure that this server writes no more; answer with `handle_fenced`.
    Fence {
        member: usize,
    },
    /// Make it a primary; answer with `handle_promotion_failed`, or with what it says of itself.
    Promote {
        member: usize,
    },
    /// It is the primary from now on: the shell ends this machine and makes another.
    Adopt {
        member: usize,
    },
    /// Have the replica receive from the primary.
    Repoint {
        member: usize,
    },
    /// Have the primary do before a switchover what takes long: a checkpoint. Answer with `handle_prepared`.
    Prepare,
    /// Write down in etcd that this server is about to become primary, so that other Tidegates stop; answer with
    /// `handle_announced`.
    Announce {
        member: usize,
    },
    /// Ask it of Patroni; answer with `handle_requested`.
    Request(Request),
    /// An orderly end of the primary's work, before another takes over: no more writes, and answer how far it has written
    /// (`handle_settled`).
    Settle,
    /// It is the primary after all.
    Unsettle,
    Tell(Notice),
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The primary may be gone.
    Suspected(Fault),
    /// It is well after all.
    Recovered,
    /// It was asked, and is no primary (any more).
    NoPrimary,
    /// It is a primary on an older timeline than one that was seen.
    Outdated {
        member: usize,
        timeline: u32,
    },
    /// Another primary on the timeline of the one in force.
    Twin {
        member: usize,
    },
    /// A server of another cluster.
    OtherSystem {
        member: usize,
    },
    /// No failover: the replicas do not confirm it.
    Unconfirmed(Testimony),
    /// No failover: the last one was too short a time ago.
    TooSoon,
    /// No failover: `fencing = "required"`, and nothing has stopped the old primary.
    Unfenced,
    NobodyEligible(Vec<(usize, NotEligible)>),
    /// The statements that wait are not held any longer.
    HeldTooLong,
    Promoting {
        member: usize,
    },
    PromotionFailed {
        member: usize,
    },
    Adopting {
        member: usize,
        timeline: u32,
    },
    Repointing {
        member: usize,
    },
    SwitchingOver {
        to: usize,
    },
    SwitchedNot(&'static str),
    /// About who else decides.
    Outside(Outsider),
}

/// What people are told of who else decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outsider {
    /// Patroni is asked for a switchover.
    OrderingSwitchover,
    /// It is a primary on a newer timeline, and Patroni's leader is another.
    NotLeader { member: usize, leader: Leader },
    /// No failover: Patroni manages these servers.
    Foreign,
    /// No failover by us: another Tidegate may, or nobody yet.
    LeftToOthers,
    /// No failover: another Tidegate reaches the primary.
    ReachedByOthers,
    /// No failover: etcd has it that another server is the primary.
    OtherInForce,
    /// No failover: etcd does not answer.
    NoLease,
    /// The primary answers, but etcd does not, and not all replicas follow: another may have been promoted.
    Isolated,
    /// The primary answers, but another Tidegate is about to promote somebody.
    ClaimedByOthers,
}

impl Notice {
    /// The server that it is about, if that is no replica of the primary and must not be used.
    pub(crate) fn intruder(&self) -> Option<usize> {
        match self {
            Self::Outdated { member, .. }
            | Self::Twin { member }
            | Self::OtherSystem { member: member @ 1.. } => Some(*member),
            _ => None,
        }
    }
}

/// What an operator orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Another primary, without loss; `None`: whoever is best.
    Switchover { to: Option<usize> },
    /// This one in the place of a primary that is gone; if `is_forced`, even of one that answers, or that replicas still receive
    /// from. What it lacks is lost.
    Failover { to: usize, is_forced: bool },
}

/// For whoever asks what goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Starting,
    Steady,
    Suspect,
    Fencing,
    Promoting,
    SwitchingOver,
    Adopting,
}

impl Status {
    /// Steps towards another primary have begun.
    pub fn is_changing_roles(self) -> bool {
        match self {
            Self::Fencing | Self::Promoting | Self::SwitchingOver | Self::Adopting => true,
            Self::Starting | Self::Steady | Self::Suspect => false,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Steady => "steady",
            Self::Suspect => "suspect",
            Self::Fencing => "fencing",
            Self::Promoting => "promoting",
            Self::SwitchingOver => "switching over",
            Self::Adopting => "adopting",
        }
    }
}
