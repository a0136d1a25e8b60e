"""What goes wrong for real: processes are killed, servers go away and come back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import EngineUnreachableError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml_airflow import AirflowOrchestrator, external_dag
from tests.adapters.airflow.operating import orchestrator_of, short, slow
from tests.engines.airflow import Airflow
from tests.engines.web import losing_answers
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED = ExecutionStatus.COMPLETED


def marks(folder: Path) -> list[int]:
    path = folder / "marks"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_scheduler_is_killed_in_mid_run_and_restarted(frail3: Airflow, tmp_path: Path) -> None:
    handle = orchestrator_of(frail3).run_pipeline(slow("faults scheduler", str(tmp_path), seconds=300))
    wait_until(lambda: marks(tmp_path))
    frail3.kill("scheduler")
    assert not handle.status.is_terminal
    (tmp_path / "enough").touch()
    frail3.start("scheduler")
    handle.wait_for_completion(timeout=480, poll_interval=1)
    assert handle.status is COMPLETED, handle.error
    assert len(marks(tmp_path)) == 2, "the attempt that died with the scheduler, and Airflow's own retry of it"


@dataclass
class Outage:
    """What goes on while the API server is away: a run whose log is followed, one that waits, and a submission."""

    airflow: Airflow
    folder: Path
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        patient = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0.1)
        self.orchestrator = orchestrator_of(self.airflow, retry_policy=patient)
        self.headers = self.orchestrator.client.transport.credentials.headers()
        self.submitted = slow("faults submitted", str(self.folder / "submitted"), seconds=1)
        (self.folder / "submitted").mkdir()
        self.orchestrator.deploy_pipeline(self.submitted)
        self.waits = self.wait_for_a_dag()

    def wait_for_a_dag(self) -> SubmissionResult:
        (self.folder / "inner").mkdir()
        inner = slow("faults inner", str(self.folder / "inner"), seconds=300)
        dag = str(self.orchestrator.deploy_pipeline(inner).url).rpartition("/")[2]
        self.orchestrator.client.pause(dag, False)
        waits = external_dag(dag, name="inner", poll_interval=1)
        return LocalOrchestrator().run_pipeline(Pipeline("faults outer").add_step(waits))

    def begin(self) -> None:
        """Until all goes on; then the server is killed, asked while it is away, and started again."""
        wait_until(lambda: marks(self.folder / "inner"))
        (self.folder / "followed").mkdir()
        self.followed = self.orchestrator.run_pipeline(slow("faults", str(self.folder / "followed"), seconds=15))
        follower = threading.Thread(target=self.follow)
        follower.start()
        wait_until(lambda: self.lines)
        self.airflow.kill("api-server")
        with pytest.raises(EngineUnreachableError):
            self.orchestrator.run_pipeline(self.submitted, "once")
        with pytest.raises(EngineUnreachableError):
            self.followed.wait_for_completion(timeout=2, poll_interval=1)
        wait_until(lambda: any("does not answer: " in line.message for line in self.waits.logs()))
        self.airflow.start("api-server")
        (self.folder / "inner" / "enough").touch()
        self.airflow.wait_until_healthy()
        self.followed.wait_for_completion(timeout=2400, poll_interval=1)
        follower.join()

    def follow(self) -> None:
        self.lines += (line.message for line in self.followed.logs(follow=True))


@pytest.fixture(scope="module")
def outage(frail3: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in frail3.login.items():
            environment.setenv(name, value)
        outage = Outage(frail3, tmp_path_factory.mktemp("outage"))
        outage.begin()
        yield outage


def test_the_api_server_goes_away_during_a_wait_and_comes_back(outage: Outage) -> None:
    assert outage.followed.status is COMPLETED, outage.followed.error
    beats = [line for line in outage.lines if line.startswith("beat")]
    assert beats[-75:] == [f"beat {n}" for n in range(75)]
    # Where the API server is away for too long, Airflow gives the task up and runs it again.
    assert beats.count("beat 0") == len(marks(outage.folder / "followed"))


def test_the_api_server_is_down_during_submit(outage: Outage) -> None:
    """The call failed; the run id runs once."""
    handles = [orchestrator_of(outage.airflow).run_pipeline(outage.submitted, "once") for _ in range(3)]
    assert len({handle.job_id for handle in handles}) == 1
    assert handles[0].wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    assert len(marks(outage.folder / "submitted")) == 1
    assert len(outage.orchestrator.runs(outage.submitted.name)) == 1


def test_the_api_server_goes_away_while_a_step_waits_for_a_dag(outage: Outage) -> None:
    """The step tells how the DAG ended, which may not outlive the silence."""
    outage.waits.wait_for_completion(timeout=2400)
    (ran,) = outage.orchestrator.runs("faults inner")
    assert outage.waits.status.is_successful is (ran.status is COMPLETED)
    assert outage.waits.status.is_successful or "The DAG 'faults_inner" in (outage.waits.error or "")


def test_a_token_that_expires_is_renewed(outage: Outage) -> None:
    """Each ends after seconds here."""
    page = f"{outage.airflow.url}/api/v2/dags"
    wait_until(lambda: httpx.get(page, headers=outage.headers, timeout=240).status_code == 401, every=1)
    assert outage.orchestrator.runs("faults inner")
    assert outage.orchestrator.client.transport.credentials.headers() != outage.headers


def test_the_answer_to_a_submit_is_lost(airflow3: Airflow, tmp_path: Path) -> None:
    """Airflow has made the run, and its answer was lost: asking again finds it."""
    name = f"faults lost {tmp_path.name}"  # a test that is tried again must not meet its first run
    pipeline, run_id = slow(name, str(tmp_path), seconds=1), tmp_path.name
    orchestrator_of(airflow3).deploy_pipeline(pipeline)
    trigger = ("POST", "/dagRuns")
    with losing_answers(airflow3.url, trigger, trigger) as proxy:
        options: Any = {"auth": (airflow3.username, airflow3.password), "dags_folder": airflow3.dags_folder}
        once = AirflowOrchestrator(proxy.url, retry_policy=OrchestratorRetryPolicy(max_attempts=1), **options)
        with pytest.raises(EngineUnreachableError):
            once.run_pipeline(pipeline, run_id)
        handle = AirflowOrchestrator(proxy.url, **options).run_pipeline(pipeline, run_id)
        assert proxy.statuses == [200, 409], "made; and found, by a try whose answer was lost too"
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    assert len(marks(tmp_path)) == 1
    assert len(orchestrator_of(airflow3).runs(name)) == 1


def test_the_process_of_a_step_is_killed(airflow3: Airflow, tmp_path: Path) -> None:
    handle = orchestrator_of(airflow3).run_pipeline(slow("faults killed", str(tmp_path), seconds=300))
    first = wait_until(lambda: marks(tmp_path))[0]
    os.kill(first, signal.SIGKILL)
    (tmp_path / "enough").touch()
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
    assert handle.outputs == {"executions": 2}
    assert [run.attempt for run in handle.step_runs()] == [2]


def test_a_killed_process_without_a_retry_is_reported(airflow3: Airflow, tmp_path: Path) -> None:
    @step
    def dies() -> int:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return 1

    handle = orchestrator_of(airflow3).run_pipeline(Pipeline("faults dies").add_step(dies))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is ExecutionStatus.FAILED
    assert "SIGKILL" in (handle.error or "")


def test_a_file_that_cannot_be_read_harms_no_other(airflow3: Airflow) -> None:
    (airflow3.dags_folder / "zz_broken.py").write_text("this is no Python, airflow DAG\n")
    handle = orchestrator_of(airflow3).run_pipeline(short("faults beside"))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED
