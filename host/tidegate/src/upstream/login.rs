//! Connects to a server and logs in, up to its first ReadyForQuery; cancels; and asks small
//! questions.
//!
//! Source: "Start-up" and "SSL Session Encryption" in PostgreSQL's protocol documentation, and
//! `PQconnectPoll` in `fe-connect.c` for the order in which sslmodes try.

use super::authenticate::{Applicant, Stage, await_ready, malformed};
use super::credentials::Credentials;
use super::error::{ConnectError, ServerError};
use super::known::KnownKeys;
use super::messages::Messages;
use super::socket::{Encrypt, end_point_of, line_of, open_stream, send};
use crate::config::{ProtocolVersion, ServerAddress};
use crate::stream::Stream;
use crate::tls::{ChannelBinding, ServerTls};
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::limits::{CONNECT_TIME_MAX, LOGIN_TIME_MAX};
use tidegate_wire::backend::{self, tag};
use tidegate_wire::{frontend, startup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

/// A server that connections can be opened to.
#[derive(Clone, Debug)]
pub struct Target {
    /// For people: `primary`, `replica-1`.
    pub name: Arc<str>,
    pub address: ServerAddress,
    pub tls: ServerTls,
    /// Asked for at the login.
    pub protocol: ProtocolVersion,
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

/// Logs in over a stream that is connected: to this very process, for a client that came another way. `database` and `user`
/// are the names; keys of a password that was right before are among `known`.
pub async fn log_in_over(
    mut stream: Stream,
    (database, user): (&str, &str),
    (credentials, known): (&Credentials, &KnownKeys),
    parameters: &[(&str, &str)],
) -> Result<NewServer, ConnectError> {
    let (tls, protocol) = (ChannelBinding::Disable, ProtocolVersion::default());
    let applicant = Applicant {
        user,
        credentials,
        line: line_of(&stream),
        channel_binding: tls,
        end_point: None,
        protocol,
        known: Some(known),
    };
    let names = [("user", user), ("database", database)];
    let mut stage = Stage::Asking;
    let login = applicant.log_in(&mut stream, &names, parameters, &mut stage);
    // The other end has deadlines of its own, and may have to wait for a server.
    let (backend_key, parameters) =
        timeout(LOGIN_TIME_MAX, login).await.map_err(|_| ConnectError::Timeout)??;
    Ok(NewServer { stream, backend_key, parameters })
}

/// Asks the server to cancel what the connection with `key` does; returns when the server has taken
/// the request.
pub async fn cancel(target: &Target, key: &BackendKey) -> Result<(), ConnectError> {
    let deadline = Instant::now() + CONNECT_TIME_MAX;
    let run = async {
        let (first, second) = Encrypt::first_try(target);
        let mut stream = match (open_stream(target, first, deadline).await, second) {
            // As the session itself did.
            (Err(ConnectError::Tls(_)), Some(second)) => {
                open_stream(target, second, deadline).await?
            }
            (opened, _) => opened?,
        };
        let mut request = Vec::new();
        startup::cancel_request(&mut request, key.pid, &key.secret);
        send(&mut stream, &request).await?;
        // The server closes when the signal has been sent; nothing is read from it. A reset means
        // the same.
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

/// Runs one statement with one parameter, a text that no quoting has to keep in its place; yields at most
/// two rows.
///
/// After an error the connection must not be used again.
pub async fn bound_query(
    server: &mut NewServer,
    sql: &str,
    parameter: &str,
) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
    const NO_TYPES: &[u8] = &[0, 0];
    let mut out = Vec::new();
    frontend::parse(&mut out, b"", sql.as_bytes(), NO_TYPES);
    frontend::bind_text(&mut out, b"", b"", &[Some(parameter.as_bytes())]);
    frontend::execute(&mut out, b"", 2);
    frontend::sync(&mut out);
    let asked = collect_rows(server, &out);
    timeout(CONNECT_TIME_MAX, asked).await.map_err(|_| ConnectError::Timeout)?
}

async fn run_query(
    server: &mut NewServer,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
    let mut query = Vec::new();
    frontend::query(&mut query, sql.as_bytes());
    collect_rows(server, &query).await
}

/// Sends messages that end with ReadyForQuery, and yields the rows that come.
pub(super) async fn collect_rows(
    server: &mut NewServer,
    messages: &[u8],
) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
    send(&mut server.stream, messages).await?;
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

/// Says goodbye, so that the server does not log a lost connection.
pub async fn say_goodbye(mut server: NewServer) {
    const GOODBYE_TIME_MAX: Duration = Duration::from_millis(100);
    let mut out = Vec::new();
    frontend::terminate(&mut out);
    let goodbye = async {
        server.stream.write_all(&out).await?;
        server.stream.shutdown().await
    };
    // Nobody depends on it: the socket is closed either way.
    let _ = timeout(GOODBYE_TIME_MAX, goodbye).await;
}

// --- one attempt after another -------------------------------------------------------------------

struct Login<'a> {
    target: &'a Target,
    database: &'a str,
    user: &'a str,
    credentials: &'a Credentials,
    parameters: &'a [(&'a str, &'a str)],
}

/// Why an attempt failed, and whether the server had said how it wants us to authenticate.
struct Failure {
    error: ConnectError,
    stage: Stage,
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
        let applicant = Applicant {
            user: self.user,
            credentials: self.credentials,
            line: line_of(stream),
            channel_binding: self.target.tls.channel_binding,
            end_point: end_point_of(stream),
            protocol: self.target.protocol,
            known: None,
        };
        let names = [("user", self.user), ("database", self.database)];
        applicant.log_in(stream, &names, self.parameters, stage).await
    }
}

impl Applicant<'_> {
    async fn log_in(
        &self,
        stream: &mut Stream,
        names: &[(&str, &str)],
        parameters: &[(&str, &str)],
        stage: &mut Stage,
    ) -> Result<(Option<BackendKey>, Vec<(String, String)>), ConnectError> {
        let mut out = Vec::new();
        let all = names.iter().chain(parameters).copied();
        startup::startup_message(&mut out, self.protocol.minor(), all);
        send(stream, &out).await?;
        let mut messages = Messages::new(stream);
        self.authenticate(&mut messages, stage).await?;
        await_ready(&mut messages, self.protocol).await
    }
}
