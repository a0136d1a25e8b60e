"""Find and read FlowyML's settings."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from flowyml.core.errors import ConfigurationError

__all__ = [
    "TRUSTED",
    "is_of_another_user",
    "is_planted",
    "is_trusted",
    "leads_out",
    "read_settings",
    "read_toml",
    "settings_file",
    "without_consent",
]

TRUSTED = "FLOWYML_TRUSTED_FOLDERS"
"""The variable with folders whose settings ``is_trusted`` trusts; they may also be another user's."""

_LARGEST = 2**20  # bytes of a file that another user may have left


def settings_file() -> Path | None:
    """Return the nearest ``flowyml.toml``, or ``pyproject.toml`` with FlowyML settings, at or above the working folder.

    Settings name commands to run and paths to write to, so a file that another user of the machine left in a folder
    above is refused: raises ``ConfigurationError``, as git does for a repository (source: git-config(1),
    ``safe.directory``).
    """
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise ConfigurationError(
            "The working folder was deleted, so FlowyML cannot look for flowyml.toml. Change to a folder that exists."
        ) from error
    for folder in (here, *here.parents):
        if _is_file(path := folder / "flowyml.toml"):
            return _own(path)
        if _is_file(path := folder / "pyproject.toml") and _has_flowyml_settings(path):
            return _own(path)
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:  # of a folder above that this user may not search, as after `sudo -u`
        return False


def _own(path: Path) -> Path:
    """Return the file, if it belongs to this user or to root, or its folder is trusted by name."""
    if is_of_another_user(path) and not _is_allowed(path.parent):
        raise ConfigurationError(
            f"{path} belongs to another user, and settings can have commands run in your name. Work in another folder; "
            f"or if you trust that user, set {TRUSTED}={path.parent}."
        )
    return path


def is_trusted(path: Path) -> bool:
    """Return whether a file's settings may name commands to run, credentials to read, and whom TLS trusts.

    That is so if its folder is in ``FLOWYML_TRUSTED_FOLDERS``, or is the user's home. Git and direnv also require that
    for a folder that may have been cloned.
    """
    return _is_allowed(path.parent) or (_is_same(path.parent, "~") and not is_of_another_user(path))


def leads_out(path: Path) -> bool:
    """Return whether a file is a link that leads out of its folder."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent))


def without_consent(path: Path, what: str, does: str) -> str:
    """Return the reason why something in a file of settings is not used, and what would allow it.

    ``does`` is what it would do, as "read a file".
    """
    return (
        f"{what} is not used: it would {does} in your name, and the folder may have been cloned. If you trust it, "
        f"export {TRUSTED}={path.parent.absolute()} (with {os.pathsep!r} between folders)."
    )


def _is_allowed(folder: Path) -> bool:
    return any(_is_same(folder, name) for name in os.environ.get(TRUSTED, "").split(os.pathsep) if name)


def _is_same(folder: Path, name: str) -> bool:
    return os.path.realpath(folder) == os.path.realpath(os.path.expanduser(name))  # noqa: PTH111  # raises nothing


def is_of_another_user(path: Path) -> bool:
    """Return whether neither this user nor root owns the file at a path; a link counts as its target."""
    try:
        return path.stat().st_uid not in (0, os.geteuid())
    except OSError:
        return False


def is_planted(path: Path) -> bool:
    """Return whether another user left a file where everyone may write, such as /tmp: it must not be read.

    The kernel has the same rule for writing (source: proc(5), ``protected_regular``). A file that belongs to the owner
    of its folder is not planted: it is part of their project, such as one mounted into a container.
    """
    try:
        folder = path.parent.stat()
        return is_of_another_user(path) and bool(folder.st_mode & stat.S_IWOTH) and path.stat().st_uid != folder.st_uid
    except OSError:
        return False


def _has_flowyml_settings(path: Path) -> bool:
    """Return whether a file mentions FlowyML's settings.

    Reads without blocking, within bounds, and each character once: the file may come from anyone.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_LARGEST)
        return re.search(rb"(?m)^[ \t]*\[[ \t]*tool[ \t]*\.[ \t]*flowyml\b", head) is not None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """Return FlowyML's part of a settings file. Raises ``ConfigurationError`` if it cannot be read."""
    content = read_toml(path)
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("flowyml", {})
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises ``ConfigurationError`` if it cannot be read."""
    import tomllib  # which most processes do not need

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
