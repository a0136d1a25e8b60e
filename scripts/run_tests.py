"""Run the tests in groups, some beside one another: `python scripts/run_tests.py -k retry`; options go to pytest.

One process a group, since each starts its engine once, and mostly waits for it. What failed runs once more when all
groups are done, with the machine to itself: a test that passes then failed for the load, which is printed, and one that
fails again has failed. FLOWYML_TEST_JOBS says how many groups run at a time.

The tests without an engine, the conformance suite on local among them, run once more on every other Python of this
machine: a group each, and with `--pythons` as the first option these groups alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pythons

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".venv" / "tests"
ENGINES = {engine: f"tests/adapters/{engine}" for engine in ("airflow", "prefect", "kubeflow")}
PASSED, FAILED, NO_TEST = 0, 1, 5


@dataclass(frozen=True)
class Group:
    """Tests that run in one process: its name, what pytest collects, and the Python that runs it."""

    name: str
    tests: Sequence[str]
    python: str | Path = sys.executable


# The longest first, so that the last one to start is short.
GROUPS = (
    Group("airflow", [ENGINES["airflow"]]),
    Group("others", [f"--ignore={folder}" for folder in ENGINES.values()]),
    Group("prefect", [ENGINES["prefect"]]),
    Group("kubeflow", [ENGINES["kubeflow"]]),
)


@dataclass(frozen=True)
class Done:
    """How a group ended: pytest's exit code, and the file that holds what it printed."""

    group: Group
    code: int
    log: Path


def main(options: Sequence[str]) -> int:
    os.chdir(ROOT)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    alone = list(options[:1]) == ["--pythons"]
    groups, options = (other_pythons(), options[1:]) if alone else ((*GROUPS, *other_pythons()), options)
    jobs = int(os.environ.get("FLOWYML_TEST_JOBS") or 2)
    say(f"{len(groups)} groups of tests, {jobs} at a time; follow them in {LOGS.relative_to(ROOT)}/*.log")
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda group: run(group, options), groups))
    failed = [one for one in done if one.code not in (PASSED, NO_TEST)]
    again = [run(one.group, options, again=True) for one in failed if one.code == FAILED]
    broken = [one for one in failed if one.code != FAILED] + [one for one in again if one.code != PASSED]
    report(failed, again, broken)
    if done and all(one.code == NO_TEST for one in done):
        return NO_TEST
    return 1 if broken else 0


def other_pythons() -> tuple[Group, ...]:
    """A group for each other Python that there is. One whose environment cannot be made here is named and left out."""
    found, problems = pythons.made()
    say(f"Pythons: {', '.join([f'{sys.version_info[0]}.{sys.version_info[1]} (every test)', *found])}")
    for problem in problems.values():
        say(problem)
    return tuple(Group(f"python{version}", ["tests/unit", "flowyml"], python) for version, python in found.items())


def run(group: Group, options: Sequence[str], *, again: bool = False) -> Done:
    """Run the tests of a group, or those of them that failed."""
    log = LOGS / f"{group.name}{'-again' if again else ''}.log"
    command = [
        group.python, "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{group.name}", "--durations=15",
        *group.tests, *options, *(["--last-failed", "--last-failed-no-failures=none"] if again else []),
    ]  # fmt: skip
    begun = time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    lines = log.read_text("utf-8", "replace").splitlines() or ["printed nothing"]
    say(f"{log.stem} ({time.monotonic() - begun:.0f} s, exit code {done.returncode}): {lines[-1]}")
    return Done(group, done.returncode, log)


def report(failed: Iterable[Done], again: Iterable[Done], broken: Iterable[Done]) -> None:
    """Print what a reader needs: the logs of the groups that failed, then what passed at the second try."""
    for one in (*failed, *again):
        print(f"\n{'=' * 30} {one.log.relative_to(ROOT)} {'=' * 30}")
        print(one.log.read_text("utf-8", "replace"))
    for one in failed:
        verdict = "failed" if any(other.group == one.group for other in broken) else "passed alone"
        say(f"{one.group.name}: {verdict}")
    for log in sorted(LOGS.glob("*.log")):
        lines = log.read_text("utf-8", "replace").splitlines() or [""]
        print(f"{log.stem}: {lines[-1].strip('= ')}")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
