"""Attributes of modules, classes, instances and plain data, and the methods of plain data."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flowyml.migration.airflow.reader import operations, values
from flowyml.migration.airflow.reader.machine import MISSING, Base, short


class Members(Base):
    """Attributes, as written in a file."""

    def attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        """Return ``value.name``."""
        if type(value) is values.Soft:
            found = self.attribute(value.value, name, node)
            return _of_default(found, value) if isinstance(found, values.Native) else self.soft(found, value)
        finder = _FINDERS.get(type(value))
        if finder is not None:
            return finder(self, value, name, node)
        found = self.world.attribute(value, name, node)
        if found is not MISSING:
            return found
        if isinstance(value, values.Instance):
            return self.instance_attribute(value, name, node)
        if isinstance(value, values.Either):
            return self.either(node, [self.attribute(one, name, node) for one in value.options])
        if isinstance(value, values.Unknown):
            return self.unknown(node, origin=f"call:{value.path}" if isinstance(value, values.ForeignValue) else "")
        return self.plain_attribute(value, name, node)

    def either(self, node: ast.AST, options: list[Any]) -> Any:
        """Return one of several values; equal values count once."""
        kept: list[Any] = []
        for one in (one for each in options for one in (each.options if isinstance(each, values.Either) else (each,))):
            if not any(one is other or _same(one, other) for other in kept):
                kept.append(one)
        if len(kept) == 1:
            return kept[0]
        if len(kept) > 20:
            return self.unknown(node)
        return values.Either(self.source(node)[:2000], self.place(node), options=tuple(kept))

    def plain_attribute(self, value: Any, name: str, node: ast.AST) -> Any:
        kind = operations.kind_of(value)
        if kind is None:
            return self.unknown(node)
        if name in operations.METHODS[kind] or name in ("sort", "format", "format_map"):
            return values.Native(name, lambda _, arguments, where: self.call_method(value, name, arguments, where))
        if kind in operations.FIELDS and name in operations.FIELDS[kind]:
            return getattr(value, name)
        if isinstance(value, str) and name in ("value", "name"):
            return value  # a member of an enumeration of Airflow's, represented by its text
        if name.startswith("__"):
            return self.unknown(node)
        return self.fail("AttributeError", f"{type(value).__name__} has no attribute {name}", node)

    def call_method(self, value: Any, name: str, arguments: values.Arguments, node: ast.AST) -> Any:
        """Return a method of plain data; unknown arguments make the result unknown, unless items are only moved."""
        args = [_as_text(self.listed(given.value, node)) for given in arguments.positional]
        kwargs = {key: given.value for key, given in arguments.named.items()}
        self.step(1 + len(args))
        if name not in operations.STRUCTURAL.get(operations.kind_of(value) or type(value), frozenset()):
            parts = _parts_joined(value, name, args)
            args, kwargs, soft, known = self.settle(args, kwargs)
            if not known or arguments.open:
                if operations.changes(value, name):
                    self.lost[id(value)] = value
                return self.unknown(node, text=self.partial_text(value, name, args), parts=parts)
            if self.is_lost(value):
                return self.unknown(node)
            return self.soft(self._called(value, name, args, kwargs, node), *soft, parts=parts)
        self.context.changed += name in operations.CHANGES
        if not self.light([args, value] if name in ("index", "count", "remove") else keyed(name, args)):
            return self.unknown(node)
        if args and name in operations.KEYED and isinstance(values.hard(args[0]), values.Unknown):
            return self._at_unknown(value, name, args, node)
        froms = args if name in ("get", "pop", "index", "count") else ()
        if name in ("extend", "update", "union") and (
            first := next((arg for arg in args if type(arg) is values.Soft), None)
        ):
            text = f"what `{short(self.source(node))}` adds is the default of {first.origin}"
            self.warn("default-taken", text, node)
        args = [
            arg
            if name in ("append", "insert", "add") or (name in ("get", "pop", "setdefault") and index)
            else values.hard(arg)
            for index, arg in enumerate(args)
        ]
        if any(isinstance(arg, values.Unknown) for arg in args) and name in ("extend", "update", "union"):
            self.warn("unknown-call", f"what `{short(self.source(node))}` adds is unknown", node)
            return self.unknown(node)
        return self.soft(self._called(value, name, args, kwargs, node), *froms[:1])

    def _called(self, value: Any, name: str, args: list[Any], kwargs: dict[str, Any], node: ast.AST) -> Any:
        self.step(operations.effort(value, name, [*args, *kwargs.values()]))
        return self.attempt(
            node, lambda *args, **kwargs: operations.method(value, name, list(args), kwargs), *args, **kwargs
        )

    def _at_unknown(self, value: Any, name: str, args: list[Any], node: ast.AST) -> Any:
        """Return a method of a container for an unknown key or item."""
        if name in operations.CHANGES:
            self.warn("unknown-call", f"what `{short(self.source(node))}` changes is unknown", node)
        if name == "get" and 0 < len(value) <= 10:
            return self.either(node, [*value.values(), args[1] if len(args) > 1 else None])
        return self.unknown(node)

    def partial_text(self, value: Any, name: str, args: list[Any]) -> str:
        """Return the known part of a text whose parts are not all known."""
        if name == "join" and isinstance(value, str) and args and isinstance(args[0], (list, tuple)):
            return value[:300].join(values.shape(one)[:300] for one in args[0][:300])
        return ""

    def instance_attribute(self, value: values.Instance, name: str, node: ast.AST) -> Any:
        if name in value.attributes:
            return value.attributes[name]
        if name == "__class__" and value.cls is not None:
            return value.cls
        if name == "__dict__" and type(value) is values.Instance:
            own = {key: one for key, one in value.attributes.items() if not key.startswith("__")}
            return value.attributes if len(own) == len(value.attributes) else own
        if value.cls is not None:
            found = value.cls.find(name)
            if found is not None or any(name in one.names for one in value.cls.mro() if isinstance(one, values.Class)):
                return self.bound(found, value, node)
            if isinstance(value, values.Items) and name in operations.METHODS[dict]:
                return self.plain_attribute(value, name, node)
            fallback = value.cls.find("__getattr__")
            if isinstance(fallback, (values.Function, values.Native)) and not name.startswith("__"):
                return self.call(fallback, values.Arguments.of(value, name), node)
            if isinstance(value, values.Member):
                return self.plain_attribute(value.attributes["_value_"], name, node)
            foreign = value.cls.foreign()
            if not foreign and self.catches("AttributeError"):
                raise values.Raised("AttributeError", name)
            return self.unknown(node, origin=f"call:{foreign[0].path}" if foreign else "")
        return self.unknown(node)

    @contextmanager
    def about_to_make(self, cls: values.Class) -> Iterator[None]:
        """Mark the class that a metaclass is creating, or of which it is creating an instance."""
        self.making.append(cls)
        try:
            yield
        finally:
            self.making.pop()

    def of_type(self, name: str, made: values.Class) -> values.Native | None:
        """Return the methods of ``type`` for a class that a metaclass creates, or instantiates."""
        if name == "__call__":
            return values.Native(name, lambda machine, arguments, node: machine.instantiate(made, arguments, node))
        return values.Native(name, lambda *_: made if name == "__new__" else None)

    def bound(self, found: Any, owner: Any, node: ast.AST) -> Any:
        """Bind a class's attribute to an instance."""
        if isinstance(found, values.Function):
            match found.kind:
                case "static":
                    return found
                case "class":
                    return values.Bound(found, owner.cls if isinstance(owner, values.Instance) else owner)
                case "property":
                    return self.call(values.Bound(found, owner), values.Arguments(), node)
            return values.Bound(found, owner)
        if type(found) is values.Instance and (method := found.special("__get__")):
            return self.call(values.Bound(method, found), values.Arguments.of(owner, owner.cls), node)
        return found


def _of_foreign(machine: Members, value: values.Foreign, name: str, node: ast.AST) -> Any:
    path = f"{value.path}.{name}"
    found = machine.world.lookup(path)
    return values.Foreign(path) if found is MISSING else found


def _of_module(machine: Members, value: values.Module, name: str, node: ast.AST) -> Any:
    if name in value.scope.names:
        return value.scope.names[name]
    found = machine.submodule(value, name)
    if found is not None:
        return found
    if name == "__dict__":
        return value.scope.names
    if name == "__path__" and value.path.endswith("__init__.py"):
        return [value.path.removesuffix("/__init__.py")]
    if name in ("__name__", "__file__"):
        return value.name if name == "__name__" else value.path
    if value.stars:
        return values.Foreign(f"{value.stars[-1]}.{name}")
    return machine.fail("AttributeError", f"module {value.name} has no {name}", node)


def _of_class(machine: Members, value: values.Class, name: str, node: ast.AST) -> Any:
    found = value.find(name)
    if found is not None or any(name in one.names for one in value.mro() if isinstance(one, values.Class)):
        return values.Bound(found, value) if isinstance(found, values.Function) and found.kind == "class" else found
    if name in ("__name__", "__qualname__"):
        return value.name
    if name == "__dict__":
        return dict(value.names)
    if name == "__subclasses__":
        return values.Native(name, lambda *_: list(value.below))
    if value.meta is not None and (found := value.meta.find(name)) is not None:
        return values.Bound(found, value) if isinstance(found, values.Function) else found
    asked = machine.world.attribute(value, name, node)
    if asked is not MISSING:
        return asked
    foreign = value.foreign()
    return values.Foreign(f"{foreign[0].path}.{name}") if foreign else machine.unknown(node)


def _of_super(machine: Members, value: values.Super, name: str, node: ast.AST) -> Any:
    line = value.owner.cls if isinstance(value.owner, values.Instance) else value.owner
    found = line.find(name, after=value.cls) if isinstance(line, values.Class) else None
    if found is not None:
        return machine.bound(found, value.owner, node)
    if name == "__init__" and isinstance(value.owner, values.Instance):
        owner = value.owner

        return values.Native(name, lambda _, arguments, where: machine.world.initialise(owner, arguments, where))
    if name == "__new__" and isinstance(line, values.Class) and not any(one.name == "type" for one in line.mro()):
        return values.Native(name, lambda _, arguments, where: machine.world.allocate(line, where))
    if isinstance(value.owner, values.Items) and name in operations.METHODS[dict]:
        return machine.plain_attribute(value.owner, name, node)
    if name.startswith("__") and isinstance(value.owner, values.Instance):
        return machine.instance_attribute(value.owner, name, node)
    if isinstance(line, values.Class) and machine.making:  # of type, in a metaclass
        return machine.of_type(name, machine.making[-1])
    return machine.unknown(node)


def _of_function(machine: Members, value: values.Function, name: str, node: ast.AST) -> Any:
    if name in value.attributes:
        return value.attributes[name]
    if name in ("__name__", "__qualname__"):
        return value.name
    if value.kind == "property" and name == "setter":

        def with_setter(_: Any, given: values.Arguments, __: ast.AST) -> values.Function:
            setter = given.value("fset", 0)
            return replace(value, setter=setter) if isinstance(setter, values.Function) else value

        return values.Native(name, with_setter)
    if value.kind == "property" and name in ("deleter", "getter"):
        return values.Native(name, lambda *_: value)  # assigned values are stored unchanged
    if name == "__doc__":
        return None if isinstance(value.node, ast.Lambda) else ast.get_docstring(value.node, clean=False)
    return machine.unknown(node)


def _of_bound(machine: Members, value: values.Bound, name: str, node: ast.AST) -> Any:
    if name in ("__func__", "__self__"):
        return value.function if name == "__func__" else value.owner
    return machine.attribute(value.function, name, node)


_FINDERS: dict[type, Callable[[Members, Any, str, ast.AST], Any]] = {
    values.Foreign: _of_foreign,
    values.Module: _of_module,
    values.Class: _of_class,
    values.Super: _of_super,
    values.Bound: _of_bound,
    values.Function: _of_function,
}


def _of_default(method: values.Native, owner: values.Soft) -> values.Native:
    """Return a method of a default: its result is derived, unless it has a mark of its own (the parts of a text)."""

    def call(machine: Any, arguments: values.Arguments, node: ast.AST) -> Any:
        found = method.call(machine, arguments, node)
        return found if found is None or type(found) is values.Soft else machine.soft(found, owner)

    return values.Native(method.name, call)


def _parts_joined(value: Any, name: str, args: list[Any]) -> tuple[Any, ...]:
    """Return the parts of ``value.join(args[0])``."""
    if name != "join" or not isinstance(value, str) or not args or not isinstance(args[0], (list, tuple)):
        return ()
    return values.parts_of([each for item in args[0] for each in (value, item)][1:])


def _as_text(value: Any) -> Any:
    """Replace members of an enumeration of texts in a list by those texts."""
    items = values.hard(value)
    if type(items) in (list, tuple, values.Once) and any(isinstance(one, values.Member) for one in items):
        return type(items)(one.attributes["_value_"] if isinstance(one, values.Member) else one for one in items)
    return value


def keyed(name: str, args: list[Any]) -> list[Any]:
    """Return the hashed arguments of a method."""
    return args[:1] if name in ("add", "get", "setdefault", "pop", "discard") else args if name in _OF_SETS else []


_OF_SETS = operations.METHODS[frozenset] | {name for name in operations.METHODS[set] if name.endswith("update")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, values.Foreign) and isinstance(
        other, values.Foreign
    ):  # versions of Airflow have the same in other places
        return one.name == other.name and all(each.path.startswith("airflow.") for each in (one, other))
    plain = (str, int, float, bool, type(None))
    return isinstance(one, plain) and isinstance(other, plain) and type(one) is type(other) and one == other
