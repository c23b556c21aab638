//! Builds everything from a configuration, waits for signals, reloads, drains.

mod asked; // what the admin API may ask
mod cache; // what it may ask about what is kept
mod explain; // what a statement would come to
mod handover; // from one process to the next
mod http; // what the HTTP endpoint reaches the workers by
mod pausing; // pause, resume, reconnect
mod readiness; // can the primary be reached?
mod record; // what runs, for a while
mod roles; // another server in the place of the primary
mod snapshot; // what the workers and plugins are doing
mod warm; // answers that are to be there before anybody asks

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_cache::{Bounds, Entries};
use tidegate_core::limits;
use tidegate_policy::Compiler;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::admin::{self, Phase, ReloadReport};
use crate::alerts::Alerts;
use crate::config::{Config, ConfigSource, IoDriver, Listen, ServerAddress, diff};
use crate::control::{self, ClusterOrder, Watched};
use crate::data::limiting::Limits;
use crate::data::listener::Bound;
use crate::data::login::draw_secret;
use crate::data::worker::{self, Message, Settled, Shared, Transactions};
use crate::exit::Exit;
use crate::observe::log;
use crate::open_files;
use crate::plugins::{ChildProcess, KeptCode, Plugins};
use crate::rates::Counters;
use crate::results::Results;
use crate::settle;
use crate::uring;
pub use handover::Beginning;
use handover::Sockets;
use readiness::Readiness;

/// After the grace has ended, clients are given this long to be told.
const CUT_TIME_MAX: Duration = Duration::from_secs(3);
/// Orders about the cluster that may wait.
const ORDERS_MAX: usize = 4;
/// Room for what applications put.
const ENTRIES: Bounds = Bounds {
    entries: limits::CACHE_ENTRIES_MAX,
    bytes: limits::CACHE_ENTRIES_BYTES_MAX,
    ttl: limits::POLICY_TTL_MAX,
};

/// Serves until told to stop, with the process's signals.
pub fn run(config: Config, source: ConfigSource, beginning: Beginning) -> Exit {
    let log = match log::init(&config.log) {
        Ok(log) => Some(log),
        Err(message) => {
            eprintln!("tidegate: {message}");
            return Exit::Usage;
        }
    };
    for warning in crate::config::redact::warnings(&config) {
        tracing::warn!("{warning}");
    }
    match open_files::raise() {
        Ok(limit) if limit < 2 * config.limits.clients_max as u64 => {
            tracing::warn!(
                limit,
                clients_max = config.limits.clients_max,
                "few open files are allowed: raise ulimit -n"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
    let server = match Server::start(config, source, beginning) {
        Ok(server) => server,
        Err((exit, message)) => {
            tracing::error!("{message}");
            return exit;
        }
    };
    let exit = server.wait_for_signals(log.as_ref());
    tracing::info!(code = exit.code(), "stopped: {}", exit.meaning());
    exit
}

/// A running Tidegate: its threads, and the way to stop it.
pub struct Server {
    control: Arc<Handle>,
    workers: Vec<thread::JoinHandle<io::Result<()>>>,
    admin: Option<admin::AdminHandle>,
    handover: Option<crate::handover::Open>,
    /// As bound: port 0 is resolved.
    pub addresses: Vec<String>,
}

/// What the admin API and signals act on.
pub struct Handle {
    shared: Arc<Shared>,
    plugins: Arc<Plugins>,
    phase: AtomicU8,
    source: ConfigSource,
    settled: RwLock<Arc<Settled>>,
    /// The control plane's part of it.
    watched: watch::Sender<Arc<Watched>>,
    /// Another process serves the same cluster, and promotes where this one would.
    yields: AtomicBool,
    /// The server that has taken the place of the primary that is configured.
    adopted: Mutex<Option<ServerAddress>>,
    orders: mpsc::Sender<ClusterOrder>,
    alerts: Alerts,
    reloading: Mutex<()>,
    drain: Notify,
    draining: AtomicBool,
    /// Copies of the sockets that listen, for a successor.
    listening: Mutex<crate::handover::Listeners>,
    /// A successor has them, and is not ready.
    is_offered: AtomicBool,
    handed_over: Notify,
    /// Where the successor listens.
    kept: Mutex<Vec<String>>,
    started_at: Instant,
    fake_secret: [u8; 32],
    readiness: Arc<Readiness>,
    /// What applications have put.
    entries: Mutex<Entries>,
    http: http::Endpoint,
}

impl Server {
    /// Binds, starts the workers and the admin API.
    ///
    /// # Errors
    /// What failed, and the exit code for it.
    pub fn start(
        config: Config,
        source: ConfigSource,
        beginning: Beginning,
    ) -> Result<Self, (Exit, String)> {
        let random = |error| (Exit::Failure, format!("no random numbers: {error}"));
        let fake_secret = draw_secret().map_err(random)?;
        let seed = u128::from_le_bytes(draw_secret().map_err(random)?);
        let settled = settle::settle(config, fake_secret).map(Arc::new);
        let settled = settled.map_err(|message| (Exit::Usage, message))?;
        let config = settled.config.clone();
        let Sockets { inherited, mut handover, bound, admin, http, listening } =
            Sockets::open(&config, beginning)?;
        let addresses: Vec<String> =
            bound.iter().zip(&config.listen).map(|(bound, listen)| bound.address(listen)).collect();
        let plugins = start_plugins(&config)?;
        let policies = Arc::clone(plugins.registry());
        let limits = start_limits(&config)?;
        let results = Results::new(&config.cache, seed);
        let siblings = handover.as_ref().map(crate::handover::Open::siblings);
        let (shared, receivers) =
            Shared::new(config.workers, config.peer_id, seed, policies, limits, results, siblings);
        shared.pools.set_quotas(settle::server_quotas(&config));
        let told = Arc::downgrade(&shared);
        shared.pools.set_nudge(move || {
            if let Some(shared) = told.upgrade() {
                // Whoever does not take it looks at its next tick.
                shared.nudge();
            }
        });
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let alerts = Alerts::start()
            .map_err(|error| (Exit::Failure, format!("cannot start alerts: {error}")))?;
        let control = Arc::new(Handle {
            shared: shared.clone(),
            plugins,
            phase: AtomicU8::new(phase_number(Phase::Starting)),
            source,
            settled: RwLock::new(settled.clone()),
            watched: watch::Sender::new(roles::watched(&settled, inherited.is_some())),
            yields: AtomicBool::new(inherited.is_some()),
            adopted: Mutex::default(),
            orders,
            alerts,
            reloading: Mutex::default(),
            drain: Notify::new(),
            draining: AtomicBool::new(false),
            listening: Mutex::new(listening),
            is_offered: AtomicBool::new(false),
            handed_over: Notify::new(),
            kept: Mutex::default(),
            started_at: Instant::now(),
            fake_secret,
            readiness: Arc::default(),
            entries: Mutex::new(Entries::new(ENTRIES)),
            http: http::Endpoint::default(),
        });
        control.start_control_plane(ordered)?;
        if let Some(open) = &mut handover {
            handover::serve(open, control.clone())?;
        }
        let workers = start_workers(&shared, &settled, &bound, receivers)?;
        let admin = start_admin(&config, admin, &control)?;
        control.start_http(&config, http)?;
        control.set_phase(Phase::Serving);
        inherited.ready();
        control.set_yields(false);
        addresses.iter().for_each(|address| tracing::info!(%address, "listening"));
        Ok(Self { control, workers, admin, handover, addresses })
    }

    /// To ask for a drain from another thread.
    pub fn handle(&self) -> Arc<Handle> {
        self.control.clone()
    }

    /// Reloads on SIGHUP; drains on SIGTERM, SIGINT, or when the admin API says so; a second signal cuts.
    fn wait_for_signals(mut self, log: Option<&log::LogHandle>) -> Exit {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return Exit::Failure;
        };
        let control = self.control.clone();
        let admin = &mut self.admin;
        let wait = async {
            let (mut hangup, mut terminate, mut interrupt) = (
                signal(SignalKind::hangup())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            );
            loop {
                // All branches are cancel safe.
                tokio::select! {
                    _ = hangup.recv() => report_reload(&control.reload_now(), log),
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    () = control.drain.notified() => break,
                    () = control.handed_over.notified() => {
                        // The successor's answers from now on.
                        drop(admin.take());
                        let grace = control.settled().config.handover.grace;
                        tokio::select! {
                            () = control.outlive(grace) => {}
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                        }
                        break;
                    }
                }
            }
            control.drain_now();
            let grace = control.settled().config.limits.shutdown_grace;
            tracing::info!(grace_s = grace.as_secs(), "draining");
            Ok::<_, io::Error>(tokio::select! {
                () = control.all_gone() => Exit::Ok,
                () = tokio::time::sleep(grace) => Exit::NotDrained,
                _ = terminate.recv() => Exit::NotDrained,
                _ = interrupt.recv() => Exit::NotDrained,
            })
        };
        let exit = runtime.block_on(wait).unwrap_or(Exit::Failure);
        self.finish(exit)
    }

    /// Drains without signals; for the demo.
    pub fn stop(self) -> Exit {
        self.control.drain_now();
        let deadline = Instant::now() + CUT_TIME_MAX;
        while self.control.shared.loads.total() > 0 && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(10));
        }
        self.finish(Exit::Ok)
    }

    fn finish(mut self, exit: Exit) -> Exit {
        if exit == Exit::NotDrained {
            self.control.shared.tell_all(|| Message::Cut);
        }
        let deadline = Instant::now() + CUT_TIME_MAX;
        while self.workers.iter().any(|worker| !worker.is_finished()) && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
        self.control.stop_http();
        if self.workers.iter().all(thread::JoinHandle::is_finished) {
            self.control.leave();
        }
        self.control.set_phase(Phase::Stopped);
        for listen in &self.control.settled().config.listen {
            if let Listen::Unix(path) = listen
                && !self.control.is_kept(listen)
            {
                let _ = std::fs::remove_file(path);
            }
        }
        drop(self.admin.take());
        drop(self.handover.take());
        exit
    }
}

/// The sandbox, with what the configuration pins and the state directory holds.
fn start_plugins(config: &Config) -> Result<Arc<Plugins>, (Exit, String)> {
    let failed = |error| (Exit::Failure, format!("cannot start the plugins: {error}"));
    let seed = draw_secret().map_err(|error| failed(error.to_string()))?;
    let seed = u64::from_le_bytes(seed);
    let compiler: Arc<dyn Compiler> = match &config.plugins.state_dir {
        Some(state_dir) => Arc::new(KeptCode::new(state_dir)),
        None => Arc::new(ChildProcess),
    };
    Plugins::start(&config.plugins, &config.rates, config.workers, seed, Some(compiler))
        .map_err(failed)
}

/// The counts, and whoever asks the Redis that they are shared in.
fn start_limits(config: &Config) -> Result<Arc<Limits>, (Exit, String)> {
    let counters = Counters::start(&config.rates, config.peers.len());
    let failed = |error| (Exit::Failure, format!("cannot start to count limits: {error}"));
    Ok(Limits::new(config.rates.clone(), counters.map_err(failed)?))
}

fn start_admin(
    config: &Config,
    listener: Option<TcpListener>,
    control: &Arc<Handle>,
) -> Result<Option<admin::AdminHandle>, (Exit, String)> {
    let (Some(admin), Some(listener)) = (&config.admin, listener) else { return Ok(None) };
    let started = admin::start(listener, admin, control.clone());
    started.map(Some).map_err(|error| (Exit::Failure, format!("the admin API: {error}")))
}

fn start_workers(
    shared: &Arc<Shared>,
    settled: &Arc<Settled>,
    bound: &[Bound],
    receivers: Vec<mpsc::Receiver<Message>>,
) -> Result<Vec<thread::JoinHandle<io::Result<()>>>, (Exit, String)> {
    let failed = |error: io::Error| (Exit::Failure, format!("cannot start a worker: {error}"));
    choose_driver(settled.config.io).map_err(|error| (Exit::Failure, error))?;
    let start = |(index, receiver): (usize, mpsc::Receiver<Message>)| {
        let (shared, settled) = (shared.clone(), settled.clone());
        let listeners =
            bound.iter().map(Bound::copy).collect::<io::Result<Vec<_>>>().map_err(failed)?;
        thread::Builder::new()
            .name(format!("tidegate-{index}"))
            .spawn(move || worker::run(index, shared, settled, listeners, receiver))
            .map_err(failed)
    };
    receivers.into_iter().enumerate().map(start).collect()
}

/// Says how sockets will be read and written; an error when it is not as the configuration insists.
fn choose_driver(io: IoDriver) -> Result<(), String> {
    match (io, uring::try_out()) {
        (IoDriver::Epoll, _) => {}
        (IoDriver::Auto, Ok(())) => {
            tracing::info!("sockets are read and written by io_uring while that pays");
        }
        (IoDriver::IoUring, Ok(())) => tracing::info!("sockets are read and written by io_uring"),
        (IoDriver::Auto, Err(error)) => {
            tracing::info!(%error, "sockets are read and written by epoll: the kernel has no io_uring for us");
        }
        (IoDriver::IoUring, Err(error)) => {
            return Err(format!(
                "io = \"io_uring\", but the kernel has none for us: {error}. It takes Linux 6.1, and containers often \
                 forbid it: allow it, or set io = \"auto\"."
            ));
        }
    }
    Ok(())
}

fn report_reload(outcome: &Result<ReloadReport, Vec<String>>, log: Option<&log::LogHandle>) {
    let _ = log;
    match outcome {
        Ok(report) => {
            tracing::info!(changed = ?report.changed, needs_restart = ?report.needs_restart, "configuration reloaded");
        }
        Err(errors) => {
            for error in errors {
                tracing::error!("configuration not reloaded: {error}");
            }
        }
    }
}

const PHASES: [Phase; 4] = [Phase::Starting, Phase::Serving, Phase::Draining, Phase::Stopped];

fn phase_number(phase: Phase) -> u8 {
    PHASES.iter().position(|known| *known == phase).map_or(0, |at| at as u8)
}

impl Handle {
    /// Waits until no client is left; whoever waits sets the bound.
    async fn all_gone(&self) {
        while self.shared.loads.total() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn settled(&self) -> Arc<Settled> {
        self.settled.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase_number(phase), Ordering::Relaxed);
    }

    /// It ends with the handle, whose drop closes `watched`.
    fn start_control_plane(
        self: &Arc<Self>,
        orders: mpsc::Receiver<ClusterOrder>,
    ) -> Result<(), (Exit, String)> {
        let handle = Arc::downgrade(self);
        let adopt = move |name: &str| match handle.upgrade() {
            Some(handle) => handle.adopt(name),
            None => Err("Tidegate is stopping".to_owned()),
        };
        let input = control::Input {
            views: self.shared.views.clone(),
            watched: self.watched.subscribe(),
            schema: self.shared.schema.clone(),
            policies: self.shared.policies.clone(),
            hidden: self.shared.hidden.clone(),
            pools: self.shared.pools.clone(),
            adopt: Box::new(adopt),
            orders,
            results: self.shared.results.clone(),
            counters: self.shared.limits.counters.clone(),
            alerts: self.alerts.clone(),
        };
        let started = control::start(input).map(drop);
        started
            .map_err(|error| (Exit::Failure, format!("cannot start the control plane: {error}")))?;
        // Workers take orders when they run.
        warm::begin(self)
    }

    /// Starts to drain; at most once.
    fn drain_now(&self) {
        if !self.draining.swap(true, Ordering::Relaxed) {
            self.set_phase(Phase::Draining);
            self.close_listeners();
            self.shared.tell_all(|| Message::Drain);
        }
    }

    fn reload_now(&self) -> Result<ReloadReport, Vec<String>> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let words = |errors: Vec<crate::config::ConfigError>| {
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let config = self.source.read().map_err(words)?;
        let old = self.settled();
        let (config, report) = diff::in_force(&old.config, self.in_roles(config));
        let settled =
            Arc::new(settle::settle(config, self.fake_secret).map_err(|message| vec![message])?);
        *self.settled.write().unwrap_or_else(PoisonError::into_inner) = settled.clone();
        self.watch(&settled);
        self.shared.pools.set_quotas(settle::server_quotas(&settled.config));
        let (before, now) = (&old.config.cluster, &settled.config.cluster);
        let retiring = self.shared.retiring(before, now, Transactions::Finish, None);
        self.shared.tell_all(|| Message::Reload(settled.clone(), retiring.clone()));
        Ok(report)
    }
}

/// Work that takes a while, away from the thread of the admin API, which others wait for.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // It is never cancelled.
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

impl Shared {
    /// Has every worker look at what is ordered, if it has room for the word.
    fn nudge(&self) {
        for sender in &self.senders {
            let _ = sender.try_send(Message::Heed(oneshot::channel().0));
        }
    }

    /// Tells every worker. A worker whose queue is full for so long is stuck; that is logged.
    fn tell_all(&self, message: impl Fn() -> Message) {
        for (index, sender) in self.senders.iter().enumerate() {
            if let Err(error) = sender.try_send(message()) {
                tracing::error!(worker = index, %error, "a worker does not take messages");
            }
        }
    }
}
