//! One thread of the data plane: its clients, its pools, its buffers, and the messages others send it.

mod again; // what is read again when it has been written
mod arrivals; // how a client arrives
mod inspecting; // whether what is given is what the primary has
mod placing; // where a client's statement runs
mod replication; // clients with a server connection of their own
mod retiring; // connections to where servers were
mod upkeep; // clients that leave, deadlines, cancels, snapshots
mod warming; // answers that are to be there before anybody asks

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tidegate_core::headcount::Headcount;
use tidegate_core::ids::ClientId;
use tidegate_core::limits::CONNECT_TIME_MAX;
use tidegate_core::session::prepared::{Interner, SchemaChange};
use tidegate_core::statement::{RoleNamed, Signal, StartDefaults};
use tidegate_policy::Registry;
use tidegate_pool::WorkerId;
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::buffers::Buffers;
use super::cancel::{CancelKeys, Holder, Peers};
use super::clients::{Cancel, Client};
use super::greeting::Welcomes;
use super::limiting::Limits;
use super::listener::{Bound, Listener, Loads};
use super::listening::Listeners;
use super::login::{LoginContext, Peer, Throttle};
use super::recording::{Part, Recording};
use super::routing::Routing;
use super::writers::HttpWriters;
use crate::config;
use crate::handover::Siblings;
use crate::hidden::HiddenCodes;
use crate::observe::stats::WorkerStats;
use crate::results::Results;
use crate::stream::LeftSocket;
use crate::upstream::Credentials;
use crate::upstream::pool::{
    Neighbours, PoolKey, PoolMessage, Pools, PoolsConfig, ServerLogin, SharedPools,
};
use crate::uring::{self, Use};
use crate::view::Views;
pub use again::Rereading;
pub use placing::Located;
use placing::Placing;
use replication::Replicating;
pub use retiring::{Retiring, Transactions};
pub use upkeep::WorkerSnapshot;
pub use warming::{Unwarmed, Warm, WarmOrder};

/// Messages one worker may have waiting.
const MESSAGES_MAX: usize = 4_096;
/// Cancel requests under way at once on one worker, to servers and to other Tidegates each; more wait their turn.
const CANCELS_MAX: usize = 16;
/// Threads of one worker that hash passwords.
const BLOCKING_THREADS_MAX: usize = 2;

/// What a worker may be told.
#[derive(Debug)]
pub enum Message {
    /// Another worker accepted it.
    Client(LeftSocket, Peer),
    Pool(PoolMessage),
    Cancel(ClientId, Cancel),
    /// `pg_cancel_backend` or `pg_terminate_backend` of the number that this client was told.
    Signal(ClientId, Signal),
    Snapshot(oneshot::Sender<WorkerSnapshot>),
    /// Statements whose answers are to be there.
    Warm(WarmOrder, oneshot::Sender<Result<Vec<Warm>, Unwarmed>>),
    /// Its part of the record that has just ended.
    Record(oneshot::Sender<Part>),
    /// What the workers share of a reload is dropped by each when it has taken the configuration over.
    Reload(Arc<Settled>, Arc<Retiring>),
    /// Does what was ordered about pools now, not at the next tick, and says when it has.
    Heed(oneshot::Sender<()>),
    /// No new clients: another process has them. Those that are here stay until they go.
    HandedOver(oneshot::Sender<()>),
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
    /// Whom cancel requests are forwarded to.
    pub peers: Peers,
    /// The pools that the configuration itself names: filled at start, kept for ever.
    pub warm: Vec<(PoolKey, Credentials)>,
}

impl std::fmt::Debug for Settled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settled")
    }
}

/// What the workers share.
pub struct Shared {
    pub keys: CancelKeys,
    /// Failed logins, by address.
    pub throttle: Mutex<Throttle>,
    pub loads: Arc<Loads>,
    /// Clients that are logged in, by database and user. Touched when one comes or goes.
    pub heads: Mutex<Headcount>,
    pub pools: Arc<SharedPools>,
    pub stats: Vec<Arc<WorkerStats>>,
    pub senders: Vec<mpsc::Sender<Message>>,
    next_client: AtomicU64,
    /// Changes of schemas that any worker saw pass: see `core::session::prepared::SchemaGeneration`.
    pub schema: Arc<AtomicU64>,
    /// Changes of what sessions begin with: what clients were told before is told no more.
    pub defaults: AtomicU64,
    /// By user: which role, by its OID, its pools' connections are of.
    identities: Mutex<FxHashMap<Arc<str>, Arc<str>>>,
    /// Makes fingerprints of statements this process's own.
    seed: u128,
    /// Who answers for policies.
    pub policies: Arc<Registry>,
    /// What statements have used of their limits.
    pub limits: Arc<Limits>,
    /// Whether somebody records what runs.
    pub recording: Arc<Recording>,
    /// What is known of code that no statement names.
    pub hidden: Arc<HiddenCodes>,
    /// Answers that are kept.
    pub results: Arc<Results>,
    /// Processes that were here before, or are coming.
    pub siblings: Option<Siblings>,
    /// What the control plane knows.
    pub views: Arc<Views>,
    pub http_writers: HttpWriters,
    /// By worker: whether it has a connection to the primary.
    primary: Vec<AtomicBool>,
}

impl Shared {
    /// The shared part for so many workers, and each worker's receiver.
    pub fn new(
        workers: usize,
        peer_id: u8,
        seed: u128,
        policies: Arc<Registry>,
        limits: Arc<Limits>,
        results: Arc<Results>,
        siblings: Option<Siblings>,
    ) -> (Arc<Self>, Vec<mpsc::Receiver<Message>>) {
        let (senders, receivers) = (0..workers).map(|_| mpsc::channel(MESSAGES_MAX)).unzip();
        let shared = Self {
            keys: CancelKeys::new(peer_id),
            throttle: Mutex::default(),
            loads: Loads::new(workers),
            heads: Mutex::default(),
            pools: SharedPools::new(workers),
            stats: (0..workers).map(|_| Arc::default()).collect(),
            senders,
            next_client: AtomicU64::new(1),
            schema: Arc::default(),
            defaults: AtomicU64::new(0),
            identities: Mutex::default(),
            seed,
            policies,
            limits,
            recording: Arc::default(),
            hidden: Arc::default(),
            results,
            siblings,
            views: Arc::default(),
            http_writers: HttpWriters::default(),
            primary: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        };
        (Arc::new(shared), receivers)
    }

    /// What fingerprints begin with in this process.
    pub fn seed(&self) -> u128 {
        self.seed
    }

    /// Does any worker have a connection to the primary?
    pub fn is_primary_connected(&self) -> bool {
        self.primary.iter().any(|connected| connected.load(Ordering::Relaxed))
    }

    /// Tells the other workers that this one has seen a schema change.
    pub fn note_schema(&self, interner: &mut Interner) {
        let Some(change) = interner.take_change() else { return };
        self.schema.fetch_max(interner.generation().0, Ordering::Relaxed);
        if change == SchemaChange::Any {
            self.hidden.forget();
        }
    }

    /// Connections that began with other settings than new ones would are used no more. `user` is whose text changed it.
    pub fn retire(&self, changed: &[StartDefaults], user: &str) {
        if changed.is_empty() {
            return;
        }
        self.defaults.fetch_add(1, Ordering::Relaxed);
        self.pools.reconnect(|key| {
            changed.iter().any(|defaults| {
                let of_user = match &defaults.role {
                    RoleNamed::Any => true,
                    RoleNamed::Own => *key.user == *user,
                    RoleNamed::Name(name) => *key.user == **name,
                };
                of_user && defaults.database.as_deref().is_none_or(|name| name == &*key.database)
            })
        });
    }

    /// Before a login of `user` gets a connection: those that were opened while another role had this name are used no
    /// more. Other logins wait meanwhile, so none of them gets one.
    fn settle_identity(&self, user: &Arc<str>, identity: Arc<str>) {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let before = identities.insert(user.clone(), identity.clone());
        if before.is_some_and(|before| before != identity) {
            tracing::warn!(%user, "another role has this name now: connections of the one before are closed");
            self.retire(&[StartDefaults { role: RoleNamed::Own, database: None }], user);
        }
    }

    /// Has the worker of this client cancel what it runs. Returns when that has been seen to, or after a bound.
    pub async fn cancel(&self, holder: Holder) {
        let Some(sender) = self.senders.get(holder.worker) else { return };
        let (cancel, seen_to) = Cancel::new();
        let forward = async {
            if sender.send(Message::Cancel(holder.client, cancel)).await.is_ok() {
                // An error is the answer: the request was dropped when it had been seen to.
                let _ = seen_to.await;
            }
        };
        let _ = tokio::time::timeout(CONNECT_TIME_MAX, forward).await;
    }

    /// Tells every worker, and waits until each has done it, or so long.
    pub async fn tell(&self, message: impl Fn(oneshot::Sender<()>) -> Message, time_max: Duration) {
        let all = async {
            let mut heeded = Vec::new();
            for sender in &self.senders {
                let (done, is_done) = oneshot::channel();
                // A worker that is gone has nothing to do.
                if sender.send(message(done)).await.is_ok() {
                    heeded.push(is_done);
                }
            }
            for is_done in heeded {
                let _ = is_done.await;
            }
        };
        let _ = tokio::time::timeout(time_max, all).await;
    }

    fn next_client(&self) -> ClientId {
        ClientId(self.next_client.fetch_add(1, Ordering::Relaxed))
    }
}

/// One worker. Everything in it belongs to its thread.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub stats: Arc<WorkerStats>,
    pub pools: Rc<Pools>,
    pub listeners: Listeners,
    pub buffers: Buffers,
    pub interner: RefCell<Interner>,
    clients: RefCell<FxHashMap<ClientId, Rc<Client>>>,
    replicating: RefCell<FxHashMap<ClientId, Rc<Replicating>>>,
    welcomes: RefCell<Welcomes>,
    settled: RefCell<Arc<Settled>>,
    life: Cell<Life>,
    placing: Placing,
    pub routing: RefCell<Routing>,
    tasks: RefCell<JoinSet<()>>,
    cancels: Rc<tokio::sync::Semaphore>,
    /// Cancel requests under way to other Tidegates.
    forwards: tokio::sync::Semaphore,
    own_reads: again::OwnReads,
    /// What its clients were told is committed.
    pub commits: crate::view::Kept,
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
        // A place first: what finds none is then still a pool's message.
        match self.0.senders.get(to.0).map(mpsc::Sender::try_reserve) {
            Some(Ok(place)) => {
                place.send(Message::Pool(message));
                Ok(())
            }
            Some(Err(_)) | None => Err(Box::new(message)),
        }
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
        .on_thread_park(uring::before_park)
        .on_thread_unpark(uring::after_unpark)
        .build_local(LocalOptions::default())?;
    // Dropped before the runtime and the tasks that are left in it, whose sockets it closes.
    let _ring = install_ring(settled.config.io, &runtime)?;
    runtime.block_on(async move {
        let worker = Worker::new(index, shared, settled);
        let listeners: Vec<Listener> =
            listeners.into_iter().map(Listener::new).collect::<Result<_, _>>()?;
        worker.warm();
        worker.serve(listeners, receiver).await;
        Ok(())
    })
}

/// The ring that the configuration wants, as far as the kernel has it.
fn install_ring(
    io: config::IoDriver,
    runtime: &LocalRuntime,
) -> std::io::Result<Option<uring::Installed>> {
    let _runtime = runtime.enter();
    match io {
        config::IoDriver::Epoll => Ok(None),
        config::IoDriver::IoUring => uring::install(Use::Always).map(Some),
        config::IoDriver::Auto => Ok(uring::install(Use::Crowded).ok()),
    }
}

impl Worker {
    fn new(index: usize, shared: Arc<Shared>, settled: Arc<Settled>) -> Rc<Self> {
        let pools = Pools::new(
            WorkerId(index),
            shared.pools.clone(),
            settled.pools.clone(),
            Box::new(ServerLogin),
            Box::new(Others(shared.clone())),
        );
        let (policies, limits) = (shared.policies.clone(), shared.limits.clone());
        let recording = shared.recording.clone();
        let results = shared.results.clone();
        let routing =
            Routing::new(shared.views.clone(), policies, limits, recording, results, shared.seed);
        let stats = shared.stats.get(index).cloned().unwrap_or_default();
        Rc::new(Self {
            index,
            listeners: Listeners::new(stats.clone(), pools.clone()),
            stats,
            commits: shared.views.commits.ring(),
            shared,
            pools,
            buffers: Buffers::default(),
            interner: RefCell::default(),
            clients: RefCell::default(),
            replicating: RefCell::default(),
            welcomes: RefCell::default(),
            settled: RefCell::new(settled),
            life: Cell::new(Life::Serving),
            placing: Placing::new(index),
            routing: RefCell::new(routing),
            tasks: RefCell::default(),
            cancels: Rc::new(tokio::sync::Semaphore::new(CANCELS_MAX)),
            forwards: tokio::sync::Semaphore::new(CANCELS_MAX),
            own_reads: again::OwnReads::default(),
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
                    Some(Message::HandedOver(done)) => {
                        accepting.abort_all();
                        self.pools.retreat(Instant::now());
                        let _ = done.send(());
                    }
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
        self.listeners.close();
        self.pools.close_all(Instant::now());
    }

    fn handle(self: &Rc<Self>, message: Message) {
        match message {
            Message::Client(accepted, peer) => self.take_over(accepted, peer),
            Message::Pool(message) => self.pools.handle_message(message, Instant::now()),
            Message::Cancel(client, cancel) => self.cancel(client, cancel),
            Message::Signal(client, signal) => self.signal(client, signal),
            Message::Snapshot(reply) => {
                // Who asked may have given up.
                let _ = reply.send(self.snapshot());
            }
            Message::Warm(order, told) => self.warm_answers(order, told),
            Message::Record(reply) => {
                let _ = reply.send(self.routing.borrow_mut().recorder.take());
            }
            Message::Reload(settled, retiring) => {
                self.reload(settled);
                if retiring.transactions == Transactions::Lost {
                    self.clients.borrow().values().for_each(|client| client.leave_server());
                    self.listeners.leave_primary();
                    self.cut_replicating();
                }
                drop(retiring);
            }
            Message::Heed(done) => {
                self.maintain();
                let _ = done.send(());
            }
            // `serve` heeds it.
            Message::HandedOver(_) => {}
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
}
