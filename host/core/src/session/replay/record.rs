//! What is kept of a transaction so that it can be run again: what its client sent, and a digest of what it was told.

use super::ReplayObstacle;
use crate::limits;
use crate::session::names::Displaced;
use crate::session::prepared::Prepared;
use crate::statement::{Analysis, Effects, Kind};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3Default;

/// How much was told, and what: equal marks are equal bytes, but for a chance of one in 2^128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) bytes: u64,
    digest: u128,
}

/// A running digest.
pub(super) struct Told {
    bytes: u64,
    hasher: Box<Xxh3Default>,
}

impl Default for Told {
    fn default() -> Self {
        Self { bytes: 0, hasher: Box::new(Xxh3Default::new()) }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mark().fmt(f)
    }
}

impl Told {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes, digest: self.hasher.digest128() }
    }

    pub(super) fn reset(&mut self) {
        self.bytes = 0;
        self.hasher.reset();
    }
}

/// A Query, or a batch up to its Sync, that is answered to the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// Where what was sent of it ends in [`Record::sent`].
    pub(super) end: usize,
    pub(super) told: Mark,
}

/// What the unit that is not answered to the end does to the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing of it runs yet.
    #[default]
    Empty,
    /// It opens the transaction.
    Opens,
    /// It runs in it.
    Inside,
    /// It ends it, with its last statement.
    Ends,
    /// It is a transaction of its own.
    Alone,
    /// The same, and what it does cannot be undone as a whole for certain.
    Loose,
}

/// What becomes of the client if it cannot be run again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum After {
    /// It is told, and goes on.
    #[default]
    GoesOn,
    /// More than the transaction is lost.
    Ends,
    /// It has been told half a message.
    Cut,
}

/// Is anybody waiting for an answer?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Client {
    #[default]
    Rests,
    Waits,
}

/// Names and the unnamed statement as the client knows them, while earlier ones are in force.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) names: Displaced,
    pub(super) unnamed: Option<Arc<Prepared>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) began: Option<Instant>,
    pub(super) age: Duration,
    pub(super) sent: Vec<u8>,
    pub(super) units: Vec<Unit>,
    /// The client's unnamed statement when it began.
    pub(super) unnamed: Option<Arc<Prepared>>,
    /// Of the unit behind the last of `units`.
    pub(super) told: Told,
    pub(super) form: Form,
    /// How much of it had been told when it was interrupted.
    pub(super) interrupted: Option<Mark>,
    pub(super) attempts: u32,
    pub(super) client: Client,
    pub(super) after: After,
    /// While it is run again: how much of `sent` a server has been sent,
    pub(super) fed: usize,
    /// what has come for the unit that runs, as far as it was told before,
    pub(super) seen: Told,
    /// and what is put aside for it.
    pub(super) known: Option<Known>,
}

impl Record {
    /// Where the unit that is not answered to the end begins.
    pub(super) fn last_end(&self) -> usize {
        self.units.last().map_or(0, |unit| unit.end)
    }

    /// A unit's bytes end here.
    pub(super) fn end_of(&self, unit: u32) -> usize {
        self.units.get(unit as usize).map_or(self.sent.len(), |unit| unit.end)
    }

    /// What was told of it.
    pub(super) fn target_of(&self, unit: u32) -> Option<Mark> {
        self.units.get(unit as usize).map(|unit| unit.told).or(self.interrupted)
    }

    /// Is it the unit that is not answered to the end?
    pub(super) fn is_in_flight(&self, unit: u32) -> bool {
        unit as usize == self.units.len()
    }

    /// While this unit runs again: has the client been told more than before?
    pub(super) fn tells_more(&self, unit: u32) -> bool {
        let before = self.interrupted.map_or(0, |mark| mark.bytes);
        self.is_in_flight(unit) && self.told.bytes() > before
    }

    /// The client has sent this.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ReplayObstacle> {
        if self.sent.len() + bytes.len() > limits::REPLAY_BYTES_MAX {
            return Err(ReplayObstacle::TooLong);
        }
        self.sent.extend_from_slice(bytes);
        Ok(())
    }

    /// The unit has been answered to the end.
    pub(super) fn end_unit(&mut self) -> Result<(), ReplayObstacle> {
        self.units.push(Unit { end: self.sent.len(), told: self.told.mark() });
        self.told.reset();
        self.form = Form::Empty;
        self.interrupted = None;
        if self.units.len() > limits::REPLAY_UNITS_MAX {
            return Err(ReplayObstacle::TooMany);
        }
        Ok(())
    }

    /// A text is run, or bound. `idle`: no transaction is open before the unit.
    pub(super) fn note(&mut self, analysis: &Analysis, idle: bool) -> Result<(), ReplayObstacle> {
        obstacle_in(analysis)?;
        let ends = analysis.effects.contains(Effects::ENDS);
        if ends && (analysis.statements > 1 || analysis.effects.contains(Effects::CHAINS)) {
            return Err(ReplayObstacle::SeveralTransactions);
        }
        self.form = match (self.form, ends) {
            (Form::Ends, _) => return Err(ReplayObstacle::SeveralTransactions),
            (Form::Empty, true) if idle => Form::Loose,
            (Form::Alone | Form::Loose, true) => Form::Loose,
            (_, true) => Form::Ends,
            (Form::Empty, false) if !idle => Form::Inside,
            (Form::Empty, false) if analysis.kind == Kind::Begin => Form::Opens,
            // It cannot commit a part of what it does.
            (Form::Empty | Form::Alone, false) if analysis.is_one_preparable() => Form::Alone,
            (Form::Empty | Form::Alone, false) => Form::Loose,
            (form, false) => form,
        };
        Ok(())
    }

    /// Its server says that it has undone the transaction. May the unit that it says it of run again?
    pub(super) fn may_repeat_undone(&self, idle: bool) -> Result<(), ReplayObstacle> {
        match self.form {
            Form::Opens | Form::Inside => Ok(()),
            Form::Empty if !idle => Ok(()),
            Form::Empty | Form::Loose => Err(ReplayObstacle::SeveralTransactions),
            // Run again it may end well, and then it is too late to compare.
            Form::Ends | Form::Alone if self.told.bytes() > 0 => Err(ReplayObstacle::HalfTold),
            Form::Ends | Form::Alone => Ok(()),
        }
    }

    /// Its server is lost. May the unit that it ran not have been committed, for certain?
    pub(super) fn may_repeat_lost(&self, idle: bool, commits: bool) -> Result<(), ReplayObstacle> {
        match self.form {
            _ if commits => Err(ReplayObstacle::InDoubt),
            Form::Alone | Form::Loose => Err(ReplayObstacle::InDoubt),
            _ => self.may_repeat_undone(idle),
        }
    }
}

/// What leaves more than its transaction behind, or asks its client for more.
const NOT_AGAIN: Effects = Effects::ADVISORY_LOCK
    .with(Effects::ADVISORY_UNLOCK)
    .with(Effects::HOLD_CURSOR)
    .with(Effects::LISTEN)
    .with(Effects::UNLISTEN)
    .with(Effects::TEMP_OBJECTS)
    .with(Effects::PREPARES)
    .with(Effects::EXECUTES)
    .with(Effects::DISCARD_ALL)
    .with(Effects::LOADS)
    .with(Effects::SESSION_AUTHORIZATION)
    .with(Effects::SESSION_BOUND)
    .with(Effects::SEED)
    .with(Effects::SEQUENCE_STATE);

fn obstacle_in(analysis: &Analysis) -> Result<(), ReplayObstacle> {
    let effects = analysis.effects;
    if effects.intersects(Effects::COPY_FROM.with(Effects::COPY_TO)) || analysis.kind == Kind::Copy
    {
        return Err(ReplayObstacle::Copy);
    }
    if effects.contains(Effects::TWO_PHASE) {
        return Err(ReplayObstacle::SeveralTransactions);
    }
    if effects.intersects(NOT_AGAIN) || analysis.kind == Kind::Notify || analysis.process.is_some()
    {
        return Err(ReplayObstacle::SessionState);
    }
    Ok(())
}
