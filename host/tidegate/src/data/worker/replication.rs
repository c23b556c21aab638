//! Clients that are replicas, or read the log: each has a server connection of its own, whose bytes are not looked at.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::ids::ClientId;
use tidegate_core::refusal::Refusal;
use tidegate_core::session::CloseReason;
use tidegate_core::statement::Signal;
use tidegate_wire::backend::{self, TransactionStatus};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::Worker;
use super::arrivals::turn_away;
use crate::data::cancel::Holder;
use crate::data::clients::Cancel;
use crate::data::login::{LoggedIn, Peer};
use crate::data::relay::{Ended, Moved, relay};
use crate::observe::snapshot::ClientSnapshot;
use crate::observe::stats::ErrorKind;
use crate::upstream::{self, BackendKey, NewServer, Target};

/// Each side is given this long to take the end of the stream before its socket closes.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// A client with a server connection of its own.
#[derive(Debug)]
pub(super) struct Replicating {
    id: ClientId,
    user: Arc<str>,
    database: Arc<str>,
    application: Arc<str>,
    peer: Peer,
    encrypted: bool,
    since: Instant,
    /// Process id of its cancel key.
    key_pid: i32,
    target: Arc<Target>,
    server_key: Option<BackendKey>,
    cut: Notify,
}

impl Worker {
    /// One client from the end of its login to its own.
    pub(super) async fn replicate(self: Rc<Self>, mut logged_in: LoggedIn, peer: Peer) {
        let opened = match self.open_for(&logged_in).await {
            Ok((target, server)) => self.register(&logged_in, peer, target, server),
            Err(refusal) => Err(refusal),
        };
        let (replicating, mut server, welcome) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                self.stats.logins_failed.increment();
                return turn_away(&mut logged_in, &refusal).await;
            }
        };
        self.stats.logins_ok.increment();
        let LoggedIn { stream: mut client, pending, .. } = logged_in;
        let stats = &self.stats;
        let count = |from_client: Moved, from_server: Moved| {
            stats.bytes_from_clients.add(from_client.read);
            stats.bytes_to_servers.add(from_client.written);
            stats.bytes_from_servers.add(from_server.read);
            stats.bytes_to_clients.add(from_server.written);
        };
        // What it runs there is not read: while it is here, nothing is kept of its database.
        let (results, database) = (&self.shared.results, &replicating.database);
        let process = replicating.server_key.as_ref().map(|key| key.pid);
        let ((), gates) =
            results.with_gates(process, |store| store.suspend(database, Instant::now()));
        gates.open().await;
        let reason = {
            let relaying = relay(&mut client, &mut server, &pending, &welcome, count);
            // Nothing is resumed after either branch.
            tokio::select! {
                ended = relaying => match ended {
                    Ended::Client => CloseReason::ClientDisconnected,
                    Ended::Server => CloseReason::ServerDisconnected,
                },
                () = replicating.cut.notified() => CloseReason::ShuttingDown,
            }
        };
        results.with(|store| store.resume(database, Instant::now()));
        self.leave(&replicating, reason);
        let goodbye = async { tokio::join!(client.shutdown(), server.shutdown()) };
        // Both sockets are closed either way.
        let _ = tokio::time::timeout(GOODBYE_TIME_MAX, goodbye).await;
    }

    /// To the primary, with the client's own start-up parameters.
    async fn open_for(&self, client: &LoggedIn) -> Result<(Arc<Target>, NewServer), Refusal> {
        let settled = self.settled();
        let target = settled.pools.targets.first().cloned();
        let (Some(target), Some(replication)) = (target, client.replication.parameter()) else {
            return Err(Refusal::fatal("58000", "there is no primary to replicate from"));
        };
        let own = client.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parameters: Vec<_> = [("replication", replication)].into_iter().chain(own).collect();
        let (database, user) = (&client.database, &client.user);
        let opened =
            upstream::connect(&target, database, user, &client.credentials, &parameters).await;
        match opened {
            Ok(server) => Ok((target, server)),
            Err(error) => {
                let server = &*target.name;
                tracing::warn!(server, %user, %error, "cannot connect for replication");
                Err(error.to_refusal(server))
            }
        }
    }

    /// Gives the client a key and writes what it is told: the server's parameters, the key, ReadyForQuery.
    fn register(
        &self,
        client: &LoggedIn,
        peer: Peer,
        target: Arc<Target>,
        server: NewServer,
    ) -> Result<(Rc<Replicating>, crate::stream::Stream, Vec<u8>), Refusal> {
        let id = self.shared.next_client();
        let holder = Holder { worker: self.index, client: id };
        let user: Arc<str> = client.user.as_str().into();
        let Some((key_pid, secret)) =
            self.shared.keys.issue_for(holder, client.minor, &user, server.backend_key.as_ref())
        else {
            return Err(Refusal::fatal(
                "58000",
                "the system has no random numbers for a cancel key",
            ));
        };
        let application = client.parameters.iter().rfind(|(name, _)| name == "application_name");
        let replicating = Rc::new(Replicating {
            id,
            user,
            database: client.database.as_str().into(),
            application: application.map_or("", |(_, value)| value).into(),
            peer,
            encrypted: client.stream.is_encrypted(),
            since: Instant::now(),
            key_pid,
            target,
            server_key: server.backend_key,
            cut: Notify::new(),
        });
        self.replicating.borrow_mut().insert(id, replicating.clone());
        let mut welcome = client.unsent.clone();
        for (name, value) in &server.parameters {
            backend::parameter_status(&mut welcome, name.as_bytes(), value.as_bytes());
        }
        backend::backend_key_data(&mut welcome, key_pid, &secret);
        backend::ready_for_query(&mut welcome, TransactionStatus::Idle);
        Ok((replicating, server.stream, welcome))
    }

    fn leave(&self, client: &Replicating, reason: CloseReason) {
        self.shared.keys.revoke(client.key_pid);
        self.replicating.borrow_mut().remove(&client.id);
        if reason == CloseReason::ShuttingDown {
            self.stats.errors.increment(ErrorKind::Shutdown);
        }
        tracing::debug!(client = client.id.0, reason = reason.label(), "client left");
    }

    /// `Err` is the request, when no such client replicates.
    pub(super) fn cancel_replicating(
        self: &Rc<Self>,
        client: ClientId,
        cancel: Cancel,
    ) -> Result<(), Cancel> {
        let Some(client) = self.replicating.borrow().get(&client).cloned() else {
            return Err(cancel);
        };
        if let Some(key) = client.server_key.clone() {
            self.cancel_server(client.target.clone(), key, move || drop(cancel));
        }
        Ok(())
    }

    /// The same for what somebody asks by SQL; `false` when no such client replicates.
    pub(super) fn signal_replicating(self: &Rc<Self>, client: ClientId, signal: Signal) -> bool {
        let Some(client) = self.replicating.borrow().get(&client).cloned() else { return false };
        match (signal, client.server_key.clone()) {
            (Signal::Terminate, _) => client.cut.notify_one(),
            (Signal::Cancel, Some(key)) => self.cancel_server(client.target.clone(), key, || ()),
            (Signal::Cancel, None) => {}
        }
        true
    }

    /// Ends them in the middle of whatever they do: the end of the stream is all that can be said there.
    pub(super) fn cut_replicating(&self) {
        for client in self.replicating.borrow().values() {
            client.cut.notify_one();
        }
    }

    pub(super) fn replicating_snapshots(&self, now: Instant) -> Vec<ClientSnapshot> {
        let snapshot = |client: &Rc<Replicating>| {
            let ms = now.saturating_duration_since(client.since).as_millis();
            let ms = u64::try_from(ms).unwrap_or(u64::MAX);
            ClientSnapshot {
                id: client.id.0,
                worker: self.index,
                user: client.user.to_string(),
                database: client.database.to_string(),
                application: client.application.to_string(),
                peer: client.peer.to_string(),
                tls: client.encrypted,
                state: "replicating",
                connected_ms: ms,
                state_ms: ms,
                ..ClientSnapshot::default()
            }
        };
        self.replicating.borrow().values().map(snapshot).collect()
    }
}
