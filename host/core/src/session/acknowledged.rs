//! Which commits a client is told of: should the primary be lost, it is said which of them are not on the next.
//!
//! What runs is known by the tags with which a server answers. It errs towards too much: what changed no row counts as well.

use super::Session;
use std::num::NonZeroU8;
use tidegate_wire::backend::TransactionStatus;

/// What has happened since the last commit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acknowledged {
    /// Something that is not proven to read was sent, since no transaction was open.
    pub(super) may_write: Option<()>,
    /// What the transaction has done that writes, first of all.
    writes: Option<Verb>,
    /// The unit has failed, or its last statement rolls back.
    undone: Option<()>,
    /// What has been committed since the shell last asked.
    committed: Option<Verb>,
}

/// The word that a tag begins with of a statement that writes, or may: a position in [`WRITING`], from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verb(NonZeroU8);

/// The last two are a SELECT that may write, and what is not known.
const WRITING: [&str; 14] = [
    "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "CREATE", "ALTER", "DROP", "TRUNCATE", "GRANT",
    "CALL", "DO", "SELECT", "other",
];
/// Those of statements that do not.
const QUIET: [&str; 22] = [
    "SELECT",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "SET",
    "RESET",
    "SHOW",
    "DISCARD",
    "PREPARE",
    "DEALLOCATE",
    "DECLARE",
    "FETCH",
    "MOVE",
    "CLOSE",
    "LISTEN",
    "UNLISTEN",
    "NOTIFY",
    "LOCK",
    "EXPLAIN",
];

impl Verb {
    /// Of the statement that was completed with this word.
    fn of(first: &[u8], may_write: Option<()>) -> Option<Self> {
        let is = |word: &&str| word.as_bytes() == first;
        let quiet = QUIET.iter().any(is);
        if quiet && (may_write.is_none() || first != b"SELECT") {
            return None;
        }
        let place = WRITING.iter().position(|word| is(&word)).unwrap_or(WRITING.len() - 1);
        u8::try_from(place + 1).ok().and_then(NonZeroU8::new).map(Self)
    }

    fn word(self) -> &'static str {
        WRITING.get(usize::from(self.0.get()) - 1).copied().unwrap_or("other")
    }
}

impl Acknowledged {
    /// A statement of the client's has been completed with this tag, its zero byte included.
    fn handle_tag(&mut self, tag: &[u8]) {
        self.undone = None;
        match tag {
            b"COMMIT\0" => self.commit(),
            b"ROLLBACK\0" => self.undone = Some(()),
            _ => {
                let first = tag.split(|byte| matches!(*byte, b' ' | 0)).next().unwrap_or_default();
                let writes = Verb::of(first, self.may_write);
                self.writes = self.writes.or(writes);
            }
        }
    }

    fn commit(&mut self) {
        self.committed = self.committed.or(self.writes.take());
    }

    fn handle_ready(&mut self, status: TransactionStatus) {
        let undone = self.undone.take().is_some();
        if status == TransactionStatus::Idle {
            if !undone {
                self.commit();
            }
            (self.writes, self.may_write) = (None, None);
        }
    }
}

impl Session {
    pub(super) fn note_completed(&mut self, tag: &[u8]) {
        self.acknowledged.handle_tag(tag);
    }

    pub(super) fn note_failed(&mut self) {
        self.acknowledged.undone = Some(());
    }

    pub(super) fn note_ready(&mut self, status: TransactionStatus) {
        self.acknowledged.handle_ready(status);
    }

    /// What was committed that the client is told of now, by the word that its tag begins with: since the last call.
    pub fn take_committed(&mut self) -> Option<&'static str> {
        self.acknowledged.committed.take().map(Verb::word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransactionStatus::{Failed, Idle, InTransaction};

    /// What the tags of units come to, each with the status behind it; `!` is an error.
    fn committed(units: &[(&[&str], TransactionStatus)]) -> Vec<Option<&'static str>> {
        let mut acknowledged = Acknowledged::default();
        let run = |(tags, status): &(&[&str], TransactionStatus)| {
            for tag in *tags {
                match *tag {
                    "!" => acknowledged.undone = Some(()),
                    "?" => acknowledged.may_write = Some(()),
                    tag => acknowledged.handle_tag(format!("{tag}\0").as_bytes()),
                }
            }
            acknowledged.handle_ready(*status);
            acknowledged.committed.take().map(Verb::word)
        };
        units.iter().map(run).collect()
    }

    #[test]
    fn commits_are_known_by_their_tags() {
        assert_eq!(committed(&[(&["INSERT 0 1"], Idle)]), [Some("INSERT")]);
        assert_eq!(committed(&[(&["SELECT 1"], Idle)]), [None]);
        assert_eq!(
            committed(&[(&["?", "SELECT 1"], Idle), (&["SELECT 1"], Idle)]),
            [Some("SELECT"), None]
        );
        assert_eq!(committed(&[(&["!"], Idle)]), [None]);
        assert_eq!(committed(&[(&["UPDATE 1", "!"], Idle)]), [None], "they are one transaction");
        assert_eq!(committed(&[(&["REFRESH MATERIALIZED VIEW"], Idle)]), [Some("other")]);
        let begun: &[&str] = &["BEGIN"];
        let write: &[&str] = &["UPDATE 1"];
        let all = |end: &'static [&'static str]| {
            committed(&[(begun, InTransaction), (write, InTransaction), (end, Idle)])
        };
        assert_eq!(all(&["COMMIT"]), [None, None, Some("UPDATE")]);
        assert_eq!(all(&["ROLLBACK"]), [None, None, None]);
        assert_eq!(all(&["COMMIT", "!"]), [None, None, Some("UPDATE")], "an error behind it");
        assert_eq!(all(&["!"]), [None, None, None], "it could not be committed");
        // What was before a savepoint is committed after all.
        let saved = committed(&[
            (begun, InTransaction),
            (write, InTransaction),
            (&["SAVEPOINT"], InTransaction),
            (&["!"], Failed),
            (&["ROLLBACK"], InTransaction),
            (&["COMMIT"], Idle),
        ]);
        assert_eq!(saved.last(), Some(&Some("UPDATE")));
    }
}
