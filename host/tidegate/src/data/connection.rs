//! Drives one client's session: moves bytes between its socket, the session machine, and the server it was lent.
//!
//! One loop, polled: read a side only when what it sent before has gone out to the other (back-pressure without
//! queues), try to write at once, wait only when nothing moves. The loop knows no protocol; the session does.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tidegate_core::plan::{Plan, Target};
use tidegate_core::pool::Fitness;
use tidegate_core::refusal::Refusal;
use tidegate_core::session::gather::{Gather, Segment};
use tidegate_core::session::{ClientNext, CloseReason, Gone, Io, ServerNext, Session, Settled};
use tokio::io::AsyncWrite;

use super::buffers::{Buffers, Input};
use super::clients::{Cancel, Client, CloseRequest, State};
use super::worker::Worker;
use crate::observe::stats::ErrorKind;
use crate::stream::Stream;
use crate::upstream::pool::{Acquired, Lease};

/// The server of a client that is gone is given this long to finish and be cleaned.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// A client is given this long to take the last message before the connection closes.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);
/// Segments of one vectored write.
const SLICES_MAX: usize = 16;

/// One direction: what came in, how much of it is dealt with, and what goes out for it.
#[derive(Debug)]
struct Way {
    input: Input,
    /// Bytes of the input that are dealt with but may still be referred to by `out`.
    consumed: usize,
    /// Input needed before the session is asked again, `consumed` included.
    wanted: usize,
    out: Gather,
}

impl Way {
    fn new(input: Input) -> Self {
        Self { input, consumed: 0, wanted: 1, out: Gather::default() }
    }

    /// Sends what goes out, as far as the socket takes it. Ready when nothing is left.
    fn poll_flush(
        &mut self,
        to: &mut Stream,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<u64>> {
        let mut sent = 0;
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut used = 0;
            for (slice, segment) in slices.iter_mut().zip(self.out.segments()) {
                *slice = IoSlice::new(match *segment {
                    Segment::Input { start, end } => &self.input.bytes()[start..end],
                    Segment::Own { start, end } => &self.out.own_bytes()[start..end],
                });
                used += 1;
            }
            let written = if used == 1 {
                Pin::new(&mut *to).poll_write(cx, &slices[0])
            } else {
                Pin::new(&mut *to).poll_write_vectored(cx, &slices[..used])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.out.sent(count);
                    sent += count as u64;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if to.is_encrypted() && Pin::new(to).poll_flush(cx)?.is_pending() {
            return Poll::Pending;
        }
        self.settle_input(buffers);
        Poll::Ready(Ok(sent))
    }

    /// Nothing refers to the input any more: what is dealt with may go.
    fn settle_input(&mut self, buffers: &Buffers) {
        if self.consumed > 0 {
            self.input.consume(self.consumed, buffers);
            // What is wanted was counted from the first byte of what is gone now.
            self.wanted = self.wanted.saturating_sub(self.consumed);
            self.consumed = 0;
        }
    }
}

/// What the client's side of the loop does next.
#[derive(Debug)]
enum ClientPhase {
    /// Reads and hands to the session.
    Reading,
    /// Waits in a pool's queue.
    Queued,
    /// The session waits for replies.
    Replies,
    /// Has been told its last message.
    Closing(CloseReason),
    /// Is gone; its server is being cleaned.
    Gone(CloseReason, Pin<Box<tokio::time::Sleep>>),
}

/// One client from ReadyForQuery to the end.
pub struct Connection {
    worker: Rc<Worker>,
    client: Rc<Client>,
    stream: Stream,
    session: Session,
    lease: Option<Lease>,
    from_client: Way,
    from_server: Way,
    phase: ClientPhase,
    goodbye: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Cancel requests for the server in hand that are under way; it does not go back before they have ended.
    cancelling: Rc<Cell<usize>>,
    held: Held,
}

/// Whether a server that could go back is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    No,
    UntilCancelled,
}

/// A step's outcome: whether anything moved.
enum Step {
    Moved,
    Still,
}

impl Connection {
    /// `pending` are bytes that were read during the login; `welcome` is sent first.
    pub fn new(
        worker: Rc<Worker>,
        client: Rc<Client>,
        stream: Stream,
        session: Session,
        pending: &[u8],
        welcome: &[u8],
    ) -> Self {
        let mut input = Input::default();
        input.extend(pending, &worker.buffers);
        let mut from_server = Way::new(Input::default());
        from_server.out.send(|out| out.extend_from_slice(welcome));
        Self {
            worker,
            client,
            stream,
            session,
            lease: None,
            from_client: Way::new(input),
            from_server,
            phase: ClientPhase::Reading,
            goodbye: None,
            cancelling: Rc::default(),
            held: Held::No,
        }
    }

    /// Runs until the client and its server are dealt with. Cancel safe only at the end: dropping it closes both.
    pub async fn run(mut self) -> CloseReason {
        let reason = poll_fn(|cx| self.poll(cx)).await;
        self.worker.pools.give_up(&self.client.slot, Instant::now());
        reason
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.client.set_waker(cx.waker());
        self.heed_requests(cx);
        if self.held == Held::UntilCancelled && self.cancelling.get() == 0 {
            self.held = Held::No;
            self.settle(cx);
        }
        loop {
            if let ClientPhase::Closing(reason) = self.phase {
                return self.poll_goodbye(reason, cx);
            }
            if let ClientPhase::Gone(reason, deadline) = &mut self.phase {
                let reason = *reason;
                if deadline.as_mut().poll(cx).is_ready() {
                    self.lease = None;
                }
                if self.lease.is_none() {
                    return Poll::Ready(reason);
                }
            }
            let client = self.pump_client(cx);
            let server = self.pump_server(cx);
            if matches!((client, server), (Step::Still, Step::Still)) {
                break;
            }
        }
        self.rest();
        Poll::Pending
    }

    /// What others asked of this client: cancel its query, close it.
    fn heed_requests(&mut self, cx: &mut Context<'_>) {
        if self.client.take_cancel() == Cancel::Asked {
            if matches!(self.phase, ClientPhase::Queued) {
                self.worker.pools.give_up(&self.client.slot, Instant::now());
                self.client.slot.set_waker(cx.waker());
                self.refuse(&Refusal::error("57014", "canceling statement due to user request"));
            } else {
                self.cancel_on_server();
            }
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
        // Half a row on its way cannot be followed by anything: then the end of the stream has to do.
        if self.session.is_between_replies() {
            self.from_server.out.send(|out| refusal.write(out));
        }
        self.close_and_clean(CloseReason::ShuttingDown, cx);
    }

    // --- client → server -----------------------------------------------------------------------------

    fn pump_client(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.from_client.out.is_empty() && self.flush_to_server(cx).is_pending() {
            return Step::Still;
        }
        match self.phase {
            ClientPhase::Reading => {
                if self.from_client.input.len() < self.from_client.wanted {
                    match self.read_client(self.from_client.wanted, cx) {
                        Poll::Pending => return Step::Still,
                        Poll::Ready(0) => return Step::Moved,
                        Poll::Ready(_)
                            if self.from_client.input.len() < self.from_client.wanted =>
                        {
                            return Step::Moved;
                        }
                        Poll::Ready(_) => {}
                    }
                }
                self.feed_client(cx);
                Step::Moved
            }
            ClientPhase::Queued => {
                if let Some(grant) = self.client.slot.take_grant() {
                    self.handle_grant(grant, cx);
                    return Step::Moved;
                }
                self.watch_client(cx)
            }
            ClientPhase::Replies => self.watch_client(cx),
            ClientPhase::Closing(_) | ClientPhase::Gone(..) => Step::Still,
        }
    }

    /// Reads ahead while the session waits, as far as the buffer reaches: so a client that hangs up is noticed.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.from_client.input.has_room() || !self.from_client.out.is_empty() {
            return Step::Still;
        }
        match self.read_client(self.from_client.input.len() + 1, cx) {
            Poll::Pending => Step::Still,
            Poll::Ready(_) => Step::Moved,
        }
    }

    /// Ready(0): the client is gone, which has been seen to.
    fn read_client(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let buffers = &self.worker.buffers;
        match self.from_client.input.poll_read(&mut self.stream, wanted, buffers, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(count)) if count > 0 => {
                self.worker.stats.bytes_from_clients.add(count as u64);
                Poll::Ready(count)
            }
            Poll::Ready(_) => {
                self.client_gone(CloseReason::ClientDisconnected, cx);
                Poll::Ready(0)
            }
        }
    }

    /// Hands the client's input to the session and sends what comes of it.
    fn feed_client(&mut self, cx: &mut Context<'_>) {
        let (step, leased) = {
            let mut interner = self.worker.interner.borrow_mut();
            let io = Io {
                server: self.lease.as_mut().map(|lease| &mut lease.server.state),
                interner: &mut interner,
                to_server: &mut self.from_client.out,
                to_client: &mut self.from_server.out,
            };
            let step = self.session.handle_client(self.from_client.input.bytes(), io);
            (step, self.lease.is_some())
        };
        self.from_client.consumed = step.consumed;
        if self.from_client.out.is_empty() {
            self.from_client.settle_input(&self.worker.buffers);
        } else {
            let _ = self.flush_to_server(cx);
        }
        self.phase = match step.next {
            ClientNext::Read { bytes } => {
                self.from_client.wanted = bytes.max(1) + self.from_client.consumed;
                ClientPhase::Reading
            }
            ClientNext::Replies => ClientPhase::Replies,
            ClientNext::Lease(plan) => return self.acquire(plan, cx),
            ClientNext::Close(reason) => return self.close_by_client(reason, cx),
        };
        if leased {
            self.settle(cx);
        }
    }

    /// advise → plan happened in the session; here the plan becomes a lease.
    fn acquire(&mut self, plan: Plan, cx: &mut Context<'_>) {
        self.phase = ClientPhase::Queued;
        let now = Instant::now();
        let pool = match plan.target {
            Target::Primary => self.client.write_pool.clone(),
            Target::Replica => self.worker.read_pool(&self.client, now),
        };
        match self.worker.pools.acquire(&pool, &self.client.slot, now) {
            Acquired::Now(lease) => self.handle_grant(Ok(lease), cx),
            Acquired::Refused(refusal) => self.handle_grant(Err(refusal), cx),
            Acquired::Queued => self.client.set_state(State::Waiting, now),
        }
    }

    fn handle_grant(&mut self, grant: Result<Lease, Refusal>, cx: &mut Context<'_>) {
        match grant {
            Ok(mut lease) => {
                self.client.set_state(State::Active, Instant::now());
                self.client.server.set(Some(lease.server.id));
                self.session.handle_lease(&mut lease.server.state, &mut self.from_client.out);
                self.lease = Some(lease);
                self.from_server.wanted = 1 + self.from_server.consumed;
                self.phase = ClientPhase::Reading;
                self.feed_client(cx);
            }
            Err(refusal) => {
                self.worker.stats.errors.increment(match refusal.sqlstate {
                    "53300" => ErrorKind::PoolTimeout,
                    "28P01" | "28000" | "3D000" | "42501" => ErrorKind::ServerLogin,
                    _ => ErrorKind::ServerUnreachable,
                });
                self.refuse(&refusal);
            }
        }
    }

    /// Answers the statement that needed a server with an error.
    fn refuse(&mut self, refusal: &Refusal) {
        let input = self.from_client.input.bytes();
        let step = self.session.handle_lease_refused(refusal, input, &mut self.from_server.out);
        self.client.set_state(State::Idle, Instant::now());
        match step.next {
            ClientNext::Close(reason) => self.close(reason),
            _ => {
                self.from_client.wanted = 0;
                self.phase = ClientPhase::Reading;
            }
        }
    }

    // --- server → client -----------------------------------------------------------------------------

    fn pump_server(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.from_server.out.is_empty() && self.flush_to_client(cx).is_pending() {
            return Step::Still;
        }
        let Some(lease) = &mut self.lease else { return Step::Still };
        let wanted = self.from_server.wanted;
        if self.from_server.input.len() < wanted {
            let buffers = &self.worker.buffers;
            match self.from_server.input.poll_read(&mut lease.server.stream, wanted, buffers, cx) {
                Poll::Pending => return Step::Still,
                Poll::Ready(Ok(count)) if count > 0 => {
                    if self.from_server.input.len() < wanted {
                        return Step::Moved;
                    }
                }
                Poll::Ready(_) => {
                    self.server_gone();
                    return Step::Moved;
                }
            }
        }
        self.feed_server(cx);
        Step::Moved
    }

    fn feed_server(&mut self, cx: &mut Context<'_>) {
        let Some(lease) = &mut self.lease else { return };
        let step = {
            let mut interner = self.worker.interner.borrow_mut();
            let io = Io {
                server: Some(&mut lease.server.state),
                interner: &mut interner,
                to_server: &mut self.from_client.out,
                to_client: &mut self.from_server.out,
            };
            self.session.handle_server(self.from_server.input.bytes(), io)
        };
        self.client.status.set(self.session.status());
        self.from_server.consumed = step.consumed;
        if matches!(self.phase, ClientPhase::Gone(..)) {
            self.from_server.out.clear();
        }
        if self.from_server.out.is_empty() {
            self.from_server.settle_input(&self.worker.buffers);
        } else {
            let _ = self.flush_to_client(cx);
        }
        match step.next {
            ServerNext::Read { bytes } => {
                self.from_server.wanted = bytes + self.from_server.consumed
            }
            ServerNext::Close(reason) => {
                self.lease = None;
                self.close(reason);
                return;
            }
        }
        if matches!(self.phase, ClientPhase::Replies) {
            self.phase = ClientPhase::Reading;
            self.from_client.wanted = 0;
        }
        self.settle(cx);
    }

    /// Gives the server back when the session says so.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let Some(lease) = &mut self.lease else { return };
        let settled = self.session.settle(&mut lease.server.state, &mut self.from_client.out);
        match settled {
            Settled::Busy => {
                if !self.from_client.out.is_empty() {
                    let _ = self.flush_to_server(cx);
                }
            }
            Settled::Keep => self.client.pins.set(self.session.pins()),
            Settled::Close => self.lease = None,
            Settled::Release if self.cancelling.get() > 0 => self.held = Held::UntilCancelled,
            Settled::Release => {
                // Bytes that came after the last reply belong to nobody: such a connection is not trusted.
                let left_over = self.from_server.input.len() > self.from_server.consumed;
                let fitness = if left_over || !self.from_client.out.is_empty() {
                    Fitness::Unfit
                } else {
                    Fitness::Fit
                };
                let now = Instant::now();
                self.worker.stats.transactions.increment();
                self.client.transactions.set(self.client.transactions.get() + 1);
                self.client.server.set(None);
                self.client.pins.set(self.session.pins());
                self.client.set_state(State::Idle, now);
                if let Some(lease) = self.lease.take() {
                    lease.release(fitness, now);
                }
            }
        }
    }

    // --- writing -------------------------------------------------------------------------------------

    fn flush_to_server(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(lease) = &mut self.lease else {
            self.from_client.out.clear();
            self.from_client.settle_input(&self.worker.buffers);
            return Poll::Ready(());
        };
        match self.from_client.poll_flush(&mut lease.server.stream, &self.worker.buffers, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(_)) => Poll::Ready(()),
            // What the server said before it closed is still to be read; reading finds the end.
            Poll::Ready(Err(_)) => {
                self.from_client.out.clear();
                self.from_client.settle_input(&self.worker.buffers);
                Poll::Ready(())
            }
        }
    }

    fn flush_to_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.from_server.poll_flush(&mut self.stream, &self.worker.buffers, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(sent)) => {
                self.worker.stats.bytes_to_clients.add(sent);
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) => {
                self.from_server.out.clear();
                self.from_server.settle_input(&self.worker.buffers);
                self.client_gone(CloseReason::ClientDisconnected, cx);
                Poll::Ready(())
            }
        }
    }

    // --- ends ----------------------------------------------------------------------------------------

    /// The client said Terminate, broke the protocol, or was refused for good.
    fn close_by_client(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        if reason == CloseReason::ClientTerminated {
            self.client_gone(reason, cx);
        } else {
            self.close_and_clean(reason, cx);
        }
    }

    /// The client has a last message to read; its server is cleaned meanwhile by somebody else's time: it is closed
    /// unless it is at rest.
    fn close_and_clean(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        let _ = cx;
        self.close(reason);
    }

    /// Nobody reads any more: cleans the server if there is one.
    fn client_gone(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        if matches!(self.phase, ClientPhase::Gone(..) | ClientPhase::Closing(_)) {
            return;
        }
        self.worker.pools.give_up(&self.client.slot, Instant::now());
        self.client.slot.set_waker(cx.waker());
        self.from_server.out.clear();
        self.from_server.settle_input(&self.worker.buffers);
        if self.lease.is_some() {
            match self.session.handle_client_gone(&mut self.from_client.out) {
                Gone::Close => self.lease = None,
                Gone::Drain => {}
                Gone::CancelAndDrain => self.cancel_on_server(),
            }
        }
        self.phase = ClientPhase::Gone(reason, Box::pin(tokio::time::sleep(DRAIN_TIME_MAX)));
        self.client.set_state(State::Closing, Instant::now());
        let _ = self.flush_to_server(cx);
        self.settle(cx);
    }

    fn server_gone(&mut self) {
        self.lease = None;
        if let ClientPhase::Gone(..) = self.phase {
            return;
        }
        let refusal = Refusal::fatal("08006", "the server closed the connection unexpectedly")
            .detail("What the statement in progress did is not known; a transaction that was not committed is rolled back.")
            .hint("Reconnect, and look at the server's log for the cause.");
        self.from_server.out.send(|out| refusal.write(out));
        self.close(CloseReason::ServerDisconnected);
    }

    fn close(&mut self, reason: CloseReason) {
        self.lease = None;
        if !matches!(self.phase, ClientPhase::Gone(..)) {
            self.phase = ClientPhase::Closing(reason);
        }
    }

    /// Sends the last message and waits until the client has taken it: closing at once, with input unread, would make
    /// the system throw it away.
    fn poll_goodbye(&mut self, reason: CloseReason, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let deadline =
            self.goodbye.get_or_insert_with(|| Box::pin(tokio::time::sleep(GOODBYE_TIME_MAX)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(reason);
        }
        if ready!(self.from_server.poll_flush(&mut self.stream, &self.worker.buffers, cx)).is_err()
        {
            return Poll::Ready(reason);
        }
        if ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(reason);
        }
        loop {
            let buffers = &self.worker.buffers;
            self.from_client.consumed = 0;
            self.from_client.out.clear();
            let length = self.from_client.input.len();
            self.from_client.input.consume(length, buffers);
            match ready!(self.from_client.input.poll_read(&mut self.stream, 1, buffers, cx)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(reason),
            }
        }
    }

    /// Asks the server to cancel what it runs for this client.
    fn cancel_on_server(&mut self) {
        let Some(lease) = &self.lease else { return };
        let Some(key) = lease.server.backend_key.clone() else { return };
        if !self.session.is_waiting_for_replies() {
            return;
        }
        self.cancelling.set(self.cancelling.get() + 1);
        let (under_way, client) = (self.cancelling.clone(), self.client.clone());
        self.worker.cancel_server(lease.server.target.clone(), key, move || {
            under_way.set(under_way.get() - 1);
            client.wake();
        });
    }

    /// Nothing moves: gives back what an idle client does not need.
    fn rest(&mut self) {
        if self.lease.is_none()
            && self.from_client.input.is_empty()
            && self.from_server.out.is_empty()
        {
            self.session.shrink();
            self.from_client.out.shrink();
            self.from_server.out.shrink();
        }
    }
}
