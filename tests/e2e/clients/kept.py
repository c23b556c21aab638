"""The same reads again and again, as prepared statements of asyncpg or psycopg: kept.py URL DRIVER."""

import asyncio
import sys

URL, DRIVER = sys.argv[1:3]
ROUNDS = 10
COLUMNS = "SELECT id, v, d, s, m FROM t WHERE id = "


async def by_asyncpg():
    import asyncpg

    connections = [await asyncpg.connect(URL) for _ in range(2)]
    for _ in range(ROUNDS):
        for number in range(1, 11):
            for c in connections:
                print("row", tuple(await c.fetchrow(COLUMNS + "$1::int", number)))
    for c in connections:
        await c.close()


def by_psycopg():
    import psycopg

    connections = [psycopg.connect(URL, autocommit=True) for _ in range(2)]
    for _ in range(ROUNDS):
        for number in range(1, 11):
            for c in connections:
                with c.cursor(binary=number % 2 == 0) as cursor:
                    print("row", cursor.execute(COLUMNS + "%s::int", (number,), prepare=True).fetchone())
    for c in connections:
        c.close()


if DRIVER == "asyncpg":
    asyncio.run(by_asyncpg())
else:
    by_psycopg()
