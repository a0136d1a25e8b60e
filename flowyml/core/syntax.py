"""Parse Python's source, in threads too, and find what it imports."""

from __future__ import annotations

import ast
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePath

__all__ = ["imported", "imports_of", "parsed"]

_IMPORTS = re.compile(
    rb"(?:^|[;:])[ \t\f]*(import[ \t][^;#\r\n]+|from[ \t.][^;#\r\n(]*?\bimport\b[ \t]*(?:\([^)]*\)|[^;#\r\n]+))",
    re.MULTILINE,
)
_ALONE = threading.Lock()
_TRIES = 100
os.register_at_fork(before=_ALONE.acquire, after_in_parent=_ALONE.release, after_in_child=_ALONE.release)


def parsed(source: str | bytes) -> ast.Module:
    """Call ``ast.parse``, in one thread at a time.

    Two calls at once may end in a ``SystemError``, and other libraries parse too, so such a call is repeated. Source:
    python/cpython#106905.
    """
    with _ALONE:
        for _ in range(_TRIES):
            with suppress(SystemError):
                return ast.parse(source)
        return ast.parse(source)


def imported(source: bytes, path: PurePath) -> Iterator[str]:
    """Yield every module that a file may import, as absolute names, including imports inside functions."""
    for node in _import_nodes(source):
        for module, name, _ in imports_of(node, path.parent.parts):
            yield module
            if name:
                yield f"{module}.{name}".strip(".")


def imports_of(node: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each import of a statement: an absolute module, a name in it, and the alias; None for those it lacks."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, None, alias.asname) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = ".".join(filter(None, (*base, node.module)))
        yield from ((module, alias.name, alias.asname) for alias in node.names)


def _import_nodes(source: bytes) -> Iterator[ast.AST]:
    """Yield the import statements. Only lines that look like one are parsed, unless a line only looks like one."""
    try:
        for statement in _IMPORTS.findall(source.replace(b"\\\n", b" ")):
            yield from parsed(statement).body
    except SyntaxError:
        yield from ast.walk(parsed(source))
