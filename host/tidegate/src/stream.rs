//! One type for every byte stream Tidegate speaks PostgreSQL over: TCP, Unix socket, and TLS on either.
//!
//! `poll_read` and `poll_write_vectored` pass straight through to tokio, which tries the system call first and
//! registers interest only when it would block. Writes to TLS are buffered by rustls: call `poll_flush` after them.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::uring::{self, Family, Read, UringSocket};

/// A connected plain socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// One of them, on its thread's ring.
    Uring(UringSocket),
}

impl Socket {
    /// Takes it off this thread's reactor or ring, so that another thread may have it.
    pub fn leave(self) -> Result<LeftSocket, Self> {
        let left = match self {
            Socket::Tcp(tcp) => tcp.into_std().map(LeftSocket::Tcp),
            Socket::Unix(unix) => unix.into_std().map(LeftSocket::Unix),
            Socket::Uring(mut socket) => match (socket.leave(), socket.family()) {
                (Some(fd), Family::Tcp) => Ok(LeftSocket::Tcp(fd.into())),
                (Some(fd), Family::Unix) => Ok(LeftSocket::Unix(fd.into())),
                (None, _) => return Err(Socket::Uring(socket)),
            },
        };
        Ok(left.unwrap_or_else(LeftSocket::Failed))
    }

    /// Is it where this thread wants its sockets?
    fn is_settled(&self) -> bool {
        matches!(self, Socket::Uring(_)) == uring::wants_sockets()
    }

    /// Onto this thread's ring, or off it. One on which something is under way stays where it is, and one that is lost on
    /// the way, which takes a system out of memory or descriptors, is found closed by whoever reads it next.
    fn settle(&mut self) -> Settling {
        let moved = match self {
            Socket::Tcp(tcp) => on_ring(tcp.as_fd(), Family::Tcp),
            Socket::Unix(unix) => on_ring(unix.as_fd(), Family::Unix),
            Socket::Uring(socket) => match (socket.leave(), socket.family()) {
                (Some(fd), Family::Tcp) => LeftSocket::Tcp(fd.into()).arrive().ok(),
                (Some(fd), Family::Unix) => LeftSocket::Unix(fd.into()).arrive().ok(),
                (None, _) => None,
            },
        };
        let Some(moved) = moved else { return Settling::Stayed };
        *self = moved;
        Settling::Moved
    }
}

/// The same socket by another descriptor, since tokio's cannot be taken out of where it is.
fn on_ring(socket: BorrowedFd<'_>, family: Family) -> Option<Socket> {
    let fd = socket.try_clone_to_owned().ok()?;
    UringSocket::adopt(fd, family).ok().map(Socket::Uring)
}

/// A socket between two threads.
#[derive(Debug)]
pub enum LeftSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    /// The reactor did not let it go.
    Failed(io::Error),
}

impl LeftSocket {
    /// Puts it on this thread's reactor.
    pub fn arrive(self) -> io::Result<Socket> {
        match self {
            LeftSocket::Tcp(tcp) => Ok(Socket::Tcp(TcpStream::from_std(tcp)?)),
            LeftSocket::Unix(unix) => Ok(Socket::Unix(UnixStream::from_std(unix)?)),
            LeftSocket::Failed(error) => Err(error),
        }
    }
}

/// Whether [`Stream::settle`] has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    Stayed,
    Moved,
}

/// A plain or encrypted stream.
#[derive(Debug)]
pub enum Stream {
    Plain(Socket),
    /// TLS in which we are the server (towards clients).
    TlsAccepted(Box<tokio_rustls::server::TlsStream<Socket>>),
    /// TLS in which we are the client (towards PostgreSQL).
    TlsConnected(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl Stream {
    /// A plain stream goes where this thread wants its sockets. To be called when its login is over and while it is at rest:
    /// whoever waits for it to be readable has to ask anew when this says that it has moved.
    pub fn settle(&mut self) -> Settling {
        match self {
            Stream::Plain(socket) if !socket.is_settled() => socket.settle(),
            _ => Settling::Stayed,
        }
    }

    /// Pending: a read would find nothing, and the task is woken when one would. Ready: it may find something.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Plain(Socket::Tcp(tcp)) => tcp.poll_read_ready(cx).map(drop),
            Stream::Plain(Socket::Unix(unix)) => unix.poll_read_ready(cx).map(drop),
            // Only the read itself tells.
            Stream::Plain(Socket::Uring(_)) | Stream::TlsAccepted(_) | Stream::TlsConnected(_) => {
                Poll::Ready(())
            }
        }
    }

    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Stream::Plain(_))
    }

    pub fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::TlsAccepted(tls) => tls.get_ref().0,
            Stream::TlsConnected(tls) => tls.get_ref().0,
        }
    }
}

macro_rules! on_socket {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp(inner) => {
                let $inner = Pin::new(inner);
                $call
            }
            Socket::Unix(inner) => {
                let $inner = Pin::new(inner);
                $call
            }
            Socket::Uring(inner) => {
                let $inner = Pin::new(inner);
                $call
            }
        }
    };
}

macro_rules! on_stream {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain(inner) => {
                let $inner = Pin::new(inner);
                $call
            }
            Stream::TlsAccepted(inner) => {
                let $inner = Pin::new(inner.as_mut());
                $call
            }
            Stream::TlsConnected(inner) => {
                let $inner = Pin::new(inner.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_socket!(self, s => s.poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_socket!(self, s => s.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_socket!(self, s => s.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, s => s.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, s => s.poll_shutdown(cx))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = on_stream!(self, s => s.poll_read(cx, buf));
        uring::count_read(if buf.filled().len() > before { Read::Bytes } else { Read::Nothing });
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, s => s.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, s => s.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, s => s.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, s => s.poll_shutdown(cx))
    }
}
