"""Sample pipelines with one failure, and with steps that share a process. Their steps are pickled by value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from flowyml import Pipeline, either, elif_, for_each, pipeline, step, when
from flowyml.testing.pipelines_parts import flow, parts

__all__ = [
    "fails_once",
    "has_a_bug",
    "items_fail_once",
    "together",
    "together_fails_once",
    "together_held",
    "together_items",
]


@flow
def fails_once(folder: str, note: Any, numbers: Any, total: Any, same: Any) -> Any:
    """A step between two others fails in its first run; another step is beside them."""
    flaky = _flaky(folder, note)

    listed = same.options(name="list")(numbers(4))
    return {"total": total(flaky(listed)), "beside": same.options(name="beside")(7)}


def has_a_bug(folder: str, *, fixed: bool = False) -> Pipeline:
    """An item of a loop fails, unless the pipeline is ``fixed``; then a step beside it has another constant, too."""
    note, numbers, _, _, total, same, _ = parts(folder)

    @step
    def prepared(values: list[int]) -> tuple[int, ...]:  # an artifact
        note("prepared")
        return tuple(values)

    @step
    def half(n: int) -> float:
        note("half", n)
        if n == 2 and not fixed:
            raise ValueError("a bug")
        return n / 2

    @step
    def count(values: tuple[int, ...], halves: list[float]) -> int:
        return len(values) + len(halves)

    @pipeline(name="conformance has a bug")
    def made() -> Any:
        listed = same.options(name="list")(numbers(4))
        with for_each(listed) as n:
            halves: Any = half(n)
        beside = same.options(name="beside")(8 if fixed else 7)
        return {"total": total(halves), "count": count(prepared(listed), halves), "beside": beside}

    return made


@flow
def items_fail_once(folder: str, note: Any, numbers: Any, total: Any, same: Any) -> Any:
    """One item of a loop of two steps fails in its first run."""
    flaky = _flaky(folder, note)

    with for_each(numbers(3)) as item:
        done = flaky(same.options(name="first")(item))
    return {"total": total(done)}


@flow
def together(note: Any, numbers: Any, add: Any) -> Any:
    """Three steps of an execution group, the last of which measures, with a step before and one after it."""

    @step(execution_group="group")
    def left(values: list[int]) -> int:
        note("left", os.getpid())
        print("left was here")
        return len(values)

    @step(execution_group="group")
    def right(left: int) -> int:
        note("right", os.getpid())
        print("right was here")
        return left + 1

    @step(execution_group="group")
    def measured(right: int) -> Annotated[dict[str, float], "metrics"]:
        return {"share": 1 / right}

    first = left(numbers(3))
    second = right(first)
    measured(second)
    return {"sum": add(first, second)}


@flow
def together_items(note: Any, numbers: Any) -> Any:
    """An execution group in a loop; its second step fails for one item, in every attempt."""

    @step(execution_group="group")
    def left(n: int) -> int:
        note("left", n, os.getpid())
        return n

    @step(execution_group="group", retry=1)
    def right(left: int) -> int:
        note("right", left, os.getpid())
        print(f"right of {left}")
        if left == 1:
            raise ValueError("no 1")
        return left + 10

    with for_each(numbers(3), on_item_error="continue") as n:
        first = left(n)
        second = right(first)
    return {"lefts": first, "rights": second}


@flow
def together_held(add: Any, same: Any) -> Any:
    """Two execution groups: one step of each takes an available value, one a failed or skipped one.

    Each has a step after it that runs however it ended.
    """

    @step
    def failing(number: int) -> int:
        raise ValueError(f"no {number}")

    @step(run_if="all_done")
    def handling(number: int = 5) -> int:
        return number + 1

    def group(name: str, here: Any, missing: Any) -> None:
        first = same.options(name=f"{name}_first", execution_group=name)(here)
        second = add.options(name=f"{name}_second", execution_group=name)(first, missing)
        handling.options(name=f"{name}_handled")(second)

    here = same.options(name="here")(1)
    with when(here > 1):
        one = same.options(name="one")(1)
    with elif_(here > 2):
        two = same.options(name="two")(2)
    group("skipped", here, either(one, two))
    group("failed", here, failing(here))
    return {"here": here}


@flow
def together_fails_once(folder: str, same: Any) -> Any:
    """Three steps of an execution group, the second of which fails in its first run; another step takes its output."""
    grouped = same.options(execution_group="group")

    first = grouped.options(name="first")(1)
    failing = _flaky(folder, parts(folder).note).options(execution_group="group")(first)
    return {"after": same.options(name="after")(failing), "third": grouped.options(name="third")(first)}


def _flaky(folder: str, note: Any) -> Any:
    @step
    def flaky(value: Any) -> Any:
        from flowyml import current_run

        index = current_run().index
        note("flaky", *index)
        failed = Path(folder) / "failed"
        if index in ((), (1,)) and not failed.exists():
            failed.touch()
            raise ValueError("the first time")
        return value

    return flaky
