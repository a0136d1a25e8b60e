"""Run one attempt of one step in this process."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from types import AsyncGeneratorType, GeneratorType
from typing import Any, TypeVar

from flowyml.core.errors import OutputError, ParameterError, StepError
from flowyml.core.forks import ForksEndHere
from flowyml.core.hooks import PipelineHook, fire
from flowyml.plan.model import Step
from flowyml.runtime.running_step import having_secrets
from flowyml.runtime.shutdown import StepStopped

__all__ = ["HOST_MASKS", "TAKEN_FILE", "AttemptOutputs", "named_outputs", "run_step", "step_error"]

Outputs = dict[str, Any]
E = TypeVar("E", bound=StepError)

HOST_MASKS: list[Callable[[str], str]] = []
"""Functions that remove from a text the secrets of the engine whose process steps are forked from."""
TAKEN_FILE = "taken.json"
"""The file in a bundle with the results that its run takes from another run: see ``flowyml.runtime.taken``."""

_GENERATORS = (GeneratorType, AsyncGeneratorType)


class AttemptOutputs(dict[str, Any]):
    """The outputs of a step, by name. ``cached_from`` is the run that computed them, for a cached step that did not
    run.
    """

    def __init__(self, outputs: Mapping[str, Any], cached_from: str = "") -> None:
        super().__init__(outputs)
        self.cached_from = cached_from

    def note(self, label: str) -> str:
        """Return the log line of a cached step or item."""
        return f"step {label!r} was not run: its results are those of run {self.cached_from!r}"


def run_step(
    step: Step,
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    hooks: Sequence[PipelineHook] = (),
    *,
    keep: Callable[[Outputs], Outputs] | None = None,
    secrets: Mapping[str, str] = {},
) -> Outputs:
    """Call the function, await it if it is async, and return its outputs by name. Hooks fire before and after.

    ``secrets`` fill arguments, or else environment variables of this process; hooks never get their values.

    ``keep`` turns the outputs into the result, such as references to stored values; what it raises counts as the step's
    own failure. Raises what the function raises, and ``OutputError``.
    """
    started = time.perf_counter()
    try:
        inputs = _arguments(step, function, inputs)
        if hooks:
            fire(hooks, "on_step_start", step.name, inputs)
        with _filled(step, function, secrets) as arguments:
            returned = _call(step, function, {**inputs, **arguments})
        outputs = named_outputs(step, returned)
        _refuse_generators(step, outputs.values())
        kept = keep(outputs) if keep else outputs
    except StepStopped:  # the process that stops it fires the hooks
        raise
    except BaseException as error:
        fire(hooks, "on_error", step.name, _masked(error, secrets))
        raise
    if hooks:
        fire(hooks, "on_step_end", step.name, outputs, time.perf_counter() - started)
    return kept


def _masked(error: BaseException, secrets: Mapping[str, str]) -> BaseException:
    """Return the error for hooks: only its text if the step has secrets."""
    if not secrets:
        return error
    from flowyml.runtime.secrets import Mask

    return Mask(secrets.values()).error(error)


@contextmanager
def _filled(step: Step, function: Callable[..., Any], secrets: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the arguments that secrets fill. Secrets for variables are in the environment during the block."""
    if not secrets:
        yield {}
        return
    parameters, before = inspect.signature(function).parameters, dict(os.environ)
    try:
        for name, value in secrets.items():
            if name not in parameters:
                _set_variable(step, name, value)
        with having_secrets(secrets.values()):
            yield {name: value for name, value in secrets.items() if name in parameters}
    finally:
        for name in secrets.keys() - parameters.keys():
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _set_variable(step: Step, name: str, value: str) -> None:
    try:
        os.environ[name] = value
    except ValueError:
        message = f"step {step.name!r}: the secret for {name} has a character that no environment variable can hold."
        raise step_error(StepError, step, message) from None


def _arguments(step: Step, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments: several inputs for one become a list, and JSON of a richer type becomes a value."""
    if not any(item.into or item.typed for item in step.inputs):
        return inputs
    typed = _typed(step, function, inputs) if any(item.typed for item in step.inputs) else inputs
    arguments: dict[str, Any] = {}
    missing = {item.into for item in step.inputs if item.into and item.name not in typed}
    for item in step.inputs:
        if item.name not in typed or item.into in missing:
            continue
        if item.into:
            arguments.setdefault(item.into, []).append(typed[item.name])
        else:
            arguments[item.name] = typed[item.name]
    return arguments


def _typed(step: Step, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    from flowyml.plan.types import revived, wanted

    hints = wanted(function)
    values = dict(inputs)
    for item in step.inputs:
        if item.typed and item.name in inputs:
            try:
                values[item.name] = revived(hints(item), inputs[item.name])
            except ParameterError as error:
                raise ParameterError(f"step {step.name!r}: parameter {item.name!r}: {error}") from error
    return values


def named_outputs(step: Step, returned: Any) -> Outputs:
    """Match the return value of a function with the outputs that the step declares. Raises ``OutputError``.

    A single output is the value itself. Several are a tuple, a list, or a dict with exactly their names as keys.
    Without outputs, the value is dropped.
    """
    names = step.outputs
    if len(names) == 1:
        return {names[0]: returned}
    if not names:
        return {}
    if isinstance(returned, dict) and returned.keys() == set(names):
        return {name: returned[name] for name in names}
    if isinstance(returned, tuple | list) and len(returned) == len(names):
        return dict(zip(names, returned, strict=True))
    raise step_error(
        OutputError, step,
        f"step {step.name!r} declares {len(names)} outputs ({', '.join(map(repr, names))}) and returned "
        f"{_shape(returned)}. Return a tuple of {len(names)}, or a dict with those keys.",
    )  # fmt: skip


def step_error(kind: type[E], step: Step, message: str) -> E:
    """Return an error that knows its step."""
    error = kind(message)
    error.step = step.name
    return error


def _call(step: Step, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    try:
        with ForksEndHere():
            returned = function(**inputs)
            if inspect.isawaitable(returned):
                returned = _wait_for(returned)
    except SystemExit as exit_:  # it would end the process that runs other steps too
        message = f"step {step.name!r} called sys.exit({exit_.code!r}). Let it return, or raise an error."
        raise step_error(StepError, step, message) from exit_
    _refuse_generators(step, (returned,))
    return returned


def _refuse_generators(step: Step, values: Iterable[Any]) -> None:
    """Refuse a generator: its first reader, a consumer or an attempt, would leave nothing for the others."""
    for value in values:
        if type(value) in _GENERATORS:
            kind = "a generator" if type(value) is GeneratorType else "an async generator"
            message = f"step {step.name!r} returned {kind}. Collect what it yields in a list, and return that."
            raise step_error(OutputError, step, message)


def _wait_for(awaitable: Awaitable[Any]) -> Any:
    """Await it to its end; in a separate thread if this one has a running loop, as in a notebook."""
    import asyncio

    async def whole() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(whole())
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, whole()).result()


def _shape(returned: Any) -> str:
    if isinstance(returned, dict):
        keys = [repr(key)[:40] for key in islice(returned, 10)]
        return f"a dict with the keys {', '.join(keys) or '(none)'}{' …' if len(returned) > 10 else ''}"
    if isinstance(returned, tuple | list):
        return f"a {type(returned).__name__} of {len(returned)}"
    return "None" if returned is None else f"one {type(returned).__name__}"
