//! What holds bytes back: a commit on its way to the server until it is marked, its success on the way to the client until all
//! answers that it changes are void.
//!
//! A gate opens when Redis has done it; or, when it cannot, as soon as nobody serves what should have been taken away.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::Sharing;
use super::inbox::Answer;

/// How often it is looked whether nobody serves any more.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// The task that asks Redis has its own deadline; this is for one that does not run at all.
const TASK_TIME_MAX: Duration = Duration::from_secs(1);

/// One thing that waits. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Gate {
    sharing: Arc<Sharing>,
    session: u64,
    answer: Option<Answer>,
    timer: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

/// What waits, by the side it is for.
#[derive(Debug, Default)]
pub struct Gates {
    pub to_server: Vec<Gate>,
    pub to_client: Vec<Gate>,
}

impl Gates {
    /// Adds others.
    pub fn extend(&mut self, others: Gates) {
        self.to_server.extend(others.to_server);
        self.to_client.extend(others.to_client);
    }

    /// Resolves when all are open.
    pub async fn open(mut self) {
        let mut all = self.to_server;
        all.append(&mut self.to_client);
        std::future::poll_fn(|cx| poll_open(&mut all, cx)).await;
    }
}

/// Takes away those that are open; ready when none is left.
#[inline]
pub fn poll_open(gates: &mut Vec<Gate>, cx: &mut Context<'_>) -> Poll<()> {
    if gates.is_empty() {
        return Poll::Ready(());
    }
    gates.retain_mut(|gate| gate.poll_open(cx).is_pending());
    if gates.is_empty() { Poll::Ready(()) } else { Poll::Pending }
}

impl Gate {
    pub(super) fn new(
        sharing: Arc<Sharing>,
        session: u64,
        answer: Option<Answer>,
        patience: Duration,
    ) -> Self {
        Self { sharing, session, answer, timer: None, patience }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(answer) = &mut self.answer {
            match Pin::new(answer).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(_)) => self.sharing.give_up(self.session, "it did not answer"),
                Poll::Pending => {
                    let time = self.patience + TASK_TIME_MAX;
                    let timer =
                        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.sharing.give_up(self.session, "it was not asked in time");
                }
            }
            super::count(&self.sharing.counts.untold);
            (self.answer, self.timer) = (None, None);
        }
        loop {
            if self.sharing.is_free(self.session, Instant::now()) {
                return Poll::Ready(());
            }
            let timer = self.timer.insert(Box::pin(tokio::time::sleep(LOOK_INTERVAL)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
