"""Find the steps that can be decided now, and run them, for a program that has several steps of a pipeline to run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from flowyml.core.errors import StepCancelledError
from flowyml.core.item_names import labelled
from flowyml.plan.groups import Loop
from flowyml.plan.model import Step
from flowyml.runtime.decider import NO_ITEMS, OK, Decider, End, Index, Outcome, listed
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.processes import StepProcesses
from flowyml.runtime.step_runner import StepEvent, run_attempts

__all__ = ["due", "run_due"]


def due(decider: Decider, steps: Collection[str]) -> Iterator[tuple[Step, Index, Outcome]]:
    """Yield each of ``steps`` that can be decided now, with its item's index and its outcome: OK to run, else its end.

    Steps outside of loops come first, then those of each item. Each is decided when it is its turn, by what has ended
    until then; call this again for those that had to wait. A loop that has no items, or does not begin, yields each of
    its steps once, with the index around the loop. Name the steps of clean-ups when all others have ended.
    """
    structure, runs = decider.structure, []
    for step in decider.plan:
        if step.name in steps:
            runs += [(step, index) for index in _indexes(decider, structure.loops(step.group), ())]
    for step, index in sorted(runs, key=lambda run: run[1]):
        outcome = _outcome(decider, step, index) if decider.facts.end(step.name, index) is None else None
        if outcome is not None:
            yield step, index, outcome


def run_due(
    decider: Decider, steps: Collection[str], processes: StepProcesses, *, on_event: Callable[[StepEvent], object],
    on_line: Callable[[Step, Index, str, str], object], stop: threading.Event,
) -> None:  # fmt: skip
    """Run ``steps`` one after another as they are due, until none is, or one was stopped, by ``stop`` for example.

    ``on_event`` gets each change, and must add the ends to the decider's facts. ``on_line`` is called with the step,
    its index, the source (``stdout``, ``stderr`` or a level) and the line. A step that is stopped has no end. Have the
    decider's evaluator take ``stop`` too, so that it also stops conditions and lists.
    """
    is_done = False
    with suppress(StepCancelledError):  # of a step, a condition or a list
        while not is_done:
            is_done = True
            for step, index, outcome in due(decider, steps):
                if stop.is_set():
                    return
                is_done = False
                if outcome == OK:
                    print_line = partial(on_line, step, index)
                    attempt = partial(_attempt, decider, processes, step, index, stop=stop, on_line=print_line)
                    run_attempts(step, index, attempt, on_event, wait=partial(_wait, stop))
                else:
                    on_event(StepEvent(step, index, 0, outcome))
                if step.execution_group and _is_last(decider, step):  # one that did not run has let no process end
                    processes.release(labelled(step.execution_group, index))


def _attempt(
    decider: Decider, processes: StepProcesses, step: Step, index: Index, number: int, may_follow: bool, **options: Any
) -> AttemptOutputs:
    """Make one attempt. The steps of an execution group share a process, until the last one has no other attempt."""
    group = step.execution_group
    return processes.run(
        step.name, {name: listed(value) for name, value in decider.inputs(step, index).items()}, attempt=number,
        index=index, secrets=step.secrets, timeout=step.timeout_seconds,
        together=labelled(group, index) if group else "", hold=may_follow or not _is_last(decider, step), **options,
    )  # fmt: skip


def _is_last(decider: Decider, step: Step) -> bool:
    """Return whether no step of its execution group comes after a step."""
    group = step.execution_group
    return not group or step.name == decider.structure.execution_groups[group].steps[-1]


def _wait(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise StepCancelledError("The run was stopped.")


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
