"""The facts of a run that a pod knows, and how it evaluates conditions and lists. This file travels in the bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flowyml.core.errors import StepError
from flowyml.core.item_names import labelled
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
    has_packed_items,
    is_plain,
    listed,
    mapped,
)
from flowyml.runtime.decisions import checked_lists, is_taken
from flowyml.runtime.tracebacks import described
from flowyml_kubeflow.records import Known

__all__ = ["PodEvaluator", "PodFacts"]


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
