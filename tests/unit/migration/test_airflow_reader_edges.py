"""How DAG files draw edges and open groups, in files that were written for this test."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.unit.migration.dag_files import HEAD, codes, edges, ids, read


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
    assert dag.task("x").edge_labels == (("start", "go"),)  # type: ignore[union-attr]  # it is there
    assert dag.task("x").group == "outer.inner"  # type: ignore[union-attr]  # it is there


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


def test_tasks_and_groups_are_found_by_their_labels_and_functions_by_their_names(tmp_path: Path) -> None:
    file = read(
        tmp_path,
        HEAD
        + """
class Flow:
    def __init__(self, dag): self.dag = dag
    def add(self, function): return PythonOperator(task_id=function.__name__, python_callable=function, dag=self.dag)
    def fetch(self): return 1
    def build(self): return self.add(self.fetch)

dag = DAG("labels", schedule=None)
fetch = Flow(dag).build()
with TaskGroup("load", dag=dag) as group:
    EmptyOperator(task_id="a", dag=dag)
fetch >> dag.task_group.get_child_by_label("load") >> EmptyOperator(task_id="end", dag=dag)
group.get_child_by_label("a") >> EmptyOperator(task_id="after", dag=dag)
dag.task_group.get_child_by_label("fetch") >> dag.task_group_dict["load"].get_child_by_label("a")
""",
    )
    assert edges(file) == {"fetch>load.a", "load.a>end", "load.a>after"}
    assert not codes(file)


def test_a_label_joins_the_group_of_a_task_to_what_is_outside(tmp_path: Path) -> None:
    text = """
    @task
    def made(): ...
    with DAG("flow", schedule=None):
        with TaskGroup("g") as g:
            a, b, x = (EmptyOperator(task_id=name) for name in "abx")
            a >> Label("within") >> b
            with TaskGroup("inner"):
                result = made()
                result >> EmptyOperator(task_id="last")
        outside = [EmptyOperator(task_id=name) for name in "cd"]
        a >> Label("out") >> outside
        EmptyOperator(task_id="e") >> Label("in") >> a
        x << Label("in") << EmptyOperator(task_id="f")
        result >> Label("result") >> EmptyOperator(task_id="h")
        [result] >> Label("of a list") >> EmptyOperator(task_id="i")
    """
    assert edges(read(tmp_path, HEAD + textwrap.dedent(text))) == {
        "g.a>g.b", "g.inner.made>g.inner.last",
        "g.b>c", "g.b>d", "g.x>c", "g.x>d", "g.inner.last>c", "g.inner.last>d",
        "e>g.a", "f>g.a", "f>g.x", "f>g.inner.made", "g.inner.last>h", "g.inner.made>i",
    }  # fmt: skip
