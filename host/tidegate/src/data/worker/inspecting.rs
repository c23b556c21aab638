//! Inspection: now and then an answer that was given from memory is read once more on the primary, by a client of the worker's own
//! that goes past what is kept, and the two are compared.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_cache::{Again, Answer, Capture, Captured, Key};
use tidegate_core::limits::{INSPECTIONS_MAX, POLICY_RESULT_BYTES_MAX};
use tidegate_core::plan::CACHE_SETTING;

use super::Worker;
use super::again::{Asks, drive_seen};
use crate::data::caching::Inspection;
use crate::data::clients::Client;
use crate::results::Results;
use crate::sharing::{Entry, Looked};

/// A reading that takes longer is given up, and tells nothing.
const READ_TIME_MAX: Duration = Duration::from_secs(10);

impl Worker {
    /// Reads once more what this client was given. Nobody waits for it.
    pub fn inspect(self: &Rc<Self>, client: &Client, inspection: Inspection) {
        if self.own_reads.inspections.get() >= INSPECTIONS_MAX {
            return;
        }
        let asks = Asks {
            database: client.database.clone(),
            user: client.user.clone(),
            credentials: client.credentials.clone(),
            write_pool: client.write_pool.clone(),
        };
        self.own_reads.inspections.set(self.own_reads.inspections.get() + 1);
        let worker = self.clone();
        self.tasks.borrow_mut().spawn_local(async move {
            worker.compare(&asks, inspection).await;
            worker.own_reads.inspections.set(worker.own_reads.inspections.get() - 1);
        });
    }

    async fn compare(self: &Rc<Self>, asks: &Asks, inspection: Inspection) {
        let Inspection { given, again, shape, key, shared } = inspection;
        let off = (CACHE_SETTING.to_owned(), Some("off".to_owned()));
        let settings = Arc::new(again.settings.with([off]));
        let again = Arc::new(Again { settings, ..again });
        let Some((connection, _, theirs)) = self.own_client(asks, again) else { return };
        let mut capture = Capture::new(POLICY_RESULT_BYTES_MAX);
        let mut found: Option<Answer> = None;
        drive_seen(connection, theirs, READ_TIME_MAX, &mut |bytes| {
            if let Captured::Whole(answer) = capture.feed(bytes) {
                found = Some(answer);
            }
        })
        .await;
        let results = &self.shared.results;
        let (Some(found), Some(known)) = (found, given.answer.open()) else { return };
        // Only now: what was written meanwhile is no fault.
        let is_known = match &shared {
            Some(entry) => hear(results, &key, entry).await,
            None => true,
        };
        if !is_known || !results.with(|store| store.stands(&given)) {
            return;
        }
        if *known == found {
            return results.inspected.note_same();
        }
        let now = Instant::now();
        results.with(|store| store.distrust(&given, now));
        results.inspected.note_different(&asks.database, &shape.normalized, now);
        tracing::warn!(
            database = %asks.database,
            statement = &*shape.normalized,
            "an answer that was given from memory or Redis is not what the primary has, and nothing has been written through \
             Tidegate: something else writes, or the answer need not be the same twice (no ORDER BY). All answers of its tables \
             are taken"
        );
    }
}

/// Takes what others have written by now. False: that is not known, or they are writing.
async fn hear(results: &Results, key: &Key, entry: &Arc<Entry>) -> bool {
    let now = Instant::now();
    // Without versions of its own it does not stand, and there is nothing to compare.
    let has = results.with(|store| store.shared_of(key, &entry.tags, now));
    let Some((sharing, has)) = results.sharing().zip(has) else { return false };
    let Some(mut looking) = sharing.look(entry.clone(), Some(has), false) else { return false };
    let Some(Looked::Shared(shared)) = std::future::poll_fn(|cx| looking.poll(cx)).await else {
        return false;
    };
    if shared.versions.len() != entry.tags.len() {
        return false;
    }
    let known = entry.tags.iter().zip(shared.versions.iter().copied());
    results.with(|store| store.note_shared(known, None, Instant::now()));
    true
}
