"""What the parts of the suite share: an orchestrator, folders, and runs of sample pipelines in parallel."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from flowyml import Pipeline
from flowyml.core.capabilities import Feature, Level
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import StepRun
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator

__all__ = ["Ahead", "Conformance", "Done", "MakeOrchestrator", "sample", "wait_until"]

MakeOrchestrator = Callable[..., Orchestrator]
Test = TypeVar("Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Done:
    """A run that has ended, and the folder that its steps saw.

    ``steps`` are its step runs by label, such as ``train[3]`` for an item; ``trace`` has the lines that steps wrote to
    the file of that name, in order. Both are read once, since several tests may look at one run.
    """

    run: SubmissionResult
    folder: Path

    @cached_property
    def steps(self) -> Mapping[str, StepRun]:
        return {run.label: run for run in self.run.step_runs()}

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        return self.run.outputs

    @cached_property
    def trace(self) -> Sequence[str]:
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []

    def statuses(self, *names: str) -> Mapping[str, ExecutionStatus]:
        """Those of all items of these steps, by label."""
        return {label: run.status for label, run in self.steps.items() if run.name in names}

    def index(self, line: str) -> int:
        """The position of a line in the trace; fails unless the line occurs exactly once."""
        assert self.trace.count(line) == 1, f"{line!r} in {self.trace}"
        return self.trace.index(line)


@dataclass(frozen=True, eq=False)
class sample:  # noqa: N801  # it is used as a decorator
    """Give a test the fixture ``done``: a run of this pipeline, submitted in parallel with those of neighbouring tests.

    The pipeline is made for a folder, and submitted with parameters to an orchestrator with options. ``settings`` names
    attributes of the suite that ``make`` takes too. If the engine lacks a feature that it ``needs``, the test is that
    the pipeline is refused. Several tests may look at one run::

        maps = sample(pipelines.maps, needs=[Feature.FAN_OUT])

        @maps
        def test_…(self, done: Done) -> None: …
    """

    make: Callable[..., Pipeline]
    needs: Sequence[Feature] = ()
    parameters: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Sequence[str] = ()

    def __call__(self, test: Test) -> Test:
        test.sample = self  # type: ignore[attr-defined]  # read from the test's function again
        return test


@dataclass
class _Started:
    """A submitted sample, and the tests that have looked at it."""

    folder: str
    handle: SubmissionResult | None = None
    error: Exception | None = None
    done: Done | None = None
    seen_by: set[str] = field(default_factory=set)


class Ahead:
    """Submits the samples of a class before their tests ask for them, a few at a time.

    An engine spends most of a small run waiting, so a few runs in parallel take little longer than one.
    """

    def __init__(
        self, samples: Sequence[sample], suite: type[Conformance], make: MakeOrchestrator, new_folder: Callable[[], str]
    ) -> None:
        self.samples = samples
        self.suite = suite
        self.make = make
        self.new_folder = new_folder
        self.started: dict[sample, _Started] = {}
        self.refusals: dict[sample, str] = {}

    def take(self, wanted: sample, test: str) -> Done:
        """The run of a sample, once it has ended; a test that is rerun gets another one.

        If the engine must refuse it, the refusal is the whole test, and an expected failure.
        """
        if wanted not in self.refusals:
            self.refusals[wanted] = self.refusal(wanted)
        if self.refusals[wanted]:
            pytest.xfail(self.refusals[wanted])
        if wanted in self.started and test in self.started[wanted].seen_by:
            del self.started[wanted]
        first = self.samples.index(wanted)
        for one in self.samples[first : first + self.suite.at_once]:
            if one not in self.started and not self.reasons(one) and not (one is not wanted and self.is_running(one)):
                self.started[one] = self.submit(one)
        taken = self.started[wanted]
        taken.seen_by.add(test)
        if taken.handle is None:
            raise taken.error or AssertionError("submitting gave no handle")
        taken.done = taken.done or Done(self.suite.finish(taken.handle), Path(taken.folder))
        return taken.done

    def is_running(self, one: sample) -> bool:
        """Whether another sample of the same pipeline is running: some engines would run the last deployment for
        both.
        """
        name = self.made(one, tempfile.gettempdir()).name
        going_on = [other for other, started in self.started.items() if started.handle and started.done is None]
        return any(self.made(other, tempfile.gettempdir()).name == name for other in going_on)

    def reasons(self, one: sample) -> list[str]:
        """The reasons that the engine must give for refusing a sample; empty if it must run it."""
        orchestrator = self.make(**one.options)
        lacks = [
            (need, support) for need in one.needs if (support := orchestrator.capabilities[need]).level is Level.NO
        ]
        said = [f"{need.value.lower()}; {orchestrator.name!r} cannot: {support.note}" for need, support in lacks]
        name = self.made(one, tempfile.gettempdir()).name
        return [*said, *([self.suite.refused[name]] if name in self.suite.refused and not said else [])]

    def refusal(self, one: sample) -> str:
        """Check that the engine refuses a sample and sends nothing; returns its reason, or nothing if it need not
        refuse.
        """
        reasons = self.reasons(one)
        if not reasons:
            return ""
        orchestrator, pipeline = self.make(**one.options), self.made(one, tempfile.gettempdir())
        before = orchestrator.runs(pipeline.name)
        with pytest.raises(UnsupportedFeatureError) as refused:
            orchestrator.run_pipeline(pipeline, parameters=one.parameters)
        for reason in reasons:
            assert reason in str(refused.value)
        assert orchestrator.runs(pipeline.name) == before, "nothing was sent"
        return f"{orchestrator.name} refuses, as it says: {'; '.join(reasons)}"

    def made(self, one: sample, folder: str) -> Pipeline:
        return one.make(folder, **{name: getattr(self.suite, name) for name in one.settings})

    def submit(self, one: sample) -> _Started:
        folder = self.new_folder()
        try:
            handle = self.make(**one.options).run_pipeline(self.made(one, folder), parameters=one.parameters)
        except Exception as error:  # it is the error of the sample's own test
            return _Started(folder, error=error)
        return _Started(folder, handle)

    def stop(self) -> None:
        """Leave nothing running that no test has asked for."""
        for one in self.started.values():
            if one.handle is not None and one.done is None:
                with suppress(Exception):
                    one.handle.cancel()


class Conformance:
    """The fixtures of the suite.

    ``run_timeout`` is how long one small run may take, ``patience`` how long a step waits for one that should run
    beside it, both in seconds, and ``at_once`` how many sample pipelines run at a time. ``refused`` is for an engine
    that supports something partly: it maps the names of pipelines beyond its limits to words of the error that refuses
    them. ``joins_beside_failures`` says that ``either`` has a value although a step failed that only a later condition
    of the choice needs, ``counts_retries`` that attempts keep counting when a run is retried, ``limits_each_step`` that
    ``max_parallel`` of a loop applies to each of its steps separately, ``asks_the_cancelled`` that the steps of a
    cancelled run are asked to stop before they are killed.
    """

    run_timeout = 180.0
    patience = 60
    at_once = 4
    refused: ClassVar[Mapping[str, str]] = {}
    joins_beside_failures = True
    counts_retries = True
    limits_each_step = False
    asks_the_cancelled = True

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls) -> MakeOrchestrator:
        """Override: returns a function that makes an orchestrator, and passes ``retry_policy`` and the like on."""
        raise LookupError("Override the fixture make_orchestrator in your subclass of OrchestratorConformance.")

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, make_orchestrator: MakeOrchestrator) -> Orchestrator:
        return make_orchestrator()

    @pytest.fixture(scope="class")
    @classmethod
    def new_folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        """Makes folders that both workers and the test see under the same path, which is how tests learn what steps
        did. If they do not see each other's files, override it to use a folder that is mounted in both.
        """
        return lambda: str(tmp_path_factory.mktemp("shared"))

    @pytest.fixture
    def folder(self, new_folder: Callable[[], str]) -> str:
        """One such folder, for one test."""
        return new_folder()

    @pytest.fixture(scope="class")
    @classmethod
    def ahead(
        cls, request: pytest.FixtureRequest, make_orchestrator: MakeOrchestrator, new_folder: Callable[[], str]
    ) -> Iterator[Ahead]:
        """Submits the samples of those tests of the class that were selected."""
        tests = [
            item for item in request.session.items if isinstance(item, pytest.Function) and item.cls is request.cls
        ]
        samples = dict.fromkeys(test.function.sample for test in tests if hasattr(test.function, "sample"))
        ahead = Ahead(list(samples), cls, make_orchestrator, new_folder)
        yield ahead
        ahead.stop()

    @pytest.fixture
    def done(self, request: pytest.FixtureRequest, ahead: Ahead) -> Done:
        """The run of the test's ``sample``, once it has ended."""
        return ahead.take(request.function.sample, request.node.nodeid)

    @classmethod
    def finish(cls, handle: SubmissionResult) -> SubmissionResult:
        return handle.wait_for_completion(timeout=cls.run_timeout, poll_interval=0.25)

    def journal(self, folder: Path, lines: int) -> list[str]:
        """What the hooks wrote; an engine may call the last one a moment after it reported the end."""
        path = folder / "journal"
        wait_until(lambda: path.exists() and path.read_text().count("\n") >= lines, 120, f"{lines} lines of hooks")
        return path.read_text().splitlines()

    def needs(self, orchestrator: Orchestrator, feature: Feature, ask: Callable[[], object]) -> None:
        """If the feature is lacking, check that asking for it is refused: that is then the whole test, and an expected
        failure. An engine that can do what it denies fails here.
        """
        support = orchestrator.capabilities[feature]
        if support.level is not Level.NO:
            return
        _refused(ask)
        pytest.xfail(f"{orchestrator.name} refuses, as it says: {feature.value.lower()}: {support.note}")

    def provides(self, setting: str, ask: Callable[[], object]) -> None:
        """The same for something without a ``Feature``: the attribute with this name says whether the engine has it."""
        if not getattr(self, setting):
            pytest.xfail(f"refused, as {setting} = False says: {_refused(ask)}")


def _refused(ask: Callable[[], object]) -> UnsupportedFeatureError:
    with pytest.raises(UnsupportedFeatureError) as refused:
        ask()
    return refused.value


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until it holds; fails with ``what`` if it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
