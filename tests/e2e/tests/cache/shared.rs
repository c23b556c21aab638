//! Two Tidegates in front of one PostgreSQL, with answers that they share in one Redis; and all that may become of that.

use super::history::{SCHEMA, observe, wait_for};
use super::{SOON, TABLES};
use crate::own::{metric, policies_answer};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Node, Redis, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database,
    wait_until,
};

/// Long enough for many reads and writes.
const MOMENT: Duration = Duration::from_millis(700);

/// On a machine that is busy with other tests nothing is to be late, where that is not what is tested.
const PATIENT: &str = "deadline = \"1s\"\nlease = \"3s\"\n";
/// Soon lost, and yet not by a busy machine alone.
pub const BRISK: &str = "deadline = \"300ms\"\nlease = \"1500ms\"\n";
/// However busy the machine is.
pub const LONG: Duration = Duration::from_secs(60);

/// Each Tidegate is a user of its own, so that one alone can be shut out.
pub const USERS: [&str; 14] = [
    "--user", "t1", "on", ">secret", "~*", "&*", "+@all", "--user", "t2", "on", ">secret", "~*",
    "&*", "+@all",
];

/// Two Tidegates, numbered 1 and 2, in front of one server that writes down each statement.
pub struct Pair {
    pub both: [Tidegate; 2],
    pub database: String,
    log: PathBuf,
    marks: usize,
}

fn config(redis: &Redis, own: usize, timing: &str) -> String {
    let (url, peer) = (redis.url_as(&format!("t{own}"), "secret"), 3 - own);
    format!(
        "workers = 2\npeer_id = {own}\n[[peers]]\nid = {peer}\naddress = \"127.0.0.1:1\"\n\
         [pool]\nsize_min = 0\nsize_max = 5\n[cache.redis]\nurl = \"{url}\"\n{timing}"
    )
}

fn start(database: &str, toml: String) -> Tidegate {
    let mut options = TidegateOptions::for_cluster(shared_cluster(), database);
    options.replicas.clear();
    options.toml = Some(toml);
    let tidegate = Tidegate::start(options);
    wait_until(3 * SOON, "policies answer", || policies_answer(&tidegate));
    set_rules(&tidegate, r#""ttl_ms": 60000"#);
    tidegate
}

/// The same rule for all tables.
fn set_rules(tidegate: &Tidegate, rule: &str) {
    let rules: Vec<String> =
        TABLES.iter().map(|table| format!(r#"{{"table": "{table}", {rule}}}"#)).collect();
    let settings = format!(r#"{{"rules": [{}]}}"#, rules.join(", "));
    let answer = tidegate.admin_put("/api/v1/plugins/caching/config", &settings);
    assert_eq!(answer.status, 200, "{answer:?}");
}

impl Pair {
    pub fn start(redis: &Redis, name: &str, timing: &str) -> Pair {
        let database = test_database(name);
        let mut direct = Client::connect(&shared_cluster().primary().url(ROLE, &database));
        let answer = direct.query(SCHEMA);
        assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
        let all = format!("ALTER DATABASE {database} SET log_statement = 'all'");
        shared_cluster().primary().psql(&all).unwrap();
        let both = [1, 2].map(|own| start(&database, config(redis, own, timing)));
        let log = Node::log_path(shared_cluster().primary());
        let mut pair = Pair { both, database, log, marks: 0 };
        pair.wait_until_shared();
        pair
    }

    pub fn connect(&self, which: usize) -> Client {
        Client::connect(&self.both[which % 2].url(ROLE, &self.database))
    }

    /// Does a server run it?
    fn runs(&mut self, client: &mut Client, sql: &str) -> bool {
        self.marks += 1;
        let mark = format!("/* {} {} */", self.database, self.marks);
        client.query(&format!("{sql} {mark}"));
        std::fs::read_to_string(&self.log).unwrap().contains(&mark)
    }

    /// How many of them serve.
    pub fn serving(&self) -> f64 {
        self.both.iter().map(|one| metric(one, "tidegate_cache_l2_serving")).sum()
    }

    #[track_caller]
    fn wait_until_served(&mut self, client: &mut Client, sql: &str) {
        wait_until(LONG, "an answer is served that is kept", || !self.runs(client, sql));
    }

    /// Until both serve, and what one has read the other has not to read.
    pub fn wait_until_shared(&mut self) {
        wait_until(LONG, "both serve", || self.serving() == 2.0);
        let mut clients = [0, 1].map(|which| self.connect(which));
        wait_until(LONG, "answers are shared", || {
            let sql = "SELECT v FROM t WHERE id = 9";
            let [one, other] = &mut clients;
            self.runs(one, sql);
            !self.runs(one, sql) && !self.runs(other, sql)
        });
    }
}

#[test]
fn what_one_has_read_the_other_serves_and_what_one_writes_both_forget() {
    let redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_write", PATIENT);
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    let sql = "SELECT v FROM reg WHERE k = 1";
    for n in 0..20 {
        assert_eq!(one.value(sql), Some(n.to_string()));
        pair.wait_until_served(&mut other, sql);
        assert_eq!(other.value(sql), Some(n.to_string()));
        // Each writes in turn, and the other reads at once.
        let (writer, reader) =
            if n % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        writer.query(&format!("UPDATE reg SET v = {} WHERE k = 1", n + 1));
        assert_eq!(reader.value(sql), Some((n + 1).to_string()));
        // What is rolled back takes nothing.
        writer.query("BEGIN");
        writer.query("UPDATE reg SET v = 1000 WHERE k = 1");
        writer.query("ROLLBACK");
        pair.wait_until_served(&mut one, sql);
        pair.wait_until_served(&mut other, sql);
    }
    // A large answer is shared as it is kept: compressed.
    let sql = "SELECT repeat(k::text, 100000) FROM reg WHERE k = 1";
    let first = one.value(sql);
    pair.wait_until_served(&mut other, sql);
    assert_eq!(other.value(sql), first);
    // Most of it, for a busy machine may lose a round.
    let hits = pair.both.each_ref().map(|one| metric(one, "tidegate_cache_l2_hits_total"));
    assert!(hits.iter().sum::<f64>() >= 10.0, "{hits:?}");
}

/// Answers are served without a word to Redis for long enough to see whether anybody changes them meanwhile.
const TRUSTING: &str = "deadline = \"1s\"\nlease = \"3s\"\nreliance = \"500ms\"\n";

#[test]
fn what_is_relied_on_changes_when_nobody_relies_on_it_any_more() {
    let mut redis = Redis::start(&USERS);
    let pair = Pair::start(&redis, "shared_relied", TRUSTING);
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    let relied = |which: usize| metric(&pair.both[which], "tidegate_cache_l2_relied_total");
    let (sql, whole) = ("SELECT v FROM reg WHERE k = 1", "SELECT sum(v) FROM reg WHERE k = 1");
    for n in 0..5 {
        let before = relied(1);
        wait_until(LONG, "an answer is served without being asked for", || {
            assert_eq!(other.value(sql), Some(n.to_string()));
            other.value(whole);
            relied(1) > before
        });
        // What the other relies on now is forgotten, or is still known.
        match n % 4 {
            1 => drop(redis.command("FLUSHALL")),
            2 => drop(redis.command("CLIENT KILL TYPE normal SKIPME yes")),
            3 => {
                redis.kill();
                redis.start_again();
            }
            _ => {}
        }
        one.query(&format!("UPDATE reg SET v = {} WHERE k = 1", n + 1));
        assert_eq!(other.value(sql), Some((n + 1).to_string()), "after {n}");
        assert_eq!(other.value(whole), Some((n + 1).to_string()), "after {n}");
    }
    // Nobody has to wait for what it alone relies on: this is not the other's.
    let asked = metric(&pair.both[0], "tidegate_cache_l2_looks_total");
    wait_until(LONG, "it relies on it itself", || {
        let before = relied(0);
        one.value("SELECT v FROM reg WHERE k = 2");
        relied(0) > before
    });
    assert!(metric(&pair.both[0], "tidegate_cache_l2_looks_total") > asked);
    one.query("UPDATE reg SET v = -8 WHERE k = 2");
    assert_eq!(one.value("SELECT v FROM reg WHERE k = 2").as_deref(), Some("-8"));
}

#[test]
fn what_is_read_again_for_one_is_there_for_both() {
    const ROUNDS: u32 = 10;
    let redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_through", PATIENT);
    for one in &pair.both {
        set_rules(one, r#""ttl_ms": 60000, "write_through": true"#);
    }
    pair.wait_until_shared();
    let (mut one, mut other, mut writer) = (pair.connect(0), pair.connect(1), pair.connect(0));
    let sql = "SELECT v FROM reg WHERE k = 2";
    pair.runs(&mut one, sql);
    let mut hits = 0;
    for n in 1..=ROUNDS {
        writer.query(&format!("UPDATE reg SET v = {n} WHERE k = 2"));
        // The first who asks, and elsewhere.
        hits += u32::from(!pair.runs(&mut other, sql));
        for client in [&mut other, &mut one] {
            assert_eq!(client.value(sql), Some(n.to_string()));
        }
    }
    // Most of them, for a busy machine may be late.
    assert!(hits >= ROUNDS / 2, "{hits} of {ROUNDS}");
}

#[test]
fn a_change_of_the_schema_through_one_is_known_to_the_other() {
    let redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_schema", PATIENT);
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    // A view that reads another table from now on, and a table whose writes reach further.
    one.query("CREATE TABLE u (id int, v int); INSERT INTO u VALUES (1, 10)");
    one.query("CREATE VIEW tv AS SELECT v FROM t");
    pair.wait_until_shared();
    let sql = "SELECT max(v) FROM tv";
    for n in 1..5 {
        let table = ["t", "u"][n % 2];
        one.query(&format!("CREATE OR REPLACE VIEW tv AS SELECT v FROM {table}"));
        other.value(sql);
        pair.wait_until_shared();
        other.value(sql);
        one.query(&format!("UPDATE {table} SET v = {}", 100 + n));
        assert_eq!(other.value(sql), Some((100 + n).to_string()));
    }
    other.query("CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE u SET v = v + 1; RETURN NULL; END'");
    let sql = "SELECT max(v) FROM u";
    for _ in 0..5 {
        let before: i32 = one.value(sql).unwrap().parse().unwrap();
        other.query("CREATE TRIGGER up AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION up()");
        // The one has not read the catalogue again, and takes what the trigger changes all the same.
        one.value(sql);
        one.query("UPDATE t SET v = 0");
        assert_eq!(other.value(sql), Some((before + 1).to_string()));
        other.query("DROP TRIGGER up ON t");
    }
}

#[test]
fn a_redis_that_is_lost_costs_answers_and_nothing_else() {
    let mut redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_lost", BRISK);
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    let sql = "SELECT v FROM reg WHERE k = 2";
    for n in 0..3 {
        one.value(sql);
        redis.kill();
        one.query(&format!("UPDATE reg SET v = {} WHERE k = 2", 10 + n));
        assert_eq!(other.value(sql), Some((10 + n).to_string()));
        assert!(pair.runs(&mut other, sql), "nothing is served without Redis");
        redis.start_again();
        pair.wait_until_shared();
        assert_eq!(other.value(sql), Some((10 + n).to_string()));
    }
    let log = pair.both[0].log();
    assert!(log.contains("no answers are kept or served"), "{log}");
    assert!(log.contains("shared in Redis"), "{log}");
}

#[test]
fn while_one_is_not_heard_the_other_serves_nothing() {
    let redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_silent", PATIENT);
    let mut one = pair.connect(0);
    let sql = "SELECT v FROM reg WHERE k = 3";
    one.value(sql);
    pair.wait_until_served(&mut one, sql);
    pair.both[1].kill();
    wait_until(SOON, "nothing is served", || pair.runs(&mut one, sql));
    // With its number, somebody else takes its place.
    pair.both[1] = start(&pair.database, config(&redis, 2, PATIENT));
    pair.wait_until_shared();
    one.value(sql);
    pair.wait_until_served(&mut one, sql);
}

#[test]
fn a_commit_that_cannot_be_told_waits_until_nobody_serves_what_it_changes() {
    let redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_untold", PATIENT);
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    let sql = "SELECT v FROM reg WHERE k = 1";
    other.value(sql);
    pair.wait_until_served(&mut other, sql);
    redis.command("ACL SETUSER t1 off");
    redis.command("CLIENT KILL USER t1");
    one.query("UPDATE reg SET v = 99 WHERE k = 1");
    assert_eq!(other.value(sql), Some("99".to_owned()));
    // From now on it need not wait.
    for n in 100..110 {
        one.query(&format!("UPDATE reg SET v = {n} WHERE k = 1"));
        assert_eq!(other.value(sql), Some(n.to_string()));
    }
    redis.command("ACL SETUSER t1 on");
    pair.wait_until_shared();
    assert_eq!(other.value(sql), Some("109".to_owned()));
}

#[test]
fn a_redis_that_is_full_or_read_only_is_as_one_that_is_gone() {
    let redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_full", BRISK);
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    let sql = "SELECT v FROM reg WHERE k = 1";
    for (n, [trouble, remedy, word]) in [
        ["CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"],
        ["REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "replica"],
    ]
    .iter()
    .enumerate()
    {
        other.value(sql);
        redis.command(trouble);
        one.query(&format!("UPDATE reg SET v = {} WHERE k = 1", n + 50));
        assert_eq!(other.value(sql), Some((n + 50).to_string()));
        wait_until(LONG, "nothing is served", || pair.serving() == 0.0);
        assert!(pair.both.iter().all(|one| one.log().contains(word)), "{}", pair.both[0].log());
        redis.command(remedy);
        pair.wait_until_shared();
        assert_eq!(other.value(sql), Some((n + 50).to_string()));
    }
}

#[test]
fn a_redis_that_refuses_the_password_or_knows_no_scripts_costs_no_statement() {
    let database = test_database("shared_refused");
    let direct = shared_cluster().primary().url(ROLE, &database);
    Client::connect(&direct).query(SCHEMA);
    for (arguments, word) in [
        (&["--requirepass", "another"][..], "Password authentication failed"),
        (&["--rename-command", "EVALSHA", ""][..], "unknown command"),
    ] {
        let redis = Redis::start(&[&USERS[..7], arguments].concat());
        let url = match word {
            "unknown command" => redis.url_as("t1", "secret"),
            _ => redis.url_as("t1", "wrong"),
        };
        let toml = format!("peer_id = 1\n[pool]\nsize_min = 0\n[cache.redis]\nurl = \"{url}\"\n");
        let tidegate = start(&database, toml);
        let mut client = Client::connect(&tidegate.url(ROLE, &database));
        client.query("UPDATE reg SET v = v + 1 WHERE k = 1");
        wait_until(LONG, "it is said", || tidegate.log().contains(word));
        assert!(!tidegate.log().contains("wrong@"), "a password is nobody's business");
        client.query("UPDATE reg SET v = v + 1 WHERE k = 1");
        let seen = client.value("SELECT v FROM reg WHERE k = 1");
        assert_eq!(seen, Client::connect(&direct).value("SELECT v FROM reg WHERE k = 1"));
    }
}

#[test]
fn what_a_process_that_is_killed_had_under_way_is_waited_for() {
    let redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_killed", BRISK);
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    let sql = "SELECT v FROM reg WHERE k = 0";
    other.value(sql);
    pair.wait_until_served(&mut other, sql);
    // Long enough for somebody else to take its place meanwhile.
    let update = "UPDATE reg SET v = 7 WHERE k = 0 AND pg_sleep(8) IS NOT NULL";
    one.send(pipeline().query(update).bytes());
    crate::own::wait_until_running(shared_cluster(), &pair.database, "pg_sleep(8)", 1);
    pair.both[0].kill();
    let direct = || {
        let url = shared_cluster().primary().url(ROLE, &pair.database);
        Client::connect(&url).value(sql)
    };
    assert_eq!(direct(), Some("0".to_owned()), "it has not been committed yet");
    pair.both[0] = start(&pair.database, config(&redis, 1, BRISK));
    pair.wait_until_shared();
    let (mut one, mut other) = (pair.connect(0), pair.connect(1));
    for client in [&mut one, &mut other] {
        assert_eq!(client.value(sql), Some("7".to_owned()));
    }
}

#[test]
fn nobody_goes_back_whatever_becomes_of_redis() {
    let mut redis = Redis::start(&USERS);
    let mut pair = Pair::start(&redis, "shared_history", BRISK);
    let both = pair.both.each_ref().map(|one| {
        let (address, database) = (one.url(ROLE, &pair.database), pair.database.clone());
        (address, database)
    });
    let served = || {
        let hits = |one: &Tidegate| metric(one, "tidegate_cache_l2_looks_total");
        pair.both.iter().map(hits).sum::<f64>()
    };
    let goes_on = || {
        wait_until(LONG, "both serve again", || pair.serving() == 2.0);
        let before = served();
        wait_until(LONG, "answers are asked for", || served() > before + 50.0);
    };
    observe(&|which| Client::connect(&both[which % 2].0), 0, || {
        wait_for(MOMENT);
        for _ in 0..2 {
            redis.command("FLUSHALL");
            goes_on();
            redis.kill();
            wait_for(MOMENT);
            redis.start_again();
            goes_on();
            redis.pause();
            wait_for(MOMENT);
            redis.resume();
            goes_on();
            redis.command("SCRIPT FLUSH");
            goes_on();
            redis.command("CLIENT KILL TYPE normal");
            goes_on();
            // One is shut out, and the other goes on for as long as it may.
            for user in ["t1", "t2"] {
                redis.command(&format!("ACL SETUSER {user} off"));
                redis.command(&format!("CLIENT KILL USER {user}"));
                wait_for(MOMENT);
                redis.command(&format!("ACL SETUSER {user} on"));
                goes_on();
            }
        }
    });
    pair.wait_until_shared();
}
