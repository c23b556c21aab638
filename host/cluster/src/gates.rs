//! Several Tidegates on one cluster, with one etcd, in simulated time: whatever dies, is paused, or is cut off from whom.

mod world; // servers, an etcd, and Tidegates

use crate::Status;
use proptest::prelude::*;
use world::{Happening, World};

fn world() -> World {
    let mut world = World::new(2, 2);
    world.run(200);
    assert_eq!(world.targets(), [Some(0), Some(0)], "both write to the first");
    assert!(world.leader().is_some());
    world
}

#[test]
fn of_two_one_promotes_and_both_follow() {
    let mut world = world();
    world.happen(Happening::Kill(0));
    world.run(300);
    assert_eq!(world.promotions.len(), 1);
    let server = world.promotions[0].server;
    assert_eq!(world.targets(), [Some(server), Some(server)]);
}

#[test]
fn whoever_wakes_without_its_lease_promotes_nobody() {
    let mut world = world();
    let leader = world.leader().unwrap();
    world.happen(Happening::Pause(leader));
    world.happen(Happening::Kill(0));
    world.run(1_000);
    assert_eq!(world.promotions.len(), 1);
    assert_ne!(world.promotions[0].gate, leader);
    world.happen(Happening::Wake(leader));
    world.run(500);
    assert_eq!(world.promotions.len(), 1);
    let server = world.promotions[0].server;
    assert_eq!(world.targets(), [Some(server), Some(server)]);
}

#[test]
fn nothing_is_promoted_while_another_reaches_the_primary() {
    let mut world = world();
    let leader = world.leader().unwrap();
    // The replicas have lost it, too: it is only the other Tidegate that knows better.
    world.happen(Happening::CutServer(leader, 0));
    world.happen(Happening::Orphan);
    world.run(2_000);
    assert_eq!(world.promotions.len(), 0);
    assert_eq!(world.targets()[1 - leader], Some(0));
}

#[test]
fn without_etcd_the_service_goes_on_and_nobody_is_promoted() {
    let mut world = world();
    world.happen(Happening::LoseEtcd);
    world.run(2_000);
    assert_eq!(world.targets(), [Some(0), Some(0)]);
    world.happen(Happening::Kill(0));
    world.run(1_000);
    assert_eq!(world.promotions.len(), 0);
    world.happen(Happening::FindEtcd);
    world.run(1_000);
    assert_eq!(world.promotions.len(), 1);
}

#[test]
fn who_has_lost_etcd_and_a_replica_writes_no_more() {
    let mut world = world();
    world.happen(Happening::CutEtcd(0));
    world.happen(Happening::CutServer(0, 1));
    world.run(2_000);
    assert_eq!(world.targets(), [None, Some(0)]);
    world.happen(Happening::MendEtcd(0));
    world.run(200);
    assert_eq!(world.targets(), [Some(0), Some(0)]);
}

#[test]
fn who_ends_gives_its_lease_up_and_the_other_leads_at_once() {
    let mut world = world();
    let leader = world.leader().unwrap();
    world.happen(Happening::Leave(leader));
    world.happen(Happening::Kill(0));
    // A quarter of what its lease would have stood for.
    world.run(150);
    assert_eq!(world.leader(), Some(1 - leader));
    world.run(150);
    assert_eq!(world.promotions.len(), 1);
    assert_eq!(world.targets()[1 - leader], Some(world.promotions[0].server));
    // Another in its place finds the new primary, whatever its configuration says.
    world.happen(Happening::Join(leader));
    world.run(300);
    assert_eq!(world.targets()[leader], Some(world.promotions[0].server));
}

#[test]
fn who_ends_keeps_its_lease_until_its_promotion_is_over() {
    let mut world = world();
    let leader = world.leader().unwrap();
    world.happen(Happening::Kill(0));
    while world.states()[leader] != Status::Promoting {
        world.run(1);
    }
    world.happen(Happening::Leave(leader));
    while world.states()[leader] == Status::Promoting {
        assert!(world.holds_lease(leader));
        world.run(1);
    }
    world.run(300);
    assert_eq!(world.promotions.len(), 1);
    assert_eq!((world.leader(), world.promotions[0].gate), (Some(1 - leader), leader));
    assert_eq!(world.targets()[1 - leader], Some(world.promotions[0].server));
}

fn happening() -> impl Strategy<Value = Happening> {
    let (gate, server) = (0..2_usize, 0..3_usize);
    prop_oneof![
        server.clone().prop_map(Happening::Kill),
        server.clone().prop_map(Happening::Revive),
        server.clone().prop_map(Happening::Hang),
        server.clone().prop_map(Happening::Resume),
        gate.clone().prop_map(Happening::Pause),
        gate.clone().prop_map(Happening::Wake),
        gate.clone().prop_map(Happening::Leave),
        gate.clone().prop_map(Happening::Join),
        gate.clone().prop_map(Happening::CutEtcd),
        gate.clone().prop_map(Happening::MendEtcd),
        (gate.clone(), server.clone())
            .prop_map(|(gate, server)| Happening::CutServer(gate, server)),
        (gate, server).prop_map(|(gate, server)| Happening::MendServer(gate, server)),
        Just(Happening::LoseEtcd),
        Just(Happening::FindEtcd),
        Just(Happening::Orphan),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // Property 5: of several Tidegates no two promote in one epoch, nor to one timeline; and while one that etcd answers writes
    // anywhere, no other server has been promoted. (The world checks the last at each step.)
    #[test]
    fn no_two_promote_in_one_epoch_and_nobody_writes_beside_the_promoted(
        happenings in proptest::collection::vec((0..600_u64, happening()), 0..14),
    ) {
        let mut world = World::new(2, 2);
        world.run(50);
        for (pause, happening) in happenings {
            world.happen(happening);
            world.run(pause);
        }
        let unique = |numbers: Vec<u64>| {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            sorted.dedup();
            sorted.len() == numbers.len()
        };
        let epochs = world.promotions.iter().map(|promotion| promotion.epoch).collect();
        let timelines = world.promotions.iter().map(|one| u64::from(one.timeline)).collect();
        prop_assert!(unique(epochs), "{:?}", world.promotions);
        prop_assert!(unique(timelines), "{:?}", world.promotions);
        // All is well again, and both write to the same server.
        world.mend();
        world.run(8_000);
        let targets = world.targets();
        prop_assert!(targets[0].is_some() && targets[0] == targets[1], "{targets:?} {:?}", world.states());
    }
}
