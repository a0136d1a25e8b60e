"""The tables of states against the installed Prefect."""

from __future__ import annotations

import inspect
import pickle

import pytest
from prefect import states
from prefect.client.schemas.objects import StateType

from flowyml.core.errors import UnknownStateError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_prefect.status import BY_NAME, BY_TYPE, status_of, step_status_of


def test_every_type_of_prefect_has_a_status() -> None:
    assert set(BY_TYPE) == {kind.value for kind in StateType}


def test_every_name_stands_for_a_state_that_prefect_has() -> None:
    assert {kind for kind, _ in BY_NAME} <= set(BY_TYPE)


@pytest.mark.parametrize(
    ("kind", "name", "status"),
    [
        ("SCHEDULED", "Scheduled", "QUEUED"),
        ("SCHEDULED", "Late", "QUEUED"),
        ("SCHEDULED", "Resuming", "QUEUED"),
        ("SCHEDULED", "AwaitingRetry", "RUNNING"),
        ("SCHEDULED", "AwaitingConcurrencySlot", "QUEUED"),
        ("PENDING", "Pending", "QUEUED"),
        ("PENDING", "Submitting", "QUEUED"),
        ("PENDING", "InfrastructurePending", "QUEUED"),
        ("RUNNING", "Running", "RUNNING"),
        ("RUNNING", "Retrying", "RUNNING"),
        ("PAUSED", "Paused", "RUNNING"),
        ("PAUSED", "Suspended", "RUNNING"),
        ("CANCELLING", "Cancelling", "RUNNING"),
        ("COMPLETED", "Completed", "COMPLETED"),
        ("COMPLETED", "Cached", "COMPLETED"),
        ("COMPLETED", "RolledBack", "COMPLETED"),
        ("COMPLETED", "A name of the user", "COMPLETED"),
        ("FAILED", "Failed", "FAILED"),
        ("FAILED", "TimedOut", "TIMEOUT"),
        ("CRASHED", "Crashed", "FAILED"),
        ("CANCELLED", "Cancelled", "CANCELLED"),
    ],
)
def test_states(kind: str, name: str, status: str) -> None:
    assert status_of(kind, name).name == status


def test_all_states_that_prefect_makes_by_name_are_tested_above() -> None:
    made = {name for name, _ in inspect.getmembers(states, inspect.isfunction) if name[0].isupper()}
    tested = {name for mark in test_states.pytestmark for _, name, _ in mark.args[1]}  # type: ignore[attr-defined]  # of pytest
    assert made - {"State"} <= tested


def test_a_task_that_will_never_be_ready_is_cancelled() -> None:
    assert step_status_of("PENDING", "NotReady") is ExecutionStatus.CANCELLED
    assert status_of("PENDING", "NotReady") is ExecutionStatus.QUEUED


def test_an_unknown_state_is_an_error_and_never_a_guess() -> None:
    with pytest.raises(UnknownStateError, match="'MOLTEN'") as caught:
        status_of("MOLTEN", "Molten")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
