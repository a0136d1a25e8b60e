"""The results that pods of a pipeline with control flow pass to one another: ends of steps, and outputs, by item.

One artifact, a zip file: ``record.json``, and beside it values that are not JSON. ``PodFacts`` has them as the decider
asks for them. This file travels in the bundle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from flowyml.artifacts.packing import is_reference
from flowyml.core.errors import EngineError, StepError
from flowyml.core.item_names import checked_items, labelled
from flowyml.plan.groups import Branch, Groups, Loop
from flowyml.plan.values import Source
from flowyml.runtime.decider import (
    OK,
    End,
    Evaluator,
    Facts,
    Index,
    Opened,
    Outcome,
    checked_lists,
    has_packed_items,
    is_plain,
    is_taken,
    listed,
    mapped,
)
from flowyml.runtime.tracebacks import described

__all__ = ["Entry", "Items", "Known", "PodEvaluator", "PodFacts"]

_DOCUMENT = "record.json"
_LARGEST = 1 << 28  # bytes of that document
_DEEPEST = 100  # loops around a step
_INSIDE = "zip:"  # begins the URL of a value in such a file: its path and the name of the member


@dataclass(frozen=True)
class Entry:
    """The end of a step, or of its run for an item; ``cause`` is the reason if it did not succeed. Outputs are packed.

    A stand-in for all items of a loop that has none, or never began, has the index of the item around it.
    """

    end: End
    cause: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Items:
    """The items of an outermost loop, by the names of its lists: packed, or ``plain`` if no step returned them."""

    end: End
    cause: str = ""
    lists: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    plain: tuple[str, ...] = ()


class Known:
    """A pod's knowledge of other pods, with its own results. ``failed`` has the failures of the run."""

    def __init__(self, scratch: Path) -> None:
        self.steps: dict[str, dict[Index, Entry]] = {}
        self.counts: dict[tuple[str, Index], int] = {}  # of other pods: the items of a step, by the index around them
        self.loops: dict[str, Items] = {}
        self.failed: list[str] = []
        self.scratch = scratch
        self._extracted: dict[str, str] = {}
        self._items = 0  # of all steps, by the counts

    def read(self, path: Path) -> None:
        """Add the results of another pod."""
        with ZipFile(path) as file:
            if (size := file.getinfo(_DOCUMENT).file_size) > _LARGEST:
                raise EngineError(f"The record of another pod has {size} bytes, of which {_LARGEST} are read: {path}")
            document = json.loads(file.read(_DOCUMENT))
        for name, entries in document["steps"].items():
            by_index = self.steps.setdefault(name, {})
            for key, (end, cause, outputs) in entries.items():
                there = {output: _moved(value, path) for output, value in outputs.items()}
                index = tuple(map(int, filter(None, key.split("/", _DEEPEST))))
                by_index[index] = Entry(End(end), cause, there)
                for depth, number in enumerate(index):
                    within, count = (name, index[:depth]), checked_items(number + 1, name)
                    if (known := self.counts.get(within, 0)) < count:
                        self._items = checked_items(self._items + count - known, name)
                        self.counts[within] = count
        for name, (end, cause, lists, plain) in document["loops"].items():
            moved = {
                key: items if key in plain else [_moved(item, path) for item in items] for key, items in lists.items()
            }
            self.loops[name] = Items(End(end), cause, moved, tuple(plain))
        self.fail(document["failed"])

    def fail(self, reasons: Iterable[str]) -> None:
        """Add failures of the run, without duplicates."""
        self.failed = list(dict.fromkeys((*self.failed, *reasons)))

    def write(self, path: Path, *, steps: Iterable[str] = (), loops: Iterable[str] = ()) -> None:
        """Write the results of these steps for other pods."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with ZipFile(path, "w") as file:
            document = {
                "steps": {
                    name: {
                        "/".join(map(str, index)): [
                            entry.end, entry.cause,
                            {key: self._put(value, file) for key, value in entry.outputs.items()},
                        ]
                        for index, entry in self.steps.get(name, {}).items()
                    }
                    for name in steps
                },
                "loops": {name: self._put_items(self.loops[name], file) for name in loops},
                "failed": self.failed,
            }  # fmt: skip
            file.writestr(_DOCUMENT, json.dumps(document, ensure_ascii=False))

    def _put_items(self, items: Items, file: ZipFile) -> list[Any]:
        lists = {
            name: values if name in items.plain else [self._put(value, file) for value in values]
            for name, values in items.lists.items()
        }
        return [items.end, items.cause, lists, items.plain]

    def _put(self, packed: Any, file: ZipFile) -> Any:
        """Return the form of a value in the file; adds values that are files here."""
        if not is_reference(packed):
            return packed
        about, member = packed["$artifact"], f"{len(file.namelist())}"
        if about["url"].startswith(_INSIDE):
            source, _, inside = about["url"].removeprefix(_INSIDE).rpartition("!")
            with ZipFile(source) as other, other.open(inside) as data, file.open(member, "w", force_zip64=True) as copy:
                shutil.copyfileobj(data, copy)
        elif (path := Path(about["url"].removeprefix("file://"))).is_relative_to(self.scratch):
            file.write(path, member)
        else:
            return packed
        return {"$artifact": {**about, "url": f"{_INSIDE}{member}"}}

    def here(self, packed: Any) -> Any:
        """Return a packed value that a step can read: a value in another pod's file is extracted."""
        if not is_reference(packed) or not packed["$artifact"]["url"].startswith(_INSIDE):
            return packed
        url = packed["$artifact"]["url"]
        if url not in self._extracted:
            source, _, inside = url.removeprefix(_INSIDE).rpartition("!")
            target = self.scratch / "given" / str(len(self._extracted))
            target.parent.mkdir(exist_ok=True)
            with ZipFile(source) as file, file.open(inside) as data, target.open("wb") as copy:
                shutil.copyfileobj(data, copy)
            self._extracted[url] = f"file://{target}"
        return {"$artifact": {**packed["$artifact"], "url": self._extracted[url]}}


def _moved(packed: Any, path: Path) -> Any:
    """Return a value in a file, with its path."""
    if not is_reference(packed) or not packed["$artifact"]["url"].startswith(_INSIDE):
        return packed
    member = packed["$artifact"]["url"].removeprefix(_INSIDE)
    return {"$artifact": {**packed["$artifact"], "url": f"{_INSIDE}{path}!{member}"}}


class PodFacts(Facts):
    """The results that a pod was given, and its own. Of the outermost loops, only ``own`` may be evaluated."""

    def __init__(self, known: Known, structure: Groups, parameter: Callable[[str], Any], own: str) -> None:
        self._known = known
        self._structure = structure
        self._parameter = parameter
        self._own = own

    def end(self, step: str, index: Index) -> Outcome:
        entry = self._known.steps.get(step, {}).get(index)
        return Outcome(entry.end, entry.cause) if entry else _left_nothing(step, index)

    def value(self, step: str, output: str, index: Index) -> Any:
        return self._known.steps[step][index].outputs.get(output)

    def parameter(self, name: str) -> Any:
        return self._parameter(name)

    def opened(self, loop: str, index: Index) -> Opened | None:
        """Return what the pod of the loop has written, or else what the results of the loop's steps show."""
        if not index and (items := self._known.loops.get(loop)):
            count = len(next(iter(items.lists.values()), ()))
            return Opened(Outcome(items.end, items.cause), count, items.lists)
        for step in self._structure.members(loop):
            if stand_in := self._known.steps.get(step, {}).get(index):
                return Opened(Outcome(stand_in.end, stand_in.cause))
            if count := self._known.counts.get((step, index), 0):
                return Opened(OK, count)
        return None if index or loop == self._own else Opened(_left_nothing(loop, index))


def _left_nothing(name: str, index: Index) -> Outcome:
    return Outcome(End.FAILED, f"{labelled(name, index)!r} left nothing")


class PodEvaluator(Evaluator):
    """Evaluates in this process, which has the user's code; ``unpack`` and ``pack`` are for one value."""

    def __init__(self, structure: Groups, unpack: Callable[[Any], Any], pack: Callable[[Any], Any]) -> None:
        self._structure = structure
        self._unpack = unpack
        self._pack = pack

    def is_taken(self, branches: Sequence[Branch], value_of: Callable[[Source], Any], index: Index) -> bool:
        def live(source: Source) -> Any:
            value = value_of(source)
            return value if is_plain(source, self._structure) else listed(mapped(value, self._unpack))

        return is_taken(branches, live)

    def lists(
        self, loop: Loop, values: Mapping[str, Any], plain: Collection[str], index: Index
    ) -> Mapping[str, Sequence[Any]]:  # fmt: skip
        unchanged = {name for name, value in values.items() if name in plain or has_packed_items(value)}
        try:
            live = {
                name: listed(value if name in unchanged else mapped(value, self._unpack))
                for name, value in values.items()
            }
            return {
                name: list(items) if name in unchanged else [*map(self._pack, items)]
                for name, items in checked_lists(loop, live).items()
            }
        except StepError:
            raise
        except Exception as error:  # whatever unpacking or packing a user's value raises
            raise StepError(described(error)) from error
