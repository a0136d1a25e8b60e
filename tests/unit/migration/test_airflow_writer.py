"""Pipelines that are written from DAG files: what becomes of each construct, and that they are pipelines."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml import Pipeline
from flowyml.migration.airflow.writer.notes import DagResult, Kind, Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
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
    assert 'imported("os:environ.__getitem__")("H")' in made.text  # which fails where it is not set, as the file does


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
    assert "its function is in our.work, and it is mapped" in found["task many"]


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


def test_what_a_task_waits_for_stands_in_the_order_of_the_file(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            end = EmptyOperator(task_id="end")
            for name in ("users", "orders"):
                BashOperator(task_id=name, bash_command="true") >> end
    """,
    )
    assert made.text.index('"users"') < made.text.index('"orders"') < made.text.index('"end"')


@pytest.mark.parametrize(
    ("rule", "now"), [("none_failed_or_skipped", "none_failed_min_one_success"), ("dummy", "always")]
)
def test_trigger_rules_of_airflow_1_have_the_names_of_today(tmp_path: Path, rule: str, now: str) -> None:
    made = written(
        tmp_path,
        f"""
        from airflow.operators.dummy_operator import DummyOperator
        with DAG("flow", schedule=None):
            BashOperator(task_id="a", bash_command="true") >> DummyOperator(task_id="b", trigger_rule={rule!r})
    """,
    )
    assert f'run_if="{now}"' in made.text


def test_an_operator_that_airflow_renamed_has_its_name_of_today(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        from airflow.operators.dummy import DummyOperator
        with DAG("flow", schedule=None):
            DummyOperator(task_id="a", outlets=["x"])
    """,
    )
    assert '"airflow.providers.standard.operators.empty.EmptyOperator"' in made.text
