//! What a client sends: each frame is forwarded, rewritten, answered, refused or held.

mod admission; // limits
mod extended; // the extended protocol
mod native; // names that SQL and the protocol share
mod processes; // the number that a client takes for its server's
mod recalled; // answers that are kept
mod statements; // prepared statements on whichever server there is
mod unit; // where the next unit may run
mod watched; // who watches what runs

use super::expected::{Answer, Copying, Expected, Signalling, Undo};
use super::gather::Gather;
use super::state::Unnamed;
use super::{Batch, ClientNext, ClientStep, CloseReason, Fate, Hold, Io};
use super::{ReplayObstacle, Rest, Session};
use crate::limits;
use crate::plan::{Router, refuse_setting};
use crate::refusal::Refusal;
use crate::statement::{Analysis, Effects, TidegateCommand};
pub(super) use unit::Chosen;

use processes::StandIn;
use statements::{deallocated_name, drops_all_statements, may_deallocate, reaches_our_names};
use std::borrow::Cow;
use tidegate_wire::backend;
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend::{self, tag};

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
        let mark = io.to_client.bytes();
        self.begin_step();
        let step = match self.replay_next(input, &mut io) {
            Some(step) => step,
            None => {
                let step = self.take_frames(input, &mut io);
                self.keep_sent(&input[..step.consumed]);
                step
            }
        };
        if step.consumed > 0 && io.server.is_some() {
            self.note_running();
        }
        self.heed_told(io.to_client);
        // No unit ends here.
        let _ = self.heed_replay(mark, &[], io.to_client);
        step
    }

    pub(super) fn take_frames(&mut self, input: &[u8], io: &mut Io<'_>) -> ClientStep {
        let mut at = 0;
        loop {
            at += self.take_rest(input, at, io);
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
                    return ClientStep { consumed: at, next: self.give_up(&refusal, io) };
                }
            };
            if self.waits_for_unit(header, at, io) {
                return ClientStep { consumed: at, next: ClientNext::Replies };
            }
            if let Some(next) = self.must_wait(header, io) {
                return ClientStep { consumed: at, next };
            }
            match self.handle_frame(header, input, at, io) {
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
        if self.waits_for_listener() {
            return Some(ClientNext::Replies);
        }
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
        if let Some(refused) = self.admit(header, input, at, io) {
            return refused;
        }
        if let Some(answered) = self.recall(header, input, at, io) {
            return answered;
        }
        if let Some(leave) = self.leave_replica(header, input, at, io) {
            return leave;
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
            tag::FUNCTION_CALL => self.function_call(header, input, at, io),
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
        // It has been answered.
        if self.laid_open_in_vain.take().is_some() {
            (self.unnamed, self.admitted) = (None, None);
            return discard(self, header);
        }
        let is_long = header.body_bytes as usize > limits::STATEMENT_BYTES_MAX;
        let (sql, analysis) = if is_long {
            (&[][..], Analysis::unknown())
        } else {
            let Some(body) = whole_body(header, input, at) else { return wait_for(header) };
            let Ok(sql) = frontend::read_query(body) else { return self.malformed("Query", io) };
            // It is read again when there is a server. Only a DEALLOCATE may do without one.
            if io.server.is_none() && !may_deallocate(sql) {
                return self.lease(input, at, io.router);
            }
            (sql, self.analyse(sql))
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
            return self.lease(input, at, io.router);
        }
        if let Some(wait) = self.lay_open_for_query(&analysis, io) {
            return wait;
        }
        self.note_access(sql, &analysis, io.router);
        self.forget_sequences(&analysis, io);
        self.begin_running(io);
        let deallocated = self.take_deallocated(&analysis);
        let (text, refusal, signal) = self.text_to_send(sql, &analysis, &deallocated, io.router);
        match &refusal {
            None => self.note_effects(&analysis),
            Some(_) => self.note_not_again(ReplayObstacle::Refused),
        }
        self.hold_back(&analysis);
        // A Query ends the implicit transaction of an extended batch before it.
        self.batch = Batch::Closed;
        self.bound = None;
        let unnamed = self.unnamed.take();
        self.unnamed_in = self.batches.now;
        if let Some(server) = io.server.as_deref_mut() {
            server.set_unnamed(Unnamed::Absent, self.batches.now);
        }
        self.tally.statements += 1;
        self.tell_query((!is_long).then_some(sql), io.router);
        if let Some(refusal) = refusal {
            self.expected.push(Expected::Refused(Box::new(refusal)));
        }
        self.push_end(Expected::Query { unnamed, deallocated, signal });
        let Some(text) = text else { return pass(self, header) };
        io.to_server.send(|out| frontend::query(out, &text));
        // A long one has not arrived as a whole.
        discard(self, header)
    }

    /// What is sent in place of a Query's text, if anything is; why it fails then; and whom it signals.
    fn text_to_send(
        &mut self,
        sql: &[u8],
        analysis: &Analysis,
        deallocated: &Undo,
        router: &dyn Router,
    ) -> (Option<Cow<'static, [u8]>>, Option<Refusal>, Signalling) {
        let refusal = self.take_refusal(analysis);
        let fails = refusal.is_some() || reaches_our_names(analysis);
        match deallocated {
            Some(_) => return (Some(DEALLOCATE_QUERY.into()), refusal, None),
            None if fails => return (Some(NO_SUCH_TEXT.into()), refusal, None),
            None => {}
        }
        match self.stand_in(sql, analysis, router) {
            None => (None, None, None),
            Some(StandIn::Text(text)) => (Some(text.into()), None, None),
            Some(StandIn::Signal(text, signal)) => (Some(text.into()), None, signal),
            Some(StandIn::Refused(refusal)) => (Some(NO_SUCH_TEXT.into()), Some(refusal), None),
        }
    }

    /// Why a Query fails on whatever server it runs.
    fn take_refusal(&mut self, analysis: &Analysis) -> Option<Refusal> {
        match self.admitted.take() {
            Some(Fate::Fails(refusal)) => Some(*refusal),
            Some(Fate::Runs) | None => refused_setting(analysis),
        }
    }

    /// What follows this text may have to wait for its outcome.
    fn hold_back(&mut self, analysis: &Analysis) {
        if drops_all_statements(analysis) {
            self.hold = Hold::Statements;
        }
        if self.restores_settings() {
            self.hold = Hold::All;
        }
    }

    fn function_call(&mut self, header: Header, input: &[u8], at: usize, io: &mut Io<'_>) -> Frame {
        if io.server.is_none() {
            return self.lease(input, at, io.router);
        }
        self.admitted = None;
        self.note_not_again(ReplayObstacle::SessionState);
        // It may call any function, by number.
        (self.wrote, self.acknowledged.may_write) = (Some(()), Some(()));
        self.touch(Effects::UNKNOWN_SETTINGS);
        self.tally.statements += 1;
        self.tell_call(io.router);
        self.push_end(Expected::FunctionCall);
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
    session.admitted = None;
    if refusal.severity == crate::refusal::Severity::Fatal {
        return ClientStep { consumed: 0, next: ClientNext::Close(CloseReason::Refused) };
    }
    if let Ok(Some(header)) = Header::peek(input, limits::FRAME_BYTES_MAX) {
        session.client_rest = (header.frame_bytes(), Rest::Discard);
        if matches!(header.tag, tag::QUERY | tag::FUNCTION_CALL) {
            let status = session.status_alone();
            to_client.send(|out| backend::ready_for_query(out, status));
        } else {
            session.batch = Batch::SkipToSync;
        }
    }
    ClientStep { consumed: 0, next: ClientNext::Read { bytes: 0 } }
}

/// Why the text's value for a setting of Tidegate's own is none.
fn refused_setting(analysis: &Analysis) -> Option<Refusal> {
    match analysis.tidegate.as_deref()? {
        TidegateCommand::Set { name, value } | TidegateCommand::SetLocal { name, value } => {
            refuse_setting(&format!("tidegate.{name}"), value)
        }
        TidegateCommand::Reset { .. } | TidegateCommand::Show { .. } => None,
    }
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
