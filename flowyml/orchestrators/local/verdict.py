"""What the ends of its steps make of a run."""

from __future__ import annotations

from collections.abc import Sequence

from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators.local.graph import Node
from flowyml.plan.model import Plan

__all__ = ["Verdict", "first_error", "verdict"]

Verdict = tuple[ExecutionStatus, str, str | None]
"""The status, the engine's own word for it, and what went wrong."""

_BAD = ("FAILED", "TIMEOUT")


def verdict(plan: Plan, nodes: Sequence[Node], stopped: str | None) -> Verdict:
    """A step that timed out makes the run ``FAILED``, as on Prefect; ``TIMEOUT`` is for the pipeline's own timeout."""
    if all(node.row.status == "COMPLETED" for node in nodes):
        return ExecutionStatus.COMPLETED, "completed", None
    failures = _failures(nodes)
    if stopped == "timeout":
        late = f"The run took longer than the pipeline's timeout of {plan.timeout_seconds:g} s and was stopped."
        return ExecutionStatus.TIMEOUT, "timeout", "; ".join([late, *failures])
    if stopped:
        return ExecutionStatus.CANCELLED, "cancelled", "; ".join(["The run was cancelled.", *failures])
    if failures:
        return ExecutionStatus.FAILED, "failed", "; ".join(failures)
    return ExecutionStatus.CANCELLED, "cancelled", "A step was cancelled."


def first_error(nodes: Sequence[Node]) -> BaseException | None:
    """The error of the step that failed first."""
    failed = [node for node in nodes if node.row.status in _BAD]
    return min(failed, key=lambda node: node.row.ended or 0).error if failed else None


def _failures(nodes: Sequence[Node]) -> list[str]:
    return [_failure(node) for node in nodes if node.row.status in _BAD]


def _failure(node: Node) -> str:
    text = node.row.error or ""
    who = f"step {node.step.name!r}"
    return text if who in text else f"{who} failed: {text}"
