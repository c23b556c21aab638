//! The server in a client's hands: got from a pool, settled after each step, given back.

use std::mem;
use std::task::Context;
use std::time::Instant;

use tidegate_core::ids::Priority;
use tidegate_core::plan::{Plan, Target};
use tidegate_core::policy::route::Fallback;
use tidegate_core::refusal::Refusal;
use tidegate_core::route::Place;
use tidegate_core::session::{ClientNext, Pins, Settled, Tally};
use tidegate_policy::Outcome;
use tidegate_pool::Fitness;

use super::pause::Pause;
use super::{ClientPhase, Connection};
use crate::config::Causality;
use crate::data::clients::State;
use crate::data::worker::Located;
use crate::observe::served::LentFor;
use crate::observe::stats::{ErrorKind, GivenUp, PinReason};
use crate::upstream::pool::{Acquired, Lease, Patience, PoolKind};
use crate::view::{Commit, keep};

/// What kind of server was asked for, and where that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub target: Target,
    pub place: Place,
    pub pool: PoolKind,
    /// What happens to a read that this replica does not take.
    pub otherwise: Fallback,
    /// Could any other replica have had it?
    pub lent_for: LentFor,
}

impl Asked {
    pub const PRIMARY: Self = Self {
        target: Target::Primary,
        place: Place::Primary,
        pool: PoolKind::Write,
        otherwise: Fallback::Primary,
        lent_for: LentFor::Anything,
    };
    /// A read that no replica takes.
    pub const FALLBACK: Self = Self { pool: PoolKind::Read, ..Self::PRIMARY };
}

/// A server that was lent.
pub(super) struct Lent {
    pub(super) lease: Lease,
    pub(super) stage: Stage,
}

/// ```text
/// Fresh -- the statement it was lent for is sent --> Used <--> Held
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// At most its settings have been switched.
    Fresh,
    Used,
    /// It could go back, when the cancel requests that are on their way to it have ended.
    Held,
}

impl Connection {
    /// advise → plan happened in the session; here the plan becomes a lease.
    pub(super) fn acquire(&mut self, plan: Plan, cx: &mut Context<'_>) {
        self.client.slot.set_priority(plan.priority);
        if plan.target == Target::Read {
            self.client.set_min_lsn(plan.min_lsn);
        }
        self.acquire_at(plan.target, cx);
    }

    /// Before a client is told what its server says: all reads that begin when it has been told are to see what it wrote.
    pub(super) fn note_write(&self) {
        if self.session.may_have_written() && self.worker.causality() == Causality::Global {
            self.worker.shared.views.causal.note_write(Instant::now());
        }
    }

    /// Before a step: when what comes was sent, and how old a transaction is that may run again.
    pub(super) fn tell_time(&mut self) {
        let replays = self.session.wants_replay();
        // What is under way was sent before.
        let sends =
            !self.session.is_waiting_for_replies() && self.worker.shared.views.commits.are_wanted();
        if !replays && !sends {
            return;
        }
        let now = Instant::now();
        self.session.handle_time(now);
        if sends {
            self.sent_at = now;
        }
    }

    /// Before a client is told that it has committed something: that is remembered, should it be lost.
    pub(super) fn note_commit(&mut self) {
        let Some(verb) = self.session.take_committed() else { return };
        let Some(Lent { lease, .. }) = &self.lent else { return };
        if self.asked.place != Place::Primary || !self.worker.shared.views.commits.are_wanted() {
            return;
        }
        let commit = Commit {
            sent_at: self.sent_at,
            acknowledged_at: Instant::now(),
            user: self.client.user.clone(),
            database: self.client.database.clone(),
            application: self.client.application.borrow().clone(),
            verb,
            server: lease.server.target.name.clone(),
        };
        keep(&self.worker.commits, commit);
    }

    /// With the priority that was asked for last.
    pub(super) fn acquire_at(&mut self, target: Target, cx: &mut Context<'_>) {
        self.phase = ClientPhase::Queued;
        if self.lent.is_some() {
            // It was chosen for something else and did not come to rest, so nobody may have it as it is.
            self.drop_server();
        }
        if let Some(loss) = self.session.take_loss(self.from_client.input.bytes()) {
            return self.refuse(&loss);
        }
        let now = Instant::now();
        let has_waited = mem::take(&mut self.has_waited);
        self.asked = match self.worker.locate(target, &self.client, has_waited, now) {
            Ok(Located::Now(asked)) => asked,
            Ok(Located::Soon(pause)) => {
                // Then the session asks for a server anew.
                self.has_waited = true;
                self.client.set_state(State::Waiting, now);
                self.phase = ClientPhase::Paused(Pause::new(pause));
                return;
            }
            Err(refusal) => return self.refuse(&refusal),
        };
        self.acquire_asked(now, cx);
    }

    /// From the pool that was chosen.
    fn acquire_asked(&mut self, now: Instant, cx: &mut Context<'_>) {
        let elsewhere = self.asked.target == Target::Read;
        self.client.slot.set_patience(if elsewhere {
            Patience::FirstFailure
        } else {
            Patience::Attempts
        });
        let pool = match (self.asked.place, self.asked.pool) {
            (Place::Primary, PoolKind::Write | PoolKind::Critical) => {
                self.client.write_pool.clone()
            }
            (place, _) => self.worker.read_pool(&self.client, place, now),
        };
        let pool = match self.client.slot.priority() {
            Priority::Normal => pool,
            Priority::Critical => self.worker.critical_pool(&self.client, pool, now),
        };
        match self.worker.pools.acquire(&pool, &self.client.slot, now) {
            Acquired::Now(lease) => self.handle_grant(Ok(lease), cx),
            Acquired::Refused(refusal) => self.handle_grant(Err(refusal), cx),
            Acquired::Queued => self.client.set_state(State::Waiting, now),
        }
    }

    pub(super) fn handle_grant(&mut self, grant: Result<Lease, Refusal>, cx: &mut Context<'_>) {
        match grant {
            Ok(mut lease) => {
                self.client.set_state(State::Active, Instant::now());
                self.client.server.set(Some(lease.server.id));
                self.client.process.set(lease.server.state.process());
                lease.server.stream.settle();
                let server = &mut lease.server.state;
                self.session.handle_lease(self.asked.target, server, &mut self.from_client.out);
                self.lent = Some(Lent { lease, stage: Stage::Fresh });
                self.dry.server = false;
                self.keep_from_here();
                self.from_server.wanted = 1;
                self.phase = ClientPhase::Reading;
                self.feed_client(cx);
            }
            // A read that no replica takes can as well be had from the primary.
            Err(refusal)
                if self.asked.target == Target::Read
                    && self.asked.otherwise == Fallback::Primary =>
            {
                self.worker.note_not_taken(self.asked.place, &refusal);
                self.asked = Asked::FALLBACK;
                self.acquire_asked(Instant::now(), cx);
            }
            Err(refusal) => {
                self.worker.stats.errors.increment(match refusal.sqlstate {
                    "53300" => ErrorKind::PoolTimeout,
                    "28P01" | "28000" | "3D000" | "42501" => ErrorKind::ServerLogin,
                    _ => ErrorKind::ServerUnreachable,
                });
                self.refuse(&refusal);
            }
        }
    }

    /// Answers the statement that needed a server with an error.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.keep_nothing();
        let input = self.from_client.input.bytes();
        let step = self.session.handle_lease_refused(refusal, input, &mut self.from_server.out);
        self.client.set_state(State::Idle, Instant::now());
        match step.next {
            ClientNext::Close(reason) => self.close(reason),
            _ => {
                self.from_client.wanted = 0;
                self.phase = ClientPhase::Reading;
            }
        }
    }

    /// Gives back a server that was held, when no cancel request is on its way to it any more.
    pub(super) fn settle_held(&mut self, cx: &mut Context<'_>) {
        if self.cancelling.get() == 0
            && let Some(lent) = &mut self.lent
            && lent.stage == Stage::Held
        {
            lent.stage = Stage::Used;
            self.settle(cx);
        }
    }

    /// Adds what the session did to the worker's counters.
    pub(super) fn count(&mut self) {
        let tally = self.session.take_tally();
        if tally != Tally::default() {
            if tally.errors > 0 {
                self.outcome = Outcome::Error;
            }
            let stats = &self.worker.stats;
            stats.statements.add(u64::from(tally.statements));
            stats.reprepared.add(u64::from(tally.reprepared));
            stats.probes.add(u64::from(tally.probes));
            stats.settings_applied.add(u64::from(tally.settings_applied));
            if let Some(lent) = &self.lent
                && let Some(served) = lent.lease.server.served.of(self.worker.index)
            {
                served.statements.add(u64::from(tally.statements));
                served.errors.add(u64::from(tally.errors));
            }
            stats.replays.add(u64::from(tally.replays.tried));
            stats.replays_succeeded.add(u64::from(tally.replays.succeeded));
            stats.replays_differed.add(u64::from(tally.replays.differed));
            if let Some(why) = tally.replays.given_up {
                stats.replays_given_up.increment(GivenUp(why));
            }
            for _ in 0..tally.limited {
                stats.errors.increment(ErrorKind::RateLimited);
            }
            for _ in 0..tally.forbidden {
                stats.errors.increment(ErrorKind::Rejected);
            }
            self.client.statements.set(self.client.statements.get() + u64::from(tally.statements));
        }
    }

    /// The client keeps its server: counts each cause that is new.
    fn note_pins(&self) {
        let (before, now) = (self.client.pins.get(), self.session.pins());
        for (index, (pin, _)) in Pins::ALL.iter().enumerate() {
            if now.contains(*pin) && !before.contains(*pin) {
                self.worker.stats.pins.increment(PinReason(index));
            }
        }
        self.client.pins.set(now);
        self.client.prepared.set(self.session.prepared_count());
    }

    /// Gives the server back when the session says so; and gets one for a transaction that is to be run again.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        self.settle_server(cx);
        if self.session.is_to_run_again() && !matches!(self.phase, ClientPhase::Queued) {
            match self.lent.is_some() {
                true => {
                    self.from_client.wanted = 0;
                    self.phase = ClientPhase::Reading;
                }
                false => self.acquire_at(Target::Primary, cx),
            }
        }
    }

    fn settle_server(&mut self, cx: &mut Context<'_>) {
        self.count();
        let is_fed_next = self.is_about_to_be_fed();
        let Some(Lent { lease, stage }) = &mut self.lent else { return };
        let settled = self.session.settle(&mut lease.server.state, &mut self.from_client.out);
        if matches!(settled, Settled::Keep | Settled::Release) {
            self.session.give_ready(&mut self.from_server.out);
        }
        match settled {
            Settled::Busy => {
                if !self.from_client.is_clear() {
                    let _ = self.flush_to_server(cx);
                }
                self.heed_listen_need(cx);
            }
            Settled::Keep => {
                if self.session.told_priority() == Priority::Critical {
                    self.client.slot.set_priority(Priority::Critical);
                }
                self.note_pins();
                self.heed_listen_need(cx);
            }
            Settled::Close => self.drop_server(),
            // Only its settings have been switched so far. Given back now, it would be switched for somebody else, and
            // with enough clients nobody would ever come to the statement itself.
            Settled::Release if *stage == Stage::Fresh && is_fed_next => {
                *stage = Stage::Used;
                self.read_on();
            }
            Settled::Release if self.cancelling.get() > 0 => {
                *stage = Stage::Held;
                self.client.slot.set_priority(self.session.told_priority());
                // Its client goes on with it as if it had been lent anew: what was reset for the next is put back.
                let server = &mut lease.server.state;
                self.session.handle_lease(self.asked.target, server, &mut self.from_client.out);
                if !self.from_client.is_clear() {
                    let _ = self.flush_to_server(cx);
                }
                if self.session.is_replay_under_way() {
                    self.read_on();
                }
            }
            Settled::Release => {
                // Bytes that came after the last reply belong to nobody: such a connection is not trusted.
                let left_over = self.from_server.input.len() > self.from_server.consumed;
                let is_clear = self.from_client.is_clear() && !lease.server.state.listens();
                let fitness = if left_over || !is_clear { Fitness::Unfit } else { Fitness::Fit };
                let now = Instant::now();
                let time = now.saturating_duration_since(self.client.since.get());
                let outcome = mem::replace(&mut self.outcome, Outcome::Success);
                self.worker.routing.borrow_mut().handle_end(self.client.id.0, outcome, time);
                self.worker.stats.transactions.increment();
                self.client.transactions.set(self.client.transactions.get() + 1);
                self.client.server.set(None);
                self.note_pins();
                self.client.set_state(State::Idle, now);
                self.client.note_place(self.asked.place, self.session.take_wrote(), now);
                self.from_client.give_up(&self.worker.buffers);
                self.from_server.drop_unread(&self.worker.buffers);
                if let Some(Lent { lease, .. }) = self.lent.take() {
                    if let Some(served) = lease.server.served.of(self.worker.index) {
                        served.note_lent(self.asked.lent_for, time);
                    }
                    lease.release(fitness, now);
                }
                self.end_lend();
                self.end_keeping();
            }
        }
    }

    pub(super) fn is_about_to_be_fed(&self) -> bool {
        !self.from_client.input.is_empty()
            && matches!(self.phase, ClientPhase::Reading | ClientPhase::Replies)
    }
}
