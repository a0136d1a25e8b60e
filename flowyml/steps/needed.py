"""Libraries that a step imports when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["needed"]


def needed(module: str, package: str, step: str) -> Any:
    """A module, or an ``ImportError`` that says which package the workers of a step lack."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{step} needs the package {package!r} where it runs, which is not installed there: pip install {package}"
        ) from error
