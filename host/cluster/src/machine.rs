//! What is done: hold, promote, follow.

use super::external::{Asking, Managed};
use super::lease::Lease;
use super::member::{Member, Suspicion, Trouble};
use super::observation::{Fault, Observation, Receiver, Role};
use super::policy::{Fencing, Memory, Mode, Policy};
use super::switchover::{Switch, Undo};
use super::words::{Action, Notice, Status};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_core::route::Lsn;

/// At the start the servers are given this long to say what they are before statements run.
const START_TIME_MAX: Duration = Duration::from_secs(1);
/// A step that failed is repeated after this.
pub(super) const REPEAT_TIME: Duration = Duration::from_secs(5);
/// A replica that was told to become primary is given this long.
pub(super) const PROMOTION_TIME_MAX: Duration = Duration::from_secs(60);
/// For so long after another primary was adopted, replicas that receive from nobody are pointed to it.
const REPOINT_TIME: Duration = Duration::from_secs(60);
/// How soon to look again while something is under way.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unknown {
        since: Instant,
    },
    Steady,
    Suspect(Suspicion),
    Fencing(Suspicion),
    Promoting {
        member: usize,
        since: Instant,
        of: Suspicion,
    },
    Switching(Switch),
    /// Patroni is asked for another leader.
    Asking(Asking),
    Adopted,
}

/// Decides for one order of servers. getters: `status`, `memory`, `may_read`, `is_urgent`; events: `handle_*`; results:
/// `poll_action` until `None`, then again at `wake_at` or after the next event.
#[derive(Debug)]
pub struct Machine {
    pub(super) policy: Policy,
    pub(super) memory: Memory,
    pub(super) members: Vec<Member>,
    pub(super) state: State,
    pub(super) held: bool,
    /// Who was told to become primary, and may do so yet: nobody else is, while it may be alive and the primary is not back.
    pub(super) asked: Option<usize>,
    /// Who was last told to become primary, its timeline, and what it had then.
    pub(super) promoted: Option<(usize, u32, Lsn)>,
    /// Who is to take over by an operator's order, once the old primary has been fenced.
    pub(super) forced: Option<usize>,
    /// What etcd, and Patroni, have last said.
    pub(super) lease: Option<Lease>,
    /// The lease is ours since.
    pub(super) led_since: Option<Instant>,
    /// On an older timeline than this nobody is primary, as etcd has it.
    pub(super) floor: u32,
    pub(super) managed: Option<Managed>,
    /// Somebody else manages these servers.
    pub(super) is_foreign: bool,
    /// Our lease is being given up.
    pub(super) leaves: bool,
    /// Who was seen to be a primary on a newer timeline, and since when.
    pub(super) rising: Option<(usize, u32, Instant)>,
    actions: VecDeque<Action>,
    pub(super) told: Vec<Notice>,
}

impl Machine {
    /// For so many servers, the first of which is taken for the primary.
    pub fn new(policy: Policy, memory: Memory, members: usize, now: Instant) -> Self {
        let mut machine = Self {
            state: State::Unknown { since: now },
            members: vec![Member::default(); members],
            policy,
            memory,
            held: false,
            asked: None,
            promoted: None,
            forced: None,
            lease: None,
            led_since: None,
            floor: 0,
            managed: None,
            is_foreign: false,
            leaves: false,
            rising: None,
            actions: VecDeque::new(),
            told: Vec::new(),
        };
        if machine.policy.mode == Mode::Off {
            machine.state = State::Steady;
        } else {
            machine.hold();
        }
        machine
    }

    /// Under a policy before this one, this server was told to become primary, and may do so yet.
    #[must_use]
    pub fn with_asked(self, asked: Option<usize>) -> Self {
        Self { asked, ..self }
    }

    /// Who may become primary yet, since it was told to: for `with_asked`.
    pub fn asked(&self) -> Option<usize> {
        match &self.state {
            State::Promoting { member, .. } => Some(*member),
            State::Switching(switch) => switch.promoted().or(self.asked),
            State::Adopted => None,
            _ => self.asked,
        }
    }

    /// Was it told by us to become primary?
    pub fn has_promoted(&self, member: usize) -> bool {
        self.promoted.is_some_and(|(promoted, ..)| promoted == member)
    }

    pub fn status(&self) -> Status {
        match &self.state {
            State::Unknown { .. } => Status::Starting,
            State::Steady => Status::Steady,
            State::Suspect(_) => Status::Suspect,
            State::Fencing(_) => Status::Fencing,
            State::Promoting { .. } => Status::Promoting,
            State::Switching(_) | State::Asking(_) => Status::SwitchingOver,
            State::Adopted => Status::Adopting,
        }
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// What it last said, if it answers.
    pub fn seen(&self, member: usize) -> Option<&Observation> {
        let member = self.members.get(member).filter(|member| member.trouble.is_none())?;
        member.seen.as_ref().map(|(seen, _)| seen)
    }

    /// Why it does not.
    pub fn fault(&self, member: usize) -> Option<Fault> {
        self.members.get(member)?.trouble.map(|trouble| trouble.fault)
    }

    /// Does it replay this primary's log, on its timeline?
    pub fn follows(&self, member: usize) -> bool {
        self.seen(member)
            .is_some_and(|seen| self.is_replica(seen) && seen.timeline >= self.memory.timeline)
    }

    /// Does it show nothing but what this primary has, too? So does one that follows, and one that has not yet heard that the
    /// primary is another.
    pub fn may_read(&self, member: usize) -> bool {
        self.follows(member) || self.seen(member).is_some_and(|seen| self.is_before_fork(seen))
    }

    /// Nothing was heard of it yet, good or bad.
    pub fn is_unheard(&self, member: usize) -> bool {
        let member = self.members.get(member);
        member.is_some_and(|member| member.seen.is_none() && member.trouble.is_none())
    }

    fn is_replica(&self, seen: &Observation) -> bool {
        !seen.is_primary() && self.memory.system.is_none_or(|system| system == seen.system)
    }

    fn is_before_fork(&self, seen: &Observation) -> bool {
        self.memory.fork.is_some_and(|fork| {
            self.is_replica(seen)
                && (fork.from, fork.to) == (seen.timeline, self.memory.timeline)
                && seen.position().is_some_and(|position| position <= fork.end)
        })
    }

    /// Ask everybody at short intervals.
    pub fn is_urgent(&self) -> bool {
        !matches!(self.state, State::Steady | State::Adopted)
    }

    /// When to call `tick` though nothing happens.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.is_urgent().then(|| now + LOOK_INTERVAL)
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    // --- events -------------------------------------------------------------

    /// A server has said what it is.
    pub fn handle_observed(&mut self, member: usize, seen: Observation, now: Instant) {
        let Some(place) = self.members.get_mut(member) else { return };
        let before = place.seen.as_ref().filter(|_| place.trouble.is_none());
        let seen = match before {
            Some((before, _)) => seen.after(before),
            None => seen,
        };
        place.trouble = None;
        if member == 0 && seen.is_primary() && seen.timeline >= self.memory.timeline {
            self.memory.system.get_or_insert(seen.system);
            if self.memory.timeline != seen.timeline {
                self.memory.written = Lsn::default();
            }
            self.memory.timeline = seen.timeline;
            self.memory.written = self.memory.written.max(seen.position().unwrap_or_default());
        }
        if member == 0 && self.memory.system.is_some_and(|system| system != seen.system) {
            self.tell(Notice::OtherSystem { member });
        }
        if let Some(place) = self.members.get_mut(member) {
            place.seen = Some((seen, now));
        }
        self.tick(now);
    }

    /// It could not be asked.
    pub fn handle_fault(&mut self, member: usize, fault: Fault, now: Instant) {
        let Some(place) = self.members.get_mut(member) else { return };
        let before = place.trouble;
        let refused =
            (fault == Fault::Refused).then(|| match before.and_then(|b| b.refused_since) {
                Some((since, count)) => (since, count + 1),
                None => (now, 1),
            });
        place.trouble = Some(Trouble {
            fault,
            misses: before.map_or(0, |before| before.misses) + 1,
            since: before.map_or(now, |before| before.since),
            refused_since: refused,
            last: now,
        });
        if member == 0
            && matches!(fault, Fault::Starting | Fault::Stopping)
            && let State::Suspect(of) | State::Fencing(of) = &mut self.state
        {
            of.announced = true;
        }
        self.tick(now);
    }

    /// What came of `Action::Fence`.
    pub fn handle_fenced(&mut self, fenced: bool, now: Instant) {
        if matches!(self.state, State::Switching(_)) {
            return self.handle_stopped(fenced, now);
        }
        let State::Fencing(of) = self.state else { return };
        self.state = State::Suspect(of);
        let forced = self.forced.take();
        if let (Some(member), true) = (forced, fenced || self.policy.fencing == Fencing::BestEffort)
        {
            self.promote(member, of, now);
        } else if fenced || self.policy.fencing == Fencing::BestEffort {
            self.choose(of, now);
        } else {
            self.tell(Notice::Unfenced);
            self.put_off(now);
        }
    }

    /// The replica could not be told, or has said no.
    pub fn handle_promotion_failed(&mut self, member: usize, now: Instant) {
        match self.state {
            State::Promoting { member: tried, of, .. } if tried == member => {
                self.state = State::Suspect(of);
                self.put_off(now);
            }
            State::Switching(_) => {
                self.give_up_switch("the replica could not be promoted", Undo::Yes)
            }
            _ => return,
        }
        self.tell(Notice::PromotionFailed { member });
    }

    /// Looks whether something is due.
    pub fn tick(&mut self, now: Instant) {
        if self.state == State::Adopted {
            return;
        }
        self.notice_others();
        if self.policy.mode == Mode::Off {
            return;
        }
        if let Some((member, timeline)) = self.risen(now) {
            return self.adopt(member, timeline, now);
        }
        match self.state {
            State::Unknown { since } => self.begin(since, now),
            State::Steady => {
                self.watch_primary(now);
                self.repoint_others(now);
            }
            State::Suspect(of) => self.suspect(of, now),
            State::Promoting { member, since, of } => {
                if now.saturating_duration_since(since) > PROMOTION_TIME_MAX {
                    self.state = State::Suspect(of);
                    self.asked = Some(member);
                    self.tell(Notice::PromotionFailed { member });
                }
            }
            State::Switching(_) => self.switch_on(now),
            State::Asking(asking) => self.request_on(asking, now),
            State::Fencing(_) | State::Adopted => {}
        }
    }

    // --- decisions ----------------------------------------------------------

    fn begin(&mut self, since: Instant, now: Instant) {
        let is_heard = |member: &Member| member.seen.is_some() || member.trouble.is_some();
        let waited = now.saturating_duration_since(since) >= START_TIME_MAX;
        match self.members.first() {
            Some(primary) if is_heard(primary) => {}
            _ => return,
        }
        if self.is_primary_well() {
            if !self.may_write(now) {
                if waited {
                    self.watch_primary(now);
                }
                return;
            }
            // Whoever knows the timeline need not hear the others to tell a leftover.
            let knows = self.memory.timeline > 0;
            if knows || waited || self.members.iter().all(is_heard) {
                self.steady();
            }
        } else {
            self.watch_primary(now);
        }
    }

    /// It answers as the primary that it should be, or its trouble is none that ends a server.
    pub fn is_primary_well(&self) -> bool {
        let Some(primary) = self.members.first() else { return true };
        match (&primary.trouble, &primary.seen) {
            (Some(trouble), _) => !trouble.fault.is_grave(),
            (None, Some((seen, _))) => {
                seen.is_primary() && seen.timeline >= self.memory.timeline.max(self.floor)
            }
            (None, None) => true,
        }
    }

    pub(super) fn steady(&mut self) {
        self.state = State::Steady;
        (self.asked, self.forced) = (None, None);
        // What others are is told as long as they are it, whatever the primary does.
        self.told.retain(|notice| notice.intruder().is_some());
        self.release();
    }

    /// Replicas that receive nothing since the primary is another are told who it is.
    fn repoint_others(&mut self, now: Instant) {
        if !self.may_act(now) {
            return;
        }
        let is_new = self.memory.adopted_at.is_some_and(|at| now < at + REPOINT_TIME);
        for index in 1..self.members.len() {
            let Some(seen) = self.seen(index) else { continue };
            let Role::Replica { receiver, .. } = seen.role else { continue };
            let is_behind = seen.timeline < self.memory.timeline;
            let is_lost = receiver == Receiver::Gone && (is_behind || is_new)
                || receiver == Receiver::Streaming && is_behind;
            let is_ours = self.memory.system == Some(seen.system);
            let member = &mut self.members[index];
            if is_lost && is_ours && member.repoint_after.is_none_or(|after| after <= now) {
                member.repoint_after = Some(now + REPEAT_TIME);
                self.push(Action::Tell(Notice::Repointing { member: index }));
                self.push(Action::Repoint { member: index });
            }
        }
    }

    // --- tools --------------------------------------------------------------

    pub(super) fn hold(&mut self) {
        if !std::mem::replace(&mut self.held, true) {
            self.push(Action::Hold);
        }
    }

    pub(super) fn release(&mut self) {
        if std::mem::replace(&mut self.held, false) {
            self.push(Action::Release);
        }
    }

    /// Once in each episode.
    pub(super) fn tell(&mut self, notice: Notice) {
        if !self.told.contains(&notice) {
            self.told.push(notice.clone());
            self.push(Action::Tell(notice));
        }
    }

    pub(super) fn push_promotion(&mut self, member: usize) {
        let has = |seen: &Observation| Some((member, seen.timeline, seen.position()?));
        self.promoted = self.seen(member).and_then(has);
        self.push(Action::Promote { member });
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }
}
