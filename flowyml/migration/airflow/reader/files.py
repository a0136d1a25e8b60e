"""The files that a DAG file may read: regular files under its root, of a bounded size; and its modules.

The root is a boundary: a path that leads out of it, by ``..`` or by a link, is neither read nor inspected.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from flowyml.core.errors import MissingExtraError

_BYTES = 2_000_000
_ENTRIES = 5_000
_DEPTH = 100
_NODES = 200_000
_LIKELY = ("", "plugins", "dags", "src", "config", "include", "lib")
_MARKS: tuple[str, ...] = (
    ".git",
    "airflow.cfg",
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "docker-compose.yml",
    "docker-compose.yaml",
)
_MARKS += ("Dockerfile", "requirements.txt", "airflow_settings.yaml", "README.md", ".airflowignore")


class Refused(Exception):
    """A file was not read: outside of the root, too large, or not a regular file."""


class Files:
    """The files below ``root``, for the DAG file ``start``."""

    def __init__(self, root: Path, start: Path) -> None:
        self.root = root.resolve()
        self.start = start.resolve()
        self.charge: Callable[[int], None] = lambda _: None
        """Called with the steps that an access to the disk costs."""
        self.added: list[Path] = []
        """The folders that the DAG file has added to Python's path."""
        self._modules: dict[str, Path | None] = {}
        self._upwards = [one for one in (self.start.parent, *self.start.parent.parents) if self._inside(one)]

    def _inside(self, path: Path) -> bool:
        return path == self.root or self.root in path.parents

    def resolve(self, text: str) -> Path | None:
        """Return the path of a file; None if it is not in the root. A relative path is searched upwards."""
        self.charge(50)
        if "\0" in text or len(text) > 4096:
            return None
        if os.path.isabs(text):
            path = Path(os.path.realpath(text))
            return path if self._inside(path) else None
        for folder in self.upwards():
            path = Path(os.path.realpath(folder / text))
            if self._inside(path) and path.exists():
                return path
        return None

    def inside(self, text: str) -> bool:
        """Return whether a path, which need not exist, is in the root: then its content is known."""
        return os.path.isabs(text) and "\0" not in text and self._inside(Path(os.path.realpath(text)))

    def upwards(self) -> list[Path]:
        """Return the folders from the DAG file's up to the root, nearest first."""
        return self._upwards

    def text(self, path: Path) -> str:
        """Return the text of a file. Raises Refused."""
        return self.data(path).decode("utf-8-sig", errors="replace")

    def source(self, path: Path) -> str:
        """Return the text of a Python file, in its declared encoding.

        Raises Refused, also if Python could not read it.
        """
        data = self.data(path)
        try:
            return decode_source(data)
        except (SyntaxError, UnicodeError) as error:
            raise Refused(f"{path} is not valid Python: {error}") from error

    def data(self, path: Path) -> bytes:
        """Return the content of a file. Raises Refused."""
        real = Path(os.path.realpath(path))
        if not self._inside(real) or not real.is_file():
            raise Refused(f"{path} is not a file of the root")
        with real.open("rb") as file:
            data = file.read(_BYTES + 1)
        self.charge(50 + len(data) // 2000)
        if len(data) > _BYTES:
            raise Refused(f"{path} has more than {_BYTES} bytes")
        return data

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if self._inside(path) else path.name

    def entries(self, path: Path) -> list[Path]:
        """Return the entries of a folder, by name. Raises Refused."""
        if not self._inside(Path(os.path.realpath(path))) or not path.is_dir():
            raise Refused(f"{path} is not a folder of the root")
        found = list(itertools.islice(path.iterdir(), _ENTRIES + 1))
        self.charge(20 * len(found) + 50)
        if len(found) > _ENTRIES:
            raise Refused(f"{path} has more than {_ENTRIES:,} entries")
        return [one for one in sorted(found) if self._inside(Path(os.path.realpath(one)))]

    def glob(self, folder: Path, pattern: str) -> list[Path]:
        """Return the files below a folder that match a pattern. Raises Refused."""
        if ".." in pattern.split("/") or os.path.isabs(pattern) or not 0 < len(pattern) <= 1000:
            raise Refused(f"the pattern {pattern!r} leads out of its folder")
        parts = pattern.split("/")
        found: list[Path] = []
        base = Path(os.path.realpath(folder))
        todo, seen = [base], 0
        while todo:
            here = todo.pop()
            for one in self.entries(here):
                seen += 1
                if seen > _ENTRIES:
                    raise Refused(f"more than {_ENTRIES:,} files below {folder}")
                if fits(one.relative_to(base).parts, parts):
                    found.append(one)
                if (len(parts) > 1 or "**" in parts) and one.is_dir() and not one.is_symlink():
                    todo.append(one)
        return sorted(found)

    def search(self, folder: str) -> None:
        """Search modules in one more folder, if it is in the root."""
        found = self.resolve(folder)
        if found is not None and found not in self.added and len(self.added) < 50:
            self.added.append(found)
            self._modules = {name: path for name, path in self._modules.items() if path is not None}

    def path(self) -> list[Path]:
        """Return the folders in which modules are searched, first the ones that the DAG file has added.

        Airflow's own are the folder of DAGs and its plugins; a DAG file's own folder is not among them, unless it is
        that. So the outermost ``dags`` comes before what is nearer, and then all that may be on the path there.
        """
        dags = [folder for folder in self._upwards if folder.name == "dags"][-1:]
        likely = [folder / name for folder in self._upwards for name in _LIKELY]
        return list(dict.fromkeys(each for each in (*self.added, *dags, *likely) if each.is_dir()))

    def module(self, name: str) -> Path | None:
        """Return the file of a module, searched as on Airflow's path."""
        if name not in self._modules:
            parts = name.split(".")
            found = (_module_in(os.path.join(place, *parts)) for place in self.path())
            path = next((one for one in found if one is not None), None) if all(map(str.isidentifier, parts)) else None
            if path is not None and not self._inside(Path(os.path.realpath(path))):
                path = None
            self._modules[name] = path
        return self._modules[name]


def _module_in(base: str) -> Path | None:
    if os.path.isfile(base + ".py"):
        return Path(base + ".py")
    if not os.path.isdir(base):
        return None
    package = os.path.join(base, "__init__.py")
    if os.path.isfile(package):
        return Path(package)
    return Path(base) if _worth_importing(base) else None


def _worth_importing(base: str) -> bool:
    with os.scandir(base) as entries:
        return any(one.name.endswith(".py") or one.is_dir() for one in entries)


def fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path matches a pattern, both split into parts; ``**`` matches any number of folders.

    It goes over the path once: a regular expression with as many stars may take forever.

    >>> fits(["a", "b", "c.sql"], ["**", "*.sql"]), fits(["a", "b.sql"], ["*.sql"])
    (True, False)
    """
    reached = _with_empty({0}, pattern)
    for part in parts:
        inside = {at for at in reached if at < len(pattern)}
        beyond = {at + 1 for at in inside if pattern[at] != "**" and fnmatchcase(part, pattern[at])}
        reached = _with_empty({at for at in inside if pattern[at] == "**"} | beyond, pattern)
    return len(pattern) in reached


def _with_empty(reached: set[int], pattern: Sequence[str]) -> set[int]:
    """Add the positions that are reached if a ``**`` matches no folder."""
    for at, part in enumerate(pattern):
        if part == "**" and at in reached:
            reached.add(at + 1)
    return reached


def find_root(path: Path, given: Path | None = None) -> Path:
    """Return the folder that a DAG file may read from.

    That is its repository, else the parent of its dags folder, else its package's. ``given`` is a folder that the user
    named; the root is not below it.
    """
    start = path.resolve().parent
    if any(one.name in ("site-packages", "dist-packages") for one in start.parents):
        return start  # an installed example: the files beside it are the library's own
    chain = [start, *start.parents]
    stop = {Path.home().resolve(), Path(start.anchor)}
    chain = [folder for index, folder in enumerate(chain) if index < 12 and folder not in stop] or [start]
    for folder in chain:
        if folder in stop:
            break
        if (folder / ".git").exists():
            return folder
    if given is not None and given.resolve() in chain:
        chain = chain[chain.index(given.resolve()) :]
        return given.resolve()
    here = _working_folder(start)
    if here is not None:
        return here
    dags = next((folder.parent for folder in chain if folder.name == "dags" and folder.parent in chain), None)
    if dags is not None:
        above = chain[chain.index(dags) : chain.index(dags) + 3]
        return next((folder for folder in reversed(above) if _marked(folder)), dags)
    package = start
    while (package / "__init__.py").exists() and package.parent in chain:
        package = package.parent
    return package


def _working_folder(start: Path) -> Path | None:
    """Return the working folder if it is a project with the file in it, or the project in it if it contains several."""
    here = Path.cwd().resolve()
    if (here not in start.parents and here != start) or here in (Path.home().resolve(), Path(here.anchor)):
        return None
    parts = start.relative_to(here).parts
    return here if not parts or parts[0] in _LIKELY or _marked(here) else here / parts[0]


def _marked(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def parse_json(text: str) -> Any:
    """Return JSON of a bounded depth. Raises ValueError."""
    _flat_enough(text)
    return _counted(json.loads(text))


def parse_yaml(text: str, every: bool = False) -> Any:
    """Parse YAML of plain tags, of a bounded depth and size with its aliases unfolded.

    Raises ValueError, YAMLError, or MissingExtraError.
    """
    try:
        import yaml  # type: ignore[import-untyped]  # PyYAML ships no types
    except ImportError as error:
        message = "The DAG files read YAML, which needs PyYAML: pip install 'flowyml[migrate]'."
        raise MissingExtraError(message) from error

    _flat_enough(text)
    if max((line.count("- ") for line in text.splitlines()), default=0) > _DEPTH:
        raise ValueError("lists are nested too deeply")
    if re.search(r"(?::[0-5]?\d){20}", text):
        raise ValueError("a number of base 60 is too long")
    loader = _yaml_loader()
    if every:
        return [_counted(one) for one in yaml.load_all(text, loader)]
    return _counted(yaml.load(text, loader))  # noqa: S506  # a safe loader


@lru_cache(maxsize=1)
def _yaml_loader() -> Any:
    import yaml

    kind: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(kind):  # type: ignore[misc]  # its class is only known here
        def flatten_mapping(self, node: Any) -> None:
            """Merge the keys of other mappings (``<<``) within the limit: each alias counts as all its keys."""
            merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
            inner = [each for one in merged for each in (one.value if isinstance(one, yaml.SequenceNode) else [one])]
            count = len(node.value)
            for one in inner:
                if isinstance(one, yaml.MappingNode):
                    self.flatten_mapping(one)
                    count += len(one.value)
                if count > _NODES:
                    raise ValueError("too many values")
            super().flatten_mapping(node)

    return Loader


def repeated_key(text: str) -> str | None:
    """Return the first key that occurs twice in a mapping of a YAML file; YAML's reader takes the last value."""
    import yaml

    seen: set[str] = set()
    for key, _ in yaml.compose(text, yaml.SafeLoader).value:
        if key.value in seen:
            return str(key.value)
        seen.add(key.value)
    return None


def _flat_enough(text: str) -> None:
    depth = 0
    for found in re.finditer(r"[\[\]{}]", text):
        depth += 1 if found[0] in "[{" else -1
        if depth > _DEPTH:
            raise ValueError("brackets are nested too deeply")


def _counted(value: Any) -> Any:
    """Return the value, if it has few enough parts when each alias counts as its target."""
    sizes: dict[int, int] = {}

    def size(one: Any, depth: int) -> int:
        if depth > _DEPTH:
            raise ValueError("nested too deeply")
        if not isinstance(one, (list, dict, tuple, set)):
            return 1 + (len(one) // 100 if isinstance(one, str) else 0)
        if id(one) not in sizes:
            sizes[id(one)] = _NODES  # a circle
            parts = [*one.keys(), *one.values()] if isinstance(one, dict) else one
            sizes[id(one)] = 1 + sum(size(part, depth + 1) for part in parts)
        return sizes[id(one)]

    if size(value, 0) > _NODES:
        raise ValueError("too many values")
    return value
