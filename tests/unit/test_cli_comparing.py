"""What ran with which parameters and metrics, and what differs between two runs, from the command line."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from flowyml import pipeline, step
from flowyml.orchestrators import LocalOrchestrator
from tests.unit.commands import flowyml, on_a_terminal

SCORING = """
import numpy
from flowyml import pipeline, step

@step(cache=True)
def load(rows: int) -> list[int]:
    return [int(n) for n in numpy.arange(rows)]

@step
def score(load: list[int], scale: float) -> dict[str, float]:
    return {"accuracy": sum(load) * scale, "size": 1.0}

@pipeline
def scoring(rows: int = 3, scale: float = 0.5, label: str = "plain"):
    return score(load(rows), scale)
"""


@pytest.fixture(autouse=True)
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs ``one`` and ``two``, of other code and with another parameter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWYML_HOME", str(tmp_path / "home"))
    file = tmp_path / "scoring.py"
    for run_id, code, rows in (("one", SCORING, 3), ("two", SCORING.replace("sum(load)", "max(load)"), 5)):
        file.write_text(code)
        assert flowyml("run", "scoring.py", "--run-id", run_id, "-p", f"rows={rows}").code == 0


def test_runs_show_parameters_and_metrics_on_demand() -> None:
    assert "rows" not in flowyml("runs").out
    listed = flowyml("runs", "--parameters", "--metrics").out.splitlines()
    assert "rows=5, scale=0.5, label='plain'  score.accuracy=2.0, score.size=1.0" in listed[1]
    assert "score.accuracy=1.5" in listed[2]
    assert [run["metrics"] for run in flowyml("runs", "--metrics", "--json").json] == [
        {"score.accuracy": 2.0, "score.size": 1.0}, {"score.accuracy": 1.5, "score.size": 1.0},
    ]  # fmt: skip


def test_the_notes_of_steps_have_a_head() -> None:
    status = flowyml("status", "one").out.splitlines()
    assert any(line.split() == ["STEP", "STATUS", "TOOK", "ATTEMPT", "NOTE"] for line in status)


def test_a_run_whose_code_was_not_saved_and_one_of_another_plan_are_compared() -> None:
    @step
    def one() -> int:
        return 1

    @pipeline
    def unsaved() -> int:
        return one()

    ran = unsaved.run(on=LocalOrchestrator()).run_id
    err = flowyml("compare", "one", ran).err
    assert "pipeline.run() saves the code of failed runs only" in err
    assert "retry" not in err
    assert flowyml("run", "scoring.py", "--run-id", "three", "--refresh").code == 0
    rows = [line.partition("  ")[0] for line in flowyml("compare", "two", "three").out.splitlines()]
    assert "plan of the steps" in rows
    assert not any(row.startswith("code ") for row in rows)


def test_two_runs_are_compared() -> None:
    found = flowyml("compare", "one", "two", "--json").json
    assert [run["run_id"] for run in found["runs"]] == ["one", "two"]
    assert "scoring.py" in [change["name"] for change in found["code"]]
    assert found["parameters"] == [{"name": "rows", "before": 3, "after": 5}]
    assert found["metrics"] == [{"name": "score.accuracy", "before": 1.5, "after": 2.0}]
    assert found["packages"] == []
    assert [[step["name"] for step in steps] for steps in found["steps"]] == [["load", "score"]] * 2
    assert found["not_recorded"] == []
    shown = flowyml("compare", "one", "two").out
    assert "\nparameter rows         3  " in shown
    assert "\nstep score             COMPLETED" in shown


def test_an_upgraded_package_of_a_cached_step_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowyml.runtime.caching._installed", lambda name: "0.1")
    assert flowyml("run", "scoring.py", "--run-id", "upgraded", "-p", "rows=5").code == 0
    found = flowyml("compare", "two", "upgraded", "--json").json
    assert found["packages"] == [{"name": "numpy", "before": version("numpy"), "after": "0.1"}]
    assert (found["code"], found["parameters"]) == ([], [])


def test_a_narrow_terminal_stacks_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = on_a_terminal("compare", "one", "two")
    assert max(map(len, lines)) <= 40
    assert lines[lines.index("parameter rows") + 1] == "  one 3, two 5"
    assert max(map(len, on_a_terminal("runs", "--parameters", "--metrics"))) <= 40


HELPED = """
from flowyml import pipeline, step
from helper import draw

@step
def drawn(n: int) -> int:
    import typer
    return draw(n)

@pipeline
def drawing(n: int = 1):
    return drawn(n)
"""
HELPER = "import numpy, json\ndef draw(n): return int(numpy.ones(n).sum())\n"


@pytest.mark.processes
@pytest.mark.parametrize("options", [(), ("--detach",)], ids=["here", "detached"])
def test_versions_of_what_the_code_imports_are_recorded(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Of steps that are not cached, through the project's modules and inside functions, here and in a bundle."""
    (tmp_path / "drawing.py").write_text(HELPED)
    (tmp_path / "helper.py").write_text(HELPER)
    for run_id in ("three", "four"):
        assert flowyml("run", "drawing.py", "--run-id", run_id, *options).code == 0
        assert flowyml("watch", run_id).code == 0
    local = LocalOrchestrator()
    assert dict(local.get_run("three").packages) == {"numpy": version("numpy"), "typer": version("typer")}
    local.store.note_packages("four", {"numpy": "0.1", "typer": version("typer"), "more": "1"})
    found = flowyml("compare", "three", "four", "--json").json
    assert found["packages"] == [{"name": "numpy", "before": version("numpy"), "after": "0.1"}]
    assert found["not_recorded"] == []
    local.store.note_packages("four", {})
    assert flowyml("compare", "three", "four", "--json").json["not_recorded"] == [
        "versions of packages: recorded for three only",
    ]


MEASURED = """
import json
from pathlib import Path
from flowyml import pipeline, step

@step(cache=True)
def weigh(item: int, rows: Path) -> int:
    weights = json.loads((Path(__file__).parent / "weights.json").read_text())
    return item * weights["scale"] + len(rows.read_text())

@pipeline
def measured(items: list[int] = [1, 2, 3]):
    return weigh.partial(rows=Path("rows.csv").absolute()).map(item=items)
"""


def test_the_data_files_that_changed_are_named(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(MEASURED)
    (tmp_path / "rows.csv").write_text("one")
    (tmp_path / "weights.json").write_text('{"scale": 1}')
    assert flowyml("run", "measured.py", "--run-id", "before").code == 0
    (tmp_path / "weights.json").write_text('{"scale": 2}')
    assert flowyml("run", "measured.py", "--run-id", "weighed").code == 0
    explained = flowyml("cache", "explain", "weigh").out.splitlines()
    why = "it ran, because this has changed since run before:"
    assert explained == [f"weigh (3 items) of run weighed: {why}", "  weights.json changed"]
    (change,) = flowyml("compare", "before", "weighed", "--json").json["data"]
    assert change["name"] == "weights.json"
    assert None not in change.values()
    (tmp_path / "rows.csv").write_text("two")
    assert flowyml("run", "measured.py", "--run-id", "filled").code == 0
    assert "\ndata of weigh.rows " in flowyml("compare", "weighed", "filled").out


def test_of_very_many_data_files_the_plan_has_one_digest(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(MEASURED.replace("weights.json", "*.json").replace(".read_text())", ".name)"))
    for number in range(21):
        (tmp_path / f"{number}.json").write_text("1")
    plan = flowyml("compile", "measured.py", "--to", "plan").json
    assert [*plan["steps"][0]["caching"]["data"]] == ["one of its data files"]
    (tmp_path / "20.json").write_text("2")
    assert flowyml("compile", "measured.py", "--to", "plan").json != plan


def test_a_loop_says_how_many_of_its_items_were_cached(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(MEASURED)
    (tmp_path / "rows.csv").write_text("one")
    (tmp_path / "weights.json").write_text('{"scale": 1}')
    for run_id, items in (("first", "[1, 2, 3]"), ("second", "[1, 2, 4]"), ("third", "[1, 2, 3]")):
        assert flowyml("run", "measured.py", "--run-id", run_id, "-p", f"items={items}").code == 0
    assert "  2 of 3 cached from first\n" in flowyml("status", "second").out
    assert "2 of 3 cached from first" in flowyml("compare", "first", "second").out
    (line,) = flowyml("cache", "explain", "weigh").out.splitlines()
    assert line.startswith("weigh (3 items) of run third: a hit: the result of run first, ")
