"""Recurring runs over KFP's API."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, current_run, for_each, pipeline, step
from flowyml.core.errors import ServerTroubleError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.schedule import Schedule
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.waiting import wait_until

pytestmark = OVER_THE_API


def test_a_schedule_as_kfp_has_it(kfp_api: Any, orchestrator: KubeflowOrchestrator) -> None:
    """Six fields, seconds first; five would fire hourly what is meant daily."""
    made = orchestrator.schedule_pipeline(
        pipelines.greeting(), Schedule.of("cron", "10 10 * * MON", catch_up=True, parameters={"name": "Ada"})
    )
    try:
        (item,) = orchestrator.recurring.named(made.schedule_id)
        assert item.trigger.cron_schedule.cron == "0 10 10 * * 1"
        assert (item.no_catchup, item.max_concurrency, item.status) == (False, "1", "ENABLED")
        assert item.runtime_config.parameters == {"name": "Ada"}
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_a_schedule_fires_until_it_is_paused(orchestrator: KubeflowOrchestrator, shared: Path) -> None:
    """KFP gives such runs a name of its own, and no description."""
    name = run_id("firing")
    counting = pipelines.counting(str(shared))
    counting.name = name
    made = orchestrator.schedule_pipeline(counting, Schedule.of("interval", 2))
    try:
        fired = wait_until(lambda: orchestrator.runs(name), every=0.5)[-1]
        assert orchestrator.pause_schedule(made.schedule_id).paused
        assert fired.pipeline == name
        handle = orchestrator.attach(fired.job_id).wait_for_completion(RUN, 0.5)
        assert handle.status is ExecutionStatus.COMPLETED, handle.error
        assert set((shared / "executions").read_text()) == {"x"}
        before = len(orchestrator.runs(name))
        time.sleep(2.5)
        assert len(orchestrator.runs(name)) == before
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_a_scheduled_run_is_for_the_time_of_its_recurring_run(orchestrator: KubeflowOrchestrator) -> None:
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

    made = orchestrator.schedule_pipeline(dated, Schedule.of("interval", 2))
    try:
        fired = wait_until(lambda: orchestrator.scheduled_runs(dated.name), every=0.5)
    finally:
        orchestrator.delete_schedule(made.schedule_id)
    moment, run = min(fired.items())
    handle = orchestrator.attach(run.job_id).wait_for_completion(RUN, 0.5)
    assert list(handle.outputs.values()) == [[f"{moment.isoformat()} None"] * 2], handle.error


@pytest.mark.parametrize("catch_up", [True, False])
def test_a_schedule_fires_at_the_time_of_its_zone(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path, catch_up: bool
) -> None:
    """6 o'clock in India is half past midnight in UTC. The clock of the fake's scheduler is put forward."""
    if kfp_api.state is None:
        pytest.skip("a real server's clock cannot be put forward")
    name = run_id("daily")
    made_once = Pipeline(name, kubeflow={"max_concurrency": 10}).add_step(step(name="one")(lambda: 1))
    schedule = Schedule.of("daily", 6, timezone="Asia/Kolkata", catch_up=catch_up)
    made = orchestrator.schedule_pipeline(made_once, schedule)
    ahead = made.next_runs[0] - datetime.now(UTC)
    try:
        kfp_api.state.ahead = ahead - timedelta(minutes=5)
        time.sleep(1)
        assert orchestrator.runs(name) == []
        kfp_api.state.ahead = ahead + timedelta(days=1, minutes=5)
        due = 2 if catch_up else 1
        wait_until(lambda: orchestrator.runs(name)[due - 1 :], every=0.5)
        time.sleep(1)
        assert len(orchestrator.runs(name)) == due
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
    kfp_api: Any, orchestrator: KubeflowOrchestrator, start: datetime | None
) -> None:
    """From the start or from when it was made, and not before one interval is over."""
    made = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("interval", 3600, start=start))
    try:
        (item,) = orchestrator.recurring.named(made.schedule_id)
        beginning = start or item.created_at
        assert made.next_runs[0] > datetime.now(UTC)
        assert all((time - beginning) % timedelta(hours=1) == timedelta() for time in made.next_runs)
        assert made.next_runs[1] - made.next_runs[0] == timedelta(hours=1)
    finally:
        orchestrator.delete_schedule(made.schedule_id)
