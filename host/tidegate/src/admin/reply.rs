//! JSON answers, and errors as problem details (RFC 9457).

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// What each resource returns.
pub(super) type Reply = Response<Full<Bytes>>;

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => reply(status, "application/json", body),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
            .detail(format!("the answer could not be written as JSON: {error}"))
            .into_reply(),
    }
}

/// A body of any type.
pub(super) fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// An error as a client of the API sees it.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Box<str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    /// Of a plugin: the check that it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'static str>,
    #[serde(skip)]
    allow: Option<Box<str>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: None,
            errors: Vec::new(),
            check: None,
            allow: None,
        }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into());
        self
    }

    pub(super) fn errors(mut self, errors: Vec<String>) -> Self {
        self.errors = errors;
        self
    }

    pub(super) fn check(mut self, check: &'static str) -> Self {
        self.check = Some(check);
        self
    }

    /// The methods of the resource, with commas.
    pub(super) fn allow(mut self, methods: String) -> Self {
        self.allow = Some(methods.into());
        self
    }

    pub(super) fn into_reply(self) -> Reply {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut reply = reply(status, "application/problem+json", body);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tidegate\"");
            reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(Ok(allow)) = self.allow.map(|allow| HeaderValue::from_str(&allow)) {
            reply.headers_mut().insert(ALLOW, allow);
        }
        reply
    }
}
