"""An execution group that is killed while its second step works, on any engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowyml import Pipeline, pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.submission_result import SubmissionResult

__all__ = ["interrupted", "names_in", "statuses", "worker_of"]


def interrupted(name: str, folder: str, hooks: Sequence[PipelineHook] = ()) -> Pipeline:
    """``slow`` waits to be killed, until there is a file called ``fixed``. Each step notes its name and its process."""

    def note(step_name: str) -> int:
        import os

        with (Path(folder) / "trace").open("a") as file:
            file.write(f"{step_name} {os.getpid()}\n")
        return 1

    @step(execution_group="group")
    def first() -> int:
        return note("first")

    @step(execution_group="group")
    def slow(first: int) -> int:
        import time

        noted = note("slow")
        while not (Path(folder) / "fixed").exists():
            time.sleep(0.1)
        return first + noted

    @step(execution_group="group")
    def third(slow: int) -> int:
        return slow + note("third")

    @step
    def after(third: int) -> int:
        return third + note("after")

    @pipeline(name=name, hooks=list(hooks))
    def made() -> Any:
        return {"after": after(third(slow(first())))}

    return made


def worker_of(folder: Path) -> int | None:
    """The process in which ``slow`` works; None before it does."""
    lines = [line.split() for line in _lines(folder)]
    return next((int(words[1]) for words in lines if words[0] == "slow" and len(words) == 2), None)


def names_in(folder: Path) -> list[str]:
    """The steps that began, in order."""
    return [line.split()[0] for line in _lines(folder)]


def statuses(handle: SubmissionResult) -> dict[str, tuple[ExecutionStatus, int]]:
    """The status and the attempt of each step."""
    return {run.name: (run.status, run.attempt) for run in handle.step_runs()}


def _lines(folder: Path) -> list[str]:
    path = folder / "trace"
    return path.read_text().splitlines() if path.exists() else []
