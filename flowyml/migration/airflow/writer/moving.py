"""Copy functions from a DAG file unchanged, with the code that they need: imports, constants, other functions."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import decode_source

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from flowyml.migration.airflow.model import FunctionModel
from flowyml.migration.airflow.reader.files import Refused
from flowyml.migration.airflow.writer import syntax
from flowyml.migration.airflow.writer.constants import Constants
from flowyml.migration.airflow.writer.repository import OF_AIRFLOW, Import, Repository, imports_of
from flowyml.migration.reach import reached
from flowyml.migration.trial import parse_module

LAMBDA = "<lambda>"
"""The name of a function without one."""


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement of the module: the names that it defines, those that it uses at any time, and those at import.

    ``changes`` are names whose values it changes in place, ``may_change`` those that it calls or passes to a call.
    ``sets`` are those that a function in it sets by ``global`` or changes in place. ``through`` are modules of the
    repository that import airflow, by the names that are imported from them; ``guarded`` are names that need Airflow
    when this is imported. ``imports_airflow`` is True if it imports airflow at any time, itself or in a function.
    """

    node: cst.CSTNode
    defines: frozenset[str]
    uses: Sequence[str]
    runs: frozenset[str]
    is_airflow: bool = False
    may_move: bool = True
    changes: frozenset[str] = frozenset()
    may_change: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    through: Mapping[str, str] = field(default_factory=dict)
    guarded: frozenset[str] = frozenset()
    imports_airflow: bool = False

    def of(self, name: str) -> str:
        """Return the module that imports airflow through which the statement has a name; "" for none."""
        return self.through.get(name) or self.through.get("*", "")


@dataclass(slots=True)
class Needed:
    """The part of the module that some functions need: indexes of its statements, and why that is incomplete.

    ``names`` are those that these statements define, ``looked`` all names that are looked up outside of a function.
    """

    statements: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    looked: set[str] = field(default_factory=set)
    problem: str = ""
    airflow: str = ""


class Moving:
    """The text of one DAG file, and the repository whose modules it imports."""

    def __init__(self, text: str, repository: Repository | None = None) -> None:
        self._repository = repository
        self._others: dict[str, Moving | None] = {}
        self.text = text = re.sub("\r\n?", "\n", text)
        wrapper = MetadataWrapper(parse_module(text), unsafe_skip_copy=True)
        self.module = wrapper.module
        self._positions = wrapper.resolve(PositionProvider)
        self._functions = _Functions()
        self.module.visit(self._functions)

    @cached_property
    def statements(self) -> Sequence[_Statement]:
        """The statements of the module itself, in order."""
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
        """Find the function in this file; a lambda that is alone on its line is converted to a ``def``."""
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

    def other(self, name: str) -> Moving | None:
        """Return a module of the repository that can be imported without Airflow; None for any other."""
        if name not in self._others:
            self._others[name] = self._read_other(name)
        return self._others[name]

    def _read_other(self, name: str) -> Moving | None:
        wanted = Import(name)
        if self._repository is None or self._repository.airflow_in(wanted, later=False):
            return None
        modules, missing = self._repository.modules(wanted)
        if missing or modules[-1].name != name:
            return None
        try:
            return Moving(decode_source(self._repository.data(modules[-1])), self._repository)
        except (Refused, OSError, ValueError, SyntaxError):
            return None

    def has_only(self, node: cst.FunctionDef) -> bool:
        """Return whether the name of a function is that function's for as long as the module exists."""
        return [self.statements[number].node for number in self._defined.get(node.name.value, ())] == [node]

    def constant(self, name: str) -> ast.expr | None:
        """Return the value of a name that the module assigns once and does not use by a dot or an index."""
        if len(numbers := self._defined.get(name, [])) != 1 or name in self._looked_into or name in self._changed:
            return None
        tree = ast.parse(self.code(self.statements[numbers[0]].node)).body[0]
        match tree:
            case ast.Assign(targets=[ast.Name(id=only)], value=value) if only == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=only), value=value) if only == name:
                return value
        return None

    @cached_property
    def constants(self) -> Constants:
        """The constants of the module that others can keep."""
        return Constants(self.constant, lambda name: self.is_from("datetime", name))

    @cached_property
    def _looked_into(self) -> frozenset[str]:
        """The names that are used by a dot or an index, or that a function sets by ``global``."""
        nodes = [node for node in ast.walk(ast.parse(self.text)) if isinstance(node, ast.Attribute | ast.Subscript)]
        found = {node.value.id for node in nodes if isinstance(node.value, ast.Name)}
        return frozenset({*found, *(name for each in self.statements for name in each.sets)})

    def bound_here(self, function: FunctionModel, node: cst.FunctionDef) -> frozenset[str]:
        """Return the arguments whose defaults have another meaning than at the top of a module."""
        known = dict(function.defaults)
        found: set[str] = set()
        spec = node.params
        for each in (*spec.posonly_params, *spec.params, *spec.kwonly_params):
            names = set(syntax.looked_up(f"({self.code(each.default)})")) if each.default is not None else set()
            if each.name.value in known and any(name in function.around or self._is_moot(name) for name in names):
                found.add(each.name.value)
        return frozenset(found)

    def _is_moot(self, name: str) -> bool:
        """Return whether a name of the module has several values over time, or is created with a DAG."""
        defined = self._defined.get(name, [])
        return len(defined) > 1 or any(not self.statements[number].may_move for number in defined)

    def needed(self, node: cst.CSTNode, own: str = "") -> Needed:
        """Find the part of the module that a node needs, directly or through others."""
        try:
            names = list(syntax.looked_up(self.code(node)))
        except SyntaxError:  # by itself: as a text of the file it was read
            return Needed(problem="it sets a name of the function around it")
        made = self._around(names, own)
        if any(OF_AIRFLOW.match(module) for module in syntax.imported(self._tree(node))):
            made.airflow = "it imports airflow"
        elif through := next(iter(self._through(self._tree(node)).values()), ""):
            made.airflow = made.airflow or f"it imports {through}, which imports airflow"
        if own in made.looked:
            others = sorted({*self._defined.get(own, [])[1:], *self._changed.get(own, ())})
            if others:
                made.problem = f"it uses {own} itself, which line {self._line(others[0])} changes"
        return made

    def _around(self, names: Iterable[str], own: str) -> Needed:
        made = Needed()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in made.looked:
                continue
            made.looked.add(name)
            defined = self._definitions(name)
            if not defined or name == own:
                continue
            changing = self._changed.get(name, ())
            made.names.add(name)
            moving = [number for number in (*defined, *changing) if self.statements[number].may_move]
            if stays := [number for number in changing if number not in moving]:
                made.problem = f"it uses {name}, which line {self._line(stays[0])} changes beside the DAG"
            if not {*defined}.issubset(moving):
                made.problem = f"it uses {name}, which is made with the DAG"
            if any(self.statements[number].is_airflow for number in moving):
                made.airflow = made.airflow or f"it uses {name} of airflow"
            elif any(self.statements[number].imports_airflow for number in moving):
                made.airflow = made.airflow or f"it uses {name}, which imports airflow"
            elif through := next((each for number in moving if (each := self.statements[number].of(name))), ""):
                made.airflow = made.airflow or f"it uses {name} by way of {through}, which imports airflow"
            for number in sorted({*moving} - made.statements):
                waiting += self.statements[number].uses
            made.statements.update(moving)
        return made

    def _definitions(self, name: str) -> Sequence[int]:
        """Return the statements that define a name.

        Each ``import *`` may, if no other does and Python lacks the name.
        """
        is_pythons = hasattr(builtins, name) or name.startswith("__")
        return self._defined.get(name) or ([] if is_pythons else self._stars)

    @cached_property
    def _stars(self) -> Sequence[int]:
        return [
            number for number, each in enumerate(self.statements)
            if isinstance(each.node, cst.SimpleStatementLine)
            and any(isinstance(one, cst.ImportFrom) and isinstance(one.names, cst.ImportStar) for one in each.node.body)
        ]  # fmt: skip

    def _line(self, number: int) -> int:
        return int(self._positions[self.statements[number].node].start.line)

    @cached_property
    def _changed(self) -> Mapping[str, Sequence[int]]:
        """By name, the statements that change its value, beside those that define it, in order.

        A call for its effect may change its arguments: it is copied, too, unless it creates a DAG.
        """
        found: dict[str, list[int]] = {}
        for number, statement in enumerate(self.statements):
            names = set(statement.changes)
            if number not in self._of_dags:
                called = (self._defined.get(name, ()) for name in statement.may_change)
                sets = (self.statements[each].sets for numbers in called for each in numbers)
                names |= statement.may_change.union(*sets)
            names |= self._changed_by_calls(number)
            for name in reached(names, lambda name: self._aliases.get(name, ())):  # other names for the same value
                found.setdefault(name, []).append(number)
        return found

    def _changed_by_calls(self, number: int) -> set[str]:
        """Return the names that a statement passes to functions of the file that change their arguments."""
        found: set[str] = set()
        for node in syntax.outside_functions(self._tree(self.statements[number].node)):
            if not isinstance(node, ast.Call):
                continue
            if (name := syntax.called(node)) in self._changers:
                own = [node.func] if isinstance(node.func, ast.Attribute) else []
                for each in (*own, *node.args, *(named.value for named in node.keywords)):
                    found.update(syntax.first_name(each))
            if number in self._of_dags and isinstance(node.func, ast.Name):
                for definition in self._defined.get(name, ()):
                    found |= self.statements[definition].sets
        return found

    @cached_property
    def _changers(self) -> AbstractSet[str]:
        """The functions and methods of the file that change one of their own arguments in place. Tasks get copies."""
        return {
            node.name for node in ast.walk(ast.parse(self.text))
            if isinstance(node, ast.FunctionDef)
            and not any("task" in ast.unparse(each) for each in node.decorator_list)
            and {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            & {*syntax.changed_by(ast.walk(node))}
        }  # fmt: skip

    @cached_property
    def _aliases(self) -> Mapping[str, AbstractSet[str]]:
        """By name, the names whose values, or parts of them, it may refer to."""
        found: dict[str, set[str]] = {}
        for name, others in syntax.aliased(syntax.outside_functions(ast.parse(self.text))):
            found.setdefault(name, set()).update(each for each in others if each in self._defined)
        return found

    @cached_property
    def _of_dags(self) -> AbstractSet[int]:
        """The statements that need Airflow or an object created with a DAG, at any distance."""
        users: dict[str, list[int]] = {}
        for number, statement in enumerate(self.statements):
            for name in statement.uses:
                users.setdefault(name, []).append(number)

        def users_of(number: int) -> Iterator[int]:
            for name in self.statements[number].defines | self.statements[number].changes:
                yield from users.pop(name, ())

        first = (number for number, each in enumerate(self.statements) if each.is_airflow or not each.may_move)
        return {*reached(first, users_of)}

    def is_from(self, module: str, name: str) -> bool:
        """Return whether the file has a name only from ``from module import name``."""
        trees = (ast.parse(self.code(self.statements[number].node)) for number in self._defined.get(name, ()))
        found = [each for tree in trees for each in tree.body if name in syntax.defined_by(ast.unparse(each))]
        return bool(found) and all(
            isinstance(each, ast.ImportFrom) and each.module == module and not each.level
            and any(alias.name == name and alias.asname in (None, name) for alias in each.names)
            for each in found
        )  # fmt: skip

    def guarded(self, number: int) -> AbstractSet[str]:
        """Return the names of a statement that need Airflow when it is imported."""
        return self._guarded[number]

    @cached_property
    def _guarded(self) -> Sequence[AbstractSet[str]]:
        found = [each.guarded for each in self.statements]
        names = {name for each in found for name in each}
        for number, statement in enumerate(self.statements):
            if not found[number] and statement.runs & names:
                found[number] = statement.defines
                names |= statement.defines
        return found

    def guarded_by(self, node: cst.FunctionDef) -> str:
        """Return a name that needs Airflow and that a function uses at its definition; "" for none."""
        (tree,) = ast.parse(self.code(node)).body
        return min({*syntax.run_by(tree)} & {name for each in self._guarded for name in each}, default="")

    def code(self, node: cst.CSTNode) -> str:
        """Return the text of a node, without blank lines around it."""
        return self.module.code_for_node(node).strip("\n")

    def block(self, head: str, body: Iterable[cst.CSTNode]) -> str:
        """Write statements below a head. They are indented, but not the texts in them."""
        made = cst.parse_statement(f"{head}    pass\n")
        assert isinstance(made, cst.With)
        inner = [
            each.with_changes(leading_lines=[line for line in getattr(each, "leading_lines", ()) if line.comment])
            for each in body
        ]
        return self.code(made.with_changes(body=made.body.with_changes(body=inner)))

    def function_code(self, node: cst.FunctionDef, column: int) -> str:
        """Return the text of a function that was at a column: its docstring moves with it."""
        text = self.code(node)
        tree = ast.parse(text).body[0]
        assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
        first = tree.body[0]
        if not column or not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            return text
        lines = text.split("\n")  # as Python counts them
        for number in range(first.lineno, first.end_lineno or 0):
            lines[number] = lines[number].removeprefix(" " * column)
        return "\n".join(lines)

    def column(self, node: cst.FunctionDef) -> int:
        """Return the column of a function of this file; 0 for a former lambda."""
        if node not in self._positions:
            return 0
        return int(self._positions[node].start.column)

    def import_lines(self, number: int, names: AbstractSet[str]) -> list[str]:
        """Return an import statement with only these names; ``*`` is a name."""
        node = self.statements[number].node
        assert isinstance(node, cst.SimpleStatementLine)
        made: list[str] = []
        for each in ast.parse(self.code(node)).body:
            assert isinstance(each, ast.Import | ast.ImportFrom)
            each.names = [
                alias for alias in each.names
                if (alias.asname or alias.name.partition(".")[0]) in names
            ]  # fmt: skip
            if each.names:
                made.append(ast.unparse(each))
        return made

    def without_airflows_decorators(self, node: cst.FunctionDef) -> cst.FunctionDef:
        """Return a function without the decorators that turn it into a task."""
        kept = [each for each in node.decorators if not self._is_airflows(each)]
        return node.with_changes(decorators=kept)

    def definitions(self, names: Iterable[str]) -> set[int]:
        """Return the statements that define some names."""
        return {number for name in names for number in self._defined.get(name, ())}

    @cached_property
    def docstring(self) -> str:
        """The docstring of the module, as text."""
        return ast.get_docstring(ast.parse(self.text)) or ""

    def _is_airflows(self, decorator: cst.Decorator) -> bool:
        names = {each.id for each in ast.walk(self._tree(decorator.decorator)) if isinstance(each, ast.Name)}
        return any(self.statements[number].is_airflow for name in names for number in self._defined.get(name, ()))

    def _tree(self, node: cst.CSTNode) -> ast.AST:
        return ast.parse(self.module.code_for_node(node).strip("\n") if not isinstance(node, cst.BaseExpression)
                         else f"({self.module.code_for_node(node)})")  # fmt: skip

    def _statement(self, node: cst.CSTNode) -> _Statement:
        tree = self._tree(node)
        assert isinstance(tree, ast.Module)
        text = self.code(node)
        defines = frozenset(syntax.defined_by(text))
        uses = tuple(syntax.looked_up(text))
        modules = [module for each in tree.body for module in syntax.imported(each, deep=False)]
        is_airflow = any(OF_AIRFLOW.match(module) for module in modules)
        runs = frozenset(name for each in tree.body for name in syntax.run_by(each))
        changing = [] if any(map(syntax.is_main, tree.body)) else tree.body
        return _Statement(
            node, defines, uses, runs, is_airflow, all(map(syntax.may_move, tree.body)),
            changes=frozenset(
                name for each in changing for name in syntax.changed_by(syntax.outside_functions(each))
            ),
            may_change=frozenset(name for each in changing for name in syntax.handed_by(each)),
            sets=frozenset({*syntax.set_by_functions(text), *({*syntax.changed_by(ast.walk(tree))} & {*uses})}),
            through=self._through(tree),
            guarded=frozenset({*defines, "*"} if is_airflow else self._through(tree, later=False)),
            imports_airflow=any(OF_AIRFLOW.match(module) for module in syntax.imported(tree)),
        )  # fmt: skip

    def _through(self, tree: ast.AST, *, later: bool = True) -> Mapping[str, str]:
        """Return the names that a tree imports from modules of the repository that import airflow, with these modules.

        Not ``later``: those that it imports when it runs, from modules that import airflow when they are imported.
        """
        if self._repository is None:
            return {}
        found: dict[str, str] = {}
        for each in syntax.outside_functions(tree, deep=later):
            if isinstance(each, ast.Import | ast.ImportFrom):
                only = copy(each)
                for alias in each.names:
                    only.names = [alias]
                    wanted = next(imports_of(only), None)
                    if wanted is not None and (through := self._repository.airflow_in(wanted, later=later)):
                        found[(alias.asname or alias.name).partition(".")[0]] = through
        return found


def without_defaults(node: cst.FunctionDef, names: frozenset[str]) -> cst.FunctionDef:
    """Return a function whose calls all pass some arguments: their defaults become None."""
    spec = node.params

    def bare(some: Sequence[cst.Param]) -> list[cst.Param]:
        return [each.with_changes(default=cst.Name("None")) if each.name.value in names else each for each in some]

    return node.with_changes(params=spec.with_changes(
        params=bare(spec.params), kwonly_params=bare(spec.kwonly_params), posonly_params=bare(spec.posonly_params)
    ))  # fmt: skip


class _Functions(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: list[cst.FunctionDef] = []
        self.lambdas: list[cst.Lambda] = []

    def visit_Lambda(self, node: cst.Lambda) -> None:  # noqa: N802  # libcst's name
        self.lambdas.append(node)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:  # noqa: N802  # libcst's name
        self.found.append(node)
