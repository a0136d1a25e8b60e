"""What type checkers see of a step: its signature where it is called, by hand and in a pipeline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# What follows `# error:` is the kind of mypy's complaint about that line. No other line may have one.
CODE = """
from typing import Any, assert_type

from flowyml import Pipeline, cleanup, either, elif_, for_each, gather, is_in, not_, otherwise, pipeline, step, when
from flowyml.authoring.steps import Step


@step
def load(rows: int) -> list[int]:
    return list(range(rows))


@step(outputs=["total"], retry=2)
def add(numbers: list[int], scale: float = 1.0) -> float:
    return sum(numbers) * scale


@step
async def fetch(url: str) -> list[int]:
    return [len(url)]


@step(timeout=5)
async def store(total: float) -> None: ...


assert_type(add, Step[[list[int], float], float])  # error: assert-type (the names of the parameters are kept too)
assert_type(load(3), list[int])
assert_type(add([1], scale=2.0), float)
assert_type(add.options(name="again")([1]), float)
load("three")  # error: arg-type
add([1], scle=2.0)  # error: call-arg


async def by_hand() -> None:
    numbers: list[int] = await fetch("x")
    await store(add(numbers))
    await fetch(5)  # error: call-overload


@pipeline
def training(rows: int = 3) -> dict[str, Any]:
    total = add(load(rows))
    assert_type(total, float)
    store(add(fetch("x")))
    add(total)  # error: arg-type
    return {"total": total}


@pipeline(name="other", timeout=60)
def other() -> Any:
    return fetch("x")


@step
def nothing(x: int) -> None: ...


@pipeline
def flowing(counts: list[int], urls: list[str]) -> Any:
    assert_type(load.map(rows=counts), list[list[int]])
    scores = add.partial(scale=2.0).map(numbers=load.map(rows=[1, 2]))
    assert_type(scores, list[float])
    add(scores)  # error: arg-type
    assert_type(fetch.map(url=urls), list[list[int]])
    assert_type(fetch.partial(x=1).map(url=urls), list[list[int]])
    nothing.map(x=counts)
    add(either(load(1), load(2)))
    either(load(1), load(2)).append("three")  # error: arg-type
    assert_type(load.options(max_parallel=2).map(rows=counts), list[list[int]])
    store(add.partial(scale=1.0).map(numbers=load.map(rows=counts)))  # error: call-overload
    with for_each(load(3)) as rows:
        assert_type(rows, int)
        load(rows)
        fetch(rows)  # error: call-overload
        loaded = load(rows)
    assert_type(gather(loaded), list[list[int]])
    load.map(rows=gather(loaded))
    nothing(gather(loaded))  # error: arg-type
    total = add([1])
    with when(total > "much"):  # error: operator
        fetch("z")
    with when((total > 0.5) & not_(is_in(total, [1.0]))):
        one = add([2])
    with elif_(total > 0.1):
        two = add([3])
    with otherwise():
        nothing(1)
    assert_type(either(one, two), float)
    load(either(one, two))  # error: arg-type
    with cleanup():
        nothing(1)


assert_type(training, Pipeline)
assert_type(other, Pipeline)
training(rows=3)
"""


pytest.importorskip("mypy")  # the oldest releases are tested without the tools


@pytest.mark.slow  # mypy reads pydantic, and more
def test_a_step_keeps_its_signature_and_async_ones_can_be_wired(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}",
         "--no-error-summary", "--hide-error-context", "--no-pretty", "typed.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {
        (int(place), line.rpartition("[")[2].rstrip("]"))
        for line in done.stdout.splitlines()
        for place, kind in [line.split(":")[1:3]]
        if kind.strip() == "error"
    }
    expected = {
        (number, line.partition("# error: ")[2].partition(" ")[0])
        for number, line in enumerate(CODE.splitlines(), 1)
        if "# error: " in line
    }
    assert found == expected, done.stdout + done.stderr
