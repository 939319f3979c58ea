"""psycopg2: typical operations (the simple protocol, libpq bundled)."""

import io
import select

import psycopg2
import psycopg2.extras
from checks import DSN, equal, main, raises


def connect(**more):
    return psycopg2.connect(**DSN, **more)


def check_values():
    with connect() as c, c.cursor() as cursor:
        cursor.execute("SELECT %s, %s, %s", ("it's \\ 'quoted'", [1, 2], memoryview(b"\0\1")))
        row = cursor.fetchone()
        equal((row[0], row[1]), ("it's \\ 'quoted'", [1, 2]))


def check_execute_values_and_several_statements():
    with connect() as c, c.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE t (a int, b text); SELECT 1")
        equal(cursor.fetchone(), (1,))
        psycopg2.extras.execute_values(cursor, "INSERT INTO t VALUES %s", [(n, str(n)) for n in range(3000)])
        cursor.execute("SELECT sum(a) FROM t")
        equal(cursor.fetchone(), (4498500,))


def check_copy():
    with connect() as c, c.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE t (a int, b text)")
        cursor.copy_expert("COPY t FROM STDIN WITH CSV", io.StringIO("1,one\n2,\"two, too\"\n"))
        out = io.StringIO()
        cursor.copy_expert("COPY t TO STDOUT WITH CSV", out)
        equal(out.getvalue(), '1,one\n2,"two, too"\n')
        raises(
            psycopg2.errors.InvalidTextRepresentation,
            cursor.copy_expert,
            "COPY t FROM STDIN WITH CSV",
            io.StringIO("1,one\nbad,two\n"),
        )
        c.rollback()
        cursor.execute("SELECT 1")
        equal(cursor.fetchone(), (1,))


def check_named_cursor_with_hold():
    with connect() as c:
        cursor = c.cursor("keep", withhold=True)
        cursor.execute("SELECT generate_series(1, 50)")
        c.commit()
        equal(len(cursor.fetchmany(20)), 20)
        equal(len(cursor.fetchall()), 30)


def check_asynchronous_notify():
    # Without `with`, which would begin a transaction even here.
    c = connect()
    c.autocommit = True
    c.cursor().execute("LISTEN a")
    c.cursor().execute("NOTIFY a, 'self'")
    c.poll()
    if not c.notifies:
        select.select([c], [], [], 10)
        c.poll()
    equal(c.notifies[0].payload, "self")
    c.close()


def check_large_object():
    with connect() as c:
        large = c.lobject(0, "wb")
        large.write(b"z" * 100000)
        oid = large.oid
        large.close()
        equal(len(c.lobject(oid, "rb").read()), 100000)
        c.rollback()


def check_error_fields():
    with connect() as c, c.cursor() as cursor:
        error = raises(psycopg2.errors.UniqueViolation, cursor.execute,
                       "CREATE TEMP TABLE u (a int PRIMARY KEY); INSERT INTO u VALUES (1), (1)")  # fmt: skip
        equal((error.pgcode, error.diag.table_name), ("23505", "u"))


if __name__ == "__main__":
    main(globals())
