//! What makes other parsers fall over, a test a row of insight's tables A3 and A5; and any text at all.

use super::*;
use proptest::prelude::*;
use std::thread;
use tidegate_core::limits::{SHAPE_NAMES_MAX, SHAPE_PARSE_BYTES_MAX, SHAPE_TOKENS_MAX};
use tidegate_core::statement::{Incomplete, ShapeKind, TextEncoding};

/// The stack of a thread that no caller would give less.
const SMALL_STACK: usize = 256 << 10;

/// Runs on a small stack: an overflow aborts the test.
fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new().stack_size(SMALL_STACK).spawn(work).unwrap().join().unwrap()
}

#[test]
fn utility_statements_do_not_panic() {
    for sql in [
        "begin",
        "set a = 1",
        "vacuum",
        "listen x",
        "create table t (a int default f(1))",
        "alter role r set a = 1",
    ] {
        assert_ne!(shape(sql).kind, ShapeKind::Unknown, "{sql}");
    }
}

#[test]
fn long_chains_of_operators_do_not_overflow_the_stack() {
    // 20 000 terms killed a process with the parser's own walker; here the bound on tokens comes first, so that the
    // walk itself is tried just below it.
    on_a_small_stack(|| {
        let long = format!("select 1{}", " + 1".repeat(500_000 / 4));
        assert_eq!(shape(&long).incomplete, Some(Incomplete::TooManyTokens));
        let terms = SHAPE_TOKENS_MAX / 2 - 4;
        for (joint, kind) in [
            (" + a", ShapeKind::Select),
            (" and a", ShapeKind::Select),
            (" or f(a)", ShapeKind::Unknown),
        ] {
            let chain = format!("select a{}", joint.repeat(terms));
            let shape = shape(&chain);
            if kind == ShapeKind::Select {
                assert_eq!((shape.kind, shape.incomplete), (kind, None), "{joint}");
            } else {
                assert_eq!(shape.incomplete, Some(Incomplete::TooManyTokens), "{joint}");
            }
        }
        let unions = format!("select a{}", " union select a".repeat(SHAPE_TOKENS_MAX / 3 - 4));
        assert_eq!(shape(&unions).incomplete, None);
    });
}

#[test]
fn deep_nesting_is_refused_or_walked_but_never_overflows() {
    on_a_small_stack(|| {
        for depth in [10, 100, 1_000, 2_000, 3_900] {
            for (open, close) in [
                ("(", ")"),
                ("f(", ")"),
                ("(select ", ")"),
                ("- ", ""),
                ("not ", ""),
                ("array[", "]"),
                ("case when ", " then 1 end"),
            ] {
                let sql = format!("select {}a{}", open.repeat(depth), close.repeat(depth));
                let shape = shape(&sql);
                let refused = matches!(
                    shape.incomplete,
                    Some(Incomplete::Unparseable | Incomplete::TooManyTokens)
                );
                assert!(
                    shape.incomplete.is_none() || refused,
                    "{open} {depth} {:?}",
                    shape.incomplete
                );
                assert!(depth > 1_000 || !refused, "{open} {depth}");
            }
        }
        let from = format!("select 1 from {}t{}", "(select * from ".repeat(200), ") x".repeat(200));
        assert_eq!(shown(&shape(&from)), "Select reads | t");
    });
}

#[test]
fn a_null_byte_is_refused() {
    check(&[("select \0 1", "Unknown unknown literal unparseable")]);
}

#[test]
fn literals_need_not_be_utf8() {
    let mut cache = ShapeCache::new(PostgresGrammar, 7, SHAPE_CACHE_BYTES_MAX);
    let now = Instant::now();
    for encoding in [TextEncoding::Utf8, TextEncoding::AsciiBased] {
        let settings = TextSettings { encoding, ..TextSettings::default() };
        let shape = cache.shape_of(b"select 'caf\xe9', E'\\xff' from t", settings, now).shape;
        assert_eq!(shown(&shape), "Select reads | t");
        let shape = cache.shape_of(b"select caf\xe9 from t", settings, now).shape;
        assert_eq!(shape.incomplete, Some(Incomplete::Encoding));
    }
    let settings = TextSettings { encoding: TextEncoding::Unsafe, ..TextSettings::default() };
    let shape = cache.shape_of(b"select '\x95\\' or true --'", settings, now).shape;
    assert_eq!((shape.access, shape.incomplete), (Access::Unknown, Some(Incomplete::Encoding)));
}

#[test]
fn names_are_cut_between_characters() {
    let long = "é".repeat(50);
    let shape = shape(&format!("select 1 from a{long}, \"{long}\""));
    let names: Vec<usize> = shape.tables.iter().map(|table| table.name.len()).collect();
    assert_eq!(names, [63, 62]);
}

#[test]
fn a_list_of_a_million_elements_is_cheap() {
    // PgDog #1061: 336 seconds. The text here is as long as texts with a shape may be.
    let list = "1,".repeat(500_000);
    let shape = shape(&format!("select * from t where a in ({list}1)"));
    assert_eq!(shown(&shape), "Select reads | t(a in literal)");
    assert_eq!(&*shape.normalized, "select * from t where a in ($1 /*, ... */)");
}

#[test]
fn lists_of_rows_share_a_shape() {
    // PgDog #854: out of memory with a tree for each text.
    let rows =
        |n: usize| format!("select * from t where (a, b) in ({}(1, 'x'))", "(2, 'y'), ".repeat(n));
    assert_eq!(shape(&rows(300)).fingerprint, shape(&rows(600)).fingerprint);
    assert_eq!(shown(&shape(&rows(600))), "Select reads | t(a in expression, b in expression)");
    let values = |n: usize| format!("insert into t values {}(1, 'x')", "(2, 'y'), ".repeat(n));
    assert_eq!(shape(&values(1)).fingerprint, shape(&values(10_000)).fingerprint);
}

#[test]
fn what_is_large_without_its_literals_is_not_parsed() {
    let sql = format!("select \"{}\"", "x".repeat(SHAPE_PARSE_BYTES_MAX));
    check(&[(&sql, "Unknown unknown literal too-large")]);
    let literal = format!("select '{}' from t", "x".repeat(SHAPE_PARSE_BYTES_MAX));
    check(&[(&literal, "Select reads | t")]);
}

#[test]
fn shapes_do_not_grow_without_bound() {
    let many =
        |what: &str| (0..SHAPE_NAMES_MAX + 1).map(|n| format!("{what}{n}")).collect::<Vec<_>>();
    let tables = format!("select 1 from {}", many("t").join(", "));
    let functions = format!("select {}()", many("f").join("(), "));
    let columns = format!("select 1 from t where {} = 1", many("c").join(" = 1 and "));
    let withs = format!("with {} as (select 1) select 1", many("w").join(" as (select 1), "));
    let statements = "select * from t;".repeat(SHAPE_NAMES_MAX + 1);
    for sql in [tables, functions, columns, withs, statements] {
        let shape = shape(&sql);
        assert_eq!(shape.incomplete, Some(Incomplete::TooManyNames), "{}", &sql[..40]);
        assert!(shape.tables.len().max(shape.functions.len()) <= SHAPE_NAMES_MAX);
        assert!(shape.bytes() < 64 << 10, "{}", shape.bytes());
    }
}

#[test]
fn a_fingerprint_tells_apart_what_libpg_query_s_own_merges() {
    let fingerprint = |sql: &str| shape(sql).fingerprint;
    let texts = [
        "select '1'::int",
        "select 1::text",
        "select b'1'",
        "select x'1F'",
        "select n'f'",
        "select f(1,2)",
        "select f(1,2,3)",
        "select * from a.t",
        "select * from b.t",
    ];
    for (position, sql) in texts.iter().enumerate() {
        for other in &texts[..position] {
            assert_ne!(fingerprint(sql), fingerprint(other), "{sql} {other}");
        }
    }
}

#[test]
fn junk_behind_a_number_is_an_alias_as_in_postgresql_14() {
    check(&[("select 123abc from t", "Select reads | t")]);
}

#[test]
fn a_backslash_may_hide_a_quote() {
    let mut cache = ShapeCache::new(PostgresGrammar, 7, SHAPE_CACHE_BYTES_MAX);
    let mut of = |strings| {
        let settings = TextSettings { strings, ..TextSettings::default() };
        let text = br"select '\' from a --' from b".as_slice();
        shown(&cache.shape_of(text, settings, Instant::now()).shape)
    };
    use tidegate_core::statement::StringSyntax;
    assert_eq!(of(StringSyntax::Standard), "Select reads | a");
    assert_eq!(of(StringSyntax::Backslash), "Select reads | b");
}

#[test]
fn texts_with_one_fingerprint_have_one_shape() {
    let same = |a: &str, b: &str| {
        let (a, b) = (shape(a), shape(b));
        assert_eq!(a.fingerprint, b.fingerprint);
        assert_eq!(shown(&a), shown(&b));
    };
    same("select a from t where b = 1", "SELECT A /* x */ FROM T WHERE B=-2");
    same("select 1 from t where a in (1)", "select 1 from t where a in (1, 2)");
    same("insert into t (a) values (1)", "insert into t (a) values (1), (2)");
}

/// Words, marks and literals that mean something to the grammar, to be thrown together.
const PIECES: &[&str] = &[
    "select",
    "from",
    "where",
    "t",
    "a",
    "*",
    ",",
    ".",
    "(",
    ")",
    "=",
    "and",
    "or",
    "not",
    "in",
    "1",
    "'x'",
    "$1",
    "insert into",
    "values",
    "update",
    "set",
    "delete from",
    "with",
    "as",
    "union",
    "join",
    "on",
    "using",
    "order by",
    "group by",
    "::",
    "int",
    "case",
    "when",
    "then",
    "end",
    "[",
    "]",
    "array",
    "null",
    "is",
    ";",
    "for update",
    "returning",
    "lateral",
    "f(",
    "over",
    "limit",
    "begin",
    "create",
    "table",
    "drop",
    "json_table",
    "xmltable",
    "grouping sets",
    "exists",
    "any",
    "row",
    "between",
    "like",
    "merge into",
    "matched",
    "do",
    "nothing",
    "copy",
    "to",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any words together have a shape, and no panic was caught on the way to it.
    #[test]
    fn any_words_are_survived(words in proptest::collection::vec(proptest::sample::select(PIECES), 0..25)) {
        let sql = words.join(" ");
        if let Ok(tree) = pg_raw_parse::parse(&sql) {
            for raw in tree.iter() {
                crate::statement::parsed(raw.stmt());
            }
        }
        let shape = shape(&sql);
        prop_assert_eq!(shape.kind == ShapeKind::Unknown, shape.incomplete == Some(Incomplete::Unparseable));
    }
}
