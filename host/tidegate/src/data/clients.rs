//! What others may know of a client, and ask of it: the handle that outlives borrowing its connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tidegate_cache::Again;
use tidegate_core::headcount::Room;
use tidegate_core::ids::{ClientId, ServerId};
use tidegate_core::plan::END_USER_SETTING;
use tidegate_core::refusal::Refusal;
use tidegate_core::route::{Lsn, Place, ReadFacts};
use tidegate_core::session::{Pins, Session};
use tidegate_wire::backend::TransactionStatus;
use tokio::sync::oneshot;

use super::caching::{CacheNote, Tracked};
use super::limiting::Waits;
use super::login::Peer;
use super::recording::Runner;
use super::worker::Shared;
use crate::config::Quotas;
use crate::upstream::Credentials;
use crate::upstream::pool::{PoolCell, WaitSlot};

/// What a client does, as far as its transaction status does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Login,
    Idle,
    /// In a pool's queue.
    Waiting,
    /// Holds a server.
    Active,
    Closing,
}

/// What a client that says nothing, and is owed nothing, keeps others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Nothing, or a server that it is pinned to.
    Outside,
    /// A transaction, or a batch or message that it does not end.
    InTransaction,
}

/// That a client is to be closed, and how soon.
#[derive(Clone, Debug)]
pub enum CloseRequest {
    /// When its transaction has ended.
    AtRest(Rc<Refusal>),
    Now(Rc<Refusal>),
}

/// One connected client. Lives on its worker; the connection and the worker share it.
#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    pub slot: Rc<WaitSlot>,
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub peer: Peer,
    pub tls: Encrypted,
    pub credentials: Credentials,
    pub connected_at: Instant,
    /// Process id of its cancel key.
    pub key_pid: i32,
    pub state: Cell<State>,
    pub since: Cell<Instant>,
    /// Since when it is idle, if it is.
    pub idle: Cell<Option<(Idle, Instant)>>,
    pub status: Cell<TransactionStatus>,
    pub pins: Cell<Pins>,
    pub server: Cell<Option<ServerId>>,
    /// The process of that server, as far as it has told.
    pub process: Cell<Option<i32>>,
    pub transactions: Cell<u64>,
    pub statements: Cell<u64>,
    pub prepared: Cell<usize>,
    pub application: RefCell<Arc<str>>,
    /// Counts it until it is dropped.
    counted: Counted,
    pub write_pool: Rc<PoolCell>,
    /// By replica; found when first used.
    pub read_pools: RefCell<Vec<Option<Rc<PoolCell>>>>,
    /// What decides how fresh a replica must be for this client's reads.
    pub facts: Cell<ReadFacts>,
    /// What it has written that others' kept answers depend on.
    pub tracked: RefCell<Tracked>,
    /// Of one of the worker's own: what it reads, since that was written.
    pub again: Option<Arc<Again>>,
    /// Of one over HTTP: it has run what may write.
    may_write: Cell<bool>,
    /// Of one of the worker's own: its answer was put among those that are kept.
    is_kept: Cell<bool>,
    /// As of so many statements.
    cache_note: Cell<(CacheNote, u64)>,
    /// Since when its next statement waits for a limit.
    pub limited: Cell<Waits>,
    cancel: RefCell<Option<Cancel>>,
    close: RefCell<Option<CloseRequest>>,
    /// Its server may be the primary no more.
    leaves: Cell<bool>,
    /// A statement of its that has run too long, and the limit.
    overdue: Cell<Option<Duration>>,
    /// How many statements it had sent when a tick first saw it wait for the last of them.
    seen_running: Cell<Option<(u64, Instant)>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypted {
    No,
    Yes,
}

/// A cancel request. Whoever sent it waits until this is dropped: libpq takes the end of its connection for the answer.
#[derive(Debug)]
pub struct Cancel(#[expect(dead_code, reason = "dropping it is what tells")] oneshot::Sender<()>);

impl Cancel {
    /// A request, and what resolves when it has been seen to.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
}

/// That a client is counted among those of its database and user, until it is dropped.
pub struct Counted {
    shared: Arc<Shared>,
    database: Arc<str>,
    user: Arc<str>,
}

impl Counted {
    /// Counts a client in, if the quotas have room.
    ///
    /// # Errors
    /// What it is told.
    pub fn enter(
        shared: &Arc<Shared>,
        quotas: &Quotas,
        database: &Arc<str>,
        user: &Arc<str>,
    ) -> Result<Self, Refusal> {
        let room = Room {
            database: quotas.of_database(database).clients_max,
            user: quotas.of_user(user).clients_max,
        };
        shared.heads.lock().unwrap_or_else(PoisonError::into_inner).enter(database, user, room)?;
        let (database, user) = (database.clone(), user.clone());
        Ok(Self { shared: shared.clone(), database, user })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut heads = self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.leave(&self.database, &self.user);
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}

/// What a client is made of.
pub struct NewClient {
    pub id: ClientId,
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub peer: Peer,
    pub tls: Encrypted,
    pub credentials: Credentials,
    pub key_pid: i32,
    pub write_pool: Rc<PoolCell>,
    pub counted: Counted,
    pub tracked: RefCell<Tracked>,
    pub again: Option<Arc<Again>>,
}

impl Client {
    pub fn new(new: NewClient, now: Instant) -> Rc<Self> {
        let client = Rc::new(Self {
            id: new.id,
            slot: WaitSlot::new(new.id),
            user: new.user,
            database: new.database,
            peer: new.peer,
            tls: new.tls,
            credentials: new.credentials,
            connected_at: now,
            key_pid: new.key_pid,
            state: Cell::new(State::Login),
            since: Cell::new(now),
            idle: Cell::new(None),
            status: Cell::new(TransactionStatus::Idle),
            pins: Cell::new(Pins::NONE),
            server: Cell::new(None),
            process: Cell::new(None),
            transactions: Cell::new(0),
            statements: Cell::new(0),
            prepared: Cell::new(0),
            application: RefCell::new("".into()),
            counted: new.counted,
            write_pool: new.write_pool,
            read_pools: RefCell::default(),
            facts: Cell::default(),
            tracked: new.tracked,
            again: new.again,
            may_write: Cell::new(false),
            is_kept: Cell::new(false),
            cache_note: Cell::default(),
            limited: Cell::default(),
            cancel: RefCell::default(),
            close: RefCell::default(),
            leaves: Cell::new(false),
            overdue: Cell::new(None),
            seen_running: Cell::new(None),
            waker: RefCell::default(),
        });
        client.see_written(now);
        client
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.counted.shared
    }

    /// Something of this client's ran at `place` and has been answered; it may have written there.
    pub fn note_place(&self, place: Place, wrote: bool, now: Instant) {
        let mut facts = self.facts.get();
        facts.saw = Some((place, now));
        if wrote {
            facts.wrote_at = facts.wrote_at.max(Some(now));
        }
        self.facts.set(facts);
    }

    /// What its next read asks for by a position.
    pub fn set_min_lsn(&self, min_lsn: Option<Lsn>) {
        let facts = self.facts.get();
        if facts.min_lsn != min_lsn {
            self.facts.set(ReadFacts { min_lsn, ..facts });
        }
    }

    /// It has been told what was kept: what all had committed when its statement was sent.
    pub fn note_kept(&self, began: Instant) {
        let mut facts = self.facts.get();
        let saw_at = facts.saw.map_or(began, |(_, at)| at.max(began));
        // Whichever replica it read last need not show that.
        facts.saw = Some((Place::Primary, saw_at));
        self.facts.set(facts);
    }

    /// Its reads are the primary's until then: no replica is as fresh as of what is to come.
    pub fn keep_from_replicas(&self, until: Instant) {
        let facts = self.facts.get();
        self.facts.set(ReadFacts { wrote_at: facts.wrote_at.max(Some(until)), ..facts });
    }

    /// It is about to run what may write: whoever comes over HTTP as the same user is to see that.
    pub fn note_may_write(&self, now: Instant) {
        if matches!(self.peer, Peer::Http(..)) && !self.may_write.replace(true) {
            self.shared().http_writers.begin(&self.database, &self.user, now);
        }
    }

    /// It begins. What was written over HTTP as this user before is to be seen.
    fn see_written(&self, now: Instant) {
        if matches!(self.peer, Peer::Http(..))
            && let Some(at) = self.shared().http_writers.seen(&self.database, &self.user, now)
        {
            self.keep_from_replicas(at);
        }
    }

    /// It is over.
    pub fn end(&self, now: Instant) {
        if self.may_write.take() {
            self.shared().http_writers.end(&self.database, &self.user, now);
        }
    }

    /// Who runs a statement at `place`, for a record.
    pub fn runner(&self, session: &Session, place: Place) -> Runner {
        Runner {
            user: self.user.clone(),
            database: self.database.clone(),
            application: self.application.borrow().clone(),
            end_user: session.settings().own(END_USER_SETTING).map(Into::into),
            place,
        }
    }

    pub fn set_state(&self, state: State, now: Instant) {
        self.state.set(state);
        self.since.set(now);
    }

    /// Whom to wake for a request. Set at every poll.
    pub fn set_waker(&self, waker: &Waker) {
        self.slot.set_waker(waker);
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Its answer has been put among those that are kept.
    pub fn note_put(&self) {
        self.is_kept.set(true);
    }

    /// Was one?
    pub fn is_kept(&self) -> bool {
        self.is_kept.get()
    }

    /// What the cache had to do with the statement that comes next.
    pub fn note_cache(&self, note: CacheNote) {
        self.cache_note.set((note, self.statements.get()));
    }

    /// What it had to do with the last one: what was noted, unless others have been sent since.
    pub fn cache_note(&self) -> CacheNote {
        let (note, before) = self.cache_note.get();
        let sent = match note {
            CacheNote::NotLooked | CacheNote::Hit => 0,
            _ => 1,
        };
        if self.statements.get() == before + sent { note } else { CacheNote::NotLooked }
    }

    /// Somebody with its key wants its statement cancelled.
    pub fn request_cancel(&self, cancel: Cancel) {
        *self.cancel.borrow_mut() = Some(cancel);
        self.wake();
    }

    pub fn take_cancel(&self) -> Option<Cancel> {
        self.cancel.borrow_mut().take()
    }

    /// If it holds a connection to what was the primary and is no more, it loses it.
    pub fn leave_server(&self) {
        self.leaves.set(true);
        self.wake();
    }

    pub fn take_leave(&self) -> bool {
        self.leaves.take()
    }

    /// Its statement has run for so long, and may not any longer.
    pub fn request_timeout(&self, limit: Duration) {
        self.overdue.set(Some(limit));
        self.wake();
    }

    pub fn take_overdue(&self) -> Option<Duration> {
        self.overdue.take()
    }

    /// At a tick: how long what it asked last has been running, as far as ticks have seen it. Nothing is noted for a statement
    /// that ends before the next tick.
    pub fn running(&self, now: Instant) -> Option<Duration> {
        if self.state.get() != State::Active || self.idle.get().is_some() {
            self.seen_running.set(None);
            return None;
        }
        let count = self.statements.get();
        let since = match self.seen_running.get() {
            Some((same, since)) if same == count => since,
            _ => now,
        };
        self.seen_running.set(Some((count, since)));
        Some(now.saturating_duration_since(since))
    }

    /// A request to close it now replaces one to close it later, not the other way round.
    pub fn request_close(&self, request: CloseRequest) {
        let mut known = self.close.borrow_mut();
        if !matches!(*known, Some(CloseRequest::Now(_))) {
            *known = Some(request);
        }
        drop(known);
        self.wake();
    }

    pub fn close_request(&self) -> Option<CloseRequest> {
        self.close.borrow().clone()
    }

    /// Its name for people.
    pub fn state_name(&self) -> &'static str {
        match (self.state.get(), self.status.get()) {
            (State::Login, _) => "login",
            (State::Waiting, _) => "waiting",
            (State::Closing, _) => "closing",
            (State::Idle, _) => "idle",
            (State::Active, TransactionStatus::Idle) if !self.pins.get().is_empty() => "pinned",
            (State::Active, TransactionStatus::Idle) => "active",
            (State::Active, TransactionStatus::InTransaction) => "in_transaction",
            (State::Active, TransactionStatus::Failed) => "in_failed_transaction",
        }
    }
}
