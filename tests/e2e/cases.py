"""What the end-to-end tests share: one server, a gateway per class, psql."""

from __future__ import annotations

import atexit
import contextlib
import os
import pathlib
import re
import select
import socket
import struct
import subprocess
import time
import unittest

from harness import Gateway, PostgresServer, configs, free_port, wait_until

OWNER, OWNER_PASSWORD = "shop_owner", "planted-9f86d081884c7d659a2feaa0c55ad015"
AWS_KEY = "AKIA" + "Q7XW2LMN4RST6UVZ"
_stack = contextlib.ExitStack()
_server: PostgresServer | None = None


def server() -> PostgresServer:
    """The one PostgreSQL server of the run, with the database `shop` in it."""
    global _server
    if _server is None:
        _server = _stack.enter_context(PostgresServer())
        atexit.register(_stack.close)
        _server.sql(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{OWNER_PASSWORD}';")
        for name in ("shop", "shop_two"):
            _server.sql(f"CREATE DATABASE {name} OWNER {OWNER};")
    return _server


def fresh_tables() -> None:
    server().sql(
        f"""
        DROP TABLE IF EXISTS orders, customers;
        SET ROLE {OWNER};
        CREATE TABLE customers (id int PRIMARY KEY, name text, discount int DEFAULT 0, note text);
        CREATE TABLE orders (id int PRIMARY KEY, customer int, total numeric);
        INSERT INTO customers (id, name, note) VALUES (1, 'Ada', 'tea'), (2, 'Grace', 'key {AWS_KEY} here'),
            (3, 'Edsger', '{OWNER_PASSWORD}');
        INSERT INTO orders VALUES (10, 1, 99.50), (11, 2, 12.00);
        """,
        "shop",
    )


RULES = """
[[roles.rules]]
name = "reads"
action = "allow"
statements = ["read", "copy", "session"]
[[roles.rules]]
name = "careful-writes"
action = "allow"
statements = ["insert", "update", "delete"]
tables = ["customers", "orders"]
[[roles.rules]]
name = "transactions"
action = "allow"
statements = ["transaction"]
[[roles.rules]]
name = "notices"
action = "allow"
statements = ["do"]
opaque = true
when = "text_length < 200"
[[roles.rules]]
name = "without-where"
action = "approve"
statements = ["update", "delete"]
where_present = false
wait_s = 60
wait_in_transaction_s = 60
[[roles.rules]]
name = "no-dropping"
action = "deny"
statements = ["drop_table", "truncate", "alter_table"]
message = "tables are dropped by migrations only"
[[roles.rules]]
name = "no-salaries"
action = "deny"
tables = ["salaries"]
"""


def config(folder: pathlib.Path, port: int, control: int, extra: str = "", rules: str = RULES, hosts: str = "") -> str:
    hosts = hosts or f"127.0.0.1:{server().port}"
    return f"""\
[gateway]
data_dir = {configs.text(str(folder / "data"))}
shards = 1
drain_ms = 1000
login_ms = 3000
[control]
address = "127.0.0.1:{control}"
[approvals]
cool_down_s = 0
[[listeners]]
name = "agents"
address = "127.0.0.1:{port}"
[[targets]]
name = "shop"
hosts = ["{hosts}"]
tls = "off"
database = "shop"
account = "{OWNER}"
password = {{ env = "SHOP_PASSWORD" }}
{extra}
[[roles]]
name = "shop-agent"
groups = ["agents"]
targets = ["shop", "other-*"]
packs = ["client-preamble"]
{rules}"""


class GatewayCase(unittest.TestCase):
    """A gateway for the class, fresh tables for each test."""

    extra = ""
    gateway: Gateway

    @classmethod
    def setUpClass(cls) -> None:
        cls.stack = contextlib.ExitStack()
        cls.port, cls.control = free_port(), free_port()
        cls.gateway = cls.stack.enter_context(
            Gateway(
                lambda folder: config(folder, cls.port, cls.control, cls.extra),
                env={"SHOP_PASSWORD": OWNER_PASSWORD},
            )
        )
        cls.token = cls.gateway.token("ada", "agents")

    @classmethod
    def tearDownClass(cls) -> None:
        cls.stack.close()

    def setUp(self) -> None:
        fresh_tables()

    # -- psql -----------------------------------------------------------------

    def command(self, *arguments: str, database: str = "shop", **keywords: str) -> list[str]:
        keys = {"host": "127.0.0.1", "port": self.port, "user": "ada", "dbname": database} | keywords
        conninfo = " ".join(f"{key}='{value}'" for key, value in keys.items())
        return ["psql", "-X", "-A", "-t", "-q", "-v", "VERBOSITY=verbose", *arguments, conninfo]

    def env(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PGPASSWORD": self.token, "LC_ALL": "C.UTF-8"} | more

    def psql(self, script: str, token: str | None = None, timeout_s: float = 60, **more) -> subprocess.CompletedProcess:
        """A script through the gateway; psql goes on after errors, as a person would."""
        env = self.env(PGPASSWORD=token) if token else self.env()
        return subprocess.run(
            self.command("-f", "-", **more), input=script, env=env, capture_output=True, text=True, timeout=timeout_s
        )

    @contextlib.contextmanager
    def running(self, script: str, **more):
        """psql in the background, ended with the block."""
        child = subprocess.Popen(
            self.command("-f", "-", **more), env=self.env(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            child.stdin.write(script)
            child.stdin.close()
            child.stdin = None
            yield child
        finally:
            child.kill()
            child.communicate()

    # -- approvals --------------------------------------------------------------

    def pending(self, text: str, waiting: int = 1) -> str:
        """Waits until a request with `text` is held for `waiting` sessions; returns its id."""

        def listed():
            for entry in re.split(r"(?m)^(?=approval )", self.gateway.cli("approvals").stdout):
                if text in entry and f" {waiting} waiting" in entry:
                    return entry.split()[1]
            return None

        return wait_until(listed, 20, f"a request with {text!r}, {waiting} waiting", every_s=0.1)

    # -- raw connections ----------------------------------------------------------

    def connect(self) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.port), 10)
        peer.settimeout(20)
        return peer

    @staticmethod
    def startup(**parameters: str) -> bytes:
        body = struct.pack("!I", 196608)
        for key, value in parameters.items():
            body += key.encode() + b"\0" + value.encode() + b"\0"
        return struct.pack("!I", len(body) + 5) + body + b"\0"

    @staticmethod
    def until_closed(peer: socket.socket, timeout_s: float) -> bytes:
        """What the gateway says until it closes; fails if it does not in time."""
        deadline, said = time.monotonic() + timeout_s, b""
        while True:
            ready, _, _ = select.select([peer], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"not closed within {timeout_s} s; said {said[:200]!r}")
            try:
                data = peer.recv(65536)
            except ConnectionResetError:
                return said
            if not data:
                return said
            said += data
