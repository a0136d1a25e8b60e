"""The workflows of an engine, made by FlowyML or not: for Airflow, its DAGs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flowyml.core.execution_status import ExecutionStatus

__all__ = ["Workflow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A workflow. ``schedule`` is in the engine's own words, None if it has none; ``file`` is its source file.

    ``runs`` counts the last runs by status, and ``last_run`` is the time when the newest of them was due or began.
    """

    name: str
    schedule: str | None
    timezone: str = "UTC"
    is_paused: bool = False
    owners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    file: str = ""
    url: str | None = None
    is_flowymls: bool = False
    runs: Mapping[ExecutionStatus, int] = field(default_factory=dict)
    last_run: datetime | None = None
    next_run: datetime | None = None
