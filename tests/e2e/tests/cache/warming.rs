//! Answers that are there before anybody asks: by the configuration at start, and by order of an operator.

use super::{CONFIG, Kept, SCHEMA, With};
use crate::own::SOON;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, TidegateOptions, shared_cluster, wait_until};

#[test]
fn named_statements_are_there_before_anybody_asks() {
    let mut kept = Kept::start(shared_cluster(), "cache_warming", SCHEMA, With::ThePrimary);
    let (t, u) = ("SELECT sum(v) FROM t", "SELECT count(*) FROM u");
    let question = json!({
        "database": kept.database,
        "statements": [t, u, "SELECT random() FROM t", "SELECT 1 / (v - v) FROM t", "SELECT 1", t],
    });
    let answer = kept.tidegate.admin_post("/api/v1/cache/warm", &question.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    let report: Value = serde_json::from_str(&answer.body).unwrap();
    // Of the same twice one waits for the other, or is there already.
    let both = report["kept"].as_u64().unwrap() + report["there"].as_u64().unwrap();
    assert_eq!((both, &report["statements"]), (3, &json!(6)), "{report}");
    let mut reasons = report["not_kept"].as_array().unwrap().clone();
    reasons.sort_by_key(|not| not["statement"].as_u64());
    let told: Vec<(u64, &str)> = reasons
        .iter()
        .map(|not| (not["statement"].as_u64().unwrap(), not["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(told[0], (3, "not kept: volatile function (R4)"), "{report}");
    assert_eq!(told[1], (4, "it fails"), "{report}");
    assert!(told[2].0 == 5 && told[2].1.contains("policy"), "{report}");
    let mut client = kept.connect();
    for sql in [t, u] {
        assert!(!kept.runs(&mut client, sql), "{sql}");
    }
    assert!(kept.counter("tidegate_cache_warmed_total") >= 2);
    // Clients of other settings find theirs when they are asked for so.
    let mut utc = Client::connect_with(
        &kept.tidegate.url(ROLE, &kept.database),
        &[("user", ROLE), ("database", &kept.database), ("DateStyle", "German")],
    );
    assert!(kept.runs(&mut utc, "SELECT max(v) FROM t"));
    let text = format!("-- of two lines\n\nSELECT min(d) FROM t\n{t}\n");
    let file = file("cache_warming.sql", &text);
    let arguments = ["cache", "warm", "--database", &kept.database, "--set", "DateStyle=German"];
    let (code, said) =
        kept.tidegate.command(&[&arguments[..], &["--file", file.to_str().unwrap()]].concat());
    assert_eq!((code, said.as_str()), (0, "2 kept, 0 were there\n"));
    assert!(!kept.runs(&mut utc, "SELECT min(d) FROM t"));
    assert!(kept.runs(&mut client, "SELECT min(d) FROM t"));
    // Nobody whom nobody knows.
    let stranger = json!({"user": "warm_stranger", "database": kept.database, "statements": [t]});
    let answer = kept.tidegate.admin_post("/api/v1/cache/warm", &stranger.to_string());
    assert!(answer.status == 409 && answer.body.contains("no password"), "{answer:?}");
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = shared_cluster().directory().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn what_the_configuration_names_is_there_after_a_start() {
    let mut kept = Kept::start(shared_cluster(), "cache_warm_start", SCHEMA, With::ThePrimary);
    let file = file("cache_warm_start.sql", "SELECT count(*) FROM u\n");
    let config = format!(
        "{CONFIG}[[cache.warm]]\nstatements = [\"SELECT sum(v) FROM t\"]\nfile = {file:?}\n"
    );
    let mut options = TidegateOptions::for_cluster(shared_cluster(), &kept.database);
    options.replicas.clear();
    options.toml = Some(config);
    kept.tidegate = tidegate_test_support::Tidegate::start(options);
    wait_until(SOON, "policies answer", || crate::own::policies_answer(&kept.tidegate));
    let rules = r#"{"rules": [{"table": "t", "ttl_ms": 60000}, {"table": "u", "ttl_ms": 60000}]}"#;
    let answer = kept.tidegate.admin_put("/api/v1/plugins/caching/config", rules);
    assert_eq!(answer.status, 200, "{answer:?}");
    wait_until(SOON, "answers are warmed", || kept.counter("tidegate_cache_warmed_total") == 2);
    let mut client = kept.connect();
    for sql in ["SELECT sum(v) FROM t", "SELECT count(*) FROM u"] {
        assert!(!kept.runs(&mut client, sql), "{sql}");
    }
}
