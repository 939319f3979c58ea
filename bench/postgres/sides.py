"""What is compared: the server itself, PgBouncer, Portcullis with everything on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile

from harness import CertificateAuthority, Endpoint, Gateway, PostgresServer, Process, configs, free_port, wait_until
from harness.postgres import give, server_user

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Side:
    """One way to the server. `pid` is the proxy's process, if there is one."""

    name: str
    endpoint: Endpoint
    pid: int | None = None

    def cpu_s(self) -> float:
        """CPU seconds that the proxy has used so far, user and system."""
        if self.pid is None:
            return 0.0
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def pss_kib(self) -> int:
        """Proportional memory of the proxy, in KiB."""
        for line in pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise RuntimeError("no Pss in smaps_rollup")


# -- PgBouncer ------------------------------------------------------------------


def pgbouncer_program() -> str | None:
    return shutil.which("pgbouncer") or (
        "/usr/sbin/pgbouncer" if pathlib.Path("/usr/sbin/pgbouncer").exists() else None
    )


def pgbouncer_version() -> str:
    done = subprocess.run([pgbouncer_program(), "--version"], capture_output=True, text=True)
    return done.stdout.splitlines()[0]


@contextlib.contextmanager
def pgbouncer(host: str, port: int, user: str, password: str | None, cpus: set[int], tls: CertificateAuthority | None):
    """Session mode, nothing on; SCRAM on both sides, or trust where no password is given."""
    with tempfile.TemporaryDirectory(prefix="portcullis-pgbouncer-") as name:
        folder, listen = pathlib.Path(name), free_port()
        folder.chmod(0o755)
        lines = [
            "[databases]", f"* = host={host} port={port}", "[pgbouncer]", "listen_addr = 127.0.0.1",
            f"listen_port = {listen}", "unix_socket_dir =", "pool_mode = session", "max_client_conn = 5000",
            "default_pool_size = 3000", "max_db_connections = 0", f"auth_file = {folder}/users.txt",
            f"auth_type = {'scram-sha-256' if password else 'trust'}", "log_connections = 0",
            "log_disconnections = 0", "log_stats = 0", "ignore_startup_parameters = extra_float_digits,options",
        ]  # fmt: skip
        if tls is not None:
            certificate, key = tls.issue("pgbouncer")
            shutil.copy(certificate, folder / "server.crt")
            shutil.copy(key, folder / "server.key")
            lines += ["client_tls_sslmode = allow", f"client_tls_cert_file = {folder}/server.crt",
                      f"client_tls_key_file = {folder}/server.key"]  # fmt: skip
        (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        (folder / "users.txt").write_text(f'"{user}" "{password or ""}"\n')
        give(folder, server_user())
        process = Process(
            [pgbouncer_program(), folder / "pgbouncer.ini"], folder / "log", user=server_user(), cpus=cpus
        )
        with process:
            wait_until(lambda: "process up" in process.output() or not process.running(), 10, "PgBouncer up")
            if not process.running():
                raise RuntimeError(f"PgBouncer ended: {process.output()}")
            endpoint = Endpoint("pgbouncer", "127.0.0.1", listen, user, password or "")
            yield Side("PgBouncer", endpoint, process.pid), endpoint
            process.stop()


# -- Portcullis -----------------------------------------------------------------


def rules() -> str:
    """Fifty-five rules, five of them with `when`, as a real role might have."""
    parts = [
        {"name": "reads", "action": "allow", "statements": ["read"]},
        {"name": "writes-with-where", "action": "allow", "statements": ["update", "delete"], "where_present": True},
        {"name": "inserts", "action": "allow", "statements": ["insert", "merge", "copy"]},
        {"name": "transactions", "action": "allow",
         "statements": ["begin", "commit", "rollback", "set", "show", "vacuum", "truncate"]},
        {"name": "writes-without-where", "action": "approve", "statements": ["update", "delete"], "where_present": False},
    ]  # fmt: skip
    parts += [
        {"name": f"no-schema-{n}", "action": "deny", "tables": [f"private_{n}.ledger_*", f"hr.salary_{n}"]} for n in range(20)
    ]
    parts += [{"name": f"no-function-{n}", "action": "deny", "functions": [f"admin_{n}", f"ops.job_{n}_*"]} for n in range(15)]
    parts += [{"name": f"no-column-{n}", "action": "deny", "columns": [f"customers_{n}.ssn"]} for n in range(10)]
    parts += [
        {"name": "long-texts", "action": "deny", "when": "text_length > 900000"},
        {"name": "many-tables", "action": "deny", "when": "size(tables_read) > 40"},
        {"name": "system-functions", "action": "deny", "when": "functions.exists(f, f.startsWith('pg_read_'))"},
        {"name": "other-databases", "action": "deny", "when": "database == 'template1'"},
        {"name": "guests-write", "action": "deny",
         "when": "size(tables_written) > 0 && principal.groups.exists(g, g == 'guests')"},
    ]  # fmt: skip
    text = ""
    for part in parts:
        text += "[[roles.rules]]\n" + "".join(f"{key} = {configs.text(value)}\n" for key, value in part.items())
    return text


def portcullis_config(host: str, port: int, ports: tuple[int, int], tls: CertificateAuthority | None, password: bool):
    """Everything on: the rules above twice, for a role of each recording mode."""
    control = free_port()
    listeners = f"""
[[listeners]]
name = "clear"
address = "127.0.0.1:{ports[0]}"
target = "bench"
"""
    if tls is not None:
        certificate, key = tls.issue("portcullis")
        listeners += f"""
[[listeners]]
name = "tls"
address = "127.0.0.1:{ports[1]}"
target = "bench"
certificate_file = {configs.text(str(certificate))}
key_file = {configs.text(str(key))}
"""
    roles = "".join(
        f"""
[[roles]]
name = "bench-{mode}"
groups = ["bench-{mode}"]
targets = ["bench"]
recording = "{mode}"
connections_max = 5000
packs = ["client-preamble"]
{rules()}"""
        for mode in ("async", "requests")
    )
    secret = f'password = {{ env = "{configs.PASSWORD_VARIABLE}" }}' if password else ""

    def config(folder: pathlib.Path) -> str:
        return f"""\
[gateway]
data_dir = {configs.text(str(folder / "data"))}
shards = 1
drain_ms = 1000
connections_per_source_max = 5000
logins_per_source_max = 5000
log_level = "warn"
[control]
address = "127.0.0.1:{control}"
[recorder]
at_cap = "delete_oldest"
total_bytes_max = 4294967296
[masking]
packs = ["default"]
{listeners}
[[targets]]
name = "bench"
hosts = ["{host}:{port}"]
tls = "off"
account = "postgres"
database = "postgres"
connections_max = 5000
connections_per_principal_max = 5000
{secret}
{roles}"""

    return config


@contextlib.contextmanager
def everything(server: PostgresServer, binaries: str, cpus: set[int], parts: set[str]):
    """All sides, in the order of the table's columns."""
    found = [Side("direct", dataclasses.replace(server.endpoint(), name="direct"))]
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portcullis-bench-")))
        authority = CertificateAuthority(folder)
        secure = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
        if "pgbouncer" in parts:
            side, endpoint = stack.enter_context(
                pgbouncer(server.host, server.port, server.superuser, server.password, cpus, authority)
            )
            found.append(side)
            found.append(Side("PgBouncer, TLS", dataclasses.replace(endpoint, **secure), side.pid))
        if "portcullis" in parts:
            ports = (free_port(), free_port())
            gateway = stack.enter_context(
                Gateway(
                    portcullis_config(server.host, server.port, ports, authority, True),
                    env={configs.PASSWORD_VARIABLE: server.password}, binaries=binaries, cpus=cpus,
                )
            )  # fmt: skip
            pid = gateway.process.pid
            plain = Endpoint("portcullis", "127.0.0.1", ports[0], "agent", gateway.token("bench", "bench-async"))
            strict = dataclasses.replace(plain, password=gateway.token("bench", "bench-requests"))
            found.append(Side("Portcullis", plain, pid))
            found.append(Side("Portcullis, TLS", dataclasses.replace(plain, port=ports[1], **secure), pid))
            found.append(Side("Portcullis, requests", strict, pid))
        yield found
