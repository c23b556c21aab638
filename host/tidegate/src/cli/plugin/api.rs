//! Requests to the admin API of a running Tidegate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tidegate_core::limits::{PLUGIN_BODY_TIME_MAX, PLUGIN_LOAD_TIME_MAX};
use zeroize::Zeroizing;

use crate::config::{FromText, flag_value};

/// Bytes of an answer: a slot's differences and history are the longest.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where the admin API is, and what it asks for.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Admin {
    /// Where the admin API listens
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:6433",
          value_parser = address::<SocketAddr>)]
    admin: SocketAddr,
    /// A file whose first line is the admin token [default: TIDEGATE_ADMIN_TOKEN]
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// One request.
#[derive(Debug)]
pub(in crate::cli) struct Request {
    pub(in crate::cli) method: Method,
    pub(in crate::cli) path: String,
    pub(in crate::cli) headers: Vec<(&'static str, String)>,
    pub(in crate::cli) body: Vec<u8>,
}

impl Request {
    pub(in crate::cli) fn new(method: Method, path: String) -> Self {
        Self { method, path, headers: Vec::new(), body: Vec::new() }
    }
}

impl Admin {
    /// The body of a good answer.
    ///
    /// # Errors
    /// What went wrong, or what the API says is wrong.
    pub(in crate::cli) fn ask(&self, request: Request) -> Result<Bytes, String> {
        self.ask_within(PLUGIN_BODY_TIME_MAX + PLUGIN_LOAD_TIME_MAX, request)
    }

    /// The same, when the answer comes within this time.
    ///
    /// # Errors
    /// As [`Admin::ask`].
    pub(in crate::cli) fn ask_within(
        &self,
        time_max: Duration,
        request: Request,
    ) -> Result<Bytes, String> {
        let token = self.token()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let answer = async {
            tokio::time::timeout(time_max, exchange(self.admin, &token, request))
                .await
                .map_err(|_| format!("no answer within {} s", time_max.as_secs()))?
        };
        let (status, body) =
            runtime.block_on(answer).map_err(|error| format!("{}: {error}", self.admin))?;
        if status.is_success() { Ok(body) } else { Err(problem(status, &body)) }
    }

    fn token(&self) -> Result<Zeroizing<String>, String> {
        let text = match &self.admin_token_file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| format!("{}: {error}", file.display()))?,
            None => std::env::var("TIDEGATE_ADMIN_TOKEN")
                .map_err(|_| "no token: set TIDEGATE_ADMIN_TOKEN or give --admin-token-file")?,
        };
        let text = Zeroizing::new(text);
        Ok(Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned()))
    }
}

async fn exchange(
    address: SocketAddr,
    token: &str,
    request: Request,
) -> Result<(StatusCode, Bytes), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|e| words(&e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    let Request { method, path, headers, body } = request;
    let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the token holds what a header can't")?;
    authorization.set_sensitive(true);
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, authorization);
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes());
        request = request.header(name, value.map_err(|_| format!("{name} can't be sent"))?);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| words(&error))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| words(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| words(&error))?.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    // Cancel safety: the answer is polled to its end; a connection that ended first has said all that it had.
    tokio::select! {
        answer = answer.as_mut() => answer,
        ended = connection.as_mut() => match answer.await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(ended.err().map_or(error, |ended| ended.to_string())),
        },
    }
}

/// The API's own words, with the check that failed.
fn problem(status: StatusCode, body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| parsed.get(name).and_then(|value| value.as_str());
    let detail = text("detail").unwrap_or_else(|| status.canonical_reason().unwrap_or("refused"));
    match text("check") {
        Some(check) => format!("{} ({check}): {detail}", status.as_u16()),
        None => format!("{}: {detail}", status.as_u16()),
    }
}

fn address<T: FromText>(text: &str) -> Result<T, String> {
    flag_value(text)
}
