//! What the owner of a socket asks its ring for.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::task::{Context, Poll};

use io_uring::{opcode, types};
use rustix::io::Errno;
use rustix::net::Shutdown;
use slab::Slab;
use tokio::io::ReadBuf;

use super::io::{
    End, Io, Owner, Reads, Receiving, keep, now_or_never, receive, remember, send_now,
    set_nonblocking,
};
use super::provided;
use super::ring::{CANCEL_ROUNDS_MAX, Key, RECEIVE, Ring, SEND, user_data};

/// Bytes of one socket that have been accepted and have not gone out.
const OUT_BYTES_MAX: usize = 64 << 10;
/// What is at least so large is sent at once, from where it is, when nothing is before it.
pub(super) const DIRECT_BYTES_MIN: usize = 16 << 10;

impl Ring {
    pub(super) fn poll_read(
        &mut self,
        key: Key,
        buf: &mut ReadBuf<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(io) = io_of(self.id, &mut self.sockets, key) else { return not_connected() };
        if io.read < io.inbox.len() {
            let count = buf.remaining().min(io.inbox.len() - io.read);
            buf.put_slice(&io.inbox[io.read..io.read + count]);
            io.read += count;
            if io.read == io.inbox.len() {
                io.read = 0;
                keep(&mut self.spare, mem::take(&mut io.inbox));
            }
            return Poll::Ready(Ok(()));
        }
        if io.end.is_none() && io.reads == Reads::Direct && io.receiving == Receiving::No {
            match receive(io, buf) {
                Some(outcome) => return Poll::Ready(outcome),
                None => io.reads = Reads::Provided,
            }
        }
        match io.end {
            Some(End::Closed) => return Poll::Ready(Ok(())),
            Some(End::Failed(errno)) => return Poll::Ready(Err(errno.into())),
            None => {}
        }
        remember(&mut io.reader, cx);
        if io.receiving == Receiving::No {
            io.receiving = Receiving::Armed;
            let fd = types::Fd(io.socket.as_raw_fd());
            let entry = opcode::RecvMulti::new(fd, provided::GROUP).build();
            self.push(&entry.user_data(user_data(key.place, RECEIVE)));
        }
        Poll::Pending
    }

    pub(super) fn poll_write(
        &mut self,
        key: Key,
        bufs: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(io) = io_of(self.id, &mut self.sockets, key) else { return not_connected() };
        if let Some(errno) = io.failed {
            return Poll::Ready(Err(errno.into()));
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total >= DIRECT_BYTES_MIN && io.bytes_out() == 0 {
            match send_now(io, bufs) {
                Ok(count) => return Poll::Ready(Ok(count)),
                // It does not fit: the kernel waits, in our stead.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => {
                    io.failed = Some(errno);
                    return Poll::Ready(Err(errno.into()));
                }
            }
        }
        let mut room = OUT_BYTES_MAX.saturating_sub(io.bytes_out());
        if room == 0 {
            remember(&mut io.writer, cx);
            return Poll::Pending;
        }
        if io.next.capacity() == 0 {
            io.next = self.spare.pop().unwrap_or_default();
        }
        let before = io.next.len();
        for buf in bufs {
            let count = buf.len().min(room);
            io.next.extend_from_slice(&buf[..count]);
            room -= count;
        }
        let accepted = io.next.len() - before;
        self.list(key.place);
        Poll::Ready(Ok(accepted))
    }

    pub(super) fn poll_flush(&mut self, key: Key, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = io_of(self.id, &mut self.sockets, key) else { return not_connected() };
        if let Some(errno) = io.failed {
            return Poll::Ready(Err(errno.into()));
        }
        if io.bytes_out() > 0 {
            remember(&mut io.writer, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(&mut self, key: Key, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_flush(key, cx) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let Some(io) = io_of(self.id, &mut self.sockets, key) else { return not_connected() };
        Poll::Ready(rustix::net::shutdown(&io.socket, Shutdown::Write).map_err(io::Error::from))
    }

    /// Its owner has no more use for the socket: what is to go out goes as far as the kernel takes it at once.
    pub(super) fn abandon(&mut self, key: Key) {
        let Some(io) = io_of(self.id, &mut self.sockets, key) else { return };
        let key = key.place;
        io.owner = Owner::Gone;
        (io.reader, io.writer) = (None, None);
        if !io.is_sending && !io.next.is_empty() && io.failed.is_none() {
            let _ = rustix::net::send(&io.socket, &io.next, now_or_never());
        }
        io.next = Vec::new();
        let is_sending = io.is_sending;
        self.end_receiving(key);
        if is_sending {
            self.cancel(key, SEND);
        }
        self.remove_when_done(key);
    }

    /// Takes a socket at rest off the ring, so that another thread may have it.
    pub(super) fn leave(&mut self, key: Key) -> Option<OwnedFd> {
        io_of(self.id, &mut self.sockets, key)?;
        let key = key.place;
        self.end_receiving(key);
        for _ in 0..CANCEL_ROUNDS_MAX {
            if self.sockets.get(key)?.is_done() {
                break;
            }
            self.enter();
        }
        let io = self.sockets.get(key)?;
        if !io.is_done() || io.bytes_out() > 0 || !io.inbox.is_empty() || io.end.is_some() {
            return None;
        }
        let io = self.sockets.remove(key);
        set_nonblocking(&io.socket, true);
        Some(io.socket)
    }
}

/// The socket that a caller has the key of.
fn io_of(ring: u64, sockets: &mut Slab<Io>, key: Key) -> Option<&mut Io> {
    if key.ring == ring { sockets.get_mut(key.place) } else { None }
}

fn not_connected<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}
