"""Tasks that stay on Airflow: DAGs of their own, and steps that run them in the pipeline of the others."""

from __future__ import annotations

import sys
import textwrap
from datetime import date
from pathlib import Path

import pytest

from flowyml.core.errors import UnsupportedFeatureError
from flowyml.migration.airflow.writer.notes import DagResult, Kind, Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.orchestrators import LocalOrchestrator
from flowyml_airflow.names import dag_id as id_on_airflow
from tests.unit.commands import Done, flowyml
from tests.unit.migration.dag_files import HEAD, read
from tests.unit.migration.modules import loaded

SALES = f"""{HEAD}
from our_company.operators import LakeOperator
DAY = "not a parameter's name"
@task
def extract(ds=None):
    return len(ds)
@task
def report(rows):
    print(rows, DAY)
with DAG("sales.daily", start_date=datetime(2024, 1, 1), schedule="0 3 * * *", params={{"region": "eu"}}):
    rows = extract()
    load = LakeOperator(
        task_id="load", lake="lake",
        sql="insert into s select '{{{{ ds }}}}', {{{{ ti.xcom_pull(task_ids='extract') }}}}",
        options=["{{{{ params.region }}}}", "{{{{ macros.ds_add(ds, -7) }}}}", "{{{{ var.value.bucket }}}}", "plain"],
        script="load.sql", retries=2, trigger_rule="all_done",
    )
    clean = LakeOperator(task_id="clean", DAY="{{{{ run_id }}}}")
    rows >> load >> report(rows) >> clean
"""


def flow_of(tasks: str, before: str = "") -> str:
    """A file with the DAG ``flow``."""
    head = f"{HEAD}\nfrom our_company.operators import EnvVar, LakeOperator\n{before}\n"
    return f"{head}with DAG('flow', schedule=None):\n{textwrap.indent(textwrap.dedent(tasks).strip(), '    ')}\n"


def written(folder: Path, text: str, *names: str, dag_id: str = "flow") -> Written:
    file = read(folder, text)
    return write_module(file, text, staying={dag_id: names})


def reasons(dag: DagResult, kind: Kind) -> list[str]:
    return [note.reason for note in dag.notes if note.kind is kind]


def test_an_operator_that_stays_is_a_step_that_runs_a_dag_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = written(tmp_path, SALES, "load", "clean", dag_id="sales.daily")
    assert [(dag.dag_id, dag.verdict) for dag in made.dags] == [
        ("sales.daily", Verdict.ANY), ("sales_daily_load", Verdict.AIRFLOW), ("sales_daily_clean", Verdict.AIRFLOW),
    ]  # fmt: skip
    module = loaded(tmp_path, made)
    ran: list[object] = []
    monkeypatch.setattr(module, "run_dag", lambda *given: ran.append(given) or {})
    module.load(date(2026, 3, 1), "eu", 4)
    sql = "insert into s select '2026-03-01', 4"
    assert ran == [("sales_daily_load", {"sql": sql, "options": "eu", "options_2": "2026-02-22"})]
    assert module.sales_daily.compile().by_name["load"].run_if == "all_done"
    plan = module.sales_daily_load.compile()
    assert [parameter.name for parameter in plan.parameters] == ["sql", "options", "options_2"]
    assert plan.options["airflow"] == {"is_paused_upon_creation": False}
    arguments = plan.by_name["load"].options["airflow"]["arguments"]
    assert arguments == {
        "lake": "lake", "sql": "{{ params.sql }}", "script": "load.sql", "retries": 2,
        "options": ["{{ params.options }}", "{{ params.options_2 }}", "{{ var.value.bucket }}", "plain"],
    }  # fmt: skip
    assert "{{ params.DAY_value }}" in made.text, "a parameter hides no name of the file"
    assert any("what Airflow renders in load.sql" in reason for reason in reasons(made.dags[0], Kind.CHANGED))


def test_the_module_is_what_python_and_flowyml_take(tmp_path: Path) -> None:
    module = loaded(tmp_path, written(tmp_path, SALES, "load", "clean", dag_id="sales.daily"))
    plan = LocalOrchestrator().plan(module.sales_daily)
    assert [step.name for step in plan.steps] == ["extract", "load", "report", "clean"]
    with pytest.raises(UnsupportedFeatureError, match=r"'load' is LakeOperator.* run only on Airflow"):
        LocalOrchestrator().plan(module.sales_daily_load)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("LakeOperator(task_id='odd', rows=rows)", "it takes the value of another task as an argument"),
        ("LakeOperator.partial(task_id='odd').expand(day=['a', 'b'])", "it is mapped"),
        ("LakeOperator(task_id='odd', day='{% if ds %}x{% endif %}')", "it has a template with statements"),
        ("LakeOperator(task_id='odd', day='{{ prev_ds }}')", "it has the template {{ prev_ds }}"),
        ("LakeOperator(task_id='odd', day=['{{ dag_run.conf }}'])", "it has the template {{ dag_run.conf }}"),
        ("PythonOperator(task_id='odd', python_callable=by_context)", "it depends on its own DAG run on Airflow"),
        ("ExternalTaskSensor(task_id='odd', external_dag_id='other')", "it depends on its own DAG run on Airflow"),
        ("LakeOperator(task_id='odd', default_args={'day': '{{ ds }}'})", "a default argument has a template"),
        ("EmptyOperator(task_id='odd')", "only operators of Airflow can"),
        ("LakeOperator(task_id='odd', env=[EnvVar('DAY', value='{{ ds }}')])", "an object in its env has a template"),
        ("LakeOperator(task_id='odd', soft_fail=True)", "it may skip"),
        ("BashOperator(task_id='odd', bash_command='exit 99')", "it may skip"),
        ("LakeOperator(task_id='odd', day='{{ ds }}').as_teardown()", "it has the trigger rule"),
    ],
)
def test_what_cannot_stay_is_as_it_would_be(tmp_path: Path, task: str, reason: str) -> None:
    before = """
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
def by_context(**context): print(context["ti"].hostname)
@task
def extract(): return 1
"""
    text = flow_of(f"rows = extract()\n{task}", before)
    made = written(tmp_path, text, "odd")
    assert [dag.dag_id for dag in made.dags] == ["flow"]
    assert [each for each in reasons(made.dags[0], Kind.CHANGED) if reason in each]
    plain = written(tmp_path, text)
    assert made.text == plain.text


@pytest.mark.parametrize(
    "taker",
    [
        "report(load.output)",
        "LakeOperator(task_id='taker', rows=load.output)",
        "LakeOperator(task_id='taker', rows='{{ ti.xcom_pull(task_ids=\"load\") }}')",
        "LakeOperator(task_id='taker', rows='{{ ti.xcom_pull(\"load\") | upper }}')",
        "PythonOperator(task_id='taker', python_callable=pulls)",
    ],
)
def test_a_task_that_takes_the_value_of_one_that_stays_is_refused(tmp_path: Path, taker: str) -> None:
    """And no DAG of its own is left of it."""
    before = """
@task
def report(found): print(found)
def pulls(ti, **context): print(context["ti"].hostname, ti.xcom_pull(task_ids=["load"]))
"""
    text = flow_of(f"load = LakeOperator(task_id='load')\nload >> {taker}", before)
    made = written(tmp_path, text, "load", "taker") if "taker" in taker else written(tmp_path, text, "load")
    assert reasons(made.dags[0], Kind.REFUSED) == ["it takes what load returns, which stays on Airflow"]
    assert [dag.dag_id for dag in made.dags] == ["flow", "flow_load"]
    compile(made.text, "flow", "exec")


def test_what_airflow_does_not_render_is_as_it_is(tmp_path: Path) -> None:
    task = """
    LakeOperator(task_id="load", doc_md="of `{{ ds }}`", params={"day": "{{ ds }}"}, day="{{ ds }}",
                 env=[EnvVar("B", value="{{ var.value.bucket }}")])
    """
    made = written(tmp_path, flow_of(task), "load")
    assert 'run_dag("flow_load", {"day_value": f"{ds}"})' in made.text
    assert 'doc_md="of `{{ ds }}`"' in made.text
    assert 'params={"day": "{{ ds }}"}' in made.text


@pytest.mark.parametrize(
    "sql",
    [
        # As long ones stand: line by line.
        "\nselect \"day\", '{{ ds }}' from sales where region = 'eu' {}\nunion all\nselect 1, '{{ ds }}' from orders\n",
        "a\r\n{{ ds }}\rb\r\n",
    ],
)
def test_a_rendered_template_is_as_jinja_renders_it(tmp_path: Path, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = written(tmp_path, flow_of(f"LakeOperator(task_id='load', sql={sql!r})"), "load")
    flow = loaded(tmp_path, made)
    given: list[dict[str, str]] = []
    monkeypatch.setattr(flow, "run_dag", lambda dag_id, parameters: given.append(parameters) or {})
    flow.load(date(2026, 3, 1))
    rendered = sql.replace("{{ ds }}", "2026-03-01").replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    assert given == [{"sql": rendered}]


def test_what_stands_in_a_dict_is_called_by_its_key_and_each_parameter_must_be_given(tmp_path: Path) -> None:
    task = """
    inner = {"sql": "{{ ds }}", "type": "{{ ds }}", "as-of": "{{ ts }}", "class": "{{ ds }}"}
    LakeOperator(task_id="load", job={"query": inner})
    """
    made = written(tmp_path, flow_of(task), "load")
    assert "def flow_load(sql: str, type_value: str, query: str, query_2: str) -> None:" in made.text


@pytest.mark.parametrize(
    ("dag_id", "task_id", "its_own"),
    [
        ("flow", "load_20240101", "flow_load_20240101_task"),
        ("flow", "load__dev", "flow_load__dev_task"),
        ("f" * 150, "t" * 50, None),
    ],
)
def test_its_dag_has_the_id_that_its_step_runs(tmp_path: Path, dag_id: str, task_id: str, its_own: str | None) -> None:
    """FlowyML's own ends of ids become others when a pipeline is deployed, and no name has more than 200 characters."""
    text = flow_of(f"LakeOperator(task_id='{task_id}')").replace("'flow'", f"'{dag_id}'")
    made = written(tmp_path, text, task_id, dag_id=dag_id)
    assert [dag.dag_id for dag in made.dags[1:]] == ([its_own] if its_own else [])
    if its_own:
        assert id_on_airflow(its_own) == its_own
        assert f'run_dag("{its_own}")' in made.text


def test_a_task_of_a_mapped_group_is_refused_as_without_the_file(tmp_path: Path) -> None:
    group = "@task_group\ndef each(item): LakeOperator(task_id='load', item=item)"
    text = flow_of(f"{group}\neach.expand(item=[1, 2])")
    made = written(tmp_path, text, "each.load")
    assert made == written(tmp_path, text)
    assert made.dags[0].verdict is Verdict.HAND


def test_one_in_a_group_stays_in_its_pipeline(tmp_path: Path) -> None:
    tasks = """
    with TaskGroup("tables"):
        LakeOperator(task_id="load", day="{{ ds }}") >> EmptyOperator(task_id="loaded")
    """
    made = written(tmp_path, flow_of(tasks), "tables.load")
    assert [dag.dag_id for dag in made.dags] == ["flow", "flow_tables_load"]
    plan = loaded(tmp_path, made).flow.compile()
    assert plan.by_name["tables.loaded"].after == ("tables.load",)
    assert [group.name for group in plan.groups] == ["tables"]
    assert 'return run_dag("flow_tables_load", {"day": f"{ds}"})' in made.text
    assert made.dags[0].verdict is Verdict.ANY


def test_names_are_free_and_dags_that_are_refused_take_theirs_along(tmp_path: Path) -> None:
    loop = "for name in ('flow', 'flow-', 'other'):\n    with DAG(name): LakeOperator(task_id='load')"
    text = flow_of("EmptyOperator(task_id='start')", loop).replace("DAG('flow'", "DAG('flow_load'")
    file = read(tmp_path, text)
    made = write_module(file, text, staying={"flow": ["load"], "flow-": ["load"]})
    assert [dag.dag_id for dag in made.dags] == ["flow", "flow_load_2", "flow-", "flow__load", "other", "flow_load"]


def test_tasks_of_the_same_name_are_called_after_their_dags(tmp_path: Path) -> None:
    loop = "for name in ('eu', 'us', 'asia'):\n    with DAG(name): LakeOperator(task_id='load')"
    text = flow_of("EmptyOperator(task_id='start')", loop)
    made = write_module(read(tmp_path, text), text, staying={name: ["load"] for name in ("eu", "us", "asia")})
    names = vars(loaded(tmp_path, made))
    assert names.keys() >= {"load", "load_of_us", "load_of_asia", "load_task", "load_of_us_task", "load_of_asia_task"}


@pytest.mark.parametrize(
    ("stay", "error"),
    [
        ("flow: [laod]", "the DAG 'flow' has no task 'laod'. Did you mean 'load'?"),
        ("flwo: [load]", "the files define no DAG 'flwo'. Did you mean 'flow'?"),
        ("flow: load", "write a list of task ids for each DAG, such as `sales: [load, clean]`"),
        ("[load]", "write a list of task ids for each DAG"),
        ("flow: [1]", "write a list of task ids for each DAG"),
        ("yes: [load]", "An id that YAML takes for something else, such as yes or 2024, needs quotes."),
        ("flow: [load]\nflow: []", "'flow' appears twice. Write one list of its tasks."),
        ("flow: [load", "is not YAML: while parsing"),
        ("flow: !!python/name:os.system", "is not YAML: could not determine a constructor"),
        (None, "cannot be read: [Errno 2]"),
    ],
)
def test_the_file_says_what_there_is(tmp_path: Path, stay: str | None, error: str) -> None:
    done = imported(tmp_path, stay, "-o", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "")
    assert error in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "--report, --verify, --run and --stay need -o DIR"),
        (["-o", "OUT", "--verify", sys.executable], "--verify compares whole DAGs: give it without --stay"),
    ],
)
def test_what_goes_together(tmp_path: Path, options: list[str], error: str) -> None:
    options = [each.replace("OUT", str(tmp_path / "out")) for each in options]
    done = imported(tmp_path, "flow: [load]", *options)
    assert done.code == 2
    assert error in " ".join(done.err.split())


def test_the_command_writes_both_and_says_where_each_runs(tmp_path: Path) -> None:
    done = imported(tmp_path, "flow: [load]", "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert [line.split()[:3] for line in done.out.splitlines()[1:3]] == [
        ["flow", "any", "engine"], ["flow_load", "Airflow", "only"],
    ]  # fmt: skip
    assert 'run_dag("flow_load")' in (tmp_path / "out" / "flow.py").read_text()


def imported(folder: Path, stay: str | None, *options: str) -> Done:
    """``flowyml import airflow`` of a DAG, with such a file."""
    read(folder, flow_of("LakeOperator(task_id='load')"))
    if stay is not None:
        (folder / "stay.yaml").write_text(stay)
    return flowyml("import", "airflow", f"{folder}/repository/dags", "--stay", f"{folder}/stay.yaml", *options)
