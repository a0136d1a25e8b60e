"""Python's assignments: to names, attributes, items and several of them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.expressions import Expressions
from flowyml.migration.airflow.reader.nodes import Held
from flowyml.migration.airflow.reader.operations import LARGEST

_IN_PLACE: Mapping[tuple[type, type[ast.operator]], str] = {
    (dict, ast.BitOr): "update",
    (set, ast.BitOr): "update",
    (set, ast.BitAnd): "intersection_update",
    (set, ast.Sub): "difference_update",
    (set, ast.BitXor): "symmetric_difference_update",
}
"""The methods behind ``|=`` and similar operators: all users of the container see the change."""


_IN_PLACE_METHODS: Mapping[type[ast.operator], str] = {
    ast.Add: "__iadd__",
    ast.Sub: "__isub__",
    ast.BitOr: "__ior__",
    ast.RShift: "__irshift__",
}


class Assignments(Expressions):
    """Binds values in the current scope, and unbinds them."""

    def _assign(self, node: ast.Assign) -> None:
        value = self.eval(node.value)
        for target in node.targets:
            self.assign(target, value)

    def _annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.eval(node.value))

    def _augmented(self, node: ast.AugAssign) -> None:
        old, put = self._place_of(node.target)
        new = self.eval(node.value)
        if isinstance(node.op, ast.Add) and isinstance(values.hard(old), list):
            items = self.iterate(new, node.value)
            if items is None or len(items) + len(values.hard(old)) > LARGEST:
                self.warn("unknown-call", f"what `{self.source(node)[:80]}` adds is unknown", node)
            else:
                self._by_default(new, f"what `{self.source(node)[:80]}` adds", node)
                self.context.changed += 1
                values.hard(old).extend(items)
            return
        if (method := _IN_PLACE.get((type(values.hard(old)), type(node.op)))) is not None:
            self.call_method(values.hard(old), method, values.Arguments.of(new), node)
            return
        owner = values.hard(old)
        if isinstance(owner, values.Instance) and (own := owner.special(_IN_PLACE_METHODS.get(type(node.op), ""))):
            put(self.call(self.bound(own, owner, node), values.Arguments.of(new), node))
            return
        put(self.operate(type(node.op), old, new, node))

    def _place_of(self, target: ast.expr) -> tuple[Any, Callable[[Any], None]]:
        """Evaluate an assignment's target once; return its value, and a function that replaces it."""
        match target:
            case ast.Attribute():
                owner = self.eval(target.value)
                name = self.mangled(target.attr)
                put = partial(self.assign_attribute, owner, name, node=target)
                return self.attribute(owner, name, target), put
            case ast.Subscript():
                owner, key = self.eval(target.value), self.eval(target.slice)
                return self.item(owner, key, target), partial(self._assign_item, values.hard(owner), key, node=target)
        return self.eval(target), partial(self.assign, target)

    def assign(self, target: ast.expr, value: Any) -> None:
        """Bind a value to a name, an attribute, an item or several of them."""
        match target:
            case ast.Name():
                self.bind(target.id, value)
            case ast.Attribute():
                self.assign_attribute(self.eval(target.value), self.mangled(target.attr), value, target)
            case ast.Subscript():
                self._assign_item(values.hard(self.eval(target.value)), self.eval(target.slice), value, target)
            case ast.Tuple() | ast.List():
                self._unpack(target.elts, value, target)
            case ast.Starred():
                self.assign(target.value, value)

    def assign_attribute(self, owner: Any, name: str, value: Any, node: ast.AST) -> None:
        owner = values.hard(owner)
        self.context.changed += 1
        if isinstance(owner, values.Instance):
            found = owner.cls.find(name) if owner.cls is not None else None
            setter = (
                owner.cls.find("__setattr__") if isinstance(owner, values.Items) and owner.cls is not None else None
            )
            if (
                name == "__dict__"
                and type(owner) in (values.Instance, values.Items)
                and isinstance(values.hard(value), dict)
            ):
                owner.attributes = values.hard(value)
                return
            if isinstance(setter, (values.Function, values.Native)):
                self.call(setter, values.Arguments.of(owner, name, value), node)
                return
            if isinstance(found, values.Function) and found.setter is not None:
                self.call(values.Bound(found.setter, owner), values.Arguments.of(value), node)
            elif not self.world.assign(owner, name, value, node):
                owner.attributes[name] = value
        elif (names := _names_of(owner)) is not None:
            names[name] = value
        else:
            self.world.assign(owner, name, value, node)

    def _assign_item(self, owner: Any, key: Any, value: Any, node: ast.AST) -> None:
        self._by_default(key, f"where `{self.source(node)[:80]}` stands", node)
        if isinstance(owner, (dict, list)) and isinstance(values.hard(key), values.Unknown):
            self.warn("unknown-call", f"what `{self.source(node)[:80]}` replaces is unknown", node)
        key = self.settle([key])[0][0]
        self._held(owner, node)
        self.context.changed += 1
        if isinstance(owner, values.Instance) and (method := owner.special("__setitem__")):
            self.call(self.bound(method, owner, node), values.Arguments.of(key, value), node)
        elif isinstance(owner, (dict, list)) and self.light(key):
            self.attempt(node, owner.__setitem__, key, value)
        elif isinstance(owner, MutableMapping):
            self.call_method(owner, "__setitem__", values.Arguments.of(key, value), node)
        else:
            self.world.assign_item(owner, key, value, node)

    def _held(self, owner: Any, node: ast.AST) -> None:
        if isinstance(owner, Held):
            text = f"`{self.source(node)[:80]}` is what Airflow holds: the import ignores the change"
            self.warn("unknown-call", text, node)

    def _unpack(self, targets: list[ast.expr], value: Any, node: ast.expr) -> None:
        items = self.iterate(value, node)
        starred = next((index for index, one in enumerate(targets) if isinstance(one, ast.Starred)), None)
        if items is None:
            items = [self.unknown(one) for one in targets]
        elif starred is not None:
            after = len(targets) - starred - 1
            middle = items[starred : len(items) - after]
            items = [*items[:starred], middle, *items[len(items) - after :]]
        if len(items) != len(targets):
            self.fail("ValueError", "unpacks another number of values", node)
            items = [self.unknown(one) for one in targets]
        for one, item in zip(targets, items, strict=True):
            self.assign(one, self.soft(item, value))

    def _by_default(self, value: Any, what: str, node: ast.AST) -> None:
        """Warn that a default decides the content of a container, which does not show it."""
        if type(value) is values.Soft:
            self.warn("default-taken", f"{what} depends on the default of {value.origin}", node)

    def _delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.scope.names.pop(target.id, None)
            elif isinstance(target, ast.Subscript):
                owner, key = values.hard(self.eval(target.value)), values.hard(self.eval(target.slice))
                self._held(owner, target)
                self.context.changed += 1
                if isinstance(owner, values.Instance) and (method := owner.special("__delitem__")):
                    self.call(self.bound(method, owner, target), values.Arguments.of(key), target)
                elif isinstance(owner, (dict, list)):
                    self.attempt(node, owner.__delitem__, key)
            elif isinstance(target, ast.Attribute):
                self.delete_attribute(values.hard(self.eval(target.value)), self.mangled(target.attr))

    def delete_attribute(self, owner: Any, name: str) -> None:
        """Delete ``owner.name``."""
        self.context.changed += 1
        if isinstance(owner, values.Items) and isinstance(
            found := owner.cls and owner.cls.find("__delattr__"), values.Native
        ):
            found.call(self, values.Arguments.of(owner, name), ast.Pass())
        elif (names := owner.attributes if isinstance(owner, values.Instance) else _names_of(owner)) is not None:
            names.pop(name, None)

    def _outer(self, node: ast.Global | ast.Nonlocal) -> None:
        if isinstance(node, ast.Global):
            self.scope.globals_ |= frozenset(node.names)
        else:
            self.scope.nonlocals |= frozenset(node.names)


def _names_of(owner: Any) -> dict[str, Any] | None:
    """Return the attributes that a file gives to a module, class or function; None for any other value."""
    match owner:
        case values.Module():
            return owner.scope.names
        case values.Class():
            return owner.names
        case values.Function():
            return owner.attributes
    return None
