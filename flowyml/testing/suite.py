"""What every orchestrator promises, as tests. See the package's docstring for how to use them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline
from flowyml.core.capabilities import Feature, Level
from flowyml.core.errors import (
    DefinitionError,
    ParameterError,
    RunNotFoundError,
    ScheduleNotFoundError,
    UnsupportedFeatureError,
    WaitTimeoutError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators.base import Orchestrator
from flowyml.testing import pipelines

__all__ = ["OrchestratorConformance"]

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
CANCELLED, TIMEOUT = ExecutionStatus.CANCELLED, ExecutionStatus.TIMEOUT


class _Base:
    """What the parts of the suite share. ``run_timeout`` is how long one small run may take, in seconds."""

    run_timeout = 90.0

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls) -> Callable[..., Orchestrator]:
        """Override: gives a function that makes an orchestrator, passing ``retry_policy`` and the like through."""
        raise LookupError("Override the fixture make_orchestrator in your subclass of OrchestratorConformance.")

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, make_orchestrator: Callable[..., Orchestrator]) -> Orchestrator:
        return make_orchestrator()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        """A folder that workers and the test see both, by the same path. Override it where they do not see each
        other's files: give one that is mounted in both, or skip."""
        return str(tmp_path)

    @classmethod
    def finish(cls, handle: SubmissionResult) -> SubmissionResult:
        return handle.wait_for_completion(timeout=cls.run_timeout, poll_interval=0.5)

    def needs(self, orchestrator: Orchestrator, feature: Feature, pipeline: Pipeline | None = None) -> None:
        """Where the feature is lacking, prove that a pipeline which needs it is refused; then skip the rest."""
        if orchestrator.capabilities[feature].level is not Level.NO:
            return
        if pipeline is not None:
            with pytest.raises(UnsupportedFeatureError):
                orchestrator.plan(pipeline)
        pytest.skip(f"{orchestrator.name} says no to: {feature.value}")


class RunConformance(_Base):
    """A run that goes well, and its handle."""

    @pytest.fixture(scope="class")
    @classmethod
    def done(cls, orchestrator: Orchestrator) -> SubmissionResult:
        """One finished run that several tests look at."""
        handle = orchestrator.run_pipeline(pipelines.greeting(), parameters={"name": "Ada"})
        return cls.finish(handle)

    def test_a_run_completes_and_gives_its_outputs(self, done: SubmissionResult) -> None:
        assert done.status is COMPLETED, done.error
        assert done.outputs == {"greeting": "hello Ada"}
        assert done.error is None
        assert done.raw_status
        assert 0 < done.duration_seconds < self.run_timeout

    def test_step_statuses(self, done: SubmissionResult) -> None:
        assert done.step_statuses() == {"gather": COMPLETED, "join": COMPLETED}
        assert all(run.attempt == 1 and run.started_at and run.ended_at for run in done.step_runs())

    def test_logs_hold_what_a_step_printed(self, done: SubmissionResult) -> None:
        lines = [line for line in done.logs() if "gathering words for Ada" in line.message]
        assert [line.step for line in lines] == ["gather"]

    def test_what_a_step_logs_keeps_its_level(self, done: SubmissionResult) -> None:
        lines = [line for line in done.logs() if "Ada has few words" in line.message]
        assert [(line.step, line.level, line.message) for line in lines] == [("gather", "WARNING", "Ada has few words")]

    def test_following_the_logs_of_a_finished_run_ends(self, done: SubmissionResult) -> None:
        assert any("gathering words" in line.message for line in done.logs(follow=True))

    def test_a_handle_can_be_rebuilt(
        self, done: SubmissionResult, make_orchestrator: Callable[..., Orchestrator]
    ) -> None:
        again = make_orchestrator().attach(done.job_id)
        assert (again.run_id, again.status, again.outputs) == (done.run_id, COMPLETED, done.outputs)
        assert again.url == done.url

    def test_the_result_has_it_all(self, done: SubmissionResult) -> None:
        result = done.result()
        assert result.success
        assert result["greeting"] == "hello Ada"
        assert result.step_results["join"].success

    def test_a_finished_run_cannot_be_cancelled(self, done: SubmissionResult) -> None:
        assert done.cancel() is False
        assert done.status is COMPLETED

    def test_runs_are_listed_newest_first(self, orchestrator: Orchestrator, done: SubmissionResult) -> None:
        newer = self.finish(orchestrator.run_pipeline(pipelines.greeting()))
        listed = [run.job_id for run in orchestrator.runs("conformance greeting")]
        assert listed.index(newer.job_id) < listed.index(done.job_id)
        assert orchestrator.runs("no such pipeline") == []
        assert len(orchestrator.runs(limit=1)) == 1

    def test_status_by_job_id(self, orchestrator: Orchestrator, done: SubmissionResult) -> None:
        assert orchestrator.get_run_status(done.job_id) is COMPLETED

    @pytest.mark.parametrize("job_id", ["no-such-run", "5f1a4d02-0000-4000-8000-000000000000", "../x", ""])
    def test_an_unknown_job_is_an_error_and_never_a_status(self, orchestrator: Orchestrator, job_id: str) -> None:
        with pytest.raises(RunNotFoundError):
            orchestrator.get_run_status(job_id)
        with pytest.raises(RunNotFoundError):
            orchestrator.attach(job_id)

    def test_steps_know_when_their_run_is_for(self, orchestrator: Orchestrator) -> None:
        before = datetime.now(UTC)
        handle = self.finish(orchestrator.run_pipeline(pipelines.timed()))
        assert handle.status is COMPLETED, handle.error
        day, date, *interval, name, typed = handle.outputs["first"]
        assert day == date == handle.outputs["second"], "the same in all steps, and in the parameter"
        assert abs(datetime.fromisoformat(date) - before).total_seconds() < self.run_timeout
        assert (interval, name) == ([None, None], "tell")
        assert typed == [True, True], "a parameter that is a datetime, and one that is a date"

    def test_values_come_back_as_they_were(self, orchestrator: Orchestrator) -> None:
        handle = self.finish(orchestrator.run_pipeline(pipelines.values()))
        assert handle.status is COMPLETED, handle.error
        assert handle.outputs["same"] is True
        assert handle.outputs["value_again"] == pipelines.VALUES

    def test_every_step_sees_values_as_they_were_returned(self, orchestrator: Orchestrator) -> None:
        handle = self.finish(orchestrator.run_pipeline(pipelines.mutating()))
        assert handle.status is COMPLETED, handle.error
        assert handle.outputs["seen"] == [
            "appended=[1]", "sorted=[3, 1, 2]", "nested={'a': [1]}", "updated={'a': 1}", "popped={'a': 1}", "added={1}",
            "bytes=bytearray(b'a')", "in_tuple=([1],)", "rotated=deque(['a', 'b'])", "counted=Counter({'a': 1})",
        ]  # fmt: skip
        assert [a == b for a, b in zip(handle.outputs["seen"], handle.outputs["changed"], strict=True)] == [False] * 10

    def test_large_and_odd_values_pass_between_steps(self, orchestrator: Orchestrator) -> None:
        handle = self.finish(orchestrator.run_pipeline(pipelines.large()))
        assert handle.status is COMPLETED, handle.error
        assert handle.outputs["size"] == 2**20

    def test_outputs_of_several_steps_become_one_list(self, orchestrator: Orchestrator) -> None:
        handle = self.finish(orchestrator.run_pipeline(pipelines.gathering(), parameters={"limit": 5}))
        assert handle.status is COMPLETED, handle.error
        assert handle.outputs == {"sizes": [5, 2**20, 1, 5, "and", "end"]}

    def test_dates_and_paths_can_be_parameters(self, orchestrator: Orchestrator) -> None:
        given = {"day": date(2026, 2, 1), "at": "2026-01-31T10:30:00+00:00"}
        handle = self.finish(orchestrator.run_pipeline(pipelines.dated(), parameters=given))
        assert handle.status is COMPLETED, handle.error
        week = ["Sunday", "10:30 UTC", "rows", "[datetime.date(2026, 2, 1), None]"]
        assert handle.outputs == {"week": week}

    def test_independent_steps_run_at_the_same_time(self, orchestrator: Orchestrator, folder: str) -> None:
        self.needs(orchestrator, Feature.PARALLEL_STEPS)
        handle = self.finish(orchestrator.run_pipeline(pipelines.meeting(folder)))
        assert handle.status is COMPLETED, handle.error

    def test_blocking_execution(self, orchestrator: Orchestrator) -> None:
        result = pipelines.greeting().run({"name": "you"}, on=orchestrator)
        assert result.success, result.error
        assert result["greeting"] == "hello you"

    def test_names_cannot_break_out(self, orchestrator: Orchestrator) -> None:
        pipeline = pipelines.hostile()
        handle = self.finish(orchestrator.run_pipeline(pipeline))
        assert handle.status is COMPLETED, handle.error
        assert handle.outputs == {"größe 🚀": "üü"}
        assert set(handle.step_statuses()) == set(pipeline.compile().by_name)

    def test_parameters_are_checked_before_anything_is_sent(self, orchestrator: Orchestrator) -> None:
        before = len(orchestrator.runs())
        with pytest.raises(ParameterError, match="'name' must be of type string"):
            orchestrator.run_pipeline(pipelines.greeting(), parameters={"name": 1})
        assert len(orchestrator.runs()) == before


class FailureConformance(_Base):
    """Runs that fail, retry, take too long, or are stopped."""

    def test_a_failure_is_told_and_stops_only_what_depends_on_it(self, orchestrator: Orchestrator) -> None:
        handle = self.finish(orchestrator.run_pipeline(pipelines.failing()))
        assert handle.status is FAILED
        assert handle.error is not None
        assert "broken" in handle.error
        assert "the number 13 is not lucky" in handle.error
        assert handle.step_statuses() == {
            "broken": FAILED, "after_broken": CANCELLED, "healthy": COMPLETED, "after_healthy": COMPLETED,
        }  # fmt: skip
        assert handle.outputs == {}
        assert not handle.result().success
        told = "\n".join(line.message for line in handle.logs() if line.step == "broken")
        assert "Traceback (most recent call last)" in told
        assert "site-packages" not in told  # nothing of the engine's own

    def test_retries_until_it_works(self, orchestrator: Orchestrator, folder: str) -> None:
        policy = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0.1)
        pipeline = pipelines.flaky(folder, policy, failures=2)
        self.needs(orchestrator, Feature.STEP_RETRY, pipeline)
        handle = self.finish(orchestrator.run_pipeline(pipeline))
        assert handle.status is COMPLETED, handle.error
        assert handle.outputs == {"attempt": 3}
        assert [run.attempt for run in handle.step_runs()] == [3]

    def test_only_errors_that_are_worth_it_are_retried(self, orchestrator: Orchestrator, folder: str) -> None:
        policy = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0.1, retryable_errors=["Connection"])
        pipeline = pipelines.flaky(folder, policy, failures=9, error="ValueError")
        self.needs(orchestrator, Feature.RETRYABLE_ERRORS, pipeline)
        handle = self.finish(orchestrator.run_pipeline(pipeline))
        assert handle.status is FAILED
        assert (Path(folder) / "attempts").read_text() == "x"

    def test_the_orchestrators_policy_covers_steps_without_one(
        self, make_orchestrator: Callable[..., Orchestrator], folder: str
    ) -> None:
        policy = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0.1, retryable_errors=["Connection"])
        orchestrator = make_orchestrator(retry_policy=policy)
        pipeline = pipelines.flaky(folder, policy, failures=1)
        self.needs(orchestrator, Feature.STEP_RETRY, pipeline)
        bare = pipelines.flaky(folder, None, failures=1)  # type: ignore[arg-type]  # no policy of its own
        assert self.finish(orchestrator.run_pipeline(bare)).outputs == {"attempt": 2}

    def test_a_step_timeout_stops_the_work(self, orchestrator: Orchestrator, folder: str) -> None:
        pipeline = pipelines.beating(folder, step_timeout=2)
        self.needs(orchestrator, Feature.STEP_TIMEOUT, pipeline)
        handle = self.finish(orchestrator.run_pipeline(pipeline))
        assert handle.status is FAILED
        assert handle.step_statuses() == {"beat": TIMEOUT}
        self.has_stopped(folder)
        assert (Path(folder) / "tidied").exists(), "it was asked to stop before it was killed"

    def test_a_pipeline_timeout_stops_the_work(self, orchestrator: Orchestrator, folder: str) -> None:
        pipeline = pipelines.beating(folder, timeout=4)
        self.needs(orchestrator, Feature.PIPELINE_TIMEOUT, pipeline)
        handle = self.finish(orchestrator.run_pipeline(pipeline))
        assert handle.status is TIMEOUT
        self.has_stopped(folder)

    def test_cancel_stops_the_work(self, orchestrator: Orchestrator, folder: str) -> None:
        self.needs(orchestrator, Feature.CANCEL)
        handle = orchestrator.run_pipeline(pipelines.beating(folder))
        self.has_started(folder)
        assert handle.status is ExecutionStatus.RUNNING
        assert handle.cancel() is True
        assert self.finish(handle).status is CANCELLED
        self.has_stopped(folder)
        assert handle.step_statuses() == {"beat": CANCELLED}

    def test_waiting_ends_and_the_run_goes_on(self, orchestrator: Orchestrator, folder: str) -> None:
        started = time.monotonic()
        handle = orchestrator.run_pipeline(pipelines.beating(folder))
        assert time.monotonic() - started < 30, "submitting must not wait for the run, which takes two minutes"
        try:
            with pytest.raises(WaitTimeoutError, match="It goes on"):
                handle.wait_for_completion(timeout=0.5, poll_interval=0.1)
            assert not handle.status.is_terminal
            self.has_started(folder)
        finally:
            handle.cancel()
            self.finish(handle)

    def beats(self, folder: str) -> int:
        path = Path(folder) / "beats"
        return len(path.read_text()) if path.exists() else 0

    def has_started(self, folder: str) -> None:
        deadline = time.monotonic() + self.run_timeout
        while not self.beats(folder):
            assert time.monotonic() < deadline, "the step never began"
            time.sleep(0.1)

    def has_stopped(self, folder: str) -> None:
        """The heart has stopped within a second and stays still."""
        time.sleep(1)
        count = self.beats(folder)
        time.sleep(0.5)
        assert self.beats(folder) == count, "the step still runs"


class LifeConformance(_Base):
    """Hooks, and the same run id again.

    ``run_ids_span_pipelines`` is whether a run id belongs to one run of the whole engine: override it for an engine on
    which each pipeline has ids of its own.
    """

    run_ids_span_pipelines = True

    def test_hooks_see_a_run_that_goes_well(self, orchestrator: Orchestrator, folder: str) -> None:
        pipeline = pipelines.hooked(folder)
        self.needs(orchestrator, Feature.HOOKS, pipeline)
        handle = self.finish(orchestrator.run_pipeline(pipeline))
        assert handle.status is COMPLETED, handle.error
        assert self.journal(folder, 4) == [
            f"pipeline_start {handle.run_id} False",
            "step_start work ['fails']",
            "step_end work {'work': 7} True",
            f"pipeline_end {handle.run_id} COMPLETED True",
        ]

    def test_hooks_see_a_run_that_fails(self, orchestrator: Orchestrator, folder: str) -> None:
        pipeline = pipelines.hooked(folder, fails=True)
        self.needs(orchestrator, Feature.HOOKS, pipeline)
        handle = self.finish(orchestrator.run_pipeline(pipeline))
        assert handle.status is FAILED
        assert self.journal(folder, 4) == [
            f"pipeline_start {handle.run_id} True",
            "step_start work ['fails']",
            "error work 'lost'",
            f"pipeline_end {handle.run_id} FAILED True",
        ]

    def test_the_same_run_id_is_the_same_run(self, orchestrator: Orchestrator, folder: str) -> None:
        self.needs(orchestrator, Feature.IDEMPOTENT_SUBMIT)
        run_id = f"same-{time.time_ns()}"
        first = orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        second = orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        assert first.job_id == second.job_id
        assert (first.run_id, second.run_id) == (run_id, run_id)
        self.finish(first)
        third = orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        assert self.finish(third).status is COMPLETED
        assert (Path(folder) / "executions").read_text() == "x"

    def test_a_run_id_that_is_taken_by_another_run(
        self, orchestrator: Orchestrator, folder: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.needs(orchestrator, Feature.IDEMPOTENT_SUBMIT)
        run_id = f"taken-{time.time_ns()}"
        first = orchestrator.run_pipeline(pipelines.greeting(), run_id, parameters={"name": "Ada"})
        assert orchestrator.run_pipeline(pipelines.greeting(), run_id, parameters={"name": "Ada"}).run_id == run_id
        assert "belongs to a run" not in caplog.text
        second = orchestrator.run_pipeline(pipelines.greeting(), run_id, parameters={"name": "Bob"})
        assert "belongs to a run with the parameters {'name': 'Ada'}" in caplog.text
        assert self.finish(second).status is COMPLETED, second.error
        assert second.outputs == {"greeting": "hello Ada"}
        assert first.job_id == second.job_id
        with pytest.raises(DefinitionError, match=f"{run_id}.* with other code: .* Give this run another id"):
            orchestrator.run_pipeline(pipelines.greeting("goodbye"), run_id, parameters={"name": "Ada"})
        if self.run_ids_span_pipelines:
            with pytest.raises(DefinitionError, match="belongs to a run of 'conformance greeting'"):
                orchestrator.run_pipeline(pipelines.counting(folder), run_id)
        else:
            other = self.finish(orchestrator.run_pipeline(pipelines.counting(folder), run_id))
            assert (other.run_id, other.job_id == first.job_id) == (run_id, False)

    @pytest.mark.parametrize("run_id", ["", "a\nb", "x" * 201])
    def test_run_ids_that_nothing_could_show(self, orchestrator: Orchestrator, run_id: str) -> None:
        with pytest.raises(DefinitionError):
            orchestrator.run_pipeline(pipelines.greeting(), run_id)

    def test_gpus_are_asked_for_or_refused(self, orchestrator: Orchestrator) -> None:
        from flowyml import step

        gpu = step(name="train", resources=ResourceRequirements(gpu=1))(lambda: 1)
        pipeline = Pipeline("conformance gpu").add_step(gpu)
        if orchestrator.capabilities[Feature.RESOURCES_GPU].level is Level.NO:
            with pytest.raises(UnsupportedFeatureError, match="step 'train' asks for gpu=1"):
                orchestrator.run_pipeline(pipeline)
        else:
            assert orchestrator.plan(pipeline).by_name["train"].resources == ResourceRequirements(gpu=1)

    def journal(self, folder: str, lines: int) -> list[str]:
        """What the hooks wrote; an engine may call the last one a moment after it reported the end."""
        path = Path(folder) / "journal"
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and (not path.exists() or path.read_text().count("\n") < lines):
            time.sleep(0.1)
        return path.read_text().splitlines()


@pytest.mark.filterwarnings("ignore:.*nothing will fire.*:UserWarning")
class ScheduleConformance(_Base):
    """Schedules that the engine keeps.

    Scheduling again changes when a pipeline runs, not whether: a paused schedule stays paused. Override
    ``scheduling_again_resumes`` for an engine where deploying a schedule means that it runs.
    """

    scheduling_again_resumes = False

    def test_create_list_pause_resume_delete(self, orchestrator: Orchestrator) -> None:
        self.needs(orchestrator, Feature.SCHEDULE_CRON)
        pipeline = pipelines.greeting()
        made = orchestrator.schedule_pipeline(pipeline, Schedule.of("daily", "03:30"))
        try:
            assert (made.pipeline, made.paused) == ("conformance greeting", False)
            assert self.listed(orchestrator, made.schedule_id).schedule.cron == "30 3 * * *"
            assert orchestrator.pause_schedule(made.schedule_id).paused
            assert self.listed(orchestrator, made.schedule_id).paused
            assert not orchestrator.resume_schedule(made.schedule_id).paused
        finally:
            orchestrator.delete_schedule(made.schedule_id)
        assert made.schedule_id not in [info.schedule_id for info in orchestrator.schedules()]
        with pytest.raises(ScheduleNotFoundError):
            orchestrator.pause_schedule(made.schedule_id)

    def test_scheduling_again_updates_in_place(self, orchestrator: Orchestrator) -> None:
        self.needs(orchestrator, Feature.SCHEDULE_CRON)
        first = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("hourly", 5))
        second = orchestrator.schedule_pipeline(
            pipelines.greeting(), Schedule.of("hourly", 7, parameters={"name": "later"})
        )
        try:
            assert second.schedule_id == first.schedule_id
            (info,) = orchestrator.schedules("conformance greeting")
            assert (info.schedule.cron, dict(info.schedule.parameters)) == ("7 * * * *", {"name": "later"})
        finally:
            orchestrator.delete_schedule(first.schedule_id)

    def test_scheduling_again_leaves_a_paused_schedule_paused(self, orchestrator: Orchestrator) -> None:
        self.needs(orchestrator, Feature.SCHEDULE_PAUSE)
        made = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("hourly", 5))
        try:
            orchestrator.pause_schedule(made.schedule_id)
            again = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("hourly", 7))
            info = self.listed(orchestrator, made.schedule_id)
            assert (again.paused, info.paused) == (not self.scheduling_again_resumes,) * 2
            assert info.schedule.cron == "7 * * * *"
        finally:
            orchestrator.delete_schedule(made.schedule_id)

    def test_next_runs_are_in_the_time_zone(self, orchestrator: Orchestrator) -> None:
        schedule = Schedule.of("daily", 6, timezone="America/New_York")
        self.needs(orchestrator, Feature.SCHEDULE_TIMEZONE)
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
        try:
            runs = self.next_runs(orchestrator, made.schedule_id)
            assert runs[0] == schedule.next_times()[0]
        finally:
            orchestrator.delete_schedule(made.schedule_id)

    def test_intervals(self, orchestrator: Orchestrator) -> None:
        self.needs(orchestrator, Feature.SCHEDULE_INTERVAL)
        made = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("interval", 7200))
        try:
            assert self.listed(orchestrator, made.schedule_id).schedule.interval_seconds == 7200
            first = self.next_runs(orchestrator, made.schedule_id)[0]
            assert first <= datetime.now(UTC) + timedelta(seconds=7200)
        finally:
            orchestrator.delete_schedule(made.schedule_id)

    def test_parameters_of_a_schedule_are_checked(self, orchestrator: Orchestrator) -> None:
        self.needs(orchestrator, Feature.SCHEDULE_CRON)
        with pytest.raises(ParameterError):
            orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("hourly", 1, parameters={"name": 1}))

    def listed(self, orchestrator: Orchestrator, schedule_id: str) -> Any:
        (info,) = [info for info in orchestrator.schedules() if info.schedule_id == schedule_id]
        return info

    def next_runs(self, orchestrator: Orchestrator, schedule_id: str) -> tuple[datetime, ...]:
        """As the engine plans them, which may take its scheduler a moment."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if runs := self.listed(orchestrator, schedule_id).next_runs:
                return tuple(runs)
            time.sleep(0.5)
        raise AssertionError("the engine plans no run")


class OrchestratorConformance(RunConformance, FailureConformance, LifeConformance, ScheduleConformance):
    """The whole suite. Subclass it and override the fixture ``make_orchestrator``."""
