//! Commits that are under way: what they change is neither kept meanwhile nor given to whoever may have seen it.

use super::{Place, State, Store, Tag};
use std::sync::Arc;
use std::time::Instant;

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

/// On what a commit changes, while it is under way. Must be given back to `settle`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Mark {
    places: Vec<Place>,
    age: u32,
    token: u64,
}

impl Store {
    /// From now on statements run in the database that nobody reads: nothing of it is kept.
    pub fn suspend(&mut self, database: &Arc<str>, now: Instant) {
        let tag = Tag::Database(database.clone());
        match self.suspended.get_mut(database) {
            Some((sessions, _)) => *sessions += 1,
            None => {
                let token = self.tell_mark(std::slice::from_ref(&tag));
                self.suspended.insert(database.clone(), (1, token));
            }
        }
        self.bump(&[tag], now);
    }

    /// One of the sessions is over that did so.
    pub fn resume(&mut self, database: &Arc<str>, now: Instant) {
        self.bump(&[Tag::Database(database.clone())], now);
        let Some((sessions, token)) = self.suspended.get_mut(database) else { return };
        *sessions -= 1;
        if *sessions == 0 {
            let token = *token;
            self.suspended.remove(database);
            self.tell_end(Some(token), &[]);
        }
    }

    pub(super) fn is_suspended(&self, database: &Arc<str>) -> bool {
        !self.suspended.is_empty() && self.suspended.contains_key(database)
    }

    /// Before a commit of these changes is sent.
    pub fn mark(&mut self, tags: &[Tag], now: Instant) -> Mark {
        let token = self.tell_mark(tags);
        let mut mark = Mark { places: Vec::with_capacity(tags.len()), age: self.age, token };
        for tag in tags {
            let place = match self.place(tag, now) {
                Some(place) => place,
                // Marks are on everything else: this one is on all of it.
                None => Place(0),
            };
            let Some(state) = self.states.get_mut(place.0 as usize) else { continue };
            if state.marks == 0 {
                state.marked_at = now;
            }
            state.marks = state.marks.saturating_add(1);
            mark.places.push(place);
        }
        mark
    }

    /// What was marked has been committed and bumped, or never will be.
    pub fn settle(&mut self, mark: Mark) {
        self.tell_end(Some(mark.token), &[]);
        if mark.age != self.age {
            return;
        }
        for place in mark.places {
            if let Some(state) = self.states.get_mut(place.0 as usize) {
                state.marks = state.marks.saturating_sub(1);
            }
        }
    }

    pub(super) fn is_marked_at(&self, place: Place) -> bool {
        self.states.get(place.0 as usize).is_some_and(|state| state.marks > 0)
    }
}

impl State {
    pub(super) fn holds_back(&self, reader: Reader) -> bool {
        self.marks > 0
            && match reader.waits {
                Waits::Always => true,
                Waits::IfSeen => reader.saw_at.is_some_and(|saw_at| saw_at >= self.marked_at),
            }
    }
}
