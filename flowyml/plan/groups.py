"""Groups of steps: loops, branches, pipelines within the pipeline, and clean-up.

A plan has its groups beside its steps; each step names the innermost group around it, and each group the group around
it. ``Groups`` answers the questions of adapters about them, so that none has to compute that again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from flowyml.core.resources import ResourceRequirements
from flowyml.plan.conditions import Condition, sources_in
from flowyml.plan.steps import Input, Step
from flowyml.plan.values import FromEither, FromStep, Source, steps_of

__all__ = ["Branch", "Cleanup", "ExecutionGroup", "Group", "Groups", "Loop", "Section", "outputs_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop: its steps run once for each item of the lists in ``over``, which are equally long.

    ``max_parallel`` items run at a time; None leaves that to the engine. With ``on_item_error`` ``"continue"``, a step
    that takes the list of an output gets ``(index, value)`` of each item that succeeded, and a failed item does not
    fail the run; with ``"fail"`` a step that takes the list does not run. The other items run in either case.
    """

    KIND: ClassVar[str] = "loop"

    name: str
    parent: str = ""
    over: tuple[Input, ...]
    max_parallel: int | None = None
    on_item_error: str = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A branch: its steps run if its condition holds, and no earlier branch of the same choice was taken.

    Without a condition, it is taken if no earlier one was. Steps of a branch that is not taken are skipped.
    """

    KIND: ClassVar[str] = "branch"

    name: str
    parent: str = ""
    choice: str
    condition: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A pipeline within a pipeline, which displays its steps together."""

    KIND: ClassVar[str] = "section"

    name: str
    parent: str = ""
    pipeline: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """A clean-up: its steps run when all others have ended, in whatever way, and do not change the run's outcome."""

    KIND: ClassVar[str] = "cleanup"

    name: str
    parent: str = ""


Group = Loop | Branch | Section | Cleanup


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionGroup:
    """An execution group: its ``steps`` run in one task, process or pod, one after the other in the plan's order.

    ``resources`` are the largest of its steps', ``timeout_seconds`` the sum of theirs; None if one of them has no
    timeout. Its steps share their other groups, and no step outside lies on a path between two of them.
    """

    name: str
    steps: tuple[str, ...]
    resources: ResourceRequirements | None = None
    timeout_seconds: float | None = None


class Groups:
    """``Plan.structure``: the groups, from the outermost inwards, with the steps in them.

    A *path* is the names of the groups around a step, the outermost first.
    """

    def __init__(self, groups: Sequence[Group], steps: Sequence[Step]) -> None:
        self.by_name: Mapping[str, Group] = {group.name: group for group in groups}
        self._steps = {step.name: step for step in steps}
        self._paths: dict[str, tuple[str, ...]] = {"": ()}
        for group in groups:  # a group comes after the one around it
            self._paths[group.name] = (*self._paths[group.parent], group.name)
        self._members: dict[str, list[str]] = {}
        for step in steps:
            for name in self._paths[step.group]:
                self._members.setdefault(name, []).append(step.name)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.by_name.values())

    def path(self, group: str) -> tuple[str, ...]:
        """Return the path of ``group``, itself included; empty for the pipeline itself."""
        return self._paths[group]

    def members(self, group: str) -> Sequence[str]:
        """Return all steps in a group, including those of inner groups, in the plan's order."""
        return self._members.get(group, ())

    def loops(self, group: str) -> tuple[Loop, ...]:
        """Return the loops around the content of ``group``, outermost first."""
        groups = (self.by_name[name] for name in self._paths[group])
        return tuple(scope for scope in groups if isinstance(scope, Loop))

    def branches(self, group: str) -> tuple[Branch, ...]:
        """Return the branches around the content of ``group``, outermost first."""
        groups = (self.by_name[name] for name in self._paths[group])
        return tuple(scope for scope in groups if isinstance(scope, Branch))

    def is_cleanup(self, group: str) -> bool:
        """Return whether the content of ``group`` runs at the end."""
        return group != "" and any(isinstance(self.by_name[name], Cleanup) for name in self._paths[group])

    def may_fail(self, group: str) -> bool:
        """Return whether a failure in ``group`` does not fail the run: in an item that may fail, or in the clean-up."""
        return self.is_cleanup(group) or any(loop.on_item_error == "continue" for loop in self.loops(group))

    def between(self, step: str, group: str) -> tuple[Group, ...]:
        """Return the groups around a step that are not around the content of ``group``."""
        return self.beyond(self._steps[step].group, group)

    def beyond(self, inside: str, group: str) -> tuple[Group, ...]:
        """Return the groups around the content of ``inside`` that are not around that of ``group``."""
        if inside == group:  # as of most that a step takes
            return ()
        inner, outer = self._paths[inside], self._paths[group]
        shared = 0
        while shared < min(len(inner), len(outer)) and inner[shared] == outer[shared]:
            shared += 1
        return tuple(self.by_name[name] for name in inner[shared:])

    def loops_between(self, step: str, group: str) -> tuple[Loop, ...]:
        """Return the loops whose items' outputs of a step reach ``group`` as lists, outermost first."""
        return tuple(scope for scope in self.between(step, group) if isinstance(scope, Loop))

    def item_errors(self, source: Source) -> tuple[str, ...]:
        """Return the ``on_item_error`` of each loop over whose items an output of the pipeline is gathered.

        The outermost loop comes first, as ``read_outputs`` takes it.
        """
        loops = self.loops_between(source.step, "") if isinstance(source, FromStep) else ()
        return tuple(loop.on_item_error for loop in loops)

    def exclude(self, group: str, other: str) -> bool:
        """Return whether two groups never both run: they are in different branches of one choice."""
        mine = {branch.choice: branch.name for branch in self.branches(group)}
        return any(mine.get(branch.choice, branch.name) != branch.name for branch in self.branches(other))

    def step(self, name: str) -> Step:
        """Return a step by its name."""
        return self._steps[name]

    @cached_property
    def execution_groups(self) -> Mapping[str, ExecutionGroup]:
        """The execution groups by name."""
        steps_of: dict[str, list[Step]] = {}
        for step in self._steps.values():
            if step.execution_group:
                steps_of.setdefault(step.execution_group, []).append(step)
        return {name: _execution_group(name, steps) for name, steps in steps_of.items()}

    @cached_property
    def choices(self) -> Mapping[str, Sequence[Branch]]:
        """The branches of each choice, in the order in which they are tried."""
        branches_of: dict[str, list[Branch]] = {}
        for group in self.by_name.values():
            if isinstance(group, Branch):
                branches_of.setdefault(group.choice, []).append(group)
        return branches_of

    def sources(self, group: Group) -> Iterator[Source]:
        """Yield the values that a group itself needs: its lists, or those of its condition and of earlier ones."""
        if isinstance(group, Loop):
            yield from (item.source for item in group.over)
        elif isinstance(group, Branch):
            for branch in self.choices[group.choice]:
                yield from sources_in(branch.condition)
                if branch.name == group.name:
                    break

    def values(self, step: Step) -> Iterator[Source]:
        """Yield the values that a step needs, including those of the groups around it."""
        yield from (item.source for item in step.inputs)
        for name in self._paths[step.group]:
            yield from self.sources(self.by_name[name])

    def upstream(self, step: Step) -> tuple[str, ...]:
        """Return all steps that a step waits for, directly or through the groups around it, without duplicates."""
        needed = (name for source in self.values(step) for name in steps_of(source))
        return tuple(dict.fromkeys((*step.upstream, *needed)))

    @cached_property
    def collected(self) -> frozenset[tuple[str, str]]:
        """Pairs of a loop and a step in it for whose outputs, or end, a step outside the loop waits."""
        pairs: set[tuple[str, str]] = set()
        for group, name in self._uses():
            pairs.update((loop.name, name) for loop in self.loops_between(name, group))
        return frozenset(pairs)

    def _uses(self) -> Iterable[tuple[str, str]]:
        """Yield pairs of a group and a step that a step or group in it waits for."""
        for step in self._steps.values():
            yield from ((step.group, name) for name in step.upstream)
        for group in self.by_name.values():
            for source in self.sources(group):
                yield from ((group.parent, name) for name in steps_of(source))


def _execution_group(name: str, steps: Sequence[Step]) -> ExecutionGroup:
    times = [step.timeout_seconds for step in steps if step.timeout_seconds is not None]
    return ExecutionGroup(
        name=name,
        steps=tuple(step.name for step in steps),
        resources=ResourceRequirements.largest(step.resources for step in steps),
        timeout_seconds=sum(times) if len(times) == len(steps) else None,
    )


def outputs_in(sources: Iterable[Source]) -> Iterator[FromStep]:
    """Yield the outputs among values, those of an ``either`` one by one."""
    for source in sources:
        if isinstance(source, FromStep):
            yield source
        elif isinstance(source, FromEither):
            yield from source.outputs
