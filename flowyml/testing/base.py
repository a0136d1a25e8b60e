"""What the parts of the suite share: an orchestrator, folders, and runs of sample pipelines beside one another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from flowyml import Pipeline
from flowyml.core.capabilities import Feature, Level
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator

__all__ = ["Conformance", "Done", "MakeOrchestrator", "sample"]

MakeOrchestrator = Callable[..., Orchestrator]
Test = TypeVar("Test", bound=Callable[..., None])


class Done(NamedTuple):
    """A run that has ended, and the folder that its steps saw."""

    run: SubmissionResult
    folder: Path


@dataclass(frozen=True, eq=False)
class _Sample:
    """The pipeline that a test looks at: made for a folder, submitted with parameters, to an orchestrator with options.

    Where the feature that it ``needs`` is lacking, the test is that the pipeline is refused.
    """

    make: Callable[[str], Pipeline]
    needs: Feature | None = None
    parameters: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def sample(make: Callable[[str], Pipeline], **about: Any) -> Callable[[Test], Test]:
    """Give a test the fixture ``done``: a run of this pipeline, submitted beside those of the tests around it."""

    def marked(test: Test) -> Test:
        test.sample = _Sample(make, **about)  # type: ignore[attr-defined]  # read from the test's function again
        return test

    return marked


@dataclass
class _Started:
    """What became of submitting a sample."""

    folder: str
    handle: SubmissionResult | None = None
    error: Exception | None = None


class _Ahead:
    """Submits the samples of a class before their tests ask for them, a few at a time.

    An engine spends most of a small run waiting, so a few of them beside one another take little more than one.
    """

    def __init__(
        self, samples: Sequence[_Sample], make: MakeOrchestrator, new_folder: Callable[[], str], at_once: int
    ) -> None:
        self.samples = samples
        self.make = make
        self.new_folder = new_folder
        self.at_once = at_once
        self.started: dict[_Sample, _Started] = {}

    def take(self, wanted: _Sample) -> tuple[SubmissionResult, Path]:
        """The run of a sample, handed out once: a test that is tried again gets another."""
        first = self.samples.index(wanted)
        for one in self.samples[first : first + self.at_once]:
            if one not in self.started and not self.lacking(one):
                self.started[one] = self.submitted(one)
        taken = self.started.pop(wanted)
        if taken.handle is None:
            raise taken.error or AssertionError("submitting gave no handle")
        return taken.handle, Path(taken.folder)

    def lacking(self, one: _Sample) -> bool:
        return one.needs is not None and self.make(**one.options).capabilities[one.needs].level is Level.NO

    def submitted(self, one: _Sample) -> _Started:
        folder = self.new_folder()
        try:
            handle = self.make(**one.options).run_pipeline(one.make(folder), parameters=one.parameters)
        except Exception as error:  # it is the error of the sample's own test
            return _Started(folder, error=error)
        return _Started(folder, handle)

    def stop(self) -> None:
        """Leave nothing running that no test has asked for."""
        for one in self.started.values():
            with suppress(Exception):
                assert one.handle is not None
                one.handle.cancel()


class Conformance:
    """The fixtures of the suite.

    ``run_timeout`` is how long one small run may take, in seconds, and ``at_once`` how many of the sample pipelines the
    engine is given at a time.
    """

    run_timeout = 90.0
    at_once = 4

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls) -> MakeOrchestrator:
        """Override: gives a function that makes an orchestrator, passing ``retry_policy`` and the like through."""
        raise LookupError("Override the fixture make_orchestrator in your subclass of OrchestratorConformance.")

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, make_orchestrator: MakeOrchestrator) -> Orchestrator:
        return make_orchestrator()

    @pytest.fixture(scope="class")
    @classmethod
    def new_folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        """Makes folders that workers and the test see both, by the same path. Override it where they do not see each
        other's files: make them in one that is mounted in both, or skip."""
        return lambda: str(tmp_path_factory.mktemp("shared"))

    @pytest.fixture
    def folder(self, new_folder: Callable[[], str]) -> str:
        """One such folder, for one test."""
        return new_folder()

    @pytest.fixture(scope="class")
    @classmethod
    def ahead(
        cls, request: pytest.FixtureRequest, make_orchestrator: MakeOrchestrator, new_folder: Callable[[], str]
    ) -> Iterator[_Ahead]:
        """Submits the samples of those tests of the class that were selected."""
        tests = [
            item for item in request.session.items if isinstance(item, pytest.Function) and item.cls is request.cls
        ]
        samples = [test.function.sample for test in tests if hasattr(test.function, "sample")]
        ahead = _Ahead(samples, make_orchestrator, new_folder, cls.at_once)
        yield ahead
        ahead.stop()

    @pytest.fixture
    def done(self, request: pytest.FixtureRequest, make_orchestrator: MakeOrchestrator, ahead: _Ahead) -> Done:
        """The run of the test's ``sample``, once it has ended."""
        wanted: _Sample = request.function.sample
        if wanted.needs is not None:
            orchestrator = make_orchestrator(**wanted.options)
            self.needs(orchestrator, wanted.needs, lambda: orchestrator.plan(wanted.make(tempfile.gettempdir())))
        handle, folder = ahead.take(wanted)
        return Done(self.finish(handle), folder)

    @classmethod
    def finish(cls, handle: SubmissionResult) -> SubmissionResult:
        return handle.wait_for_completion(timeout=cls.run_timeout, poll_interval=0.25)

    def needs(self, orchestrator: Orchestrator, feature: Feature, ask: Callable[[], object]) -> None:
        """Where the feature is lacking, prove that asking for it is refused: that is then the whole test, and counts as
        an expected failure. An engine that can do what it denies fails here."""
        support = orchestrator.capabilities[feature]
        if support.level is not Level.NO:
            return
        with pytest.raises(UnsupportedFeatureError):
            ask()
        pytest.xfail(f"{orchestrator.name} refuses, as it says: {feature.value.lower()}: {support.note}")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look again and again until it holds; fails with ``what`` did not come after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
