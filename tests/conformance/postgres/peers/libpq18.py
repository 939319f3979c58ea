"""libpq 18 (the one inside psycopg's wheel) against a TLS listener of the gateway.

PGSSLROOTCERT names the authority; PEER_OAUTH_PORT the listener that asks for
OAUTHBEARER, PEER_UPSTREAM_DIRECT_PORT one whose target is dialled with direct TLS.
"""

import ctypes
import glob
import os
import pathlib
import threading

import psycopg
from checks import DSN, equal, main, raises

KEYS = {k: v for k, v in DSN.items() if k != "database"} | {
    "dbname": DSN["database"],
    "sslmode": "verify-full",
    "sslrootcert": os.environ["PGSSLROOTCERT"],
}


def connect(**more):
    return psycopg.connect(**(KEYS | more), autocommit=True)


def check_client_is_version_18():
    equal(psycopg.pq.version() // 10000, 18)


def check_direct_TLS():
    with connect(sslnegotiation="direct") as c:
        equal(c.execute("SELECT 1").fetchone(), (1,))
        equal(c.pgconn.ssl_in_use, True)


def check_direct_TLS_with_TLS_1_2():
    with connect(sslnegotiation="direct", ssl_max_protocol_version="TLSv1.2") as c:
        equal(c.execute("SELECT 1").fetchone(), (1,))


def check_TLS_by_request():
    with connect(sslnegotiation="postgres") as c:
        equal(c.pgconn.ssl_in_use, True)
        equal(c.execute("SELECT 2").fetchone(), (2,))


def check_a_listener_that_requires_TLS_refuses_clear_text():
    raises(psycopg.OperationalError, lambda: connect(sslmode="disable"))


def check_protocol_3_2_inside_TLS():
    with connect(min_protocol_version="3.2", max_protocol_version="3.2") as c:
        equal(c.execute("SELECT 1").fetchone(), (1,))
        equal(c.info.backend_pid, c.execute("SELECT pg_backend_pid()").fetchone()[0])


def cancelled(**more):
    with connect(**more) as c, connect() as watcher:
        ended = []

        def sleep():
            try:
                c.execute("SELECT pg_sleep(60)")
            except psycopg.errors.QueryCanceled as error:
                ended.append(error.sqlstate)

        thread = threading.Thread(target=sleep)
        thread.start()
        query = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
        while watcher.execute(query, (c.info.backend_pid,)).fetchone() != (True,):
            pass
        c.cancel_safe(timeout=20)
        thread.join(30)
        equal(ended, ["57014"])
        equal(c.execute("SELECT 1").fetchone(), (1,))


def check_cancel_inside_TLS():
    cancelled()


def check_cancel_inside_direct_TLS_with_keys_of_3_2():
    cancelled(sslnegotiation="direct", min_protocol_version="3.2", max_protocol_version="3.2")


def check_upstream_dialled_with_direct_TLS():
    keys = {"port": os.environ["PEER_UPSTREAM_DIRECT_PORT"], "password": os.environ["PEER_UPSTREAM_DIRECT_TOKEN"]}
    with connect(**keys) as c:
        equal(c.execute("SELECT 3").fetchone(), (3,))


# -- OAUTHBEARER: libpq asks its caller for the token ---------------------------


class BearerRequest(ctypes.Structure):
    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("poll", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_void_p),
        ("user", ctypes.c_void_p),
    ]


HOOK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
OAUTH_BEARER_TOKEN = 1


def with_bearer(token: str, work):
    """Runs `work` while libpq is given `token` when a server asks for one."""
    folder = pathlib.Path(psycopg.__file__).parents[1] / "psycopg_binary.libs"
    libpq = ctypes.CDLL(glob.glob(str(folder / "libpq-*.so*"))[0])
    held = ctypes.create_string_buffer(token.encode())
    asked = []

    def answer(kind, _connection, data):
        if kind != OAUTH_BEARER_TOKEN:
            return 0
        request = ctypes.cast(data, ctypes.POINTER(BearerRequest)).contents
        asked.append((request.openid_configuration, request.scope))
        request.token = ctypes.cast(held, ctypes.c_void_p).value
        return 1

    hook = HOOK(answer)
    libpq.PQsetAuthDataHook.argtypes = [ctypes.c_void_p]
    libpq.PQsetAuthDataHook(ctypes.cast(hook, ctypes.c_void_p))
    try:
        work()
    finally:
        libpq.PQsetAuthDataHook(None)
    return asked


def oauth_connect():
    keys = KEYS | {"port": os.environ["PEER_OAUTH_PORT"], "require_auth": "oauth"}
    keys |= {"oauth_issuer": os.environ["PEER_OAUTH_ISSUER"], "oauth_client_id": "agent"}
    keys.pop("password")
    return psycopg.connect(**keys, autocommit=True)


def check_OAUTHBEARER_with_a_token():
    def work():
        with oauth_connect() as c:
            equal(c.execute("SELECT 4").fetchone(), (4,))

    equal(len(with_bearer(DSN["password"], work)) >= 1, True)


def check_OAUTHBEARER_with_a_wrong_token_is_refused():
    with_bearer("x" * 40, lambda: raises(psycopg.OperationalError, oauth_connect))


if __name__ == "__main__":
    main(globals())
