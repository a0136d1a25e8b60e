"""Decide for the steps of one run: which may run now, which never will, and where their inputs are.

The walk only decides: an engine takes ready nodes, works on them, and reports their ends. All of that happens under one
lock of the engine's, except for ``Opening`` and ``Decision``, whose values the engine evaluates without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from flowyml.plan.groups import Branch, Cleanup, Loop
from flowyml.plan.model import Plan, Step
from flowyml.plan.values import Constant, FromEither, FromItem, FromParameter, FromStep, Source, steps_of
from flowyml.runtime.decider import NO_ITEMS, End, Gathered, Index, apply_rule, first_cause, gathered_end, joined_end
from flowyml.runtime.nodes import (
    Decision,
    Frame,
    Gate,
    Gather,
    Join,
    Node,
    Opening,
    Scope,
    Task,
)

__all__ = ["Walk"]


T = TypeVar("T", bound=Task)


class Walk(Generic[T]):
    """The nodes of one run. ``make`` creates its tasks; ``parameters`` are those of the run.

    ``ready`` has the nodes that can be worked on. Tasks that will never run are added to ``decided``, with ``end`` and
    ``cause``, and those of upcoming items to ``opened``. ``unfinished`` counts the nodes that have not ended, ``tasks``
    are all tasks so far, and ``outputs`` has the nodes of the pipeline's outputs. ``faults`` are failures of the run
    that are not a task's.

    A node that failed, or did not run because of a failure, keeps the values that it needs, so that it can run again in
    another walk. There, ``make`` returns tasks with an ``end`` and ``values`` if they have run before, and ``past`` has
    the number of items of the loops whose tasks have all run, None for a skipped loop.
    """

    def __init__(
        self, plan: Plan, parameters: Mapping[str, Any], make: Callable[[Frame, Step, int], T],
        past: Mapping[tuple[str, Index], int | None] = {},
    ) -> None:  # fmt: skip
        self.plan = plan
        self.ready: deque[Node] = deque()
        self.decided: deque[T] = deque()
        self.opened: deque[T] = deque()
        self.tasks: list[T] = []
        self.faults: list[str] = []
        self.unfinished = 0
        self._limited: list[Opening] = []
        self._parameters = parameters
        self._make = make
        self._structure = plan.structure
        self._positions = {step.name: position for position, step in enumerate(plan.steps)}
        self._scopes: dict[str, Scope] = {}
        self._pending: deque[Node] = deque()
        self._past = past
        self._reopened: deque[Opening] = deque()
        self.root = Frame()
        self._finale = Gate(self.root)  # clean-ups wait for it
        self._stopped = False
        self._build(self.root)
        self.outputs: dict[str, tuple[Node, str]] = {}
        for output in plan.outputs:
            node, key = self.outputs[output.name] = self._node(self.root, "", output.source)
            node.use(key)
        self._settle()

    # Reports of the engine.

    def end(self, node: Node, end: End, cause: str = "") -> None:
        """Report the end of a ready node. ``values`` are its outputs, and ``cause`` names a failure."""
        if self._stopped:
            node.end = end
            self._end_quietly(node, cause)
            return
        self._end(node, end, cause)
        self._settle()

    def fail(self, node: Node, why: str) -> None:
        """Report a condition that raised, or a loop without lists. Within an item, that is a failure of the item."""
        assert isinstance(node, Decision | Opening)
        group = node.loop.parent if isinstance(node, Opening) else node.branches[-1].parent
        if not self._structure.may_fail(group):
            self.faults.append(why)
        self.end(node, End.FAILED, f"{node.label!r} failed: {why}")

    def open(self, opening: Opening, lists: Mapping[str, Sequence[Any]]) -> None:
        """Report the lists of a loop, which are equally long: its items begin."""
        count = len(next(iter(lists.values())))
        for number in range(count):
            self.opened.extend(self._stand_ins(opening, (*opening.frame.index, number)))
        self._open(opening, lists, count)
        self._settle()

    def _open(self, opening: Opening, lists: Mapping[str, Sequence[Any]], count: int) -> None:
        opening.items = lists
        opening.frames_left = count
        for (loop, _), gather in opening.frame.gathers.items():
            if loop == opening.loop.name:
                gather.waits += count  # and is left alone until this node has ended
        if not count:
            self._stand_in(opening, End.OK, NO_ITEMS)
        self._begin_items(opening)
        if opening.next < count:
            self._limited.append(opening)
        self._end(opening, End.OK, "")

    def _open_again(self, opening: Opening) -> None:
        """End a loop that ran before: its tasks have their ends, and need no items."""
        count = self._past[opening.loop.name, opening.frame.index]
        if count is None:
            self._end(opening, End.SKIPPED, "")
        else:
            self._open(opening, {"": [None] * count}, count)

    def to_come(self) -> Iterator[T]:
        """Yield tasks for the items that have not begun, as in ``opened``. Another thread may call this."""
        for opening in tuple(self._limited):
            count = len(next(iter(opening.items.values()), ()))
            for number in range(opening.next, count):
                yield from self._stand_ins(opening, (*opening.frame.index, number))

    def halt(self) -> None:
        """Begin nothing more, except clean-ups; further ends decide nothing else."""
        self._stopped = True
        self.ready.clear()
        self._limited.clear()

    def stop(self) -> None:
        """Halt, and end the unfinished nodes; clean-ups may still run."""
        self.halt()
        for node in [node for node in self._unended() if not self._is_late(node)]:
            self._end_quietly(node, "")
        self.unfinished = 0

    def begin_finale(self) -> bool:
        """Let clean-ups run, when all else has ended. Return False if there are none, or they have begun."""
        if self._finale.end is not None or not self._finale.guarded:
            return False
        self._stopped = False
        self._finale.end = End.OK
        late = [node for node in self._unended() if self._is_late(node)]
        self.unfinished += len(late)
        for node in late:
            self._judge(node)
        self._settle()
        return True

    def _unended(self) -> Iterator[Node]:
        frames = deque([self.root])
        seen = {id(self.root)}
        for task in self.tasks:
            if id(task.frame) not in seen:
                seen.add(id(task.frame))
                frames.append(task.frame)
        for frame in frames:
            nodes = (*frame.tasks.values(), *frame.openings.values(), *frame.decisions.values())
            yield from (node for node in nodes if node.end is None)

    def _end_quietly(self, node: Node, cause: str) -> None:
        node.end, node.cause = End.FAILED if node.end is None else node.end, cause
        for follower in node.followers:
            if isinstance(follower, Gather | Join):
                if follower.end is None:
                    self._end_quietly(follower, cause)
            elif follower.end is None and self._is_late(follower):
                follower.waits -= 1
                follower.tally[node.end] += 1
        node.followers.clear()

    def _is_late(self, node: Node) -> bool:
        """Return whether a node belongs to the clean-up."""
        if isinstance(node, Task):
            return self._structure.is_cleanup(node.step.group)
        if isinstance(node, Opening):
            return self._structure.is_cleanup(node.loop.name)
        return isinstance(node, Decision) and self._structure.is_cleanup(node.branches[-1].name)

    def release(self) -> None:
        """Release all values. The nodes refer to one another, so they are freed late; values must not wait for that."""
        for frame in {id(task.frame): task.frame for task in self.tasks}.values():
            for node in (*frame.tasks.values(), *frame.openings.values(), *frame.gathers.values(), frame.item):
                node.values.clear()
                for _, source, _ in node.arguments:
                    source.values.clear()
        for node, _ in self.outputs.values():
            node.values.clear()

    # Building.

    def _scope(self, loop: str) -> Scope:
        if loop not in self._scopes:
            self._scopes[loop] = Scope(self.plan, loop)
        return self._scopes[loop]

    def _build(self, frame: Frame) -> None:
        """Create the nodes of a frame, then connect them to one another and to those around."""
        scope = self._scope(frame.loop)
        nodes: list[Node] = []
        for position, step in scope.steps:
            task = self._make(frame, step, position)
            frame.tasks[step.name] = task
            self.tasks.append(task)
            if task.end is None:
                nodes.append(task)
            elif task.end is End.FAILED:
                self._note_failure(frame)
        frame.openings = {loop.name: Opening(frame, loop) for loop in scope.loops}
        over = [inner for inner in frame.openings.values() if (inner.loop.name, frame.index) in self._past]
        nodes.extend(inner for inner in frame.openings.values() if inner not in over)
        for branch in scope.branches:
            choice = self._structure.choices[branch.choice]
            frame.decisions[branch.name] = Decision(
                frame, choice[: [inner.name for inner in choice].index(branch.name) + 1]
            )
        for loop_name, step_name in scope.collected:
            opening = frame.openings[loop_name]
            gather = frame.gathers[loop_name, step_name] = Gather(frame, opening.loop, step_name)
            gather.waits = 1
            opening.followers.append(gather)
        waited = [(node, self._tie(node)) for node in nodes]
        if self._structure.execution_groups:
            self._begin_together(waited)
        has_past = len(nodes) < len(frame.tasks) + len(frame.openings)
        nodes.extend(self._tied_decisions(frame, has_past=has_past))
        self.unfinished += len(over)
        frame.unfinished += len(over)
        self._reopened.extend(over)
        for node in nodes:
            if self._finale.end is not None or not self._is_late(node):
                self.unfinished += 1
                frame.unfinished += 1
                self._judge(node)

    def _tied_decisions(self, frame: Frame, *, has_past: bool) -> list[Decision]:
        """Return the decisions to evaluate.

        In a frame with a past, a decision that guards no node is not needed.
        """
        decisions = []
        for decision in reversed(frame.decisions.values()):  # a branch comes after the one around it
            if decision.guarded or not has_past:
                self._tie(decision)
                decisions.append(decision)
            else:
                decision.end = End.SKIPPED
        return decisions[::-1]

    def _begin_together(self, waited: Iterable[tuple[Node, Collection[Node]]]) -> None:
        """Let each step of an execution group wait for everything that any of its steps waits for."""
        groups: dict[str, dict[Node, Collection[Node]]] = {}
        for node, upstream in waited:
            if isinstance(node, Task) and node.step.execution_group:
                groups.setdefault(node.step.execution_group, {})[node] = upstream
        for group in groups.values():
            outside = dict.fromkeys(source for upstream in group.values() for source in upstream if source not in group)
            for node, upstream in group.items():
                for source in outside:
                    if source not in upstream:
                        self._follow(node, source)

    def _tie(self, node: Node) -> Collection[Node]:
        """Connect a node to those that it waits for, and return them."""
        frame = node.frame
        if isinstance(node, Task):
            group = node.step.group
            for item in node.step.inputs:
                self._take(node, group, item.name, item.source)
            slots = [self._node(frame, group, FromStep(name, ""))[0] for name in node.step.after]
        elif isinstance(node, Opening):
            group = node.loop.parent
            for item in node.loop.over:
                self._take(node, group, item.name, item.source)
            slots = []
            self._hold(node)
        else:
            assert isinstance(node, Decision)
            group, slots = node.branches[-1].parent, []
            for source in self._structure.sources(node.branches[-1]):
                self._take(node, group, "", source)
        if group and (gate := self._gate(frame, group)):
            node.gate = gate
            gate.guarded.append(node)
            if isinstance(gate, Decision):
                gate.unfinished += 1
        sources = dict.fromkeys((*(source for _, source, _ in node.arguments), *slots))
        for waited_for in sources:
            self._follow(node, waited_for)
        return sources

    def _take(self, node: Node, group: str, name: str, source: Source) -> None:
        """Connect a node to the value of its argument ``name``; a decision gets the value by its source."""
        if isinstance(source, FromParameter | Constant):
            node.fixed[name] = self._parameters[source.name] if isinstance(source, FromParameter) else source.value
            return
        slot, key = self._node(node.frame, group, source)
        slot.use(key)
        node.arguments.append((name, slot, key))
        if isinstance(node, Decision):
            node.known[source] = slot, key

    def _node(self, frame: Frame, group: str, source: Source) -> tuple[Node, str]:
        """Find a value for a step or group in ``group``: its node, and the name of the output there."""
        match source:
            case FromStep(step, output) if not self._structure.by_name:
                return self.root.tasks[step], output
            case FromStep(step, output):
                outside = self._structure.loops_between(step, group)
                depth = len(self._structure.loops(self.plan.by_name[step].group)) - len(outside)
                holder = frame.ancestor(depth)
                return (holder.gathers[outside[0].name, step] if outside else holder.tasks[step]), output
            case FromItem(loop, name):
                while frame.loop != loop:
                    assert frame.parent is not None
                    frame = frame.parent
                return frame.item, name
            case FromEither(outputs):
                choices = [self._node(frame, group, output) for output in outputs]
                join = Join(frame, choices)
                for chosen, key in choices:
                    chosen.use(key)
                    self._follow(join, chosen)
                if not join.waits:
                    self._end_join(join)
                return join, ""
        raise TypeError(source)

    def _follow(self, node: Node, waited_for: Node) -> None:
        if waited_for.end is None:
            waited_for.followers.append(node)
            node.waits += 1
        else:
            node.tally[waited_for.end] += 1
            node.cause = node.cause or waited_for.cause

    def _gate(self, frame: Frame, group: str) -> Gate | None:
        """Return the branch around ``group``, or the end of everything else for clean-ups; not beyond its loop."""
        for name in reversed(self._structure.path(group)):
            around = self._structure.by_name[name]
            if isinstance(around, Loop):
                return None
            if isinstance(around, Branch):
                return frame.decisions[name]
            if isinstance(around, Cleanup):
                return self._finale
        return None

    def _hold(self, opening: Opening) -> None:
        """Keep the values that a loop's steps take from outside until it ends: the number of items is unknown."""
        inside = set(self._structure.members(opening.loop.name))
        around, parent = opening.frame, opening.loop.parent
        for source in dict.fromkeys(self._sources_in(opening.loop)):
            if isinstance(source, FromItem) and not self._is_item_of(source, around):
                continue
            for output in source.outputs if isinstance(source, FromEither) else (source,):
                if not inside.intersection(steps_of(output)):
                    slot, key = self._node(around, parent, output)
                    slot.use(key)
                    opening.held.append((slot, key))

    def _sources_in(self, loop: Loop) -> Iterator[Source]:
        """Yield the sources of a loop's content that are from steps."""
        sources = [
            item.source for name in self._structure.members(loop.name) for item in self.plan.by_name[name].inputs
        ]
        for group in self._structure:
            if loop.name in self._structure.path(group.parent):
                sources += self._structure.sources(group)
        return (source for source in sources if not isinstance(source, FromParameter | Constant))

    @staticmethod
    def _is_item_of(source: FromItem, frame: Frame | None) -> bool:
        while frame is not None and frame.loop != source.loop:
            frame = frame.parent
        return frame is not None

    # Deciding.

    def _judge(self, node: Node) -> None:
        """Let a node run, or end it, if that can be decided now."""
        if node.end is not None or (isinstance(node, Task) and node.started):
            return
        gate = node.gate.end if node.gate is not None else End.OK
        if gate is not End.OK:
            if gate is not None and node.gate is not None:
                self._end(node, gate, node.gate.cause)
            return
        end = apply_rule(node.rule, node.tally, node.waits)
        if end is None:
            return
        if end is not End.OK:
            self._end(node, end, first_cause(source.outcome for _, source, _ in node.arguments) or node.cause)
        else:
            if isinstance(node, Task):
                node.started = True
            if node.frame.parent is None:
                self.ready.append(node)
            else:  # an item that has begun continues before others begin, so that fewer values are in memory
                self.ready.appendleft(node)

    def _end(self, node: Node, end: End, cause: str) -> None:
        if node.end is not None:
            return
        node.end, node.cause = end, cause
        if self._may_come_again(node):
            self._note_failure(node.frame)
            if isinstance(node, Opening):
                node.any_failed = True
        self._pending.append(node)

    @staticmethod
    def _may_come_again(node: Node) -> bool:
        """Return whether a retry decides a node again: it failed, or did not run because of a failure."""
        return node.end is End.FAILED or (node.end is End.SKIPPED and bool(node.cause))

    @staticmethod
    def _note_failure(frame: Frame | None) -> None:
        while frame is not None and frame.opening is not None:
            frame.opening.any_failed = True
            frame = frame.parent

    def _settle(self) -> None:
        """Process ended nodes, until no more consequences follow."""
        while self._pending or self._reopened:
            if self._reopened:
                self._open_again(self._reopened.popleft())
                continue
            node = self._pending.popleft()
            if isinstance(node, Task) and not node.started:
                self.decided.append(node)  # type: ignore[arg-type]  # tasks are made by `make`, so they are of T
            if isinstance(node, Task | Opening | Decision):
                self._count_out(node)
            if node.end is End.OK:
                node.forget_unused()
            for follower in node.followers:
                self._notify(follower, node)
            node.followers.clear()
            for guarded in node.guarded if isinstance(node, Gate) else ():
                self._judge(guarded)

    def _count_out(self, node: Node) -> None:
        if isinstance(node, Task) or (isinstance(node, Decision) and not node.guarded):
            self._over(node, failed=self._may_come_again(node))
        self.unfinished -= 1
        if isinstance(node, Opening) and node.end is not End.OK:
            assert node.end is not None
            self._stand_in(node, node.end, node.cause)
        if isinstance(node, Opening) and not node.frames_left:
            self._let_go(node)
        node.frame.unfinished -= 1
        if not node.frame.unfinished and node.frame.opening is not None:
            self._end_item(node.frame.opening)

    def _over(self, node: Node, *, failed: bool) -> None:
        """Release the arguments of an ended node, unless it may run again; after a branch's last node, the branch."""
        if not failed:
            for _, source, key in node.arguments:
                source.drop(key)
        if isinstance(gate := node.gate, Decision):
            gate.any_failed |= failed
            gate.unfinished -= 1
            if not gate.unfinished:
                self._over(gate, failed=gate.any_failed)

    def _notify(self, follower: Node, ended: Node) -> None:
        assert ended.end is not None
        follower.waits -= 1
        follower.tally[ended.end] += 1
        if ended.end is not End.OK and follower.end is None:
            follower.cause = follower.cause or ended.cause
        if isinstance(follower, Gather):
            self._gather(follower, ended)
        elif isinstance(follower, Join):
            if not follower.waits:
                self._end_join(follower)
        else:
            self._judge(follower)

    def _end_join(self, node: Join) -> None:
        outcome = joined_end([choice.outcome for choice, _ in node.choices])
        assert outcome is not None  # all choices have ended
        if outcome.end is End.OK and node.uses.get("", 1):
            node.values[""] = next(choice.values[key] for choice, key in node.choices if choice.end is End.OK)
        self._end(node, *outcome)
        if not node.uses.get("", 1):
            node.let_go()

    def _gather(self, node: Gather, ended: Node) -> None:
        if isinstance(ended, Opening) and ended.outcome and ended.end is not End.OK:
            self._end(node, *ended.outcome)
            return
        if node.waits or node.end is not None:
            return
        outcome = gathered_end([part.outcome for part in node.parts], node.loop)
        assert outcome is not None  # all parts have ended
        if outcome.end is End.OK:
            ok = [part for part in node.parts if part.end is End.OK]
            indexes = [part.frame.index[-1] for part in ok] if node.loop.on_item_error == "continue" else None
            for output in (name for name, consumers in node.uses.items() if consumers):
                node.values[output] = Gathered([part.values[output] for part in ok], indexes)
        self._end(node, *outcome)
        for output, consumers in node.uses.items():
            if not consumers:
                node.let_go(output)

    # Loops.

    def _begin_items(self, opening: Opening) -> None:
        limit = opening.loop.max_parallel or opening.frames_left
        count = len(next(iter(opening.items.values()), ()))
        while opening.next < count and opening.active < limit:
            number = opening.next
            opening.next += 1
            opening.active += 1
            frame = Frame(opening.frame, opening, number)
            frame.item.values = {name: items[number] for name, items in opening.items.items()}
            frame.item.end = End.OK
            self._build(frame)
            self._tie_parts(opening, frame)
            frame.item.forget_unused()
            if not frame.unfinished:  # all of it has run before
                opening.frames_left -= 1
                opening.active -= 1

    def _tie_parts(self, opening: Opening, frame: Frame) -> None:
        for (loop, step), gather in opening.frame.gathers.items():
            if loop != opening.loop.name:
                continue
            part = self._node(frame, loop, FromStep(step, ""))[0]
            for output in gather.uses:
                part.use(output)
            gather.parts.append(part)
            if part.end is None:
                part.followers.append(gather)
            else:
                self._notify(gather, part)

    def _end_item(self, opening: Opening) -> None:
        opening.frames_left -= 1
        opening.active -= 1
        if opening.frames_left:
            self._begin_items(opening)
        if not opening.frames_left and opening.end is not None:
            self._let_go(opening)

    def _let_go(self, opening: Opening) -> None:
        if opening.is_over:
            return
        opening.is_over = True
        for node, key in () if opening.any_failed else opening.held:
            node.drop(key)
        opening.held = []
        opening.items = {}
        self._over(opening, failed=opening.any_failed)

    def _stand_in(self, opening: Opening, end: End, cause: str) -> None:
        """Create tasks for the steps of a loop without items, so that each step has one."""
        for task in self._stand_ins(opening, opening.frame.index):
            task.end, task.cause = end, cause
            self.tasks.append(task)
            self.decided.append(task)

    def _stand_ins(self, opening: Opening, index: Index) -> Iterable[T]:
        for name in self._structure.members(opening.loop.name):
            task = self._make(opening.frame, self.plan.by_name[name], self._positions[name])
            task.index = index
            yield task
