//! One direction of a client's traffic: bytes in, bytes out, nothing copied between.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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
    taken: Taken,
    /// Bytes that went out since they were last asked for.
    sent: u64,
}

/// Where the bytes are that a stream has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    BySystem,
    /// Some are encrypted, and wait for a flush.
    ByTls,
}

impl Way {
    pub(super) fn new(input: Input) -> Self {
        Self {
            input,
            consumed: 0,
            wanted: 1,
            out: Gather::default(),
            taken: Taken::BySystem,
            sent: 0,
        }
    }

    /// Has all that was to go out gone out?
    pub(super) fn is_clear(&self) -> bool {
        self.out.is_empty() && self.taken == Taken::BySystem
    }

    pub(super) fn take_sent(&mut self) -> u64 {
        mem::take(&mut self.sent)
    }

    /// Sends what goes out, as far as the socket takes it. Ready when nothing is left.
    pub(super) fn poll_flush(
        &mut self,
        to: &mut Stream,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.out.sent(count);
                    self.sent += count as u64;
                }
            }
            if to.is_encrypted() {
                self.taken = Taken::ByTls;
            }
        }
        // Before the flush, which may have to wait: what is dealt with must not be looked at again.
        self.settle_input(buffers);
        if self.taken == Taken::ByTls {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.taken = Taken::BySystem;
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing refers to the input any more: what is dealt with may go.
    pub(super) fn settle_input(&mut self, buffers: &Buffers) {
        if self.consumed > 0 {
            self.input.consume(self.consumed, buffers);
            self.wanted = self.wanted.saturating_sub(self.consumed);
            self.consumed = 0;
        }
    }

    /// What came in and is not dealt with is of no more use.
    pub(super) fn drop_unread(&mut self, buffers: &Buffers) {
        if self.consumed == 0 {
            self.input.consume(self.input.len(), buffers);
        } else {
            self.input.truncate(self.consumed);
        }
    }

    /// Both sides are gone: the buffer serves others.
    pub(super) fn end(&mut self, buffers: &Buffers) {
        self.out.clear();
        self.input.consume(self.input.len(), buffers);
    }

    /// Nothing goes out any more to where it was going.
    pub(super) fn give_up(&mut self, buffers: &Buffers) {
        self.out.clear();
        self.taken = Taken::BySystem;
        self.settle_input(buffers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Socket;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use std::future::poll_fn;
    use std::sync::Arc;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// More than the system takes for a reader that does not read.
    const BYTES: usize = 8 << 20;

    /// Both ends of a connection with TLS, the first as a server.
    async fn encrypted() -> (Stream, tokio_rustls::client::TlsStream<UnixStream>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let chain = vec![made.cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let (ours, theirs) = tokio::join!(
            TlsAcceptor::from(Arc::new(server.unwrap())).accept(Socket::Unix(ours)),
            TlsConnector::from(Arc::new(client)).connect(name, theirs)
        );
        (Stream::TlsAccepted(Box::new(ours.unwrap())), theirs.unwrap())
    }

    fn forward(way: &mut Way, bytes: &[u8], buffers: &Buffers) {
        way.input.extend(bytes, buffers);
        way.out.forward(0, bytes.len());
        way.consumed = bytes.len();
    }

    /// Otherwise it would be dealt with, and sent, twice.
    #[tokio::test]
    async fn what_tls_has_taken_is_no_longer_there_while_its_flush_waits() {
        const PIECE_BYTES: usize = 10_000;
        let buffers = Buffers::default();
        let (mut to, mut reader) = encrypted().await;
        let mut way = Way::new(Input::default());
        let mut sent = Vec::new();
        // Until it is TLS, not the system, that takes a piece and cannot get rid of it.
        for n in 0.. {
            let piece = [n as u8; PIECE_BYTES];
            forward(&mut way, &piece, &buffers);
            sent.extend_from_slice(&piece);
            let at_once = poll_fn(|cx| {
                Poll::Ready(way.poll_flush(&mut to, &buffers, cx).map(Result::unwrap))
            })
            .await;
            if at_once.is_pending() && way.out.is_empty() {
                break;
            }
            assert!(at_once.is_ready() && sent.len() < BYTES, "TLS has never held anything back");
        }
        assert_eq!((way.consumed, way.input.len()), (0, 0));
        assert!(!way.is_clear(), "some of it waits");
        let mut seen = vec![0; sent.len()];
        let (_, read) = tokio::join!(
            poll_fn(|cx| way.poll_flush(&mut to, &buffers, cx).map(Result::unwrap)),
            reader.read_exact(&mut seen)
        );
        read.unwrap();
        assert!(seen == sent && way.is_clear());
        assert_eq!(way.take_sent(), sent.len() as u64);
    }

    /// Otherwise what is left of a long result, when it is less than what was dealt with, is waited for in vain.
    #[tokio::test]
    async fn what_goes_out_late_is_no_longer_wanted() {
        let buffers = Buffers::default();
        let (ours, mut reader) = UnixStream::pair().unwrap();
        let mut to = Stream::Plain(Socket::Unix(ours));
        let mut way = Way::new(Input::default());
        forward(&mut way, &vec![7; BYTES], &buffers);
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
