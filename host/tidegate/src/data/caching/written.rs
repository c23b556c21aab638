//! What clients write, and when that is committed: before they hear of it, nothing that it changes is served any more.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use tidegate_cache::{Again, Block, Stamp, Store, Work, Written, written};
use tidegate_core::plan::{Ran, Recall, Text};
use tidegate_core::statement::{TextEncoding, TextSettings, analyse_with};
use tidegate_wire::backend::TransactionStatus;

use crate::data::clients::Client;
use crate::data::routing::Routing;
use crate::results::Results;

/// What a client has written that is not known to be committed, and in which round of keeping.
#[derive(Debug, Default)]
pub struct Tracked {
    round: u64,
    work: Work,
}

impl Tracked {
    /// Of a client that has sent nothing yet.
    pub fn new(results: &Results) -> RefCell<Self> {
        RefCell::new(Self { round: results.round(), work: Work::default() })
    }

    /// The client's server goes back: what it has not committed is undone. Or it is lost, and with it perhaps the word that it
    /// has committed.
    pub fn end(&mut self, results: &Results, lost: Lost, database: &Arc<str>) {
        if self.work.is_clean() {
            self.work = Work::default();
            return;
        }
        let doubt = results.with(|store| match lost {
            Lost::InDoubt(_) => Some(self.work.handle_lost(database, store, Instant::now())),
            Lost::Undone => {
                self.work.handle_undone(store);
                None
            }
        });
        if let (Some(doubt), Lost::InDoubt(process)) = (doubt, lost) {
            results.doubt(process, doubt);
        }
    }
}

/// What has become of a client's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Undone,
    /// Of a server with this process.
    InDoubt(Option<i32>),
}

/// How to ask for what is kept through writes once more.
pub(super) fn again(client: &Client, next: &Recall<'_>) -> Again {
    Again {
        user: client.user.clone(),
        settings: next.settings.clone(),
        unit: next.unit().into(),
        // Who but reads it again wants nothing of it.
        wanted_at: client.again.as_ref().map_or_else(Instant::now, |again| again.wanted_at),
    }
}

impl Routing {
    /// Heeds what a session tells of what it runs, before its client hears of it.
    pub(in crate::data) fn heed_written(&mut self, client: &Client, ran: &Ran<'_>) {
        let round = self.caching.results.round();
        if round == 0 {
            return;
        }
        let mut tracked = client.tracked.borrow_mut();
        if tracked.round != round {
            *tracked = Tracked { round, work: Work::unknown() };
        }
        let database = &client.database;
        let block = |status: TransactionStatus| match status {
            TransactionStatus::Idle => Block::None,
            TransactionStatus::InTransaction | TransactionStatus::Failed => Block::Open,
        };
        let work = &mut tracked.work;
        let ran = match *ran {
            Ran::Bound(text) | Ran::Query(_, Some(text)) => {
                let (written, stamp) = self.written(text, client);
                if written == Written::Nothing && work.is_clean() {
                    return;
                }
                let (now, process) = (Instant::now(), client.process.get());
                let results = &self.caching.results;
                let ((), gates) = results.with_gates(process, |store| {
                    // What its names mean is known only while this stands.
                    let stands = stamp.is_none_or(|stamp| store.stamp(database, now) == stamp);
                    if let Some(stamp) = stamp {
                        work.note_stamp(stamp);
                    }
                    let written = if stands { written } else { written.at_least_rows() };
                    work.handle(tidegate_cache::Ran::Sent(&written), database, store, now);
                });
                return self.caching.gates.extend(gates);
            }
            Ran::BoundUnknown | Ran::Call(_) => tidegate_cache::Ran::Sent(&Written::Database),
            Ran::Query(_, None) => tidegate_cache::Ran::Sent(&Written::Cluster),
            Ran::Completed(_) | Ran::Failed { .. } if work.is_clean() => return,
            Ran::Ready { after, over, .. } if work.is_clean() => {
                return work.note_ready(block(after), over);
            }
            Ran::Completed(tag) => tidegate_cache::Ran::Completed(tag),
            Ran::Failed { .. } => tidegate_cache::Ran::Failed,
            Ran::Ready { before, after, over } => {
                tidegate_cache::Ran::Ready { before: block(before), after: block(after), over }
            }
            Ran::Execute(_) => return,
        };
        let now = Instant::now();
        let act = |store: &mut Store| work.handle(ran, database, store, now);
        let ((), gates) = self.caching.results.with_gates(client.process.get(), act);
        self.caching.gates.extend(gates);
        self.caching.due.extend(work.take_due());
    }

    /// What a text may change, and as of when its names mean that.
    fn written(&mut self, text: Text<'_>, client: &Client) -> (Written, Option<Stamp>) {
        let Some(strings) = text.strings else { return (Written::Cluster, None) };
        let known = self.known_tables(&client.database);
        let tables = known.as_ref().and_then(|known| known.tables.as_deref());
        let stamp = known.as_ref().map(|known| known.stamp);
        let serial = known.as_ref().filter(|_| tables.is_some()).map_or(0, |known| known.serial);
        let settings = TextSettings { strings, encoding: TextEncoding::Utf8 };
        let shape = self.shapes.shape_of(text.sql, settings, Instant::now()).shape;
        let key = shape.fingerprint.0;
        let is_whole = shape.incomplete.is_none();
        if is_whole && let Some(written) = self.caching.writes.get(key, serial) {
            let written = written.clone();
            return (self.with_taken((written, serial), &shape, client), stamp);
        }
        let analysis = analyse_with(text.sql, strings);
        let written = written(&shape, &analysis, &client.database, tables);
        if is_whole {
            self.caching.writes.put(key, serial, written.clone());
        }
        (self.with_taken((written, serial), &shape, client), stamp)
    }
}
