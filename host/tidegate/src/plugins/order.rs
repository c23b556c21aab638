//! What operators may ask, who asks, and why it is not done.

use std::net::SocketAddr;

use hyper::body::Bytes;
use tidegate_core::policy::Slot;
use tidegate_core::policy::seat::Mode;
use tidegate_policy::{ChangeError, LoadError, Unfit};

use crate::config::Signature;

/// One order.
#[derive(Clone, Debug)]
pub enum Order {
    /// A new plugin. Settings are JSON, empty for `{}`.
    Upload {
        slot: Slot,
        bytes: Bytes,
        settings: String,
        signature: Option<Signature>,
        intake: Intake,
    },
    /// The active plugin with other settings.
    Configure { slot: Slot, settings: String, intake: Intake },
    /// The candidates of these slots answer from now on, all at once.
    Promote(Vec<Slot>),
    /// The candidate goes.
    Withdraw(Slot),
    /// The previous version answers again.
    RollBack(Slot),
    /// The host answers itself.
    Disable(Slot),
}

/// What becomes of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    Activate,
    TryOut(Mode),
}

impl Intake {
    pub fn name(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::TryOut(Mode::Shadow(_)) => "shadow",
            Self::TryOut(Mode::Canary(_)) => "canary",
        }
    }
}

impl Order {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Upload { .. } => "upload",
            Self::Configure { .. } => "configure",
            Self::Promote(_) => "promote",
            Self::Withdraw(_) => "withdraw",
            Self::RollBack(_) => "rollback",
            Self::Disable(_) => "disable",
        }
    }

    pub fn slots(&self) -> Vec<Slot> {
        match self {
            Self::Upload { slot, .. } | Self::Configure { slot, .. } => vec![*slot],
            Self::Promote(slots) => slots.clone(),
            Self::Withdraw(slot) | Self::RollBack(slot) | Self::Disable(slot) => vec![*slot],
        }
    }

    pub(super) fn needs_compiler(&self) -> bool {
        matches!(self, Self::Upload { .. } | Self::Configure { .. })
    }
}

/// Who gave an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Of whoever has the admin token.
    pub peer: Option<SocketAddr>,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "admin token from {peer}"),
            None => f.write_str("tidegate"),
        }
    }
}

/// Why an order was not followed. Everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// A sentence for the operator.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The plugin failed this check.
    Check(&'static str),
    /// The plugin is larger than allowed.
    TooLarge,
    /// Nothing to promote, nothing to go back to, pinned.
    Conflict,
    /// Too many orders at once.
    Busy,
    /// The state directory can't be written.
    Storage,
}

impl Refusal {
    pub(super) fn check(check: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Check(check), detail: detail.into() }
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Conflict, detail: detail.into() }
    }

    pub(super) fn busy() -> Self {
        let detail = "other plugins are being compiled; try again".to_owned();
        Self { kind: RefusalKind::Busy, detail }
    }

    pub(super) fn storage(detail: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Storage, detail: detail.into() }
    }

    /// For the log: the check that failed, or what else it was.
    pub fn name(&self) -> &'static str {
        match self.kind {
            RefusalKind::Check(check) => check,
            RefusalKind::TooLarge => "size",
            RefusalKind::Conflict => "conflict",
            RefusalKind::Busy => "busy",
            RefusalKind::Storage => "storage",
        }
    }

    /// What a plugin did wrong when it was asked for the first time. Its own words stay in the log.
    pub(super) fn rehearsal(unfit: &Unfit) -> Self {
        Self::check("self-test", unfit.to_string())
    }
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Size { .. } => {
                Self { kind: RefusalKind::TooLarge, detail: error.to_string() }
            }
            error => Self::check(error.check(), error.to_string()),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        Self::conflict(error.to_string())
    }
}
