"""The decision for a task, with the function that it calls, and the code of the file that all tasks need."""

from __future__ import annotations

import builtins
import keyword
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import libcst as cst

from flowyml.migration.airflow.model import Argument, FunctionModel, Symbolic, TaskModel, ValueEdge, values_in
from flowyml.migration.airflow.writer.deciding.choices import Choice
from flowyml.migration.airflow.writer.deciding.context import Asked, Asking, Template
from flowyml.migration.airflow.writer.moving import Moving, Needed
from flowyml.migration.airflow.writer.notes import Kind, Note
from flowyml.migration.airflow.writer.values import Unwritable

Key = tuple[str, int, str]
"""The name of a function, its line, and its module if that is not the DAG file: see `Function.key`."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the file to copy, or of another module to import. ``home`` is the file that has it.

    ``bound`` are arguments that each call has to give for a default. ``signature`` is the text of one that was changed.
    """

    model: FunctionModel
    node: cst.FunctionDef
    original: cst.FunctionDef
    needed: Needed
    home: Moving
    bound: frozenset[str] = frozenset()
    signature: str = ""

    @property
    def is_imported(self) -> bool:
        """True if it is of another module."""
        return self.model.module not in ("", "__main__")

    @property
    def key(self) -> Key:
        """Its name and line, and its module if that is another one, or its signature if that was changed."""
        return self.model.name, self.model.place.line, self.model.module if self.is_imported else self.signature


@dataclass(frozen=True, slots=True)
class Loop:
    """The list of a mapped task group: each item becomes the group's argument."""

    group: str
    name: str
    over: Any

    def around(self, group: str) -> bool:
        """Return whether a task group is the mapped one, or within it."""
        return f"{group}.".startswith(f"{self.group}.")


@dataclass(slots=True)
class Decision:
    """A task of one DAG. ``kind`` is ``function``, ``call``, ``empty``, ``bash``, ``operator`` or ``hole``.

    ``arguments`` are those of the operator, or of the call: by position, or by name. ``over`` are the lists of a mapped
    task. ``choice`` is its choice for the tasks after it, if branches express it.

    A ``call`` is a step that calls the function, or ``bash`` without one, with the values of ``asking`` beside values
    of other tasks; they ``may_be_missing``. With ``through_bash``, which has Bash's own arguments, the function returns
    a command. ``starts`` is the DAG that it runs instead, with its arguments as that run's conf. ``others`` are
    functions among an operator's arguments, ``defaults`` the DAG's default arguments if it takes all of them by name.
    ``within`` is the prefix of its id by the task group that calls it. Several calls may share one step, that of
    ``like``: ``own_values`` are what this call gives it besides the values of its asking.
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
    defaults: Argument | None = None
    within: str = ""
    like: Decision | None = field(default=None, repr=False, compare=False)
    own_values: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its step in the pipeline that calls it."""
        return self.task.task_id.removeprefix(self.within)

    @property
    def has_step(self) -> bool:
        """True unless it is a call of another task's step."""
        return self.like is None or self.like is self

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
        """The value of another task that is the list of the mapped task group around it."""
        yield from edges_in([self.loop.over] if self.loop else [])

    @property
    def whole(self) -> Iterator[ValueEdge]:
        """The values that each of its calls takes unchanged."""
        yield from edges_in(self.arguments.values())


class Hole(Exception):
    """A task cannot be written: the reason."""


def is_item(value: Any) -> bool:
    """Return whether a value is an item of a mapped task group."""
    return isinstance(value, Symbolic) and value.origin == "mapped"


def items_in(values: Any) -> Iterator[str]:
    """Yield the names of such items, at any depth."""
    yield from (part.source for value in values for part in values_in(value) if is_item(part))


def edges_in(values: Any) -> Iterator[ValueEdge]:
    for part in (each for value in values for each in values_in(value)):
        if isinstance(part, ValueEdge):
            yield part
        elif isinstance(part, Template | Asked):
            yield from edges_in(part.parts if isinstance(part, Template) else part.code)


def rule_of(task: TaskModel) -> str:
    """Say which trigger rule a task has."""
    rule = task.trigger_rule
    return f"it has the trigger rule {rule!r:.40}" if isinstance(rule, str) else "only Airflow knows its trigger rule"


def named(task: TaskModel) -> str:
    return f"task {task.task_id}"


def refused(task: TaskModel, why: str, to_do: str = "Write what it does into the step of the same name.") -> Note:
    """Return the note on a task that becomes a hole."""
    return Note(Kind.REFUSED, named(task), task.place, why, to_do)


# Modules that a written module may use beside FlowyML's words.
_BUILTINS = frozenset({"NotImplementedError", "bool", "dict", "float", "int", "list", "set", "str", "tuple"})


@dataclass(frozen=True, slots=True)
class Moved:
    """Functions of a file, and the numbers of the statements that they need, in order.

    ``kept`` are the functions that other code looks up by name, ``needed`` all names that are needed of the file,
    ``looked`` those that are looked up in the module, ``taken`` those that have a meaning in it.
    """

    functions: Mapping[Key, Function]
    statements: Sequence[int]
    kept: Mapping[Key, str]
    needed: AbstractSet[str]
    looked: AbstractSet[str]
    taken: AbstractSet[str]


def key_of(decision: Decision) -> Key:
    """Return the key of a decision's function."""
    assert decision.function
    return decision.function.key


def what_moves(decisions: Iterable[Decision], moving: Moving) -> Moved:
    """Return the code of the file that some tasks need.

    Raises ``Unwritable`` if a name would have another meaning in the module.
    """
    every = [one for each in decisions for one in (each.function, *each.others) if one]
    functions: dict[Key, Function] = {}
    for each in every:
        functions.setdefault(each.key, each)
    statements = sorted({number for each in every for number in each.needed.statements})
    defined = {name for number in statements for name in moving.statements[number].defines}
    looked = {name for each in every for name in each.needed.looked}
    kept = {
        key: key[0] for key, each in functions.items()
        if not (each.model.nested or each.is_imported or each.signature) and each.model.name in looked
    }  # fmt: skip
    _check_meanings(functions, kept, statements, moving)
    if hidden := sorted(defined & _BUILTINS):
        raise Unwritable(f"the file has a {hidden[0]} of its own, which the module needs as Python has it")
    needed = {name for each in every for name in each.needed.names}
    taken = {*defined, *kept.values(), *keyword.kwlist, *dir(builtins)}
    return Moved(functions, statements, kept, needed, looked, taken)


def _check_meanings(
    functions: Mapping[Key, Function], kept: Mapping[Key, str], statements: Iterable[int], moving: Moving
) -> None:
    """Raise ``Unwritable`` if a function's name would have one meaning in the file, and another in the module."""
    names = Counter(kept.values())
    for number in statements:
        statement = moving.statements[number]
        if early := sorted(statement.runs & names.keys()):
            raise Unwritable(f"the file uses {early[0]}, the function of a task, while it is imported")
        for name in statement.defines & names.keys():
            own = (each.original for key, each in functions.items() if kept.get(key) == name)
            names[name] += all(each is not statement.node for each in own)
    if doubtful := [name for name, count in names.items() if count > 1]:
        raise Unwritable(f"the file has several meanings of {doubtful[0]}, which is the function of a task")
