"""Find the run that a command names: by an engine's job id, a run id, or the short id that ``flowyml runs`` shows.

For engines whose job ids are UUIDs, as Prefect's and KFP's, the beginning of a job id suffices, as their pages show it.
"""

from __future__ import annotations

import re
from hashlib import sha256

from flowyml.cli.errors import UsageError
from flowyml.core.errors import RunNotFoundError
from flowyml.core.runs import Run
from flowyml.orchestrators.base import Orchestrator

__all__ = ["find_run", "short_id"]

_MADE = re.compile(r".*-\d{8}-\d{6}-([0-9a-f]{8})", re.DOTALL)  # by `new_run_id`
_SHORT = re.compile(r"[A-Za-z0-9._-]{1,12}")
_LOOKED_THROUGH = 200
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FEWEST = 8  # digits of one: the first group


def short_id(run: Run) -> str:
    """Return at most 12 characters for a run: the random part of its id, a short id itself, else a hash.

    >>> from flowyml.core.execution_status import ExecutionStatus
    >>> def of(run_id): return Run(job_id="1", run_id=run_id, pipeline="", status=ExecutionStatus.QUEUED, raw_status="")
    >>> short_id(of("training-20260131-120000-1f3a9c2e")), short_id(of("mine"))
    ('1f3a9c2e', 'mine')
    """
    if match := _MADE.fullmatch(run.run_id):
        return match[1]
    if _SHORT.fullmatch(run.run_id):
        return run.run_id
    return sha256(run.job_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def find_run(orchestrator: Orchestrator, identifier: str) -> Run:
    """Return the run of a job id; or of a run id, a short id or the beginning of a UUID, among the newest 200 runs.

    Raises the engine's ``RunNotFoundError``, and ``UsageError`` for an ambiguous id.
    """
    try:
        return orchestrator.get_run(identifier)
    except RunNotFoundError as error:
        return _recent_run(orchestrator, identifier, error)


def _begins(job_id: str, identifier: str) -> bool:
    return len(identifier) >= _FEWEST and job_id.startswith(identifier) and _UUID.fullmatch(job_id) is not None


def _recent_run(orchestrator: Orchestrator, identifier: str, unknown: RunNotFoundError) -> Run:
    recent = orchestrator.runs(limit=_LOOKED_THROUGH)
    matches = [run for run in recent if run.run_id == identifier] or [
        run for run in recent if short_id(run) == identifier or _begins(run.job_id, identifier)
    ]
    if len(matches) > 1:
        ids = ", ".join(run.job_id for run in matches)
        raise UsageError(f"{identifier!r} matches {len(matches)} runs. Give the job id of one: {ids}.")
    if not matches:
        raise unknown
    return orchestrator.get_run(matches[0].job_id)  # whose error an engine's list of runs may lack
