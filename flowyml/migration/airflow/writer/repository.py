"""The modules of a repository as a DAG file imports them: their files, their imports, and which need Airflow."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flowyml.migration.airflow.reader.files import Files, Refused
from flowyml.migration.airflow.writer.syntax import called, is_for_checkers

OF_AIRFLOW = re.compile(r"airflow(\.|$)")
OURS = frozenset({"flowyml", "flowyml_airflow", "flowyml_kubeflow", "flowyml_prefect"})
_IMPORTERS = frozenset({"import_module", "__import__"})
_MISSING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True, slots=True)
class Import:
    """A module by its full name, and the names imported from it, each of which may be a module too.

    ``later``: in a function, when that is called. ``optional``: if it is missing, the code uses a substitute.
    """

    module: str
    names: tuple[str, ...] = ()
    line: int = 0
    later: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """A file of the repository, which is a module by this name."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        """True if it is the ``__init__.py`` of a package."""
        return self.path.name == "__init__.py"

    @property
    def place(self) -> str:
        """Its path below a folder of the import path."""
        return f"{self.name.replace('.', '/')}{'/__init__' if self.is_package else ''}.py"


class Repository:
    """The files below a root, as one DAG file imports them. Links out of the root lead to nothing.

    ``added`` are the folders below the root that the DAG file adds to Python's path.
    ``known`` caches the imports of modules from other DAG files.
    """

    def __init__(
        self, root: Path, start: Path, added: Sequence[str] = (), known: dict[Module, Sequence[Import]] | None = None
    ) -> None:
        self._files = Files(root, start)
        for folder in added:
            self._files.search(str(root / folder))
        self._imports = {} if known is None else known
        self._needs: dict[tuple[Import, bool], str] = {}

    @property
    def start(self) -> str:
        """The path of the DAG file below the root, with slashes."""
        return self._files.relative(self._files.start)

    def find(self, name: str) -> Path | None:
        """Return the file of a module, or the folder of a package without one; None if it is not in the repository."""
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in OURS or OF_AIRFLOW.match(name):
            return None
        return self._files.module(name)

    def modules(self, wanted: Import) -> tuple[list[Module], str]:
        """Return the files that an import loads, those of packages first, and the name of a missing module."""
        parts = wanted.module.split(".")
        found: list[Module] = []
        is_regular = False
        for number in range(1, len(parts) + 1):
            name = ".".join(parts[:number])
            path = self.find(name)
            if path is None:
                return found, name if is_regular else parts[0]
            if path.is_file():
                is_regular = True
                found.append(Module(name, path))
        for name in wanted.names:
            path = self.find(f"{wanted.module}.{name}") if not found or found[-1].is_package else None
            if path is not None and path.is_file():
                found.append(Module(f"{wanted.module}.{name}", path))
        return found, "" if found else parts[0]

    def data(self, module: Module) -> bytes:
        """Return the content of a module's file. Raises ``Refused``."""
        return self._files.data(module.path)

    def shown(self, module: Module) -> str:
        """Return the path of a module's file below the root, with slashes."""
        return self._files.relative(Path(os.path.realpath(module.path)))

    def imports(self, module: Module) -> Sequence[Import]:
        """Return the imports of a module; empty for an unreadable one."""
        if module not in self._imports:
            package = module.name if module.is_package else module.name.rpartition(".")[0]
            try:
                found = [*imports_of(ast.parse(self.data(module)), package)]
            except (Refused, OSError, SyntaxError, ValueError, RecursionError):
                found = []
            self._imports[module] = found
        return self._imports[module]

    def airflow_in(self, wanted: Import, *, later: bool) -> str:
        """Return the module that imports airflow, among those that an import leads to; "" for none.

        ``later``: not only at import, but also in a function of the module.
        """
        key = replace(wanted, line=0), later
        if key not in self._needs:
            self._needs[key] = next(
                (
                    module.name
                    for module, imports in self._reached(wanted, later)
                    if any(OF_AIRFLOW.match(each.module) and not each.optional for each in imports)
                ),
                "",
            )
        return self._needs[key]

    def _reached(self, wanted: Import, later: bool) -> Iterator[tuple[Module, Sequence[Import]]]:
        waiting, seen = self.modules(wanted)[0], set[Path]()
        while waiting:
            module = waiting.pop()
            if module.path in seen:
                continue
            seen.add(module.path)
            imports = [each for each in self.imports(module) if later or not each.later]
            yield module, imports
            waiting += [one for each in imports for one in self.modules(each)[0]]


def imports_of(tree: ast.AST, package: str = "") -> Iterator[Import]:
    """Yield the modules that are imported at run time, including in functions.

    ``package`` resolves relative imports.
    """
    yield from _in(tree, package, Import(""))


def _in(node: ast.AST, package: str, around: Import) -> Iterator[Import]:
    match node:
        case ast.Import():
            yield from (replace(around, module=alias.name, line=node.lineno) for alias in node.names)
        case ast.ImportFrom():
            if module := _module_of(node, package):
                names = tuple(alias.name for alias in node.names if alias.name != "*")
                yield replace(around, module=module, names=names, line=node.lineno)
        case ast.expr():
            yield from (replace(around, module=name, line=node.lineno) for name in _by_call(node))
        case _:
            for each, how in _parts(node, around):
                yield from _in(each, package, how)


def _module_of(node: ast.ImportFrom, package: str) -> str:
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join([*filter(None, base), *([node.module] if node.module else [])])


def _parts(node: ast.AST, around: Import) -> Iterator[tuple[ast.AST, Import]]:
    """Yield the parts of a statement that run, with the resulting conditions of their imports."""
    is_tried = isinstance(node, ast.Try) and any(_takes_missing(each.type) for each in node.handlers)
    entered = [each.context_expr for each in node.items] if isinstance(node, ast.With) else []
    suppressed = [each.args for each in entered if isinstance(each, ast.Call) and called(each.func) == "suppress"]
    is_tried = is_tried or any(_takes_missing(*args) for args in suppressed)
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for name, value in ast.iter_fields(node):
        if name == "body" and is_for_checkers(node):
            continue
        how = replace(
            around, later=around.later or is_function, optional=around.optional or (is_tried and name == "body")
        )
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield each, how


def _by_call(node: ast.expr) -> Iterator[str]:
    """Yield the modules that an expression imports by a function, as far as its text shows them."""
    for each in ast.walk(node):
        match each:
            case ast.Call(func=func, args=[ast.Constant(value=str() as name), *_]) if called(func) in _IMPORTERS:
                if all(map(str.isidentifier, name.split("."))):
                    yield name


def _takes_missing(*kinds: ast.expr | None) -> bool:
    each = [one for kind in kinds for one in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]
    return any(one is None or called(one) in _MISSING for one in each)


def named_for_airflow(tree: ast.Module) -> Iterator[Import]:
    """Yield the modules that a pipeline's module names for Airflow to import: operators, their arguments, callbacks."""
    words: Mapping[str, str] = {
        alias.asname or alias.name: alias.name
        for each in tree.body
        if isinstance(each, ast.ImportFrom) and each.module == "flowyml_airflow"
        for alias in each.names
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=word), args=[ast.Constant(value=str() as path), *_]):
                if words.get(word) in ("airflow_operator", "imported"):
                    yield from _of_path(path, node.lineno)
            case ast.keyword(arg="airflow", value=ast.Dict(keys=keys, values=values)):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and str(key.value).endswith("_callback"):
                        for text in _callbacks(value):
                            yield from _of_path(text, node.value.lineno)


def _callbacks(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str() as text):
            yield text
        case ast.List(elts=parts) | ast.Dict(keys=parts):
            for each in parts:
                if each is not None:
                    yield from _callbacks(each)


def _of_path(path: str, line: int) -> Iterator[Import]:
    module = path.partition(":")[0] if ":" in path else path.rpartition(".")[0]
    if module:
        yield Import(module, line=line)
