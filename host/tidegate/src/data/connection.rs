//! Drives one client's session: moves bytes between its socket, the session machine, and the server it was lent.
//!
//! One loop, polled: read a side only when what it sent before has gone out to the other (back-pressure without
//! queues), try to write at once, wait only when nothing moves. The loop knows no protocol; the session does.

mod ends; // how a connection ends

use std::cell::Cell;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use tidegate_core::plan::{Plan, Target};
use tidegate_core::pool::Fitness;
use tidegate_core::refusal::Refusal;
use tidegate_core::session::prepared::SchemaGeneration;
use tidegate_core::session::{
    ClientNext, CloseReason, Io, Pins, ServerNext, Session, Settled, Tally,
};

use super::buffers::Input;
use super::clients::{Client, State};
use super::way::Way;
use super::worker::Worker;
use crate::observe::stats::{ErrorKind, PinReason};
use crate::stream::Stream;
use crate::upstream::pool::{Acquired, Lease};

/// The last message of a client: a type byte and a length.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

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
    /// How often what runs for a client that is gone is cancelled again.
    cancels_left: u32,
    /// Cancel requests for the server in hand that are under way; it does not go back before they have ended.
    cancelling: Rc<Cell<usize>>,
    held: Held,
    lent: Lent,
}

/// Whether a server that could go back is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    No,
    UntilCancelled,
}

/// Whether the statement that a server was lent for has been sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lent {
    Fresh,
    Used,
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
            cancels_left: 0,
            cancelling: Rc::default(),
            held: Held::No,
            lent: Lent::Used,
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
                    self.drain_on(cx);
                }
                if self.lease.is_none() {
                    return Poll::Ready(reason);
                }
            }
            let before = mem::discriminant(&self.phase);
            let client = self.pump_client(cx);
            if matches!(client, Step::Moved) {
                self.client.idle.set(None);
            }
            let server = self.pump_server(cx);
            let moved = !matches!((client, server), (Step::Still, Step::Still));
            if !moved {
                // What moved may have brought the client to rest, which is what some requests wait for.
                self.heed_requests(cx);
            }
            // A phase that has just begun has its own deadline to look at.
            if !moved && mem::discriminant(&self.phase) == before {
                break;
            }
        }
        self.rest();
        Poll::Pending
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
        let full = !self.from_client.input.has_room() || !self.from_client.out.is_empty();
        // Who has said goodbye need not stay until it is done what was asked before.
        if full || self.from_client.input.bytes().ends_with(&TERMINATE) {
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
            let schema = self.worker.shared.schema.load(Ordering::Relaxed);
            interner.set_generation(SchemaGeneration(schema));
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
        if step.consumed > 0 {
            self.lent = Lent::Used;
        }
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
                self.lent = Lent::Fresh;
                self.from_server.wanted = 1;
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
            let before = interner.generation();
            let io = Io {
                server: Some(&mut lease.server.state),
                interner: &mut interner,
                to_server: &mut self.from_client.out,
                to_client: &mut self.from_server.out,
            };
            let step = self.session.handle_server(self.from_server.input.bytes(), io);
            self.worker.shared.note_schema(before, interner.generation());
            self.worker.shared.retire(&self.session.take_changed_defaults(), &self.client.user);
            step
        };
        if !self.session.is_waiting_for_replies() {
            self.cancels_left = 0;
        }
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
                self.drop_server();
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

    /// Adds what the session did to the worker's counters.
    fn count(&mut self) {
        let tally = self.session.take_tally();
        if tally != Tally::default() {
            let stats = &self.worker.stats;
            stats.statements.add(u64::from(tally.statements));
            stats.reprepared.add(u64::from(tally.reprepared));
            stats.settings_applied.add(u64::from(tally.settings_applied));
            self.client.statements.set(self.client.statements.get() + u64::from(tally.statements));
        }
    }

    /// The client keeps its server: counts each cause that is new.
    fn note_pins(&self) {
        let (before, now) = (self.client.pins.get(), self.session.pins());
        for (index, (pin, _)) in Pins::ALL.iter().enumerate() {
            if now.contains(*pin) && !before.contains(*pin) {
                self.worker.stats.pins.increment(PinReason(index));
            }
        }
        self.client.pins.set(now);
        self.client.prepared.set(self.session.prepared_count());
    }

    /// Gives the server back when the session says so.
    fn settle(&mut self, cx: &mut Context<'_>) {
        self.count();
        let Some(lease) = &mut self.lease else { return };
        let settled = self.session.settle(&mut lease.server.state, &mut self.from_client.out);
        match settled {
            Settled::Busy => {
                if !self.from_client.out.is_empty() {
                    let _ = self.flush_to_server(cx);
                }
            }
            Settled::Keep => self.note_pins(),
            Settled::Close => self.drop_server(),
            // Only its settings have been switched so far. Given back now, it would be switched for somebody else, and
            // with enough clients nobody would ever come to the statement itself.
            Settled::Release if self.lent == Lent::Fresh && self.is_about_to_be_fed() => {
                self.lent = Lent::Used;
                self.phase = ClientPhase::Reading;
                self.from_client.wanted = 0;
            }
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
                self.note_pins();
                self.client.set_state(State::Idle, now);
                if let Some(lease) = self.lease.take() {
                    lease.release(fitness, now);
                }
            }
        }
    }

    fn is_about_to_be_fed(&self) -> bool {
        !self.from_client.input.is_empty()
            && matches!(self.phase, ClientPhase::Reading | ClientPhase::Replies)
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
}
