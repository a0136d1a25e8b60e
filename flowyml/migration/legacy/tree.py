"""Read and write the files of a project."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowyml.core.files import whole_file

__all__ = ["ChangedMeanwhile", "File", "kind_of", "project_files"]

_LARGEST = {"notebook": 50_000_000, "lock": 20_000_000}
_LARGEST_TEXT = 1_000_000
#: Hidden folders with files that run in CI.
_CI = {".azure", ".azure-pipelines", ".buildkite", ".ci", ".circleci", ".github", ".gitlab", ".woodpecker"}
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}
_LOCKS = {"poetry.lock", "uv.lock", "pdm.lock", "pipfile.lock", "pylock.toml"}


class ChangedMeanwhile(OSError):
    """A file that another program changed between reading and writing it."""


@dataclass(frozen=True)
class File:
    """A file with its content. ``shown`` is its path as the user would write it."""

    path: Path
    shown: str
    kind: str
    data: bytes
    mode: int

    def write(self, data: bytes) -> None:
        """Replace the file by one with other content and the same mode, atomically; never through a link."""
        if read_regular(self.path) != (self.data, self.mode):
            raise ChangedMeanwhile(f"{self.shown} changed while it was read: run the command again")
        with whole_file(self.path, self.mode) as file:
            file.write(data)
            os.fchmod(file.fileno(), self.mode)


def project_files(paths: Sequence[str]) -> Iterator[File | tuple[str, str]]:
    """Yield every file that may be concerned, without duplicates; a pair of a path and a reason for an unreadable one.

    A link is followed only if the user named it.
    """
    seen: set[Path] = set()
    for given in paths:
        root = Path(given)
        if not root.exists():
            raise FileNotFoundError(2, "No such file or directory", given)
        real = root.resolve()
        found = _walk(real) if real.is_dir() else iter([real])
        for path in found:
            kind = kind_of(path)
            if not kind or path in seen:
                continue
            seen.add(path)
            shown = given if path == real else os.path.join(given, path.relative_to(real))  # noqa: PTH118 - as typed
            yield _read(path, os.path.normpath(shown), kind)


def kind_of(path: Path) -> str:
    """``python``, ``notebook``, ``requirements``, ``toml``, ``lock``, ``shell`` or ``""``."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if name in _LOCKS:
        return "lock"
    if suffix in (".txt", ".in") and (
        "requirements" in name or "constraints" in name or path.parent.name.lower() in ("requirements", "constraints")
    ):
        return "requirements"
    if name in ("setup.cfg", "tox.ini"):
        return "requirements"
    if name in ("pyproject.toml", "pipfile", "pixi.toml"):
        return "toml"
    if name.split(".")[0] in ("dockerfile", "makefile", "jenkinsfile", "containerfile", "justfile"):
        return "shell"
    return {
        ".py": "python", ".ipynb": "notebook", ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ksh": "shell",
        ".yml": "shell", ".yaml": "shell", ".mk": "shell", ".groovy": "shell", ".dockerfile": "shell",
    }.get(suffix, "")  # fmt: skip


def read_regular(path: Path) -> tuple[bytes, int]:
    """Return the content of a regular file, and its mode. Raises ``OSError`` for links, pipes and devices."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(number, "rb") as file:
        about = os.fstat(number)
        if not stat.S_ISREG(about.st_mode):
            raise OSError("is not a regular file")
        largest = _LARGEST.get(kind_of(path), _LARGEST_TEXT)
        if about.st_size > largest:
            raise OSError(f"is larger than {largest // 1_000_000} MB")
        return file.read(largest + 1), stat.S_IMODE(about.st_mode)


def _read(path: Path, shown: str, kind: str) -> File | tuple[str, str]:
    try:
        data, mode = read_regular(path)
    except OSError as error:
        return shown, error.strerror or str(error)
    return File(path, shown, kind, data, mode)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if _is_entered(Path(folder, name)))
        for name in sorted(names):
            path = Path(folder, name)
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path


def _is_entered(folder: Path) -> bool:
    if folder.name in _SKIPPED or folder.name.endswith(".egg-info") or folder.is_symlink():
        return False
    if folder.name.startswith("."):
        return folder.name in _CI
    return not (folder / "pyvenv.cfg").exists()
