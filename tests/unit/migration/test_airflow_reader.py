"""Reading DAG files: what real ones are made of, in files that were written for this test."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.migration.airflow.model import FunctionModel, Reference, Symbolic
from flowyml.migration.airflow.reader.evaluator import Evaluator
from tests.unit.migration.dag_files import codes, edges, ids, read

HEAD = """
from airflow import DAG
from airflow.operators.bash import BashOperator
from airflow.operators.empty import EmptyOperator
from airflow.operators.python import PythonOperator
from airflow.decorators import dag, task, task_group
from airflow.utils.task_group import TaskGroup
from airflow.utils.edgemodifier import Label
from airflow.models import Variable
from airflow.models.baseoperator import chain, chain_linear, cross_downstream
from datetime import datetime, timedelta
import os
import pendulum
"""


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
    assert second.function == FunctionModel("work", second.function.place, parameters=())  # type: ignore[union-attr]
    assert (second.function.place.line, second.function.place.end_line) == (10, 11)  # type: ignore[union-attr]
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


def test_groups_lists_chains_and_labels(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
with DAG("graph", schedule=None) as dag:
    start, end = [EmptyOperator(task_id=name) for name in ("start", "end")]
    with TaskGroup("outer") as outer:
        with TaskGroup("inner", prefix_group_id=False):
            x = EmptyOperator(task_id="x")
        y = EmptyOperator(task_id="y")
    start >> Label("go") >> outer >> end
    tasks = [EmptyOperator(task_id="t%d" % i) for i in range(4)]
    chain(end, tasks[:2], tasks[2:])
    cross_downstream(tasks[2:], [EmptyOperator(task_id="u"), EmptyOperator(task_id="v")])
""",
    )
    assert edges(file) == {
        *("start>x", "start>outer.y", "x>end", "outer.y>end", "end>t0", "end>t1", "t0>t2", "t1>t3"),
        *("t2>u", "t2>v", "t3>u", "t3>v"),
    }
    (dag,) = file.dags
    assert dag.task("x").edge_labels == (("start", "go"),)  # type: ignore[union-attr]
    assert dag.task("x").group == "outer.inner"  # type: ignore[union-attr]


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


def test_what_airflow_alone_knows_is_symbolic_and_its_default_is_said(tmp_path: Path) -> None:
    text = (
        HEAD
        + """
ENV = os.getenv("DEPLOY_ENV", "dev")
BUCKET = Variable.get("bucket")
with DAG(f"flow_{ENV}", schedule="@hourly" if ENV == "prod" else None) as dag:
    a = BashOperator(task_id="a", bash_command=BUCKET, env={"where": ENV})
    for table in Variable.get("tables", deserialize_json=True):
        a >> EmptyOperator(task_id=f"load_{table}")
"""
    )
    file = read(tmp_path, text)
    (dag,) = file.dags
    assert (dag.dag_id, dag.schedule) == ("flow_dev", "None")
    assert {"default-taken", "unknown-loop", "unknown-id"} <= codes(file)
    command = dag.tasks[0].argument("bash_command")
    assert command is not None
    assert isinstance(command.value, Symbolic)
    assert command.value.origin == "variable:bucket"
    assert dag.tasks[0].argument("env").value["where"].default == "dev"  # type: ignore[union-attr]
    assert (dag.tasks[1].task_id, dag.tasks[1].id_known) == ("load_{table}", False)

    given = read(tmp_path, text, env={"DEPLOY_ENV": "prod"}, variables={"tables": '["x", "y"]', "bucket": "b"})
    (dag,) = given.dags
    assert (dag.dag_id, dag.schedule) == ("flow_prod", "cron:0 * * * *")
    assert ids(given) == ["a", "load_x", "load_y"]
    assert not codes(given)


def test_both_arms_of_an_unknown_condition_count_and_are_said(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
import requests
with DAG("arms", schedule=None) as dag:
    a = EmptyOperator(task_id="a")
    if requests.get("http://example.com").ok:
        b = EmptyOperator(task_id="b")
    else:
        b = EmptyOperator(task_id="c")
    a >> b
""",
    )
    assert edges(file) == {"a>b", "a>c"}
    assert "unknown-condition" in codes(file)


def test_schedules_in_all_forms(tmp_path: Path) -> None:
    forms = {
        "'@once'": "@once",
        "'@continuous'": "@continuous",
        "None": "None",
        "'0 3 * * 1'": "cron:0 3 * * 1",
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


def test_setup_and_teardown(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
with DAG("clean", schedule=None) as dag:
    make = EmptyOperator(task_id="make").as_setup()
    drop = EmptyOperator(task_id="drop").as_teardown(setups=make)
    with drop:
        EmptyOperator(task_id="work")
""",
    )
    assert edges(file) == {"make>drop", "make>work", "work>drop"}
    drop = file.dags[0].task("drop")
    assert drop is not None
    assert (drop.teardown, drop.trigger_rule) == (True, "all_done_setup_success")


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


def test_decorators_generators_and_context_managers_of_the_file(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
from contextlib import contextmanager
import functools

@contextmanager
def framed(name):
    with DAG(name, schedule=None) as dag:
        before = EmptyOperator(task_id="before")
        yield dag
        before >> EmptyOperator(task_id="after")

def with_end(function):
    @functools.wraps(function)
    def wrapped(*args):
        function(*args) >> EmptyOperator(task_id=f"end_{function.__name__}")
    return wrapped

def names(count):
    for index in range(count):
        yield f"t{index:02d}"

@with_end
def body(count):
    return [EmptyOperator(task_id=name) for name in names(count)]

with framed("framed") as dag:
    body(2)
    eval("dag.get_task('before') >> dag.get_task('t00')")
""",
    )
    assert edges(file) == {"before>after", "before>t00", "t00>end_body", "t01>end_body"}
    assert not codes(file)


def test_what_airflow_refuses_is_no_dag(tmp_path: Path) -> None:
    circle = read(
        tmp_path,
        HEAD
        + "with DAG('c') as d:\n    a, b = EmptyOperator(task_id='a'), EmptyOperator(task_id='b')\n    a >> b >> a\n",
    )
    assert not circle.dags
    assert "circle" in str(circle.reason)
    loose = read(tmp_path, HEAD + "EmptyOperator(task_id='a') >> EmptyOperator(task_id='b')\n")
    assert "no DAG" in str(loose.reason)
    refused = read(tmp_path, HEAD + "dag = DAG('with spaces')\n")
    assert "characters" in str(refused.reason)


def test_a_call_that_is_not_known_is_said_where_it_could_add_tasks(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
from company import add_alerts, Region
with DAG("calls", schedule=None) as dag:
    EmptyOperator(task_id="a")
    add_alerts(dag)
""",
    )
    assert "unknown-call" in codes(file)


def test_a_fault_of_the_reader_costs_one_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Evaluator, "make_super", broken)
    file = read(tmp_path, HEAD + "x = super()\nwith DAG('d', schedule=None):\n    EmptyOperator(task_id='a')\n")
    assert ids(file) == ["a"]
    assert "unread" in codes(file)


def test_edges_that_functions_of_operator_draw(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
import functools, operator
with DAG("folded", schedule=None):
    functools.reduce(operator.rshift, [EmptyOperator(task_id=name) for name in "abc"])
""",
    )
    assert edges(file) == {"a>b", "b>c"}
    assert not codes(file)


def test_what_is_handed_a_task_and_is_not_known_is_said(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
import copy, logging
with DAG("handed", schedule=None):
    task = EmptyOperator(task_id="a")
    logging.getLogger("x").info("%s", task)
    copy.replace(task, name="b")
""",
    )
    assert [one.text for one in file.dags[0].warnings] == ["what copy.replace adds to the DAG is not known"]


def test_one_decorator_from_two_versions_of_airflow_is_one(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
from company.versions import NEW
if NEW:
    from airflow.sdk import task, task_group
else:
    from airflow.decorators import task, task_group

with DAG("versions", schedule=None):
    @task
    def first(): ...
    @task_group
    def group():
        first.override(task_id="inside")()
    first() >> group()
""",
    )
    assert edges(file) == {"first>group.inside"}
    assert not codes(file)


def test_dags_and_groups_that_are_entered_by_hand(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
import contextlib, sys
from airflow.utils.task_group import TaskGroup

class Flow:
    def __init__(self, name): self.dag = DAG(name, schedule=None)
    def __enter__(self): return self.dag.__enter__()
    def __exit__(self, *error): self.dag.__exit__(*error)

def make():
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(Flow("by_hand"))
        for name in "gh":
            stack.enter_context(TaskGroup(name))
        EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")
    EmptyOperator(task_id="after", dag=made)
    return made

setattr(sys.modules[__name__], "by_hand", make())
""",
    )
    assert ids(file) == ["g.h.a", "g.h.b", "after"]
    assert edges(file) == {"g.h.a>g.h.b"}
    assert not codes(file)


def test_a_loop_that_may_be_left_may_not_reach_its_else(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
from company import ready
with DAG("left", schedule=None):
    for _ in range(3):
        if ready():
            break
    else:
        raise RuntimeError("never")
    EmptyOperator(task_id="a")
""",
    )
    assert ids(file) == ["a"]


def test_patterns_of_match(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
def name(of):
    match of:
        case {"kind": "inc"}: return "no"
        case {"kind": "full", "keys": [first, *others, last], **rest}:
            return f"{first}_{len(others)}_{last}_{'_'.join(rest)}"
        case [_, _] as pair if len(pair) == 2: return "pair"
        case [*_, "end"]: return "ends"
        case {}: return "some"
        case _: return "other"

with DAG("patterns", schedule=None):
    for of in ({"kind": "full", "keys": [1, 2, 3], "x": 4}, [1, 2], ["end"], {"kind": "full"}, 5):
        EmptyOperator(task_id=name(of))
""",
    )
    assert ids(file) == ["1_1_3_x", "pair", "ends", "some", "other"]
    assert not codes(file)
