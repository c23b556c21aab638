//! A transaction that is run again: its server is lost, or says that it could not be serialized.
//!
//! ```text
//!        a transaction begins           40001, 40P01                rolled back
//!  Off ────────────────────▶ Records ──────────────▶ Retreats ──────────────────▶ Due
//!   ▲                         ▲  │ └── its server is lost ─────────────────────▶ ─┘ │ a server is lent
//!   └── it ends, with Idle ───┼──┴─▶ Unfit (something cannot be repeated)           ▼
//!                             └──── all came back as it was told before ────────── Runs ── 40001, lost ──▶ …
//!                                                                                   └─ other bytes ─▶ Differs
//! ```
//!
//! What its client has sent since the transaction began is kept, and of each Query or batch a digest of the bytes that the
//! client was told for it. Run again, these bytes must come once more, and none of them is told again; behind the last of
//! them the answer goes on, and so does the client. The next unit is sent only when the one before has come back the same,
//! so what ends the transaction runs only when all was the same. While this is wanted, a client's units are sent one at a time.

mod again; // it is run again
mod interrupted; // whether it is
mod record; // what is kept

use super::client::Chosen;
use super::expected::Copying;
use super::gather::Gather;
use super::{Batch, Io, PoolMode, Session, SettingsNow};
use crate::plan::{REPLAY_SETTING, RoutePreference, replay_from_setting};
use crate::statement::Analysis;
use record::{After, Client, Form, Record};
use std::time::Instant;
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::frame::Header;
use tidegate_wire::frontend::tag;

/// Why an interrupted transaction is not run again. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayObstacle {
    /// Data were copied.
    Copy,
    /// Temporary objects, advisory locks, LISTEN and NOTIFY, cursors that are held, names by SQL, roles, what could not be read.
    SessionState,
    /// A part of what it sent at once may have been committed.
    SeveralTransactions,
    /// Whether it was committed is not known.
    InDoubt,
    /// Something of the answer has been told that could not be taken back.
    HalfTold,
    /// More was sent than is kept.
    TooLong,
    /// The same in Queries and batches.
    TooMany,
    TooOld,
    /// Its client has cancelled it.
    Cancelled,
    /// A policy refused a statement in it.
    Refused,
    /// It has been run again too often.
    Attempts,
    /// No server could be had.
    NoServer,
}

impl ReplayObstacle {
    pub const ALL: [Self; 12] = [
        Self::Copy,
        Self::SessionState,
        Self::SeveralTransactions,
        Self::InDoubt,
        Self::HalfTold,
        Self::TooLong,
        Self::TooMany,
        Self::TooOld,
        Self::Cancelled,
        Self::Refused,
        Self::Attempts,
        Self::NoServer,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::SessionState => "session_state",
            Self::SeveralTransactions => "several_transactions",
            Self::InDoubt => "in_doubt",
            Self::HalfTold => "half_told",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many",
            Self::TooOld => "too_old",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Attempts => "attempts",
            Self::NoServer => "no_server",
        }
    }
}

/// What became of interrupted transactions since the session was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayTally {
    /// Run again, each time.
    pub tried: u8,
    /// All came back as it was told before.
    pub succeeded: u8,
    /// Something else came.
    pub differed: u8,
    /// The last that was not run again.
    pub given_up: Option<ReplayObstacle>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing is kept.
    #[default]
    Off,
    Records,
    /// What runs cannot be run again.
    Unfit(ReplayObstacle),
    /// The server has undone it, and is brought to where another transaction may begin.
    Retreats,
    /// It is to be run again, and there is no server for it yet.
    Due,
    /// So many units have come back the same.
    Runs {
        unit: u32,
    },
    /// What came back is something else, and the server is not done with it.
    Differs,
    /// The client does not know yet that its transaction is rolled back.
    Owes,
    /// It cannot go on.
    Broken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    No,
    Yes,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// What a session wants that does not say.
    default: Wanted,
    wanted: Wanted,
    stage: Stage,
    record: Option<Box<Record>>,
    /// Where in the client's input begins what has not been kept.
    from: u32,
    /// The unit has been answered to the end in this step.
    ended: Option<TransactionStatus>,
    /// The server's transaction is to fail, as the client is told.
    fails: Option<()>,
}

/// Whether the session can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Heeded {
    GoesOn,
    Breaks,
}

impl Replay {
    fn forget(&mut self) {
        (self.stage, self.record, self.ended, self.fails) = (Stage::Off, None, None, None);
    }

    /// Is the client told nothing of what its server says?
    fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Retreats | Stage::Runs { .. } | Stage::Differs)
    }

    fn unfit(&mut self, why: ReplayObstacle) {
        if self.stage == Stage::Records {
            (self.stage, self.record) = (Stage::Unfit(why), None);
        }
    }
}

impl Session {
    /// Transactions are run again unless the session says otherwise.
    #[must_use]
    pub fn with_replay(mut self) -> Self {
        self.replay.default = Wanted::Yes;
        self.heed_replay_setting();
        self
    }

    /// Are transactions to be run again? Then tell the time before each step.
    pub fn wants_replay(&self) -> bool {
        self.replay.wanted == Wanted::Yes
    }

    /// What time it is: transactions that are too old are not run again.
    pub fn handle_time(&mut self, now: Instant) {
        if let Some(record) = &mut self.replay.record {
            let age = now.saturating_duration_since(*record.began.get_or_insert(now));
            record.age = age;
        }
    }

    /// Is a transaction to be run again that has no server? Then a server is to be lent for it.
    pub fn is_to_run_again(&self) -> bool {
        let waits =
            self.replay.record.as_ref().is_some_and(|record| record.client == Client::Waits);
        self.replay.stage == Stage::Due && waits
    }

    /// What is under way is not run again: its client has cancelled it.
    pub fn forget_replay(&mut self) {
        self.replay.unfit(ReplayObstacle::Cancelled);
    }

    fn give_up_replay(&mut self, why: ReplayObstacle) {
        self.tally.replays.given_up = Some(why);
    }

    pub(super) fn heed_replay_setting(&mut self) {
        let told = self.settings.own(REPLAY_SETTING).and_then(replay_from_setting);
        self.replay.wanted = match told {
            Some(true) => Wanted::Yes,
            Some(false) => Wanted::No,
            None => self.replay.default,
        };
    }

    /// Nothing of a transaction is run again now.
    pub(super) fn is_replay_quiet(&self) -> bool {
        matches!(self.replay.stage, Stage::Off | Stage::Records | Stage::Unfit(_))
    }

    /// Has the client been told half a message whose rest has not come yet?
    pub(super) fn is_cut(&self) -> bool {
        self.replay.record.as_ref().is_some_and(|record| record.after == After::Cut)
    }

    // --- what is kept --------------------------------------------------------------------------------

    /// Could what begins now be kept?
    fn can_record(&self) -> bool {
        let preference = RoutePreference::from_setting(self.settings.own(RoutePreference::SETTING));
        self.wants_replay()
            && self.mode == PoolMode::Transaction
            && self.chosen == Chosen::ForAnything
            && preference != RoutePreference::Replica
            && self.pins.is_empty()
            && self.channels().is_empty()
    }

    /// Before a frame: does it have to wait until the unit before it is answered? Else a transaction may begin with it, and
    /// is kept from there.
    pub(super) fn waits_for_unit(&mut self, header: Header, at: usize, io: &Io<'_>) -> bool {
        let begins = self.batch == Batch::Closed
            && self.copying == Copying::Nothing
            && !matches!(
                header.tag,
                tag::TERMINATE | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL
            );
        let keeps = match self.replay.stage {
            // The next transaction is to begin with nothing in doubt.
            Stage::Records | Stage::Unfit(_) => true,
            Stage::Off => self.wants_replay() && self.can_record(),
            _ => false,
        };
        if !begins || !keeps || io.server.is_none() {
            return false;
        }
        if !self.expected.is_empty() {
            return true;
        }
        let is_clean = self.status == TransactionStatus::Idle
            && self.settings_now == SettingsNow::Known
            && self.touched.is_none()
            && self.probing.is_none();
        if self.replay.stage == Stage::Off
            && is_clean
            && !matches!(header.tag, tag::SYNC | tag::FLUSH)
        {
            self.begin_record(at);
        }
        false
    }

    fn begin_record(&mut self, at: usize) {
        self.names.watch();
        self.replay.stage = Stage::Records;
        self.replay.from = u32::try_from(at).unwrap_or(u32::MAX);
        self.replay.record =
            Some(Box::new(Record { unnamed: self.unnamed.clone(), ..Record::default() }));
    }

    pub(super) fn begin_step(&mut self) {
        self.replay.from = 0;
    }

    /// After a step: the client has sent this.
    pub(super) fn keep_sent(&mut self, dealt_with: &[u8]) {
        if self.replay.stage != Stage::Records {
            return;
        }
        let bytes = dealt_with.get(self.replay.from as usize..).unwrap_or_default();
        if let Some(record) = &mut self.replay.record
            && let Err(why) = record.push(bytes)
        {
            self.replay.unfit(why);
        }
    }

    /// A text is run, or bound.
    pub(super) fn note_for_replay(&mut self, analysis: &Analysis) {
        let idle = self.status == TransactionStatus::Idle;
        if self.replay.stage == Stage::Records
            && let Some(record) = &mut self.replay.record
            && let Err(why) = record.note(analysis, idle)
        {
            self.replay.unfit(why);
        }
    }

    pub(super) fn note_not_again(&mut self, why: ReplayObstacle) {
        self.replay.unfit(why);
    }

    /// The server says that a transaction is committed.
    pub(super) fn note_committed(&mut self) {
        match (self.replay.stage, &mut self.replay.record) {
            (Stage::Runs { .. }, Some(record)) => record.form = Form::Loose,
            _ => self.replay.unfit(ReplayObstacle::SeveralTransactions),
        }
    }

    /// The unit is answered to the end.
    pub(super) fn note_unit_end(&mut self, status: TransactionStatus) {
        if self.replay.stage != Stage::Off {
            self.replay.ended = Some(status);
        }
    }

    /// After a step: what the client is told beyond the first `mark` bytes is kept, compared with what it was told before,
    /// or of no concern to it.
    pub(super) fn heed_replay(
        &mut self,
        mark: usize,
        input: &[u8],
        to_client: &mut Gather,
    ) -> Heeded {
        let new = to_client.bytes().saturating_sub(mark);
        match self.replay.stage {
            Stage::Off => return Heeded::GoesOn,
            Stage::Records => {
                // What comes at no request is no part of an answer.
                if let Some(record) = &mut self.replay.record
                    && record.sent.len() > record.last_end()
                {
                    to_client.each_after(mark, input, |bytes| record.told.feed(bytes));
                }
            }
            Stage::Retreats | Stage::Differs => to_client.drop_after(mark, new),
            Stage::Runs { unit } => self.compare(unit, mark, input, to_client),
            Stage::Unfit(_) | Stage::Due | Stage::Owes | Stage::Broken => {}
        }
        match self.replay.ended.take() {
            Some(status) => self.unit_ended(status, to_client),
            None => Heeded::GoesOn,
        }
    }

    fn compare(&mut self, unit: u32, mark: usize, input: &[u8], to_client: &mut Gather) {
        let new = to_client.bytes().saturating_sub(mark);
        let Some(record) = &mut self.replay.record else { return };
        let is_last = record.is_in_flight(unit);
        let target = record.target_of(unit);
        let missing = target.map_or(0, |target| target.bytes - record.seen.bytes());
        let again = new.min(usize::try_from(missing).unwrap_or(usize::MAX));
        let mut left = again;
        let (seen, told) = (&mut record.seen, &mut record.told);
        to_client.each_after(mark, input, |bytes| {
            let (known, more) = bytes.split_at(left.min(bytes.len()));
            left -= known.len();
            seen.feed(known);
            if is_last {
                told.feed(more);
            }
        });
        let whole = target.is_none_or(|target| target.bytes == record.seen.bytes());
        let same = !whole || again == 0 || target == Some(record.seen.mark());
        let more = new > again;
        to_client.drop_after(mark, if more && is_last && same { again } else { new });
        if !same || more && !is_last {
            self.found_different();
        } else if more && record.after == After::Cut {
            // What was cut is being completed.
            record.after = After::GoesOn;
        }
    }

    fn found_different(&mut self) {
        self.replay.stage = Stage::Differs;
        let differed = &mut self.tally.replays.differed;
        *differed = differed.saturating_add(1);
    }

    fn unit_ended(&mut self, status: TransactionStatus, to_client: &mut Gather) -> Heeded {
        match self.replay.stage {
            Stage::Runs { unit } => self.unit_came_back(unit, status),
            Stage::Records => self.unit_kept(status),
            Stage::Unfit(_) if status == TransactionStatus::Idle => self.end_record(),
            _ => {}
        }
        match self.replay.stage {
            Stage::Differs => self.tell_difference(to_client),
            _ => Heeded::GoesOn,
        }
    }

    fn unit_kept(&mut self, status: TransactionStatus) {
        if status == TransactionStatus::Idle {
            return self.end_record();
        }
        let kept = match &mut self.replay.record {
            // It has ended one transaction and begun another.
            _ if self.commits.is_some() => Err(ReplayObstacle::SeveralTransactions),
            Some(record) => record.end_unit(),
            None => return,
        };
        if let Err(why) = kept {
            self.replay.unfit(why);
        }
    }

    /// A unit has been run again to its end.
    fn unit_came_back(&mut self, unit: u32, status: TransactionStatus) {
        let Some(record) = &mut self.replay.record else { return };
        if record.target_of(unit).is_some_and(|target| target.bytes != record.seen.bytes()) {
            return self.found_different();
        }
        record.seen.reset();
        let in_flight = record.is_in_flight(unit);
        let is_last = in_flight || record.is_in_flight(unit + 1) && record.client == Client::Rests;
        if !is_last {
            self.replay.stage = Stage::Runs { unit: unit + 1 };
            return;
        }
        (record.known, record.client, record.after) = (None, Client::Rests, After::GoesOn);
        self.replay.stage = Stage::Records;
        let succeeded = &mut self.tally.replays.succeeded;
        *succeeded = succeeded.saturating_add(1);
        if in_flight {
            self.unit_kept(status);
        }
    }

    /// Nothing is kept any more.
    pub(super) fn end_record(&mut self) {
        self.names.unwatch();
        self.replay.forget();
    }
}
