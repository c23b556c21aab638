//! Buffers that the kernel takes for what arrives, so that a connection at rest holds none.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers of one worker; a power of two. All are given back before the kernel is asked again, so this bounds only what
/// one turn receives; a socket that finds none is armed anew.
const COUNT: u16 = 512;
/// Bytes of a buffer. A message that fills one is followed by others: then its socket is read directly.
pub(super) const BYTES: usize = 4 << 10;
/// The group's number; there is no other.
pub(super) const GROUP: u16 = 1;

/// The kernel wants the ring at the beginning of a page; no page is larger than this on the platforms that have io_uring.
const PAGE_BYTES: usize = 64 << 10;

/// The ring of buffers that are free, and their memory.
pub(super) struct Provided {
    ring: Memory,
    buffers: Memory,
    /// Entries ever written to the ring, modulo 2^16, as the kernel counts them.
    tail: u16,
}

impl Provided {
    /// Gives the kernel all buffers. The caller keeps the value as long as the ring of `submitter`.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let ring = Memory::new(usize::from(COUNT) * size_of::<BufRingEntry>())?;
        let buffers = Memory::new(usize::from(COUNT) * BYTES)?;
        // SAFETY: the ring begins a page and has room for COUNT entries, and it lives as long as this value, which the
        // caller drops after the io_uring; a value that is dropped earlier was never registered, or is unregistered.
        unsafe {
            submitter.register_buf_ring_with_flags(ring.start() as u64, COUNT, GROUP, 0)?;
        }
        let mut provided = Self { ring, buffers, tail: 0 };
        for id in 0..COUNT {
            provided.give_back(id);
        }
        Ok(provided)
    }

    /// The bytes of a buffer that a completion handed over.
    pub(super) fn bytes(&self, id: u16, length: usize) -> &[u8] {
        assert!(id < COUNT && length <= BYTES, "the kernel named a buffer that does not exist");
        // SAFETY: inside the memory, by the assertion, and initialised, since it was zeroed when it was made. The kernel
        // writes to a buffer only between the moment it is put into the ring and the completion that names it; between
        // that completion and `give_back`, which takes `&mut self` and so ends this borrow, it is ours alone.
        unsafe {
            let start = self.buffers.start().add(usize::from(id) * BYTES);
            std::slice::from_raw_parts(start, length)
        }
    }

    /// The kernel may use the buffer again.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < COUNT, "the kernel named a buffer that does not exist");
        let entries: *mut BufRingEntry = self.ring.start().cast();
        let place = usize::from(self.tail % COUNT);
        // SAFETY: `place` is below COUNT, for which the ring has room, and the ring is aligned to a page. The kernel reads
        // an entry only after the tail has moved past it, which happens below with Release; at most COUNT entries are
        // ever unread, since each buffer is given back once for each time it was taken. Writing an entry's address,
        // length and id leaves the tail alone, which lies in the reserved part of the first.
        let tail = unsafe {
            let entry = &mut *entries.add(place);
            entry.set_addr(self.buffers.start().add(usize::from(id) * BYTES) as u64);
            entry.set_len(BYTES as u32);
            entry.set_bid(id);
            AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut())
        };
        self.tail = self.tail.wrapping_add(1);
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed memory that begins a page.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(bytes: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(io::Error::other)?;
        // SAFETY: the size is not zero: both callers ask for COUNT times something.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Ok(Self { start, layout }),
            None => handle_alloc_error(layout),
        }
    }

    fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
