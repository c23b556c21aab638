//! Write-through: what a commit has taken is read again by clients of the worker's own, before the writer hears of it.
//!
//! Such a client has the user, the settings and the very question of the one who asked first, and goes the way of all others: so what
//! it brings is kept by the same rules, or not at all. It has no socket but one end of a pair; no limit counts it.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tidegate_cache::Again;
use tidegate_core::limits::FRAME_BYTES_MAX;
use tidegate_core::session::{PoolMode, Session};
use tidegate_wire::backend::tag;
use tidegate_wire::frame::{HEADER_BYTES, Header};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::Worker;
use crate::data::caching::Tracked;
use crate::data::clients::{Client, Counted, Encrypted, NewClient};
use crate::data::connection::Connection;
use crate::data::login::Peer;
use crate::stream::{Socket, Stream};
use crate::upstream::Credentials;
use crate::upstream::pool::PoolCell;

/// Reads of one worker that run at the same time; more are left out.
const READS_MAX: usize = 64;
/// One that takes longer is given up.
const READ_TIME_MAX: Duration = Duration::from_secs(5);
/// Its client must not be sent to a replica, whichever is fresh.
const PRIMARY_TIME: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 8_192;

/// Reads that a writer waits for.
#[derive(Debug)]
pub struct Rereading {
    running: mpsc::Receiver<Infallible>,
    timer: Pin<Box<Sleep>>,
}

impl Rereading {
    /// Ready when all have ended, or that takes too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.running.poll_recv(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.timer.as_mut().poll(cx),
        }
    }
}

/// How many reads of a worker's own are under way: of what has been written, and of what has been given.
#[derive(Debug, Default)]
pub(super) struct OwnReads {
    pub(super) again: Cell<usize>,
    pub(super) inspections: Cell<usize>,
}

/// As whom a client of the worker's own asks.
#[derive(Debug)]
pub(super) struct Asks {
    pub(super) database: Arc<str>,
    pub(super) user: Arc<str>,
    pub(super) credentials: Credentials,
    pub(super) write_pool: Rc<PoolCell>,
}

/// What became of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Whole,
    /// With an error, or the connection has ended.
    Failed,
    Late,
}

impl Worker {
    /// Reads again what a commit of this client has taken: as far as the same user has asked for it, whose server connections are
    /// at hand. Nobody waits longer than `patience`.
    pub fn read_again(
        self: &Rc<Self>,
        writer: &Client,
        due: Vec<Arc<Again>>,
        patience: Duration,
    ) -> Rereading {
        let (sender, running) = mpsc::channel(1);
        let asks = Asks {
            database: writer.database.clone(),
            user: writer.user.clone(),
            credentials: writer.credentials.clone(),
            write_pool: writer.write_pool.clone(),
        };
        for again in due.into_iter().filter(|again| again.user == writer.user) {
            if self.own_reads.again.get() >= READS_MAX {
                break;
            }
            let Some((connection, _, theirs)) = self.own_client(&asks, again) else { continue };
            self.own_reads.again.set(self.own_reads.again.get() + 1);
            self.shared.results.note_reread();
            let (worker, sender) = (self.clone(), sender.clone());
            self.tasks.borrow_mut().spawn_local(async move {
                drive(connection, theirs, READ_TIME_MAX).await;
                worker.own_reads.again.set(worker.own_reads.again.get() - 1);
                drop(sender);
            });
        }
        Rereading { running, timer: Box::pin(tokio::time::sleep(patience)) }
    }

    /// A client that asks what is to be asked, and our end of its connection.
    pub(super) fn own_client(
        self: &Rc<Self>,
        asks: &Asks,
        again: Arc<Again>,
    ) -> Option<(Box<Connection>, Rc<Client>, UnixStream)> {
        let now = Instant::now();
        let (database, user) = (asks.database.clone(), asks.user.clone());
        let quotas = &self.settled().config.quotas;
        let counted = Counted::enter(&self.shared, quotas, &database, &user).ok()?;
        let (ours, theirs) = UnixStream::pair().ok()?;
        let hidden = self.shared.hidden.of(&database, now);
        let welcome = self.welcome_of(&database, &user);
        let id = self.shared.next_client();
        let new = NewClient {
            id,
            user,
            database,
            peer: Peer::Unix,
            tls: Encrypted::No,
            credentials: asks.credentials.clone(),
            // Nobody can cancel it.
            key_pid: 0,
            write_pool: asks.write_pool.clone(),
            counted,
            tracked: Tracked::new(&self.shared.results),
            again: Some(again.clone()),
        };
        let client = Client::new(new, now);
        client.keep_from_replicas(now + PRIMARY_TIME);
        let session = Session::new(id, PoolMode::Transaction, again.settings.clone(), hidden)
            .with_server_settings(welcome.borrow().server_settings().clone());
        let stream = Stream::Plain(Socket::Unix(theirs));
        let connection =
            Connection::new(self.clone(), client.clone(), stream, session, &again.unit, &[]);
        Some((Box::new(connection), client, ours))
    }
}

/// Runs the connection until its client has been answered, or that takes too long; then there is no client any more.
pub(super) async fn drive(
    connection: Box<Connection>,
    client: UnixStream,
    time_max: Duration,
) -> Answered {
    drive_seen(connection, client, time_max, &mut |_| {}).await
}

/// The same, with all that comes shown to somebody.
pub(super) async fn drive_seen(
    connection: Box<Connection>,
    mut client: UnixStream,
    time_max: Duration,
    see: &mut dyn FnMut(&[u8]),
) -> Answered {
    let mut running = pin!(connection.run());
    // Both are over for good when either is.
    let answered = tokio::select! {
        _ = &mut running => return Answered::Failed,
        answered = tokio::time::timeout(time_max, read_to_ready(&mut client, see)) => {
            answered.unwrap_or(Answered::Late)
        }
    };
    drop(client);
    running.await;
    answered
}

/// Passes over what comes until ReadyForQuery, or the end.
async fn read_to_ready(client: &mut UnixStream, see: &mut dyn FnMut(&[u8])) -> Answered {
    let mut bytes = Vec::new();
    let mut answered = Answered::Whole;
    // Of the frame that is being passed over.
    let mut left = 0;
    loop {
        let mut at = 0;
        loop {
            let here = left.min(bytes.len() - at);
            (at, left) = (at + here, left - here);
            match Header::peek(&bytes[at..], FRAME_BYTES_MAX) {
                Ok(Some(header)) if left == 0 => {
                    match header.tag {
                        tag::READY_FOR_QUERY => return answered,
                        tag::ERROR_RESPONSE => answered = Answered::Failed,
                        _ => {}
                    }
                    left = header.frame_bytes();
                }
                Ok(_) => break,
                Err(_) => return Answered::Failed,
            }
        }
        bytes.drain(..at);
        debug_assert!(bytes.len() < HEADER_BYTES);
        bytes.reserve(READ_BYTES);
        let known = bytes.len();
        if !matches!(client.read_buf(&mut bytes).await, Ok(1..)) {
            return Answered::Failed;
        }
        see(bytes.get(known..).unwrap_or_default());
    }
}
