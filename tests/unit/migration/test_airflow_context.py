"""What tasks ask Airflow's context for: dates by the timetable, and what stays with its operator."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("libcst")

import flowyml
from flowyml.migration.airflow.writer.notes import Kind, Verdict
from tests.unit.migration.flows import FLOWS
from tests.unit.migration.modules import dag, loaded, note, notes, of_kind, ran, written

TIMETABLES = """
from airflow.sdk import Asset, AssetOrTimeSchedule, CronPartitionTimetable
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable
from datetime import timezone
EACH_WEDNESDAY = CronTriggerTimetable("0 1 * * 3", timezone="UTC")
"""
SHOW = "def show(text): return text\n"
FIRST, THIS, BEFORE = "DATA_INTERVAL_START", "LOGICAL_DATE", "on Airflow 2 this is the previous scheduled time"


def shown(given: str, more: str = "") -> str:
    return f"PythonOperator(task_id='show', python_callable=show, {given}{more})"


@pytest.mark.parametrize(
    ("schedule", "day", "start", "words"),
    [
        ("CronDataIntervalTimetable('0 3 * * *', timezone='UTC')", FIRST, FIRST, "it is the start of the run's"),
        ("DeltaDataIntervalTimetable(timedelta(hours=1))", FIRST, FIRST, "a manual run has none"),
        ("'@daily'", THIS, FIRST, BEFORE),
        ("timedelta(hours=1)", THIS, FIRST, BEFORE),
        ("CronTriggerTimetable('0 3 * * *', timezone='UTC')", THIS, THIS, None),
        ("CronTriggerTimetable('0 3 * * *', timezone='UTC', interval=timedelta(days=1))", THIS, FIRST, "of its own"),
        ("None", THIS, THIS, None),
    ],
)
def test_a_run_is_dated_as_by_the_timetable(
    tmp_path: Path, schedule: str, day: str, start: str, words: str | None
) -> None:
    task = shown("op_args=['{{ ds }} {{ data_interval_start }}']")
    made = written(tmp_path, dag(task, f"schedule={schedule}", TIMETABLES + SHOW))
    parameters = {each.name: each.default for each in loaded(tmp_path, made).flow.compile().parameters}
    assert parameters["ds"] == getattr(flowyml, day)
    assert parameters["data_interval_start"] == getattr(flowyml, start)
    said = [each.reason for each in notes(made, "ds")]
    assert [words in reason for reason in said] == ([True] if words else []), said


def test_an_interval_says_where_it_is_another_than_airflows(tmp_path: Path) -> None:
    made = written(tmp_path, dag(shown("op_args=['{{ data_interval_end }}']"), "schedule='@daily'", SHOW))
    assert "a run by hand has none" in note(made, "data_interval_end of show").reason


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("timezone='Europe/Vienna'", None),
        ("pendulum.timezone('Europe/Vienna')", None),
        ("timezone=Variable.get('zone')", "no schedule like cron:0 3 * * * in a time zone that is unknown"),
    ],
)
def test_a_schedule_has_the_time_zone_of_its_timetable(tmp_path: Path, zone: str, words: str | None) -> None:
    schedule = f"schedule=CronDataIntervalTimetable('0 3 * * *', {zone})"
    made = written(tmp_path, dag(shown("op_args=['{{ ds }}']"), schedule, TIMETABLES + SHOW))
    assert ('timezone="Europe/Vienna"' in made.text) is (words is None)
    assert (words or "None") in str(of_kind(made, Kind.CHANGED).get("schedule"))
    assert ran(tmp_path, made, logical_date="2026-03-01T00:30:00+01:00")[0] == {"show": "2026-02-28"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("schedule=AssetOrTimeSchedule(timetable=EACH_WEDNESDAY, assets=[Asset('a')])",
         "no schedule like AssetOrTimeSchedule("),
        ("schedule=CronPartitionTimetable('0 3 * * *', timezone='UTC')", "the runs have no partition key"),
        ("schedule='0 3 * * *', start_date=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))",
         "cron:0 3 * * * in a time zone without a name, +02:00"),
    ],
)  # fmt: skip
def test_what_a_schedule_loses_is_said(tmp_path: Path, options: str, words: str) -> None:
    made = written(tmp_path, dag("EmptyOperator(task_id='show')", options, TIMETABLES))
    assert words in note(made, "schedule").reason
    assert ("schedule=Schedule(" in made.text) is ("Partition" in options)


@pytest.mark.parametrize(
    ("task", "asks"),
    [
        ("BashOperator(task_id='show', bash_command='{{ var.value.x }} {{ ds }}')", True),
        ("PythonOperator(task_id='show', python_callable=lambda ti, ds: (ti.try_number, ds)[1])", True),
        ("BashOperator(task_id='show', bash_command='{{ var.value.x }}', doc_md='ds')", False),
        ("PythonOperator(task_id='show', python_callable=lambda ti: ti.task_id)", False),
    ],
)
def test_dates_of_operators_are_those_of_the_pipelines_schedule(tmp_path: Path, task: str, asks: bool) -> None:
    schedule = "schedule=CronDataIntervalTimetable('0 3 * * *', timezone='UTC')"
    made = written(tmp_path, dag(task, schedule, TIMETABLES))
    said = [each.reason for each in notes(made, "dates that operators ask for")]
    assert ["the start of an interval" in reason for reason in said] == [True] * asks


def test_values_that_may_be_missing_are_none(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None):
            @task
            def load(): raise ValueError("no")
            @task(trigger_rule="all_done")
            def report(rows, text): return [rows, text]
            report(load(), text="x")
        """,
    )
    assert made.dags[0].verdict is Verdict.ANY
    run = loaded(tmp_path, made).flow.run()
    assert (run.success, run.step_results["report"].outputs) == (False, {"report": [None, "x"]})


@pytest.mark.parametrize("flow", ["commands_with_templates", "pulled_by_templates"])
def test_a_value_of_the_run_in_a_command_is_said(tmp_path: Path, flow: str) -> None:
    reasons = " ".join(of_kind(written(tmp_path, FLOWS[flow].text), Kind.CHANGED).values())
    assert "the command contains a value of the run" in reasons
    assert "a shell interprets it" in reasons


def test_what_a_run_is_given_is_a_parameter_that_may_be_missing(tmp_path: Path) -> None:
    made = written(tmp_path, FLOWS["given_to_a_run"].text)
    assert ran(tmp_path, made)[0] == {"show": "|None|none", "say": ""}
    assert note(made, "dag_run.conf of a").reason == "it is a parameter of the pipeline"


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ("op_args=['{{ var.value.x }}']", "", "it has the template {{ var.value.x }}"),
        ("op_args=['{% if ds %}x{% endif %}']", "", "it has a template with statements"),
        ("op_args=[['{{ nothing }}']]", "", "it has the template {{ nothing }}"),
        ("op_args=['{{ ds | upper }}']", "", "it has the template {{ ds | upper }}"),
        ("op_args=['{{ params.y }}']", "", "it takes the parameter 'y', which the DAG does not have"),
        ("op_args=['{{ params.show }}']", "params={'show': 1}", "whose name is not free in Python"),
        ("op_args=['{{ params.x }}'], params={'x': 2}", "params={'x': 1}", "it has its own params"),
        ("op_args=['{{ ds }}']", "params={'ds': 1}", "the DAG file has something else of that name"),
        # What a run is given, where it may mean more than a parameter.
        ("op_args=['{{ dag_run.conf[\"n\"] }}']", "params={'n': 3}", "'n' of dag_run.conf, which is one of the params"),
        ("op_args=['{{ dag_run.conf[\"show\"] }}']", "", "takes 'show' of dag_run.conf, a name that is not free"),
        ("op_args=['{{ dag_run.conf[\"ds\"] }}']", "", "takes 'ds' of dag_run.conf, a name that is not free"),
        ("op_args=['{{ dag_run.conf }}']", "", "it has the template {{ dag_run.conf }}"),
        ("op_args=['{{ dag_run.conf.get(\"a\", ds) }}']", "", "it has the template"),
    ],
)
def test_what_stays_an_operator(tmp_path: Path, given: str, options: str, words: str) -> None:
    said = note(written(tmp_path, dag(shown(given), f"schedule=None, {options}", SHOW)), "task show")
    assert said.kind is Kind.OPAQUE
    assert words in said.reason


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("(ti): return ti.try_number", "it takes ti of Airflow"),
        ("(try_number=0): return try_number", "it takes try_number of Airflow"),
        ("(partition_key=None): return partition_key", "it takes partition_key of Airflow"),
        ("(yesterday_ds_nodash=''): return yesterday_ds_nodash", "it takes yesterday_ds_nodash of Airflow"),
        ("(prev_end_date_success=1): return 1", "it takes prev_end_date_success of Airflow"),
        ("(**kwargs): return len(kwargs)", "it takes Airflow's context as **kwargs"),
        ("(**kwargs): return kwargs['ti']", "it takes ti of Airflow"),
        ("(logical_date): return logical_date.in_timezone('x')", "which is more than a datetime"),
        ("(logical_date): return logical_date.replace(day=1).add(days=1)", "which is more than a datetime"),
        ("(logical_date): return f'{logical_date:YYYY-MM-DD}'", "which is more than a datetime"),
        ("(logical_date): return f'{logical_date!r}'", "which is more than a datetime"),
        # What is asked of the task itself, beside what another returned.
        ("(ti): ti.xcom_push('k', 1)", "ti"),
        ("(ti): ti.xcom_pull(task_ids='none')", "ti"),
        ("(ti): print(ti)", "ti"),
        ("(ti):\n    mine = ti\n    mine = 2", "ti"),
        ("(ti):\n    mine = ti\n    print(mine)", "ti"),
        ("(ti): ti.xcom_pull(task_ids=['first'])", "ti"),
        ("(ti): one, two = ti, 2", "ti"),
        ("(ti): ti.xcom_pull()", "ti"),
    ],
)
def test_functions_that_stay_with_their_operators(tmp_path: Path, function: str, words: str) -> None:
    tasks = "@task\ndef first(): return {'n': 4}\nfirst() >> PythonOperator(task_id='show', python_callable=show)"
    said = note(written(tmp_path, dag(tasks, before=f"def show{function}\n")), "task show")
    assert said.kind is Kind.OPAQUE
    assert words in said.reason


@pytest.mark.parametrize(
    ("pull", "why"),
    [
        ("ti.xcom_pull(task_ids='beside')", "it pulls what beside returned, and may run without it"),
        ("ti.xcom_pull(task_ids='early')", "it pulls what early returned, which is not one value"),
        ("ti.xcom_pull(task_ids='nothing')", "it pulls what nothing returned, which is not one value"),
        ("ti.xcom_pull(task_ids='many')", "it pulls what many returned, which is not one value"),
        ("ti.xcom_pull(task_ids='first', key='mine')", "it has the template"),
        ("ti.xcom_pull(task_ids='first', dag_id='other')", "it has the template"),
        ("ti.xcom_pull(task_ids=['first'])", "it has the template"),
    ],
)
def test_a_pull_that_is_no_value_of_a_step_keeps_the_operator(tmp_path: Path, pull: str, why: str) -> None:
    tasks = f"""
    @task
    def many(n): return n
    early, first = EmptyOperator(task_id="early"), BashOperator(task_id="first", bash_command="echo")
    shown = PythonOperator(task_id="show", python_callable=show, op_args=["{{{{ {pull} }}}}"])
    early >> first >> shown
    beside = BashOperator(task_id="beside", bash_command="echo")
    beside >> EmptyOperator(task_id="any", trigger_rule="all_done") >> shown
    [EmptyOperator(task_id="nothing"), many.expand(n=[1])] >> shown
    """
    said = note(written(tmp_path, dag(tasks, before=SHOW)), "task show")
    assert (said.kind, said.reason.startswith(why)) == (Kind.OPAQUE, True)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("bash_command='echo {{ macros.uuid() }}'", "it has the template {{ macros.uuid() }}"),
        ("bash_command='x', env={'A': 'b'}", "its env takes the place of the whole environment, without"),
        ("bash_command='x', env={'A': '{{ ds }}'}", "its env takes the place of the whole environment"),
        ("bash_command='run.sh '", "its command is a file, which Airflow renders"),
        ("bash_command=Variable.get('c', 'x')", "only Airflow knows its command"),
        ("bash_command='x', cwd=Variable.get('c', '/x')", "only Airflow knows its cwd"),
        ("bash_command='x', do_xcom_push=False", "it has do_xcom_push"),
        ("bash_command='x', outlets=['a']", "it has outlets"),
        ("bash_command='x', trigger_rule='all_skipped'", "it has the trigger rule 'all_skipped'"),
        *((f"bash_command={command}", "it")
          for command in ("'test -f x || exit 99'", "'CODE=99; exit $CODE'", "'exit {{ params.code }}'",
                          "'python -c \"import sys; sys.exit(99)\"'", "'(return 355) || exit \"355\"'",
                          "'exit $((0x63))'", "'exit $CODE', env={'CODE': '99'}, append_env=True")),
    ],
)  # fmt: skip
def test_a_command_that_stays_an_operator_says_why(tmp_path: Path, given: str, why: str) -> None:
    """Airflow skips a task whose command ends with 99, whatever the words for that."""
    made = written(tmp_path, dag(f"BashOperator(task_id='t', {given})", "schedule=None, params={'code': 1}"))
    said = note(made, "task t")
    assert (said.kind, said.reason.startswith(why)) == (Kind.OPAQUE, True), said.reason
    assert said.reason.endswith("so it stays BashOperator")


def test_an_empty_task_with_a_rule_that_no_step_has_stays_an_operator(tmp_path: Path) -> None:
    made = written(tmp_path, dag("EmptyOperator(task_id='t', trigger_rule='all_skipped')"))
    assert note(made, "task t").kind is Kind.OPAQUE


def test_values_that_a_function_pulls_become_its_parameters(tmp_path: Path) -> None:
    functions = """
    def made(): return {"n": 4}
    def shown(ti, by=2):
        # of the first task
        found = ti.xcom_pull(task_ids="made")
        again = ti.xcom_pull("made")
        return found["n"] * by, again
    def later(day, name="x", **context):
        ti = context["ti"]
        return [day, name, ti.xcom_pull(task_ids="shown")[0], ti.xcom_pull(task_ids="keys", key="k")]
    def alone(ti): return 1
    """
    tasks = """
    @task(multiple_outputs=True)
    def keys(): return {"k": "v"}
    made = PythonOperator(task_id="made", python_callable=made)
    shown = PythonOperator(task_id="shown", python_callable=shown, op_kwargs={"by": 3})
    made >> keys() >> shown >> PythonOperator(task_id="later", python_callable=later, op_args=["{{ ds }}"])
    PythonOperator(task_id="alone", python_callable=alone)
    """
    made = written(tmp_path, dag(tasks, before=functions))
    for words in (
        "def shown(found, by=2):\n    # of the first task\n    again = found\n    return found[",
        'def later(day, name="x", *, shown_value, keys_k_value):\n    return [day, name, shown_value[0], keys_k_value]',
        "def alone(): return 1",
    ):
        assert words in made.text
    assert "xcom_pull" not in made.text
    outputs, _ = ran(tmp_path, made, ds="2026-03-01")
    assert outputs["later"] == ["2026-03-01", "x", 12, "v"]


def test_a_function_that_one_task_cannot_take_keeps_its_pulls_for_that_task(tmp_path: Path) -> None:
    tasks = """
    @task
    def first(): return 1
    first() >> PythonOperator(task_id="one", python_callable=pulls)
    PythonOperator(task_id="other", python_callable=pulls)
    """
    made = written(tmp_path, dag(tasks, before="def pulls(ti): return ti.xcom_pull('first')"))
    assert note(made, "task one").kind is Kind.KEPT
    assert "may run without it" in note(made, "task other").reason
    flow = loaded(tmp_path, made).flow.compile()
    assert flow.by_name["other"].options["airflow"]["arguments"]["python_callable"]["$code"].endswith(":pulls_")


def test_params_of_the_default_arguments_are_those_of_the_run(tmp_path: Path) -> None:
    tasks = "@task\ndef show(params=None): return [params['region'], params['rows']]\nshow()"
    options = "schedule=None, params={'rows': 3}, default_args={'params': {'region': 'eu'}}"
    made = written(tmp_path, dag(tasks, options))
    assert ran(tmp_path, made, rows=4)[0]["show"] == ["eu", 4]


def test_the_output_of_a_task_within_a_text_is_a_template(tmp_path: Path) -> None:
    """Airflow's `XComArg` as text is a template: of a key that only the operator knows, the operator keeps it."""
    before = "def give(): return 3\ndef push(ti): ti.xcom_push(key='n', value=1)"
    made = written(tmp_path, dag("""
        given = PythonOperator(task_id='give', python_callable=give)
        pushed = PythonOperator(task_id='push', python_callable=push)
        given >> BashOperator(task_id='say', bash_command=f'echo {given.output}')
        pushed >> BashOperator(task_id='key', bash_command=f"echo {pushed.output['n']}")
    """, before=before))  # fmt: skip
    assert (note(made, "task say").kind, note(made, "task key").kind) == (Kind.KEPT, Kind.OPAQUE)
    assert "xcom_pull(task_ids='push', dag_id='flow', key='n')" in made.text
    plan = loaded(tmp_path, made).flow.compile()
    assert plan.by_name["say"].inputs
