//! The table of routes, who may use which, and the way from a request to its resource.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use subtle::ConstantTimeEq;
use tidegate_core::limits::{
    ADMIN_ANSWER_TIME_MAX, ADMIN_BODY_BYTES_MAX, ADMIN_LIST_DEFAULT, ADMIN_LIST_MAX,
    CACHE_ENTRY_BYTES_MAX, PLUGIN_BODY_TIME_MAX, PLUGIN_LOAD_TIME_MAX, PLUGIN_UPLOADS_MAX,
    POLICY_COMPONENT_BYTES_MAX, POLICY_SETTINGS_BYTES_MAX, RECORD_TIME_MAX, WARM_ANSWER_TIME_MAX,
};
use tokio::sync::Semaphore;

use super::plugins::Plain;
use super::reply::{Problem, Reply};
use super::{
    ClusterVerb, Control, PoolsVerb, alerts, cache, clients, cluster, config, drain, explain,
    metrics, openapi, pausing, plugins, pools, probes, record, reload, servers,
};
use crate::config::{AdminConfig, MetricsAccess, Secret};
use crate::plugins::Who;

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
    Record,
    Explain,
    Drain,
    Cluster,
    ClusterOrder(ClusterVerb),
    AlertsTest,
    Cache,
    CacheInvalidate,
    CacheWarm,
    CacheEntry,
    CachePut,
    CacheRemove,
    PoolsOrder(PoolsVerb),
    Openapi,
    Plugins,
    Plugin,
    PluginUpload,
    PluginConfigure,
    PluginOrder(Plain),
    PluginsPromote,
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
    route(Method::POST, "/api/v1/record", Access::Token, Resource::Record),
    route(Method::POST, "/api/v1/explain", Access::Token, Resource::Explain),
    route(Method::POST, "/api/v1/drain", Access::Token, Resource::Drain),
    route(Method::GET, "/api/v1/cluster", Access::Token, Resource::Cluster),
    route(Method::POST, "/api/v1/cluster/switchover", Access::Token, Resource::ClusterOrder(ClusterVerb::Switchover)),
    route(Method::POST, "/api/v1/cluster/failover", Access::Token, Resource::ClusterOrder(ClusterVerb::Failover)),
    route(Method::POST, "/api/v1/cluster/drain", Access::Token, Resource::ClusterOrder(ClusterVerb::Drain)),
    route(Method::POST, "/api/v1/cluster/undrain", Access::Token, Resource::ClusterOrder(ClusterVerb::Undrain)),
    route(Method::POST, "/api/v1/cluster/resync", Access::Token, Resource::ClusterOrder(ClusterVerb::Resync)),
    route(Method::GET, "/api/v1/cache", Access::Token, Resource::Cache),
    route(Method::POST, "/api/v1/cache/invalidate", Access::Token, Resource::CacheInvalidate),
    route(Method::POST, "/api/v1/cache/warm", Access::Token, Resource::CacheWarm),
    route(Method::PUT, "/api/v1/cache/entries/{key}", Access::Token, Resource::CachePut),
    route(Method::GET, "/api/v1/cache/entries/{key}", Access::Token, Resource::CacheEntry),
    route(Method::DELETE, "/api/v1/cache/entries/{key}", Access::Token, Resource::CacheRemove),
    route(Method::POST, "/api/v1/alerts/test", Access::Token, Resource::AlertsTest),
    route(Method::POST, "/api/v1/pause", Access::Token, Resource::PoolsOrder(PoolsVerb::Pause)),
    route(Method::POST, "/api/v1/resume", Access::Token, Resource::PoolsOrder(PoolsVerb::Resume)),
    route(Method::POST, "/api/v1/reconnect", Access::Token, Resource::PoolsOrder(PoolsVerb::Reconnect)),
    route(Method::GET, "/api/v1/plugins", Access::Token, Resource::Plugins),
    route(Method::POST, "/api/v1/plugins/promote", Access::Token, Resource::PluginsPromote),
    route(Method::GET, "/api/v1/plugins/{slot}", Access::Token, Resource::Plugin),
    route(Method::PUT, "/api/v1/plugins/{slot}", Access::Token, Resource::PluginUpload),
    route(Method::PUT, "/api/v1/plugins/{slot}/config", Access::Token, Resource::PluginConfigure),
    route(Method::POST, "/api/v1/plugins/{slot}/promote", Access::Token, Resource::PluginOrder(Plain::Promote)),
    route(Method::POST, "/api/v1/plugins/{slot}/withdraw", Access::Token, Resource::PluginOrder(Plain::Withdraw)),
    route(Method::POST, "/api/v1/plugins/{slot}/rollback", Access::Token, Resource::PluginOrder(Plain::RollBack)),
    route(Method::POST, "/api/v1/plugins/{slot}/disable", Access::Token, Resource::PluginOrder(Plain::Disable)),
];

const fn route(method: Method, path: &'static str, access: Access, resource: Resource) -> Route {
    Route { method, path, access, resource }
}

impl Route {
    /// What stands in a path in the place of `{slot}` or `{key}`; none: it is another path.
    fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let place = self.path.split_once('{').and_then(|(before, rest)| {
            let (_, after) = rest.split_once('}')?;
            Some((before, after))
        });
        let Some((before, after)) = place else { return (self.path == path).then_some("") };
        let slot = path.strip_prefix(before)?.strip_suffix(after)?;
        (!slot.is_empty() && !slot.contains('/')).then_some(slot)
    }
}

impl Resource {
    /// Bytes of a body, and how long it may take to come.
    fn body(self, time_max: Duration) -> (usize, Duration) {
        match self {
            Resource::PluginUpload => (POLICY_COMPONENT_BYTES_MAX, PLUGIN_BODY_TIME_MAX),
            Resource::PluginConfigure => (POLICY_SETTINGS_BYTES_MAX, time_max),
            Resource::CachePut | Resource::CacheWarm => (CACHE_ENTRY_BYTES_MAX, time_max),
            _ => (ADMIN_BODY_BYTES_MAX, time_max),
        }
    }

    fn answer_time_max(self) -> Duration {
        match self {
            Resource::PluginUpload | Resource::PluginConfigure => PLUGIN_LOAD_TIME_MAX,
            Resource::Record => RECORD_TIME_MAX + ADMIN_ANSWER_TIME_MAX,
            Resource::CacheWarm => WARM_ANSWER_TIME_MAX + ADMIN_ANSWER_TIME_MAX,
            _ => ADMIN_ANSWER_TIME_MAX,
        }
    }
}

/// What each request needs.
pub(super) struct Router {
    control: Arc<dyn Control>,
    token: Secret,
    metrics: MetricsAccess,
    body_time_max: Duration,
    uploads: Semaphore,
}

/// A request that was read.
struct Asked<'r> {
    head: &'r Parts,
    /// What stands in the place of `{slot}` or `{key}`.
    slot: &'r str,
    body: Bytes,
    who: Who,
}

impl Router {
    pub(super) fn new(
        config: &AdminConfig,
        control: Arc<dyn Control>,
        body_time_max: Duration,
    ) -> Self {
        Self {
            control,
            token: config.token.clone(),
            metrics: config.metrics,
            body_time_max,
            uploads: Semaphore::new(PLUGIN_UPLOADS_MAX),
        }
    }

    /// Answers one request. Whoever has no token learns nothing, not even which paths exist.
    pub(super) async fn answer<B>(&self, request: Request<B>, peer: SocketAddr) -> Reply
    where
        B: Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        match self.try_answer(&head, body, peer).await {
            Ok(reply) => reply,
            Err(problem) => problem.into_reply(),
        }
    }

    async fn try_answer<B>(&self, head: &Parts, body: B, peer: SocketAddr) -> Result<Reply, Problem>
    where
        B: Body + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (resource, slot) = self.find(head)?;
        // Held while the file is in memory.
        let _upload = match resource {
            Resource::PluginUpload => Some(self.uploads.try_acquire().map_err(|_| {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE)
                    .detail("other plugins are being uploaded; try again")
            })?),
            _ => None,
        };
        let (bytes_max, time_max) = resource.body(self.body_time_max);
        let body = read_body(body, bytes_max, time_max).await?;
        let asked = Asked { head, slot, body, who: Who { peer: Some(peer) } };
        let time_max = resource.answer_time_max();
        match tokio::time::timeout(time_max, self.dispatch(resource, asked)).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::new(StatusCode::GATEWAY_TIMEOUT)
                .detail(format!("nothing answered within {} s", time_max.as_secs()))),
        }
    }

    fn find<'r>(&self, head: &'r Parts) -> Result<(Resource, &'r str), Problem> {
        // HEAD is answered as GET; hyper leaves the body out.
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let path = head.uri.path();
        let first = ROUTES.iter().find(|route| route.matches(path).is_some());
        let open = first.is_some_and(|route| match route.access {
            Access::Anyone => true,
            Access::Token => false,
            Access::Metrics => self.metrics == MetricsAccess::Open,
        });
        if !open {
            self.authorize(head)?;
        }
        let Some(first) = first else {
            return Err(Problem::new(StatusCode::NOT_FOUND)
                .detail("no such resource; /openapi.json describes all of them"));
        };
        // A path without a place in it is found before one with it.
        let at_path = || ROUTES.iter().filter(|route| route.path == first.path);
        match at_path().find(|route| route.method == *method) {
            Some(route) => Ok((route.resource, route.matches(path).unwrap_or_default())),
            None => {
                let methods: Vec<&str> = at_path().map(|route| route.method.as_str()).collect();
                let methods = methods.join(", ");
                let detail = format!("{path} takes {methods} only");
                let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED).detail(detail);
                Err(problem.allow(methods))
            }
        }
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

    async fn dispatch(&self, resource: Resource, asked: Asked<'_>) -> Result<Reply, Problem> {
        let control = self.control.as_ref();
        let Asked { head, slot, body, who } = asked;
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
            Resource::Reload => reload::post(control, who).await,
            Resource::Record => record::post(control, query, who).await,
            Resource::Explain => explain::post(control, &body).await,
            Resource::Drain => Ok(drain::post(control, who)),
            Resource::Cluster => cluster::get(control),
            Resource::ClusterOrder(verb) => cluster::order(control, verb, &body, who).await,
            Resource::AlertsTest => Ok(alerts::test(control, who).await),
            Resource::Cache => Ok(cache::get(control)),
            Resource::CacheInvalidate => cache::invalidate(control, &body, who).await,
            Resource::CacheWarm => cache::warm(control, &body, who).await,
            Resource::CacheEntry => cache::entry(control, slot).await,
            Resource::CachePut => cache::put(control, slot, (&head.headers, query), &body).await,
            Resource::CacheRemove => cache::remove(control, slot).await,
            Resource::PoolsOrder(verb) => pausing::post(control, verb, &body, who).await,
            Resource::Plugins => Ok(plugins::list(control)),
            Resource::Plugin => plugins::get(control, slot),
            Resource::PluginUpload => {
                let upload = plugins::upload(slot, query, &head.headers, body)?;
                plugins::order(control, upload, who).await
            }
            Resource::PluginConfigure => {
                plugins::order(control, plugins::configure(slot, query, &body)?, who).await
            }
            Resource::PluginOrder(plain) => {
                plugins::order(control, plugins::plain(slot, plain)?, who).await
            }
            Resource::PluginsPromote => {
                plugins::order(control, plugins::promote(query)?, who).await
            }
        }
    }
}

/// Reads the body, bounded in size and time.
async fn read_body<B>(body: B, bytes_max: usize, time_max: Duration) -> Result<Bytes, Problem>
where
    B: Body + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        let detail = format!("the request body is larger than {bytes_max} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE).detail(detail).check("size")
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let read = within(time_max, Limited::new(body, bytes_max).collect()).await?;
    match read {
        Ok(body) => Ok(body.to_bytes()),
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
