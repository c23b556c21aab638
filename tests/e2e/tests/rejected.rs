//! What the routing policy says of a statement besides its server: not at all, only on replicas, before others.

use crate::own::{
    SOON, behind_relay, json, policies_answer, pool_of, sqlstate, tidegate, wait_for_state,
};
use crate::plugins::plugin;
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, pipeline, shared_cluster, test_database, wait_until,
};

/// A policy that does as a statement's tags say.
#[track_caller]
fn push_policy(tidegate: &Tidegate) {
    wait_until(SOON, "the default policies answer", || policies_answer(tidegate));
    let settings = r#"{"plan":"as tagged"}"#;
    let answer = tidegate.push("routing", "", settings, &plugin("hostile_routing"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn what_the_policy_rejects_reaches_no_server_and_fails_its_transaction() {
    let database = test_database("rejected");
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(1));
    push_policy(&tidegate);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.query("CREATE TABLE t (a int)");
    let insert = "INSERT INTO t VALUES (1)";
    let rejected = format!("{insert} /* route='nowhere' */");

    client.send(pipeline().query(&rejected));
    let error = client.expect("E ZI").remove(0);
    assert_eq!(error.field(b'C').as_deref(), Some("42501"));
    assert_eq!(error.field(b'M').as_deref(), Some("nobody may run this"));
    assert!(error.field(b'D').unwrap().contains("hostile-routing"), "{error:?}");

    // By the extended protocol, and with others before and behind it.
    let run = |sql: &str| pipeline().parse("", sql, &[]).bind("", "", &[]).execute("").sync();
    client.send(pipeline().parse("rejected", &rejected, &[]).sync());
    client.expect("1 ZI");
    let prepared = pipeline().bind("", "rejected", &[]).execute("").sync();
    client.send(run(insert).raw(prepared.bytes()).raw(run("SELECT count(*) FROM t").bytes()));
    let got = client.expect("1 2 C ZI E ZI 1 2 D C ZI");
    assert_eq!(got[8].row(), [Some("1".to_owned())]);

    // A transaction fails, on the server as well.
    for statement in [pipeline().query(&rejected), run(&rejected)] {
        client.query("BEGIN");
        client.query(insert);
        client.send(statement);
        assert_eq!(client.read_until_ready().last().unwrap().status(), 'E');
        assert_eq!(sqlstate(&mut client, "SELECT 1"), "25P02");
        client.query("ROLLBACK");
    }
    assert_eq!(client.value("SELECT count(*) FROM t").as_deref(), Some("1"));
    let metrics = tidegate.admin_get("/metrics").body;
    assert!(metrics.contains("tidegate_errors_total{kind=\"rejected\"} 4"), "{metrics}");
}

#[test]
fn a_read_for_replicas_only_is_refused_while_there_are_none() {
    let database = test_database("replicas_only");
    let (tidegate, _relay) = behind_relay(&database, &pool_of(1));
    push_policy(&tidegate);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    assert_eq!(sqlstate(&mut client, "SELECT 1 AS one /* route='replica' */"), "57P03");
    // What is no read is not kept from the primary, and neither is what others read.
    client.query("CREATE TABLE t (a int) /* route='replica' */");
    assert_eq!(client.value("SELECT 2").as_deref(), Some("2"));
}

/// Who gets the pool's only server first: somebody who has waited for it longer, or whoever `begin`s as critical?
#[track_caller]
fn critical_is_first(tidegate: &Tidegate, database: &str, begin: &str, critical: &str) {
    let url = tidegate.url(ROLE, database);
    let mut holder = Client::connect(&url);
    let (mut normal, mut urgent) = (Client::connect(&url), Client::connect(&url));
    urgent.query(begin);
    holder.query("BEGIN");
    let (done, order) = mpsc::channel();
    let waits = |count: usize| {
        let clients = json(tidegate, "/api/v1/clients");
        let waiting = clients["clients"].as_array().unwrap().iter();
        waiting.filter(|client| client["state"] == "waiting").count() == count
    };
    thread::scope(|scope| {
        let turn = |client: &mut Client, sql: &str| client.value(sql).unwrap();
        let first = done.clone();
        scope.spawn(move || first.send(("normal", turn(&mut normal, "SELECT nextval('turns')"))));
        wait_until(SOON, "one waits", || waits(1));
        scope.spawn(move || done.send(("critical", turn(&mut urgent, critical))));
        wait_until(SOON, "both wait", || waits(2));
        holder.query("COMMIT");
    });
    let mut order: Vec<(&str, String)> = order.iter().collect();
    order.sort_by_key(|(_, turn)| turn.parse::<u32>().unwrap());
    let names: Vec<&str> = order.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["critical", "normal"], "{critical}");
}

// Property 11: where every connection is in use, critical statements have connections of their own; and wait before others for
// one, whichever it is, when those are in use as well.
#[test]
fn critical_statements_have_reserved_connections() {
    let database = test_database("reserved");
    let toml = format!("{}critical_max = 1\n[routing]\nreads = \"primary\"\n", pool_of(1));
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database);
    let [mut holder, mut normal, mut urgent, mut second]: [Client; 4] =
        std::array::from_fn(|_| Client::connect(&url));
    for client in [&mut urgent, &mut second] {
        client.query("SET tidegate.priority = 'critical'");
    }
    // What is asked about the database at first, on the same connection, is over when another client has had it.
    assert_eq!(normal.value("SELECT 0").as_deref(), Some("0"));
    assert_eq!(urgent.value("SELECT 1").as_deref(), Some("1"));
    assert_eq!(kinds(&tidegate), ["write"], "nothing is reserved before it is needed");
    holder.query("BEGIN");
    normal.send(pipeline().query("SELECT 2"));
    wait_for_state(&tidegate, "waiting");
    assert_eq!(urgent.value("SELECT 3").as_deref(), Some("3"));
    assert_eq!(kinds(&tidegate), ["critical", "write"]);
    urgent.query("BEGIN");
    second.send(pipeline().query("SELECT 4"));
    holder.query("COMMIT");
    second.expect("T D C ZI");
    normal.expect("T D C ZI");
    urgent.query("COMMIT");
}

/// The kinds of the pools to which there are connections.
fn kinds(tidegate: &Tidegate) -> Vec<String> {
    let pools = json(tidegate, "/api/v1/pools");
    let connected = pools["pools"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pool| pool["idle"] != 0 || pool["active"] != 0);
    let kinds: BTreeSet<&str> = connected.map(|pool| pool["role"].as_str().unwrap()).collect();
    kinds.into_iter().map(str::to_owned).collect()
}

// Property 11: who is critical does not wait behind others, whoever says so.
#[test]
fn critical_statements_wait_before_others() {
    let database = test_database("critical");
    let toml = format!("{}critical_max = 0\n", pool_of(1));
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    wait_until(SOON, "the default policies answer", || policies_answer(&tidegate));
    Client::connect(&tidegate.url(ROLE, &database)).query("CREATE SEQUENCE turns");
    let (plain, tagged) =
        ("SELECT nextval('turns')", "SELECT nextval('turns') /* priority='critical' */");
    critical_is_first(&tidegate, &database, "SELECT 1", tagged);
    critical_is_first(&tidegate, &database, "SET tidegate.priority = 'critical'", plain);
    // A policy of one's own decides by itself.
    push_policy(&tidegate);
    critical_is_first(&tidegate, &database, "SELECT 1", tagged);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    assert_eq!(sqlstate(&mut client, "SET tidegate.priority = 'urgent'"), "22023");
}
