"""Libraries that a format needs, imported where it is used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from flowyml.core.errors import ArtifactError

__all__ = ["require"]


def require(module: str) -> ModuleType:
    """Import it; raises ``ArtifactError`` with the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ArtifactError(f"This needs {package}, which is not installed here: pip install {package}") from error
