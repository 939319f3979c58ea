"""An agent with a shell and time: raw messages where psql is too polite.

What is known to pass and meant to: a secret that the agent itself takes apart
(two columns, reversed, cut) is not masked; column and function rules are for that.
"""

import os
import re
import struct
import unittest
from pathlib import Path

import cases
from cases import AWS_KEY, OWNER, OWNER_PASSWORD, GatewayCase, server
from harness import Gateway, free_port, wait_until


def message(tag: bytes, body: bytes = b"") -> bytes:
    return tag + struct.pack("!I", len(body) + 4) + body


def text(value: str | bytes) -> bytes:
    return (value.encode() if isinstance(value, str) else value) + b"\0"


def query(sql: str) -> bytes:
    return message(b"Q", text(sql))


def parse(name: str, sql: str, types: tuple[int, ...] = ()) -> bytes:
    return message(b"P", text(name) + text(sql) + struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(portal: str, name: str, values: tuple[bytes, ...] = (), binary: bool = False) -> bytes:
    body = text(portal) + text(name) + struct.pack("!HH", 0, len(values))
    body += b"".join(struct.pack("!i", len(value)) + value for value in values)
    return message(b"B", body + struct.pack("!HH", 1, binary))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message(b"E", text(portal) + struct.pack("!I", rows))


SYNC = message(b"S")


class Raw:
    """A logged-in connection that sends what it is told."""

    def __init__(self, case: GatewayCase, **parameters: str):
        self.peer = case.connect()
        self.rest = b""
        self.key = b""
        self.peer.sendall(case.startup(**({"user": "ada", "database": "shop"} | parameters)))
        for tag, body in self.messages():
            if tag == b"R" and body == b"\0\0\0\3":
                self.send(message(b"p", text(case.token)))
            elif tag == b"K":
                self.key = body
            elif tag in (b"Z", b"E"):
                self.state = tag
                self.refusal = body
                break

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_) -> None:
        self.peer.close()

    def send(self, *messages: bytes) -> None:
        self.peer.sendall(b"".join(messages))

    def messages(self):
        while True:
            while len(self.rest) < 5 or len(self.rest) <= struct.unpack("!I", self.rest[1:5])[0]:
                data = self.peer.recv(65536)
                if not data:
                    return
                self.rest += data
            end = 1 + struct.unpack("!I", self.rest[1:5])[0]
            tag, body, self.rest = self.rest[:1], self.rest[5:end], self.rest[end:]
            yield tag, body

    def answers(self, *messages: bytes, ready: int = 1) -> list[tuple[bytes, bytes]]:
        """Sends, and reads up to the given number of ReadyForQuery."""
        self.send(*messages)
        said = []
        for tag, body in self.messages():
            said.append((tag, body))
            ready -= tag == b"Z"
            if not ready:
                return said
        raise AssertionError(f"closed after {said[-3:]}")


def states(said: list[tuple[bytes, bytes]]) -> list[str]:
    """SQLSTATEs of the errors."""
    return [re.search(rb"C(.{5})\0", body).group(1).decode() for tag, body in said if tag == b"E"]


def tags(said: list[tuple[bytes, bytes]]) -> str:
    return b"".join(tag for tag, _ in said).decode()


class StartUp(GatewayCase):
    def test_settings_that_rules_do_not_allow_do_not_come_in_at_start_up(self):
        for parameters in (
            {"options": "-c role=postgres"}, {"options": "--role=postgres"}, {"options": "-crole=postgres"}, {"role": "postgres"},
            {"Role": "postgres"}, {"options": "-c session_authorization=postgres"}, {"session_authorization": "postgres"},
            {"replication": "database"}, {"replication": "1"}, {"REPLICATION": "database"}, {"options": "-B 10"},
            {"options": "-c\\ role=postgres"}, {"database": "shop/../other"}, {"database": "shop/" + "x" * 80}, {"database": "other-x"},
        ):  # fmt: skip
            with self.subTest(str(parameters)), Raw(self, **parameters) as agent:
                self.assertEqual(agent.state, b"E", agent.refusal)

    def test_text_that_the_server_would_read_in_another_way_is_refused(self):
        for parameters in (
            {"options": "-c standard_conforming_strings=off"}, {"standard_conforming_strings": "off"}, {"client_encoding": "SJIS"},
        ):  # fmt: skip
            with self.subTest(str(parameters)), Raw(self, **parameters) as agent:
                self.assertEqual(agent.state, b"Z")
                self.assertEqual(states(agent.answers(query("SELECT 1"))), ["0A000"])

    def test_the_user_that_is_named_is_not_the_account(self):
        for user in ("postgres", "a" * 200):
            with Raw(self, user=user) as agent:
                said = agent.answers(query("SELECT current_user"))
                self.assertIn(OWNER.encode(), dict(said)[b"D"])


class Databases(GatewayCase):
    """A role that allows all but one setting, and that only in one database."""

    def test_rules_for_a_database_hold_at_start_up_and_names_the_server_cuts_are_refused(self):
        cases.server()
        rules = """
[[roles.rules]]
name = "all"
action = "allow"
[[roles.rules]]
name = "no-timeouts"
action = "deny"
settings = ["statement_timeout"]
databases = ["shop"]
"""
        case = GatewayCase()
        case.port, control = free_port(), free_port()
        case.gateway = Gateway(
            lambda folder: cases.config(folder, case.port, control, "", rules), env={"SHOP_PASSWORD": OWNER_PASSWORD}
        )
        with case.gateway as gateway:
            case.token = gateway.token("ada", "agents")
            timeout = "-c statement_timeout=7s"
            self.assertIn('rule="startup_setting"', case.psql("SELECT 1", options=timeout).stderr)
            self.assertEqual(case.psql("SELECT 1", database="shop/shop_two", options=timeout).stdout, "1\n")
            cut = case.psql("SELECT 1", database="shop/" + "d" * 64).stderr
            self.assertIn("no access to", cut)


class Messages(GatewayCase):
    def test_a_bind_behind_a_refused_parse_does_not_run_the_old_text(self):
        with Raw(self) as agent:
            agent.answers(parse("", "SELECT 1"), SYNC)
            said = agent.answers(parse("", "DROP TABLE orders"), bind("", ""), execute(), SYNC)
            self.assertEqual((states(said), tags(said)), (["42501"], "EZ"))
            said = agent.answers(parse("", "DROP TABLE orders"), SYNC, bind("", ""), execute(), SYNC, ready=2)
            self.assertEqual(states(said), ["42501", "26000"])
            # A name keeps its old, allowed text, as in the server.
            agent.answers(parse("s", "SELECT 1"), SYNC)
            said = agent.answers(parse("s", "DROP TABLE orders"), SYNC, bind("", "s"), execute(), SYNC, ready=2)
            self.assertEqual((states(said), tags(said)), (["42501"], "EZ2DCZ"))

    def test_a_name_that_is_redefined_while_unanswered_stands_for_every_text(self):
        with Raw(self) as agent:
            said = agent.answers(parse("n", "SELECT 1"), parse("n", "DROP TABLE orders"), bind("", "n"), execute(), SYNC)
            self.assertNotIn("C", tags(said))
            self.assertEqual(states(said)[0][:2], "42")
        self.assertEqual(server().sql("SELECT count(*) FROM orders", "shop"), "2")

    def test_a_refusal_within_twenty_thousand_pipelined_messages(self):
        part = parse("", "SELECT 1") + bind("", "") + execute()
        with Raw(self) as agent:
            said = agent.answers(part * 5000, parse("", "DROP TABLE orders"), part * 2000, SYNC)
            self.assertEqual(tags(said), "12DC" * 5000 + "EZ")
            self.assertEqual(tags(agent.answers(query("SELECT 2"))), "TDCZ")

    def test_function_calls_and_unknown_portals_are_refused(self):
        with Raw(self) as agent:
            said = agent.answers(message(b"F", struct.pack("!IHHH", 1598, 0, 0, 0)))
            self.assertEqual((states(said), tags(said)), (["42501"], "EZ"))
            self.assertEqual(states(agent.answers(execute("<unnamed portal 1>"), SYNC)), ["42501"])

    def test_a_portal_that_sql_declared_is_masked_when_the_protocol_runs_it(self):
        with Raw(self) as agent:
            agent.answers(query("BEGIN"))
            agent.answers(query("DECLARE c CURSOR FOR SELECT note FROM customers ORDER BY id"))
            said = agent.answers(execute("c"), SYNC)
            self.assertEqual(tags(said), "DDDCZ")
            self.assertNotIn(AWS_KEY.encode(), b"".join(body for _, body in said))

    def test_a_function_called_as_a_field_is_a_function(self):
        with Raw(self) as agent:
            for sql in ("SELECT ('x'::text).pg_read_file", "SELECT q.pg_read_file FROM unnest(ARRAY['x']) q", "SELECT q.lo_get FROM unnest(ARRAY[1::oid]) AS q"):
                said = agent.answers(query(sql))
                # Ours, not the server's lack of a privilege.
                self.assertIn(b"action=deny", dict(said)[b"E"], sql)

    def test_only_the_right_key_cancels_and_guessing_is_bounded(self):
        def cancel(agent: Raw, key: bytes) -> None:
            with self.connect() as peer:
                peer.sendall(struct.pack("!II", 12 + len(key), 80877102) + agent.key[:4] + key)
                self.until_closed(peer, 10)

        with Raw(self) as agent:
            pid = struct.unpack("!I", agent.key[:4])[0]
            asleep = f"SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {pid}"
            agent.send(query("SELECT pg_sleep(50)"))
            wait_until(lambda: server().sql(asleep) == "t", 20, "asleep")
            for _ in range(5):
                cancel(agent, os.urandom(4))
            cancel(agent, os.urandom(32))
            self.assertEqual(server().sql(asleep), "t")
            cancel(agent, agent.key[4:])
            self.assertEqual(states(agent.answers()), ["57014"])


class Secrets(GatewayCase):
    # In two parts, so that the statement itself carries none.
    KEY = f"'{AWS_KEY[:10]}' || '{AWS_KEY[10:]}'"

    def test_whatever_stands_beside_a_value_in_the_frame(self):
        # Lengths and tags that are letters must not pass for a part of the key.
        with Raw(self) as agent:
            for blanks in (0, 1, 28, 40, 45, 46, 57, 77, 100):
                for value in (f"{self.KEY} || repeat(' ', {blanks})", f"repeat(' ', {blanks}) || {self.KEY}"):
                    said = agent.answers(query(f"SELECT {value} FROM generate_series(1, 2)"))
                    self.assertEqual(tags(said), "TDDCZ")
                    self.assertFalse(any(AWS_KEY.encode() in body for _, body in said), value)

    def test_fields_of_errors_and_notices(self):
        with Raw(self) as agent:
            for field in ("MESSAGE", "DETAIL", "HINT", "TABLE", "COLUMN", "CONSTRAINT", "SCHEMA", "DATATYPE"):
                first = "" if field == "MESSAGE" else "MESSAGE = 'm', "
                for level in ("NOTICE", "EXCEPTION"):
                    said = agent.answers(query(f"DO $$ BEGIN RAISE {level} USING {first}{field} = {self.KEY}; END $$"))
                    self.assertIn("N" if level == "NOTICE" else "E", tags(said), field)
                    self.assertFalse(any(AWS_KEY.encode() in body for _, body in said), field)

    def test_settings_that_are_reported(self):
        with Raw(self, application_name=OWNER_PASSWORD) as agent:
            said = agent.answers(query("SET application_name = 'other'"))
            said += agent.answers(query("SELECT set_config('application_name', note, false) FROM customers WHERE id = 3"))
            self.assertEqual(tags(said).count("S"), 2)
            self.assertFalse(any(OWNER_PASSWORD.encode() in body for _, body in said))

    def test_values_that_are_larger_than_what_is_held(self):
        server().sql(
            f"SET ROLE {OWNER}; DROP TABLE IF EXISTS big; CREATE TABLE big (v text); INSERT INTO big SELECT repeat('x', n) || '{OWNER_PASSWORD}'"
            f" || repeat(' y', 200000) || ' {AWS_KEY} ' FROM (VALUES (65500), (65530), (131060), (262130), (262144), (300001)) t (n)",
            "shop",
        )
        hidden = (OWNER_PASSWORD.encode(), AWS_KEY.encode(), OWNER_PASSWORD.encode().hex().encode())
        with Raw(self) as agent:
            for sql in ("SELECT v FROM big", "COPY (SELECT v FROM big) TO STDOUT", "COPY (SELECT v FROM big) TO STDOUT (FORMAT binary)",
                        "SELECT array_agg(v) FROM big", "SELECT string_agg(v, '') FROM big"):  # fmt: skip
                body = b"".join(body for _, body in agent.answers(query(sql)))
                self.assertGreater(len(body), 2_000_000)
                for secret in hidden:
                    self.assertEqual(body.count(secret), 0, sql)
            said = agent.answers(parse("", "SELECT v, v::bytea FROM big"), bind("", "", binary=True), execute(), SYNC)
            body = b"".join(body for _, body in said)
            for secret in hidden:
                self.assertEqual(body.count(secret), 0)

    def test_the_process_leaves_no_core(self):
        limits = Path(f"/proc/{self.gateway.process.pid}/limits").read_text()
        self.assertRegex(limits, r"Max core file size\s+0\s")


class Held(GatewayCase):
    UPDATE = "UPDATE customers SET discount = $1"

    def ask(self, agent: Raw, value: bytes) -> str:
        agent.send(parse("", self.UPDATE, (23,)), bind("", "", (value,)), execute(), SYNC)
        return self.pending(f"$1 = {value.decode()}")

    def sum(self) -> str:
        return server().sql("SELECT sum(discount) FROM customers", "shop")

    def test_what_is_queued_behind_a_hold_waits(self):
        with Raw(self) as agent:
            agent.send(query("UPDATE customers SET discount = 4"), query("UPDATE customers SET discount = 9 WHERE id = 1"))
            identifier = self.pending("discount = 4")
            self.assertEqual(self.sum(), "0")
            self.gateway.cli("deny", identifier, "--by", "grace")
            self.assertEqual(states(agent.answers(ready=2)), ["42501"])
        self.assertEqual(self.sum(), "9")

    def test_a_grant_is_for_the_values_that_were_shown(self):
        with Raw(self) as agent:
            first = self.ask(agent, b"5")
        self.pending("$1 = 5", waiting=0)
        self.gateway.cli("approve", first, "--by", "grace")
        with Raw(self) as agent:
            other = self.ask(agent, b"6")
            self.assertNotEqual(other, first)
            self.gateway.cli("deny", other, "--by", "grace")
            self.assertEqual(states(agent.answers()), ["42501"])
            self.assertEqual(self.sum(), "0")
            # The same one meets its grant, once.
            said = agent.answers(parse("", self.UPDATE, (23,)), bind("", "", (b"5",)), execute(), SYNC)
            self.assertIn((b"C", b"UPDATE 3\0"), said)
            again = self.ask(agent, b"5")
            self.assertNotEqual(again, first)
            self.gateway.cli("deny", again, "--by", "grace")

    def test_a_grant_for_execute_is_for_what_the_name_stood_for(self):
        with Raw(self) as agent:
            agent.answers(parse("p", "UPDATE customers SET discount = 91"), SYNC)
            agent.send(query("EXECUTE p"))
            first = self.pending("discount = 91")
            self.assertIn("p stands for", self.gateway.cli("approvals").stdout)
        self.pending("discount = 91", waiting=0)
        self.gateway.cli("approve", first, "--by", "grace")
        with Raw(self) as agent:
            agent.answers(parse("p", "DELETE FROM customers"), SYNC)
            agent.send(query("EXECUTE p"))
            other = self.pending("DELETE FROM customers")
            self.assertNotEqual(other, first)
            self.gateway.cli("deny", other, "--by", "grace")
            self.assertEqual(states(agent.answers()), ["42501"])
        self.assertEqual(cases.server().sql("SELECT count(*) FROM customers", "shop").strip(), "3")

    def test_a_grant_is_for_the_types_of_its_values(self):
        sql = "UPDATE customers SET note = $1"
        with Raw(self) as agent:
            agent.send(parse("", sql, (25,)), bind("", "", (b"zz",)), execute(), SYNC)
            first = self.pending("SET note")
        self.pending("SET note", waiting=0)
        self.gateway.cli("approve", first, "--by", "grace")
        with Raw(self) as agent:
            agent.send(parse("", sql, (18,)), bind("", "", (b"zz",)), execute(), SYNC)
            other = self.pending("SET note")
            self.assertNotEqual(other, first)
            self.gateway.cli("deny", other, "--by", "grace")
            self.assertEqual(states(agent.answers()), ["42501"])

    def test_a_grant_is_for_the_state_it_was_asked_in(self):
        sql = "UPDATE customers SET discount = 77"
        with Raw(self) as agent:
            agent.send(query(sql))
            first = self.pending("discount = 77")
        self.pending("discount = 77", waiting=0)
        self.gateway.cli("approve", first, "--by", "grace")
        with Raw(self) as agent:
            agent.answers(query("SET search_path = public"))
            agent.send(query(sql))
            other = self.pending("discount = 77")
            self.assertNotEqual(other, first)
            self.gateway.cli("deny", other, "--by", "grace")
            self.assertEqual(states(agent.answers()), ["42501"])
        self.assertEqual(self.sum(), "0")


class OwnGateway(unittest.TestCase):
    def gateway(self, more: str = "", rules: str = cases.RULES) -> tuple[Gateway, GatewayCase]:
        case = GatewayCase()
        case.port, control = free_port(), free_port()
        case.gateway = Gateway(
            lambda folder: cases.config(folder, case.port, control, more, rules), env={"SHOP_PASSWORD": OWNER_PASSWORD}
        )
        return case.gateway, case


class Changing(OwnGateway):
    def test_what_was_prepared_before_a_reload_is_decided_anew(self):
        gateway, case = self.gateway()
        with gateway:
            case.token = gateway.token("ada", "agents")
            with Raw(case) as agent, Raw(case) as other:
                self.assertEqual(tags(agent.answers(parse("p", "SELECT 1"), bind("", "p"), execute(), SYNC)), "12DCZ")
                frozen = '\n[[roles.rules]]\nname = "frozen"\naction = "deny"\nstatements = ["select"]\n'
                gateway.write_config(gateway.config_path.read_text() + frozen)
                gateway.reload()
                wait_until(lambda: states(other.answers(query("SELECT 1"))) == ["42501"], 20, "reloaded")
                for again in ((bind("", "p"), execute(), SYNC), (query("EXECUTE p"),)):
                    self.assertEqual(states(agent.answers(*again)), ["42501"])

    def test_a_hold_that_ran_out_in_a_transaction_can_be_approved_and_asked_for_again(self):
        rules = cases.RULES.replace("wait_in_transaction_s = 60", "wait_in_transaction_s = 1")
        gateway, case = self.gateway(rules=rules)
        cases.fresh_tables()
        update = query("UPDATE customers SET discount = 8")
        with gateway:
            case.token = gateway.token("ada", "agents")
            with Raw(case) as agent:
                agent.answers(query("BEGIN"))
                said = agent.answers(update)
                self.assertEqual((states(said), said[-1]), (["57014"], (b"Z", b"E")))
                gateway.cli("approve", case.pending("discount = 8", waiting=0), "--by", "grace")
                # The failed transaction stays failed, whatever was granted since.
                self.assertEqual(states(agent.answers(query("SELECT 1"))), ["25P02"])
                agent.answers(query("ROLLBACK"))
                self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "0")
                self.assertIn((b"C", b"UPDATE 3\0"), agent.answers(update))


class Reasons(OwnGateway):
    def test_a_yes_without_the_reason_that_the_rule_requires_runs_nothing(self):
        rules = cases.RULES.replace("wait_s = 60\n", "wait_s = 60\nreason_required = true\n", 1)
        gateway, case = self.gateway(rules=rules)
        with gateway:
            case.token = gateway.token("ada", "agents")
            cases.fresh_tables()
            for reason, state in (((), "no_reason"), (("--reason", "ticket 7"), None)):
                with case.running("UPDATE customers SET discount = 3") as child:
                    gateway.cli("approve", case.pending("discount = 3"), "--by", "grace", *reason)
                    _, said = child.communicate(timeout=20)
                ran = server().sql("SELECT sum(discount) FROM customers", "shop").strip()
                if state:
                    self.assertIn(f"state={state}", said)
                    self.assertEqual(ran, "0")
                else:
                    self.assertEqual(ran, "9")


class Recorded(OwnGateway):
    def test_a_full_record_lets_nothing_new_pass(self):
        # The least that the recorder takes: its rings must find room too.
        full = '[recorder]\ntotal_bytes_max = 160000000\nsegment_bytes_max = 1048576\nring_entries = 64\nat_cap = "refuse"\n'
        gateway, case = self.gateway(full)
        cases.fresh_tables()
        with gateway:
            case.token = gateway.token("ada", "agents")
            with Raw(case) as agent:
                seen = []
                for number in range(600):
                    noise = os.urandom(500_000).hex()
                    seen = states(agent.answers(query(f"SELECT {number} /* {noise} */")))
                    if seen:
                        break
                self.assertEqual(seen, ["58030"])
                said = agent.answers(query("UPDATE customers SET discount = 1 WHERE id = 1"))
                self.assertEqual(states(said), ["58030"])
            self.assertEqual(server().sql("SELECT sum(discount) FROM customers", "shop"), "0")

    def test_a_record_whose_gateway_was_killed_in_the_middle_is_whole_as_far_as_it_goes(self):
        gateway, case = self.gateway()
        with gateway:
            case.token = gateway.token("ada", "agents")
            with Raw(case) as agent:
                agent.answers((parse("", "SELECT 1") + bind("", "") + execute()) * 500, SYNC)
                agent.send((parse("", "SELECT 1") + bind("", "") + execute()) * 2000)
                gateway.process.kill()
            record = str(gateway.folder / "data/record")
            done = gateway.cli("verify", "--dir", record, config=False, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("whole", done.stdout)
            gateway.start()


if __name__ == "__main__":
    unittest.main()
