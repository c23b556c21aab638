"""psycopg 3 against a database: everything an application does with it."""

import asyncio
import datetime as dt
import decimal
import json
import threading
import uuid

import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from suite import case, expect, run_all, url

URL = url()


def connect(**options):
    return psycopg.connect(URL, **options)


@case
def parameters_of_many_types(c):
    day = dt.datetime(2026, 2, 28, 23, 59, 58, 123456, tzinfo=dt.timezone.utc)
    values = [
        42, -(2**40), 1.5, decimal.Decimal("12345678901234567890.000000001"), "snowman ☃ 'quoted' \\",
        True, None, b"\x00\xff bytes", day, day.date(), dt.timedelta(days=3, seconds=4), uuid.UUID(int=7),
        Jsonb({"a": [1, None, "x"]}), [1, 2, None, 4], ["a", "b,c", 'd"e'],
    ]
    casts = ["int4", "int8", "float8", "numeric", "text", "bool", "text", "bytea", "timestamptz", "date", "interval",
             "uuid", "jsonb", "int4[]", "text[]"]
    row = c.execute("SELECT " + ", ".join(f"%s::{cast}" for cast in casts), values).fetchone()
    for sent, got in zip(values, row):
        assert got == (sent.obj if isinstance(sent, Jsonb) else sent), (sent, got)


@case
def binary_formats(c):
    with c.cursor(binary=True) as cursor:
        cursor.execute("SELECT %b::int8, %b::text, %b::timestamptz, %b::numeric, %b::bytea",
                       (2**33, "text", dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), decimal.Decimal("3.14"), b"\0\1"))
        assert cursor.fetchone() == (2**33, "text", dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
                                     decimal.Decimal("3.14"), b"\0\1")
        assert cursor.pgresult.fformat(0) == 1


@case
def prepared_statements_are_reused(c):
    c.prepare_threshold = 0
    for n in range(50):
        assert c.execute("SELECT %s::int + 1", (n,)).fetchone() == (n + 1,)
    with connect(autocommit=True, prepare_threshold=0) as other:
        for n in range(50):
            assert c.execute("SELECT %s::int + 1", (n,)).fetchone() == (n + 1,)
            assert other.execute("SELECT %s::int + 1", (n,)).fetchone() == (n + 1,)


@case
def more_prepared_statements_than_the_driver_keeps(c):
    c.prepare_threshold, c.prepared_max = 0, 20
    for round_ in range(3):
        for n in range(60):
            assert c.execute(f"SELECT %s::int + {n}", (round_,)).fetchone() == (round_ + n,)


@case
def a_failed_prepare_does_not_poison_the_name(c):
    for _ in range(3):
        with expect(errors.UndefinedTable):
            c.execute("SELECT * FROM not_there WHERE a = %s", (1,), prepare=True)
        assert c.execute("SELECT %s::int", (5,), prepare=True).fetchone() == (5,)


@case
def a_statement_survives_a_change_of_its_table(c):
    c.execute("DROP TABLE IF EXISTS ddl; CREATE TABLE ddl (a int); INSERT INTO ddl VALUES (1)")
    for _ in range(3):
        c.execute("SELECT a FROM ddl WHERE a = %s", (1,), prepare=True)
    c.execute("ALTER TABLE ddl ALTER a TYPE bigint")
    c.execute("DEALLOCATE ALL")
    assert c.execute("SELECT a FROM ddl WHERE a = %s", (1,), prepare=True).fetchone() == (1,)


@case
def pipelines(c):
    with c.pipeline() as pipeline:
        cursors = [c.execute("SELECT %s::int", (n,)) for n in range(100)]
        pipeline.sync()
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(100))
        more = [c.execute("SELECT %s::int", (n,)) for n in range(100)]
    assert [cursor.fetchone()[0] for cursor in more] == list(range(100))


@case
def a_pipeline_with_an_error_recovers_at_the_sync(c):
    with c.pipeline() as pipeline:
        good, skipped = c.execute("SELECT 1"), None
        with expect(errors.DivisionByZero):
            c.execute("SELECT 1/0")
            skipped = c.execute("SELECT 2")
            pipeline.sync()
        if skipped is None:
            # PostgreSQL tells an error at once, so the driver may have read it as soon as it sent what follows.
            with expect(errors.PipelineAborted):
                pipeline.sync()
        after = c.execute("SELECT 3")
        pipeline.sync()
        assert good.fetchone() == (1,) and after.fetchone() == (3,)
        if skipped is not None:
            with expect(psycopg.Error):
                skipped.fetchone()


@case
def pipelines_inside_transactions(c):
    c.execute("DROP TABLE IF EXISTS piped; CREATE TABLE piped (a int PRIMARY KEY)")
    with c.pipeline(), c.transaction():
        for n in range(20):
            c.execute("INSERT INTO piped VALUES (%s)", (n,))
    with expect(errors.UniqueViolation), c.pipeline(), c.transaction():
        c.execute("INSERT INTO piped VALUES (100)")
        c.execute("INSERT INTO piped VALUES (1)")
    assert c.execute("SELECT count(*), max(a) FROM piped").fetchone() == (20, 19)


@case
def executemany_returns_rows(c):
    c.execute("DROP TABLE IF EXISTS many; CREATE TABLE many (id int GENERATED ALWAYS AS IDENTITY, a text)")
    with c.cursor() as cursor:
        cursor.executemany("INSERT INTO many (a) VALUES (%s) RETURNING id", [(str(n),) for n in range(300)],
                           returning=True)
        ids = [cursor.fetchone()[0]]
        while cursor.nextset():
            ids.append(cursor.fetchone()[0])
    assert ids == list(range(1, 301))


@case
def copy_in_and_out(c):
    c.execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int, b text)")
    with c.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN") as copy:
            for n in range(5000):
                copy.write_row((n, f"row\t{n}\n" if n % 7 else None))
        assert cursor.rowcount == 5000
        with cursor.copy("COPY (SELECT a, b FROM copied ORDER BY a) TO STDOUT") as copy:
            rows = list(copy.rows())
    assert len(rows) == 5000 and rows[8] == ("8", "row\t8\n") and rows[7] == ("7", None)


@case
def binary_copy(c):
    c.execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int8, b timestamptz)")
    when = dt.datetime(2026, 3, 1, tzinfo=dt.timezone.utc)
    with c.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "timestamptz"])
            for n in range(100):
                copy.write_row((n, when))
        with cursor.copy("COPY copied TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int8", "timestamptz"])
            assert list(copy.rows()) == [(n, when) for n in range(100)]


@case
def a_copy_that_fails_leaves_the_connection_usable(c):
    c.execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int)")
    with expect(errors.InvalidTextRepresentation), c.cursor().copy("COPY copied FROM STDIN") as copy:
        for _ in range(2000):
            copy.write("not a number\n" * 50)
    with expect(ZeroDivisionError), c.cursor().copy("COPY copied FROM STDIN") as copy:
        copy.write("1\n")
        raise ZeroDivisionError("the application gives up: CopyFail")
    with expect(errors.DivisionByZero), c.cursor().copy("COPY (SELECT 1/(5-n) FROM generate_series(1,9) n) TO STDOUT") as copy:
        list(copy)
    assert c.execute("SELECT count(*) FROM copied").fetchone() == (0,)


@case
def transactions_commit_and_roll_back(c):
    c.execute("DROP TABLE IF EXISTS tx; CREATE TABLE tx (a int)")
    with c.transaction():
        c.execute("INSERT INTO tx VALUES (1)")
    with expect(ZeroDivisionError), c.transaction():
        c.execute("INSERT INTO tx VALUES (2)")
        raise ZeroDivisionError
    assert c.execute("SELECT array_agg(a) FROM tx").fetchone() == ([1],)


@case
def savepoints_recover_from_errors(c):
    c.execute("DROP TABLE IF EXISTS sp; CREATE TABLE sp (a int PRIMARY KEY)")
    with c.transaction():
        c.execute("INSERT INTO sp VALUES (1)")
        for _ in range(3):
            with expect(errors.UniqueViolation), c.transaction():
                c.execute("INSERT INTO sp VALUES (1)")
        with c.transaction():
            c.execute("INSERT INTO sp VALUES (2)")
            with c.transaction(force_rollback=True):
                c.execute("INSERT INTO sp VALUES (3)")
    assert c.execute("SELECT array_agg(a ORDER BY a) FROM sp").fetchone() == ([1, 2],)


@case
def an_error_aborts_the_transaction_until_rollback(c):
    c.autocommit = False
    with expect(errors.DivisionByZero):
        c.execute("SELECT 1/0")
    assert c.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    with expect(errors.InFailedSqlTransaction):
        c.execute("SELECT 1")
    c.rollback()
    assert c.execute("SELECT 1").fetchone() == (1,)
    c.commit()


@case
def isolation_levels_and_read_only(c):
    c.autocommit = False
    c.isolation_level, c.read_only, c.deferrable = psycopg.IsolationLevel.SERIALIZABLE, True, True
    assert c.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
    assert c.execute("SHOW transaction_read_only").fetchone() == ("on",)
    with expect(errors.ReadOnlySqlTransaction):
        c.execute("CREATE TABLE never (a int)")
    c.rollback()
    c.isolation_level = c.read_only = c.deferrable = None
    assert c.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    c.rollback()


@case
def two_phase_commit(c):
    c.execute("DROP TABLE IF EXISTS tpc; CREATE TABLE tpc (a int)")
    c.autocommit = False
    xid = c.xid(1, uuid.uuid4().hex, "branch")
    c.tpc_begin(xid)
    c.execute("INSERT INTO tpc VALUES (1)")
    c.tpc_prepare()
    c.tpc_commit()
    assert c.execute("SELECT count(*) FROM tpc").fetchone() == (1,)


@case
def server_side_cursors(c):
    with c.transaction():
        with c.cursor("named") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT generate_series(1, 1000)")
            assert sum(row[0] for row in cursor) == 500500
        with c.cursor("scrolling", scrollable=True) as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            cursor.scroll(50)
            assert cursor.fetchone() == (51,)
            cursor.scroll(0, mode="absolute")
            assert cursor.fetchmany(2) == [(1,), (2,)]


@case
def a_cursor_with_hold_outlives_its_transaction(c):
    with c.cursor("held", withhold=True) as cursor:
        with c.transaction():
            cursor.execute("SELECT generate_series(1, 100)")
            assert cursor.fetchone() == (1,)
        with connect(autocommit=True) as other:
            for _ in range(20):
                other.execute("SELECT 1")
        assert cursor.fetchmany(3) == [(2,), (3,), (4,)]
    with expect(errors.InvalidCursorName):
        c.execute("FETCH 1 FROM held")


@case
def results_can_be_streamed(c):
    total = 0
    for (n,) in c.cursor().stream("SELECT generate_series(1, 10000)"):
        total += n
    assert total == 50005000


@case
def listen_and_notify(c):
    c.execute("LISTEN news")
    with connect(autocommit=True) as other:
        other.execute("SELECT pg_notify('news', 'from afar')")
        with expect(ZeroDivisionError), other.transaction():
            other.execute("NOTIFY news, 'never'")
            raise ZeroDivisionError
        other.execute("NOTIFY news")
    heard = [(n.channel, n.payload) for n in c.notifies(timeout=10, stop_after=2)]
    assert heard == [("news", "from afar"), ("news", "")], heard
    c.execute("NOTIFY news, 'own'")
    own = next(c.notifies(timeout=10, stop_after=1))
    assert (own.payload, own.pid) == ("own", c.info.backend_pid), own
    c.execute("UNLISTEN *")
    assert c.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (0,)


@case
def settings_stay_with_their_client(c):
    with connect(autocommit=True) as other:
        c.execute("SET statement_timeout = '7s'")
        c.execute("SET TIME ZONE 'Asia/Tokyo'")
        other.execute("SET TIME ZONE 'America/Lima'")
        for _ in range(10):
            assert c.execute("SHOW statement_timeout").fetchone() == ("7s",)
            assert other.execute("SHOW statement_timeout").fetchone() == ("0",)
            assert c.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
            assert other.execute("SHOW timezone").fetchone() == ("America/Lima",)
        assert c.info.parameter_status("TimeZone") == "Asia/Tokyo"
        c.execute("RESET statement_timeout")
        assert c.execute("SHOW statement_timeout").fetchone() == ("0",)
        c.execute("RESET ALL")
        assert c.execute("SHOW timezone").fetchone() != ("Asia/Tokyo",)


@case
def settings_of_a_transaction_end_with_it(c):
    with c.transaction():
        c.execute("SET LOCAL statement_timeout = '3s'")
        assert c.execute("SHOW statement_timeout").fetchone() == ("3s",)
    assert c.execute("SHOW statement_timeout").fetchone() == ("0",)
    with c.transaction(force_rollback=True):
        c.execute("SET statement_timeout = '4s'")
    assert c.execute("SHOW statement_timeout").fetchone() == ("0",)
    with c.transaction():
        c.execute("SELECT set_config('app.tenant', 'acme', true)")
        assert c.execute("SELECT current_setting('app.tenant')").fetchone() == ("acme",)
    assert c.execute("SELECT current_setting('app.tenant', true)").fetchone()[0] in ("", None)


@case
def a_bad_setting_is_refused_and_changes_nothing(c):
    c.execute("SET work_mem = '8MB'")
    with expect(errors.InvalidParameterValue):
        c.execute("SET work_mem = 'a lot'")
    with expect(errors.UndefinedObject):
        c.execute("SET no_such_setting = 1")
    assert c.execute("SHOW work_mem").fetchone() == ("8MB",)


@case
def startup_parameters_and_options(c):
    with connect(application_name="a suite", options="-c statement_timeout=9s -c search_path=pg_catalog,public",
                 autocommit=True) as other:
        assert other.execute("SHOW application_name").fetchone() == ("a suite",)
        assert other.execute("SHOW statement_timeout").fetchone() == ("9s",)
        assert other.execute("SHOW search_path").fetchone() == ("pg_catalog,public",)
        other.execute("SET statement_timeout = '1s'")
        other.execute("RESET statement_timeout")
        assert other.execute("SHOW statement_timeout").fetchone() == ("9s",)
        other.execute("DISCARD ALL")
        assert other.execute("SHOW statement_timeout").fetchone() == ("9s",)
    with expect(psycopg.OperationalError):
        connect(options="-c no_such_setting=1")
    assert c.execute("SHOW statement_timeout").fetchone() == ("0",)


@case
def client_encodings(c):
    with connect(client_encoding="latin1", autocommit=True) as other:
        assert other.execute("SELECT 'é'::text, octet_length('é')").fetchone() == ("é", 2)
        other.execute("SET client_encoding = 'UTF8'")
        assert other.execute("SELECT '☃'::text").fetchone() == ("☃",)
    assert c.execute("SELECT '☃'::text").fetchone() == ("☃",)


@case
def temporary_tables_stay_with_their_client(c):
    c.execute("CREATE TEMP TABLE mine AS SELECT 1 AS a")
    with connect(autocommit=True) as other:
        with expect(errors.UndefinedTable):
            other.execute("SELECT * FROM mine")
        for _ in range(10):
            other.execute("SELECT 1")
            assert c.execute("SELECT a FROM mine").fetchone() == (1,)
    c.execute("DROP TABLE mine")


@case
def session_advisory_locks_stay_with_their_client(c):
    assert c.execute("SELECT pg_try_advisory_lock(4711)").fetchone() == (True,)
    with connect(autocommit=True) as other:
        assert other.execute("SELECT pg_try_advisory_lock(4711)").fetchone() == (False,)
        assert c.execute("SELECT pg_advisory_unlock(4711)").fetchone() == (True,)
        assert other.execute("SELECT pg_try_advisory_lock(4711)").fetchone() == (True,)
    assert_free(c, 4711)


def assert_free(c, key):
    """The lock of a connection that ended is released a moment later."""
    assert c.execute("SET lock_timeout = '10s'") and c.execute("SELECT pg_advisory_lock(%s)", (key,))
    assert c.execute("SELECT pg_advisory_unlock(%s)", (key,)).fetchone() == (True,)
    c.execute("RESET lock_timeout")


@case
def statements_prepared_in_sql(c):
    c.execute("PREPARE plus (int) AS SELECT $1 + 1")
    with connect(autocommit=True) as other:
        with expect(errors.InvalidSqlStatementName):
            other.execute("EXECUTE plus(1)")
        for n in range(10):
            other.execute("SELECT 1")
            assert c.execute(f"EXECUTE plus({n})").fetchone() == (n + 1,)
    c.execute("DEALLOCATE plus")
    with expect(errors.InvalidSqlStatementName):
        c.execute("EXECUTE plus(1)")


@case
def sequences_remember_their_session(c):
    c.execute("DROP SEQUENCE IF EXISTS seq; CREATE SEQUENCE seq")
    with c.transaction():
        value = c.execute("SELECT nextval('seq')").fetchone()
        assert c.execute("SELECT currval('seq')").fetchone() == value


@case
def large_results(c):
    rows = c.execute("SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n").fetchall()
    assert len(rows) == 20000 and all(len(text) == 500 for _, text in rows)


@case
def large_values_both_ways(c):
    text = "0123456789abcdef" * (1 << 18)  # 4 MiB
    assert c.execute("SELECT %s::text", (text,)).fetchone() == (text,)
    binary = bytes(range(256)) * (1 << 14)  # 4 MiB
    with c.cursor(binary=True) as cursor:
        assert cursor.execute("SELECT %b::bytea", (binary,)).fetchone() == (binary,)


@case
def wide_rows_and_many_parameters(c):
    row = c.execute("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(1600))).fetchone()
    assert row == tuple(range(1600))
    values = list(range(20000))
    assert c.execute("SELECT count(*) FROM (VALUES " + ",".join(["(%s::int)"] * 20000) + ") v", values).fetchone() == (20000,)


@case
def several_statements_in_one_query(c):
    cursor = c.execute("SELECT 1; SELECT 2, 3; SELECT WHERE false")
    assert cursor.fetchall() == [(1,)]
    assert cursor.nextset() and cursor.fetchall() == [(2, 3)]
    assert cursor.nextset() and cursor.fetchall() == []
    assert not cursor.nextset()
    c.execute("DROP TABLE IF EXISTS multi; CREATE TABLE multi (a int)")
    with expect(errors.DivisionByZero):
        c.execute("INSERT INTO multi VALUES (1); SELECT 1/0; INSERT INTO multi VALUES (2)")
    assert c.execute("SELECT count(*) FROM multi").fetchone() == (0,)


@case
def empty_queries(c):
    for text in ("", ";", "  -- nothing\n", "/* nothing */"):
        assert c.execute(text).pgresult.status == psycopg.pq.ExecStatus.EMPTY_QUERY


@case
def notices(c):
    heard = []
    c.add_notice_handler(lambda d: heard.append((d.severity, d.sqlstate, d.message_primary, d.message_hint)))
    c.execute("DO $$ BEGIN RAISE NOTICE 'hello %', 7 USING HINT = 'a hint'; RAISE WARNING 'careful'; END $$")
    assert heard == [("NOTICE", "00000", "hello 7", "a hint"), ("WARNING", "01000", "careful", None)], heard


@case
def errors_carry_all_their_fields(c):
    c.execute("DROP TABLE IF EXISTS fields; CREATE TABLE fields (a int CONSTRAINT positive CHECK (a > 0))")
    with expect(errors.CheckViolation) as caught:
        c.execute("INSERT INTO fields VALUES (%s)", (-1,))
    diag = caught.error.diag
    assert (diag.table_name, diag.constraint_name, diag.schema_name) == ("fields", "positive", "public")
    with expect(errors.SyntaxError) as caught:
        c.execute("SELECT FROM WHERE")
    assert caught.error.diag.statement_position == "13"


@case
def a_cancel_hits_the_right_statement(c):
    with connect(autocommit=True) as other:
        threading.Timer(0.3, c.cancel_safe).start()
        with expect(errors.QueryCanceled):
            c.execute("SELECT pg_sleep(30)")
        assert other.execute("SELECT 1").fetchone() == (1,)
        c.cancel_safe()  # idle: nothing happens, to nobody
        assert c.execute("SELECT 2").fetchone() == (2,)
        assert other.execute("SELECT 3").fetchone() == (3,)


@case
def timeouts(c):
    c.execute("SET statement_timeout = '200ms'")
    with expect(errors.QueryCanceled):
        c.execute("SELECT pg_sleep(30)")
    c.execute("RESET statement_timeout")
    c.execute("DROP TABLE IF EXISTS locked; CREATE TABLE locked (a int)")
    with connect() as other:
        other.execute("LOCK TABLE locked")
        with expect(errors.LockNotAvailable), c.transaction():
            c.execute("SET LOCAL lock_timeout = '100ms'")
            c.execute("SELECT * FROM locked")
        other.rollback()
    assert c.execute("SELECT 1").fetchone() == (1,)


@case
def deadlocks_are_reported_to_one(c):
    c.execute("DROP TABLE IF EXISTS dead; CREATE TABLE dead (a int PRIMARY KEY, b int); INSERT INTO dead VALUES (1, 0), (2, 0)")
    outcomes, both = [], threading.Barrier(2)

    def run(first, second):
        with connect() as other:
            try:
                other.execute("UPDATE dead SET b = b + 1 WHERE a = %s", (first,))
                both.wait(10)
                other.execute("UPDATE dead SET b = b + 1 WHERE a = %s", (second,))
                other.commit()
                outcomes.append("ok")
            except errors.DeadlockDetected:
                other.rollback()
                outcomes.append("deadlock")

    threads = [threading.Thread(target=run, args=pair) for pair in ((1, 2), (2, 1))]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert sorted(outcomes) == ["deadlock", "ok"], outcomes


@case
def row_factories_and_callproc(c):
    cursor = c.cursor(row_factory=dict_row)
    assert cursor.execute("SELECT 1 AS a, 'x' AS b").fetchone() == {"a": 1, "b": "x"}
    c.execute("CREATE OR REPLACE PROCEDURE twice(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN a := a * 2; COMMIT; END $$")
    assert c.execute("CALL twice(%s)", (21,)).fetchone() == (42,)


@case
def statements_that_refuse_transactions(c):
    c.execute("DROP TABLE IF EXISTS vac; CREATE TABLE vac (a int)")
    c.execute("VACUUM vac")
    c.execute("CREATE INDEX CONCURRENTLY ON vac (a)")
    with expect(errors.ActiveSqlTransaction), c.transaction():
        c.execute("VACUUM vac")


@case
def large_objects(c):
    with c.transaction():
        oid = c.execute("SELECT lo_from_bytea(0, %s)", (b"large" * 1000,)).fetchone()[0]
        descriptor = c.execute("SELECT lo_open(%s, 262144)", (oid,)).fetchone()[0]
        assert c.execute("SELECT loread(%s, 10)", (descriptor,)).fetchone() == (b"largelarge",)
        c.execute("SELECT lo_unlink(%s)", (oid,))


@case
def more_clients_than_a_pool_has_servers(_):
    clients, each = 80, 10

    async def client(number):
        connection = await psycopg.AsyncConnection.connect(URL, autocommit=True)
        async with connection:
            for n in range(each):
                async with connection.transaction():
                    cursor = await connection.execute("SELECT %s::int * 1000 + %s::int", (number, n))
                    assert await cursor.fetchone() == (number * 1000 + n,)
                    await connection.execute("SELECT pg_sleep(0.002)")

    async def everybody():
        await asyncio.gather(*(client(number) for number in range(clients)))

    asyncio.run(everybody())


@case
def connections_come_and_go(_):
    for n in range(50):
        with connect() as other:
            assert other.execute("SELECT %s::int", (n,)).fetchone() == (n,)
    for _ in range(10):
        other = connect()
        other.execute("BEGIN; CREATE TEMP TABLE abandoned (a int)")
        other.close()  # in a transaction, without a word


@case
def discard_all_gives_a_fresh_session(c):
    c.execute("SET work_mem = '9MB'; CREATE TEMP TABLE gone (a int)")
    c.execute("DISCARD ALL")
    assert c.execute("SHOW work_mem").fetchone() != ("9MB",)
    with expect(errors.UndefinedTable):
        c.execute("SELECT * FROM gone")


@case
def roles_stay_with_their_client(c):
    c.execute("SELECT current_user")
    with connect(autocommit=True) as other:
        c.execute("SET ROLE none")
        assert c.execute("SELECT current_user = session_user").fetchone() == (True,)
        assert other.execute("SELECT current_user = session_user").fetchone() == (True,)
        with expect(errors.InvalidParameterValue):
            c.execute("SET ROLE nobody_at_all")


@case
def json_round_trip(c):
    document = {"deep": [{"n": n, "text": "☃" * n} for n in range(50)]}
    assert c.execute("SELECT %s::jsonb", (Jsonb(document),)).fetchone() == (json.loads(json.dumps(document)),)


def run(function):
    with connect(autocommit=True) as connection:
        function(connection)


run_all(run)
