//! What a write takes (W1 to W13): always at least what it changes.

use super::catalogue::{DATABASE, Examples, names};
use crate::capture::Answer;
use crate::key::{Key, KeyParts};
use crate::lru::Bounds;
use crate::store::{Found, Reader, Store, Tag};
use crate::work::{Block, Ran, Work};
use crate::written::{Written, written};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::statement::analyse;

fn database() -> Arc<str> {
    Arc::from(DATABASE)
}

fn of(examples: &mut Examples, sql: &str) -> Written {
    let shape = examples.shape(sql).shape;
    written(&shape, &analyse(sql.as_bytes()), &database(), Some(&examples.tables))
}

#[track_caller]
fn take_tables(statements: &[(&str, &[&str])]) {
    let mut examples = Examples::new();
    for (sql, tables) in statements {
        let Written::Tags(tags) = of(&mut examples, sql) else {
            panic!("{sql}: {:?}", of(&mut examples, sql))
        };
        assert_eq!(names(&tags), *tables, "{sql}");
    }
}

#[track_caller]
fn take(what: &Written, statements: &[&str]) {
    let mut examples = Examples::new();
    for sql in statements {
        assert_eq!(of(&mut examples, sql), *what, "{sql}");
    }
}

#[test]
fn w1_writes_take_their_tables() {
    take_tables(&[
        ("INSERT INTO w VALUES (1)", &["w"]),
        ("INSERT INTO w VALUES (1) ON CONFLICT (v) DO UPDATE SET v = 2", &["w"]),
        ("INSERT INTO w SELECT v FROM p", &["w"]),
        ("UPDATE w SET v = 1 FROM p WHERE p.v = w.v", &["w"]),
        ("DELETE FROM w USING p WHERE p.v = w.v", &["w"]),
        ("MERGE INTO w USING p ON p.v = w.v WHEN MATCHED THEN DELETE", &["w"]),
        ("COPY w FROM STDIN", &["w"]),
        ("UPDATE public.w SET v = 1", &["w"]),
        ("UPDATE ONLY w SET v = 1", &["w"]),
        // By a view, its table and whose rows follow.
        ("UPDATE tv SET v = 1", &["t", "tv", "u", "w"]),
    ]);
    take(&Written::Cluster, &["TRUNCATE w", "TRUNCATE t, u CASCADE"]);
    take(&Written::Nothing, &["SELECT v FROM t", "COPY t TO STDOUT", "SELECT v FROM t FOR UPDATE"]);
}

#[test]
fn w2_rows_that_follow_are_taken_to_their_end() {
    take_tables(&[
        ("DELETE FROM t WHERE v = 1", &["t", "u", "w"]),
        ("UPDATE t SET id = 2 WHERE id = 1", &["t", "u", "w"]),
        ("DELETE FROM u", &["u", "w"]),
        ("DELETE FROM w", &["w"]),
    ]);
}

#[test]
fn w2_none_follow_where_no_key_changes_and_nothing_is_deleted() {
    take_tables(&[
        ("UPDATE t SET v = 2 WHERE id = 1", &["t"]),
        ("UPDATE t SET v = 2, \"ID\" = 3 WHERE id = 1", &["t"]),
        ("UPDATE t SET (v, id) = (SELECT 1, 2)", &["t", "u", "w"]),
        ("UPDATE t SET id[1] = 2", &["t", "u", "w"]),
        ("UPDATE t SET v = t2.v FROM t t2 WHERE t2.id = t.v", &["t"]),
        // Deletes alone are followed.
        ("UPDATE u SET id = 2", &["u"]),
        ("INSERT INTO t (v) VALUES (1)", &["t"]),
        ("INSERT INTO t SELECT * FROM t", &["t"]),
        ("INSERT INTO t (v) VALUES (1) ON CONFLICT (v) DO UPDATE SET id = 7", &["t", "u", "w"]),
        ("INSERT INTO t VALUES (1), (2) ON CONFLICT (v) DO UPDATE SET v = excluded.v", &["t"]),
        // What has a second one to write may delete from it.
        ("WITH x AS (DELETE FROM t RETURNING v) UPDATE u SET v = 1 FROM x", &["t", "u", "w"]),
        ("WITH x AS (UPDATE t SET v = 1 RETURNING v) SELECT * FROM x", &["t", "u", "w"]),
        (
            "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN UPDATE SET v = 1",
            &["t", "u", "w"],
        ),
        // By way of a view.
        ("UPDATE tv SET v = 1", &["t", "tv", "u", "w"]),
        // A generated column is what any other makes it; of a key of two columns one is enough.
        ("UPDATE parent SET v = 1", &["parent", "w"]),
        ("UPDATE keyed SET b = 1", &["keyed", "w"]),
        ("UPDATE keyed SET c = 1", &["keyed"]),
        // A row may move from one partition to another, which is to delete it from one.
        ("UPDATE parts SET c = 1", &["part", "parts", "w"]),
    ]);
}

#[test]
fn w3_what_triggers_and_rules_may_do_takes_all_rows() {
    take(
        &Written::Rows,
        &[
            "UPDATE trg SET v = 1",
            "INSERT INTO trg VALUES (1)",
            // A trigger on what follows.
            "DELETE FROM followed",
            "COPY trg FROM STDIN",
            "WITH x AS (DELETE FROM trg RETURNING v) INSERT INTO w SELECT v FROM x",
        ],
    );
}

#[test]
fn w4_functions_that_may_write_take_all_rows() {
    take(
        &Written::Rows,
        &[
            "SELECT poke(1)",
            "SELECT v FROM t WHERE poke(v) > 0",
            "SELECT * FROM vpoke",
            "INSERT INTO w SELECT * FROM vpoke",
            "CALL push(1)",
            "EXECUTE s",
            "SELECT unheard_of(1)",
            "SELECT query_to_xml('SELECT poke(1)', true, false, '')",
            "DECLARE c CURSOR FOR SELECT poke(1)",
        ],
    );
    take(&Written::Cluster, &["DO $$ BEGIN UPDATE t SET v = 1; END $$"]);
    // PostgreSQL's own change no rows, nor do those that are stable.
    take(
        &Written::Nothing,
        &["SELECT nextval('seq')", "SELECT random() FROM t", "SELECT spy(1)", "SELECT own(1)"],
    );
    // Where functions may change what names mean, that is taken, too.
    let mut examples = Examples::with(|builder| builder.define());
    for sql in ["SELECT poke(1)", "CALL push(1)", "UPDATE trg SET v = 1"] {
        assert_eq!(of(&mut examples, sql), Written::Database, "{sql}");
    }
}

#[test]
fn w5_a_parent_takes_its_children_and_a_child_is_read_by_its_parent() {
    take_tables(&[
        ("UPDATE p SET v = 1", &["p", "p1", "p2"]),
        ("INSERT INTO p1 VALUES (1)", &["p1"]),
    ]);
    // What reads the parent depends on each child: see r22.
    take(
        &Written::Cluster,
        &[
            "ALTER TABLE p ATTACH PARTITION w FOR VALUES FROM (1) TO (2)",
            "ALTER TABLE p DETACH PARTITION p1",
            "ALTER TABLE w INHERIT parent",
            "ALTER TABLE w NO INHERIT parent",
        ],
    );
}

#[test]
fn w6_w7_w8_what_changes_names_or_rights_takes_everything() {
    take(
        &Written::Cluster,
        &[
            "CREATE TABLE x (a int)",
            "CREATE TABLE x AS SELECT v FROM t",
            "CREATE VIEW x AS SELECT v FROM t",
            "CREATE OR REPLACE VIEW tv AS SELECT 1 AS v",
            "CREATE OR REPLACE FUNCTION own(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE INDEX ON t (v)",
            "CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION note()",
            "CREATE RULE x AS ON INSERT TO t DO INSTEAD NOTHING",
            "CREATE OPERATOR === (FUNCTION = own, LEFTARG = int)",
            "CREATE CAST (text AS mood) WITH INOUT",
            "ALTER TABLE t ADD COLUMN x int",
            "ALTER TABLE t RENAME TO x",
            "ALTER TABLE t SET SCHEMA other",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "ALTER TYPE mood ADD VALUE 'fair'",
            "ALTER TEXT SEARCH CONFIGURATION english DROP MAPPING FOR word",
            "ALTER COLLATION x REFRESH VERSION",
            "ALTER DATABASE d SET timezone = 'UTC'",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "DROP TABLE t",
            "DROP SCHEMA other CASCADE",
            "COMMENT ON TABLE t IS 'x'",
            "SECURITY LABEL ON TABLE t IS 'x'",
            "IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z",
            // W7
            "GRANT SELECT ON t TO PUBLIC",
            "REVOKE ALL ON t FROM PUBLIC",
            "GRANT reader TO app",
            "ALTER ROLE app BYPASSRLS",
            "CREATE ROLE x",
            "DROP ROLE x",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
            "CREATE POLICY x ON t USING (true)",
            "REASSIGN OWNED BY a TO b",
            // W8
            "REFRESH MATERIALIZED VIEW tm",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY tm",
        ],
    );
    // What these move, nobody reads: system columns are in no answer.
    take(&Written::Nothing, &["VACUUM FULL t", "ANALYZE t", "REINDEX TABLE t"]);
}

#[test]
fn w9_what_is_inside_another_statement_counts_as_itself() {
    take_tables(&[
        ("WITH x AS (DELETE FROM w RETURNING v) SELECT * FROM x", &["w"]),
        ("WITH x AS (DELETE FROM w RETURNING v) INSERT INTO p1 SELECT v FROM x", &["p1", "w"]),
        ("EXPLAIN ANALYZE UPDATE w SET v = 1", &["w"]),
        ("COPY (DELETE FROM w RETURNING v) TO STDOUT", &["w"]),
    ]);
    take(
        &Written::Cluster,
        &[
            "SELECT v INTO x FROM t",
            "CREATE TABLE x AS EXECUTE s",
            "CREATE TABLE x AS SELECT poke(1)",
        ],
    );
    take(&Written::Nothing, &["EXPLAIN SELECT v FROM t", "PREPARE s AS SELECT 1"]);
    // What EXPLAIN runs besides: it may be anything.
    let mut examples = Examples::new();
    for sql in [
        "EXPLAIN ANALYZE CREATE TABLE x AS SELECT v FROM t",
        "EXPLAIN (ANALYZE) CREATE MATERIALIZED VIEW x AS SELECT v FROM t",
        "EXPLAIN ANALYZE SELECT v INTO x FROM t",
        "EXPLAIN ANALYZE EXECUTE s",
        "EXPLAIN ANALYZE CREATE TABLE x AS EXECUTE s",
        "EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT poke(1)",
    ] {
        let what = of(&mut examples, sql);
        assert!(
            matches!(what, Written::Rows | Written::Database | Written::Cluster),
            "{sql}: {what:?}"
        );
    }
    let refresh = "EXPLAIN (ANALYZE, BUFFERS) REFRESH MATERIALIZED VIEW tm";
    let Written::Tags(tags) = of(&mut examples, refresh) else { panic!("{refresh}") };
    assert!(names(&tags).contains(&"tm"));
    take(
        &Written::Cluster,
        &[
            "EXPLAIN ANALYZE CREATE TABLE x AS SELECT v FROM t",
            "EXPLAIN ANALYZE SELECT v INTO x FROM t",
            "EXPLAIN ANALYZE CREATE TABLE x AS EXECUTE s",
        ],
    );
}

#[test]
fn w10_a_prepared_statement_counts_when_it_is_executed() {
    // By its text: PREPARE writes nothing, and what EXECUTE does the text does not tell.
    take(&Written::Nothing, &["PREPARE s AS UPDATE t SET v = 1", "DEALLOCATE s"]);
    take(&Written::Rows, &["EXECUTE s", "EXECUTE s(1)", "EXPLAIN ANALYZE EXECUTE s"]);
}

#[test]
fn w12_what_is_not_understood_takes_all_that_it_may_change() {
    take(
        &Written::Rows,
        &[
            "UPDATE t SET v = 1; UPDATE u SET v = 1",
            "BEGIN; UPDATE t SET v = 1; COMMIT",
            "UPDATE t SET",
            "UPDATE nowhere SET v = 1",
            "DELETE FROM nowhere.t",
        ],
    );
    take(
        &Written::Cluster,
        &[
            "UPDATE t SET v = 1; CREATE TABLE x (a int)",
            "FROBNICATE t",
            "UPDATE t SET v = 1; FROBNICATE",
        ],
    );
    // Without a catalogue, whatever writes may write any rows.
    let mut examples = Examples::new();
    for sql in ["UPDATE t SET v = 1", "SELECT v FROM tv"] {
        let shape = examples.shape(sql).shape;
        let what = written(&shape, &analyse(sql.as_bytes()), &database(), None);
        assert_eq!(what, Written::Rows, "{sql}");
    }
}

/// A store with one answer, read from `t`.
struct Kept {
    store: Store,
    examples: Examples,
    now: Instant,
}

impl Kept {
    fn new() -> Self {
        let bounds = Bounds { entries: 10, bytes: 1 << 20, ttl: Duration::from_secs(60) };
        let store = Store::new(bounds);
        let mut kept = Self { store, examples: Examples::new(), now: Instant::now() };
        kept.fill();
        kept
    }

    fn look(&mut self) -> Found {
        let (key, tags) = (Key::new(&KeyParts::default(), 0), [Tag::Relation(database(), 1)]);
        let stamp = self.store.stamp(&database(), self.now);
        self.store.look(&key, (&database(), stamp, &tags), Reader::default(), self.now)
    }

    fn fill(&mut self) {
        let Found::Fill(fill) = self.look() else { panic!("something is under way") };
        let key = Key::new(&KeyParts::default(), 0);
        self.store.put(key, fill, Answer::of(b"x"), Duration::from_secs(60), self.now);
        assert!(self.is_kept());
    }

    fn is_kept(&mut self) -> bool {
        matches!(self.look(), Found::Hit(..))
    }

    /// One statement, and what the server says of it.
    fn run(&mut self, work: &mut Work, sql: &str, tag: &[u8], (before, after): (Block, Block)) {
        let what = of(&mut self.examples, sql);
        for ran in [Ran::Sent(&what), Ran::Completed(tag), Ran::Ready { before, after, over: true }]
        {
            work.handle(ran, &database(), &mut self.store, self.now);
        }
    }
}

#[test]
fn w11_what_is_prepared_in_two_phases_is_taken_when_it_is_committed() {
    use Block::{None, Open};
    let (mut kept, mut work) = (Kept::new(), Work::default());
    kept.run(&mut work, "BEGIN", b"BEGIN", (None, Open));
    kept.run(&mut work, "UPDATE t SET v = 1", b"UPDATE 1", (Open, Open));
    kept.run(&mut work, "PREPARE TRANSACTION 'x'", b"PREPARE TRANSACTION", (Open, None));
    assert!(kept.is_kept(), "nobody sees it yet");
    // Whoever commits it need not be who wrote it.
    let mut other = Work::default();
    kept.run(&mut other, "ROLLBACK PREPARED 'y'", b"ROLLBACK PREPARED", (None, None));
    assert!(!kept.is_kept(), "which of the two it is, is not looked at");
    kept.fill();
    kept.run(&mut other, "COMMIT PREPARED 'x'", b"COMMIT PREPARED", (None, None));
    assert!(!kept.is_kept());
}

#[test]
fn savepoints_keep_what_was_written_and_a_rollback_takes_nothing() {
    use Block::{None, Open};
    let (mut kept, mut work) = (Kept::new(), Work::default());
    kept.run(&mut work, "BEGIN", b"BEGIN", (None, Open));
    kept.run(&mut work, "SAVEPOINT a", b"SAVEPOINT", (Open, Open));
    kept.run(&mut work, "UPDATE t SET v = 1", b"UPDATE 1", (Open, Open));
    kept.run(&mut work, "ROLLBACK TO a", b"ROLLBACK", (Open, Open));
    assert!(kept.is_kept());
    kept.run(&mut work, "COMMIT", b"COMMIT", (Open, None));
    assert!(!kept.is_kept(), "at least what it changes, though it has changed nothing");
    kept.fill();
    kept.run(&mut work, "BEGIN", b"BEGIN", (None, Open));
    kept.run(&mut work, "UPDATE t SET v = 1", b"UPDATE 1", (Open, Open));
    kept.run(&mut work, "ROLLBACK", b"ROLLBACK", (Open, None));
    assert!(kept.is_kept());
    // A COMMIT of a failed transaction is a ROLLBACK.
    kept.run(&mut work, "BEGIN", b"BEGIN", (None, Open));
    kept.run(&mut work, "UPDATE t SET v = 1", b"UPDATE 1", (Open, Open));
    kept.run(&mut work, "COMMIT", b"ROLLBACK", (Open, None));
    assert!(kept.is_kept());
}

#[test]
fn w13_what_is_written_past_us_is_taken_by_name_or_altogether() {
    let mut kept = Kept::new();
    let found =
        kept.examples.tables.relations_named(|schema, name| schema == "public" && name == "t");
    let tags: Vec<Tag> = found.into_iter().map(|oid| Tag::Relation(database(), oid)).collect();
    kept.store.bump(&tags, kept.now);
    assert!(!kept.is_kept());
    kept.fill();
    kept.store.bump(&[Tag::Rows(database())], kept.now);
    assert!(!kept.is_kept());
    // A change of the schema that nobody has sent is found by reading the catalogue again.
    kept.fill();
    kept.store.bump(&[Tag::Database(database())], kept.now);
    assert!(!kept.is_kept());
}
