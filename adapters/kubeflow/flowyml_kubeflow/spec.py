"""Compiled pipelines as text, checked by KFP's own protobuf, and weighed before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from flowyml.core.errors import PlanError
from flowyml_kubeflow import names
from flowyml_kubeflow.compiler import Compiled

__all__ = ["code_containers", "compact", "documents", "inputs_of", "size_warning", "text", "validate"]

Json = dict[str, Any]

_STORE = "kubeflow={'bundle_store': 's3://…'}"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
# What JSON writes and not every reader of YAML takes for the same: characters that YAML wants escaped (1.2, 5.1), and
# numbers such as 1e-05, which are text in YAML 1.1.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|[:,\\[]-?[0-9.]+e[-+]")
_WORKFLOW = 1_048_576  # bytes of a workflow with the states of its nodes; source: Argo, packer.MaxWorkflowSize
_NEAR = 0.7
# What Argo adds for each task: its driver and templates, and three nodes as it packs them; estimated.
_ARGO_TASK = 1_700
_COPIES = 3  # of the code beside the one in the file, in the inputs of nodes, packed; estimated
_ARGUMENT = 131_072  # bytes of one argument, less than that; source: execve(2), MAX_ARG_STRLEN


def text(compiled: Compiled) -> str:
    """YAML in block style, for people to review. Raises ``PlanError`` for text that no reader takes."""
    import yaml  # type: ignore[import-untyped]  # ships no types

    _json_texts(compiled)
    options = {"sort_keys": False, "allow_unicode": True, "width": 10**9}
    return str(yaml.dump_all(compiled.documents, Dumper=_dumper(), **options))


def compact(compiled: Compiled) -> str:
    """The same documents for KFP's API, in a tenth of the time: as JSON, which is YAML too. Raises ``PlanError``."""
    texts = _json_texts(compiled)
    return text(compiled) if any(map(_NOT_YAML.search, texts)) else "\n---\n".join(texts) + "\n"


def _json_texts(compiled: Compiled) -> list[str]:
    texts = [_json(document) for document in compiled.documents]
    for written in texts:
        try:
            written.encode()
        except UnicodeEncodeError as error:
            around = written[max(0, error.start - 20) : error.end + 20]
            raise PlanError(
                f"The pipeline contains a lone surrogate near {around!a}: it is not a character, and YAML and KFP "
                f"reject it. Remove it, or encode the text."
            ) from None
    return texts


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml's, where it is there
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text_node(dumper: Any, value: str) -> Any:
        """Scripts as lines. What begins like a number is quoted: ``1e5`` is text in YAML 1.1 and a number in 1.2."""
        style = "|" if "\n" in value else '"' if value[:1] in "+-.0123456789" else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text_node)
    return Dumper


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def validate(compiled: Compiled) -> bool:
    """Check the PipelineSpec against KFP's protobuf; False where that is not installed. Raises ``PlanError``."""
    messages = _messages()
    if messages is None:
        return False
    from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped]  # ships no types

    try:
        ParseDict(compiled.spec, messages.PipelineSpec())
        if compiled.platform:
            ParseDict(compiled.platform, messages.PlatformSpec())
    except ParseError as error:
        raise PlanError(f"Pipeline {compiled.bundle.plan.name!r} does not fit KFP's PipelineSpec: {error}") from error
    return True


@cache
def _messages() -> Any:
    """The module of kfp-pipeline-spec, by its file: as ``kfp.pipeline_spec`` it would import all of kfp."""
    try:
        distribution = metadata.distribution("kfp-pipeline-spec")
    except metadata.PackageNotFoundError:
        return None
    path = distribution.locate_file("kfp/pipeline_spec/pipeline_spec_pb2.py")
    spec = spec_from_file_location("flowyml_kubeflow._pipeline_spec_pb2", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(version: Mapping[str, Any]) -> Json:
    """The parameters that a pipeline takes, by their ports."""
    inputs: Json = documents(version)[0].get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return inputs


def documents(version: Mapping[str, Any]) -> tuple[Json, Json]:
    """The pipeline and its platform: KFP gives the first alone, or both below their names."""
    return dict(version.get("pipeline_spec") or version), dict(version.get("platform_spec") or {})


def code_containers(pipeline: Mapping[str, Any]) -> list[Json]:
    """The containers that give the code: those of its parts, if it has any, then the one that gives all."""
    executors = pipeline.get("deploymentSpec", {}).get("executors", {})
    parts = (names.part_task(number) for number in range(1, len(executors)))
    found = (executors.get(f"exec-{task}", {}).get("container") for task in (*parts, names.BUNDLE_TASK))
    return [container for container in found if container]


def size_warning(compiled: Compiled) -> str | None:
    """What is too large, or soon will be, and how to shrink it; None while there is room."""
    warnings = [warning for warning in (_workflow_warning(compiled), _argument_warning(compiled)) if warning]
    return " ".join(warnings) or None


def _workflow_warning(compiled: Compiled) -> str | None:
    """KFP turns a pipeline into one Argo workflow, whose size Argo limits before etcd does."""
    tasks = _weights(compiled)
    code = sum(len(_json(container)) for container in code_containers(compiled.spec))
    shared = len(_json(compiled.spec["deploymentSpec"])) + len(_json(compiled.spec["components"]))
    total = shared + sum(tasks.values()) + (0 if compiled.bundle_url else _COPIES * code)
    if total < _NEAR * _WORKFLOW:
        return None
    heaviest = sorted(tasks, key=lambda name: -tasks[name])[:3]
    word = "is over" if total > _WORKFLOW else "comes near"
    advice = ["join small steps into larger ones"]
    if compiled.bundle_url is None:
        advice.insert(0, f"keep the code ({code / 1000:.0f} kB) in a store: {_STORE}")
    return (
        f"Pipeline {compiled.bundle.plan.name!r} makes a workflow of about {total / 1e6:.1f} MB with "
        f"{len(tasks)} tasks, which {word} Argo's limit of {_WORKFLOW / 1e6:.1f} MB. "
        f"Heaviest: {_described(heaviest, tasks)}. To shrink it, {'; or '.join(advice)}."
    )


def _argument_warning(compiled: Compiled) -> str | None:
    """Argo before 3.7.10 hands a driver what it is to start in one argument (KFP issue 12453, Argo issue 15471); KFP
    2.16 comes with Argo 3.7.3, and 2.17 with 4.0.8."""
    dags = [compiled.spec["root"], *compiled.spec["components"].values()]
    graph = max(len(_json(dag)) for dag in dags if "dag" in dag)
    if graph < _ARGUMENT:
        return None
    return (
        f"Pipeline {compiled.bundle.plan.name!r} needs KFP 2.17 or newer: older ones hand the graph to a process in "
        f"one argument, of {_ARGUMENT / 1000:.0f} kB at most, and that of all steps has {graph / 1000:.0f} kB. Join "
        f"small steps into larger ones."
    )


def _weights(compiled: Compiled) -> dict[str, int]:
    dags = [compiled.spec["root"], *compiled.spec["components"].values()]
    every = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    return {task["taskInfo"]["name"]: len(_json(task)) + _ARGO_TASK for _, task in every}


def _described(heaviest: Sequence[str], tasks: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({tasks[name] / 1000:.1f} kB)" for name in heaviest)
