"""Loops and branches on Airflow: what is read of a run. No Airflow here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flowyml import Pipeline, for_each, pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Outputs
from flowyml_airflow.client import NotThereError
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.names import STEPS_KEY
from flowyml_airflow.reader import AirflowReader
from tests.adapters.airflow.one_run import JOB, WHEN, OneRun
from tests.adapters.airflow.test_flow import double, numbers, same

TIMES = {"try_number": 1, "start_date": WHEN, "end_date": WHEN}


class Client(OneRun):
    """A run of ``listed`` below, with these XComs of its loop; of what is not among them nothing is kept."""

    def __init__(self, made: Pipeline, kept: Sequence[Any], second: str | None = "skipped", **about: Any) -> None:
        super().__init__(**about)
        self.made, self.kept, self.second = made, kept, second

    def source(self, dag: Any, version: int | None = None) -> str:
        return compile_dag(self.made.bundle()).text

    def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        states = [("numbers", -1), ("double_items", -1), ("double", 0), ("double", 2), ("same", -1)]
        return [
            {"task_id": "double", "map_index": 1, "state": self.second},
            *({"task_id": task, "map_index": index, "state": "success"} for task, index in states),
        ]

    def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
        if map_index >= len(self.kept):
            raise NotThereError(404, "gone")
        return self.kept[map_index] if map_index >= 0 else 4


def outputs(kept: Sequence[Any], on_item_error: str = "fail", second: str | None = "skipped") -> Outputs:
    @pipeline(name="listed")
    def made() -> Any:
        return {"all": double.options(on_item_error=on_item_error).map(n=numbers()), "other": same(4)}

    return AirflowReader(Client(made, kept, second)).outputs(JOB)


def test_lists_are_put_together_again() -> None:
    assert outputs([1, 2, 3]) == {"all": [1, 3], "other": 4}
    assert outputs([1, 2, 3], second="removed") == {"all": [1, 3], "other": 4}
    assert outputs([1, 2, 3], on_item_error="continue", second="failed") == {"all": [(0, 1), (2, 3)], "other": 4}


@pytest.mark.parametrize(
    ("second", "on_item_error"), [("failed", "fail"), ("upstream_failed", "fail"), (None, "fail"), (None, "continue")]
)
def test_no_list_silently_lacks_an_item(second: str | None, on_item_error: str) -> None:
    """A person may mark an item of a completed run, or clear it alone."""
    read = outputs([1, 2, 3], on_item_error, second)
    assert dict(read) == {"other": 4}
    assert f"lacks 'double[1]', whose state in Airflow is {second or 'none'!r}" in read.not_kept["all"]


def test_steps_of_a_group_whose_names_begin_alike_keep_their_outputs_apart() -> None:
    @step(execution_group="both")
    def train(n: int) -> int:
        return n

    @step(name="train.v2", execution_group="both")
    def train_again(train: int) -> int:
        return train

    @pipeline(name="alike")
    def made() -> Any:
        with for_each(numbers()) as n:
            found = train_again(train(n))
        return {"all": found}

    class Of(Client):
        def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
            return [{"task_id": "both", "map_index": index, "state": "success", **TIMES} for index in range(2)]

        def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
            if key == STEPS_KEY:  # of the second item, the second step did not run
                ran = {"state": "success", "attempt": 1}
                return {
                    "try": 1,
                    "steps": {"train": ran, "train.v2": {**ran, "state": "skipped"} if map_index else ran},
                }
            return super().xcom(dag, run_id, task, key, map_index)

    read = AirflowReader(Of(made, [5, 6])).outputs(JOB)
    assert read == {"all": [5]}


def test_the_error_of_a_run_is_that_of_a_groups_step_that_timed_out() -> None:
    @pipeline(name="late in a group")
    def made() -> Any:
        return {"n": same.options(execution_group="both")(double.options(execution_group="both")(4))}

    class Late(Client):
        def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
            return [{"task_id": "both", "state": "failed", **TIMES}]

        def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
            ended = {"attempt": 1, "began": WHEN, "ended": WHEN}
            late = {**ended, "state": "failed", "error": "it took too long", "late": True}
            why = "not run, since step 'double' ended TIMEOUT"
            return {"try": 1, "steps": {"double": late, "same": {**ended, "state": "upstream_failed", "error": why}}}

    reader = AirflowReader(Late(made, [], state="failed", end_date=WHEN))
    assert reader.get_run(JOB).error == "step 'double': it took too long"
    assert [(each.status, each.error) for each in reader.step_runs(JOB)] == [
        (ExecutionStatus.TIMEOUT, "it took too long"),
        (ExecutionStatus.CANCELLED, "not run, since step 'double' ended TIMEOUT"),
    ]


def test_of_a_list_that_is_not_whole_or_cannot_be_read_no_part_is_read() -> None:
    read = outputs([1, 2])
    assert (dict(read), list(read.not_kept)) == ({"other": 4}, ["all"])
    away = {"url": "file:///elsewhere/a.txt", "format": "text", "sha256": "0" * 64, "size": 1, "type": "builtins.str"}
    read = outputs([1, 2, {"$artifact": away}])
    assert dict(read) == {"other": 4}
    assert read.not_kept["all"].startswith("Output 'all' of run 'r' cannot be read here: Artifact file:///elsewhere")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("up_for_retry", (ExecutionStatus.RUNNING, 1, True, False)),
        ("queued", (ExecutionStatus.QUEUED, 0, False, False)),
        (None, (ExecutionStatus.QUEUED, 0, False, False)),
        ("success", (ExecutionStatus.COMPLETED, 1, True, True)),
    ],
)
def test_what_runs_or_waits_has_no_end_and_what_waits_has_not_begun(state: str | None, expected: Any) -> None:
    """Airflow keeps the times of the try before."""

    class Again(Client):
        def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
            return [{"task_id": "numbers", "state": state, **TIMES}]

    (found,) = AirflowReader(Again(Pipeline("again").add_step(numbers), [])).step_runs(JOB)
    assert (found.status, found.attempt, found.started_at is not None, found.ended_at is not None) == expected


def test_what_tasks_left_is_passed_over_where_they_run_again_meanwhile() -> None:
    """Airflow deletes the XComs of a task when it begins."""

    @pipeline(name="again")
    def made() -> Any:
        value = double.options(name="kept", cache=True)(1)
        for name in ("one", "other"):
            same.options(name=name, execution_group="both")(value)

    class Again(Client):
        def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
            about = {"state": "success", **TIMES}
            return [
                {"task_id": "kept", "operator": "Step", **about}, {"task_id": "both", "operator": "Together", **about},
            ]  # fmt: skip

        def returned(self, dag: str, run_id: str, key: str = "return_value") -> list[tuple[str, int]]:
            return [("kept", -1)]

        def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> Any:
            if key == STEPS_KEY:
                ended = {"state": "success", "attempt": 1, "outputs": {"same": "one.same"}}
                return {"try": 1, "steps": {"one": ended}}
            raise NotThereError("gone")

    reader = AirflowReader(Again(made, []))
    assert {step.name: step.cached_from for step in reader.step_runs(JOB)} == {"kept": "", "one": "", "other": ""}
    assert reader.run_artifacts(JOB) == []


class Foreign(OneRun):
    """The run of a DAG that FlowyML did not make. What is listed as cleared is not there any more."""

    def source(self, dag: Any, version: int | None = None) -> str:
        return "dag = DAG('legacy')"

    def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        return [{"task_id": "items", "map_index": index} for index in range(4)]

    def returned(self, dag: str, run_id: str) -> list[tuple[str, int]]:
        return [("cleared", -1), ("kept", -1), ("items", 0), ("items", 2)]

    def xcom(self, dag: str, run_id: str, task: str, key: str = "return_value", map_index: int = -1) -> int:
        if task == "cleared":
            raise NotThereError(404, "gone")
        return map_index if task == "items" else 4


def test_what_was_cleared_since_it_was_listed_is_not_read_and_items_that_returned_nothing_are_none() -> None:
    read = AirflowReader(Foreign()).outputs(JOB)
    assert dict(read) == {"kept": 4, "items": [0, None, 2, None]}
