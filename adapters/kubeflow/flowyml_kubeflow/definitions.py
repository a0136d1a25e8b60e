"""Find the definitions of FlowyML that some functions reach, as a linker does, and leave out the others.

A definition is a function, class, constant or import at the top of a module. Annotations do not count: FlowyML's
modules do not evaluate them. A class counts as a whole, and so does a module that is used as a value.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import chain

from flowyml.core.syntax import parsed
from flowyml_kubeflow.imports import around, imported, module_name

__all__ = ["EVERYTHING", "Definitions"]

EVERYTHING = "*"
"""All names of a module."""

_EVALUATED = ("ClassVar", "InitVar", "KW_ONLY")  # in annotations, by dataclasses
_ANNOTATIONS = ("annotation", "returns")

Import = ast.Import | ast.ImportFrom
Names = Iterator[tuple[str, str]]  # each with its module


class Definitions:
    """The definitions in some modules."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Take the modules' sources, by path."""
        self._files = files
        self._paths = {module_name(path): path for path in files}

    def reached(self, starts: Mapping[str, Collection[str]], unused: Collection[str]) -> dict[str, bytes]:
        """Return the sources, by path, with only the definitions that ``starts`` reach: names, by module.

        Modules that nothing reaches are left out, and so are the ``unused`` ones. Lines keep their numbers.
        """
        kept: dict[str, set[str]] = {}
        pending = [(module, name) for module, names in starts.items() for name in ("", *names)]
        while pending:
            module, name = pending.pop()
            if module not in self._paths or module in unused:
                continue
            source = self._module(module)
            if module not in kept:
                kept[module] = set()
                pending += [(package, "") for package in around(module)]
                pending += self._used_by(module, source.always)
            definitions = source.by_name.keys() if name == EVERYTHING else {name} & source.by_name.keys()
            for definition in definitions - kept[module]:
                kept[module].add(definition)
                pending += self._used_by(module, source.by_name[definition], definition)
        return {self._paths[module]: self._module(module).with_only(names) for module, names in kept.items()}

    def _module(self, name: str) -> _Module:
        """Parse a module: most are never needed."""
        path = self._paths[name]
        return _read(self._files[path], path)

    def _used_by(self, module: str, statements: Iterable[ast.stmt], name: str = "") -> Names:
        """Yield the names that statements use when they run, or, of imports, those that define a ``name``."""
        for statement in statements:
            if isinstance(statement, Import):
                yield from self._imported(module, statement, name)
                continue
            for node in _run(statement):
                if isinstance(node, Import):
                    yield from self._imported(module, node)
                elif isinstance(node, ast.Name):
                    yield module, node.id
                    yield from ((target, EVERYTHING) for target in self._named(module, node.id))
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    yield module, node.value.id
                    yield from ((target, node.attr) for target in self._named(module, node.value.id))

    def _imported(self, module: str, statement: Import, name: str = "") -> Names:
        """Yield what is imported. Within a function, a module counts as a whole."""
        for target in self._targets(module, statement, name):
            if target in self._paths:
                yield target, "" if name and isinstance(statement, ast.ImportFrom) else EVERYTHING
            else:
                inner, _, attribute = target.rpartition(".")
                yield inner, attribute

    def _named(self, module: str, name: str) -> Iterator[str]:
        """Yield the module that a name at the top of a module stands for, if it stands for one."""
        for statement in self._module(module).by_name.get(name, ()):
            if isinstance(statement, ast.ImportFrom):
                yield from self._paths.keys() & self._targets(module, statement, name)

    def _targets(self, module: str, statement: Import, name: str) -> set[str]:
        """Return the absolute names of what a statement imports; with a ``name``, of what it binds to that."""
        aliases = [alias for alias in statement.names if name in ("", _bound(alias))]
        return set(imported(_with(statement, aliases), self._module(module).package))


class _Module:
    """The statements of a module."""

    def __init__(self, source: bytes, package: str) -> None:
        self.package = package
        self._source = source
        self._body = parsed(source).body

    @cached_property
    def by_name(self) -> Mapping[str, list[ast.stmt]]:
        """The definitions of each name."""
        definitions: dict[str, list[ast.stmt]] = {}
        for statement in self._body:
            for name in _defined(statement):
                definitions.setdefault(name, []).append(statement)
        return definitions

    @cached_property
    def always(self) -> list[ast.stmt]:
        """The statements that do more than define names."""
        return [statement for statement in self._body if not _defined(statement) and not _is_for_readers(statement)]

    def with_only(self, names: Collection[str]) -> bytes:
        """Return its source with these definitions and what always runs."""
        lines = self._source.decode().splitlines()
        for statement in self._body:
            defined = _defined(statement)
            needed = [name for name in defined if name in names]
            is_partial = isinstance(statement, Import) and len(needed) < len(defined)
            if (needed or not defined) and not is_partial and not _is_for_readers(statement):
                continue
            first = min(node.lineno for node in (statement, *getattr(statement, "decorator_list", ())))
            last = statement.end_lineno or first
            lines[first - 1 : last] = [""] * (last - first + 1)
            if needed and isinstance(statement, Import):
                lines[first - 1] = ast.unparse(_with(statement, [a for a in statement.names if _bound(a) in names]))
        return "".join(f"{line}\n" for line in lines).encode()


@lru_cache(1024)  # of some 300 modules: in a smaller one, each would be gone before it is wanted again
def _read(source: bytes, path: str) -> _Module:
    name = module_name(path)
    return _Module(source, name if path.endswith("/__init__.py") else name.rpartition(".")[0])


def _run(statement: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run, now or in a function: without annotations. An attribute of a name is one node."""
    pending = [statement]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            continue
        for field, value in ast.iter_fields(node):
            parts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST)]
            if field in _ANNOTATIONS:
                within = chain.from_iterable(map(ast.walk, parts))
                parts = [part for part in within if isinstance(part, ast.Name) and part.id in _EVALUATED]
            pending += parts


def _defined(statement: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module defines, if that is all it does."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, Import):
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        return [] if is_future else list(map(_bound, statement.names))
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or _is_for_readers(statement):
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    parts = list(chain.from_iterable(target.elts if isinstance(target, ast.Tuple) else [target] for target in targets))
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    return names if len(names) == len(parts) else []


def _is_for_readers(statement: ast.stmt) -> bool:
    """Return whether it is ``__all__``, or imports for type checkers: nothing of FlowyML imports ``*`` in a pod."""
    if isinstance(statement, ast.If):
        return isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING" and not statement.orelse
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _with(statement: Import, aliases: list[ast.alias]) -> Import:
    """Return an import of only some of a statement's names."""
    if isinstance(statement, ast.Import):
        return ast.Import(aliases)
    return ast.ImportFrom(statement.module, aliases, statement.level)


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]
