//! What people are told of a cluster, in words.

use tidegate_cluster::{Leader, Notice, Outsider};
use tracing::Level;

/// How loud.
pub(super) fn level(notice: &Notice) -> Level {
    match notice {
        Notice::Recovered
        | Notice::Repointing { .. }
        | Notice::SwitchingOver { .. }
        | Notice::Outside(Outsider::OrderingSwitchover)
        | Notice::Outside(Outsider::LeftToOthers)
        | Notice::Outside(Outsider::ClaimedByOthers)
        | Notice::Promoting { .. } => Level::INFO,
        Notice::Suspected(_) | Notice::Adopting { .. } | Notice::Outdated { .. } => Level::WARN,
        Notice::NoPrimary
        | Notice::Twin { .. }
        | Notice::OtherSystem { .. }
        | Notice::Unconfirmed(_)
        | Notice::TooSoon
        | Notice::Unfenced
        | Notice::NobodyEligible(_)
        | Notice::HeldTooLong
        | Notice::PromotionFailed { .. }
        | Notice::Outside(Outsider::NotLeader { .. })
        | Notice::Outside(Outsider::Foreign)
        | Notice::Outside(Outsider::ReachedByOthers)
        | Notice::Outside(Outsider::NoLease)
        | Notice::Outside(Outsider::OtherInForce)
        | Notice::Outside(Outsider::Isolated)
        | Notice::SwitchedNot(_) => Level::ERROR,
    }
}

/// What, why, and what to do.
pub(super) fn sentence(notice: &Notice, name: impl Fn(usize) -> String) -> String {
    let name = |member: usize| format!("\"{}\"", name(member));
    match notice {
        Notice::Suspected(fault) => {
            format!("the primary {} may be gone: {}", name(0), fault.label())
        }
        Notice::Recovered => format!("the primary {} is well", name(0)),
        Notice::NoPrimary => format!(
            "{} is no primary, though it should be, and no other server of [cluster] is one on a newer timeline; statements \
             for the primary wait for one (failover.hold_max): promote one, or correct [cluster]",
            name(0)
        ),
        Notice::Outdated { member, timeline } => format!(
            "{} is a primary on timeline {timeline}, which another has left behind: nothing is sent there; stop it and make it \
             a replica (pg_rewind, pg_basebackup)",
            name(*member)
        ),
        Notice::Twin { member } => format!(
            "{} is a primary, too, on the same timeline: it is no replica of {} and gets no reads; one of them is configured by \
             mistake",
            name(*member),
            name(0)
        ),
        Notice::OtherSystem { member } => format!(
            "{} is a server of another cluster (its system identifier differs): it gets no statements; correct [cluster]",
            name(*member)
        ),
        Notice::Unconfirmed(testimony) => {
            format!("no failover: {}", testimony.label())
        }
        Notice::TooSoon => "no failover: the last one was less than failover.interval_min ago; see what makes primaries die, \
                            then `tidegate failover --to SERVER`, or wait"
            .to_owned(),
        Notice::Unfenced => "no failover: failover.fencing = \"required\", and the old primary could not be stopped; stop it \
                             by hand"
            .to_owned(),
        Notice::NobodyEligible(against) => {
            let reasons: Vec<String> = against
                .iter()
                .map(|(member, reason)| format!("{}: {}", name(*member), reason.sentence()))
                .collect();
            format!("no failover: no replica can take over ({})", reasons.join("; "))
        }
        Notice::HeldTooLong => {
            "statements for the primary are not held any longer (failover.hold_max), and fail".to_owned()
        }
        Notice::Promoting { member } => format!("{} is told to become primary", name(*member)),
        Notice::PromotionFailed { member } => format!("{} did not become primary", name(*member)),
        Notice::Adopting { member, timeline } => {
            format!("{} is the primary now, on timeline {timeline}", name(*member))
        }
        Notice::Repointing { member } => {
            format!("{} is told to receive from the new primary", name(*member))
        }
        Notice::SwitchingOver { to } => format!("switchover to {} begins", name(*to)),
        Notice::SwitchedNot(why) => format!("no switchover: {why}"),
        Notice::Outside(outsider) => of_outsider(outsider, name),
    }
}

fn of_outsider(outsider: &Outsider, name: impl Fn(usize) -> String) -> String {
    match outsider {
        Outsider::OrderingSwitchover => {
            "Patroni is asked for a switchover when no transaction is in progress".to_owned()
        }
        Outsider::NotLeader { member, leader } => {
            let leader = match leader {
                Leader::Nobody => "has no leader".to_owned(),
                Leader::Member(leader) => format!("calls {} its leader", name(*leader)),
                Leader::Stranger => "calls a server its leader that is not configured".to_owned(),
            };
            format!(
                "{} is a primary on a newer timeline, but Patroni {leader}: nothing is sent there",
                name(*member)
            )
        }
        Outsider::Foreign => "nobody is promoted: Patroni manages these servers, and two managers make two primaries; set \
                            failover.mode = \"external\" (or \"follow\")"
            .to_owned(),
        Outsider::LeftToOthers => {
            "the failover is left to the Tidegate that holds the lease in etcd".to_owned()
        }
        Outsider::ReachedByOthers => {
            "no failover: another Tidegate still reaches the primary; see what is between it and this one".to_owned()
        }
        Outsider::OtherInForce => format!(
            "no failover: as etcd has it, {} was replaced already by a server that this Tidegate does not reach, or that is not in \
             [cluster]",
            name(0)
        ),
        Outsider::NoLease => {
            "no failover: etcd does not answer, so nobody knows which Tidegate may promote; bring it back".to_owned()
        }
        Outsider::Isolated => format!(
            "etcd does not answer, and not all replicas follow {}: another Tidegate may have promoted one of them, so \
             statements for the primary wait until etcd answers or all follow",
            name(0)
        ),
        Outsider::ClaimedByOthers => {
            "another Tidegate makes another server the primary: statements for the primary wait".to_owned()
        }
    }
}
