//! The thread that loads: it restores, then takes one load after the other, with what processor time is left.

use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread;

use hyper::body::Bytes;
use tidegate_core::limits::POLICY_COMPONENT_BYTES_MAX;
use tidegate_core::policy::Slot;
use tidegate_policy::{Change, Generation, embedded};
use tokio::sync::oneshot;

use super::desk::{Loaded, Origin, Source};
use super::manifest::{FORMAT, Manifest, SlotEntry, VersionEntry};
use super::order::{Order, Refusal, Who};
use super::{Outcome, Plugins, compiler, store};
use crate::config::{FileHash, Pin, Signature, Signatures};

/// What the thread is asked for.
pub(super) enum Job {
    Load { order: Order, who: Who, reply: oneshot::Sender<Outcome> },
    Settle(Settled),
}

/// What the registry did by itself.
pub(super) struct Settled {
    pub(super) slot: Slot,
    pub(super) generation: u64,
    pub(super) why: String,
}

/// Starts it; it ends when nobody can send jobs any more. `restored` is dropped when clients may be served.
pub(super) fn start(
    plugins: Weak<Plugins>,
    jobs: Receiver<Job>,
    restored: Sender<()>,
) -> io::Result<()> {
    let run = move || {
        compiler::lower_priority();
        if let Some(plugins) = plugins.upgrade() {
            plugins.restore();
            let _ = restored.send(());
            plugins.load_defaults();
        }
        for job in jobs {
            let Some(plugins) = plugins.upgrade() else { break };
            plugins.handle_job(job);
        }
    };
    thread::Builder::new().name("tidegate-plugins".to_owned()).spawn(run).map(drop)
}

impl Plugins {
    fn handle_job(&self, job: Job) {
        match job {
            Job::Load { order, who, reply } => {
                // Whoever asked may have gone while this waited.
                if reply.is_closed() {
                    return;
                }
                let outcome = match self.load(&order) {
                    Err(refusal) => self.refuse(&order, &who, refusal),
                    Ok(_) if reply.is_closed() => {
                        let gone = "whoever ordered it has gone";
                        self.refuse(&order, &who, Refusal::conflict(gone))
                    }
                    Ok(loaded) => self.carry_out(&order, &who, Some(loaded)),
                };
                let _ = reply.send(outcome);
            }
            Job::Settle(Settled { slot, generation, why }) => {
                self.settle(slot, "taken out", format!("generation {generation}: {why}"));
            }
        }
    }

    /// Every check, in the order of what it costs.
    fn load(&self, order: &Order) -> Result<Loaded, Refusal> {
        let (slot, bytes, settings, origin) = match order {
            Order::Upload { slot, bytes, settings, signature, .. } => {
                self.check_signature(bytes, signature.as_ref())?;
                let kept = self.config.state_dir.is_none().then(|| bytes.clone());
                let source = Source::Uploaded(kept);
                let sha256 = FileHash::of(bytes);
                let origin = Origin { source, sha256, signature: *signature };
                (*slot, bytes.clone(), settings, origin)
            }
            Order::Configure { slot, settings, .. } => {
                let (bytes, origin) = self.active_file(*slot)?;
                (*slot, bytes, settings, origin)
            }
            _ => return Err(Refusal::conflict("nothing to load")),
        };
        let generation = self.compile(slot, &bytes, settings)?;
        generation.rehearse().map_err(|unfit| {
            let (slot, fault) = (slot.name(), &unfit.fault);
            tracing::warn!(slot, %fault, "a plugin failed its self-test");
            Refusal::rehearsal(&unfit)
        })?;
        Ok(Loaded { generation, origin, bytes })
    }

    fn compile(
        &self,
        slot: Slot,
        bytes: &[u8],
        settings: &str,
    ) -> Result<Arc<Generation>, Refusal> {
        let source = tidegate_policy::Source { slot, bytes, settings };
        Ok(self.registry.load(source)?)
    }

    fn active_file(&self, slot: Slot) -> Result<(Bytes, Origin), Refusal> {
        let view = self.registry.view();
        let active = view.slot(slot).active();
        let active = active
            .ok_or_else(|| Refusal::conflict(format!("{}: no plugin is active", slot.name())))?;
        let desk = self.desk();
        let origin = desk.origin(active.number()).cloned();
        let origin = origin.ok_or_else(|| Refusal::conflict("the active plugin is not known"))?;
        let bytes = desk.content(slot, &origin).map_err(|error| {
            Refusal::storage(format!("the active plugin's file can't be read: {error}"))
        })?;
        Ok((bytes, origin))
    }

    fn check_signature(&self, bytes: &[u8], signature: Option<&Signature>) -> Result<(), Refusal> {
        let refuse = |words: &str| Err(Refusal::check("signature", words));
        match (self.config.signatures, signature) {
            (Signatures::Off, _) | (Signatures::Optional, None) => Ok(()),
            (Signatures::Required, None) => {
                refuse("the plugin is not signed, and plugins.signatures is required")
            }
            (_, Some(signature)) => {
                if self.config.keys.iter().any(|key| key.has_signed(bytes, signature)) {
                    return Ok(());
                }
                refuse("the signature is by none of plugins.keys, or of another file")
            }
        }
    }

    /// What the configuration pins, then what the state directory holds.
    fn restore(&self) {
        for pin in &self.config.pins {
            if let Err(refusal) = self.restore_pin(pin) {
                let (slot, file) = (pin.slot.name(), pin.file.display());
                let why = refusal.detail;
                tracing::error!(slot, %file, why, "a pinned plugin is not loaded; the one that comes with Tidegate stands in");
            }
        }
        for (name, entry) in self.manifest().slots {
            match Slot::named(&name) {
                Some(slot) if !self.is_pinned(slot) => self.restore_slot(slot, &entry),
                Some(_) => {}
                None => tracing::error!(name, "the manifest names a slot that is unknown"),
            }
        }
    }

    fn restore_pin(&self, pin: &Pin) -> Result<(), Refusal> {
        let unreadable = |error: io::Error| Refusal::storage(error.to_string());
        let bytes =
            store::read(&pin.file, POLICY_COMPONENT_BYTES_MAX as u64).map_err(unreadable)?;
        let sha256 = FileHash::of(&bytes);
        if sha256 != pin.sha256 {
            let words = format!("its SHA-256 is {sha256}, {} is pinned", pin.sha256);
            return Err(Refusal::check("hash", words));
        }
        let generation = self.compile(pin.slot, &bytes, &pin.settings)?;
        let origin = Origin { source: Source::Pinned, sha256, signature: None };
        self.put(pin.slot, vec![(Change::Activate(Arc::clone(&generation)), generation, origin)])
    }

    fn manifest(&self) -> Manifest {
        let desk = self.desk();
        let text = match desk.store.as_ref().map(store::Store::manifest) {
            None | Some(Ok(None)) => return Manifest::default(),
            Some(Ok(Some(text))) => text,
            Some(Err(error)) => {
                tracing::error!(%error, "plugins.state_dir can't be read: uploaded plugins are not restored");
                return Manifest::default();
            }
        };
        match serde_json::from_str::<Manifest>(&text) {
            Ok(manifest) if manifest.format == FORMAT => manifest,
            Ok(Manifest { format, .. }) => {
                tracing::error!(
                    format,
                    "the manifest of plugins is of another version of Tidegate"
                );
                Manifest::default()
            }
            Err(error) => {
                tracing::error!(%error, "the manifest of plugins can't be read");
                Manifest::default()
            }
        }
    }

    /// Each version that is whole; what is damaged is told and skipped.
    fn restore_slot(&self, slot: Slot, entry: &SlotEntry) {
        let get = |what: &str, version: &VersionEntry| match self.restore_version(slot, version) {
            Ok(loaded) => Some(loaded),
            Err(refusal) => {
                let (slot, why) = (slot.name(), refusal.detail);
                tracing::error!(slot, what, why, "a plugin is not restored");
                None
            }
        };
        let previous = entry.previous.as_ref().and_then(|version| get("previous", version));
        let active = entry.active.as_ref().and_then(|version| get("active", version));
        let candidate = entry
            .candidate
            .as_ref()
            .and_then(|candidate| Some((get("candidate", &candidate.version)?, candidate.mode()?)));
        let is_lost = entry.active.is_some() && active.is_none() && previous.is_none();
        let mut changes = Vec::new();
        let activate = |(generation, origin): (Arc<Generation>, Origin)| {
            (Change::Activate(Arc::clone(&generation)), generation, origin)
        };
        changes.extend(previous.map(activate));
        changes.extend(active.map(activate));
        changes.extend(candidate.map(|((generation, origin), mode)| {
            (Change::TryOut(Arc::clone(&generation), mode), generation, origin)
        }));
        let put = self.put(slot, changes);
        if let Err(refusal) = put {
            tracing::error!(slot = slot.name(), why = refusal.detail, "a slot is not restored");
        }
        if entry.active.is_none() {
            // Somebody had it so.
            let _ = self.registry.change(&[(slot, Change::Disable)]);
        }
        if !is_lost {
            self.desk().decide(slot);
        }
    }

    fn restore_version(
        &self,
        slot: Slot,
        version: &VersionEntry,
    ) -> Result<(Arc<Generation>, Origin), Refusal> {
        let damaged = || Refusal::storage("the manifest is damaged");
        let Some(hex) = &version.sha256 else {
            return self.embedded(slot, &version.settings);
        };
        let sha256 = FileHash::from_hex(hex).ok_or_else(damaged)?;
        let signature = match &version.signature {
            None => None,
            Some(text) => Some(Signature::from_base64(text).ok_or_else(damaged)?),
        };
        let origin = Origin { source: Source::Uploaded(None), sha256, signature };
        let content = self.desk().content(slot, &origin);
        let bytes = content.map_err(|error| Refusal::storage(error.to_string()))?;
        self.check_signature(&bytes, signature.as_ref())?;
        Ok((self.compile(slot, &bytes, &version.settings)?, origin))
    }

    fn embedded(&self, slot: Slot, settings: &str) -> Result<(Arc<Generation>, Origin), Refusal> {
        let bytes = embedded(slot).bytes;
        let sha256 = FileHash::of(bytes);
        let origin = Origin { source: Source::Embedded, sha256, signature: None };
        Ok((self.compile(slot, bytes, settings)?, origin))
    }

    fn put(
        &self,
        slot: Slot,
        changes: Vec<(Change, Arc<Generation>, Origin)>,
    ) -> Result<(), Refusal> {
        let mut desk = self.desk();
        let mut parts = Vec::with_capacity(changes.len());
        for (change, generation, origin) in changes {
            desk.adopt(generation.number(), origin);
            parts.push((slot, change));
        }
        Ok(self.registry.change(&parts)?)
    }

    /// The plugins that come with the program, where nothing else was put in place.
    fn load_defaults(&self) {
        for slot in Slot::ALL {
            let view = self.registry.view();
            if view.slot(slot).active().is_some() || self.desk().is_decided(slot) {
                continue;
            }
            let settings = if slot == Slot::Limiting { self.limiting.as_str() } else { "" };
            let (generation, origin) = match self.embedded(slot, settings) {
                Ok(loaded) => loaded,
                Err(refusal) => {
                    tracing::error!(
                        slot = slot.name(),
                        why = refusal.detail,
                        "the host answers itself"
                    );
                    continue;
                }
            };
            let mut desk = self.desk();
            // Somebody may have disabled the slot while this compiled.
            if !desk.is_decided(slot) {
                desk.adopt(generation.number(), origin);
                let _ = self.registry.change(&[(slot, Change::Activate(generation))]);
            }
        }
    }
}
