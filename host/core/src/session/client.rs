//! What a client sends: each frame is forwarded, rewritten, answered, refused or held.

mod statements; // prepared statements on whichever server there is

use super::expected::{Answer, Copying, Expected};
use super::gather::Gather;
use super::prepared::SERVER_NAME_PREFIX;
use super::state::Unnamed;
use super::{Batch, ClientNext, ClientStep, CloseReason, Held, Hold, Io};
use super::{Rest, Session};
use crate::limits;
use crate::plan::{Advice, RoutePreference, SessionFacts, plan};
use crate::refusal::Refusal;
use crate::statement::{Analysis, Effects, Kind};
use statements::{
    SCRATCH_NAME, deallocated_name, drops_all_statements, insert_on_server, reaches_our_names,
    send_parse,
};
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend::{self, Named, tag};

/// What a text becomes that names one of our names on the server: it fails as if there were none.
const NO_SUCH_TEXT: &[u8] = b"DEALLOCATE \"tidegate: no such statement\"";
/// The same for a Query in the middle of an extended batch, which must end that batch.
const DEALLOCATE_QUERY: &[u8] = b"PREPARE tidegate_dropped AS SELECT;DEALLOCATE tidegate_dropped";
/// Statement and portal names longer than this are refused, in bytes.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// What became of one frame.
enum Frame {
    /// All of it is dealt with.
    Done,
    /// So many bytes of it are dealt with; what becomes of the others stands in `client_rest`.
    Head(usize),
    Wait(ClientNext),
}

impl Session {
    /// Takes what the client sent. Call again with the same input after `Lease` or `Replies`.
    pub fn handle_client(&mut self, input: &[u8], mut io: Io<'_>) -> ClientStep {
        let mut at = 0;
        loop {
            at += self.take_rest(input, at, &mut io);
            if self.client_rest.0 > 0 {
                return ClientStep { consumed: at, next: ClientNext::Read { bytes: 1 } };
            }
            let header = match Header::peek(&input[at..], limits::FRAME_BYTES_MAX) {
                Ok(Some(header)) => header,
                Ok(None) => {
                    return ClientStep {
                        consumed: at,
                        next: ClientNext::Read { bytes: HEADER_BYTES },
                    };
                }
                Err(bad) => {
                    let refusal =
                        Refusal::fatal("08P01", format!("invalid message length {}", bad.length));
                    return ClientStep { consumed: at, next: self.give_up(&refusal, &mut io) };
                }
            };
            if let Some(next) = self.must_wait(header, &mut io) {
                return ClientStep { consumed: at, next };
            }
            match self.handle_frame(header, input, at, &mut io) {
                Frame::Wait(next) => return ClientStep { consumed: at, next },
                Frame::Head(bytes) => at += bytes,
                Frame::Done => at += header.frame_bytes(),
            }
        }
    }

    /// Moves on with a frame whose head has been dealt with.
    fn take_rest(&mut self, input: &[u8], at: usize, io: &mut Io<'_>) -> usize {
        let (left, rest) = self.client_rest;
        let here = left.min(input.len() - at);
        if rest == Rest::Forward {
            io.to_server.forward(at, at + here);
        }
        self.client_rest.0 -= here;
        here
    }

    /// Bounds and barriers, before a frame is looked at.
    fn must_wait(&mut self, header: Header, io: &mut Io<'_>) -> Option<ClientNext> {
        if self.expected.is_empty() {
            self.hold = Hold::Nothing;
        }
        let waits = match self.hold {
            Hold::Nothing => false,
            // The server answers nothing before it has read on.
            _ if matches!(self.copying, Copying::In { .. }) => false,
            // A copy among what is held for waits for data, and for a Sync when it swallowed that of its batch.
            Hold::All => {
                let copies = self.expected.may_copy() && is_copy_data(header.tag);
                !(copies || self.batch == Batch::Open && is_copy_frame(header.tag))
            }
            Hold::Statements => !is_copy_frame(header.tag),
            Hold::Many => {
                let many = self.expected.len() > limits::OUTSTANDING_REPLIES_MAX / 2;
                if !many {
                    self.hold = Hold::Nothing;
                }
                many && header.tag != tag::TERMINATE
            }
        };
        if waits {
            return Some(ClientNext::Replies);
        }
        if self.expected.len() < limits::OUTSTANDING_REPLIES_MAX
            || self.copying != Copying::Nothing
            || header.tag == tag::TERMINATE
        {
            return None;
        }
        // A server may keep replies until it is told to flush; without this both would wait for ever.
        io.to_server.send(frontend::flush);
        self.hold = Hold::Many;
        Some(ClientNext::Replies)
    }

    fn handle_frame(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
        if self.batch == Batch::SkipToSync && !matches!(header.tag, tag::SYNC | tag::TERMINATE) {
            return discard(self, header);
        }
        if self.copying == Copying::Both && header.tag != tag::TERMINATE {
            return pass(self, header);
        }
        if matches!(self.copying, Copying::In { .. }) && !is_copy_frame(header.tag) {
            // PostgreSQL reads it, fails the copy with 08P01, and executes nothing of it.
            return pass(self, header);
        }
        match header.tag {
            tag::QUERY => self.query(header, input, at, io),
            tag::PARSE => self.parse(header, input, at, io),
            tag::BIND => self.bind(header, input, at, io),
            tag::DESCRIBE => self.describe(header, input, at, io),
            tag::EXECUTE => self.execute(header, input, at, io),
            tag::CLOSE => self.close(header, input, at, io),
            tag::SYNC => self.sync(header, io),
            tag::FLUSH if io.server.is_some() => pass(self, header),
            tag::FLUSH => discard(self, header),
            tag::FUNCTION_CALL => self.function_call(header, io),
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => self.copy_frame(header, io),
            tag::TERMINATE => Frame::Wait(self.terminate()),
            other => {
                let refusal =
                    Refusal::fatal("08P01", format!("invalid frontend message type {other}"));
                Frame::Wait(self.give_up(&refusal, io))
            }
        }
    }

    // --- the simple protocol -------------------------------------------------------------------------

    fn query(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
        let analysis = if header.body_bytes as usize > limits::STATEMENT_BYTES_MAX {
            Analysis::unknown()
        } else {
            let Some(body) = whole_body(header, input, at) else { return wait_for(header) };
            let Ok(sql) = frontend::read_query(body) else { return self.malformed("Query", io) };
            self.analyse(sql)
        };
        if let Some(name) = deallocated_name(&analysis).map(str::as_bytes) {
            if self.is_uncertain(name, io) || self.batches.is_uncertain(self.unnamed_in) {
                return Frame::Wait(ClientNext::Replies);
            }
            // With a server in hand it goes there in another form: a Query also ends portals and batches.
            if io.server.is_none()
                && let Some(undo) = self.take_deallocated(&analysis)
            {
                self.unnamed = None;
                self.answer(Answer::Deallocated { undo: Some(undo) }, io);
                return Frame::Done;
            }
        }
        if io.server.is_none() {
            return self.lease();
        }
        self.forget_sequences(&analysis, io);
        self.begin_running(io);
        let deallocated = self.take_deallocated(&analysis);
        self.note_effects(&analysis);
        if drops_all_statements(&analysis) {
            self.hold = Hold::Statements;
        }
        if self.restores_settings() {
            self.hold = Hold::All;
        }
        // A Query ends the implicit transaction of an extended batch before it.
        self.batch = Batch::Closed;
        let unnamed = self.unnamed.take();
        self.unnamed_in = self.batches.now;
        if let Some(server) = io.server.as_deref_mut() {
            server.set_unnamed(Unnamed::Absent, self.batches.now);
        }
        let replaced = deallocated.is_some();
        self.tally.statements += 1;
        self.push_end(Expected::Query { unnamed, deallocated });
        let text = match replaced {
            true => DEALLOCATE_QUERY,
            false if reaches_our_names(&analysis) => NO_SUCH_TEXT,
            false => return pass(self, header),
        };
        io.to_server.send(|out| frontend::query(out, text));
        Frame::Done
    }

    fn function_call(&mut self, header: Header, io: &mut Io<'_>) -> Frame {
        if io.server.is_none() {
            return self.lease();
        }
        // It may call any function, by number.
        self.touch(Effects::UNKNOWN_SETTINGS);
        self.tally.statements += 1;
        self.push_end(Expected::FunctionCall);
        pass(self, header)
    }

    // --- the extended protocol -----------------------------------------------------------------------

    fn parse(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
        if header.body_bytes as usize > limits::STATEMENT_BYTES_MAX {
            let refusal = Refusal::fatal("54000", "statement is too long to be prepared")
                .detail(format!("At most {} bytes are kept for it.", limits::STATEMENT_BYTES_MAX))
                .hint("Send long texts by the simple protocol, or long values as parameters.");
            return Frame::Wait(self.give_up(&refusal, io));
        }
        let Some(body) = whole_body(header, input, at) else { return wait_for(header) };
        let Ok(parse) = frontend::read_parse(body) else { return self.malformed("Parse", io) };
        if io.server.is_none() {
            return self.lease();
        }
        if !parse.name.is_empty() && self.is_uncertain(parse.name, io) {
            return Frame::Wait(ClientNext::Replies);
        }
        let mut prepared = self.intern(parse.sql, parse.types, io.interner);
        let replaced = reaches_our_names(&prepared.analysis);
        if replaced {
            prepared = self.intern(NO_SUCH_TEXT, parse.types, io.interner);
        }
        if self.drops_uncertain(&prepared, io) {
            return Frame::Wait(ClientNext::Replies);
        }
        self.forget_sequences(&prepared.analysis, io);
        let Some(server) = io.server.as_deref_mut() else { return self.lease() };
        self.batch = Batch::Open;
        if parse.name.is_empty() {
            let before = self.unnamed.replace(prepared.clone());
            self.unnamed_in = self.batches.now;
            self.expected.push(Expected::ParseUnnamed { before });
            server.set_unnamed(Unnamed::Known(prepared.clone()), self.batches.now);
            if !replaced {
                return pass(self, header);
            }
            send_parse(io.to_server, b"", &prepared);
            return Frame::Done;
        }
        if self.named.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            let refusal =
                Refusal::error("42P05", format!("prepared statement \"{name}\" already exists"));
            // The server looks at the text first, so an error in that is what the client is told.
            self.send_own(io.to_server, SCRATCH_NAME, parse.sql, parse.types);
            return self.refuse_in_batch(refusal, header, io);
        }
        if self.named.len() >= limits::PREPARED_PER_CLIENT_MAX {
            let refusal = Refusal::error("54000", "too many prepared statements")
                .detail(format!("One connection may hold {}.", limits::PREPARED_PER_CLIENT_MAX))
                .hint("Close statements that are no longer needed, or keep fewer in the driver's cache.");
            return self.refuse_in_batch(refusal, header, io);
        }
        let name: Box<[u8]> = parse.name.into();
        let held = Held { prepared: prepared.clone(), since: self.batches.now };
        self.named.insert(name.clone(), held);
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

    fn bind(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
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
            return self.lease();
        }
        if self.is_uncertain(names.statement, io) {
            return Frame::Wait(ClientNext::Replies);
        }
        let prepared = self.statement_named(names.statement, io);
        if let Some(prepared) = &prepared
            && self.drops_uncertain(prepared, io)
        {
            return Frame::Wait(ClientNext::Replies);
        }
        if let Some(prepared) = &prepared {
            self.forget_sequences(&prepared.analysis, io);
        }
        self.batch = Batch::Open;
        let deallocated = match &prepared {
            Some(prepared) => {
                self.note_bound(&prepared.analysis);
                self.take_deallocated(&prepared.analysis)
            }
            None => None,
        };
        let renamed = match &prepared {
            Some(prepared) if deallocated.is_some() => {
                Some(self.send_deallocate(&prepared.types, io.to_server))
            }
            _ => self.statement_on_server(names.statement, prepared.as_ref(), io),
        };
        self.expected.push(Expected::Bind { deallocated });
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

    fn describe(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
        let Some(body) = whole_body(header, input, at) else {
            return self.wait_for_names(header, io);
        };
        let Ok(named) = frontend::read_named(body) else { return self.malformed("Describe", io) };
        if io.server.is_none() {
            return self.lease();
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

    fn execute(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
        let drops = self.drops_statements.is_some();
        if drops && whole_body(header, input, at).is_none() {
            return self.wait_for_names(header, io);
        }
        if io.server.is_none() {
            return self.lease();
        }
        self.batch = Batch::Open;
        self.begin_running(io);
        self.tally.statements += 1;
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

    fn close(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
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
            Ok(Named::Statement(name)) => match self.named.remove_entry(name) {
                // Perhaps one that SQL's PREPARE made on the server that this client is pinned to.
                None if io.server.is_some() && !name.starts_with(SERVER_NAME_PREFIX) => {
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

    fn sync(&mut self, header: Header, io: &mut Io<'_>) -> Frame {
        self.batch = Batch::Closed;
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

    // --- COPY ----------------------------------------------------------------------------------------

    fn copy_frame(&mut self, header: Header, io: &mut Io<'_>) -> Frame {
        if let Copying::In { syncs } = &mut self.copying {
            *syncs = 0;
            if header.tag != tag::COPY_DATA {
                self.copying = Copying::Nothing;
            }
            return pass(self, header);
        }
        if io.server.is_none() || !self.expected.may_copy() {
            // Late data of a copy that has already failed; PostgreSQL drops it as well.
            return discard(self, header);
        }
        if header.tag != tag::COPY_DATA {
            self.expected.push(Expected::CopyEnd);
        }
        pass(self, header)
    }

    // --- what a frame comes to ----------------------------------------------------------------------

    fn lease(&self) -> Frame {
        let route = RoutePreference::from_setting(self.settings.get(RoutePreference::SETTING));
        Frame::Wait(ClientNext::Lease(plan(SessionFacts { route }, Advice::BuiltIn)))
    }

    /// Waits for the rest of a frame that has nothing but names.
    fn wait_for_names(&mut self, header: Header, io: &mut Io<'_>) -> Frame {
        if header.body_bytes as usize > NAMES_BYTES_MAX {
            return self.names_too_long(io);
        }
        wait_for(header)
    }

    fn names_too_long(&mut self, io: &mut Io<'_>) -> Frame {
        let refusal = Refusal::fatal("54000", "statement or portal name is too long")
            .detail(format!("At most {NAMES_BYTES_MAX} bytes are kept for it."));
        Frame::Wait(self.give_up(&refusal, io))
    }

    fn malformed(&mut self, what: &str, io: &mut Io<'_>) -> Frame {
        let refusal = Refusal::fatal("08P01", format!("invalid {what} message"));
        Frame::Wait(self.give_up(&refusal, io))
    }

    fn give_up(&mut self, refusal: &Refusal, io: &mut Io<'_>) -> ClientNext {
        io.to_client.send(|out| refusal.write(out));
        ClientNext::Close(CloseReason::ClientProtocol)
    }
}

/// Forwards the frame as it stands.
fn pass(session: &mut Session, header: Header) -> Frame {
    session.client_rest = (header.frame_bytes(), Rest::Forward);
    Frame::Head(0)
}

/// Forwards nothing of the frame.
fn discard(session: &mut Session, header: Header) -> Frame {
    session.client_rest = (header.frame_bytes(), Rest::Discard);
    Frame::Head(0)
}

/// Answers the frame at the start of `input`, for which no server could be had.
pub(super) fn refuse_frame(
    session: &mut Session,
    refusal: &Refusal,
    input: &[u8],
    to_client: &mut Gather,
) -> ClientStep {
    to_client.send(|out| refusal.write(out));
    if refusal.severity == crate::refusal::Severity::Fatal {
        return ClientStep { consumed: 0, next: ClientNext::Close(CloseReason::Refused) };
    }
    if let Ok(Some(header)) = Header::peek(input, limits::FRAME_BYTES_MAX) {
        session.client_rest = (header.frame_bytes(), Rest::Discard);
        if matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL) {
            to_client.send(|out| backend::ready_for_query(out, TransactionStatus::Idle));
        } else {
            session.batch = Batch::SkipToSync;
        }
    }
    ClientStep { consumed: 0, next: ClientNext::Read { bytes: 0 } }
}

fn is_copy_frame(tag: u8) -> bool {
    matches!(
        tag,
        tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::SYNC | tag::FLUSH | tag::TERMINATE
    )
}

fn is_copy_data(tag: u8) -> bool {
    matches!(tag, tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL)
}

fn arrived_body(header: Header, input: &[u8], at: usize) -> &[u8] {
    let start = at + HEADER_BYTES;
    &input[start..(start + header.body_bytes as usize).min(input.len())]
}

fn whole_body(header: Header, input: &[u8], at: usize) -> Option<&[u8]> {
    let body = arrived_body(header, input, at);
    (body.len() == header.body_bytes as usize).then_some(body)
}

fn wait_for(header: Header) -> Frame {
    Frame::Wait(ClientNext::Read { bytes: header.frame_bytes() })
}
