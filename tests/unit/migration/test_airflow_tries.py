"""``try`` in a DAG file: what is unknown to succeed, and would leave another DAG if it did not, is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowyml.migration.airflow.model import FileModel
from tests.unit.migration.dag_files import HEAD, codes, ids, read


def _read(folder: Path, before: str, inside: str = "EmptyOperator(task_id='a')", **options: Any) -> FileModel:
    inside = inside.replace("\n", "\n    ")
    text = f"{HEAD}import requests\n{before}\nwith DAG('flow', schedule=None):\n    {inside}\n"
    return read(folder, text, **options)


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        ("try:\n    requests.get('u')\n    names = ['b']\nexcept Exception:\n    names = ['a']",
         "for one in names: EmptyOperator(task_id=one)"),
        ("mail = False\ntry:\n    requests.get('u')\n    mail = True\nexcept Exception: pass",
         "EmptyOperator(task_id='b')\nif mail: EmptyOperator(task_id='c')"),
        ("", "try:\n    requests.get('u')\n    EmptyOperator(task_id='b')\nexcept Exception: pass"),
        ("", "try: requests.get('u')\nexcept Exception: EmptyOperator(task_id='a')\nEmptyOperator(task_id='b')"),
        ("", "for n in 'ab':\n    try: requests.get(n)\n    except OSError: continue\n    EmptyOperator(task_id=n)"),
        ("def kind():\n    try:\n        requests.get('u')\n        return 'b'\n    except OSError: return 'a'",
         "EmptyOperator(task_id=kind())"),
        ("class Settings: names = ['a']\ntry: requests.get('u')\nexcept Exception: Settings.names = []",
         "for one in Settings.names: EmptyOperator(task_id=one)"),
        ("names = ['a', 'b']\ntry: requests.get('u')\nexcept Exception: names.pop()",
         "for one in names: EmptyOperator(task_id=one)"),
    ],
)  # fmt: skip
def test_a_failure_that_would_leave_another_dag_is_said(tmp_path: Path, before: str, inside: str) -> None:
    file = _read(tmp_path, before, inside)
    assert "unknown-condition" in codes(file)
    assert any("what `except` does is left out" in one.text for one in (*file.warnings, *file.dags[0].warnings))


@pytest.mark.parametrize(
    "before",
    [
        "try:\n    answer = requests.get('u')\nexcept Exception:\n    answer = None",
        "try: requests.get('u')\nexcept Exception as error: print(error)",
        "try:\n    url = 'u'\n    answer = requests.get(url)\nexcept Exception as error: print(error)",
        "names = ['a']\ntry:\n    requests.get('u')\n    names = ['b']\nexcept Exception as error:\n    raise",
        "try: names = ['b']\nexcept Exception: names = ['a']",
        "import logging\nlog = logging.getLogger('x')\ntry:\n    log.info('x')\n    n = 1\nexcept Exception: n = 2",
        "def later():\n    try: return requests.get('u').ok\n    except Exception: return False",
    ],
)
def test_a_failure_that_leaves_the_same_dag_is_not_said(tmp_path: Path, before: str) -> None:
    assert codes(_read(tmp_path, before)) == set()


def test_what_a_file_does_without_a_variable_is_said_to_be_its_default(tmp_path: Path) -> None:
    before = "try: kind = Variable.get('kind')\nexcept KeyError: kind = 'a'"
    inside = "EmptyOperator(task_id=kind)"
    file = _read(tmp_path, before, inside)
    assert (ids(file), codes(file)) == (["a"], {"default-taken"})
    file = _read(tmp_path, before, inside, variables={"kind": "b"})
    assert (ids(file), codes(file)) == (["b"], set())


@pytest.mark.parametrize("kind", ["Exception", "AirflowException", "AirflowNotFoundException"])
def test_without_a_connection_the_file_does_what_it_does_then(tmp_path: Path, kind: str) -> None:
    before = f"""
from airflow.exceptions import AirflowException, AirflowNotFoundException
from airflow.hooks.base import BaseHook
def tables():
    try:
        return BaseHook.get_connection("lake").extra_dejson["tables"]
    except {kind}:
        return ["users"]
"""
    file = _read(tmp_path, before, "for table in tables(): EmptyOperator(task_id=table)")
    assert (ids(file), codes(file)) == (["users"], {"default-taken"})


@pytest.mark.parametrize(
    ("raises", "kind"),
    [
        ("raise Gone('it')", "Missing"),
        ("raise Gone('it')", "LookupError"),
        ("json.loads('{')", "ValueError"),
        ("pendulum.parse('2 days')", "pendulum.parsing.exceptions.ParserError"),
    ],
)
def test_exceptions_are_caught_by_the_names_of_their_bases(tmp_path: Path, raises: str, kind: str) -> None:
    before = f"""
import json
class Missing(LookupError): ...
class Gone(Missing): ...
try:
    {raises}
    name = "not_caught"
except {kind}:
    name = "caught"
"""
    assert ids(_read(tmp_path, before, "EmptyOperator(task_id=name)")) == ["caught"]


def test_airflow_has_a_value_for_its_own_options(tmp_path: Path) -> None:
    before = """
from airflow.configuration import conf
try:
    view = conf.get("webserver", "dag_default_view")
    name = "found"
except Exception:
    name = "missing"
"""
    assert ids(_read(tmp_path, before, "EmptyOperator(task_id=name, doc=view)")) == ["found"]
