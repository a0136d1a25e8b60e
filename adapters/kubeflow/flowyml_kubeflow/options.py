"""The Kubeflow options of a pipeline and its steps: ``Pipeline(…, kubeflow={…})`` and ``@step(kubeflow={…})``.

A step's options override those of its pipeline; mappings such as ``env`` are merged. Quantities of the step override
its ``resources``, which override quantities of the pipeline.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from flowyml.core.errors import DefinitionError, UnknownOptionError
from flowyml.core.resources import ResourceRequirements, amount
from flowyml.core.urls import refuse_credentials
from flowyml.orchestrators.base import about_step
from flowyml.orchestrators.options import Check, check_options
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import Plan, Step
from flowyml_kubeflow import names

__all__ = [
    "DEFAULT_IMAGE", "StepOptions", "default_image", "empty_dir", "pipeline_options", "resources_of_all",
    "step_options",
]  # fmt: skip

DEFAULT_IMAGE = "python:3.12-slim"
RUNTIMES = ("bundle", "image")  # where pods have FlowyML from


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """The options of a step's container. Quantities are in Kubernetes' notation."""

    image: str = DEFAULT_IMAGE
    env: Mapping[str, str] = field(default_factory=dict)
    cache: bool = False  # for a pipeline, False also applies to the code of all steps, which is otherwise cached
    cpu_request: str | None = None
    cpu_limit: str | None = None
    memory_request: str | None = None
    memory_limit: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    node_affinity: tuple[Mapping[str, Any], ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    secret_files: Mapping[str, str] = field(default_factory=dict)
    config_maps: Mapping[str, str] = field(default_factory=dict)
    config_map_files: Mapping[str, str] = field(default_factory=dict)
    pvcs: Mapping[str, str] = field(default_factory=dict)
    empty_dirs: Mapping[str, str] = field(default_factory=dict)
    security_context: Mapping[str, Any] = field(default_factory=dict)
    pull_policy: str | None = None
    pull_secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runtime: str = "bundle"


_CHECKS: Mapping[str, Check] = {
    "tuple[str, ...]": ("a list of strings", lambda value: _is_list(value) and all(isinstance(v, str) for v in value)),
    "Mapping[str, str]": (
        "a dict of strings",
        lambda value: (
            isinstance(value, Mapping) and all(isinstance(part, str) for item in value.items() for part in item)
        ),
    ),
    "tuple[Mapping[str, Any], ...]": (
        "a list of dicts",
        lambda value: _is_list(value) and all(isinstance(v, Mapping) for v in value),
    ),
    "Mapping[str, Any]": ("a dict", lambda value: isinstance(value, Mapping)),
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "str": ("text", lambda value: isinstance(value, str) and value != ""),
    "str | None": ("text", lambda value: isinstance(value, str) and value != ""),
}
_TYPES = {item.name: str(item.type) for item in fields(StepOptions)}
_PIPELINE_ONLY: Mapping[str, Check] = {
    "runtime": (" or ".join(map(repr, RUNTIMES)), lambda value: value in RUNTIMES),
    "bundle_store": ("a URL", lambda value: isinstance(value, str)),
    "max_concurrency": (
        "a number of runs from 1 to 10",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10,
    ),
}
_STEP = {name: _CHECKS[kind] for name, kind in _TYPES.items() if name not in _PIPELINE_ONLY}
# kfp-kubernetes' format has it; no function of that library writes it, and no driver of KFP's reads it (2.14 to 2.17).
# Source: KFP, v2/driver/k8s.go, ``extendPodSpecPatch``.
_NOT_IN_KFP = dict.fromkeys(("pod_affinity", "pod_anti_affinity"), ": KFP does not read affinity between pods")
_INSTALLS = dict.fromkeys(
    ("form", "packages"), ": pods install nothing; take an image that has the packages, image='…'"
)
_HINTS = {**dict.fromkeys(_PIPELINE_ONLY, " (an option of the whole pipeline)"), **_NOT_IN_KFP, **_INSTALLS}
_QUANTITIES = {"cpu_request", "cpu_limit", "memory_request", "memory_limit"}
_PULLS = ("Always", "IfNotPresent", "Never")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?")  # source: Kubernetes, resource.Quantity
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")  # source: Kubernetes, IsEnvVarName
_TOLERATION = {"key", "operator", "value", "effect", "toleration_seconds"}
_AFFINITY = {"match_expressions", "match_fields", "weight"}
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")  # source: Kubernetes, NodeSelectorOperator
_SECURITY = ("run_as_user", "run_as_group", "run_as_non_root")
_VOLUMES = ("pvcs", "secret_files", "config_map_files", "empty_dirs")
_VARIABLES = ("env", "secrets", "config_maps")
_MEMORY = "memory"


def pipeline_options(plan: Plan) -> Mapping[str, Any]:
    """Return the checked options of the pipeline. Raises ``UnknownOptionError``."""
    options = plan.options.get("kubeflow", {})
    subject = f"pipeline {plan.name!r}"
    _check(options, subject, {**_STEP, **_PIPELINE_ONLY})
    if options.get("runtime") == "image" and "image" not in options:
        raise UnknownOptionError(f"{subject}: runtime='image' needs an image that has FlowyML: give its name as image.")
    refuse_credentials(options.get("bundle_store", ""), f"{subject}: kubeflow bundle_store")
    return options


def default_image(bundle: Bundle) -> str:
    """Return a plain Python image.

    Functions that are pickled by value are bytecode, which needs the same version of Python.
    """
    by_value = any(b"cloudpickle" in data for path, data in bundle.files.items() if path.startswith("objects/"))
    return f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim" if by_value else DEFAULT_IMAGE


def step_options(pipeline: Mapping[str, Any], step: Step | None) -> StepOptions:
    """Return the options of a step merged with those of its pipeline; without a step, those of FlowyML's own tasks."""
    own = step.options.get("kubeflow", {}) if step else {}
    if step:
        with about_step(step.name):
            _check(own, f"step {step.name!r}", _STEP)
    inherited = {name: value for name, value in pipeline.items() if not (step and _is_set_by_resources(step, name))}
    merged: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        values = [options[name] for options in (inherited, own) if name in options]
        if values:
            merged[name] = _joined(kind, values)
    with about_step(step.name if step else ""):
        for fault in _pod_as_a_whole_faults(merged):
            raise UnknownOptionError(f"{f'step {step.name!r}' if step else 'the pipeline'}: {fault}")
    return StepOptions(**merged)


def resources_of_all(pipeline: Mapping[str, Any], steps: Sequence[Step]) -> ResourceRequirements | None:
    """Return what suffices for each of several steps in one pod; some of them may have the pipeline's quantities."""
    needs = [step.resources for step in steps]
    for name in ("cpu", "memory"):
        has_own = {getattr(step.resources, name, None) is not None for step in steps}
        options = [pipeline[option] for option in (f"{name}_request", f"{name}_limit") if option in pipeline]
        if options and len(has_own) > 1:
            needs.append(ResourceRequirements(**{name: max(options, key=amount)}))
    return ResourceRequirements.largest(needs)


def _is_set_by_resources(step: Step, option: str) -> bool:
    """Return whether the step's own ``resources`` set what ``option`` limits."""
    return option in _QUANTITIES and getattr(step.resources, option.partition("_")[0], None) is not None


def empty_dir(text: str) -> tuple[str, str]:
    """Return medium and size of an empty folder.

    >>> empty_dir("5Gi"), empty_dir("memory:1Gi"), empty_dir("memory"), empty_dir("")
    (('', '5Gi'), ('Memory', '1Gi'), ('Memory', ''), ('', ''))
    """
    medium, _, size = text.partition(":") if text.startswith(_MEMORY) else ("", "", text)
    return medium.title(), size


def _joined(kind: str, values: list[Any]) -> Any:
    if kind.startswith("Mapping[str, "):
        return {key: value for options in values for key, value in options.items()}
    return tuple(values[-1]) if kind.startswith("tuple") else values[-1]


def _check(options: Mapping[str, Any], subject: str, known: Mapping[str, Check]) -> None:
    check_options("kubeflow", subject, options, known, _HINTS)
    refuse_credentials(options.get("env", {}).get(names.ARTIFACTS, ""), f"{subject}: kubeflow env {names.ARTIFACTS}")
    checks = (_machine_faults, _affinity_faults, _pod_faults, _volume_faults, _security_faults)
    for fault in (fault for check in checks for fault in check(options)):
        raise UnknownOptionError(f"{subject}: {fault}")


def _machine_faults(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults that Kubernetes would refuse when the pod is created, about the requested machine."""
    for name in _QUANTITIES & options.keys():
        try:
            ResourceRequirements(**{name.partition("_")[0]: options[name]})
        except DefinitionError as error:
            yield f"kubeflow {name}: {error}"
    for item in options.get("tolerations", ()):
        if unknown := sorted(item.keys() - _TOLERATION):
            yield f"a toleration has no {unknown[0]!r}. Known: {', '.join(sorted(_TOLERATION))}."
        seconds = item.get("toleration_seconds", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            yield f"toleration_seconds={seconds!r:.80} must be a whole number of seconds."
        elif "toleration_seconds" in item and item.get("effect") != "NoExecute":
            yield "toleration_seconds needs effect='NoExecute'."
        if item.get("operator") == "Exists" and item.get("value"):
            yield f"a toleration of operator 'Exists' takes no value, but has {item['value']!r:.80}."


def _affinity_faults(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of ``node_affinity``, whose words are those of kfp-kubernetes."""
    for term in options.get("node_affinity", ()):
        if unknown := sorted(term.keys() - _AFFINITY):
            yield f"a node_affinity has no {unknown[0]!r}. Known: {', '.join(sorted(_AFFINITY))}."
        weight = term.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= 100:
            yield f"a node_affinity's weight={weight!r:.80} must be a number from 1 to 100."
        rules = [*term.get("match_expressions", ()), *term.get("match_fields", ())]
        if not rules:
            yield "a node_affinity has neither match_expressions nor match_fields."
        for rule in rules:
            if not isinstance(rule, Mapping) or not rule.get("key") or rule.get("operator") not in _OPERATORS:
                yield f"node_affinity: {rule!r:.80} has no key, or its operator is not one of {', '.join(_OPERATORS)}."
            elif not _is_list(values := rule.get("values", ())) or not all(isinstance(item, str) for item in values):
                yield f"node_affinity: the values of {rule['key']!r} must be a list of strings."


def _security_faults(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.get("security_context", {}).items():
        if name not in _SECURITY:
            yield f"a security_context has no {name!r}. Known: {', '.join(_SECURITY)}."
        elif name == "run_as_non_root":
            if not isinstance(value, bool):
                yield f"security_context {name}={value!r:.80} is neither True nor False."
        elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
            yield f"security_context {name}={value!r:.80} must be the number of a user or group."


def _pod_as_a_whole_faults(merged: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of the merged options of a pipeline and a step.

    KFP names a volume after its claim, secret or config map, and Kubernetes allows each name once in a pod. Source:
    KFP, v2/driver/k8s.go, ``extendPodSpecPatch``.
    """
    paths = [path for option in _VOLUMES for path in merged.get(option, {})]
    if repeated := next((path for path in paths if paths.count(path) > 1), None):
        yield f"two volumes are mounted at {repeated!r}."
    volumes = [name for option in _VOLUMES[:3] for name in merged.get(option, {}).values()]
    if repeated := next((name for name in volumes if volumes.count(name) > 1), None):
        yield f"{repeated!r} is mounted twice; KFP names the volume after it, and a pod has one of each name."
    variables = [name for option in _VARIABLES for name in merged.get(option, {})]
    if repeated := next((name for name in variables if variables.count(name) > 1), None):
        yield f"the environment variable {repeated!r} is given by two of {', '.join(_VARIABLES)}."


def _volume_faults(options: Mapping[str, Any]) -> Iterator[str]:
    for path in (path for option in _VOLUMES for path in options.get(option, {})):
        if not path.startswith("/") or ":" in path:
            yield f"a volume is mounted at an absolute path without a colon, not at {path!r}."
    for path, text in options.get("empty_dirs", {}).items():
        medium, size = empty_dir(text)
        if medium not in ("", "Memory") or (size and not _QUANTITY.fullmatch(size)):
            yield f"empty_dirs {path!r}: {text!r} must be a size such as '5Gi', 'memory' or 'memory:1Gi'."


def _pod_faults(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of the content of the pod."""
    if options.get("pull_policy", _PULLS[0]) not in _PULLS:
        yield f"kubeflow pull_policy={options['pull_policy']!r} must be one of {', '.join(_PULLS)}."
    for variable in (variable for option in _VARIABLES for variable in options.get(option, {})):
        if not _VARIABLE.fullmatch(variable):
            yield f"Kubernetes does not accept the environment variable {variable!r}."
    for kind, option in (("secret", "secrets"), ("config map", "config_maps")):
        for variable, place in options.get(option, {}).items():
            if place.count("/") != 1 or "" in place.split("/"):
                yield f"{kind} {place!r} for {variable!r}: write it as 'name-of-the-{kind.replace(' ', '-')}/key'."


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)
