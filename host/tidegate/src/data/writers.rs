//! Who has written over HTTP, and when: each request is a client of its own, and the next one of the same user is to see what the
//! one before has written, on whichever server it reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tidegate_core::limits::HTTP_WRITERS_MAX;

/// What was written longer ago is on every replica that may be read.
const SHOWN_EVERYWHERE: Duration = tidegate_core::limits::POLICY_LAG_MAX;

type Who = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Writes {
    /// Clients that may be writing.
    open: u32,
    /// When the last of those before them was over.
    last: Option<Instant>,
}

/// By database and user.
#[derive(Debug, Default)]
pub struct HttpWriters(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    writers: FxHashMap<Who, Writes>,
    /// Whoever is not known may have written then.
    forgotten_at: Option<Instant>,
}

impl HttpWriters {
    /// A client runs what may write. It must `end`.
    pub fn begin(&self, database: &Arc<str>, user: &Arc<str>, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let who = (database.clone(), user.clone());
        if known.writers.len() >= HTTP_WRITERS_MAX && !known.writers.contains_key(&who) {
            known.forget(now);
        }
        known.writers.entry(who).or_default().open += 1;
    }

    /// It is over, and has been told.
    pub fn end(&self, database: &Arc<str>, user: &Arc<str>, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writes) = known.writers.get_mut(&(database.clone(), user.clone())) {
            writes.open = writes.open.saturating_sub(1);
            writes.last = Some(now);
        }
    }

    /// As of when a replica must be for a client that comes now; `None`: any will do.
    pub fn seen(&self, database: &Arc<str>, user: &Arc<str>, now: Instant) -> Option<Instant> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.writers.get(&(database.clone(), user.clone())) {
            Some(Writes { open: 0, last }) => *last,
            // Its client may have been told already.
            Some(_) => Some(now),
            None => known.forgotten_at,
        }
    }
}

impl Known {
    /// Makes room: first of those whom every replica shows, then of all that do not write now.
    fn forget(&mut self, now: Instant) {
        self.writers.retain(|_, writes| {
            writes.open > 0 || writes.last.is_some_and(|last| now - last < SHOWN_EVERYWHERE)
        });
        if self.writers.len() >= HTTP_WRITERS_MAX {
            self.writers.retain(|_, writes| writes.open > 0);
            self.forgotten_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_client_sees_what_was_written_before_it() {
        let writers = HttpWriters::default();
        let (database, user, other): (Arc<str>, Arc<str>, Arc<str>) =
            ("shop".into(), "app".into(), "other".into());
        let at = |s| Instant::now() + Duration::from_secs(s);
        let times = [at(0), at(1), at(2), at(3)];
        assert_eq!(writers.seen(&database, &user, times[0]), None);
        writers.begin(&database, &user, times[0]);
        assert_eq!(writers.seen(&database, &user, times[1]), Some(times[1]), "it may be told");
        assert_eq!(writers.seen(&database, &other, times[1]), None);
        writers.end(&database, &user, times[2]);
        assert_eq!(writers.seen(&database, &user, times[3]), Some(times[2]));
        // Those who are forgotten may have written.
        for n in 0..HTTP_WRITERS_MAX {
            let name: Arc<str> = format!("user {n}").into();
            writers.begin(&database, &name, times[2]);
            writers.end(&database, &name, times[2]);
        }
        assert_eq!(writers.seen(&database, &user, times[3]), Some(times[2]));
        let late = times[3] + 2 * SHOWN_EVERYWHERE;
        writers.begin(&database, &other, late);
        assert!(writers.0.lock().unwrap().writers.len() < HTTP_WRITERS_MAX);
    }
}
