//! Logging in against a real PostgreSQL: clients through `data::login`, and ourselves by
//! `upstream::connect`.

// Clippy knows a test by its attribute; what only tests call is one too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bytes;
mod clients;
mod cluster;
mod proxy;
mod servers;
