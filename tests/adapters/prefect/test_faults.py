"""Faults, tried for real: on the server, on the process of a flow, on the caller, and on both sides of a race."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import AuthenticationError, EngineUnreachableError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import WAS_CANCELLED
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators import RemoteOrchestrator
from flowyml_prefect import PrefectOrchestrator, reader, runner
from flowyml_prefect.automations import (
    AUTOMATIONS,
    HEARTBEAT,
    NEVER_BEGAN_MESSAGE,
    PENDING,
    SILENT,
    SILENT_MESSAGE,
    crash_after,
)
from flowyml_prefect.client import PrefectClient
from flowyml_prefect.connection import Connection
from tests.adapters.prefect.samples import run_processes, sleeping, step_process, waiting
from tests.engines.prefect import PrefectServer, prefect_server
from tests.engines.web import losing_answers
from tests.waiting import catches, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_the_same_run_id_from_two_processes_is_one_execution(
    orchestrator: PrefectOrchestrator, prefect: PrefectServer, tmp_path: Path
) -> None:
    """Both are killed right after submitting."""
    callers = [_submit_elsewhere(prefect, tmp_path, "at-once") for _ in range(2)]
    jobs = {caller.communicate()[0].strip() for caller in callers}
    (job,) = jobs
    handle = orchestrator.attach(job).wait_for_completion(1200, 0.2)
    assert (handle.status, handle.outputs) == (ExecutionStatus.COMPLETED, {"slept": 1.0})
    time.sleep(3)  # a second execution would have begun by now
    assert (tmp_path / "done").read_text() == "x"


_CALLER = """
import os, signal
from tests.adapters.prefect.samples import sleeping
from flowyml_prefect import PrefectOrchestrator

pipeline = sleeping({folder!r}, 1.0, name={run_id!r})
print(PrefectOrchestrator({url!r}).run_pipeline(pipeline, {run_id!r}).job_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _submit_elsewhere(prefect: PrefectServer, folder: Path, run_id: str) -> subprocess.Popen[str]:
    """A process that submits a run, prints its job id and dies."""
    code = _CALLER.format(folder=str(folder), url=prefect.url, run_id=run_id)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server of these tests' own, which asks for a password."""
    with prefect_server(tmp_path_factory.mktemp("frail"), PREFECT_SERVER_API_AUTH_STRING="admin:secret") as server:
        yield server


def test_the_server_may_be_killed_in_the_middle_of_a_run(
    frail: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A flow goes on without it; the runner of one that is killed meanwhile waits for it, and can be ended.

    The password, which both need, stands in the URL.
    """
    orchestrator = PrefectOrchestrator(frail.url.replace("//", "//admin:secret@"))
    policy = OrchestratorRetryPolicy(max_attempts=300, initial_delay_seconds=1, backoff_multiplier=1)
    patient = PrefectOrchestrator(frail.url, auth=("admin", "secret"), retry_policy=policy)
    goes_on, is_killed = tmp_path_factory.mktemp("on"), tmp_path_factory.mktemp("killed")
    handle = orchestrator.run_pipeline(waiting(str(goes_on)))
    killed = orchestrator.run_pipeline(sleeping(str(is_killed), 600))
    step_process(goes_on)
    step_process(is_killed)
    runner, flow = run_processes(killed)
    frail.kill()
    with pytest.raises(EngineUnreachableError, match="does not answer"):
        handle.refresh()
    assert not orchestrator.health().reachable
    flow.kill()
    wait_until(lambda: flow not in runner.children())
    wait_until(lambda: not catches(runner.pid, signal.SIGTERM))  # it hands none on to the flow any more
    assert runner.is_running()
    runner.terminate()
    wait_until(lambda: not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE)
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(patient.runs)
        frail.start()
        found = {run.job_id for run in reading.result()}
        assert {handle.job_id, killed.job_id} <= found, "a retry policy waits for the server"
    (goes_on / "go").touch()
    handle.wait_for_completion(1200, 0.5)
    assert (handle.status, handle.outputs) == (ExecutionStatus.COMPLETED, {"waited": True})
    health = orchestrator.health()
    assert health.reachable
    assert "secret" not in f"{handle.run} {health} {orchestrator.client.connection}"
    wait_until(lambda: handle.step_statuses() == {"wait": ExecutionStatus.COMPLETED})
    orchestrator.close()
    patient.close()


@pytest.mark.parametrize("key", [None, "admin:wrong", "a-key-of-prefect-cloud"])
def test_wrong_credentials_are_distinguished_and_never_shown(frail: PrefectServer, key: str | None) -> None:
    orchestrator = PrefectOrchestrator(frail.url, auth=key)
    with pytest.raises(AuthenticationError) as caught:
        orchestrator.runs()
    assert "refuses these credentials" in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert not orchestrator.health().reachable
    orchestrator.close()


def test_a_server_that_asks_for_a_password_is_recognized_without_one(frail: PrefectServer) -> None:
    stranger = RemoteOrchestrator(frail.url)
    assert stranger.name == "prefect"
    with pytest.raises(AuthenticationError, match="refuses these credentials"):
        stranger.runs()
    remote = RemoteOrchestrator(frail.url, auth=("admin", "secret"))
    assert remote.health().reachable
    for orchestrator in (stranger, remote):
        assert isinstance(orchestrator.adapter, PrefectOrchestrator)
        orchestrator.adapter.close()


def test_a_run_without_its_process_does_not_stay_running(abandoned: SubmissionResult) -> None:
    wait_until(lambda: abandoned.status.is_terminal)
    assert (abandoned.status, abandoned.raw_status) == (ExecutionStatus.FAILED, SILENT)
    assert abandoned.error == SILENT_MESSAGE


def test_a_pools_run_whose_worker_died_before_it_began_does_not_stay_queued(make_prefect: Any) -> None:
    """By FlowyML's automation with ten seconds in place of an hour, and a tag of its own in place of all runs'."""
    orchestrator = make_prefect(work_pool="dying")
    client = orchestrator.client
    client.ensure_process_pool("dying")
    pipeline = Pipeline("claimed", tags=["claimed"]).add_step(step(name="one")(lambda: 1))
    claimed, late = orchestrator.run_pipeline(pipeline), orchestrator.run_pipeline(pipeline)
    (hour,) = [made for made in AUTOMATIONS if "pools" in made["name"]]
    assert client.query("/automations/filter", {"automations": {"name": {"any_": [hour["name"]]}}})
    soon = crash_after("soon", PENDING, "claimed", 10, NEVER_BEGAN_MESSAGE)
    assert {**soon["trigger"], "within": 3600, "match_related": hour["trigger"]["match_related"]} == hour["trigger"]
    client.ensure_automation(soon)
    assert client.claim(claimed.job_id, str(uuid4())), "as a worker does, which then dies"
    wait_until(lambda: claimed.status.is_terminal)
    assert (claimed.status, claimed.error) == (ExecutionStatus.FAILED, NEVER_BEGAN_MESSAGE)
    assert late.status is ExecutionStatus.QUEUED, "no worker has taken it, and one still may"
    late.cancel()


def test_a_run_that_is_cancelled_after_its_worker_died_is_ended_by_a_second_cancel(
    make_prefect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of which something was heard is left to its process, which may be cleaning up."""
    orchestrator = make_prefect(work_pool="lost")
    client = orchestrator.client
    client.ensure_process_pool("lost")
    monkeypatch.setattr(reader, "SILENCE_SECONDS", 86_400)  # not a minute and a half
    pipeline = Pipeline("lost").add_step(step(name="one")(lambda: 1))
    lost, alive = orchestrator.run_pipeline(pipeline), orchestrator.run_pipeline(pipeline)
    for handle in (lost, alive):
        assert client.claim(handle.job_id, str(uuid4())), "as a worker does, which then dies"
        assert handle.cancel()
        assert handle.cancel()
        assert (handle.status, handle.raw_status, handle.error) == (ExecutionStatus.RUNNING, "Cancelling", None)
    monkeypatch.setattr(reader, "SILENCE_SECONDS", 0)
    heartbeat = {
        "id": str(uuid4()),
        "event": HEARTBEAT,
        "occurred": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{alive.job_id}"},
    }
    client.call("POST", "/events", json=[heartbeat])
    wait_until(lambda: orchestrator.get_run(alive.job_id).error is None)
    assert alive.cancel()
    assert alive.raw_status == "Cancelling"
    assert lost.error is not None
    assert lost.error.endswith("Cancel it again to end it.")
    assert lost.status is ExecutionStatus.RUNNING
    assert lost.cancel()
    assert (lost.status, lost.error) == (ExecutionStatus.CANCELLED, WAS_CANCELLED)
    assert not lost.cancel()
    client.set_state(alive.job_id, {"type": "CANCELLED", "name": "Cancelled"}, force=True)


def test_what_is_made_twice_because_an_answer_was_lost_is_one(prefect: PrefectServer, tmp_path: Path) -> None:
    posts = [("POST", end) for end in ("/work_pools/", "/flows/", "/deployments/", "/schedules", "/create_flow_run")]
    pipeline = sleeping(str(tmp_path), 0.0, name="lost-answers")
    with losing_answers(prefect.url, *posts) as proxy:
        orchestrator = PrefectOrchestrator(proxy.url, "lost-answers")
        orchestrator.client.ensure_process_pool("lost-answers")
        info = pipeline.schedule("daily", "03:30", on=orchestrator)
        handle = orchestrator.run_pipeline(pipeline, "lost-answers-1")
        assert proxy.lost == posts
        assert orchestrator.schedules("lost-answers") == [info]
        assert [run.job_id for run in orchestrator.runs("lost-answers")] == [handle.job_id]
        assert len(orchestrator.client.deployment_by_id(info.schedule_id)["schedules"]) == 1
        assert handle.cancel()
        orchestrator.close()
    with losing_answers(prefect.url, ("DELETE", "")) as proxy:
        orchestrator = PrefectOrchestrator(proxy.url)
        orchestrator.delete_schedule(info.schedule_id)
        assert proxy.lost == [("DELETE", "")]
        assert orchestrator.schedules("lost-answers") == []
        orchestrator.close()


@pytest.mark.parametrize("lost", [("POST", "/set_state"), ("GET", "")], ids=["the answer", "the look after it"])
def test_a_claim_whose_answer_was_lost_is_ones_own(
    make_prefect: Any, prefect: PrefectServer, tmp_path: Path, lost: tuple[str, str]
) -> None:
    """Lost twice, since a call is made again at once where a connection breaks."""
    pooled = make_prefect(work_pool="claims")  # without a worker: nothing else executes the run
    pooled.client.ensure_process_pool("claims")
    waiting = pooled.run_pipeline(sleeping(str(tmp_path), 0.0, name="claims"))
    with losing_answers(prefect.url, lost, lost) as proxy:
        client = PrefectClient(Connection(f"{proxy.url}/api"))
        claim = runner.claim(client, waiting.job_id)
        client.close()
    assert proxy.lost == [lost, lost]
    assert claim is not None
    assert pooled.client.run(waiting.job_id).transition_id == claim
    assert runner.claim(pooled.client, waiting.job_id) is None, "one process executes it"
    waiting.cancel()
