//! Who answers in each slot, as a file says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_core::policy::canary::Share;
use tidegate_core::policy::seat::Mode;

/// All slots that are not as they come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Of this file: 1.
    pub(super) format: u32,
    /// By the slot's name.
    pub(super) slots: BTreeMap<String, SlotEntry>,
}

pub(super) const FORMAT: u32 = 1;

/// One slot. Without an active version the host answers itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SlotEntry {
    pub(super) active: Option<VersionEntry>,
    pub(super) previous: Option<VersionEntry>,
    pub(super) candidate: Option<CandidateEntry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionEntry {
    /// None: the plugin that comes with the program.
    pub(super) sha256: Option<String>,
    pub(super) settings: String,
    pub(super) signature: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CandidateEntry {
    pub(super) version: VersionEntry,
    pub(super) is_canary: bool,
    pub(super) share_percent: u8,
}

impl CandidateEntry {
    pub(super) fn new(version: VersionEntry, mode: Mode) -> Self {
        let (Mode::Shadow(share) | Mode::Canary(share)) = mode;
        let is_canary = matches!(mode, Mode::Canary(_));
        Self { version, is_canary, share_percent: share.get() }
    }

    pub(super) fn mode(&self) -> Option<Mode> {
        let share = Share::percent(self.share_percent)?;
        Some(if self.is_canary { Mode::Canary(share) } else { Mode::Shadow(share) })
    }
}
