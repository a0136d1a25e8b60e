"""Run the tests in groups, some beside one another: `python scripts/run_tests.py -k retry`; options go to pytest.

One process a group, since each starts its engine once, and mostly waits for it. FLOWYML_TEST_JOBS says how many groups
run at a time: three more than there are processors, unless it says otherwise.

On every other Python of this machine, the tests run again whose outcome depends on the Python; with `--pythons` as the
first option, these groups alone run, with all tests that need no engine.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pythons

from adapters import adapters

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".venv" / "tests"
MIGRATION = "tests/unit/migration"
PASSED, NO_TEST = 0, 5
SHOWN = 8  # failed tests, with two lines each: CI shows the last twenty

# Tests whose outcome depends on the Python: how functions, values and modules travel, processes, forks and threads.
DEPENDS_ON_PYTHON = (
    "authoring_*", "bundle", "cache_changes", "execution", "loading", "local_detached", "local_prints", "local_runs",
    "local_travelling", "local_values", "sources", "step_processes*", "types",
)  # fmt: skip
# Of the conformance suite, what runs each step in a process of its own. What else decides is the same on every Python.
CONFORMANCE_ON_PYTHONS = "tests/unit/test_local_conformance.py::TestControlFlowInProcesses"

# Run by the Python whose packages it compiles, without the folders of these names.
COMPILE = """
import compileall, re, sys, sysconfig
skipped = re.compile(f"/({'|'.join(sys.argv[1:])})/")
for folder in (sysconfig.get_path("purelib"), "flowyml", "adapters"):
    compileall.compile_dir(folder, quiet=2, workers=0, rx=skipped)
"""

# Packages that no test loads, and the tests that come with packages: a sixth of all, as the times of the files show
# that were read last.
NOT_LOADED = (
    "apprise", "backrefs", "dateparser", "fontTools", "jedi", "mypy", "mypyc", "pip", "prompt_toolkit",
    "pyasn1_modules", "pymdownx", "rich_rst", "setuptools", "tests", "tornado", "wcwidth",
)  # fmt: skip
# Packages that no test of DEPENDS_ON_PYTHON loads either: with those above, four fifths of all.
LOADED_WITH_ENGINES = (
    "IPython", "PIL", "aiohttp", "botocore", "debugpy", "libcst", "matplotlib", "moto", "narwhals", "plotly", "polars",
    "pygments", "rich", "scipy", "sklearn", "sqlalchemy",
)  # fmt: skip

# Tests of Airflow that load files and start no server. Together they take half as long as those that do.
AIRFLOW_FILES = (
    "client", "compiler*", "contract", "execution_groups", "flow*", "follow", "handover", "import",
    "import_verified", "parameters", "retry", "status", "step_runs", "sweep", "worker",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Tests that run in one process: its name, what pytest collects, the Python that runs it, and the packages that are
    not compiled for it.
    """

    name: str
    tests: Sequence[str]
    python: str | Path = sys.executable
    not_loaded: tuple[str, ...] = NOT_LOADED


def files(folder: str, names: Iterable[str]) -> list[str]:
    """The modules of tests in a folder that have one of these names, which may be patterns."""
    return sorted({str(path.relative_to(ROOT)) for name in names for path in (ROOT / folder).glob(f"test_{name}.py")})


def groups_with(engines: Iterable[str]) -> tuple[Group, ...]:
    """All tests in groups, one for each engine; the longest first, so that the last one to start is short."""
    folders = {engine: f"tests/adapters/{engine}" for engine in engines}
    others = ["tests", "--ignore=tests/unit", *(f"--ignore={folder}" for folder in folders.values())]
    airflow = folders.pop("airflow")
    airflow_files, airflow_suite = files(airflow, AIRFLOW_FILES), files(airflow, ["airflow2", "conformance*"])
    return (
        Group("airflow", [airflow, *(f"--ignore={path}" for path in (*airflow_files, *airflow_suite))]),
        Group("airflow-suite", airflow_suite),
        *(Group(engine, [folder]) for engine, folder in folders.items()),
        Group("unit", ["tests/unit", f"--ignore={MIGRATION}", "flowyml", "adapters"]),
        Group("others", others),
        Group("airflow-files", airflow_files),
        Group("migration", [MIGRATION]),
    )


GROUPS = groups_with(adapters((ROOT / "pyproject.toml").read_text()))


@dataclass(frozen=True)
class Done:
    """How a group ended: pytest's exit code, and the file that holds what it printed."""

    group: Group
    code: int
    log: Path

    @property
    def lines(self) -> list[str]:
        return self.log.read_text("utf-8", "replace").rstrip().splitlines() or ["printed nothing"]

    @property
    def failures(self) -> list[tuple[str, str]]:
        """The tests that failed, and why: what pytest's summary says of each."""
        found = [re.fullmatch(r"(?:FAILED|ERROR) ([^\s\[]+(?:\[.*?\])?)(?: - (.*))?", line) for line in self.lines]
        return [(match[1], match[2] or "") for match in found if match]


def main(options: Sequence[str]) -> int:
    os.chdir(ROOT)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    if list(options[:1]) == ["--pythons"]:
        groups, options = other_pythons(whole=True), options[1:]
    else:
        groups = (*GROUPS, *other_pythons())
    compile_packages(groups)
    jobs = int(os.environ.get("FLOWYML_TEST_JOBS") or (os.cpu_count() or 1) + 3)
    say(f"{len(groups)} groups of tests, {jobs} at a time; follow them in {LOGS.relative_to(ROOT)}/*.log")
    with ThreadPoolExecutor(jobs) as pool, tempfile.TemporaryDirectory(prefix="flowyml-") as folder:
        done = list(pool.map(lambda group: run(group, options, Path(folder)), groups))
    failed = [one for one in done if one.code not in (PASSED, NO_TEST)]
    report(done, failed)
    if done and all(one.code == NO_TEST for one in done):
        return NO_TEST
    return 1 if failed else 0


def compile_packages(groups: Iterable[Group]) -> None:
    """Once for all: tests start thousands of processes, which keep nothing where PYTHONDONTWRITEBYTECODE is set."""
    begun = time.monotonic()
    for python, not_loaded in {(group.python, group.not_loaded) for group in groups}:
        subprocess.run([python, "-c", COMPILE, *not_loaded], check=False)
    say(f"compiled the packages in {time.monotonic() - begun:.0f} s")


def other_pythons(*, whole: bool = False) -> tuple[Group, ...]:
    """A group for each other Python that there is. One whose environment cannot be made here is named and left out."""
    found, problems = pythons.made()
    say(f"Pythons: {', '.join([f'{sys.version_info[0]}.{sys.version_info[1]} (every test)', *found])}")
    for problem in problems.values():
        say(problem)
    some = [*files("tests/unit", DEPENDS_ON_PYTHON), CONFORMANCE_ON_PYTHONS]
    tests = ["tests/unit", "flowyml"] if whole else [*some, "-m", "not slow"]
    not_loaded = NOT_LOADED if whole else (*NOT_LOADED, *LOADED_WITH_ENGINES)
    return tuple(Group(f"python{version}", tests, python, not_loaded) for version, python in found.items())


def run(group: Group, options: Sequence[str], folder: Path) -> Done:
    """Run the tests of a group, with its temporary files in ``folder``: of two pytests that share a folder, each would
    remove the other's files.
    """
    (own := folder / group.name).mkdir()
    log = LOGS / f"{group.name}.log"
    command = [
        group.python, "-m", "pytest", "-o", f"cache_dir={LOGS / 'cache' / group.name}", "--durations=15",
        *group.tests, *options,
    ]  # fmt: skip
    begun = time.monotonic()
    with log.open("wb") as out:
        tests = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTEST_DEBUG_TEMPROOT": str(own)},
        )  # fmt: skip
        try:
            _, status, used = os.wait4(tests.pid, 0)  # as `wait`, and how long it kept a processor busy
        except BaseException:
            tests.kill()
            raise
    tests.returncode = code = os.waitstatus_to_exitcode(status)
    done = Done(group, code, log)
    took = f"{time.monotonic() - begun:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of a processor"
    say(f"{group.name} ({took}, exit code {code}): {done.lines[-1]}")
    return done


def report(done: Iterable[Done], failed: Sequence[Done]) -> None:
    """Print the logs of the groups that failed, and at the end which tests failed and how to run each alone."""
    for one in failed:
        print(f"\n{'=' * 30} {one.log.relative_to(ROOT)} {'=' * 30}", *one.lines, sep="\n")
    for one in done:
        print(f"{one.group.name}: {one.lines[-1].strip('= ')}")
    tests = [(one.group, test, why) for one in failed for test, why in one.failures]
    for group, test, why in tests[:SHOWN]:
        python = shlex.quote(os.path.relpath(group.python, ROOT))
        print(f"FAILED in {group.name}: {shortened(why)}", f"  {python} -m pytest {shlex.quote(test)}", sep="\n")
    if len(tests) > SHOWN:
        print(f"and {len(tests) - SHOWN} more tests, in the logs above")
    for one in failed:
        if not one.failures:
            print(
                f"FAILED in {one.group.name}: pytest ended with exit code {one.code}, see {one.log.relative_to(ROOT)}"
            )


def shortened(text: str) -> str:
    return textwrap.shorten(text, 120, placeholder=" …") or "see its log"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
