"""An ended run, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import LogLine, Run, StepRun
from flowyml.core.submission_result import SubmissionResult

__all__ = ["CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "Done"]

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
CANCELLED, TIMEOUT = ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT


@dataclass(frozen=True)
class Done:
    """The part of a sample pipeline in an ended run, and the folder that its steps used.

    ``prefix`` precedes the names of its steps if several samples share the run; here they have their own names.
    ``steps`` are step runs by label, such as ``train[3]`` for an item; ``trace`` has the lines that steps wrote to the
    file of that name, in order. Everything is read once, since several tests may use one run.
    """

    run: SubmissionResult
    folder: Path
    prefix: str = ""

    @cached_property
    def record(self) -> Run:
        return self.run.run

    @cached_property
    def steps(self) -> Mapping[str, StepRun]:
        runs = (replace(run, name=self._own(run.name)) for run in self.run.step_runs() if self._has(run.name))
        return {run.label: run for run in runs}

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs of a run that has completed; for any other, the test fails with the run's error and steps."""
        assert self.record.status is COMPLETED, (self.record.error, self.run.step_statuses())
        return {self._own(name): value for name, value in self.run.outputs.items() if self._has(name)}

    @cached_property
    def log(self) -> Sequence[LogLine]:
        """The lines of its steps."""
        lines = (line for line in self.run.logs() if self._has(line.step))
        return [replace(line, step=self._own(line.step)) for line in lines]

    def log_of(self, step: str, index: int) -> Sequence[str]:
        """Return the log of one item of a step, from a request for that item."""
        return [line.message for line in self.run.logs(step=f"{self.prefix}{step}", index=index)]

    @cached_property
    def trace(self) -> Sequence[str]:
        path = self.folder / "trace"
        return [self._own(line) for line in path.read_text().splitlines()] if path.exists() else []

    def statuses(self, *names: str) -> Mapping[str, ExecutionStatus]:
        """Return the statuses of all items of these steps, by label."""
        return {label: run.status for label, run in self.steps.items() if run.name in names}

    def index(self, line: str) -> int:
        """Return the position of a line in the trace; fails unless the line occurs exactly once."""
        assert self.trace.count(line) == 1, f"{line!r} in {self.trace}"
        return self.trace.index(line)

    def _has(self, name: str) -> bool:
        return name.startswith(self.prefix)

    def _own(self, name: str) -> str:
        return name.removeprefix(self.prefix)
