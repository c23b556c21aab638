//! How long an answer is kept, and what happens before that is over.

use super::Again;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer is kept, and what happens before that is over.
#[derive(Clone, Debug)]
pub struct Term {
    /// At most for so long since its statement was sent.
    pub ttl: Duration,
    /// How its time ends.
    pub expiry: Expiry,
    /// How it is read again when it has been written.
    pub again: Option<Arc<Again>>,
}

/// How the time of an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Whoever asks for it then reads it anew.
    #[default]
    Plain,
    /// Before that, one of those who ask reads it anew, while the others are given what still stands.
    RefreshAhead,
}

impl From<Duration> for Term {
    fn from(ttl: Duration) -> Self {
        Self { ttl, expiry: Expiry::Plain, again: None }
    }
}
