"""Read from the database what a retry takes over from the earlier tries of its run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from flowyml.core.errors import OutputNotKeptError
from flowyml.orchestrators.local.copies import own
from flowyml.orchestrators.local.outputs import value_of
from flowyml.orchestrators.local.schema import SavedRow, StepRow, index_of
from flowyml.orchestrators.retrying import Ends, StepInstance, end_of, to_run_again
from flowyml.plan.model import Plan
from flowyml.runtime.decider import End, Index

__all__ = ["Done", "Past", "Recorded", "choose", "past_of"]


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

    instances: Mapping[tuple[int, Index], Done] = {}
    loops: Mapping[tuple[str, Index], int | None] = {}


def past_of(plan: Plan, rows: Iterable[StepRow], kept: Iterable[SavedRow]) -> Past:
    """Return the past of a run that is queued again."""
    entries: dict[tuple[int, Index], dict[str, Any]] = {}
    for value in kept:
        entries.setdefault((value.position, index_of(value.item)), {})[value.output] = json.loads(value.entry)
    by_instance = _by_instance(plan, rows)
    ends = _ends(plan, by_instance)
    positions = {step.name: position for position, step in enumerate(plan.steps)}
    instances = {
        (positions[name], index): Done(
            row, end_of(row.status, row.raw_status), entries.get((positions[name], index), {})
        )
        for (name, index), row in by_instance.items()
        if (name, index) in ends
    }
    return Past(instances, dict(ends.ended_loops()))


def choose(
    plan: Plan, rows: Iterable[StepRow], kept: Iterable[SavedRow], chosen: Collection[str] | None
) -> tuple[list[StepInstance], list[StepInstance]]:
    """Return the steps and items to run again, and those to forget first: see ``to_run_again``."""
    outputs: dict[bool, set[tuple[str, Index, str]]] = {True: set(), False: set()}
    for row in kept:
        is_lost = "not_kept" in json.loads(row.entry)
        outputs[is_lost].add((plan.steps[row.position].name, index_of(row.item), row.output))
    return to_run_again(_ends(plan, _by_instance(plan, rows)), outputs[False], outputs[True], chosen)


def _by_instance(plan: Plan, rows: Iterable[StepRow]) -> dict[StepInstance, StepRow]:
    return {(plan.steps[row.position].name, index_of(row.item)): row for row in rows}


def _ends(plan: Plan, rows: Mapping[StepInstance, StepRow]) -> Ends:
    return Ends(plan, {instance: end_of(row.status, row.raw_status) for instance, row in rows.items()})
