//! What a server sends: each reply is matched with the oldest note of what is owed, then passed on or swallowed.

mod own; // answers to queries of ours
mod undo; // what a failed batch takes back

use super::expected::{Answer, CopyEnded, Copying, Expected, Own};
use super::gather::Gather;
use super::prepared::SchemaChange;
use super::replay::Heeded;
use super::{Batch, CloseReason, Io, Rest, ServerNext, ServerStep, Session};
use crate::limits;
use crate::plan::Router;
use crate::refusal::Refusal;
use tidegate_wire::backend::{self, TransactionStatus, tag};
use tidegate_wire::error_fields::{self, field};
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend;

/// An error longer than this passes without being looked at, in bytes.
const ERROR_BYTES_MAX: usize = 1 << 20;

pub(super) enum Reply {
    Pass,
    Swallow,
    /// All of the frame is needed before it can be judged.
    Wait,
    /// Passes, and then the server connection is of no more use.
    PassAndClose(CloseReason),
    Close(CloseReason),
}

impl Session {
    /// Takes what the server sent.
    pub fn handle_server(&mut self, input: &[u8], mut io: Io<'_>) -> ServerStep {
        if self.ends_with_last_word(input) || self.is_withdrawn(input) {
            let next = ServerNext::Close(CloseReason::ServerDisconnected);
            return ServerStep { consumed: 0, next };
        }
        let mark = io.to_client.bytes();
        let mut step = self.take_replies(input, &mut io);
        self.heed_told(io.to_client);
        match step.next {
            ServerNext::Close(reason) if reason != CloseReason::ServerDisconnected => {
                if self.heed_close(mark, io.to_client) == Heeded::Breaks {
                    write_desynchronised(io.to_client);
                }
            }
            _ => {
                if self.heed_replay(mark, input, io.to_client) == Heeded::Breaks {
                    step.next = ServerNext::Close(CloseReason::ServerDisconnected);
                }
            }
        }
        step
    }

    fn take_replies(&mut self, input: &[u8], io: &mut Io<'_>) -> ServerStep {
        let mut at = 0;
        loop {
            at += self.take_server_rest(input, at, io.to_client);
            if self.server_rest.0 > 0 {
                return ServerStep { consumed: at, next: ServerNext::Read { bytes: 1 } };
            }
            self.give_due_answers(io.to_client);
            let header = match Header::peek(&input[at..], limits::FRAME_BYTES_MAX) {
                Ok(Some(header)) => header,
                Ok(None) => {
                    return ServerStep {
                        consumed: at,
                        next: ServerNext::Read { bytes: HEADER_BYTES },
                    };
                }
                Err(_) => return self.desynchronised(at, io),
            };
            let body_start = at + HEADER_BYTES;
            let body =
                &input[body_start..(body_start + header.body_bytes as usize).min(input.len())];
            match self.reply(header, body, io) {
                Reply::Pass => self.server_rest = (header.frame_bytes(), Rest::Forward),
                Reply::Swallow => self.server_rest = (header.frame_bytes(), Rest::Discard),
                Reply::Wait => {
                    return ServerStep {
                        consumed: at,
                        next: ServerNext::Read { bytes: header.frame_bytes() },
                    };
                }
                Reply::PassAndClose(reason) => {
                    io.to_client.forward(at, at + header.frame_bytes());
                    return ServerStep {
                        consumed: at + header.frame_bytes(),
                        next: ServerNext::Close(reason),
                    };
                }
                Reply::Close(reason) => {
                    return ServerStep { consumed: at, next: ServerNext::Close(reason) };
                }
            }
        }
    }

    #[inline]
    fn take_server_rest(&mut self, input: &[u8], at: usize, to_client: &mut Gather) -> usize {
        let (left, rest) = self.server_rest;
        let here = left.min(input.len() - at);
        if rest == Rest::Forward {
            to_client.forward(at, at + here);
        }
        self.server_rest.0 -= here;
        here
    }

    fn reply(&mut self, header: Header, body: &[u8], io: &mut Io<'_>) -> Reply {
        let front = self.expected.front();
        match header.tag {
            tag::DATA_ROW => match front {
                Some(Expected::Execute | Expected::Query { .. }) => Reply::Pass,
                Some(Expected::Own(own)) => self.own_row(*own, header, body),
                _ => self.unexpected(io),
            },
            tag::COMMAND_COMPLETE => self.command_complete(header, body, io),
            tag::READY_FOR_QUERY => self.ready(header, body, io),
            tag::ERROR_RESPONSE => self.error(header, body, io),
            tag::ROW_DESCRIPTION => match front {
                Some(Expected::Describe) => self.done(),
                Some(Expected::Query { .. }) => Reply::Pass,
                Some(Expected::Own(_)) => Reply::Swallow,
                _ => self.unexpected(io),
            },
            tag::PARAMETER_DESCRIPTION if matches!(front, Some(Expected::Describe)) => Reply::Pass,
            tag::NO_DATA if matches!(front, Some(Expected::Describe)) => self.done(),
            tag::PARSE_COMPLETE => match front {
                Some(Expected::Parse { .. } | Expected::ParseUnnamed { .. }) => self.done(),
                Some(Expected::OwnParse { .. } | Expected::LaidOpen { .. }) => self.done_silently(),
                _ => self.unexpected(io),
            },
            tag::BIND_COMPLETE if matches!(front, Some(Expected::Bind { .. })) => {
                self.send_signal(io.router);
                self.done()
            }
            tag::CLOSE_COMPLETE => match front {
                Some(Expected::Close) => self.done(),
                Some(Expected::OwnClose { .. }) => self.done_silently(),
                _ => self.unexpected(io),
            },
            tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED => match front {
                Some(Expected::Execute) => self.done(),
                Some(Expected::Query { .. }) => Reply::Pass,
                Some(Expected::Own(_)) => Reply::Swallow,
                _ => self.unexpected(io),
            },
            tag::FUNCTION_CALL_RESPONSE if matches!(front, Some(Expected::FunctionCall)) => {
                Reply::Pass
            }
            tag::COPY_IN_RESPONSE | tag::COPY_OUT_RESPONSE | tag::COPY_BOTH_RESPONSE => {
                self.copy_begins(header.tag, io)
            }
            tag::COPY_DATA | tag::COPY_DONE => self.copy_goes_on(header.tag, io),
            tag::NOTICE_RESPONSE if matches!(front, Some(Expected::Own(_))) => Reply::Swallow,
            tag::NOTICE_RESPONSE => Reply::Pass,
            tag::NOTIFICATION_RESPONSE => self.notification(header, body, io),
            // The client knows these values: they are its own, brought to this server.
            tag::PARAMETER_STATUS => match front {
                Some(Expected::Own(own)) if *own != Own::Restore => Reply::Swallow,
                _ => Reply::Pass,
            },
            _ => self.unexpected(io),
        }
    }

    fn send_signal(&mut self, router: &mut dyn Router) {
        if let Some((number, signal)) = self.expected.take_signal().map(|signal| *signal) {
            router.signal(number, signal);
        }
    }

    /// The oldest note has its last reply.
    fn done(&mut self) -> Reply {
        self.expected.pop();
        Reply::Pass
    }

    fn done_silently(&mut self) -> Reply {
        self.expected.pop();
        Reply::Swallow
    }

    fn command_complete(&mut self, header: Header, body: &[u8], io: &mut Io<'_>) -> Reply {
        if body.len() < header.body_bytes as usize {
            return Reply::Wait;
        }
        if !matches!(self.expected.front(), Some(Expected::Own(_))) {
            self.tell_completed(body, io.router);
            self.note_completed(body);
        }
        let reply = match self.expected.front() {
            Some(Expected::Execute) => self.done(),
            Some(Expected::Query { deallocated: Some(_), .. }) if body == b"PREPARE\0" => {
                Reply::Swallow
            }
            Some(Expected::Query { .. }) => {
                self.send_signal(io.router);
                Reply::Pass
            }
            Some(Expected::Own(_)) => Reply::Swallow,
            _ => return self.unexpected(io),
        };
        if self.copying != Copying::Both {
            self.copying = Copying::Nothing;
        }
        match body {
            b"RESET\0" | b"DISCARD ALL\0" => self.reset_done(),
            b"ROLLBACK\0" => self.reset_undone(),
            b"COMMIT\0" => self.note_committed(),
            _ => self.defaults.handle_tag(body),
        }
        if matches!(body, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0") {
            self.names.clear();
            if let Some(server) = io.server.as_deref_mut() {
                server.statements_dropped();
            }
            if body == b"DISCARD ALL\0" {
                self.session_discarded();
            }
        }
        reply
    }

    fn ready(&mut self, header: Header, body: &[u8], io: &mut Io<'_>) -> Reply {
        if body.len() < header.body_bytes as usize {
            return Reply::Wait;
        }
        let (Some(status), Some(server)) = (
            body.first().copied().and_then(TransactionStatus::from_byte),
            io.server.as_deref_mut(),
        ) else {
            return self.unexpected(io);
        };
        server.status = status;
        let reply = match self.expected.pop() {
            Some(Expected::Sync | Expected::Query { .. } | Expected::FunctionCall) => {
                self.tell_ready(status, io.router);
                self.status = status;
                self.batches.ended(1);
                self.forget_overdue();
                self.note_ready(status);
                self.note_unit_end(status);
                if self.withholds_ready(status) { Reply::Swallow } else { Reply::Pass }
            }
            Some(Expected::Own(Own::LayOpen)) if self.laid_open_in_vain.is_some() => {
                self.status = status;
                Reply::Pass
            }
            Some(Expected::Own(own)) => {
                self.own_finished(own, server);
                Reply::Swallow
            }
            _ => return self.unexpected(io),
        };
        if status == TransactionStatus::Idle
            && let Some(change) = self.changes_schema.take()
        {
            io.interner.schema_changed(self.hidden.heed(change));
        }
        if status == TransactionStatus::Idle {
            self.note_end();
            self.defaults.handle_end();
        }
        let over = self.expected.is_empty() && self.batch == Batch::Closed;
        if over && status == TransactionStatus::Idle {
            (self.drops_statements, self.commits) = (None, None);
            self.defaults.handle_idle();
        }
        self.copying = Copying::Nothing;
        reply
    }

    fn error(&mut self, header: Header, body: &[u8], io: &mut Io<'_>) -> Reply {
        if body.len() < header.body_bytes as usize && (header.body_bytes as usize) < ERROR_BYTES_MAX
        {
            return Reply::Wait;
        }
        let severity = error_fields::find(body, field::SEVERITY_PLAIN)
            .or_else(|| error_fields::find(body, field::SEVERITY))
            .unwrap_or_default();
        if matches!(severity, b"FATAL" | b"PANIC") && body.len() == header.body_bytes as usize {
            if is_last_word(body) || self.is_replay_under_way() {
                return Reply::Close(CloseReason::ServerDisconnected);
            }
            return Reply::PassAndClose(CloseReason::ServerFatal);
        }
        self.heed_undone(body);
        self.tally.errors += 1;
        self.note_failed();
        self.tell_error(body, io.router);
        if let Copying::In { syncs: 1.. } = self.copying {
            // The server had left copy mode before it read them, so it waits for one.
            io.to_server.send(frontend::sync);
            self.push_end(Expected::Sync);
        }
        self.copying = Copying::Nothing;
        if is_stale_plan(body) {
            // A change of the schema that no text showed. Whoever prepares the text again gets a statement of its own.
            io.interner.schema_changed(SchemaChange::Any);
        }
        self.reset_undone();
        if let Some(undo) = self.expected.take_deallocated() {
            self.put_back(Some(undo));
        }
        let overdue = self.take_overdue(body);
        let reply = self.fail(body, io);
        match overdue {
            Some(refusal) if matches!(reply, Reply::Pass) => {
                io.to_client.send(|out| refusal.write(out));
                Reply::Swallow
            }
            _ => reply,
        }
    }

    /// What the oldest note's error comes to.
    fn fail(&mut self, body: &[u8], io: &mut Io<'_>) -> Reply {
        match self.expected.front() {
            Some(Expected::Query { .. } | Expected::FunctionCall | Expected::Sync) => Reply::Pass,
            Some(Expected::Own(own)) => self.own_failed(*own, body, io),
            Some(Expected::Refused(refusal)) => {
                // In a failed transaction that is what PostgreSQL would say of any statement.
                let reply = match error_fields::find(body, field::SQLSTATE) {
                    Some(b"25P02") => Reply::Pass,
                    _ => {
                        io.to_client.send(|out| refusal.write(out));
                        Reply::Swallow
                    }
                };
                if self.expected.is_refused_query() {
                    self.expected.pop();
                } else {
                    self.fail_batch(io.server.as_deref_mut());
                }
                reply
            }
            Some(_) => {
                self.fail_batch(io.server.as_deref_mut());
                if let Some(Expected::Own(Own::LayOpen)) = self.expected.front() {
                    // So its Query would have failed.
                    self.laid_open_in_vain = Some(());
                }
                Reply::Pass
            }
            None => self.unexpected(io),
        }
    }

    /// Gives our own answers whose turn has come.
    pub(super) fn give_due_answers(&mut self, to_client: &mut Gather) {
        if self.server_rest.0 > 0 {
            return;
        }
        while let Some(Expected::Answer(_) | Expected::CopyEnd) = self.expected.front() {
            match self.expected.pop() {
                Some(Expected::Answer(Answer::Parsed { .. })) => {
                    to_client.send(backend::parse_complete)
                }
                Some(Expected::Answer(Answer::Closed { .. })) => {
                    to_client.send(backend::close_complete)
                }
                Some(Expected::Answer(Answer::Ready)) => {
                    let status = self.status_alone();
                    to_client.send(|out| backend::ready_for_query(out, status));
                }
                Some(Expected::Answer(Answer::Deallocated { undo })) => {
                    self.answer_deallocate(undo, to_client)
                }
                _ => {}
            }
        }
    }

    fn answer_deallocate(&mut self, undo: super::expected::Undo, to_client: &mut Gather) {
        if self.status == TransactionStatus::Failed {
            self.put_back(undo);
            let refusal = Refusal::error(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            );
            to_client.send(|out| refusal.write(out));
        } else {
            to_client.send(|out| backend::command_complete(out, b"DEALLOCATE"));
        }
        let status = self.status;
        to_client.send(|out| backend::ready_for_query(out, status));
    }

    // --- COPY ----------------------------------------------------------------------------------------

    fn copy_begins(&mut self, tag: u8, io: &mut Io<'_>) -> Reply {
        if !matches!(self.expected.front(), Some(Expected::Execute | Expected::Query { .. })) {
            return self.unexpected(io);
        }
        if self.is_replay_under_way() {
            // Nobody has data for it.
            return Reply::Close(CloseReason::ServerDisconnected);
        }
        self.copying = match tag {
            tag::COPY_IN_RESPONSE => {
                let (ended, syncs) = self.expected.enter_copy();
                self.batches.ended(syncs);
                match ended {
                    CopyEnded::AlreadySent => Copying::Nothing,
                    CopyEnded::NotYet => Copying::In { syncs: 0 },
                }
            }
            tag::COPY_OUT_RESPONSE => Copying::Out,
            _ => Copying::Both,
        };
        let extended = matches!(self.expected.front(), Some(Expected::Execute));
        if extended && self.batch == Batch::Closed && !self.expected.has_sync() {
            // The Sync that closed this batch was swallowed; it takes another one.
            self.batch = Batch::Open;
        }
        if self.gone.is_some() {
            self.end_batch_of_gone(io.to_server);
        }
        Reply::Pass
    }

    fn copy_goes_on(&mut self, tag: u8, io: &mut Io<'_>) -> Reply {
        match self.expected.front() {
            Some(Expected::Execute | Expected::Query { .. }) => {
                if tag == tag::COPY_DONE && self.copying == Copying::Out {
                    self.copying = Copying::Nothing;
                }
                Reply::Pass
            }
            _ => self.unexpected(io),
        }
    }

    // --- faults --------------------------------------------------------------------------------------

    fn unexpected(&mut self, io: &mut Io<'_>) -> Reply {
        write_desynchronised(io.to_client);
        Reply::Close(CloseReason::ServerProtocol)
    }

    fn desynchronised(&mut self, consumed: usize, io: &mut Io<'_>) -> ServerStep {
        write_desynchronised(io.to_client);
        ServerStep { consumed, next: ServerNext::Close(CloseReason::ServerProtocol) }
    }
}

fn write_desynchronised(to_client: &mut Gather) {
    let refusal = Refusal::fatal("08P01", "the server's reply does not fit what it was asked")
        .detail("The connection to the server was closed, so that nobody gets another's answer.")
        .hint(
            "Reconnect. If it happens again, please report it with the statements that led to it.",
        );
    to_client.send(|out| refusal.write(out));
}

/// The postmaster has died, and the server says so where it waits for its client: nobody has ended this very session. Source:
/// `secure_read` in `be-secure.c`.
fn is_last_word(body: &[u8]) -> bool {
    error_fields::find(body, field::SQLSTATE) == Some(b"57P01")
        && error_fields::find(body, field::ROUTINE) == Some(b"secure_read")
}

/// "cached plan must not change result type".
fn is_stale_plan(body: &[u8]) -> bool {
    error_fields::find(body, field::SQLSTATE) == Some(b"0A000")
        && error_fields::find(body, field::ROUTINE) == Some(b"RevalidateCachedQuery")
}
