"""Random nested loops and branches do on local what a few lines of plain Python do."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowyml import either, for_each, otherwise, pipeline, step, when
from flowyml.orchestrators import LocalOrchestrator

MISSING = object()
Body = Callable[[Any], Any]


class Language(Protocol):
    """What a random pipeline is written in: once as calls of steps, once as plain Python."""

    def add(self, a: Any, b: Any) -> Any: ...
    def numbers(self, a: Any) -> Any: ...
    def total(self, xs: Any) -> Any: ...
    def map_add(self, xs: Any, b: Any) -> Any: ...
    def each(self, xs: Any, body: Body) -> Any: ...
    def choice(self, x: Any, limit: int, then: Callable[[], Any], other: Callable[[], Any]) -> Any: ...


trace: list[tuple[Any, ...]] = []
lock = threading.Lock()


def note(*what: Any) -> None:
    with lock:
        trace.append(what)


@step
def add(a: int, b: int) -> int:
    note("add", a, b)
    return (2 * a + b) % 97


@step
def numbers(a: int) -> list[int]:
    note("numbers", a)
    return list(range(a % 4))


@step
def total(xs: list[int]) -> int:
    note("total", tuple(xs))
    return sum(xs)


class Calls:
    """The pipeline as users write it."""

    def add(self, a: Any, b: Any) -> Any:
        return add(a, b)

    def numbers(self, a: Any) -> Any:
        return numbers(a)

    def total(self, xs: Any) -> Any:
        return total(xs)

    def map_add(self, xs: Any, b: Any) -> Any:
        return add.partial(b=b).map(a=xs)

    def each(self, xs: Any, body: Body) -> Any:
        with for_each(xs) as item:
            return body(item)

    def choice(self, x: Any, limit: int, then: Callable[[], Any], other: Callable[[], Any]) -> Any:
        with when(x > limit):
            a = then()
        with otherwise():
            b = other()
        return either(a, b)


class Plain:
    """The same in plain Python: what is missing is skipped, and so is what takes it."""

    def add(self, a: Any, b: Any) -> Any:
        return MISSING if MISSING in (a, b) else add.function(a, b)

    def numbers(self, a: Any) -> Any:
        return MISSING if a is MISSING else numbers.function(a)

    def total(self, xs: Any) -> Any:
        return MISSING if xs is MISSING else total.function(xs)

    def map_add(self, xs: Any, b: Any) -> Any:
        return self.each(xs, lambda x: self.add(x, b))

    def each(self, xs: Any, body: Body) -> Any:
        if xs is MISSING:
            return MISSING
        found = [body(x) for x in xs]
        kept = [x for x in found if x is not MISSING]
        return kept if kept or not found else MISSING

    def choice(self, x: Any, limit: int, then: Callable[[], Any], other: Callable[[], Any]) -> Any:
        return MISSING if x is MISSING else then() if x > limit else other()


def block(depth: int, loops: int) -> st.SearchStrategy[Any]:
    number = st.integers(0, 9)
    simple = [
        st.tuples(st.just("add"), number, number),
        st.tuples(st.just("numbers"), number),
        st.tuples(st.just("total"), number),
    ]
    if depth:
        inner = st.lists(st.deferred(lambda: block(depth - 1, loops)), min_size=1, max_size=3)
        simple.append(st.tuples(st.just("choice"), number, st.integers(0, 60), inner, inner))
        if loops:
            within = st.lists(st.deferred(lambda: block(depth - 1, loops - 1)), min_size=1, max_size=3)
            simple.append(st.tuples(st.just("map_add"), number, number))
            simple.append(st.tuples(st.just("each"), number, within))
    return st.one_of(simple)


def build(blocks: list[Any], to: Language, ints: list[Any], lists: list[Any]) -> Any:
    """Put blocks together, each with values made before it; give the last number."""
    ints, lists = list(ints), list(lists)
    for kind, *rest in blocks:
        if kind == "add":
            ints.append(to.add(ints[rest[0] % len(ints)], ints[rest[1] % len(ints)]))
        elif kind == "numbers":
            lists.append(to.numbers(ints[rest[0] % len(ints)]))
        elif kind == "choice":
            at, limit, then, other = rest
            a, b = (lambda which=which: build(which, to, ints, lists) for which in (then, other))
            ints.append(to.choice(ints[at % len(ints)], limit, a, b))
        elif not lists:
            lists.append(to.numbers(ints[rest[0] % len(ints)]))
        elif kind == "total":
            ints.append(to.total(lists[rest[0] % len(lists)]))
        elif kind == "map_add":
            lists.append(to.map_add(lists[rest[0] % len(lists)], ints[rest[1] % len(ints)]))
        elif kind == "each":
            lists.append(
                to.each(lists[rest[0] % len(lists)], lambda x, body=rest[1]: build(body, to, [*ints, x], lists))
            )
    return to.add(ints[-1], ints[len(ints) // 2])


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalOrchestrator:
    return LocalOrchestrator(store=tmp_path_factory.mktemp("random") / "runs.db")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(block(3, 2), min_size=1, max_size=5), st.integers(0, 40))
def test_random_control_flow(local: LocalOrchestrator, blocks: list[Any], seed: int) -> None:
    @pipeline(name="random")
    def made(seed: int = 0) -> Any:
        return {"last": build(blocks, Calls(), [seed], [])}

    plan = made.compile()
    assert type(plan).__name__ == "Plan"
    trace.clear()
    result = made.run({"seed": seed}, on=local)
    seen = Counter(trace)
    trace.clear()
    wanted = build(blocks, Plain(), [seed], [])
    assert result.success, result.error
    assert seen == Counter(trace)
    assert result.outputs == ({} if wanted is MISSING else {"last": wanted})


def test_where_it_is(tmp_path: Path) -> None:
    """The same pipeline in processes, of which only the value comes back."""
    blocks = [
        ("numbers", 0),
        (
            "each",
            0,
            [("numbers", 1), ("map_add", 1, 0), ("total", 2), ("choice", 1, 20, [("add", 0, 1)], [("add", 1, 1)])],
        ),
        ("total", 1),
    ]

    @pipeline(name="in processes")
    def made(seed: int = 0) -> Any:
        return {"last": build(blocks, Calls(), [seed], [])}

    local = LocalOrchestrator(store=tmp_path / "runs.db", workers="processes")
    for seed in (3, 4):
        assert made.run({"seed": seed}, on=local)["last"] == build(blocks, Plain(), [seed], [])
