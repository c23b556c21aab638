//! Sockets of a thread that are not on its ring: logins, and what is encrypted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static COUNT: Arc<AtomicUsize> = Arc::default();
}

/// Counts for the thread that made it, as long as it lives, wherever that is.
#[derive(Debug)]
pub struct Elsewhere(Arc<AtomicUsize>);

impl Elsewhere {
    /// One more for this thread.
    pub fn here() -> Self {
        // A thread that ends counts no more.
        let count = COUNT.try_with(Arc::clone).unwrap_or_default();
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    /// Has this thread none?
    pub(super) fn is_none_here() -> bool {
        COUNT.try_with(|count| count.load(Ordering::Relaxed) == 0).unwrap_or(false)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
