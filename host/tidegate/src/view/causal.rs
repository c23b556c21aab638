//! What reads have to see, where that is more than their own session's past; and that somebody waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Of one process.
#[derive(Debug)]
pub struct Causal {
    began: Instant,
    /// In nanoseconds since then; 0: none yet.
    last_write: AtomicU64,
    /// The primary is to be asked how far it has come, and has not been since somebody wanted it.
    wanted: AtomicBool,
    wake: Notify,
}

impl Default for Causal {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            last_write: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }
}

impl Causal {
    /// A statement that may have written has been answered by its server, and its client is yet to be told.
    pub fn note_write(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.began).as_nanos();
        self.last_write.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// When the last of any session's was answered.
    pub fn last_write(&self) -> Option<Instant> {
        match self.last_write.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(self.began + Duration::from_nanos(nanos)),
        }
    }

    /// Somebody wants to know as of when replicas are fresh, after now.
    pub fn want_freshness(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Resolves when somebody does. Cancel safe.
    pub async fn freshness_wanted(&self) {
        self.wake.notified().await;
    }

    /// The primary is asked after this: does somebody wait for its answer? Who wants it from now on wants the next.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_never_goes_back() {
        let causal = Causal::default();
        assert_eq!(causal.last_write(), None);
        let (first, second) =
            (causal.began + Duration::from_secs(1), causal.began + Duration::from_secs(2));
        causal.note_write(second);
        causal.note_write(first);
        assert_eq!(causal.last_write(), Some(second));
    }

    #[tokio::test]
    async fn who_wants_while_it_is_being_asked_wants_the_next_answer() {
        let causal = Causal::default();
        assert!(!causal.take_wanted());
        causal.want_freshness();
        causal.want_freshness();
        causal.freshness_wanted().await;
        assert!(causal.take_wanted());
        causal.want_freshness();
        causal.freshness_wanted().await;
        assert!(causal.take_wanted() && !causal.take_wanted());
    }
}
