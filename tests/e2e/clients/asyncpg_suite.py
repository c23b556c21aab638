"""asyncpg against a database: binary formats, its own prepared statements, Flush without Sync."""

import asyncio
import datetime as dt
import decimal
import io
import json
import uuid

import asyncpg
from suite import case, expect, run_all, url

URL = url()


@case
async def parameters_in_binary(c):
    when = dt.datetime(2026, 2, 28, 12, tzinfo=dt.timezone.utc)
    values = [7, 2**40, 1.25, decimal.Decimal("1e-20"), "☃", True, None, b"\0\xff", when, dt.date(2026, 1, 1),
              uuid.UUID(int=9), [1, None, 3], [["a", "b"], ["c", "d"]]]
    casts = ["int4", "int8", "float8", "numeric", "text", "bool", "text", "bytea", "timestamptz", "date", "uuid",
             "int4[]", "text[]"]
    row = await c.fetchrow("SELECT " + ", ".join(f"${n}::{cast}" for n, cast in enumerate(casts, 1)), *values)
    assert list(row.values()) == values


@case
async def the_statement_cache_serves_repeated_statements(c):
    for n in range(200):
        assert await c.fetchval("SELECT $1::int + 1", n) == n + 1


@case
async def more_statements_than_the_cache_holds(_):
    c = await asyncpg.connect(URL, statement_cache_size=10)
    for _round in range(3):
        for n in range(40):
            assert await c.fetchval(f"SELECT $1::int + {n}", 1) == 1 + n
    await c.close()


@case
async def no_statement_cache_uses_the_unnamed_statement(_):
    c = await asyncpg.connect(URL, statement_cache_size=0)
    for n in range(50):
        assert await c.fetchval("SELECT $1::int", n) == n
    await c.close()


@case
async def prepared_statements_interleave(c):
    plus = await c.prepare("SELECT $1::int + 1")
    text = await c.prepare("SELECT $1::text || '!' AS shout")
    assert [a.name for a in text.get_attributes()] == ["shout"]
    other = await asyncpg.connect(URL)
    minus = await other.prepare("SELECT $1::int - 1")
    for n in range(50):
        assert await plus.fetchval(n) == n + 1
        assert await minus.fetchval(n) == n - 1
        assert await text.fetchval(str(n)) == f"{n}!"
    await other.close()


@case
async def types_are_introspected(c):
    await c.execute("DROP TABLE IF EXISTS typed; DROP TYPE IF EXISTS mood, pair CASCADE")
    await c.execute("CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TYPE pair AS (a int, m mood)")
    await c.execute("CREATE TABLE typed (p pair, ms mood[])")
    await c.execute("INSERT INTO typed VALUES ($1::pair, $2::mood[])", (1, "glad"), ["sad", "glad"])
    row = await c.fetchrow("SELECT * FROM typed")
    assert tuple(row["p"]) == (1, "glad") and row["ms"] == ["sad", "glad"]


@case
async def codecs(c):
    await c.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    document = {"a": [1, 2, {"b": None}]}
    assert await c.fetchval("SELECT $1::jsonb", document) == document


@case
async def executemany_is_one_transaction(c):
    await c.execute("DROP TABLE IF EXISTS am; CREATE TABLE am (a int PRIMARY KEY, b text)")
    await c.executemany("INSERT INTO am VALUES ($1, $2)", [(n, str(n)) for n in range(1000)])
    with expect(asyncpg.UniqueViolationError):
        await c.executemany("INSERT INTO am VALUES ($1, $2)", [(n, "") for n in range(2000, 0, -1)])
    assert await c.fetchval("SELECT count(*) FROM am") == 1000


@case
async def copy_in_and_out(c):
    await c.execute("DROP TABLE IF EXISTS ac; CREATE TABLE ac (a int, b text)")
    rows = [(n, f"text {n}") for n in range(5000)]
    assert await c.copy_records_to_table("ac", records=rows) == "COPY 5000"
    out = io.BytesIO()
    assert await c.copy_from_query("SELECT * FROM ac ORDER BY a LIMIT $1", 10, output=out, format="csv") == "COPY 10"
    assert out.getvalue().splitlines()[9] == b"9,text 9"
    with expect(asyncpg.DataError):
        await c.copy_to_table("ac", source=io.BytesIO(b"x,y\n" * 1000), format="csv")
    assert await c.fetchval("SELECT count(*) FROM ac") == 5000


@case
async def transactions_and_savepoints(c):
    await c.execute("DROP TABLE IF EXISTS atx; CREATE TABLE atx (a int PRIMARY KEY)")
    async with c.transaction():
        await c.execute("INSERT INTO atx VALUES (1)")
        with expect(asyncpg.UniqueViolationError):
            async with c.transaction():
                await c.execute("INSERT INTO atx VALUES (1)")
        await c.execute("INSERT INTO atx VALUES (2)")
    with expect(ZeroDivisionError):
        async with c.transaction(isolation="serializable"):
            await c.execute("INSERT INTO atx VALUES (3)")
            raise ZeroDivisionError
    async with c.transaction(readonly=True):
        with expect(asyncpg.ReadOnlySQLTransactionError):
            async with c.transaction():
                await c.execute("INSERT INTO atx VALUES (4)")
        assert [r["a"] for r in await c.fetch("SELECT a FROM atx ORDER BY a")] == [1, 2]


@case
async def cursors_suspend_their_portal(c):
    async with c.transaction():
        seen = [record[0] async for record in c.cursor("SELECT generate_series(1, $1::int)", 500, prefetch=7)]
        assert seen == list(range(1, 501))
        cursor = await c.cursor("SELECT generate_series(1, 100)")
        await cursor.forward(10)
        assert (await cursor.fetchrow())[0] == 11
        assert await c.fetchval("SELECT 1") == 1
        assert [r[0] for r in await cursor.fetch(3)] == [12, 13, 14]


@case
async def listen_and_notify(c):
    heard = asyncio.Queue()
    await c.add_listener("anews", lambda _c, _pid, channel, payload: heard.put_nowait((channel, payload)))
    other = await asyncpg.connect(URL)
    await other.execute("SELECT pg_notify('anews', 'one')")
    await c.execute("NOTIFY anews, 'two'")
    assert await asyncio.wait_for(heard.get(), 10) == ("anews", "one")
    assert await asyncio.wait_for(heard.get(), 10) == ("anews", "two")
    await other.close()
    await c.reset()


@case
async def timeouts_cancel_the_statement(c):
    with expect(asyncio.TimeoutError):
        await c.fetchval("SELECT pg_sleep(30)", timeout=0.3)
    assert await c.fetchval("SELECT 1") == 1
    task = asyncio.ensure_future(c.fetchval("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.2)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    assert await c.fetchval("SELECT 2") == 2


@case
async def settings_at_login(_):
    settings = {"application_name": "asyncpg suite", "statement_timeout": "9s", "search_path": "public"}
    c = await asyncpg.connect(URL, server_settings=settings)
    for name, value in settings.items():
        assert await c.fetchval("SELECT current_setting($1)", name) == value
    assert c.get_settings().application_name == "asyncpg suite"
    assert c.get_server_version().major >= 12
    await c.close()


@case
async def notices(c):
    heard = []
    c.add_log_listener(lambda _c, message: heard.append(message.message))
    await c.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    await asyncio.sleep(0)
    assert heard == ["hello"]


@case
async def errors_leave_the_connection_usable(c):
    for sql, error in [("SELECT 1/0", asyncpg.DivisionByZeroError), ("SELECT nope", asyncpg.UndefinedColumnError),
                       ("SELEC", asyncpg.PostgresSyntaxError)] * 5:
        with expect(error):
            await c.fetch(sql)
        assert await c.fetchval("SELECT 1") == 1
    with expect(asyncpg.DataError):
        await c.fetchval("SELECT $1::int", "not a number")
    assert await c.fetchval("SELECT 1") == 1


@case
async def large_results(c):
    rows = await c.fetch("SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n")
    assert len(rows) == 20000 and len(rows[-1][1]) == 1000
    blob = bytes(range(256)) * (1 << 14)
    assert await c.fetchval("SELECT $1::bytea", blob) == blob


@case
async def a_pool_of_connections_with_its_reset(_):
    async with asyncpg.create_pool(URL, min_size=5, max_size=20, max_queries=50) as pool:
        async def work(n):
            async with pool.acquire() as c:
                if n % 3 == 0:
                    await c.execute("SET work_mem = '9MB'")
                async with c.transaction():
                    assert await c.fetchval("SELECT $1::int", n) == n
                return await c.fetchval("SHOW work_mem")
        seen = await asyncio.gather(*(work(n) for n in range(300)))
        assert all((value == "9MB") == (n % 3 == 0) for n, value in enumerate(seen))


@case
async def more_clients_than_a_pool_has_servers(_):
    async def client(number):
        c = await asyncpg.connect(URL)
        for n in range(10):
            assert await c.fetchval("SELECT $1::int * 1000 + $2::int", number, n) == number * 1000 + n
        await c.close()
    await asyncio.gather(*(client(number) for number in range(80)))


@case
async def more_clients_listen_than_a_pool_has_servers(c):
    heard, all_heard = [], asyncio.Event()

    def hear(connection, pid, channel, payload):
        heard.append((connection, pid == connection.get_server_pid(), channel, payload))
        if len(heard) == 80:
            all_heard.set()

    clients = [await asyncpg.connect(URL) for _ in range(40)]
    for client in clients:
        await client.add_listener("anews", hear)
    await c.execute("SELECT pg_notify('anews', $1)", "from afar")
    await clients[3].execute("NOTIFY anews, 'own'")
    await asyncio.wait_for(all_heard.wait(), 20)
    for number, client in enumerate(clients):
        mine = [(own, payload) for (who, own, _, payload) in heard if who is client]
        assert mine == [(False, "from afar"), (number == 3, "own")], mine
        await client.remove_listener("anews", hear)
        await client.close()


@case
async def a_connection_terminated_abruptly(c):
    for _ in range(10):
        other = await asyncpg.connect(URL)
        await other.execute("BEGIN")
        other.terminate()
    assert await c.fetchval("SELECT 1") == 1


async def with_connection(function):
    connection = await asyncpg.connect(URL)
    try:
        await asyncio.wait_for(function(connection), 60)
    finally:
        await connection.close(timeout=10)


run_all(lambda function: asyncio.run(with_connection(function)))
