"""Several steps in one process: attempts by policy, and each change reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import StepCancelledError, StepError, StepFailedError, StepTimeoutError
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.model import Step
from flowyml.runtime.decider import OK, Decider, End, Outcome
from flowyml.runtime.execution import AttemptOutputs
from flowyml.runtime.step_runner import StepEvent, run_attempts, run_decided
from tests.unit.test_decider import Recorded, Unpacked


@step
def load() -> int:
    return 1


@step(
    retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=5, retryable_errors=["ValueError", "Timeout"])
)
def train(load: int) -> int:
    return load


@step
def report(train: int) -> int:
    return train


PLAN = Pipeline("three").add_step(load).add_step(train).add_step(report).compile()
TRAIN = PLAN.by_name["train"]


def failed(name: str) -> StepFailedError:
    error = StepFailedError(f"{name}: no")
    error.names = (name, "Exception")
    return error


def changes(step: Step, ends: list[StepError | int], **options: Any) -> tuple[list[Any], list[Any]]:
    """Return the attempts, and the events after each attempt, of a step that ends like this in turn."""
    events: list[StepEvent] = []
    calls = []

    def call(number: int, may_follow: bool) -> AttemptOutputs:
        calls.append((number, may_follow))
        end = ends.pop(0)
        if isinstance(end, StepError):
            raise end
        return AttemptOutputs({step.name: end})

    run_attempts(step, (2,), call, events.append, **{"wait": lambda seconds: None, **options})
    assert all(event.index == (2,) for event in events)
    return calls, [(each.attempt, each.outcome, each.delay) for each in events if each.outcome or each.error]


def test_a_step_is_tried_by_its_policy() -> None:
    waits: list[float] = []
    calls, ends = changes(TRAIN, [failed("ValueError"), StepTimeoutError("late"), 7], first=4, wait=waits.append)
    assert calls == [(4, True), (5, True), (6, False)]
    assert ends == [(4, None, 5), (5, None, 10), (6, OK, None)]
    assert waits == [5, 10]


@pytest.mark.parametrize("error", [failed("KeyError"), StepError("lost")])
def test_other_errors_end_a_step(error: StepError) -> None:
    assert changes(TRAIN, [error])[1] == [(1, Outcome(End.FAILED, "step 'train[2]' ended FAILED"), None)]


def test_the_last_attempt_and_the_only_one_end_a_step() -> None:
    assert changes(TRAIN, [StepTimeoutError("late")] * 3)[1][-1] == (
        3, Outcome(End.FAILED, "step 'train[2]' ended TIMEOUT"), None,
    )  # fmt: skip
    assert changes(PLAN.by_name["load"], [failed("ValueError")]) == (
        [(1, False)], [(1, Outcome(End.FAILED, "step 'load[2]' ended FAILED"), None)],
    )  # fmt: skip


def test_an_error_that_its_engine_calls_final_is_not_tried_again() -> None:
    error = failed("ValueError")
    error.names = ("Skip", "ValueError")
    assert len(changes(TRAIN, [error], final=["Skip"])[0]) == 1


def test_a_stop_is_raised_and_leaves_the_end_of_the_step_open() -> None:
    events: list[StepEvent] = []

    def call(number: int, may_follow: bool) -> AttemptOutputs:
        raise StepCancelledError("stopped")

    with pytest.raises(StepCancelledError):
        run_attempts(TRAIN, (), call, events.append)
    assert events == [StepEvent(TRAIN, (), 1)]


def test_steps_run_if_those_before_them_let_them() -> None:
    facts, called = Recorded({}), []
    decider = Decider(PLAN, facts, Unpacked())

    def on_event(event: StepEvent) -> None:
        if event.outcome:
            facts.ends[event.step.name, ()] = event.outcome
            facts.outputs[event.step.name, ()] = event.outputs

    def call(inputs: Mapping[str, Any], number: int, may_follow: bool) -> AttemptOutputs:
        called.append(dict(inputs))
        if len(called) == 2:
            raise failed("KeyError")
        return AttemptOutputs({"load": 3})

    for each in PLAN.steps:
        run_decided(each, (), decider, call, on_event)
    cause = "step 'train' ended FAILED"
    assert called == [{}, {"load": 3}]
    assert [facts.ends[each.name, ()] for each in PLAN.steps] == [OK, *[Outcome(End.FAILED, cause)] * 2]
