//! What goes out: to the server, and to the client, when whatever has to happen before has happened.

use std::task::{Context, Poll};

use tidegate_core::session::CloseReason;

use super::Connection;
use super::lent::Lent;
use crate::sharing::poll_open;

impl Connection {
    pub(super) fn flush_to_server(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Lent { lease, .. }) = &mut self.lent else {
            self.from_client.give_up(&self.worker.buffers);
            return Poll::Ready(());
        };
        // No commit before all who share have heard that it comes.
        if poll_open(&mut self.gates.to_server, cx).is_pending() {
            return Poll::Pending;
        }
        match self.from_client.poll_flush(&mut lease.server.stream, &self.worker.buffers, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            // What the server said before it closed is still to be read; reading finds the end.
            Poll::Ready(Err(_)) => {
                self.from_client.give_up(&self.worker.buffers);
                Poll::Ready(())
            }
        }
    }

    pub(super) fn flush_to_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Nor its success before what it has changed is served nowhere, and read again.
        if poll_open(&mut self.gates.to_client, cx).is_pending()
            || self.poll_reread(cx).is_pending()
        {
            return Poll::Pending;
        }
        let flushed = self.from_server.poll_flush(&mut self.stream, &self.worker.buffers, cx);
        self.worker.stats.bytes_to_clients.add(self.from_server.take_sent());
        match flushed {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(_)) => {
                self.from_server.give_up(&self.worker.buffers);
                self.client_gone(CloseReason::ClientDisconnected, cx);
                Poll::Ready(())
            }
        }
    }
}
