"""Run the tests in groups, some beside one another: `python scripts/run_tests.py -k retry`; options go to pytest.

One process a group, since each starts its engine once, and mostly waits for it. FLOWYML_TEST_JOBS says how many groups
run at a time: one more than there are processors, unless it says otherwise.

Tests start real engines and processes with deadlines, and a machine that has too much to do at that moment misses one
now and then. So what failed runs again, at most twice, when all groups are done, with the machine to itself. What fails
then has failed. What passes is printed as a warning at the very end, by name: it is a fault of the test or of FlowyML
until somebody has found out. With FLOWYML_TEST_STRICT=1 it has failed too, unless FLAKY names it with a reason. That is
not the rule yet, since no series of runs on a busy machine has shown that it could be kept.

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

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".venv" / "tests"
ENGINES = {engine: f"tests/adapters/{engine}" for engine in ("airflow", "prefect", "kubeflow")}
PASSED, FAILED, NO_TEST = 0, 1, 5
TRIES = 3

# Tests that may pass at a later try only, by their id, and why they cannot be made stable.
FLAKY: Mapping[str, str] = {}

# What depends on the Python: how functions, values and modules travel, processes, forks and threads.
DEPENDS_ON_PYTHON = (
    "authoring_*", "bundle", "execution", "loading", "local_*", "pickling", "runtime_cli", "sources", "step_processes*",
    "types", "typing", "unguarded",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Tests that run in one process: its name, what pytest collects, and the Python that runs it."""

    name: str
    tests: Sequence[str]
    python: str | Path = sys.executable


# The longest first, so that the last one to start is short.
GROUPS = (
    Group("airflow", [ENGINES["airflow"]]),
    Group("prefect", [ENGINES["prefect"]]),
    Group("unit", ["tests/unit", "flowyml", "adapters"]),
    Group("kubeflow", [ENGINES["kubeflow"]]),
    Group("others", ["tests", "--ignore=tests/unit", *(f"--ignore={folder}" for folder in ENGINES.values())]),
)


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
    jobs = int(os.environ.get("FLOWYML_TEST_JOBS") or (os.cpu_count() or 1) + 1)
    say(f"{len(groups)} groups of tests, {jobs} at a time; follow them in {LOGS.relative_to(ROOT)}/*.log")
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda group: run(group, options), groups))
    failed = [one for one in done if one.code not in (PASSED, NO_TEST)]
    again = [last_try(one, options) for one in failed]
    broken = [one for one in again if one.code != PASSED]
    report(failed, again, broken)
    still = {test for one in again for test in one.failures}
    unlisted = warn([test for one in failed for test in one.failures if test not in still])
    if done and all(one.code == NO_TEST for one in done):
        return NO_TEST
    return 1 if broken or (unlisted and os.environ.get("FLOWYML_TEST_STRICT")) else 0


def other_pythons(*, whole: bool = False) -> tuple[Group, ...]:
    """A group for each other Python that there is. One whose environment cannot be made here is named and left out."""
    found, problems = pythons.made()
    say(f"Pythons: {', '.join([f'{sys.version_info[0]}.{sys.version_info[1]} (every test)', *found])}")
    for problem in problems.values():
        say(problem)
    some = sorted(str(path) for name in DEPENDS_ON_PYTHON for path in Path("tests/unit").glob(f"test_{name}.py"))
    tests = ["tests/unit", "flowyml"] if whole else [*some, "-m", "not slow"]
    return tuple(Group(f"python{version}", tests, python) for version, python in found.items())


def last_try(done: Done, options: Sequence[str]) -> Done:
    """Run what failed again, until it passes or there were enough tries. Tests that could not be collected stay so."""
    for number in range(2, TRIES + 1):
        if done.code != FAILED:
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
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    lines = log.read_text("utf-8", "replace").splitlines() or ["printed nothing"]
    say(f"{log.stem} ({time.monotonic() - begun:.0f} s, exit code {done.returncode}): {lines[-1]}")
    return Done(group, done.returncode, log, failures(cache))


def failures(cache: Path) -> tuple[str, ...]:
    """The tests that failed, as pytest keeps them for ``--last-failed``."""
    try:
        return tuple(json.loads((cache / "v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return ()


def warn(later: Sequence[str]) -> list[str]:
    """Print the tests that passed at a later try only; gives those that no reason is known for."""
    if later:
        print(f"\n{'!' * 30} PASSED AT A LATER TRY ONLY, with the machine to itself {'!' * 30}")
    for test in later:
        why = FLAKY.get(test, "not known: its first failure is above. Fix it, or name it in FLAKY with the reason.")
        say(f"WARNING: {test}\n         {why}")
    return [test for test in later if test not in FLAKY]


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
