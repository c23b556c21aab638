//! Attempts to open a server connection, and what their failures mean.

use super::cell::Inner;
use super::{PoolCell, PoolKey, Server};
use crate::upstream::ConnectError;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tidegate_core::limits::{CONNECT_ATTEMPTS_MAX, CONNECT_TIME_MAX};
use tidegate_core::refusal::Refusal;
use tidegate_pool::breaker::{Breaker, BreakerState, Outcome, Permit};
use tidegate_pool::{Attempt, FailureCount, Jitter, OpenFailure};

/// Why an attempt failed, as far as clients, logs and the breaker need to know.
#[derive(Clone, Debug)]
pub(super) struct ConnectFailure {
    pub(super) failure: OpenFailure,
    /// How a client is told.
    pub(super) refusal: Refusal,
    /// For logs, and as a part of other refusals.
    pub(super) text: String,
}

/// Starts an attempt on the worker's tasks.
pub(super) fn start(cell: &Rc<PoolCell>, attempt: Attempt, now: Instant) {
    let connecting = {
        let mut inner = cell.inner.borrow_mut();
        if let Permit::Rejected { until } = inner.breaker.try_call(now) {
            // The pool holds its attempts while the breaker is open, so this is a race of two
            // attempts.
            let (passing, budget) = (OpenFailure::Passing, &mut cell.budget());
            inner.pool.handle_open_failed(attempt, passing, Jitter::NONE, now, budget);
            inner.pool.hold_opens_until(until);
            return;
        }
        let (target, credentials) = (Arc::clone(&inner.target), inner.credentials.clone());
        let (database, user) = (Arc::clone(&cell.key.database), Arc::clone(&cell.key.user));
        let connecting =
            cell.home.connect.connect(Arc::clone(&target), database, user, credentials);
        async move { (connecting.await, target) }
    };
    let cell = Rc::clone(cell);
    let home = Rc::clone(&cell.home);
    home.spawn(async move {
        // The budget's place is held by the attempt: it must end.
        let ended = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
        let now = Instant::now();
        match ended {
            Ok((Ok(new), target)) => {
                let id = cell.home.shared.next_server();
                let served = cell.home.shared.served.of(&target.name);
                let server = Box::new(Server::new(id, new, target, served, now));
                record(&mut cell.inner.borrow_mut(), &cell.key, Outcome::Success, now);
                cell.instance.handle_answered();
                cell.handle_opened(server, attempt, now);
            }
            Ok((Err(error), _)) => failed(&cell, attempt, &error, now),
            Err(_) => failed(&cell, attempt, &ConnectError::Timeout, now),
        }
    });
}

fn failed(cell: &Rc<PoolCell>, attempt: Attempt, error: &ConnectError, now: Instant) {
    if cell.is_paused() {
        // Whatever happens to the server now is what it was paused for.
        let (passing, budget) = (OpenFailure::Passing, &mut cell.budget());
        let pool = &mut cell.inner.borrow_mut().pool;
        pool.handle_open_failed(attempt, passing, Jitter::NONE, now, budget);
        return;
    }
    if error.is_server_full() && cell.ask_for_room(now) == Room::Asked {
        return;
    }
    let failure = ConnectFailure::new(error, &cell.inner.borrow().target.name);
    {
        let mut inner = cell.inner.borrow_mut();
        let inner = &mut *inner;
        inner.totals.connect_errors += 1;
        let known = inner.last_failure.replace(failure.clone());
        if known.is_none_or(|known| known.text != failure.text) {
            // Once, not at each attempt: the metric counts those.
            let target = &*inner.target.name;
            let (database, user) = (&*cell.key.database, &*cell.key.user);
            let error = &*failure.text;
            tracing::warn!(target_server = target, database, user, error, "cannot connect");
        }
        // Connections elsewhere decide whether the waiters are told.
        inner.learn(&cell.shared, &cell.instance, cell.home.worker, now);
        if failure.failure != OpenFailure::Passing {
            cell.instance.handle_answered();
        }
        let budget = &mut cell.budget();
        let count = inner.pool.handle_open_failed(attempt, failure.failure, jitter(), now, budget);
        // Attempts that run at the same time fail for one reason: eight of them are no eight signs.
        if count == FailureCount::Counted && failure.counts_for_breaker() {
            record(inner, &cell.key, Outcome::Failure, now);
            let is_open = inner.breaker.state() != BreakerState::Closed;
            if is_open || inner.pool.connect_failures() >= CONNECT_ATTEMPTS_MAX {
                // Longer pauses follow, and a breaker that holds: the probe looks meanwhile.
                cell.instance.handle_lost(now);
            }
        }
        if inner.breaker.state() == BreakerState::Open
            && let Some(until) = inner.breaker.open_until()
        {
            inner.pool.hold_opens_until(until);
        }
    }
    cell.turn_away_impatient(now);
    cell.pump(now);
}

fn record(inner: &mut Inner, key: &PoolKey, outcome: Outcome, now: Instant) {
    change_breaker(inner, key, |breaker| breaker.handle_outcome(outcome, now));
}

fn change_breaker(inner: &mut Inner, key: &PoolKey, change: impl FnOnce(&mut Breaker)) {
    let before = inner.breaker.state();
    change(&mut inner.breaker);
    let after = inner.breaker.state();
    if before != after {
        let (database, user, kind) = (&*key.database, &*key.user, key.kind.name());
        let (target, state) = (&*inner.target.name, after.name());
        tracing::warn!(target_server = target, database, user, kind, state, "circuit breaker");
    }
}

impl Inner {
    /// Health checks miss the server: nobody is to find that out by waiting for attempts of this pool.
    pub(super) fn trip(&mut self, key: &PoolKey, now: Instant) {
        if self.breaker.state() != BreakerState::Closed {
            return;
        }
        self.last_failure = Some(ConnectFailure::gone(&self.target.name));
        change_breaker(self, key, |breaker| breaker.trip(now));
        if let Some(until) = self.breaker.open_until() {
            self.pool.hold_opens_until(until);
        }
    }
}

/// Whether others were asked to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Asked,
    InVain,
}

/// Asks a server that is lost, by a connection of its own, whether it is back.
fn probe(cell: &Rc<PoolCell>) {
    let (target, credentials) = {
        let inner = cell.inner.borrow();
        (Arc::clone(&inner.target), inner.credentials.clone())
    };
    let (database, user) = (Arc::clone(&cell.key.database), Arc::clone(&cell.key.user));
    let connecting = cell.home.connect.connect(Arc::clone(&target), database, user, credentials);
    let (home, instance) = (Rc::clone(&cell.home), Arc::clone(&cell.instance));
    cell.home.spawn(async move {
        let ended = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
        let now = Instant::now();
        let is_back = match ended {
            Ok(Ok(new)) => {
                let served = home.shared.served.of(&target.name);
                let id = home.shared.next_server();
                Box::new(Server::new(id, new, target, served, now)).close();
                true
            }
            // An answer that says no is one.
            Ok(Err(error)) => error.judge() != OpenFailure::Passing,
            Err(_) => false,
        };
        if is_back {
            instance.handle_answered();
            home.due.notify_one();
        } else {
            instance.handle_probe_failed(now);
        }
    });
}

impl PoolCell {
    /// Looks after a server that is lost: probes it when that is due, and tries again at once when
    /// it has come back.
    pub(super) fn watch_recovery(self: &Rc<Self>, now: Instant) {
        let recoveries = self.instance.recoveries();
        let (news, holds_back, waiting) = {
            let mut inner = self.inner.borrow_mut();
            let news = std::mem::replace(&mut inner.recoveries, recoveries) != recoveries;
            let passing =
                inner.last_failure.as_ref().is_some_and(ConnectFailure::counts_for_breaker);
            (news, passing, inner.pool.counts().waiting)
        };
        if !holds_back || self.is_paused() {
            return;
        }
        if news {
            let (database, user) = (&*self.key.database, &*self.key.user);
            let target = Arc::clone(&self.inner.borrow().target);
            tracing::info!(
                target_server = &*target.name,
                database,
                user,
                "the server answers again"
            );
            return self.retry_now(now);
        }
        if waiting > 0 {
            self.instance.handle_wanted(now);
        }
        if self.instance.poll_probe(now) {
            probe(self);
        }
    }

    /// The server has no room: has the worker close an idle connection of another pool, and tries again.
    fn ask_for_room(self: &Rc<Self>, now: Instant) -> Room {
        let mut inner = self.inner.borrow_mut();
        if !inner.pool.may_ask_for_room() {
            return Room::InVain;
        }
        inner.totals.connect_errors += 1;
        inner.pool.handle_crowded(now, &mut self.budget());
        self.instance.handle_answered();
        self.home.wants_room.borrow_mut().push(self.key.clone());
        self.home.due.notify_one();
        Room::Asked
    }

    /// Closes the idle connection that is idle for longest, unless the minimum keeps it.
    pub(super) fn make_room(&self) {
        let server = {
            let mut inner = self.inner.borrow_mut();
            let closed = inner.pool.give_up_idle(&mut self.budget());
            closed.and_then(|(id, reason)| inner.forget(id, reason))
        };
        server.into_iter().for_each(Server::close);
    }

    /// There is a reason to think that the next attempt succeeds.
    pub(super) fn retry_now(self: &Rc<Self>, now: Instant) {
        {
            let mut inner = self.inner.borrow_mut();
            inner.breaker = Breaker::new(now);
            inner.pool.retry_now();
        }
        self.pump(now);
    }
}

impl ConnectFailure {
    fn new(error: &ConnectError, target: &str) -> Self {
        let refusal = error.to_refusal(target);
        Self { failure: error.judge(), refusal, text: error.to_string() }
    }

    /// Without an attempt: health checks have told.
    fn gone(target: &str) -> Self {
        let refusal = Refusal::error("08006", format!("cannot connect to the server \"{target}\""))
            .detail("Health checks have had no answer from it for some seconds.")
            .hint("`tidegate topology` tells why; it is used again as soon as it answers.");
        let text = "health checks get no answer".to_owned();
        Self { failure: OpenFailure::Passing, refusal, text }
    }

    /// The breaker counts what speaks against the server's health. A refused password, database or
    /// slot is the answer of a healthy one, and one client's wrong password must not lock the pool
    /// for all.
    fn counts_for_breaker(&self) -> bool {
        self.failure == OpenFailure::Passing
    }

    /// Other credentials (or a database made meanwhile) may succeed at once.
    pub(super) fn is_about_login(&self) -> bool {
        self.failure == OpenFailure::Definitive
    }
}

fn jitter() -> Jitter {
    let mut byte = [0u8];
    match getrandom::fill(&mut byte) {
        Ok(()) => Jitter(byte[0]),
        Err(_) => Jitter::NONE,
    }
}
