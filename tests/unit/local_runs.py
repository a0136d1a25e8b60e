"""Pipelines and questions that several tests of the local orchestrator share."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators import LocalOrchestrator
from tests.waiting import wait_until

COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED
WORKERS = ["threads", pytest.param("processes", marks=pytest.mark.processes)]  # where the steps of a local run may run


def chain(length: int) -> Pipeline:
    pipeline = Pipeline(f"chain of {length}")
    pipeline.add_step(step(name="s0", outputs=["v0"])(lambda: 0))
    for number in range(1, length):
        pipeline.add_step(_add_one(number))
    return pipeline


def _add_one(number: int) -> Any:
    names: dict[str, Any] = {}
    exec(f"def add(v{number - 1}): return v{number - 1} + 1", names)  # inputs go by the name of the argument
    return step(name=f"s{number}", outputs=[f"v{number}"])(names["add"])


def beating(folder: Path, seconds: float = 600) -> Pipeline:
    """One step that notes its process id and beats, until there is a file ``enough``; a second one that never gets its
    turn."""
    place = str(folder)

    @step(outputs=["done"])
    def beat() -> bool:
        import os
        import pathlib

        (pathlib.Path(place) / "pid").write_text(f"{os.getpid()}\n")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (pathlib.Path(place) / "enough").exists():
            with (pathlib.Path(place) / "beats").open("a") as file:
                file.write("x")
            time.sleep(0.02)
        return True

    @step
    def after(done: bool) -> None:
        return

    return Pipeline("beating").add_step(beat).add_step(after)


def process_id(folder: Path) -> int:
    path = folder / "pid"
    return int(wait_until(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text()))


def finished(local: LocalOrchestrator, run_id: str) -> Any:
    return local.attach(run_id).wait_for_completion(timeout=2400, poll_interval=0.1)


def cancelling(local: LocalOrchestrator, run_id: str, steps: int) -> threading.Thread:
    """Cancels a run from another thread as soon as so many of its steps run."""

    def runs() -> bool:
        row = local.store.find(run_id)
        return row is not None and sum(step.status == "RUNNING" for step in local.store.steps(row.number)) >= steps

    thread = threading.Thread(target=lambda: (wait_until(runs), local.cancel(run_id)))
    thread.start()
    return thread


class Jumping:
    """The module ``time``, with a clock that jumps once a file is there: processes take their time to start.

    The file ``looks`` grows with each look at the clock. A step that waits for that before it makes the mark knows that
    its timeout is counted from before the jump.
    """

    def __init__(self, mark: Path, looks: Path) -> None:
        self.mark, self.looks = mark, looks
        looks.touch()

    def monotonic(self) -> float:
        with self.looks.open("ab") as file:
            file.write(b".")
        return time.monotonic() + 1000 * self.mark.exists()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
