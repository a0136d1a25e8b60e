"""Rows of the store as the records that users see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.origin import Origin
from flowyml.core.runs import LogLine, Run, StepRun
from flowyml.orchestrators.local.schema import RunRow, StepRow
from flowyml.orchestrators.local.store import Line

__all__ = ["at", "log_line", "run_of", "step_of", "steps_of"]


def run_of(row: RunRow) -> Run:
    """A run. On local its job id is its run id."""
    return Run(
        job_id=row.run_id, run_id=row.run_id, pipeline=row.pipeline,
        status=ExecutionStatus[row.status], raw_status=row.raw_status,
        created_at=at(row.created), started_at=at(row.started), ended_at=at(row.ended),
        error=row.error, parameters=json.loads(row.parameters),
        origin=Origin.from_dict(json.loads(row.origin or "null")), code_digest=row.code_digest,
        revision=row.revision,
    )  # fmt: skip


def steps_of(row: RunRow, steps: Mapping[int, StepRow]) -> tuple[StepRun, ...]:
    """All steps of a run; of those that never began there is no row."""
    idle = "queued" if row.status in ("QUEUED", "RUNNING") else "not_started"
    status = "QUEUED" if idle == "queued" else "CANCELLED"
    return tuple(
        step_of(name, steps.get(position) or StepRow(position, status, idle))
        for position, name in enumerate(json.loads(row.steps))
    )


def step_of(name: str, row: StepRow) -> StepRun:
    """One step."""
    return StepRun(
        name=name, status=ExecutionStatus[row.status], raw_status=row.raw_status, attempt=row.attempt,
        started_at=at(row.started), ended_at=at(row.ended), error=row.error,
    )  # fmt: skip


def log_line(line: Line, names: list[str]) -> LogLine:
    """One log line. ``names`` are those of the steps in the plan's order."""
    step = "" if line.position is None else names[line.position]
    return LogLine(line.message, step=step, level=line.level, time=at(line.time))


def at(seconds: float | None) -> datetime | None:
    """A time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
