//! Handing over: what this process offers its successor, and what a successor takes over.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidegate_core::limits::CONNECT_TIME_MAX;

use super::Handle;
use crate::admin::{Control as _, Phase};
use crate::config::{Config, Listen};
use crate::data::listener::Bound;
use crate::data::worker::Message;
use crate::exit::Exit;
use crate::handover::{self, Host, Listeners, Predecessor};

/// How a process begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It binds its addresses.
    Alone,
    /// It takes them over from the process that serves, if there is one.
    TakeOver,
}

/// How the admin API's socket is called among the others, and the HTTP endpoint's.
const ADMIN: &str = "admin:";
const HTTP: &str = "http:";

/// What a process begins with.
#[derive(Default)]
pub(super) struct Inherited {
    predecessor: Option<Predecessor>,
    /// Addresses that were taken over.
    kept: Vec<String>,
}

impl Inherited {
    /// Asks the process that serves, if this one is to take over.
    ///
    /// # Errors
    /// Why it does not hand over, and the exit code.
    fn ask(config: &Config, beginning: Beginning) -> Result<Self, (Exit, String)> {
        if beginning == Beginning::Alone {
            return Ok(Self::default());
        }
        let Some(dir) = &config.handover.dir else {
            let words = "--take-over needs handover.dir in the configuration".to_owned();
            return Err((Exit::Usage, words));
        };
        let predecessor = Predecessor::ask(dir)
            .map_err(|words| (Exit::CannotListen, format!("cannot take over: {words}")))?;
        match &predecessor {
            Some(_) => tracing::info!("taking over from the process that serves"),
            None => tracing::info!("nobody serves: nothing to take over"),
        }
        Ok(Self { predecessor, kept: Vec::new() })
    }

    /// Is there a process before this one?
    pub(super) fn is_some(&self) -> bool {
        self.predecessor.is_some()
    }

    fn take(&mut self, name: String) -> Option<OwnedFd> {
        let listeners = &mut self.predecessor.as_mut()?.listeners;
        let at = listeners.iter().position(|(known, _)| *known == name)?;
        self.kept.push(name);
        Some(listeners.swap_remove(at).1)
    }

    /// The socket for this address, if it was handed over.
    fn listener(&mut self, listen: &Listen) -> Option<Bound> {
        let socket = self.take(listen.to_string())?;
        Some(Bound::inherit(listen, socket))
    }

    fn tcp(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        self.take(format!("{name}{address}")).map(Into::into)
    }

    /// This process serves: the other one may stop.
    pub(super) fn ready(self) {
        let Some(predecessor) = self.predecessor else { return };
        match predecessor.ready(self.kept) {
            Ok(()) => tracing::info!("took over: the process before accepts no more clients"),
            Err(error) => tracing::warn!(%error, "the process before was lost"),
        }
    }
}

/// The sockets that a process listens on.
pub(super) struct Sockets {
    pub(super) inherited: Inherited,
    /// For its successor, if hand-over is configured.
    pub(super) handover: Option<handover::Open>,
    /// As `Config::listen`.
    pub(super) bound: Vec<Bound>,
    pub(super) admin: Option<TcpListener>,
    pub(super) http: Option<TcpListener>,
    /// Copies of them.
    pub(super) listening: Listeners,
}

impl Sockets {
    /// Takes over what there is to take over, and binds the rest.
    ///
    /// # Errors
    /// What failed, and the exit code for it.
    pub(super) fn open(config: &Config, beginning: Beginning) -> Result<Self, (Exit, String)> {
        let mut inherited = Inherited::ask(config, beginning)?;
        let handover = open(config)?;
        let bound = bind_all(&config.listen, &mut inherited)?;
        let admin = config.admin.as_ref().map(|admin| admin.address);
        let admin = bind_tcp(admin, (ADMIN, "the admin API"), &mut inherited)?;
        let http = config.http.as_ref().map(|http| http.address);
        let http = bind_tcp(http, (HTTP, "the HTTP endpoint"), &mut inherited)?;
        let listening = listeners(config, &bound, admin.as_ref(), http.as_ref())
            .map_err(|error| (Exit::Failure, format!("cannot copy the sockets: {error}")))?;
        Ok(Self { inherited, handover, bound, admin, http, listening })
    }
}

fn bind_all(listen: &[Listen], inherited: &mut Inherited) -> Result<Vec<Bound>, (Exit, String)> {
    let bind = |listen: &Listen| {
        if let Some(bound) = inherited.listener(listen) {
            return Ok(bound);
        }
        Bound::bind(listen).map_err(|error| {
            let message = format!(
                "cannot listen on {listen}: {error}. Is another process using it? Choose another address with --listen."
            );
            (Exit::CannotListen, message)
        })
    };
    listen.iter().map(bind).collect()
}

/// The socket of something that listens at one address, by its name among the others and its name for people.
fn bind_tcp(
    address: Option<SocketAddr>,
    (name, told): (&str, &str),
    inherited: &mut Inherited,
) -> Result<Option<TcpListener>, (Exit, String)> {
    let Some(address) = address else { return Ok(None) };
    if let Some(listener) = inherited.tcp(name, address) {
        return Ok(Some(listener));
    }
    TcpListener::bind(address).map(Some).map_err(|error| {
        let words = format!("cannot listen on {address} for {told}: {error}");
        (Exit::CannotListen, words)
    })
}

/// What is handed over: copies of every socket that listens.
///
/// # Errors
/// Out of file descriptors.
fn listeners(
    config: &Config,
    bound: &[Bound],
    admin: Option<&TcpListener>,
    http: Option<&TcpListener>,
) -> std::io::Result<Listeners> {
    let mut listeners = Listeners::new();
    for (listen, bound) in config.listen.iter().zip(bound) {
        listeners.push((listen.to_string(), bound.copy()?.into()));
    }
    if let (Some(listener), Some(admin)) = (admin, &config.admin) {
        listeners.push((format!("{ADMIN}{}", admin.address), listener.try_clone()?.into()));
    }
    if let (Some(listener), Some(http)) = (http, &config.http) {
        listeners.push((format!("{HTTP}{}", http.address), listener.try_clone()?.into()));
    }
    Ok(listeners)
}

/// This process's socket in `handover.dir`, if that is configured.
///
/// # Errors
/// It can't be made.
fn open(config: &Config) -> Result<Option<handover::Open>, (Exit, String)> {
    let Some(dir) = &config.handover.dir else { return Ok(None) };
    let failed = |error| (Exit::Failure, format!("handover.dir {}: {error}", dir.display()));
    handover::open(dir).map(Some).map_err(failed)
}

impl Handle {
    /// Waits until the clients that were left are gone, or have had their time.
    pub(super) async fn outlive(&self, grace: Duration) {
        tracing::info!(grace_s = grace.as_secs(), "handed over: clients are served until they go");
        // Either way the drain comes next.
        let _ = tokio::time::timeout(grace, self.all_gone()).await;
    }

    /// Whether a successor listens on this address.
    pub(super) fn is_kept(&self, listen: &Listen) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.contains(&listen.to_string())
    }

    /// A step of a failover or switchover is under way, whose end this process must see.
    fn is_changing_roles(&self) -> bool {
        let topology = self.shared.views.latest().topology.clone();
        topology.is_some_and(|topology| topology.is_changing_roles)
    }

    /// Gives its own copies of the listening sockets up.
    pub(super) fn close_listeners(&self) {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.drain_http();
    }
}

impl Host for Handle {
    fn offer(&self) -> Result<Listeners, String> {
        if self.phase() != Phase::Serving {
            return Err("it is about to end, or was taken over already".to_owned());
        }
        if self.shared.pools.pauses().is_any() {
            return Err("databases are paused: `tidegate resume` first".to_owned());
        }
        if self.is_changing_roles() {
            return Err("another server is about to become primary: try again".to_owned());
        }
        if self.is_offered.swap(true, Ordering::Relaxed) {
            return Err("another process is taking over".to_owned());
        }
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = |(name, socket): &(String, OwnedFd)| {
            socket.try_clone().map(|socket| (name.clone(), socket))
        };
        let copies = listening.iter().map(copy).collect::<std::io::Result<Listeners>>();
        match copies {
            Ok(copies) => {
                // Both serve from now on, and only one of them may promote.
                self.set_yields(true);
                Ok(copies)
            }
            Err(error) => {
                self.is_offered.store(false, Ordering::Relaxed);
                Err(error.to_string())
            }
        }
    }

    fn keep(&self) {
        tracing::warn!("the process that was taking over failed: serving on");
        self.set_yields(false);
        self.is_offered.store(false, Ordering::Relaxed);
    }

    fn hand_over(&self, kept: Vec<String>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        self.set_phase(Phase::Draining);
        self.close_listeners();
        // No worker accepts after this: whoever is here now is served.
        let told = self.shared.tell(Message::HandedOver, CONNECT_TIME_MAX);
        tokio::runtime::Handle::current().block_on(told);
        self.handed_over.notify_one();
    }

    fn cancel(&self, pid: i32, secret: &[u8]) -> bool {
        let Some(holder) = self.shared.keys.find(pid, secret) else { return false };
        tokio::runtime::Handle::current().block_on(self.shared.cancel(holder));
        true
    }
}

/// The way from the process to its successor.
pub(super) fn serve(open: &mut handover::Open, host: Arc<Handle>) -> Result<(), (Exit, String)> {
    open.serve(host).map_err(|error| (Exit::Failure, format!("cannot hand over: {error}")))
}
