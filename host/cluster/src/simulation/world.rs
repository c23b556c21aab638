//! Servers, what happens to them, and a client that writes through the machine.

use crate::*;
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
pub(super) enum Life {
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
pub(super) struct Server {
    pub(super) life: Life,
    pub(super) is_primary: bool,
    pub(super) timeline: u32,
    /// Commits that it has, each with the timeline on which it was written.
    pub(super) log: Vec<(u32, u64)>,
    /// We cannot reach it, though others can.
    pub(super) cut: bool,
    /// It replays nothing meanwhile.
    pub(super) paused: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
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
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now_step: u64,
    pub(super) servers: Vec<Server>,
    /// Member of the machine → server.
    pub(super) order: Vec<usize>,
    pub(super) machine: Machine,
    pub(super) held: bool,
    pub(super) commits: u64,
    pub(super) acknowledged: Vec<u64>,
    /// Acknowledged, and not had by whom we promoted.
    pub(super) reported_lost: Vec<u64>,
    pub(super) promoting: Option<(usize, u64)>,
    pub(super) settled: bool,
    pub(super) promotions: Vec<(usize, u32)>,
    pub(super) held_steps: u64,
    pub(super) longest_hold: u64,
}

impl World {
    pub(super) fn new(replicas: usize, mode: Mode) -> Self {
        Self::with(replicas, Policy { mode, ..Policy::default() })
    }

    pub(super) fn with(replicas: usize, policy: Policy) -> Self {
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

    pub(super) fn now(&self) -> Instant {
        self.start + STEP * u32::try_from(self.now_step).unwrap()
    }

    pub(super) fn happen(&mut self, happening: Happening) {
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
    pub(super) fn streams(&self, replica: usize) -> bool {
        let Some(source) = self.source_of(replica) else { return false };
        match self.servers[source].life {
            Life::Up | Life::Full => true,
            Life::Hung { since } => self.now_step < since + RECEIVER_STEPS,
            Life::Dead | Life::Restarting { .. } => false,
        }
    }

    /// The primary on the replica's own timeline.
    pub(super) fn source_of(&self, replica: usize) -> Option<usize> {
        let timeline = self.servers[replica].timeline;
        self.servers.iter().position(|server| server.is_primary && server.timeline == timeline)
    }

    pub(super) fn step(&mut self) {
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
        self.check_readers();
        self.held_steps = if self.held { self.held_steps + 1 } else { 0 };
        self.longest_hold = self.longest_hold.max(self.held_steps);
    }

    /// Whoever may be read from has shown nothing, when it was asked, that the primary in force has not, too.
    fn check_readers(&self) {
        let primary = &self.servers[self.order[0]].log;
        for (member, index) in self.order.iter().enumerate().skip(1) {
            let Some(seen) = self.machine.seen(member).filter(|_| self.machine.may_read(member))
            else {
                continue;
            };
            let end = seen.position().map_or(0, |Lsn(end)| end as usize);
            let log = &self.servers[*index].log;
            // Logs only grow, and no two pieces are the same: where one piece is, all before it are.
            let last = end.min(log.len()).checked_sub(1);
            let is_shown = last.is_none_or(|last| primary.get(last) == log.get(last));
            assert!(is_shown, "{index} shows what the primary lacks");
        }
    }

    /// A client writes through us.
    pub(super) fn write(&mut self) {
        let target = self.order[0];
        let server = &mut self.servers[target];
        let takes = server.life == Life::Up && server.is_primary && !server.cut;
        if !self.held && takes && !self.settled {
            self.commits += 1;
            server.log.push((server.timeline, self.commits));
            self.acknowledged.push(self.commits);
        }
    }

    pub(super) fn probe(&mut self, member: usize) {
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

    pub(super) fn observe(&self, index: usize) -> Observation {
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

    pub(super) fn promote_on(&mut self) {
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

    pub(super) fn perform(&mut self) {
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
                        let (log, timeline) = (server.log.clone(), server.timeline);
                        for other in self.servers.iter_mut().filter(|other| !other.is_primary) {
                            if other.life == Life::Up
                                && !other.paused
                                && other.timeline == timeline
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
                Action::Prepare => self.machine.handle_prepared(now),
                Action::Announce { .. } | Action::Request(_) => {
                    unreachable!("there is neither etcd nor Patroni")
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

    pub(super) fn adopt(&mut self, member: usize) {
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

    pub(super) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    pub(super) fn kept(&self, server: usize) -> HashSet<u64> {
        self.servers[server].log.iter().map(|(_, commit)| *commit).collect()
    }

    pub(super) fn current(&self) -> usize {
        self.order[0]
    }
}
