//! What a store has done so far.

/// What the store has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers given.
    pub hits: u64,
    /// Answers that were not there.
    pub misses: u64,
    /// Answers that did not stand any more, among the misses.
    pub stale: u64,
    /// Answers that were read anew before their time, among the misses.
    pub refreshes: u64,
    /// Answers that were not there and are not kept, since they were asked for once, among the misses.
    pub unseen: u64,
    /// Answers kept.
    pub puts: u64,
    /// Of these, those kept compressed, and the bytes that has saved.
    pub packed: u64,
    /// See `packed`.
    pub packed_saved: u64,
    /// Answers that made room for others.
    pub evictions: u64,
    /// Versions taken away.
    pub invalidations: u64,
}
