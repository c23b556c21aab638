select 1
select a, b as c, t.*, s.t.d from s.t where a = 1 and b in (1, 2, 3) or not c like 'x%'
select abalance from pgbench_accounts where aid = 12345
select "shop_order"."id", "shop_customer"."name" from "shop_order" inner join "shop_customer" on ("shop_order"."customer_id" = "shop_customer"."id") where ("shop_order"."status" = $1 and "shop_order"."total" >= $2) order by "shop_order"."created_at" desc limit 25
select date_trunc('day', created_at), count(*), coalesce(sum(total), 0) from orders group by 1 having count(*) > 5
select distinct on (a) a, b from t order by a, b desc nulls last offset 3 rows fetch first 2 rows only
select * from a left join b using (id) natural join c cross join d full join e on a.x = e.y
select * from (select 1) x, lateral (select x.a) y, f(1) z (q), rows from (g(2), h(3)) with ordinality
select * from t tablesample system (10) repeatable (5) where ctid = '(0,1)'
with a as (select 1), b(x) as materialized (delete from t returning id) select * from a, b, c
with recursive r(n) as (values (1) union all select n + 1 from r where n < 100) search depth first by n set o select * from r
select case when a then 'b' when c then 'd' else e end, case a when 1 then 2 end from t
select array[1, 2, 3], array[a, b], a[1], a[1:2], a[-1], array[[1, 2], [3, 4]], (row(1, 2)).x from t
select a::int, b::numeric(10, 2), c::text[], cast(d as mood), int '5', interval '1 day', interval(3) '1', timestamp with time zone 'now' from t
select 'a' 'b'
select 'it''s', E'a\'b\\', U&'\0061', U&'d!0061' uescape '!', $$dollar 'quoted'$$, $tag$ $$ $tag$, B'0101', X'1F', N'national'
select 1.5, .5, 5., 1e10, 1.5e-3, 0x1F, 0o17, 0b101, 1_000, 1_0.0_1
select -1, - 1, +1, a - 1, a -1, a-1, a - -1, (-1), f(-1, -2.5), 2 ^ -1, -1::int, (-1)::int, a + -1::bigint
select a @- b, a @ - b, a <- b, a < - b, a*-b, a || -b, a <> -1, a =-1, a>=-1, @-5, ~1, !!a, a !=b
select a -> 'b' ->> 'c' #> '{d}' ? 'e', a @> '{"x": 1}', a ?| array['b'], a <-> b, a operator(s.+) b from t
select a between 1 and 2, b not between symmetric 3 and 4, c is distinct from d, e is not null, f isnull, g is true, h similar to 'x' escape '\' from t
select extract(year from a), substring(b from 1 for 2), position('x' in c), overlay(d placing 'e' from 1), trim(both 'x' from f), a at time zone 'utc' at local
select sum(a) filter (where b > 1) over (partition by c order by d rows between 1 preceding and current row exclude ties), rank() over w from t window w as (order by e)
select percentile_cont(0.5) within group (order by a), mode() within group (order by b), string_agg(distinct c, ',' order by c), f(variadic array[1]), g(a => 1, b := 2)
select exists (select 1 from t), a in (select b from u), a = any (select c from v), (a, b) in ((1, 2), (3, 4)), (a, b) = (select 1, 2), a <> all ($1), array(select 1)
select user, current_user, session_user, current_role, current_catalog, current_schema, current_date, current_time(3), localtimestamp
select "user", "a""b", U&"d\0061t", U&"d!0061t" uescape '!', "Select" from "From"
select grouping(a, b), a, b from t group by grouping sets ((a), rollup (a, b), cube (a, b), ())
select * from a union all select * from b except (select * from c intersect select * from d) order by 1 limit all
select * from t where a in ('x', null, 'y', $3, true) for update of t nowait
select * from t where a in (1) for no key update skip locked
select * from t where a in ($1, $2, $3) for share for key share
select xmlelement(name a, xmlattributes(b as c), d), xmlforest(e as f), xmlparse(content g), xmlserialize(document h as text), xmlpi(name i), xmlroot(j, version '1'), k is document
select * from xmltable('/a' passing b columns c int path 'd' default 1, e for ordinality)
select json_object('a': 1, 'b' value 2), json_array(1, 2), json_arrayagg(a order by b), json_objectagg(a: b), json_value(a, '$.b'), a is json object, json('{}'), json_scalar(1)
select * from json_table('[]', '$[*]' columns (a int path '$.a', nested path '$.b' columns (c text)))
values (1, 'a'), (2, 'b'), (3, null)
values (1, 2), (f(3), 4), (-5, default)
table s.t
insert into t values (1, 'a', default), (2, 'b', null)
insert into s.t as x (a, b[1], c.d) values ($1, $2, $3) on conflict (a) where b > 1 do update set a = excluded.a, (b, c) = (1, 2) where x.a <> 5 returning *, old.a as b
insert into t default values returning id
insert into t (a) overriding user value select a from u on conflict on constraint c do nothing
update only t as x set a = 1, b = default, (c, d) = (select 1, 2), e[1] = 2 from u where x.id = u.id returning x.*
update t set a = a + -1 where current of c
delete from t using u, v where t.a = u.a and u.b = v.b returning t.a
merge into t using s on t.a = s.a when matched and s.b > 1 then update set b = s.b when matched then delete when not matched by target then insert (a) values (s.a) when not matched by source then do nothing returning merge_action()
copy t (a, b) from stdin with (format csv, header true, delimiter ',') where a > 1
copy (select * from t) to '/tmp/x' csv
begin isolation level serializable, read only, deferrable
commit and chain
rollback to savepoint a
savepoint b
prepare transaction 'gid'
set search_path to a, 'b', "c"
set local a.b = -1.5
set time zone 'utc'
set session characteristics as transaction isolation level read committed
reset all
show all
discard temp
prepare p (int, text) as select $1, $2
execute p (1, 'a')
deallocate all
declare c binary insensitive scroll cursor with hold for select * from t
fetch backward 5 from c
move all in c
close c
listen a
notify a, 'payload'
unlisten *
explain (analyze, buffers off, format json) select * from t
explain analyze verbose update t set a = 1
vacuum (full, analyze) a (b, c), d
analyze t
cluster t using i
reindex (concurrently) table t
lock table only a, b in access exclusive mode nowait
truncate a, b restart identity cascade
call p(1, a => 2)
do language plpgsql $do$ begin perform 'x'; end $do$
checkpoint
load 'x'
create temp table if not exists t (a int primary key default 5 check (a > 0), b text collate "C" references u (c) on delete cascade, exclude using gist (d with &&)) partition by range (a) with (fillfactor = 70)
create table p partition of t for values from (1, 'a') to (minvalue, maxvalue)
create table n as select * from t with no data
create unique index concurrently if not exists i on only t using btree (a desc nulls last, lower(b) text_pattern_ops) include (c) where d > 1
create or replace view v (a, b) as select 1, 2 with local check option
create materialized view m as select * from t
create or replace function f(a int, out b text default 'x') returns setof record language sql immutable as $$ select 1, 'a' $$
create function f() returns int begin atomic select 1; select 2; end
create procedure p() language sql as 'select 1'
create trigger t before insert or update of a on s.t referencing new table as n for each row when (old.a is distinct from new.a) execute function f('x', 1)
create rule r as on insert to t where a > 1 do instead (insert into u values (1); delete from v)
create type m as enum ('a', 'b')
create domain d as int check (value > 0)
create sequence s increment by -1 minvalue -10 start with 5 owned by t.a
create extension if not exists x with schema s version '1'
create role r with login password 'secret' valid until 'infinity'
create policy p on t for select to public using (a = current_user) with check (b > 1)
create operator @#@ (leftarg = int, procedure = f)
create cast (a as b) with function f(a) as implicit
create aggregate g (int) (sfunc = f, stype = int, initcond = '0')
create statistics s (ndistinct) on a, b from t
create publication p for table a (b) where (c > 1), tables in schema s
create foreign table f (a int) server s options (x 'y')
alter table if exists only s.t add column a int, drop column b cascade, alter c set default 5, add constraint d check (a > 1) not valid
alter table t rename column a to b
alter system set a = 'b'
alter default privileges in schema s grant select on tables to r
drop table if exists a, s.b cascade
drop function f(int, out text)
grant select (a), insert on t to r with grant option
comment on column s.t.a is 'x'
security label for x on table t is 'y'
refresh materialized view concurrently m with no data
select 1; select 2; delete from t
select $1::int + $2, $10
select t.a.b, (t).a, (f(1)).*, t.* from t
select all a into temp n from t
select a is normalized, b is nfc normalized, normalize(c, nfd), d collate "C" < e, not f from t
select treat(a as b), nullif(1, 2), greatest(1, 2), least(a, b), coalesce(c, 'd')
select count(*) over (), a.*::text, b.c.d::s.mood from a
select 1 as "a b", 2 as select, 3 d, 4 "e" from t as "t u" (v, w)
select setval('s', 5), nextval('s'::regclass), currval('s'), pg_advisory_lock(1, 2), set_config('a', 'b', false)
