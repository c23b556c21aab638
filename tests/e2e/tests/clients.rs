//! Applications as their users write them: drivers in Python and JavaScript, Django, and PostgreSQL's own programs.
//!
//! The suites are scripts in `clients/`; each takes a connection string, says `ok <case>`, and fails as a process.
//! What they need is installed under `target/clients` by `cargo xtask test`.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::differential::front_url;
use tidegate_test_support::{
    password_of, shared_cluster, target_directory, test_database, wait_until,
};

/// A suite ends within this, with two cores and everything else running beside it.
const SUITE_TIME_MAX: Duration = Duration::from_secs(240);

#[test]
fn psycopg_3() {
    let url = front_url(ROLE, &test_database("psycopg3"));
    succeed(python().arg(script("psycopg3.py")).arg(url));
}

#[test]
fn asyncpg() {
    let url = front_url(ROLE, &test_database("asyncpg"));
    succeed(python().arg(script("asyncpg_suite.py")).arg(url));
}

#[test]
fn node_postgres() {
    let url = front_url(ROLE, &test_database("node"));
    let modules = installed("node/node_modules").parent().unwrap().to_owned();
    let mut node = Command::new("node");
    succeed(node.env("TIDEGATE_NODE_MODULES", modules).arg(script("node_postgres.mjs")).arg(url));
}

#[test]
fn django_with_parameters_bound_by_the_client() {
    let url = front_url(ROLE, &test_database("django"));
    succeed(python().arg(script("django_app/run.py")).arg(url));
}

#[test]
fn django_with_parameters_bound_by_the_server() {
    let url = front_url(ROLE, &test_database("django_bound"));
    succeed(
        python().env("DJANGO_SERVER_SIDE_BINDING", "1").arg(script("django_app/run.py")).arg(url),
    );
}

#[test]
fn pgbench_in_all_modes() {
    let url = front_url(ROLE, &test_database("pgbench"));
    succeed(postgres_program("pgbench").args(["-i", "-s", "1", "-q", &url]));
    for mode in ["simple", "extended", "prepared"] {
        // A thread for each client: pgbench waits in its thread until a statement is prepared, meanwhile the thread's
        // other clients stay inside their transactions, and those hold the connections that are waited for.
        for script in ["select-only", "tpcb-like", "simple-update"] {
            let output = succeed(
                postgres_program("pgbench")
                    .args(["-M", mode, "-b", script, "-c", "20", "-j", "20", "-t", "25"])
                    .args(["-n", &url]),
            );
            assert!(output.contains("transactions actually processed: 500/500"), "{output}");
            assert!(output.contains("failed transactions: 0 "), "{output}");
        }
    }
    // Every transaction's sum is in three tables and in the history, or in none.
    let sums = psql(
        &url,
        "SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts) FROM pgbench_history",
    );
    assert_eq!(sums, "3000|t");
}

#[test]
fn pgbench_that_connects_for_every_transaction() {
    let url = front_url(ROLE, &test_database("pgbench_connect"));
    succeed(postgres_program("pgbench").args(["-i", "-s", "1", "-q", &url]));
    let output =
        succeed(postgres_program("pgbench").args(["-C", "-S", "-c", "5", "-t", "20", "-n", &url]));
    assert!(output.contains("transactions actually processed: 100/100"), "{output}");
}

#[test]
fn psql_copies_describes_and_pages_through() {
    let url = front_url(ROLE, &test_database("psql"));
    let folder = Folder::new("psql");
    let file = folder.0.join("copied.tsv");
    let script = format!(
        "CREATE TABLE t (a int PRIMARY KEY, b text DEFAULT 'x');\n\
         INSERT INTO t SELECT n, 'text ' || n FROM generate_series(1, 5000) n;\n\
         \\copy (SELECT * FROM t ORDER BY a) TO '{file}'\n\
         TRUNCATE t;\n\
         \\copy t FROM '{file}'\n\
         SELECT count(*), min(b) FROM t;\n\
         \\d t\n\
         SELECT a AS first FROM t ORDER BY a LIMIT 1 \\gset\n\
         \\echo first is :first\n\
         SELECT a, b FROM t \\gdesc\n\
         \\set FETCH_COUNT 100\n\
         SELECT a FROM t ORDER BY a OFFSET 4997;\n\
         SELECT format('SELECT %s * 7', n) FROM generate_series(1, 2) n \\gexec\n\
         \\set ON_ERROR_ROLLBACK on\n\
         BEGIN;\nINSERT INTO t VALUES (9999);\n\
         \\set ON_ERROR_STOP off\nINSERT INTO t VALUES (9999);\n\\set ON_ERROR_STOP on\n\
         COMMIT;\nSELECT 'kept ' || count(*) FROM t WHERE a = 9999;\n",
        file = file.display()
    );
    let path = folder.0.join("script.sql");
    std::fs::write(&path, script).unwrap();
    let output = succeed(
        postgres_program("psql")
            .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(&path)
            .arg(&url),
    );
    let wanted = ["5000|text 1", "a|integer||not null|", "first is 1", "a|integer\nb|text"];
    for wanted in wanted.into_iter().chain(["4998\n4999\n5000\n7\n14\n", "kept 1"]) {
        assert!(output.contains(wanted), "{wanted:?} is missing in\n{output}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 5000);
}

#[test]
fn psql_reads_a_large_result() {
    let url = front_url(ROLE, &test_database("large"));
    let rows = psql(&url, "SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n");
    assert_eq!(rows.lines().count(), 50_000);
    assert!(rows.ends_with('x') && rows.lines().all(|row| row.len() > 1000));
}

#[test]
fn a_dump_restores_to_the_same_database() {
    let (from, to) = (test_database("dumped"), test_database("restored"));
    let (from, to) = (front_url(ROLE, &from), front_url(ROLE, &to));
    psql(
        &from,
        "CREATE TYPE mood AS ENUM ('glad', 'sad'); \
         CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, t text); \
         CREATE TABLE b (a int REFERENCES a, n numeric DEFAULT 0.5); \
         INSERT INTO a (m, t) SELECT 'sad', repeat('line\n', 10) FROM generate_series(1, 2000); \
         INSERT INTO b SELECT id FROM a; CREATE VIEW v AS SELECT * FROM a JOIN b ON a.id = b.a; \
         CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$",
    );
    let folder = Folder::new("dump");
    let archive = folder.0.join("archive");
    succeed(postgres_program("pg_dump").args(["-Fc", "-f"]).arg(&archive).arg(&from));
    succeed(postgres_program("pg_restore").args(["--exit-on-error", "-d", &to]).arg(&archive));
    let dump = |url: &str| succeed(postgres_program("pg_dump").args(["--no-comments", url]));
    // The dump names a random key since version 15.14, so compare without the lines that hold it.
    let stable = |dump: String| {
        let lines = dump.lines().filter(|line| !line.contains("restrict"));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(stable(dump(&from)), stable(dump(&to)));
}

pub fn python() -> Command {
    let mut python = Command::new(installed("venv/bin/python"));
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

fn postgres_program(name: &str) -> Command {
    shared_cluster().installation().client(name)
}

fn psql(url: &str, sql: &str) -> String {
    succeed(postgres_program("psql").args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql, url]))
        .trim_end()
        .to_owned()
}

pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

pub fn installed(name: &str) -> PathBuf {
    let path = target_directory().join("clients").join(name);
    assert!(path.exists(), "{} is missing: `cargo xtask setup` installs it", path.display());
    path
}

/// Runs a program to its end; its output, standard error last. A failure or a hang panics with that output.
pub fn succeed(command: &mut Command) -> String {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = |stream: &mut dyn Read| {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    let stdout = std::thread::spawn(move || reader(&mut stdout));
    let stderr = std::thread::spawn(move || reader(&mut stderr));
    let mut status = None;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(SUITE_TIME_MAX, "the program ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
    }));
    if ended.is_err() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = stdout.join().unwrap() + &stderr.join().unwrap();
    let shown = format!("{command:?}").replace(&password_of(ROLE), "…");
    let succeeded = status.is_some_and(|status| status.success());
    assert!(succeeded, "{shown} ended with {status:?}:\n{output}");
    println!("{shown}\n{output}");
    output
}

/// A temporary folder of one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("tidegate-e2e-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
