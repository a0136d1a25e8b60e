"""The modules that are written from DAG files, and what becomes of their pipelines."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from flowyml import Pipeline
from flowyml.migration.airflow.writer.notes import Kind, Note, Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from tests.unit.migration.dag_files import HEAD, read

_NUMBERS = itertools.count()
REPOSITORY = {
    "dags/our/__init__.py": "",
    "dags/our/tasks.py": """
        from airflow.decorators import task
        def plain(n): return n
        @task
        def decorated(n): return n
        @task(multiple_outputs=True)
        def parts(n): return {"n": n}
        @task
        def annotated(n: int) -> dict[str, int]: return {"n": n}
        @task.sensor(poke_interval=5)
        def ready(): return False
        @task.branch
        def chooses(): return "plain"
        @task.bash
        def command(): return "true"
    """,
    "dags/our/operators.py": """
        from airflow.models import BaseOperator
        from airflow.operators.bash import BashOperator
        class Load(BaseOperator):
            def __init__(self, table, **given):
                super().__init__(retries=3, pool="wide", trigger_rule="all_done", **given)
                self.table = table
        class Say(BashOperator):
            def __init__(self, text, **given):
                super().__init__(bash_command="echo " + text, env={"A": "b"}, **given)
    """,
}
"""Modules that DAG files import, by their paths: functions, tasks, and operators with arguments of their own."""
IMPORTS = """
from our.operators import Load, Say
from our.tasks import annotated, chooses, command, decorated, parts, plain, ready
"""


def written(folder: Path, text: str, files: Mapping[str, str] | None = None) -> Written:
    """The module of a file that says this below ``HEAD``."""
    file = read(folder, HEAD + textwrap.dedent(text), dict(files or {}))
    return write_module(file, (folder / "repository/dags/flow.py").read_text("utf-8"))


def dag(tasks: str, options: str = "", before: str = "") -> str:
    """A text with the DAG ``flow`` that has these tasks."""
    body = textwrap.indent(textwrap.dedent(tasks).strip("\n"), "    ")
    return f"{textwrap.dedent(before)}\nwith DAG('flow', {options or 'schedule=None'}) as dag:\n{body}\n"


def notes(made: Written, construct: str) -> list[Note]:
    """What the report says about a task, an option or another construct."""
    return [note for dag in made.dags for note in dag.notes if note.construct == construct]


def note(made: Written, construct: str) -> Note:
    (found,) = notes(made, construct)
    return found


def of_kind(made: Written, kind: Kind) -> Mapping[str, str]:
    """The reasons of one kind, by construct."""
    return {note.construct: note.reason for dag in made.dags for note in dag.notes if note.kind is kind}


def loaded(folder: Path, made: Written) -> ModuleType:
    """The module, imported where there is no Airflow."""
    name = f"written_{next(_NUMBERS)}"
    path = folder / f"{name}.py"
    path.write_text(made.text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def pipeline(folder: Path, made: Written) -> Pipeline:
    """The only pipeline, which runs on any engine."""
    (result,) = made.dags
    assert result.verdict is Verdict.ANY, result.notes
    found: Pipeline = getattr(loaded(folder, made), result.pipeline)
    return found


def ran(folder: Path, made: Written, **given: Any) -> tuple[Mapping[str, Any], set[str]]:
    """The outputs of the only pipeline, which runs here, and the steps that were skipped.

    Of what is given, it takes what it has parameters for.
    """
    flow = pipeline(folder, made)
    known = {parameter.name for parameter in flow.compile().parameters}
    run = flow.run({name: value for name, value in given.items() if name in known})
    assert run.success, run.error
    return dict(run.outputs), {name for name, step in run.step_results.items() if step.raw_status == "skipped"}
