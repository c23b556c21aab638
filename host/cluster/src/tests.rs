//! The parts by themselves.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};
use tidegate_core::route::Lsn;

fn replica(received: u64, replayed: u64, receiver: Receiver) -> Observation {
    let role = Role::Replica {
        received: Some(Lsn(received)),
        replayed: Some(Lsn(replayed)),
        receiver,
        paused: false,
    };
    Observation { system: 7, timeline: 1, role }
}

fn primary(timeline: u32) -> Observation {
    Observation { system: 7, timeline, role: Role::Primary { written: Lsn(100) } }
}

#[test]
fn replicas_testify() {
    let (gone, streaming) = (replica(1, 1, Receiver::Gone), replica(1, 1, Receiver::Streaming));
    let hidden = replica(1, 1, Receiver::Hidden);
    let cases: [(&[Option<&Observation>], Testimony); 8] = [
        (&[], Testimony::TooFew),
        (&[Some(&gone)], Testimony::Gone),
        (&[Some(&gone), None], Testimony::Gone),
        (&[Some(&gone), None, None], Testimony::TooFew),
        (&[Some(&gone), Some(&streaming)], Testimony::Streaming),
        (&[Some(&hidden), None], Testimony::Hidden),
        (&[Some(&hidden), Some(&gone)], Testimony::Gone),
        (&[None, None], Testimony::TooFew),
    ];
    for (known, expected) in cases {
        assert_eq!(testimony(known.iter().copied(), 1), expected, "{known:?}");
    }
    // Who receives on an older timeline receives from somebody else.
    assert_eq!(testimony([Some(&streaming)], 2), Testimony::Gone);
}

#[test]
fn what_stands_against_a_replica_is_told() {
    let memory =
        Memory { system: Some(7), timeline: 1, written: Lsn(3 << 20), ..Memory::default() };
    let other = Observation { system: 8, ..replica(3 << 20, 0, Receiver::Gone) };
    let behind = replica(1 << 20, 1 << 20, Receiver::Gone);
    let older = Observation { timeline: 3, ..replica(3 << 20, 0, Receiver::Gone) };
    let lone = primary(1);
    let seen = [None, Some(&other), Some(&behind), Some(&older), Some(&lone)];
    let electors = seen.into_iter().enumerate().map(|(at, seen)| Elector { member: at + 1, seen });
    let elected = elect(electors, &memory, &Policy::default());
    assert_eq!(elected.member, None);
    assert_eq!(
        elected.against,
        [
            (1, NotEligible::NoAnswer),
            (2, NotEligible::OtherSystem),
            (3, NotEligible::Lags { bytes: 2 << 20 }),
            (4, NotEligible::OtherTimeline { timeline: 3 }),
            (5, NotEligible::NoReplica),
        ]
    );
    for (_, reason) in elected.against {
        assert!(!reason.sentence().is_empty());
    }
}

#[test]
fn nobody_is_promoted_without_a_fence_that_is_required() {
    for (has_fence, fenced) in [(false, false), (true, false), (true, true)] {
        let start = Instant::now();
        let policy = Policy {
            mode: Mode::Embedded,
            fencing: Fencing::Required,
            has_fence,
            ..Policy::default()
        };
        let mut machine = Machine::new(policy, Memory::default(), 2, start);
        machine.handle_observed(0, primary(1), start);
        machine.handle_observed(1, replica(100, 100, Receiver::Streaming), start);
        let mut actions = Vec::new();
        for round in 0..100_u32 {
            let now = start + Duration::from_millis(10) * round;
            machine.handle_fault(0, Fault::Refused, now);
            machine.handle_observed(1, replica(100, 100, Receiver::Gone), now);
            while let Some(action) = machine.poll_action() {
                if let Action::Fence { member: 0 } = action {
                    machine.handle_fenced(fenced, now);
                }
                actions.push(action);
            }
        }
        let promoted = actions.contains(&Action::Promote { member: 1 });
        assert_eq!(promoted, fenced, "{actions:?}");
        let fences = actions.iter().filter(|action| matches!(action, Action::Fence { .. })).count();
        assert_eq!(fences, usize::from(has_fence), "a fence that fails is not tried again at once");
    }
}

#[test]
fn a_server_that_does_not_belong_is_told_of_once_by_what_it_is() {
    for mode in [Mode::Off, Mode::Follow, Mode::Embedded] {
        let start = Instant::now();
        let policy = Policy { mode, ..Policy::default() };
        let mut machine = Machine::new(policy, Memory::default(), 3, start);
        let foreign = Observation { system: 8, ..primary(1) };
        let mut notices = Vec::new();
        let mut round = 0;
        let mut ask = |second: &Observation, rounds: u32| {
            for _ in 0..rounds {
                round += 1;
                let now = start + Duration::from_millis(200) * round;
                for (member, seen) in [(1, &foreign), (2, second), (0, &primary(1))] {
                    machine.handle_observed(member, seen.clone(), now);
                }
                while let Some(action) = machine.poll_action() {
                    if let Action::Tell(notice) = action {
                        notices.push(notice);
                    }
                }
            }
        };
        let well = replica(100, 100, Receiver::Streaming);
        // A second primary, which is made a replica, and is promoted by somebody once more.
        ask(&primary(1), 10);
        ask(&well, 3);
        ask(&primary(1), 3);
        notices.sort_by_key(|notice| format!("{notice:?}"));
        let twin = Notice::Twin { member: 2 };
        assert_eq!(notices, [Notice::OtherSystem { member: 1 }, twin.clone(), twin], "{mode:?}");
    }
}

#[test]
fn who_was_told_to_become_primary_is_remembered_by_the_next_machine() {
    let start = Instant::now();
    let policy = Policy { mode: Mode::Embedded, ..Policy::default() };
    let mut machine = Machine::new(policy.clone(), Memory::default(), 3, start);
    machine.handle_observed(0, primary(1), start);
    for member in [1, 2] {
        machine.handle_observed(member, replica(100, 100, Receiver::Streaming), start);
    }
    // The primary dies; `better` has most of the log each time.
    let promoted_by = |machine: &mut Machine, better: usize, from: Instant| {
        for round in 0..20_u32 {
            let now = from + Duration::from_millis(20) * round;
            for member in [1, 2] {
                let received = if member == better { 200 } else { 100 };
                machine.handle_observed(member, replica(received, received, Receiver::Gone), now);
            }
            machine.handle_fault(0, Fault::Refused, now);
        }
        std::iter::from_fn(|| machine.poll_action()).find_map(|action| match action {
            Action::Promote { member } => Some(member),
            _ => None,
        })
    };
    let from = start + Duration::from_millis(100);
    assert_eq!(promoted_by(&mut machine, 1, from), Some(1));
    assert_eq!(machine.asked(), Some(1));
    // A reload in that moment: whoever has most of the log by now, the first may become primary yet.
    let memory = *machine.memory();
    let again = || Machine::new(policy.clone(), memory, 3, from);
    assert_eq!(promoted_by(&mut again(), 2, from), Some(2), "without the memory of it");
    let mut next = again().with_asked(machine.asked());
    assert_eq!(promoted_by(&mut next, 2, from), Some(1));
    // Once it is gone it forgets that it was told to, and another takes over.
    let mut next = again().with_asked(Some(1));
    let gone = from + Duration::from_secs(1);
    next.handle_fault(1, Fault::Refused, gone);
    for round in 0..20_u32 {
        let now = gone + Duration::from_millis(20) * round;
        next.handle_observed(2, replica(100, 100, Receiver::Gone), now);
        next.handle_fault(0, Fault::Refused, now);
    }
    assert!(std::iter::from_fn(|| next.poll_action()).any(|a| a == Action::Promote { member: 2 }));
    // A primary that is back ends it.
    let mut next = again().with_asked(Some(1));
    next.handle_observed(0, primary(1), from + Duration::from_secs(2));
    assert_eq!((next.status(), next.asked()), (Status::Steady, None));
}

#[test]
fn an_operator_may_have_another_primary_whatever_is_lost() {
    let start = Instant::now();
    for (has_fence, fencing) in
        [(false, Fencing::BestEffort), (true, Fencing::BestEffort), (true, Fencing::Required)]
    {
        let policy = Policy { mode: Mode::Embedded, has_fence, fencing, ..Policy::default() };
        let mut machine = Machine::new(policy, Memory::default(), 3, start);
        machine.handle_observed(0, primary(1), start);
        machine.handle_observed(1, replica(100, 100, Receiver::Streaming), start);
        machine.handle_observed(2, replica(40, 40, Receiver::Streaming), start);
        while machine.poll_action().is_some() {}
        let order = |machine: &mut Machine, to, is_forced| {
            machine.order(Order::Failover { to, is_forced }, start)
        };
        assert!(order(&mut machine, 2, false).unwrap_err().contains("the primary answers"));
        assert!(order(&mut machine, 0, true).is_err());
        assert_eq!((machine.lacks(1), machine.lacks(2)), (Some(0), Some(60)));
        // Whoever lacks much is promoted as well: it is the operator's word.
        order(&mut machine, 2, true).unwrap();
        assert!(machine.is_held());
        assert!(order(&mut machine, 1, true).is_err(), "one at a time");
        if has_fence {
            assert_eq!(machine.status(), Status::Fencing);
            machine.handle_fenced(fencing == Fencing::Required, start);
        }
        let actions: Vec<Action> = std::iter::from_fn(|| machine.poll_action()).collect();
        assert!(actions.contains(&Action::Promote { member: 2 }), "{actions:?}");
        machine.handle_observed(2, primary(2), start);
        let adopted = std::iter::from_fn(|| machine.poll_action())
            .any(|action| action == Action::Adopt { member: 2 });
        assert!(adopted);
    }
    // With fencing required, a primary that could not be stopped keeps its place.
    let policy = Policy {
        mode: Mode::Embedded,
        has_fence: true,
        fencing: Fencing::Required,
        ..Policy::default()
    };
    let mut machine = Machine::new(policy, Memory::default(), 2, start);
    machine.handle_observed(0, primary(1), start);
    machine.handle_observed(1, replica(100, 100, Receiver::Streaming), start);
    machine.order(Order::Failover { to: 1, is_forced: true }, start).unwrap();
    machine.handle_fenced(false, start);
    machine.tick(start);
    let promoted = std::iter::from_fn(|| machine.poll_action())
        .any(|action| matches!(action, Action::Promote { .. }));
    assert_eq!((promoted, machine.status()), (false, Status::Steady));
    // And nobody but who was told to become primary before, and may do so yet.
    let policy = Policy { mode: Mode::Embedded, ..Policy::default() };
    let mut machine = Machine::new(policy, Memory::default(), 3, start).with_asked(Some(1));
    machine.handle_fault(0, Fault::Refused, start);
    machine.handle_observed(1, replica(100, 100, Receiver::Gone), start);
    machine.handle_observed(2, replica(100, 100, Receiver::Gone), start);
    let other = machine.order(Order::Failover { to: 2, is_forced: true }, start);
    assert!(other.unwrap_err().contains("stop it first"));
}

#[test]
fn a_replica_that_has_lost_a_new_primary_can_take_over_before_its_next_checkpoint() {
    let start = Instant::now();
    let policy = Policy { mode: Mode::Embedded, ..Policy::default() };
    let of = |timeline, received, receiver| Observation {
        timeline,
        ..replica(received, received, receiver)
    };
    // It has gone back, or was away: then it is what it says.
    for (received, fault, expected) in
        [(100, None, 2), (99, None, 1), (100, Some(Fault::Refused), 1)]
    {
        let mut machine = Machine::new(policy.clone(), Memory::default(), 2, start);
        machine.handle_observed(0, primary(2), start);
        machine.handle_observed(1, of(2, 100, Receiver::Streaming), start);
        if let Some(fault) = fault {
            machine.handle_fault(1, fault, start);
        }
        for round in 1..10_u32 {
            let now = start + Duration::from_millis(20) * round;
            machine.handle_fault(0, Fault::Refused, now);
            machine.handle_observed(1, of(1, received, Receiver::Gone), now);
        }
        assert_eq!(machine.seen(1).map(|seen| seen.timeline), Some(expected));
        let promoted = std::iter::from_fn(|| machine.poll_action())
            .any(|action| action == Action::Promote { member: 1 });
        assert_eq!(promoted, expected == 2);
    }
}

#[test]
fn two_promoted_servers_are_nobody() {
    let start = Instant::now();
    let policy = Policy { mode: Mode::Follow, ..Policy::default() };
    let mut machine = Machine::new(policy, Memory::default(), 3, start);
    machine.handle_observed(0, primary(1), start);
    machine.handle_fault(0, Fault::Refused, start);
    machine.handle_observed(1, primary(2), start);
    let adopted = std::iter::from_fn(|| machine.poll_action())
        .any(|action| action == Action::Adopt { member: 1 });
    assert!(adopted);
    let policy = Policy { mode: Mode::Follow, ..Policy::default() };
    let mut machine = Machine::new(policy, Memory::default(), 3, start);
    machine.handle_observed(1, primary(2), start);
    machine.handle_observed(2, primary(2), start);
    machine.handle_fault(0, Fault::Refused, start);
    let actions: Vec<Action> = std::iter::from_fn(|| machine.poll_action()).collect();
    assert!(!actions.iter().any(|action| matches!(action, Action::Adopt { .. })), "{actions:?}");
}

/// The machine after a failover to a replica that had `had`.
fn failed_over(had: u64) -> Machine {
    let start = Instant::now();
    let policy = Policy { mode: Mode::Embedded, ..Policy::default() };
    let mut machine = Machine::new(policy.clone(), Memory::default(), 3, start);
    machine.handle_observed(0, primary(1), start);
    for member in [1, 2] {
        machine.handle_observed(member, replica(had, had, Receiver::Streaming), start);
    }
    for round in 1..10_u32 {
        let now = start + Duration::from_millis(20) * round;
        machine.handle_fault(0, Fault::Refused, now);
        machine.handle_observed(1, replica(had, had, Receiver::Gone), now);
        machine.handle_observed(2, replica(had - 1, had - 1, Receiver::Gone), now);
    }
    machine.handle_observed(1, primary(2), start + Duration::from_secs(1));
    let adopted = std::iter::from_fn(|| machine.poll_action())
        .any(|action| action == Action::Adopt { member: 1 });
    assert!(adopted);
    let mut next = Machine::new(policy, *machine.memory(), 3, start);
    next.handle_observed(0, primary(2), start + Duration::from_secs(1));
    next
}

#[test]
fn where_a_primary_was_seen_by_itself_no_replica_of_before_is_read_from() {
    let start = Instant::now();
    let policy = Policy { mode: Mode::Follow, ..Policy::default() };
    let mut machine = Machine::new(policy.clone(), Memory::default(), 3, start);
    machine.handle_observed(0, primary(1), start);
    machine.handle_observed(2, replica(50, 50, Receiver::Streaming), start);
    assert!(machine.may_read(2));
    machine.handle_fault(0, Fault::Refused, start);
    machine.handle_observed(1, primary(2), start);
    let mut next = Machine::new(policy, *machine.memory(), 3, start);
    next.handle_observed(0, primary(2), start);
    next.handle_observed(2, replica(50, 50, Receiver::Gone), start);
    assert!(next.is_unheard(1) && !next.is_unheard(2) && !next.may_read(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Property 7: what a replica of the primary before may show, the one that was promoted had, too.
    #[test]
    fn a_replica_that_has_more_than_the_promoted_had_is_not_read_from(
        had in 2..200_u64, has in 0..400_u64, receives in any::<bool>(), timeline in 1..4_u32,
    ) {
        let mut machine = failed_over(had);
        let receiver = if receives { Receiver::Streaming } else { Receiver::Gone };
        let seen = Observation { timeline, ..replica(has, has, receiver) };
        machine.handle_observed(2, seen, Instant::now());
        prop_assert_eq!(machine.may_read(2), timeline >= 2 || has <= had);
        prop_assert_eq!(machine.follows(2), timeline >= 2);
    }

    // Property 5: nobody is promoted who has less of the log than another that could be.
    #[test]
    fn the_best_is_elected(
        replicas in proptest::collection::vec((0..40_u64, 0..40_u64, any::<bool>(), 1..3_u32), 0..6),
        written in 0..60_u64, lag_max in 0..60_u64,
    ) {
        let memory = Memory { system: Some(7), timeline: 2, written: Lsn(written), ..Memory::default() };
        let policy = Policy { lag_bytes_max: lag_max, ..Policy::default() };
        let seen: Vec<Observation> = replicas
            .iter()
            .map(|(received, replayed, paused, timeline)| Observation {
                system: 7,
                timeline: *timeline,
                role: Role::Replica {
                    received: Some(Lsn(*received)),
                    replayed: Some(Lsn(*received.min(replayed))),
                    receiver: Receiver::Gone,
                    paused: *paused,
                },
            })
            .collect();
        let electors = seen.iter().enumerate().map(|(at, seen)| Elector { member: at + 1, seen: Some(seen) });
        let elected = elect(electors, &memory, &policy);
        let may = |(received, _, paused, timeline): &(u64, u64, bool, u32)| {
            !*paused && *timeline == 2 && written.saturating_sub(*received) <= lag_max
        };
        let most = replicas.iter().filter(|replica| may(replica)).map(|(received, ..)| *received).max();
        let chosen = elected.member.map(|member| &replicas[member - 1]);
        prop_assert_eq!(chosen.map(|(received, ..)| *received), most);
        if let Some(chosen) = chosen {
            prop_assert!(may(chosen));
            let least = |received: u64| {
                let equals = replicas.iter().filter(|other| may(other) && other.0 == received);
                equals.map(|other| received.saturating_sub(other.1)).min()
            };
            prop_assert_eq!(Some(chosen.0.saturating_sub(chosen.1)), least(chosen.0));
        }
        prop_assert_eq!(elected.against.len(), replicas.iter().filter(|replica| !may(replica)).count());
    }
}
