//! Reads a server's messages one at a time, outside the data path: for logging in and for our own
//! questions.

use super::error::ConnectError;
use super::socket::send;
use crate::stream::Stream;
use std::io;
use tidegate_core::limits::SERVER_MESSAGE_BYTES_MAX;
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const READ_BYTES: usize = 4_096;

/// Messages of a stream, with the bytes read beyond the last one.
pub struct Messages<'a, S> {
    stream: &'a mut S,
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been handed out.
    taken: usize,
}

impl<'a, S: AsyncRead + Unpin> Messages<'a, S> {
    pub fn new(stream: &'a mut S) -> Self {
        Self { stream, buffer: Vec::new(), taken: 0 }
    }

    pub(super) fn stream(&mut self) -> &mut S {
        self.stream
    }

    /// Whether no byte has been read that was not handed out.
    pub(super) fn is_drained(&self) -> bool {
        self.taken == self.buffer.len()
    }

    /// The next message: its type and body. Cancel safe.
    pub async fn next(&mut self) -> Result<(u8, &[u8]), ConnectError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        loop {
            let header = Header::peek(&self.buffer, SERVER_MESSAGE_BYTES_MAX).map_err(|bad| {
                ConnectError::Protocol(format!(
                    "the server sent a message of type {:?} with length {}",
                    char::from(bad.tag),
                    bad.length
                ))
            })?;
            if let Some(header) = header
                && self.buffer.len() >= header.frame_bytes()
            {
                self.taken = header.frame_bytes();
                return Ok((header.tag, &self.buffer[HEADER_BYTES..self.taken]));
            }
            let mut chunk = [0; READ_BYTES];
            let bytes = self.stream.read(&mut chunk).await?;
            if bytes == 0 {
                let message = "the server closed the connection";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message).into());
            }
            self.buffer.extend_from_slice(&chunk[..bytes]);
        }
    }
}

impl Messages<'_, Stream> {
    /// Sends messages of ours.
    pub async fn send(&mut self, messages: &[u8]) -> Result<(), ConnectError> {
        Ok(send(self.stream, messages).await?)
    }
}
