"""Callbacks in the life of a run. They run where the steps run, on every engine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from inspect import isasyncgenfunction, iscoroutinefunction, signature
from typing import Any

from flowyml.core.errors import DefinitionError, StepCancelledError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.forks import ForksEndHere
from flowyml.core.near_names import did_you_mean

__all__ = ["PipelineHook"]

logger = logging.getLogger("flowyml.hooks")

EVENTS = ("on_pipeline_start", "on_step_start", "on_step_end", "on_step_cached", "on_pipeline_end", "on_error")


class PipelineHook:
    """Base class of hooks. Override the methods you need; by default they do nothing.

    Step events fire once for each attempt, in the process that runs the step; pipeline events fire through the
    engine's own callbacks. An exception in a hook, even ``sys.exit()``, is logged and never changes the outcome of the
    run. Methods are plain, not async. Hooks travel to the workers by pickle, so do not open connections or files in
    ``__init__``.
    """

    def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Mapping[str, Any]) -> None:
        """The run begins. ``context`` has the parameters of this run."""

    def on_step_start(self, step_name: str, inputs: Mapping[str, Any]) -> None:
        """An attempt of a step begins."""

    def on_step_end(self, step_name: str, outputs: Mapping[str, Any], duration: float) -> None:
        """A step succeeded after ``duration`` seconds."""

    def on_step_cached(self, step_name: str, run_id: str) -> None:
        """A step did not run: its results come from the run ``run_id``."""

    def on_pipeline_end(self, pipeline_name: str, run_id: str, status: ExecutionStatus, duration: float) -> None:
        """The run ended, successfully or not, after ``duration`` seconds."""

    def on_error(self, step_name: str, error: BaseException) -> None:
        """An attempt of a step failed; a retry may follow."""


def check_hook(hook: object, subject: str) -> PipelineHook:
    """Return the hook, or raise ``DefinitionError`` if one of its methods would never fire, or would always fail."""
    if not isinstance(hook, PipelineHook):
        raise DefinitionError(
            f"{subject}: {hook!r:.80} is not a PipelineHook. Subclass flowyml.core.hooks.PipelineHook."
        )
    for name in dir(hook):
        if name.startswith("on_") and name not in EVENTS and callable(getattr(hook, name)):
            raise DefinitionError(
                f"{subject}: hook {type(hook).__name__} has a method {name!r}, which nothing calls."
                f"{did_you_mean(name, EVENTS)} Events are {', '.join(EVENTS)}; give a method of "
                f"your own a name that does not begin with on_."
            )
    for event in EVENTS:
        method = getattr(hook, event)
        if not callable(method):
            raise DefinitionError(
                f"{subject}: hook {type(hook).__name__}.{event} is {method!r:.80}. Define a method, or leave it out."
            )
        _check_arguments(hook, event, subject)
        if iscoroutinefunction(method) or isasyncgenfunction(method):
            raise DefinitionError(
                f"{subject}: hook {type(hook).__name__}.{event} is async, but FlowyML does not await hooks. Make it a "
                f"plain method and run async code with asyncio.run(…)."
            )
    return hook


def _check_arguments(hook: PipelineHook, event: str, subject: str) -> None:
    expected = [name for name in signature(getattr(PipelineHook, event)).parameters if name != "self"]
    try:
        taken = signature(getattr(hook, event))
        taken.bind(*expected)
    except TypeError:
        raise DefinitionError(
            f"{subject}: hook {type(hook).__name__}.{event} takes {taken}, but is called with ({', '.join(expected)})."
        ) from None
    except ValueError:  # Python knows no parameters of it
        return


def fire(hooks: Iterable[PipelineHook], event: str, *args: object) -> None:
    """Call ``event`` on each hook; exceptions of hooks are logged and not raised."""
    for hook in hooks:
        try:
            with ForksEndHere():
                getattr(hook, event)(*args)
        except StepCancelledError:  # the step happens to be interrupted inside a hook
            raise
        except (Exception, SystemExit):
            logger.exception("Hook %s.%s failed; the run goes on.", type(hook).__name__, event)
