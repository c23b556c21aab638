//! One Tidegate's lease in etcd: when it is renewed, and what follows from what etcd answers.
//!
//! On its lease each Tidegate keeps a key that says whether it still sends writes to the primary (its presence). The leader's
//! key is made by whoever comes first, on the lease, too: the revision at which that happened is the epoch, larger with each
//! leader. Whoever does not renew the lease loses both keys, and knows when at the latest, since a lease is counted from
//! before it was asked for.
//!
//! ```text
//!   none ──Grant──▶ kept ──Renew (each third of it), Look (again and again)──▶ kept ── this process ends: Revoke ──▶ left
//!     ▲                │
//!     └── it is gone ──┘
//! ```

use super::lease::{LeaseView, Record};
use std::time::{Duration, Instant};

/// Clocks of two machines, and of one under load, do not differ by more than this part of a lease.
const MARGIN_PART: u32 = 8;
const RENEW_PART: u32 = 3;
const LOOK_PART: u32 = 6;
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// While something happens, or after a failure.
const LOOK_INTERVAL_URGENT: Duration = Duration::from_millis(100);

/// What etcd is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A lease for so long; `handle_granted`.
    Grant { ttl: Duration },
    /// The lease anew; `handle_renewed`.
    Renew { lease: i64 },
    /// What the others say; `handle_looked`.
    Look(Look),
    /// That the lease ends now, with all that is on it; `handle_revoked`.
    Revoke { lease: i64 },
}

/// One transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub lease: i64,
    /// To be written into our presence: whether we have lost the primary.
    pub say: Option<bool>,
    /// Make the leader's key, if there is none.
    pub campaigns: bool,
    /// Remove the leader's key, if it is still of this epoch.
    pub resigns: Option<u64>,
}

/// What it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Of the store.
    pub revision: u64,
    /// On whose lease the leader's key is, and since which revision.
    pub leader: Option<(i64, u64)>,
    /// What our own presence says; `None`: it is gone.
    pub said_lost: Option<bool>,
    /// Another Tidegate that has not lost the primary.
    pub reached_by: Option<String>,
    pub record: Option<Record>,
}

#[derive(Clone, Copy, Debug)]
struct Own {
    id: i64,
    ttl: Duration,
    /// Before the request was sent that made or renewed it.
    renewed_at: Instant,
    said: Option<bool>,
}

/// getters: `view`, `wake_at`, `poll_ask`, `has_left`; what is wanted: `say`, `set_urgent`, `set_campaigns`, `leave`; answers:
/// `handle_*`, each with the moment before the question was sent.
#[derive(Debug)]
pub struct Keeper {
    ttl: Duration,
    own: Option<Own>,
    says_lost: bool,
    campaigns: bool,
    is_urgent: bool,
    leaves: bool,
    view: Option<LeaseView>,
    next_at: Instant,
}

impl Keeper {
    pub fn new(ttl: Duration, now: Instant) -> Self {
        Self {
            ttl,
            own: None,
            says_lost: false,
            campaigns: true,
            is_urgent: true,
            leaves: false,
            view: None,
            next_at: now,
        }
    }

    /// The last answer, however old.
    pub fn view(&self) -> Option<&LeaseView> {
        self.view.as_ref()
    }

    /// When `poll_ask` has something next.
    pub fn wake_at(&self) -> Instant {
        self.next_at
    }

    /// The others are told soon.
    pub fn say(&mut self, lost: bool, now: Instant) {
        if std::mem::replace(&mut self.says_lost, lost) != lost {
            self.next_at = now;
        }
    }

    /// Ask often.
    pub fn set_urgent(&mut self, urgent: bool, now: Instant) {
        if urgent && !std::mem::replace(&mut self.is_urgent, urgent) {
            self.next_at = now;
        }
        self.is_urgent = urgent;
    }

    /// Another process of ours takes the place of this one: it leads no more.
    pub fn set_campaigns(&mut self, campaigns: bool, now: Instant) {
        if std::mem::replace(&mut self.campaigns, campaigns) != campaigns {
            self.next_at = now;
        }
    }

    /// This process ends, and sends nothing to any server from now on: the lease is given up, for good. Whether etcd has done that
    /// is not known before it says so, so what it has said of the lease counts no more.
    ///
    /// Not before [`super::Machine::leave`] allows it.
    pub fn leave(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.leaves, true) {
            self.next_at = now;
            if let Some(view) = &mut self.view {
                (view.epoch, view.until) = (None, now);
            }
        }
    }

    /// Is nothing to be written any more?
    pub fn is_leaving(&self) -> bool {
        self.leaves
    }

    /// It is given up, or there was none.
    pub fn has_left(&self) -> bool {
        self.leaves && self.own.is_none()
    }

    /// Something has been written: look what there is now.
    pub fn look_soon(&mut self, now: Instant) {
        self.next_at = now;
    }

    pub fn poll_ask(&self, now: Instant) -> Option<Ask> {
        if now < self.next_at {
            return None;
        }
        if self.leaves {
            return self.own.map(|own| Ask::Revoke { lease: own.id });
        }
        let Some(own) = self.own else { return Some(Ask::Grant { ttl: self.ttl }) };
        if now.saturating_duration_since(own.renewed_at) >= own.ttl / RENEW_PART {
            return Some(Ask::Renew { lease: own.id });
        }
        let epoch = self.view.as_ref().and_then(|view| view.epoch);
        Some(Ask::Look(Look {
            lease: own.id,
            say: (own.said != Some(self.says_lost)).then_some(self.says_lost),
            campaigns: self.campaigns,
            resigns: epoch.filter(|_| !self.campaigns),
        }))
    }

    pub fn handle_granted(&mut self, id: i64, ttl: Duration, sent: Instant) {
        self.own = Some(Own { id, ttl, renewed_at: sent, said: None });
        self.next_at = sent;
    }

    /// `None`: there is no such lease any more.
    pub fn handle_renewed(&mut self, ttl: Option<Duration>, sent: Instant) {
        match (&mut self.own, ttl) {
            (Some(own), Some(ttl)) => (own.ttl, own.renewed_at) = (ttl, sent),
            _ => self.own = None,
        }
        self.next_at = sent;
    }

    pub fn handle_looked(&mut self, looked: Looked, sent: Instant, now: Instant) {
        let Some(own) = &mut self.own else { return };
        let Some(said_lost) = looked.said_lost else {
            // It may have ended in between: the next answer tells.
            own.said = None;
            self.next_at = now + LOOK_INTERVAL_URGENT;
            return;
        };
        own.said = Some(said_lost);
        let is_own = |(lease, epoch): (i64, u64)| (lease == own.id).then_some(epoch);
        self.view = Some(LeaseView {
            asked_at: sent,
            until: own.renewed_at + own.ttl - own.ttl / MARGIN_PART,
            epoch: looked.leader.and_then(is_own),
            revision: looked.revision,
            said_lost,
            reached_by: looked.reached_by,
            record: looked.record,
        });
        let pause = match self.is_urgent || said_lost != self.says_lost {
            true => LOOK_INTERVAL_URGENT,
            false => (own.ttl / LOOK_PART).min(LOOK_INTERVAL_MAX),
        };
        self.next_at = now + pause;
    }

    /// The lease has been ended.
    pub fn handle_revoked(&mut self) {
        self.own = None;
    }

    /// The lease is not there any more, though nobody has ended it.
    pub fn handle_gone(&mut self, now: Instant) {
        (self.own, self.next_at) = (None, now);
    }

    /// No answer, or none that can be read: what was known stands as long as it stands.
    pub fn handle_failed(&mut self, now: Instant) {
        self.next_at = now + LOOK_INTERVAL_URGENT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(6);

    fn looked(lease: i64) -> Looked {
        Looked {
            revision: 9,
            leader: Some((lease, 5)),
            said_lost: Some(false),
            ..Looked::default()
        }
    }

    #[test]
    fn a_lease_is_made_renewed_and_made_again_when_it_is_gone() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut keeper = Keeper::new(TTL, start);
        assert_eq!(keeper.poll_ask(start), Some(Ask::Grant { ttl: TTL }));
        keeper.handle_failed(start);
        assert_eq!(keeper.poll_ask(at(99)), None);
        keeper.handle_granted(7, TTL, at(100));
        let look = Look { lease: 7, say: Some(false), campaigns: true, resigns: None };
        assert_eq!(keeper.poll_ask(at(101)), Some(Ask::Look(look)));
        keeper.handle_looked(looked(7), at(101), at(103));
        let view = keeper.view().unwrap().clone();
        assert_eq!((view.epoch, view.until), (Some(5), at(100 + 5_250)));
        keeper.set_urgent(false, at(103));
        keeper.handle_looked(looked(7), at(203), at(203));
        assert_eq!(keeper.wake_at(), at(1_203));
        // What is to be said is said at once, and not twice.
        keeper.say(true, at(300));
        let look = Look { say: Some(true), ..look };
        assert_eq!(keeper.poll_ask(at(300)), Some(Ask::Look(look)));
        keeper.handle_looked(Looked { said_lost: Some(true), ..looked(8) }, at(300), at(301));
        assert_eq!(keeper.view().unwrap().epoch, None, "another leads");
        assert_eq!(keeper.poll_ask(at(1_400)), Some(Ask::Look(Look { say: None, ..look })));
        assert_eq!(keeper.poll_ask(at(2_100)), Some(Ask::Renew { lease: 7 }));
        keeper.handle_renewed(Some(TTL), at(2_100));
        keeper.handle_looked(looked(7), at(2_102), at(2_103));
        assert_eq!(keeper.view().unwrap().until, at(2_100 + 5_250));
        // Who is to lead no more says so.
        keeper.set_campaigns(false, at(2_200));
        let resigns = Look { lease: 7, say: Some(true), campaigns: false, resigns: Some(5) };
        assert_eq!(keeper.poll_ask(at(2_200)), Some(Ask::Look(resigns)));
        keeper.handle_renewed(None, at(4_300));
        assert_eq!(keeper.poll_ask(at(4_300)), Some(Ask::Grant { ttl: TTL }));
    }

    #[test]
    fn who_leaves_gives_its_lease_up_until_that_is_done_and_believes_in_nothing_meanwhile() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut keeper = Keeper::new(TTL, start);
        keeper.handle_granted(7, TTL, start);
        keeper.handle_looked(looked(7), at(1), at(2));
        assert_eq!(keeper.view().unwrap().epoch, Some(5));
        keeper.leave(at(10));
        let view = keeper.view().unwrap();
        assert_eq!((view.epoch, view.until), (None, at(10)));
        let revoke = Some(Ask::Revoke { lease: 7 });
        assert_eq!((keeper.poll_ask(at(10)), keeper.has_left()), (revoke.clone(), false));
        keeper.handle_failed(at(20));
        assert_eq!((keeper.poll_ask(at(20)), keeper.poll_ask(at(120))), (None, revoke));
        keeper.handle_revoked();
        assert_eq!((keeper.poll_ask(at(9_000)), keeper.has_left()), (None, true));
        // Who has none asks for none.
        let mut keeper = Keeper::new(TTL, start);
        keeper.leave(at(1));
        assert_eq!((keeper.poll_ask(at(1)), keeper.has_left()), (None, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 5: whatever is answered late, lost and renewed, nobody believes in a lease that etcd may have ended.
        #[test]
        fn a_lease_is_never_believed_in_longer_than_etcd_keeps_it(
            steps in proptest::collection::vec((0..3_000_u64, 0..2_000_u64, 0..4_u8), 1..60),
        ) {
            let start = Instant::now();
            let mut keeper = Keeper::new(TTL, start);
            let mut now = start;
            // Until when etcd keeps it: counted from when the request arrived, which is after it was sent.
            let mut kept: Option<Instant> = None;
            for (pause, took, outcome) in steps {
                now += Duration::from_millis(pause);
                let Some(ask) = keeper.poll_ask(now) else { continue };
                let (sent, arrived) = (now, now + Duration::from_millis(took / 2));
                now += Duration::from_millis(took);
                let is_there = kept.is_some_and(|until| arrived < until);
                match (ask, outcome) {
                    (_, 0) => keeper.handle_failed(now),
                    (Ask::Grant { ttl }, _) => {
                        kept = Some(arrived + ttl);
                        keeper.handle_granted(1, ttl, sent);
                    }
                    // It is renewed, and the answer is lost.
                    (Ask::Renew { .. }, 1) => {
                        kept = kept.filter(|_| is_there).map(|_| arrived + TTL);
                        keeper.handle_failed(now);
                    }
                    (Ask::Renew { .. }, _) => {
                        kept = kept.filter(|_| is_there).map(|_| arrived + TTL);
                        keeper.handle_renewed(is_there.then_some(TTL), sent);
                    }
                    (Ask::Look(look), _) if is_there => {
                        let said_lost = Some(look.say.unwrap_or(false));
                        keeper.handle_looked(Looked { said_lost, ..looked(1) }, sent, now);
                    }
                    (Ask::Look(_), _) => keeper.handle_gone(now),
                    (Ask::Revoke { .. }, _) => unreachable!("nobody leaves"),
                }
                if let (Some(view), Some(kept)) = (keeper.view(), kept) {
                    prop_assert!(view.until <= kept);
                }
            }
        }
    }
}
