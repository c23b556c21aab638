//! A transaction that is run again: what its client has sent is sent once more, unit by unit.

use super::interrupted::differs;
use super::record::Known;
use super::{ReplayObstacle, Stage};
use crate::limits;
use crate::plan::{Plan, Target};
use crate::session::client::refuse_frame;
use crate::session::expected::Own;
use crate::session::gather::Gather;
use crate::session::lost::{FAIL_SQL, Orphan, is_rollback};
use crate::session::{ClientNext, ClientStep, Io, ServerState, Session, Settled};
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend::tag;

/// A ROLLBACK that is recognised as nothing else is at most this long, in bytes.
const ROLLBACK_BYTES_MAX: usize = 64;

impl Session {
    /// Before what the client has sent: what is run again. `None`: its own turn has come.
    pub(in crate::session) fn replay_next(
        &mut self,
        input: &[u8],
        io: &mut Io<'_>,
    ) -> Option<ClientStep> {
        let wait = |next| Some(ClientStep { consumed: 0, next });
        match self.replay.stage {
            Stage::Off | Stage::Records | Stage::Unfit(_) => None,
            Stage::Retreats | Stage::Differs | Stage::Broken => wait(ClientNext::Replies),
            Stage::Owes => self.tell_at_last(input, io),
            Stage::Due if io.server.is_some() => {
                self.begin_run();
                self.feed(io)
            }
            Stage::Due if self.is_to_run_again() => wait(self.lease_for_replay()),
            Stage::Due => match self.frame_at_rest(input)? {
                AtRest::Wait(next) => wait(next),
                AtRest::Rollback => {
                    // There is nothing to run for that.
                    self.end_record();
                    self.orphan = Some(Orphan::Untold);
                    None
                }
                AtRest::Frame => wait(self.lease_for_replay()),
            },
            Stage::Runs { .. } => self.feed(io),
        }
    }

    fn lease_for_replay(&self) -> ClientNext {
        let priority = self.told_priority();
        ClientNext::Lease(Plan { target: Target::Primary, priority, min_lsn: None })
    }

    /// What a client sends that does not know that its transaction has been interrupted. `None`: it leaves.
    fn frame_at_rest(&self, input: &[u8]) -> Option<AtRest> {
        let header = match Header::peek(input, limits::FRAME_BYTES_MAX) {
            Ok(Some(header)) => header,
            Ok(None) => return Some(AtRest::Wait(ClientNext::Read { bytes: HEADER_BYTES })),
            Err(_) => return Some(AtRest::Frame),
        };
        if header.tag == tag::TERMINATE {
            return None;
        }
        let bytes = header.frame_bytes();
        if header.tag == tag::QUERY && bytes <= ROLLBACK_BYTES_MAX && input.len() < bytes {
            return Some(AtRest::Wait(ClientNext::Read { bytes }));
        }
        Some(if is_rollback(input) { AtRest::Rollback } else { AtRest::Frame })
    }

    /// The client's next statement is told that its transaction is rolled back, unless it is ROLLBACK.
    fn tell_at_last(&mut self, input: &[u8], io: &mut Io<'_>) -> Option<ClientStep> {
        if !self.expected.is_empty() {
            return Some(ClientStep { consumed: 0, next: ClientNext::Replies });
        }
        match self.frame_at_rest(input)? {
            AtRest::Wait(next) => return Some(ClientStep { consumed: 0, next }),
            AtRest::Rollback => self.status = TransactionStatus::Failed,
            AtRest::Frame => {
                self.status = TransactionStatus::Failed;
                refuse_frame(self, &differs(), input, io.to_client);
            }
        }
        self.replay.stage = Stage::Unfit(ReplayObstacle::Attempts);
        None
    }

    /// A server has been lent for it, or is still there.
    pub(in crate::session) fn begin_run(&mut self) {
        let Some(record) = &mut self.replay.record else { return };
        if self.replay.stage != Stage::Due {
            return;
        }
        let names = self.names.put_back();
        let unnamed = std::mem::replace(&mut self.unnamed, record.unnamed.clone());
        record.known.get_or_insert(Known { names, unnamed });
        (self.unnamed_in, self.removed_in) = (self.batches.past(), self.batches.past());
        (self.status, self.commits) = (TransactionStatus::Idle, None);
        record.fed = 0;
        record.seen.reset();
        self.replay.stage = Stage::Runs { unit: 0 };
        let tried = &mut self.tally.replays.tried;
        *tried = tried.saturating_add(1);
    }

    /// Sends what comes next of what is run again, as if the client sent it.
    fn feed(&mut self, io: &mut Io<'_>) -> Option<ClientStep> {
        let wait = Some(ClientStep { consumed: 0, next: ClientNext::Replies });
        let Stage::Runs { unit } = self.replay.stage else { return wait };
        let Some(record) = &mut self.replay.record else { return wait };
        let (from, to) = (record.fed, record.end_of(unit));
        if from == to {
            return wait;
        }
        let sent = std::mem::take(&mut record.sent);
        let mut to_server = Gather::default();
        let step = self.take_frames(
            sent.get(from..to).unwrap_or_default(),
            &mut Io {
                server: io.server.as_deref_mut(),
                interner: io.interner,
                router: io.router,
                to_server: &mut to_server,
                to_client: io.to_client,
            },
        );
        let bytes = to_server.to_bytes(sent.get(from..to).unwrap_or_default());
        io.to_server.send(|out| out.extend_from_slice(&bytes));
        if let Some(record) = &mut self.replay.record {
            record.sent = sent;
            record.fed = from + step.consumed;
        }
        match step.next {
            ClientNext::Close(_) => Some(ClientStep { consumed: 0, next: step.next }),
            _ => wait,
        }
    }

    /// Whether the server is wanted for it, before it is settled otherwise.
    pub(in crate::session) fn settle_replay(
        &mut self,
        server: &mut ServerState,
        to_server: &mut Gather,
    ) -> Option<Settled> {
        match self.replay.stage {
            Stage::Retreats if server.status != TransactionStatus::Idle => {
                self.ask(Own::Rollback, "ROLLBACK", server, to_server);
                Some(Settled::Busy)
            }
            Stage::Runs { .. } | Stage::Due => Some(Settled::Busy),
            _ if self.replay.fails.take().is_some()
                && server.status != TransactionStatus::Failed =>
            {
                self.ask(Own::Fail, FAIL_SQL, server, to_server);
                Some(Settled::Busy)
            }
            _ => None,
        }
    }

    /// The server goes back, or stays with a client that has no transaction.
    pub(in crate::session) fn server_settled(&mut self) {
        match self.replay.stage {
            Stage::Retreats => self.replay.stage = Stage::Due,
            Stage::Records => self.end_record(),
            _ => {}
        }
    }
}

/// What a client sends that does not know that its transaction is interrupted.
enum AtRest {
    Wait(ClientNext),
    Rollback,
    Frame,
}
