"""Steps that run although something failed or was skipped."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import pipeline, step, when
from flowyml.orchestrators import LocalOrchestrator
from flowyml.plan.model import RUN_IF
from tests.unit.control_flow import COMPLETED, FAILED, add, fail_on, steps_of

OUTCOMES = {
    "ok": ("COMPLETED", "completed"),
    "skip": ("COMPLETED", "skipped"),
    "fail": ("CANCELLED", "upstream_failed"),
}


@pytest.mark.parametrize(
    ("rule", "ends", "outcome"),
    [
        ("all_success", "ok ok", "ok"),
        ("all_success", "ok skip", "skip"),
        ("all_success", "skip fail", "fail"),
        ("all_done", "ok fail", "ok"),
        ("all_done", "skip skip", "ok"),
        ("all_failed", "fail fail", "ok"),
        ("all_failed", "ok fail", "skip"),
        ("one_failed", "ok fail", "ok"),
        ("one_failed", "ok skip", "skip"),
        ("one_success", "ok fail", "ok"),
        ("one_success", "skip fail", "fail"),
        ("one_success", "skip skip", "skip"),
        ("one_done", "skip ok", "ok"),
        ("one_done", "skip skip", "skip"),
        ("none_failed", "ok skip", "ok"),
        ("none_failed", "ok fail", "fail"),
        ("none_failed_min_one_success", "ok skip", "ok"),
        ("none_failed_min_one_success", "skip skip", "skip"),
        ("none_failed_min_one_success", "ok fail", "fail"),
        ("none_skipped", "ok fail", "ok"),
        ("none_skipped", "ok skip", "skip"),
        ("always", "fail skip", "ok"),
    ],
)
def test_every_rule_of_run_if(local: LocalOrchestrator, rule: str, ends: str, outcome: str) -> None:
    @step
    def first(ok: bool = True) -> str:
        if not ok:
            raise ValueError("failed")
        return "value"

    @step(run_if=rule)
    def last(one: str = "none", other: str = "none") -> tuple[str, str]:
        return one, other

    def end(kind: str, name: str) -> Any:
        if kind != "skip":
            return first.options(name=name)(kind == "ok")
        with when(add.options(name=f"{name} decides")(1) == 2):
            return first.options(name=name)()

    one, other = ends.split()

    @pipeline(name="rules")
    def made() -> Any:
        end(one, "one")
        end(other, "other")
        last.options(after=["one", "other"])()

    result = made.run(on=local)
    seen = steps_of(result, local)["last"]
    assert seen == OUTCOMES[outcome]
    assert result.status is (FAILED if "fail" in ends else COMPLETED)


def test_what_is_missing_is_the_default(both_ways: LocalOrchestrator) -> None:
    @step(run_if="all_done")
    def report(one: int = -1, other: int = -2) -> list[int]:
        return [one, other]

    @pipeline(name="missing")
    def made() -> Any:
        return report(one=fail_on(1), other=add(4))

    result = made.run(on=both_ways)
    assert result.status is FAILED
    assert steps_of(result, both_ways)["report"] == ("COMPLETED", "completed")
    assert result.step_results["report"].outputs == {"report": [-1, 4]}


def test_all_rules_are_tried() -> None:
    marks = test_every_rule_of_run_if.pytestmark[0].args[1]  # type: ignore[attr-defined]  # which pytest sets
    assert {rule for rule, _, _ in marks} == set(RUN_IF)
