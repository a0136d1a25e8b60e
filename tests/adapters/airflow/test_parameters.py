"""Integers of more than 64 bits are refused before Airflow 3 gets them; Airflow 2 hands values on as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flowyml import DATA_INTERVAL_START, LOGICAL_DATE, Pipeline, context, step
from flowyml.core.errors import FlowymlError, ParameterError
from flowyml.core.schedule import Schedule
from flowyml.plan.layout import source
from flowyml.plan.model import Parameter
from flowyml_airflow import AirflowOrchestrator
from flowyml_airflow.parameters import SIXTY_FOUR_BITS, check_carried, filled, param
from tests.adapters.airflow.test_client import Answer, site
from tests.engines.web import Recorded

LARGE = 2**64
DAY = {"format": "date", "type": "string"}
REFUSED = rf"'number' contains {LARGE}, but Airflow 3 carries 64-bit integers: from -2\*\*63 to 2\*\*64 - 1"


@pytest.mark.parametrize(
    "value", [2**64 - 1, -(2**63), True, 1e18, 1e-300, float("inf"), [{"a": [2**64 - 1]}], str(LARGE), None]
)
def test_what_64_bits_hold_passes(value: Any) -> None:
    check_carried({"number": value}, SIXTY_FOUR_BITS)


@pytest.mark.parametrize("value", [LARGE, -(2**63) - 1, [1, LARGE], {"a": {"b": [LARGE]}}])
def test_what_they_do_not_hold_is_named(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"'number' contains -?\d+, but Airflow 3 .* Declare it as text\."):
        check_carried({"good": 1, "number": value}, SIXTY_FOUR_BITS)
    check_carried({"number": value}, None)


@pytest.mark.parametrize("value", [1e22, -1e300, [{"a": float(LARGE)}]])
def test_a_float_that_postgresql_makes_such_an_integer_is_named(value: Any) -> None:
    """The task of the run would die without an error."""
    with pytest.raises(ParameterError, match=r"'number' contains .*e\+\d+, which PostgreSQL stores as an integer, but"):
        check_carried({"good": 1.5, "number": value}, SIXTY_FOUR_BITS)
    check_carried({"number": value}, None)


@pytest.mark.parametrize("value", ["a\0b", ["a\0"], {"\0": 1}, [{"a": ["\0"]}]])
def test_a_character_zero_is_refused_before_anything_is_sent(value: Any) -> None:
    with pytest.raises(ParameterError, match=r"'text' contains a NUL character, which PostgreSQL"):
        check_carried({"good": "a", "text": value}, None)


def test_a_date_of_the_run_is_an_empty_field_of_the_form() -> None:
    """And what FlowyML gives its runs, the name of the date, fits too; where None is a value, the name is shown."""
    night = Parameter(
        name="night", schema={"anyOf": [{"type": "string", "const": LOGICAL_DATE}, DAY]}, default=LOGICAL_DATE
    )
    made = eval(f"{{{source(param(night, {}))}}}", {"Param": lambda default, **schema: (default, schema)})
    default, schema = made["night"]
    assert default is None
    assert schema["description"] == "Leave it empty for the run's logical date."
    for fits in (None, LOGICAL_DATE, "2026-03-01"):
        Draft202012Validator(schema).validate(fits)
    text = Parameter(name="since", schema={"type": "string"}, default=DATA_INTERVAL_START)
    assert source(param(text, {})).startswith('"since": Param(None, type=["null", "string"], description=')
    assert source(param(text, {"since": "2026-03-01"})) == '"since": Param("2026-03-01", type="string")'
    optional = Parameter(name="until", schema={"anyOf": [DAY, {"type": "null"}]}, default=LOGICAL_DATE)
    assert f'Param("{LOGICAL_DATE}"' in source(param(optional, {})).replace("\n    ", "")
    values = {"night": None, "since": "2026-03-01", "until": None, "rows": None}
    assert filled(values, [night, text, optional]) == {**values, "night": LOGICAL_DATE}


def knowing_no_dag(api: str, asked: list[str]) -> Answer:
    """The version page of an Airflow that has nothing else, and notes what it is asked for."""

    def answer(request: Recorded) -> tuple[int, str, str]:
        asked.append(request.path)
        return (200 if request.path == f"/api/{api}/version" else 404), "application/json", '{"version": "3.2.0"}'

    return answer


def numbered(default: int) -> Pipeline:
    @step(outputs=["made"])
    def work(number: int) -> int:
        return number

    return Pipeline("numbered", context=context(number=default)).add_step(work)


def orchestrator_at(url: str, folder: Path) -> AirflowOrchestrator:
    return AirflowOrchestrator(url, auth="t", dags_folder=folder)


def test_a_run_and_a_schedule_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    schedule = Schedule(cron="0 3 * * *", parameters={"number": LARGE})
    asked: list[str] = []
    with site(knowing_no_dag("v2", asked)) as url:
        orchestrator = orchestrator_at(url, tmp_path)
        with pytest.raises(ParameterError, match=REFUSED):
            numbered(1).submit({"number": LARGE}, on=orchestrator)
        with pytest.raises(ParameterError, match=REFUSED):
            orchestrator.create_schedule(numbered(1).bundle(orchestrator.plan(numbered(1))), schedule)
        assert asked == ["/api/v2/version"]


def test_an_interval_that_a_run_by_hand_lacks_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    @step
    def count(since: str) -> int:
        return len(since)

    asked: list[str] = []
    with site(knowing_no_dag("v2", asked)) as url:
        for since in (DATA_INTERVAL_START, "<data_interval_end>"):
            made = Pipeline("since", context=context(since=since)).add_step(count)
            with pytest.raises(ParameterError, match=r"run's data_interval_.*, but this run has none"):
                made.submit(on=orchestrator_at(url, tmp_path))
    assert asked == []


def test_a_default_is_refused_since_it_stands_in_the_dag(tmp_path: Path) -> None:
    with site(knowing_no_dag("v2", [])) as url, pytest.raises(ParameterError, match=REFUSED):
        orchestrator_at(url, tmp_path).deploy_pipeline(numbered(LARGE))
    assert not list(tmp_path.iterdir())


def test_airflow_2_is_given_them(tmp_path: Path) -> None:
    asked: list[str] = []
    with site(knowing_no_dag("v1", asked)) as url:
        with pytest.raises(FlowymlError) as caught:  # it has no DAG and no pool
            numbered(1).submit({"number": LARGE}, on=orchestrator_at(url, tmp_path))
        assert not isinstance(caught.value, ParameterError)
        assert any("/dags/numbered" in path for path in asked)
