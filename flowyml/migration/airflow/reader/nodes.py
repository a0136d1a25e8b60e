"""DAGs, groups, tasks and stand-ins for their results, by the rules of ``airflow.sdk.definitions.taskgroup``."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowyml.migration.airflow.model import Place
from flowyml.migration.airflow.reader.values import Arguments, Function, Given, Instance, Module, hard, shape


class Ids(set[str]):
    """The ids of the tasks before or after a task. Airflow lets a file change it, which changes one side of an edge."""


class Held(dict[str, Any]):
    """The tasks of a DAG or the children of a group, which Airflow lets a file change."""


@dataclass(eq=False)
class Dag(Instance):
    """A DAG. ``arguments`` are those of its constructor."""

    dag_id: Any = None
    arguments: Arguments = field(default_factory=Arguments)
    default_args: dict[str, Given] = field(default_factory=dict)
    node: ast.AST | None = None
    module: Module | None = None
    function: Function | None = None
    calls: Arguments | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    suffixes: dict[str, int] = field(default_factory=dict)
    """By id, the largest number that Airflow has appended to it because it was taken."""
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    registered: bool = False
    ready: bool = False
    warnings: list[Any] = field(default_factory=list)
    doc: Any = None

    root: Group | None = None

    def __post_init__(self) -> None:
        self.root = Group(None, dag=self, ready=True)

    def circle(self) -> list[str]:
        """Return the tasks of a cycle of edges; empty for a DAG that Airflow accepts."""
        here = set(self.tasks.values())  # of those that only one arm makes, of one id, the last
        waits = {task: [one for one in task.upstream if one in here] for task in self.tasks.values()}
        try:
            graphlib.TopologicalSorter(waits).prepare()
        except graphlib.CycleError as error:
            return sorted({task.task_id for task in error.args[1]})
        return []

    def leave_out_unsure(self) -> bool:
        """Remove the edges that may not exist. Returns whether there were any."""
        unsure = [(before, task) for task in self.tasks.values() for before in task.unsure]
        for before, task in unsure:
            task.upstream.pop(before, None)
            before.downstream.pop(task, None)
        return bool(unsure)


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

    def child(self, label: str) -> Task | Group | None:
        """Return the task or group of this label in the group."""
        name = self.child_id(label)
        return self.children.get(name) or self.children.get(f"group:{name}")

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
            elif not before.setup:
                others = [one for one in before.downstream if one is not task and id(one) in mine and not one.teardown]
                found += [] if others else [before]
        return found

    def ends(self) -> list[Task]:
        """Return the tasks that later tasks wait for; for an empty group, as in Airflow 3, its own upstream."""
        return self.leaves() or list(self.upstream)


@dataclass(eq=False)
class Task(Instance):
    """An operator's instance, or a TaskFlow call. ``unsure`` are upstream tasks by edges that may not exist."""

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
    unsure: set[Task] = field(default_factory=set)
    setup: bool = False
    teardown: bool = False
    node: ast.AST | None = None
    module: Module | None = None
    callers: tuple[Place, ...] = ()
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
    """A task's result as a value. ``parts`` are those of a zip or concat, ``path`` the operations on it."""

    task: Task
    key: Any = "return_value"
    path: tuple[tuple[str, Any], ...] = ()
    parts: tuple[XCom, ...] = ()

    def template(self) -> str | None:
        """Return its text, which is a template; None if not all of it is known. Source: ``PlainXComArg.__str__``."""
        dag, key = self.task.dag, hard(self.key)
        if self.path or dag is None or not self.task.known or not isinstance(dag.dag_id, str) or key is None:
            return None
        return f"{{{{ task_instance.xcom_pull(task_ids='{self.task.task_id}', dag_id='{dag.dag_id}', key='{key}') }}}}"

    def tasks(self) -> list[Task]:
        return list(dict.fromkeys([self.task, *(task for part in self.parts for task in part.tasks())]))


@dataclass(eq=False, slots=True)
class MappedArgument:
    """A parameter of a mapped group's function."""

    name: str
    mapped: Arguments


@dataclass(eq=False, slots=True)
class Label:
    """A label on an edge, whose two sides become known one after the other."""

    text: Any
    before: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Asset:
    """An asset, or a condition of assets."""

    kind: str
    name: Any = ""
    uri: Any = ""
    parts: tuple[Any, ...] = ()
    more: tuple[str, ...] = ()


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
