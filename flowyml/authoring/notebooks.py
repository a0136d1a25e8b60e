"""The current definitions of a notebook: an edited cell that runs again redefines its steps."""

from __future__ import annotations

import sys
from typing import Any

from flowyml.authoring.steps import Step
from flowyml.core.modules import shipped_name

__all__ = ["newest", "version_in_notebook"]


def newest(step: Step[..., Any]) -> Step[..., Any]:
    """Return the step that has replaced this one in a notebook: with the same function name and step name.

    If ``options`` made this step, its options are applied to the newest one.
    """
    if not _is_of_notebook(step.function):
        return step
    if step.made_from is not None:
        return step.made_again(newest(step.made_from))
    found = getattr(sys.modules["__main__"], getattr(step.function, "__qualname__", ""), None)
    return found if isinstance(found, Step) and found.name == step.name else step


def version_in_notebook(function: object) -> str:
    """Return a value that changes when a notebook's function, or one that it calls there, is redefined.

    Otherwise empty.
    """
    if not _is_of_notebook(function):
        return ""
    from flowyml.authoring.function_versions import code_version

    return code_version(function)


def _is_of_notebook(function: object) -> bool:
    """Return whether a function was defined at a prompt or in a cell, where it may be redefined at any time."""
    return getattr(function, "__module__", None) == "__main__" and shipped_name("__main__") is None
