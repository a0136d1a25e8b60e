"""As much of Airflow's task instance as the tasks of a DAG ask for, where no Airflow is needed."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from flowyml_airflow.xcoms import restored

__all__ = ["Ti"]


class Ti:
    """It knows the states of other tasks, and what they left: by task, key and index. What is pushed is kept, in order.

    An item has its index behind the name of its task: ``double_1``.
    """

    dag_id = run_id = "x"

    def __init__(
        self, states: Mapping[str, str] = {}, xcoms: Mapping[Any, Any] = {}, map_index: int = -1, try_number: int = 1
    ) -> None:
        self.states, self.xcoms, self.map_index, self.try_number = states, xcoms, map_index, try_number
        self.pushed: list[tuple[str, Any]] = []
        self.read: list[int] = []  # how many states each call got

    def get_task_states(
        self, *, dag_id: str, task_ids: list[str], run_ids: list[str], map_index: int | None = None
    ) -> Any:  # fmt: skip
        def task_of(key: str) -> str:
            task, _, index = key.rpartition("_")
            return task if index.isdigit() else key

        found = {key: state for key, state in self.states.items() if {key, task_of(key)} & {*task_ids}}
        found = {key: state for key, state in found.items() if map_index is None or key.endswith(f"_{map_index}")}
        self.read.append(len(found))
        return {"x": found}

    def xcom_pull(self, *, task_ids: Any, key: str, map_indexes: int = -1) -> Any:
        if isinstance(task_ids, str):
            return self.xcoms.get((task_ids, key, map_indexes))
        (task,) = task_ids
        return [value for (of, name, _), value in self.xcoms.items() if (of, name) == (task, key)]

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed.append((key, restored(deepcopy(value))))  # Airflow serializes it at once
