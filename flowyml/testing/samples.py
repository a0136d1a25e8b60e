"""Sample pipelines of tests: the tests that use each, and shared runs."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from flowyml import Pipeline, pipeline
from flowyml.core.capabilities import Feature, Level
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing.done import Done

if TYPE_CHECKING:
    from flowyml.testing.base import Conformance

__all__ = ["IN_VAIN", "Ahead", "MakeOrchestrator", "pack", "sample"]

MakeOrchestrator = Callable[..., Orchestrator]
Test = TypeVar("Test", bound=Callable[..., None])
_PREFIX = "conformance "

IN_VAIN = 2
"""Seconds that a step waits for a step that does not run beside it."""


@dataclass(frozen=True, eq=False)
class sample:  # noqa: N801  # it is used as a decorator
    """Give a test the fixture ``done``: a run of this pipeline, submitted in parallel with those of neighbouring tests.

    The pipeline is created for a folder, and submitted with parameters to an orchestrator with options. ``settings``
    names attributes of the suite that ``make`` takes, too. If the engine lacks a feature in ``needs``, the test checks
    that the pipeline is refused. Several tests may use one run::

        maps = sample(pipelines.maps, needs=[Feature.FAN_OUT], shares_run=True)

        @maps
        def test_…(self, done: Done) -> None: …

    With ``shares_run`` other samples may be part of the run: it must complete, call nothing at its end (hooks), and no
    step of it may wait for another one.
    """

    make: Callable[..., Pipeline]
    needs: Sequence[Feature] = ()
    parameters: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[str] = ()
    shares_run: bool = False

    def __call__(self, test: Test) -> Test:
        test.sample = self  # type: ignore[attr-defined]  # read from the test's function again
        return test


def pack(name: str, parts: Mapping[str, Pipeline]) -> Pipeline:
    """Return a pipeline that calls the parts, and has all their parameters, steps and outputs.

    The names of its steps and outputs begin with the key of their pipeline, ``maps.double``, and so do those of
    parameters, by ``parameter_name``.
    """
    declared = {key: _parameters(part) for key, part in parts.items()}

    def packed(**parameters: Any) -> Any:
        outputs: dict[str, Any] = {}
        for key, part in parts.items():
            called = copy.copy(part)
            called.name = key
            names = [output.name for output in part.compile().outputs]
            result = called(**{parameter: parameters[parameter_name(key, parameter)] for parameter in declared[key]})
            values = result if isinstance(result, tuple) else (result,)
            returned = result if isinstance(result, dict) else dict(zip(names, values, strict=False))
            outputs |= {f"{key}.{output}": returned[output] for output in names}
        return outputs

    all_of_them = [
        parameter.replace(name=parameter_name(key, parameter.name), kind=inspect.Parameter.KEYWORD_ONLY)
        for key, parameters in declared.items()
        for parameter in parameters.values()
    ]
    packed.__signature__ = inspect.Signature(all_of_them)  # type: ignore[attr-defined]  # what inspect looks for
    packed.__annotations__ = {parameter.name: parameter.annotation for parameter in all_of_them}
    return pipeline(name=name)(packed)


def parameter_name(key: str, parameter: str) -> str:
    """Return the name in a pack of a parameter of the pipeline ``key``."""
    return f"{key}_{parameter}".replace(" ", "_")


def _parameters(part: Pipeline) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a ``@pipeline`` function; those of a pipeline by names keep their values."""
    function = getattr(part, "function", None)
    return inspect.signature(function, eval_str=True).parameters if function else {}


@dataclass
class _Run:
    """A submitted run of one or several samples, each with a folder of its own; without a handle it has an error."""

    folders: Mapping[sample, str]
    handle: SubmissionResult | None = None
    error: Exception | None = None
    done: dict[sample, Done] = field(default_factory=dict)


class Ahead:
    """Submits the samples of a class before their tests, a few runs at a time.

    An engine spends most of a small run waiting, so a few runs in parallel take little longer than one; and it takes
    longer to begin a run than to run one more step, so samples share runs of up to ``steps_per_run`` steps if the
    engine supports pipelines in pipelines.
    """

    def __init__(
        self, samples: Sequence[sample], suite: type[Conformance], make: MakeOrchestrator, new_folder: Callable[[], str]
    ) -> None:
        self.samples = samples
        self.suite = suite
        self.make = make
        self.new_folder = new_folder
        self.refusals: dict[sample, str] = {}
        self.started: dict[tuple[sample, ...], _Run] = {}

    def take(self, wanted: sample) -> Done:
        """Return the run of a sample, ended.

        If the engine must refuse it, the refusal is the whole test, and an expected failure.
        """
        if wanted not in self.refusals:
            self.refusals[wanted] = self.refusal(wanted)
        if self.refusals[wanted]:
            pytest.xfail(self.refusals[wanted])
        (first,) = (number for number, group in enumerate(self.groups) if wanted in group)
        for group in self.groups[first : first + self.suite.at_once]:
            if group not in self.started and (wanted in group or not self.is_running(self.name(group))):
                self.started[group] = self.submit(group)
        run = self.started[self.groups[first]]
        if run.handle is None:
            raise run.error or AssertionError("submitting gave no handle")
        if wanted not in run.done:
            prefix = f"{self.key(wanted)}." if len(run.folders) > 1 else ""
            run.done[wanted] = Done(self.suite.finish(run.handle), Path(run.folders[wanted]), prefix)
        return run.done[wanted]

    @cached_property
    def groups(self) -> Sequence[tuple[sample, ...]]:
        """The samples that the engine must run, in the order of their tests, grouped by shared runs."""
        wanted = [one for one in self.samples if not self.reasons(one)]
        sharing: list[list[sample]] = []
        steps, limit = 0, self.suite.steps_per_run
        if self.make().capabilities[Feature.SUB_PIPELINES].level is Level.NO:
            limit = 0
        for one in wanted:
            if one.shares_run and limit:
                count = len(self.made(one).compile().steps)
                if not sharing or steps + count > limit or self.key(one) in map(self.key, sharing[-1]):
                    sharing.append([])
                    steps = 0
                sharing[-1].append(one)
                steps += count
        with_others = {one: tuple(group) for group in sharing for one in group if len(group) > 1}
        return list(dict.fromkeys(with_others.get(one, (one,)) for one in wanted))

    def reasons(self, one: sample) -> list[str]:
        """Return the reasons for which the engine must refuse a sample; empty if it must run it."""
        orchestrator = self.make(**one.options)
        lacks = [
            (need, support) for need in one.needs if (support := orchestrator.capabilities[need]).level is Level.NO
        ]
        if lacks:
            return [f"{need.value.lower()}; {orchestrator.name!r} cannot: {support.note}" for need, support in lacks]
        name = self.made(one).name
        return [self.suite.refused[name]] if name in self.suite.refused else []

    def refusal(self, one: sample) -> str:
        """Check that the engine refuses a sample and sends nothing; return its reason, or "" if it need not refuse."""
        reasons = self.reasons(one)
        if not reasons:
            return ""
        orchestrator, made = self.make(**one.options), self.made(one)
        before = orchestrator.runs(made.name)
        with pytest.raises(UnsupportedFeatureError) as refused:
            orchestrator.run_pipeline(made, parameters=one.parameters)
        for reason in reasons:
            assert reason in str(refused.value)
        assert orchestrator.runs(made.name) == before, "nothing was sent"
        return f"{orchestrator.name} refuses, as it says: {'; '.join(reasons)}"

    def made(self, one: sample, folder: str = tempfile.gettempdir()) -> Pipeline:
        return one.make(folder, **{name: self.settings.get(name, getattr(self.suite, name)) for name in one.settings})

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings that follow from missing features: steps that cannot run in parallel wait less."""
        lacks_parallel = self.make().capabilities[Feature.PARALLEL_STEPS].level is Level.NO
        return {"patience": IN_VAIN} if lacks_parallel else {}

    def key(self, one: sample) -> str:
        """Return the prefix of the names of its steps in a shared run."""
        return self.made(one).name.removeprefix(_PREFIX)

    def name(self, group: Sequence[sample]) -> str:
        """Return the name of the pipeline that runs these samples."""
        name = self.made(group[0]).name
        return name if len(group) == 1 else f"{name} and others"

    def is_running(self, name: str) -> bool:
        """Return whether a run of this pipeline is active: some engines would run the last deployment for two runs."""
        return any(run.handle and not run.done and self.name(group) == name for group, run in self.started.items())

    def submit(self, group: Sequence[sample]) -> _Run:
        first, folders = group[0], {one: self.new_folder() for one in group}
        parts = {one: self.made(one, folder) for one, folder in folders.items()}
        try:
            if len(group) == 1:
                handle = self.make(**first.options).run_pipeline(parts[first], parameters=first.parameters)
            else:
                parameters = {
                    parameter_name(self.key(one), name): value
                    for one in group
                    for name, value in (one.parameters or {}).items()
                }
                packed = pack(self.name(group), {self.key(one): part for one, part in parts.items()})
                handle = self.make().run_pipeline(packed, parameters=parameters)
        except Exception as error:  # it is the error of the samples' own tests
            return _Run(folders, error=error)
        return _Run(folders, handle)

    def stop(self) -> None:
        """Stop all runs that no test has requested."""
        for run in self.started.values():
            if run.handle is not None and not run.done:
                with suppress(Exception):
                    run.handle.cancel()
