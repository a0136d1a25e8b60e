"""A run that goes on in another process of its engine: what of it has been, and what runs again.

For engines that execute a flow of FlowyML's and record its steps by themselves. The choice is that of local runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from flowyml.core.runs import labelled
from flowyml.orchestrators.local.again import Past, past_of, to_run_again
from flowyml.orchestrators.local.schema import KeptRow, StepRow, item_of
from flowyml.plan.model import Plan
from flowyml.runtime.kept import KeptOutputs
from flowyml.runtime.nodes import End, Index

__all__ = ["Before", "Ended", "before"]


class Ended(NamedTuple):
    """How a step, or an item's turn of it, ended, in words of local runs.

    ``attempt`` counts all that there have been; ``began`` is when the last one did, in seconds since any moment.
    """

    step: str
    item: Index
    status: str
    raw_status: str
    attempt: int
    error: str | None = None
    began: float = 0.0

    @property
    def end(self) -> End | None:
        """What that means for a walk; None for what runs again."""
        if self.status == "COMPLETED":
            return End.SKIPPED if self.raw_status == "skipped" else End.OK
        return End.FAILED if self.status in ("FAILED", "TIMEOUT") else None


class Before(NamedTuple):
    """What is behind a run: its steps and items with their packed outputs, and its loops, as ``Walk`` takes them."""

    turns: Mapping[tuple[str, Index], tuple[Ended, dict[str, Any]]] = {}
    loops: Mapping[tuple[str, Index], int | None] = {}


def before(plan: Plan, ended: Iterable[Ended], kept: KeptOutputs, chosen: Collection[str] | None) -> Before:
    """What stays of a run when what failed of it, or what is ``chosen`` by name, runs again."""
    positions = {step.name: position for position, step in enumerate(plan)}
    known = _without_stale(plan, {(each.step, each.item): each for each in ended})
    ran = {turn for turn, each in known.items() if each.raw_status in ("completed", "cached")}
    outputs = {turn: kept.read(labelled(*turn)) or {} for turn in known if turn in ran}
    kept_rows = [
        KeptRow(positions[name], item_of(index), output, "{}")
        for (name, index), values in outputs.items()
        for output in values
    ]
    rows = {turn: _row(each, positions[each.step]) for turn, each in known.items()}
    again, gone = to_run_again(plan, rows.values(), kept_rows, chosen)
    for turn in gone:
        rows.pop(turn, None)
    for turn in (turn for turn in again if turn in rows):
        rows[turn] = rows[turn]._replace(status="QUEUED", raw_status="queued")
    past: Past = past_of(plan, rows.values(), ())
    names = [step.name for step in plan]
    turns = {}
    for (position, index), done in past.turns.items():
        turn = names[position], index
        stays = known[turn] if done.end is not None else known[turn]._replace(status="QUEUED", raw_status="queued")
        turns[turn] = stays, outputs.get(turn, {}) if done.end is End.OK else {}
    return Before(turns, past.loops)


def _without_stale(plan: Plan, known: Mapping[tuple[str, Index], Ended]) -> dict[tuple[str, Index], Ended]:
    """What was made of a value that has been made anew since is to come; items of a list that has are forgotten."""
    structure, newest = plan.structure, dict[tuple[str, Index], float]()
    for (name, index), each in known.items():
        if not each.attempt and each.status != "COMPLETED":
            continue  # it has never been made, and its record only says why
        for depth in range(len(index) + 1):
            newest[name, index[:depth]] = max(each.began, newest.get((name, index[:depth]), 0.0))
    found = dict(known)
    for (name, index), each in known.items():
        group = plan.by_name[name].group
        for source in structure.upstream(plan.by_name[name]):
            inner = structure.loops_between(source, group)
            shared = index[: len(structure.loops(plan.by_name[source].group)) - len(inner)]
            if newest.get((source, shared), 0.0) <= each.began or (name, index) not in found:
                continue
            if len(shared) < len(index):
                del found[name, index]
            else:
                found[name, index] = each._replace(status="CANCELLED", raw_status="cancelled")
    return found


def _row(ended: Ended, position: int) -> StepRow:
    return StepRow(
        position, ended.status, ended.raw_status, ended.attempt, item=item_of(ended.item), error=ended.error
    )  # fmt: skip
