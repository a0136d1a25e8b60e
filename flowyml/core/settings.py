"""Where FlowyML's settings stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flowyml.core.errors import ConfigurationError

__all__ = ["read_settings", "settings_file"]


def settings_file() -> Path | None:
    """The nearest ``flowyml.toml``, or ``pyproject.toml`` that speaks of FlowyML, at or above the working folder."""
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError(
            "The working folder has been deleted, so no flowyml.toml can be looked for. Change to one that is there."
        ) from error
    for folder in (here, *here.parents):
        if (path := folder / "flowyml.toml").is_file():
            return path
        if (path := folder / "pyproject.toml").is_file() and _speaks_of_flowyml(path):
            return path
    return None


def _speaks_of_flowyml(path: Path) -> bool:
    try:
        return re.search(rb"(?m)^\s*\[\s*tool\s*\.\s*flowyml\b", path.read_bytes()) is not None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """All that a settings file says of FlowyML. Raises ``ConfigurationError`` if it cannot be read."""
    import tomllib  # which most processes do not need

    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("flowyml", {})
    return content
