"""PostgreSQL's own tests: fetched as Debian's source package, and built.

The source list is made from the machine's own list, in an apt state folder of
its own, so that the machine's lists stay as they are. The source may be one
minor version apart from the installed server; its tests are then compared with
a direct run all the same. Nothing is configured or built as a whole: the few
shared objects and the one client program that the tests need are compiled
against the installed server's headers.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

from harness import ROOT

CACHE = ROOT / "target/conformance"
PG = pathlib.Path("/usr/lib/postgresql/15")
HEADERS = pathlib.Path("/usr/include/postgresql/15/server")
REGRESS = PG / "lib/pgxs/src/test/regress/pg_regress"
ISOLATION = PG / "lib/pgxs/src/test/isolation/pg_isolation_regress"


def _run(*arguments, cwd=None) -> str:
    done = subprocess.run(
        [str(argument) for argument in arguments], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise RuntimeError(f"{arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def _apt(state: pathlib.Path) -> list[str]:
    """apt options: its own lists, made of the machine's Debian entries as deb-src."""
    sources = state / "sources.d"
    shutil.rmtree(sources, ignore_errors=True)
    for folder in (sources, state / "lists/partial", state / "cache/archives/partial"):
        folder.mkdir(parents=True, exist_ok=True)
    found = False
    for file in sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*.sources")):
        text = file.read_text()
        if "debian-archive-keyring" in text:
            (sources / file.name).write_text(re.sub(r"(?m)^Types:.*$", "Types: deb-src", text))
            found = True
    for file in [pathlib.Path("/etc/apt/sources.list"), *pathlib.Path("/etc/apt/sources.list.d").glob("*.list")]:
        if file.exists():
            lines = re.findall(r"(?m)^deb\s.*\bmain\b.*$", file.read_text())
            if lines:
                text = "\n".join(re.sub(r"^deb\s", "deb-src ", line) for line in lines) + "\n"
                (sources / (file.name if file.suffix == ".list" else "main.list")).write_text(text)
                found = True
    if not found:
        raise RuntimeError("no Debian entry in this machine's apt sources")
    return [
        "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={sources}",
        "-o", f"Dir::State::lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}",
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip


def fetch() -> pathlib.Path:
    """The unpacked source, newest version that can be had."""
    tree = CACHE / "postgresql-15"
    if (tree / "src/test/regress/parallel_schedule").exists():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    options = _apt(CACHE / "apt")
    _run("apt-get", *options, "-q", "update")
    listed = _run("apt-cache", *options, "showsrc", "postgresql-15")
    versions = sorted(
        set(re.findall(r"(?m)^Version: (\S+)$", listed)),
        key=lambda version: [int(part) for part in re.findall(r"\d+", version)],
        reverse=True,
    )
    problem = "no version listed"
    for version in versions:
        try:
            _run("apt-get", *options, "-q", "source", "--download-only", f"postgresql-15={version}", cwd=CACHE)
        except RuntimeError as error:
            # Listed but no longer kept: the one before it will do.
            problem = str(error)
            continue
        description = next(CACHE.glob(f"postgresql-15_{version.split(':')[-1]}.dsc"))
        unpacked = CACHE / "unpacking"
        shutil.rmtree(unpacked, ignore_errors=True)
        _run("dpkg-source", "--no-check", "-x", description, unpacked)
        shutil.rmtree(tree, ignore_errors=True)
        unpacked.rename(tree)
        (CACHE / "version").write_text(version)
        return tree
    raise RuntimeError(f"PostgreSQL's source package cannot be had: {problem}")


def version() -> str:
    file = CACHE / "version"
    return file.read_text() if file.exists() else "unknown"


def build(tree: pathlib.Path) -> pathlib.Path:
    """Compiles regress.so, refint.so, autoinc.so and libpq_pipeline; their folder."""
    if not (HEADERS / "postgres.h").exists():
        raise RuntimeError("no server headers here: scripts/install conformance")
    built = CACHE / "built"
    built.mkdir(parents=True, exist_ok=True)
    common = ["gcc", "-O1", "-w", "-fwrapv", "-fno-strict-aliasing", f"-I{HEADERS}", "-D_GNU_SOURCE"]
    modules = {
        "regress.so": tree / "src/test/regress/regress.c",
        "refint.so": tree / "contrib/spi/refint.c",
        "autoinc.so": tree / "contrib/spi/autoinc.c",
    }
    for name, source in modules.items():
        if not (built / name).exists():
            _run(*common, "-fPIC", "-shared", "-o", built / name, source)
    program = built / "libpq_pipeline"
    if not program.exists():
        _run(
            *common, "-I/usr/include/postgresql", "-o", program,
            tree / "src/test/modules/libpq_pipeline/libpq_pipeline.c",
            f"-L{PG / 'lib'}", "-lpgfeutils", "-lpgcommon", "-lpgport", "-lpq", "-lm",
        )  # fmt: skip
    if not (built / "bin/psql").exists():
        _build_psql(tree, built / "bin")
    return built


def _build_psql(tree: pathlib.Path, folder: pathlib.Path) -> None:
    """psql of the tests' own version into `folder`.

    What the tests expect is what psql prints, and that differs between minor
    versions (15.20 reads on after a COPY FROM STDIN that failed, 15.18 does
    not). The installed psql serves where it is of the source's version.
    """
    installed = _run(PG / "bin/psql", "--version")
    folder.mkdir(parents=True, exist_ok=True)
    if f" {version().split('-')[0]} " in f"{installed} ":
        (folder / "psql").symlink_to(PG / "bin/psql")
        return
    work = CACHE / "psql-build"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(tree, work, symlinks=True)
    _run("./configure", "--quiet", "--without-readline", "--without-zlib", "CFLAGS=-O1 -w", cwd=work)
    _run("make", "-s", "-j2", "-C", "src/backend", "generated-headers", cwd=work)
    _run("make", "-s", "-j2", "-C", "src/bin/psql", cwd=work)
    shutil.copy(work / "src/bin/psql/psql", folder / "psql")
    shutil.rmtree(work)
