//! One thread of the data plane: its clients, its pools, its buffers, and the messages others send it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tidegate_core::ids::{ClientId, ServerId};
use tidegate_core::pool::{Fitness, WorkerId};
use tidegate_core::refusal::Refusal;
use tidegate_core::session::prepared::Interner;
use tidegate_core::session::{CloseReason, PoolMode, Session};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::buffers::Buffers;
use super::cancel::{CancelKeys, Holder};
use super::clients::{Cancel, Client, CloseRequest, Encrypted, NewClient, State};
use super::connection::Connection;
use super::greeting::{self, Rejected, Welcome, Welcomes};
use super::listener::{ACCEPT_PAUSE, Accepted, Bound, Listener, Loads};
use super::login::{self, LoggedIn, LoginContext, LoginOutcome, Peer, Replication};
use crate::config;
use crate::observe::snapshot::ClientSnapshot;
use crate::observe::stats::{ErrorKind, WorkerStats};
use crate::stream::{Socket, Stream};
use crate::upstream::pool::{
    Acquired, Lease, Neighbours, PoolCell, PoolKey, PoolKind, PoolMessage, PoolSnapshot, Pools,
    PoolsConfig, ServerLogin, SharedPools, WaitSlot,
};
use crate::upstream::{BackendKey, Credentials, Target};

/// Messages one worker may have waiting.
const MESSAGES_MAX: usize = 4_096;
/// Cancel requests to servers under way at once on one worker; more wait their turn.
const CANCELS_MAX: usize = 16;

/// Threads of one worker that hash passwords.
const BLOCKING_THREADS_MAX: usize = 2;

/// What a worker may be told.
#[derive(Debug)]
pub enum Message {
    /// Another worker accepted it.
    Client(Accepted, Peer),
    Pool(PoolMessage),
    Cancel(ClientId, Cancel),
    Snapshot(oneshot::Sender<WorkerSnapshot>),
    Reload(Arc<Settled>),
    /// No new clients; each goes when its transaction has ended.
    Drain,
    /// Whoever is left goes now.
    Cut,
}

/// A configuration in the form the data plane uses. Replaced as a whole.
pub struct Settled {
    pub config: Arc<config::Config>,
    pub login: LoginContext,
    pub pools: Arc<PoolsConfig>,
    /// The pools that the configuration itself names: filled at start, kept for ever.
    pub warm: Vec<(PoolKey, Credentials)>,
    /// Start-up parameters of every server connection.
    pub server_parameters: Arc<[(String, String)]>,
}

impl std::fmt::Debug for Settled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settled")
    }
}

/// What the workers share.
pub struct Shared {
    pub keys: CancelKeys,
    pub loads: Arc<Loads>,
    pub pools: Arc<SharedPools>,
    pub stats: Vec<Arc<WorkerStats>>,
    pub senders: Vec<mpsc::Sender<Message>>,
    next_client: AtomicU64,
    /// By worker: whether it has a connection to the primary.
    primary: Vec<AtomicBool>,
}

impl Shared {
    /// The shared part for so many workers, and each worker's receiver.
    pub fn new(workers: usize) -> (Arc<Self>, Vec<mpsc::Receiver<Message>>) {
        let (senders, receivers) = (0..workers).map(|_| mpsc::channel(MESSAGES_MAX)).unzip();
        let shared = Self {
            keys: CancelKeys::default(),
            loads: Loads::new(workers),
            pools: SharedPools::new(workers),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            senders,
            next_client: AtomicU64::new(1),
            primary: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        };
        (Arc::new(shared), receivers)
    }

    /// Does any worker have a connection to the primary?
    pub fn is_primary_connected(&self) -> bool {
        self.primary.iter().any(|connected| connected.load(Ordering::Relaxed))
    }

    fn next_client(&self) -> ClientId {
        ClientId(self.next_client.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a worker says of itself.
#[derive(Debug)]
pub struct WorkerSnapshot {
    pub worker: usize,
    pub pools: Vec<PoolSnapshot>,
    pub clients: Vec<ClientSnapshot>,
}

/// One worker. Everything in it belongs to its thread.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub stats: Arc<WorkerStats>,
    pub pools: Rc<Pools>,
    pub buffers: Buffers,
    pub interner: RefCell<Interner>,
    clients: RefCell<FxHashMap<ClientId, Rc<Client>>>,
    welcomes: RefCell<Welcomes>,
    settled: RefCell<Arc<Settled>>,
    life: Cell<Life>,
    next_replica: Cell<usize>,
    tasks: RefCell<JoinSet<()>>,
    cancels: Rc<tokio::sync::Semaphore>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Serving,
    Draining,
}

/// The other workers, as the pools reach them.
struct Others(Arc<Shared>);

impl Neighbours for Others {
    fn try_send(&self, to: WorkerId, message: PoolMessage) -> Result<(), Box<PoolMessage>> {
        let Some(sender) = self.0.senders.get(to.0) else { return Err(Box::new(message)) };
        sender.try_send(Message::Pool(message)).map_err(|refused| match refused.into_inner() {
            Message::Pool(message) => Box::new(message),
            _ => unreachable!("the message that was refused is the one that was sent"),
        })
    }

    fn workers(&self) -> usize {
        self.0.senders.len()
    }
}

/// Runs worker `index` on this thread until it is told to stop and its clients are gone.
pub fn run(
    index: usize,
    shared: Arc<Shared>,
    settled: Arc<Settled>,
    listeners: Vec<Bound>,
    receiver: mpsc::Receiver<Message>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For the hashing of passwords alone.
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let worker = Worker::new(index, shared, settled);
        let listeners: Vec<Listener> =
            listeners.into_iter().map(Listener::new).collect::<Result<_, _>>()?;
        worker.warm();
        worker.serve(listeners, receiver).await;
        Ok(())
    })
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>, settled: Arc<Settled>) -> Rc<Self> {
        let pools = Pools::new(
            WorkerId(index),
            shared.pools.clone(),
            settled.pools.clone(),
            Box::new(ServerLogin { parameters: settled.server_parameters.clone() }),
            Box::new(Others(shared.clone())),
        );
        Rc::new(Self {
            index,
            stats: shared.stats.get(index).cloned().unwrap_or_default(),
            shared,
            pools,
            buffers: Buffers::default(),
            interner: RefCell::default(),
            clients: RefCell::default(),
            welcomes: RefCell::default(),
            settled: RefCell::new(settled),
            life: Cell::new(Life::Serving),
            next_replica: Cell::new(index),
            tasks: RefCell::default(),
            cancels: Rc::new(tokio::sync::Semaphore::new(CANCELS_MAX)),
        })
    }

    /// Fills the pools that the configuration itself names.
    fn warm(&self) {
        let settled = self.settled();
        let now = Instant::now();
        for (key, credentials) in &settled.warm {
            self.pools.warm(key, credentials, now);
        }
    }

    async fn serve(
        self: Rc<Self>,
        listeners: Vec<Listener>,
        mut messages: mpsc::Receiver<Message>,
    ) {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let worker = self.clone();
            accepting.spawn_local(async move { worker.accept(listener).await });
        }
        let mut tick = tokio::time::interval(Pools::TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Both branches are cancel safe.
            tokio::select! {
                message = messages.recv() => match message {
                    Some(Message::Drain) => {
                        accepting.abort_all();
                        self.drain();
                    }
                    Some(message) => self.handle(message),
                    None => break,
                },
                _ = tick.tick() => self.maintain(),
                // A lease was dropped: its place is free at once.
                () = self.pools.tick() => self.maintain(),
            }
            let done = self.life.get() == Life::Draining && self.clients.borrow().is_empty();
            if done && self.tasks.borrow().is_empty() {
                break;
            }
        }
        self.pools.close_all(Instant::now());
    }

    fn handle(self: &Rc<Self>, message: Message) {
        match message {
            Message::Client(accepted, peer) => self.take_over(accepted, peer),
            Message::Pool(message) => self.pools.handle_message(message, Instant::now()),
            Message::Cancel(client, cancel) => {
                if let Some(client) = self.clients.borrow().get(&client) {
                    client.request_cancel(cancel);
                }
            }
            Message::Snapshot(reply) => {
                // Who asked may have given up.
                let _ = reply.send(self.snapshot());
            }
            Message::Reload(settled) => self.reload(settled),
            Message::Drain => self.drain(),
            Message::Cut => self.cut(),
        }
    }

    pub fn settled(&self) -> Arc<Settled> {
        self.settled.borrow().clone()
    }

    fn reload(&self, settled: Arc<Settled>) {
        self.pools.set_config(settled.pools.clone(), Instant::now());
        for welcome in self.welcomes.borrow().values() {
            welcome.borrow_mut().forget();
        }
        for client in self.clients.borrow().values() {
            client.read_pools.borrow_mut().clear();
        }
        *self.settled.borrow_mut() = settled;
        self.warm();
    }

    // --- clients come --------------------------------------------------------------------------------

    async fn accept(self: Rc<Self>, listener: Listener) {
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
        let moved = match socket {
            Socket::Tcp(stream) => stream.into_std().map(Accepted::Tcp),
            Socket::Unix(stream) => stream.into_std().map(Accepted::Unix),
        };
        let sent = match (moved, self.shared.senders.get(chosen)) {
            (Ok(moved), Some(sender)) => sender.try_send(Message::Client(moved, peer)).is_ok(),
            _ => false,
        };
        if !sent {
            self.shared.loads.leave(chosen);
        }
    }

    fn take_over(self: &Rc<Self>, accepted: Accepted, peer: Peer) {
        let socket = match accepted {
            Accepted::Tcp(stream) => tokio::net::TcpStream::from_std(stream).map(Socket::Tcp),
            Accepted::Unix(stream) => tokio::net::UnixStream::from_std(stream).map(Socket::Unix),
        };
        match socket {
            Ok(socket) => self.spawn_client(socket, peer),
            Err(_) => self.shared.loads.leave(self.index),
        }
    }

    fn spawn_client(self: &Rc<Self>, socket: Socket, peer: Peer) {
        let worker = self.clone();
        self.tasks.borrow_mut().spawn_local(async move {
            worker.stats.clients_open.increment();
            // Boxed, so that what a login needs is given back when it is over.
            Box::pin(worker.clone().welcome(socket, peer)).await;
            worker.stats.clients_open.decrement();
            worker.shared.loads.leave(worker.index);
        });
    }

    /// One client from its first byte to its last.
    async fn welcome(self: Rc<Self>, socket: Socket, peer: Peer) {
        let settled = self.settled();
        let admitted = self.shared.loads.total() <= settled.config.limits.clients_max
            && self.life.get() == Life::Serving;
        let outcome = Box::pin(login::login(socket, peer, &settled.login)).await;
        match outcome {
            LoginOutcome::Done(logged_in) => {
                let connection =
                    Box::pin(self.clone().greet(*logged_in, peer, admitted_or_not(admitted))).await;
                let Some((connection, client)) = connection else { return };
                drop(settled);
                let reason = connection.run().await;
                self.forget(&client, reason);
            }
            LoginOutcome::Cancel { stream, pid, secret } => {
                if let Some(holder) = self.shared.keys.find(pid, &secret) {
                    self.stats.cancels.increment();
                    self.forward_cancel(holder).await;
                }
                drop(stream);
            }
            LoginOutcome::Closed(reason) => {
                self.stats.logins_failed.increment();
                tracing::debug!(?peer, reason = reason.label(), "login ended");
            }
        }
    }

    /// Returns when the request has been seen to, or after a bound.
    async fn forward_cancel(&self, holder: Holder) {
        let Some(sender) = self.shared.senders.get(holder.worker) else { return };
        let (cancel, seen_to) = Cancel::new();
        let forward = async {
            if sender.send(Message::Cancel(holder.client, cancel)).await.is_ok() {
                // An error is the answer: the request was dropped when it had been seen to.
                let _ = seen_to.await;
            }
        };
        let _ = tokio::time::timeout(tidegate_core::limits::CONNECT_TIME_MAX, forward).await;
    }

    /// From AuthenticationOk to a connection that serves statements; `None` when the client was turned away.
    async fn greet(
        self: Rc<Self>,
        mut logged_in: LoggedIn,
        peer: Peer,
        admission: Admission,
    ) -> Option<(Connection, Rc<Client>)> {
        let refusal = match (admission, &logged_in.replication) {
            (Admission::Refused, _) if self.life.get() == Life::Draining => {
                Some(Refusal::fatal("57P03", "the database system is shutting down"))
            }
            (Admission::Refused, _) => Some(
                Refusal::fatal("53300", "sorry, too many clients already")
                    .hint("Raise limits.clients_max, or close connections that are not used."),
            ),
            (Admission::Granted, Replication::None) => None,
            (Admission::Granted, _) => Some(
                Refusal::fatal("0A000", "replication connections are not supported by Tidegate")
                    .hint("Connect to the PostgreSQL server itself."),
            ),
        };
        if let Some(refusal) = refusal {
            turn_away(&mut logged_in.stream, &refusal).await;
            return None;
        }
        match self.clone().prepare(&logged_in, peer).await {
            Ok((client, session, welcome)) => {
                self.stats.logins_ok.increment();
                let LoggedIn { stream, pending, .. } = logged_in;
                let connection =
                    Connection::new(self, client.clone(), stream, session, &pending, &welcome);
                Some((connection, client))
            }
            Err(refusal) => {
                self.stats.logins_failed.increment();
                turn_away(&mut logged_in.stream, &refusal).await;
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
        let write = PoolKey {
            database: database.clone(),
            user: user.clone(),
            instance: 0,
            kind: PoolKind::Write,
        };
        let write_pool = self.pools.pool(&write, &logged_in.credentials, now);
        let id = self.shared.next_client();
        let welcome = self.welcome_of(&database, &user);
        let wanted = &logged_in.parameters;
        let known = welcome.borrow().recall(wanted);
        let settings = match known {
            Some(settings) => settings,
            None => self.ask_for_settings(&write_pool, id, wanted, &welcome).await?,
        };
        let holder = Holder { worker: self.index, client: id };
        let Some((key_pid, secret)) = self.shared.keys.issue(holder) else {
            return Err(Refusal::fatal(
                "58000",
                "the system has no random numbers for a cancel key",
            ));
        };
        let tls = if logged_in.stream.is_encrypted() { Encrypted::Yes } else { Encrypted::No };
        let credentials = logged_in.credentials.clone();
        let new = NewClient {
            id,
            user: user.clone(),
            database: database.clone(),
            peer,
            tls,
            credentials,
            key_pid,
            write_pool,
        };
        let client = Client::new(new, now);
        *client.application.borrow_mut() =
            settings.get("application_name").unwrap_or_default().into();
        client.set_state(State::Idle, now);
        self.clients.borrow_mut().insert(id, client.clone());
        let mode = match settled.config.pool_settings(&database, &user).mode {
            config::PoolMode::Transaction => PoolMode::Transaction,
            config::PoolMode::Session => PoolMode::Session,
        };
        let mut bytes = Vec::new();
        welcome.borrow().write(&settings, (key_pid, &secret), &mut bytes);
        Ok((client, Session::new(id, mode, settings), bytes))
    }

    fn welcome_of(&self, database: &Arc<str>, user: &Arc<str>) -> Rc<RefCell<Welcome>> {
        let key = (database.clone(), user.clone());
        self.welcomes.borrow_mut().entry(key).or_default().clone()
    }

    /// Has a server check the start-up settings.
    async fn ask_for_settings(
        &self,
        pool: &Rc<PoolCell>,
        id: ClientId,
        wanted: &greeting::Parameters,
        welcome: &RefCell<Welcome>,
    ) -> Result<Arc<tidegate_core::settings::Settings>, Refusal> {
        let mut lease = self.lease(pool, id).await?;
        let asked = tokio::time::timeout(
            tidegate_core::limits::CONNECT_TIME_MAX,
            greeting::settle(&mut lease.server, wanted),
        );
        match asked.await {
            Ok(Ok(settings)) => {
                welcome.borrow_mut().remember(
                    wanted.clone(),
                    settings.clone(),
                    &lease.server.parameters,
                );
                lease.release(Fitness::Fit, Instant::now());
                Ok(settings)
            }
            Ok(Err(Rejected::ByServer(refusal))) => {
                lease.release(Fitness::Fit, Instant::now());
                Err(refusal)
            }
            Ok(Err(Rejected::Lost(_))) | Err(_) => Err(Refusal::fatal(
                "08006",
                "the server was lost while it checked start-up settings",
            )
            .hint("Try again, and look at the server's log for the cause.")),
        }
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
        .map_err(|refusal| Refusal { severity: tidegate_core::refusal::Severity::Fatal, ..refusal })
    }

    /// The pool that a read on a replica uses: replicas take turns; the primary stands in when there is none.
    pub fn read_pool(&self, client: &Client, now: Instant) -> Rc<PoolCell> {
        let replicas = self.settled.borrow().config.cluster.replicas.len();
        let turn = self.next_replica.get();
        self.next_replica.set(turn.wrapping_add(1));
        let instance = if replicas == 0 { 0 } else { 1 + turn % replicas };
        let mut pools = client.read_pools.borrow_mut();
        if pools.len() <= instance {
            pools.resize(instance + 1, None);
        }
        if let Some(pool) = pools.get(instance).cloned().flatten() {
            return pool;
        }
        let key = PoolKey {
            database: client.database.clone(),
            user: client.user.clone(),
            instance,
            kind: PoolKind::Read,
        };
        let pool = self.pools.pool(&key, &client.credentials, now);
        if let Some(place) = pools.get_mut(instance) {
            *place = Some(pool.clone());
        }
        pool
    }

    // --- clients go ----------------------------------------------------------------------------------

    fn forget(&self, client: &Client, reason: CloseReason) {
        self.shared.keys.revoke(client.key_pid);
        self.clients.borrow_mut().remove(&client.id);
        let kind = match reason {
            CloseReason::ClientProtocol => Some(ErrorKind::Protocol),
            CloseReason::ServerProtocol => Some(ErrorKind::Internal),
            CloseReason::ServerDisconnected | CloseReason::ServerFatal => {
                Some(ErrorKind::ServerLost)
            }
            CloseReason::ShuttingDown => Some(ErrorKind::Shutdown),
            CloseReason::ClientDisconnected if client.server.get().is_some() => {
                Some(ErrorKind::ClientLost)
            }
            _ => None,
        };
        if let Some(kind) = kind {
            self.stats.errors.increment(kind);
        }
        tracing::debug!(client = client.id.0, reason = reason.label(), "client left");
    }

    fn drain(&self) {
        self.life.set(Life::Draining);
        let refusal = Rc::new(
            Refusal::fatal("57P01", "terminating connection due to administrator command")
                .detail("Tidegate is shutting down."),
        );
        for client in self.clients.borrow().values() {
            client.request_close(CloseRequest::AtRest(refusal.clone()));
        }
    }

    fn cut(&self) {
        let refusal = Rc::new(
            Refusal::fatal("57P01", "terminating connection due to administrator command")
                .detail("Tidegate is shutting down, and the time for transactions to end is over."),
        );
        for client in self.clients.borrow().values() {
            client.request_close(CloseRequest::Now(refusal.clone()));
        }
    }

    // --- upkeep --------------------------------------------------------------------------------------

    fn maintain(&self) {
        let now = Instant::now();
        self.pools.maintain(now);
        if let Some(connected) = self.shared.primary.get(self.index) {
            connected.store(self.pools.is_connected(0), Ordering::Relaxed);
        }
        while self.tasks.borrow_mut().try_join_next().is_some() {}
        self.end_idle_clients(now);
    }

    fn end_idle_clients(&self, now: Instant) {
        let settled = self.settled.borrow();
        let limits = &settled.config.limits;
        if limits.client_idle_timeout.is_none() && limits.idle_in_transaction_timeout.is_none() {
            return;
        }
        for client in self.clients.borrow().values() {
            let idle = now.saturating_duration_since(client.since.get());
            let over = |limit: Option<Duration>| limit.is_some_and(|limit| idle > limit);
            let refusal = match client.state_name() {
                "idle" | "pinned" if over(limits.client_idle_timeout) => {
                    Refusal::fatal("57P05", "terminating connection due to idle-session timeout")
                        .hint("limits.client_idle_timeout sets it.")
                }
                "in_transaction" | "in_failed_transaction"
                    if over(limits.idle_in_transaction_timeout) =>
                {
                    Refusal::fatal(
                        "25P03",
                        "terminating connection due to idle-in-transaction timeout",
                    )
                    .hint("limits.idle_in_transaction_timeout sets it.")
                }
                _ => continue,
            };
            self.stats.errors.increment(ErrorKind::IdleTimeout);
            client.request_close(CloseRequest::Now(Rc::new(refusal)));
        }
    }

    /// Sends a cancel request to a server and calls `done` when the server has taken it.
    pub fn cancel_server(
        self: &Rc<Self>,
        target: Arc<Target>,
        key: BackendKey,
        done: impl FnOnce() + 'static,
    ) {
        let turns = self.cancels.clone();
        self.tasks.borrow_mut().spawn_local(async move {
            if let Ok(_turn) = turns.acquire().await
                && let Err(error) = crate::upstream::cancel(&target, &key).await
            {
                tracing::warn!(server = &*target.name, %error, "cannot cancel a statement");
            }
            done();
        });
    }

    fn snapshot(&self) -> WorkerSnapshot {
        let now = Instant::now();
        let ms = |since: Instant| {
            u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
        };
        let clients = self.clients.borrow();
        let clients = clients.values().map(|client| ClientSnapshot {
            id: client.id.0,
            worker: self.index,
            user: client.user.to_string(),
            database: client.database.to_string(),
            application: client.application.borrow().to_string(),
            peer: match client.peer {
                Peer::Tcp(address) => address.to_string(),
                Peer::Unix => "unix".to_owned(),
            },
            tls: client.tls == Encrypted::Yes,
            state: client.state_name(),
            pinned_by: client.pins.get().names().collect(),
            server: client.server.get().map(|ServerId(id)| id),
            connected_ms: ms(client.connected_at),
            state_ms: ms(client.since.get()),
            transactions: client.transactions.get(),
            statements: client.statements.get(),
            prepared: client.prepared.get(),
        });
        WorkerSnapshot {
            worker: self.index,
            pools: self.pools.snapshot(now),
            clients: clients.collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Granted,
    Refused,
}

fn admitted_or_not(admitted: bool) -> Admission {
    if admitted { Admission::Granted } else { Admission::Refused }
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

/// Tells a client why it is not served, within a bound.
async fn turn_away(stream: &mut Stream, refusal: &Refusal) {
    use tokio::io::AsyncWriteExt as _;
    let mut bytes = Vec::new();
    refusal.write(&mut bytes);
    let goodbye = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
}
