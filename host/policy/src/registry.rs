//! Who answers in each slot, swapped as a whole while statements run.
//!
//! The view of all slots is one pointer. Whoever asks loads it, finishes with what it found there, and sees what
//! changed at its next question: nobody waits, and nobody sees half of a change.

use crate::engine::Engine;
use crate::error::LoadError;
use crate::event::{Event, Sink};
use crate::generation::{Generation, Source, next_number};
use crate::granted::Granted;
use crate::locks::lock;
use crate::trial::Trial;
use arc_swap::ArcSwap;
use std::sync::{Arc, Mutex};
use tidegate_core::policy::Slot;
use tidegate_core::policy::canary::Reason;
use tidegate_core::policy::faults::FaultKind;
use tidegate_core::policy::seat::{Mode, Seat, SeatError, Version};

/// One a process. Orders come from the control plane, questions from everywhere.
pub struct Registry {
    engine: Arc<Engine>,
    granted: [Arc<Granted>; Slot::ALL.len()],
    view: Arc<ArcSwap<View>>,
    /// Held by whoever makes a new view.
    changes: Mutex<()>,
}

/// All slots at one moment.
#[derive(Clone, Default)]
pub struct View {
    slots: [SlotView; Slot::ALL.len()],
}

/// One slot at one moment.
#[derive(Clone, Default)]
pub struct SlotView {
    pub(crate) seat: Seat<Generation>,
    /// Of the candidate.
    pub(crate) trial: Option<Arc<Trial>>,
    /// Changes whenever somebody else answers or is asked: the stamp of answers that are kept.
    pub(crate) stamp: u64,
}

impl Version for Generation {
    fn number(&self) -> u64 {
        Generation::number(self)
    }

    fn is_good(&self) -> bool {
        !self.is_quarantined()
    }
}

impl View {
    pub fn slot(&self, slot: Slot) -> &SlotView {
        &self.slots[slot.index()]
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut SlotView {
        &mut self.slots[slot.index()]
    }
}

impl SlotView {
    pub fn active(&self) -> Option<&Arc<Generation>> {
        self.seat.active()
    }

    pub fn previous(&self) -> Option<&Arc<Generation>> {
        self.seat.previous()
    }

    pub fn candidate(&self) -> Option<(&Arc<Generation>, Mode)> {
        self.seat.candidate()
    }

    /// What is known of the candidate so far.
    pub fn trial(&self) -> Option<&Arc<Trial>> {
        self.trial.as_ref()
    }

    /// The generation of this number, if it is still here.
    pub fn generation(&self, number: u64) -> Option<&Arc<Generation>> {
        self.seat.version(number)
    }

    /// Answers that were given under another stamp are out of date.
    #[inline]
    pub fn stamp(&self, session: u64) -> u64 {
        match self.seat.candidate() {
            // A canary's sessions keep the canary's answers.
            Some((candidate, Mode::Canary(share))) if share.takes(session) => candidate.number(),
            _ => self.stamp,
        }
    }
}

/// A reader for one thread: looking is one comparison while nothing changes.
pub struct Reader {
    cache: arc_swap::cache::Cache<Arc<ArcSwap<View>>, Arc<View>>,
}

impl Reader {
    /// The present view. Answers of one statement belong to one view.
    #[inline]
    pub fn view(&mut self) -> &Arc<View> {
        self.cache.load()
    }
}

/// One slot's part of a change.
#[derive(Clone)]
pub enum Change {
    /// Answers from now on.
    Activate(Arc<Generation>),
    /// Is tried out beside the active one.
    TryOut(Arc<Generation>, Mode),
    /// The candidate answers from now on.
    Promote,
    /// The candidate goes.
    Withdraw,
    /// The previous version answers again.
    RollBack,
    /// The host answers itself.
    Disable,
}

/// Why a change cannot be made. Then none of its parts was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// A plugin of another kind.
    OtherSlot {
        slot: Slot,
        generation: u64,
    },
    Seat {
        slot: Slot,
        error: SeatError,
    },
}

impl std::fmt::Display for ChangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ChangeError::OtherSlot { slot, generation } => {
                write!(f, "generation {generation} is no {} policy", slot.name())
            }
            ChangeError::Seat { slot, error } => write!(f, "{}: {error}", slot.name()),
        }
    }
}

impl std::error::Error for ChangeError {}

impl Registry {
    /// Empty: the host answers itself. `seed` is for the random numbers of plugins.
    pub fn new(engine: Arc<Engine>, seed: u64, sink: &Arc<dyn Sink>) -> Registry {
        let granted = Slot::ALL.map(|slot| Arc::new(Granted::new(slot, seed, Arc::clone(sink))));
        Registry {
            engine,
            granted,
            view: Arc::new(ArcSwap::from_pointee(View::default())),
            changes: Mutex::new(()),
        }
    }

    /// Checks, compiles and starts a plugin that then can be part of a change. Not on a thread that serves statements.
    pub fn load(&self, source: Source<'_>) -> Result<Arc<Generation>, LoadError> {
        Generation::load(&self.engine, self.granted(source.slot), source).map(Arc::new)
    }

    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub fn reader(&self) -> Reader {
        Reader { cache: arc_swap::cache::Cache::new(Arc::clone(&self.view)) }
    }

    fn granted(&self, slot: Slot) -> &Arc<Granted> {
        &self.granted[slot.index()]
    }

    /// What the slots would be after a change.
    ///
    /// # Errors
    /// The change cannot be made.
    pub fn preview(&self, parts: &[(Slot, Change)]) -> Result<View, ChangeError> {
        let mut view = View::clone(&self.view.load());
        for (slot, change) in parts {
            apply(view.slot_mut(*slot), *slot, change)?;
        }
        Ok(view)
    }

    /// Makes all parts of a change at once, or none of them.
    pub fn change(&self, parts: &[(Slot, Change)]) -> Result<(), ChangeError> {
        let _order = lock(&self.changes);
        let before = self.view.load_full();
        let after = Arc::new(self.preview(parts)?);
        self.view.store(Arc::clone(&after));
        for slot in Slot::ALL {
            let number = |view: &View| view.slot(slot).active().map(|active| active.number());
            let (from, to) = (number(&before), number(&after));
            if from != to {
                self.granted(slot).emit(&Event::Swapped { from, to });
            }
        }
        Ok(())
    }

    /// Takes a generation out after too many faults: the previous good one answers again, or the host.
    pub(crate) fn quarantine(&self, slot: Slot, generation: u64, last: FaultKind) {
        let order = lock(&self.changes);
        let mut view = View::clone(&self.view.load());
        let own = view.slot_mut(slot);
        let was_active = own.seat.quarantine(generation);
        refresh(own);
        let restored = own.active().filter(|_| was_active).map(|active| active.number());
        self.view.store(Arc::new(view));
        drop(order);
        self.granted(slot).emit(&Event::Quarantined { generation, last, restored });
    }

    /// Gives a canary up, unless it has gone already.
    pub(crate) fn give_up(&self, slot: Slot, generation: u64, reason: Reason) {
        let order = lock(&self.changes);
        let mut view = View::clone(&self.view.load());
        let own = view.slot_mut(slot);
        if own.candidate().is_none_or(|(candidate, _)| candidate.number() != generation) {
            return;
        }
        // There is one: it was just looked at, and changes are made one at a time.
        let _ = own.seat.withdraw();
        refresh(own);
        self.view.store(Arc::new(view));
        drop(order);
        self.granted(slot).emit(&Event::RolledBack { generation, reason });
    }
}

fn apply(own: &mut SlotView, slot: Slot, change: &Change) -> Result<(), ChangeError> {
    if let Change::Activate(generation) | Change::TryOut(generation, _) = change
        && generation.slot() != slot
    {
        return Err(ChangeError::OtherSlot { slot, generation: generation.number() });
    }
    let seat = &mut own.seat;
    let done = match change {
        Change::Activate(generation) => seat.activate(Arc::clone(generation)),
        Change::TryOut(generation, mode) => seat.try_out(Arc::clone(generation), *mode),
        Change::Promote => seat.promote(),
        Change::Withdraw => seat.withdraw().map(drop),
        Change::RollBack => seat.roll_back(),
        Change::Disable => {
            seat.disable();
            Ok(())
        }
    };
    done.map_err(|error| ChangeError::Seat { slot, error })?;
    refresh(own);
    Ok(())
}

/// A new stamp, and a trial for a candidate that has none.
fn refresh(own: &mut SlotView) {
    own.stamp = next_number();
    let candidate = own.candidate().map(|(candidate, _)| candidate.number());
    let tried = own.trial.as_ref().map(|trial| trial.generation());
    if candidate != tried {
        own.trial = candidate.map(|number| Arc::new(Trial::new(number)));
    }
}
