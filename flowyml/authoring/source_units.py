"""Split a Python file into its top-level statements: the names that each binds and uses, and its text without layout.

That text does not depend on comments, white space, quotes, redundant parentheses, the order of definitions, or the
version of Python.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from flowyml.core.syntax import parsed

__all__ = ["Chain", "Imported", "SourceFile", "Unit", "hash_of", "identity_of", "source_file_at", "text_of"]

Chain = tuple[str, ...]
"""The attributes after a name: ``("path", "join")`` in ``os.path.join``; empty for the name alone."""

Imported = tuple[str, str | None]
"""The target of an import: an absolute module, and a name in it, or None for the module itself."""

_DYNAMIC = frozenset({
    "globals", "eval", "exec", "compile", "__import__", "import_module", "spec_from_file_location", "runpy",
})  # fmt: skip
"""Names and attributes by which code reaches names that it does not write."""
_DYNAMIC_ATTRIBUTES = _DYNAMIC - {"compile", "eval"} | {
    "__dict__", "__globals__", "__builtins__", "f_globals", "f_locals", "exec_module", "load_module",
}  # fmt: skip

_FILE_NAME = re.compile(r"[^\s/:][^\n:]{0,200}\.\w{1,12}")
_KEPT = 512
_NO_TEXT = frozenset({"ctx", "kind", "type_comment"})


class Unit:
    """One top-level statement of a file, with everything in it."""

    def __init__(self, node: ast.stmt, package: Chain) -> None:
        self.node = node
        found = _Names(package)
        found.visit(node)
        self.uses = found.uses
        self.imports = found.imports
        self.stars = found.stars
        self.modules = found.modules
        self.texts = found.texts
        self.files = found.files
        has_modules = any(chain[:1] == ("modules",) for chain in found.uses.get("sys", ()))
        self.is_dynamic = bool(_DYNAMIC & found.uses.keys() or _DYNAMIC_ATTRIBUTES & found.attributes or has_modules)
        self.asks_for_run = "current_run" in found.uses or "current_run" in found.attributes

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the statement's text, in hexadecimal."""
        return hashlib.sha256(text_of(self.node).encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def binds(self) -> tuple[str, ...]:
        """The module-level names that the statement binds."""
        return tuple(dict.fromkeys(_bound(self.node)))

    @property
    def is_import(self) -> bool:
        """True if the statement is an import."""
        return isinstance(self.node, ast.Import | ast.ImportFrom)


class SourceFile:
    """A Python file. ``name`` is the name of its module."""

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        self.name = name
        self.path = path
        self.source = source
        self.identity: tuple[int, ...] = ()
        package = tuple(name.split(".") if path.stem == "__init__" else name.split(".")[:-1])
        self.units = [Unit(node, package) for node in parsed(source).body]
        self.by_name: dict[str, list[Unit]] = {}
        for unit in self.units:
            for bound in unit.binds:
                self.by_name.setdefault(bound, []).append(unit)

    @cached_property
    def loose(self) -> Sequence[Unit]:
        """The statements that may do more than bind names: everything that imports the file depends on them."""
        return [unit for unit in self.units if self._is_loose(unit.node)]

    @cached_property
    def of_flowyml(self) -> frozenset[str]:
        """The names that refer to FlowyML: its functions, and the pipelines and steps that they create here."""
        found = {
            name
            for unit in self.units
            for name, (module, _) in unit.imports.items()
            if module.partition(".")[0] == "flowyml"
        }
        for unit in self.units:
            node = unit.node
            is_made = isinstance(node, ast.Assign | ast.AnnAssign) and node.value and _root(node.value) in found
            if is_made or (_is_definition(node) and any(_root(each) in found for each in _decorators(node))):
                found.update(unit.binds)
        return frozenset(found)

    @cached_property
    def pipelines(self) -> frozenset[str]:
        """The names of pipelines.

        A statement that uses one while the file is imported does not use the code of its steps.
        """
        return frozenset(
            name
            for unit in self.units
            if (isinstance(unit.node, ast.FunctionDef) and any(map(_is_pipeline, _decorators(unit.node))))
            or (isinstance(unit.node, ast.Assign) and _is_pipeline(unit.node.value))
            for name in unit.binds
        )

    def _is_loose(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) or _is_main_block(node):
            return False
        if _is_definition(node):
            return any(map(self._may_register, map(_root, (*_decorators(node), *_bases(node)))))
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return not all(isinstance(each, ast.Name | ast.Tuple) for each in targets)
        if isinstance(node, ast.Expr):
            return not isinstance(node.value, ast.Constant) and _root(node.value) not in self.of_flowyml
        if isinstance(node, ast.If | ast.Try):
            return any(self._is_loose(inner) for inner in _inner(node))
        if isinstance(node, ast.With):
            roots = (_root(item.context_expr) for item in node.items)
            return not all(root in self.of_flowyml for root in roots) or any(map(self._is_loose, node.body))
        return True

    def _may_register(self, name: str) -> bool:
        """Return whether a decorator or base may register what it gets: it is neither FlowyML's nor Python's."""
        modules = {unit.imports[name][0].partition(".")[0] for unit in self.by_name.get(name, ()) if unit.is_import}
        is_plain = bool(modules) and modules <= sys.stdlib_module_names
        is_builtin = name not in self.by_name and hasattr(builtins, name)
        return not (is_plain or is_builtin or name in self.of_flowyml)


def source_file_at(name: str, path: Path) -> SourceFile:
    """Read the file as it is now. Raises ``OSError``, and ``SyntaxError`` for a file that is not Python."""
    identity = identity_of(path)
    known = _read.get((name, path))
    if known is None or known.identity != identity:
        if len(_read) >= _KEPT:
            _read.clear()
        known = _read[name, path] = SourceFile(name, path, path.read_bytes())
        known.identity = identity
    return known


def identity_of(path: Path) -> tuple[int, ...]:
    """Return a value that changes when a file does. Raises ``OSError``."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises ``OSError``."""
    identity = (path, *identity_of(path))
    if identity not in _hashes:
        with path.open("rb") as file:
            _hashes[identity] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[identity]


_read: dict[tuple[str, Path], SourceFile] = {}
_hashes: dict[tuple[object, ...], str] = {}


def text_of(node: object) -> str:
    """Return the code as one line, which depends on its meaning alone."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12 has empty parts in some
        return f"JoinedStr{text_of([part for part in node.values if getattr(part, 'value', None) != ''])}"
    if isinstance(node, ast.AST):
        parts = (
            f"{name}={text_of(value)}"
            for name, value in ast.iter_fields(node)
            if value is not None and value != [] and name not in _NO_TEXT
        )
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(map(text_of, node))}]"
    return f"{type(node).__name__} {node!r}"


class _Names(ast.NodeVisitor):
    """The names that a piece of code uses without making them local, and its imports."""

    def __init__(self, package: Chain) -> None:
        self._package = package
        self._local: list[frozenset[str]] = []
        self.uses: dict[str, set[Chain]] = {}
        self.attributes: set[str] = set()
        self.imports: dict[str, Imported] = {}
        self.stars: list[str] = []
        self.modules: list[str] = []
        self.texts: set[str] = set()  # that may name a module
        self.files: set[str] = set()  # that may name a file

    def visit_Constant(self, node: ast.Constant) -> None:
        text = node.value if isinstance(node.value, str) else ""
        if all(part.isidentifier() for part in text.split(".")):
            self.texts.add(text)
        if _FILE_NAME.fullmatch(text):
            self.files.add(text)

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node.id, ())

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self.uses.setdefault(name, set()).add(())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        self.attributes.update(chain)
        if isinstance(inner, ast.Name):
            self._use(inner.id, tuple(reversed(chain)))
        else:
            self.visit(inner)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        outer = [node.args, *getattr(node, "decorator_list", ()), *filter(None, [getattr(node, "returns", None)])]
        for each in outer:  # defaults and annotations are of the scope around it
            self.visit(each)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        self._within(_locals(node.args, body), [*getattr(node, "type_params", ()), *body])

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  # ast's names
    visit_Lambda = visit_FunctionDef  # noqa: N815  # ast's names

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.visit(node.generators[0].iter)
        targets = (name for each in node.generators for name in _stored(each.target))
        self._within(frozenset(targets), list(ast.iter_child_nodes(node)))

    visit_SetComp = visit_ListComp  # noqa: N815  # ast's names
    visit_GeneratorExp = visit_ListComp  # noqa: N815  # ast's names
    visit_DictComp = visit_ListComp  # noqa: N815  # ast's names

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.modules.append(alias.name)
            if alias.asname:
                self.imports[alias.asname] = alias.name, None
            else:
                self.imports[alias.name.partition(".")[0]] = alias.name.partition(".")[0], None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._package[: len(self._package) - node.level + 1] if node.level else ()
        module = ".".join((*base, *(node.module or "").split("."))).strip(".")
        self.modules.append(module)
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(module)
            else:
                self.modules.append(f"{module}.{alias.name}")
                self.imports[alias.asname or alias.name] = module, alias.name

    def _use(self, name: str, chain: Chain) -> None:
        if not any(name in names for names in self._local):
            self.uses.setdefault(name, set()).add(chain)

    def _within(self, names: frozenset[str], nodes: Sequence[ast.AST]) -> None:
        self._local.append(names)
        for node in nodes:
            self.visit(node)
        self._local.pop()


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


def _locals(arguments: ast.arguments, body: Sequence[ast.AST]) -> frozenset[str]:
    """Return the local names of a function, without imported ones, which are followed."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    found = {each.arg for each in every if each is not None}
    shared: set[str] = set()
    left = list(body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Global | ast.Nonlocal):
            shared.update(node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
        if isinstance(node, _COMPREHENSIONS):
            found.update(_walrus(node))
        elif not isinstance(node, _SCOPES):
            left.extend(ast.iter_child_nodes(node))
    return frozenset(found - shared)


def _walrus(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.NamedExpr) and isinstance(inner.target, ast.Name):
            yield inner.target.id


def _stored(node: ast.AST) -> Iterator[str]:
    return (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store))


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
        return
    for inner in ast.iter_child_nodes(node):
        yield from _bound_in(inner)


def _bound_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.stmt):
        yield from _bound(node)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, _COMPREHENSIONS):
        yield from _walrus(node)
    elif not isinstance(node, ast.Lambda):
        for inner in ast.iter_child_nodes(node):
            yield from _bound_in(inner)


def _is_definition(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _decorators(node: ast.stmt) -> Sequence[ast.expr]:
    return getattr(node, "decorator_list", ())


def _bases(node: ast.stmt) -> Sequence[ast.expr]:
    return [*node.bases, *(each.value for each in node.keywords)] if isinstance(node, ast.ClassDef) else ()


def _root(node: ast.expr) -> str:
    """Return the name at the beginning of an expression of calls, attributes and items."""
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_pipeline(node: ast.expr) -> bool:
    while isinstance(node, ast.Call | ast.Attribute):
        if isinstance(node, ast.Attribute) and node.attr in ("Pipeline", "pipeline"):
            return True
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and node.id in ("Pipeline", "pipeline")


def _inner(node: ast.If | ast.Try) -> Iterator[ast.stmt]:
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.stmt):
            yield inner
        elif isinstance(inner, ast.ExceptHandler):
            yield from inner.body


def _is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and _root(node.test.left) == "__name__"
