"""Find the runs of steps that can be decided now, for an engine that runs a whole pipeline in one program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowyml.plan.groups import Loop
from flowyml.plan.model import Step
from flowyml.runtime.decider import NO_ITEMS, OK, Decider, End, Index, Outcome

__all__ = ["due"]


def due(decider: Decider, *, is_cleanup: bool = False) -> Iterator[tuple[Step, Index, Outcome]]:
    """Yield each step that can be decided now, with its item's index and its outcome: OK to run, else its end.

    Steps outside of loops come first, then those of each item. Call it again after each end. A loop that has no items,
    or does not begin, yields each of its steps once, with the index around the loop. ``is_cleanup`` selects the steps
    of clean-ups; by default, all others are yielded.
    """
    structure, runs = decider.structure, []
    for step in decider.plan:
        if structure.is_cleanup(step.group) is is_cleanup:
            runs += [(step, index) for index in _indexes(decider, structure.loops(step.group), ())]
    for step, index in sorted(runs, key=lambda run: run[1]):
        outcome = _outcome(decider, step, index) if decider.facts.end(step.name, index) is None else None
        if outcome is not None:
            yield step, index, outcome


def _indexes(decider: Decider, loops: Sequence[Loop], index: Index) -> Iterator[Index]:
    opened = decider.opened(loops[0].name, index) if loops else None
    if not loops or (opened and not opened.count):
        yield index
    for number in range(opened.count if opened else 0):
        yield from _indexes(decider, loops[1:], (*index, number))


def _outcome(decider: Decider, step: Step, index: Index) -> Outcome | None:
    loops = decider.structure.loops(step.group)
    if len(index) == len(loops):
        return decider.decide(step, index)
    opened = decider.opened(loops[len(index)].name, index)
    assert opened is not None
    return Outcome(End.OK, NO_ITEMS) if opened.outcome == OK else opened.outcome
