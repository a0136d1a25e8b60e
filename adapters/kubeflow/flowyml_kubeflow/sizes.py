"""Predict the size of a pipeline's Argo workflow before anything is sent.

Argo records a node for each driver, task and pod in the workflow, with its input and output texts. They are JSON in
JSON in JSON, so this module builds them as KFP and Argo do, with ids of the right length, and measures them. Sources:
KFP, ``compiler/argocompiler`` and ``v2/driver``; Argo, ``operator.go``. A test compares the sizes with those of
workflows that a real KFP 2.17.0 ran, in the configuration of 2.17 and in that of 2.16.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from flowyml_kubeflow.names import BUNDLE, is_record

__all__ = [
    "CODE_TEXT", "ERROR", "TEMPLATE", "WORKFLOW", "PodSize", "Simulation", "Size", "packed", "size_of", "text",
    "wraps_nodes",
]  # fmt: skip

Json = dict[str, Any]
Artifacts = Mapping[str, list[Json]]

WORKFLOW = 1_048_576
"""Bytes: Argo packs the nodes of a larger workflow, and ends the run if it is larger even so. Source: Argo,
``packer.DefaultMaxWorkflowSize``."""
TEMPLATE = 131_072
"""Bytes of a pod's template in ``ARGO_TEMPLATE``: Argo would put a larger one into a ConfigMap, which its role in KFP
may not create. Sources: Argo, ``workflowpod.go`` and ``common.MaxEnvVarLen``; Argo issue 14073."""
ERROR = 0.03
"""The relative error of sizes; the tests check it."""

_FOR_PARAMETERS = 15_000  # bytes: room for a parameter of 1.5 kB, of which a workflow has some ten copies

# Bytes measured in the recorded workflows.
_FIXED = 10_200  # templates that all workflows have, the metadata, and the status without its nodes
_TASK, _DAG, _LOOP = 850, 200, 2_040  # in the templates, beside names and the text of the task
_DRIVER, _DAG_DRIVER, _LAUNCHER = 2_330, 2_250, 2_180  # templates of pods, without a task's own part
# Argo packs with klauspost/compress: 64 kB for nodes that zlib packs into 66 kB at this level.
_LEVEL = 5
# A copy of Base64 in packed nodes, relative to its length: 8 copies of 108,648 bytes were 1.09 MB of 1,230,006. Argo's
# compressor stores most of it as it is.
_PACKED_CODE = 1.25
CODE_TEXT = re.compile("[A-Za-z0-9+/=]{4000,}")

# KFP's text for a task about the store of each artifact, with the store in its default installation.
_STORE = {
    "Provider": "minio",
    "Params": {
        "accessKeyKey": "accesskey", "disableSSL": "true", "endpoint": "http://seaweedfs.kubeflow:9000",
        "forcePathStyle": "true", "fromEnv": "false", "maxRetries": "5", "region": "minio",
        "secretKeyKey": "secretkey", "secretName": "mlpipeline-minio-artifact",
    },
}  # fmt: skip
_LOGS = {"executor-logs": {"artifactType": {"schemaTitle": "system.Artifact"}}}
_LAUNCHED = [
    "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)",
    "--ml_pipeline_server_address", "ml-pipeline.kubeflow.svc.cluster.local", "--ml_pipeline_server_port", "8887",
    "--mlmd_server_address", "metadata-grpc-service.kubeflow.svc.cluster.local", "--mlmd_server_port", "8080",
    "--publish_logs", "true", "--publish_logs", "true", "--",
]  # fmt: skip
_DEFAULTS = {"cached-decision": "false", "iteration-index": "-1", "kubernetes-config": "", "runtime-config": ""}
_PARENT = {"parent-dag-id": "101"}
_DRIVER_FILES, _LAUNCHER_FILES = "/tmp/outputs", "/tmp/kfp/outputs"  # noqa: S108  # in pods


@dataclass(frozen=True, order=True)
class PodSize:
    """A pod of a task, and the bytes of its template."""

    template: int
    task: str
    is_driver: bool
    values: int = 0
    """The number of other steps' values that it takes, which KFP describes in the pod."""


@dataclass(frozen=True)
class Size:
    """The content of a workflow at its end. Sizes are in bytes; ``pods`` are different ones, largest first."""

    spec: int
    nodes: int
    packed_nodes: int
    count: int
    """The number of nodes."""
    pods: tuple[PodSize, ...]
    copies: int
    """The number of nodes that hold the description of a pod."""

    @property
    def raw(self) -> int:
        return self.spec + self.nodes

    @property
    def packed(self) -> int:
        return self.spec + self.packed_nodes

    @property
    def stored(self) -> int:
        """The bytes that Argo stores: packed, if that makes them fewer."""
        return min(self.raw, self.packed)

    @property
    def is_stored(self) -> bool:
        """True if Argo can store the workflow."""
        return self.stored * (1 + ERROR) <= WORKFLOW

    @property
    def has_room(self) -> bool:
        """True if it fits with some kilobytes for the parameters of a run, of which each pod's nodes have copies."""
        return self.fits and self.stored * (1 + ERROR) + _FOR_PARAMETERS <= WORKFLOW

    @property
    def can_start(self) -> bool:
        """True if Argo can start all of its pods."""
        return self.pods[0].template * (1 + ERROR) < TEMPLATE

    @property
    def fits(self) -> bool:
        return self.is_stored and self.can_start

    @property
    def room_for_facts(self) -> float:
        """The bytes for the metadata of a step's output, where others take it: in each of their pods, and in the nodes.

        It is not known before the run, so no size includes it.
        """
        taking = [pod for pod in self.pods if pod.values]
        rooms = [(TEMPLATE / (1 + ERROR) - pod.template) / pod.values for pod in taking]
        copies = self.copies * sum(pod.values for pod in taking)
        return min(*rooms, (WORKFLOW / (1 + ERROR) - self.stored) / copies) if taking else math.inf


def wraps_nodes(release: tuple[int, ...]) -> bool:
    """Return whether Argo creates two nodes for each: with the ``workflowDefaults`` of KFP 2.17, each is an attempt.

    True if the release is unknown (empty): that is the worst case.
    """
    return not release or release >= (2, 17)


def size_of(
    spec: Json,
    platform: Json,
    *,
    wraps: bool,
    iterations: Mapping[str, int],
    parameters: Mapping[str, Any] | None = None,
) -> Size:
    """Return the size of a pipeline's workflow.

    ``iterations`` is the largest number of iterations of a loop, by its task; ``parameters`` are those of the run, by
    their ports, else their defaults.
    """
    simulation = Simulation(spec, platform, wraps, iterations)
    simulation.run(parameters or {})
    return simulation.size()


@dataclass
class _Scope:
    """A running DAG: its path among the nodes, and its inputs."""

    path: str
    component: Json
    parameters: Json
    artifacts: Artifacts
    outputs: dict[str, Artifacts] = field(default_factory=dict)
    """The artifacts of its tasks."""
    followers: Counter[str] = field(default_factory=Counter)
    """The number of tasks that wait for each task."""

    def value(self, source: Json) -> Any:
        constant = source.get("runtimeValue", {}).get("constant")
        if isinstance(constant, str) and constant.startswith("{{$."):
            return "2026-12-01T03:32:20Z"
        return self.parameters.get(source.get("componentInputParameter", ""), "") if constant is None else constant

    def artifact(self, source: Json) -> list[Json]:
        if origin := source.get("taskOutputArtifact"):
            return self.outputs.get(origin["producerTask"], {}).get(origin["outputArtifactKey"], [])
        passed_on = self.artifacts.get(source["componentInputArtifact"], [])
        return [{key: value for key, value in artifact.items() if key != "type"} for artifact in passed_on]


class Simulation:
    """A workflow from its start to its end, with each step run once."""

    def __init__(self, spec: Json, platform: Json, wraps: bool, iterations: Mapping[str, int]) -> None:
        config = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        self.spec = spec
        self.executors: Json = spec["deploymentSpec"]["executors"]
        self.kubernetes: Json = config.get("executors", {})
        self.wraps = wraps
        self.iterations = iterations
        self.pipeline = spec["pipelineInfo"]["name"]
        self.name = f"{self.pipeline}-abcde"
        self.run_id = _uuid(self.pipeline)
        self.parameters: Json = {}
        self.nodes: dict[str, Json] = {}
        self.pods: set[PodSize] = set()

    def size(self) -> Size:
        written = text({node["id"]: node for node in sorted(self.nodes.values(), key=lambda node: str(node["id"]))})
        packed_nodes = packed(written, set(CODE_TEXT.findall(text([self.executors, self.parameters]))))
        nodes, pods = len(written.encode("utf-8", "replace")), tuple(sorted(self.pods, reverse=True))
        return Size(self._spec_size(), nodes, packed_nodes, len(self.nodes), pods, 6 if self.wraps else 3)

    def _spec_size(self) -> int:
        """Return the size at the start: each component and container as an argument, each DAG as a template.

        A template repeats the tasks of its DAG.
        """
        dags = [item for item in [("root", self.spec["root"]), *self.spec["components"].items()] if "dag" in item[1]]
        containers = [executor["container"] for executor in self.executors.values()]
        arguments = [self.spec["root"], *self.spec["components"].values(), *containers, *self.kubernetes.values()]
        size = _FIXED + sum(_size(text(argument)) + 110 for argument in arguments)
        for name, dag in dags:
            size += _DAG + len(name)
            for task_name, task in dag["dag"]["tasks"].items():
                is_loop = "parameterIterator" in task
                size += (2 if is_loop else 1) * _size(text(task)) + sum(14 + len(before) for before in _before(task))
                size += _LOOP + 11 * len(task_name) if is_loop else _TASK + 6 * len(task_name)
        return size

    # Tasks.

    def run(self, parameters: Mapping[str, Any]) -> None:
        root = self.spec["root"]
        ports = root.get("inputDefinitions", {}).get("parameters", {})
        self.parameters = {port: parameters.get(port, about.get("defaultValue", "")) for port, about in ports.items()}
        entry = self._node(self.name, "DAG", "entrypoint", "", {})
        driven = {
            "component": text(root), "runtime-config": text({"parameterValues": self.parameters}), "task": "",
            "task-name": "", "parent-dag-id": "0", "iteration-index": "-1", "driver-type": "ROOT_DAG",
        }  # fmt: skip
        self._dag_driver("root", f"{entry}.root-driver", entry, driven)
        self._dag(_Scope(self._node(f"{entry}.root", "DAG", "root", entry, _PARENT), root, self.parameters, {}))

    def _dag(self, scope: _Scope) -> dict[str, list[Json]]:
        """Return the output artifacts of a DAG, after its tasks have run."""
        dag = scope.component["dag"]
        scope.followers.update(name for task in dag["tasks"].values() for name in _before(task))
        for name in _in_order(dag["tasks"]):
            scope.outputs[name] = self._task(name, dag["tasks"][name], scope)
        selectors = {
            port: output["artifactSelectors"][0] for port, output in dag.get("outputs", {}).get("artifacts", {}).items()
        }
        return {
            port: scope.outputs[selector["producerSubtask"]].get(selector["outputArtifactKey"], [])
            for port, selector in selectors.items()
        }

    def _task(self, name: str, task: Json, scope: _Scope) -> Artifacts:
        ref, inputs = task["componentRef"]["name"], task.get("inputs", {})
        component = self.spec["components"][ref]
        parameters = {port: scope.value(source) for port, source in inputs.get("parameters", {}).items()}
        artifacts = {port: scope.artifact(source) for port, source in inputs.get("artifacts", {}).items()}
        if "dag" not in component:
            own = _Scope(scope.path, component, parameters, artifacts)
            return self._container(name, task, own, scope.followers[name])
        if "parameterIterator" in task:
            return self._loop(name, task, _Scope(scope.path, component, parameters, artifacts))
        self._dag_driver(name, f"{scope.path}.{name}-driver", scope.path, _driven(name, task, component))
        path = self._node(f"{scope.path}.{name}", "DAG", ref, scope.path, _PARENT)
        return self._dag(_Scope(path, component, parameters, artifacts))

    def _loop(self, name: str, task: Json, scope: _Scope) -> Artifacts:
        ref, iterator = task["componentRef"]["name"], task["parameterIterator"]
        chunks = [f"{number}:{number + 1}" for number in range(self.iterations.get(name, 1))]
        raw = iterator["items"].get("raw")
        items = json.loads(raw)[: len(chunks)] if raw else chunks
        path = self._node(f"{scope.path}.{name}", "DAG", f"{ref}-{name}-iterator", scope.path, _PARENT)
        driven = _driven(name, task, scope.component)
        self._dag_driver(name, f"{path}.iteration-driver", path, driven)
        group = f"{path}.iteration-iterations"
        self._add(group, "TaskGroup", f"{ref}-iteration", path, {"children": self._ids(group, len(items))})
        outputs: dict[str, list[Json]] = {}
        for number, item in enumerate(items):
            inputs = {**_PARENT, "iteration-index": str(number)}
            around = self._node(f"{group}({number}:{number})", "DAG", f"{ref}-iteration", path, inputs)
            self._dag_driver(
                name, f"{around}.iteration-item-driver", around, {**driven, "iteration-index": str(number)}
            )
            inner = self._node(f"{around}.iteration-item", "DAG", ref, around, _PARENT)
            parameters = {**scope.parameters, iterator["itemInput"]: item}
            for port, artifacts in self._dag(_Scope(inner, scope.component, parameters, scope.artifacts)).items():
                outputs.setdefault(port, []).extend(artifacts)
        return outputs

    def _container(self, name: str, task: Json, scope: _Scope, followers: int) -> Artifacts:
        """Return a container: the pod of its driver, a DAG with only its own pod, and that pod."""
        component = scope.component
        label = component["executorLabel"]
        container, config = self.executors[label]["container"], self.kubernetes.get(label)
        folder = f"mlpipeline/v2/artifacts/{self.pipeline}/{self.run_id}/{name}/{_uuid(f'{scope.path}.{name}')}"
        patch = text(self._pod_patch(scope, container, config or {}, folder))
        driven = {
            "component": text(component), "task": text(task), "container": text(container), "task-name": name,
            **_PARENT, "iteration-index": "-1", "kubernetes-config": text(config) if config else "",
        }  # fmt: skip
        decided = {"pod-spec-patch": patch, "cached-decision": "false"}
        outputs = {**decided, "condition": "nil"}
        self._pod(name, f"{scope.path}.{name}-driver", "system-container-driver", scope.path, driven, outputs, 1)
        self.pods.add(PodSize(_DRIVER + sum(_size(value) for value in driven.values()), name, is_driver=True))
        path = self._node(f"{scope.path}.{name}", "DAG", "system-container-executor", scope.path, decided, followers)
        own, after = {"pod-spec-patch": patch}, 0 if self.wraps else followers
        self._pod(name, f"{path}.executor", "system-container-impl", path, own, {}, after)
        values = sum(port != BUNDLE and not is_record(port) for port in scope.artifacts)
        self.pods.add(PodSize(_LAUNCHER + _size(patch), name, is_driver=False, values=values))
        ports = component.get("outputDefinitions", {}).get("artifacts", {})
        return {port: [_given_artifact(port, f"minio://{folder}/{port}")] for port in ports}

    def _pod_patch(self, scope: _Scope, container: Json, config: Json, folder: str) -> Json:
        """Return the changes that a driver makes to the pod of its task."""
        outputs = scope.component.get("outputDefinitions", {})
        outputs = {**outputs, "artifacts": {**outputs.get("artifacts", {}), **_LOGS}}
        inputs = {
            "artifacts": {port: {"artifacts": artifacts} for port, artifacts in scope.artifacts.items()},
            "parameterValues": scope.parameters,
        }
        places = {
            "parameters": {port: {"outputFile": f"{_LAUNCHER_FILES}/{port}"} for port in outputs.get("parameters", {})},
            "artifacts": {
                port: {"artifacts": [{"name": port, "type": of["artifactType"], "uri": f"minio://{folder}/{port}"}]}
                for port, of in outputs["artifacts"].items()
            },
            "outputFile": f"/minio/{folder}/output_metadata.json",
        }
        executor_input = {
            "inputs": {name: value for name, value in inputs.items() if value},
            "outputs": {name: value for name, value in places.items() if value},
        }
        command = [
            "/kfp-launcher/launch", "--pipeline_name", self.pipeline, "--run_id", self.run_id, "--execution_id", "113",
            "--executor_input", text(executor_input),
            "--component_spec", text({**scope.component, "outputDefinitions": outputs}), *_LAUNCHED,
        ]  # fmt: skip
        main = {
            "name": "main", "image": container["image"], "command": command,
            "args": [*container["command"], *container.get("args", ())],
            **({"env": container["env"]} if "env" in container else {}), "resources": container.get("resources", {}),
        }  # fmt: skip
        return {"containers": [main], **config}

    # Nodes.

    def _dag_driver(self, name: str, path: str, around: str, inputs: Json) -> None:
        outputs = {"execution-id": "101", "iteration-count": "0", "condition": "nil"}
        self._pod(name, path, "system-dag-driver", around, inputs, outputs, 1)
        self.pods.add(PodSize(_DAG_DRIVER + sum(_size(value) for value in inputs.values()), name, is_driver=True))

    def _pod(
        self, name: str, path: str, template: str, around: str, inputs: Json, outputs: Json, followers: int
    ) -> None:
        log = f"private-artifacts/kubeflow/{self.name}/2026/12/01/{self.name}-{template}-{_number(path)}/main.log"
        results: Json = {"artifacts": [{"name": "main-logs", "s3": {"key": log}}], "exitCode": "0"}
        if outputs:
            results["parameters"] = [
                {"name": port, "value": value, "valueFrom": {"path": f"{_DRIVER_FILES}/{port}", "default": "false"}}
                for port, value in outputs.items()
            ]
        self._node(path, "Pod", template, around, inputs, followers, results)

    def _node(
        self, path: str, kind: str, template: str, around: str, inputs: Json, followers: int = 0,
        outputs: Json | None = None,
    ) -> str:  # fmt: skip
        """Add a node and return its path: that of its first attempt if nodes are wrapped."""
        holds: Json = {"inputs": {"parameters": [_argument(*item) for item in inputs.items()]}} if inputs else {}
        holds |= {"outputs": outputs} if outputs else {}
        own = path
        if self.wraps:
            own = f"{path}(0)"
            self._add(path, "Retry", template, around, {**holds, "children": [self._id(own)]})
            holds["nodeFlag"] = {"retried": True}
        if kind == "Pod":
            holds |= {"hostNodeName": "node", "taskResultSynced": True}
        else:
            holds["outboundNodes"] = self._ids(f"{own}.", 1)
            followers = max(followers, 1)
        self._add(own, kind, template, around, {**holds, "children": self._ids(own, followers)})
        return own

    def _add(self, path: str, kind: str, template: str, around: str, more: Json) -> None:
        number = _number(path)
        seconds = 10 + number // 50 % 50
        self.nodes[path] = {
            "id": self._id(path), "name": path, "displayName": path.rpartition(".")[2], "type": kind,
            "templateName": template, "templateScope": f"local/{self.name}", "phase": "Succeeded",
            **({"boundaryID": self._id(around)} if around else {}),
            "startedAt": f"2026-12-01T03:{10 + number % 50}:{seconds}Z",
            "finishedAt": f"2026-12-01T03:{10 + number % 49}:{seconds}Z",
            "progress": f"{number % 9}/{number % 9}",
            "resourcesDuration": {"cpu": 0, "memory": 10 + number % 90}, **more,
        }  # fmt: skip

    def _id(self, path: str) -> str:
        return self.name if path == self.name else f"{self.name}-{_number(path)}"

    def _ids(self, path: str, count: int) -> list[str]:
        return [self._id(f"{path}>{number}") for number in range(count)]


def _driven(name: str, task: Json, component: Json) -> Json:
    return {
        "component": text(component), "runtime-config": "", "task": text(task), "task-name": name,
        **_PARENT, "iteration-index": "-1", "driver-type": "DAG",
    }  # fmt: skip


def _given_artifact(port: str, uri: str) -> Json:
    """Return KFP's description of an artifact for the tasks that take it."""
    about = {"sha256": "0" * 64} if port in ("code__", BUNDLE) else {"format": "flowyml-record"}
    metadata = {"display_name": port, **about, "store_session_info": text(_STORE)}
    return {"name": "133", "type": {"instanceSchema": ""}, "uri": uri, "metadata": metadata}


def _argument(name: str, value: str) -> Json:
    return {"name": name, **({"default": _DEFAULTS[name]} if name in _DEFAULTS else {}), "value": value}


def _before(task: Json) -> Iterable[str]:
    before: Iterable[str] = task.get("dependentTasks", ())
    return before


def _in_order(tasks: Json) -> Iterator[str]:
    """Yield tasks in topological order."""
    waiting = dict(tasks)
    while waiting:
        ready = [name for name, task in waiting.items() if waiting.keys().isdisjoint(_before(task))]
        for name in ready or [*waiting]:
            del waiting[name]
            yield name


def text(value: Any) -> str:
    """Return Go's JSON."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(nodes: str, codes: Iterable[str]) -> int:
    """Return the bytes of nodes packed by Argo, with gzip and Base64.

    ``codes`` are texts in them that do not shrink.
    """
    rest, size = nodes, 0.0
    for code in codes:
        without = rest.replace(code, "")
        size += _PACKED_CODE * (len(rest) - len(without))
        rest = without
    compressed = zlib.compress(rest.encode("utf-8", "replace"), _LEVEL)
    return len(compressed) * 4 // 3 + int(size)


def _size(written: str) -> int:
    """Return the bytes of a text in JSON."""
    return len(text(written).encode("utf-8", "replace"))


def _number(path: str) -> int:
    """Return ten digits, as in the id of a node, in which they are a hash of its name."""
    return 1_000_000_000 + zlib.crc32(path.encode()) % 3_000_000_000


def _uuid(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, name))
