//! Results kept in memory: what may be kept, under which key, and when it holds no longer.
//!
//! ```text
//!  a read ──▶ judge ── Deny ──▶ the server                a write ──▶ written ──▶ Work ── committed ──▶ Store::bump
//!               └─ tags ──▶ Key ──▶ Store::look ── Hit ──▶ the client
//!                                     └─ Fill ──▶ Followers ──▶ the server ──▶ Capture ──▶ Store::put
//! ```
//!
//! Nothing here waits or knows a clock. What keeps answers true are the invariants of [`Store`], which `model.rs`
//! searches through with these very functions.

#![warn(missing_docs)]

mod capture; // a server's answer, as it passes
mod entries; // what applications put under names of their own
mod followers; // reads that wait for another of the same
mod glob; // patterns over names
mod judge; // what may be kept
mod key; // what tells answers apart
mod lru; // the answers, the one asked for longest ago last
mod membership; // one process among several that share their answers
mod named; // what policies name
mod outside; // writes that pass nobody who keeps answers
mod packed; // answers as they are kept, large ones compressed
mod store; // answers, and the versions of what they were read from
mod tables; // what a catalogue says of relations and functions
mod timeless; // words that mean another day tomorrow
mod work; // what a client's transaction has written so far
mod written; // what a statement may change

#[cfg(test)]
mod rules; // what is kept and what a write takes, rule by rule

#[cfg(test)]
mod model; // all interleavings of a few writers and readers

pub use capture::{Answer, Capture, Captured};
pub use entries::{Entries, Entry, EntryCounts};
pub use followers::{FollowCounts, Followers, Joined, Landing, Lead};
pub use glob::{BadGlob, Glob, PATTERN_BYTES_MAX};
pub use judge::{Deny, judge};
pub use key::{Described, Key, KeyParts};
pub use lru::Bounds;
pub use membership::{Config as MembershipConfig, Flight, Membership, Standing};
pub use named::{named_tags, taken_by_name, taken_by_write};
pub use outside::{
    ASK_INTERVAL, Answered, LEASE, Lost, Meaning, Names as NamesFound, Outside, OutsideCounts,
    Question, Snapshot,
};
pub use packed::{Packed, Stored};
pub use store::{
    Again, Counts, Expiry, Fill, Found, Given, Mark, Names, Reader, Reliance, Sampler, Stamp,
    Store, Tag, Term, Told, Waits, nines,
};
pub use tables::{Builder, Follower, RelationRow, Tables, Traits};
pub use timeless::is_timeless;
pub use work::{Block, Doubt, Ran, Work};
pub use written::{Written, written};
