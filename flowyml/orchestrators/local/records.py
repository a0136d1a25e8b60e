"""Build the records of a run for its user: outcome, errors in the log, and result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowyml.core.durations import span_text
from flowyml.core.errors import FlowymlError, StepFailedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.origin import Origin
from flowyml.core.runs import WAS_CANCELLED, LogLine, Outputs, PipelineResult, Run, StepResult, StepRun, folded
from flowyml.orchestrators.local.capture import Sink, attributed
from flowyml.orchestrators.local.engine import LocalTask, error_text
from flowyml.orchestrators.local.schema import RunRow, StepRow, index_of
from flowyml.orchestrators.local.store import Line
from flowyml.plan.model import FromStep, Plan
from flowyml.runtime.step_errors import of_several, of_step
from flowyml.runtime.tracebacks import traceback_text

__all__ = [
    "Outcome",
    "in_order",
    "log_failure",
    "log_line",
    "outcome_of",
    "result_of",
    "run_of",
    "step_of",
    "steps_of",
]

logger = logging.getLogger("flowyml.local")

Outcome = tuple[ExecutionStatus, str, str | None]
"""The status, the engine's own word for it, and the error."""

_BAD = ("FAILED", "TIMEOUT")


def outcome_of(plan: Plan, nodes: Sequence[LocalTask], faults: Sequence[str], stopped: str | None) -> Outcome:
    """Return the outcome of a run, from the ends of its steps and the ``faults`` of its branches and loops.

    A step that timed out makes it ``FAILED``, as on Prefect; ``TIMEOUT`` is for the pipeline's own timeout. Items that
    may fail, and clean-ups, do not count.
    """
    counted = [node for node in nodes if not plan.structure.may_fail(node.step.group)]
    if not faults and all(node.row.status == "COMPLETED" for node in counted):
        return ExecutionStatus.COMPLETED, "completed", None
    failed = [of_step(node.step.name, node.row.error or "", node.label) for node in counted if node.row.status in _BAD]
    failures = [of_several(errors)] if (errors := [*failed, *dict.fromkeys(faults)]) else []
    if stopped == "timeout":
        limit = span_text(plan.timeout_seconds or 0)
        late = f"The run took longer than the pipeline's timeout of {limit} and was stopped."
        return ExecutionStatus.TIMEOUT, "timeout", "; ".join([late, *failures])
    if stopped:
        return ExecutionStatus.CANCELLED, "cancelled", "; ".join([WAS_CANCELLED, *failures])
    if failures:
        return ExecutionStatus.FAILED, "failed", failures[0]
    return ExecutionStatus.CANCELLED, "cancelled", "A step was cancelled."


def in_order(nodes: Iterable[LocalTask]) -> list[LocalTask]:
    """Sort nodes in the plan's order; steps in a loop are created only when its items are known."""
    return sorted(nodes, key=lambda node: node.position)


def _first_error(nodes: Sequence[LocalTask]) -> BaseException | None:
    failed = [node for node in nodes if node.row.status in _BAD]
    return min(failed, key=lambda node: node.row.ended or 0).error if failed else None


def log_failure(
    node: LocalTask, error: BaseException, delay: float | None, sink: Callable[[int, str], Sink],
    code_folder: Path | None,
) -> None:  # fmt: skip
    """Write it to the step's log and, through logging, to the terminal. ``delay`` is the time until the next
    attempt.
    """
    which = f" (attempt {node.attempt} of {node.max_attempts})" if node.max_attempts > 1 else ""
    with attributed(sink(node.position, node.row.item)):
        if delay is None:
            logger.error("%s", _failure(node, which, _trace(error, code_folder)))
        else:
            logger.warning("%s", _failure(node, f"{which}; trying again in {span_text(delay)}", error_text(error)))


def _failure(node: LocalTask, which: str, text: str) -> str:
    """Return the log line for a failed attempt, with the step named once."""
    named = f"step {node.step.name!r}"
    if text.startswith((f"{named} ", f"The process of {named} ")):  # a sentence about the step
        sentence = of_step(node.step.name, text, node.label)
        return f"{sentence[0].upper()}{sentence[1:]}{which}"
    return f"Step {node.label!r} failed{which}: {text.removeprefix(f'{named}: ')}"


def result_of(
    plan: Plan, row: RunRow, nodes: Sequence[LocalTask], outcome: Outcome, outputs: Mapping[str, Any], seconds: float
) -> PipelineResult:  # fmt: skip
    """Return the result of a run that was executed in this process, with the very objects that its steps returned."""
    status, _, error = outcome
    of_steps: dict[str, dict[str, Any]] = {}
    for output in plan.outputs:
        if output.name in outputs and isinstance(output.source, FromStep):
            of_steps.setdefault(output.source.step, {})[output.source.output] = outputs[output.name]
    return PipelineResult(
        run_id=row.run_id,
        pipeline=plan.name,
        status=status,
        outputs=Outputs(outputs if status.is_successful else {}),
        step_results={
            run.name: StepResult.of(run, of_steps.get(run.name, {}))
            for run in folded(step_of(node.step.name, node.row) for node in in_order(nodes))
        },
        duration_seconds=seconds,
        parameters=json.loads(row.parameters),
        error=error,
        exception=_first_error(nodes),
    )


def _trace(error: BaseException, code_folder: Path | None) -> str:
    """Return the user's own frames; FlowyML's own errors need no traceback."""
    if isinstance(error, StepFailedError):
        return error_text(error) if "FlowymlError" in error.names else error.traceback.rstrip()
    return error_text(error) if isinstance(error, FlowymlError) else traceback_text(error, code_folder).rstrip()


def run_of(row: RunRow) -> Run:
    """Return the record of a run. On local its job id is its run id."""
    return Run(
        job_id=row.run_id, run_id=row.run_id, pipeline=row.pipeline,
        status=ExecutionStatus[row.status], raw_status=row.raw_status,
        created_at=moment(row.created), started_at=moment(row.started), ended_at=moment(row.ended),
        error=row.error, parameters=json.loads(row.parameters),
        origin=Origin.from_dict(json.loads(row.origin or "null")), code_digest=row.code_digest,
        revision=row.revision, not_kept=_not_kept(row.outputs), packages=json.loads(row.packages or "{}"),
    )  # fmt: skip


def _not_kept(recorded: str) -> dict[str, str]:
    """Say why outputs are not stored. Stored ones are not read."""
    if '"not_kept"' not in recorded:  # as good as always, and the values may be large
        return {}
    entries: dict[str, Any] = json.loads(recorded)
    return {name: entry["not_kept"] for name, entry in entries.items() if "not_kept" in entry}


def steps_of(row: RunRow, steps: Iterable[StepRow]) -> tuple[StepRun, ...]:
    """Return all steps of a run, with each item of a loop; those that never began have no row."""
    idle = "queued" if row.status in ("QUEUED", "RUNNING") else "not_started"
    status = "QUEUED" if idle == "queued" else "CANCELLED"
    rows: dict[int, list[StepRow]] = {}
    for each in sorted(steps, key=lambda step: index_of(step.item), reverse=True):
        later = rows.setdefault(each.position, [])
        index = index_of(each.item)
        if not later or index != index_of(later[-1].item)[: len(index)]:  # else it stands in for an inner loop's items
            later.append(each)
    return tuple(
        step_of(name, each)
        for position, name in enumerate(json.loads(row.steps))
        for each in reversed(rows.get(position) or [StepRow(position, status, idle)])
    )


def step_of(name: str, row: StepRow) -> StepRun:
    return StepRun(
        name=name, status=ExecutionStatus[row.status], raw_status=row.raw_status, attempt=row.attempt,
        started_at=moment(row.started), ended_at=moment(row.ended), error=row.error, index=index_of(row.item),
        cached_from=row.cached_from or "",
    )  # fmt: skip


def log_line(line: Line, names: list[str]) -> LogLine:
    """Return the record of a log line. ``names`` are those of the steps in the plan's order."""
    step = "" if line.position is None else names[line.position]
    return LogLine(line.message, step=step, level=line.level, time=moment(line.time), index=index_of(line.item))


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
