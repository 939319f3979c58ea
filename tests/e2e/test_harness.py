"""The harness itself: what the other tests stand on."""

import contextlib
import io
import os
import subprocess
import unittest

from harness import CertificateAuthority, PostgresServer, Process, Report, wait_until


class Harness(unittest.TestCase):
    def test_a_scram_server_starts_takes_a_login_and_leaves_nothing(self):
        with PostgresServer() as server:
            self.assertEqual(server.sql("SELECT 40 + 2"), "42")
            folder, pid = server.folder, server.process.pid
            refused = subprocess.run(
                [server.psql_path(), "-X", "-c", "SELECT 1"],
                env=server.endpoint().env("postgres") | {"PGPASSWORD": "wrong"},
                capture_output=True,
                text=True,
            )
            self.assertNotEqual(refused.returncode, 0)
        self.assertFalse(folder.exists())
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)

    def test_a_tls_server_proves_its_name(self):
        with PostgresServer(tls=True) as server:
            env = server.endpoint().env("postgres")
            psql = [server.psql_path(), "-X", "-A", "-t", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"]
            self.assertEqual(subprocess.run(psql, env=env, capture_output=True, text=True).stdout.strip(), "t")
            other = CertificateAuthority(server.folder / "other")
            refused = subprocess.run(psql, env=env | {"PGSSLROOTCERT": str(other.certificate)}, capture_output=True)
            self.assertNotEqual(refused.returncode, 0)

    def test_md5_and_trust_logins_work(self):
        for auth in ("md5", "trust"):
            with self.subTest(auth), PostgresServer(auth=auth) as server:
                self.assertEqual(server.sql("SELECT 1"), "1")
        # A server that asks for MD5 keeps an MD5 verifier.
        with PostgresServer(auth="md5") as server:
            self.assertTrue(server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").startswith("md5"))

    def test_version_18_runs_without_root(self):
        with PostgresServer(version=18) as server:
            self.assertTrue(server.sql("SHOW server_version").startswith("18"))

    def test_a_process_that_ignores_the_signal_is_ended(self):
        with PostgresServer(auth="trust") as server:
            log = server.folder / "stubborn.log"
            script = "trap '' TERM; echo up; sleep 60 & wait; sleep 60"
            with Process(["/bin/bash", "-c", script], log) as stubborn:
                wait_until(lambda: "up" in stubborn.output(), 5, "the script's first line")
                with self.assertRaises(TimeoutError):
                    stubborn.stop(timeout_s=0.2)
                self.assertFalse(stubborn.running())

    def test_a_report_that_ran_nothing_fails(self):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(Report().close(), 1)
        self.assertIn("0 passed, 0 failed", said.getvalue())


if __name__ == "__main__":
    unittest.main()
