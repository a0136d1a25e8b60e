"""A Python file as libcst's tree, with the rules' queries and edits."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import libcst as cst
from libcst.metadata import (
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    QualifiedNameProvider,
    QualifiedNameSource,
    ScopeProvider,
)
from libcst.metadata.scope_provider import Scope

from flowyml.migration.legacy.checklist import Item, Note
from flowyml.migration.trial import parse_module

Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement
Change = Callable[[Any], Any]


class Unreadable(Exception):
    """A file that this Python cannot read, or cannot write back unchanged."""


class Source:
    """One module: its tree, the meaning of names in it, the notes of the rules, and their edits."""

    def __init__(self, text: str) -> None:
        try:
            ast.parse(text)  # refuses text with which libcst would be slow
            module = parse_module(text)
        except SyntaxError as error:
            where = f"line {error.lineno}: " if error.lineno else ""
            raise Unreadable(f"is not Python that can be read ({where}{error.msg})") from None
        except (ValueError, RecursionError, MemoryError, cst.ParserSyntaxError) as error:
            raise Unreadable(f"is not Python that can be read ({type(error).__name__})") from None
        if module.code != text:
            raise Unreadable("cannot be written back as it is")
        self.text = text
        self._wrapper = MetadataWrapper(module, unsafe_skip_copy=False)
        self.module = self._wrapper.module
        self.parents = cast("dict[cst.CSTNode, cst.CSTNode]", self._wrapper.resolve(ParentNodeProvider))
        self._positions = self._wrapper.resolve(PositionProvider)
        self._scopes = cast("dict[cst.CSTNode, Scope | None]", self._wrapper.resolve(ScopeProvider))
        self._names = self._wrapper.resolve(QualifiedNameProvider)
        self.notes: list[Note] = []
        self.edits = Edits()
        self.wanted_imports: dict[str, str] = {}
        self.moved: set[str] = set()  # the modules that names are imported from now

    def line(self, node: cst.CSTNode) -> int:
        """Return the line where a node begins, counted from 1."""
        return int(cast(Any, self._positions[node]).start.line)

    def scope(self, node: cst.CSTNode) -> Scope | None:
        """Return the scope of a node."""
        found: cst.CSTNode | None = node
        while found is not None:
            if (scope := self._scopes.get(found)) is not None:
                return scope
            found = self.parents.get(found)
        return None

    def around(self, node: cst.CSTNode, *kinds: type[cst.CSTNode]) -> Any:
        """Return the innermost node of these kinds around a node, or itself; None for a node within none."""
        found: cst.CSTNode | None = node
        while found is not None and not isinstance(found, kinds):
            found = self.parents.get(found)
        return found

    def statement(self, node: cst.CSTNode) -> cst.CSTNode:
        """Return the whole line, or compound statement, that contains a node."""
        while not isinstance(node, Statement) and node in self.parents:
            node = self.parents[node]
        return node

    def flowyml_name(self, node: cst.CSTNode) -> str:
        """Return the name in flowyml of an imported object, such as ``Pipeline``; else ``""``."""
        found = self._names.get(node, ())
        for each in found() if callable(found) else cast(Any, found):
            if each.source is QualifiedNameSource.IMPORT and each.name.split(".")[0] == "flowyml":
                return str(each.name.rpartition(".")[2])
        return ""

    def done(self, item: Item, node: cst.CSTNode, message: str) -> None:
        """Note a change at a node."""
        self.notes.append(Note(item, self.line(node), message, is_done=True))

    def needs_you(self, item: Item, node: cst.CSTNode, message: str) -> None:
        """Note a node that a person has to decide about."""
        self.notes.append(Note(item, self.line(node), message, is_done=False))

    def can_import(self, name: str) -> bool:
        """Return whether the module can import this name: it has no other meaning in the module."""
        return all(
            self.flowyml_name(assignment.node) or is_of_flowyml(assignment.node)
            for scope in {scope for scope in self._scopes.values() if scope is not None}
            for assignment in scope.assignments
            if assignment.name == name and hasattr(assignment, "node")
        )

    def want_import(self, module: str, name: str) -> None:
        """Have the module import a name, unless it does already."""
        self.wanted_imports[name] = module

    def edited(self) -> cst.Module:
        """Return the tree with all edits, without the requested imports."""
        return self.module.visit(self.edits)

    def nodes(self, *kinds: type[cst.CSTNode]) -> list[Any]:
        """Return all nodes of these kinds, in the order of the text."""
        return [node for node in self._nodes if isinstance(node, kinds)]

    @cached_property
    def _nodes(self) -> Sequence[cst.CSTNode]:
        """All nodes, cached: many rules use some, and a walk takes longer than going through a list."""
        found = _All()
        self.module.visit(found)
        return found.nodes


class Edits(cst.CSTTransformer):
    """Changes by node; each gets the node with the changes within it applied."""

    def __init__(self) -> None:
        super().__init__()
        self._changes: dict[cst.CSTNode, list[Change]] = {}

    def change(self, node: cst.CSTNode, how: Change) -> None:
        self._changes.setdefault(node, []).append(how)

    def on_leave(self, original_node: Any, updated_node: Any) -> Any:
        for how in self._changes.get(original_node, ()):
            updated_node = how(updated_node)
        return updated_node


class _All(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        self.nodes.append(node)
        return True


def always(node: cst.CSTNode | cst.RemovalSentinel) -> Change:
    """Return a change that replaces a node whatever it is now."""
    return lambda _: node


def literal_text(node: cst.CSTNode) -> str | None:
    """Return the text of a plain string literal; None for bytes and for anything else."""
    if not isinstance(node, cst.SimpleString):
        return None
    value = node.evaluated_value
    return value if isinstance(value, str) else None


def code_of(node: cst.CSTNode) -> str:
    """Return the text of a node."""
    return cst.Module(body=[]).code_for_node(node)


def is_of_flowyml(node: cst.CSTNode) -> bool:
    """Return whether a node is ``from flowyml… import …``."""
    return isinstance(node, cst.ImportFrom) and module_of(node).partition(".")[0] == "flowyml"


def module_of(node: cst.ImportFrom) -> str:
    """Return the module of an import; "" for a relative one."""
    return "" if node.relative or node.module is None else code_of(node.module)


def keyword_of(argument: cst.Arg) -> str:
    """Return the name that a call gives an argument; "" for a positional one."""
    return "" if argument.keyword is None else argument.keyword.value


def named_argument(name: str, value: cst.BaseExpression) -> cst.Arg:
    """Return ``name=value``."""
    tight = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    return cst.Arg(value, keyword=cst.Name(name), equal=tight)
