//! Inspection: now and then an answer that was given from memory is read once more on the primary, by a client of the worker's own
//! that goes past what is kept, and the two are compared.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_cache::{Again, Answer, Capture, Captured};
use tidegate_core::limits::{INSPECTIONS_MAX, POLICY_RESULT_BYTES_MAX};
use tidegate_core::plan::CACHE_SETTING;

use super::Worker;
use super::again::{Asks, drive_seen};
use crate::data::caching::Inspection;
use crate::data::clients::Client;

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
        let Inspection { given, again, shape } = inspection;
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
        if !results.with(|store| store.stands(&given)) {
            return;
        }
        let same = *known == found;
        results.note_inspected(same);
        if !same {
            tracing::warn!(
                database = %asks.database,
                statement = &*shape.normalized,
                "an answer that was given from memory is not what the primary has, and nothing has been written through \
                 Tidegate: something else writes, or the answer need not be the same twice (no ORDER BY)"
            );
        }
    }
}
