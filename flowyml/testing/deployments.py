"""Objects on the engine: compiled files, deployments and their differences, schedules."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar

import pytest

from flowyml import Pipeline
from flowyml.core.capabilities import Feature
from flowyml.core.errors import OwnershipError, ParameterError, ScheduleNotFoundError
from flowyml.core.origin import Origin
from flowyml.core.schedule import Schedule, ScheduleInfo
from flowyml.orchestrators.base import Orchestrator
from flowyml.plan.bundle import Bundle, build
from flowyml.testing import compiling, pipelines
from flowyml.testing.base import Conformance, wait_until

__all__ = ["DeploymentConformance", "ScheduleConformance"]


class DeploymentConformance(Conformance):
    """Files for the engine, and the differences of a deployment.

    Set ``compiles_files`` and ``shows_differences`` to False for an engine that lacks them; it must then refuse.
    ``compile_options`` are the options with which another process constructs the engine's class to compile.
    """

    compile_options: ClassVar[Mapping[str, str]] = {}
    compiles_files = True
    shows_differences = True

    def test_the_same_pipeline_compiles_to_the_same_files(self, orchestrator: Orchestrator) -> None:
        self.provides("compiles_files", lambda: orchestrator.compile_pipeline(pipelines.hostile()))
        first = dict(orchestrator.compile_pipeline(pipelines.hostile()))
        assert first
        assert {type(data) for data in first.values()} == {bytes}
        assert all(first.values())
        again = dict(orchestrator.compile_pipeline(pipelines.hostile()))
        assert list(again) == list(first), "the main file comes first"
        assert again == first
        assert orchestrator.compile_pipeline(pipelines.greeting()) != orchestrator.compile_pipeline(
            pipelines.greeting("goodbye")
        )

    def test_another_process_compiles_to_the_same_files(self, orchestrator: Orchestrator) -> None:
        """Compile in another process, in which sets have another order."""
        self.provides("compiles_files", lambda: orchestrator.compile_pipeline(pipelines.hostile()))
        kind, options = type(orchestrator), self.compile_options
        assert compiling.digests_elsewhere(kind, options) == compiling.digests(kind, options)

    def test_the_difference_is_empty_once_it_is_deployed(self, orchestrator: Orchestrator) -> None:
        name = f"conformance difference {time.time_ns()}"
        old, new = (self.bundle(orchestrator, pipelines.greeting(word, name=name)) for word in ("hello", "goodbye"))
        self.provides("shows_differences", lambda: orchestrator.diff(old))
        assert orchestrator.diff(old), "nothing is deployed yet"
        assert orchestrator.deploy(old).changed
        assert orchestrator.diff(old) == ""
        assert not orchestrator.deploy(old).changed
        second = int(time.time())
        assert (shown := orchestrator.diff(new))
        assert orchestrator.diff(new) == shown, "showing a difference deploys nothing"
        wait_until(lambda: int(time.time()) > second, "the next second, by which engines may order versions")
        assert orchestrator.deploy(new).changed
        assert orchestrator.diff(new) == ""

    def bundle(self, orchestrator: Orchestrator, pipeline: Pipeline) -> Bundle:
        return pipeline.bundle(orchestrator.plan(pipeline))


@pytest.mark.filterwarnings("ignore:.*nothing will fire.*:UserWarning")
class ScheduleConformance(Conformance):
    """Schedules on the engine.

    Scheduling again changes the times, not the state: a paused schedule stays paused.
    """

    def test_create_list_pause_resume_delete(self, orchestrator: Orchestrator) -> None:
        schedule = Schedule.of("daily", "03:30", parameters={"name": "early"})
        with self.scheduled(orchestrator, Feature.SCHEDULE_CRON, schedule) as made:
            assert (made.pipeline, made.paused) == ("conformance greeting", False)
            assert self.listed(orchestrator, made.schedule_id).schedule.cron == "30 3 * * *"
            assert orchestrator.pause_schedule(made.schedule_id).paused
            assert self.listed(orchestrator, made.schedule_id).paused
            assert not orchestrator.resume_schedule(made.schedule_id).paused
            resumed = self.listed(orchestrator, made.schedule_id)
            assert (dict(resumed.schedule.parameters), resumed.drift) == ({"name": "early"}, ())
        assert made.schedule_id not in [info.schedule_id for info in orchestrator.schedules()]
        with pytest.raises(ScheduleNotFoundError):
            orchestrator.pause_schedule(made.schedule_id)

    def test_scheduling_again_updates_in_place(self, orchestrator: Orchestrator) -> None:
        later = Schedule.of("hourly", 7, parameters={"name": "later"})
        with self.scheduled(orchestrator, Feature.SCHEDULE_CRON, Schedule.of("hourly", 5)) as first:
            second = orchestrator.schedule_pipeline(pipelines.greeting(), later)
            assert second.schedule_id == first.schedule_id
            (info,) = orchestrator.schedules("conformance greeting")
            assert (info.schedule.cron, dict(info.schedule.parameters)) == ("7 * * * *", {"name": "later"})

    def test_scheduling_again_leaves_a_paused_schedule_paused(self, orchestrator: Orchestrator) -> None:
        with self.scheduled(orchestrator, Feature.SCHEDULE_CRON, Schedule.of("hourly", 5)) as made:
            self.needs(orchestrator, Feature.SCHEDULE_PAUSE, lambda: orchestrator.pause_schedule(made.schedule_id))
            orchestrator.pause_schedule(made.schedule_id)
            again = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("hourly", 7))
            info = self.listed(orchestrator, made.schedule_id)
            assert (again.paused, info.paused) == (True, True)
            assert info.schedule.cron == "7 * * * *"

    def test_a_deployment_sets_the_schedule_that_its_pipeline_declares(self, orchestrator: Orchestrator) -> None:
        name = f"conformance declared {time.time_ns()}"
        hourly = Schedule.of("hourly", 5, parameters={"name": "early"})
        first, second = (pipelines.greeting(name=name, schedule=each) for each in (hourly, Schedule.of("hourly", 7)))
        with self.deployed(orchestrator, Feature.SCHEDULE_CRON, first) as made:
            assert (made.schedule, made.paused, made.drift) == (hourly, False, ())
            assert not orchestrator.deploy_pipeline(first).changed
            orchestrator.pause_schedule(made.schedule_id)
            assert '"7 * * * *"' in orchestrator.diff(second.bundle(orchestrator.plan(second)))
            assert orchestrator.deploy_pipeline(second).scheduled
            (changed,) = orchestrator.schedules(name)
            assert (changed.schedule.cron, changed.paused) == ("7 * * * *", True)
            orchestrator.deploy_pipeline(pipelines.greeting(name=name))
            assert orchestrator.schedules(name)[0].schedule.cron == "7 * * * *", "one that declares none leaves it"

    def test_a_schedule_begins_paused_where_that_is_asked_for(self, orchestrator: Orchestrator) -> None:
        hourly = Schedule.of("hourly", 5, paused=True)
        resting = pipelines.greeting(name=f"conformance begun paused {time.time_ns()}", schedule=hourly)
        with self.deployed(orchestrator, Feature.SCHEDULE_PAUSE, resting) as made:
            assert made.paused
            assert not orchestrator.resume_schedule(made.schedule_id).paused
            orchestrator.deploy_pipeline(resting)
            assert not self.listed(orchestrator, made.schedule_id).paused

    def test_next_runs_are_in_the_time_zone(self, orchestrator: Orchestrator) -> None:
        schedule = Schedule.of("daily", 6, timezone="America/New_York")
        with self.scheduled(orchestrator, Feature.SCHEDULE_TIMEZONE, schedule) as made:
            assert self.next_runs(orchestrator, made.schedule_id)[0] == schedule.next_times()[0]

    def test_next_runs_are_on_the_day_of_the_week(self, orchestrator: Orchestrator) -> None:
        """Check the weekday: some schedulers count the days from Monday, but cron counts them from Sunday."""
        schedule = Schedule.of("cron", "0 9 * * 1")
        with self.scheduled(orchestrator, Feature.SCHEDULE_CRON, schedule) as made:
            assert self.next_runs(orchestrator, made.schedule_id)[0] == schedule.next_times()[0]

    def test_intervals(self, orchestrator: Orchestrator) -> None:
        with self.scheduled(orchestrator, Feature.SCHEDULE_INTERVAL, Schedule.of("interval", 7200)) as made:
            assert self.listed(orchestrator, made.schedule_id).schedule.interval_seconds == 7200
            first = self.next_runs(orchestrator, made.schedule_id)[0]
            assert first <= datetime.now(UTC) + timedelta(seconds=7200)

    def test_what_another_project_scheduled_is_kept(self, orchestrator: Orchestrator) -> None:
        hourly, greeting = Schedule.of("hourly", 5), pipelines.greeting(name="conformance owner")
        self.needs(orchestrator, Feature.SCHEDULE_CRON, lambda: orchestrator.schedule_pipeline(greeting, hourly))
        plan = orchestrator.plan(greeting)
        first, second = (build(plan, origin=Origin(project, "greet.py")) for project in ("first", "second"))
        made = orchestrator.create_schedule(first, hourly, force=True)  # a test before may have left it to `second`
        try:
            schedule = partial(orchestrator.create_schedule, schedule=hourly)
            for replace in (orchestrator.check_deployable, orchestrator.deploy, schedule):
                with pytest.raises(OwnershipError):
                    replace(second)
            assert orchestrator.create_schedule(second, hourly, force=True).schedule_id == made.schedule_id
        finally:
            orchestrator.delete_schedule(made.schedule_id)

    def test_parameters_of_a_schedule_are_checked(self, orchestrator: Orchestrator) -> None:
        schedule = Schedule.of("hourly", 1, parameters={"name": 1})
        self.needs(
            orchestrator, Feature.SCHEDULE_CRON, lambda: orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
        )
        with pytest.raises(ParameterError):
            orchestrator.schedule_pipeline(pipelines.greeting(), schedule)

    @contextmanager
    def scheduled(self, orchestrator: Orchestrator, feature: Feature, schedule: Schedule) -> Iterator[ScheduleInfo]:
        """Schedule the greeting, which needs the feature, for the block."""
        self.needs(orchestrator, feature, lambda: orchestrator.schedule_pipeline(pipelines.greeting(), schedule))
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
        try:
            yield made
        finally:
            orchestrator.delete_schedule(made.schedule_id)

    @contextmanager
    def deployed(self, orchestrator: Orchestrator, feature: Feature, pipeline: Pipeline) -> Iterator[ScheduleInfo]:
        """Deploy a pipeline that declares a schedule, which needs the feature, for the block."""
        self.needs(orchestrator, feature, lambda: orchestrator.deploy_pipeline(pipeline))
        assert '"5 * * * *"' in orchestrator.diff(pipeline.bundle(orchestrator.plan(pipeline)))
        orchestrator.deploy_pipeline(pipeline)
        assert orchestrator.diff(pipeline.bundle(orchestrator.plan(pipeline))) == ""
        (made,) = orchestrator.schedules(pipeline.name)
        try:
            yield made
        finally:
            orchestrator.delete_schedule(made.schedule_id)

    def listed(self, orchestrator: Orchestrator, schedule_id: str) -> ScheduleInfo:
        (info,) = [info for info in orchestrator.schedules() if info.schedule_id == schedule_id]
        return info

    def next_runs(self, orchestrator: Orchestrator, schedule_id: str) -> tuple[datetime, ...]:
        """Return the times planned by the engine, whose scheduler may take a moment."""
        wait_until(lambda: bool(self.listed(orchestrator, schedule_id).next_runs), "the engine plans a run")
        return tuple(self.listed(orchestrator, schedule_id).next_runs)
