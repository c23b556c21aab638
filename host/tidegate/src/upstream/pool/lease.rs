//! A server connection lent to a client, and the slot in which a client waits for one.

use super::{PoolCell, Server};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;
use tidegate_core::ids::{ClientId, ServerId};
use tidegate_core::refusal::Refusal;
use tidegate_pool::{Fitness, Priority};

/// A server connection in a client's hands. Give it back with `release`; dropped, the connection
/// closes.
#[derive(Debug)]
pub struct Lease {
    pub server: Box<Server>,
    guard: Guard,
}

/// Tells the pool when a lease is dropped.
#[derive(Debug)]
struct Guard {
    /// `None` once released.
    pool: Option<Rc<PoolCell>>,
    server: ServerId,
}

impl Lease {
    pub(super) fn new(server: Box<Server>, pool: Rc<PoolCell>) -> Self {
        let guard = Guard { pool: Some(pool), server: server.id };
        Self { server, guard }
    }

    /// Gives the connection back: to the next waiter, to the idle ones, or (unfit) closes it.
    pub fn release(self, fitness: Fitness, now: Instant) {
        let Lease { server, mut guard } = self;
        if let Some(pool) = guard.pool.take() {
            pool.release(server, fitness, now);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.abandon(self.server);
        }
    }
}

/// How long a client waits at a pool whose server cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// Through several attempts, since there is nowhere else to go.
    #[default]
    Attempts,
    /// Until one fails: another server will do as well.
    FirstFailure,
}

/// Where one client waits for a connection, one wait at a time. A client makes one and keeps it.
#[derive(Debug)]
pub struct WaitSlot {
    id: ClientId,
    priority: Cell<Priority>,
    patience: Cell<Patience>,
    state: RefCell<Wait>,
    waker: RefCell<Option<Waker>>,
}

/// `None -- Queued --> Waiting -- grant --> Ended -- take_grant --> None`; `give_up` leads back to
/// `None` from anywhere.
#[derive(Debug, Default)]
pub(super) enum Wait {
    #[default]
    None,
    Waiting {
        pool: Rc<PoolCell>,
        since: Instant,
    },
    Ended(Result<Lease, Refusal>),
}

impl WaitSlot {
    pub fn new(id: ClientId) -> Rc<Self> {
        Rc::new(Self {
            id,
            priority: Cell::new(Priority::Normal),
            patience: Cell::default(),
            state: RefCell::default(),
            waker: RefCell::default(),
        })
    }

    pub fn id(&self) -> ClientId {
        self.id
    }

    pub fn priority(&self) -> Priority {
        self.priority.get()
    }

    /// For the next `acquire`.
    pub fn set_priority(&self, priority: Priority) {
        self.priority.set(priority);
    }

    pub fn patience(&self) -> Patience {
        self.patience.get()
    }

    /// For the next `acquire`.
    pub fn set_patience(&self, patience: Patience) {
        self.patience.set(patience);
    }

    /// Whom to wake when the wait ends. Set it before `take_grant`, as with every poll.
    pub fn set_waker(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        match &*slot {
            Some(known) if known.will_wake(waker) => {}
            _ => *slot = Some(waker.clone()),
        }
    }

    pub fn is_waiting(&self) -> bool {
        matches!(*self.state.borrow(), Wait::Waiting { .. })
    }

    /// How the wait ended, once; `None` while it goes on.
    pub fn take_grant(&self) -> Option<Result<Lease, Refusal>> {
        if !matches!(*self.state.borrow(), Wait::Ended(_)) {
            return None;
        }
        match self.state.take() {
            Wait::Ended(grant) => Some(grant),
            Wait::None | Wait::Waiting { .. } => None,
        }
    }

    pub(super) fn start(&self, pool: Rc<PoolCell>, since: Instant) {
        drop(self.state.replace(Wait::Waiting { pool, since }));
    }

    /// Ends the wait and wakes the client; answers since when it waited.
    pub(super) fn end(&self, grant: Result<Lease, Refusal>) -> Option<Instant> {
        let before = self.state.replace(Wait::Ended(grant));
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        match before {
            Wait::Waiting { since, .. } => Some(since),
            Wait::None | Wait::Ended(_) => None,
        }
    }
}

/// See `Pools::give_up`.
pub(super) fn give_up(slot: &WaitSlot, now: Instant) {
    drop(slot.waker.borrow_mut().take());
    match slot.state.take() {
        Wait::None | Wait::Ended(Err(_)) => {}
        Wait::Waiting { pool, .. } => pool.cancel_wait(slot.id),
        Wait::Ended(Ok(lease)) => lease.release(Fitness::Fit, now),
    }
}
