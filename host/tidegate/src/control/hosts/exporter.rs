//! A node_exporter on a server's machine, over HTTP.

use std::pin::pin;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tidegate_cluster::{LoadReading, read_exporter};
use tokio::net::TcpStream;

use super::Trouble;
use crate::config::ExporterUrl;
use crate::upstream::Asker;

/// Of an answer, no more is read.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Where the server's data are: who may not know has no row.
const DIRECTORY_SQL: &str =
    "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'";

/// Asks it; `directory` is where the server's data are, once that has been asked for.
pub(super) async fn read(
    url: &ExporterUrl,
    asker: &mut Asker,
    directory: &mut Option<Option<String>>,
) -> Result<LoadReading, Trouble> {
    if directory.is_none()
        && let Ok(mut rows) = asker.ask(DIRECTORY_SQL).await
    {
        *directory = Some(rows.pop().and_then(|mut row| row.pop()).flatten());
        asker.close();
    }
    let text = get(url).await.map_err(|why| Trouble::Passing(format!("{url}: {why}")))?;
    let reading = read_exporter(&text, directory.as_ref().and_then(|known| known.as_deref()));
    if reading == LoadReading::default() {
        return Err(Trouble::Lasting(format!("{url} does not say what a node_exporter says")));
    }
    Ok(reading)
}

async fn get(url: &ExporterUrl) -> Result<String, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let request = Request::get(url.path.as_str())
        .header(HOST, format!("{host}:{}", url.port))
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| words(&error))?;
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = TokioIo::new(stream.map_err(|error| words(&error))?);
    let handshake = hyper::client::conn::http1::handshake(stream).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| words(&error))?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    // A connection that has ended has brought all that it had.
    tokio::select! {
        answer = exchange.as_mut() => answer,
        _ = connection.as_mut() => exchange.await,
    }
}
