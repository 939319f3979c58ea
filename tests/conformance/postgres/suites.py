"""pg_regress, the isolation tester and libpq's pipeline test, run at one endpoint.

Each suite function returns {test: Outcome}, so that a run through the gateway
can be held against a direct one.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import source
from harness import Endpoint
from harness.postgres import give, run_as, server_user

# The groups of a run that must be short; names from PostgreSQL's schedules.
SMOKE_REGRESS = """
test: test_setup
test: boolean char name varchar text int2 int4 int8 float8 bit numeric uuid enum
test: strings numerology date time timestamp timestamptz interval json jsonb
test: copy copyselect copydml insert
test: create_function_c create_misc create_table
test: create_index
test: errors select transactions portals arrays union case privileges create_am
test: prepare plancache copy2 temp sequence plpgsql largeobject returning
test: guc psql prepared_xacts
"""
SMOKE_ISOLATION = """
test: read-only-anomaly
test: deadlock-simple
test: nowait
test: skip-locked
test: lock-update-delete
test: async-notify
test: timeouts
test: eval-plan-qual
"""


@dataclasses.dataclass
class Outcome:
    """How one test ended: what was wrong (None: it passed) and all that it printed."""

    wrong: str | None
    printed: str | None = None


_LINE = re.compile(r"(?m)^(?:test)?\s+(\S+)\s+\.\.\. (ok|FAILED|failed \(ignored\))(.*)$")


def _results(output: str, folder: pathlib.Path) -> dict[str, Outcome]:
    """Reads what pg_regress printed, and the files that it wrote."""
    differences = folder / "regression.diffs"
    text = differences.read_text(errors="replace") if differences.exists() else ""
    by_test: dict[str, str] = {}
    for part in re.split(r"(?m)^(?=diff )", text):
        named = re.search(r"results/(\S+)\.out$", part.split("\n", 1)[0])
        if named:
            by_test[named.group(1)] = part
    results = {}
    for name, outcome, more in _LINE.findall(output):
        wrong = None if outcome == "ok" else by_test.get(name, f"{outcome}{more}")
        file = folder / f"results/{name}.out"
        results[name] = Outcome(wrong, file.read_text(errors="replace") if file.exists() else None)
    return results


def _driver(
    driver: pathlib.Path, inputs: pathlib.Path, endpoint: Endpoint, database: str, schedule: str | None, default: str
) -> dict[str, Outcome]:
    """Runs pg_regress or pg_isolation_regress on a copy that the server may read."""
    user = server_user()
    work = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-regress-"))
    work.chmod(0o755)
    try:
        shutil.copytree(inputs, work / "input")
        shutil.copytree(source.CACHE / "built", work / "lib")
        (work / "output").mkdir()
        listed = work / "schedule"
        listed.write_text(schedule if schedule is not None else (inputs / default).read_text())
        give(work, user)
        done = run_as(
            user,
            [driver, f"--inputdir={work / 'input'}", f"--outputdir={work / 'output'}", f"--dlpath={work / 'lib'}",
             f"--bindir={work / 'lib/bin'}", f"--host={endpoint.host}", f"--port={endpoint.port}",
             f"--user={endpoint.user}", f"--dbname={database}", "--max-connections=20", f"--schedule={listed}"],
            cwd=work / "output", env=endpoint.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", stdin=subprocess.DEVNULL, timeout=3000,
        )  # fmt: skip
        results = _results(done.stdout, work / "output")
        kept = source.CACHE / "results" / f"{driver.name}-{endpoint.name}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(work / "output", kept)
        (kept / "printed.txt").write_text(done.stdout)
        if not results:
            raise RuntimeError(f"{driver.name} ran nothing:\n{done.stdout[-3000:]}")
        return results
    finally:
        shutil.rmtree(work, ignore_errors=True)


def regress(tree: pathlib.Path, endpoint: Endpoint, smoke: bool) -> dict[str, Outcome]:
    inputs = tree / "src/test/regress"
    schedule = SMOKE_REGRESS if smoke else None
    return _driver(source.REGRESS, inputs, endpoint, "regression", schedule, "parallel_schedule")


def isolation(tree: pathlib.Path, endpoint: Endpoint, smoke: bool) -> dict[str, Outcome]:
    inputs = tree / "src/test/isolation"
    schedule = SMOKE_ISOLATION if smoke else None
    return _driver(source.ISOLATION, inputs, endpoint, "isolation_regression", schedule, "isolation_schedule")




def pipeline(tree: pathlib.Path, endpoint: Endpoint, smoke: bool) -> dict[str, Outcome]:
    """Every test of libpq_pipeline, and its trace where there is an expected one."""
    program = source.CACHE / "built/libpq_pipeline"
    expected = tree / "src/test/modules/libpq_pipeline/traces"
    env = os.environ | {"PGOPTIONS": ""}
    names = subprocess.run([program, "tests"], capture_output=True, text=True, check=True).stdout.split()
    results: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="portcullis-pipeline-") as folder:
        for name in names:
            trace = pathlib.Path(folder) / f"{name}.trace"
            traced = (expected / f"{name}.trace").exists()
            arguments = [program, "-r", "700", *(["-t", trace] if traced else []), name, endpoint.conninfo("postgres")]
            try:
                done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", env=env, timeout=180)
            except subprocess.TimeoutExpired:
                results[name] = Outcome("no end within 180 s")
                continue
            results[name] = Outcome(None if done.returncode == 0 else (done.stderr or done.stdout)[-1500:])
            if traced and done.returncode == 0:
                got, want = trace.read_text(errors="replace"), (expected / f"{name}.trace").read_text()
                results[f"{name} (trace)"] = Outcome(None if got == want else _first_difference(got, want))
    return results


def _first_difference(got: str, want: str) -> str:
    for number, (one, other) in enumerate(zip(got.splitlines(), want.splitlines(), strict=False), 1):
        if one != other:
            return f"trace line {number}: {one!r}, expected {other!r}"
    return f"trace of {len(got.splitlines())} lines, expected {len(want.splitlines())}"
