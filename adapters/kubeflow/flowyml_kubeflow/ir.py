"""Parts of KFP's intermediate representation: tasks, DAGs and the components of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.plan.model import Plan, Step
from flowyml_kubeflow import containers, names
from flowyml_kubeflow.options import step_options
from flowyml_kubeflow.parameters import described_output, kfp_type

__all__ = [
    "ARTIFACT", "ARTIFACTS", "CODE", "INNER_CODE", "RUN_NAMES", "RUN_TIME", "TEXT", "Components", "Dag", "Json",
    "PodTask", "add_output", "artifact", "artifact_of", "check_number", "filled", "from_around", "output_of",
    "passed_on", "run_values", "task",
]  # fmt: skip

Json = dict[str, Any]

# KFP's types of the kinds that an annotation names. Its types for Markdown and HTML also say what the file itself is,
# which holds the value for the next step.
_TYPES = {"table": "Dataset", "model": "Model", "metrics": "Metrics"}


def artifact(kind: str = "") -> Json:
    """Return the declaration of an artifact in a component; ``kind`` is one of ``flowyml.plan.kinds``."""
    return {"artifactType": {"schemaTitle": f"system.{_TYPES.get(kind, 'Artifact')}", "schemaVersion": "0.0.1"}}


ARTIFACT = artifact()
ARTIFACTS: Json = {**ARTIFACT, "isArtifactList": True}
TEXT = {"parameterType": "STRING"}
# The source of the code for a task: the task that provides it, or the DAG around it.
CODE: Json = {"taskOutputArtifact": {"producerTask": names.BUNDLE_TASK, "outputArtifactKey": names.BUNDLE}}
INNER_CODE: Json = {"componentInputArtifact": names.BUNDLE}
# The arguments of a hook about its run: the display name of the run, which KFP leaves empty in those of a recurring
# run, and the name of its workflow, which is the display name of such a run. Source: KFP, template/v2_template.go.
RUN_NAMES: Json = {
    names.RUN: {"runtimeValue": {"constant": "{{$.pipeline_job_name}}"}},
    names.JOB: {"runtimeValue": {"constant": "{{$.pipeline_job_resource_name}}"}},
}
# The scheduled time of a recurring run's run, or the time of creation of any other. An older KFP leaves the text
# unchanged. Source: KFP, driver/executorplugin.
RUN_TIME: Json = {"runtimeValue": {"constant": "{{$.pipeline_job_schedule_time_utc}}"}}
# KFP describes all inputs and outputs of a task in one argument of its container, of 128 KiB at most (execve(2),
# MAX_ARG_STRLEN). The bytes are those of a RuntimeArtifact in its JSON form with KFP's default MinIO.
_ARGUMENT = 131_071
_ARTIFACT_BYTES = 780
_OUTPUT_BYTES = 860


@dataclass
class Dag:
    """A DAG under construction, and the ports that it needs from the DAG around it."""

    tasks: Json = field(default_factory=dict)
    outputs: Json = field(default_factory=dict)
    definitions: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PodTask:
    """A task that runs a pod of ``kind``; ``about`` names its steps or its loop.

    ``parameters`` and ``records`` are the sources of what it takes, by port; records are the results of other pods, or
    lists of them. ``types`` are those of parameters that are neither the run's nor text. ``code`` is the source of the
    code, and ``after`` the tasks for which it waits. ``step`` has its resources and options; the pod ends after
    ``seconds`` at the latest.
    """

    name: str
    title: str
    kind: containers.Kind
    about: Json = field(default_factory=dict)
    parameters: Json = field(default_factory=dict)
    types: Json = field(default_factory=dict)
    records: Mapping[str, Json] = field(default_factory=dict)
    takes_lists: bool = False
    outputs: Json = field(default_factory=dict)
    code: Json
    after: Sequence[str] = ()
    step: Step | None = None
    seconds: float | None = None
    caches: bool = False


class Components:
    """The components of a pipeline, with the containers of those that have one.

    ``options`` are those of the pipeline, ``code`` the words of each container about the code of the steps.
    """

    def __init__(self, plan: Plan, options: Mapping[str, Any], code: Sequence[str]) -> None:
        self.plan = plan
        self.options = options
        self.code = code
        self.parameters = {item.name: item for item in plan.parameters}
        self._types = {names.port(item.name): {"parameterType": kfp_type(item)} for item in plan.parameters}
        self.components: Json = {}
        self.executors: Json = {}
        self.kubernetes: Json = {}

    @property
    def first(self) -> list[str]:
        """The task for which all others wait, if it provides their code."""
        return [names.BUNDLE_TASK] if containers.is_artifact(self.code) else []

    def taking(self, code: Json) -> Json:
        """Return the artifact with the code, for a task that takes it from another."""
        return {names.BUNDLE: code} if containers.is_artifact(self.code) else {}

    def caches(self, step: Step) -> bool:
        """Return whether KFP may take the results of a step from its cache."""
        return bool((self.options.get("cache") or step.options) and step_options(self.options, step).cache)

    def types(self, ports: Iterable[str]) -> Json:
        """Return the types of parameters, by their ports: those of the run, else text."""
        return {port: self._types.get(port, TEXT) for port in ports}

    def pod(self, pod: PodTask) -> Json:
        """Add the component of a pod; return its task."""
        options = step_options(self.options, pod.step)
        records = dict.fromkeys(pod.records, ARTIFACTS if pod.takes_lists else ARTIFACT)
        inputs = filled(self.types(pod.parameters) | pod.types, {**self.taking(ARTIFACT), **records})
        resources = pod.step.resources if pod.step else None
        component = self.add(
            pod.name, inputs, pod.outputs, containers.container(pod.kind, pod.about, options, resources, self.code),
            containers.kubernetes(pod.step, options, pod.seconds),
        )  # fmt: skip
        sources = filled(pod.parameters, {**self.taking(pod.code), **pod.records})
        return task(component, pod.title, after=pod.after, inputs=sources, caches=pod.caches or None)

    def add(self, task: str, inputs: Json, outputs: Json, container: Json, config: Json) -> Json:
        """Add the component of a task that runs in a container; return the reference to it.

        One that is called like the pipeline gets another name: kfp's loader takes the component of that name for the
        whole pipeline. Source: kfp, ``ComponentSpec.from_ir_dicts``.
        """
        name = f"{task}--step" if task == names.pipeline(self.plan.name) else task
        label = f"exec-{name}"
        self.components[f"comp-{name}"] = {
            "executorLabel": label,
            **({"inputDefinitions": inputs} if inputs else {}),
            **({"outputDefinitions": outputs} if outputs else {}),
        }
        self.executors[label] = {"container": container}
        if config:
            self.kubernetes[label] = config
        return {"name": f"comp-{name}"}

    def add_dag(self, task: str, dag: Dag, inputs: Json) -> Json:
        """Add the component of a task that is a DAG; return the reference to it."""
        self.components[f"comp-{task}"] = {
            "dag": {"tasks": dag.tasks, **({"outputs": dag.outputs} if dag.outputs else {})},
            "inputDefinitions": inputs,
            **({"outputDefinitions": dag.definitions} if dag.outputs else {}),
        }
        return {"name": f"comp-{task}"}


def task(
    component: Json, title: str, *, after: Iterable[str] = (), inputs: Json | None = None, caches: bool | None = None
) -> Json:
    """Return a task that waits for those ``after`` which it runs; ``title`` is its name in KFP's UI."""
    return {
        "componentRef": component,
        **({"dependentTasks": before} if (before := list(dict.fromkeys(after))) else {}),
        **({"inputs": inputs} if inputs else {}),
        **({} if caches is None else {"cachingOptions": {"enableCache": caches}}),
        "taskInfo": {"name": title},
    }


def filled(parameters: Json, artifacts: Json) -> Json:
    """Return inputs, outputs, or their definitions, without empty parts."""
    parts = {"parameters": parameters, "artifacts": artifacts}
    return {name: part for name, part in parts.items() if part}


def from_around(parameters: Iterable[str]) -> Json:
    """Return the sources of parameters, by their ports: the DAG around the task has them under the same ones."""
    return {port: {"componentInputParameter": port} for port in parameters}


def check_number(subject: str, taken: int, returned: int) -> None:
    """Check the number of artifacts. The code of the steps is one more than those taken."""
    if (taken + 1) * _ARTIFACT_BYTES + returned * _OUTPUT_BYTES > _ARGUMENT:
        raise UnsupportedFeatureError(
            f"{subject} takes {taken} values from other steps and returns {returned}. KFP describes all of them in one "
            f"command-line argument, which Linux limits to 128 KiB: at most {_ARGUMENT // _OUTPUT_BYTES} in total, and "
            f"about 110 on a cluster. Combine values in intermediate steps."
        )


def output_of(task: str, port: str) -> Json:
    return {"taskOutputParameter": {"producerTask": task, "outputParameterKey": port}}


def artifact_of(task: str, port: str) -> Json:
    return {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": port}}


def add_output(dag: Dag, name: str, producer: str, port: str, kind: str = "") -> None:
    """Add an output of the pipeline."""
    selected = {"artifactSelectors": [{"producerSubtask": producer, "outputArtifactKey": port}]}
    dag.outputs.setdefault("artifacts", {})[names.port(name)] = selected
    dag.definitions.setdefault("artifacts", {})[names.port(name)] = {**artifact(kind), **described_output(name)}


def passed_on(outputs: Mapping[str, Any], task: str) -> Json:
    """Return the outputs of an inner DAG as those of the outer one."""
    every = outputs.get("artifacts", {})
    selected = {port: {"artifactSelectors": [{"producerSubtask": task, "outputArtifactKey": port}]} for port in every}
    return {"artifacts": selected} if selected else {}


def run_values(*steps: Step) -> Json:
    """Return the run's values for steps: the time, and its names if results are cached, which record the run."""
    return {names.TIME: RUN_TIME, **(RUN_NAMES if any(step.caching for step in steps) else {})}
