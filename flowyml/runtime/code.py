"""The functions and hooks of a plan, loaded in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flowyml.core.hooks import PipelineHook

__all__ = ["Code", "LiveState"]


class LiveState(NamedTuple):
    """The state in this process of the code that a cached step can reach.

    ``digest`` is that of globals and closures, empty if they equal the files. ``changed`` says which code is not that
    of its file; empty if all is.
    """

    digest: str = ""
    changed: str = ""


class Code(NamedTuple):
    """The functions of a plan's steps, by step name, its hooks, and for cached steps what reads their state."""

    functions: Mapping[str, Callable[..., Any]]
    hooks: Sequence[PipelineHook] = ()
    live: Mapping[str, Callable[[], LiveState]] = {}
