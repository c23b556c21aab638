//! A connected socket on this thread's ring, with the traits that the rest of Tidegate reads and writes by.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;

use super::ring::{Key, Ring};
use super::with_ring;

/// What a socket is, besides its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Tcp,
    Unix,
}

/// A socket on the ring of the thread that made it. On another thread it is not connected, and dropped there it stays
/// open until the ring is: what moves leaves the ring first, by [`UringSocket::leave`].
#[derive(Debug)]
pub struct UringSocket {
    key: Key,
    family: Family,
}

impl UringSocket {
    /// Puts a connected socket on this thread's ring; gives it back where there is none.
    pub fn adopt(socket: OwnedFd, family: Family) -> Result<Self, OwnedFd> {
        let mut left = Some(socket);
        let added = with_ring(|ring| left.take().map(|socket| ring.add(socket))).flatten();
        match left {
            None => Ok(Self { key: added.unwrap_or(Key::NONE), family }),
            Some(socket) => Err(socket),
        }
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// Takes the socket off the ring. `None`, and it stays, when something is on its way in or out.
    pub fn leave(&mut self) -> Option<OwnedFd> {
        let left = with_ring(|ring| ring.leave(self.key)).flatten();
        if left.is_some() {
            self.key = Key::NONE;
        }
        left
    }
}

impl Drop for UringSocket {
    fn drop(&mut self) {
        let _ = with_ring(|ring| ring.abandon(self.key));
    }
}

fn on_ring<T>(
    cx: &mut Context<'_>,
    act: impl FnOnce(&mut Ring, &mut Context<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    // What is always ready must let others have their turn, as tokio's own sockets do.
    let turn = ready!(poll_proceed(cx));
    let outcome = with_ring(|ring| act(ring, cx));
    let outcome = outcome.unwrap_or_else(|| Poll::Ready(Err(io::ErrorKind::NotConnected.into())));
    if outcome.is_ready() {
        turn.made_progress();
    }
    outcome
}

impl AsyncRead for UringSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_ring(cx, |ring, cx| ring.poll_read(self.key, buf, cx))
    }
}

impl AsyncWrite for UringSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_ring(cx, |ring, cx| ring.poll_write(self.key, &[IoSlice::new(buf)], cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_ring(cx, |ring, cx| ring.poll_write(self.key, bufs, cx))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_ring(cx, |ring, cx| ring.poll_flush(self.key, cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_ring(cx, |ring, cx| ring.poll_shutdown(self.key, cx))
    }
}
