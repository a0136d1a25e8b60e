"""DAGs, groups, tasks and their edges, with the rules by which Airflow makes them.

The rules are those of ``airflow.sdk``: ``bases/operator.py`` (``chain`` and its kin), ``definitions/taskgroup.py``
(roots, leaves, prefixes, suffixes), ``definitions/_internal/setup_teardown.py``, ``bases/decorator.py`` (repeated ids).
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowyml.migration.airflow.reader.values import (
    Arguments,
    Function,
    Given,
    Instance,
    Module,
    Raised,
    Unknown,
    hard,
    shape,
)

__all__ = [
    "light",
    "Asset",
    "Context",
    "Dag",
    "DagFactory",
    "Edge",
    "Group",
    "GroupFactory",
    "Label",
    "MappedArgument",
    "Partial",
    "Task",
    "TaskFactory",
    "XCom",
    "chain",
    "cross",
    "linear",
    "link",
    "operators_in",
]


@dataclass(eq=False)
class Dag(Instance):
    """A DAG. ``arguments`` are those of its constructor."""

    dag_id: Any = None
    arguments: Arguments = field(default_factory=Arguments)
    default_args: dict[str, Given] = field(default_factory=dict)
    node: ast.AST | None = None
    module: Module | None = None
    style: str = "constructor"
    function: Function | None = None
    calls: Arguments | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    registered: bool = False
    ready: bool = False
    warnings: list[Any] = field(default_factory=list)
    doc: Any = None

    root: Group | None = None

    def __post_init__(self) -> None:
        self.root = Group(None, dag=self, ready=True)

    def circle(self) -> list[str]:
        """The tasks that are on a circle of edges or behind one; none in a DAG that Airflow accepts."""
        waits = {task: len(task.upstream) for task in self.tasks.values()}
        free = [task for task, count in waits.items() if not count]
        while free:
            task = free.pop()
            for after in task.downstream:
                if after in waits:
                    waits[after] -= 1
                    if not waits[after]:
                        free.append(after)
        return sorted(task.task_id for task, count in waits.items() if count > 0)


@dataclass(eq=False)
class Group(Instance):
    """A TaskGroup; the root group of a DAG has no id."""

    own_id: str | None = None
    dag: Dag | None = None
    parent: Group | None = None
    prefix: bool = True
    children: dict[str, Task | Group] = field(default_factory=dict)
    default_args: dict[str, Given] = field(default_factory=dict)
    arguments: Arguments = field(default_factory=Arguments)
    node: ast.AST | None = None
    module: Module | None = None
    function: Function | None = None
    calls: Arguments | None = None
    mapping: tuple[str, Arguments] | None = None
    upstream: list[Task] = field(default_factory=list)
    ready: bool = False

    @property
    def group_id(self) -> str | None:
        if self.own_id and self.parent and self.parent.own_id and self.parent.prefix:
            return self.parent.child_id(self.own_id)
        return self.own_id

    def child_id(self, label: str) -> str:
        return f"{self.group_id}.{label}" if self.prefix and self.group_id else label

    def members(self) -> Iterator[Task]:
        for child in self.children.values():
            if isinstance(child, Group):
                yield from child.members()
            else:
                yield child

    def roots(self) -> list[Task]:
        tasks = list(self.members())
        mine = set(map(id, tasks))
        return [task for task in tasks if not any(id(one) in mine for one in task.upstream)]

    def leaves(self) -> list[Task]:
        tasks = list(self.members())
        mine = set(map(id, tasks))
        found: list[Task] = []
        for task in tasks:
            if any(id(one) in mine for one in task.downstream):
                continue
            found += self._before_teardown(task, mine, set()) if task.teardown else [task]
        return list(dict.fromkeys(found))

    def _before_teardown(self, task: Task, mine: set[int], seen: set[int]) -> list[Task]:
        found: list[Task] = []
        seen.add(id(task))
        for before in task.upstream:
            if id(before) not in mine or id(before) in seen:
                continue
            if before.teardown:
                found += self._before_teardown(before, mine, seen)
            elif not before.setup and not _goes_on(before, task, mine):
                found.append(before)
        return found

    def ends(self) -> list[Task]:
        """The tasks that what comes after the group waits for: of an empty group, as in Airflow 3, its own upstream."""
        return self.leaves() or list(self.upstream)


def _goes_on(task: Task, but: Task, mine: set[int]) -> bool:
    return any(one is not but and id(one) in mine and not one.teardown for one in task.downstream)


@dataclass(eq=False)
class Task(Instance):
    """An operator's instance, or a TaskFlow call."""

    own_id: Any = None
    path: str = ""
    arguments: Arguments = field(default_factory=Arguments)
    defaults: dict[str, Given] = field(default_factory=dict)
    dag: Dag | None = None
    group: Group | None = None
    decorator: str | None = None
    function: Function | None = None
    calls: Arguments | None = None
    mapping: tuple[str, Arguments] | None = None
    upstream: dict[Task, None] = field(default_factory=dict)
    downstream: dict[Task, None] = field(default_factory=dict)
    setup: bool = False
    teardown: bool = False
    lenient: bool = True
    node: ast.AST | None = None
    module: Module | None = None
    ready: bool = False

    @property
    def known(self) -> bool:
        return isinstance(hard(self.own_id), str)

    @property
    def task_id(self) -> str:
        label = shape(self.own_id)
        return self.group.child_id(label) if self.group else label


@dataclass(eq=False, slots=True)
class XCom:
    """A task's result as a value. ``parts`` are those of a zip or concat, ``path`` what is done with it."""

    task: Task
    key: Any = "return_value"
    path: tuple[tuple[str, Any], ...] = ()
    parts: tuple[XCom, ...] = ()

    def tasks(self) -> list[Task]:
        return list(dict.fromkeys([self.task, *(task for part in self.parts for task in part.tasks())]))


@dataclass(eq=False, slots=True)
class MappedArgument:
    """A parameter of a mapped group's function."""

    name: str
    mapped: Arguments


@dataclass(eq=False, slots=True)
class Label:
    """A label on an edge, while its two sides are being told."""

    text: Any
    before: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Asset:
    """An asset or a condition of some."""

    kind: str
    name: Any = ""
    uri: Any = ""
    parts: tuple[Any, ...] = ()


@dataclass(eq=False)
class TaskFactory:
    """``@task`` before it is called, or an operator's ``partial``."""

    function: Any
    decorator: str
    arguments: Arguments
    node: ast.AST
    module: Module | None
    partial: Arguments = field(default_factory=Arguments)
    setup: bool = False
    teardown: bool = False


@dataclass(eq=False)
class Partial:
    """``Operator.partial(…)``, before ``expand``."""

    operator: Any
    arguments: Arguments
    node: ast.AST


@dataclass(eq=False)
class GroupFactory:
    """``@task_group`` before it is called."""

    function: Any
    arguments: Arguments
    node: ast.AST
    partial: Arguments = field(default_factory=Arguments)


@dataclass(eq=False)
class DagFactory:
    """``@dag`` before it is called."""

    function: Any
    arguments: Arguments
    node: ast.AST


Edge = Task | Group | XCom | Label


def operators_in(value: Any, depth: int = 0) -> Iterator[Task]:
    """The tasks whose results are anywhere in a value."""
    value = hard(value)
    if isinstance(value, XCom):
        yield from value.tasks()
    elif isinstance(value, MappedArgument):
        for one in value.mapped.values():
            yield from operators_in(one, depth + 1)
    elif depth < 20 and isinstance(value, (list, tuple, set)):
        for one in value:
            yield from operators_in(one, depth + 1)
    elif depth < 20 and isinstance(value, dict):
        for one in value.values():
            yield from operators_in(one, depth + 1)


class Context:
    """What ``with`` has opened: the DAGs and groups around a statement, setups and teardowns."""

    def __init__(self) -> None:
        self.dags: list[Dag] = []
        self.groups: list[Group] = []
        self.brackets: list[Bracket] = []
        self.uncertain = 0
        self.edges = 0
        self.made = 0
        self.hollow = False

    def dag(self) -> Dag | None:
        return self.dags[-1] if self.dags else None

    def group(self, dag: Dag | None) -> Group | None:
        if self.groups:
            return self.groups[-1]
        return dag.root if dag else None

    def unique(self, label: str, dag: Dag | None, group: Group | None) -> str:
        """A TaskFlow task's id, with Airflow's suffix where it is taken. Source: ``get_unique_task_id``."""
        if dag is None:
            return label
        full = group.child_id(label) if group else label
        if full not in dag.tasks:
            return label
        prefix = re.escape(re.split(r"__\d+$", full)[0])
        taken = [int(found[1]) for one in dag.tasks if (found := re.fullmatch(rf"{prefix}__(\d+)", one))]
        return f"{re.split(r'__[0-9]+$', label)[0]}__{max([0, *taken]) + 1}"

    def add(self, task: Task, dag: Dag | None, group: Group | None) -> None:
        """Puts a new task into its DAG and group."""
        self.made += 1
        if group is not None and dag is not None and group.dag is not dag:
            group = dag.root
        task.group = group if group is not None else (dag.root if dag else None)
        if dag is not None:
            self.adopt(task, dag)
        for bracket in self.brackets[-1:]:
            bracket.add(task)

    def adopt(self, task: Task, dag: Dag) -> None:
        """A task without a DAG joins one. Raises DuplicateTaskIdFound, as Airflow does, where both are certain."""
        task.dag = dag
        if task.group is None:
            task.group = dag.root
        name = task.task_id
        other = dag.tasks.get(name)
        if other is not None and other is not task:
            if task.known and not self.uncertain:
                raise Raised("DuplicateTaskIdFound", f"task id {name!r} is used twice in a DAG")
            self.merge(task, other)
            return
        dag.tasks[name] = task
        if task.group is not None:
            task.group.children[name] = task

    def merge(self, task: Task, other: Task) -> None:
        """Two tasks of one id, of two arms that are not both taken: the edges of either are those of the first."""
        task.upstream, task.downstream = other.upstream, other.downstream
        task.group = other.group

    def open_group(self, group: Group, label: str, suffix: bool) -> None:
        """Places a group and gives it its id. Raises DuplicateTaskIdFound where the id is taken."""
        dag = group.dag
        group.own_id = label
        if dag is not None and group.group_id in dag.used:
            if not suffix and not self.uncertain:
                raise Raised("DuplicateTaskIdFound", f"group id {label!r} is used twice in a DAG")
            base = re.split(r"__\d+$", label)[0]
            pattern = re.compile(rf"{re.escape(base)}__(\d+)")
            taken = [int(found[1]) for one in dag.used if (found := pattern.fullmatch(one))]
            group.own_id = f"{base}__{max(taken) + 1}" if taken else f"{label}__1"
        if dag is not None:
            dag.used.add(str(group.group_id))
            dag.groups.append(group)
        if group.parent is not None:
            group.parent.children[f"group:{group.group_id}"] = group
        self.made += 1

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
        after.upstream[before] = None
        before.downstream[after] = None
        self.edges += 1
        if label is not None and after.dag is not None and isinstance(hard(label), str):
            after.dag.labels[before.task_id, after.task_id] = hard(label)

    def depend(self, task: Task, value: Any) -> None:
        """The edges of a task that takes other tasks' results."""
        for before in operators_in(value) if light(value) else ():
            if before is not task:
                self.edge(before, task)


@dataclass(eq=False)
class Bracket:
    """``with setup >> teardown:`` and its like: what is made within lies between the two."""

    setups: list[Task]
    teardowns: list[Task]
    tasks: list[Task] = field(default_factory=list)

    def add(self, task: Task) -> None:
        self.tasks.append(task)


def open_bracket(context: Context, tasks: list[Task]) -> None:
    """Source: ``BaseSetupTeardownContext.push_setup_teardown_task``: the other side is found along the edges."""
    if tasks[0].teardown:
        others = _nearest(tasks[0], "upstream")
        context.brackets.append(Bracket(others, tasks))
    else:
        others = _nearest(tasks[0], "downstream")
        context.brackets.append(Bracket(tasks, others))


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
        outer.tasks += bracket.tasks


def _all(context: Context, before: Sequence[Task], after: Sequence[Task]) -> None:
    for one in before:
        for other in after:
            if one is not other:
                context.edge(one, other)


def _flat(value: Any) -> list[Any]:
    value = hard(value)
    return [one for each in value for one in _flat(each)] if isinstance(value, (list, tuple, set)) else [value]


def link(context: Context, before: Any, after: Any, main: str) -> list[Any]:
    """``before >> after``; ``main`` is the side whose method is called. Returns what no edge can be drawn to."""
    lost: list[Any] = []
    for one in _flat(before):
        for other in _flat(after):
            _link(context, one, other, main, lost)
    return lost


def _link(context: Context, one: Any, other: Any, main: str, lost: list[Any]) -> None:
    if isinstance(one, Label) and isinstance(other, Label):
        return
    if isinstance(one, Label) or isinstance(other, Label):
        _label(context, one, other, lost)
        return
    if not isinstance(one, (Task, Group, XCom)) or not isinstance(other, (Task, Group, XCom)):
        lost.append(other if isinstance(one, (Task, Group, XCom)) else one)
        return
    _join(context, one, other, None)


def _join(context: Context, one: Any, other: Any, label: Any) -> None:
    before, after = _tail(one), _head(other)
    if any(isinstance(side, Group) and not any(side.members()) for side in (one, other)):
        context.hollow = True
    if isinstance(other, Group):
        other.upstream += [task for task in before if task not in other.upstream]
    for task in before:
        for following in after:
            context.edge(task, following, label)


def _tail(node: Any) -> list[Task]:
    if isinstance(node, Group):
        return node.ends()
    return node.tasks() if isinstance(node, XCom) else [node]


def _head(node: Any) -> list[Task]:
    if isinstance(node, Group):
        return node.roots()
    return node.tasks() if isinstance(node, XCom) else [node]


def _label(context: Context, one: Any, other: Any, lost: list[Any]) -> None:
    label, node, stream = (one, other, "after") if isinstance(one, Label) else (other, one, "before")
    if not isinstance(node, (Task, Group, XCom)):
        lost.append(node)
        return
    getattr(label, stream).append(node)
    before = label.before if stream == "after" else [node]
    after = label.after if stream == "before" else [node]
    for first in before:
        for second in after:
            _join(context, first, second, label.text)


def chain(context: Context, parts: Sequence[Any]) -> list[Any]:
    """Airflow's ``chain``. Raises where two lists beside each other are of different lengths."""
    lost: list[Any] = []
    parts = [hard(part) for part in parts]
    for before, after in itertools.pairwise(parts):
        if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            if len(before) != len(after):
                raise Raised("AirflowException", "chain() joins lists of different lengths")
            for one, other in zip(before, after, strict=True):
                lost += link(context, one, other, "before")
        else:
            lost += link(context, before, after, "before")
    return lost


def linear(context: Context, parts: Sequence[Any]) -> list[Any]:
    """Airflow's ``chain_linear``."""
    lost: list[Any] = []
    for before, after in itertools.pairwise(parts):
        lost += link(context, before, after, "before")
    return lost


def cross(context: Context, before: Iterable[Any], after: Any) -> list[Any]:
    """Airflow's ``cross_downstream``."""
    return link(context, list(before), after, "before")


def is_node(value: Any) -> bool:
    """Whether an edge can be drawn to it."""
    return isinstance(hard(value), (Task, Group, XCom, Label))


def _parts(value: Any, most: int) -> Iterator[Any]:
    """A value and what is in it, at any depth, up to so many parts."""
    todo = [value]
    for _ in range(most):
        if not todo:
            return
        one = hard(todo.pop())
        yield one
        if isinstance(one, (list, tuple, set)):
            todo += one
        elif isinstance(one, dict):
            todo += one.values()


def mentions(value: Any) -> bool:
    """Whether a DAG, task or group is anywhere in a value (in its first 20,000 parts)."""
    return any(isinstance(one, (Task, Group, XCom, Dag)) for one in _parts(value, 20_000))


def light(value: Any) -> bool:
    """Whether a value can be walked over: it has few parts, where one that is shared counts each time."""
    value = hard(value)
    if not isinstance(value, (list, tuple, set, dict)):
        return True
    return sum(1 for _ in _parts(value, 100_001)) <= 100_000


def nothing_known(value: Any) -> bool:
    return isinstance(hard(value), Unknown)
