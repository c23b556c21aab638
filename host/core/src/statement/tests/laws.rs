//! Laws that hold for any text.

use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Statements that are complete in themselves, of all kinds.
const STATEMENTS: &[&str] = &[
    "ALTER ROLE a IN DATABASE d SET b.c = 1",
    "SELECT 1",
    "SELECT a, 'b;c', \"d;e\" FROM t -- f;\n",
    "SET a.b = 'c'",
    "SET LOCAL a.b TO DEFAULT",
    "RESET ALL",
    "SELECT pg_advisory_lock(1)",
    "SELECT set_config('a.b', 'c', false)",
    "CREATE TEMP TABLE t (a int)",
    "SELECT DISTINCT ON (a) f(b) FROM t",
    "CREATE INDEX i ON t (a)",
    "UPDATE t SET a = 1",
    "SELECT * FROM pg_settings",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
    "BEGIN",
    "COMMIT AND CHAIN",
    "ROLLBACK TO s",
    "PREPARE p AS SELECT 1",
    "DEALLOCATE ALL",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "COPY t FROM STDIN",
    "LISTEN x",
    "DO 'x'",
    "DISCARD ALL",
    "SELECT E'\\'' /* ' */",
    "SELECT $q$ ; $q$",
    "SHOW tidegate.x",
];

/// Pieces that mean something to the lexer or the recogniser, to be thrown together.
const PIECES: &[&str] = &[
    "'",
    "''",
    "\"",
    "$$",
    "$a$",
    "E'",
    "U&'",
    "U&\"",
    "b'",
    "--",
    "/*",
    "*/",
    "\n",
    "\r",
    " ",
    "(",
    ")",
    ";",
    ",",
    ".",
    "::",
    "\\",
    "$1",
    "1",
    "\0",
    "set",
    "local",
    "set_config",
    "pg_temp",
    "select",
    "with",
    "as",
    "begin",
    "atomic",
    "end",
    "case",
    "create",
    "function",
    "temp",
    "into",
    "execute",
    "tidegate",
    "deallocate",
    "=",
    "to",
    "é",
    "x",
    "prepare",
    "session",
    "characteristics",
    "time",
    "zone",
];

fn pieces() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES), 0..40).prop_map(|all| all.concat())
}

fn statement() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(STATEMENTS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for strings in [StringSyntax::Standard, StringSyntax::Backslash] {
            let analysis = analyse_with(&bytes, strings);
            prop_assert_eq!(analysis.statements == 0, analysis.kind == Kind::Empty);
        }
    }

    #[test]
    fn any_pieces_are_survived(text in pieces()) {
        for strings in [StringSyntax::Standard, StringSyntax::Backslash] {
            let analysis = analyse_with(text.as_bytes(), strings);
            prop_assert_eq!(analysis.statements == 0, analysis.kind == Kind::Empty);
            prop_assert!(analysis.tidegate.is_none() || analysis.statements == 1);
        }
    }

    #[test]
    fn text_in_a_literal_or_comment_adds_no_effect(text in pieces(), around in statement()) {
        let text = text.replace('\0', "");
        let bare = analyse(around.as_bytes()).effects;
        let quoted = text.replace('\'', "''");
        let escaped = text.replace('\\', "\\\\").replace('\'', "\\'");
        let nested = text.replace("*/", "* /").replace("/*", "/ *");
        // A character of its own keeps the text's last one from joining the end of the comment.
        let line = text.replace(['\n', '\r'], " ");
        for wrapped in [
            format!("'{quoted}'"),
            format!("E'{escaped}'"),
            format!("\"x{}\"", text.replace('"', "\"\"")),
            format!("$tag_x${text}$tag_x$"),
            format!("1 /* {nested} */"),
            format!("1 --{line}\n"),
        ] {
            let sql = format!("{around};SELECT {wrapped}");
            prop_assert_eq!(analyse(sql.as_bytes()).effects, bare, "{}", sql);
        }
    }

    #[test]
    fn statements_together_do_what_each_does(
        all in proptest::collection::vec(statement(), 1..6),
        separator in proptest::sample::select(&[";", " ; ", ";\n", ";;/* ; */"][..]),
    ) {
        let each: Vec<Analysis> = all.iter().map(|sql| analyse(sql.as_bytes())).collect();
        let together = analyse(all.join(separator).as_bytes());
        let union = each.iter().fold(Effects::NONE, |sum, one| sum | one.effects);
        prop_assert_eq!(together.effects, union);
        prop_assert_eq!(usize::from(together.statements), all.len());
        prop_assert_eq!(together.kind, each[0].kind);
        let names: Vec<_> = each.iter().flat_map(|one| one.names.clone()).collect();
        prop_assert_eq!(together.names, names);
        let prepared: Vec<_> = each.iter().flat_map(|one| one.prepared.clone()).collect();
        prop_assert_eq!(together.prepared, prepared);
        let defaults: Vec<_> = each.iter().flat_map(|one| one.start_defaults.clone()).collect();
        prop_assert_eq!(together.start_defaults, defaults);
        let vacated: Vec<_> = each.iter().flat_map(|one| one.vacated.clone()).collect();
        prop_assert_eq!(together.vacated, vacated);
    }

    #[test]
    fn the_case_of_keywords_does_not_matter(sql in statement()) {
        let sql = sql.replace("E'\\''", "''");
        let lower = analyse(sql.to_ascii_lowercase().as_bytes());
        prop_assert_eq!(lower.effects, analyse(sql.as_bytes()).effects);
    }
}

#[test]
fn long_texts_take_linear_time() {
    // Each repeats what a careless look-ahead or search would read again and again.
    let mut slowest = Duration::ZERO;
    for piece in [
        "f(a,",
        "set_config('a',",
        "$a",
        "$a$",
        "/*",
        "'a'\n",
        "E'a'\n--x\n",
        "x.",
        "((",
        "a b ",
        ";set a.b=",
        "set search_path=a;",
        "set tidegate.a=1.",
        "with a(b,c",
    ] {
        let text = piece.repeat((1 << 20) / piece.len());
        let begin = Instant::now();
        let analysis = analyse(text.as_bytes());
        slowest = slowest.max(begin.elapsed());
        assert!(analysis.statements > 0, "{piece}");
    }
    // A quadratic reader needs minutes for a megabyte; an unoptimised linear one a fraction of a second.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}
