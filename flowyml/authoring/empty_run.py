"""``run()`` of a pipeline without steps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook, fire
from flowyml.core.runs import Outputs, PipelineResult

__all__ = ["run_nothing"]


def run_nothing(name: str, hooks: Sequence[PipelineHook], context: Mapping[str, Any], run_id: str) -> PipelineResult:
    """Start and end a run of an empty pipeline, as in the 0.x guide; every engine refuses it."""
    warnings.warn(
        f"Pipeline {name!r} has no steps, so nothing runs. Add some with add_step(…).", UserWarning, stacklevel=5
    )
    fire(hooks, "on_pipeline_start", name, run_id, dict(context))
    fire(hooks, "on_pipeline_end", name, run_id, ExecutionStatus.COMPLETED, 0.0)
    return PipelineResult(
        run_id=run_id, pipeline=name, status=ExecutionStatus.COMPLETED,
        outputs=Outputs(), step_results={}, duration_seconds=0.0,
    )  # fmt: skip
