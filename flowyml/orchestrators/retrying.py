"""Choose the steps of an ended run that run again: one rule wherever FlowyML itself walks over the plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from flowyml.core.errors import RetryRefusedError
from flowyml.core.item_names import labelled
from flowyml.core.runs import Run, StepRun
from flowyml.plan.groups import Branch, Loop, outputs_in
from flowyml.plan.model import Plan
from flowyml.plan.values import Source, steps_of
from flowyml.runtime.decider import End, Index

__all__ = ["Ends", "StepInstance", "check_retry", "end_of", "to_run_again"]

StepInstance = tuple[str, Index]
"""The name of a step, and the index of its item in the loops around it."""


def check_retry(
    run: Run, steps: Sequence[str] | None, parameters: Mapping[str, Any], step_runs: Callable[[str], Sequence[StepRun]]
) -> None:
    """Check that a run has ended and did not complete, has the named steps, and gets no other parameters.

    Raises ``RetryRefusedError``.
    """
    if parameters:
        raise RetryRefusedError(
            f"A retry of run {run.job_id!r} has the parameters that the run was started with. To give others, start "
            f"a new run, or use with_new_code=…, if the engine can do that."
        )
    if not run.status.is_terminal:
        raise RetryRefusedError(
            f"Run {run.run_id!r} is {run.status}: it can be retried when it has ended. Cancel it, or wait."
        )
    if run.status.is_successful:
        raise RetryRefusedError(f"Run {run.run_id!r} completed, so a retry would run nothing. Start a new run.")
    if steps is None:
        return
    if not steps:
        raise RetryRefusedError(
            f"Run {run.run_id!r}: steps=[] names no step. Leave steps out to retry all that did not complete."
        )
    recorded = step_runs(run.job_id)
    known = {labelled(step.name, step.index[:depth]) for step in recorded for depth in range(len(step.index) + 1)}
    for name in steps:
        if name not in known:
            names = ", ".join(dict.fromkeys(step.name for step in recorded))
            raise RetryRefusedError(f"Run {run.run_id!r} has no step {name!r}. It has: {names}.")


def end_of(status: str, raw_status: str) -> End | None:
    """Return the end that a record of a step stands for; None if it did not end by itself."""
    if status == "COMPLETED":
        return End.SKIPPED if raw_status == "skipped" else End.OK
    return End.FAILED if status in ("FAILED", "TIMEOUT") else None


class Ends:
    """The ends of the steps of a run, and of their items: ``ends`` has None for those that did not end by themselves.

    A step of a loop without items, or of a skipped loop, stands under the index of the loops around that one. Such an
    entry is left out if items of the step exist by now, as after an earlier retry.
    """

    def __init__(self, plan: Plan, ends: Mapping[StepInstance, End | None]) -> None:
        self.plan = plan
        self.by_step: dict[str, dict[Index, End | None]] = {step.name: {} for step in plan}
        for (name, index), end in ends.items():
            self.by_step[name][index] = end
        for found in self.by_step.values():
            for around in {index[:depth] for index in found for depth in range(len(index))}:
                found.pop(around, None)
        self.loops = {step.name: plan.structure.loops(step.group) for step in plan}
        self._by_prefix = cache(self._prefixes)
        self._complete()

    def __contains__(self, instance: StepInstance) -> bool:
        name, index = instance
        return index in self.by_step[name]

    def _complete(self) -> None:
        """Give each step an entry, and each item one of each step, even if a process that died recorded only some."""
        beside: dict[tuple[str, ...], set[Index]] = {}
        loops = {name: tuple(each.name for each in found) for name, found in self.loops.items()}
        for name, found in self.by_step.items():
            beside.setdefault(loops[name], set()).update(index for index in found if len(index) == len(loops[name]))
        for name, found in self.by_step.items():
            for index in beside[loops[name]] or ({()} if not found else ()):
                if not any(index[:depth] in found for depth in range(len(index) + 1)):
                    found[index] = None

    def all(self) -> Iterator[tuple[StepInstance, End | None]]:
        """Yield each step and item with its end."""
        for name, found in self.by_step.items():
            yield from (((name, index), end) for index, end in found.items())

    def ran(self, name: str, index: Index) -> bool:
        """Return whether a step ran, or was taken from the cache, and ended OK: then it has outputs."""
        return self.by_step[name].get(index) is End.OK and len(index) == len(self.loops[name])

    def matching(self, name: str, instance: StepInstance) -> Iterable[Index]:
        """Return the entries of a step that belong to an entry of another step: those within the same items."""
        shared = 0
        for mine, other in zip(self.loops[instance[0]], self.loops[name], strict=False):
            shared += mine is other
        key = instance[1][:shared]
        if not key:
            return tuple(self.by_step[name])
        return self._by_prefix(name, len(key)).get(key, ())

    def _prefixes(self, name: str, depth: int) -> Mapping[Index, Sequence[Index]]:
        found: dict[Index, list[Index]] = {}
        for index in self.by_step[name]:
            found.setdefault(index[:depth], []).append(index)
        return found

    def ended_loops(self) -> Iterator[tuple[tuple[str, Index], int | None]]:
        """Yield the loops whose steps have all ended, with the number of their items; None for a skipped loop."""
        structure = self.plan.structure
        for loop in (group for group in structure if isinstance(group, Loop)):
            depth = len(structure.loops(loop.parent))
            instances: dict[Index, list[tuple[Index, End | None]]] = {}
            for name in structure.members(loop.name):
                for index, end in self.by_step[name].items():
                    instances.setdefault(index[:depth], []).append((index, end))
            for around, found in instances.items():
                if len(around) < depth or any(end is None for _, end in found):
                    continue
                counts = [index[depth] + 1 for index, _ in found if len(index) > depth]
                is_skipped = any(end is End.SKIPPED for _, end in found)
                yield (loop.name, around), max(counts) if counts else None if is_skipped else 0


NOT_SAVED = "its output was not saved"

Output = tuple[str, Index, str]
"""A step, its item, and the name of an output."""


def to_run_again(
    ends: Ends, kept: Collection[Output], lost: Collection[Output], chosen: Collection[str] | None
) -> tuple[list[StepInstance], list[StepInstance]]:
    """Return the steps and items to run again, and those to forget first: items of a list that is computed again.

    ``chosen`` names steps and items; None means all that did not complete. A completed step runs again if one of its
    outputs is needed and is not among those ``kept``; an output of the pipeline may also be ``lost``, which a record
    says.
    """
    return _Choice(ends, kept, lost).made(chosen)


class _Choice:
    """Finds the steps to run again: the requested ones, and all consequences."""

    def __init__(self, ends: Ends, kept: Collection[Output], lost: Collection[Output]) -> None:
        self._ends = ends
        self._plan = ends.plan
        self._kept = kept
        self._lost = lost
        structure = self._plan.structure
        self._looped_by: dict[str, list[Loop]] = {}
        for loop in (group for group in structure if isinstance(group, Loop)):
            for item in loop.over:
                for name in steps_of(item.source):
                    self._looped_by.setdefault(name, []).append(loop)
        self._again: dict[StepInstance, None] = {}
        self._gone: dict[StepInstance, None] = {}
        self._forced: set[StepInstance] = set()
        self._left: deque[StepInstance] = deque()

    def made(self, chosen: Collection[str] | None) -> tuple[list[StepInstance], list[StepInstance]]:
        """Return the steps to run again, and those to forget, for a request."""
        for (name, index), end in self._ends.all():
            is_cleanup = self._plan.structure.is_cleanup(self._plan.by_name[name].group)
            if is_cleanup or not (_completed(end) or self._stays(name, end, chosen)):
                self._add((name, index))
        for name in chosen or ():
            self._add_named(name)
        for output in outputs_in(output.source for output in self._plan.outputs):
            for index in self._ends.by_step[output.step]:
                place = output.step, index, output.output
                if self._ends.ran(output.step, index) and place not in self._kept and place not in self._lost:
                    self._add((output.step, index))  # its process died before recording why it is not stored
        while self._left:
            instance = self._left.popleft()
            self._need_values(instance)
            self._begin_loops_anew(instance)
            self._go_on(instance)
        return [instance for instance in self._again if instance not in self._gone], list(self._gone)

    def _add(self, instance: StepInstance, *, forced: bool = False) -> None:
        if instance not in self._again or (forced and instance not in self._forced):
            self._left.append(instance)
        self._again[instance] = None
        if forced:
            self._forced.add(instance)

    def _add_named(self, name: str) -> None:
        found = [(instance, end) for instance, end in self._ends.all() if name in _labels(instance)]
        bad = [(instance, end) for instance, end in found if not _completed(end)]
        for instance, end in bad or found:
            self._add(instance, forced=_completed(end))

    def _stays(self, step: str, end: End | None, chosen: Collection[str] | None) -> bool:
        """Return True for a failure that was not requested, and a failed item of a loop whose list was used."""
        loops = [loop for loop in self._ends.loops[step] if loop.on_item_error == "continue"]
        if end is not End.FAILED or (chosen is None and not loops):
            return False
        if chosen is not None:
            return True
        members = set(self._plan.structure.members(loops[0].name))
        takers = [name for name in self._plan.downstream[step] if name not in members]
        return any(_completed(end) for name in takers for end in self._ends.by_step[name].values())

    def _need_values(self, instance: StepInstance) -> None:
        """Compute its missing inputs again."""
        for source in outputs_in(self._plan.structure.values(self._plan.by_name[instance[0]])):
            for index in self._ends.matching(source.step, instance):
                if self._ends.ran(source.step, index) and (source.step, index, source.output) not in self._kept:
                    self._add((source.step, index))

    def _begin_loops_anew(self, instance: StepInstance) -> None:
        """Begin loops again whose lists are computed again: they may have other items."""
        for loop in self._looped_by.get(instance[0], ()):
            for member in self._plan.structure.members(loop.name):
                for index in self._ends.matching(member, instance):
                    self._gone[member, index] = None
                    self._add((member, index))

    def _go_on(self, instance: StepInstance) -> None:
        """Decide dependent skips again; run everything after a completed step again."""
        for later in self._plan.downstream[instance[0]]:
            for index in self._ends.matching(later, instance):
                if instance in self._forced:
                    self._add((later, index), forced=True)
                elif self._ends.by_step[later][index] is End.SKIPPED and not self._stays_skipped((later, index)):
                    self._add((later, index))

    def _stays_skipped(self, instance: StepInstance) -> bool:
        """Return whether a step stays skipped: by its branch, or by its rule, if its dependencies stay unchanged."""
        step = self._plan.by_name[instance[0]]
        if any(self._was_not_taken(branch, instance) for branch in self._plan.structure.branches(step.group)):
            return True
        stops: dict[str, Collection[End | None]] = {"all_failed": (End.OK, End.SKIPPED), "none_skipped": (End.SKIPPED,)}
        return any(
            self._ends.by_step[name][index] in stops.get(step.run_if, ())
            for name in step.upstream
            for index in self._ends.matching(name, instance)
            if (name, index) not in self._again
        )

    def _was_not_taken(self, branch: Branch, instance: StepInstance) -> bool:
        structure, ends = self._plan.structure, self._ends
        is_decided = not any(
            (source.step, index) in self._again
            for source in outputs_in(structure.sources(branch))
            for index in ends.matching(source.step, instance)
        )
        return is_decided and all(
            ends.by_step[name][index] is End.SKIPPED
            for name in structure.members(branch.name)
            for index in ends.matching(name, instance)
        )


def _labels(instance: StepInstance) -> Iterator[str]:
    name, index = instance
    return (labelled(name, index[:depth]) for depth in range(len(index) + 1))


def _completed(end: End | None) -> bool:
    return end in (End.OK, End.SKIPPED)


def why_again(ends: Ends, changed: Mapping[StepInstance, str], kept: Collection[Output]) -> dict[StepInstance, str]:
    """Return the steps and items that a run of new code runs, each with the reason: ``changed`` has its own ones.

    It may take the results of all others that ran and ended OK.

    All that comes after one of the ``changed``, or after one that did not end OK, runs again, so that each result that
    is taken was computed from results that are taken. A result that is needed and not ``kept`` is computed again, and
    so is all that comes after it. The new run decides all branches and lists again, and needs their values.
    """
    plan, structure = ends.plan, ends.plan.structure
    read_in_any_case: list[Source] = [output.source for output in plan.outputs]
    read_in_any_case += [source for group in structure for source in structure.sources(group)]
    needed = {(output.step, output.output) for output in outputs_in(read_in_any_case)}
    again: dict[StepInstance, str] = {}
    pending: deque[StepInstance] = deque()

    def add(instance: StepInstance, why: str) -> None:
        if instance not in again:
            again[instance] = why
            pending.append(instance)

    for (name, index), end in ends.all():
        is_lost = ends.ran(name, index) and any(
            (name, index, output) not in kept for step, output in needed if step == name
        )
        if (name, index) in changed:
            add((name, index), changed[name, index])
        elif not _completed(end):
            add((name, index), "it did not complete")
        elif is_lost:
            add((name, index), NOT_SAVED)
        elif structure.is_cleanup(plan.by_name[name].group):
            add((name, index), "it is a cleanup step")
    while pending:
        instance = pending.popleft()
        for later in plan.downstream[instance[0]]:
            for index in ends.matching(later, instance):
                add((later, index), f"it comes after {instance[0]}")
        for source in outputs_in(structure.values(plan.by_name[instance[0]])):
            for index in ends.matching(source.step, instance):
                if ends.ran(source.step, index) and (source.step, index, source.output) not in kept:
                    add((source.step, index), NOT_SAVED)
    return again
