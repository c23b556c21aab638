//! What opening a server connection takes and gives.
//!
//! Until `upstream::login` exists, these are stand-ins with its shapes: replace them by
//! `pub use crate::upstream::login::{...}` and adapt `open::judge`, the only function that looks inside.

use crate::stream::Stream;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Where a server is.
#[derive(Debug)]
pub struct Target {
    pub name: Arc<str>,
}

/// What a login at a server needs. Secrets: never printed.
#[derive(Clone)]
pub enum Credentials {
    None,
}

/// The key a cancel request quotes: the process id, and a secret of 4 to 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendKey {
    pub process_id: i32,
    pub secret: Vec<u8>,
}

/// A connection that is logged in and ready for a query.
pub struct NewServer {
    pub stream: Stream,
    pub backend_key: Option<BackendKey>,
    pub parameters: Vec<(String, String)>,
}

/// Why a connection could not be opened.
#[derive(Debug)]
pub enum ConnectError {
    Unreachable(std::io::Error),
    Timeout,
    Tls(String),
    /// The server answered with an ErrorResponse.
    Refused {
        sqlstate: String,
        message: String,
    },
    /// Our own policy does not allow what the server asks for.
    Policy(String),
    Protocol(String),
}

/// One attempt to open a connection, under way.
pub type Connecting = Pin<Box<dyn Future<Output = Result<NewServer, ConnectError>>>>;

/// How connections are opened; tests put a fake here.
pub trait Connect {
    fn connect(
        &self,
        target: Arc<Target>,
        database: Arc<str>,
        user: Arc<str>,
        credentials: Credentials,
    ) -> Connecting;
}
