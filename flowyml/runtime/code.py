"""The functions and hooks of a plan, loaded in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flowyml.core.hooks import PipelineHook

__all__ = ["Code"]


class Code(NamedTuple):
    """The functions of a plan's steps, by step name, and its hooks.

    ``held`` has, for cached steps, a digest of the state in this process that their code does not show.
    """

    functions: Mapping[str, Callable[..., Any]]
    hooks: Sequence[PipelineHook] = ()
    held: Mapping[str, str] = {}
