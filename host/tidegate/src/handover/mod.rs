//! Processes that serve one after the other: listening sockets handed over, cancel requests passed on.
//!
//! Each process has a socket of its own in `handover.dir`. A line of JSON asks, a line answers:
//!
//! ```text
//!   new                                   old
//!    | take_over ------------------------> |   refused while it drains, pauses, or hands over already
//!    | <----- listeners, with descriptors  |   it serves on
//!    |  (starts; both accept)              |
//!    | ready ----------------------------> |   stops accepting, keeps its clients until they go
//!    | <------------------------------ done |
//! ```
//!
//! What ends before `ready` changes nothing. A cancel request whose key a process does not know is asked of
//! the others, since a client's key was made by the process that serves it.

mod descriptors; // lines and file descriptors over a Unix socket
mod server; // what the others ask of this process

pub use server::{Host, Open, open};

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_core::limits::{
    CONNECT_TIME_MAX, HANDOVER_ANSWER_TIME_MAX, HANDOVER_LISTENERS_MAX, HANDOVER_SIBLINGS_MAX,
};
use tokio::sync::Semaphore;

/// What a socket of `handover.dir` is called: 16 hexadecimal digits and this.
const SUFFIX: &str = ".tidegate";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    TakeOver,
    /// The sockets of files that the new process listens on too: they are not removed.
    Ready {
        kept: Vec<String>,
    },
    Cancel {
        pid: i32,
        secret: Vec<u8>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    /// Their addresses; the descriptors come along, in this order.
    Listeners(Vec<String>),
    Done,
    /// Whether the key belongs to one of its clients. The request has been seen to.
    Cancelled(bool),
    Refused(String),
}

/// Listening sockets and the addresses they were bound to, as the configuration writes them.
pub type Listeners = Vec<(String, OwnedFd)>;

/// A process that has handed its sockets over and serves on until it is told that this one is ready. Dropped
/// before that, nothing has happened.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    pub listeners: Listeners,
}

impl Predecessor {
    /// Asks the processes of the folder for their sockets; `None` when none is there.
    ///
    /// # Errors
    /// Why the one that is there does not hand over, as a sentence.
    pub fn ask(dir: &Path) -> Result<Option<Self>, String> {
        let mut refused = None;
        for path in sockets(dir) {
            match ask_one(&path) {
                Ok(Ok(predecessor)) => return Ok(Some(predecessor)),
                Ok(Err(words)) => refused = Some(words),
                Err(error) if is_stale(&error) => {}
                Err(error) => refused = Some(format!("{}: {error}", path.display())),
            }
        }
        match refused {
            Some(words) => Err(words),
            None => Ok(None),
        }
    }

    /// Tells it that this process serves. `kept` are the addresses it has taken over.
    ///
    /// # Errors
    /// It does not answer any more: its clients may be gone, and this process goes on.
    pub fn ready(self, kept: Vec<String>) -> io::Result<()> {
        descriptors::write(&self.stream, &Request::Ready { kept }, &[])?;
        match descriptors::read(&self.stream, 0)? {
            (Response::Done, _) => Ok(()),
            (other, _) => Err(io::Error::other(format!("{other:?}"))),
        }
    }
}

fn ask_one(path: &Path) -> io::Result<Result<Predecessor, String>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(HANDOVER_ANSWER_TIME_MAX))?;
    stream.set_write_timeout(Some(HANDOVER_ANSWER_TIME_MAX))?;
    descriptors::write(&stream, &Request::TakeOver, &[])?;
    Ok(match descriptors::read(&stream, HANDOVER_LISTENERS_MAX)? {
        (Response::Listeners(names), fds) if names.len() == fds.len() => {
            let listeners = names.into_iter().zip(fds).collect();
            Ok(Predecessor { stream, listeners })
        }
        (Response::Refused(words), _) => Err(words),
        (other, _) => Err(format!("{} answers {other:?}", path.display())),
    })
}

/// The other processes, as a cancel request finds them.
#[derive(Debug)]
pub struct Siblings {
    dir: PathBuf,
    own: PathBuf,
    /// Requests that are passed on at once: anybody may send one.
    turns: Semaphore,
}

impl Siblings {
    /// Passes a cancel request on to whichever process made its key; returns when that one has seen to it,
    /// or after a bound.
    pub async fn cancel(&self, pid: i32, secret: &[u8]) {
        let turn = tokio::time::timeout(CONNECT_TIME_MAX, self.turns.acquire());
        let Ok(Ok(_turn)) = turn.await else { return };
        let dir = self.dir.clone();
        let found = tokio::task::spawn_blocking(move || sockets(&dir)).await;
        let others = found.unwrap_or_default().into_iter().filter(|path| *path != self.own);
        for path in others.take(HANDOVER_SIBLINGS_MAX) {
            let asked = ask_to_cancel(&path, pid, secret);
            match tokio::time::timeout(CONNECT_TIME_MAX * 2, asked).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(%error, path = %path.display(), "not asked"),
            }
        }
    }
}

async fn ask_to_cancel(path: &Path, pid: i32, secret: &[u8]) -> io::Result<bool> {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    let mut stream = tokio::net::UnixStream::connect(path).await?;
    let request = Request::Cancel { pid, secret: secret.to_vec() };
    stream.write_all(&descriptors::line(&request)?).await?;
    let mut line = String::new();
    let limit = descriptors::LINE_BYTES_MAX as u64;
    BufReader::new(stream.take(limit)).read_line(&mut line).await?;
    match serde_json::from_str(&line)? {
        Response::Cancelled(found) => Ok(found),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// The sockets of the folder, one for each process; those of processes that ended badly included.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_ours = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(SUFFIX));
    let mut paths: Vec<PathBuf> = paths.filter(is_ours).collect();
    paths.sort();
    paths
}

/// Whether nobody listens there any more.
fn is_stale(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// How often the folder is looked through for what processes left that ended badly.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
