//! Read buffers, lent by the worker while bytes wait in them: an idle connection holds none.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use tokio::io::{AsyncRead, ReadBuf};

use crate::stream::Stream;

/// Bytes of an ordinary read buffer: a typical statement or result fits many times.
const BUFFER_BYTES: usize = 16 << 10;
/// Bytes of the buffer that follows a read that filled one: results of megabytes cost fewer system calls.
const LARGE_BUFFER_BYTES: usize = 128 << 10;
/// Unused buffers of each size a worker keeps.
const KEPT_MAX: usize = 64;

/// The unused buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    ordinary: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
}

impl Buffers {
    fn take(&self, bytes: usize) -> Box<[u8]> {
        let (kept, size) = if bytes <= BUFFER_BYTES {
            (&self.ordinary, BUFFER_BYTES)
        } else if bytes <= LARGE_BUFFER_BYTES {
            (&self.large, LARGE_BUFFER_BYTES)
        } else {
            return vec![0; bytes].into_boxed_slice();
        };
        kept.borrow_mut().pop().unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let kept = match buffer.len() {
            BUFFER_BYTES => &self.ordinary,
            LARGE_BUFFER_BYTES => &self.large,
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}

/// The bytes read from one side and not yet dealt with.
#[derive(Debug, Default)]
pub struct Input {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read filled the buffer: more is on its way.
    filled: Filled,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Filled {
    #[default]
    No,
    Yes,
}

impl Input {
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that were read before this input existed.
    pub fn extend(&mut self, bytes: &[u8], buffers: &Buffers) {
        if bytes.is_empty() {
            return;
        }
        self.make_room(bytes.len(), buffers);
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Puts bytes before those that are there.
    pub fn put_back(&mut self, bytes: &[u8], buffers: &Buffers) {
        let length = self.len();
        self.extend(bytes, buffers);
        self.buffer[self.start..self.end].rotate_left(length);
    }

    /// Drops the first `count` bytes; gives the buffer back when none is left.
    pub fn consume(&mut self, count: usize, buffers: &Buffers) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if !self.buffer.is_empty() {
                buffers.give_back(mem::take(&mut self.buffer));
            }
        }
    }

    /// Keeps the first `count` bytes.
    pub fn truncate(&mut self, count: usize) {
        self.end = self.end.min(self.start + count);
    }

    /// Is there room to read ahead without a larger buffer?
    pub fn has_room(&self) -> bool {
        self.buffer.is_empty() || self.end < self.buffer.len() || self.start > 0
    }

    /// Reads once, so that `wanted` bytes may come to be there. `Ok(0)` is the end of the stream.
    pub fn poll_read(
        &mut self,
        stream: &mut Stream,
        wanted: usize,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if stream.poll_readable(cx).is_pending() {
            self.filled = Filled::No;
            return Poll::Pending;
        }
        let wanted = match self.filled {
            Filled::Yes if self.is_empty() => wanted.max(LARGE_BUFFER_BYTES),
            _ => wanted,
        };
        self.make_room(wanted.saturating_sub(self.len()).max(1), buffers);
        let mut room = ReadBuf::new(&mut self.buffer[self.end..]);
        let capacity = room.remaining();
        let outcome = Pin::new(stream).poll_read(cx, &mut room);
        let count = room.filled().len();
        self.end += count;
        self.filled = if count == capacity { Filled::Yes } else { Filled::No };
        if self.is_empty() {
            buffers.give_back(mem::take(&mut self.buffer));
            self.start = 0;
            self.end = 0;
        }
        ready!(outcome)?;
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self, more: usize, buffers: &Buffers) {
        if self.buffer.len() - self.end >= more {
            return;
        }
        let length = self.len();
        if self.start > 0 && self.buffer.len() - length >= more {
            self.buffer.copy_within(self.start..self.end, 0);
        } else {
            // Doubling keeps the copying in proportion when a large message comes in small pieces.
            let doubled = if length == 0 { 0 } else { self.buffer.len() * 2 };
            let mut larger =
                buffers.take((length + more).max(doubled.min(length + more + (64 << 20))));
            larger[..length].copy_from_slice(&self.buffer[self.start..self.end]);
            buffers.give_back(mem::replace(&mut self.buffer, larger));
        }
        self.start = 0;
        self.end = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_moving_and_growing() {
        let buffers = Buffers::default();
        let mut input = Input::default();
        let all: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
        for chunk in all.chunks(1_700) {
            input.extend(chunk, &buffers);
        }
        assert_eq!(input.bytes(), &all[..]);
        input.consume(20_000, &buffers);
        input.extend(&all[..9_000], &buffers);
        assert_eq!(input.bytes(), [&all[20_000..], &all[..9_000]].concat());
        input.put_back(&all[..20_000], &buffers);
        assert_eq!(input.bytes(), [&all[..], &all[..9_000]].concat());
        input.consume(input.len(), &buffers);
        assert!(input.buffer.is_empty(), "an empty input holds no buffer");
    }
}
