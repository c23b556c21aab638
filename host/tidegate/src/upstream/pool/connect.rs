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

/// Logs in at the target, with the same start-up parameters each time: those of a client are set
/// when it gets a lease.
#[derive(Clone, Debug, Default)]
pub struct ServerLogin {
    pub parameters: Arc<[(String, String)]>,
}

impl Connect for ServerLogin {
    fn connect(
        &self,
        target: Arc<Target>,
        database: Arc<str>,
        user: Arc<str>,
        credentials: Credentials,
    ) -> Connecting {
        let parameters = Arc::clone(&self.parameters);
        Box::pin(async move {
            let parameters: Vec<(&str, &str)> =
                parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            upstream::connect(&target, &database, &user, &credentials, &parameters).await
        })
    }
}
