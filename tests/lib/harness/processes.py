"""Processes that do not outlive who started them.

Each one leads its own process group. The group is ended at the end of a `with`
block, at interpreter exit, and the leader also when the interpreter is killed
(the kernel's parent-death signal).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_running: set["Process"] = set()


def free_port() -> int:
    """A TCP port that was free a moment ago on 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, timeout_s: float, what: str, every_s: float = 0.02):
    """Calls `condition` until it gives something true, and returns that."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(every_s)


class Process:
    """A running program with its output in a file."""

    def __init__(
        self,
        arguments: list[str],
        log: pathlib.Path,
        env: dict[str, str] | None = None,
        user: str | None = None,
        cwd: str | pathlib.Path | None = None,
        stop_signal: int = signal.SIGTERM,
        death_signal: int = signal.SIGKILL,
        cpus: set[int] | None = None,
    ):
        self.arguments = [str(argument) for argument in arguments]
        self.name = os.path.basename(self.arguments[0])
        self.log = pathlib.Path(log)
        self.stop_signal = stop_signal

        def in_child():
            _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if cpus:
                os.sched_setaffinity(0, cpus)

        as_user = {}
        if user is not None and os.geteuid() == 0:
            import pwd

            entry = pwd.getpwnam(user)
            as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=in_child,
                **as_user,
            )
        self.pid = self.child.pid
        _running.add(self)

    def running(self) -> bool:
        return self.child.poll() is None

    def output(self) -> str:
        """Everything that it has printed so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        if self.running():
            self.child.send_signal(number)

    def stop(self, timeout_s: float = 15.0) -> int:
        """Asks it to end, ends its group if it does not; returns the exit code."""
        self.signal(self.stop_signal)
        try:
            code = self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        self._kill_group()
        if code is None:
            self.child.wait()
            raise TimeoutError(f"{self.name} did not end within {timeout_s:.0f} s of being asked")
        return code

    def kill(self) -> None:
        """Ends it and its group at once, as a crash would."""
        self._kill_group()
        self.child.wait()

    def _kill_group(self) -> None:
        _running.discard(self)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self in _running:
            self.kill()


@atexit.register
def _end_all() -> None:
    for process in list(_running):
        process.signal(process.stop_signal)
    for process in list(_running):
        try:
            process.child.wait(5)
        except subprocess.TimeoutExpired:
            pass
        process.kill()


def end_on_signals() -> None:
    """Makes SIGTERM and SIGHUP end the harness the way Ctrl-C does."""

    def leave(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
