//! A statement that has run too long: the server is asked to cancel it, and what it then says is told in our words.

use super::Session;
use super::expected::Expected;
use crate::refusal::Refusal;
use std::num::NonZeroU32;
use std::time::Duration;
use tidegate_wire::error_fields::{self, field};

impl Session {
    /// What the server runs has run for so long. False: it runs nothing of the client's, or that is being cancelled for the same
    /// reason already.
    pub fn time_out(&mut self, limit: Duration) -> bool {
        let runs = self.expected.is_owed_to_client() && self.overdue.is_none();
        if runs {
            let ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            self.overdue = NonZeroU32::new(ms.max(1));
        }
        runs
    }

    /// The client's statement has been answered, or has failed.
    pub(super) fn forget_overdue(&mut self) {
        self.overdue = None;
    }

    /// In place of the server's error, if that says that the statement was cancelled, and it was for its time.
    pub(super) fn take_overdue(&mut self, error: &[u8]) -> Option<Refusal> {
        let is_cancelled = error_fields::find(error, field::SQLSTATE) == Some(b"57014");
        let is_own = matches!(self.expected.front(), Some(Expected::Own(_)));
        let ms = self.overdue.filter(|_| is_cancelled && !is_own)?;
        self.overdue = None;
        Some(
            Refusal::error("57014", "canceling statement due to statement timeout")
                .detail(format!("It ran for longer than {ms} ms on the server."))
                .hint(
                    "limits.statement_timeout of Tidegate sets it, limits.critical_statement_timeout for critical statements \
                     (SET tidegate.priority = 'critical').",
                ),
        )
    }
}
