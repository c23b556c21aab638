//! Replica or primary, for one read.

use super::freshness::Lsn;
use super::rotation::Rotation;
use std::time::Instant;

/// What is known of one replica now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaView {
    /// It shows every commit that was acknowledged before this moment. `None`: not known, so no read goes there.
    pub fresh_as_of: Option<Instant>,
    /// So much of the log it has replayed at least. `None`: not known.
    pub replayed: Option<Lsn>,
    /// Its lag is within bounds (property 10) and it answers.
    pub usable: bool,
    /// Its share of reads; 0 is none.
    pub weight: u32,
}

/// Where a session's statement ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Primary,
    Replica(usize),
}

/// What a session has done, as far as it matters to where its next read may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadFacts {
    /// When the last statement that may have written was acknowledged; yet to come where its reads are to stay on the primary
    /// until then.
    pub wrote_at: Option<Instant>,
    /// Where the last statement ran, and when it was over: what it saw must not be unseen.
    pub saw: Option<(Place, Instant)>,
    /// What the session wants to see besides: everything up to there (`SET tidegate.min_lsn`).
    pub min_lsn: Option<Lsn>,
}

/// Where a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Replica(usize),
    Primary(WhyPrimary),
}

/// Why a read uses the primary. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhyPrimary {
    /// There is no replica, or none may be used.
    NoReplica,
    /// No replica shows the session's last write yet.
    OwnWrite,
    /// No replica has replayed what the session asks for by a position.
    Position,
    /// No other replica shows what the session has already seen.
    Monotonic,
}

impl WhyPrimary {
    pub fn label(self) -> &'static str {
        match self {
            Self::NoReplica => "no_replica",
            Self::OwnWrite => "own_write",
            Self::Position => "position",
            Self::Monotonic => "monotonic",
        }
    }
}

/// Chooses among the replicas that show the session's own writes and everything it has seen.
///
/// A replica only moves forward, so the one that a session used last always shows what the session saw there.
pub fn choose(
    replicas: &[ReplicaView],
    facts: &ReadFacts,
    rotation: &mut Rotation,
    weights: &mut Vec<u32>,
) -> Choice {
    weights.clear();
    let mut why = WhyPrimary::NoReplica;
    for (index, replica) in replicas.iter().enumerate() {
        let allowed = match judge(index, replica, facts) {
            Ok(()) => replica.weight,
            Err(reason) => {
                why = why.max_of(reason);
                0
            }
        };
        weights.push(allowed);
    }
    match rotation.next(weights) {
        Some(index) => Choice::Replica(index),
        None => Choice::Primary(why),
    }
}

/// Is there a replica that shows what the session has to see?
pub fn is_shown(replicas: &[ReplicaView], facts: &ReadFacts) -> bool {
    replicas.iter().enumerate().any(|(index, replica)| judge(index, replica, facts).is_ok())
}

fn judge(index: usize, replica: &ReplicaView, facts: &ReadFacts) -> Result<(), WhyPrimary> {
    let Some(as_of) = replica.fresh_as_of.filter(|_| replica.usable && replica.weight > 0) else {
        return Err(WhyPrimary::NoReplica);
    };
    if facts.wrote_at.is_some_and(|wrote_at| as_of <= wrote_at) {
        return Err(WhyPrimary::OwnWrite);
    }
    if facts.min_lsn.is_some_and(|wanted| replica.replayed.is_none_or(|there| there < wanted)) {
        return Err(WhyPrimary::Position);
    }
    match facts.saw {
        Some((Place::Replica(same), _)) if same == index => Ok(()),
        Some((_, seen_at)) if as_of <= seen_at => Err(WhyPrimary::Monotonic),
        _ => Ok(()),
    }
}

impl WhyPrimary {
    /// The reason that came closest to a replica.
    fn max_of(self, other: Self) -> Self {
        let rank = |why: Self| match why {
            Self::NoReplica => 0,
            Self::OwnWrite => 1,
            Self::Position => 2,
            Self::Monotonic => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn replica(fresh_as_of: Option<Instant>) -> ReplicaView {
        ReplicaView { fresh_as_of, usable: true, weight: 1, replayed: Some(Lsn(50)) }
    }

    #[test]
    fn a_session_without_a_past_reads_anywhere() {
        let now = Instant::now();
        let views = [replica(Some(now)), replica(Some(now))];
        let (mut rotation, mut scratch) = (Rotation::default(), Vec::new());
        let mut choose = || choose(&views, &ReadFacts::default(), &mut rotation, &mut scratch);
        assert_eq!([choose(), choose(), choose()], [0, 1, 0].map(Choice::Replica));
    }

    #[test]
    fn the_reasons_are_told() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let (mut rotation, mut scratch) = (Rotation::default(), Vec::new());
        let mut ask =
            |views: &[ReplicaView], facts| choose(views, &facts, &mut rotation, &mut scratch);
        let nothing = ReadFacts::default();
        let wrote = ReadFacts { wrote_at: Some(later), ..nothing };
        let saw = ReadFacts { saw: Some((Place::Primary, later)), ..nothing };
        let wants = |position| ReadFacts { min_lsn: Some(Lsn(position)), ..nothing };
        assert_eq!(ask(&[], wrote), Choice::Primary(WhyPrimary::NoReplica));
        assert_eq!(ask(&[replica(None)], wrote), Choice::Primary(WhyPrimary::NoReplica));
        assert_eq!(ask(&[replica(Some(now))], wrote), Choice::Primary(WhyPrimary::OwnWrite));
        assert_eq!(ask(&[replica(Some(now))], saw), Choice::Primary(WhyPrimary::Monotonic));
        assert_eq!(ask(&[replica(Some(now))], wants(51)), Choice::Primary(WhyPrimary::Position));
        assert_eq!(ask(&[replica(Some(now))], wants(50)), Choice::Replica(0));
        let same = ReadFacts { saw: Some((Place::Replica(1), later)), ..nothing };
        assert_eq!(ask(&[replica(Some(now)), replica(Some(now))], same), Choice::Replica(1));
    }

    fn view() -> impl Strategy<Value = (Option<u64>, bool, u32, Option<u64>)> {
        let time = || proptest::option::of(0..100_u64);
        (time(), any::<bool>(), 0..4_u32, time())
    }

    fn seen() -> impl Strategy<Value = Option<(Option<usize>, u64)>> {
        proptest::option::of((proptest::option::of(0..4_usize), 0..100_u64))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 10: a read goes only to a replica that shows the session's writes, what it saw and asks for; when one is left
        // it is used.
        #[test]
        fn a_chosen_replica_is_fresh_enough(
            views in proptest::collection::vec(view(), 0..4), wrote in proptest::option::of(0..100_u64), saw in seen(),
            min_lsn in proptest::option::of(0..100_u64),
        ) {
            let start = Instant::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let replicas: Vec<ReplicaView> = views
                .iter()
                .map(|(fresh, usable, weight, replayed)| ReplicaView {
                    fresh_as_of: fresh.map(at),
                    usable: *usable,
                    weight: *weight,
                    replayed: replayed.map(Lsn),
                })
                .collect();
            let facts = ReadFacts {
                wrote_at: wrote.map(at),
                saw: saw.map(|(replica, ms)| (replica.map_or(Place::Primary, Place::Replica), at(ms))),
                min_lsn: min_lsn.map(Lsn),
            };
            let fits = |index: usize| {
                let (Some(fresh), true, 1.., replayed) = views[index] else { return false };
                wrote.is_none_or(|wrote| wrote < fresh)
                    && saw.is_none_or(|(replica, ms)| replica == Some(index) || ms < fresh)
                    && min_lsn.is_none_or(|wanted| replayed >= Some(wanted))
            };
            prop_assert_eq!(is_shown(&replicas, &facts), (0..views.len()).any(fits));
            let (mut rotation, mut scratch) = (Rotation::default(), Vec::new());
            for _ in 0..5 {
                match choose(&replicas, &facts, &mut rotation, &mut scratch) {
                    Choice::Replica(index) => prop_assert!(fits(index)),
                    Choice::Primary(_) => prop_assert!(!(0..views.len()).any(fits)),
                }
            }
        }
    }
}
