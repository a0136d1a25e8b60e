"""Compiled pipelines as text, checked with KFP's own protobuf, and refused if they are too large for Argo."""

from __future__ import annotations

import bz2
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from statistics import median
from typing import Any

from flowyml.core.errors import ConfigurationError, PlanError, UnsupportedFeatureError
from flowyml.plan.bundle import Bundle
from flowyml_kubeflow import names
from flowyml_kubeflow.compiler import Compiled
from flowyml_kubeflow.sizes import CODE_TEXT, ERROR, TEMPLATE, WORKFLOW, PodSize, Size

__all__ = ["check_fields", "check_size", "code_containers", "compact", "documents", "inputs_of", "text", "validate"]

Json = dict[str, Any]

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
# Texts in JSON that some YAML readers read differently: characters that YAML requires to be escaped (1.2, 5.1), and
# numbers such as 1e-05, which are text in YAML 1.1.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|[:,\\[]-?[0-9.]+e[-+]")
# The user's own files in a bundle, and FlowyML's; included packages are in folders.
_OWN, _OURS = ("code/", "objects/"), ("flowyml/", "flowyml_kubeflow/", "cloudpickle/", "__main__.py")
_DATA = "Take data out of include=, and have steps read it from storage."
_IMAGE = "Take an image that has FlowyML, kubeflow={'image': '…', 'runtime': 'image'}, so that only your code travels."
_STORE = (
    "Keep the code in a store: KubeflowOrchestrator(artifacts='s3://…') does so by itself where it would not fit, "
    "kubeflow={'bundle_store': 's3://…'} always; each image then needs fsspec and the store's package, such as s3fs."
)
# What KFP's servers learnt, by the field in the platform's document that older ones refuse, and whose it is.
_SINCE = {
    "optional": (
        (2, 15),
        "Secrets of steps",
        "give them by kubeflow={'secrets': {'VARIABLE': 'name/key'}}, which hides no value that a step prints",
    ),
    "securityContext": ((2, 16), "kubeflow={'security_context': …}", "leave it to the cluster's administrators"),
}
_MANY = 50  # values of other steps in one step; a value takes about a kB of its pod's description
_FITTING = "Install versions that fit: pip install --upgrade --force-reinstall 'kfp>=2.14,<3'."
_SMALLER = "Join small steps, by execution_group='…' or in one function, or split the pipeline."


def text(compiled: Compiled) -> str:
    """Return YAML in block style, for people to review. Raises ``PlanError`` for text that no reader accepts."""
    import yaml  # type: ignore[import-untyped]  # ships no types

    _json_texts(compiled)
    options = {"sort_keys": False, "allow_unicode": True, "width": 10**9}
    return str(yaml.dump_all(compiled.documents, Dumper=_dumper(), **options))


def compact(compiled: Compiled) -> str:
    """Return the same documents for KFP's API, in a tenth of the time: as JSON, which is YAML too.

    Raises ``PlanError``.
    """
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
        """Return a YAML node: scripts as lines, number-like text quoted, since ``1e5`` differs in YAML 1.1 and 1.2."""
        style = "|" if "\n" in value else '"' if value[:1] in "+-.0123456789" else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text_node)
    return Dumper


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def validate(compiled: Compiled) -> bool:
    """Check the PipelineSpec with KFP's protobuf; False if that is not installed. Raises ``ConfigurationError``."""
    messages = _messages()
    if messages is None:
        return False
    from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped]  # ships no types

    try:
        ParseDict(compiled.spec, messages.PipelineSpec())
        if compiled.platform:
            ParseDict(compiled.platform, messages.PlatformSpec())
    except ParseError as error:
        name = compiled.bundle.plan.name
        raise ConfigurationError(
            f"Pipeline {name!r} does not fit the PipelineSpec of {_installed()}: {error}. {_FITTING}"
        ) from error
    return True


def _installed() -> str:
    versions = {name: metadata.version(name) for name in ("kfp-pipeline-spec", "protobuf")}
    return " with ".join(f"{name} {version}" for name, version in versions.items())


@cache
def _messages() -> Any:
    """Return the module of kfp-pipeline-spec, loaded from its file: ``kfp.pipeline_spec`` would import all of kfp.

    Raises ``ConfigurationError`` where it does not fit the protobuf that is installed.
    """
    try:
        distribution = metadata.distribution("kfp-pipeline-spec")
    except metadata.PackageNotFoundError:
        return None
    path = distribution.locate_file("kfp/pipeline_spec/pipeline_spec_pb2.py")
    spec = spec_from_file_location("flowyml_kubeflow._pipeline_spec_pb2", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a TypeError, an ImportError or protobuf's own VersionError, by its release
        raise ConfigurationError(f"These packages do not fit: {_installed()}: {error} {_FITTING}") from error
    return module


def inputs_of(version: Mapping[str, Any]) -> Json:
    """Return the parameters of a pipeline, by their ports."""
    inputs: Json = documents(version)[0].get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return inputs


def documents(version: Mapping[str, Any]) -> tuple[Json, Json]:
    """Return the pipeline and its platform: KFP returns the pipeline alone, or both below their names."""
    return dict(version.get("pipeline_spec") or version), dict(version.get("platform_spec") or {})


def code_containers(pipeline: Mapping[str, Any]) -> list[Json]:
    """Return the containers that provide the code: those of its parts, if it has any, then the one for all."""
    executors = pipeline.get("deploymentSpec", {}).get("executors", {})
    parts = (names.part_task(number) for number in range(1, len(executors)))
    containers = (executors.get(f"exec-{task}", {}).get("container") for task in (*parts, names.BUNDLE_TASK))
    return [container for container in containers if container]


def check_fields(compiled: Compiled, release: tuple[int, ...]) -> None:
    """Refuse what a release of KFP does not know, and would refuse. Raises ``UnsupportedFeatureError``.

    One that is unknown (empty) is taken for the newest.
    """
    kubernetes = compiled.platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
    configs = kubernetes.get("executors", {}).values()
    fields = {name for config in configs for part in (config, *config.get("secretAsEnv", ())) for name in part}
    for field, (since, what, instead) in _SINCE.items():
        if release and release < since and field in fields:
            older, first = (".".join(map(str, number)) for number in (release, since))
            raise UnsupportedFeatureError(
                f"Pipeline {compiled.bundle.plan.name!r}: {what} need KFP {first} or newer, and this is KFP {older}; "
                f"nothing was sent. Upgrade KFP, or {instead}."
            )


def check_size(compiled: Compiled, release: tuple[int, ...] = (), parameters: Mapping[str, Any] | None = None) -> None:
    """Refuse a pipeline that Argo would end, or could not start. Raises ``UnsupportedFeatureError``.

    ``release`` is that of KFP, empty if it is unknown; ``parameters`` are those of a run, by their ports.
    """
    size = compiled.size(release, parameters)
    if size.fits:
        return
    lines = [f"Pipeline {compiled.bundle.plan.name!r} is too large for KFP; nothing was sent."]
    bare = _without_code(compiled).size(release, parameters)
    if bare.stored < size.stored and not size.is_stored and not (parameters and compiled.size(release).fits):
        lines.append(_too_large_code(compiled, size, bare))
    component = None if size.can_start or bare.can_start else _component_of(compiled, size.pods[0].task)
    if component:
        lines.append(_too_large_pod(compiled, size.pods[0], component))
    if not size.is_stored:
        of_whom = f"KFP {'.'.join(map(str, release))}" if release else "KFP 2.17, since the release is unknown"
        lines.append(
            f"A run would make a workflow of {_mb(size.stored)} (computed for {of_whom}). Argo stores {_mb(WORKFLOW)} "
            f"and ends larger runs: 'workflow is longer than maximum allowed size'."
        )
    if parameters and compiled.size(release).fits:
        length = f"{len(_json(parameters)) / 1000:.0f} kB"
        lines.append(f"It fits without the parameters of this run, {length}: shorten them, or give the URL of a file.")
        raise UnsupportedFeatureError("\n".join(lines))
    if not bare.is_stored or (component and "dag" in component):
        lines.append(f"The graph, {size.count} nodes, takes {_mb(bare.stored)}: {_tasks(compiled)}. {_SMALLER}")
    raise UnsupportedFeatureError("\n".join(lines))


def _mb(size: float) -> str:
    return f"{size / 1e6:.2f} MB"


def _without_code(compiled: Compiled) -> Compiled:
    """Return the same pipeline with its code left out of the containers that provide it."""
    pipeline = json.loads(json.dumps(compiled.spec))
    for container in code_containers(pipeline):
        container["args"] = [CODE_TEXT.sub("", word) for word in container["args"]]
    return replace(compiled, spec=pipeline)


def _too_large_code(compiled: Compiled, size: Size, bare: Size) -> str:
    """Return the files of the code, the user's first, what it takes in the workflow, and the remedies that suffice."""
    code = sum(len(word) for container in code_containers(compiled.spec) for word in container["args"])
    fits = code * max(0, WORKFLOW / (1 + ERROR) - bare.stored) / (size.stored - bare.stored)
    room = f" of which about {fits / 1000:.0f} kB fit," if bare.is_stored else ""
    lines = [
        f"Large are the files that travel with it: {_files(compiled.bundle)}.",
        f"Compressed, the code has {code / 1000:.0f} kB,{room} and takes {_mb(size.stored - bare.stored)} of a run.",
    ]
    files = compiled.bundle.files
    ours = {path for path in files if path.startswith(_OURS)}
    data = {path for path in files if path.startswith("code/") and not path.endswith(".py")}

    def fits_without(left_out: set[str]) -> bool:
        kept = b"".join(content for path, content in files.items() if path not in left_out)
        return len(bz2.compress(kept)) * 4 / 3 < fits

    remedies = [
        (bool(data) and fits_without(data), _DATA),
        (any(path.startswith("flowyml/") for path in ours) and fits_without(ours), _IMAGE),
        (bare.is_stored, _STORE),
    ]
    return "\n- ".join([" ".join(lines), *(remedy for suffices, remedy in remedies if suffices)])


def _component_of(compiled: Compiled, task: str) -> Json:
    """Return the component of a task, or the root."""
    dags = [compiled.spec["root"], *compiled.spec["components"].values()]
    tasks = {name: item for dag in dags for name, item in dag.get("dag", {}).get("tasks", {}).items()}
    component: Json = compiled.spec["root"]
    return compiled.spec["components"][tasks[task]["componentRef"]["name"]] if task in tasks else component


def _too_large_pod(compiled: Compiled, pod: PodSize, component: Json) -> str:
    what = "KFP's driver of the pipeline" if pod.task == "root" else f"task {pod.task!r}"
    reason = (
        f"The pod of {what} needs {pod.template / 1000:.0f} kB to be described, and Argo starts none with more than "
        f"{TEMPLATE / 1000:.0f} kB on KFP: 'configmaps is forbidden'."
    )
    if "dag" in component:
        return f"{reason} The graph is in it."
    container = compiled.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
    env = len(_json(container.get("env", [])))
    taken, returned = (
        len(component.get(kind, {}).get("artifacts", {}).keys() - {names.BUNDLE})
        for kind in ("inputDefinitions", "outputDefinitions")
    )
    if env > TEMPLATE / 4:
        return f"{reason} Its env={{…}} takes {env / 1000:.0f} kB: shorten it."
    if taken + returned > _MANY:
        return (
            f"{reason} It takes {taken} values of other steps and returns {returned}, of which about 110 fit: combine "
            f"values in intermediate steps."
        )
    return f"{reason} The most of it are its parameters."


def _files(bundle: Bundle) -> str:
    """Return the largest files in a bundle, the user's before FlowyML's part, a folder of packages as one."""
    sizes: Counter[str] = Counter()
    ours = 0
    for path, data in bundle.files.items():
        if path.startswith(_OURS):
            ours += len(data)
        else:
            sizes[path.removeprefix("code/") if path.startswith(_OWN) else path.split("/")[0]] += len(data)
    return " and ".join([_largest(sizes), *([f"FlowyML's own part ({ours / 1000:.1f} kB)"] if ours else [])])


def _tasks(compiled: Compiled) -> str:
    """Return the largest tasks in the graphs, by their display names; if all are small, their number."""
    dags = [compiled.spec["root"], *compiled.spec["components"].values()]
    every = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).values()]
    sizes = {task["taskInfo"]["name"]: len(_json(task)) for task in every}
    if max(sizes.values()) < 2 * median(sizes.values()):
        return f"{len(every)} tasks of about {median(sizes.values()) / 1000:.1f} kB"
    return f"the largest tasks are {_largest(sizes)}"


def _largest(sizes: Mapping[str, int]) -> str:
    names = sorted(sizes, key=lambda name: -sizes[name])[:3]
    large = [name for name in names if sizes[name] > sizes[names[0]] / 20]
    return ", ".join(f"{name!r} ({sizes[name] / 1000:.1f} kB)" for name in large)
