//! Patroni promotes: whom it calls its leader, and what it is told by operators.

use super::machine::{Machine, State};
use super::policy::Mode;
use super::words::{Action, Notice, Outsider};
use std::time::{Duration, Instant};

/// Who is a primary on a newer timeline is adopted without Patroni's word when that was waited for so long.
const WORD_TIME_MAX: Duration = Duration::from_secs(3);
/// Transactions in progress are given this long.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Patroni answers when it is done, or gives up after twenty seconds, or twice its `loop_wait`.
const ORDER_TIME_MAX: Duration = Duration::from_secs(90);

/// What Patroni has last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Before it was asked.
    pub asked_at: Instant,
    pub leader: Leader,
}

/// Who holds Patroni's leader lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leader {
    Nobody,
    Member(usize),
    /// A server that is not configured here.
    Stranger,
}

/// What Patroni is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Another leader, without loss; `None`: whom Patroni thinks best.
    Switchover { to: Option<usize> },
    /// This one leads, whatever is lost.
    Failover { to: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    request: Request,
    since: Instant,
    is_sent: bool,
}

impl Asking {
    pub(super) fn is_draining(&self) -> bool {
        !self.is_sent
    }
}

impl Machine {
    /// What Patroni says now.
    pub fn handle_managed(&mut self, managed: Managed, now: Instant) {
        self.managed = Some(managed);
        self.tick(now);
    }

    /// Does Patroni, asked since this server was first seen as a primary, say that it leads? Without a word of it for too long,
    /// what the server says of itself counts.
    pub(super) fn is_acknowledged(&self, member: usize, since: Instant, now: Instant) -> bool {
        if self.policy.mode != Mode::External {
            return true;
        }
        match self.managed.filter(|managed| managed.asked_at >= since) {
            Some(managed) => managed.leader == Leader::Member(member),
            None => now.saturating_duration_since(since) >= WORD_TIME_MAX,
        }
    }

    /// A primary that Patroni does not call its leader.
    pub(super) fn tell_unled(&mut self, member: usize, since: Instant) {
        let managed = self.managed.filter(|managed| managed.asked_at >= since);
        let leader = managed.map(|managed| managed.leader);
        if let Some(leader) = leader.filter(|leader| *leader != Leader::Member(member)) {
            self.tell(Notice::Outside(Outsider::NotLeader { member, leader }));
        }
    }

    pub(super) fn order_switchover_of_patroni(
        &mut self,
        to: Option<usize>,
        now: Instant,
    ) -> Result<(), &'static str> {
        if self.state != State::Steady {
            return Err("the cluster is not steady: wait until it is");
        }
        match to {
            Some(0) => return Err("it is the primary already"),
            Some(to) if !self.follows(to) => {
                return Err("it does not follow the primary");
            }
            _ => {}
        }
        let request = Request::Switchover { to };
        self.state = State::Asking(Asking { request, since: now, is_sent: false });
        self.tell(Notice::Outside(Outsider::OrderingSwitchover));
        self.hold();
        Ok(())
    }

    /// The primary is gone, or an operator forces it: there is nothing to wait for.
    pub(super) fn order_failover_of_patroni(&mut self, to: usize, now: Instant) {
        let request = Request::Failover { to };
        self.hold();
        self.state = State::Asking(Asking { request, since: now, is_sent: true });
        self.push(Action::Request(request));
    }

    pub(super) fn handle_drained_for_patroni(&mut self, now: Instant) {
        if let State::Asking(asking) = &mut self.state
            && !asking.is_sent
        {
            (asking.is_sent, asking.since) = (true, now);
            let request = asking.request;
            self.push(Action::Request(request));
        }
    }

    /// What Patroni has answered. That it is done will be seen.
    pub fn handle_requested(&mut self, is_done: bool) {
        if matches!(self.state, State::Asking(_)) && !is_done {
            self.state = State::Steady;
            self.release();
        }
    }

    pub(super) fn request_on(&mut self, asking: Asking, now: Instant) {
        let lasted = now.saturating_duration_since(asking.since);
        match asking.is_sent {
            false if lasted > DRAIN_TIME_MAX => {
                self.give_up_request("transactions in progress did not end in time");
            }
            false if !self.is_primary_well() => {
                self.give_up_request("the primary does not answer any more");
            }
            true if lasted > ORDER_TIME_MAX => {
                self.give_up_request("Patroni has not done it in time, and may do it yet");
            }
            _ => {}
        }
    }

    fn give_up_request(&mut self, why: &'static str) {
        self.push(Action::Tell(Notice::SwitchedNot(why)));
        self.state = State::Steady;
        self.release();
    }
}

/// What Patroni says of one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As Patroni calls it.
    pub name: String,
    /// Which of our servers it is.
    pub member: Option<usize>,
    pub role: PatroniRole,
    /// `running`, `streaming`, `starting`, `stopped`, …
    pub state: String,
    pub timeline: Option<u32>,
    /// Behind the leader, in bytes, as of Patroni's last look.
    pub lag: Option<u64>,
    /// Its tag `noloadbalance` is not set.
    pub is_balanced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatroniRole {
    /// It holds the leader lock.
    Leader,
    /// It holds the lock of a cluster that is a standby of another, where nobody is primary.
    StandbyLeader,
    Replica,
}

/// Who leads. Two leaders are none: that cannot be.
pub fn leader_of(words: &[Word]) -> Leader {
    let mut leaders = words.iter().filter(|word| word.role == PatroniRole::Leader);
    match (leaders.next(), leaders.next()) {
        (Some(leader), None) => leader.member.map_or(Leader::Stranger, Leader::Member),
        _ => Leader::Nobody,
    }
}

impl Word {
    /// May reads go there, as far as Patroni has a say?
    pub fn takes_reads(&self) -> bool {
        self.is_balanced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, Memory, Observation, Order, Policy, Receiver, Role};
    use proptest::prelude::*;
    use tidegate_core::route::Lsn;

    fn word(member: Option<usize>, role: PatroniRole) -> Word {
        Word {
            name: "n".to_owned(),
            member,
            role,
            state: "running".to_owned(),
            timeline: Some(1),
            lag: None,
            is_balanced: true,
        }
    }

    #[test]
    fn who_leads_is_what_exactly_one_says() {
        use PatroniRole::{Leader as L, Replica as R, StandbyLeader as S};
        type Members = [(Option<usize>, PatroniRole)];
        let cases: [(&Members, Leader); 6] = [
            (&[], Leader::Nobody),
            (&[(Some(0), R), (Some(1), R)], Leader::Nobody),
            (&[(Some(0), R), (Some(1), L)], Leader::Member(1)),
            (&[(Some(0), L), (Some(1), L)], Leader::Nobody),
            (&[(Some(0), S), (Some(1), R)], Leader::Nobody),
            (&[(Some(0), R), (None, L)], Leader::Stranger),
        ];
        for (members, expected) in cases {
            let words: Vec<Word> =
                members.iter().map(|(member, role)| word(*member, *role)).collect();
            assert_eq!(leader_of(&words), expected);
        }
    }

    fn primary(timeline: u32) -> Observation {
        Observation { system: 7, timeline, role: Role::Primary { written: Lsn(100) } }
    }

    fn replica(timeline: u32) -> Observation {
        let (received, replayed) = (Some(Lsn(100)), Some(Lsn(100)));
        let role =
            Role::Replica { received, replayed, receiver: Receiver::Streaming, paused: false };
        Observation { system: 7, timeline, role }
    }

    fn machine(start: Instant) -> Machine {
        let policy = Policy { mode: Mode::External, ..Policy::default() };
        let mut machine = Machine::new(policy, Memory::default(), 3, start);
        machine.handle_observed(0, primary(1), start);
        machine.handle_observed(1, replica(1), start);
        machine.handle_observed(2, replica(1), start);
        while machine.poll_action().is_some() {}
        machine
    }

    fn adopted(machine: &mut Machine) -> Option<usize> {
        std::iter::from_fn(|| machine.poll_action()).find_map(|action| match action {
            Action::Adopt { member } => Some(member),
            _ => None,
        })
    }

    #[test]
    fn patroni_is_asked_when_nothing_is_in_progress_and_its_refusal_ends_it() {
        let start = Instant::now();
        let mut machine = machine(start);
        machine.order(Order::Switchover { to: Some(2) }, start).unwrap();
        assert!(machine.is_held() && machine.is_draining());
        assert!(machine.order(Order::Switchover { to: None }, start).is_err(), "one at a time");
        let asked = |machine: &mut Machine| {
            let request = Action::Request(Request::Switchover { to: Some(2) });
            std::iter::from_fn(|| machine.poll_action()).any(|action| action == request)
        };
        assert!(!asked(&mut machine));
        machine.handle_drained(start);
        assert!(asked(&mut machine) && !machine.is_draining());
        machine.handle_requested(false);
        assert!(!machine.is_held());
        // Transactions that do not end end it, too, and Patroni is never asked.
        machine.order(Order::Switchover { to: None }, start).unwrap();
        machine.tick(start + DRAIN_TIME_MAX + Duration::from_secs(1));
        assert!(!machine.is_held() && !asked(&mut machine));
        // A failover needs a primary that is gone, or force.
        let order = |machine: &mut Machine, is_forced| {
            machine.order(Order::Failover { to: 1, is_forced }, start)
        };
        assert!(order(&mut machine, false).is_err());
        order(&mut machine, true).unwrap();
        let request = Action::Request(Request::Failover { to: 1 });
        assert!(std::iter::from_fn(|| machine.poll_action()).any(|action| action == request));
    }

    #[test]
    fn whoever_leads_on_the_timeline_of_a_configured_primary_that_is_a_replica_is_found() {
        let start = Instant::now();
        let policy = Policy { mode: Mode::External, ..Policy::default() };
        let mut machine = Machine::new(policy, Memory::default(), 2, start);
        machine.handle_observed(0, replica(5), start);
        machine.handle_observed(1, primary(5), start);
        machine.handle_managed(Managed { asked_at: start, leader: Leader::Member(1) }, start);
        assert_eq!(adopted(&mut machine), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 5: a primary that Patroni, asked since, does not call its leader gets no writes, however new its timeline.
        #[test]
        fn a_primary_is_adopted_by_patronis_word_or_its_silence_alone(
            timeline in 2..9_u32,
            words in proptest::collection::vec((0..4_000_u64, 0..4_usize), 0..8),
        ) {
            let start = Instant::now();
            let mut machine = machine(start);
            machine.handle_fault(0, Fault::Refused, start);
            machine.handle_observed(1, primary(timeline), start);
            let (mut now, mut is_due, mut is_told) = (start, false, false);
            for (pause, leader) in words {
                now += Duration::from_millis(pause);
                machine.handle_observed(1, primary(timeline), now);
                is_due |= !is_told && now >= start + WORD_TIME_MAX;
                let leader = match leader {
                    0 => Leader::Nobody,
                    3 => Leader::Stranger,
                    member => Leader::Member(member),
                };
                is_due |= leader == Leader::Member(1);
                is_told = true;
                machine.handle_managed(Managed { asked_at: now, leader }, now);
                if is_due {
                    break;
                }
            }
            prop_assert_eq!(adopted(&mut machine).is_some(), is_due);
        }
    }
}
