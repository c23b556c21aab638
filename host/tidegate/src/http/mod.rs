//! THE HTTP QUERY ENDPOINT, `POST /sql`: statements for whoever cannot open a connection to PostgreSQL.
//!
//! A request is a client like any other. It gets a pair of sockets, one end of which a worker takes for a client's
//! connection; here, at the other end, we log in with what the request brought and speak the protocol. So pools, routing,
//! policies, limits and the cache are the same, and nothing here has rights of its own.
//!
//! The form of requests and answers is that of Neon's serverless driver (`@neondatabase/serverless`).

mod answer; // errors, and which status they are
mod body; // answers that go out in pieces
mod columns; // a column's text as JSON
mod credentials; // who asks
mod line; // the client's end of the protocol
mod output; // JSON as it is made
mod parameters; // JSON as a statement's parameters
mod request; // what is asked
mod router; // from a request to its answer
mod run; // statements run
mod server; // threads, connections, TLS

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::data::login::Peer;
use crate::observe::stats::HttpTotals;
use crate::tls::Acceptor;

pub use server::{HttpHandle, start};

/// What the endpoint has of the rest of the process.
pub trait Door: Send + Sync {
    /// A client's connection to this process, as if it came from there.
    ///
    /// # Errors
    /// No worker takes one now, or there are no file descriptors.
    fn connect(&self, peer: Peer) -> io::Result<UnixStream>;

    /// The certificate of the listeners, if there is one.
    fn acceptor(&self) -> Option<Arc<Acceptor>>;

    /// Where what becomes of requests is counted.
    fn totals(&self) -> &HttpTotals;
}
