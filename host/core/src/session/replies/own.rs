//! What a server answers to queries of ours: the probe, settings brought along, cleaning.

use super::Reply;
use crate::channels::Channels;
use crate::refusal::Refusal;
use crate::session::expected::Own;
use crate::session::listening::Hearing;
use crate::session::{CloseReason, Io, ServerState, Session};
use crate::settings::Settings;
use std::sync::Arc;
use tidegate_wire::error_fields::{self, field};
use tidegate_wire::frame::Header;

/// A row of one of our own queries is at most this long, in bytes.
const OWN_ROW_BYTES_MAX: usize = 1 << 20;

impl Session {
    pub(super) fn own_row(&mut self, own: Own, header: Header, body: &[u8]) -> Reply {
        if !matches!(own, Own::Probe | Own::Inspection) {
            return Reply::Swallow;
        }
        if header.body_bytes as usize > OWN_ROW_BYTES_MAX {
            self.question_failed(own);
            return Reply::Swallow;
        }
        if body.len() < header.body_bytes as usize {
            return Reply::Wait;
        }
        match own {
            Own::Inspection => self.inspection_row(body),
            _ => self.probe_row(body),
        }
        Reply::Swallow
    }

    fn question_failed(&mut self, own: Own) {
        match own {
            Own::Inspection => self.inspection_failed(),
            _ => self.probe_failed(),
        }
    }

    pub(super) fn own_failed(&mut self, own: Own, body: &[u8], io: &mut Io<'_>) -> Reply {
        match own {
            Own::Probe | Own::Inspection => {
                self.question_failed(own);
                Reply::Swallow
            }
            Own::Switch | Own::Restore => {
                let text = |letter| {
                    error_fields::find(body, letter)
                        .map(String::from_utf8_lossy)
                        .unwrap_or_default()
                };
                let refusal = Refusal::fatal(
                    "08006",
                    "could not restore the session's settings on another server",
                )
                .detail(format!(
                    "The server says {}: {}",
                    text(field::SQLSTATE),
                    text(field::MESSAGE)
                ))
                .hint("Reconnect; if it happens again, look at what the application SETs.");
                io.to_client.send(|out| refusal.write(out));
                Reply::Close(CloseReason::ServerProtocol)
            }
            Own::Listen => {
                if self.bring_failed() == Hearing::Goes {
                    return Reply::Swallow;
                }
                let refusal =
                    Refusal::fatal("08006", "the server no longer listens for this session")
                        .hint("Reconnect and LISTEN again: notifications may have been lost.");
                io.to_client.send(|out| refusal.write(out));
                Reply::Close(CloseReason::ServerProtocol)
            }
            Own::Fail => Reply::Swallow,
            Own::Rollback | Own::Discard | Own::Sequences | Own::LayOpen => {
                Reply::Close(CloseReason::ServerProtocol)
            }
        }
    }

    pub(super) fn own_finished(&mut self, own: Own, server: &mut ServerState) {
        match own {
            Own::Switch => server.settings = self.settings.clone(),
            Own::Probe => self.probe_finished(server),
            Own::Inspection => self.inspection_finished(),
            Own::Fail | Own::Rollback | Own::Restore | Own::Sequences | Own::LayOpen => {}
            Own::Listen => self.brought(server),
            Own::Discard => {
                server.statements_dropped();
                server.settings = Arc::new(Settings::default());
                server.channels = Channels::default();
                self.session_cleared();
            }
        }
    }
}
