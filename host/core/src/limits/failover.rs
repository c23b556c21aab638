//! Bounds of what is kept for the day on which a primary is lost.

use std::time::Duration;

/// What a client has sent in a transaction is kept up to this, so that it can be run again where that is wanted, in bytes: what
/// an interactive transaction sends, many times; each client that is in one may take so much.
pub const REPLAY_BYTES_MAX: usize = 256 << 10;
/// The same in Queries and batches, of each of which a digest is kept.
pub const REPLAY_UNITS_MAX: usize = 1_000;
/// A transaction that began longer ago is not run again: what it has been told is hardly the same any more.
pub const REPLAY_AGE_MAX: Duration = Duration::from_secs(60);
/// Times that one transaction is run again: those that stand in each other's way rarely do so more often.
pub const REPLAYS_MAX: u32 = 5;
/// Acknowledged commits that each worker remembers, some 100 bytes each: what a replica may lack is a fraction of a second.
pub const COMMITS_KEPT_MAX: usize = 4_096;
/// Of those that are lost, or may be, so many are listed one by one.
pub const LOSSES_LISTED_MAX: usize = 1_000;
