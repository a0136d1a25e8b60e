"""The names that statements of a DAG file define, use and change, from their trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from symtable import SymbolTable, symtable
from typing import TypeGuard

from flowyml.migration.reach import reached

_MAKES_DAGS = re.compile(r"(DAG|dag|Operator|Sensor|TaskGroup|task_group)$")
_CHANGES = frozenset({
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "reverse",
    "setdefault", "sort", "update",
})  # fmt: skip
_LOGS = frozenset({"critical", "debug", "error", "exception", "info", "log", "print", "warn", "warning"})


def looked_up(text: str) -> Iterator[str]:
    """Yield the names that a text looks up outside of its functions and classes, or sets by ``global``.

    Raises ``SyntaxError`` for code that cannot be in a module, such as a ``nonlocal`` of a function around it.
    """
    top = symtable(text, "<moved>", "exec")
    yield from (each.get_name() for each in top.get_symbols() if each.is_referenced())
    for each in reached(top.get_children(), SymbolTable.get_children):
        at_class = each.get_type() == "class"  # where a name that is set later is the module's before
        yield from (
            name.get_name() for name in each.get_symbols()
            if name.is_global() or (at_class and name.is_local() and name.is_referenced())
        )  # fmt: skip


def imported(tree: ast.AST, *, deep: bool = True) -> Iterator[str]:
    """Yield the modules that are imported; not ``deep``: when this runs, and not when a function in it is called."""
    for node in outside_functions(tree, deep=deep):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def outside_functions(tree: ast.AST, *, deep: bool = False) -> Iterator[ast.AST]:
    """Yield a node and its content that runs, unless ``deep`` without functions and their content."""
    if not deep and isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield tree
    for child in tree.orelse if is_for_checkers(tree) else ast.iter_child_nodes(tree):
        yield from outside_functions(child, deep=deep)


def is_for_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    """Return whether a node is an ``if TYPE_CHECKING``, whose body never runs."""
    return isinstance(node, ast.If) and called(node.test) == "TYPE_CHECKING"


def defined_by(text: str) -> Iterator[str]:
    """Yield the names that a text sets at module level, without those that its functions set."""
    for each in symtable(text, "<moved>", "exec").get_symbols():
        if each.is_assigned() or each.is_imported() or each.is_namespace():
            yield each.get_name()


def set_by_functions(text: str) -> Iterator[str]:
    """Yield the names of the module that functions in a text set by ``global``."""
    for each in reached(symtable(text, "<moved>", "exec").get_children(), SymbolTable.get_children):
        yield from (name.get_name() for name in each.get_symbols() if name.is_declared_global())


def changed_by(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names whose values some nodes change in place."""
    for node in nodes:
        match node:
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield from first_name(node)
            case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in _CHANGES:
                yield from first_name(value)


def aliased(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield each name that is set, with the names whose values, or parts of them, it may refer to."""
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                targets = [target]
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                targets = [target]
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                targets = [target]
            case _:
                continue
        others = [*_stood_for(value)]
        for each in targets:
            for name in ast.walk(each):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    yield name.id, others


def _stood_for(value: ast.expr) -> Iterator[str]:
    """Yield the names whose values, or parts of them, an expression may return."""
    match value:
        case ast.Attribute() | ast.Subscript() | ast.Name():
            yield from first_name(value)
            if isinstance(value, ast.Attribute | ast.Subscript) and isinstance(value.value, ast.Call):
                yield from _stood_for(value.value)
        case ast.Call(func=ast.Attribute(value=inner, attr="get" | "setdefault" | "values" | "items" | "pop")):
            yield from _stood_for(inner)
        case ast.Call(func=ast.Name("enumerate" | "zip" | "reversed" | "iter" | "next" | "sorted"), args=parts):
            for each in parts:
                yield from _stood_for(each)
        case ast.IfExp(body=one, orelse=other):
            yield from (*_stood_for(one), *_stood_for(other))
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Dict(values=parts):
            for each in parts:
                yield from _stood_for(each)
        case ast.Starred(value=inner) | ast.NamedExpr(value=inner):
            yield from _stood_for(inner)


def handed_by(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement calls for their effect, and those that it passes to such calls."""
    for node in outside_functions(statement):
        if isinstance(node, ast.Expr) and isinstance(call := node.value, ast.Call) and called(call) not in _LOGS:
            for each in (call.func, *call.args, *(named.value for named in call.keywords)):
                yield from first_name(each)


def first_name(node: ast.expr) -> Iterator[str]:
    """Yield the name at the beginning of a chain of dots and indexes; None if there is none."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def run_by(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that are looked up when a statement is imported."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        parts: list[ast.AST] = [*statement.decorator_list, *statement.args.defaults]
        parts += [each for each in statement.args.kw_defaults if each is not None]
        for part in parts:
            yield from looked_up(ast.unparse(part))
        return
    for node in outside_functions(statement):
        if isinstance(node, ast.Name):
            yield node.id


def is_main(statement: ast.stmt) -> bool:
    """Return whether a statement is for a module that runs as a script."""
    names = ast.walk(statement.test) if isinstance(statement, ast.If) else ()
    return any(isinstance(each, ast.Name) and each.id == "__name__" for each in names)


def may_move(statement: ast.stmt) -> bool:
    """Return whether a statement creates no DAG and no task. Code under ``__main__`` stays behind, too."""
    if isinstance(statement, ast.With | ast.For | ast.While):
        return False
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        made = (called(each) for each in statement.decorator_list)
        return not any(name and _MAKES_DAGS.search(name) for name in made)
    if is_main(statement):
        return False
    calls = (node for node in outside_functions(statement) if isinstance(node, ast.Call))
    return not any((name := called(call)) and _MAKES_DAGS.search(name) for call in calls)


def called(node: ast.AST) -> str:
    """Return the last name of a node or of the function that it calls."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
