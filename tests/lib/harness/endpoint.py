"""Where a client connects: a server itself ("direct") or a gateway."""

from __future__ import annotations

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One place that speaks PostgreSQL, and how to log in there.

    `prefix` is put before a database's name: "" where the name alone is enough
    (direct, or a gateway's listener that serves one target), "TARGET/" else.
    """

    name: str
    host: str
    port: int
    user: str
    password: str
    prefix: str = ""
    sslmode: str = "disable"
    sslrootcert: str | None = None

    def database(self, name: str) -> str:
        return self.prefix + name

    def conninfo(self, database: str, **more: str) -> str:
        """A libpq connection string."""
        values = {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "password": self.password,
            "dbname": self.database(database),
            "sslmode": self.sslmode,
        }
        if self.sslrootcert:
            values["sslrootcert"] = self.sslrootcert
        values.update(more)
        quoted = {k: str(v).replace("\\", "\\\\").replace("'", "\\'") for k, v in values.items()}
        return " ".join(f"{key}='{value}'" for key, value in quoted.items())

    def env(self, database: str | None = None) -> dict[str, str]:
        """The environment that makes libpq programs connect here."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env.update(
            PGHOST=self.host,
            PGPORT=str(self.port),
            PGUSER=self.user,
            PGPASSWORD=self.password,
            PGSSLMODE=self.sslmode,
        )
        if self.sslrootcert:
            env["PGSSLROOTCERT"] = self.sslrootcert
        if database is not None:
            env["PGDATABASE"] = self.database(database)
        return env
