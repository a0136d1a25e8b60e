"""Sample pipelines with steps that run although a step failed, and with clean-up. Their steps are pickled by value."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowyml import Pipeline, cleanup, either, for_each, otherwise, pipeline, step, when
from flowyml.plan.model import RUN_IF
from flowyml.testing.pipelines_parts import flow, parts

__all__ = ["RULES", "handled", "handled_items", "quiet", "rules", "tidied", "tidied_items", "tidied_late"]

RULES = [
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
]
"""A rule, the ends of the two steps before, and the result for the step: it runs, is skipped, or cannot run."""


def rules(folder: str, rules: Sequence[str] = RUN_IF) -> Pipeline:
    """A step for each of ``RULES`` with these rules, after two steps with these ends."""
    _, _, _, add, _, same, risky = parts(folder)
    wanted = [(rule, ends) for rule, ends, _ in RULES if rule in rules]

    @pipeline(name="conformance rules" if len(rules) > 1 else f"conformance rule {rules[0]}")
    def made() -> Any:
        for name in ("ok 1", "ok 2"):
            risky.options(name=name)(1)
        for name in ("fail 1", "fail 2"):
            risky.options(name=name)(-1)
        with when(add.options(name="decides")(1) == 2, name="never"):
            for name in ("skip 1", "skip 2"):
                risky.options(name=name)(1)
        for rule, ends in wanted:
            one, two = ends.split()
            same.options(name=f"{rule} {ends}", run_if=rule, after=[f"{one} 1", f"{two} 2"])(0)

    return made


@flow
def handled(note: Any, add: Any, same: Any, risky: Any) -> Any:
    """A failure, what handles it, and what follows that."""

    @step(run_if="all_done")
    def report(one: int = -1, other: int = -2) -> int:
        note("report", one, other)
        return one + other

    @step(run_if="one_failed")
    def alert(failed: int = 0) -> int:
        note("alert", failed)
        return 7

    failed = risky(-5)
    same.options(name="stopped")(failed)
    same.options(name="after the report")(report(failed, add(4)))
    same.options(name="after the alert")(alert(failed))


@flow
def quiet(note: Any, add: Any, same: Any, risky: Any) -> Any:
    """Nothing fails, and something is skipped: handlers of failures are skipped, and defaults fill what is missing."""

    @step(run_if="one_failed")
    def alert(failed: int = 0) -> int:
        return failed

    @step(run_if="none_failed")
    def default(value: int = -1) -> int:
        note("default", value)
        return value

    five = risky(5)
    with when(add(five) > 9, name="more than nine"):
        skipped = same.options(name="skipped")(1)
    with when(add.options(name="again")(five) > 99, name="more than 99"):
        too = same.options(name="skipped too")(2)
    same.options(name="after the alert")(alert(five))
    return {
        "default": default(either(skipped, too)),
        "given": default.options(name="given")(five),
        "anyway": same.options(name="anyway", run_if="always", after=["alert", "skipped"])(1),
    }


@flow
def handled_items(note: Any, same: Any, risky: Any) -> Any:
    """Steps that handle failures, item by item, and of a loop as a whole."""

    @step(run_if="all_done")
    def rescue(value: int = 0) -> int:
        note("rescue", value)
        return value

    @step(run_if="one_failed")
    def alert(value: int = 0) -> int:
        from flowyml import current_run

        note("alert", *current_run().index)
        return value

    @step(run_if="all_done")
    def fallback(values: list[int] = []) -> int:
        note("fallback", values)
        return len(values)

    with for_each([1, -2, 3], name="going on", on_item_error="continue") as n:
        value = risky(n)
        rescued = rescue(value)
        alert(value)
    same.options(name="rescued")(rescued)
    fallback(risky.options(name="items").map(n=[1, -1]))


@flow
def tidied(note: Any, add: Any, same: Any, risky: Any, n: int = 5) -> Any:
    """Clean-up of a run that succeeds for ``n`` over 0; one of its own steps fails in any case."""

    @step
    def slow() -> int:
        time.sleep(1)
        note("slow")
        return 1

    @step
    def tidy(value: int | None = None, skipped: int | None = 0) -> str:
        note("tidy", value, skipped)
        return "tidied"

    @step
    def then(what: str = "nothing") -> None:
        note("then", what)

    @step
    def broken(value: int | None = None) -> None:
        note("broken")
        raise OSError("cannot tidy")

    @step
    def after_broken(value: Any = None) -> None:
        note("after broken")

    value = risky(n)
    aside = slow()
    with when(aside == 2):
        skipped = add.options(name="skipped")(1)
        another = add.options(name="skipped too")(2)
    with otherwise():
        taken = same.options(name="taken")(value)
    with cleanup():
        then(tidy(value, either(skipped, another)))
        after_broken.options(after=["broken"])()
        broken(value)
    return {"value": value, "taken": either(skipped, taken)}


@flow
def tidied_items(same: Any, risky: Any) -> Any:
    """A loop and branches in the clean-up; one item fails, and one condition raises."""
    five = risky.options(name="five")(5)
    with cleanup():
        risky.options(name="drop").map(n=[1, -2, 3])
        with when(same.options(name="what")(1) == 1, name="one"):
            same.options(name="in the branch")(1)
        with otherwise(name="not one"):
            same.options(name="in the other branch")(1)
        with when(same.options(name="text")("text") > 3, name="undecided"):
            same.options(name="behind it")(1)
    return {"five": five}


def tidied_late(folder: str, timeout: float | None = None) -> Pipeline:
    """A step that shows for up to two minutes that it is running, and clean-up after it."""
    note, *_ = parts(folder)

    @step
    def beat() -> int:
        for _ in range(1200):
            with (Path(folder) / "beats").open("a") as file:
                file.write("x")
            time.sleep(0.1)
        return 1

    @step
    def tidy(value: int | None = None) -> None:
        note("tidied", value)

    @pipeline(name="conformance tidied late", timeout=timeout)
    def made() -> Any:
        value = beat()
        with cleanup():
            tidy(value)
        return value

    return made
