//! A primary that may be gone: is it, and who takes its place?

use super::elect::{Elector, elect};
use super::machine::{Machine, REPEAT_TIME, State};
use super::member::Suspicion;
use super::observation::{ANSWER_AGE_MAX, Fault, Observation};
use super::policy::Fencing;
use super::witness::{Testimony, testimony};
use super::words::{Action, Notice};
use std::time::{Duration, Instant};

/// Replicas that were well so shortly before are asked whether they miss the primary.
const KNOWN_TIME: Duration = Duration::from_secs(10);

impl Machine {
    pub(super) fn suspect(&mut self, of: Suspicion, now: Instant) {
        if self.is_in_force(now) {
            self.steady();
            return self.push(Action::Tell(Notice::Recovered));
        }
        if self.is_primary_well() {
            // Another may have been promoted: nothing is sent there until that is known.
            if let Some(notice) = self.why_not_written(now) {
                self.tell(notice);
            }
            return self.hold();
        }
        let trouble = self.members.first().and_then(|primary| primary.trouble);
        let lasts_long = now.saturating_duration_since(of.since) >= self.policy.hold_max;
        if lasts_long {
            if self.held {
                self.release();
                self.tell(Notice::HeldTooLong);
            }
        } else if trouble.is_none_or(|trouble| trouble.holds()) {
            self.hold();
        }
        let Some(trouble) = trouble else { return };
        if self.policy.mode.promotes() && now >= of.next && trouble.is_over(of, &self.policy, now) {
            self.fail_over(of, now);
        }
    }

    /// The primary is gone as far as we can see: is it, and may another take its place?
    pub(super) fn fail_over(&mut self, of: Suspicion, now: Instant) {
        let heard = self.testimony(of, now);
        if heard != Testimony::Gone {
            // Those that have just lost it may not have said so yet.
            if now.saturating_duration_since(of.since) > ANSWER_AGE_MAX {
                self.tell(Notice::Unconfirmed(heard));
            }
            return;
        }
        let is_soon = |at| now.saturating_duration_since(at) < self.policy.interval_min;
        if self.memory.failed_over_at.is_some_and(is_soon) {
            return self.tell(Notice::TooSoon);
        }
        if let Err(notice) = self.may_promote(of, now) {
            return notice.into_iter().for_each(|notice| self.tell(notice));
        }
        match (self.policy.has_fence, self.policy.fencing) {
            (true, _) => {
                self.state = State::Fencing(of);
                self.push(Action::Fence { member: 0 });
            }
            (false, Fencing::Required) => self.tell(Notice::Unfenced),
            (false, Fencing::BestEffort) => self.choose(of, now),
        }
    }

    pub(super) fn choose(&mut self, of: Suspicion, now: Instant) {
        if self.is_primary_well() {
            return self.suspect(of, now);
        }
        // The command that fences has taken its time.
        if let Err(notice) = self.may_promote(of, now) {
            return notice.into_iter().for_each(|notice| self.tell(notice));
        }
        let may_stand = |member: &usize| {
            self.asked
                .is_none_or(|asked| asked == *member || self.fault(asked) == Some(Fault::Refused))
        };
        let electors = (1..self.members.len())
            .filter(may_stand)
            .map(|member| Elector { member, seen: self.heard(member, of.since, now) });
        let elected = elect(electors, &self.memory, &self.policy);
        let Some(member) = elected.member else {
            return self.tell(Notice::NobodyEligible(elected.against));
        };
        self.promote(member, of, now);
    }

    pub(super) fn testimony(&self, of: Suspicion, now: Instant) -> Testimony {
        let known = (1..self.members.len()).filter(|member| {
            let was_well = |at: Instant| at + KNOWN_TIME >= of.since;
            self.members[*member].seen.as_ref().is_some_and(|(_, at)| was_well(*at))
        });
        testimony(known.map(|member| self.heard(member, of.since, now)), self.memory.timeline)
    }

    /// What it has said since, if that is of now.
    pub(super) fn heard(
        &self,
        member: usize,
        since: Instant,
        now: Instant,
    ) -> Option<&Observation> {
        let member = self.members.get(member).filter(|member| member.trouble.is_none())?;
        let (seen, at) = member.seen.as_ref()?;
        let is_new = *at >= since && now.saturating_duration_since(*at) < ANSWER_AGE_MAX;
        is_new.then_some(seen)
    }

    pub(super) fn put_off(&mut self, now: Instant) {
        if let State::Suspect(of) = &mut self.state {
            of.next = now + REPEAT_TIME;
        }
    }

    pub(super) fn watch_primary(&mut self, now: Instant) {
        if self.is_in_force(now) {
            return;
        }
        let trouble = self.members.first().and_then(|primary| primary.trouble);
        let announced =
            trouble.is_some_and(|t| matches!(t.fault, Fault::Starting | Fault::Stopping));
        let of = Suspicion { since: trouble.map_or(now, |t| t.since), announced, next: now };
        self.state = State::Suspect(of);
        match trouble {
            Some(trouble) => self.tell(Notice::Suspected(trouble.fault)),
            None if self.is_primary_well() => {}
            None => self.tell(Notice::NoPrimary),
        }
        self.suspect(of, now);
    }
}
