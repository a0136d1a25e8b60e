"""Callbacks in the life of a run. They run where the steps run, on every engine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

from flowyml.core.errors import DefinitionError, StepCancelledError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.forks import ForksEndHere

__all__ = ["PipelineHook"]

logger = logging.getLogger("flowyml.hooks")

EVENTS = ("on_pipeline_start", "on_step_start", "on_step_end", "on_pipeline_end", "on_error")


class PipelineHook:
    """Override what you need; every method does nothing by default.

    Step events fire once for each attempt, in the process that runs the step; pipeline events fire through the
    engine's own callbacks. An exception in a hook, ``sys.exit()`` too, is logged and never changes the outcome of the
    run. Methods are plain, not async. Hooks travel to the workers by pickle, so keep connections and open files out of
    ``__init__``.
    """

    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Mapping[str, Any]) -> None:
        """The run begins. ``context`` holds the parameters of this run."""

    def on_step_start(self, step_name: str, inputs: Mapping[str, Any]) -> None:
        """An attempt of a step begins."""

    def on_step_end(self, step_name: str, outputs: Mapping[str, Any], duration: float) -> None:
        """A step succeeded after ``duration`` seconds."""

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        """The run ended, in whatever way, after ``duration`` seconds."""

    def on_error(self, step_name: str, error: BaseException) -> None:
        """An attempt of a step failed; a retry may follow."""


def check_hook(hook: object, who: str) -> PipelineHook:
    """Give the hook back, or raise ``DefinitionError``: an async method would be called and never awaited."""
    if not isinstance(hook, PipelineHook):
        raise DefinitionError(f"{who}: {hook!r:.80} is no PipelineHook. Subclass flowyml.core.hooks.PipelineHook.")
    for event in EVENTS:
        method = getattr(hook, event)
        if iscoroutinefunction(method) or isasyncgenfunction(method):
            raise DefinitionError(
                f"{who}: hook {type(hook).__name__}.{event} is async, and hooks are called, not awaited. Make it a "
                f"plain method; what is async inside goes into asyncio.run(…)."
            )
    return hook


def fire(hooks: Iterable[PipelineHook], event: str, *args: object) -> None:
    """Call ``event`` on each hook; what a hook raises is logged and goes no further."""
    for hook in hooks:
        try:
            with ForksEndHere():
                getattr(hook, event)(*args)
        except StepCancelledError:  # it only happens to be in a hook that the step is hit
            raise
        except (Exception, SystemExit):
            logger.exception("Hook %s.%s failed; the run goes on.", type(hook).__name__, event)
