"""KFP's drivers, and the store of metadata that they and the launcher write to.

A driver resolves the inputs of a task: a value comes from where its spec says, or the driver fails. What a loop
collects is what each iteration left, and a loop without iterations has nothing that could be collected. Sources, in
KFP's ``backend/src/v2``: ``driver/resolve.go`` (``resolveInputs``, ``CollectInputs``), ``driver/dag.go``
(``iterationItems``), ``driver/container.go``, ``driver/util.go`` (``getItems``); ``metadata/client.go``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.engines.kubeflow_argocompiler import go_json
from tests.engines.kubeflow_releases import Release

__all__ = ["Drivers", "Execution", "Lost", "Made", "Metadata"]

Json = dict[str, Any]

ITEMS = 64 * 1024  # characters of a parameter
# As a real server recorded them. The adapter's model of sizes has its own: a stand-in that imported it would agree with
# its mistakes.
_STORE = {
    "Provider": "minio",
    "Params": {
        "accessKeyKey": "accesskey", "disableSSL": "true", "endpoint": "http://seaweedfs.kubeflow:9000",
        "forcePathStyle": "true", "fromEnv": "false", "maxRetries": "5", "region": "minio",
        "secretKeyKey": "secretkey", "secretName": "mlpipeline-minio-artifact",
    },
}  # fmt: skip
_LOGS = {"executor-logs": {"artifactType": {"schemaTitle": "system.Artifact"}}}
_SERVERS = [
    "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)",
    "--ml_pipeline_server_address", "ml-pipeline.kubeflow.svc.cluster.local", "--ml_pipeline_server_port", "8887",
    "--mlmd_server_address", "metadata-grpc-service.kubeflow.svc.cluster.local", "--mlmd_server_port", "8080",
    "--publish_logs", "true", "--publish_logs", "true", "--",
]  # fmt: skip


class NotResolved(Exception):
    """What a driver fails with."""


class Lost(Exception):
    """A driver's pod that is gone, after it has written to the store."""


@dataclass
class Made:
    """The outputs of a task."""

    parameters: Json = field(default_factory=dict)
    artifacts: dict[str, list[Json]] = field(default_factory=dict)


@dataclass
class Execution:
    """What the store has of a task that began: in a DAG, or as the iteration of a loop, which is one too."""

    number: int
    task: str
    within: int
    index: int
    component: Json
    values: Json
    files: dict[str, list[Json]]
    items: list[str] | None = None
    """Those of a loop."""
    made: Made | None = None
    """The outputs of a container that has succeeded."""
    fingerprint: str = ""
    """By which the cache finds these outputs; empty where the task is not cached."""


@dataclass
class Metadata:
    """What the runs of a server share: the ids in its store, and the outputs of tasks by their fingerprints."""

    ids: Iterator[int] = field(default_factory=lambda: itertools.count(101))
    cache: dict[str, Made] = field(default_factory=dict)


class Drivers:
    """The drivers of one run. ``root`` is the URL below which it keeps artifacts."""

    def __init__(
        self, pipeline: Json, root: str, constants: Mapping[str, str], cached: Collection[str], release: Release,
        metadata: Metadata,
    ) -> None:  # fmt: skip
        """``constants`` are those that the file names, such as ``pipeline_job_name``; ``cached`` are the tasks that KFP
        takes from its cache as if they had run before."""
        self.pipeline, self.root, self.release = pipeline, root, release
        self.cached = cached
        self._metadata = metadata
        self._hits: set[str] = set()
        self.executions: dict[int, Execution] = {}
        self._constants = {f"{{{{$.{name}}}}}": value for name, value in constants.items()}
        self._lock = threading.Lock()

    def dag(self, given: Mapping[str, str]) -> dict[str, str]:
        """The driver of a DAG, of a loop, or of one of its iterations."""
        component, index = json.loads(given["component"]), int(given["iteration-index"])
        if given["driver-type"] == "ROOT_DAG":
            ports = component.get("inputDefinitions", {}).get("parameters", {})
            defaults = {port: item["defaultValue"] for port, item in ports.items() if "defaultValue" in item}
            values = {**defaults, **json.loads(given["runtime-config"])["parameterValues"]}
            values = {port: _as_go(value) for port, value in values.items() if value is not None}
            made = self._execution("", 0, -1, component, values, {})
            return {"execution-id": str(made.number), "iteration-count": "0", "condition": "nil"}
        task, within = json.loads(given["task"]), self.executions[int(given["parent-dag-id"])]
        iterator = task.get("parameterIterator")
        if index >= 0:
            assert within.items is not None
            values, files = {**within.values, iterator["itemInput"]: within.items[index]}, within.files
            made = self._execution(given["task-name"], within.number, index, component, values, files)
            return {"execution-id": str(made.number), "iteration-count": "0", "condition": "nil"}
        values, files = self._inputs(task, component, within, {})
        made = self._execution(given["task-name"], within.number, -1, component, values, files)
        if iterator:
            made.items = _items(given["task-name"], iterator["items"], values)
        count = len(made.items or ())
        return {"execution-id": str(made.number), "iteration-count": str(count), "condition": "nil"}

    def container(self, given: Mapping[str, str], phases: Mapping[str, str], take: Callable[[str], None]) -> Json:
        """The driver of a container. ``phases`` are those of the tasks beside it, ``take`` gives the store what a pod
        would have made that the cache spares."""
        name, component, task = given["task-name"], json.loads(given["component"]), json.loads(given["task"])
        within = self.executions[int(given["parent-dag-id"])]
        values, files = self._inputs(task, component, within, phases)
        _check_types(name, component, values, files)
        made = self._execution(name, within.number, -1, component, values, files)
        container, config = json.loads(given["container"]), json.loads(given["kubernetes-config"] or "{}")
        pod = self._pod_patch(made, container, config)
        patch = go_json(pod)
        if task.get("cachingOptions", {}).get("enableCache"):
            made.fingerprint = self._fingerprint(component, container, pod)
            made.made = self._metadata.cache.get(made.fingerprint)
        if name in self.cached:
            take(patch)
        if name in self.cached or made.made:
            self._hits.add(name)
            return {"pod-spec-patch": "", "cached-decision": "true", "condition": "nil"}
        return {"pod-spec-patch": patch, "cached-decision": "false", "condition": "nil"}

    def _fingerprint(self, component: Json, container: Json, pod: Json) -> str:
        """The inputs by the ids of their artifacts, the outputs without their URLs, and the container; volumes aside.
        Sources: ``driver/cache.go``, ``getFingerPrint``; ``cacheutils/cache.go``, ``GenerateCacheKey``."""
        command = pod["containers"][0]["command"]
        given = json.loads(command[command.index("--executor_input") + 1])
        inputs, outputs = (
            {port: listed["artifacts"] for port, listed in given.get(side, {}).get("artifacts", {}).items()}
            for side in ("inputs", "outputs")
        )
        key = [
            self.pipeline["pipelineInfo"]["name"],
            {port: [artifact["name"] for artifact in artifacts] for port, artifacts in inputs.items()},
            given.get("inputs", {}).get("parameterValues", {}),
            {port: [artifact["name"], artifact["type"]] for port, (artifact,) in outputs.items()},
            component.get("outputDefinitions", {}).get("parameters", {}),
            container["image"], container["command"], container.get("args", []),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def publish(self, number: int, made: Made) -> None:
        """What a launcher hands in."""
        for port, artifacts in made.artifacts.items():
            for artifact in artifacts:
                artifact["metadata"] = {
                    "display_name": port, **artifact.get("metadata", {}), "store_session_info": go_json(_STORE),
                }  # fmt: skip
                artifact |= {"name": str(next(self._metadata.ids)), "type": {"instanceSchema": ""}}
        execution = self.executions[number]
        execution.made = made
        if execution.fingerprint:
            self._metadata.cache[execution.fingerprint] = made

    def _execution(
        self, task: str, within: int, index: int, component: Json, values: Json, files: dict[str, list[Json]]
    ) -> Execution:
        with self._lock:
            number = next(self._metadata.ids)
            self.executions[number] = Execution(number, task, within, index, component, values, files)
            return self.executions[number]

    def _in(self, number: int) -> dict[tuple[str, int], Execution]:
        """The tasks of a DAG. Source: ``GetExecutionsInDAG``, which fails for two of one name."""
        found: dict[tuple[str, int], Execution] = {}
        with self._lock:
            inner = [each for each in self.executions.values() if each.within == number]
        for each in inner:
            if (each.task, each.index) in found:
                index = f"_idx_{each.index}" if each.index >= 0 else ""
                raise NotResolved(f"two tasks have the same task name {each.task}_{number}{index}")
            found[each.task, each.index] = each
        return found

    def _inputs(
        self, task: Json, component: Json, within: Execution, phases: Mapping[str, str]
    ) -> tuple[Json, dict[str, list[Json]]]:
        if task.get("triggerPolicy", {}).get("condition"):
            raise NotResolved("this fake of KFP computes no conditions")
        tasks, inputs, values = self._in(within.number), task.get("inputs", {}), dict[str, Any]()
        for port, source in inputs.get("parameters", {}).items():
            if producer := source.get("taskFinalStatus", {}).get("producerTask"):
                values[port] = {"state": self._final_status(producer, phases[producer])}
            elif "runtimeValue" in source:
                constant = _as_go(source["runtimeValue"]["constant"])
                values[port] = self._constants.get(constant, constant) if isinstance(constant, str) else constant
            elif within_port := source.get("componentInputParameter"):
                if within_port in within.values:
                    values[port] = within.values[within_port]
            else:
                origin = source["taskOutputParameter"]
                made = self._outputs(tasks, origin["producerTask"])
                values[port] = made.parameters[origin["outputParameterKey"]]
        files = {port: self._artifacts(source, within, tasks) for port, source in inputs.get("artifacts", {}).items()}
        return values, files

    def _artifacts(self, source: Json, within: Execution, tasks: Mapping[tuple[str, int], Execution]) -> list[Json]:
        if port := source.get("componentInputArtifact"):
            return within.files[port]
        origin = source["taskOutputArtifact"]
        return self._outputs(tasks, origin["producerTask"]).artifacts[origin["outputArtifactKey"]]

    def _outputs(self, tasks: Mapping[tuple[str, int], Execution], name: str) -> Made:
        """Of a task of a DAG: of a loop, what all of its iterations left, in order."""
        if (name, -1) not in tasks:
            raise NotResolved(f"failed to find producer task {name!r}")
        execution = tasks[name, -1]
        if execution.items is None:
            return self._outputs_of(execution)
        iterations = self._in(execution.number)
        if not iterations:
            raise NotResolved(f"{name!r} has no iterations: there is nothing to collect")
        each = [self._outputs_of(iterations[key]) for key in sorted(iterations, key=lambda key: key[1])]
        ports = execution.component["dag"].get("outputs", {}).get("artifacts", {})
        return Made({}, {port: [one for made in each for one in made.artifacts[port]] for port in ports})

    def _outputs_of(self, execution: Execution) -> Made:
        if "dag" not in execution.component:
            if execution.made is None:
                raise NotResolved(f"task {execution.task!r} has no outputs")
            return execution.made
        tasks, found, given = self._in(execution.number), Made(), execution.component["dag"].get("outputs", {})
        for port, source in given.get("parameters", {}).items():
            one = source["valueFromParameter"]
            found.parameters[port] = self._outputs(tasks, one["producerSubtask"]).parameters[one["outputParameterKey"]]
        for port, source in given.get("artifacts", {}).items():
            (one,) = source["artifactSelectors"]  # of several, KFP before 2.17 takes the last, whether it ran or not
            found.artifacts[port] = self._outputs(tasks, one["producerSubtask"]).artifacts[one["outputArtifactKey"]]
        return found

    def _final_status(self, task: str, phase: str) -> str:
        """Of a DAG, in the words of KFP's store of metadata: only a launcher has the tasks of its DAG counted, so that
        one whose last tasks come from the cache stays RUNNING. Source: KFP, v2/component/launcher_v2.go."""
        if phase != "Succeeded":
            return "FAILED"
        components = self.pipeline["components"]
        dags = [each["dag"] for each in (self.pipeline["root"], *components.values()) if "dag" in each]
        (ref,) = {dag["tasks"][task]["componentRef"]["name"] for dag in dags if task in dag["tasks"]}
        inner = components[ref].get("dag", {}).get("tasks", {})
        has_dag = any("dag" in components[each["componentRef"]["name"]] for each in inner.values())
        ends = inner.keys() - {one for each in inner.values() for one in each.get("dependentTasks", ())}
        is_open = has_dag and not self.release.reports_states_of_inner_dags
        return "RUNNING" if is_open or (ends and ends <= self._hits) else "COMPLETE"

    def _pod_patch(self, made: Execution, container: Json, config: Json) -> Json:
        """What the pod of a task is changed to."""
        outputs = made.component.get("outputDefinitions", {})
        outputs = {**outputs, "artifacts": {**outputs.get("artifacts", {}), **_LOGS}}
        folder = f"{self.root}/{made.task}/{uuid.uuid4()}"
        inputs = {
            "artifacts": {port: {"artifacts": files} for port, files in made.files.items()},
            "parameterValues": made.values,
        }
        asked = {
            "parameters": {port: {"outputFile": f"/tmp/kfp/outputs/{port}"} for port in outputs.get("parameters", {})},
            "artifacts": {
                port: {"artifacts": [{"name": port, "type": of["artifactType"], "uri": f"{folder}/{port}"}]}
                for port, of in outputs["artifacts"].items()
            },
            "outputFile": f"/{folder.replace('://', '/')}/output_metadata.json",
        }
        executor_input = {
            "inputs": {name: value for name, value in inputs.items() if value},
            "outputs": {name: value for name, value in asked.items() if value},
        }
        run_id, name = self.root.split("/")[-1], self.pipeline["pipelineInfo"]["name"]
        component = {"inputDefinitions": made.component.get("inputDefinitions"), "outputDefinitions": outputs,
                     "executorLabel": made.component["executorLabel"]}  # fmt: skip
        command = [
            "/kfp-launcher/launch", "--pipeline_name", name, "--run_id", run_id, "--execution_id", str(made.number),
            "--executor_input", go_json(executor_input),
            "--component_spec", go_json({key: value for key, value in component.items() if value}), *_SERVERS,
        ]  # fmt: skip
        main = {
            "name": "main", "image": container["image"], "command": command,
            "args": [*container["command"], *container.get("args", ())],
            **({"env": container["env"]} if "env" in container else {}), "resources": container.get("resources", {}),
        }  # fmt: skip
        return {"containers": [main], **config}


def _items(task: str, items: Json, values: Mapping[str, Any]) -> list[str]:
    """Of a list of texts, as JSON, in the file or in a parameter."""
    text = items["raw"] if "raw" in items else values[items["inputParameter"]]
    if len(text) > ITEMS:
        raise NotResolved(f"the items of {task} are longer than what a parameter carries")
    found: list[str] = json.loads(text)
    return found


def _check_types(name: str, component: Json, values: Json, files: Mapping[str, list[Json]]) -> None:
    definitions = component.get("inputDefinitions", {})
    for port, value in values.items():
        if definitions["parameters"][port]["parameterType"] == "STRING" and not isinstance(value, str):
            raise NotResolved(f"input parameter {port!r} of {name!r} is no text")
    for port, found in files.items():
        if len(found) > 1 and not definitions["artifacts"][port].get("isArtifactList"):
            raise NotResolved(f"{port!r} of {name!r} gets a list")


def _as_go(value: Any) -> Any:
    """A value after it was one of protobuf's, whose numbers are doubles."""
    if isinstance(value, dict):
        return {name: _as_go(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_go(each) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < 1e21 else number
    return value
