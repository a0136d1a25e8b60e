"""Retry a run: choose the steps to run again, by the database, and reuse the results of the others."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from flowyml.core.errors import OutputNotKeptError
from flowyml.core.item_names import labelled
from flowyml.orchestrators.local.copies import own
from flowyml.orchestrators.local.outputs import value_of
from flowyml.orchestrators.local.schema import KeptRow, StepRow, index_of
from flowyml.plan.groups import Branch, Loop, outputs_in
from flowyml.plan.model import Plan
from flowyml.plan.values import steps_of
from flowyml.runtime.decider import End, Index

__all__ = ["Done", "Past", "Recorded", "past_of", "to_run_again"]

Turn = tuple[str, Index]
"""A step, and its item."""


class Recorded:
    """A recorded output of an earlier try of the run. It is read at each use."""

    __slots__ = ("entry",)

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.entry = entry

    def read(self) -> Any:
        """Return a fresh copy of the value. Raises ``OutputNotKeptError``."""
        if reason := self.entry.get("not_kept"):
            raise OutputNotKeptError(reason)
        return own(value_of(self.entry))


class Done(NamedTuple):
    """A recorded step, or its run for one item: its results if it has ended, else only its attempts."""

    row: StepRow
    end: End | None
    entries: Mapping[str, dict[str, Any]]


class Past(NamedTuple):
    """The past of a run: its steps by position, and the finished loops, in the form for ``Walk``."""

    turns: Mapping[tuple[int, Index], Done] = {}
    loops: Mapping[tuple[str, Index], int | None] = {}


def past_of(plan: Plan, rows: Iterable[StepRow], kept: Iterable[KeptRow]) -> Past:
    """Return the past of a run that is queued again."""
    entries: dict[tuple[int, Index], dict[str, Any]] = {}
    for value in kept:
        entries.setdefault((value.position, index_of(value.item)), {})[value.output] = json.loads(value.entry)
    record = _Record(plan, rows)
    turns = {
        (record.positions[name], index): Done(row, _end(row), entries.get((record.positions[name], index), {}))
        for name, turns in record.turns.items()
        for index, row in turns.items()
        if row is not None
    }
    return Past(turns, dict(_loops_behind(record)))


def to_run_again(
    plan: Plan, rows: Iterable[StepRow], kept: Iterable[KeptRow], chosen: Collection[str] | None
) -> tuple[list[Turn], list[Turn]]:
    """Return the steps and items to run again, and those to forget first: items of a list that is computed again.

    ``chosen`` names steps and items; None means all that did not complete. A completed step runs again if one of its
    outputs is needed and was not stored.
    """
    return _Choice(_Record(plan, rows), kept).made(chosen)


class _Record:
    """The rows of a run by step and item, without placeholders for items that exist by now."""

    def __init__(self, plan: Plan, rows: Iterable[StepRow]) -> None:
        self.plan = plan
        self.positions = {step.name: position for position, step in enumerate(plan.steps)}
        self.turns: dict[str, dict[Index, StepRow | None]] = {step.name: {} for step in plan}
        for row in rows:
            self.turns[plan.steps[row.position].name][index_of(row.item)] = row
        for turns in self.turns.values():
            for around in {index[:depth] for index in turns for depth in range(len(index))}:
                turns.pop(around, None)
        self._complete()
        self.loops = {step.name: plan.structure.loops(step.group) for step in plan}
        self._by_prefix = cache(self._prefixes)

    def _complete(self) -> None:
        """Give each step an entry, and each item one of each step, even if a process that died recorded only some."""
        beside: dict[tuple[str, ...], set[Index]] = {}
        loops = {step.name: tuple(each.name for each in self.plan.structure.loops(step.group)) for step in self.plan}
        for name, turns in self.turns.items():
            beside.setdefault(loops[name], set()).update(index for index in turns if len(index) == len(loops[name]))
        for name, turns in self.turns.items():
            for index in beside[loops[name]] or ({()} if not turns else ()):
                if not any(index[:depth] in turns for depth in range(len(index) + 1)):
                    turns[index] = None

    def matching(self, name: str, turn: Turn) -> Iterable[Index]:
        """Return the entries of a step that belong to an entry of another step: those within the same items."""
        shared = 0
        for mine, other in zip(self.loops[turn[0]], self.loops[name], strict=False):
            shared += mine is other
        key = turn[1][:shared]
        if not key:
            return tuple(self.turns[name])
        return self._by_prefix(name, len(key)).get(key, ())

    def _prefixes(self, name: str, depth: int) -> Mapping[Index, Sequence[Index]]:
        found: dict[Index, list[Index]] = {}
        for index in self.turns[name]:
            found.setdefault(index[:depth], []).append(index)
        return found


class _Choice:
    """Finds the steps to run again: the requested ones, and all consequences."""

    def __init__(self, record: _Record, kept: Iterable[KeptRow]) -> None:
        self._record = record
        self._plan = record.plan
        structure = self._plan.structure
        rows = [(self._plan.steps[row.position].name, index_of(row.item), row) for row in kept]
        self._noted = {(name, index, row.output) for name, index, row in rows}
        self._kept = {(name, index, row.output) for name, index, row in rows if "not_kept" not in json.loads(row.entry)}
        self._looped_by: dict[str, list[Loop]] = {}
        for loop in (group for group in structure if isinstance(group, Loop)):
            for item in loop.over:
                for name in steps_of(item.source):
                    self._looped_by.setdefault(name, []).append(loop)
        self._again: dict[Turn, None] = {}
        self._gone: dict[Turn, None] = {}
        self._forced: set[Turn] = set()
        self._left: deque[Turn] = deque()

    def made(self, chosen: Collection[str] | None) -> tuple[list[Turn], list[Turn]]:
        """Return the steps to run again, and those to forget, for a request."""
        for turn, row in self._all():
            is_cleanup = self._plan.structure.is_cleanup(self._plan.by_name[turn[0]].group)
            if is_cleanup or not (_completed(row) or self._stays(turn, row, chosen)):
                self._add(turn)
        for name in chosen or ():
            self._add_named(name)
        for output in outputs_in(output.source for output in self._plan.outputs):
            for index, row in self._record.turns[output.step].items():
                if _ran(row) and (output.step, index, output.output) not in self._noted:
                    self._add((output.step, index))  # its process died before recording why it is not stored
        while self._left:
            turn = self._left.popleft()
            self._need_values(turn)
            self._begin_loops_anew(turn)
            self._go_on(turn)
        return [turn for turn in self._again if turn not in self._gone], list(self._gone)

    def _all(self) -> Iterator[tuple[Turn, StepRow | None]]:
        for name, turns in self._record.turns.items():
            yield from (((name, index), row) for index, row in turns.items())

    def _add(self, turn: Turn, *, forced: bool = False) -> None:
        if turn not in self._again or (forced and turn not in self._forced):
            self._left.append(turn)
        self._again[turn] = None
        if forced:
            self._forced.add(turn)

    def _add_named(self, name: str) -> None:
        found = [(turn, row) for turn, row in self._all() if name in _labels(turn)]
        bad = [(turn, row) for turn, row in found if not _completed(row)]
        for turn, row in bad or found:
            self._add(turn, forced=_completed(row))

    def _stays(self, turn: Turn, row: StepRow | None, chosen: Collection[str] | None) -> bool:
        """Return True for a failure that was not requested, and a failed item of a loop whose list was used."""
        loops = [loop for loop in self._record.loops[turn[0]] if loop.on_item_error == "continue"]
        if not _failed(row) or (chosen is None and not loops):
            return False
        if chosen is not None:
            return True
        members = set(self._plan.structure.members(loops[0].name))
        takers = [name for name in self._plan.downstream[turn[0]] if name not in members]
        return any(_completed(row) for name in takers for row in self._record.turns[name].values())

    def _need_values(self, turn: Turn) -> None:
        """Compute its missing inputs again."""
        for source in outputs_in(self._plan.structure.values(self._plan.by_name[turn[0]])):
            for index in self._record.matching(source.step, turn):
                row = self._record.turns[source.step][index]
                if _ran(row) and (source.step, index, source.output) not in self._kept:
                    self._add((source.step, index))

    def _begin_loops_anew(self, turn: Turn) -> None:
        """Begin loops again whose lists are computed again: they may have other items."""
        for loop in self._looped_by.get(turn[0], ()):
            for member in self._plan.structure.members(loop.name):
                for index in self._record.matching(member, turn):
                    self._gone[member, index] = None
                    self._add((member, index))

    def _go_on(self, turn: Turn) -> None:
        """Decide dependent skips again; run everything after a completed step again."""
        for later in self._plan.downstream[turn[0]]:
            for index in self._record.matching(later, turn):
                row = self._record.turns[later][index]
                if turn in self._forced:
                    self._add((later, index), forced=True)
                elif _skipped(row) and not self._stays_skipped((later, index)):
                    self._add((later, index))

    def _stays_skipped(self, turn: Turn) -> bool:
        """Return whether a step stays skipped: by its branch, or by its rule, if its dependencies stay unchanged."""
        step = self._plan.by_name[turn[0]]
        if any(self._was_not_taken(branch, turn) for branch in self._plan.structure.branches(step.group)):
            return True
        rule = {"all_failed": _completed, "none_skipped": _skipped}.get(step.run_if)
        return rule is not None and any(
            rule(self._record.turns[name][index])
            for name in step.upstream
            for index in self._record.matching(name, turn)
            if (name, index) not in self._again
        )

    def _was_not_taken(self, branch: Branch, turn: Turn) -> bool:
        structure, record = self._plan.structure, self._record
        is_decided = not any(
            (source.step, index) in self._again
            for source in outputs_in(structure.sources(branch))
            for index in record.matching(source.step, turn)
        )
        return is_decided and all(
            _skipped(record.turns[name][index])
            for name in structure.members(branch.name)
            for index in record.matching(name, turn)
        )


def _labels(turn: Turn) -> Iterator[str]:
    return (labelled(turn[0], turn[1][:depth]) for depth in range(len(turn[1]) + 1))


def _completed(row: StepRow | None) -> bool:
    return row is not None and row.status == "COMPLETED"


def _skipped(row: StepRow | None) -> bool:
    return row is not None and row.raw_status == "skipped"


def _ran(row: StepRow | None) -> bool:
    return row is not None and row.raw_status in ("completed", "cached")


def _failed(row: StepRow | None) -> bool:
    return row is not None and row.status in ("FAILED", "TIMEOUT")


def _end(row: StepRow) -> End | None:
    if row.status == "COMPLETED":
        return End.SKIPPED if _skipped(row) else End.OK
    return End.FAILED if _failed(row) else None


def _loops_behind(record: _Record) -> Iterator[tuple[tuple[str, Index], int | None]]:
    structure = record.plan.structure
    for loop in (group for group in structure if isinstance(group, Loop)):
        depth = len(structure.loops(loop.parent))
        turns: dict[Index, list[tuple[Index, StepRow | None]]] = {}
        for name in structure.members(loop.name):
            for index, row in record.turns[name].items():
                turns.setdefault(index[:depth], []).append((index, row))
        for around, found in turns.items():
            if len(around) < depth or any(row is None or _end(row) is None for _, row in found):
                continue
            counts = [index[depth] + 1 for index, _ in found if len(index) > depth]
            is_skipped = any(_skipped(row) for _, row in found)
            yield (loop.name, around), max(counts) if counts else None if is_skipped else 0
