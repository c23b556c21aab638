//! Slots as operators see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tidegate_core::policy::Slot;
use tidegate_core::policy::canary::Verdict;
use tidegate_core::policy::faults::FaultKind;
use tidegate_core::policy::seat::Mode;
use tidegate_policy::{Generation, PLAN_TIMES, View};

use super::desk::{Desk, Source};
use crate::config::PluginsConfig;

/// Who answers in a slot, in short.
#[derive(Clone, Debug, Serialize)]
pub struct SlotReport {
    #[serde(serialize_with = "name")]
    pub slot: Slot,
    /// The configuration says who answers here.
    pub pinned: bool,
    /// What is uploaded here outlives the process.
    pub persistent: bool,
    /// None: the host answers itself.
    pub active: Option<VersionReport>,
    pub previous: Option<VersionReport>,
    pub candidate: Option<CandidateReport>,
}

/// One version of a plugin.
#[derive(Clone, Debug, Serialize)]
pub struct VersionReport {
    pub generation: u64,
    pub name: String,
    pub version: String,
    /// `embedded`, `uploaded` or `pinned`.
    pub source: &'static str,
    pub sha256: String,
    pub signed: bool,
    pub bytes: usize,
    pub calls: u64,
    /// Calls for the shares of replicas.
    pub weighings: u64,
    /// Calls for plans, and how long they took together.
    pub plans: u64,
    pub plan_microseconds: u64,
    /// How many of them took no longer than each of `tidegate_policy::PLAN_TIMES`.
    pub plans_within: [u64; PLAN_TIMES.len()],
    /// Of its largest instance.
    pub memory_bytes: usize,
    /// By kind.
    pub faults: BTreeMap<&'static str, u64>,
    pub quarantined: bool,
}

/// A version on trial.
#[derive(Clone, Debug, Serialize)]
pub struct CandidateReport {
    #[serde(flatten)]
    pub version: VersionReport,
    /// `shadow` or `canary`.
    pub mode: &'static str,
    pub share_percent: u8,
    pub compared: u64,
    pub different: u64,
    /// Of a canary: `wait`, `good` or `roll_back`.
    pub verdict: &'static str,
}

/// All that is known of a slot.
#[derive(Clone, Debug, Serialize)]
pub struct SlotDetail {
    #[serde(flatten)]
    pub slot: SlotReport,
    /// Of the active version.
    pub settings: Option<Value>,
    pub differences: Vec<DifferenceReport>,
    /// Newest first.
    pub history: Vec<HistoryEntry>,
}

/// Two answers to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferenceReport {
    pub question: String,
    pub active: String,
    pub candidate: String,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    pub at_unix_ms: u64,
    pub what: &'static str,
    pub who: String,
    pub sha256: Option<String>,
    /// `done`, or why not.
    pub outcome: String,
}

fn name<S: serde::Serializer>(slot: &Slot, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(slot.name())
}

pub(super) fn slot(slot: Slot, view: &View, desk: &Desk, config: &PluginsConfig) -> SlotReport {
    let own = view.slot(slot);
    let version = |generation: &Arc<Generation>| version(generation, desk);
    let candidate = own.candidate().map(|(generation, mode)| {
        let (Mode::Shadow(share) | Mode::Canary(share)) = mode;
        let trial = own.trial();
        let verdict = trial.map(|trial| trial.verdict(generation.faults_total()));
        CandidateReport {
            version: version(generation),
            mode: if matches!(mode, Mode::Shadow(_)) { "shadow" } else { "canary" },
            share_percent: share.get(),
            compared: trial.map_or(0, |trial| trial.compared()),
            different: trial.map_or(0, |trial| trial.different()),
            verdict: match verdict {
                None | Some(Verdict::Wait) => "wait",
                Some(Verdict::Good) => "good",
                Some(Verdict::RollBack(_)) => "roll_back",
            },
        }
    });
    SlotReport {
        slot,
        pinned: config.pins.iter().any(|pin| pin.slot == slot),
        persistent: desk.store.is_some(),
        active: own.active().map(version),
        previous: own.previous().map(version),
        candidate,
    }
}

pub(super) fn detail(of: Slot, view: &View, desk: &Desk, config: &PluginsConfig) -> SlotDetail {
    let own = view.slot(of);
    let settings = own.active().map(|active| match active.settings().trim() {
        "" => Value::Object(serde_json::Map::new()),
        // The plugin took them, and may have other ideas of JSON than we.
        written => serde_json::from_str(written).unwrap_or_else(|_| Value::from(written)),
    });
    let differences = own.trial().map(|trial| trial.differences()).unwrap_or_default();
    let difference = |difference: tidegate_policy::Difference| DifferenceReport {
        question: difference.question.into(),
        active: difference.active.into(),
        candidate: difference.candidate.into(),
    };
    SlotDetail {
        slot: slot(of, view, desk, config),
        settings,
        differences: differences.into_iter().map(difference).collect(),
        history: desk.history(of).cloned().collect(),
    }
}

fn version(generation: &Generation, desk: &Desk) -> VersionReport {
    let origin = desk.origin(generation.number());
    let (plans, time) = generation.plans();
    let fault = |kind: FaultKind| (kind.name(), generation.faults(kind));
    VersionReport {
        generation: generation.number(),
        name: generation.info().name.clone(),
        version: generation.info().version.clone(),
        source: origin.map_or(Source::Embedded.name(), |origin| origin.source.name()),
        sha256: origin.map_or_else(String::new, |origin| origin.sha256.to_string()),
        signed: origin.is_some_and(|origin| origin.signature.is_some()),
        bytes: generation.bytes(),
        calls: generation.calls(),
        weighings: generation.weighings(),
        plans,
        plan_microseconds: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        plans_within: generation.plans_within(),
        memory_bytes: generation.memory_bytes(),
        faults: FaultKind::ALL.into_iter().map(fault).collect(),
        quarantined: generation.is_quarantined(),
    }
}
