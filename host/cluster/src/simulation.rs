//! Whole clusters with faults, in simulated time: many seeds, and what must hold whatever happens.

mod world; // the servers

use super::*;
use proptest::prelude::*;
use world::{Happening, Life, World};

fn world() -> World {
    let mut world = World::new(2, Mode::Embedded);
    world.run(100);
    assert_eq!((world.machine.status(), world.held), (Status::Steady, false));
    assert!(world.acknowledged.len() > 50);
    world
}

#[test]
fn a_killed_primary_is_replaced_in_a_moment_and_the_other_replica_follows() {
    let mut world = world();
    world.happen(Happening::Kill(0));
    world.run(50);
    assert_ne!(world.current(), 0);
    assert!(!world.held && world.longest_hold < 40, "{}", world.longest_hold);
    let before = world.acknowledged.len();
    world.run(100);
    assert!(world.acknowledged.len() > before + 90);
    let other = 3 - world.current();
    assert_eq!(world.servers[other].timeline, 2);
    assert!(world.streams(other));
    // The old one comes back: it is a leftover, and nothing is sent there.
    world.happen(Happening::Revive(0));
    world.run(300);
    assert_ne!(world.current(), 0);
    assert_eq!(world.promotions.len(), 1);
}

#[test]
fn a_hung_primary_is_replaced_when_its_replicas_miss_it() {
    let mut world = world();
    world.happen(Happening::Hang(0));
    world.run(350);
    assert_eq!(world.current(), 0, "the replicas still think that they receive");
    world.run(450);
    assert_ne!(world.current(), 0);
    assert!(!world.held);
}

#[test]
fn nothing_is_promoted_when_the_primary_lives() {
    let cases: [(&str, &[Happening]); 6] = [
        ("cut off from us", &[Happening::Cut(0)]),
        ("full", &[Happening::Fill(0)]),
        ("restarted", &[Happening::Restart(0)]),
        ("a replica dies", &[Happening::Kill(1)]),
        ("both replicas die", &[Happening::Kill(1), Happening::Kill(2)]),
        ("all are cut off from us", &[Happening::Cut(0), Happening::Cut(1), Happening::Cut(2)]),
    ];
    for (name, happenings) in cases {
        let mut world = world();
        happenings.iter().for_each(|happening| world.happen(*happening));
        world.run(2_000);
        assert_eq!((world.current(), world.promotions.len()), (0, 0), "{name}");
        assert!(!world.held, "{name}: statements are not held for ever");
    }
}

#[test]
fn who_only_follows_promotes_nobody_and_follows_who_was_promoted() {
    let mut world = World::new(2, Mode::Follow);
    world.run(100);
    world.happen(Happening::Kill(0));
    world.run(300);
    assert_eq!((world.current(), world.promotions.len(), world.held), (0, 0, true));
    world.servers[2].is_primary = true;
    world.servers[2].timeline = 2;
    world.run(100);
    assert_eq!((world.current(), world.held), (2, false));
}

#[test]
fn a_replica_that_lags_or_is_paused_is_not_promoted() {
    let mut world = world();
    world.machine.policy.lag_bytes_max = 10;
    world.happen(Happening::Pause(1));
    world.run(50);
    world.happen(Happening::Kill(0));
    world.run(100);
    assert_eq!(world.current(), 2);
    let mut world = self::world();
    for replica in [1, 2] {
        world.happen(Happening::Pause(replica));
    }
    world.happen(Happening::Kill(0));
    world.run(500);
    assert_eq!((world.current(), world.promotions.len()), (0, 0));
}

#[test]
fn a_switchover_loses_nothing_and_is_short() {
    let mut world = world();
    let before = world.acknowledged.len();
    world.longest_hold = 0;
    world.happen(Happening::Switchover);
    world.run(100);
    assert_ne!(world.current(), 0);
    assert!(world.longest_hold < 50, "{}", world.longest_hold);
    assert!(world.acknowledged.len() > before + 50);
    assert!(world.reported_lost.is_empty());
}

#[test]
fn a_primary_that_can_be_stopped_is_stopped_before_another_takes_over() {
    let policy = Policy { mode: Mode::Embedded, has_fence: true, ..Policy::default() };
    let mut world = World::with(2, policy);
    world.run(100);
    world.happen(Happening::Switchover);
    world.run(100);
    assert_ne!(world.current(), 0);
    assert_eq!(world.servers[0].life, Life::Dead);
    let old = world.servers[0].log.clone();
    assert!(
        world.servers[world.current()].log.starts_with(&old),
        "the old one can follow as it is"
    );
}

fn happening() -> impl Strategy<Value = Happening> {
    let n = 0..3_usize;
    prop_oneof![
        n.clone().prop_map(Happening::Kill),
        n.clone().prop_map(Happening::Revive),
        n.clone().prop_map(Happening::Hang),
        n.clone().prop_map(Happening::Resume),
        n.clone().prop_map(Happening::Restart),
        n.clone().prop_map(Happening::Fill),
        n.clone().prop_map(Happening::Empty),
        n.clone().prop_map(Happening::Cut),
        n.clone().prop_map(Happening::Mend),
        n.clone().prop_map(Happening::Pause),
        n.prop_map(Happening::Unpause),
        Just(Happening::Switchover),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // Property 5: whatever dies, hangs, is cut off, restarted and comes back: one server at most is promoted to a timeline,
    // commits that clients were told of are on the primary in force or reported lost, and nothing is lost while the primary
    // that had it lives on and is reached.
    #[test]
    fn whatever_happens_no_commit_vanishes_in_silence(
        happenings in proptest::collection::vec((0..400_u64, happening()), 0..12),
        replicas in 1..4_usize,
        has_fence: bool,
    ) {
        let mut world = World::with(replicas, Policy { mode: Mode::Embedded, has_fence, ..Policy::default() });
        world.run(30);
        for (pause, happening) in happenings {
            world.happen(happening);
            world.run(pause);
        }
        let mut timelines: Vec<u32> = world.promotions.iter().map(|(_, timeline)| *timeline).collect();
        timelines.sort_unstable();
        let count = timelines.len();
        timelines.dedup();
        prop_assert_eq!(timelines.len(), count, "two servers were promoted to one timeline: {:?}", world.promotions);
        let kept = world.kept(world.current());
        for commit in &world.acknowledged {
            let is_kept = kept.contains(commit);
            prop_assert!(is_kept || world.reported_lost.contains(commit), "{commit} vanished");
        }
        // Everybody is well again, and what a switchover that was given up has left is undone by hand: writes go on.
        for server in 0..world.servers.len() {
            for happening in [Happening::Revive(server), Happening::Mend(server), Happening::Unpause(server)] {
                world.happen(happening);
            }
        }
        world.run(7_000);
        world.settled &= world.machine.status() == Status::SwitchingOver;
        let before = world.acknowledged.len();
        world.run(100);
        prop_assert!(world.acknowledged.len() > before, "{:?} held {}", world.machine.status(), world.held);
    }
}
