//! Message by message: what PostgreSQL answers to a sequence of messages, Tidegate must answer too.
//!
//! Tests carry the numbers of the protocol traps they are about (`docs/protocol-traps.md`). Most run twice, directly
//! and through Tidegate, and compare everything that was read.

mod copy; // COPY in and out
mod extended; // Parse, Bind, Describe, Execute, Close, Flush, Sync
mod isolation; // nothing of one client reaches another
mod prepared; // statements that outlive their batch
mod session; // settings, notifications, what belongs to a session
mod simple; // Query, transactions
mod startup; // before the first ReadyForQuery
