"""Libraries that a format needs, imported where it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from flowyml.core.errors import MissingLibraryError

__all__ = ["loaded_class", "missing", "require"]


def require(module: str) -> ModuleType:
    """Import a library; raises ``MissingLibraryError`` with the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise missing(module) from error


def loaded_class(module: str, name: str) -> Any:
    """Return a class of a module that is loaded; None while it is not, when no value has the class."""
    return getattr(sys.modules.get(module), name, None)


def missing(module: str) -> MissingLibraryError:
    """Return the error for a module that cannot be imported; its package has the same name."""
    package = module.partition(".")[0]
    return MissingLibraryError(f"This needs {package}, which is not installed here: pip install {package}")
