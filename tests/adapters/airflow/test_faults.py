"""What goes wrong for real: processes are killed, servers go away and come back."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import EngineUnreachableError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.runs import PipelineResult
from flowyml_airflow import AirflowOrchestrator, external_dag
from tests.adapters.airflow.operating import orchestrator_of, short, slow
from tests.engines.airflow import Airflow
from tests.engines.airflow import airflow3 as running_airflow3
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED
PASSED_ON = ("authorization", "content-type", "accept")
SETTINGS = {
    # Tokens end after 5 seconds, and 10 of grace: the waits below outlive them.
    "AIRFLOW__API_AUTH__JWT_EXPIRATION_TIME": "5",
    # A scheduler or a task that died is found after seconds rather than, by default, up to 10 minutes.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    # Longer than an API server takes to start on a busy machine.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with running_airflow3(tmp_path_factory.mktemp("faults"), SETTINGS) as airflow:
        yield airflow


def marks(folder: Path) -> list[int]:
    path = folder / "marks"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_token_that_expires_in_mid_wait_is_renewed(airflow: Airflow, tmp_path: Path) -> None:
    orchestrator = orchestrator_of(airflow)
    handle = orchestrator.run_pipeline(slow("faults token", str(tmp_path), seconds=18))
    before = orchestrator.client.transport.credentials.headers()
    assert handle.wait_for_completion(timeout=240, poll_interval=1).status is COMPLETED
    assert orchestrator.client.transport.credentials.headers() != before


def test_the_scheduler_is_killed_in_mid_run_and_restarted(airflow: Airflow, tmp_path: Path) -> None:
    handle = orchestrator_of(airflow).run_pipeline(slow("faults scheduler", str(tmp_path), seconds=300))
    wait_until(lambda: marks(tmp_path))
    airflow.kill("scheduler")
    assert not handle.status.is_terminal
    (tmp_path / "enough").touch()
    airflow.start("scheduler")
    handle.wait_for_completion(timeout=480, poll_interval=1)
    assert handle.status is COMPLETED, handle.error
    assert len(marks(tmp_path)) == 2, "the attempt that died with the scheduler, and Airflow's own retry of it"


def test_the_api_server_goes_away_during_a_wait_and_comes_back(airflow: Airflow, tmp_path: Path) -> None:
    patient = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0.1)
    handle = orchestrator_of(airflow, retry_policy=patient).run_pipeline(slow("faults api", str(tmp_path), seconds=15))
    wait_until(lambda: marks(tmp_path))
    lines: list[str] = []
    follower = threading.Thread(target=lambda: lines.extend(line.message for line in handle.logs(follow=True)))
    follower.start()
    wait_until(lambda: lines)
    airflow.kill("api-server")
    with pytest.raises(EngineUnreachableError):
        handle.wait_for_completion(timeout=2, poll_interval=0.5)
    back = threading.Timer(2, airflow.start, ("api-server",))
    back.start()
    handle.wait_for_completion(timeout=240, poll_interval=1)
    back.join()
    assert handle.status is COMPLETED, handle.error
    follower.join(400)
    beats = [line for line in lines if line.startswith("beat")]
    assert beats[-75:] == [f"beat {n}" for n in range(75)]
    # Where the API server is away for too long, Airflow gives the task up and runs it again.
    assert beats.count("beat 0") == len(marks(tmp_path))


def test_the_api_server_is_down_during_submit(airflow: Airflow, tmp_path: Path) -> None:
    """The call fails, or is tried again; either way the run id runs once."""
    name = f"faults submit {tmp_path.name}"
    pipeline, run_id = slow(name, str(tmp_path), seconds=1), tmp_path.name
    orchestrator = orchestrator_of(airflow)
    orchestrator.deploy_pipeline(pipeline)
    airflow.kill("api-server")
    with pytest.raises(EngineUnreachableError):
        orchestrator.run_pipeline(pipeline, run_id)
    airflow.start("api-server")
    airflow.wait_until_healthy()
    handles = [orchestrator_of(airflow).run_pipeline(pipeline, run_id) for _ in range(3)]
    assert len({handle.job_id for handle in handles}) == 1
    assert handles[0].wait_for_completion(timeout=240, poll_interval=1).status is COMPLETED
    assert len(marks(tmp_path)) == 1
    assert len(orchestrator.runs(name)) == 1


@contextmanager
def losing_answers(airflow: Airflow) -> Iterator[tuple[str, list[int]]]:
    """A proxy in front of the real Airflow that hands on every call, and loses the first two answers to a trigger."""
    lost: list[int] = []

    class Proxy(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name: text for name, text in self.headers.items() if name.lower() in PASSED_ON}
            answer = httpx.request(self.command, airflow.url + self.path, content=body, headers=headers, timeout=240)
            if self.command == "POST" and self.path.endswith("/dagRuns") and len(lost) < 2:
                lost.append(answer.status_code)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", ""))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", lost
        finally:
            server.shutdown()
            thread.join()


def test_the_answer_to_a_submit_is_lost(airflow: Airflow, tmp_path: Path) -> None:
    """Airflow has made the run, and its answer was lost: asking again finds it."""
    name = f"faults lost {tmp_path.name}"  # a test that is tried again must not meet its first run
    pipeline, run_id = slow(name, str(tmp_path), seconds=1), tmp_path.name
    orchestrator_of(airflow).deploy_pipeline(pipeline)
    with losing_answers(airflow) as (url, lost):
        options = {"username": airflow.username, "password": airflow.password, "dags_folder": airflow.dags_folder}
        once = AirflowOrchestrator(url, retry_policy=OrchestratorRetryPolicy(max_attempts=1), **options)
        with pytest.raises(EngineUnreachableError):
            once.run_pipeline(pipeline, run_id)
        handle = AirflowOrchestrator(url, **options).run_pipeline(pipeline, run_id)
        assert lost == [200, 409], "made; and found, by a try whose answer was lost too"
        assert handle.wait_for_completion(timeout=240, poll_interval=1).status is COMPLETED
    assert len(marks(tmp_path)) == 1
    assert len(orchestrator_of(airflow).runs(name)) == 1


def test_the_api_server_goes_away_while_a_step_waits_for_a_dag(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = slow("faults inner", str(tmp_path), seconds=300)
    orchestrator = orchestrator_of(airflow)
    dag = str(orchestrator.deploy_pipeline(inner).url).rpartition("/")[2]
    orchestrator.client.pause(dag, False)
    for name, value in (("URL", airflow.url), ("USERNAME", airflow.username), ("PASSWORD", airflow.password)):
        monkeypatch.setenv(f"FLOWYML_AIRFLOW_{name}", value)
    before = len(orchestrator.runs("faults inner"))
    waits = external_dag(dag, name="inner", poll_interval=0.5)
    done: list[PipelineResult] = []
    run = threading.Thread(target=lambda: done.append(Pipeline("faults outer").add_step(waits).run()))
    run.start()
    wait_until(lambda: marks(tmp_path))
    airflow.kill("api-server")
    time.sleep(3)
    airflow.start("api-server")
    (tmp_path / "enough").touch()
    run.join(400)
    assert "does not answer: " in capsys.readouterr().out
    assert len(orchestrator.runs("faults inner")) == before + 1
    ran = orchestrator.runs("faults inner")[0]
    assert done[0].success is (ran.status is COMPLETED), "it tells how the DAG ended, which may not outlive the silence"
    assert done[0].success or "The DAG 'faults_inner" in (done[0].error or "")


def test_the_process_of_a_step_is_killed(airflow: Airflow, tmp_path: Path) -> None:
    handle = orchestrator_of(airflow).run_pipeline(slow("faults killed", str(tmp_path), seconds=300))
    first = wait_until(lambda: marks(tmp_path))[0]
    os.kill(first, signal.SIGKILL)
    (tmp_path / "enough").touch()
    assert handle.wait_for_completion(timeout=240, poll_interval=1).status is COMPLETED
    assert handle.outputs == {"executions": 2}
    assert [run.attempt for run in handle.step_runs()] == [2]


def test_a_killed_process_without_a_retry_is_reported(airflow: Airflow, tmp_path: Path) -> None:
    @step
    def dies() -> int:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return 1

    handle = orchestrator_of(airflow).run_pipeline(Pipeline("faults dies").add_step(dies))
    assert handle.wait_for_completion(timeout=240, poll_interval=1).status is ExecutionStatus.FAILED
    assert "SIGKILL" in (handle.error or "")


def test_a_file_that_cannot_be_read_harms_no_other(airflow: Airflow) -> None:
    (airflow.dags_folder / "zz_broken.py").write_text("this is no Python, airflow DAG\n")
    handle = orchestrator_of(airflow).run_pipeline(short("faults beside"))
    assert handle.wait_for_completion(timeout=240, poll_interval=0.5).status is COMPLETED
