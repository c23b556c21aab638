//! Errors as JSON with PostgreSQL's fields, and the status that each of them is.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tidegate_wire::error_fields::find;

use crate::observe::stats::HttpOutcome;
use crate::upstream::{ConnectError, ServerError};

/// Of the IETF's "RateLimit header fields for HTTP".
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Where no server can be had, the next try is worth while after this.
const UNAVAILABLE_RETRY_S: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not answered with rows.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    fields: Box<Fields>,
}

/// Named as Neon's endpoint names them, which is what drivers read.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    message: String,
    code: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<String>,
    internal_position: Option<String>,
    internal_query: Option<String>,
    severity: Option<String>,
    r#where: Option<String>,
    table: Option<String>,
    column: Option<String>,
    schema: Option<String>,
    data_type: Option<String>,
    constraint: Option<String>,
    file: Option<String>,
    line: Option<String>,
    routine: Option<String>,
}

/// Whether the client has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Login,
    Statement,
}

impl Failure {
    /// An error of ours.
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let fields = Fields {
            message: message.into(),
            code: Some(code.to_owned()),
            severity: Some("ERROR".to_owned()),
            ..Fields::default()
        };
        Self { status, fields: Box::new(fields) }
    }

    /// What was sent is no request.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "08P01", message)
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "28000", message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "08006", message)
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.fields.hint = Some(hint.into());
        self
    }

    /// The body of an ErrorResponse.
    pub(super) fn of_statement(body: &[u8]) -> Self {
        let text = |letter| find(body, letter).map(|value| String::from_utf8_lossy(value).into());
        let fields = Fields {
            message: text(b'M').unwrap_or_default(),
            code: text(b'C'),
            detail: text(b'D'),
            hint: text(b'H'),
            position: text(b'P'),
            internal_position: text(b'p'),
            internal_query: text(b'q'),
            severity: text(b'V').or_else(|| text(b'S')),
            r#where: text(b'W'),
            table: text(b't'),
            column: text(b'c'),
            schema: text(b's'),
            data_type: text(b'd'),
            constraint: text(b'n'),
            file: text(b'F'),
            line: text(b'L'),
            routine: text(b'R'),
        };
        let status = status_of(fields.code.as_deref().unwrap_or_default(), Stage::Statement);
        Self { status, fields: Box::new(fields) }
    }

    /// Why the client was not let in.
    pub(super) fn of_login(error: &ConnectError) -> Self {
        match error {
            ConnectError::Refused(error) => Self::of_refusal(error),
            // A method that takes more than a password, such as a certificate.
            ConnectError::Policy(reason) => Self::unauthorized(reason.as_str()),
            ConnectError::Timeout => Self::unavailable("the login took too long"),
            error => Self::unavailable(format!("the login ended early: {error}")),
        }
    }

    fn of_refusal(error: &ServerError) -> Self {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let fields = Fields {
            message: error.message.clone(),
            code: some(&error.sqlstate),
            severity: some(&error.severity),
            detail: some(&error.detail),
            hint: some(&error.hint),
            routine: some(&error.routine),
            ..Fields::default()
        };
        Self { status: status_of(&error.sqlstate, Stage::Login), fields: Box::new(fields) }
    }

    /// What it counts as.
    pub(super) fn outcome(&self) -> HttpOutcome {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => HttpOutcome::Unauthorized,
            StatusCode::TOO_MANY_REQUESTS => HttpOutcome::Limited,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                HttpOutcome::Unavailable
            }
            StatusCode::BAD_REQUEST if self.fields.code.as_deref() != Some("08P01") => {
                HttpOutcome::Failed
            }
            _ => HttpOutcome::BadRequest,
        }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        // Strings alone can always be written.
        let body = serde_json::to_vec(&self.fields).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                let challenge = "Basic realm=\"PostgreSQL\", charset=\"UTF-8\"";
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, UNAVAILABLE_RETRY_S);
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let limit = self.fields.detail.as_deref().and_then(Limit::read);
                let fields = limit.as_ref().map(Limit::headers).unwrap_or_default();
                for (name, value) in fields {
                    if let Ok(value) = HeaderValue::from_str(&value) {
                        headers.insert(name, value);
                    }
                }
            }
            _ => {}
        }
        response
    }
}

/// 400 is what drivers read the fields of; the others are what those who stand between act by.
fn status_of(sqlstate: &str, stage: Stage) -> StatusCode {
    match (sqlstate, stage) {
        ("53400", _) => StatusCode::TOO_MANY_REQUESTS,
        // Of a Bind that does not fit its statement, among others.
        ("08P01", _) => StatusCode::BAD_REQUEST,
        (code, Stage::Login) if code.starts_with("28") => StatusCode::UNAUTHORIZED,
        ("53300", _) => StatusCode::SERVICE_UNAVAILABLE,
        (code, _) if code.starts_with("08") || code.starts_with("57P") => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

/// What the detail of a refusal by a limit says (`Over::refusal` of `host/limiter` writes it).
#[derive(Debug, PartialEq, Eq)]
struct Limit<'a> {
    bucket: &'a str,
    limit: u64,
    window_s: u64,
    /// None: it never has room for this.
    retry_after_s: Option<u64>,
}

impl<'a> Limit<'a> {
    fn read(detail: &'a str) -> Option<Self> {
        let (bucket, rest) = detail.strip_prefix("bucket=")?.rsplit_once(" limit=")?;
        let (limit, rest) = rest.split_once(" window_s=")?;
        let window = rest.split([' ', ':']).next()?;
        let retry = rest.rsplit_once("retry_after_ms=").map(|(_, ms)| ms);
        let retry_after_s = retry.and_then(|ms| ms.parse::<u64>().ok()).map(|ms| ms.div_ceil(1000));
        let window_s = window.parse::<f64>().ok()?.ceil() as u64;
        Some(Self { bucket, limit: limit.parse().ok()?, window_s, retry_after_s })
    }

    fn headers(&self) -> Vec<(HeaderName, String)> {
        let Self { bucket, limit, window_s, retry_after_s } = self;
        // What a structured field's string may hold.
        let plain = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { ' ' };
        let bucket: String = bucket.chars().map(plain).collect();
        let mut headers = vec![(RATE_LIMIT_POLICY, format!("\"{bucket}\";q={limit};w={window_s}"))];
        if let Some(after) = retry_after_s.map(|after| after.max(1)) {
            headers.push((RETRY_AFTER, after.to_string()));
            headers.push((RATE_LIMIT, format!("\"{bucket}\";r=0;t={after}")));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_in_the_fields_of_http() {
        let detail = "bucket=end user limit=3 window_s=60 remaining=0 retry_after_ms=51001";
        let body = format!("SERROR\0VERROR\0C53400\0Mtoo many\0D{detail}\0\0");
        let response = Failure::of_statement(body.as_bytes()).into_response();
        assert_eq!(response.status(), 429);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("retry-after"), "52");
        assert_eq!(header("ratelimit"), "\"end user\";r=0;t=52");
        assert_eq!(header("ratelimit-policy"), "\"end user\";q=3;w=60");
        let never = "bucket=a\"b limit=3 window_s=0.5: the statement alone costs more.";
        let never = Limit::read(never).unwrap();
        assert_eq!(never, Limit { bucket: "a\"b", limit: 3, window_s: 1, retry_after_s: None });
        assert_eq!(never.headers(), [(RATE_LIMIT_POLICY, "\"a b\";q=3;w=1".to_owned())]);
        assert_eq!(Limit::read("the limit=3 is over"), None);
    }

    #[test]
    fn a_status_says_who_is_at_fault() {
        let status = |code, stage| status_of(code, stage).as_u16();
        for (code, wanted) in
            [("42601", 400), ("53400", 429), ("57P03", 503), ("08006", 503), ("08P01", 400)]
        {
            assert_eq!(status(code, Stage::Statement), wanted, "{code}");
        }
        assert_eq!((status("28P01", Stage::Login), status("28P01", Stage::Statement)), (401, 400));
        assert_eq!((status("3D000", Stage::Login), status("53300", Stage::Login)), (400, 503));
    }
}
