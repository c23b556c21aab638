//! What each server has done for clients: counted by each worker for itself, read by anyone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_cluster::{Reads, log_of};

use super::stats::Counter;

/// One worker's count for one server. Aligned so that no two workers share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Served {
    pub statements: Counter,
    /// Of those, the ones that it answered with an error.
    pub errors: Counter,
    /// Times that a connection was lent, and for how long in all.
    transactions: Counter,
    busy_micros: Counter,
    /// Reads that could have run on any replica, and the sum of the logarithms of their times.
    reads: Counter,
    read_logs: Counter,
    /// Those that it did not take, or was lost with.
    pub reads_failed: Counter,
}

/// What a connection was lent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LentFor {
    Anything,
    /// A read that any replica would have done for.
    AnyRead,
}

impl Served {
    /// A connection has come back after this time.
    pub fn note_lent(&self, lent_for: LentFor, time: Duration) {
        self.transactions.increment();
        self.busy_micros.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        if lent_for == LentFor::AnyRead {
            self.reads.increment();
            self.read_logs.add(log_of(time));
        }
    }
}

/// One server, by its name: `primary`, `replica-1`, …, whatever it is now.
#[derive(Debug)]
pub struct ServerStats {
    name: Arc<str>,
    workers: Box<[Served]>,
}

/// A copy of [`ServerStats`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ServedSnapshot {
    pub server: String,
    pub statements: u64,
    pub errors: u64,
    pub transactions: u64,
    pub busy_micros: u64,
}

impl ServerStats {
    /// This worker's, which nobody else may write.
    pub fn of(&self, worker: usize) -> Option<&Served> {
        self.workers.get(worker)
    }

    fn sum(&self, counter: impl Fn(&Served) -> &Counter) -> u64 {
        self.workers.iter().map(|served| counter(served).get()).fold(0, u64::wrapping_add)
    }

    pub fn reads(&self) -> Reads {
        Reads {
            answered: self.sum(|served| &served.reads),
            logs: self.sum(|served| &served.read_logs),
            failed: self.sum(|served| &served.reads_failed),
        }
    }

    fn snapshot(&self) -> ServedSnapshot {
        ServedSnapshot {
            server: self.name.to_string(),
            statements: self.sum(|served| &served.statements),
            errors: self.sum(|served| &served.errors),
            transactions: self.sum(|served| &served.transactions),
            busy_micros: self.sum(|served| &served.busy_micros),
        }
    }
}

/// All servers that ever were configured at a time.
#[derive(Debug)]
pub struct ServersStats {
    workers: usize,
    known: Mutex<Vec<Arc<ServerStats>>>,
}

impl ServersStats {
    pub fn new(workers: usize) -> Self {
        Self { workers, known: Mutex::default() }
    }

    /// Those of this name. Asked for when a connection is opened, or one has failed.
    pub fn of(&self, name: &str) -> Arc<ServerStats> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stats) = known.iter().find(|stats| *stats.name == *name) {
            return Arc::clone(stats);
        }
        let workers = (0..self.workers).map(|_| Served::default()).collect();
        let stats = Arc::new(ServerStats { name: name.into(), workers });
        known.push(Arc::clone(&stats));
        stats
    }

    /// By name.
    pub fn snapshot(&self) -> Vec<ServedSnapshot> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<ServedSnapshot> = known.iter().map(|stats| stats.snapshot()).collect();
        all.sort_by(|one, other| one.server.cmp(&other.server));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_count_is_added_up_by_server() {
        let servers = ServersStats::new(2);
        let replica = servers.of("replica-1");
        for worker in [0, 1, 1] {
            let served = replica.of(worker).unwrap();
            served.statements.add(2);
            served.note_lent(LentFor::AnyRead, Duration::from_millis(1));
        }
        replica.of(0).unwrap().note_lent(LentFor::Anything, Duration::from_millis(5));
        servers.of("primary").of(0).unwrap().reads_failed.increment();
        assert!(replica.of(2).is_none());
        let all = servers.snapshot();
        assert_eq!(all.len(), 2);
        let expected = ServedSnapshot {
            server: "replica-1".to_owned(),
            statements: 6,
            errors: 0,
            transactions: 4,
            busy_micros: 8_000,
        };
        assert_eq!((all[0].server.as_str(), &all[1]), ("primary", &expected));
        let logs = 3 * log_of(Duration::from_millis(1));
        assert_eq!(replica.reads(), Reads { answered: 3, logs, failed: 0 });
        assert_eq!(servers.of("primary").reads().failed, 1);
    }
}
