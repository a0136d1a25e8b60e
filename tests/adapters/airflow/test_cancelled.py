"""A run that could not be cancelled after all is not cancelled, and what a step prints ends no run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from flowyml.core.errors import EngineError, EngineUnreachableError, ServerTroubleError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.log_events import LogEvent
from flowyml_airflow.outcomes import cancelled_note, was_cancelled
from tests.adapters.airflow.one_run import JOB, OneRun, orchestrator_of

NOW = datetime.now(UTC)
COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED


class Airflow(OneRun):
    """Its audit log keeps each note. ``fail`` does what it is made with."""

    in_dag: Sequence[str] = ("work",)
    is_active = True

    def __init__(self, *, raises: BaseException | None = None, stops: bool = False, says: str = "") -> None:
        super().__init__(note="mine")
        self.works = [{"task_id": "work", "state": "running", "try_number": 1, "map_index": -1, "end_date": None}]
        self.notes: list[str] = []
        self.raises, self.stops, self.says = raises, stops, says

    def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        return self.works

    def note(self, dag: str, run_id: str, note: str) -> None:
        self.found["note"] = note
        self.notes.insert(0, note)

    def notes_written(self, dag: str) -> dict[str, list[str]]:
        return {"r": self.notes}

    def fail(self, dag: str, run_id: str) -> dict[str, Any]:
        if self.stops:
            self.end("failed")
        if self.raises:
            raise self.raises
        return dict(self.found)

    def end(self, state: str, ended: str = "2026-01-01T00:01:00Z") -> None:
        self.found |= {"state": state, "end_date": ended}
        self.works[0] |= {"state": state, "end_date": ended}

    def log(self, dag: str, run_id: str, task: Any, attempt: int) -> Sequence[LogEvent]:
        return [LogEvent(self.says, time=NOW, source="airflow.task:worker.py")]

    def dag(self, dag: str) -> dict[str, Any]:
        return {"dag_id": dag, "is_active": self.is_active}

    def tasks(self, dag: str) -> list[dict[str, Any]]:
        return [{"task_id": task} for task in self.in_dag]


def status_of(airflow: Airflow) -> ExecutionStatus:
    return orchestrator_of(airflow).get_run(JOB).status


def cancel_fails(airflow: Airflow) -> None:
    assert airflow.raises
    with pytest.raises(type(airflow.raises)):
        orchestrator_of(airflow).cancel(JOB)


COULD_NOT = ["flowyml: could not be cancelled", "mine"]


@pytest.mark.parametrize(("state", "expected"), [("success", COMPLETED), ("failed", FAILED)])
def test_a_run_that_could_not_be_cancelled_ends_as_it_ends(state: str, expected: ExecutionStatus) -> None:
    airflow = Airflow(raises=EngineError("403"))
    cancel_fails(airflow)
    assert airflow.found["note"].splitlines() == COULD_NOT
    airflow.end(state)
    for note in (airflow.found["note"], "looked into it. Ada"):
        airflow.found["note"] = note
        assert status_of(airflow) is expected


@pytest.mark.parametrize("stands", [None, "", "mine"])
def test_a_note_that_airflow_did_not_write_does_not_count(stands: str | None) -> None:
    """It is in the audit log, which Airflow writes first."""
    airflow = Airflow()
    airflow.found["note"] = stands
    airflow.notes = [cancelled_note(airflow.found, airflow.works), *([] if stands is None else [stands])]
    airflow.end("failed")
    assert status_of(airflow) is FAILED


@pytest.mark.parametrize("instead", ["", "looked into it. Ada"])
@pytest.mark.parametrize("is_logged", [True, False])
def test_a_note_that_was_replaced_counts(instead: str, is_logged: bool) -> None:
    airflow = Airflow(stops=True)
    assert orchestrator_of(airflow).cancel(JOB)
    airflow.found["note"] = instead
    if is_logged:
        airflow.notes.insert(0, instead)
    assert status_of(airflow) is (CANCELLED if instead or is_logged else FAILED)


def test_a_run_whose_cancelling_process_was_killed_completes() -> None:
    airflow = Airflow()
    airflow.note("d", "r", cancelled_note(airflow.found, airflow.works))
    airflow.end("success")
    assert status_of(airflow) is COMPLETED


@pytest.mark.parametrize(
    "raised", [EngineUnreachableError("no answer"), ServerTroubleError("500"), KeyboardInterrupt()]
)
@pytest.mark.parametrize(
    ("stops", "ends", "expected"),
    [
        pytest.param(True, "failed", CANCELLED, id="it was lost"),
        pytest.param(False, "failed", CANCELLED, id="it is late"),
        pytest.param(False, "success", COMPLETED, id="Airflow never heard of the cancel"),
    ],
)
def test_a_cancel_without_an_answer(
    raised: BaseException, ends: str, expected: ExecutionStatus, *, stops: bool
) -> None:
    airflow = Airflow(raises=raised, stops=stops)
    cancel_fails(airflow)
    airflow.end(ends)
    assert status_of(airflow) is expected


def test_a_cancel_that_is_refused_once_the_run_has_ended_counts() -> None:
    airflow = Airflow(raises=EngineError("401"), stops=True)
    cancel_fails(airflow)
    assert status_of(airflow) is CANCELLED


def test_airflow_2_stops_no_run_of_a_dag_without_a_file() -> None:
    """It answers as if it had. Of a DAG that is there, a run goes on for its clean-up."""
    airflow = Airflow()
    airflow.stops_what_is_gone = False
    assert orchestrator_of(airflow).cancel(JOB)
    airflow = Airflow()
    airflow.stops_what_is_gone = airflow.is_active = False
    with pytest.raises(EngineError, match=r"cannot stop a run without it.* Deploy the pipeline again, then"):
        orchestrator_of(airflow).cancel(JOB)
    assert airflow.found["note"].splitlines() == COULD_NOT


@pytest.mark.parametrize("in_dag", [("other",), ("work", "other")])
def test_airflow_2_stops_no_queued_run_with_a_task_that_its_dag_no_longer_has(in_dag: Sequence[str]) -> None:
    airflow = Airflow(raises=ServerTroubleError("500"))
    airflow.stops_what_is_gone, airflow.in_dag = False, in_dag
    airflow.works[0]["state"] = None
    airflow.found["state"] = "queued"
    with pytest.raises(EngineError) as caught:
        orchestrator_of(airflow).cancel(JOB)
    if "work" in in_dag:
        assert isinstance(caught.value, ServerTroubleError)
        assert was_cancelled(airflow.found), "it may be late"
    else:
        assert "does not stop run 'd/r', since its DAG lacks 'work' now. Cancel" in str(caught.value)
        assert airflow.found["note"].splitlines() == COULD_NOT


def test_a_run_that_can_be_cancelled_later_is() -> None:
    airflow = Airflow(raises=EngineError("403"))
    cancel_fails(airflow)
    airflow.raises, airflow.stops = None, True
    assert orchestrator_of(airflow).cancel(JOB)
    assert status_of(airflow) is CANCELLED
    assert "could not be cancelled" not in airflow.found["note"]


def test_what_a_step_prints_does_not_end_it() -> None:
    """It goes on for a moment after its run was stopped, until its worker hears of it."""
    airflow = Airflow(stops=True, says="rsync exited with return code 0")
    assert orchestrator_of(airflow).cancel(JOB)
    airflow.end("failed", ended=datetime.now(UTC).isoformat())
    assert status_of(airflow) is ExecutionStatus.RUNNING
