"""Pipelines that are written from DAG files: what becomes of each construct, and that they are pipelines."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml import Pipeline
from flowyml.core.errors import EngineError
from flowyml.migration.airflow.model import Place
from flowyml.migration.airflow.reader.reading import read_file
from flowyml.migration.airflow.writer import verifying
from flowyml.migration.airflow.writer.notes import DagResult, FileResult, Kind, Verdict
from flowyml.migration.airflow.writer.report import document, files_of_report, markdown, totals
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.migration.airflow.writer.verifying import compare, load_dags
from flowyml.migration.airflow.writer.writing import results_of
from tests.unit.commands import flowyml
from tests.unit.migration.dag_files import read
from tests.unit.migration.modules import loaded

HEAD = """
from datetime import datetime, timedelta
from airflow import DAG
from airflow.decorators import dag, task
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import BranchPythonOperator, PythonOperator
"""


def written(folder: Path, text: str) -> Written:
    file = read(folder, HEAD + textwrap.dedent(text))
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


def kinds(dag: DagResult) -> Mapping[str, Kind]:
    return {note.construct: note.kind for note in dag.notes}


def test_functions_move_over_and_values_flow(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        '''
        import json  # of the standard library

        FACTOR = 2  # how much

        def helper(value):
            return value * FACTOR

        @dag(schedule="@daily", start_date=datetime(2024, 1, 1), tags=["a"])
        def flow():
            # Reads it.
            @task(retries=2, retry_delay=timedelta(minutes=1))
            def extract() -> list:
                """Read.

                Twice.
                """
                return json.loads("[1, 2]")

            @task
            def double(value, by=1):
                return helper(value) * by

            @task
            def total(values):
                return sum(values)

            done = total(double.partial(by=3).expand(value=extract()))
            done >> EmptyOperator(task_id="end")

        flow()
        ''',
    )
    (result,) = made.dags
    assert result.verdict is Verdict.ANY, result.notes
    assert "@step(retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=60, backoff" in made.text
    assert '    """Read.\n\n    Twice.\n    """' in made.text
    assert "FACTOR = 2  # how much" in made.text
    assert "# Reads it.\n@step(" in made.text
    assert "airflow" not in made.text.replace("`flowyml import airflow`", "").replace('on="airflow"', "")
    assert 'flow.schedule("cron", "0 0 * * *", on="airflow"' in made.text
    flow: Pipeline = loaded(tmp_path, made, "written_flow").flow
    assert dict(flow.run().outputs) == {"total": 18}
    assert flow.compile().by_name["end"].after == ("total",)


def test_defaults_are_those_of_where_the_dag_is_made(tmp_path: Path) -> None:
    """Each lambda of a loop keeps its own, whatever the module has under that name."""
    made = written(
        tmp_path,
        """
        table, FACTOR = "other", 2

        def make(prefix):
            with DAG("flow", schedule=None):
                for number, table in enumerate(["orders", "users"]):
                    PythonOperator(task_id=f"load_{table}", python_callable=lambda table=table: [prefix_of(table)])

                    @task(task_id=f"count_{table}")
                    def count(by, *, number=number, factor=FACTOR):
                        return by + number * factor
                    count(1)

        def prefix_of(table, by="x"):
            return f"{by}_{table}"

        make("a")
        """,
    )
    assert made.dags[0].verdict is Verdict.ANY, made.dags[0].notes
    run = loaded(tmp_path, made, "written_bound").flow.run()
    assert {name: run.step_results[name].outputs[name] for name in run.step_results} == {
        "load_orders": ["x_orders"], "load_users": ["x_users"], "count_orders": 1, "count_users": 3,
    }  # fmt: skip
    assert "factor=FACTOR" in made.text


def test_a_default_that_no_step_can_be_given_keeps_the_operator_or_is_a_hole(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            for day in [datetime(2024, 1, 1)]:
                PythonOperator(task_id="dated", python_callable=lambda day=day: day)
                PythonOperator(task_id="asks", python_callable=lambda ti, day=day.year: [ti, day])
                BashOperator(task_id="told", bash_command="true", post_execute=lambda context, day=day: None)
            for text in ["{{ ds }}"]:
                PythonOperator(task_id="text", python_callable=lambda text=text: text)
        """,
    )
    found = {task: kind for task, kind in kinds(made.dags[0]).items() if task.startswith("task ")}
    assert found == {
        "task dated": Kind.OPAQUE, "task asks": Kind.OPAQUE, "task told": Kind.REFUSED, "task text": Kind.REFUSED,
    }  # fmt: skip
    assert 'op_kwargs={"day": 2024}' in made.text
    assert 'op_kwargs={"day": datetime.fromisoformat("2024-01-01T00:00:00")}' in made.text


@pytest.mark.parametrize("other", ["EmptyOperator", "BashOperator(bash_command='echo {{ ds }}', ", "Unknown"])
def test_a_task_named_like_the_value_of_another(tmp_path: Path, other: str) -> None:
    other = other if "(" in other else f"{other}("
    made = written(
        tmp_path,
        f"""
        from our.operators import Unknown
        def keep(value): return value

        with DAG("flow", schedule=None):
            @task
            def load(): return 1
            @task(trigger_rule="all_done")
            def use(value): return value
            @task
            def again(value): return value
            PythonOperator(task_id="use_value", python_callable=keep, op_args=["{{{{ ds }}}}"])
            again(use(load()))
            {other}task_id="load_value")
        """,
    )
    flow = loaded(tmp_path, made, "written_named_alike").flow
    assert {step.name for step in flow.compile()} == {"load", "use", "again", "use_value", "load_value"}


def test_the_same_file_gives_the_same_module(tmp_path: Path) -> None:
    text = """
    with DAG("d", schedule=None):
        BashOperator(task_id="a", bash_command="echo {{ var.value.d }}", env={"b": "1", "a": "2"})
    """
    assert written(tmp_path, text).text == written(tmp_path, text).text


def test_what_asks_for_airflow_stays_an_operator_with_its_function(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        from airflow.models import Variable

        def choose(ti, **context):
            return "left" if ti else "right"

        def reads():
            return Variable.get("x")

        with DAG("d", schedule=timedelta(hours=2)):
            first = BranchPythonOperator(task_id="choose", python_callable=choose)
            left = PythonOperator(task_id="left", python_callable=reads)
            right = BashOperator(task_id="right", bash_command="echo {{ var.value.d }}", retries=1)
            last = BashOperator(task_id="last", bash_command="echo plain", trigger_rule="none_failed")
            first >> [left, right] >> last
        """,
    )
    (result,) = made.dags
    assert result.verdict is Verdict.AIRFLOW
    found = kinds(result)
    assert (found["task choose"], found["task right"], found["task left"]) == (Kind.OPAQUE, Kind.OPAQUE, Kind.KEPT)
    assert (
        "with suppress(ImportError):  # Airflow's workers have it\n    from airflow.models import Variable" in made.text
    )
    plan = loaded(tmp_path, made, "written_choose").d.compile()
    assert plan.by_name["choose"].options["airflow"]["arguments"]["python_callable"] == {
        "$code": "written_choose:choose"
    }
    assert plan.by_name["right"].options["airflow"]["operator"] == "airflow.operators.bash.BashOperator"
    assert (plan.by_name["last"].function, plan.by_name["last"].run_if) == (
        "flowyml.steps.commands:bash",
        "none_failed",
    )
    assert set(plan.by_name["last"].after) == {"left", "right"}
    assert 'd.schedule("interval", 7200, on="airflow")' in made.text


@pytest.mark.parametrize(
    ("text", "construct", "kind", "words"),
    [
        (
            'PythonOperator(task_id="t", python_callable=(lambda: 1) or (lambda: 2))',
            "task t",
            Kind.REFUSED,
            "several lambdas",
        ),
        (
            'BashOperator(task_id="t", bash_command="{{ var.value.d }}", **{"__debug__": 1})',
            "task t",
            Kind.REFUSED,
            "cannot be the name of an argument",
        ),
        ('BashOperator(task_id="t", bash_command=open("x").read())', "task t", Kind.REFUSED, "only Airflow knows"),
    ],
)
def test_what_cannot_be_written_is_a_step_that_says_so(
    tmp_path: Path, text: str, construct: str, kind: Kind, words: str
) -> None:
    made = written(tmp_path, f'\nwith DAG("d", schedule=None):\n    {text}\n')
    (result,) = made.dags
    assert result.verdict is Verdict.HAND
    (note,) = [each for each in result.notes if each.construct == construct]
    assert (note.kind, words in note.reason, note.place.line > 1) == (kind, True, True)
    assert "raise NotImplementedError(" in made.text
    loaded(tmp_path, made, "written_hole").d.compile()


def test_a_module_imports_nothing_for_an_operator_that_cannot_be_written(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            BashOperator(task_id="odd", bash_command="true", sla=timedelta(1), cwd=open("place"), pool=make())
        """,
    )
    assert kinds(made.dags[0])["task odd"] is Kind.REFUSED
    assert "timedelta" not in made.text


def test_quotes_in_a_docstring(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None, doc_md='An ""empty"" one, three: \\"\\"\\", and at the end: ""'):
            EmptyOperator(task_id="a")
        """,
    )
    flow = loaded(tmp_path, made, "quotes_in_a_docstring").flow
    assert flow.__doc__ == 'An ""empty"" one, three: """, and at the end: ""'


def test_variables_and_the_environment_are_asked_where_airflow_reads_the_file(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        import os
        from airflow.models import Variable
        with DAG("d", schedule=None):
            BashOperator(task_id="t", bash_command="{{ var.value.d }}",
                         env={"A": Variable.get("a", "b"), "H": os.environ["H"]})
        """,
    )
    assert 'imported("airflow.models:Variable.get")("a", default_var="b")' in made.text
    assert 'imported("os:environ.get")("H")' in made.text


def test_what_is_left_out_or_kept_says_why_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "repository/dags/our").mkdir(parents=True)
    (tmp_path / "repository/dags/our/work.py").write_text("def work(of): return of\n")
    made = written(
        tmp_path,
        """
        from our.work import work
        def show(of): return of
        with DAG("d", schedule=None):
            PythonOperator(task_id="given", python_callable=show, op_args=[timedelta(1)])
            PythonOperator(task_id="plain", python_callable=show, op_args=[1], wait_for_downstream=True)
            BashOperator(task_id="dated", bash_command="{{ var.value.d }}", when=datetime(2024, 1, 1).date())
            PythonOperator.partial(task_id="many", python_callable=work).expand(op_args=[[1], [2]])
        """,
    )
    found = {note.construct: f"{note.reason}. {note.to_do}" for note in made.dags[0].notes}
    assert "it is given 0, which is not plain JSON" in found["task given"]
    assert "Leave it out, or keep the operator with airflow_operator(…)." in found["wait_for_downstream of plain"]
    assert "the date 2024-01-01 cannot be written as JSON" in found["task dated"]
    assert "its function stands in our.work, and it is mapped" in found["task many"]


def test_names_of_flowyml_that_the_file_has_too(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        step = 3
        def pipeline(): return step
        with DAG("bash", schedule=None):
            PythonOperator(task_id="pipeline", python_callable=pipeline)
            BashOperator(task_id="step", bash_command="{{ var.value.d }}")
        """,
    )
    module = loaded(tmp_path, made, "written_clash")
    (found,) = [each for each in vars(module).values() if isinstance(each, Pipeline)]
    assert found.name == "bash"
    assert sorted(step.name for step in found.compile()) == ["pipeline", "step"]


def test_words_of_flowyml_within_the_files_own_text_stay(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        import os
        def imported(row): return f"imported({row})"
        def xcom(row): return imported(row) + "xcom("
        def load(): return xcom(1)
        with DAG("d", schedule=None):
            loaded = PythonOperator(task_id="load", python_callable=load)
            BashOperator(task_id="t", bash_command="{{ var.value.d }}", env={"A": os.environ["H"], "B": loaded.output})
        """,
    )
    assert 'imported_("' in made.text
    assert 'xcom_("load")' in made.text
    module = loaded(tmp_path, made, "written_words")
    assert module.xcom(1) == "imported(1)xcom("
    assert {step.name for step in module.d.compile()} == {"load", "t"}


@pytest.mark.parametrize("line", ["import datetime", "from pendulum import datetime", "datetime = timedelta = None"])
def test_times_that_the_file_has_under_these_names(tmp_path: Path, line: str) -> None:
    file = read(
        tmp_path,
        f"""
        {line}
        from datetime import datetime as when, timedelta as long
        from airflow import DAG
        from airflow.operators.bash import BashOperator
        from airflow.operators.python import PythonOperator

        def load():
            return str(datetime)

        with DAG("d", schedule="@daily", start_date=when(2024, 1, 1)):
            PythonOperator(task_id="load", python_callable=load)
            BashOperator(task_id="t", bash_command="{{{{ var.value.d }}}}", retries=1,
                         retry_delay=long(minutes=7), at=when(2024, 1, 2))
        """,
    )
    made = write_module(file, (tmp_path / "repository/dags/flow.py").read_text())
    assert "start=datetime_.fromisoformat(" in made.text
    assert "at=datetime_.fromisoformat(" in made.text
    assert "(seconds=420)" in made.text
    assert "from datetime import datetime as datetime_" in made.text
    assert line in made.text
    if "pendulum" not in line:  # which need not be here
        module = loaded(tmp_path, made, "written_times")
        assert "class 'datetime.datetime'" not in module.load()


def test_several_imports_on_one_line_move_over(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        # Two of them.
        import json; import os; import sys
        def load(): return json.dumps(os.sep)
        with DAG("d", schedule=None):
            PythonOperator(task_id="load", python_callable=load)
        """,
    )
    assert "import json\nimport os\n" in made.text
    assert "import sys" not in made.text
    assert dict(loaded(tmp_path, made, "written_imports").d.run().outputs) == {"load": '"/"'}


def test_the_command_writes_modules_and_reports(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "one.py").write_text(f'{HEAD}\nwith DAG("one", schedule=None):\n    EmptyOperator(task_id="a")\n')
    (dags / "two.py").write_text(
        f'{HEAD}\nwith DAG("two", schedule=None):\n    BashOperator(task_id="a", bash_command="{{{{ var.d }}}}")\n'
    )
    given = ["import", "airflow", str(dags), "-o", str(tmp_path / "out"), "--report", str(tmp_path / "report")]
    done = flowyml(*given)
    assert "1 of 2 DAGs run on any engine, 1 on Airflow only, 0 need a hand." in done.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.py", "two.py"]
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["totals"] == {"dags": 2, "any_engine": 1, "airflow_only": 1, "needs_a_hand": 0}
    (tmp_path / "out/one.py").write_text("mine = 1\n")
    refused = flowyml(*given)
    assert "FlowyML did not write it. --force replaces it." in refused.err
    assert (tmp_path / "out/one.py").read_text() == "mine = 1\n"
    (tmp_path / "out/one.py").unlink()


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
    (tmp_path / "flow.py").write_text(f'{HEAD}\nwith DAG("one", schedule=None):\n    EmptyOperator(task_id="a")\n')
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


def test_libcst_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("flowyml.migration.airflow.writer.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "libcst", None)
    (tmp_path / "flow.py").write_text(f'{HEAD}\nwith DAG("one", schedule=None):\n    EmptyOperator(task_id="a")\n')
    done = flowyml("import", "airflow", str(tmp_path / "flow.py"), "-o", str(tmp_path / "out"))
    assert "flowyml import airflow -o needs libcst: pip install 'flowyml[migrate]'." in done.err


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


def test_an_airflow_that_ends_its_process_by_itself_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    package = tmp_path / "airflow/dag_processing"
    package.mkdir(parents=True)
    (package / "dagbag.py").write_text(
        "import atexit, os\natexit.register(os._exit, 0)\n"
        "class DagBag:\n    dags, import_errors = {}, {}\n    def __init__(self, root, collect_dags): pass\n"
        "    def process_file(self, path, only_if_updated): pass\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert load_dags(str(python), [tmp_path / "one.py"]) == {"dags": {}, "errors": {}}


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
        monkeypatch.setattr(verifying, "load_dags", lambda python, paths: {"dags": {"one": {}}, "errors": {}})
    dag = DagResult("one", "one", Place("one.py", 1), [])
    file = FileResult(str(tmp_path / "one.py"), module="one.py", dags=[dag])
    ((_, _, found),) = verifying.verify(str(tmp_path / "python"), [file], tmp_path)
    assert isinstance(found, str)
    assert "Airflow does not load the compiled DAG: " in found
    assert ("it is not compiled after 0.001 seconds" in found) is bool(seconds)


def test_differences_are_named() -> None:
    def side(**tasks: Any) -> Any:
        plain = {"operator": "BashOperator", "upstream": [], "trigger_rule": "all_success", "retries": 0,
                 "retry_delay": None, "execution_timeout": None, "mapped": False, "over": None}  # fmt: skip
        made = {name: {"shown": name, **plain, **each} for name, each in tasks.items()}
        return {"dag_id": "d", "schedule": "None", "tasks": made}

    before = side(a={}, b={"upstream": ["a"], "retries": 2})
    assert not list(compare(before, side(a={}, b={"upstream": ["a"], "retries": 2}), "None"))
    through = side(a={}, choose={"upstream": ["a"]}, b={"upstream": ["choose"], "retries": 2})
    assert not list(compare(before, through, "None", ["choose"]))
    found = list(compare(before, side(a={"trigger_rule": "all_done"}, c={}), "cron:0 * * * * UTC"))
    assert {(each.task_id, each.what) for each in found} == {
        ("b", "task"), ("c", "task"), ("a", "trigger_rule"), ("", "schedule"),
    }  # fmt: skip
    assert "d.b: task: 'there' in the DAG file, 'missing' in the compiled one" in map(str, found)


def test_totals_in_words() -> None:
    assert totals([FileResult("x.py", reason="no DAG")]) == "No DAG was found."
    assert document([])["totals"]["dags"] == 0
    assert markdown([]).startswith("# Import of Airflow DAGs")
