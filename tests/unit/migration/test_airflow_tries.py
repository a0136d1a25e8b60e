"""``try`` in a DAG file: what is unknown to succeed, and would leave another DAG if it did not, is said."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from flowyml.migration.airflow.model import FileModel
from tests.unit.migration.dag_files import HEAD, codes, ids, read


def _read(folder: Path, before: str, inside: str = "EmptyOperator(task_id='a')", **options: object) -> FileModel:
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


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        ("EmptyOperator(task_id='a')\nwith contextlib.suppress(KeyError):\n    {}['x']\n    EmptyOperator()", "a"),
        ("with contextlib.suppress(KeyError, OSError):\n    EmptyOperator(task_id='a')\n    raise OSError", "a"),
        ("with Quiet():\n    EmptyOperator(task_id='a')\n    raise ValueError\n    EmptyOperator(task_id='b')", "a"),
        ("try:\n    with Loud(): raise ValueError\nexcept ValueError: EmptyOperator(task_id='a')", "a"),
    ],
)  # fmt: skip
def test_what_leaves_a_with_may_take_an_error_for_handled(tmp_path: Path, inside: str, found: str) -> None:
    classes = "\n".join(
        f"class {name}:\n    def __enter__(self): pass\n    def __exit__(self, *error): return {answer}"
        for name, answer in (("Quiet", True), ("Loud", None))
    )
    file = _read(tmp_path, f"import contextlib\n{classes}", inside)
    assert (ids(file), codes(file)) == ([found], set())


def test_what_stands_within_suppress_after_something_unknown_is_said(tmp_path: Path) -> None:
    inside = "with contextlib.suppress(OSError):\n    requests.get('u')\n    EmptyOperator(task_id='a')"
    assert codes(_read(tmp_path, "import contextlib", inside)) == {"unknown-condition"}


def test_groups_of_exceptions_are_caught(tmp_path: Path) -> None:
    inside = "try:\n    EmptyOperator(task_id='a')\nexcept* ValueError:\n    EmptyOperator(task_id='b')"
    assert ids(_read(tmp_path, "", inside)) == ["a"]


@pytest.mark.parametrize("kind", ["Exception", "AirflowException", "AirflowNotFoundException"])
def test_without_a_connection_the_file_does_what_it_does_then(tmp_path: Path, kind: str) -> None:
    text = f"""
    from airflow.exceptions import AirflowException, AirflowNotFoundException
    from airflow.hooks.base import BaseHook
    def tables():
        try:
            return BaseHook.get_connection("lake").extra_dejson["tables"]
        except {kind}:
            return ["users"]
    with DAG("flow", schedule=None):
        for table in tables():
            EmptyOperator(task_id=table)
    """
    file = read(tmp_path, HEAD + textwrap.dedent(text))
    assert (ids(file), codes(file)) == (["users"], {"default-taken"})
