//! Which columns are compared, by what, and whose they are.

use super::*;

#[test]
fn comparisons() {
    check(&[
        ("select 1 from t where a = $1", "Select reads | t(a = $1)"),
        ("select 1 from t where $1 = a", "Select reads | t(a = $1)"),
        (
            "select 1 from t where a = 1 and b > $2 and c between 1 and 2",
            "Select reads | t(a = literal, b range $2, c range literal)",
        ),
        ("select 1 from t where a in (1, 2, 3)", "Select reads | t(a in literal)"),
        ("select 1 from t where a in ($1)", "Select reads | t(a in $1)"),
        ("select 1 from t where a in ($2, $3, $4)", "Select reads | t(a in $2-$4)"),
        ("select 1 from t where a in ($2, $4)", "Select reads | t(a in expression)"),
        ("select 1 from t where a = any($1)", "Select reads | t(a in $1)"),
        ("select 1 from t where a = any($1::int[])", "Select reads | t(a in $1)"),
        ("select 1 from t where a = any(array[1, 2])", "Select reads | t(a in literal)"),
        ("select 1 from t where a <> all($1)", "Select reads | t(a other $1)"),
        ("select 1 from t where a not in (1)", "Select reads | t(a other literal)"),
        (
            "select 1 from t where a like 'x%' and b ilike $1 and c ~ 'x' and d similar to 'y'",
            "Select reads | t(a like literal, b like $1, c like literal, d like expression) |  | pg_catalog.similar_to_escape/1",
        ),
        ("select 1 from t where a is null and b is not null", "Select reads | t(a null, b null)"),
        ("select 1 from t where a is true", "Select reads | t(a other literal)"),
        ("select 1 from t where a is not distinct from $1", "Select reads | t(a = $1)"),
        ("select 1 from t where active", "Select reads | t(active = literal)"),
        (
            "select 1 from t where a = $1::uuid and b = '1'::int",
            "Select reads | t(a = $1, b = literal)",
        ),
        ("select 1 from t where a = f($1)", "Select reads | t(a = expression) |  | f/1"),
        ("select 1 from t where lower(a) = $1", "Select reads | t(a other $1) |  | lower/1"),
        ("select 1 from t where a + 1 > 2", "Select reads | t(a other literal)"),
        ("select 1 from t where (a, b) = ($1, 2)", "Select reads | t(a = $1, b = literal)"),
        (
            "select 1 from t where (a, b) in ((1, 2), (3, 4))",
            "Select reads | t(a in expression, b in expression)",
        ),
        ("select 1 from t where a in (select b from u)", "Select reads | t(a in expression), u"),
        ("select 1 from t where a @> $1", "Select reads | t(a other $1)"),
        ("select 1 from t where a->>'k' = $1", "Select reads | t(a other $1)"),
    ]);
}

#[test]
fn what_not_every_row_passes_is_marked() {
    check(&[
        ("select 1 from t where a = 1 or b = 2", "Select reads | t(a = literal?, b = literal?)"),
        ("select 1 from t where not a = 1", "Select reads | t(a = literal?)"),
        (
            "select 1 from t where a = 1 and (b = 2 or c = 3)",
            "Select reads | t(a = literal, b = literal?, c = literal?)",
        ),
        (
            "select 1 from a left join b on a.x = b.y and b.z = 1",
            "Select reads | a(x join?), b(y join?, z = literal?)",
        ),
    ]);
}

#[test]
fn joins() {
    check(&[
        (
            "select 1 from a join b on a.id = b.a_id where b.x = $1",
            "Select reads | a(id join), b(a_id join, x = $1)",
        ),
        ("select 1 from a x, b y where x.id = y.id", "Select reads | a(id join), b(id join)"),
        ("select 1 from a join b using (id)", "Select reads | a(id join), b(id join)"),
        ("select 1 from a x join a y on x.p = y.q", "Select reads | a(p join), a(q join)"),
        ("select 1 from t where a = b", "Select reads | t(a = column, b = column)"),
        (
            "select 1 from a where exists (select 1 from b where b.x = a.y)",
            "Select reads | a(y join), b(x join)",
        ),
    ]);
}

#[test]
fn whose_a_column_is() {
    check(&[
        ("select 1 from a, b where x = 1", "Select reads | a, b | x = literal"),
        (
            "select 1 from s.t where s.t.a = 1 and t.b = 2",
            "Select reads | s.t(a = literal, b = literal)",
        ),
        ("select 1 from t u where t.a = 1", "Select reads | t"),
        ("select 1 from (select a from t) x where a = 1", "Select reads | t"),
        ("select 1 from f() where a = 1", "Select reads |  |  | f/0"),
        ("with c as (select * from t) select 1 from c where c.a = 1", "Select reads | t"),
        ("select 1 from t as x (b) where b = 1", "Select reads | t"),
        (
            "select 1 from a where x = (select y from b where z = a.w)",
            "Select reads | a(x = expression, w join), b(z join)",
        ),
        ("select (select 1 where a = 1) from t", "Select reads | t(a = literal)"),
    ]);
}

#[test]
fn order_and_group() {
    check(&[
        (
            "select a from t order by b desc, t.c, lower(d)",
            "Select reads | t(b order, c order) |  | lower/1",
        ),
        ("select f(a) as b from t order by b", "Select reads | t |  | f/1"),
        (
            "select a from t group by a, rollup (b, c)",
            "Select reads | t(a group, b group, c group)",
        ),
        ("select distinct on (a) b from t order by a", "Select reads | t(a group, a order)"),
        ("select a from t order by 1", "Select reads | t"),
        ("select a = 1, b from t", "Select reads | t"),
    ]);
}

#[test]
fn assignments() {
    check(&[
        (
            "insert into t (id, a, b) values ($1, 'x', f(2))",
            "Insert writes | t!(id := $1, a := literal, b := expression) |  | f/1",
        ),
        ("insert into t (id) values ($1), ($2)", "Insert writes | t!"),
        ("insert into t (id) values (1), (2)", "Insert writes | t!(id := literal)"),
        (
            "update t set a = $1, b = b + 1 where id = $2",
            "Update writes | t!(a := $1, b := expression, id = $2)",
        ),
        (
            "update t set a = u.x from u where t.id = u.id",
            "Update writes | t!(a := column, id join), u(id join)",
        ),
        ("update t set (a, b) = ($1, $2)", "Update writes | t!(a := expression, b := expression)"),
        ("delete from t where id = $1 returning a", "Delete writes | t!(id = $1)"),
        (
            "merge into t using s on t.id = s.id when matched then update set a = s.b when not matched then insert (id, a) values (s.id, 1)",
            "Merge writes | t!(a := column, id := column, a := literal, id join?), s(id join?)",
        ),
        (
            "insert into t (id) values ($1) on conflict (id) do update set a = excluded.a",
            "Insert writes | t!(id := $1, a := column)",
        ),
    ]);
}

#[test]
fn statements_of_frameworks() {
    check(&[
        (
            r#"SELECT "shop_order"."id", "shop_customer"."name" FROM "shop_order" INNER JOIN "shop_customer" ON ("shop_order"."customer_id" = "shop_customer"."id") WHERE ("shop_order"."status" = 'open' AND "shop_order"."total" >= 10) ORDER BY "shop_order"."created_at" DESC LIMIT 25"#,
            "Select reads | shop_order(customer_id join, status = literal, total range literal, created_at order), shop_customer(id join)",
        ),
        (
            r#"SELECT "t0"."id" FROM "public"."User" AS "t0" LEFT JOIN LATERAL (SELECT COALESCE(JSONB_AGG("__p"."data"), '[]') AS "data" FROM (SELECT JSONB_BUILD_OBJECT('id', "t2"."id") AS "data" FROM (SELECT "t1".* FROM "public"."Post" AS "t1" WHERE "t0"."id" = "t1"."authorId") AS "t2") AS "__p") AS "p" ON TRUE WHERE "t0"."id" IN ($1,$2) LIMIT $3 OFFSET $4"#,
            "Select reads | public.User(id join, id in $1-$2), public.Post(authorId join) |  | jsonb_agg/1, jsonb_build_object/2",
        ),
        (
            "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
            "Select reads | pgbench_accounts(aid = literal)",
        ),
        (
            "UPDATE pgbench_accounts SET abalance = abalance + -7 WHERE aid = 3",
            "Update writes | pgbench_accounts!(abalance := expression, aid = literal)",
        ),
    ]);
}
