"""What tasks ask Airflow's context for, by arguments and by templates, as values of the run and parameters."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind, Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from tests.unit.migration.dag_files import read
from tests.unit.migration.modules import loaded

HEAD = """
from datetime import datetime
from airflow import DAG
from airflow.decorators import task
from airflow.models.param import Param
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
"""
DAY = {"ds": "2026-03-01", "logical_date": "2026-03-01T05:06:07+00:00"}


def written(folder: Path, body: str, dag: str = "schedule=None", head: str = "") -> Written:
    text = f"{HEAD}\n{textwrap.dedent(head)}\nwith DAG('flow', {dag}):\n" + textwrap.indent(
        textwrap.dedent(body), "    "
    )
    file = read(folder, text)
    return write_module(file, (folder / "repository/dags/flow.py").read_text())


def outputs(folder: Path, made: Written, name: str, **given: Any) -> Any:
    (result,) = made.dags
    assert result.verdict is Verdict.ANY, result.notes
    flow = loaded(folder, made, name).flow
    known = {parameter.name for parameter in flow.compile().parameters}
    run = flow.run({name: value for name, value in {**DAY, **given}.items() if name in known})
    assert run.success, run.error
    return dict(run.outputs)


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{ ds }}", "2026-03-01"),
        ("s3://{{ds_nodash}}/it's {\"x\": '\\\\'}", "s3://20260301/it's {\"x\": '\\\\'}"),
        ("{{ ts }} {{ ts_nodash }}", "2026-03-01T05:06:07+00:00 20260301T050607"),
        ("{{ logical_date }}", "2026-03-01 05:06:07+00:00"),
        ("{{ macros.ds_add(ds, -1) }}", "2026-02-28"),
        ("{{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%y') }}", "01.03.26"),
        ("{{ (logical_date - macros.timedelta(days=1)).strftime('%Y/%m') }}", "2026/02"),
        ("{{ logical_date.subtract(hours=6) | ds }}", "2026-02-28"),
        ("{{ dag_run.logical_date.strftime('%A').lower() }}", "sunday"),
        ("{{ ds.replace('-', '') }} {{ logical_date.year }}", "20260301 2026"),
        ("{{ dag.dag_id }}.{{ ti.task_id }}", "flow.show"),
        ("{{ task_instance_key_str }}", "flow__show__20260301"),
        ("{{ params.n }} {{ params['country'] }}", "3 at"),
        ("{{ data_interval_start | ts }}", "2026-03-01T05:06:07+00:00"),
    ],
)
def test_templates_of_a_functions_arguments(tmp_path: Path, template: str, wanted: str) -> None:
    made = written(
        tmp_path,
        f"""
        @task
        def show(text): return text["in"][0]
        show({{"in": [{template!r}]}})
        """,
        "schedule=None, params={'n': Param(3, type='integer'), 'country': 'at'}",
    )
    given = {"data_interval_start": DAY["logical_date"]}
    assert outputs(tmp_path, made, "written_template", **given) == {"show": wanted}


def test_what_a_function_takes_by_name(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "PythonOperator(task_id='show', python_callable=show, op_args=['a'])",
        "schedule='@daily', params={'country': 'at', 'since': None}",
        """
        def show(text, ds=None, *, logical_date, **kwargs):
            return [text, ds, f"{logical_date:%Y}", kwargs["params"]["country"], kwargs.get("ts_nodash")]
        """,
    )
    assert "def flow(\n    country: str" in made.text or "def flow(country: str" in made.text
    assert outputs(tmp_path, made, "written_names") == {"show": ["a", "2026-03-01", "2026", "at", "20260301T050607"]}


def test_days_are_those_of_utc(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        "PythonOperator(task_id='show', python_callable=str, op_args=['{{ ds }} {{ ts }}'])\n"
        "BashOperator(task_id='bash', bash_command='echo {{ ds }}')",
        "schedule='0 0 * * *', start_date=pendulum.datetime(2024, 1, 1, tz='Europe/Vienna')",
        "import pendulum\ndef str(text): return text",
    )
    given = {"logical_date": "2026-03-01T00:00:00+01:00"}
    assert outputs(tmp_path, made, "written_zone", **given) == {
        "show": "2026-02-28 2026-02-28T23:00:00+00:00",
        "bash": "2026-02-28",
    }


def test_commands_with_templates(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        r"""
        BashOperator(task_id="show", bash_command='echo "{{ ds }}" $MORE {{ params.n }}',
                     env={"MORE": "{{ ds_nodash }}"}, append_env=True)
        """,
        "schedule=None, params={'n': 3}",
    )
    assert outputs(tmp_path, made, "written_command", n=4) == {"show": "2026-03-01 20260301 4"}
    (note,) = [each for each in made.dags[0].notes if each.kind is Kind.CHANGED]
    assert "a shell interprets it" in note.reason


def test_an_interval_says_where_it_is_another_than_airflows(tmp_path: Path) -> None:
    body = "PythonOperator(task_id='show', python_callable=print, op_args=['{{ data_interval_end }}'])"
    made = written(tmp_path, body, "schedule='@daily'", "def print(text): return text")
    assert "data_interval_end: datetime = DATA_INTERVAL_END" in made.text
    (note,) = [each for each in made.dags[0].notes if each.construct == "data_interval_end of show"]
    assert "a run by hand has none" in note.reason


TIMETABLES = "from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable\n"
TIMETABLES += "from airflow.timetables.trigger import CronTriggerTimetable\nfrom datetime import timedelta\n"
FIRST, THIS, BEFORE = "DATA_INTERVAL_START", "LOGICAL_DATE", "on Airflow 2 this is the previous scheduled time"


@pytest.mark.parametrize(
    ("schedule", "day", "start", "words"),
    [
        ("CronDataIntervalTimetable('0 3 * * *', timezone='UTC')", FIRST, FIRST, "it is the start of the run's"),
        ("DeltaDataIntervalTimetable(timedelta(hours=1))", FIRST, FIRST, "a manual run has none"),
        ("'@daily'", THIS, FIRST, BEFORE),
        ("'0 3 * * *'", THIS, FIRST, BEFORE),
        ("timedelta(hours=1)", THIS, FIRST, BEFORE),
        ("CronTriggerTimetable('0 3 * * *', timezone='UTC')", THIS, THIS, None),
        ("CronTriggerTimetable('0 3 * * *', timezone='UTC', interval=timedelta(days=1))", THIS, FIRST, "of its own"),
        ("None", THIS, THIS, None),
    ],
)
def test_a_run_is_dated_as_by_the_timetable(
    tmp_path: Path, schedule: str, day: str, start: str, words: str | None
) -> None:
    body = "PythonOperator(task_id='show', python_callable=print, op_args=['{{ ds }} {{ data_interval_start }}'])"
    made = written(tmp_path, body, f"schedule={schedule}", f"{TIMETABLES}def print(text): return text")
    assert f"ds: date = {day}," in made.text
    assert f"data_interval_start: datetime = {start}" in made.text
    found = [each.reason for each in made.dags[0].notes if each.construct == "ds"]
    assert (words is None) == (not found)
    assert words is None or words in found[0]


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("timezone='Europe/Vienna'", 'flow.schedule("cron", "0 3 * * *", on="airflow", timezone="Europe/Vienna")'),
        ("pendulum.timezone('Europe/Vienna')", 'timezone="Europe/Vienna")'),
        ("timezone=Variable.get('zone')", None),
    ],
)
def test_a_schedule_has_the_time_zone_of_its_timetable(tmp_path: Path, zone: str, words: str | None) -> None:
    head = f"{TIMETABLES}import pendulum\nfrom airflow.models import Variable\ndef show(text): return text\n"
    body = "PythonOperator(task_id='show', python_callable=show, op_args=['{{ ds }}'])"
    made = written(tmp_path, body, f"schedule=CronDataIntervalTimetable('0 3 * * *', {zone})", head)
    found = [each.reason for each in made.dags[0].notes if each.construct == "schedule" and each.kind is Kind.CHANGED]
    if words is None:
        assert found == ["FlowyML has no schedule like cron:0 3 * * * in a time zone that is unknown"]
    assert words is None or (words in made.text and not found)
    given = {"logical_date": "2026-03-01T00:30:00+01:00"}
    assert outputs(tmp_path, made, "written_zone_of", **given) == {"show": "2026-02-28"}


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("AssetOrTimeSchedule(timetable=CronTriggerTimetable('0 1 * * 3', timezone='UTC'), assets=[Asset('a')])", None),
        ("CronPartitionTimetable('0 3 * * *', timezone='UTC')", "the runs have no partition key"),
        ("timezone(timedelta(hours=2))", "cron:0 3 * * * in a time zone without a name, +02:00"),
    ],
)
def test_what_a_schedule_loses_is_said(tmp_path: Path, schedule: str, words: str | None) -> None:
    head = f"{TIMETABLES}from airflow.sdk import Asset, AssetOrTimeSchedule, CronPartitionTimetable\n"
    head += "from datetime import datetime, timezone\n"
    given = f"schedule={schedule}"
    if schedule.startswith("timezone"):
        given = f"schedule='0 3 * * *', start_date=datetime(2026, 1, 1, tzinfo={schedule})"
    made = written(tmp_path, "EmptyOperator(task_id='show')", given, head)
    (found,) = [each.reason for each in made.dags[0].notes if each.construct == "schedule"]
    assert (words or f"no schedule like {schedule}") in found
    assert ("flow.schedule(" in made.text) == ("Partition" in schedule)


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
    made = written(tmp_path, task, "schedule=CronDataIntervalTimetable('0 3 * * *', timezone='UTC')", TIMETABLES)
    found = [each for each in made.dags[0].notes if each.construct == "dates that operators ask for"]
    assert [(note.kind, "the start of an interval" in note.reason) for note in found] == [(Kind.CHANGED, True)] * asks


def test_values_that_may_be_missing_are_none(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        @task
        def load(): raise ValueError("no")
        @task(trigger_rule="all_done")
        def report(rows, text): return [rows, text]
        report(load(), text="x")
        """,
    )
    assert made.dags[0].verdict is Verdict.ANY
    run = loaded(tmp_path, made, "written_missing").flow.run()
    assert (run.success, run.step_results["report"].outputs) == (False, {"report": [None, "x"]})


def test_a_mapped_step_that_takes_the_same_value_whole(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        @task
        def rows(): return [1, 2]
        @task
        def part(one, every, ds=None): return [one, every, ds]
        @task
        def seen(values): return list(values)
        found = rows()
        seen(part.partial(every=found).expand(one=found))
        """,
    )
    assert outputs(tmp_path, made, "written_whole")["seen"] == [[1, [1, 2], "2026-03-01"], [2, [1, 2], "2026-03-01"]]


@pytest.mark.parametrize(
    ("body", "dag", "words"),
    [
        ("op_args=['{{ var.value.x }}']", "", "it has the template {{ var.value.x }}"),
        ("op_args=['{{ ti.xcom_pull(task_ids=\"a\") }}']", "", "it has the template {{ ti.xcom_pull("),
        ("op_args=['{% if ds %}x{% endif %}']", "", "it has a template with statements"),
        ("op_args=[['{{ nothing }}']]", "", "it has the template {{ nothing }}"),
        ("op_args=['{{ ds | upper }}']", "", "it has the template {{ ds | upper }}"),
        ("op_args=['{{ params.y }}']", "", "it takes the parameter 'y', which the DAG does not have"),
        ("op_args=['{{ params.show }}']", "params={'show': 1}", "whose name is not free in Python"),
        ("op_args=['{{ params.x }}'], params={'x': 2}", "params={'x': 1}", "it has its own params"),
        ("op_args=['{{ ds }}']", "params={'ds': 1}", "the DAG file has something else of that name"),
        ("op_args=['{{ ds }}']", "render_template_as_native_obj=True", "its DAG has render_template_as_native_obj"),
        ("op_args=['{{ ds }}']", "user_defined_macros={'ds': 1}", "its DAG has user_defined_macros"),
    ],
)
def test_what_stays_an_operator(tmp_path: Path, body: str, dag: str, words: str) -> None:
    text = f"PythonOperator(task_id='show', python_callable=show, {body})"
    made = written(tmp_path, text, f"schedule=None, {dag}", "def show(text): return text")
    (note,) = [each for each in made.dags[0].notes if each.construct == "task show"]
    assert note.kind is Kind.OPAQUE
    assert words in note.reason


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("def show(ti): return ti.try_number", "it takes ti of Airflow"),
        ("def show(try_number=0): return try_number", "it takes try_number of Airflow"),
        ("def show(partition_key=None): return partition_key", "it takes partition_key of Airflow"),
        ("def show(yesterday_ds_nodash=''): return yesterday_ds_nodash", "it takes yesterday_ds_nodash of Airflow"),
        ("def show(prev_end_date_success=1): return 1", "it takes prev_end_date_success of Airflow"),
        ("def show(**kwargs): return len(kwargs)", "it takes Airflow's context as **kwargs"),
        ("def show(**kwargs): return kwargs['ti']", "it takes ti of Airflow"),
        ("def show(logical_date): return logical_date.in_timezone('x')", "which is more than a datetime"),
        ("def show(logical_date): return logical_date.replace(day=1).add(days=1)", "which is more than a datetime"),
        ("def show(logical_date): return f'{logical_date:YYYY-MM-DD}'", "which is more than a datetime"),
        ("def show(logical_date): return f'{logical_date!r}'", "which is more than a datetime"),
    ],
)
def test_functions_that_stay_with_their_operators(tmp_path: Path, function: str, words: str) -> None:
    made = written(tmp_path, "PythonOperator(task_id='show', python_callable=show)", head=function)
    (note,) = [each for each in made.dags[0].notes if each.construct == "task show"]
    assert (note.kind, words in note.reason) == (Kind.OPAQUE, True)


@pytest.mark.parametrize(
    "task",
    [
        "BashOperator(task_id='t', bash_command='test -f x || exit 99')",
        "BashOperator(task_id='t', bash_command='CODE=99; exit $CODE')",
        "BashOperator(task_id='t', bash_command='python -c \"import sys; sys.exit(99)\"')",
        "BashOperator(task_id='t', bash_command='(return 355) || exit \"355\"')",
        "BashOperator(task_id='t', bash_command='exit $((0x63))')",
        "BashOperator(task_id='t', bash_command='exit {{ params.code }}')",
        "BashOperator(task_id='t', bash_command='exit $CODE', env={'CODE': '99'}, append_env=True)",
        "BashOperator(task_id='t', bash_command='true', trigger_rule='all_skipped')",
        "EmptyOperator(task_id='t', trigger_rule='all_skipped')",
        "BashOperator(task_id='t', bash_command='true', env={'A': '{{ ds }}'})",
    ],
)
def test_what_no_step_means_stays_an_operator(tmp_path: Path, task: str) -> None:
    (result,) = written(tmp_path, task, "schedule=None, params={'code': 1}").dags
    assert result.verdict is Verdict.AIRFLOW


@pytest.mark.parametrize(
    ("pull", "wanted"),
    [
        ("ti.xcom_pull(task_ids='first')", "{'n': [4]} there"),
        ("task_instance.xcom_pull('first', key='return_value')['n']", "[4] there"),
    ],
)
def test_what_a_template_pulls_flows_as_a_value(tmp_path: Path, pull: str, wanted: str) -> None:
    made = written(
        tmp_path,
        f"""
        @task
        def first(): return {{"n": [4]}}
        @task
        def show(text): return text
        taken = "{{{{ {pull} }}}} there"
        first() >> [show(taken), BashOperator(task_id="say", bash_command='echo "' + taken + '"')]
        """,
    )
    found = outputs(tmp_path, made, f"pulled_{len(pull)}")
    assert found["show"] == found["say"] == wanted
    assert "the command contains a value of the run, as in the DAG, and a shell interprets it" in {
        note.reason for note in made.dags[0].notes
    }


@pytest.mark.parametrize(
    ("pull", "why"),
    [
        ("ti.xcom_pull(task_ids='early')", "it pulls what early returned, and does not wait for it itself"),
        ("ti.xcom_pull(task_ids='nothing')", "it pulls what nothing returned, which is not one value"),
        ("ti.xcom_pull(task_ids='many')", "it pulls what many returned, which is not one value"),
        ("ti.xcom_pull(task_ids='first', key='mine')", "it has the template"),
        ("ti.xcom_pull(task_ids='first', dag_id='other')", "it has the template"),
        ("ti.xcom_pull(task_ids=['first'])", "it has the template"),
    ],
)
def test_a_pull_that_is_no_value_of_a_step_keeps_the_operator(tmp_path: Path, pull: str, why: str) -> None:
    made = written(
        tmp_path,
        f"""
        def show(text): return text
        @task
        def many(n): return n
        early, first = EmptyOperator(task_id="early"), BashOperator(task_id="first", bash_command="echo")
        shown = PythonOperator(task_id="show", python_callable=show, op_args=["{{{{ {pull} }}}}"])
        early >> first >> shown
        [EmptyOperator(task_id="nothing"), many.expand(n=[1])] >> shown
        """,
    )
    (note,) = [note for note in made.dags[0].notes if note.construct == "task show"]
    assert note.kind is Kind.OPAQUE
    assert note.reason.startswith(why)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("ti", "return ti.xcom_pull(task_ids='first')['n'], ti.xcom_pull('last', key='return_value')"),
        ("**context", "ti = context['ti']\n    return ti.xcom_pull('first')['n'], ti.xcom_pull(task_ids='last')"),
        ("*, task_instance=None, **_", "t = task_instance\n    return t.xcom_pull('first')['n'], t.xcom_pull('last')"),
    ],
)  # fmt: skip
def test_what_a_function_pulls_flows_as_a_value(tmp_path: Path, head: str, body: str) -> None:
    made = written(
        tmp_path,
        """
        @task
        def first(): return {"n": 4}
        @task
        def last(): return "there"
        [first(), last()] >> PythonOperator(task_id="show", python_callable=show)
        """,
        head=f"def show({head}):\n    {body}\n",
    )
    assert outputs(tmp_path, made, f"pulled_by_{len(head)}")["show"] == (4, "there")


@pytest.mark.parametrize(
    "body",
    [
        "ti.xcom_push('k', 1)", "ti.xcom_pull(task_ids='first', key='k')", "print(ti)", "mine = ti\n    mine = 2",
        "mine = ti\n    print(mine)", "ti.xcom_pull(task_ids=['first'])", "one, two = ti, 2", "ti.xcom_pull()",
    ],
)  # fmt: skip
def test_a_function_that_asks_more_of_its_task_keeps_the_operator(tmp_path: Path, body: str) -> None:
    made = written(
        tmp_path,
        """
        @task
        def first(): return {"n": 4}
        first() >> PythonOperator(task_id="show", python_callable=show)
        """,
        head=f"def show(ti):\n    {body}\n",
    )
    (note,) = [note for note in made.dags[0].notes if note.construct == "task show"]
    assert note.kind is Kind.OPAQUE


def test_what_a_run_is_given_is_a_parameter(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        @task
        def show(one, two, three): return "|".join((one, two, three))
        show("{{ dag_run.conf['a'] }}", "{{ dag_run.conf.get('a') }}", "{{ dag_run.conf.get('b', 'none') }}")
        BashOperator(task_id="say", bash_command="echo {{ dag_run.conf['b'] }}")
        """,
    )
    assert "def flow(a: str | None = None, b: str | None = None) -> None:" in made.text
    assert outputs(tmp_path, made, "given_none") == {"show": "|None|none", "say": ""}
    assert outputs(tmp_path, made, "given_some", a="x", b="y") == {"show": "x|x|y", "say": "y"}
    reasons = {note.construct: note.reason for note in made.dags[0].notes if note.kind is Kind.CHANGED}
    assert reasons["dag_run.conf of a"] == "it is a parameter of the pipeline"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("dag_run.conf['n']", "it takes 'n' of dag_run.conf, which is one of the params too"),
        ("dag_run.conf['show']", "it takes 'show' of dag_run.conf, a name that is not free in Python"),
        ("dag_run.conf['ds']", "it takes 'ds' of dag_run.conf, a name that is not free in Python"),
        ("dag_run.conf", "it has the template {{ dag_run.conf }}"),
        ("dag_run.conf.get('a', ds)", "it has the template"),
    ],
)
def test_what_a_run_is_given_keeps_the_operator_where_it_may_mean_more(tmp_path: Path, asked: str, why: str) -> None:
    made = written(
        tmp_path, f'PythonOperator(task_id="t", python_callable=show, op_args=["{{{{ {asked} }}}}"])',
        "schedule=None, params={'n': 3}", "def show(text): return text\n",
    )  # fmt: skip
    (note,) = [note for note in made.dags[0].notes if note.construct == "task t"]
    assert note.kind is Kind.OPAQUE
    assert note.reason.startswith(why)
