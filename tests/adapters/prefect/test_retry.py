"""A run that goes on: another attempt of the same flow run, in which nothing that completed runs again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from flowyml import Pipeline, cleanup, pipeline, step
from flowyml.core.errors import RetryRefusedError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.submission_result import SubmissionResult
from flowyml_prefect import PrefectOrchestrator, runner
from tests.adapters import killed_group
from tests.adapters.prefect.samples import Journal, run_processes
from tests.waiting import wait_until

pytestmark = pytest.mark.prefect

COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED


def steps() -> tuple[Any, Any, Any]:
    """Each notes in ``folder`` that it ran; what is named in ``bad`` there fails."""

    @step
    def many(folder: str) -> list[int]:
        with (Path(folder) / "log").open("a") as file:
            file.write("many\n")
        return [5, 6, 7]

    @step
    def each(n: int, folder: str) -> list[int]:
        with (Path(folder) / "log").open("a") as file:
            file.write(f"each {n}\n")
        if (Path(folder) / f"bad {n}").exists():
            raise ValueError(f"no {n}")
        return [n] * 20_000  # more than travels inline

    @step
    def total(rows: list[list[int]], folder: str) -> int:
        with (Path(folder) / "log").open("a") as file:
            file.write("total\n")
        return sum(map(len, rows))

    return many, each, total


def looped() -> Pipeline:
    many, each, total = steps()

    @step
    def tidy(folder: str) -> None:
        with (Path(folder) / "log").open("a") as file:
            file.write("tidy\n")

    @step(run_if="all_done")
    def handle(folder: str, rows: list[list[int]] | None = None) -> None:
        with (Path(folder) / "log").open("a") as file:
            file.write("handle\n")

    @pipeline(name="prefect retried loop")
    def made(folder: str) -> Any:
        rows = each.partial(folder=folder).map(n=many(folder))
        count = total(rows, folder)
        handle(folder, rows)
        with cleanup():
            tidy(folder)
        return count

    return made


def flat() -> Pipeline:
    many, each, total = steps()

    @step
    def listed(one: list[int], other: list[int]) -> list[list[int]]:
        return [one, other]

    @pipeline(name="prefect retried")
    def made(folder: str) -> Any:
        many(folder)
        one, other = each.options(name="one")(5, folder), each.options(name="other")(6, folder)
        return total(listed(one, other), folder)

    return made


def log(folder: Path) -> list[str]:
    lines = (folder / "log").read_text().splitlines()
    (folder / "log").write_text("")
    return sorted(lines)


def ended(handle: SubmissionResult) -> dict[str, tuple[ExecutionStatus, int]]:
    handle.wait_for_completion(timeout=1200)
    return {run.label: (run.status, run.attempt) for run in handle.step_runs()}


def test_a_retry_runs_what_failed_and_what_waits_for_it_once_all_is_recorded(
    orchestrator: PrefectOrchestrator, tmp_path: Path
) -> None:
    (tmp_path / "bad 6").touch()
    (tmp_path / "bad 7").touch()
    handle = looped().submit({"folder": str(tmp_path)}, on=orchestrator)
    assert ended(handle) == {
        "many": (COMPLETED, 1), "each[0]": (COMPLETED, 1), "each[1]": (FAILED, 1), "each[2]": (FAILED, 1),
        "total": (CANCELLED, 0), "handle": (COMPLETED, 1), "tidy": (COMPLETED, 1),
    }  # fmt: skip
    assert log(tmp_path) == ["each 5", "each 6", "each 7", "handle", "many", "tidy"]

    (tmp_path / "bad 6").unlink()
    assert not handle.retry(steps=["each[1]"]).status.is_terminal
    assert ended(handle) == {
        "many": (COMPLETED, 1), "each[0]": (COMPLETED, 1), "each[1]": (COMPLETED, 2), "each[2]": (FAILED, 1),
        "total": (CANCELLED, 0), "handle": (COMPLETED, 1), "tidy": (COMPLETED, 2),
    }  # fmt: skip
    assert handle.status is FAILED
    assert log(tmp_path) == ["each 6", "tidy"]

    # Prefect records that a task run is there before it records its state. Taken for one that has not run, it would
    # run again.
    client = orchestrator.client
    first = next(each for each in client.task_runs(handle.job_id) if each.name == "each[0]")
    key = client.get(f"/task_runs/{first.id}")["task_key"]
    late = {"flow_run_id": handle.job_id, "task_key": key, "dynamic_key": "late", "name": "each[0]"}
    made = client.write("/task_runs/", late)["id"]
    (tmp_path / "bad 7").unlink()
    failed = handle.run
    handle.retry()
    wait_until(lambda: handle.status is ExecutionStatus.RUNNING)
    time.sleep(1)
    assert log(tmp_path) == [], "nothing runs before"
    client.write(f"/task_runs/{made}/set_state", {"state": {"type": "COMPLETED", "name": "Completed"}, "force": True})
    assert ended(handle) == {
        "many": (COMPLETED, 1), "each[0]": (COMPLETED, 1), "each[1]": (COMPLETED, 2), "each[2]": (COMPLETED, 2),
        "total": (COMPLETED, 1), "handle": (COMPLETED, 2), "tidy": (COMPLETED, 3),
    }, "for the handler each[0] has been made anew"  # fmt: skip
    assert handle.outputs == {"total": 60_000}, handle.error
    assert log(tmp_path) == ["each 7", "handle", "tidy", "total"]
    assert failed.ended_at
    assert handle.run.started_at
    assert failed.ended_at <= handle.run.started_at, "it took as long as its last attempt"
    with pytest.raises(RetryRefusedError, match="completed"):
        handle.retry()


def test_an_execution_group_whose_flow_is_killed_goes_on_where_it_was(
    orchestrator: PrefectOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = killed_group.interrupted("prefect killed group", str(tmp_path), [Journal(str(tmp_path))])
    handle = killed.submit(on=orchestrator)
    worker = psutil.Process(wait_until(lambda: killed_group.worker_of(tmp_path)))
    wait_until(lambda: handle.step_statuses().get("slow") is ExecutionStatus.RUNNING)  # recorded a little later
    _, flow = run_processes(handle)
    flow.kill()
    wait_until(lambda: handle.status.is_terminal)  # by Prefect alone it would be another status, after 90 s
    assert (handle.status, handle.raw_status) == (FAILED, "Crashed")
    assert "killed by signal 9 (SIGKILL)" in str(handle.error)
    wait_until(lambda: not worker.is_running())
    assert wait_until(lambda: (tmp_path / "ended").exists() and (tmp_path / "ended").read_text()) == "FAILED"
    (slow,) = (run for run in handle.step_runs() if run.name == "slow")
    assert slow.ended_at == handle.run.ended_at, "its seconds count no more"
    shown = {name: end for name, (end, _) in killed_group.statuses(handle).items()}
    assert shown == {"first": COMPLETED, "slow": FAILED, "third": CANCELLED, "after": CANCELLED}

    (tmp_path / "fixed").touch()
    launch, launched = runner.launch, list[tuple[Any, ...]]()
    monkeypatch.setattr(runner, "launch", lambda *arguments: launched.append(arguments))
    handle.retry()
    slow = next(run for run in handle.step_runs() if run.name == "slow")
    assert (slow.status, slow.raw_status, slow.attempt) == (FAILED, "Crashed", 1), "its process is dead"
    assert slow.ended_at is not None, "its time does not go on"
    launch(*launched[0])
    assert ended(handle) == {
        "first": (COMPLETED, 1), "slow": (COMPLETED, 2), "third": (COMPLETED, 1), "after": (COMPLETED, 1),
    }  # fmt: skip
    assert handle.outputs == {"after": 4}, handle.error
    assert killed_group.names_in(tmp_path) == ["first", "slow", "slow", "third", "after"]


@pytest.mark.parametrize("goes_on_as", ["SCHEDULED", "PENDING", "RUNNING"])
def test_the_keeper_of_an_earlier_attempt_leaves_the_next_one_alone(
    make_prefect: Callable[..., PrefectOrchestrator], goes_on_as: str
) -> None:
    """It may look at the run a moment after that was retried, since its own process has first to end."""
    pooled = make_prefect(work_pool="retries")  # without a worker: nothing executes the run
    client = pooled.client
    client.ensure_process_pool("retries")
    run_id = flat().submit({"folder": "/"}, on=pooled).job_id
    claim = str(uuid4())
    assert client.claim(run_id, claim)
    keeper = runner._Attempt(client, run_id, "", Path("/"), claim, "host:1")
    client.record_process(run_id, keeper.process)
    client.set_state(run_id, {"type": "FAILED", "name": "Failed"}, force=True)
    client.set_state(run_id, {"type": "SCHEDULED", "name": "AwaitingRetry"}, force=True)
    if goes_on_as != "SCHEDULED":
        assert client.claim(run_id, str(uuid4()))
    if goes_on_as == "RUNNING":
        client.record_process(run_id, "host:2")
        client.set_state(run_id, {"type": "RUNNING", "name": "Running"}, force=True)
    with keeper.channel:
        assert keeper._conclude(0) == 0
        assert client.run(run_id).state_type == goes_on_as
        client.record_process(run_id, keeper.process)
        client.set_state(run_id, {"type": "RUNNING", "name": "Running"}, force=True)
        assert keeper._conclude(0) == 1
    assert client.run(run_id).state_type == "CRASHED", "it is its own"


def test_a_worker_cannot_go_on_with_a_flow_that_does_not_ask(
    make_prefect: Callable[..., PrefectOrchestrator], tmp_path: Path
) -> None:
    pooled = make_prefect(work_pool="retries")
    pooled.client.ensure_process_pool("retries")
    handle = flat().submit({"folder": str(tmp_path)}, on=pooled)
    pooled.client.set_state(handle.job_id, {"type": "CANCELLED", "name": "Cancelled"}, force=True)
    with pytest.raises(RetryRefusedError, match="its flow has no loop, branch, run_if"):
        handle.retry()


def test_of_two_who_retry_a_run_at_once_one_does(make_prefect: Callable[..., PrefectOrchestrator]) -> None:
    """Both found that it had ended. What the second did would hit the attempt of the first."""
    pooled = make_prefect(work_pool="retries")
    pooled.client.ensure_process_pool("retries")
    run_id = looped().submit({"folder": "/"}, on=pooled).job_id
    pooled.client.set_state(run_id, {"type": "FAILED", "name": "Failed"}, force=True)

    def again(_: int) -> str:
        try:
            pooled.run_again(run_id, None)
        except RetryRefusedError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as threads:
        outcomes = sorted(threads.map(again, range(3)))
    assert [bool(outcome) for outcome in outcomes] == [False, True, True]
    assert "it is already being retried" in outcomes[1]
    pooled.client.set_state(run_id, {"type": "CANCELLED", "name": "Cancelled"}, force=True)
