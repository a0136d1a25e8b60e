"""What a plan refers to, alive in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowyml.core.hooks import PipelineHook

__all__ = ["Code"]


@dataclass(frozen=True, slots=True)
class Code:
    """The functions of a plan's steps, by step name, and its hooks."""

    functions: Mapping[str, Callable[..., Any]]
    hooks: Sequence[PipelineHook] = ()
