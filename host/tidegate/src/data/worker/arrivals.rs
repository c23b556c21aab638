//! How a client arrives: accepted, placed on a worker, logged in, greeted, or turned away.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidegate_core::ids::ClientId;
use tidegate_core::plan::refuse_setting;
use tidegate_core::refusal::{Refusal, Severity};
use tidegate_core::session::hidden::HiddenCode;
use tidegate_core::session::{PoolMode, Session};
use tidegate_pool::Fitness;

use super::upkeep::shutting_down;
use super::{Life, Message, Settled, Shared, Worker};
use crate::config;
use crate::data::caching::Tracked;
use crate::data::cancel::{Concerned, Holder};
use crate::data::clients::{Client, CloseRequest, Counted, NewClient, State};
use crate::data::connection::Connection;
use crate::data::greeting::{self, Rejected, Welcome};
use crate::data::listener::{ACCEPT_PAUSE, Listener};
use crate::data::login::{self, Admission, Door, LoggedIn, LoginOutcome, Peer, Replication};
use crate::stream::{LeftSocket, Socket};
use crate::upstream::pool::{Acquired, Lease, PoolCell, PoolKey, PoolKind, Pools, WaitSlot};
use crate::upstream::{BackendKey, Target as Reached};

/// Servers that one login has asked about its settings, where each was lost before it answered.
const SETTINGS_ASKED_MAX: usize = 3;

fn no_cancel_key() -> Refusal {
    Refusal::fatal("58000", "the system has no random numbers for a cancel key")
}

impl Shared {
    /// Sends a client that no worker has accepted to the one with the fewest. False: it takes none now, and the socket is closed.
    pub fn bring(&self, socket: LeftSocket, peer: Peer) -> bool {
        let chosen = self.loads.place(0);
        let sender = self.senders.get(chosen);
        let sent =
            sender.is_some_and(|sender| sender.try_send(Message::Client(socket, peer)).is_ok());
        if !sent {
            self.loads.leave(chosen);
        }
        sent
    }
}

impl Worker {
    pub(super) async fn accept(self: Rc<Self>, listener: Listener) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.place(socket, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Keeps the client or sends it to a worker with fewer.
    fn place(self: &Rc<Self>, socket: Socket, peer: Peer) {
        self.stats.clients_accepted.increment();
        let chosen = self.shared.loads.place(self.index);
        if chosen == self.index {
            return self.spawn_client(socket, peer);
        }
        let sent = match (socket.leave(), self.shared.senders.get(chosen)) {
            (Ok(left), Some(sender)) => sender.try_send(Message::Client(left, peer)).is_ok(),
            _ => false,
        };
        if !sent {
            self.shared.loads.leave(chosen);
        }
    }

    pub(super) fn take_over(self: &Rc<Self>, socket: LeftSocket, peer: Peer) {
        match socket.arrive() {
            Ok(socket) => self.spawn_client(socket, peer),
            Err(_) => self.shared.loads.leave(self.index),
        }
    }

    fn spawn_client(self: &Rc<Self>, socket: Socket, peer: Peer) {
        let worker = self.clone();
        self.tasks.borrow_mut().spawn_local(async move {
            worker.stats.clients_open.increment();
            worker.clone().welcome(socket, peer).await;
            worker.stats.clients_open.decrement();
            worker.shared.loads.leave(worker.index);
        });
    }

    /// One client from its first byte to its last. What is needed for a while alone is boxed, and given back when it is over:
    /// of a client that rests, this is what is left.
    async fn welcome(self: Rc<Self>, socket: Socket, peer: Peer) {
        let settled = self.settled();
        let admission = || self.admission(settled.config.limits.clients_max);
        let make_room = || self.pools.make_room_at_primary();
        let (throttle, views) = (&self.shared.throttle, &*self.shared.views);
        let door = Door { views, admission, throttle, make_room };
        let outcome = Box::pin(login::login(socket, peer, &settled.login, door)).await;
        match outcome {
            LoginOutcome::Done(logged_in) if logged_in.replication != Replication::None => {
                drop(settled);
                Box::pin(self.replicate(*logged_in, peer)).await;
            }
            LoginOutcome::Done(logged_in) => {
                let connection = Box::pin(self.clone().greet(logged_in, peer)).await;
                let Some((connection, client)) = connection else { return };
                drop(settled);
                let reason = connection.run().await;
                self.forget(&client, reason);
            }
            LoginOutcome::Cancel { stream, pid, secret } => {
                Box::pin(self.heed_cancel(&settled, pid, &secret)).await;
                drop(stream);
            }
            LoginOutcome::Closed(reason) => {
                self.stats.logins_failed.increment();
                tracing::debug!(?peer, reason = reason.label(), "login ended");
            }
        }
    }

    async fn heed_cancel(&self, settled: &Settled, pid: i32, secret: &[u8]) {
        match self.shared.keys.judge(pid, secret) {
            Concerned::Client(holder) => {
                self.stats.cancels.increment();
                self.shared.cancel(holder).await;
            }
            Concerned::Peer(peer, key) => {
                if let Some(target) = settled.peers.get(&peer) {
                    self.stats.cancels.increment();
                    self.forward_to_peer(target, &key).await;
                }
            }
            Concerned::Nobody => {
                if let Some(siblings) = &self.shared.siblings {
                    siblings.cancel(pid, secret).await;
                }
            }
        }
    }

    /// Whoever is still logging in counts, this client too: its socket is held.
    fn admission(&self, clients_max: usize) -> Admission {
        if self.life.get() == Life::Draining {
            Admission::ShuttingDown
        } else if self.shared.loads.total() > clients_max {
            Admission::TooManyClients
        } else {
            Admission::Granted
        }
    }

    /// The same at another Tidegate, which answers as we do: by the end of the connection.
    async fn forward_to_peer(&self, target: &Reached, key: &BackendKey) {
        let forward = async {
            let _turn = self.forwards.acquire().await;
            crate::upstream::cancel(target, key).await
        };
        let ended = tokio::time::timeout(tidegate_core::limits::CONNECT_TIME_MAX, forward).await;
        let server = &*target.name;
        match ended {
            Ok(Ok(())) => tracing::debug!(server, "a cancel request was forwarded"),
            Ok(Err(error)) => tracing::warn!(server, %error, "cannot forward a cancel request"),
            Err(_) => tracing::warn!(server, "cannot forward a cancel request in time"),
        }
    }

    /// From the end of a login to a connection that serves statements; `None` when the client was turned away.
    async fn greet(
        self: Rc<Self>,
        mut logged_in: Box<LoggedIn>,
        peer: Peer,
    ) -> Option<(Box<Connection>, Rc<Client>)> {
        match self.clone().prepare(&logged_in, peer).await {
            Ok((client, session, welcome)) => {
                self.stats.logins_ok.increment();
                let LoggedIn { mut stream, pending, .. } = *logged_in;
                stream.settle();
                let connection =
                    Connection::new(self, client.clone(), stream, session, &pending, &welcome);
                Some((Box::new(connection), client))
            }
            Err(refusal) => {
                self.stats.logins_failed.increment();
                turn_away(&mut logged_in, &refusal).await;
                None
            }
        }
    }

    async fn prepare(
        self: Rc<Self>,
        logged_in: &LoggedIn,
        peer: Peer,
    ) -> Result<(Rc<Client>, Session, Vec<u8>), Refusal> {
        let now = Instant::now();
        let settled = self.settled();
        let (database, user): (Arc<str>, Arc<str>) =
            (logged_in.database.as_str().into(), logged_in.user.as_str().into());
        let counted = Counted::enter(&self.shared, &settled.config.quotas, &database, &user)?;
        if let Some(identity) = settled.login.users.identity(&user) {
            self.shared.settle_identity(&user, identity);
        }
        let write = PoolKey {
            database: database.clone(),
            user: user.clone(),
            instance: 0,
            kind: PoolKind::Write,
        };
        let write_pool = self.pools.pool(&write, &logged_in.credentials, now);
        let (id, hidden) = (self.shared.next_client(), self.shared.hidden.of(&database, now));
        let welcome = self.welcome_of(&database, &user);
        let wanted = &logged_in.parameters;
        if let Some(refusal) = wanted.iter().find_map(|(name, value)| refuse_setting(name, value)) {
            return Err(Refusal { severity: Severity::Fatal, ..refusal });
        }
        let known = welcome.borrow().recall(wanted);
        let settings = match known {
            Some(settings) => settings,
            None => self.ask_for_settings(&write_pool, id, wanted, &welcome, &hidden).await?,
        };
        self.shared.views.want(&database);
        let holder = Holder { worker: self.index, client: id };
        let issued = self.shared.keys.issue(holder, logged_in.minor, &user);
        let (key_pid, secret) = issued.ok_or_else(no_cancel_key)?;
        let tls = peer.encrypted(&logged_in.stream);
        let new = NewClient {
            id,
            user: user.clone(),
            database: database.clone(),
            peer,
            tls,
            credentials: logged_in.credentials.clone(),
            key_pid,
            write_pool,
            counted,
            tracked: Tracked::new(&self.shared.results),
            again: None,
        };
        let client = Client::new(new, now);
        *client.application.borrow_mut() =
            settings.get("application_name").unwrap_or_default().into();
        client.set_state(State::Idle, now);
        if self.life.get() == Life::Draining {
            // The drain has told those who were there; this one was logging in.
            client.request_close(CloseRequest::AtRest(Rc::new(shutting_down())));
        }
        self.clients.borrow_mut().insert(id, client.clone());
        let pool_settings = settled.config.pool_settings(&database, &user);
        let mode = session_mode(pool_settings.mode);
        let mut bytes = logged_in.unsent.clone();
        welcome.borrow().write(&settings, (key_pid, &secret), &mut bytes);
        let mut session = Session::new(id, mode, settings, hidden)
            .with_server_settings(welcome.borrow().server_settings().clone())
            .with_shared_listening(key_pid);
        if pool_settings.transaction_replay {
            session = session.with_replay();
        }
        Ok((client, session, bytes))
    }

    pub(super) fn welcome_of(&self, database: &Arc<str>, user: &Arc<str>) -> Rc<RefCell<Welcome>> {
        let key = (database.clone(), user.clone());
        let welcome = self.welcomes.borrow_mut().entry(key).or_default().clone();
        welcome.borrow_mut().heed(self.shared.defaults.load(Ordering::Relaxed));
        welcome
    }

    /// Has the primary check the start-up settings, and look for what hides in the database if nobody has.
    pub(super) async fn ask_for_settings(
        &self,
        pool: &Rc<PoolCell>,
        id: ClientId,
        wanted: &greeting::Parameters,
        welcome: &RefCell<Welcome>,
        hidden: &HiddenCode,
    ) -> Result<Arc<tidegate_core::settings::Settings>, Refusal> {
        // A server that is lost meanwhile costs nothing: its client has been told nothing, and the next may be another.
        for _ in 0..SETTINGS_ASKED_MAX {
            let mut lease = self.lease(pool, id).await?;
            let asked = tokio::time::timeout(tidegate_core::limits::CONNECT_TIME_MAX, async {
                let settled = greeting::settle(&mut lease.server, wanted).await?;
                if let Some(claim) = hidden.claim() {
                    let hides =
                        greeting::inspect(&mut lease.server).await.map_err(Rejected::Lost)?;
                    hidden.settle(&claim, hides);
                }
                Ok(settled)
            });
            match asked.await {
                Ok(Ok(settled)) => {
                    let parameters = &lease.server.parameters;
                    welcome.borrow_mut().remember(wanted.clone(), &settled, parameters);
                    lease.release(Fitness::Fit, Instant::now());
                    return Ok(settled.settings);
                }
                Ok(Err(Rejected::ByServer(refusal))) => {
                    lease.release(Fitness::Fit, Instant::now());
                    return Err(refusal);
                }
                Ok(Err(Rejected::Lost(_))) => {}
                Err(_) => break,
            }
        }
        let lost = "the server was lost while it checked start-up settings";
        Err(Refusal::fatal("08006", lost)
            .hint("Try again, and look at the server's log for the cause."))
    }

    /// A server connection, waited for. The pool keeps the deadline.
    async fn lease(&self, pool: &Rc<PoolCell>, id: ClientId) -> Result<Lease, Refusal> {
        let slot = WaitSlot::new(id);
        let _given_up = GiveUp { pools: &self.pools, slot: &slot };
        match self.pools.acquire(pool, &slot, Instant::now()) {
            Acquired::Now(lease) => Ok(lease),
            Acquired::Refused(refusal) => Err(refusal),
            Acquired::Queued => {
                std::future::poll_fn(|cx| {
                    slot.set_waker(cx.waker());
                    slot.take_grant().map_or(std::task::Poll::Pending, std::task::Poll::Ready)
                })
                .await
            }
        }
        .map_err(|refusal| Refusal { severity: Severity::Fatal, ..refusal })
    }
}

/// Ends a wait whose future is dropped.
struct GiveUp<'a> {
    pools: &'a Rc<Pools>,
    slot: &'a Rc<WaitSlot>,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.pools.give_up(self.slot, Instant::now());
    }
}

/// Tells a client that has logged in why it is not served, within a bound.
pub(super) async fn turn_away(client: &mut LoggedIn, refusal: &Refusal) {
    use tokio::io::AsyncWriteExt as _;
    let mut bytes = std::mem::take(&mut client.unsent);
    refusal.write(&mut bytes);
    let goodbye = async {
        client.stream.write_all(&bytes).await?;
        client.stream.flush().await?;
        client.stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
}

fn session_mode(configured: config::PoolMode) -> PoolMode {
    match configured {
        config::PoolMode::Transaction => PoolMode::Transaction,
        config::PoolMode::Session => PoolMode::Session,
    }
}
