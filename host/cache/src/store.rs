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
mod counts; // what it has done so far
mod followed; // databases whose log is followed
mod inspect; // whether what was given is what the primary has
mod marks; // commits that are under way
mod seen; // what was asked for a while ago
mod term; // how long an answer is kept
mod told; // what other processes are told, and tell

pub use again::Again;
pub use counts::Counts;
pub use inspect::{Given, Sampler, nines};
pub use marks::{Mark, Reader, Waits};
pub use term::{Expiry, Term};
pub use told::{Names, Reliance, Told};

use crate::key::Key;
use crate::lru::{Bounds, Lru};
use crate::packed::Stored;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Instant;

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

/// The cluster's version is where the first is.
const CLUSTER: Place = Place(0);

/// Of what something was, or is to be, read from.
type Versions = Arc<[(Place, u64)]>;
/// As many tables as most statements read, and what all of a database depends on.
type FewVersions = SmallVec<[(Place, u64); 8]>;

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

/// What came of a look.
#[derive(Debug)]
pub enum Found {
    /// The answer, and when its statement was sent.
    Hit(Arc<Stored>, Instant),
    /// It is not there; what the server answers may be put.
    Fill(Fill),
    /// It is not there, and what the server answers would not stand.
    Pass,
    /// It is not there, and would take the room of what is asked for again for what may never be.
    Unseen,
}

/// The versions under which a statement is sent.
#[derive(Clone, Debug)]
pub struct Fill {
    versions: Versions,
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

#[derive(Clone, Debug)]
struct Entry {
    answer: Arc<Stored>,
    versions: Versions,
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
    /// Databases whose log is followed, if they have to be.
    followed: Option<followed::Followed>,
    counts: Counts,
    /// What others are to be told, if others share.
    told: Option<Vec<Told>>,
    last_token: u64,
    again: again::Registry,
    /// What was asked for, if that decides what is kept.
    seen: Option<seen::Seen>,
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
            followed: None,
            counts: Counts::default(),
            told: None,
            last_token: 0,
            again: again::Registry::default(),
            seen: None,
        }
    }

    /// From now on, while there is no room left, an answer is kept when it is asked for the second time.
    pub fn admit_second(&mut self) {
        self.seen = Some(seen::Seen::new(self.entries.bounds().entries));
    }

    /// Forgets all answers, and all marks: nobody has followed what was written. Versions go on, and a mark of before is on
    /// nothing from now on.
    pub fn restart(&mut self) {
        self.entries.clear();
        self.places.clear();
        self.states.clear();
        self.again.clear();
        self.forget_followed();
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
        let cluster = self.place(&Tag::Cluster, now);
        let own = self.place(&Tag::Database(database.clone()), now);
        let (Some(_), Some(own)) = (cluster, own) else { return Found::Pass };
        let unseen = self.is_suspended(database) || !self.is_followed(database, now);
        if Stamp(self.version_at(CLUSTER), self.version_at(own)) != stamp || unseen {
            return Found::Pass;
        }
        let names = [CLUSTER, own];
        let mut pass = names.into_iter().any(|place| self.is_marked_at(place));
        let mut was_there = false;
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
                        && let Found::Fill(fill) = self.begin_fill(names, database, tags, now)
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
                was_there = true;
            }
        }
        self.counts.misses += 1;
        if pass {
            return Found::Pass;
        }
        if !was_there && !self.admits(key) {
            self.counts.unseen += 1;
            return Found::Unseen;
        }
        self.begin_fill(names, database, tags, now)
    }

    /// Is there room for what is asked for by this key, or was it asked for before? Where others share, all are kept: for them.
    fn admits(&mut self, key: &Key) -> bool {
        let Some(seen) = self.seen.as_mut().filter(|_| self.told.is_none()) else { return true };
        !self.entries.is_full() || seen.note(key.hash())
    }

    fn begin_fill(
        &mut self,
        names: [Place; 2],
        database: &Arc<str>,
        tags: &[Tag],
        now: Instant,
    ) -> Found {
        let mut versions = FewVersions::new();
        let mut changed_at = None;
        let rows = Tag::Rows(database.clone());
        let others = std::iter::once(&rows).chain(tags);
        for place in names.into_iter().map(Ok).chain(others.map(Err)) {
            let place = match place {
                Ok(place) => Some(place),
                Err(tag) => self.place(tag, now),
            };
            let state = place.and_then(|place| Some((place, self.states.get(place.0 as usize)?)));
            let Some((place, state)) = state.filter(|(_, state)| state.marks == 0) else {
                return Found::Pass;
            };
            changed_at = changed_at.max(Some(state.changed_at));
            versions.push((place, state.version));
        }
        let changed_at = changed_at.unwrap_or(now);
        let versions = Arc::from(&versions[..]);
        Found::Fill(Fill { versions, began: now, ahead_of: None, changed_at })
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
        answer: impl Into<Arc<Stored>>,
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
        let answer: Arc<Stored> = answer.into();
        if answer.saved() > 0 {
            self.counts.packed += 1;
            self.counts.packed_saved += answer.saved() as u64;
        }
        let bytes = answer.bytes() + fill.versions.len() * size_of::<(Place, u64)>();
        let Fill { versions, began, .. } = fill;
        if again.is_some() {
            // What takes more than rows takes what it would be read by.
            for (place, _) in versions.iter() {
                if self.is_of_rows(*place) {
                    self.again.add(*place, key.hash());
                }
            }
        }
        let entry = Entry { answer, versions, began, until, refresh_at, again, hit_at: None };
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
        self.place(tag, now).map_or(0, |place| self.version_at(place))
    }

    fn version_at(&self, place: Place) -> u64 {
        self.states.get(place.0 as usize).map_or(0, |state| state.version)
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
