//! Orders about server connections, as they come over HTTP.

use super::*;

#[test]
fn orders_about_pools_are_passed_on_with_what_they_name() {
    let api = started();
    let asked = [
        ("pause", r#"{"database": "shop", "wait_ms": 5}"#, 202),
        ("resume", "", 200),
        ("reconnect", "{}", 200),
    ];
    for (verb, body, status) in asked {
        let answer = api.send(&format!("/api/v1/{verb}"), body);
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.json()["open"], 3);
    }
    let told = api.fake.orders.lock().unwrap().clone();
    assert_eq!(told, ["pause Some(\"shop\") 5", "resume None 10000", "reconnect None 10000"]);
}

#[test]
fn an_order_that_is_not_understood_changes_nothing() {
    let api = started();
    for wrong in
        ["{", "shop", r#"{"databases": 1}"#, r#"{"database": ""}"#, r#"{"wait_ms": 10001}"#]
    {
        assert_eq!(api.send("/api/v1/pause", wrong).status, 400, "{wrong}");
    }
    assert!(api.fake.orders.lock().unwrap().is_empty());
}
