"""Pipelines written as a function that calls steps: the calls are recorded, nothing runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from flowyml.authoring.places import Place, errors_at, place_of, users_line
from flowyml.authoring.steps import Step, recorder
from flowyml.core.errors import DefinitionError, FlowymlError
from flowyml.plan.model import Constant, FromParameter, FromStep, PipelineOutput, Source
from flowyml.plan.parameters import is_json, is_too_deep, own_copy, too_deep

__all__ = ["Call", "CallOutput", "Given", "record_calls"]


class _Later:
    """Stands for a value that is known only when the pipeline runs."""

    __slots__ = ("source",)

    def __init__(self, source: Source) -> None:
        self.source = source

    def _refuse(self, *_: Any) -> Any:
        raise DefinitionError(
            f"{self!r} has no value while the pipeline is put together. Decide, loop and compute inside a step."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever looks for a protocol is told that it has none
            raise AttributeError(name)
        self._refuse()

    # Whatever would need the value, by an operator or a built-in function. Without a refusal `==` would be false and
    # an f-string would hold the words of `repr`, and a pipeline would go wrong in silence.
    __bool__ = __iter__ = __len__ = __contains__ = __getitem__ = __str__ = __format__ = _refuse
    __int__ = __float__ = __index__ = __round__ = __abs__ = __neg__ = __pos__ = __invert__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rmatmul__ = _refuse
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __rand__ = __ror__ = __rxor__ = _refuse
    __hash__ = object.__hash__


class CallOutput(_Later):
    """The output of a step that was called in a pipeline's function."""

    source: FromStep

    def __iter__(self) -> NoReturn:
        raise DefinitionError(
            f"{self.source.step!r} gives one output, {self.source.output!r}; to unpack it, name its parts: "
            f"@step(outputs=['a', 'b']). To loop over it, do so inside a step."
        )

    def __repr__(self) -> str:
        return f"<output {self.source.output!r} of step {self.source.step!r}>"


class ParameterValue(_Later):
    """A parameter of the pipeline, as its function sees it."""

    source: FromParameter

    def __repr__(self) -> str:
        return f"<parameter {self.source.name!r}>"


Given = Source | Sequence[Source]
"""What one parameter of a step is filled with; a list of sources becomes a list of their values."""


class Call(NamedTuple):
    """One step of the pipeline with what its parameters were given, and the line that says so.

    ``bound`` is None in a pipeline by names.
    """

    step: Step[..., Any]
    name: str
    outputs: tuple[str, ...]
    bound: Mapping[str, Given] | None = None
    place: Place | None = None


class _Recorder:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.names: set[str] = set()
        self.count: dict[str, int] = {}

    def record(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        name = self._free_name(step.name)
        outputs = step.outputs if step.step_options.outputs is not None or not step.outputs else (name,)
        self.calls.append(Call(step, name, outputs, _bind(step, name, args, kwargs), users_line()))
        values = tuple(CallOutput(FromStep(name, output)) for output in outputs)
        return values[0] if len(values) == 1 else values or None

    def _free_name(self, wanted: str) -> str:
        name = wanted
        while name in self.names:
            self.count[wanted] = self.count.get(wanted, 1) + 1
            name = f"{wanted}_{self.count[wanted]}"
        self.names.add(name)
        return name


def record_calls(
    function: Callable[..., Any], parameters: Mapping[str, FromParameter]
) -> tuple[list[Call], tuple[PipelineOutput, ...] | None]:
    """Call ``function`` once and give the steps it called, and the outputs it returned (None: it returned nothing)."""
    recording = _Recorder()
    token = recorder.set(recording)
    try:
        with errors_at(place_of(function)):
            returned = _called(function, {name: ParameterValue(source) for name, source in parameters.items()})
    finally:
        recorder.reset(token)
    if inspect.iscoroutine(returned):
        returned.close()
        raise DefinitionError(
            f"The function of a pipeline only puts steps together: write {function.__name__!r} without async."
        )
    return recording.calls, _outputs(function.__name__, returned)


def _called(function: Callable[..., Any], parameters: Mapping[str, ParameterValue]) -> Any:
    try:
        return function(**parameters)
    except FlowymlError:
        raise
    except Exception as error:
        raise DefinitionError(
            f"The function of pipeline {function.__name__!r} raised {type(error).__name__}: {error}. It is called to "
            f"put the steps together."
        ).with_traceback(error.__traceback__) from error


def _bind(step: Step[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Given]:
    try:
        bound = step.signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise DefinitionError(f"step {name!r}: {error}. It takes {step.signature}.") from error
    given: dict[str, Given] = {}
    for parameter, value in bound.arguments.items():
        kind = step.signature.parameters[parameter].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise DefinitionError(f"step {name!r}: wiring is by name, so *{parameter} cannot be filled.")
        extra = value.items() if kind is inspect.Parameter.VAR_KEYWORD else ((parameter, value),)
        given.update({key: _given(name, key, item) for key, item in extra})
    return given


def _given(step: str, parameter: str, value: Any) -> Given:
    if type(value) is list and any(isinstance(item, _Later) for item in value):
        return [_source(step, parameter, item) for item in value]
    return _source(step, parameter, value)


def _source(step: str, parameter: str, value: Any) -> Source:
    if isinstance(value, _Later):
        return value.source
    if is_too_deep(value):
        raise DefinitionError(f"step {step!r}: {too_deep(f'parameter {parameter!r}')}")
    if is_json(value):
        return Constant(own_copy(value))
    what = f"a {type(value).__name__}" if isinstance(value, list | tuple | dict | set) else f"{value!r:.120}"
    if _holds_outputs(value):
        raise DefinitionError(
            f"step {step!r}: parameter {parameter!r} was given {what} with outputs of steps in it. Give them in a "
            f"plain list, or as keywords to a **parameter."
        )
    raise DefinitionError(
        f"step {step!r}: parameter {parameter!r} was given {what}, which is not plain JSON. Give it an output of a "
        f"step, a list of outputs, a parameter of the pipeline, or plain JSON."
    )


def _holds_outputs(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple | set):
        return isinstance(value, _Later)
    return any(map(_holds_outputs, value))


def _outputs(function: str, returned: Any) -> tuple[PipelineOutput, ...] | None:
    if returned is None:
        return None
    if isinstance(returned, Mapping):
        pairs = list(returned.items())
    else:
        values = returned if isinstance(returned, tuple | list) else (returned,)
        pairs = [(value.source.output if isinstance(value, CallOutput) else "?", value) for value in values]
    for name, value in pairs:
        if not isinstance(value, CallOutput):
            raise DefinitionError(
                f"Pipeline function {function!r} returns {value!r:.60}. Return outputs of steps, or a dict of them."
            )
        if [other for other, _ in pairs].count(name) > 1:
            raise DefinitionError(
                f"Pipeline function {function!r} returns two outputs named {name!r}. Return a dict that names each."
            )
    return tuple(PipelineOutput(str(name), value.source) for name, value in pairs)
