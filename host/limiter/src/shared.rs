//! What several processes count together, as one of them sees it: when others are asked, and what they answer.

use super::breaker::Breaker;
use super::ring::{Taken, Taking};
use super::share::{Asking, Name, Share};
use super::{Execution, Keyed, Limiter, Verdict, units};
use std::collections::VecDeque;
use std::time::Duration;
use tidegate_core::limits::LIMIT_WINDOWS_MAX;

/// A number of processes that is lower than it was counts after so long: some may only be slow to say that they are there.
const MEMBERS_FALL_TIME: Duration = Duration::from_secs(10);
/// Of those that may have something to tell, so many are looked at at a time, and so many do.
const FLUSH_LOOKS_MAX: usize = 4_096;
const FLUSH_ORDERS_MAX: usize = 512;
const LISTED_MAX: usize = 2 * LIMIT_WINDOWS_MAX;

/// How it is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedConfig {
    /// A statement waits this long at most for an answer.
    pub deadline: Duration,
    pub fail_mode: FailMode,
    /// How many processes there are, as long as nobody has told.
    pub members: u32,
}

/// What is let through while what is shared does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailMode {
    /// Each process's part of the limit.
    #[default]
    Local,
    /// Everything.
    Open,
    /// Nothing.
    Closed,
}

impl FailMode {
    pub const ALL: [Self; 3] = [Self::Local, Self::Open, Self::Closed];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// What is to be asked of whoever shares, about one bucket. Whoever asks says what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub key: u128,
    pub number: u64,
    pub session: u64,
    pub name: Name,
    pub taking: Taking,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions asked.
    pub orders: u64,
    /// Units taken, and those of them that were not used and given back.
    pub taken: u64,
    pub returned: u64,
    /// Statements that passed with units in hand, and those that this process has counted alone.
    pub leased: u64,
    pub alone: u64,
    /// Statements refused, or told to come later, without asking.
    pub denied: u64,
    /// Answers that came late, and errors.
    pub failures: u64,
    /// Times that it was lost.
    pub losses: u64,
}

/// One process's part.
#[derive(Debug)]
pub(super) struct Shared {
    config: SharedConfig,
    breaker: Breaker,
    /// Counts times of being reached and lost.
    session: u64,
    members: u32,
    fewer_since: Option<Duration>,
    /// Of questions.
    numbers: u64,
    orders: VecDeque<Order>,
    /// Buckets that may have something to tell.
    listed: VecDeque<u128>,
    counts: Counts,
}

impl Shared {
    pub(super) fn new(config: SharedConfig) -> Self {
        Self {
            config,
            breaker: Breaker::default(),
            session: 0,
            members: config.members.max(1),
            fewer_since: None,
            numbers: 0,
            orders: VecDeque::new(),
            listed: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn fail_mode(&self) -> FailMode {
        self.config.fail_mode
    }

    /// One process's part of a limit: so much that something passes.
    pub(super) fn part(&self, limit: u32) -> u32 {
        (limit / self.members).max(1)
    }

    /// May a statement wait for an answer?
    #[inline]
    pub(super) fn may_ask(&self, share: &Share, asked: Duration, now: Duration) -> bool {
        let deadline = self.config.deadline;
        let in_time = |at: Duration| now < at + deadline;
        self.breaker.is_closed()
            && asked < deadline
            && share.asked_at(self.session).is_none_or(in_time)
    }

    /// It has something to tell, or will have.
    pub(super) fn list(&mut self, key: u128, share: &mut Share) {
        // Those that have made room for others are in the list until they are looked at.
        if !share.is_listed && self.listed.len() < LISTED_MAX {
            share.is_listed = true;
            self.listed.push_back(key);
        }
    }

    #[inline]
    pub(super) fn note_passed(&mut self, taken: u32, owed: u32) {
        if owed > 0 {
            self.counts.alone += 1;
        } else if taken > 0 {
            self.counts.leased += 1;
        }
    }

    pub(super) fn note_denied(&mut self, asked: Duration) {
        if asked.is_zero() {
            self.counts.denied += 1;
        }
    }

    fn asking(&mut self, now: Duration) -> Asking {
        self.numbers += 1;
        Asking { now, number: self.numbers, session: self.session, members: self.members }
    }

    fn order(&mut self, key: u128, name: Name, taking: Taking) {
        self.counts.orders += 1;
        self.counts.returned += taking.back.map_or(0, |(_, units)| u64::from(units));
        let (number, session) = (self.numbers, self.session);
        self.orders.push_back(Order { key, number, session, name, taking });
    }
}

/// What is shared.
impl Limiter {
    /// Asks about the buckets whose bit is set; the others have room.
    pub(super) fn ask(
        &mut self,
        buckets: &[Keyed<'_>],
        asks: u64,
        execution: &Execution,
        now: Duration,
    ) -> Verdict {
        let Some(shared) = &mut self.shared else { return Verdict::Pass };
        let mut first = None;
        let asked = buckets.iter().enumerate().filter(|(number, _)| asks >> number & 1 == 1);
        for (_, (bucket, key)) in asked {
            first = first.or(Some(*key));
            // One that has made room for another since is asked about at the next try.
            let Some((_, share)) = self.windows.shared(*key) else { continue };
            let units = units(bucket, execution.charge);
            if share.asked_at(shared.session).is_some() {
                share.wait_for(units);
                continue;
            }
            let taking = share.ask(units, bucket.limit, shared.asking(now));
            shared.order(*key, share.name, taking);
        }
        let time = shared.config.deadline.saturating_sub(execution.asked);
        Verdict::Asked(first.unwrap_or_default(), time)
    }

    /// What to ask next.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.shared.as_mut()?.orders.pop_front()
    }

    /// Now and then: what was used without having been taken is told, and what is left over given back.
    pub fn flush(&mut self, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        if !shared.breaker.is_closed() {
            return;
        }
        let before = shared.orders.len();
        for _ in 0..shared.listed.len().min(FLUSH_LOOKS_MAX) {
            if shared.orders.len() - before >= FLUSH_ORDERS_MAX {
                return;
            }
            let Some(key) = shared.listed.pop_front() else { return };
            let Some((window, share)) = self.windows.shared(key) else { continue };
            share.settle(shared.session, now);
            if share.wants_to_tell(shared.session, window, now)
                && share.asked_at(shared.session).is_none()
            {
                let taking = share.tell(shared.asking(now));
                let name = share.name;
                shared.order(key, name, taking);
            }
            if share.is_pending(now) {
                shared.listed.push_back(key);
            } else {
                share.is_listed = false;
            }
        }
    }

    /// What was asked, answered.
    pub fn handle_taken(&mut self, key: u128, number: u64, taken: &Taken, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        shared.counts.taken += u64::from(taken.granted);
        let Some((window, share)) = self.windows.shared(key) else { return };
        // One that is late was told as such.
        if share.asked_at(shared.session).is_some_and(|at| now < at + shared.config.deadline) {
            shared.breaker.handle_answer();
        }
        share.handle_taken(number, taken, window, now);
        shared.list(key, share);
    }

    /// It was answered with an error, or could not even be asked.
    pub fn handle_refused(&mut self, key: u128, number: u64, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        if let Some((_, share)) = self.windows.shared(key) {
            share.handle_refused(number, now);
            shared.list(key, share);
        }
        self.handle_late(now);
    }

    /// An answer is late. It may yet come.
    pub fn handle_late(&mut self, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        shared.counts.failures += 1;
        let was_closed = shared.breaker.is_closed();
        shared.breaker.handle_failure(now);
        shared.counts.losses += u64::from(was_closed && !shared.breaker.is_closed());
    }

    /// Those who share are reached, and are so many: questions are asked from now on.
    pub fn handle_reached(&mut self, members: u32, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        shared.session += 1;
        shared.orders.clear();
        shared.breaker.handle_reached(now);
        // Whatever was counted may have been lost meanwhile.
        shared.listed.clear();
        for (key, share) in self.windows.all_shared() {
            share.is_listed = false;
            shared.list(key, share);
        }
        self.handle_members(members, now);
    }

    /// So many processes take part.
    pub fn handle_members(&mut self, members: u32, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        let members = members.max(1);
        if members < shared.members {
            let since = *shared.fewer_since.get_or_insert(now);
            if now.saturating_sub(since) < MEMBERS_FALL_TIME {
                return;
            }
        }
        (shared.members, shared.fewer_since) = (members, None);
    }

    /// They are not reached any more, or cannot be: nothing that was asked will be answered.
    pub fn handle_lost(&mut self, now: Duration) {
        let Some(shared) = &mut self.shared else { return };
        shared.session += 1;
        shared.orders.clear();
        shared.counts.losses += u64::from(shared.breaker.is_closed());
        shared.breaker.handle_lost(now);
    }

    /// Are those who share asked?
    pub fn is_reached(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.breaker.is_closed())
    }

    /// While they are not: when to try to reach them again.
    pub fn probe_at(&self) -> Option<Duration> {
        self.shared.as_ref()?.breaker.probe_at()
    }

    /// What is ordered in another one than this is not asked any more.
    pub fn session(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.session)
    }

    /// How many processes are known to take part.
    pub fn members(&self) -> u32 {
        self.shared.as_ref().map_or(1, |shared| shared.members)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.shared.as_ref().map_or_else(Counts::default, |shared| shared.counts)
    }
}
