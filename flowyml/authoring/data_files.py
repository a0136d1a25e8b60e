"""Select the data files of a pipeline: those below its folder that match its globs, and no secret by accident."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePath

from flowyml.authoring.step_options import check_names
from flowyml.core.durations import listed
from flowyml.core.errors import DefinitionError

__all__ = ["MAX_BYTES", "checked_globs", "chosen_files", "read_included"]

logger = logging.getLogger("flowyml.bundle")

MAX_BYTES = 100_000_000
"""The largest size of all data files of a pipeline, in bytes: they travel to every worker, like its code."""

_SETTINGS = ("flowyml.toml", "pyproject.toml")  # with targets and their passwords
_COMPILED = "__pycache__"  # Python's bytecode, which differs on each machine
_LISTED = 5


def checked_globs(include: Iterable[str], subject: str) -> tuple[str, ...]:
    """Return the globs, which must be relative. Raises ``DefinitionError``."""
    globs = check_names(include, "include", subject)
    for pattern in globs:
        if PurePath(pattern).is_absolute():
            raise DefinitionError(
                f"{subject}: include={pattern!r} is absolute. Globs are relative to the folder of the pipeline's file. "
                f"Let a step read files from elsewhere by their path."
            )
    return globs


def read_included(folder: Path, globs: Iterable[str], pipeline: str) -> dict[str, bytes]:
    """Return the data files below a folder, by their paths in it. Logs at INFO which files are included and left out.

    A name that begins with a dot, and those of FlowyML's settings, must be written out in the glob: ``.env``,
    ``.config/*.json``. Compiled code, in ``__pycache__``, is never included. Raises ``DefinitionError`` for a glob that
    leaves the folder or matches nothing, for a link that leads out of the folder, and for more than ``MAX_BYTES``.
    """
    subject = f"Pipeline {pipeline!r}"
    taken, left_out = chosen_files(folder, globs, pipeline)
    if taken:
        home = f" Left out: {listed(list(left_out), _LISTED)}." if left_out else ""
        size = _megabytes(sum(path.stat().st_size for path in taken.values()))
        logger.info(
            "%s: include= takes along %d file%s, %s: %s.%s",
            subject, len(taken), "s" * (len(taken) > 1), size, listed(list(taken), _LISTED), home,
        )  # fmt: skip
    return {name: path.read_bytes() for name, path in taken.items()}


def chosen_files(folder: Path, globs: Iterable[str], pipeline: str) -> tuple[dict[str, Path], Collection[str]]:
    """Return the data files that ``read_included`` reads, and the names of those that it leaves out.

    Raises as it does.
    """
    folder, subject = folder.resolve(), f"Pipeline {pipeline!r}"
    taken: dict[str, Path] = {}
    left_out: dict[str, None] = {}  # a dict keeps the order
    for pattern in globs:
        which = f"{subject}: include={pattern!r}"
        if ".." in PurePath(pattern).parts:
            raise DefinitionError(f"{which} leaves {folder}. Only files below that folder can be included.")
        if not PurePath(pattern).parts:
            raise DefinitionError(f"{which} names the folder itself. Write which files: '*.csv', or '**/*' for all.")
        files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        data = [path for path in files if _COMPILED not in path.relative_to(folder).parts]
        found = {path: _unnamed(path, pattern, folder) for path in data}
        if not found:
            raise DefinitionError(f"{which} matches no file in {folder}.")
        if all(found.values()):
            unnamed = list(dict.fromkeys(found.values()))
            raise DefinitionError(
                f"{which} matches only files that are left out unless they are named: {listed(unnamed, _LISTED)}. "
                f"Write the name without wildcards if everyone who sees the pipeline's code may read the file."
            )
        left_out |= dict.fromkeys(name for name in found.values() if name)
        taken |= {path.relative_to(folder).as_posix(): path for path, unnamed in found.items() if not unnamed}
        for path in taken.values():
            if not path.resolve().is_relative_to(folder):
                raise DefinitionError(
                    f"{which} takes {path}, a link to {path.resolve()}, which is outside {folder}. Copy that file to "
                    f"the folder, or let the step read it by its path."
                )
    sizes = {name: path.stat().st_size for name, path in taken.items()}
    if sum(sizes.values()) > MAX_BYTES:
        largest = [f"{name} ({_megabytes(sizes[name])})" for name in sorted(sizes, key=lambda name: -sizes[name])]
        raise DefinitionError(
            f"{subject}: include= takes {_megabytes(sum(sizes.values()))}, and {_megabytes(MAX_BYTES)} may come along "
            f"with the code: {listed(largest, _LISTED)}. Put large data into storage, and let the step read it from "
            f"there."
        )
    return taken, left_out


def _unnamed(path: Path, pattern: str, folder: Path) -> str:
    """Return the part of a file's path, or of its link's target, that a glob must write out and does not.

    Empty if none.
    """
    parts = PurePath(pattern).parts
    if not re.search(r"[*?\[]", pattern):
        return ""
    for place in (path, path.resolve()):
        within = place.relative_to(folder) if place.is_relative_to(folder) else Path()
        for number, part in enumerate(within.parts, 1):
            if part not in parts and (part.startswith(".") or part in _SETTINGS):
                return "/".join(within.parts[:number])
    return ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 50_000 else f"{size:,} bytes"
