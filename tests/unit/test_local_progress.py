"""What a run shows on the terminal, on a real (pseudo) one."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pexpect
import pytest
from rich.console import Console

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.progress import show_progress
from flowyml.core.runs import Run, StepRun

pytestmark = pytest.mark.processes

RUNNING, COMPLETED, FAILED = ExecutionStatus.RUNNING, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

SCRIPT = """
import sys, time
from pathlib import Path
from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator

@step(outputs=["a"])
def talk():
    for number in range(6):
        print(f"[bold]{{number}} says talk")
    while not Path({seen!r}).exists():
        time.sleep(0.05)
    return 1

@step
def fail(a):
    raise ValueError("bad luck")

pipeline = Pipeline("shown").add_step(talk).add_step(fail)
local = LocalOrchestrator(store={store!r})
if sys.argv[1:] == ["run"]:
    result = pipeline.run(on=local)
else:
    result = pipeline.submit(on=local).wait_for_completion(poll_interval=0.1)
print("it", result.status)
"""


def on_a_terminal(tmp_path: Path, mode: str, until: str, **env: str) -> str:
    """All that is shown; the step goes on once ``until`` is."""
    script, seen, shown = tmp_path / "shown.py", tmp_path / "seen", StringIO()
    script.write_text(textwrap.dedent(SCRIPT.format(store=str(tmp_path / "runs.db"), seen=str(seen))))
    child = pexpect.spawn(
        sys.executable, ["-W", "error", str(script), mode],
        dimensions=(24, 100), encoding="utf-8", timeout=240, env={**os.environ, "TERM": "xterm-256color", **env},
    )  # fmt: skip
    child.logfile_read = shown
    child.expect(until)
    seen.touch()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    return shown.getvalue()


@pytest.mark.parametrize("mode", ["run", "submit"])
def test_steps_are_drawn_live(tmp_path: Path, mode: str) -> None:
    text = on_a_terminal(tmp_path, mode, until="[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]")
    plain = CONTROL.sub("", text)
    assert "\x1b[2K" in text
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] talk +[\d.]+ s", plain)
    assert re.search(r"✓ talk +[\d.]+ s +\r?\n✗ fail +[\d.]+ s +ValueError: bad luck", plain)
    assert plain.rstrip().endswith("it FAILED")
    assert mode == "submit" or all(f"[bold]{number} says talk" in plain for number in range(6))


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    text = on_a_terminal(tmp_path, "run", until="5 says talk", FLOWYML_PROGRESS="0")
    assert "\x1b" not in text
    assert text.splitlines()[:2] == ["[bold]0 says talk", "[bold]1 says talk"]


def steps(*statuses: ExecutionStatus) -> list[StepRun]:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        StepRun(
            name=f"s{number}", status=status, raw_status="", started_at=begun,
            ended_at=begun.replace(second=2) if status.is_terminal else None,
        )
        for number, status in enumerate(statuses)
    ]  # fmt: skip


RUN = Run(job_id="j", run_id="r", pipeline="p", status=RUNNING, raw_status="running")


def test_without_a_terminal_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("p", "r") as update:
        update(RUN, steps(RUNNING, ExecutionStatus.QUEUED))
        update(RUN, steps(COMPLETED, RUNNING))
        update(RUN, steps(COMPLETED, RUNNING))
        update(replace(RUN, status=COMPLETED), steps(COMPLETED, COMPLETED))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "p r RUNNING", "p r: s0 RUNNING", "p r: s0 COMPLETED after 2 s", "p r: s1 RUNNING",
        "p r: s1 COMPLETED after 2 s", "p r COMPLETED",
    ]  # fmt: skip


def items(name: str, *statuses: ExecutionStatus) -> list[StepRun]:
    return [
        StepRun(
            name=name, status=status, raw_status="", index=(n,),
            error=f"ValueError: no {n}, whatever is tried" if status is FAILED else None,
        )
        for n, status in enumerate(statuses)
    ]  # fmt: skip


def drawn_at(width: int, seen: list[StepRun]) -> list[str]:
    file = StringIO()
    with show_progress("p", "r", console=Console(file=file, width=width, height=24)) as update:
        update(RUN, seen)
    return [line.rstrip() for line in file.getvalue().splitlines()[1:]]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_items_are_one_line_and_those_that_failed_have_their_own(width: int) -> None:
    name = "train_with_a_long_name"
    seen = [*steps(COMPLETED), *items(name, COMPLETED, FAILED, *[RUNNING] * 98)]
    lines = drawn_at(width, seen)
    assert len(lines) == 3
    assert [line.split()[0] for line in lines] == ["✓", "✗", "✗"]
    assert " 2 of 100 " in lines[1]
    assert lines[1].endswith("1 failed")
    assert "[1]" in lines[2]
    assert "ValueError" in lines[2]
    assert (name in lines[1]) == (width >= 80)


def test_of_many_items_that_failed_the_first_are_shown() -> None:
    lines = drawn_at(80, items("train", *[FAILED] * 1000))
    assert lines[0] == "✗ train 1000 of 1000  1000 failed, the first 5 are shown"
    assert [line.split()[1] for line in lines[1:]] == [f"train[{n}]" for n in range(5)]


def test_without_a_terminal_a_loop_is_a_line_for_each_change_and_each_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_progress("p", "r") as update:
        update(RUN, items("train", *[ExecutionStatus.QUEUED] * 3))
        update(RUN, items("train", COMPLETED, RUNNING, RUNNING))
        update(RUN, items("train", COMPLETED, FAILED, RUNNING))
        update(replace(RUN, status=FAILED), items("train", COMPLETED, FAILED, COMPLETED))
    assert capsys.readouterr().err.splitlines() == [
        "p r RUNNING", "p r: train RUNNING", "p r: train FAILED", "p r: train[1] FAILED", "p r FAILED",
    ]  # fmt: skip


def test_of_many_steps_those_that_matter_are_drawn() -> None:
    lines = drawn_at(80, steps(*[COMPLETED] * 500, FAILED, RUNNING, *[ExecutionStatus.QUEUED] * 500))
    drawn = "\n".join(lines)
    assert all(shown in drawn for shown in ("501 of 1002 steps done", "s500", "s501", "s499"))
    assert "s10 " not in drawn
    assert len(lines) < 23
