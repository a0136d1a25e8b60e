"""The Argo workflow of a run: its nodes, and its failures.

The manifest of v1beta1 has all of it. The task details of v2beta1 are incomplete if Argo packs the nodes, which it does
when a workflow is larger than 1 MiB, and lack ids and messages. Sources: KFP, ``report_server.go``; Argo,
``packer.go``.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from flowyml.core.errors import EngineError
from flowyml.core.web import parsed

__all__ = ["DRIVER", "EXECUTOR", "Node", "Workflow"]

Json = dict[str, Any]

_LARGEST = 1 << 27  # bytes of nodes, unpacked: Argo packs them if they have more than one MiB, into one
EXECUTOR, DRIVER = "system-container-executor", "-driver"  # source: KFP, argocompiler/container.go
_STATES = {
    "Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED", "Skipped": "SKIPPED", "Failed": "FAILED",
    "Error": "FAILED",
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """A node of a workflow: a pod, a DAG, or the attempts of either. ``state`` is in KFP's words.

    ``within`` is the id of its DAG, ``log`` the key of its archived log, ``patch`` its container with the driver's
    changes.
    """

    id: str
    display_name: str
    kind: str
    template: str
    state: str
    message: str
    within: str
    start_time: datetime
    end_time: datetime | None
    log: str = ""
    patch: str = field(default="", repr=False)

    create_time = None  # as a task detail has it
    child_tasks = ()

    @property
    def task(self) -> str:
        """The name without the number of an attempt: ``train`` of ``train(0)``."""
        return self.display_name.partition("(")[0]

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""
        number = self.display_name.rpartition("(")[2].removesuffix(")")
        return int(number) + 1 if number.isdecimal() else 1

    @property
    def pod(self) -> str:
        """The name of its pod. Source: Argo, ``GeneratePodName``."""
        workflow, _, number = self.id.rpartition("-")
        return f"{workflow}-{self.template}-{number}"

    @property
    def published_log(self) -> str:
        """The URL of the artifact with the lines of the container alone; empty if KFP publishes none.

        Source: KFP, launcher_v2.go: ``executor-logs``, with the number of the attempt.
        """
        try:
            command = parsed(self.patch.encode())["containers"][0]["command"]
            executor_input = parsed(command[command.index("--executor_input") + 1].encode())
            (artifact,) = executor_input["outputs"]["artifacts"]["executor-logs"]["artifacts"]
            return f"{artifact['uri']}-{self.attempt - 1}"
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, EngineError):
            return ""


class Workflow:
    """A workflow as the API server keeps it."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._status: Mapping[str, Any] = manifest.get("status") or {}
        self.message = str(self._status.get("message") or "")
        """The reason in Argo's words why the workflow failed as a whole; empty if there is none."""
        repository = (self._status.get("artifactRepositoryRef") or {}).get("artifactRepository") or {}
        self._bucket = (repository.get("s3") or {}).get("bucket")

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Workflow | None:
        """Read the workflow of a run of v1beta1; None if its manifest has no nodes, or another form."""
        try:
            workflow = cls(parsed(run["pipeline_runtime"]["workflow_manifest"].encode()))
            return workflow if workflow.nodes else None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    @cached_property
    def nodes(self) -> list[Node]:
        """The nodes that began, in that order. Raises ``EngineError`` for a packed list that is damaged."""
        nodes = [_node(item) for item in self._items() if item.get("phase") in _STATES and item.get("startedAt")]
        return sorted(nodes, key=lambda node: (node.start_time, node.attempt, node.id))

    def logs_of(self, node: Node) -> list[str]:
        """Return the base URLs of a pod's stored output: its published log, then the log that Argo archived."""
        archived = f"minio://{self._bucket}/{node.log}" if self._bucket and node.log else ""
        return [url for url in (node.published_log, archived) if url]

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """The nodes by their ids."""
        return {node.id: node for node in self.nodes}

    def executors(self, task: str) -> list[Node]:
        """Return the nodes in which the container of a task ran, or was skipped since KFP has its results."""
        homes = {node.id for node in self.nodes if node.task == task and node.template.endswith(EXECUTOR)}
        return [node for node in self.nodes if node.within in homes and node.kind in ("Pod", "Skipped")]

    @property
    def failed_pods(self) -> list[Node]:
        """The last attempt of each pod, if it failed, in order."""
        last = {(node.within, node.task): node for node in self.nodes if node.kind == "Pod"}
        return [node for node in last.values() if node.state == "FAILED"]

    def failed(self) -> list[Node]:
        """Return the failed pods with messages; without any, the first other failed node with one.

        That node is left out if the workflow itself has a message.
        """
        others = [node for node in self.nodes if node.kind in ("Retry", "DAG", "TaskGroup") and node.state == "FAILED"]
        pods, rest = ([node for node in nodes if node.message] for nodes in (self.failed_pods, others))
        return pods or ([] if self.message else rest[:1])

    def task_of(self, node: Node) -> str:
        """Return the task of a pod."""
        if node.template.endswith(DRIVER):
            return node.task.removesuffix(DRIVER)
        return self.by_id[node.within].task if node.within in self.by_id else node.task

    def _items(self) -> Iterator[Mapping[str, Any]]:
        packed, nodes = self._status.get("compressedNodes"), self._status.get("nodes")
        if packed and not nodes:
            try:
                unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
                text = unpack.decompress(base64.b64decode(packed), _LARGEST)
                if unpack.unconsumed_tail:
                    raise ValueError(f"they are larger than {_LARGEST >> 20} MB")
                nodes = parsed(text)
            except (ValueError, zlib.error) as error:
                raise EngineError(
                    f"KFP keeps the nodes of this run packed, and they cannot be read: {error}"
                ) from error
        yield from (nodes or {}).values()


def _node(item: Mapping[str, Any]) -> Node:
    artifacts = (item.get("outputs") or {}).get("artifacts") or ()
    logs = [(entry.get("s3") or {}).get("key", "") for entry in artifacts if entry.get("name") == "main-logs"]
    inputs, ended = (item.get("inputs") or {}).get("parameters") or (), item.get("finishedAt")
    return Node(
        id=str(item["id"]), display_name=str(item.get("displayName", "")), kind=str(item.get("type", "")),
        template=str(item.get("templateName", "")), state=_STATES[item["phase"]], message=str(item.get("message", "")),
        within=str(item.get("boundaryID", "")), start_time=datetime.fromisoformat(item["startedAt"]),
        end_time=datetime.fromisoformat(ended) if ended else None, log=str(next(iter(logs), "")),
        patch=next((str(entry.get("value", "")) for entry in inputs if entry.get("name") == "pod-spec-patch"), ""),
    )  # fmt: skip
