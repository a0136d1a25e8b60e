"""Find the tasks of a run among the nodes of KFP's Argo workflow.

A step has its driver, a node of the step's name, below that a node ``executor``, which is the pod or contains the
attempts, and its successors. In a loop each chunk of items has all of these. The workflow has all of this information.
If a server does not return it, there is a task detail for each node, which has its display name and the ids of its
children, but neither its own id nor its pod, so these are guessed. Sources: ``Workflow.NodeStatuses`` and
``toApiPipelineTaskDetail`` of KFP's API server.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

from flowyml_kubeflow import names
from flowyml_kubeflow.parameters import output_name
from flowyml_kubeflow.spec import documents
from flowyml_kubeflow.status import status_of
from flowyml_kubeflow.workflow import Node, Workflow

__all__ = ["Pod", "Tasks", "pod_of"]

Json = dict[str, Any]

_HOOKS = (names.START_TASK, names.END_TASK, names.RESULT_TASK)
_IMPL = "system-container-impl"  # its template
_KILLED = "(exit code 137)"  # by SIGKILL
_REASON = "Error (exit code 1): "  # before what a pod of FlowyML left as its reason: see ``worker``
_STEP, _STEPS = "step__", "steps__"  # parameters of tasks that 1.0.0rc1 compiled


@dataclass(frozen=True)
class Pod:
    """One attempt of a step: Argo's id of its node, the possible names of the pod, likeliest first, and its number.

    ``stored`` are URLs of its output, ``message`` is Argo's message; both are empty if unknown. ``failed_at`` is the
    end of a pod that failed.
    """

    node: str
    names: tuple[str, ...]
    attempt: int
    stored: tuple[str, ...] = ()
    message: str = ""
    failed_at: datetime | None = None

    @property
    def reason(self) -> str:
        """The reason that a failed pod left in its termination log, by ``worker``; empty if it left none."""
        return self.message.partition(_REASON)[2]


class Tasks:
    """The steps of a run by their tasks, at any depth of the pipeline."""

    def __init__(self, run: Any, version: Mapping[str, Any], workflow: Workflow | None = None) -> None:
        pipeline, platform = documents(version)
        details = list((run.run_details.task_details or ()) if not workflow and run.run_details else ())
        self.workflow = workflow
        steps = dict(_step_tasks(pipeline, pipeline["root"]["dag"]))
        titles = {task: _steps_shown(pipeline, task, item) for task, item in steps.items()}
        self.steps = {step: name for inner in titles.values() for step, name in inner.items()}
        """The steps by their tasks: those of an execution group by the names of the tasks that they would have."""
        self.run_by = {step: task for task, inner in titles.items() for step in inner}
        every = [item for dag in _dags(pipeline) for item in dag["tasks"].items()]
        hooks = {name: task for name, task in every if name in _HOOKS}
        self.has_flow = names.RESULT_TASK in hooks
        """True if the pipeline has control flow: then its pods write notes about the steps."""
        self.loops = {step: items for task, items in _loops(pipeline, titles) for step in titles.get(task, ())}
        """The steps in loops, with the task that knows the items or, if the file has it, their number."""
        openings = {name: task for name, task in every if name in self.loops.values()}
        self._tasks = {**steps, **hooks, **openings}
        self.logged = {name: "" for name in _HOOKS[:1] if name in hooks}
        self.logged |= {task: next(iter(inner.values())) if task in inner else "" for task, inner in titles.items()}
        self.logged |= {name: "" for name in _HOOKS[1:] if name in hooks}
        """The tasks whose pods run a user's code, in order, with the step's name or nothing where there is not one."""
        self._pipeline = pipeline
        self._executors = _executors(pipeline, platform)
        self._by_name: dict[str, list[Any]] = {}
        nodes = [(node.display_name, node) for node in workflow.nodes] if workflow else _by_task(details)
        for name, item in nodes:
            if name in self._tasks:
                self._by_name.setdefault(name, []).append(item)

    def state(self, task: str) -> str | None:
        """Return the state of a task; for a step in a loop, that of its last pod."""
        return item.state if (item := self._last(task)) else None

    def started(self, task: str) -> datetime | None:
        """Return the start of a task; for a step in a loop, that of its last pod."""
        item = self._last(task)
        return (item.start_time or item.create_time) if item else None

    def ended(self, task: str) -> datetime | None:
        """Return the end of a task; for a step in a loop, that of its last pod."""
        item = self._last(task)
        return item.end_time if item and status_of(item.state).is_terminal else None

    def _of(self, task: str) -> list[Any]:
        return self._by_name.get(self.run_by.get(task, task), [])

    def _last(self, task: str) -> Any:
        return max(self._of(task), key=lambda item: str(item.start_time or item.create_time), default=None)

    def pods(self, task: str) -> list[Pod]:
        """Return the attempts of a step, in order; for a step in a loop those of all its pods."""
        if self.workflow:
            return [pod_of(node, self.workflow) for node in self._ran_in(task) if node.kind == "Pod"]
        below = [child for item in self._of(task) for child in _children(item)]
        task = self.run_by.get(task, task)
        return [Pod(node, self._names(task, node), 1) for node in below]

    def _ran_in(self, task: str) -> list[Node]:
        return self.workflow.executors(self.run_by.get(task, task)) if self.workflow else []

    def _names(self, task: str, node: str) -> tuple[str, ...]:
        """Return a pod's possible names, ``WORKFLOW-TEMPLATE-HASH``; the last form is that of Argo before 3.4.

        Source: KFP, ``RetrievePodName``.
        """
        workflow, _, number = node.rpartition("-")
        return *(f"{workflow}-{template}-{number}" for template in self._templates(task)), node

    def _templates(self, task: str) -> Iterator[str]:
        """Yield KFP's possible template names of a step, which differ by release: newest and most specific first.

        Source: KFP, ``addContainerExecutorTemplate``.
        """
        metadata = self._executors.get(self._tasks[task]["componentRef"]["name"], {}).get("podMetadata")
        if metadata is not None:
            counts = f"{len(metadata.get('annotations', ()))}-{len(metadata.get('labels', ()))}"
            yield f"metadata-{counts}-{_IMPL}"
        yield _IMPL

    def is_cached(self, task: str) -> bool:
        """Return whether KFP took the step's outputs from its cache, so that no pod ran, if the workflow shows it."""
        return any(node.kind == "Skipped" for node in self._ran_in(task)[-1:])

    def has_notes(self, task: str) -> bool:
        """Return whether the pod of a step writes notes, by its container: for a cached step or one with retries."""
        task_item = self._tasks[self.run_by.get(task, task)]
        label = self._pipeline["components"].get(task_item["componentRef"]["name"], {}).get("executorLabel")
        executor = self._pipeline.get("deploymentSpec", {}).get("executors", {}).get(label, {})
        return any(item.get("name") == names.NOTES for item in executor.get("container", {}).get("env", ()))

    def outputs(self) -> dict[str, list[str]]:
        """Return the steps with outputs of the pipeline, with the names of these."""
        outputs: dict[str, list[str]] = {}
        definitions = self._pipeline["root"].get("outputDefinitions", {})
        kind = "parameters" if "parameters" in definitions else "artifacts"  # 1.0.0rc1 wrote both
        for dag in _dags(self._pipeline):
            for port, selector in dag.get("outputs", {}).get(kind, {}).items():
                selected = selector.get("valueFromParameter") or selector["artifactSelectors"][0]
                producer = selected["producerSubtask"]
                if port in definitions.get(kind, {}) and (producer in self.steps or producer == names.RESULT_TASK):
                    outputs.setdefault(producer, []).append(output_name(port, definitions[kind][port]))
        return outputs


def pod_of(node: Node, workflow: Workflow) -> Pod:
    """Return the pod of a node."""
    failed_at = node.end_time if node.state == "FAILED" else None
    killed = ", killed: it may have needed more memory than it has" if node.message.endswith(_KILLED) else ""
    return Pod(node.id, (node.pod,), node.attempt, tuple(workflow.logs_of(node)), node.message + killed, failed_at)


def _steps_shown(pipeline: Mapping[str, Any], task: str, item: Mapping[str, Any]) -> dict[str, str]:
    """Return the steps that a task runs, by their own tasks."""
    titles = _about(pipeline, item).get("steps") or {task: str(item["taskInfo"]["name"])}
    return {step: names.step_shown(name, step) for step, name in titles.items()}


def _about(pipeline: Mapping[str, Any], item: Mapping[str, Any]) -> Json:
    """Return the argument of a task's container that names its steps; 1.0.0rc1 named them in parameters."""
    label = pipeline["components"].get(item["componentRef"]["name"], {}).get("executorLabel")
    container = pipeline.get("deploymentSpec", {}).get("executors", {}).get(label, {}).get("container", {})
    constants = {name: source.get("runtimeValue", {}).get("constant") for name, source in _parameters(item).items()}
    if _STEPS in constants:
        return {"steps": json.loads(constants[_STEPS])}
    for port in (_STEP, names.STEP):
        if port in constants:
            return {"step": constants[port]}
    words = [str(word) for word in container.get("args", ())]
    return dict(json.loads(words[2])) if words[:1] in (["step"], ["turn"]) else {}


def _parameters(item: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = item.get("inputs", {}).get("parameters", {})
    return parameters


def _children(item: Any) -> list[str]:
    return [child.pod_name for child in item.child_tasks or () if child.pod_name]


def _by_task(details: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return task details with the names of their tasks.

    A stock KFP 2.17 lists a task twice, as ``train`` and as ``train(0)`` within it: only the inner one names the node
    whose log has the step's lines.
    """
    named = [(str(item.display_name), item) for item in details]
    inner = [(name.removesuffix("(0)"), item) for name, item in named if name.endswith("(0)")]
    tasks = {name for name, _ in inner}
    return [*inner, *((name, item) for name, item in named if name not in tasks)]


def _executors(pipeline: Mapping[str, Any], platform: Mapping[str, Any]) -> dict[str, Json]:
    """Return the configuration for Kubernetes in the file, by component."""
    executors = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    labels = {name: item.get("executorLabel") for name, item in pipeline.get("components", {}).items()}
    return {name: executors[label] for name, label in labels.items() if label in executors}


def _dags(pipeline: Mapping[str, Any]) -> Iterator[Json]:
    components = pipeline.get("components", {}).values()
    return (item["dag"] for item in (pipeline["root"], *components) if "dag" in item)


def _loops(pipeline: Mapping[str, Any], steps: Container[str]) -> Iterator[tuple[str, str | int]]:
    """Yield steps in loops, each with the task that prepares the loop, or the number of its items."""
    for dag in _dags(pipeline):
        for task in dag["tasks"].values():
            if iterator := task.get("parameterIterator"):
                component = pipeline["components"][task["componentRef"]["name"]]
                for step in component["dag"]["tasks"]:
                    if step in steps:  # a loop of another compiler has other items
                        yield step, _items_of(task, iterator["items"])


def _items_of(task: Mapping[str, Any], items: Mapping[str, Any]) -> str | int:
    if "raw" in items:
        return int(json.loads(items["raw"])[-1].partition(":")[2])
    return str(task["inputs"]["parameters"][items["inputParameter"]]["taskOutputParameter"]["producerTask"])


def _step_tasks(pipeline: Mapping[str, Any], dag: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """Yield the tasks of steps, in topological order: KFP returns the file with its entries in any order."""
    tasks = dag["tasks"]
    order = TopologicalSorter({name: sorted(item.get("dependentTasks", ())) for name, item in sorted(tasks.items())})
    for name in order.static_order():
        component = pipeline["components"].get(tasks[name]["componentRef"]["name"], {})
        if "dag" in component:
            yield from _step_tasks(pipeline, component["dag"])
        elif _about(pipeline, tasks[name]):
            yield name, tasks[name]
