"""The steps of a run, among the nodes of the Argo workflow that KFP makes of a pipeline.

KFP's API gives a task detail for each node: for a step its driver, a node of the step's name, below that a node
``executor``, which is the pod or holds the attempts, and whatever comes next. A detail says its display name and the
ids of its children, but neither its own id nor its pod. Sources: ``Workflow.NodeStatuses`` and
``toApiPipelineTaskDetail`` of KFP's API server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

from flowyml_kubeflow import names
from flowyml_kubeflow.parameters import output_name
from flowyml_kubeflow.status import status_of

__all__ = ["Pod", "Tasks", "documents", "inputs_of", "node_id"]

Json = dict[str, Any]

_EXECUTOR = "executor"  # the task in which a step's container runs; source: KFP, argocompiler/container.go
_IMPL = "system-container-impl"  # its template
_FNV_PRIME, _WORD = 0x01000193, 0xFFFFFFFF  # of FNV-1a with 32 bits


@dataclass(frozen=True)
class Pod:
    """One attempt of a step: Argo's id of its node, and what the pod may be called, the likeliest first."""

    node: str
    names: tuple[str, ...]


class Tasks:
    """The steps of a run by their tasks, at any depth of the pipeline."""

    def __init__(self, run: Any, version: Mapping[str, Any]) -> None:
        pipeline, platform = documents(version)
        details = list((run.run_details.task_details or ()) if run.run_details else ())
        self._tasks = dict(_step_tasks(pipeline, pipeline["root"]["dag"]))
        self.steps = {task: names.step_shown(str(item["taskInfo"]["name"]), task) for task, item in self._tasks.items()}
        self._pipeline = pipeline
        self._executors = _executors(pipeline, platform)
        self._by_name = {item.display_name: item for item in details if item.display_name in self.steps}
        self._skipped = [item for item in details if item.display_name == _EXECUTOR and item.state == "SKIPPED"]
        self._nodes = {child for item in details for child in _children(item)}

    def state(self, task: str) -> str | None:
        return self._by_name[task].state if task in self._by_name else None

    def started(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return (item.start_time or item.create_time) if item else None

    def ended(self, task: str) -> datetime | None:
        item = self._by_name.get(task)
        return item.end_time if item and status_of(item.state).is_terminal else None

    def pods(self, task: str) -> list[Pod]:
        """The attempts of a step, the first attempt first."""
        below = _children(self._by_name[task]) if task in self._by_name else []
        if self.is_cached(task):
            return []
        return [Pod(node, self._names(task, node)) for child in below for node in self._attempts(child)]

    def _attempts(self, executor: str) -> list[str]:
        """With a retry policy, Argo puts the attempts below the executor; else the executor is the one attempt."""
        found: list[str] = []
        while (node := node_id(f"({len(found)})", after=executor)) in self._nodes:
            found.append(node)
        return found or [executor]

    def _names(self, task: str, node: str) -> tuple[str, ...]:
        """``WORKFLOW-TEMPLATE-HASH``. Source: KFP, ``RetrievePodName``; the last is that of Argo before 3.4."""
        workflow, _, number = node.rpartition("-")
        return *(f"{workflow}-{template}-{number}" for template in self._templates(task)), node

    def _templates(self, task: str) -> Iterator[str]:
        """What KFP may call the template of a step, which differs by its release: newest and most special first.

        Source: KFP, ``addContainerExecutorTemplate``.
        """
        retries = (f"retry-{_IMPL}", _IMPL) if "retryPolicy" in self._tasks[task] else (_IMPL,)
        metadata = self._executors.get(self._tasks[task]["componentRef"]["name"], {}).get("podMetadata")
        if metadata is not None:
            counts = f"{len(metadata.get('annotations', ()))}-{len(metadata.get('labels', ()))}"
            yield from (f"metadata-{counts}-{template}" for template in retries)
        yield from retries

    def is_cached(self, task: str) -> bool:
        """Whether KFP took the step's outputs from its cache, so that no pod ran: its executor was skipped."""
        caches = self._tasks[task].get("cachingOptions", {}).get("enableCache", False)
        item = self._by_name.get(task)
        if not caches or item is None or item.state != "SUCCEEDED":
            return False
        return any(item.start_time <= skipped.start_time <= item.end_time for skipped in self._skipped)

    def outputs(self) -> dict[str, list[str]]:
        """The steps that give outputs of the pipeline, with their names."""
        found: dict[str, list[str]] = {}
        definitions = self._pipeline["root"].get("outputDefinitions", {}).get("parameters", {})
        for dag in _dags(self._pipeline):
            for port, selector in dag.get("outputs", {}).get("parameters", {}).items():
                producer = selector["valueFromParameter"]["producerSubtask"]
                if producer in self.steps:
                    found.setdefault(producer, []).append(output_name(port, definitions.get(port, {})))
        return found


def node_id(name: str, *, after: str) -> str:
    """The id of the node whose name goes on with ``name`` after that of another node.

    Argo's ids are the workflow's name and the FNV-1a hash of the node's; such a hash can be continued. Source: Argo,
    ``Workflow.NodeID``.

    >>> node_id("(0)", after="dag-diamond-xfww2-1522144194")  # as in an example of Argo's
    'dag-diamond-xfww2-2043927737'
    """
    workflow, _, number = after.rpartition("-")
    value = int(number)
    for byte in name.encode():
        value = ((value ^ byte) * _FNV_PRIME) & _WORD
    return f"{workflow}-{value}"


def _children(item: Any) -> list[str]:
    return [child.pod_name for child in item.child_tasks or () if child.pod_name]


def inputs_of(version: Mapping[str, Any]) -> Json:
    """The parameters that a pipeline takes, by their ports."""
    inputs: Json = documents(version)[0].get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return inputs


def documents(version: Mapping[str, Any]) -> tuple[Json, Json]:
    """The pipeline and its platform: KFP gives the first alone, or both below their names."""
    return dict(version.get("pipeline_spec") or version), dict(version.get("platform_spec") or {})


def _executors(pipeline: Mapping[str, Any], platform: Mapping[str, Any]) -> dict[str, Json]:
    """What Kubernetes is told of each component."""
    told = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    labels = {name: item.get("executorLabel") for name, item in pipeline.get("components", {}).items()}
    return {name: told[label] for name, label in labels.items() if label in told}


def _dags(pipeline: Mapping[str, Any]) -> Iterator[Json]:
    components = pipeline.get("components", {}).values()
    return (item["dag"] for item in (pipeline["root"], *components) if "dag" in item)


def _step_tasks(pipeline: Mapping[str, Any], dag: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """The tasks of steps, in topological order: KFP hands the file back with its entries in any order."""
    tasks = dag["tasks"]
    order = TopologicalSorter({name: sorted(item.get("dependentTasks", ())) for name, item in sorted(tasks.items())})
    for name in order.static_order():
        component = pipeline["components"].get(tasks[name]["componentRef"]["name"], {})
        if "dag" in component:
            yield from _step_tasks(pipeline, component["dag"])
        elif names.STEP in tasks[name].get("inputs", {}).get("parameters", {}):
            yield name, tasks[name]
