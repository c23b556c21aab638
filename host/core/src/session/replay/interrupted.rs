//! A transaction is interrupted: whether it is run again, and what its client is told if it is not.

use super::record::{After, Client, Known};
use super::{Heeded, ReplayObstacle, Stage};
use crate::limits;
use crate::refusal::{Refusal, Severity};
use crate::session::client::refuse_frame;
use crate::session::expected::Copying;
use crate::session::gather::Gather;
use crate::session::lost::{Lost, Orphan, rolled_back};
use crate::session::{Batch, ClientNext, ClientStep, CloseReason, Hold, PoolMode, Rest, Session};
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::error_fields::{self, field};

/// What a transaction fails with that was run again and went another way.
pub(super) fn differs() -> Refusal {
    Refusal::error("40001", "the transaction is rolled back: run again, it was answered otherwise")
        .detail("It was interrupted, and what its client had been told of it did not come a second time.")
        .hint("Repeat the transaction from its beginning.")
}

impl Session {
    /// Before an error is dealt with: does the server say that it has undone a transaction that is to run again? Then nobody is
    /// told of it.
    pub(in crate::session) fn heed_undone(&mut self, error: &[u8]) {
        let sqlstate = error_fields::find(error, field::SQLSTATE);
        if !matches!(sqlstate, Some(b"40001" | b"40P01")) || !self.expected.is_one_unit() {
            return;
        }
        if let Stage::Unfit(why) = self.replay.stage {
            self.give_up_replay(why);
        }
        let Some(record) = &self.replay.record else { return };
        let idle = self.status == TransactionStatus::Idle;
        let may = match self.replay.stage {
            Stage::Runs { unit } if !record.is_in_flight(unit) => Ok(()),
            Stage::Records | Stage::Runs { .. } => record.may_repeat_undone(idle),
            _ => return,
        };
        if let Err(why) = may.and_then(|()| self.may_repeat()) {
            self.give_up_replay(why);
            return;
        }
        let first = self.replay.stage == Stage::Records;
        let client = if first { Client::Waits } else { record.client };
        self.interrupted(client);
        self.replay.stage = Stage::Retreats;
    }

    /// Is there nothing but the transaction, and may it be run once more?
    fn may_repeat(&self) -> Result<(), ReplayObstacle> {
        let Some(record) = &self.replay.record else { return Err(ReplayObstacle::SessionState) };
        let asked = [&self.touched, &self.probing].into_iter().flatten();
        let is_alone = self.mode == PoolMode::Transaction
            && self.pins.is_empty()
            && self.copying == Copying::Nothing
            && (self.gone, self.leaves, self.laid_open_in_vain) == (None, None, None)
            && self.inspecting.is_none()
            && asked.into_iter().all(|touched| !touched.may_outlive_transaction())
            && self.probing.is_none()
            && !self.owes_ready()
            && !self.waits_for_listener()
            && self.channels().is_empty();
        if !is_alone || self.batch != Batch::Closed || self.client_rest.0 > 0 {
            Err(ReplayObstacle::SessionState)
        } else if record.age > limits::REPLAY_AGE_MAX {
            Err(ReplayObstacle::TooOld)
        } else if record.attempts >= limits::REPLAYS_MAX {
            Err(ReplayObstacle::Attempts)
        } else {
            Ok(())
        }
    }

    fn interrupted(&mut self, client: Client) {
        if let Some(record) = &mut self.replay.record {
            record.attempts += 1;
            record.client = client;
            record.interrupted = Some(record.told.mark());
        }
    }

    /// Its server is lost. `Some`: what becomes of the client.
    pub(in crate::session) fn lose_for_replay(&mut self, to_client: &mut Gather) -> Option<Lost> {
        let waits = self.who_waits();
        let may = match self.replay.stage {
            Stage::Off | Stage::Due => return None,
            Stage::Unfit(why) => Err(why),
            // Its next statement is told.
            Stage::Owes => {
                self.end_record();
                return None;
            }
            Stage::Broken => return Some(Lost::Ends),
            Stage::Differs => return Some(self.fail_without_server(to_client)),
            Stage::Retreats => Ok(()),
            Stage::Records => self.may_repeat_lost(waits),
            Stage::Runs { unit } => match self.may_repeat_again(unit) {
                Err(ReplayObstacle::Attempts | ReplayObstacle::TooOld) => {
                    return Some(self.fail_without_server(to_client));
                }
                may => may,
            },
        };
        if let Err(why) = may {
            if self.status != TransactionStatus::Idle || waits == Client::Waits {
                self.give_up_replay(why);
            }
            self.end_record();
            return None;
        }
        let nothing = self.status == TransactionStatus::Idle && waits == Client::Rests;
        if self.replay.stage == Stage::Records && nothing {
            self.end_record();
            return None;
        }
        let undone_already = self.replay.stage == Stage::Retreats;
        let after = self.after_loss();
        if self.replay.stage == Stage::Records && waits == Client::Waits {
            self.fail_unit();
        }
        self.drop_notes();
        if !undone_already {
            self.interrupted(waits);
        }
        if let Some(record) = &mut self.replay.record
            && record.after == After::GoesOn
        {
            record.after = after;
        }
        self.replay.stage = Stage::Due;
        Some(if waits == Client::Waits { Lost::Replays } else { Lost::GoesOn })
    }

    fn may_repeat_lost(&self, waits: Client) -> Result<(), ReplayObstacle> {
        let Some(record) = &self.replay.record else { return Err(ReplayObstacle::SessionState) };
        let idle = self.status == TransactionStatus::Idle;
        if waits == Client::Rests {
            let half = record.sent.len() > record.last_end() && !idle;
            return if half { Err(ReplayObstacle::SessionState) } else { self.may_repeat() };
        }
        if !self.expected.is_one_unit() {
            return Err(ReplayObstacle::SessionState);
        }
        record.may_repeat_lost(idle, self.commits.is_some())?;
        self.may_repeat()
    }

    /// The same for one that runs again.
    fn may_repeat_again(&self, unit: u32) -> Result<(), ReplayObstacle> {
        let Some(record) = &self.replay.record else { return Err(ReplayObstacle::SessionState) };
        if record.is_in_flight(unit) && record.fed > record.last_end() {
            let idle = self.status == TransactionStatus::Idle;
            record.may_repeat_lost(idle, self.commits.is_some())?;
        }
        let limited = self.may_repeat();
        // What is half done of a unit of our own sending is no obstacle.
        if limited == Err(ReplayObstacle::SessionState) { Ok(()) } else { limited }
    }

    /// Does the client wait for an answer?
    fn who_waits(&self) -> Client {
        match (self.replay.stage, &self.replay.record) {
            (Stage::Retreats | Stage::Due | Stage::Runs { .. } | Stage::Differs, Some(record)) => {
                record.client
            }
            _ if self.expected.is_owed_to_client() => Client::Waits,
            _ => Client::Rests,
        }
    }

    fn after_loss(&self) -> After {
        let told = match (self.replay.stage, &self.replay.record) {
            (Stage::Records, _) => true,
            (Stage::Runs { unit }, Some(record)) => record.tells_more(unit),
            _ => false,
        };
        if told && self.server_rest.0 > 0 && self.server_rest.1 == Rest::Forward {
            After::Cut
        } else if self.pins.is_empty() && self.touches_settings_only() {
            After::GoesOn
        } else {
            After::Ends
        }
    }

    /// What was under way is not any more.
    fn drop_notes(&mut self) {
        while self.expected.pop().is_some() {}
        self.batches.ended(self.batches.outstanding());
        self.forget_transaction();
        (self.server_rest, self.client_rest.0) = ((0, Rest::Forward), 0);
        (self.batch, self.copying, self.hold) = (Batch::Closed, Copying::Nothing, Hold::Nothing);
        (self.replay.ended, self.replay.fails) = (None, None);
    }

    /// Names are as the client knows them again.
    fn undo_names(&mut self) {
        let known = self.replay.record.as_mut().and_then(|record| record.known.take());
        if let Some(Known { names, unnamed }) = known {
            self.names.undo_put_back(names);
            self.unnamed = unnamed;
            (self.unnamed_in, self.removed_in) = (self.batches.past(), self.batches.past());
        }
    }

    fn how_it_fails(&self) -> (After, Client) {
        self.replay
            .record
            .as_ref()
            .map_or((After::Ends, Client::Rests), |record| (record.after, record.client))
    }

    /// It is not run again, and has no server: the client is told, or will be.
    fn fail_without_server(&mut self, to_client: &mut Gather) -> Lost {
        if self.replay.stage != Stage::Differs {
            self.give_up_replay(ReplayObstacle::Attempts);
        }
        self.drop_notes();
        self.undo_names();
        let (after, client) = self.how_it_fails();
        if after != After::GoesOn {
            self.replay.stage = Stage::Broken;
            return Lost::Ends;
        }
        self.end_record();
        self.status = TransactionStatus::InTransaction;
        self.orphan = Some(Orphan::Untold);
        if client == Client::Waits {
            self.tell_failed(&rolled_back(), to_client);
            self.orphan = Some(Orphan::Told);
        }
        Lost::GoesOn
    }

    fn tell_failed(&mut self, refusal: &Refusal, to_client: &mut Gather) {
        self.status = TransactionStatus::Failed;
        to_client.send(|out| refusal.write(out));
        to_client.send(|out| backend::ready_for_query(out, TransactionStatus::Failed));
    }

    /// What came back is something else, and the server is done with the unit: its transaction is to fail.
    pub(super) fn tell_difference(&mut self, to_client: &mut Gather) -> Heeded {
        self.undo_names();
        let (after, client) = self.how_it_fails();
        if after != After::GoesOn {
            self.replay.stage = Stage::Broken;
            return Heeded::Breaks;
        }
        (self.replay.record, self.replay.fails) = (None, Some(()));
        match client {
            Client::Waits => {
                self.replay.stage = Stage::Unfit(ReplayObstacle::Attempts);
                self.tell_failed(&differs(), to_client);
            }
            Client::Rests => {
                self.replay.stage = Stage::Owes;
                self.status = TransactionStatus::InTransaction;
            }
        }
        Heeded::GoesOn
    }

    /// No server could be had for it. `Some`: how its client is answered instead.
    pub(in crate::session) fn refuse_replay(
        &mut self,
        refusal: &Refusal,
        input: &[u8],
        to_client: &mut Gather,
    ) -> Option<ClientStep> {
        if self.replay.stage != Stage::Due {
            return None;
        }
        self.give_up_replay(ReplayObstacle::NoServer);
        self.undo_names();
        let (after, client) = self.how_it_fails();
        let close = |reason| Some(ClientStep { consumed: 0, next: ClientNext::Close(reason) });
        if after == After::Cut {
            self.replay.stage = Stage::Broken;
            return close(CloseReason::ServerDisconnected);
        }
        self.end_record();
        if after == After::Ends {
            let lost = Refusal::fatal(
                "08006",
                "the transaction in progress is rolled back: its server is lost",
            )
            .detail(format!("It could not be run again: {}.", refusal.message))
            .hint("Reconnect, and repeat the transaction from its beginning.");
            to_client.send(|out| lost.write(out));
            return close(CloseReason::ServerDisconnected);
        }
        if refusal.severity == Severity::Fatal {
            to_client.send(|out| refusal.write(out));
            return close(CloseReason::Refused);
        }
        self.orphan = Some(Orphan::Told);
        self.status = TransactionStatus::Failed;
        if client == Client::Rests {
            return Some(refuse_frame(self, &rolled_back(), input, to_client));
        }
        let is_cancelled = refusal.sqlstate == "57014";
        let told = rolled_back().detail(format!("It could not be run again: {}.", refusal.message));
        self.tell_failed(if is_cancelled { refusal } else { &told }, to_client);
        Some(ClientStep { consumed: 0, next: ClientNext::Read { bytes: 0 } })
    }

    /// Before replies are dealt with as far as they go: the server is of no more use. What it said is nobody's, and what we say
    /// cannot follow half a message.
    pub(in crate::session) fn heed_close(&mut self, mark: usize, to_client: &mut Gather) -> Heeded {
        if !self.replay.is_under_way() {
            return Heeded::GoesOn;
        }
        to_client.drop_after(mark, to_client.bytes().saturating_sub(mark));
        if self.is_cut() { Heeded::GoesOn } else { Heeded::Breaks }
    }

    /// Is a transaction under way of which the client hears nothing until it is as it was?
    pub fn is_replay_under_way(&self) -> bool {
        self.replay.is_under_way()
    }

    /// Are a server's last words nothing that its client is to hear, since its transaction may be run again?
    pub(in crate::session) fn may_lose_server(&self) -> bool {
        self.replay.is_under_way()
            || self.replay.stage == Stage::Records && self.may_repeat_lost(self.who_waits()).is_ok()
    }
}
