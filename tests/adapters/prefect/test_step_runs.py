"""The records of steps and of their items, as they follow from a run's task runs."""

from __future__ import annotations

import pytest

from flowyml_prefect.records import TaskRun
from flowyml_prefect.step_runs import Planned, step_runs

PLAN = [
    Planned("begin", "begin"),
    Planned("train", "train", ("train",)),
    Planned("test", "test", ("train", "tests")),
    Planned("end", "end"),
]


def task(name: str, state: str = "COMPLETED", word: str = "Completed") -> TaskRun:
    return TaskRun(
        id=name, name=name, function=name.partition("[")[0], state_type=state, state_name=word, message="",
        run_count=1, start_time=None, end_time=None,
    )  # fmt: skip


STOOD_IN = [task("train", "CANCELLED", "NotReady"), task("test", "CANCELLED", "NotReady")]


@pytest.mark.parametrize(
    ("tasks", "known", "labels"),
    [
        (
            [task("begin"), task("train[10]"), task("train[2]"), task("test[2][1]"), task("test[2][0]")], {},
            ["begin", "train[2]", "train[10]", "test[2][0]", "test[2][1]", "test[10]", "end"],
        ),
        (
            [task("train[0]")], {"flowyml.items.train": 3, "flowyml.items.tests[1]": 2},
            ["begin", "train[0]", "train[1]", "train[2]", "test[0]", "test[1][0]", "test[1][1]", "test[2]", "end"],
        ),
        # The run was tried again, after what the list is from had failed.
        (
            [*STOOD_IN, task("train[0]"), task("train[1]"), task("test[0]", word="NoItems"), task("test[1][0]")], {},
            ["begin", "train[0]", "train[1]", "test[0]", "test[1][0]", "end"],
        ),
        (STOOD_IN, {}, ["begin", "train", "test", "end"]),
    ],
    ids=["ended", "to come", "stood in", "stands in"],
)  # fmt: skip
def test_items_are_in_order_and_those_to_come_are_known(
    tasks: list[TaskRun], known: dict[str, int], labels: list[str]
) -> None:
    assert [run.label for run in step_runs(PLAN, tasks, known)] == labels


def test_attempts_are_counted_over_retries_of_the_run_and_what_did_not_run_has_none() -> None:
    failed = [task("begin", "FAILED", "Failed"), task("end", "CANCELLED", "NotReady")]
    loop = [task("train", word="NoItems"), task("test", word="Skipped")]
    shown = {run.label: (run.status.name, run.raw_status, run.attempt) for run in step_runs(PLAN, failed + loop, {})}
    assert shown == {
        "begin": ("FAILED", "Failed", 1), "train": ("COMPLETED", "no_items", 0), "test": ("COMPLETED", "skipped", 0),
        "end": ("CANCELLED", "upstream_failed", 0),
    }  # fmt: skip
    attempts = {run.label: run.attempt for run in step_runs(PLAN, [*failed, *loop, task("begin"), task("end")], {})}
    assert attempts == {"begin": 2, "train": 0, "test": 0, "end": 1}
