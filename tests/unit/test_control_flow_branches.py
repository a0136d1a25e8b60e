"""Branches, their conditions, and joins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from flowyml import all_of, any_of, either, elif_, for_each, is_in, not_, otherwise, pipeline, step, when
from flowyml.orchestrators import LocalOrchestrator
from flowyml.plan.codec import decode
from tests.unit.control_flow import FAILED, add, fail_on, numbers, same, steps_of, total


@pytest.mark.parametrize(("n", "taken"), [(1, "low"), (5, "middle"), (50, "high")])
def test_a_chain_of_branches(both_ways: LocalOrchestrator, n: int, taken: str) -> None:
    @pipeline(name="chain")
    def made(n: int = 0) -> Any:
        found = add(n)
        with when(found < 3):
            low = same.options(name="low")("low")
        with elif_(found < 10):
            middle = same.options(name="middle")("middle")
        with otherwise():
            high = same.options(name="high")("high")
        return {"taken": same(either(low, middle, high))}

    result = made.run({"n": n}, on=both_ways)
    assert result["taken"] == taken
    seen = steps_of(result, both_ways)
    for name in ("low", "middle", "high"):
        assert seen[name] == ("COMPLETED", "completed" if name == taken else "skipped")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (lambda n: n == 3, True),
        (lambda n: n != 3, False),
        (lambda n: (n > 1) & (n < 3), False),
        (lambda n: (n > 1) & (n <= 3), True),
        (lambda n: (n < 1) | (n >= 3), True),
        (lambda n: ~(n > 1), False),
        (lambda n: is_in(n, [1, 2, 3]), True),
        (lambda n: is_in(n, (1, 2)), False),
        (lambda n: all_of(n, n > 2), True),
        (lambda n: any_of(n > 5, n == 3), True),
        (lambda n: not_(n), False),
        (lambda n: n, True),
        (lambda n: n > 2, True),
    ],
)
def test_conditions(local: LocalOrchestrator, condition: Callable[[Any], Any], holds: bool) -> None:
    @pipeline(name="conditions")
    def made(n: int = 3) -> Any:
        with when(condition(add(n))):
            add.options(name="yes")(1)

    result = made.run(on=local)
    assert result.success, result.error
    assert result.step_results["yes"].raw_status == ("completed" if holds else "skipped")
    assert decode(made.compile().canonical) == made.compile()


def test_a_condition_that_cannot_be_decided_fails_its_branches(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="undecided")
    def made() -> Any:
        with when(same("text") > 3, name="large"):
            a = add(1)
        with otherwise():
            b = add(2)
        return same.options(name="joined")(either(a, b))

    result = made.run(on=both_ways)
    assert result.status is FAILED
    assert "The condition of branch 'large' cannot be decided: TypeError" in str(result.error)
    assert {steps_of(result, both_ways)[name] for name in ("add", "add_2", "joined")} == {
        ("CANCELLED", "upstream_failed")
    }


def test_what_cannot_be_decided_fails_a_run_of_which_all_steps_may_fail(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="undecided above")
    def made() -> None:
        with when(same("text") > 3, name="large"):
            same.options(name="each", on_item_error="continue").map(value=[1])

    result = made.run(on=both_ways)
    assert result.status is FAILED
    assert "The condition of branch 'large' cannot be decided: TypeError" in str(result.error)


def test_steps_of_an_item_say_what_could_not_be_decided(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="undecided within")
    def made() -> Any:
        with for_each([1, "a"], on_item_error="continue") as n:
            with when(same(n) > 0, name="large"):
                add(1)
            total(same.options(name="each").map(value=n))

    result = made.run(on=both_ways)
    assert result.success, result.error
    errors = {run.label: run.error or "" for run in both_ways.step_runs(result.run_id)}
    assert errors["add[0]"] == ""
    assert errors["add[1]"].startswith(
        "not run, since 'large[1]' failed: The condition of branch 'large' cannot be decided: TypeError"
    )
    assert "that is not a list: str" in errors["each[1]"]
    assert "that is not a list: str" in errors["total[1]"]


def test_what_follows_a_join_of_which_nothing_ran_is_skipped(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="nothing ran")
    def made(n: int = 5) -> Any:
        found = add(n)
        with when(found < 1):
            a = same.options(name="a")(1)
        with when(found > 9):
            b = same.options(name="b")(2)
        return same.options(name="joined")(either(a, b))

    result = made.run(on=both_ways)
    assert result.success
    assert result.outputs == {}
    assert steps_of(result, both_ways)["joined"] == ("COMPLETED", "skipped")


def test_a_failure_in_the_taken_branch_fails_the_join(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="taken fails")
    def made() -> Any:
        with when(add(1) == 1):
            a = fail_on(1)
        with otherwise():
            b = same(2)
        return same.options(name="joined")(either(a, b))

    result = made.run(on=both_ways)
    assert result.status is FAILED
    assert steps_of(result, both_ways)["joined"] == ("CANCELLED", "upstream_failed")


def test_branches_within_branches_and_loops(both_ways: LocalOrchestrator) -> None:
    @pipeline(name="inner")
    def made() -> Any:
        with for_each(numbers(5)) as n:
            found = add(n)
            with when(found > 1):
                with when(found > 3):
                    big = same.options(name="big")("big")
                with otherwise():
                    mid = same.options(name="mid")("mid")
                upper = same.options(name="upper")(either(big, mid))
            with otherwise():
                low = same.options(name="lower")("low")
            return same.options(name="word")(either(upper, low))

    assert made.run(on=both_ways)["word"] == ["low", "low", "mid", "mid", "big"]


def test_a_step_beside_a_branch_and_a_loop_does_not_wait(local: LocalOrchestrator) -> None:
    started = threading.Event()

    @step
    def beside() -> int:
        started.set()
        return 1

    @step
    def slow(n: int) -> int:
        assert started.wait(60)
        return n

    @pipeline(name="beside")
    def made() -> Any:
        with when(slow(1) == 1):
            add(1)
        slow.options(name="slow_item").map(n=[1, 2])
        return beside()

    assert made.run(on=local).success
