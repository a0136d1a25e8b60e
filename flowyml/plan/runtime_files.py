"""The files of FlowyML itself, which bundles and engines bring to workers that have only Python."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

__all__ = ["python_files", "runtime_files"]


@cache
def runtime_files(left_out: frozenset[str]) -> Mapping[str, bytes]:
    """Return the files of FlowyML, without some of its subpackages, and the ``__main__.py`` that starts a bundle."""
    files = {f"flowyml/{path}": data for path, data in python_files(Path(__file__).parents[1], left_out)}
    return {**files, "__main__.py": files["flowyml/runtime/bootstrap.py"]}


def python_files(root: Path, left_out: Collection[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield the Python files of a package, by their paths below it, without some of its subpackages."""
    for path in sorted(root.rglob("*.py")):
        within = path.relative_to(root)
        if within.parts[0] not in left_out:
            yield within.as_posix(), path.read_bytes()
