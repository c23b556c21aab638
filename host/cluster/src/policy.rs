//! What is configured, and what is kept from one order of servers to the next.

use std::time::{Duration, Instant};
use tidegate_core::route::Lsn;

/// Who may promote a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Roles are as configured, whatever the servers say.
    Off,
    /// Somebody else promotes: Tidegate sees it and follows.
    #[default]
    Follow,
    /// Tidegate promotes. One Tidegate for one cluster, and no other manager beside it.
    Embedded,
    /// Tidegate promotes: of several, the one that holds a lease in etcd.
    Etcd,
    /// Patroni promotes: it is asked who leads, and is given the orders of operators.
    External,
}

impl Mode {
    /// Does Tidegate promote at all?
    pub fn promotes(self) -> bool {
        match self {
            Self::Embedded | Self::Etcd => true,
            Self::Off | Self::Follow | Self::External => false,
        }
    }
}

/// Whether a replica may be promoted although nobody has made sure that the old primary writes no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fencing {
    /// Tidegate sends nothing to it any more; whoever connects past Tidegate may still write there.
    #[default]
    BestEffort,
    /// Not unless the fence command has said that it is stopped.
    Required,
}

/// How failover decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    pub fencing: Fencing,
    /// Is there a command that stops the old primary?
    pub has_fence: bool,
    /// Statements for a primary that is suspected are held at most so long.
    pub hold_max: Duration,
    /// A primary that does not answer, or cannot be reached, is given this long.
    pub silent_max: Duration,
    /// A primary that starts, recovers, or is being stopped is given this long to be back.
    pub restart_max: Duration,
    /// A replica that lacks more of what the primary is known to have written is not promoted.
    pub lag_bytes_max: u64,
    /// After a failover none follows for so long.
    pub interval_min: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            fencing: Fencing::default(),
            has_fence: false,
            hold_max: Duration::from_secs(10),
            silent_max: Duration::from_secs(3),
            restart_max: Duration::from_secs(5),
            lag_bytes_max: 1 << 20,
            interval_min: Duration::from_secs(60),
        }
    }
}

/// What is known of the cluster whatever the order of its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of the first primary that was seen. A server of another system is none of this cluster's.
    pub system: Option<u64>,
    /// The newest timeline on which a primary was seen; 0: none was. A primary on an older one is a leftover.
    pub timeline: u32,
    /// How far the primary was last known to have written.
    pub written: Lsn,
    /// When a replica was last promoted by us for a primary that was gone.
    pub failed_over_at: Option<Instant>,
    /// When another server was last taken for the primary, for whatever reason.
    pub adopted_at: Option<Instant>,
    /// Where its timeline begins, if we have seen that.
    pub fork: Option<Fork>,
}

/// Where one timeline goes on as another: what the replica had that we had promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    pub from: u32,
    pub to: u32,
    /// A log of `from` up to here is the beginning of that of `to`: the fork is here, or later.
    pub end: Lsn,
}
