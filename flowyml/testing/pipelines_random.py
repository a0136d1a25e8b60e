"""Random nested control flow and failures, as a pipeline and as plain Python, which computes the expected result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import count, cycle, islice
from random import Random
from typing import Any, NamedTuple, Protocol

from flowyml import Pipeline, cleanup, either, elif_, for_each, otherwise, pipeline, step, when
from flowyml.testing.pipelines_parts import parts

__all__ = [
    "BROKEN",
    "MISSING",
    "Calls",
    "Expected",
    "Language",
    "Plain",
    "build",
    "drawn",
    "expected",
    "kinds",
    "random_flow",
    "seeds",
]

MISSING, BROKEN = object(), object()
"""The values of skipped steps, and of steps that failed or could not run because of a failure."""

_BRANCHES = {"choice": 2, "elif_": 3}
_NEWER = ("together", "called", "elif_", "cleanup", "a branch in a loop")

Blocks = Sequence[Any]
Body = Callable[[Any], Any]
Note = Callable[..., None]


class Language(Protocol):
    """The language of a random pipeline: once calls of steps, once plain Python."""

    def call(self, name: str, *values: Any) -> Any: ...
    def handle(self, name: str, a: Any) -> Any: ...
    def map_add(self, xs: Any, b: Any) -> Any: ...
    def each(self, xs: Any, body: Body) -> Any: ...
    def choice(self, x: Any, limit: int, then: Callable[[], Any], other: Callable[[], Any]) -> Any: ...
    def elif_(self, x: Any, limit: int, bodies: Sequence[Callable[[], Any]]) -> Any: ...
    def alone(self, x: Any, limit: int, then: Callable[[], Any]) -> Any: ...
    def called(self, x: Any, body: Body) -> Any: ...
    def going_on(self, xs: Any, body: Body) -> Any: ...
    def together(self, a: Any, b: Any, middle: str, on_it: bool) -> Any: ...


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

        @step
        def risky(a: int) -> int:
            note("risky", a)
            if a % 5 == 3:
                raise ValueError(f"no {a}")
            return a + 1

        @step
        def square(a: int) -> int:
            note("square", a)
            return a * a % 97

        @step(run_if="all_done")
        def fallback(a: int = -1) -> int:
            note("fallback", a)
            return a + 2

        @step
        def weigh(pairs: list[Any]) -> int:
            note("weigh", *(f"{index}:{value}" for index, value in pairs))
            weighed: int = sum((index + 1) * value for index, value in pairs) % 97
            return weighed

        @step
        def tidy(a: int = -1) -> None:
            note("tidy", a)

        made: list[Any] = [add, numbers, total, risky, square, fallback, weigh, tidy]
        self.steps: dict[str, Any] = {each.name: each for each in made}
        self.execution_groups = count()

    def call(self, name: str, *values: Any) -> Any:
        return self.steps[name](*values)

    def handle(self, name: str, a: Any) -> Any:
        return self.steps[name](a)

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

    def elif_(self, x: Any, limit: int, bodies: Sequence[Callable[[], Any]]) -> Any:
        first, second, third = bodies
        with when(x > limit):
            a = first()
        with elif_(x > limit // 2):
            b = second()
        with otherwise():
            c = third()
        return either(a, b, c)

    def alone(self, x: Any, limit: int, then: Callable[[], Any]) -> Any:
        with when(x > limit):
            a = then()
        return either(a, self.call("add", x, x))

    def called(self, x: Any, body: Body) -> Any:
        @pipeline(name="inner")
        def inner(n: int) -> Any:
            return body(n)

        return inner(x)

    def tidy(self, a: Any) -> None:
        with cleanup():
            self.handle("tidy", a)

    def going_on(self, xs: Any, body: Body) -> Any:
        with for_each(xs, on_item_error="continue") as item:
            value = body(item)
        return self.steps["weigh"](value)

    def together(self, a: Any, b: Any, middle: str, on_it: bool) -> Any:
        name = f"group {next(self.execution_groups)}"
        steps = {key: each.options(execution_group=name) for key, each in self.steps.items()}
        return _in_a_group(steps["add"], steps[middle], a, b, on_it)


class Plain:
    """The same in plain Python. ``failed`` is whether the run has failed."""

    def __init__(self, note: Note) -> None:
        self.functions = {name: each.function for name, each in Calls(note).steps.items()}
        self.failed = False
        self.may_fail = 0

    def call(self, name: str, *values: Any) -> Any:
        """A step: with a failed input it cannot run, with a skipped input it is skipped."""
        for stopped in (BROKEN, MISSING):
            if any(value is stopped for value in values):
                return stopped
        try:
            return self.functions[name](*values)
        except ValueError:
            self.failed = self.failed or not self.may_fail
            return BROKEN

    def handle(self, name: str, a: Any) -> Any:
        """A step that runs in any case: it has a default for a value that is missing."""
        return self.functions[name](*([] if a in (MISSING, BROKEN) else [a]))

    def map_add(self, xs: Any, b: Any) -> Any:
        return self.each(xs, lambda x: self.call("add", x, b))

    def each(self, xs: Any, body: Body) -> Any:
        if xs in (MISSING, BROKEN):
            return xs
        found = [body(x) for x in xs]
        if BROKEN in found:
            return BROKEN
        kept = [x for x in found if x is not MISSING]
        return kept if kept or not found else MISSING

    def going_on(self, xs: Any, body: Body) -> Any:
        if xs in (MISSING, BROKEN):
            return xs
        self.may_fail += 1
        found = [body(x) for x in xs]
        self.may_fail -= 1
        pairs = [(at, x) for at, x in enumerate(found) if x not in (MISSING, BROKEN)]
        return self.call("weigh", MISSING if MISSING in found and not pairs and BROKEN not in found else pairs)

    def together(self, a: Any, b: Any, middle: str, on_it: bool) -> Any:
        """An execution group begins when all outside inputs of its steps exist."""
        for stopped in (BROKEN, MISSING):
            if a is stopped or b is stopped:
                return stopped
        return _in_a_group(partial(self.call, "add"), partial(self.call, middle), a, b, on_it)

    def choice(self, x: Any, limit: int, then: Callable[[], Any], other: Callable[[], Any]) -> Any:
        return x if x in (MISSING, BROKEN) else then() if x > limit else other()

    def elif_(self, x: Any, limit: int, bodies: Sequence[Callable[[], Any]]) -> Any:
        return x if x in (MISSING, BROKEN) else bodies[0 if x > limit else 1 if x > limit // 2 else 2]()

    def alone(self, x: Any, limit: int, then: Callable[[], Any]) -> Any:
        """A step that always runs replaces a skipped value, and a failed one, which also fails the run."""
        found = x if x in (MISSING, BROKEN) else then() if x > limit else MISSING
        beside = self.call("add", x, x)
        return beside if found in (MISSING, BROKEN) else found

    def called(self, x: Any, body: Body) -> Any:
        return body(x)

    def tidy(self, a: Any) -> None:
        self.handle("tidy", a)


def _in_a_group(add: Callable[..., Any], middle: Callable[..., Any], a: Any, b: Any, on_it: bool) -> Any:
    """Three steps, the last of which takes the value of the first, or of the second, which may fail."""
    first = add(a, a)
    second = middle(first)
    return add(second if on_it else first, b)


def build(blocks: Blocks, to: Language, ints: Sequence[Any], lists: Sequence[Any]) -> Any:
    """Join blocks, each with values of earlier ones; return the last number."""
    ints, lists = list(ints), list(lists)
    for kind, position, *more in blocks:
        number, items = ints[position % len(ints)], lists[position % len(lists)] if lists else None
        if kind in ("choice", "elif_", "alone", "called"):
            ints.append(_branched(kind, to, number, more, lambda which: partial(build, which, to, ints, lists)))
        elif kind == "risky":
            ints.append(to.call(kind, number))
        elif kind == "fallback":
            ints.append(to.handle(kind, number))
        elif kind == "add":
            ints.append(to.call(kind, number, ints[more[0] % len(ints)]))
        elif kind == "together":
            ints.append(to.together(number, ints[more[0] % len(ints)], *more[1:]))
        elif kind == "numbers" or items is None:
            lists.append(to.call("numbers", number))
        elif kind == "total":
            ints.append(to.call("total", items))
        elif kind == "map_add":
            lists.append(to.map_add(items, ints[more[0] % len(ints)]))
        else:
            made = getattr(to, kind)(items, partial(_item, more[0], to, ints, lists))
            (ints if kind == "going_on" else lists).append(made)
    return to.call("add", ints[-1], ints[len(ints) // 2])


def _item(blocks: Blocks, to: Language, ints: Sequence[Any], lists: Sequence[Any], item: Any) -> Any:
    return build(blocks, to, [*ints, item], lists)


def _branched(
    kind: str, to: Language, number: Any, more: Sequence[Any], body: Callable[[Blocks], Callable[[], Any]]
) -> Any:  # fmt: skip
    if kind == "choice":
        return to.choice(number, more[0], body(more[1]), body(more[2]))
    if kind == "elif_":
        return to.elif_(number, more[0], [body(which) for which in more[1:]])
    if kind == "alone":
        return to.alone(number, more[0], body(more[1]))
    return to.called(number, partial(_called, more[0], to))


def _called(blocks: Blocks, to: Language, number: Any) -> Any:
    return build(blocks, to, [number], [])


def drawn(random: Random, depth: int = 3, loops: int = 2, *, fails: bool = False, limit: int = 5) -> list[Any]:
    """Random blocks, in limited nesting of branches and loops; with ``fails`` some steps fail."""
    kinds = [
        "add",
        "numbers",
        "total",
        "together",
        *(["risky", "fallback"] if fails else []),
        *(["choice", "elif_", "called"] if depth else []),
    ]
    if depth and loops:
        kinds += ["map_add", "each", *(["going_on"] if fails else [])]
    blocks: list[Any] = []
    for _ in range(random.randint(1, limit)):
        kind, position = random.choice(kinds), random.randint(0, 9)
        if kind in _BRANCHES:
            bodies = [drawn(random, depth - 1, loops, fails=fails, limit=3) for _ in range(_BRANCHES[kind])]
            blocks.append((kind, position, random.randint(0, 60), *bodies))
        elif kind == "called":
            blocks.append((kind, position, drawn(random, depth - 1, loops, fails=fails, limit=3)))
        elif kind in ("each", "going_on"):
            blocks.append((kind, position, drawn(random, depth - 1, loops - 1, fails=fails, limit=3)))
        elif kind == "together":
            middle = random.choice(["square", *(["risky"] if fails else [])])
            blocks.append((kind, position, random.randint(0, 9), middle, random.random() < 0.5))
        else:
            blocks.append((kind, position, random.randint(0, 9)))
    return blocks


def random_flow(folder: str, seed: int, *, fails: bool = False) -> Pipeline:
    """The pipeline of a seed, which writes a trace of its steps and their inputs."""
    note, *_ = parts(folder)
    blocks, is_cleaned_up = _blocks(seed, fails), "cleanup" in kinds(seed, fails=fails)

    @pipeline(name=f"conformance random {'failing ' if fails else ''}{seed}")
    def made(first: int = seed % 40) -> Any:
        calls = Calls(note)
        last = build(blocks, calls, [first], [])
        if is_cleaned_up:
            calls.tidy(last)
        return {"last": last}

    return made


class Expected(NamedTuple):
    """The expected result of such a pipeline: whether it fails, its outputs, and the lines of its trace, sorted."""

    failed: bool
    outputs: dict[str, Any]
    trace: list[str]


def expected(seed: int, *, fails: bool = False) -> Expected:
    """The expected result of the pipeline of a seed."""
    lines: list[str] = []
    plain = Plain(lambda *words: lines.append(" ".join(map(str, words))))
    last = build(_blocks(seed, fails), plain, [seed % 40], [])
    if "cleanup" in kinds(seed, fails=fails):
        plain.tidy(last)
    has_outputs = not plain.failed and last not in (MISSING, BROKEN)
    return Expected(plain.failed, {"last": last} if has_outputs else {}, sorted(lines))


def kinds(seed: int, *, fails: bool = False) -> set[str]:
    """The features of the pipeline of a seed, such as "each" and "a branch in a loop"; every third cleans up."""
    return {*_kinds(_blocks(seed, fails)), *(["cleanup"] if seed % 3 == 0 else [])}


def seeds(how_many: int, *, fails: bool = False) -> list[int]:
    """Seeds of pipelines with a loop and a branch in which some steps run, small enough for a slow engine.

    The newer features are spread over them: the first has an execution group, the second calls a pipeline, and so on.
    """

    def fits(seed: int, kind: str) -> bool:
        if len(str(_blocks(seed, fails))) >= 600 or not {"each", "choice", kind} <= kinds(seed, fails=fails):
            return False
        trace = expected(seed, fails=fails).trace
        some_fail = any(line.startswith("risky") and int(line.split()[1]) % 5 == 3 for line in trace)
        return 8 <= len(trace) <= 20 and some_fail is fails

    numbers = count()
    return [next(seed for seed in numbers if fits(seed, kind)) for kind in islice(cycle(_NEWER), how_many)]


def _kinds(blocks: Blocks, in_loop: bool = False) -> Iterator[str]:
    for kind, _, *more in blocks:
        yield kind
        if in_loop and kind in _BRANCHES:
            yield "a branch in a loop"
        for inner in more:
            if isinstance(inner, list):
                yield from _kinds(inner, in_loop or kind in ("each", "going_on"))


@cache
def _blocks(seed: int, fails: bool) -> list[Any]:
    return drawn(Random(seed), fails=fails)  # noqa: S311  # nothing here is secret
