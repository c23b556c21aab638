//! Replicas that do not follow the primary: told again who that is, then made anew.
//!
//! ```text
//! follows <-- it moves, or has all there is -- lapsed -- repoint_after --> repointed -- rebuild_after --> rebuilt
//! ```
//! From *rebuilt* it is tried again after `again_after`, as long as it does not follow.

use crate::observation::{Observation, Receiver, Role};
use std::time::{Duration, Instant};
use tidegate_core::route::Lsn;

/// When something is done about a replica that does not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResyncPolicy {
    /// It is told who the primary is.
    pub repoint_after: Duration,
    /// It is made anew; at least `repoint_after`.
    pub rebuild_after: Duration,
    /// And again after this.
    pub again_after: Duration,
}

/// What a replica needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// To be told who the primary is.
    Repoint,
    /// To be made a copy of the primary again.
    Rebuild,
}

/// One replica under watch.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    lapsed_at: Option<Instant>,
    replayed: Option<Lsn>,
    repointed: Option<()>,
    rebuilt_at: Option<Instant>,
    /// It cannot be told who the primary is.
    left_alone: Option<()>,
}

impl Follower {
    /// Since when it does not follow.
    pub fn lapsed_at(&self) -> Option<Instant> {
        self.lapsed_at
    }

    /// It could not be told who the primary is: it may be one that is fed from an archive alone, and is not made anew.
    pub fn handle_not_repointed(&mut self) {
        self.left_alone = Some(());
    }

    /// What is known now. `replica` and `primary` are the newest answers of a cluster that is well; `None` where there is none, or
    /// where the cluster is not, and then no time counts against anybody.
    pub fn look(
        &mut self,
        replica: Option<&Observation>,
        primary: Option<&Observation>,
        policy: &ResyncPolicy,
        now: Instant,
    ) -> Option<Remedy> {
        let (Some(replica), Some(primary)) = (replica, primary) else {
            // Who comes back is given its time anew.
            self.lapsed_at = None;
            return None;
        };
        if self.follows(replica, primary) {
            (self.lapsed_at, self.repointed, self.rebuilt_at) = (None, None, None);
            self.left_alone = None;
            return None;
        }
        let lapsed = now.saturating_duration_since(*self.lapsed_at.get_or_insert(now));
        if lapsed >= policy.repoint_after && self.repointed.is_none() {
            self.repointed = Some(());
            return Some(Remedy::Repoint);
        }
        let again = self.left_alone.is_none()
            && self.rebuilt_at.is_none_or(|at| now >= at + policy.again_after);
        if lapsed >= policy.rebuild_after && again {
            self.rebuilt_at = Some(now);
            return Some(Remedy::Rebuild);
        }
        None
    }

    /// Does it receive, or come nearer by other means (an archive), or have all that there is? Who may be another cluster's, is a
    /// primary itself, was stopped by hand or does not say whether it receives is left alone: taken to follow.
    fn follows(&mut self, replica: &Observation, primary: &Observation) -> bool {
        let Role::Replica { replayed, receiver, paused, .. } = replica.role else { return true };
        let moves = std::mem::replace(&mut self.replayed, replayed) < replayed;
        if replica.system != primary.system || paused || receiver == Receiver::Hidden {
            return true;
        }
        let of_this_primary = replica.timeline == primary.timeline;
        let has_all = of_this_primary && primary.position() <= replayed;
        match receiver {
            Receiver::Streaming => of_this_primary,
            Receiver::Gone | Receiver::Hidden => moves || has_all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The replica's and the primary's answers, where there are any.
    type Seen = (Option<Observation>, Option<Observation>);

    const POLICY: ResyncPolicy = ResyncPolicy {
        repoint_after: Duration::from_secs(10),
        rebuild_after: Duration::from_secs(60),
        again_after: Duration::from_secs(600),
    };

    fn primary(timeline: u32, written: u64) -> Observation {
        Observation { system: 7, timeline, role: Role::Primary { written: Lsn(written) } }
    }

    fn replica(timeline: u32, replayed: u64, receiver: Receiver) -> Observation {
        let (received, replayed, paused) = (None, Some(Lsn(replayed)), false);
        Observation {
            system: 7,
            timeline,
            role: Role::Replica { received, replayed, receiver, paused },
        }
    }

    /// What is done in so many seconds, with the second in which it is.
    fn remedies(
        follower: &mut Follower,
        start: Instant,
        seconds: std::ops::Range<u64>,
        seen: impl Fn(u64) -> Seen,
    ) -> Vec<(u64, Remedy)> {
        seconds
            .filter_map(|second| {
                let (replica, primary) = seen(second);
                let now = start + Duration::from_secs(second);
                let remedy = follower.look(replica.as_ref(), primary.as_ref(), &POLICY, now);
                remedy.map(|remedy| (second, remedy))
            })
            .collect()
    }

    #[test]
    fn a_replica_that_stands_still_is_repointed_then_rebuilt_then_rebuilt_again() {
        let seen = |_| (Some(replica(1, 5, Receiver::Gone)), Some(primary(1, 9)));
        let mut follower = Follower::default();
        let done = remedies(&mut follower, Instant::now(), 0..700, seen);
        // The first answer is where it stands: it has moved there from nowhere.
        assert_eq!(done, [(11, Remedy::Repoint), (61, Remedy::Rebuild), (661, Remedy::Rebuild)]);
    }

    #[test]
    fn a_replica_that_streams_from_the_one_before_is_not_followed_by_belief() {
        let seen =
            |second| (Some(replica(1, 5 + second, Receiver::Streaming)), Some(primary(2, 9)));
        let done = remedies(&mut Follower::default(), Instant::now(), 0..20, seen);
        assert_eq!(done, [(10, Remedy::Repoint)]);
    }

    #[test]
    fn a_replica_that_cannot_be_told_is_left_alone() {
        let seen = |_| (Some(replica(1, 5, Receiver::Gone)), Some(primary(1, 9)));
        let (mut follower, start) = (Follower::default(), Instant::now());
        assert_eq!(remedies(&mut follower, start, 0..12, seen), [(11, Remedy::Repoint)]);
        follower.handle_not_repointed();
        assert_eq!(remedies(&mut follower, start, 12..900, seen), []);
    }

    #[test]
    fn nothing_is_done_about_those_that_follow_or_are_others_matter() {
        let well =
            |second: u64| (Some(replica(1, second, Receiver::Streaming)), Some(primary(1, 900)));
        let archive =
            |second: u64| (Some(replica(1, second, Receiver::Gone)), Some(primary(1, 9000)));
        let idle = |_| (Some(replica(1, 9, Receiver::Gone)), Some(primary(1, 9)));
        let hidden = |_| (Some(replica(1, 5, Receiver::Hidden)), Some(primary(1, 9)));
        let another = |_| {
            (Some(Observation { system: 8, ..replica(1, 5, Receiver::Gone) }), Some(primary(1, 9)))
        };
        let alone = |_| (Some(primary(1, 5)), Some(primary(2, 9)));
        let down = |_| (None, Some(primary(1, 9)));
        let troubled = |_| (Some(replica(1, 5, Receiver::Gone)), None);
        let cases: [&dyn Fn(u64) -> Seen; 8] =
            [&well, &archive, &idle, &hidden, &another, &alone, &down, &troubled];
        for (number, seen) in cases.into_iter().enumerate() {
            let done = remedies(&mut Follower::default(), Instant::now(), 0..1000, seen);
            assert_eq!(done, [], "case {number}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 25: nothing is done to a replica that followed, or was not to be judged, within the time that it is given; one
        // that does neither for that time is repointed, and rebuilt if that does not help.
        #[test]
        fn only_those_that_lapse_are_touched_and_all_of_them_are(
            seconds in proptest::collection::vec(0..4_u8, 1..300),
        ) {
            let start = Instant::now();
            let mut follower = Follower::default();
            let (mut lapsed, mut replayed) = (0_u64, 0);
            let (mut repointed, mut rebuilt_at): (bool, Option<u64>) = (false, None);
            // Where it stands is known before.
            follower.look(Some(&replica(1, 0, Receiver::Streaming)), Some(&primary(1, 9_999)), &POLICY, start);
            for (second, what) in seconds.into_iter().flat_map(|what| [what; 8]).enumerate() {
                let second = second as u64 + 1;
                let now = start + Duration::from_secs(second);
                let good = primary(1, 9_999);
                let (seen, well) = match what {
                    0 => (None, Some(&good)),
                    1 => { replayed += 1; (Some(replica(1, replayed, Receiver::Gone)), Some(&good)) }
                    _ => (Some(replica(1, replayed, Receiver::Gone)), Some(&good)),
                };
                let remedy = follower.look(seen.as_ref(), well, &POLICY, now);
                let lapses = what >= 2;
                match what {
                    0 => lapsed = 0,
                    1 => { lapsed = 0; repointed = false; rebuilt_at = None; }
                    _ => {}
                }
                let expected = match (lapses, lapsed) {
                    (true, 10..) if !repointed => Some(Remedy::Repoint),
                    (true, 60..) if rebuilt_at.is_none_or(|at| second >= at + 600) => Some(Remedy::Rebuild),
                    _ => None,
                };
                prop_assert_eq!(remedy, expected, "second {}, lapsed {}", second, lapsed);
                match expected {
                    Some(Remedy::Repoint) => repointed = true,
                    Some(Remedy::Rebuild) => rebuilt_at = Some(second),
                    None => {}
                }
                if lapses { lapsed += 1; }
            }
        }
    }
}
