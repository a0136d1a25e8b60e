"""The name that a module has elsewhere: a script is ``__main__`` where it runs, and a module where it is imported."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import ModuleType

__all__ = ["shipped_name"]


def shipped_name(module: str | None) -> str | None:
    """The name under which workers import a module; a script's is its file's stem. None: they cannot."""
    return _main_name(sys.modules["__main__"]) if module == "__main__" else module


@cache
def _main_name(main: ModuleType) -> str | None:
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)  # python -m package.module
    if not getattr(main, "__file__", None):
        return None
    path = Path(str(main.__file__)).resolve()  # a link's own name is nobody else's
    return path.stem if path.suffix == ".py" and path.is_file() and path.stem.isidentifier() else None
