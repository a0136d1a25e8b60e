"""Compile plan and bundle to KFP's intermediate representation: the same bytes for the same plan, without kfp.

Each container has the code of all steps among its arguments if the code is small, or the URL of the code. Otherwise the
code is in the file once, in a task of its own that passes it to the others as an artifact: Argo keeps each container up
to nine times.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from flowyml.core.urls import refuse_credentials
from flowyml.orchestrators.base import about_step
from flowyml.plan.bundle import Bundle
from flowyml.plan.model import FromParameter, FromStep, Plan, Step
from flowyml_kubeflow import containers, names
from flowyml_kubeflow.control_flow import ControlFlow
from flowyml_kubeflow.graph import PODS, PodGraph, needs_flow
from flowyml_kubeflow.ir import (
    ARTIFACT,
    CODE,
    INNER_CODE,
    RUN_NAMES,
    TEXT,
    Components,
    Dag,
    Json,
    PodTask,
    add_output,
    artifact,
    artifact_of,
    check_number,
    filled,
    from_around,
    output_of,
    passed_on,
    run_values,
    task,
)
from flowyml_kubeflow.names import loop_task
from flowyml_kubeflow.options import default_image, pipeline_options, step_options
from flowyml_kubeflow.parameters import argument, described, kfp_type
from flowyml_kubeflow.pod_bundle import for_pods
from flowyml_kubeflow.sizes import Size, size_of, wraps_nodes
from flowyml_kubeflow.task_files import FACTS_BYTES

__all__ = ["Compiled", "compile_pipeline"]


@dataclass(frozen=True)
class Compiled:
    """A pipeline for KFP: the PipelineSpec, and the configuration for Kubernetes."""

    spec: Json
    platform: Json
    bundle: Bundle
    bundle_url: str | None = None
    pods: int = PODS
    """The largest number of pods of a step in a loop."""

    @property
    def documents(self) -> list[Json]:
        """The documents of the file."""
        return [self.spec, self.platform] if self.platform else [self.spec]

    def size(
        self, release: tuple[int, ...] = (), parameters: Mapping[str, Any] | None = None, *, pods: int = PODS
    ) -> Size:
        """Return the size of its workflow on a release of KFP, empty for an unknown release.

        ``parameters`` are the run's, by their ports; ``pods`` is the limit for each step of a loop. A loop whose number
        of items is in the pipeline may have fewer.
        """
        flow = PodGraph(self.bundle.plan, min(pods, self.pods))
        iterations = {loop_task(loop.name): flow.most_chunks(loop.name) for loop in flow.loops}
        return size_of(
            self.spec, self.platform, wraps=wraps_nodes(release), iterations=iterations, parameters=parameters
        )


def compile_pipeline(
    bundle: Bundle, *, store: str | None = None, artifacts: str | None = None, release: tuple[int, ...] = ()
) -> Compiled:
    """Compile the pipeline of a bundle for KFP.

    ``store`` is the URL of a folder from which workers read the bundle; without it the bundle is in the file: in each
    container if images have FlowyML and the workflow has room for that on a ``release`` of KFP, otherwise in a task of
    its own. If the workflow would then be too large, and workers can reach the store ``artifacts``, the bundle goes
    there. If that is not enough, loops have fewer pods, which leave some room for the parameters of runs. What is shown
    of outputs is shortened to the room that is left.
    """
    compiled, size = _fitting(bundle, store, artifacts, release)
    if size.room_for_facts < FACTS_BYTES:
        containers.limit_facts(compiled.spec, max(0, int(size.room_for_facts)))
    return compiled


def _fitting(
    bundle: Bundle, store: str | None, artifacts: str | None, release: tuple[int, ...]
) -> tuple[Compiled, Size]:  # fmt: skip
    has_flowyml = pipeline_options(bundle.plan).get("runtime") == "image"
    if has_flowyml:
        small = _Compiler(bundle, store, in_each=True).compile()
        if (size := small.size(release)).fits:
            return small, size
    compiled, has_loops = _Compiler(bundle, store).compile(), bool(PodGraph(bundle.plan).loops)
    least = compiled.size(release, pods=1)  # with more pods it takes longer to compute
    size = compiled.size(release) if has_loops and least.fits else least
    if size.fits:
        return compiled, size
    if not compiled.bundle_url and artifacts and _reaches_pods(artifacts):
        return _fitting(bundle, f"{artifacts.rstrip('/')}/bundles", None, release)
    if not has_loops or not least.has_room:
        return compiled, size
    pods_limit = bisect(range(1, PODS), 0, key=lambda pods: not compiled.size(release, pods=pods).has_room)
    for pods in range(pods_limit, 0, -1):  # the number itself, which the pods get, takes some room too
        fewer = _Compiler(bundle, store, pods).compile()
        if (less := fewer.size(release)).has_room:
            return fewer, less
    return compiled, size


class _Compiler:
    def __init__(self, bundle: Bundle, store: str | None, pods: int = PODS, *, in_each: bool = False) -> None:
        self.pods = pods
        self.plan: Plan = bundle.plan
        self.options = {"image": default_image(bundle), **pipeline_options(self.plan)}
        self.bundle = for_pods(bundle, runtime=self.options.get("runtime", "bundle"))
        store = store or self.options.get("bundle_store")
        self.url = (
            f"{refuse_credentials(store, 'the store of the code').rstrip('/')}/{self.bundle.filename}"
            if store
            else None
        )
        code = containers.code_words(self.bundle, self.url, in_each=in_each)
        self.components = Components(self.plan, self.options, code)
        self.parameters = self.components.parameters
        self._shared: dict[str, Json] = {}

    def compile(self) -> Compiled:
        if needs_flow(self.plan):
            root = self._with_flow()
        else:
            root = self._with_hooks() if self.plan.hooks else self._steps(CODE, self.components.first)
        root.tasks = {**(self._code_tasks() if self.components.first else {}), **root.tasks}
        spec: Json = {
            "pipelineInfo": {"name": names.pipeline(self.plan.name), **self._description()},
            "root": self._root(root),
            "components": self.components.components,
            "deploymentSpec": {"executors": self.components.executors},
            "schemaVersion": "2.1.0",
            "sdkVersion": "kfp-2.13.0",
        }
        platform: Json = {}
        if kubernetes := self.components.kubernetes:
            platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": kubernetes}}}}
        return Compiled(spec, platform, self.bundle, self.url, self.pods)

    def _with_flow(self) -> Dag:
        """Compile control flow and groups of steps: the last task calls the hooks at the end, since it knows all ends.

        An exit handler would not: KFP passes it the state of a DAG, and before 2.17 a DAG with a loop in it stays
        RUNNING.
        """
        first = [names.START_TASK] if self.plan.hooks else self.components.first
        dag = ControlFlow(PodGraph(self.plan, self.pods), self.components, first).dag()
        return replace(dag, tasks={names.START_TASK: self._start_task(), **dag.tasks}) if self.plan.hooks else dag

    def _start_task(self) -> Json:
        return self.components.pod(PodTask(
            name=names.START_TASK, title="hooks: start", kind="start", code=CODE, after=self.components.first,
            parameters={**from_around(map(names.port, self.parameters)), **RUN_NAMES},
            outputs={"parameters": {names.STARTED: TEXT}},
        ))  # fmt: skip

    def _description(self) -> Json:
        lines = [self.plan.description] if self.plan.description else []
        if names.pipeline(self.plan.name) != self.plan.name:
            lines.insert(0, self.plan.name)
        # YAML readers refuse half of a surrogate pair, which has no meaning anyway.
        return {"description": "\n".join(lines).encode("utf-8", "replace").decode()} if lines else {}

    def _root(self, dag: Dag) -> Json:
        root: Json = {"dag": {"tasks": dag.tasks}}
        if self.parameters:
            root["inputDefinitions"] = {"parameters": {names.port(name): self._input(name) for name in self.parameters}}
        if dag.outputs:
            root["dag"]["outputs"] = dag.outputs
            root["outputDefinitions"] = dag.definitions
        return root

    def _input(self, name: str) -> Json:
        parameter = self.parameters[name]
        optional = {} if parameter.required else {
            "defaultValue": argument(parameter.default, parameter), "isOptional": True,
        }  # fmt: skip
        return {"parameterType": kfp_type(parameter), **optional, **described(parameter)}

    # FlowyML's own tasks.

    def _code_tasks(self) -> Json:
        """Return the task that provides the code, after those with the parts of code that is too large for one."""
        options = step_options(self.options, None)
        *parts, whole = containers.bundle_containers(self.bundle, options)
        tasks = {
            names.part_task(number): self._code_task(names.part_task(number), f", part {number}", part, {})
            for number, part in enumerate(parts, 1)
        }
        artifacts = {
            names.part(number): artifact_of(part_task, names.BUNDLE) for number, part_task in enumerate(tasks, 1)
        }
        return {**tasks, names.BUNDLE_TASK: self._code_task(names.BUNDLE_TASK, "", whole, artifacts)}

    def _code_task(self, name: str, which: str, container: Json, artifacts: Json) -> Json:
        component = self.components.add(
            name, filled({}, dict.fromkeys(artifacts, ARTIFACT)), {"artifacts": {names.BUNDLE: ARTIFACT}}, container,
            containers.kubernetes(None, step_options(self.options, None)),
        )  # fmt: skip
        before = [source["taskOutputArtifact"]["producerTask"] for source in artifacts.values()]
        # A step in KFP's cache depends on the code, whose artifact must then be the same one.
        caches = self.options.get("cache", True) or any(map(self.components.caches, self.plan))
        return task(
            component, f"the code of all steps{which}", after=before, inputs=filled({}, artifacts), caches=bool(caches)
        )

    def _with_hooks(self) -> Dag:
        """Add the start before all steps, and an exit handler around them, since only that runs after a failure.

        KFP makes an exit handler depend on every task whose values it takes, and passes it the status of the first of
        them. So it depends on the steps alone, and its other inputs are passed from outside into the DAG around both.
        Source: argocompiler/dag.go, driver/resolve.go.
        """
        steps = self._steps(INNER_CODE, [])
        if any("cachingOptions" in item for item in steps.tasks.values()):
            steps.tasks[names.LAST_TASK] = self._last_task(steps)
        ports = self.components.types([*map(names.port, self.parameters), *RUN_NAMES])
        sources = from_around(ports)
        around = Dag(definitions=steps.definitions, outputs=passed_on(steps.outputs, names.STEPS_TASK))
        around.tasks = {
            names.STEPS_TASK: self._dag_task(names.STEPS_TASK, "steps", steps, ports, sources, INNER_CODE, []),
            names.END_TASK: self._end_task(),
        }
        root = Dag(definitions=steps.definitions, outputs=passed_on(steps.outputs, names.RUN_TASK))
        sources = {**sources, **RUN_NAMES, names.STARTED: output_of(names.START_TASK, names.STARTED)}
        before = [*self.components.first, names.START_TASK]
        ports = {**ports, names.STARTED: TEXT}
        root.tasks = {
            names.START_TASK: self._start_task(),
            names.RUN_TASK: self._dag_task(names.RUN_TASK, "run", around, ports, sources, CODE, before),
        }
        return root

    def _dag_task(
        self, name: str, title: str, dag: Dag, ports: Json, sources: Json, code: Json, after: Iterable[str]
    ) -> Json:
        """Return a DAG as a task of the DAG around it."""
        component = self.components.add_dag(name, dag, filled(ports, self.components.taking(ARTIFACT)))
        return task(component, title, after=after, inputs=filled(sources, self.components.taking(code)))

    def _end_task(self) -> Json:
        status = {"taskFinalStatus": {"producerTask": names.STEPS_TASK}}
        end = self.components.pod(PodTask(
            name=names.END_TASK, title="hooks: end", kind="end", code=INNER_CODE, after=[names.STEPS_TASK],
            parameters={**from_around([*RUN_NAMES, names.STARTED]), names.STATUS: status},
            types={names.STATUS: {"parameterType": "TASK_FINAL_STATUS", "isOptional": True}},
        ))  # fmt: skip
        return {**end, "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}}

    def _last_task(self, steps: Dag) -> Json:
        """Return a task without work, in a pod, after all steps.

        Only a pod has KFP count the completed tasks of its DAG. Without it, a DAG whose last step came from the cache
        stays RUNNING, which is then the exit handler's input. Source: KFP, component/launcher_v2.go.
        """
        followed = {name for item in steps.tasks.values() for name in item.get("dependentTasks", ())}
        ends = [name for name in steps.tasks if name not in followed]
        return self.components.pod(PodTask(
            name=names.LAST_TASK, title="the end of the steps", kind="last", code=INNER_CODE, after=ends
        ))  # fmt: skip

    # The steps.

    def _steps(self, code: Json, first: list[str]) -> Dag:
        """Return one task for each step. ``code`` is the source of its code, ``first`` the task that provides it."""
        tasks: Json = {}
        for step in self.plan:
            with about_step(step.name):
                tasks[names.task(step.name)] = self._task(step, code, first)
        dag = Dag(tasks)
        for name, source in self.plan.step_outputs:
            add_output(dag, name, names.task(source.step), names.port(source.output), self._kind(source))
        return dag

    def _task(self, step: Step, code: Json, first: list[str]) -> Json:
        parameters: Json = {}
        artifacts: Json = self.components.taking(code)
        types: Json = self.components.taking(ARTIFACT)
        for item in step.inputs:
            port, source = names.port(item.name), item.source
            if isinstance(source, FromParameter):
                parameters[port] = {"componentInputParameter": names.port(source.name)}
            elif isinstance(source, FromStep):
                artifacts[port] = artifact_of(names.task(source.step), names.port(source.output))
                types[port] = artifact(self._kind(source))
        check_number(f"step {step.name!r}", len(artifacts.keys() - {names.BUNDLE}), len(step.outputs))
        caches = self.components.caches(step)
        if not caches:  # other ones would be another key of the cache
            parameters |= run_values(step)
        if self._alike[self._key(step)] > 1:
            parameters[names.STEP] = {"runtimeValue": {"constant": names.constant(step.name)}}
        return task(
            self._step_component(step, parameters, types), names.shown(step.name),
            after=[names.task(name) for name in step.upstream] or first,  # the steps before it have waited for the code
            inputs=filled(parameters, artifacts), caches=caches or None,
        )  # fmt: skip

    def _kind(self, source: FromStep) -> str:
        return self.plan.by_name[source.step].kinds.get(source.output, "")

    @cached_property
    def _alike(self) -> Counter[str]:
        """The number of steps by component. Those that share one, which Argo keeps once, get their name as an input."""
        return Counter(map(self._key, self.plan))

    def _key(self, step: Step) -> str:
        """Return a text that is the same for steps that only differ in their names."""
        sources = [
            (item.name, self._kind(item.source) if isinstance(item.source, FromStep) else item.source)
            for item in step.inputs
        ]
        options = step.options.get("kubeflow", {})
        return repr((
            sources, step.outputs, step.kinds, step.resources, containers.longest(step), options, step.secrets,
            _notes(step), step.caching is None,
        ))  # fmt: skip

    def _step_component(self, step: Step, parameters: Json, artifacts: Json) -> Json:
        key = self._key(step)
        if key in self._shared:
            return self._shared[key]
        options = step_options(self.options, step)
        if _notes(step):
            options = replace(options, env={**options.env, names.NOTES: "1"})
        origins = {port: source.get("componentInputParameter", "") for port, source in parameters.items()}
        types = self.components.types(origins.values())
        ports = {port: types[origin] for port, origin in origins.items()}
        outputs = {names.port(name): artifact(step.kinds.get(name, "")) for name in step.outputs}
        about = {"step": names.constant(step.name)}  # the first one, where several share it
        container = containers.container("step", about, options, step.resources, self.components.code)
        self._shared[key] = self.components.add(
            names.task(step.name), filled(ports, artifacts), {"artifacts": outputs} if outputs else {}, container,
            containers.kubernetes(step, options, containers.longest(step)),
        )  # fmt: skip
        return self._shared[key]


def _reaches_pods(url: str) -> bool:
    """Return whether pods may reach a store: by the URL of a folder that they all mount, but not by a path."""
    return "://" in url and not url.startswith(("local://", "memory://"))


def _notes(step: Step) -> bool:
    """Return whether the pod of a step reports facts that KFP lacks: its attempts, and whose results it has."""
    return bool(step.caching or (step.retry and step.retry.max_attempts > 1))
