//! One thread's ring: what each of its sockets has under way, and what came of it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::task::{Context, Poll, Waker};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use slab::Slab;
use tokio::io::ReadBuf;

use super::provided::{self, Provided};

/// Requests that wait to be told to the kernel; more are told it earlier.
const SUBMISSIONS: u32 = 1_024;
/// Completions that wait to be read; the kernel keeps what does not fit.
const COMPLETIONS: u32 = 8_192;
/// Bytes of one socket that have been accepted and have not gone out.
const OUT_BYTES_MAX: usize = 64 << 10;
/// Bytes received and not read after which no more are received: whoever sends shall wait.
const INBOX_BYTES_MAX: usize = 16 << 10;
/// What is at least so large is sent at once, from where it is, when nothing is before it.
pub(super) const DIRECT_BYTES_MIN: usize = 16 << 10;
/// Empty byte vectors kept for the next message.
const SPARE_MAX: usize = 256;
/// A vector with more room than this is not kept.
const SPARE_BYTES_MAX: usize = 16 << 10;
/// Calls of the kernel that one turn makes while there is more to do; then the tasks have theirs.
const ROUNDS_MAX: usize = 4;
/// Calls of the kernel until what was cancelled has ended, before it is given up.
const CANCEL_ROUNDS_MAX: usize = 16;

/// `IORING_ENTER_GETEVENTS`: completes what waits for this thread.
const ENTER_GETEVENTS: u32 = 1;

/// Which socket of which ring; never that of another while this one's owner has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// In the slab.
    place: usize,
    ring: u64,
}

impl Key {
    /// Of a socket that has left.
    pub(super) const NONE: Self = Self { place: usize::MAX, ring: 0 };
}

/// What a completion is of: the low byte of its user data.
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CANCEL: u64 = 3;

fn user_data(key: usize, operation: u64) -> u64 {
    (key as u64) << 8 | operation
}

/// What the kernel does to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    No,
    /// Completions come as bytes do.
    Armed,
    /// Some may still come.
    Ending,
}

/// How a socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// By the kernel, into its buffers.
    Provided,
    /// By its reader, into the reader's: it has much to say.
    Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Failed(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Here,
    /// It closes when nothing is under way.
    Gone,
}

/// One socket. It stays, and its descriptor open, as long as the kernel has a request of it.
struct Io {
    socket: OwnedFd,
    owner: Owner,
    receiving: Receiving,
    reads: Reads,
    /// Received and not read.
    inbox: Vec<u8>,
    read: usize,
    end: Option<End>,
    reader: Option<Waker>,
    /// Accepted, to be sent with the next turn.
    next: Vec<u8>,
    is_listed: bool,
    /// With the kernel, which reads it; not touched until that send has completed.
    sending: Vec<u8>,
    sent: usize,
    is_sending: bool,
    failed: Option<Errno>,
    writer: Option<Waker>,
}

impl Io {
    fn is_done(&self) -> bool {
        self.receiving == Receiving::No && !self.is_sending
    }

    fn bytes_out(&self) -> usize {
        self.next.len() + self.sending.len() - self.sent
    }
}

/// The ring of one thread.
pub(super) struct Ring {
    /// Other than any other's, and than that of [`Key::NONE`].
    id: u64,
    // Dropped before the memory that it was given.
    uring: IoUring,
    provided: Provided,
    sockets: Slab<Io>,
    /// Sockets with something to send.
    to_send: Vec<usize>,
    completed: VecDeque<(u64, i32, u32)>,
    woken: Vec<Waker>,
    spare: Vec<Vec<u8>>,
    /// Signalled by the kernel, watched by the runtime.
    signal: OwnedFd,
}

impl Ring {
    /// A ring, and the eventfd that is signalled when something has completed.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let provided = Provided::register(&uring.submitter())?;
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let signal = rustix::event::eventfd(0, flags)?;
        uring.submitter().register_eventfd(signal.as_raw_fd())?;
        let watched = signal.try_clone()?;
        static RINGS: AtomicU64 = AtomicU64::new(0);
        let ring = Self {
            id: 1 + RINGS.fetch_add(1, Ordering::Relaxed),
            uring,
            provided,
            sockets: Slab::new(),
            to_send: Vec::new(),
            completed: VecDeque::new(),
            woken: Vec::new(),
            spare: Vec::new(),
            signal,
        };
        Ok((ring, watched))
    }

    /// Takes a connected socket over.
    pub(super) fn add(&mut self, socket: OwnedFd) -> Key {
        // A request to the ring waits where a call would block; a socket that must not block would have it fail.
        set_nonblocking(&socket, false);
        let place = self.sockets.insert(Io {
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
        });
        Key { place, ring: self.id }
    }

    // --- what a socket's owner asks for ----------------------------------------------------------------

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

    // --- turns ------------------------------------------------------------------------------------------

    /// Tells the kernel what the tasks have asked for, and has it signal what completes from here on.
    ///
    /// Whom it wakes may be nobody, so the signal is always on in the end, and nothing that came before it is left.
    pub(super) fn submit_and_arm(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.submit_sends();
            if self.has_work() {
                self.enter();
                continue;
            }
            self.uring.completion().enable_eventfd();
            // What the kernel completed before it saw that was not signalled: it is looked for afterwards.
            fence(Ordering::SeqCst);
            if !self.has_work() {
                return;
            }
        }
        // There is ever more to do: the tasks shall have their turn, and this the next.
        self.uring.completion().enable_eventfd();
        let _ = rustix::io::write(&self.signal, &1_u64.to_ne_bytes());
    }

    /// Takes what has completed.
    pub(super) fn complete(&mut self) {
        self.uring.completion().disable_eventfd();
        if self.has_work() {
            self.enter();
        }
    }

    /// How many sockets it has.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Bytes that its sockets have received and nobody has read.
    #[cfg(test)]
    pub(super) fn bytes_received(&self) -> usize {
        self.sockets.iter().map(|(_, io)| io.inbox.len() - io.read).sum()
    }

    /// The tasks to wake.
    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }

    /// The list that [`Ring::take_woken`] gave, so that its memory serves again.
    pub(super) fn give_back_list(&mut self, list: Vec<Waker>) {
        if self.woken.is_empty() {
            self.woken = list;
        }
    }

    /// Ends all that is under way. What does not end keeps its memory, for the kernel may still use it.
    pub(super) fn close(mut self) {
        let keys: Vec<usize> = self.sockets.iter().map(|(key, _)| key).collect();
        for place in keys {
            self.abandon(Key { place, ring: self.id });
        }
        for _ in 0..CANCEL_ROUNDS_MAX {
            if self.sockets.is_empty() {
                return;
            }
            self.enter();
        }
        tracing::warn!(sockets = self.sockets.len(), "requests to the kernel did not end");
        mem::forget(self);
    }

    /// Is there anything that a call of the kernel would move on, or a completion unread?
    fn has_work(&mut self) -> bool {
        let submissions = self.uring.submission();
        if !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow() {
            return true;
        }
        drop(submissions);
        !self.uring.completion().is_empty()
    }

    fn submit_sends(&mut self) {
        let mut listed = mem::take(&mut self.to_send);
        for key in listed.drain(..) {
            let Some(io) = self.sockets.get_mut(key) else { continue };
            if mem::take(&mut io.is_listed) && !io.is_sending && !io.next.is_empty() {
                keep(&mut self.spare, mem::replace(&mut io.sending, mem::take(&mut io.next)));
                io.sent = 0;
                self.send(key);
            }
        }
        // Nothing was listed meanwhile: to send is not to complete.
        self.to_send = listed;
    }

    /// Asks the kernel to send what is left of `sending`.
    fn send(&mut self, key: usize) {
        let Some(io) = self.sockets.get_mut(key) else { return };
        io.is_sending = true;
        let left = &io.sending[io.sent..];
        let length = u32::try_from(left.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(io.socket.as_raw_fd()), left.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(&entry.user_data(user_data(key, SEND)));
    }

    fn end_receiving(&mut self, key: usize) {
        if let Some(io) = self.sockets.get_mut(key)
            && io.receiving == Receiving::Armed
        {
            io.receiving = Receiving::Ending;
            self.cancel(key, RECEIVE);
        }
    }

    fn cancel(&mut self, key: usize, operation: u64) {
        let entry = opcode::AsyncCancel::new(user_data(key, operation)).build();
        self.push(&entry.user_data(user_data(key, CANCEL)));
    }

    fn list(&mut self, key: usize) {
        if let Some(io) = self.sockets.get_mut(key)
            && !mem::replace(&mut io.is_listed, true)
        {
            self.to_send.push(key);
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what a request refers to outlives it. Its socket is closed, and its `sending` freed or changed, only
            // after the completion of the request has been read: `remove_when_done`, `leave`, `submit_sends` and
            // `complete_send` see to that, and `close` leaks what has not completed. Moving an `Io` in the slab does not
            // move the bytes of its vector. Receives use provided buffers, which are dropped after the ring.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            self.enter_kernel();
        }
    }

    /// Tells the kernel what was asked, lets it complete what it can, and takes that.
    fn enter(&mut self) {
        self.enter_kernel();
        let mut completed = mem::take(&mut self.completed);
        completed.extend(
            self.uring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())),
        );
        for (data, result, flags) in completed.drain(..) {
            let key = usize::try_from(data >> 8).unwrap_or(usize::MAX);
            match data & 0xff {
                RECEIVE => self.complete_receive(key, result, flags),
                SEND => self.complete_send(key, result),
                _ => {}
            }
        }
        self.completed = completed;
    }

    fn enter_kernel(&mut self) {
        let length = self.uring.submission().len();
        let to_submit = u32::try_from(length).unwrap_or(u32::MAX);
        // SAFETY: no argument is passed, so nothing but the queue is read, whose requests `push` vouches for.
        let entered = unsafe {
            self.uring.submitter().enter::<libc::sigset_t>(to_submit, 0, ENTER_GETEVENTS, None)
        };
        if let Err(error) = entered
            && !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
        {
            tracing::error!(%error, "io_uring does not take requests");
        }
    }

    // --- completions ------------------------------------------------------------------------------------

    fn complete_receive(&mut self, key: usize, result: i32, flags: u32) {
        let Some(io) = self.sockets.get_mut(key) else { return };
        let count = usize::try_from(result).unwrap_or(0);
        if let Some(id) = cqueue::buffer_select(flags) {
            if io.owner == Owner::Here {
                if io.inbox.capacity() == 0 {
                    io.inbox = self.spare.pop().unwrap_or_default();
                }
                io.inbox.extend_from_slice(self.provided.bytes(id, count));
            }
            self.provided.give_back(id);
        }
        if !cqueue::more(flags) {
            io.receiving = Receiving::No;
        }
        match result {
            0 => io.end = Some(End::Closed),
            // No buffer was free, or it was cancelled: whoever reads arms it anew.
            result if result < 0 => match Errno::from_raw_os_error(-result) {
                Errno::NOBUFS | Errno::CANCELED | Errno::AGAIN | Errno::INTR => {}
                errno => io.end = Some(End::Failed(errno)),
            },
            _ => {}
        }
        if count == provided::BYTES || io.inbox.len() - io.read >= INBOX_BYTES_MAX {
            io.reads = Reads::Direct;
        }
        self.woken.extend(io.reader.take());
        let is_gone = io.owner == Owner::Gone;
        if io.reads == Reads::Direct {
            self.end_receiving(key);
        }
        if is_gone {
            self.remove_when_done(key);
        }
    }

    fn complete_send(&mut self, key: usize, result: i32) {
        let Some(io) = self.sockets.get_mut(key) else { return };
        io.is_sending = false;
        if io.owner == Owner::Gone {
            return self.remove_when_done(key);
        }
        match usize::try_from(result) {
            Ok(count) => io.sent += count,
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) => {}
            Err(_) => {
                io.failed = Some(Errno::from_raw_os_error(-result));
                io.next.clear();
                io.sent = io.sending.len();
            }
        }
        if io.sent < io.sending.len() {
            return self.send(key);
        }
        io.sent = 0;
        keep(&mut self.spare, mem::take(&mut io.sending));
        let has_next = !io.next.is_empty();
        self.woken.extend(io.writer.take());
        if has_next {
            self.list(key);
        }
    }

    /// Closes a socket that nobody has and the kernel is done with.
    fn remove_when_done(&mut self, key: usize) {
        if self.sockets.get(key).is_some_and(|io| io.owner == Owner::Gone && io.is_done()) {
            drop(self.sockets.remove(key));
        }
    }
}

/// The socket that a caller has the key of.
fn io_of(ring: u64, sockets: &mut Slab<Io>, key: Key) -> Option<&mut Io> {
    if key.ring == ring { sockets.get_mut(key.place) } else { None }
}

fn not_connected<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Keeps a vector's memory for another message.
fn keep(spare: &mut Vec<Vec<u8>>, mut bytes: Vec<u8>) {
    let room = bytes.capacity();
    if room > 0 && room <= SPARE_BYTES_MAX && spare.len() < SPARE_MAX {
        bytes.clear();
        spare.push(bytes);
    }
}

/// Reads what is there. `None` when nothing is.
fn receive(io: &mut Io, buf: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
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

fn send_now(io: &Io, bufs: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let mut nothing = SendAncillaryBuffer::default();
    rustix::net::sendmsg(&io.socket, bufs, &mut nothing, now_or_never())
}

fn now_or_never() -> SendFlags {
    SendFlags::DONTWAIT | SendFlags::NOSIGNAL
}

fn set_nonblocking(socket: &OwnedFd, nonblocking: bool) {
    // Of an open descriptor this cannot fail.
    let _ = rustix::io::ioctl_fionbio(socket, nonblocking);
}
