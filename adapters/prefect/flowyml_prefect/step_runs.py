"""The steps of a run, and the items of those in loops, from its task runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.item_names import checked_items, labelled
from flowyml.core.runs import StepRun
from flowyml.core.web import parsed
from flowyml.plan.model import Plan
from flowyml_prefect.messages import cached_from, error_text, task_runs
from flowyml_prefect.records import FlowRun, TaskRun
from flowyml_prefect.status import step_status_of

__all__ = [
    "AWAITED",
    "ITEMS",
    "RETRIED",
    "RETRY",
    "TASK_RUNS",
    "Planned",
    "after_the_end",
    "index_of",
    "planned_rows",
    "recorded_runs",
    "step_runs",
    "went_wrong",
]

ITEMS = "flowyml.items."
"""The beginning of a label of a flow run, before the name of a loop: the number of items, while some have not begun."""

TASK_RUNS = "flowyml.task_runs"
"""The label with the number of task runs of a run with control flow.

A completed run has the number in the message of its state instead, which takes no request of its own: a busy server
refuses labels at first.
"""

AWAITED = "flowyml.task_runs_awaited"
"""The label with the number of task runs that a run had when it was retried, some of which may not be recorded yet."""

RETRY = "flowyml.retry"
"""The label with the steps to run again in a retry: names as JSON, or null."""

RETRIED = "flowyml.retried"
"""The label with the time of the last retry: Prefect's start of a run is that of its first attempt."""

_NOT_RUN: Mapping[tuple[str, str], str] = {
    ("COMPLETED", "Skipped"): "skipped",
    ("COMPLETED", "NoItems"): "no_items",
    ("CANCELLED", "NotReady"): "upstream_failed",
}
_UNRECORDED = "Prefect has not recorded how it ended"
_INDEX = re.compile(r"(\[\d{1,9}\]){0,100}")

Index = tuple[int, ...]


class Planned(NamedTuple):
    """A step of the run's version, the function of its task, and the loops around it, outermost first."""

    step: str
    function: str
    loops: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Planned:
        """Read a row of ``planned_rows``."""
        return cls(str(row["step"]), str(row["task"]), tuple(map(str, parsed((row.get("loops") or "[]").encode()))))


def planned_rows(plan: Plan, functions: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the steps of a version as the rows of a table."""
    rows = []
    for step in plan:
        row = {"step": step.name, "after": ", ".join(step.upstream), "task": functions[step.name]}
        loops = [loop.name for loop in plan.structure.loops(step.group)]
        rows.append({**row, "loops": json.dumps(loops)} if loops else row)
    return rows


def recorded_runs(run: FlowRun) -> int:
    """Return the number of task runs of an ended run, some of which Prefect may not have recorded yet; 0 if unknown."""
    label = run.labels.get(TASK_RUNS)
    return max(label if isinstance(label, int) else 0, task_runs(run.message) or 0)


def index_of(task: TaskRun, step: str) -> Index:
    """Return the item of a task run: its name is the step's, followed by the index."""
    rest = task.name.removeprefix(step)
    return tuple(map(int, re.findall(r"\d+", rest))) if _INDEX.fullmatch(rest) else ()


def step_runs(plan: Sequence[Planned], tasks: Iterable[TaskRun], labels: Mapping[str, Any]) -> list[StepRun]:
    """Return all steps in the plan's order, with the items that are expected."""
    by_function: dict[str, dict[Index, TaskRun]] = {}
    steps = {planned.function: planned.step for planned in plan}
    for task in tasks:  # those of a retry come later
        mine, index = by_function.setdefault(task.function, {}), index_of(task, steps.get(task.function, task.name))
        attempts = 0 if (task.state_type, task.state_name) in _NOT_RUN else task.run_count
        mine[index] = replace(task, run_count=attempts + (mine[index].run_count if index in mine else 0))
    items = _Items(plan, by_function, labels)
    runs = []
    for planned in plan:
        mine = by_function.get(planned.function, {})
        indexes = {*mine, *items.expected(planned.loops)} if planned.loops else {()}
        stood_in = {index[:depth] for index in indexes for depth in range(len(index))}  # until the run was tried again
        runs += [_step_run(planned.step, index, mine.get(index)) for index in sorted(indexes - stood_in)]
    return runs


class _Items:
    """The known items of a run's loops, from the task runs of their steps and from labels."""

    def __init__(
        self, plan: Sequence[Planned], by_function: Mapping[str, Mapping[Index, TaskRun]], labels: Mapping[str, Any]
    ) -> None:
        self._known: dict[tuple[str, ...], dict[Index, set[int]]] = {}
        for planned in plan:
            for index in by_function.get(planned.function, ()):
                for depth in range(len(index)):
                    self._add(planned.loops[: depth + 1], index[:depth], [index[depth]])
        paths = {planned.loops[:depth] for planned in plan for depth in range(1, len(planned.loops) + 1)}
        total = 0
        for path in sorted(paths, key=len):
            for outer in self._all(path[:-1]):
                if isinstance(count := labels.get(f"{ITEMS}{labelled(path[-1], outer)}"), int):
                    total = checked_items(total + count, path[-1])
                    self._add(path, outer, range(count))

    def expected(self, loops: tuple[str, ...]) -> set[Index]:
        """Return the items of a step in these loops; if an inner loop has not begun, those of the outer loop."""
        return set(self._all(loops))

    def _add(self, path: tuple[str, ...], outer: Index, numbers: Iterable[int]) -> None:
        self._known.setdefault(path, {}).setdefault(outer, set()).update(numbers)

    def _all(self, path: tuple[str, ...]) -> Iterator[Index]:
        if not path:
            yield ()
            return
        for outer in self._all(path[:-1]):
            numbers = self._known.get(path, {}).get(outer, ()) if len(outer) == len(path) - 1 else ()
            yield from ((*outer, number) for number in numbers)
            if not numbers:
                yield outer


def _step_run(name: str, index: Index, task: TaskRun | None) -> StepRun:
    if task is None:
        return StepRun(name=name, status=ExecutionStatus.QUEUED, raw_status="", index=index)
    status = step_status_of(task.state_type, task.state_name)
    error = error_text(task.message, task.state_name) if went_wrong(status) else None
    if word := _NOT_RUN.get((task.state_type, task.state_name)):
        return StepRun(
            name=name, status=status, raw_status=word, attempt=task.run_count, ended_at=task.end_time, error=error,
            index=index,
        )  # fmt: skip
    return StepRun(
        name=name, status=status, raw_status=task.state_name, attempt=task.run_count, started_at=task.start_time,
        ended_at=task.end_time, error=error, index=index,
        cached_from=cached_from(task.message) if task.state_name == "Cached" else "",
    )  # fmt: skip


def after_the_end(step: StepRun, run: ExecutionStatus, ended_at: datetime | None, *, counted: bool) -> StepRun:
    """End a step with its run: a running step gets the status of the run, a waiting step is cancelled.

    A run whose task runs are ``counted`` completed by itself, so none of its steps was cancelled.
    """
    if step.status.is_terminal:
        return step
    ended_at = (step.ended_at or ended_at) if step.started_at else None
    if counted:
        return replace(step, status=run, ended_at=ended_at, error=_UNRECORDED)
    was_at_work = step.status is ExecutionStatus.RUNNING and run.is_failed
    status = ExecutionStatus.FAILED if was_at_work else ExecutionStatus.CANCELLED
    return replace(step, status=status, ended_at=ended_at)


def went_wrong(status: ExecutionStatus) -> bool:
    """Return whether a status is final and not successful."""
    return status.is_terminal and not status.is_successful
