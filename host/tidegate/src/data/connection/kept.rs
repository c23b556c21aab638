//! An answer on its way from a server to a client, which is to be kept.
//!
//! ```text
//! looked for in vain ── a server is asked for ──▶ Waits ── lent, and fresh enough ──▶ Takes ── all of it ──▶ kept
//!                                                   └─ anything else ─▶ forgotten ◀─┘
//! ```

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tidegate_cache::{Again, Answer, Capture, Captured, Landing};
use tidegate_core::session::gather::{Gather, Segment};
use tidegate_core::session::{ClientNext, Work};

use super::Connection;
use crate::data::caching::{Filling, Lost};

/// The answer to the unit at the start of the client's input, which a server is asked for.
pub(super) struct KeepingAnswer {
    filling: Filling,
    stage: Stage,
}

enum Stage {
    Waits,
    Takes(Capture),
    Whole(Answer),
    Unfit,
}

impl KeepingAnswer {
    /// What is told the client now, all of it by the server.
    pub(super) fn feed(&mut self, out: &Gather, input: &[u8]) {
        let Stage::Takes(capture) = &mut self.stage else { return };
        for segment in out.segments() {
            let bytes = match *segment {
                Segment::Input { start, end } => input.get(start..end),
                Segment::Own { start, end } => out.own_bytes().get(start..end),
            };
            match capture.feed(bytes.unwrap_or_default()) {
                Captured::More => {}
                Captured::Whole(answer) => {
                    self.stage = Stage::Whole(answer);
                    return;
                }
                Captured::Unfit => {
                    self.stage = Stage::Unfit;
                    return;
                }
            }
        }
    }
}

impl Connection {
    /// The client's input was looked at without a server: only what is asked for now may be kept.
    pub(super) fn keep_next(&mut self, filling: Option<Filling>, next: &ClientNext) {
        self.keeping = match (filling, next) {
            (Some(filling), ClientNext::Lease(_)) => {
                Some(Box::new(KeepingAnswer { filling, stage: Stage::Waits }))
            }
            _ => None,
        };
    }

    /// A server is lent, for the unit at the start of the client's input; perhaps once more.
    pub(super) fn keep_from_here(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        let routing = self.worker.routing.borrow();
        if routing.may_keep(&keeping.filling.fill, self.asked.place) {
            keeping.stage = Stage::Takes(Capture::new(keeping.filling.bytes_max));
        } else {
            drop(routing);
            self.keep_nothing();
        }
    }

    /// No answer comes that could be kept; whoever waits for it runs its own.
    pub(super) fn keep_nothing(&mut self) {
        if let Some(leading) = self.keeping.take().and_then(|keeping| keeping.filling.leading) {
            leading.land(Landing::NotKept);
        }
    }

    /// Keeps an answer of which all is there.
    pub(super) fn keep_whole(&mut self) {
        let is_over = self
            .keeping
            .as_ref()
            .is_some_and(|keeping| matches!(keeping.stage, Stage::Whole(_) | Stage::Unfit));
        if !is_over {
            return;
        }
        let Some(keeping) = self.keeping.take() else { return };
        let KeepingAnswer { filling, stage } = *keeping;
        let Filling { key, fill, term, shared, leading, .. } = filling;
        let landing = match stage {
            Stage::Whole(answer) => {
                let results = &self.worker.shared.results;
                let answer = results.stored(answer);
                if let (Some((entry, versions)), Some(sharing)) = (shared, results.sharing()) {
                    let value = entry.encode(&answer);
                    sharing.put(entry, versions, value, term.ttl);
                }
                results.with(|store| store.put(key, fill, answer, term, Instant::now()));
                self.client.note_put();
                Landing::Put
            }
            Stage::Waits | Stage::Takes(_) | Stage::Unfit => Landing::Unfit,
        };
        if let Some(leading) = leading {
            leading.land(landing);
        }
    }

    /// What this step has committed took these answers: they are read again before the client is told.
    pub(super) fn read_again(&mut self, due: Vec<Arc<Again>>) {
        if let Some(patience) = self.worker.shared.results.write_through()
            && !due.is_empty()
        {
            self.rereading = Some(self.worker.read_again(&self.client, due, patience));
        }
    }

    pub(super) fn poll_reread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(rereading) = &mut self.rereading {
            ready!(rereading.poll(cx));
            self.rereading = None;
        }
        Poll::Ready(())
    }

    /// The server goes back, with nothing of this client's under way.
    pub(super) fn end_keeping(&mut self) {
        self.keeping = None;
        self.end_work(Lost::Undone);
    }

    /// The server is no more, whatever was under way.
    pub(super) fn lose_work(&mut self) {
        if self.lent.is_none() {
            return;
        }
        self.keep_nothing();
        let lost = match self.session.work_at_stake() {
            Work::InDoubt => {
                let lent = self.lent.as_ref();
                Lost::InDoubt(lent.and_then(|lent| lent.lease.server.state.process()))
            }
            Work::None | Work::RolledBack => Lost::Undone,
        };
        self.end_work(lost);
    }

    fn end_work(&self, lost: Lost) {
        let mut tracked = self.client.tracked.borrow_mut();
        tracked.end(&self.worker.shared.results, lost, &self.client.database);
    }
}
