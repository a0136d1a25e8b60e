"""Python's expressions. A part that is not known makes a result that is not known, with what is known of its text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from flowyml.migration.airflow.reader.machine import MISSING, Base, settle
from flowyml.migration.airflow.reader.operations import COMPARE, LARGEST, UNARY, TooLarge, binary, formatted
from flowyml.migration.airflow.reader.parts import light, mentions
from flowyml.migration.airflow.reader.values import (
    Arguments,
    Class,
    Either,
    Foreign,
    Function,
    Given,
    Instance,
    Module,
    Native,
    Scope,
    Soft,
    Unknown,
    hard,
    shape,
)

__all__ = ["Expressions"]


class Expressions(Base):
    """Evaluates expressions in the current scope."""

    def eval(self, node: ast.expr) -> Any:
        self.steps += 1
        if self.steps > self.options.steps:
            self.step()
        evaluator = _EVALUATORS.get(type(node))
        return self.unknown(node) if evaluator is None else evaluator(self, node)

    # Names, constants, containers

    def _constant(self, node: ast.Constant) -> Any:
        return node.value

    def _name(self, node: ast.Name) -> Any:
        return self.lookup(node.id, node)

    def _attribute(self, node: ast.Attribute) -> Any:
        return self.attribute(self.eval(node.value), node.attr, node)

    def _items(self, nodes: list[ast.expr]) -> list[Any] | None:
        items: list[Any] = []
        for one in nodes:
            if isinstance(one, ast.Starred):
                more = self.iterate(self.eval(one.value), one)
                if more is None:
                    return None
                items += more
            else:
                items.append(self.eval(one))
        return items

    def _list(self, node: ast.List) -> Any:
        items = self._items(node.elts)
        return self.unknown(node) if items is None else items

    def _tuple(self, node: ast.Tuple) -> Any:
        items = self._items(node.elts)
        return self.unknown(node) if items is None else tuple(items)

    def _set(self, node: ast.Set) -> Any:
        items = self._items(node.elts)
        return self.unknown(node) if items is None or not light(items) else self.attempt(node, set, items)

    def _dict(self, node: ast.Dict) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                more = hard(self.eval(value))
                if not isinstance(more, dict):
                    self.warn("unknown-call", f"what `**{self.source(value)[:60]}` adds is not known", node)
                    continue
                found.update(more)
            else:
                name = hard(self.eval(key))
                item = self.eval(value)
                if light(name):
                    self.attempt(key, found.__setitem__, name, item)
        return found

    # Text

    def _joined(self, node: ast.JoinedStr) -> Any:
        parts: list[str] = []
        soft: list[Any] = []
        known = True
        for one in node.values:
            value = one.value if isinstance(one, ast.Constant) else self._formatted(one)
            if type(value) is Soft:
                soft.append(value)
                value = value.value
            if not isinstance(value, str):
                known = False
            parts.append(value if isinstance(value, str) else shape(value))
        text = "".join(parts)
        if len(text) > LARGEST:
            return self.unknown(node)
        self.step(len(text) // 100)
        return self.soft(text, *soft) if known else self.unknown(node, text=text)

    def _formatted(self, node: ast.expr) -> Any:
        if not isinstance(node, ast.FormattedValue):
            return self.eval(node)
        value = self.eval(node.value)
        spec = self.eval(node.format_spec) if node.format_spec is not None else ""
        conversion = chr(node.conversion) if node.conversion > 0 else ""
        return self.text_of(node.value, value, conversion, hard(spec))

    def text_of(self, node: ast.expr, value: Any, conversion: str = "", spec: Any = "") -> Any:
        """A value as text, as ``format`` would show it."""
        (plain,), _, soft, known = settle([value])
        if isinstance(plain, Instance):
            plain = self._shown(plain, node)
            known = isinstance(plain, str)
        if not known or not isinstance(spec, str):
            return self.unknown(node, text=shape(value))
        try:
            return self.soft(formatted(plain, conversion, spec), *soft)
        except TooLarge:
            return self.unknown(node)
        except (ValueError, TypeError) as error:
            return self.fail(type(error).__name__, str(error), node)

    def _shown(self, value: Instance, node: ast.expr) -> Any:
        method = value.cls.find("__str__") if value.cls is not None else None
        if isinstance(method, Function):
            return hard(self.call(self.bound(method, value, node), Arguments(), node))
        text = value.attributes.get("__text__")
        return text if text is not None else value

    # Operators

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self.eval(node.left), self.eval(node.right)
        return self.operate(type(node.op), left, right, node)

    def operate(self, kind: type[ast.operator], left: Any, right: Any, node: ast.AST) -> Any:
        """``left`` and ``right`` under an operator."""
        found = self.world.operate(kind, left, right, node)
        if found is not MISSING:
            return found
        one, other = hard(left), hard(right)
        if kind is ast.Mod and isinstance(one, str):
            return self._percent(one, other, left, node)
        if isinstance(one, (Unknown, Foreign)) or isinstance(other, (Unknown, Foreign)):
            text = shape(one) + shape(other) if kind is ast.Add else ""
            return self.unknown(node, text=text)
        if isinstance(one, Instance) or isinstance(other, Instance):
            return self._dunder(kind, one, other, node)
        return self.soft(self.attempt(node, binary, kind, one, other), left, right)

    def _dunder(self, kind: type[ast.operator], left: Any, right: Any, node: ast.AST) -> Any:
        for owner, other, prefix in ((left, right, "__"), (right, left, "__r")):
            name = _DUNDERS.get(kind)
            method = owner.cls.find(f"{prefix}{name}__") if name and isinstance(owner, Instance) and owner.cls else None
            if isinstance(method, Function):
                return self.call(self.bound(method, owner, node), Arguments([Given(other)]), node)
        return self.unknown(node)

    def _percent(self, text: str, value: Any, left: Any, node: ast.AST) -> Any:
        (plain,), _, soft, known = settle([value])
        if not known:
            parts = plain if isinstance(plain, tuple) else (plain,)
            shown = text
            for part in parts if not isinstance(plain, dict) else ():
                shown = shown.replace("%s", shape(part), 1)
            return self.unknown(node, text=shown[:500])
        return self.soft(self.attempt(node, binary, ast.Mod, text, plain), left, *soft)

    def _unary(self, node: ast.UnaryOp) -> Any:
        value = self.eval(node.operand)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return self.unknown(node) if truth is None else self.soft(not truth, value)
        if isinstance(hard(value), (Unknown, Foreign, Instance)):
            return self.unknown(node)
        return self.soft(self.attempt(node, UNARY[type(node.op)], hard(value)), value)

    def _boolean(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        doubtful: list[Any] = []
        value: Any = None
        for one in node.values:
            value = self.eval(one)
            truth = self.truth(value)
            if truth is stop:
                break
            if truth is None:
                doubtful.append(value)
        if not doubtful:
            return value
        return doubtful[0] if value is doubtful[0] else self.either(node, [*doubtful, value])

    def _compare(self, node: ast.Compare) -> Any:
        left = self.eval(node.left)
        answer: Any = True
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.eval(right_node)
            answer = self.compare(type(op), left, right, node)
            if self.truth(answer) is not True:
                return answer
            left = right
        return answer

    def compare(self, kind: type[ast.cmpop], left: Any, right: Any, node: ast.AST) -> Any:
        one, other = hard(left), hard(right)
        if isinstance(one, Unknown) or isinstance(other, Unknown):
            return self.unknown(node)
        if isinstance(one, Foreign) or isinstance(other, Foreign):
            return self._compare_foreign(kind, one, other, node)
        if not light([one, other]):
            return self.unknown(node)
        (one, other), _, soft, _ = settle([one, other])
        if kind in (ast.In, ast.NotIn) and isinstance(other, Instance):
            return self._within(kind, one, other, node)
        if kind in (ast.In, ast.NotIn) and not known_members(other):
            return True if kind is ast.In and _among(one, other) else self.unknown(node)
        return self.soft(self.attempt(node, COMPARE[kind], one, other), left, right, *soft)

    def _within(self, kind: type[ast.cmpop], one: Any, other: Instance, node: ast.AST) -> Any:
        """``one in other``, of an instance that has ``__contains__`` or can be iterated over."""
        method = other.cls.find("__contains__") if other.cls is not None else None
        if isinstance(method, Function):
            found = self.truth(self.call(self.bound(method, other, node), Arguments([Given(one)]), node))
        else:
            items = self.iterate(other, node)
            found = None if items is None else one in items
        return self.unknown(node) if found is None else found is (kind is ast.In)

    def _compare_foreign(self, kind: type[ast.cmpop], one: Any, other: Any, node: ast.AST) -> Any:
        if kind in (ast.Is, ast.IsNot, ast.Eq, ast.NotEq):
            yes = kind in (ast.Is, ast.Eq)
            if isinstance(one, Foreign) and isinstance(other, Foreign) and one.path == other.path:
                return yes
            if one is None or other is None:
                return not yes
        return self.unknown(node)

    def _either_arm(self, node: ast.IfExp) -> Any:
        test = self.eval(node.test)
        truth = self.truth(test)
        if truth is None:
            self.context.uncertain += 1
            before = self.context.made, self.context.edges
            values = [self.eval(node.body), self.eval(node.orelse)]
            self.context.uncertain -= 1
            if (self.context.made, self.context.edges) != before:
                self.warn("unknown-condition", f"`{self.source(node.test)[:80]}` is not known: both sides count", node)
            return self.either(node, values)
        return self.soft(self.eval(node.body if truth else node.orelse), test)

    def _walrus(self, node: ast.NamedExpr) -> Any:
        value = self.eval(node.value)
        self.bind(node.target.id, value)
        return value

    def _lambda(self, node: ast.Lambda) -> Any:
        return self.function(node, "<lambda>")

    def function(self, node: Any, name: str) -> Function:
        """A function of the current scope, with its defaults evaluated."""
        return Function(name, node, self.module, self.scope, self._defaults(node.args))

    def _defaults(self, args: ast.arguments) -> dict[str, Any]:
        names = [*args.posonlyargs, *args.args]
        pairs = list(zip(names[len(names) - len(args.defaults) :], args.defaults, strict=True))
        pairs += [(arg, value) for arg, value in zip(args.kwonlyargs, args.kw_defaults, strict=True) if value]
        return {arg.arg: self.eval(value) for arg, value in pairs}

    # Items

    def _subscript(self, node: ast.Subscript) -> Any:
        return self.item(self.eval(node.value), self.eval(node.slice), node)

    def _slice(self, node: ast.Slice) -> Any:
        parts = [None if one is None else hard(self.eval(one)) for one in (node.lower, node.upper, node.step)]
        return self.unknown(node) if any(isinstance(one, Unknown) for one in parts) else slice(*parts)

    def item(self, value: Any, key: Any, node: ast.AST) -> Any:
        """``value[key]``."""
        found = self.world.item(value, key, node)
        if found is not MISSING:
            return found
        one, (name,) = hard(value), settle([key])[0]
        if isinstance(one, Either):
            return self.either(node, [self.item(option, key, node) for option in one.options])
        if isinstance(one, (Unknown, Foreign, Function, Module, Native)):
            return self.unknown(node)
        if isinstance(one, Class):
            members = one.names.get("__members__")
            return members[name] if isinstance(members, dict) and name in members else one
        if isinstance(one, Instance):
            return self._instance_item(one, key, node)
        if isinstance(name, Unknown) or not light(name):
            return self._one_of(one, node)
        return self.soft(self.attempt(node, lambda: one[name]), value, key)

    def _instance_item(self, value: Instance, key: Any, node: ast.AST) -> Any:
        sections, name = value.attributes.get("__sections__"), hard(key)
        if isinstance(sections, dict) and isinstance(name, str) and name in sections:
            return sections[name]
        method = value.cls.find("__getitem__") if value.cls is not None else None
        if isinstance(method, Function):
            return self.call(self.bound(method, value, node), Arguments([Given(key)]), node)
        return self.unknown(node)

    def _one_of(self, value: Any, node: ast.AST) -> Any:
        """An item whose key is not known: one of all, if they are few."""
        options = list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
        return self.either(node, options) if 0 < len(options) <= 10 else self.unknown(node)

    def iterate(self, value: Any, node: ast.AST) -> list[Any] | None:
        """The items of a value, None where they are not known."""
        value = hard(value)
        if isinstance(value, (Unknown, Foreign, Function, Native, Module)):
            return None
        if isinstance(value, Class):
            members = value.names.get("__members__")
            return list(members.values()) if isinstance(members, dict) else None
        if isinstance(value, Instance):
            return self._instance_items(value, node)
        if isinstance(value, range) and len(value) > LARGEST:
            return None
        try:
            items = list(value)
        except TypeError:
            self.fail("TypeError", f"{type(value).__name__} is not iterable", node)
            return None
        self.step(len(items) // 10)
        return items

    def _instance_items(self, value: Instance, node: ast.AST) -> list[Any] | None:
        found = self.world.attribute(value, "__iter__", node)
        if isinstance(found, list):
            return found
        method = value.cls.find("__iter__") if value.cls is not None else None
        if isinstance(method, Function):
            return self.iterate(self.call(self.bound(method, value, node), Arguments(), node), node)
        items = value.attributes.get("__items__")
        return list(items) if isinstance(items, list) else None

    # Comprehensions

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Any:
        found: list[Any] = []
        scope = Scope({}, self.scope)
        with self.inside(scope, self.module):
            known = self._generate(node.generators, lambda: found.append(self.eval(node.elt)))
        if not known and not mentions(found):
            return self.unknown(node)
        return self.attempt(node, set, found if light(found) else ()) if isinstance(node, ast.SetComp) else found

    def _dict_comprehension(self, node: ast.DictComp) -> Any:
        found: dict[Any, Any] = {}

        def add() -> None:
            name, item = hard(self.eval(node.key)), self.eval(node.value)
            if light(name):
                self.attempt(node.key, found.__setitem__, name, item)

        with self.inside(Scope({}, self.scope), self.module):
            known = self._generate(node.generators, add)
        return found if known or mentions(found) else self.unknown(node)

    def _generate(self, generators: list[ast.comprehension], body: Callable[[], None]) -> bool:
        """Runs the body for each item. Returns whether all were known."""
        if not generators:
            body()
            return True
        first, *rest = generators
        items = self.iterate(self.eval(first.iter), first.iter)
        if items is None:
            self._once(first, rest, body)
            return False
        known = True
        for item in items:
            self.step()
            self.assign(first.target, item)
            answers = [self.truth(self.eval(test)) for test in first.ifs]
            if False not in answers:
                known = self._generate(rest, body) and known and None not in answers
        return known

    def _once(self, first: ast.comprehension, rest: list[ast.comprehension], body: Callable[[], None]) -> None:
        before = self.context.made, self.context.edges
        self.context.uncertain += 1
        self.assign(first.target, self.unknown(first.target))
        self._generate(rest, body)
        self.context.uncertain -= 1
        if (self.context.made, self.context.edges) != before:
            text = f"what `{self.source(first.iter)[:80]}` holds is not known: its tasks are read once"
            self.warn("unknown-loop", text, first.iter)

    def assign(self, target: ast.expr, value: Any) -> None:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it

    # Calls

    def _call(self, node: ast.Call) -> Any:
        function = self.eval(node.func)
        return self.call(function, self.arguments(node), node)

    def arguments(self, node: ast.Call) -> Arguments:
        """The arguments of a call, evaluated."""
        found = Arguments()
        for one in node.args:
            if isinstance(one, ast.Starred):
                items = self.iterate(self.eval(one.value), one)
                found.open = found.open or items is None
                found.positional += [Given(item, None, self.module) for item in items or ()]
            else:
                found.positional.append(Given(self.eval(one), one, self.module))
        for keyword in node.keywords:
            if keyword.arg is not None:
                found.named[keyword.arg] = Given(self.eval(keyword.value), keyword.value, self.module)
            else:
                self._spread(keyword.value, found)
        return found

    def _spread(self, node: ast.expr, found: Arguments) -> None:
        value = hard(self.eval(node))
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(hard(name), str):
                    found.named[hard(name)] = Given(item, None, self.module)
                else:
                    found.open = True
        else:
            found.open = True

    def call(self, function: Any, arguments: Arguments, node: ast.AST) -> Any:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it

    def _starred(self, node: ast.Starred) -> Any:
        return self.eval(node.value)

    def _awaited(self, node: ast.Await) -> Any:
        self.eval(node.value)
        return self.unknown(node)

    def _yielded(self, node: ast.Yield) -> Any:
        value = None if node.value is None else self.eval(node.value)
        self.give(value, node)
        return self.unknown(node)

    def _yielded_from(self, node: ast.YieldFrom) -> Any:
        for value in self.iterate(self.eval(node.value), node) or ():
            self.give(value, node)
        return self.unknown(node)

    def give(self, value: Any, node: ast.AST) -> None:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it


def known_members(value: Any) -> bool:
    """Whether ``in`` has an answer."""
    if isinstance(value, (list, tuple, set)):
        return not any(isinstance(hard(one), Unknown) for one in value)
    return True


def _among(one: Any, other: Any) -> bool:
    return any(one == item for item in other if not isinstance(hard(item), Unknown))


_DUNDERS = {ast.Add: "add", ast.RShift: "rshift", ast.LShift: "lshift", ast.BitOr: "or", ast.BitAnd: "and"}
_DUNDERS |= {ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv"}
_EVALUATORS: Mapping[type[ast.expr], Callable[[Expressions, Any], Any]] = {
    ast.Constant: Expressions._constant,
    ast.Name: Expressions._name,
    ast.Attribute: Expressions._attribute,
    ast.List: Expressions._list,
    ast.Tuple: Expressions._tuple,
    ast.Set: Expressions._set,
    ast.Dict: Expressions._dict,
    ast.JoinedStr: Expressions._joined,
    ast.FormattedValue: Expressions._formatted,
    ast.BinOp: Expressions._binary,
    ast.UnaryOp: Expressions._unary,
    ast.BoolOp: Expressions._boolean,
    ast.Compare: Expressions._compare,
    ast.IfExp: Expressions._either_arm,
    ast.NamedExpr: Expressions._walrus,
    ast.Lambda: Expressions._lambda,
    ast.Subscript: Expressions._subscript,
    ast.Slice: Expressions._slice,
    ast.ListComp: Expressions._comprehension,
    ast.GeneratorExp: Expressions._comprehension,
    ast.SetComp: Expressions._comprehension,
    ast.DictComp: Expressions._dict_comprehension,
    ast.Call: Expressions._call,
    ast.Starred: Expressions._starred,
    ast.Await: Expressions._awaited,
    ast.Yield: Expressions._yielded,
    ast.YieldFrom: Expressions._yielded_from,
}
