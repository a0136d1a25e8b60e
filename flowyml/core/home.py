"""The folder where FlowyML keeps what it must remember: the local runs, bundles, artifacts."""

from __future__ import annotations

import os
from pathlib import Path

from flowyml.core.errors import ConfigurationError

__all__ = ["home"]


def home() -> Path:
    """``FLOWYML_HOME``, or the data folder that the operating system gives to applications. It may not exist yet.

    Raises ``ConfigurationError`` where neither is.

    It belongs on a local disk: the record of local runs is a SQLite database in WAL mode, which no network file
    system can share (source: SQLite, *Write-Ahead Logging*).
    """
    if chosen := os.environ.get("FLOWYML_HOME"):
        return Path(chosen).expanduser().absolute()
    try:
        return _data_folder()
    except RuntimeError as error:  # a user that the system does not know, as in some containers
        raise ConfigurationError(
            f"There is no place for FlowyML's data: {error}. Set FLOWYML_HOME to a folder that can be written."
        ) from error


def _data_folder() -> Path:
    try:
        from platformdirs import user_data_dir
    except ModuleNotFoundError:  # a worker that has nothing but Python; the same folder on Linux
        return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "flowyml"
    return Path(user_data_dir("flowyml", appauthor=False))
