"""Configurations that several harnesses use."""

from __future__ import annotations

import json
import pathlib

from .endpoint import Endpoint
from .gateway import Gateway
from .postgres import PostgresServer
from .processes import free_port

# The variable of the gateway's environment that holds the target's password.
PASSWORD_VARIABLE = "TARGET_PASSWORD"


def text(value) -> str:
    """A value as TOML writes it (strings, lists of strings, numbers, booleans)."""
    return json.dumps(value, ensure_ascii=False)


def target(server: PostgresServer, name: str = "pg", account: str = "postgres", **more) -> str:
    """A `[[targets]]` section for a server of ours."""
    keys = {"name": name, "hosts": [f"{server.host}:{server.port}"], "account": account, "database": "postgres"}
    keys |= {"tls": "verify", "ca_file": str(server.ca.certificate)} if server.tls else {"tls": "off"}
    keys |= {"connections_max": 500, "connections_per_principal_max": 500} | more
    lines = ["[[targets]]", *(f"{key} = {text(value)}" for key, value in keys.items())]
    if server.auth not in ("trust", "cert"):
        lines.append(f'password = {{ env = "{PASSWORD_VARIABLE}" }}')
    return "\n".join(lines) + "\n"


def allow_all(
    server: PostgresServer,
    name: str = "pg",
    recording: str = "async",
    listener: dict | None = None,
    extra: str = "",
    account: str = "postgres",
    shards: int = 1,
):
    """A function from a gateway's folder to an allow-all configuration of one target.

    The one listener serves that target alone, so that database names are the
    server's own. Masking and recording are on; no built-in rule pack is.
    """
    port, control = free_port(), free_port()
    keys = {"name": "main", "address": f"127.0.0.1:{port}", "target": name} | (listener or {})
    listener_text = "\n".join(f"{key} = {text(value)}" for key, value in keys.items())
    role = {"name": "everything", "groups": ["agents"], "targets": ["*"], "default": "allow"}
    role |= {"packs": ["-no-credential-minting"], "function_call": "allow", "recording": recording}
    role_text = "\n".join(f"{key} = {text(value)}" for key, value in role.items())

    def config(folder: pathlib.Path) -> str:
        return f"""\
[gateway]
data_dir = {text(str(folder / "data"))}
shards = {shards}
drain_ms = 2000
logins_per_source_max = 1000
[control]
address = "127.0.0.1:{control}"
[limits]
statement_bytes_max = 67108864
statement_tokens_max = 1000000
statement_nesting_max = 500
[[listeners]]
{listener_text}
{target(server, name, account)}
[[roles]]
{role_text}
{extra}"""

    return config


def endpoint(gateway: Gateway, token: str, user: str = "agent", database_prefix: str = "") -> Endpoint:
    """How an agent reaches a gateway's first listener."""
    listener = gateway.config["listeners"][0]
    host, port = listener["address"].rsplit(":", 1)
    tls = {}
    if "certificate_file" in listener:
        root = pathlib.Path(listener["certificate_file"]).parent / "ca.crt"
        tls = {"sslmode": "verify-full", "sslrootcert": str(root)}
    return Endpoint("gateway", host, int(port), user, token, database_prefix, **tls)
