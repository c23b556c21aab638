//! One worker's pools of server connections: the shell around `tidegate_pool`.
//!
//! Everything here lives on one worker thread (`Rc`, `RefCell`) inside its `LocalSet`, but for
//! [`SharedPools`], the counts all workers share, and [`PoolMessage`], what they send each other. A
//! `RefCell` is never borrowed while a waker is called, a lease is dropped, or anything is awaited.

mod cell; // one pool: the books and the connections
mod connect; // how connections are opened
mod idle; // is an idle connection alive?
mod lease; // a connection lent out, and the slot a client waits in
mod open; // attempts to connect
mod pause; // what operators order: pause, resume, reconnect
mod pools; // all pools of a worker
mod quota; // bounds of a database or user over its pools
mod refusals; // what clients are told
mod server; // an open connection, and moving it to another worker
mod shared; // what workers share
mod snapshot; // plain data for the admin API

#[cfg(test)]
#[cfg(test)]
mod tests;

pub use cell::PoolCell;
pub use connect::{Connect, Connecting, ServerLogin};
pub use lease::{Lease, Patience, WaitSlot};
pub use pause::{Held, PrimaryHold};
pub use pools::{Acquired, Pools, PoolsConfig};
pub use quota::{QuotaLimits, QuotaOf, RoomIn};
pub use server::{MovedServer, Server};
pub use shared::{Neighbours, PoolMessage, PoolTrouble, SharedPools};
pub use snapshot::{PoolSnapshot, PoolTotals, ServerPlace, ServerSnapshot};

use std::sync::Arc;

/// Reads and writes have pools of their own, with their own bounds and breakers (property 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKind {
    Write,
    Read,
    /// For critical statements, when another pool is used up (property 11).
    Critical,
}

impl PoolKind {
    /// `write`, `read` or `critical`.
    pub fn name(self) -> &'static str {
        match self {
            PoolKind::Write => "write",
            PoolKind::Read => "read",
            PoolKind::Critical => "critical",
        }
    }
}

/// Which pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    pub database: Arc<str>,
    pub user: Arc<str>,
    /// 0 is the primary, n is replica n.
    pub instance: usize,
    pub kind: PoolKind,
}

impl PoolKey {
    /// At the primary, for reads that no replica takes: a pool of their own, so that writes keep their room.
    pub fn is_fallback(&self) -> bool {
        self.instance == 0 && self.kind == PoolKind::Read
    }
}
