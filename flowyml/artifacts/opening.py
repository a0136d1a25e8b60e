"""Open the store at an address."""

from __future__ import annotations

import os
from pathlib import Path

from flowyml.artifacts.store import LocalStore, Store
from flowyml.core.home import home

__all__ = ["default_url", "open_store"]


def default_url() -> str:
    """Return ``FLOWYML_ARTIFACTS``, else the folder for artifacts in FlowyML's data folder."""
    return os.environ.get("FLOWYML_ARTIFACTS") or str(home() / "artifacts")


def open_store(url: str | os.PathLike[str] | None = None) -> Store:
    """Return the store at a path or a URL, by default ``default_url()``. Raises ``ArtifactError``."""
    place = os.fspath(url or default_url())
    for prefix in ("file://", "local://"):
        place = place.removeprefix(prefix)
    if "://" in place:
        from flowyml.artifacts.remote import RemoteStore

        return RemoteStore(place)
    return LocalStore(Path(place).expanduser().absolute())
