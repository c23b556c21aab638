//! The client's end of a connection to ourselves: messages out and in, both at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::StatusCode;
use tidegate_core::limits::HTTP_ROW_BYTES_MAX;
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tidegate_wire::frontend;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::answer::Failure;
use crate::stream::Stream;

/// Room for a read.
const READ_BYTES: usize = 32 << 10;

/// A connection that has logged in. Dropped in the middle of a statement, it has that cancelled.
pub(super) struct Line {
    stream: Stream,
    out: Vec<u8>,
    sent: usize,
    /// Initialized throughout; `taken..filled` is there to be read.
    input: Vec<u8>,
    taken: usize,
    filled: usize,
}

impl Line {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, out: Vec::new(), sent: 0, input: Vec::new(), taken: 0, filled: 0 }
    }

    /// Where to append what is to be sent; it goes out while the next message is waited for.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The next message: its type and body.
    ///
    /// # Errors
    /// The connection has ended, or the message is longer than a row may be.
    pub(super) async fn next(&mut self) -> Result<(u8, &[u8]), Failure> {
        let header = loop {
            let unread = &self.input[self.taken..self.filled];
            match Header::peek(unread, HTTP_ROW_BYTES_MAX) {
                Ok(Some(header)) if unread.len() >= header.frame_bytes() => break header,
                Ok(header) => {
                    let wanted = header.map_or(HEADER_BYTES, Header::frame_bytes);
                    self.make_room(wanted);
                    match poll_fn(|cx| self.poll(cx)).await {
                        Ok(0) | Err(_) => {
                            return Err(Failure::unavailable("the connection has ended early"));
                        }
                        Ok(_) => {}
                    }
                }
                Err(_) => {
                    let message = format!("a row is longer than {HTTP_ROW_BYTES_MAX} bytes");
                    return Err(Failure::new(StatusCode::INSUFFICIENT_STORAGE, "54000", message));
                }
            }
        };
        let begin = self.taken + HEADER_BYTES;
        self.taken += header.frame_bytes();
        Ok((header.tag, &self.input[begin..self.taken]))
    }

    /// Says goodbye. The other end is in this process and has room for five bytes.
    pub(super) async fn leave(mut self) {
        frontend::terminate(&mut self.out);
        poll_fn(|cx| {
            self.poll_send(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// For the rest of a message that takes so much, and more.
    fn make_room(&mut self, wanted: usize) {
        self.input.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        let room = wanted.max(self.filled + READ_BYTES);
        if self.input.len() < room {
            self.input.resize(room, 0);
        }
    }

    /// Sends what is there to be sent, and reads what has come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_send(cx);
        let mut room = ReadBuf::new(&mut self.input[self.filled..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.filled += read;
        Poll::Ready(Ok(read))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) {
        while self.sent < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(written)) if written > 0 => self.sent += written,
                Poll::Pending => return,
                // It reads no more: what it has said before is still to be read.
                Poll::Ready(_) => self.sent = self.out.len(),
            }
        }
        self.out.clear();
        self.sent = 0;
    }
}
