"""What `flowyml migrate` makes of single constructs of FlowyML 0.x, and what it leaves to a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from packaging.specifiers import SpecifierSet

pytest.importorskip("libcst")


import flowyml
from flowyml.migration.legacy import pins
from flowyml.migration.legacy.checklist import Item
from flowyml.migration.legacy.migrate import migrate
from flowyml.migration.legacy.notebooks import migrate_notebook
from flowyml.migration.legacy.pins import Style, migrate_script, update_locks, update_pins
from flowyml.migration.legacy.python import Migrated, migrate_python
from flowyml.migration.legacy.source import Unreadable

HEAD = """\
from flowyml import Pipeline, step
from flowyml.orchestrators import RemoteOrchestrator
orchestrator = RemoteOrchestrator(url="http://server:8000")
pipeline = Pipeline("p")
"""
STATUS = f"{HEAD}status = orchestrator.get_run_status('id')\n"
MEMBER = "from flowyml.core.execution_status import ExecutionStatus\n"


def body(text: str) -> str:
    """A migrated text without the lines of ``HEAD`` and the imports that it was given."""
    lines = [line for line in text.splitlines() if not line.startswith(("from flowyml", "import flowyml"))]
    return "\n".join(line for line in lines if line not in STATUS.splitlines())


def needed(made: Migrated, item: Item) -> list[int]:
    return [note.line for note in made.notes if note.item is item and not note.is_done]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("status == 'RUNNING'", "status == ExecutionStatus.RUNNING"),
        ("'running' != status", "ExecutionStatus.RUNNING != status"),
        ("status.upper() == 'RUNNING'", "status == ExecutionStatus.RUNNING"),
        ("str(status) == 'CANCELED'", "status == ExecutionStatus.CANCELLED"),
        ("status in {'SUCCESS', 'ERROR'}", "status in {ExecutionStatus.COMPLETED, ExecutionStatus.ERROR}"),
        ("status not in ['FAILED']", "status not in [ExecutionStatus.FAILED]"),
        ("'done: ' + status", "'done: ' + str(status)"),
        ("(now := status) == 'FAILED'", "(now := status) == ExecutionStatus.FAILED"),
        ("any(s == 'FAILED' for s in [status, status])", "any(s == ExecutionStatus.FAILED for s in [status, status])"),
        ("pipeline.submit().status == 'FAILED'", "pipeline.submit().status == ExecutionStatus.FAILED"),
        ("pipeline.run().state == 'failed'", "pipeline.run().status == ExecutionStatus.FAILED"),
        ("status == ExecutionStatus.FAILED", "status == ExecutionStatus.FAILED"),
    ],
)  # fmt: skip
def test_a_status_is_compared_with_members(old: str, new: str) -> None:
    made = migrate_python(f"{STATUS}print({old})\n")
    assert body(made.text) == f"print({new})"
    assert not needed(made, Item.STATUSES)
    if old != new and "str(status)" not in new:
        assert MEMBER in made.text


@pytest.mark.parametrize(
    "line",
    [
        "response.code == 'FAILED'",
        "submission.raw_status == 'FAILED'",
        "status is None",
        "status == other_status()",
        "x == 'FAILED'",
    ],
)
def test_what_is_no_status_is_left_alone(line: str) -> None:
    text = f"{STATUS}def other_status():\n    return orchestrator.get_run_status('x')\nprint({line})\n"
    made = migrate_python(text)
    assert made.text == text
    assert not needed(made, Item.STATUSES)


WAITS = 'wait_for_completion(timeout=float("inf"))'
AND_WAITS = f"submission.{WAITS}\njob = submission.job_id"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "job = orchestrator.run_pipeline(pipeline)  # blocks\nprint(job)",
            f"submission = orchestrator.run_pipeline(pipeline)  # blocks\n{AND_WAITS}\nprint(job)",
        ),
        ("orchestrator.run_pipeline(pipeline)", f"orchestrator.run_pipeline(pipeline).{WAITS}"),
        ("print(orchestrator.run_pipeline(pipeline))", f"print(orchestrator.run_pipeline(pipeline).{WAITS}.job_id)"),
        (
            "def f():\n    return orchestrator.run_pipeline(pipeline)",
            f"def f():\n    return orchestrator.run_pipeline(pipeline).{WAITS}.job_id",
        ),
        ("job = orchestrator.run_pipeline(pipeline)\njob.cancel()",) * 2,
        ("job = orchestrator.run_pipeline(pipeline, run_id='x')\nprint(job)",) * 2,
        ("orchestrator.run_pipeline(pipeline).cancel()",) * 2,
    ],
)  # fmt: skip
def test_an_id_is_taken_of_the_handle(old: str, new: str) -> None:
    made = migrate_python(f"{HEAD}{old}\n")
    assert made.text == f"{HEAD}{new}\n"
    assert not needed(made, Item.SUBMISSIONS)


CALL = "pipeline.register_callback"


@pytest.mark.parametrize(
    ("item", "lines", "why"),
    [
        (Item.STATUSES, "print(status == 'PENDING')", ""),  # an engine's own word
        (Item.STATUSES, "print(status == expected)", ""),
        (Item.STATUSES, "print(status in words)", ""),
        (Item.STATUSES, "print(status.startswith('FAIL'))", ""),
        (Item.STATUSES, "print({'FAILED': 1}[status])", ""),
        (Item.STATUSES, "print(ICONS.get(status))", ""),
        (Item.STATUSES, "print('RUNNING' < status == 'FAILED')", ""),
        (Item.STATUSES, "print(row['status'] == 'FAILED')", ""),
        (Item.STATUSES, "print(job.state in ('FAILED', 'SUCCEEDED'))", ""),
        (Item.STATUSES, "print(str(other.run_status).upper() == 'FAILED')", ""),
        (Item.STATUSES, "DONE = 'SUCCEEDED'; print(DONE)\nif status == DONE:\n    pass", ""),  # it has other uses
        (Item.STATUSES, "class ExecutionStatus: ...\nprint(status == 'FAILED')", ""),  # another one of that name
        (Item.SUBMISSIONS, "job = orchestrator.run_pipeline(pipeline)\nprint(job, job.status)", ""),
        (Item.SUBMISSIONS, "one = orchestrator.run_pipeline(pipeline)\nprint(one)\nother.wait_for_completion()", ""),
        (Item.SUBMISSIONS, "pool.submit(orchestrator.run_pipeline, pipeline)", ""),
        (Item.SUBMISSIONS, "print(given.run_pipeline(pipeline))", ""),
        (Item.SUBMISSIONS, "print(orchestrator.run_pipeline(pipeline) == 'SUCCEEDED')", ""),
        (Item.CALLBACKS, f"{CALL}('on_step_end', print)", "not a function of this file"),
        (Item.CALLBACKS, f"def f(a): ...\n{CALL}('on_step_end', f)", "f takes a"),
        (Item.CALLBACKS, f"def f(): ...\n{CALL}('finished', f)", "not one of on_pipeline_start"),
        (Item.CALLBACKS, "def f(error): ...\nPipeline('x').register_callback('on_error', f)", "is not visible here"),
        (Item.CALLBACKS, "from flowyml import register_callback\nregister_callback(f)", "not its two arguments"),
        (Item.CALLBACKS, "from flowyml import register_callback", "drop its import"),
        (Item.RESOURCES, "@step(resources={'disk': '1'})\ndef f(): ...", ""),
        (Item.RESOURCES, "@step(resources={**base})\ndef f(): ...", ""),
        (Item.RESOURCES, "@step(resources={key: '1'})\ndef f(): ...", ""),
        (Item.RESOURCES, "@step(resources={'memory': '4GB'})\ndef f(): ...", ""),
        (Item.RESOURCES, "@step(resources={'gpu': {'count': 1}})\ndef f(): ...", ""),
        (Item.IMPORTS, "from flowyml.core.scheduler import PipelineScheduler", ""),
        (Item.IMPORTS, "from flowyml import Switch", ""),
        (Item.IMPORTS, "import flowyml.core.pipeline as p", ""),
        (Item.IMPORTS, "from flowyml.core.orchestrator import *", ""),
        (Item.OPTIONS, "Pipeline('p', project='x')", ""),
        (Item.OPTIONS, "pipeline.run(stack=production)", ""),
        (Item.OPTIONS, "step(condition=lambda: True)", ""),
        (Item.OPTIONS, "step(cache=lambda inputs, _: 'x')", ""),
        (Item.OPTIONS, "step(tags={'team': 'ml'})", ""),
        (Item.OPTIONS, "pipeline.run().summary()", ""),
        (Item.OPTIONS, "pipeline.add_control_flow(If(lambda it: it.a and it.b, f))", ""),
        (Item.OPTIONS, "class P(Pipeline):\n    pass\nP('p', stack=production)", ""),
        (Item.SUBCLASSES, "class P(Pipeline):\n    def run(self): ...", ""),
        (Item.SUBCLASSES, "Pipeline.run = mine", ""),
        (Item.SUBCLASSES, "pipeline.run = mine", ""),
    ],
)
def test_what_cannot_be_decided_is_pointed_at_and_stays(item: Item, lines: str, why: str) -> None:
    text = f"{STATUS if item is Item.STATUSES else HEAD}{lines}\n"
    made = migrate_python(text)
    assert made.text == text
    (note,) = [note for note in made.notes if note.item is item and not note.is_done]
    assert note.line >= len(HEAD.splitlines())
    assert why in note.message


def test_what_a_person_accepted_and_what_has_its_own_arguments_is_not_pointed_at() -> None:
    own = "class P(Pipeline):\n    def __init__(self, name, stack): ...\nP('p', stack=production)\n"
    made = migrate_python(f"{STATUS}print(row['status'] == 'FAILED')  # flowyml-migrate: ok\n{own}")
    assert not [*needed(made, Item.STATUSES), *needed(made, Item.OPTIONS)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{'cpu': '2', 'memory': f'{n}Gi'}", "ResourceRequirements(cpu='2', memory=f'{n}Gi')"),
        ("dict(cpu=2)", "ResourceRequirements(cpu=2)"),
        ("{'gpu': '2'}", "ResourceRequirements(gpu=2)"),
        ("{}", "ResourceRequirements()"),
    ],
)
def test_resources(old: str, new: str) -> None:
    made = migrate_python(f"from flowyml import step\n@step(resources={old})\ndef f(): ...\n")
    assert f"@step(resources={new})\n" in made.text
    assert "from flowyml.core.resources import ResourceRequirements\n" in made.text


def test_resources_of_something_else_are_left_alone() -> None:
    text = "import flowyml\nfrom luigi import step\n@step(resources={'cpu': 1})\ndef f(): ...\n"
    assert migrate_python(text).text == text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("from flowyml.core.pipeline import Pipeline", "from flowyml import Pipeline"),
        ("from flowyml.core.step import step as s  # ours", "from flowyml import step as s  # ours"),
        ("from flowyml.core.hooks import PipelineHook",) * 2,
        ("Pipeline('p', ctx, stack=None)", "Pipeline('p', context=ctx)"),
        ("Pipeline('p', airflow={'owner': 'x'})",) * 2,
        ("pipeline.run(orchestrator=o, debug=False)", "pipeline.run(on=o)"),
        ("step(cache='code_hash')", "step(cache=True)"),
        ("step(cache=False)",) * 2,
        ("pipeline.add_control_flow(If(lambda it: it.a > 1, f))",) * 2,
    ],
)
def test_imports_and_options(old: str, new: str) -> None:
    made = migrate_python(f"{HEAD}{old}\n")
    assert made.text == f"{HEAD}{new}\n"
    assert not [note for note in made.notes if not note.is_done and note.item is not Item.TEST_LOCALLY]


@pytest.mark.parametrize(
    ("style", "old", "new"),
    [
        ("requirements", "flowyml==0.9.4 ; python_version > '3.9'", "flowyml>=1.0 ; python_version > '3.9'"),
        ("requirements", "FlowyML[prefect] ~= 0.8 # x", "FlowyML[prefect] >=1.0 # x"),
        ("requirements", "flowyml>=0.8,<3", "flowyml>=1.0,<3"),
        ("requirements", "flowyml>=1.2", "flowyml>=1.2"),
        ("requirements", "flowyml", "flowyml"),
        ("requirements", "my-flowyml==0.1", "my-flowyml==0.1"),
        ("requirements", "# flowyml==0.1", "# flowyml==0.1"),
        ("toml", 'flowyml = {version = "~0.9", extras = []}', 'flowyml = {version = "^1.0", extras = []}'),
        ("toml", 'flowyml = "0.9.1"', 'flowyml = ">=1.0"'),
        ("toml", 'dependencies = ["flowyml (>=0.9,<0.10)"]', 'dependencies = ["flowyml (>=1.0)"]'),
        ("shell", "RUN pip install flowyml==0.9", "RUN pip install flowyml~=1.0"),
        ("shell", "pip install 'flowyml<1'", "pip install 'flowyml>=1.0'"),
        ("shell", "  - flowyml=0.9.1", "  - flowyml>=1.0"),
    ],
)
def test_pins(monkeypatch: pytest.MonkeyPatch, style: Style, old: str, new: str) -> None:
    monkeypatch.setattr(pins, "__version__", "1.0.0")
    made = update_pins(f"{old}\n", style)
    assert made.text == f"{new}\n"
    assert not needed(made, Item.PINS)
    assert update_pins(made.text, style).text == made.text


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("1.0.0", "1.0"),
        ("1.2.3", "1.2"),
        ("1.0.0rc1", "1.0rc1"),
        ("1.0.1b2", "1.0.1b2"),
        ("1.1.0.dev4+g1234", "1.1.dev4"),
        (flowyml.__version__, None),
    ],
)
def test_pins_let_this_version_in(monkeypatch: pytest.MonkeyPatch, version: str, wanted: str | None) -> None:
    monkeypatch.setattr(pins, "__version__", version)
    for style, old, sign in (("requirements", "flowyml==0.9", ">="), ("shell", "pip install flowyml==0.9", "~=")):
        made = update_pins(f"{old}\n", cast("Style", style)).text
        asked = f"{sign}{made.strip().rpartition(sign)[2]}"
        assert SpecifierSet(asked).contains(version)
        assert wanted is None or asked == f"{sign}{wanted}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("P = Pipeline('p')\n", "flowyml run flow.py"),
        ("def build():\n    return Pipeline('p')\n", "build() makes it: run what calls that; flowyml run takes"),
        ("if __name__ == '__main__':\n    Pipeline('p').run()\n", "python flow.py; flowyml run takes a pipeline"),
    ],
)
def test_how_to_try_a_pipeline_out(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "flow.py").write_text(f"from flowyml import Pipeline\n{text}")
    (place,) = migrate([str(tmp_path / "flow.py")]).needs_you[Item.TEST_LOCALLY]
    assert message.replace("flow.py", str(tmp_path / "flow.py")) in place.message


@pytest.mark.parametrize(
    "line",
    [
        "flowyml==0.9 --hash=sha256:00",
        "flowyml==0.9 \\",
        "flowyml @ git+https://example.com/flowyml@v0.9",
        "flowyml[gcp]>=1.0",
    ],
)
def test_pins_that_a_person_must_change(line: str) -> None:
    made = update_pins(f"{line}\n", "requirements")
    assert made.text == f"{line}\n"
    assert needed(made, Item.PINS) == [1]


def test_lock_files_are_made_anew_by_their_tool() -> None:
    assert needed(update_locks('[[package]]\nname = "flowyml"\nversion = "0.9.4"\n'), Item.PINS) == [2]
    assert not update_locks('[[package]]\nname = "flowyml"\nversion = "1.0.0"\n').notes


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("flowyml run x.py\nif [ $S = FAILED ]; then", [2]),
        ("python train.py | grep -q SUCCEEDED", [1]),
        ("python -m jobs.train\ncase $S in\n  FAILED|ERROR) exit 1 ;;\n", [3]),
        ("  if: steps.flowyml.outputs.status == 'failed'", [1]),
        ("python other.py | grep -q SUCCEEDED", []),
        ("flowyml run x.py\necho FAILED\n# if it == FAILED", []),
    ],
)
def test_scripts_that_read_a_status_are_pointed_at(text: str, lines: list[int]) -> None:
    assert needed(migrate_script(text, ["train"]), Item.SCRIPTS) == lines


def notebook(*cells: str) -> str:
    made = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": cell.splitlines(True)} for cell in cells]
    return json.dumps({"cells": made, "nbformat": 4}, indent=1)


def test_the_cells_of_a_notebook_share_their_names() -> None:
    text = notebook(
        "%load_ext x\n" + HEAD, "!ls\nstatus = orchestrator.get_run_status(1)\nif True:\n    !pwd", "status == 'FAILED'"
    )
    made, starts = migrate_notebook(text)
    assert "status == ExecutionStatus.FAILED" in made.text
    assert '"    !pwd"' in made.text
    assert len(starts) == 3
    assert migrate_notebook(made.text)[0].text == made.text


@pytest.mark.parametrize(
    "text", ["", "{}", '{"cells": 3}', "[" * 10_000, '{"cells":[{"cell_type":"code","source":["import flowyml"]}]  }']
)
def test_what_is_no_notebook_is_not_read(text: str) -> None:
    with pytest.raises(Unreadable):
        migrate_notebook(text)
