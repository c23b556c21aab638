//! What a server says of itself, or why it cannot be asked.

use std::time::Duration;
use tidegate_core::route::Lsn;

/// One answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// `pg_control_system()`: the same for all servers of one cluster.
    pub system: u64,
    /// The timeline it writes, or replays.
    pub timeline: u32,
    pub role: Role,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Primary {
        /// The end of its log (`pg_current_wal_insert_lsn()`).
        written: Lsn,
    },
    Replica {
        /// `pg_last_wal_receive_lsn()`; `None` if it has received nothing since it started.
        received: Option<Lsn>,
        replayed: Option<Lsn>,
        receiver: Receiver,
        /// Replay is paused, so a promotion would wait for somebody to resume it.
        paused: bool,
    },
}

/// A replica's own connection to the primary (`pg_stat_wal_receiver`): a witness that does not depend on our network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    Streaming,
    /// There is none, or it is starting, waiting, or stopping.
    Gone,
    /// It may not be seen: our user is no member of `pg_read_all_stats`.
    Hidden,
}

/// Why a server cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The connection ended without a word, or since the postmaster has died. Whether the server is there says the next attempt.
    Closed,
    /// Nobody listens at its address: the machine itself says so.
    Refused,
    /// No answer in time.
    Silent,
    /// The network says that it cannot be reached.
    Unreachable,
    /// It starts, or recovers from a crash (57P03).
    Starting,
    /// An administrator stops it (57P01 by order, 57P03 while it shuts down).
    Stopping,
    /// It is there and has no room for us (53300), or refuses our user: alive, as far as anybody can tell.
    Denied,
    /// It answered something else: alive.
    Odd,
}

impl Fault {
    /// Can it be the end of the server?
    pub fn is_grave(self) -> bool {
        !matches!(self, Self::Denied | Self::Odd)
    }

    /// For logs, metrics and the admin API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed the connection",
            Self::Refused => "nobody listens",
            Self::Silent => "no answer in time",
            Self::Unreachable => "cannot be reached",
            Self::Starting => "starting or recovering",
            Self::Stopping => "shutting down",
            Self::Denied => "refuses our user or has no room",
            Self::Odd => "an unexpected answer",
        }
    }
}

impl Observation {
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary { .. })
    }

    /// A replica that has lost its primary says which timeline it follows as of its last checkpoint alone: as long as it has
    /// not gone back, it follows the one that it received on.
    #[must_use]
    pub(crate) fn after(self, before: &Self) -> Self {
        let has_lost_it = matches!(self.role, Role::Replica { receiver: Receiver::Gone, .. });
        let is_the_same = self.system == before.system && !before.is_primary();
        if has_lost_it && is_the_same && self.position() >= before.position() {
            let timeline = self.timeline.max(before.timeline);
            return Self { timeline, ..self };
        }
        self
    }

    /// How far it has come: written, or received.
    pub fn position(&self) -> Option<Lsn> {
        match self.role {
            Role::Primary { written } => Some(written),
            // What was there before it started counts as well, once it has been replayed.
            Role::Replica { received, replayed, .. } => received.max(replayed),
        }
    }
}

/// A lag between two positions, in bytes.
pub(crate) fn bytes_between(behind: Lsn, ahead: Lsn) -> u64 {
    ahead.0.saturating_sub(behind.0)
}

/// So old an answer says nothing of now.
pub(crate) const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);
