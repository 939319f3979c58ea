"""pg8000: pure Python, its own SCRAM and protocol."""

import pg8000.native
from checks import DSN, equal, main, raises


def connect():
    keys = {k: v for k, v in DSN.items() if k != "user"}
    return pg8000.native.Connection(DSN["user"], **keys)


def check_values():
    with connect() as c:
        equal(c.run("SELECT :a::int, :b::text", a=7, b="x"), [[7, "x"]])


def check_prepared():
    with connect() as c:
        statement = c.prepare("SELECT :n::int * 2")
        equal([statement.run(n=n)[0][0] for n in range(5)], [0, 2, 4, 6, 8])


def check_error_and_go_on():
    with connect() as c:
        raises(pg8000.native.DatabaseError, c.run, "SELECT nothing")
        equal(c.run("SELECT 1"), [[1]])


if __name__ == "__main__":
    main(globals())
