"""Functions that move over from a DAG file as they stand, with what they need: imports, constants, other functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from flowyml.migration.airflow.model import FunctionModel

__all__ = ["LAMBDA", "Moving", "Needed"]

LAMBDA = "<lambda>"
"""The name of a function without one."""

_OF_AIRFLOW = re.compile(r"airflow(\.|$)")
_MAKES_DAGS = re.compile(r"(DAG|dag|Operator|Sensor|TaskGroup|task_group)$")
_PYTHON = ("airflow.decorators", "airflow.sdk")


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement of the module: what it defines, what it uses at some time, and what when it is imported."""

    node: cst.CSTNode
    defines: frozenset[str]
    uses: frozenset[str]
    runs: frozenset[str]
    is_airflow: bool = False
    may_move: bool = True


@dataclass(slots=True)
class Needed:
    """What some functions need of the module around them: indexes of its statements, and why that is not all."""

    statements: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    problem: str = ""
    airflow: str = ""


class Moving:
    """The text of one DAG file."""

    def __init__(self, text: str) -> None:
        self.text = text
        wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        self.module = wrapper.module
        self._positions = wrapper.resolve(PositionProvider)
        self._functions = _Functions()
        self.module.visit(self._functions)

    @cached_property
    def statements(self) -> Sequence[_Statement]:
        """Those of the module itself, in order."""
        return [self._statement(node) for node in self.module.body]

    @cached_property
    def names(self) -> frozenset[str]:
        """All names that the module itself defines, and those of its functions."""
        return frozenset({*self._defined, *(each.name.value for each in self._functions.found)})

    @cached_property
    def _defined(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, statement in enumerate(self.statements):
            for name in statement.defines:
                found.setdefault(name, []).append(number)
        return found

    def find(self, function: FunctionModel) -> cst.FunctionDef | None:
        """The function in this file; a lambda that is alone on its line as the function that it would be by ``def``."""
        if function.name == LAMBDA:
            return self._defined_lambda(function.place.line)
        for node in self._functions.found:
            lines = [self._positions[each].start.line for each in (node, *node.decorators)]
            if node.name.value == function.name and function.place.line in lines:
                return node
        return None

    def _defined_lambda(self, line: int) -> cst.FunctionDef | None:
        here = [each for each in self._functions.lambdas if self._positions[each].start.line == line]
        if len(here) != 1:
            return None
        module = cst.parse_module("def _(): return None\n")
        made = module.body[0]
        assert isinstance(made, cst.FunctionDef)
        value = here[0].body
        if "\n" in self.module.code_for_node(value):
            value = value.with_changes(lpar=[cst.LeftParen(), *value.lpar], rpar=[*value.rpar, cst.RightParen()])
        body = cst.IndentedBlock([cst.SimpleStatementLine([cst.Return(value)])])
        return made.with_changes(params=here[0].params, body=body)

    def constant(self, name: str) -> ast.expr | None:
        """What the module sets a name to, if it does that once, and does nothing else with it by a dot or an index."""
        if len(numbers := self._defined.get(name, [])) != 1:
            return None
        tree = ast.parse(self.code(self.statements[numbers[0]].node)).body[0]
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Attribute | ast.Subscript) and _is_name(node.value, name):
                return None
        match tree:
            case ast.Assign(targets=[ast.Name(id=only)], value=value) if only == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=only), value=value) if only == name:
                return value
        return None

    def needed(self, node: cst.CSTNode, own: str = "") -> Needed:
        """What a node needs of the module, all that this needs in turn included."""
        made = Needed()
        tree = self._tree(node)
        waiting = [name for name in _names(tree) if name != own]
        if any(_OF_AIRFLOW.match(module) for module in _imported(tree)):
            made.airflow = "it imports airflow"
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self._defined:
                continue
            seen.add(name)
            made.names.add(name)
            for number in self._defined[name]:
                statement = self.statements[number]
                if not statement.may_move:
                    made.problem = f"it uses {name}, which is made with the DAG"
                    continue
                if statement.is_airflow:
                    made.airflow = made.airflow or f"it uses {name} of airflow"
                if number not in made.statements:
                    made.statements.add(number)
                    waiting += statement.uses
        return made

    def is_from(self, module: str, name: str) -> bool:
        """Whether the file has a name, and from nothing but ``from module import name``."""
        found = [
            each
            for number in self._defined.get(name, ())
            for each in ast.parse(self.code(self.statements[number].node)).body
            if name in _defined_by([each])
        ]
        return bool(found) and all(
            isinstance(each, ast.ImportFrom) and each.module == module and not each.level
            and any(alias.name == name and alias.asname in (None, name) for alias in each.names)
            for each in found
        )  # fmt: skip

    def is_guarded(self, number: int) -> bool:
        """Whether a statement needs Airflow when it is imported."""
        return number in self._guarded

    @cached_property
    def _guarded(self) -> frozenset[int]:
        found: set[int] = {number for number, each in enumerate(self.statements) if each.is_airflow}
        names = {name for number in found for name in self.statements[number].defines}
        for number, statement in enumerate(self.statements):
            if number not in found and statement.runs & names:
                found.add(number)
                names |= statement.defines
        return frozenset(found)

    def code(self, node: cst.CSTNode) -> str:
        """The text of a node, without blank lines around it."""
        return self.module.code_for_node(node).strip("\n")

    def function_code(self, node: cst.FunctionDef, column: int) -> str:
        """The text of a function that stood at a column: its docstring moves with it."""
        text = self.code(node)
        tree = ast.parse(text).body[0]
        assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
        first = tree.body[0]
        if not column or not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            return text
        lines = text.splitlines()
        for number in range(first.lineno, first.end_lineno or 0):
            lines[number] = lines[number].removeprefix(" " * column)
        return "\n".join(lines)

    def column(self, node: cst.FunctionDef) -> int:
        """Where a function of this file stands in its line; 0 for one that was a lambda."""
        if node not in self._positions:
            return 0
        return int(self._positions[node].start.column)

    def import_lines(self, number: int, names: set[str]) -> list[str]:
        """An import statement, without the names that are not needed."""
        node = self.statements[number].node
        assert isinstance(node, cst.SimpleStatementLine)
        made: list[str] = []
        for each in ast.parse(self.code(node)).body:
            assert isinstance(each, ast.Import | ast.ImportFrom)
            each.names = [
                alias for alias in each.names
                if alias.name == "*" or (alias.asname or alias.name.partition(".")[0]) in names
            ]  # fmt: skip
            if each.names:
                made.append(ast.unparse(each))
        return made

    def without_airflows_decorators(self, node: cst.FunctionDef) -> cst.FunctionDef:
        """A function as it stands, but for what makes a task of it."""
        kept = [each for each in node.decorators if not self._is_airflows(each)]
        return node.with_changes(decorators=kept)

    @cached_property
    def docstring(self) -> str:
        """That of the module, as text."""
        return ast.get_docstring(ast.parse(self.text)) or ""

    def _is_airflows(self, decorator: cst.Decorator) -> bool:
        names = list(_names(self._tree(decorator.decorator)))
        return any(self.statements[number].is_airflow for name in names for number in self._defined.get(name, ()))

    def _tree(self, node: cst.CSTNode) -> ast.AST:
        return ast.parse(self.module.code_for_node(node).strip("\n") if not isinstance(node, cst.BaseExpression)
                         else f"({self.module.code_for_node(node)})")  # fmt: skip

    def _statement(self, node: cst.CSTNode) -> _Statement:
        tree = self._tree(node)
        assert isinstance(tree, ast.Module)
        defines = frozenset(_defined_by(tree.body))
        uses = frozenset(_names(tree))
        modules = [module for each in tree.body for module in _imported(each, deep=False)]
        is_airflow = any(_OF_AIRFLOW.match(module) for module in modules)
        runs = frozenset(name for each in tree.body for name in _run_by(each))
        return _Statement(node, defines, uses, runs, is_airflow, all(map(_may_move, tree.body)))


class _Functions(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: list[cst.FunctionDef] = []
        self.lambdas: list[cst.Lambda] = []

    def visit_Lambda(self, node: cst.Lambda) -> None:  # noqa: N802  # libcst's name
        self.lambdas.append(node)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:  # noqa: N802  # libcst's name
        self.found.append(node)


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _names(tree: ast.AST) -> Iterator[str]:
    """The names that a tree looks up, those left out that are its functions' own."""
    if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        spec = tree.args
        own = {each.arg for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg) if each}
        body = tree.body if isinstance(tree.body, list) else [tree.body]
        stored = {name for each in body for node in ast.walk(each) if (name := _stored(node))}
        declared = {
            name for each in body for node in ast.walk(each) if isinstance(node, ast.Global) for name in node.names
        }
        inside = {name for each in body for name in _names(each)}
        yield from inside - own - (stored - declared)
        around = [*spec.defaults, *(each for each in spec.kw_defaults if each), *getattr(tree, "decorator_list", ())]
        for each in [*around, *(each for each in (getattr(tree, "returns", None), *_annotations(spec)) if each)]:
            yield from _names(each)
        return
    if isinstance(tree, ast.Name):
        yield tree.id
    for child in ast.iter_child_nodes(tree):
        yield from _names(child)


def _annotations(spec: ast.arguments) -> Iterator[ast.expr | None]:
    every = (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg)
    return (each.annotation for each in every if each)


def _stored(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else ""


def _imported(tree: ast.AST, *, deep: bool = True) -> Iterator[str]:
    """The modules that are imported; not ``deep``: when this runs, and not when a function in it is called."""
    nodes = ast.walk(tree) if deep else _outside_functions(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from _outside_functions(child)


def _defined_by(body: Iterable[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
            continue
        for node in _outside_functions(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.ClassDef):
                yield node.name
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name


def _run_by(statement: ast.stmt) -> Iterator[str]:
    """The names that are looked up when a statement is imported."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        parts: list[ast.AST] = [*statement.decorator_list, *statement.args.defaults]
        parts += [each for each in statement.args.kw_defaults if each is not None]
        for part in parts:
            yield from _names(part)
        return
    for node in _outside_functions(statement):
        if isinstance(node, ast.Name):
            yield node.id


def _may_move(statement: ast.stmt) -> bool:
    """Whether a statement makes no DAG and no task. What runs under ``__main__`` stays behind too."""
    if isinstance(statement, ast.With | ast.For | ast.While):
        return False
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        made = (_called(each) for each in statement.decorator_list)
        return not any(name and _MAKES_DAGS.search(name) for name in made)
    if isinstance(statement, ast.If) and "__name__" in set(_names(statement.test)):
        return False
    calls = (node for node in _outside_functions(statement) if isinstance(node, ast.Call))
    return not any((name := _called(call)) and _MAKES_DAGS.search(name) for call in calls)


def _called(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
