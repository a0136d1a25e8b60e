"""Mapped task groups become ``for_each``, with the pipeline of the group in it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

pytest.importorskip("libcst")

from flowyml.migration.airflow.writer.notes import Kind, Verdict
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.plan.groups import Loop
from tests.unit.migration.dag_files import HEAD, read
from tests.unit.migration.modules import loaded

MAPPED = """
@dag(schedule=None)
def flow():
    @task
    def files(): return ["a", "bb"]
    @task
    def factor(): return 2
    @task
    def scaled(name, times=1): return name * times
    @task
    def size(text, ds=None): return len(text)
    @task
    def shown(name, day, ds=None): return f"{name} {day} {ds}"
    @task
    def total(sizes): return sum(sizes)

    @task_group
    def each(name, times):
        begin = EmptyOperator(task_id="begin")
        text = scaled(name, times)
        begin >> text
        @task_group
        def inner(what):
            return shown([what, name], "{{ ds }}")
        inner(text)
        return size(text)

    total(each.partial(times=factor()).expand(name=files())) >> EmptyOperator(task_id="end")

    @task_group(group_id="constant")
    def plain(n):
        return total([n, 1])
    plain.expand(n=[1, 2, 3])

flow()
"""


def written(folder: Path, text: str) -> Written:
    text = HEAD + textwrap.dedent(text)
    return write_module(read(folder, text), (folder / "repository/dags/flow.py").read_text())


def test_a_mapped_group_is_called_for_each_item(tmp_path: Path) -> None:
    made = written(tmp_path, MAPPED)
    (result,) = made.dags
    assert result.verdict is Verdict.ANY, result.notes
    assert "with for_each(files_value) as name:\n        each_size_value = each(factor_value, name, ds=ds)" in made.text
    assert "with for_each([1, 2, 3]) as n:\n        constant(n)" in made.text
    flow = loaded(tmp_path, made, "mapped_groups").flow
    plan = flow.compile()
    assert len([each for each in plan.groups if isinstance(each, Loop)]) == 2
    assert {"each.begin", "each.scaled", "each.inner.shown", "each.size", "constant.total"} <= plan.by_name.keys()
    run = flow.run({"ds": "2026-03-01"})
    assert run.success, run.error
    assert run.outputs["total.total"] == 6
    assert run.outputs["constant.total.total"] == [2, 3, 4]
    assert run.outputs["shown"] == ["['aa', 'a'] 2026-03-01 2026-03-01", "['bbbb', 'bb'] 2026-03-01 2026-03-01"]


@pytest.mark.parametrize(
    ("body", "mapped", "why"),
    [
        ("use(x, y)", "expand(x=[1], y=[2])", "its task group is mapped over several arguments"),
        ("use(x, y)", "expand_kwargs([{'x': 1, 'y': 2}])", "its task group is mapped over several arguments"),
        ("use(x)", "expand(x={'a': 1})", "its task group is mapped over a dict"),
        ("use(x)", "expand(x=start()['part'])", "neither a list nor what one task returned"),
        ("BashOperator(task_id='use', bash_command=x)", "expand(x=['true'])", "it is in a mapped task group, and"),
        ("use(x.upper())", "expand(x=['a'])", "which is not plain JSON"),
    ],
)  # fmt: skip
def test_what_for_each_cannot_say_is_refused(tmp_path: Path, body: str, mapped: str, why: str) -> None:
    text = f"""
    with DAG("flow", schedule=None):
        @task
        def start(): return {{"part": [1]}}
        @task
        def use(x, y=1): return x
        @task_group
        def group(x, y=1):
            {body}
        group.{mapped}
    """
    made = written(tmp_path, text)
    (refused,) = [each for each in made.dags[0].notes if each.kind is Kind.REFUSED]
    assert why in refused.reason
    loaded(tmp_path, made, "refused").flow.compile()


def test_a_group_that_stays_apart_leaves_no_task_out_of_its_loop(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None) as dag:
            @task
            def use(x): return x
            between = EmptyOperator(task_id="between")
            @task_group
            def group(x):
                first = use(x)
                first >> between >> use.override(task_id="second")(x)
            group.expand(x=[1, 2])
        """,
    )
    refused = {each.construct for each in made.dags[0].notes if each.kind is Kind.REFUSED}
    assert refused == {"task group.use", "task group.second"}
    loaded(tmp_path, made, "apart").flow.compile()


def test_a_value_of_a_dict_that_each_item_returned_is_refused(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        with DAG("flow", schedule=None) as dag:
            @task(multiple_outputs=True)
            def parts(x): return {"a": x}
            @task
            def use(x): return x
            @task_group
            def group(x):
                return use(parts(x)["a"]), parts.override(task_id="out")(x)
            inner, outer = group.expand(x=[1, 2])
            use.override(task_id="after")(outer["a"])
        """,
    )
    (refused,) = [each for each in made.dags[0].notes if each.kind is Kind.REFUSED]
    assert refused.reason == "it takes a of each item of group.out"
    loaded(tmp_path, made, "refused").flow.compile()
