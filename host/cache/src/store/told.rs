//! What other processes that share the answers are told of writes here, and what their writes come to here.
//!
//! Each tag has a version among them all, and never the same twice. A process that has just read the shared versions, and finds
//! that they are those it had read before, knows that its own versions stand for them: `note_shared` renews those that differ.

use super::{Place, Store, Tag};
use crate::key::Key;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What has not changed for so long is worth relying on: who commits has to wait until nobody does any more.
const UNCHANGED_TIME: Duration = Duration::from_secs(1);

/// Under which shared versions it was found what a change changes: those of the cluster and of its database, as far as they
/// were ever read. If they are others by now, names may mean something else, and it may change any rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Whose names.
    pub database: Arc<str>,
    /// The cluster's version, and the database's.
    pub versions: [Option<u64>; 2],
}

/// Whether shared versions may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reliance {
    /// Since when all of them may be, for as long as that lasts.
    pub from: Option<Instant>,
    /// None has changed for some time.
    pub is_worth_it: bool,
}

/// What others are to be told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Before a commit is sent: it may change this. The number has no other mark of this process.
    Mark {
        /// Its number.
        token: u64,
        /// What it may change.
        tags: Arc<[Tag]>,
        /// Of tables.
        names: Option<Names>,
    },
    /// These marks are no more, and this has changed, both at once.
    End {
        /// The marks' numbers.
        tokens: Vec<u64>,
        /// What has changed.
        tags: Vec<Tag>,
        /// Of tables.
        names: Option<Names>,
    },
}

impl Store {
    /// From now on others share: `take_told` says what they are to be told.
    pub fn share(&mut self) {
        self.told.get_or_insert_default();
    }

    /// Does anybody share?
    pub fn is_shared(&self) -> bool {
        self.told.is_some()
    }

    /// What others are to be told since the last call, before anybody hears of it.
    pub fn take_told(&mut self) -> Vec<Told> {
        let mut all = match &mut self.told {
            Some(told) if !told.is_empty() => std::mem::take(told),
            Some(_) | None => return Vec::new(),
        };
        for told in &mut all {
            match told {
                Told::Mark { tags, names, .. } => *names = self.names_of(tags),
                Told::End { tags, names, .. } => *names = self.names_of(tags),
            }
        }
        all
    }

    /// These are the shared versions, read just now. What has changed since they were last read is taken from here, too.
    /// `relied_from`: they may be relied on, and were asked for then.
    pub fn note_shared<'a>(
        &mut self,
        versions: impl IntoIterator<Item = (&'a Tag, u64)>,
        relied_from: Option<Instant>,
        now: Instant,
    ) {
        for (tag, version) in versions {
            let Some(place) = self.place(tag, now) else { continue };
            let Some(state) = self.states.get_mut(place.0 as usize) else { continue };
            if state.shared != Some(version) {
                (state.shared, state.shared_at) = (Some(version), now);
                state.relied_from = relied_from;
                self.renew(place, now);
            } else {
                state.relied_from = state.relied_from.max(relied_from);
            }
        }
    }

    /// Under which shared versions of these an answer stands here; `None`: there is none that does.
    pub fn shared_of(&mut self, key: &Key, tags: &[Tag], now: Instant) -> Option<Box<[u64]>> {
        let entry = self.entries.get(key, now)?;
        let stands = |(place, version): &(Place, u64)| {
            self.states.get(place.0 as usize).is_some_and(|state| state.version == *version)
        };
        let shared = |tag: &Tag| self.states.get(self.places.get(tag)?.0 as usize)?.shared;
        entry.versions.iter().all(stands).then(|| tags.iter().map(shared).collect())?
    }

    /// May the shared versions of these be relied on?
    pub fn reliance(&self, tags: &[Tag], now: Instant) -> Reliance {
        let mut reliance = Reliance { from: Some(now), is_worth_it: true };
        for tag in tags {
            let place = self.places.get(tag);
            match place.and_then(|place| self.states.get(place.0 as usize)) {
                Some(state) if state.shared.is_some() => {
                    reliance.from = reliance.from.min(state.relied_from);
                    let unchanged = now.saturating_duration_since(state.shared_at);
                    reliance.is_worth_it &= unchanged >= UNCHANGED_TIME;
                }
                _ => return Reliance { from: None, is_worth_it: false },
            }
        }
        reliance
    }

    /// What an answer of this database is read from besides its own tags, in the order of versions everywhere.
    pub fn common_tags(database: &Arc<str>) -> [Tag; 3] {
        [Tag::Cluster, Tag::Database(database.clone()), Tag::Rows(database.clone())]
    }

    pub(super) fn tell_mark(&mut self, tags: &[Tag]) -> u64 {
        self.last_token += 1;
        if let Some(told) = &mut self.told {
            told.push(Told::Mark { token: self.last_token, tags: tags.into(), names: None });
        }
        self.last_token
    }

    pub(super) fn tell_end(&mut self, token: Option<u64>, changed: &[Tag]) {
        let Some(told) = &mut self.told else { return };
        if !matches!(told.last(), Some(Told::End { .. })) {
            told.push(Told::End { tokens: Vec::new(), tags: Vec::new(), names: None });
        }
        if let Some(Told::End { tokens, tags, .. }) = told.last_mut() {
            tokens.extend(token);
            // Nearly always the same ones once more, or the first.
            let is_first = tags.is_empty();
            tags.extend(
                changed
                    .iter()
                    .filter(|tag| is_first || !tags.contains(tag))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
    }

    /// What is known of names, if any of these was found by one.
    fn names_of(&self, tags: &[Tag]) -> Option<Names> {
        let database = tags.iter().find_map(|tag| match tag {
            Tag::Relation(database, _) | Tag::Named(database, _) => Some(database.clone()),
            Tag::Cluster | Tag::Database(_) | Tag::Rows(_) | Tag::AnyNamed(_) => None,
        })?;
        let shared = |tag: &Tag| {
            let place = self.places.get(tag)?;
            self.states.get(place.0 as usize)?.shared
        };
        let versions = [shared(&Tag::Cluster), shared(&Tag::Database(database.clone()))];
        Some(Names { database, versions })
    }
}
