"""Values cross Airflow as they were, whatever its database and its serializers make of JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowyml import Pipeline, context, for_each, pipeline, step
from flowyml.core.errors import OutputNotKeptError
from flowyml.core.execution_status import ExecutionStatus
from flowyml_airflow.xcoms import carried
from tests.adapters.airflow import dags
from tests.adapters.airflow.operating import orchestrator_of
from tests.engines.airflow import Airflow

VALUES: tuple[Any, ...] = (
    10.0, -0.0, 0.0, 0.1, 0.1 + 0.2, 1e300, 5e-324, 1e22, 123456789.12345679, 2**63 - 1, -(2**63), 0, True, False, None,
    "", "10.0", "null", "{}", '{"$json": "1"}', [], {}, [10.0, -0.0, [1.0]], {"b": 1.0, "a": -0.0, "10": {"z": [1.0]}},
    1e16, [1e-7, 5e-324], {"b": [1, 2.0, None], "a": {"é": "10"}, "": 2**63 - 1}, {"__id__": 1}, {"a": {"$json": "1"}},
    {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]}, {"__type": "set", "__var": [1]},
    [{"__classname__": "no.such.Class"}], {"$json": "1"}, {"$json": {"a": 1}}, {"$artifact": {"url": "x"}},
)  # fmt: skip

NAMES = [f"v{number}" for number in range(len(VALUES))]
NATIVE: tuple[Any, ...] = (
    10.0, 0.1 + 0.2, 2**63 - 1, True, "ten", [], {}, [1e-7, 5e-324], {"b": [1, 2.0, None], "a": {"é": "10"}},
)  # fmt: skip


def exact_values() -> Pipeline:
    """Its functions travel by value: this module needs pytest, which Airflow's workers have not."""
    values = VALUES

    @step(outputs=NAMES)
    def make() -> tuple[Any, ...]:
        return values

    @step(outputs=["seen"], inputs=NAMES)  # exact but for the order of keys
    def see(**values: Any) -> dict[str, str]:
        return {name: json.dumps(value, sort_keys=True) for name, value in values.items()}

    @step(outputs=["whole"])
    def whole() -> float:
        return 10.0

    @step(outputs=["parameters"])
    def tell(rate: float, given: list[Any]) -> str:
        return json.dumps([rate, given])

    outputs = [*NAMES, "seen", "whole", "parameters"]
    pipeline = Pipeline("exact values", outputs=outputs, context=context(rate=0.5, given=[]))
    return pipeline.add_step(make).add_step(see).add_step(whole).add_step(tell)


@pytest.mark.parametrize("value", NATIVE, ids=repr)
def test_what_comes_back_as_it_was_is_native(value: Any) -> None:
    assert carried(value) is value


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.beside
def test_values_come_back_as_they_were(airflow: Airflow) -> None:
    """Apart from the order of keys, and from 10.0 alone on SQLite. Each output is one XCom."""
    orchestrator = orchestrator_of(airflow)
    parameters = {"rate": -0.0, "given": [{"zebra": 1, "b": -0.0}, 1e17, 2.0]}
    handle = exact_values().submit(parameters, on=orchestrator)
    handle.wait_for_completion(2400, progress=False)
    assert handle.status.is_successful, handle.error
    kept = [_on_sqlite(value) if airflow.major == 3 and not airflow.database else value for value in VALUES]
    expected = {name: json.dumps(value, sort_keys=True) for name, value in zip(NAMES, kept, strict=True)}
    outputs = handle.outputs
    assert outputs["seen"] == expected, "in the next step"
    assert outputs["parameters"] == json.dumps([*parameters.values()]), "with the order of keys"
    assert {name: json.dumps(value) for name, value in handle.run.parameters.items()} == {
        name: json.dumps(value) for name, value in parameters.items()
    }
    assert {name: json.dumps(outputs[name], sort_keys=True) for name in NAMES} == expected, "where outputs are read"
    dag, _, run = handle.job_id.partition("/")
    client = orchestrator.client
    path = f"{client.api}/dags/{dag}/dagRuns/{run}/taskInstances"
    pushed = {
        task: {each["key"] for each in client.transport.get(f"{path}/{task}/xcomEntries")["xcom_entries"]}
        for task in ("make", "see", "whole")
    }
    assert pushed == {"make": {*NAMES}, "see": {"return_value"}, "whole": {"return_value"}}
    assert client.xcom(dag, run, "see") == expected, "as any DAG reads it"


def _on_sqlite(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e16 else value


def texts() -> Pipeline:
    """Texts of 60,000 bytes, which are 180,000 bytes of Airflow's JSON, and a list of them; none is stored."""

    @step
    def large(n: int) -> str:
        return "é" * 30_000

    @step
    def lengths(large: str, each: list[str]) -> list[int]:
        return [len(text) for text in [large, *each]]

    @pipeline(name="values elsewhere")
    def made() -> Any:
        one, each = large.options(name="one")(1), large.map(n=[1, 2])
        return {"one": one, "each": each, "lengths": lengths(one, each)}

    return made


@pytest.mark.airflow
@pytest.mark.slow
def test_a_value_that_airflow_keeps_elsewhere_and_does_not_give_is_named(frail3: Airflow) -> None:
    """``FRAIL`` has an XCom backend for values of 100,000 bytes and more."""
    handle = texts().submit(on=orchestrator_of(frail3))
    handle.wait_for_completion(2400, progress=False)
    assert handle.outputs == {"lengths": [30_000] * 3}, handle.error
    for name, task in (("one", "one"), ("each", "large")):
        with pytest.raises(
            OutputNotKeptError, match=rf"stores '\w+' of task '{task}' at file://.*/{task}/.*set \[common"
        ):
            handle.outputs[name]


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.beside
def test_airflow_2_gives_such_a_value_if_it_may(airflow2: Airflow) -> None:
    """By its setting ``[api] enable_xcom_deserialize_support``."""
    handle = texts().submit(on=orchestrator_of(airflow2))
    handle.wait_for_completion(2400, progress=False)
    text = "é" * 30_000
    assert handle.outputs == {"one": text, "each": [text, text], "lengths": [30_000] * 3}, handle.error


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.beside
def test_pickles_and_long_loops(airflow3: Airflow) -> None:
    """A bundle brings cloudpickle along for functions that travel by value alone: here all are of a module.

    Airflow has a limit of its own for loops: `[core] max_map_length`, 1,024 unless it is set.
    """
    pickled = dags.pickled.submit(on=orchestrator_of(airflow3))

    @step
    def half(n: int) -> float:
        return n / 2

    @pipeline(name="more than a map")
    def made(numbers: list[int]) -> Any:
        with for_each(numbers, name="numbers") as n:
            return half(n)

    handle = made.submit({"numbers": list(range(1025))}, on=orchestrator_of(airflow3))
    assert pickled.wait_for_completion(2400, progress=False).outputs == {"text": "((1, 2.5), {1: 'one'}, nan)"}
    handle.wait_for_completion(2400, progress=False)
    assert handle.status is ExecutionStatus.FAILED
    assert "Loop 'numbers' has 1025 items, but this Airflow maps over at most 1024. Raise [core] max_map_length" in (
        handle.error or ""
    )
