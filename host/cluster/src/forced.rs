//! An operator wants this replica to be primary, whatever is lost.

use super::machine::{Machine, State};
use super::member::Suspicion;
use super::observation::{Fault, Role, bytes_between};
use super::policy::Mode;
use super::witness::Testimony;
use super::words::{Action, Notice};
use std::time::Instant;

impl Machine {
    /// Bytes of what the primary is known to have written that this replica has not; `None`: it does not say.
    pub fn lacks(&self, member: usize) -> Option<u64> {
        let has = self.seen(member)?.position()?;
        (self.memory.timeline > 0).then(|| bytes_between(has, self.memory.written))
    }

    pub(super) fn order_failover(
        &mut self,
        to: usize,
        is_forced: bool,
        now: Instant,
    ) -> Result<(), &'static str> {
        if self.policy.mode != Mode::External {
            self.may_be_ordered(now)?;
        }
        let of = match self.state {
            State::Unknown { .. } | State::Steady => {
                Suspicion { since: now, announced: false, next: now }
            }
            State::Suspect(of) => of,
            State::Fencing(_) | State::Promoting { .. } | State::Adopted => {
                return Err("another server is about to become primary already");
            }
            State::Switching(_) | State::Asking(_) => {
                return Err("a switchover is under way: wait for its end");
            }
        };
        self.may_be_promoted(to)?;
        if !is_forced && self.is_primary_well() {
            return Err("the primary answers: a switchover loses nothing; force it if you must");
        }
        if !is_forced && self.testimony(of, now) == Testimony::Streaming {
            return Err(
                "replicas still receive from the primary, so it lives: force it if you must",
            );
        }
        if self.policy.mode == Mode::External {
            self.order_failover_of_patroni(to, now);
            return Ok(());
        }
        self.hold();
        if self.policy.has_fence {
            self.forced = Some(to);
            self.state = State::Fencing(of);
            self.push(Action::Fence { member: 0 });
        } else {
            self.promote(to, of, now);
        }
        Ok(())
    }

    /// Does this Tidegate promote, now?
    pub(super) fn may_be_ordered(&self, now: Instant) -> Result<(), &'static str> {
        if !self.policy.mode.promotes() {
            return Err(
                "Tidegate promotes nobody here: failover.mode is none of \"embedded\", \"etcd\" and \"external\"",
            );
        }
        if self.is_foreign {
            return Err(
                "Patroni manages these servers, and Tidegate promotes nobody beside it: set failover.mode = \"external\"",
            );
        }
        match self.may_act(now) {
            true => Ok(()),
            false => Err(
                "the lease in etcd is not held here, so another Tidegate may do it: order it of that one",
            ),
        }
    }

    /// Whether it can be made primary at all.
    fn may_be_promoted(&self, to: usize) -> Result<(), &'static str> {
        if to == 0 {
            return Err("it is the primary already");
        }
        let is_other = |asked| asked != to && self.fault(asked) != Some(Fault::Refused);
        if self.asked.is_some_and(is_other) {
            return Err(
                "another replica was told to become primary and may do so yet: stop it first",
            );
        }
        let Some(seen) = self.seen(to) else { return Err("it does not answer") };
        if self.memory.system.is_some_and(|system| system != seen.system) {
            return Err("it is a server of another cluster");
        }
        match seen.role {
            Role::Primary { .. } => Err("it is no replica"),
            Role::Replica { paused: true, .. } => {
                Err("its replay is paused: pg_wal_replay_resume() there first")
            }
            Role::Replica { .. } if seen.timeline < self.memory.timeline => {
                Err("it follows a timeline that was left behind")
            }
            Role::Replica { .. } => Ok(()),
        }
    }

    pub(super) fn promote(&mut self, member: usize, of: Suspicion, now: Instant) {
        self.hold();
        self.state = State::Promoting { member, since: now, of };
        self.tell(Notice::Promoting { member });
        self.push_promotion(member);
    }
}
