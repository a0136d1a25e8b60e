"""Prepare a plan for drawing: sub-pipelines become single nodes, unless they are expanded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush

from flowyml.graph.execution_groups import with_execution_groups
from flowyml.plan.conditions import with_sources
from flowyml.plan.groups import Branch, Group, Groups, Loop, Section
from flowyml.plan.model import FromEither, FromStep, Input, Plan, Source, Step

__all__ = ["PlanToDraw", "plan_to_draw"]


@dataclass(frozen=True, slots=True)
class PlanToDraw:
    """A plan to draw. ``closed`` has the names of the steps within each step that is a sub-pipeline."""

    plan: Plan
    closed: Mapping[str, Sequence[str]]


def plan_to_draw(plan: Plan, *, expand: bool = False) -> PlanToDraw:
    """Return the plan with each outermost sub-pipeline as one step, and a group around each execution group.

    Sub-pipelines stay open with ``expand``, and if one of them waits for a step that waits for the same sub-pipeline.
    """
    within = {} if expand else {step.name: name for step in plan if (name := _outermost(plan.structure, step))}
    picture = (_Closing(plan, within).closed_plan() if within else None) or PlanToDraw(plan, {})
    return replace(picture, plan=with_execution_groups(picture.plan))


def _outermost(structure: Groups, step: Step) -> str:
    return next((name for name in structure.path(step.group) if isinstance(structure.by_name[name], Section)), "")


class _Closing:
    def __init__(self, plan: Plan, within: Mapping[str, str]) -> None:
        taken = {step.name for step in plan if step.name not in within}
        names = {section: f"{section} (pipeline)" if section in taken else section for section in within.values()}
        self.plan = plan
        self.sections = {name: section for section, name in names.items()}
        self.node = {step.name: names.get(within.get(step.name, ""), step.name) for step in plan}

    def closed_plan(self) -> PlanToDraw | None:
        names = dict.fromkeys(self.node[step.name] for step in self.plan)
        steps = {name: self._closed(name) if name in self.sections else self._renamed(self.plan.by_name[name])
                 for name in names}  # fmt: skip
        groups = [self._group(group) for group in self.plan.groups if not self._is_inside(group)]
        structure = Groups(groups, list(steps.values()))
        order = _in_order({name: structure.upstream(steps[name]) for name in steps})
        if order is None:
            return None
        plan = replace(self.plan, steps=tuple(steps[name] for name in order), groups=tuple(groups), outputs=())
        members = {name: tuple(self.plan.structure.members(section)) for name, section in self.sections.items()}
        return PlanToDraw(plan, members)

    def _closed(self, name: str) -> Step:
        """Return one step for a sub-pipeline; its inputs are those that its steps and groups take from outside."""
        structure, section = self.plan.structure, self.plan.structure.by_name[self.sections[name]]
        members = [self.plan.by_name[member] for member in structure.members(section.name)]
        inside = [group for group in self.plan.groups if section.name in structure.path(group.name)]
        sources = [item.source for step in members for item in step.inputs]
        sources += [source for group in inside for source in structure.sources(group)]
        taken = dict.fromkeys(self._source(source) for source in sources if self._is_outside(source, name))
        after = dict.fromkeys(self.node[upstream] for step in members for upstream in step.after)
        return Step(
            name=name, function="",
            inputs=tuple(Input(f"input {number}", source) for number, source in enumerate(taken)),
            outputs=tuple(dict.fromkeys(self._given(name))),
            after=tuple(upstream for upstream in after if upstream != name),
            description=section.description if isinstance(section, Section) else "",
            group=section.parent,
        )  # fmt: skip

    def _given(self, name: str) -> Iterator[str]:
        """Yield the outputs of a sub-pipeline's steps that are used outside of it or are outputs of the pipeline."""
        for step in self.plan:
            if self.node[step.name] != name:
                yield from self._from(name, [item.source for item in step.inputs])
        yield from self._from(name, [output.source for output in self.plan.outputs])

    def _from(self, name: str, sources: Sequence[Source]) -> Iterator[str]:
        for source in sources:
            outputs = source.outputs if isinstance(source, FromEither) else (source,)
            yield from (each.output for each in outputs if isinstance(each, FromStep) and self.node[each.step] == name)

    def _is_outside(self, source: Source, name: str) -> bool:
        origin = self._source(source)
        outputs = origin.outputs if isinstance(origin, FromEither) else (origin,)
        return any(isinstance(output, FromStep) and output.step != name for output in outputs)

    def _is_inside(self, group: Group) -> bool:
        return any(section in self.plan.structure.path(group.name) for section in self.sections.values())

    def _renamed(self, step: Step) -> Step:
        after = dict.fromkeys(self.node[name] for name in step.after)
        return replace(step, inputs=self._inputs(step.inputs), after=tuple(after))

    def _group(self, group: Group) -> Group:
        if isinstance(group, Loop):
            return replace(group, over=self._inputs(group.over))
        if isinstance(group, Branch) and group.condition is not None:
            return replace(group, condition=with_sources(group.condition, self._source))
        return group

    def _inputs(self, inputs: Sequence[Input]) -> tuple[Input, ...]:
        return tuple(replace(item, source=self._source(item.source)) for item in inputs)

    def _source(self, source: Source) -> Source:
        if isinstance(source, FromStep):
            return replace(source, step=self.node[source.step])
        if isinstance(source, FromEither):
            return FromEither(tuple(replace(output, step=self.node[output.step]) for output in source.outputs))
        return source


def _in_order(before: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Return a topological order, as close as possible to the given one; None if there is a cycle."""
    sorter, order = TopologicalSorter(before), list[str]()
    positions = {name: position for position, name in enumerate(before)}
    try:
        sorter.prepare()
    except CycleError:
        return None
    ready: list[tuple[int, str]] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, (positions[name], name))
        order.append(heappop(ready)[1])
        sorter.done(order[-1])
    return order
