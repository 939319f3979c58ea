"""Allowed, refused and held statements, with plain psql."""

import re
import signal
import unittest

from cases import OWNER, GatewayCase, server
from harness import wait_until


class Refusals(GatewayCase):
    def test_a_refused_statement_names_rule_and_session_and_the_session_goes_on(self):
        done = self.psql("DROP TABLE orders;\nSELECT count(*) FROM orders;\n")
        self.assertIn("42501", done.stderr)
        self.assertIn("no-dropping", done.stderr)
        self.assertIn("tables are dropped by migrations only", done.stderr)
        self.assertRegex(done.stderr, r"session=\S+")
        self.assertEqual(done.stdout.strip(), "2")
        self.assertNotIn(str(server().port), done.stderr)

    def test_what_tries_to_slip_past_is_refused(self):
        attempts = [
            "SELECT 1; DROP TABLE orders;",
            "/* harmless */ drop /* */ table orders;",
            "DROP TABLE IF EXISTS public.orders;",
            "PREPARE p AS DELETE FROM salaries WHERE id = 1;",
            "EXPLAIN ANALYZE DELETE FROM salaries WHERE id = 1;",
            "WITH gone AS (DELETE FROM salaries WHERE id = 1 RETURNING *) SELECT * FROM gone;",
            "SELECT * FROM customers c JOIN salaries s ON true;",
            'SELECT * FROM "salaries";',
            "COPY salaries TO STDOUT;",
            "COPY customers TO PROGRAM 'cat';",
            "TRUNCATE orders;",
            "CREATE TABLE made (a int);",
            "ALTER ROLE shop_owner PASSWORD 'mine';",
            "GRANT ALL ON customers TO PUBLIC;",
            f"DO $$ BEGIN EXECUTE 'DROP TABLE ' || 'orders'; PERFORM '{'x' * 200}'; END $$;",
            "CALL anything();",
            "LISTEN x; DROP TABLE orders;",
        ]
        server().sql(f"SET ROLE {OWNER}; CREATE TABLE IF NOT EXISTS salaries (id int);", "shop")
        for attempt in attempts:
            with self.subTest(attempt):
                # With -c the text goes out as one message, whatever it holds.
                done = self.psql("\\set ON_ERROR_STOP off\n" + attempt.replace(";", "\\;", attempt.count(";") - 1) + "\nSELECT 'on';\n")
                self.assertIn("42501", done.stderr, attempt)
                self.assertEqual(done.stdout.strip().splitlines()[-1:], ["on"], attempt)
        self.assertEqual(server().sql("SELECT count(*) FROM orders", "shop"), "2")
        self.assertEqual(server().sql("SELECT to_regclass('made') IS NULL", "shop"), "t")

    def test_a_refusal_fails_the_open_transaction_on_both_sides(self):
        done = self.psql(
            "BEGIN;\nINSERT INTO orders VALUES (12, 1, 1);\nDROP TABLE orders;\nSELECT 1;\nCOMMIT;\nSELECT count(*) FROM orders;\n"
        )
        self.assertIn("25P02", done.stderr)
        self.assertEqual(done.stdout.strip(), "2")

    def test_a_savepoint_survives_a_refusal(self):
        done = self.psql(
            "BEGIN;\nINSERT INTO orders VALUES (12, 1, 1);\nSAVEPOINT s;\nDROP TABLE orders;\nROLLBACK TO s;\nCOMMIT;\n"
            "SELECT count(*) FROM orders;\n"
        )
        self.assertEqual(done.stdout.strip(), "3", done.stderr)

    def test_a_text_that_cannot_be_read_is_refused(self):
        for text in ("SELEC 1;", "SELECT 'unfinished", "SELECT $1 FROM FROM;"):
            with self.subTest(text):
                done = self.psql(f"{text}\n;\n")
                self.assertRegex(done.stderr, "42501|42601")

    def test_a_large_statement_is_refused_and_not_passed(self):
        done = self.psql(f"SELECT 1 /* {'x' * (2 << 20)} */; \nSELECT 'on';\n")
        self.assertRegex(done.stderr, "54000|42501")
        self.assertEqual(done.stdout.strip(), "on")

    def test_psql_describes_tables_and_changes_database(self):
        done = self.psql("\\d customers\n\\dt\n\\l\n\\df\n\\du\n\\c shop/shop_two\nSELECT current_database();\n")
        self.assertEqual(done.stderr, "")
        self.assertIn("discount", done.stdout)
        self.assertEqual(done.stdout.strip().splitlines()[-1], "shop_two")


class Holds(GatewayCase):
    UPDATE = "UPDATE customers SET discount = 10;\n"

    def test_an_approved_statement_runs_once(self):
        with self.running(self.UPDATE + "SELECT 'after';\n") as child:
            identifier = self.pending("UPDATE customers")
            self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "0")
            self.gateway.cli("approve", identifier, "--by", "grace")
            out, err = child.communicate(timeout=30)
        self.assertEqual(out.strip(), "after")
        self.assertIn(identifier, err)  # The notice said what it waits for.
        self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "30")
        again = self.gateway.cli("approve", identifier, "--by", "grace", check=False)
        self.assertNotEqual(again.returncode, 0)

    def test_a_denied_statement_is_an_error_and_the_session_goes_on(self):
        with self.running(self.UPDATE + "SELECT 'after';\n") as child:
            identifier = self.pending("UPDATE customers")
            self.gateway.cli("deny", identifier, "--by", "grace", "--reason", "not today")
            out, err = child.communicate(timeout=30)
        self.assertIn("42501", err)
        self.assertIn("not today", err)
        self.assertEqual(out.strip(), "after")
        self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "0")

    def test_the_requester_cannot_approve_himself(self):
        with self.running(self.UPDATE):
            identifier = self.pending("UPDATE customers")
            for name in ("ada", "Ada", "ADA"):
                refused = self.gateway.cli("approve", identifier, "--by", name, check=False)
                self.assertNotEqual(refused.returncode, 0, name)
            self.gateway.cli("deny", identifier, "--by", "grace")

    def test_a_hold_in_a_transaction_keeps_it_and_commits_with_it(self):
        with self.running("BEGIN;\nINSERT INTO orders VALUES (12, 1, 1);\nUPDATE orders SET total = 5;\nCOMMIT;\n") as child:
            identifier = self.pending("UPDATE orders")
            self.gateway.cli("approve", identifier, "--by", "grace")
            _, err = child.communicate(timeout=30)
        self.assertNotIn("ERROR", err)
        self.assertEqual(server().sql("SELECT count(*) FROM orders WHERE total = 5", "shop"), "3")

    def test_a_hold_denied_in_a_transaction_fails_it(self):
        with self.running("BEGIN;\nINSERT INTO orders VALUES (12, 1, 1);\nUPDATE orders SET total = 5;\nSELECT 1;\nCOMMIT;\n") as child:
            self.gateway.cli("deny", self.pending("UPDATE orders"), "--by", "grace")
            _, err = child.communicate(timeout=30)
        self.assertIn("25P02", err)
        self.assertEqual(server().sql("SELECT count(*) FROM orders", "shop"), "2")

    def test_an_agent_that_cancels_gets_57014_and_goes_on(self):
        with self.running(self.UPDATE) as child:
            identifier = self.pending("UPDATE customers")
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=30)
        self.assertIn("57014", err)
        # The same statement meets the same approval; deny it to end the test clean.
        with self.running(self.UPDATE) as child:
            self.assertEqual(self.pending("UPDATE customers"), identifier)
            self.gateway.cli("deny", identifier, "--by", "grace")
            child.communicate(timeout=30)
        self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "0")

    def test_an_agent_that_left_meets_its_grant_when_it_asks_again(self):
        with self.running(self.UPDATE):
            identifier = self.pending("UPDATE customers")
        self.assertEqual(self.pending("UPDATE customers", waiting=0), identifier)
        self.gateway.cli("approve", identifier, "--by", "grace")
        self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "0")
        done = self.psql(self.UPDATE)
        self.assertNotIn("ERROR", done.stderr)
        self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "30")

    def test_the_approver_is_shown_tricks_as_what_they_are(self):
        with self.running("UPDATE customers SET note = 'a\u202eb\x1b]0;title\x07';\n"):
            identifier = self.pending("UPDATE customers")
            listed = self.gateway.cli("approvals").stdout
            self.gateway.cli("deny", identifier, "--by", "grace")
        for trick in ("\u202e", "\x1b", "\x07"):
            self.assertNotIn(trick, listed)
        self.assertIn("title", listed)

    def test_a_held_session_does_not_stop_others(self):
        with self.running(self.UPDATE) as child:
            identifier = self.pending("UPDATE customers")
            self.assertEqual(self.psql("SELECT 1;").stdout.strip(), "1")
            self.gateway.cli("deny", identifier, "--by", "grace")
            child.communicate(timeout=30)


class Cancel(GatewayCase):
    def test_ctrl_c_cancels_only_its_own_statement(self):
        script = "SELECT pg_backend_pid() AS me \\gset\n\\echo :me\nSELECT pg_sleep(50);\n"
        with self.running(script) as one, self.running(script) as other:
            first, second = one.stdout.readline().strip(), other.stdout.readline().strip()
            query = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = "
            for pid in (first, second):
                wait_until(lambda pid=pid: server().sql(query + pid) == "t", 20, "both asleep")
            one.send_signal(signal.SIGINT)
            _, err = one.communicate(timeout=30)
            self.assertIn("57014", err)
            self.assertEqual(server().sql(query + second), "t")
        self.assertTrue(re.fullmatch(r"\d+", first))


if __name__ == "__main__":
    unittest.main()
