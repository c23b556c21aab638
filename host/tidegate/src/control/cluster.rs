//! One cluster under watch: what its servers say goes to the decisions of `tidegate-cluster`, and what these decide is done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_cluster::{
    Action, Follower, LeaseView, Machine, Memory, Mode, Role, Standings, Status, WrittenLog,
};
use tidegate_core::limits::CLUSTER_EVENTS_MAX;
use tidegate_core::route::{Freshness, LagGate, Lsn};
use tidegate_pool::Presence;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::Level;

use super::acts::{self, Before, Hook};
use super::alerting::Trouble;
use super::done::Done;
use super::hosts::Hosts;
use super::leading::Lessee;
use super::losing::Predecessor;
use super::outside::Outside;
use super::patroni;
use super::probe::{Beat, Pace, Report, probe};
use super::told;
use super::weighing::Weighing;
use super::{ClusterOrder, Input, Watched};
use crate::config::ServerAddress;
use crate::upstream::Asker;
use crate::upstream::pool::PrimaryHold;
use crate::view::{ClusterEvent, LossReport};

/// Reports that wait; each probe waits for its own to be taken.
const REPORTS_MAX: usize = 64;
/// How often it is looked whether a switchover's transactions have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// After a change of roles that failed, what is seen is judged anew after this.
const ADOPT_AGAIN: Duration = Duration::from_secs(1);

/// What is wrong in the first moments may be nothing.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// What outlives a configuration and an order of servers.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) memory: Memory,
    /// Statements for the primary wait while this is there.
    pub(super) hold: Option<PrimaryHold>,
    /// Of the servers that were watched.
    pub(super) addresses: Vec<ServerAddress>,
    /// The primary that a switchover has brought to rest, and what was changed there.
    pub(super) settled: Option<(ServerAddress, Before)>,
    /// Old primaries that are being made replicas: a reload does not end that.
    pub(super) rejoining: JoinSet<(ServerAddress, Result<(), String>)>,
    /// Which servers these are.
    pub(super) being_made: HashSet<ServerAddress>,
    /// The primary that was replaced, until it has been told to rejoin.
    pub(super) replaced: Option<ServerAddress>,
    /// Who was told to become primary, and may do so yet.
    pub(super) asked: Option<ServerAddress>,
    pub(super) events: Vec<ClusterEvent>,
    /// How often another server has become the primary in force.
    pub(super) changes: u64,
    /// It has been said that there are too few replicas.
    pub(super) is_thin: bool,
    pub(super) trouble: Trouble,
    /// What our user may not do, though a failover takes it.
    pub(super) lacks: Option<String>,
    /// Replicas that served reads when another server was made primary: as of when, and how far they had replayed.
    pub(super) carried: Vec<(ServerAddress, Instant, Option<Lsn>)>,
    /// Who of the replicas is left out, and was before.
    pub(super) left_out: Vec<(ServerAddress, Standings)>,
    /// A lease in etcd, kept through reloads and changes of roles.
    pub(super) lessee: Option<Lessee>,
    /// This process ends: who is to be told that the lease is given up.
    pub(super) leaving: Option<oneshot::Sender<Result<String, String>>>,
    /// Replicas that get no new reads, since an operator wants it so.
    pub(super) drained: HashSet<ServerAddress>,
    /// How far the primary has written when.
    pub(super) written: WrittenLog,
    /// The primary that was lost, until it is known what was lost with it.
    pub(super) predecessor: Option<Predecessor>,
    /// What that was, the last time.
    pub(super) losses: Option<Arc<LossReport>>,
}

/// Watches until the configuration changes.
pub(super) async fn watch(
    input: &Input,
    watched: &Watched,
    standing: &mut Standing,
    orders: &mut mpsc::Receiver<ClusterOrder>,
) {
    let mut cluster = Cluster::new(input, watched, standing);
    // Reads go on where they can.
    cluster.publish(Instant::now());
    loop {
        cluster.perform();
        if cluster.is_over {
            return tokio::time::sleep(ADOPT_AGAIN).await;
        }
        let wake_at = cluster.wake_at();
        // All branches are cancel safe.
        tokio::select! {
            Some(report) = cluster.reports.recv() => cluster.handle_report(report),
            Some(Ok(done)) = cluster.acts.join_next() => cluster.handle_done(done),
            Some(Ok((address, outcome))) = cluster.standing.rejoining.join_next() => {
                cluster.handle_rejoined(&address, outcome);
            }
            Some(order) = orders.recv() => cluster.handle_order(order),
            () = cluster.outside.changed() => {}
            Some(told) = cluster.hosts.told.recv() => cluster.handle_told(told),
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
        cluster.look();
    }
}

pub(super) struct Cluster<'a> {
    pub(super) input: &'a Input,
    pub(super) watched: &'a Watched,
    pub(super) standing: &'a mut Standing,
    pub(super) machine: Machine,
    pub(super) freshness: Freshness,
    pub(super) gates: Vec<LagGate>,
    pub(super) weighing: Weighing,
    pub(super) hosts: Hosts,
    /// Who answers health checks at all.
    pub(super) presence: Vec<Presence>,
    pub(super) followers: Vec<Follower>,
    /// As last told in the log.
    pub(super) usable: Vec<bool>,
    pub(super) names: Arc<[Arc<str>]>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) urgent: watch::Sender<bool>,
    pub(super) beat: watch::Sender<Beat>,
    #[expect(dead_code, reason = "dropping it ends them")]
    pub(super) probes: JoinSet<()>,
    pub(super) acts: JoinSet<Done>,
    /// The roles could not be changed: begin anew.
    pub(super) is_over: bool,
    pub(super) began: Instant,
    /// Who else decides.
    pub(super) outside: Outside,
    /// What the decisions know of etcd, and when it was last to be told who is primary.
    pub(super) lease: Option<LeaseView>,
    pub(super) settled_at: Option<Instant>,
    /// What Patroni has last said, and when it was asked.
    pub(super) told: patroni::Told,
    pub(super) patroni_asked_at: Option<Instant>,
}

impl Standing {
    /// From now on these are the servers. Which of them was told to become primary before?
    fn set_addresses(&mut self, addresses: Vec<ServerAddress>) -> Option<usize> {
        self.addresses = addresses;
        let asked = self.asked.as_ref()?;
        self.addresses.iter().position(|known| known == asked)
    }
}

impl<'a> Cluster<'a> {
    fn new(input: &'a Input, watched: &'a Watched, standing: &'a mut Standing) -> Self {
        let (config, targets) = (&watched.config, &watched.targets);
        let addresses: Vec<_> = targets.iter().map(|target| target.address.clone()).collect();
        if !addresses.iter().any(|address| standing.addresses.contains(address)) {
            // Another cluster altogether.
            (standing.memory, standing.settled) = (Memory::default(), None);
        }
        if !matches!(config.failover.policy.mode, Mode::Embedded | Mode::Etcd) {
            standing.lacks = None;
        }
        let asked = standing.set_addresses(addresses);
        let now = Instant::now();
        let policy = config.failover.policy.clone();
        let machine = Machine::new(policy, standing.memory, targets.len(), now).with_asked(asked);
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let (urgent, beat) =
            (watch::Sender::new(machine.is_urgent()), watch::Sender::new(Beat::default()));
        let mut probes = JoinSet::new();
        for (member, target) in targets.iter().enumerate() {
            let asker = Asker::for_cluster(config, member, target.clone(), "tidegate: health");
            let (urgent, beat) = (urgent.subscribe(), beat.subscribe());
            let pace = Pace { urgent, beat, views: input.views.clone() };
            probes.spawn_local(probe(asker, member, sender.clone(), pace));
        }
        let outside = Outside::begin(watched, standing, &urgent, &mut probes);
        let replicas = targets.len().saturating_sub(1);
        input.views.commits.want(replicas > 0 && config.failover.policy.mode != Mode::Off);
        let names: Arc<[Arc<str>]> = targets.iter().skip(1).map(|t| t.name.clone()).collect();
        let gate = LagGate::new(config.routing.lag_max, config.routing.lag_return);
        let (mut freshness, mut gates) = (Freshness::new(replicas), vec![gate; replicas]);
        let mut usable = vec![false; replicas];
        let mut weighing = Weighing::new(input, watched, &standing.left_out, now);
        for (address, as_of, replayed) in std::mem::take(&mut standing.carried) {
            let place = targets.iter().skip(1).position(|target| target.address == address);
            if let Some(index) = place {
                freshness.carry(index, as_of, replayed);
                (gates[index], usable[index]) = (gate.opened(), true);
                weighing.set_full(index);
            }
        }
        if let Some(predecessor) = &mut standing.predecessor {
            predecessor.ask_anew();
        }
        Self {
            freshness,
            gates,
            usable,
            weighing,
            hosts: Hosts::watch(config, targets),
            presence: vec![Presence::default(); targets.len()],
            followers: vec![Follower::default(); replicas],
            acts: JoinSet::new(),
            is_over: false,
            began: now,
            outside,
            lease: None,
            settled_at: None,
            told: patroni::Told::default(),
            patroni_asked_at: None,
            input,
            watched,
            standing,
            machine,
            names,
            reports,
            urgent,
            beat,
            probes,
        }
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        if self.machine.is_draining() {
            return now + DRAIN_LOOK;
        }
        self.machine.wake_at(now).unwrap_or(now + Duration::from_secs(1))
    }

    pub(super) fn asker(&self, member: usize) -> Option<Asker> {
        let target = self.watched.targets.get(member)?.clone();
        Some(Asker::for_cluster(&self.watched.config, member, target, "tidegate: failover"))
    }

    /// At the start, and after a change of roles, servers are given a moment.
    pub(super) fn is_settled(&self) -> bool {
        self.began.elapsed() >= SETTLE_TIME && self.machine.status() == Status::Steady
    }

    pub(super) fn name(&self, member: usize) -> &str {
        self.watched.targets.get(member).map_or("?", |target| &target.name)
    }

    pub(super) fn address(&self, member: usize) -> Option<ServerAddress> {
        self.watched.targets.get(member).map(|target| target.address.clone())
    }

    // --- what was heard ------------------------------------------------------

    fn handle_report(&mut self, report: Report) {
        let Report { member, asked_at, outcome, is_awaited } = report;
        let now = Instant::now();
        let replica = member.checked_sub(1);
        self.note_presence(member, outcome.as_ref().err().copied(), now);
        if replica.is_none() {
            let written = outcome.as_ref().ok().and_then(|(seen, _)| seen.position());
            self.beat.send_modify(|beat| {
                beat.count += 1;
                beat.awaited = written.filter(|_| is_awaited);
            });
        }
        match outcome {
            Ok((seen, took)) => {
                let position = seen.position();
                let is_primary = seen.is_primary();
                self.machine.handle_observed(member, seen.clone(), now);
                match (replica, position) {
                    (None, Some(written)) if is_primary => {
                        self.freshness.primary_wrote(asked_at, written);
                        self.standing.written.handle_answer(asked_at, asked_at + took, written);
                    }
                    (Some(replica), _) if self.machine.may_read(member) => {
                        self.weighing.measured(replica, took);
                        if let Role::Replica { replayed: Some(replayed), .. } = seen.role {
                            self.freshness.replica_replayed(replica, replayed);
                        }
                    }
                    (Some(replica), _) => self.freshness.replica_lost(replica),
                    (None, _) => {}
                }
            }
            Err(fault) => {
                self.machine.handle_fault(member, fault, now);
                if let Some(replica) = replica {
                    self.freshness.replica_lost(replica);
                }
            }
        }
    }

    /// After each event: time has passed.
    fn look(&mut self) {
        let now = Instant::now();
        self.look_at_leaving();
        self.look_outside(now);
        if self.machine.is_draining() && self.input.pools.in_use(0) == 0 {
            self.machine.handle_drained(now);
        }
        self.machine.tick(now);
        self.standing.memory = *self.machine.memory();
        self.standing.asked = self.machine.asked().and_then(|member| self.address(member));
        if self.machine.status() == Status::Steady && self.standing.replaced.is_some() {
            self.rejoin_replaced();
        }
        self.look_after_replicas(now);
        self.look_for_losses(now);
        self.say_to_others(now);
        self.input.pools.hold_primary_from(self.machine.writes_until(now));
        self.urgent.send_if_modified(|urgent| {
            std::mem::replace(urgent, self.machine.is_urgent()) != self.machine.is_urgent()
        });
        self.publish(now);
    }

    // --- what is done --------------------------------------------------------

    fn perform(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Hold => self.standing.hold = Some(self.input.pools.hold_primary()),
                Action::Release => self.standing.hold = None,
                Action::Fence { member } => self.fence(member),
                Action::Promote { member } => self.promote(member),
                Action::Announce { member } => self.announce(member),
                Action::Request(request) => self.request(request),
                Action::Adopt { member } => self.adopt(member),
                Action::Repoint { member } => self.repoint(member),
                Action::Prepare => {
                    if let Some(asker) = self.asker(0) {
                        self.acts.spawn_local(async { Done::Prepared(acts::prepare(asker).await) });
                    }
                }
                Action::Settle => {
                    if let Some(asker) = self.asker(0) {
                        self.acts.spawn_local(async move {
                            let mut before = None;
                            let settled = acts::settle(asker, &mut before).await;
                            Done::Settled(settled, before)
                        });
                    }
                }
                Action::Unsettle => self.unsettle(0),
                Action::Tell(notice) => {
                    let text = told::sentence(&notice, |member| self.name(member).to_owned());
                    self.standing.trouble.handle_notice(&notice, &text);
                    self.tell(told::level(&notice), text);
                }
            }
        }
    }

    pub(super) fn tell(&mut self, level: Level, text: String) {
        match level {
            Level::ERROR => tracing::error!("{text}"),
            Level::WARN => tracing::warn!("{text}"),
            _ => tracing::info!("{text}"),
        }
        let events = &mut self.standing.events;
        if events.len() >= CLUSTER_EVENTS_MAX {
            events.remove(0);
        }
        events.push(ClusterEvent { at: std::time::SystemTime::now(), level, text: text.into() });
    }

    fn fence(&mut self, member: usize) {
        let failover = &self.watched.config.failover;
        let Some(target) = self.watched.targets.get(member) else { return };
        let hook = Hook {
            command: failover.fence_command.clone(),
            name: target.name.to_string(),
            address: target.address.clone(),
            action: match self.machine.status() {
                Status::SwitchingOver => "switchover",
                _ => "failover",
            },
            primary: None,
            time_max: failover.fence_timeout,
        };
        self.acts.spawn_local(async move { Done::Fenced(hook.run().await) });
    }

    pub(super) fn repoint(&mut self, member: usize) {
        if let (Some(replica), Some(primary), Some(address)) =
            (self.asker(member), self.asker(0), self.address(0))
        {
            self.acts.spawn_local(async move {
                Done::Repointed(member, acts::repoint(replica, primary, address).await)
            });
        }
    }

    pub(super) fn unsettle(&mut self, member: usize) {
        let address = self.watched.targets.get(member).map(|target| &target.address);
        let settled = self.standing.settled.take_if(|(settled, _)| Some(&*settled) == address);
        let before = settled.map(|(_, before)| before);
        if let Some(asker) = self.asker(member) {
            self.acts
                .spawn_local(async move { Done::Unsettled(acts::unsettle(asker, before).await) });
        }
    }

    fn adopt(&mut self, member: usize) {
        (self.standing.memory, self.standing.asked) = (*self.machine.memory(), None);
        // Of several Tidegates the one that has promoted makes the old primary a replica.
        let is_by_lease = self.watched.config.failover.policy.mode == Mode::Etcd;
        let is_ours = !is_by_lease || self.machine.has_promoted(member);
        self.standing.replaced = self.address(0).filter(|_| is_ours);
        let name = self.name(member).to_owned();
        self.standing.carried = self.carried(member);
        self.note_predecessor();
        if let Err(error) = (self.input.adopt)(&name) {
            self.tell(Level::ERROR, format!("\"{name}\" cannot be taken for the primary: {error}"));
            self.is_over = true;
        } else {
            self.standing.changes += 1;
            self.standing.trouble.forget();
            // It was to get no reads; now it gets the writes.
            if let Some(address) = self.address(member) {
                self.standing.drained.remove(&address);
            }
        }
    }

    /// The replicas that may go on serving reads while another server becomes primary.
    fn carried(&self, promoted: usize) -> Vec<(ServerAddress, Instant, Option<Lsn>)> {
        let others = (1..self.watched.targets.len()).filter(|member| *member != promoted);
        let usable = others.filter(|member| self.usable.get(member - 1) == Some(&true));
        let known = usable.filter_map(|member| {
            let as_of = self.freshness.as_of(member - 1)?;
            Some((self.address(member)?, as_of, self.freshness.replayed(member - 1)))
        });
        known.collect()
    }
}
