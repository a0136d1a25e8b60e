"""Parse Python's source, in threads too."""

from __future__ import annotations

import ast
import os
import threading

__all__ = ["parsed"]

_ALONE = threading.Lock()
os.register_at_fork(before=_ALONE.acquire, after_in_parent=_ALONE.release, after_in_child=_ALONE.release)


def parsed(source: str | bytes) -> ast.Module:
    """Call ``ast.parse``, in one thread at a time.

    Two calls at once may end in a ``SystemError``. Source: python/cpython#106905.
    """
    with _ALONE:
        return ast.parse(source)
