//! Bytes between a client and a server connection of its own, as they come: for replication.
//!
//! Each way has one buffer, which is read into only when what it held has gone out: whoever reads slowly holds back
//! whoever sends, and neither way waits for the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one way's buffer: some messages of WAL (at most 128 KiB each).
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes that were read and written since they were last asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub read: u64,
    pub written: u64,
}

/// One way: from where bytes are read to where they are written.
#[derive(Debug)]
pub struct Half {
    buffer: Box<[u8]>,
    /// What of the buffer was read and is not yet written.
    start: usize,
    end: usize,
    flush: Flush,
    moved: Moved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    Done,
    /// TLS keeps what is not flushed.
    Due,
}

impl Half {
    /// `first` has been read already and goes out before anything else.
    pub fn new(first: &[u8]) -> Self {
        let mut buffer = vec![0; BUFFER_BYTES.max(first.len())].into_boxed_slice();
        buffer[..first.len()].copy_from_slice(first);
        Self { buffer, start: 0, end: first.len(), flush: Flush::Done, moved: Moved::default() }
    }

    pub fn take_moved(&mut self) -> Moved {
        std::mem::take(&mut self.moved)
    }

    /// Moves what can be moved. Ready when `from` has ended and all that it sent has gone out.
    pub fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.start < self.end {
                let bytes = &self.buffer[self.start..self.end];
                let written = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += written;
                self.moved.written += written as u64;
                self.flush = Flush::Due;
            }
            if self.flush == Flush::Due {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                self.flush = Flush::Done;
            }
            let mut free = ReadBuf::new(&mut self.buffer);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut free))?;
            (self.start, self.end) = (0, free.filled().len());
            if self.end == 0 {
                return Poll::Ready(Ok(()));
            }
            self.moved.read += self.end as u64;
        }
    }
}

/// Which side ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Client,
    Server,
}

/// Moves bytes both ways until one side has ended or failed; `count` hears of what moved from the client, and from
/// the server.
///
/// Cancel safe only at the end: what was read and not written is lost with the future.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut S,
    server: &mut S,
    pending: &[u8],
    welcome: &[u8],
    mut count: impl FnMut(Moved, Moved),
) -> Ended {
    let (mut up, mut down) = (Half::new(pending), Half::new(welcome));
    poll_fn(|cx| {
        // The server first: what it says before it goes is the client's to know.
        let from_server = down.poll(server, client, cx);
        let from_client = up.poll(client, server, cx);
        count(up.take_moved(), down.take_moved());
        match (from_client, from_server) {
            (_, Poll::Ready(_)) => Poll::Ready(Ended::Server),
            (Poll::Ready(Ok(())), Poll::Pending) => Poll::Ready(Ended::Client),
            // It does not take what the client sends; what it said about that may still be on its way.
            (Poll::Ready(Err(_)), Poll::Pending) => Poll::Ready(Ended::Server),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    /// What a relay between two pipes of this size did, and their other ends.
    fn start(
        size: usize,
        pending: &'static [u8],
    ) -> (tokio::task::JoinHandle<(Ended, u64, u64)>, DuplexStream, DuplexStream) {
        let (client, mut near_client) = duplex(size);
        let (server, mut near_server) = duplex(size);
        let relaying = tokio::spawn(async move {
            let (mut up, mut down) = (0, 0);
            let ended = relay(&mut near_client, &mut near_server, pending, b"hello", |from, to| {
                up += from.written;
                down += to.written;
            })
            .await;
            (ended, up, down)
        });
        (relaying, client, server)
    }

    #[tokio::test]
    async fn what_was_read_before_goes_first_and_the_servers_last_words_arrive() {
        let (relaying, mut client, mut server) = start(64, b"pending ");
        client.write_all(b"more").await.unwrap();
        let mut seen = [0; 12];
        server.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"pending more");
        server.write_all(b" and goodbye").await.unwrap();
        drop(server);
        assert_eq!(relaying.await.unwrap(), (Ended::Server, 12, 17));
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "hello and goodbye");
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_it() {
        let (relaying, mut client, mut server) = start(64, b"");
        client.write_all(b"X").await.unwrap();
        drop(client);
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"X");
        // Whoever's end is met first: the client can be told nothing either way.
        relaying.await.unwrap();
    }

    #[tokio::test]
    async fn a_side_that_reads_nothing_holds_back_the_other_and_not_the_other_way() {
        let (relaying, mut client, mut server) = start(1_024, b"");
        let flood = vec![7; 1 << 20];
        // Nobody reads: the pipes and the one buffer are all that it takes.
        let sent = tokio::time::timeout(std::time::Duration::from_millis(200), async {
            let mut sent = 0;
            while sent < flood.len() {
                sent += server.write(&flood[sent..]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        assert!(sent.await.is_err(), "a megabyte went nowhere");
        client.write_all(b"still here").await.unwrap();
        let mut seen = [0; 10];
        server.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"still here");
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        let (ended, up, down) = relaying.await.unwrap();
        assert_eq!((ended, up, down), (Ended::Server, 10, rest.len() as u64));
        assert!(rest.len() <= 5 + BUFFER_BYTES + 2 * 1_024 + 1_024, "{}", rest.len());
    }
}
