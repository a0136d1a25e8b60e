"""What became of a task, with the function of the file that it calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import libcst as cst

from flowyml.migration.airflow.model import FunctionModel, Symbolic, TaskModel, ValueEdge
from flowyml.migration.airflow.writer.deciding.choices import Choice
from flowyml.migration.airflow.writer.deciding.context import Asked, Asking, Template
from flowyml.migration.airflow.writer.moving import Needed
from flowyml.migration.airflow.writer.notes import Note

__all__ = ["Decision", "Function", "Hole", "Key", "Loop", "edges_in", "is_item", "items_in", "named"]

Key = tuple[str, int]
"""The name of a function, and the line where it stands."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the file that moves over. ``bound`` are arguments that each call has to give for a default."""

    model: FunctionModel
    node: cst.FunctionDef
    original: cst.FunctionDef
    needed: Needed
    bound: frozenset[str] = frozenset()

    @property
    def key(self) -> Key:
        """Where it stands."""
        return self.model.name, self.model.place.line


@dataclass(frozen=True, slots=True)
class Loop:
    """That a mapped task group goes over a list: it takes each item by the name of its argument."""

    group: str
    name: str
    over: Any

    def around(self, group: str) -> bool:
        """Whether a task group is the mapped one, or within it."""
        return f"{group}.".startswith(f"{self.group}.")


@dataclass(slots=True)
class Decision:
    """A task of one DAG. ``kind`` is ``function``, ``call``, ``empty``, ``bash``, ``operator`` or ``hole``.

    ``arguments`` are those of the operator, or of the call: by place, or by name. ``over`` are the lists of a mapped
    one. ``choice`` is what it decides about those after it, where branches say so.

    A ``call`` is a step that calls the function, or ``bash`` without one, with what ``asking`` says beside values of
    other tasks; they ``may_be_missing``. With ``through_bash``, which has Bash's own arguments, the function gives a
    command. ``starts`` is the DAG that it runs instead, with its arguments as that run's conf. ``others`` are functions
    among an operator's arguments. ``within`` is what the name of the task group that calls it puts before its id.
    """

    task: TaskModel
    kind: str
    function: Function | None = None
    operator: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    over: dict[str, Any] = field(default_factory=dict)
    loop: Loop | None = None
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    choice: Choice | None = None
    asking: Asking | None = None
    may_be_missing: bool = False
    through_bash: dict[str, Any] | None = None
    starts: str = ""
    others: list[Function] = field(default_factory=list)
    within: str = ""

    @property
    def name(self) -> str:
        """What its step is called in the pipeline that calls it."""
        return self.task.task_id.removeprefix(self.within)

    @property
    def edges(self) -> Iterator[ValueEdge]:
        """The values of other tasks that its call takes."""
        if self.kind in ("function", "call"):
            yield from edges_in([*self.arguments.values(), *self.over.values()])
        elif self.kind == "operator":
            yield from edges_in(list(self.over.values()))

    @property
    def items(self) -> list[str]:
        """The arguments of the mapped task group around it that its call takes."""
        return list(dict.fromkeys(items_in(self.arguments.values())))

    @property
    def sources(self) -> Iterator[ValueEdge]:
        """The value of another task that the mapped task group around it goes over."""
        yield from edges_in([self.loop.over] if self.loop else [])

    @property
    def whole(self) -> Iterator[ValueEdge]:
        """Those that each of its calls takes as they are."""
        yield from edges_in(self.arguments.values())


class Hole(Exception):
    """Why a task cannot be written."""


def is_item(value: Any) -> bool:
    """Whether a value is what a mapped task group takes of each item."""
    return isinstance(value, Symbolic) and value.origin == "mapped"


def items_in(values: Any) -> Iterator[str]:
    """The names of such values, at any depth."""
    for value in values:
        if is_item(value):
            yield value.source
        elif isinstance(value, list | tuple):
            yield from items_in(value)
        elif isinstance(value, dict):
            yield from items_in(value.values())


def edges_in(values: Any) -> Iterator[ValueEdge]:
    for value in values:
        if isinstance(value, ValueEdge):
            yield value
        elif isinstance(value, list | tuple | set):
            yield from edges_in(value)
        elif isinstance(value, dict):
            yield from edges_in(value.values())
        elif isinstance(value, Template):
            yield from edges_in(value.parts)
        elif isinstance(value, Asked):
            yield from edges_in(value.code)


def named(task: TaskModel) -> str:
    return f"task {task.task_id}"
