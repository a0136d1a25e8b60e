"""Python's protocols on values, known or not: operators, comparison, items, iteration, text."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from flowyml.migration.airflow.model import DagWarning
from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.machine import MISSING, short
from flowyml.migration.airflow.reader.members import Members
from flowyml.migration.airflow.reader.nodes import XCom
from flowyml.migration.airflow.reader.operations import COMPARE, LARGEST, binary, effort, formatted


class Protocols(Members):
    """Operators and loops on values. An unknown value makes the result unknown."""

    # Operators

    def operate(self, kind: type[ast.operator], left: Any, right: Any, node: ast.AST) -> Any:
        """Apply an operator to ``left`` and ``right``."""
        self.step()
        found = self.world.operate(kind, left, right, node)
        if found is not MISSING:
            return found
        one, other = _plain(left), _plain(right)
        if kind is ast.Mod and isinstance(one, str):
            return self._percent(one, right, left, node)
        parts = values.parts_of([left, right]) if kind is ast.Add and (_is_text(left) or _is_text(right)) else ()
        if isinstance(one, (values.Unknown, values.Foreign)) or isinstance(other, (values.Unknown, values.Foreign)):
            text = values.shape(one) + values.shape(other) if kind is ast.Add else ""
            return self.unknown(node, text=text, parts=parts)
        if (
            kind is ast.BitOr
            and isinstance(one, (values.Native, values.Class))
            and isinstance(other, (values.Native, values.Class, type(None)))
        ):
            return (one, other)  # a union of classes, as `isinstance` takes it
        if isinstance(one, values.Instance) or isinstance(other, values.Instance):
            return self._dunder(kind, one, other, node)
        return self.soft(self.attempt(node, binary, kind, one, other), left, right, parts=parts)

    def _dunder(self, kind: type[ast.operator], left: Any, right: Any, node: ast.AST) -> Any:
        for owner, other, prefix in ((left, right, "__"), (right, left, "__r")):
            name = _DUNDERS.get(kind)
            if name and isinstance(owner, values.Instance) and (method := owner.special(f"{prefix}{name}__")):
                return self.call(self.bound(method, owner, node), values.Arguments.of(other), node)
        return self.unknown(node)

    def _percent(self, text: str, value: Any, left: Any, node: ast.AST) -> Any:
        given = values.hard(value)
        if isinstance(given, values.Instance):
            value = self._shown(given, node)
        elif isinstance(given, tuple) and any(isinstance(values.hard(one), values.Instance) for one in given):
            value = tuple(
                self._shown(values.hard(one), node) if isinstance(values.hard(one), values.Instance) else one
                for one in given
            )
        (plain,), _, soft, known = self.settle([value])
        parts = () if type(left) is values.Soft else _parts_of_percent(text, value)
        if not known:
            items = plain if isinstance(plain, tuple) else (plain,)
            shown = text[:2000]
            for part in items[:500] if not isinstance(plain, dict) else ():
                shown = shown.replace("%s", values.shape(part)[:500], 1)
            return self.unknown(node, text=shown[:500], parts=parts)
        return self.soft(self.attempt(node, binary, ast.Mod, text, plain), left, *soft, parts=parts)

    def compare(self, kind: type[ast.cmpop], left: Any, right: Any, node: ast.AST) -> Any:
        self.step()
        one, other = values.hard(left), values.hard(right)
        if isinstance(one, values.Unknown) or isinstance(other, values.Unknown):
            return self.unknown(node)
        if isinstance(one, values.Foreign) or isinstance(other, values.Foreign):
            return self._compare_foreign(kind, one, other, node)
        if kind in (ast.In, ast.NotIn):
            return self._contained(kind, left, right, node)
        if isinstance(one, values.Instance) or isinstance(other, values.Instance):
            if kind in _ORDERS:
                return self._ordered(kind, one, other, node)
            if kind in (ast.Eq, ast.NotEq) and type(one) is type(other) is values.Instance:
                return self._equal(kind, one, other, node)
            one, other = (_fields_of(each) if _is_tuple(each) else each for each in (one, other))
        if not self.light([one, other]):
            return self.unknown(node)
        (one, other), _, soft, _ = self.settle((one, other))
        return self.soft(self.attempt(node, COMPARE[kind], one, other), left, right, *soft)

    def _contained(self, kind: type[ast.cmpop], left: Any, right: Any, node: ast.AST) -> Any:
        """Return ``left in right``, or ``left not in right``."""
        one, other = values.hard(left), values.hard(right)
        if isinstance(other, values.Class):
            items = self.iterate(other, node)
            return self.unknown(node) if items is None else self.compare(kind, one, items, node)
        if isinstance(other, values.Instance):
            return self._within(kind, one, other, node)
        if isinstance(one, values.Instance) and isinstance(other, (list, tuple)):
            found = self._among_items(one, other, node)
            return self.unknown(node) if found is None else found is (kind is ast.In)
        if not self.light([one, other]):
            return self.unknown(node)
        (one, other), _, soft, _ = self.settle([one, other])
        if isinstance(other, (list, tuple, set)) and any(
            isinstance(values.hard(item), values.Unknown) for item in other
        ):
            among = any(one == item for item in other if not isinstance(values.hard(item), values.Unknown))
            return True if kind is ast.In and among else self.unknown(node)
        self.step(effort(other, "__contains__", [one]))
        return self.soft(self.attempt(node, COMPARE[kind], one, other), left, right, *soft)

    def _equal(self, kind: type[ast.cmpop], one: values.Instance, other: values.Instance, node: ast.AST) -> Any:
        """Return whether instances are equal: by ``__eq__``, for a dataclass by its fields, else by identity."""
        if method := one.special("__eq__"):
            found = self.truth(self.call(self.bound(method, one, node), values.Arguments.of(other), node))
        elif one is other or one.cls is None or one.cls is not other.cls or one.cls.fields is None:
            found = one is other
        else:
            pairs = [(one.attributes.get(name), other.attributes.get(name)) for name in one.cls.fields]
            answers = [self.truth(self.compare(ast.Eq, *pair, node)) for pair in pairs]
            found = False if False in answers else None if None in answers else True
        return self.unknown(node) if found is None else found is (kind is ast.Eq)

    def _ordered(self, kind: type[ast.cmpop], one: Any, other: Any, node: ast.AST) -> Any:
        """Compare instances by ``<`` and the like: by their methods, or by fields as tuples and dataclasses do."""
        for owner, against, name in ((one, other, _ORDERS[kind][0]), (other, one, _ORDERS[kind][1])):
            if isinstance(owner, values.Instance) and (method := owner.special(name)):
                return self.call(self.bound(method, owner, node), values.Arguments.of(against), node)
        left, right = (_fields_of(_plain(each)) for each in (one, other))
        if isinstance(left, values.Instance) or isinstance(right, values.Instance):
            return self.unknown(node)
        return self.compare(kind, left, right, node)

    def _among_items(self, one: values.Instance, items: Any, node: ast.AST) -> bool | None:
        answers = [self.truth(self.compare(ast.Eq, one, item, node)) for item in items]
        return True if True in answers else None if None in answers else False

    def _within(self, kind: type[ast.cmpop], one: Any, other: values.Instance, node: ast.AST) -> Any:
        """Return ``one in other`` for an instance that has ``__contains__`` or is iterable."""
        if method := other.special("__contains__"):
            found = self.truth(self.call(self.bound(method, other, node), values.Arguments.of(one), node))
        elif (items := self.iterate(other, node)) is None:
            found = None
        else:
            found = self._among_items(one, items, node) if isinstance(one, values.Instance) else one in items
        return self.unknown(node) if found is None else found is (kind is ast.In)

    def _compare_foreign(self, kind: type[ast.cmpop], one: Any, other: Any, node: ast.AST) -> Any:
        if kind in (ast.Is, ast.IsNot, ast.Eq, ast.NotEq):
            yes = kind in (ast.Is, ast.Eq)
            if isinstance(one, values.Foreign) and isinstance(other, values.Foreign) and one.path == other.path:
                return yes
            if one is None or other is None:
                return not yes
        return self.unknown(node)

    # Items

    def item(self, value: Any, key: Any, node: ast.AST) -> Any:
        """Return ``value[key]``."""
        found = self.world.item(value, key, node)
        if found is not MISSING:
            return found
        one, (name,) = values.hard(value), self.settle([key])[0]
        if isinstance(one, values.Either):
            return self.either(node, [self.item(option, key, node) for option in one.options])
        if isinstance(one, (values.Unknown, values.Foreign, values.Function, values.Module, values.Native)):
            return self.unknown(node)
        if isinstance(one, values.Class):
            members = one.names.get("__members__")
            if isinstance(members, dict) and name in members:
                return members[name]
            hook = one.find("__class_getitem__") or (one.meta and one.meta.find("__getitem__"))
            return self.call(hook, values.Arguments.of(one, key), node) if isinstance(hook, values.Function) else one
        if isinstance(one, values.Instance):
            return self._instance_item(one, key, node)
        if isinstance(name, values.Unknown) or not self.light(name):
            return self._one_of(one, node)
        if self.is_lost(one):
            return self.unknown(node)
        return self.soft(self.attempt(node, lambda: one[name]), value, key)

    def _instance_item(self, value: values.Instance, key: Any, node: ast.AST) -> Any:
        name = values.hard(key)
        if method := value.special("__getitem__"):
            return self.call(self.bound(method, value, node), values.Arguments.of(key), node)
        if isinstance(value, values.Items):
            missing = value.special("__missing__")
            if missing is not None and name not in value:
                return self.call(self.bound(missing, value, node), values.Arguments.of(key), node)
            return self.attempt(node, lambda: value[name])
        if (items := value.attributes.get("__items__")) is not None and isinstance(name, (int, slice)):
            return self.attempt(node, lambda: items[name])
        return self.unknown(node)

    def _one_of(self, value: Any, node: ast.AST) -> Any:
        """Return an item for an unknown key: one of all, if they are few."""
        options = list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
        return self.either(node, options) if 0 < len(options) <= 10 else self.unknown(node)

    def iterate(self, value: Any, node: ast.AST) -> list[Any] | None:
        """Return the items of a value; None if they are unknown."""
        value = values.hard(value)
        if isinstance(value, (values.Unknown, values.Foreign, values.Function, values.Native, values.Module)):
            return None
        if isinstance(value, values.Class):
            hook = value.meta.find("__iter__") if value.meta is not None else None
            if isinstance(hook, values.Function):
                return self.iterate(self.call(hook, values.Arguments.of(value), node), node)
            members = value.names.get("__members__")
            return list(dict.fromkeys(members.values())) if isinstance(members, dict) else None  # aliases once
        if isinstance(value, values.Instance):
            return self._instance_items(value, node)
        if isinstance(value, range) and len(value) > LARGEST:
            return None
        if isinstance(value, values.Once):
            return self.take(value, len(value), node)
        items = self.unknown(node) if self.is_lost(value) else self.attempt(node, list, value)
        if not isinstance(items, list):
            return None
        self.step(len(items) // 10)
        return items

    def items_of(self, value: Any, node: ast.AST) -> list[Any]:
        """Return the items of a value. Raises ``NotKnown``."""
        items = self.iterate(value, node)
        if items is None:
            raise values.NotKnown
        return items

    def _instance_items(self, value: values.Instance, node: ast.AST) -> list[Any] | None:
        found = self.world.attribute(value, "__iter__", node)
        if isinstance(found, list):
            return found
        if method := value.special("__iter__"):
            made = values.hard(self.call(self.bound(method, value, node), values.Arguments(), node))
            if isinstance(made, values.Instance):
                return self._until("StopIteration", made, "__next__", node)
            return self.iterate(made, node)
        items = list(value) if isinstance(value, values.Items) else value.attributes.get("__items__")
        if items is None and value.special("__getitem__"):
            return self._until("IndexError", value, "__getitem__", node)
        if not isinstance(items, list):
            return None
        self.step(len(items) // 10)
        return list(items)

    def _until(self, end: str, value: values.Instance, name: str, node: ast.AST) -> list[Any] | None:
        """Call a method until it raises ``end``, with an index for ``__getitem__``, and return the results."""
        if (method := value.special(name)) is None:
            return self.iterate(value, node) if name == "__next__" and not value.special("__iter__") else None
        found: list[Any] = []
        self.catching.append({end})
        try:
            while len(found) < _MOST_ITEMS:
                given = values.Arguments([values.Given(len(found))] if name == "__getitem__" else [])
                found.append(self.call(self.bound(method, value, node), given, node))
        except values.Raised as error:
            if error.kind != end:
                raise
            return found
        finally:
            self.catching.pop()
        return None

    # Iterators

    def once(self, make: Callable[[], list[Any]], node: ast.AST, *froms: Any) -> values.Once:
        """Return an iterator over the items of ``make``, which may take items from the iterators in ``froms``."""
        made, edges = self.context.made, self.context.edges
        within = self.context.open()
        found = values.Once(make())
        others = [one for each in froms if isinstance(one := values.hard(each), values.Once)]
        found.made = self.context.made != made or any(one.made for one in others)
        found.joined = self.context.edges != edges or any(one.joined for one in others)
        found.within, found.node, found.module = within, node, self.module
        if found.made or found.joined:
            self.iterators.append(found)
        return found

    def take(self, value: values.Once, count: int, node: ast.AST) -> list[Any]:
        """Return the next items of an iterator."""
        if value.made and value.within != self.context.open():
            text = f"what `{short(self.source(node))}` goes through makes tasks here; they belong to where it was made"
            self.warn("unknown-context", text, node)
        self.step(len(value) // 1000)
        taken = value[:count]
        del value[:count]
        return taken

    def unfinished(self) -> None:
        """Warn of iterators with items that were evaluated and not taken: Python evaluates each item on demand."""
        for one in self.iterators:
            if one and one.node is not None and one.module is not None:
                self.module = one.module
                what = short(self.source(one.node))
                text = f"`{what}` is not gone through to its end: here all that it would make counts"
                dags = one.within[0]
                kept = dags[-1].warnings if dags else self.warnings
                kept.append(DagWarning("unknown-call", text, self.place(one.node)))

    def listed(self, value: Any, node: ast.AST) -> Any:
        """Return the items of an argument; for an iterator those that are left."""
        one = values.hard(value)
        return self.soft(self.take(one, len(one), node), value) if isinstance(one, values.Once) else value

    # Text

    def text_of(self, node: ast.expr, value: Any, conversion: str = "", spec: Any = "") -> Any:
        """Return a value as text, as by ``format``."""
        if isinstance(value, XCom) and conversion != "r" and (template := value.template()) is not None:
            value = template
        (plain,), _, soft, known = self.settle([value])
        if isinstance(plain, values.Instance):
            if not conversion and (method := plain.special("__format__")):
                return self.call(self.bound(method, plain, node), values.Arguments.of(spec), node)
            plain = self._shown(plain, node, "__repr__" if conversion == "r" else "__str__")
            known = isinstance(plain, str)
            conversion = ""
        parts = values.parts_of([value]) if not conversion and spec == "" else ()
        if not known or not isinstance(values.hard(spec), str):
            return self.unknown(node, text=values.shape(value), parts=parts)
        try:
            return self.soft(formatted(plain, conversion, values.hard(spec)), *soft, spec, parts=parts)
        except values.NotKnown:
            return self.unknown(node)
        except (ValueError, TypeError) as error:
            return self.fail(type(error).__name__, str(error), node)

    def _shown(self, value: values.Instance, node: ast.AST, name: str = "__str__") -> Any:
        text = None if name == "__repr__" else value.attributes.get("__text__")
        method = value.special(name) or (value.special("__repr__") if text is None else None)
        if method is not None:
            return values.hard(self.call(self.bound(method, value, node), values.Arguments(), node))
        return text if text is not None else value


def _plain(value: Any) -> Any:
    """Return the value for operators: a member of an enumeration of texts or numbers becomes its text or number."""
    value = values.hard(value)
    return value.attributes["_value_"] if isinstance(value, values.Member) else value


_MOST_ITEMS = 10_000
"""The largest number of items in an iterator of a class of the root; more are unknown."""


def _fields_of(value: Any) -> Any:
    """Return the fields of a dataclass or named tuple as a tuple; any other value unchanged."""
    if type(value) is values.Instance and value.cls is not None and value.cls.fields is not None:
        return tuple(value.attributes.get(name) for name in value.cls.fields)
    return value


def _is_tuple(value: Any) -> bool:
    """Return whether a value is a named tuple, which equals a tuple of its items."""
    if not isinstance(value, values.Instance) or value.cls is None or value.cls.fields is None:
        return False
    return not value.cls.node.body or any(one.name == "NamedTuple" for one in value.cls.foreign())


_ORDERS = {
    ast.Lt: ("__lt__", "__gt__"),
    ast.Gt: ("__gt__", "__lt__"),
    ast.LtE: ("__le__", "__ge__"),
    ast.GtE: ("__ge__", "__le__"),
}


def _is_text(value: Any) -> bool:
    return isinstance(values.hard(value), str) or (isinstance(value, values.Unknown) and bool(value.parts))


def _parts_of_percent(text: str, value: Any) -> tuple[Any, ...]:
    """Return the parts of ``text % value`` with the fields ``%s`` or ``%(name)s``; empty for others."""
    pieces = re.split(r"(%(?:\(\w+\))?.)", text)
    items = list(value) if isinstance(value, tuple) else [value]
    found: list[Any] = []
    for piece in pieces:
        if piece == "%%":
            found.append("%")
        elif piece == "%s" and items:
            found.append(items.pop(0))
        elif isinstance(value, dict) and piece[:2] == "%(" and piece[-1] == "s" and piece[2:-2] in value:
            found.append(value[piece[2:-2]])
        elif piece[:1] == "%":
            return ()
        else:
            found.append(piece)
    return values.parts_of(str(each) if isinstance(each, (int, float)) else each for each in found)


_DUNDERS = {ast.Add: "add", ast.RShift: "rshift", ast.LShift: "lshift", ast.BitOr: "or", ast.BitAnd: "and"}
_DUNDERS |= {ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv"}
