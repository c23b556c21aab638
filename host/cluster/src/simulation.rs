//! Whole clusters with faults, in simulated time: many seeds, and what must hold whatever happens.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tidegate_core::route::Lsn;

const STEP: Duration = Duration::from_millis(10);
/// A member is asked so often, and at each step while the machine is in a hurry.
const PROBE_STEPS: u64 = 20;
/// A receiver notices a primary that is silent after this (`wal_receiver_timeout`).
const RECEIVER_STEPS: u64 = 400;
const RESTART_STEPS: u64 = 150;

/// What happens to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Up,
    /// Killed: its machine refuses connections.
    Dead,
    /// It accepts connections and says nothing.
    Hung {
        since: u64,
    },
    /// Restarted in an orderly way, and back then.
    Restarting {
        back: u64,
    },
    /// It has no room for us.
    Full,
}

#[derive(Clone, Debug)]
struct Server {
    life: Life,
    is_primary: bool,
    timeline: u32,
    /// Commits that it has, each with the timeline on which it was written.
    log: Vec<(u32, u64)>,
    /// We cannot reach it, though others can.
    cut: bool,
    /// It replays nothing meanwhile.
    paused: bool,
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Kill(usize),
    Revive(usize),
    Hang(usize),
    Resume(usize),
    Restart(usize),
    Fill(usize),
    Empty(usize),
    Cut(usize),
    Mend(usize),
    Pause(usize),
    Unpause(usize),
    Switchover,
}

/// Commits that clients were told of.
#[derive(Debug)]
struct World {
    start: Instant,
    now_step: u64,
    servers: Vec<Server>,
    /// Member of the machine → server.
    order: Vec<usize>,
    machine: Machine,
    held: bool,
    commits: u64,
    acknowledged: Vec<u64>,
    /// Acknowledged, and not had by whom we promoted.
    reported_lost: Vec<u64>,
    promoting: Option<(usize, u64)>,
    settled: bool,
    promotions: Vec<(usize, u32)>,
    held_steps: u64,
    longest_hold: u64,
}

impl World {
    fn new(replicas: usize, mode: Mode) -> Self {
        Self::with(replicas, Policy { mode, ..Policy::default() })
    }

    fn with(replicas: usize, policy: Policy) -> Self {
        let start = Instant::now();
        let server = |is_primary| Server {
            life: Life::Up,
            is_primary,
            timeline: 1,
            log: Vec::new(),
            cut: false,
            paused: false,
        };
        let servers: Vec<Server> = (0..=replicas).map(|n| server(n == 0)).collect();
        Self {
            machine: Machine::new(policy, Memory::default(), servers.len(), start),
            order: (0..servers.len()).collect(),
            servers,
            start,
            now_step: 0,
            held: false,
            commits: 0,
            acknowledged: Vec::new(),
            reported_lost: Vec::new(),
            promoting: None,
            settled: false,
            promotions: Vec::new(),
            held_steps: 0,
            longest_hold: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + STEP * u32::try_from(self.now_step).unwrap()
    }

    fn happen(&mut self, happening: Happening) {
        let now_step = self.now_step;
        let set = |server: &mut Server, life| server.life = life;
        let servers = &mut self.servers;
        let count = servers.len();
        match happening {
            Happening::Kill(n) => set(&mut servers[n % count], Life::Dead),
            Happening::Revive(n) | Happening::Resume(n) | Happening::Empty(n) => {
                set(&mut servers[n % count], Life::Up);
            }
            Happening::Hang(n) => set(&mut servers[n % count], Life::Hung { since: now_step }),
            Happening::Restart(n) => {
                set(&mut servers[n % count], Life::Restarting { back: now_step + RESTART_STEPS });
            }
            Happening::Fill(n) => set(&mut servers[n % count], Life::Full),
            Happening::Cut(n) => servers[n % count].cut = true,
            Happening::Mend(n) => servers[n % count].cut = false,
            Happening::Pause(n) => servers[n % count].paused = true,
            Happening::Unpause(n) => servers[n % count].paused = false,
            Happening::Switchover => {
                let _ = self.machine.order(Order::Switchover { to: None }, self.now());
            }
        }
    }

    /// Does the replica receive from this server?
    fn streams(&self, replica: usize) -> bool {
        let Some(source) = self.source_of(replica) else { return false };
        match self.servers[source].life {
            Life::Up | Life::Full => true,
            Life::Hung { since } => self.now_step < since + RECEIVER_STEPS,
            Life::Dead | Life::Restarting { .. } => false,
        }
    }

    /// The primary on the replica's own timeline.
    fn source_of(&self, replica: usize) -> Option<usize> {
        let timeline = self.servers[replica].timeline;
        self.servers.iter().position(|server| server.is_primary && server.timeline == timeline)
    }

    fn step(&mut self) {
        self.now_step += 1;
        for server in &mut self.servers {
            if let Life::Restarting { back } = server.life
                && back <= self.now_step
            {
                server.life = Life::Up;
            }
        }
        self.write();
        // Replication lags by a step.
        for replica in 0..self.servers.len() {
            let is_up = matches!(self.servers[replica].life, Life::Up | Life::Full);
            if self.servers[replica].is_primary || !is_up || !self.streams(replica) {
                continue;
            }
            let Some(source) = self.source_of(replica) else { continue };
            let sends = matches!(self.servers[source].life, Life::Up | Life::Full);
            if sends && !self.servers[replica].paused {
                // On one timeline each log is the beginning of the primary's.
                let has = self.servers[replica].log.len();
                let new = self.servers[source].log[has..].to_vec();
                self.servers[replica].log.extend(new);
            }
        }
        self.promote_on();
        let is_due = self.machine.is_urgent() || self.now_step.is_multiple_of(PROBE_STEPS);
        if is_due {
            for member in 0..self.order.len() {
                self.probe(member);
                self.perform();
            }
        }
        let now = self.now();
        self.machine.tick(now);
        if self.machine.is_draining() {
            self.machine.handle_drained(now);
        }
        self.perform();
        self.held_steps = if self.held { self.held_steps + 1 } else { 0 };
        self.longest_hold = self.longest_hold.max(self.held_steps);
    }

    /// A client writes through us.
    fn write(&mut self) {
        let target = self.order[0];
        let server = &mut self.servers[target];
        let takes = server.life == Life::Up && server.is_primary && !server.cut;
        if !self.held && takes && !self.settled {
            self.commits += 1;
            server.log.push((server.timeline, self.commits));
            self.acknowledged.push(self.commits);
        }
    }

    fn probe(&mut self, member: usize) {
        if member >= self.order.len() {
            return;
        }
        let index = self.order[member];
        let now = self.now();
        let server = &self.servers[index];
        let fault = match server.life {
            _ if server.cut => Some(Fault::Silent),
            Life::Dead => Some(Fault::Refused),
            Life::Hung { .. } => Some(Fault::Silent),
            Life::Restarting { back } if back - self.now_step > 20 => Some(Fault::Stopping),
            Life::Restarting { .. } => Some(Fault::Refused),
            Life::Full => Some(Fault::Denied),
            Life::Up => None,
        };
        // Silence takes its time.
        if fault == Some(Fault::Silent) && !self.now_step.is_multiple_of(100) {
            return;
        }
        match fault {
            Some(fault) => self.machine.handle_fault(member, fault, now),
            None => {
                let seen = self.observe(index);
                self.machine.handle_observed(member, seen, now);
            }
        }
    }

    fn observe(&self, index: usize) -> Observation {
        let server = &self.servers[index];
        let end = Lsn(server.log.len() as u64);
        let role = if server.is_primary {
            Role::Primary { written: end }
        } else {
            let receiver = if self.streams(index) { Receiver::Streaming } else { Receiver::Gone };
            let paused = server.paused;
            Role::Replica { received: Some(end), replayed: Some(end), receiver, paused }
        };
        Observation { system: 7, timeline: server.timeline, role }
    }

    fn promote_on(&mut self) {
        let Some((index, at)) = self.promoting else { return };
        if at > self.now_step {
            return;
        }
        self.promoting = None;
        let server = &mut self.servers[index];
        if server.life == Life::Up && !server.is_primary {
            server.is_primary = true;
            server.timeline += 1;
            self.promotions.push((index, server.timeline));
        }
    }

    fn perform(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            let now = self.now();
            match action {
                Action::Hold => self.held = true,
                Action::Release => self.held = false,
                Action::Fence { member } => {
                    let server = &mut self.servers[self.order[member]];
                    if server.life == Life::Up && self.settled {
                        // The checkpoint of its shutdown.
                        server.log.push((server.timeline, 0));
                        let log = server.log.clone();
                        for other in self.servers.iter_mut().filter(|other| !other.is_primary) {
                            if other.life == Life::Up
                                && !other.paused
                                && log.starts_with(&other.log)
                            {
                                other.log.clone_from(&log);
                            }
                        }
                    }
                    self.servers[self.order[member]].life = Life::Dead;
                    self.machine.handle_fenced(true, now);
                }
                Action::Promote { member } => {
                    assert!(self.held, "promoted while statements run");
                    let index = self.order[member];
                    if self.servers[index].life == Life::Up && !self.servers[index].cut {
                        self.promoting = Some((index, self.now_step + 15));
                    } else {
                        self.machine.handle_promotion_failed(member, now);
                    }
                }
                Action::Adopt { member } => self.adopt(member),
                Action::Repoint { member } => {
                    let (primary, replica) = (self.order[0], self.order[member]);
                    let source = self.servers[primary].clone();
                    let server = &mut self.servers[replica];
                    // Nobody that has what the primary lacks can follow it.
                    if source.log.starts_with(&server.log) && server.life == Life::Up {
                        server.timeline = source.timeline;
                    }
                }
                Action::Settle => {
                    self.settled = true;
                    let end = Lsn(self.servers[self.order[0]].log.len() as u64);
                    let is_up = self.servers[self.order[0]].life == Life::Up;
                    self.machine.handle_settled(is_up.then_some(end), now);
                }
                Action::Unsettle => self.settled = false,
                Action::Tell(_) => {}
            }
        }
    }

    fn adopt(&mut self, member: usize) {
        let index = self.order[member];
        assert!(self.held, "adopted while statements run");
        assert!(self.servers[index].is_primary);
        let kept = self.kept(index);
        for commit in &self.acknowledged {
            if !kept.contains(commit) && !self.reported_lost.contains(commit) {
                self.reported_lost.push(*commit);
            }
        }
        if self.settled {
            assert_eq!(self.reported_lost, [0_u64; 0], "a switchover loses nothing");
            // It is stopped by hand afterwards, say.
            self.servers[self.order[0]].life = Life::Dead;
            self.settled = false;
        }
        self.order.swap(0, member);
        let (policy, memory) = (self.machine.policy.clone(), *self.machine.memory());
        self.machine = Machine::new(policy, memory, self.order.len(), self.now());
        self.perform();
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn kept(&self, server: usize) -> HashSet<u64> {
        self.servers[server].log.iter().map(|(_, commit)| *commit).collect()
    }

    fn current(&self) -> usize {
        self.order[0]
    }
}

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
