"""Ways in: issuers, client certificates, balancers, limits, rotation, routing, revocation."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import socket
import struct
import subprocess
import tempfile
import time
import unittest

import cases
from harness import CertificateAuthority, Gateway, configs, free_port, wait_until


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """An issuer of ES256 tokens, made with openssl."""

    def __init__(self, folder: pathlib.Path):
        self.key = folder / "issuer.pem"
        subprocess.run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key],
            check=True, capture_output=True,
        )  # fmt: skip
        public = subprocess.run(
            ["openssl", "ec", "-in", self.key, "-pubout", "-outform", "DER"], check=True, capture_output=True
        ).stdout
        x, y = public[-64:-32], public[-32:]
        key = {"kty": "EC", "crv": "P-256", "kid": "k1", "alg": "ES256", "use": "sig", "x": base64url(x), "y": base64url(y)}
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [key]}))

    def token(self, **claims) -> str:
        now = int(time.time())
        payload = {"iss": "https://idp.test", "aud": "portcullis", "sub": "ada", "groups": ["agents"]}
        payload |= {"iat": now, "exp": now + 300} | claims
        payload = {name: value for name, value in payload.items() if value is not None}
        head = base64url(json.dumps({"alg": "ES256", "kid": "k1", "typ": "JWT"}).encode())
        signed = f"{head}.{base64url(json.dumps(payload).encode())}"
        der = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key], input=signed.encode(), check=True, capture_output=True
        ).stdout
        # SEQUENCE of two INTEGERs into 32 + 32 bytes.
        at, raw = 2, b""
        for _ in range(2):
            length = der[at + 1]
            raw += der[at + 2 : at + 2 + length].lstrip(b"\0").rjust(32, b"\0")
            at += 2 + length
        return f"{signed}.{base64url(raw)}"


class Case(cases.GatewayCase):
    """Like its parent, but the configuration is the test's own."""

    def setUp(self) -> None:
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="portcullis-access-")))

    @classmethod
    def setUpClass(cls) -> None:
        cases.server()
        cases.fresh_tables()

    @classmethod
    def tearDownClass(cls) -> None:
        pass

    def start(self, change=lambda text: text, extra: str = "", env: dict | None = None) -> None:
        self.port, self.control = free_port(), free_port()
        self.gateway = self.stack.enter_context(
            Gateway(
                lambda folder: change(cases.config(folder, self.port, self.control, extra)),
                env={"SHOP_PASSWORD": cases.OWNER_PASSWORD} | (env or {}),
            )
        )
        self.token = self.gateway.token("ada", "agents")

    def listening(self, *lines: str):
        """Adds lines to the listener."""
        return lambda text: text.replace('name = "agents"\n', 'name = "agents"\n' + "\n".join(lines) + "\n", 1)


class Credentials(Case):
    def test_a_token_of_a_configured_issuer_opens_and_every_flaw_closes(self):
        issuer = Issuer(self.folder)
        section = f'[[issuers]]\nissuer = "https://idp.test"\naudiences = ["portcullis"]\njwks_file = "{issuer.jwks}"\n'
        self.start(extra=section)
        now = int(time.time())
        self.assertEqual(self.psql("select 1", token=issuer.token()).stdout, "1\n")
        flaws = {
            "expired": {"exp": now - 120}, "not yet": {"nbf": now + 120}, "other audience": {"aud": "other"},
            "other issuer": {"iss": "https://evil.test"}, "no expiry": {"exp": None}, "no audience": {"aud": None},
            "no subject": {"sub": None},
        }  # fmt: skip
        for name, claims in flaws.items():
            with self.subTest(name):
                refused = self.psql("select 1", token=issuer.token(**claims))
                self.assertEqual(refused.stdout, "")
                self.assertIn("the token is not valid for this gateway", refused.stderr)
        head, payload, signature = issuer.token().split(".")
        forged = base64url(json.dumps({"alg": "none"}).encode())
        for token in (f"{forged}.{payload}.", f"{head}.{payload}.{signature[:-4]}AAAA"):
            self.assertIn("the token is not valid", self.psql("select 1", token=token).stderr)

    def test_a_session_ends_with_its_credential(self):
        issuer = Issuer(self.folder)
        section = (
            f'[[issuers]]\nissuer = "https://idp.test"\naudiences = ["portcullis"]\njwks_file = "{issuer.jwks}"\nleeway_s = 0\n'
        )
        self.start(extra=section)
        token = issuer.token(exp=int(time.time()) + 3)
        done = self.psql("select 'in';\nselect pg_sleep(20);", token=token)
        self.assertIn("in\n", done.stdout)
        self.assertIn("57P01", done.stderr)
        self.assertIn("credential of this session has ended", done.stderr)

    def test_a_revoked_token_ends_its_session(self):
        self.start()
        with self.running("select 'in';\nselect pg_sleep(30);") as child:
            wait_until(lambda: "session started" in self.gateway.process.output(), 10, "session started")
            listed = self.gateway.cli("tokens").stdout
            self.gateway.cli("revoke", listed.split()[0])
            _, said = child.communicate(timeout=15)
        self.assertIn("no longer in force", said)
        self.assertIn("the token is not valid", self.psql("select 1").stderr)

    def test_a_client_certificate_is_a_login_and_a_strangers_is_none(self):
        authority, stranger = CertificateAuthority(self.folder / "a"), CertificateAuthority(self.folder / "b")
        certificate, key = authority.issue("gateway")
        mine, mine_key = authority.issue("ada", hosts=(), client=True)
        theirs, theirs_key = stranger.issue("ada", hosts=(), client=True)
        lines = [f'certificate_file = "{certificate}"', f'key_file = "{key}"', f'client_ca_file = "{authority.certificate}"']

        def change(text: str) -> str:
            text = self.listening(*lines)(text)
            # A certificate's groups are its organizational units; this one has none.
            return text.replace('groups = ["agents"]', 'groups = ["*"]')

        self.start(change)
        tls = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate), "host": "localhost"}
        refused = self.psql("select 1", sslcert=str(theirs), sslkey=str(theirs_key), **tls)
        self.assertEqual(refused.stdout, "")
        known = self.psql("select 1", sslcert=str(mine), sslkey=str(mine_key), **tls)
        self.assertEqual(known.stdout, "1\n", known.stderr)


class StartUp(Case):
    def test_a_setting_at_start_up_must_pass_as_its_set_would(self):
        self.start()
        harmless = self.psql("show application_name", application_name="job 7", options="-c DateStyle=ISO -c TimeZone=UTC")
        self.assertEqual(harmless.stdout, "job 7\n", harmless.stderr)
        for options in (
            "-c role=postgres", "-c session_authorization=postgres", "--session-authorization=postgres",
            "-B 64", "-c TimeZone=UTC -x junk -c role=postgres",
        ):  # fmt: skip
            with self.subTest(options):
                refused = self.psql("select 'in'", options=options)
                self.assertEqual(refused.stdout, "")
                self.assertIn('rule="startup_setting"', refused.stderr)
        # A SET that the role may send passes here too; the text is then read under it, or not at all.
        unread = self.psql("select 'in'", options="-c standard_conforming_strings=off")
        self.assertEqual(unread.stdout, "")
        self.assertIn('rule="reading"', unread.stderr)

    def test_replication_is_refused_and_names_the_rule(self):
        self.start()
        for value in ("database", "true"):
            refused = self.psql("IDENTIFY_SYSTEM", replication=value)
            self.assertIn('rule="replication"', refused.stderr)


class Balancers(Case):
    @staticmethod
    def header(source: str, port: int) -> bytes:
        addresses = socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", port, 5432)
        return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses

    def test_a_balancer_must_name_the_source_and_the_record_has_it(self):
        self.start(self.listening('proxy_protocol_from = ["127.0.0.1"]'))
        with self.connect() as peer:
            peer.sendall(self.startup(user="ada", database="shop"))
            self.assertEqual(self.until_closed(peer, 5), b"")
        with self.connect() as peer:
            # The header, the start-up and the password come cut into bytes.
            for byte in self.header("127.0.0.77", 4711) + self.startup(user="ada", database="shop"):
                peer.sendall(bytes([byte]))
            self.assertEqual(peer.recv(9), b"R\0\0\0\x08\0\0\0\x03")
            body = self.token.encode() + b"\0"
            peer.sendall(b"p" + struct.pack("!I", len(body) + 4) + body)
            said = b""
            while b"Z\0\0\0\x05I" not in said:
                said += peer.recv(4096)
            peer.sendall(b"X\0\0\0\x04")
            self.until_closed(peer, 5)
        wait_until(lambda: "127.0.0.77:4711" in self.gateway.cli("replay").stdout, 10, "source on record")

    def test_a_stranger_cannot_name_a_source(self):
        self.start()
        with self.connect() as peer:
            peer.sendall(self.header("127.0.0.77", 4711) + self.startup(user="ada", database="shop"))
            self.assertNotIn(b"R\0\0\0\x08\0\0\0\x03", self.until_closed(peer, 5))


class Targets(Case):
    def test_hosts_are_tried_in_order(self):
        dead = free_port()
        self.start(lambda text: text.replace('hosts = ["', f'hosts = ["127.0.0.1:{dead}", "localhost:{dead}", "'))
        self.assertEqual(self.psql("select 1").stdout, "1\n")

    def test_a_rotated_password_is_fetched_again_after_28p01(self):
        program = self.folder / "secret"
        count = self.folder / "count"
        # Wrong at the first fetch of a dial, right at the next.
        program.write_text(
            f"#!/bin/sh\necho x >> {count}\n"
            f"[ $(($(wc -l < {count}) % 2)) -eq 0 ] && echo an-old-password-0123456789 || echo {cases.OWNER_PASSWORD}\n"
        )
        program.chmod(0o755)
        self.start(lambda text: text.replace('password = { env = "SHOP_PASSWORD" }', f'password = {{ command = ["{program}"] }}'))
        for _ in range(3):
            self.assertEqual(self.psql("select 1").stdout, "1\n")
        fetched = len(count.read_text().split())
        self.assertGreaterEqual(fetched, 5, "start, then a fetch and a re-fetch for each dial that was told 28P01")

    def test_a_session_whose_login_ran_during_a_reload_is_under_the_new_policy(self):
        program, count, slow = self.folder / "secret", self.folder / "count", self.folder / "slow"
        program.write_text(
            f"#!/bin/sh\n[ -e {slow} ] && {{ echo x >> {count}; sleep 4; }}\necho {cases.OWNER_PASSWORD}\n"
        )
        program.chmod(0o755)
        self.start(lambda text: text.replace('password = { env = "SHOP_PASSWORD" }', f'password = {{ command = ["{program}"] }}'))
        slow.touch()
        with self.running("select count(*) from customers") as child:
            wait_until(count.exists, 10, "the login is under way")
            slow.unlink()
            text = self.gateway.config_path.read_text()
            self.gateway.write_config(text + '[[roles.rules]]\nname = "closed-now"\naction = "deny"\ntables = ["customers"]\n')
            self.gateway.reload()
            wait_until(lambda: "configuration reloaded" in self.gateway.process.output(), 10, "reloaded")
            self.assertNotIn("session started", self.gateway.process.output())
            out, err = child.communicate(timeout=20)
        self.assertEqual(out, "")
        self.assertIn('rule="closed-now"', err)

    def test_places_at_a_target_are_queued_then_refused(self):
        self.start(lambda text: text.replace('database = "shop"', 'database = "shop"\nconnections_max = 1\nqueue_max = 1\nqueue_ms = 1500'))
        with self.running("select 'in';\nselect pg_sleep(6);") as holder:
            wait_until(lambda: "session started" in self.gateway.process.output(), 10, "the place is taken")
            with self.running("select 'waited'") as waiter:
                time.sleep(0.3)
                third = self.psql("select 1")
                self.assertIn("no connection to the target is free", third.stderr)
                self.assertIn('rule="queue_max"', third.stderr)
                _, err = waiter.communicate(timeout=20)
                self.assertIn('rule="connections_max"', err, "the queue's time was up")
            holder.kill()
        wait_until(lambda: self.psql("select 1").stdout == "1\n", 10, "the place comes back")

    def test_who_waits_in_the_queue_gets_the_place(self):
        self.start(lambda text: text.replace('database = "shop"', 'database = "shop"\nconnections_max = 1\nqueue_ms = 20000'))
        with self.running("select 'in';\nselect pg_sleep(1.5);"):
            wait_until(lambda: "session started" in self.gateway.process.output(), 10, "the place is taken")
            self.assertEqual(self.psql("select 'waited'").stdout, "waited\n")

    def test_the_host_name_leads_to_the_target(self):
        authority = CertificateAuthority(self.folder / "a")
        certificate, key = authority.issue("gateway", hosts=("DNS:shop.localhost", "DNS:localhost"))
        self.start(self.listening(f'certificate_file = "{certificate}"', f'key_file = "{key}"'))
        done = self.psql(
            "select current_database()", database="shop_two", host="shop.localhost", hostaddr="127.0.0.1",
            sslmode="verify-full", sslrootcert=str(authority.certificate),
        )  # fmt: skip
        self.assertEqual(done.stdout, "shop_two\n", done.stderr)

    def test_env_prints_what_psql_needs(self):
        self.start()
        printed = self.gateway.cli("env", "shop").stdout
        script = f'{printed}\nPGPASSWORD="{self.token}" psql -XAtc "select 7"'
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        self.assertEqual(done.stdout, "7\n", done.stderr)


if __name__ == "__main__":
    unittest.main()
