//! Which texts share a fingerprint, what they are rendered as: insight's table of pitfalls, a test a row.

use super::*;
use crate::limits::{
    NORMALIZED_BYTES_MAX, SHAPE_PARSE_BYTES_MAX, SHAPE_TEXT_BYTES_MAX, SHAPE_TOKENS_MAX,
};
use crate::statement::render::{Canvas, render};

fn read_with(sql: &[u8], strings: StringSyntax) -> u128 {
    let reading = Fingerprinter::new(42).read(sql, strings);
    reading.unwrap_or_else(|why| panic!("{why:?}: {}", sql.escape_ascii())).fingerprint.0
}

fn read(sql: &str) -> u128 {
    read_with(sql.as_bytes(), StringSyntax::Standard)
}

fn alike(texts: &[&str]) {
    for sql in texts {
        assert_eq!(read(sql), read(texts[0]), "{sql}   {}", texts[0]);
    }
}

fn apart(texts: &[&str]) {
    for (position, sql) in texts.iter().enumerate() {
        for other in &texts[..position] {
            assert_ne!(read(sql), read(other), "{sql}   {other}");
        }
    }
}

/// Checks a text's skeleton and its normalized text.
fn rendered(sql: &str, skeleton: &str, normalized: &str) {
    let out = render_plain(sql.as_bytes());
    assert_eq!(out, (Ok(skeleton.to_owned()), normalized.to_owned()), "{sql}");
}

/// A text's skeleton and its normalized text.
fn render_plain(text: &[u8]) -> (Result<String, Incomplete>, String) {
    let mut fingerprinter = Fingerprinter::new(1);
    let reading = fingerprinter.read(text, StringSyntax::Standard).unwrap();
    let mut canvas = Canvas::default();
    let cuts = fingerprinter.cuts();
    let out = render(text, StringSyntax::Standard, &reading, cuts, &mut canvas);
    (out.skeleton.map(str::to_owned), out.normalized.into())
}

#[test]
fn literals_white_space_case_and_comments_do_not_matter() {
    alike(&[
        "SELECT a FROM t WHERE b = 1",
        "select A from T where B=2;",
        " ;; select\n\ta from t /* x /* y */ z */ where b = -- c\n 0x1F ; ",
        "select/**/a/**/from/**/t/**/where/**/b/**/=/**/1_000",
    ]);
    alike(&[
        "select 'a'",
        "select E'\\''",
        "select U&'\\0061'",
        "select $$'$$",
        "select $a$ $$ $a$",
        "select ''",
    ]);
    alike(&["select 1.5", "select .5", "select 1.", "select 1e10", "select 1.5E-3"]);
    alike(&["select U&'d!0061' uescape '!'", "select U&'a'\n'b' uescape\n'?'", "select ''"]);
    alike(&["select 'a'\n'b'", "select 'ab'", "select 'a' --x\n 'b'"]);
}

#[test]
fn kinds_of_literal_are_kept_apart() {
    apart(&[
        "select 1",
        "select '1'",
        "select 1.0",
        "select b'1'",
        "select x'1'",
        "select n'1'",
        "select $1",
    ]);
    apart(&["select null", "select true", "select 1", "select default"]);
}

#[test]
fn casts_stay_tokens() {
    apart(&["select '1'::int", "select 1::text", "select 1", "select '1'::text", "select int '1'"]);
}

#[test]
fn quoted_and_bare_identifiers_are_kept_apart() {
    apart(&["select user", "select \"user\"", "select \"User\"", "select U&\"user\""]);
    apart(&[
        "select \"a\"",
        "select \"a\"\"\"",
        "select \"a\", \"\"\"\"",
        "select \"a\" \"b\"",
        "select \"a\"\"b\"",
    ]);
    // Only ASCII folds.
    alike(&["select Éa", "select ÉA"]);
    apart(&["select é", "select É"]);
}

#[test]
fn operators_are_cut_as_postgresql_cuts_them() {
    apart(&["select a @- b", "select a @ - b", "select a - b", "select a -@ b"]);
    alike(&["select a <- 1", "select a < - 1", "select a<-1", "select a < 1"]);
    alike(&["select 5--1\n", "select 7", "select 5 -- - 1"]);
    alike(&["select a</*c*/b", "select a < b"]);
    apart(&["select a <> b", "select a < > b", "select a != b"]);
    apart(&["select a*-b", "select a*b"]);
}

#[test]
fn a_sign_belongs_to_its_number_only_where_it_cannot_subtract() {
    alike(&["select a + -5", "select a + 5", "select a+-5", "select a +-5"]);
    alike(&["select f(-1, -2.5)", "select f(1, 2.5)"]);
    apart(&["select a -5", "select a 5", "select a, 5"]);
    apart(&["select (-5)::int", "select (-5::int)", "select (5::int)"]);
    apart(&["select - a", "select a"]);
    apart(&["select t.* - 5", "select t.* 5"]);
}

#[test]
fn numbers_end_where_postgresql_ends_them() {
    alike(&["select 1_000", "select 1"]);
    apart(&["select 1 a", "select 1 .a", "select 1.5 a", "select 1"]);
    // An alias up to PostgreSQL 14, an error from 15 on.
    alike(&["select 123abc", "select 1 abc"]);
    apart(&["select a[1..2]", "select a[1.2]", "select a[1:2]"]);
}

#[test]
fn lists_of_literals_are_one() {
    alike(&[
        "select 1 where a in (1)",
        "select 1 where a in (1, 2)",
        "select 1 where a IN(-3,4 , 5)",
    ]);
    alike(&["select array[1, 2]", "select array [3]"]);
    alike(&["insert into t values (1, 'a')", "insert into t values (1, 'a'), (2, 'b'), (-3, 'c')"]);
    alike(&["select 1 where (a, b) in ((1, 2))", "select 1 where (a, b) in ((1, 2), (3, 4))"]);
    alike(&["values (1, null), (default, 2)", "values (1, null), (default, null), (3, 4)"]);
    apart(&[
        "select 1 where a in (1)",
        "select 1 where a in ('1')",
        "select 1 where a in (1, '1')",
        "select 1 where a in (b)",
        "select 1 where a in (1, b)",
        "select 1 where a in ((1))",
        "select 1 where a in (1, f(2))",
        "select 1 where a in (select 1)",
    ]);
    apart(&["values (1)", "values (1, 2)", "values (1), (f(2))", "values (now()), (now())"]);
    apart(&[
        "select t.in (1)",
        "select t.in (1, 2)",
        "select t.values (1), (2)",
        "select t.array[1]",
    ]);
    apart(&["select array[1]", "select array[b]", "select a[1]", "select array[[1]]"]);
}

#[test]
fn positions_limits_and_intervals_are_folded() {
    // Good for routing and statistics; a cache of results goes by the exact text.
    alike(&["select a from t order by 1", "select a from t order by 2"]);
    alike(&["select a from t limit 10", "select a from t limit 20"]);
    alike(&["select interval '1 day'", "select interval '2 years'"]);
}

#[test]
fn hints_and_other_comments_are_no_part_of_a_shape() {
    alike(&[
        "/*+ SeqScan(t) */ select a from t",
        "select a from t /*traceparent='00-1-2-01'*/",
        "select a from t",
    ]);
}

#[test]
fn calls_keep_their_number_of_arguments() {
    apart(&["select f(1)", "select f(1, 2)", "select f(1, 2, 3)", "select f()"]);
}

#[test]
fn parameters_keep_their_numbers_but_a_family_forgets_them() {
    apart(&[
        "select 1 where a in ($1)",
        "select 1 where a in ($1, $2)",
        "select 1 where a in ($2)",
    ]);
    let family = |sql: &str| {
        let mut fingerprinter = Fingerprinter::new(42);
        let reading = fingerprinter.read(sql.as_bytes(), StringSyntax::Standard).unwrap();
        fingerprinter.family(sql.as_bytes(), StringSyntax::Standard, &reading)
    };
    for (one, other) in [
        ("select a in ($1) and b = $2", "select a in ($1, $2) and b = $3"),
        ("insert into t values ($1)", "insert into t values ($1), ($2)"),
        ("select array[$1]", "select array[$1, $2]"),
        ("select (a, b) in (($1, $2))", "select (a, b) in (($1, $2), ($3, $4))"),
    ] {
        assert_eq!(family(one), family(other), "{one}");
        assert_ne!(read(one), read(other), "{one}");
    }
    assert_ne!(family("select a = $1"), family("select a = 1"));
    assert_ne!(family("select a in ($1)"), family("select a in (1)"));
    let parameters = |sql: &str| {
        Fingerprinter::new(42).read(sql.as_bytes(), StringSyntax::Standard).unwrap().parameters
    };
    assert_eq!(parameters("select $2, '$9', $$ $8 $$, a$7, $3"), 3);
    assert_eq!(parameters("select $99999999"), u16::MAX);
}

#[test]
fn statements_count_but_empty_ones_do_not() {
    alike(&["select 1; select 2", ";select 1;;select 2;"]);
    apart(&["select 1", "select 1; select 1", "select 1; select 1; select 1"]);
    alike(&["", ";", " /* a */ ; -- b"]);
}

#[test]
fn the_string_syntax_decides_where_a_literal_ends() {
    let text = br"select '\', a, '";
    let standard = Fingerprinter::new(42).read(text, StringSyntax::Standard);
    assert_eq!(standard, Err(Unreadable::Broken));
    assert_eq!(read_with(text, StringSyntax::Backslash), read("select ''"));
    let text = br"select '\' or a = '' -- '";
    assert_eq!(read_with(text, StringSyntax::Standard), read("select '' or a = ''"));
    assert_eq!(read_with(text, StringSyntax::Backslash), read("select '' -- '"));
}

#[test]
fn an_escape_character_is_part_of_the_name_it_spells() {
    apart(&["select U&\"d!0061\" uescape '!'", "select U&\"d!0061\" uescape '?'"]);
    rendered(
        "select U&\"d!0061\" uescape '!'",
        "select U&\"d!0061\" uescape '!'",
        "select U&\"d!0061\" uescape '!'",
    );
}

#[test]
fn what_does_not_end_has_no_fingerprint() {
    for sql in [
        "select 'a",
        "select \"a",
        "select $$a",
        "select /* a",
        "select \0",
        "select 'a'\n'b",
        "select b'0'\n'1",
    ] {
        let reading = Fingerprinter::new(42).read(sql.as_bytes(), StringSyntax::Standard);
        assert_eq!(reading, Err(Unreadable::Broken), "{sql}");
    }
}

#[test]
fn tokens_that_look_like_the_writer_s_own_marks_are_kept_apart() {
    // The bytes below are what the fingerprint writes for other tokens.
    let texts: Vec<String> = (1..32)
        .filter(|b| !(9..=13).contains(b))
        .map(|b| format!("select {}a", b as u8 as char))
        .collect();
    apart(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    apart(&["select a", "select \u{8}\u{1}", "select 1", "select \u{9}", "select ''"]);
    apart(&["select \"\u{8}\u{4}\"", "select 1", "select \"\" 1"]);
}

#[test]
fn long_texts_are_hashed_to_their_end() {
    let long = |last: &str| format!("select {} {last}", "abcdefghi, ".repeat(1_500));
    apart(&[&long("a"), &long("b"), &long("a, a")]);
    let name = |last: char| format!("select \"{}{last}\"", "x".repeat(10_000));
    apart(&[&name('a'), &name('b')]);
}

#[test]
fn bounds_are_kept() {
    let fingerprint =
        |sql: &str| Fingerprinter::new(42).read(sql.as_bytes(), StringSyntax::Standard);
    let text = format!("select '{}'", "a".repeat(SHAPE_TEXT_BYTES_MAX));
    assert_eq!(fingerprint(&text), Err(Unreadable::TooLarge));
    let text = format!("select {}1", "1+".repeat(SHAPE_TOKENS_MAX / 2));
    assert_eq!(fingerprint(&text), Err(Unreadable::TooManyTokens));
    // A list is one token, whatever its length.
    let text = format!("select 1 where a in ({}1)", "1,".repeat(SHAPE_TOKENS_MAX));
    assert!(fingerprint(&text).is_ok());
    let text = format!("select {}1", "abc, ".repeat(4_000));
    let (skeleton, normalized) = render_plain(text.as_bytes());
    assert!(normalized.len() <= NORMALIZED_BYTES_MAX + 5 && normalized.ends_with(" …"));
    assert!(skeleton.is_ok());
    let text = format!("select \"{}\"", "x".repeat(SHAPE_PARSE_BYTES_MAX));
    let (skeleton, _) = render_plain(text.as_bytes());
    assert_eq!(skeleton, Err(Incomplete::TooLarge));
}

#[test]
fn literals_leave_no_trace() {
    rendered(
        "SELECT  a+ -5,'secret' from\n t --x\n",
        "SELECT a+ 1,'' from t",
        "SELECT a+ $1,$2 from t",
    );
    rendered("select $2, 7", "select $2, 1", "select $2, $3");
    rendered("select 'a''b'::text", "select ''::text", "select $1::text");
    rendered("select b'1',x'f',n'x',1.5", "select b'',x'',n'',1.0", "select $1,$2,$3,$4");
    rendered("select a in (1,2,3)", "select a in (1)", "select a in ($1 /*, ... */)");
    rendered("select a in ('x')", "select a in ('')", "select a in ($1)");
    rendered("select array[-1,2]", "select array[1]", "select array[$1 /*, ... */]");
    rendered(
        "insert into t values (1,'x',null),(2,'y',3) returning 1",
        "insert into t values (1,'',null) returning 1",
        "insert into t values ($1,$2,null) /*, ... */ returning $3",
    );
    rendered(
        "select (a,b) in ((1,2),(3,4))",
        "select (a,b) in ((1,1))",
        "select (a,b) in (($1,$2) /*, ... */)",
    );
    rendered("select 1;;select 2;", "select 1; select 1", "select $1; select $2");
}

#[test]
fn pieces_do_not_run_together() {
    rendered("select.5", "select 1.0", "select $1");
    rendered("select 123abc", "select 1 abc", "select $1 abc");
    rendered("select u&E'a'", "select u& ''", "select u&$1");
    rendered("select 'a'E'b'", "select '' ''", "select $1 $2");
    rendered("select/**/1/**/a", "select 1 a", "select $1 a");
    rendered("select'a'from t", "select '' from t", "select $1 from t");
}

#[test]
fn what_is_no_utf8_outside_of_literals_is_said_to_be_so() {
    let (skeleton, _) = render_plain(b"select 'caf\xe9'");
    assert_eq!(skeleton.as_deref(), Ok("select ''"));
    let (skeleton, _) = render_plain(b"select caf\xe9");
    assert_eq!(skeleton, Err(Incomplete::Encoding));
}
