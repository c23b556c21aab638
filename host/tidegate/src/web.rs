//! One question over HTTP/1.1, with TLS or without, and its answer.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::WebUrl;

/// An answer in JSON is read up to this.
pub const JSON_BYTES_MAX: usize = 1 << 20;

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    pub method: Method,
    pub url: &'a WebUrl,
    /// In the place of the URL's own.
    pub path: Option<&'a str>,
    /// The header's value; it is kept out of logs.
    pub authorization: Option<String>,
    /// JSON.
    pub body: String,
    pub answer: Wanted,
}

/// How much of the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Status,
    /// A longer one is an error.
    Body {
        bytes_max: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// Empty if it was not wanted.
    pub body: Bytes,
}

/// Why there is no answer, in words without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebError {
    /// It may be there the next time.
    Passing(String),
    /// It cannot be asked like this.
    Final(String),
}

impl std::fmt::Display for WebError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passing(words) | Self::Final(words) => f.write_str(words),
        }
    }
}

fn passing(words: impl ToString) -> WebError {
    WebError::Passing(words.to_string())
}

fn finally(words: impl ToString) -> WebError {
    WebError::Final(words.to_string())
}

/// Asks. It waits for as long as it takes: the caller has the deadline. `tls` is for URLs with `https`, which are never asked without.
///
/// # Errors
/// Nobody answers, or what answers is no HTTP; or TLS is wanted and there is none.
pub async fn ask(question: Question<'_>, tls: Option<&ClientConfig>) -> Result<Answer, WebError> {
    let (url, wanted) = (question.url, question.answer);
    let tls = match url.tls {
        true => Some(tls.ok_or_else(|| finally("there is nothing to check its certificate with"))?),
        false => None,
    };
    let request = request(question)?;
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(passing)?;
    let Some(tls) = tls else {
        return exchange(stream, request, wanted).await;
    };
    let name = ServerName::try_from(url.host.clone()).map_err(finally)?;
    let connector = TlsConnector::from(Arc::new(tls.clone()));
    let stream = connector.connect(name, stream).await.map_err(passing)?;
    exchange(stream, request, wanted).await
}

fn request(question: Question<'_>) -> Result<Request<Full<Bytes>>, WebError> {
    let url = question.url;
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let mut request = Request::builder()
        .method(question.method)
        .uri(question.path.unwrap_or(url.path.reveal()))
        .header(HOST, format!("{host}:{}", url.port))
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    if let Some(authorization) = question.authorization {
        let value = HeaderValue::from_str(&authorization);
        let mut value = value.map_err(|_| finally("the token holds what a header can't"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    // The error would repeat the path.
    let body = Full::new(Bytes::from(question.body));
    request.body(body).map_err(|_| finally("the URL can't be asked for"))
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    wanted: Wanted,
) -> Result<Answer, WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(passing)?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(passing)?;
        let (status, body) = (answer.status(), answer.into_body());
        let body = match wanted {
            Wanted::Status => Bytes::new(),
            Wanted::Body { bytes_max } => {
                let read = Limited::new(body, bytes_max).collect().await;
                read.map_err(passing)?.to_bytes()
            }
        };
        Ok(Answer { status, body })
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    // Cancel safety: the answer is polled to its end; a connection that ended first has said all that it had.
    tokio::select! {
        answer = answer.as_mut() => answer,
        _ = connection.as_mut() => answer.await,
    }
}
