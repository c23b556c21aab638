//! What is wrong with the cluster, for whoever is told.

use std::time::{Duration, Instant};

use tidegate_alerts::{Condition, Finding};
use tidegate_cluster::{Mode, Notice, Outsider, Role, Status};
use tidegate_core::route::ReplicaView;

use super::cluster::Cluster;
use super::{Input, Watched, told};
use crate::alerts::Report;
use crate::results::FollowState;
use crate::upstream::pool::{PoolKey, PoolTrouble};

/// What is wrong is told anew to whoever decides about alerts this often, as long as it lasts: its words may be others.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Of what was decided, so much goes with it.
const EVENTS_MAX: usize = 30;

/// What was last said of the trouble.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Why nobody is promoted.
    pub(super) refusal: Option<String>,
    /// Why statements for the primary are not held any longer.
    pub(super) failing: Option<String>,
    /// Why etcd, or Patroni, says nothing.
    pub(super) manager: Option<String>,
    findings: Vec<Finding>,
    reported_at: Option<Instant>,
}

impl Trouble {
    /// Something is told that says why there is no failover, or no waiting.
    pub(super) fn handle_notice(&mut self, notice: &Notice, text: &str) {
        match notice {
            Notice::Unconfirmed(_)
            | Notice::TooSoon
            | Notice::Unfenced
            | Notice::Outside(Outsider::Foreign)
            | Notice::Outside(Outsider::ReachedByOthers)
            | Notice::Outside(Outsider::NoLease)
            | Notice::Outside(Outsider::OtherInForce)
            | Notice::Outside(Outsider::NotLeader { .. })
            | Notice::NobodyEligible(_)
            | Notice::PromotionFailed { .. } => self.refusal = Some(text.to_owned()),
            Notice::HeldTooLong | Notice::Outside(Outsider::Isolated) => {
                self.failing = Some(text.to_owned())
            }
            _ => {}
        }
    }

    /// It is over.
    pub(super) fn forget(&mut self) {
        (self.refusal, self.failing) = (None, None);
    }
}

/// What is wrong with a pool.
fn of_pool(watched: &Watched, (key, trouble): (PoolKey, PoolTrouble)) -> Finding {
    let server = watched.targets.get(key.instance).map_or("?", |target| &target.name);
    let pool = format!("{}@{} on {server} ({})", key.user, key.database, key.kind.name());
    let (condition, what) = match trouble {
        PoolTrouble::Tripped => (
            Condition::Breaker,
            format!(
                "the circuit breaker of the pool {pool} is open: connections to the server fail"
            ),
        ),
        PoolTrouble::NearlyUsedUp => (
            Condition::Pool,
            format!("the pool {pool} is nearly used up: clients will have to wait"),
        ),
    };
    Finding { condition, server: Some(pool), what, is_urgent: false }
}

/// What is shared in a Redis, and not now.
fn of_redis(input: &Input) -> impl Iterator<Item = Finding> {
    let finding = |table: &str, what: String| Finding {
        condition: Condition::Redis,
        server: Some(table.to_owned()),
        what,
        is_urgent: false,
    };
    let counted = input.counters.standing().filter(|standing| !standing.is_shared);
    let counted = counted.map(|standing| {
        let why = standing.why_not.unwrap_or_else(|| "it has not been reached yet".to_owned());
        let redis = standing.redis;
        finding("rates.redis", format!("limits are not counted with others in {redis}: {why}"))
    });
    let kept = input.results.sharing().filter(|_| input.results.round() != 0);
    let kept = kept.and_then(|sharing| sharing.trouble()).map(|(redis, why)| {
        finding("cache.redis", format!("no answers are kept or served with {redis}: {why}"))
    });
    counted.into_iter().chain(kept)
}

/// Writes that are to be followed, and are not.
fn of_logs(input: &Input) -> impl Iterator<Item = Finding> {
    let logs = input.results.logs().map(|logs| logs.all()).unwrap_or_default();
    logs.into_iter().filter_map(|(database, state)| {
        let FollowState::Lost(why) = state else { return None };
        let what = format!("writes past Tidegate to the database {database} are not followed, so nothing is kept of it: {why}");
        let (condition, server) = (Condition::Log, Some(database.to_string()));
        Some(Finding { condition, server, what, is_urgent: false })
    })
}

/// What is shared and not now, what is to be followed and is not, and what was given that was not true.
fn of_kept(input: &Input) -> impl Iterator<Item = Finding> {
    let different = input.results.inspected.recent(Instant::now());
    let different = different.map(|what| Finding {
        condition: Condition::Cache,
        server: None,
        what,
        is_urgent: false,
    });
    of_redis(input).chain(of_logs(input)).chain(different)
}

/// What is wrong with what this process alone knows of.
fn of_process(input: &Input, watched: &Watched) -> Vec<Finding> {
    let troubles = input.pools.troubles().into_iter();
    troubles.map(|trouble| of_pool(watched, trouble)).chain(of_kept(input)).collect()
}

/// Where there is no cluster to watch: tells of pools and what is shared alone, again and again.
pub(super) async fn watch_process(input: &Input, watched: &Watched) {
    let mut tick = super::ticks(REPORT_INTERVAL);
    let mut was_told = Vec::new();
    loop {
        tick.tick().await;
        let findings = of_process(input, watched);
        if !findings.is_empty() || !was_told.is_empty() {
            let report = Report { findings: findings.clone(), ..Report::default() };
            // It is said again at the next tick.
            if input.alerts.report(report) {
                was_told = findings;
            }
        }
    }
}

impl Cluster<'_> {
    /// Says what is wrong now, if that is new or was not said for a while.
    pub(super) fn report(&mut self, replicas: &[ReplicaView], seen: Instant, now: Instant) {
        if self.machine.status() == Status::Steady {
            self.standing.trouble.forget();
        }
        let mut findings = self.findings(replicas, seen);
        let troubles = self.input.pools.troubles().into_iter();
        // That connections to a server fail which is gone is told already.
        let is_told = |(key, trouble): &(PoolKey, PoolTrouble)| {
            *trouble == PoolTrouble::Tripped
                && (self.machine.status() != Status::Steady
                    || self.machine.fault(key.instance).is_some())
        };
        findings.extend(
            troubles
                .filter(|trouble| !is_told(trouble))
                .map(|trouble| of_pool(self.watched, trouble)),
        );
        findings.extend(of_kept(self.input));
        let trouble = &mut self.standing.trouble;
        let marks = |findings: &[Finding]| -> Vec<(String, bool)> {
            findings.iter().map(|finding| (finding.key(), finding.is_urgent)).collect()
        };
        let is_old = trouble.reported_at.is_none_or(|at| now >= at + REPORT_INTERVAL);
        let is_same = marks(&findings) == marks(&trouble.findings);
        if is_same && (!is_old || findings.is_empty() && trouble.reported_at.is_some()) {
            return;
        }
        trouble.findings.clone_from(&findings);
        let events = &self.standing.events;
        let done = &events[events.len().saturating_sub(EVENTS_MAX)..];
        let done = done.iter().map(|event| (event.at, event.text.clone())).collect();
        let cluster = self.in_a_sentence(replicas);
        let is_taken = self.input.alerts.report(Report { findings, done, cluster });
        // It is said again at the next look.
        self.standing.trouble.reported_at = is_taken.then_some(now);
    }

    fn findings(&self, replicas: &[ReplicaView], seen: Instant) -> Vec<Finding> {
        let status = self.machine.status();
        let mut findings = Vec::new();
        let mut find = |condition, server: Option<&str>, what: String| {
            let is_urgent = condition == Condition::Primary
                && matches!(status, Status::Fencing | Status::Promoting);
            let server = server.map(str::to_owned);
            findings.push(Finding { condition, server, what, is_urgent });
        };
        if matches!(status, Status::Suspect | Status::Fencing | Status::Promoting) {
            let notice = self.machine.fault(0).map_or(Notice::NoPrimary, Notice::Suspected);
            find(Condition::Primary, None, self.sentence(&notice));
            let trouble = &self.standing.trouble;
            if let Some(why) = &trouble.refusal {
                find(Condition::Failover, None, why.clone());
            }
            if let Some(why) = &trouble.failing {
                find(Condition::Writes, None, why.clone());
            }
        }
        if let Some(what) = self.recent_losses() {
            find(Condition::Losses, None, what);
        }
        if let Some(what) = self.of_managers() {
            find(Condition::Manager, None, what);
        }
        if let Some(what) = &self.standing.lacks {
            find(Condition::Grants, None, what.clone());
        }
        if self.standing.is_thin {
            let good = self.usable.iter().filter(|usable| **usable).count();
            let what = format!("only {good} of {} replicas are good", replicas.len());
            find(Condition::Replicas, None, what);
        }
        for member in 1..=replicas.len() {
            let name = self.name(member);
            if let Some((condition, notice)) = self.intruder(member) {
                find(condition, Some(name), self.sentence(&notice));
            } else if self.is_settled() && !self.usable.get(member - 1).is_some_and(|good| *good) {
                let (condition, what) = self.bad_replica(member, replicas, seen);
                find(condition, Some(name), what);
            }
        }
        if !self.is_settled() {
            // What was wrong with replicas is so until they have had the time to say otherwise.
            let of_replicas = |finding: &&Finding| {
                matches!(finding.condition, Condition::Lag | Condition::Replica)
            };
            findings.extend(self.standing.trouble.findings.iter().filter(of_replicas).cloned());
        }
        findings
    }

    /// What is wrong with who else decides.
    fn of_managers(&self) -> Option<String> {
        if self.machine.is_foreign() {
            return Some(self.sentence(&Notice::Outside(Outsider::Foreign)));
        }
        let why = self.standing.trouble.manager.as_ref()?;
        match self.watched.config.failover.policy.mode {
            Mode::Etcd => Some(format!("etcd does not answer, so there is no failover: {why}")),
            Mode::External => Some(format!(
                "Patroni's REST API does not answer: what servers say of themselves is followed without its word, and it cannot be \
                 given orders: {why}"
            )),
            Mode::Off | Mode::Follow | Mode::Embedded => None,
        }
    }

    /// A server that is no replica of this primary, and must not be.
    fn intruder(&self, member: usize) -> Option<(Condition, Notice)> {
        let (seen, memory) = (self.machine.seen(member)?, self.machine.memory());
        let timeline = seen.timeline;
        if memory.system.is_some_and(|system| system != seen.system) {
            return Some((Condition::OtherSystem, Notice::OtherSystem { member }));
        }
        match (seen.is_primary(), timeline.cmp(&memory.timeline)) {
            (true, std::cmp::Ordering::Less) => {
                Some((Condition::Outdated, Notice::Outdated { member, timeline }))
            }
            (true, std::cmp::Ordering::Equal) => Some((Condition::Twin, Notice::Twin { member })),
            _ => None,
        }
    }

    fn bad_replica(
        &self,
        member: usize,
        replicas: &[ReplicaView],
        seen: Instant,
    ) -> (Condition, String) {
        let name = self.name(member);
        let as_of = replicas.get(member - 1).and_then(|replica| replica.fresh_as_of);
        if let Some(as_of) = as_of {
            let behind = seen.saturating_duration_since(as_of).as_secs_f64();
            let max = self.watched.config.routing.lag_max.as_secs_f64();
            let what = format!(
                "the replica \"{name}\" is {behind:.1} s behind (routing.lag_max is {max} s): it serves no reads"
            );
            return (Condition::Lag, what);
        }
        let memory = self.machine.memory();
        let why = match (self.machine.fault(member), self.machine.seen(member)) {
            (Some(fault), _) => fault.label().to_owned(),
            (None, Some(seen)) if seen.timeline < memory.timeline => format!(
                "it follows timeline {}, and the primary writes timeline {}",
                seen.timeline, memory.timeline
            ),
            (None, Some(seen)) if matches!(seen.role, Role::Replica { replayed: None, .. }) => {
                "it has replayed nothing yet".to_owned()
            }
            (None, _) => "it does not answer as a replica of the primary".to_owned(),
        };
        (Condition::Replica, format!("the replica \"{name}\" is not good: {why}"))
    }

    fn sentence(&self, notice: &Notice) -> String {
        told::sentence(notice, |member| self.name(member).to_owned())
    }

    fn in_a_sentence(&self, replicas: &[ReplicaView]) -> String {
        let good = replicas.iter().filter(|replica| replica.usable).count();
        let timeline = self.machine.memory().timeline;
        let does = match self.machine.status() {
            Status::Steady => "is the primary",
            _ => "is in the place of the primary",
        };
        format!(
            "\"{}\" {does} (timeline {timeline}); {good} of {} replicas serve reads",
            self.name(0),
            replicas.len()
        )
    }
}
