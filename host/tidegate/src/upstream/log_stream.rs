//! A connection by which a server streams what is committed in a database, decoded.
//!
//! The slot is temporary: it is gone with the connection, so that nobody who is gone holds the server's log back. Source: "Streaming
//! Replication Protocol" in PostgreSQL's documentation; `walsender.c`.

use super::credentials::Credentials;
use super::error::{ConnectError, ServerError};
use super::login::{NewServer, Target, collect_rows, connect, simple_query};
use super::socket::send;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_core::limits::CONNECT_TIME_MAX;
use tidegate_wire::backend::tag;
use tidegate_wire::frame::BadLength;
use tidegate_wire::frontend;
use tidegate_wire::replication::{Answer, Beginnings, Streamed, status_update};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

/// A slot begins when all transactions are over that run when it is made.
const SLOT_TIME_MAX: Duration = Duration::from_secs(600);
/// Of each row no more is kept than what says of which table it is.
const BEGINNING_BYTES: usize = 8_192;
const READ_BYTES: usize = 16_384;

/// Whatever the role's own settings are: waiting for others is what making a slot is. A server that is not heard of any more, and
/// does not hear of us, gives up sooner than by default.
const SETTINGS: [(&str, &str); 3] = [
    ("replication", "database"),
    ("client_encoding", "UTF8"),
    ("options", "-c statement_timeout=0 -c lock_timeout=0 -c wal_sender_timeout=10s"),
];

/// The log of one database, as it grows.
#[derive(Debug)]
pub struct LogStream {
    server: NewServer,
    beginnings: Beginnings,
    timeline: Box<str>,
}

/// What a server has sent.
#[derive(Debug)]
pub struct LogBytes {
    bytes: Vec<u8>,
}

impl LogBytes {
    /// How many they are.
    pub fn count(&self) -> usize {
        self.bytes.len()
    }
}

impl LogStream {
    /// Makes a slot of this name, and has it streamed. A name has lower-case letters, digits and underscores.
    ///
    /// # Errors
    /// The server can't be reached, or refuses; or transactions do not end in time.
    pub async fn open(
        target: &Target,
        (database, user): (&str, &str),
        credentials: &Credentials,
        application: &str,
        slot: &str,
    ) -> Result<Self, ConnectError> {
        let mut settings = vec![("application_name", application)];
        settings.extend(SETTINGS);
        let mut server = connect(target, database, user, credentials, &settings).await?;
        let system = simple_query(&mut server, "IDENTIFY_SYSTEM").await?;
        let timeline = system.first().and_then(|row| row.get(1)?.as_deref());
        let timeline = timeline.and_then(|timeline| timeline.parse::<u32>().ok());
        let Some(timeline) = timeline else {
            return Err(ConnectError::Protocol("it does not say which system it is".to_owned()));
        };
        let mut query = Vec::new();
        let sql = format!(
            "CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL test_decoding NOEXPORT_SNAPSHOT"
        );
        frontend::query(&mut query, sql.as_bytes());
        let made = collect_rows(&mut server, &query);
        timeout(SLOT_TIME_MAX, made).await.map_err(|_| ConnectError::Timeout)??;
        query.clear();
        let sql = format!(
            "START_REPLICATION SLOT {slot} LOGICAL 0/0 (\"include-xids\" '1', \"include-timestamp\" '0', \"skip-empty-xacts\" '0')"
        );
        frontend::query(&mut query, sql.as_bytes());
        send_in_time(&mut server, &query).await?;
        // As the names of files of the log begin.
        let timeline = format!("{timeline:08X}").into();
        Ok(Self { server, beginnings: Beginnings::new(BEGINNING_BYTES), timeline })
    }

    /// The server's process.
    pub fn process(&self) -> Option<i32> {
        self.server.backend_key.as_ref().map(|key| key.pid)
    }

    /// Which timeline it is, in hexadecimal.
    pub fn timeline(&self) -> &str {
        &self.timeline
    }

    /// Waits for bytes. Cancel safe.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn read(&mut self) -> Result<LogBytes, ConnectError> {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        if self.server.stream.read_buf(&mut bytes).await? == 0 {
            let message = "the server closed the connection";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message).into());
        }
        Ok(LogBytes { bytes })
    }

    /// Takes what was read apart.
    ///
    /// # Errors
    /// The server says why it ends, or something that it must not.
    pub fn take(
        &mut self,
        read: &LogBytes,
        mut each: impl FnMut(Streamed<'_>),
    ) -> Result<(), ConnectError> {
        let mut ended = None;
        let fed = self.beginnings.feed(&read.bytes, |tag, body| {
            if ended.is_some() {
                return;
            }
            match tag {
                tag::COPY_DATA => match Streamed::read(body) {
                    Some(streamed) => each(streamed),
                    None => ended = Some(unexpected()),
                },
                tag::ERROR_RESPONSE => {
                    ended = Some(ConnectError::Refused(Box::new(ServerError::read(body))));
                }
                tag::COPY_BOTH_RESPONSE | tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS => {}
                _ => ended = Some(unexpected()),
            }
        });
        fed.map_err(|BadLength { tag, length }| {
            let tag = char::from(tag);
            ConnectError::Protocol(format!(
                "the server sent a message of type {tag:?} with length {length}"
            ))
        })?;
        ended.map_or(Ok(()), Err)
    }

    /// Tells the server that everything up to there has been heeded.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn tell(&mut self, position: u64, answer: Answer) -> Result<(), ConnectError> {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(clock.as_micros()).unwrap_or(i64::MAX);
        let mut out = Vec::new();
        status_update(&mut out, position, micros, answer);
        send_in_time(&mut self.server, &out).await
    }
}

async fn send_in_time(server: &mut NewServer, bytes: &[u8]) -> Result<(), ConnectError> {
    let sent = send(&mut server.stream, bytes);
    Ok(timeout(CONNECT_TIME_MAX, sent).await.map_err(|_| ConnectError::Timeout)??)
}

fn unexpected() -> ConnectError {
    ConnectError::Protocol(
        "the server ended the stream, or sent what does not belong there".to_owned(),
    )
}
