//! Connection pools: bounds, waiters, priority, idle cleanup, utilisation, backoff.
//!
//! A pool belongs to one (database, user, instance, kind). Every worker thread has its own *part*
//! of it, a [`Pool`]; the parts share one count of server connections, the [`Budget`], and move
//! idle connections to each other. Nothing here knows a socket: the shell opens and closes, and
//! tells.
//!
//! ```text
//!            Open                 handle_opened           acquire / HandTo
//!   (budget) ----> opening ------------------> idle  <----------------------> in use
//!      ^              | handle_open_failed       | Close, take_idle     | Close, Donate
//!      +--------------+--------------------------+----------------------+ handle_closed
//! ```
//!
//! What a pool tells the shell to close is already off its books, and its place in the budget given
//! back.

mod actions; // poll_action, poll_timeout: what is due
mod backoff; // pauses between failed attempts
pub mod breaker; // circuit breaker per pool
mod pause; // an operator holds the clients of a database
mod place; // where a free connection goes
mod presence; // a server that health checks miss
mod recovery; // a lost server is probed, once for all
mod room; // making room at a server that is full
mod state; // the pool: getters, commands, handle_*
mod utilisation; // the warning with hysteresis
mod waiters; // the queues

#[cfg(test)]
mod model; // a reference model, random histories: properties 12 to 16 and 41
#[cfg(test)]
mod tests;

pub use backoff::{Backoff, Jitter};
pub use pause::{Pauses, TooManyNames};
pub use presence::{Appearance, Presence};
pub use recovery::{Recovery, WasLost};
pub use room::{Spare, give_up};
pub use state::Pool;
pub use utilisation::{Crossing, Utilisation};
pub use waiters::{Waiter, Waiters};

use std::time::{Duration, Instant};
pub use tidegate_core::ids::Priority;
use tidegate_core::ids::{ClientId, ServerId};
use tidegate_core::limits;

/// Server connections all parts of one pool have together, open or being opened.
///
/// The shell backs it with an atomic; tests with a `Cell`. Both conditional operations must be
/// atomic, since they are what keeps the pool within its bounds while several workers act at once.
pub trait Budget {
    /// Places taken now.
    fn taken(&self) -> usize;
    /// Takes a place if fewer than `limit` are taken.
    fn try_take(&mut self, limit: usize) -> bool;
    /// Gives a place back.
    fn give_back(&mut self);
    /// Gives a place back if more than `floor` are taken.
    fn try_give_back(&mut self, floor: usize) -> bool;
    /// What a bound that this pool shares with others asks of it.
    fn pressure(&self) -> Pressure {
        Pressure::None
    }
}

/// What a bound that several pools share (of a database, of a user) asks of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    None,
    /// More places are taken than a reduced bound allows.
    Over,
    /// None is free, and a client of some pool has waited for one since then.
    Wanted(Instant),
}

/// A worker thread, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub usize);

/// Connections made before an operator's RECONNECT (or a changed target) have a lower generation
/// and are not reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// Bounds of one pool, over all workers. Durations count up to `CONFIG_DURATION_MAX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    pub size_min: usize,
    pub size_max: usize,
    /// Idle for longer: closed, down to `size_min`.
    pub idle_max: Duration,
    /// Open for longer: replaced once nobody uses it. `CONFIG_DURATION_MAX` is as good as never.
    pub lifetime_max: Duration,
    /// A client waits at most this long.
    pub wait_max: Duration,
    /// A client is held at most this long while an operator has paused the pool.
    pub pause_max: Duration,
    /// Clients that may wait in one worker's part.
    pub waiters_max: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            size_min: limits::POOL_SIZE_MIN,
            size_max: limits::POOL_SIZE_MAX,
            idle_max: limits::POOL_IDLE_MAX,
            lifetime_max: limits::SERVER_LIFETIME_MAX,
            wait_max: limits::POOL_WAIT_MAX,
            pause_max: limits::POOL_PAUSE_MAX,
            waiters_max: limits::POOL_WAITERS_MAX,
        }
    }
}

/// One worker's part in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub idle: usize,
    pub in_use: usize,
    pub opening: usize,
    pub waiting: usize,
    /// Connections in use in all parts, in percent of `size_max`.
    pub utilisation_percent: u32,
}

/// The other workers' parts together, as last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    pub idle: usize,
    pub in_use: usize,
}

/// Answer to a client that asks for a server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquire {
    Granted(ServerId),
    /// It waits now; `HandTo`, `Expire` or `Fail` ends that.
    Queued,
    Refused(WaitRefusal),
}

/// Why a client may not even wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitRefusal {
    QueueFull {
        waiting: usize,
        size_max: usize,
    },
    /// The pool takes no new work: Tidegate shuts down.
    Draining,
}

/// What a client says of the connection it gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// Idle outside a transaction, nothing outstanding, nothing left over.
    Fit,
    /// Its state is not known, or known to be bad.
    Unfit,
}

/// Where a connection goes that became free, was opened, or was donated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Straight to the client that waits longest; it counts as in use.
    HandTo(ClientId),
    Idle,
    /// To a worker whose client waits longer than any of ours.
    Donate(WorkerId, Donation),
    Close(CloseReason),
}

/// A connection between two workers. Its place in the budget travels with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Donation {
    pub server: ServerId,
    pub opened_at: Instant,
    pub generation: Generation,
}

/// A worker's call for help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debt {
    pub worker: WorkerId,
    /// The priority of its first waiter, and since when that one waits.
    pub priority: Priority,
    pub since: Instant,
}

/// Answer to a call for help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begged {
    Donate(Donation),
    /// Nothing idle; the next released connection goes there if that client waits longer than ours.
    Owed,
}

/// Why a server connection was closed; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Idle for longer than `idle_max`.
    IdleTooLong,
    /// Open for longer than `lifetime_max`.
    TooOld,
    /// More connections than a reduced `size_max` allows.
    OverMaximum,
    /// Made before a RECONNECT.
    Stale,
    /// An operator paused the pool.
    Paused,
    /// Given back in a state that cannot be reused.
    Unfit,
    /// Ended by the server or the network while idle.
    DiedIdle,
    /// Its user went away without giving it back.
    Abandoned,
    /// Tidegate shuts down.
    Drained,
    /// The server was full, and a client of another pool waited.
    MadeRoom,
    /// Another worker starves and this stream cannot move between threads.
    NotMovable,
}

impl CloseReason {
    pub const ALL: [CloseReason; 11] = [
        CloseReason::IdleTooLong,
        CloseReason::TooOld,
        CloseReason::OverMaximum,
        CloseReason::Stale,
        CloseReason::Paused,
        CloseReason::Unfit,
        CloseReason::DiedIdle,
        CloseReason::Abandoned,
        CloseReason::Drained,
        CloseReason::MadeRoom,
        CloseReason::NotMovable,
    ];

    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::IdleTooLong => "idle",
            CloseReason::TooOld => "lifetime",
            CloseReason::OverMaximum => "over_maximum",
            CloseReason::Stale => "stale",
            CloseReason::Paused => "paused",
            CloseReason::Unfit => "unfit",
            CloseReason::DiedIdle => "died_idle",
            CloseReason::Abandoned => "abandoned",
            CloseReason::Drained => "drained",
            CloseReason::MadeRoom => "made_room",
            CloseReason::NotMovable => "not_movable",
        }
    }
}

/// Why an attempt to open a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// The next attempt may well succeed: unreachable, timed out, starting up.
    Passing,
    /// The server is well and has no room. Clients are told at once, unless connections exist that
    /// will become free; attempts go on.
    Full,
    /// Trying again answers the same: wrong password, unknown database.
    Definitive,
}

/// Whether a failed attempt says something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCount {
    /// One more failure in a row.
    Counted,
    /// Another attempt of the same moment failed before, it was made for an older generation, or the pool is paused.
    Repeated,
}

/// What the shell has to do. `poll_action` until it answers `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolAction {
    /// Open a connection, then `handle_opened` or `handle_open_failed` with the same numbers.
    Open(Attempt),
    Close(ServerId, CloseReason),
    /// A client waited for `wait_max`, or for `pause_max`.
    Expire(Expired),
    /// The connection this client waited for could not be opened in `attempts` attempts (property
    /// 41).
    Fail {
        waiter: ClientId,
        attempts: u32,
    },
    Utilisation(Crossing),
    /// A client waits and this part cannot open a connection: ask the other workers.
    Beg {
        priority: Priority,
        since: Instant,
    },
}

/// One attempt to open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 after a success, one more after each failure. Attempts that run at the same time share a
    /// number.
    pub number: u32,
    pub generation: Generation,
}

/// What bounds a client's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitBound {
    WaitMax,
    /// The pool is paused.
    PauseMax,
}

/// The facts of a wait that ended at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    pub waiter: ClientId,
    pub bound: WaitBound,
    pub waited: Duration,
    /// Clients that go on waiting in this part.
    pub waiting: usize,
    /// Connections of the whole pool, open or being opened.
    pub size: usize,
    pub size_max: usize,
}
