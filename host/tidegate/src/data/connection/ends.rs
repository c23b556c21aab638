//! How a connection ends: its last message, its server cleaned or closed, cancels.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tidegate_core::limits::SCHEMA_SEEN_TIME_MAX;
use tidegate_core::plan::Target;
use tidegate_core::refusal::Refusal;
use tidegate_core::route::Place;
use tidegate_core::session::{CloseReason, Gone, Lost, Work};
use tidegate_pool::Fitness;
use tokio::io::AsyncWrite as _;

use super::lent::Lent;
use super::{ClientPhase, Connection};
use crate::data::clients::{Cancel, CloseRequest, Idle, State};
use crate::observe::served::LentFor;
use crate::observe::stats::ErrorKind;
use crate::sharing::poll_open;
use crate::stream::Settling;

/// The server of a client that is gone is given this long to finish and be cleaned.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// A cancel that comes before its statement has begun does nothing, so it is repeated.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);
const CANCELS_MAX: u32 = 20;
/// A client is given this long to take the last message before the connection closes.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

impl Connection {
    /// What others asked of this client: cancel its query, close it.
    pub(super) fn heed_requests(&mut self, cx: &mut Context<'_>) {
        if let Some(cancel) = self.client.take_cancel() {
            if self.phase.is_before_server() {
                self.client.limited.take();
                self.worker.pools.give_up(&self.client.slot, Instant::now());
                self.client.slot.set_waker(cx.waker());
                self.refuse(&Refusal::error("57014", "canceling statement due to user request"));
            } else {
                self.cancel_on_server(Some(cancel));
            }
        }
        if let Some(limit) = self.client.take_overdue() {
            self.time_out(limit);
        }
        if self.client.take_leave() && self.is_with_old_primary() {
            self.server_gone(cx);
        }
        if matches!(self.phase, ClientPhase::Gone(..) | ClientPhase::Closing(_)) {
            return;
        }
        let refusal = match self.client.close_request() {
            None => return,
            Some(CloseRequest::Now(refusal)) => refusal,
            Some(CloseRequest::AtRest(refusal)) => {
                if !self.session.is_at_rest() || !self.from_client.input.is_empty() {
                    return;
                }
                refusal
            }
        };
        // A server notices only when it is done that nobody reads any more.
        if self.session.is_waiting_for_replies()
            && let Some(Lent { lease, .. }) = &self.lent
            && let Some(key) = lease.server.backend_key.clone()
        {
            self.worker.cancel_given_up(lease.server.target.clone(), key);
        }
        // Half a row on its way cannot be followed by anything: then the end of the stream has to do.
        if self.session.is_between_replies() {
            self.from_server.out.send(|out| refusal.write(out));
        }
        self.close(CloseReason::ShuttingDown);
    }

    /// Its statement has run too long.
    fn time_out(&mut self, limit: Duration) {
        if self.lent.is_none() || !self.session.time_out(limit) {
            return;
        }
        self.worker.stats.errors.increment(ErrorKind::StatementTimeout);
        let (user, database) = (&*self.client.user, &*self.client.database);
        let application = self.client.application.borrow().clone();
        let (application, limit_ms) = (&*application, limit.as_millis());
        tracing::warn!(
            user,
            database,
            application,
            limit_ms,
            "a statement ran too long and is cancelled"
        );
        self.cancel_on_server(None);
    }

    /// Is its server one that was the primary, and is none of the primary in force?
    fn is_with_old_primary(&self) -> bool {
        let Some(Lent { lease, .. }) = &self.lent else { return false };
        let settled = self.worker.settled();
        let primary = settled.pools.targets.first();
        self.asked.place == Place::Primary
            && primary.is_some_and(|primary| primary.address != lease.server.target.address)
    }

    /// Nothing moves: notes since when, and gives back what an idle client does not need.
    pub(super) fn rest(&mut self) {
        self.note_idleness();
        if self.lent.is_none()
            && self.from_client.input.is_empty()
            && self.from_server.out.is_empty()
        {
            self.session.shrink();
            self.from_client.out.shrink();
            self.from_server.out.shrink();
        }
    }

    /// The client's socket goes where the worker wants its sockets, when nothing is on its way.
    pub(super) fn settle_stream(&mut self) -> Settling {
        let rests = self.lent.is_none()
            && matches!(self.phase, ClientPhase::Reading)
            && self.from_client.input.is_empty()
            && self.from_client.is_clear()
            && self.from_server.is_clear();
        if rests { self.stream.settle() } else { Settling::Stayed }
    }

    /// Does the client keep something, and say nothing?
    fn note_idleness(&self) {
        let idle = match self.phase {
            _ if self.session.is_waiting_for_replies() => None,
            ClientPhase::Reading | ClientPhase::Replies if self.session.is_at_rest() => {
                Some(Idle::Outside)
            }
            ClientPhase::Reading | ClientPhase::Replies => Some(Idle::InTransaction),
            ClientPhase::Queued
            | ClientPhase::Recalling(_)
            | ClientPhase::Paused(_)
            | ClientPhase::Closing(_)
            | ClientPhase::Gone(..) => None,
        };
        if self.client.idle.get().map(|(kind, _)| kind) != idle {
            self.client.idle.set(idle.map(|kind| (kind, Instant::now())));
        }
    }

    /// The client said Terminate, broke the protocol, or was refused for good.
    pub(super) fn close_by_client(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        if reason == CloseReason::ClientTerminated {
            self.client_gone(reason, cx);
        } else {
            self.close(reason);
        }
    }

    /// Nobody reads any more: cleans the server if there is one.
    pub(super) fn client_gone(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        if matches!(self.phase, ClientPhase::Gone(..) | ClientPhase::Closing(_)) {
            return;
        }
        self.worker.pools.give_up(&self.client.slot, Instant::now());
        self.client.slot.set_waker(cx.waker());
        self.from_server.give_up(&self.worker.buffers);
        if self.lent.is_some() {
            match self.session.handle_client_gone(&mut self.from_client.out) {
                Gone::Close => self.drop_server(),
                Gone::Drain => {}
                Gone::CancelAndDrain => {
                    // Whoever waits for its answer has another lead.
                    self.keeping = None;
                    self.cancel_on_server(None);
                    self.cancels_left = CANCELS_MAX;
                }
            }
        }
        let time = if self.cancels_left > 0 { CANCEL_INTERVAL } else { DRAIN_TIME_MAX };
        self.phase = ClientPhase::Gone(reason, Box::pin(tokio::time::sleep(time)));
        self.client.set_state(State::Closing, Instant::now());
        let _ = self.flush_to_server(cx);
        self.settle(cx);
    }

    /// The time has come to cancel again what runs for a client that is gone, or to give its server up.
    pub(super) fn drain_on(&mut self, cx: &mut Context<'_>) {
        if self.cancels_left == 0 {
            return self.drop_server();
        }
        self.cancels_left -= 1;
        self.cancel_on_server(None);
        if let ClientPhase::Gone(_, timer) = &mut self.phase {
            let time = if self.cancels_left > 0 { CANCEL_INTERVAL } else { DRAIN_TIME_MAX };
            timer.set(tokio::time::sleep(time));
            // Polled once, so that it wakes.
            let _ = timer.as_mut().poll(cx);
        }
    }

    /// The server connection is of no more use, or not worth cleaning.
    pub(super) fn drop_server(&mut self) {
        self.lose_work();
        // As long as it is known whose they are.
        self.count();
        if let Some(Lent { lease, .. }) = self.lent.take() {
            lease.release(Fitness::Unfit, Instant::now());
        }
        self.under_way = None;
        self.end_lend();
        // What was on its way to it, or came from it unread, concerns nobody any more.
        self.gates.to_server.clear();
        self.from_client.give_up(&self.worker.buffers);
        self.from_server.drop_unread(&self.worker.buffers);
        self.client.server.set(None);
    }

    pub(super) fn server_gone(&mut self, cx: &mut Context<'_>) {
        // As long as the session knows what it had under way.
        self.tell_time();
        self.lose_work();
        self.note_write();
        if let Some(Lent { lease, .. }) = &self.lent
            && self.asked.lent_for == LentFor::AnyRead
            && let Some(served) = lease.server.served.of(self.worker.index)
        {
            served.reads_failed.increment();
        }
        let lost = match self.phase {
            ClientPhase::Reading | ClientPhase::Replies => {
                self.session.handle_server_lost(&mut self.from_server.out)
            }
            _ => Lost::Ends,
        };
        self.drop_server();
        if let ClientPhase::Gone(..) = self.phase {
            return;
        }
        match lost {
            Lost::Again(unit) => {
                self.worker.stats.reads_repeated.increment();
                if self.session.take_disproved() {
                    self.worker.stats.reads_disproved.increment();
                    self.client.keep_from_replicas(Instant::now() + SCHEMA_SEEN_TIME_MAX);
                }
                self.from_client.input.put_back(&unit, &self.worker.buffers);
                return self.acquire_at(Target::Primary, cx);
            }
            Lost::Replays => {
                self.from_client.wanted = 0;
                return self.acquire_at(Target::Primary, cx);
            }
            Lost::GoesOn => {
                self.worker.stats.errors.increment(ErrorKind::ServerLost);
                self.client.status.set(self.session.status());
                self.client.set_state(State::Idle, Instant::now());
                self.from_client.wanted = 0;
                self.phase = ClientPhase::Reading;
                let _ = self.flush_to_client(cx);
                return;
            }
            Lost::Ends => {}
        }
        // Inside a row no message can stand: then the end of the stream has to do.
        if self.session.is_between_replies() {
            let refusal = server_lost(self.session.work_at_stake());
            self.from_server.out.send(|out| refusal.write(out));
        }
        self.close(CloseReason::ServerDisconnected);
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        self.keep_nothing();
        self.drop_server();
        self.client.idle.set(None);
        if !matches!(self.phase, ClientPhase::Gone(..)) {
            self.phase = ClientPhase::Closing(reason);
        }
    }

    /// Sends the last message and waits until the client has taken it: closing at once, with input unread, would make
    /// the system throw it away.
    pub(super) fn poll_goodbye(
        &mut self,
        reason: CloseReason,
        cx: &mut Context<'_>,
    ) -> Poll<CloseReason> {
        let deadline =
            self.goodbye.get_or_insert_with(|| Box::pin(tokio::time::sleep(GOODBYE_TIME_MAX)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(reason);
        }
        ready!(poll_open(&mut self.gates.to_client, cx));
        if ready!(self.from_server.poll_flush(&mut self.stream, &self.worker.buffers, cx)).is_err()
        {
            return Poll::Ready(reason);
        }
        if ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(reason);
        }
        loop {
            let buffers = &self.worker.buffers;
            self.from_client.give_up(buffers);
            let length = self.from_client.input.len();
            self.from_client.input.consume(length, buffers);
            match ready!(self.from_client.input.poll_read(&mut self.stream, 1, buffers, cx)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(reason),
            }
        }
    }

    /// Asks the server to cancel what it runs for this client.
    pub(super) fn cancel_on_server(&mut self, asked: Option<Cancel>) {
        let Some(Lent { lease, .. }) = &self.lent else { return };
        let Some(key) = lease.server.backend_key.clone() else { return };
        if !self.session.is_waiting_for_replies() {
            return;
        }
        let target = lease.server.target.clone();
        self.keep_nothing();
        self.session.forget_unit();
        self.session.forget_replay();
        self.cancelling.set(self.cancelling.get() + 1);
        let (under_way, client) = (self.cancelling.clone(), self.client.clone());
        self.worker.cancel_server(target, key, move || {
            under_way.set(under_way.get() - 1);
            drop(asked);
            client.wake();
        });
    }
}

/// What a client is told whose server closed the connection without a word.
fn server_lost(work: Work) -> Refusal {
    let (sqlstate, detail, hint) = match work {
        Work::None => ("08006", "No statement was in progress.", "Reconnect."),
        Work::RolledBack => (
            "08006",
            "The transaction in progress is rolled back.",
            "Reconnect, and repeat the transaction from its beginning.",
        ),
        Work::InDoubt => (
            "08007",
            "Whether the statement in progress took effect is not known. It was not repeated.",
            "Reconnect, and see what is there before you repeat it.",
        ),
    };
    Refusal::fatal(sqlstate, "the server closed the connection unexpectedly")
        .detail(detail)
        .hint(hint)
}
