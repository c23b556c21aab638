//! What is kept, and what is not (R1 to R26).

use super::catalogue::{DATABASE, Examples, function_oid, names};
use crate::judge::{Deny, judge};
use crate::tables::{Builder, RelationRow, Traits};
use crate::timeless::is_timeless;
use std::sync::Arc;
use tidegate_core::catalogue::RelationKind;

/// The tables that an answer is read from, or the rule that stands against keeping it.
fn judged(examples: &mut Examples, sql: &str) -> Result<Vec<&'static str>, Deny> {
    let known = examples.shape(sql);
    let text = &sql.as_bytes()[known.begin..known.end];
    if !is_timeless(text, b"") {
        return Err(Deny::DateWord);
    }
    let tags = judge(&known.shape, &Arc::from(DATABASE), &examples.tables)?;
    Ok(names(&tags))
}

#[track_caller]
fn not_kept(why: Deny, statements: &[&str]) {
    let mut examples = Examples::new();
    for sql in statements {
        assert_eq!(judged(&mut examples, sql), Err(why), "{sql}");
    }
}

#[track_caller]
fn kept(statements: &[(&str, &[&str])]) {
    let mut examples = Examples::new();
    for (sql, tables) in statements {
        assert_eq!(judged(&mut examples, sql).as_deref(), Ok(*tables), "{sql}");
    }
}

#[test]
fn r1_what_is_not_one_read_is_not_kept() {
    not_kept(
        Deny::NotOneRead,
        &[
            "SHOW work_mem",
            "EXPLAIN SELECT v FROM t",
            "EXPLAIN ANALYZE SELECT v FROM t",
            "COPY t TO STDOUT",
            "COPY (SELECT v FROM t) TO STDOUT",
            "FETCH ALL FROM c",
            "DECLARE c CURSOR FOR SELECT v FROM t",
            "EXECUTE s",
            "PREPARE s AS SELECT v FROM t",
            "DO $$ BEGIN END $$",
            "CALL push(1)",
            "LISTEN c",
            "CREATE TABLE x AS SELECT v FROM t",
            "SELECT v INTO x FROM t",
            "INSERT INTO t VALUES (1)",
            "BEGIN",
            "VACUUM t",
            "",
        ],
    );
    not_kept(Deny::Unknown, &["SELECT v FROM t; SELECT 1", "SELECT v FROM t; UPDATE t SET v = 1"]);
    kept(&[
        ("SELECT v FROM t", &["t"]),
        ("TABLE t", &["t"]),
        ("VALUES (1), (2)", &[]),
        ("(SELECT v FROM t) UNION ALL SELECT v FROM u", &["t", "u"]),
        ("WITH x AS (SELECT v FROM t) SELECT * FROM x, u", &["t", "u"]),
        (
            "SELECT (SELECT max(v) FROM t), EXISTS (SELECT FROM u WHERE u.v = w.v) FROM w",
            &["t", "u", "w"],
        ),
        ("SELECT v FROM t;", &["t"]),
    ]);
}

#[test]
fn r2_what_writes_on_the_way_is_not_kept() {
    not_kept(
        Deny::Writes,
        &[
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING v) SELECT * FROM x",
            "WITH x AS (UPDATE t SET v = 1 RETURNING v) SELECT * FROM x",
            "WITH x AS (DELETE FROM t RETURNING v) SELECT * FROM x",
            "WITH x AS (MERGE INTO t USING u ON t.v = u.v WHEN MATCHED THEN DELETE RETURNING t.v) SELECT * FROM x",
            "WITH a AS (SELECT v FROM u), x AS (DELETE FROM t USING a RETURNING t.v) SELECT * FROM x, a",
        ],
    );
}

#[test]
fn r3_what_locks_is_not_kept() {
    for strength in ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE", "UPDATE OF t SKIP LOCKED"] {
        not_kept(Deny::Locks, &[&format!("SELECT v FROM t FOR {strength}")]);
    }
    not_kept(Deny::Locks, &["SELECT * FROM (SELECT v FROM t FOR SHARE) x"]);
    let mut examples = Examples::new();
    assert!(judged(&mut examples, "SELECT pg_advisory_xact_lock(1) FROM t").is_err());
}

#[test]
fn r4_volatile_functions_wherever_they_are_called_are_not_kept() {
    let mut examples = Examples::new();
    for name in [
        "random()",
        "gen_random_uuid()",
        "clock_timestamp()",
        "nextval('seq')",
        "currval('seq')",
        "lastval()",
        "setval('seq', 1)",
        "set_config('a.b', 'c', false)",
        "pg_notify('c', 'x')",
        "pg_sleep(1)",
        "lo_get(1)",
        "pg_relation_size('t')",
        "pg_catalog.random()",
        "query_to_xml('SELECT 1', true, false, '')",
    ] {
        for sql in [
            format!("SELECT {name} FROM t"),
            format!("SELECT v FROM t WHERE {name} IS NOT NULL"),
            format!("SELECT v FROM t ORDER BY {name}"),
            format!("SELECT v FROM t, LATERAL (SELECT {name}) x"),
            format!("WITH x AS (SELECT {name} AS n) SELECT n FROM x"),
            format!("SELECT count(*) FILTER (WHERE {name} IS NULL) OVER () FROM t"),
        ] {
            let why = judged(&mut examples, &sql);
            // Some depend on literals besides.
            assert!(matches!(why, Err(Deny::Volatile | Deny::Stable)), "{sql}: {why:?}");
        }
    }
    not_kept(
        Deny::Volatile,
        &["SELECT * FROM random()", "SELECT * FROM vrandom", "SELECT * FROM deep"],
    );
    // What is called by an operator, a cast, a type or a column of a row, no text shows.
    let mut all = Builder::default();
    all.hidden(function_oid("poke"));
    assert!(all.build().is_none(), "nothing of such a database is kept");
}

#[test]
fn r5_stable_functions_are_not_kept_unless_settings_decide_all() {
    not_kept(
        Deny::Stable,
        &[
            "SELECT now()",
            "SELECT statement_timestamp() FROM t",
            "SELECT age(d) FROM t",
            "SELECT txid_current()",
            "SELECT pg_backend_pid() FROM t",
            "SELECT inet_client_addr()",
            "SELECT current_setting('work_mem')",
            "SELECT current_database()",
            "SELECT current_schemas(true)",
            "SELECT has_table_privilege('t', 'select')",
            "SELECT obj_description(1)",
            "SELECT pg_get_viewdef('tv')",
            "SELECT to_regclass('t')",
            "SELECT table_to_xml('t', true, false, '')",
            "SELECT v FROM t WHERE d > now()",
            "SELECT count(*) OVER (ORDER BY now()) FROM t",
        ],
    );
    kept(&[
        ("SELECT to_char(d, 'YYYY') FROM t", &["t"]),
        ("SELECT date_trunc('month', d), date_part('year', d) FROM t", &["t"]),
        ("SELECT extract(year FROM d) FROM t", &["t"]),
        ("SELECT json_agg(t) FROM t", &["t"]),
        ("SELECT to_tsvector(m) FROM t", &["t"]),
        ("SELECT d AT TIME ZONE 'UTC' FROM t", &["t"]),
        ("SELECT n FROM generate_series(1, 3) n, t", &["t"]),
        ("SELECT * FROM vchar", &["t", "vchar"]),
    ]);
}

#[test]
fn r6_words_of_the_moment_and_the_session_are_not_kept() {
    for word in [
        "CURRENT_DATE",
        "CURRENT_TIME",
        "CURRENT_TIMESTAMP",
        "CURRENT_TIMESTAMP(3)",
        "LOCALTIME",
        "LOCALTIMESTAMP",
        "CURRENT_USER",
        "CURRENT_ROLE",
        "SESSION_USER",
        "USER",
        "CURRENT_CATALOG",
        "CURRENT_SCHEMA",
    ] {
        let mut examples = Examples::new();
        for sql in [format!("SELECT {word} FROM t"), format!("SELECT v FROM t WHERE d < {word}")] {
            let why = judged(&mut examples, &sql);
            assert!(matches!(why, Err(Deny::Stable | Deny::Unknown)), "{sql}: {why:?}");
        }
    }
    not_kept(Deny::View, &["SELECT * FROM vnow"]);
}

#[test]
fn r7_words_that_mean_another_day_tomorrow_are_not_kept() {
    not_kept(
        Deny::DateWord,
        &[
            "SELECT v FROM t WHERE d < 'today'",
            "SELECT v FROM t WHERE d < 'Tomorrow'::date",
            "SELECT v FROM t WHERE d = ANY ('{yesterday}')",
            "SELECT v FROM t WHERE r && '[now,)'",
            "SELECT timestamptz 'now' FROM t",
            "SELECT s::date FROM t",
            "SELECT CAST(s AS timestamptz) FROM t",
            "SELECT (s || '')::timestamp FROM t",
            "SELECT s::date[] FROM t",
            "SELECT s::pg_catalog.date FROM t",
            r"SELECT E'tod\x61y' FROM t",
        ],
    );
    kept(&[
        ("SELECT date '2020-01-01' FROM t", &["t"]),
        ("SELECT '2020-01-01'::date FROM t", &["t"]),
        ("SELECT $1::date FROM t", &["t"]),
        ("SELECT v FROM t WHERE m LIKE 'snow%'", &["t"]),
    ]);
    assert!(!is_timeless(b"SELECT v FROM t WHERE d < $1", b"\0\0\0\x05today"));
    assert!(is_timeless(b"SELECT v FROM t WHERE d < $1", b"\0\0\0\x0a2020-01-01"));
}

#[test]
fn r8_what_users_have_made_is_not_kept_whatever_it_is_declared() {
    not_kept(
        Deny::UserFunction,
        &[
            "SELECT own(1) FROM t",
            "SELECT public.own(1) FROM t",
            "SELECT spy(1) FROM t",
            "SELECT v FROM t WHERE poke(1) = 1",
            "SELECT t.total FROM t",
            "SELECT \"total\" FROM t",
            "SELECT 'good'::mood FROM t",
            "SELECT v OPERATOR(public.+) 1 FROM t",
            "SELECT * FROM vown",
        ],
    );
    // A name of PostgreSQL's own that users have given, too.
    let mut examples = Examples::with(|builder| {
        builder.function(tidegate_core::catalogue::FunctionRow {
            oid: 17_000,
            schema: "public".to_owned(),
            name: "lower".to_owned(),
            volatile: false,
            calls: Vec::new(),
        });
    });
    assert_eq!(judged(&mut examples, "SELECT lower(m) FROM t"), Err(Deny::UserFunction));
    assert_eq!(judged(&mut examples, "SELECT pg_catalog.lower(m) FROM t"), Ok(vec!["t"]));
}

#[test]
fn r9_r10_what_is_temporary_or_unlogged_is_not_kept() {
    not_kept(Deny::Temporary, &["SELECT * FROM temporary", "SELECT * FROM pg_temp.t"]);
    not_kept(Deny::Unlogged, &["SELECT * FROM un", "SELECT * FROM t JOIN un ON true"]);
}

#[test]
fn r11_what_is_no_table_of_users_is_not_kept() {
    not_kept(
        Deny::NotATable,
        &[
            "SELECT last_value FROM seq",
            "SELECT * FROM ft",
            "SELECT * FROM pf",
            "SELECT relname FROM pg_class",
            "SELECT relname FROM pg_catalog.pg_class",
            "SELECT * FROM information_schema.tables",
            "SELECT ctid FROM t",
            "SELECT t.xmin FROM t",
            "SELECT v FROM t WHERE xmax = 0",
            "SELECT cmin, cmax, tableoid FROM t",
            "SELECT \"ctid\" FROM t",
        ],
    );
}

#[test]
fn r12_samples_are_not_kept() {
    let mut examples = Examples::new();
    for sql in [
        "SELECT v FROM t TABLESAMPLE system (50)",
        "SELECT v FROM t TABLESAMPLE bernoulli (1) REPEATABLE (7)",
        "SELECT v FROM t tablesample system (50)",
    ] {
        // The grammar does not follow it, so that it is told as R26.
        let why = judged(&mut examples, sql);
        assert!(matches!(why, Err(Deny::Sampled | Deny::Unknown)), "{sql}: {why:?}");
    }
}

#[test]
fn r13_tables_with_row_security_are_not_kept() {
    not_kept(
        Deny::RowSecurity,
        &["SELECT v FROM rls", "SELECT v FROM t, rls", "SELECT v FROM vrls"],
    );
}

#[test]
fn r20_reads_of_more_than_is_followed_are_not_kept() {
    let mut examples = Examples::with(|builder| {
        let many = 1_000..1_600;
        let row = |oid: u32, name: String, reads: Vec<u32>| RelationRow {
            oid,
            schema: "public".to_owned(),
            name,
            kind: RelationKind::Table,
            traits: Traits { persistence: b'p', ..Traits::default() },
            reads,
            calls: Vec::new(),
            followers: Vec::new(),
        };
        builder.relation(row(999, "many".to_owned(), many.clone().collect()));
        for oid in many {
            builder.relation(row(oid, format!("many{oid}"), Vec::new()));
        }
    });
    assert_eq!(judged(&mut examples, "SELECT v FROM many"), Err(Deny::TooMuch));
    assert!(judged(&mut examples, "SELECT v FROM many1000").is_ok());
}

#[test]
fn r22_materialized_views_stand_for_themselves_and_parents_for_their_children() {
    kept(&[
        ("SELECT * FROM tm", &["tm"]),
        ("SELECT * FROM tm, t", &["t", "tm"]),
        ("SELECT v FROM p", &["p", "p1", "p2"]),
        ("SELECT v FROM p1", &["p1"]),
        ("SELECT * FROM tv", &["t", "tv"]),
    ]);
}

#[test]
fn r23_an_order_that_is_not_asked_for_is_any() {
    kept(&[
        ("SELECT v FROM t LIMIT 1", &["t"]),
        ("SELECT avg(v), sum(v) FROM t", &["t"]),
        ("SELECT DISTINCT ON (v) v FROM t", &["t"]),
    ]);
}

#[test]
fn r24_comments_around_a_statement_are_no_part_of_it() {
    let mut examples = Examples::new();
    let whole = |examples: &mut Examples, sql: &str| {
        let known = examples.shape(sql);
        (known.shape.fingerprint, sql[known.begin..known.end].to_owned())
    };
    let plain = whole(&mut examples, "SELECT v FROM t");
    for sql in [
        "/* route='/a' */ SELECT v FROM t",
        "SELECT v FROM t /* traceparent='00-01-02-01' */",
        "-- one\nSELECT v FROM t -- two",
        "  SELECT v FROM t\n",
    ] {
        assert_eq!(whole(&mut examples, sql), plain, "{sql}");
    }
}

#[test]
fn r26_what_is_not_understood_is_not_kept() {
    not_kept(
        Deny::Unknown,
        &[
            "SELEC v FROM t",
            "SELECT v FROM",
            "SELECT v FROM nowhere",
            "SELECT v FROM nowhere.t",
            "SELECT unheard_of(v) FROM t",
            "SELECT * FROM xmltable('/a' PASSING x COLUMNS d date)",
            "SELECT v FROM t WHERE U&\"v\" = 1",
            "SELECT \"a\"\"b\" FROM t",
        ],
    );
    let long = format!("SELECT v FROM t WHERE {}", vec!["v = v"; 20_000].join(" OR "));
    assert!(judged(&mut Examples::new(), &long).is_err());
}

/// Each reason has a rule of `docs/cache.md`, and a label of its own.
#[test]
fn each_reason_names_its_rule() {
    let mut labels: Vec<&str> = Deny::ALL.iter().map(|deny| deny.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Deny::ALL.len());
    for deny in Deny::ALL {
        let number = deny.rule().strip_prefix('R').and_then(|number| number.parse().ok());
        assert!(number.is_some_and(|number: u32| (1..=26).contains(&number)), "{deny:?}");
    }
}
