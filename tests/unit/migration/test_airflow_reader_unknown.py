"""What a DAG file does not say, or says wrongly: what is read of it, and that the rest is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.migration.airflow.model import Symbolic
from flowyml.migration.airflow.reader.evaluator import Evaluator
from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read


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
    assert dag.tasks[0].argument("env").value["where"].default == "dev"  # type: ignore[union-attr]  # it is there
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
    assert [one.text for one in file.dags[0].warnings] == ["what copy.replace adds to the DAG is unknown"]


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


@pytest.mark.parametrize(
    "body",
    [
        "found() >> found()",
        "a, b = found()\n    a << b",
        "dag.get_task(found()).set_downstream(dag.get_task(found()))",
        "for n in 'ab':\n        if found(n): continue\n        EmptyOperator(task_id=f'{n}_more')",
        "for n in 'ab':\n        EmptyOperator(task_id=f'{n}_more')\n        if found(n): break",
        "def more():\n        if found(): return\n        EmptyOperator(task_id='more')\n    more()",
        "[EmptyOperator(task_id=f'{n}_more') for n in filter(lambda n: found(n), made.values())]",
        "[t for t in made.values() if found(t.task_id)] >> EmptyOperator(task_id='end')",
        "next(t for t in made.values() if found(t.task_id)) >> EmptyOperator(task_id='end')",
        "list(map(lambda n: EmptyOperator(task_id=n), found()))",
        "{n: EmptyOperator(task_id=f'{n}_more') for n in made if found(n)}",
    ],
)
def test_tasks_and_edges_that_hang_on_what_is_not_known_are_said(tmp_path: Path, body: str) -> None:
    head = f"{HEAD}import requests\ndef found(*of): return requests.get('x').json()\n"
    head += "with DAG('d', schedule=None) as dag:\n    made = {n: EmptyOperator(task_id=n) for n in 'ab'}\n"
    assert codes(read(tmp_path, head + "    found()\n")) == set()
    assert codes(read(tmp_path, f"{head}    {body}\n")) & {"unknown-edge", "unknown-condition", "unknown-loop"}


def test_a_condition_that_ends_nothing_but_the_pass_says_nothing(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
import requests
with DAG("d", schedule=None):
    for n in "ab":
        EmptyOperator(task_id=n)
        if requests.get(n).ok:
            continue
        print(n)
""",
    )
    assert not codes(file)


@pytest.mark.parametrize("schedule", ["", "None", "@none", "every day"])
def test_a_schedule_that_airflow_refuses_is_said(tmp_path: Path, schedule: str) -> None:
    file = read(tmp_path, f"{HEAD}\nwith DAG('flow', schedule={schedule!r}): ...\n")
    (dag,) = file.dags
    assert not dag.schedule_known
    assert [one.text for one in dag.warnings] == [f"Airflow refuses the schedule: {schedule!r}"]
