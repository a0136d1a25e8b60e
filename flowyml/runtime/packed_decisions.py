"""Evaluate branches and the items of loops from packed values: see ``flowyml.artifacts.packing``.

Plain values are evaluated here, without the user's code. All others are unpacked in a separate process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flowyml.artifacts import is_reference
from flowyml.plan.conditions import sources_in
from flowyml.plan.groups import Branch, Loop
from flowyml.plan.values import Constant, FromParameter, Source
from flowyml.runtime.decider import Evaluator, Index, checked_lists, has_packed_items, is_taken, listed, parts_of
from flowyml.runtime.nodes import Decision, Node, Opening
from flowyml.runtime.processes import StepProcesses

__all__ = ["PackedDecisions", "PackedEvaluator", "packed_inputs"]


class PackedEvaluator(Evaluator):
    """Evaluates plain values here, all others by ``evaluate``: see ``StepProcesses.evaluate``."""

    def __init__(self, evaluate: Callable[..., Any]) -> None:
        self._evaluate = evaluate

    def is_taken(self, branches: Sequence[Branch], value_of: Callable[[Source], Any], index: Index) -> bool:
        sources = [source for branch in branches for source in sources_in(branch.condition)]
        known = {source: value_of(source) for source in sources if not isinstance(source, Constant)}
        of_steps = (value for source, value in known.items() if not isinstance(source, FromParameter))
        if any(is_reference(part) for value in of_steps for part in parts_of(value)):
            packed = {
                str(position): listed(known[source])
                for position, source in enumerate(sources)
                if not isinstance(source, Constant)
            }
            return bool(self._evaluate(branches[-1].name, packed, index=index)["taken"])
        return is_taken(
            branches, lambda source: source.value if isinstance(source, Constant) else listed(known[source])
        )

    def lists(
        self, loop: Loop, values: Mapping[str, Any], plain: Collection[str], index: Index
    ) -> Mapping[str, Sequence[Any]]:  # fmt: skip
        packed = {name: listed(value) for name, value in values.items()}
        if all(name in plain or has_packed_items(value) for name, value in values.items()):
            return checked_lists(loop, packed)
        lists: Mapping[str, Sequence[Any]] = self._evaluate(loop.name, packed, index=index)
        return lists


class PackedDecisions:
    """The decisions of one walk, from its packed values and its ``parameters``."""

    def __init__(self, processes: StepProcesses, parameters: Mapping[str, Any]) -> None:
        self._evaluator = PackedEvaluator(processes.evaluate)
        self._parameters = parameters

    def evaluate(self, node: Node) -> Any:
        """Evaluate a branch: whether it is taken; or a loop: its lists, each item packed. Raises ``StepError``."""
        if isinstance(node, Decision):
            return self._evaluator.is_taken(
                node.branches, lambda source: node.value(source, self._parameters), node.frame.index
            )
        assert isinstance(node, Opening)
        values = {**node.fixed, **{name: source.values[output] for name, source, output in node.completed_arguments()}}
        return self._evaluator.lists(node.loop, values, node.plain_lists, node.frame.index)


def packed_inputs(node: Node) -> dict[str, Any]:
    """Return the packed inputs of a step that may run."""
    values = {name: listed(source.values[output]) for name, source, output in node.completed_arguments()}
    return {**node.fixed, **values}
