"""Compiled pipelines as text, checked by KFP's own protobuf, and weighed before anything is sent."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from flowyml.core.errors import PlanError
from flowyml_kubeflow import names
from flowyml_kubeflow.compiler import ARTIFACT, CODE, RUN_TIME, Compiled

__all__ = ["documents", "inputs_of", "size_warning", "text", "validate"]

Json = dict[str, Any]

_STORE = "kubeflow={'bundle_store': 's3://…'}"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
# Mappings that are written a line an entry, to this depth; what lies deeper stands on one line, as JSON.
_OPEN = {
    ("components",), ("deploymentSpec",), ("deploymentSpec", "executors"), ("root",), ("root", "dag"),
    ("root", "dag", "tasks"), ("platforms",), ("platforms", "kubernetes"),
    ("platforms", "kubernetes", "deploymentSpec"),
    ("platforms", "kubernetes", "deploymentSpec", "executors"),
}  # fmt: skip
_TEXT_OR_EXPONENT = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![0-9.])(?P<number>-?[0-9]+)(?P<exponent>e[-+][0-9]+)')
_COMPONENT_REF = re.compile(r'"componentRef":(\{"name":"[a-z0-9-]+"\})')
_PLAIN = (
    "artifacts", "componentRef", "constant", "dependentTasks", "inputs", "name", "outputArtifactKey", "parameters",
    "producerTask", "runtimeValue", "taskInfo", "taskOutputArtifact",
)  # fmt: skip
_WORKFLOW = 1_048_576  # bytes of a workflow with what it tells of its nodes; source: Argo, packer.MaxWorkflowSize
_NEAR = 0.7
_ARGO_TASK = (
    1_700  # what Argo adds for each task: its driver and templates, and three nodes as it packs them; estimated
)
_COPIES = 3  # of the code beside the one in the file, in the inputs of nodes, packed; estimated
_ARGUMENT = 131_072  # bytes of one argument, less than that; source: execve(2), MAX_ARG_STRLEN


def text(compiled: Compiled) -> str:
    """YAML, one line for each task. JSON is YAML too, so everything below is written as that."""
    written = "\n---\n".join("\n".join(_lines(document, ())) for document in compiled.documents) + "\n"
    for anchor, value in _repeated(compiled.spec).items():
        written = _once(_json(value), anchor, written)
    return _with_plain_keys(_with_components_once(written))


def _repeated(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What many tasks, components or executors have in common, by the name of its YAML anchor."""
    commands = Counter(_json(item["container"]["command"]) for item in spec["deploymentSpec"]["executors"].values())
    ((command, _),) = commands.most_common(1)
    return {"code": CODE, "time": RUN_TIME, "artifact": ARTIFACT, "run": json.loads(command)}


def _once(repeated: str, anchor: str, written: str) -> str:
    """Write it where it comes first, and point there elsewhere. No text of a user's can look like it: in JSON, its
    quotes would be escaped."""
    before, _, after = written.partition(repeated)
    if repeated not in after:
        return written
    return f"{before}&{anchor} {repeated}{after.replace(repeated, f'*{anchor}')}"


def _with_components_once(written: str) -> str:
    """The same for the components that several tasks refer to."""
    uses = Counter(_COMPONENT_REF.findall(written))
    anchors = {ref: f"c{number}" for number, ref in enumerate((ref for ref in uses if uses[ref] > 1), 1)}
    seen: set[str] = set()

    def pointed(match: re.Match[str]) -> str:
        key, ref = match[0].removesuffix(match[1]), match[1]
        if ref not in anchors:
            return match[0]
        if ref in seen:
            return f"{key}*{anchors[ref]}"
        seen.add(ref)
        return f"{key}&{anchors[ref]} {ref}"

    return _COMPONENT_REF.sub(pointed, written)


def _with_plain_keys(written: str) -> str:
    """YAML wants no quotes around the words that each task repeats. A user's key that ends in one keeps its own."""
    for key in _PLAIN:
        if f'\\"{key}":' not in written:
            written = written.replace(f'"{key}":', f"{key}: ")
    return written


def _lines(value: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    indent = "  " * len(path)
    for key, item in value.items():
        below = (*path, key)
        if below in _OPEN and item:
            yield f"{indent}{_key(key, path)}:"
            yield from _lines(item, below)
        else:
            yield f"{indent}{_key(key, path)}: {_json(item)}"


def _key(key: str, path: tuple[str, ...]) -> str:
    """The names of tasks, components and executors are quoted, since a step may be called ``yes``."""
    return _json(key) if path and path[-1] in ("tasks", "components", "executors") else key


def _json(value: Any) -> str:
    plain = _ENCODER.encode(value)
    if "e-" in plain or "e+" in plain:
        plain = _TEXT_OR_EXPONENT.sub(_with_point, plain)
    if half := _HALF_A_PAIR.search(plain):
        around = plain[max(0, half.start() - 20) : half.end() + 20]
        raise PlanError(
            f"The pipeline holds half of a surrogate pair, in {around!a}: it stands for no character, and neither YAML "
            f"nor KFP takes it. Remove it, or encode the text."
        )
    if plain.isascii() and "\x7f" not in plain:  # as most of it is: JSON escapes the other control characters
        return plain
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", plain)


def _with_point(match: re.Match[str]) -> str:
    """``1e-05`` as ``1.0e-05``: readers of YAML 1.1, such as kfp's, take the first for text."""
    return f"{match['number']}.0{match['exponent']}" if match["number"] else match[0]


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


def size_warning(compiled: Compiled) -> str | None:
    """What is too large, or soon will be, and how to shrink it; None while there is room."""
    told = [text for text in (_workflow_warning(compiled), _argument_warning(compiled)) if text]
    return " ".join(told) or None


def _workflow_warning(compiled: Compiled) -> str | None:
    """KFP turns a pipeline into one Argo workflow, whose size Argo limits before etcd does."""
    tasks = _weights(compiled)
    code = _code_size(compiled)
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
    code = 0 if compiled.bundle_url else _code_size(compiled)
    dags = [compiled.spec["root"], *compiled.spec["components"].values()]
    graph = max(len(_json(dag)) for dag in dags if "dag" in dag)
    large = [f"the code has {code / 1000:.0f} kB (keep it in a store: {_STORE})"] if code >= _ARGUMENT else []
    large += [f"the graph of all steps has {graph / 1000:.0f} kB (join small steps)"] if graph >= _ARGUMENT else []
    if not large:
        return None
    return (
        f"Pipeline {compiled.bundle.plan.name!r} needs KFP 2.17 or newer: older ones hand either to a process in one "
        f"argument, of {_ARGUMENT / 1000:.0f} kB at most, and {' and '.join(large)}."
    )


def _code_size(compiled: Compiled) -> int:
    return len(_json(compiled.spec["deploymentSpec"]["executors"][f"exec-{names.BUNDLE_TASK}"]["container"]))


def _weights(compiled: Compiled) -> dict[str, int]:
    dags = [compiled.spec["root"], *compiled.spec["components"].values()]
    every = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    return {task["taskInfo"]["name"]: len(_json(task)) + _ARGO_TASK for _, task in every}


def _described(heaviest: Sequence[str], tasks: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({tasks[name] / 1000:.1f} kB)" for name in heaviest)
