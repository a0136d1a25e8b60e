"""The records of runs, task runs and logs in Prefect's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowyml_prefect.parameters import read_parameters

__all__ = ["FlowRun", "Log", "TaskRun", "as_id", "time_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """The fields of a flow run that FlowyML reads."""

    id: str
    name: str
    state_type: str
    state_name: str
    message: str
    labels: Mapping[str, Any]
    tags: Sequence[str]
    parameters: Mapping[str, Any]
    flow_id: str
    deployment_id: str | None
    version: str | None
    transition_id: str | None
    process: str | None
    created: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    due: datetime | None = None  # of a run of a schedule
    since: datetime | None = None  # when it came into its state
    pool: str | None = None  # the pool whose workers run it

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> FlowRun:
        """Read Prefect's JSON."""
        state = plain.get("state") or {}
        return cls(
            id=plain["id"], name=plain["name"], state_type=plain.get("state_type") or "SCHEDULED",
            state_name=plain.get("state_name") or "Scheduled", message=state.get("message") or "",
            labels=plain.get("labels") or {}, tags=plain.get("tags") or (),
            parameters=read_parameters(plain.get("parameters") or {}), flow_id=plain["flow_id"],
            deployment_id=plain.get("deployment_id"), version=plain.get("deployment_version"),
            transition_id=(state.get("state_details") or {}).get("transition_id"),
            process=plain.get("infrastructure_pid"),
            created=time_of(plain.get("created")), start_time=time_of(plain.get("start_time")),
            end_time=time_of(plain.get("end_time")),
            due=time_of(plain.get("expected_start_time")) if plain.get("auto_scheduled") else None,
            since=time_of(state.get("timestamp")), pool=plain.get("work_pool_name"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """The fields of a task run that FlowyML reads. ``function`` is the task's function in the compiled flow.

    On SQLite, Prefect's server commits the row of a task run a moment before its state with the message in it. Until
    then ``is_whole`` is false. Source: ``task_run_recorder.py`` in Prefect 3.
    """

    id: str
    name: str
    function: str
    state_type: str
    state_name: str
    message: str
    run_count: int
    start_time: datetime | None
    end_time: datetime | None
    is_whole: bool = True

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> TaskRun:
        """Read Prefect's JSON."""
        return cls(
            id=plain["id"], name=plain["name"], function=plain["task_key"].rpartition("-")[0],
            state_type=plain.get("state_type") or "PENDING", state_name=plain.get("state_name") or "Pending",
            message=(plain.get("state") or {}).get("message") or "", run_count=plain.get("run_count") or 0,
            start_time=time_of(plain.get("start_time")), end_time=time_of(plain.get("end_time")),
            is_whole=plain.get("state") is not None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One record of a run's log."""

    id: str
    message: str
    level: int
    time: datetime
    task_run_id: str | None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Log:
        """Read Prefect's JSON."""
        return cls(
            id=plain["id"], message=plain["message"], level=plain["level"],
            time=datetime.fromisoformat(plain["timestamp"]), task_run_id=plain["task_run_id"],
        )  # fmt: skip


def as_id(text: object) -> str | None:
    """Return an id in Prefect's spelling; None for a text that is not an id."""
    from uuid import UUID

    try:
        return str(UUID(text)) if isinstance(text, str) else None
    except ValueError:
        return None


def time_of(text: str | None) -> datetime | None:
    """Read a time, in UTC; None if there is none."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
