"""A program that runs several steps of a pipeline, or all of them, as they are due."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowyml import Pipeline, cleanup, for_each, pipeline, step, when
from flowyml.plan.model import Step
from flowyml.runtime.decider import OK, Decider, End, Index, Outcome, listed
from flowyml.runtime.due import run_due
from flowyml.runtime.packed_decisions import PackedEvaluator
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.step_runner import StepEvent
from tests.unit.test_decider import Recorded
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


class Program(Recorded):
    """Runs the steps of a pipeline. ``states`` are those of its steps, by label, and ``lines`` what they printed."""

    def __init__(self, made: Pipeline, folder: Path) -> None:
        plan = made.compile()
        super().__init__({each.name: each.default for each in plan.parameters})
        path = made.bundle(plan).write(folder)
        self.processes = StepProcesses(path, run_id="r", artifacts=str(folder / "store"), place="here/p/r")
        self.stop = threading.Event()
        self.decider = Decider(plan, self, PackedEvaluator(partial(self.processes.evaluate, stop=self.stop)))
        self.states: dict[tuple[str, Index], list[str]] = {}
        self.lines: list[tuple[str, Index, str, str]] = []
        self.is_stopped = False

    def end(self, step: str, index: Index) -> Outcome | None:
        is_given_up = self.is_stopped and step != "tidy"
        return super().end(step, index) or (Outcome(End.FAILED, "the run was stopped") if is_given_up else None)

    def run(self, *, is_cleanup: bool) -> None:
        structure = self.decider.structure
        steps = [step.name for step in self.decider.plan if structure.is_cleanup(step.group) is is_cleanup]
        run_due(self.decider, steps, self.processes, on_event=self.on_event, on_line=self.on_line, stop=self.stop)

    def on_event(self, event: StepEvent) -> None:
        self.states.setdefault((event.step.name, event.index), []).append(event.state)
        if event.outcome:
            self.ends[event.step.name, event.index] = event.outcome
            self.outputs[event.step.name, event.index] = event.outputs

    def on_line(self, step: Step, index: Index, source: str, line: str) -> None:
        self.lines.append((step.name, index, source, line))
        if line == "stop me":
            self.stop.set()


@step
def numbers() -> list[int]:
    return [1, 2]


@step(execution_group="pair")
def first(n: int) -> int:
    return os.getpid() * n // n


@step(execution_group="pair", retry=1)
def last(pid: int) -> bool:
    if not Path(f"failed-{os.getpid()}").exists():
        Path(f"failed-{os.getpid()}").touch()
        raise ValueError("once")
    return pid == os.getpid()


@step(timeout=0.5)
def slow() -> None:
    time.sleep(60)


@step
def unlucky(after: int) -> int:
    raise ValueError("no")


@step(run_if="always")
def report(value: int = 5) -> int:
    print("reporting")
    return value


@step
def halt() -> int:
    print("stop me", flush=True)
    time.sleep(60)
    return 1


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Program]:
    monkeypatch.chdir(tmp_path)
    made = Program(request.param, tmp_path)
    with made.processes:
        yield made


@pipeline
def everything() -> Any:
    with for_each(numbers()) as n:
        in_process = last(first(n))
    with for_each([]) as n:
        report.options(name="none")(n)
    failed = unlucky(report.options(name="one")(1))
    report.options(name="not run", run_if="all_success")(failed)
    slow()
    with cleanup():
        report.options(name="tidy")(7)
    return {"in process": in_process, "reported": report(failed), "failed": failed}


@pytest.mark.parametrize("program", [everything], indirect=True)
def test_a_program_runs_a_whole_pipeline(program: Program) -> None:
    program.run(is_cleanup=False)
    assert ("tidy", ()) not in program.ends
    program.run(is_cleanup=True)
    assert program.ends["tidy", ()] == OK
    outputs = {name: listed(value) for name, value in program.decider.outputs().items()}
    assert outputs == {"in process": [True, True], "reported": 5}, "also the second attempt is in the group's process"
    assert program.states["last", (0,)] == ["running", "running", "running", "completed"]  # a failed attempt is one too
    ends = {name: states[-1] for (name, _), states in program.states.items()}
    assert (ends["none"], ends["unlucky"], ends["not run"]) == ("no_items", "failed", "upstream_failed")
    assert ends["slow"] == "timeout"
    assert ("report", (), "stdout", "reporting") in program.lines


@pipeline
def stopped() -> Any:
    report.options(run_if="all_success")(halt())
    with cleanup():
        report.options(name="tidy")(7)


@pytest.mark.parametrize("program", [stopped], indirect=True)
def test_a_step_that_is_stopped_has_no_end_and_clean_ups_follow(program: Program) -> None:
    program.run(is_cleanup=False)
    assert program.states == {("halt", ()): ["running"]}
    program.is_stopped, program.stop = True, threading.Event()
    program.run(is_cleanup=True)
    assert program.ends == {("tidy", ()): OK}


@pytest.mark.parametrize("program", [stopped], indirect=True)
def test_it_ends_with_the_processes_that_it_was_given(program: Program) -> None:
    program.processes.close()
    program.run(is_cleanup=False)
    assert program.states == {("halt", ()): ["running"]}


@step(execution_group="pair")
def fail(n: int) -> int:
    raise ValueError(n)


@pipeline
def failing_groups() -> None:
    with for_each([1, 2, 3]) as n:
        report.options(run_if="all_success", execution_group="pair")(fail(n))


@pytest.mark.parametrize("program", [failing_groups], indirect=True)
def test_the_process_of_a_group_ends_although_its_last_step_does_not_run(program: Program) -> None:
    program.run(is_cleanup=False)
    assert [program.states["report", (n,)] for n in range(3)] == [["upstream_failed"]] * 3
    (warm,) = psutil.Process().children()
    assert warm.children() == []


class Sluggish:
    def __gt__(self, other: object) -> bool:
        Path("compares").touch()
        time.sleep(60)
        return True


@step
def sluggish() -> Any:
    return Sluggish()


@pipeline
def slow_condition() -> None:
    with when(sluggish() > 0):
        report()


@pytest.mark.parametrize("program", [slow_condition], indirect=True)
def test_a_condition_is_stopped(program: Program) -> None:
    running = threading.Thread(target=program.run, kwargs={"is_cleanup": False})
    running.start()
    wait_until(Path("compares").exists, "the condition is evaluated")
    program.stop.set()
    running.join(20)
    assert not running.is_alive()
    assert program.states == {("sluggish", ()): ["running", "completed"]}
    assert program.decider.faults == []
