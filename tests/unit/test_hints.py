"""Command lines in messages name the target that was used."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.following import command_line, command_on
from flowyml.core.runs import Run
from flowyml.orchestrators import RemoteOrchestrator
from flowyml.orchestrators.targets import resolve
from tests.unit.commands import flowyml

ROOT = Path(__file__).resolve().parents[2]
# Those that find a run, a deployment or a schedule, and so need ``--on``.
OF_A_TARGET = re.compile(
    r"flowyml (status|watch|logs|artifacts|outputs|cancel|retry|trigger|clear|backfill|runs"
    r"|schedule (create|list|pause|resume|delete))\b|--on "
)


def test_no_message_of_an_adapter_spells_a_command_line_itself() -> None:
    """It would not know the target: ``command_line`` and ``command_on`` do."""
    found = []
    for path in (ROOT / "adapters").glob("*/*/**/*.py"):
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
        found += [(path, text) for text in texts if isinstance(text, str) and OF_A_TARGET.search(text)]
    assert found == []


def test_the_target_is_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__AF3__ENGINE", "airflow")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__AF3__URL", "http://127.0.0.1:9")
    assert command_on(resolve("af3"), "schedule resume", "a dag") == "flowyml schedule resume 'a dag' --on af3"
    assert command_on(resolve("airflow"), "cancel", "d/r") == "flowyml cancel d/r --on airflow"
    assert command_on(resolve("local"), "cancel", "r") == "flowyml cancel r"
    remote = RemoteOrchestrator("http://ada:secret@127.0.0.1:9", engine="airflow")
    assert command_on(remote, "runs") == command_on(remote.adapter, "runs") == "flowyml runs --on http://127.0.0.1:9"


def test_the_default_needs_no_option_unless_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_line("watch", "r") == command_line("watch", "r", on="local") == "flowyml watch r"
    monkeypatch.setenv("FLOWYML_ORCHESTRATOR", "af3")
    assert command_line("watch", "r", on="local") == "flowyml watch r --on local"


@pytest.mark.parametrize("words", ["trigger etl --run-id once", "backfill etl 2026-01-01 2026-01-02"])
def test_what_is_said_of_a_started_run_has_no_credentials_of_a_url(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(job_id="etl/once", run_id="once", pipeline="etl", status=ExecutionStatus.RUNNING, raw_status="running")
    engine = RemoteOrchestrator("http://me:word@example.org")
    started = SimpleNamespace(run=run, job_id=run.job_id, orchestrator=engine)
    monkeypatch.setattr(engine, "trigger", lambda *_, **__: started)
    monkeypatch.setattr(engine, "backfill", lambda *_, **__: [started])
    monkeypatch.setattr("flowyml.cli.operating.resolve", lambda _: engine)
    done = flowyml(*words.split())
    assert done.code == 0, done.err
    assert "with: flowyml watch " in done.err
    assert ("submitted" in done.err) is words.startswith("backfill"), "a run of that id may have been there"
    assert "--on http://example.org" in done.err
