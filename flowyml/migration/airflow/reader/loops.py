"""Loops, generators and ``try``: the body of a loop over a generator runs when that yields, within its open blocks."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.assignments import Assignments
from flowyml.migration.airflow.reader.machine import is_a


class Break(Exception):
    """``break``."""


class Continue(Exception):
    """``continue``."""


class Return(Exception):
    """``return`` with a value."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Abandoned(Exception):
    """An arm that may not be taken ends."""


class Left(Exception):
    """The body of a loop leaves the loop, and thereby the generator."""

    def __init__(self, loop: ast.AST, error: Exception) -> None:
        super().__init__()
        self.loop = loop
        self.error = error


class Loops(Assignments):
    """Iterates.

    For each active function, ``yields`` has the reader of its yielded values, and ``maybe`` its possible return values.
    """

    yields: list[values.Yields]
    maybe: list[list[Any]]
    doubts: list[tuple[type[Exception], ast.If, tuple[int, int, int]]]
    """Unknown conditions of which an arm ends a pass, a loop or a function; and the number of tasks before."""
    left: int = 0
    """The number of loops that may have been left by ``break``."""

    @contextmanager
    def doubting(self, way: type[Exception]) -> Iterator[None]:
        """Warn of tasks that a pass, a loop or a function creates after a condition that may end it."""
        start = len(self.doubts)
        try:
            yield
        finally:
            mine = [doubt for doubt in self.doubts[start:] if doubt[0] is way]
            self.doubts[start:] = [doubt for doubt in self.doubts[start:] if doubt[0] is not way]
            for _, node, before in mine:
                if self.context.effects != before:
                    text = f"`{self.source(node.test)[:80]}` is unknown: what follows is read"
                    self.warn("unknown-condition", text, node)

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        left = self.left
        try:
            with self.doubting(Break):
                if not self._looped(node):
                    return
        except Break:
            return
        if self.left != left and node.orelse:
            self.both([lambda: self.block(node.orelse), lambda: None], node)
            return
        self.block(node.orelse)

    def _looped(self, node: ast.For | ast.AsyncFor) -> bool:
        """Run a loop's body for its items. Returns whether they were known."""
        if isinstance(node.iter, ast.Call):
            function, arguments = self.eval(node.iter.func), self.arguments(node.iter)
            if (found := self.generator(function, arguments)) is not None:
                self._along(node, *found)
                return True
            value = self.call(function, arguments, node.iter)
        else:
            value = self.eval(node.iter)
        one = values.hard(value)
        if isinstance(one, values.Instance) and (method := one.special("__iter__")) is not None:
            found = self.generator(self.bound(method, one, node.iter), values.Arguments())
            if found is not None:
                self._along(node, *found)
                return True
        items = self._left_of(one, node.iter) if isinstance(one, values.Once) else self.iterate(value, node.iter)
        if items is None:
            self._maybe_loop(node, node.iter, [lambda: self.assign(node.target, self.unknown(node.target))])
            return False
        if type(value) is values.Soft:
            text = f"what this loop makes depends on the default of {value.origin}"
            self.warn("default-taken", text, node.iter)
        edges = self.context.edges
        for item in items:
            self._pass(node, item)
        if isinstance(one, set) and len(one) > 1 and self.context.edges != edges:
            text = f"`{self.source(node.iter)[:80]}` is a set, which has no fixed order: the edges may differ"
            self.warn("unknown-loop", text, node.iter)
        return True

    def _pass(self, node: ast.For | ast.AsyncFor, item: Any) -> None:
        self.step()
        self.assign(node.target, item)
        with suppress(Continue), self.doubting(Continue):
            self.block(node.body)

    def _left_of(self, value: values.Once, node: ast.AST) -> Iterator[Any]:
        while value:
            yield from self.take(value, 1, node)

    def _along(self, node: ast.For | ast.AsyncFor, function: Any, arguments: values.Arguments) -> None:
        """Run a loop over a generator: its body runs when that yields, within its open blocks."""
        inside = self.from_here()
        uncertain, catching = self.context.uncertain, self.catching

        def body(item: Any, _: ast.AST) -> None:
            kept, self.catching = self.catching, catching
            try:
                with inside():
                    self._pass(node, item)
            except (Break, Return, values.Raised, Abandoned) as error:
                if self.context.uncertain == uncertain:
                    raise Left(node, error) from None
                self._may_leave(error)  # the generator may not come to this item
                raise Abandoned from None
            finally:
                self.catching = kept

        try:
            self.run(function, arguments, node.iter, body)
        except Left as left:
            raise left.error if left.loop is node else left from None

    def yielded_from(self, node: ast.YieldFrom) -> Any:
        if isinstance(node.value, ast.Call):
            function, arguments = self.eval(node.value.func), self.arguments(node.value)
            if (found := self.generator(function, arguments)) is not None:
                inside = self.from_here()

                def body(item: Any, _: ast.AST) -> None:
                    with inside():
                        self.give(item, node)

                return self.run(*found, node, body)
            value = self.call(function, arguments, node.value)
        else:
            value = self.eval(node.value)
        for item in self.iterate(value, node) or ():
            self.give(item, node)
        return self.unknown(node)

    def _may_leave(self, error: Exception) -> None:
        if isinstance(error, Break):
            self.left += 1
        elif isinstance(error, Return) and self.maybe:
            self.maybe[-1].append(error.value)

    def from_here(self) -> Callable[[], AbstractContextManager[None]]:
        """Return a context manager that restores the present scope within a function that is called meanwhile."""
        scope, module, yields, maybe = self.scope, self.module, list(self.yields), list(self.maybe)

        @contextmanager
        def inside() -> Iterator[None]:
            kept = self.yields, self.maybe
            self.yields, self.maybe = list(yields), list(maybe)
            try:
                with self.inside(scope, module):
                    yield
            finally:
                self.yields, self.maybe = kept

        return inside

    def _maybe_loop(self, node: Any, over: ast.expr, before: list[Callable[[], None]]) -> None:
        """Evaluate the body of a loop with unknown items: once, or twice if only a later pass creates a task."""
        before_all, made = self.context.effects, (self.context.made, self.context.edges)

        def body() -> None:
            for _ in range(2):
                for one in before:
                    one()
                with suppress(Continue), self.doubting(Continue):
                    self.block(node.body)
                if (self.context.made, self.context.edges) != made:
                    return

        self.both([body, lambda: None], node)
        if self.context.effects != before_all:
            text = f"what `{self.source(over)[:80]}` holds is unknown: its tasks are read once"
            self.warn("unknown-loop", text, node)

    def _while(self, node: ast.While) -> None:
        try:
            while (truth := self.truth(test := self.eval(node.test))) is not False:
                if type(test) is values.Soft:
                    text = f"`{self.source(node.test)[:80]}` depends on the default of {test.origin}"
                    self.warn("default-taken", text, node)
                if truth is None:
                    self._maybe_loop(node, node.test, [])
                    return
                with suppress(Continue), self.doubting(Continue):
                    self.block(node.body)
        except Break:
            return
        self.block(node.orelse)

    def ended(self, node: ast.Break | ast.Continue) -> None:
        """Raise the exception for ``break`` or ``continue``."""
        raise Break if isinstance(node, ast.Break) else Continue

    def nothing(self, value: Any, node: ast.AST) -> None:
        """Do nothing with a yielded value that has no reader."""

    def give(self, value: Any, node: ast.AST) -> None:
        if self.yields:
            self.yields[-1](value, node)


class Tries(Loops):
    """Runs ``try``. A call outside of the root is assumed to succeed."""

    handled: values.Raised | None = None
    """The exception that the ``except`` around the current statement has caught."""

    def tried(self, node: ast.Try | ast.TryStar) -> None:
        names: set[str] = set()
        for handler in node.handlers:
            caught = self._caught_by(handler)
            names |= caught
            if any(is_a("ModuleNotFoundError", name) for name in caught):
                self._note_imports(node, handler)
        try:
            self._guarded(node, names)
        finally:
            self.block(node.finalbody)

    def _caught_by(self, handler: ast.ExceptHandler) -> set[str]:
        """Return the names of the exceptions that a handler catches; an empty name for all."""
        if handler.type is None:
            return {""}
        nodes = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        found: set[str] = set()
        for one in nodes:
            held = self._bound_to(one.id) if isinstance(one, ast.Name) else None
            if isinstance(held, tuple):
                found |= {
                    each.name for each in map(values.hard, held) if isinstance(each, (values.Foreign, values.Class))
                }
            else:
                found.add(one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", ""))
        return found

    def _note_imports(self, node: ast.Try | ast.TryStar, handler: ast.ExceptHandler) -> None:
        """Warn of modules that are assumed to be installed, if the file does something else without them."""
        if all(isinstance(one, ast.Import | ast.ImportFrom | ast.Pass | ast.Raise) for one in handler.body):
            return
        for one in node.body:
            paths = [alias.name for alias in one.names] if isinstance(one, ast.Import) else []
            paths += [one.module] if isinstance(one, ast.ImportFrom) and one.module and not one.level else []
            for path in paths:
                if not self.is_there(path):
                    text = f"whether {path} is installed is unknown: what is done without it is left out"
                    self.warn("unknown-import", text, handler)

    def _guarded(self, node: ast.Try | ast.TryStar, names: set[str]) -> None:
        asked, made, bound = self.asked, self.context.effects, set(self.scope.names)
        try:
            self.within(names, lambda: self.block(node.body))
        except values.Raised as error:
            self._handle(node, error)
            return
        except Return as left:
            if self.asked != asked and not isinstance(values.hard(left.value), values.Unknown):
                self._doubt(node, set(), made)
            raise
        self.block(node.orelse)
        if self.asked != asked:
            self._doubt(node, bound, made)

    def within(self, names: set[str], action: Callable[[], None]) -> None:
        """Run an action within handlers for exceptions with these names."""
        self.catching.append(names)
        try:
            action()
        finally:
            self.catching.pop()

    def _doubt(self, node: ast.Try | ast.TryStar, bound: set[str], made: tuple[int, int, int]) -> None:
        """Warn that a ``try`` is assumed to succeed, if its failure would result in another DAG."""
        handlers = [one for one in node.handlers if not (one.body and isinstance(one.body[-1], ast.Raise))]
        if not handlers:
            return  # then Airflow does not load the file at all
        names = _stored([*node.body, *node.orelse]) & bound
        names |= _stored([each for one in handlers for each in one.body])
        known = [
            name for name in names if not isinstance(self._bound_to(name), (values.Unknown, values.Foreign, type(None)))
        ]
        others = self.context.effects != made or known
        if others or any(self._changes(each) for one in handlers for each in one.body):
            text = f"whether `{self.source(node.body[0])[:60]}` succeeds is unknown: what `except` does is left out"
            self.warn("unknown-condition", text, node)

    def _changes(self, statement: ast.stmt) -> bool:
        """Return whether a statement of a handler leaves the block, or may change the content of DAGs."""
        for node in ast.walk(statement):
            if isinstance(node, ast.Return | ast.Continue | ast.Break):
                return True
            if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
                return True
            if isinstance(node, ast.Call):
                owner = self._bound_to(_root(node.func))
                makes_a_task = any(each.arg == "task_id" for each in node.keywords)
                if makes_a_task or isinstance(owner, (list, dict, set, values.Function, values.Instance)):
                    return True
        return False

    def _bound_to(self, name: str) -> Any:
        scope: values.Scope | None = self.scope
        while scope is not None and name not in scope.names:
            scope = scope.parent
        return None if scope is None else values.hard(scope.names[name])

    def _handle(self, node: ast.Try | ast.TryStar, error: values.Raised) -> None:
        of = getattr(error.value, "cls", error.value)
        kinds = [error.kind, *(one.name for one in of.mro())] if isinstance(of, values.Class) else [error.kind]
        for handler in node.handlers:
            if any(is_a(kind, name) for kind in kinds for name in self._caught_by(handler)):
                if handler.name:
                    self.bind(handler.name, error.value if error.value is not None else self.unknown(handler))
                kept, self.handled = self.handled, error
                try:
                    self.block(handler.body)
                finally:
                    self.handled = kept
                return
        raise error


def catches(names: Iterable[str], error: values.Raised) -> bool:
    """Return whether handlers of exceptions with these names catch an error."""
    return any(is_a(error.kind, name) for name in names)


def _stored(nodes: Iterable[ast.stmt]) -> set[str]:
    """Return the names that statements bind."""
    walked = (each for node in nodes for each in ast.walk(node))
    return {each.id for each in walked if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}


def _root(node: ast.expr) -> str:
    """Return the first name of ``name.attribute.attribute``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
