"""psycopg 3: typical operations."""

import threading

import psycopg
from checks import DSN, equal, main


def connect(**more):
    keys = {k: v for k, v in DSN.items() if k != "database"} | {"dbname": DSN["database"]}
    return psycopg.connect(**keys, **more)


def check_text_and_binary_values():
    with connect() as c:
        for binary in (False, True):
            row = c.execute(
                "SELECT %s::int8, %s::text, %s::bytea, %s::float8, %s::bool, %s::text[]",
                (2**40, "naïve ☃", b"\0\xff", 0.5, True, ["a", None, "c,d"]),
                binary=binary,
            ).fetchone()
            equal(row, (2**40, "naïve ☃", b"\0\xff", 0.5, True, ["a", None, "c,d"]))


def check_prepared_statements_are_reused():
    with connect(prepare_threshold=1) as c:
        for n in range(20):
            equal(c.execute("SELECT %s::int + 1", (n,)).fetchone(), (n + 1,))
        equal(c.execute("SELECT count(*) > 0 FROM pg_prepared_statements").fetchone(), (True,))


def check_pipeline_mode():
    with connect() as c, c.pipeline():
        cursors = [c.execute("SELECT %s::int", (n,)) for n in range(500)]
        equal([cursor.fetchone()[0] for cursor in cursors], list(range(500)))


def check_pipeline_error_skips_to_sync():
    with connect(autocommit=True) as c:
        try:
            with c.pipeline():
                c.execute("CREATE TEMP TABLE t (a int)")
                c.execute("SELECT 1/%s", (0,))
                c.execute("CREATE TEMP TABLE not_made (a int)")
        except psycopg.errors.DivisionByZero:
            pass
        else:
            raise AssertionError("no error")
        equal(c.execute("SELECT to_regclass('not_made') IS NULL").fetchone(), (True,))


def check_copy_in_and_out():
    with connect() as c:
        c.execute("CREATE TEMP TABLE t (a int, b text)")
        rows = [(n, f"row\t{n}\n\\") for n in range(5000)]
        with c.cursor().copy("COPY t FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        with c.cursor().copy("COPY t TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            equal(list(copy.rows()), rows)


def check_copy_in_that_the_client_gives_up():
    with connect() as c:
        c.execute("CREATE TEMP TABLE t (a int)")
        try:
            with c.cursor().copy("COPY t FROM STDIN") as copy:
                copy.write("1\n")
                raise KeyError("changed my mind")
        except KeyError:
            pass
        c.rollback()
        equal(c.execute("SELECT 1").fetchone(), (1,))


def check_server_side_cursor_with_row_limit():
    with connect() as c, c.cursor("named") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT generate_series(1, 100)")
        equal(sum(row[0] for row in cursor), 5050)


def check_transaction_status_and_savepoints():
    with connect() as c:
        status = psycopg.pq.TransactionStatus
        equal(c.info.transaction_status, status.IDLE)
        c.execute("SELECT 1")
        equal(c.info.transaction_status, status.INTRANS)
        try:
            with c.transaction():
                c.execute("SELECT nothing")
        except psycopg.errors.UndefinedColumn as error:
            equal(error.diag.sqlstate, "42703")
        equal(c.execute("SELECT 2").fetchone(), (2,))


def check_notify_reaches_an_idle_session():
    with connect(autocommit=True) as one, connect(autocommit=True) as other:
        one.execute("LISTEN news")
        other.execute("SELECT pg_notify('news', 'hello')")
        for notice in one.notifies(timeout=10, stop_after=1):
            equal((notice.channel, notice.payload), ("news", "hello"))
            return
        raise AssertionError("nothing came")


def check_notices_are_passed_on():
    seen = []
    with connect() as c:
        c.add_notice_handler(lambda diag: seen.append(diag.message_primary))
        c.execute("DO $$ BEGIN RAISE NOTICE 'note %', 7; END $$")
    equal(seen, ["note 7"])


def check_cancel_stops_the_right_statement():
    with connect(autocommit=True) as c, connect(autocommit=True) as bystander:
        pid = c.info.backend_pid
        equal(c.execute("SELECT pg_backend_pid()").fetchone(), (pid,))
        ended = []

        def sleep():
            try:
                c.execute("SELECT pg_sleep(60)")
            except psycopg.errors.QueryCanceled as error:
                ended.append(error)

        thread = threading.Thread(target=sleep)
        thread.start()
        query = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
        while bystander.execute(query, (pid,)).fetchone() != (True,):
            pass
        c.cancel()
        thread.join(30)
        equal(len(ended), 1)
        equal(c.execute("SELECT 1").fetchone(), (1,))


def check_parameters_and_encoding():
    with connect(options="-c statement_timeout=77s -c search_path=pg_catalog", application_name="peer") as c:
        equal(c.execute("SHOW statement_timeout").fetchone(), ("77s",))
        equal(c.info.parameter_status("application_name"), "peer")
        c.execute("SET client_encoding TO latin1")
        equal(c.execute("SELECT 'é'").fetchone(), ("é",))


def check_large_value():
    with connect() as c:
        text = "x" * (32 << 20)
        equal(c.execute("SELECT %s::text", (text,)).fetchone()[0] == text, True)


def check_many_rows():
    with connect() as c:
        cursor = c.execute("SELECT n, md5(n::text) FROM generate_series(1, 200000) n")
        equal(sum(1 for _ in cursor), 200000)


def check_two_phase_commit():
    with connect() as c:
        xid = c.xid(1, "global", "branch")
        c.tpc_begin(xid)
        c.execute("SELECT 1")
        c.tpc_prepare()
        c.tpc_rollback()


async def check_asynchronous_connection():
    keys = {k: v for k, v in DSN.items() if k != "database"} | {"dbname": DSN["database"]}
    async with await psycopg.AsyncConnection.connect(**keys) as c:
        cursor = await c.execute("SELECT 1")
        equal(await cursor.fetchone(), (1,))


if __name__ == "__main__":
    main(globals())
