"""The tasks of a pipeline with control flow: see ``flow`` for the mapping to KFP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.orchestrators.base import of_step
from flowyml.plan.groups import Loop
from flowyml.plan.model import Parameter, Step
from flowyml.plan.values import FromEither, FromStep
from flowyml_kubeflow import executors, flow_names, names
from flowyml_kubeflow.graph import MOST_ARTIFACTS, PODS, PodGraph, Unit, chunks
from flowyml_kubeflow.ir import (
    ARTIFACT,
    CODE,
    INNER_CODE,
    RUN_NAMES,
    RUN_TIME,
    TEXT,
    Dag,
    Json,
    add_output,
    artifact,
    check_number,
    output_of,
    run_values,
)
from flowyml_kubeflow.options import StepOptions, step_options
from flowyml_kubeflow.parameters import kfp_type

__all__ = ["FlowTasks"]

_LIST = {**ARTIFACT, "isArtifactList": True}
MakeComponent = Callable[[str, Json, Json, Json, Json], Json]


class FlowTasks:
    """Compiles the tasks.

    ``code`` are the arguments of each container about the code. ``component`` adds a task's component, with its
    container, to the pipeline and returns the reference to it; ``components`` are all of them; all tasks wait for those
    in ``first``.
    """

    def __init__(
        self, flow: PodGraph, options: Mapping[str, Any], code: Sequence[str], component: MakeComponent,
        components: Json, first: list[str],
    ) -> None:  # fmt: skip
        self.plan = flow.plan
        self.flow = flow
        self.options = options
        self.code = code
        self.component = component
        self.components = components
        self.first = first
        self.given: Mapping[str, Parameter] = {item.name: item for item in flow.plan.parameters}

    def dag(self) -> Dag:
        """Return all tasks except those of the code and of the hooks at the start."""
        dag = Dag()
        for unit in self.flow.units(self.plan):
            if loop := self.flow.loop_of(unit.group):
                if flow_names.loop_task(loop) not in dag.tasks:
                    self._add_loop(dag, loop)
            else:
                dag.tasks[unit.task] = self._unit(unit, self._outside(self.flow.before(unit)), CODE)
        dag.tasks[flow_names.RESULT_TASK] = self._result(dag)
        return dag

    # Steps.

    def _unit(self, unit: Unit, records: Mapping[str, Json], code: Json) -> Json:
        """Return the task of a unit, outside of loops or within, with the records of other steps that it reads."""
        step = self._asking(unit)
        with of_step(step.name):
            given = {name: each for one in unit.steps for name, each in self._shown(one, unit).items()}
            check_number(unit.who, len(records), len(given))
            options = step_options(self.options, step)
            parameters: Json = {}
            for name in self.flow.parameters(unit.steps):
                parameters[names.port(name)] = {"componentInputParameter": names.port(name)}
            if self.flow.loop_of(unit.group):
                parameters[flow_names.CHUNK] = {"componentInputParameter": flow_names.CHUNK}
            caches = self._caches(step, options)
            if not caches:
                parameters |= run_values(*unit.steps)
            made = self._task(
                unit.task, "turn", self._about(unit), names.shown(unit.together.name if unit.together else step.name),
                parameters, records, code, {"parameters": given, "artifacts": {unit.record: ARTIFACT}}, options, step,
                self._seconds(unit),
            )  # fmt: skip
            return {**made, **({"cachingOptions": {"enableCache": True}} if caches else {})}

    @staticmethod
    def _asking(unit: Unit) -> Step:
        """Return the step whose resources and options the pod gets: for several steps, the requests of all."""
        first = unit.steps[0]
        if unit.together is None:
            return first
        options = {name: value for step in unit.steps for name, value in step.options.get("kubeflow", {}).items()}
        return replace(first, resources=unit.together.resources, options={"kubeflow": options} if options else {})

    @staticmethod
    def _about(unit: Unit) -> Json:
        """Return the argument that tells a pod, and readers of the file, which steps it runs."""
        if unit.together is None:
            return {"step": names.constant(unit.steps[0].name)}
        return {"steps": {names.task(step.name): names.shown(step.name) for step in unit.steps}}

    @staticmethod
    def _shown(step: Step, unit: Unit) -> Json:
        """Return the parameters that show the outputs of a step."""
        is_alone = unit.together is None
        return {names.port(name) if is_alone else flow_names.output(step.name, name): TEXT for name in step.outputs}

    def _seconds(self, unit: Unit) -> float | None:
        """Return the limit for all of its steps. In a loop it is unknown, since each process has its own timeout."""
        if self.flow.loop_of(unit.group):
            return None
        every = [executors.longest(step) for step in unit.steps]
        limited = [seconds for seconds in every if seconds is not None]
        return sum(limited) if len(limited) == len(every) else None

    def _caches(self, step: Step, options: StepOptions) -> bool:
        """Return whether KFP may cache a task: not if a failed step would then come from the cache."""
        return bool((self.options.get("cache") or step.options) and options.cache) and not self.flow.ends_well(step)

    def _task(
        self, task: str, kind: str, about: Json, shown: str, parameters: Json, records: Mapping[str, Json], code: Json,
        outputs: Json, options: StepOptions, step: Step | None = None, seconds: float | None = None, *,
        lists: bool = False,
    ) -> Json:  # fmt: skip
        """Return a task and its component. ``records`` has the source of each record, by its port."""
        ports = {port: self._port(port) for port in parameters}
        record = _LIST if lists else ARTIFACT
        inputs = {"parameters": ports, "artifacts": {**self._taking(ARTIFACT), **dict.fromkeys(records, record)}}
        container = executors.container(kind, about, options, step.resources if step else None, self.code)
        config = executors.kubernetes(step, options, seconds)
        component = self.component(task, _filled(inputs), _filled(outputs), container, config)
        made = (source.get("taskOutputArtifact") for source in records.values())
        depends = [source["producerTask"] for source in made if source]
        if not depends and code is CODE:
            depends = self.first
        taken = _filled({"parameters": parameters, "artifacts": {**self._taking(code), **records}})
        return {
            "componentRef": component,
            **({"dependentTasks": list(dict.fromkeys(depends))} if depends else {}),
            **({"inputs": taken} if taken else {}),
            "taskInfo": {"name": shown},
        }

    def _taking(self, code: Json) -> Json:
        """Return the artifact with the code, for a task that takes it from another."""
        return {names.BUNDLE: code} if executors.is_artifact(self.code) else {}

    def _port(self, port: str) -> Json:
        by_port = {names.port(name): parameter for name, parameter in self.given.items()}
        return {"parameterType": kfp_type(by_port[port])} if port in by_port else {**TEXT}

    def _outside(self, steps: Iterable[Step]) -> dict[str, Json]:
        """Return the sources of steps' records for a task outside of loops: the step, or the end of its loop."""
        records = {}
        for unit in self.flow.units(steps):
            if loop := self.flow.loop_of(unit.group):
                records[flow_names.of_all(loop)] = _artifact(flow_names.together_task(loop), flow_names.of_all(loop))
            else:
                records[unit.record] = _artifact(unit.task, unit.record)
        return records

    # Loops.

    def _add_loop(self, dag: Dag, name: str) -> None:
        loop = self.flow.structure.by_name[name]
        assert isinstance(loop, Loop)
        if self.flow.fixed_items(name) is None:
            dag.tasks[flow_names.items_task(name)] = self._items(name)
        dag.tasks[flow_names.loop_task(name)] = self._loop(loop)
        if given_on := self.flow.given_on(name):
            dag.tasks[flow_names.together_task(name)] = self._together(name, given_on)

    def _items(self, loop: str) -> Json:
        """Return the task that prepares a loop.

        Its pod reads the loop's lists, and the outside records that its steps use.
        """
        of_all = self.flow.parameters(self.flow.members(loop))
        parameters: Json = {names.port(name): {"componentInputParameter": names.port(name)} for name in of_all}
        parameters[names.TIME] = RUN_TIME
        about = {"loop": names.constant(loop), **({"pods": self.flow.pods} if self.flow.pods < PODS else {})}
        outputs = {"parameters": {flow_names.CHUNKS: TEXT}, "artifacts": {flow_names.of_items(loop): ARTIFACT}}
        return self._task(
            flow_names.items_task(loop), "items", about, names.shown(f"{loop}: items"), parameters,
            self._outside(self.flow.from_outside(loop)), CODE, outputs, step_options(self.options, None),
        )  # fmt: skip

    def _loop(self, loop: Loop) -> Json:
        """Return the loop itself: KFP runs its DAG once for each chunk of items."""
        inner, given = Dag(), self._items_given(loop.name)
        parameters: Json = {}
        members = self.flow.members(loop.name)
        for unit in self.flow.units(members):
            records = {port: {"componentInputArtifact": port} for port in given}
            for each in self.flow.units(self.flow.beside(unit)):
                records[each.record] = _artifact(each.task, each.record)
            inner.tasks[unit.task] = self._unit(unit, records, INNER_CODE)
        for name in self.flow.parameters(members):
            parameters[names.port(name)] = {"componentInputParameter": names.port(name)}
        items: Json = {"inputParameter": flow_names.CHUNKS}
        if given:
            parameters[flow_names.CHUNKS] = output_of(flow_names.items_task(loop.name), flow_names.CHUNKS)
        else:
            count = self.flow.fixed_items(loop.name) or 0
            items = {"raw": json.dumps(chunks(count, self.flow.most_chunks(loop.name)))}
        task = flow_names.loop_task(loop.name)
        self._add_dag(task, inner, parameters, given, self.flow.given_on(loop.name))
        before = [flow_names.items_task(loop.name)] if given else self.first
        taken = _filled({"parameters": parameters, "artifacts": {**self._taking(CODE), **given}})
        return {
            "componentRef": {"name": f"comp-{task}"},
            **({"dependentTasks": before} if before else {}),
            **({"inputs": taken} if taken else {}),
            "parameterIterator": {"itemInput": flow_names.CHUNK, "items": items},
            **({"iteratorPolicy": {"parallelismLimit": loop.max_parallel}} if loop.max_parallel else {}),
            "taskInfo": {"name": names.shown(loop.name)},
        }

    def _items_given(self, loop: str) -> dict[str, Json]:
        """Return the artifact of a loop's items, and its source; empty if the pipeline has the items."""
        port = flow_names.of_items(loop)
        is_fixed = self.flow.fixed_items(loop) is not None
        return {} if is_fixed else {port: _artifact(flow_names.items_task(loop), port)}

    def _add_dag(
        self, task: str, dag: Dag, parameters: Iterable[str], artifacts: Iterable[str], given_on: Iterable[Step]
    ) -> None:  # fmt: skip
        """Add the component of a loop, whose outputs are the records of some of its steps."""
        outputs = {}
        for unit in self.flow.units(given_on):
            selector = {"producerSubtask": unit.task, "outputArtifactKey": unit.record}
            outputs[unit.record] = {"artifactSelectors": [selector]}
        self.components[f"comp-{task}"] = {
            "dag": {"tasks": dag.tasks, "outputs": {"artifacts": outputs}},
            "inputDefinitions": _filled(
                {
                    "parameters": {**{port: self._port(port) for port in parameters}, flow_names.CHUNK: TEXT},
                    "artifacts": {**self._taking(ARTIFACT), **dict.fromkeys(artifacts, ARTIFACT)},
                }
            ),
            "outputDefinitions": {"artifacts": dict.fromkeys(outputs, _LIST)},
        }

    def _together(self, loop: str, given_on: Iterable[Step]) -> Json:
        """Return the task that joins the records of a loop's pods, so that other tasks take one artifact."""
        records = {
            unit.record: _artifact(flow_names.loop_task(loop), unit.record) for unit in self.flow.units(given_on)
        }  # fmt: skip
        if len(records) > MOST_ARTIFACTS:
            raise UnsupportedFeatureError(
                f"Loop {loop!r} has {len(records)} steps whose outputs are used outside the loop or by no step. KFP "
                f"describes their outputs, for all pods, in one command-line argument, which Linux limits to 128 KiB: "
                f"about {MOST_ARTIFACTS} steps. Split the loop."
            )
        outputs = {"artifacts": {flow_names.of_all(loop): ARTIFACT}}
        return self._task(
            flow_names.together_task(loop), "together", {"loop": names.constant(loop)},
            names.shown(f"{loop}: all items"), {}, records, CODE, outputs, step_options(self.options, None), lists=True,
        )  # fmt: skip

    # The end.

    def _result(self, dag: Dag) -> Json:
        """The last task: it returns the outputs of the pipeline, calls its hooks and fails the run if a step failed."""
        steps, loops = self.flow.at_the_end()
        members = [self.plan.by_name[self.flow.structure.members(loop.name)[0]] for loop in loops]
        records = self._outside([*steps, *members])
        parameters: Json = {names.TIME: RUN_TIME}
        if self.plan.hooks:
            parameters |= {**RUN_NAMES, names.STARTED: output_of(names.START_TASK, names.STARTED)}
        outputs: Json = {"artifacts": {}}
        for output in self.plan.outputs:
            kind = self._kind(output.source)
            outputs["artifacts"][names.port(output.name)] = artifact(kind)
            add_output(dag, output.name, flow_names.RESULT_TASK, names.port(output.name), kind)
        task = self._task(
            flow_names.RESULT_TASK, "result", {}, "the end of the run", parameters, records, CODE, outputs,
            step_options(self.options, None),
        )  # fmt: skip
        if self.plan.hooks:
            task["dependentTasks"] = list(dict.fromkeys((*task["dependentTasks"], names.START_TASK)))
        return task

    def _kind(self, source: FromStep | FromEither) -> str:
        """Return the kind of an output, if all outputs that it may be have the same; a loop's list has none."""
        outputs = source.outputs if isinstance(source, FromEither) else (source,)
        steps = [(self.plan.by_name[each.step], each.output) for each in outputs]
        kinds = {"" if self.flow.loop_of(step.group) else step.kinds.get(output, "") for step, output in steps}
        return kinds.pop() if len(kinds) == 1 else ""


def _filled(parts: Json) -> Json:
    return {name: part for name, part in parts.items() if part}


def _artifact(task: str, port: str) -> Json:
    return {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": port}}
