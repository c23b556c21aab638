//! An open connection to a Redis: over TCP, TLS or a Unix socket, and as whom; of a cluster, to the node that has the keys.

mod nodes; // which node that is

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Value};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::config::{RedisAddress, RedisNode, RedisUrl, RootCertificates};
use crate::tls::{server_name, trusting};
use nodes::{Nodes, Refusal, refusal};

/// Commands on their way to the connection; who asks waits for a place.
const COMMANDS_MAX: usize = 1_024;
/// While there are others, a node is given this long to answer, so that they are asked in time.
const NODE_TIME_MAX: Duration = Duration::from_millis(500);

const MOVING: &str = "the slot of the keys is being moved to another node";

/// What ends a session, in words.
pub type Lost = String;

/// A Redis, and what is known of its nodes from one connection to the next.
pub struct Redis {
    url: RedisUrl,
    nodes: Nodes,
}

impl Redis {
    pub fn new(url: RedisUrl) -> Self {
        let written = match &url.address {
            RedisAddress::Tcp { nodes, .. } => nodes.clone(),
            RedisAddress::Unix(_) => Vec::new(),
        };
        Self { url, nodes: Nodes::new(written) }
    }

    /// Connects to the one that has this key, which is never there, and all others of its slot. Whoever asks sets a bound on the time.
    ///
    /// # Errors
    /// Why it came to nothing.
    pub async fn open(&mut self, key: &str) -> Result<RedisConnection, Lost> {
        let tls = match &self.url.address {
            RedisAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(words)?;
                return begin(&self.url, stream).await;
            }
            RedisAddress::Tcp { tls, .. } => tls.clone(),
        };
        let mut search = self.nodes.search();
        while let Some(node) = search.next() {
            let asking = ask(&self.url, &node, tls.as_ref(), key);
            let asked = if search.is_over() {
                asking.await
            } else {
                let asked = tokio::time::timeout(NODE_TIME_MAX, asking).await;
                asked.unwrap_or_else(|_| Err("it does not answer".to_owned()))
            };
            match asked {
                Ok((connection, Whose::Its, others)) => {
                    self.nodes.handle_found(node, others);
                    return Ok(connection);
                }
                Ok((_, Whose::Others(Refusal::Moved(to)), others)) => {
                    search.handle_moved(&node, to);
                    search.handle_nodes(&others);
                }
                Ok((_, Whose::Others(Refusal::MovedSomewhere), others)) => {
                    search.handle_failed(
                        &node,
                        "another has the keys, and it knows no address of that",
                    );
                    search.handle_nodes(&others);
                }
                Ok((_, Whose::Others(_), _)) => {
                    return Err(format!("{node}: {MOVING}"));
                }
                Err(why) => search.handle_failed(&node, &why),
            }
        }
        Err(search.why())
    }
}

/// Whose keys they are.
enum Whose {
    Its,
    Others(Refusal),
}

/// Connects to a node, and asks whether it has a key and which others there are.
async fn ask(
    url: &RedisUrl,
    node: &RedisNode,
    tls: Option<&RootCertificates>,
    key: &str,
) -> Result<(RedisConnection, Whose, Vec<RedisNode>), Lost> {
    let mut connection = connect(url, node, tls).await?;
    // Whoever may call what is called here may do this.
    let probe = connection.ask(redis::cmd("HGET").arg(key).arg("l")).await;
    let whose = match probe {
        Ok(_) => Whose::Its,
        Err(error) => {
            let (code, detail) =
                (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
            match refusal(code, detail, node) {
                Refusal::Other => return Err(error.to_string()),
                refusal => Whose::Others(refusal),
            }
        }
    };
    // One that is no cluster's says so, and one that must not be asked; then there are no others.
    let map = connection.ask(redis::cmd("CLUSTER").arg("SLOTS")).await;
    let others = map.map_or_else(|_| Vec::new(), |map| nodes::nodes(&map, node));
    Ok((connection, whose, others))
}

async fn connect(
    url: &RedisUrl,
    RedisNode { host, port }: &RedisNode,
    tls: Option<&RootCertificates>,
) -> Result<RedisConnection, Lost> {
    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(words)?;
    stream.set_nodelay(true).map_err(words)?;
    let Some(roots) = tls else { return begin(url, stream).await };
    let client = trusting(roots).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(client));
    begin(url, connector.connect(server_name(host), stream).await.map_err(words)?).await
}

/// What people are told of an error.
pub fn told(error: &RedisError) -> Lost {
    match error.code() {
        Some("MOVED") => "the slot of the keys is another node's now".to_owned(),
        Some("ASK") => MOVING.to_owned(),
        _ => error.to_string(),
    }
}

fn words(error: std::io::Error) -> Lost {
    error.to_string()
}

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
    /// # Errors
    /// What Redis says, or that the connection is gone.
    pub async fn ask(&mut self, command: &redis::Cmd) -> Result<Value, RedisError> {
        self.pipeline.send_packed_command(command).await.and_then(Value::extract_error)
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
