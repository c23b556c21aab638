//! Locking what several threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a panicking thread left behind here is whole: every change is one call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
