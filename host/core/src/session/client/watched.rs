//! Tells whoever watches which statements go to a server and which fail. Without one, this is a question for each.

use crate::plan::{Ran, Router, Text};
use crate::session::expected::Expected;
use crate::session::{Batch, Session};
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::error_fields::{self, field};

impl Session {
    pub(super) fn tell_bound(&self, sql: &[u8], router: &mut dyn Router) {
        if router.watches() {
            router.watch(Ran::Bound(self.text(sql)));
        }
    }

    /// Before its note: a Query goes to the server.
    pub(super) fn tell_query(&self, sql: Option<&[u8]>, router: &mut dyn Router) {
        if router.watches() {
            let text = sql.map(|sql| self.text(sql));
            router.watch(Ran::Query(self.expected.sent(), text));
        }
    }

    pub(super) fn tell_execute(&self, router: &mut dyn Router) {
        if router.watches() {
            router.watch(Ran::Execute(self.expected.sent()));
        }
    }

    pub(super) fn tell_call(&self, router: &mut dyn Router) {
        if router.watches() {
            router.watch(Ran::Call(self.expected.sent()));
        }
    }

    /// Before the notes that it concerns are gone: the server reports an error.
    pub(in crate::session) fn tell_error(&self, body: &[u8], router: &mut dyn Router) {
        let ours = matches!(self.expected.front(), None | Some(Expected::Own(_) | Expected::Sync));
        if ours || !router.watches() {
            return;
        }
        let sqlstate = match self.expected.front() {
            // What the client is told instead.
            Some(Expected::Refused(refusal)) => refusal.sqlstate.as_bytes(),
            _ => error_fields::find(body, field::SQLSTATE).unwrap_or_default(),
        };
        let first = self.expected.answered();
        let until = first.wrapping_add(self.expected.failing());
        router.watch(Ran::Failed { first, until, sqlstate });
    }

    /// Before the client is told, and before what follows: a statement is complete. One of our own is nobody's.
    pub(in crate::session) fn tell_completed(&self, tag: &[u8], router: &mut dyn Router) {
        if router.watches() {
            router.watch(Ran::Completed(tag.strip_suffix(b"\0").unwrap_or(tag)));
        }
    }

    /// The same when the server is ready, and the session's status is still that before.
    pub(in crate::session) fn tell_ready(&self, after: TransactionStatus, router: &mut dyn Router) {
        if router.watches() {
            let over = self.expected.is_empty() && self.batch == Batch::Closed;
            router.watch(Ran::Ready { before: self.status, after, over });
        }
    }

    fn text<'a>(&self, sql: &'a [u8]) -> Text<'a> {
        Text { sql, strings: self.string_syntax(sql) }
    }

    /// The number of the oldest statement that a reply is owed to, as [`Ran`] counts.
    pub fn answered(&self) -> u32 {
        self.expected.answered()
    }
}
