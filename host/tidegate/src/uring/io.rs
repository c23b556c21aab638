//! One socket on a ring, and the calls that are made on it directly.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::task::{Context, Waker};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::ReadBuf;

/// Empty byte vectors kept for the next message.
const SPARE_MAX: usize = 256;
/// A vector with more room than this is not kept.
const SPARE_BYTES_MAX: usize = 16 << 10;

/// What the kernel does to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    No,
    /// Completions come as bytes do.
    Armed,
    /// Some may still come.
    Ending,
}

/// How a socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// By the kernel, into its buffers.
    Provided,
    /// By its reader, into the reader's: it has much to say.
    Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Failed(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Here,
    /// It closes when nothing is under way.
    Gone,
}

/// One socket. It stays, and its descriptor open, as long as the kernel has a request of it.
pub(super) struct Io {
    pub(super) socket: OwnedFd,
    pub(super) owner: Owner,
    pub(super) receiving: Receiving,
    pub(super) reads: Reads,
    /// Received and not read.
    pub(super) inbox: Vec<u8>,
    pub(super) read: usize,
    pub(super) end: Option<End>,
    pub(super) reader: Option<Waker>,
    /// Accepted, to be sent with the next turn.
    pub(super) next: Vec<u8>,
    pub(super) is_listed: bool,
    /// With the kernel, which reads it; not touched until that send has completed.
    pub(super) sending: Vec<u8>,
    pub(super) sent: usize,
    pub(super) is_sending: bool,
    pub(super) failed: Option<Errno>,
    pub(super) writer: Option<Waker>,
}

impl Io {
    /// A socket that was just taken over.
    pub(super) fn new(socket: OwnedFd) -> Self {
        // A request to the ring waits where a call would block; a socket that must not block would have it fail.
        set_nonblocking(&socket, false);
        Self {
            socket,
            owner: Owner::Here,
            receiving: Receiving::No,
            reads: Reads::Provided,
            inbox: Vec::new(),
            read: 0,
            end: None,
            reader: None,
            next: Vec::new(),
            is_listed: false,
            sending: Vec::new(),
            sent: 0,
            is_sending: false,
            failed: None,
            writer: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.receiving == Receiving::No && !self.is_sending
    }

    pub(super) fn bytes_out(&self) -> usize {
        self.next.len() + self.sending.len() - self.sent
    }
}

pub(super) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Keeps a vector's memory for another message.
pub(super) fn keep(spare: &mut Vec<Vec<u8>>, mut bytes: Vec<u8>) {
    let room = bytes.capacity();
    if room > 0 && room <= SPARE_BYTES_MAX && spare.len() < SPARE_MAX {
        bytes.clear();
        spare.push(bytes);
    }
}

/// Reads what is there. `None` when nothing is.
pub(super) fn receive(io: &mut Io, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
    if buf.remaining() == 0 {
        return Some(Ok(()));
    }
    loop {
        match rustix::net::recv(&io.socket, buf.initialize_unfilled(), RecvFlags::DONTWAIT) {
            Ok((count, _)) => {
                buf.advance(count);
                if count == 0 {
                    io.end = Some(End::Closed);
                }
                return Some(Ok(()));
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return None,
            Err(errno) => {
                io.end = Some(End::Failed(errno));
                return Some(Err(errno.into()));
            }
        }
    }
}

pub(super) fn send_now(io: &Io, bufs: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let mut nothing = SendAncillaryBuffer::default();
    rustix::net::sendmsg(&io.socket, bufs, &mut nothing, now_or_never())
}

pub(super) fn now_or_never() -> SendFlags {
    SendFlags::DONTWAIT | SendFlags::NOSIGNAL
}

pub(super) fn set_nonblocking(socket: &OwnedFd, nonblocking: bool) {
    // Of an open descriptor this cannot fail.
    let _ = rustix::io::ioctl_fionbio(socket, nonblocking);
}
