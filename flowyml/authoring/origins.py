"""Find the origin of a pipeline: the project of the file that defines it."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from flowyml.core.files import is_there
from flowyml.core.origin import Origin
from flowyml.core.settings import is_planted, read_toml

__all__ = ["defining_file", "origin_of"]

_REMOTE = re.compile(r'^[ \t]*\[remote "origin"\][ \t]*$(?P<body>(?:\n(?![ \t]*\[).*)*)', re.MULTILINE)
_URL = re.compile(r"^[ \t]*url[ \t]*=[ \t]*(\S+)[ \t]*$", re.MULTILINE)


def defining_file(pipeline: object) -> str | None:
    """Return the file whose code is constructing ``pipeline`` right now; None for a notebook, a prompt, ``python -c``.

    Constructors of subclasses are skipped: the file is that of their caller.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        is_ours = isinstance(name, str) and name.startswith("flowyml.authoring.")
        if not is_ours and frame.f_locals.get("self") is not pipeline:
            file = frame.f_globals.get("__file__")
            return file if isinstance(file, str) else None
        frame = frame.f_back
    return None


def origin_of(file: str | None) -> Origin:
    """Return the origin of a file; for None, of code in the working folder without a file.

    Raises ``ConfigurationError`` for a ``flowyml.toml`` or ``pyproject.toml`` that cannot be read.
    """
    path = Path(file).resolve() if file and Path(file).is_file() else None
    if path and (package := _installed_as(path)):
        return package
    folder = path.parent if path else Path.cwd()
    root, project = _project_of(folder)
    if named := os.environ.get("FLOWYML_NAMESPACE"):
        project = named
    if path is None:
        return Origin(project, "notebook")
    if root is None:
        return Origin(project, f"{path.parent.name}/{path.name}")
    return Origin(project, path.relative_to(root).as_posix().removeprefix("src/"))


def _installed_as(path: Path) -> Origin | None:
    """Return the origin of a file in an installed package: a virtual environment may be inside another project."""
    import sysconfig

    for key in ("purelib", "platlib"):
        root = Path(sysconfig.get_path(key)).resolve()
        if path.is_relative_to(root):
            module = path.relative_to(root)
            package = module.parts[0].removesuffix(".py")
            return Origin(os.environ.get("FLOWYML_NAMESPACE") or _distribution(package), module.as_posix())
    return None


@cache
def _distribution(package: str) -> str:
    from importlib.metadata import packages_distributions

    return next(iter(packages_distributions().get(package, ())), package)


def _project_of(folder: Path) -> tuple[Path | None, str]:
    """Return the root and the name of the project of a folder. Folders above a git repository do not count."""
    folders = [folder, *folder.parents]
    gits = (root / ".git" for root in folders)
    top = next((number for number, git in enumerate(gits, 1) if is_there(git) and not is_planted(git)), len(folders))
    for name_in in (_namespace, _project_name, _git_remote):
        for root in folders[:top]:
            if project := name_in(root):
                return root, project
    return None, ""


def _namespace(root: Path) -> str:
    settings, pyproject = _table(root / "flowyml.toml"), _table(root / "pyproject.toml")
    return _text(settings, "namespace") or _text(pyproject, "tool", "flowyml", "namespace")


def _project_name(root: Path) -> str:
    pyproject = _table(root / "pyproject.toml")
    return _text(pyproject, "project", "name") or _text(pyproject, "tool", "poetry", "name")


def _text(table: object, *keys: str) -> str:
    """Return the text at a path of keys in nested tables; empty if it is missing."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, str) else ""


def _table(path: Path) -> dict[str, Any]:
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return {}
    return {} if is_planted(path) else _parsed(path, stamp)


@cache
def _parsed(path: Path, stamp: int) -> dict[str, Any]:
    """Return the content of a file, which is read again when its ``stamp`` changes."""
    return read_toml(path)


def _git_remote(root: Path) -> str:
    """Return ``owner/name`` of the remote ``origin``, from git's own files; empty without a remote."""
    git = root / ".git"
    if is_planted(git):
        return ""
    try:
        if git.is_file():  # a worktree or a submodule: the file names its folder
            git = root / git.read_text("utf-8").removeprefix("gitdir:").strip()
            common = git / "commondir"
            git = git / common.read_text("utf-8").strip() if common.is_file() else git
        config = (git / "config").read_text("utf-8")
    except (OSError, ValueError):
        return ""
    remote = _REMOTE.search(config)
    url = _URL.search(remote["body"]) if remote else None
    return _owner_and_name(url[1]) if url else ""


def _owner_and_name(url: str) -> str:
    """
    >>> _owner_and_name("https://me:secret@git.example.com/acme/forecasts.git")
    'acme/forecasts'
    >>> _owner_and_name("git@git.example.com:acme/forecasts.git"), _owner_and_name("/srv/git/forecasts.git")
    ('acme/forecasts', 'forecasts')
    """
    from urllib.parse import urlsplit

    if "://" in url:
        path = urlsplit(url).path
    elif re.match(r"[^/]+:", url):
        path = url.partition(":")[2]
    else:
        path = url.rstrip("/").rpartition("/")[2]  # a path on this machine: other machines have other folders
    return "/".join(path.strip("/").removesuffix(".git").split("/")[-2:])
