//! Write-through: what a commit has taken is read again by clients of the worker's own, before the writer hears of it.
//!
//! Such a client has the user, the settings and the very question of the one who asked first, and goes the way of all others: so what
//! it brings is kept by the same rules, or not at all. It has no socket but one end of a pair; no limit counts it.

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
        for again in due.into_iter().filter(|again| again.user == writer.user) {
            if self.rereads.get() >= READS_MAX {
                break;
            }
            let Some((connection, theirs)) = self.reader(writer, again) else { continue };
            self.rereads.set(self.rereads.get() + 1);
            self.shared.results.note_reread();
            let (worker, sender) = (self.clone(), sender.clone());
            self.tasks.borrow_mut().spawn_local(async move {
                drive(connection, theirs).await;
                worker.rereads.set(worker.rereads.get() - 1);
                drop(sender);
            });
        }
        Rereading { running, timer: Box::pin(tokio::time::sleep(patience)) }
    }

    /// A client that asks the same, and our end of its connection.
    fn reader(
        self: &Rc<Self>,
        writer: &Client,
        again: Arc<Again>,
    ) -> Option<(Box<Connection>, UnixStream)> {
        let now = Instant::now();
        let (database, user) = (writer.database.clone(), writer.user.clone());
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
            credentials: writer.credentials.clone(),
            // Nobody can cancel it.
            key_pid: 0,
            write_pool: writer.write_pool.clone(),
            counted,
            tracked: Tracked::new(&self.shared.results),
            again: Some(again.clone()),
        };
        let client = Client::new(new, now);
        client.keep_from_replicas(now + PRIMARY_TIME);
        let session = Session::new(id, PoolMode::Transaction, again.settings.clone(), hidden)
            .with_server_settings(welcome.borrow().server_settings().clone());
        let stream = Stream::Plain(Socket::Unix(theirs));
        let connection = Connection::new(self.clone(), client, stream, session, &again.unit, &[]);
        Some((Box::new(connection), ours))
    }
}

/// Runs the connection until its client has been answered, or that takes too long; then there is no client any more.
async fn drive(connection: Box<Connection>, mut client: UnixStream) {
    let mut running = pin!(connection.run());
    // Both are over for good when either is.
    tokio::select! {
        _ = &mut running => return,
        _ = tokio::time::timeout(READ_TIME_MAX, read_to_ready(&mut client)) => {}
    }
    drop(client);
    running.await;
}

/// Passes over what comes until ReadyForQuery, or the end.
async fn read_to_ready(client: &mut UnixStream) {
    let mut bytes = Vec::new();
    // Of the frame that is being passed over.
    let mut left = 0;
    loop {
        let mut at = 0;
        loop {
            let here = left.min(bytes.len() - at);
            (at, left) = (at + here, left - here);
            match Header::peek(&bytes[at..], FRAME_BYTES_MAX) {
                Ok(Some(header)) if left == 0 => {
                    if header.tag == tag::READY_FOR_QUERY {
                        return;
                    }
                    left = header.frame_bytes();
                }
                Ok(_) => break,
                Err(_) => return,
            }
        }
        bytes.drain(..at);
        debug_assert!(bytes.len() < HEADER_BYTES);
        bytes.reserve(READ_BYTES);
        if !matches!(client.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
}
