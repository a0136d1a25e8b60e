"""The names of ``flowyml`` on a worker: those that users' modules import, without the code that builds pipelines.

In a bundle this file can replace ``flowyml/__init__.py``: the worker then neither has nor imports
``flowyml.authoring``. A step is its function here. Any other name accepts all uses while a module is loaded, and
refuses them in a running step, so that no value is silently another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flowyml._version import __version__
from flowyml.core.dates import DATA_INTERVAL_END, DATA_INTERVAL_START, LOGICAL_DATE
from flowyml.core.logs import get_logger
from flowyml.core.named_values import NamedValues
from flowyml.runtime.definition_parts import Part
from flowyml.runtime.reporting import report
from flowyml.runtime.running_step import CurrentRun, current_run

__all__ = [
    "DATA_INTERVAL_END", "DATA_INTERVAL_START", "LOGICAL_DATE", "Cache", "Context", "CurrentRun", "If",
    "OrchestratorRetryPolicy", "Pipeline", "Schedule", "__version__", "all_of", "any_of", "cleanup", "context",
    "current_run", "either", "elif_", "for_each", "gather", "get_logger", "is_in", "not_", "otherwise", "pipeline",
    "report", "step", "when",
]  # fmt: skip


class Step(Part):
    """The function of a step, with its name."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        super().__init__(f"step {name!r}")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Step, (self.function, self.name)

    def options(self, *, name: str | None = None, **_: Any) -> Step:
        """Return the same function, perhaps with another name."""
        return Step(self.function, name or self.name)


class Pipeline(Part):
    """A pipeline's name. Accessing ``run`` and the like ends the loading of the script."""

    def __init__(self, name: str, **_: Any) -> None:
        super().__init__(f"pipeline {name!r}")
        self.name = name

    def __getattr__(self, name: str) -> Part:
        from flowyml.runtime.loading import ENDS_LOADING, stop_if_loading

        if name in ENDS_LOADING:
            stop_if_loading(self.name, name)
        return super().__getattr__(name)


class Context(NamedValues):
    """The values of a module's context, which were checked where its pipeline was built."""

    __slots__ = ()


def step(function: Callable[..., Any] | None = None, /, *, name: str | None = None, **_: Any) -> Any:
    """Return the function as a step."""
    if function is None:
        return lambda decorated: step(decorated, name=name)
    return Step(function, name or function.__name__)


def pipeline(function: Callable[..., Any] | None = None, /, *, name: str | None = None, **_: Any) -> Any:
    """Return a pipeline with the function's name, which never calls the function."""
    if function is None:
        return lambda decorated: pipeline(decorated, name=name)
    return functools.update_wrapper(Pipeline(name or function.__name__), function)


def _part(*_: Any, **__: Any) -> Part:
    return Part("part of a pipeline")


def context(**values: Any) -> Context:
    """Return the same as ``Context(**values)``."""
    return Context(values)


Cache = If = all_of = any_of = cleanup = either = elif_ = for_each = gather = is_in = not_ = otherwise = when = _part
OrchestratorRetryPolicy = _part
Schedule = Part("a schedule")
