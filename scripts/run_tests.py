"""Run the tests in groups, some beside one another: `python scripts/run_tests.py -k retry`; options go to pytest.

One process a group, since each starts its engine once, and mostly waits for it. FLOWYML_TEST_JOBS says how many groups
run at a time: one more than there are processors, unless it says otherwise.

A test that fails has failed. Only those in FLAKY, each with its reason, run again, at most twice, when all groups are
done and the machine has nothing else to do; what passes then is named at the very end.

On every other Python of this machine, the tests run again whose outcome depends on the Python; with `--pythons` as the
first option, these groups alone run, with all tests that need no engine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pythons

from adapters import adapters

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".venv" / "tests"
MIGRATION = "tests/unit/migration"
PASSED, FAILED, NO_TEST = 0, 1, 5
TRIES = 3

# Tests that may fail at first, by their id, and why they cannot be made stable: see "Run a part of the tests" in
# CONTRIBUTING.md before you add one.
FLAKY: Mapping[str, str] = {}

# What depends on the Python: how functions, values and modules travel, processes, forks and threads.
DEPENDS_ON_PYTHON = (
    "authoring_*", "bundle", "cache*", "execution", "loading", "local_conformance", "local_detached*", "local_outputs",
    "local_prints", "local_processes", "local_runs", "local_shared_state", "local_stopping", "local_store",
    "local_travelling", "local_values", "pickling", "runtime_cli", "sources", "step_processes*", "types", "typing",
    "unguarded",
)  # fmt: skip

# Run by the Python whose packages it compiles, but for the tests that come with them.
COMPILE = """
import compileall, re, sysconfig
for folder in (sysconfig.get_path("purelib"), "flowyml", "adapters"):
    compileall.compile_dir(folder, quiet=2, workers=0, rx=re.compile("/tests/"))
"""


# Tests of Airflow that load files and start no server. They take as long as half of those that do.
AIRFLOW_FILES = (
    "client", "compiler*", "contract", "execution_groups", "flow*", "follow", "handover", "import",
    "import_verified", "parameters", "retry", "status", "step_runs", "sweep", "worker",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Tests that run in one process: its name, what pytest collects, and the Python that runs it."""

    name: str
    tests: Sequence[str]
    python: str | Path = sys.executable


def files(folder: str, names: Iterable[str]) -> list[str]:
    """The modules of tests in a folder that have one of these names, which may be patterns."""
    return sorted({str(path.relative_to(ROOT)) for name in names for path in (ROOT / folder).glob(f"test_{name}.py")})


def groups_with(engines: Iterable[str]) -> tuple[Group, ...]:
    """All tests in groups, one for each engine; the longest first, so that the last one to start is short."""
    folders = {engine: f"tests/adapters/{engine}" for engine in engines}
    others = ["tests", "--ignore=tests/unit", *(f"--ignore={folder}" for folder in folders.values())]
    airflow = folders.pop("airflow")
    airflow_files = files(airflow, AIRFLOW_FILES)
    return (
        Group("airflow", [airflow, *(f"--ignore={path}" for path in airflow_files)]),
        *(Group(engine, [folder]) for engine, folder in folders.items()),
        Group("unit", ["tests/unit", f"--ignore={MIGRATION}", "flowyml", "adapters"]),
        Group("others", others),
        Group("airflow-files", airflow_files),
        Group("migration", [MIGRATION]),
    )


GROUPS = groups_with(adapters((ROOT / "pyproject.toml").read_text()))


@dataclass(frozen=True)
class Done:
    """How a group ended: pytest's exit code, the file that holds what it printed, and the tests that failed."""

    group: Group
    code: int
    log: Path
    failures: tuple[str, ...]


def main(options: Sequence[str]) -> int:
    os.chdir(ROOT)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    alone = list(options[:1]) == ["--pythons"]
    groups, options = (other_pythons(whole=True), options[1:]) if alone else ((*GROUPS, *other_pythons()), options)
    compile_packages(groups)
    jobs = int(os.environ.get("FLOWYML_TEST_JOBS") or (os.cpu_count() or 1) + 1)
    say(f"{len(groups)} groups of tests, {jobs} at a time; follow them in {LOGS.relative_to(ROOT)}/*.log")
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda group: run(group, options), groups))
    failed = [one for one in done if one.code not in (PASSED, NO_TEST)]
    again = [tried_again(one, options) for one in failed]
    broken = [one for one in again if one.code != PASSED]
    report(failed, again, broken)
    name_flaky([test for one, last in zip(failed, again, strict=True) if last.code == PASSED for test in one.failures])
    if done and all(one.code == NO_TEST for one in done):
        return NO_TEST
    return 1 if broken else 0


def compile_packages(groups: Iterable[Group]) -> None:
    """Once for all: tests start thousands of processes, which keep nothing where PYTHONDONTWRITEBYTECODE is set."""
    begun = time.monotonic()
    for python in {str(group.python) for group in groups}:
        subprocess.run([python, "-c", COMPILE], check=False)
    say(f"compiled the packages in {time.monotonic() - begun:.0f} s")


def other_pythons(*, whole: bool = False) -> tuple[Group, ...]:
    """A group for each other Python that there is. One whose environment cannot be made here is named and left out."""
    found, problems = pythons.made()
    say(f"Pythons: {', '.join([f'{sys.version_info[0]}.{sys.version_info[1]} (every test)', *found])}")
    for problem in problems.values():
        say(problem)
    some = files("tests/unit", DEPENDS_ON_PYTHON)
    tests = ["tests/unit", "flowyml"] if whole else [*some, "-m", "not slow"]
    return tuple(Group(f"python{version}", tests, python) for version, python in found.items())


def tried_again(done: Done, options: Sequence[str]) -> Done:
    """Run what failed again if all of it is listed as flaky, until it passes or there were enough tries."""
    for number in range(2, TRIES + 1):
        if done.code != FAILED or not done.failures or any(test not in FLAKY for test in done.failures):
            break
        done = run(done.group, options, number)
    return done


def run(group: Group, options: Sequence[str], number: int = 1) -> Done:
    """Run the tests of a group, or at a later try those of them that failed."""
    log = LOGS / f"{group.name}{f'-{number}' if number > 1 else ''}.log"
    cache = LOGS / "cache" / group.name
    command = [
        group.python, "-m", "pytest", "-o", f"cache_dir={cache}", "--durations=15",
        *group.tests, *options, *(["--last-failed", "--last-failed-no-failures=none"] if number > 1 else []),
    ]  # fmt: skip
    begun = time.monotonic()
    with log.open("wb") as out:
        tests = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            _, status, used = os.wait4(tests.pid, 0)  # as `wait`, and how long it kept a processor busy
        except BaseException:
            tests.kill()
            raise
    tests.returncode = code = os.waitstatus_to_exitcode(status)
    lines = log.read_text("utf-8", "replace").splitlines() or ["printed nothing"]
    took = f"{time.monotonic() - begun:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of a processor"
    say(f"{log.stem} ({took}, exit code {code}): {lines[-1]}")
    return Done(group, code, log, failures(cache))


def failures(cache: Path) -> tuple[str, ...]:
    """The tests that failed, as pytest keeps them for ``--last-failed``."""
    try:
        return tuple(json.loads((cache / "v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return ()


def name_flaky(tests: Sequence[str]) -> None:
    """Print the listed tests that passed at a later try only."""
    if tests:
        print(f"\n{'!' * 30} PASSED AT A LATER TRY ONLY {'!' * 30}")
    for test in tests:
        say(f"WARNING: {test}\n         flaky: {FLAKY[test]}")


def report(failed: Iterable[Done], again: Iterable[Done], broken: Iterable[Done]) -> None:
    """Print what a reader needs: the logs of the groups that failed, of their first and of their last try."""
    for one in {one.log: one for one in (*failed, *again)}.values():
        print(f"\n{'=' * 30} {one.log.relative_to(ROOT)} {'=' * 30}")
        print(one.log.read_text("utf-8", "replace"))
    for one in failed:
        verdict = "failed" if any(other.group == one.group for other in broken) else "passed at a later try"
        say(f"{one.group.name}: {verdict}")
    for log in sorted(LOGS.glob("*.log")):
        lines = log.read_text("utf-8", "replace").splitlines() or [""]
        print(f"{log.stem}: {lines[-1].strip('= ')}")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
