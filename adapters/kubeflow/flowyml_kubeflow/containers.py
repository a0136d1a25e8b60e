"""The containers of a pipeline's tasks, and their configuration in Kubernetes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal

from flowyml._version import __version__
from flowyml.core.errors import DefinitionError
from flowyml.core.resources import ResourceRequirements, amount
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Step
from flowyml.plan.secrets import variable_of
from flowyml_kubeflow import names
from flowyml_kubeflow.options import StepOptions, empty_dir
from flowyml_kubeflow.pod_bundle import compressed

__all__ = [
    "Kind",
    "bundle_containers",
    "code_words",
    "container",
    "is_artifact",
    "kubernetes",
    "limit_facts",
    "longest",
]

_SECRET = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9._-]+")

Json = dict[str, Any]
Kind = Literal["step", "start", "last", "end", "items", "turn", "together", "result"]
"""The work of a pod: see ``worker``. From "items" on, it is a pod of a pipeline with control flow: see ``pods``."""

# The step's process is killed at its timeout; if that fails, the pod is, this many seconds later: Kubernetes begins to
# count before the image is pulled and packages are installed.
_GRACE = 1800
# The limit for a container with code, in JSON, so that its pod's template has less than 128 KiB (see ``sizes``).
_CONTAINER = 120_000
_LEAST = 30_000  # bytes of code in a container, though its environment leaves no room for them
_CAMEL = {
    "match_expressions": "matchExpressions", "match_fields": "matchFields", "run_as_user": "runAsUser",
    "run_as_group": "runAsGroup", "run_as_non_root": "runAsNonRoot",
}  # fmt: skip

# The container of a task takes the code as an artifact, or has the code or its URL among its arguments. Each checks the
# code's digest, since others may write to the store from which it comes. Modules come from the unpacked and compiled
# bundle, from which the step's own process starts, too.
_WORDS = """import hashlib, json, sys
from pathlib import Path

*task, digest, code = sys.argv[1:]
"""
_TAKEN = """path = Path(code)
data = path.read_bytes()
"""
_COMPARED = """if hashlib.sha256(data).hexdigest() != digest:
    sys.exit("The bundle of the pipeline is not the one that was compiled: its SHA-256 differs.")
"""
_UNPACK_OWN = """path = Path(json.loads(task[1])["outputs"]["outputFile"]).with_name(".flowyml-code")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_bytes(data)
"""
_DECODED = """import base64, bz2

data = bz2.decompress(base64.b64decode(code))
"""
_FETCHED = """if code.partition(":")[0] in ("http", "https", "file"):
    from urllib.request import urlopen

    source = urlopen(code, timeout=60)
else:
    import fsspec

    source = fsspec.open(code)
with source as file:
    data = file.read()
"""
_RUN = """from runpy import run_path

run_path(str(path), run_name="bundle")["make_importable"](path)
from flowyml_kubeflow.worker import main

sys.exit(main([str(path), *task]))
"""
# Before that, if FlowyML comes with the image.
_CHECK = f"""import sys

try:
    from flowyml import __version__ as version
except ImportError:
    version = "none"
if version != {__version__!r}:
    sys.exit(f"The image has FlowyML {{version}}; the pipeline needs {__version__}: install its wheel in the image")
"""
# The container of a task that provides the code, or a part of it.
_UNPACK = """import base64, bz2, hashlib, json, os, sys


def bundle(path, digest, *parts):
    data = {source}
    if hashlib.sha256(data).hexdigest() != digest:
        sys.exit("The bundle of the pipeline is not the one that was compiled: its SHA-256 differs.")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
"""
_PART = "base64.b64decode(parts[0])"
_JOINED = "joined(parts[:-1], parts[-1])"
_JOIN = """

def joined(paths, text):
    data = b"".join(open(path, "rb").read() for path in paths) + base64.b64decode(text)
    try:
        return bz2.decompress(data)
    except (OSError, ValueError):  # of a part that is damaged
        return b""
"""
# kfp.local passes on no artifact that the output file does not list; a cluster does.
_GIVE = """

given = json.loads(sys.argv[1])
bundle(*sys.argv[2:])
(artifact,) = given["outputs"]["artifacts"]["{port}"]["artifacts"]
name = artifact.get("name", "{port}")
found = {"name": name, "uri": artifact["uri"], "metadata": {"sha256": sys.argv[3]}}
output = given["outputs"]["outputFile"]
os.makedirs(os.path.dirname(output), exist_ok=True)
with open(output, "w") as file:
    json.dump({"artifacts": {"{port}": {"artifacts": [found]}}}, file)
"""


def container(
    kind: Kind, about: Json, options: StepOptions, resources: ResourceRequirements | None, code: Sequence[str]
) -> Json:
    """Return the container of a task of a ``kind``.

    ``code`` are the words about the code: see ``code_words``.
    ``about`` names its steps or its loop, and distinguishes containers of different components. That is necessary:
    KFP's backend stores the description of a component under the hash of its container, so that of two components with
    one container, one would get the other's inputs and outputs (argocompiler, hashComponentContainer).
    """
    script = (_CHECK if options.runtime == "image" else "") + _WORDS
    if is_artifact(code):
        script += _TAKEN + _COMPARED
        code = [*code, f"{{{{$.inputs.artifacts['{names.BUNDLE}'].path}}}}"]
    else:
        script += (_FETCHED if "://" in code[1] else _DECODED) + _COMPARED + _UNPACK_OWN
    arguments = [kind, "{{$}}", json.dumps(about, ensure_ascii=False), *code]
    start: Json = {"command": ["python3", "-c", script + _RUN], "args": arguments}
    return {**start, **_image(options), **_resources(options, resources)}


def limit_facts(spec: Json, limit: int) -> None:
    """Have the pods of steps give KFP metadata of an output of at most ``limit`` bytes: ``task_files.described``."""
    for executor in spec["deploymentSpec"]["executors"].values():
        arguments = executor["container"]["args"]
        if arguments[0] == "step":
            arguments[2] = json.dumps({**json.loads(arguments[2]), "facts": limit}, ensure_ascii=False)


def code_words(bundle: Bundle, url: str | None, *, in_each: bool = False) -> list[str]:
    """Return what each container has of the code in its arguments: its digest, and its URL or Base64.

    The digest is alone if a task provides the code, as an artifact.
    """
    return [bundle.digest, *([url] if url else [_encoded(compressed(bundle))] if in_each else [])]


def is_artifact(code: Sequence[str]) -> bool:
    """Return whether a task provides the code that these words are about."""
    return len(code) == 1


def bundle_containers(bundle: Bundle, options: StepOptions) -> list[Json]:
    """Return the container that provides the bundle, from its arguments.

    Before it come containers for the parts of a bundle that is too large for its arguments.
    """
    room = max(_CONTAINER - _size(_giving(_JOINED, [bundle.digest], options)), _LEAST)
    data = compressed(bundle)
    count = ceil(len(_encoded(data)) / room)
    size = ceil(len(data) / count)
    *parts, rest = (data[start : start + size] for start in range(0, len(data), size))
    contents = [[hashlib.sha256(part).hexdigest(), _encoded(part)] for part in parts]
    paths = [f"{{{{$.inputs.artifacts['{names.part(number)}'].path}}}}" for number, _ in enumerate(parts, 1)]
    words = [bundle.digest, *paths, _encoded(rest)]
    return [*(_giving(_PART, content, options) for content in contents), _giving(_JOINED, words, options)]


def _encoded(data: bytes) -> str:
    """Encode in Base64, which has none of the characters that Kubernetes, Argo or KFP replace."""
    return base64.b64encode(data).decode()


def _size(container_: Json) -> int:
    """Return the bytes of a container in Go's JSON."""
    text = json.dumps(container_)
    return len(text) + 5 * sum(map(text.count, "<>&"))


def _giving(source: str, words: list[str], options: StepOptions) -> Json:
    """Return a container that runs ``source`` on the words after a digest, and writes a result of that digest."""
    script = _UNPACK.replace("{source}", source) + (_JOIN if source == _JOINED else "")
    path = f"{{{{$.outputs.artifacts['{names.BUNDLE}'].path}}}}"
    command = ["python3", "-c", script + _GIVE.replace("{port}", names.BUNDLE)]
    return {"command": command, "args": ["{{$}}", path, *words], **_image(options)}


def kubernetes(step: Step | None, options: StepOptions, seconds: float | None = None) -> Json:
    """Return the configuration of the pods: kfp-kubernetes' part of the file. Source: KubernetesExecutorConfig.

    ``seconds`` is the limit for its steps; None: no limit.
    """
    config: Json = {}
    selector = {**(step.resources.gpu_labels if step and step.resources else {}), **options.node_selector}
    if selector:
        config["nodeSelector"] = {"labels": selector}
    if options.tolerations:
        config["tolerations"] = [_toleration(item) for item in options.tolerations]
    if options.node_affinity:
        config["nodeAffinity"] = [_affinity(term) for term in options.node_affinity]
    config |= {**_variables(options, step), **_volumes(options)}
    if options.security_context:
        config["securityContext"] = {  # with 64-bit numbers as text, as in Protobuf's JSON
            _CAMEL[name]: value if isinstance(value, bool) else str(value)
            for name, value in options.security_context.items()
        }
    if options.pull_policy:
        config["imagePullPolicy"] = options.pull_policy
    if options.pull_secrets:
        config["imagePullSecret"] = [
            {"secretName": name, "secretNameParameter": _constant(name)} for name in options.pull_secrets
        ]
    if options.labels or options.annotations:
        parts = {"labels": dict(options.labels), "annotations": dict(options.annotations)}
        config["podMetadata"] = {name: part for name, part in parts.items() if part}
    if seconds:
        config["activeDeadlineSeconds"] = str(int(seconds) + 1 + _GRACE)
    return config


def longest(step: Step) -> float | None:
    """Return the seconds that a step may take with its retries, which happen in its pod; None if it has no limit."""
    delays = tuple(step.retry.delays) if step.retry else ()
    return step.timeout_seconds * (1 + len(delays)) + sum(delays) if step.timeout_seconds else None


def _image(options: StepOptions) -> Json:
    env = [{"name": name, "value": value} for name, value in options.env.items()]
    return {"image": options.image, **({"env": env} if env else {})}


def _resources(options: StepOptions, requirements: ResourceRequirements | None) -> Json:
    """Return the resources of a container. A request is a limit too, unless the options say otherwise."""
    cpu, memory = (requirements.cpu, requirements.memory) if requirements else (None, None)
    quantities = {
        "cpuRequest": options.cpu_request or cpu, "cpuLimit": options.cpu_limit or cpu,
        "memoryRequest": options.memory_request or memory, "memoryLimit": options.memory_limit or memory,
    }  # fmt: skip
    resources: Json = {}
    for name, quantity in quantities.items():
        if quantity:
            # The number that KFP before 2.4 reads: cores, or gigabytes.
            resources[name] = float(amount(quantity) if name.startswith("cpu") else amount(quantity) / 10**9)
            resources[f"resource{name[0].upper()}{name[1:]}"] = quantity
    if requirements and requirements.gpu:
        count, kind = str(requirements.gpu), requirements.gpu_resource
        resources["accelerator"] = {"count": count, "type": kind, "resourceCount": count, "resourceType": kind}
    return {"resources": resources} if resources else {}


def _variables(options: StepOptions, step: Step | None) -> Json:
    """Return the environment variables from secrets and config maps.

    A secret that a step names may be missing: the step then fails with its name, while the pod would never start.
    """
    config: Json = {}
    for part, kind, places in (
        ("secretAsEnv", "secret", options.secrets), ("configMapAsEnv", "configMap", options.config_maps),
    ):  # fmt: skip
        if places:
            config[part] = [_variable(kind, variable, place) for variable, place in places.items()]
    if step and step.secrets:
        named = [
            _variable("secret", variable_of(reference), _checked_secret(step, reference), optional=True)
            for reference in dict.fromkeys(step.secrets.values())
        ]
        config["secretAsEnv"] = [*config.get("secretAsEnv", ()), *named]
    return config


def _checked_secret(step: Step, reference: str) -> str:
    if not _SECRET.fullmatch(reference):
        raise DefinitionError(
            f"step {step.name!r}: secret {reference!r} is not of the form 'name-of-the-secret/key'. Give "
            f"it one for this target: [orchestrators.NAME.secrets] in flowyml.toml."
        )
    return reference


def _variable(kind: str, variable: str, place: str, *, optional: bool = False) -> Json:
    name, key = place.split("/")
    pairs = [{"envVar": variable, f"{kind}Key": key}]
    may_be_missing = {"optional": True} if optional else {}  # KFP 2.14 does not know the word
    return {"keyToEnv": pairs, **may_be_missing, f"{kind}Name": name, f"{kind}NameParameter": _constant(name)}


def _volumes(options: StepOptions) -> Json:
    config: Json = {}
    if options.pvcs:
        config["pvcMount"] = [
            {"constant": claim, "mountPath": path, "pvcNameParameter": _constant(claim)}
            for path, claim in options.pvcs.items()
        ]
    for part, kind, files in (
        ("secretAsVolume", "secret", options.secret_files),
        ("configMapAsVolume", "configMap", options.config_map_files),
    ):
        if files:
            config[part] = [
                {"mountPath": path, f"{kind}Name": name, f"{kind}NameParameter": _constant(name)}
                for path, name in files.items()
            ]
    if options.empty_dirs:
        config["emptyDirMounts"] = [
            _empty_dir(number, path, text) for number, (path, text) in enumerate(options.empty_dirs.items(), 1)
        ]
    return config


def _empty_dir(number: int, path: str, text: str) -> Json:
    medium, size = empty_dir(text)
    limits = {name: value for name, value in (("medium", medium), ("sizeLimit", size)) if value}
    return {"volumeName": f"flowyml-empty-{number}", "mountPath": path, **limits}


def _affinity(term: Mapping[str, Any]) -> Json:
    rules = {_CAMEL[part]: [dict(rule) for rule in term[part]] for part in ("match_expressions", "match_fields")
             if part in term}  # fmt: skip
    return {**rules, **({"weight": term["weight"]} if "weight" in term else {})}


def _toleration(item: Mapping[str, Any]) -> Json:
    plain = {name: value for name, value in item.items() if name != "toleration_seconds"}
    seconds = item.get("toleration_seconds")
    return {**plain, **({"tolerationSeconds": str(seconds)} if seconds is not None else {})}


def _constant(value: str) -> Json:
    return {"runtimeValue": {"constant": value}}
