//! `SHOW tidegate.cache`: what the cache had to do with a session's last statement.

use std::borrow::Cow;

use tidegate_cache::Deny;
use tidegate_core::plan::{CACHE_SETTING, Describes, RecalledBatch};
use tidegate_wire::backend;
use tidegate_wire::frame;

use crate::data::clients::Client;

/// What the cache had to do with a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheNote {
    /// It was not looked for.
    #[default]
    NotLooked,
    Hit,
    /// A server answered, and that is kept if it still stands.
    Miss,
    /// A commit of what it reads, or another change, was under way.
    Passed,
    /// There is no room left, and it was not asked for before.
    Unseen,
    /// Whoever shares the Redis could not be asked in time, or must not be believed now.
    Unshared,
    /// The policy does not want it kept.
    NotWanted,
    Denied(Deny),
    /// The database's catalogue has not been read.
    Unknown,
}

impl CacheNote {
    /// For people.
    pub fn words(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::NotLooked => {
                "not looked for: in a transaction, turned off, no read by itself, or nothing is kept"
            }
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Passed => {
                "miss, and not kept: what it reads was just being written, or its database has changed"
            }
            Self::Unseen => {
                "miss, and not kept: there is no room left, and it was not asked for a while ago (cache.admission)"
            }
            Self::Unshared => "miss, and not kept: those who share the Redis could not be asked",
            Self::NotWanted => "not kept: the caching policy does not want it",
            Self::Denied(why) => {
                let label = why.label().replace('_', " ");
                return Cow::Owned(format!("not kept: {label} ({})", why.rule()));
            }
            Self::Unknown => "not kept: what the database's names mean is not known yet",
        })
    }
}

/// Writes the answer, but for ReadyForQuery.
pub(super) fn tell(client: &Client, batch: Option<&RecalledBatch<'_>>, out: &mut Vec<u8>) {
    let (mut description, mut rows) = (Vec::new(), Vec::new());
    let describes = batch.map_or(Describes::Portal, |batch| batch.describes);
    if let (Describes::Statement, Some(batch)) = (describes, batch) {
        // Laid out as the types in Parse are.
        let types = if batch.types.is_empty() { &[0, 0] } else { batch.types };
        frame::write(&mut description, backend::tag::PARAMETER_DESCRIPTION, |out| {
            out.extend_from_slice(types);
        });
    }
    if describes != Describes::Nothing {
        backend::row_description_text(&mut description, &[CACHE_SETTING]);
    }
    let words = client.cache_note().words();
    backend::data_row(&mut rows, &[Some(words.as_bytes())]);
    if batch.is_some_and(|batch| batch.rows_max == 1) {
        frame::write(&mut rows, backend::tag::PORTAL_SUSPENDED, |_| {});
    } else {
        backend::command_complete(&mut rows, b"SHOW");
    }
    match batch {
        Some(batch) => batch.write(&description, &rows, out),
        None => out.extend([description, rows].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_rule() {
        assert_eq!(CacheNote::Denied(Deny::Volatile).words(), "not kept: volatile function (R4)");
    }
}
