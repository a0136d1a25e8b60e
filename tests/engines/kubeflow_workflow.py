"""The Argo workflow of a run on the fake of KFP's API: its nodes and pods, and what of them outlives a retry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kfp_server_api

from flowyml_kubeflow import flow_names, names
from tests.engines import kubeflow_turns
from tests.engines.kubeflow_state import Json, current_time


@dataclass(frozen=True)
class Hook:
    """A hook of the pipeline that ran, as a step ran."""

    started_at: datetime
    ended_at: datetime | None
    raw_status: str

    @classmethod
    def of(cls, attempt: Json, *, is_over: bool) -> Hook:
        """Its launcher writes down that it ended, unless it is killed."""
        ended = attempt.get("ended")
        moments = [datetime.fromtimestamp(moment, UTC) if moment else None for moment in (attempt["started"], ended)]
        state = "SUCCEEDED" if ended else "FAILED" if is_over else "RUNNING"
        return cls(moments[0] or current_time(), moments[1], state)


@dataclass(frozen=True)
class Kept:
    """What of a task outlives a retry of its run, by the numbers of its attempts in the journal.

    A task that succeeded is kept, a hook's too, without its attempts that failed; one that failed begins anew. Pods
    that failed are deleted, and their logs with them. Source: KFP, common/util/workflow.go, ``GenerateRetryExecution``
    (which drops only nodes called after the workflow with ``.onExit``, and the end hook's is not); ``RetryRun``.
    """

    has_succeeded: bool = False
    before: int = 0  # attempts of earlier tries of the run, which no node remembers
    deleted: frozenset[int] = frozenset()

    def after(self, attempts: list[Json]) -> Kept:
        """What the next retry keeps."""
        if "ended" not in attempts[-1] or attempts[-1].get("failure"):
            return Kept(before=attempts[-1]["attempt"])
        failed = {item["attempt"] for item in attempts if item.get("failure")}
        return Kept(True, self.before, self.deleted | failed)

    def pods(self, numbers: Iterable[int]) -> dict[int, int]:
        """Argo's number of each attempt that still has a node, from 0, with its number in the journal."""
        return {
            number - self.before - 1: number
            for number in numbers
            if number > self.before and number not in self.deleted
        }


class Workflow:
    """The nodes of the Argo workflow that KFP makes of a run, as far as its API tells of them.

    It tells each node's display name and the ids of its children, and neither the node's own id nor its pod.
    Sources: KFP's argocompiler, ``Workflow.NodeStatuses``, ``toModelTasks`` and ``toApiPipelineTaskDetail``.
    """

    def __init__(self, name: str, run_id: str, spec: Json, platform: Json) -> None:
        self.name = name
        self.run_id = run_id
        self.spec = spec
        self.kubernetes = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        found = dict(_below(spec, spec["root"]["dag"], f"{name}.root"))
        self.hooks = [path for path in found if path.endswith((names.START_TASK, names.END_TASK))]
        self.tasks = found
        self.steps = {path: task for path, task in found.items() if path not in self.hooks}
        self.pods: dict[str, tuple[str, Any]] = {}
        self._nodes: dict[str, Json] = {}

    def add_again(self, path: str, step: Any) -> None:
        """A step of a run that is retried, until it begins: its node, a DAG, runs again, with nothing below it yet."""
        self._add(f"{path}-driver", "SUCCEEDED", step, [path])
        self._add(path, "RUNNING", step, [])

    def add(self, path: str, step: Any, attempts: dict[int, int], *, is_cached: bool) -> None:
        """The driver of a step, its node, and below that its executor with the attempts, by Argo's numbers of them."""
        state = "FAILED" if step.raw_status in ("TIMEOUT", "CANCELED") else step.raw_status
        dag, _, task = path.rpartition(".")
        after = [f"{dag}.{other}-driver" for other in self._after(path)]
        self._add(f"{path}-driver", "SUCCEEDED", step, [path])
        self._add(path, state, step, [f"{path}.executor"])
        if is_cached:
            self._add(f"{path}.executor", "SKIPPED", step, after)
        elif "retryPolicy" in self.tasks[path]:
            pods = [f"{path}.executor({number})" for number in attempts]
            self._add(f"{path}.executor", state, step, pods)
            for pod, attempt in zip(pods, attempts.values(), strict=True):
                is_last = pod == pods[-1]
                self._pod(pod, task, attempt, state if is_last else "FAILED", step, after if is_last else [])
        else:
            self._pod(f"{path}.executor", task, [*attempts.values()][-1], state, step, after)

    def add_turns(self, chunk: kubeflow_turns.Chunk) -> None:
        """The driver, node and pods of a step in a pipeline with control flow, of each chunk of items in a loop."""
        self._add(f"{chunk.path}-driver", "SUCCEEDED", chunk, [chunk.path])
        self._add(chunk.path, chunk.state, chunk, [f"{chunk.path}.executor"])
        self._add(f"{chunk.path}.executor", chunk.state, chunk, [])
        self.pods[f"{self.name}-system-container-impl-{_fnv(f'{chunk.path}.executor')}"] = (chunk.task, chunk)

    def _after(self, path: str) -> list[str]:
        dag, _, task = path.rpartition(".")
        siblings = {other.rpartition(".")[2]: item for other, item in self.steps.items() if other.startswith(f"{dag}.")}
        return [name for name, item in siblings.items() if task in item.get("dependentTasks", ())]

    def _pod(self, path: str, task: str, attempt: int, state: str, step: Any, children: list[str]) -> None:
        self._add(path, state, step, children)
        component = self.tasks[path.rpartition(".")[0]]["componentRef"]["name"]
        template = "system-container-impl"
        if "retryPolicy" in self.tasks[path.rpartition(".")[0]]:
            template = f"retry-{template}"
        label = self.spec["components"][component]["executorLabel"]
        metadata = self.kubernetes.get("executors", {}).get(label, {}).get("podMetadata")
        if metadata is not None:
            counts = f"{len(metadata.get('annotations', {}))}-{len(metadata.get('labels', {}))}"
            template = f"metadata-{counts}-{template}"
        self.pods[f"{self.name}-{template}-{_fnv(path)}"] = (task, attempt)

    def _add(self, path: str, state: str, step: Any, children: list[str]) -> None:
        self._nodes[path] = {
            "display_name": path.rpartition(".")[2], "state": state, "start_time": step.started_at,
            "end_time": step.ended_at or datetime.fromtimestamp(0, UTC), "create_time": step.started_at,
            "child_tasks": [
                kfp_server_api.PipelineTaskDetailChildTask(pod_name=f"{self.name}-{_fnv(child)}") for child in children
            ],
        }  # fmt: skip

    def details(self) -> list[Any]:
        made = [
            kfp_server_api.V2beta1PipelineTaskDetail(run_id=self.run_id, task_id=str(uuid.uuid4()), **node)
            for node in self._nodes.values()
        ]
        return sorted(made, key=lambda detail: str(detail.task_id))


def _below(spec: Json, dag: Json, path: str) -> Iterator[tuple[str, Json]]:
    """The tasks of steps and of hooks by the names of their nodes, at any depth.

    The end hook is a hook of Argo's as well, whose node is called after the task that it follows, with ``.onExit``; its
    own nodes are below that. Sources: KFP, argocompiler/dag.go; Argo, ``runOnExitNode``.
    """
    for name, task in dag["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _below(spec, component["dag"], f"{path}.{name}")
        elif name == names.END_TASK:
            yield f"{path}.{names.STEPS_TASK}.onExit.{name}", task
        elif name == names.START_TASK or names.STEP in task.get("inputs", {}).get("parameters", {}):
            yield f"{path}.{name}", task


def _fnv(name: str) -> int:
    """Argo's hash of a node's name: FNV-1a with 32 bits."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) % 2**32
    return value


def step_tasks(spec: Json) -> Json:
    dags = [spec["root"], *spec["components"].values()]
    tasks = {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}
    wanted = {names.STEP, flow_names.STEPS}
    return {name: task for name, task in tasks.items() if wanted & task.get("inputs", {}).get("parameters", {}).keys()}


def steps_of_task(name: str, task: Json) -> dict[str, str]:
    """The steps of a task, by what the task of each is called."""
    given = task["inputs"]["parameters"]
    if names.STEP in given:
        return {name: given[names.STEP]["runtimeValue"]["constant"]}
    found: dict[str, str] = json.loads(given[flow_names.STEPS]["runtimeValue"]["constant"])
    return found
