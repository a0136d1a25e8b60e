"""Sample pipelines with loops. Each is defined inside a function, so that its steps are pickled by value."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Any

from flowyml import Pipeline, for_each, pipeline, step, when
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.testing.pipelines import journal
from flowyml.testing.pipelines_parts import flow, parts, wait_for

__all__ = [
    "blocks", "continuing", "failing_items", "flaky_items", "hooked_items", "item_by_item", "large_items", "limited",
    "maps", "no_list", "no_list_of_what_may_fail", "rows", "rows_without_list", "slow_items", "unequal",
]  # fmt: skip


@flow
def maps(
    numbers: Any,
    double: Any,
    add: Any,
    total: Any,
    same: Any,
    given: list[int] = [5, 6],
    days: list[date] = [date(2026, 1, 31), date(2026, 2, 1)],
) -> Any:
    """A step for each item of lists of all kinds."""

    @step
    def late(n: int) -> int:
        """The first items take the longest."""
        time.sleep(0.2 * n)
        return n

    @step
    def where(n: int) -> list[int]:
        from flowyml import current_run

        print(f"at {n}")
        return [n, *current_run().index]

    @step(outputs=["low", "high"])
    def bounds(n: int) -> tuple[int, int]:
        return n - 1, n + 1

    @step
    def weekday(day: date) -> str:
        return f"{day:%A}"

    @step
    def spoil(row: list[int], shared: list[list[int]]) -> int:
        row.append(9)
        shared.append(row)
        return len(shared)

    @step
    def table() -> list[list[int]]:
        return [[1], [2]]

    doubled = double.options(name="over output").map(n=numbers(3))
    nothing = double.options(name="over nothing").map(n=numbers.options(name="no numbers")(0))
    low, high = bounds.map(n=[10, 20])
    noted = same.options(name="noted").map(value=[1, 2, 3])
    same.options(name="after noted", after=["noted"])(0)
    tables = table()
    return {
        "output": doubled,
        "parameter": double.options(name="over parameter").map(n=given),
        "constant": add.options(name="over constant").partial(b=100).map(a=[1, 2]),
        "fixed": add.options(name="with fixed").partial(b=total.options(name="hundred")([60, 40])).map(a=[1, 2]),
        "zipped": add.options(name="zipped").map(a=doubled, b=[10, 20, 30]),
        "one": double.options(name="over one").map(n=[4]),
        "nothing": nothing,
        "total of nothing": total.options(name="total of nothing")(nothing),
        "late": same.options(name="in order")(late.map(n=[3, 2, 1, 0])),
        "empty values": same.options(name="empty values").map(value=[None, 0, "", False, []]),
        "twice": double.options(name="twice").map(n=doubled),
        "where": where.map(n=[7, 8, 9]),
        "low": total.options(name="total of low")(low),
        "high": high,
        "noted": noted,
        "weekdays": weekday.map(day=days),
        "spoiled": spoil.partial(shared=tables).map(row=tables),
        "unspoiled": same.options(name="unspoiled")(tables),
    }


@flow
def blocks(numbers: Any, double: Any, add: Any, total: Any, same: Any, names: list[str] = ["Austria", "Chile"]) -> Any:
    """Several steps for each item."""
    outside = total.options(name="outside")([60, 40])
    with for_each(names, name="names") as name:
        same.options(name="first")(name)
        second = same.options(name="second", after=["first"])(name)
    with for_each(numbers(3), name="numbers") as n:
        shifted = add.options(name="shifted")(double(n), outside)
    with for_each(numbers.options(name="none")(0), name="nothing") as none:
        never = double.options(name="never again")(double.options(name="never")(none))
    return {
        "names": same.options(name="list of names")(second),
        "shifted": shifted,
        "never": same.options(name="list of nothing")(never),
    }


@flow
def rows(numbers: Any, double: Any, add: Any, total: Any) -> Any:
    with for_each(numbers(3), name="outer") as n:
        with for_each(numbers.options(name="inner numbers")(n), name="inner") as m:
            both = add.options(name="both")(double(n), m)
        row = total.options(name="row")(both)
    return {"both": both, "row": total.options(name="total of rows")(row)}


@flow
def rows_without_list(double: Any, total: Any, same: Any) -> Any:
    """A loop in a loop whose items may fail; an item is not a list."""
    with for_each([[1], None, [3, 4]], name="rows", on_item_error="continue") as row:
        summed = total(double.map(n=row))
    return {"sums": same(summed)}


def item_by_item(folder: str, patience: float = 60) -> Pipeline:
    """The first step for the last item waits for the second step of the first one."""
    wait = wait_for(folder, "second of the first", patience)

    @step
    def first(n: int) -> int:
        if n == 1:
            wait()
        return n

    @step
    def second(n: int) -> int:
        if n == 0:
            (Path(folder) / "second of the first").touch()
        return n

    @pipeline(name="conformance item by item")
    def made() -> Any:
        with for_each([0, 1]) as n:
            return second(first(n))

    return made


@flow
def limited(note: Any, numbers: Any) -> Any:
    """Items that record their begin and end, two of which may run at a time; and steps of which one may."""

    def work(loop: str, step: str, n: int) -> int:
        note(loop, step, "begins", n)
        time.sleep(0.3)
        note(loop, step, "ends", n)
        return n

    @step(max_parallel=2)
    def mapped(n: int) -> int:
        return work("mapped", "mapped", n)

    @step
    def one(n: int) -> int:
        return work("block", "one", n)

    @step
    def two(n: int) -> int:
        return work("block", "two", n)

    with for_each([0, 1, 2], max_parallel=1) as n:
        block = two(one(n))
    return {"mapped": mapped.map(n=numbers(5)), "block": block}


@flow
def failing_items(add: Any, same: Any, risky: Any) -> Any:
    """One item of a map and of a block fails, and each has a consumer; another step runs beside them."""
    with for_each([1, -2, 3], name="items") as n:
        checked = same.options(name="checked")(risky(n))
    same.options(name="consumer")(checked)
    same.options(name="beside")(add(1, 2))


@flow
def continuing(numbers: Any, double: Any, same: Any, risky: Any) -> Any:
    """Items that fail and are left out."""

    def going_on(name: str) -> Any:
        return risky.options(name=name, on_item_error="continue")

    with for_each([1, -2, 3], name="items", on_item_error="continue") as n:
        checked = double(risky.options(name="first")(n))
    return {
        "some": same.options(name="some")(going_on("some fail").map(n=[7, -1, 9])),
        "all": same.options(name="all")(going_on("all fail").map(n=[-1, -2])),
        "none": same.options(name="none")(going_on("none fails").map(n=[5, 6])),
        "empty": same.options(name="empty")(going_on("nothing").map(n=numbers(0))),
        "block": same.options(name="block")(checked),
    }


@flow
def unequal(numbers: Any, add: Any, same: Any) -> Any:
    """Two lists of different lengths, which are only known in the run."""
    return same(add.map(a=numbers(3), b=numbers.options(name="two")(2)))


def no_list(folder: str) -> Pipeline:
    """A loop over a value that is not a list."""
    _, _, double, _, _, same, _ = parts(folder)

    @step
    def text() -> Any:
        return "text"

    @pipeline(name="conformance not a list")
    def made() -> Any:
        return same(double.map(n=text()))

    return made


@flow
def no_list_of_what_may_fail(risky: Any) -> Any:
    """A loop over None, whose items may fail and for which no step waits."""

    @step
    def nothing() -> Any:
        return None

    risky.options(on_item_error="continue").map(n=nothing())


@flow
def flaky_items(folder: str, note: Any) -> Any:
    """An item that succeeds in its third attempt."""

    @step(retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0.1))
    def flaky(n: int) -> int:
        note("tries", n)
        if n == 1 and (Path(folder) / "trace").read_text().count("tries 1\n") < 3:
            raise ConnectionError("not yet")
        return n

    return flaky.map(n=[0, 1, 2])


@flow
def slow_items(step_timeout: float) -> Any:
    """An item that takes too long, and is left out."""

    @step(timeout=step_timeout, on_item_error="continue")
    def slow(n: int) -> int:
        time.sleep(120 if n == 1 else 0)
        return n

    return slow.map(n=[0, 1, 2])


def hooked_items(folder: str) -> Pipeline:
    """Three items, one of which fails, and a skipped step, with hooks that record their events."""
    *_, same, risky = parts(folder)

    @pipeline(name="conformance hooked items", hooks=[journal(folder)])
    def made(fails: bool = True, limit: int = 1) -> Any:
        with when(limit > 9):
            same.options(name="skipped")(1)
        return risky.options(on_item_error="continue").map(n=[1, -2, 3])

    return made


@flow
def large_items(numbers: Any) -> Any:
    """Values that are too large to be passed inline, and not JSON: each item's own, and the list of them."""

    @step
    def blob(n: int) -> bytes:
        return bytes([n]) * (1 << 20)

    @step
    def longer(blob: bytes, fixed: bytes) -> bytes:
        return blob + fixed[:1]

    @step
    def sizes(blobs: list[bytes]) -> list[Any]:
        return [[len(each), each[0], each[-1]] for each in blobs]

    @step
    def halves() -> list[bytes]:
        return [b"a" * (1 << 19), b"b" * (1 << 19)]

    @step
    def size(blob: bytes) -> int:
        return len(blob)

    fixed = blob.options(name="fixed")(9)
    with for_each(numbers(2)) as n:
        longest = longer(blob(n), fixed)
    outside: Any = longest  # where it is the list of all
    return {"sizes": sizes(outside), "halves": size.map(blob=halves())}
