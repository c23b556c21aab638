//! Writes that pass nobody who keeps answers, as the log of a database tells of them: what they change is taken when it is visible.
//!
//! A commit is told when it is in the log, which is before anybody sees it: who reads just then still reads what was before, and
//! what is taken then would be kept again as it was. So what it changes is marked when it is told, as that of a commit under way, and
//! taken when a snapshot of the primary shows that it is over.
//!
//! ```text
//!  log ── BEGIN, tables, COMMIT ──▶ marks ── a later snapshot: it is over ──▶ bump, settle
//!         BEGIN, COMMIT alone ──▶ mark on all ── and names are as they were ──▶ settle
//!                                              └ or not ──▶ bump all
//!  Starting ── all are over that ran when the log began ──▶ Following: answers are given while the lease holds
//! ```
//! The lease holds for [`LEASE`] since the last moment of which it is known that everything visible then has been heeded. A log that
//! comes late, or not at all, makes answers unavailable and not old.
//!
//! Verbs: `handle_text`, `handle_position`, `handle_answer`; `next_question`; `end`, always; getters `is_following`, `fresh_as_of`, `counts`.

mod line; // what the output plugin writes
mod snapshot; // which transactions are over

pub use snapshot::Snapshot;

use crate::store::{Mark, Stamp, Store, Tag};
use crate::tables::Tables;
use line::Line;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For so long an answer is given, after the last moment up to which everything is known to have been heeded.
pub const LEASE: Duration = Duration::from_secs(3);
/// The primary is asked so often, when nothing is told.
pub const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// Between two questions whether a commit is visible; twice that after each in vain.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Names are read again at most so often, and for a small share of the time: they may be many.
const NAMES_PAUSE: Duration = Duration::from_millis(500);
const NAMES_SHARE: u32 = 50;
/// While nothing is given until they are.
const NAMES_PAUSE_URGENT: Duration = Duration::from_millis(30);
const NAMES_SHARE_URGENT: u32 = 4;
/// What is visible is on disk after this, even where nobody waits for that: three times `wal_writer_delay`, and more.
const DISK_TIME: Duration = Duration::from_secs(1);
/// Commits that are told and not visible: each has a server process that waits, for replicas say.
const PENDING_MAX: usize = 8_192;
/// Tables of one transaction; with more it is as if it had written all rows.
const TABLES_MAX: usize = 1_024;

/// Why it cannot go on: what follows has to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Everything that was kept has been forgotten, and every mark.
    Restarted,
    /// The log tells what nobody expects there.
    NotUnderstood,
    /// Too many commits are told that nobody sees.
    TooMany,
}

impl Lost {
    /// As a sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Restarted => "everything that was kept has been forgotten",
            Self::NotUnderstood => "the output plugin test_decoding writes what is not understood",
            Self::TooMany => {
                "too many commits wait to become visible: synchronous replicas may be gone"
            }
        }
    }
}

/// What is to be asked of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its snapshot, and up to where its log is on disk.
    Visible,
    /// That, and what names mean as of the same snapshot.
    Names,
}

/// What names mean and who may use them, in a form that differs when it does: of the database, and of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The database's own.
    pub own: Box<str>,
    /// Roles and their like.
    pub shared: Box<str>,
}

/// What the primary has answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its snapshot.
    pub snapshot: Snapshot,
    /// Up to where the log was on disk, at the same time or later.
    pub flushed: u64,
    /// As of the snapshot, if that was asked.
    pub meaning: Option<Meaning>,
}

/// Whether names are others than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// They are as they were, as far as is known.
    Same,
    /// Names of the database, or of all.
    Changed,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutsideCounts {
    /// Transactions that were told.
    pub transactions: u64,
    /// Tables and the like that they have taken the answers of.
    pub taken: u64,
    /// Changes of names that were found.
    pub renamed: u64,
}

/// A transaction that is told.
#[derive(Clone, Debug)]
struct Change {
    xid: u32,
    tags: Vec<Tag>,
    marks: Vec<Mark>,
    /// What names meant when it was.
    stamp: Stamp,
    /// It has changed no row of a table: what it has changed is found by reading names.
    rows: Option<()>,
    /// It is visible.
    over: Option<()>,
}

/// Up to which moment everything has been heeded.
#[derive(Clone, Debug)]
struct Fresh {
    at: Instant,
    /// What was visible then, and since when nothing has become so.
    snapshot: Snapshot,
    since: Instant,
    /// It was all in the log, on disk, and told.
    settled: Option<()>,
}

/// One database's.
#[derive(Clone, Debug)]
#[must_use]
pub struct Outside {
    database: Arc<str>,
    /// The store's.
    age: u32,
    /// Transactions of before may not be over.
    start: Option<Snapshot>,
    lease: Option<u64>,
    open: Option<Change>,
    /// What the last row was of.
    last: Vec<u8>,
    pending: Vec<Change>,
    /// Up to where everything has been told.
    position: u64,
    /// When the primary was asked, up to where its log was, and its snapshot: until that is told.
    sample: Option<(Instant, u64, Snapshot)>,
    /// Everything that was visible then has been heeded.
    fresh: Option<Fresh>,
    meaning: Option<(Meaning, Snapshot)>,
    /// When they were read last, and how long that took.
    read: Option<(Instant, Duration)>,
    newest: Option<Snapshot>,
    answered_at: Option<Instant>,
    pause: Duration,
    counts: OutsideCounts,
}

impl Outside {
    /// The log is streamed from now on: everything that is committed after all are over that run now.
    pub fn new(database: Arc<str>, store: &Store) -> Self {
        Self {
            database,
            age: store.age(),
            start: None,
            lease: None,
            open: None,
            last: Vec::new(),
            pending: Vec::new(),
            position: 0,
            sample: None,
            fresh: None,
            meaning: None,
            read: None,
            newest: None,
            answered_at: None,
            pause: PAUSE_MIN,
            counts: OutsideCounts::default(),
        }
    }

    /// Are answers given, as long as nothing is late?
    pub fn is_following(&self) -> bool {
        self.lease.is_some()
    }

    /// Everything that was visible then has been heeded.
    pub fn fresh_as_of(&self) -> Option<Instant> {
        self.fresh.as_ref().map(|fresh| fresh.at)
    }

    /// Up to where everything has been told.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What happened so far.
    pub fn counts(&self) -> OutsideCounts {
        self.counts
    }

    /// Takes what the output plugin has written, or its beginning. `known`: the tables of the database, and what names meant when
    /// they were read.
    ///
    /// # Errors
    /// It cannot go on.
    pub fn handle_text(
        &mut self,
        text: &[u8],
        known: Option<(&Tables, Stamp)>,
        store: &mut Store,
        now: Instant,
    ) -> Result<(), Lost> {
        self.check(store)?;
        match (Line::read(text), self.open.take()) {
            (Some(Line::Begin(xid)), None) => {
                let stamp = store.stamp(&self.database, now);
                let (tags, marks) = (Vec::new(), Vec::new());
                self.open = Some(Change { xid, tags, marks, stamp, rows: None, over: None });
                self.last.clear();
            }
            (Some(Line::Message), open) => self.open = open,
            (Some(Line::Tables(tables)), Some(mut open)) => {
                open.rows = Some(());
                // Nearly always as in the row before.
                if *tables != *self.last {
                    let tags = self.tags(tables, known, store, now);
                    open.mark(tags, &self.database, store, now);
                    self.last.clear();
                    self.last.extend_from_slice(tables);
                }
                self.open = Some(open);
            }
            (Some(Line::Commit(xid)), Some(mut open)) if open.xid == xid => {
                if open.rows.is_none() && open.tags.is_empty() {
                    let all = vec![Tag::Database(self.database.clone())];
                    open.mark(all, &self.database, store, now);
                }
                self.counts.transactions += 1;
                self.pending.push(open);
                if self.pending.len() > PENDING_MAX {
                    return Err(Lost::TooMany);
                }
            }
            // Whatever it is, all of the database is taken with its transaction.
            (None, Some(mut open)) => {
                open.rows = Some(());
                let all = vec![Tag::Database(self.database.clone())];
                open.mark(all, &self.database, store, now);
                self.open = Some(open);
            }
            (Some(Line::Begin(_) | Line::Tables(_) | Line::Commit(_)) | None, open) => {
                self.open = open;
                return Err(Lost::NotUnderstood);
            }
        }
        Ok(())
    }

    /// Everything up to there has been told.
    pub fn handle_position(&mut self, position: u64) {
        self.position = self.position.max(position);
    }

    /// Takes what the primary has answered to the question that was sent at `asked_at`.
    ///
    /// # Errors
    /// It cannot go on.
    pub fn handle_answer(
        &mut self,
        answered: Answered,
        asked_at: Instant,
        store: &mut Store,
        now: Instant,
    ) -> Result<Names, Lost> {
        self.check(store)?;
        let Answered { snapshot, flushed, meaning } = answered;
        let mut names = Names::Same;
        let has_read = meaning.is_some();
        if let Some(meaning) = meaning {
            names = self.note_meaning(meaning, &snapshot, store, now);
            self.read = Some((now, now.saturating_duration_since(asked_at)));
        }
        let (mut all, mut settled) = (std::mem::take(&mut self.pending), false);
        for mut change in all.drain(..) {
            if change.over.is_none() && snapshot.is_over(change.xid) {
                (change.over, settled) = (Some(()), true);
            }
            // What changed no row is settled by what names mean as of a snapshot in which it is over.
            if change.over.is_some() && (change.rows.is_some() || has_read) {
                self.counts.taken += change.settle(&self.database, store, now);
            } else {
                self.pending.push(change);
            }
        }
        let is_new = settled || self.pending.is_empty();
        self.pause = if is_new { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        self.note_fresh(&snapshot, flushed, asked_at);
        self.keep_lease(&snapshot, store, now);
        (self.newest, self.answered_at) = (Some(snapshot), Some(now));
        Ok(names)
    }

    /// What is to be asked next, and when.
    pub fn next_question(&self, now: Instant) -> (Question, Instant) {
        let waits = self.pending.iter().any(|change| change.over.is_none());
        let pause = if waits { self.pause } else { ASK_INTERVAL };
        let visible_at = self.answered_at.map_or(now, |at| at + pause);
        let is_urgent = self.pending.iter().any(|change| change.over.is_some());
        let names_at = match (&self.meaning, self.read) {
            (Some((_, as_of)), Some((at, took))) => {
                let is_old = self.newest.as_ref().is_some_and(|newest| newest != as_of);
                let urgent_at = at + NAMES_PAUSE_URGENT.max(took * NAMES_SHARE_URGENT);
                let at = at + NAMES_PAUSE.max(took * NAMES_SHARE);
                is_urgent.then_some(urgent_at).or(is_old.then_some(at))
            }
            _ => Some(now),
        };
        match names_at {
            Some(at) if at <= visible_at => (Question::Names, at),
            _ => (Question::Visible, visible_at),
        }
    }

    /// Nobody follows any more.
    pub fn end(self, store: &mut Store, now: Instant) {
        // First: what was marked is not given again.
        if let Some(lease) = self.lease {
            store.end_lease(&self.database, lease, now);
        }
        let changes = self.pending.into_iter().chain(self.open);
        changes.flat_map(|change| change.marks).for_each(|mark| store.settle(mark));
    }

    /// What decides about its next steps, for the model.
    #[cfg(test)]
    pub(crate) fn describe(&self, start: Instant, out: &mut Vec<u64>) {
        let at = |time: Instant| time.saturating_duration_since(start).as_millis() as u64;
        out.extend([self.pending.len() as u64, u64::from(self.open.is_some()), self.position]);
        out.extend(self.pending.iter().map(|change| u64::from(change.xid)));
        out.extend(self.fresh_as_of().map(at));
        out.extend(self.sample.as_ref().map(|(_, flushed, _)| *flushed));
    }

    /// Is everything settled that was told?
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none() && self.pending.is_empty()
    }

    /// Takes what is told without waiting for it to be visible: the mutant of the model.
    #[cfg(test)]
    pub(crate) fn take_at_once(&mut self, store: &mut Store, now: Instant) {
        for change in self.pending.drain(..) {
            change.settle(&self.database, store, now);
        }
    }

    fn check(&self, store: &Store) -> Result<(), Lost> {
        if store.age() == self.age { Ok(()) } else { Err(Lost::Restarted) }
    }

    /// What rows of these are of.
    fn tags(
        &self,
        tables: &[u8],
        known: Option<(&Tables, Stamp)>,
        store: &mut Store,
        now: Instant,
    ) -> Vec<Tag> {
        let rows = || vec![Tag::Rows(self.database.clone())];
        let stamp = store.stamp(&self.database, now);
        let Some((known, _)) = known.filter(|(_, read_at)| *read_at == stamp) else {
            return rows();
        };
        let Some(names) = line::names(tables) else { return rows() };
        let mut tags = Vec::with_capacity(names.len());
        for (schema, name) in names {
            let Some(oid) = known.oid(&schema, &name) else { return rows() };
            tags.push(Tag::Relation(self.database.clone(), oid));
        }
        tags
    }

    fn note_meaning(
        &mut self,
        meaning: Meaning,
        snapshot: &Snapshot,
        store: &mut Store,
        now: Instant,
    ) -> Names {
        let mut names = Names::Same;
        if let Some((before, _)) = &self.meaning {
            let own = (before.own != meaning.own).then(|| Tag::Database(self.database.clone()));
            let shared = (before.shared != meaning.shared).then_some(Tag::Cluster);
            if let Some(tag) = shared.or(own) {
                store.bump(&[tag], now);
                self.counts.renamed += 1;
                names = Names::Changed;
            }
        }
        self.meaning = Some((meaning, snapshot.clone()));
        names
    }

    /// What was told before this answer came, and is over in its snapshot, has been settled.
    fn note_fresh(&mut self, snapshot: &Snapshot, flushed: u64, asked_at: Instant) {
        let position = self.position;
        if let Some((at, _, seen)) = self.sample.take_if(|(_, flushed, _)| position >= *flushed) {
            match self.fresh.as_mut().filter(|fresh| fresh.snapshot == seen) {
                Some(fresh) => {
                    fresh.at = fresh.at.max(at);
                    if at >= fresh.since + DISK_TIME {
                        fresh.settled = Some(());
                    }
                }
                None => self.fresh = Some(Fresh { at, snapshot: seen, since: at, settled: None }),
            }
        }
        // Where nothing has become visible since, it does not matter how much of the log is still to come: what readers of pages
        // write there is not brought to disk for some time.
        let stands = |fresh: &&mut Fresh| fresh.settled.is_some() && fresh.snapshot == *snapshot;
        if let Some(fresh) = self.fresh.as_mut().filter(stands) {
            fresh.at = asked_at;
        }
        self.sample.get_or_insert_with(|| (asked_at, flushed, snapshot.clone()));
    }

    fn keep_lease(&mut self, snapshot: &Snapshot, store: &mut Store, now: Instant) {
        let Some(start) = &self.start else {
            self.start = Some(snapshot.clone());
            return;
        };
        let Some(fresh) = &self.fresh else { return };
        let until = fresh.at + LEASE;
        match self.lease {
            Some(lease) => store.renew_lease(&self.database, lease, until),
            None if snapshot.is_past(start) && now < until && self.meaning.is_some() => {
                self.lease = Some(store.begin_lease(&self.database, until, now));
            }
            None => {}
        }
    }
}

impl Change {
    fn mark(&mut self, mut tags: Vec<Tag>, database: &Arc<str>, store: &mut Store, now: Instant) {
        if self.tags.len() + tags.len() > TABLES_MAX {
            tags = vec![Tag::Rows(database.clone())];
        }
        tags.retain(|tag| !self.tags.contains(tag));
        if !tags.is_empty() {
            self.marks.push(store.mark(&tags, now));
            self.tags.extend(tags);
        }
    }

    /// It is visible to all who read from now on. How much it has taken.
    fn settle(self, database: &Arc<str>, store: &mut Store, now: Instant) -> u64 {
        let mut taken = 0;
        if self.rows.is_some() {
            taken = self.tags.len() as u64;
            store.bump(&self.tags, now);
            // What it changed was found by another meaning of names than holds now.
            if store.stamp(database, now) != self.stamp {
                store.bump(&[Tag::Rows(database.clone())], now);
            }
        }
        self.marks.into_iter().for_each(|mark| store.settle(mark));
        taken
    }
}

#[cfg(test)]
mod tests;
