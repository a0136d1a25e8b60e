"""The command line and RemoteOrchestrator on a real Prefect, which is named by its URL alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from flowyml.cli import main
from flowyml.core.errors import RunNotFoundError
from flowyml.orchestrators import RemoteOrchestrator
from flowyml.orchestrators.targets import resolve

pytestmark = pytest.mark.prefect

PIPELINE = """
from flowyml import pipeline, step

@step
def double(rows: int) -> int:
    print(f"doubling {rows}")
    return 2 * rows

@pipeline
def counted(rows: int = 3):
    return {"doubled": double(rows)}

counted.submit()
"""

Ask = Callable[..., Any]


@pytest.fixture
def ask(prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Runs a command on that Prefect and gives its exit code and its JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("counted.py").write_text(PIPELINE)

    def ask(*words: str, on: str = prefect_url) -> tuple[int, Any]:
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = main([*words, "--on", on, "--json"])
        return code, json.loads(out.getvalue() or err.getvalue())

    yield ask
    sys.modules.pop("counted", None)


def test_a_run_from_its_start_to_its_outputs(ask: Ask, prefect_url: str) -> None:
    code, run = ask("run", "counted.py", "-p", "rows=4")
    assert code == 0
    assert (run["orchestrator"], run["status"], run["outputs"]) == ("prefect", "COMPLETED", {"doubled": 8})
    assert [step["status"] for step in run["steps"]] == ["COMPLETED"]
    job = run["job_id"]
    for named in (job, job[:8], run["run_id"], run["run_id"][-8:]):  # the last is the short id
        assert ask("status", named)[1]["job_id"] == job
        with redirect_stdout(StringIO()) as out:
            assert main(["logs", named, "--on", prefect_url]) == 0
        assert "doubling 4" in out.getvalue()
    assert ask("outputs", job) == (0, {"doubled": 8})
    assert ask("cancel", job)[1] == {"job_id": job, "cancelled": False, "status": "COMPLETED"}
    assert job in [found["job_id"] for found in ask("runs", "--pipeline", "counted")[1]]
    again = ask("run", "counted.py", "--run-id", run["run_id"], "-p", "rows=4")[1]
    assert again["job_id"] == job


def test_a_url_becomes_the_orchestrator_of_its_engine(prefect_url: str) -> None:
    for url in (prefect_url, f"{prefect_url}/", f"{prefect_url}/api"):
        remote = resolve(url)
        assert isinstance(remote, RemoteOrchestrator)
        assert remote.name == "prefect"
        assert remote.health().reachable
        with pytest.raises(RunNotFoundError):
            remote.get_run_status("nope")
