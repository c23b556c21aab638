//! PostgreSQL's wire protocol (3.0 and 3.2): bytes to messages and back. Pure: no I/O, no clock, no SQL.
//!
//! Follows the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation.

pub mod auth;
pub mod backend; // messages a server sends
pub mod error_fields; // ErrorResponse and NoticeResponse bodies
pub mod frame; // type byte + length: the only thing the data path reads of most messages
pub mod frontend; // messages a client sends
pub mod replication; // streaming replication: the log, as a server sends it
pub mod startup; // the untyped first packets: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage // SCRAM-SHA-256 and md5, both sides
