"""Real drivers: our typical operations in each, and their own suites where shipped."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree

import source
from harness import ROOT, Endpoint
from suites import Outcome

PEERS = pathlib.Path(__file__).resolve().parent / "peers"
_JDBC = pathlib.Path("/usr/share/java/postgresql.jar")


def run_peer(arguments: list, env: dict[str, str], cwd=None, timeout_s: float = 600) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(argument) for argument in arguments], env=env, cwd=cwd, capture_output=True, text=True, errors="replace",
        stdin=subprocess.DEVNULL, timeout=timeout_s,
    )  # fmt: skip


def lines_of(done: subprocess.CompletedProcess) -> dict[str, Outcome]:
    """Reads `ok NAME` and `FAILED NAME: reason`."""
    results = {}
    for outcome, rest in re.findall(r"(?m)^(ok|FAILED) (.*)$", done.stdout):
        name, _, reason = rest.partition(": ") if outcome == "FAILED" else (rest, "", None)
        results[name] = Outcome(reason)
    if not results or done.returncode != 0:
        results["runs to its end"] = Outcome(f"exit code {done.returncode}: {(done.stderr or done.stdout)[-800:]}")
    return results


@functools.cache
def python() -> str:
    """The interpreter that has the drivers."""
    done = subprocess.run([str(ROOT / "scripts/venv"), "clients"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"scripts/venv clients: {done.stderr.strip()}")
    return done.stdout.strip()


def _python_peer(script: str, endpoint: Endpoint) -> dict[str, Outcome]:
    return lines_of(run_peer([python(), "-B", PEERS / script], endpoint.env("postgres"), cwd=PEERS))


def _node_peer(endpoint: Endpoint) -> dict[str, Outcome]:
    return lines_of(run_peer(["node", _node_modules() / "node_pg.js"], endpoint.env("postgres")))


@functools.cache
def _node_modules() -> pathlib.Path:
    folder = source.CACHE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(PEERS / "node_pg.js", folder)
    wanted = (PEERS / "package.json").read_text()
    if not (folder / "package.json").exists() or (folder / "package.json").read_text() != wanted:
        (folder / "package.json").write_text(wanted)
        done = run_peer(["npm", "install", "--silent", "--no-audit", "--no-fund"], dict(os.environ), cwd=folder)
        if done.returncode != 0:
            (folder / "package.json").unlink()
            raise RuntimeError(f"npm install: {done.stderr[-800:]}")
    return folder


def _jdbc_peer(endpoint: Endpoint) -> dict[str, Outcome]:
    return lines_of(run_peer(["java", "-cp", f"{_jdbc_classes()}:{_JDBC}:/usr/share/java/*", "Jdbc"], endpoint.env("postgres")))


@functools.cache
def _jdbc_classes() -> pathlib.Path:
    folder = source.CACHE / "jdbc"
    folder.mkdir(parents=True, exist_ok=True)
    done = run_peer(["javac", "-d", folder, "-cp", _JDBC, PEERS / "Jdbc.java"], dict(os.environ))
    if done.returncode != 0:
        raise RuntimeError(f"javac: {done.stderr[-800:]}")
    return folder


def available(report) -> list:
    """(name, run) of every driver; one that cannot be had is a failure."""
    drivers = [
        ("psycopg 3", functools.partial(_python_peer, "psycopg3.py")),
        ("psycopg2", functools.partial(_python_peer, "psycopg2_peer.py")),
        ("asyncpg", functools.partial(_python_peer, "asyncpg_peer.py")),
        ("pg8000", functools.partial(_python_peer, "pg8000_peer.py")),
        ("SQLAlchemy", functools.partial(_python_peer, "sqlalchemy_peer.py")),
        ("node-postgres", _node_peer),
        ("JDBC", _jdbc_peer),
    ]
    for name, prepare in (("node-postgres", _node_modules), ("JDBC", _jdbc_classes), ("Python's", python)):
        try:
            prepare()
        except (OSError, RuntimeError) as error:
            report.fail(f"driver {name}: can be had", str(error))
            drivers = [driver for driver in drivers if driver[0] != name]
    return drivers


# Tests that cannot pass through a gateway, by what a gateway is.
_OTHER_LOGIN = "logs in with a password of the database's own, which a gateway does not take"
BY_DESIGN = {
    "test.dbapi.test_connection.test_password_bytes": _OTHER_LOGIN,
    "test.legacy.test_connection.testBytesPassword": _OTHER_LOGIN,
    "test.native.test_connection.test_bytes_password": _OTHER_LOGIN,
    "tests.test_execute.TestExecuteMany.test_executemany_server_failure_during_writes": (
        "counts how much the driver has written when the server's error comes; a gateway reads ahead, within its limit"
    ),
}


# -- the drivers' own suites --------------------------------------------------


def _unpacked(package: str) -> pathlib.Path:
    """The unpacked source distribution of an installed driver."""
    folder = source.CACHE / "suites" / package
    if (folder / "done").exists():
        return next(path for path in folder.iterdir() if path.is_dir())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shown = run_peer([python(), "-m", "pip", "show", f"{package}-binary" if package == "psycopg2" else package], dict(os.environ))
    version = re.search(r"(?m)^Version: (\S+)$", shown.stdout).group(1)
    done = run_peer(
        [python(), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", folder,
         f"{package}=={version}"],
        dict(os.environ), timeout_s=900,
    )  # fmt: skip
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode != 0 or not archives:
        raise RuntimeError(f"pip download {package}: {done.stderr[-800:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    (folder / "done").touch()
    return next(path for path in folder.iterdir() if path.is_dir())


def _pytest(folder: pathlib.Path, tests: str, env: dict[str, str], *more: str) -> dict[str, Outcome]:
    """Runs pytest on a copy of the tests alone; outcomes from its JUnit file."""
    work = source.CACHE / "suites/work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder / tests, work / tests)
    done = run_peer(
        [python(), "-B", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
         "--junitxml=result.xml", *more, tests],
        env, cwd=work, timeout_s=1800,
    )  # fmt: skip
    file = work / "result.xml"
    if not file.exists():
        raise RuntimeError(f"pytest: {done.stdout[-2000:]}{done.stderr[-1000:]}")
    results = {}
    for case in xml.etree.ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("skipped") is not None:
            continue
        problem = case.find("failure")
        problem = problem if problem is not None else case.find("error")
        results[name] = Outcome(None if problem is None else (problem.get("message") or "failed")[:1500])
    return results


def _psycopg2_suite(endpoint: Endpoint) -> dict[str, Outcome]:
    env = endpoint.env() | {
        "PSYCOPG2_TESTDB": endpoint.database("postgres"),
        "PSYCOPG2_TESTDB_HOST": endpoint.host,
        "PSYCOPG2_TESTDB_PORT": str(endpoint.port),
        "PSYCOPG2_TESTDB_USER": endpoint.user,
        "PSYCOPG2_TESTDB_PASSWORD": endpoint.password,
        "PSYCOPG2_TEST_FAST": "1",
    }
    return _pytest(_unpacked("psycopg2"), "tests", env)


def _pg8000_suite(endpoint: Endpoint) -> dict[str, Outcome]:
    env = endpoint.env("postgres")
    # Its auth tests want servers set up for each method; benchmarks are not tests.
    ignored = [f"--ignore=test/{kind}/auth" for kind in ("dbapi", "legacy", "native")]
    ignored += [f"--ignore=test/{kind}/test_benchmarks.py" for kind in ("dbapi", "legacy", "native")]
    return _pytest(_unpacked("pg8000"), "test", env, "--ignore=test/test_readme.py", *ignored)


def _asyncpg_suite(endpoint: Endpoint) -> dict[str, Outcome]:
    # With PGHOST set its tests use that server rather than one of their own;
    # test_connect starts servers itself and wants Kerberos.
    return _pytest(_unpacked("asyncpg"), "tests", endpoint.env("postgres"), "--ignore=tests/test__sourcecode.py",
                   "--ignore=tests/test__environment.py", "--ignore=tests/test_connect.py",
                   "--import-mode=importlib")  # fmt: skip


def suites(report) -> list:
    """(name, run) of every driver's own suite that its source package ships."""
    found = []
    for package, run in (("psycopg2", _psycopg2_suite), ("pg8000", _pg8000_suite), ("asyncpg", _asyncpg_suite)):
        try:
            _unpacked(package)
            found.append((package, run))
        except (OSError, RuntimeError, AttributeError) as error:
            report.fail(f"suite of {package}: can be had", str(error))
    return found
