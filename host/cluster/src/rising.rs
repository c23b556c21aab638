//! Other servers that are primaries: the one that takes over, and leftovers.

use super::machine::{Machine, State};
use super::observation::ANSWER_AGE_MAX;
use super::policy::{Fork, Mode};
use super::words::{Action, Notice};
use std::cmp::Ordering;
use std::time::Instant;

impl Machine {
    /// Another server that is to be adopted.
    pub(super) fn risen(&mut self, now: Instant) -> Option<(usize, u32)> {
        let Some((member, timeline)) = self.newer_primary(now) else {
            self.rising = None;
            return None;
        };
        let since = match self.rising {
            Some((known, of, since)) if (known, of) == (member, timeline) => since,
            _ => now,
        };
        self.rising = Some((member, timeline, since));
        if self.is_acknowledged(member, since, now) {
            return Some((member, timeline));
        }
        self.tell_unled(member, since);
        None
    }

    /// Another server that is a primary, on a newer timeline than any before.
    fn newer_primary(&self, now: Instant) -> Option<(usize, u32)> {
        // Not before the one in force has been heard: it may be newer still.
        let first = self.members.first()?;
        let (own, first_system) = match (&first.seen, first.trouble) {
            (None, None) => return None,
            (Some((seen, _)), None) if seen.is_primary() => {
                (seen.timeline.max(self.memory.timeline), Some(seen.system))
            }
            // A replica follows somebody: who is primary on its timeline is.
            (Some((seen, _)), None) => {
                let before = seen.timeline.saturating_sub(1);
                (before.max(self.memory.timeline), Some(seen.system))
            }
            _ => (self.memory.timeline, None),
        };
        let known = self.memory.system.or(first_system);
        let is_own = |system| known.is_none_or(|own| own == system);
        let others = self.members.iter().enumerate().skip(1).filter_map(|(index, member)| {
            let (seen, at) = member.seen.as_ref()?;
            let is_new = now.saturating_duration_since(*at) < ANSWER_AGE_MAX;
            let counts = member.trouble.is_none() && is_new && seen.is_primary();
            let is_newer = seen.timeline > own && seen.timeline >= self.floor;
            (counts && is_own(seen.system) && is_newer).then_some((seen.timeline, index))
        });
        let newest = others.clone().max()?;
        // Two of them: nobody can say which.
        let is_alone = others.filter(|(timeline, _)| *timeline == newest.0).count() == 1;
        is_alone.then_some((newest.1, newest.0))
    }

    pub(super) fn adopt(&mut self, member: usize, timeline: u32, now: Instant) {
        self.hold();
        let is_ours =
            matches!(self.state, State::Promoting { member: asked, .. } if asked == member);
        // Whoever has promoted: after one failover the next takes its time.
        let is_of_another = self.policy.mode == Mode::Etcd
            && matches!(self.state, State::Suspect(_))
            && !self.is_primary_well();
        if is_ours || is_of_another {
            self.memory.failed_over_at = Some(now);
        }
        if let Some((seen, _)) = self.members.get(member).and_then(|member| member.seen.as_ref()) {
            self.memory.system.get_or_insert(seen.system);
            self.memory.written = seen.position().unwrap_or_default();
        }
        let is_promoted = |(promoted, from, end)| {
            (promoted == member).then_some(Fork { from, to: timeline, end })
        };
        self.memory.fork = self.promoted.and_then(is_promoted);
        self.memory.timeline = timeline;
        self.memory.adopted_at = Some(now);
        self.state = State::Adopted;
        self.tell(Notice::Adopting { member, timeline });
        self.push(Action::Adopt { member });
    }

    /// Others that are no replicas of this primary.
    pub(super) fn notice_others(&mut self) {
        for member in 1..self.members.len() {
            // Who does not answer is what it was.
            let Some(seen) = self.seen(member) else { continue };
            let (timeline, is_primary) = (seen.timeline, seen.is_primary());
            let is_foreign = self.memory.system.is_some_and(|system| system != seen.system);
            let notice = match timeline.cmp(&self.memory.timeline) {
                _ if is_foreign => Some(Notice::OtherSystem { member }),
                Ordering::Less if is_primary => Some(Notice::Outdated { member, timeline }),
                Ordering::Equal if is_primary => Some(Notice::Twin { member }),
                _ => None,
            };
            self.told
                .retain(|told| told.intruder() != Some(member) || Some(told) == notice.as_ref());
            if let Some(notice) = notice {
                self.tell(notice);
            }
        }
    }
}
