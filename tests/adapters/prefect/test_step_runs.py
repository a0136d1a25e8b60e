"""The records of steps and of their items, as they follow from a run's task runs."""

from __future__ import annotations

from collections.abc import Iterable

from flowyml_prefect.client import TaskRun
from flowyml_prefect.step_runs import Planned, index_of, step_runs

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


def labels(tasks: Iterable[TaskRun], **known: int) -> list[str]:
    return [run.label for run in step_runs(PLAN, tasks, {f"flowyml.items.{name}": n for name, n in known.items()})]


def test_items_are_in_order_and_those_to_come_are_known() -> None:
    found = [task("begin"), task("train[10]"), task("train[2]"), task("test[2][1]"), task("test[2][0]")]
    assert labels(found) == ["begin", "train[2]", "train[10]", "test[2][0]", "test[2][1]", "test[10]", "end"]
    known = {"flowyml.items.train": 3, "flowyml.items.tests[1]": 2}
    assert [run.label for run in step_runs(PLAN, [task("train[0]")], known)] == [
        "begin", "train[0]", "train[1]", "train[2]", "test[0]", "test[1][0]", "test[1][1]", "test[2]", "end",
    ]  # fmt: skip


def test_what_did_not_run_has_no_attempt() -> None:
    found = [
        task("begin", "COMPLETED", "Skipped"), task("train", "COMPLETED", "NoItems"),
        task("test", "COMPLETED", "NoItems"), task("end", "CANCELLED", "NotReady"),
    ]  # fmt: skip
    runs = {run.label: (run.status.name, run.raw_status, run.attempt) for run in step_runs(PLAN, found, {})}
    assert runs["begin"] == ("COMPLETED", "skipped", 0)
    assert runs["train"] == ("COMPLETED", "no_items", 0)
    assert runs["end"] == ("CANCELLED", "upstream_failed", 0)


def test_attempts_are_counted_over_retries_of_the_run() -> None:
    found = [task("begin", "FAILED", "Failed"), task("end", "CANCELLED", "NotReady"), task("begin"), task("end")]
    runs = {run.label: (run.status.name, run.attempt) for run in step_runs(PLAN, found, {}) if run.attempt}
    assert runs == {"begin": ("COMPLETED", 2), "end": ("COMPLETED", 1)}


def test_what_stood_in_for_items_is_gone_when_they_have_come_to_be() -> None:
    """When the run was tried again, after what the list is from had failed."""
    stood_in = [task("train", "CANCELLED", "NotReady"), task("test", "CANCELLED", "NotReady")]
    found = [task("train[0]"), task("train[1]"), task("test[0]", "COMPLETED", "NoItems"), task("test[1][0]")]
    items = ["train[0]", "train[1]", "test[0]", "test[1][0]"]
    assert labels([*stood_in, *found]) == ["begin", *items, "end"]
    assert labels(stood_in) == ["begin", "train", "test", "end"]


def test_names_with_brackets() -> None:
    assert index_of(task("a[1][2][3]"), "a[1]") == (2, 3)
    assert index_of(task("another[3]"), "a[1]") == ()
