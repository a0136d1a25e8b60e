"""Run a step here as often as its policy allows, if a decider says that it runs, and report each change.

For engines that give several steps to one task or pod, or whose own retries do not serve. The local engine runs other
steps while one waits for its next attempt, so it has only ``OrchestratorRetryPolicy.delay_after`` in common with this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from flowyml.core.errors import StepCancelledError, StepError, StepTimeoutError
from flowyml.core.item_names import labelled
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.model import Step
from flowyml.runtime.decider import OK, Decider, End, Index, Outcome
from flowyml.runtime.execution import AttemptOutputs

__all__ = ["StepEvent", "run_attempts", "run_decided"]


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A change of a step, or of its run for an item: an attempt begins or fails, or the step ends.

    ``outcome`` is its end, None before that; ``attempt`` is 0 if it ends without running. After an attempt that failed
    with ``error``, the next one follows in ``delay`` seconds, or the step ends.
    """

    step: Step
    index: Index
    attempt: int
    outcome: Outcome | None = None
    outputs: AttemptOutputs = field(default_factory=lambda: AttemptOutputs({}))
    error: StepError | None = None
    delay: float | None = None

    @property
    def state(self) -> str:
        """``running`` until the step ends, also between attempts; then one of the following.

        After an attempt, ``completed``, ``failed`` or ``timeout``; without one, ``skipped``, ``no_items`` or
        ``upstream_failed``.
        """
        if self.outcome is None:
            return "running"
        if not self.attempt:
            return _NOT_RUN[self.outcome.end]
        if self.error is None:
            return "completed"
        return "timeout" if isinstance(self.error, StepTimeoutError) else "failed"


# A step that ends OK without an attempt is in a loop without items: its outputs are empty lists.
_NOT_RUN = {End.OK: "no_items", End.SKIPPED: "skipped", End.FAILED: "upstream_failed"}


def run_decided(
    step: Step, index: Index, decider: Decider, call: Callable[[Mapping[str, Any], int, bool], AttemptOutputs],
    on_event: Callable[[StepEvent], object], **options: Any,
) -> None:  # fmt: skip
    """Run a step if all that it waits for, which has ended, lets it run.

    ``call`` gets the inputs too, as ``Decider.inputs`` returns them; an error of theirs is one of the attempt.
    ``options`` are those of ``run_attempts``.
    """
    outcome = decider.decide(step, index)
    assert outcome is not None
    if outcome != OK:
        on_event(StepEvent(step, index, 0, outcome))
        return

    def attempt(number: int, may_follow: bool) -> AttemptOutputs:
        return call(decider.inputs(step, index), number, may_follow)

    run_attempts(step, index, attempt, on_event, **options)


def run_attempts(
    step: Step, index: Index, call: Callable[[int, bool], AttemptOutputs], on_event: Callable[[StepEvent], object],
    *, first: int = 1, wait: Callable[[float], object] = time.sleep, final: Collection[str] = (),
) -> None:  # fmt: skip
    """Make attempts until one succeeds or the step's policy ends them.

    ``call`` makes one: it gets its number, counted from ``first``, and whether another may follow. Errors of classes
    with a ``final`` name end the step, whatever its policy says. Raises only a ``StepCancelledError`` of ``call`` or
    ``wait``, without an event: what ends the run knows more about the end of the step.
    """
    policy = step.retry or OrchestratorRetryPolicy(max_attempts=1)
    for number in count(first):
        attempts = number - first + 1
        on_event(StepEvent(step, index, number))
        try:
            outputs = call(number, attempts < policy.max_attempts)
        except StepCancelledError:
            raise
        except StepError as error:
            is_final = any(name in final for name in getattr(error, "names", ()))
            delay = None if is_final else policy.delay_after(error, attempts)
            status = "TIMEOUT" if isinstance(error, StepTimeoutError) else "FAILED"
            outcome = Outcome(End.FAILED, f"step {labelled(step.name, index)!r} ended {status}")
            on_event(StepEvent(step, index, number, outcome if delay is None else None, error=error, delay=delay))
        else:
            on_event(StepEvent(step, index, number, OK, outputs))
            return
        if delay is None:
            return
        wait(delay)
