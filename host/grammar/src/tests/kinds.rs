//! Kinds of statements, what they read and write, and what they call.

use super::*;

#[test]
fn queries_read() {
    check(&[
        ("select 1", "Select reads"),
        ("select * from t", "Select reads | t"),
        ("table s.t", "Select reads | s.t"),
        ("values (1), (2)", "Select reads"),
        ("select * from a, b x, only c", "Select reads | a, b, c"),
        (
            "select * from a join b on true left join c using (id)",
            "Select reads | a, b, c(id join?) | id join?",
        ),
        ("select (select max(x) from b) from a", "Select reads | a, b |  | max/1"),
        ("select 1 from a union select 2 from b order by 1", "Select reads | a, b"),
        ("(select * from a)", "Select reads | a"),
        ("select * from (select * from (select * from deep) a) b", "Select reads | deep"),
        ("select * from db.s.t", "Select reads | s.t"),
        ("select \"T\".\"A b\" from \"S\".\"T\"", "Select reads | S.T"),
    ]);
}

#[test]
fn names_of_with_queries_are_no_tables() {
    check(&[
        ("with a as (select * from t) select * from a", "Select reads | t"),
        (
            "with a as (select * from t), b as (select * from a) select * from b, a",
            "Select reads | t",
        ),
        // Not recursive: inside of itself the name is a table's.
        ("with a as (select * from a) select * from a", "Select reads | a"),
        (
            "with recursive a as (select 1 union all select n + 1 from a) select * from a",
            "Select reads",
        ),
        (
            "with recursive a as (select * from b), b as (select * from t) select * from a",
            "Select reads | t",
        ),
        ("with a as (select 1) select * from s.a", "Select reads | s.a"),
        (
            "with a as (select 1) select * from (select * from a) x where exists (select 1 from a)",
            "Select reads",
        ),
        ("select * from (with a as (select 1) select * from a) x, a", "Select reads | a"),
        // What is written is never a WITH query.
        ("with a as (select 1) insert into a select * from a", "Insert writes | a!"),
    ]);
}

#[test]
fn what_writes_is_said_to_write() {
    check(&[
        ("insert into t values (1)", "Insert writes | t!"),
        ("insert into t select * from u", "Insert writes | t!, u"),
        ("insert into t default values", "Insert writes | t!"),
        ("update t set a = 1", "Update writes | t!(a := literal)"),
        ("delete from t using u", "Delete writes | t!, u"),
        (
            "merge into t using s on t.a = s.b when matched then delete",
            "Merge writes | t!(a join?), s(b join?)",
        ),
        ("with x as (delete from t returning *) select * from x", "Select writes | t!"),
        ("with x as (select 1) select * from y where exists (select 1 from x)", "Select reads | y"),
        ("select * into n from t", "Ddl writes | n!, t"),
        ("select 1 into temp n", "Ddl writes | n!"),
        ("create table n as select * from t", "Ddl writes | n!, t"),
        ("truncate a, s.b", "Ddl writes | a!, s.b!"),
    ]);
}

#[test]
fn locking_clauses_are_seen_wherever_they_stand() {
    check(&[
        ("select * from t for update", "Select reads locks | t"),
        ("select * from t for no key update of t nowait", "Select reads locks | t"),
        ("select * from (select * from t for share) x", "Select reads locks | t"),
        ("select * from t for key share skip locked", "Select reads locks | t"),
        ("lock table t in share mode", "Utility writes locks | t!"),
    ]);
    assert!(!shape("select * from t for update").is_plain_read());
    assert!(shape("select * from t").is_plain_read());
}

#[test]
fn the_session_and_the_transaction() {
    check(&[
        ("begin", "Transaction unknown"),
        (
            "start transaction isolation level serializable read only deferrable",
            "Transaction unknown",
        ),
        ("rollback to savepoint s", "Transaction unknown"),
        ("prepare transaction 'g'", "Transaction unknown literal"),
        ("commit prepared 'g'", "Transaction unknown literal"),
        ("set constraints all deferred", "Transaction unknown"),
        ("set a.b = 1", "Session unknown literal"),
        ("set local a = 'b'", "Session unknown literal"),
        ("reset all", "Session unknown literal"),
        ("set time zone interval '1' hour to minute", "Session unknown literal"),
        ("show search_path", "Session reads"),
        ("discard all", "Session unknown"),
        ("prepare p as delete from t", "Session unknown"),
        ("execute p(1, f(2))", "Session unknown"),
        ("deallocate all", "Session unknown"),
        ("declare c cursor for select * from t for update", "Session reads locks | t"),
        ("fetch 10 from c", "Session unknown"),
        ("move c", "Session unknown"),
        ("close c", "Session unknown"),
        ("listen x", "Session unknown literal"),
        ("unlisten *", "Session unknown"),
        ("load 'x'", "Session unknown literal"),
    ]);
}

#[test]
fn utilities() {
    check(&[
        ("notify x, 'y'", "Utility writes literal"),
        ("do $$ begin end $$", "Utility writes literal"),
        ("call p(1, f(2))", "Utility writes |  |  | f/1, p/2"),
        ("vacuum (analyze) a, s.b", "Utility writes | a!, s.b!"),
        ("analyze", "Utility writes"),
        ("checkpoint", "Utility writes"),
        ("cluster t using i", "Utility writes | t!"),
        ("reindex table t", "Utility writes | t!"),
        ("explain select * from t", "Utility reads | t"),
        ("explain delete from t", "Utility reads | t"),
        ("explain analyze delete from t", "Utility writes | t!"),
        ("explain (analyze off, costs) delete from t", "Utility reads | t"),
        ("explain (analyze 'off') delete from t", "Utility writes | t!"),
        ("explain execute p", "Utility unknown"),
        ("explain create table n as select * from t", "Utility reads | n, t"),
    ]);
}

#[test]
fn definitions() {
    check(&[
        ("create table t (a int, b serial) inherits (p)", "Ddl writes | t!, p!"),
        ("create temp table t (a int)", "Ddl writes | t!"),
        ("alter table s.t add column x int", "Ddl writes | s.t!"),
        ("alter table t rename to u", "Ddl writes | t!"),
        ("drop table if exists a, s.b cascade", "Ddl writes | a!, s.b!"),
        ("drop index i", "Ddl writes"),
        ("create index concurrently on t (lower(a)) where b", "Ddl writes | t!"),
        ("create view v as select f(a) from t", "Ddl writes | v!, t |  | f/1"),
        ("create materialized view v as select * from t", "Ddl writes | v!, t"),
        ("refresh materialized view concurrently v", "Ddl writes | v!"),
        ("create function f() returns int language sql as 'select 1'", "Ddl writes literal"),
        (
            "create function f() returns int begin atomic select 1; select 2; end",
            "Ddl writes literal",
        ),
        ("grant select on t to u", "Ddl writes"),
        ("create table n as execute p", "Ddl writes | n!"),
        ("comment on table t is 'x'", "Ddl writes"),
        ("alter system set a = 1", "Ddl writes"),
        ("create extension x", "Ddl writes"),
    ]);
}

#[test]
fn copies() {
    check(&[
        ("copy t from stdin", "Copy writes | t!"),
        ("copy t (a, b) from stdin with (format csv)", "Copy writes | t!"),
        ("copy t to stdout", "Copy reads | t"),
        ("copy (select * from t) to stdout", "Copy reads | t"),
        ("copy (insert into t values (1) returning a) to stdout", "Copy writes | t!"),
        ("copy t to '/tmp/x'", "Copy writes literal | t"),
        ("copy t from program 'x'", "Copy writes literal | t!"),
    ]);
}

#[test]
fn several_statements_are_the_sum_of_them() {
    check(&[
        ("select * from a; select f(1)", "Multiple reads multiple | a |  | f/1"),
        ("select * from a; delete from b", "Multiple writes multiple | a, b!"),
        ("begin; select 1; commit", "Multiple unknown multiple"),
        ("select 1;", "Select reads"),
        ("", "Empty reads"),
        ("/* x */;;", "Empty reads"),
    ]);
}

#[test]
fn functions_operators_and_types() {
    check(&[
        (
            "select count(*), now(), s.f(a, b), f(variadic c) from t",
            "Select reads | t |  | count/0, f/1, now/0, s.f/2",
        ),
        ("select f(1), f(2), f(1, 2)", "Select reads |  |  | f/1, f/2"),
        (
            "select current_date, localtimestamp, current_timestamp(3)",
            "Select reads |  |  | pg_catalog.now/0",
        ),
        (
            "select user, session_user, current_catalog, current_schema",
            "Select reads |  |  | pg_catalog.current_database/0, pg_catalog.current_schema/0, pg_catalog.current_user/0, pg_catalog.session_user/0",
        ),
        (
            "select a::int, b::mood, c::s.mood[], d::text, cast(e as \"T\")",
            "Select reads |  |  | ::T, ::mood, ::s.mood",
        ),
        ("select mood 'sad', date '2020-01-01'", "Select reads |  |  | ::mood"),
        (
            "select a operator(s.+) b, a + b, a <~> b, a operator(pg_catalog.+) b",
            "Select reads |  |  | op <~>/2, op s.+/2",
        ),
        ("select @#@ a", "Select reads |  |  | op @#@/1"),
        (
            "select a from t order by b using operator(s.<)",
            "Select reads | t(b order) |  | op s.</2",
        ),
        ("select * from f(1) x, rows from (g(2), h()) y", "Select reads |  |  | f/1, g/1, h/0"),
        (
            "select percentile_cont(0.5) within group (order by a) filter (where g(b)) over (partition by h(c))",
            "Select reads |  |  | g/1, h/1, percentile_cont/2",
        ),
        (
            "select * from t tablesample bernoulli (10) repeatable (f(1))",
            "Select reads | t |  | bernoulli/1, f/1",
        ),
        (
            "select coalesce(f(1), greatest(g(2), nullif(h(3), 1)))",
            "Select reads |  |  | f/1, g/1, h/1",
        ),
        (
            "select case f(1) when g(2) then h(3) else i(4) end",
            "Select reads |  |  | f/1, g/1, h/1, i/1",
        ),
        (
            "select array[f(1)], row(g(2)), (h(3)).x, (i(4))[j(5)]",
            "Select reads |  |  | f/1, g/1, h/1, i/1, j/1",
        ),
        (
            "select extract(year from a), substring(b from 1 for 2), a at time zone 'x'",
            "Select reads |  |  | pg_catalog.extract/2, pg_catalog.substring/3, pg_catalog.timezone/2",
        ),
        (
            "insert into t (a) values (f(1)) on conflict (lower(a)) do update set b = g(excluded.a) where h(t.a) returning i(a)",
            "Insert writes | t!(a := expression, b := expression) |  | f/1, g/1, h/1, i/1, lower/1",
        ),
        ("select 1 limit f(1) offset g(2)", "Select reads |  |  | f/1, g/1"),
        ("select distinct on (f(a)) b from t", "Select reads | t |  | f/1"),
        (
            "select 1 from t group by grouping sets (f(a), (g(b)), ()) having h(c)",
            "Select reads | t |  | f/1, g/1, h/1",
        ),
        (
            "select sum(a) over w from t window w as (order by f(b) rows between g(1) preceding and current row)",
            "Select reads | t |  | f/1, g/1, sum/1",
        ),
    ]);
}

#[test]
fn literals_that_matter() {
    check(&[
        ("select nextval('s')", "Select reads literal |  |  | nextval/1"),
        (
            "select pg_catalog.set_config('a', 'b', true)",
            "Select reads literal |  |  | pg_catalog.set_config/3",
        ),
        ("select pg_advisory_lock(1)", "Select reads literal |  |  | pg_advisory_lock/1"),
        ("select * from dblink('x', 'y') as t(a int)", "Select reads literal |  |  | dblink/2"),
        (
            "select query_to_xml('select 1', true, true, '')",
            "Select reads literal |  |  | query_to_xml/4",
        ),
        ("select 'orders'::regclass", "Select reads literal"),
        ("select 'x'::text", "Select reads"),
    ]);
}

#[test]
fn what_touches_the_session_is_known_by_its_name() {
    for (sql, touches) in [
        ("select count(*), f(1), my.setseed(1), setseed from t", false),
        ("select set_byte(a, 1, 2) from my.pg_temp", false),
        ("select pg_advisory_lock(1)", true),
        ("select 1 from t where \"setseed\"(a) is null", true),
        ("select pg_catalog.lastval()", true),
        ("select U&\"s\\0065tseed\"(1)", true),
        ("select set_config('a', 'b', true)", true),
        ("select * from pg_temp.t", true),
        ("select * from pg_temp_3.t join u using (a)", true),
        ("select pg_temp.f(1)", true),
        ("select a::pg_temp.x from t", true),
    ] {
        assert_eq!(shape(sql).touches_session(), touches, "{sql}");
    }
}
