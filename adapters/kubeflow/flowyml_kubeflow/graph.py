"""Map a plan's loops, branches and rules to KFP: the pods, and the inputs of each.

Each step is a container, which decides by its inputs whether the step runs; the steps of an execution group are one
container. An outermost loop is three tasks: one pod prepares the items unless they are constants, KFP's loop has a pod
of each step for each *chunk* of items, and one pod joins their results. Inner loops run inside of those pods. This file
travels in the bundle of a pipeline that has control flow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from flowyml.plan.groups import ExecutionGroup, Loop
from flowyml.plan.model import FromParameter, Plan, Step
from flowyml.plan.values import Constant, steps_of
from flowyml_kubeflow import names

__all__ = ["MOST_ARTIFACTS", "PODS", "PodGraph", "Unit", "chunks", "needs_flow"]

PODS = 50
"""The largest number of pods of a step in a loop, each with a chunk of the items; fewer if the workflow has no room."""
# KFP describes the artifact of each pod of a loop to the task that joins them, in a template that has room for 110 (see
# ``sizes``); and all pods of a loop are some 12 nodes each.
MOST_ARTIFACTS, _NODES = 100, 200


def needs_flow(plan: Plan) -> bool:
    """Return whether a plan needs more than one task for each step."""
    return plan.has_control_flow or any(len(group.steps) > 1 for group in plan.structure.execution_groups.values())


@dataclass(frozen=True)
class Unit:
    """The steps of one task: a step, or those of an execution group, one after the other in the plan's order."""

    steps: tuple[Step, ...]
    together: ExecutionGroup | None = None

    @property
    def group(self) -> str:
        """The innermost loop, branch or pipeline around it."""
        return self.steps[0].group

    @property
    def subject(self) -> str:
        """Its name in messages."""
        return f"execution_group={self.together.name!r}" if self.together else f"step {self.steps[0].name!r}"

    @property
    def task(self) -> str:
        return names.group_task(self.together.name) if self.together else names.task(self.steps[0].name)

    @property
    def record(self) -> str:
        """The artifact with the ends of its steps."""
        return names.of_group(self.together.name) if self.together else names.record(self.steps[0].name)


class PodGraph:
    """A plan with control flow, as tasks of KFP."""

    def __init__(self, plan: Plan, pods: int = PODS) -> None:
        """Plan at most ``pods`` pods for each step of a loop."""
        self.plan = plan
        self.pods = pods
        self.structure = plan.structure
        self._loop_of: dict[str, str] = {}

    @cached_property
    def _units(self) -> dict[str, Unit]:
        """The unit of each step."""
        units = {step.name: Unit((step,)) for step in self.plan}
        for group in self.structure.execution_groups.values():
            if len(group.steps) > 1:
                units.update(dict.fromkeys(group.steps, Unit(tuple(map(self.structure.step, group.steps)), group)))
        return units

    def units(self, steps: Iterable[Step]) -> list[Unit]:
        """Return the units of some steps, without duplicates."""
        units = (self._units[step.name] for step in steps)
        return list({unit.task: unit for unit in units}.values())

    @cached_property
    def loops(self) -> Sequence[Loop]:
        """The outermost loops."""
        every = (group for group in self.structure if isinstance(group, Loop))
        return [loop for loop in every if not self.structure.loops(loop.parent)]

    def loop_of(self, group: str) -> str:
        """Return the outermost loop around a group; empty outside of all loops."""
        if group not in self._loop_of:
            around = self.structure.loops(group)
            self._loop_of[group] = around[0].name if around else ""
        return self._loop_of[group]

    def upstream(self, step: Step) -> Iterator[Step]:
        """Yield the steps that a step waits for, including those of its groups.

        A clean-up waits for all other steps.
        """
        yield from (self.plan.by_name[name] for name in self.structure.upstream(step))
        if self.cleans_up(step):
            yield from self._last_before_cleanup

    def cleans_up(self, step: Step) -> bool:
        """Return whether a step belongs to the clean-up, so that its end does not matter to the run."""
        return self.structure.is_cleanup(step.group)

    @cached_property
    def _last_before_cleanup(self) -> list[Step]:
        """The steps for which only the clean-up waits."""
        before = [step for step in self.plan if not self.cleans_up(step)]
        waited_for = {name for step in before for name in self.structure.upstream(step)}
        return [step for step in before if step.name not in waited_for]

    def before(self, unit: Unit) -> list[Step]:
        """Return the steps that any of its steps waits for."""
        others = {other.name: other for step in unit.steps for other in self.upstream(step)}
        return [other for other in others.values() if self._units[other.name] is not unit]

    def beside(self, unit: Unit) -> list[Step]:
        """Return those of them in the same outermost loop, or outside of all loops like it."""
        return [other for other in self.before(unit) if self.loop_of(other.group) == self.loop_of(unit.group)]

    def members(self, loop: str) -> list[Step]:
        """Return the steps of a loop."""
        return [self.plan.by_name[name] for name in self.structure.members(loop)]

    def from_outside(self, loop: str) -> list[Step]:
        """Return the steps outside of an outermost loop whose ends are used in it."""
        others = (other for step in self.members(loop) for other in self.upstream(step))
        return list({other.name: other for other in others if self.loop_of(other.group) != loop}.values())

    def used_outside(self, loop: str) -> list[Step]:
        """Return the steps of a loop whose results are used outside: by other steps, as outputs, or by the run's end.

        The latter are those that no step of the loop waits for.
        """
        return [step for step in self.members(loop) if step.name in self._used_outside]

    @cached_property
    def _used_outside(self) -> frozenset[str]:
        used = {name for output in self.plan.outputs for name in steps_of(output.source)}
        for step in self.plan:
            around = self.loop_of(step.group)
            used.update(other.name for other in self.upstream(step) if self.loop_of(other.group) not in ("", around))
        return frozenset(used.union(step.name for step in self.plan if not self.plan.downstream[step.name]))

    def at_the_end(self) -> tuple[list[Step], list[Loop]]:
        """Return the steps and loops whose ends decide the end of the run."""
        producers = {name for output in self.plan.outputs for name in steps_of(output.source)}
        last = [step for step in self.plan if step.name in producers or not self.plan.downstream[step.name]]
        loops = {self.loop_of(step.group) for step in last}
        return [step for step in last if not self.loop_of(step.group)], [
            loop for loop in self.loops if loop.name in loops
        ]

    def fixed_items(self, loop: str) -> int | None:
        """Return the number of items of a loop, if it is in the pipeline: then no pod has to prepare the loop."""
        group = self.structure.by_name[loop]
        assert isinstance(group, Loop)
        lists = [item.source.value for item in group.over if isinstance(item.source, Constant)]
        alone = not self.from_outside(loop) and not self.structure.branches(group.parent)
        is_fixed = alone and len(lists) == len(group.over)
        counts = {len(items) if isinstance(items, list) else -1 for items in lists}
        return counts.pop() if is_fixed and len(counts) == 1 and min(counts) >= 0 else None

    def parameters(self, steps: Iterable[Step]) -> list[str]:
        """Return the run's parameters that a pod needs, for the inputs of its steps or for the decision to run them."""
        values = (value for step in steps for value in self.structure.values(step))
        return list(dict.fromkeys(value.name for value in values if isinstance(value, FromParameter)))

    def ends_well(self, step: Step) -> bool:
        """Return whether the pod of a step succeeds even if the step fails, so that other pods can read its end.

        KFP starts no task that waits for a failed one, and Argo starts nothing more in that DAG.
        """
        is_alone = self._units[step.name].together is None
        return bool(self.loop_of(step.group)) or not is_alone or self._is_watched

    @cached_property
    def _is_watched(self) -> bool:
        """True if a step or hook runs after failures: a step with a rule of its own, clean-up, the hooks at the end."""
        return bool(self.plan.hooks) or any(step.run_if != "all_success" for step in self.plan)

    def most_chunks(self, loop: str) -> int:
        """Return the largest number of chunks of items of a loop."""
        used_outside, members = len(self.units(self.used_outside(loop))), len(self.units(self.members(loop)))
        return max(1, min(self.pods, MOST_ARTIFACTS // max(1, used_outside), _NODES // max(1, members)))


def chunks(count: int, limit: int) -> list[str]:
    """Return the items of each pod.

    KFP cannot join the results of no pod, so a loop without items has a pod without work.

    >>> chunks(5, 3), chunks(2, 50), chunks(0, 50)
    (['0:2', '2:4', '4:5'], ['0:1', '1:2'], ['0:0'])
    """
    size = -(-count // limit) or 1
    return [f"{first}:{min(first + size, count)}" for first in range(0, count, size)] or ["0:0"]
