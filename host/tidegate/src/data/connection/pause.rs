//! What a client waits for without a server: until a limit may have room, or a replica has caught up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::rates::Asking;

/// It is over when the future is.
pub(super) struct Pause(Pin<Box<dyn Future<Output = ()>>>);

impl Pause {
    pub(super) fn new(future: Pin<Box<dyn Future<Output = ()>>>) -> Self {
        Self(future)
    }

    /// Until so much time has passed, or what is asked is answered.
    pub(super) fn until(time: Duration, asking: Option<Asking>) -> Self {
        match asking {
            None => Self(Box::pin(tokio::time::sleep(time))),
            // Both ends are the same to whoever waits.
            Some(asking) => Self(Box::pin(async move {
                let _ = tokio::time::timeout(time, asking).await;
            })),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pause")
    }
}
