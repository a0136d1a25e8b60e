"""A DAG file from elsewhere is read and imported: its names reach modules, reports and paths as text alone."""

from __future__ import annotations

import ast
import runpy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.core.errors import ConfigurationError
from flowyml.migration.airflow.writer.deciding.choices import Unclear, choice_of
from flowyml.migration.airflow.writer.notes import FileResult
from flowyml.migration.airflow.writer.report import files_of_report
from flowyml.migration.airflow.writer.text.modules import Written
from flowyml.migration.airflow.writer.writing import results_of, write_into
from tests.unit.migration.dag_files import read

EVIL = [
    '"); import os; os.system("touch owned") #',
    "'''\nimport os\nos.system('touch owned')\n'''",
    '"""\nimport os\nos.system("touch owned")\n"""',
    "a\\\nimport os",
    "</pre><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "x\u2028import os",
    "{{ 7 * 7 }}",
]
TOP = """from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
"""


def result(folder: Path, evil: str) -> FileResult:
    """Airflow, and so the reader, refuses such ids, and the writer some; here they come all the same."""
    text = (
        f"{TOP}with DAG('d', schedule={evil!r}, description={evil!r}, doc_md={evil!r}, tags=[{evil!r}], "
        f"params={{{evil!r}: {evil!r}, 'day': {evil!r}}}, default_args={{'owner': {evil!r}}}):\n"
        f"    a = BashOperator(task_id='a', bash_command={evil!r} + '{{{{ ds }}}}', env={{{evil!r}: {evil!r}}})\n"
        f"    b = BashOperator(task_id='b', bash_command={evil!r})\n"
        f"    c = EmptyOperator(task_id='c', pool={evil!r})\n"
        f"    d = BashOperator(task_id='d', bash_command=open({evil!r}), **{{{evil!r}: 1}})\n"
        f"    a >> b >> c >> d\n"
    )
    file = read(folder, text)
    (dag,) = file.dags
    tasks = [
        replace(task, task_id=f"{evil}{task.task_id}", operator=f"{task.operator}{evil}" * (task.task_id == "d") or
                task.operator, upstream=tuple(f"{evil}{name}" for name in task.upstream))
        for task in dag.tasks
    ]  # fmt: skip
    (made,) = results_of([replace(file, dags=(replace(dag, dag_id=evil, tasks=tuple(tasks)),))])
    return made


@pytest.fixture(autouse=True)
def in_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    monkeypatch.setattr("flowyml.migration.airflow.writer.text.modules.refused_names", lambda _: [])


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_becomes_code_in_a_module(tmp_path: Path, evil: str) -> None:
    made = result(tmp_path, evil)
    assert made.written, made.reason
    is_harmless(made.written)


@pytest.mark.parametrize("evil", EVIL)
def test_no_group_and_no_asset_becomes_code_in_a_module(tmp_path: Path, evil: str) -> None:
    text = (
        f"{TOP}from airflow.sdk import Asset, TaskGroup\n"
        f"with DAG('d', schedule=[Asset({evil!r}), Asset(name='b', uri={evil!r})]):\n"
        f"    with TaskGroup('g', tooltip={evil!r}):\n        EmptyOperator(task_id='a')\n"
    )
    file = read(tmp_path, text)
    (dag,) = file.dags
    tasks = [replace(task, task_id=f"{evil}.a", group=evil) for task in dag.tasks]
    groups = [replace(group, group_id=evil) for group in dag.groups]
    (made,) = results_of([replace(file, dags=(replace(dag, tasks=tuple(tasks), groups=tuple(groups)),))])
    assert made.written, made.reason
    is_harmless(made.written)


def is_harmless(written: str) -> None:
    tree = ast.parse(written)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not imported
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called.isdisjoint({"open", "exec", "eval", "alert", "__import__"})
    assert "system" not in {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


BREAKS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
"""What ``str.splitlines`` takes for the end of a line, and Python does not."""


@pytest.mark.parametrize("at", BREAKS)
def test_no_comment_and_no_text_becomes_code(tmp_path: Path, at: str) -> None:
    owned = f"{at}import os; os.system('touch owned')"
    text = (
        f"{TOP}from airflow.models import Variable\nfrom airflow.operators.python import PythonOperator\n"
        f"LIMIT = Variable.get('x')  # why {owned}\nMORE = 1  # more {owned}\n"
        f"def make():\n"
        f"    # before {owned}\n"
        f"    def t():\n"
        f'        """About {owned}\n'
        f'        it."""  # after {owned}\n'
        f"        return LIMIT, MORE  # in {owned}\n"
        f"    return t\n"
        f"with DAG('d', schedule=None, doc_md={owned!r}):\n    PythonOperator(task_id='t', python_callable=make())\n"
    )
    (made,) = results_of([read(tmp_path, text)])
    assert "def t():" in made.written, made.reason
    tree = ast.parse(made.written)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert "system" not in {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("text", ['"""', 'say "', 'say ""', '\\"', 'a\n"""\n', '""""', "\\", "x" + '"' * 7, '"\u2028"'])
def test_no_docstring_ends_early(tmp_path: Path, text: str) -> None:
    (made,) = results_of([
        read(tmp_path, f"{TOP}with DAG('d', schedule=None, doc_md={text!r}):\n    EmptyOperator(task_id='t')\n")
    ])  # fmt: skip
    (flow,) = [node for node in ast.parse(made.written).body if isinstance(node, ast.FunctionDef) and node.name == "d"]
    assert ast.get_docstring(flow) == text.strip()


ENDLESS = [
    ["a0 = random.choice(())", *(f"a{n} = a{n - 1} if 1 else a{n - 1}" for n in range(1, 60)), "return a59"],
    ["a0 = 'x'", *(f"a{n} = f'{{a{n - 1}}}{{a{n - 1}}}'" for n in range(1, 60)), "return a59"],
    ["a0 = []", *(f"a{n} = [a{n - 1}, a{n - 1}]" for n in range(1, 60)), "return a59"],
    ["a0 = 'x'", *(f"a{n} = a{n - 1}" for n in range(1, 3000)), "return a2999"],
    ["a0 = 'x'", *(f"a0 = 'x{n}'" for n in range(3000)), *(f"a{n} = a0" for n in range(3000)), "return a2999"],
]


@pytest.mark.parametrize("lines", ENDLESS)
def test_no_choice_is_looked_for_without_end(lines: list[str]) -> None:
    (function,) = ast.parse("def choose():\n" + "".join(f"    {line}\n" for line in lines)).body
    assert isinstance(function, ast.FunctionDef)
    try:
        found = choice_of(function, {}, lambda name: None)
    except Unclear:
        return
    assert not found.values


TEXTS = {
    "deep": "BashOperator(task_id='t', bash_command='{{ ' + '-' * 50_000 + '1 }}')",
    "deeper": "BashOperator(task_id='t', bash_command='{{ ' + '(' * 90 + '-' * 300 + '1' + ')' * 90 + ' }}')",
    "sum": "BashOperator(task_id='t', bash_command='{{ 1' + ' + 1' * 50_000 + ' }}')",
    "open": "BashOperator(task_id='t', bash_command='{{' * 100_000)",
    "zero": "BashOperator(task_id='t', bash_command='{{ ds\\0 }}')",
    "growth": "PythonOperator(task_id='t', python_callable=f, retries=1, retry_exponential_backoff=1e999)",
    "no growth": "PythonOperator(task_id='t', python_callable=f, retries=1, retry_exponential_backoff=0.5)",
    "delay": "PythonOperator(task_id='t', python_callable=f, retries=1, retry_delay=1e999)",
    "back": "PythonOperator(task_id='t', python_callable=f, retries=1, retry_delay=timedelta(days=-1))",
    "limit": "PythonOperator(task_id='t', python_callable=f, execution_timeout=float('nan'))",
    "operator": "EmptyOperator(task_id='t', mapped=1, retries=1, retry_delay=1e999)",
}


@pytest.mark.parametrize("task", TEXTS.values(), ids=TEXTS)
def test_no_text_spoils_the_module_of_a_file(tmp_path: Path, task: str) -> None:
    head = (
        "from airflow.operators.python import PythonOperator\nfrom datetime import timedelta\ndef f():\n    return 1\n"
    )
    text = f"{TOP}{head}with DAG('d', schedule=None):\n    {task}\n"
    (made,) = results_of([read(tmp_path, text)])
    assert made.written, made.reason
    path = tmp_path / f"spoiled_{tmp_path.name}.py"
    path.write_text(made.written, encoding="utf-8")
    assert "d" in runpy.run_path(str(path))


def test_a_module_that_python_cannot_compile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowyml.migration.airflow.writer.writing.write_module", lambda *_: Written("def (", []))
    (made,) = results_of([read(tmp_path, f"{TOP}with DAG('d'):\n    EmptyOperator(task_id='t')\n")])
    assert made.written == ""
    assert made.is_failed
    assert made.reason.startswith("it could not be written: SyntaxError")


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_becomes_markup_in_the_report(tmp_path: Path, evil: str) -> None:
    for name, text in files_of_report([result(tmp_path, evil)]).items():
        assert "/" not in name
        if name.endswith(".html"):
            tags = Tags()
            tags.feed(text)
            assert {tag for tag, _ in tags.found}.isdisjoint({"script", "img", "iframe", "svg", "link", "object"})
            assert not [name for _, names in tags.found for name in names if name.startswith("on")]
            assert "default-src 'none'" in text
        if name.endswith(".md"):
            assert "<script" not in text
            assert "<img" not in text


def test_a_page_shows_control_characters(tmp_path: Path) -> None:
    (made,) = results_of([read(tmp_path, f"{TOP}with DAG('d', schedule=None):\r\n    EmptyOperator(task_id='t')\r\n")])
    pages = files_of_report([replace(made, path="dags/a\x1b[2J.py", original=f"{made.original}# \x9b\n")])
    for text in pages.values():
        assert not [char for char in text if char not in "\n\t" and not char.isprintable()]
    assert "dags/a\\x1b[2J.py" in pages["index.html"]
    assert "\\r" not in pages["file-0001.html"]


@pytest.mark.parametrize(
    "path", ["../../evil.py", "/etc/cron.d/evil.py", "a/../../b.py", "..\\..\\x.py", ".git/hooks.py"]
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    from flowyml.migration.airflow.writer.writing import _module_path

    made = _module_path(path, set())
    out = tmp_path / "out"
    write_into(out, {made: "x = 1\n"})
    assert (out / made).resolve().is_relative_to(out.resolve())
    assert not any(part.startswith(".") for part in made.split("/"))


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "team").symlink_to(elsewhere)
    (elsewhere / "secret.py").write_text("x")
    (out / "linked.py").symlink_to(elsewhere / "secret.py")
    for name in ("team/flow.py", "linked.py"):
        with pytest.raises(ConfigurationError, match="leads out of"):
            write_into(out, {name: "y = 1\n"}, force=True)
    assert [path.name for path in elsewhere.iterdir()] == ["secret.py"]
