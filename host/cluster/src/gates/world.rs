//! Servers, an etcd as far as it matters here, and Tidegates: each a machine and a keeper.

use crate::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tidegate_core::route::Lsn;

const STEP: Duration = Duration::from_millis(10);
const PROBE_STEPS: u64 = 20;
const PROBE_STEPS_URGENT: u64 = 2;
/// A receiver notices a primary that is silent after this.
const RECEIVER_STEPS: u64 = 400;
const PROMOTION_STEPS: u64 = 15;
const TTL: Duration = Duration::from_secs(6);
/// Who is to end waits so long for a promotion of its own, and for etcd.
const LEAVE_STEPS: u64 = 200;
/// Whom etcd does not answer sees within this that a replica has left the primary: the age of an answer, and a probe.
const WITNESS_STEPS: u64 = 230;

#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    Kill(usize),
    Revive(usize),
    Hang(usize),
    Resume(usize),
    /// A Tidegate is stopped, and does not know.
    Pause(usize),
    Wake(usize),
    /// A Tidegate ends, in an orderly way: its clients have gone.
    Leave(usize),
    /// One is started in its place, which knows nothing.
    Join(usize),
    /// It and etcd do not reach each other.
    CutEtcd(usize),
    MendEtcd(usize),
    CutServer(usize, usize),
    MendServer(usize, usize),
    LoseEtcd,
    FindEtcd,
    /// The replicas lose the primary, which lives.
    Orphan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Up,
    Dead,
    Hung { since: u64 },
}

#[derive(Clone, Debug)]
struct Server {
    life: Life,
    is_primary: bool,
    timeline: u32,
    is_orphan: bool,
    promoted_at: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Promotion {
    pub(super) gate: usize,
    pub(super) server: usize,
    pub(super) timeline: u32,
    pub(super) epoch: u64,
}

/// What is in etcd.
#[derive(Debug, Default)]
struct Store {
    revision: u64,
    /// Until when each lease is kept.
    leases: HashMap<i64, Instant>,
    leader: Option<(i64, u64)>,
    /// Lost, and since which revision.
    presences: HashMap<i64, (bool, u64)>,
    record: Option<(Record, u64)>,
    is_lost: bool,
}

#[derive(Debug)]
struct Gate {
    machine: Machine,
    keeper: Keeper,
    view: Option<LeaseView>,
    order: Vec<usize>,
    held: bool,
    is_paused: bool,
    is_cut: bool,
    cut: Vec<bool>,
    /// Server, when it is told, until when it may be, and the epoch.
    telling: Option<(usize, u64, Instant, u64)>,
    /// Until when it has to be gone.
    leaves: Option<u64>,
    is_gone: bool,
}

impl Gate {
    fn new(servers: usize, now: Instant) -> Self {
        Self {
            machine: Machine::new(policy(), Memory::default(), servers, now),
            keeper: Keeper::new(TTL, now),
            view: None,
            order: (0..servers).collect(),
            held: false,
            is_paused: false,
            is_cut: false,
            cut: vec![false; servers],
            telling: None,
            leaves: None,
            is_gone: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct World {
    start: Instant,
    now_step: u64,
    servers: Vec<Server>,
    store: Store,
    gates: Vec<Gate>,
    /// Server, when it is primary, gate, epoch.
    rising: Vec<(usize, u64, usize, u64)>,
    pub(super) promotions: Vec<Promotion>,
}

fn policy() -> Policy {
    // Statements that are not held any longer may reach a server that has come back in the same moment: that is another matter.
    let hold_max = Duration::from_secs(100_000);
    let interval_min = Duration::ZERO;
    Policy { mode: Mode::Etcd, hold_max, interval_min, ..Policy::default() }
}

impl World {
    pub(super) fn new(gates: usize, replicas: usize) -> Self {
        let start = Instant::now();
        let server = |n| Server {
            life: Life::Up,
            is_primary: n == 0,
            timeline: 1,
            is_orphan: false,
            promoted_at: 0,
        };
        let servers: Vec<Server> = (0..=replicas).map(server).collect();
        let gates = (0..gates).map(|_| Gate::new(servers.len(), start)).collect();
        let store = Store::default();
        Self { start, now_step: 0, servers, store, gates, rising: vec![], promotions: vec![] }
    }

    fn now(&self) -> Instant {
        self.start + STEP * u32::try_from(self.now_step).unwrap()
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        let (since, now) = (self.now_step, self.now());
        let servers = &mut self.servers;
        match happening {
            Happening::Kill(n) => servers[n].life = Life::Dead,
            Happening::Revive(n) => servers[n].life = Life::Up,
            Happening::Hang(n) if servers[n].life == Life::Up => {
                servers[n].life = Life::Hung { since };
            }
            Happening::Resume(n) if servers[n].life != Life::Dead => servers[n].life = Life::Up,
            Happening::Hang(_) | Happening::Resume(_) => {}
            Happening::Pause(n) => self.gates[n].is_paused = true,
            Happening::Wake(n) => self.gates[n].is_paused = false,
            Happening::Leave(n) => self.gates[n].leaves = Some(since + LEAVE_STEPS),
            Happening::Join(n) if self.gates[n].is_gone => {
                // What the one before has sent may arrive yet.
                let telling = self.gates[n].telling;
                self.gates[n] = Gate { telling, ..Gate::new(servers.len(), now) };
            }
            Happening::Join(_) => {}
            Happening::CutEtcd(n) => self.gates[n].is_cut = true,
            Happening::MendEtcd(n) => self.gates[n].is_cut = false,
            Happening::CutServer(gate, n) => self.gates[gate].cut[n] = true,
            Happening::MendServer(gate, n) => self.gates[gate].cut[n] = false,
            Happening::LoseEtcd => self.store.is_lost = true,
            Happening::FindEtcd => self.store.is_lost = false,
            Happening::Orphan => servers.iter_mut().for_each(|server| server.is_orphan = true),
        }
    }

    pub(super) fn mend(&mut self) {
        for server in &mut self.servers {
            (server.life, server.is_orphan) = (Life::Up, false);
        }
        let now = self.now();
        for gate in &mut self.gates {
            (gate.is_paused, gate.is_cut) = (false, false);
            gate.cut.iter_mut().for_each(|cut| *cut = false);
            if gate.is_gone || gate.leaves.is_some() {
                *gate = Gate::new(self.servers.len(), now);
            }
        }
        self.store.is_lost = false;
    }

    pub(super) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// Where each Tidegate writes.
    pub(super) fn targets(&self) -> Vec<Option<usize>> {
        (0..self.gates.len()).map(|gate| self.target(gate)).collect()
    }

    pub(super) fn states(&self) -> Vec<Status> {
        self.gates.iter().map(|gate| gate.machine.status()).collect()
    }

    /// Who leads, and knows it.
    pub(super) fn leader(&self) -> Option<usize> {
        self.gates.iter().position(|gate| gate.machine.may_act(self.now()))
    }

    fn target(&self, gate: usize) -> Option<usize> {
        let gate = &self.gates[gate];
        let index = gate.order[0];
        let server = &self.servers[index];
        let takes = server.life == Life::Up && server.is_primary && !gate.cut[index];
        let serves = !gate.held && !gate.is_paused && !gate.is_gone && gate.leaves.is_none();
        (takes && serves).then_some(index)
    }

    /// Does this one lead, as etcd has it, too?
    pub(super) fn holds_lease(&self, gate: usize) -> bool {
        let epoch = self.gates[gate].view.as_ref().and_then(|view| view.epoch);
        epoch.is_some_and(|epoch| self.store.leads(epoch))
    }

    fn step(&mut self) {
        self.now_step += 1;
        self.store.expire(self.start + STEP * u32::try_from(self.now_step).unwrap());
        self.rise();
        for gate in 0..self.gates.len() {
            if self.gates[gate].is_gone {
                // What it has sent arrives.
                self.tell(gate);
            } else if !self.gates[gate].is_paused {
                self.live(gate);
                self.leave(gate);
            }
        }
        self.check_writers();
    }

    /// Nobody writes to a server when another has been promoted in its place; but for a moment, who has lost etcd.
    fn check_writers(&self) {
        let newest = self.servers.iter().max_by_key(|server| server.timeline).unwrap();
        for gate in 0..self.gates.len() {
            let Some(target) = self.target(gate) else { continue };
            let server = &self.servers[target];
            let has_lease =
                self.gates[gate].view.as_ref().is_some_and(|view| self.now() < view.until);
            let since = self.now_step - newest.promoted_at;
            let is_old = server.timeline < newest.timeline && newest.is_primary;
            assert!(
                !is_old || !has_lease && since <= WITNESS_STEPS,
                "{gate} writes to {target}, {since} steps after another was promoted: {:?}",
                self.promotions
            );
        }
    }

    /// What one Tidegate does in a step.
    fn live(&mut self, gate: usize) {
        let now = self.now();
        let steps =
            if self.gates[gate].machine.is_urgent() { PROBE_STEPS_URGENT } else { PROBE_STEPS };
        if (self.now_step + gate as u64 * 3).is_multiple_of(steps) {
            for member in 0..self.servers.len() {
                self.probe(gate, member);
                self.perform(gate);
            }
        }
        self.ask_etcd(gate);
        let one = &mut self.gates[gate];
        if let Some(view) = one.keeper.view().filter(|view| one.view.as_ref() != Some(*view)) {
            let order = &one.order;
            let lease = view
                .for_machine(|server| order.iter().position(|index| index.to_string() == server));
            one.view = Some(view.clone());
            one.machine.handle_lease(lease, now);
        }
        one.machine.tick(now);
        let (lost, urgent) = (one.machine.says_lost(0), one.machine.is_urgent());
        one.keeper.say(lost, now);
        one.keeper.set_urgent(urgent, now);
        self.perform(gate);
        self.settle(gate);
        self.tell(gate);
    }

    /// As the shell does.
    fn leave(&mut self, gate: usize) {
        let now = self.now();
        let one = &mut self.gates[gate];
        let Some(until) = one.leaves else { return };
        if one.machine.leave() {
            one.keeper.leave(now);
        }
        one.is_gone = one.keeper.has_left() || self.now_step >= until;
    }

    fn reaches_etcd(&self, gate: usize) -> bool {
        !self.store.is_lost && !self.gates[gate].is_cut
    }

    fn ask_etcd(&mut self, gate: usize) {
        let now = self.now();
        let reaches = self.reaches_etcd(gate);
        let keeper = &mut self.gates[gate].keeper;
        while let Some(ask) = keeper.poll_ask(now) {
            if !reaches {
                return keeper.handle_failed(now);
            }
            match ask {
                Ask::Grant { ttl } => {
                    let lease = self.store.grant(now, ttl);
                    keeper.handle_granted(lease, ttl, now);
                }
                Ask::Renew { lease } => {
                    keeper.handle_renewed(self.store.renew(lease, now).then_some(TTL), now);
                }
                Ask::Look(look) => match self.store.look(look) {
                    Some(looked) => keeper.handle_looked(looked, now, now),
                    None => keeper.handle_gone(now),
                },
                Ask::Revoke { lease } => {
                    self.store.leases.remove(&lease);
                    keeper.handle_revoked();
                }
            }
        }
    }

    fn settle(&mut self, gate: usize) {
        let now = self.now();
        let one = &self.gates[gate];
        let Some(epoch) = one.view.as_ref().and_then(|view| view.epoch) else { return };
        let record = Record {
            system: 7,
            server: one.order[0].to_string(),
            timeline: one.machine.memory().timeline,
            is_done: true,
            epoch,
        };
        let written = one.view.as_ref().and_then(|view| view.record.clone());
        let is_written = written.is_some_and(|written| Record { epoch, ..written } == record);
        let is_due = one.machine.is_settled() && one.machine.may_act(now) && !is_written;
        if is_due && self.reaches_etcd(gate) {
            self.store.settle(record);
            self.gates[gate].keeper.look_soon(now);
        }
    }

    fn streams(&self, replica: usize) -> bool {
        let timeline = self.servers[replica].timeline;
        let source =
            self.servers.iter().find(|server| server.is_primary && server.timeline == timeline);
        let lives = source.is_some_and(|source| match source.life {
            Life::Up => true,
            Life::Hung { since } => self.now_step < since + RECEIVER_STEPS,
            Life::Dead => false,
        });
        lives && !self.servers[replica].is_orphan
    }

    fn probe(&mut self, gate: usize, member: usize) {
        let now = self.now();
        let Some(index) = self.gates[gate].order.get(member).copied() else { return };
        let server = &self.servers[index];
        let fault = match server.life {
            _ if self.gates[gate].cut[index] => Some(Fault::Silent),
            Life::Dead => Some(Fault::Refused),
            Life::Hung { .. } => Some(Fault::Silent),
            Life::Up => None,
        };
        // Silence takes its time.
        if fault == Some(Fault::Silent) && !self.now_step.is_multiple_of(100) {
            return;
        }
        let end = Lsn(100);
        let role = if server.is_primary {
            Role::Primary { written: end }
        } else {
            let receiver = if self.streams(index) { Receiver::Streaming } else { Receiver::Gone };
            Role::Replica { received: Some(end), replayed: Some(end), receiver, paused: false }
        };
        let seen = Observation { system: 7, timeline: server.timeline, role };
        let machine = &mut self.gates[gate].machine;
        match fault {
            Some(fault) => machine.handle_fault(member, fault, now),
            None => machine.handle_observed(member, seen, now),
        }
    }

    fn perform(&mut self, gate: usize) {
        let now = self.now();
        while let Some(action) = self.gates[gate].machine.poll_action() {
            match action {
                Action::Hold => self.gates[gate].held = true,
                Action::Release => self.gates[gate].held = false,
                Action::Promote { member } => self.claim(gate, member),
                Action::Adopt { member } => {
                    let one = &mut self.gates[gate];
                    assert!(one.held, "adopted while statements run");
                    one.order.swap(0, member);
                    let memory = *one.machine.memory();
                    one.machine = Machine::new(policy(), memory, one.order.len(), now);
                    one.view = None;
                }
                Action::Repoint { member } => {
                    let order = &self.gates[gate].order;
                    let (primary, replica) = (order[0], order[member]);
                    let timeline = self.servers[primary].timeline;
                    let server = &mut self.servers[replica];
                    if server.life == Life::Up && !server.is_primary {
                        (server.timeline, server.is_orphan) = (timeline, false);
                    }
                }
                Action::Tell(_) => {}
                other => unreachable!("{other:?}"),
            }
        }
    }

    /// As the shell does: it is written down, and then the server is told, some steps later.
    fn claim(&mut self, gate: usize, member: usize) {
        let now = self.now();
        let one = &self.gates[gate];
        assert!(one.held, "promoted while statements run");
        let (server, view) = (one.order[member], one.view.clone());
        let may_ask = self.reaches_etcd(gate) && !one.keeper.is_leaving();
        let written = view.filter(|_| may_ask).and_then(|view| {
            let (epoch, revision) = (view.epoch?, view.revision);
            let timeline = self.gates[gate].machine.memory().timeline + 1;
            let name = server.to_string();
            let record = Record { system: 7, server: name, timeline, is_done: false, epoch };
            self.store.claim(record, revision).then_some((epoch, view.until))
        });
        let one = &mut self.gates[gate];
        one.keeper.look_soon(now);
        match written {
            Some((epoch, until)) => {
                let delay = 1 + self.now_step % 40;
                one.telling = Some((server, self.now_step + delay, until, epoch));
            }
            None => one.machine.handle_promotion_failed(member, now),
        }
    }

    /// The statement arrives; the server looks at its own clock.
    fn tell(&mut self, gate: usize) {
        let Some((server, at, until, epoch)) = self.gates[gate].telling else { return };
        if at > self.now_step {
            return;
        }
        self.gates[gate].telling = None;
        let is_there = self.servers[server].life == Life::Up && !self.gates[gate].cut[server];
        if is_there && self.now() < until {
            self.rising.push((server, self.now_step + PROMOTION_STEPS, gate, epoch));
        } else {
            let member = self.gates[gate].order.iter().position(|index| *index == server);
            let now = self.now();
            self.gates[gate].machine.handle_promotion_failed(member.unwrap(), now);
        }
    }

    fn rise(&mut self) {
        let due: Vec<_> = self.rising.extract_if(.., |one| one.1 <= self.now_step).collect();
        for (index, _, gate, epoch) in due {
            let promoted_at = self.now_step;
            let server = &mut self.servers[index];
            if server.life == Life::Up && !server.is_primary {
                (server.is_primary, server.promoted_at) = (true, promoted_at);
                server.timeline += 1;
                let timeline = server.timeline;
                self.promotions.push(Promotion { gate, server: index, timeline, epoch });
            }
        }
    }
}

impl Store {
    fn expire(&mut self, now: Instant) {
        if self.is_lost {
            return;
        }
        self.leases.retain(|_, until| now < *until);
        let leases = &self.leases;
        self.presences.retain(|lease, _| leases.contains_key(lease));
        self.leader = self.leader.filter(|(lease, _)| leases.contains_key(lease));
    }

    fn grant(&mut self, now: Instant, ttl: Duration) -> i64 {
        self.revision += 1;
        let lease = i64::try_from(self.revision).unwrap();
        self.leases.insert(lease, now + ttl);
        lease
    }

    fn renew(&mut self, lease: i64, now: Instant) -> bool {
        let kept = self.leases.get_mut(&lease);
        kept.map(|until| *until = now + TTL).is_some()
    }

    fn look(&mut self, look: Look) -> Option<Looked> {
        if !self.leases.contains_key(&look.lease) {
            return None;
        }
        if self.leader.is_none() && look.campaigns || look.say.is_some() {
            self.revision += 1;
        }
        if self.leader.is_none() && look.campaigns {
            self.leader = Some((look.lease, self.revision));
        }
        if let Some(lost) = look.say {
            self.presences.insert(look.lease, (lost, self.revision));
        }
        let others = self.presences.iter().filter(|(lease, _)| **lease != look.lease);
        let reached_by = others.filter(|(_, (lost, _))| !lost).map(|(lease, _)| lease.to_string());
        Some(Looked {
            revision: self.revision,
            leader: self.leader,
            said_lost: self.presences.get(&look.lease).map(|(lost, _)| *lost),
            reached_by: reached_by.last(),
            record: self.record.as_ref().map(|(record, _)| record.clone()),
        })
    }

    fn leads(&self, epoch: u64) -> bool {
        self.leader.is_some_and(|(_, since)| since == epoch)
    }

    fn claim(&mut self, record: Record, revision: u64) -> bool {
        let is_changed = self.presences.values().any(|(_, since)| *since > revision);
        if !self.leads(record.epoch) || is_changed {
            return false;
        }
        if let Some((before, since)) = &self.record
            && *since >= record.epoch
        {
            let is_the_same = before.server == record.server && !before.is_done;
            if !is_the_same {
                // One in each epoch: the next is another's, or has another.
                self.leader = None;
            }
            return is_the_same;
        }
        self.revision += 1;
        self.record = Some((record, self.revision));
        true
    }

    fn settle(&mut self, record: Record) {
        if self.leads(record.epoch) {
            self.revision += 1;
            (self.record, self.leader) = (Some((record, self.revision)), None);
        }
    }
}
