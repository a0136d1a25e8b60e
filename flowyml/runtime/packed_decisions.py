"""Decide branches and the items of loops from packed values: see ``flowyml.artifacts.packing``.

Plain values are evaluated here, without the user's code. All others are unpacked in a separate process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowyml.artifacts import is_reference
from flowyml.plan.conditions import sources_in
from flowyml.plan.values import Constant, FromParameter, Source
from flowyml.runtime.decisions import checked_lists, is_taken
from flowyml.runtime.nodes import Collected, Decision, Node, Opening
from flowyml.runtime.processes import StepProcesses

__all__ = ["PackedDecisions", "carried", "given_to"]


class PackedDecisions:
    """The decisions of one run, from its packed values and its ``parameters``."""

    def __init__(self, processes: StepProcesses, parameters: Mapping[str, Any]) -> None:
        self._processes = processes
        self._parameters = parameters

    def look(self, node: Node) -> Any:
        """Evaluate a branch: whether it is taken; or a loop: its lists, each item packed. Raises ``StepError``."""
        if isinstance(node, Opening):
            return self.lists(node)
        assert isinstance(node, Decision)
        return self.is_taken(node)

    def is_taken(self, node: Decision) -> bool:
        """Return whether a branch is taken."""
        known = {source: found.values[output] for source, (found, output) in node.known.items()}

        def value_of(source: Source) -> Any:
            if isinstance(source, Constant):
                return source.value
            return self._parameters[source.name] if isinstance(source, FromParameter) else _plain(known[source])

        if not any(_holds_reference(value) for value in known.values()):
            return is_taken(node.branches, value_of)
        sources = [source for branch in node.branches for source in sources_in(branch.condition)]
        packed = {
            str(place): self._parameters[source.name] if isinstance(source, FromParameter) else carried(known[source])
            for place, source in enumerate(sources)
            if not isinstance(source, Constant)
        }
        return bool(self._processes.look(node.branches[-1].name, packed, index=node.frame.index)["taken"])

    def lists(self, node: Opening) -> dict[str, Sequence[Any]]:
        """Return the lists of a loop."""
        given = {**node.fixed, **{name: source.values[output] for name, source, output in node.given()}}
        plain = {*node.fixed, *(name for name, source, output in node.given() if output in source.plain)}
        if all(name in plain or _has_packed_items(value) for name, value in given.items()):
            return checked_lists(node.loop, given)
        packed = {name: carried(value) for name, value in given.items()}
        return self._processes.look(node.loop.name, packed, index=node.frame.index)


def given_to(node: Node) -> dict[str, Any]:
    """Return the packed inputs of a step that may run."""
    return {**node.fixed, **{name: carried(source.values[output]) for name, source, output in node.given()}}


def carried(value: Any) -> Any:
    """Return a packed value as JSON; for the items of a loop, the list, or pairs with their indexes."""
    return value.of([carried(part) for part in value]) if isinstance(value, Collected) else value


def _plain(value: Any) -> Any:
    """Return the value itself, if it contains no reference.

    The same as ``carried`` except for what JSON would change.
    """
    return value.of([_plain(part) for part in value]) if isinstance(value, Collected) else value


def _holds_reference(value: Any) -> bool:
    return any(map(_holds_reference, value)) if isinstance(value, Collected) else is_reference(value)


def _has_packed_items(value: Any) -> bool:
    """Return whether the items of a list may be passed on unchanged."""
    if isinstance(value, Collected):
        return value.indexes is None and not any(isinstance(part, Collected) for part in value)
    return not is_reference(value) and not (isinstance(value, list) and any(map(is_reference, value)))
