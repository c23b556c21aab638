//! What a client's transaction has written so far, and when that is committed.
//!
//! ```text
//!  statements sent ──▶ tags ── the server: COMMIT, or the end of what stands alone ──▶ bump ──▶ the client hears of it
//!                       └───── the server: ROLLBACK, or an error ends it ──▶ forgotten
//! ```
//! Verbs: `handle` takes what a session tells; `handle_lost` what is left when its server is.

use crate::store::{Again, Mark, Stamp, Store, Tag};
use crate::written::Written;
use rustc_hash::FxHashSet;
use std::sync::Arc;
use std::time::Instant;
use tidegate_core::limits::WRITE_THROUGH_MAX;

/// Tables of one transaction; with more it is as if it had written all rows.
const TAGS_MAX: usize = 1_024;

/// What a session tells.
#[derive(Clone, Copy, Debug)]
pub enum Ran<'a> {
    /// A statement that may do so much is sent.
    Sent(&'a Written),
    /// The server has completed one, with this tag.
    Completed(&'a [u8]),
    /// An error.
    Failed,
    /// The server is ready for the next, and was so last in `before`.
    Ready {
        /// Is a transaction block open before and behind?
        before: Block,
        /// The same, behind.
        after: Block,
        /// Is everything answered that was sent?
        over: bool,
    },
}

/// A transaction block, as ReadyForQuery tells of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Block {
    /// What is sent is committed at once.
    #[default]
    None,
    /// Open or failed.
    Open,
}

/// What has been completed since the last ReadyForQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Unit {
    #[default]
    Nothing,
    /// ROLLBACK and errors, and nothing else.
    Undone,
    Other,
}

/// What may have been committed, or may yet be, by a server process that is not known to have ended.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Doubt {
    tags: Vec<Tag>,
    marks: Vec<Mark>,
}

impl Doubt {
    /// Is there nothing in doubt?
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// The process has ended: what it has not committed it never will.
    pub fn resolve(self, store: &mut Store, now: Instant) {
        store.bump(&self.tags, now);
        self.marks.into_iter().for_each(|mark| store.settle(mark));
    }
}

/// One client's.
#[derive(Clone, Debug, Default)]
pub struct Work {
    tags: FxHashSet<Tag>,
    marks: Vec<Mark>,
    marked: FxHashSet<Tag>,
    /// What names meant when the first of the tags was found.
    stamp: Option<Stamp>,
    unit: Unit,
    block: Block,
    /// Something was sent since the last ReadyForQuery.
    sent: Option<()>,
    /// What is to be read again, since its answers were taken.
    due: Vec<Arc<Again>>,
}

impl Work {
    /// Of a client of which it is not known what it has sent.
    pub fn unknown() -> Self {
        let mut work = Self::default();
        work.tags.insert(Tag::Cluster);
        work.unit = Unit::Other;
        work
    }

    /// Takes what a session of this database tells, in order.
    pub fn handle(&mut self, ran: Ran<'_>, database: &Arc<str>, store: &mut Store, now: Instant) {
        match ran {
            Ran::Sent(written) => self.sent(written, database, store, now),
            Ran::Completed(tag) => {
                let undone = tag == b"ROLLBACK" || tag == b"PREPARE TRANSACTION";
                self.note(if undone { Unit::Undone } else { Unit::Other });
                // The client hears of it before ReadyForQuery.
                if tag == b"COMMIT" || self.block == Block::None && !undone {
                    self.commit(database, store, now);
                }
            }
            Ran::Failed => self.note(Unit::Undone),
            Ran::Ready { before, after, over } => {
                let unit = std::mem::take(&mut self.unit);
                // What may commit within itself may have done so before it failed.
                let undone =
                    unit == Unit::Undone && (before == Block::Open || !self.may_commit_itself());
                if !undone && after == Block::None {
                    self.commit(database, store, now);
                }
                self.block = after;
                if over {
                    self.sent = None;
                    if after == Block::None {
                        self.end(store);
                    }
                }
            }
        }
    }

    /// Its server is lost, and it may have committed, or may yet: nobody will hear of it. What it wrote stays marked until that
    /// is resolved.
    pub fn handle_lost(&mut self, database: &Arc<str>, store: &mut Store, now: Instant) -> Doubt {
        let tags: Vec<Tag> = self.tags.iter().cloned().collect();
        self.mark(&tags, store, now);
        self.commit(database, store, now);
        let marks = std::mem::take(&mut self.marks);
        *self = Self::default();
        Doubt { tags, marks }
    }

    /// Its server is lost with a transaction that nobody has asked to commit, or none.
    pub fn handle_undone(&mut self, store: &mut Store) {
        self.end(store);
        *self = Self::default();
    }

    /// What names mean to what it sends is what they meant then.
    pub fn note_stamp(&mut self, stamp: Stamp) {
        if self.tags.is_empty() {
            self.stamp = Some(stamp);
        }
    }

    /// The server is ready, and nothing has been written.
    pub fn note_ready(&mut self, after: Block, over: bool) {
        (self.unit, self.block) = (Unit::Nothing, after);
        if over {
            self.sent = None;
        }
    }

    /// What is to be read again before the client hears that it has been committed: when nothing of it is under way any more, for
    /// until then nothing is kept.
    pub fn take_due(&mut self) -> Vec<Arc<Again>> {
        if self.is_clean() { std::mem::take(&mut self.due) } else { Vec::new() }
    }

    /// Has it written nothing that is not committed?
    pub fn is_clean(&self) -> bool {
        self.tags.is_empty()
    }

    /// What decides about its next steps, for the model.
    #[cfg(test)]
    pub(crate) fn describe(&self, out: &mut Vec<u64>) {
        let flags = u64::from(self.sent.is_some()) << 1 | u64::from(self.block == Block::Open);
        let unit = self.unit as u64;
        out.extend([self.tags.len() as u64, self.marks.len() as u64, flags, unit]);
    }

    /// As if nothing had been marked.
    #[cfg(test)]
    pub(crate) fn without_marks(tags: &[Tag]) -> Self {
        let tags: FxHashSet<Tag> = tags.iter().cloned().collect();
        Self { marked: tags.clone(), tags, sent: Some(()), ..Self::default() }
    }

    fn sent(&mut self, written: &Written, database: &Arc<str>, store: &mut Store, now: Instant) {
        match written {
            Written::Nothing | Written::Turns | Written::Ends => {}
            Written::Tags(tags) if self.tags.len() + tags.len() <= TAGS_MAX => {
                self.tags.extend(tags.iter().cloned());
            }
            Written::Tags(_) | Written::Rows => {
                self.tags.insert(Tag::Rows(database.clone()));
            }
            Written::Database => {
                self.tags.insert(Tag::Database(database.clone()));
            }
            Written::Cluster => {
                self.tags.insert(Tag::Cluster);
            }
        }
        let nothing = *written == Written::Nothing;
        // May this be what commits? Inside a block, only what ends it; unless it is not certain that it is inside one.
        let uncertain = self.sent.replace(()).is_some();
        let ends = match written {
            Written::Nothing | Written::Turns => false,
            Written::Tags(_) | Written::Rows => self.block == Block::None || uncertain,
            // What names mean is looked up while it changes.
            Written::Ends | Written::Database | Written::Cluster => true,
        };
        if !nothing && ends && !self.tags.is_empty() {
            let tags: Vec<Tag> = self.tags.iter().cloned().collect();
            self.mark(&tags, store, now);
        }
    }

    fn note(&mut self, unit: Unit) {
        self.unit = match self.unit {
            Unit::Other => Unit::Other,
            Unit::Nothing | Unit::Undone => unit,
        };
    }

    fn may_commit_itself(&self) -> bool {
        let beyond_tables = |tag: &Tag| !matches!(tag, Tag::Relation(..) | Tag::Named(..));
        self.tags.iter().any(beyond_tables)
    }

    fn mark(&mut self, tags: &[Tag], store: &mut Store, now: Instant) {
        let new: Vec<Tag> =
            tags.iter().filter(|tag| !self.marked.contains(*tag)).cloned().collect();
        if !new.is_empty() {
            self.marks.push(store.mark(&new, now));
            self.marked.extend(new);
        }
    }

    /// What has been written so far may be visible to all.
    fn commit(&mut self, database: &Arc<str>, store: &mut Store, now: Instant) {
        if self.tags.is_empty() {
            return;
        }
        let tags: Vec<Tag> = self.tags.iter().cloned().collect();
        store.bump(&tags, now);
        self.due.append(&mut store.take_due(&tags, now));
        // What its statements changed was found by another meaning of names than they may have run with.
        let moved = self.stamp.is_some_and(|stamp| store.stamp(database, now) != stamp);
        if moved {
            let rows = [Tag::Rows(database.clone())];
            store.bump(&rows, now);
            self.due.append(&mut store.take_due(&rows, now));
        }
        self.due.truncate(WRITE_THROUGH_MAX);
    }

    /// No transaction is open, and nothing is under way.
    fn end(&mut self, store: &mut Store) {
        self.tags.clear();
        self.marked.clear();
        self.stamp = None;
        for mark in self.marks.drain(..) {
            store.settle(mark);
        }
    }
}
