"""Reading DAG files: which files those are, and where what they import stands."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import pytest

from flowyml.core.errors import MissingExtraError
from flowyml.migration.airflow.reader.files import find_root
from flowyml.migration.airflow.reader.reading import find_files, read_file, read_files
from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read

NEVER = f"{HEAD}def make():\n    return DAG('never')\n"


@pytest.mark.parametrize(
    ("text", "reason", "is_other"),
    [
        ("x = 1", "mentions no DAG", True),
        (NEVER, "", True),
        ("from airflow import DAG\ndef dag(:", "not valid Python", False),
        ("from airflow import DAG\nraise ValueError('it mentions no DAG')", "ValueError", False),
        (f"{HEAD}with DAG('d', schedule=None):\n    EmptyOperator(task_id='t')\n", "None", False),
    ],
)
def test_a_file_without_a_dag_says_why_and_whether_it_is_of_something_else(
    tmp_path: Path, text: str, reason: str, is_other: bool
) -> None:
    file = read(tmp_path, text)
    assert reason in str(file.reason)
    assert file.is_other is is_other


def test_modules_are_found_where_the_file_puts_them(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
        import os, sys
        sys.path.append(os.path.join(os.path.dirname(__file__), "..", "code"))
        from airflow import DAG
        from steps.made import make
        from . import near
        from shared import there

        with DAG("found", schedule=near.CRON):
            make("one") >> make(there)
        """,
        {
            "code/steps/made.py": """
                from airflow.operators.empty import EmptyOperator
                make = lambda name: EmptyOperator(task_id=name)
            """,
            "dags/near.py": "CRON = '@weekly'",
            "plugins/shared.py": "there = 'two'",
        },
    )
    assert edges(file) == {"one>two"}
    assert file.dags[0].schedule == "cron:0 0 * * 0"


def test_the_root_is_the_repository_else_where_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dags = tmp_path / "work/owner/airflow/dags"
    dags.mkdir(parents=True)
    path = dags / "flow.py"
    path.write_text("")
    monkeypatch.chdir(tmp_path / "work")
    assert find_root(path) == tmp_path / "work/owner"
    monkeypatch.chdir(tmp_path / "work/owner/airflow")
    assert find_root(path) == tmp_path / "work/owner/airflow"
    (tmp_path / "work/.git").mkdir()
    assert find_root(path) == tmp_path / "work"


def test_a_folder_is_read_entry_by_entry(tmp_path: Path) -> None:
    for name in ("sql/b.sql", "sql/a.sql", "sql/more/c.sql"):
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).write_text("select 1")
    file = read(
        tmp_path,
        HEAD
        + """
with DAG("scan"), os.scandir(os.path.join(os.path.dirname(__file__), "..", "sql")) as found:
    for entry in sorted(found, key=lambda one: one.path):
        if entry.is_file() and entry.path.endswith(".sql"):
            EmptyOperator(task_id=entry.name)
""",
    )
    assert [task.task_id for task in file.dags[0].tasks] == ["a.sql", "b.sql"]
    assert not file.dags[0].warnings


def test_settings_from_texts_and_from_what_is_not_known(tmp_path: Path) -> None:
    body = """
    import configparser
    known, unknown = configparser.ConfigParser(), configparser.ConfigParser()
    known.read_string(string="[load]\\nname = from_text")
    known.read_dict({"load": {"other": "from_dict"}})
    with open(os.path.join(os.path.dirname(__file__), "flow.ini")) as file:
        known.read_file(file)
    unknown.read(os.environ["SETTINGS"])
    with DAG("flow"):
        for key in ("name", "other", "more", "missing"):
            EmptyOperator(task_id=known.get("load", key, fallback="fallback"))
        EmptyOperator(task_id=unknown.get("load", "name", fallback="fallback"))
        EmptyOperator(task_id="of_" + known.get(os.environ["SECTION"], "name", fallback="fallback"))
    """
    ini = "[DEFAULT]\nteam = file\n[load]\nmore = from_%(team)s\n"
    file = read(tmp_path, f"{HEAD}{textwrap.dedent(body)}", {"dags/flow.ini": ini})
    assert ids(file)[:4] == ["from_text", "from_dict", "from_file", "fallback"]
    assert all("{" in each for each in ids(file)[4:]), "not their fallbacks"
    assert codes(file) == {"unknown-id"}


def test_each_branch_reads_a_file_from_the_same_place(tmp_path: Path) -> None:
    body = """
    with open(os.path.join(os.path.dirname(__file__), "flow.json")) as file:
        if team.is_loud():
            names = [name.upper() for name in json.load(file)]
        else:
            names = json.load(file)
    with DAG("flow"):
        EmptyOperator(task_id=names[0])
    """
    file = read(tmp_path, f"import json, team\n{HEAD}{textwrap.dedent(body)}", {"dags/flow.json": '["load"]'})
    assert "raises" not in codes(file)


def test_modules_of_a_package_are_found_by_name(tmp_path: Path) -> None:
    text = f"""{HEAD}
import importlib, pkgutil
import jobs
with DAG("flow", schedule=None):
    for _, name, is_package in pkgutil.iter_modules(jobs.__path__):
        module = importlib.import_module(f"jobs.{{name}}")
        EmptyOperator(task_id=f"{{module.NAME}}_{{is_package}}")
    for found in pkgutil.iter_modules(jobs.__path__, "jobs."):
        EmptyOperator(task_id=found.name)
"""
    files = {"dags/jobs/__init__.py": "", "dags/jobs/one.py": "NAME = 'first'\n", "dags/jobs/notes.txt": ""}
    files["dags/jobs/two/__init__.py"] = "NAME = 'second'\n"
    assert ids(read(tmp_path, text, files)) == ["first_False", "second_True", "jobs.one", "jobs.two"]


PLAIN = 'from airflow import DAG\n\nwith DAG("grüße", schedule=None):\n    pass\n'


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        ("# -*- coding: latin-1 -*-\n" + PLAIN).encode("latin-1"),
    ],
)
def test_a_file_is_read_in_the_encoding_that_python_takes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "flow.py").write_bytes(data)
    (dag,) = read_file(tmp_path / "flow.py", root=tmp_path).dags
    assert dag.dag_id == "grüße"


def test_a_file_that_python_cannot_decode_says_so(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_bytes(PLAIN.encode("latin-1"))
    found = read_file(tmp_path / "flow.py", root=tmp_path)
    assert not found.dags
    assert "flow.py is not valid Python: 'utf-8' codec can't decode byte 0xfc" in (found.reason or "")


def test_links_to_folders_of_the_root_are_followed_once(tmp_path: Path) -> None:
    """A repository whose teams have their DAGs elsewhere, and links that go round in a circle or lead out."""
    root, outside = tmp_path / "repository", tmp_path / "outside"
    for folder in (root / "dags", root / "teams/sales", outside):
        folder.mkdir(parents=True)
        (folder / f"{folder.name}.py").write_text(PLAIN)
    (root / ".git").mkdir()
    (root / "dags/sales").symlink_to("../teams/sales")
    (root / "dags/again").symlink_to("../teams/sales")
    (root / "dags/round").symlink_to(".")
    (root / "dags/out").symlink_to(outside)
    found = [each.path.relative_to(root).as_posix() for each in find_files([str(root / "dags")])]
    assert found == ["dags/dags.py", "dags/again/sales.py"]
    wider = [each.path.name for each in find_files([str(root / "dags")], tmp_path)]
    assert wider == ["dags.py", "sales.py", "outside.py"]


def test_a_module_is_imported_by_a_name_from_its_package(tmp_path: Path) -> None:
    text = """
    import importlib
    from airflow import DAG
    with DAG("flow", schedule=None):
        importlib.import_module(".jobs.one", package="common").make("t")
        importlib.import_module("..jobs.one", "common.other").make("u")
    """
    one = "from airflow.operators.empty import EmptyOperator\ndef make(name): EmptyOperator(task_id=name)\n"
    empty = {f"dags/common/{name}__init__.py": "" for name in ("", "jobs/", "other/")}
    file = read(tmp_path, text, {**empty, "dags/common/jobs/one.py": one})
    assert ids(file) == ["t", "u"]


def test_dags_of_files_that_are_loaded_by_their_paths(tmp_path: Path) -> None:
    text = """
    import importlib.util
    from pathlib import Path
    from airflow import DAG
    for path in sorted((Path(__file__).parent / "defined").glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, str(path))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in vars(module).items():
            if isinstance(value, DAG):
                globals()[name] = value
    """
    one = "from airflow import DAG\nclass Other: pass\nflow_{0} = DAG('flow_{0}', schedule=None)\n"
    file = read(tmp_path, text, {f"dags/defined/{name}.py": one.format(name) for name in "ab"})
    assert [dag.dag_id for dag in file.dags] == ["flow_a", "flow_b"]
    assert not codes(file)


def test_yaml_without_its_package_is_said_and_not_laid_to_the_dag_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    text = "import yaml\nfrom airflow import DAG\nwith DAG(yaml.safe_load(open('a.yaml'))['id']): pass\n"
    with pytest.raises(MissingExtraError, match=re.escape("flowyml[migrate]")):
        read(tmp_path, text, {"dags/a.yaml": "id: x"})
    with pytest.raises(MissingExtraError):
        [*read_files(find_files([str(tmp_path)]), processes=1)]


def test_modules_are_found_in_the_folder_of_dags_first(tmp_path: Path) -> None:
    """As Airflow does, which has that folder on its path, and not the one of each file."""
    files = {"dags/common.py": "NAME = 'right'", "dags/team/common.py": "NAME = 'wrong'"}
    text = "from airflow import DAG\nfrom common import NAME\nwith DAG(NAME): pass\n"
    read(tmp_path, "", files | {"dags/team/flow.py": text})
    root = tmp_path / "repository"
    assert [each.dag_id for each in read_file(root / "dags/team/flow.py", root=root).dags] == ["right"]
