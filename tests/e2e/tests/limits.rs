//! Rates: who is refused, what that looks like to a client, and what a policy changes while statements run.

mod clustered; // counts in a Redis Cluster
mod function; // the function in Redis beside its reference
mod shared; // two Tidegates that count together

use crate::own::{SOON, json, policies_answer, pool_of, tidegate, wait_for_state};
use std::time::{Duration, Instant};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, http, pipeline, shared_cluster, test_database, wait_until,
};

fn started(name: &str, rates: &str) -> (Tidegate, String) {
    let database = test_database(name);
    let toml = format!("{}[rates]\n{rates}\n", pool_of(2));
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    wait_until(SOON, "the default plugins answer", || policies_answer(&tidegate));
    let url = tidegate.url(ROLE, &database);
    (tidegate, url)
}

/// The SQLSTATE of a statement's error.
fn sqlstate(client: &mut Client, sql: &str) -> Option<String> {
    let replies = client.query(sql);
    replies.iter().filter(|reply| reply.tag == b'E').find_map(|reply| reply.field(b'C'))
}

fn refusals(tidegate: &Tidegate) -> bool {
    let metrics = tidegate.admin_get("/metrics").body;
    metrics.lines().any(|line| {
        line.starts_with("tidegate_errors_total")
            && line.contains("rate_limited")
            && !line.ends_with(" 0")
    })
}

#[test]
fn trap_116_an_end_user_over_its_limit_is_refused_and_told_when_to_come_again() {
    let (tidegate, url) = started("limits_user", "per_end_user = 3\nwait_max = \"off\"");
    let mut client = Client::connect(&url);
    // By a comment, in two spellings, and by a setting: one and the same user.
    assert_eq!(sqlstate(&mut client, "SELECT 2 /* user_id='7' */"), None);
    assert_eq!(sqlstate(&mut client, "/*user_id:7*/ SELECT 3"), None);
    client.query("SET tidegate.user_id = '7'");
    assert_eq!(sqlstate(&mut client, "SELECT 4"), None);
    let replies = client.query("SELECT 5");
    let error = &replies[0];
    assert_eq!(error.field(b'C').as_deref(), Some("53400"));
    assert_eq!(error.field(b'S').as_deref(), Some("ERROR"));
    let message = error.field(b'M').unwrap();
    assert_eq!(message, "rate limit \"end user\" exceeded: 3 statements in 60 s");
    let detail = error.field(b'D').unwrap();
    assert!(detail.contains("limit=3 window_s=60 remaining=0 retry_after_ms="), "{detail}");
    assert!(error.field(b'H').unwrap().starts_with("Retry after "));
    // The connection lives, and others are not concerned: another user, and the application itself.
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    assert_eq!(sqlstate(&mut client, "SELECT 2 /* user_id='8' */"), None);
    client.query("RESET tidegate.user_id");
    for _ in 0..5 {
        assert_eq!(sqlstate(&mut client, "SELECT 2"), None);
    }
    let mut other = Client::connect(&url);
    assert_eq!(sqlstate(&mut other, "SELECT 2 /* user_id='7' */").as_deref(), Some("53400"));
    drop(client);
    drop(other);
    wait_until(SOON, "the refusals are counted", || refusals(&tidegate));
}

#[test]
fn a_refused_batch_ends_at_its_sync_and_a_transaction_is_never_broken() {
    let (_tidegate, url) = started("limits_batch", "all = 2\nwait_max = \"off\"");
    let mut client = Client::connect(&url);
    client.send(pipeline().query("BEGIN"));
    client.expect("C ZT");
    for _ in 0..4 {
        client.send(pipeline().query("SELECT 2"));
        client.expect("T D C ZT");
    }
    client.send(pipeline().query("COMMIT"));
    client.expect("C ZI");
    let batch = || pipeline().parse("", "SELECT 2", &[]).bind("", "", &[]).execute("").sync();
    client.send(batch());
    client.expect("E:53400 ZI");
    client.send(pipeline().query("BEGIN"));
    client.expect("E:53400 ZI");
    // All at once: each is answered in its turn.
    client
        .send([batch().as_ref(), pipeline().query("SELECT 1").query("SELECT 2").as_ref()].concat());
    client.expect("E:53400 ZI T D C ZI E:53400 ZI");
}

#[test]
fn administrators_pass_and_are_counted() {
    let rates = format!("all = 2\nwait_max = \"off\"\nadministrators = [\"{ROLE}\"]");
    let (_tidegate, url) = started("limits_admin", &rates);
    let mut client = Client::connect(&url);
    for _ in 0..5 {
        assert_eq!(sqlstate(&mut client, "SELECT 2"), None);
    }
}

#[test]
fn administrators_may_be_a_role_that_is_granted_and_revoked() {
    let as_owner = |sql: &str| shared_cluster().primary().psql(sql).unwrap();
    as_owner("DROP ROLE IF EXISTS limits_lead, limits_staff");
    as_owner("CREATE ROLE limits_staff; CREATE ROLE limits_lead");
    let grant = format!("GRANT limits_staff TO limits_lead; GRANT limits_lead TO {ROLE}");
    as_owner(&grant);
    let administrators = "administrators = [\"limits_staff\"]";
    let rates = format!("per_end_user = 2\nwait_max = \"off\"\n{administrators}");
    let (tidegate, url) = started("limits_role", &rates);
    let mut client = Client::connect(&url);
    let tagged = "SELECT 2 /* user_id='7' */";
    // A change of a schema that passes has roles read again at once.
    let mut limited = || {
        client.query("CREATE TABLE IF NOT EXISTS t (a int)");
        sqlstate(&mut client, tagged).is_some()
    };
    wait_until(SOON, "a role of its role lets it pass", || (0..4).all(|_| !limited()));
    as_owner(&format!("REVOKE limits_lead FROM {ROLE}"));
    wait_until(SOON, "it is limited", &mut limited);
    assert_eq!(tidegate.admin_post("/api/v1/reload", "").status, 200);
    // Nothing that was planned before comes back, while roles are read anew.
    let reloaded = Instant::now();
    while reloaded.elapsed() < Duration::from_secs(3) {
        assert!(limited());
    }
    as_owner(&grant);
    wait_until(SOON, "it passes again", || !limited());
    as_owner("DROP ROLE limits_lead, limits_staff");
}

#[test]
fn a_statement_over_its_limit_waits_for_room_and_can_be_cancelled_meanwhile() {
    let (tidegate, url) = started("limits_wait", "all = 2\nwindow = \"1s\"\nwait_max = \"20s\"");
    let mut client = Client::connect(&url);
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(client.value("SELECT 2").as_deref(), Some("2"));
    }
    // The third came into another window than the first, and the fourth than the second.
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    drop(client);
    drop(tidegate);

    let (tidegate, url) = started("limits_cancel", "all = 1\nwindow = \"15s\"\nwait_max = \"20s\"");
    let mut client = Client::connect(&url);
    client.query("SELECT 2");
    client.send(pipeline().query("SELECT 3"));
    wait_for_state(&tidegate, "waiting");
    client.cancel();
    client.expect("E:57014 ZI");
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    // One that hangs up while it waits is gone.
    client.send(pipeline().query("SELECT 4"));
    wait_for_state(&tidegate, "waiting");
    drop(client);
    wait_until(SOON, "the client is gone", || {
        json(&tidegate, "/api/v1/clients")["clients"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn limits_come_and_go_with_the_policy() {
    let (tidegate, url) = started("limits_swap", "");
    let mut client = Client::connect(&url);
    let configure = |settings: &str| {
        let answer: http::Response =
            tidegate.admin_put("/api/v1/plugins/limiting/config", settings);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    for _ in 0..5 {
        assert_eq!(sqlstate(&mut client, "SELECT 2"), None);
    }
    configure(r#"{"all": 1}"#);
    assert_eq!(sqlstate(&mut client, "SELECT 2"), None);
    assert_eq!(sqlstate(&mut client, "SELECT 2").as_deref(), Some("53400"));
    // What was counted stays counted when the limit changes.
    configure(r#"{"all": 2}"#);
    assert_eq!(sqlstate(&mut client, "SELECT 2"), None);
    assert_eq!(sqlstate(&mut client, "SELECT 2").as_deref(), Some("53400"));
    configure(r#"{"all": 0, "end_user": 0}"#);
    assert_eq!(sqlstate(&mut client, "SELECT 2"), None);
    assert_eq!(tidegate.admin_post("/api/v1/plugins/limiting/disable", "").status, 200);
    assert_eq!(sqlstate(&mut client, "SELECT 2"), None);
}

#[test]
fn a_statement_is_explained_before_it_runs() {
    let (tidegate, url) = started("limits_explain", "per_end_user = 5");
    let database = url.rsplit_once('/').unwrap().1;
    Client::connect(&url).query("SELECT 1");
    let ask = |sql: &str| {
        let question = serde_json::json!({ "sql": sql, "user": ROLE, "database": database });
        let answer = tidegate.admin_post("/api/v1/explain", &question.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()
    };
    let read = "SELECT 7 /* user_id='8' */";
    wait_until(SOON, "the catalogue is read", || ask(read)["read"]["proven"] == true);
    let told = ask(read);
    assert_eq!(told["end_user"], "8");
    let plan = |slot: usize| told["plans"][slot]["plan"].as_str().unwrap().to_owned();
    assert!(plan(0).starts_with("replicas"), "{}", plan(0));
    assert!(plan(1).starts_with("bypass"), "{}", plan(1));
    assert!(plan(2).contains("end user({end-user}): 1 of 5 in 60000 ms"), "{}", plan(2));
    let write = ask("INSERT INTO t VALUES (1)");
    assert_eq!(
        (write["read"]["proven"].as_bool(), &write["read"]["why_not"]),
        (Some(false), &"text".into())
    );
}

#[test]
fn indexes_that_a_statement_would_miss_are_explained() {
    let (tidegate, url) = started("advice", "");
    let database = url.rsplit_once('/').unwrap().1;
    let mut client = Client::connect(&url);
    client.query("CREATE TABLE orders (id int PRIMARY KEY, customer int, status text)");
    client.query(
        "INSERT INTO orders SELECT n, n % 900, CASE n % 10 WHEN 0 THEN 'open' ELSE 'done' END \
         FROM generate_series(1, 9000) n",
    );
    client.query("ANALYZE orders");
    let advice = |sql: &str| {
        let question = serde_json::json!({ "sql": sql, "database": database });
        let answer = tidegate.admin_post("/api/v1/explain", &question.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        let told: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let plans = told["plans"].as_array().unwrap().iter();
        let own = plans.filter(|plan| plan["slot"] == "advising");
        own.map(|plan| plan["plan"].as_str().unwrap().to_owned()).collect::<Vec<String>>()
    };
    let by_customer = "SELECT id FROM orders WHERE customer = 7 AND status = 'open'";
    let told = advice(by_customer);
    // By statistics: there are more customers than states.
    let both =
        r#"CREATE INDEX CONCURRENTLY ON "public"."orders" USING btree ("customer", "status"): "#;
    assert!(told.iter().any(|plan| plan.starts_with(both)), "{told:?}");
    assert_eq!(advice("SELECT status FROM orders WHERE id = 7"), ["nothing"], "it has one");
    client.query("CREATE INDEX ON orders (customer, status)");
    assert_eq!(advice(by_customer), ["nothing"]);
    // In another schema, and empty; and one whose rows are all in a partition.
    client.query("CREATE SCHEMA archive; CREATE TABLE archive.orders (customer int, status text)");
    client.query(
        "CREATE TABLE parts (id int, customer int) PARTITION BY RANGE (id); \
         CREATE TABLE part PARTITION OF parts DEFAULT; \
         INSERT INTO parts SELECT n, n % 900 FROM generate_series(1, 9000) n; ANALYZE part",
    );
    let told = advice("SELECT id FROM orders WHERE status = 'open'");
    let status = r#"CREATE INDEX CONCURRENTLY ON "public"."orders" USING btree ("status"): "#;
    assert!(told.iter().all(|plan| plan.starts_with(status)), "{told:?}");
    let told = advice("SELECT id FROM parts WHERE customer = 7");
    assert!(told[0].contains(r#""public"."parts" USING btree ("customer")"#), "{told:?}");
    // Whoever changes the table keeps nobody waiting but for a moment.
    let mut changes = Client::connect(&shared_cluster().primary().url(ROLE, database));
    changes.query("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    let told = advice("SELECT id FROM orders WHERE status = 'open'");
    assert!(told[0].starts_with("not asked: "), "{told:?}");
    wait_until(SOON, "nothing of it waits at the server", || {
        // A transaction sees the same sessions until it looks anew.
        changes.query("SELECT pg_stat_clear_snapshot()");
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidegate: statistics'";
        changes.value(waiting).as_deref() == Some("0")
    });
    drop(changes);
    assert_eq!(advice("SELECT 1"), ["nothing: no table is known"]);
    assert_eq!(advice("SELECT id FROM orders WHERE no_such_column = 1"), ["nothing"]);
    assert_eq!(json(&tidegate, "/api/v1/plugins/advising")["active"]["faults"]["answer"], 0);
}
