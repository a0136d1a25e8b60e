"""Random nested loops and branches, as a pipeline and as plain Python, which says what the pipeline has to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, islice
from random import Random
from typing import Any, Protocol

from flowyml import Pipeline, either, for_each, otherwise, pipeline, step, when
from flowyml.testing.pipelines_parts import parts

__all__ = ["MISSING", "Calls", "Language", "Plain", "build", "drawn", "expected", "random_flow", "seeds"]

MISSING = object()
"""The value of what did not run."""

Blocks = Sequence[Any]
Body = Callable[[Any], Any]
Note = Callable[..., None]


class Language(Protocol):
    """What a random pipeline is written in: once as calls of steps, once as plain Python."""

    def add(self, a: Any, b: Any) -> Any: ...
    def numbers(self, a: Any) -> Any: ...
    def total(self, xs: Any) -> Any: ...
    def map_add(self, xs: Any, b: Any) -> Any: ...
    def each(self, xs: Any, body: Body) -> Any: ...
    def choice(self, x: Any, limit: int, then: Callable[[], Any], other: Callable[[], Any]) -> Any: ...


class Calls:
    """The pipeline as users write it. ``note`` is called in each step, with its name and its inputs."""

    def __init__(self, note: Note) -> None:
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
            note("total", *xs)
            return sum(xs)

        self.steps: dict[str, Any] = {"add": add, "numbers": numbers, "total": total}

    def add(self, a: Any, b: Any) -> Any:
        return self.steps["add"](a, b)

    def numbers(self, a: Any) -> Any:
        return self.steps["numbers"](a)

    def total(self, xs: Any) -> Any:
        return self.steps["total"](xs)

    def map_add(self, xs: Any, b: Any) -> Any:
        return self.steps["add"].partial(b=b).map(a=xs)

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

    def __init__(self, note: Note) -> None:
        self.functions = {name: each.function for name, each in Calls(note).steps.items()}

    def add(self, a: Any, b: Any) -> Any:
        return MISSING if MISSING in (a, b) else self.functions["add"](a, b)

    def numbers(self, a: Any) -> Any:
        return MISSING if a is MISSING else self.functions["numbers"](a)

    def total(self, xs: Any) -> Any:
        return MISSING if xs is MISSING else self.functions["total"](xs)

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


def build(blocks: Blocks, to: Language, ints: Sequence[Any], lists: Sequence[Any]) -> Any:
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

            def body(x: Any, inner: Blocks = rest[1]) -> Any:
                return build(inner, to, [*ints, x], lists)

            lists.append(to.each(lists[rest[0] % len(lists)], body))
    return to.add(ints[-1], ints[len(ints) // 2])


def drawn(random: Random, depth: int = 3, loops: int = 2, *, most: int = 5) -> list[Any]:
    """Blocks at random, in at most so many branches and loops within one another."""
    kinds = [
        "add",
        "numbers",
        "total",
        *(["choice"] if depth else []),
        *(["map_add", "each"] if depth and loops else []),
    ]
    blocks: list[Any] = []
    for _ in range(random.randint(1, most)):
        kind, at = random.choice(kinds), random.randint(0, 9)
        if kind == "choice":
            then, other = (drawn(random, depth - 1, loops, most=3) for _ in range(2))
            blocks.append((kind, at, random.randint(0, 60), then, other))
        elif kind == "each":
            blocks.append((kind, at, drawn(random, depth - 1, loops - 1, most=3)))
        else:
            blocks.append((kind, at, random.randint(0, 9)))
    return blocks


def random_flow(folder: str, seed: int) -> Pipeline:
    """The pipeline of a seed, which leaves a trace of what ran with which inputs."""
    note, *_ = parts(folder)
    blocks = drawn(Random(seed))  # noqa: S311  # nothing here is secret

    @pipeline(name=f"conformance random {seed}")
    def made(first: int = seed % 40) -> Any:
        return {"last": build(blocks, Calls(note), [first], [])}

    return made


def expected(seed: int) -> tuple[dict[str, Any], list[str]]:
    """The outputs of that pipeline, and the lines of its trace, sorted."""
    lines: list[str] = []
    last = build(drawn(Random(seed)), Plain(lambda *words: lines.append(" ".join(map(str, words)))), [seed % 40], [])  # noqa: S311  # as above
    return {} if last is MISSING else {"last": last}, sorted(lines)


def seeds(how_many: int) -> list[int]:
    """Those of pipelines with a loop and a branch in which some steps run, and not too many for a slow engine."""

    def fits(seed: int) -> bool:
        written = str(drawn(Random(seed)))  # noqa: S311  # as above
        return "each" in written and "choice" in written and len(written) < 600 and 8 <= len(expected(seed)[1]) <= 20

    return list(islice(filter(fits, count()), how_many))
