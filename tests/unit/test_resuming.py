"""What stays of a run that goes on in another process of its engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.orchestrators.resuming import Ended, before
from flowyml.plan.groups import Loop
from flowyml.plan.model import Constant, FromItem, FromStep, Input, Plan, Step
from flowyml.runtime.decider import End
from flowyml.runtime.kept_outputs import KeptOutputs

PLAN = Plan(
    name="p",
    steps=(
        Step(name="first", function="m:f", outputs=("x",)),
        Step(
            name="each", function="m:f", outputs=("y",), group="loop",
            inputs=(Input("n", FromItem("loop", "n")), Input("x", FromStep("first", "x"))),
        ),
        Step(name="last", function="m:f", inputs=(Input("ys", FromStep("each", "y")),)),
    ),
    groups=(Loop(name="loop", over=(Input("n", Constant([1, 2])),)),),
)  # fmt: skip
ENDED = [
    Ended("first", (), "COMPLETED", "completed", 1), Ended("each", (0,), "COMPLETED", "completed", 2),
    Ended("each", (1,), "FAILED", "failed", 1), Ended("last", (), "CANCELLED", "cancelled", 0),
]  # fmt: skip


def over_a_list(*steps: Step) -> Plan:
    """A loop over what the step ``many`` gives, and these steps."""
    many = Step(name="many", function="m:f", outputs=("xs",))
    item = (Input("n", FromItem("loop", "n")),)
    each = Step(name="each", function="m:f", outputs=("y",), group="loop", inputs=item)
    loop = Loop(name="loop", over=(Input("n", FromStep("many", "xs")),))
    return Plan(name="p", steps=(many, each, *steps), groups=(loop,))


def test_what_completed_stays_and_what_was_not_kept_or_asked_for_does_not(tmp_path: Path) -> None:
    kept = KeptOutputs(str(tmp_path), "prefect/p/run")
    assert kept.read("first") is None
    kept.keep("each[0]", {"y": {"$artifact": "…"}})
    assert before(PLAN, ENDED, kept, None).instances["first", ()][0].end is None
    kept.keep("first", {"x": 1})
    found = before(PLAN, ENDED, kept, None)
    ends = {instance: (ended.end, ended.attempt, values) for instance, (ended, values) in found.instances.items()}
    assert ends == {
        ("first", ()): (End.OK, 1, {"x": 1}), ("each", (0,)): (End.OK, 2, {"y": {"$artifact": "…"}}),
        ("each", (1,)): (None, 1, {}), ("last", ()): (None, 0, {}),
    }  # fmt: skip
    assert not found.loops, "one of its items is to come"
    chosen = before(PLAN, ENDED, kept, ["each[0]"])
    assert {instance: ended.end for instance, (ended, _) in chosen.instances.items()} == {
        ("first", ()): End.OK, ("each", (0,)): None, ("each", (1,)): End.FAILED, ("last", ()): None,
    }  # fmt: skip


def test_what_was_made_of_an_older_value_is_to_come(tmp_path: Path) -> None:
    """Another try made the list anew and failed before its items ran."""
    listed = over_a_list(
        Step(name="count", function="m:f", outputs=("z",), inputs=(Input("xs", FromStep("many", "xs")),)),
        Step(name="beside", function="m:f", outputs=("z",)),
    )
    done = [
        Ended("many", (), "COMPLETED", "completed", 1, began=1),
        Ended("beside", (), "COMPLETED", "completed", 1, began=1),
        Ended("each", (0,), "COMPLETED", "completed", 1, began=5),
        Ended("each", (1,), "FAILED", "failed", 1, began=5), Ended("count", (), "COMPLETED", "completed", 1, began=6),
        Ended("many", (), "COMPLETED", "completed", 1, began=20),
    ]  # fmt: skip
    kept = KeptOutputs(str(tmp_path), "prefect/p/run")
    kept.keep("many", {"xs": [1, 2, 3]})
    for name in ("each[0]", "count", "beside"):
        kept.keep(name, {"y": 1, "z": 1})
    found = before(listed, done, kept, None)
    ends = {instance: (ended.end, ended.attempt) for instance, (ended, _) in found.instances.items()}
    assert ends == {("many", ()): (End.OK, 2), ("count", ()): (None, 1), ("beside", ()): (End.OK, 1)}
    assert not found.loops


def test_what_ran_after_a_step_that_could_not_stays(tmp_path: Path) -> None:
    """The record of a step that never ran may be newer than that of what its end let run."""
    handled = Plan(
        name="p",
        steps=(
            Step(name="bad", function="m:f", outputs=("x",)),
            Step(name="held", function="m:f", outputs=("y",), inputs=(Input("x", FromStep("bad", "x")),)),
            Step(name="handler", function="m:f", outputs=("z",), run_if="all_done", after=("held",)),
        ),
    )
    done = [
        Ended("bad", (), "FAILED", "failed", 1, began=1), Ended("held", (), "CANCELLED", "cancelled", 0, began=4),
        Ended("handler", (), "COMPLETED", "completed", 1, began=3),
    ]  # fmt: skip
    kept = KeptOutputs(str(tmp_path), "prefect/p/run")
    kept.keep("handler", {"z": 1})
    assert before(handled, done, kept, None).instances["handler", ()][0].end is End.OK


@pytest.mark.parametrize("again", ["FAILED", "COMPLETED"])
def test_what_handled_a_failure_stays_whatever_becomes_of_that_in_another_try(tmp_path: Path, again: str) -> None:
    handled = Plan(
        name="p",
        steps=(
            Step(name="bad", function="m:f", outputs=("x",)),
            Step(
                name="handler", function="m:f", outputs=("z",), run_if="all_done",
                inputs=(Input("x", FromStep("bad", "x")),),
            ),
            Step(name="other", function="m:f"),
        ),
    )  # fmt: skip
    done = [
        Ended("bad", (), "FAILED", "failed", 1, began=1), Ended("other", (), "FAILED", "failed", 1, began=1),
        Ended("handler", (), "COMPLETED", "completed", 1, began=3),
        Ended("bad", (), again, again.lower(), 1, began=20), Ended("other", (), "FAILED", "failed", 2, began=20),
    ]  # fmt: skip
    kept = KeptOutputs(str(tmp_path), "prefect/p/run")
    kept.keep("bad", {"x": 1})
    kept.keep("handler", {"z": 1})
    instances = before(handled, done, kept, None).instances
    assert instances["handler", ()][0].end is End.OK
    assert (instances["other", ()][0].end, instances["other", ()][0].attempt) == (None, 3)


def test_items_of_a_list_that_was_empty_before_are_made_anew(tmp_path: Path) -> None:
    listed = over_a_list(
        Step(name="last", function="m:f", outputs=("z",), inputs=(Input("ys", FromStep("each", "y")),)),
    )
    done = [
        Ended("many", (), "COMPLETED", "completed", 1, began=1), Ended("each", (), "COMPLETED", "no_items", 0, began=2),
        Ended("last", (), "COMPLETED", "completed", 1, began=3),
        Ended("many", (), "COMPLETED", "completed", 1, began=20),
        Ended("each", (0,), "COMPLETED", "completed", 1, began=21),
    ]  # fmt: skip
    kept = KeptOutputs(str(tmp_path), "prefect/p/run")
    for name in ("many", "each[0]", "last"):
        kept.keep(name, {"xs": [1], "y": 1, "z": 1})
    ends = {instance: ended.end for instance, (ended, _) in before(listed, done, kept, None).instances.items()}
    assert ends == {("many", ()): End.OK, ("each", (0,)): End.OK, ("last", ()): None}
