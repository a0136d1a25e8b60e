"""KFP's API when it fails, hangs or loses its answers, and several processes that submit one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import EngineError, EngineUnreachableError, ServerTroubleError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators.http import RefusedError
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator, client
from flowyml_kubeflow.attempts import RESULT
from flowyml_kubeflow.client import Client
from flowyml_kubeflow.connection import Connection
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.engines.statuses import STATUSES
from tests.engines.web import Reply, web

pytestmark = OVER_THE_API

BEFORE_A_RUN = ("/upload_version$", "/pipelines$", "/experiments$")
"""What is made before a run is."""


@pytest.mark.parametrize("seconds", [0, 5], ids=["fails", "hangs"])
@pytest.mark.parametrize("before", [True, False], ids=["before the run was made", "after the run was made"])
def test_a_lost_answer_makes_no_second_run(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path, before: bool, seconds: int
) -> None:
    name, pipeline = run_id("lost"), pipelines.counting(str(shared))
    orchestrator.deploy_pipeline(pipeline)
    kfp_api.fail("POST", "/runs$", before=before, seconds=seconds)
    with suppress(EngineUnreachableError):  # a busy machine may not answer within 3 s to the look for the run either
        kfp_api.orchestrator(timeout=3 if seconds else 60).run_pipeline(pipeline, name)
    handle = orchestrator.run_pipeline(pipeline, name).wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.COMPLETED, handle.error
    assert (shared / "executions").read_text() == "x"
    assert [run.run_id for run in orchestrator.runs("conformance counting")].count(name) == 1


def test_a_list_that_lacks_the_new_run_makes_no_second_one(
    fake: Any, orchestrator: KubeflowOrchestrator, shared: Path
) -> None:
    name, pipeline = run_id("stale"), pipelines.counting(str(shared))
    orchestrator.deploy_pipeline(pipeline)
    fake.lists_runs = False
    with pytest.raises(EngineError, match="its list of runs does not show it") as caught:
        orchestrator.run_pipeline(pipeline, name)
    fake.lists_runs = True
    handle = orchestrator.run_pipeline(pipeline, name).wait_for_completion(RUN, 0.5)
    assert handle.job_id in str(caught.value)
    assert (handle.status, (shared / "executions").read_text()) == (ExecutionStatus.COMPLETED, "x")


@pytest.mark.parametrize(
    ("before", "status"), [(True, 500), (False, 500), (False, 409)], ids=["fails", "is lost", "another was faster"]
)
def test_what_comes_before_a_run_survives_lost_answers(kfp_api: Any, before: bool, status: int) -> None:
    @step
    def one() -> int:
        return 1

    name = run_id("deploy")
    orchestrator = kfp_api.orchestrator(experiment=name)
    kfp_api.fail("POST", *BEFORE_A_RUN, before=before, status=status)
    pipeline = Pipeline(name).add_step(one)
    if before:  # nothing was made, and the error advises the caller to try again
        for _ in BEFORE_A_RUN:
            with pytest.raises(ServerTroubleError, match="made to fail before"):
                orchestrator.run_pipeline(pipeline, name)
    else:
        orchestrator.run_pipeline(pipeline, name)
    handle = orchestrator.run_pipeline(pipeline, name).wait_for_completion(RUN, 0.5)
    assert handle.outputs == {"one": 1}
    assert {fault.times for fault in kfp_api.state.faults} == {0}, "each of the calls has failed once"


def test_processes_with_one_run_id_make_one_run(kfp_api: Any, shared: Path) -> None:
    """Two on one machine, one on another: these share no lock, and a run is seen some time after the time it bears."""
    name = run_id("both")
    code = f"""
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator
mine = KubeflowOrchestrator(**{kfp_api.options!r})
mine.client.api, mine.deploy_pipeline(pipelines.counting({str(shared)!r}))
print("ready", flush=True)
input()
print(mine.run_pipeline(pipelines.counting({str(shared)!r}), {name!r}).job_id)
"""
    if kfp_api.state:
        kfp_api.state.lags[:] = [1.2, 0, 0.6]
        # A run that is found to be the second is stopped before its pods start, also on a busy machine.
        kfp_api.state.pods_may_start.clear()
    homes = [{**os.environ, "FLOWYML_HOME": str(shared / f"machine-{n % 2}")} for n in range(3)]
    submitting = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for home in homes
    ]
    try:
        for process in submitting:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in submitting:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        job_ids = {process.communicate()[0].strip() for process in submitting}
    finally:
        if kfp_api.state:
            kfp_api.state.pods_may_start.set()
        for process in submitting:
            process.kill()
            process.wait()
    assert len(job_ids) == 1
    orchestrator = kfp_api.orchestrator()
    handle = orchestrator.attach(job_ids.pop()).wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.COMPLETED, handle.error
    assert [run.run_id for run in orchestrator.runs("conformance counting")].count(name) == 1
    assert (shared / "executions").read_text() == "x"


def test_a_server_that_stays_silent_is_unreachable() -> None:
    orchestrator = KubeflowOrchestrator(url="http://127.0.0.1:9", timeout=1)
    assert not orchestrator.health().reachable
    with pytest.raises(EngineUnreachableError, match=r"127\.0\.0\.1:9"):
        orchestrator.runs()


BUSY = [(status, EngineUnreachableError) for status in (429, 502, 503, 504)]


@pytest.mark.parametrize(("status", "kind"), [*STATUSES, *BUSY])
def test_statuses_are_kinds_of_errors(status: int, kind: type[EngineError]) -> None:
    with web(lambda _: Reply(status, b'{"message": "because"}')) as server:
        with pytest.raises(EngineError, match=f"answered {status}: because") as raised:
            Client(Connection(server.url)).call_once("run_service_terminate_run", "x")
        assert type(raised.value) is kind
        assert [request.method for request in server.requests].count("POST") == 1


@pytest.mark.parametrize(("status", "times"), [(500, 3), (503, 3), (404, 1), (409, 1)])
def test_what_only_reads_is_tried_again_where_that_makes_sense(status: int, times: int) -> None:
    with web(lambda _: Reply(status, b"{}")) as server:
        with pytest.raises(EngineError):
            Client(Connection(server.url)).call("run_service_get_run", "x")
        assert [request.path for request in server.requests].count("/apis/v2beta1/runs/x") == times


def test_a_record_that_mysql_cuts_off_is_named() -> None:
    said = b'{"message": "InternalServerError: Failed to parse task details: unexpected end of JSON input"}'
    with web(lambda _: Reply(500, said)) as server, pytest.raises(EngineError, match="2,900 recorded nodes") as raised:
        KubeflowOrchestrator(url=server.url).runs()
    assert "GroupConcatMaxLen" in str(raised.value)


def test_a_run_in_an_unknown_state_hides_no_other_run(caplog: pytest.LogCaptureFixture) -> None:
    runs = [{"run_id": state.lower(), "display_name": state, "state": state} for state in ("MOLTEN", "SUCCEEDED")]
    with web(lambda _: Reply(200, json.dumps({"runs": runs}).encode())) as server:
        listed = KubeflowOrchestrator(url=server.url).runs()
    assert [run.job_id for run in listed] == ["succeeded"]
    (said,) = caplog.messages
    assert said.startswith("run 'molten' is not listed: KFP reports the state 'MOLTEN'"), said


def test_a_server_that_asks_for_hours_is_not_waited_for() -> None:
    with (
        web(lambda _: Reply(503, b"{}", {"Retry-After": "7200"})) as server,
        pytest.raises(EngineUnreachableError, match="answered 503"),
    ):
        KubeflowOrchestrator(url=server.url).runs()


def test_a_run_that_kfp_refuses_to_show_is_not_missing() -> None:
    with (
        web(lambda _: Reply(400, b'{"message": "because"}')) as server,
        pytest.raises(RefusedError, match="answered 400: because"),
    ):
        KubeflowOrchestrator(url=server.url).get_run_status("5f1a4d02-0000-4000-8000-000000000000")


def test_a_log_that_a_busy_server_does_not_give_is_not_gone(kfp_api: Any, orchestrator: KubeflowOrchestrator) -> None:
    handle = orchestrator.run_pipeline(pipelines.greeting(), run_id("busy")).wait_for_completion(RUN, 0.5)
    kfp_api.fail("GET", "/log$", status=429, times=9)
    try:
        with pytest.raises(EngineUnreachableError, match="answered 429"):
            orchestrator.attach(handle.job_id).outputs  # noqa: B018  # it is read there
        kfp_api.fail("GET", "/log$", status=429, times=2)
        assert list(handle.logs(follow=True)) == list(handle.logs())
    finally:
        kfp_api.state.faults.clear()
    assert orchestrator.attach(handle.job_id).outputs == {"greeting": "hello world"}


def test_half_a_line_of_a_result_is_left_out(fake: Any, orchestrator: KubeflowOrchestrator) -> None:
    """A pod was killed while it wrote it, or writes it while it is read."""
    handle = orchestrator.run_pipeline(pipelines.greeting(), run_id("half")).wait_for_completion(RUN, 0.5)
    for log in (fake.folder / f"run-{handle.job_id}").rglob("log"):
        log.write_text(f'{log.read_text()}{RESULT}{{"outputs":{{"gr\n')
    assert orchestrator.attach(handle.job_id).outputs == {"greeting": "hello world"}
    assert not any(RESULT in line.message for line in handle.logs())


def test_a_long_log_hides_nothing(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log is read as it comes, so that no limit for what is held in memory keeps what stands at its end."""
    monkeypatch.setattr(client, "LARGEST_ANSWER", 2**16)
    handle = orchestrator.run_pipeline(chatty(2**17), run_id("chatty")).wait_for_completion(RUN, 0.5)
    assert handle.error == "step 'talk': ValueError: the end"
    assert [step.error for step in handle.step_runs()] == ["ValueError: the end"]
    assert "ValueError: the end" in [line.message for line in handle.logs()][-1]


def test_one_lost_answer_fails_no_command(kfp_api: Any, orchestrator: KubeflowOrchestrator) -> None:
    handle = orchestrator.run_pipeline(chatty(0), run_id("lost answers")).wait_for_completion(RUN, 0.5)
    for path in ("/apis/v1beta1/runs/", "/log$"):
        kfp_api.fail("GET", path, status=502)
        assert [line.message for line in handle.logs()][-1] == "ValueError: the end"
        kfp_api.fail("GET", path, status=502)
        assert handle.error == "step 'talk': ValueError: the end"


def chatty(size: int) -> Pipeline:
    @step
    def talk(size: int) -> None:
        print("word " * (size // 5))
        raise ValueError("the end")

    return Pipeline("chatty", context={"size": size}).add_step(talk)
