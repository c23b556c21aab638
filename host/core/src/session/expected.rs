//! The replies that a server owes, in order, with what each means and how to take it back if it never comes.

use super::prepared::{Prepared, ServerName};
use crate::refusal::Refusal;
use crate::statement::Signal;
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

/// A signal to the client that was told this number for its process.
pub(super) type Signalling = Option<Box<(i32, Signal)>>;

/// One note. The first group is answered by the server; `Answer` is answered by us when its turn comes.
#[derive(Debug)]
pub(super) enum Expected {
    /// ParseComplete for the client's named statement.
    Parse { name: Box<[u8]>, prepared: Arc<Prepared>, on_server: ServerName },
    /// ParseComplete of a Parse of ours, which gave the server a statement under the client's own name; swallowed.
    LaidOpen { undo: Undo },
    /// ParseComplete for the client's unnamed statement; `before` is what it replaced.
    ParseUnnamed { before: Option<Arc<Prepared>> },
    /// ParseComplete of a Parse of ours; swallowed. `made` is the client's statement that it brings to this server, with
    /// its name there (none for the unnamed statement).
    OwnParse { made: Option<(Arc<Prepared>, Option<ServerName>)> },
    /// CloseComplete of ours; swallowed. `closed` is the statement that the server then no longer knows.
    OwnClose { closed: Option<(Arc<Prepared>, ServerName)> },
    /// BindComplete. A DEALLOCATE that was bound has already taken a name from the client; a signal is sent now.
    Bind { deallocated: Undo, signal: Signalling },
    /// NoData or RowDescription, perhaps after ParameterDescription.
    Describe,
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// ReadyForQuery.
    Sync,
    /// Anything, then ReadyForQuery. `unnamed` is the unnamed statement that the Query ends. `deallocated` is what it
    /// drops here; its text was then replaced by one that makes what it drops there. `signal` is sent when it has run.
    Query { unnamed: Option<Arc<Prepared>>, deallocated: Undo, signal: Signalling },
    /// FunctionCallResponse, then ReadyForQuery.
    FunctionCall,
    /// Not answered: the client's CopyDone or CopyFail, sent before it was known whether the server copies.
    CopyEnd,
    /// An error, whatever it says: a message that cannot succeed was sent in place of one that we refuse. For a Query, its
    /// own note follows.
    Refused(Box<Refusal>),
    /// ReadyForQuery of a Query of ours; all of its replies are swallowed.
    Own(Own),
    /// Answered by us.
    Answer(Answer),
}

impl Expected {
    fn ends(&self) -> bool {
        matches!(self, Self::Sync | Self::Query { .. } | Self::FunctionCall)
    }

    fn may_copy(&self) -> bool {
        matches!(self, Self::Execute | Self::Query { .. })
    }

    pub(super) fn is_statement(&self) -> bool {
        self.may_copy() || matches!(self, Self::FunctionCall)
    }
}

/// A Query of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Gives the server the client's settings.
    Switch,
    /// Puts settings of the start-up packet back that the client has reset.
    Restore,
    /// Asks the server what state its session holds.
    Probe,
    /// Asks the database's catalogue what hides there.
    Inspection,
    /// Ends the batch in which statements were laid open for a Query.
    LayOpen,
    /// Has the server listen to what the client listens to.
    Listen,
    /// Forgets another client's sequence values.
    Sequences,
    /// Has a transaction fail, as the client's has whose server was lost.
    Fail,
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
    /// How many of them end with ReadyForQuery for the client, and how many may copy; so that no hot path counts.
    ends: usize,
    copies: usize,
    /// How many statements were ever noted, and how many of these are notes no more.
    sent: u32,
    answered: u32,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }

    pub(super) fn push(&mut self, note: Expected) {
        self.ends += usize::from(note.ends());
        self.copies += usize::from(note.may_copy());
        self.sent = self.sent.wrapping_add(note.is_statement().into());
        self.notes.push_back(note);
    }

    pub(super) fn front(&self) -> Option<&Expected> {
        self.notes.front()
    }

    pub(super) fn pop(&mut self) -> Option<Expected> {
        let note = self.notes.pop_front()?;
        self.forget(&note);
        Some(note)
    }

    fn forget(&mut self, note: &Expected) {
        self.ends -= usize::from(note.ends());
        self.copies -= usize::from(note.may_copy());
        self.answered = self.answered.wrapping_add(note.is_statement().into());
    }

    /// The number of the next statement.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// The number of the oldest statement that is not answered.
    pub(super) fn answered(&self) -> u32 {
        self.answered
    }

    /// Statements that an error now takes along: the Query it is about, or all before the next Sync.
    pub(super) fn failing(&self) -> u32 {
        if let Some(Expected::Query { .. } | Expected::FunctionCall) = self.front() {
            return 1;
        }
        let batch = self.notes.iter().take_while(|note| !matches!(note, Expected::Sync));
        batch.fold(0, |count, note| count + u32::from(note.is_statement()))
    }

    /// Does the server owe an answer to something that the client sent?
    pub(super) fn is_owed_to_client(&self) -> bool {
        self.notes.iter().any(|note| {
            !matches!(
                note,
                Expected::Own(_)
                    | Expected::OwnParse { .. }
                    | Expected::OwnClose { .. }
                    | Expected::LaidOpen { .. }
                    | Expected::Answer(_)
            )
        })
    }

    /// Is a ReadyForQuery still owed, so that the transaction status may be another when a new frame is reached?
    pub(super) fn status_may_change(&self) -> bool {
        self.ends > 0
    }

    /// May the server still enter copy mode?
    pub(super) fn may_copy(&self) -> bool {
        self.copies > 0
    }

    /// Is a Sync among the notes?
    pub(super) fn has_sync(&self) -> bool {
        self.notes.iter().any(|note| matches!(note, Expected::Sync))
    }

    /// Is the oldest note the refusal of a Query, after which ReadyForQuery comes, and not of a batch?
    pub(super) fn is_refused_query(&self) -> bool {
        matches!(
            (self.front(), self.notes.get(1)),
            (Some(Expected::Refused(_)), Some(Expected::Query { .. }))
        )
    }

    /// Are the notes those of one Query or batch of the client's, and nothing else?
    pub(super) fn is_one_unit(&self) -> bool {
        let other = |note: &Expected| {
            matches!(
                note,
                Expected::Own(_)
                    | Expected::Refused(_)
                    | Expected::LaidOpen { .. }
                    | Expected::FunctionCall
                    | Expected::CopyEnd
            )
        };
        self.ends == 1
            && self.notes.back().is_some_and(Expected::ends)
            && !self.notes.iter().any(other)
    }

    /// Takes out everything before the next Sync, oldest first: what a server skips after an error.
    pub(super) fn take_until_sync(&mut self) -> Vec<Expected> {
        let mut skipped = Vec::new();
        while !matches!(self.front(), None | Some(Expected::Sync | Expected::Own(Own::LayOpen))) {
            skipped.extend(self.pop());
        }
        skipped
    }

    /// What the Query that is the oldest note was to drop: it failed.
    pub(super) fn take_deallocated(&mut self) -> Undo {
        match self.notes.front_mut() {
            Some(Expected::Query { deallocated, .. }) => deallocated.take(),
            _ => None,
        }
    }

    /// The signal that is sent now that the oldest note's statement is bound, or has run.
    pub(super) fn take_signal(&mut self) -> Signalling {
        match self.notes.front_mut() {
            Some(Expected::Bind { signal, .. } | Expected::Query { signal, .. }) => signal.take(),
            _ => None,
        }
    }

    /// Gives the unnamed statement `before` to the oldest note that replaces it; `false` when none does.
    pub(super) fn amend_unnamed(&mut self, value: &Option<Arc<Prepared>>) -> bool {
        let replaced = self.notes.iter_mut().find_map(|note| match note {
            Expected::ParseUnnamed { before } | Expected::Query { unnamed: before, .. } => {
                Some(before)
            }
            _ => None,
        });
        match replaced {
            Some(before) => {
                before.clone_from(value);
                true
            }
            None => false,
        }
    }

    /// Is the client's statement of that name closed by something that has not been answered?
    pub(super) fn closes(&self, wanted: &[u8]) -> bool {
        self.notes.iter().any(|note| match note {
            Expected::Bind { deallocated: undo, .. }
            | Expected::LaidOpen { undo }
            | Expected::Query { deallocated: undo, .. }
            | Expected::Answer(Answer::Closed { undo } | Answer::Deallocated { undo }) => {
                undo.as_ref().is_some_and(|undo| *undo.0 == *wanted)
            }
            _ => false,
        })
    }

    /// The oldest note's statement entered copy mode: what the client sent before its CopyDone is ignored by the
    /// server (Sync, Flush) and takes no reply. Says whether the CopyDone was among what has been sent, and how many
    /// Syncs were.
    pub(super) fn enter_copy(&mut self) -> (CopyEnded, u32) {
        let mut syncs = 0;
        while let Some(note) = self.notes.get(1) {
            match note {
                Expected::Sync => {
                    self.notes.remove(1);
                    self.ends -= 1;
                    syncs += 1;
                }
                Expected::CopyEnd => {
                    self.notes.remove(1);
                    return (CopyEnded::AlreadySent, syncs);
                }
                _ => break,
            }
        }
        (CopyEnded::NotYet, syncs)
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
