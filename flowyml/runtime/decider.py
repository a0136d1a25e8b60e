"""Decide from recorded facts whether a step runs, how it ended without running, and which values it gets.

These are the rules of all engines. An engine whose tasks ask for themselves fills ``Facts`` with what it has recorded,
and asks a ``Decider``. ``flowyml.runtime.walk`` applies the same rules to all steps of a run, as they end.

Values are packed, as steps returned them: see ``flowyml.artifacts.packing``. This file travels in bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from flowyml.artifacts.packing import is_reference
from flowyml.core.errors import StepCancelledError, StepError
from flowyml.core.item_names import labelled
from flowyml.plan.conditions import holds
from flowyml.plan.groups import Branch, Group, Groups, Loop
from flowyml.plan.model import FromParameter, Plan, Step
from flowyml.plan.values import Constant, FromEither, FromItem, FromStep, Source, steps_of
from flowyml.runtime.tracebacks import described

__all__ = [
    "Decider", "End", "Evaluator", "Facts", "Gathered", "Index", "NO_ITEMS", "OK", "Opened", "Outcome", "apply_rule",
    "checked_lists", "first_cause", "gathered_end", "has_packed_items", "is_plain", "is_taken", "joined_end", "listed",
    "mapped", "parts_of",
]  # fmt: skip


Index = tuple[int, ...]
"""The position of a step's item in each loop around it, outermost first; empty outside of all loops."""


class End(IntEnum):
    """The end of a step, as far as it matters to those that wait for it."""

    OK = 0
    SKIPPED = 1
    FAILED = 2


class Outcome(NamedTuple):
    """An end, and its ``cause`` if a failure is behind it, such as ``step 'load' ended FAILED``."""

    end: End
    cause: str = ""


OK = Outcome(End.OK)
NO_ITEMS = "no items"
"""The cause of the steps of a loop without items."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The values of a loop's items, in order; ``indexes`` are those of the items if failed ones are left out.

    The values of a loop within a loop are ``Gathered`` themselves.
    """

    values: Sequence[Any]
    indexes: Sequence[int] | None = None

    def map(self, change: Callable[[Any], Any]) -> Gathered:
        """Return the changed values."""
        return Gathered([mapped(value, change) for value in self.values], self.indexes)

    def listed(self) -> list[Any]:
        """Return the list that a step takes: the values, or pairs of index and value."""
        values = [listed(value) for value in self.values]
        return values if self.indexes is None else list(zip(self.indexes, values, strict=True))


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a changed value; for ``Gathered`` ones, each of them changed."""
    return value.map(change) if isinstance(value, Gathered) else change(value)


def listed(value: Any) -> Any:
    """Return a value as a step takes it: the list of ``Gathered`` ones, any other unchanged."""
    return value.listed() if isinstance(value, Gathered) else value


def parts_of(value: Any) -> Iterator[Any]:
    """Yield the value itself, or each of the ``Gathered`` ones."""
    if isinstance(value, Gathered):
        for part in value.values:
            yield from parts_of(part)
    else:
        yield value


@dataclass(frozen=True, slots=True)
class Opened:
    """The beginning of a loop: the number of its items, and its lists by name, None if they are not recorded."""

    outcome: Outcome
    count: int = 0
    lists: Mapping[str, Sequence[Any]] | None = None


class Facts(Protocol):
    """The records of an engine about one run. Subclass it: only the first three methods are required.

    Conditions and lists of which an engine records nothing are evaluated.
    """

    def end(self, step: str, index: Index) -> Outcome | None:
        """Return the end of a step, or of its run for an item; None if it has not ended."""
        ...

    def value(self, step: str, output: str, index: Index) -> Any:
        """Return an output of a step that ended OK."""
        ...

    def parameter(self, name: str) -> Any:
        """Return a parameter of the run."""
        ...

    def values(self, step: str, output: str, indexes: Sequence[Index]) -> Sequence[Any]:
        """Return an output of a step for many items. Override it if one read is faster than many."""
        return [self.value(step, output, index) for index in indexes]

    def opened(self, loop: str, index: Index) -> Opened | None:
        """Return the beginning of a loop within the item ``index``; None if its lists are to be evaluated."""
        return None

    def taken(self, branch: str, index: Index) -> Outcome | None:
        """Return the outcome of a branch, OK if it was taken; None if its condition is to be evaluated."""
        return None


class Evaluator(Protocol):
    """Evaluates conditions and the lists of loops. Both methods raise ``StepError``."""

    def is_taken(self, branches: Sequence[Branch], value_of: Callable[[Source], Any], index: Index) -> bool:
        """Return whether the last of these branches of a choice is taken. ``value_of`` returns packed values."""
        ...

    def lists(
        self, loop: Loop, values: Mapping[str, Any], plain: Collection[str], index: Index
    ) -> Mapping[str, Sequence[Any]]:
        """Return the lists of a loop by name, each item packed. ``plain`` names the values that no step returned."""
        ...


class Decider:
    """Decides for the steps of one run, by what is recorded when it is asked.

    ``inside`` names a loop around the task that asks: as that task runs, the loop has begun. ``faults`` are the
    conditions and lists that cannot be evaluated, which fail the run.
    """

    def __init__(self, plan: Plan, facts: Facts, evaluator: Evaluator, inside: str = "") -> None:
        self.plan = plan
        self.structure = plan.structure
        self.facts = facts
        self.inside = inside
        self.faults: list[str] = []
        self._evaluator = evaluator
        self._opened: dict[tuple[str, Index], Opened] = {}
        self._taken: dict[tuple[str, Index], Outcome] = {}

    def decide(self, step: Step, index: Index) -> Outcome | None:
        """Return OK for a step to run, else its end without running; None if it has to wait.

        Ask for the steps of a clean-up when all others have ended.
        """
        gate = self.gate(step.group, index)
        if gate != OK:
            return gate
        sources = (*_sources(step), *self._of_execution_group(step))
        return self._apply(step.run_if, sources, step.group, index)

    def inputs(self, step: Step, index: Index) -> dict[str, Any]:
        """Return the inputs of a step that runs; those of steps that did not end OK are missing."""
        sources = {item.name: item.source for item in step.inputs}
        return {
            name: self.value(source, step.group, index)
            for name, source in sources.items()
            if self.end(source, step.group, index) == OK
        }

    def outputs(self) -> dict[str, Any]:
        """Return the outputs of the pipeline; those of steps that did not end OK are missing."""
        sources = {output.name: output.source for output in self.plan.outputs}
        return {name: self.value(source, "", ()) for name, source in sources.items() if self.end(source, "", ()) == OK}

    # The sources of values, for a step or group within ``group``.

    def end(self, source: Source, group: str, index: Index) -> Outcome | None:
        """Return the end of the source of a value; None if it has not ended."""
        if isinstance(source, FromEither):
            return joined_end([self.end(output, group, index) for output in source.outputs])
        return self._gathered_end(*self._run_of(source, group, index)) if isinstance(source, FromStep) else OK

    def value(self, source: Source, group: str, index: Index) -> Any:
        """Return the value of a source that ended OK."""
        match source:
            case FromParameter(name):
                return self.facts.parameter(name)
            case Constant(value):
                return value
            case FromItem():
                return self.item(source, index)
            case FromStep(step, output):
                _, loops, run = self._run_of(source, group, index)
                return self._gathered(step, output, loops, run)
            case FromEither(outputs):
                chosen = next(each for each in outputs if self.end(each, group, index) == OK)
                return self.value(chosen, group, index)
        raise TypeError(source)

    def item(self, source: FromItem, index: Index) -> Any:
        """Return the item of a loop, for one of its steps."""
        depth = len(self.structure.loops(source.loop)) - 1
        return self._lists(source.loop, index[:depth])[source.name][index[depth]]

    def _run_of(self, source: FromStep, group: str, index: Index) -> tuple[str, Sequence[Loop], Index]:
        """Return the step, the loops over which its runs are gathered, and the item around these loops."""
        loops = self.structure.loops_between(source.step, group)
        depth = len(self.structure.loops(self.plan.by_name[source.step].group)) - len(loops)
        return source.step, loops, index[:depth]

    def _gathered_end(self, step: str, loops: Sequence[Loop], index: Index) -> Outcome | None:
        if not loops:
            return self.facts.end(step, index)
        opened = self.opened(loops[0].name, index)
        if opened is None or opened.outcome != OK:
            return None if opened is None else opened.outcome
        runs = ((*index, number) for number in range(opened.count))
        return gathered_end([self._gathered_end(step, loops[1:], run) for run in runs], loops[0])

    def _gathered(self, step: str, output: str, loops: Sequence[Loop], index: Index) -> Any:
        if not loops:
            return self.facts.value(step, output, index)
        opened = self.opened(loops[0].name, index)
        assert opened is not None
        ok = [number for number in range(opened.count) if self._gathered_end(step, loops[1:], (*index, number)) == OK]
        runs = [(*index, number) for number in ok]
        if loops[1:]:
            values: Sequence[Any] = [self._gathered(step, output, loops[1:], run) for run in runs]
        else:
            values = self.facts.values(step, output, runs)
        return Gathered(values, ok if loops[0].on_item_error == "continue" else None)

    def _apply(self, rule: str, sources: Iterable[Source], group: str, index: Index) -> Outcome | None:
        ends = [self.end(source, group, index) for source in _waited_for(sources)]
        tally = [sum(outcome is not None and outcome.end is end for outcome in ends) for end in End]
        end = apply_rule(rule, tally, ends.count(None))
        return None if end is None else OK if end is End.OK else Outcome(end, first_cause(ends))

    def _of_execution_group(self, step: Step) -> Iterator[Source]:
        """Yield the sources from outside of its execution group, which begins when all of them have ended OK."""
        members = self.structure.execution_groups[step.execution_group].steps if step.execution_group else ()
        for member in map(self.structure.step, members):
            for source in _sources(member):
                if not {*members}.intersection(steps_of(source)):
                    yield source

    # The groups around a step.

    def gate(self, group: str, index: Index) -> Outcome | None:
        """Return OK if ``group`` and the groups around it let its content run, else its end; None if it has to wait."""
        if group in ("", self.inside):
            return OK
        around = self.structure.by_name[group]
        outside = index[: len(self.structure.loops(around.parent))]
        if isinstance(around, Loop):
            opened = self.opened(group, outside)
            return None if opened is None else opened.outcome
        return self.taken(around, outside) if isinstance(around, Branch) else self.gate(around.parent, index)

    def taken(self, branch: Branch, index: Index) -> Outcome | None:
        """Return the outcome of a branch, OK if it is taken; None if a value for its condition does not exist yet."""
        key = branch.name, index
        outcome = self._taken.get(key) or self.facts.taken(*key)
        if outcome is None and (outcome := self._choose(branch, index)):
            self._taken[key] = outcome
        return outcome

    def _choose(self, branch: Branch, index: Index) -> Outcome | None:
        outcome = self._readiness(branch, index)
        if outcome != OK:
            return outcome
        branches = self.structure.choices[branch.choice]
        try:
            is_taken = self._evaluator.is_taken(
                branches[: branches.index(branch) + 1], lambda source: self.value(source, branch.parent, index), index
            )
        except StepError as error:
            return self._fail(branch, index, error)
        return OK if is_taken else Outcome(End.SKIPPED)

    def opened(self, loop: str, index: Index) -> Opened | None:
        """Return the beginning of a loop; None if a value for its lists does not exist yet."""
        key = loop, index
        opened = self._opened.get(key) or self.facts.opened(*key)
        return opened or self._open(loop, index)

    def _lists(self, loop: str, index: Index) -> Mapping[str, Sequence[Any]]:
        opened = self.opened(loop, index)
        if opened is None or opened.lists is None:  # only their number was recorded
            opened = self._open(loop, index)
        assert opened is not None
        assert opened.lists is not None
        return opened.lists

    def _open(self, name: str, index: Index) -> Opened | None:
        loop = self.structure.by_name[name]
        assert isinstance(loop, Loop)
        outcome = self._readiness(loop, index)
        if outcome is None:
            return None
        lists: Mapping[str, Sequence[Any]] = {}
        if outcome == OK:
            values = {item.name: self.value(item.source, loop.parent, index) for item in loop.over}
            plain = [item.name for item in loop.over if is_plain(item.source, self.structure)]
            try:
                lists = self._evaluator.lists(loop, values, plain, index)
            except StepError as error:
                outcome = self._fail(loop, index, error)
        opened = self._opened[name, index] = Opened(outcome, len(next(iter(lists.values()), ())), lists)
        return opened

    def _readiness(self, group: Group, index: Index) -> Outcome | None:
        """Return OK if a branch or loop may be evaluated: those around it let it run, and its values exist."""
        gate = self.gate(group.parent, index)
        return self._apply("all_success", self.structure.sources(group), group.parent, index) if gate == OK else gate

    def _fail(self, group: Group, index: Index, error: StepError) -> Outcome:
        """Fail the run, unless the group is in a clean-up or in an item that may fail; return the end of its steps."""
        if isinstance(error, StepCancelledError):
            raise error
        if not self.structure.may_fail(group.parent) and str(error) not in self.faults:
            self.faults.append(str(error))
        return Outcome(End.FAILED, f"{labelled(group.name, index)!r} failed: {error}")


def is_plain(source: Source, structure: Groups) -> bool:
    """Return whether a value is a parameter, a constant, or an item of one: these are not packed."""
    if isinstance(source, FromItem):
        loop = structure.by_name[source.loop]
        assert isinstance(loop, Loop)
        return is_plain(next(item.source for item in loop.over if item.name == source.name), structure)
    return isinstance(source, FromParameter | Constant)


def has_packed_items(value: Any) -> bool:
    """Return whether the items of a list are packed one by one, so that they can be passed on unchanged."""
    if isinstance(value, Gathered):
        return value.indexes is None and not any(isinstance(part, Gathered) for part in value.values)
    return not is_reference(value) and not (isinstance(value, list) and any(map(is_reference, value)))


def _sources(step: Step) -> Sequence[Source]:
    """Return the sources of the values that a step takes, and the steps that it names."""
    return [*(item.source for item in step.inputs), *(FromStep(name, "") for name in step.after)]


def _waited_for(sources: Iterable[Source]) -> Iterable[Source]:
    """Return the sources that can fail or be skipped, without duplicates: several outputs of a step are one."""
    awaited = (source for source in sources if not isinstance(source, FromParameter | Constant))
    return dict.fromkeys(FromStep(item.step, "") if isinstance(item, FromStep) else item for item in awaited)


# The rules, which the walk uses too.


def apply_rule(rule: str, tally: Sequence[int], waits: int) -> End | None:
    """Apply a rule of ``RUN_IF``: OK means run, another end means do not run, None means wait.

    ``tally`` counts the ends before a step, by ``End``, and ``waits`` those that are still missing. The rules are
    Airflow's (source: ``TriggerRuleDep`` in its ``ti_deps``), except that a skip counts only once everything upstream
    has ended, so that the order in which steps end does not matter.
    """
    ok, skipped, failed = tally
    if rule == "all_success":
        return End.FAILED if failed else None if waits else End.SKIPPED if skipped else End.OK
    if rule == "always" or not (ok or skipped or failed or waits):
        return End.OK
    early = {
        "all_failed": End.SKIPPED if ok or skipped else None,
        "one_failed": End.OK if failed else None,
        "one_success": End.OK if ok else None,
        "one_done": End.OK if ok or failed else None,
        "none_failed": End.FAILED if failed else None,
        "none_failed_min_one_success": End.FAILED if failed else None,
        "none_skipped": End.SKIPPED if skipped else None,
    }.get(rule)
    if early is not None or waits:
        return early
    match rule:
        case "one_failed" | "one_done":
            return End.SKIPPED
        case "one_success":
            return End.FAILED if failed else End.SKIPPED
        case "none_failed_min_one_success":
            return End.OK if ok else End.SKIPPED
        case _:
            return End.OK


def gathered_end(parts: Sequence[Outcome | None], loop: Loop) -> Outcome | None:
    """Return the end of a loop's step as a whole, from the ends of its items."""
    if None in parts:
        return None
    ends = {part.end for part in parts if part}
    if End.FAILED in ends and loop.on_item_error != "continue":
        return Outcome(End.FAILED, first_cause(parts))
    return Outcome(End.SKIPPED, first_cause(parts)) if ends == {End.SKIPPED} else OK


def joined_end(choices: Sequence[Outcome | None]) -> Outcome | None:
    """Return the end of an ``either``, from the ends of its outputs: one that ended OK is enough."""
    if None in choices:
        return None
    ends = {choice.end for choice in choices if choice}
    end = End.OK if End.OK in ends else End.FAILED if End.FAILED in ends else End.SKIPPED
    return Outcome(end, "" if end is End.OK else first_cause(choices))


def first_cause(outcomes: Iterable[Outcome | None]) -> str:
    """Return the first cause; empty if there is none."""
    return next((outcome.cause for outcome in outcomes if outcome and outcome.cause), "")


def is_taken(branches: Sequence[Branch], value_of: Callable[[Source], Any]) -> bool:
    """Return whether the last of these branches of a choice is taken: its condition holds, and no earlier one does.

    Raises ``StepError`` for a condition that raises.
    """
    for branch in branches:
        try:
            is_true = branch.condition is None or holds(branch.condition, value_of)
        except Exception as error:
            raise StepError(f"The condition of branch {branch.name!r} cannot be decided: {described(error)}") from error
        if is_true:
            return branch is branches[-1]
    return False


def checked_lists(loop: Loop, values: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return the lists of a loop, by name.

    Raises ``StepError`` for a value that is not a list, and for lists of different lengths.
    """
    lists = {item.name: values[item.name] for item in loop.over}
    for name, items in lists.items():
        if not isinstance(items, list | tuple):
            what = "over a value" if name == "item" else f"over {name!r}"
            raise StepError(
                f"Loop {loop.name!r} goes {what} that is not a list: {type(items).__name__}. Return a list."
            )
    if len({len(items) for items in lists.values()}) > 1:
        lengths = ", ".join(f"{name!r} has {len(items)}" for name, items in lists.items())
        raise StepError(f"The lists of loop {loop.name!r} are taken item by item and must be equally long: {lengths}.")
    return lists
