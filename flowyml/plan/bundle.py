"""A plan and all the code it needs, in one file that a bare Python runs (a zipapp, PEP 441)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile

from flowyml.core.errors import DefinitionError, PlanError
from flowyml.core.files import write_whole
from flowyml.core.home import data_folder, is_data
from flowyml.core.origin import Origin
from flowyml.core.syntax import imported
from flowyml.core.zips import zipped
from flowyml.plan.codec import decode
from flowyml.plan.model import Plan
from flowyml.plan.names import slug
from flowyml.plan.runtime_files import python_files, runtime_files

__all__ = ["Bundle", "build"]

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KEPT = 4_000_000  # bytes of files whose zip file is cached
_zipped_last = lru_cache(1)(zipped)  # a pipeline is often submitted many times
_UNREADABLE = (BadZipFile, EOFError, OSError, RuntimeError, zlib.error)  # RuntimeError: encrypted, or another method
_AT_HOME = ("cli", "graph", "migration", "steps", "testing")  # needed only where code names them


@dataclass(frozen=True, eq=False)
class Bundle:
    """The file, in memory. The same plan and code give the same bytes.

    ``revision`` is the commit of the code. It is not in the file: a commit that does not change the pipeline does not
    change the bundle.
    """

    plan: Plan
    data: bytes = field(repr=False)
    revision: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def origin(self) -> Origin | None:
        """The origin of the pipeline; None if the bundle does not record it."""
        return Origin.from_dict(self._about.get("origin"))

    @cached_property
    def code_digest(self) -> str:
        """SHA-256 of the user's part, the plan and the code, in hexadecimal, independent of FlowyML's own version.

        The state of a pickled function or hook, such as a list that it fills, is data and does not count.
        """
        files = _contents(self.data, self.filename, "code/")
        parts = sorted({**files, "plan.json": self.plan.canonical}.items())  # however its JSON is laid out
        listed = [(path, hashlib.sha256(data).hexdigest()) for path, data in parts]
        return hashlib.sha256(json.dumps([listed, self._about.get("versions")]).encode()).hexdigest()

    @property
    def versions(self) -> Mapping[str, str]:
        """Digests of the code of pickled functions, by their keys."""
        versions: dict[str, str] = self._about.get("versions", {})
        return versions

    @cached_property
    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = json.loads(_contents(self.data, self.filename, "bundle.json").get("bundle.json", "{}"))
        return about

    @property
    def filename(self) -> str:
        """``training-1f3a9c2e.pyz``."""
        return f"{slug(self.plan.name)}-{self.digest[:8]}.pyz"

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write the file into a folder, all or nothing; do nothing if it is there already.

        Among FlowyML's data, writing it again updates its time.
        """
        folder = data_folder(Path(directory))
        path = folder / self.filename
        if path.is_file() and path.stat().st_size == len(self.data) and path.read_bytes() == self.data:
            if not is_data(folder):
                return path
            with suppress(OSError):
                os.utime(path)  # pruning goes by the time of its last use
            if path.is_file():
                return path
        write_whole(path, self.data, 0o700 if is_data(folder) else 0o777)  # who may read it may run it
        return path

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read a file that ``write`` wrote. Raises ``PlanError`` for anything else."""
        return cls.of(Path(path).read_bytes(), str(path))

    @classmethod
    def of(cls, data: bytes, name: str = "this file") -> Bundle:
        """Return the bundle with these bytes; errors mention ``name``. Raises ``PlanError``."""
        return cls(decode(_contents(data, name, "plan.json")["plan.json"]), data)

    @property
    def files(self) -> dict[str, bytes]:
        """Its content, by path."""
        return _contents(self.data, self.filename)

    def imports(self) -> set[str]:
        """Return the packages that the user's code imports, by the first parts of their modules' names."""
        files = _contents(self.data, self.filename, "code/").items()
        code = {PurePosixPath(path).relative_to("code"): data for path, data in files if path.endswith(".py")}
        names = {name.partition(".")[0] for path, data in code.items() for name in imported(data, path)}
        own = {path.parts[0].removesuffix(".py") for path in code}
        return names - own - sys.stdlib_module_names - {"flowyml", ""}

    def with_plan(self, plan: Plan) -> Bundle:
        """Return the same code with another plan, such as one with a retry policy."""
        if plan.canonical == self.plan.canonical:
            return self
        return replace(_packed(plan, {**self.files, "plan.json": plan.canonical}), revision=self.revision)

    def with_files(self, files: Mapping[str, bytes]) -> Bundle:
        """Return the same bundle with additional files, such as an adapter's code beside the steps."""
        return self.repacked({**self.files, **files})

    def repacked(self, files: Mapping[str, bytes]) -> Bundle:
        """Return the same plan with these files and no others."""
        return replace(_packed(self.plan, files), revision=self.revision)


def build(
    plan: Plan,
    *,
    files: Mapping[str, bytes] = {},
    objects: Mapping[str, bytes] = {},
    main: str | None = None,
    origin: Origin | None = None,
    versions: Mapping[str, str] = {},
    folder: str = ".",
    packages: Collection[str] = (),
) -> Bundle:
    """Put a plan and its code into one file.

    ``files`` are the user's modules and data, by path relative to the folder that workers import from. ``objects`` are
    pickles: functions by the key in ``"pickle:KEY"``, and the hooks as ``"hooks"``. ``main`` is the module that was
    ``__main__`` when the pipeline was defined, so that workers can read pickles that refer to ``__main__``. ``origin``
    is the pipeline's origin, and ``versions`` are digests of the code of pickled functions, by their keys. ``folder``
    is the folder among ``files`` with the pipeline's own file. ``packages`` are installed pure-Python packages and
    modules to include, such as the adapter that a script imports to name its engine.
    """
    sources = [*(data for path, data in files.items() if path.endswith(".py")), plan.canonical]
    home = frozenset(
        room
        for room in _AT_HOME
        if not any(_imports(room, data) for data in sources)
        and not any(_mentions(room, data) for data in objects.values())
    )
    runtime = runtime_files(home)
    about = {"main": main, "origin": origin.to_dict() if origin else None, "versions": dict(versions)}
    if folder != ".":
        about["folder"] = folder
    contents = {
        **runtime,
        "bundle.json": json.dumps(about).encode(),
        "plan.json": plan.canonical,
    }
    for path, data in files.items():
        contents[f"code/{_checked_path(path)}"] = bytes(data)
    for key, data in objects.items():
        if not _KEY.fullmatch(key):
            raise DefinitionError(f"A pickled object cannot have the key {key!r}.")
        contents[f"objects/{key}.pkl"] = bytes(data)
    pickler = {"cloudpickle"} if any(b"cloudpickle" in data for data in objects.values()) else set()
    for package in {*packages, *pickler}:
        contents.update(_package(package))
    return _packed(plan, contents)


def _mentions(room: str, code: bytes) -> bool:
    """Return whether code, or a pickle of it, has the name or the words of a subpackage of FlowyML."""
    return f"flowyml.{room}".encode() in code or all(
        re.search(rb"\b%s\b" % word.encode(), code) for word in ("flowyml", room)
    )


def _imports(room: str, source: bytes) -> bool:
    """Return whether code may import a subpackage of FlowyML."""
    name = f"flowyml.{room}"
    try:
        return _mentions(room, source) and (name.encode() in source or name in imported(source, PurePosixPath("code")))
    except (SyntaxError, ValueError):  # a pickle
        return True


def _packed(plan: Plan, contents: Mapping[str, bytes]) -> Bundle:
    files = tuple(sorted(contents.items()))
    is_kept = sum(len(data) for _, data in files) <= _KEPT
    return Bundle(plan, (_zipped_last if is_kept else zipped)(files))


def _contents(data: bytes, name: str, *beginnings: str) -> dict[str, bytes]:
    """Return the files by their paths; with ``beginnings``, only the plan and those whose paths begin with one."""
    prefixes = (*beginnings, "plan.json") if beginnings else ""
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.startswith(prefixes)]
            contents = {entry.filename: archive.read(entry) for entry in entries}
    except _UNREADABLE as error:
        raise PlanError(f"{name} is not a FlowyML bundle, or it is damaged: {error}") from error
    if "plan.json" not in contents:
        raise PlanError(f"{name} is not a FlowyML bundle: it contains no plan.")
    return contents


def _checked_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    plain = "/".join(parts) == path and path.isprintable() and "\\" not in path
    if not plain or not parts or parts[0] == "/" or ".." in parts:
        raise DefinitionError(
            f"A file in a bundle cannot have the path {path!r}. Use a relative path, such as 'data/a.csv'."
        )
    return path


@cache
def _package(name: str) -> Mapping[str, bytes]:
    """Return the Python files of an installed package or module; empty if there is none of that name."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # a module that was created by hand
        return {}
    if spec is None:
        return {}
    if spec.submodule_search_locations:
        return {f"{name}/{path}": data for path, data in python_files(Path(spec.submodule_search_locations[0]))}
    return {f"{name}.py": Path(spec.origin).read_bytes()} if spec.origin and spec.origin.endswith(".py") else {}
