"""A pipeline written as a function that calls steps: ``@pipeline``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from flowyml.authoring.calls import Recorded, Recorder, as_placeholder, record_calls
from flowyml.authoring.grouping import Grouping
from flowyml.authoring.notebooks import newest, version_in_notebook
from flowyml.authoring.options import names_unknown_options
from flowyml.authoring.pipeline import Pipeline
from flowyml.authoring.run_parameters import declared_parameter, type_of
from flowyml.authoring.source_lines import adds_source_line, line_of
from flowyml.authoring.steps import Mapped, Step
from flowyml.core.errors import DefinitionError
from flowyml.core.hooks import PipelineHook
from flowyml.plan.model import FromParameter, Parameter
from flowyml.plan.types import is_rich, type_hints

if TYPE_CHECKING:
    from flowyml.core.schedule import Schedule

__all__ = ["FunctionPipeline", "pipeline"]


class FunctionPipeline(Pipeline):
    """A pipeline that a function defines by calling steps. Created by ``@pipeline``."""

    def __init__(self, function: Callable[..., Any], name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__
        self._line = line_of(function) or self._line
        self._recorded: Recorded | None = None
        self._version = ""

    @adds_source_line
    def add_step(self, step: Step[..., Any] | Mapped | list[Any]) -> Pipeline:
        raise DefinitionError(f"Pipeline {self.name!r} is defined by its function: call {step!r} there.")

    def _grouping_for(self, verb: str) -> Grouping:
        raise DefinitionError(f"Pipeline {self.name!r} is defined by its function: use flowyml.{verb} there.")

    def _record(self) -> Recorded:
        version = version_in_notebook(self.function)
        known = self._recorded
        if known is None or version != self._version or any(newest(call.step) is not call.step for call in known.calls):
            sources = {name: FromParameter(name) for name in inspect.signature(self.function).parameters}
            if both := sorted(set(sources) & set(self.context)):
                raise DefinitionError(
                    f"Pipeline {self.name!r}: {', '.join(both)} is both a parameter and in the context."
                )
            made = record_calls(self.function, sources)
            known = self._recorded = made._replace(calls=[call._replace(step=newest(call.step)) for call in made.calls])
            self._version = version
        return known

    def _defaults_in_another(self) -> Mapping[str, Any]:
        return self.context

    def _recorded_in(self, recording: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            bound = inspect.signature(self.function).bind(*args, **kwargs)
        except TypeError as error:
            raise DefinitionError(f"Pipeline {self.name!r}: {error}.") from error
        bound.apply_defaults()
        types = self._own_types()
        values = {
            name: as_placeholder(f"Pipeline {self.name!r}", name, value, types[name] if is_rich(types[name]) else None)
            for name, value in bound.arguments.items()
        }
        return self.function(**values)

    def _own_types(self) -> Mapping[str, object]:
        hints = type_hints(self.function)
        parameters = inspect.signature(self.function).parameters
        return {name: hints[name] if name in hints else type_of(item.default) for name, item in parameters.items()}

    def _own_parameters(self) -> tuple[Parameter, ...]:
        types = self._own_types()
        return tuple(
            declared_parameter(self.name, item, types[name])
            for name, item in inspect.signature(self.function).parameters.items()
        )

    def _home(self) -> Callable[..., Any] | None:
        return self.function

    def _has_steps(self) -> bool:
        return True


@overload
def pipeline(function: Callable[..., Any], /) -> Pipeline: ...
@overload
def pipeline(
    *,
    name: str | None = None,
    hooks: Iterable[PipelineHook] = (),
    context: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    timeout: float | None = None,
    tags: Iterable[str] = (),
    description: str | None = None,
    include: Iterable[str] = (),
    enable_cache: bool | None = None,
    schedule: Schedule | None = None,
    **engines: Mapping[str, Any],
) -> Callable[[Callable[..., Any]], Pipeline]: ...
@names_unknown_options("pipeline")
def pipeline(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    hooks: Iterable[PipelineHook] = (),
    context: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    timeout: float | None = None,
    tags: Iterable[str] = (),
    description: str | None = None,
    include: Iterable[str] = (),
    enable_cache: bool | None = None,
    schedule: Schedule | None = None,
    **engines: Mapping[str, Any],
) -> Any:
    """Make a pipeline from a function that calls steps. The function's parameters are those of a run.

    The function is called once, when the pipeline is compiled; steps do not run then. Its return value becomes the
    outputs of the pipeline: an output of a step, a tuple of them, or a dict that names them.

    >>> from flowyml import pipeline, step
    >>> @step
    ... def double(number: int) -> int:
    ...     return 2 * number
    >>> @pipeline
    ... def quadruple(number: int = 3):
    ...     return {"result": double(double(number))}
    >>> quadruple.run({"number": 5})["result"]
    20
    """

    def decorate(function: Callable[..., Any]) -> Pipeline:
        if isinstance(function, Step | Pipeline) or not callable(function):
            raise DefinitionError(f"@pipeline decorates a plain function, not {function!r}.")
        doc = (inspect.getdoc(function) or "").partition("\n")[0]
        return FunctionPipeline(
            function, name or function.__name__, hooks=hooks, context=context, outputs=outputs, timeout=timeout,
            tags=tags, description=doc if description is None else description, include=include,
            enable_cache=enable_cache, schedule=schedule, **engines,
        )  # fmt: skip

    return adds_source_line(decorate) if function is None else decorate(function)
