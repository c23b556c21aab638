//! What is known of one server connection's session, whoever is using it.

use super::prepared::{Prepared, ServerPrepared};
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

/// One server connection's session as far as it outlives a lease.
#[derive(Debug)]
pub struct ServerState {
    pub(super) status: TransactionStatus,
    pub(super) settings: Arc<Settings>,
    pub(super) prepared: ServerPrepared,
    pub(super) unnamed: Unnamed,
    /// The session's batch in which `unnamed` was changed.
    pub(super) unnamed_batch: u32,
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
            prepared: ServerPrepared::with_capacity(prepared_max),
            unnamed: Unnamed::Absent,
            unnamed_batch: 0,
            lease_mark: 0,
        }
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
    pub(super) fn begin_lease(&mut self, past_batch: u32) {
        self.lease_mark = self.prepared.mark();
        self.unnamed_batch = past_batch;
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
