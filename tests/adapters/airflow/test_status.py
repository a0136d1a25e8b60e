"""Airflow's states: every one that the installed Airflow knows has a status, and none is guessed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.client import NotThereError
from flowyml_airflow.outcomes import CANCELLED_NOTE, cancelled_note, run_status, task_status
from flowyml_airflow.status import DAG_RUN, TASK_INSTANCE
from tests.adapters.airflow.one_run import OneRun, orchestrator_of
from tests.engines.airflow import airflow_python

STATES = """
import json
from airflow.utils.state import DagRunState, State, TaskInstanceState
print(json.dumps([[s.value for s in DagRunState], [s and s.value for s in State.task_states]]))
"""


def run(state: str, *, note: str | None = None, seconds: int = 10) -> dict[str, Any]:
    return {
        "state": state, "note": note,
        "start_date": "2026-01-01T00:00:00Z", "end_date": f"2026-01-01T00:00:{seconds:02}Z",
    }  # fmt: skip


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.parametrize("major", [3, 2])
def test_the_maps_are_those_of_the_installed_airflow(major: int, tmp_path: Any) -> None:
    import subprocess

    done = subprocess.run(
        [airflow_python(major), "-c", STATES], capture_output=True, text=True, check=True,
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    runs, tasks = json.loads(done.stdout.splitlines()[-1])
    assert set(runs) == set(DAG_RUN)
    assert set(tasks) <= set(TASK_INSTANCE)
    if major == 3:
        assert set(tasks) == set(TASK_INSTANCE) - {"shutdown"}


def test_an_unknown_state_is_never_guessed() -> None:
    with pytest.raises(UnknownStateError, match="'paused'"):
        run_status(run("paused"))
    with pytest.raises(UnknownStateError, match="'sleeping'"):
        task_status({"state": "sleeping", "end_date": None}, run("running"))


NOTE = cancelled_note({"state": "running", "note": None, "start_date": "2026-01-01T00:00:00Z"}, [])


@pytest.mark.parametrize(
    ("state", "note", "timeout", "more", "meant"),
    [
        ("failed", None, None, {}, "FAILED"),
        ("failed", None, 11, {}, "FAILED"),
        ("failed", None, 10, {}, "TIMEOUT"),
        ("failed", CANCELLED_NOTE, 1, {}, "CANCELLED"),
        ("success", CANCELLED_NOTE, None, {}, "COMPLETED"),
        pytest.param("success", NOTE, None, {}, "CANCELLED", id="its teardowns went well: Airflow calls it a success"),
        pytest.param(
            "success", NOTE, None, {"queued_at": "2026-02-02"}, "COMPLETED", id="cleared since, and completed"
        ),
        pytest.param("failed", NOTE, None, {"queued_at": "2026-02-02"}, "FAILED", id="cleared since, and failed"),
    ],
)
def test_the_end_of_a_run(state: str, note: str | None, timeout: int | None, more: dict[str, str], meant: str) -> None:
    limit = None if timeout is None else timedelta(seconds=timeout)
    assert run_status({**run(state, note=note), **more}, limit) is ExecutionStatus[meant]


def test_a_task_that_failed_before_its_run_was_cancelled_stays_failed() -> None:
    begun = run("running", note="a note of mine")
    tasks = [{"task_id": name, "state": "failed"} for name in ("early", "earlier", "earlier")]
    tasks += [{"task_id": "begun", "state": "running"}, {"task_id": "passed_over", "state": "skipped"}]
    note = cancelled_note(begun, tasks)
    assert note.splitlines() == [
        CANCELLED_NOTE, "queued: 2026-01-01T00:00:00Z", "failed before: early earlier", "skipped before: passed_over",
        "a note of mine",
    ]  # fmt: skip
    cancelled = run("failed", note=note)
    assert task_status({"task_id": "early", "state": "failed"}, cancelled) is ExecutionStatus.FAILED
    assert task_status({"task_id": "late", "state": "failed"}, cancelled) is ExecutionStatus.CANCELLED
    assert task_status({"task_id": "late", "state": "failed"}, run("failed")) is ExecutionStatus.FAILED


def test_a_step_that_a_cancel_kept_from_running_is_cancelled_and_a_branch_not_taken_is_not() -> None:
    tasks = [{"task_id": "passed_over", "state": "skipped"}, {"task_id": "waits", "state": None}]
    note = cancelled_note(run("running"), tasks)
    for state in ("failed", "success"):
        cancelled = run(state, note=note)
        waits, passed_over = ({"task_id": task, "state": "skipped"} for task in ("waits", "passed_over"))
        assert task_status(waits, cancelled) is ExecutionStatus.CANCELLED
        assert task_status(waits, cancelled, cleans_up=True) is ExecutionStatus.COMPLETED
        assert task_status(passed_over, cancelled) is ExecutionStatus.COMPLETED
        assert task_status(waits, run(state)) is ExecutionStatus.COMPLETED


def test_a_note_has_room_for_those_that_were_stopped_or_for_some_of_them() -> None:
    """Airflow takes no note of more than 1000 characters. What does not stand in it keeps Airflow's state."""
    skipped = [{"task_id": f"passed_over_{number}", "state": "skipped"} for number in range(90)]
    tasks = [*skipped, {"task_id": "waits", "state": None}, {"task_id": "works", "state": "running"}]
    cancelled = run("failed", note=cancelled_note(run("running", note="mine"), tasks))
    assert cancelled["note"].splitlines()[2:] == ["flowyml stopped: waits works", "mine"]
    meant = [task_status({**task, "state": "skipped"}, cancelled) for task in tasks]
    assert meant == [ExecutionStatus.COMPLETED] * 90 + [ExecutionStatus.CANCELLED] * 2
    assert task_status({"task_id": "works", "state": "failed"}, cancelled) is ExecutionStatus.CANCELLED

    waiting = [{"task_id": f"waits_{number}", "state": None} for number in range(200)]
    note = cancelled_note(run("running"), [*skipped, *waiting])
    assert 980 < len(note) <= 1000
    cancelled = run("failed", note=note)
    meant = [task_status({**task, "state": "skipped"}, cancelled) for task in (*skipped, *waiting)]
    assert meant[:91] == [ExecutionStatus.COMPLETED] * 90 + [ExecutionStatus.CANCELLED]
    listed = meant.count(ExecutionStatus.CANCELLED)
    assert note.endswith(f" waits_{listed - 1}"), "no id is cut"


@pytest.mark.parametrize(
    ("state", "ended", "meant"),
    [
        ("skipped", None, "CANCELLED"),  # had not begun, or was at work
        (None, None, "CANCELLED"),  # the same on Airflow 2
        ("failed", "2026-01-01T00:00:11Z", "CANCELLED"),  # was stopped
        ("failed", "2026-01-01T00:00:01Z", "FAILED"),
        ("skipped", "2026-01-01T00:00:01Z", "COMPLETED"),  # a branch that was not taken
        ("success", "2026-01-01T00:00:11Z", "COMPLETED"),
        ("running", None, "RUNNING"),
    ],
)
def test_a_step_that_the_timeout_of_its_run_stopped_is_cancelled(state: str, ended: str | None, meant: str) -> None:
    late, over = run("failed", seconds=20), datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
    task = {"task_id": "work", "state": state, "end_date": ended}
    assert task_status(task, late, over=over) is ExecutionStatus[meant]
    assert task_status({**task, "state": "skipped"}, late) is ExecutionStatus.COMPLETED


class Listed(OneRun):
    """An Airflow that lists runs in the order in which they were made, as backfills make them."""

    dags_folder = ""

    def __init__(self, *listed: dict[str, Any]) -> None:
        super().__init__()
        self.listed = list(listed)

    def runs(self, dags: Sequence[str] | None, limit: int) -> list[dict[str, Any]]:
        return self.listed[:limit]

    def dag(self, dag: str) -> dict[str, Any]:
        raise NotThereError(404, "gone")


def test_runs_are_listed_by_when_they_started_and_those_that_wait_by_when_they_were_made() -> None:
    def one(run_id: str, state: str, started: str | None, queued: str) -> dict[str, Any]:
        return {
            "dag_id": "train", "dag_display_name": "train", "dag_run_id": run_id, "state": state, "start_date": started,
            "end_date": None, "queued_at": queued, "conf": {"flowyml.revision": "1f3a9c2e"},
        }  # fmt: skip

    found = orchestrator_of(Listed(
        one("made last, waits", "queued", None, "2026-03-01T09:00:00Z"),
        one("started first", "running", "2026-03-01T08:00:00Z", "2026-03-01T08:30:00Z"),
        one("started last", "running", "2026-03-01T10:00:00Z", "2026-03-01T07:00:00Z"),
    )).runs("train")  # fmt: skip
    assert [run.run_id for run in found] == ["started last", "made last, waits", "started first"]
    assert {run.revision for run in found} == {"1f3a9c2e"}


def test_a_run_in_an_unknown_state_hides_no_other_run(caplog: pytest.LogCaptureFixture) -> None:
    both = [{**run(state), "dag_id": "train", "dag_run_id": state} for state in ("paused", "success")]
    orchestrator = orchestrator_of(Listed(*({**each, "dag_display_name": "train"} for each in both)))
    assert [listed.job_id for listed in orchestrator.runs("train")] == ["train/success"]
    (said,) = caplog.messages
    assert said.startswith("run 'train/paused' is not listed: Airflow reports the run state 'paused'"), said


def test_a_line_of_somebody_elses_stays_in_a_note() -> None:
    note = cancelled_note(run("running", note="stopped: the disk was full. Ada"), [])
    assert note.splitlines()[-1] == "stopped: the disk was full. Ada"
    failed = {"task_id": "train", "state": "failed"}
    assert task_status(failed, run("failed", note=note)) is ExecutionStatus.CANCELLED
