"""Schedules on a KFP as its sources treat recurring runs: what they own, store, and when they fire."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import EngineError, ParameterError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_kubeflow.idempotency import RunsByName
from tests.engines.kubeflow_calls import run_id
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.kubeflow,
    pytest.mark.filterwarnings("ignore:.*Argo's limit:UserWarning"),
]


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def fake(kfp_api: Any) -> Iterator[Any]:
    """The state of the fake, which plays another release, or ml-pipeline-ui."""
    if kfp_api.state is None:
        pytest.skip("a real server is of one release")
    yield kfp_api.state
    kfp_api.state.version, kfp_api.state.below, kfp_api.state.is_ui, kfp_api.state.is_ready = "2.17.0", "", False, True


@pytest.fixture
def orchestrator(kfp_api: Any) -> KubeflowOrchestrator:
    return kfp_api.orchestrator()


def unique(name: str) -> str:
    return f"{name}-{time.time_ns()}"


def the_recurring_run(orchestrator: KubeflowOrchestrator, schedule_id: str) -> Any:
    return orchestrator.recurring.named(schedule_id)[0]


@pytest.mark.parametrize("version", ["2.17.0", "2.15.2"])
def test_runs_in_progress_survive_a_new_schedule(fake: Any, kfp_api: Any, version: str, shared: Path) -> None:
    """KFP's recurring runs own the workflows of their runs, which Kubernetes deletes with them."""
    fake.version = version
    orchestrator = kfp_api.orchestrator()
    pipeline = pipelines.beating(str(shared))
    pipeline.name = unique("beating")
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
    orchestrator.cancel(fired.job_id)
    wait_until(lambda: orchestrator.get_run(fired.job_id).status.is_terminal)
    orchestrator.delete_schedule(made.schedule_id)
    assert not fake.recurring


def test_a_schedule_that_is_as_it_should_be_goes_on(orchestrator: KubeflowOrchestrator) -> None:
    first = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("daily", 6, parameters={"name": "Ada"}))
    try:
        before = the_recurring_run(orchestrator, first.schedule_id).recurring_run_id
        orchestrator.pause_schedule(first.schedule_id)
        again = orchestrator.schedule_pipeline(pipelines.greeting(), first.schedule)
        assert the_recurring_run(orchestrator, first.schedule_id).recurring_run_id == before
        assert (again.paused, again.schedule) == (True, first.schedule), "somebody paused it"
        assert not orchestrator.schedule_pipeline(pipelines.greeting(), first.schedule, force=True).paused
        other = orchestrator.schedule_pipeline(
            pipelines.greeting(), Schedule.of("daily", 6, parameters={"name": "Grace"})
        )
        assert the_recurring_run(orchestrator, first.schedule_id).recurring_run_id != before
        assert other.schedule.parameters == {"name": "Grace"}
    finally:
        orchestrator.delete_schedule(first.schedule_id)


def test_parameters_and_names_of_any_length_are_scheduled(orchestrator: KubeflowOrchestrator) -> None:
    """MySQL holds 255 characters of a description. Source: KFP, model/job.go."""

    @step
    def takes(text: str, größe: int) -> int:
        return len(text) + größe

    pipeline = Pipeline(f"{unique('long')} {'x' * 150}", context=context(text="", größe=1)).add_step(takes)
    parameters = {"text": "y" * 2000, "größe": 3}
    made = orchestrator.schedule_pipeline(pipeline, Schedule.of("weekly", "MON:09:00", parameters=parameters))
    try:
        assert made.schedule.parameters == parameters
        assert [info.schedule for info in orchestrator.schedules(pipeline.name)] == [made.schedule]
        assert made.pipeline == pipeline.name
        handle = orchestrator.run_pipeline(pipeline, unique("long"))
        assert handle.run.pipeline == pipeline.name
        handle.cancel()
    finally:
        orchestrator.delete_schedule(made.schedule_id)


DAY, SECOND, HOUR = timedelta(days=1), timedelta(seconds=1), timedelta(hours=1)


@pytest.mark.parametrize("value", ["run [[RunUUID]]", "[[CurrentTime.2006-01-02]]", "{{$.currentTime.2006}}"])
def test_what_kfp_would_replace_in_a_scheduled_run_is_refused(orchestrator: KubeflowOrchestrator, value: str) -> None:
    named = pipelines.greeting(name=run_id("replaced"))
    with pytest.raises(ParameterError, match="which KFP replaces in scheduled runs"):
        named.schedule("cron", "0 6 * * *", parameters={"name": value}, on=orchestrator)
    assert orchestrator.schedules(named.name) == []
    assert named.schedule("cron", "0 6 * * *", parameters={"name": "[[1], [2]]"}, on=orchestrator)


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
    orchestrator: KubeflowOrchestrator, options: dict[str, Any], wanted: timedelta, kept: timedelta | None
) -> None:
    """KFP's first run is strictly after the start, and what was missed is made up for with one run at once."""
    base = now()
    schedule, start = Schedule(**options, start=base + wanted), None if kept is None else base + kept
    made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
    try:
        trigger = the_recurring_run(orchestrator, made.schedule_id).trigger
        assert (trigger.cron_schedule or trigger.periodic_schedule).start_time == start
        assert made.schedule == schedule
        orchestrator.pause_schedule(made.schedule_id)
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_a_new_schedule_catches_up_with_what_the_old_one_left(fake: Any, orchestrator: KubeflowOrchestrator) -> None:
    """KFP would replay everything from the start."""
    name = unique("caught up")
    pipeline = Pipeline(name, kubeflow={"max_concurrency": 10}).add_step(step(name="one")(lambda: 1))
    start = now().replace(hour=0, minute=0, second=0) - timedelta(days=2)
    made = orchestrator.schedule_pipeline(pipeline, Schedule(cron="0 0 * * *", start=start, catch_up=True))
    try:
        wait_until(lambda: len(orchestrator.runs(name)) == 3)
        orchestrator.schedule_pipeline(
            Pipeline(name).add_step(step(name="two")(lambda: 2)),
            Schedule(cron="0 0 * * *", start=start, catch_up=True),
        )
        time.sleep(1)
        assert len(orchestrator.runs(name)) == 3
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_hooks_of_scheduled_runs_know_their_run(orchestrator: KubeflowOrchestrator, shared: Path) -> None:
    pipeline = pipelines.hooked(str(shared))
    pipeline.name = unique("hooked")
    made = orchestrator.schedule_pipeline(pipeline, Schedule.of("interval", 1))
    try:
        wait_until(lambda: orchestrator.runs(pipeline.name))
        orchestrator.pause_schedule(made.schedule_id)
        handle = orchestrator.attach(orchestrator.runs(pipeline.name)[-1].job_id).wait_for_completion(600, 0.3)
        journal = (shared / "journal").read_text().splitlines()
        assert f"pipeline_start {handle.run_id} False" in journal
        assert f"pipeline_end {handle.run_id} COMPLETED True" in journal
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_of_two_runs_of_one_name_none_is_handed_out_until_one_is_gone(
    fake: Any, orchestrator: KubeflowOrchestrator
) -> None:
    """Two submitters see each other, and a third comes in between."""
    name = unique("three")
    submitting = RunsByName(orchestrator.reader)
    one, two = (submitting._create(name, mark, _described(orchestrator, name, mark)) for mark in ("one", "two"))
    older, younger = (str(run.run_id) for run in orchestrator.reader.named(name))
    assert {one, two} == {older, younger}
    timer = threading.Timer(1, submitting._delete, (older,))
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


def test_logs_and_outputs_are_read_through_ml_pipeline_ui(fake: Any, kfp_api: Any) -> None:
    """It does not pass on the API server's path for logs. Source: KFP, frontend/server/app.ts."""
    fake.below, fake.is_ui = "/pipeline", True
    orchestrator = kfp_api.orchestrator()
    handle = orchestrator.run_pipeline(pipelines.greeting(), unique("ui")).wait_for_completion(600, 0.3)
    assert handle.outputs == {"greeting": "hello world"}, handle.error
    assert [path for _, path in fake.calls[-6:] if "/log" in path][-1] == "/k8s/pod/logs"


def test_the_ui_says_in_other_words_which_release_is_behind_it(fake: Any, kfp_api: Any) -> None:
    """Otherwise it would count as older than 2.16. Source: KFP, frontend/server/handlers/healthz.ts."""
    fake.below, fake.is_ui = "/pipeline", True
    orchestrator = kfp_api.orchestrator()
    assert orchestrator.client.connection.version == (2, 17)
    assert orchestrator.health().version == "2.17.0"
    fake.is_ready = False
    health = kfp_api.orchestrator().health()
    assert not health.reachable
    assert "its API server does not" in health.detail


def test_an_older_client_cannot_have_runs_kept(fake: Any, kfp_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases of ``kfp_server_api`` before 2.16 refuse the parameter."""
    import kfp_server_api

    assert kfp_api.orchestrator().recurring._keeps_runs
    monkeypatch.delattr(kfp_server_api, "V2beta1DeletePropagationPolicy")
    assert not kfp_api.orchestrator().recurring._keeps_runs
