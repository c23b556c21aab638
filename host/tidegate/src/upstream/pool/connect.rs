//! How a pool opens connections: by `upstream::login`, or by a fake in tests.

use crate::upstream::{self, ConnectError, Credentials, NewServer, Target};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// One attempt to open a connection, under way.
pub type Connecting = Pin<Box<dyn Future<Output = Result<NewServer, ConnectError>>>>;

/// How connections are opened.
pub trait Connect {
    fn connect(
        &self,
        target: Arc<Target>,
        database: Arc<str>,
        user: Arc<str>,
        credentials: Credentials,
    ) -> Connecting;
}

/// Logs in at the target without start-up parameters, not even a name: what a fresh connection has
/// is what a client's RESET goes back to. A client's own are set when it gets a lease.
#[derive(Clone, Copy, Debug)]
pub struct ServerLogin;

impl Connect for ServerLogin {
    fn connect(
        &self,
        target: Arc<Target>,
        database: Arc<str>,
        user: Arc<str>,
        credentials: Credentials,
    ) -> Connecting {
        Box::pin(async move {
            let mut new = upstream::connect(&target, &database, &user, &credentials, &[]).await?;
            new.stream.settle();
            Ok(new)
        })
    }
}
