//! Tests of the admin API: a fake process behind it, real HTTP over loopback in front.

mod cache; // what is kept
mod explain; // what a statement would come to
mod pausing; // orders about server connections
mod plugins; // orders about plugins

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_core::limits::{ADMIN_BODY_BYTES_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX};

use super::router::{Access, ROUTES};
use super::server::{Timeouts, start_with};
use super::*;
use crate::alerts::Tried;
use crate::config::{AdminConfig, MetricsAccess, Secret, flag_value};
use crate::observe::snapshot::{ClientSnapshot, PoolSnapshot, ServerSnapshot};
use crate::plugins::{CandidateReport, Refusal, RefusalKind, VersionReport};

const TOKEN: &str = "correct-horse";

/// A process whose answers a test chooses.
struct Fake {
    phase: Mutex<Phase>,
    ready: Mutex<Result<(), String>>,
    reload: Mutex<Result<ReloadReport, Vec<String>>>,
    drains: AtomicUsize,
    config: Arc<Config>,
    /// What was ordered about plugins, and what is answered.
    orders: Mutex<Vec<String>>,
    refusal: Mutex<Option<Refusal>>,
    entries: Mutex<tidegate_cache::Entries>,
}

fn slot_report(slot: Slot) -> SlotReport {
    let version = VersionReport {
        generation: 1,
        name: "mine".to_owned(),
        version: "1".to_owned(),
        source: "uploaded",
        sha256: "00".to_owned(),
        signed: false,
        bytes: 8,
        calls: 2,
        weighings: 1,
        plans: 1,
        plan_microseconds: 3,
        plans_within: [1; 7],
        memory_bytes: 65_536,
        faults: Default::default(),
        quarantined: false,
    };
    let candidate = CandidateReport {
        version: version.clone(),
        mode: "shadow",
        share_percent: 100,
        compared: 5,
        different: 1,
        verdict: "wait",
    };
    SlotReport {
        slot,
        pinned: false,
        persistent: true,
        active: Some(version),
        previous: None,
        candidate: Some(candidate),
    }
}

impl Control for Fake {
    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap()
    }

    fn ready(&self) -> Answer<Result<(), String>> {
        let ready = self.ready.lock().unwrap().clone();
        Box::pin(async move { ready })
    }

    fn snapshot(&self, scope: Scope) -> Answer<Snapshot> {
        let clients = |id| ClientSnapshot { id, user: "ann".to_owned(), ..Default::default() };
        let servers =
            |id| ServerSnapshot { id, server: "primary".to_owned(), ..Default::default() };
        let pool = PoolSnapshot {
            database: "shop".to_owned(),
            size_max: 50,
            active: 5,
            ..Default::default()
        };
        let mut snapshot =
            Snapshot { workers: 2, workers_silent: 1, pools: vec![pool], ..Default::default() };
        match scope {
            Scope::Pools => {}
            Scope::Clients => snapshot.clients = (1..=3).map(clients).collect(),
            Scope::Servers => snapshot.servers = (1..=3).map(servers).collect(),
        }
        Box::pin(async move { snapshot })
    }

    fn explain(&self, question: ExplainQuestion) -> Answer<Explanation> {
        Box::pin(async move { explain::explained(&question) })
    }

    fn record(&self, order: RecordOrder, _: Who) -> Option<Answer<Vec<u8>>> {
        let RecordOrder { time, executions_max } = order;
        let words = format!("{} {executions_max}\n", time.as_secs()).into_bytes();
        (executions_max != 99).then(|| Box::pin(async move { words }) as Answer<Vec<u8>>)
    }

    fn order_pools(&self, order: PoolsOrder, _: Who) -> Answer<Result<PoolsReport, String>> {
        let PoolsOrder { verb, database, wait } = &order;
        let ordered = format!("{} {database:?} {}", verb.name(), wait.as_millis());
        self.orders.lock().unwrap().push(ordered);
        let done = *verb != PoolsVerb::Pause;
        Box::pin(async move { Ok(PoolsReport { done, open: 3, ..PoolsReport::default() }) })
    }

    fn cluster(&self) -> Option<ClusterReport> {
        let server = ServerReport { name: "primary".to_owned(), ..ServerReport::default() };
        Some(ClusterReport {
            primary: "primary".to_owned(),
            servers: vec![server],
            ..Default::default()
        })
    }

    fn order_cluster(&self, what: Ordered, _: Who) -> Answer<Result<String, String>> {
        let is_known = !format!("{what:?}").contains("nobody");
        self.orders.lock().unwrap().push(format!("{what:?}"));
        let outcome =
            if is_known { Ok("told".to_owned()) } else { Err("no such server".to_owned()) };
        Box::pin(async move { outcome })
    }

    fn test_alerts(&self, _: Who) -> Answer<Tried> {
        let tried = vec![
            ("slack (a)".to_owned(), Ok(())),
            ("email (b)".to_owned(), Err("no room".to_owned())),
        ];
        Box::pin(async move { tried })
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }

    fn reload(&self) -> Answer<Result<ReloadReport, Vec<String>>> {
        let answer = self.reload.lock().unwrap().clone();
        Box::pin(async move { answer })
    }

    fn plugins(&self) -> Vec<SlotReport> {
        Slot::ALL.map(slot_report).into()
    }

    fn plugin(&self, slot: Slot) -> SlotDetail {
        let slot = slot_report(slot);
        SlotDetail { slot, settings: None, differences: Vec::new(), history: Vec::new() }
    }

    fn order_plugin(&self, order: Order, who: Who) -> Answer<Outcome> {
        let what = match &order {
            Order::Upload { bytes, settings, intake, .. } => {
                format!("{} {} {settings}", bytes.len(), intake.name())
            }
            Order::Configure { settings, intake, .. } => format!("{} {settings}", intake.name()),
            _ => String::new(),
        };
        let slots: Vec<&str> = order.slots().into_iter().map(Slot::name).collect();
        let ordered = format!("{} {} {what}", order.name(), slots.join("+"));
        self.orders.lock().unwrap().push(ordered.trim().to_owned());
        assert!(who.peer.is_some_and(|peer| peer.ip().is_loopback()));
        let refusal = self.refusal.lock().unwrap().clone();
        let slots = order.slots().into_iter().map(slot_report).collect();
        Box::pin(async move { refusal.map_or(Ok(slots), Err) })
    }

    fn drain(&self) {
        self.drains.fetch_add(1, Ordering::SeqCst);
        *self.phase.lock().unwrap() = Phase::Draining;
    }
}

struct Api {
    handle: AdminHandle,
    fake: Arc<Fake>,
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Answered {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn started_with(metrics: MetricsAccess, timeouts: Timeouts) -> Api {
    let mut raw = crate::config::raw::Raw::default();
    let primary = flag_value("postgres://app:hunter2@db/shop").unwrap();
    raw.cluster.primary = Some(crate::config::raw::At::flag("--primary", primary));
    let config = crate::config::ConfigSource::new(None, raw).read().unwrap();
    let fake = Arc::new(Fake {
        phase: Mutex::new(Phase::Serving),
        ready: Mutex::new(Ok(())),
        reload: Mutex::new(Ok(ReloadReport::default())),
        drains: AtomicUsize::new(0),
        config: Arc::new(config),
        orders: Mutex::default(),
        refusal: Mutex::default(),
        entries: cache::entries(),
    });
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = AdminConfig { address, token: Secret::new(TOKEN), metrics };
    let control: Arc<dyn Control> = Arc::clone(&fake) as _;
    let listener = std::net::TcpListener::bind(address).unwrap();
    Api { handle: start_with(listener, &admin, control, timeouts).unwrap(), fake }
}

fn started() -> Api {
    started_with(MetricsAccess::Token, Timeouts::default())
}

impl Api {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends bytes and reads until the server closes.
    fn exchange(&self, request: &[u8]) -> Answered {
        let mut stream = self.connect();
        // The server may answer and close before it has read all of a request that is too large.
        let _ = stream.write_all(request);
        answer(&mut stream)
    }

    fn post_body(&self, path: &str, body: &str) -> Answered {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.exchange(request.as_bytes())
    }

    fn request(&self, method: &str, path: &str, token: &str) -> Answered {
        let authorization = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n"
        );
        self.exchange(request.as_bytes())
    }

    fn get(&self, path: &str) -> Answered {
        self.request("GET", path, TOKEN)
    }

    fn post(&self, path: &str) -> Answered {
        self.request("POST", path, TOKEN)
    }
}

fn answer(stream: &mut TcpStream) -> Answered {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    // A reset after the answer is how a server that stops reading ends; what came before it counts.
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answered { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A path that a route takes, with the parameters it needs.
fn example(path: &str) -> String {
    let path = path.replace("{slot}", "routing").replace("{key}", "a");
    if path == "/api/v1/plugins/promote" { format!("{path}?slots=routing,caching") } else { path }
}

#[test]
fn without_the_token_nothing_but_the_open_routes_answers() {
    let api = started();
    for route in ROUTES {
        for token in ["", "wrong", "correct-horse-", "correct-hors"] {
            let answered = api.request(route.method.as_str(), &example(route.path), token);
            match route.access {
                Access::Anyone => assert_eq!(answered.status, 200, "{} {token}", route.path),
                _ => {
                    assert_eq!(answered.status, 401, "{} {token}", route.path);
                    assert!(
                        answered.head.contains("www-authenticate: bearer"),
                        "{}",
                        answered.head
                    );
                    assert!(
                        answered.head.contains("application/problem+json"),
                        "{}",
                        answered.head
                    );
                }
            }
        }
    }
    assert_eq!(api.fake.drains.load(Ordering::SeqCst), 0);
    assert!(api.fake.orders.lock().unwrap().is_empty());
    assert_eq!(api.request("GET", "/api/v1/nothing", "").status, 401);
}

#[test]
fn each_route_answers_with_the_token() {
    let api = started();
    for route in ROUTES {
        let answered = match route.path {
            "/api/v1/explain" => api.ask(r#"{"sql": "SELECT 1"}"#),
            path @ "/api/v1/cache/warm" => api.post_body(path, r#"{"statements": ["SELECT 1"]}"#),
            path @ "/api/v1/cache/invalidate" => api.post_body(path, r#"{"all": true}"#),
            path @ "/api/v1/cluster/failover" => api.post_body(path, r#"{"to": "replica-1"}"#),
            path @ ("/api/v1/cluster/drain"
            | "/api/v1/cluster/undrain"
            | "/api/v1/cluster/resync") => api.post_body(path, r#"{"server": "replica-1"}"#),
            path => api.request(route.method.as_str(), &example(path), TOKEN),
        };
        assert!((200..300).contains(&answered.status), "{}: {answered:?}", route.path);
        assert!(answered.head.contains("cache-control: no-store"), "{}", answered.head);
    }
}

#[test]
fn orders_about_the_cluster_are_read_and_refused_with_words() {
    let api = started();
    let cases = [
        ("switchover", "", 202, "Switchover { to: None }"),
        ("switchover", r#"{"to": "a"}"#, 202, r#"Switchover { to: Some("a") }"#),
        ("failover", r#"{"to": "a"}"#, 202, r#"Failover { to: "a", force: No }"#),
        ("failover", r#"{"to": "a", "force": true}"#, 202, r#"Failover { to: "a", force: Yes }"#),
        ("drain", r#"{"server": "a"}"#, 200, r#"Drain { server: "a" }"#),
        ("undrain", r#"{"server": "a"}"#, 200, r#"Undrain { server: "a" }"#),
        ("resync", r#"{"server": "a"}"#, 202, r#"Resync { server: "a" }"#),
        ("drain", r#"{"server": "nobody"}"#, 409, r#"Drain { server: "nobody" }"#),
    ];
    for (verb, body, status, ordered) in cases {
        let answered = api.post_body(&format!("/api/v1/cluster/{verb}"), body);
        assert_eq!(answered.status, status, "{verb} {body}: {answered:?}");
        assert_eq!(api.fake.orders.lock().unwrap().pop().as_deref(), Some(ordered));
    }
    for (verb, body) in [("failover", ""), ("drain", "{}"), ("undrain", r#"{"to": "a"}"#)] {
        let answered = api.post_body(&format!("/api/v1/cluster/{verb}"), body);
        assert_eq!(answered.status, 400, "{answered:?}");
        assert!(answered.json()["detail"].as_str().unwrap().contains("is no order such as"));
    }
    assert!(api.fake.orders.lock().unwrap().is_empty());
    let tried = api.post("/api/v1/alerts/test").json();
    assert_eq!(tried["receivers"][1]["error"], "no room");
}

#[test]
fn the_scheme_of_the_token_is_case_insensitive() {
    let api = started();
    let request = "GET /api/v1/pools HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   authorization: bearer correct-horse\r\n\r\n";
    assert_eq!(api.exchange(request.as_bytes()).status, 200);
    let basic = request.replace("bearer", "basic");
    assert_eq!(api.exchange(basic.as_bytes()).status, 401);
}

#[test]
fn unknown_routes_methods_and_parameters_are_explained() {
    let api = started();
    let unknown = api.get("/api/v1/pool");
    assert_eq!((unknown.status, unknown.json()["status"].clone()), (404, 404.into()));
    let method = api.request("DELETE", "/api/v1/pools", TOKEN);
    assert_eq!(method.status, 405);
    assert!(method.head.contains("allow: get"), "{}", method.head);
    assert_eq!(api.get("/api/v1/drain").status, 405);
    for query in ["limit=0", "limit=x", "limit=100001", "offset=3", "limit"] {
        assert_eq!(api.get(&format!("/api/v1/clients?{query}")).status, 400, "{query}");
    }
}

#[test]
fn head_is_answered_without_a_body() {
    let answered = started().request("HEAD", "/healthz", "");
    assert_eq!((answered.status, answered.body.as_str()), (200, ""));
}

#[test]
fn probes_follow_the_phase_and_the_primary() {
    let api = started();
    let probes = || (api.get("/healthz").status, api.get("/readyz").status);
    assert_eq!(probes(), (200, 200));
    *api.fake.ready.lock().unwrap() = Err("the primary refuses connections".to_owned());
    assert_eq!(probes(), (200, 503));
    assert_eq!(api.get("/readyz").json()["detail"], "the primary refuses connections");
    *api.fake.ready.lock().unwrap() = Ok(());
    for phase in [Phase::Starting, Phase::Draining, Phase::Stopped] {
        *api.fake.phase.lock().unwrap() = phase;
        assert_eq!(probes(), (503, 503), "{phase:?}");
    }
}

#[test]
fn lists_are_cut_at_the_limit_and_say_what_is_missing() {
    let api = started();
    let clients = api.get("/api/v1/clients?limit=2").json();
    assert_eq!((&clients["total"], &clients["partial"]), (&3.into(), &true.into()));
    assert_eq!(clients["clients"].as_array().unwrap().len(), 2);
    let servers = api.get("/api/v1/servers").json();
    assert_eq!(servers["servers"][2]["id"], 3);
    let pools = api.get("/api/v1/pools").json();
    assert_eq!((&pools["workers_silent"], &pools["pools"][0]["active"]), (&1.into(), &5.into()));
}

#[test]
fn metrics_are_open_when_the_configuration_says_so() {
    let api = started_with(MetricsAccess::Open, Timeouts::default());
    let answered = api.request("GET", "/metrics", "");
    assert_eq!(answered.status, 200);
    assert!(answered.head.contains("text/plain; version=0.0.4"), "{}", answered.head);
    assert!(answered.body.contains("tidegate_pool_active{database=\"shop\""), "{}", answered.body);
    assert_eq!(api.request("GET", "/api/v1/pools", "").status, 401);
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let answered = started().get("/api/v1/config");
    assert!(!answered.body.contains("hunter2"), "{}", answered.body);
    assert_eq!(answered.json()["cluster"]["primary"], "postgres://app@db:5432/shop?sslmode=prefer");
    assert_eq!(answered.json()["pool"]["idle_max"], "300s");
}

#[test]
fn a_reload_answers_with_what_changed_or_with_every_error() {
    let api = started();
    let report = ReloadReport { changed: vec!["pool.size_max".to_owned()], ..Default::default() };
    *api.fake.reload.lock().unwrap() = Ok(report);
    let answered = api.post("/api/v1/reload");
    assert_eq!((answered.status, &answered.json()["changed"][0]), (200, &"pool.size_max".into()));
    let errors = vec!["tidegate.toml:1:1: x: unknown key".to_owned(), "more".to_owned()];
    *api.fake.reload.lock().unwrap() = Err(errors.clone());
    let answered = api.post("/api/v1/reload");
    assert_eq!((answered.status, &answered.json()["errors"]), (422, &errors.into()));
}

#[test]
fn a_drain_begins_and_the_health_check_fails_from_then_on() {
    let api = started();
    let answered = api.post("/api/v1/drain");
    assert_eq!((answered.status, &answered.json()["status"]), (202, &"draining".into()));
    assert_eq!(api.fake.drains.load(Ordering::SeqCst), 1);
    assert_eq!(api.get("/healthz").status, 503);
}

#[test]
fn a_body_that_is_too_large_is_refused_whether_announced_or_not() {
    let api = started();
    let head = format!(
        "POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
    );
    let announced = format!("{head}Content-Length: {}\r\n\r\n", ADMIN_BODY_BYTES_MAX + 1);
    assert_eq!(api.exchange(announced.as_bytes()).status, 413);
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..=ADMIN_BODY_BYTES_MAX / 1024 {
        chunked.extend_from_slice(b"400\r\n");
        chunked.extend_from_slice(&[b'x'; 1024]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert_eq!(api.exchange(&chunked).status, 413);
    let fits = format!("{head}Content-Length: 2\r\n\r\n{{}}");
    assert_eq!(api.exchange(fits.as_bytes()).status, 200);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let api = started();
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(ADMIN_HEAD_BYTES_MAX));
    assert_eq!(api.exchange(long.as_bytes()).status, 431);
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(200));
    assert_eq!(api.exchange(many.as_bytes()).status, 431);
    assert_eq!(api.exchange(b"\x16\x03\x01 not http\r\n\r\n").status, 400);
}

#[test]
fn slow_heads_bodies_and_idle_connections_are_cut_while_others_are_served() {
    let brief = Duration::from_millis(200);
    let timeouts = Timeouts { head: brief, body: brief, ..Default::default() };
    let api = started_with(MetricsAccess::Token, timeouts);
    let begun = Instant::now();
    let mut slow: Vec<TcpStream> = ["", "GET /healthz HTTP/1.1\r\nHost:"]
        .map(|start| {
            let mut stream = api.connect();
            stream.write_all(start.as_bytes()).unwrap();
            stream
        })
        .into();
    assert_eq!(api.get("/healthz").status, 200);
    for stream in &mut slow {
        let answered = answer(stream);
        assert!(matches!(answered.status, 0 | 408), "{answered:?}");
    }
    let body = format!(
        "POST /api/v1/drain HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\
         Connection: close\r\n\r\nx"
    );
    assert_eq!(api.exchange(body.as_bytes()).status, 408);
    assert_eq!(api.fake.drains.load(Ordering::SeqCst), 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_record_has_its_bounds_and_is_one_at_a_time() {
    let api = started();
    assert_eq!(api.post("/api/v1/record").body, format!("10 {}\n", u64::MAX));
    assert_eq!(api.post("/api/v1/record?seconds=240&most=7").body, "240 7\n");
    assert_eq!(api.post("/api/v1/record?most=99").status, 409);
    for wrong in ["seconds=0", "seconds=241", "most=0", "most=x", "time=1", "seconds"] {
        assert_eq!(api.post(&format!("/api/v1/record?{wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn connections_beyond_the_bound_wait_for_the_others_to_end() {
    let brief = Duration::from_millis(300);
    let timeouts = Timeouts { head: brief, ..Default::default() };
    let api = started_with(MetricsAccess::Token, timeouts);
    let held: Vec<TcpStream> = (0..ADMIN_CONNECTIONS_MAX + 5).map(|_| api.connect()).collect();
    assert_eq!(api.get("/healthz").status, 200);
    assert_eq!(held.len(), ADMIN_CONNECTIONS_MAX + 5);
}

#[test]
fn one_connection_serves_many_requests() {
    let api = started();
    let mut stream = api.connect();
    let last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let first = last.replace("Connection: close\r\n", "");
    stream.write_all(format!("{first}{first}{last}").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
}

#[test]
fn dropping_the_handle_ends_connections_and_frees_the_address() {
    let api = started();
    let mut idle = api.connect();
    let address = api.handle.address();
    let begun = Instant::now();
    drop(api);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(answer(&mut idle).status, 0);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_openapi_document_describes_each_route_and_no_other() {
    let document: serde_json::Value = serde_json::from_str(super::openapi::DOCUMENT).unwrap();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let open = operation["security"].as_array().unwrap().is_empty();
            assert_eq!(open, operation["responses"].get("401").is_none(), "{path}");
            assert!(
                operation["summary"].as_str().is_some_and(|text| text.ends_with('.')),
                "{path}"
            );
            described.insert((method.to_uppercase(), path.clone(), open));
        }
    }
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| {
            (route.method.to_string(), route.path.to_owned(), route.access == Access::Anyone)
        })
        .collect();
    assert_eq!(described, routes);
}

#[test]
fn the_openapi_schemas_name_each_field_of_the_snapshots() {
    let document: serde_json::Value = serde_json::from_str(super::openapi::DOCUMENT).unwrap();
    let fields = |value: serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let of = |value: &dyn erased::Json| fields(value.json());
    let SlotReport { active, candidate, .. } = slot_report(Slot::Routing);
    let schemas: [(&str, &dyn erased::Json); 7] = [
        ("Pool", &PoolSnapshot::default()),
        ("Client", &ClientSnapshot::default()),
        ("Server", &ServerSnapshot::default()),
        ("ReloadReport", &ReloadReport::default()),
        ("PluginSlot", &slot_report(Slot::Routing)),
        ("PluginVersion", &active),
        ("PluginCandidate", &candidate),
    ];
    for (name, value) in schemas {
        let described = fields(document["components"]["schemas"][name]["properties"].clone());
        assert_eq!(described, of(value), "{name}");
    }
}

mod erased {
    pub(super) trait Json {
        fn json(&self) -> serde_json::Value;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}
