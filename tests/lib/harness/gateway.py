"""A gateway process under test, and its command line."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable

from .processes import Process, wait_until
from .root import ROOT


class GatewayFailed(RuntimeError):
    """The gateway did not start, or did not end well."""


def program(binaries: str | pathlib.Path | None = None) -> pathlib.Path:
    """The built program; `binaries` is a folder such as target/release."""
    folder = pathlib.Path(binaries or os.environ.get("PORTCULLIS_BINARIES") or ROOT / "target/debug")
    path = folder.resolve() / "portcullis"
    if not path.exists():
        raise GatewayFailed(f"{path} is not built: cargo build -p portcullis")
    return path


class Gateway:
    """Use as a context manager; ready for agents inside it.

    config    the configuration's text, or a function from the gateway's folder
              (where data, recordings and token files may go) to that text
    env       environment variables for it, such as the targets' passwords
    expect    the exit code that stopping it must give
    """

    def __init__(
        self,
        config: str | Callable[[pathlib.Path], str],
        env: dict[str, str] | None = None,
        binaries: str | pathlib.Path | None = None,
        cpus: set[int] | None = None,
        expect: int = 0,
        start_timeout_s: float = 20,
        folder: str | pathlib.Path | None = None,
    ):
        self.program = program(binaries)
        self._config, self.cpus, self.expect = config, cpus, expect
        self.start_timeout_s = start_timeout_s
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PORTCULLIS"))}
        self.env |= env or {}
        self._kept = folder is not None
        self.folder = pathlib.Path(folder) if folder else None
        self.process: Process | None = None

    # -- life ---------------------------------------------------------------

    def __enter__(self) -> "Gateway":
        if self.folder is None:
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-gw-"))
        try:
            self.write_config(self._config(self.folder) if callable(self._config) else self._config)
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if self.process is not None and kind is None:
                self.stop()
        finally:
            self._clean()

    def _clean(self) -> None:
        if self.process is not None and self.process.running():
            self.process.kill()
        if not self._kept and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def config_path(self) -> pathlib.Path:
        return self.folder / "portcullis.toml"

    @property
    def log(self) -> pathlib.Path:
        return self.folder / "gateway.log"

    def write_config(self, text: str) -> None:
        """Writes the file; `reload` makes a running gateway take it."""
        self.config = tomllib.loads(text)
        self.config_path.write_text(text)

    def start(self) -> None:
        self.process = Process(
            [self.program, "run", "--config", self.config_path],
            self.log,
            env=self.env,
            cwd=self.folder,
            cpus=self.cpus,
        )

        def ready() -> bool:
            if not self.process.running():
                raise GatewayFailed(f"the gateway ended while starting:\n{self.process.output()}")
            return self.healthy()

        try:
            wait_until(ready, self.start_timeout_s, "gateway ready")
        except TimeoutError as late:
            raise GatewayFailed(f"{late}\n{self.process.output()}") from None

    def stop(self, timeout_s: float = 20) -> None:
        """SIGTERM, and the exit code must be the expected one."""
        process, self.process = self.process, None
        code = process.stop(timeout_s)
        if code != self.expect:
            raise GatewayFailed(f"exit code {code}, not {self.expect}:\n{process.output()[-4000:]}")

    def reload(self) -> None:
        self.process.signal(signal.SIGHUP)

    def healthy(self) -> bool:
        """Whether it says so itself on /healthz, or, without control, accepts."""
        if self.config.get("control", {}).get("address"):
            try:
                return self.http("/healthz")[0] == 200
            except (OSError, urllib.error.URLError):
                return False
        address = self.config["listeners"][0]["address"]
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), 1).close()
            return True
        except OSError:
            return False

    # -- use ----------------------------------------------------------------

    def http(
        self, path: str, token: str | None = None, body: dict | None = None, timeout_s: float = 5
    ) -> tuple[int, str]:
        """GET on the control address, or POST with a JSON body: status and text."""
        address = self.config["control"]["address"]
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{address}{path}", data=data)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def cli(
        self, *arguments: str, check: bool = True, config: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess:
        """`portcullis ARGUMENTS --config FILE`."""
        command = [str(self.program), arguments[0]]
        if config:
            command += ["--config", str(self.config_path)]
        command += [str(argument) for argument in arguments[1:]]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=self.env, stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise GatewayFailed(f"portcullis {' '.join(command[1:])}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def token(self, subject: str, *groups: str, ttl_s: int = 3600) -> str:
        """A fresh gateway token, by way of the API (`portcullis token` asks the same)."""
        body = {"subject": subject, "groups": list(groups), "ttl_s": ttl_s}
        status, text = self.http("/api/v1/tokens", token=self.admin_token(), body=body)
        if status not in (200, 201):
            raise GatewayFailed(f"no token: {status} {text}")
        return json.loads(text)["token"]

    def admin_token(self) -> str:
        """The API's token, which the gateway made at its first start."""
        control = self.config.get("control", {})
        data = self.folder / self.config.get("gateway", {}).get("data_dir", "portcullis-data")
        return (self.folder / control.get("admin_token_file", data / "admin.token")).read_text().strip()

    def log_lines(self) -> list[dict]:
        """The log's JSON lines."""
        lines = []
        for line in self.process.output().splitlines() if self.process else self.log.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines
