"""What annotations say of conditions and items is checked when a pipeline is compiled, and in doubt it may be right."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Protocol, TypedDict

import pytest

from flowyml import Pipeline, either, for_each, is_in, otherwise, pipeline, step, when
from flowyml.core.errors import DefinitionError
from flowyml.orchestrators import LocalOrchestrator
from tests.unit.control_flow import add, same

HERE = Path(__file__).name


class Colour(Enum):
    RED = "red"


class Kind(StrEnum):
    A = "a"


@dataclass
class Config:
    rate: float


class Point(TypedDict):
    x: int


class HasRate(Protocol):
    rate: float


def giving(annotation: Any, **options: Any) -> Any:
    def give() -> Any: ...

    give.__annotations__["return"] = annotation
    return step(give, **options) if options else step(give)


def compiled(condition: Callable[..., Any]) -> None:
    """A pipeline with this condition; it takes parameters of the pipeline by name."""

    @pipeline(name="conditions")
    def made(day: date = date(2026, 1, 1), count: int = 1, label: str = "a", colour: Colour = Colour.RED) -> None:
        given = {"day": day, "count": count, "label": label, "colour": colour}
        taken = {name: given[name] for name in inspect.signature(condition).parameters}
        with when(condition(**taken)):
            add(1)

    made.compile()


RIGHT: list[Callable[..., Any]] = [
    lambda: giving(dict)() == 3,
    lambda: giving(tuple[str, float], outputs=["name", "score"])()[1] > 0.9,
    lambda day: day > "2026-01-01",
    lambda day: day > date(2026, 1, 1),
    lambda day: is_in(day, [date(2026, 1, 1), date(2026, 5, 1)]),
    lambda: giving(Kind)() == "a",
    lambda colour: colour == "red",
]  # fmt: skip


@pytest.mark.parametrize("condition", RIGHT)
def test_what_may_be_compared_compiles(condition: Callable[..., Any]) -> None:
    compiled(condition)


WRONG: list[tuple[Callable[..., Any], str]] = [
    (lambda day: day > "soon", "compares a date with 'soon': Invalid isoformat string"),
    (lambda colour: giving(Colour)() == colour, "always has the same result: colour is .* JSON, and give is Colour"),
    (lambda: is_in("a/b", giving(list[Path])()), "'a/b' is compared as JSON, and give is"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "reason"), WRONG)
def test_what_cannot_be_compared_is_an_error_with_its_line(condition: Callable[..., Any], reason: str) -> None:
    with pytest.raises(DefinitionError, match=rf"The condition .*{reason}.*{HERE}, line \d+\)"):
        compiled(condition)


def test_a_time_without_a_zone_is_not_compared_with_a_parameter() -> None:
    """A parameter has a zone, and Python compares no time without one with it."""

    @pipeline(name="times")
    def made(begin: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        with when(begin > datetime.fromisoformat("2026-01-01")):
            add(1)

    with pytest.raises(DefinitionError, match="compares '2026-01-01T00:00:00', which has no time zone"):
        made.compile()


def test_items_of_a_parameter_are_compared_as_the_dates_that_they_are() -> None:
    @step
    def shown(day: date, word: str) -> str:
        return f"{day} {word}"

    @step
    def kept(word: str) -> str:
        return word

    @pipeline(name="days")
    def made(days: list[date] = [date(2026, 1, 1), date(2026, 3, 1)], since: date = date(2026, 2, 1)) -> Any:
        with for_each(days) as day:
            with when(day > since):
                new = shown(day, "new")
            with otherwise():
                old = shown(day, "old")
            return kept(either(new, old))

    (found,) = made.run().outputs.values()
    assert found == ["2026-01-01 old", "2026-03-01 new"]


def test_a_list_that_a_loop_gives_is_checked_where_a_step_takes_it() -> None:
    @step
    def of(n: int) -> float:
        return n / 2

    @step
    def total(numbers: list[float]) -> float:
        return sum(numbers)

    @step
    def of_pairs(numbers: list[tuple[int, float]]) -> float:
        return sum(number for _, number in numbers)

    @step
    def longest(words: list[str]) -> str:
        return max(words)

    def taken(taker: Any, **options: Any) -> Pipeline:
        @pipeline(name="taken")
        def made() -> None:
            with for_each([1, 2], name="halves", **options) as n:
                half = of(n)
            taker(half)

        return made

    taken(total).compile()
    taken(of_pairs, on_item_error="continue").compile()
    with pytest.raises(DefinitionError, match=r"takes 'words' as list\[str\], and loop 'halves' gives list\[float\]\."):
        taken(longest).compile()
    with pytest.raises(DefinitionError, match=r"gives list\[tuple\[int, float\]\]: each value with its index"):
        taken(total, on_item_error="continue").compile()


def mapped(given: Any, hint: Any) -> Pipeline:
    def take(value: Any) -> None: ...

    take.__annotations__["value"] = hint
    taking = step(take)

    @pipeline(name="mapped")
    def made() -> None:
        taking.map(value=given if isinstance(given, list) else giving(given.item)())

    return made


@dataclass
class Returns:
    item: Any


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (Returns(list[Config]), Config),
        (Returns(list[Config]), HasRate),
        (Returns(list[Config] | None), Config | str),
        (Returns(list), Config),
        (Returns(tuple[int, ...]), int),
        (Returns(list[Point]), dict),
        ([{"x": 1}], Point),
        ([[1, 2]], tuple[int, int]),
    ],
)
def test_items_that_may_be_what_a_step_takes_compile(given: Any, hint: Any) -> None:
    mapped(given, hint).compile()


@pytest.mark.parametrize(
    ("given", "hint", "reason"),
    [
        (Returns(list[Config]), date, "as date, and the items of loop 'take' are Config"),
        (Returns(list[list[int]]), list[str], r"as list\[str\], and the items .* are list\[int\]"),
        (Returns(list[str | None]), int | float, r"as int \| float, and the items .* are str \| None"),
        ([{"rate": 1}], Config, "as Config, and the items .* are dict"),
        (["a", 1], str, r"as str, and item 1 of loop 'take' is 1 \(int\)"),
    ],
)
def test_items_that_are_not_what_a_step_takes_are_an_error(given: Any, hint: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=rf"step 'take' takes 'value' {reason}.*{HERE}, line \d+\)"):
        mapped(given, hint).compile()


def taken_by(given: Any, hint: Any) -> Pipeline:
    def take(value: Any) -> None: ...

    take.__annotations__["value"] = hint
    taking = step(take)

    @pipeline(name="taken")
    def made() -> None:
        taking(giving(given)())

    return made


class Array: ...


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (int, float), (float, int), (int, str | float), (Any, str), (dict, Point), (list, Any), (Array, list[float]),
        (tuple[int, ...], list[int]), (str, HasRate), (str | None, str), (int | Array, str), (str, Kind),
    ],
)  # fmt: skip
def test_what_a_step_returns_may_fit(given: Any, hint: Any) -> None:
    taken_by(given, hint).compile()


@pytest.mark.parametrize(
    ("given", "hint", "shown"),
    [
        (int, str, "as str, and step 'give' returns int"),
        (str, date, "as date, and step 'give' returns str"),
        (dict, Config, "as Config, and step 'give' returns dict"),
        (list[int], list[str], r"as list\[str\], and step 'give' returns list\[int\]"),
        (str | bytes, int | None, r"as int \| None, and step 'give' returns str \| bytes"),
    ],
)
def test_what_a_step_returns_cannot_fit(given: Any, hint: Any, shown: str) -> None:
    """Nothing is converted between steps, so the other one would get another type than it says."""
    with pytest.raises(DefinitionError, match=rf"step 'take' takes 'value' {shown}.*{HERE}, line \d+\)"):
        taken_by(given, hint).compile()


def test_a_step_gets_what_another_returns_whatever_its_annotation(tmp_path: Path) -> None:
    @step
    def whole() -> int:
        return 1

    @step
    def kind(value: float) -> str:
        return type(value).__name__

    @pipeline
    def kinds() -> Any:
        return kind(whole())

    assert kinds.run(on=LocalOrchestrator(store=tmp_path / "runs.db"))["kind"] == "int"


def test_mapping_over_a_list_of_models_calls_the_step_with_a_model(tmp_path: Path) -> None:
    pydantic = pytest.importorskip("pydantic")
    Settings = pydantic.create_model("Settings", rate=(float, ...))
    Others = pydantic.create_model("Others", name=(str, ...))

    rates = [Settings(rate=0.1), Settings(rate=0.2)]

    def of_parameter(settings: Any = rates) -> Any:
        return double.map(config=settings)

    def doubled(config: Any) -> float:
        assert isinstance(config, Settings)
        return 2 * config.rate

    of_parameter.__annotations__["settings"] = list[Settings]
    doubled.__annotations__["config"] = Settings
    double = step(doubled)
    made = pipeline(name="settings")(of_parameter)
    assert made.run(on=LocalOrchestrator(store=tmp_path / "runs.db"))["doubled"] == [0.2, 0.4]

    doubled.__annotations__["config"] = Others
    double = step(doubled)
    with pytest.raises(DefinitionError, match="takes 'config' as Others, and the items of loop 'doubled' are Settings"):
        pipeline(name="others")(of_parameter).compile()


def test_a_list_that_all_items_share_is_not_mapped() -> None:
    @step
    def fit(rows: list[int], factor: float) -> float:
        return factor * sum(rows)

    @pipeline(name="shared")
    def made() -> None:
        fit.map(factor=[0.5, 1.5], rows=giving(list[int])())

    with pytest.raises(DefinitionError, match=r"items .* are int; if all items share it, pass it with partial\(rows="):
        made.compile()


def test_a_loop_over_an_item_knows_its_type() -> None:
    @pipeline(name="nested")
    def made() -> None:
        with for_each(giving(list[list[str]])()) as row, for_each(row) as cell:
            add(cell)
            same(row)

    with pytest.raises(DefinitionError, match=r"step 'add' takes 'a' as int, and the items of loop .* are str"):
        made.compile()


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (1.5, r"1\.5 \(float\)"), (2.0, ""), (True, ""), (None, "None"), ([1], r"\[1\] \(list\)"),
    ],
)  # fmt: skip
def test_a_constant_that_an_annotation_does_not_allow(value: Any, refused: str) -> None:
    @step(name="count")
    def counts(n: int) -> int:
        return n

    @step(name="maybe")
    def may_have_none(n: int = None) -> int:  # type: ignore[assignment]  # noqa: RUF013
        return n

    pipeline(name="none")(lambda: may_have_none(None)).compile()
    alone = pipeline(name="alone")(lambda: counts(value))
    mapped = pipeline(name="mapped")(lambda: counts.map(n=[1, value]))
    if not refused:
        alone.compile()
        mapped.compile()
        return
    with pytest.raises(DefinitionError, match=f"step 'count' takes 'n' as int, and it is given {refused}"):
        alone.compile()
    with pytest.raises(DefinitionError, match=f"and item 1 of loop 'count' is {refused}"):
        mapped.compile()
