//! Where orders are followed one at a time: first written down, then done, then told.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use tidegate_core::limits::PLUGIN_HISTORY_MAX;
use tidegate_core::policy::Slot;
use tidegate_policy::{Change, Generation, SlotView, View, embedded};

use super::manifest::{CandidateEntry, FORMAT, Manifest, SlotEntry, VersionEntry};
use super::order::{Intake, Order, Refusal, Who};
use super::report::HistoryEntry;
use super::store::Store;
use super::{Outcome, Plugins};
use crate::config::{FileHash, Signature};

/// What is known of versions besides what the registry knows.
pub(super) struct Desk {
    pub(super) store: Option<Store>,
    /// By generation.
    origins: BTreeMap<u64, Origin>,
    history: [VecDeque<HistoryEntry>; Slot::ALL.len()],
    /// Slots that somebody has ordered something for, or that were restored: the defaults keep away.
    decided: [bool; Slot::ALL.len()],
}

/// Where a generation came from.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) source: Source,
    pub(super) sha256: FileHash,
    pub(super) signature: Option<Signature>,
}

#[derive(Clone)]
pub(super) enum Source {
    Embedded,
    Pinned,
    /// With the file itself where there is no store.
    Uploaded(Option<Bytes>),
}

impl Source {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Pinned => "pinned",
            Self::Uploaded(_) => "uploaded",
        }
    }
}

/// A generation that passed every check.
pub(super) struct Loaded {
    pub(super) generation: Arc<Generation>,
    pub(super) origin: Origin,
    pub(super) bytes: Bytes,
}

impl Desk {
    pub(super) fn new(store: Option<Store>) -> Self {
        let history = Slot::ALL.map(|_| VecDeque::new());
        Self { store, origins: BTreeMap::new(), history, decided: Default::default() }
    }

    pub(super) fn origin(&self, generation: u64) -> Option<&Origin> {
        self.origins.get(&generation)
    }

    pub(super) fn adopt(&mut self, generation: u64, origin: Origin) {
        self.origins.insert(generation, origin);
    }

    pub(super) fn is_decided(&self, slot: Slot) -> bool {
        self.decided[slot.index()]
    }

    pub(super) fn decide(&mut self, slot: Slot) {
        self.decided[slot.index()] = true;
    }

    pub(super) fn history(&self, slot: Slot) -> impl Iterator<Item = &HistoryEntry> {
        self.history[slot.index()].iter().rev()
    }

    /// The file of a generation.
    pub(super) fn content(&self, slot: Slot, origin: &Origin) -> io::Result<Bytes> {
        match (&origin.source, &self.store) {
            (Source::Embedded, _) => Ok(Bytes::from_static(embedded(slot).bytes)),
            (Source::Uploaded(Some(bytes)), _) => Ok(bytes.clone()),
            (Source::Uploaded(None), Some(store)) => store.get(&origin.sha256).map(Bytes::from),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The manifest of these slots, but for those that the configuration pins.
    fn manifest(&self, view: &View, is_pinned: impl Fn(Slot) -> bool) -> Manifest {
        let own = Slot::ALL.into_iter().filter(|slot| !is_pinned(*slot));
        let decided = own.filter(|slot| self.decided[slot.index()]);
        let entry = |slot: Slot| (slot.name().to_owned(), self.slot_entry(view.slot(slot)));
        Manifest { format: FORMAT, slots: decided.map(entry).collect() }
    }

    fn slot_entry(&self, view: &SlotView) -> SlotEntry {
        let entry = |generation: &Arc<Generation>| self.version_entry(generation);
        let candidate = view.candidate().and_then(|(generation, mode)| {
            entry(generation).map(|version| CandidateEntry::new(version, mode))
        });
        SlotEntry {
            active: view.active().and_then(entry),
            previous: view.previous().and_then(entry),
            candidate,
        }
    }

    fn version_entry(&self, generation: &Generation) -> Option<VersionEntry> {
        let origin = self.origin(generation.number())?;
        let sha256 = match origin.source {
            Source::Embedded => None,
            Source::Uploaded(_) => Some(origin.sha256.to_string()),
            // The configuration no longer pins it, or it would not be asked for.
            Source::Pinned => return None,
        };
        let signature = origin.signature.map(|signature| signature.to_string());
        Some(VersionEntry { sha256, settings: generation.settings().to_owned(), signature })
    }

    /// Writes down who answers in this view.
    fn write_down(&self, view: &View, is_pinned: impl Fn(Slot) -> bool) -> io::Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.manifest(view, is_pinned))?;
        store.put_manifest(&text)
    }

    /// Forgets versions that are nowhere in this view, and their files.
    fn sweep(&mut self, view: &View) {
        self.origins.retain(|number, _| {
            Slot::ALL.iter().any(|slot| view.slot(*slot).generation(*number).is_some())
        });
        if let Some(store) = &self.store {
            let named: Vec<FileHash> = self.origins.values().map(|origin| origin.sha256).collect();
            store.sweep(&named);
        }
    }

    /// Keeps what came of an order, and logs it: the audit trail.
    pub(super) fn note(
        &mut self,
        order: &Order,
        who: &Who,
        sha256: Option<FileHash>,
        refused: Option<&Refusal>,
    ) {
        let sha256 = match order {
            Order::Upload { bytes, .. } => Some(FileHash::of(bytes)),
            _ => sha256,
        };
        let (what, sha256) = (order.name(), sha256.map(|hash| hash.to_string()));
        let hash = sha256.as_deref().unwrap_or("-");
        for slot in order.slots() {
            let slot_name = slot.name();
            let outcome = match refused {
                None => {
                    tracing::info!(target: "tidegate::audit", %who, what, slot = slot_name, sha256 = hash, outcome = "done", "plugin order");
                    "done".to_owned()
                }
                Some(refusal) => {
                    let (outcome, why) = (refusal.name(), &refusal.detail);
                    tracing::warn!(target: "tidegate::audit", %who, what, slot = slot_name, sha256 = hash, outcome, why, "plugin order refused");
                    format!("refused: {why}")
                }
            };
            let (who, sha256) = (who.to_string(), sha256.clone());
            let at_unix_ms = now_unix_ms();
            self.remember(slot, HistoryEntry { at_unix_ms, what, who, sha256, outcome });
        }
    }

    pub(super) fn remember(&mut self, slot: Slot, entry: HistoryEntry) {
        let history = &mut self.history[slot.index()];
        if history.len() >= PLUGIN_HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(entry);
    }
}

pub(super) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Plugins {
    /// Follows an order; `loaded` is what it brought, if it brings something.
    pub(super) fn carry_out(&self, order: &Order, who: &Who, loaded: Option<Loaded>) -> Outcome {
        let sha256 = loaded.as_ref().map(|loaded| loaded.origin.sha256);
        let slots = order.slots();
        let done = {
            let mut desk = self.desk();
            let done = self.follow(&mut desk, order, loaded);
            desk.note(order, who, sha256, done.as_ref().err());
            done
        };
        done.map(|()| {
            self.slots().into_iter().filter(|report| slots.contains(&report.slot)).collect()
        })
    }

    fn follow(
        &self,
        desk: &mut Desk,
        order: &Order,
        loaded: Option<Loaded>,
    ) -> Result<(), Refusal> {
        let parts = parts(order, loaded.as_ref())?;
        let view = self.registry.preview(&parts)?;
        let number = loaded.as_ref().map(|loaded| loaded.generation.number());
        if let Some(Loaded { generation, origin, bytes }) = loaded {
            if let (Some(store), Source::Uploaded(_)) = (&desk.store, &origin.source) {
                store.put(&origin.sha256, &bytes).map_err(|error| not_kept(&error))?;
            }
            desk.adopt(generation.number(), origin);
        }
        let before = desk.decided;
        order.slots().into_iter().for_each(|slot| desk.decide(slot));
        // Written first: what answers is what a restart brings back, or the order is refused.
        if let Err(error) = desk.write_down(&view, |slot| self.is_pinned(slot)) {
            desk.decided = before;
            number.map(|number| desk.origins.remove(&number));
            return Err(not_kept(&error));
        }
        let changed = self.registry.change(&parts);
        if changed.is_err() {
            // A plugin was quarantined just now; its own note writes down what is, and so does this.
            let _ = desk.write_down(&self.registry.view(), |slot| self.is_pinned(slot));
        }
        desk.sweep(&self.registry.view());
        Ok(changed?)
    }

    /// Writes down what the registry did by itself.
    pub(super) fn settle(&self, slot: Slot, what: &'static str, why: String) {
        let mut desk = self.desk();
        desk.decide(slot);
        if let Err(error) = desk.write_down(&self.registry.view(), |slot| self.is_pinned(slot)) {
            tracing::error!(%error, "who answers can't be written down: a restart will not know");
        }
        let (at_unix_ms, who) = (now_unix_ms(), Who { peer: None }.to_string());
        desk.remember(slot, HistoryEntry { at_unix_ms, what, who, sha256: None, outcome: why });
    }
}

fn not_kept(error: &io::Error) -> Refusal {
    Refusal::storage(format!("plugins.state_dir can't be written: {error}"))
}

/// What an order is to the registry.
fn parts(order: &Order, loaded: Option<&Loaded>) -> Result<Vec<(Slot, Change)>, Refusal> {
    let one = |slot: Slot, change: Change| Ok(vec![(slot, change)]);
    match order {
        Order::Upload { slot, intake, .. } | Order::Configure { slot, intake, .. } => {
            let Some(loaded) = loaded else {
                return Err(Refusal::conflict("nothing was loaded"));
            };
            let generation = Arc::clone(&loaded.generation);
            one(
                *slot,
                match intake {
                    Intake::Activate => Change::Activate(generation),
                    Intake::TryOut(mode) => Change::TryOut(generation, *mode),
                },
            )
        }
        Order::Promote(slots) => Ok(slots.iter().map(|slot| (*slot, Change::Promote)).collect()),
        Order::Withdraw(slot) => one(*slot, Change::Withdraw),
        Order::RollBack(slot) => one(*slot, Change::RollBack),
        Order::Disable(slot) => one(*slot, Change::Disable),
    }
}
