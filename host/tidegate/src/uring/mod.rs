//! The data plane's reads and writes by io_uring: what one turn of a worker's tasks sends goes to the kernel by one
//! system call, and what arrives is received without one for each socket.
//!
//! ```text
//! tasks run -- they queue sends and receives -- before_park: one io_uring_enter -- epoll_wait -- after_unpark: completions wake tasks
//! ```
//!
//! A turn of one message has nothing to share, so with [`Use::Crowded`] sockets are on the ring only while turns bring several
//! (`crowd`), and by epoll otherwise: [`crate::stream::Stream::settle`] moves one that is at rest.
//!
//! tokio stays the runtime: an eventfd, which the kernel signals when something has completed, wakes its reactor. A
//! socket on the ring has the same traits as tokio's, so nothing above [`crate::stream`] knows which it has. Long results
//! leave the ring: a socket that fills a buffer is read by plain system calls into the reader's own large one, until it
//! runs dry; so is written what is larger than [`owner::DIRECT_BYTES_MIN`].

mod crowd; // does the ring pay?
mod io; // one socket
mod owner; // what its owner asks for
mod provided; // buffers that the kernel takes
mod ring; // what is under way, and what came of it
mod socket;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use ring::Ring;
pub use socket::{Family, UringSocket};

thread_local! {
    static RING: RefCell<Option<Ring>> = const { RefCell::new(None) };
}

/// Runs on this thread's ring, if there is one.
fn with_ring<T>(act: impl FnOnce(&mut Ring) -> T) -> Option<T> {
    // A thread that ends has no ring any more.
    RING.try_with(|ring| ring.borrow_mut().as_mut().map(act)).ok().flatten()
}

/// When sockets are on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Always,
    /// While so much happens at once that it pays.
    Crowded,
}

/// Shall this thread's sockets be on a ring now?
pub fn wants_sockets() -> bool {
    with_ring(|ring| ring.wants_sockets()) == Some(true)
}

/// This thread has a ring as long as this lives. To be dropped before the runtime; sockets that are left are closed by
/// that, and find no ring when they are dropped.
pub struct Installed {
    /// Wakes the reactor; never read, since each signal is an edge of its own.
    _signal: AsyncFd<OwnedFd>,
    on_this_thread: PhantomData<*const ()>,
}

/// Makes a ring for this thread, whose runtime calls [`before_park`] and [`after_unpark`]. An error where the kernel
/// has no io_uring, not enough of it (it takes Linux 6.1), or does not let this process use it.
pub fn install(usage: Use) -> std::io::Result<Installed> {
    let (ring, signal) = Ring::new(usage)?;
    // SAFETY: an OwnedFd is one descriptor, open for as long as it lives; the AsyncFd owns it, and we never take it out.
    let signal = unsafe { AsyncFd::register_with_interest(signal, Interest::READABLE)? };
    RING.with(|place| *place.borrow_mut() = Some(ring));
    Ok(Installed { _signal: signal, on_this_thread: PhantomData })
}

/// Would [`install`] succeed? Tried by a thread of its own: the end of a ring interrupts system calls of the one that made it.
pub fn try_out() -> std::io::Result<()> {
    let tried = std::thread::spawn(|| Ring::new(Use::Always).map(drop)).join();
    tried.unwrap_or_else(|_| Err(std::io::Error::other("the attempt failed")))
}

impl Drop for Installed {
    fn drop(&mut self) {
        let ring = RING.try_with(|place| place.borrow_mut().take()).ok().flatten();
        if let Some(ring) = ring {
            ring.close();
        }
    }
}

/// When the tasks have run: sends what they queued. To be called where the runtime is about to wait for events.
pub fn before_park() {
    turn(Ring::submit_and_arm);
}

/// When the runtime has waited: wakes the tasks whose sends and receives are done.
pub fn after_unpark() {
    turn(Ring::complete);
}

/// What a task's read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Bytes,
    Nothing,
}

/// For each read of a task that runs on this thread, of whatever socket: as long as tasks find something to read the
/// runtime does not wait, and those whose sockets are on the ring shall not be kept from theirs by that.
pub fn count_read(read: Read) {
    if with_ring(|ring| ring.count_read(read)) == Some(true) {
        turn(Ring::catch_up);
    }
}

fn turn(act: impl FnOnce(&mut Ring)) {
    let woken = with_ring(|ring| {
        act(ring);
        ring.take_woken()
    });
    let Some(mut woken) = woken else { return };
    // The ring is not borrowed here: to wake may be to drop a task, and with it a socket.
    for waker in woken.drain(..) {
        waker.wake();
    }
    with_ring(|ring| ring.give_back_list(woken));
}
