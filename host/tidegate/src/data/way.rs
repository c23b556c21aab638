//! One direction of a client's traffic: bytes in, bytes out, nothing copied between.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tidegate_core::session::gather::{Gather, Segment};
use tokio::io::AsyncWrite;

use super::buffers::{Buffers, Input};
use crate::stream::Stream;

/// Segments of one vectored write.
const SLICES_MAX: usize = 16;

/// One direction: what came in, how much of it is dealt with, and what goes out for it.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) input: Input,
    /// Bytes of the input that are dealt with but may still be referred to by `out`.
    pub(super) consumed: usize,
    /// Input needed before the session is asked again, what is dealt with included.
    pub(super) wanted: usize,
    pub(super) out: Gather,
}

impl Way {
    pub(super) fn new(input: Input) -> Self {
        Self { input, consumed: 0, wanted: 1, out: Gather::default() }
    }

    /// Sends what goes out, as far as the socket takes it. Ready when nothing is left.
    pub(super) fn poll_flush(
        &mut self,
        to: &mut Stream,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<u64>> {
        let mut sent = 0;
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut used = 0;
            for (slice, segment) in slices.iter_mut().zip(self.out.segments()) {
                *slice = IoSlice::new(match *segment {
                    Segment::Input { start, end } => &self.input.bytes()[start..end],
                    Segment::Own { start, end } => &self.out.own_bytes()[start..end],
                });
                used += 1;
            }
            let written = if used == 1 {
                Pin::new(&mut *to).poll_write(cx, &slices[0])
            } else {
                Pin::new(&mut *to).poll_write_vectored(cx, &slices[..used])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.out.sent(count);
                    sent += count as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if to.is_encrypted() && Pin::new(to).poll_flush(cx)?.is_pending() {
            return Poll::Pending;
        }
        self.settle_input(buffers);
        Poll::Ready(Ok(sent))
    }

    /// Nothing refers to the input any more: what is dealt with may go.
    pub(super) fn settle_input(&mut self, buffers: &Buffers) {
        if self.consumed > 0 {
            self.input.consume(self.consumed, buffers);
            self.wanted = self.wanted.saturating_sub(self.consumed);
            self.consumed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Socket;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt as _;

    /// More than the system takes for a reader that does not read.
    const BYTES: usize = 8 << 20;

    /// Otherwise what is left of a long result, when it is less than what was dealt with, is waited for in vain.
    #[tokio::test]
    async fn what_goes_out_late_is_no_longer_wanted() {
        let buffers = Buffers::default();
        let (ours, mut reader) = tokio::net::UnixStream::pair().unwrap();
        let mut to = Stream::Plain(Socket::Unix(ours));
        let mut way = Way::new(Input::default());
        way.input.extend(&vec![7; BYTES], &buffers);
        way.out.forward(0, BYTES);
        way.consumed = BYTES;
        let flush = |way: &mut Way, to: &mut Stream, cx: &mut Context<'_>| {
            way.poll_flush(to, &buffers, cx).map(Result::unwrap)
        };
        let at_once = poll_fn(|cx| Poll::Ready(flush(&mut way, &mut to, cx))).await;
        assert!(at_once.is_pending(), "all of it went out, so this shows nothing");
        way.wanted = 5 + way.consumed;
        let mut seen = vec![0; BYTES];
        let (_, read) =
            tokio::join!(poll_fn(|cx| flush(&mut way, &mut to, cx)), reader.read_exact(&mut seen));
        assert_eq!(read.unwrap(), BYTES);
        assert_eq!((way.wanted, way.consumed, way.input.len()), (5, 0, 0));
    }
}
