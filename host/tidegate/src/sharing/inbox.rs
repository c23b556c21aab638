//! What others ask of the task that owns the connection, and what they get.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tidegate_cache::{Names, Tag};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::entries::Asked;
use super::{Entry, Sharing};

/// That it was done; an error: it was not, and may never be.
pub(super) type Answer = oneshot::Receiver<()>;

#[derive(Debug)]
pub(super) enum Order {
    Mark {
        token: u64,
        process: Option<i32>,
        tags: Arc<[Tag]>,
        names: Option<Names>,
    },
    End {
        tokens: Vec<u64>,
        tags: Vec<Tag>,
        names: Option<Names>,
    },
    Look {
        entry: Arc<Entry>,
        has: Option<Box<[u64]>>,
        relies: bool,
        found: oneshot::Sender<Looked>,
    },
    Put {
        entry: Arc<Entry>,
        versions: Arc<[u64]>,
        value: Vec<u8>,
        ttl: Duration,
    },
    Entries(Asked),
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) order: Order,
    pub(super) done: oneshot::Sender<()>,
}

impl Request {
    pub(super) fn new(order: Order) -> (Self, Answer) {
        let (done, answer) = oneshot::channel();
        (Self { order, done }, answer)
    }
}

/// What was found: the versions of all tags at one instant, and what was read under them.
#[derive(Debug)]
pub struct Shared {
    pub versions: Arc<[u64]>,
    /// What was put, and how long it may be served.
    pub value: Option<(Vec<u8>, Duration)>,
    /// They may be relied on, and were asked for then.
    pub relied_from: Option<Instant>,
}

/// What a look came to.
#[derive(Debug)]
pub enum Looked {
    /// Nothing may be served: something of it is being committed.
    Marked,
    Shared(Shared),
}

/// A look that is under way.
#[derive(Debug)]
pub struct Looking {
    pub entry: Arc<Entry>,
    relied_from: Option<Instant>,
    found: oneshot::Receiver<Looked>,
    timer: Pin<Box<Sleep>>,
    sharing: Arc<Sharing>,
}

impl Looking {
    /// `None`: nothing is known in time.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Looked>> {
        if let Poll::Ready(found) = Pin::new(&mut self.found).poll(cx) {
            let mut found = found.ok();
            if let Some(Looked::Shared(shared)) = &mut found {
                shared.relied_from = self.relied_from;
            }
            return Poll::Ready(found);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            super::count(&self.sharing.counts.late);
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Sharing {
    /// Asks for an answer and its tags' versions; not for the answer while they are those of `has`. `None`: what is shared cannot
    /// be believed now. `relies`: they are to be relied on afterwards.
    pub fn look(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        has: Option<Box<[u64]>>,
        relies: bool,
    ) -> Option<Looking> {
        let mut core = self.core();
        let now = Instant::now();
        if !core.membership.may_serve(now) {
            return None;
        }
        let (found, receiver) = oneshot::channel();
        self.send(&mut core, Order::Look { entry: entry.clone(), has, relies, found })?;
        drop(core);
        super::count(&self.counts.looks);
        let timer = Box::pin(tokio::time::sleep(self.deadline()));
        let relied_from = relies.then_some(now);
        Some(Looking { entry, relied_from, found: receiver, timer, sharing: self.clone() })
    }

    /// Puts what was read under these versions. Nobody waits for it.
    pub fn put(&self, entry: Arc<Entry>, versions: Arc<[u64]>, value: Vec<u8>, ttl: Duration) {
        let mut core = self.core();
        // No session: then what was read is nobody's.
        let _ = self.send(&mut core, Order::Put { entry, versions, value, ttl });
    }
}
