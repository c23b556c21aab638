//! Statements that PostgreSQL accepts and another parser refuses or misreads, a test a row of insight's table A4.

use super::*;

#[test]
fn statements_that_sqlparser_refuses() {
    check(&[
        ("select * from t for no key update", "Select reads locks | t"),
        ("select * from t for key share", "Select reads locks | t"),
        ("do $$ begin perform 1; end $$", "Utility writes literal"),
        ("prepare transaction 'x'", "Transaction unknown literal"),
        ("commit prepared 'x'", "Transaction unknown literal"),
        ("begin isolation level serializable read only deferrable", "Transaction unknown"),
        ("move forward 5 in c", "Session unknown"),
        ("table t", "Select reads | t"),
        ("delete from t where current of c", "Delete writes | t!"),
        ("select * from rows from (f(1), g(2)) with ordinality", "Select reads |  |  | f/1, g/1"),
        ("insert into t overriding system value values (1)", "Insert writes | t!"),
        (
            "with recursive x as (select 1 as n union all select n + 1 from x) search depth first by n set o select * from x",
            "Select reads",
        ),
        (
            "with recursive x as (select 1 as n union all select n + 1 from x) cycle n set c to true default false using p select * from x where f(1) > n",
            "Select reads |  |  | f/1",
        ),
        (
            "select sum(a) over (order by b groups between 1 preceding and 1 following exclude ties) from t",
            "Select reads | t |  | sum/1",
        ),
        ("select xmlelement(name a, xmlattributes(f(b) as c), d)", "Select reads |  |  | f/1"),
        ("refresh materialized view v", "Ddl writes | v!"),
        ("vacuum (verbose, parallel 2) t", "Utility writes | t!"),
        ("reindex (verbose) index concurrently i", "Utility writes | i!"),
        ("cluster", "Utility writes"),
        ("checkpoint", "Utility writes"),
        ("alter system set work_mem = '1MB'", "Ddl writes"),
        ("security label for 'x' on table t is 'y'", "Ddl writes"),
        ("import foreign schema s from server x into y", "Ddl writes"),
    ]);
}

#[test]
fn precedence_of_prefix_operators() {
    // `~1 + 2` is `~(1 + 2)`, and a user's prefix operator binds the same way.
    check(&[
        ("select ~1 + 2", "Select reads"),
        ("select @#@ 1 + 2", "Select reads |  |  | op @#@/1"),
    ]);
}

#[test]
fn is_distinct_from_ends_before_and() {
    check(&[(
        "select 1 from t where a is distinct from 1 and b = 2",
        "Select reads | t(a other literal, b = literal)",
    )]);
}

#[test]
fn in_may_hold_a_set_operation() {
    check(&[(
        "select 1 from t where a in ((select x from u) union (select y from v))",
        "Select reads | t(a in expression), u, v",
    )]);
}

#[test]
fn what_postgresql_refuses_is_unknown() {
    for sql in [
        "select from where",
        "select 1 +",
        "selec 1",
        "insert t",
        "select a b c",
        "update set a = 1",
        ")",
        "select 'a' 'b'",
    ] {
        check(&[(sql, "Unknown unknown literal unparseable")]);
    }
}

#[test]
fn xml_and_json_are_followed() {
    check(&[
        (
            "select xmlconcat(f(1)), xmlforest(g(2) as a), xmlparse(document h(3)), xmlserialize(content i(4) as text), xmlroot(j(5), version no value), xmlpi(name x, k(6)), l(7) is document",
            "Select reads |  |  | f/1, g/1, h/1, i/1, j/1, k/1, l/1",
        ),
        (
            "select * from xmltable(xmlnamespaces(f(1) as x), g(2) passing h(3) columns a int path i(4) default j(5), b mood)",
            "Select reads |  |  | f/1, g/1, h/1, i/1, j/1, ::mood",
        ),
        (
            "select json_object(f(1): g(2) returning mood), json_array(h(3), i(4)), json_array(select j(5) from t)",
            "Select reads | t |  | f/1, g/1, h/1, i/1, j/1, ::mood",
        ),
        (
            "select json_objectagg(f(1): g(2)) filter (where h(3)) over (order by i(4)), json_arrayagg(j(5) order by k(6))",
            "Select reads |  |  | f/1, g/1, h/1, i/1, j/1, k/1",
        ),
        (
            "select json(f(1)), json_scalar(g(2)), json_serialize(h(3)), i(4) is json object",
            "Select reads |  |  | f/1, g/1, h/1, i/1",
        ),
        (
            "select json_value(f(1), '$.a' passing g(2) as x returning mood default h(3) on empty error on error), json_exists(i(4), '$'), json_query(j(5), '$')",
            "Select reads |  |  | f/1, g/1, h/1, i/1, j/1, ::mood",
        ),
        (
            "select * from json_table(f(1), '$[*]' passing g(2) as x columns (a int path '$.a' default h(3) on empty, b for ordinality, nested path '$.b' columns (c mood))) as j",
            "Select reads |  |  | f/1, g/1, h/1, ::mood",
        ),
        ("select merge_action() from t", "Select reads | t"),
        ("select grouping(a, f(b)) from t group by a", "Select reads | t(a group) |  | f/1"),
        ("select f(a => g(1)), (h(2)).*, t.* from t", "Select reads | t |  | f/1, g/1, h/1"),
        (
            "select a collate \"C\" < f(1), b[1:g(2)], array(select h(3)), i(4) = all (select 1) from t",
            "Select reads | t |  | f/1, g/1, h/1, i/1",
        ),
    ]);
}
