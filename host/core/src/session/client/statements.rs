//! A client's prepared statements on whichever server it has: found, brought along, renamed, dropped.

use super::{Frame, discard};
use crate::refusal::Refusal;
use crate::session::expected::{Answer, Expected, Queue, Undo};
use crate::session::gather::Gather;
use crate::session::prepared::{Interner, Prepared, SERVER_NAME_PREFIX, ServerName};
use crate::session::state::Unnamed;
use crate::session::{Batch, Io, ServerState, Session, SettingsNow};
use crate::statement::{Analysis, Effects, Kind, PreparedTouched};
use std::sync::Arc;
use tidegate_wire::frame::Header;
use tidegate_wire::frontend::{self, Named};

/// A name on the server for a statement that is only made to be dropped.
const SCRATCH_NAME: &[u8] = b"tidegate_scratch";

/// What `DEALLOCATE name` is turned into, for a name that only we know; the statement is made before each use.
const DEALLOCATE_TEXT: &[u8] = b"DEALLOCATE tidegate_scratch";

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
            self.send_parse(io.to_server, &name.to_bytes(), prepared);
            self.tally.reprepared += 1;
            self.expected.push(Expected::OwnParse { made: Some((prepared.clone(), Some(name))) });
            return Some(name.to_bytes());
        }
        match (prepared, &server.unnamed) {
            (Some(wanted), Unnamed::Known(there)) if Arc::ptr_eq(wanted, there) => {}
            (Some(wanted), _) => {
                self.send_parse(io.to_server, b"", wanted);
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
        let Some(held) = self.named.get(name) else {
            return batches.is_uncertain(self.removed_in) && self.expected.closes(name);
        };
        let found = io
            .server
            .as_deref_mut()
            .and_then(|server| server.prepared.touch(&held.prepared, server.lease_mark));
        batches.is_uncertain(held.since)
            || found.and_then(|found| found.batch).is_some_and(|b| batches.is_uncertain(b))
    }

    /// Does the text drop a name of which it is not yet known whether the client has it?
    pub(super) fn deallocates_uncertain(&mut self, analysis: &Analysis, io: &mut Io<'_>) -> bool {
        deallocated_name(analysis).is_some_and(|name| self.is_uncertain(name.as_bytes(), io))
    }

    /// Notes what ends with ReadyForQuery.
    pub(in crate::session) fn push_end(&mut self, note: Expected) {
        self.expected.push(note);
        self.batches.sent();
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
            _ => self.named.get(name)?.prepared.clone(),
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
        match self.named.get_mut(name) {
            Some(held) => held.prepared = again.clone(),
            None => self.unnamed = Some(again.clone()),
        }
        Some(again)
    }

    pub(super) fn send_parse(&self, to_server: &mut Gather, name: &[u8], prepared: &Prepared) {
        let sql = self.text_on_server(prepared).unwrap_or(&prepared.sql);
        to_server.send(|out| frontend::parse(out, name, sql, &prepared.types));
    }

    /// What stands for the statement's text on a server: DEALLOCATE of a name that only we know drops another.
    pub(super) fn text_on_server(&self, prepared: &Prepared) -> Option<&'static [u8]> {
        let name = deallocated_name(&prepared.analysis)?;
        self.named.contains_key(name.as_bytes()).then_some(DEALLOCATE_TEXT)
    }

    /// A statement is bound, so it counts as executed. Makes what its DEALLOCATE drops.
    pub(super) fn note_bound(&mut self, analysis: &Analysis, io: &mut Io<'_>) -> Undo {
        self.note_effects(analysis);
        if drops_all_statements(analysis) {
            self.drops_statements = Some(());
        }
        deallocated_name(analysis)?;
        let Some(undo) = self.take_deallocated(analysis) else {
            // It was there when the text was parsed; now the server has to find nothing.
            io.to_server.send(|out| frontend::close(out, Named::Statement(SCRATCH_NAME)));
            self.expected.push(Expected::OwnClose { closed: None });
            return None;
        };
        self.send_scratch(io.to_server, b"select", &[0, 0]);
        Some(undo)
    }

    /// Makes a statement that nobody uses.
    pub(super) fn send_scratch(&mut self, to_server: &mut Gather, sql: &[u8], types: &[u8]) {
        to_server.send(|out| {
            frontend::close(out, Named::Statement(SCRATCH_NAME));
            frontend::parse(out, SCRATCH_NAME, sql, types);
        });
        self.expected.push(Expected::OwnClose { closed: None });
        self.expected.push(Expected::OwnParse { made: None });
    }

    /// Takes from the client the prepared statement that the text drops, if it is one that only we know.
    pub(super) fn take_deallocated(&mut self, analysis: &Analysis) -> Undo {
        let (name, held) = self.named.remove_entry(deallocated_name(analysis)?.as_bytes())?;
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
