//! The process that a client takes for its server's: the one of its cancel key, whichever server it has.
//!
//! `SELECT pg_backend_pid()` answers with it, and `pg_cancel_backend` and `pg_terminate_backend` of another client's number
//! are carried out by whoever has that client. The statements run on the server all the same, which says when they count; in
//! their place runs what answers as they would. See `statement::processes` for the forms that are taken.

use super::{Frame, wait_for, whole_body};
use crate::plan::{MIN_LSN_SETTING, ProcessOwner, Router, SHOW_MIN_LSN};
use crate::refusal::Refusal;
use crate::session::expected::Signalling;
use crate::session::pins::Pins;
use crate::session::prepared::Prepared;
use crate::session::{ClientNext, Io, Session};
use crate::statement::{
    Analysis, ProcessCommand, ProcessNamed, Signal, SignalCall, TidegateCommand, with_number,
};
use tidegate_wire::frame::Header;
use tidegate_wire::frontend::{self, Format};

/// A Bind with more than a number is none of ours.
const BIND_BYTES_MAX: u32 = 4096;

/// What runs in place of a text about processes.
pub(super) enum StandIn {
    Text(Vec<u8>),
    /// When it has run, the signal is sent.
    Signal(Vec<u8>, Signalling),
    Refused(Refusal),
}

impl Session {
    /// What is sent in place of the text; `None`: the text.
    pub(super) fn stand_in(
        &self,
        sql: &[u8],
        analysis: &Analysis,
        router: &dyn Router,
    ) -> Option<StandIn> {
        if shows_position(analysis) {
            return Some(StandIn::Text(SHOW_MIN_LSN.into()));
        }
        match self.process_command(analysis)? {
            ProcessCommand::Number(_) => self.numbered(sql, analysis).map(StandIn::Text),
            ProcessCommand::Signal(call) => match call.process {
                ProcessNamed::Literal(number) => self.signalled(sql, call, number, router),
                ProcessNamed::Parameter => None,
            },
        }
    }

    /// The text with the client's own number, if it asks for that; or what answers it, if it asks for its position.
    pub(super) fn numbered(&self, sql: &[u8], analysis: &Analysis) -> Option<Vec<u8>> {
        if shows_position(analysis) {
            return Some(SHOW_MIN_LSN.into());
        }
        match self.process_command(analysis)? {
            ProcessCommand::Number(calls) => Some(with_number(sql, calls, self.own_process()?)),
            ProcessCommand::Signal(_) => None,
        }
    }

    /// What is bound in place of a statement; `Err`: what to wait for first.
    pub(super) fn bound_stand_in(
        &self,
        prepared: &Prepared,
        (header, input, at): (Header, &[u8], usize),
        io: &Io<'_>,
    ) -> Result<Option<StandIn>, Frame> {
        let Some(ProcessCommand::Signal(call)) = self.process_command(&prepared.analysis) else {
            return Ok(None);
        };
        let number = match call.process {
            ProcessNamed::Literal(number) => Some(number),
            ProcessNamed::Parameter if header.body_bytes > BIND_BYTES_MAX => None,
            ProcessNamed::Parameter => match whole_body(header, input, at) {
                None => return Err(wait_for(header)),
                Some(body) => bound_number(body, &prepared.types, call),
            },
        };
        let sql = &prepared.sql;
        let stand_in = number.and_then(|number| self.signalled(sql, call, number, io.router));
        // What stands in may have been parsed in a batch that fails yet.
        if stand_in.is_some() && self.expected.status_may_change() {
            return Err(Frame::Wait(ClientNext::Replies));
        }
        Ok(stand_in)
    }

    fn signalled(
        &self,
        sql: &[u8],
        call: &SignalCall,
        number: i32,
        router: &dyn Router,
    ) -> Option<StandIn> {
        if self.own_process() == Some(number) {
            return Some(StandIn::Text(call.to_itself(sql)));
        }
        let role = self.setting("role").filter(|role| !role.is_empty() && *role != "none");
        let superuser = role.is_none() && self.setting("is_superuser") == Some("on");
        match router.owner(number, role) {
            ProcessOwner::Nobody => None,
            ProcessOwner::Another if !superuser => Some(StandIn::Refused(forbidden(call.signal))),
            ProcessOwner::Same | ProcessOwner::Another => {
                Some(StandIn::Signal(call.answered(sql), Some(Box::new((number, call.signal)))))
            }
        }
    }

    /// What a text asks of processes, if its names are certainly PostgreSQL's own and its user is the client's.
    fn process_command<'a>(&self, analysis: &'a Analysis) -> Option<&'a ProcessCommand> {
        let command = analysis.process.as_deref()?;
        // A path that names pg_catalog may have another schema before it.
        let path = self.setting("search_path").unwrap_or_default();
        let certain = !path.contains("pg_catalog") || path.starts_with("pg_catalog");
        (certain && !self.pins.contains(Pins::SESSION_AUTHORIZATION)).then_some(command)
    }
}

/// Does it ask where in the log its session is?
fn shows_position(analysis: &Analysis) -> bool {
    let shown = match analysis.tidegate.as_deref() {
        Some(TidegateCommand::Show { name }) => name,
        _ => return false,
    };
    MIN_LSN_SETTING.strip_prefix("tidegate.") == Some(shown)
}

/// In PostgreSQL's words.
fn forbidden(signal: Signal) -> Refusal {
    let what = match signal {
        Signal::Cancel => "query is being canceled",
        Signal::Terminate => "process is being terminated",
    };
    Refusal::error(
        "42501",
        format!("must be a member of the role whose {what} or member of pg_signal_backend"),
    )
    .hint("Through Tidegate that takes the same role, or a superuser.")
}

/// The only parameter of a Bind, as the function gets it; `None`: PostgreSQL says what is wrong, or it is no process of ours.
fn bound_number(body: &[u8], types: &[u8], call: &SignalCall) -> Option<i32> {
    let declared =
        types.get(2..6).and_then(|oid| oid.try_into().ok()).map_or(0, u32::from_be_bytes);
    let fits = match declared {
        oid::UNSPECIFIED | oid::INT2 | oid::INT4 => true,
        oid::INT8 => call.has_cast(),
        _ => false,
    };
    let (format, value) = frontend::read_only_parameter(body).filter(|_| fits)?;
    match format {
        Format::Text => std::str::from_utf8(value).ok()?.trim_ascii().parse().ok(),
        Format::Binary => match *value {
            [a, b] => Some(i16::from_be_bytes([a, b]).into()),
            [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d])),
            _ => i32::try_from(i64::from_be_bytes(value.try_into().ok()?)).ok(),
        },
    }
}

/// Types that a number may be declared as.
mod oid {
    pub const UNSPECIFIED: u32 = 0;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
}
