//! An operator wants another primary: without loss, and with a short pause.
//!
//! ```text
//! Preparing ── a checkpoint was made, statements are held ──▶ Draining ── nothing of the primary is lent ──▶ Settling
//!                                                                │                          │       │
//!      the primary stays ◀── too slow, or a step fails ──────────┴──────────────────────────┘       │ it writes no more,
//!                                                                                                   ▼ up to here
//!                   Promoting ◀── the replica has it all ── CatchingUp ◀────────── Stopping (if it can be)
//! ```
//!
//! What takes long and changes nothing comes before anybody waits: after a checkpoint the primary stops fast.
//!
//! A primary that is stopped first ends its log with a checkpoint that the replica gets, too, so it can follow afterwards as it
//! is. One that goes on running writes a little past the fork, and has to be rewound.

use super::lease::Lease;
use super::machine::{Machine, State};
use super::observation::{Fault, Receiver, Role};
use super::policy::Mode;
use super::words::{Action, Notice, Order};
use std::time::{Duration, Instant};
use tidegate_core::route::Lsn;

/// A checkpoint before it is given this long; without one, what follows takes longer.
const PREPARATION_TIME_MAX: Duration = Duration::from_secs(60);
/// Transactions in progress are given this long, and the replica the same to have all of the log.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(10);
const PROMOTION_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    to: usize,
    since: Instant,
    stage: Stage,
}

/// Whether the primary may write again when a switchover is given up. Not when the replica may become primary yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    Yes,
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    /// Other Tidegates are told.
    Announcing,
    Draining,
    Settling,
    Stopping {
        end: Lsn,
    },
    CatchingUp {
        end: Lsn,
        stopped: bool,
    },
    Promoting,
}

impl Switch {
    /// Who has been told to become primary.
    pub(super) fn promoted(&self) -> Option<usize> {
        (self.stage == Stage::Promoting).then_some(self.to)
    }
}

impl Machine {
    /// Starts a switchover.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn order(&mut self, order: Order, now: Instant) -> Result<(), &'static str> {
        let to = match order {
            Order::Switchover { to } => to,
            Order::Failover { to, is_forced } => return self.order_failover(to, is_forced, now),
        };
        if self.policy.mode == Mode::External {
            return self.order_switchover_of_patroni(to, now);
        }
        self.may_be_ordered(now)?;
        if self.state != State::Steady {
            return Err("the cluster is not steady: wait until it is");
        }
        let to = match to {
            Some(0) => return Err("it is the primary already"),
            Some(to) => self.follows(to).then_some(to),
            None => (1..self.members.len())
                .filter(|member| self.follows(*member))
                .max_by_key(|member| self.seen(*member).and_then(|seen| seen.position())),
        };
        let to = to.ok_or("no replica that follows the primary is there for it")?;
        self.state = State::Switching(Switch { to, since: now, stage: Stage::Preparing });
        self.tell(Notice::SwitchingOver { to });
        self.push(Action::Prepare);
        Ok(())
    }

    /// The primary has made a checkpoint, or could not.
    pub fn handle_prepared(&mut self, now: Instant) {
        if let State::Switching(switch) = &mut self.state
            && switch.stage == Stage::Preparing
        {
            let to = switch.to;
            (switch.stage, switch.since) = (Stage::Announcing, now);
            match self.policy.mode {
                Mode::Etcd => self.push(Action::Announce { member: to }),
                _ => self.handle_announced(true, now),
            }
        }
    }

    /// It is written in etcd who is to be primary, or could not be.
    pub fn handle_announced(&mut self, is_written: bool, now: Instant) {
        if let State::Switching(switch) = &mut self.state
            && switch.stage == Stage::Announcing
        {
            if is_written {
                (switch.stage, switch.since) = (Stage::Draining, now);
                self.hold();
            } else {
                self.give_up_switch("it could not be written down in etcd", Undo::No);
            }
        }
    }

    /// Nothing of the primary is lent any more.
    pub fn handle_drained(&mut self, now: Instant) {
        self.handle_drained_for_patroni(now);
        // Nor by other Tidegates, as they have said since.
        let said_since = |lease: &Lease, since| !lease.is_reached && lease.asked_at > since;
        let (mode, lease) = (self.policy.mode, self.lease);
        if let State::Switching(switch) = &mut self.state
            && switch.stage == Stage::Draining
            && (mode != Mode::Etcd || lease.is_some_and(|lease| said_since(&lease, switch.since)))
        {
            (switch.stage, switch.since) = (Stage::Settling, now);
            self.push(Action::Settle);
        }
    }

    /// It writes no more, and has written up to here; or that could not be had.
    pub fn handle_settled(&mut self, end: Option<Lsn>, now: Instant) {
        let State::Switching(switch) = &mut self.state else { return };
        if switch.stage != Stage::Settling {
            return;
        }
        match end {
            Some(end) => {
                switch.since = now;
                if self.policy.has_fence {
                    switch.stage = Stage::Stopping { end };
                    self.push(Action::Fence { member: 0 });
                } else {
                    switch.stage = Stage::CatchingUp { end, stopped: false };
                    self.switch_on(now);
                }
            }
            None => self.give_up_switch("the primary could not be brought to rest", Undo::Yes),
        }
    }

    /// What came of stopping it.
    pub(super) fn handle_stopped(&mut self, stopped: bool, now: Instant) {
        let State::Switching(switch) = &mut self.state else { return };
        let Stage::Stopping { end } = switch.stage else { return };
        if stopped {
            (switch.stage, switch.since) = (Stage::CatchingUp { end, stopped }, now);
            self.switch_on(now);
        } else {
            self.give_up_switch("the primary could not be stopped", Undo::Yes);
        }
    }

    /// Does a switchover wait for transactions to end?
    pub fn is_draining(&self) -> bool {
        match self.state {
            State::Switching(Switch { stage: Stage::Draining, .. }) => true,
            State::Asking(asking) => asking.is_draining(),
            _ => false,
        }
    }

    pub(super) fn switch_on(&mut self, now: Instant) {
        let State::Switching(switch) = self.state else { return };
        let lasted = now.saturating_duration_since(switch.since);
        match switch.stage {
            Stage::Preparing if lasted > PREPARATION_TIME_MAX => self.handle_prepared(now),
            Stage::Draining if lasted > DRAIN_TIME_MAX => {
                self.give_up_switch("transactions in progress did not end in time", Undo::No);
            }
            Stage::Preparing | Stage::Announcing if !self.is_primary_well() => {
                self.give_up_switch("the primary does not answer any more", Undo::No);
            }
            Stage::Draining | Stage::Settling if !self.is_primary_well() => {
                self.give_up_switch("the primary does not answer any more", Undo::Yes);
            }
            // Another Tidegate may act by now.
            Stage::CatchingUp { .. } if !self.may_act(now) => {
                self.give_up_switch("the lease in etcd is lost", Undo::Yes);
            }
            Stage::CatchingUp { end, stopped } => {
                let role = self.seen(switch.to).map(|seen| &seen.role);
                let Some(Role::Replica { received, replayed, receiver, .. }) = role else {
                    return self.give_up_switch("the replica does not answer any more", Undo::Yes);
                };
                // Its last checkpoint comes after `end`, and nothing after that.
                let is_all = !stopped
                    || *receiver != Receiver::Streaming
                        && replayed >= received
                        && *replayed > Some(end);
                if replayed.is_some_and(|replayed| replayed >= end) && is_all {
                    let stage = Stage::Promoting;
                    self.state = State::Switching(Switch { stage, since: now, ..switch });
                    self.tell(Notice::Promoting { member: switch.to });
                    self.push_promotion(switch.to);
                } else if lasted > CATCH_UP_TIME_MAX {
                    self.give_up_switch("the replica did not catch up in time", Undo::Yes);
                }
            }
            // Whoever is gone forgets that it was to become primary (`RemovePromoteSignalFiles` at its next start).
            Stage::Promoting if self.fault(switch.to) == Some(Fault::Refused) => {
                self.give_up_switch("the replica is gone", Undo::Yes);
            }
            Stage::Promoting if lasted > PROMOTION_TIME_MAX => {
                self.asked = Some(switch.to);
                self.give_up_switch(
                    "the replica did not become primary in time, and may do so yet: the old primary stays read-only",
                    Undo::No,
                );
            }
            Stage::Announcing if lasted > DRAIN_TIME_MAX => {
                self.give_up_switch("it could not be written down in etcd in time", Undo::No);
            }
            Stage::Preparing
            | Stage::Announcing
            | Stage::Draining
            | Stage::Settling
            | Stage::Stopping { .. }
            | Stage::Promoting => {}
        }
    }

    pub(super) fn give_up_switch(&mut self, why: &'static str, undo: Undo) {
        if undo == Undo::Yes {
            self.push(Action::Unsettle);
        }
        self.push(Action::Tell(Notice::SwitchedNot(why)));
        self.state = State::Steady;
        self.release();
    }
}
