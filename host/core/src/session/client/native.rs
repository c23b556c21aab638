//! Names that SQL and the protocol share: `EXECUTE name` finds what Parse has made, and Parse what `PREPARE` has made.
//!
//! Elsewhere a client's names stand for names of ours on whichever server it has. A text can only name what is on the
//! server, so a client whose texts name its statements gets them there under its own names. Then it is the server that
//! knows them, and the probe keeps the client there, as after `PREPARE`.

use super::Frame;
use super::statements::{deallocated_name, send_parse};
use crate::plan::{Ran, Router};
use crate::session::expected::{Expected, Own};
use crate::session::gather::Gather;
use crate::session::pins::Pins;
use crate::session::prepared::{Prepared, SERVER_NAME_PREFIX};
use crate::session::{Batch, ClientNext, Hold, Io, ReplayObstacle, Session, SettingsNow};
use crate::statement::{Analysis, Effects, PreparedTouched};
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::frontend::{self, Named};

impl Session {
    /// Before a text goes to the server that names statements which only we know: makes them there. `Some`: wait.
    pub(super) fn lay_open(&mut self, analysis: &Analysis, io: &mut Io<'_>) -> Option<Frame> {
        named_by(analysis).next()?;
        // In an open batch, a COMMIT before may have ended it; if not, our Parse fails as the client's would.
        let failed = self.status == TransactionStatus::Failed && self.batch == Batch::Closed;
        // A batch that may yet fail may have moved one; and a transaction that has failed may be over.
        if named_by(analysis).any(|name| self.is_uncertain(name.as_bytes(), io))
            || failed && self.expected.status_may_change()
        {
            return Some(Frame::Wait(ClientNext::Replies));
        }
        if !failed {
            named_by(analysis).for_each(|name| self.move_to_server(name.as_bytes(), io));
        }
        None
    }

    /// The same before a Query, which does not end a batch that has failed: so this must be a batch of its own.
    pub(super) fn lay_open_for_query(
        &mut self,
        analysis: &Analysis,
        io: &mut Io<'_>,
    ) -> Option<Frame> {
        // In the middle of a batch, a Parse of ours that fails would make the server skip the Query and its ReadyForQuery.
        if named_by(analysis).next().is_none() || self.batch != Batch::Closed {
            return None;
        }
        if !self.expected.is_empty() {
            return Some(Frame::Wait(ClientNext::Replies));
        }
        if let Some(wait) = self.lay_open(analysis, io) {
            return Some(wait);
        }
        if self.expected.is_empty() {
            return None;
        }
        io.to_server.send(frontend::sync);
        self.expected.push(Expected::Own(Own::LayOpen));
        self.hold = Hold::All;
        Some(Frame::Wait(ClientNext::Replies))
    }

    /// From here on the server knows the statement by the client's name for it, and we do not.
    fn move_to_server(&mut self, name: &[u8], io: &mut Io<'_>) {
        let held = self.names.get(name);
        let can_move = held.is_some_and(|held| held.prepared.analysis.is_one_preparable());
        // No text reaches a name that looks like one of ours.
        if !can_move || name.starts_with(SERVER_NAME_PREFIX) {
            return;
        }
        let Some((name, held)) = self.names.remove_entry(name) else { return };
        self.removed_in = self.batches.now;
        send_parse(io.to_server, &name, &held.prepared);
        self.note_effects(&held.prepared.analysis);
        self.touch(Effects::PREPARES);
        self.expected.push(Expected::LaidOpen { undo: Some(Box::new((name, held.prepared))) });
    }

    /// Before a name is given to a statement: if the server may know one of that name, which SQL's PREPARE has made, it
    /// is told to make one more. So it says that the name is taken; and if it is not, that one is dropped again.
    pub(super) fn ask_for_name(
        &mut self,
        name: &[u8],
        prepared: &Prepared,
        to_server: &mut Gather,
    ) {
        let prepares = || {
            let touched = [&self.touched, &self.probing];
            touched.into_iter().flatten().any(|touched| touched.prepares())
        };
        let may_be_there = self.pins.contains(Pins::SQL_PREPARED) || prepares();
        if may_be_there && !name.starts_with(SERVER_NAME_PREFIX) {
            send_parse(to_server, name, prepared);
            to_server.send(|out| frontend::close(out, Named::Statement(name)));
            self.expected.push(Expected::OwnParse { made: None });
            self.expected.push(Expected::OwnClose { closed: None });
        }
    }

    /// A statement is bound that only the server knows: it may do what SQL's EXECUTE may.
    pub(super) fn note_bound_unknown(&mut self, name: &[u8], router: &mut dyn Router) {
        if !name.is_empty() {
            if router.watches() {
                router.watch(Ran::BoundUnknown);
            }
            (self.wrote, self.acknowledged.may_write) = (Some(()), Some(()));
            self.note_not_again(ReplayObstacle::SessionState);
            self.settings_now = SettingsNow::InDoubt;
            self.touch(Effects::EXECUTES.with(Effects::UNKNOWN_SETTINGS));
        }
    }
}

/// The statements that the text names, but for the one that it does nothing but deallocate.
fn named_by(analysis: &Analysis) -> impl Iterator<Item = &str> {
    let alone = deallocated_name(analysis);
    analysis.prepared.iter().filter_map(move |touched| match touched {
        PreparedTouched::Prepare(name) | PreparedTouched::Execute(name) => Some(name.as_str()),
        PreparedTouched::Deallocate(name) if alone.is_none() => Some(name),
        PreparedTouched::Deallocate(_) | PreparedTouched::DeallocateAll => None,
    })
}
