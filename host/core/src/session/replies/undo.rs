//! What a failed batch takes back: names it gave, statements it dropped.

use crate::session::expected::{Answer, Expected, Undo};
use crate::session::state::Unnamed;
use crate::session::{Batch, Held, ServerState, Session};

impl Session {
    /// The oldest note failed: the server skips to Sync, so nothing before it happens.
    pub(in crate::session) fn fail_batch(&mut self, mut server: Option<&mut ServerState>) {
        let failed_unnamed = matches!(self.expected.front(), Some(Expected::ParseUnnamed { .. }));
        let skipped = self.expected.take_until_sync();
        let mut unnamed = None;
        for note in skipped.into_iter().rev() {
            match note {
                Expected::ParseUnnamed { before } => unnamed = Some(before),
                Expected::Query { unnamed: before, deallocated, .. } => {
                    unnamed = Some(before);
                    self.put_back(deallocated);
                    self.batches.ended(1);
                }
                Expected::FunctionCall => self.batches.ended(1),
                Expected::Answer(Answer::Closed { undo: Some(undo) }) if undo.0.is_empty() => {
                    unnamed = Some(Some(undo.1));
                }
                other => self.take_back(other, server.as_deref_mut()),
            }
        }
        if let Some(before) = unnamed {
            // PostgreSQL drops the unnamed statement before it parses the next one.
            let before = if failed_unnamed { None } else { before };
            if !self.expected.amend_unnamed(&before) {
                self.unnamed = before;
            }
            if let Some(server) = server {
                server.unnamed = Unnamed::Unknown;
            }
        }
        if self.expected.is_empty() {
            self.batch = Batch::SkipToSync;
        }
    }

    fn take_back(&mut self, note: Expected, server: Option<&mut ServerState>) {
        match note {
            Expected::Parse { name, prepared, on_server } => {
                self.names.remove(&name);
                if let Some(server) = server {
                    server.prepared.forget(&prepared, on_server);
                }
            }
            Expected::OwnParse { made: Some((prepared, Some(name))) } => {
                if let Some(server) = server {
                    server.prepared.forget(&prepared, name);
                }
            }
            Expected::OwnClose { closed: None } => {
                // If it was to close the unnamed statement, that is still there, and may be another client's.
                if let Some(server) = server {
                    server.unnamed = Unnamed::Unknown;
                }
            }
            Expected::OwnClose { closed: Some((prepared, name)) } => {
                if let Some(server) = server {
                    server.prepared.restore(&prepared, name);
                }
            }
            Expected::OwnParse { made: Some((_, None)) } => {
                if let Some(server) = server {
                    server.unnamed = Unnamed::Unknown;
                }
            }
            Expected::Answer(Answer::Parsed { name }) => {
                self.names.remove(&name);
            }
            Expected::Bind { deallocated: undo, .. }
            | Expected::LaidOpen { undo }
            | Expected::Answer(Answer::Closed { undo } | Answer::Deallocated { undo }) => {
                self.put_back(undo)
            }
            _ => {}
        }
    }

    pub(in crate::session) fn put_back(&mut self, undo: Undo) {
        if let Some((name, prepared)) = undo.map(|undo| *undo) {
            let since = self.batches.past();
            self.names.insert(name, Held { prepared, since });
        }
    }
}
