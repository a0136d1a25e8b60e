"""The common base of the parts of the suite: an orchestrator, folders, and parallel runs of sample pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from flowyml.core.capabilities import Feature, Level
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing.done import CANCELLED, COMPLETED, FAILED, TIMEOUT, Done
from flowyml.testing.samples import Ahead, MakeOrchestrator, sample
from flowyml.testing.waiting import wait_until

__all__ = [
    "CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "Ahead", "Conformance", "Done", "MakeOrchestrator", "sample",
    "wait_until",
]  # fmt: skip


class Conformance:
    """The fixtures of the suite.

    ``run_timeout`` is the limit for a run, also on a busy machine, and ``patience`` the time that a step waits for
    another step that should run beside it, both in seconds. ``step_timeout`` is the timeout of steps that are to
    exceed it, also in seconds; all others must end within it. ``at_once`` is the number of parallel runs of sample
    pipelines, and ``steps_per_run`` the largest number of steps of samples that share a run; with 0, each has a run of
    its own. ``refused`` is for an engine that supports something partly: it maps the names of pipelines beyond its
    limits to words of the error that refuses them.

    The others describe the engine: ``joins_beside_failures`` means that ``either`` has a value although a step failed
    that only a later condition of the choice needs, ``counts_retries`` that attempts keep counting when a run is
    retried, ``limits_each_step`` that ``max_parallel`` of a loop applies to each of its steps separately,
    ``asks_the_cancelled`` that the steps of a cancelled run are asked to stop before they are killed.
    """

    run_timeout = 1200.0
    patience = 240
    step_timeout = 20.0
    at_once = 8
    steps_per_run = 60
    refused: ClassVar[Mapping[str, str]] = {}
    joins_beside_failures = True
    counts_retries = True
    limits_each_step = False
    asks_the_cancelled = True

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls) -> MakeOrchestrator:
        """Override: return a function that creates an orchestrator, and passes ``retry_policy`` and the like on."""
        raise LookupError("Override the fixture make_orchestrator in your subclass of OrchestratorConformance.")

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, make_orchestrator: MakeOrchestrator) -> Orchestrator:
        return make_orchestrator()

    @pytest.fixture(scope="class")
    @classmethod
    def new_folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        """Return a function that creates folders for both workers and the test, under the same path.

        By these, tests learn what steps did. If workers and the test do not share files, override it with a folder that
        is mounted in both.
        """
        return lambda: str(tmp_path_factory.mktemp("shared"))

    @pytest.fixture
    def folder(self, new_folder: Callable[[], str]) -> str:
        """Create such a folder, for one test."""
        return new_folder()

    @pytest.fixture(scope="class")
    @classmethod
    def ahead(
        cls, request: pytest.FixtureRequest, make_orchestrator: MakeOrchestrator, new_folder: Callable[[], str]
    ) -> Iterator[Ahead]:
        """Submit the samples of those tests of the class that were selected."""
        tests = [
            item for item in request.session.items if isinstance(item, pytest.Function) and item.cls is request.cls
        ]
        samples = dict.fromkeys(test.function.sample for test in tests if hasattr(test.function, "sample"))
        ahead = Ahead(list(samples), cls, make_orchestrator, new_folder)
        yield ahead
        ahead.stop()

    @pytest.fixture
    def done(self, request: pytest.FixtureRequest, ahead: Ahead) -> Done:
        """Return the run of the test's ``sample``, ended."""
        return ahead.take(request.function.sample)

    @classmethod
    def finish(cls, handle: SubmissionResult) -> SubmissionResult:
        return handle.wait_for_completion(timeout=cls.run_timeout, poll_interval=0.5)

    def journal(self, folder: Path, lines: int) -> list[str]:
        """Read the lines of the hooks; an engine may call the last hook a moment after it reported the end."""
        path = folder / "journal"
        wait_until(lambda: path.exists() and path.read_text().count("\n") >= lines, f"{lines} lines of hooks")
        return path.read_text().splitlines()

    def needs(self, orchestrator: Orchestrator, feature: Feature, ask: Callable[[], object]) -> None:
        """If the engine lacks the feature, check that a request for it is refused.

        The refusal is then the whole test, and an expected failure. An engine that supports a feature that it denies
        fails here.
        """
        support = orchestrator.capabilities[feature]
        if support.level is not Level.NO:
            return
        _refused(ask)
        pytest.xfail(f"{orchestrator.name} refuses, as it says: {feature.value.lower()}: {support.note}")

    def provides(self, setting: str, ask: Callable[[], object]) -> None:
        """Check the same for a behaviour without a ``Feature``: the attribute says whether the engine has it."""
        if not getattr(self, setting):
            pytest.xfail(f"refused, as {setting} = False says: {_refused(ask)}")


def _refused(ask: Callable[[], object]) -> UnsupportedFeatureError:
    with pytest.raises(UnsupportedFeatureError) as refused:
        ask()
    return refused.value
