"""Parse Python's source, in threads too, and find what it imports."""

from __future__ import annotations

import ast
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePath

__all__ = ["imported", "parsed"]

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
    package = path.parent.parts
    for node in _import_nodes(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield module
            yield from (f"{module}.{alias.name}".strip(".") for alias in node.names)


def _import_nodes(source: bytes) -> Iterator[ast.AST]:
    """Yield the import statements. Only lines that look like one are parsed, unless a line only looks like one."""
    try:
        for statement in _IMPORTS.findall(source.replace(b"\\\n", b" ")):
            yield from parsed(statement).body
    except SyntaxError:
        yield from ast.walk(parsed(source))
