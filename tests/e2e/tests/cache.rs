//! Answers that are kept: which are, who gets them, and that none is older than it may be.

mod api; // the cache as an API
mod applications; // what applications put, for all who share
mod clustered; // a Redis Cluster, its failovers, and a slot that moves
mod encrypted; // a Redis that is reached over TLS
mod following; // reads that wait for another of the same
mod history; // what readers see while writers write
mod inspected; // whether what is kept is true
mod named; // prepared statements, as drivers use them
mod pages; // an application, while others write
mod past; // what is written past Tidegate
mod sessions; // what a session has set, and what it is in the middle of
mod shared; // several Tidegates and one Redis
mod through; // answers that are read again: when they are written, before their time is over
mod warming; // answers that are there before anybody asks

use crate::own::{SOON, policies_answer};
use std::path::PathBuf;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Cluster, Message, Node, Tidegate, TidegateOptions, pipeline, shared_cluster,
    test_database, wait_until,
};

const SCHEMA: &str = include_str!("cache/schema.sql");
const READS: &str = include_str!("cache/reads.txt");
const WRITES: &str = include_str!("cache/writes.txt");
const CONFIG: &str = "workers = 2\n[pool]\nsize_min = 0\nsize_max = 5\n";
/// A policy that comes with Tidegate, told to keep all tables of the schema for a minute.
const TABLES: [&str; 29] = [
    "t", "u", "tv", "tnow", "tcast", "tfn", "tm", "p", "p1", "p2", "un", "rls", "trg", "audit",
    "seq", "pg_class", "rl", "a", "b", "reg", "fa", "fb", "fc", "fd", "pt", "parent", "child",
    "tvv", "vrls",
];

/// Which servers answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum With {
    ThePrimary,
    Replicas,
}

/// A Tidegate that keeps answers, in front of servers that write down each statement.
pub struct Kept {
    pub tidegate: Tidegate,
    pub database: String,
    logs: Vec<PathBuf>,
    marks: usize,
}

impl Kept {
    pub fn start(cluster: &Cluster, name: &str, schema: &str, with: With) -> Kept {
        Self::start_with(cluster, name, schema, with, CONFIG)
    }

    pub fn start_with(
        cluster: &Cluster,
        name: &str,
        schema: &str,
        with: With,
        config: &str,
    ) -> Kept {
        let database = test_database(name);
        let mut direct = Client::connect(&cluster.primary().url(ROLE, &database));
        let answer = direct.query(schema);
        assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
        let all = format!("ALTER DATABASE {database} SET log_statement = 'all'");
        cluster.primary().psql(&all).unwrap();
        cluster.wait_until_caught_up().unwrap();
        let mut options = TidegateOptions::for_cluster(cluster, &database);
        if with == With::ThePrimary {
            options.replicas.clear();
        }
        options.toml = Some(config.to_owned());
        let tidegate = Tidegate::start(options);
        wait_until(SOON, "policies answer", || policies_answer(&tidegate));
        let logs = cluster.nodes().map(Node::log_path).collect();
        let mut kept = Kept { tidegate, database, logs, marks: 0 };
        kept.set_rules(r#""ttl_ms": 60000"#);
        kept
    }

    /// The same rule for all tables of the schema.
    fn set_rules(&mut self, rule: &str) {
        let rules: Vec<String> =
            TABLES.iter().map(|table| format!(r#"{{"table": "{table}", {rule}}}"#)).collect();
        let settings = format!(r#"{{"rules": [{}]}}"#, rules.join(", "));
        let answer = self.tidegate.admin_put("/api/v1/plugins/caching/config", &settings);
        assert_eq!(answer.status, 200, "{answer:?}");
        self.wait_until_kept();
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.tidegate.url(ROLE, &self.database))
    }

    pub fn mark(&mut self) -> String {
        self.marks += 1;
        format!("/* {} {} */", self.database, self.marks)
    }

    pub fn was_run(&self, mark: &str) -> bool {
        self.times_run(mark) > 0
    }

    /// How often a statement with this mark has begun, or been prepared.
    pub fn times_run(&self, mark: &str) -> usize {
        let marked = |log: &PathBuf| {
            let log = std::fs::read_to_string(log).unwrap();
            let is_logged = |line: &&str| line.contains(" LOG: ") && line.contains(mark);
            log.lines().filter(is_logged).count()
        };
        self.logs.iter().map(marked).sum()
    }

    /// A counter of this process.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let metrics = self.tidegate.admin_get("/metrics").body;
        let line = metrics
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        let value =
            line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("{name} is missing in\n{metrics}"))
    }

    /// The answer, and whether a server ran it.
    fn read(&mut self, client: &mut Client, sql: &str) -> (Vec<Message>, bool) {
        let mark = self.mark();
        let answer = client.query(&format!("{sql} {mark}"));
        (answer, self.was_run(&mark))
    }

    /// Does a server run it?
    fn runs(&mut self, client: &mut Client, sql: &str) -> bool {
        self.read(client, sql).1
    }

    /// Until the catalogue that tells what may be kept is read, again.
    fn wait_until_kept(&mut self) {
        wait_until(SOON, "answers are kept", || {
            let mut client = self.connect();
            let sql = "SELECT v FROM t WHERE id = 9";
            self.runs(&mut client, sql);
            !self.runs(&mut client, sql)
        });
    }
}

#[test]
fn a_hit_needs_no_server_and_is_the_same_to_the_byte() {
    let mut kept = Kept::start(shared_cluster(), "cache_hit", SCHEMA, With::ThePrimary);
    let (mut one, mut other) = (kept.connect(), kept.connect());
    let sql = "SELECT id, v, d, m FROM t ORDER BY id";
    let (first, ran) = kept.read(&mut one, sql);
    assert!(ran);
    for client in [&mut one, &mut other] {
        let (again, ran) = kept.read(client, sql);
        assert!(!ran);
        assert_eq!(first, again);
    }
    // Other settings, other answers; and back.
    other.query("SET DateStyle = 'German'");
    let (german, ran) = kept.read(&mut other, sql);
    assert!(ran && german != first);
    other.query("RESET DateStyle");
    assert_eq!(kept.read(&mut other, sql), (first.clone(), false));
    other.query("SET tidegate.cache = 'off'");
    assert_eq!(kept.read(&mut other, sql), (first.clone(), true));
    other.query("SET tidegate.cache = 'on'");
    assert_eq!(kept.read(&mut other, sql), (first, false));
    // In a transaction, the server.
    other.query("BEGIN");
    assert!(kept.runs(&mut other, sql));
    other.query("COMMIT");
    assert!(!kept.runs(&mut other, sql));
}

#[test]
fn large_answers_are_kept_compressed_and_come_back_as_they_were() {
    let config = format!("{CONFIG}[cache]\ncompress_kib_min = 4\n");
    let cluster = shared_cluster();
    let mut kept = Kept::start_with(cluster, "cache_large", SCHEMA, With::ThePrimary, &config);
    let mut client = kept.connect();
    let (before, bytes) =
        (kept.counter("tidegate_cache_compressed_total"), kept.counter("tidegate_cache_bytes"));
    // Rows that repeat each other, and digests that do not.
    let repeated = "SELECT t.id, repeat(u.v::text, 400) FROM t, u ORDER BY t.id, u.id";
    let noise = "SELECT string_agg(sha512((t.id * 100 + u.id)::text::bytea), '' ORDER BY t.id, u.id) FROM t, u";
    for sql in [repeated, noise] {
        let (first, ran) = kept.read(&mut client, sql);
        assert!(ran && first.iter().all(|message| message.tag != b'E'), "{first:?}");
        for _ in 0..3 {
            assert_eq!(kept.read(&mut client, sql), (first.clone(), false), "{sql}");
        }
        let batch = pipeline().parse("", sql, &[]).bind("", "", &[]).execute("").sync();
        client.send(batch.bytes());
        let first = client.read_until_ready();
        client.send(batch.bytes());
        assert_eq!(client.read_until_ready(), first, "{sql}");
    }
    // The repeated ones in both forms: of some 40 kB each, a tenth.
    assert_eq!(kept.counter("tidegate_cache_compressed_total") - before, 2);
    assert!(kept.counter("tidegate_cache_compression_saved_bytes_total") > 60_000);
    assert!(kept.counter("tidegate_cache_bytes") - bytes < 40_000);
}

#[test]
fn a_batch_is_answered_like_a_server_would() {
    let mut kept = Kept::start(shared_cluster(), "cache_batch", SCHEMA, With::ThePrimary);
    let (mut one, mut other) = (kept.connect(), kept.connect());
    let batch = |mark: &str, id: &str| {
        let sql = format!("SELECT v, m FROM t WHERE id = $1 {mark}");
        pipeline()
            .parse("", &sql, &[23])
            .bind("", "", &[Some(id)])
            .describe(tidegate_test_support::pipeline::Of::Portal(""))
            .execute("")
            .sync()
    };
    let mut ask = |client: &mut Client, id: &str| {
        let mark = kept.mark();
        client.send(batch(&mark, id).bytes());
        (client.read_until_ready(), kept.was_run(&mark))
    };
    let (first, ran) = ask(&mut one, "3");
    assert!(ran);
    assert_eq!(ask(&mut other, "3"), (first.clone(), false));
    let (another, ran) = ask(&mut other, "4");
    assert!(ran && another != first, "another parameter is another answer");
    assert_eq!(ask(&mut one, "4"), (another, false));
    // The unnamed statement is there after a hit, as after a server's answer.
    other.send(pipeline().bind("", "", &[Some("5")]).execute("").sync().bytes());
    let answer = other.read_until_ready();
    assert!(
        answer.iter().any(|m| m.tag == b'D' && m.row()[0].as_deref() == Some("5")),
        "{answer:?}"
    );
    // Named statements, without a description.
    let prepare = pipeline().parse("s", "SELECT v FROM t WHERE id = $1", &[23]).sync();
    let mut seen = Vec::new();
    for client in [&mut one, &mut other] {
        client.send(prepare.bytes());
        client.read_until_ready();
        client.send(pipeline().bind("", "s", &[Some("6")]).execute("").sync().bytes());
        seen.push(client.read_until_ready());
    }
    assert_eq!(seen[0], seen[1]);
    // A bound of rows, a portal with a name, two in one batch: the server.
    let rows = pipeline().bind("", "s", &[Some("6")]).execute_rows("", 1).sync();
    one.send(rows.bytes());
    let answer = one.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == b's'), "{answer:?}");
}

#[test]
fn a_write_is_seen_by_all_and_a_rollback_takes_nothing() {
    let mut kept = Kept::start(shared_cluster(), "cache_write", SCHEMA, With::ThePrimary);
    let (mut reader, mut writer) = (kept.connect(), kept.connect());
    let sql = "SELECT v FROM t WHERE id = 1";
    kept.runs(&mut reader, sql);
    for n in 100..110 {
        assert!(!kept.runs(&mut reader, sql));
        writer.query(&format!("UPDATE t SET v = {n} WHERE id = 1"));
        assert_eq!(reader.value(sql), Some(n.to_string()));
    }
    writer.query("BEGIN");
    writer.query("UPDATE t SET v = 1 WHERE id = 1");
    assert_eq!(writer.value(sql), Some("1".to_owned()));
    assert!(!kept.runs(&mut reader, sql), "nothing is committed yet");
    writer.query("ROLLBACK");
    assert!(!kept.runs(&mut reader, sql), "it was rolled back");
    writer.query("BEGIN");
    writer.query("SAVEPOINT a");
    writer.query("UPDATE t SET v = 2 WHERE id = 1");
    writer.query("RELEASE a");
    writer.query("COMMIT");
    assert_eq!(reader.value(sql), Some("2".to_owned()));
    // What a client that is gone has begun is undone, and no mark of it stays.
    writer.query("BEGIN");
    writer.query("UPDATE t SET v = 3 WHERE id = 1");
    drop(writer);
    kept.runs(&mut reader, sql);
    assert!(!kept.runs(&mut reader, sql));
    // COPY and prepared writes.
    let mut writer = kept.connect();
    let count = "SELECT count(*) FROM t";
    assert_eq!(reader.value(count), Some("10".to_owned()));
    writer.send(pipeline().query("COPY t (id, v) FROM STDIN").bytes());
    writer.read_until(b'G');
    writer.send(pipeline().copy_data(b"11\t11\n").copy_done().bytes());
    writer.read_until_ready();
    assert_eq!(reader.value(count), Some("11".to_owned()));
    let insert = "INSERT INTO t (id, v) VALUES ($1, 1) RETURNING id";
    writer.send(pipeline().parse("i", insert, &[23]).sync().bytes());
    writer.read_until_ready();
    for (id, rows) in [(12, 0), (13, 1)] {
        let id = id.to_string();
        let batch = pipeline().bind("", "i", &[Some(&id)]).execute_rows("", rows).sync();
        writer.send(batch.bytes());
        writer.read_until_ready();
        let seen: u32 = reader.value(count).unwrap().parse().unwrap();
        assert_eq!(seen.to_string(), id);
    }
}

#[test]
fn databases_and_users_have_answers_of_their_own() {
    let mut kept = Kept::start(shared_cluster(), "cache_one", SCHEMA, With::ThePrimary);
    // Made in another order, so that what has the same name is another relation.
    let other = test_database("cache_other");
    let mut direct = Client::connect(&shared_cluster().primary().url(ROLE, &other));
    direct.query("CREATE TABLE u (id int, v int); CREATE TABLE t (id int PRIMARY KEY, v int)");
    direct.query("INSERT INTO t VALUES (1, 1000)");
    let url = kept.tidegate.url(ROLE, &other);
    let (mut here, mut there) = (kept.connect(), Client::connect(&url));
    let sql = "SELECT v FROM t WHERE id = 1";
    wait_until(SOON, "answers of the other database are kept", || {
        there.query("UPDATE t SET v = 1000");
        there.value(sql);
        // Past Tidegate, so that what is kept is told apart.
        direct.query("UPDATE t SET v = 7");
        there.value(sql) == Some("1000".to_owned())
    });
    for n in 1..6 {
        for (client, value) in [(&mut here, n), (&mut there, 1000 + n)] {
            client.query(&format!("UPDATE t SET v = {value} WHERE id = 1"));
            assert_eq!(client.value(sql), Some(value.to_string()));
            assert_eq!(client.value(sql), Some(value.to_string()));
        }
    }
    // A role that may not read is told so, whatever others were told.
    let role = "CREATE ROLE cache_stranger; GRANT cache_stranger TO app";
    shared_cluster().primary().psql(role).unwrap();
    assert!(!kept.runs(&mut here, sql));
    here.query("SET ROLE cache_stranger");
    assert_eq!(crate::own::sqlstate(&mut here, sql), "42501");
    here.query("RESET ROLE");
    assert!(!kept.runs(&mut here, sql));
}

#[test]
fn each_read_is_kept_or_not_as_the_rules_say() {
    let mut kept = Kept::start(shared_cluster(), "cache_reads", SCHEMA, With::ThePrimary);
    let mut client = kept.connect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in READS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (wanted, sql) = (words.next().unwrap(), words.nth(1).unwrap());
        assert!(matches!(wanted, "kept" | "run"), "{line}");
        count += 1;
        // Some of these write, after which the catalogue is read again.
        kept.wait_until_kept();
        kept.runs(&mut client, sql);
        if kept.runs(&mut client, sql) != (wanted == "run") {
            wrong.push(line);
        }
    }
    assert!(count >= 60, "{count}");
    assert!(wrong.is_empty(), "{} of {count} are not so:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn each_write_takes_what_it_changes() {
    let mut kept = Kept::start(shared_cluster(), "cache_writes", SCHEMA, With::ThePrimary);
    let (mut reader, mut writer) = (kept.connect(), kept.connect());
    let mut wrong = Vec::new();
    for line in WRITES.lines().filter(|line| !line.starts_with('#')) {
        let (rule, rest) = line.split_once(' ').unwrap();
        let (read, write) = rest.split_once(" | ").unwrap();
        kept.wait_until_kept();
        // By now the catalogue is as new as the last change.
        kept.runs(&mut reader, read);
        assert!(!kept.runs(&mut reader, read), "{line}: it is not kept in the first place");
        for write in write.split(" ;; ") {
            let answer = writer.query(write);
            let failed = answer.iter().any(|message| message.tag == b'E');
            assert_eq!(failed, write.contains("(NULL)"), "{line}: {answer:?}");
        }
        if kept.runs(&mut reader, read) != (rule != "none") {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{} are not so:\n{}", wrong.len(), wrong.join("\n"));
}
