"""Record the calls of a pipeline that is written as a function; no step runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from flowyml.authoring.constants import constant, is_constant
from flowyml.authoring.grouping import Grouping
from flowyml.authoring.placeholders import CallOutput, EitherValue, Expression, ItemValue, ParameterValue, Placeholder
from flowyml.authoring.source_lines import SourceLine, errors_at, line_of, users_line
from flowyml.authoring.steps import Step, recorder
from flowyml.core.errors import DefinitionError, FlowymlError
from flowyml.plan.groups import Group, Loop, Section
from flowyml.plan.model import FromItem, FromParameter, FromStep, Input, PipelineOutput, Source
from flowyml.plan.model import Step as PlanStep
from flowyml.plan.parameters import is_too_deep, too_deep
from flowyml.plan.types import CONSTANTS

__all__ = ["Call", "Recorded", "Recorder", "Sources", "as_placeholder", "list_source", "record_calls"]


Sources = Source | Sequence[Source]
"""The source of one parameter of a step; a list of sources becomes a list of their values."""


class Call(NamedTuple):
    """One step of the pipeline with the arguments of its parameters, and the line of the call.

    ``bound`` is None in a pipeline by names, and ``items`` are then the parameters that are items of a loop. ``group``
    is the innermost group around the step.
    """

    step: Step[..., Any]
    name: str
    outputs: tuple[str, ...]
    bound: Mapping[str, Sources] | None = None
    line: SourceLine | None = None
    group: str = ""
    items: Mapping[str, Source] = {}


class Recorded(NamedTuple):
    """The recorded calls of a pipeline's function. ``returned`` is None if the function returned nothing.

    ``lines`` are the lines of its blocks, by their groups.
    """

    calls: Sequence[Call]
    groups: Sequence[Group] = ()
    returned: tuple[PipelineOutput, ...] | None = None
    lines: Mapping[str, SourceLine] = {}


class Recorder:
    """Records the calls that a pipeline's function makes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls: list[Call] = []
        self.grouping = Grouping()
        self._names: set[str] = set()
        self._count: dict[str, int] = {}
        self._prefix = ""
        self._context: Mapping[str, Any] = {}
        self._inside: list[object] = [function]

    def record(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Record one step, and return placeholders for its outputs."""
        name = self._free_name(f"{self._prefix}{step.name}")
        return self._add(step, name, _bind(step, name, args, kwargs))

    def record_map(self, step: Step[..., Any], fixed: Mapping[str, Any], over: Mapping[str, Any]) -> Any:
        """Record one step that runs for each item of the lists in ``over``."""
        name = self._free_name(f"{self._prefix}{step.name}")
        subject = f"step {name!r}: map"
        lists = tuple(Input(key, list_source(f"{subject}({key}=…)", value)) for key, value in over.items())
        options = step.step_options
        loop = Loop(name=name, over=lists, max_parallel=options.max_parallel, on_item_error=options.on_item_error)
        with self.grouping.open(loop) as opened:
            items = {item.name: ItemValue(FromItem(opened.name, item.name)) for item in lists}
            return self._add(step, name, _bind(step, name, (), {**fixed, **items}))

    @contextmanager
    def section(
        self, pipeline: str, description: str, context: Mapping[str, Any], function: object
    ) -> Iterator[None]:  # fmt: skip
        """Record the calls within as those of a called pipeline; ``context`` supplies arguments that the calls omit."""
        if any(function is outer for outer in self._inside):
            raise DefinitionError(f"Pipeline {pipeline!r} calls itself, and could never be compiled.")
        before = self._prefix, self._context
        self._inside.append(function)
        section = Section(name=f"{self._prefix}{pipeline}", pipeline=pipeline, description=description)
        with self.grouping.open(section) as opened:
            self._prefix, self._context = f"{opened.name}.", context
            try:
                yield
            finally:
                self._prefix, self._context = before
                self._inside.pop()

    def record_wired(self, call: Call, wired: PlanStep, value_of: Callable[[Source], Any]) -> dict[Source, Any]:
        """Record a step of a pipeline by names, with its known sources; return placeholders for its outputs."""
        name = self._free_name(f"{self._prefix}{wired.name}")
        bound: dict[str, Any] = {}
        for item in wired.inputs:
            value = value_of(item.source)
            if item.into:
                bound.setdefault(item.into, []).append(value)
            else:
                bound[item.name] = value
        self._add(call.step, name, {key: _sources_of(name, key, value) for key, value in bound.items()}, wired.outputs)
        return {FromStep(wired.name, output): CallOutput(FromStep(name, output)) for output in wired.outputs}

    def _add(
        self, step: Step[..., Any], name: str, bound: dict[str, Sources], outputs: tuple[str, ...] | None = None
    ) -> Any:
        if outputs is None:
            own = step.outputs if step.step_options.outputs is not None else ()
            outputs = own or ((name.removeprefix(self._prefix),) if step.outputs else ())
        left_out = step.signature.parameters.keys() & self._context.keys() - bound.keys()
        bound.update({key: constant(self._context[key]) for key in sorted(left_out)})
        self.grouping.note_step()
        self.calls.append(Call(step, name, outputs, bound, users_line(), self.grouping.current))
        values = tuple(CallOutput(FromStep(name, output)) for output in outputs)
        return values[0] if len(values) == 1 else values or None

    def _free_name(self, stem: str) -> str:
        name = stem
        while name in self._names:
            self._count[stem] = self._count.get(stem, 1) + 1
            name = f"{stem}_{self._count[stem]}"
        self._names.add(name)
        return name


def record_calls(function: Callable[..., Any], parameters: Mapping[str, FromParameter]) -> Recorded:
    """Call ``function`` once and return what it recorded."""
    recording = Recorder(function)
    token = recorder.set(recording)
    try:
        with errors_at(line_of(function)):
            returned = _call_function(function, {name: ParameterValue(source) for name, source in parameters.items()})
            recording.grouping.check_blocks()
    finally:
        recorder.reset(token)
    if inspect.iscoroutine(returned):
        returned.close()
        raise DefinitionError(
            f"The function of a pipeline only connects steps: write {function.__name__!r} without async."
        )
    grouping = recording.grouping
    return Recorded(recording.calls, grouping.groups, _outputs(function.__name__, returned), grouping.lines)


def as_placeholder(subject: str, parameter: str, value: object, kind: object = None) -> Placeholder:
    """Convert an argument to the value that the called pipeline receives. Raises ``DefinitionError``.

    ``kind`` is the annotation of its parameter, if that is restored from JSON.
    """
    if isinstance(value, Placeholder):
        return value
    if not is_constant(value):
        raise DefinitionError(
            f"{subject}: parameter {parameter!r} was given {value!r:.80}. Give it an output of a step, a parameter, or "
            f"{CONSTANTS}."
        )
    return ParameterValue(constant(value, kind))


def list_source(subject: str, value: object) -> Source:
    """Return the source of a loop's items. Raises ``DefinitionError`` for anything but a list."""
    if isinstance(value, Placeholder):
        return value.source
    if isinstance(value, list | tuple) and is_constant(list(value)):
        return constant(list(value))
    raise DefinitionError(
        f"{subject} takes an output of a step, a parameter or a list of {CONSTANTS}, not {value!r:.80}."
    )


def _call_function(function: Callable[..., Any], parameters: Mapping[str, ParameterValue]) -> Any:
    try:
        return function(**parameters)
    except FlowymlError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"The function of pipeline {function.__name__!r} raised {type(error).__name__}: {error}. FlowyML calls it "
            f"once, when it compiles the pipeline, to record the steps."
        ).with_traceback(error.__traceback__) from error


def _bind(step: Step[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Sources]:
    try:
        bound = step.signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise DefinitionError(f"step {name!r}: {error}. It takes {step.signature}.") from error
    arguments: dict[str, Sources] = {}
    for parameter, value in bound.arguments.items():
        kind = step.signature.parameters[parameter].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise DefinitionError(f"step {name!r}: wiring is by name, so *{parameter} cannot be filled.")
        extra = value.items() if kind is inspect.Parameter.VAR_KEYWORD else ((parameter, value),)
        arguments.update({key: _sources_of(name, key, item) for key, item in extra})
    return arguments


def _sources_of(step: str, parameter: str, value: Any) -> Sources:
    if type(value) is list and any(isinstance(item, Placeholder) for item in value):
        return [_source(step, parameter, item) for item in value]
    return _source(step, parameter, value)


def _source(step: str, parameter: str, value: Any) -> Source:
    if isinstance(value, Placeholder):
        return value.source
    if isinstance(value, Expression):
        raise DefinitionError(
            f"step {step!r}: parameter {parameter!r} was given the condition {value}. Compute it inside a step; "
            f"conditions are for when(…)."
        )
    if is_too_deep(value):
        raise DefinitionError(f"step {step!r}: {too_deep(f'parameter {parameter!r}')}")
    if is_constant(value):
        return constant(value)
    what = f"a {type(value).__name__}" if isinstance(value, list | tuple | dict | set) else f"{value!r:.120}"
    if _holds_outputs(value):
        raise DefinitionError(
            f"step {step!r}: parameter {parameter!r} was given {what} with outputs of steps in it. Give them in a "
            f"plain list, or as keywords to a **parameter."
        )
    raise DefinitionError(
        f"step {step!r}: parameter {parameter!r} was given {what}, which JSON cannot hold. Give it an output of a "
        f"step, a list of outputs, a parameter of the pipeline, or {CONSTANTS}."
    )


def _holds_outputs(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple | set):
        return isinstance(value, Placeholder)
    return any(map(_holds_outputs, value))


def _outputs(function: str, returned: Any) -> tuple[PipelineOutput, ...] | None:
    if returned is None:
        return None
    if isinstance(returned, Mapping):
        pairs = list(returned.items())
    else:
        values = returned if isinstance(returned, tuple | list) else (returned,)
        pairs = [(_output_name(value), value) for value in values]
    for name, value in pairs:
        if not isinstance(value, CallOutput | EitherValue):
            what = f"{value!r:.60} as {name!r}" if isinstance(returned, Mapping) else f"{value!r:.60}"
            hint = " A call of a step that returns None has no output." if value is None else ""
            raise DefinitionError(
                f"Pipeline function {function!r} returns {what}. Return outputs of steps, or a dict of them.{hint}"
            )
        if [other for other, _ in pairs].count(name) > 1:
            raise DefinitionError(
                f"Pipeline function {function!r} returns two outputs named {name!r}. Return a dict that names each."
            )
    return tuple(PipelineOutput(str(name), value.source) for name, value in pairs)


def _output_name(value: object) -> str:
    """Return the name of an output that the function returns without one.

    For ``either``, the common name of its outputs.
    """
    if isinstance(value, CallOutput):
        return value.source.output
    names = {output.output for output in value.source.outputs} if isinstance(value, EitherValue) else set()
    return names.pop() if len(names) == 1 else "either"
