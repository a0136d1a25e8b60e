"""The steps of one run as the engine works on them: who waits for whom, and which values are still needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flowyml.orchestrators.local.schema import StepRow
from flowyml.plan.model import Constant, FromParameter, FromStep, Plan, Source, Step

__all__ = ["Node", "nodes_of"]


class Node:
    """One step on its way through a run.

    ``waits`` counts the steps that must complete first; ``uses`` counts, for each output, the consumers to come.
    """

    __slots__ = (
        "apart", "arguments", "attempt", "due", "error", "fixed", "followers", "position", "row", "step", "uses",
        "values", "waits",
    )  # fmt: skip

    def __init__(self, step: Step, position: int) -> None:
        self.step = step
        self.position = position
        self.waits = 0
        self.followers: list[Node] = []
        self.fixed: dict[str, Any] = {}
        self.arguments: list[tuple[str, Node, str]] = []
        self.uses: dict[str, int] = {}
        self.values: dict[str, Any] = {}
        self.attempt = 0
        self.due = 0.0
        self.apart = False
        self.error: BaseException | None = None
        self.row = StepRow(position, "QUEUED", "queued")

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self.row.status not in ("QUEUED", "RUNNING")

    def release(self) -> None:
        """This step needs its inputs no longer; a value goes when its last consumer is done."""
        for _, source, output in self.arguments:
            source.drop(output)

    def drop(self, output: str) -> None:
        """One consumer fewer."""
        left = self.uses[output] = self.uses[output] - 1
        if not left:
            self.values.pop(output, None)

    def forget_unused(self) -> None:
        """Let go of the outputs that nobody asked for."""
        for output in [name for name in self.values if not self.uses.get(name)]:
            del self.values[output]

    def still_waiting(self) -> Iterable[Node]:
        """Every step that waits for this one, directly or not, each once. Behind one that has ended, all have."""
        found: dict[Node, None] = {}
        open_ends = [self]
        while open_ends:
            for node in open_ends.pop().followers:
                if node not in found and not node.ended:
                    found[node] = None
                    open_ends.append(node)
        return found


def nodes_of(plan: Plan, parameters: Mapping[str, Any]) -> list[Node]:
    """The steps of a plan in its order, tied together, with parameters and constants filled in."""
    nodes: dict[str, Node] = {}
    for position, step in enumerate(plan.steps):
        node = nodes[step.name] = Node(step, position)
        for item in step.inputs:
            _connect(node, item.name, item.source, nodes, parameters)
        for name in step.upstream:
            nodes[name].followers.append(node)
            node.waits += 1
    for output in plan.outputs:
        _count_use(nodes[output.source.step], output.source.output)
    return list(nodes.values())


def _connect(
    node: Node, name: str, source: Source, nodes: Mapping[str, Node], parameters: Mapping[str, Any]
) -> None:  # fmt: skip
    match source:
        case FromStep(step, output):
            node.arguments.append((name, nodes[step], output))
            _count_use(nodes[step], output)
        case FromParameter(parameter):
            node.fixed[name] = parameters[parameter]
        case Constant(value):
            node.fixed[name] = value


def _count_use(node: Node, output: str) -> None:
    node.uses[output] = node.uses.get(output, 0) + 1
