//! What a worker does besides serving: clients that leave or must, deadlines, cancels, snapshots.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidegate_core::ids::{ClientId, Priority, ServerId};
use tidegate_core::refusal::Refusal;
use tidegate_core::session::CloseReason;
use tidegate_core::statement::Signal;

use super::{Life, Worker};
use crate::data::clients::{Cancel, Client, CloseRequest, Encrypted, Idle};
use crate::data::listening::ListenerSnapshot;
use crate::observe::snapshot::ClientSnapshot;
use crate::observe::stats::ErrorKind;
use crate::upstream::pool::PoolSnapshot;
use crate::upstream::{BackendKey, Target};

/// How often what a server runs is cancelled that was given up, and how soon again.
const CANCELS_GIVEN_UP: u32 = 5;
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// What a worker says of itself.
#[derive(Debug)]
pub struct WorkerSnapshot {
    pub worker: usize,
    pub pools: Vec<PoolSnapshot>,
    pub clients: Vec<ClientSnapshot>,
    pub listeners: Vec<ListenerSnapshot>,
}

impl Worker {
    pub(super) fn forget(&self, client: &Client, reason: CloseReason) {
        self.shared.keys.revoke(client.key_pid);
        self.clients.borrow_mut().remove(&client.id);
        client.end(Instant::now());
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

    pub(super) fn drain(&self) {
        self.life.set(Life::Draining);
        let refusal = Rc::new(shutting_down());
        for client in self.clients.borrow().values() {
            client.request_close(CloseRequest::AtRest(refusal.clone()));
        }
    }

    pub(super) fn cut(&self) {
        let refusal = Rc::new(
            Refusal::fatal("57P01", "terminating connection due to administrator command")
                .detail("Tidegate is shutting down, and the time for transactions to end is over."),
        );
        for client in self.clients.borrow().values() {
            client.request_close(CloseRequest::Now(refusal.clone()));
        }
        self.cut_replicating();
    }

    /// Somebody has sent the key of this client.
    pub(super) fn cancel(self: &Rc<Self>, client: ClientId, cancel: Cancel) {
        if let Err(cancel) = self.cancel_replicating(client, cancel)
            && let Some(client) = self.clients.borrow().get(&client)
        {
            client.request_cancel(cancel);
        }
    }

    /// Somebody who may has named the number of this client.
    pub(super) fn signal(self: &Rc<Self>, client: ClientId, signal: Signal) {
        if self.signal_replicating(client, signal) {
            return;
        }
        // It may have left.
        let Some(client) = self.clients.borrow().get(&client).cloned() else { return };
        match signal {
            Signal::Cancel => client.request_cancel(Cancel::new().0),
            Signal::Terminate => client.request_close(CloseRequest::Now(Rc::new(Refusal::fatal(
                "57P01",
                "terminating connection due to administrator command",
            )))),
        }
    }

    pub(super) fn maintain(&self) {
        let now = Instant::now();
        self.pools.maintain(now);
        if self.index == 0 {
            self.shared.hidden.maintain(now);
        }
        if let Some(connected) = self.shared.primary.get(self.index) {
            connected.store(self.pools.is_connected(0), Ordering::Relaxed);
        }
        while self.tasks.borrow_mut().try_join_next().is_some() {}
        self.routing.borrow_mut().recorder.maintain(now);
        self.listeners.maintain();
        self.end_idle_clients(now);
        self.end_long_statements(now);
    }

    /// Has servers cancel what runs longer than is allowed.
    fn end_long_statements(&self, now: Instant) {
        let settled = self.settled.borrow();
        let limits = &settled.config.limits;
        if limits.statement_timeout.is_none() && limits.critical_statement_timeout.is_none() {
            return;
        }
        for client in self.clients.borrow().values() {
            let Some(running) = client.running(now) else { continue };
            let limit = match client.slot.priority() {
                Priority::Normal => limits.statement_timeout,
                Priority::Critical => limits.critical_statement_timeout,
            };
            if let Some(limit) = limit.filter(|limit| running >= *limit) {
                client.request_timeout(limit);
            }
        }
    }

    pub(super) fn end_idle_clients(&self, now: Instant) {
        let settled = self.settled.borrow();
        let limits = &settled.config.limits;
        if limits.client_idle_timeout.is_none() && limits.idle_in_transaction_timeout.is_none() {
            return;
        }
        for client in self.clients.borrow().values() {
            let Some((idle, since)) = client.idle.get() else { continue };
            let (limit, sqlstate, what, key) = match idle {
                Idle::Outside => {
                    (limits.client_idle_timeout, "57P05", "idle-session", "client_idle_timeout")
                }
                Idle::InTransaction => (
                    limits.idle_in_transaction_timeout,
                    "25P03",
                    "idle-in-transaction",
                    "idle_in_transaction_timeout",
                ),
            };
            if limit.is_none_or(|limit| now.saturating_duration_since(since) <= limit) {
                continue;
            }
            let refusal =
                Refusal::fatal(sqlstate, format!("terminating connection due to {what} timeout"))
                    .hint(format!("limits.{key} sets it."));
            // Asked once, counted once.
            client.idle.set(None);
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

    /// The same for a server that is given up in the middle of a statement, which it would end first. A cancel that comes
    /// before its statement has begun does nothing, so it is repeated; the key is nobody else's, however late it comes.
    pub fn cancel_given_up(self: &Rc<Self>, target: Arc<Target>, key: BackendKey) {
        let worker = self.clone();
        self.tasks.borrow_mut().spawn_local(async move {
            for _ in 0..CANCELS_GIVEN_UP {
                worker.cancel_server(target.clone(), key.clone(), || ());
                tokio::time::sleep(CANCEL_INTERVAL).await;
            }
        });
    }

    pub(super) fn snapshot(&self) -> WorkerSnapshot {
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
            peer: client.peer.to_string(),
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
        self.routing.borrow().tell(&self.stats);
        WorkerSnapshot {
            worker: self.index,
            pools: self.pools.snapshot(now),
            clients: clients.chain(self.replicating_snapshots(now)).collect(),
            listeners: self.listeners.snapshot(),
        }
    }
}

/// What a client is told that is at rest during a drain.
pub(super) fn shutting_down() -> Refusal {
    Refusal::fatal("57P01", "terminating connection due to administrator command")
        .detail("Tidegate is shutting down.")
}
