//! Tags in comments: sqlcommenter's three spellings, leading and trailing.

use super::*;

fn tags(sql: &str) -> Vec<(String, String)> {
    let reading = Fingerprinter::new(1).read(sql.as_bytes(), StringSyntax::Standard).unwrap();
    let tags = Tags::read(sql.as_bytes(), reading.begin, reading.end);
    tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn tagged(sql: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(tags(sql), expected, "{sql}");
}

#[test]
fn sqlcommenter_trails_with_quoted_and_encoded_values() {
    tagged(
        "select 1 /*action='%2Fparam*d',controller='index',framework='spring',traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01',tracestate='congo%3Dt61rcWkgMzE%2Crojo%3D00f067aa0ba902b7'*/",
        &[
            ("action", "/param*d"),
            ("controller", "index"),
            ("framework", "spring"),
            ("traceparent", "00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01"),
            ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        ],
    );
    tagged("select 1 /*k='it\\'s, a:b=c'*/;", &[("k", "it's, a:b=c")]);
    tagged("select 1; /* a = 'b' , c='d' */ -- x", &[("a", "b"), ("c", "d")]);
}

#[test]
fn comments_may_lead() {
    let expected = [("dddbs", "orders"), ("traceparent", "00-1-2-01")];
    tagged("/*dddbs='orders',traceparent='00-1-2-01'*/ SELECT 1", &expected);
    tagged("-- x\n/*a=1*/ /*b=2*/ select /*c=3*/ 1 /*d=4*/", &[("a", "1"), ("b", "2"), ("d", "4")]);
}

#[test]
fn keys_and_values_may_be_bare() {
    tagged(
        "select 1 /*request_id=7f,route=/users/%3Aid*/",
        &[("request_id", "7f"), ("route", "/users/:id")],
    );
}

#[test]
fn marginalia_writes_colons() {
    tagged(
        "select 1 /*application:Shop,controller:posts,line:/app/x.rb:12:in_f*/",
        &[("application", "Shop"), ("controller", "posts"), ("line", "/app/x.rb:12:in_f")],
    );
}

#[test]
fn a_driver_s_doubled_percent_is_undone() {
    tagged(
        "select 1 /*route='users%%2Fid',rate='100%%'*/",
        &[("route", "users/id"), ("rate", "100%%")],
    );
}

#[test]
fn prose_hints_and_broken_pairs_are_passed_over() {
    for sql in [
        "select 1",
        "select 1 /* all of them: every single one */",
        "select 1 /* just words, more words */",
        "/*+ SeqScan(t) a=b */ select 1",
        "select 1 /* a b='c' */",
        "select 1 /* ='c' */",
        "select 1 /* k= */",
        "select 1 /* k='unclosed */",
        "select '/*a=b*/'",
        "select \"/*a=b*/\"",
        "select 1 -- /*a=b*/",
        "select /*a=b*/ 1",
        "select 1 /**/",
        "select 1 /*,,=,:,*/",
    ] {
        tagged(sql, &[]);
    }
    tagged("select 1 /* bad one: x y, good=1 */", &[("good", "1")]);
    tagged("select 1 /*k='%zz%'*/", &[("k", "%zz%")]);
    tagged("select 1 /*k='%ff'*/", &[("k", "%ff")]);
}

#[test]
fn text_without_tokens_has_tags() {
    tagged("/*a=b*/", &[("a", "b")]);
    tagged("/* x /*a=b*/ y */", &[]);
}

#[test]
fn there_are_bounds() {
    let many: String = (0..1_000).map(|n| format!("k{n}=v,")).collect();
    let found = tags(&format!("select 1 /*{many}*/"));
    assert_eq!(found.len(), crate::limits::TAGS_MAX);
    let long = "x".repeat(crate::limits::TAGS_BYTES_MAX);
    tagged(&format!("select 1 /*k={long}*/"), &[]);
    let tagged = format!("select 1 /*a=b*/ {}", " ".repeat(crate::limits::TAGS_BYTES_MAX));
    assert_eq!(tags(&tagged).len(), 1);
}

#[test]
fn comments_that_are_no_utf8_are_passed_over() {
    let sql = b"select 1 /*a=\xff*/ /*b=c*/";
    let reading = Fingerprinter::new(1).read(sql, StringSyntax::Standard).unwrap();
    let tags = Tags::read(sql, reading.begin, reading.end);
    assert_eq!(tags.get("b"), Some("c"));
    assert_eq!(tags.get("a"), None);
}
