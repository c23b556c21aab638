//! Failed logins slow down the next answers to the same address, so that passwords are not guessed fast.

use crate::limits::{
    IDENTIFIER_BYTES_MAX, LOGIN_DELAY_FIRST, LOGIN_DELAY_MAX, LOGIN_FAILURES_FREE,
    LOGIN_FAILURES_TIME, LOGIN_FAILURES_TRACKED_MAX,
};
use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What came of a login that had something to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
}

/// Recent failures by address, and by user at an address; bounded. A tree: its keys are chosen by whoever fails.
///
/// A wrong answer is delayed by the failures of its address. A right one only by those of its own
/// user there: it must not be told sooner than a wrong one, and others at the address have no part in
/// it. `handle_verdict` answers for how long to wait before the client is told.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: BTreeMap<Suspect, Failures>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suspect {
    address: IpAddr,
    /// `None`: all users of the address together.
    user: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last_at: Instant,
}

impl Throttle {
    /// Counts a failure, and says how long the answer is to be held back.
    pub fn handle_verdict(
        &mut self,
        address: IpAddr,
        user: &str,
        verdict: Verdict,
        now: Instant,
    ) -> Duration {
        let everybody = Suspect { address: network(address), user: None };
        let end = user.floor_char_boundary(IDENTIFIER_BYTES_MAX);
        let this_user = Suspect { user: Some(user[..end].into()), ..everybody.clone() };
        match verdict {
            Verdict::Right => delay(self.count(&this_user, now)),
            Verdict::Wrong => {
                let users = self.note_failure(this_user, now);
                delay(users.max(self.note_failure(everybody, now)))
            }
        }
    }

    fn count(&self, suspect: &Suspect, now: Instant) -> u32 {
        self.failures
            .get(suspect)
            .filter(|known| known.is_recent(now))
            .map_or(0, |known| known.count)
    }

    /// How many there are now.
    fn note_failure(&mut self, suspect: Suspect, now: Instant) -> u32 {
        let count = self.count(&suspect, now).saturating_add(1);
        if self.failures.len() >= LOGIN_FAILURES_TRACKED_MAX
            && !self.failures.contains_key(&suspect)
        {
            self.make_room(now);
        }
        self.failures.insert(suspect, Failures { count, last_at: now });
        count
    }

    /// Forgets what is over, and the quarter with fewest failures if nothing is: so a table is gone
    /// through once for many entries.
    fn make_room(&mut self, now: Instant) {
        self.failures.retain(|_, known| known.is_recent(now));
        if self.failures.len() < LOGIN_FAILURES_TRACKED_MAX {
            return;
        }
        let rank = |known: &Failures| (known.count, known.last_at);
        let mut ranks: Vec<_> = self.failures.values().map(rank).collect();
        let (_, least_kept, _) = ranks.select_nth_unstable(LOGIN_FAILURES_TRACKED_MAX / 4);
        let least_kept = *least_kept;
        self.failures.retain(|_, known| rank(known) > least_kept);
    }
}

impl Failures {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_at) < LOGIN_FAILURES_TIME
    }
}

fn delay(failures: u32) -> Duration {
    match failures.checked_sub(LOGIN_FAILURES_FREE + 1) {
        None => Duration::ZERO,
        Some(doublings) => (LOGIN_DELAY_FIRST * (1 << doublings.min(8))).min(LOGIN_DELAY_MAX),
    }
}

/// Whoever has an IPv6 address has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn fail(throttle: &mut Throttle, address: IpAddr, user: &str, now: Instant) -> Duration {
        throttle.handle_verdict(address, user, Verdict::Wrong, now)
    }

    #[test]
    fn a_few_mistakes_are_free_and_then_each_doubles_the_wait_to_a_bound() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..LOGIN_FAILURES_FREE {
            assert_eq!(fail(&mut throttle, HOST, "ann", now), Duration::ZERO);
        }
        assert_eq!(fail(&mut throttle, HOST, "ann", now), LOGIN_DELAY_FIRST);
        assert_eq!(fail(&mut throttle, HOST, "ann", now), LOGIN_DELAY_FIRST * 2);
        for _ in 0..100 {
            fail(&mut throttle, HOST, "ann", now);
        }
        assert_eq!(fail(&mut throttle, HOST, "ann", now), LOGIN_DELAY_MAX);
        let later = now + LOGIN_FAILURES_TIME;
        assert_eq!(fail(&mut throttle, HOST, "ann", later), Duration::ZERO, "it is forgotten");
    }

    #[test]
    fn a_right_password_waits_only_where_its_own_user_was_guessed() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..=LOGIN_FAILURES_FREE {
            fail(&mut throttle, HOST, "ann", now);
        }
        let mut right = |address, user| throttle.handle_verdict(address, user, Verdict::Right, now);
        assert_eq!(right(HOST, "ann"), LOGIN_DELAY_FIRST);
        assert_eq!(right(HOST, "bob"), Duration::ZERO);
        assert_eq!(right(OTHER, "ann"), Duration::ZERO);
        // Going on to other users does not help.
        assert!(fail(&mut throttle, HOST, "bob", now) > LOGIN_DELAY_FIRST);
        assert_eq!(fail(&mut throttle, OTHER, "bob", now), Duration::ZERO);
    }

    #[test]
    fn the_addresses_of_one_network_count_together() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let address = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, last, 0, 0, 1));
        for number in 0..u16::try_from(LOGIN_FAILURES_FREE).unwrap() {
            assert_eq!(fail(&mut throttle, address(number), "ann", now), Duration::ZERO);
        }
        assert_eq!(fail(&mut throttle, address(999), "ann", now), LOGIN_DELAY_FIRST);
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(network(mapped), HOST);
    }

    #[test]
    fn a_flood_of_addresses_does_not_make_the_worst_forgotten() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..50 {
            fail(&mut throttle, OTHER, "ann", now);
        }
        for number in 0..3 * u32::try_from(LOGIN_FAILURES_TRACKED_MAX).unwrap() {
            fail(&mut throttle, IpAddr::V4(Ipv4Addr::from(number)), "ann", now);
            assert!(throttle.failures.len() <= LOGIN_FAILURES_TRACKED_MAX);
        }
        assert_eq!(fail(&mut throttle, OTHER, "ann", now), LOGIN_DELAY_MAX);
    }

    proptest! {
        /// Whatever the history: no wait is longer than the bound, and who failed seldom waits for nothing.
        #[test]
        fn waits_are_bounded_and_only_for_those_who_failed_often(
            events in proptest::collection::vec((0_u8..4, 0_u8..3, any::<bool>(), 0_u64..20), 1..200),
        ) {
            let (mut throttle, mut now) = (Throttle::default(), Instant::now());
            let mut failed = [0_u32; 4];
            for (address, user, right, seconds) in events {
                now += Duration::from_secs(seconds);
                let verdict = if right { Verdict::Right } else { Verdict::Wrong };
                failed[usize::from(address)] += u32::from(!right);
                let host = IpAddr::V4(Ipv4Addr::new(10, 0, 0, address));
                let wait = throttle.handle_verdict(host, &user.to_string(), verdict, now);
                prop_assert!(wait <= LOGIN_DELAY_MAX);
                if failed[usize::from(address)] <= LOGIN_FAILURES_FREE {
                    prop_assert_eq!(wait, Duration::ZERO);
                }
            }
        }
    }
}
