//! Drives one client's session: moves bytes between its socket, the session machine, and the server it was lent.
//!
//! One loop, polled: read a side only when what it sent before has gone out to the other (back-pressure without
//! queues), try to write at once, wait only when nothing moves. The loop knows no protocol; the session does.

mod ends; // how a connection ends
mod kept; // answers on their way to be kept
mod lent; // the server in hand: got, settled, given back
mod notified; // who listens for it, and what it is told
mod pause; // what it waits for without a server
mod phase; // what the client's side does next
mod writing; // what goes out

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use tidegate_core::session::prepared::SchemaGeneration;
use tidegate_core::session::{ClientNext, CloseReason, Io, ServerNext, Session};
use tidegate_policy::Outcome;

pub use lent::Asked;
use lent::{Lent, Stage};
use pause::Pause;
use phase::ClientPhase;

use super::buffers::Input;
use super::caching::Come;
use super::clients::{Client, State};
use super::recording::UnderWay;
use super::way::Way;
use super::worker::{Rereading, Worker};
use crate::sharing::Gates;
use crate::stream::{Settling, Stream};

/// The last message of a client: a type byte and a length.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// One client from ReadyForQuery to the end.
pub struct Connection {
    worker: Rc<Worker>,
    client: Rc<Client>,
    stream: Stream,
    session: Session,
    /// For the server in hand, or waited for.
    asked: Asked,
    /// It has waited for a replica for the read that is to run next.
    has_waited: bool,
    lent: Option<Lent>,
    from_client: Way,
    from_server: Way,
    phase: ClientPhase,
    /// How what the server in hand was lent for has gone so far.
    outcome: Outcome,
    goodbye: Option<Pin<Box<tokio::time::Sleep>>>,
    /// How often what runs for a client that is gone is cancelled again.
    cancels_left: u32,
    /// Cancel requests for the server in hand that are under way; it does not go back before they have ended.
    cancelling: Rc<Cell<usize>>,
    /// Who listens for it, if it does.
    heard: Option<Box<notified::Heard>>,
    /// While somebody records.
    under_way: Option<Box<UnderWay>>,
    /// The answer that is on its way, if it is to be kept.
    keeping: Option<Box<kept::KeepingAnswer>>,
    /// What bytes on their way wait for.
    gates: Gates,
    /// What its client's word waits for that it has committed.
    rereading: Option<Rereading>,
    /// What is under way was not sent before.
    sent_at: Instant,
    dry: Dry,
}

/// Sides that had nothing to read since the connection was last woken. Each will wake it, and says no more until then.
#[derive(Clone, Copy, Debug, Default)]
struct Dry {
    client: bool,
    server: bool,
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
            asked: Asked::PRIMARY,
            has_waited: false,
            lent: None,
            from_client: Way::new(input),
            from_server,
            phase: ClientPhase::Reading,
            outcome: Outcome::Success,
            goodbye: None,
            cancels_left: 0,
            cancelling: Rc::default(),
            heard: None,
            under_way: None,
            keeping: None,
            gates: Gates::default(),
            rereading: None,
            sent_at: Instant::now(),
            dry: Dry::default(),
        }
    }

    /// Runs until the client and its server are dealt with. Cancel safe only at the end: dropping it closes both.
    pub async fn run(mut self: Box<Self>) -> CloseReason {
        let reason = poll_fn(|cx| self.poll(cx)).await;
        self.worker.pools.give_up(&self.client.slot, Instant::now());
        self.stop_listening();
        self.from_client.end(&self.worker.buffers);
        self.from_server.end(&self.worker.buffers);
        reason
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.dry = Dry::default();
        self.client.set_waker(cx.waker());
        self.heed_requests(cx);
        self.settle_held(cx);
        self.poll_listening(cx);
        loop {
            if let ClientPhase::Closing(reason) = self.phase {
                return self.poll_goodbye(reason, cx);
            }
            if let ClientPhase::Gone(reason, deadline) = &mut self.phase {
                let reason = *reason;
                if deadline.as_mut().poll(cx).is_ready() {
                    self.drain_on(cx);
                }
                if self.lent.is_none() {
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
                // Where the socket is now nobody waits for it yet.
                if self.settle_stream() == Settling::Moved {
                    self.dry.client = false;
                    continue;
                }
                break;
            }
        }
        self.rest();
        Poll::Pending
    }

    // --- client → server -----------------------------------------------------------------------------

    fn pump_client(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.from_client.is_clear() && self.flush_to_server(cx).is_pending() {
            return Step::Still;
        }
        match &mut self.phase {
            ClientPhase::Paused(until) => {
                if until.poll(cx).is_pending() {
                    return self.watch_client(cx);
                }
                self.from_client.wanted = 0;
                self.phase = ClientPhase::Reading;
                Step::Moved
            }
            ClientPhase::Recalling(later) => {
                let Poll::Ready(come) = later.poll(cx) else { return self.watch_client(cx) };
                self.client.set_state(State::Idle, Instant::now());
                self.worker.routing.borrow_mut().caching.set_come(come);
                self.feed_client(cx);
                self.worker.routing.borrow_mut().caching.set_come(Come::default());
                Step::Moved
            }
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
        if self.dry.client {
            return Poll::Pending;
        }
        let buffers = &self.worker.buffers;
        match self.from_client.input.poll_read(&mut self.stream, wanted, buffers, cx) {
            Poll::Pending => {
                self.dry.client = true;
                Poll::Pending
            }
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
        self.tell_time();
        let (step, leased, filling, later, inspection) = {
            let mut interner = self.worker.interner.borrow_mut();
            let schema = self.worker.shared.schema.load(Ordering::Relaxed);
            interner.set_generation(SchemaGeneration(schema));
            let mut routing = self.worker.routing.borrow_mut();
            let io = Io {
                server: self.lent.as_mut().map(|lent| &mut lent.lease.server.state),
                interner: &mut interner,
                router: &mut routing.of(&self.client, schema),
                to_server: &mut self.from_client.out,
                to_client: &mut self.from_server.out,
            };
            let step = self.session.handle_client(self.from_client.input.bytes(), io);
            if routing.recorder.has_notes() {
                let under_way = self.under_way.get_or_insert_default();
                under_way.take_notes(&mut routing.recorder, Instant::now());
            }
            self.gates.extend(routing.caching.take_gates());
            let (filling, later) = (routing.caching.take_filling(), routing.caching.take_later());
            (step, self.lent.is_some(), filling, later, routing.caching.take_inspection())
        };
        if let Some(inspection) = inspection {
            self.worker.inspect(&self.client, *inspection);
        }
        if !leased {
            self.keep_next(filling, &step.next);
            // What was answered without a server may have named statements.
            self.client.prepared.set(self.session.prepared_count());
        }
        let vacated = self.session.take_vacated();
        self.worker.shared.views.vacate(&vacated);
        self.worker.shared.pools.vacate(&vacated);
        self.from_client.consumed = step.consumed;
        if (step.consumed > 0 || self.session.is_replay_under_way())
            && let Some(lent) = &mut self.lent
        {
            lent.stage = Stage::Used;
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
            ClientNext::Pause(time) => {
                self.client.set_state(State::Waiting, Instant::now());
                let asking = self.worker.routing.borrow_mut().limiting.take_asking(&self.client);
                ClientPhase::Paused(Pause::until(time, asking))
            }
            ClientNext::Recall => match later {
                Some(later) => {
                    self.client.set_state(State::Waiting, Instant::now());
                    ClientPhase::Recalling(Box::new(later))
                }
                None => ClientPhase::Reading,
            },
            ClientNext::Lease(plan) => return self.acquire(plan, cx),
            ClientNext::Close(reason) => return self.close_by_client(reason, cx),
        };
        if leased {
            self.settle(cx);
        }
    }

    // --- server → client -----------------------------------------------------------------------------

    fn pump_server(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.from_server.is_clear() && self.flush_to_client(cx).is_pending() {
            return Step::Still;
        }
        if self.notify() {
            return Step::Moved;
        }
        let Some(Lent { lease, .. }) = &mut self.lent else { return Step::Still };
        let wanted = self.from_server.wanted;
        if self.from_server.input.len() < wanted {
            if self.dry.server {
                return Step::Still;
            }
            let buffers = &self.worker.buffers;
            match self.from_server.input.poll_read(&mut lease.server.stream, wanted, buffers, cx) {
                Poll::Pending => {
                    self.dry.server = true;
                    return Step::Still;
                }
                Poll::Ready(Ok(count)) if count > 0 => {
                    if self.from_server.input.len() < wanted {
                        return Step::Moved;
                    }
                }
                Poll::Ready(_) => {
                    self.server_gone(cx);
                    return Step::Moved;
                }
            }
        }
        self.feed_server(cx);
        Step::Moved
    }

    fn feed_server(&mut self, cx: &mut Context<'_>) {
        self.tell_time();
        let Some(Lent { lease, .. }) = &mut self.lent else { return };
        let (step, due) = {
            let mut interner = self.worker.interner.borrow_mut();
            let before = interner.generation();
            let mut routing = self.worker.routing.borrow_mut();
            let io = Io {
                server: Some(&mut lease.server.state),
                interner: &mut interner,
                router: &mut routing.of(&self.client, before.0),
                to_server: &mut self.from_client.out,
                to_client: &mut self.from_server.out,
            };
            let step = self.session.handle_server(self.from_server.input.bytes(), io);
            if let Some(under_way) = &mut self.under_way {
                let now = Instant::now();
                if routing.recorder.has_notes() {
                    under_way.take_notes(&mut routing.recorder, now);
                }
                let runner = || self.client.runner(&self.session, self.asked.place);
                under_way.settle(self.session.answered(), &mut routing.recorder, runner, now);
                if under_way.is_over(&routing.recorder) {
                    self.under_way = None;
                }
            }
            self.gates.extend(routing.caching.take_gates());
            self.worker.shared.note_schema(&mut interner);
            if let Some(keeping) = &mut self.keeping {
                keeping.feed(&self.from_server.out, self.from_server.input.bytes());
            }
            self.worker.shared.retire(&self.session.take_changed_defaults(), &self.client.user);
            if self.session.take_changed_roles() {
                self.worker.settled().login.users.forget_all();
            }
            (step, routing.caching.take_due())
        };
        self.read_again(due);
        self.note_write();
        self.note_commit();
        self.keep_whole();
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
            ServerNext::Close(CloseReason::ServerDisconnected) => return self.server_gone(cx),
            ServerNext::Close(reason) => {
                self.drop_server();
                self.close(reason);
                return;
            }
        }
        if matches!(self.phase, ClientPhase::Replies) {
            self.read_on();
        }
        self.settle(cx);
    }

    /// The session takes the client's next message.
    fn read_on(&mut self) {
        self.phase = ClientPhase::Reading;
        self.from_client.wanted = 0;
    }
}
