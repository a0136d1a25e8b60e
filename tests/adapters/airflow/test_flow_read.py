"""Loops and branches on Airflow: what is read of a run. No Airflow here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowyml import Pipeline, pipeline
from flowyml.core.runs import Outputs
from flowyml_airflow.client import NotThereError
from flowyml_airflow.compiler import compile_dag
from flowyml_airflow.deployed import facts_of
from flowyml_airflow.flow_reading import Seen, part_name
from flowyml_airflow.reading import RunReader
from tests.adapters.airflow.test_flow import branched, double, mapped_over, numbers, same


def seen(states: Mapping[str, Mapping[int, str]], made: Pipeline) -> Seen:
    facts = facts_of(compile_dag(made.bundle()).text)
    return Seen(facts, [
        {"task_id": task, "map_index": index, "state": state}
        for task, found in states.items() for index, state in found.items()
    ])  # fmt: skip


def test_a_loop_over_nothing_is_told_from_one_that_was_skipped() -> None:
    made = mapped_over(numbers)
    assert seen({"double": {-1: "skipped"}, "double_items": {-1: "success"}}, made).has_no_items("double")
    assert not seen({"double": {-1: "skipped"}, "double_items": {-1: "skipped"}}, made).has_no_items("double")
    assert not seen({"double": {0: "skipped"}, "double_items": {-1: "success"}}, made).has_no_items("double")


def test_the_output_of_a_choice_is_that_of_what_ran() -> None:
    place = {"either": [["a", "out"], ["b", "out"]]}
    assert seen({"a": {-1: "skipped"}, "b": {-1: "success"}}, branched()).place(place) == ["b", "out"]
    assert seen({"a": {-1: "skipped"}, "b": {-1: "skipped"}}, branched()).place(place) is None


def test_lists_are_put_together_again() -> None:
    made = mapped_over(numbers)
    read = Outputs({part_name("all", 0): 1, part_name("all", 2): 3, "other": 4})
    joined = seen({}, made).joined(read, {"all": (["double", "double", "double"], [0, 2])})
    assert dict(joined) == {"all": [1, 3], "other": 4}


def test_of_a_list_that_is_not_whole_no_part_is_read() -> None:
    @pipeline(name="listed")
    def made() -> Any:
        return {"all": double.map(n=numbers()), "other": same(4)}

    class Client:
        """Of the third item nothing is kept."""

        def source(self, dag: Any, version: int | None) -> str:
            return compile_dag(made.bundle()).text

        def dag(self, dag: str) -> dict[str, Any]:
            return {}

        def task_instances(self, dag: str, run_id: str) -> list[dict[str, Any]]:
            states = [("numbers", -1), ("double_items", -1), ("double", 0), ("double", 1), ("double", 2), ("same", -1)]
            return [{"task_id": task, "map_index": index, "state": "success"} for task, index in states]

        def xcom(self, dag: str, run_id: str, task: str, key: str, index: int = -1) -> int:
            if index == 2:
                raise NotThereError(404, "gone")
            return 4

    read = RunReader(Client()).outputs({"dag_id": "listed", "dag_run_id": "r"})  # type: ignore[arg-type]  # all it asks
    assert dict(read) == {"other": 4}
    assert list(read.not_kept) == ["all"]


def test_what_was_cleared_since_it_was_listed_is_not_read() -> None:
    class Client:
        """The run of a DAG that FlowyML did not make."""

        def source(self, dag: Any, version: int | None) -> str:
            return "dag = DAG('legacy')"

        def dag(self, dag: str) -> dict[str, Any]:
            return {}

        def returned(self, dag: str, run_id: str) -> list[tuple[str, int]]:
            return [("cleared", -1), ("kept", -1)]

        def xcom(self, dag: str, run_id: str, task: str, map_index: int = -1) -> int:
            if task == "cleared":
                raise NotThereError(404, "gone")
            return 4

    read = RunReader(Client()).outputs({"dag_id": "legacy", "dag_run_id": "r"})  # type: ignore[arg-type]  # all it asks
    assert dict(read) == {"kept": 4}
