"""Find the modules that some code needs: its imports, and theirs, read with ``ast`` and in pickles."""

from __future__ import annotations

import ast
import pickletools
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from flowyml.core.syntax import parsed

__all__ = ["Modules", "around", "asked_by", "asked_in_pickle", "imported", "imported_at_top", "module_name"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_ABOUT = ("__module__", "__name__", "__package__", "__qualname__")  # in pickles: the name that follows is not imported


class _Module:
    """The imports of a module at its import, those of its functions, and the texts in it."""

    def __init__(self, tree: ast.AST, package: str) -> None:
        self.package = package
        self.imports: set[str] = set()
        self.later: set[str] = set()
        self.texts: set[str] = set()
        self.attributes: set[str] = set()  # which may be parts of a module's name
        self.provided: dict[str, str] = {}  # the names that a package provides on demand
        self._gives_late = False
        self._read(tree, in_function=False)
        if not self._gives_late:
            self.provided = {}

    @property
    def everything(self) -> set[str]:
        """All modules that it imports or names, at any time."""
        return self.imports.union(() if self.provided else self.texts, self.later)

    def _read(self, node: ast.AST, *, in_function: bool) -> None:
        for child in _children(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                self._note_provided(child.body)
                self._read(ast.Module(child.orelse, []), in_function=in_function)
                continue
            self._note(child, self.later if in_function else self.imports)
            self._read(child, in_function=in_function or isinstance(child, _FUNCTIONS))

    def _note_provided(self, body: Iterable[ast.stmt]) -> None:
        """Note the names that a package with a ``__getattr__`` provides on demand, and imports for type checkers."""
        for node in body:
            if isinstance(node, ast.ImportFrom):
                names = (alias.asname or alias.name for alias in node.names)
                self.provided.update(zip(names, imported(node, self.package), strict=True))

    def _note(self, node: ast.AST, imports: set[str]) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(imported(node, self.package))
        elif isinstance(node, ast.FunctionDef):
            self._gives_late |= node.name == "__getattr__"
        elif isinstance(node, ast.Attribute):
            self.attributes.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # As in entry points, and for import_module(".b", "a") and import_module("a." + name).
            self.texts.add(node.value.partition(":")[0].strip("."))


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield child nodes as ``ast`` does, in a third of the time: without the nodes for reading or setting a name."""
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            yield from (child for child in value if isinstance(child, ast.AST))
        elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
            yield value


def imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """Yield the modules that an import statement may import, by absolute names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
            if not alias.asname:
                yield from around(alias.name)  # ``import a.b`` binds the name ``a``
        return
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    yield from (f"{module}.{alias.name}" for alias in node.names)


@lru_cache(1024)
def _read(source: bytes, path: str) -> _Module:
    """Return the imports of a file.

    Empty for a file that is not Python of this release, which cannot be imported either.
    """
    name = module_name(path)
    package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
    try:
        with warnings.catch_warnings(action="ignore"):  # of the user's code, which is not compiled here
            return _Module(parsed(source), package)
    except (SyntaxError, ValueError):
        return _Module(ast.Module([], []), package)


def around(name: str) -> Iterator[str]:
    """Yield the packages around a module, outermost first."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts)))


def module_name(path: str) -> str:
    """Return the name of the module in a file."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def asked_by(source: bytes, path: str) -> set[str]:
    """Return the names of modules in a file of Python; ``path`` is its path below the folder of its imports."""
    module = _read(source, path)
    return module.everything | module.attributes


def imported_at_top(source: bytes, path: str) -> set[str]:
    """Return the names that a file imports when it is imported itself, and at no other time."""
    module = _read(source, path)
    return module.imports - module.later - module.texts


def asked_in_pickle(data: bytes) -> set[str]:
    """Return the same for a pickle: its references, and the names in its functions."""
    names, last = set[str](), ""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if isinstance(argument, str):
                if last not in _ABOUT:
                    names.add(argument.replace(" ", "."))  # an old pickle has a module and a name in one
                last = argument
            elif opcode.name != "MEMOIZE":
                last = ""
    except ValueError:  # it is damaged, and fails where it is read
        pass
    return names


class Modules:
    """The modules among some files, and their dependencies."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._paths = {module_name(path): path for path in files if path.endswith(".py")}

    def needed(self, names: Iterable[str], but: Collection[str]) -> set[str]:
        """Return the modules of these names, and those that they import or name, at any time.

        The imports of the modules in ``but`` are not followed.
        """
        taken = set[str]()
        pending = self.known(self._joined(names))
        while pending:
            name = pending.pop()
            if name not in taken:
                taken.add(name)
                pending |= self.known(self._of(name).everything) if name not in but else set()
        return taken

    def known(self, names: Iterable[str]) -> set[str]:
        """Return the modules of these names, and the packages around them: ``a.b.c`` may be a class in ``a.b``."""
        modules, seen = set[str](), set[str]()
        pending = [*names]
        while pending:
            name = pending.pop()
            known = {*around(name), name} & self._paths.keys()
            if name in seen or not known:
                continue
            seen.add(name)
            modules |= known
            inner = max(known)
            home = self._of(inner).provided.get(name.removeprefix(f"{inner}.").partition(".")[0])
            pending += [home] if home else []
        return modules

    def _of(self, name: str) -> _Module:
        path = self._paths[name]
        return _read(self._files[path], path)

    def _joined(self, names: Iterable[str]) -> set[str]:
        """Add the modules that code names in two parts: ``from a import b`` in compiled code, or ``a.b``.

        From a package that provides names on demand, code may use any of them.
        """
        joined = {*names}
        for module in sorted(self._paths):  # a package before its content
            parts = ((package, module.removeprefix(f"{package}.")) for package in around(module))
            if {module, f"{module}.*"} & joined or any(joined.issuperset(part) for part in parts):
                joined |= {module, *self._of(module).provided.values()}
        return joined
