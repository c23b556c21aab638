//! One POST over HTTP/1.1, with TLS or without.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::sending::Refused;
use crate::config::{Secret, WebUrl};

/// Sends it, and asks for no more than that it was taken.
pub(super) async fn post(
    url: &WebUrl,
    tls: Option<ClientConfig>,
    token: Option<&Secret>,
    body: String,
) -> Result<(), Refused> {
    let request = request(url, token, body)?;
    let stream = TcpStream::connect((url.host.as_str(), url.port));
    let stream = stream.await.map_err(Refused::passing)?;
    let status = match tls {
        None => exchange(stream, request).await?,
        Some(tls) => {
            let name = ServerName::try_from(url.host.clone()).map_err(Refused::finally)?;
            let connector = TlsConnector::from(Arc::new(tls));
            let stream = connector.connect(name, stream).await.map_err(Refused::passing)?;
            exchange(stream, request).await?
        }
    };
    judge(status)
}

fn request(
    url: &WebUrl,
    token: Option<&Secret>,
    body: String,
) -> Result<Request<Full<Bytes>>, Refused> {
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url.path.reveal())
        .header(HOST, format!("{host}:{}", url.port))
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
        let mut value =
            value.map_err(|_| Refused::finally("the token holds what a header can't"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    // The error would repeat the path.
    let body = Full::new(Bytes::from(body));
    request.body(body).map_err(|_| Refused::finally("the URL can't be asked for"))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Refused::passing)?;
    let answer = sender.send_request(request);
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    // Cancel safety: the answer is polled to its head; a connection that ended first has said all that it had.
    let answer = tokio::select! {
        answer = answer.as_mut() => answer,
        _ = connection.as_mut() => answer.await,
    };
    answer.map(|answer| answer.status()).map_err(Refused::passing)
}

/// What is the receiver's trouble passes; what it has against us does not.
fn judge(status: StatusCode) -> Result<(), Refused> {
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    match status {
        status if status.is_success() => Ok(()),
        status if passes => Err(Refused::passing(format!("it answers {status}"))),
        status => Err(Refused::finally(format!("it answers {status}"))),
    }
}
