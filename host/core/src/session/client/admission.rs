//! Whether what a client wants to run may run now: limits, and what the routing policy rejects.
//!
//! Each execution is asked about once, before it gets a server. Limits refuse only between transactions, where nobody waits
//! for locks that the client holds and nothing is half done; inside one, statements are counted. What is forbidden is
//! refused inside one, too, which then fails.

use super::{Frame, arrived_body, refuse_frame, whole_body};
use crate::limits;
use crate::plan::Charge;
use crate::plan::{Admission, END_USER_SETTING, Execution, Router};
use crate::policy::limit::TransactionState;
use crate::refusal::Refusal;
use crate::session::prepared::Prepared;
use crate::session::{Batch, ClientNext, Fate, Io, Session};
use crate::statement::{Analysis, Kind, StringSyntax};
use std::sync::Arc;
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::frame::Header;
use tidegate_wire::frontend::{self, tag};

/// What drivers and pools ask to see whether a connection lives. Refused, they would connect anew, which costs more.
const HEALTH_CHECKS: [&[u8]; 2] = [b"SELECT 1", b"SELECT 1;"];

impl Session {
    /// Before a frame: asks for the statement that it runs, or that its batch will run first. `None`: go on.
    pub(super) fn admit(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Option<Frame> {
        // What runs again has been charged.
        if self.admitted.is_some() || self.is_replay_under_way() || !io.router.guards() {
            return None;
        }
        let admission = match header.tag {
            tag::QUERY => self.admit_query(header, input, at, io.router)?,
            tag::FUNCTION_CALL => self.ask_admission(b"", None, Charge::ONE, io.router),
            tag::BIND => self.admit_bind(header, input, at, io.router)?,
            // A batch is refused before it gets a server, and as a whole.
            tag::PARSE if self.batch == Batch::Closed => {
                self.admit_batch(header, input, at, io.router)?
            }
            _ => return None,
        };
        match admission {
            Admission::Pass => {
                self.admitted = Some(Fate::Runs);
                None
            }
            // What was sent before it may begin a transaction, or end one; and its answers come first.
            _ if self.is_uncertain_where() => Some(Frame::Wait(ClientNext::Replies)),
            Admission::Later(time) => Some(Frame::Wait(ClientNext::Pause(time))),
            Admission::Refuse(refusal) => {
                self.tally.limited += 1;
                self.refuse(*refusal, header, &input[at..], io)
            }
            Admission::Forbid(refusal) => {
                self.tally.forbidden += 1;
                self.refuse(*refusal, header, &input[at..], io)
            }
        }
    }

    /// Is it still to be answered whether a transaction is open? What is sent of an open batch before its first Bind begins
    /// none, and all before that is answered without its Sync.
    fn is_uncertain_where(&self) -> bool {
        match self.batch {
            Batch::Closed => !self.expected.is_empty(),
            Batch::Open => self.bound.is_none() && self.expected.status_may_change(),
            Batch::SkipToSync => false,
        }
    }

    /// `None`: the frame is refused by whoever handles it.
    fn refuse(
        &mut self,
        refusal: Refusal,
        header: Header,
        frame: &[u8],
        io: &mut Io<'_>,
    ) -> Option<Frame> {
        let between = self.batch == Batch::Closed && self.status == TransactionStatus::Idle;
        if between || io.server.is_none() {
            refuse_frame(self, &refusal, frame, io.to_client);
            return Some(Frame::Head(0));
        }
        // The server is to know as well that its transaction has failed.
        if header.tag == tag::QUERY {
            self.admitted = Some(Fate::Fails(Box::new(refusal)));
            return None;
        }
        Some(self.refuse_in_batch(refusal, header, io))
    }

    fn admit_query(
        &self,
        header: Header,
        input: &[u8],
        at: usize,
        router: &mut dyn Router,
    ) -> Option<Admission> {
        if header.body_bytes as usize > limits::STATEMENT_BYTES_MAX {
            return Some(self.ask_admission(b"", None, Charge::ONE, router));
        }
        // What has not arrived comes again.
        let sql = frontend::read_query(whole_body(header, input, at)?).ok()?;
        let charge = charge(sql, &self.analyse(sql))?;
        Some(self.ask_admission(sql, self.string_syntax(sql), charge, router))
    }

    fn admit_bind(
        &self,
        header: Header,
        input: &[u8],
        at: usize,
        router: &mut dyn Router,
    ) -> Option<Admission> {
        let names = frontend::read_bind_names(arrived_body(header, input, at))?;
        let Some(prepared) = self.statement_of(names.statement) else {
            return Some(self.ask_admission(b"", None, Charge::ONE, router));
        };
        let charge = charge(&prepared.sql, &prepared.analysis)?;
        Some(self.ask_admission(&prepared.sql, self.string_syntax(&prepared.sql), charge, router))
    }

    /// Looks ahead from a Parse to the first Bind of its batch, as far as that has arrived.
    fn admit_batch(
        &self,
        header: Header,
        input: &[u8],
        mut at: usize,
        router: &mut dyn Router,
    ) -> Option<Admission> {
        let mut parsed: Vec<(&[u8], &[u8])> = Vec::new();
        let mut header = header;
        loop {
            match header.tag {
                tag::PARSE => {
                    let parse = frontend::read_parse(whole_body(header, input, at)?).ok()?;
                    parsed.push((parse.name, parse.sql));
                }
                tag::BIND => {
                    let names = frontend::read_bind_names(whole_body(header, input, at)?)?;
                    let own = parsed.iter().rev().find(|(name, _)| *name == names.statement);
                    let Some((_, sql)) = own else {
                        return self.admit_bind(header, input, at, router);
                    };
                    let charge = charge(sql, &self.analyse(sql))?;
                    return Some(self.ask_admission(sql, self.string_syntax(sql), charge, router));
                }
                tag::DESCRIBE | tag::CLOSE | tag::FLUSH => {}
                _ => return None,
            }
            at += header.frame_bytes();
            header = Header::peek(input.get(at..)?, limits::FRAME_BYTES_MAX).ok()??;
        }
    }

    pub(super) fn statement_of(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        match name {
            b"" => self.unnamed.as_ref(),
            _ => self.names.get(name).map(|held| &held.prepared),
        }
    }

    fn ask_admission(
        &self,
        sql: &[u8],
        strings: Option<StringSyntax>,
        charge: Charge,
        router: &mut dyn Router,
    ) -> Admission {
        // In a batch, what was bound has opened the implicit transaction. What has no text that could be asked about is
        // counted there.
        let in_batch = self.batch == Batch::Open && (self.bound.is_some() || sql.is_empty());
        let idle = self.status == TransactionStatus::Idle && !in_batch;
        router.admit(&Execution {
            sql,
            strings,
            charge,
            transaction: if idle { TransactionState::Idle } else { TransactionState::Open },
            end_user: self.settings.own(END_USER_SETTING).filter(|user| !user.is_empty()),
            application: self.settings.get("application_name").unwrap_or_default(),
        })
    }
}

/// What a text is charged; `None` for what is about the session alone, or asks for a sign of life.
fn charge(sql: &[u8], analysis: &Analysis) -> Option<Charge> {
    if HEALTH_CHECKS.iter().any(|check| sql.trim_ascii().eq_ignore_ascii_case(check)) {
        return None;
    }
    if analysis.statements > 1 {
        return Some(Charge::ONE);
    }
    match analysis.kind {
        Kind::Begin => Some(Charge::Transaction),
        // It keeps a server.
        Kind::Listen => Some(Charge::ONE),
        kind if kind.is_about_session() => None,
        _ => Some(Charge::ONE),
    }
}
