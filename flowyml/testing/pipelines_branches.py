"""Sample pipelines with branches. Each is defined inside a function, so that its steps are pickled by value."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from flowyml import (
    Pipeline,
    all_of,
    any_of,
    either,
    elif_,
    for_each,
    is_in,
    not_,
    otherwise,
    pipeline,
    step,
    when,
)
from flowyml.testing.pipelines_parts import flow, wait_for

__all__ = [
    "CONDITIONS", "beside", "choices", "conditions", "joins", "mixed", "taken_fails", "undecided",
    "undecided_items",
]  # fmt: skip

CONDITIONS = {
    "equal": True, "not equal": False, "less": False, "at most": True, "more": True, "at least": True,
    "two outputs": True, "output and parameter": True, "two parameters": False, "text": True,
    "and": False, "or": True, "not": False, "nested": True, "in": True, "not in": False, "in output": True,
    "all of": True, "any of": True, "not_": True, "true output": True, "false output": False, "zero": False,
    "empty list": False, "some text": True, "none": False, "none is none": True, "boolean parameter": True,
    "date parameter": True, "date and parameter": True, "date among": True, "times of two zones": True,
}  # fmt: skip
"""The result of each condition of the pipeline ``conditions``, for ``low=2``."""


@flow
def choices(add: Any, same: Any) -> Any:
    """Three chains of branches, each taking another branch; and branches in branches."""

    def named(name: str) -> Any:
        return same.options(name=name)

    def chain(n: int) -> Any:
        found = add.options(name=f"found {n}")(n)
        with when(found < 3, name=f"{n} is low"):
            low = named(f"low {n}")("low")
        with elif_(found < 10, name=f"{n} is middling"):
            middle = named(f"middle {n}")("middle")
        with otherwise(name=f"{n} is high"):
            high = named(f"high {n}")("high")
        return named(f"taken {n}")(either(low, middle, high))

    def nested(n: int) -> Any:
        found = add.options(name=f"number {n}")(n)
        with when(found > 1, name=f"{n} over 1"):
            with when(found > 3, name=f"{n} over 3"):
                big = named(f"big {n}")("big")
            with otherwise(name=f"{n} up to 3"):
                mid = named(f"mid {n}")("mid")
            upper = named(f"upper {n}")(either(big, mid))
        with otherwise(name=f"{n} up to 1"):
            small = named(f"small {n}")("small")
        return named(f"word {n}")(either(upper, small))

    return {f"taken {n}": chain(n) for n in (1, 5, 50)} | {f"word {n}": nested(n) for n in (1, 2, 5)}


@flow
def conditions(
    add: Any, numbers: Any, same: Any, low: int = 1, high: int = 3, on: bool = True, word: str = "a",
    day: date = date(2026, 3, 1), begin: datetime = datetime(2026, 3, 1, 9, tzinfo=UTC),
    end: datetime = datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=1))),
) -> None:  # fmt: skip
    """One branch for each condition of ``CONDITIONS``.

    A run passes ``low``; the step in the branch writes that it ran.
    """

    @step
    def value(value: Any) -> Any:
        return value

    @step
    def first_of_march() -> date:
        return date(2026, 3, 1)

    three, four = add.options(name="three")(3), add.options(name="four")(4)
    yes, no = (value.options(name=str(truth))(truth) for truth in (True, False))
    nothing = value.options(name="[]")([])
    text = value.options(name="b")("b")
    none = value.options(name="None")(None)
    zero = value.options(name="0")(0)
    march = first_of_march()
    made = {
        "equal": three == 3,
        "not equal": three != 3,
        "less": three < 3,
        "at most": three <= 3,
        "more": three > 2,
        "at least": three >= 3,
        "two outputs": three < four,
        "output and parameter": three > low,
        "two parameters": low > high,
        "text": text > word,
        "and": (three > 1) & (three < 3),
        "or": (three < 1) | (three >= 3),
        "not": ~(three > 1),
        "nested": ((three > 5) | (four == 4)) & ~(low == high),
        "in": is_in(three, [1, 2, 3]),
        "not in": is_in(text, ["a", "c"]),
        "in output": is_in(low, numbers(3)),
        "all of": all_of(yes, three == 3, on),
        "any of": any_of(no, three == 4, text == "b"),
        "not_": not_(no),
        "true output": yes,
        "false output": no,
        "zero": zero,
        "empty list": nothing,
        "some text": text,
        "none": none,
        "none is none": none == None,  # noqa: E711  # a condition on a value that a run makes
        "boolean parameter": on,
        "date parameter": day > date(2026, 2, 28),
        "date and parameter": march == day,
        "date among": is_in(march, [date(2026, 2, 1), date(2026, 3, 1)]),
        "times of two zones": end < begin,
    }  # fmt: skip
    for name, condition in made.items():
        with when(condition, name=f"if {name}"):
            same.options(name=name)(name)


@flow
def joins(add: Any, same: Any) -> Any:
    """Steps after branches, and the consequences of a skip."""

    def named(name: str) -> Any:
        return same.options(name=name)

    five = add.options(name="five")(5)
    with when(five > 1, name="taken"):
        none = named("gives none")(None)
        zero = named("gives zero")(0)
        named("alone")(1)
    with otherwise(name="untaken"):
        one = named("gives one")(1)
        two = named(
            "then two",
        )(one)
    with when(five > 9, name="never"):
        never = named("never")(1)
    with when(five > 99, name="never too"):
        too = named("never too")(2)
    nothing = either(never, too)
    named("after nothing")(nothing)
    named("after that")(named("takes nothing")(nothing))
    named("follows a skipped step").options(after=["then two"])(0)
    named("follows one that ran").options(after=["alone"])(0)
    return {
        "none": named("none joined")(either(none, one)),
        "zero": named("zero joined")(either(two, zero)),
        "of three": named("three joined")(either(never, too, zero)),
        "both": named("both given")([either(none, one), either(zero, two), five]),
        "of nothing": nothing,
        "first of both": named("first of both")([either(zero, none), either(none, zero)]),
        "five": five,
    }


@flow
def undecided(add: Any, same: Any) -> Any:
    """A condition that raises, and something beside it."""
    with when(same.options(name="text")("text") > 3, name="large"):
        a = same.options(name="then")(1)
    with otherwise():
        b = same.options(name="else")(2)
    same.options(name="joined")(either(a, b))
    same.options(name="beside")(add(1, 2))


@flow
def undecided_items(same: Any) -> Any:
    """Items that may fail, one of which makes a condition raise."""
    with for_each([1, "a", 3], name="items", on_item_error="continue") as item:
        value = same.options(name="value")(item)
        with when(value > 2, name="large"):
            a = same.options(name="then")("large")
        with otherwise():
            b = same.options(name="else")("small")
        word = same.options(name="word")(either(a, b))
    return {"words": same.options(name="words")(word)}


@flow
def taken_fails(add: Any, same: Any, risky: Any) -> Any:
    """A step of the taken branch fails, and a step that only the condition after that branch needs."""
    with when(add(1) == 1):
        a = risky(-1)
    with otherwise():
        b = same.options(name="untaken")(2)
    same.options(name="joined")(either(a, b))
    lost = risky.options(name="lost")(-1)
    with when(add.options(name="known")(1) == 1, name="decided"):
        c = same.options(name="first")(3)
    with elif_(lost > 0, name="undecidable"):
        d = same.options(name="second")(4)
    same.options(name="joined first")(either(c, d))
    with when(add.options(name="one")(1) == 1, name="taken too"):
        e = risky.options(name="fails")(-2)
    with when(add.options(name="two")(1) == 1, name="taken beside it"):
        f = same.options(name="runs")(5)
    same.options(name="joined neighbours")(either(e, f))


def beside(folder: str, patience: float = 60) -> Pipeline:
    """A branch and a loop wait for steps that wait for a step beside them, and that step waits for theirs."""
    wait_aside, wait_slow = wait_for(folder, "beside", patience), wait_for(folder, "slow", patience)

    @step
    def slow(n: int) -> int:
        (Path(folder) / "slow").touch()
        wait_aside()
        return n

    @step
    def aside() -> int:
        (Path(folder) / "beside").touch()
        wait_slow()
        return 1

    @pipeline(name="conformance beside")
    def made() -> Any:
        with when(slow(1) == 1):
            branch = slow.options(name="in branch")(2)
        with otherwise():
            other = slow.options(name="otherwise")(3)
        return {
            "branch": either(branch, other),
            "items": slow.options(name="item").map(n=[1]),
            "aside": aside(),
        }  # fmt: skip

    return made


@flow
def mixed(numbers: Any, double: Any, add: Any, total: Any, same: Any, limit: int = 1) -> Any:
    def named(name: str) -> Any:
        return same.options(name=name)

    with for_each(numbers(4), name="items") as n:
        found = add.options(name="found")(n)
        with when(found > limit, name="above"):
            with when(found > 2, name="far above"):
                far = named("far")("far")
            with otherwise(name="just above"):
                near = named("near")("near")
            above = named("above")(either(far, near))
        with otherwise(name="below"):
            below = named("below")("below")
        word = named("word")(either(above, below))
        with when(found == 1, name="one"):
            one = named("is one")(n)
        with when(found == 2, name="two"):
            two = named("is two")(n)
        with when(found > 10, name="ten"):
            ten = named("is ten")(n)
        with when(found > 20, name="twenty"):
            twenty = named("is twenty")(n)
        some = named("some")(either(one, two))
        none = named("no item")(either(ten, twenty))
    five = add.options(name="five")(5)
    with when(five > limit, name="taken"):
        doubled = double.options(name="in the taken").map(n=numbers.options(name="two numbers")(2))
        taken = named("list of the taken")(doubled)
        inside = total.options(name="inside")(doubled)
        with for_each([1, 2], name="in taken") as m, when(add.options(name="m")(m) == 2, name="m is 2"):
            named("m is two")(m)
    with otherwise(name="untaken"):
        tripled = double.options(name="in the untaken").map(n=numbers.options(name="three numbers")(3))
        untaken = named("list of the untaken")(tripled)
    return {
        "words": named("words")(word),
        "some": named("list of some")(some),
        "none": named("list of none")(none),
        "taken": named("list of a branch")(either(taken, untaken)),
        "inside": either(inside, untaken),
    }
