//! What the client's side of a connection does next.

use std::pin::Pin;

use tidegate_core::session::CloseReason;

use super::pause::Pause;
use crate::data::caching::Later;

/// What the client's side of the loop does next.
#[derive(Debug)]
pub(super) enum ClientPhase {
    /// Reads and hands to the session.
    Reading,
    /// Waits in a pool's queue.
    Queued,
    /// Waits for an answer that is kept, or may be.
    Recalling(Box<Later>),
    /// The session waits for replies.
    Replies,
    /// Until a limit may have room, or a replica has caught up.
    Paused(Pause),
    /// Has been told its last message.
    Closing(CloseReason),
    /// Is gone; its server is being cleaned.
    Gone(CloseReason, Pin<Box<tokio::time::Sleep>>),
}

impl ClientPhase {
    /// Does its statement wait, and not yet for a server's answer?
    pub(super) fn is_before_server(&self) -> bool {
        matches!(self, Self::Queued | Self::Paused(_) | Self::Recalling(_))
    }
}
