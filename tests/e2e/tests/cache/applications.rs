//! Entries that applications put, where two Tidegates share a Redis.

use super::shared::{BRISK, LONG, Pair, USERS};
use crate::own::json;
use serde_json::{Value, json as value};
use tidegate_test_support::tidegate::TOKEN;
use tidegate_test_support::{Redis, http, wait_until};

/// The status, and the body.
fn ask(pair: &Pair, which: usize, method: &str, path: &str, body: &str) -> (u16, String) {
    let path = format!("/api/v1/cache/entries/{path}");
    let address = pair.both[which].admin_address();
    let answer = http::send(address, (method, &path), TOKEN, "", body.as_bytes()).unwrap();
    (answer.status, answer.body)
}

/// How many entries that took.
fn invalidate(pair: &Pair, which: usize, what: &Value) -> Value {
    let answer = pair.both[which].admin_post("/api/v1/cache/invalidate", &what.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str::<Value>(&answer.body).unwrap()["entries"].clone()
}

#[test]
fn entries_are_the_same_for_all_who_share_and_nothing_that_was_taken_comes_back() {
    let mut redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_entries", BRISK);
    for n in 0..6 {
        let path = format!("session:{n}?ttl_ms=60000&tag=user-{}&tag=all", n % 2);
        assert_eq!(ask(&pair, n % 2, "PUT", &path, &format!("value {n}")).0, 204);
    }
    for which in [0, 1] {
        assert_eq!(ask(&pair, which, "GET", "session:3", ""), (200, "value 3".to_owned()));
        assert_eq!(ask(&pair, which, "GET", "session:9", "").0, 404);
    }
    assert_eq!(ask(&pair, 1, "PUT", "session:3?ttl_ms=60000&tag=user-0", "another").0, 204);
    assert_eq!(ask(&pair, 0, "GET", "session:3", "").1, "another");
    assert_eq!(invalidate(&pair, 0, &value!({"tag": "user-1"})), 2, "1 and 5, not 3");
    assert_eq!(ask(&pair, 1, "GET", "session:1", "").0, 404);
    assert_eq!(ask(&pair, 1, "DELETE", "session:0", "").0, 204);
    assert_eq!(ask(&pair, 0, "DELETE", "session:0", "").0, 404);
    assert_eq!(invalidate(&pair, 1, &value!({"key": "session:2"})), 1);
    assert_eq!(invalidate(&pair, 0, &value!({"pattern": "session:[3-9]"})), 2);
    assert_eq!(ask(&pair, 0, "PUT", "short?ttl_ms=1", "x").0, 204);
    wait_until(LONG, "it ends", || ask(&pair, 1, "GET", "short", "").0 == 404);
    let large = "x".repeat(1 << 20);
    assert_eq!(ask(&pair, 0, "PUT", "large", &large).0, 204);
    assert!(ask(&pair, 1, "GET", "large", "") == (200, large));
    assert_eq!(json(&pair.both[0], "/api/v1/cache")["entries"]["entries"], 1);
    assert_eq!(invalidate(&pair, 1, &value!({"all": true})), 1);
    assert_eq!(ask(&pair, 0, "GET", "large", "").0, 404);
    // What cannot be told is refused, and what a wipe has lost is lost for all.
    assert_eq!(ask(&pair, 0, "PUT", "kept", "1").0, 204);
    redis.kill();
    wait_until(LONG, "it is refused", || ask(&pair, 0, "GET", "kept", "").0 == 503);
    assert_eq!(ask(&pair, 1, "DELETE", "kept", "").0, 503);
    redis.start_again();
    pair.wait_until_shared();
    assert_eq!(ask(&pair, 1, "GET", "kept", "").0, 404);
    assert_eq!(ask(&pair, 0, "PUT", "kept", "2").0, 204);
    assert_eq!(ask(&pair, 1, "GET", "kept", ""), (200, "2".to_owned()));
}
