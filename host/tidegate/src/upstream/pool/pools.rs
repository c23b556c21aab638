//! All pools of one worker: finding them, keeping them, closing them.

use super::open::ConnectFailure;
use super::shared::{Neighbours, PoolMessage, SharedPools};
use super::snapshot::PoolSnapshot;
use super::{Connect, Lease, PoolCell, PoolKey, PoolKind, QuotaOf, RoomIn, WaitSlot};
use crate::upstream::{Credentials, Target};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::limits::HANDED_OVER_IDLE_MAX;
use tidegate_core::refusal::Refusal;
use tidegate_pool::breaker::BreakerState;
use tidegate_pool::{Budget, CloseReason, Counts, PoolConfig, WorkerId, give_up};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Where servers are, and how large pools may be. Replaced as a whole at a reload.
pub struct PoolsConfig {
    /// By `PoolKey::instance`: the primary, then the replicas. Not empty.
    pub targets: Vec<Arc<Target>>,
    pub bounds: Box<dyn Fn(&PoolKey) -> PoolConfig + Send + Sync>,
}

/// Answer to a client that wants a connection.
#[derive(Debug)]
pub enum Acquired {
    Now(Lease),
    /// The slot's waker is called when the wait ended; `WaitSlot::take_grant` says how.
    Queued,
    Refused(Refusal),
}

/// The pools of one worker, inside its `LocalSet`. A task of the worker must call `maintain` after
/// each `tick`; everything else is events.
///
/// Pools exist as long as a client holds them, a connection is lent, or they were warmed; one that
/// nobody used for its `idle_max` is closed. So their number is bounded by the number of clients.
pub struct Pools {
    home: Rc<Home>,
    config: RefCell<Arc<PoolsConfig>>,
    cells: RefCell<FxHashMap<PoolKey, Kept>>,
    checked_at: Cell<Option<Instant>>,
    /// Another process serves: no connection is kept for clients that may come.
    retreats: Cell<bool>,
}

/// What every pool of the worker needs.
pub(super) struct Home {
    pub(super) worker: WorkerId,
    pub(super) shared: Arc<SharedPools>,
    pub(super) connect: Box<dyn Connect>,
    pub(super) neighbours: Box<dyn Neighbours>,
    /// Something is due before the next tick.
    pub(super) due: Notify,
    /// Pools whose clients wait for a server that is full; each has an attempt to repeat.
    pub(super) wants_room: RefCell<Vec<PoolKey>>,
    /// Attempts to connect. Dropping it ends them.
    tasks: RefCell<JoinSet<()>>,
}

impl Home {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().spawn_local(task);
    }
}

struct Kept {
    cell: Rc<PoolCell>,
    keep: Keep,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Configured: warmed at start, there for ever.
    Always,
    WhileUsed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Room,
    Nothing,
}

/// Between two checks of idle connections.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Pools {
    /// How often `maintain` is to be called at least.
    pub const TICK: Duration = Duration::from_millis(100);

    pub fn new(
        worker: WorkerId,
        shared: Arc<SharedPools>,
        config: Arc<PoolsConfig>,
        connect: Box<dyn Connect>,
        neighbours: Box<dyn Neighbours>,
    ) -> Rc<Self> {
        let tasks = RefCell::new(JoinSet::new());
        let due = Notify::new();
        let wants_room = RefCell::default();
        let home = Rc::new(Home { worker, shared, connect, neighbours, due, wants_room, tasks });
        Rc::new(Self {
            home,
            config: RefCell::new(config),
            cells: RefCell::default(),
            checked_at: Cell::new(None),
            retreats: Cell::new(false),
        })
    }

    /// Finds or makes the pool. New credentials are used from the next attempt on, and end the
    /// pause after a refusal of the old ones.
    pub fn pool(
        self: &Rc<Self>,
        key: &PoolKey,
        credentials: &Credentials,
        now: Instant,
    ) -> Rc<PoolCell> {
        self.find_or_make(key, credentials, Keep::WhileUsed, now)
    }

    /// The pool, if it is there, and with what it logs in.
    pub fn known(&self, key: &PoolKey) -> Option<(Rc<PoolCell>, Credentials)> {
        let cell = self.cells.borrow().get(key).map(|kept| Rc::clone(&kept.cell))?;
        let credentials = cell.inner.borrow().credentials.clone();
        Some((cell, credentials))
    }

    /// Makes the pool and fills it to its minimum, and keeps it so. Call it for configured pools at
    /// start.
    pub fn warm(self: &Rc<Self>, key: &PoolKey, credentials: &Credentials, now: Instant) {
        self.find_or_make(key, credentials, Keep::Always, now);
    }

    fn find_or_make(
        &self,
        key: &PoolKey,
        credentials: &Credentials,
        keep: Keep,
        now: Instant,
    ) -> Rc<PoolCell> {
        let known = {
            let mut cells = self.cells.borrow_mut();
            cells.get_mut(key).map(|kept| {
                if keep == Keep::Always {
                    kept.keep = keep;
                }
                Rc::clone(&kept.cell)
            })
        };
        if let Some(cell) = known {
            cell.shared.set_vacated(false);
            let was_refused = {
                let mut inner = cell.inner.borrow_mut();
                inner.credentials = credentials.clone();
                inner.used_at = now;
                inner.last_failure.as_ref().is_some_and(ConnectFailure::is_about_login)
            };
            if was_refused {
                cell.retry_now(now);
            }
            return cell;
        }
        let (bounds, target) = self.configured(key);
        let home = Rc::clone(&self.home);
        let cell = PoolCell::new(key.clone(), home, bounds, target, credentials.clone(), now);
        let kept = Kept { cell: Rc::clone(&cell), keep };
        self.cells.borrow_mut().insert(key.clone(), kept);
        cell.pump(now);
        cell
    }

    fn configured(&self, key: &PoolKey) -> (PoolConfig, Arc<Target>) {
        let config = self.config.borrow();
        // A replica that is no longer configured: the primary can answer everything.
        let target = config.targets.get(key.instance).unwrap_or(&config.targets[0]);
        let mut bounds = (config.bounds)(key);
        if self.retreats.get() {
            bounds.size_min = 0;
            bounds.idle_max = bounds.idle_max.min(HANDED_OVER_IDLE_MAX);
        }
        (bounds, Arc::clone(target))
    }

    pub fn acquire(&self, pool: &Rc<PoolCell>, slot: &Rc<WaitSlot>, now: Instant) -> Acquired {
        pool.acquire(slot, now)
    }

    /// The client went away or was cancelled: it waits no more, and a connection it was granted
    /// meanwhile goes on.
    pub fn give_up(&self, slot: &WaitSlot, now: Instant) {
        super::lease::give_up(slot, now);
    }

    /// Waits until `maintain` is to be called again: for `TICK`, or less when a lease was dropped.
    /// Cancel safe.
    pub async fn tick(&self) {
        // A timeout is an answer too.
        let _ = tokio::time::timeout(Self::TICK, self.home.due.notified()).await;
    }

    /// Is there an open connection to the instance?
    pub fn is_connected(&self, instance: usize) -> bool {
        self.cells.borrow().iter().any(|(key, kept)| {
            let counts = kept.cell.counts();
            key.instance == instance && counts.idle + counts.in_use > 0
        })
    }

    /// Deadlines, idle connections, attempts that are due, dead connections, pools nobody needs.
    pub fn maintain(self: &Rc<Self>, now: Instant) {
        while self.home.tasks.borrow_mut().try_join_next().is_some() {}
        for key in self.home.wants_room.take() {
            if self.make_room(&key, RoomIn::Server) == Made::Nothing {
                self.ask_neighbour_for_room(key, RoomIn::Server);
            }
        }
        let checked_at = self.checked_at.get();
        let checks =
            checked_at.is_none_or(|at| now.saturating_duration_since(at) >= CHECK_INTERVAL);
        let mut vacated = false;
        for cell in self.all() {
            vacated |= cell.shared.is_vacated();
            cell.inner.borrow_mut().learn(&cell.shared, &cell.instance, self.home.worker, now);
            if checks {
                cell.check_idle();
            }
            cell.watch_recovery(now);
            cell.pump(now);
            if let Some(of) = cell.wants_place(now) {
                self.make_place(&cell, of, now);
            }
        }
        if checks {
            self.checked_at.set(Some(now));
        }
        if checks || vacated {
            self.retire_unused(now);
        }
    }

    /// A bound that pools share is reached: closes an idle connection of another pool.
    fn make_place(&self, cell: &Rc<PoolCell>, of: QuotaOf, now: Instant) {
        match self.make_room(&cell.key, RoomIn::Quota(of)) {
            Made::Room => cell.pump(now),
            Made::Nothing => self.ask_neighbour_for_room(cell.key.clone(), RoomIn::Quota(of)),
        }
    }

    /// Closes an idle connection of another pool, for a client of the pool `key`.
    fn make_room(&self, key: &PoolKey, room: RoomIn) -> Made {
        let mut others = self.all();
        others.retain(|cell| room.includes(key, &cell.key));
        let spares = others.iter().filter_map(|cell| {
            let spare = cell.inner.borrow().pool.spare(&cell.budget());
            spare.map(|spare| (cell, spare))
        });
        match give_up(spares) {
            Some(cell) => {
                cell.make_room();
                Made::Room
            }
            None => Made::Nothing,
        }
    }

    /// Closes an idle connection to the primary, of whichever pool, here or at a neighbour's.
    pub fn make_room_at_primary(&self) {
        // No pool has this key, so none is spared.
        let nobody =
            PoolKey { database: "".into(), user: "".into(), instance: 0, kind: PoolKind::Write };
        if self.make_room(&nobody, RoomIn::Server) == Made::Nothing {
            self.ask_neighbour_for_room(nobody, RoomIn::Server);
        }
    }

    fn ask_neighbour_for_room(&self, key: PoolKey, room: RoomIn) {
        if let Some(to) = self.home.shared.most_idle(self.home.worker, &key, room) {
            // A full queue is a busy neighbour: the attempt that comes next asks again.
            drop(self.home.neighbours.try_send(to, PoolMessage::MakeRoom { key, room }));
        }
    }

    fn retire_unused(&self, now: Instant) {
        let mut retired = Vec::new();
        self.cells.borrow_mut().retain(|_, kept| {
            // A lease, a waiting client and an attempt each hold the pool.
            let is_held = Rc::strong_count(&kept.cell) > 1;
            let mut inner = kept.cell.inner.borrow_mut();
            if is_held || kept.keep == Keep::Always {
                inner.used_at = now;
                return true;
            }
            let unused = now.saturating_duration_since(inner.used_at);
            let is_kept = unused < inner.pool.config().idle_max && !kept.cell.shared.is_vacated();
            if is_kept && !inner.pool.is_empty() {
                return true;
            }
            retired.push(Rc::clone(&kept.cell));
            false
        });
        if retired.is_empty() {
            return;
        }
        for cell in retired {
            close_idle(&cell, CloseReason::IdleTooLong);
            cell.shared.exchange(self.home.worker, Counts::default());
            cell.shared.tell_breaker(self.home.worker, BreakerState::Closed);
        }
        self.home.shared.forget_unused();
    }

    /// Takes over a reloaded configuration: new bounds at once, new targets from the next attempt
    /// on. To leave the old targets too, call `SharedPools::reconnect` once, for all workers.
    pub fn set_config(&self, config: Arc<PoolsConfig>, now: Instant) {
        drop(self.config.replace(config));
        for cell in self.all() {
            let (bounds, target) = self.configured(&cell.key);
            let is_elsewhere = {
                let mut inner = cell.inner.borrow_mut();
                inner.pool.set_config(bounds);
                std::mem::replace(&mut inner.target, target).address != inner.target.address
            };
            if is_elsewhere {
                // What failed there says nothing of the server that it is now.
                cell.retry_now(now);
            }
            cell.pump(now);
        }
    }

    /// Another process serves the clients that come: connections are kept for those that are here alone.
    pub fn retreat(&self, now: Instant) {
        self.retreats.set(true);
        let config = Arc::clone(&self.config.borrow());
        self.set_config(config, now);
    }

    /// Shutting down: no new leases, idle connections close now, lent ones when they come back and
    /// nobody waits.
    pub fn drain(&self, now: Instant) {
        for cell in self.all() {
            cell.inner.borrow_mut().pool.drain();
            cell.pump(now);
        }
    }

    /// The end: drains, ends attempts, closes every idle connection. Leases close as they are
    /// dropped.
    pub fn close_all(&self, now: Instant) {
        self.drain(now);
        self.home.tasks.borrow_mut().abort_all();
        self.cells.borrow_mut().clear();
    }

    /// Connections lent or under way, for a drain that waits.
    pub fn in_use(&self) -> usize {
        let counts = self.all().into_iter().map(|cell| cell.counts());
        counts.map(|counts| counts.in_use + counts.opening).sum()
    }

    pub fn handle_message(self: &Rc<Self>, message: PoolMessage, now: Instant) {
        if let PoolMessage::MakeRoom { key, room } = &message {
            self.make_room(key, *room);
            return;
        }
        let cell = self.cells.borrow().get(message.key()).map(|kept| Rc::clone(&kept.cell));
        match (message, cell) {
            (PoolMessage::Beg { worker, priority, since, .. }, Some(cell)) => {
                cell.handle_begged(worker, priority, since, now);
            }
            (PoolMessage::Donate { server, .. }, Some(cell)) => cell.handle_donated(*server, now),
            (PoolMessage::Freed { .. }, Some(cell)) => cell.pump(now),
            // Nobody needs it here any more; a connection closes as it is dropped.
            (_, None) | (PoolMessage::MakeRoom { .. }, _) => {}
        }
    }

    pub fn snapshot(&self, now: Instant) -> Vec<PoolSnapshot> {
        self.all().iter().map(|cell| cell.snapshot(now)).collect()
    }

    fn all(&self) -> Vec<Rc<PoolCell>> {
        self.cells.borrow().values().map(|kept| Rc::clone(&kept.cell)).collect()
    }
}

fn close_idle(cell: &PoolCell, reason: CloseReason) {
    loop {
        let server = {
            let mut inner = cell.inner.borrow_mut();
            let Some(donation) = inner.pool.take_idle() else { return };
            inner.forget(donation.server, reason)
        };
        cell.budget().give_back();
        server.into_iter().for_each(super::Server::close);
    }
}
