//! Answers, and the versions of what they were read from: the part that keeps them true.
//!
//! - Versions never repeat.
//! - A fill takes the versions before its statement is sent; its answer is kept and served only while they stand.
//! - A write takes its versions away when the server has said that it is committed, and before its client hears of it.
//! - From before a commit is sent until then a [`Mark`] is on what it changes: nothing is kept meanwhile, and who wants to see
//!   one order of all writes (`strict`), or has seen the server's own answer since, is not served either.
//! - An answer of a replica is kept only if the replica shows everything that was committed when its versions were last
//!   taken away.
//!
//! Verbs: `look` → [`Found`]; `put`; `bump`, `mark`, `settle` for writes; getters `stamp`, `counts`, `len`, `bytes`. Where several
//! processes share their answers: `share`, `note_shared`, `reliance`, `take_told` ([`told`]).

mod again; // what is read again when it has been written
mod marks; // commits that are under way
mod told; // what other processes are told, and tell

pub use again::Again;
pub use marks::Mark;
pub use told::{Names, Reliance, Told};

use crate::capture::Answer;
use crate::key::Key;
use crate::lru::{Bounds, Lru};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Things that have versions; those beyond make place for others.
const TAGS_MAX: usize = 65_536;

/// Something that is written as a whole, as far as answers go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// All of the cluster's databases: roles and their rights among them.
    Cluster,
    /// All of a database, and what its names mean.
    Database(Arc<str>),
    /// All rows of a database.
    Rows(Arc<str>),
    /// A table or materialized view by its OID.
    Relation(Arc<str>, u32),
    /// What a policy has named.
    Named(Arc<str>, Arc<str>),
    /// Whatever a policy has named.
    AnyNamed(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place(u32);

#[derive(Clone, Debug)]
struct State {
    tag: Tag,
    version: u64,
    /// Everything that was committed before is in what is as fresh as this.
    changed_at: Instant,
    /// Marks that are on it, and since when the oldest may be.
    marks: u32,
    marked_at: Instant,
    /// Its version among several processes, as last seen.
    shared: Option<u64>,
    /// When that was first seen, and since when it was last told as one to rely on.
    shared_at: Instant,
    relied_from: Option<Instant>,
}

/// What the meaning of a database's names depends on: as of when a catalogue was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u64, u64);

/// Who looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// Whether commits that are under way hold an answer back.
    pub waits: Waits,
    /// When it last saw an answer of a server's own.
    pub saw_at: Option<Instant>,
}

/// What a commit that is under way does to a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// Nothing, unless the reader may have seen it already.
    #[default]
    IfSeen,
    /// The reader is not served.
    Always,
}

/// What came of a look.
#[derive(Debug)]
pub enum Found {
    /// The answer, and when its statement was sent.
    Hit(Arc<Answer>, Instant),
    /// It is not there; what the server answers may be put.
    Fill(Fill),
    /// It is not there, and what the server answers would not stand.
    Pass,
}

/// The versions under which a statement is sent.
#[derive(Clone, Debug)]
pub struct Fill {
    versions: Box<[(Place, u64)]>,
    began: Instant,
    /// When what it is to be put in place of was sent, if that still stands.
    ahead_of: Option<Instant>,
    /// A replica shows all that the versions stand for only if it is fresh as of later than this.
    changed_at: Instant,
}

impl Fill {
    #[cfg(test)]
    pub(crate) fn describe(&self, start: Instant, out: &mut Vec<u64>) {
        out.push(self.changed_at.saturating_duration_since(start).as_millis() as u64);
        out.extend(self.versions.iter().map(|(_, version)| *version));
    }

    /// Is there an answer that stands, which it is to be put in place of?
    pub fn is_ahead(&self) -> bool {
        self.ahead_of.is_some()
    }

    /// Would what comes of both stand for the same time?
    pub(crate) fn has_versions_of(&self, other: &Fill) -> bool {
        self.versions == other.versions
    }

    /// May an answer of a replica be kept that shows everything committed before `as_of`?
    pub fn allows(&self, as_of: Option<Instant>) -> bool {
        as_of.is_some_and(|as_of| as_of > self.changed_at)
    }
}

/// How long an answer is kept, and what happens before that is over.
#[derive(Clone, Debug)]
pub struct Term {
    /// At most for so long since its statement was sent.
    pub ttl: Duration,
    /// How its time ends.
    pub expiry: Expiry,
    /// How it is read again when it has been written.
    pub again: Option<Arc<Again>>,
}

/// How the time of an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Whoever asks for it then reads it anew.
    #[default]
    Plain,
    /// Before that, one of those who ask reads it anew, while the others are given what still stands.
    RefreshAhead,
}

impl From<Duration> for Term {
    fn from(ttl: Duration) -> Self {
        Self { ttl, expiry: Expiry::Plain, again: None }
    }
}

/// What the store has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers given.
    pub hits: u64,
    /// Answers that were not there.
    pub misses: u64,
    /// Answers that did not stand any more, among the misses.
    pub stale: u64,
    /// Answers that were read anew before their time, among the misses.
    pub refreshes: u64,
    /// Answers kept.
    pub puts: u64,
    /// Answers that made room for others.
    pub evictions: u64,
    /// Versions taken away.
    pub invalidations: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    answer: Arc<Answer>,
    versions: Box<[(Place, u64)]>,
    began: Instant,
    until: Instant,
    /// Whoever asks from then on reads it anew.
    refresh_at: Option<Instant>,
    again: Option<Arc<Again>>,
    /// When it was given last.
    hit_at: Option<Instant>,
}

/// The last part of an answer's time, in which it is read anew: one in so many.
const REFRESH_DIVISOR: u32 = 5;

impl Entry {
    /// Is it to be read anew by whoever asks now? Should nothing come of it, somebody else does after half of the time that is left.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.refresh_at.is_some_and(|at| now >= at);
        if is_due {
            self.refresh_at = Some(now + self.until.saturating_duration_since(now) / 2);
        }
        is_due
    }
}

/// One process's answers.
#[derive(Clone, Debug)]
pub struct Store {
    entries: Lru<Entry>,
    places: FxHashMap<Tag, Place>,
    states: Vec<State>,
    hand: usize,
    tags_max: usize,
    /// How often it has been restarted.
    age: u32,
    next_version: u64,
    /// Databases in which statements run that nobody reads, by how many sessions; and the mark that others see.
    suspended: FxHashMap<Arc<str>, (u32, u64)>,
    counts: Counts,
    /// What others are to be told, if others share.
    told: Option<Vec<Told>>,
    last_token: u64,
    again: again::Registry,
}

impl Store {
    /// Empty; nothing that was written before is known.
    pub fn new(bounds: Bounds) -> Self {
        Self::with_tags_max(bounds, TAGS_MAX)
    }

    pub(crate) fn with_tags_max(bounds: Bounds, tags_max: usize) -> Self {
        Self {
            entries: Lru::new(bounds),
            places: FxHashMap::default(),
            states: Vec::new(),
            hand: 0,
            tags_max,
            age: 0,
            next_version: 1,
            suspended: FxHashMap::default(),
            counts: Counts::default(),
            told: None,
            last_token: 0,
            again: again::Registry::default(),
        }
    }

    /// Forgets all answers, and all marks: nobody has followed what was written. Versions go on, and a mark of before is on
    /// nothing from now on.
    pub fn restart(&mut self) {
        self.entries.clear();
        self.places.clear();
        self.states.clear();
        self.again.clear();
        self.age += 1;
    }

    /// Answers kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is none kept?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of keys and answers, in bytes.
    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        Counts { evictions: self.entries.evictions(), ..self.counts }
    }

    /// What the names of a database mean until it changes. Take it before the catalogue is read.
    pub fn stamp(&mut self, database: &Arc<str>, now: Instant) -> Stamp {
        let cluster = self.version(&Tag::Cluster, now);
        Stamp(cluster, self.version(&Tag::Database(database.clone()), now))
    }

    /// The answer that stands for a key, or under which versions a server may be asked. The answer was read from `tags`, of this
    /// database, whose names mean what they meant at `stamp`.
    pub fn look(
        &mut self,
        key: &Key,
        (database, stamp, tags): (&Arc<str>, Stamp, &[Tag]),
        reader: Reader,
        now: Instant,
    ) -> Found {
        if self.stamp(database, now) != stamp || self.suspended.contains_key(database) {
            return Found::Pass;
        }
        let mut pass =
            self.is_marked(&Tag::Cluster) || self.is_marked(&Tag::Database(database.clone()));
        if !pass && let Some(entry) = self.entries.get_mut(key, now) {
            let stands = |states: &[State], (place, version): &(Place, u64)| {
                states.get(place.0 as usize).is_some_and(|state| state.version == *version)
            };
            if entry.versions.iter().all(|version| stands(&self.states, version)) {
                let held = |(place, _): &(Place, u64)| {
                    self.states.get(place.0 as usize).is_none_or(|state| state.holds_back(reader))
                };
                if !entry.versions.iter().any(held) {
                    let (answer, began) = (entry.answer.clone(), entry.began);
                    entry.hit_at = Some(now);
                    if entry.is_due(now)
                        && let Found::Fill(fill) = self.begin_fill(database, tags, now)
                    {
                        self.counts.misses += 1;
                        self.counts.refreshes += 1;
                        return Found::Fill(Fill { ahead_of: Some(began), ..fill });
                    }
                    self.counts.hits += 1;
                    return Found::Hit(answer, began);
                }
                pass = true;
            } else {
                self.entries.remove(key);
                self.counts.stale += 1;
            }
        }
        self.counts.misses += 1;
        if pass { Found::Pass } else { self.begin_fill(database, tags, now) }
    }

    fn begin_fill(&mut self, database: &Arc<str>, tags: &[Tag], now: Instant) -> Found {
        let own = Self::common_tags(database);
        let mut versions = Vec::with_capacity(tags.len() + own.len());
        let mut changed_at = None;
        for tag in own.iter().chain(tags) {
            let Some(place) = self.place(tag, now) else { return Found::Pass };
            let state = &self.states[place.0 as usize];
            if state.marks > 0 {
                return Found::Pass;
            }
            changed_at = changed_at.max(Some(state.changed_at));
            versions.push((place, state.version));
        }
        let changed_at = changed_at.unwrap_or(now);
        Found::Fill(Fill { versions: versions.into(), began: now, ahead_of: None, changed_at })
    }

    /// Is there an answer by now that was read under the same versions?
    pub fn has(&self, key: &Key, fill: &Fill) -> bool {
        let is_other = |began| fill.ahead_of != Some(began);
        let entry = self.entries.peek(key);
        entry.is_some_and(|entry| entry.versions == fill.versions && is_other(entry.began))
    }

    /// What was missed is looked for again.
    pub fn note_follows(&mut self) {
        self.counts.misses = self.counts.misses.saturating_sub(1);
    }

    /// Keeps an answer for its time, if the versions still stand.
    pub fn put(
        &mut self,
        key: Key,
        fill: Fill,
        answer: Answer,
        term: impl Into<Term>,
        now: Instant,
    ) {
        let Term { ttl, expiry, again } = term.into();
        let stands = fill.versions.iter().all(|(place, version)| {
            let state = self.states.get(place.0 as usize);
            state.is_some_and(|state| state.version == *version && state.marks == 0)
        });
        let ttl = ttl.min(self.entries.bounds().ttl);
        let until = fill.began + ttl;
        if !stands || now >= until {
            return;
        }
        let refresh_at = match expiry {
            Expiry::Plain => None,
            Expiry::RefreshAhead => Some(until - ttl / REFRESH_DIVISOR),
        };
        let bytes = answer.bytes() + fill.versions.len() * size_of::<(Place, u64)>();
        let Fill { versions, began, .. } = fill;
        if again.is_some() {
            // What takes more than rows takes what it would be read by.
            for (place, _) in &versions {
                if self.is_of_rows(*place) {
                    self.again.add(*place, key.hash());
                }
            }
        }
        let (answer, hit_at) = (Arc::new(answer), None);
        let entry = Entry { answer, versions, began, until, refresh_at, again, hit_at };
        self.entries.put(key, entry, bytes, until);
        self.counts.puts += 1;
    }

    /// Takes the versions of what a commit has changed, which the server has acknowledged and its client has not heard of.
    pub fn bump(&mut self, tags: &[Tag], now: Instant) {
        self.tell_end(None, tags);
        for tag in tags {
            self.counts.invalidations += 1;
            // What has no version is in no answer.
            if let Some(place) = self.places.get(tag).copied() {
                self.renew(place, now);
            }
        }
    }

    /// Everything that decides what comes of steps from here, for the model: two stores with the same are alike.
    #[cfg(test)]
    pub(crate) fn describe(&self, start: Instant, out: &mut Vec<u64>) {
        let at = |time: Instant| time.saturating_duration_since(start).as_millis() as u64;
        out.push(self.next_version);
        for state in &self.states {
            let marked_at = if state.marks > 0 { at(state.marked_at) } else { 0 };
            out.extend([state.version, at(state.changed_at), u64::from(state.marks), marked_at]);
        }
        for entry in self.entries.values() {
            out.push(u64::from(entry.answer.rows()[0]));
            out.extend(entry.versions.iter().map(|(_, version)| *version));
        }
    }

    fn version(&mut self, tag: &Tag, now: Instant) -> u64 {
        let place = self.place(tag, now);
        place.and_then(|place| self.states.get(place.0 as usize)).map_or(0, |state| state.version)
    }

    fn is_of_rows(&self, place: Place) -> bool {
        let state = self.states.get(place.0 as usize);
        state.is_some_and(|state| !matches!(state.tag, Tag::Cluster | Tag::Database(_)))
    }

    fn renew(&mut self, place: Place, now: Instant) {
        let version = self.next_version();
        if let Some(state) = self.states.get_mut(place.0 as usize) {
            (state.version, state.changed_at) = (version, state.changed_at.max(now));
        }
    }

    fn next_version(&mut self) -> u64 {
        let version = self.next_version;
        self.next_version += 1;
        version
    }

    /// Where a tag's version is, made if need be: as if it had changed just now. The cluster's is the first, always. `None`:
    /// there is no room.
    fn place(&mut self, tag: &Tag, now: Instant) -> Option<Place> {
        if let Some(place) = self.places.get(tag) {
            return Some(*place);
        }
        if self.states.is_empty() && *tag != Tag::Cluster {
            self.place(&Tag::Cluster, now)?;
        }
        let version = self.next_version();
        let state = State {
            tag: tag.clone(),
            version,
            changed_at: now,
            marks: 0,
            marked_at: now,
            shared: None,
            shared_at: now,
            relied_from: None,
        };
        let place = if self.states.len() < self.tags_max {
            self.states.push(state);
            Place(self.states.len() as u32 - 1)
        } else {
            // A version that is another's from now on stands for nothing that was read before.
            let place = self.unmarked_place()?;
            let before = std::mem::replace(&mut self.states[place.0 as usize], state);
            self.places.remove(&before.tag);
            place
        };
        self.places.insert(tag.clone(), place);
        Some(place)
    }

    fn unmarked_place(&mut self) -> Option<Place> {
        for _ in 0..self.states.len() {
            self.hand = (self.hand + 1) % self.states.len();
            let state = &self.states[self.hand];
            if state.marks == 0 && !matches!(state.tag, Tag::Cluster | Tag::Database(_)) {
                return Some(Place(self.hand as u32));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
