"""One attempt of a step in this process: outputs by name, hooks around it, coroutines awaited."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest

from flowyml.core.errors import OutputError, StepError
from flowyml.plan.model import Step
from flowyml.runtime.execution import named_outputs, run_step

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Pair(NamedTuple):
    first: int
    second: int


def step(*outputs: str) -> Step:
    return Step(name="s", function="m:f", outputs=outputs)


@pytest.mark.parametrize(
    ("outputs", "returned", "expected"),
    [
        ((), "dropped", {}),
        (("a",), None, {"a": None}),
        (("a",), (1, 2), {"a": (1, 2)}),
        (("a",), {"a": 1}, {"a": {"a": 1}}),
        (("a", "b"), (1, 2), {"a": 1, "b": 2}),
        (("a", "b"), [1, 2], {"a": 1, "b": 2}),
        (("a", "b"), Pair(1, 2), {"a": 1, "b": 2}),
        (("a", "b"), {"b": 2, "a": 1}, {"a": 1, "b": 2}),
    ],
)
def test_outputs_by_name(outputs: tuple[str, ...], returned: Any, expected: dict[str, Any]) -> None:
    named = named_outputs(step(*outputs), returned)
    assert list(named.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (None, "None"),
        (5, "one int"),
        ("ab", "one str"),
        ((1,), "a tuple of 1"),
        ([1, 2, 3], "a list of 3"),
        ({}, "a dict with the keys (none)"),
        ({"a": 1, "c": 2}, "a dict with the keys 'a', 'c'"),
        (dict.fromkeys(range(1000)), "a dict with the keys 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 …"),
    ],
)
def test_a_wrong_number_of_outputs(returned: Any, came: str) -> None:
    with pytest.raises(OutputError) as caught:
        named_outputs(step("a", "b"), returned)
    assert caught.value.step == "s"
    assert str(caught.value) == (
        f"step 's' declares 2 outputs ('a', 'b') and returned {came}. Return a tuple of 2, or a dict with those keys."
    )


@pytest.mark.parametrize("code", [0, 3, "enough", None])
def test_sys_exit_is_a_failed_step(code: Any) -> None:
    def leave() -> None:
        raise SystemExit(code)

    with pytest.raises(StepError, match=r"step 's' called sys\.exit\(") as caught:
        run_step(step(), leave, {})
    assert caught.value.step == "s"
    assert isinstance(caught.value.__cause__, SystemExit)


async def later(value: int) -> tuple[int, str, int]:
    await asyncio.sleep(0.001)
    return value, variable.get(), threading.get_ident()


def test_a_coroutine_is_awaited_in_this_thread() -> None:
    token = variable.set("mine")
    try:
        value, seen, thread = run_step(step("x"), later, {"value": 3})["x"]
    finally:
        variable.reset(token)
    assert (value, seen, thread) == (3, "mine", threading.get_ident())


async def numbers_later() -> AsyncIterator[int]:
    yield 1


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("outputs", "function", "kind"),
    [
        (("x",), numbers, "a generator"),
        (("x",), numbers_later, "an async generator"),
        ((), numbers, "a generator"),
        (("x", "y"), lambda: (1, numbers()), "a generator"),
    ],
)
def test_a_generator_is_refused_as_an_output(outputs: tuple[str, ...], function: Callable[[], Any], kind: str) -> None:
    message = f"step 's' returned {kind}. Collect what it yields in a list, and return that."
    with pytest.raises(OutputError, match=re.escape(message)):
        run_step(step(*outputs), function, {})


def test_inside_a_running_loop_it_is_awaited_in_another_thread() -> None:
    """As in a notebook, whose cells run inside a loop."""

    async def cell() -> Any:
        variable.set("of the cell")
        return run_step(step("x"), later, {"value": 3})["x"]

    value, seen, thread = asyncio.run(cell())
    assert (value, seen) == (3, "of the cell")
    assert thread != threading.get_ident()
