"""Python's expressions. An unknown part makes the result unknown, with the known part of its text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.machine import MISSING, short
from flowyml.migration.airflow.reader.operations import UNARY, joined
from flowyml.migration.airflow.reader.protocols import Protocols


class Expressions(Protocols):
    """Evaluates expressions in the current scope."""

    def eval(self, node: ast.expr) -> Any:
        self.steps += 1
        if self.steps > self.options.steps:
            self.step()
        evaluator = _EVALUATORS.get(type(node))
        return self.unknown(node) if evaluator is None else evaluator(self, node)

    # Names, constants, containers

    def _items(self, node: ast.List | ast.Tuple | ast.Set, made: Callable[[list[Any]], Any]) -> Any:
        """Evaluate the items of a display, and pass them to ``made``."""
        items: list[Any] = []
        froms: list[Any] = []
        for one in node.elts:
            if isinstance(one, ast.Starred):
                froms.append(self.eval(one.value))
                more = self.iterate(froms[-1], one)
                if more is None:
                    return self.unknown(node)
                items += more
            else:
                items.append(self.eval(one))
        return self.of_defaults(made(items), froms, node)

    def _set(self, node: ast.Set) -> Any:
        return self._items(
            node, lambda items: self.attempt(node, set, items) if self.light(items) else self.unknown(node)
        )

    def _dict(self, node: ast.Dict) -> Any:
        found: dict[Any, Any] = {}
        froms: list[Any] = []
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                froms.append(self.eval(value))
                more = self.as_dict(froms[-1], value)
                if not isinstance(more, dict):
                    self.warn("unknown-call", f"what `**{self.source(value)[:60]}` adds is unknown", node)
                    continue
                found.update(more)
            else:
                froms.append(self.eval(key))
                name = values.hard(froms[-1])
                item = self.eval(value)
                if self.light(name):
                    self.attempt(key, found.__setitem__, name, item)
        return self.of_defaults(found, froms, node)

    # Text

    def _joined(self, node: ast.JoinedStr) -> Any:
        found = [one.value if isinstance(one, ast.Constant) else self._formatted(one) for one in node.values]
        text = self.attempt(
            node,
            lambda: joined(
                "", (values.hard(one) if isinstance(values.hard(one), str) else values.shape(one) for one in found)
            ),
        )
        if not isinstance(text, str):
            return self.unknown(node)
        parts = values.parts_of(found) if any(isinstance(one, (values.Soft, values.Unknown)) for one in found) else ()
        if all(isinstance(values.hard(one), str) for one in found):
            return self.soft(text, *found, parts=parts)
        return self.unknown(node, text=text, parts=parts)

    def _formatted(self, node: ast.expr) -> Any:
        if not isinstance(node, ast.FormattedValue):
            return self.eval(node)
        value = self.eval(node.value)
        spec = self.eval(node.format_spec) if node.format_spec is not None else ""
        conversion = chr(node.conversion) if node.conversion > 0 else ""
        return self.text_of(node.value, value, conversion, spec)

    # Operators

    def _unary(self, node: ast.UnaryOp) -> Any:
        value = self.eval(node.operand)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return self.unknown(node) if truth is None else self.soft(not truth, value)
        if isinstance(values.hard(value), (values.Unknown, values.Foreign, values.Instance)):
            return self.unknown(node)
        return self.soft(self.attempt(node, UNARY[type(node.op)], values.hard(value)), value)

    def _boolean(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        doubtful: list[Any] = []
        defaults: list[Any] = []
        value: Any = None
        for one in node.values:
            value = self._perhaps(one) if doubtful else self.eval(one)
            truth = self.truth(value)
            if type(value) is values.Soft and one is not node.values[-1]:
                defaults.append(value)
            if truth is stop:
                break
            if truth is None:
                doubtful.append(value)
        if not doubtful:
            return self.soft(value, *defaults)
        return doubtful[0] if value is doubtful[0] else self.either(node, [*doubtful, value])

    def _perhaps(self, node: ast.expr) -> Any:
        """Evaluate an operand that Python may not evaluate: its effects count, with a warning."""
        before = self.context.effects
        self.context.uncertain += 1
        value = self.eval(node)
        self.context.uncertain -= 1
        if self.context.effects != before:
            self.warn("unknown-condition", f"whether `{short(self.source(node))}` is evaluated is unknown", node)
        return value

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

    def _either_arm(self, node: ast.IfExp) -> Any:
        test = self.eval(node.test)
        truth = self.truth(test)
        if truth is None:
            self.context.uncertain += 1
            before = self.context.effects
            both = [self.eval(node.body), self.eval(node.orelse)]
            self.context.uncertain -= 1
            if self.context.effects != before:
                self.warn("unknown-condition", f"`{self.source(node.test)[:80]}` is unknown: both sides are read", node)
            return self.either(node, both)
        return self.soft(self.eval(node.body if truth else node.orelse), test)

    def _walrus(self, node: ast.NamedExpr) -> Any:
        value = self.eval(node.value)
        self.bind(node.target.id, value)
        return value

    def function(self, node: Any, name: str) -> values.Function:
        """Return a function of the current scope, with its defaults evaluated."""
        return values.Function(name, node, self.module, self.scope, self._defaults(node.args))

    def _defaults(self, args: ast.arguments) -> dict[str, Any]:
        names = [*args.posonlyargs, *args.args]
        pairs = list(zip(names[len(names) - len(args.defaults) :], args.defaults, strict=True))
        pairs += [(arg, value) for arg, value in zip(args.kwonlyargs, args.kw_defaults, strict=True) if value]
        return {arg.arg: self.eval(value) for arg, value in pairs}

    # Items

    def _slice(self, node: ast.Slice) -> Any:
        given = [None if one is None else self.eval(one) for one in (node.lower, node.upper, node.step)]
        parts = [values.hard(one) for one in given]
        unknown = any(isinstance(one, values.Unknown) for one in parts)
        return self.unknown(node) if unknown else self.soft(slice(*parts), *given)

    # Comprehensions

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Any:
        found: list[Any] = []
        froms: list[Any] = []

        known: list[bool] = []

        def make() -> list[Any]:
            first = self.eval(node.generators[0].iter)
            with self.inside(values.Scope({}, self.scope), self.module):
                known.append(self._generate(node.generators, lambda: found.append(self.eval(node.elt)), froms, first))
            return found

        before = self.context.effects
        made = self.once(make, node) if isinstance(node, ast.GeneratorExp) else make()
        if not all(known):
            if self.context.effects != before or self.mentions(found):
                text = f"what `{self.source(node)[:80]}` takes is unknown: everything in it is used"
                self.warn("unknown-condition", text, node)
            if not self.mentions(found):
                return self.unknown(node)
        if isinstance(node, ast.SetComp):
            made = self.attempt(node, set, found if self.light(found) else ())
        return self.of_defaults(made, froms, node)

    def _dict_comprehension(self, node: ast.DictComp) -> Any:
        found: dict[Any, Any] = {}
        froms: list[Any] = []

        def add() -> None:
            froms.append(self.eval(node.key))
            name, item = values.hard(froms[-1]), self.eval(node.value)
            if self.light(name):
                self.attempt(node.key, found.__setitem__, name, item)

        first = self.eval(node.generators[0].iter)
        with self.inside(values.Scope({}, self.scope), self.module):
            known = self._generate(node.generators, add, froms, first)
        if not known and self.mentions(found):
            text = f"what `{self.source(node)[:80]}` takes is unknown: everything in it is used"
            self.warn("unknown-condition", text, node)
        return self.of_defaults(found, froms, node) if known or self.mentions(found) else self.unknown(node)

    def _generate(
        self, generators: list[ast.comprehension], body: Callable[[], None], froms: list[Any], over: Any = MISSING
    ) -> bool:
        """Run the body for each item. Returns whether all were known; ``froms`` gets the values that chose the items.

        ``over`` is the iterable of the first loop: Python evaluates it in the scope around the comprehension.
        """
        if not generators:
            body()
            return True
        first, *rest = generators
        froms.append(self.eval(first.iter) if over is MISSING else over)
        items = self.iterate(froms[-1], first.iter)
        if items is None:
            self._once(first, rest, body, froms)
            return False
        known = True
        for item in items:
            self.step()
            self.assign(first.target, item)
            tests = [self.eval(test) for test in first.ifs]
            froms += tests
            answers = [self.truth(test) for test in tests]
            if False not in answers:
                known = self._generate(rest, body, froms) and known and None not in answers
        return known

    def _once(
        self, first: ast.comprehension, rest: list[ast.comprehension], body: Callable[[], None], froms: list[Any]
    ) -> None:
        before = self.context.effects
        self.context.uncertain += 1
        self.assign(first.target, self.unknown(first.target))
        self._generate(rest, body, froms)
        self.context.uncertain -= 1
        if self.context.effects != before:
            text = f"what `{self.source(first.iter)[:80]}` holds is unknown: its tasks are read once"
            self.warn("unknown-loop", text, first.iter)

    # Calls

    def arguments(self, node: ast.Call) -> values.Arguments:
        """Return the arguments of a call, evaluated."""
        found = values.Arguments()
        for one in node.args:
            if isinstance(one, ast.Starred):
                value = self.eval(one.value)
                items = self.iterate(value, one)
                found.open = found.open or items is None
                found.positional += [values.Given(self._taken(item, value), None, self.module) for item in items or ()]
            else:
                found.positional.append(values.Given(self.eval(one), one, self.module))
        for keyword in node.keywords:
            if keyword.arg is not None:
                found.named[keyword.arg] = values.Given(self.eval(keyword.value), keyword.value, self.module)
            else:
                self._spread(keyword.value, found)
        return found

    def _spread(self, node: ast.expr, found: values.Arguments) -> None:
        given = self.eval(node)
        value = self.as_dict(given, node)
        if isinstance(value, dict):
            self.step(len(value) // 5)  # including their binding to parameters
            for name, item in value.items():
                if isinstance(values.hard(name), str):
                    found.named[values.hard(name)] = values.Given(self._taken(item, given), None, self.module)
                else:
                    found.open = True
        else:
            found.open = True

    def _taken(self, item: Any, owner: Any) -> Any:
        """Return an item of a value that is unpacked into the arguments of a call."""
        return item if isinstance(values.hard(item), values.Unknown) else self.soft(item, owner)

    def _awaited(self, node: ast.Await) -> Any:
        self.eval(node.value)
        return self.unknown(node)

    def _yielded(self, node: ast.Yield) -> Any:
        value = None if node.value is None else self.eval(node.value)
        self.give(value, node)
        return self.unknown(node)


_EVALUATORS: Mapping[type[ast.expr], Callable[[Expressions, Any], Any]] = {
    ast.Constant: lambda machine, node: node.value,
    ast.Name: lambda machine, node: machine.lookup(node.id, node),
    ast.Attribute: lambda machine, node: machine.attribute(machine.eval(node.value), machine.mangled(node.attr), node),
    ast.List: lambda machine, node: machine._items(node, list),
    ast.Tuple: lambda machine, node: machine._items(node, tuple),
    ast.Set: Expressions._set,
    ast.Dict: Expressions._dict,
    ast.JoinedStr: Expressions._joined,
    ast.FormattedValue: Expressions._formatted,
    ast.BinOp: lambda machine, node: machine.operate(
        type(node.op), machine.eval(node.left), machine.eval(node.right), node
    ),
    ast.UnaryOp: Expressions._unary,
    ast.BoolOp: Expressions._boolean,
    ast.Compare: Expressions._compare,
    ast.IfExp: Expressions._either_arm,
    ast.NamedExpr: Expressions._walrus,
    ast.Lambda: lambda machine, node: machine.function(node, "<lambda>"),
    ast.Subscript: lambda machine, node: machine.item(machine.eval(node.value), machine.eval(node.slice), node),
    ast.Slice: Expressions._slice,
    ast.ListComp: Expressions._comprehension,
    ast.GeneratorExp: Expressions._comprehension,
    ast.SetComp: Expressions._comprehension,
    ast.DictComp: Expressions._dict_comprehension,
    ast.Call: lambda machine, node: machine.call(machine.eval(node.func), machine.arguments(node), node),
    ast.Starred: lambda machine, node: machine.eval(node.value),
    ast.Await: Expressions._awaited,
    ast.Yield: Expressions._yielded,
    ast.YieldFrom: lambda machine, node: machine.yielded_from(node),
}
