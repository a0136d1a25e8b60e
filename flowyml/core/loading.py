"""Whether the user's modules are being loaded, rather than run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_loading", "loading"]

_loading: ContextVar[bool] = ContextVar("flowyml_loading", default=False)


def is_loading() -> bool:
    """True while the user's modules are imported by FlowyML, in this thread."""
    return _loading.get()


@contextmanager
def loading() -> Iterator[None]:
    """Mark what happens within as the loading of code."""
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)
