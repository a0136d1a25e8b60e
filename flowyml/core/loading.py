"""Whether the user's modules are being loaded, rather than run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

__all__ = ["is_loading", "is_loading_on_worker", "loading"]

_loader: ContextVar[Literal["", "command", "worker"]] = ContextVar("flowyml_loader", default="")


def is_loading() -> bool:
    """True while the user's modules are imported by FlowyML, in this thread."""
    return _loader.get() != ""


def is_loading_on_worker() -> bool:
    """True while a worker imports them, from a bundle: what was checked when it was compiled may not be known here."""
    return _loader.get() == "worker"


@contextmanager
def loading(by: Literal["command", "worker"] = "worker") -> Iterator[None]:
    """Mark what happens within as the loading of code."""
    token = _loader.set(by)
    try:
        yield
    finally:
        _loader.reset(token)
