"""The tasks of a run, by the names that the pipeline's file gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

from flowyml_kubeflow import names
from flowyml_kubeflow.status import status_of

__all__ = ["Tasks"]

Json = dict[str, Any]


class Tasks:
    """KFP tells of drivers and pods too; these are the steps."""

    def __init__(self, run: Any, pipeline: Mapping[str, Any]) -> None:
        self._details = list((run.run_details.task_details or ()) if run.run_details else ())
        self._pipeline = pipeline
        self.steps = dict(_steps(pipeline))
        self._by_name = {item.display_name: item for item in self._details if item.display_name in self.steps}
        self._by_id = {item.task_id: item for item in self._details}

    def state(self, task: str) -> str | None:
        return self._by_name[task].state if task in self._by_name else None

    def started(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return (item.start_time or item.create_time) if item else None

    def ended(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return item.end_time if item and status_of(item.state).is_terminal else None

    def pods(self, task: str) -> list[str]:
        """The pods in which the attempts of a step ran, the first attempt first."""
        found: list[str] = []
        self._collect(self._by_name.get(task), found)
        return found

    def _collect(self, item: Any, found: list[str]) -> None:
        if item is None:
            return
        children = item.child_tasks or ()
        if not children and item.pod_name:
            found.append(item.pod_name)
        for child in children:
            if child.task_id in self._by_id:
                self._collect(self._by_id[child.task_id], found)
            elif child.pod_name:
                found.append(child.pod_name)

    def outputs(self) -> dict[str, list[str]]:
        """Which steps give outputs of the pipeline, by port."""
        dag = _inner(self._pipeline)
        found: dict[str, list[str]] = {}
        for port, selector in dag.get("outputs", {}).get("parameters", {}).items():
            found.setdefault(selector["valueFromParameter"]["producerSubtask"], []).append(port)
        return found


def _inner(pipeline: Mapping[str, Any]) -> Json:
    """The DAG that holds the steps."""
    component: Json = pipeline["components"].get(f"comp-{names.STEPS_TASK}", pipeline["root"])
    return component["dag"]  # type: ignore[no-any-return]


def _steps(pipeline: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tasks and their steps in topological order: KFP hands the file back with its entries in any order."""
    tasks = _inner(pipeline)["tasks"]
    order = TopologicalSorter({name: sorted(item.get("dependentTasks", ())) for name, item in sorted(tasks.items())})
    for name in order.static_order():
        constant = tasks.get(name, {}).get("inputs", {}).get("parameters", {}).get(names.STEP)
        if constant:
            yield name, constant["runtimeValue"]["constant"]
