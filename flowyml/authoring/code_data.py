"""The data files that code may read: those that its texts name, in full or by a pattern, and what it lists."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from flowyml.authoring.module_files import entries_in
from flowyml.authoring.source_units import hash_of, state_of_file
from flowyml.core.modules import is_installed

__all__ = ["data_files"]

_MOST_FILES = 10_000
_MOST_BYTES = 100_000_000


class _Folder(NamedTuple):
    """A folder to search, with a label that is the same on all machines.

    ``is_named`` is True if the code names it, or one above it; ``is_deep`` if folders below are searched, too.
    ``place`` is its path without links, if that is known.
    """

    path: Path
    label: str
    is_named: bool = False
    is_deep: bool = False
    place: str = ""


def data_files(
    texts: set[str], names: set[str], own: Mapping[Path, str], above: Mapping[Path, str]
) -> tuple[list[tuple[str, str]], dict[Path, tuple[int, ...]]]:
    """Return the data files that code with these texts and names may read, and the states of all that was sought.

    A file is its label and its content; a folder that the code lists has no content of its own.

    They are looked for in the folders of the code, and in those above to which it goes; the values of the mappings are
    labels. A search is kept as long as all these states hold: a run needs it before and after each cached step.
    """
    named = frozenset(names & _NAMES_THAT_MATTER)
    key = frozenset(texts), named, tuple(own.items()), tuple(above.items()), os.path.expanduser("~")  # noqa: PTH111 - raises nothing
    known = _searches.get(key)
    if known is None or any(state_of_file(path) != seen for path, seen in known[1].items()):
        found = _DataFiles(texts, names)
        known = list(found.labelled(own, above)), found.states
        if len(_searches) >= _MOST_KEPT:
            _searches.clear()
        _searches[key] = known
    return known


class _DataFiles:
    """The files that code with these texts and names may read.

    Code puts names together: each part of a text may be a file's or a folder's name, in every folder that is searched.
    Of names that are made at run time, the code has a suffix, ``.csv``, or a pattern, ``*.csv``, ``part-%d``. Below
    folders that it names, any folder may have them; if it lists folders, all that is there counts. Left out are hidden
    folders elsewhere, what links to folders lead to, and installed packages, unless texts name them; ``.git`` and
    ``.venv`` anyway.
    """

    def __init__(self, texts: set[str], names: set[str]) -> None:
        self.states: dict[Path, tuple[int, ...]] = {}  # of all files and folders that were sought
        self._texts = texts | {_FILLED.sub("*", text) for text in texts}
        self._parts = _parts_of(self._texts)
        self._fits = _matcher(self._parts)
        self._lists = not _LISTING.isdisjoint(names)
        self._goes_below = not (_GOING_BELOW.isdisjoint(names) and {"*", "**"}.isdisjoint(_parts_of(texts)))
        self._is_from_home = not _OF_HOME.isdisjoint(names) or "HOME" in texts
        self._files = 0  # of those that no text names in full: there may be very many, and huge ones
        self._bytes = 0

    def labelled(self, own: Mapping[Path, str], above: Mapping[Path, str]) -> Iterator[tuple[str, str]]:
        """Yield each file's label and content."""
        folders = [_Folder(path, label, is_deep=self._goes_below) for path, label in own.items()]
        folders += [_Folder(path, label) for path, label in above.items()]
        if self._is_from_home:
            folders.append(_Folder(Path.home(), "~"))
        folders += self._elsewhere(own)
        seen = set[tuple[str, bool, bool]]()
        for folder in folders:  # which grows
            with suppress(OSError):  # what cannot be read here, the code cannot read either
                place = folder.place or os.path.realpath(folder.path)  # a link may lead back
                visit = place, folder.is_named, folder.is_deep
                if len(seen) > _MOST_FILES or _OF_SYSTEM.match(place):
                    continue
                if visit not in seen:
                    seen.add(visit)
                    if folder.place or folder.path.is_dir():
                        yield from self._labelled_in(folder._replace(place=place), folders)
                    else:
                        yield from self._file(folder.path, folder.label, is_exact=True)
            self.states.setdefault(folder.path, state_of_file(folder.path))  # also of a link, or what cannot be read

    def _elsewhere(self, own: Mapping[Path, str]) -> Iterator[_Folder]:
        """Yield the files and folders to which texts lead from ``/`` or by ``..``, and those that these are in.

        A folder above the code's own is searched, but does not count as named: not all of a project is its data.
        """
        for text in sorted(self._texts):
            fixed = _WILD.split(text)[0].lstrip("/")
            above = fixed.rpartition("/")[0]
            bases = {Path("/"): ""} if text[0] == "/" else {}
            for base, label in (bases | (dict(own) if ".." in text.split("/") else {})).items():
                path = Path(os.path.normpath(base / fixed))
                is_named = not any(folder.is_relative_to(path) for folder in own)
                yield _Folder(path, f"{label}/{fixed}", is_named, is_named)
                yield _Folder(Path(os.path.normpath(base / above)), f"{label}/{above}")

    def _labelled_in(self, folder: _Folder, folders: list[_Folder]) -> Iterator[tuple[str, str]]:
        """Yield the files in a folder; append the folders in it that are to be searched."""
        state = self.states[folder.path] = state_of_file(folder.path)
        lists = self._lists and folder.is_named
        if lists:
            yield f"{folder.label}/", ""
        there = entries_in(folder.path, state)
        for name in sorted(there.names):
            is_folder, is_exact, is_of_tool = name in there.folders, name in self._parts, name in _OF_TOOLS
            is_found = is_exact or (self._fits(name) and not is_of_tool)
            is_listed = lists and not is_of_tool
            is_deep = folder.is_deep and name[0] != "."
            if not (is_found or is_listed or (is_folder and is_deep)):
                continue
            path, label = folder.path / name, f"{folder.label}/{name}"
            if not is_folder:
                yield from self._file(path, label, is_exact=is_exact)
            elif is_found or not (name in there.links or name == "__pycache__" or is_installed(path)):
                is_named = (is_listed or is_found or (folder.is_named and is_deep)) and not is_of_tool
                place = "" if name in there.links else f"{folder.place}{os.sep}{name}"
                folders.append(_Folder(path, label, is_named, is_named or is_deep, place))

    def _file(self, path: Path, label: str, *, is_exact: bool) -> Iterator[tuple[str, str]]:
        if path in self.states or not (is_exact or self._files < _MOST_FILES):
            return
        state = self.states[path] = state_of_file(path)
        with suppress(OSError):  # what cannot be read
            if state and path.is_file():
                size = state[1]
                if not is_exact:
                    self._files, self._bytes = self._files + 1, self._bytes + size
                is_huge = not is_exact and self._bytes > _MOST_BYTES
                yield label, str(state[1:3]) if is_huge else hash_of(path, state)


_OF_TOOLS = (".git", ".venv")  # code that names these leaves them out, or only asks for them
_OF_SYSTEM = re.compile(r"/((proc|sys)(/.*)?)?$")


def _parts_of(texts: set[str]) -> set[str]:
    return {part for text in texts for part in text.split("/")} - {"", ".", ".."}


def _matcher(texts: set[str]) -> Callable[[str], bool]:
    """Return a check of whether a file's name has one of the suffixes among texts, or fits one of the patterns."""
    suffixes = tuple(text for text in texts if _SUFFIX.fullmatch(text))
    patterns = sorted(text for text in texts if _PATTERN.fullmatch(text))
    fits = re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match
    return lambda name: name.endswith(suffixes) or fits(name) is not None


_FILLED = re.compile(r"%(\(\w+\))?[-+ #0-9.]*[A-Za-z]|\$?\{[^{}]*\}|\$\w+|(?<=\w[-_])$")
"""What is filled into a text: by ``%``, ``format`` or a template; and the end of one that others begin with."""
_WILD = re.compile(r"[*?[]")
_SUFFIX = re.compile(r"(\.\w+)+")
_PATTERN = re.compile(r"(?=.*\w)[^/]*[*?[][^/]*")

_LISTING = frozenset({"glob", "iglob", "rglob", "iterdir", "listdir", "scandir", "walk", "fwalk"})
_GOING_BELOW = frozenset({"walk", "fwalk", "rglob"})
_OF_HOME = frozenset({"home", "expanduser"})
_NAMES_THAT_MATTER = _LISTING | _GOING_BELOW | _OF_HOME

_searches: dict[tuple[Any, ...], tuple[list[tuple[str, str]], dict[Path, tuple[int, ...]]]] = {}
_MOST_KEPT = 64
