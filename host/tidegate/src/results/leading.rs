//! Single flight between all clients of the process: who runs a read, and who waits for what it brings.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tidegate_cache::{Fill, Joined, Key, Landing, Lead};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::Results;

/// What becomes of a read whose answer is not there.
#[derive(Debug)]
pub enum Run {
    /// It runs, and others may wait for it.
    Leads(Leading),
    Follows(Following),
    /// It runs for itself.
    Alone,
    /// Its answer has come meanwhile.
    Landed,
}

/// A read that others may wait for: until it has landed, or is given up.
#[derive(Debug)]
pub struct Leading {
    results: Arc<Results>,
    lead: Option<Lead>,
}

impl Leading {
    /// It has ended; an answer to be kept has been put.
    pub fn land(mut self, landing: Landing) {
        self.end(landing);
    }

    fn end(&mut self, landing: Landing) {
        if let Some(lead) = self.lead.take() {
            self.results.end(lead, landing);
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.end(Landing::Left);
    }
}

/// A read that waits for another.
#[derive(Debug)]
pub struct Following {
    told: oneshot::Receiver<Landing>,
    timer: Pin<Box<Sleep>>,
    until: Instant,
}

/// How that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// It may follow until then: whomever else, all in all.
    until: Option<Instant>,
}

impl Followed {
    /// It is time to run for itself.
    pub fn is_over(self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }
}

impl Following {
    /// Ready when the other has ended, or takes too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Followed> {
        if let Poll::Ready(told) = Pin::new(&mut self.told).poll(cx) {
            let again = told.is_ok_and(Landing::may_follow);
            return Poll::Ready(Followed { until: again.then_some(self.until) });
        }
        self.timer.as_mut().poll(cx).map(|()| Followed { until: None })
    }
}

impl Results {
    /// What was looked for in vain is brought by one read of all that want it under these versions.
    pub fn join(self: &Arc<Self>, key: &Key, fill: &Fill, followed: Option<Followed>) -> Run {
        let now = Instant::now();
        let mut told = None;
        let mut kept = self.kept();
        // Nobody waits for what stands already.
        if kept.store.has(key, fill) || fill.is_ahead() && kept.followers.is_led(key) {
            return Run::Landed;
        }
        let joined = kept.followers.join(key, fill, now, || {
            let (sender, receiver) = oneshot::channel();
            told = Some(receiver);
            sender
        });
        match (joined, told) {
            (Joined::Leads(lead), _) => {
                Run::Leads(Leading { results: self.clone(), lead: Some(lead) })
            }
            (Joined::Follows, Some(told)) => {
                kept.store.note_follows();
                let until = now + kept.followers.patience();
                let until = followed.and_then(|followed| followed.until).unwrap_or(until);
                let timer = Box::pin(tokio::time::sleep_until(until.into()));
                Run::Follows(Following { told, timer, until })
            }
            (Joined::Follows | Joined::Runs, _) => Run::Alone,
        }
    }

    /// Whoever has followed is answered with what was brought.
    pub fn note_served(&self) {
        self.kept().followers.note_served();
    }

    fn end(&self, lead: Lead, landing: Landing) {
        let told = self.kept().followers.end(lead, landing, Instant::now());
        for follower in told {
            // Who has gone need not be told.
            let _ = follower.send(landing);
        }
    }
}
