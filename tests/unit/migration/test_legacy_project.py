"""A project that was written for 0.x goes through `flowyml migrate`, and runs on 1.0."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("libcst")

from flowyml.cli import main
from flowyml.migration.legacy.migrate import migrate
from flowyml.migration.legacy.python import migrate_python

PROJECT = Path(__file__).resolve().parents[2] / "golden" / "migrate"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, as it was written for 0.x, and the working folder."""
    shutil.copytree(PROJECT / "before", tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr("flowyml.migration.legacy.pins.__version__", "1.0.0")
    return tmp_path / "project"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(project), "FLOWYML_HOME": str(project.parent / "home")}
    command = [sys.executable, "-W", "error", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=2400)


@pytest.mark.slow
def test_the_project_is_what_a_person_would_have_written(
    project: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    before = files(project)
    assert main(["migrate", "."]) == 0
    shown = capsys.readouterr().out
    assert "+from flowyml import Pipeline, context, step\n" in shown
    assert files(project) == before, "only --write writes"

    assert main(["migrate", ".", "--write"]) == 0
    said = capsys.readouterr().out
    golden = PROJECT / "after"
    if request.config.getoption("--update-golden"):
        shutil.rmtree(golden, ignore_errors=True)
        shutil.copytree(project, golden)
        (golden / "checklist.txt").write_text(said)
    expected = files(golden)
    assert said == expected.pop("checklist.txt").decode()
    assert files(project) == expected
    assert (project / "ci" / "nightly.sh").stat().st_mode & 0o777 == 0o755
    assert b"\r\n" in (project / "requirements.txt").read_bytes()

    assert main(["migrate", ".", "--write"]) == 0
    assert files(project) == expected, "the second time changes nothing"
    assert "changed " not in capsys.readouterr().out


@pytest.mark.slow
def test_the_project_runs_on_1_0(project: Path) -> None:
    assert run(project, "nightly/pipelines.py").returncode != 0, "it was written for 0.x"
    main(["migrate", ".", "--write"])

    done = run(project, "nightly/pipelines.py")
    assert done.returncode == 0, done.stderr
    assert "train took 0.0s\n" in done.stdout
    assert "forecast is done: [103.0," in done.stdout

    done = run(project, "nightly/launch.py")
    assert done.returncode == 0, done.stderr
    assert "Job completed: forecast-" in done.stdout
    assert "all is well\n2 more\n" in done.stdout


def test_ci_is_told_by_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "train.py"
    script.write_text("from flowyml.core.pipeline import Pipeline\nPipeline('p').run()\n")
    assert main(["migrate", str(tmp_path), "--check"]) == 1
    assert main(["migrate", str(tmp_path), "--check", "--write"]) == 0
    assert main(["migrate", str(tmp_path), "--check"]) == 0, "tests that a person runs do not hold CI up"
    script.write_text(script.read_text() + "if job.status == 'FAILED':\n    pass\n")
    assert main(["migrate", str(tmp_path), "--check"]) == 1
    script.write_text(script.read_text().replace("FAILED':", "FAILED':  # flowyml-migrate: ok"))
    assert main(["migrate", str(tmp_path), "--check"]) == 0
    script.write_text("import flowyml\nthis is no Python\n")
    assert main(["migrate", str(tmp_path), "--check"]) == 1
    assert f"not read: {script} is not Python that can be read (line 2: invalid syntax)" in capsys.readouterr().err
    assert main(["migrate", str(tmp_path / "nowhere")]) == 2


def test_json_holds_the_diff_and_the_checklist(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", ".", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert not document["written"]
    assert not document["finished"]
    assert {file["path"] for file in document["files"]} >= {"nightly/launch.py", "notebooks/explore.ipynb"}
    states = {item["item"]: item["state"] for item in document["checklist"]}
    assert states["pins"] == "done"
    assert states["subclasses"] == states["scripts"] == states["test_all"] == "needs you"
    assert len(states) == 12
    places = [place for item in document["checklist"] for place in item["places"]]
    cells = {place["cell"] for place in places if place["path"].endswith(".ipynb")}
    assert cells == {1, 2, 3}


def test_json_says_that_all_is_done_once_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "requirements.txt").write_text("flowyml==0.4\n")
    for command, said in (([], (False, 1)), (["--write"], (True, 1)), ([], (True, 0))):
        assert main(["migrate", str(tmp_path), "--json", *command]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["finished"], len(document["files"])) == said


def test_a_project_without_flowyml_has_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("pandas==2\n")
    (tmp_path / "a.py").write_text("status == 'FAILED'\n")
    report = migrate([str(tmp_path)])
    assert report.is_finished
    assert not any([*report.done.values(), *report.needs_you.values()])


# Any mixture of old and new code.

EXPRESSIONS = st.sampled_from([
    "status", "orchestrator.get_run_status(job)", "'RUNNING'", '"failed"', "'odd'", "job", "submission.status",
    "orchestrator.run_pipeline(pipeline)", "statuses", "('FAILED', \"SUCCEEDED\")", "ExecutionStatus.FAILED", "None",
    "pipeline.run(context={'a': 1}, debug=False)", "result.state", "{'cpu': '1'}", "WORDS", "str(status)",
    "status.lower()", "{'FAILED': 1}[status]", "[orchestrator.get_run_status(x) for x in 'ab']", "self.run_pipeline(1)",
])  # fmt: skip
OPERATORS = st.sampled_from(["==", "!=", "in", "not in", "is", "+", "and", "<"])
BINARY = st.tuples(EXPRESSIONS, OPERATORS, EXPRESSIONS).map(" ".join)
VALUES = EXPRESSIONS | BINARY
LINES = st.one_of(
    st.tuples(st.sampled_from(["status", "job", "result", "submission", "self.job", "x"]), VALUES).map(" = ".join),
    VALUES.map("print({})".format),
    VALUES.map("if {}: pass".format),
    VALUES.map("for s in {}: print(s == 'FAILED')".format),
    VALUES,
    st.sampled_from([
        "from flowyml.core.pipeline import Pipeline, PipelineResult", "from flowyml.core.step import step as s",
        "from flowyml import register_callback", "from flowyml.core.execution_status import ExecutionStatus",
        "pipeline = Pipeline('p', ctx, stack=None)", "pipeline.register_callback('on_error', tell)",
        "def tell(error): print(error)",
        "WORDS = ('FAILED', 'SUCCEEDED')", "@step(resources={'gpu': '1'})\ndef f(): pass",
        "class P(Pipeline):\n    def run(self): return 1", "import flowyml.core.scheduler", "# a comment", "",
        "match status:\n    case 'FAILED' | 'x': pass\n    case _: pass", "status = 'QUEUED'; job = 1", "'docstring'",
    ]),
)  # fmt: skip
MODULES = st.lists(LINES, max_size=12).map("\n".join)


@pytest.mark.slow
@settings(max_examples=20)
@example(lines="match status:\n    case 'FAILED': pass\nself.job = status", end="\n", has_imports=True)
@given(lines=MODULES, end=st.sampled_from(["\n", "\r\n"]), has_imports=st.booleans())
def test_any_code_is_migrated_once(lines: str, end: str, has_imports: bool) -> None:
    head = "from flowyml import Pipeline, step\nfrom flowyml.orchestrators import *\n" * has_imports
    text = f"{head}from flowyml.orchestrators import LocalOrchestrator\norchestrator = LocalOrchestrator()\n{lines}\n"
    once = migrate_python(text.replace("\n", end))
    ast.parse(once.text)
    assert once.text.count("\n") == once.text.count(end)
    twice = migrate_python(once.text)
    assert twice.text == once.text
    assert not [note for note in twice.notes if note.is_done]
    waiting = [[note.message for note in made.notes if not note.is_done] for made in (once, twice)]
    assert sorted(waiting[0]) == sorted(waiting[1]), "what a person must do is not forgotten, nor made more"
