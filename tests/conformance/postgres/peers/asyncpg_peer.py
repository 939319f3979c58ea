"""asyncpg: its own protocol implementation, binary throughout."""

import asyncio
import contextlib
import datetime
import decimal
import io
import uuid

import asyncpg
from checks import DSN, equal, main


@contextlib.asynccontextmanager
async def connected(**more):
    connection = await asyncpg.connect(**DSN, **more)
    try:
        yield connection
    finally:
        await connection.close()


async def check_binary_types():
    async with connected() as c:
        values = [2**40, "☃", b"\0\xff", decimal.Decimal("1.50"), uuid.UUID(int=7), datetime.date(2026, 2, 28), [1, None]]
        row = await c.fetchrow("SELECT $1::int8, $2::text, $3::bytea, $4::numeric, $5::uuid, $6::date, $7::int[]", *values)
        equal(list(row), values)


async def check_prepared_statement_attributes():
    async with connected() as c:
        statement = await c.prepare("SELECT $1::int AS a, relname FROM pg_class LIMIT $2")
        equal([a.name for a in statement.get_attributes()], ["a", "relname"])
        equal(len(await statement.fetch(1, 3)), 3)


async def check_type_introspection():
    async with connected() as c:
        await c.execute("CREATE TYPE pair AS (a int, b text)")
        try:
            equal(tuple(await c.fetchval("SELECT (1, 'x')::pair")), (1, "x"))
        finally:
            await c.execute("DROP TYPE pair")


async def check_cursor_over_portal():
    async with connected() as c, c.transaction():
        got = [record[0] async for record in c.cursor("SELECT generate_series(1, 1000)", prefetch=13)]
        equal(sum(got), 500500)


async def check_executemany_and_copy():
    async with connected() as c:
        await c.execute("CREATE TEMP TABLE t (a int, b text)")
        await c.executemany("INSERT INTO t VALUES ($1, $2)", [(n, str(n)) for n in range(2000)])
        equal(await c.copy_records_to_table("t", records=[(1, "x")] * 1000), "COPY 1000")
        out = io.BytesIO()
        await c.copy_from_query("SELECT a FROM t WHERE a = 7", output=out)
        equal(out.getvalue(), b"7\n")


async def check_nested_transactions_and_error():
    async with connected() as c:
        async with c.transaction():
            try:
                async with c.transaction():
                    await c.execute("SELECT 1/0")
            except asyncpg.DivisionByZeroError as error:
                equal(error.sqlstate, "22012")
            equal(await c.fetchval("SELECT 2"), 2)


async def check_listener():
    async with connected() as c:
        came = asyncio.get_running_loop().create_future()
        await c.add_listener("news", lambda _c, _pid, _channel, payload: came.set_result(payload))
        await c.execute("NOTIFY news, 'hi'")
        equal(await asyncio.wait_for(came, 10), "hi")


async def check_timeout_cancels():
    async with connected() as c:
        try:
            await c.fetch("SELECT pg_sleep(60)", timeout=0.3)
        except asyncio.TimeoutError:
            pass
        else:
            raise AssertionError("no timeout")
        equal(await c.fetchval("SELECT 5"), 5)


async def check_pool_with_reset():
    async with asyncpg.create_pool(**DSN, min_size=2, max_size=4) as pool:
        got = await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(100)))
        equal(got, list(range(100)))


async def check_server_settings():
    async with connected(server_settings={"search_path": "pg_catalog", "application_name": "peer"}) as c:
        equal(await c.fetchval("SHOW search_path"), "pg_catalog")


if __name__ == "__main__":
    main(globals())
