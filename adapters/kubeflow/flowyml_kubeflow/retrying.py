"""Retry an ended run: KFP runs its failed tasks again, and keeps the completed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowyml.core.errors import EngineError, RetryRefusedError

if TYPE_CHECKING:
    from flowyml_kubeflow.reader import KubeflowReader

__all__ = ["retry_run", "run_again"]


def retry_run(reader: KubeflowReader, job_id: str) -> None:
    """Have KFP retry a run. Raises ``EngineError`` for one that is active, or that succeeded."""
    run = reader.fetch(job_id)
    if not reader.status(run).is_terminal or run.state == "SUCCEEDED":
        raise EngineError(f"Run {job_id!r} is {run.state}; only a run that failed or was stopped can be retried.")
    reader.client.call_once("run_service_retry_run", job_id)


def run_again(reader: KubeflowReader, job_id: str, steps: Sequence[str] | None) -> None:
    """Retry a run, unless KFP would run something else: then raises ``RetryRefusedError``."""
    if steps is not None:
        raise RetryRefusedError(
            "KFP cannot retry single steps: it retries everything that failed. Retry the run without steps=… or --step."
        )
    if reader.failed_at_its_end(job_id):
        raise RetryRefusedError(
            "Some steps failed although their pods succeeded, as steps in loops do, and KFP retries only failed pods. "
            "Start a new run."
        )
    retry_run(reader, job_id)
