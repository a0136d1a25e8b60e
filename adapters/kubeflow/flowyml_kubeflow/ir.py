"""Common parts of KFP's intermediate representation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.plan.model import Step
from flowyml_kubeflow import names
from flowyml_kubeflow.parameters import described_output

__all__ = [
    "ARTIFACT", "CODE", "INNER_CODE", "RUN_NAMES", "RUN_TIME", "TEXT", "Dag", "Json", "add_output", "artifact",
    "check_number", "output_of", "passed_on", "run_values",
]  # fmt: skip

Json = dict[str, Any]

# KFP's types of the kinds that an annotation names. Its types for Markdown and HTML also say what the file itself is,
# which holds the value for the next step.
_TYPES = {"table": "Dataset", "model": "Model", "metrics": "Metrics"}


def artifact(kind: str = "") -> Json:
    """Return the declaration of an artifact in a component; ``kind`` is one of ``flowyml.plan.kinds``."""
    return {"artifactType": {"schemaTitle": f"system.{_TYPES.get(kind, 'Artifact')}", "schemaVersion": "0.0.1"}}


ARTIFACT = artifact()
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


def check_number(who: str, taken: int, given: int) -> None:
    """Check the number of artifacts. The code of the steps is one more than those taken."""
    if (taken + 1) * _ARTIFACT_BYTES + given * _OUTPUT_BYTES > _ARGUMENT:
        raise UnsupportedFeatureError(
            f"{who} takes {taken} values from other steps and returns {given}. KFP describes all of them in one "
            f"command-line argument, which Linux limits to 128 KiB: at most {_ARGUMENT // _OUTPUT_BYTES} in total, and "
            f"about 110 on a cluster. Combine values in intermediate steps."
        )


def output_of(task: str, port: str) -> Json:
    return {"taskOutputParameter": {"producerTask": task, "outputParameterKey": port}}


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
    """The values of the run for steps: the time, and the run's names if results are cached, which record the run."""
    return {names.TIME: RUN_TIME, **(RUN_NAMES if any(step.caching for step in steps) else {})}
