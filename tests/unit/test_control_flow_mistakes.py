"""Mistakes are named, with their line, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, any_of, cleanup, either, for_each, gather, is_in, otherwise, pipeline, step, when
from flowyml.core.errors import CycleError, DefinitionError
from tests.unit.control_flow import add, double, numbers, same, total


def loop_outside() -> Any:
    with for_each([1, 2]) as n:
        add(n)
    return add(n)


def branch_outside() -> Any:
    with when(add(1) > 1):
        a = add(2)
    return same(a)


def own_output() -> Any:
    with when(add(1) > 1):
        return add(2)


def otherwise_alone() -> Any:
    add(1)
    with otherwise():
        add(2)


def otherwise_after_a_step() -> Any:
    with when(add(1) > 0):
        add(2)
    add(3)
    with otherwise():
        add(4)


def three_loops() -> Any:
    with for_each([1]) as a, for_each([1]) as b, for_each([1]) as c:
        add(a, add(b, c))


def no_default() -> Any:
    double.options(run_if="all_done")(add(1))


def cleanup_without_default() -> Any:
    with cleanup():
        double(add(1))


def after_cleanup() -> Any:
    with cleanup():
        a = add(1)
    return same(a)


def python_if() -> Any:
    return add(1) if add(1) > 3 else add(2)


def known_condition() -> Any:
    with when(3 > 2):
        add(1)


def no_list() -> Any:
    return double.map(n=3)


def unequal() -> Any:
    return add.map(a=[1, 2], b=[1])


def either_in_loop() -> Any:
    with for_each([1, 2]) as n:
        with when(add(n) > 1):
            a = add(1)
        with otherwise():
            b = add(2)
    return same(either(a, b))


def one_either() -> Any:
    return either(add(1))


def nothing_mapped() -> Any:
    return double.partial(n=1).map()


def mapped_by_position() -> Any:
    return double.map([1])


def option_mapped() -> Any:
    return double.map(n=[1], on_item_error="continue")


def mapped_by_another_name() -> Any:
    return double.map(m=[1])


def fixed_by_another_name() -> Any:
    return add.partial(c=1).map(a=[1])


def fixed_to_a_text() -> Any:
    return add.partial(b="1").map(a=[1])


def fixed_to_a_parameter(text: str = "") -> Any:
    return add.partial(b=text).map(a=[1])


def gathered_within() -> Any:
    with for_each([1]) as n:
        return total(gather(add(n)))


def gathered_item() -> Any:
    with for_each([1]) as n:
        add(n)
    return total(gather(n))


def fixed_and_mapped() -> Any:
    return add.partial(a=1).map(a=[1])


def over_a_parameter(count: int = 3) -> Any:
    return double.map(n=count)


def over_an_output() -> Any:
    with for_each(total(numbers(3))) as n:  # type: ignore[arg-type]  # the mistake
        double(n)


@pipeline(name="tidies")
def with_cleanup(n: int = 1) -> Any:
    a = add(n)
    with cleanup():
        double.options(name="tidy")(2)
    return a


def cleanup_in_branch() -> None:
    with when(add(1) > 1), cleanup():
        add(2)


def cleanup_in_loop() -> None:
    with for_each([1]) as n, cleanup():
        add(n)


def cleanup_in_cleanup() -> None:
    with cleanup(), cleanup():
        add(1)


def cleanup_in_called() -> Any:
    return with_cleanup(2)


def cleanup_called_in_branch() -> None:
    with when(add(1) > 1):
        with_cleanup(2)


def cleanup_returned() -> Any:
    with cleanup():
        return add(1)


def cleanup_decides() -> None:
    with cleanup():
        a = add(1)
    with when(a > 1):
        add(2)


def cleanup_lists() -> None:
    with cleanup():
        items = numbers(1)
    double.map(n=items)


def cleanup_joined() -> None:
    with cleanup():
        a = add(1)
    same(either(a, add(2)))


def cleanup_before() -> None:
    with cleanup():
        add.options(name="tidy")(1)
    add.options(name="later", after=["tidy"])(1)


_CALLED = "Pipeline 'tidies' has cleanup\\(\\), which runs when a whole run has ended, so no other pipeline can call it"
_LAST = r"is in cleanup\(\), which runs after all steps outside it"


def not_entered() -> None:
    when(total(numbers(3)) > 1)
    total([1])


def iterated() -> None:
    for n in for_each([1]):  # type: ignore[attr-defined]  # the mistake
        double(n)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (loop_outside, "is the item of 'each item': it is known only within that loop"),
        (branch_outside, r"comes from step 'add_2' in branch 'add > 1', which may not be taken\. Join the branches"),
        (own_output, "returns 'add_2', which comes from step 'add_2' in branch"),
        (otherwise_alone, r"otherwise\(\) has no when\(…\) right before it in the same block"),
        (otherwise_after_a_step, r"otherwise\(\) has no when\(…\) right before it"),
        (three_loops, "Loops can be nested only two deep"),
        (no_default, "step 'double' may run without 'n', since run_if='all_done': give it a default, n=None"),
        (cleanup_without_default, "step 'double' may run without 'n', since it cleans up"),
        (after_cleanup, r"is in cleanup\(\), which runs after all steps outside it"),
        (python_if, r"add > 3 has no value while the pipeline is compiled\. Branch by `with when\(add > 3\):`"),
        (known_condition, "True is known before the pipeline runs: use a plain `if`"),
        (option_mapped, r"on_item_error is an option: double\.options\(on_item_error=…\)\.map\(…\)"),
        (mapped_by_another_name, r"step 'double' has no parameter 'm'\. It takes \(n: "),
        (fixed_by_another_name, r"step 'add' has no parameter 'c'\. It takes \(a: "),
        (fixed_to_a_text, r"step 'add' takes 'b' as int, and it is given '1' \(str\)"),
        (fixed_to_a_parameter, "step 'add' takes 'b' as int, and parameter 'text' is str"),
        (gathered_within, "step 'add' is in no loop that has ended here"),
        (gathered_item, "gather takes an output of a step in a loop, not"),
        (no_list, r"map\(n=…\) takes an output of a step, a parameter or a list of plain JSON, dates, paths, .* not 3"),
        (unequal, "must be equally long: 'a' has 2, 'b' has 1"),
        (either_in_loop, r"is either of outputs in a loop: call either\(…\) within the loop"),
        (one_either, "either takes two or more outputs of steps"),
        (nothing_mapped, r"map\(…\) takes lists by the names of its parameters: map\("),
        (mapped_by_position, r"step 'double': map\(…\) takes lists by the names of its parameters: map\(n=…\)\."),
        (fixed_and_mapped, "'a' is both fixed and mapped"),
        (over_a_parameter, r"'double' goes over 'n', parameter 'count', which is of type int\."),
        (over_an_output, r"goes over the output of step 'total', which is of type int\. .*list\[…\]"),
        (cleanup_in_branch, r"cleanup\(\) cannot be in another block"),
        (cleanup_in_loop, r"cleanup\(\) cannot be in another block"),
        (cleanup_in_cleanup, r"cleanup\(\) cannot be in another block"),
        (cleanup_in_called, _CALLED),
        (cleanup_called_in_branch, _CALLED),
        (cleanup_returned, f"Pipeline 'wrong' returns 'add', which {_LAST}"),
        (cleanup_decides, f"'add > 1' depends on a value that {_LAST}"),
        (cleanup_lists, f"'double' depends on a value that {_LAST}"),
        (cleanup_joined, f"step 'same' takes '.*', which {_LAST}"),
        (cleanup_before, f"step 'later' comes after 'tidy', which {_LAST}"),
        (not_entered, r"when\(…\) begins a block: write `with when\(…\):` .*line \d+"),
        (iterated, r"for_each\(…\) begins a block: write `with for_each\(…\) as item:` .*line \d+"),
    ],
)
def test_mistakes_are_named(body: Callable[[], Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as seen:
        pipeline(name="wrong")(body).compile()
    assert "test_control_flow_mistakes.py, line" in str(seen.value)


def test_a_list_by_name_is_mapped_over_a_parameter_of_the_step() -> None:
    with pytest.raises(DefinitionError, match=r"step 'add' has no parameter 'aa'.* Did you mean 'a'"):
        Pipeline("names", context={"items": [1]}).add_step(add.map(aa="items"))


def test_a_text_and_none_may_do_for_what_a_step_takes() -> None:
    @step
    def read(path: Path, limit: int = None, day: int = 1) -> str:  # type: ignore[assignment]  # noqa: RUF013
        return f"{path} {limit} {day}"

    @pipeline
    def reading(folder: str = "data") -> Any:
        read("rows", None)  # type: ignore[arg-type]
        return read.partial(path="rows", limit=None).map(day=[1]), read(folder)  # type: ignore[arg-type]

    reading.compile()


def test_a_long_condition_makes_no_long_name() -> None:
    @pipeline(name="long condition")
    def made() -> Any:
        count = total(numbers(3))
        with when(is_in(count, list(range(2000)))):
            double(count)
        with when(any_of(*(count == n for n in range(200)))):
            double(count)

    first, second = (group.name for group in made.compile().groups)
    assert first.startswith("total in [0, 1, 2, ")
    assert first.endswith("…")
    assert len(first) < 80
    assert len(second) == 200


def test_names_of_rules_and_limits() -> None:
    for bad, message in (
        ({"run_if": "sometimes"}, "run_if='sometimes' must be one of all_success"),
        ({"max_parallel": 0}, "max_parallel=0 must be a number of items"),
        ({"on_item_error": "ignore"}, "on_item_error='ignore' must be 'fail' or 'continue'"),
    ):
        with pytest.raises(DefinitionError, match=message):
            step(**bad)(lambda: 1)


def test_outside_of_a_pipeline() -> None:
    for call in (lambda: when(True), lambda: cleanup(), lambda: either(1, 2)):
        with pytest.raises(DefinitionError):
            call()


def test_a_pipeline_that_calls_itself() -> None:
    @pipeline
    def endless() -> Any:
        return endless()

    with pytest.raises(DefinitionError, match="calls itself"):
        endless.compile()


def test_a_loop_over_what_waits_for_it() -> None:
    @pipeline
    def circle() -> Any:
        return double.options(after=["last"]).map(n=[1]), same.options(name="last", after=["double"])(1)

    with pytest.raises(CycleError):
        circle.compile()
