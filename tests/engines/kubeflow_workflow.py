"""Runs a compiled pipeline as KFP and Argo do: drivers that resolve the inputs of tasks, nodes, pods, iterations.

Strict where they are: a task starts when all that it waits for succeeded; a value comes from where its spec says, or
the task fails; what a loop collects is what each iteration left, and a loop without iterations has nothing that could
be collected. Sources, in KFP's ``backend/src/v2``: ``driver/resolve.go`` (``resolveInputs``, ``CollectInputs``),
``driver/dag.go`` (``iterationItems``), ``driver/util.go`` (``getItems``), ``compiler/argocompiler/dag.go``
(``depends``, ``iteratorTask``), ``container.go``; in Argo's ``workflow/controller``: ``dag.go``, ``operator.go``.

KFP's retries happen, as on KFP up to 2.16; stock KFP 2.17 retries no code that fails.
"""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kfp_server_api

from tests.engines.kubeflow_pods import Pod, Pods
from tests.engines.kubeflow_state import Json

__all__ = ["Node", "Workflow"]

ARGUMENT = 131_072  # bytes of one argument; execve(2), MAX_ARG_STRLEN
ITEMS = 64 * 1024  # characters of a parameter
AT_ONCE = threading.BoundedSemaphore(16)  # pods; a cluster has more room than this machine


class NotResolved(Exception):
    """What KFP's driver fails with."""


@dataclass
class Made:
    """The outputs of a task."""

    parameters: Json = field(default_factory=dict)
    artifacts: dict[str, list[Json]] = field(default_factory=dict)


@dataclass
class Node:
    """A node of Argo's. Its name says where in the workflow it is."""

    name: str
    kind: str = "Pod"
    template: str = "system-container-driver"
    state: str = "RUNNING"
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    children: list[str] = field(default_factory=list)

    def end(self, state: str) -> None:
        self.state, self.ended = state, datetime.now(UTC)


class Workflow:
    """The run of a pipeline, which goes on in threads of its own."""

    def __init__(
        self, name: str, spec: Json, platform: Json, folder: Path, pods: Pods, cached: Collection[str]
    ) -> None:
        """``cached`` are the tasks that KFP takes from its cache."""
        self.name = name
        self.spec = spec
        self.kubernetes = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        self.folder = folder
        self.cached = cached
        self.logs: dict[str, Path] = {}
        """Those of the pods, by the names of these."""
        self.refused = ""
        """What KFP's driver had to refuse."""
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self.state = "PENDING"
        self.is_stopped = False
        self._pods = pods
        self._nodes: dict[str, Node] = {}
        self._running: dict[str, Pod] = {}
        self._kept: dict[str, Made] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()

    def start(self, parameters: Json, may_start: threading.Event) -> None:
        """Once it may."""
        self._parameters, self._go = parameters, may_start
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Kill all pods, and start no more."""
        with self._lock:
            if self.ended:
                return
            self.is_stopped = True
            self._stop.set()
            if not self.started:
                self._end("FAILED")
            pods = [*self._running.values()]
        for pod in pods:
            pod.kill()

    def retry(self) -> None:
        """Run it again without what succeeded. Failed nodes are deleted, with their pods and logs, and so are failed
        attempts of what succeeded, hooks included. Source: KFP, common/util/workflow.go, ``GenerateRetryExecution``
        (which drops only nodes called after the workflow with ``.onExit``, and the end hook's is not); ``RetryRun``."""
        with self._lock:
            self.state, self.started, self.ended, self.is_stopped, self.refused = "RUNNING", None, None, False, ""
            self._stop.clear()
            for name, node in [*self._nodes.items()]:
                task = name.partition(".executor")[0].removesuffix("-driver")
                if node.state not in ("SUCCEEDED", "SKIPPED") or task not in self._kept:
                    del self._nodes[name]
                    self.logs = {
                        pod: log for pod, log in self.logs.items() if pod.rpartition("-")[2] != str(_fnv(name))
                    }
        self.start(self._parameters, self._go)

    def details(self, run_id: str) -> list[Any]:
        """The nodes as KFP's API gives them, in any order. Sources: KFP, ``Workflow.NodeStatuses``, ``toModelTasks``,
        ``toApiPipelineTaskDetail``."""
        with self._lock:
            made = [
                kfp_server_api.V2beta1PipelineTaskDetail(
                    run_id=run_id, task_id=str(uuid.uuid4()), display_name=node.name.rpartition(".")[2],
                    state=node.state, start_time=node.started, create_time=node.started,
                    end_time=node.ended or datetime.fromtimestamp(0, UTC),
                    child_tasks=[
                        kfp_server_api.PipelineTaskDetailChildTask(pod_name=f"{self.name}-{_fnv(child)}")
                        for child in node.children if child in self._nodes
                    ],
                ) for node in self._nodes.values()
            ]  # fmt: skip
        return sorted(made, key=lambda detail: str(detail.task_id))

    def manifest(self) -> Json:
        """The workflow as Argo has it, without what the adapter does not read. Sources: a real server's answers."""
        with self._lock:
            nodes = {
                f"{self.name}-{_fnv(node.name)}": {
                    "id": f"{self.name}-{_fnv(node.name)}", "name": node.name,
                    "displayName": node.name.rpartition(".")[2], "type": node.kind, "templateName": node.template,
                    "boundaryID": f"{self.name}-{_fnv(node.name.rpartition('.')[0])}",
                    "phase": node.state.capitalize(), "startedAt": _go_time(node.started),
                    **({"finishedAt": _go_time(node.ended)} if node.ended else {}),
                    **({"message": "main: Error (exit code 1)"} if node.state == "FAILED" else {}),
                    "children": [f"{self.name}-{_fnv(child)}" for child in node.children if child in self._nodes],
                } for node in self._nodes.values()
            }  # fmt: skip
            return {"metadata": {"name": self.name}, "status": {"phase": self.state.capitalize(), "nodes": nodes}}

    def _run(self) -> None:
        self._go.wait()
        with self._lock:
            if self.ended:
                return
            self.state, self.started = "RUNNING", datetime.now(UTC)
        root = self.spec["root"]
        ports = root.get("inputDefinitions", {}).get("parameters", {})
        defaults = {port: item["defaultValue"] for port, item in ports.items() if "defaultValue" in item}
        given = {port: _as_go(value) for port, value in {**defaults, **self._parameters}.items() if value is not None}
        state = self._attempted(lambda: self._dag(root, given, {}, f"{self.name}.root"))[0]
        self._end("FAILED" if self.is_stopped else state)

    def _end(self, state: str) -> None:
        with self._lock:
            # Argo has no word for a workflow that was terminated but Failed, and so has KFP.
            self.state, self.ended = state, datetime.now(UTC)

    def _attempted(self, run: Callable[[], tuple[str, Made]]) -> tuple[str, Made]:
        """The outcome, which is a failure where a driver cannot resolve something."""
        try:
            return run()
        except Exception as error:
            self.refused = f"{type(error).__name__}: {error}"
            return "FAILED", Made()

    def _dag(self, component: Json, parameters: Json, artifacts: dict[str, list[Json]], path: str) -> tuple[str, Made]:
        """Each task once all that it waits for has succeeded, whatever else failed. Source: Argo, ``executeDAG``, which
        starts what can start before it looks whether the DAG has failed."""
        tasks, states, made = component["dag"]["tasks"], dict[str, str](), dict[str, Made]()
        waiting, running = dict(tasks), 0
        done: queue.SimpleQueue[tuple[str, tuple[str, Made]]] = queue.SimpleQueue()

        def run(name: str, task: Json) -> None:
            done.put((name, self._attempted(lambda: self._task(name, task, parameters, artifacts, made, states, path))))

        while waiting or running:
            ready = [name for name, task in waiting.items() if all(one in states for one in _before(task))]
            for name in ready:
                task = waiting.pop(name)
                if not self._may_start(task, states):
                    states[name] = "OMITTED"
                    continue
                running += 1
                threading.Thread(target=run, args=(name, task), daemon=True).start()
            if running:
                name, (states[name], made[name]) = done.get()
                running -= 1
            elif not ready:
                raise NotResolved(f"tasks wait for one another: {[*waiting]}")
        if "FAILED" in states.values() or self.is_stopped:
            return "FAILED", Made()
        return "SUCCEEDED", _outputs(component, made)

    def _may_start(self, task: Json, states: Mapping[str, str]) -> bool:
        if self.is_stopped:
            return False
        if _is_exit_handler(task):
            return True
        return all(states[one] == "SUCCEEDED" for one in _before(task))

    def _task(
        self, name: str, task: Json, parameters: Json, artifacts: dict[str, list[Json]], made: Mapping[str, Made],
        states: Mapping[str, str], path: str,
    ) -> tuple[str, Made]:  # fmt: skip
        if task.get("triggerPolicy", {}).get("condition"):
            raise NotResolved(f"this fake of KFP computes no conditions, as task {name!r} has one")
        component = self.spec["components"][task["componentRef"]["name"]]
        inputs, values = task.get("inputs", {}), dict[str, Any]()
        for port, source in inputs.get("parameters", {}).items():
            if (producer := source.get("taskFinalStatus", {}).get("producerTask")) in states:
                values[port] = {"state": self._final_status(states[producer], made, producer, component, path)}
            elif (found := _parameter(source, parameters, made)) is not None:
                values[port] = found
        files = {port: _artifact(source, artifacts, made) for port, source in inputs.get("artifacts", {}).items()}
        if _is_exit_handler(task):  # a hook of Argo's on the task that it follows; source: ``runOnExitNode``
            path = f"{path}.{_before(task)[0]}.onExit"
        if "parameterIterator" in task:
            return self._loop(component, task, values, files, f"{path}.{name}")
        if "dag" in component:
            return self._dag(component, values, files, f"{path}.{name}")
        _check_types(name, component, values, files)
        return self._container(name, task, values, files, f"{path}.{name}", [f"{path}.{one}" for one in _before(task)])

    def _final_status(self, state: str, made: Mapping[str, Made], task: str, component: Json, path: str) -> str:
        """Of a DAG, in the words of KFP's store of metadata: only a launcher has the tasks of its DAG counted, so that
        one whose last tasks come from the cache stays RUNNING. Source: KFP, v2/component/launcher_v2.go."""
        if state != "SUCCEEDED":
            return "FAILED"
        dags = [each["dag"] for each in (self.spec["root"], *self.spec["components"].values()) if "dag" in each]
        (ref,) = {dag["tasks"][task]["componentRef"]["name"] for dag in dags if task in dag["tasks"]}
        inner = self.spec["components"][ref].get("dag", {}).get("tasks", {})
        ends = inner.keys() - {one for each in inner.values() for one in _before(each)}
        return "RUNNING" if ends and ends <= {*self.cached} else "COMPLETE"

    def _loop(self, component: Json, task: Json, values: Json, files: Any, path: str) -> tuple[str, Made]:
        """Over a list of texts, as JSON, in the file or in a parameter; by its policy not all iterations at once."""
        iterator = task["parameterIterator"]
        items = iterator["items"]
        text = items["raw"] if "raw" in items else values.pop(items["inputParameter"])
        if len(text) > ITEMS:
            raise NotResolved(f"the items of {path} are longer than what a parameter carries")
        found = json.loads(text)
        if not found:
            raise NotResolved(f"{path} has no iterations: what collects the outputs would fail")
        room = threading.Semaphore(task.get("iteratorPolicy", {}).get("parallelismLimit") or len(found))
        ends: dict[int, tuple[str, Made]] = {}

        def iterate(number: int, item: str) -> None:
            with room:
                within = f"{path}.iteration-iterations({number}:{number}).iteration-item"
                ends[number] = self._attempted(
                    lambda: self._dag(component, {**values, iterator["itemInput"]: item}, files, within)
                )

        threads = [threading.Thread(target=iterate, args=each, daemon=True) for each in enumerate(found)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if any(state != "SUCCEEDED" for state, _ in ends.values()):
            return "FAILED", Made()
        ports = component["dag"].get("outputs", {}).get("artifacts", {})
        lists = {port: [one for _, (_, made) in sorted(ends.items()) for one in made.artifacts[port]] for port in ports}
        return "SUCCEEDED", Made({}, lists)

    def _container(
        self, name: str, task: Json, values: Json, files: dict[str, list[Json]], path: str, after: list[str]
    ) -> tuple[str, Made]:
        """A task with its driver, its node, and below that its executor: a pod."""
        if path in self._kept:
            return "SUCCEEDED", self._kept[path]
        is_cached = name in self.cached
        with self._lock:
            driver, node = Node(f"{path}-driver"), Node(path, "DAG", "system-container-executor")
            template = self._template(self.spec["components"][task["componentRef"]["name"]]["executorLabel"])
            executor = Node(f"{path}.executor", "Skipped" if is_cached else "Pod", template)
            node.started = executor.started = driver.started
            driver.end("SUCCEEDED")
            driver.children, node.children = [path], [executor.name]
            self._nodes |= {each.name: each for each in (driver, node, executor)}
            for before in after:
                if last := self._nodes.get(f"{before}.executor"):
                    last.children.append(driver.name)
        made = self._attempt(task, values, files, path, executor, is_cached=is_cached)
        state = "FAILED" if made is None else "SUCCEEDED"
        with self._lock:
            executor.end("SKIPPED" if made is not None and is_cached else state)
            node.state, node.ended = state, executor.ended
            if made is not None:
                self._kept[path] = made
        return state, made or Made()

    def _attempt(
        self, task: Json, values: Json, files: dict[str, list[Json]], path: str, node: Node, *, is_cached: bool
    ) -> Made | None:
        """What one pod gave; None if it failed."""
        component = self.spec["components"][task["componentRef"]["name"]]
        label = component["executorLabel"]
        container = self.spec["deploymentSpec"]["executors"][label]["container"]
        place = self.folder / "pods" / uuid.uuid4().hex[:8]
        (place / "outputs").mkdir(parents=True)
        given = _executor_input(component, values, files, place / "outputs")
        if (size := len(json.dumps(given))) >= ARGUMENT:
            raise NotResolved(f"{path} is described in {size} bytes")
        command = [_filled(word, given) for word in (*container["command"], *container.get("args", ()))]
        environment = {item["name"]: item["value"] for item in container.get("env", ())}
        log = place / "log"
        log.touch()
        with AT_ONCE:
            with self._lock:
                if self.is_stopped:
                    return None
                if not is_cached:
                    self.logs[f"{self.name}-{self._template(label)}-{_fnv(node.name)}"] = log
                pod = self._running[node.name] = self._pods.start(command, environment, log)
            code = pod.wait()
        with self._lock:
            del self._running[node.name]
        return _read_outputs(component, given) if code == 0 and not self.is_stopped else None

    def _template(self, label: str) -> str:
        """Which its pod is called after. Source: KFP, argocompiler/container.go, ``addContainerExecutorTemplate``."""
        template = "system-container-impl"
        metadata = self.kubernetes.get("executors", {}).get(label, {}).get("podMetadata")
        if metadata is None:
            return template
        return f"metadata-{len(metadata.get('annotations', {}))}-{len(metadata.get('labels', {}))}-{template}"


def _before(task: Json) -> list[str]:
    found: list[str] = task.get("dependentTasks", [])
    return found


def _is_exit_handler(task: Json) -> bool:
    """Source: KFP, argocompiler/dag.go, ``addExitTask``."""
    return bool(task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED")


def _parameter(source: Json, parameters: Json, made: Mapping[str, Made]) -> Any:
    if "runtimeValue" in source:
        return _as_go(source["runtimeValue"]["constant"])
    if port := source.get("componentInputParameter"):
        return parameters.get(port)
    output = source["taskOutputParameter"]
    return made[output["producerTask"]].parameters[output["outputParameterKey"]]


def _artifact(source: Json, artifacts: Mapping[str, list[Json]], made: Mapping[str, Made]) -> list[Json]:
    if port := source.get("componentInputArtifact"):
        return artifacts[port]
    output = source["taskOutputArtifact"]
    return made[output["producerTask"]].artifacts[output["outputArtifactKey"]]


def _outputs(component: Json, made: Mapping[str, Made]) -> Made:
    found, given = Made(), component["dag"].get("outputs", {})
    for port, source in given.get("parameters", {}).items():
        one = source["valueFromParameter"]
        found.parameters[port] = made[one["producerSubtask"]].parameters[one["outputParameterKey"]]
    for port, source in given.get("artifacts", {}).items():
        (one,) = source["artifactSelectors"]  # of several, KFP before 2.17 takes the last, whether it ran or not
        found.artifacts[port] = made[one["producerSubtask"]].artifacts[one["outputArtifactKey"]]
    return found


def _check_types(name: str, component: Json, values: Json, files: Mapping[str, list[Json]]) -> None:
    definitions = component.get("inputDefinitions", {})
    for port, value in values.items():
        if definitions["parameters"][port]["parameterType"] == "STRING" and not isinstance(value, str):
            raise NotResolved(f"input parameter {port!r} of {name!r} is no text")
    for port, found in files.items():
        if len(found) > 1 and not definitions["artifacts"][port].get("isArtifactList"):
            raise NotResolved(f"{port!r} of {name!r} gets a list")


def _executor_input(component: Json, values: Json, files: dict[str, list[Json]], place: Path) -> Json:
    outputs = component.get("outputDefinitions", {})
    return {
        "inputs": {
            "parameterValues": values,
            "artifacts": {port: {"artifacts": each} for port, each in files.items()},
        },
        "outputs": {
            "parameters": {port: {"outputFile": str(place / "parameters" / port)}
                           for port in outputs.get("parameters", {})},
            "artifacts": {port: {"artifacts": [{"name": port, "uri": (place / port).as_uri(), "metadata": {}}]}
                          for port in outputs.get("artifacts", {})},
            "outputFile": str(place / "output.json"),
        },
    }  # fmt: skip


def _filled(word: str, given: Json) -> str:
    """Source: KFP, v2/component/launcher_v2.go, ``getPlaceholders``."""
    for side in ("inputs", "outputs"):
        for port, listed in given[side]["artifacts"].items():
            path = listed["artifacts"][0]["uri"].removeprefix("file://")
            word = word.replace(f"{{{{$.{side}.artifacts['{port}'].path}}}}", path)
    return word.replace("{{$}}", json.dumps(given))


def _read_outputs(component: Json, given: Json) -> Made:
    """What the launcher collects; an output parameter has to be there."""
    made, outputs = Made(), given["outputs"]
    document = json.loads(Path(outputs["outputFile"]).read_text("utf-8"))
    kinds = component.get("outputDefinitions", {}).get("parameters", {})
    for port, place in outputs["parameters"].items():
        text = Path(place["outputFile"]).read_text("utf-8")
        made.parameters[port] = text if kinds[port]["parameterType"] == "STRING" else _as_go(json.loads(text))
    for port, listed in outputs["artifacts"].items():
        written = document.get("artifacts", {}).get(port, {}).get("artifacts", [{}])
        made.artifacts[port] = [{**listed["artifacts"][0], "metadata": written[0].get("metadata", {})}]
    return made


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


def _go_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _fnv(name: str) -> int:
    """Argo's hash of a node's name: FNV-1a with 32 bits."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) % 2**32
    return value
