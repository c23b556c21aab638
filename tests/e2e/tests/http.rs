//! `POST /sql`: statements over HTTP, through the pipeline of every client.

mod documented; // the examples of docs/http.md
mod refused; // who is not let in, and what is not taken
mod streams; // long answers, slow clients, clients that go

use crate::own::{Folder, SOON, json, policies_answer, pool_of, tidegate};
use serde_json::{Value, json as value};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::http::{self, Response};
use tidegate_test_support::{
    Client, Tidegate, TidegateOptions, free_port, password_of, shared_cluster, test_database,
    wait_until,
};

/// A Tidegate with the endpoint, in front of the shared cluster.
pub struct Endpoint {
    pub tidegate: Tidegate,
    pub database: String,
    pub at: SocketAddr,
}

impl Endpoint {
    pub fn start(name: &str, toml: &str) -> Endpoint {
        Endpoint::start_with(name, "", toml)
    }

    /// `http` is more of its own section, `toml` more sections.
    pub fn start_with(name: &str, http: &str, toml: &str) -> Endpoint {
        let database = test_database(name);
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let toml = format!("{}[http]\nlisten = \"{at}\"\n{http}\n{toml}\n", pool_of(3));
        let tidegate = tidegate(shared_cluster(), &database, &toml);
        Endpoint { tidegate, database, at }
    }

    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}:{}@localhost/{}", password_of(user), self.database)
    }

    pub fn login(&self) -> String {
        format!("Neon-Connection-String: {}\r\n", self.url(ROLE))
    }

    /// `headers` each end with CRLF.
    #[track_caller]
    pub fn post(&self, headers: &str, body: &[u8]) -> Response {
        http::send(self.at, ("POST", "/sql"), "", headers, body).unwrap()
    }

    /// As the tests' role, whatever comes of it.
    #[track_caller]
    pub fn ask(&self, headers: &str, body: &Value) -> (u16, Value) {
        let answer = self.post(&format!("{}{headers}", self.login()), body.to_string().as_bytes());
        let read = serde_json::from_str(&answer.body);
        (answer.status, read.unwrap_or_else(|error| panic!("{answer:?}: {error}")))
    }

    /// The rows of a statement.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Value {
        let (status, mut answer) = self.ask("", &value!({ "query": sql }));
        assert_eq!(status, 200, "{answer}");
        answer["rows"].take()
    }

    /// Requests that were counted so.
    pub fn counted(&self, outcome: &str) -> u64 {
        let metrics = self.tidegate.admin_get("/metrics").body;
        let name = format!("tidegate_http_requests_total{{outcome=\"{outcome}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.parse().unwrap()
    }
}

#[test]
fn rows_have_their_types_or_are_text() {
    let endpoint = Endpoint::start("http_typed", "");
    let sql = "SELECT $1::int AS n, $2::text AS t, NULL AS none, true AS b, $3::int[] AS l, $4::jsonb AS j, 9::int8 AS big";
    let body = value!({ "query": sql, "params": [7, "a\"☃", [1, null], {"k": [1.5]}] });
    let (status, answer) = endpoint.ask("", &body);
    assert_eq!(status, 200);
    let wanted = value!({
        "n": 7, "t": "a\"☃", "none": null, "b": true, "l": [1, null], "j": {"k": [1.5]}, "big": "9",
    });
    assert_eq!(answer["rows"], value!([wanted]));
    assert_eq!((&answer["command"], &answer["rowCount"]), (&value!("SELECT"), &value!(1)));
    assert_eq!(answer["rowAsArray"], false);
    let field = &answer["fields"][0];
    assert_eq!((&field["name"], &field["dataTypeID"]), (&value!("n"), &value!(23)));
    let text = "Neon-Raw-Text-Output: true\r\nNeon-Array-Mode: true\r\n";
    let (_, answer) = endpoint.ask(text, &body);
    let wanted = value!([["7", "a\"☃", null, "t", "{1,NULL}", "{\"k\": [1.5]}", "9"]]);
    assert_eq!(answer["rows"], wanted);
    // The statement's own word goes before the header's.
    let own = value!({ "query": "SELECT 1 AS a", "arrayMode": false });
    assert_eq!(endpoint.ask(text, &own).1["rows"], value!([{"a": "1"}]));
}

#[test]
fn a_batch_is_one_transaction() {
    let endpoint = Endpoint::start("http_batch", "");
    endpoint.rows("CREATE TABLE t (id int PRIMARY KEY)");
    let batch = |queries: &[&str]| {
        let queries: Vec<Value> = queries.iter().map(|sql| value!({ "query": sql })).collect();
        value!({ "queries": queries })
    };
    let (status, answer) =
        endpoint.ask("", &batch(&["INSERT INTO t VALUES (1)", "SELECT id FROM t", ""]));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["results"][1]["rows"], value!([{"id": 1}]));
    assert_eq!(answer["results"].as_array().unwrap().len(), 3);
    let failing = batch(&["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)", "SELECT 1"]);
    let (status, answer) = endpoint.ask("", &failing);
    assert_eq!((status, &answer["code"]), (400, &value!("23505")));
    assert_eq!((&answer["table"], &answer["constraint"]), (&value!("t"), &value!("t_pkey")));
    assert_eq!(endpoint.rows("SELECT count(*)::int AS n FROM t"), value!([{"n": 1}]));
    // What is checked at the end fails at the end.
    endpoint.rows("CREATE TABLE d (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    let late = batch(&["INSERT INTO d VALUES (1), (1)", "SELECT 1"]);
    assert_eq!(endpoint.ask("", &late).1["code"], "23505");
    assert_eq!(endpoint.rows("SELECT id FROM d"), value!([]));
    let how = "Neon-Batch-Isolation-Level: RepeatableRead\r\nNeon-Batch-Read-Only: true\r\n";
    let level = "SELECT current_setting('transaction_isolation') AS level, current_setting('transaction_read_only') AS ro";
    let (_, answer) = endpoint.ask(how, &batch(&[level]));
    let wanted = value!([{"level": "repeatable read", "ro": "on"}]);
    assert_eq!(answer["results"][0]["rows"], wanted);
    let (status, answer) = endpoint.ask(how, &batch(&["INSERT INTO t VALUES (3)"]));
    assert_eq!((status, &answer["code"]), (400, &value!("25006")));
    assert_eq!(endpoint.ask("", &batch(&[])).1, value!({"results": []}));
}

#[test]
fn nothing_is_left_for_the_next_request() {
    let endpoint = Endpoint::start("http_clean", "");
    for _ in 0..3 {
        for sql in
            ["SET work_mem = '7MB'", "CREATE TEMP TABLE mine (a int)", "SELECT pg_advisory_lock(7)"]
        {
            endpoint.rows(sql);
        }
        assert_eq!(endpoint.ask("", &value!({ "query": "BEGIN" })).0, 200);
    }
    wait_until(SOON, "their servers are given up", || {
        let left = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND state LIKE 'idle in%') + (SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
             WHERE locktype = 'advisory' AND datname = current_database())";
        shared_cluster().primary().psql_in(&endpoint.database, left).unwrap() == "0"
    });
    let seen = endpoint.rows(
        "SELECT current_setting('work_mem') AS m, to_regclass('mine') AS t, pg_try_advisory_lock(7) AS l",
    );
    assert_eq!(seen, value!([{"m": "4MB", "t": null, "l": true}]));
}

#[test]
fn a_request_is_a_client_like_any_other() {
    let endpoint = Endpoint::start("http_client", "");
    let url = endpoint.url(ROLE) + "?application_name=over+http";
    let body = value!({ "query": "SELECT current_setting('application_name') AS app, current_user AS me" });
    let headers = format!("Neon-Connection-String: {url}\r\n");
    let answer = endpoint.post(&headers, body.to_string().as_bytes());
    assert!(answer.body.contains(r#"[{"app":"over http","me":"app"}]"#), "{answer:?}");
    let waiting = std::thread::scope(|scope| {
        let body = value!({ "query": "SELECT pg_sleep(60)" }).to_string();
        let headers = &headers;
        let endpoint = &endpoint;
        let asking = scope.spawn(move || endpoint.post(headers, body.as_bytes()));
        let mut seen = Value::Null;
        wait_until(SOON, "it is among the clients", || {
            let clients = json(&endpoint.tidegate, "/api/v1/clients");
            let all = clients["clients"].as_array().unwrap();
            let found = all.iter().find(|client| client["application"] == "over http");
            seen = found.cloned().unwrap_or_default();
            seen["state"] == "active"
        });
        // And is cancelled like one.
        let mut other = Client::connect(&endpoint.tidegate.url(ROLE, &endpoint.database));
        other.query(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()",
        );
        let answer = asking.join().unwrap();
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("57014"), "{answer:?}");
        seen
    });
    assert!(waiting["peer"].as_str().unwrap().starts_with("http 127.0.0.1:"), "{waiting}");
    assert_eq!(waiting["tls"], false);
}

#[test]
fn limits_answer_429_and_say_when_to_come_again() {
    let rates = "[rates]\nper_end_user = 2\nwait_max = \"off\"";
    let endpoint = Endpoint::start("http_limit", rates);
    wait_until(SOON, "the default plugins answer", || policies_answer(&endpoint.tidegate));
    let body = value!({ "query": "SELECT 2 -- two" });
    let user = "Tidegate-User-Id: 7'\r\n";
    for _ in 0..2 {
        assert_eq!(endpoint.ask(user, &body).0, 200);
    }
    let headers = format!("{}{user}", endpoint.login());
    let answer = endpoint.post(&headers, body.to_string().as_bytes());
    assert_eq!(answer.status, 429, "{answer:?}");
    let head = answer.head.to_ascii_lowercase();
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name} in {head}")).to_owned()
    };
    let seconds: u64 = header("retry-after").parse().unwrap();
    assert!((1..=61).contains(&seconds), "{seconds}");
    assert_eq!(header("ratelimit-policy"), "\"end user\";q=2;w=60");
    assert_eq!(header("ratelimit"), format!("\"end user\";r=0;t={seconds}"));
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["code"], "53400");
    assert!(told["hint"].as_str().unwrap().starts_with("Retry after"), "{told}");
    // Somebody else is not concerned, and a batch is not begun.
    assert_eq!(endpoint.ask("Tidegate-User-Id: 8\r\n", &body).0, 200);
    assert_eq!(endpoint.counted("limited"), 1);
}

#[test]
fn the_cache_answers_requests_too() {
    let endpoint = Endpoint::start("http_cache", "");
    endpoint.rows("CREATE TABLE t AS SELECT 1 AS id, 'one' AS v");
    wait_until(SOON, "policies answer", || policies_answer(&endpoint.tidegate));
    let rules = r#"{"rules": [{"table": "t", "ttl_ms": 60000}]}"#;
    let answer = endpoint.tidegate.admin_put("/api/v1/plugins/caching/config", rules);
    assert_eq!(answer.status, 200, "{answer:?}");
    let hits = || {
        let metrics = endpoint.tidegate.admin_get("/metrics").body;
        let name = "tidegate_cache_hits_total{layer=\"memory\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.parse::<u64>().unwrap()
    };
    let read = || endpoint.rows("SELECT v FROM t WHERE id = 1");
    wait_until(SOON, "a read is answered from memory", || {
        let before = hits();
        assert_eq!(read(), value!([{"v": "one"}]));
        hits() > before
    });
    endpoint.rows("UPDATE t SET v = 'two'");
    assert_eq!(read(), value!([{"v": "two"}]));
}

#[test]
fn neons_serverless_driver() {
    let endpoint = Endpoint::start("http_neon", "");
    let modules = crate::clients::installed("node/node_modules").parent().unwrap().to_owned();
    let script = crate::clients::script("neon_serverless.mjs");
    let mut node = Command::new("node");
    node.env("TIDEGATE_NODE_MODULES", modules).arg(script).arg(endpoint.url(ROLE));
    let said = crate::clients::succeed(node.arg(format!("http://{}/sql", endpoint.at)));
    assert!(said.contains("ok an_abort_ends_the_statement"), "{said}");
}

#[test]
fn a_new_process_takes_the_endpoint_over() {
    let (database, folder) = (test_database("http_handover"), Folder::new());
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let dir = folder.file("sockets");
    let toml = format!(
        "{}[http]\nlisten = \"{at}\"\n[handover]\ndir = \"{}\"\n",
        pool_of(3),
        dir.display()
    );
    let options = TidegateOptions {
        toml: Some(toml),
        ..TidegateOptions::for_cluster(shared_cluster(), &database)
    };
    let mut old = Endpoint { tidegate: Tidegate::start(options.clone()), database, at };
    let stop = AtomicBool::new(false);
    let successor = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(old.rows("SELECT 1 AS a"), value!([{"a": 1}]));
                count += 1;
            }
            count
        });
        let successor = old.tidegate.start_successor(options.clone());
        stop.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
        successor
    });
    assert_eq!(old.tidegate.wait(), 0, "nobody is left there");
    let new = Endpoint { tidegate: successor, database: old.database.clone(), at };
    assert_eq!(new.rows("SELECT 2 AS a"), value!([{"a": 2}]));
    assert!(new.counted("answered") > 0);
}

#[test]
fn who_logs_in_by_scram_may_do_so_often_and_only_with_the_password() {
    let folder = Folder::new();
    let users = folder.file("users.txt");
    std::fs::write(&users, format!("\"app\" \"{}\"\n", password_of(ROLE))).unwrap();
    let auth = format!("[auth]\nmethod = \"scram-sha-256\"\nusers_file = \"{}\"", users.display());
    let endpoint = Endpoint::start("http_scram", &auth);
    let wrong = endpoint.login().replace("app-password", "app-passwords");
    let body = value!({ "query": "SELECT current_user AS me" }).to_string();
    for _ in 0..5 {
        assert_eq!(endpoint.rows("SELECT current_user AS me"), value!([{"me": "app"}]));
        assert_eq!(endpoint.post(&wrong, body.as_bytes()).status, 401);
    }
    // What was right is right no longer.
    std::fs::write(&users, "\"app\" \"another\"\n").unwrap();
    endpoint.tidegate.reload();
    wait_until(SOON, "the old password is wrong", || {
        endpoint.post(&endpoint.login(), body.as_bytes()).status == 401
    });
}

#[test]
fn a_request_sees_what_the_one_before_has_written() {
    let endpoint = Endpoint::start("http_causal", "");
    endpoint.rows("CREATE TABLE t (n int)");
    endpoint.rows("INSERT INTO t VALUES (0)");
    // Reads may run on replicas, and each is of a client of its own.
    for n in 1..100 {
        endpoint.rows(&format!("UPDATE t SET n = {n}"));
        assert_eq!(endpoint.rows("SELECT n FROM t"), value!([{ "n": n }]));
    }
}
