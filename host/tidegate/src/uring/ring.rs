//! One thread's ring: what each of its sockets has under way, and what came of it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::task::Waker;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;
use slab::Slab;

use super::crowd::Crowd;
use super::io::{End, Io, Owner, Reads, Receiving, keep};
use super::provided::{self, Provided};
use super::{Read, Use};

/// Calls of the kernel until what was cancelled has ended, before it is given up.
pub(super) const CANCEL_ROUNDS_MAX: usize = 16;

/// Requests that wait to be told to the kernel; more are told it earlier.
const SUBMISSIONS: u32 = 1_024;
/// Completions that wait to be read; the kernel keeps what does not fit.
const COMPLETIONS: u32 = 8_192;
/// Bytes received and not read after which no more are received: whoever sends shall wait.
const INBOX_BYTES_MAX: usize = 16 << 10;
/// Calls of the kernel that one turn makes while there is more to do; then the tasks have theirs.
const ROUNDS_MAX: usize = 4;

/// Reads by a thread's tasks after which the kernel is told what they have asked for, although more of them are to run.
const READS_MAX: u32 = 256;

/// `IORING_ENTER_GETEVENTS`: completes what waits for this thread.
const ENTER_GETEVENTS: u32 = 1;

/// Which socket of which ring; never that of another while this one's owner has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// In the slab.
    pub(super) place: usize,
    pub(super) ring: u64,
}

impl Key {
    /// Of a socket that has left.
    pub(super) const NONE: Self = Self { place: usize::MAX, ring: 0 };
}

/// What a completion is of: the low byte of its user data.
pub(super) const RECEIVE: u64 = 1;
pub(super) const SEND: u64 = 2;
const CANCEL: u64 = 3;

pub(super) fn user_data(key: usize, operation: u64) -> u64 {
    (key as u64) << 8 | operation
}

/// The ring of one thread.
pub(super) struct Ring {
    /// Other than any other's, and than that of [`Key::NONE`].
    pub(super) id: u64,
    // Dropped before the memory that it was given.
    uring: IoUring,
    provided: Provided,
    pub(super) sockets: Slab<Io>,
    /// Sockets with something to send.
    to_send: Vec<usize>,
    /// Completions that have been taken and not dealt with, in the kernel's order.
    completed: VecDeque<(u64, i32, u32)>,
    pub(super) woken: Vec<Waker>,
    pub(super) spare: Vec<Vec<u8>>,
    /// Since the kernel was last told.
    reads: u32,
    usage: Use,
    crowd: Crowd,
    /// Signalled by the kernel, watched by the runtime.
    signal: OwnedFd,
}

impl Ring {
    /// A ring, and the eventfd that is signalled when something has completed.
    pub(super) fn new(usage: Use) -> io::Result<(Self, OwnedFd)> {
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
            reads: 0,
            usage,
            crowd: Crowd::default(),
            signal,
        };
        Ok((ring, watched))
    }

    /// Takes a connected socket over.
    pub(super) fn add(&mut self, socket: OwnedFd) -> Key {
        let place = self.sockets.insert(Io::new(socket));
        Key { place, ring: self.id }
    }

    /// Tells the kernel what the tasks have asked for, and has it signal what completes from here on.
    ///
    /// Whom it wakes may be nobody, so the signal is always on in the end, and nothing that came before it is left.
    pub(super) fn submit_and_arm(&mut self) {
        self.reads = 0;
        self.crowd.handle_turn();
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

    /// Counts a read of a task: is it time to [`Ring::catch_up`]?
    pub(super) fn count_read(&mut self, read: Read) -> bool {
        if read == Read::Bytes {
            self.crowd.handle_message();
        }
        self.reads += 1;
        self.reads >= READS_MAX
    }

    /// Tells the kernel what the tasks have asked for, and deals with what has completed, while tasks still run.
    pub(super) fn catch_up(&mut self) {
        self.reads = 0;
        self.submit_sends();
        self.enter();
    }

    /// Takes what has completed.
    pub(super) fn complete(&mut self) {
        self.uring.completion().disable_eventfd();
        if self.has_work() {
            self.enter();
        }
    }

    #[cfg(test)]
    pub(super) fn set_use(&mut self, usage: Use) {
        self.usage = usage;
    }

    /// Asks for so many things that come to nothing.
    #[cfg(test)]
    pub(super) fn crowd(&mut self, requests: usize) {
        for _ in 0..requests {
            self.cancel(1 << 40, RECEIVE);
        }
    }

    pub(super) fn wants_sockets(&self) -> bool {
        self.usage == Use::Always || self.crowd.is_there()
    }

    /// How many sockets it has.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Bytes that its sockets hold for their readers.
    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.sockets.iter().map(|(_, io)| io.inbox.len()).sum()
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
        if !self.completed.is_empty() {
            return true;
        }
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
        // Nothing was listed meanwhile: to ask the kernel is not to deal with what it has completed.
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

    pub(super) fn end_receiving(&mut self, key: usize) {
        if let Some(io) = self.sockets.get_mut(key)
            && io.receiving == Receiving::Armed
        {
            io.receiving = Receiving::Ending;
            self.cancel(key, RECEIVE);
        }
    }

    pub(super) fn cancel(&mut self, key: usize, operation: u64) {
        let entry = opcode::AsyncCancel::new(user_data(key, operation)).build();
        self.push(&entry.user_data(user_data(key, CANCEL)));
    }

    pub(super) fn list(&mut self, key: usize) {
        if let Some(io) = self.sockets.get_mut(key)
            && !mem::replace(&mut io.is_listed, true)
        {
            self.to_send.push(key);
        }
    }

    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what a request refers to outlives it. Its socket is closed, and its `sending` freed or changed, only
            // after the completion of the request has been read: `remove_when_done`, `leave`, `submit_sends` and
            // `complete_send` see to that, and `close` leaks what has not completed. Moving an `Io` in the slab does not
            // move the bytes of its vector. Receives use provided buffers, which are dropped after the ring.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            // Where completions pile up the kernel may take no more (EBUSY), so they are taken as well, and dealt with later.
            self.enter_kernel();
        }
    }

    /// Tells the kernel what was asked, lets it complete what it can, and deals with that.
    pub(super) fn enter(&mut self) {
        self.enter_kernel();
        while let Some((data, result, flags)) = self.completed.pop_front() {
            let key = usize::try_from(data >> 8).unwrap_or(usize::MAX);
            match data & 0xff {
                RECEIVE => self.complete_receive(key, result, flags),
                SEND => self.complete_send(key, result),
                _ => {}
            }
        }
    }

    /// Tells the kernel what was asked, and takes what it has completed.
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
        let completions = self.uring.completion();
        self.completed
            .extend(completions.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
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
                // What has been read goes first, so that the room stays bounded with what has not.
                io.inbox.drain(..mem::take(&mut io.read));
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
    pub(super) fn remove_when_done(&mut self, key: usize) {
        if self.sockets.get(key).is_some_and(|io| io.owner == Owner::Gone && io.is_done()) {
            drop(self.sockets.remove(key));
        }
    }
}
