"""Runs compiled pipelines as KFP's backend does: drivers that resolve the inputs of tasks, iterations, and what waits.

Strict where KFP is: a task starts when all that it waits for succeeded; what a loop collects is what each iteration
left, and a loop without iterations has nothing that could be collected; a value comes from where its spec says, or the
run fails. Sources, in KFP's ``backend/src/v2``: ``driver/resolve.go`` (``resolveInputs``, ``CollectInputs``),
``driver/dag.go`` (``iterationItems``), ``driver/util.go`` (``getItems``), ``compiler/argocompiler/dag.go``
(``depends``). Containers run in this process, by the launcher's own code; an attempt of a step too.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flowyml.core.dates import RunDates
from flowyml.runtime.worker import Worker
from flowyml_kubeflow import attempts, launcher
from flowyml_kubeflow.compiler import Compiled

Json = dict[str, Any]
ARGUMENT = 131_072
WORDS = 64 * 1024


class Refused(Exception):
    """What KFP's driver would fail with."""


@dataclass
class Ran:
    """A run that has ended: the states of its tasks by the names of their nodes, and the logs of their pods."""

    states: dict[str, str] = field(default_factory=dict)
    outputs: Json = field(default_factory=dict)
    logs: dict[str, list[list[str]]] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.states["root"] == "Succeeded"


class Backend:
    """One pipeline, whose steps run in this process."""

    def __init__(self, compiled: Compiled, folder: Path) -> None:
        self.spec = json.loads(json.dumps(compiled.spec))
        self.folder = folder
        self.bundle = folder / "bundle.pyz"
        self.bundle.write_bytes(compiled.bundle.data)
        self.ran = Ran()
        self._number = 0

    def run(self, parameters: Mapping[str, Any] = {}, name: str = "run", scheduled: str = "") -> Ran:
        """``scheduled`` is the time that a recurring run gave, in KFP's words: RFC 3339, in UTC."""
        spec = json.dumps(self.spec).replace("{{$.pipeline_job_name}}", json.dumps(name)[1:-1])
        if scheduled:
            spec = spec.replace("{{$.pipeline_job_schedule_time_utc}}", scheduled)
        self.spec = json.loads(spec)
        root = self.spec["root"]
        given = {port: item["defaultValue"] for port, item in
                 root.get("inputDefinitions", {}).get("parameters", {}).items() if "defaultValue" in item}  # fmt: skip
        with _in_this_process(self.bundle, self.folder):
            self.ran.states["root"], made = self._dag(root, {**given, **parameters}, {}, "root")
        self.ran.outputs = made["parameters"]
        return self.ran

    def _dag(self, component: Json, parameters: Json, artifacts: Json, path: str) -> tuple[str, Json]:
        """Run a DAG: each task once all that it waits for has ended."""
        tasks, states, made = component["dag"]["tasks"], dict[str, str](), dict[str, Json]()
        left = list(tasks)
        while left:
            ready = [name for name in left if all(other in states for other in tasks[name].get("dependentTasks", ()))]
            if not ready:
                raise Refused(f"tasks wait for one another: {left}")
            for name in ready:
                left.remove(name)
                task = tasks[name]
                if any(states[other] != "Succeeded" for other in task.get("dependentTasks", ())):
                    states[name] = "Omitted"
                else:
                    states[name], made[name] = self._task(name, task, parameters, artifacts, made, f"{path}.{name}")
                self.ran.states[f"{path}.{name}"] = states[name]
        state = "Failed" if "Failed" in states.values() else "Succeeded"
        return state, self._outputs(component, made) if state == "Succeeded" else {"parameters": {}, "artifacts": {}}

    def _outputs(self, component: Json, made: Mapping[str, Json]) -> Json:
        found: Json = {"parameters": {}, "artifacts": {}}
        given = component["dag"].get("outputs", {})
        for port, source in given.get("parameters", {}).items():
            one = source["valueFromParameter"]
            found["parameters"][port] = made[one["producerSubtask"]]["parameters"][one["outputParameterKey"]]
        for port, source in given.get("artifacts", {}).items():
            (one,) = source["artifactSelectors"]  # of several, KFP before 2.17 takes the last, whether it ran or not
            found["artifacts"][port] = made[one["producerSubtask"]]["artifacts"][one["outputArtifactKey"]]
        return found

    def _task(
        self, name: str, task: Json, parameters: Json, artifacts: Json, made: Mapping[str, Json], path: str
    ) -> tuple[str, Json]:  # fmt: skip
        component = self.spec["components"][task["componentRef"]["name"]]
        inputs = task.get("inputs", {})
        values = {port: _parameter(source, parameters, made) for port, source in inputs.get("parameters", {}).items()}
        files = {port: _artifact(source, artifacts, made) for port, source in inputs.get("artifacts", {}).items()}
        if iterator := task.get("parameterIterator"):
            return self._loop(component, iterator, values, files, path)
        if "dag" in component:
            return self._dag(component, values, files, path)
        for port in values:
            wanted = component["inputDefinitions"]["parameters"][port]["parameterType"]
            if (wanted == "STRING") != isinstance(values[port], str) and wanted == "STRING":
                raise Refused(f"input parameter {port!r} type mismatch")
        for port, found in files.items():
            if (len(found) > 1) and not component["inputDefinitions"]["artifacts"][port].get("isArtifactList"):
                raise Refused(f"{port!r} of {name!r} gets a list")
        return self._container(name, component, values, files, path)

    def _loop(self, component: Json, iterator: Json, values: Json, files: Json, path: str) -> tuple[str, Json]:
        """The items are a list of texts, as JSON, in the file or in a parameter that is not longer than 64 KiB."""
        items = iterator["items"]
        text = items["raw"] if "raw" in items else values.pop(items["inputParameter"])
        if len(text) > WORDS:
            raise Refused("the items are longer than what a parameter carries")
        found = json.loads(text)
        if not found:
            raise Refused("an iteration count of 0: what collects the outputs would fail")
        ends = [
            self._dag(component, {**values, iterator["itemInput"]: item}, files, f"{path}.{number}")
            for number, item in enumerate(found)
        ]
        if any(state != "Succeeded" for state, _ in ends):
            return "Failed", {}
        lists: Json = {"parameters": {}, "artifacts": {}}
        for port in component["dag"].get("outputs", {}).get("artifacts", {}):
            lists["artifacts"][port] = [one for _, made in ends for one in made["artifacts"][port]]
        return "Succeeded", lists

    def _container(self, name: str, component: Json, values: Json, files: Json, path: str) -> tuple[str, Json]:
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        self._number += 1
        place = self.folder / f"{self._number}-{name}"
        outputs = component.get("outputDefinitions", {})
        given = {
            "inputs": {
                "parameterValues": values,
                "artifacts": {port: {"artifacts": each} for port, each in files.items()},
            },
            "outputs": {
                "parameters": {port: {"outputFile": str(place / "parameters" / port)}
                               for port in outputs.get("parameters", {})},
                "artifacts": {port: {"artifacts": [{"name": port, "uri": str(place / port), "metadata": {}}]}
                              for port in outputs.get("artifacts", {})},
                "outputFile": str(place / "output.json"),
            },
        }  # fmt: skip
        if (size := len(json.dumps(given))) >= ARGUMENT:
            raise Refused(f"{name!r} is described in {size} bytes")
        if "code__" in outputs.get("artifacts", {}):
            return "Succeeded", {"parameters": {}, "artifacts": {"code__": [{"uri": str(self.bundle)}]}}
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            failed = launcher.main([str(self.bundle), container["args"][1], json.dumps(given), name])
        self.ran.logs.setdefault(name, []).append(printed.getvalue().splitlines())
        if failed:
            return "Failed", {}
        document = json.loads((place / "output.json").read_text())
        made: Json = {"parameters": {}, "artifacts": {}}
        for port in outputs.get("parameters", {}):
            made["parameters"][port] = (place / "parameters" / port).read_text()
        for port, given_one in given["outputs"]["artifacts"].items():
            metadata = document["artifacts"][port]["artifacts"][0]["metadata"] if port in document["artifacts"] else {}
            made["artifacts"][port] = [{**given_one["artifacts"][0], "metadata": metadata}]
        return "Succeeded", made


def _parameter(source: Json, parameters: Json, made: Mapping[str, Json]) -> Any:
    if "runtimeValue" in source:
        return source["runtimeValue"]["constant"]
    if port := source.get("componentInputParameter"):
        return parameters[port]
    output = source["taskOutputParameter"]
    return made[output["producerTask"]]["parameters"][output["outputParameterKey"]]


def _artifact(source: Json, artifacts: Json, made: Mapping[str, Json]) -> list[Json]:
    if port := source.get("componentInputArtifact"):
        found: list[Json] = artifacts[port]
    else:
        output = source["taskOutputArtifact"]
        found = made[output["producerTask"]]["artifacts"][output["outputArtifactKey"]]
    return found


@contextmanager
def _in_this_process(bundle: Path, folder: Path) -> Iterator[None]:
    """Attempts of steps run here, from one unpacked bundle."""
    with tempfile.TemporaryDirectory(dir=folder) as unpack_in:
        from zipfile import ZipFile

        with ZipFile(bundle) as archive:
            archive.extractall(unpack_in)  # the test's own
        worker: list[Worker] = []

        def run(
            attempt: attempts.Attempt, inputs: Mapping[str, Any], *, together: str = "", hold: bool = False
        ) -> None:
            store = str(attempt.scratch / "store")
            if not worker:
                worker.append(Worker(Path(unpack_in), run_id="fake"))
            one = worker[0]
            config = attempt.processes._config
            one.artifacts, one.also, one.dates = store, config["also"], RunDates.of(config["dates"])
            one.__dict__.pop("store", None)
            answer = _answer(one, attempt, inputs)
            attempt.outputs, attempt.failure = answer.get("outputs", {}), answer.get("failure")

        with patch.object(attempts.Attempt, "run", run), patch.object(sys, "path", [*sys.path]):
            yield


def _answer(worker: Worker, attempt: attempts.Attempt, inputs: Mapping[str, Any]) -> Json:
    return worker.answer(attempt.step, inputs, attempt.number, attempt.index)
