//! An open connection to a Redis: over TCP, TLS or a Unix socket, and as whom.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::config::{RedisAddress, RedisUrl};
use crate::tls::{server_name, trusting};

/// Commands on their way to the connection; who asks waits for a place.
const COMMANDS_MAX: usize = 1_024;

/// What ends a session, in words.
pub type Lost = String;

/// Sends commands, and gets the answers in their order. Dropping it closes it.
pub struct RedisConnection {
    pub pipeline: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl RedisConnection {
    /// Connects and logs in. Whoever asks sets a bound on the time.
    ///
    /// # Errors
    /// Why it came to nothing.
    pub async fn open(url: &RedisUrl) -> Result<Self, Lost> {
        let words = |error: std::io::Error| error.to_string();
        match &url.address {
            RedisAddress::Unix(path) => {
                begin(url, UnixStream::connect(path).await.map_err(words)?).await
            }
            RedisAddress::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(words)?;
                stream.set_nodelay(true).map_err(words)?;
                match tls {
                    None => begin(url, stream).await,
                    Some(roots) => {
                        let client = trusting(roots).map_err(|error| error.to_string())?;
                        let connector = TlsConnector::from(Arc::new(client));
                        let name = server_name(host);
                        begin(url, connector.connect(name, stream).await.map_err(words)?).await
                    }
                }
            }
        }
    }
}

/// Replies are ours to time.
fn settings() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(COMMANDS_MAX)
}

async fn begin<S>(url: &RedisUrl, stream: S) -> Result<RedisConnection, Lost>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut login = RedisConnectionInfo::default()
        .set_db(url.database)
        .set_lib_name("tidegate", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &url.user {
        login = login.set_username(user);
    }
    if let Some(password) = &url.password {
        login = login.set_password(password.reveal());
    }
    let opened = MultiplexedConnection::new_with_config(&login, stream, settings()).await;
    let (pipeline, driver) = opened.map_err(|error| error.to_string())?;
    // Ends with the connection that holds its handle.
    Ok(RedisConnection { pipeline, driver: tokio::spawn(driver).abort_handle() })
}
