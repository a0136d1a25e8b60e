"""What a value can do to those who only carry it: nothing, however deep it is nested."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, pipeline, step
from flowyml.artifacts import is_reference, open_store, pack, unpack
from flowyml.core.errors import DefinitionError, FlowymlError, ParameterError, StepFailedError
from flowyml.orchestrators import LocalOrchestrator
from flowyml.plan.parameters import DEEPEST, is_too_deep
from flowyml.runtime.processes import StepProcesses
from tests.unit.commands import flowyml

TOO_DEEP = rf"nested more than {DEEPEST} levels deep, .* Make it flatter"


def nested(levels: int) -> list[Any]:
    """Lists and dicts by turns, a list outside."""
    value: Any = [] if levels % 2 else {}
    for level in range(levels - 1):
        value = [value] if (levels - level) % 2 == 0 else {"a": value}
    return value  # type: ignore[no-any-return]  # the last is a list


def in_itself() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


@step(outputs=["levels"])
def measure(value: list[Any]) -> int:
    return len(json.dumps(value))


deep = Pipeline("deep", context=context(value=[])).add_step(measure)


@pytest.mark.parametrize("value", [nested(900), nested(50_000), in_itself()], ids=["900", "50000", "in itself"])
@pytest.mark.parametrize(
    "door",
    [
        lambda value: context(value=value),
        lambda value: Pipeline("constant in a context", context={"value": value}),
        lambda value: constant(value).compile(),
        lambda value: step(airflow={"queue": value})(print),
        lambda value: deep.run({"value": value}),
        lambda value: deep.submit({"value": value}, on="local"),
        lambda value: deep.submit({"value": value}, on="prefect"),
        lambda value: deep.submit({"value": value}, on="kubeflow"),
        lambda value: deep.schedule("cron", "0 0 * * *", on="local", parameters={"value": value}),
    ],
    ids=["context", "pipeline", "constant", "option", "run", "submit", "prefect", "kubeflow", "schedule"],
)
def test_what_is_nested_too_deep_is_refused_at_every_door(door: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises((DefinitionError, ParameterError), match=TOO_DEEP):
        door(value)


def constant(value: Any) -> Pipeline:
    @pipeline(name="constant")
    def whole() -> Any:
        return measure(value)

    return whole


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_what_is_nested_just_so_deep_is_carried(workers: str) -> None:
    value = nested(DEEPEST)
    assert not is_too_deep(value)
    assert is_too_deep([value])
    assert is_too_deep({"a": value})
    result = deep.run({"value": value}, on=LocalOrchestrator(workers=workers))
    assert result.outputs["levels"] == len(json.dumps(value))


def test_the_commands_refuse_it(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(
        "from flowyml import Pipeline, step\n@step(outputs=['n'])\ndef f(x: list) -> int:\n    return 1\n"
        "deep = Pipeline('deep', context={'x': []}).add_step(f)\n"
    )
    bundle = deep.bundle().write(tmp_path)
    for levels in (900, 50_000):
        text = "[" * levels + "]" * levels
        done = flowyml("run", str(tmp_path / "deep.py"), "-p", f"x={text}")
        assert done.code == 2
        assert f"nested more than {DEEPEST} levels deep" in done.err
        assert "Traceback" not in done.err
        command = [sys.executable, "-I", str(bundle), "step", "measure", "--parameters", f'{{"value": {text}}}']
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode in (1, 2)
        assert f"nested more than {DEEPEST} levels deep" in ran.stderr


def test_what_an_engines_form_took_is_refused_by_the_worker(tmp_path: Path) -> None:
    bundle = deep.bundle().write(tmp_path)
    with pytest.raises(ParameterError, match=TOO_DEEP):
        StepProcesses(bundle, run_id="r", artifacts=str(tmp_path), parameters={"value": nested(900)})
    steps = StepProcesses(bundle, run_id="r", artifacts=str(tmp_path))
    with steps, pytest.raises(FlowymlError, match=TOO_DEEP):
        steps.run("measure", {"value": nested(300)})


def test_a_deep_output_is_an_artifact(tmp_path: Path) -> None:
    """Only parameters and constants have the limit: an output that is deeper travels as an artifact."""
    value = nested(300)
    packed = pack(value, open_store(tmp_path), key="a")
    assert is_reference(packed)
    assert unpack(packed, open_store(tmp_path)) == value


HALVED, ZERO = "half \ud83d", "zero \0"


@step(outputs=["nothing"], description=HALVED)
def fails() -> None:
    raise ValueError(f"{HALVED}, {ZERO}")


def test_half_a_surrogate_pair_in_a_description_stops_at_the_door() -> None:
    """Prefect answers 500 to it, and libyaml refuses a file with it."""
    plan = Pipeline("halved", description=HALVED).add_step(fails).compile()
    assert [plan.description, *(item.description for item in plan)] == ["half \\ud83d"] * 2


def test_an_error_that_engines_could_not_keep_is_kept_as_text(tmp_path: Path) -> None:
    """Prefect's flow died of it, and so the error was lost."""
    bundle = Pipeline("halved").add_step(fails).bundle().write(tmp_path)
    with (
        StepProcesses(bundle, run_id="r", artifacts=str(tmp_path)) as processes,
        pytest.raises(StepFailedError) as caught,
    ):
        processes.run("fails", {})
    assert str(caught.value) == "ValueError: half \\ud83d, zero \\x00"
    assert caught.value.traceback.isascii()


def test_an_id_that_is_not_text_is_unknown(tmp_path: Path) -> None:
    """An argument of a command that is not UTF-8 becomes halves of surrogate pairs, which SQLite does not take."""
    local, name = LocalOrchestrator(store=tmp_path / "runs.db"), "\udcff\udcfe"
    assert local.runs(name) == []
    assert local.schedules(name) == []
    for ask in (local.get_run, local.cancel, local.pause_schedule, local.delete_schedule):
        with pytest.raises(LookupError):
            ask(name)
