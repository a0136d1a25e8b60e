"""The running step and its run, and the dates of the run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from flowyml.core.dates import RunDates
from flowyml.core.errors import DefinitionError
from flowyml.plan.model import Step
from flowyml.runtime.reporting import reports

__all__ = ["CurrentRun", "current_run", "current_step", "having_secrets", "holds_secret", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentRun:
    """The run that a step belongs to. The same for all its attempts, on every engine. All times have a time zone.

    ``logical_date`` is the scheduled time; without a schedule, the time at which the run was requested. The data
    interval goes from the previous scheduled time to this one; without a schedule both ends are None.

    ``index`` is the position of the item that the step works on, one number for each loop around it, else empty.
    """

    run_id: str
    pipeline: str
    step: str
    logical_date: datetime
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    index: tuple[int, ...] = ()


_current: ContextVar[CurrentRun | None] = ContextVar("flowyml_current_run", default=None)
_secrets: ContextVar[Collection[str]] = ContextVar("flowyml_secrets", default=())


def current_run() -> CurrentRun:
    """Return the run that the calling step belongs to. Raises ``DefinitionError`` outside a step.

    A thread that a step has started itself counts as outside.
    """
    if (run := _current.get()) is None:
        raise DefinitionError("current_run() was called outside a step. Call it inside one.")
    return run


def current_step() -> CurrentRun | None:
    """Return the same; None outside a step."""
    return _current.get()


def holds_secret(value: object) -> bool:
    """Return whether plain data contains a secret of the running step: such an output is refused."""
    if not (secrets := _secrets.get()):
        return False
    from flowyml.runtime.secrets import Mask

    return Mask(secrets).finds(value)


@contextmanager
def having_secrets(values: Collection[str]) -> Iterator[None]:
    """Let the running step have these secrets within this block."""
    token = _secrets.set(values)
    try:
        yield
    finally:
        _secrets.reset(token)


@contextmanager
def running(
    pipeline: str, run_id: str, step: Step, dates: RunDates, index: Sequence[int] = ()
) -> Iterator[None]:  # fmt: skip
    """Let ``current_run()`` return this step's run within this block."""
    current = CurrentRun(
        run_id=run_id, pipeline=pipeline, step=step.name, logical_date=dates.logical_date,
        data_interval_start=dates.data_interval_start, data_interval_end=dates.data_interval_end,
        index=tuple(index),
    )  # fmt: skip
    token = _current.set(current)
    try:
        with reports(step.outputs):
            yield
    finally:
        _current.reset(token)
