"""Loops and generators: the body of a loop over a generator runs when that yields, within its open blocks."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from flowyml.migration.airflow.reader.assignments import Assignments
from flowyml.migration.airflow.reader.values import Arguments, Instance, Once, Raised, Soft, hard

__all__ = ["Abandoned", "Break", "Continue", "Loops", "Return", "Yields"]


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


Yields = Callable[[Any, ast.AST], None]


class Loops(Assignments):
    """Iterates.

    For each active function, ``yields`` has the reader of its yielded values, and ``maybe`` its possible return values.
    """

    yields: list[Yields]
    maybe: list[list[Any]]
    doubts: list[tuple[type[Exception], ast.If, tuple[int, int, int]]]
    """Unknown conditions of which an arm ends a pass, a loop or a function; and the number of tasks before."""
    left: int = 0
    """The number of loops that may have been left by ``break``."""

    @contextmanager
    def doubting(self, way: type[Exception]) -> Iterator[None]:
        """For a pass, a loop or a function: warn of tasks that are created in it after a condition that may end it."""
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
        one = hard(value)
        if isinstance(one, Instance) and (method := one.special("__iter__")) is not None:
            found = self.generator(self.bound(method, one, node.iter), Arguments())
            if found is not None:
                self._along(node, *found)
                return True
        items = self._left_of(one, node.iter) if isinstance(one, Once) else self.iterate(value, node.iter)
        if items is None:
            self._maybe_loop(node, node.iter, [lambda: self.assign(node.target, self.unknown(node.target))])
            return False
        if type(value) is Soft:
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

    def _left_of(self, value: Once, node: ast.AST) -> Iterator[Any]:
        while value:
            yield from self.take(value, 1, node)

    def generator(self, function: Any, arguments: Arguments) -> tuple[Any, Arguments] | None:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it

    def _along(self, node: ast.For | ast.AsyncFor, function: Any, arguments: Arguments) -> None:
        """Run a loop over a generator: its body runs when that yields, within its open blocks."""
        inside = self.from_here()
        uncertain, catching = self.context.uncertain, self.catching

        def body(item: Any, _: ast.AST) -> None:
            kept, self.catching = self.catching, catching
            try:
                with inside():
                    self._pass(node, item)
            except (Break, Return, Raised, Abandoned) as error:
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

    def _yielded_from(self, node: ast.YieldFrom) -> Any:
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
        """A loop with unknown items: its body is evaluated once, or twice if only a later pass creates a task."""
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
                if type(test) is Soft:
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

    def _break(self, node: ast.Break) -> None:
        raise Break

    def _continue(self, node: ast.Continue) -> None:
        raise Continue

    def nothing(self, value: Any, node: ast.AST) -> None:
        """Do nothing with a yielded value that has no reader."""

    def give(self, value: Any, node: ast.AST) -> None:
        if self.yields:
            self.yields[-1](value, node)

    def run(self, function: Any, arguments: Arguments, node: ast.AST, reader: Yields) -> Any:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it

    def block(self, nodes: Sequence[ast.stmt]) -> None:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it

    def both(self, arms: list[Callable[[], None]], node: ast.AST) -> set[type[Exception]]:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it
