"""Pipelines in pipelines."""

from __future__ import annotations

from typing import Any

from flowyml import Pipeline, for_each, pipeline, step
from flowyml.orchestrators import LocalOrchestrator
from tests.unit.control_flow import add, double, numbers, same, total


def test_a_pipeline_in_a_pipeline(both_ways: LocalOrchestrator) -> None:
    @pipeline(context={"b": 1000})
    def prepare(count: int = 2) -> Any:
        rows = numbers(count)
        return {"rows": rows, "sum": add(total(rows))}

    @pipeline(name="outer")
    def made() -> Any:
        first = prepare(3)
        second = prepare(count=first["sum"])
        return {"a": first["sum"], "b": second["sum"]}

    plan = made.compile()
    assert [s.name for s in plan] == [
        "prepare.numbers", "prepare.total", "prepare.add",
        "prepare_2.numbers", "prepare_2.total", "prepare_2.add",
    ]  # fmt: skip
    assert made.run(on=both_ways).outputs == {"a": 1003, "b": 1003 * 1002 // 2 + 1000}


def test_a_pipeline_by_names_in_a_pipeline(both_ways: LocalOrchestrator) -> None:
    by_names = Pipeline("by_names", context={"count": 3})
    by_names.add_step(step(name="values", outputs=["values"])(lambda count: list(range(count)))).add_step(total)

    @pipeline(name="outer")
    def made() -> Any:
        with for_each([2, 4]) as count:
            found = by_names(count=count)
        return {"totals": found, "default": by_names()}

    assert made.run(on=both_ways).outputs == {"totals": [1, 6], "default": 3}


def test_depth_of_three(local: LocalOrchestrator) -> None:
    @pipeline
    def innermost(n: int) -> Any:
        return double(n)

    @pipeline
    def middle(n: int) -> Any:
        return innermost(double(n))

    @pipeline
    def outermost(n: int = 1) -> Any:
        return middle(n)

    assert outermost.run(on=local)["double"] == 4
    assert [s.name for s in outermost.compile()] == ["middle.double", "middle.innermost.double"]


def test_after_names_a_step_of_the_same_pipeline_first(local: LocalOrchestrator) -> None:
    @pipeline
    def part() -> Any:
        add(1)
        return same.options(after=["add"])(5)

    @pipeline
    def whole() -> Any:
        add(2)
        return part()

    assert whole.compile().by_name["part.same"].after == ("part.add",)
