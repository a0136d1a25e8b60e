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
from flowyml_kubeflow.compiler import ARTIFACT, CODE, Compiled

__all__ = ["size_warning", "text", "validate"]

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
# Mappings that are written a line an entry, to this depth; what lies deeper stands on one line, as JSON.
_OPEN = {
    ("components",), ("deploymentSpec",), ("deploymentSpec", "executors"), ("root",), ("root", "dag"),
    ("root", "dag", "tasks"), ("platforms",), ("platforms", "kubernetes"),
    ("platforms", "kubernetes", "deploymentSpec"),
    ("platforms", "kubernetes", "deploymentSpec", "executors"),
}  # fmt: skip
_ETCD = 1_572_864  # bytes in one request to etcd; source: etcd, --max-request-bytes
_NEAR = 0.7
_ARGO_TASK = 1_100  # what Argo adds for each task: its driver, its template and the parameters between them


def text(compiled: Compiled) -> str:
    """YAML, one line for each task. JSON is YAML too, so everything below is written as that."""
    written = "\n---\n".join("\n".join(_lines(document, ())) for document in compiled.documents) + "\n"
    for anchor, value in _repeated(compiled.spec).items():
        written = _once(_json(value), anchor, written)
    return written


def _repeated(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What many tasks, components or executors have in common, by the name of its YAML anchor."""
    commands = Counter(_json(item["container"]["command"]) for item in spec["deploymentSpec"]["executors"].values())
    ((command, _),) = commands.most_common(1)
    return {"code": CODE, "artifact": ARTIFACT, "run": json.loads(command)}


def _once(repeated: str, anchor: str, written: str) -> str:
    """Write it where it comes first, and point there elsewhere. No text of a user's can look like it: in JSON, its
    quotes would be escaped."""
    before, _, after = written.partition(repeated)
    if repeated not in after:
        return written
    return f"{before}&{anchor} {repeated}{after.replace(repeated, f'*{anchor}')}"


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
    if plain.isascii() and "\x7f" not in plain:  # as most of it is: JSON escapes the other control characters
        return plain
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", plain)


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


def size_warning(compiled: Compiled) -> str | None:
    """What is too large, or soon will be, and how to shrink it; None while there is room.

    KFP turns a pipeline into one Argo workflow, which must fit into one request to etcd.
    """
    tasks = _weights(compiled)
    code = len(_json(compiled.spec["deploymentSpec"])) + len(_json(compiled.spec["components"]))
    total = code + sum(tasks.values())
    if total < _NEAR * _ETCD:
        return None
    heaviest = sorted(tasks, key=lambda name: -tasks[name])[:3]
    bundle = len(_json(compiled.spec["deploymentSpec"]["executors"]["exec-flowyml--bundle"]))
    word = "is over" if total > _ETCD else "comes near"
    advice = ["join small steps into larger ones"]
    if compiled.bundle_url is None:
        advice.insert(0, f"keep the code ({bundle / 1000:.0f} kB) in a store: kubeflow={{'bundle_store': 's3://…'}}")
    return (
        f"Pipeline {compiled.bundle.plan.name!r} makes a workflow of about {total / 1e6:.1f} MB with "
        f"{len(tasks)} tasks, which {word} etcd's limit of {_ETCD / 1e6:.1f} MB. "
        f"Heaviest: {_described(heaviest, tasks)}. To shrink it, {'; or '.join(advice)}."
    )


def _weights(compiled: Compiled) -> dict[str, int]:
    dags = [compiled.spec["root"], *compiled.spec["components"].values()]
    every = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    return {task["taskInfo"]["name"]: len(_json(task)) + _ARGO_TASK for _, task in every}


def _described(heaviest: Sequence[str], tasks: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({tasks[name] / 1000:.1f} kB)" for name in heaviest)
