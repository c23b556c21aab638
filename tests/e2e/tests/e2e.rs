//! End-to-end scenarios: applications and raw connections, through Tidegate, against real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests

mod clients; // applications in other languages, and PostgreSQL's own programs
mod rust_client; // tokio-postgres
mod wire; // message by message
