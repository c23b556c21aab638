//! What runs is recorded while somebody asks for it, and a plugin's answers are compared with what was.

use crate::own::{SOON, policies_answer, pool_of, tidegate};
use crate::plugins::plugin_path;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, pipeline, shared_cluster, test_database, wait_until};

/// Statements of every kind, in a loop that ends when the record has.
fn traffic(url: &str, done: &AtomicBool) {
    let mut client = Client::connect(url);
    client.query("CREATE TABLE IF NOT EXISTS kept (id int PRIMARY KEY, secret text)");
    client.query("SET tidegate.user_id = 'hunter-the-end-user'");
    let mut id = 0;
    while !done.load(Ordering::Relaxed) {
        id += 1;
        client.query(&format!("INSERT INTO kept VALUES ({id}, 'hunter2')"));
        client.query("INSERT INTO kept VALUES (1, 'hunter3')");
        client.value("SELECT secret FROM kept WHERE id = 1 /*route='primary'*/");
        let named = pipeline().parse("", "UPDATE kept SET secret = $1 WHERE id = $2", &[]);
        let bound = named.bind("", "", &[Some("hunter4"), Some("1")]).execute("").sync();
        client.send(bound);
        client.read_until_ready();
        client.query("BEGIN; COMMIT");
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_runs_is_recorded_without_what_it_holds_and_replayed() {
    let database = test_database("recording");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(4));
    wait_until(SOON, "the default plugins answer", || policies_answer(&tidegate));
    let (url, done) = (tidegate.url(ROLE, &database), AtomicBool::new(false));
    let told = thread::scope(|scope| {
        scope.spawn(|| traffic(&url, &done));
        let arguments = ["record", "--seconds", "60", "--most", "200", "--out", "recorded.jsonl"];
        let told = tidegate.command(&arguments);
        done.store(true, Ordering::Relaxed);
        told
    });
    assert_eq!(told.0, 0, "{told:?}");
    let text = tidegate.read("recorded.jsonl");
    assert!(!text.contains("hunter"), "{text}");
    let all = lines(&text);
    let (head, end) = (&all[0], &all[all.len() - 1]["end"]);
    assert_eq!(head["tidegate_record"], 1);
    let of = |what: &str, error: Option<&str>| {
        let found = all.iter().find(|line| {
            line["normalized"].as_str().is_some_and(|sql| sql.contains(what))
                && line["error"].as_str() == error
        });
        found.unwrap_or_else(|| panic!("{what} {error:?}: {text}"))
    };
    let insert = of("INSERT", None);
    assert_eq!(insert["tables"][0]["name"], "kept");
    assert_eq!(
        (insert["access"].as_str(), insert["server"].as_str()),
        (Some("writes"), Some("primary"))
    );
    assert!(insert["count"].as_u64() > Some(20) && insert["mean_us"].as_u64() > Some(0));
    assert_eq!(insert["end_user"].as_str().map(str::len), Some(16));
    assert_eq!(of("INSERT", Some("23505"))["user"], ROLE);
    let update = of("UPDATE", None);
    assert_eq!(update["parameters"], 2);
    assert!(update["count"].as_u64() > Some(20), "{update}");
    let read = of("SELECT", None);
    assert_eq!(read["tags"][0], serde_json::json!(["route", "primary"]));
    assert!(read["cache"].as_str().is_some_and(|plan| plan.starts_with("bypass")), "{read}");
    assert!(end["executions"].as_u64() >= Some(200), "{end}");
    let counted: u64 = all.iter().filter_map(|line| line["count"].as_u64()).sum();
    assert_eq!(end["executions"], counted);
    assert_eq!(end["dropped"], 0);
    assert!(tidegate.log().contains("tidegate::audit"), "{}", tidegate.log_tail());

    let path = plugin_path("cache_tables").display().to_string();
    let replay = ["replay", "caching", &path, "--trace", "recorded.jsonl", "--settings"];
    let rules = r#"{"rules": [{"table": "kept", "ttl_ms": 1000}]}"#;
    let (code, told) = tidegate.plugin_command(&[&replay[..], &[rules]].concat());
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("after:  store 1000 ms"), "{told}");
    let (code, told) = tidegate.plugin_command(&[&replay[..], &["{}"]].concat());
    assert_eq!(code, 0, "{told}");
    let hostile = plugin_path("hostile_routing").display().to_string();
    let failing = ["replay", "routing", &hostile, "--trace", "recorded.jsonl", "--settings"];
    let (code, told) = tidegate.plugin_command(&[&failing[..], &[r#"{"plan": "panic"}"#]].concat());
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("after:  fault: trap") && told.contains("have no answer"), "{told}");
    let (code, told) =
        tidegate.plugin_command(&["replay", "routing", &path, "--trace", "recorded.jsonl"]);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("world"), "{told}");
}

#[test]
fn one_records_at_a_time_and_who_goes_away_ends_it() {
    let database = test_database("recording_alone");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    let mut first = std::net::TcpStream::connect(tidegate.admin_address()).unwrap();
    let token = tidegate_test_support::tidegate::TOKEN;
    let request = format!(
        "POST /api/v1/record?seconds=100 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    std::io::Write::write_all(&mut first, request.as_bytes()).unwrap();
    let record = || tidegate.admin_post("/api/v1/record?seconds=1", "").status;
    wait_until(SOON, "it is recorded", || record() == 409);
    drop(first);
    wait_until(SOON, "the record has ended", || record() == 200);
}
