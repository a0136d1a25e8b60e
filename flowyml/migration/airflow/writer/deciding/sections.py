"""Choose the task groups that become pipelines within the pipeline, with their inputs and outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowyml.migration.airflow.model import DagModel, GroupModel, TaskModel
from flowyml.migration.airflow.writer.deciding.blocks import Chain, sorted_units
from flowyml.migration.airflow.writer.deciding.choices import Unclear
from flowyml.migration.airflow.writer.deciding.decision import Decision


@dataclass(slots=True, eq=False)
class Nested:
    """A task group that is a pipeline within the pipeline.

    ``order`` has its calls. ``needs`` are the tasks outside of it whose outputs it takes, ``gives`` those in it whose
    outputs are used outside; ``names`` are the dates and parameters that it takes, ``items`` the arguments of a mapped
    task group. ``over`` is the list of a mapped task group.
    """

    group: GroupModel
    label: str
    order: list[Unit]
    needs: list[str] = field(default_factory=list)
    gives: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    over: Any = None


Unit = TaskModel | Chain | Nested


def nested(dag: DagModel, order: Sequence[Unit], decisions: Sequence[Decision]) -> tuple[list[Unit], Mapping[str, str]]:
    """Return the calls of a DAG with its task groups as pipelines, and why some groups are none.

    ``order`` has the tasks, and the branches around some. The name of a decision becomes its name in its group.
    """
    nesting = _Nesting(dag, {each.task.task_id: each for each in decisions})
    found = nesting.level(order, None)
    for group in dag.groups:
        if group.group_id not in nesting.made:
            nesting.apart.setdefault(group.group_id, "the group around it stays without one")
    choosers = Counter(_choosers(found))
    for each in groups_in(found):
        each.gives = nesting.outputs_used(each, choosers)
    return found, nesting.apart


def tasks_in(units: Iterable[Unit]) -> Iterator[TaskModel]:
    """Yield the tasks of some units, in the order of their calls in the text."""
    for unit in units:
        if isinstance(unit, TaskModel):
            yield unit
        elif isinstance(unit, Nested):
            yield from tasks_in(unit.order)
        else:
            for inner in unit.blocks.values():
                yield from tasks_in(inner)


def groups_in(units: Iterable[Unit]) -> Iterator[Nested]:
    """Yield the groups among some units, and within them: each after the groups that it calls."""
    for unit in units:
        if isinstance(unit, Nested):
            yield from groups_in(unit.order)
            yield unit
        elif isinstance(unit, Chain):
            for inner in unit.blocks.values():
                yield from groups_in(inner)


class _Nesting:
    def __init__(self, dag: DagModel, decisions: Mapping[str, Decision]) -> None:
        self.dag = dag
        self.decisions = decisions
        self.apart: dict[str, str] = {}
        self.made: set[str] = set()
        by_id = {each.group_id: each for each in dag.groups}
        self.around: dict[str, str | None] = {}  # without groups that leave no mark on the ids of their tasks
        for group in dag.groups:
            parent = group.parent
            while parent is not None and not by_id[parent].prefix_group_id:
                parent = by_id[parent].parent
            self.around[group.group_id] = parent
        for group in dag.groups:
            if not group.prefix_group_id:
                self.apart[group.group_id] = "its tasks do not have its name before theirs"
        self.members: dict[str, list[str]] = {each.group_id: [] for each in dag.groups}
        for task in dag.tasks:
            group_id: str | None = task.group
            while group_id is not None:
                self.members[group_id].append(task.task_id)
                group_id = by_id[group_id].parent

        self.takers: dict[str, set[str]] = {}
        for name, decision in decisions.items():
            for edge in (*decision.edges, *decision.sources):
                self.takers.setdefault(edge.task_id, set()).add(name)

    def level(self, order: Sequence[Unit], around: str | None) -> list[Unit]:
        """Sort some units, each after those that it waits for, with the groups directly within a group."""
        units: list[Unit] = list(order)
        waits = self._waits(units)
        own = {unit: {task.task_id for task in tasks_in([unit])} for unit in units}
        here = {name for names in own.values() for name in names}
        for group in self.dag.groups:
            if self.around[group.group_id] != around or group.group_id in self.apart or group.group_id in self.made:
                continue
            members = set(self.members[group.group_id])
            if members.isdisjoint(here):
                if not members:
                    self.apart[group.group_id] = "it has no tasks"
                continue
            try:
                units, waits = self._contracted(units, waits, own, group, members)
            except Unclear as error:
                self.apart[group.group_id] = str(error)
        found: list[Unit] = []
        for unit in units:
            if isinstance(unit, Nested):
                found.append(self._finished(unit))
            elif isinstance(unit, Chain):
                found.append(Chain({block: self.level(inner, around) for block, inner in unit.blocks.items()}))
            else:
                found.append(unit)
        return found

    def _contracted(
        self, units: list[Unit], waits: Mapping[Unit, set[Unit]], own: dict[Unit, set[str]], group: GroupModel,
        members: set[str],
    ) -> tuple[list[Unit], Mapping[Unit, set[Unit]]]:  # fmt: skip
        """Replace the units of a group by one, which waits for what they wait for. Raises ``Unclear``.

        A DAG may have thousands of groups, so this asks each unit for no more than a set.
        """
        inside: list[Unit] = []
        for unit in units:
            if own[unit] <= members:
                inside.append(unit)
            elif not own[unit].isdisjoint(members):  # if all are in one branch, the group is in it, too
                if not isinstance(unit, Chain) or not any(
                    members <= {task.task_id for task in tasks_in(inner)} for inner in unit.blocks.values()
                ):
                    raise Unclear("a branch has tasks of it and others")
                return units, waits
        self._check(group, members)
        around = self.around[group.group_id]
        made = Nested(group, group.group_id.removeprefix(f"{around}.") if around else group.group_id, inside)
        gone = set(inside)
        remaining: list[Unit] = [
            made if unit is inside[0] else unit for unit in units if unit is inside[0] or unit not in gone
        ]
        of_left = {
            unit: needed if needed.isdisjoint(gone) else needed - gone | {made}
            for unit, needed in waits.items()
            if unit not in gone
        }
        of_left[made] = set().union(*(waits[unit] for unit in inside)) - gone
        found = sorted_units(remaining, of_left)
        if found is None:
            raise Unclear("tasks outside it are between its tasks")
        own[made] = set().union(*(own[unit] for unit in inside))
        return found, of_left

    def _check(self, group: GroupModel, members: set[str]) -> None:
        prefix = f"{group.group_id}."
        if group.mapping is not None and any(self.decisions[name].loop is None for name in members):
            raise Unclear("it is mapped in a way that for_each has no words for")
        if any(not name.startswith(prefix) or name == prefix for name in members) or "{" in prefix:
            raise Unclear("its tasks do not have its name before theirs")
        ids = set(self.decisions)
        for name in members:
            for before in self.decisions[name].task.upstream:
                if f"{prefix}{before}" in ids:
                    raise Unclear(f"it has a task named as {before} is, which {name} waits for")

    def _waits(self, units: Sequence[Unit]) -> Mapping[Unit, set[Unit]]:
        of: dict[str, Unit] = {task.task_id: unit for unit in units for task in tasks_in([unit])}
        waits: dict[Unit, set[Unit]] = {}
        for unit in units:
            names = {name for task in tasks_in([unit]) for name in task.upstream}
            names |= set(_choosers([unit]))
            waits[unit] = {of[name] for name in names if name in of and of[name] is not unit}
        return waits

    def _finished(self, made: Nested) -> Nested:
        self.made.add(made.group.group_id)
        plain = [unit for unit in made.order if not isinstance(unit, Nested)]
        made.order = self.level(plain, made.group.group_id)
        inside = {task.task_id: self.decisions[task.task_id] for task in tasks_in(made.order)}
        for decision in inside.values():
            decision.within = f"{made.group.group_id}." if not decision.within else decision.within
        name = made.group.group_id
        loops = [each.loop for each in inside.values() if each.loop]
        made.over = next((loop.over for loop in loops if loop.group == name), None)
        made.items = list(dict.fromkeys(loop.name for loop in loops if loop.group == name))
        if made.over is None:
            used = (each.items for each in inside.values() if each.loop and each.loop.around(name))
            made.items = list(dict.fromkeys(item for items in used for item in items))
        takes = [edge.task_id for each in inside.values() for edge in each.edges] + list(_choosers(made.order))
        apart = (each for each in inside.values() if each.loop and not each.loop.around(name))
        takes += [edge.task_id for each in apart for edge in each.sources]
        made.needs = [name for name in dict.fromkeys(takes) if name not in inside and name in self.decisions]
        askings = [each.asking for each in inside.values() if each.asking]
        made.names = list(dict.fromkeys(name for asking in askings for name in (*asking.dates, *asking.parameters)))
        return made

    def outputs_used(self, made: Nested, choosers: Counter[str]) -> list[str]:
        """Return the tasks of a group whose outputs are used outside of it. ``choosers`` are those of the whole DAG."""
        order = list(tasks_in(made.order))
        inside = {task.task_id for task in order}
        within = Counter(_choosers(made.order))
        return [
            task.task_id
            for task in order
            if not self.takers.get(task.task_id, inside) <= inside or choosers[task.task_id] > within[task.task_id]
        ]


def _choosers(units: Iterable[Unit]) -> Iterator[str]:
    """Yield the tasks whose choices the branches of some units evaluate."""
    for unit in units:
        if isinstance(unit, Nested):
            yield from _choosers(unit.order)
        elif isinstance(unit, Chain):
            for block, inner in unit.blocks.items():
                yield block.by
                yield from _choosers(inner)
