//! The connections that listen for clients: for each database and user of a worker at most one, to the primary, while any
//! of its clients listens.
//!
//! Each worker has its own, so that what a client is told never waits for another thread, and a client's own notification
//! comes from the connection that its own worker has just asked. What they decide is `host/listen`; here they are connected,
//! read and written, and clients are woken.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_core::ids::ClientId;
use tidegate_core::limits::{
    CONNECT_TIME_MAX, LISTENER_CHECK_INTERVAL, LISTENER_IDLE_MAX, LISTENER_PAUSE_FIRST,
    LISTENER_PAUSE_MAX,
};
use tidegate_listen::Hub;
use tidegate_wire::backend::{self, tag};
use tidegate_wire::frontend;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::clients::Client;
use crate::observe::stats::WorkerStats;
use crate::upstream::pool::{PoolCell, PoolKey, Pools};
use crate::upstream::{self, ConnectError, Messages, NewServer};

/// What the connection is called in `pg_stat_activity`.
const APPLICATION: &str = "tidegate listener";

/// A worker's.
pub struct Listeners {
    stats: Arc<WorkerStats>,
    pools: Rc<Pools>,
    listeners: RefCell<FxHashMap<PoolKey, Rc<Listener>>>,
    tasks: RefCell<JoinSet<()>>,
}

/// One database's and user's.
pub struct Listener {
    pub hub: RefCell<Hub>,
    clients: RefCell<FxHashMap<ClientId, Rc<Client>>>,
    /// Somebody wants something, or no more.
    changed: Notify,
    /// Is a task at it?
    runs: Cell<bool>,
    pool: Rc<PoolCell>,
}

/// One listener, for the admin API.
#[derive(Clone, Debug)]
pub struct ListenerSnapshot {
    pub key: PoolKey,
    pub is_connected: bool,
    pub clients: usize,
}

impl Listeners {
    pub fn new(stats: Arc<WorkerStats>, pools: Rc<Pools>) -> Self {
        Self { stats, pools, listeners: RefCell::default(), tasks: RefCell::default() }
    }

    /// The one for this client, at work.
    pub fn of(&self, client: &Rc<Client>) -> Rc<Listener> {
        let pool = &client.write_pool;
        let mut listeners = self.listeners.borrow_mut();
        let listener = listeners.entry(pool.key().clone()).or_insert_with(|| {
            Rc::new(Listener {
                hub: RefCell::default(),
                clients: RefCell::default(),
                changed: Notify::new(),
                runs: Cell::new(false),
                pool: pool.clone(),
            })
        });
        listener.clients.borrow_mut().insert(client.id, client.clone());
        if !listener.runs.replace(true) {
            let (listener, pools, stats) =
                (listener.clone(), self.pools.clone(), self.stats.clone());
            self.tasks.borrow_mut().spawn_local(async move {
                listener.run(&pools, &stats).await;
                listener.runs.set(false);
            });
        }
        listener.clone()
    }

    /// Forgets those that nobody needs any more.
    pub fn maintain(&self) {
        while self.tasks.borrow_mut().try_join_next().is_some() {}
        self.listeners.borrow_mut().retain(|_, listener| listener.runs.get());
    }

    pub fn snapshot(&self) -> Vec<ListenerSnapshot> {
        let snapshot = |(key, listener): (&PoolKey, &Rc<Listener>)| {
            let hub = listener.hub.borrow();
            let (clients, _) = hub.counts();
            ListenerSnapshot { key: key.clone(), is_connected: hub.is_connected(), clients }
        };
        self.listeners.borrow().iter().map(snapshot).collect()
    }

    /// The primary is another server: who listens to the one before hears nothing any more.
    pub fn leave_primary(&self) {
        self.listeners.borrow().values().for_each(|listener| listener.wake());
    }

    /// The worker ends.
    pub fn close(&self) {
        self.tasks.borrow_mut().abort_all();
    }
}

impl Listener {
    /// Something has been changed in the hub.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// One that is not has forgotten everybody.
    pub fn is_running(&self) -> bool {
        self.runs.get()
    }

    pub fn leave(&self, client: ClientId) {
        self.hub.borrow_mut().leave(client);
        self.clients.borrow_mut().remove(&client);
        self.wake();
    }

    fn wake_clients(&self) {
        let woken = self.hub.borrow_mut().take_woken();
        if woken.is_empty() {
            return;
        }
        let clients = self.clients.borrow();
        for client in woken {
            if let Some(client) = clients.get(&client) {
                client.wake();
            }
        }
    }

    fn is_needed(&self) -> bool {
        self.hub.borrow().is_wanted()
    }

    /// Connected as long as somebody listens. Cancel safe: dropping it closes the connection.
    async fn run(&self, pools: &Pools, stats: &WorkerStats) {
        let mut pause = LISTENER_PAUSE_FIRST;
        let mut told = None;
        while self.is_still_needed().await {
            let error = match self.connect().await {
                Ok(mut server) => {
                    (pause, told) = (LISTENER_PAUSE_FIRST, None);
                    stats.listeners_open.increment();
                    let ended = self.serve(&mut server, stats).await;
                    stats.listeners_open.decrement();
                    match ended {
                        Ok(()) => {
                            upstream::say_goodbye(server).await;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => {
                    if error.is_server_full() {
                        pools.make_room_at_primary();
                    }
                    error
                }
            };
            let text = error.to_string();
            if told.as_ref() != Some(&text) {
                let PoolKey { database, user, .. } = self.pool.key();
                tracing::warn!(%database, %user, error = %text, "cannot listen for clients");
                told = Some(text);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LISTENER_PAUSE_MAX);
        }
    }

    /// Waits a while for somebody.
    async fn is_still_needed(&self) -> bool {
        let somebody = async {
            while !self.is_needed() {
                self.changed.notified().await;
            }
        };
        timeout(LISTENER_IDLE_MAX, somebody).await.is_ok()
    }

    async fn connect(&self) -> Result<NewServer, ConnectError> {
        while self.pool.is_held() {
            tokio::time::sleep(LISTENER_PAUSE_FIRST).await;
        }
        let (target, credentials) = self.pool.route();
        let PoolKey { database, user, .. } = self.pool.key();
        let settings = [("application_name", APPLICATION)];
        let mut server =
            upstream::connect(&target, database, user, &credentials, &settings).await?;
        upstream::simple_query(&mut server, SETTINGS).await?;
        Ok(server)
    }

    /// `Ok`: nobody listens any more.
    async fn serve(&self, server: &mut NewServer, stats: &WorkerStats) -> Result<(), ConnectError> {
        self.hub.borrow_mut().handle_connected();
        let ended = self.converse(server, stats).await;
        let losses = {
            let mut hub = self.hub.borrow_mut();
            let before = hub.losses();
            hub.handle_lost();
            hub.losses() - before
        };
        stats.listeners_lost.add(losses);
        self.wake_clients();
        ended
    }

    async fn converse(
        &self,
        server: &mut NewServer,
        stats: &WorkerStats,
    ) -> Result<(), ConnectError> {
        let mut messages = Messages::new(&mut server.stream);
        let mut next = Next::Check(Instant::now() + LISTENER_CHECK_INTERVAL);
        let (target, _) = self.pool.route();
        let mut out = Vec::new();
        loop {
            let asked = self.hub.borrow_mut().poll_query();
            if let Some(sql) = asked {
                out.clear();
                frontend::query(&mut out, sql.as_bytes());
                next = Next::Answer(Instant::now() + CONNECT_TIME_MAX);
                timeout(CONNECT_TIME_MAX, messages.send(&out))
                    .await
                    .map_err(|_| ConnectError::Timeout)??;
            }
            self.wake_clients();
            if !self.is_needed() && matches!(next, Next::Check(_)) {
                if !self.is_still_needed().await {
                    return Ok(());
                }
                continue;
            }
            if target.address != self.pool.route().0.address {
                return Err(ConnectError::Policy("the primary is another server now".to_owned()));
            }
            // All branches are cancel safe.
            tokio::select! {
                message = messages.next() => match message? {
                    (tag::NOTIFICATION_RESPONSE, body) => self.tell(body, stats),
                    (tag::READY_FOR_QUERY, b"I") => {
                        self.hub.borrow_mut().handle_ready();
                        next = Next::Check(Instant::now() + LISTENER_CHECK_INTERVAL);
                    }
                    (tag::ERROR_RESPONSE, body) => {
                        let error = upstream::ServerError::read(body);
                        return Err(ConnectError::Refused(Box::new(error)));
                    }
                    _ => {}
                },
                () = self.changed.notified() => {}
                () = sleep_until(next.time()) => match next {
                    Next::Answer(_) => return Err(ConnectError::Timeout),
                    Next::Check(_) => self.hub.borrow_mut().check(),
                },
            }
        }
    }

    fn tell(&self, body: &[u8], stats: &WorkerStats) {
        stats.notifications.increment();
        let Ok((process, channel, payload)) = backend::read_notification_response(body) else {
            return;
        };
        if let Ok(channel) = std::str::from_utf8(channel) {
            self.hub.borrow_mut().handle_notification(process, channel, payload);
        }
    }
}

/// What happens next if nothing else does.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The answer is late.
    Answer(Instant),
    /// It is asked whether it lives.
    Check(Instant),
}

impl Next {
    fn time(self) -> Instant {
        match self {
            Self::Answer(time) | Self::Check(time) => time,
        }
    }
}

/// Clients that speak another encoding keep their servers; nothing can be converted from SQL_ASCII. And nothing that is set
/// for a role or a database may end what is asked here.
const SETTINGS: &str = "\
SELECT pg_catalog.set_config('client_encoding', CASE pg_catalog.current_setting('server_encoding') \
WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false); \
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY['statement_timeout', 'lock_timeout', 'idle_session_timeout', \
'transaction_timeout'])";
