"""Libraries that a step imports when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["needed"]


def needed(module: str, package: str, step: str) -> Any:
    """Import a module; raise ``ImportError`` with the package that the step's workers lack."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{step} needs the package {package!r} where it runs, which is not installed there: pip install {package}"
        ) from error
