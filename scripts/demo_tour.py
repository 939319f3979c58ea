"""The tour of `make demo`: an agent with plain psql before a real PostgreSQL.

Prints each step with what was expected and what came; ends with a line
`demo: N passed, N failed`.
"""

from __future__ import annotations

import base64
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/lib"))

from harness import Gateway, PostgresServer, free_port, wait_until  # noqa: E402
from harness.processes import end_on_signals  # noqa: E402

HOME = ROOT / ".demo"
KEEP = os.environ.get("KEEP", "") not in ("", "0")
AWS_KEY = "AKIA" + "Q7XW2LMN4RST6UVZ"
GITHUB_TOKEN = "ghp_" + "R4nd0mL00kingButInv3ntedT0kenValue42"

SHOP = f"""
CREATE TABLE customers (id int PRIMARY KEY, name text, discount int DEFAULT 0, note text);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, total numeric);
INSERT INTO customers (id, name, note) VALUES
    (1, 'Ada',   'prefers tea'),
    (2, 'Grace', 'pasted this in a ticket: {AWS_KEY}'),
    (3, 'Edsger','deploy token {GITHUB_TOKEN}');
INSERT INTO orders VALUES (10, 1, 99.50), (11, 2, 12.00);
"""


class Tap:
    """A relay between psql and the gateway that keeps every byte of both ways."""

    def __init__(self, port: int):
        self.target, self.bytes = port, b""
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                agent, _ = self._listener.accept()
            except OSError:
                return
            gateway = socket.create_connection(("127.0.0.1", self.target))
            for source, sink in ((agent, gateway), (gateway, agent)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                with self._lock:
                    self.bytes += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Demo:
    def __init__(self):
        self.passed = self.failed = 0

    def step(self, title: str) -> None:
        print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}")

    def check(self, expected: str, holds: bool, came: str) -> None:
        print(f"  expected: {expected}")
        lines = came.strip().splitlines() or ["(nothing)"]
        print(f"  came:     {lines[0][:200]}")
        for line in lines[1:12]:
            print(f"            {line[:200]}")
        print(f"  {'ok' if holds else 'FAILED'}")
        self.passed += bool(holds)
        self.failed += not holds

    def psql(self, port: int, token: str, *statements: str) -> subprocess.CompletedProcess:
        """Plain psql as the agent runs it: its own environment holds a token only."""
        conninfo = f"host=127.0.0.1 port={port} dbname=shop user=ada"
        command = ["psql", "-X", conninfo]
        shown = " ".join(f'-c "{statement}"' for statement in statements)
        print(f'  $ psql "{conninfo}" {shown}')
        for statement in statements:
            command += ["-c", statement]
        return subprocess.run(
            command, env=self.agent_env(token), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip

    @staticmethod
    def agent_env(token: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PGPASSWORD": token, "LC_ALL": "C.UTF-8"}


def forms(secret: str) -> list[bytes]:
    """The spellings of a secret that a hunt looks for."""
    raw = secret.encode()
    found = [raw, raw.hex().encode(), raw.hex().upper().encode(), secret.encode("utf-16-le")]
    for shift in range(3):
        # Base64 of it in the middle of something else, at each alignment.
        text = base64.b64encode(b"x" * shift + raw)
        found.append(text[4 if shift else 0 : len(text) - 4])
    return found


def configuration(database_port: int) -> str:
    """examples/demo.toml, with ports replaced where something else has them."""
    text = (ROOT / "examples/demo.toml").read_text()
    text = text.replace("127.0.0.1:54329", f"127.0.0.1:{database_port}")
    for port in ("6432", "7432"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", int(port)))
            except OSError:
                other = str(free_port())
                print(f"port {port} is taken here; this run uses {other} instead")
                text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}")
    return text


def tour(demo: Demo, server: PostgresServer, gateway: Gateway, password: str) -> None:
    port = int(gateway.config["listeners"][0]["address"].rsplit(":", 1)[1])
    program = os.path.relpath(gateway.program, os.getcwd())
    config = os.path.relpath(gateway.config_path, os.getcwd())

    demo.step("1. An agent gets a token, and with it a session")
    print(f"  $ {program} token --config {config} --subject ada --group agents --ttl-s 3600")
    token = gateway.cli("token", "--subject", "ada", "--group", "agents", "--ttl-s", "3600").stdout.split()[-1]
    demo.check("a token, made by the gateway, good for an hour", len(token) >= 20, f"{token[:12]}… ({len(token)} characters)")
    tap = Tap(port)
    came = demo.psql(tap.port, token, "SELECT current_user, current_database()")
    demo.check("logged in to the database as its real account, shop_owner", "shop_owner" in came.stdout, came.stdout)

    demo.step("2. Rows that hold secrets come back masked")
    came = demo.psql(tap.port, token, "SELECT id, name, note FROM customers ORDER BY id")
    masked = "[masked:" in came.stdout and AWS_KEY not in came.stdout and GITHUB_TOKEN not in came.stdout
    demo.check("three rows; the AWS key and the GitHub token replaced by [masked:…]",
               masked and "prefers tea" in came.stdout, came.stdout)  # fmt: skip

    demo.step("3. DROP TABLE is refused, and the session goes on")
    came = demo.psql(tap.port, token, "DROP TABLE orders", "SELECT count(*) FROM orders")
    session = re.search(r"session=([^\s\"]+)", came.stdout)
    demo.check('an error that names the rule "no-dropping" and the session; then the count, in the same session',
               "no-dropping" in came.stdout and session is not None and re.search(r"(?m)^\s+2$", came.stdout) is not None,
               came.stdout)  # fmt: skip
    there = server.sql("SELECT count(*) FROM orders", "shop")
    demo.check("the table is still there: asked of the server itself", there == "2", f"{there} rows")

    demo.step("4. An UPDATE without WHERE waits for a human")
    print(f'  $ psql "host=127.0.0.1 port={port} dbname=shop user=ada" -c "UPDATE customers SET discount = 10"')
    update = subprocess.Popen(
        ["psql", "-X", f"host=127.0.0.1 port={tap.port} dbname=shop user=ada", "-c", "UPDATE customers SET discount = 10"],
        env=demo.agent_env(token), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        def pending():
            listed = gateway.cli("approvals").stdout
            return listed if "UPDATE customers" in listed else None

        listed = wait_until(pending, 20, "the held request listed")
        identifier = re.search(r"(?m)^approval\s+(\S+)", listed)
        print(f"  (second terminal) $ {program} approvals --config {config}")
        demo.check("the whole statement is shown to the approver", identifier is not None, listed)
        before = server.sql("SELECT sum(discount) FROM customers", "shop")
        demo.check("nothing has run yet", before == "0" and update.poll() is None, f"sum of discounts {before}")
        print(f"  (second terminal) $ {program} approve --config {config} {identifier.group(1)} --by grace")
        gateway.cli("approve", identifier.group(1), "--by", "grace")
        out, _ = update.communicate(timeout=30)
    finally:
        update.kill()
        update.wait()
    demo.check("approved: exactly that statement runs, once", "UPDATE 3" in out, out)
    after = server.sql("SELECT sum(discount) FROM customers", "shop")
    demo.check("the server has it", after == "30", f"sum of discounts {after}")

    demo.step("5. The agent never saw the database's password")
    server.sql(f"UPDATE customers SET note = 'left here by mistake: {password}' WHERE id = 1", "shop")
    came = demo.psql(tap.port, token, "SELECT note FROM customers WHERE id = 1")
    demo.check("even a row that holds it comes back masked", "[masked:" in came.stdout and password not in came.stdout,
               came.stdout)  # fmt: skip
    spellings = forms(password)

    def hunt(content: bytes) -> int:
        return sum(content.count(spelling) for spelling in spellings)

    environment = "\0".join(f"{k}={v}" for k, v in demo.agent_env(token).items()).encode()
    found = hunt(environment)
    demo.check("not in its environment", found == 0, f"{found} times in {len(environment)} bytes")
    found = hunt(tap.bytes)
    demo.check("not in its traffic, both ways, in any common spelling", found == 0 and len(tap.bytes) > 1000,
               f"{found} times in {len(tap.bytes)} bytes")  # fmt: skip
    record = gateway.folder_of_record
    files = [path for path in [*record.rglob("*"), gateway.log] if path.is_file()]
    found, size = sum(hunt(path.read_bytes()) for path in files), sum(path.stat().st_size for path in files)
    demo.check("not in the record nor in the log", found == 0 and size > 1000, f"{found} times in {size} bytes of {len(files)} files")

    demo.step("6. The session is replayed")
    identifier = session.group(1).rstrip(",;)") if session else "unknown"
    print(f"  $ {program} replay --config {config} {identifier}")
    replayed = gateway.cli("replay", identifier, check=False)
    text = replayed.stdout + replayed.stderr
    demo.check("the refused DROP, the rule, and the count that followed",
               replayed.returncode == 0 and "DROP TABLE orders" in text and "no-dropping" in text and "count" in text,
               text)  # fmt: skip

    demo.step("7. The record is whole, and says where it is not")
    print(f"  $ {program} verify --dir {os.path.relpath(record, os.getcwd())}")
    verified = gateway.cli("verify", "--dir", str(record), config=False, check=False)
    demo.check("whole (exit code 0)", verified.returncode == 0, verified.stdout + verified.stderr)
    damaged = HOME / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(record, damaged)
    segment = max((path for path in damaged.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    print(f"  one bit of {segment.name} flipped in a copy, at byte {len(content) // 2}")
    verified = gateway.cli("verify", "--dir", str(damaged), config=False, check=False)
    text = verified.stdout + verified.stderr
    demo.check("not whole (exit code 3), naming segment and byte", verified.returncode == 3 and re.search(r"segment \d+, byte \d+", text) is not None, text)


def main() -> int:
    end_on_signals()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    demo = Demo()
    password = "shop-" + secrets.token_hex(16)
    with PostgresServer() as server:
        server.sql(f"CREATE ROLE shop_owner LOGIN PASSWORD '{password}'; CREATE DATABASE shop OWNER shop_owner;")
        server.sql(f"SET ROLE shop_owner; {SHOP}", "shop")
        print(f"PostgreSQL is up on 127.0.0.1:{server.port}, data in {server.data}")
        gateway = Gateway(configuration(server.port), env={"SHOP_DB_PASSWORD": password}, folder=HOME)
        with gateway:
            gateway.folder_of_record = HOME / "gateway/record"
            print(f"Portcullis is up on {gateway.config['listeners'][0]['address']}, with {gateway.config_path.relative_to(ROOT)}")
            try:
                tour(demo, server, gateway, password)
            except Exception as error:
                demo.failed += 1
                print(f"  FAILED: the tour ended early: {type(error).__name__}: {error}")
            print(f"\ndemo: {demo.passed} passed, {demo.failed} failed", flush=True)
            if KEEP:
                stay(server, gateway)
    if not demo.failed:
        shutil.rmtree(HOME, ignore_errors=True)
    else:
        print(f"log and record are kept in {HOME.relative_to(ROOT)}")
    return 1 if demo.failed or not demo.passed else 0


def stay(server: PostgresServer, gateway: Gateway) -> None:
    """Prints what to try by hand, and waits for Ctrl-C."""
    host, port = gateway.config["listeners"][0]["address"].rsplit(":", 1)
    program, config = gateway.program.relative_to(ROOT), gateway.config_path.relative_to(ROOT)
    print(f"""
Everything stays up until Ctrl-C. To try by hand, in another terminal:

  export PGPASSWORD='{gateway.token("you", "agents")}'
  psql "host={host} port={port} dbname=shop user=you"
      SELECT * FROM customers;
      DROP TABLE orders;
      UPDATE customers SET discount = 20;      -- waits for:
  {program} approvals --config {config}
  {program} approve --config {config} ID --by NAME
  {program} sessions --config {config}
  {program} explain --config {config} --role shop-agent --target shop "DELETE FROM orders"
  {program} verify --dir .demo/gateway/record
""", flush=True)  # fmt: skip
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("stopping")


if __name__ == "__main__":
    sys.exit(main())
