//! What runs, added up by worker while somebody records; costs one atomic read for each statement otherwise.
//!
//! ```text
//! session: Ran ──▶ SessionRouter ──▶ Recorder.noted ──▶ UnderWay (one a connection) ── answered ──▶ Recorder.kept
//! ```

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHasher};
use tidegate_core::limits::{RECORD_BYTES_MAX, RECORD_KEPT_TIME_MAX, RECORD_LINES_MAX};
use tidegate_core::policy::RoutePlan;
use tidegate_core::route::Place;
use tidegate_core::statement::Shape;

/// Whether somebody records: shared by all workers.
#[derive(Debug, Default)]
pub struct Recording {
    /// 0 while nobody does; else the number of this record.
    round: AtomicU32,
    last_round: AtomicU32,
    /// Executions recorded so far.
    executions: AtomicU64,
}

/// A record under way. Dropping it ends it.
#[derive(Debug)]
pub struct Round(Arc<Recording>);

impl Recording {
    #[inline]
    pub fn is_on(&self) -> bool {
        self.round.load(Ordering::Relaxed) != 0
    }

    /// Begins a record; `None` while there is one.
    pub fn begin(self: &Arc<Self>) -> Option<Round> {
        let number = self.last_round.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        let begun =
            self.round.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if begun {
            self.executions.store(0, Ordering::Relaxed);
        }
        begun.then(|| Round(self.clone()))
    }
}

impl Round {
    /// Executions recorded so far.
    pub fn executions(&self) -> u64 {
        self.0.executions.load(Ordering::Relaxed)
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.0.round.store(0, Ordering::Relaxed);
    }
}

/// A statement as a session told of it.
#[derive(Debug)]
pub struct Seen {
    pub shape: Arc<Shape>,
    /// Those that policies are told of.
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// What the routing policy planned, and its generation, if it was asked.
    pub plan: Option<(Arc<RoutePlan>, Option<u64>)>,
}

/// What a session did since its connection last looked.
#[derive(Debug)]
pub enum Noted {
    Bound(Rc<Seen>),
    /// By its number; without a text that could be looked at.
    Query(u32, Option<Rc<Seen>>),
    Execute(u32),
    Failed {
        first: u32,
        until: u32,
        sqlstate: [u8; 5],
    },
}

/// Who runs it.
#[derive(Clone, Debug)]
pub struct Runner {
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub application: Arc<str>,
    /// The application's user, if the session told; only its hash is kept.
    pub end_user: Option<Rc<str>>,
    pub place: Place,
}

/// Executions that have everything in common but time.
#[derive(Debug)]
pub struct Kept {
    pub shape: Arc<Shape>,
    pub tags: Vec<(Box<str>, Box<str>)>,
    pub plan: Option<(Arc<RoutePlan>, Option<u64>)>,
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub application: Box<str>,
    pub end_user: Option<u64>,
    pub place: Place,
    pub error: Option<[u8; 5]>,
    pub count: u64,
    pub first: Instant,
    pub last: Instant,
    pub total: Duration,
    pub longest: Duration,
}

/// Tells kinds of executions apart.
pub type Key = (u128, u64);

/// One worker's part of a record.
#[derive(Debug, Default)]
pub struct Part {
    pub kept: FxHashMap<Key, Kept>,
    bytes: usize,
    pub dropped: u64,
    pub unread: u64,
    begun: u64,
    ended: u64,
}

impl Part {
    /// Executions that were not answered.
    pub fn unanswered(&self) -> u64 {
        self.begun.saturating_sub(self.ended)
    }
}

/// One worker's.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Recording>,
    round: u32,
    noted: Vec<Noted>,
    part: Part,
    last_used: Option<Instant>,
    /// End users are hashed with keys of one record.
    keys: RandomState,
}

/// Of one connection: what was sent and is not answered, oldest first.
#[derive(Debug, Default)]
pub struct UnderWay {
    round: u32,
    bound: Option<Rc<Seen>>,
    sent: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    number: u32,
    seen: Option<Rc<Seen>>,
    at: Instant,
    fate: Fate,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Runs,
    Failed([u8; 5]),
    NeverRuns,
}

impl Recorder {
    pub fn new(shared: Arc<Recording>) -> Self {
        Self {
            shared,
            round: 0,
            noted: Vec::new(),
            part: Part::default(),
            last_used: None,
            keys: RandomState::new(),
        }
    }

    #[inline]
    pub fn is_on(&self) -> bool {
        self.shared.is_on()
    }

    /// What a session told; its connection takes it before another session is heard.
    pub fn note(&mut self, noted: Noted) {
        self.noted.push(noted);
    }

    #[inline]
    pub fn has_notes(&self) -> bool {
        !self.noted.is_empty()
    }

    /// What was recorded; nothing is kept of it here.
    pub fn take(&mut self) -> Part {
        self.last_used = None;
        std::mem::take(&mut self.part)
    }

    /// Gives up what nobody came for.
    pub fn maintain(&mut self, now: Instant) {
        let left = |at: Instant| now.saturating_duration_since(at) > RECORD_KEPT_TIME_MAX;
        if !self.is_on() && self.last_used.is_some_and(left) {
            drop(self.take());
        }
    }

    /// Begins anew when another record is under way than the last that was heard of.
    fn join(&mut self, now: Instant) {
        let round = self.shared.round.load(Ordering::Relaxed);
        if round != 0 && round != self.round {
            (self.round, self.part, self.keys) = (round, Part::default(), RandomState::new());
        }
        self.last_used = Some(now);
    }

    fn keep(&mut self, sent: &Sent, runner: &Runner, now: Instant) {
        let error = match sent.fate {
            Fate::Runs => None,
            Fate::Failed(sqlstate) => Some(sqlstate),
            Fate::NeverRuns => return,
        };
        let Some(seen) = &sent.seen else {
            self.part.unread += 1;
            return;
        };
        self.last_used = Some(now);
        self.shared.executions.fetch_add(1, Ordering::Relaxed);
        let time = now.saturating_duration_since(sent.at);
        let end_user = runner.end_user.as_ref().map(|user| self.keys.hash_one(user));
        let key = key(seen, runner, end_user, error);
        if let Some(kept) = self.part.kept.get_mut(&key) {
            kept.count += 1;
            kept.last = now;
            kept.total += time;
            kept.longest = kept.longest.max(time);
            return;
        }
        let bytes = seen.shape.bytes() + size_of::<Kept>();
        if self.part.kept.len() >= RECORD_LINES_MAX || self.part.bytes + bytes > RECORD_BYTES_MAX {
            self.part.dropped += 1;
            return;
        }
        self.part.bytes += bytes;
        let kept = Kept {
            shape: seen.shape.clone(),
            tags: seen.tags.clone(),
            plan: seen.plan.clone(),
            user: runner.user.clone(),
            database: runner.database.clone(),
            application: Box::from(&*runner.application),
            end_user,
            place: runner.place,
            error,
            count: 1,
            first: sent.at,
            last: now,
            total: time,
            longest: time,
        };
        self.part.kept.insert(key, kept);
    }
}

fn key(seen: &Seen, runner: &Runner, end_user: Option<u64>, error: Option<[u8; 5]>) -> Key {
    let mut hasher = FxHasher::default();
    seen.tags.hash(&mut hasher);
    if let Some((plan, planner)) = &seen.plan {
        (std::mem::discriminant(&plan.target), &plan.label, planner).hash(&mut hasher);
    }
    (&*runner.user, &*runner.database, &*runner.application).hash(&mut hasher);
    let place = match runner.place {
        Place::Primary => None,
        Place::Replica(index) => Some(index),
    };
    (end_user, place, error).hash(&mut hasher);
    (seen.shape.fingerprint.0, hasher.finish())
}

impl UnderWay {
    /// Takes over what this connection's session told.
    pub fn take_notes(&mut self, recorder: &mut Recorder, now: Instant) {
        recorder.join(now);
        if self.round != recorder.round {
            *self = Self { round: recorder.round, ..Self::default() };
        }
        for noted in std::mem::take(&mut recorder.noted) {
            let (number, seen) = match noted {
                Noted::Bound(seen) => {
                    self.bound = Some(seen);
                    continue;
                }
                Noted::Failed { first, until, sqlstate } => {
                    self.fail(first, until, sqlstate);
                    continue;
                }
                Noted::Query(number, seen) => (number, seen),
                Noted::Execute(number) => (number, self.bound.clone()),
            };
            recorder.part.begun += 1;
            self.sent.push_back(Sent { number, seen, at: now, fate: Fate::Runs });
        }
    }

    fn fail(&mut self, first: u32, until: u32, sqlstate: [u8; 5]) {
        for sent in &mut self.sent {
            if sent.number == first && first != until {
                sent.fate = Fate::Failed(sqlstate);
            } else if is_before(first, sent.number) && is_before(sent.number, until) {
                sent.fate = Fate::NeverRuns;
            }
        }
    }

    /// Records what has been answered: all before the number `answered`.
    pub fn settle(
        &mut self,
        answered: u32,
        recorder: &mut Recorder,
        runner: impl FnOnce() -> Runner,
        now: Instant,
    ) {
        let is_done = |sent: &Sent| is_before(sent.number, answered);
        if !self.sent.front().is_some_and(is_done) {
            return;
        }
        let (runner, is_current) = (runner(), self.round == recorder.round);
        while self.sent.front().is_some_and(is_done) {
            let Some(sent) = self.sent.pop_front() else { return };
            if is_current && recorder.last_used.is_some() {
                recorder.part.ended += 1;
                recorder.keep(&sent, &runner, now);
            }
        }
    }

    /// Nothing is under way, and nothing is known for later.
    pub fn is_over(&self, recorder: &Recorder) -> bool {
        self.sent.is_empty() && !recorder.is_on()
    }
}

/// Numbers wrap around.
fn is_before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < u32::MAX / 2
}

#[cfg(test)]
mod tests;
