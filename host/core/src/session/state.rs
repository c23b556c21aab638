//! What is known of one server connection's session, whoever is using it.

use super::prepared::{Prepared, ServerPrepared};
use crate::channels::Channels;
use crate::ids::ClientId;
use crate::settings::Settings;
use std::sync::Arc;
use tidegate_wire::backend::TransactionStatus;

/// The server's unnamed prepared statement.
#[derive(Clone, Debug, Default)]
pub(super) enum Unnamed {
    /// There is none.
    #[default]
    Absent,
    Known(Arc<Prepared>),
    /// There may be one that must not be used.
    Unknown,
}

/// Whose values a server's `nextval` has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequences {
    /// None, the present client's, or a mixture that nobody can take apart.
    Own,
    /// Another client's; the present one has run nothing yet.
    Foreign,
}

/// One server connection's session as far as it outlives a lease.
#[derive(Debug)]
pub struct ServerState {
    pub(super) status: TransactionStatus,
    pub(super) settings: Arc<Settings>,
    /// Its number, as notifications name it.
    pub(super) process: Option<i32>,
    /// What it listens to, as far as that is not told of a client that keeps it.
    pub(super) channels: Channels,
    pub(super) prepared: ServerPrepared,
    pub(super) unnamed: Unnamed,
    /// The session's batch in which `unnamed` was changed.
    pub(super) unnamed_batch: u32,
    /// Who used the server last.
    pub(super) client: Option<ClientId>,
    /// What `lastval` and `currval` would tell.
    pub(super) sequences: Sequences,
    /// Statements used since this mark belong to the present lease and are not evicted.
    pub(super) lease_mark: u64,
}

impl Default for ServerState {
    fn default() -> Self {
        Self::new(crate::limits::PREPARED_PER_SERVER_MAX)
    }
}

impl ServerState {
    /// A fresh connection that keeps at most `prepared_max` statements.
    pub fn new(prepared_max: usize) -> Self {
        Self {
            status: TransactionStatus::Idle,
            settings: Arc::default(),
            process: None,
            channels: Channels::default(),
            prepared: ServerPrepared::with_capacity(prepared_max),
            unnamed: Unnamed::Absent,
            unnamed_batch: 0,
            client: None,
            sequences: Sequences::Own,
            lease_mark: 0,
        }
    }

    /// The process that serves the connection.
    #[must_use]
    pub fn with_process(mut self, process: Option<i32>) -> Self {
        self.process = process;
        self
    }

    /// Does it listen to anything, so that it is told what nobody reads?
    pub fn listens(&self) -> bool {
        !self.channels.is_empty()
    }

    pub fn process(&self) -> Option<i32> {
        self.process
    }

    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The session's settings are known to be these now: a query outside any session has set them.
    pub fn handle_settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Prepared statements the server holds for us.
    pub fn prepared_count(&self) -> usize {
        self.prepared.len()
    }

    /// `past_batch` is a batch of the new session that is over.
    pub(super) fn begin_lease(&mut self, client: ClientId, past_batch: u32) {
        self.lease_mark = self.prepared.mark();
        self.unnamed_batch = past_batch;
        let before = self.client.replace(client);
        if before.is_some_and(|before| before != client) {
            self.sequences = Sequences::Foreign;
        }
    }

    pub(super) fn set_unnamed(&mut self, unnamed: Unnamed, batch: u32) {
        self.unnamed = unnamed;
        self.unnamed_batch = batch;
    }

    /// All named prepared statements are gone (DEALLOCATE ALL, DISCARD ALL).
    pub(super) fn statements_dropped(&mut self) {
        self.prepared.clear();
        self.unnamed = Unnamed::Unknown;
    }
}
