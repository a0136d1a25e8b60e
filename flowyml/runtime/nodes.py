"""The nodes of a walk over a run: one for each step, loop, branch and item, and the frames around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowyml.core.item_names import labelled
from flowyml.plan.groups import Branch, Loop
from flowyml.plan.model import Plan, Step
from flowyml.plan.values import Constant, FromParameter, Source, steps_of
from flowyml.runtime.decider import End, Index, Outcome

__all__ = [
    "Decision",
    "Frame",
    "Gate",
    "Gather",
    "Item",
    "Join",
    "Node",
    "Opening",
    "Scope",
    "Task",
]


class Node:
    """A node that others wait for. ``values`` are its outputs, ``uses`` counts the remaining consumers of each.

    ``cause`` says why it did not run.
    """

    __slots__ = ("arguments", "cause", "end", "fixed", "followers", "frame", "gate", "tally", "uses", "values", "waits")

    rule = "all_success"

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.end: End | None = None
        self.cause = ""
        self.waits = 0
        self.tally = [0, 0, 0]  # how many of those that it waited for ended so, by End
        self.gate: Gate | None = None
        self.followers: list[Node] = []
        self.arguments: list[tuple[str, Node, str]] = []
        self.fixed: dict[str, Any] = {}
        self.values: dict[str, Any] = {}
        self.uses: dict[str, int] = {}

    @property
    def label(self) -> str:
        """A name for people, and for its stored values."""
        raise NotImplementedError  # each kind of node has its own

    @property
    def outcome(self) -> Outcome | None:
        """Its end with the cause; None if it has not ended."""
        return None if self.end is None else Outcome(self.end, self.cause)

    @property
    def plain(self) -> frozenset[str]:
        """The ``values`` that are not from steps: items of parameters and constants, which are passed on unchanged."""
        return frozenset()

    def completed_arguments(self) -> Iterator[tuple[str, Node, str]]:
        """Yield the arguments of steps that completed: name, node and output there."""
        return ((name, source, key) for name, source, key in self.arguments if source.end is End.OK)

    def use(self, output: str) -> None:
        """Count one more consumer."""
        self.uses[output] = self.uses.get(output, 0) + 1

    def drop(self, output: str) -> None:
        """Count one consumer fewer; a value is released with its last consumer."""
        consumers = self.uses[output] = self.uses[output] - 1
        if not consumers:
            self.values.pop(output, None)

    def makers(self, output: str) -> Iterator[tuple[Task, str]]:
        """Yield the steps that returned a value, each with its output there: one, or a loop's items in order."""
        raise NotImplementedError  # only of nodes whose values may be outputs of the pipeline

    def forget_unused(self) -> None:
        """Release the outputs that have no consumers."""
        for output in [name for name in self.values if not self.uses.get(name)]:
            del self.values[output]


class Task(Node):
    """A step, or its run for one item, at ``position`` in the plan.

    ``together`` names the process that it shares with the other steps of its execution group; empty for a step without.
    """

    __slots__ = ("index", "position", "started", "step", "together")

    def __init__(self, frame: Frame, step: Step, position: int) -> None:
        super().__init__(frame)
        self.step = step
        self.position = position
        self.index = frame.index
        self.started = False
        self.together = labelled(step.execution_group, self.index) if step.execution_group else ""

    @property
    def rule(self) -> str:  # type: ignore[override]  # a constant of the class for all other nodes
        return self.step.run_if

    def is_followed(self, steps: Iterable[str]) -> bool:
        """Return whether another of the ``steps`` of its execution group may need the process.

        A loop without items has no such step.
        """
        others = (self.frame.tasks.get(name) for name in steps)
        return any(other is not None and other is not self and other.end is None for other in others)

    def makers(self, output: str) -> Iterator[tuple[Task, str]]:
        yield self, output

    @property
    def label(self) -> str:
        return labelled(self.step.name, self.index)


class Gate(Node):
    """A node that others, the ``guarded`` ones, wait for before anything else."""

    __slots__ = ("guarded",)

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame)
        self.guarded: list[Node] = []

    @property
    def label(self) -> str:
        return "the end of all other steps"


class Decision(Gate):
    """The choice of a branch: the last of ``branches``, which are tried one after the other.

    ``unfinished`` counts those of the ``guarded`` nodes that have not ended; ``any_failed`` is True if some have to run
    again.
    """

    __slots__ = ("any_failed", "branches", "known", "unfinished")

    def __init__(self, frame: Frame, branches: Sequence[Branch]) -> None:
        super().__init__(frame)
        self.branches = branches
        self.known: dict[Source, tuple[Node, str]] = {}
        self.unfinished = 0
        self.any_failed = False

    @property
    def label(self) -> str:
        return labelled(self.branches[-1].name, self.frame.index)

    def value(self, source: Source, parameters: Mapping[str, Any]) -> Any:
        """Return a value that the conditions need; that of a step as its node has it."""
        if isinstance(source, Constant):
            return source.value
        if isinstance(source, FromParameter):
            return parameters[source.name]
        node, output = self.known[source]
        return node.values[output]


class Opening(Node):
    """The beginning of a loop: it waits for the loop's lists."""

    __slots__ = ("active", "any_failed", "frames_left", "held", "is_over", "items", "loop", "next")

    def __init__(self, frame: Frame, loop: Loop) -> None:
        super().__init__(frame)
        self.loop = loop
        self.held: list[tuple[Node, str]] = []
        self.items: Mapping[str, Sequence[Any]] = {}
        self.next = self.active = self.frames_left = 0
        self.any_failed = self.is_over = False

    @property
    def label(self) -> str:
        return labelled(self.loop.name, self.frame.index)

    @property
    def plain_lists(self) -> frozenset[str]:
        """The lists that are not from steps; an item of such a list is as plain as the list."""
        within = (name for name, source, key in self.arguments if key in source.plain)
        return frozenset((*self.fixed, *within))


class Item(Node):
    """One item of a loop: its values for the steps."""

    __slots__ = ()

    @property
    def label(self) -> str:
        return labelled(self.frame.loop, self.frame.index)

    @property
    def plain(self) -> frozenset[str]:
        return self.frame.opening.plain_lists if self.frame.opening else frozenset()


class Gather(Node):
    """All items' outputs of a step in a loop, for consumers outside the loop."""

    __slots__ = ("loop", "parts", "step")

    def __init__(self, frame: Frame, loop: Loop, step: str) -> None:
        super().__init__(frame)
        self.loop = loop
        self.step = step
        self.parts: list[Node] = []

    def drop(self, output: str) -> None:
        """Count one consumer fewer. The items keep their values as long as this exists: a retried run has no others."""
        super().drop(output)
        if self.end is not None and not self.uses[output]:
            self.let_go(output)

    def makers(self, output: str) -> Iterator[tuple[Task, str]]:
        for part in self.parts:
            if part.end is End.OK:
                yield from part.makers(output)

    def let_go(self, output: str) -> None:
        """Release it: consumers outside the loop no longer need it."""
        for part in self.parts:
            part.drop(output)

    @property
    def label(self) -> str:
        return labelled(self.step, self.frame.index)


class Join(Node):
    """The value of the first available one of several outputs."""

    __slots__ = ("choices",)

    def __init__(self, frame: Frame, choices: Sequence[tuple[Node, str]]) -> None:
        super().__init__(frame)
        self.choices = choices

    def drop(self, output: str) -> None:
        """Count one consumer fewer. As for ``Gather``, the step keeps the value as long as this exists."""
        super().drop(output)
        if self.end is not None and not self.uses[output]:
            self.let_go()

    def makers(self, output: str) -> Iterator[tuple[Task, str]]:
        return next(choice.makers(key) for choice, key in self.choices if choice.end is End.OK)

    def let_go(self) -> None:
        """Release it: none of the outputs is needed for this any more."""
        for node, key in self.choices:
            node.drop(key)
        self.choices = ()

    @property
    def label(self) -> str:
        return " or ".join(node.label for node, _ in self.choices)


class Frame:
    """The run itself, or one item of a loop, with its own nodes."""

    __slots__ = (
        "decisions", "gathers", "index", "item", "loop", "opening", "openings", "parent", "tasks", "unfinished",
    )  # fmt: skip

    def __init__(self, parent: Frame | None = None, opening: Opening | None = None, number: int = 0) -> None:
        self.parent = parent
        self.opening = opening
        self.loop = opening.loop.name if opening else ""
        self.index: Index = (*parent.index, number) if parent else ()
        self.tasks: dict[str, Task] = {}
        self.openings: dict[str, Opening] = {}
        self.decisions: dict[str, Decision] = {}
        self.gathers: dict[tuple[str, str], Gather] = {}
        self.item: Node = Item(self)
        self.unfinished = 0

    def ancestor(self, depth: int) -> Frame:
        """Return this frame, or the one around it that is in ``depth`` loops."""
        frame = self
        while len(frame.index) > depth:
            assert frame.parent is not None
            frame = frame.parent
        return frame


class Scope:
    """The structure that exists once for each item of a loop, or once for a run."""

    def __init__(self, plan: Plan, loop: str) -> None:
        structure = plan.structure
        around = {group.name: structure.loops(group.name) for group in structure}
        inner = {"": "", **{name: loops[-1].name if loops else "" for name, loops in around.items()}}
        self.steps = [(position, step) for position, step in enumerate(plan.steps) if inner[step.group] == loop]
        groups = [group for group in structure if inner[group.parent] == loop]
        self.loops = [group for group in groups if isinstance(group, Loop)]
        self.branches = [group for group in groups if isinstance(group, Branch)]
        names = {group.name for group in self.loops}
        taken = [name for output in plan.outputs for name in steps_of(output.source)]
        returned = {(loop.name, name) for name in taken for loop in structure.loops_between(name, "")}
        self.collected = sorted(pair for pair in structure.collected | returned if pair[0] in names)
