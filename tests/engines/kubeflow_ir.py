"""A second opinion on compiled pipelines: what KFP's API server, its compiler to Argo, its driver, Argo and Kubernetes
would refuse or could not resolve.

It shares no code with FlowyML's compiler and walks the documents as KFP does. Each rule is a function whose docstring
names the place where it was read, in KFP 2.14 to 2.17 (``backend/src``) and Argo 3.6 to 4.0 (``workflow``).
``faults`` gives what is wrong, in sentences; a pipeline that KFP takes has none.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.engines.kubeflow_ir_model import (
    ARGO_TAG,
    FITS,
    LABEL,
    LABEL_KEY,
    PLACEHOLDER,
    TYPES,
    WORDS,
    Pipeline,
    artifact_of,
    artifact_selectors,
    kind_of,
    mounts_of,
    parameter_selectors,
    source_faults,
    type_of,
    words,
)
from tests.engines.kubeflow_replaced import expanded

__all__ = ["faults"]

ARGUMENT = 131_072  # bytes of one argument, with the zero at its end; execve(2), MAX_ARG_STRLEN
WORKFLOW = 1_048_576  # packer.MaxWorkflowSize
ARGO_TASK = 900  # bytes of Argo's own in a workflow for each task, at least: two tasks of a DAG template
EXECUTOR_INPUT = 700  # bytes of an artifact in the executor input, at least; kubeflow-backend notes: 710 to 780


def faults(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a pipeline, and its platform if it has one, for KFP 2.14, and so for newer releases too."""
    specs = [dict(item) for item in documents if item and "platforms" not in item]
    platforms = [dict(item) for item in documents if item and "platforms" in item]
    if len(specs) != 1 or len(platforms) > 1:  # apiserver/template/v2_template.go, NewV2SpecTemplate
        return [f"there are {len(specs)} pipelines and {len(platforms)} platforms"]
    pipeline = Pipeline(specs[0], platforms[0] if platforms else {})
    found = [*the_protobufs_take_it(pipeline)]  # what does not fit them cannot be walked
    return found or [f"{rule.__name__}: {fault}" for rule in RULES[1:] for fault in rule(pipeline)]


Rule = Callable[[Pipeline], Iterator[str]]


# The documents, as the API server reads them.


def the_protobufs_take_it(pipeline: Pipeline) -> Iterator[str]:
    """``PipelineSpec``, ``PipelineDeploymentConfig``, ``PlatformSpec``, kfp-kubernetes' ``KubernetesExecutorConfig``:
    none with a field that it does not know. Source: apiserver/template/v2_template.go, ``NewV2SpecTemplate``;
    v2/compiler/visitor.go, ``GetDeploymentConfig``."""
    from google.protobuf.json_format import ParseDict, ParseError  # type: ignore[import-untyped]  # ships no types
    from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes  # type: ignore[import-untyped]  # the same
    from kfp.pipeline_spec import pipeline_spec_pb2 as messages  # type: ignore[import-untyped]  # the same

    wanted = [
        (pipeline.spec, messages.PipelineSpec()),
        (pipeline.spec.get("deploymentSpec", {}), messages.PipelineDeploymentConfig()),
        (pipeline.platform, messages.PlatformSpec()),
        *((config, kubernetes.KubernetesExecutorConfig()) for config in pipeline.kubernetes.values()),
    ]
    for document, message in wanted:
        try:
            ParseDict(document, message)
        except ParseError as error:
            yield f"{type(message).__name__}: {error}"


def the_api_server_reads_it(pipeline: Pipeline) -> Iterator[str]:
    """Source: apiserver/template/v2_template.go, ``NewV2SpecTemplate``, whose expression matches a part of a name and
    is meant for all of it; apiserver/model/pipeline.go has 128 characters for it since KFP 2.15."""
    name = pipeline.spec.get("pipelineInfo", {}).get("name", "")
    if pipeline.spec.get("schemaVersion") != "2.1.0":
        yield f"the schema version is {pipeline.spec.get('schemaVersion')!r}"
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name) or len(name) > 128:
        yield f"the pipeline is called {name!r}"
    if not pipeline.spec.get("root"):
        yield "there is no root"


# Components, as KFP's compiler visits them.


def components_are_there(pipeline: Pipeline) -> Iterator[str]:
    """Source: v2/compiler/visitor.go, ``Accept`` and ``dfs``."""
    if "root" in pipeline.spec.get("components", {}):
        yield "a component has the reserved name 'root'"
    for name, component in pipeline.components.items():
        if ("dag" in component) == bool(component.get("executorLabel")):
            yield f"component {name!r} is to be either a DAG or an executor"
        label = component.get("executorLabel")
        if label and "container" not in pipeline.executors.get(label, {}):
            yield f"component {name!r} has an executor {label!r}, which is no container"
    for dag, name, task, _ in pipeline.tasks():
        if (reference := task.get("componentRef", {}).get("name")) not in pipeline.components:
            yield f"task {name!r} in {dag.name!r} is of the component {reference!r}, which is not there"


def kfp_loads_the_pipeline(pipeline: Pipeline) -> Iterator[str]:
    """kfp takes a component that is called like the pipeline for the whole. Source: ``ComponentSpec.from_ir_dicts``."""
    if (name := f"comp-{pipeline.spec['pipelineInfo']['name']}") in pipeline.components:
        yield f"{name} is called like the pipeline"


def no_two_components_share_a_container(pipeline: Pipeline) -> Iterator[str]:
    """The description of a component is kept under the hash of its container, so that of two with one container one
    gets the other's ports. Source: v2/compiler/argocompiler/argo.go, ``hashComponentContainer``."""
    seen: dict[str, tuple[str, str]] = {}
    for name, component in pipeline.components.items():
        if container := pipeline.container_of(component):
            ports = json.dumps([component.get(part, {}) for part in ("inputDefinitions", "outputDefinitions")])
            other = seen.setdefault(json.dumps(container, sort_keys=True), (name, ports))
            if other[1] != ports:
                yield f"components {other[0]!r} and {name!r} have one container and different ports"


def containers_can_start(pipeline: Pipeline) -> Iterator[str]:
    """Each has an image and a command, of text, and no word that Linux does not take. Source: execve(2)."""
    for label, executor in pipeline.executors.items():
        if container := executor.get("container"):
            if not container.get("image"):
                yield f"{label!r} has no image"
            for word in (*container.get("command", ()), *container.get("args", ())):
                if not isinstance(word, str) or len(word.encode()) >= ARGUMENT or "\0" in word:
                    yield f"{label!r} is started with a word that Linux does not take, of {len(str(word))} characters"


def placeholders_lead_to_ports(pipeline: Pipeline) -> Iterator[str]:
    """Source: v2/component/launcher_v2.go, ``getPlaceholders``."""
    for name, component in pipeline.components.items():
        for word in words(pipeline.container_of(component)):
            for side, kind, port in PLACEHOLDER.findall(word):
                if port not in component.get(f"{side[:-1]}Definitions", {}).get(kind, {}):
                    yield f"component {name!r} is started with {side}.{kind}[{port!r}], which it does not have"


# Tasks, as Argo validates them.


def argo_takes_the_names(pipeline: Pipeline) -> Iterator[str]:
    """Source: Argo, validate/validate.go, ``isValidWorkflowFieldName`` and ``validateDAG`` (no digit first where tasks
    depend on one another); expr-lang, parser/lexer/state.go, for words that ``X.Succeeded`` must not begin with. The
    template of a loop has both of its names (tried on KFP 2.17: 50 characters of ours run, 51 do not)."""
    for dag, name, task, _ in pipeline.tasks():
        if "parameterIterator" in task and len(f"{task['componentRef']['name']}-{name}-iterator") > 128:
            yield f"the loop {name!r} in {dag.name!r} has too long a name"
        if not re.fullmatch(r"[a-zA-Z][-a-zA-Z0-9]*", name) or len(f"{name}-iterations") > 128:
            yield f"a task in {dag.name!r} is called {name!r}"
        if name in WORDS:
            yield f"a task in {dag.name!r} is called {name!r}, a word of Argo's expressions"
    for name in pipeline.components:
        if not re.fullmatch(r"[a-z0-9][-a-z0-9]*", name) or len(name) > 128 - len("-driver"):
            yield f"a component is called {name!r}"


def argo_tells_the_nodes_apart(pipeline: Pipeline) -> Iterator[str]:
    """Each task has a driver beside it, and KFP has templates of its own. Source: v2/compiler/argocompiler/dag.go,
    container.go; Argo, validate/validate.go, ``validateDAG``, for names that are not unique."""
    for dag in pipeline.dags:
        nodes: Counter[str] = Counter()
        for name, task in dag.tasks.items():
            nodes.update([f"{name}-driver", f"{name}-iterations" if "parameterIterator" in task else name])
        yield from (f"two nodes in {dag.name!r} are called {name!r}" for name, times in nodes.items() if times > 1)
    own = re.compile(r"entrypoint|system-.*|(retry|metadata|workspace)-.*")
    yield from (f"a component is called {name!r}, as a template of KFP's" for name in pipeline.components
                if own.fullmatch(name))  # fmt: skip


def argo_finds_no_variable(pipeline: Pipeline) -> Iterator[str]:
    """A task stands in a template of Argo's as JSON: ``{{inputs.x}}`` in it is refused, ``{{workflow.name}}`` replaced
    and ``{{=1+1}}`` computed. Source: Argo, validate/validate.go, ``resolveAllVariables``; util/template/."""
    for dag, name, task, _ in pipeline.tasks():
        if tag := ARGO_TAG.search(json.dumps(task, ensure_ascii=False)):
            yield f"task {name!r} in {dag.name!r} holds {tag[0]!r}, which Argo takes for a variable"


def kubernetes_finds_no_variable(pipeline: Pipeline) -> Iterator[str]:
    """Constants and defaults are among the arguments of a pod, too. Source: KFP, issue 10370."""
    for component in pipeline.components.values():
        for word in words(pipeline.container_of(component)):
            if (found := expanded(word, Everything())) != word:
                yield f"a pod is started with {word[:80]!r}, which becomes {found[:80]!r}"
    for dag, name, task, _ in pipeline.tasks():
        text = json.dumps(task.get("inputs", {}), ensure_ascii=False)
        if expanded(text, Everything()) != text:
            yield f"an input of task {name!r} in {dag.name!r} changes where a pod gets it: {text[:80]}"
    defaults = json.dumps(pipeline.spec["root"].get("inputDefinitions", {}), ensure_ascii=False)
    if expanded(defaults, Everything()) != defaults:
        yield f"a default changes where a pod gets it: {defaults[:80]}"


class Everything(dict[str, str]):
    """The variables of a container that has every one."""

    def __missing__(self, name: str) -> str:
        return f"the value of {name}"


def the_workflow_fits_into_etcd(pipeline: Pipeline) -> Iterator[str]:
    """The least that it can have. Source: Argo, packer/packer.go, ``MaxWorkflowSize``."""
    tasks = sum(len(json.dumps(task)) + ARGO_TASK for _, _, task, _ in pipeline.tasks())
    parts = (*pipeline.components.values(), *pipeline.executors.values(), *pipeline.kubernetes.values())
    if (total := tasks + sum(len(json.dumps(part)) for part in parts)) > WORKFLOW:
        yield f"the workflow has at least {total} bytes"


def a_driver_can_start(pipeline: Pipeline) -> Iterator[str]:
    """It gets its component, task and container as arguments; from Argo 3.7.10 on, which KFP 2.17 ships, by a file.
    Source: v2/compiler/argocompiler/container.go, dag.go; Argo issue 15471."""
    parts = {**pipeline.components, **pipeline.executors, **{name: task for _, name, task, _ in pipeline.tasks()}}
    for name, part in parts.items():
        if (size := len(json.dumps(part).encode())) >= ARGUMENT:
            yield f"the driver gets {name!r} in an argument of {size} bytes"


def a_launcher_can_start(pipeline: Pipeline) -> Iterator[str]:
    """It gets all ports of its task in an argument, at least 700 bytes for each artifact; and hands them on where the
    container asks for ``{{$}}``. Source: v2/compiler/argocompiler/container.go, ``--executor_input``."""
    for name, component in pipeline.components.items():
        if "executorLabel" in component:
            ports = [len(component.get(part, {}).get("artifacts", {}))
                     for part in ("inputDefinitions", "outputDefinitions")]  # fmt: skip
            if (size := sum(ports) * EXECUTOR_INPUT) >= ARGUMENT:
                yield f"component {name!r} is described in an argument of at least {size} bytes"


# Tasks, as KFP's driver resolves them.


def dependencies_are_there(pipeline: Pipeline) -> Iterator[str]:
    """Once each, and in no circle. Source: v2/compiler/argocompiler/dag.go, ``depends``; Argo, validate/validate.go."""
    for dag in pipeline.dags:
        for name, task in dag.tasks.items():
            wanted = task.get("dependentTasks", ())
            yield from (f"task {name!r} in {dag.name!r} waits for {other!r}, which is not there" for other in wanted
                        if other not in dag.tasks)  # fmt: skip
            if len(set(wanted)) < len(wanted) or name in dag.before(name):
                yield f"task {name!r} in {dag.name!r} waits for one task twice, or for itself"


def inputs_are_those_of_the_component(pipeline: Pipeline) -> Iterator[str]:
    """Each that is given is one that the component takes, and each that it needs is given.

    Source: v2/driver/resolve.go, ``resolveInputs``."""
    for dag, name, task, component in pipeline.tasks():
        iterator = task.get("parameterIterator", {}).get("itemInput")
        for kind in ("parameters", "artifacts"):
            taken = component.get("inputDefinitions", {}).get(kind, {})
            given = {*task.get("inputs", {}).get(kind, {}), *([iterator] if kind == "parameters" and iterator else [])}
            for port in given - taken.keys():
                yield f"task {name!r} in {dag.name!r} is given {port!r} of {kind}, which it does not take"
            for port in taken.keys() - given:
                if not taken[port].get("isOptional") and "defaultValue" not in taken[port]:
                    yield f"task {name!r} in {dag.name!r} is not given {port!r} of {kind}"


def inputs_come_from_somewhere(pipeline: Pipeline) -> Iterator[str]:
    """From an input of the DAG, or from an output of a task that has ended. Source: v2/driver/resolve.go,
    ``resolveInputParameter`` and ``resolveInputArtifact``."""
    for dag, name, task, _ in pipeline.tasks():
        where = f"of task {name!r} in {dag.name!r}"
        for kind in ("parameters", "artifacts"):
            for port, source in task.get("inputs", {}).get(kind, {}).items():
                yield from (f"{port!r} {where} {what}" for what in source_faults(pipeline, dag, name, kind, source))


def inputs_have_the_type_of_their_source(pipeline: Pipeline) -> Iterator[str]:
    """Source: v2/driver/resolve.go, ``resolveInputParameter``, which turns no type into another but constants."""
    for dag, name, task, component in pipeline.tasks():
        for port, source in task.get("inputs", {}).get("parameters", {}).items():
            wanted = component.get("inputDefinitions", {}).get("parameters", {}).get(port, {}).get("parameterType")
            found = type_of(pipeline, dag, source)
            if found not in (None, wanted):
                yield f"{port!r} of task {name!r} in {dag.name!r} is of type {wanted} and gets {found}"
            constant = source.get("runtimeValue", {}).get("constant")
            if "runtimeValue" in source and wanted in FITS and not FITS[wanted](constant):
                yield f"{port!r} of task {name!r} in {dag.name!r} is of type {wanted} and gets {constant!r:.60}"


def artifacts_have_the_type_of_their_source(pipeline: Pipeline) -> Iterator[str]:
    """A ``system.Artifact`` takes each. Source: KFP's SDK, dsl/types/type_utils.py, when it compiles."""
    for dag, name, task, component in pipeline.tasks():
        for port, source in task.get("inputs", {}).get("artifacts", {}).items():
            wanted = component.get("inputDefinitions", {}).get("artifacts", {}).get(port, {})
            given = artifact_of(pipeline, dag, source)
            titles = [item.get("artifactType", {}).get("schemaTitle") for item in (wanted, given)]
            if titles[0] != titles[1] and "system.Artifact" not in titles and None not in titles:
                yield f"{port!r} of task {name!r} in {dag.name!r} is a {titles[0]} and gets a {titles[1]}"


def exit_handlers_can_run(pipeline: Pipeline) -> Iterator[str]:
    """As containers, after other tasks. Source: v2/compiler/argocompiler/dag.go, ``task``."""
    for dag, name, task, component in pipeline.tasks():
        if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
            if "executorLabel" not in component or not task.get("dependentTasks"):
                yield f"task {name!r} in {dag.name!r} runs after failures: as a container, after other tasks"
            for port, source in task.get("inputs", {}).get("parameters", {}).items():
                if "taskOutputParameter" in source:
                    yield f"{port!r} of task {name!r} in {dag.name!r} is of a task that may have failed"


def iterations_have_items(pipeline: Pipeline) -> Iterator[str]:
    """Source: v2/driver/driver.go, ``iterationItems``; v2/compiler/argocompiler/dag.go, ``DAG``."""
    for dag, name, task, component in pipeline.tasks():
        if iterator := task.get("parameterIterator"):
            items = iterator.get("items", {})
            if (port := items.get("inputParameter")) and port not in task.get("inputs", {}).get("parameters", {}):
                yield f"task {name!r} in {dag.name!r} iterates over {port!r}, which it is not given"
            if "raw" in items and not isinstance(json.loads(items["raw"]), list):
                yield f"task {name!r} in {dag.name!r} iterates over what is not a list"
            if iterator.get("itemInput") not in component.get("inputDefinitions", {}).get("parameters", {}):
                yield f"task {name!r} in {dag.name!r} hands its items to {iterator.get('itemInput')!r}"


def outputs_come_from_somewhere(pipeline: Pipeline) -> Iterator[str]:
    """Each output of a DAG has its definition and a task that gives it. Source: v2/driver/resolve.go,
    ``resolveUpstreamParameters`` and ``resolveUpstreamArtifacts``."""
    for dag in pipeline.dags:
        for kind, selectors in (("parameters", parameter_selectors), ("artifacts", artifact_selectors)):
            given = dag.outputs.get(kind, {})
            defined = dag.component.get("outputDefinitions", {}).get(kind, {})
            for name in given.keys() ^ defined.keys():
                yield f"output {name!r} of {dag.name!r} is defined and not given, or given and not defined"
            for name, output in given.items():
                for task, port in selectors(output):
                    made = pipeline.component_of(dag.tasks.get(task, {})).get("outputDefinitions", {}).get(kind, {})
                    if port not in made:
                        yield f"output {name!r} of {dag.name!r} is {port!r} of {task!r}, which does not give it"
                    elif dag.name in pipeline.iterated:
                        continue  # its outputs are lists
                    elif kind_of(made[port]) != kind_of(defined.get(name, made[port])):
                        yield f"output {name!r} of {dag.name!r} is of another type than {port!r} of {task!r}"


def defaults_are_of_their_type(pipeline: Pipeline) -> Iterator[str]:
    """Source: apiserver/template/v2_template.go, ``validatePipelineJobInputs``."""
    for name, component in pipeline.components.items():
        for side in ("inputDefinitions", "outputDefinitions"):
            for port, about in component.get(side, {}).get("parameters", {}).items():
                kind = about.get("parameterType")
                if kind not in TYPES:
                    yield f"{port!r} of {name!r} has the type {kind!r}"
                elif about.get("defaultValue") is not None and not FITS[kind](about["defaultValue"]):
                    yield f"{port!r} of {name!r} is of type {kind}, and its default is {about['defaultValue']!r:.60}"


# Pods, as Kubernetes validates them.


def pods_are_those_of_executors(pipeline: Pipeline) -> Iterator[str]:
    """Source: v2/compiler/visitor.go, ``dfs``, which looks each up by the label of its executor."""
    yield from (f"the platform has {label!r}, which is not an executor" for label in pipeline.kubernetes
                if label not in pipeline.executors)  # fmt: skip


def volumes_are_distinct(pipeline: Pipeline) -> Iterator[str]:
    """KFP names a volume after its claim, secret or config map, and a pod has each name once, and one volume at a path.
    Source: v2/driver/k8s.go, ``extendPodSpecPatch``; Kubernetes, core/validation, ``ValidateVolumes``."""
    for label, config in pipeline.kubernetes.items():
        mounts = [*mounts_of(config)]
        repeated = [name for name, times in Counter(name for name, _ in mounts).items() if times > 1]
        yield from (f"{label!r} has two volumes {name!r}" for name in repeated)
        paths = Counter(path for _, path in mounts)
        yield from (f"{label!r} has a volume at {path!r}" for path, times in paths.items()
                    if times > 1 or not path.startswith("/") or ":" in path)  # fmt: skip
        yield from (f"{label!r} has a volume {name!r}" for name, _ in mounts
                    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name))  # fmt: skip


def variables_are_set_once(pipeline: Pipeline) -> Iterator[str]:
    """Source: v2/driver/k8s.go, which appends those of secrets and config maps to those of the container."""
    for label, executor in pipeline.executors.items():
        config = pipeline.kubernetes.get(label, {})
        found = [item["name"] for item in executor.get("container", {}).get("env", ())]
        for part in ("secretAsEnv", "configMapAsEnv"):
            found += [pair["envVar"] for item in config.get(part, ()) for pair in item.get("keyToEnv", ())]
        found += [item["name"] for item in config.get("fieldPathAsEnv", ())]
        yield from (f"{label!r} sets {name!r} twice" for name, times in Counter(found).items() if times > 1)


def kubernetes_takes_the_pods(pipeline: Pipeline) -> Iterator[str]:
    """Source: Kubernetes, apimachinery/pkg/util/validation; core/validation, ``ValidateTolerations`` and the like."""
    for label, config in pipeline.kubernetes.items():
        metadata = config.get("podMetadata", {})
        labels = {**metadata.get("labels", {}), **config.get("nodeSelector", {}).get("labels", {})}
        for key, value in labels.items():
            if not LABEL_KEY.fullmatch(key) or not LABEL.fullmatch(value):
                yield f"{label!r} has the label {key!r}: {value!r}"
        yield from (f"{label!r} has the annotation {key!r}" for key in metadata.get("annotations", {})
                    if not LABEL_KEY.fullmatch(key.lower()))  # fmt: skip
        for item in config.get("tolerations", ()):
            operator, effect = item.get("operator", "Equal"), item.get("effect", "")
            seconds = item.get("tolerationSeconds", item.get("toleration_seconds"))
            fits = operator in ("Equal", "Exists") and effect in ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
            fits &= operator == "Exists" or bool(item.get("key"))
            if "tolerationJson" not in item and (
                not fits or (operator == "Exists" and item.get("value")) or (seconds and effect != "NoExecute")
            ):
                yield f"{label!r} has the toleration {item}"
        if config.get("imagePullPolicy", "Always") not in ("Always", "IfNotPresent", "Never"):
            yield f"{label!r} has the pull policy {config['imagePullPolicy']!r}"
        if int(config.get("activeDeadlineSeconds", 1)) < 1:
            yield f"{label!r} may run for {config['activeDeadlineSeconds']} s"


RULES: tuple[Rule, ...] = (
    the_protobufs_take_it, the_api_server_reads_it, components_are_there, kfp_loads_the_pipeline,
    no_two_components_share_a_container, containers_can_start, placeholders_lead_to_ports, argo_takes_the_names,
    argo_tells_the_nodes_apart, argo_finds_no_variable, kubernetes_finds_no_variable, the_workflow_fits_into_etcd,
    a_driver_can_start, a_launcher_can_start, dependencies_are_there, inputs_are_those_of_the_component,
    inputs_come_from_somewhere, inputs_have_the_type_of_their_source, artifacts_have_the_type_of_their_source,
    exit_handlers_can_run, iterations_have_items, outputs_come_from_somewhere, defaults_are_of_their_type,
    pods_are_those_of_executors, volumes_are_distinct, variables_are_set_once, kubernetes_takes_the_pods,
)  # fmt: skip
