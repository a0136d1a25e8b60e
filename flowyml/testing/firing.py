"""Active schedules: the runs that they start, and the dates of these runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from flowyml.core.capabilities import Feature, Level
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines
from flowyml.testing.base import COMPLETED, Conformance, MakeOrchestrator, wait_until

__all__ = ["FiringConformance"]


class FiringConformance(Conformance):
    """A schedule with two runs, ``every`` so many seconds, within ``run_timeout``.

    ``knows_data_intervals`` is False for an engine whose scheduled runs have only a logical date.
    """

    every = 5
    knows_data_intervals = True

    @pytest.fixture(scope="class")
    @classmethod
    def schedule(cls) -> Schedule:
        return Schedule.of("interval", cls.every, parameters={"name": "the schedule"})

    @pytest.fixture(scope="class")
    @classmethod
    def fired(cls, make_orchestrator: MakeOrchestrator, schedule: Schedule) -> Sequence[SubmissionResult]:
        """Return the first two runs, ended; none if the engine has no such schedules."""
        orchestrator, pipeline = make_orchestrator(), pipelines.on_time()
        if orchestrator.capabilities[Feature.SCHEDULE_INTERVAL].level is Level.NO:
            return ()

        earlier = {run.job_id for run in orchestrator.runs(pipeline.name)}

        def ended() -> list[str]:
            runs = [run for run in orchestrator.runs(pipeline.name) if run.job_id not in earlier]
            return [run.job_id for run in reversed(runs) if run.status.is_terminal]

        made = orchestrator.schedule_pipeline(pipeline, schedule)
        try:
            wait_until(lambda: len(ended()) > 1, "the schedule fires twice")
            return [orchestrator.attach(job_id) for job_id in ended()[:2]]
        finally:
            orchestrator.delete_schedule(made.schedule_id)

    @pytest.fixture
    def seen(
        self, fired: Sequence[SubmissionResult], schedule: Schedule, orchestrator: Orchestrator
    ) -> Sequence[Sequence[Any]]:
        """Return the steps' reports on their runs; if the engine refuses the schedule, that is the whole test."""
        self.needs(
            orchestrator,
            Feature.SCHEDULE_INTERVAL,
            lambda: orchestrator.schedule_pipeline(pipelines.on_time(), schedule),
        )
        for handle in fired:
            assert handle.status is COMPLETED, handle.error
        return [handle.outputs["seen"] for handle in fired]

    def test_runs_have_the_parameters_of_the_schedule(self, seen: Sequence[Sequence[Any]]) -> None:
        assert [name for name, *_ in seen] == ["the schedule"] * 2

    def test_each_run_is_for_its_time_on_the_schedule(self, seen: Sequence[Sequence[Any]]) -> None:
        first, second = (datetime.fromisoformat(logical) for _, _, logical, *_ in seen)
        assert second - first >= timedelta(seconds=self.every)
        assert (second - first) % timedelta(seconds=self.every) == timedelta(0)

    def test_a_parameter_is_filled_with_the_time(self, seen: Sequence[Sequence[Any]]) -> None:
        assert [day for _, day, *_ in seen] == [logical for _, _, logical, *_ in seen]

    def test_the_data_interval_ends_at_that_time(self, seen: Sequence[Sequence[Any]]) -> None:
        for _, _, logical, *interval in seen:
            begin = datetime.fromisoformat(logical) - timedelta(seconds=self.every)
            wanted = [begin.isoformat(), logical] if self.knows_data_intervals else [None, None]
            assert interval == wanted
