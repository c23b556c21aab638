//! One pool of one worker: the books of the core, the connections themselves, and the clients that
//! wait.

use super::idle::{self, Liveness};
use super::open::{self, ConnectFailure};
use super::pools::{Acquired, Home};
use super::server::MovedServer;
use super::shared::{PoolMessage, SharedBudget, SharedInstance, SharedPool, TravellingPlace};
use super::snapshot::PoolTotals;
use super::{Lease, Patience, PoolKey, Server, WaitSlot, refusals};
use crate::upstream::{Credentials, Target};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tidegate_core::ids::{ClientId, ServerId};
use tidegate_core::refusal::Refusal;
use tidegate_pool::breaker::{Breaker, BreakerState};
use tidegate_pool::{
    Acquire, Attempt, Begged, CloseReason, Counts, Crossing, Debt, Donation, Fitness, Pool,
    PoolAction, PoolConfig, Priority, Released, WorkerId,
};

/// One pool of one worker. Found by `Pools::pool`; a client keeps it as long as it may need a
/// connection.
pub struct PoolCell {
    pub(super) key: PoolKey,
    pub(super) home: Rc<Home>,
    pub(super) shared: Arc<SharedPool>,
    /// The server, as all its pools see it.
    pub(super) instance: Arc<SharedInstance>,
    pub(super) inner: RefCell<Inner>,
}

pub(super) struct Inner {
    pub(super) pool: Pool,
    pub(super) servers: FxHashMap<ServerId, Entry>,
    pub(super) waiting: FxHashMap<ClientId, Rc<WaitSlot>>,
    pub(super) breaker: Breaker,
    pub(super) credentials: Credentials,
    pub(super) target: Arc<Target>,
    /// Why the last attempt failed; `None` after a success.
    pub(super) last_failure: Option<ConnectFailure>,
    pub(super) totals: PoolTotals,
    /// Of the server's recoveries, how many this part has heard of.
    pub(super) recoveries: u64,
    /// Somebody held the pool or a connection of it at this time.
    pub(super) used_at: Instant,
}

/// One connection, here or lent out, and what the admin API tells of it.
pub(super) struct Entry {
    /// `None` while lent.
    pub(super) idle: Option<Box<Server>>,
    pub(super) client: Option<ClientId>,
    pub(super) since: Instant,
    pub(super) opened_at: Instant,
    pub(super) leases: u64,
    pub(super) process_id: Option<i32>,
    pub(super) is_encrypted: bool,
}

impl std::fmt::Debug for PoolCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolCell").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Entry {
    fn new(server: &Server, now: Instant) -> Self {
        Self {
            idle: None,
            client: None,
            since: now,
            opened_at: server.opened_at,
            leases: 0,
            process_id: server.backend_key.as_ref().map(|key| key.pid),
            is_encrypted: server.stream.is_encrypted(),
        }
    }
}

/// How one try to acquire ended.
enum Tried {
    Ended(Acquired),
    Queued,
    /// The connection was dead: the next one.
    Again,
}

impl PoolCell {
    pub(super) fn new(
        key: PoolKey,
        home: Rc<Home>,
        config: PoolConfig,
        target: Arc<Target>,
        credentials: Credentials,
        now: Instant,
    ) -> Rc<Self> {
        let shared = home.shared.pool(&key);
        let instance = home.shared.instance(key.instance);
        let inner = Inner {
            pool: Pool::new(config, shared.generation()),
            servers: FxHashMap::default(),
            waiting: FxHashMap::default(),
            breaker: Breaker::new(now),
            credentials,
            target,
            last_failure: None,
            totals: PoolTotals::default(),
            recoveries: instance.recoveries(),
            used_at: now,
        };
        Rc::new(Self { key, home, shared, instance, inner: RefCell::new(inner) })
    }

    /// Does whoever wants a connection now wait for one that another client has?
    pub fn is_used_up(&self) -> bool {
        self.inner.borrow().pool.is_used_up(&self.budget())
    }

    pub fn key(&self) -> &PoolKey {
        &self.key
    }

    /// Where its connections go, and with what they log in.
    pub fn route(&self) -> (Arc<Target>, Credentials) {
        let inner = self.inner.borrow();
        (Arc::clone(&inner.target), inner.credentials.clone())
    }

    /// Is nobody to connect, since its clients are held?
    pub fn is_held(&self) -> bool {
        self.shared.is_paused() || self.instance.is_held()
    }

    pub fn counts(&self) -> Counts {
        self.inner.borrow().pool.counts()
    }

    pub(super) fn budget(&self) -> SharedBudget<'_> {
        SharedBudget(&self.shared)
    }

    // --- a client wants a connection, or no more ----------------------------------------------------------

    pub(super) fn acquire(self: &Rc<Self>, slot: &Rc<WaitSlot>, now: Instant) -> Acquired {
        loop {
            match self.try_acquire(slot, now) {
                Tried::Ended(acquired) => return acquired,
                Tried::Again => {}
                Tried::Queued => {
                    slot.start(Rc::clone(self), now);
                    self.pump(now);
                    if self.wants_place(now).is_some() {
                        self.home.due.notify_one();
                    }
                    return Acquired::Queued;
                }
            }
        }
    }

    fn try_acquire(self: &Rc<Self>, slot: &Rc<WaitSlot>, now: Instant) -> Tried {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        inner.heed(&self.shared, &self.instance, now);
        if let Some(refusal) = self.refused_at_once(inner, slot.patience(), now) {
            inner.totals.refused += 1;
            return Tried::Ended(Acquired::Refused(refusal));
        }
        match inner.pool.acquire(slot.id(), slot.priority(), now) {
            Acquire::Granted(id) => match inner.take_alive(id, slot.id(), now) {
                Some(server) => Tried::Ended(Acquired::Now(Lease::new(server, Rc::clone(self)))),
                None => {
                    inner.lose(id, CloseReason::DiedIdle, &mut self.budget());
                    Tried::Again
                }
            },
            Acquire::Queued => {
                inner.totals.waits += 1;
                inner.waiting.insert(slot.id(), Rc::clone(slot));
                Tried::Queued
            }
            Acquire::Refused(why) => {
                inner.totals.refused += 1;
                Tried::Ended(Acquired::Refused(refusals::not_queued(&self.key, why)))
            }
        }
    }

    /// A server that fails: an open breaker answers at once, and whoever can go elsewhere is told so; but
    /// not while connections exist that will become free.
    fn refused_at_once(
        &self,
        inner: &mut Inner,
        patience: Patience,
        now: Instant,
    ) -> Option<Refusal> {
        if inner.pool.is_paused() || inner.pool.is_served() {
            return None;
        }
        if self.instance.is_gone() {
            inner.trip(&self.key, now);
        }
        let last = inner.last_failure.as_ref();
        if inner.breaker.state() != BreakerState::Closed {
            self.instance.handle_wanted(now);
            if let Some(until) = inner.breaker.open_until().filter(|until| *until > now) {
                return Some(refusals::breaker_open(&self.key, last, until - now));
            }
        }
        let is_told = last.is_some() && patience == Patience::FirstFailure;
        is_told.then(|| refusals::not_opened(&self.key, last, 1))
    }

    pub(super) fn cancel_wait(&self, client: ClientId) {
        let slot = {
            let mut inner = self.inner.borrow_mut();
            inner.pool.cancel_wait(client);
            inner.waiting.remove(&client)
        };
        drop(slot);
    }

    // --- a connection comes back, or is lost ----------------------------------------------------------

    pub(super) fn release(self: &Rc<Self>, server: Box<Server>, fitness: Fitness, now: Instant) {
        let released = {
            let mut inner = self.inner.borrow_mut();
            inner.heed(&self.shared, &self.instance, now);
            inner.pool.handle_released(server.id, fitness, now, &mut self.budget())
        };
        self.place(server, released, now);
    }

    /// A lease was dropped; its connection is closed already.
    pub(super) fn abandon(self: &Rc<Self>, server: ServerId) {
        self.inner.borrow_mut().lose(server, CloseReason::Abandoned, &mut self.budget());
        // A drop may be anywhere, also where no task can be started: the worker opens what is
        // missing.
        self.home.due.notify_one();
    }

    /// Puts a free connection where the core says.
    fn place(self: &Rc<Self>, server: Box<Server>, released: Released, now: Instant) {
        match released {
            Released::HandTo(client) => self.hand_to(client, server, now),
            Released::Idle => {
                let mut inner = self.inner.borrow_mut();
                if let Some(entry) = inner.servers.get_mut(&server.id) {
                    entry.client = None;
                    entry.since = now;
                    entry.idle = Some(server);
                }
            }
            Released::Donate(worker, donation) => {
                self.inner.borrow_mut().servers.remove(&server.id);
                self.donate(worker, server, donation);
            }
            Released::Close(reason) => {
                self.inner.borrow_mut().forget(server.id, reason);
                server.close();
                if reason == CloseReason::MadeRoom {
                    self.home.due.notify_one();
                }
                self.pump(now);
            }
        }
    }

    fn hand_to(self: &Rc<Self>, client: ClientId, server: Box<Server>, now: Instant) {
        let slot = {
            let mut inner = self.inner.borrow_mut();
            if let Some(entry) = inner.servers.get_mut(&server.id) {
                entry.client = Some(client);
                entry.since = now;
                entry.leases += 1;
            }
            inner.totals.leases += 1;
            inner.waiting.remove(&client)
        };
        let lease = Lease::new(server, Rc::clone(self));
        match slot {
            Some(slot) => {
                let since = slot.end(Ok(lease));
                self.inner.borrow_mut().totals.waited(since, now);
            }
            // The core hands only to those who wait, and whoever waits has a slot here.
            None => lease.release(Fitness::Fit, now),
        }
    }

    // --- opening ----------------------------------------------------------

    pub(super) fn handle_opened(
        self: &Rc<Self>,
        server: Box<Server>,
        attempt: Attempt,
        now: Instant,
    ) {
        let released = {
            let mut inner = self.inner.borrow_mut();
            inner.totals.opened += 1;
            inner.last_failure = None;
            inner.servers.insert(server.id, Entry::new(&server, now));
            inner.pool.handle_opened(server.id, attempt, now, &mut self.budget())
        };
        self.place(server, released, now);
        self.pump(now);
    }

    // --- what is due ----------------------------------------------------------

    /// Does everything the core has to do.
    pub(super) fn pump(self: &Rc<Self>, now: Instant) {
        loop {
            let action = self.inner.borrow_mut().pool.poll_action(now, &mut self.budget());
            match action {
                None => return,
                Some(PoolAction::Open(attempt)) => open::start(self, attempt, now),
                Some(PoolAction::Close(id, reason)) => {
                    let server = self.inner.borrow_mut().forget(id, reason);
                    server.into_iter().for_each(Server::close);
                }
                Some(PoolAction::Expire(expired)) => {
                    let refusal = {
                        let mut inner = self.inner.borrow_mut();
                        inner.totals.expired += 1;
                        refusals::expired(&self.key, &expired, inner.last_failure.as_ref())
                    };
                    self.refuse(expired.waiter, refusal, now);
                }
                Some(PoolAction::Fail { waiter, attempts }) => {
                    let refusal = {
                        let inner = self.inner.borrow();
                        refusals::not_opened(&self.key, inner.last_failure.as_ref(), attempts)
                    };
                    self.refuse(waiter, refusal, now);
                }
                Some(PoolAction::Utilisation(crossing)) => self.report(crossing),
                Some(PoolAction::Beg { priority, since }) => self.beg(priority, since),
            }
        }
    }

    /// An attempt has failed: whoever can go elsewhere is told so.
    pub(super) fn turn_away_impatient(&self, now: Instant) {
        let (impatient, refusal) = {
            let inner = self.inner.borrow();
            let impatient =
                inner.waiting.values().filter(|slot| slot.patience() == Patience::FirstFailure);
            let impatient: Vec<ClientId> = impatient.map(|slot| slot.id()).collect();
            (impatient, refusals::not_opened(&self.key, inner.last_failure.as_ref(), 1))
        };
        for client in impatient {
            self.inner.borrow_mut().pool.cancel_wait(client);
            self.refuse(client, refusal.clone(), now);
        }
    }

    fn refuse(&self, client: ClientId, refusal: Refusal, now: Instant) {
        let slot = self.inner.borrow_mut().waiting.remove(&client);
        if let Some(slot) = slot {
            let since = slot.end(Err(refusal));
            self.inner.borrow_mut().totals.waited(since, now);
        }
    }

    fn report(&self, crossing: Crossing) {
        let (database, user) = (&*self.key.database, &*self.key.user);
        let (instance, kind) = (self.key.instance, self.key.kind.name());
        let is_warned = &self.shared.is_warned;
        match crossing {
            Crossing::High { percent } if !is_warned.swap(true, Ordering::Relaxed) => {
                tracing::warn!(database, user, instance, kind, percent, "pool nearly used up");
            }
            Crossing::Normal { percent } if is_warned.swap(false, Ordering::Relaxed) => {
                tracing::info!(database, user, instance, kind, percent, "pool has room again");
            }
            Crossing::High { .. } | Crossing::Normal { .. } => {}
        }
    }

    /// Dead idle connections leave the pool.
    pub(super) fn check_idle(&self) {
        let dead: Vec<Box<Server>> = {
            let mut inner = self.inner.borrow_mut();
            let idle = inner.servers.iter_mut().filter_map(|(id, entry)| {
                let server = entry.idle.as_mut()?;
                (idle::check(server) == Liveness::Dead).then_some(*id)
            });
            let dead: Vec<ServerId> = idle.collect();
            let lost = dead
                .into_iter()
                .filter_map(|id| inner.lose(id, CloseReason::DiedIdle, &mut self.budget()));
            lost.collect()
        };
        drop(dead);
    }

    // --- between workers ----------------------------------------------------------

    fn beg(&self, priority: Priority, since: Instant) {
        let worker = self.home.worker;
        for other in (0..self.home.neighbours.workers()).map(WorkerId) {
            if other != worker {
                let key = self.key.clone();
                // A full queue is a busy neighbour: the call is repeated while the client waits.
                let message = PoolMessage::Beg { key, worker, priority, since };
                drop(self.home.neighbours.try_send(other, message));
            }
        }
    }

    pub(super) fn handle_begged(
        &self,
        worker: WorkerId,
        priority: Priority,
        since: Instant,
        now: Instant,
    ) {
        let debt = Debt { worker, priority, since };
        let (donation, entry) = {
            let mut inner = self.inner.borrow_mut();
            let Begged::Donate(donation) = inner.pool.handle_begged(debt, now) else { return };
            (donation, inner.servers.remove(&donation.server))
        };
        if let Some(server) = entry.and_then(|entry| entry.idle) {
            self.donate(worker, server, donation);
        }
    }

    /// Sends a connection, or (TLS, full queue) closes it so that the other worker can open one.
    fn donate(&self, worker: WorkerId, server: Box<Server>, donation: Donation) {
        let place = TravellingPlace::new(Arc::clone(&self.shared));
        match server.into_moved(donation, place) {
            Ok(server) => {
                let (key, server) = (self.key.clone(), Box::new(server));
                let message = PoolMessage::Donate { key, server };
                if self.home.neighbours.try_send(worker, message).is_ok() {
                    self.inner.borrow_mut().totals.donated += 1;
                    return;
                }
            }
            Err(server) => server.close(),
        }
        self.inner.borrow_mut().totals.count_close(CloseReason::NotMovable);
        let message = PoolMessage::Freed { key: self.key.clone() };
        drop(self.home.neighbours.try_send(worker, message));
    }

    pub(super) fn handle_donated(self: &Rc<Self>, moved: MovedServer, now: Instant) {
        let donation = moved.donation;
        let Ok(server) = moved.into_server() else { return self.pump(now) };
        let released = {
            let mut inner = self.inner.borrow_mut();
            inner.servers.insert(server.id, Entry::new(&server, now));
            inner.pool.handle_donated(donation, now, &mut self.budget())
        };
        self.place(server, released, now);
        self.pump(now);
    }
}

impl Inner {
    /// Takes a connection that the core granted, if it is alive.
    fn take_alive(&mut self, id: ServerId, client: ClientId, now: Instant) -> Option<Box<Server>> {
        let entry = self.servers.get_mut(&id)?;
        if idle::check(entry.idle.as_mut()?) == Liveness::Dead {
            return None;
        }
        entry.client = Some(client);
        entry.since = now;
        entry.leases += 1;
        self.totals.leases += 1;
        entry.idle.take()
    }

    /// A connection ended without the core's doing.
    fn lose(
        &mut self,
        id: ServerId,
        reason: CloseReason,
        budget: &mut SharedBudget<'_>,
    ) -> Option<Box<Server>> {
        self.pool.handle_closed(id, budget);
        self.forget(id, reason)
    }

    /// A connection is off the core's books.
    pub(super) fn forget(&mut self, id: ServerId, reason: CloseReason) -> Option<Box<Server>> {
        let entry = self.servers.remove(&id)?;
        self.totals.count_close(reason);
        entry.idle
    }
}
