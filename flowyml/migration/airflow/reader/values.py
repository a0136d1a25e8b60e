"""The values of a DAG file's expressions: plain Python data as itself, and these classes for the rest."""

from __future__ import annotations

import ast
import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowyml.migration.airflow.model import Place


class OutOfSteps(Exception):
    """The file exceeded its limit of steps, tasks or edges: the text names the limit."""


class NotKnown(Exception):
    """A result is unknown: it depends on what is unknown, or would exceed the bounds."""


class Raised(Exception):
    """The evaluated code raises: ``kind`` is the name of the exception's class."""

    def __init__(self, kind: str, text: str = "", value: Any = None) -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind
        self.text = text
        self.value = value


@dataclass(eq=False, slots=True)
class Unknown:
    """An unknown value. ``text`` is the known part of a string: ``load_{table}``.

    ``parts``: the text is the concatenation of these, texts and values with an ``origin``.
    """

    source: str
    place: Place
    origin: str = ""
    text: str = ""
    parts: tuple[Any, ...] = ()


@dataclass(eq=False, slots=True)
class Either(Unknown):
    """One of several values, since a condition is unknown."""

    options: tuple[Any, ...] = ()


@dataclass(eq=False, slots=True)
class Moment(Unknown):
    """A time from the clock. ``zone`` is its time zone, if that is known."""

    zone: datetime.tzinfo | None = None


@dataclass(eq=False, slots=True)
class Soft:
    """A file's default for a Variable that Airflow lacks, or a name that the environment lacks.

    ``derived``: the file computed the value from such a default, so only the whole expression computes it again. It is
    a text of concatenated ``parts``, if there are any.
    """

    value: Any
    origin: str
    source: str
    place: Place
    derived: bool = False
    parts: tuple[Any, ...] = ()


@dataclass(eq=False, slots=True)
class Foreign:
    """A module of another library, or an object in it."""

    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(eq=False, slots=True)
class ForeignValue(Unknown):
    """The result of calling an object of another library."""

    path: str = ""
    arguments: Arguments | None = None


@dataclass(slots=True)
class Given:
    """One argument of a call: its value, and its source location."""

    value: Any
    node: ast.expr | None = None
    module: Module | None = None
    inherited: str = ""


@dataclass(slots=True)
class Arguments:
    """The arguments of a call. ``open``: there are more, from an unknown ``*`` or ``**``."""

    positional: list[Given] = field(default_factory=list)
    named: dict[str, Given] = field(default_factory=dict)
    open: bool = False

    @classmethod
    def of(cls, *found: Any) -> Arguments:
        """Return values as positional arguments."""
        return cls([Given(one) for one in found])

    def after(self, first: Any) -> Arguments:
        """Return these behind another positional one."""
        return Arguments([Given(first), *self.positional], self.named, self.open)

    def get(self, name: str, position: int | None = None) -> Given | None:
        """Return the argument of this name, or at this position."""
        if name in self.named:
            return self.named[name]
        if position is not None and position < len(self.positional):
            return self.positional[position]
        return None

    def value(self, name: str, position: int | None = None, default: Any = None) -> Any:
        given = self.get(name, position)
        return default if given is None else given.value

    def expect(self, kind: Any, name: str, position: int | None = None, default: Any = None) -> Any:
        """Return the value of an argument, without the mark of a default. Raises ``NotKnown`` for another class."""
        value = hard(self.value(name, position, default))
        if not isinstance(value, kind):
            raise NotKnown
        return value

    def rest(self) -> Arguments:
        """Return these without the first positional one."""
        return Arguments(self.positional[1:], self.named, self.open)

    def joined(self, more: Arguments) -> Arguments:
        """Return these and more arguments, whose names win."""
        positional, named = [*self.positional, *more.positional], {**self.named, **more.named}
        return Arguments(positional, named, self.open or more.open)

    def values(self) -> Iterator[Any]:
        for given in (*self.positional, *self.named.values()):
            yield given.value


@dataclass(eq=False, slots=True)
class Scope:
    """The names of a function, a class body or a module; ``parent`` is the scope around it."""

    names: dict[str, Any]
    parent: Scope | None = None
    kind: str = "function"
    globals_: frozenset[str] = frozenset()
    nonlocals: frozenset[str] = frozenset()


@dataclass(eq=False, slots=True)
class Module:
    """A Python file of the root. ``path`` is absolute, ``place`` relative to the root."""

    name: str
    path: str
    place: str
    text: str
    scope: Scope
    package: str = ""
    stars: list[str] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    main: bool = False

    def source(self, node: Any) -> str:
        """Return the source text of a node."""
        if not hasattr(node, "lineno"):
            return ""
        if not self.lines:
            self.lines = self.text.encode().splitlines(keepends=True)
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        start, end = node.col_offset, node.end_col_offset
        if first == last:
            return str(self.lines[first][start:end], "utf-8", "replace")
        parts = [self.lines[first][start:], *self.lines[first + 1 : last], self.lines[last][:end]]
        return str(b"".join(parts), "utf-8", "replace")


@dataclass(eq=False, slots=True)
class Function:
    """A function or lambda of a file of the root.

    ``wraps``: ``functools.wraps`` has made it one; then ``defined`` is the function in the file below the decorator
    that returned it. ``cached`` has its results by arguments, if it is cached. ``setter`` is that of a property.
    """

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    module: Module
    scope: Scope
    defaults: dict[str, Any] = field(default_factory=dict)
    owner: Class | None = None
    kind: str = ""
    context_manager: bool = False
    wraps: bool = False
    defined: Function | None = None
    cached: dict[Any, Any] | None = None
    setter: Function | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Class:
    """A class of a file of the root. ``fields`` are those of a dataclass or pydantic model, with their defaults.

    ``meta`` is its metaclass, if that is a class of the root too. ``below`` are the classes that name it as a base.
    """

    name: str
    node: ast.ClassDef
    module: Module
    bases: tuple[Any, ...]
    names: dict[str, Any]
    fields: dict[str, Any] | None = None
    meta: Class | None = None
    below: list[Class] = field(default_factory=list)
    _line: list[Any] = field(default_factory=list)

    def mro(self) -> list[Any]:
        """Return the class and its bases in Python's order of lookup; those of other libraries are `Foreign`."""
        self._line = self._line or self._merged()
        return self._line

    def _merged(self) -> list[Any]:
        lines = [base.mro() if isinstance(base, Class) else [base] for base in self.bases]
        lines.append(list(self.bases))
        found: list[Any] = [self]
        while lines := [line for line in lines if line]:
            heads = [line[0] for line in lines]
            later = [one for line in lines for one in line[1:]]
            first = next((one for one in heads if one not in later), heads[0])
            found.append(first)
            lines = [[one for one in line if one is not first] for line in lines]
        return found

    def find(self, name: str, after: Class | None = None) -> Any:
        """Return the attribute of this name; ``None`` if no class of the root has it."""
        line = [one for one in self.mro() if isinstance(one, Class)]
        if after is not None and after in line:
            line = line[line.index(after) + 1 :]
        return next((one.names[name] for one in line if name in one.names), None)

    def is_dict(self) -> bool:
        """Return whether the class derives from ``dict``."""
        return any(isinstance(one, Native) and one.name == "dict" for one in self.mro())

    def foreign(self) -> list[Foreign]:
        return [one for one in self.mro() if isinstance(one, Foreign)]


@dataclass(eq=False, repr=False)
class Instance:
    """An instance of a class of the root."""

    cls: Class | None
    attributes: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the text that a warning shows."""
        return f"<an object of {self.cls.name if self.cls is not None else 'a library'}>"

    def special(self, name: str) -> Function | None:
        """Return a method like ``__len__`` that its class defines in the root."""
        found = self.cls.find(name) if self.cls is not None else None
        return found if isinstance(found, Function) else None


class Items(dict[Any, Any], Instance):
    """An instance of a class of the root that derives from ``dict``."""

    def __init__(self, cls: Class) -> None:
        super().__init__()
        Instance.__init__(self, cls)


@dataclass(eq=False)
class Member(Instance):
    """A member of an enumeration that is also a text or number: it equals its value."""

    def __eq__(self, other: object) -> bool:
        value = other.attributes["_value_"] if isinstance(other, Member) else other
        return bool(self.attributes["_value_"] == value)

    def __hash__(self) -> int:
        return hash(self.attributes["_value_"])


@dataclass(eq=False, slots=True)
class Bound:
    """A method of an instance or class."""

    function: Function
    owner: Any


@dataclass(eq=False, slots=True)
class Super:
    """``super()`` in a method of ``cls``."""

    cls: Class
    owner: Any


@dataclass(eq=False, slots=True)
class Native:
    """A function that the evaluator knows."""

    name: str
    run: Callable[[Any, Arguments, ast.AST], Any]

    def call(self, machine: Any, arguments: Arguments, node: ast.AST) -> Any:
        """Return the result; unknown if the function raises ``NotKnown``."""
        try:
            return self.run(machine, arguments, node)
        except NotKnown:
            return machine.unknown(node)


class Once(list[Any]):
    """The items left in an iterator: each is taken once.

    Its items are evaluated when the iterator is created. ``made`` and ``joined``: that created tasks, or edges, while
    ``within`` was open (see ``Context.open``); ``node`` of ``module`` is its source location.
    """

    made = joined = False
    within: Any = ()
    node: ast.AST | None = None
    module: Module | None = None


class Auto(Instance):
    """``enum.auto()``: the class of the member determines its value."""

    def __init__(self) -> None:
        super().__init__(None)


Yields = Callable[[Any, ast.AST], None]
"""The reader of the values that a function yields."""


class Machine(Protocol):
    """What the parts of the evaluator use of those further down the line of classes."""

    def call(self, function: Any, arguments: Arguments, node: ast.AST) -> Any: ...
    def attribute(self, value: Any, name: str, node: ast.AST) -> Any: ...
    def run(self, function: Any, arguments: Arguments, node: ast.AST, reader: Yields) -> Any: ...
    def generator(self, function: Any, arguments: Arguments) -> tuple[Any, Arguments] | None: ...
    def block(self, nodes: Sequence[ast.stmt]) -> None: ...
    def both(self, arms: list[Callable[[], None]], node: ast.AST) -> set[type[Exception]]: ...
    def assign(self, target: ast.expr, value: Any) -> None: ...
    def give(self, value: Any, node: ast.AST) -> None: ...
    def yielded_from(self, node: ast.YieldFrom) -> Any: ...
    def imported(self, name: str, node: ast.AST) -> Any: ...
    def is_there(self, path: str) -> bool: ...
    def submodule(self, module: Module, name: str) -> Any: ...
    def iterate(self, value: Any, node: ast.AST) -> list[Any] | None: ...
    def once(self, make: Callable[[], list[Any]], node: ast.AST, *froms: Any) -> Once: ...
    def take(self, value: Once, count: int, node: ast.AST) -> list[Any]: ...
    def listed(self, value: Any, node: ast.AST) -> Any: ...
    def unknown(self, node: ast.AST, origin: str = "", text: str = "", parts: tuple[Any, ...] = ()) -> Unknown: ...


def hard(value: Any) -> Any:
    """Return a value without the mark of a default."""
    while type(value) is Soft:
        value = value.value
    return value


def parts_of(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the parts of a text: texts, and values that only Airflow knows. Empty if they are unknown."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, (Soft, Unknown)) and value.parts:
            found += value.parts
        elif (type(value) is Soft and not value.derived) or (isinstance(value, Unknown) and ":" in value.origin):
            found.append(value)
        else:
            return ()
    return tuple(found)


def shape(value: Any) -> str:
    """Return the known part of a value's text: ``{…}`` stands for the rest."""
    value = hard(value)
    if isinstance(value, Member):
        value = value.attributes["_value_"]
    if isinstance(value, Unknown):
        return value.text or "{" + value.source.strip()[:60] + "}"
    return str(value) if isinstance(value, (str, int, float)) else "{…}"
