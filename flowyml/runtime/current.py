"""Which step of which run is being run here: for what must happen once in a run, however often it is tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

__all__ = ["RunningStep", "current_step", "running"]


class RunningStep(NamedTuple):
    """A step that is being run. The same for all its attempts, on every engine."""

    pipeline: str
    run_id: str
    step: str


_current: ContextVar[RunningStep | None] = ContextVar("flowyml_running_step", default=None)


def current_step() -> RunningStep | None:
    """The step that this code runs in; None elsewhere, and in threads that a step has started itself."""
    return _current.get()


@contextmanager
def running(pipeline: str, run_id: str, step: str) -> Iterator[None]:
    """While this lasts, ``current_step()`` tells this step."""
    token = _current.set(RunningStep(pipeline, run_id, step))
    try:
        yield
    finally:
        _current.reset(token)
