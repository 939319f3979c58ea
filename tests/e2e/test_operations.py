"""Logins, failures of the target, bad peers, reload, record, command line."""

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import cases
from cases import OWNER_PASSWORD, GatewayCase, server
from harness import ROOT, Gateway, GatewayFailed, PostgresServer, free_port, wait_until
from harness.gateway import program


class Logins(GatewayCase):
    def test_a_wrong_token_is_refused(self):
        done = self.psql("SELECT 1;", token="pc_" + "0" * 40)
        self.assertEqual(done.returncode, 2)
        self.assertNotIn("1\n", done.stdout)

    def test_an_unknown_target_and_a_closed_one_look_the_same(self):
        outsider = self.gateway.token("eve", "outsiders")
        closed = self.psql("SELECT 1;", token=outsider).stderr
        unknown = self.psql("SELECT 1;", token=outsider, database="nothing").stderr
        self.assertEqual(re.sub(r"session=\S+", "", closed).replace("shop", "X"), re.sub(r"session=\S+", "", unknown).replace("nothing", "X"))

    def test_the_agent_is_the_databases_real_account(self):
        self.assertEqual(self.psql("SELECT current_user;").stdout.strip(), cases.OWNER)

    def test_a_token_made_on_the_command_line_opens_a_session(self):
        made = self.gateway.cli("token", "--subject", "ada", "--group", "agents", "--ttl-s", "60").stdout.split()[-1]
        self.assertEqual(self.psql("SELECT 5;", token=made).stdout.strip(), "5")

    def test_start_up_parameters_are_passed_on(self):
        done = self.psql("SHOW statement_timeout;\nSHOW application_name;\n", options="-c statement_timeout=77s", application_name="mine")
        self.assertEqual(done.stdout.split(), ["77s", "mine"])


class BadPeers(GatewayCase):
    def test_nothing_that_a_stranger_sends_disturbs_others(self):
        lying = [
            b"", b"\0", b"\0\0\0\x08", b"\0\0\0\x04", struct.pack("!II", 0x7FFFFFFF, 196608), struct.pack("!II", 8, 196608),
            b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", os.urandom(5000), b"\xff" * 100,
            struct.pack("!II", 8, 80877103) + b"early clear text", self.startup(user="ada"), self.startup(),
            struct.pack("!II", 20, 196608) + b"user\0ada\0\0\0",
        ]  # fmt: skip
        silent, half = self.connect(), self.connect()
        half.sendall(struct.pack("!I", 100) + b"\0\3")
        with contextlib.ExitStack() as open_peers:
            peers = []
            for number in range(300):
                peer = open_peers.enter_context(self.connect())
                payload = lying[number % len(lying)] if number % 3 else os.urandom(1 + number * 7 % 900)
                with contextlib.suppress(OSError):
                    peer.sendall(payload)
                peers.append(peer)
                if number % 50 == 0:
                    self.assertEqual(self.psql("SELECT 1;").stdout.strip(), "1")
            # login_ms is 3 s: each is told why or closed by then.
            for peer in [*peers, silent, half]:
                self.until_closed(peer, 10)
        silent.close()
        half.close()
        self.assertEqual(self.psql("SELECT 1;").stdout.strip(), "1")

    def test_a_two_gigabyte_message_after_the_login_ends_that_session_alone(self):
        with self.connect() as peer:
            peer.sendall(self.startup(user="ada", database="shop"))
            self.login(peer)
            peer.sendall(b"Q" + struct.pack("!I", 0x7FFFFFF0) + b"SELECT 1")
            pss = self.pss_kib()
            said = self.until_closed(peer, 10)
        # As PostgreSQL itself: a broken message, and the end of the session.
        self.assertRegex(said, rb"C(08P01|54000)\0")
        self.assertLess(pss, 300 * 1024)
        self.assertEqual(self.psql("SELECT 1;").stdout.strip(), "1")

    def login(self, peer: socket.socket) -> None:
        """Sends the token and reads to ReadyForQuery."""
        token = self.token.encode() + b"\0"
        peer.sendall(b"p" + struct.pack("!I", len(token) + 4) + token)
        said = b""
        while not said.endswith(b"Z\0\0\0\5I"):
            data = peer.recv(65536)
            self.assertTrue(data, said)
            said += data

    def pss_kib(self) -> int:
        text = Path(f"/proc/{self.gateway.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"Pss:\s+(\d+)", text).group(1))

    def test_a_slow_reader_costs_bounded_memory(self):
        with self.connect() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.sendall(self.startup(user="ada", database="shop"))
            self.login(peer)
            query = b"SELECT repeat('x', 1000) FROM generate_series(1, 300000)\0"
            peer.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
            peer.recv(1000)
            before = self.pss_kib()
            for _ in range(20):
                self.assertEqual(self.psql("SELECT 1;").stdout.strip(), "1")
            self.assertLess(self.pss_kib() - before, 64 * 1024)


class Targets(unittest.TestCase):
    """Targets that are down, refuse, present a wrong certificate, or die."""

    @contextlib.contextmanager
    def gateway(self, target: str):
        port, control = free_port(), free_port()
        with Gateway(
            lambda folder: cases.config(folder, port, control, target), env={"SHOP_PASSWORD": OWNER_PASSWORD, "WRONG": "wrong-" + "y" * 30}
        ) as gateway:
            case = GatewayCase()
            case.gateway, case.port = gateway, port
            case.token = gateway.token("ada", "agents")
            yield case

    def target(self, host: str, *more: str) -> str:
        lines = ['[[targets]]', 'name = "other-one"', f'hosts = ["{host}"]', 'database = "shop"', f'account = "{cases.OWNER}"',
                 *more]  # fmt: skip
        if not any(line.startswith("password") for line in lines):
            lines.append('password = { env = "SHOP_PASSWORD" }')
        if not any(line.startswith("tls") for line in lines):
            lines.append('tls = "off"')
        return "\n".join(lines) + "\n"

    def expect(self, target: str, state: str, never: str) -> None:
        with self.gateway(target) as case:
            done = case.psql("SELECT 1;", database="other-one")
            self.assertNotEqual(done.returncode, 0)
            self.assertNotIn(never, done.stderr)
            self.assertIn("FATAL", done.stderr)
            # psql prints no SQLSTATE for a login; the machine-readable detail is in the log.
            self.assertIn(state, done.stderr + case.gateway.process.output())

    def test_a_target_that_is_down(self):
        port = free_port()
        self.expect(self.target(f"127.0.0.1:{port}"), "cannot be reached", str(port))

    def test_a_target_that_refuses_the_login(self):
        self.expect(self.target(f"127.0.0.1:{server().port}", 'password = { env = "WRONG" }'), "login", "wrong-")

    def test_a_target_with_a_wrong_certificate(self):
        with PostgresServer(tls=True) as secure, tempfile.TemporaryDirectory() as folder:
            from harness import CertificateAuthority

            other = CertificateAuthority(folder)
            self.expect(
                self.target(f"127.0.0.1:{secure.port}", 'tls = "verify"', f'ca_file = "{other.certificate}"'), "certificate", str(secure.port)
            )

    def test_a_target_with_a_verified_certificate_and_channel_binding(self):
        with PostgresServer(tls=True) as secure:
            secure.sql(f"CREATE ROLE {cases.OWNER} LOGIN PASSWORD '{OWNER_PASSWORD}'; CREATE DATABASE shop OWNER {cases.OWNER};")
            target = self.target(f"127.0.0.1:{secure.port}", 'tls = "verify"', f'ca_file = "{secure.ca.certificate}"', 'channel_binding = "require"')
            with self.gateway(target) as case:
                done = case.psql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid();", database="other-one")
                self.assertIn(done.stdout.strip() or done.stderr, ("t", done.stderr))
                self.assertEqual(case.psql("SELECT 7;", database="other-one").stdout.strip(), "7")

    def test_a_target_that_dies_in_the_middle(self):
        with PostgresServer() as mortal:
            mortal.sql(f"CREATE ROLE {cases.OWNER} LOGIN PASSWORD '{OWNER_PASSWORD}'; CREATE DATABASE shop OWNER {cases.OWNER};")
            with self.gateway(self.target(f"127.0.0.1:{mortal.port}")) as case:
                with case.running("SELECT 'begun';\nSELECT pg_sleep(50);\n", database="other-one") as child:
                    self.assertEqual(child.stdout.readline().strip(), "begun")
                    mortal.kill()
                    _, err = child.communicate(timeout=30)
                # The dying server's own word, or the gateway's.
                self.assertRegex(err, "08006|57P01|57P02")
                self.assertEqual(case.psql("SELECT 1;").stdout.strip(), "1")


class Operations(GatewayCase):
    def test_health_and_metrics(self):
        self.psql("SELECT 1;\nDROP TABLE orders;\n")
        self.assertEqual(self.gateway.http("/healthz")[0], 200)
        admin = self.gateway.admin_token()
        status, text = self.gateway.http("/metrics", token=admin)
        self.assertEqual(status, 200)
        self.assertRegex(text, r"(?m)^portcullis_\w+")
        self.assertNotEqual(self.gateway.http("/api/v1/approvals")[0], 200)
        status, text = self.gateway.http("/api/v1/openapi.json", token=admin)
        self.assertIn("openapi", json.loads(text))

    def test_the_log_is_json_and_holds_no_statement(self):
        self.psql("SELECT 'a-literal-of-mine';\n")
        lines = [line for line in self.gateway.process.output().splitlines() if line.strip()]
        for line in lines:
            json.loads(line)
        self.assertNotIn("a-literal-of-mine", "\n".join(lines))

    def test_reload_swaps_the_policy_and_a_bad_file_changes_nothing(self):
        good = self.gateway.config_path.read_text()
        try:
            self.assertEqual(self.psql("SELECT 1 FROM orders WHERE id = 10;").stdout.strip(), "1")
            closed = cases.RULES + '\n[[roles.rules]]\nname = "closed-today"\naction = "deny"\ntables = ["orders"]\n'
            self.gateway.write_config(cases.config(self.gateway.folder, self.port, self.control, rules=closed))
            self.gateway.reload()
            wait_until(lambda: "closed-today" in self.psql("SELECT 1 FROM orders;").stderr, 10, "the new rule in force")
            seen = len(self.gateway.process.output())
            self.gateway.config_path.write_text(good.replace('action = "allow"', 'action = "alow"'))
            self.gateway.reload()
            wait_until(lambda: '"error"' in self.gateway.process.output()[seen:].lower(), 10, "the bad file named in the log")
            self.assertIn("closed-today", self.psql("SELECT 1 FROM orders;").stderr)
        finally:
            self.gateway.write_config(good)
            self.gateway.reload()
            wait_until(lambda: self.psql("SELECT 1 FROM orders WHERE id = 10;").stdout.strip() == "1", 10, "the first file again")

    def test_the_record_is_listed_replayed_and_verified(self):
        done = self.psql("SELECT name FROM customers WHERE id = 1;\nDROP TABLE orders;\n")
        session = re.search(r"session=([^\s\"]+)", done.stderr).group(1)
        record = self.gateway.folder / "data/record"

        def replayed():
            text = self.gateway.cli("replay", session, check=False).stdout
            return text if "DROP TABLE orders" in text else None

        text = wait_until(replayed, 10, "the session on record")
        self.assertIn("SELECT name FROM customers", text)
        self.assertIn("Ada", text)
        self.assertIn("no-dropping", text)
        self.assertIn(session, self.gateway.cli("sessions").stdout)
        whole = self.gateway.cli("verify", "--dir", str(record), config=False, check=False)
        self.assertEqual(whole.returncode, 0, whole.stdout + whole.stderr)

    def test_a_flipped_bit_anywhere_shows(self):
        self.psql("SELECT name FROM customers;\n" * 5)
        record = self.gateway.folder / "data/record"
        wait_until(lambda: self.gateway.cli("verify", "--dir", str(record), config=False, check=False).returncode == 0, 10, "a whole record")
        import shutil

        segment = max((path for path in record.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        content = segment.read_bytes()
        for place in range(1, 10):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "record"
                shutil.copytree(record, copy)
                at = len(content) * place // 10
                changed = bytearray(content)
                changed[at] ^= 0x10
                (copy / segment.relative_to(record)).write_bytes(changed)
                done = self.gateway.cli("verify", "--dir", str(copy), config=False, check=False)
                self.assertEqual(done.returncode, 3, f"byte {at} of {len(content)}: {done.stdout}{done.stderr}")

    def test_explain_says_which_rule_decides(self):
        arguments = ("--role", "shop-agent", "--target", "shop")
        allowed = self.gateway.cli("explain", *arguments, "SELECT 1 FROM orders")
        self.assertIn("reads", allowed.stdout)
        refused = self.gateway.cli("explain", *arguments, "DROP TABLE orders", check=False)
        self.assertEqual(refused.returncode, 5)
        self.assertIn("no-dropping", refused.stdout)
        held = self.gateway.cli("explain", *arguments, "DELETE FROM orders", check=False)
        self.assertEqual(held.returncode, 6)

    def test_pg_dump_reads_through_the_gateway(self):
        done = subprocess.run(
            ["pg_dump", "--data-only", "--table=orders", f"host=127.0.0.1 port={self.port} user=ada dbname=shop"],
            env=self.env(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        # A plain role does not allow LOCK TABLE; the refusal is the protocol's own error.
        self.assertTrue(done.returncode == 0 or "refused by rule" in done.stderr, done.stderr)


class Endings(unittest.TestCase):
    def start(self):
        port, control = free_port(), free_port()
        gateway = Gateway(lambda folder: cases.config(folder, port, control), env={"SHOP_PASSWORD": OWNER_PASSWORD})
        case = GatewayCase()
        case.gateway, case.port = gateway, port
        return gateway, case

    def test_sigterm_drains_and_exits_with_zero(self):
        gateway, case = self.start()
        with gateway:
            case.token = gateway.token("ada", "agents")
            with case.running("SELECT 'up';\nSELECT pg_sleep(60);\n") as child:
                self.assertEqual(child.stdout.readline().strip(), "up")
                begun = time.monotonic()
                gateway.stop(timeout_s=15)
                self.assertLess(time.monotonic() - begun, 12)
                _, err = child.communicate(timeout=20)
            self.assertIn("57P01", err)

    def test_a_held_statement_survives_a_restart_of_the_gateway(self):
        gateway, case = self.start()
        cases.fresh_tables()
        with gateway:
            case.token = gateway.token("ada", "agents")
            update = "UPDATE customers SET discount = 7;\n"
            with case.running(update) as child:
                identifier = case.pending("UPDATE customers")
                gateway.stop()
                _, err = child.communicate(timeout=20)
                self.assertRegex(err, "57P01|closed")
            gateway.start()
            gateway.cli("approve", identifier, "--by", "grace")
            self.assertNotIn("ERROR", case.psql(update).stderr)
            self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "21")

    def test_a_killed_gateway_leaves_a_record_that_can_be_read(self):
        gateway, case = self.start()
        cases.fresh_tables()
        with gateway:
            case.token = gateway.token("ada", "agents")
            case.psql("SELECT name FROM customers;\n")
            record = gateway.folder / "data/record"
            wait_until(lambda: gateway.cli("verify", "--dir", str(record), config=False, check=False).returncode == 0, 10, "whole")
            gateway.process.kill()
            done = gateway.cli("verify", "--dir", str(record), config=False, check=False)
            self.assertIn(done.returncode, (0, 3), done.stderr)
            gateway.start()
            self.assertEqual(case.psql("SELECT 1;").stdout.strip(), "1")


class CommandLine(unittest.TestCase):
    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess:
        env = {"PATH": os.environ["PATH"], "SHOP_PASSWORD": OWNER_PASSWORD, "SHOP_DB_PASSWORD": OWNER_PASSWORD}
        return subprocess.run([program(), *arguments], capture_output=True, text=True, env=env, timeout=30)

    def test_the_examples_are_valid(self):
        for example in sorted((ROOT / "examples").glob("*.toml")):
            with self.subTest(example.name):
                done = self.run_cli("check", "--config", str(example))
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_check_names_every_error_with_file_and_line(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "bad.toml"
            text = (ROOT / "examples/demo.toml").read_text()
            file.write_text(text.replace('default = "deny"', 'default = "dney"').replace("drain_ms = 2000", "drain_sm = 2000"))
            done = self.run_cli("check", "--config", str(file))
            self.assertEqual(done.returncode, 4)
            for needle in ("bad.toml", "dney", "drain_sm"):
                self.assertIn(needle, done.stderr)
            self.assertEqual(sorted(path.name for path in Path(folder).iterdir()), ["bad.toml"])

    def test_help_explains_each_command(self):
        text = self.run_cli("--help").stdout
        for command in ("run", "check", "explain", "token", "approvals", "approve", "deny", "replay", "verify", "env"):
            self.assertRegex(text, rf"(?m)^\s+{command}\s+\S+")

    def test_a_gateway_that_cannot_listen_says_so(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with self.assertRaises(GatewayFailed) as failed:
                with Gateway(lambda folder: cases.config(folder, port, free_port()), env={"SHOP_PASSWORD": OWNER_PASSWORD}):
                    pass
            self.assertIn(str(port), str(failed.exception))


if __name__ == "__main__":
    unittest.main()
