"""Plan and bundle to KFP's intermediate representation: pure, the same bytes for the same plan, without kfp.

The code of all steps stands in the file once, in a task of its own that hands it to the others as an artifact. So steps
can have images and resources of their own, and KFP shows the inputs and outputs of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.urls import refuse_credentials
from flowyml.orchestrators.base import of_step
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import FromParameter, FromStep, Plan, Step
from flowyml_kubeflow import executors, names
from flowyml_kubeflow.inline import is_large, with_launcher
from flowyml_kubeflow.options import default_image, pipeline_options, step_options
from flowyml_kubeflow.parameters import argument, described, described_output, kfp_type
from flowyml_kubeflow.retries import is_retried_by_kfp

__all__ = ["Compiled", "compile_pipeline"]

Json = dict[str, Any]

_ARTIFACT = {"artifactType": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}
_TEXT = {"parameterType": "STRING"}
# Where a task finds the code: in the task that gives it, or in the DAG around it.
_CODE: Json = {"taskOutputArtifact": {"producerTask": names.BUNDLE_TASK, "outputArtifactKey": names.BUNDLE}}
_INNER_CODE: Json = {"componentInputArtifact": names.BUNDLE}
# What a hook gets for its run: the display name of the run, which KFP leaves empty in those of a recurring run, and the
# name of its workflow, which such a run has for a display name. Source: KFP, template/v2_template.go.
_RUN_NAMES: Json = {
    names.RUN: {"runtimeValue": {"constant": "{{$.pipeline_job_name}}"}},
    names.JOB: {"runtimeValue": {"constant": "{{$.pipeline_job_resource_name}}"}},
}
# The time on the schedule of a recurring run, that of its creation for any other. An older KFP leaves the text as it
# is. Source: KFP, driver/executorplugin.
_RUN_TIME: Json = {"runtimeValue": {"constant": "{{$.pipeline_job_schedule_time_utc}}"}}
# KFP describes all inputs and outputs of a task in one argument of its container, of 128 KiB at most (execve(2),
# MAX_ARG_STRLEN). The bytes are those of a RuntimeArtifact in its JSON form with KFP's default MinIO.
_ARGUMENT = 131_071
_ARTIFACT_BYTES = 780
_OUTPUT_BYTES = 860  # with the file of the parameter that shows it
# Argo ends all retries that long after the first attempt began, and KFP tries nothing again where it is left out.
# Source: Argo, operator.go, ``processNodeRetries``; KFP, argocompiler/container.go. It is what 32 bits hold.
_FOR_EVER = "2147483647s"


@dataclass(frozen=True)
class Compiled:
    """A pipeline as KFP takes it: the PipelineSpec, and what Kubernetes is asked for beside it."""

    spec: Json
    platform: Json
    bundle: Bundle
    bundle_url: str | None = None

    @property
    def documents(self) -> list[Json]:
        """The documents of the file."""
        return [self.spec, self.platform] if self.platform else [self.spec]


def compile_pipeline(
    bundle: Bundle, *, form: str | None = None, store: str | None = None, artifacts: str | None = None
) -> Compiled:
    """The pipeline of a bundle for KFP.

    ``form`` of the components is ``container`` or ``python``; by default what the pipeline's options say. ``store`` is
    the URL of a folder where workers find the bundle; without it the bundle stands in the file while it is small, and
    else in ``artifacts``, a store that workers can reach, if it is one.
    """
    return _Compiler(bundle, form, store, artifacts).compile()


@dataclass
class _Dag:
    """A DAG under construction, and the ports that it needs of the one around it."""

    tasks: Json = field(default_factory=dict)
    outputs: Json = field(default_factory=dict)
    definitions: Json = field(default_factory=dict)


class _Compiler:
    def __init__(self, bundle: Bundle, form: str | None, store: str | None, artifacts: str | None) -> None:
        self.plan: Plan = bundle.plan
        self.options = {"image": default_image(bundle), **pipeline_options(self.plan)}
        self.form = form or self.options.get("form", "container")
        self.bundle = with_launcher(bundle)
        store = store or self.options.get("bundle_store")
        if store is None and artifacts and _is_remote(artifacts) and is_large(self.bundle):
            store = f"{artifacts.rstrip('/')}/bundles"
        self.url = (
            f"{refuse_credentials(store, 'the store of the code').rstrip('/')}/{self.bundle.filename}"
            if store
            else None
        )
        self.parameters = {item.name: item for item in self.plan.parameters}
        self.components: Json = {}
        self.executors: Json = {}
        self.kubernetes: Json = {}
        self._shared: dict[object, str] = {}

    def compile(self) -> Compiled:
        root = self._with_hooks() if self.plan.hooks else self._steps(_CODE, [names.BUNDLE_TASK])
        root.tasks = {names.BUNDLE_TASK: self._bundle_task(), **root.tasks}
        spec: Json = {
            "pipelineInfo": {"name": names.pipeline(self.plan.name), **self._description()},
            "root": self._root(root),
            "components": self.components,
            "deploymentSpec": {"executors": self.executors},
            "schemaVersion": "2.1.0",
            "sdkVersion": "kfp-2.13.0",
        }
        platform: Json = {}
        if self.kubernetes:
            platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": self.kubernetes}}}}
        return Compiled(spec, platform, self.bundle, self.url)

    def _description(self) -> Json:
        lines = [self.plan.description] if self.plan.description else []
        if names.pipeline(self.plan.name) != self.plan.name:
            lines.insert(0, self.plan.name)
        # No reader of YAML takes half of a surrogate pair, and there is no meaning in one.
        return {"description": "\n".join(lines).encode("utf-8", "replace").decode()} if lines else {}

    def _root(self, dag: _Dag) -> Json:
        root: Json = {"dag": {"tasks": dag.tasks}}
        if self.parameters:
            root["inputDefinitions"] = {"parameters": {names.port(name): self._input(name) for name in self.parameters}}
        if dag.outputs:
            root["dag"]["outputs"] = dag.outputs
            root["outputDefinitions"] = dag.definitions
        return root

    def _input(self, name: str) -> Json:
        parameter = self.parameters[name]
        if parameter.required:
            return {"parameterType": kfp_type(parameter), **described(parameter)}
        default = argument(parameter.default, parameter)
        return {
            "parameterType": kfp_type(parameter),
            "defaultValue": default,
            "isOptional": True,
            **described(parameter),
        }

    # FlowyML's own tasks.

    def _bundle_task(self) -> Json:
        options = step_options(self.options, None)
        container = executors.bundle_container(self.bundle, self.url, self.form, options)
        config = executors.kubernetes(None, options)
        self._component(names.BUNDLE_TASK, {}, {"artifacts": {names.BUNDLE: _ARTIFACT}}, container, config)
        return {
            "componentRef": {"name": f"comp-{names.BUNDLE_TASK}"},
            "cachingOptions": {"enableCache": self.options.get("cache", True)},
            "taskInfo": {"name": "the code of all steps"},
        }

    def _with_hooks(self) -> _Dag:
        """The start before all steps, and an exit handler around them, since only it runs after a failure.

        KFP hangs an exit handler on every task that it depends on, and gives it the status of the first of them. So it
        depends on the steps alone, and what else it takes comes into the DAG around both from without. Source:
        argocompiler/dag.go, driver/resolve.go.
        """
        steps = self._steps(_INNER_CODE, [])
        if any("cachingOptions" in task for task in steps.tasks.values()):
            steps.tasks[names.LAST_TASK] = self._last_task(steps)
        ports = {**self._ports(self.parameters), **dict.fromkeys(_RUN_NAMES, _TEXT)}
        given: Json = {port: {"componentInputParameter": port} for port in ports}
        around = _Dag(definitions=steps.definitions, outputs=_passed_on(steps.outputs, names.STEPS_TASK))
        around.tasks = {
            names.STEPS_TASK: self._dag_task(names.STEPS_TASK, "steps", steps, ports, given, _INNER_CODE),
            names.END_TASK: self._end_task(),
        }
        root = _Dag(definitions=steps.definitions, outputs=_passed_on(steps.outputs, names.RUN_TASK))
        given = {**given, **_RUN_NAMES}
        started = {names.STARTED: _output_of(names.START_TASK, names.STARTED)}
        root.tasks = {
            names.START_TASK: {
                **self._hook_task(
                    "start", names.START_TASK, ports, given, _CODE, {"parameters": {names.STARTED: _TEXT}}
                ),
                "dependentTasks": [names.BUNDLE_TASK],
            },
            names.RUN_TASK: {
                **self._dag_task(
                    names.RUN_TASK, "run", around, {**ports, names.STARTED: _TEXT}, {**given, **started}, _CODE
                ),
                "dependentTasks": [names.BUNDLE_TASK, names.START_TASK],
            },
        }
        return root

    def _dag_task(self, task: str, shown: str, dag: _Dag, ports: Json, given: Json, code: Json) -> Json:
        """A DAG as a task of the one around it."""
        self.components[f"comp-{task}"] = {
            "dag": {"tasks": dag.tasks, **({"outputs": dag.outputs} if dag.outputs else {})},
            "inputDefinitions": {"parameters": ports, "artifacts": {names.BUNDLE: _ARTIFACT}},
            **({"outputDefinitions": dag.definitions} if dag.outputs else {}),
        }
        return {
            "componentRef": {"name": f"comp-{task}"},
            "inputs": {"parameters": given, "artifacts": {names.BUNDLE: code}},
            "taskInfo": {"name": shown},
        }

    def _end_task(self) -> Json:
        ports = {
            **dict.fromkeys(_RUN_NAMES, _TEXT),
            names.STARTED: _TEXT,
            names.STATUS: {"parameterType": "TASK_FINAL_STATUS", "isOptional": True},
        }
        given = {
            **{port: {"componentInputParameter": port} for port in _RUN_NAMES},
            names.STARTED: {"componentInputParameter": names.STARTED},
            names.STATUS: {"taskFinalStatus": {"producerTask": names.STEPS_TASK}},
        }
        return {
            **self._hook_task("end", names.END_TASK, ports, given, _INNER_CODE, {}),
            "dependentTasks": [names.STEPS_TASK],
            "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
        }

    def _hook_task(self, kind: str, task: str, ports: Json, given: Json, code: Json, outputs: Json) -> Json:
        options = step_options(self.options, None)
        container = executors.container(kind, f"comp-{task}", self.form, options, None)
        inputs = {"parameters": ports, "artifacts": {names.BUNDLE: _ARTIFACT}}
        self._component(task, inputs, outputs, container, executors.kubernetes(None, options))
        return {
            "componentRef": {"name": f"comp-{task}"},
            "inputs": {"parameters": given, "artifacts": {names.BUNDLE: code}},
            "taskInfo": {"name": f"hooks: {kind}"},
        }

    def _last_task(self, steps: _Dag) -> Json:
        """A task that does nothing, in a pod, after all steps: only a pod has KFP count the tasks of its DAG that are
        done, so that a DAG whose last step came from the cache stays RUNNING, and that is what an exit handler
        gets. Source: KFP, component/launcher_v2.go."""
        followed = {name for task in steps.tasks.values() for name in task.get("dependentTasks", ())}
        last = self._hook_task("last", names.LAST_TASK, {}, {}, _INNER_CODE, {})
        ends = [name for name in steps.tasks if name not in followed]
        return {**last, "dependentTasks": ends, "taskInfo": {"name": "the end of the steps"}}

    # The steps.

    def _steps(self, code: Json, first: list[str]) -> _Dag:
        """One task for each step. ``code`` is where its code comes from, ``first`` the task that has to give it."""
        tasks: Json = {}
        for step in self.plan:
            with of_step(step.name):
                tasks[names.task(step.name)] = self._task(step, code, first)
        dag = _Dag(tasks)
        for name, source in self.plan.step_outputs:
            _add_output(dag, names.port(name), names.task(source.step), names.port(source.output))
            dag.definitions["parameters"][names.port(name)].update(described_output(name))
        return dag

    def _task(self, step: Step, code: Json, first: list[str]) -> Json:
        parameters: Json = {names.STEP: {"runtimeValue": {"constant": names.constant(step.name)}}}
        artifacts: Json = {names.BUNDLE: code}
        for item in step.inputs:
            port, source = names.port(item.name), item.source
            if isinstance(source, FromParameter):
                parameters[port] = {"componentInputParameter": names.port(source.name)}
            elif isinstance(source, FromStep):
                origin = {"producerTask": names.task(source.step), "outputArtifactKey": names.artifact(source.output)}
                artifacts[port] = {"taskOutputArtifact": origin}
        _check_number(step, len(artifacts) - 1)
        upstream = [names.task(name) for name in step.upstream] or first  # what comes before it has waited for the code
        task: Json = {
            "componentRef": {"name": self._step_component(step)},
            **({"dependentTasks": upstream} if upstream else {}),
            "inputs": {"parameters": parameters, "artifacts": artifacts},
            "taskInfo": {"name": names.shown(step.name)},
            **_retries(step),
        }
        if self._caches(step):
            task["cachingOptions"] = {"enableCache": True}
        else:
            parameters[names.TIME] = _RUN_TIME  # another time would be another key of the cache
        return task

    def _caches(self, step: Step) -> bool:
        return bool((self.options.get("cache") or step.options) and step_options(self.options, step).cache)

    def _step_component(self, step: Step) -> str:
        """Steps that differ in nothing but their name share a component."""
        ports = tuple((item.name, type(item.source), getattr(item.source, "name", None)) for item in step.inputs)
        asked = json.dumps(step.options.get("kubeflow", {}), sort_keys=True) if step.options else ""
        key = (ports, step.outputs, step.resources, executors.longest(step), asked)
        if key not in self._shared:
            self._shared[key] = self._new_component(step)
        return self._shared[key]

    def _new_component(self, step: Step) -> str:
        options, task = step_options(self.options, step), names.task(step.name)
        wanted = {item.name: item.source.name for item in step.inputs if isinstance(item.source, FromParameter)}
        parameters = {names.port(name): {"parameterType": kfp_type(self.parameters[p])} for name, p in wanted.items()}
        artifacts = [names.port(item.name) for item in step.inputs if isinstance(item.source, FromStep)]
        inputs = {
            "parameters": {names.STEP: _TEXT, **parameters, **({} if self._caches(step) else {names.TIME: _TEXT})},
            "artifacts": dict.fromkeys([names.BUNDLE, *artifacts], _ARTIFACT),
        }
        outputs: Json = {}
        if step.outputs:
            outputs["parameters"] = {names.port(name): _TEXT for name in step.outputs}
            outputs["artifacts"] = {names.artifact(name): _ARTIFACT for name in step.outputs}
        if task == names.pipeline(self.plan.name):  # kfp's loader would take this component for the whole pipeline
            task = f"{task}--step"
        container = executors.container("step", f"comp-{task}", self.form, options, step.resources)
        self._component(task, inputs, outputs, container, executors.kubernetes(step, options))
        return f"comp-{task}"

    def _component(self, task: str, inputs: Json, outputs: Json, container: Json, config: Json) -> None:
        label = f"exec-{task}"
        self.components[f"comp-{task}"] = {
            "executorLabel": label,
            **({"inputDefinitions": inputs} if inputs else {}),
            **({"outputDefinitions": outputs} if outputs else {}),
        }
        self.executors[label] = {"container": container}
        if config:
            self.kubernetes[label] = config

    def _ports(self, parameters: Iterable[str]) -> Json:
        return {names.port(name): {"parameterType": kfp_type(self.parameters[name])} for name in parameters}


def _is_remote(url: str) -> bool:
    return "://" in url and not url.startswith(("file://", "local://", "memory://"))


def _retries(step: Step) -> Json:
    """KFP's own retries, where it can keep the policy."""
    policy = step.retry
    if policy is None or not is_retried_by_kfp(step):
        return {}
    return {
        "retryPolicy": {
            "maxRetryCount": policy.max_attempts - 1,
            "backoffDuration": _duration(policy.initial_delay_seconds),
            "backoffFactor": float(policy.backoff_multiplier),
            "backoffMaxDuration": _FOR_EVER,
        }
    }


def _check_number(step: Step, taken: int) -> None:
    """The code of the steps is one more artifact than those taken."""
    if (taken + 1) * _ARTIFACT_BYTES + len(step.outputs) * _OUTPUT_BYTES > _ARGUMENT:
        raise UnsupportedFeatureError(
            f"step {step.name!r} takes {taken} values of other steps and gives {len(step.outputs)}; KFP describes all "
            f"of them in one argument, which Linux limits to 128 KiB: about {_ARGUMENT // _OUTPUT_BYTES} together. "
            f"Join them in groups, by steps between."
        )


def _duration(seconds: float) -> str:
    """As protobuf writes it, without exponents.

    >>> _duration(1_000_000), _duration(0.5), _duration(1e-05)
    ('1000000s', '0.5s', '0.00001s')
    """
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _output_of(task: str, port: str) -> Json:
    return {"taskOutputParameter": {"producerTask": task, "outputParameterKey": port}}


def _add_output(dag: _Dag, name: str, producer: str, port: str) -> None:
    """An output of the pipeline: the parameter that shows it, and the artifact that holds it."""
    parameter = {"valueFromParameter": {"producerSubtask": producer, "outputParameterKey": port}}
    artifact = {"artifactSelectors": [{"producerSubtask": producer, "outputArtifactKey": f"{port}__data"}]}
    dag.outputs.setdefault("parameters", {})[name] = parameter
    dag.outputs.setdefault("artifacts", {})[f"{name}__data"] = artifact
    dag.definitions.setdefault("parameters", {})[name] = {**_TEXT}
    dag.definitions.setdefault("artifacts", {})[f"{name}__data"] = _ARTIFACT


def _passed_on(outputs: Mapping[str, Any], task: str) -> Json:
    """The outputs of an inner DAG as those of the outer one."""
    dag = _Dag()
    for name in outputs.get("parameters", {}):
        _add_output(dag, name, task, name)
    return dag.outputs
