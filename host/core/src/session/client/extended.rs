//! The extended protocol: Parse, Bind, Describe, Execute, Close, Sync.

use super::processes::StandIn;
use super::statements::{SCRATCH_NAME, insert_on_server, reaches_our_names, send_parse};
use super::{
    Frame, NAMES_BYTES_MAX, NO_SUCH_TEXT, arrived_body, discard, pass, refused_setting, wait_for,
    whole_body,
};
use crate::limits;
use crate::plan::Plan;
use crate::refusal::Refusal;
use crate::session::expected::{Answer, Copying, Expected, Signalling};
use crate::session::prepared::{Prepared, SERVER_NAME_PREFIX};
use crate::session::state::Unnamed;
use crate::session::{Batch, ClientNext, Held, Hold, Io, Rest, Session};
use crate::statement::{Effects, Kind};
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend::{self, Named, tag};

impl Session {
    pub(super) fn parse(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Frame {
        if header.body_bytes as usize > limits::STATEMENT_BYTES_MAX {
            let refusal = Refusal::fatal("54000", "statement is too long to be prepared")
                .detail(format!("At most {} bytes are kept for it.", limits::STATEMENT_BYTES_MAX))
                .hint("Send long texts by the simple protocol, or long values as parameters.");
            return Frame::Wait(self.give_up(&refusal, io));
        }
        let Some(body) = whole_body(header, input, at) else { return wait_for(header) };
        let Ok(parse) = frontend::read_parse(body) else { return self.malformed("Parse", io) };
        if io.server.is_none() {
            return self.lease(input, at, io.router);
        }
        if !parse.name.is_empty() && self.is_uncertain(parse.name, io) {
            return Frame::Wait(ClientNext::Replies);
        }
        let mut prepared = self.intern(parse.sql, parse.types, io.interner);
        let instead: Option<Cow<'_, [u8]>> = match reaches_our_names(&prepared.analysis) {
            true => Some(NO_SUCH_TEXT.into()),
            false => self.numbered(parse.sql, &prepared.analysis).map(Cow::from),
        };
        if let Some(text) = &instead {
            prepared = self.intern(text, parse.types, io.interner);
        }
        if self.drops_uncertain(&prepared, io) {
            return Frame::Wait(ClientNext::Replies);
        }
        if let Some(refusal) = refused_setting(&prepared.analysis) {
            self.send_own(io.to_server, SCRATCH_NAME, parse.sql, parse.types);
            return self.refuse_in_batch(refusal, header, io);
        }
        // It is a Query, and what is laid open begins the batch.
        self.forget_sequences(&prepared.analysis, io);
        if let Some(wait) = self.lay_open(&prepared.analysis, io) {
            return wait;
        }
        self.batch = Batch::Open;
        if parse.name.is_empty() {
            self.replace_unnamed(&prepared, io);
            if instead.is_none() {
                return pass(self, header);
            }
            send_parse(io.to_server, b"", &prepared);
            return Frame::Done;
        }
        if self.names.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            let refusal =
                Refusal::error("42P05", format!("prepared statement \"{name}\" already exists"));
            // The server looks at the text first, so an error in that is what the client is told.
            self.send_own(io.to_server, SCRATCH_NAME, parse.sql, parse.types);
            return self.refuse_in_batch(refusal, header, io);
        }
        self.ask_for_name(parse.name, &prepared, io.to_server);
        if self.names.len() >= limits::PREPARED_PER_CLIENT_MAX {
            let refusal = Refusal::error("54000", "too many prepared statements")
                .detail(format!("One connection may hold {}.", limits::PREPARED_PER_CLIENT_MAX))
                .hint("Close statements that are no longer needed, or keep fewer in the driver's cache.");
            return self.refuse_in_batch(refusal, header, io);
        }
        self.name_statement(parse.name.into(), prepared, io)
    }

    /// The client's unnamed statement is another from this Parse on.
    fn replace_unnamed(&mut self, prepared: &Arc<Prepared>, io: &mut Io<'_>) {
        let before = self.unnamed.replace(prepared.clone());
        self.unnamed_in = self.batches.now;
        self.expected.push(Expected::ParseUnnamed { before });
        if let Some(server) = io.server.as_deref_mut() {
            server.set_unnamed(Unnamed::Known(prepared.clone()), self.batches.now);
        }
    }

    /// The client has a statement of that name now; the server is brought to know it too.
    fn name_statement(
        &mut self,
        name: Box<[u8]>,
        prepared: Arc<Prepared>,
        io: &mut Io<'_>,
    ) -> Frame {
        let Some(server) = io.server.as_deref_mut() else {
            return Frame::Wait(ClientNext::Lease(Plan::default()));
        };
        let held = Held { prepared: prepared.clone(), since: self.batches.now };
        self.names.insert(name.clone(), held);
        if server.prepared.touch(&prepared, server.lease_mark).is_some() {
            let leaves_transaction =
                matches!(prepared.analysis.kind, Kind::Commit | Kind::Rollback);
            let alive = self.status != TransactionStatus::Failed || leaves_transaction;
            if alive && !self.expected.status_may_change() {
                self.answer(Answer::Parsed { name }, io);
                return Frame::Done;
            }
            // Only the server knows whether a Parse would succeed: it parses once more.
        }
        let batch = self.batches.now;
        let on_server =
            insert_on_server(server, &prepared, batch, io.to_server, &mut self.expected);
        send_parse(io.to_server, &on_server.to_bytes(), &prepared);
        self.expected.push(Expected::Parse { name, prepared, on_server });
        Frame::Done
    }

    pub(super) fn bind(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Frame {
        let arrived = arrived_body(header, input, at);
        let Some(names) = frontend::read_bind_names(arrived) else {
            if arrived.len() == header.body_bytes as usize {
                return self.malformed("Bind", io);
            }
            if arrived.len() > NAMES_BYTES_MAX {
                return self.names_too_long(io);
            }
            return Frame::Wait(ClientNext::Read { bytes: HEADER_BYTES + arrived.len() + 1 });
        };
        if io.server.is_none() {
            return self.lease(input, at, io.router);
        }
        if self.is_uncertain(names.statement, io) {
            return Frame::Wait(ClientNext::Replies);
        }
        let (prepared, signal) =
            match self.statement_to_bind(names.statement, header, input, at, io) {
                Ok(found) => found,
                Err(frame) => return frame,
            };
        if let Some(prepared) = &prepared {
            self.forget_sequences(&prepared.analysis, io);
            if let Some(wait) = self.lay_open(&prepared.analysis, io) {
                return wait;
            }
            self.note_access(&prepared.sql, &prepared.analysis, io.router);
        }
        self.batch = Batch::Open;
        (self.admitted, self.bound) = (None, Some(()));
        let deallocated = match &prepared {
            Some(prepared) => {
                self.tell_bound(&prepared.sql, io.router);
                self.note_bound(&prepared.analysis);
                self.take_deallocated(&prepared.analysis)
            }
            None => {
                self.note_bound_unknown(names.statement, io.router);
                None
            }
        };
        let renamed = match &prepared {
            Some(prepared) if deallocated.is_some() => {
                Some(self.send_deallocate(&prepared.types, io.to_server))
            }
            _ => self.statement_on_server(names.statement, prepared.as_ref(), io),
        };
        self.expected.push(Expected::Bind { deallocated, signal });
        let Some(name) = renamed else { return pass(self, header) };
        let tail_bytes = header.body_bytes as usize - names.names_bytes;
        io.to_server.send(|out| {
            let length = 4 + names.portal.len() + 1 + name.len() + 1 + tail_bytes;
            out.push(tag::BIND);
            out.extend_from_slice(&(length as u32).to_be_bytes());
            out.extend_from_slice(names.portal);
            out.push(0);
            out.extend_from_slice(&name);
            out.push(0);
        });
        self.client_rest = (tail_bytes, Rest::Forward);
        Frame::Head(HEADER_BYTES + names.names_bytes)
    }

    /// The statement that a Bind names, or what stands in for it. `Err`: what becomes of the Bind instead.
    fn statement_to_bind(
        &mut self,
        name: &[u8],
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Result<(Option<Arc<Prepared>>, Signalling), Frame> {
        let Some(prepared) = self.statement_named(name, io) else { return Ok((None, None)) };
        if self.drops_uncertain(&prepared, io) {
            return Err(Frame::Wait(ClientNext::Replies));
        }
        let (text, signal) = match self.bound_stand_in(&prepared, (header, input, at), io)? {
            None => return Ok((Some(prepared), None)),
            Some(StandIn::Text(text)) => (text, None),
            Some(StandIn::Signal(text, signal)) => (text, signal),
            Some(StandIn::Refused(refusal)) => {
                return Err(self.refuse_in_batch(refusal, header, io));
            }
        };
        Ok((Some(self.intern(&text, &prepared.types, io.interner)), signal))
    }

    pub(super) fn describe(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Frame {
        let Some(body) = whole_body(header, input, at) else {
            return self.wait_for_names(header, io);
        };
        let Ok(named) = frontend::read_named(body) else { return self.malformed("Describe", io) };
        if io.server.is_none() {
            return self.lease(input, at, io.router);
        }
        if let Named::Statement(name) = named
            && self.is_uncertain(name, io)
        {
            return Frame::Wait(ClientNext::Replies);
        }
        self.batch = Batch::Open;
        let renamed = match named {
            Named::Portal(_) => None,
            Named::Statement(name) => {
                let prepared = self.statement_named(name, io);
                self.statement_on_server(name, prepared.as_ref(), io)
            }
        };
        self.expected.push(Expected::Describe);
        let Some(name) = renamed else { return pass(self, header) };
        io.to_server.send(|out| frontend::describe(out, Named::Statement(&name)));
        Frame::Done
    }

    pub(super) fn execute(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Frame {
        let drops = self.drops_statements.is_some();
        if drops && whole_body(header, input, at).is_none() {
            return self.wait_for_names(header, io);
        }
        if io.server.is_none() {
            return self.lease(input, at, io.router);
        }
        self.batch = Batch::Open;
        self.begin_running(io);
        self.tally.statements += 1;
        self.tell_execute(io.router);
        self.expected.push(Expected::Execute);
        if !drops {
            return pass(self, header);
        }
        // What follows must not rely on statements that are being dropped: learn the outcome first.
        self.hold = Hold::Statements;
        io.to_server.forward(at, at + header.frame_bytes());
        io.to_server.send(frontend::flush);
        Frame::Done
    }

    pub(super) fn close(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Frame {
        let Some(body) = whole_body(header, input, at) else {
            return self.wait_for_names(header, io);
        };
        let undo = match frontend::read_named(body) {
            Ok(Named::Statement(name)) if self.is_uncertain(name, io) => {
                return Frame::Wait(ClientNext::Replies);
            }
            Err(_) => return self.malformed("Close", io),
            Ok(Named::Portal(_)) if io.server.is_some() => {
                self.batch = Batch::Open;
                self.expected.push(Expected::Close);
                return pass(self, header);
            }
            Ok(Named::Portal(_)) => None,
            Ok(Named::Statement(b"")) => {
                self.unnamed_in = self.batches.now;
                self.unnamed.take().map(|unnamed| Box::new((Box::default(), unnamed)))
            }
            Ok(Named::Statement(name)) => match self.names.remove_entry(name) {
                // Perhaps one that SQL's PREPARE made on the server that this client is pinned to.
                None if io.server.is_some() && !name.starts_with(SERVER_NAME_PREFIX) => {
                    self.touch(Effects::DEALLOCATES);
                    self.batch = Batch::Open;
                    self.expected.push(Expected::Close);
                    return pass(self, header);
                }
                entry => entry.map(|(name, held)| {
                    self.removed_in = self.batches.now;
                    Box::new((name, held.prepared))
                }),
            },
        };
        self.answer(Answer::Closed { undo }, io);
        Frame::Done
    }

    pub(super) fn sync(&mut self, header: Header, io: &mut Io<'_>) -> Frame {
        self.batch = Batch::Closed;
        (self.admitted, self.bound) = (None, None);
        if let Copying::In { syncs } = &mut self.copying {
            *syncs = syncs.saturating_add(1);
            return discard(self, header);
        }
        if io.server.is_none() {
            self.answer(Answer::Ready, io);
            return discard(self, header);
        }
        if self.restores_settings() {
            self.hold = Hold::All;
        }
        self.push_end(Expected::Sync);
        pass(self, header)
    }
}
