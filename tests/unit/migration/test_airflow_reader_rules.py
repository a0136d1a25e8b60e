"""Rules of Airflow's own objects that ``idioms.txt`` does not show: what Airflow refuses, and what is set later."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.migration.airflow.model import FileModel, Reference
from tests.unit.migration.dag_files import HEAD, codes, read

MAKES = "def E(name, **given): return EmptyOperator(task_id=name, **given)\n"


def _read(folder: Path, body: str, options: str = "schedule=None") -> FileModel:
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return read(folder, f"{HEAD}{MAKES}with DAG('rules', {options}) as dag:\n{lines}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("with DAG('d'): E('same'); E('same')", "DuplicateTaskIdFound"),
        ("with DAG('d'):\n    with TaskGroup('g'): E('a')\n    E('g')", "DuplicateTaskIdFound"),
        ("with DAG('d'):\n    a, b = E('a'), E('b')\n    a >> b >> a", "circle"),
        ("E('a') >> E('b')", "no DAG"),
        ("dag = DAG('with spaces')", "characters"),
    ],
)
def test_what_airflow_refuses_is_no_dag(tmp_path: Path, text: str, reason: str) -> None:
    file = read(tmp_path, HEAD + MAKES + text)
    assert not file.dags
    assert reason in str(file.reason)


@pytest.mark.parametrize("schedule", ["", "None", "@none", "every day"])
def test_a_schedule_that_airflow_refuses_is_said(tmp_path: Path, schedule: str) -> None:
    (dag,) = _read(tmp_path, "E('a')", f"schedule={schedule!r}").dags
    assert not dag.schedule_known
    assert [one.text for one in dag.warnings] == [f"Airflow refuses the schedule: {schedule!r}"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("dag.timetable = None", "unknown-schedule"),
        ("dag.schedule_interval = '@daily'", "unknown-schedule"),
        ("dag.default_args['retries'] = 9", "unknown-call"),
        ("dag.default_args.update(retries=9)", "unknown-call"),
        ("dag.task_dict['b'] = E('b')", "unknown-call"),
        ("del dag.task_dict['a']", "unknown-call"),
        ("with E('s').as_setup():\n    with E('t').as_teardown(setups=E('u')): E('c')", "unknown-edge"),
    ],
)
def test_what_is_set_later_and_not_read_is_said(tmp_path: Path, line: str, code: str) -> None:
    assert codes(_read(tmp_path, f"E('a')\n{line}")) == {code}


def test_what_is_no_argument_of_a_task_and_set_later_is_said(tmp_path: Path) -> None:
    (dag,) = _read(tmp_path, "t = E('t')\nt.template_ext = ()\nt.ui_color = '#fff'").dags
    (said,) = [one.text for one in dag.warnings]
    assert said == "`t.template_ext` sets no argument of the task: the import ignores it"


def test_schedules_of_timetables_and_options(tmp_path: Path) -> None:
    text = """
from airflow.timetables.trigger import CronTriggerTimetable
from company.timetables import Holidays
one = DAG("one", schedule=CronTriggerTimetable("5 4 * * *", timezone="UTC"), catchup=False)
one.catchup = True
two = DAG("two", schedule=Holidays(region="x"))
three = DAG("three", schedule="@continuous")
four = DAG("four", schedule=[Dataset("s3://me@a"), Dataset("s3://b/?z=1&y=2#part")])
five = DAG("five", schedule=Dataset("a") | (Dataset("c") & Dataset("b")))
"""
    dags = read(tmp_path, f"{HEAD}from airflow import Dataset\n{text}").dags
    assert [dag.schedule for dag in dags] == [
        "cron:5 4 * * *", "timetable:Holidays", "@continuous", "dataset:all(s3://a/,s3://b/?y=2&z=1)",
        "dataset:any(a,all(b,c))",
    ]  # fmt: skip
    assert dags[0].catchup


def test_time_zones_of_other_libraries(tmp_path: Path) -> None:
    starts = {
        "datetime(2024, 1, 1, tzinfo=tz.tzoffset('x', 3600))": "+01:00",
        "datetime(2024, 1, 1, tzinfo=pytz.FixedOffset(90))": "+01:30",
        "pytz.timezone('Europe/Madrid').localize(datetime(2024, 1, 1))": "Europe/Madrid",
    }
    lines = [f"dag_{number} = DAG('d{number}', start_date={start})" for number, start in enumerate(starts)]
    dags = read(tmp_path, "\n".join([HEAD, "import pytz", "from dateutil import tz", *lines])).dags
    assert [dag.timezone for dag in dags] == list(starts.values())
    assert not any(dag.warnings for dag in dags)


def test_values_of_other_libraries_keep_their_call_and_sets_are_sets(tmp_path: Path) -> None:
    text = """
from airflow.utils.trigger_rule import TriggerRule
from kubernetes.client import models as k8s
with DAG("pods", schedule=None) as dag:
    a = BashOperator(task_id="run", bash_command="true", names={"g", "c", "a"},
                     resources=k8s.V1ResourceRequirements(requests={"cpu": "1"}))
    a >> Label("next") >> EmptyOperator(task_id="end", trigger_rule=TriggerRule["ALL_DONE"])
"""
    run, end = read(tmp_path, HEAD + text).dags[0].tasks
    resources, names = run.argument("resources"), run.argument("names")
    assert resources is not None
    assert isinstance(resources.value, Reference)
    assert resources.value.import_path == "kubernetes.client.models.V1ResourceRequirements"
    assert resources.value.arguments[0].value == {"cpu": "1"}
    assert resources.source == 'k8s.V1ResourceRequirements(requests={"cpu": "1"})'
    assert names is not None
    assert names.value == {"a", "c", "g"}
    assert (end.edge_labels, end.trigger_rule) == ((("run", "next"),), "all_done")
