//! Reads on replicas: which statements go there, and what a session must see.

mod again; // reads that are run again on the primary
mod causal; // what reads on replicas see

use crate::own::{SOON, cluster_with_replicas, json, policies_answer, pool_of, tidegate};
use crate::plugins::plugin;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Cluster, Node, Tidegate, pipeline, shared_cluster, test_database, wait_until,
};

const SCHEMA: &str = include_str!("routing/schema.sql");
const STATEMENTS: &str = include_str!("routing/statements.txt");

/// Reads the servers' logs, in which the database has every statement written down.
struct Observer {
    /// The primary's, then the replicas'.
    logs: Vec<PathBuf>,
}

impl Observer {
    fn of(cluster: &Cluster, database: &str) -> Self {
        let all = format!("ALTER DATABASE {database} SET log_statement = 'all'");
        cluster.primary().psql(&all).unwrap();
        cluster.wait_until_caught_up().unwrap();
        Self { logs: cluster.nodes().map(Node::log_path).collect() }
    }

    /// Did a replica run this text? A text that nobody has run fails the test.
    #[track_caller]
    fn saw(&self, text: &str) -> bool {
        let ran = |log: &PathBuf| std::fs::read_to_string(log).unwrap().contains(text);
        let (primary, replicas) = self.logs.split_first().unwrap();
        let on_replica = replicas.iter().any(ran);
        assert!(ran(primary) != on_replica, "{text} ran on both, or nowhere");
        on_replica
    }
}

/// A Tidegate that splits reads, with the catalogue read and the replicas fresh.
pub struct Split {
    pub tidegate: Tidegate,
    database: String,
    observer: Observer,
    marks: usize,
}

impl Split {
    pub fn start(cluster: &Cluster, database: String) -> Self {
        Self::start_with(cluster, database, &pool_of(5))
    }

    pub fn start_with(cluster: &Cluster, database: String, toml: &str) -> Self {
        let observer = Observer::of(cluster, &database);
        let tidegate = tidegate(cluster, &database, toml);
        let mut split = Self { tidegate, database, observer, marks: 0 };
        split.wait_until_split();
        split
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.tidegate.url(ROLE, &self.database))
    }

    fn mark(&mut self) -> String {
        self.marks += 1;
        format!("/* {} {} */", self.database, self.marks)
    }

    /// Did the statement run on a replica?
    pub fn on_replica(&mut self, client: &mut Client, sql: &str) -> bool {
        let mark = self.mark();
        client.query(&format!("{sql} {mark}"));
        self.observer.saw(&mark)
    }

    #[track_caller]
    fn wait_until_split(&mut self) {
        wait_until(SOON, "reads of new sessions use replicas", || {
            let mut client = self.connect();
            self.on_replica(&mut client, "SELECT 'ready'")
        });
    }
}

/// A database with the schema, on the primary and all replicas.
fn database_with_schema(cluster: &Cluster, name: &str) -> String {
    let database = test_database(name);
    let mut direct = Client::connect(&cluster.primary().url(ROLE, &database));
    let answer = direct.query(SCHEMA);
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    database
}

#[test]
fn each_statement_runs_where_it_must() {
    let cluster = shared_cluster();
    let database = database_with_schema(cluster, "statements");
    let mut split = Split::start(cluster, database);
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in STATEMENTS.lines() {
        if line.starts_with('#') {
            split.wait_until_split();
        }
        let Some((wanted, sql)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        assert!(matches!(wanted, "replica" | "primary"), "{line}");
        count += 1;
        let mut client = split.connect();
        if split.on_replica(&mut client, sql) != (wanted == "replica") {
            wrong.push(line);
        }
    }
    assert!(count >= 300, "{count} statements");
    assert!(wrong.is_empty(), "{} of {count} ran elsewhere:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_catalogue_of_a_database_that_does_not_exist_is_asked_for_by_nobody() {
    let cluster = shared_cluster();
    let database = database_with_schema(cluster, "existing");
    let tidegate = tidegate(cluster, &database, &pool_of(5));
    let refused = Client::try_connect(&tidegate.url(ROLE, "nodb4"), &[]).err().unwrap();
    assert!(refused.describe().contains("3D000"), "{}", refused.describe());
    let observer = Observer::of(cluster, &database);
    let mut split = Split { tidegate, database, observer, marks: 0 };
    // The databases are read one after the other.
    split.wait_until_split();
    let log = split.tidegate.log();
    let about = |line: &&str| line.contains("nodb4") && line.contains("catalogue");
    assert_eq!(log.lines().find(about), None);
}

/// The places of the servers that so many new sessions read from; the primary is 0.
fn read_from(split: &mut Split, sessions: usize) -> BTreeSet<usize> {
    let read = |_| {
        let mark = split.mark();
        split.connect().query(&format!("SELECT 7 {mark}"));
        let ran = |log: &PathBuf| std::fs::read_to_string(log).unwrap().contains(&mark);
        split.observer.logs.iter().position(ran).unwrap()
    };
    (0..sessions).map(read).collect()
}

// Property 36: the weights of the routing policy decide how many reads a replica gets.
#[test]
fn reads_follow_the_weights_of_the_policy() {
    let cluster = shared_cluster();
    let mut split = Split::start(cluster, database_with_schema(cluster, "weights"));
    wait_until(SOON, "the default plugins answer", || policies_answer(&split.tidegate));
    let both = BTreeSet::from([1, 2]);
    wait_until(SOON, "both replicas serve reads", || read_from(&mut split, 8) == both);
    let settings = r#"{"plan":"weigh last"}"#;
    let answer = split.tidegate.push("routing", "", settings, &plugin("hostile_routing"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let last = BTreeSet::from([2]);
    wait_until(SOON, "the last replica has all reads", || read_from(&mut split, 8) == last);
    let back = split.tidegate.admin_post("/api/v1/plugins/routing/rollback", "");
    assert_eq!(back.status, 200, "{back:?}");
    wait_until(SOON, "both have reads again", || read_from(&mut split, 8) == both);
}

/// What became of the versions of the slot, as its history tells.
fn history(split: &Split) -> String {
    json(&split.tidegate, "/api/v1/plugins/routing")["history"].to_string()
}

/// A policy whose every decision is nonsense.
fn push_nonsense(split: &Split, mode: &str) {
    let settings = r#"{"plan":"ask","decide":99}"#;
    let answer = split.tidegate.push("routing", mode, settings, &plugin("hostile_routing"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_policy_that_keeps_failing_is_taken_out_and_no_statement_notices() {
    let cluster = shared_cluster();
    let split = Split::start(cluster, database_with_schema(cluster, "quarantine"));
    wait_until(SOON, "the default plugins answer", || policies_answer(&split.tidegate));
    push_nonsense(&split, "");
    wait_until(SOON, "the version before answers again", || {
        assert_eq!(split.connect().value("SELECT 5 AS read").as_deref(), Some("5"));
        let slot = json(&split.tidegate, "/api/v1/plugins/routing");
        slot["active"]["source"] == "embedded" && history(&split).contains("taken out")
    });
}

#[test]
fn a_canary_that_fails_is_given_up_and_no_statement_notices() {
    let cluster = shared_cluster();
    let split = Split::start(cluster, database_with_schema(cluster, "canary"));
    wait_until(SOON, "the default plugins answer", || policies_answer(&split.tidegate));
    push_nonsense(&split, "?mode=canary&share=50");
    wait_until(SOON, "the canary has gone, and the slot's history says so", || {
        assert_eq!(split.connect().value("SELECT 6 AS read").as_deref(), Some("6"));
        let slot = json(&split.tidegate, "/api/v1/plugins/routing");
        let as_before = slot["candidate"].is_null() && slot["active"]["source"] == "embedded";
        as_before && history(&split).contains("taken out")
    });
}

#[test]
fn trap_101_reads_of_sessions_that_are_serializable_by_default_stay_on_the_primary() {
    let cluster = shared_cluster();
    let database = database_with_schema(cluster, "serializable");
    let by_default = "SET default_transaction_isolation = serializable";
    cluster.primary().psql(&format!("ALTER DATABASE {database} {by_default}")).unwrap();
    let observer = Observer::of(cluster, &database);
    // Replicas are in use, for sessions of another database.
    let mut split = Split::start(cluster, database_with_schema(cluster, "not_serializable"));
    let serializable = split.tidegate.url(ROLE, &database);
    let question = format!("{{\"sql\":\"SELECT 8\",\"database\":\"{database}\"}}");
    let client = Client::connect(&serializable);
    wait_until(SOON, "the catalogue says that this is a read", || {
        let answer = split.tidegate.admin_post("/api/v1/explain", &question);
        answer.status == 200 && answer.body.contains("\"proven\":true")
    });
    drop(client);
    split.observer = observer;
    for _ in 0..5 {
        let mut client = Client::connect(&serializable);
        assert!(!split.on_replica(&mut client, "SELECT 8"));
        assert_eq!(client.value("SELECT 9").as_deref(), Some("9"));
    }
}

/// What hides from every text: a volatile function behind an operator class, and one that is written like a column.
const HIDING: [&str; 2] = [
    "CREATE TYPE pair AS (a int, b int); \
     CREATE FUNCTION less(pair, pair) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT ($1).a < ($2).a'; \
     CREATE FUNCTION compare(pair, pair) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT ($1).a - ($2).a'; \
     CREATE OPERATOR <<< (LEFTARG = pair, RIGHTARG = pair, FUNCTION = less); \
     CREATE OPERATOR CLASS pairs DEFAULT FOR TYPE pair USING btree AS \
     OPERATOR 1 <<<, FUNCTION 1 compare(pair, pair)",
    "CREATE TYPE pair AS (a int, b int); CREATE DOMAIN checked AS pair; \
     CREATE FUNCTION written(checked) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1'",
];

#[test]
fn what_hides_from_texts_keeps_reads_on_the_primary() {
    let cluster = shared_cluster();
    for (number, hiding) in HIDING.into_iter().enumerate() {
        let database = test_database(&format!("hiding_{number}"));
        cluster.primary().psql_in(&database, hiding).unwrap();
        cluster.wait_until_caught_up().unwrap();
        let tidegate = tidegate(cluster, &database, &pool_of(2));
        let client = Client::connect(&tidegate.url(ROLE, &database));
        wait_until(SOON, "the catalogue says that something hides", || {
            let answer = tidegate.admin_post("/api/v1/explain", "{\"sql\":\"SELECT 8\"}");
            answer.body.contains("hidden_functions")
        });
        drop(client);
    }
}

#[test]
fn a_session_that_keeps_its_server_from_the_start_keeps_the_primary() {
    let cluster = shared_cluster();
    let mut split = Split::start(cluster, database_with_schema(cluster, "bound"));
    let url = split.tidegate.url(ROLE, &split.database);
    let mut client = Client::connect_with(&url, &[("search_path", "pg_temp, public")]);
    assert!(!split.on_replica(&mut client, "SELECT 3"));
    client.query("CREATE TABLE own AS SELECT 4 AS a");
    assert_eq!(client.value("SELECT a FROM pg_temp.own").as_deref(), Some("4"));
}

#[test]
fn the_extended_protocol_is_split_as_well() {
    let cluster = shared_cluster();
    let mut split = Split::start(cluster, database_with_schema(cluster, "extended"));
    let mut client = split.connect();
    let run = |split: &mut Split, client: &mut Client, sql: &str, more: Option<&str>| {
        let mark = split.mark();
        let mut messages =
            pipeline().parse("", &format!("{sql} {mark}"), &[]).bind("", "", &[]).execute("");
        if let Some(more) = more {
            messages = messages.parse("", more, &[]).bind("", "", &[]).execute("");
        }
        client.send(messages.sync());
        client.read_until_ready();
        split.observer.saw(&mark)
    };
    assert!(run(&mut split, &mut client, "SELECT id FROM t", None));
    assert!(!run(&mut split, &mut client, "SELECT f_volatile(1)", None));
    // A batch is one transaction, so one write in it takes all of it to the primary.
    let write = Some("INSERT INTO child (note) VALUES ('batch')");
    let mut other = split.connect();
    assert!(!run(&mut split, &mut other, "SELECT id FROM t", write));
    // A statement by name is brought along to whichever server it runs on.
    let mark = split.mark();
    let mut client = split.connect();
    client.send(
        pipeline().parse("s", &format!("SELECT id FROM t WHERE id = $1 {mark}"), &[23]).sync(),
    );
    client.read_until_ready();
    for _ in 0..3 {
        client.send(pipeline().bind("", "s", &[Some("7")]).execute("").sync());
        let rows: Vec<_> = client.read_until_ready();
        assert!(
            rows.iter().any(|message| message.tag == b'D' && message.row() == [Some("7".into())])
        );
    }
    assert!(split.observer.saw(&mark));
}

#[test]
fn transactions_and_serializable_sessions_stay_on_the_primary() {
    let cluster = shared_cluster();
    let mut split = Split::start(cluster, database_with_schema(cluster, "stay"));
    let mut client = split.connect();
    client.query("BEGIN");
    assert!(!split.on_replica(&mut client, "SELECT id FROM t"));
    client.query("COMMIT");
    let mut client = split.connect();
    client.query("SET default_transaction_isolation = 'serializable'");
    wait_until(SOON, "other sessions would read on replicas by now", || {
        let mut other = split.connect();
        split.on_replica(&mut other, "SELECT 1")
    });
    assert!(!split.on_replica(&mut client, "SELECT id FROM t"));
    // A session may choose.
    for (route, replica) in [("primary", false), ("replica", true)] {
        let mut client = split.connect();
        client.query(&format!("SET tidegate.route = '{route}'"));
        assert_eq!(split.on_replica(&mut client, "SELECT id FROM t"), replica, "{route}");
    }
}

#[test]
fn a_changed_function_is_judged_anew_at_once() {
    let cluster = shared_cluster();
    let mut split = Split::start(cluster, database_with_schema(cluster, "changed"));
    let mut reader = split.connect();
    assert!(split.on_replica(&mut reader, "SELECT f_stable(1)"));
    split.connect().query("ALTER FUNCTION f_stable(int) VOLATILE");
    assert!(!split.on_replica(&mut reader, "SELECT f_stable(1)"));
    split.wait_until_split();
    let mut other = split.connect();
    assert!(!split.on_replica(&mut other, "SELECT f_stable(1)"));
    split.connect().query("ALTER FUNCTION f_stable(int) STABLE");
    wait_until(SOON, "the function is known to be stable again", || {
        let mut other = split.connect();
        split.on_replica(&mut other, "SELECT f_stable(1)")
    });
}

/// Replay is paused, so what is written stays unseen on the replica however long the test looks.
#[test]
fn trap_107_a_session_sees_its_own_writes_on_a_replica_that_stands_still() {
    let cluster = cluster_with_replicas("own_writes", 1);
    let mut direct = Client::connect(&cluster.primary().url(ROLE, "own_writes"));
    direct.query(
        "CREATE TABLE counters (id int PRIMARY KEY, n int); INSERT INTO counters VALUES (1, 0)",
    );
    let mut split = Split::start(&cluster, "own_writes".to_owned());
    let (mut writer, mut other) = (split.connect(), split.connect());
    cluster.replicas()[0].psql("SELECT pg_wal_replay_pause()").unwrap();
    wait_until(SOON, "replay is paused", || {
        cluster.replicas()[0].psql("SELECT pg_get_wal_replay_pause_state()").unwrap() == "paused"
    });
    for n in 1..=20 {
        writer.query(&format!("UPDATE counters SET n = {n} WHERE id = 1"));
        let seen = writer.value("SELECT n FROM counters WHERE id = 1");
        assert_eq!(seen, Some(n.to_string()));
    }
    // Another session may see an older state for as long as the replica is not called too far behind, but never goes back.
    let (begun, mut newest) = (Instant::now(), 0);
    wait_until(SOON, "a replica that stands still is left", || {
        let seen: i32 =
            other.value("SELECT n FROM counters WHERE id = 1").unwrap().parse().unwrap();
        assert!(seen >= newest, "{seen} after {newest}");
        newest = seen;
        seen == 20
    });
    assert!(begun.elapsed() < Duration::from_secs(10));
    cluster.replicas()[0].psql("SELECT pg_wal_replay_resume()").unwrap();
    wait_until(SOON, "the replica serves reads again", || {
        split.on_replica(&mut writer, "SELECT n FROM counters WHERE id = 1")
    });
    assert_eq!(writer.value("SELECT n FROM counters WHERE id = 1").as_deref(), Some("20"));
}

#[test]
fn a_replica_that_is_gone_costs_no_read() {
    let cluster = cluster_with_replicas("dies", 1);
    let split = Split::start(&cluster, "dies".to_owned());
    let mut clients: Vec<Client> = (0..4).map(|_| split.connect()).collect();
    cluster.replicas()[0].stop_now();
    for round in 0..50 {
        for client in &mut clients {
            assert_eq!(client.value("SELECT 7").as_deref(), Some("7"), "round {round}");
        }
    }
}
