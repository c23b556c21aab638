//! A client's prepared statements on whichever server it has: found, brought along, renamed, dropped.

use super::{Frame, discard};
use crate::refusal::Refusal;
use crate::session::expected::{Answer, Expected, Own, Queue, Undo};
use crate::session::gather::Gather;
use crate::session::prepared::{Interner, Prepared, SERVER_NAME_PREFIX, ServerName};
use crate::session::state::{Sequences, Unnamed};
use crate::session::{Batch, Io, ReplayObstacle, ServerState, Session, SettingsNow};
use crate::statement::{Analysis, Effects, Kind, PreparedTouched};
use std::sync::Arc;
use tidegate_wire::frame::Header;
use tidegate_wire::frontend::{self, Named};

/// A name on the server for a statement that is only made to be dropped.
pub(super) const SCRATCH_NAME: &[u8] = b"tidegate_scratch";
/// The statement that drops it. It is bound in place of `DEALLOCATE name`, for a name that only we know.
pub(super) const DEALLOCATE_NAME: &[u8] = b"tidegate_deallocate";
pub(super) const DEALLOCATE_TEXT: &[u8] = b"DEALLOCATE tidegate_scratch";

impl Session {
    /// Brings the statement to the server if need be and gives its name there; `None` when the client's own name
    /// stands (the unnamed statement, or one that only the server can know).
    pub(super) fn statement_on_server(
        &mut self,
        client_name: &[u8],
        prepared: Option<&Arc<Prepared>>,
        io: &mut Io<'_>,
    ) -> Option<Vec<u8>> {
        let server = io.server.as_deref_mut()?;
        if !client_name.is_empty() {
            let Some(prepared) = prepared else {
                // A name with our prefix would reach another client's statement.
                return client_name
                    .starts_with(SERVER_NAME_PREFIX)
                    .then(|| b"tidegate: no such statement".to_vec());
            };
            if let Some(found) = server.prepared.touch(prepared, server.lease_mark) {
                return Some(found.name.to_bytes());
            }
            let batch = self.batches.now;
            let name = insert_on_server(server, prepared, batch, io.to_server, &mut self.expected);
            send_parse(io.to_server, &name.to_bytes(), prepared);
            self.tally.reprepared += 1;
            self.expected.push(Expected::OwnParse { made: Some((prepared.clone(), Some(name))) });
            return Some(name.to_bytes());
        }
        match (prepared, &server.unnamed) {
            (Some(wanted), Unnamed::Known(there)) if Arc::ptr_eq(wanted, there) => {}
            (Some(wanted), _) => {
                send_parse(io.to_server, b"", wanted);
                self.expected.push(Expected::OwnParse { made: Some((wanted.clone(), None)) });
                server.set_unnamed(Unnamed::Known(wanted.clone()), self.batches.now);
            }
            (None, Unnamed::Absent) => {}
            (None, _) => {
                // What is there is another client's; without it the server gives the right error.
                io.to_server.send(|out| frontend::close(out, Named::Statement(b"")));
                self.expected.push(Expected::OwnClose { closed: None });
                server.set_unnamed(Unnamed::Absent, self.batches.now);
            }
        }
        None
    }

    /// Has an earlier batch, which may yet fail, done something to this name, here or on the server?
    pub(super) fn is_uncertain(&mut self, name: &[u8], io: &mut Io<'_>) -> bool {
        let batches = self.batches;
        if name.is_empty() {
            return batches.is_uncertain(self.unnamed_in)
                || io.server.as_ref().is_some_and(|s| batches.is_uncertain(s.unnamed_batch));
        }
        let Some(held) = self.names.get(name) else {
            return batches.is_uncertain(self.removed_in) && self.expected.closes(name);
        };
        let found = io
            .server
            .as_deref_mut()
            .and_then(|server| server.prepared.touch(&held.prepared, server.lease_mark));
        batches.is_uncertain(held.since)
            || found.and_then(|found| found.batch).is_some_and(|b| batches.is_uncertain(b))
    }

    /// Does the statement drop one of which that is uncertain?
    pub(super) fn drops_uncertain(&mut self, prepared: &Prepared, io: &mut Io<'_>) -> bool {
        deallocated_name(&prepared.analysis)
            .is_some_and(|name| self.is_uncertain(name.as_bytes(), io))
    }

    /// Notes what ends with ReadyForQuery.
    pub(in crate::session) fn push_end(&mut self, note: Expected) {
        self.expected.push(note);
        self.batches.sent();
        self.hold_for_listening();
    }

    /// The statement for a text that is parsed now.
    pub(super) fn intern(
        &self,
        sql: &[u8],
        types: &[u8],
        interner: &mut Interner,
    ) -> Arc<Prepared> {
        match (self.string_syntax(sql), self.settings_now) {
            // Inside a transaction that changes the schema, names mean what nobody else sees.
            (Some(strings), SettingsNow::Known) if self.changes_schema.is_none() => {
                interner.intern(sql, types, &self.settings, strings)
            }
            (strings, _) => Prepared::private(sql, types, &self.settings, strings),
        }
    }

    /// Before a statement that reads what `nextval` left: forgets what it left for another client. Only as the first of
    /// a lease, since later this client's own values are there as well.
    pub(super) fn forget_sequences(&mut self, analysis: &Analysis, io: &mut Io<'_>) {
        let Some(server) = io.server.as_deref_mut() else { return };
        let reads = analysis.effects.contains(Effects::SEQUENCE_STATE);
        if reads && server.sequences == Sequences::Foreign && self.batch == Batch::Closed {
            server.sequences = Sequences::Own;
            self.ask(Own::Sequences, "DISCARD SEQUENCES", server, io.to_server);
        }
    }

    /// A statement of this client's runs, and may leave values of its own.
    pub(super) fn begin_running(&mut self, io: &mut Io<'_>) {
        if let Some(server) = io.server.as_deref_mut() {
            server.sequences = Sequences::Own;
        }
    }

    /// Answers in place of the server, when the turn comes.
    pub(super) fn answer(&mut self, answer: Answer, io: &mut Io<'_>) {
        self.expected.push(Expected::Answer(answer));
        self.give_due_answers(io.to_client);
    }

    /// Fails the batch with our error. A message that cannot succeed goes to the server in place of the refused one,
    /// so that its transaction fails exactly as the client is told.
    pub(super) fn refuse_in_batch(
        &mut self,
        refusal: Refusal,
        header: Header,
        io: &mut Io<'_>,
    ) -> Frame {
        self.note_not_again(ReplayObstacle::Refused);
        io.to_server.send(|out| frontend::describe(out, Named::Statement(b"tidegate: refused")));
        io.to_server.send(frontend::flush);
        self.expected.push(Expected::Refused(Box::new(refusal)));
        self.batch = Batch::SkipToSync;
        discard(self, header)
    }

    /// The client's statement of that name, as it is to be known to the server that it has now.
    pub(super) fn statement_named(
        &mut self,
        name: &[u8],
        io: &mut Io<'_>,
    ) -> Option<Arc<Prepared>> {
        let prepared = match name {
            b"" => self.unnamed.clone()?,
            _ => self.names.get(name)?.prepared.clone(),
        };
        let server = io.server.as_deref_mut()?;
        let there = match (name, &server.unnamed) {
            (b"", Unnamed::Known(there)) => Arc::ptr_eq(there, &prepared),
            (b"", _) => false,
            _ => server.prepared.touch(&prepared, server.lease_mark).is_some(),
        };
        let known = self.settings_now == SettingsNow::Known;
        if there || (known && prepared.fits(&self.settings)) {
            return Some(prepared);
        }
        // It will be parsed under other settings than it was, so nobody else may take it for what it was.
        let again = self.intern(&prepared.sql, &prepared.types, io.interner);
        match self.names.get_mut(name) {
            Some(held) => held.prepared = again.clone(),
            None => self.unnamed = Some(again.clone()),
        }
        Some(again)
    }

    /// A statement is bound, so it counts as executed.
    pub(super) fn note_bound(&mut self, analysis: &Analysis) {
        self.note_effects(analysis);
        if drops_all_statements(analysis) {
            self.drops_statements = Some(());
        }
    }

    /// What stands for a DEALLOCATE of a name that only we know: a statement that drops one made for it.
    pub(super) fn send_deallocate(&mut self, types: &[u8], to_server: &mut Gather) -> Vec<u8> {
        self.send_own(to_server, SCRATCH_NAME, b"select", &[0, 0]);
        self.send_own(to_server, DEALLOCATE_NAME, DEALLOCATE_TEXT, types);
        DEALLOCATE_NAME.to_vec()
    }

    /// Makes a statement of our own, whatever had its name.
    pub(super) fn send_own(
        &mut self,
        to_server: &mut Gather,
        name: &[u8],
        sql: &[u8],
        types: &[u8],
    ) {
        to_server.send(|out| {
            frontend::close(out, Named::Statement(name));
            frontend::parse(out, name, sql, types);
        });
        self.expected.push(Expected::OwnClose { closed: None });
        self.expected.push(Expected::OwnParse { made: None });
    }

    /// Takes from the client the prepared statement that the text drops, if it is one that only we know.
    pub(super) fn take_deallocated(&mut self, analysis: &Analysis) -> Undo {
        let (name, held) = self.names.remove_entry(deallocated_name(analysis)?.as_bytes())?;
        self.removed_in = self.batches.now;
        Some(Box::new((name, held.prepared)))
    }
}

/// Gives the statement a name on the server, closing the one that makes room for it.
pub(super) fn insert_on_server(
    server: &mut ServerState,
    prepared: &Arc<Prepared>,
    batch: u32,
    to_server: &mut Gather,
    expected: &mut Queue,
) -> ServerName {
    let (name, before) = server.prepared.insert(prepared, batch);
    let mut close = |prepared: Arc<Prepared>, name: ServerName| {
        to_server.send(|out| frontend::close(out, Named::Statement(&name.to_bytes())));
        expected.push(Expected::OwnClose { closed: Some((prepared, name)) });
    };
    if let Some(before) = before {
        close(prepared.clone(), before);
    }
    while let Some((evicted, name)) = server.prepared.evict(server.lease_mark) {
        close(evicted, name);
    }
    name
}

pub(super) fn send_parse(to_server: &mut Gather, name: &[u8], prepared: &Prepared) {
    to_server.send(|out| frontend::parse(out, name, &prepared.sql, &prepared.types));
}

/// Does the text name one of the statements that we keep on servers? It may be another client's.
pub(super) fn reaches_our_names(analysis: &Analysis) -> bool {
    analysis.prepared.iter().any(|touched| match touched {
        PreparedTouched::Prepare(name)
        | PreparedTouched::Execute(name)
        | PreparedTouched::Deallocate(name) => name.as_bytes().starts_with(SERVER_NAME_PREFIX),
        PreparedTouched::DeallocateAll => false,
    })
}

/// Whether [`deallocated_name`] may find one. A text whose first word begins with another letter does something else.
pub(super) fn may_deallocate(sql: &[u8]) -> bool {
    let first = sql.iter().find(|byte| !byte.is_ascii_whitespace());
    first.is_some_and(|byte| !byte.is_ascii_alphabetic() || byte.eq_ignore_ascii_case(&b'd'))
}

/// The one name that the text deallocates, if that is all it does.
pub(super) fn deallocated_name(analysis: &Analysis) -> Option<&str> {
    match analysis.prepared.as_slice() {
        [PreparedTouched::Deallocate(name)]
            if analysis.kind == Kind::Deallocate && analysis.statements == 1 =>
        {
            Some(name)
        }
        _ => None,
    }
}

pub(super) fn drops_all_statements(analysis: &Analysis) -> bool {
    analysis.effects.contains(Effects::DISCARD_ALL)
        || analysis.prepared.contains(&PreparedTouched::DeallocateAll)
}
