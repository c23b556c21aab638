//! The table of routes, who may use which, and the way from a request to its resource.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use subtle::ConstantTimeEq;
use tidegate_core::limits::{
    ADMIN_ANSWER_TIME_MAX, ADMIN_BODY_BYTES_MAX, ADMIN_LIST_DEFAULT, ADMIN_LIST_MAX,
};

use super::reply::{Problem, Reply};
use super::{Control, clients, config, drain, metrics, openapi, pools, probes, reload, servers};
use crate::config::{AdminConfig, MetricsAccess, Secret};

/// One thing the API can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Healthz,
    Readyz,
    Metrics,
    Pools,
    Clients,
    Servers,
    Config,
    Reload,
    Drain,
    Openapi,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Anyone,
    Token,
    /// As `admin.open_metrics` says.
    Metrics,
}

pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    resource: Resource,
}

/// Every route.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/healthz", Access::Anyone, Resource::Healthz),
    route(Method::GET, "/readyz", Access::Anyone, Resource::Readyz),
    route(Method::GET, "/metrics", Access::Metrics, Resource::Metrics),
    route(Method::GET, "/openapi.json", Access::Anyone, Resource::Openapi),
    route(Method::GET, "/api/v1/pools", Access::Token, Resource::Pools),
    route(Method::GET, "/api/v1/clients", Access::Token, Resource::Clients),
    route(Method::GET, "/api/v1/servers", Access::Token, Resource::Servers),
    route(Method::GET, "/api/v1/config", Access::Token, Resource::Config),
    route(Method::POST, "/api/v1/reload", Access::Token, Resource::Reload),
    route(Method::POST, "/api/v1/drain", Access::Token, Resource::Drain),
];

const fn route(method: Method, path: &'static str, access: Access, resource: Resource) -> Route {
    Route { method, path, access, resource }
}

/// What each request needs.
pub(super) struct Router {
    control: Arc<dyn Control>,
    token: Secret,
    metrics: MetricsAccess,
    body_time_max: Duration,
}

impl Router {
    pub(super) fn new(
        config: &AdminConfig,
        control: Arc<dyn Control>,
        body_time_max: Duration,
    ) -> Self {
        Self { control, token: config.token.clone(), metrics: config.metrics, body_time_max }
    }

    /// Answers one request. Whoever has no token learns nothing, not even which paths exist.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Reply
    where
        B: Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let route = match self.find(&head) {
            Ok(route) => route,
            Err(problem) => return problem.into_reply(),
        };
        if let Err(problem) = read_body(body, self.body_time_max).await {
            return problem.into_reply();
        }
        let answer = self.dispatch(route.resource, &head);
        match tokio::time::timeout(ADMIN_ANSWER_TIME_MAX, answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => problem.into_reply(),
            Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT)
                .detail(format!("nothing answered within {} s", ADMIN_ANSWER_TIME_MAX.as_secs()))
                .into_reply(),
        }
    }

    fn find(&self, head: &Parts) -> Result<&'static Route, Problem> {
        // HEAD is answered as GET; hyper leaves the body out.
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let at_path = ROUTES.iter().find(|route| route.path == head.uri.path());
        let open = at_path.is_some_and(|route| match route.access {
            Access::Anyone => true,
            Access::Token => false,
            Access::Metrics => self.metrics == MetricsAccess::Open,
        });
        if !open {
            self.authorize(head)?;
        }
        let Some(route) = at_path else {
            return Err(Problem::new(StatusCode::NOT_FOUND)
                .detail("no such resource; /openapi.json describes all of them"));
        };
        if route.method != *method {
            let detail = format!("{} takes {} only", route.path, route.method);
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED).detail(detail);
            return Err(problem.allow(route.method.clone()));
        }
        Ok(route)
    }

    /// The token is compared in constant time.
    fn authorize(&self, head: &Parts) -> Result<(), Problem> {
        let header = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let presented = header.and_then(|value| {
            let (scheme, token) = value.split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
        });
        let matches = presented
            .is_some_and(|presented| presented.ct_eq(self.token.reveal().as_bytes()).into());
        if matches {
            return Ok(());
        }
        let detail = match presented {
            Some(_) => "the bearer token is wrong",
            None => "a bearer token is needed: `Authorization: Bearer TOKEN`",
        };
        Err(Problem::new(StatusCode::UNAUTHORIZED).detail(detail))
    }

    async fn dispatch(&self, resource: Resource, head: &Parts) -> Result<Reply, Problem> {
        let control = self.control.as_ref();
        let query = head.uri.query().unwrap_or_default();
        match resource {
            Resource::Healthz => Ok(probes::healthz(control)),
            Resource::Readyz => Ok(probes::readyz(control).await),
            Resource::Metrics => Ok(metrics::get(control).await),
            Resource::Openapi => Ok(openapi::get()),
            Resource::Pools => Ok(pools::get(control).await),
            Resource::Clients => Ok(clients::get(control, list_limit(query)?).await),
            Resource::Servers => Ok(servers::get(control, list_limit(query)?).await),
            Resource::Config => Ok(config::get(control)),
            Resource::Reload => reload::post(control).await,
            Resource::Drain => Ok(drain::post(control)),
        }
    }
}

/// Reads and discards the body: no resource takes one yet, and it is bounded in size and time.
async fn read_body<B>(body: B, time_max: Duration) -> Result<(), Problem>
where
    B: Body + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        let detail = format!("a request body is at most {ADMIN_BODY_BYTES_MAX} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE).detail(detail)
    };
    if body.size_hint().lower() > ADMIN_BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = within(time_max, Limited::new(body, ADMIN_BODY_BYTES_MAX).collect()).await?;
    match read {
        Ok(_) => Ok(()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST)
            .detail(format!("the request body could not be read: {error}"))),
    }
}

async fn within<T>(time_max: Duration, future: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(time_max, future).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT).detail("the request body came too slowly")
    })
}

/// Reads `limit=N`, the one parameter of lists.
fn list_limit(query: &str) -> Result<usize, Problem> {
    let mut limit = ADMIN_LIST_DEFAULT;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let value = parameter.strip_prefix("limit=").and_then(|value| value.parse().ok());
        match value {
            Some(value) if (1..=ADMIN_LIST_MAX).contains(&value) => limit = value,
            _ => {
                let detail = format!("only limit=1 to limit={ADMIN_LIST_MAX} is understood here");
                return Err(Problem::new(StatusCode::BAD_REQUEST).detail(detail));
            }
        }
    }
    Ok(limit)
}
