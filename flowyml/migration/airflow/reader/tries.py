"""``try``. A call in it is assumed to succeed unless it is known to raise."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any

from flowyml.migration.airflow.reader.loops import Loops, Return
from flowyml.migration.airflow.reader.machine import is_a
from flowyml.migration.airflow.reader.values import Class, Foreign, Function, Instance, Raised, Scope, Unknown, hard

__all__ = ["Tries", "catches"]


class Tries(Loops):
    """Runs ``try``. A call outside of the root is assumed to succeed."""

    handled: Raised | None = None
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
                found |= {each.name for each in map(hard, held) if isinstance(each, (Foreign, Class))}
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

    def is_there(self, path: str) -> bool:
        raise NotImplementedError  # a part of the evaluator further down the line of classes has it

    def _guarded(self, node: ast.Try | ast.TryStar, names: set[str]) -> None:
        asked, made, bound = self.asked, self.context.effects, set(self.scope.names)
        try:
            self.within(names, lambda: self.block(node.body))
        except Raised as error:
            self._handle(node, error)
            return
        except Return as left:
            if self.asked != asked and not isinstance(hard(left.value), Unknown):
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
        others = self.context.effects != made or any(map(self._is_known, names))
        if others or any(self._changes(each) for one in handlers for each in one.body):
            text = f"whether `{self.source(node.body[0])[:60]}` succeeds is unknown: what `except` does is left out"
            self.warn("unknown-condition", text, node)

    def _is_known(self, name: str) -> bool:
        return not isinstance(self._bound_to(name), (Unknown, Foreign, type(None)))

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
                if makes_a_task or isinstance(owner, (list, dict, set, Function, Instance)):
                    return True
        return False

    def _bound_to(self, name: str) -> Any:
        scope: Scope | None = self.scope
        while scope is not None and name not in scope.names:
            scope = scope.parent
        return None if scope is None else hard(scope.names[name])

    def _handle(self, node: ast.Try | ast.TryStar, error: Raised) -> None:
        of = getattr(error.value, "cls", error.value)
        kinds = [error.kind, *(one.name for one in of.mro())] if isinstance(of, Class) else [error.kind]
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


def catches(names: Iterable[str], error: Raised) -> bool:
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
