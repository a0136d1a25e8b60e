"""Decide from known results whether a step runs, and with which inputs: skips, joins and missing inputs as anywhere.

The rules are those of ``flowyml.runtime.walk``, for one step at a time. This file travels in the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowyml.core.errors import StepError
from flowyml.core.item_names import labelled
from flowyml.plan.groups import Branch, Group, Loop
from flowyml.plan.model import FromParameter, Plan, Step
from flowyml.plan.values import Constant, FromEither, FromItem, FromStep, Source, steps_of
from flowyml.runtime.decisions import checked_lists, is_taken
from flowyml.runtime.nodes import End, Index, verdict
from flowyml.runtime.tracebacks import described
from flowyml_kubeflow.records import Entry, Items, Known

__all__ = ["StepDecisions", "Found"]


@dataclass(frozen=True)
class Found:
    """A value, if its step succeeded: packed, or ``plain`` if no step returned it; a list over ``loops``."""

    end: End
    cause: str = ""
    value: Any = None
    plain: bool = False
    loops: Sequence[Loop] = ()


class StepDecisions:
    """Decides by known results, ``known``.

    ``parameter`` returns a run's parameter by name, ``live`` the value of a packed one, and ``pack`` the reverse.
    ``inside`` is the outermost loop around the pod: the groups around that loop were decided when its items were
    prepared.
    """

    def __init__(
        self, plan: Plan, known: Known, parameter: Callable[[str], Any], live: Callable[[Any], Any],
        pack: Callable[[Any], Any], inside: str = "",
    ) -> None:  # fmt: skip
        self.plan = plan
        self.structure = plan.structure
        self.known = known
        self.parameter = parameter
        self.live = live
        self.pack = pack
        self.inside = inside
        self._lists: dict[tuple[str, Index], Items] = {}
        self._taken: dict[tuple[str, Index], tuple[End, str]] = {}

    def of(self, step: Step, index: Index) -> tuple[End, str]:
        """``OK`` for a step to run, else its end without running, and the reason."""
        end, cause = self.gate(step.group, index)
        if end is not End.OK:
            return end, cause
        sources = [item.source for item in step.inputs]
        ends = [*self._ends(sources, step.group, index), *self._after(step, index, sources)]
        if step.execution_group:
            ends += self._ends(self._of_its_group(step), step.group, index)
        return self._verdict(step.run_if, ends)

    def _of_its_group(self, step: Step) -> Iterator[Source]:
        """Yield the sources that the steps of its execution group wait for: it begins when all of these succeeded."""
        members = self.structure.together[step.execution_group].steps
        for each in map(self.structure.step, members):
            after = (FromStep(name, "") for name in each.after)
            for source in (*(item.source for item in each.inputs), *after):
                if not {*members}.intersection(steps_of(source)):
                    yield source

    def find(self, source: Source, group: str, index: Index) -> Found:
        """Return a value for ``group`` and an item."""
        match source:
            case FromParameter(name):
                return Found(End.OK, value=self.parameter(name), plain=True)
            case Constant(value):
                return Found(End.OK, value=value, plain=True)
            case FromItem(loop, name):
                depth = len(self.structure.loops(loop)) - 1
                items = self.items(loop, index[:depth])
                return Found(End.OK, value=items.lists[name][index[depth]], plain=name in items.plain)
            case FromStep(step, output):
                beyond = self.structure.loops_between(step, group)
                depth = len(self.structure.loops(self.plan.by_name[step].group)) - len(beyond)
                return self._gathered(step, output, beyond, index[:depth])
            case FromEither(outputs):
                found = [self.find(each, group, index) for each in outputs]
                return min(found, key=lambda each: (each.end is not End.OK, each.end is not End.FAILED))
        raise TypeError(source)

    def _gathered(self, step: str, output: str, loops: Sequence[Loop], prefix: Index) -> Found:
        """Return an output of a step, as a list over these loops."""
        entries = self.known.steps.get(step, {})
        if (entry := entries.get(prefix)) is not None or not loops:
            entry = entry or Entry(End.FAILED, f"{labelled(step, prefix)!r} left nothing")
            value = [] if loops else entry.outputs.get(output)
            return Found(entry.end, entry.cause, value, loops=loops)
        numbers = sorted({index[len(prefix)] for index in entries if index[: len(prefix)] == prefix})
        parts = [(number, self._gathered(step, output, loops[1:], (*prefix, number))) for number in numbers]
        ok = [(number, part) for number, part in parts if part.end is End.OK]
        failed = next((part for _, part in parts if part.end is End.FAILED), None)
        goes_on = loops[0].on_item_error == "continue"
        if failed is not None and not goes_on:
            return failed
        if not ok and failed is None:
            return Found(End.SKIPPED, parts[0][1].cause if parts else "")
        value = [[number, part.value] if goes_on else part.value for number, part in ok]
        return Found(End.OK, value=value, loops=loops)

    def value_of(self, found: Found) -> Any:
        """Return the value itself."""
        return found.value if found.plain else self._live(found.value, found.loops)

    def _live(self, value: Any, loops: Sequence[Loop]) -> Any:
        if not loops:
            return self.live(value)
        if loops[0].on_item_error == "continue":
            return [(number, self._live(part, loops[1:])) for number, part in value]
        return [self._live(part, loops[1:]) for part in value]

    # The dependencies of a step.

    def _ends(self, sources: Iterable[Source], group: str, index: Index) -> list[tuple[End, str]]:
        """Return the ends of the sources of values, without duplicates: several outputs of a step are one."""
        found: dict[object, tuple[End, str]] = {}
        for number, source in enumerate(sources):
            if isinstance(source, FromParameter | Constant):
                continue
            key = (
                source.step
                if isinstance(source, FromStep)
                else ("item", source.loop)
                if isinstance(source, FromItem)
                else number
            )
            each = self.find(source, group, index)
            found.setdefault(key, (each.end, each.cause))
        return list(found.values())

    def _after(self, step: Step, index: Index, sources: Sequence[Source]) -> list[tuple[End, str]]:
        seen = {source.step for source in sources if isinstance(source, FromStep)}
        return self._ends((FromStep(name, "") for name in step.after if name not in seen), step.group, index)

    @staticmethod
    def _verdict(rule: str, ends: Sequence[tuple[End, str]]) -> tuple[End, str]:
        tally = [0, 0, 0]
        for end, _ in ends:
            tally[end] += 1
        made = verdict(rule, tally, 0)
        assert made is not None  # nothing is waited for any more
        return made, next((cause for end, cause in ends if end is not End.OK), "") if made is not End.OK else ""

    # The groups around it.

    def gate(self, group: str, index: Index) -> tuple[End, str]:
        """Decide whether the branches and loops around ``group`` let it run."""
        path = self.structure.path(group)
        for name in path[path.index(self.inside) + 1 if self.inside else 0 :]:
            each = self.structure.by_name[name]
            prefix = index[: len(self.structure.loops(each.parent))]
            end, cause = End.OK, ""
            if isinstance(each, Branch):
                end, cause = self._decided(each, prefix)
            elif isinstance(each, Loop):
                items = self.items(name, prefix)
                end, cause = items.end, items.cause
            if end is not End.OK:
                return end, cause
        return End.OK, ""

    def _decided(self, branch: Branch, prefix: Index) -> tuple[End, str]:
        if (branch.name, prefix) not in self._taken:
            self._taken[branch.name, prefix] = self._decide(branch, prefix)
        return self._taken[branch.name, prefix]

    def _decide(self, branch: Branch, prefix: Index) -> tuple[End, str]:
        end, cause = self._verdict("all_success", self._ends(self.structure.sources(branch), branch.parent, prefix))
        if end is not End.OK:
            return end, cause

        def value_of(source: Source) -> Any:
            return self.value_of(self.find(source, branch.parent, prefix))

        choices = self.structure.choices[branch.choice]
        try:
            taken = is_taken(choices[: choices.index(branch) + 1], value_of)
        except StepError as error:
            return End.FAILED, self._fail(branch, prefix, str(error))
        return End.OK if taken else End.SKIPPED, ""

    def items(self, loop: str, prefix: Index) -> Items:
        """Return the lists of a loop, if it has begun."""
        if not prefix and loop in self.known.loops:
            return self.known.loops[loop]
        if (loop, prefix) not in self._lists:
            made = self.structure.by_name[loop]
            assert isinstance(made, Loop)
            self._lists[loop, prefix] = self._opened(made, prefix)
        return self._lists[loop, prefix]

    def _opened(self, loop: Loop, prefix: Index) -> Items:
        end, cause = self._verdict("all_success", self._ends((item.source for item in loop.over), loop.parent, prefix))
        if end is not End.OK:
            return Items(end, cause)
        try:
            found = {item.name: self.find(item.source, loop.parent, prefix) for item in loop.over}
            given = {name: each.value if _is_split(each) else self.value_of(each) for name, each in found.items()}
            lists = {name: self._packed(found[name], items) for name, items in checked_lists(loop, given).items()}
        except Exception as error:  # whatever unpacking or packing a user's value raises
            why = str(error) if isinstance(error, StepError) else described(error)
            return Items(End.FAILED, self._fail(loop, prefix, why))
        return Items(End.OK, "", lists, tuple(name for name, each in found.items() if each.plain))

    def _packed(self, found: Found, items: Sequence[Any]) -> list[Any]:
        """Return the items of a list, each packed if a step returned it."""
        return list(items) if found.plain or _is_split(found) else [self.pack(item) for item in items]

    def _fail(self, group: Group, prefix: Index, why: str) -> str:
        """Fail the run, unless this is in the clean-up or an item that may fail; return why its steps do not run."""
        if not self.structure.may_fail(group.parent):
            self.known.fail([why])
        return f"{labelled(group.name, prefix)!r} failed: {why}"


def _is_split(found: Found) -> bool:
    """Return whether it was collected by one loop, and so is packed item by item already."""
    return [each.on_item_error for each in found.loops] == ["fail"]
