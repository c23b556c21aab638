//! What is known of code in the databases that no statement names: see `core::session::hidden`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_core::limits::SCHEMA_SEEN_TIME_MAX;
use tidegate_core::session::hidden::{HiddenCode, Hides};

/// A database whose schema changes all the time is not asked more often than this.
const ASK_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The databases that clients have used.
#[derive(Debug, Default)]
pub struct HiddenCodes(Mutex<HashMap<Arc<str>, Database>>);

#[derive(Debug)]
struct Database {
    code: Arc<HiddenCode>,
    told: Hides,
    permitted_at: Option<Instant>,
    refreshed_at: Instant,
}

impl HiddenCodes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Database>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, database: &Arc<str>, now: Instant) -> Arc<HiddenCode> {
        let mut databases = self.lock();
        let known = databases.entry(database.clone()).or_insert_with(|| {
            let code = Arc::<HiddenCode>::default();
            code.permit();
            Database { code, told: Hides::Nowhere, permitted_at: Some(now), refreshed_at: now }
        });
        known.code.clone()
    }

    /// The same for a database that a client uses now.
    pub fn get(&self, database: &str) -> Option<Arc<HiddenCode>> {
        self.lock().get(database).map(|known| known.code.clone())
    }

    /// A schema has changed, it is not known of which database.
    pub fn forget(&self) {
        for database in self.lock().values() {
            database.code.forget();
        }
    }

    /// Called by one worker, several times a second.
    pub fn maintain(&self, now: Instant) {
        let is_due = |then: Instant, interval| now.saturating_duration_since(then) >= interval;
        self.lock().retain(|name, database| {
            let hides = database.code.hides();
            if hides == Hides::Unknown {
                if database.permitted_at.is_none_or(|then| is_due(then, ASK_INTERVAL_MIN)) {
                    database.permitted_at = Some(now);
                    database.code.permit();
                }
            } else if hides != database.told {
                database.told = hides;
                tell(name, hides);
            }
            if !is_due(database.refreshed_at, SCHEMA_SEEN_TIME_MAX) {
                return true;
            }
            database.refreshed_at = now;
            database.code.refresh();
            // Nobody can take another reference while the map is locked.
            Arc::strong_count(&database.code) > 1
        });
    }

    /// Databases with such code.
    pub fn count(&self) -> usize {
        let hides = |database: &&Database| {
            matches!(database.code.hides(), Hides::InWrites | Hides::Anywhere)
        };
        self.lock().values().filter(hides).count()
    }
}

fn tell(database: &str, hides: Hides) {
    match hides {
        Hides::Unknown => {}
        Hides::Nowhere => tracing::info!(
            %database,
            "nothing hides any more that could leave state in sessions: servers are asked only after statements that name it"
        ),
        Hides::InWrites | Hides::Anywhere => tracing::info!(
            %database,
            reached_by = if hides == Hides::InWrites { "writes" } else { "any statement" },
            "triggers, defaults, views, operators or functions with built-in names may leave state in sessions: the server is asked after each transaction that may have run one"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_asked_at_once_then_after_changes_but_not_all_the_time() {
        let codes = HiddenCodes::default();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let code = codes.of(&"shop".into(), start);
        let claim = code.claim().unwrap();
        code.settle(&claim, Hides::InWrites);
        assert_eq!(codes.count(), 1);
        codes.forget();
        codes.maintain(after(500));
        assert!(code.claim().is_none(), "it was asked half a second ago");
        codes.maintain(after(1000));
        let claim = code.claim().unwrap();
        code.settle(&claim, Hides::Nowhere);
        assert_eq!(codes.count(), 0);
        codes.maintain(after(59_999));
        assert!(code.claim().is_none());
        codes.maintain(after(60_000));
        assert!(code.claim().is_some(), "what is a minute old is looked at again");
    }

    #[test]
    fn databases_that_nobody_uses_are_forgotten() {
        let codes = HiddenCodes::default();
        let now = Instant::now();
        let code = codes.of(&"shop".into(), now);
        drop(codes.of(&"other".into(), now));
        codes.maintain(now);
        assert_eq!(codes.lock().len(), 2, "somebody may come back soon");
        codes.maintain(now + SCHEMA_SEEN_TIME_MAX);
        assert_eq!(codes.lock().len(), 1);
        drop(code);
        codes.maintain(now + 2 * SCHEMA_SEEN_TIME_MAX);
        assert!(codes.lock().is_empty());
    }
}
