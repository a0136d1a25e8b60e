"""The documents of a compiled pipeline as KFP walks them, and what its rules ask of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Json = dict[str, Any]
WORDS = {"and", "contains", "else", "false", "if", "in", "let", "matches", "nil", "not", "or", "true"}
TYPES = {"NUMBER_INTEGER", "NUMBER_DOUBLE", "STRING", "BOOLEAN", "LIST", "STRUCT", "TASK_FINAL_STATUS", "TASK_CONFIG"}
FITS: dict[str, Callable[[Any], bool]] = {
    "NUMBER_INTEGER": lambda value: is_number(value) and value == int(value),
    "NUMBER_DOUBLE": lambda value: is_number(value),
    "STRING": lambda value: isinstance(value, str),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "LIST": lambda value: isinstance(value, list),
    "STRUCT": lambda value: isinstance(value, dict),
}
PLACEHOLDER = re.compile(r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\['([^']*)'\]")
ARGO_TAG = re.compile(r"\{\{\s*(?:=|(?:item|steps|inputs|outputs|pod|workflow|tasks)[.}])")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass
class Dag:
    """A DAG, and the component whose it is."""

    name: str
    component: Json
    tasks: dict[str, Json]
    outputs: Json

    def before(self, task: str) -> set[str]:
        """All tasks that have ended when this one begins."""
        found: set[str] = set()
        left = list(self.tasks[task].get("dependentTasks", ()))
        while left:
            name = left.pop()
            if name not in found and name in self.tasks:
                found.add(name)
                left += self.tasks[name].get("dependentTasks", ())
        return found


@dataclass
class Pipeline:
    """The documents, as KFP's compiler walks them."""

    spec: Json
    platform: Json

    @cached_property
    def components(self) -> dict[str, Json]:
        return {"root": self.spec.get("root", {}), **self.spec.get("components", {})}

    @cached_property
    def executors(self) -> dict[str, Json]:
        return dict(self.spec.get("deploymentSpec", {}).get("executors", {}))

    @cached_property
    def kubernetes(self) -> dict[str, Json]:
        spec = self.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        return dict(spec.get("executors", {}))

    @cached_property
    def dags(self) -> list[Dag]:
        return [
            Dag(name, item, item["dag"].get("tasks", {}), item["dag"].get("outputs", {}))
            for name, item in self.components.items() if "dag" in item
        ]  # fmt: skip

    def tasks(self) -> Iterator[tuple[Dag, str, Json, Json]]:
        """Each task, with its DAG, its name, itself and its component."""
        for dag in self.dags:
            for name, task in dag.tasks.items():
                yield dag, name, task, self.component_of(task)

    @cached_property
    def iterated(self) -> set[str]:
        """The components of loops, whose outputs are lists of what their tasks give."""
        return {task["componentRef"]["name"] for _, _, task, _ in self.tasks() if "parameterIterator" in task}

    def component_of(self, task: Mapping[str, Any]) -> Json:
        return self.components.get(task.get("componentRef", {}).get("name", ""), {})

    def container_of(self, component: Mapping[str, Any]) -> Json:
        return dict(self.executors.get(component.get("executorLabel", ""), {}).get("container", {}))


def source_faults(pipeline: Pipeline, dag: Dag, name: str, kind: str, source: Mapping[str, Any]) -> Iterator[str]:
    singular = kind[:-1].title()
    inputs = dag.component.get("inputDefinitions", {}).get(kind, {})
    if (port := source.get(f"componentInput{singular}")) is not None:
        if port not in inputs:
            yield f"is {port!r} of its DAG, which does not take it"
    elif output := source.get(f"taskOutput{singular}"):
        producer, key = output.get("producerTask"), output.get(f"output{singular}Key")
        if producer not in dag.before(name):
            yield f"is of {producer!r}, which it does not wait for"
        made = pipeline.component_of(dag.tasks.get(producer, {}))
        if key not in made.get("outputDefinitions", {}).get(kind, {}):
            yield f"is {key!r} of {producer!r}, which does not give it"
    elif status := source.get("taskFinalStatus"):
        if status.get("producerTask") not in dag.tasks[name].get("dependentTasks", ()):
            yield f"is the status of {status.get('producerTask')!r}, which it does not wait for"
    elif "constant" not in source.get("runtimeValue", {}):
        yield f"comes from nowhere: {source}"


def type_of(pipeline: Pipeline, dag: Dag, source: Mapping[str, Any]) -> str | None:
    """None where it cannot be known, as of what a loop has collected."""
    if port := source.get("componentInputParameter"):
        return kind_of(dag.component.get("inputDefinitions", {}).get("parameters", {}).get(port, {}))
    if output := source.get("taskOutputParameter"):
        made = pipeline.component_of(dag.tasks.get(output["producerTask"], {})).get("outputDefinitions", {})
        is_list = "parameterIterator" in dag.tasks.get(output["producerTask"], {})
        return None if is_list else kind_of(made.get("parameters", {}).get(output["outputParameterKey"], {}))
    return "TASK_FINAL_STATUS" if "taskFinalStatus" in source else None


def artifact_of(pipeline: Pipeline, dag: Dag, source: Mapping[str, Any]) -> Json:
    if port := source.get("componentInputArtifact"):
        return dict(dag.component.get("inputDefinitions", {}).get("artifacts", {}).get(port, {}))
    output = source.get("taskOutputArtifact", {})
    made = pipeline.component_of(dag.tasks.get(output.get("producerTask", ""), {})).get("outputDefinitions", {})
    return dict(made.get("artifacts", {}).get(output.get("outputArtifactKey", ""), {}))


def kind_of(about: Mapping[str, Any]) -> str | None:
    return about.get("parameterType") or about.get("artifactType", {}).get("schemaTitle")


def parameter_selectors(output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if item := output.get("valueFromParameter"):
        yield item["producerSubtask"], item["outputParameterKey"]


def artifact_selectors(output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for item in output.get("artifactSelectors", ()):
        yield item["producerSubtask"], item["outputArtifactKey"]


def mounts_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of the volumes of a pod, where KFP gives them, and where they are."""
    names = {"pvcMount": "constant", "secretAsVolume": "secretName", "configMapAsVolume": "configMapName",
             "emptyDirMounts": "volumeName", "genericEphemeralVolume": "volumeName"}  # fmt: skip
    for part, field in names.items():
        for item in config.get(part, ()):
            if name := item.get(field):
                yield name, item.get("mountPath", "")


def words(container: Mapping[str, Any]) -> Iterator[str]:
    values = [item.get("value", "") for item in container.get("env", ())]
    yield from (word for word in (*container.get("command", ()), *container.get("args", ()), *values)
                if isinstance(word, str))  # fmt: skip


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
