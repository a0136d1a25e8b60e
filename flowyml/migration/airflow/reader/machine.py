"""The state of an evaluation: steps, places, names, attributes, truth, and what happens when something is not known."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowyml.migration.airflow.model import DagWarning, Place
from flowyml.migration.airflow.reader.context import Context
from flowyml.migration.airflow.reader.files import Files, Refused
from flowyml.migration.airflow.reader.operations import FIELDS, METHODS, STRUCTURAL, TooLarge, kind_of, method
from flowyml.migration.airflow.reader.parts import light, mentions, settle
from flowyml.migration.airflow.reader.values import (
    Arguments,
    Bound,
    Class,
    Either,
    Foreign,
    ForeignValue,
    Function,
    Given,
    Instance,
    Machine,
    Module,
    Native,
    Once,
    OutOfSteps,
    Raised,
    Scope,
    Soft,
    Super,
    Unknown,
    hard,
    parts_of,
    shape,
)

__all__ = ["MISSING", "Base", "Options", "World", "is_a", "short"]

_DEEP = 40


@dataclass(frozen=True, slots=True)
class Options:
    """What a reading goes by: how many ``steps`` a file gets, which ``variables`` and ``env`` Airflow would have."""

    steps: int = 1_500_000
    env: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)


class World(Protocol):
    """What Airflow's own names do: the one part of an evaluation that is not Python."""

    def lookup(self, path: str) -> Any: ...
    def call_foreign(self, function: Foreign, arguments: Arguments, node: ast.AST) -> Any: ...
    def call_unknown(self, function: Any, arguments: Arguments, node: ast.AST) -> Any: ...
    def call_value(self, function: Any, arguments: Arguments, node: ast.AST) -> Any: ...
    def attribute(self, value: Any, name: str, node: ast.AST) -> Any: ...
    def assign(self, value: Any, name: str, new: Any, node: ast.AST) -> bool: ...
    def item(self, value: Any, key: Any, node: ast.AST) -> Any: ...
    def operate(self, kind: type[ast.operator], left: Any, right: Any, node: ast.AST) -> Any: ...
    def enter(self, value: Any, node: ast.AST) -> Any: ...
    def leave(self, value: Any, node: ast.AST) -> None: ...
    def allocate(self, cls: Class, node: ast.AST) -> Instance: ...
    def initialise(self, instance: Instance, arguments: Arguments, node: ast.AST) -> None: ...
    def defaults(self, instance: Instance, arguments: Arguments, names: list[str]) -> None: ...
    def finish(self, instance: Instance, arguments: Arguments, node: ast.AST) -> None: ...


MISSING: Any = object()
"""What `World` answers where it has nothing to say."""


class Base(Machine):
    """What expressions, statements and calls stand on."""

    world: World

    def __init__(self, files: Files, options: Options) -> None:
        self.files = files
        self.options = options
        self.steps = 0
        self.depth = 0
        self.context = Context()
        self.warnings: list[DagWarning] = []
        self.modules: dict[str, Module] = {}
        self.builtins: Mapping[str, Any] = {}
        self.catching: list[set[str]] = []
        self.module = Module("", "", "", "", Scope({}, kind="module"))
        self.scope = self.module.scope
        self.defaults_taken: dict[str, Place] = {}
        self.iterators: list[Once] = []

    # Bounds and places

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > self.options.steps:
            raise OutOfSteps

    def place(self, node: ast.AST) -> Place:
        line = getattr(node, "lineno", 1)
        return Place(self.module.place, line, getattr(node, "end_lineno", None) or line)

    def source(self, node: ast.AST) -> str:
        return self.module.source(node)

    def unknown(self, node: ast.AST, origin: str = "", text: str = "", parts: tuple[Any, ...] = ()) -> Unknown:
        return Unknown(self.source(node)[:2000], self.place(node), origin, text[:300], parts)

    def warn(self, code: str, text: str, node: ast.AST) -> None:
        """Notes what is not certain, once: with the DAG that is open, else with the file."""
        dag = self.context.dag()
        kept = dag.warnings if dag is not None else self.warnings
        warning = DagWarning(code, text, self.place(node))
        if warning not in kept and len(kept) < 500:
            kept.append(warning)

    # Errors

    def catches(self, kind: str) -> bool:
        """Whether a ``try`` around what is evaluated has a handler for this class of exceptions."""
        return any(is_a(kind, name) for names in self.catching for name in names)

    def attempt(self, node: ast.AST, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls Python on plain data. What it raises is raised in the file if that catches it, else it is reported."""
        try:
            found = function(*args, **kwargs)
            if isinstance(found, (str, bytes, list, tuple, set, dict)):
                self.step(len(found) // 100)  # what it takes of the memory
            return found
        except (Raised, OutOfSteps, RecursionError):
            raise
        except TooLarge:
            return self.unknown(node)
        except Refused as error:
            self.warn("unread", str(error), node)
            return self.fail("FileNotFoundError", str(error), node)
        except Exception as error:  # what Python raises on data of the file's own making
            return self.fail(type(error).__name__, str(error), node)

    def fail(self, kind: str, text: str, node: ast.AST) -> Unknown:
        caught = self.catches(kind)
        if not caught or kind in ("NameError", "AttributeError", "TypeError"):
            self.warn("raises", f"`{short(self.source(node))}` raises {kind}: {short(text)}", node)
        if caught:
            raise Raised(kind, text)
        return self.unknown(node)

    # Names

    def lookup(self, name: str, node: ast.AST) -> Any:
        scope: Scope | None = self.scope
        if scope is not None and name in scope.globals_:
            scope = self.module.scope
        first = True
        while scope is not None:
            if name in scope.names and (first or scope.kind != "class"):
                return scope.names[name]
            first = False
            scope = scope.parent
        if name in self.builtins:
            return self.builtins[name]
        return self._missing(name, node)

    def _missing(self, name: str, node: ast.AST) -> Any:
        if self.module.stars:
            return Foreign(f"{self.module.stars[-1]}.{name}")
        return self.fail("NameError", f"name {name!r} is not defined", node)

    def bind(self, name: str, value: Any) -> None:
        scope = self.scope
        if name in scope.globals_:
            scope = self.module.scope
        elif name in scope.nonlocals:
            outer = scope.parent
            while outer is not None and name not in outer.names:
                outer = outer.parent
            scope = outer or scope
        scope.names[name] = value

    @contextmanager
    def inside(self, scope: Scope, module: Module) -> Iterator[None]:
        """Evaluates in another scope, of another module maybe. Bounds how deep calls go."""
        kept = self.scope, self.module
        self.scope, self.module = scope, module
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            self.scope, self.module = kept

    def elsewhere(self, text: str, action: Callable[[], Any]) -> Any:
        """Evaluates text that does not stand in the file: places in it are those of its own lines."""
        module = self.module
        inner = Module(module.name, module.path, module.place, text, module.scope, module.package)
        with self.inside(self.scope, inner):
            return self.unknown(ast.Pass()) if self.too_deep else action()

    @property
    def too_deep(self) -> bool:
        return self.depth >= _DEEP

    # Truth and iteration

    def truth(self, value: Any) -> bool | None:
        """Whether a value is true, None where that is not known."""
        value = hard(value)
        if isinstance(value, Unknown):
            return None
        if isinstance(value, Foreign):
            return None if value.name.isupper() else True
        if isinstance(value, Instance) and value.cls is not None:
            for name in ("__bool__", "__len__"):
                if method := value.special(name):
                    return self.truth(self.call(Bound(method, value), Arguments(), value.cls.node))
        if isinstance(value, (Instance, Function, Class, Native, Module, Bound, Once)):
            return True
        return bool(value)

    def soft(self, value: Any, *froms: Any, parts: tuple[Any, ...] = ()) -> Any:
        """The value, marked as made of a default if what it was made from was one. A text is of ``parts``."""
        for one in froms:
            if type(one) is Soft:
                if isinstance(value, Unknown):
                    return value
                return Soft(hard(value), one.origin, one.source, one.place, True, parts)
        return value

    def of_defaults(self, value: Any, froms: Iterable[Any], node: ast.AST) -> Any:
        """A container, marked if what chose its items was a default. One of more than plain data cannot be: it is said.

        Tasks, functions and the like in it are those of the default.
        """
        first = next((one for one in froms if type(one) is Soft), None)
        if first is None or isinstance(value, Unknown):
            return value
        if light(value) and not mentions(value) and settle([value])[3]:
            return self.soft(value, first)
        self.warn("default-taken", f"what is in `{short(self.source(node))}` is by the default of {first.origin}", node)
        return value

    # Attributes

    def attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        """``value.name``."""
        if type(value) is Soft:
            found = self.attribute(value.value, name, node)
            return self._soft_native(found, value) if isinstance(found, Native) else self.soft(found, value)
        finder = _FINDERS.get(type(value))
        if finder is not None:
            return finder(self, value, name, node)
        found = self.world.attribute(value, name, node)
        if found is not MISSING:
            return found
        if isinstance(value, Instance):
            return self.instance_attribute(value, name, node)
        if isinstance(value, Either):
            return self.either(node, [self.attribute(one, name, node) for one in value.options])
        if isinstance(value, Unknown):
            return self.unknown(node, origin=f"call:{value.path}" if isinstance(value, ForeignValue) else "")
        return self.plain_attribute(value, name, node)

    def _soft_native(self, found: Native, owner: Soft) -> Native:
        """A method of a default: what it returns is made of that default."""
        return Native(
            found.name,
            lambda machine, arguments, node: _marked(machine, found.call(machine, arguments, node), owner),
        )

    def either(self, node: ast.AST, options: list[Any]) -> Any:
        """One of several values; those that are equal count once."""
        kept: list[Any] = []
        for one in _unfolded(options):
            if not any(one is other or _same(one, other) for other in kept):
                kept.append(one)
        if len(kept) == 1:
            return kept[0]
        if len(kept) > 20:
            return self.unknown(node)
        return Either(self.source(node)[:2000], self.place(node), options=tuple(kept))

    def plain_attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        kind = kind_of(value)
        if kind is None:
            return self.unknown(node)
        if name in METHODS[kind] or name in ("sort", "format"):
            return Native(name, lambda _, arguments, where: self.call_method(value, name, arguments, where))
        if kind in FIELDS and name in FIELDS[kind]:
            return getattr(value, name)
        if isinstance(value, str) and name in ("value", "name"):
            return value  # a member of an enumeration of Airflow's, which stands as its text
        if name.startswith("__"):
            return self.unknown(node)
        return self.fail("AttributeError", f"{type(value).__name__} has no attribute {name}", node)

    def call_method(self, value: Any, name: str, arguments: Arguments, node: ast.AST) -> Any:
        """A method of plain data; unknown arguments make an unknown result, except where items are only moved about."""
        args = [self.listed(given.value, node) for given in arguments.positional]
        kwargs = {key: given.value for key, given in arguments.named.items()}
        self.step(1 + len(args))
        if name not in STRUCTURAL.get(type(value), frozenset()):
            parts = _parts_joined(value, name, args)
            args, kwargs, soft, known = settle(args, kwargs)
            if not known or arguments.open:
                return self.unknown(node, text=self.partial_text(value, name, args), parts=parts)
            return self.soft(self.attempt(node, method, value, name, args, kwargs), *soft, parts=parts)
        if not light([args, value] if name in ("index", "count", "remove") else keyed(name, args)):
            return self.unknown(node)
        froms = args if name in ("get", "pop", "index", "count") else ()
        if name in ("extend", "update", "union") and (first := next((arg for arg in args if type(arg) is Soft), None)):
            text = f"what `{short(self.source(node))}` adds is the default of {first.origin}"
            self.warn("default-taken", text, node)
        args = [
            arg
            if name in ("append", "insert", "add") or (name in ("get", "pop", "setdefault") and index)
            else hard(arg)
            for index, arg in enumerate(args)
        ]
        if any(isinstance(arg, Unknown) for arg in args) and name in ("extend", "update", "union"):
            self.warn("unknown-call", f"what `{short(self.source(node))}` adds is not known", node)
            return self.unknown(node)
        return self.soft(self.attempt(node, method, value, name, args, kwargs), *froms[:1])

    def partial_text(self, value: Any, name: str, args: list[Any]) -> str:
        """What is known of a text whose parts are not all known."""
        if name == "join" and isinstance(value, str) and args and isinstance(args[0], (list, tuple)):
            return value.join(shape(one) for one in args[0])
        return ""

    def instance_attribute(self, value: Instance, name: str, node: ast.AST) -> Any:
        if name in value.attributes:
            return value.attributes[name]
        if name == "__class__" and value.cls is not None:
            return value.cls
        if value.cls is not None:
            found = value.cls.find(name)
            if found is not None or any(name in one.names for one in value.cls.mro() if isinstance(one, Class)):
                return self.bound(found, value, node)
            fallback = value.cls.find("__getattr__")
            if isinstance(fallback, Function) and not name.startswith("__"):
                return self.call(Bound(fallback, value), Arguments([Given(name)]), node)
            foreign = value.cls.foreign()
            if not foreign and self.catches("AttributeError"):
                raise Raised("AttributeError", name)
            return self.unknown(node, origin=f"call:{foreign[0].path}" if foreign else "")
        return self.unknown(node)

    def bound(self, found: Any, owner: Any, node: ast.AST) -> Any:
        """A class's attribute, taken through an instance."""
        if isinstance(found, Function):
            match found.kind:
                case "static":
                    return found
                case "class":
                    return Bound(found, owner.cls if isinstance(owner, Instance) else owner)
                case "property":
                    return self.call(Bound(found, owner), Arguments(), node)
            return Bound(found, owner)
        return found


def _unfolded(options: list[Any]) -> list[Any]:
    return [one for each in options for one in (each.options if isinstance(each, Either) else (each,))]


def _of_foreign(machine: Base, value: Foreign, name: str, node: ast.AST) -> Any:
    path = f"{value.path}.{name}"
    found = machine.world.lookup(path)
    return Foreign(path) if found is MISSING else found


def _of_module(machine: Base, value: Module, name: str, node: ast.AST) -> Any:
    if name in value.scope.names:
        return value.scope.names[name]
    found = machine.submodule(value, name)  # type: ignore[attr-defined]
    if found is not None:
        return found
    if name == "__dict__":
        return value.scope.names
    if name in ("__name__", "__file__"):
        return value.name if name == "__name__" else value.path
    if value.stars:
        return Foreign(f"{value.stars[-1]}.{name}")
    return machine.fail("AttributeError", f"module {value.name} has no {name}", node)


def _of_class(machine: Base, value: Class, name: str, node: ast.AST) -> Any:
    found = value.find(name)
    if found is not None or any(name in one.names for one in value.mro() if isinstance(one, Class)):
        return Bound(found, value) if isinstance(found, Function) and found.kind == "class" else found
    if name == "__name__":
        return value.name
    asked = machine.world.attribute(value, name, node)
    if asked is not MISSING:
        return asked
    foreign = value.foreign()
    return Foreign(f"{foreign[0].path}.{name}") if foreign else machine.unknown(node)


def _of_super(machine: Base, value: Super, name: str, node: ast.AST) -> Any:
    line = value.owner.cls if isinstance(value.owner, Instance) else value.owner
    found = line.find(name, after=value.cls) if isinstance(line, Class) else None
    if found is not None:
        return machine.bound(found, value.owner, node)
    if name == "__init__" and isinstance(value.owner, Instance):
        owner = value.owner

        def initialise(_: Machine, arguments: Arguments, where: ast.AST) -> None:
            machine.world.initialise(owner, arguments, where)

        return Native("__init__", initialise)
    if name.startswith("__") and isinstance(value.owner, Instance):
        return machine.instance_attribute(value.owner, name, node)
    return machine.unknown(node)


def _of_function(machine: Base, value: Function, name: str, node: ast.AST) -> Any:
    if name in ("__name__", "__qualname__"):
        return value.name
    if value.kind == "property" and name in ("setter", "deleter", "getter"):
        return Native(name, lambda *_: value)  # what is assigned is kept as it is
    if name == "__doc__":
        return None if isinstance(value.node, ast.Lambda) else ast.get_docstring(value.node, clean=False)
    return machine.unknown(node)


_FINDERS: dict[type, Callable[[Base, Any, str, ast.AST], Any]] = {
    Foreign: _of_foreign,
    Module: _of_module,
    Class: _of_class,
    Super: _of_super,
    Function: _of_function,
}


def _marked(machine: Base, found: Any, owner: Soft) -> Any:
    """What a method of a default returned, as made of it, unless it says more itself (the parts of a text)."""
    return found if found is None or type(found) is Soft else machine.soft(found, owner)


def _parts_joined(value: Any, name: str, args: list[Any]) -> tuple[Any, ...]:
    """The parts of ``value.join(args[0])``."""
    if name != "join" or not isinstance(value, str) or not args or not isinstance(args[0], (list, tuple)):
        return ()
    return parts_of([each for item in args[0] for each in (value, item)][1:])


def keyed(name: str, args: list[Any]) -> list[Any]:
    """The arguments of a method that are hashed."""
    return args[:1] if name in ("add", "get", "setdefault", "pop", "discard") else []


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Foreign) and isinstance(other, Foreign):  # versions of Airflow have the same in other places
        return one.name == other.name and all(each.path.startswith("airflow.") for each in (one, other))
    plain = (str, int, float, bool, type(None))
    return isinstance(one, plain) and isinstance(other, plain) and type(one) is type(other) and one == other


def is_a(kind: str, handler: str) -> bool:
    """Whether a handler of one class of exceptions catches another, both by their names."""
    if handler in ("", "Exception", "BaseException", kind):
        return True
    one, other = getattr(builtins, kind, None), getattr(builtins, handler, None)
    return isinstance(one, type) and isinstance(other, type) and issubclass(one, other)


def short(text: str) -> str:
    """A text in one line, for a message."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
