"""What the drivers' check programs share: run each check, print a line for it.

`ok NAME` or `FAILED NAME: reason`; the caller compares the lines of a direct
run with those through the gateway.
"""

import asyncio
import inspect
import os
import sys
import traceback

DSN = {
    "host": os.environ["PGHOST"],
    "port": int(os.environ["PGPORT"]),
    "user": os.environ["PGUSER"],
    "password": os.environ["PGPASSWORD"],
    "database": os.environ.get("PGDATABASE", "postgres"),
}


def main(module: dict) -> None:
    """Runs every function of `module` called check_*."""
    for name, function in list(module.items()):
        if not name.startswith("check_"):
            continue
        name = name.removeprefix("check_").replace("_", " ")
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(asyncio.wait_for(function(), 60))
            else:
                function()
            print(f"ok {name}", flush=True)
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            reason = " ".join(f"{type(error).__name__}: {error} (line {line})".split())
            print(f"FAILED {name}: {reason}", flush=True)
    sys.exit(0)


def equal(got, want):
    if got != want:
        raise AssertionError(f"{got!r}, expected {want!r}"[:600])


def raises(kind, function, *arguments, has: str = ""):
    try:
        function(*arguments)
    except kind as error:
        if has and has not in str(error):
            raise AssertionError(f"error without {has!r}: {error}") from None
        return error
    raise AssertionError(f"no {kind.__name__}")
