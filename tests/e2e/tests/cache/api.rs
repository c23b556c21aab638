//! The cache as an API: what is told of it, what takes answers, entries of an application's own.

use super::{Kept, SCHEMA, With};
use crate::own::json;
use serde_json::{Value, json as value};
use tidegate_test_support::http;
use tidegate_test_support::tidegate::TOKEN;
use tidegate_test_support::{Client, pipeline, shared_cluster};

fn invalidate(kept: &Kept, what: &Value) -> (u16, Value) {
    let answer = kept.tidegate.admin_post("/api/v1/cache/invalidate", &what.to_string());
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

fn shown(client: &mut Client) -> String {
    client.value("SHOW tidegate.cache").unwrap()
}

#[test]
fn answers_are_taken_by_table_pattern_and_altogether() {
    let mut kept = Kept::start(shared_cluster(), "cache_api", SCHEMA, With::ThePrimary);
    let mut client = kept.connect();
    let database = kept.database.clone();
    let (t, u) = ("SELECT v FROM t WHERE id = 1", "SELECT count(*) FROM u");
    for (what, takes_t, takes_u) in [
        (value!({"table": "t", "database": database}), true, false),
        (value!({"table": "public.u"}), false, true),
        (value!({"table": "public.?"}), true, true),
        (value!({"table": "other.t*"}), false, false),
        (value!({"table": "nowhere"}), false, false),
        (value!({"all": true, "database": database}), true, true),
        (value!({"all": true}), true, true),
        (value!({"tag": "users"}), false, false),
        (value!({"pattern": "*"}), false, false),
    ] {
        for sql in [t, u] {
            kept.runs(&mut client, sql);
            assert!(!kept.runs(&mut client, sql), "{sql} is kept before {what}");
        }
        let (status, told) = invalidate(&kept, &what);
        let is_known = what["table"] != "other.t*" && what["table"] != "nowhere";
        assert_eq!(status == 200, is_known, "{what}: {told}");
        assert_eq!(kept.runs(&mut client, t), takes_t, "{what}");
        assert_eq!(kept.runs(&mut client, u), takes_u, "{what}");
    }
    let (status, told) = invalidate(&kept, &value!({"table": "t", "database": "no_such"}));
    assert_eq!(status, 404, "{told}");
    let (code, said) = kept.tidegate.command(&["cache", "invalidate", "--table", "t"]);
    assert_eq!((code, said.as_str()), (0, "answers of 1 tables taken\n"));
    assert!(kept.runs(&mut client, t));
}

#[test]
fn answers_are_taken_by_the_tags_that_the_policy_gives_them() {
    let mut kept = Kept::start(shared_cluster(), "cache_tags", SCHEMA, With::ThePrimary);
    let rules = value!({"rules": [
        {"table": "t", "ttl_ms": 60000, "row": "id", "tags": ["board"]},
        {"table": "u", "ttl_ms": 60000, "takes": ["board"]},
        {"table": "fa", "ttl_ms": 60000},
    ]});
    let answer = kept.tidegate.admin_put("/api/v1/plugins/caching/config", &rules.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    kept.wait_until_kept();
    let mut client = kept.connect();
    let by_id = |client: &mut Client, id: &str| {
        let parse = pipeline().parse("", "SELECT v FROM t WHERE id = $1", &[23]);
        client.send(parse.bind("", "", &[Some(id)]).execute("").sync());
        client.expect("1 2 D C ZI");
        shown(client) == "hit"
    };
    let of = |client: &mut Client, sql: &str| {
        client.query(sql);
        shown(client) == "hit"
    };
    let (all, other) = ("SELECT sum(v) FROM t", "SELECT sum(v) FROM fa");
    let found = |client: &mut Client| {
        [by_id(client, "1"), by_id(client, "2"), of(client, all), of(client, other)]
    };
    for (tag, left) in [
        ("t:row:1", [false, true, true, true]),
        ("t:rows", [false, false, true, true]),
        ("t:any", [true, true, false, true]),
        ("board", [false, false, false, true]),
        ("t:row:3", [true, true, true, true]),
    ] {
        found(&mut client);
        assert_eq!(found(&mut client), [true; 4], "before {tag}");
        let (status, told) = invalidate(&kept, &value!({"tag": tag, "database": kept.database}));
        assert_eq!(status, 200, "{told}");
        assert_eq!(found(&mut client), left, "{tag}");
    }
    // A write of one table takes what the policy says, of another: and nothing else.
    assert_eq!(found(&mut client), [true; 4]);
    client.query("INSERT INTO u (id, v) VALUES (4711, 1)");
    assert_eq!(found(&mut client), [false, false, false, true]);
}

#[test]
fn a_session_is_told_what_the_cache_had_to_do_with_its_last_statement() {
    let mut kept = Kept::start(shared_cluster(), "cache_show", SCHEMA, With::ThePrimary);
    let mut client = kept.connect();
    assert!(shown(&mut client).starts_with("not looked for"));
    let sql = "SELECT v FROM t WHERE id = 3";
    kept.runs(&mut client, sql);
    assert_eq!(shown(&mut client), "miss");
    assert_eq!(shown(&mut client), "miss", "the question is no statement");
    assert!(!kept.runs(&mut client, sql));
    assert_eq!(shown(&mut client), "hit");
    client.query("SELECT random(), v FROM t");
    assert_eq!(shown(&mut client), "not kept: volatile function (R4)");
    client.query("SELECT 1");
    assert!(shown(&mut client).starts_with("not kept: the caching policy"), "no table of a rule");
    // What is not looked for: writes within, and what is off.
    kept.runs(&mut client, sql);
    client.query("UPDATE t SET v = v WHERE id = 3");
    let after_a_write = shown(&mut client);
    assert!(after_a_write.starts_with("not kept"), "{after_a_write}");
    client.query("SET tidegate.cache = 'off'");
    client.query(sql);
    assert!(shown(&mut client).starts_with("not looked for"));
    client.query("RESET tidegate.cache");
    // As a driver asks that binds everything.
    kept.runs(&mut client, sql);
    let batch = pipeline()
        .parse("", "SHOW tidegate.cache", &[])
        .bind("", "", &[])
        .describe(tidegate_test_support::pipeline::Of::Portal(""))
        .execute("")
        .sync();
    client.send(batch);
    let answer = client.expect("1 2 T D C ZI");
    assert!(answer[3].row()[0].as_deref().is_some_and(|told| !told.is_empty()));
}

#[test]
fn it_is_told_how_often_each_rule_has_helped() {
    let mut kept = Kept::start(shared_cluster(), "cache_rules", SCHEMA, With::ThePrimary);
    let mut client = kept.connect();
    let of = |kept: &Kept, tables: &[&str]| {
        let report = json(&kept.tidegate, "/api/v1/cache");
        let rules = report["rules"].as_array().unwrap().clone();
        let rule = rules.into_iter().find(|rule| rule["tables"] == value!(tables));
        let rule = rule.unwrap_or_default();
        let number = |name: &str| rule[name].as_u64().unwrap_or(0);
        (number("hits"), number("misses"), number("denied"))
    };
    let before = of(&kept, &["t", "u"]);
    let sql = "SELECT count(*) FROM t JOIN u ON true";
    kept.runs(&mut client, sql);
    kept.runs(&mut client, sql);
    client.query("SELECT random() FROM u, t");
    let (hits, misses, denied) = of(&kept, &["t", "u"]);
    assert_eq!((hits - before.0, misses - before.1, denied - before.2), (1, 1, 1));
    let report = json(&kept.tidegate, "/api/v1/cache");
    assert_eq!(report["keeping"], true);
    assert!(report["denied"].as_array().unwrap().iter().any(|why| why["rule"] == "R4"), "{report}");
    let (code, said) = kept.tidegate.command(&["cache", "stats"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{}: t, u", kept.database)), "{said}");
}

#[test]
fn entries_of_an_application_are_kept_and_taken() {
    let kept = Kept::start(shared_cluster(), "cache_entries", SCHEMA, With::ThePrimary);
    let ask = |method: &str, path: &str, body: &str| {
        let path = format!("/api/v1/cache/entries/{path}");
        let answer =
            http::send(kept.tidegate.admin_address(), (method, &path), TOKEN, "", body.as_bytes());
        answer.map(|answer| (answer.status, answer.body)).unwrap()
    };
    for n in 0..5 {
        let path = format!("session:{n}?ttl_ms=60000&tag=user-{}", n % 2);
        assert_eq!(ask("PUT", &path, &format!("value {n}")).0, 204);
    }
    assert_eq!(ask("GET", "session:3", ""), (200, "value 3".to_owned()));
    assert_eq!(invalidate(&kept, &value!({"tag": "user-1"})).1["entries"], 2);
    assert_eq!(ask("GET", "session:3", "").0, 404);
    assert_eq!(invalidate(&kept, &value!({"key": "session:0"})).1["entries"], 1);
    assert_eq!(invalidate(&kept, &value!({"pattern": "session:[0-9]"})).1["entries"], 2);
    assert_eq!(ask("PUT", "short?ttl_ms=1", "x").0, 204);
    tidegate_test_support::wait_until(crate::own::SOON, "it ends", || {
        ask("GET", "short", "").0 == 404
    });
    let report = json(&kept.tidegate, "/api/v1/cache");
    assert_eq!(report["entries"]["puts"], 6);
    assert_eq!(report["entries"]["invalidations"], 5);
    // Without the token nothing is told.
    let path = "/api/v1/cache/entries/a";
    let answer = http::request(kept.tidegate.admin_address(), "GET", path, "", "").unwrap();
    assert_eq!(answer.status, 401);
}
