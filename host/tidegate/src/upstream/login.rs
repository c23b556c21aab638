//! Connects to a server and logs in, up to its first ReadyForQuery; cancels; and asks small questions.
//!
//! Source: "Start-up" and "SSL Session Encryption" in PostgreSQL's protocol documentation, and `PQconnectPoll` in
//! `fe-connect.c` for the order in which sslmodes try.

use super::credentials::Credentials;
use super::error::{ConnectError, ServerError};
use super::messages::Messages;
use crate::stream::{Socket, Stream};
use crate::tls::{ServerTls, SslMode, server_name};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::limits::CONNECT_TIME_MAX;
use tidegate_wire::auth::{self, ClientFinal, ClientFirst, Request, SCRAM_SHA_256, ScramError};
use tidegate_wire::backend::{self, TransactionStatus, tag};
use tidegate_wire::{frontend, startup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};

/// Silence after which the system asks whether the server is still there, and how often it asks.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// The host may be a name with several addresses: each is tried.
    Tcp { host: String, port: u16 },
    /// The directory of the socket, and the port in its name.
    Unix { dir: PathBuf, port: u16 },
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port } => write!(f, "{}:{port}", dir.display()),
        }
    }
}

/// A server that connections can be opened to.
#[derive(Clone, Debug)]
pub struct Target {
    /// For people: `primary`, `replica-1`.
    pub name: Arc<str>,
    pub address: Address,
    pub tls: ServerTls,
}

/// A server connection that has just logged in: idle, and with no byte left to read.
#[derive(Debug)]
pub struct NewServer {
    pub stream: Stream,
    /// Some poolers send none: then there is no way to cancel.
    pub backend_key: Option<BackendKey>,
    /// What ParameterStatus said, in order.
    pub parameters: Vec<(String, String)>,
}

/// What cancels a query.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendKey {
    pub pid: i32,
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackendKey({}, …)", self.pid)
    }
}

/// Connects and logs in, all within `CONNECT_TIME_MAX`.
pub async fn connect(
    target: &Target,
    database: &str,
    user: &str,
    credentials: &Credentials,
    parameters: &[(&str, &str)],
) -> Result<NewServer, ConnectError> {
    let login = Login { target, database, user, credentials, parameters };
    let deadline = Instant::now() + CONNECT_TIME_MAX;
    timeout_at(deadline, login.run(deadline)).await.map_err(|_| ConnectError::Timeout)?
}

/// Asks the server to cancel what the connection with `key` does; returns when the server has taken the request.
pub async fn cancel(target: &Target, key: &BackendKey) -> Result<(), ConnectError> {
    let deadline = Instant::now() + CONNECT_TIME_MAX;
    let run = async {
        let encrypt = Encrypt::first_try(target).0;
        let mut stream = open_stream(target, encrypt, deadline).await?;
        let mut request = Vec::new();
        startup::cancel_request(&mut request, key.pid, &key.secret);
        stream.write_all(&request).await?;
        stream.flush().await?;
        // The server closes when the signal has been sent; nothing is read from it. A reset means the same.
        let _ = stream.read(&mut [0]).await;
        Ok(())
    };
    timeout_at(deadline, run).await.map_err(|_| ConnectError::Timeout)?
}

/// Runs statements of our own and yields the rows of all of them, within `CONNECT_TIME_MAX`.
///
/// After an error the connection must not be used again.
pub async fn simple_query(
    server: &mut NewServer,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
    timeout(CONNECT_TIME_MAX, run_query(server, sql)).await.map_err(|_| ConnectError::Timeout)?
}

async fn run_query(
    server: &mut NewServer,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
    let mut query = Vec::new();
    frontend::query(&mut query, sql.as_bytes());
    server.stream.write_all(&query).await?;
    server.stream.flush().await?;
    let mut rows = Vec::new();
    let mut refused = None;
    let mut messages = Messages::new(&mut server.stream);
    loop {
        match messages.next().await? {
            (tag::DATA_ROW, body) => {
                let columns = backend::read_data_row(body).map_err(|_| malformed("DataRow"))?;
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                rows.push(columns.into_iter().map(|column| column.map(text)).collect());
            }
            (tag::ERROR_RESPONSE, body) => {
                let error = Box::new(ServerError::read(body));
                if error.severity == "FATAL" {
                    return Err(ConnectError::Refused(error));
                }
                refused = Some(error);
            }
            (tag::READY_FOR_QUERY, b"I") => break,
            (tag::READY_FOR_QUERY, _) => return Err(malformed("ReadyForQuery")),
            _ => {}
        }
    }
    match refused {
        Some(error) => Err(ConnectError::Refused(error)),
        // A notice in the same read would do it: too rare to be worth keeping the connection.
        None if !messages.is_drained() => Err(malformed("message after ReadyForQuery")),
        None => Ok(rows),
    }
}

// --- one attempt after another -----------------------------------------------------------------------

struct Login<'a> {
    target: &'a Target,
    database: &'a str,
    user: &'a str,
    credentials: &'a Credentials,
    parameters: &'a [(&'a str, &'a str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encrypt {
    Never,
    IfOffered,
    Always,
}

impl Encrypt {
    /// What an sslmode tries first, and what then if the server will not have it.
    fn first_try(target: &Target) -> (Self, Option<Self>) {
        if matches!(target.address, Address::Unix { .. }) {
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

/// Why an attempt failed, and whether the server had said how it wants us to authenticate.
struct Failure {
    error: ConnectError,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// The StartupMessage is sent: an error now comes from the server's rules on who may connect how.
    Asking,
    Authenticating,
}

impl Failure {
    /// Whether the other kind of line (encrypted or plain) may fare better: libpq's rule.
    fn depends_on_encryption(&self) -> bool {
        match (&self.error, self.stage) {
            (ConnectError::Tls(_), _) => true,
            (ConnectError::Refused(error), Stage::Asking) => error.sqlstate == "28000",
            _ => false,
        }
    }
}

impl Login<'_> {
    async fn run(&self, deadline: Instant) -> Result<NewServer, ConnectError> {
        let (first, second) = Encrypt::first_try(self.target);
        let failure = match self.attempt(first, deadline).await {
            Ok(server) => return Ok(server),
            Err(failure) => failure,
        };
        match second {
            Some(second) if failure.depends_on_encryption() => {
                match self.attempt(second, deadline).await {
                    Ok(server) => Ok(server),
                    // What the preferred way met tells more than that there is no other.
                    Err(Failure { error: ConnectError::Tls(_), .. }) => Err(failure.error),
                    Err(failure) => Err(failure.error),
                }
            }
            _ => Err(failure.error),
        }
    }

    async fn attempt(&self, encrypt: Encrypt, deadline: Instant) -> Result<NewServer, Failure> {
        let connecting = |error| Failure { error, stage: Stage::Connecting };
        let mut stream = open_stream(self.target, encrypt, deadline).await.map_err(connecting)?;
        let mut stage = Stage::Asking;
        match self.log_in(&mut stream, &mut stage).await {
            Ok((backend_key, parameters)) => Ok(NewServer { stream, backend_key, parameters }),
            Err(error) => Err(Failure { error, stage }),
        }
    }

    async fn log_in(
        &self,
        stream: &mut Stream,
        stage: &mut Stage,
    ) -> Result<(Option<BackendKey>, Vec<(String, String)>), ConnectError> {
        let private = is_private(stream);
        let mut out = Vec::new();
        let names = [("user", self.user), ("database", self.database)];
        startup::startup_message(
            &mut out,
            0,
            names.into_iter().chain(self.parameters.iter().copied()),
        );
        send(stream, &out).await?;
        let mut messages = Messages::new(stream);
        self.authenticate(&mut messages, private, stage).await?;
        await_ready(&mut messages).await
    }

    /// Answers the server's questions until it says AuthenticationOk.
    async fn authenticate(
        &self,
        messages: &mut Messages<'_, Stream>,
        line: Line,
        stage: &mut Stage,
    ) -> Result<(), ConnectError> {
        let mut scram = Scram::NotBegun;
        loop {
            let (message_tag, body) = messages.next().await?;
            let request = match message_tag {
                tag::AUTHENTICATION => {
                    auth::read_request(body).map_err(|_| malformed("Authentication"))?
                }
                tag::ERROR_RESPONSE => return Err(refused(body)),
                tag::NEGOTIATE_PROTOCOL_VERSION => {
                    check_negotiation(body)?;
                    continue;
                }
                tag::NOTICE_RESPONSE => continue,
                other => return Err(unexpected(other)),
            };
            let mut out = Vec::new();
            if request != Request::Ok {
                *stage = Stage::Authenticating;
            }
            match (request, scram) {
                (Request::Ok, Scram::NotBegun | Scram::Proven) => return Ok(()),
                (Request::CleartextPassword, Scram::NotBegun) => {
                    auth::write_password(&mut out, self.cleartext(line)?.as_bytes());
                    scram = Scram::NotBegun;
                }
                (Request::Md5Password { salt }, Scram::NotBegun) => {
                    let hash =
                        self.credentials.for_md5(self.user).ok_or_else(|| self.lacking("md5"))?;
                    let answer = auth::md5::answer(hash.reveal(), salt);
                    auth::write_password(&mut out, answer.as_bytes());
                    scram = Scram::NotBegun;
                }
                (request @ Request::Sasl { .. }, Scram::NotBegun) => {
                    if !request.offers(SCRAM_SHA_256) {
                        let reason = "the server offers no SASL mechanism that we know";
                        return Err(ConnectError::Policy(reason.to_owned()));
                    }
                    let secret =
                        self.credentials.for_scram().ok_or_else(|| self.lacking("SCRAM"))?;
                    let (state, data) = ClientFirst::start(secret, &nonce()?);
                    auth::write_sasl_initial(&mut out, SCRAM_SHA_256, data.as_bytes());
                    scram = Scram::First(state);
                }
                (Request::SaslContinue(data), Scram::First(state)) => {
                    let (state, data) = answer_scram(state, data.to_vec()).await?;
                    auth::write_sasl_response(&mut out, data.as_bytes());
                    scram = Scram::Final(state);
                }
                (Request::SaslFinal(data), Scram::Final(state)) => {
                    state.finish(data).map_err(scram_failed)?;
                    scram = Scram::Proven;
                }
                (Request::Other(code), _) => {
                    let reason = format!(
                        "the server wants authentication method {code}, which we do not have"
                    );
                    return Err(ConnectError::Policy(reason));
                }
                (request, _) => {
                    let reason = format!("the server sent {} out of turn", request_name(&request));
                    return Err(ConnectError::Protocol(reason));
                }
            }
            if !out.is_empty() {
                send(messages.stream(), &out).await?;
            }
            zeroize::Zeroize::zeroize(&mut out);
        }
    }

    fn cleartext(&self, line: Line) -> Result<&str, ConnectError> {
        match (self.credentials, line) {
            (Credentials::Password(password), Line::Private) => Ok(password.reveal()),
            (Credentials::Password(_), Line::Open) => Err(ConnectError::Policy(
                "the server wants the password in clear over an unencrypted line".to_owned(),
            )),
            _ => Err(self.lacking("a password")),
        }
    }

    fn lacking(&self, wanted: &str) -> ConnectError {
        let have = match self.credentials {
            Credentials::None => "nothing",
            Credentials::Password(_) => "a password",
            Credentials::Md5Hash(_) => "an md5 hash",
            Credentials::ScramKeys(_) => "SCRAM keys",
        };
        let user = self.user;
        ConnectError::Policy(format!(
            "the server wants {wanted} from user \"{user}\", and we have {have}"
        ))
    }
}

enum Scram {
    NotBegun,
    First(ClientFirst),
    Final(ClientFinal),
    Proven,
}

/// Whether a password in clear stays between us and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// TLS, the loopback, or a Unix socket.
    Private,
    Open,
}

fn is_private(stream: &Stream) -> Line {
    let local = match stream.socket() {
        Socket::Unix(_) => true,
        Socket::Tcp(tcp) => {
            tcp.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
        }
    };
    if local || stream.is_encrypted() { Line::Private } else { Line::Open }
}

/// Thousands of hashes: not on a thread that serves clients.
async fn answer_scram(
    state: ClientFirst,
    server_first: Vec<u8>,
) -> Result<(ClientFinal, String), ConnectError> {
    tokio::task::spawn_blocking(move || state.answer(&server_first))
        .await
        .map_err(|_| ConnectError::Protocol("SCRAM was interrupted".to_owned()))?
        .map_err(scram_failed)
}

fn scram_failed(error: ScramError) -> ConnectError {
    match error {
        ScramError::WrongServer => ConnectError::Policy(
            "the server could not prove that it knows the password: it may be an impostor"
                .to_owned(),
        ),
        ScramError::Iterations => {
            ConnectError::Policy("the server wants too many SCRAM iterations".to_owned())
        }
        error => ConnectError::Protocol(format!("SCRAM failed: {error:?}")),
    }
}

/// 144 random bits as text (PostgreSQL: SCRAM_RAW_NONCE_LEN).
pub(crate) fn nonce() -> io::Result<String> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads what follows AuthenticationOk, up to the first ReadyForQuery and whatever came along with it.
async fn await_ready(
    messages: &mut Messages<'_, Stream>,
) -> Result<(Option<BackendKey>, Vec<(String, String)>), ConnectError> {
    let mut backend_key = None;
    let mut parameters = Vec::new();
    let mut ready = false;
    while !ready || !messages.is_drained() {
        match messages.next().await? {
            (tag::PARAMETER_STATUS, body) => {
                let (name, value) = backend::read_parameter_status(body)
                    .map_err(|_| malformed("ParameterStatus"))?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                parameters.push((text(name), text(value)));
            }
            (tag::BACKEND_KEY_DATA, body) => {
                let (pid, secret) = backend::read_backend_key_data(body)
                    .map_err(|_| malformed("BackendKeyData"))?;
                if !(startup::SECRET_BYTES_MIN..=startup::SECRET_BYTES_MAX).contains(&secret.len())
                {
                    return Err(malformed("BackendKeyData"));
                }
                backend_key = Some(BackendKey { pid, secret: secret.to_vec() });
            }
            (tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE, _) => {}
            (tag::READY_FOR_QUERY, body) if !ready => {
                let status = body.first().copied().and_then(TransactionStatus::from_byte);
                if status != Some(TransactionStatus::Idle) {
                    return Err(malformed("ReadyForQuery"));
                }
                ready = true;
            }
            (tag::ERROR_RESPONSE, body) => return Err(refused(body)),
            (tag::NEGOTIATE_PROTOCOL_VERSION, body) if !ready => check_negotiation(body)?,
            (other, _) => return Err(unexpected(other)),
        }
    }
    Ok((backend_key, parameters))
}

/// We ask for 3.0 without options: a server that offers less speaks another protocol.
fn check_negotiation(body: &[u8]) -> Result<(), ConnectError> {
    let version = body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    // The documentation says "minor version", PostgreSQL sends major and minor.
    match version {
        Some(version) if version == 3 << 16 || version == 0 => Ok(()),
        _ => Err(malformed("NegotiateProtocolVersion")),
    }
}

fn request_name(request: &Request<'_>) -> &'static str {
    match request {
        Request::Ok => "AuthenticationOk",
        Request::CleartextPassword => "AuthenticationCleartextPassword",
        Request::Md5Password { .. } => "AuthenticationMD5Password",
        Request::Sasl { .. } => "AuthenticationSASL",
        Request::SaslContinue(_) => "AuthenticationSASLContinue",
        Request::SaslFinal(_) => "AuthenticationSASLFinal",
        Request::Other(_) => "an unknown Authentication message",
    }
}

fn refused(body: &[u8]) -> ConnectError {
    ConnectError::Refused(Box::new(ServerError::read(body)))
}

fn malformed(message: &str) -> ConnectError {
    ConnectError::Protocol(format!("the server sent a {message} that cannot be right"))
}

fn unexpected(message_tag: u8) -> ConnectError {
    let message_tag = char::from(message_tag);
    ConnectError::Protocol(format!("the server sent a message of type {message_tag:?} out of turn"))
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

// --- sockets -----------------------------------------------------------------------------------------

async fn open_stream(
    target: &Target,
    encrypt: Encrypt,
    deadline: Instant,
) -> Result<Stream, ConnectError> {
    let mut socket = open_socket(&target.address, deadline).await?;
    if encrypt == Encrypt::Never {
        return Ok(Stream::Plain(socket));
    }
    let mut request = Vec::new();
    startup::ssl_request(&mut request);
    socket.write_all(&request).await?;
    // Exactly one byte is read: what an attacker put behind it goes to TLS, which will not take it (CVE-2021-23222).
    let mut answer = [0];
    socket.read_exact(&mut answer).await?;
    match &answer {
        b"S" => {}
        b"N" if encrypt == Encrypt::IfOffered => return Ok(Stream::Plain(socket)),
        b"N" => return Err(ConnectError::Tls("the server does not offer TLS".to_owned())),
        // An error here is not authenticated: its text is not worth showing (CVE-2024-10977).
        b"E" => return Err(ConnectError::Tls("the server answered with an error".to_owned())),
        _ => return Err(ConnectError::Protocol("invalid answer to SSLRequest".to_owned())),
    }
    let host = match &target.address {
        Address::Tcp { host, .. } => host.as_str(),
        Address::Unix { .. } => "localhost",
    };
    let connector = tokio_rustls::TlsConnector::from(target.tls.config.clone());
    match connector.connect(server_name(host), socket).await {
        Ok(stream) => Ok(Stream::TlsConnected(Box::new(stream))),
        Err(error) => Err(ConnectError::Tls(error.to_string())),
    }
}

async fn open_socket(address: &Address, deadline: Instant) -> Result<Socket, ConnectError> {
    match address {
        Address::Unix { dir, port } => {
            let path = dir.join(format!(".s.PGSQL.{port}"));
            Ok(Socket::Unix(UnixStream::connect(path).await?))
        }
        Address::Tcp { host, port } => {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), *port)).await?.collect();
            let mut last =
                io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
            for (index, address) in addresses.iter().enumerate() {
                // Each gets an equal part of the time, so that one that swallows packets does not use it up.
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
