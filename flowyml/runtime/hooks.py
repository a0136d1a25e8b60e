"""Pass hook events between processes, with their arguments as plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowyml.core import errors
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook, fire
from flowyml.runtime.tracebacks import described

__all__ = ["EVENTS", "fire_plain", "plain_arguments"]

EVENTS = {
    "on_pipeline_start": ("pipeline_name", "run_id", "context"),
    "on_pipeline_end": ("pipeline_name", "run_id", "status", "duration"),
    "on_step_start": ("step_name", "inputs"),
    "on_step_end": ("step_name", "outputs", "duration"),
    "on_step_cached": ("step_name", "run_id"),
    "on_error": ("step_name", "error"),
}


def plain_arguments(arguments: Sequence[object]) -> list[Any]:
    """Replace statuses by their names, errors by their class and message."""
    return [_plain(argument) for argument in arguments]


def fire_plain(hooks: Sequence[PipelineHook], event: str, arguments: Sequence[Any]) -> None:
    """Call an event on each hook, with arguments from ``plain_arguments`` or from a person."""
    names = EVENTS[event]
    fire(hooks, event, *(_revived(name, value) for name, value in zip(names, arguments, strict=True)))


def _plain(argument: object) -> Any:
    if isinstance(argument, ExecutionStatus):
        return argument.name
    if isinstance(argument, errors.FlowymlError):
        return {"type": type(argument).__name__, "message": str(argument), "step": getattr(argument, "step", "")}
    return {"type": "StepError", "message": described(argument)} if isinstance(argument, BaseException) else argument


def _revived(name: str, value: Any) -> Any:
    if name == "status":
        return ExecutionStatus[value]
    if name == "error":
        return _error(value if isinstance(value, dict) else {"message": str(value)})
    return value


def _error(plain: dict[str, Any]) -> BaseException:
    named = getattr(errors, plain.get("type", ""), None)
    kind = named if isinstance(named, type) and issubclass(named, errors.FlowymlError) else errors.StepError
    error = kind(plain["message"])
    if isinstance(error, errors.StepError):
        error.step = plain.get("step", "")
    return error
