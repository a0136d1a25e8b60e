"""The tasks of a pipeline with control flow: see ``graph`` for the mapping to KFP."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.orchestrators.base import about_step
from flowyml.plan.groups import Loop
from flowyml.plan.model import Step
from flowyml.plan.values import FromEither, FromStep
from flowyml_kubeflow import containers, names
from flowyml_kubeflow.graph import MOST_ARTIFACTS, PODS, PodGraph, Unit, chunks
from flowyml_kubeflow.ir import (
    ARTIFACT,
    ARTIFACTS,
    CODE,
    INNER_CODE,
    RUN_NAMES,
    RUN_TIME,
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
    run_values,
    task,
)
from flowyml_kubeflow.options import resources_of_all

__all__ = ["ControlFlow"]


class ControlFlow:
    """Compiles the tasks, all of which wait for those in ``first``."""

    def __init__(self, flow: PodGraph, components: Components, first: list[str]) -> None:
        self.plan = flow.plan
        self.flow = flow
        self.components = components
        self.first = first

    def dag(self) -> Dag:
        """Return all tasks except those of the code and of the hooks at the start."""
        dag = Dag()
        for unit in self.flow.units(self.plan):
            if loop := self.flow.loop_of(unit.group):
                if names.loop_task(loop) not in dag.tasks:
                    self._add_loop(dag, loop)
            else:
                dag.tasks[unit.task] = self._unit(unit, self._outside(self.flow.before(unit)), CODE)
        dag.tasks[names.RESULT_TASK] = self._result(dag)
        return dag

    def _task(self, pod: PodTask) -> Json:
        """Return the task of a pod, which waits for those whose records it takes."""
        sources = (source.get("taskOutputArtifact") for source in pod.records.values())
        before = [source["producerTask"] for source in sources if source]
        return self.components.pod(replace(pod, after=before or (self.first if pod.code is CODE else [])))

    def _parameters(self, steps: Iterable[Step]) -> Json:
        """Return the sources of the run's parameters that a pod of these steps needs, in the DAG around it."""
        return from_around(map(names.port, self.flow.parameters(steps)))

    # Steps.

    def _unit(self, unit: Unit, records: Mapping[str, Json], code: Json) -> Json:
        """Return the task of a unit, outside of loops or within, with the records of other steps that it reads."""
        step, loop = self._asking(unit), self.flow.loop_of(unit.group)
        with about_step(step.name):
            parameters_shown = {port: TEXT for member in unit.steps for port in self._ports_shown(member, unit)}
            check_number(unit.subject, len(records), len(parameters_shown))
            parameters = self._parameters(unit.steps) | (from_around([names.CHUNK]) if loop else {})
            # A step whose failure other pods read must not come from the cache.
            caches = self.components.caches(step) and not self.flow.ends_well(step)
            return self._task(PodTask(
                name=unit.task, kind="turn", title=names.shown(unit.together.name if unit.together else step.name),
                about=self._about(unit), parameters=parameters if caches else parameters | run_values(*unit.steps),
                records=records, code=code, outputs=filled(parameters_shown, {unit.record: ARTIFACT}), step=step,
                seconds=self._seconds(unit), caches=caches,
            ))  # fmt: skip

    def _asking(self, unit: Unit) -> Step:
        """Return the step whose resources and options the pod gets: for several steps, the requests of all."""
        first = unit.steps[0]
        if unit.together is None:
            return first
        options = {name: value for step in unit.steps for name, value in step.options.get("kubeflow", {}).items()}
        resources = resources_of_all(self.components.options, unit.steps)
        return replace(first, resources=resources, options={"kubeflow": options} if options else {})

    @staticmethod
    def _about(unit: Unit) -> Json:
        """Return the argument that names the steps of a pod, for the pod and for readers of the file."""
        if unit.together is None:
            return {"step": names.constant(unit.steps[0].name)}
        return {"steps": {names.task(step.name): names.shown(step.name) for step in unit.steps}}

    @staticmethod
    def _ports_shown(step: Step, unit: Unit) -> list[str]:
        """Return the parameters that show the outputs of a step."""
        return [names.output(step.name, name) if unit.together else names.port(name) for name in step.outputs]

    def _seconds(self, unit: Unit) -> float | None:
        """Return the limit for all of its steps. In a loop it is unknown, since each process has its own timeout."""
        if self.flow.loop_of(unit.group):
            return None
        every = [containers.longest(step) for step in unit.steps]
        limited = [seconds for seconds in every if seconds is not None]
        return sum(limited) if len(limited) == len(every) else None

    def _outside(self, steps: Iterable[Step]) -> dict[str, Json]:
        """Return the sources of steps' records for a task outside of loops: the step, or the end of its loop."""
        records = {}
        for unit in self.flow.units(steps):
            if loop := self.flow.loop_of(unit.group):
                records[names.of_all(loop)] = artifact_of(names.gather_task(loop), names.of_all(loop))
            else:
                records[unit.record] = artifact_of(unit.task, unit.record)
        return records

    # Loops.

    def _add_loop(self, dag: Dag, name: str) -> None:
        loop = self.flow.structure.by_name[name]
        assert isinstance(loop, Loop)
        if self.flow.fixed_items(name) is None:
            dag.tasks[names.items_task(name)] = self._items(name)
        dag.tasks[names.loop_task(name)] = self._loop(loop)
        if used_outside := self.flow.used_outside(name):
            dag.tasks[names.gather_task(name)] = self._together(name, used_outside)

    def _items(self, loop: str) -> Json:
        """Return the task that prepares a loop.

        Its pod reads the loop's lists, and the outside records that its steps use.
        """
        return self._task(PodTask(
            name=names.items_task(loop), kind="items", title=names.shown(f"{loop}: items"),
            about={"loop": names.constant(loop), **({"pods": self.flow.pods} if self.flow.pods < PODS else {})},
            parameters={**self._parameters(self.flow.members(loop)), names.TIME: RUN_TIME},
            records=self._outside(self.flow.from_outside(loop)),
            outputs=filled({names.CHUNKS: TEXT}, {names.of_items(loop): ARTIFACT}), code=CODE,
        ))  # fmt: skip

    def _loop(self, loop: Loop) -> Json:
        """Return the loop itself: KFP runs its DAG once for each chunk of items."""
        is_fixed = self.flow.fixed_items(loop.name) is not None
        inner, port, items_task = Dag(), names.of_items(loop.name), names.items_task(loop.name)
        artifacts = {} if is_fixed else {port: artifact_of(items_task, port)}
        members = self.flow.members(loop.name)
        for unit in self.flow.units(members):
            records = {port: {"componentInputArtifact": port} for port in artifacts}
            for other in self.flow.units(self.flow.beside(unit)):
                records[other.record] = artifact_of(other.task, other.record)
            inner.tasks[unit.task] = self._unit(unit, records, INNER_CODE)
        for unit in self.flow.units(self.flow.used_outside(loop.name)):
            selector = {"producerSubtask": unit.task, "outputArtifactKey": unit.record}
            inner.outputs.setdefault("artifacts", {})[unit.record] = {"artifactSelectors": [selector]}
            inner.definitions.setdefault("artifacts", {})[unit.record] = ARTIFACTS
        parameters = self._parameters(members)
        items: Json = {"inputParameter": names.CHUNKS}
        if artifacts:
            parameters[names.CHUNKS] = output_of(items_task, names.CHUNKS)
        else:
            count = self.flow.fixed_items(loop.name) or 0
            items = {"raw": json.dumps(chunks(count, self.flow.most_chunks(loop.name)))}
        types = {**self.components.types(parameters), names.CHUNK: TEXT}
        taken = {**self.components.taking(ARTIFACT), **dict.fromkeys(artifacts, ARTIFACT)}
        component = self.components.add_dag(names.loop_task(loop.name), inner, filled(types, taken))
        return {
            **task(
                component, names.shown(loop.name), after=[items_task] if artifacts else self.first,
                inputs=filled(parameters, {**self.components.taking(CODE), **artifacts}),
            ),
            "parameterIterator": {"itemInput": names.CHUNK, "items": items},
            **({"iteratorPolicy": {"parallelismLimit": loop.max_parallel}} if loop.max_parallel else {}),
        }  # fmt: skip

    def _together(self, loop: str, used_outside: Iterable[Step]) -> Json:
        """Return the task that joins the records of a loop's pods, so that other tasks take one artifact."""
        units = self.flow.units(used_outside)
        records = {unit.record: artifact_of(names.loop_task(loop), unit.record) for unit in units}
        if len(records) > MOST_ARTIFACTS:
            raise UnsupportedFeatureError(
                f"Loop {loop!r} has {len(records)} steps whose outputs are used outside the loop or by no step. KFP "
                f"describes their outputs, for all pods, in one command-line argument, which Linux limits to 128 KiB: "
                f"about {MOST_ARTIFACTS} steps. Split the loop."
            )
        return self._task(PodTask(
            name=names.gather_task(loop), kind="together", title=names.shown(f"{loop}: all items"),
            about={"loop": names.constant(loop)}, records=records, takes_lists=True,
            outputs={"artifacts": {names.of_all(loop): ARTIFACT}}, code=CODE,
        ))  # fmt: skip

    # The end.

    def _result(self, dag: Dag) -> Json:
        """Return the last task: it returns the outputs, calls the hooks and fails the run if a step failed."""
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
            add_output(dag, output.name, names.RESULT_TASK, names.port(output.name), kind)
        result = self._task(PodTask(
            name=names.RESULT_TASK, kind="result", title="the end of the run", parameters=parameters, records=records,
            outputs=outputs, code=CODE,
        ))  # fmt: skip
        if self.plan.hooks:
            result["dependentTasks"] = list(dict.fromkeys((*result["dependentTasks"], names.START_TASK)))
        return result

    def _kind(self, source: FromStep | FromEither) -> str:
        """Return the kind of an output, if all outputs that it may be have the same; a loop's list has none."""
        outputs = source.outputs if isinstance(source, FromEither) else (source,)
        steps = [(self.plan.by_name[part.step], part.output) for part in outputs]
        kinds = {"" if self.flow.loop_of(step.group) else step.kinds.get(output, "") for step, output in steps}
        return kinds.pop() if len(kinds) == 1 else ""
