"""The git commit of a pipeline's file."""

from __future__ import annotations

import os
import subprocess
import time
from functools import lru_cache
from pathlib import Path

from flowyml.core.files import is_there

__all__ = ["revision_of"]

_COMMIT = "# branch.oid "  # source: git-status(1), porcelain format version 2
_PATIENCE = 5  # seconds that git may take
_GIT = ("git", "-c", "core.fsmonitor=false", "--no-optional-locks", "-C")


def revision_of(file: str | None) -> str | None:
    """Return the commit of a file, with ``-dirty`` if tracked files differ, or the file is not tracked.

    For None, which means a notebook or a prompt, the commit of the working folder. None without a commit, or without
    git.
    """
    path = Path(file).resolve() if file and Path(file).is_file() else None
    folder = path.parent if path else Path.cwd()
    root = next((root for root in (folder, *folder.parents) if is_there(root / ".git")), None)
    return _asked(root, path, _stamps(root / ".git", path)) if root else None


@lru_cache(8)
def _asked(root: Path, path: Path | None, stamps: tuple[int, ...]) -> str | None:
    """Ask git; cached until one of the ``stamps`` changes, since asking takes longer than a small run."""
    status = _git(root, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = (status or "").splitlines()
    commit = next((line.removeprefix(_COMMIT) for line in lines if line.startswith(_COMMIT)), "(initial)")
    if commit == "(initial)":
        return None
    is_changed = any(not line.startswith("#") for line in lines)
    is_tracked = path is None or _git(root, "ls-files", "--error-unmatch", "--", str(path)) is not None
    return f"{commit}-dirty" if is_changed or not is_tracked else commit


def _git(root: Path, *arguments: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a git hook
    try:
        done = subprocess.run(
            [*_GIT, str(root), *arguments],
            capture_output=True, text=True, errors="replace", timeout=_PATIENCE, stdin=subprocess.DEVNULL,
            env=environment, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _stamps(git: Path, path: Path | None) -> tuple[int, ...]:
    """Return the times when the file, the index and HEAD last changed, and a number that changes every two seconds.

    The number is for other files of the project, which change too. In a worktree ``.git`` is a file with the path of
    the repository.
    """
    if git.is_file():
        try:
            git = git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()
        except (OSError, ValueError):
            return ()
    now = int(time.monotonic() / 2)
    return (now, *map(_changed, (git / "index", git / "logs" / "HEAD", git / "HEAD", *([path] if path else []))))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
