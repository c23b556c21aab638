//! Trap 100 and its kin: literals, comments and quotes must not fool anybody.

use super::*;

const LOCK: &str = "ADVISORY_LOCK";

#[test]
fn trap_100_text_in_literals_and_comments_does_nothing() {
    check_plain(&[
        "SELECT 'pg_advisory_lock(1)'",
        "SELECT 'it''s pg_advisory_lock(1)'",
        "SELECT E'it\\'s pg_advisory_lock(1)'",
        "SELECT e'\\\\', 'pg_advisory_lock(1)'",
        "SELECT E'a'\n'\\' pg_advisory_lock(1)'",
        "SELECT E'a' -- c\n -- d\n '\\' pg_advisory_lock(1)'",
        "SELECT 'a\\', 'pg_advisory_lock(1)'",
        "SELECT N'a\\', n'pg_advisory_lock(1)'",
        "SELECT U&'pg_advisory_lock(1)' UESCAPE '!'",
        "SELECT u&'\\', 'pg_advisory_lock(1)'",
        "SELECT B'0101', X'1F', 'pg_advisory_lock(1)'",
        "SELECT $$pg_advisory_lock(1)$$",
        "SELECT $tag$ $$ $ta$ pg_advisory_lock(1) $tag $tag$",
        "SELECT $a$ $b$ $a$, 'pg_advisory_lock(1)'",
        "SELECT $\u{e9}1$pg_advisory_lock(1)$\u{e9}1$",
        "SELECT 1 -- pg_advisory_lock(1)",
        "SELECT 1 -- 'x\r, now()",
        "SELECT /* /* */ pg_advisory_lock(1) */ 1",
        "SELECT /*/**/ pg_advisory_lock(1) */ 1",
        "SELECT 1 +-- pg_advisory_lock(1)\n 1",
        "SELECT 1 +/* pg_advisory_lock(1) */ 1",
        "SELECT 1 @/*/* */*/ 1",
        "SELECT \"pg_advisory_lock(1)\" FROM \"a;b\"",
        "SELECT \"a\"\"pg_advisory_lock(1)\"",
        "SELECT pg_advisory_lock FROM t",
        "SELECT a$$b FROM t WHERE c$ = 1",
        "SELECT $1, $2::int, $3",
        "SELECT 1_000, 0x1F, 1e10, .5, 1., 1.5e-3",
        "SELECT a[1:2], b::int[] FROM t",
        "SELECT a ->> 'b', a #> '{x}', a ? 'c', a @> b FROM t",
        "SELECT 'LISTEN x; SET a.b = 1'",
    ]);
}

#[test]
fn trap_100_text_behind_them_counts() {
    check(&[
        ("SELECT '', pg_advisory_lock(1)", LOCK),
        ("SELECT '''', pg_advisory_lock(1)", LOCK),
        ("SELECT 'a\\', pg_advisory_lock(1)", LOCK),
        ("SELECT E'a\\'', pg_advisory_lock(1)", LOCK),
        ("SELECT E'a\\\\', pg_advisory_lock(1)", LOCK),
        ("SELECT E'a' 'b\\', pg_advisory_lock(1)", LOCK),
        ("SELECT E'a'\n'b\\\\', pg_advisory_lock(1)", LOCK),
        ("SELECT 'a'\n'b\\', pg_advisory_lock(1)", LOCK),
        ("SELECT U&'\\', pg_advisory_lock(1)", LOCK),
        ("SELECT x'1\\', pg_advisory_lock(1)", LOCK),
        ("SELECT $$ ' $$, pg_advisory_lock(1)", LOCK),
        ("SELECT $a$ $b$ $a$, pg_advisory_lock(1)", LOCK),
        ("SELECT 1$$a$$, pg_advisory_lock(1)", LOCK),
        ("SELECT a$b, pg_advisory_lock(1) -- $b", LOCK),
        ("SELECT /* ' */ pg_advisory_lock(1) /* ' */", LOCK),
        ("SELECT /* /* */ */ pg_advisory_lock(1)", LOCK),
        ("SELECT 1 */* x */pg_advisory_lock(1)", LOCK),
        ("SELECT 1 - - pg_advisory_lock(1)", LOCK),
        ("SELECT 1 -- x\n, pg_advisory_lock(1)", LOCK),
        ("SELECT 1 -- x\r, pg_advisory_lock(1)", LOCK),
        ("SELECT \"--\", pg_advisory_lock(1)", LOCK),
        ("SELECT \"a\"\"\", pg_advisory_lock(1)", LOCK),
        ("SELECT 1and pg_advisory_lock(1)", LOCK),
        ("SELECT 1.and pg_advisory_lock(1)", LOCK),
        ("SELECT\x0cpg_advisory_lock\x0b(1)", LOCK),
        ("SELECT 1into temp t", "DDL TEMP_OBJECTS"),
        ("SELECT 1;SELECT pg_advisory_lock(1)", LOCK),
        ("-- x\nSELECT pg_advisory_lock(1)", LOCK),
        ("/* x */ LISTEN y", "LISTEN"),
        (";;; LISTEN y", "LISTEN"),
        ("SELECT 1;LISTEN y", "LISTEN"),
        ("SELECT ';'; LISTEN y", "LISTEN"),
    ]);
}

#[test]
fn backslashes_escape_when_standard_conforming_strings_is_off() {
    for (sql, standard, backslash) in [
        ("SELECT 'a\\', pg_advisory_lock(1) --'", LOCK, ""),
        ("SELECT 'a\\'', pg_advisory_lock(1) --'", "", LOCK),
        ("SELECT n'a\\', pg_advisory_lock(1) --'", LOCK, ""),
        ("SELECT E'a\\', pg_advisory_lock(1) --'", "", ""),
        ("SELECT b'1\\', pg_advisory_lock(1) --'", LOCK, LOCK),
        ("SELECT \"a\\\", pg_advisory_lock(1) --\"", LOCK, LOCK),
        ("SELECT $$\\$$, pg_advisory_lock(1) --$$", LOCK, LOCK),
    ] {
        let on = analyse_with(sql.as_bytes(), StringSyntax::Standard);
        let off = analyse_with(sql.as_bytes(), StringSyntax::Backslash);
        if sql != "SELECT 'a\\'', pg_advisory_lock(1) --'" {
            assert_eq!(on.effects, effects(standard), "{sql}");
        }
        assert_eq!(off.effects, effects(backslash), "{sql}");
    }
}

#[test]
fn what_is_not_understood_may_do_anything() {
    for sql in [
        &b"SELECT 'x"[..],
        b"SELECT E'x\\'",
        b"SELECT E'x\\",
        b"SELECT \"x",
        b"SELECT U&\"x",
        b"SELECT $a$ x $b$",
        b"SELECT $$ x",
        b"SELECT /* /* */ 1",
        b"SELECT 1 /*",
        b"SELECT 1\0; LISTEN x",
        b"SELECT 'a\0b'",
        b"SELECT (1",
        b"SELECT 1)",
        b"SELECT (1; LISTEN x",
        b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;",
    ] {
        assert_eq!(analyse(sql), Analysis::unknown(), "{}", String::from_utf8_lossy(sql));
    }
    for sql in [
        "SELECT U&\"set\\005fconfig\"('a', 'b', false)",
        "SET U&\"a!005fb\" UESCAPE '!' = 1",
        "CREATE TABLE U&\"pg!005ftemp\" UESCAPE '!'.t (a int)",
    ] {
        assert!(analyse(sql.as_bytes()).effects.contains(Effects::ANY_STATE), "{sql}");
    }
    assert!(analyse(b"FROBNICATE x").effects.contains(Effects::UNKNOWN_SETTINGS));
    assert!(analyse(b"'x'").effects.contains(Effects::UNKNOWN_SETTINGS));
}

#[test]
fn semicolons_inside_function_bodies_and_rules_end_nothing() {
    for (sql, expected, statements) in [
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
            "DDL",
            1,
        ),
        (
            "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END; LISTEN x",
            "DDL LISTEN",
            2,
        ),
        ("CREATE FUNCTION f(begin atomic) RETURNS int RETURN 1; LISTEN x", "DDL LISTEN", 2),
        ("BEGIN; ATOMIC; LISTEN x", "BEGINS UNKNOWN_SETTINGS LISTEN", 3),
        (
            "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b); LISTEN x",
            "DDL LISTEN",
            2,
        ),
        (
            "CREATE FUNCTION f() RETURNS int AS $$ begin; end $$ LANGUAGE plpgsql; LISTEN x",
            "DDL LISTEN",
            2,
        ),
        ("SELECT 1; SELECT 2;; SELECT 3;", "", 3),
        ("SET a.b = 1; SELECT pg_advisory_lock(1); BEGIN", "SETS ADVISORY_LOCK BEGINS", 3),
    ] {
        let analysis = analyse(sql.as_bytes());
        assert_eq!(analysis.effects, effects(expected), "{sql}");
        assert_eq!(analysis.statements, statements, "{sql}");
    }
}
