"""What a run tells: a failed attempt in the log, and the result at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowyml.core.errors import FlowymlError, StepFailedError
from flowyml.core.runs import Outputs, PipelineResult, StepResult
from flowyml.orchestrators.local.capture import Sink, attributed
from flowyml.orchestrators.local.engine import error_text
from flowyml.orchestrators.local.graph import Node
from flowyml.orchestrators.local.schema import RunRow
from flowyml.orchestrators.local.verdict import Verdict, first_error
from flowyml.orchestrators.local.views import step_of
from flowyml.plan.model import Plan
from flowyml.runtime.tracebacks import traceback_text

__all__ = ["result_of", "tell_failure"]

logger = logging.getLogger("flowyml.local")


def tell_failure(
    node: Node, error: BaseException, delay: float | None, sink: Callable[[int], Sink], code_folder: Path | None
) -> None:  # fmt: skip
    """In the log of the step, and by way of logging on the terminal. ``delay`` is the time until the next attempt."""
    attempts = node.step.retry.max_attempts if node.step.retry else 1
    which = f" (attempt {node.attempt} of {attempts})" if attempts > 1 else ""
    with attributed(sink(node.position)):
        if delay is None:
            text, who = _trace(error, code_folder), f"step {node.step.name!r} "
            if text.startswith(who):  # it names the step already
                logger.error("Step %r %s%s", node.step.name, text.removeprefix(who), which)
            else:
                logger.error("Step %r failed%s: %s", node.step.name, which, text)
        else:
            text = error_text(error)
            logger.warning("Step %r failed%s; trying again in %g s: %s", node.step.name, which, delay, text)


def result_of(
    plan: Plan, row: RunRow, nodes: Sequence[Node], verdict: Verdict, outputs: Mapping[str, Any], seconds: float
) -> PipelineResult:  # fmt: skip
    """The result of a run that was executed in this process, with the very objects that its steps returned."""
    status, _, error = verdict
    of_steps: dict[str, dict[str, Any]] = {}
    for output in plan.outputs:
        if output.name in outputs:
            of_steps.setdefault(output.source.step, {})[output.source.output] = outputs[output.name]
    return PipelineResult(
        run_id=row.run_id,
        pipeline=plan.name,
        status=status,
        outputs=Outputs(outputs if status.is_successful else {}),
        step_results={node.step.name: _step_result(node, of_steps.get(node.step.name, {})) for node in nodes},
        duration_seconds=seconds,
        error=error,
        exception=first_error(nodes),
    )


def _step_result(node: Node, outputs: Mapping[str, Any]) -> StepResult:
    seen = step_of(node.step.name, node.row)
    return StepResult(
        name=seen.name, status=seen.status, raw_status=seen.raw_status, attempt=seen.attempt,
        started_at=seen.started_at, ended_at=seen.ended_at, error=seen.error, outputs=outputs,
    )  # fmt: skip


def _trace(error: BaseException, code_folder: Path | None) -> str:
    """The user's own frames; FlowyML's own errors say all in their sentence."""
    if isinstance(error, StepFailedError):
        return error_text(error) if "FlowymlError" in error.names else error.traceback.rstrip()
    return error_text(error) if isinstance(error, FlowymlError) else traceback_text(error, code_folder).rstrip()
