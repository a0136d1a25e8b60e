"""The checklist over a whole project: its files are read, and written again."""

from __future__ import annotations

import codecs
import io
import os
import stat
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

from flowyml.core.errors import MissingExtraError
from flowyml.core.files import whole_file
from flowyml.migration.legacy.checklist import Item, Note, Place

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
    for name in paths:
        root = Path(name)
        if not root.exists():
            raise FileNotFoundError(2, "No such file or directory", name)
        real = root.resolve()
        found = _walk(real) if real.is_dir() else iter([real])
        for path in found:
            kind = kind_of(path)
            if not kind or path in seen:
                continue
            seen.add(path)
            shown = name if path == real else os.path.join(name, path.relative_to(real))  # noqa: PTH118 - as typed
            yield _read(path, os.path.normpath(shown), kind)


def kind_of(path: Path) -> str:
    """Return ``python``, ``notebook``, ``requirements``, ``toml``, ``lock``, ``shell`` or ``""``."""
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


@dataclass(frozen=True)
class Change:
    """A file that the migration changes."""

    file: File
    data: bytes
    diff: str


@dataclass
class Report:
    """The findings: changes that are not yet written, and the source locations of each item."""

    changes: list[Change] = field(default_factory=list)
    done: dict[Item, list[Place]] = field(default_factory=lambda: {item: [] for item in Item})
    needs_you: dict[Item, list[Place]] = field(default_factory=lambda: {item: [] for item in Item})
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    uses_flowyml: bool = False
    is_written: bool = False

    @property
    def is_finished(self) -> bool:
        """True if nothing has to be changed, nothing needs a person, and every file could be read.

        Tests are not counted.
        """
        waiting = any(places for item, places in self.needs_you.items() if not item.is_a_test)
        return not ((self.changes and not self.is_written) or waiting or self.unreadable)

    def state(self, item: Item) -> str:
        """Return ``done``, ``nothing to do`` or ``needs you``."""
        if self.needs_you[item] or (item.is_a_test and item is Item.TEST_ALL and self.uses_flowyml):
            return "needs you"
        return "done" if self.done[item] else "nothing to do"

    def write(self) -> None:
        """Write the changes, file by file. Raises ``OSError``."""
        for change in self.changes:
            change.file.write(change.data)
        self.is_written = True


def migrate(paths: Sequence[str]) -> Report:
    """Read a project and find the changes for 1.0; nothing is written, and none of its code runs.

    Raises ``FileNotFoundError`` for a missing path, and ``MissingExtraError`` without libcst.
    """
    try:
        import libcst  # noqa: F401  # the rules need it
    except ImportError as error:
        raise MissingExtraError("flowyml migrate needs libcst: pip install 'flowyml[migrate]'.") from error
    report = Report()
    files: list[File] = []
    for found in project_files(paths):
        if isinstance(found, File):
            files.append(found)
        else:
            report.unreadable.append(found)
    modules = frozenset(
        file.path.stem for file in files if file.kind == "python" and b"flowyml" in file.data and file.path.stem
    )  # that import FlowyML
    report.uses_flowyml = bool(modules) or any(b"flowyml" in file.data for file in files)
    for file in files:
        _look_at(file, modules, report)
    return report


def _look_at(file: File, modules: frozenset[str], report: Report) -> None:
    from flowyml.migration.legacy.source import Unreadable

    try:
        text, encoding, mark = _decoded(file)
    except (UnicodeError, SyntaxError, LookupError) as error:
        if b"flowyml" in file.data.lower():
            report.unreadable.append((file.shown, f"its encoding is unknown ({type(error).__name__})"))
        return
    try:
        after, places = _migrated(file, text, modules, report)
        data = mark + after.encode(encoding)
    except Exception as error:  # also a fault of the rules': the other files are still done
        why = f"the migration of it failed ({type(error).__name__}: {error})"
        why = "its expressions nest too deeply" if isinstance(error, RecursionError) else why
        report.unreadable.append((file.shown, str(error) if isinstance(error, Unreadable) else why))
        return
    for place, note in places:
        (report.done if note.is_done else report.needs_you)[note.item].append(place)
    if data != file.data:
        report.changes.append(Change(file, data, _diff(file.shown, text, after)))


def _decoded(file: File) -> tuple[str, str, bytes]:
    mark = codecs.BOM_UTF8 if file.data.startswith(codecs.BOM_UTF8) else b""
    data = file.data.removeprefix(mark)
    encoding = "utf-8"
    if file.kind == "python":
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        encoding = encoding.removesuffix("-sig")
    return data.decode(encoding), encoding, mark


def _migrated(file: File, text: str, modules: frozenset[str], report: Report) -> tuple[str, list[tuple[Place, Note]]]:
    from flowyml.migration.legacy.notebooks import migrate_notebook
    from flowyml.migration.legacy.pins import migrate_script, update_locks, update_pins
    from flowyml.migration.legacy.python import migrate_python, uses_flowyml

    starts: list[int] = []
    if file.kind == "notebook":
        if "flowyml" not in text:
            return text, []
        made, starts = migrate_notebook(text)
    elif file.kind == "python":
        if not uses_flowyml(text):
            return text, []
        made = migrate_python(text)
        if file.path.name in ("setup.py", "noxfile.py"):
            pins = update_pins(made.text, "requirements")
            made = type(made)(pins.text, [*made.notes, *pins.notes], made.pipelines, made.submissions)
    elif file.kind == "shell":
        made = migrate_script(text, modules)
    elif file.kind == "lock":
        made = update_locks(text)
    else:
        made = update_pins(text, "toml" if file.kind == "toml" else "requirements")
    for line, maker in made.pipelines:
        report.needs_you[Item.TEST_LOCALLY].append(_place(file, line, _try_out(file.shown, maker), starts))
    for line in made.submissions:
        message = "run it against its engine, and wait for it"
        report.needs_you[Item.TEST_REMOTELY].append(_place(file, line, message, starts))
    return made.text, [(_place(file, note.line, note.message, starts), note) for note in made.notes]


def _try_out(shown: str, maker: str) -> str:
    """Say how to run a pipeline: `flowyml run` finds those at module level."""
    if not maker:
        return f"flowyml run {shown}"
    if maker == "__main__":
        return f"python {shown}; flowyml run takes a pipeline at module level"
    return f"{maker}() makes it: run what calls that; flowyml run takes a pipeline at module level"


def _place(file: File, line: int, message: str, starts: Sequence[int]) -> Place:
    before = [number for number, start in enumerate(starts) if start < line]
    if not before:
        return Place(file.shown, line, message)
    return Place(file.shown, line - starts[before[-1]], message, cell=before[-1] + 1)


def _diff(shown: str, before: str, after: str) -> str:
    name = Path(shown).as_posix()
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
        )
    )
