//! From a request to its answer.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tidegate_core::limits::HTTP_BODY_TIME_MAX;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::Door;
use super::answer::Failure;
use super::body::{Answer, Ended, Pieces, Work};
use super::credentials::Login;
use super::line::Line;
use super::output::Output;
use super::request::{Asked, Options, header};
use super::run::run;
use crate::config::{HttpConfig, Origins, PlainHttp};
use crate::data::clients::Encrypted;
use crate::data::login::Peer;
use crate::observe::stats::HttpOutcome;
use crate::stream::{Socket, Stream};
use crate::upstream::{Credentials, KnownKeys, log_in_over};

const PATH: &str = "/sql";
const METHODS: &str = "OPTIONS, POST";
/// What a page may send besides what any page may.
const HEADERS: &str = "Authorization, Content-Type, Neon-Connection-String, Neon-Raw-Text-Output, Neon-Array-Mode, \
                       Neon-Pool-Opt-In, Neon-Batch-Read-Only, Neon-Batch-Isolation-Level, Neon-Batch-Deferrable, \
                       Tidegate-User-Id";
/// What it may read besides what any page may.
const EXPOSED: &str = "Retry-After, RateLimit, RateLimit-Policy";
const PREFLIGHT_AGE_S: &str = "86400";

/// What all requests share.
pub(super) struct Router {
    config: HttpConfig,
    door: Arc<dyn Door>,
    known: Arc<KnownKeys>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) address: SocketAddr,
    pub(super) encrypted: Encrypted,
}

impl Router {
    pub(super) fn new(config: HttpConfig, door: Arc<dyn Door>, known: Arc<KnownKeys>) -> Self {
        Self { config, door, known }
    }

    pub(super) fn door(&self) -> &dyn Door {
        &*self.door
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Response<Answer> {
        let mut counted = Counted::new(&self);
        let origin = request.headers().get(ORIGIN).cloned();
        let answered = self.clone().dispatch(request, caller, &mut counted).await;
        let mut response = answered.unwrap_or_else(|failure| {
            counted.settle(failure.outcome());
            failure.into_response().map(Answer::Whole)
        });
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allowed) = origin.and_then(|origin| self.config.origins.allow(&origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
            headers.insert(VARY, HeaderValue::from_static("Origin"));
        }
        response
    }

    async fn dispatch(
        self: Arc<Self>,
        request: Request<Incoming>,
        caller: Caller,
        counted: &mut Counted,
    ) -> Result<Response<Answer>, Failure> {
        if request.uri().path() != PATH {
            return Err(Failure::new(StatusCode::NOT_FOUND, "08P01", "POST /sql is all there is"));
        }
        self.check_origin(request.headers())?;
        if request.method() == Method::OPTIONS {
            counted.settle(HttpOutcome::Preflight);
            return Ok(preflight());
        }
        if request.method() != Method::POST {
            let message = "statements come by POST";
            return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "08P01", message));
        }
        self.check_encrypted(caller)?;
        let deadline = Instant::now() + self.config.time_max;
        let options = Options::read(request.headers())?;
        let login = Login::read(request.headers())?;
        let is_batch_told = batch_headers(request.headers());
        // Nothing of the body is taken from whoever has not shown who it is.
        let line = self.log_in(login, caller).await?;
        let body = self.read_body(request.into_body()).await?;
        let asked = Asked::read(&body, &options)?;
        drop(body);
        let told = match asked {
            Asked::Batch(_) => is_batch_told,
            Asked::Single(_) => HeaderMap::new(),
        };
        let (mut output, pieces) = Output::new(self.config.result_bytes_max);
        let work: Work = Box::pin(async move {
            let ran = timeout_at(deadline, run(line, asked, &options, &mut output)).await;
            ran.unwrap_or_else(|_| Err(too_long()))?;
            Ok(output.into_rest())
        });
        let mut response = begin(work, pieces, counted).await?;
        response.headers_mut().extend(told);
        Ok(response)
    }

    /// A page that nobody has named may not ask, whatever it knows: not by a user's browser that happens to reach us, nor by a
    /// name that has been made to lead here.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        match headers.get(ORIGIN) {
            Some(origin) if self.config.origins.allow(origin).is_none() => {
                let message = "requests from this origin are not taken";
                Err(Failure::new(StatusCode::FORBIDDEN, "28000", message)
                    .hint("Name it in http.cors_origins."))
            }
            _ => Ok(()),
        }
    }

    /// A password in clear has been seen by whoever listens: better that it does not work.
    fn check_encrypted(&self, caller: Caller) -> Result<(), Failure> {
        let open = caller.encrypted == Encrypted::No
            && self.config.plain == PlainHttp::FromHere
            && !caller.address.ip().to_canonical().is_loopback()
            && self.door.acceptor().is_some();
        if open {
            let message = "requests from other machines come over https";
            return Err(Failure::new(StatusCode::FORBIDDEN, "28000", message));
        }
        Ok(())
    }

    /// The request as a client of the data plane, logged in.
    async fn log_in(&self, login: Login, caller: Caller) -> Result<Line, Failure> {
        let peer = Peer::Http(caller.address, caller.encrypted);
        let unavailable = |_| Failure::unavailable("no more clients are taken now");
        let stream = self.door.connect(peer).and_then(UnixStream::from_std).map_err(unavailable)?;
        let Login { user, password, database, parameters } = login;
        let mut settings = vec![("client_encoding", "UTF8")];
        settings.extend(parameters.iter().map(|(name, value)| (*name, value.as_str())));
        let credentials = Credentials::Password(password);
        let stream = Stream::Plain(Socket::Unix(stream));
        let names = (&*database, &*user);
        match log_in_over(stream, names, (&credentials, &self.known), &settings).await {
            Ok(logged_in) => Ok(Line::new(logged_in.stream)),
            Err(error) => Err(Failure::of_login(&error)),
        }
    }

    async fn read_body(&self, body: Incoming) -> Result<Bytes, Failure> {
        let bytes_max = self.config.body_bytes_max;
        let read = timeout(HTTP_BODY_TIME_MAX, Limited::new(body, bytes_max).collect()).await;
        match read {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let message = format!("the body is larger than {bytes_max} bytes");
                Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", message))
            }
            Ok(Err(error)) => {
                Err(Failure::bad_request(format!("the body could not be read: {error}")))
            }
            Err(_) => {
                let message = "the body came too slowly";
                Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "08P01", message))
            }
        }
    }
}

/// Works until there is something to answer with: all of it, or a first piece.
async fn begin(
    mut work: Work,
    mut pieces: tokio::sync::mpsc::Receiver<Bytes>,
    counted: &mut Counted,
) -> Result<Response<Answer>, Failure> {
    // Cancel safety: a piece that is received is used; work that is not finished goes on in the answer.
    let first = tokio::select! {
        biased;
        ended = &mut work => Err(ended?),
        first = pieces.recv() => Ok(first),
    };
    let answer = match first {
        Err(whole) if pieces.is_empty() => {
            counted.settle(HttpOutcome::Answered);
            Answer::Whole(Full::new(whole.into()))
        }
        Err(last) => Answer::Pieces(Box::new(Pieces::finished(pieces, last, counted.later()))),
        Ok(first) => Answer::Pieces(Box::new(Pieces::new(first, pieces, work, counted.later()))),
    };
    let mut response = Response::new(answer);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn too_long() -> Failure {
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "57014", "the request took too long")
        .hint("Ask for less, or raise http.time_max.")
}

fn preflight() -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE_S));
    response
}

/// What a batch was told of its transaction, said back as Neon's endpoint does.
fn batch_headers(headers: &HeaderMap) -> HeaderMap {
    let names = [header::ISOLATION, header::READ_ONLY, header::DEFERRABLE];
    let told = names.into_iter().filter_map(|name| {
        Some((hyper::header::HeaderName::from_static(name), headers.get(name)?.clone()))
    });
    told.collect()
}

impl Origins {
    /// What to answer a page of this origin, if it may ask.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::All => Some(HeaderValue::from_static("*")),
            Self::These(origins) => {
                let text = origin.to_str().ok()?;
                let known = origins.iter().any(|known| known.eq_ignore_ascii_case(text));
                known.then(|| origin.clone())
            }
        }
    }
}

/// Counts what becomes of one request, once; of one that is dropped before that is known, that its client has gone.
struct Counted {
    door: Option<Arc<dyn Door>>,
}

impl Counted {
    fn new(router: &Router) -> Self {
        Self { door: Some(router.door.clone()) }
    }

    fn settle(&mut self, outcome: HttpOutcome) {
        if let Some(door) = self.door.take() {
            door.totals().count(outcome);
        }
    }

    /// For an answer whose end is still to come.
    fn later(&mut self) -> impl FnOnce(Ended) + use<> {
        let mut rest = Self { door: self.door.take() };
        move |ended| {
            rest.settle(match ended {
                Ended::Whole => HttpOutcome::Answered,
                Ended::Cut => HttpOutcome::Cut,
            });
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.settle(HttpOutcome::Gone);
    }
}
