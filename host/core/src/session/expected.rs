//! The replies that a server owes, in order, with what each means and how to take it back if it never comes.

use super::prepared::{Prepared, ServerName};
use crate::refusal::Refusal;
use std::collections::VecDeque;
use std::sync::Arc;

/// The copy mode of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copying {
    Nothing,
    /// The server waits for CopyData. `syncs` were sent by the client since its last CopyData and held back, because a
    /// server ignores them here; if it turns out to have left copy mode with an error before, they count after all.
    In {
        syncs: u16,
    },
    Out,
    /// Replication: both directions stay open until one side ends.
    Both,
}

/// A client's statement name and what it stood for, to be put back when a batch fails before it was reached.
pub(super) type Undo = Option<Box<(Box<[u8]>, Arc<Prepared>)>>;

/// One note. The first group is answered by the server; `Answer` is answered by us when its turn comes.
#[derive(Debug)]
pub(super) enum Expected {
    /// ParseComplete for the client's named statement.
    Parse { name: Box<[u8]>, prepared: Arc<Prepared>, on_server: ServerName },
    /// ParseComplete for the client's unnamed statement; `before` is what it replaced.
    ParseUnnamed { before: Option<Arc<Prepared>> },
    /// ParseComplete of a Parse of ours; swallowed. `made` is the client's statement that it brings to this server, with
    /// its name there (none for the unnamed statement).
    OwnParse { made: Option<(Arc<Prepared>, Option<ServerName>)> },
    /// CloseComplete of ours; swallowed.
    OwnClose,
    /// BindComplete. A DEALLOCATE that was bound has already taken a name from the client.
    Bind { deallocated: Undo },
    /// NoData or RowDescription, perhaps after ParameterDescription.
    Describe,
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// ReadyForQuery.
    Sync,
    /// Anything, then ReadyForQuery. `unnamed` is the unnamed statement that the Query ends.
    Query { unnamed: Option<Arc<Prepared>> },
    /// FunctionCallResponse, then ReadyForQuery.
    FunctionCall,
    /// Not answered: the client's CopyDone or CopyFail, sent before it was known whether the server copies.
    CopyEnd,
    /// An error, whatever it says: a message that cannot succeed was sent in place of one that we refuse.
    Refused(Box<Refusal>),
    /// ReadyForQuery of a Query of ours; all of its replies are swallowed.
    Own(Own),
    /// Answered by us.
    Answer(Answer),
}

/// A Query of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Gives the server the client's settings.
    Switch,
    /// Asks the server what state its session holds.
    Probe,
    /// Ends the transaction of a client that is gone.
    Rollback,
    /// Clears the session of a client that is gone.
    Discard,
}

/// A reply of ours that waits for its turn.
#[derive(Debug)]
pub(super) enum Answer {
    /// ParseComplete for a statement that the server already knows.
    Parsed { name: Box<[u8]> },
    /// CloseComplete for a statement that stays on the server for others.
    Closed { undo: Undo },
    /// `DEALLOCATE name` by Query, for a name that only we know.
    Deallocated { undo: Undo },
    /// ReadyForQuery without a server.
    Ready,
}

/// The notes, oldest first. Holds no memory while it was never used.
#[derive(Debug, Default)]
pub(super) struct Queue {
    notes: VecDeque<Expected>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }

    pub(super) fn push(&mut self, note: Expected) {
        self.notes.push_back(note);
    }

    pub(super) fn front(&self) -> Option<&Expected> {
        self.notes.front()
    }

    pub(super) fn pop(&mut self) -> Option<Expected> {
        self.notes.pop_front()
    }

    /// Is a ReadyForQuery still owed, so that the transaction status may be another when a new frame is reached?
    pub(super) fn status_may_change(&self) -> bool {
        self.notes.iter().any(|note| {
            matches!(note, Expected::Sync | Expected::Query { .. } | Expected::FunctionCall)
        })
    }

    /// May the server still enter copy mode?
    pub(super) fn may_copy(&self) -> bool {
        self.notes.iter().any(|note| matches!(note, Expected::Execute | Expected::Query { .. }))
    }

    /// Takes out everything before the next Sync, oldest first: what a server skips after an error.
    pub(super) fn take_until_sync(&mut self) -> std::collections::vec_deque::Drain<'_, Expected> {
        let end = self
            .notes
            .iter()
            .position(|note| matches!(note, Expected::Sync))
            .unwrap_or(self.notes.len());
        self.notes.drain(..end)
    }

    /// The oldest note's statement entered copy mode: what the client sent before its CopyDone is ignored by the
    /// server (Sync, Flush) and takes no reply. Says whether the CopyDone was among what has been sent.
    pub(super) fn enter_copy(&mut self) -> CopyEnded {
        while let Some(note) = self.notes.get(1) {
            match note {
                Expected::Sync => {
                    self.notes.remove(1);
                }
                Expected::CopyEnd => {
                    self.notes.remove(1);
                    return CopyEnded::AlreadySent;
                }
                _ => break,
            }
        }
        CopyEnded::NotYet
    }

    pub(super) fn shrink(&mut self) {
        if self.notes.is_empty() && self.notes.capacity() > 16 {
            self.notes = VecDeque::new();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyEnded {
    AlreadySent,
    NotYet,
}
