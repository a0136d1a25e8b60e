"""The mark that the user's modules are being loaded, rather than run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_loading", "is_loading_on_worker", "loading"]

_loader: ContextVar[str] = ContextVar("flowyml_loader", default="")


def is_loading() -> bool:
    """Return True while FlowyML imports the user's modules in this thread."""
    return bool(_loader.get())


def is_loading_on_worker() -> bool:
    """Return True while a worker imports them from a bundle, where names checked at compile time may be missing."""
    return _loader.get() == "worker"


@contextmanager
def loading(by: str = "worker") -> Iterator[None]:
    """Mark the block as loading code, by a "worker" or a "command"."""
    token = _loader.set(by)
    try:
        yield
    finally:
        _loader.reset(token)
