//! Several Tidegates on one cluster: which of them may promote, and what each may do meanwhile.
//!
//! The one that leads (see [`super::Keeper`]) writes down whom it is about to promote before it does (a claim), once in each
//! epoch, and only while every other says that it has lost the primary, which means: that it sends no writes there. A Tidegate
//! that has said so sends none before it has taken it back and has seen that there is no claim. So there is no moment in which
//! one writes to the old primary and another to the new one; but for one that etcd has lost, which goes on as long as it sees all
//! replicas follow the primary.

use super::machine::{Machine, PROMOTION_TIME_MAX, State};
use super::member::Suspicion;
use super::observation::{ANSWER_AGE_MAX, Fault, Receiver, Role};
use super::policy::Mode;
use super::words::{Notice, Outsider};
use std::time::Instant;

/// Whom somebody was about to promote, or has promoted: what etcd keeps of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub system: u64,
    /// The server's address.
    pub server: String,
    /// On which it is primary, once that is done.
    pub timeline: u32,
    pub is_done: bool,
    /// Of whoever wrote it.
    pub epoch: u64,
}

/// What etcd has last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Before it was asked.
    pub asked_at: Instant,
    /// Our lease stands at least so long.
    pub until: Instant,
    /// We lead, since this revision.
    pub epoch: Option<u64>,
    /// Of the store, at the time.
    pub revision: u64,
    /// The others were told that we have lost the primary.
    pub said_lost: bool,
    /// Another Tidegate that has not lost the primary.
    pub reached_by: Option<String>,
    pub record: Option<Record>,
}

impl LeaseView {
    /// May this be the promotion of this epoch, as far as it goes?
    pub fn is_unused(&self) -> bool {
        match (self.epoch, &self.record) {
            (Some(epoch), Some(record)) => record.epoch < epoch,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// The same for a machine, which knows servers by number.
    pub fn for_machine(&self, member_of: impl Fn(&str) -> Option<usize>) -> Lease {
        Lease {
            asked_at: self.asked_at,
            until: self.until,
            leads: self.epoch.is_some(),
            said_lost: self.said_lost,
            is_reached: self.reached_by.is_some(),
            claim: self.record.as_ref().map(|record| Claim {
                system: record.system,
                member: member_of(&record.server),
                timeline: record.timeline,
                is_done: record.is_done,
            }),
        }
    }
}

/// What the machine is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub asked_at: Instant,
    pub until: Instant,
    pub leads: bool,
    pub said_lost: bool,
    /// Another Tidegate has not lost the primary.
    pub is_reached: bool,
    pub claim: Option<Claim>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub system: u64,
    /// `None`: a server that is not configured here.
    pub member: Option<usize>,
    pub timeline: u32,
    pub is_done: bool,
}

/// A server that is not configured here.
const UNKNOWN_MEMBER: usize = usize::MAX;

impl Machine {
    /// What etcd says now.
    pub fn handle_lease(&mut self, lease: Lease, now: Instant) {
        // What is written of another cluster's servers says nothing of these.
        let is_ours =
            |claim: &Claim| self.memory.system.is_none_or(|system| system == claim.system);
        let lease = Lease { claim: lease.claim.filter(is_ours), ..lease };
        self.lease = Some(lease);
        self.led_since = match lease.leads {
            true => self.led_since.or(Some(now)),
            false => None,
        };
        if let Some(claim) = lease.claim {
            if claim.is_done {
                // Who is primary on an older one is none, however well it seems.
                self.floor = claim.timeline;
            }
            if !claim.is_done && lease.leads && self.asked.is_none() {
                self.asked = Some(claim.member.unwrap_or(UNKNOWN_MEMBER));
            } else if claim.is_done && self.state == State::Steady {
                self.asked = None;
            }
        }
        self.tick(now);
    }

    /// Somebody else manages these servers: whoever promotes beside it makes two primaries.
    pub fn handle_managed_by_others(&mut self) {
        self.is_foreign = true;
        self.tell(Notice::Outside(Outsider::Foreign));
    }

    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// This process is about to end: may it give up its lease? Not while somebody may become primary by its word, for that holds no
    /// longer than the lease, and who leads next takes it for void. From then on it changes nothing.
    pub fn leave(&mut self) -> bool {
        let is_idle =
            matches!(self.state, State::Unknown { .. } | State::Steady | State::Suspect(_));
        self.leaves |= is_idle && self.asked.is_none();
        self.leaves
    }

    pub fn is_leaving(&self) -> bool {
        self.leaves
    }

    /// May this Tidegate change who is primary, and what replicas do?
    pub fn may_act(&self, now: Instant) -> bool {
        if self.leaves {
            return false;
        }
        let leads = || self.lease.is_some_and(|lease| lease.leads && now < lease.until);
        match self.policy.mode {
            Mode::Embedded => !self.is_foreign,
            Mode::Etcd => !self.is_foreign && leads(),
            Mode::Off | Mode::Follow | Mode::External => false,
        }
    }

    /// May it promote somebody, since the primary is gone? `None`: that is not known yet.
    pub(super) fn may_promote(&self, of: Suspicion, now: Instant) -> Result<(), Option<Notice>> {
        if self.is_foreign {
            return Err(Some(Notice::Outside(Outsider::Foreign)));
        }
        if self.leaves {
            return Err(Some(Notice::Outside(Outsider::LeftToOthers)));
        }
        match (self.policy.mode, self.lease) {
            (Mode::Embedded, _) => Ok(()),
            (Mode::Etcd, Some(lease)) if now < lease.until => match lease {
                Lease { leads: false, .. } => Err(Some(Notice::Outside(Outsider::LeftToOthers))),
                // Who is gone was replaced already, by one that we may not reach.
                Lease { claim: Some(Claim { is_done: true, member, .. }), .. }
                    if member != Some(0) =>
                {
                    Err(Some(Notice::Outside(Outsider::OtherInForce)))
                }
                // What was said before that tells nothing of it.
                Lease { asked_at, .. } if asked_at < of.since => Err(None),
                Lease { asked_at, .. }
                    if now.saturating_duration_since(asked_at) >= ANSWER_AGE_MAX =>
                {
                    Err(None)
                }
                Lease { is_reached: true, .. }
                    if now.saturating_duration_since(of.since) <= ANSWER_AGE_MAX =>
                {
                    Err(None)
                }
                Lease { is_reached: true, .. } => {
                    Err(Some(Notice::Outside(Outsider::ReachedByOthers)))
                }
                Lease { said_lost: false, .. } => Err(None),
                Lease { .. } => Ok(()),
            },
            (Mode::Etcd, _) => Err(Some(Notice::Outside(Outsider::NoLease))),
            (Mode::Off | Mode::Follow | Mode::External, _) => Err(None),
        }
    }

    /// Is it certain that no other Tidegate has another primary?
    pub(super) fn may_write(&self, now: Instant) -> bool {
        if self.policy.mode != Mode::Etcd {
            return true;
        }
        match self.lease.filter(|lease| now < lease.until) {
            Some(lease) => {
                let claim = lease.claim.filter(|claim| !claim.is_done);
                !lease.said_lost && claim.is_none_or(|claim| self.is_void(claim, now))
            }
            None => self.do_all_follow(now),
        }
    }

    /// Whoever it is about is the primary in force; or we lead, so nobody tells it to become primary any more: has it never been
    /// told, or has it forgotten?
    fn is_void(&self, claim: Claim, now: Instant) -> bool {
        if claim.member == Some(0) {
            return true;
        }
        let Some(since) = self.led_since else { return false };
        // It ends its receiver before anything else.
        let receives = |member: usize| {
            let heard = self.heard(member, since, now);
            heard.is_some_and(|seen| {
                matches!(seen.role, Role::Replica { receiver: Receiver::Streaming, .. })
            })
        };
        let is_gone = |member: usize| self.fault(member) == Some(Fault::Refused);
        claim.member.is_some_and(|member| receives(member) || is_gone(member))
            || now.saturating_duration_since(since) >= PROMOTION_TIME_MAX
    }

    /// Unless something else is heard until then, writes may not go to the primary any more; `None`: they may.
    pub fn writes_until(&self, now: Instant) -> Option<Instant> {
        if self.policy.mode != Mode::Etcd {
            return None;
        }
        match self.lease.filter(|lease| now < lease.until) {
            Some(lease) => Some(lease.until),
            None if self.do_all_follow(now) => Some(now + ANSWER_AGE_MAX),
            None => Some(now),
        }
    }

    /// Why nothing is sent to a primary that answers; `None`: that is over in a moment.
    pub(super) fn why_not_written(&self, now: Instant) -> Option<Notice> {
        let stands = self.lease.is_some_and(|lease| now < lease.until);
        match stands {
            true if self.is_claimed_by_another() => {
                Some(Notice::Outside(Outsider::ClaimedByOthers))
            }
            true => None,
            false => Some(Notice::Outside(Outsider::Isolated)),
        }
    }

    /// Every replica receives from the primary in force: so nobody was promoted.
    fn do_all_follow(&self, now: Instant) -> bool {
        let follows = |member: &super::member::Member| {
            member.trouble.is_none()
                && member.seen.as_ref().is_some_and(|(seen, at)| {
                    let receives =
                        matches!(seen.role, Role::Replica { receiver: Receiver::Streaming, .. });
                    receives
                        && now.saturating_duration_since(*at) < ANSWER_AGE_MAX
                        && seen.timeline >= self.memory.timeline
                })
        };
        self.members.len() > 1 && self.members.iter().skip(1).all(follows)
    }

    /// It answers as the primary that it should be, and writes may go there.
    pub(super) fn is_in_force(&self, now: Instant) -> bool {
        self.is_primary_well() && self.may_write(now)
    }

    /// Another Tidegate is about to promote somebody.
    fn is_claimed_by_another(&self) -> bool {
        self.lease
            .is_some_and(|lease| !lease.leads && lease.claim.is_some_and(|claim| !claim.is_done))
    }

    /// What the other Tidegates are to be told: no statement goes to the primary from here. `in_use`: the connections to it on
    /// which statements, or transactions, are in progress.
    pub fn says_lost(&self, in_use: usize) -> bool {
        let is_given_up = self.told.contains(&Notice::HeldTooLong);
        match self.state {
            State::Suspect(_) | State::Fencing(_) | State::Promoting { .. } => {
                let is_gone = !self.is_primary_well();
                is_gone && (self.held || is_given_up)
                    || self.held && self.is_claimed_by_another() && in_use == 0
            }
            State::Switching(_) => self.held && in_use == 0,
            State::Unknown { .. } | State::Steady | State::Asking(_) | State::Adopted => false,
        }
    }

    /// What is to be written down when it is not there yet, by whoever leads: who is the primary.
    pub fn is_settled(&self) -> bool {
        self.state == State::Steady && self.is_primary_well() && self.memory.timeline > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Fault, Memory, Observation, Order, Policy, Status};
    use std::time::Duration;
    use tidegate_core::route::Lsn;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn lease(asked_at: Instant) -> Lease {
        let until = asked_at + Duration::from_secs(5);
        Lease { asked_at, until, leads: true, said_lost: false, is_reached: false, claim: None }
    }

    fn replica(receiver: Receiver) -> Observation {
        let (received, replayed) = (Some(Lsn(100)), Some(Lsn(100)));
        let role = Role::Replica { received, replayed, receiver, paused: false };
        Observation { system: 7, timeline: 1, role }
    }

    fn machine(start: Instant, lease: Lease) -> Machine {
        let policy = Policy { mode: Mode::Etcd, ..Policy::default() };
        let mut machine = Machine::new(policy, Memory::default(), 2, start);
        machine.handle_lease(lease, start);
        let role = Role::Primary { written: Lsn(100) };
        machine.handle_observed(0, Observation { system: 7, timeline: 1, role }, start);
        machine.handle_observed(1, replica(Receiver::Streaming), start);
        assert_eq!(machine.status(), Status::Steady);
        while machine.poll_action().is_some() {}
        machine
    }

    fn actions(machine: &mut Machine) -> Vec<Action> {
        std::iter::from_fn(|| machine.poll_action()).collect()
    }

    #[test]
    fn a_switchover_begins_when_every_other_has_stopped_and_ends_with_the_lease() {
        let start = Instant::now();
        let order = |machine: &mut Machine| machine.order(Order::Switchover { to: None }, start);
        let mut follower = machine(start, Lease { leads: false, ..lease(start) });
        assert!(order(&mut follower).unwrap_err().contains("the lease in etcd is not held here"));
        let mut machine = machine(start, lease(start));
        order(&mut machine).unwrap();
        assert!(actions(&mut machine).contains(&Action::Prepare));
        machine.handle_prepared(at(start, 1));
        assert_eq!(actions(&mut machine), [Action::Announce { member: 1 }]);
        assert!(!machine.is_held());
        machine.handle_announced(true, at(start, 2));
        assert!(machine.is_held() && machine.is_draining());
        let settles = |machine: &mut Machine| actions(machine).contains(&Action::Settle);
        machine.handle_drained(at(start, 3));
        assert!(!settles(&mut machine), "nobody has said anything since");
        machine.handle_lease(Lease { is_reached: true, ..lease(at(start, 4)) }, at(start, 5));
        machine.handle_drained(at(start, 5));
        assert!(!settles(&mut machine), "another goes on");
        machine.handle_lease(lease(at(start, 6)), at(start, 7));
        machine.handle_drained(at(start, 7));
        assert!(settles(&mut machine));
        // The replica has everything when the lease has run out.
        machine.handle_settled(Some(Lsn(200)), at(start, 8));
        machine.tick(at(start, 5_100));
        let done = actions(&mut machine);
        assert!(done.contains(&Action::Unsettle), "{done:?}");
        assert!(!done.iter().any(|action| matches!(action, Action::Promote { .. })));
    }

    #[test]
    fn who_ends_leaves_unless_somebody_may_become_primary_by_its_word_and_acts_no_more() {
        let start = Instant::now();
        let mut steady = machine(start, lease(start));
        assert!(steady.may_act(start) && steady.leave() && steady.is_leaving());
        assert!(!steady.may_act(start));
        assert!(steady.order(Order::Switchover { to: None }, start).is_err());
        let mut machine = machine(start, lease(start));
        machine.order(Order::Switchover { to: None }, start).unwrap();
        machine.handle_prepared(at(start, 1));
        machine.handle_announced(true, at(start, 2));
        machine.handle_lease(lease(at(start, 3)), at(start, 4));
        machine.handle_drained(at(start, 4));
        machine.handle_settled(Some(Lsn(50)), at(start, 5));
        assert!(actions(&mut machine).contains(&Action::Promote { member: 1 }));
        assert!(!machine.leave());
        // It is given up, and the word may arrive yet.
        machine.tick(at(start, 40_000));
        assert_eq!((machine.status(), machine.asked()), (Status::Steady, Some(1)));
        assert!(!machine.leave() && !machine.is_leaving());
    }

    /// What is done when the primary dies, and what is told.
    fn failed_over(lease_of: impl Fn(Instant) -> Option<Lease>, is_foreign: bool) -> Vec<Action> {
        let start = Instant::now();
        let mut machine = machine(start, lease(start));
        if is_foreign {
            machine.handle_managed_by_others();
        }
        let mut done = Vec::new();
        for round in 1..400_u64 {
            let now = at(start, 25 * round);
            machine.handle_fault(0, Fault::Refused, now);
            machine.handle_observed(1, replica(Receiver::Gone), now);
            if let Some(lease) = lease_of(now) {
                machine.handle_lease(lease, now);
            }
            done.extend(actions(&mut machine));
        }
        done
    }

    #[test]
    fn nobody_is_promoted_without_the_lease_or_against_another() {
        let lost = |now| Lease { said_lost: true, ..lease(now) };
        let claim =
            |member, is_done| Claim { system: 7, member: Some(member), timeline: 2, is_done };
        let promoted =
            |done: &[Action]| done.iter().any(|action| matches!(action, Action::Promote { .. }));
        let told = |done: &[Action], outsider: Outsider| {
            done.contains(&Action::Tell(Notice::Outside(outsider)))
        };
        assert!(promoted(&failed_over(|now| Some(lost(now)), false)));
        let done = failed_over(|_| None, false);
        assert!(!promoted(&done) && told(&done, Outsider::NoLease), "{done:?}");
        let done = failed_over(|now| Some(Lease { leads: false, ..lost(now) }), false);
        assert!(!promoted(&done) && told(&done, Outsider::LeftToOthers), "{done:?}");
        let done = failed_over(|now| Some(Lease { is_reached: true, ..lost(now) }), false);
        assert!(!promoted(&done) && told(&done, Outsider::ReachedByOthers), "{done:?}");
        let other = |now| Lease { claim: Some(claim(1, true)), ..lost(now) };
        let done = failed_over(|now| Some(other(now)), false);
        assert!(!promoted(&done) && told(&done, Outsider::OtherInForce), "{done:?}");
        let done = failed_over(|now| Some(lost(now)), true);
        assert!(!promoted(&done) && told(&done, Outsider::Foreign), "{done:?}");
        // Whom the one before was about to promote may be promoted; what is written of another cluster is nothing.
        let begun = |now| Lease { claim: Some(claim(1, false)), ..lost(now) };
        assert!(promoted(&failed_over(|now| Some(begun(now)), false)));
        let foreign = Claim { system: 8, ..claim(1, true) };
        let strange = |now| Lease { claim: Some(foreign), ..lost(now) };
        assert!(promoted(&failed_over(|now| Some(strange(now)), false)));
    }
}
