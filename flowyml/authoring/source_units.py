"""Split a Python file into its top-level statements: what each imports, binds and names, and its text without layout.

That text does not depend on comments, white space, quotes, redundant parentheses, or the version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from types import CodeType

from flowyml.artifacts.hashing import sha256_of
from flowyml.core.syntax import imports_of, parsed

__all__ = [
    "REACHING", "Imported", "SourceFile", "Unit", "bound_by", "hash_of", "file_names_in", "source_file_at",
    "state_of_file", "text_of", "units_of_cell",
]  # fmt: skip

Imported = tuple[str, str | None]
"""The target of an import: an absolute module, and a name in it, or None for the module itself."""

REACHING = frozenset({
    "globals", "locals", "vars", "eval", "exec", "compile", "inspect", "attrgetter", "__dict__", "__globals__",
    "__builtins__", "__getattribute__", "f_globals", "f_locals",
})  # fmt: skip
"""Names by which code reaches names that it does not write, besides ``getattr`` and ``sys.modules``."""

_IMPORTING = frozenset({
    "__import__", "import_module", "spec_from_file_location", "runpy", "pkgutil", "exec_module", "load_module",
})  # fmt: skip
_LOADING = frozenset({"pickle", "cloudpickle", "dill", "shelve", "read_pickle", "pydoc", "hydra"})
"""Names of what imports modules by names that are in files: the classes of a pickle, say."""
_METHODS = frozenset({"compile", "eval"})  # as attributes they are those of ``re``, frames and models

_FILE_NAME = re.compile(r"\S[^\n\0]{0,200}")
_BETWEEN = re.compile(r"[\s'\"`,;:()<>=|]+")
_NO_TEXT = frozenset({"ctx", "kind", "type_comment"})
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


class Unit:
    """One top-level statement of a file, with everything in it.

    ``names`` are all identifiers in it, whatever they refer to; ``texts`` its string constants that may name modules or
    files, with ``*`` for what is filled in; ``levels_up`` how many folders it may go up; ``imports`` the targets by
    the names that they are bound to, at the top or within. ``reaches_any`` is True if it can use names that it does not
    write.
    """

    def __init__(self, node: ast.stmt, package: tuple[str, ...]) -> None:
        self.node = node
        self.names: set[str] = set()
        self.texts: set[str] = set()
        self.levels_up = 0
        self.modules: dict[str, None] = {}
        self.imports: dict[str, list[Imported]] = {}
        attributes: set[str] = set()
        computed_names = 0  # for an attribute whose name is not in the code
        within_sums: set[ast.expr] = set()
        for inner in ast.walk(node):
            self.levels_up += _levels_up_in(inner)
            match inner:
                case ast.Name(id="getattr"):
                    computed_names += 1
                case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
                    computed_names -= 1
                    self.names.add(name)
                case ast.Name(id=name):
                    self.names.add(name)
                case ast.Attribute(attr=name):
                    attributes.add(name)
                case ast.Global(names=names) | ast.Nonlocal(names=names):
                    self.names.update(names)
                case ast.Constant(value=str(text)):
                    self.texts |= file_names_in(text)
                case ast.Constant(value=bytes(data)):
                    self.texts |= file_names_in(data.decode(errors="replace"))
                case ast.JoinedStr() | ast.BinOp(op=ast.Add()):
                    if inner not in within_sums:
                        self.texts |= file_names_in(_filled(inner)) - {"*"}
                    if isinstance(inner, ast.BinOp):
                        within_sums |= {inner.left, inner.right}
                case ast.Import() | ast.ImportFrom():
                    self._import(inner, package)
        imported = {name for targets in self.imports.values() for _, name in targets if name}
        used = self.names | (attributes - _METHODS) | imported | {name.partition(".")[0] for name in self.modules}
        self.reaches_any = bool(computed_names or REACHING & used or "modules" in attributes | imported)
        self.imports_by_name = not _IMPORTING.isdisjoint(used)
        self.is_dynamic = self.reaches_any or self.imports_by_name or bool(used & {"importlib", "pkg_resources"})
        self.loads = not _LOADING.isdisjoint(used) or used >= {"joblib", "load"}
        self.names |= attributes

    def _import(self, node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> None:
        for module, name, alias in imports_of(node, package):
            self.modules[module] = None
            if name is None:
                target = module if alias else module.partition(".")[0]
                self.imports.setdefault(alias or target, []).append((target, None))
            elif name != "*":
                self.modules[f"{module}.{name}"] = None  # it may be a module
                self.imports.setdefault(alias or name, []).append((module, name))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the statement's text, in hexadecimal."""
        return hashlib.sha256(text_of(self.node).encode("utf-8", "surrogatepass")).hexdigest()

    def uses_by_itself(self, names: Container[str]) -> bool:
        """Return whether the statement calls, changes or extends one of these, other than to assign a name a value."""
        match self.node:
            case ast.Import() | ast.ImportFrom():
                return False
            case ast.FunctionDef(decorator_list=used) | ast.AsyncFunctionDef(decorator_list=used):
                pass
            case ast.ClassDef(decorator_list=decorators, bases=bases, keywords=keywords):
                used = [*decorators, *bases, *(each.value for each in keywords)]
            case ast.Assign(targets=used) | ast.Delete(targets=used):
                used = [each for each in used if not isinstance(each, ast.Name)]
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                used = [target]
            case ast.Expr(value=value):
                used = [value]
            case _:
                return any(name in names for name in self.names)
        return any(_root_of(each) in names for each in used)

    @cached_property
    def binds(self) -> tuple[str, ...]:
        """The module-level names that the statement binds."""
        return tuple(dict.fromkeys(bound_by(self.node)))


class SourceFile:
    """A Python file. ``name`` is the name of its module, ``state`` that of the file when it was read."""

    def __init__(self, name: str, path: Path, source: bytes, state: tuple[int, ...]) -> None:
        self.name = name
        self.path = path
        self.source = source
        self.state = state
        self.package = tuple(name.split(".") if path.stem == "__init__" else name.split(".")[:-1])
        self.units = [Unit(node, self.package) for node in parsed(source).body]
        self._imported_units = [unit for unit in self.units if not _is_main(unit.node)]
        self.by_name: dict[str, list[Unit]] = {}
        for unit in self.units:
            for bound in unit.binds:
                self.by_name.setdefault(bound, []).append(unit)

    @cached_property
    def codes(self) -> Mapping[str, list[CodeType]]:
        """The code of its functions and classes, as Python compiles it, by their qualified names."""
        found: dict[str, list[CodeType]] = {}
        pending = [compile(self.source, str(self.path), "exec", dont_inherit=True)]
        for code in pending:  # which grows
            pending += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
            found.setdefault(code.co_qualname, []).append(code)
        return found

    @cached_property
    def says(self) -> Mapping[str, str]:
        """The literals that names of the module and its classes have, as ``repr``, and defaults as ``"function()"``.

        Empty for other values, and for a name with several.
        """
        return _says([unit.node for unit in self.units], "")

    @cached_property
    def is_dynamic(self) -> bool:
        """True if code in the file, but for its ``__main__`` block, may reach modules that it does not write."""
        return self.imports_by_name or any(unit.is_dynamic for unit in self._imported_units)

    @cached_property
    def imports_by_name(self) -> bool:
        """True if this code may import modules by names that it makes, as a module with ``__getattr__`` may."""
        return "__getattr__" in self.by_name or any(unit.imports_by_name for unit in self._imported_units)

    @cached_property
    def loads(self) -> bool:
        """True if this code may read what names modules, such as a pickle."""
        return any(unit.loads for unit in self._imported_units)

    @cached_property
    def optional(self) -> frozenset[Unit]:
        """The statements that count only for code that names what they bind: steps, pipelines, and their wiring."""
        return frozenset(unit for unit in self.units if self._is_optional(unit.node))

    @cached_property
    def _of_flowyml(self) -> frozenset[str]:
        """The names that refer to FlowyML: its functions, and the pipelines and steps that they create here."""
        found = {
            name
            for unit in self.units
            for name, targets in unit.imports.items()
            if all(module.partition(".")[0] == "flowyml" for module, _ in targets)
        }
        for unit in self.units:
            node = unit.node
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and _root_of(node.value) in found:
                found.update(unit.binds)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                roots = {_root_of(decorator) for decorator in node.decorator_list}
                found.update(unit.binds if roots and roots <= found else ())
        return frozenset(found)

    def _is_optional(self, node: ast.stmt) -> bool:
        match node:
            case ast.If():
                return _is_main(node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                return bool(node.decorator_list) and name in self._of_flowyml
            case ast.Assign(value=value) | ast.AnnAssign(value=value) | ast.Expr(value=value) if value is not None:
                return _root_of(value) in self._of_flowyml
            case ast.With(items=items):
                return all(_root_of(item.context_expr) in self._of_flowyml for item in items)
        return False


def source_file_at(name: str, path: Path) -> SourceFile:
    """Read the file as it is now. Raises ``OSError``, and ``SyntaxError`` for a file that is not Python."""
    return _read(name, path, state_of_file(path))


@lru_cache(512)
def _read(name: str, path: Path, state: tuple[int, ...]) -> SourceFile:
    return SourceFile(name, path, path.read_bytes(), state)


def state_of_file(path: Path) -> tuple[int, ...]:
    """Return a value that changes when a file or a folder does; empty if there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def hash_of(path: Path, state: tuple[int, ...] | None = None) -> str:
    """Return the SHA-256 of a file, which is read again only if its state has changed. Raises ``OSError``."""
    return _hash(path, state or state_of_file(path))


@lru_cache(65_536)
def _hash(path: Path, _state: tuple[int, ...]) -> str:
    return sha256_of(path)


@lru_cache(4096)
def units_of_cell(text: str) -> tuple[Unit, ...]:
    """Return the statements of a notebook's cell; none for what is not Python."""
    try:
        return tuple(Unit(node, ()) for node in parsed(text).body)
    except (SyntaxError, ValueError):
        return ()


def file_names_in(text: str) -> set[str]:
    """Return what may be the name of a module or a file: the text as a whole, and its words with a dot or a slash.

    What follows the colon of a URL is left out.
    """
    words = {word for word in _BETWEEN.split(text) if ("/" in word or "." in word) and not word.startswith("//")}
    return {name for name in (text, *words) if _FILE_NAME.fullmatch(name)}


def _filled(node: ast.expr) -> str:
    """Return the text of an f-string or a sum, with ``*`` for what is filled in."""
    filled, rest = list[str](), [node]
    while rest:
        match rest.pop():
            case ast.Constant(value=str(text)):
                filled.append(text)
            case ast.JoinedStr(values=parts):
                rest += reversed(parts)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                rest += (right, left)
            case _:
                filled.append("*")
    return "".join(filled)


def _levels_up_in(node: ast.AST) -> int:
    """Return how many folders a part of an expression goes up."""
    match node:
        case ast.Attribute(attr="parent" | "parents" | "dirname" | "pardir") | ast.Name(id="dirname" | "pardir"):
            return 1
        case ast.Constant(value=".."):
            return 1
        case ast.Subscript(value=ast.Attribute(attr="parents"), slice=ast.Constant(value=int(more))):
            return more
    return 0


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


def _says(body: Iterable[ast.stmt], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in body:
        said, inner = "", dict[str, str]()
        match node:
            case ast.ClassDef(name=name, body=statements):
                inner = _says(statements, f"{prefix}{name}.")
            case ast.FunctionDef(name=name, args=args) | ast.AsyncFunctionDef(name=name, args=args):
                named = dict(zip(args.kwonlyargs, args.kw_defaults, strict=True))
                keyword_defaults = {ast.Constant(key.arg): value for key, value in named.items() if value}
                defaults = [ast.Tuple(args.defaults), ast.Dict([*keyword_defaults], [*keyword_defaults.values()])]
                inner = {f"{prefix}{name}()": _literal(ast.Tuple(defaults))}
            case ast.AnnAssign(value=ast.expr() as value):
                said = _literal(value)
            case ast.Assign(value=value, targets=targets) if all(isinstance(each, ast.Name) for each in targets):
                said = _literal(value)
        inner |= {f"{prefix}{name}": said for name in bound_by(node)}
        found = {**found, **inner, **dict.fromkeys(found.keys() & inner.keys(), "")}
    return found


def _literal(node: ast.expr) -> str:
    """Return the value of a literal, as ``repr``; empty for other expressions."""
    try:
        return repr(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""


def bound_by(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement binds, in the scope that it stands in."""
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
        yield from bound_by(node)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, _COMPREHENSIONS):
        yield from _walrus(node)
    elif not isinstance(node, ast.Lambda):
        for inner in ast.iter_child_nodes(node):
            yield from _bound_in(inner)


def _walrus(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.NamedExpr) and isinstance(inner.target, ast.Name):
            yield inner.target.id


def _is_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and _root_of(node.test.left) == "__name__"


def _root_of(node: ast.expr) -> str:
    """Return the name at the beginning of an expression of calls, attributes and items."""
    while isinstance(node, ast.Call | ast.Attribute | ast.Subscript | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
