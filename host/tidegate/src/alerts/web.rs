//! One letter by POST.

use hyper::{Method, StatusCode};
use rustls::ClientConfig;

use super::sending::Refused;
use crate::config::{Secret, WebUrl};
use crate::web::{self, Question, Wanted, WebError};

/// Sends it, and asks for no more than that it was taken.
pub(super) async fn post(
    url: &WebUrl,
    tls: Option<ClientConfig>,
    token: Option<&Secret>,
    body: String,
) -> Result<(), Refused> {
    let question = Question {
        method: Method::POST,
        url,
        path: None,
        authorization: token.map(|token| format!("Bearer {}", token.reveal())),
        body,
        answer: Wanted::Status,
    };
    let answer = web::ask(question, tls.as_ref()).await.map_err(|error| match error {
        WebError::Passing(words) => Refused::passing(words),
        WebError::Final(words) => Refused::finally(words),
    })?;
    judge(answer.status)
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
