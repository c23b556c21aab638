//! What a client listens to: kept in step with the connection that listens for it, and told.

use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;

use tidegate_core::channels::Channels;
use tidegate_core::limits::LISTEN_TIME_MAX;
use tidegate_core::refusal::Refusal;
use tidegate_core::session::ListenNeed;
use tidegate_listen::{Mark, Standing};

use super::{ClientPhase, Connection};
use crate::data::clients::CloseRequest;
use crate::data::listening::Listener;

/// A client is told so much at a time before what it is told has to go out, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A client for which somebody listens.
pub(super) struct Heard {
    listener: Rc<Listener>,
    /// The server's process that is known to run this client's transactions.
    process: Option<i32>,
    waits: Waits,
}

enum Waits {
    ForNothing,
    ToBeToldApart,
    ToBeSettled(Mark, Pin<Box<tokio::time::Sleep>>),
}

impl Connection {
    fn heard(&mut self) -> &mut Heard {
        if self.heard.as_ref().is_some_and(|heard| !heard.listener.is_running()) {
            self.heard = None;
        }
        self.heard.get_or_insert_with(|| {
            let listener = self.worker.listeners.of(&self.client);
            Box::new(Heard { listener, process: None, waits: Waits::ForNothing })
        })
    }

    /// Sees to what the session wants of the connection that listens.
    pub(super) fn heed_listen_need(&mut self, cx: &mut Context<'_>) {
        let Some(need) = self.session.take_listen_need() else { return };
        let (client, told) = (self.client.id, self.client.key_pid);
        match need {
            ListenNeed::Lend => {
                let process = self.lent.as_ref().and_then(|lent| lent.lease.server.state.process());
                let heard = self.heard();
                heard.process = process;
                heard.waits = Waits::ToBeToldApart;
                if let Some(process) = process {
                    heard.listener.hub.borrow_mut().lend(client, process);
                }
            }
            ListenNeed::Settle => {
                let channels = self.session.channels().clone();
                let heard = self.heard();
                let mark = heard.listener.hub.borrow_mut().want(client, told, &channels);
                let deadline = Box::pin(tokio::time::sleep(LISTEN_TIME_MAX));
                heard.waits = Waits::ToBeSettled(mark, deadline);
            }
            ListenNeed::Forget => self.forget_listening(),
        }
        if let Some(heard) = &self.heard {
            heard.listener.wake();
        }
        self.poll_listening(cx);
    }

    fn forget_listening(&mut self) {
        let (client, told) = (self.client.id, self.client.key_pid);
        if let Some(heard) = &mut self.heard {
            heard.waits = Waits::ForNothing;
            heard.listener.hub.borrow_mut().want(client, told, &Channels::default());
        }
    }

    /// The server goes back.
    pub(super) fn end_lend(&mut self) {
        let Some(heard) = &mut self.heard else { return };
        if let Some(process) = heard.process.take() {
            heard.listener.hub.borrow_mut().give_back(self.client.id, process);
        }
        if self.session.channels().is_empty() {
            heard.listener.leave(self.client.id);
            self.heard = None;
        }
    }

    /// Nobody listens for this client any more.
    pub(super) fn stop_listening(&mut self) {
        if let Some(heard) = self.heard.take() {
            heard.listener.leave(self.client.id);
        }
    }

    /// Goes on when what it waited for has come.
    pub(super) fn poll_listening(&mut self, cx: &mut Context<'_>) {
        let client = self.client.id;
        let Some(heard) = &mut self.heard else { return };
        match &mut heard.waits {
            Waits::ForNothing => {}
            Waits::ToBeToldApart => {
                let hub = heard.listener.hub.borrow();
                if heard.process.is_none_or(|process| hub.is_told_apart(client, process)) {
                    drop(hub);
                    heard.waits = Waits::ForNothing;
                    // It is idle until what it has sent is looked at.
                    self.tell_notifications(usize::MAX);
                    self.session.handle_told_apart();
                    if self.session.owes_ready() || !self.is_about_to_be_fed() {
                        self.settle(cx);
                    }
                    self.feed_again();
                }
            }
            Waits::ToBeSettled(mark, deadline) => {
                let is_settled = heard.listener.hub.borrow().is_settled(client, *mark);
                if !is_settled && deadline.as_mut().poll(cx).is_pending() {
                    return;
                }
                heard.waits = Waits::ForNothing;
                if is_settled {
                    // Before the client is told that its transaction is over. If its listener was lost it is told so next: how its
                    // transaction has ended comes first.
                    self.tell_notifications(usize::MAX);
                    self.session.handle_listened();
                } else {
                    self.session.handle_listen_refused();
                }
                self.settle(cx);
                self.feed_again();
            }
        }
        self.heed_standing();
    }

    fn feed_again(&mut self) {
        if matches!(self.phase, ClientPhase::Replies) {
            self.phase = ClientPhase::Reading;
            self.from_client.wanted = 0;
        }
    }

    /// Between transactions, what has come is told unasked. Says whether there was anything.
    pub(super) fn notify(&mut self) -> bool {
        let is_over = matches!(self.phase, ClientPhase::Gone(..) | ClientPhase::Closing(_));
        self.heard.is_some()
            && !is_over
            && self.session.may_be_notified()
            && self.tell_notifications(PIECE_BYTES)
    }

    fn tell_notifications(&mut self, bytes_max: usize) -> bool {
        let Some(heard) = &self.heard else { return false };
        let mut hub = heard.listener.hub.borrow_mut();
        if !hub.has_notifications(self.client.id) {
            return false;
        }
        let client = self.client.id;
        let mut told = Vec::new();
        hub.take_notifications(client, bytes_max, &mut told);
        self.from_server.out.send(|out| out.extend_from_slice(&told));
        true
    }

    /// A client that may have missed something is told.
    fn heed_standing(&mut self) {
        let Some(heard) = &self.heard else { return };
        let standing = heard.listener.hub.borrow().standing(self.client.id);
        let request = match standing {
            Standing::Whole => return,
            Standing::Overrun => CloseRequest::Now(Rc::new(overrun())),
            Standing::Lost(_) => CloseRequest::AtRest(Rc::new(lost())),
        };
        if self.client.close_request().is_none() {
            self.client.request_close(request);
        }
    }
}

fn overrun() -> Refusal {
    Refusal::fatal("53400", "terminating connection because too many notifications wait for it")
        .detail("The client listens, and has not taken what it was sent, or has not ended its transaction.")
        .hint("Read notifications as they come, and keep transactions of connections that LISTEN short.")
}

fn lost() -> Refusal {
    Refusal::fatal("08006", "terminating connection because notifications may have been lost")
        .detail("The connection to the server that listened for this client was lost.")
        .hint("Reconnect, LISTEN again, and look at what may have changed meanwhile.")
}
