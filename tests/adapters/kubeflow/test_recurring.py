"""Schedules on a KFP as its sources treat recurring runs: what they own, store, and when they fire."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, current_run, for_each, pipeline, step
from flowyml.core.errors import EngineError, ParameterError, ServerTroubleError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_kubeflow.idempotency import RunsByName
from tests.adapters.kubeflow.conftest import Scheduled
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.waiting import wait_until

pytestmark = OVER_THE_API


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def the_recurring_run(orchestrator: KubeflowOrchestrator, schedule_id: str) -> Any:
    return orchestrator.scheduler.named(schedule_id)[0]


@pytest.mark.parametrize("version", ["2.17.0", "2.15.2"])
def test_runs_in_progress_survive_a_new_schedule(fake: Any, kfp_api: Any, version: str, shared: Path) -> None:
    """KFP's recurring runs own the workflows of their runs, which Kubernetes deletes with them."""
    fake.version = version
    orchestrator = kfp_api.orchestrator()
    pipeline = pipelines.beating(str(shared))
    pipeline.name = run_id("beating")
    made = orchestrator.schedule_pipeline(pipeline, Schedule.of("interval", 1))
    (fired, *_) = wait_until(lambda: orchestrator.runs(pipeline.name))
    wait_until(lambda: list(shared.glob("beats")))
    again = orchestrator.schedule_pipeline(pipeline, Schedule.of("daily", 6))
    assert [info.schedule for info in orchestrator.schedules(pipeline.name)] == [again.schedule]
    assert (again.schedule_id, len(fake.recurring) - 1) == (made.schedule_id, 1 if version < "2.16" else 0)
    beats = (shared / "beats").stat().st_size
    wait_until(lambda: (shared / "beats").stat().st_size > beats)
    wait_until(lambda: orchestrator.get_run(fired.job_id).status is ExecutionStatus.RUNNING)
    if version < "2.16":
        with pytest.raises(EngineError, match=r"is older than 2\.16, where KFP stops the runs of a deleted schedule"):
            orchestrator.delete_schedule(made.schedule_id)
        fake.says_version = False
        with pytest.raises(EngineError, match=r"does not say its release, so it counts as older than 2\.16"):
            kfp_api.orchestrator().delete_schedule(made.schedule_id)
    orchestrator.cancel(fired.job_id)
    wait_until(lambda: orchestrator.get_run(fired.job_id).status.is_terminal)
    orchestrator.delete_schedule(made.schedule_id)
    assert not fake.recurring


def test_a_schedule_that_is_as_it_should_be_goes_on(orchestrator: KubeflowOrchestrator, scheduled: Scheduled) -> None:
    first = scheduled(pipelines.greeting(), Schedule.of("daily", 6, parameters={"name": "Ada"}))
    before = the_recurring_run(orchestrator, first.schedule_id).recurring_run_id
    orchestrator.pause_schedule(first.schedule_id)
    again = orchestrator.schedule_pipeline(pipelines.greeting(), first.schedule)
    assert the_recurring_run(orchestrator, first.schedule_id).recurring_run_id == before
    assert (again.paused, again.schedule) == (True, first.schedule), "somebody paused it"
    assert not orchestrator.schedule_pipeline(pipelines.greeting(), first.schedule, force=True).paused
    other = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("daily", 6, parameters={"name": "Grace"}))
    assert the_recurring_run(orchestrator, first.schedule_id).recurring_run_id != before
    assert other.schedule.parameters == {"name": "Grace"}


def test_parameters_and_names_of_any_length_are_scheduled(
    orchestrator: KubeflowOrchestrator, scheduled: Scheduled
) -> None:
    """MySQL holds 255 characters of a description. Source: KFP, model/job.go."""

    @step
    def takes(text: str, größe: int) -> int:
        return len(text) + größe

    pipeline = Pipeline(f"{run_id('long')} {'x' * 150}", context=context(text="", größe=1)).add_step(takes)
    parameters = {"text": "y" * 2000, "größe": 3}
    made = scheduled(pipeline, Schedule.of("weekly", "MON:09:00", parameters=parameters))
    assert made.schedule.parameters == parameters
    assert [info.schedule for info in orchestrator.schedules(pipeline.name)] == [made.schedule]
    assert made.pipeline == pipeline.name
    handle = orchestrator.run_pipeline(pipeline, run_id("long"))
    assert handle.run.pipeline == pipeline.name
    handle.cancel()


DAY, SECOND, HOUR = timedelta(days=1), timedelta(seconds=1), timedelta(hours=1)


@step
def grown(größe: str) -> str:
    return größe


@pytest.mark.parametrize("value", ["run [[RunUUID]]", "[[CurrentTime.2006-01-02]]", "{{$.currentTime.2006}}"])
def test_what_kfp_would_replace_in_a_scheduled_run_is_refused(orchestrator: KubeflowOrchestrator, value: str) -> None:
    named = pipelines.greeting(name=run_id("replaced"))
    with pytest.raises(ParameterError, match="which KFP replaces in scheduled runs"):
        named.schedule("cron", "0 6 * * *", parameters={"name": value}, on=orchestrator)
    assert orchestrator.schedules(named.name) == []
    assert named.schedule("cron", "0 6 * * *", parameters={"name": "[[1], [2]]"}, on=orchestrator)
    other = Pipeline(run_id("größe"), context={"größe": ""}).add_step(grown)
    with pytest.raises(ParameterError, match="Parameter 'größe' of the schedule holds"):
        other.schedule("cron", "0 6 * * *", parameters={"größe": value}, on=orchestrator)


@pytest.mark.parametrize(
    ("options", "wanted", "kept"),
    [
        ({"cron": "0 6 * * *"}, DAY, DAY - SECOND),
        ({"cron": "0 6 * * *"}, -DAY, None),
        ({"cron": "0 6 * * *", "catch_up": True}, -DAY, -DAY - SECOND),
        ({"interval_seconds": 3600}, -1.5 * HOUR, -0.5 * HOUR),
    ],
    ids=["to come", "passed", "catching up", "interval"],
)
def test_the_start_is_what_has_kfp_run_when_the_schedule_says(
    orchestrator: KubeflowOrchestrator,
    scheduled: Scheduled,
    options: dict[str, Any],
    wanted: timedelta,
    kept: timedelta | None,
) -> None:
    """KFP's first run is strictly after the start, and what was missed is made up for with one run at once."""
    base = now()
    schedule, start = Schedule(**options, start=base + wanted), None if kept is None else base + kept
    made = scheduled(pipelines.greeting(), schedule)
    trigger = the_recurring_run(orchestrator, made.schedule_id).trigger
    assert (trigger.cron_schedule or trigger.periodic_schedule).start_time == start
    assert made.schedule == schedule
    orchestrator.pause_schedule(made.schedule_id)


def test_a_new_schedule_catches_up_with_what_the_old_one_left(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, scheduled: Scheduled
) -> None:
    """KFP would replay everything from the start."""
    name = run_id("caught up")
    pipeline = Pipeline(name, kubeflow={"max_concurrency": 10}).add_step(step(name="one")(lambda: 1))
    start = now().replace(hour=0, minute=0, second=0) - timedelta(days=2)
    scheduled(pipeline, Schedule(cron="0 0 * * *", start=start, catch_up=True))
    wait_until(lambda: len(orchestrator.runs(name)) == 3)
    orchestrator.schedule_pipeline(
        Pipeline(name).add_step(step(name="two")(lambda: 2)),
        Schedule(cron="0 0 * * *", start=start, catch_up=True),
    )
    kfp_api.has_scheduled()
    assert len(orchestrator.runs(name)) == 3


def test_of_two_runs_of_one_name_none_is_handed_out_until_one_is_gone(
    fake: Any, orchestrator: KubeflowOrchestrator
) -> None:
    """Two submitters see each other, and a third comes in between."""
    name = run_id("three")
    submitting = RunsByName(orchestrator.reader, name)
    one, two = (submitting._create(mark, _described(orchestrator, name, mark)) for mark in ("one", "two"))
    older, younger = (str(run.run_id) for run in orchestrator.reader.named(name))
    assert {one, two} == {older, younger}
    timer = threading.Timer(1, orchestrator.client.call, ("run_service_delete_run", older))
    timer.start()
    try:
        assert orchestrator.run_pipeline(pipelines.greeting(), name).job_id == younger
    finally:
        timer.join()
        orchestrator.cancel(younger)


def _described(orchestrator: KubeflowOrchestrator, name: str, mark: str) -> Any:
    from flowyml_kubeflow.idempotency import _description

    bundle = pipelines.greeting().bundle()
    body = orchestrator._new_run(bundle, name, {})
    body.description = _description(bundle.plan.name, mark)
    return body


def test_the_ui_says_in_other_words_which_release_is_behind_it(fake: Any, kfp_api: Any) -> None:
    """Otherwise it would count as older than 2.16. Source: KFP, frontend/server/handlers/healthz.ts."""
    fake.below, fake.is_ui = "/pipeline", True
    orchestrator = kfp_api.orchestrator()
    assert orchestrator.client.connection.release() == (2, 17)
    assert orchestrator.health().version == "2.17.0"
    fake.is_ready = False
    health = kfp_api.orchestrator().health()
    assert not health.reachable
    assert "its API server does not" in health.detail


def test_an_older_client_cannot_have_runs_kept(fake: Any, kfp_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases of ``kfp_server_api`` before 2.16 refuse the parameter."""
    import kfp_server_api

    assert kfp_api.orchestrator().scheduler._keeps_runs
    monkeypatch.delattr(kfp_server_api, "V2beta1DeletePropagationPolicy")
    assert not kfp_api.orchestrator().scheduler._keeps_runs


def test_a_schedule_as_kfp_has_it(kfp_api: Any, orchestrator: KubeflowOrchestrator, scheduled: Scheduled) -> None:
    """Six fields, seconds first; five would fire hourly what is meant daily."""
    made = scheduled(
        pipelines.greeting(), Schedule.of("cron", "10 10 * * MON", catch_up=True, parameters={"name": "Ada"})
    )
    (item,) = orchestrator.scheduler.named(made.schedule_id)
    assert item.trigger.cron_schedule.cron == "0 10 10 * * 1"
    assert (item.no_catchup, item.max_concurrency, item.status) == (False, "1", "ENABLED")
    assert item.runtime_config.parameters == {"name": "Ada"}


def test_a_schedule_fires_until_it_is_paused(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, scheduled: Scheduled, shared: Path
) -> None:
    """KFP gives such runs a name of its own, and no description; their hooks know them by it."""
    name = run_id("firing")
    pipeline = pipelines.hooked(str(shared))
    pipeline.name = name
    made = scheduled(pipeline, Schedule.of("interval", 2))
    fired = wait_until(lambda: orchestrator.runs(name), every=0.5)[-1]
    assert orchestrator.pause_schedule(made.schedule_id).paused
    assert fired.pipeline == name
    handle = orchestrator.attach(fired.job_id).wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.COMPLETED, handle.error
    journal = (shared / "journal").read_text().splitlines()
    assert f"pipeline_start {handle.run_id} False" in journal
    assert f"pipeline_end {handle.run_id} COMPLETED True" in journal
    before = len(orchestrator.runs(name))
    kfp_api.let_pass(5)
    assert len(orchestrator.runs(name)) == before


def test_a_scheduled_run_is_for_the_time_of_its_recurring_run(
    orchestrator: KubeflowOrchestrator, scheduled: Scheduled
) -> None:
    """For each item of a loop too."""

    @step(outputs=["days"])
    def days() -> list[int]:
        return [1, 2]

    @step(outputs=["date"])
    def date_of(day: int) -> str:
        return f"{current_run().logical_date.isoformat()} {current_run().data_interval_start}"

    @pipeline(name=run_id("dated"))
    def dated() -> Any:
        with for_each(days()) as day:
            dates = date_of(day)
        return dates  # noqa: RET504  # outside of the loop it is the list of all

    made = scheduled(dated, Schedule.of("interval", 2))
    fired = wait_until(lambda: orchestrator.scheduled_runs(dated.name), every=0.5)
    orchestrator.pause_schedule(made.schedule_id)
    moment, run = min(fired.items())
    handle = orchestrator.attach(run.job_id).wait_for_completion(RUN, 0.5)
    assert list(handle.outputs.values()) == [[f"{moment.isoformat()} None"] * 2], handle.error


@pytest.mark.parametrize("catch_up", [True, False])
def test_a_schedule_fires_at_the_time_of_its_zone(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path, catch_up: bool
) -> None:
    """6 o'clock in India is half past midnight in UTC. The clock of the fake's scheduler is put forward."""
    kfp_api.has_scheduled()
    name = run_id("daily")
    made_once = Pipeline(name, kubeflow={"max_concurrency": 10}).add_step(step(name="one")(lambda: 1))
    schedule = Schedule.of("daily", 6, timezone="Asia/Kolkata", catch_up=catch_up)
    made = orchestrator.schedule_pipeline(made_once, schedule)
    ahead = made.next_runs[0] - datetime.now(UTC)
    try:
        kfp_api.state.ahead = ahead - timedelta(minutes=5)
        kfp_api.has_scheduled()
        assert orchestrator.runs(name) == []
        kfp_api.state.ahead = ahead + timedelta(days=1, minutes=5)
        kfp_api.has_scheduled()
        assert len(orchestrator.runs(name)) == (2 if catch_up else 1)
        orchestrator.run_pipeline(made_once, run_id("by-hand"))
        times = made.next_runs[:2] if catch_up else made.next_runs[1:2]
        orchestrator.delete_schedule(made.schedule_id)
        assert sorted(orchestrator.scheduled_runs(name)) == list(times)
        assert {run.pipeline for run in orchestrator.scheduled_runs(name).values()} == {name}
        assert len(orchestrator.scheduled_runs(name, limit=1)) == 1, "the newest run is one by hand"
    finally:
        if orchestrator.schedules(name):
            orchestrator.delete_schedule(made.schedule_id)
        kfp_api.state.ahead = timedelta()
        for run in orchestrator.runs(name):
            orchestrator.cancel(run.job_id)


@pytest.mark.parametrize("before", [True, False])
def test_a_schedule_survives_a_lost_answer(kfp_api: Any, orchestrator: KubeflowOrchestrator, before: bool) -> None:
    kfp_api.fail("POST", "/recurringruns$", before=before)
    schedule = Schedule.of("hourly", 5)
    try:
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
    except ServerTroubleError:
        assert before
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
    assert [info.schedule_id for info in orchestrator.schedules("conformance greeting")] == [made.schedule_id]
    orchestrator.delete_schedule(made.schedule_id)


@pytest.mark.parametrize("start", [None, datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)])
def test_an_interval_counts_as_kfp_counts(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, scheduled: Scheduled, start: datetime | None
) -> None:
    """From the start or from when it was made, and not before one interval is over."""
    made = scheduled(pipelines.greeting(), Schedule.of("interval", 3600, start=start))
    (item,) = orchestrator.scheduler.named(made.schedule_id)
    beginning = start or item.created_at
    assert made.next_runs[0] > datetime.now(UTC)
    assert all((time - beginning) % timedelta(hours=1) == timedelta() for time in made.next_runs)
    assert made.next_runs[1] - made.next_runs[0] == timedelta(hours=1)
