"""What the command writes beside the modules: reports, and what Airflow itself finds in both."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml.core.errors import EngineError
from flowyml.migration.airflow.model import Place
from flowyml.migration.airflow.reader.reading import read_file
from flowyml.migration.airflow.writer import verifying
from flowyml.migration.airflow.writer.asking import load_dags
from flowyml.migration.airflow.writer.notes import DagResult, FileResult, Kind, Note
from flowyml.migration.airflow.writer.report import files_of_report
from flowyml.migration.airflow.writer.verifying import compare
from flowyml.migration.airflow.writer.writing import results_of
from tests.unit.commands import flowyml
from tests.unit.migration.dag_files import HEAD
from tests.unit.migration.modules import dag, written

ONE = f'{HEAD}\nwith DAG("one", schedule=None):\n    EmptyOperator(task_id="a")\n'


def test_the_command_writes_modules_and_reports(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "one.py").write_text(ONE)
    (dags / "two.py").write_text(
        f'{HEAD}\nwith DAG("two", schedule=None):\n    BashOperator(task_id="a", bash_command="{{{{ var.d }}}}")\n'
    )
    given = ["import", "airflow", str(dags), "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report")]
    done = flowyml(*given)
    assert "1 of 2 DAGs runs on any engine, 1 on Airflow only, 0 need a hand." in done.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.py", "two.py"]
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["totals"] == {"dags": 2, "any_engine": 1, "airflow_only": 1, "needs_a_hand": 0}
    (tmp_path / "out/one.py").write_text("mine = 1\n")
    refused = flowyml(*given)
    assert "FlowyML did not write it. --force replaces it." in refused.err
    assert (tmp_path / "out/one.py").read_text() == "mine = 1\n"


def test_a_file_without_a_dag_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("x = 1\n")
    done = flowyml("import", "airflow", str(tmp_path), "-o", f"{tmp_path}/out", "--report", f"{tmp_path}/report")
    assert done.code == 0
    assert "No DAG was found." in done.out
    assert json.loads((tmp_path / "report/report.json").read_text())["totals"]["dags"] == 0
    assert (tmp_path / "report/report.md").read_text().startswith("# Import of Airflow DAGs")


LONG = "y" * 210
BAD = {
    f"task {LONG}": f'with DAG("bad"):\n    EmptyOperator(task_id="{LONG}")',
    "tag of the DAG": 'with DAG("bad", tags=["a\\nb"]):\n    EmptyOperator(task_id="a")',
    f"value {LONG} of a": 'with DAG("bad"):\n    @task(multiple_outputs=True)\n    def a(): ...\n    @task\n'
    f'    def b(x): ...\n    b(a()["{LONG}"])',
}


@pytest.mark.parametrize("construct", BAD)
def test_a_dag_with_a_name_that_flowyml_refuses_takes_no_other_one_along(tmp_path: Path, construct: str) -> None:
    (tmp_path / "alone.py").write_text(f"{HEAD}\n{BAD[construct]}\n".replace('"bad"', '"alone"'))
    good = '@dag(schedule=None, tags=["t", "t"])\ndef good():\n    EmptyOperator(task_id="a")\ngood()\n'
    (tmp_path / "flow.py").write_text(f"{HEAD}\n{BAD[construct]}\n{good}")
    out = tmp_path / "out"
    given = [str(tmp_path / "alone.py"), str(tmp_path / "flow.py"), "--root", str(tmp_path)]
    done = flowyml("import", "airflow", *given, "-o", str(out), "--report", str(tmp_path / "report"))
    assert "1 of 3 DAGs runs on any engine, 0 on Airflow only, 2 need a hand." in done.out
    assert [path.name for path in out.iterdir()] == ["flow.py"]
    assert flowyml("run", str(out / "flow.py")).code == 0
    alone, flow = json.loads((tmp_path / "report/report.json").read_text())["files"]
    assert (alone["module"], flow["module"]) == (None, "flow.py")
    assert [each["pipeline"] for each in flow["dags"]] == [None, "good"]
    (note,) = flow["dags"][0]["notes"]
    assert note["construct"] == construct
    assert "Choose another name." in note["reason"] or "has 21" in note["reason"]


def test_an_id_that_several_files_have_is_said(tmp_path: Path) -> None:
    for name, dag_id in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / f"{name}.py").write_text(ONE.replace('"one"', f'"{dag_id}"'))
    given = ["import", "airflow", str(tmp_path), "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report")]
    done = flowyml(*given, "--root", str(tmp_path))
    line = ONE.splitlines().index('with DAG("one", schedule=None):') + 1
    assert f"several files define the DAG 'one': a.py:{line}, b.py:{line}" in " ".join(done.err.split())
    dags = [file["dags"][0] for file in json.loads((tmp_path / "report/report.json").read_text())["files"]]
    notes = {
        each["dag_id"]: [note["reason"] for note in each["notes"] if note["construct"] == "dag_id"] for each in dags
    }
    assert notes == {"one": [f"other files have it too, and Airflow keeps one DAG: a.py:{line}"], "two": []}


@pytest.mark.parametrize(
    ("option", "words"),
    [("--root", "list.json is not a folder."), ("--variables", "list.json does not hold a JSON object.")],
)
def test_an_option_that_cannot_be_used_says_why(tmp_path: Path, option: str, words: str) -> None:
    (tmp_path / "list.json").write_text("[]")
    done = flowyml("import", "airflow", str(tmp_path), option, str(tmp_path / "list.json"))
    assert words in " ".join(done.err.split())


@pytest.mark.parametrize("name", ["report.md", "report.json", "index.html"])
def test_a_report_replaces_its_own_files_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "flow.py").write_text(ONE)
    given = ["import", "airflow", str(tmp_path / "flow.py"), "-o", str(tmp_path / "out"), "--report", str(tmp_path)]
    (tmp_path / name).write_text("mine\n")
    refused = flowyml(*given)
    assert f"{name} is there, and FlowyML did not write it. --force replaces it." in refused.err
    assert (tmp_path / name).read_text() == "mine\n"
    assert not (tmp_path / "out").exists(), "refused before anything is written"
    assert not flowyml(*given, "--force").err
    assert not flowyml(*given).err
    assert "mine" not in (tmp_path / name).read_text()


def test_a_report_grows_with_its_files_and_not_with_their_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def size(dags: int) -> int:
        lines = "".join(f'with DAG("d{n}", schedule=None):\n    EmptyOperator(task_id="a")\n' for n in range(dags))
        path = tmp_path / "flow.py"
        path.write_text(f"{HEAD}{lines}")
        (file,) = results_of([read_file(path, root=tmp_path)])
        assert file.dags, file.reason
        pages = files_of_report([file])
        first = next(name for name in pages if name.startswith("0001-"))
        assert pages[first].count("file-0001.html#line-") > 1
        assert f'id="line-{file.dags[0].place.line}"' in pages["file-0001.html"]
        return sum(map(len, pages.values()))

    one, many = size(10), size(80)
    assert many < 9 * one


def test_pages_fit_a_narrow_screen_and_say_which_side_is_which(tmp_path: Path) -> None:
    made = written(tmp_path, dag("BashOperator(task_id='t', bash_command='exit 99')"))
    pages = files_of_report([FileResult("dags/flow.py", "x", made.text, "dags/flow.py", made.dags)])
    for page in (each for each in pages if each.endswith(".html")):
        assert "`" not in pages[page].partition("<footer>")[2]
        assert '<meta name="viewport"' in pages[page]
    sides = pages["file-0001.html"]
    assert "<h2>DAG file: dags/flow.py</h2>" in sides
    assert "<h2>Pipelines: dags/flow.py</h2>" in sides
    assert '<td data-head="Why">its command may end with 99' in pages["0001-flow.html"]


def test_libcst_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(ONE)
    code = "import sys; sys.modules['libcst'] = None; from flowyml.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "import", "airflow", str(tmp_path / "flow.py"), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2400)
    assert done.returncode != 0
    assert "flowyml import airflow -o needs libcst: pip install 'flowyml[migrate]'." in done.stderr


def test_a_function_that_imports_airflow_in_its_body_counts_also_by_way_of_another(tmp_path: Path) -> None:
    functions = """
    def host():
        from airflow.hooks.base import BaseHook
        return BaseHook.get_connection("c").host
    def asks(): return host()
    def knows(): return "here"
    """
    tasks = "for one in (host, asks, knows): PythonOperator(task_id=one.__name__, python_callable=one)"
    made = written(tmp_path, dag(tasks, before=functions))
    assert {note.construct: note.reason for note in made.dags[0].notes if note.airflow_only} == {
        "task host": "it imports airflow", "task asks": "it uses host, which imports airflow",
    }  # fmt: skip


@pytest.mark.parametrize("taken", ["_", "a=1, *, b"])
def test_a_function_that_is_not_given_all_that_it_takes_stays_with_its_operator(tmp_path: Path, taken: str) -> None:
    task = "PythonOperator(task_id='t', python_callable=show)"
    made = written(tmp_path, dag(task, before=f"def show({taken}): pass"))
    (note,) = made.dags[0].notes
    assert note.reason == f"nothing gives it {taken[-1]}, so it stays an operator with its function"


# What `--verify` finds. tests/adapters/airflow/test_import_verified.py asks real Airflows.

ANSWERS = """#!/bin/sh
echo '{"dags": {"one": {"dag_id": "one", "tasks": {}}}, "errors": {}}'
"""


def test_an_interpreter_is_found_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/python").write_text(ANSWERS)
    (tmp_path / "venv/python").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert load_dags("venv/python", [tmp_path / "one.py"])["dags"].keys() == {"one"}
    monkeypatch.setenv("PATH", str(tmp_path / "venv"), prepend=":")
    assert load_dags("python", [tmp_path / "one.py"])["dags"].keys() == {"one"}
    with pytest.raises(EngineError, match="venv/none did not load"):
        load_dags("venv/none", [tmp_path / "one.py"])


def test_an_airflow_that_ends_its_process_and_the_errors_of_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 names the file of an error below its bundle, and files of two folders may have one name.

    It may end the process by itself, which has answered then.
    """
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    package = tmp_path / "airflow/dag_processing"
    package.mkdir(parents=True)
    (package / "dagbag.py").write_text(
        textwrap.dedent("""
        import atexit, os, pathlib
        atexit.register(os._exit, 0)
        class DagBag:
            dags = {}
            def __init__(self, root, collect_dags):
                self.import_errors = {}
            def process_file(self, path, only_if_updated):
                if text := pathlib.Path(path).read_text():
                    self.import_errors[path[-7:]] = f"Traceback\\n{text}\\n"
        """)
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    files = []
    for name, text in (("a", "KeyError: 'a'"), ("b", "KeyError: 'b'"), ("c", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flow.py").write_text(text)
        result = DagResult(name, name, Place("flow.py", 1), [])
        files.append(FileResult(str(tmp_path / name / "flow.py"), module="flow.py", dags=[result]))
    (tmp_path / "flow.py").write_text("")
    assert [found for *_, found in verifying.verify(str(python), files, tmp_path)] == [
        "Airflow does not load the DAG file: KeyError: 'a'",
        "Airflow does not load the DAG file: KeyError: 'b'",
        "Airflow does not load the DAG file: it has no such DAG",
    ]


@pytest.mark.parametrize("seconds", [None, 0.001])
def test_a_module_that_does_not_compile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    """The interpreter finds the DAG file's DAG: with no file compiled, it is not asked about any."""
    (tmp_path / "python").write_text("#!/bin/sh\n[ $# -gt 2 ] || exit 1\n" + ANSWERS.partition("\n")[2])
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "one.py").write_text("raise ValueError('not loaded')\n")
    if seconds:
        monkeypatch.setattr(verifying, "_SECONDS", seconds)
        monkeypatch.setattr(verifying, "load_dags", lambda *_: {"dags": {"one": {}}, "errors": {}})
    result = DagResult("one", "one", Place("one.py", 1), [])
    file = FileResult(str(tmp_path / "one.py"), module="one.py", dags=[result])
    ((_, _, found),) = verifying.verify(str(tmp_path / "python"), [file], tmp_path)
    assert isinstance(found, str)
    assert "Airflow does not load the compiled DAG: " in found
    assert ("it is not compiled after 0.001 s" in found) is bool(seconds)


def side(**tasks: Any) -> Any:
    plain = {"operator": "BashOperator", "upstream": [], "trigger_rule": "all_success", "retries": 0,
             "retry_delay": None, "execution_timeout": None, "mapped": False, "over": None, "arguments": {},
             **dict.fromkeys(("owner", "pool", "queue", "depends_on_past", "start_date")), "params": {}}  # fmt: skip
    made = {name: {"shown": name, "task_id": name, **plain, **each} for name, each in tasks.items()}
    of_dag = {"schedule": "None", "catchup": False, "start_date": None, "tags": [], "params": {}}
    return {"dag_id": "d", **of_dag, "tasks": made}


def test_differences_are_named() -> None:
    before = side(a={}, b={"upstream": ["a"], "retries": 2})
    assert not list(compare(before, side(a={}, b={"upstream": ["a"], "retries": 2})))
    through = side(a={}, choose={"upstream": ["a"]}, b={"upstream": ["choose"], "retries": 2})
    assert not list(compare(before, through, ["choose"]))
    chain: dict[str, dict[str, Any]] = {"a": {}, "b": {"upstream": ["a"]}}
    assert not list(compare(side(**chain, c={"upstream": ["b"]}), side(**chain, c={"upstream": ["a", "b"]})))
    chain["b"]["trigger_rule"] = "all_done"
    assert list(compare(side(**chain, c={"upstream": ["b"]}), side(**chain, c={"upstream": ["a", "b"]})))
    other = {**side(a={"trigger_rule": "all_done"}, c={}), "schedule": "cron:0 * * * * UTC"}
    found = list(compare(before, other))
    assert {(each.task_id, each.what) for each in found} == {
        ("b", "task"), ("c", "task"), ("a", "trigger_rule"), ("", "schedule"),
    }  # fmt: skip
    assert "d.b: task: 'there' in the DAG file, 'missing' in the compiled one" in map(str, found)
    sensors = [side(a={"operator": name}) for name in ("DecoratedSensorOperator", "PythonSensor", "BashOperator")]
    assert not list(compare(sensors[0], sensors[1]))
    assert list(compare(sensors[0], sensors[2]))
    sides = [side(a={"arguments": {"sql": sql, of: 1}}) for sql, of in (("  a", "b"), ("a", "c"))]
    assert [(each.what, each.original) for each in compare(*sides)] == [("argument sql", "  a")]


def test_start_catchup_params_tags_and_ids_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the report calls changed is left out."""
    start = {"start_date": "2024-01-01T00:00:00+00:00"}
    known: dict[str, Any] = {**start, "schedule": "delta:60.0", "catchup": True, "tags": ["a", "flowyml"],
                             "params": {"n": 1, "m": [2]}}  # fmt: skip
    ran = {"start_date": "2024-05-01T00:00:00+00:00", "params": {**known["params"], "own": 1}}
    before = {**side(a=ran, b={**start, "params": known["params"]}), **known}
    of_flowyml = {"start_date": "2020-01-01T00:00:00+00:00", "params": known["params"]}
    same = {**side(a={**ran}, b={**start, "params": known["params"]}), **known, "tags": ["a", "flowyml"]}
    other = {**side(a=of_flowyml, b={**of_flowyml, "task_id": "b_1", "params": {"n": 2}}), **of_flowyml, "dag_id": "e",
             "schedule": "delta:60.0", "tags": ["c", "flowyml"], "params": {"n": 2}}  # fmt: skip
    for each in before, same, other:
        each["file"] = "/dag_0.py"

    def compiled(*given: Any) -> subprocess.CompletedProcess[str]:
        given[-1].write_text("")
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(verifying, "_compiled", compiled)

    def found(after: Any, *changed: str) -> set[str]:
        sides = iter([after, before])
        monkeypatch.setattr(verifying, "load_dags", lambda *_: {"dags": {"d": next(sides)}, "errors": {}})
        notes = [Note(Kind.CHANGED, each, Place("one.py", 1)) for each in changed]
        result = DagResult("d", "d", Place("one.py", 1), notes)
        file = FileResult(str(tmp_path / "one.py"), module="one.py", dags=[result])
        ((_, _, differences),) = verifying.verify("python", [file], tmp_path)
        return {f"{each.what} {each.task_id}".strip() for each in differences if not isinstance(each, str)}

    assert found(same) == set()
    everything = {"start_date", "catchup", "tags", "parameter n", "parameter m", "dag_id", "task_id b", "start_date a",
                  "params a"}  # fmt: skip
    assert found(other) == everything
    said = ("start_date", "catchup of the DAG", "default of parameter n", "dag_id", "task_id b", "params of a")
    assert found(other, *said) == {"tags", "parameter m", "start_date a"}


def test_a_step_that_the_importer_adds_is_no_difference(tmp_path: Path) -> None:
    tasks = """
    @task(multiple_outputs=True)
    def both() -> dict: return {"worst": 1, "mean": 2}
    @task
    def show(worst): return worst
    show(both()["worst"])
    """
    (result,) = written(tmp_path, dag(tasks)).dags
    assert result.added == {"both.worst"}
    before = side(both={}, show={"upstream": ["both"]})
    after = side(both={}, x={"upstream": ["both"], "shown": "both.worst"}, show={"upstream": ["x"]})
    assert [each.task_id for each in compare(before, after)] == ["both.worst"]
    assert list(compare(before, after, (), result.added)) == []
