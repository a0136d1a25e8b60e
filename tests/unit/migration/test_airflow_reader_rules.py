"""Rules of Airflow's own objects, checked beside its DagBag: ids, groups, brackets, options that are set later."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowyml.migration.airflow.model import FileModel
from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read

MAKES = "def E(name, **given): return EmptyOperator(task_id=name, **given)\n"


def _read(folder: Path, body: str, arguments: str = "schedule=None", after: str = "") -> FileModel:
    """Reads a file of one DAG, with ``body`` below ``with DAG(…)`` and ``after`` behind it."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return read(folder, f"{HEAD}{MAKES}with DAG('rules', {arguments}) as dag:\n{lines}{after}")


def test_groups_and_tasks_share_their_ids(tmp_path: Path) -> None:
    file = _read(tmp_path, "@task_group(group_id='g')\ndef grouped(): E('a')\nE('g')\ngrouped()\ngrouped()")
    assert ids(file) == ["g", "g__1.a", "g__2.a"]
    file = _read(tmp_path, "with TaskGroup('g'): E('a')\nE('g')")
    assert "DuplicateTaskIdFound" in file.reason


def test_a_partial_operator_belongs_to_the_group_where_it_stands(tmp_path: Path) -> None:
    body = "with TaskGroup('g'):\n    part = BashOperator.partial(task_id='a')\npart.expand(bash_command=['x'])"
    assert ids(_read(tmp_path, body)) == ["g.a"]


def test_a_group_without_a_dag_keeps_its_tasks(tmp_path: Path) -> None:
    after = "h = TaskGroup('h', parent_group=g)\nb = E('b', task_group=h)\nc >> g\n"
    file = _read(tmp_path, "c = E('c')\ng = TaskGroup('g', dag=dag)", after=after)
    assert (ids(file), edges(file)) == (["c", "g.h.b"], {"c>g.h.b"})


def test_airflow_drops_a_group_id_without_its_keyword(tmp_path: Path) -> None:
    body = "@task_group('named')\ndef shown(): E('a')\nshown()"
    assert ids(_read(tmp_path, body)) == ["shown.a"]


def test_what_is_made_after_an_inner_bracket_is_outside_of_the_outer_one(tmp_path: Path) -> None:
    body = """
with E("t1").as_teardown(setups=E("s1")):
    E("a")
    with E("t2").as_teardown(setups=E("s2")):
        E("b")
    E("c")
"""
    assert edges(_read(tmp_path, body)) == {
        *("s1>t1", "s2>t2", "s1>s2", "t2>t1", "s1>a", "a>t1", "s2>b", "b>t2"),
    }


@pytest.mark.parametrize(
    ("start", "zone"),
    [
        ("pendulum.instance(datetime(2024, 1, 1), tz='Asia/Tokyo')", "Asia/Tokyo"),
        ("pendulum.DateTime(2024, 1, 1, tzinfo=pendulum.timezone('Asia/Tokyo'))", "Asia/Tokyo"),
        ("'2024-01-01T00:00:00+02:00'", "+02:00"),
    ],
)
def test_time_zones(tmp_path: Path, start: str, zone: str) -> None:
    file = _read(tmp_path, "E('a')", f"schedule='@daily', default_args={{'start_date': {start}}}")
    assert file.dags[0].timezone == zone


def test_options_of_a_dag_that_are_set_later(tmp_path: Path) -> None:
    body = "E('a')\ndag.catchup = True\ndag.tags = ['late']\ndag.default_args = {'retries': '3'}\nE('b')"
    file = _read(tmp_path, body, "schedule=None, catchup=False, tags=['early'], default_args={'retries': 1}")
    (dag,) = file.dags
    assert (dag.catchup, dag.tags, [task.retries for task in dag.tasks], codes(file)) == (
        True,
        ("late",),
        [1, 3],
        set(),
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("dag.timetable = None", "unknown-schedule"),
        ("dag.schedule_interval = '@daily'", "unknown-schedule"),
        ("dag.default_args['retries'] = 9", "unknown-call"),
        ("dag.default_args.update(retries=9)", "unknown-call"),
    ],
)
def test_what_is_set_later_and_not_read_is_said(tmp_path: Path, line: str, code: str) -> None:
    assert codes(_read(tmp_path, f"E('a')\n{line}\nE('b')")) == {code}


def test_trigger_rules_by_their_names(tmp_path: Path) -> None:
    body = "from airflow.utils.trigger_rule import TriggerRule\nE('a', trigger_rule=TriggerRule['ALL_DONE'])"
    assert _read(tmp_path, body).dags[0].tasks[0].trigger_rule == "all_done"


@pytest.mark.parametrize(
    ("start", "zone"),
    [
        ("pendulum.now('Europe/Paris').subtract(days=1)", "Europe/Paris"),
        ("pendulum.today(tz=pendulum.timezone('Europe/Paris')) - timedelta(days=1)", "Europe/Paris"),
        ("pendulum.today('UTC').add(days=-1).in_timezone('Asia/Tokyo')", "Asia/Tokyo"),
        ("datetime.now().replace(hour=0, tzinfo=pendulum.timezone('Asia/Tokyo'))", "Asia/Tokyo"),
        ("datetime.now() - timedelta(days=1)", "UTC"),
    ],
)
def test_a_time_of_the_clock_has_the_zone_that_it_is_given(tmp_path: Path, start: str, zone: str) -> None:
    file = _read(tmp_path, "E('a')", f"schedule='@daily', start_date={start}")
    assert (file.dags[0].timezone, codes(file)) == (zone, set())


def test_a_group_that_airflow_2_renames_is_said(tmp_path: Path) -> None:
    file = _read(tmp_path, "with TaskGroup('g'):\n    with TaskGroup('g'): E('a')")
    assert (ids(file), codes(file)) == (["g.g.a"], {"unknown-id"})


def test_relatives_of_a_task(tmp_path: Path) -> None:
    body = """
a, b, c = E("a"), E("b"), E("c")
a >> b >> c
for task in c.get_direct_relatives(upstream=True): E(f"x_{task.task_id}")
for task in a.get_flat_relatives(): E(f"y_{task.task_id}")
"""
    file = _read(tmp_path, body)
    assert (ids(file), codes(file)) == (["a", "b", "c", "x_b", "y_b", "y_c"], set())


@pytest.mark.parametrize(
    "body",
    [
        "with TaskGroup('g') as g: E('t').as_teardown()\nE('a') >> g >> E('b')",
        "with E('s').as_setup():\n    with E('t').as_teardown(setups=E('u')): E('a')",
    ],
)
def test_edges_that_depend_on_the_airflow_are_said(tmp_path: Path, body: str) -> None:
    assert codes(_read(tmp_path, body)) == {"unknown-edge"}
