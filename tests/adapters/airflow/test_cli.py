"""The command line with Airflow: what compiling needs no Airflow for, and deploying and schedules on a real one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from flowyml.cli import main
from tests.engines.airflow import Airflow
from tests.waiting import wait_until

PIPELINE = """
from flowyml import pipeline, step

@step
def double(rows: int) -> int:
    return 2 * rows

@pipeline(name="made_by_cli")
def doubled(rows: int = 3):
    return {"doubled": double(rows)}
"""
TARGETS = """
[orchestrators.airflow]
url = "https://airflow.example.org"
artifacts = "s3://bucket/all"

[orchestrators.prod]
engine = "airflow"
python = "/opt/ml/bin/python"
"""

Ask = Callable[..., str]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Runs a command that goes well, and gives what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("by_cli.py").write_text(PIPELINE)

    def ask(*words: str) -> str:
        sys.modules.pop("by_cli", None)
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = main(list(words))
        assert code == 0, err.getvalue()
        return out.getvalue()

    yield ask
    sys.modules.pop("by_cli", None)


def test_compile_uses_what_the_target_says(ask: Ask) -> None:
    Path("flowyml.toml").write_text(TARGETS)
    dag = ask("compile", "by_cli.py", "--to", "prod")
    assert 'PYTHON = "/opt/ml/bin/python"  #' in dag
    assert 'ARTIFACTS = "s3://bucket/all"  #' in dag
    plain = ask("compile", "by_cli.py", "--to", "airflow")
    assert "PYTHON = sys.executable  #" in plain
    Path("flowyml.toml").unlink()
    assert "ARTIFACTS = None  #" in ask("compile", "by_cli.py", "--to", "airflow")
    Path("by_cli.py").write_text(PIPELINE.replace("(name=", '(airflow={"python": "/its/own"}, name='))
    Path("flowyml.toml").write_text(TARGETS)
    assert 'PYTHON = "/its/own"' in ask("compile", "by_cli.py", "--to", "prod"), "the pipeline's own option wins"


def test_compile_writes_over_no_file_that_was_written_by_hand(ask: Ask) -> None:
    """The pipeline's own file has the name that its DAG file gets."""
    Path("dags").mkdir()
    source = Path("dags/made_by_cli.py")
    source.write_text(PIPELINE)
    by_hand = Path("dags/other.py")
    by_hand.write_text("# a DAG of our own")
    for place, reason in (("dags/", "is source code of this pipeline"), (str(by_hand), "was not written by FlowyML")):
        with pytest.raises(AssertionError, match=reason):
            ask("compile", str(source), "--to", "airflow", "-o", place)
    assert (source.read_text(), by_hand.read_text()) == (PIPELINE, "# a DAG of our own")
    assert len(list(Path("dags").rglob("*.py*"))) == 2
    by_hand.unlink()
    for _ in range(2):
        assert ask("compile", str(source), "--to", "airflow", "-o", str(by_hand)).startswith(f"{by_hand}\n")


def test_compile_writes_the_dag_file_last(ask: Ask) -> None:
    """Airflow may look at any time: code is never without its `.airflowignore`, nor a DAG without its code."""
    Path("dags/flowyml_bundles/.airflowignore").mkdir(parents=True)
    with pytest.raises(AssertionError, match="cannot be written"):
        ask("compile", "by_cli.py", "--to", "airflow", "-o", "dags/")
    assert [path for path in Path("dags").rglob("*") if path.is_file()] == []
    Path("dags/flowyml_bundles/.airflowignore").rmdir()
    Path("dags/made_by_cli.py").mkdir()
    with pytest.raises(AssertionError, match="cannot be written"):
        ask("compile", "by_cli.py", "--to", "airflow", "-o", "dags/")
    assert {path.suffix for path in Path("dags").rglob("*") if path.is_file()} == {"", ".json", ".py", ".pyz"}


@pytest.fixture
def on(airflow3: Airflow, monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """The Airflow as the target ``airflow`` of the environment."""
    for name, value in (
        ("URL", airflow3.url),
        ("USERNAME", airflow3.username),
        ("PASSWORD", airflow3.password),
        ("DAGS_FOLDER", str(airflow3.dags_folder)),
        ("DEPLOY_TIMEOUT", "240"),
    ):
        monkeypatch.setenv(f"FLOWYML_ORCHESTRATORS__AIRFLOW__{name}", value)
    return airflow3


@pytest.mark.airflow
@pytest.mark.slow
def test_deploy_shows_before_what_would_change(ask: Ask, on: Airflow) -> None:
    path = on.dags_folder / "made_by_cli.py"
    new = ask("deploy", "by_cli.py", "--on", "airflow", "--dry-run")
    assert new.startswith("--- /dev/null\n+++ new/made_by_cli.py\n@@ ")
    assert not path.exists()

    assert "made_by_cli deployed, version " in ask("deploy", "by_cli.py", "--on", "airflow")
    assert ask("deploy", "by_cli.py", "--on", "airflow", "--dry-run") == "Nothing would change.\n"
    assert json.loads(ask("deploy", "by_cli.py", "--on", "airflow", "--dry-run", "--json")) == {"diff": ""}
    assert "made_by_cli already deployed" in ask("deploy", "by_cli.py", "--on", "airflow")

    before = path.read_bytes()
    Path("by_cli.py").write_text(PIPELINE.replace("rows: int = 3", "rows: int = 4"))
    changed = ask("deploy", "by_cli.py", "--on", "airflow", "--dry-run").splitlines()
    assert changed[:2] == ["--- deployed/made_by_cli.py", "+++ new/made_by_cli.py"]
    assert '-    params={"rows": Param(3, type="integer")},' in changed
    assert '+    params={"rows": Param(4, type="integer")},' in changed
    assert path.read_bytes() == before


@pytest.mark.airflow
@pytest.mark.slow
def test_a_schedule_that_was_changed_by_hand_is_shown(ask: Ask, on: Airflow) -> None:
    def listed() -> str:
        return ask("schedule", "list", "--on", "airflow", "--pipeline", "made_by_cli")

    ask("schedule", "create", "by_cli.py", "daily", "4", "--on", "airflow", "--force")  # it may be another test's
    assert "made_by_cli" in listed()
    assert "by hand" not in listed()
    path = on.dags_folder / "made_by_cli.py"
    path.write_text(path.read_text().replace("0 4 * * *", "0 5 * * *"))
    shown = wait_until(
        lambda: (text := listed()) and "made_by_cli.py was changed by hand: deploy again" in text and text
    )
    assert "not what Airflow has read" not in shown
    (plain,) = json.loads(ask("schedule", "list", "--on", "airflow", "--pipeline", "made_by_cli", "--json"))
    assert plain["drift"] == ["made_by_cli.py was changed by hand: deploy again, or put the change into the pipeline."]

    with pytest.raises(AssertionError, match="was edited after FlowyML wrote it"):
        ask("schedule", "create", "by_cli.py", "daily", "4", "--on", "airflow")
    ask("schedule", "create", "by_cli.py", "daily", "4", "--on", "airflow", "--force")
    assert "by hand" not in listed()
    assert ask("trigger", "made_by_cli", "-p", "rows=4", "--run-id", "t1", "--on", "airflow") == "made_by_cli/t1\n"
    assert '"rows": 4' in ask("status", "made_by_cli/t1", "--on", "airflow", "--json")
    with pytest.raises(AssertionError, match="has no failed tasks to run again"):
        ask("clear", "made_by_cli/t1", "--on", "airflow")
    with pytest.raises(AssertionError, match="it has no parameter 'rosw'; did you mean 'rows'"):
        ask("backfill", "made_by_cli", "2026-03-01", "2026-03-31", "-p", "rosw=4", "--on", "airflow")
    with pytest.raises(AssertionError, match="END 'March' is not a date"):
        ask("backfill", "made_by_cli", "2026-03-01", "March", "--on", "airflow")
    ask("schedule", "delete", "made_by_cli", "--on", "airflow")
    assert listed() == ""
