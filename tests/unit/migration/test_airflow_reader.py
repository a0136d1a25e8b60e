"""Reading DAG files: what real ones are made of, in files that were written for this test."""

from __future__ import annotations

from pathlib import Path

from flowyml.migration.airflow.model import FunctionModel, Reference
from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read


def test_airflow_1_style_with_default_args_and_dag_passed_around(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
        from datetime import datetime, timedelta
        from airflow import DAG
        from airflow.operators.bash_operator import BashOperator
        from airflow.operators.python_operator import PythonOperator

        default_args = {"owner": "data", "retries": 3, "retry_delay": timedelta(minutes=5)}
        dag = DAG("legacy", default_args=default_args, schedule_interval="@daily", start_date=datetime(2019, 1, 1))

        def work(**context):
            return 1

        t1 = BashOperator(task_id="first", bash_command="echo {{ ds }}", dag=dag)
        t2 = PythonOperator(task_id="second", python_callable=work, provide_context=True, dag=dag, retries=1)
        t3 = BashOperator(task_id="third", bash_command="echo", dag=dag)
        t2.set_upstream(t1)
        t3 << [t1, t2]
        """,
    )
    (dag,) = file.dags
    assert dag.schedule == "cron:0 0 * * *"
    assert edges(file) == {"first>second", "first>third", "second>third"}
    first, second, _ = dag.tasks
    assert (first.retries, first.retry_delay, second.retries) == (3, 300.0, 1)
    assert second.function == FunctionModel("work", second.function.place, parameters=())  # type: ignore[union-attr]  # it is there
    assert (second.function.place.line, second.function.place.end_line) == (10, 11)  # type: ignore[union-attr]  # it is there
    command = first.argument("bash_command")
    assert command is not None
    assert (command.source, command.value) == ('"echo {{ ds }}"', "echo {{ ds }}")
    assert first.import_path == "airflow.operators.bash_operator.BashOperator"
    assert not codes(file)


def test_factories_over_yaml_beside_the_file_and_defaults_of_a_sibling(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
        import os, yaml
        from airflow import DAG
        from common.defaults import DEFAULT_ARGS, make_task

        HERE = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(HERE, "config", "feeds.yaml")) as source:
            FEEDS = yaml.safe_load(source)["feeds"]

        def create_dag(name, settings):
            dag = DAG(dag_id=f"feed_{name}", schedule=settings.get("schedule"), default_args=DEFAULT_ARGS)
            with dag:
                previous = None
                for table in settings["tables"]:
                    load = make_task("load_{}".format(table), dag)
                    if previous:
                        previous >> load
                    previous = load
            return dag

        for name, settings in FEEDS.items():
            globals()[f"feed_{name}"] = create_dag(name, settings)
        """,
        {
            "dags/config/feeds.yaml": """
                feeds:
                  orders: {schedule: "0 3 * * *", tables: [a, b, c]}
                  users: {tables: [d]}
            """,
            "dags/common/__init__.py": "",
            "dags/common/defaults.py": """
                from datetime import timedelta
                from airflow.operators.bash import BashOperator
                DEFAULT_ARGS = dict(owner="me", retries=2)

                def make_task(task_id, dag):
                    return BashOperator(task_id=task_id, bash_command="true", dag=dag)
            """,
        },
    )
    orders, users = file.dags
    assert (orders.dag_id, orders.schedule, users.schedule) == ("feed_orders", "cron:0 3 * * *", "None")
    assert list(orders.edges()) == [("load_a", "load_b"), ("load_b", "load_c")]
    assert orders.tasks[0].retries == 2
    assert "dags/config/feeds.yaml" in file.reads
    assert not codes(file)


def test_taskflow_values_suffixes_groups_and_mapping(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
@task
def extract(day="x"):
    return [1]

@task(multiple_outputs=True, retries=2)
def split(rows):
    return {"good": rows, "bad": []}

@task.branch
def decide(x): ...

@task_group
def section(value):
    @task
    def inner(v): ...
    return inner(inner(value))

@dag(schedule=timedelta(hours=2), start_date=pendulum.datetime(2024, 1, 1, tz="Europe/Paris"), tags=["b", "a"])
def flow(limit: int = 5):
    a, b = extract(), extract(day="y")
    parts = split(a)
    decide(parts["good"])
    section(b) >> section(parts["bad"])
    extract.override(task_id="again", retries=7).expand(day=parts["good"])

flow()
""",
    )
    (dag,) = file.dags
    assert (dag.schedule, dag.timezone, dag.tags, dag.style) == ("delta:7200", "Europe/Paris", ("a", "b"), "decorator")
    assert ids(file) == [
        "extract",
        "extract__1",
        "split",
        "decide",
        "section.inner",
        "section.inner__1",
        "section__1.inner",
        "section__1.inner__1",
        "again",
    ]
    assert edges(file) == {
        "extract>split",
        "split>decide",
        "extract__1>section.inner",
        "section.inner>section.inner__1",
        "split>section__1.inner",
        "section__1.inner>section__1.inner__1",
        "section.inner__1>section__1.inner__1",
        "split>again",
    }
    again = dag.task("again")
    assert again is not None
    assert again.mapped
    assert again.mapping is not None
    assert (again.mapping.kind, again.retries, again.decorator) == ("expand", 7, "@task")
    decide = dag.task("decide")
    assert decide is not None
    assert decide.inputs[0][1].key == "good"
    assert [group.group_id for group in dag.groups] == ["section", "section__1"]


def test_own_operators_groups_and_classes_that_build(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
from airflow.models import BaseOperator
from plugins_of_ours import Absent

class Load(BaseOperator):
    template_fields = ("rows",)

    def __init__(self, table, rows=None, owner="x", **kwargs):
        super().__init__(task_id=f"load_{table}", **kwargs)
        self.table, self.rows = table, rows

class Check(BaseOperator):
    def __init__(self, of, **kwargs):
        super().__init__(**kwargs)
        self.of = of

class Section(TaskGroup):
    def __init__(self, name, tables, **kwargs):
        super().__init__(group_id=name, **kwargs)
        with self:
            for table in tables:
                Load(table=table)

class Builder:
    tables = ["a", "b"]

    def __init__(self, name):
        self.name = name

    def build(self):
        with DAG(self.name, default_args={"retries": 4}, schedule="@once") as dag:
            first = Load(table="first")
            first >> Section("all", self.tables) >> Load(table="last", rows=first.output)
            Check(task_id="check", of=first.output)
        return dag

dag = Builder("built").build()
""",
    )
    assert ids(file) == ["load_first", "all.load_a", "all.load_b", "load_last", "check"]
    assert edges(file) == {
        *("load_first>all.load_a", "load_first>all.load_b", "load_first>load_last"),
        *("all.load_a>load_last", "all.load_b>load_last"),
    }
    task = file.dags[0].tasks[0]
    assert (task.operator, task.retries) == ("Load", 4)
    assert task.own_class is not None


def test_schedules_in_all_forms(tmp_path: Path) -> None:
    forms = {
        "'@once'": "@once",
        "'@continuous'": "@continuous",
        "None": "None",
        "'0 3 * * 1'": "cron:0 3 * * 1",
        "' 0  3 * * 1'": "cron: 0  3 * * 1",  # as Airflow prints it
        "timedelta(days=1)": "delta:86400",
        "[Dataset('s3://a'), Dataset('s3://b')]": "dataset:all(s3://a/,s3://b/)",
        "Dataset('a') | (Dataset('c') & Dataset('b'))": "dataset:any(a,all(b,c))",
        "CronTriggerTimetable('5 4 * * *', timezone='UTC')": "cron:5 4 * * *",
        "Holidays(region='x')": "timetable:Holidays",
    }
    lines = [f"dags.append(DAG('d{index}', schedule={form}))" for index, form in enumerate(forms)]
    text = (
        "from airflow import DAG, Dataset\nfrom airflow.timetables.trigger import CronTriggerTimetable\n"
        "from company.timetables import Holidays\nfrom datetime import timedelta\ndags = []\n"
        + "\n".join(lines)
        + "\nfor dag in dags:\n    globals()[dag.dag_id] = dag\n"
    )
    file = read(tmp_path, text)
    assert [dag.schedule for dag in file.dags] == list(forms.values())
    assert not file.dags[0].schedule_omitted


def test_a_time_zone_is_named_as_airflow_names_it(tmp_path: Path) -> None:
    starts = {  # as airflow.models.DAG.timezone of Airflow 3.3 has them
        "datetime(2024, 1, 1)": "UTC",
        "datetime(2024, 1, 1, tzinfo=timezone.utc)": "UTC",
        "datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2)))": "+02:00",
        "datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3), 'BRT'))": "-03:00",
        "datetime.fromisoformat('2024-01-01T00:00:00-05:30')": "-05:30",
        "datetime(2024, 1, 1, tzinfo=pendulum.timezone(7200))": "+02:00",
        "datetime(2024, 1, 1, tzinfo=pendulum.FixedTimezone(19800))": "+05:30",
        "datetime(2024, 1, 1, tzinfo=tz.tzoffset('x', 3600))": "+01:00",
        "datetime(2024, 1, 1, tzinfo=pytz.FixedOffset(90))": "+01:30",
        "pytz.timezone('Europe/Madrid').localize(datetime(2024, 1, 1))": "Europe/Madrid",
        "pendulum.timezone('Asia/Seoul').datetime(2024, 1, 1)": "Asia/Seoul",
    }
    lines = [f"dags.append(DAG('d{index}', start_date={start}))" for index, start in enumerate(starts)]
    head = "import pendulum, pytz\nfrom airflow import DAG\nfrom datetime import datetime, timedelta, timezone\n"
    text = f"{head}from dateutil import tz\ndags = []\n" + "\n".join(lines)
    file = read(tmp_path, text + "\nfor dag in dags:\n    globals()[dag.dag_id] = dag\n")
    assert [dag.timezone for dag in file.dags] == list(starts.values())
    assert not any(dag.warnings for dag in file.dags)


def test_values_of_other_libraries_keep_their_call(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        """
        from airflow.sdk import DAG
        from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
        from kubernetes.client import models as k8s

        with DAG("pods", schedule=None):
            KubernetesPodOperator(
                task_id="run",
                image="a:1",
                container_resources=k8s.V1ResourceRequirements(requests={"cpu": "1"}),
            )
        """,
    )
    resources = file.dags[0].tasks[0].argument("container_resources")
    assert resources is not None
    assert isinstance(resources.value, Reference)
    assert resources.value.import_path == "kubernetes.client.models.V1ResourceRequirements"
    assert resources.value.arguments[0].value == {"cpu": "1"}
    assert resources.source == 'k8s.V1ResourceRequirements(requests={"cpu": "1"})'
