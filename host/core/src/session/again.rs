//! A read whose replica dies, cancels it for the sake of what it replays, or refuses it since it is no read: run again on the
//! primary, once, as long as the client has seen nothing of an answer.
//!
//! ```text
//!              the unit begins on a replica                  a byte goes to the client, the client
//!  nothing ────────────────────────────────────▶ kept ─────  cancels, or another unit begins ────▶ nothing
//!                                                 └── the server is lost: taken back, and run again ──▲
//! ```

use super::expected::{Copying, Expected};
use super::gather::Gather;
use super::{Batch, Fate, PoolMode, Session};
use crate::limits;
use crate::plan::RoutePreference;
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::error_fields::{self, field};
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend::tag;

/// The unit of reads that a replica runs. No bytes: there is none that may be run again.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// The batch that it is.
    batch: u32,
    /// A replica has refused it as a write.
    disproved: bool,
}

impl Session {
    /// Keeps the unit that begins at `at`, and that a replica is about to run, unless it is long.
    pub(super) fn keep_unit(&mut self, input: &[u8], at: usize) {
        self.kept.bytes.clear();
        let Some(unit) = unit_at(&input[at..]) else { return };
        self.kept.bytes.extend_from_slice(unit);
        self.kept.batch = self.batches.now;
    }

    /// What is under way is not run again: its client has cancelled it, or knows something of its answer.
    pub fn forget_unit(&mut self) {
        self.kept.bytes.clear();
    }

    /// After a step: what the client is told may be about the unit.
    #[inline]
    pub(super) fn heed_told(&mut self, to_client: &Gather) {
        if !to_client.is_empty() {
            self.forget_unit();
        }
    }

    /// Of an idle client. A little is kept: its next unit is probably as short as its last.
    pub(super) fn shrink_kept(&mut self) {
        if self.kept.bytes.capacity() > limits::UNIT_KEPT_IDLE_BYTES {
            self.kept.bytes = Vec::new();
        }
    }

    /// The server in hand is lost: what is to be run again.
    pub(super) fn take_kept_unit(&mut self) -> Option<Vec<u8>> {
        let unit = std::mem::take(&mut self.kept.bytes);
        if unit.is_empty() || !self.has_only_unit() {
            return None;
        }
        self.take_unit_back();
        Some(unit)
    }

    /// Does the server's input begin with its refusal to go on with the unit, for a reason that the primary does not have?
    /// Any other unit would be welcome there, but for the client it is as if the server were lost.
    ///
    /// - What it replays from the primary comes first: PostgreSQL's `ProcessInterrupts` says 40001, and 40P01 where it would
    ///   be a deadlock. No other cause gives a read of a replica these, and were there one, the read could still be repeated.
    /// - It is no read (25006), although it was proven to be one: a function has become volatile that nobody saw become so, or
    ///   something hides where proofs do not look. Nothing was written, so it may be run where it can be. A client that asked
    ///   for replicas itself is told.
    #[inline]
    pub(super) fn is_withdrawn(&mut self, input: &[u8]) -> bool {
        if self.kept.bytes.is_empty() {
            return false;
        }
        let Some(sqlstate) = first_error(input) else { return false };
        let is_disproved = sqlstate == *b"25006" && !self.asks_for_replicas();
        let is_withdrawn =
            (matches!(&sqlstate, b"40001" | b"40P01") || is_disproved) && self.has_only_unit();
        self.kept.disproved |= is_disproved && is_withdrawn;
        is_withdrawn
    }

    /// Since this was last asked: has a replica refused as a write what was proven to be a read?
    pub fn take_disproved(&mut self) -> bool {
        std::mem::take(&mut self.kept.disproved)
    }

    fn asks_for_replicas(&self) -> bool {
        let preference = self.settings.own(RoutePreference::SETTING);
        RoutePreference::from_setting(preference) == RoutePreference::Replica
    }

    /// Is the unit that is kept all that is under way, sent to its last byte, with nothing behind it?
    fn has_only_unit(&self) -> bool {
        self.batches.now == self.kept.batch.wrapping_add(1)
            && self.expected.is_one_unit()
            && self.batch == Batch::Closed
            && self.copying == Copying::Nothing
            && self.status == TransactionStatus::Idle
            && self.mode == PoolMode::Transaction
            && self.pins.is_empty()
            && (self.client_rest.0, self.server_rest.0) == (0, 0)
            && (self.gone, self.leaves, self.commits) == (None, None, None)
            && self.changes_schema.is_none()
            && self.probing.is_none()
    }

    /// As if the server had failed the whole of it, but for the limits, which have charged it already.
    fn take_unit_back(&mut self) {
        if !matches!(self.expected.front(), Some(Expected::Query { .. } | Expected::Sync)) {
            self.fail_batch(None);
        }
        if let Some(Expected::Query { unnamed, .. }) = self.expected.pop() {
            self.unnamed = unnamed;
        }
        self.batches.ended(1);
        (self.admitted, self.bound) = (Some(Fate::Runs), None);
    }

    /// Does the server's input end with its word that it stops or crashes, after which it closes the connection?
    ///
    /// PostgreSQL's `quickdie` warns so, and what it had not yet sent of an answer comes along. A FATAL error is no such
    /// word: it may as well be an administrator who ends this very statement, and who does not want to meet it on the
    /// primary.
    pub(super) fn ends_with_last_word(&self, input: &[u8]) -> bool {
        // Nearly always the first two say no.
        input.ends_with(b"\0\0")
            && self.server_rest.0 == 0
            && (!self.kept.bytes.is_empty() && self.has_only_unit() || self.may_lose_server())
            && last_frame(input).is_some_and(|(header, body)| {
                let is = |name, value: &[u8]| error_fields::find(body, name) == Some(value);
                header.tag == backend::tag::NOTICE_RESPONSE
                    && is(field::SEVERITY_PLAIN, b"WARNING")
                    && (is(field::SQLSTATE, b"57P01") || is(field::SQLSTATE, b"57P02"))
            })
    }
}

/// The SQLSTATE of an error that comes before the first row, if that is all there.
fn first_error(input: &[u8]) -> Option<[u8; 5]> {
    let mut rest = input;
    loop {
        let header = Header::peek(rest, limits::FRAME_BYTES_MAX).ok().flatten()?;
        let (frame, behind) = rest.split_at_checked(header.frame_bytes())?;
        match header.tag {
            backend::tag::ERROR_RESPONSE => {
                let sqlstate = error_fields::find(&frame[HEADER_BYTES..], field::SQLSTATE)?;
                return sqlstate.try_into().ok();
            }
            backend::tag::PARSE_COMPLETE
            | backend::tag::BIND_COMPLETE
            | backend::tag::CLOSE_COMPLETE
            | backend::tag::PARAMETER_DESCRIPTION
            | backend::tag::ROW_DESCRIPTION
            | backend::tag::NO_DATA => rest = behind,
            _ => return None,
        }
    }
}

/// The last of the frames in `input`, if that is whole.
fn last_frame(mut input: &[u8]) -> Option<(Header, &[u8])> {
    loop {
        let header = Header::peek(input, limits::FRAME_BYTES_MAX).ok()??;
        match input.split_at_checked(header.frame_bytes())? {
            (frame, []) => return Some((header, frame.get(HEADER_BYTES..)?)),
            (_, rest) => input = rest,
        }
    }
}

/// The Query or batch at the start of `input`, if it is there as a whole and short enough.
fn unit_at(input: &[u8]) -> Option<&[u8]> {
    let mut end = 0;
    loop {
        let header = Header::peek(input.get(end..)?, limits::FRAME_BYTES_MAX).ok()??;
        end += header.frame_bytes();
        if end > limits::UNIT_KEPT_BYTES_MAX {
            return None;
        }
        if matches!(header.tag, tag::QUERY | tag::SYNC) {
            return input.get(..end);
        }
    }
}
