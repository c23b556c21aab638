//! Replicas that are much slower than the others, or fail too often: without reads for a time that grows with repeats.
//!
//! Two things are measured of each: how long its answers to one and the same question take, and how long the reads of clients take
//! that may run on any replica. Both as the mean of the logarithms, so that one long report among a hundred short reads says little.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// How often what was measured is judged.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So much of what was measured before counts at the next look: most of it is of the last five seconds.
const KEPT_PART: f64 = 0.8;
/// Fewer answers, or reads, say nothing of how fast a server is.
const ANSWERS_MIN: f64 = 10.0;
const READS_MIN: f64 = 30.0;
/// Who is slow at so many looks in a row is slow.
const SLOW_LOOKS_MIN: u32 = 3;
/// Who fails so many reads, and so much of all, fails too often.
const FAILURES_MIN: f64 = 5.0;
const FAILED_PART_MAX: f64 = 0.5;
/// The time doubles with each repeat, so often at most.
const DOUBLINGS_MAX: u32 = 4;
/// Who has served for so many times the first time begins anew.
const FORGIVEN_AFTER: u32 = 10;
/// Logarithms are counted in parts of this size of one that stands for twice the time.
const LOG_PARTS: u32 = 16;

/// From when on a replica is too slow, and how long it is left out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierPolicy {
    /// So many times what the others take …
    pub ratio: u32,
    /// … and so much more.
    pub floor: Duration,
    /// The first time.
    pub time: Duration,
}

/// Reads of clients since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub answered: u64,
    /// The sum of [`log_of`] the time of each.
    pub logs: u64,
    /// Those that it did not take, or was lost with.
    pub failed: u64,
}

/// Why a replica is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    Slow,
    Failing,
}

impl Ejection {
    pub fn label(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Failing => "failing",
        }
    }
}

/// What has become of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Ejected { replica: usize, why: Ejection, time: Duration },
    Returned { replica: usize },
}

/// The logarithm of a time, in sixteenths of that of 2, counted from a nanosecond.
pub fn log_of(time: Duration) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
    let whole = nanos.ilog2();
    // What is behind the highest bit, as far as a sixteenth: near enough to the logarithm's own course.
    let rest = if whole >= 4 { nanos >> (whole - 4) } else { nanos << (4 - whole) };
    u64::from(whole * LOG_PARTS) + (rest & 15)
}

/// What was measured of late, the older the less.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    count: f64,
    logs: f64,
}

impl Meter {
    fn add(&mut self, count: u64, logs: u64) {
        self.count += count as f64;
        self.logs += logs as f64 / f64::from(LOG_PARTS);
    }

    fn fade(&mut self) {
        self.count *= KEPT_PART;
        self.logs *= KEPT_PART;
    }

    /// In seconds; `None`: not known.
    fn typical(&self, count_min: f64) -> Option<f64> {
        (self.count >= count_min).then(|| (self.logs / self.count).exp2() / 1e9)
    }
}

/// ```text
/// In ── slow, or failing ──▶ Out ── its time is over, or it would be one too many ──▶ In
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    In,
    Out {
        why: Ejection,
        until: Instant,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    answers: Meter,
    reads: Meter,
    failed: f64,
    /// Reads as they were last told.
    before: Option<Reads>,
    slow_looks: u32,
    standing: Standing,
    /// Times in a row that it was left out.
    times: u32,
    returned_at: Option<Instant>,
}

impl Member {
    fn forget(&mut self) {
        (self.answers, self.reads, self.failed) = (Meter::default(), Meter::default(), 0.0);
        self.slow_looks = 0;
    }

    fn is_out_for(&self, wanted: Ejection) -> bool {
        matches!(self.standing, Standing::Out { why, .. } if why == wanted)
    }

    fn is_failing(&self) -> bool {
        let all = self.failed + self.reads.count;
        self.failed >= FAILURES_MIN && self.failed >= all * FAILED_PART_MAX
    }

    fn eject(&mut self, why: Ejection, first: Duration, now: Instant) -> Duration {
        let served = self.returned_at.map(|at| now.saturating_duration_since(at));
        if served.is_some_and(|served| served >= first.saturating_mul(FORGIVEN_AFTER)) {
            self.times = 0;
        }
        let time = first.saturating_mul(1 << self.times.min(DOUBLINGS_MAX));
        self.times = self.times.saturating_add(1);
        self.standing = Standing::Out { why, until: now + time };
        self.forget();
        time
    }

    fn take_back(&mut self, now: Instant) {
        (self.standing, self.returned_at) = (Standing::In, Some(now));
        self.forget();
    }
}

/// How one replica stands, whatever is measured of it from then on: what a change of the configuration leaves as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    standing: Standing,
    times: u32,
    returned_at: Option<Instant>,
}

/// The replicas of one cluster. getters: `why_out`, `standings`; events: `handle_answer`, `handle_reads`; `judge` after each.
#[derive(Debug)]
pub struct Outliers {
    /// `None`: nobody is ever left out.
    policy: Option<OutlierPolicy>,
    members: Vec<Member>,
    looked_at: Instant,
    /// Until then not all have been heard: who is good is not known.
    settled_at: Instant,
}

impl Outliers {
    pub fn new(policy: Option<OutlierPolicy>, replicas: usize, now: Instant) -> Self {
        let members = vec![Member::default(); replicas];
        Self { policy, members, looked_at: now, settled_at: now }
    }

    /// For `restore`.
    pub fn standings(&self, replica: usize) -> Standings {
        self.members.get(replica).map_or(Standings::default(), |member| Standings {
            standing: member.standing,
            times: member.times,
            returned_at: member.returned_at,
        })
    }

    /// It stands as it stood before; out for no longer than the policy of now would have it.
    pub fn restore(&mut self, replica: usize, before: Standings, now: Instant) {
        let (Some(policy), Some(member)) = (self.policy, self.members.get_mut(replica)) else {
            return;
        };
        let Standings { mut standing, times, returned_at } = before;
        if let Standing::Out { until, .. } = &mut standing {
            let doublings = times.saturating_sub(1).min(DOUBLINGS_MAX);
            *until = (*until).min(now + policy.time.saturating_mul(1 << doublings));
        }
        (member.standing, member.times, member.returned_at) = (standing, times, returned_at);
        self.settled_at = now + LOOK_INTERVAL;
    }

    /// It has answered the question that all are asked.
    pub fn handle_answer(&mut self, replica: usize, took: Duration) {
        if let Some(member) = self.members.get_mut(replica) {
            member.answers.add(1, log_of(took));
        }
    }

    /// Its reads so far.
    pub fn handle_reads(&mut self, replica: usize, now: Reads) {
        let Some(member) = self.members.get_mut(replica) else { return };
        if let Some(before) = member.before.replace(now) {
            let answered = now.answered.saturating_sub(before.answered);
            member.reads.add(answered, now.logs.saturating_sub(before.logs));
            member.failed += now.failed.saturating_sub(before.failed) as f64;
        }
    }

    /// Why the replica gets no reads now, if that is so.
    pub fn why_out(&self, replica: usize) -> Option<Ejection> {
        match self.members.get(replica)?.standing {
            Standing::In => None,
            Standing::Out { why, .. } => Some(why),
        }
    }

    /// What has changed. `good` are the replicas that could serve reads: at most half of them are left out for being slow.
    pub fn judge(&mut self, good: &[bool], now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(policy) = self.policy else { return changes };
        let good = |replica: usize| good.get(replica).copied().unwrap_or(false);
        if now.saturating_duration_since(self.looked_at) >= LOOK_INTERVAL {
            self.looked_at = now;
            self.look(policy, good);
            self.end_times(policy, good, now, &mut changes);
            self.eject(policy, good, now, &mut changes);
            for member in &mut self.members {
                member.answers.fade();
                member.reads.fade();
                member.failed *= KEPT_PART;
            }
        }
        if now >= self.settled_at {
            self.keep_half(good, now, &mut changes);
        }
        changes
    }

    fn look(&mut self, policy: OutlierPolicy, good: impl Fn(usize) -> bool) {
        for replica in 0..self.members.len() {
            if !good(replica) {
                // Whatever it is when it comes back, it is another.
                self.members[replica].forget();
                continue;
            }
            let slow = self.is_slow(policy, replica, &good);
            let member = &mut self.members[replica];
            member.slow_looks = if slow { member.slow_looks.saturating_add(1) } else { 0 };
        }
    }

    fn is_slow(
        &self,
        policy: OutlierPolicy,
        replica: usize,
        good: &impl Fn(usize) -> bool,
    ) -> bool {
        let answers = |member: &Member| member.answers.typical(ANSWERS_MIN);
        let reads = |member: &Member| member.reads.typical(READS_MIN);
        self.is_slower(policy, replica, good, answers)
            || self.is_slower(policy, replica, good, reads)
    }

    /// Compared with the median of the others; of an even number the slower one in the middle, so that half of the replicas are
    /// no outliers.
    fn is_slower(
        &self,
        policy: OutlierPolicy,
        replica: usize,
        good: &impl Fn(usize) -> bool,
        typical: impl Fn(&Member) -> Option<f64>,
    ) -> bool {
        let members = self.members.iter().enumerate();
        let others = members.filter(|(other, _)| *other != replica && good(*other));
        let mut others: Vec<f64> = others.filter_map(|(_, member)| typical(member)).collect();
        others.sort_by(f64::total_cmp);
        let own = self.members.get(replica).and_then(&typical);
        let (Some(own), Some(median)) = (own, others.get(others.len() / 2)) else { return false };
        own > median * f64::from(policy.ratio) && own - median > policy.floor.as_secs_f64()
    }

    fn end_times(
        &mut self,
        policy: OutlierPolicy,
        good: impl Fn(usize) -> bool,
        now: Instant,
        changes: &mut Vec<Change>,
    ) {
        for (replica, member) in self.members.iter_mut().enumerate() {
            match member.standing {
                Standing::Out { until, why } if now >= until => {
                    if why == Ejection::Slow && good(replica) && member.slow_looks >= SLOW_LOOKS_MIN
                    {
                        // It still is, by its answers: nobody's read has to find out.
                        member.eject(why, policy.time, now);
                    } else {
                        member.take_back(now);
                        changes.push(Change::Returned { replica });
                    }
                }
                Standing::Out { .. } | Standing::In => {}
            }
        }
    }

    fn eject(
        &mut self,
        policy: OutlierPolicy,
        good: impl Fn(usize) -> bool,
        now: Instant,
        changes: &mut Vec<Change>,
    ) {
        let mut room = self.slow_max(&good).saturating_sub(self.slow(&good));
        for (replica, member) in self.members.iter_mut().enumerate() {
            if !good(replica) || member.standing != Standing::In {
                continue;
            }
            let why = if member.is_failing() {
                Ejection::Failing
            } else if room > 0 && member.slow_looks >= SLOW_LOOKS_MIN {
                room -= 1;
                Ejection::Slow
            } else {
                continue;
            };
            let time = member.eject(why, policy.time, now);
            changes.push(Change::Ejected { replica, why, time });
        }
    }

    fn slow_max(&self, good: &impl Fn(usize) -> bool) -> usize {
        (0..self.members.len()).filter(|replica| good(*replica)).count() / 2
    }

    /// Good but for being slow.
    fn slow(&self, good: &impl Fn(usize) -> bool) -> usize {
        let members = self.members.iter().enumerate();
        members.filter(|(at, member)| good(*at) && member.is_out_for(Ejection::Slow)).count()
    }

    /// Others may have been lost since: who is to return first returns now.
    fn keep_half(&mut self, good: impl Fn(usize) -> bool, now: Instant, changes: &mut Vec<Change>) {
        while self.slow(&good) > self.slow_max(&good) {
            let members = self.members.iter_mut().enumerate();
            let slow = members.filter_map(|(replica, member)| match member.standing {
                Standing::Out { why: Ejection::Slow, until } if good(replica) => {
                    Some((until, replica, member))
                }
                _ => None,
            });
            let Some((_, replica, member)) = slow.min_by_key(|(until, ..)| *until) else { return };
            member.take_back(now);
            changes.push(Change::Returned { replica });
        }
    }
}
