"""Counts what passed, and says it in one closing line."""

from __future__ import annotations

import sys
import time
import traceback


class Report:
    """Prints a line per check, and `N passed, N failed` at the end."""

    def __init__(self, name: str | None = None):
        self.name = name
        self.passed = 0
        self.failures: list[tuple[str, str]] = []
        self._started = time.monotonic()

    def ok(self, check: str, quiet: bool = False) -> None:
        self.passed += 1
        if not quiet:
            print(f"ok      {check}", flush=True)

    def fail(self, check: str, reason: str) -> None:
        self.failures.append((check, reason))
        print(f"FAILED  {check}: {reason.strip()}", flush=True)

    def check(self, condition: bool, check: str, reason: str = "not as expected") -> bool:
        if condition:
            self.ok(check)
        else:
            self.fail(check, reason)
        return bool(condition)

    def run(self, check: str, function, *arguments) -> bool:
        """Runs `function`; it passes unless it raises."""
        try:
            function(*arguments)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.fail(check, f"{text} ({where.name}, line {where.lineno})")
            return False
        self.ok(check)
        return True

    def section(self, title: str) -> None:
        print(f"\n== {title} ({time.monotonic() - self._started:.0f} s)", flush=True)

    def close(self) -> int:
        """Prints the closing line; returns the exit code."""
        print()
        for check, reason in self.failures:
            print(f"FAILED  {check}: {reason.strip().splitlines()[0] if reason.strip() else ''}")
        prefix = f"{self.name}: " if self.name else ""
        print(f"{prefix}{self.passed} passed, {len(self.failures)} failed", flush=True)
        sys.stdout.flush()
        return 1 if self.failures or not self.passed else 0
