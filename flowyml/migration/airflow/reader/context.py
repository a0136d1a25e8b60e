"""The DAGs, groups, setups and teardowns that ``with`` has opened, and the edges that Airflow draws.

The rules are those of ``airflow.sdk``: ``bases/decorator.py`` (repeated ids), ``bases/operator.py`` (``chain`` and the
like), ``definitions/taskgroup.py`` (prefixes, suffixes, edges), ``definitions/_internal/setup_teardown.py``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowyml.migration.airflow.reader.nodes import Dag, Group, Label, Task, XCom
from flowyml.migration.airflow.reader.parts import flat, operators_in
from flowyml.migration.airflow.reader.values import OutOfSteps, Raised, hard

_MOST_MADE = 50_000
"""The largest number of tasks, task groups and DAGs in a file."""
_MOST_IN_DAG = 10_000
"""The largest number of tasks and task groups in a DAG."""
_MOST_GROUPS = 1_000
"""The largest number of task groups in a DAG: the writer sorts its tasks again for each."""
_MOST_EDGES = 100_000


class Context:
    """The DAGs and groups that ``with`` has opened around a statement, setups and teardowns."""

    def __init__(self, charge: Callable[[int], None], light: Callable[[Any], bool]) -> None:
        self.charge = charge
        self._light = light
        self.dags: list[Dag] = []
        self.groups: list[Group] = []
        self.brackets: list[Bracket] = []
        self.uncertain = 0
        self.edges = 0
        self.made = 0
        self.changed = 0
        self.hollow = False

    @property
    def effects(self) -> tuple[int, int, int]:
        """The number of tasks, of edges, and of changes to values that outlive an arm: to compare."""
        return self.made, self.edges, self.changed

    def open(self) -> tuple[tuple[Any, ...], ...]:
        """Return all open DAGs and groups, to compare."""
        return tuple(self.dags), tuple(self.groups), tuple(self.brackets)

    def dag(self) -> Dag | None:
        return self.dags[-1] if self.dags else None

    def group(self, dag: Dag | None) -> Group | None:
        if self.groups:
            return self.groups[-1]
        return dag.root if dag else None

    def count_made(self) -> None:
        """Count a task, group or DAG. Raises ``OutOfSteps`` beyond the limit for one file."""
        self.made += 1
        if self.made > _MOST_MADE:
            raise OutOfSteps(f"{_MOST_MADE:,} tasks, task groups and DAGs")

    def unique(self, label: str, dag: Dag | None, group: Group | None) -> str:
        """Return a TaskFlow task's id, with Airflow's suffix if the id is taken. Source: ``get_unique_task_id``."""
        if dag is None:
            return label
        full = group.child_id(label) if group else label
        if full not in dag.tasks:
            return label
        taken = dag.suffixes.get(re.split(r"__\d+$", full)[0], 0)
        return f"{re.split(r'__[0-9]+$', label)[0]}__{taken + 1}"

    def add(self, task: Task, dag: Dag | None, group: Group | None) -> None:
        """Add a new task to its DAG and group."""
        self.count_made()
        if group is not None and dag is not None and group.dag is not dag:
            group = dag.root
        task.group = group if group is not None else (dag.root if dag else None)
        if dag is not None:
            self.adopt(task, dag)
        elif group is not None:
            group.children[task.task_id] = task
        for bracket in self.brackets[-1:]:
            bracket.add(task)

    def adopt(self, task: Task, dag: Dag) -> None:
        """Add a task without a DAG to one. Raises DuplicateTaskIdFound, as Airflow does, if both are certain."""
        task.dag = dag
        if task.group is None:
            task.group = dag.root
        name = task.task_id
        other = dag.tasks.get(name)
        taken = name in dag.used if other is None else other is not task
        if taken and task.known and not self.uncertain:
            raise Raised("DuplicateTaskIdFound", f"task id {name!r} is used twice in a DAG")
        if other is not None and other is not task:
            self.merge(task, other)
            return
        self._use(name, dag)
        dag.tasks[name] = task
        if suffixed := re.fullmatch(r"(.*)__(\d+)", name, re.DOTALL):
            dag.suffixes[suffixed[1]] = max(int(suffixed[2]), dag.suffixes.get(suffixed[1], 0))
        if task.group is not None:
            task.group.children[name] = task

    def _use(self, name: str, dag: Dag) -> None:
        dag.used.add(name)
        if len(dag.used) > _MOST_IN_DAG:
            raise OutOfSteps(f"{_MOST_IN_DAG:,} tasks and task groups in one DAG")

    def merge(self, task: Task, other: Task) -> None:
        """Merge two tasks of one id, from two arms that are never both taken: the first gets the edges of both."""
        task.upstream, task.downstream = other.upstream, other.downstream
        task.group = other.group

    def open_group(self, group: Group, label: str, suffix: bool) -> None:
        """Add a group and its id. Raises DuplicateTaskIdFound if the id is taken."""
        dag = group.dag
        group.own_id = label
        if dag is not None and group.group_id in dag.used:
            if not suffix and not self.uncertain:
                raise Raised("DuplicateTaskIdFound", f"group id {label!r} is used twice in a DAG")
            self.charge(len(dag.used) // 2)
            base = re.split(r"__\d+$", label)[0]
            pattern = re.compile(rf"{re.escape(base)}__(\d+)")
            taken = [int(found[1]) for one in dag.used if (found := pattern.fullmatch(one))]
            group.own_id = f"{base}__{max(taken) + 1}" if taken else f"{label}__1"
        if dag is not None:
            self._use(str(group.group_id), dag)
            dag.groups.append(group)
            if len(dag.groups) > _MOST_GROUPS:
                raise OutOfSteps(f"{_MOST_GROUPS:,} task groups in one DAG")
        if group.parent is not None:
            group.parent.children[f"group:{group.group_id}"] = group
        self.count_made()

    # Edges

    def edge(self, before: Task, after: Task, label: Any = None) -> None:
        if before.dag is None and after.dag is not None:
            self.adopt(before, after.dag)
        elif after.dag is None and before.dag is not None:
            self.adopt(after, before.dag)
        elif before.dag is None and not self.uncertain:
            raise Raised("AirflowException", "tasks that have no DAG are joined")
        elif before.dag is not after.dag and not self.uncertain:
            raise Raised("RuntimeError", "tasks of different DAGs are joined")
        if not self.uncertain:
            after.unsure.discard(before)
        elif before not in after.upstream:
            after.unsure.add(before)
        after.upstream[before] = None
        before.downstream[after] = None
        self.edges += 1
        self.charge(1)
        if self.edges > _MOST_EDGES:
            raise OutOfSteps(f"{_MOST_EDGES:,} edges")
        if label is not None and after.dag is not None and isinstance(hard(label), str):
            after.dag.labels[before.task_id, after.task_id] = hard(label)

    def depend(self, task: Task, value: Any) -> None:
        """Add the edges of a task that takes other tasks' results."""
        for before in operators_in(value) if self._light(value) else ():
            if before is not task:
                self.edge(before, task)


@dataclass(eq=False)
class Bracket:
    """``with setup >> teardown:`` and the like: tasks created within, until another one closes, lie between the two."""

    setups: list[Task]
    teardowns: list[Task]
    by_teardown: bool
    tasks: list[Task] = field(default_factory=list)
    active: bool = True

    def add(self, task: Task) -> None:
        if self.active:
            self.tasks.append(task)


def open_bracket(context: Context, tasks: list[Task]) -> None:
    """Open a bracket; the other side is found along the edges.

    Source: ``BaseSetupTeardownContext.push_setup_teardown_task``.
    """
    if tasks[0].teardown:
        others = _nearest(tasks[0], "upstream")
        context.brackets.append(Bracket(others, tasks, by_teardown=True))
    else:
        others = _nearest(tasks[0], "downstream")
        context.brackets.append(Bracket(tasks, others, by_teardown=False))


def _nearest(task: Task, side: str) -> list[Task]:
    wanted = "teardown" if side == "downstream" else "setup"
    seen, layer = {task}, list(getattr(task, side))
    while layer:
        if found := [one for one in layer if getattr(one, wanted)]:
            return found
        seen.update(layer)
        layer = [one for each in layer for one in (*each.downstream, *each.upstream) if one not in seen]
    return []


def close_bracket(context: Context) -> None:
    bracket = context.brackets.pop()
    tasks = [one for one in bracket.tasks if not one.setup and not one.teardown]
    if tasks:
        first = [one for one in tasks if not one.upstream] or tasks[:1]
        last = [one for one in tasks if not one.downstream] or tasks[-1:]
        _all(context, bracket.setups, first)
        _all(context, last, bracket.teardowns)
    if context.brackets:
        outer = context.brackets[-1]
        _all(context, outer.setups, bracket.setups)
        _all(context, bracket.teardowns, outer.teardowns)
        outer.active = False


def _all(context: Context, before: Sequence[Task], after: Sequence[Task]) -> None:
    for one in before:
        for other in after:
            if one is not other:
                context.edge(one, other)


def link(context: Context, before: Any, after: Any) -> list[Any]:
    """Add the edges of ``before >> after``. Returns the values that cannot have an edge."""
    lost: list[Any] = []
    if isinstance(before, Label):
        _label(context, before, flat(after), "after", lost)
    elif isinstance(after, Label):
        # ``result >> label`` is drawn from the tasks of the result; in a list the result itself stays
        nodes = before.tasks() if isinstance(before, XCom) else flat(before)
        _label(context, after, nodes, "before", lost)
    else:
        for one in flat(before):
            for other in flat(after):
                _link(context, one, other, lost)
    return lost


def _link(context: Context, one: Any, other: Any, lost: list[Any]) -> None:
    if isinstance(one, Label) or isinstance(other, Label):
        lost += link(context, one, other)
        return
    if not isinstance(one, (Task, Group, XCom)) or not isinstance(other, (Task, Group, XCom)):
        lost.append(other if isinstance(one, (Task, Group, XCom)) else one)
        return
    _join(context, one, other, None)


def _join(context: Context, one: Any, other: Any, label: Any) -> None:
    for side in (one, other):
        if isinstance(side, Group):
            context.charge(sum(1 for _ in side.members()))
    before, after = _tasks_of(one, Group.ends), _tasks_of(other, Group.roots)
    if (isinstance(one, Group) and not one.leaves()) or (isinstance(other, Group) and not after):
        context.hollow = True
    if isinstance(other, Group):
        context.charge(len(before) * len(other.upstream) // 50)
        other.upstream += [task for task in before if task not in other.upstream]
    for task in before:
        for following in after:
            context.edge(task, following, label)


def _tasks_of(node: Any, of_group: Callable[[Group], list[Task]]) -> list[Task]:
    if isinstance(node, Group):
        return of_group(node)
    return node.tasks() if isinstance(node, XCom) else [node]


def _label(context: Context, label: Label, nodes: list[Any], side: str, lost: list[Any]) -> None:
    """Set one side of a label. When both are known, a task of the label stands for its group, if the groups differ.

    Source: ``EdgeModifier._convert_streams_to_task_groups``.
    """
    found = [one for one in nodes if isinstance(one, (Task, Group, XCom))]
    lost += [one for one in nodes if one not in found and not isinstance(one, Label)]
    getattr(label, side).extend(found)
    if label.before and label.after and len({_group_of(one) for one in (*label.before, *label.after)}) != 1:
        label.before, label.after = [
            [node if isinstance(node, XCom) else _group_of(node) or node for node in stream]
            for stream in (label.before, label.after)
        ]
    for held in label.before if side == "after" else label.after:
        for one in found:
            before, after = (held, one) if side == "after" else (one, held)
            _join(context, before, after, label.text)


def _group_of(node: Any) -> Group | None:
    """Return the group of a side of a label: the side itself, or the group around it; None for the DAG itself."""
    group = node if isinstance(node, Group) else node.task.group if isinstance(node, XCom) else node.group
    return group if group is not None and group.own_id else None


def chain(context: Context, parts: Sequence[Any]) -> list[Any]:
    """Add the edges of ``chain``. Raises if two neighbouring lists have different lengths."""
    lost: list[Any] = []
    parts = [hard(part) for part in parts]
    for before, after in itertools.pairwise(parts):
        if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            if len(before) != len(after):
                raise Raised("AirflowException", "chain() joins lists of different lengths")
            for one, other in zip(before, after, strict=True):
                lost += link(context, one, other)
        else:
            lost += link(context, before, after)
    return lost


def linear(context: Context, parts: Sequence[Any]) -> list[Any]:
    """Add the edges of ``chain_linear``."""
    lost: list[Any] = []
    for before, after in itertools.pairwise(parts):
        lost += link(context, before, after)
    return lost
