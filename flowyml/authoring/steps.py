"""Steps, made from functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, cast, overload

from flowyml.authoring.cache import Cache
from flowyml.authoring.options import names_unknown_options
from flowyml.authoring.source_lines import adds_source_line
from flowyml.authoring.step_options import StepOptions, checked_options
from flowyml.core.errors import DefinitionError
from flowyml.core.modules import found_by_name
from flowyml.core.near_names import did_you_mean
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.names import check_name

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")

__all__ = ["Mapped", "Step", "recorder", "step"]


class CallRecorder(Protocol):
    """Records the steps that are called while a pipeline is built from its function."""

    def record(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any: ...
    def record_map(self, step: Step[..., Any], fixed: Mapping[str, Any], over: Mapping[str, Any]) -> Any: ...


recorder: ContextVar[CallRecorder | None] = ContextVar("flowyml_recorder", default=None)


class Step(Generic[P, R]):
    """A function as part of pipelines, which can still be called as it is.

    Inside the function of a ``@pipeline`` a call adds the step to that pipeline; anywhere else it runs the function.
    """

    def __init__(self, function: Callable[P, R], options: StepOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.step_options = options
        self.made_from: Step[P, R] | None = None  # by `options`, which changed these
        self._changes: Mapping[str, Any] = {}
        self._again: Step[P, R] | None = None

    # An async step is awaited if it is called by hand, and stands for its value in the function of a pipeline. No type
    # is both, so its call returns Any; the types of its parameters are checked anyway.
    @overload
    def __call__(self: Step[P, Awaitable[Any]], *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        recording = recorder.get()
        if recording is None:
            return self.function(*args, **kwargs)
        return recording.record(self, args, kwargs)

    @overload
    def map(self: Step[P, Awaitable[A]], **over: Any) -> list[A]: ...
    @overload
    def map(self, **over: Any) -> list[R]: ...
    @adds_source_line
    def map(self, *lists: Any, **over: Any) -> Any:
        """Run the step once for each item of a list: ``scores = train.map(config=configs)``.

        A list is an output of a step, a parameter, or a constant, such as one of plain JSON, dates or paths. Several
        lists must be equally long; the first run takes the first item of each, and so on. A step that takes ``scores``
        gets the list of all items' outputs, in order. ``options(max_parallel=…, on_item_error=…)`` are those of
        ``for_each``. In a pipeline by names, give lists by name: ``add_step(train.map(config="configs"))``.

        Raises ``DefinitionError``.
        """
        return Partial(self, {}).map(*lists, **over)

    @overload
    def partial(self: Step[P, Awaitable[A]], **fixed: Any) -> Partial[A]: ...
    @overload
    def partial(self, **fixed: Any) -> Partial[R]: ...
    @adds_source_line
    def partial(self, **fixed: Any) -> Any:
        """Fill some parameters with the same value for all items: ``train.partial(data=data).map(config=configs)``."""
        return Partial(self, fixed)

    @property
    def name(self) -> str:
        """The name of the step in a pipeline."""
        return self.step_options.name

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs: those declared, else the step's own name, or none for ``-> None``."""
        declared = self.step_options.outputs
        return declared if declared is not None else () if _returns_none(self.function) else (self.name,)

    @property
    def inputs(self) -> Mapping[str, str | tuple[str, ...]]:
        """The source of each parameter if steps are connected by names: an output, a run parameter, or several."""
        declared = self.step_options.inputs
        return {name: name for name in self.signature.parameters} if declared is None else dict(declared)

    @property
    def after(self) -> tuple[str, ...]:
        """The names of steps that must end before without passing data."""
        return self.step_options.after

    @property
    def retry(self) -> OrchestratorRetryPolicy | None:
        """The retry policy; None leaves it to the orchestrator's policy."""
        return self.step_options.retry

    @property
    def timeout(self) -> float | None:
        """The seconds that an attempt may take; None means any time."""
        return self.step_options.timeout

    @property
    def resources(self) -> ResourceRequirements | None:
        """The CPUs, memory and GPUs that the step requests."""
        return self.step_options.resources

    @property
    def secrets(self) -> Mapping[str, str]:
        """Names of secrets, by the parameter or the environment variable to fill."""
        return dict(self.step_options.secrets)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that engines display."""
        return self.step_options.tags

    @property
    def description(self) -> str:
        """A line about the step: as given, else the first line of the docstring."""
        return self.step_options.description

    @property
    def execution_group(self) -> str:
        """The name of the group of steps in one task, process or pod; empty for none."""
        return self.step_options.execution_group

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the function."""
        try:
            return inspect.signature(self.function)
        except ValueError as error:  # some of those that are written in C
            raise DefinitionError(
                f"step {self.name!r}: {self.function!r} has no signature that Python can read, so its parameters are "
                f"unknown. Wrap it in a function."
            ) from error

    @adds_source_line
    def options(
        self,
        *,
        name: str | None = None,
        outputs: Sequence[str] | None = None,
        after: Iterable[str] | str | None = None,
        retry: int | OrchestratorRetryPolicy | None = None,
        timeout: float | None = None,
        resources: ResourceRequirements | None = None,
        run_if: str | None = None,
        max_parallel: int | None = None,
        on_item_error: str | None = None,
        secrets: Mapping[str, str] | None = None,
        execution_group: str | None = None,
        cache: bool | Cache | None = None,
    ) -> Step[P, R]:
        """Return the same function as another step: these options replace those of ``@step``."""
        given = {option: value for option, value in locals().items() if option != "self"}  # all that it takes
        given["resources"] = ResourceRequirements.coerce(resources, stacklevel=4)
        return self._changed(checked_options(self, given))

    def made_again(self, of: Step[P, R]) -> Step[P, R]:
        """Apply this step's changes from ``options`` to ``of``; return this step itself if it was made from ``of``."""
        if of is self.made_from:
            return self
        if self._again is None or self._again.made_from is not of:
            self._again = of._changed(self._changes)
        return self._again

    def _changed(self, changes: Mapping[str, Any]) -> Step[P, R]:
        made = Step(self.function, replace(self.step_options, **changes))
        made.signature = self.signature
        made.made_from, made._changes = self, changes
        return made

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle a step of a module by its name, as a function; else by what it is made of."""
        if found_by_name(self.function) is self:
            return str(self.function.__qualname__)
        original = found_by_name(self.function)
        if isinstance(original, Step) and original.function is self.function:  # a pickle finds that under the name
            return _with_options, (original, self.step_options)
        return Step, (self.function, self.step_options)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"


def _with_options(original: Step[P, R], options: StepOptions) -> Step[P, R]:
    """Unpickle a step that has the function of another, found by name, and options of its own."""
    return Step(original.function, options)


class Partial(Generic[R]):
    """A step with some parameters fixed for all items of a fan-out. Created by ``Step.partial``."""

    def __init__(self, step: Step[..., Any], fixed: Mapping[str, Any]) -> None:
        self.step = step
        self.fixed = fixed

    @adds_source_line
    def map(self, *lists: Any, **over: Any) -> list[R]:
        """Return the same as ``Step.map`` for the other parameters."""
        subject = f"step {self.step.name!r}"
        if lists or not over:
            name = next(
                (each for each in self.step.signature.parameters if each not in {**self.fixed, **over}), "config"
            )
            raise DefinitionError(f"{subject}: map(…) takes lists by the names of its parameters: map({name}=…).")
        if both := sorted(set(over) & set(self.fixed)):
            raise DefinitionError(f"{subject}: {', '.join(map(repr, both))} is both fixed and mapped.")
        parameters = self.step.signature.parameters
        unknown = sorted((over.keys() | self.fixed.keys()) - parameters.keys())
        for name in {"max_parallel", "on_item_error"}.intersection(unknown):
            raise DefinitionError(f"{subject}: {name} is an option: {self.step.name}.options({name}=…).map(…).")
        if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            raise DefinitionError(
                f"{subject} has no parameter {unknown[0]!r}. It takes {self.step.signature}."
                f"{did_you_mean(unknown[0], parameters)}"
            )
        recording = recorder.get()
        if recording is None:
            return cast("list[R]", Mapped(self.step, self.fixed, over))
        return cast("list[R]", recording.record_map(self.step, self.fixed, over))


class Mapped(NamedTuple):
    """A step with the lists of its loop, for ``Pipeline.add_step``, which takes lists by name."""

    step: Step[..., Any]
    fixed: Mapping[str, Any]
    over: Mapping[str, Any]


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    inputs: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    outputs: Sequence[str] | None = None,
    after: Iterable[str] | str = (),
    retry: int | OrchestratorRetryPolicy | None = None,
    timeout: float | None = None,
    resources: ResourceRequirements | Mapping[str, Any] | None = None,
    tags: Iterable[str] = (),
    description: str | None = None,
    run_if: str = "all_success",
    max_parallel: int | None = None,
    on_item_error: str = "fail",
    secrets: Mapping[str, str] = {},
    execution_group: str | None = None,
    cache: bool | Cache | None = None,
    **engines: Mapping[str, Any],
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
@names_unknown_options("step")
def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a step from a function.

    ``inputs`` names the parameters that are filled by outputs of other steps, or maps parameters to outputs:
    ``{"data": "dataset"}``, and ``{"parts": ["first", "second"]}`` for a list of several; left out, every parameter is
    looked up by its name. ``outputs`` names the return value: one name for the value, several for the parts of a tuple;
    left out, there is one output with the step's name. ``after`` names steps that come first. ``retry`` counts retries,
    or is a policy. ``timeout`` is in seconds and makes the step run in its own process. ``description`` defaults to the
    first line of the docstring.

    ``run_if`` is a trigger rule, named as in Airflow: ``"all_done"``. With any rule but ``"all_success"``, parameters
    that other steps fill need a default, for when those steps did not complete. ``max_parallel`` and ``on_item_error``
    are for ``map``. ``secrets`` fills parameters, or environment variables of the step's process, from the engine's
    store of secrets: ``{"password": "warehouse/password"}``. Such a step runs in its own process. Neighbouring steps
    with the same ``execution_group`` run in one task, process or pod, one after another. With ``cache=True``, or a
    ``Cache``, the step reuses the results of an earlier run instead of computing them again. Options for one engine go
    under its name: ``airflow={"pool": "gpu"}``.

    Raises ``DefinitionError`` for invalid options.

    >>> @step(outputs=["model"])
    ... def train(dataset: list[int], rate: float = 0.1) -> float:
    ...     return sum(dataset) * rate
    >>> train([1, 2], rate=1.0)
    3.0
    """

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        if isinstance(function, Step) or not callable(function):
            raise DefinitionError(f"@step decorates a function, once, not {function!r}.")
        _refuse_methods(function)
        name = options.get("name")
        name = check_name(getattr(function, "__name__", None) if name is None else name, "step")
        made = Step(function, StepOptions(name=name, description=_first_line(function)))
        made.step_options = replace(made.step_options, **checked_options(made, options))
        return made

    options["resources"] = ResourceRequirements.coerce(options.get("resources"), stacklevel=5)
    return adds_source_line(decorate) if function is None else decorate(function)


def _refuse_methods(function: Callable[..., Any]) -> None:
    """Refuse a function in a class body: there is no object yet whose method a worker could call."""
    path, _, name = str(getattr(function, "__qualname__", "")).rpartition(".")
    owner = path.rpartition(".")[2]
    if owner in ("", "<locals>") or inspect.ismethod(function):
        return
    code = getattr(function, "__code__", None)
    if code is not None and code.co_varnames[: code.co_argcount][:1] in (("self",), ("cls",)):
        raise DefinitionError(
            f"@step does not work on methods, and {name!r} is one of {owner!r}. Write a function that creates its own "
            f"{owner}, or wrap the method of a picklable object: {name} = step({owner}(…).{name})."
        )


def _returns_none(function: Callable[..., Any]) -> bool:
    annotation = getattr(function, "__annotations__", {}).get("return", inspect.Parameter.empty)
    return annotation is None or annotation == "None"


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
