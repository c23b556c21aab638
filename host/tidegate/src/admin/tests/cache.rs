//! What is kept, as it is asked for over HTTP.

use super::*;
use tidegate_cache::{Bounds, Entries, Entry};

/// Entries as the process keeps them; of invalidations, what was ordered.
pub(super) fn entries() -> Mutex<Entries> {
    let bounds = Bounds { entries: 3, bytes: 10_000, ttl: Duration::from_secs(100) };
    Mutex::new(Entries::new(bounds))
}

impl CacheControl for Fake {
    fn cache(&self) -> CacheReport {
        CacheReport { keeping: true, ..CacheReport::default() }
    }

    fn invalidate(&self, what: Invalidation, _: Who) -> Answer<Result<Invalidated, NotDone>> {
        self.orders.lock().unwrap().push(format!("{what:?}"));
        Box::pin(std::future::ready(match &what.table {
            Some(table) if table == "nobody" => Err(NotDone::Unknown("no such table".to_owned())),
            Some(table) if table == "lost" => Err(NotDone::Unshared("Redis is lost".to_owned())),
            _ => Ok(Invalidated { entries: 2, versions: 1 }),
        }))
    }

    fn warm(&self, question: WarmQuestion, _: Who) -> Answer<Result<WarmReport, String>> {
        self.orders.lock().unwrap().push(format!("{question:?}"));
        let (statements, stranger) = (question.statements.len(), question.user.is_some());
        Box::pin(async move {
            let report = WarmReport { statements, kept: statements, ..WarmReport::default() };
            if stranger { Err("nobody knows it".to_owned()) } else { Ok(report) }
        })
    }

    fn entry(&self, name: Arc<str>) -> Answer<Result<Option<Entry>, NotDone>> {
        let found = self.entries.lock().unwrap().get(&name, Instant::now());
        Box::pin(std::future::ready(Ok(found)))
    }

    fn put_entry(
        &self,
        name: Arc<str>,
        entry: Entry,
        ttl: Duration,
    ) -> Answer<Result<bool, NotDone>> {
        let put = self.entries.lock().unwrap().put(&name, entry, ttl, Instant::now());
        Box::pin(std::future::ready(Ok(put)))
    }

    fn remove_entry(&self, name: Arc<str>) -> Answer<Result<bool, NotDone>> {
        let removed = self.entries.lock().unwrap().remove(&name);
        Box::pin(std::future::ready(Ok(removed)))
    }
}

impl Api {
    fn entry(&self, method: &str, path: &str, headers: &str, body: &str) -> Answered {
        let length = body.len();
        let request = format!(
            "{method} /api/v1/cache/entries/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: Bearer {TOKEN}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        self.exchange(request.as_bytes())
    }
}

#[test]
fn an_entry_is_what_was_put_until_it_is_taken() {
    let api = started();
    assert_eq!(api.entry("GET", "user%3A7", "", "").status, 404);
    let json = "Content-Type: application/json\r\n";
    let put = api.entry("PUT", "user%3A7?ttl_ms=50000&tag=users&tag=a%20b", json, "{\"n\": 1}");
    assert_eq!(put.status, 204, "{}", put.body);
    let found = api.entry("GET", "user%3A7", "", "");
    assert_eq!((found.status, found.body.as_str()), (200, "{\"n\": 1}"));
    assert!(found.head.contains("content-type: application/json"), "{}", found.head);
    assert!(found.head.contains("tidegate-tags: a b,users"), "{}", found.head);
    let ttl = found.head.lines().find_map(|line| line.strip_prefix("tidegate-ttl-ms: ")).unwrap();
    assert!((1..=50_000).contains(&ttl.parse::<u64>().unwrap()), "{ttl}");
    assert_eq!(api.entry("DELETE", "user%3A7", "", "").status, 204);
    assert_eq!(api.entry("DELETE", "user%3A7", "", "").status, 404);
    assert_eq!(api.entry("GET", "user%3A7", "", "").status, 404);
}

#[test]
fn what_is_no_entry_is_not_kept() {
    let api = started();
    let long = "x".repeat(257);
    for path in ["a?ttl_ms=0", "a?ttl_ms=x", "a?ttl=1", "a%00", "a%2Cb", "%zz", "a?tag=", &long] {
        assert_eq!(api.entry("PUT", path, "", "v").status, 400, "{path}");
    }
    let tags: String = (0..65).map(|n| format!("&tag={n}")).collect();
    assert_eq!(api.entry("PUT", &format!("a?ttl_ms=1{tags}"), "", "v").status, 400);
    assert_eq!(api.entry("PUT", "a", "", &"v".repeat(20_000)).status, 413);
    assert_eq!(api.entry("PUT", "a", "", &"v".repeat((1 << 20) + 1)).status, 413);
    assert_eq!(api.entry("PUT", "a/b", "", "v").status, 404);
    assert!(api.fake.entries.lock().unwrap().is_empty());
}

#[test]
fn an_invalidation_names_one_thing() {
    let api = started();
    let send = |body: &str| api.send("/api/v1/cache/invalidate", body);
    let good = send(r#"{"table": "public.t*", "database": "shop"}"#);
    assert_eq!((good.status, &good.json()["entries"]), (200, &2.into()), "{}", good.body);
    assert_eq!(send(r#"{"all": true}"#).status, 200);
    assert_eq!(send(r#"{"table": "nobody"}"#).status, 404);
    assert_eq!(send(r#"{"table": "lost"}"#).status, 503);
    let ordered = api.fake.orders.lock().unwrap().len();
    for wrong in [
        "",
        "{}",
        r#"{"key": "a", "tag": "b"}"#,
        r#"{"database": "shop"}"#,
        r#"{"pattern": ""}"#,
        r#"{"pattern": "[a"}"#,
        r#"{"tables": "a"}"#,
        r#"{"all": false}"#,
    ] {
        assert_eq!(send(wrong).status, 400, "{wrong}");
    }
    let long = format!(r#"{{"pattern": "{}"}}"#, "*a".repeat(200));
    assert_eq!(send(&long).status, 400);
    assert_eq!(api.fake.orders.lock().unwrap().len(), ordered);
}

#[test]
fn what_is_to_be_warmed_is_checked_before_it_is_ordered() {
    let api = started();
    let warm = |body: &str| api.send("/api/v1/cache/warm", body);
    for body in [
        "",
        "[]",
        "{}",
        r#"{"statements": []}"#,
        r#"{"statements": ["a"], "x": 1}"#,
        r#"{"statements": ["a\u0000"]}"#,
    ] {
        assert_eq!(warm(body).status, 400, "{body}");
    }
    assert_eq!(warm(r#"{"statements": ["SELECT 1"], "user": "x"}"#).status, 409);
    let answer =
        warm(r#"{"statements": ["SELECT 1", "SELECT 2"], "settings": {"TimeZone": "UTC"}}"#);
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert!(answer.body.contains(r#""kept":2"#), "{}", answer.body);
}
