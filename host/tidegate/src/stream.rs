//! One type for every byte stream Tidegate speaks PostgreSQL over: TCP, Unix socket, and TLS on either.
//!
//! `poll_read` and `poll_write_vectored` pass straight through to tokio, which tries the system call first and
//! registers interest only when it would block. Writes to TLS are buffered by rustls: call `poll_flush` after them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::uring::{self, Family, UringSocket};

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

    /// Onto this thread's ring, if it has one.
    fn on_ring(self) -> io::Result<Self> {
        let (fd, family) = match self {
            Socket::Tcp(tcp) => (tcp.into_std()?.into(), Family::Tcp),
            Socket::Unix(unix) => (unix.into_std()?.into(), Family::Unix),
            Socket::Uring(socket) => return Ok(Socket::Uring(socket)),
        };
        match (UringSocket::adopt(fd, family), family) {
            (Ok(socket), _) => Ok(Socket::Uring(socket)),
            (Err(fd), Family::Tcp) => LeftSocket::Tcp(fd.into()).arrive(),
            (Err(fd), Family::Unix) => LeftSocket::Unix(fd.into()).arrive(),
        }
    }
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
    /// A plain stream goes on this thread's ring, if it has one, when its login is over.
    pub fn settle(self) -> io::Result<Self> {
        match self {
            Stream::Plain(socket) if uring::is_installed() => socket.on_ring().map(Stream::Plain),
            other => Ok(other),
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
        uring::count_read();
        on_stream!(self, s => s.poll_read(cx, buf))
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
