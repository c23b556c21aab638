//! Orders about plugins, as they come over HTTP and as they are answered.

use super::*;

impl Api {
    fn put(&self, path: &str, headers: &str, body: &[u8]) -> Answered {
        let mut request = format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             {headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.exchange(&request)
    }

    fn ordered(&self) -> Vec<String> {
        std::mem::take(&mut *self.fake.orders.lock().unwrap())
    }
}

const ROUTING: &str = "/api/v1/plugins/routing";

#[test]
fn uploads_and_settings_become_orders() {
    let api = started();
    let answered = api.put(ROUTING, "Tidegate-Config: {\"a\": \"ä\"}\r\n", &[0; 100_000]);
    assert_eq!((answered.status, &answered.json()["slots"][0]["slot"]), (200, &"routing".into()));
    assert_eq!(api.put(&format!("{ROUTING}?mode=shadow"), "", b"12345678").status, 200);
    assert_eq!(api.put(&format!("{ROUTING}/config?mode=canary&share=5"), "", b"{}").status, 200);
    assert_eq!(
        api.ordered(),
        [
            "upload routing 100000 activate {\"a\": \"ä\"}",
            "upload routing 8 shadow",
            "configure routing canary {}"
        ]
    );
}

#[test]
fn orders_without_a_body_name_their_slots() {
    let api = started();
    for order in ["promote", "withdraw", "rollback", "disable"] {
        assert_eq!(api.post(&format!("/api/v1/plugins/caching/{order}")).status, 200);
    }
    assert_eq!(api.post("/api/v1/plugins/promote?slots=caching,routing,caching").status, 200);
    let ordered = ["promote caching", "withdraw caching", "rollback caching", "disable caching"];
    assert_eq!(api.ordered()[..4], ordered);
}

#[test]
fn what_is_not_understood_orders_nothing() {
    let api = started();
    for query in ["mode=x", "share=5", "mode=shadow&share=0", "mode=canary&share=101", "other=1"] {
        assert_eq!(api.put(&format!("{ROUTING}?{query}"), "", b"").status, 400, "{query}");
    }
    for slot in ["nothing", "Routing", "routing/x"] {
        assert_eq!(api.put(&format!("/api/v1/plugins/{slot}"), "", b"").status, 404, "{slot}");
    }
    for query in ["", "?slots=", "?slots=x", "?routing"] {
        let status = api.post(&format!("/api/v1/plugins/promote{query}")).status;
        assert!(matches!(status, 400 | 404), "{query}: {status}");
    }
    let bad = api.put(ROUTING, "Tidegate-Config: [1]\r\n", b"");
    assert_eq!((bad.status, &bad.json()["check"]), (422, &"settings".into()));
    let bad = api.put(&format!("{ROUTING}/config"), "", b"\xff");
    assert_eq!((bad.status, &bad.json()["check"]), (422, &"settings".into()));
    let bad = api.put(ROUTING, "Tidegate-Signature: AAAA\r\n", b"");
    assert_eq!((bad.status, &bad.json()["check"]), (422, &"signature".into()));
    let method = api.post(ROUTING);
    assert_eq!(method.status, 405);
    assert!(method.head.contains("allow: get, put"), "{}", method.head);
    assert_eq!(api.ordered(), Vec::<String>::new());
}

#[test]
fn uploads_that_are_too_large_or_cut_off_order_nothing() {
    let api = started();
    let head = format!(
        "PUT {ROUTING} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
    );
    let large = format!("{head}Content-Length: {}\r\n\r\n", (32 << 20) + 1);
    let large = api.exchange(large.as_bytes());
    assert_eq!((large.status, &large.json()["check"]), (413, &"size".into()));
    let mut cut = api.connect();
    cut.write_all(format!("{head}Content-Length: 1000\r\n\r\n123").as_bytes()).unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(answer(&mut cut).status, 0 | 400));
    assert_eq!(api.ordered(), Vec::<String>::new());
}

#[test]
fn a_refusal_says_what_is_wrong_and_which_check_failed() {
    let api = started();
    let cases = [
        (RefusalKind::Check("world"), 422, "world".into()),
        (RefusalKind::Check("size"), 422, "size".into()),
        (RefusalKind::TooLarge, 413, "size".into()),
        (RefusalKind::Conflict, 409, serde_json::Value::Null),
        (RefusalKind::Busy, 503, serde_json::Value::Null),
        (RefusalKind::Storage, 507, serde_json::Value::Null),
    ];
    for (kind, status, check) in cases {
        let detail = "the plugin's own words".to_owned();
        *api.fake.refusal.lock().unwrap() = Some(Refusal { kind, detail });
        let answered = api.put(ROUTING, "", b"12345678");
        assert_eq!((answered.status, &answered.json()["check"]), (status, &check));
        assert_eq!(answered.json()["detail"], "the plugin's own words");
        assert!(answered.head.contains("application/problem+json"), "{}", answered.head);
    }
}
