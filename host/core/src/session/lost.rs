//! A server that is lost under its client: what was under way is lost with it, and the client goes on with another.
//!
//! ```text
//!                     in the middle of it: 40001          it is sent to a server, in a transaction
//!  in a transaction ─────────────────────────▶ Told ────  that has failed: 25P02 until its end ──▶ as ever
//!          └── at rest in it ──▶ Untold ── the next statement: 40001, unless it is ROLLBACK ──▲
//! ```
//!
//! So the client sees what PostgreSQL shows of any transaction that has failed. It cannot go on where the server held more of
//! it than a transaction, or where half a message has been passed on.

use super::client::Chosen;
use super::expected::{Copying, Expected, Own};
use super::gather::Gather;
use super::hidden::Reach;
use super::{Batch, Hold, PoolMode, Session, Work};
use crate::refusal::Refusal;
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frame::Header;
use tidegate_wire::frontend::{self, tag};

/// What becomes of a client whose server is lost.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// Take these bytes as if the client had just sent them, before what else it has sent, and give them a server for
    /// anything.
    Again(Vec<u8>),
    /// Its transaction is run again: give it a server for anything.
    Replays,
    /// It goes on; what there was to tell it has been written.
    GoesOn,
    /// It cannot go on.
    Ends,
}

/// A transaction whose server is lost, while its client has not ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orphan {
    Untold,
    Told,
}

/// What a transaction fails with whose server is lost: retry loops know it. Source: "Serialization Failure Handling" in
/// PostgreSQL's documentation, and what CockroachDB and PgDog's users expect of a proxy.
pub(super) fn rolled_back() -> Refusal {
    Refusal::error("40001", "the transaction is rolled back: its server is lost")
        .hint("Repeat the transaction from its beginning.")
}

fn in_doubt() -> Refusal {
    Refusal::error("08007", "the server closed the connection unexpectedly")
        .detail("Whether the statement in progress took effect is not known. It was not repeated.")
        .hint("See what is there before you repeat it.")
}

/// What has a server's transaction fail before its first statement: there is no such savepoint.
pub(super) const FAIL_SQL: &str = "BEGIN;ROLLBACK TO tidegate_lost_the_transaction";

impl Session {
    /// The server in hand is lost. `to_client` takes what there is to tell.
    pub fn handle_server_lost(&mut self, to_client: &mut Gather) -> Lost {
        if let Some(unit) = self.take_kept_unit() {
            return Lost::Again(unit);
        }
        if let Some(lost) = self.lose_for_replay(to_client) {
            return lost;
        }
        if !self.can_go_on() {
            return Lost::Ends;
        }
        let work = self.work_at_stake();
        self.forget_transaction();
        if self.expected.is_empty() {
            if self.status != TransactionStatus::Idle && self.orphan.is_none() {
                self.orphan = Some(Orphan::Untold);
            }
            return Lost::GoesOn;
        }
        let (refusal, status) = match work {
            Work::RolledBack => (rolled_back(), TransactionStatus::Failed),
            Work::InDoubt | Work::None => (in_doubt(), TransactionStatus::Idle),
        };
        self.orphan = (status == TransactionStatus::Failed).then_some(Orphan::Told);
        self.fail_unit();
        self.status = status;
        to_client.send(|out| refusal.write(out));
        to_client.send(|out| backend::ready_for_query(out, status));
        Lost::GoesOn
    }

    /// Is all that is lost a transaction, or one unit of the client's, sent to its last byte? A read of a replica that is not
    /// run again has been answered in part.
    fn can_go_on(&mut self) -> bool {
        if self.chosen != Chosen::ForAnything {
            return false;
        }
        if matches!(self.expected.front(), Some(Expected::Own(Own::Switch | Own::Fail)))
            && self.expected.len() == 1
        {
            // Nothing of the client's has been sent yet.
            self.expected.pop();
            self.hold = Hold::Nothing;
        }
        let one_unit = self.expected.is_one_unit() && self.batches.outstanding() == 1;
        (self.expected.is_empty() || one_unit)
            && self.mode == PoolMode::Transaction
            && self.pins.is_empty()
            && self.batch == Batch::Closed
            && self.copying == Copying::Nothing
            && (self.client_rest.0, self.server_rest.0) == (0, 0)
            && (self.gone, self.leaves, self.laid_open_in_vain) == (None, None, None)
            && self.probing.is_none()
            && self.inspecting.is_none()
            && self.touches_settings_only()
            && !self.owes_ready()
            && !self.waits_for_listener()
    }

    /// What it did to the session is undone with it.
    pub(super) fn forget_transaction(&mut self) {
        (self.touched, self.unlisted, self.reach) = (None, None, Reach::Nothing);
        (self.drops_statements, self.commits) = (None, None);
        (self.admitted, self.bound) = (None, None);
        self.hold = Hold::Nothing;
    }

    /// As if the server had failed the whole of it.
    pub(super) fn fail_unit(&mut self) {
        if !matches!(self.expected.front(), Some(Expected::Query { .. } | Expected::Sync)) {
            self.fail_batch(None);
        }
        if let Some(Expected::Query { unnamed, deallocated, .. }) = self.expected.pop() {
            self.unnamed = unnamed;
            self.put_back(deallocated);
        }
        self.batches.ended(1);
    }

    /// Instead of a server for the frame at the start of `input`: why it gets none, if its transaction is lost and its client
    /// does not know. A ROLLBACK needs no such word.
    pub fn take_loss(&mut self, input: &[u8]) -> Option<Refusal> {
        if self.orphan != Some(Orphan::Untold) {
            return None;
        }
        self.orphan = Some(Orphan::Told);
        self.status = TransactionStatus::Failed;
        (!is_rollback(input)).then(rolled_back)
    }

    /// The status of a session that its server is not asked about.
    pub(super) fn status_alone(&self) -> TransactionStatus {
        match (self.orphan, self.status) {
            (Some(_), _) | (None, TransactionStatus::Failed) => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        }
    }

    /// Brings a server that was lent to where the client is: in a transaction that has failed.
    pub(super) fn begin_failed(&mut self, server: &mut super::ServerState, to_server: &mut Gather) {
        if self.orphan.take().is_some() {
            self.status = TransactionStatus::Failed;
            self.ask(Own::Fail, FAIL_SQL, server, to_server);
        }
    }
}

/// Is it a Query that is nothing but a rollback?
pub(super) fn is_rollback(input: &[u8]) -> bool {
    let Ok(Some(header)) = Header::peek(input, crate::limits::FRAME_BYTES_MAX) else {
        return false;
    };
    let Some(frame) = input.get(..header.frame_bytes()) else { return false };
    let body = frame.get(tidegate_wire::frame::HEADER_BYTES..).unwrap_or_default();
    let Ok(sql) = frontend::read_query(body) else { return false };
    let sql = sql.trim_ascii().strip_suffix(b";").unwrap_or(sql).trim_ascii();
    header.tag == tag::QUERY
        && (sql.eq_ignore_ascii_case(b"rollback") || sql.eq_ignore_ascii_case(b"abort"))
}
