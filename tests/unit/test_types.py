"""Parameters of types that JSON does not give back: everywhere JSON, in a step what it is annotated with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import Enum, auto
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from flowyml import LOGICAL_DATE, Context, Pipeline, for_each, pipeline, step
from flowyml.core.errors import DefinitionError, ParameterError
from flowyml.core.schedule import Schedule
from flowyml.orchestrators import LocalOrchestrator
from flowyml.plan.codec import decode
from flowyml.plan.model import Parameter
from flowyml.plan.parameters import check_values, schema_of
from flowyml.plan.types import plain, revived
from tests.unit.local_runs import WORKERS


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(int, Enum):
    SMALL = 1
    LARGE = 2


class Odd(Enum):
    PAIR = (1, 2)


class Numbered(Enum):
    ONE = auto()
    TWO = auto()


class Window(BaseModel):
    since: date
    rate: float = Field(0.5, gt=0)
    paths: list[Path] = []


@step
def take(
    day: date, at: datetime, folder: Path, colour: Colour, size: Size, window: Window, last: date | None,
    several: list[Numbered], **more: date,
) -> list[Any]:  # fmt: skip
    return [day, at, folder, colour, size, window, last, several, more]


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
SINCE = Window(since=date(2020, 1, 1))


@pipeline
def typed(
    day: date,
    at: datetime = NOON,
    folder: Path = Path("data/rows"),
    colour: Colour = Colour.RED,
    size: Size = Size.LARGE,
    window: Window = SINCE,
    last: date | None = None,
    several: list[Numbered] = [Numbered.TWO],
) -> object:
    return take(day, at, folder, colour, size, window, last, several, more=day)


OBJECTS = {
    "day": date(2026, 2, 1), "colour": Colour.BLUE, "window": Window(since=date(2021, 1, 1), paths=[Path("a")]),
}  # fmt: skip
TEXTS = {"day": "2026-02-01", "colour": "blue", "window": {"since": "2021-01-01", "paths": ["a"]}}


@pytest.mark.parametrize(("workers", "given"), [("threads", OBJECTS), ("processes", TEXTS)])
def test_a_step_gets_what_it_is_annotated_with(given: Mapping[str, Any], workers: str) -> None:
    orchestrator = LocalOrchestrator(workers=workers)  # type: ignore[arg-type]  # a text of a parameter
    result = typed.run(given, on=orchestrator).raise_for_status()
    assert result["take"] == [
        date(2026, 2, 1), NOON, Path("data/rows"), Colour.BLUE, Size.LARGE,
        Window(since=date(2021, 1, 1), paths=[Path("a")]), None, [Numbered.TWO], {"more": date(2026, 2, 1)},
    ]  # fmt: skip
    recorded = orchestrator.get_run(result.run_id).parameters
    assert recorded["day"] == "2026-02-01"
    assert json.loads(json.dumps(recorded)) == recorded


def test_the_plan_holds_json_and_its_schema() -> None:
    plan = typed.compile()
    assert decode(plan.canonical) == plan
    schemas = {parameter.name: parameter.schema for parameter in plan.parameters}
    assert schemas["day"] == {"type": "string", "format": "date"}
    assert schemas["at"] == {"type": "string", "format": "date-time"}
    assert schemas["colour"] == {"enum": ["red", "blue"], "type": "string"}
    assert schemas["window"]["required"] == ["since"]
    assert {parameter.name: parameter.default for parameter in plan.parameters}["window"] == {
        "since": "2020-01-01", "rate": 0.5, "paths": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"day": "tomorrow"}, "'day' must be a date, such as 2026-01-31, not 'tomorrow'"),
        ({"day": "2026-02-30"}, "'day' must be a date, such as 2026-01-31, not '2026-02-30'"),
        ({"at": "2026-01-31T10:00"}, "'at' must be a time with its time zone"),
        ({"at": NOON.replace(tzinfo=None)}, "'at' must be a time with its time zone"),
        ({"colour": "green"}, "'colour' must be .*, not 'green'"),
        ({"window": {"rate": 1}}, "'since' is a required property"),
        ({"window": {"since": "2020-01-01", "rate": 0}}, "greater|minimum"),
        ({"last": 3}, "'last' must be a date, such as 2026-01-31 or null, not 3"),
        ({"several": [3]}, r"'several'\[0\] must be .*, not 3"),
        ({"folder": 3}, "'folder' must be of type string, not 3"),
    ],
)
def test_values_are_checked_before_anything_is_sent(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        typed.check_parameters({"day": "2026-01-01"} | values)


@pytest.mark.parametrize(("kind", "value"), [(int | None, 3.0), (list[int], [1, 2.0]), (dict[str, int], {"a": 1.0})])
def test_a_float_is_refused_wherever_an_int_is_wanted(kind: Any, value: Any) -> None:
    """A worker refuses it too, so it would fail later, after other steps have run."""
    schema = schema_of(kind, "count")
    with pytest.raises(ParameterError, match=r"'count'.* must be of type integer( or null)?, not \d\.0"):
        check_values("counting", [Parameter(name="count", schema=schema)], {"count": value})


def test_a_context_takes_them_too() -> None:
    @step
    def name(day: date, folder: Path) -> str:
        return f"{day:%A} {folder.name}"

    made = Pipeline("contextual", context=Context(day=date(2026, 1, 31), folder=Path("a/b"))).add_step(name)
    assert made.run()["name"] == "Saturday b"
    assert made.run({"day": date(2026, 2, 1)})["name"] == "Sunday b"


@pytest.mark.parametrize("workers", WORKERS)
def test_items_of_lists_and_of_lists_in_lists(workers: str, tmp_path: Path) -> None:
    @step
    def kinds(day: date, colour: Colour) -> str:
        return f"{type(day).__name__} {colour}"

    @step
    def whole(window: Window) -> str:
        return str(window.since)

    @pipeline
    def looping(days: list[date], colours: list[Colour], table: list[list[Window]]) -> Any:
        with for_each(table) as row, for_each(row) as window:
            since = whole(window)
        return {"kinds": kinds.map(day=days, colour=colours), "since": since}

    given = {"days": ["2026-01-31", date(2026, 2, 1)], "colours": ["red", Colour.BLUE], "table": [[SINCE], []]}
    result = looping.run(given, on=LocalOrchestrator(store=tmp_path / "runs.db", workers=workers))
    assert dict(result.outputs) == {"kinds": ["date Colour.RED", "date Colour.BLUE"], "since": [["2020-01-01"], []]}


def test_a_step_that_does_not_say_what_it_or_its_items_are() -> None:
    @step
    def silent(day) -> object:  # type: ignore[no-untyped-def]  # as users write it
        return day

    @pipeline
    def looping(days: list[list[date]]) -> Any:
        with for_each(days) as week:
            return silent.map(day=week)

    for made in (Pipeline("silent", context=Context(day=date(2026, 1, 31))).add_step(silent), looping):
        with pytest.raises(
            DefinitionError,
            match=r"the pipeline gives as date, .* Annotate the argument of the step: day: date\..*line \d+",
        ):
            made.compile()


@pytest.mark.parametrize("kind", [set, Odd, frozenset[int], dict[str, Odd], complex, tuple[date, date]])
def test_what_json_has_no_word_for(kind: object) -> None:
    with pytest.raises(
        DefinitionError, match=r"'x' has the type .*, which JSON cannot carry\. .* an Enum or a pydantic"
    ):
        schema_of(kind, "x")


def test_what_makes_no_value_and_what_has_none_says_so() -> None:
    with pytest.raises(ParameterError, match="'x' is not a valid date"):
        revived(date, "x")
    with pytest.raises(ParameterError, match="3 is not a valid Colour"):
        revived(Colour, 3)
    with pytest.raises(ParameterError, match="'day' is missing and has no default"):
        typed.check_parameters(None)


class Aliased(BaseModel):
    rate: float = Field(1.0, alias="r")


class Excluding(BaseModel):
    rate: float = Field(1.0, exclude=True)


class Untyped(BaseModel):
    parts: Any = None
    until: datetime | None = None


class Longer(Window):
    to: int = 1


@pytest.mark.filterwarnings("ignore:The schedule is saved:UserWarning")
def test_a_schedule_holds_the_json_of_its_parameters() -> None:
    values = {"day": date(2026, 2, 1), "folder": Path("a"), "window": SINCE}
    local = LocalOrchestrator()
    schedule = Schedule(cron="0 3 * * *", parameters=values)
    made = local.schedule_pipeline(typed, schedule)
    assert [found.schedule.parameters for found in local.schedules()] == [made.schedule.parameters]
    assert made.schedule.parameters == {
        "day": "2026-02-01", "folder": "a", "window": {"since": "2020-01-01", "rate": 0.5, "paths": []},
    }  # fmt: skip

    declaring = pipeline(name="typed", schedule=schedule)(typed.function)  # type: ignore[attr-defined]  # `@pipeline` makes a FunctionPipeline
    assert declaring.compile().schedule["parameters"] == made.schedule.parameters


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Aliased, Aliased(r=5)),
        (list[Aliased], [Aliased(r=5)]),
        (
            Untyped,
            Untyped(parts={"a": [1]}, until=datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))),
        ),
        (Window, {"since": date(2026, 1, 31)}),
        (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))),
    ],
)
def test_a_step_gets_the_value_that_was_passed(annotation: Any, value: Any) -> None:
    run = taking(annotation).run({"value": value}, on=LocalOrchestrator(workers="threads")).raise_for_status()
    wanted = TypeAdapter[Any](annotation).validate_python(value)
    assert plain(run["seen"]) == plain(wanted)
    assert type(run["seen"]) is type(wanted)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Excluding, Excluding(rate=5)),
        (Window, Longer(since=date(2026, 1, 31), to=5)),
        (list[Window], [Longer(since=date(2026, 1, 31), to=5)]),
        (Untyped, Untyped(parts=(1, 2))),
        (Untyped, Untyped(parts={1: 2})),
        (Untyped, Untyped(parts=date(2026, 1, 31))),
        (Untyped, Untyped(parts=b"\xff")),
        (str | date, date(2026, 1, 31)),
    ],
)
def test_a_value_that_a_step_would_get_changed_is_refused(annotation: Any, value: Any) -> None:
    with pytest.raises(ParameterError, match=r"a step would get|cannot be passed as JSON"):
        taking(annotation).check_parameters({"value": value})
    with pytest.raises(ParameterError, match=r"a step would get|cannot be passed as JSON"):
        taking(annotation, value).compile()


def taking(annotation: Any, default: Any = ...) -> Pipeline:
    @step(outputs=["seen"])
    def take_one(value: Any) -> Any:
        return value

    take_one.function.__annotations__["value"] = annotation

    def passing(value: Any) -> Any:
        return take_one(value)

    passing.__annotations__["value"] = annotation
    if default is not ...:
        passing.__defaults__ = (default,)
    return pipeline(passing)


class Narrow(BaseModel):
    rows: int


class Wide(Narrow):
    folder: Path


class Loose(BaseModel):
    held: Any


@step
def shown(where: Path, day: date, colours: list[Colour], more: dict[str, Path]) -> str:
    return f"{where!r} {day!r} {colours} {more}"


@step
def named(**where: Path) -> str:
    return repr(where)


@step
def item(where: Path) -> str:
    return repr(where)


@step
def unknown(where) -> str:  # type: ignore[no-untyped-def]  # on purpose
    return repr(where)


@step
def narrow(model: Narrow) -> str:
    return repr(model)


@pipeline
def called(where: Path, day: date = date(2026, 1, 2)) -> Any:
    return shown(where, day, [Colour.BLUE], {"a": Path("i")})


@pipeline(context={"where": Path("c")})
def by_context() -> Any:
    return item()


@pipeline
def constants() -> dict[str, Any]:
    with for_each([Path("d"), Path("e")]) as each:
        looped = item(each)
    return {
        "direct": shown(Path("a"), date(2026, 1, 1), [Colour.RED], {}), "named": named(b=Path("b")),
        "mapped": item.map(where=[Path("f")]), "looped": looped,
        "called": called(Path("g")), "called with text": called("h"), "context": by_context(),
    }  # fmt: skip


@pytest.mark.parametrize("workers", WORKERS)
def test_a_constant_reaches_a_step_as_what_it_is(workers: Any) -> None:
    plan = constants.compile()
    assert decode(plan.canonical) == plan
    assert constants.run(on=LocalOrchestrator(workers=workers)).raise_for_status().outputs == {
        "direct": "PosixPath('a') datetime.date(2026, 1, 1) [<Colour.RED: 'red'>] {}",
        "named": "{'b': PosixPath('b')}",
        "mapped": ["PosixPath('f')"],
        "looped": ["PosixPath('d')", "PosixPath('e')"],
        "called": "PosixPath('g') datetime.date(2026, 1, 2) [<Colour.BLUE: 'blue'>] {'a': PosixPath('i')}",
        "called with text": "PosixPath('h') datetime.date(2026, 1, 2) [<Colour.BLUE: 'blue'>] {'a': PosixPath('i')}",
        "context": "PosixPath('c')",
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda: unknown(Path("x")), r"'where', which the pipeline gives as Path, but .*: where: Path\."),
        (lambda: unknown({"a": Path("x")}), r"'where', .* gives as dict\[str, pathlib\.Path\], but"),
        (lambda: called("x", "soon"), r"'day' is 'soon', which is not a date"),
        (lambda: called("x", LOGICAL_DATE), r"'day' is '<logical_date>', which is not a date"),
        (lambda: item(date(2026, 1, 1)), r"'where' is datetime\.date\(2026, 1, 1\), which is not a Path"),
        (lambda: item.map(where=[Path("x"), Colour.RED]), r"'where' is <Colour\.RED: 'red'>, which is not a Path"),
        (lambda: unknown(Loose(held=object())), r"Loose\(.* cannot be passed as JSON.*\(.*test_types\.py, line \d+\)"),
        (lambda: called(Loose(held=object())), r"Loose\(.* cannot be passed as JSON"),
        (lambda: narrow(Wide(rows=1, folder=Path("x"))), r"'model' is Wide\(.*, and a step would get Narrow\("),
    ],
)
def test_a_constant_that_a_step_would_get_as_another_value_is_refused(body: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        pipeline(name="mistake")(body).compile()


def test_a_run_refuses_a_loop_over_an_item_that_is_not_a_list() -> None:
    @pipeline
    def nested() -> None:
        with for_each([Path("d")], name="outer") as each, for_each(each, name="inner") as inner:
            item(inner)

    assert "Loop 'inner' goes over a value that is not a list" in str(nested.run().error)
