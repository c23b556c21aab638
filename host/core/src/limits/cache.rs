//! Bounds of the cache: of answers that are kept, and of entries that applications put.

use std::time::Duration;

/// Entries that applications put, and the memory of them, in bytes.
pub const CACHE_ENTRIES_MAX: usize = 10_000;
pub const CACHE_ENTRIES_BYTES_MAX: usize = 64 << 20;
/// One of them, its name or one of its tags, in bytes; and its tags.
pub const CACHE_ENTRY_BYTES_MAX: usize = 1 << 20;
pub const CACHE_NAME_BYTES_MAX: usize = 256;
pub const CACHE_TAGS_MAX: usize = 64;
/// An entry is kept so long unless its request says otherwise.
pub const CACHE_ENTRY_TTL_DEFAULT: Duration = Duration::from_secs(60);
/// Rules whose hits and misses are told apart.
pub const CACHE_RULES_MAX: usize = 1_000;
/// Clients that wait for one read to bring their answer; more run theirs themselves.
pub const FOLLOWERS_MAX: usize = 10_000;
/// Answers of one table, and of all that one commit takes, that are read again before its client hears of it.
pub const WRITE_THROUGH_PER_TABLE_MAX: usize = 16;
pub const WRITE_THROUGH_MAX: usize = 32;
/// Its client waits no longer for that, unless the configuration says otherwise.
pub const WRITE_THROUGH_TIME_DEFAULT: Duration = Duration::from_millis(250);
/// Answers that are read once more at the same time, on each worker; more are passed over.
pub const INSPECTIONS_MAX: usize = 2;
/// Statements of one order to warm, how many of them run at the same time, and how long none begins any more.
pub const WARM_STATEMENTS_MAX: usize = 10_000;
pub const WARM_AT_ONCE_MAX: usize = 4;
pub const WARM_TIME_MAX: Duration = Duration::from_secs(300);
/// Their database's catalogue is waited for so long.
pub const WARM_KNOWN_TIME_MAX: Duration = Duration::from_secs(30);
/// Over the admin API, whoever asks is answered by then; what is left goes on.
pub const WARM_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Nobody waits longer for it, unless the configuration says otherwise.
pub const FOLLOW_TIME_DEFAULT: Duration = Duration::from_secs(5);
