//! Sockets to servers: addresses, TLS as an sslmode wants it, and who could listen.

use super::error::ConnectError;
use super::login::Target;
use crate::config::ServerAddress;
use crate::stream::{Socket, Stream};
use crate::tls::{ALPN, SslMode, SslNegotiation, end_point, server_name};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_wire::auth::EndPoint;
use tidegate_wire::startup;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

/// Silence after which the system asks whether the server is still there, and how often it asks.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Whether to ask for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encrypt {
    Never,
    IfOffered,
    Always,
}

impl Encrypt {
    /// What an sslmode tries first, and what then if the server will not have it.
    pub(super) fn first_try(target: &Target) -> (Self, Option<Self>) {
        if matches!(target.address, ServerAddress::Unix { .. }) {
            return (Self::Never, None);
        }
        match target.tls.mode {
            SslMode::Disable => (Self::Never, None),
            SslMode::Allow => (Self::Never, Some(Self::Always)),
            SslMode::Prefer => (Self::IfOffered, Some(Self::Never)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Self::Always, None),
        }
    }
}

/// Whether a password in clear stays between us and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// TLS, the loopback, or a Unix socket.
    Private,
    Open,
}

/// Whether anybody could listen.
pub(super) fn line_of(stream: &Stream) -> Line {
    let local = match stream.socket() {
        Socket::Unix(_) => true,
        Socket::Tcp(tcp) => {
            tcp.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
        }
        // Its login is over.
        Socket::Uring(_) => false,
    };
    if local || stream.is_encrypted() { Line::Private } else { Line::Open }
}

/// What SCRAM over this line can be bound to.
pub(super) fn end_point_of(stream: &Stream) -> Option<EndPoint> {
    match stream {
        Stream::TlsConnected(tls) => {
            let certificates = tls.get_ref().1.peer_certificates()?;
            certificates.first().and_then(|certificate| end_point(certificate))
        }
        Stream::Plain(_) | Stream::TlsAccepted(_) => None,
    }
}

/// Writes and flushes: TLS keeps what is not flushed.
pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Connects, and encrypts when the server and `encrypt` agree.
pub(super) async fn open_stream(
    target: &Target,
    encrypt: Encrypt,
    deadline: Instant,
) -> Result<Stream, ConnectError> {
    let mut socket = open_socket(&target.address, deadline).await?;
    if encrypt == Encrypt::Never {
        return Ok(Stream::Plain(socket));
    }
    if target.tls.negotiation == SslNegotiation::Postgres
        && request_tls(&mut socket, encrypt).await? == Answer::No
    {
        return Ok(Stream::Plain(socket));
    }
    let host = match &target.address {
        ServerAddress::Tcp { host, .. } => host.as_str(),
        ServerAddress::Unix { .. } => "localhost",
    };
    let connector = tokio_rustls::TlsConnector::from(target.tls.config.clone());
    let stream = connector.connect(server_name(host), socket).await;
    let stream = stream.map_err(|error| ConnectError::Tls(error.to_string()))?;
    // Whoever does not know the protocol's name may be a server of another one (the ALPACA attack).
    let spoken = stream.get_ref().1.alpn_protocol();
    if target.tls.negotiation == SslNegotiation::Direct && spoken != Some(ALPN) {
        let reason = "the server does not negotiate ALPN, as sslnegotiation=direct needs";
        return Err(ConnectError::Tls(reason.to_owned()));
    }
    Ok(Stream::TlsConnected(Box::new(stream)))
}

/// What a server says to an SSLRequest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    /// And we go on without.
    No,
}

async fn request_tls(socket: &mut Socket, encrypt: Encrypt) -> Result<Answer, ConnectError> {
    let mut request = Vec::new();
    startup::ssl_request(&mut request);
    socket.write_all(&request).await?;
    // Exactly one byte is read: what an attacker put behind it goes to TLS, which will not take it
    // (CVE-2021-23222).
    let mut answer = [0];
    socket.read_exact(&mut answer).await?;
    match &answer {
        b"S" => Ok(Answer::Yes),
        b"N" if encrypt == Encrypt::IfOffered => Ok(Answer::No),
        b"N" => Err(ConnectError::Tls("the server does not offer TLS".to_owned())),
        // An error here is not authenticated: its text is not worth showing (CVE-2024-10977).
        b"E" => Err(ConnectError::Tls("the server answered with an error".to_owned())),
        _ => Err(ConnectError::Protocol("invalid answer to SSLRequest".to_owned())),
    }
}

async fn open_socket(address: &ServerAddress, deadline: Instant) -> Result<Socket, ConnectError> {
    match address {
        ServerAddress::Unix { dir, port } => {
            let path = dir.join(format!(".s.PGSQL.{port}"));
            Ok(Socket::Unix(UnixStream::connect(path).await?))
        }
        ServerAddress::Tcp { host, port } => {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), *port)).await?.collect();
            let mut last =
                io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
            for (index, address) in addresses.iter().enumerate() {
                // Each gets an equal part of the time, so that one that swallows packets does not
                // use it up.
                let left = deadline.saturating_duration_since(Instant::now());
                let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
                match timeout(share, TcpStream::connect(address)).await {
                    Ok(Ok(tcp)) => {
                        prepare(&tcp)?;
                        return Ok(Socket::Tcp(tcp));
                    }
                    Ok(Err(error)) => last = error,
                    Err(_) => last = io::ErrorKind::TimedOut.into(),
                }
            }
            Err(ConnectError::Unreachable(last))
        }
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive =
        socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}
