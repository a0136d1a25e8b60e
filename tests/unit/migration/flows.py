"""DAG files whose pipelines run on any engine, with what they give in a run here.

``tests/adapters/airflow/test_import_verified.py`` shows that Airflow finds the same in what these compile to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DAY", "FLOWS", "Flow"]

DAY = {"ds": "2026-03-01", "logical_date": "2026-03-01T05:06:07+00:00", "data_interval_start": "2026-03-01T05:06:07Z"}


@dataclass(frozen=True)
class Flow:
    """What the file of a DAG ``flow`` says, and what is known of a run: outputs, and steps that are skipped."""

    text: str
    outputs: Mapping[str, Any] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    given: Mapping[str, Any] = field(default_factory=lambda: DAY)


def branching(text: str, *skipped: str) -> Flow:
    return Flow(text, skipped=frozenset(skipped))


JOIN = """
def choose(): return "{chosen}"
with DAG("flow", schedule=None):
    choice = BranchPythonOperator(task_id="choose", python_callable=choose)
    join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
    choice >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="middle")] >> join
    choice >> join
"""
GROUP_CHOICE = """
def choose(): return "group"
with DAG("flow", schedule=None):
    choice = BranchPythonOperator(task_id="choose", python_callable=choose)
    with TaskGroup("group"{option}) as group:
        EmptyOperator(task_id="first") >> EmptyOperator(task_id="last")
    choice >> [group, EmptyOperator(task_id="other")]
"""
GATE = """
with DAG("flow", schedule=None):
    gate = ShortCircuitOperator(task_id="gate", python_callable=lambda: [], ignore_downstream_trigger_rules={whole})
    gate >> EmptyOperator(task_id="a") >> EmptyOperator(task_id="b") >> EmptyOperator(
        task_id="end", trigger_rule="all_done"
    )
"""
AB = """
with DAG("flow", schedule=None):
    choice = BranchPythonOperator(task_id="choose", python_callable=choose)
    choice >> [EmptyOperator(task_id="a"), EmptyOperator(task_id="b")]
"""

FLOWS = {
    "functions_and_values": Flow(
        '''
        import json; import os; import sys

        FACTOR = 2  # how much

        def helper(value):
            return value * FACTOR

        @dag(schedule="@daily", start_date=datetime(2024, 1, 1), tags=["a"])
        def flow():
            # Reads it.
            @task(retries=2, retry_delay=timedelta(minutes=1))
            def extract() -> list:
                """Read.

                Twice.
                """
                return json.loads("[1, 2]")

            @task
            def double(value, by=1):
                return helper(value) * by

            @task
            def total(values):
                return sum(values)

            done = total(double.partial(by=3).expand(value=extract()))
            done >> EmptyOperator(task_id="end")

        flow()
        ''',
        {"total": 18},
    ),
    "defaults_of_functions": Flow(
        """
        table, FACTOR = "other", 2

        def make(prefix):
            with DAG("flow", schedule=None):
                for number, table in enumerate(["orders", "users"]):
                    PythonOperator(task_id=f"load_{table}", python_callable=lambda table=table: [prefix_of(table)])

                    @task(task_id=f"count_{table}")
                    def count(by, *, number=number, factor=FACTOR):
                        return by + number * factor
                    count(1)

        def prefix_of(table, by="x"):
            return f"{by}_{table}"

        make("a")
        """,
        {"load_orders": ["x_orders"], "load_users": ["x_users"], "count_orders": 1, "count_users": 3},
    ),
    "params_among_defaults": Flow(
        """
        def show(text): return text
        with DAG("flow", schedule=None, params={"n": 1, "m": 2}, default_args={"params": {"n": 3, "k": "x"}}):
            PythonOperator(
                task_id="one", python_callable=show, op_args=["{{ params.n }}{{ params.m }}{{ params.k }}"]
            )
        """,
        {"one": "32x"},
    ),
    "arguments_of_a_decorated_dag": Flow(
        """
        @dag(schedule=None)
        def flow(email: str, n: int = 3):
            @task
            def use(a, b=None): return [a, b]
            use(email, b=[n])
            BashOperator(task_id="shown", bash_command="echo {{ params.n }}")
        flow("a@b.c")
        """,
        {"use": ["a@b.c", [4]], "shown": "4"},
        given={"n": 4},
    ),
    "set_later": Flow(
        """
        def one(x): return x
        def two(x, y=2): return x * y
        with DAG("flow", schedule=None):
            a = BashOperator(task_id="a", bash_command="echo early")
            a.bash_command = "echo late"
            a.owner, a.depends_on_past = "me", True
            b = PythonOperator(task_id="b", python_callable=one, op_args=[1])
            b.python_callable, b.op_args = two, [3]
        """,
        {"a": "late", "b": 6},
    ),
    "mapped_functions": Flow(
        """
        def one(x): return x
        def two(x, y=2): return x * y
        with DAG("flow", schedule=None):
            mapped = PythonOperator.partial
            mapped(task_id="args", python_callable=one).expand(op_args=[[1], [2]])
            mapped(task_id="one_given", python_callable=two, op_kwargs={"y": 5}).expand(op_args=[[1], [2]])
            mapped(task_id="first_given", python_callable=two, op_args=[7]).expand(op_kwargs=[{"y": 1}, {"y": 3}])
            mapped(task_id="named", python_callable=two).expand(op_kwargs=[{"x": 1, "y": 2}, {"x": 3, "y": 4}])
            mapped(task_id="all", python_callable=one).expand_kwargs([{"op_args": [1]}, {"op_args": [2]}])
        """,
        {"args": [1, 2], "one_given": [5, 10], "first_given": [7, 21], "named": [2, 12], "all": [1, 2]},
    ),
    "mapped_over_a_value_that_is_taken_whole_too": Flow(
        """
        with DAG("flow", schedule=None):
            @task
            def rows(): return [1, 2]
            @task
            def part(one, every, ds=None): return [one, every, ds]
            @task
            def seen(values): return list(values)
            found = rows()
            seen(part.partial(every=found).expand(one=found))
        """,
        {"seen": [[1, [1, 2], "2026-03-01"], [2, [1, 2], "2026-03-01"]]},
    ),
    "templates": Flow(
        """
        TEMPLATES = [
            "{{ ds }}", "s3://{{ds_nodash}}/it's {\\"x\\": '\\\\'}", "{{ ts }} {{ ts_nodash }}", "{{ logical_date }}",
            "{{ macros.ds_add(ds, -1) }}", "{{ macros.ds_format(ds, '%Y-%m-%d', '%d.%m.%y') }}",
            "{{ (logical_date - macros.timedelta(days=1)).strftime('%Y/%m') }}",
            "{{ logical_date.subtract(hours=6) | ds }}", "{{ dag_run.logical_date.strftime('%A').lower() }}",
            "{{ ds.replace('-', '') }} {{ logical_date.year }}", "{{ dag.dag_id }}.{{ ti.task_id }}",
            "{{ task_instance_key_str }}",
            "{{ params.n }} {{ params['country'] }}", "{{ data_interval_start | ts }}",
        ]
        with DAG("flow", schedule=None, params={"n": Param(3, type="integer"), "country": "at"}):
            for number, template in enumerate(TEMPLATES):
                @task(task_id=f"t{number}")
                def show(text): return text["in"][0]
                show({"in": [template]})
        """,
        {
            "t0": "2026-03-01", "t1": "s3://20260301/it's {\"x\": '\\'}",
            "t2": "2026-03-01T05:06:07+00:00 20260301T050607", "t3": "2026-03-01 05:06:07+00:00", "t4": "2026-02-28",
            "t5": "01.03.26", "t6": "2026/02", "t7": "2026-02-28", "t8": "sunday", "t9": "20260301 2026",
            "t10": "flow.t10",
            "t11": "flow__t11__20260301", "t12": "3 at", "t13": "2026-03-01T05:06:07+00:00",
        },
    ),
    "context_by_name": Flow(
        """
        def show(text, ds=None, *, logical_date, **kwargs):
            return [text, ds, f"{logical_date:%Y}", kwargs["params"]["country"], kwargs.get("ts_nodash")]
        with DAG("flow", schedule="@daily", params={"country": "at", "since": None}):
            PythonOperator(task_id="show", python_callable=show, op_args=["a"])
        """,
        {"show": ["a", "2026-03-01", "2026", "at", "20260301T050607"]},
    ),
    "days_are_those_of_utc": Flow(
        """
        def show(text): return text
        with DAG("flow", schedule="0 0 * * *", start_date=pendulum.datetime(2024, 1, 1, tz="Europe/Vienna")):
            PythonOperator(task_id="show", python_callable=show, op_args=["{{ ds }} {{ ts }}"])
            BashOperator(task_id="bash", bash_command="echo {{ ds }}")
        """,
        {"show": "2026-02-28 2026-02-28T23:00:00+00:00", "bash": "2026-02-28"},
        given={"logical_date": "2026-03-01T00:00:00+01:00"},
    ),
    "commands_with_templates": Flow(
        """
        with DAG("flow", schedule=None, params={"n": 3}):
            BashOperator(task_id="show", bash_command='echo "{{ ds }}" $MORE {{ params.n }}',
                         env={"MORE": "{{ ds_nodash }}"}, append_env=True)
            @task.bash(env={"DAY": "{{ ds }}"}, append_env=True)
            def made(word): return f"echo {word} $DAY"
            made("on")
        """,
        {"show": "2026-03-01 20260301 4", "made": "on 2026-03-01"},
        given={**DAY, "n": 4},
    ),
    "pulled_by_templates": Flow(
        """
        with DAG("flow", schedule=None):
            @task
            def first(): return {"n": [4]}
            @task
            def show(text): return text
            whole = "{{ ti.xcom_pull(task_ids='first') }} there"
            part = "{{ task_instance.xcom_pull('first', key='return_value')['n'] }} there"
            first() >> [show(whole), show.override(task_id="part")(part),
                        BashOperator(task_id="say", bash_command='echo "' + part + '"')]
        """,
        {"show": "{'n': [4]} there", "part": "[4] there", "say": "[4] there"},
    ),
    "pulled_by_functions": Flow(
        """
        def by_ti(ti):
            return ti.xcom_pull(task_ids="first")["n"], ti.xcom_pull("last", key="return_value")
        def by_context(**context):
            ti = context["ti"]
            return ti.xcom_pull("first")["n"], ti.xcom_pull(task_ids="last")
        def by_another_name(*, task_instance=None, **_):
            t = task_instance
            return t.xcom_pull("first")["n"], t.xcom_pull("last")
        with DAG("flow", schedule=None):
            @task
            def first(): return {"n": 4}
            @task
            def last(): return "there"
            before = [first(), last()]
            for function in (by_ti, by_context, by_another_name):
                after = PythonOperator(task_id=function.__name__, python_callable=function)
                before >> EmptyOperator(task_id="before_" + function.__name__) >> after
        """,
        dict.fromkeys(("by_ti", "by_context", "by_another_name"), (4, "there")),
    ),
    "given_to_a_run": Flow(
        """
        with DAG("flow", schedule=None):
            @task
            def show(one, two, three): return "|".join((one, two, three))
            show("{{ dag_run.conf['a'] }}", "{{ dag_run.conf.get('a') }}", "{{ dag_run.conf.get('b', 'none') }}")
            BashOperator(task_id="say", bash_command="echo {{ dag_run.conf['b'] }}")
        """,
        {"show": "x|x|y", "say": "y"},
        given={"a": "x", "b": "y"},
    ),
    "in_and_out_of_groups": Flow(
        """
        @dag(schedule=None, params={"by": 3})
        def flow():
            @task
            def one(): return {"a": 1, "b": 2}
            @task
            def add(first, second): return first + second
            @task
            def scaled(value, params): return value * params["by"]
            @task_group(tooltip="Adds")
            def sums(start):
                inner = add.override(task_id="inner")(start["a"], start["b"])
                @task_group
                def deep(value):
                    return scaled(value)
                return add.override(task_id="outer")(deep(inner), inner)
            @task
            def shown(text, day): return f"{text} {day}"
            shown(sums(one()), "{{ ds }}")
        flow()
        """,
        {"shown": "12 2026-03-01"},
    ),
    "mapped_groups": Flow(
        """
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
        """,
        {
            "total.total": 6, "constant.total.total": [2, 3, 4],
            "shown": ["['aa', 'a'] 2026-03-01 2026-03-01", "['bbbb', 'bb'] 2026-03-01 2026-03-01"],
        },
    ),
    "a_loop_of_groups": Flow(
        """
        TABLES = ["orders", "users", "items"]
        def rows(table, day, number): return f"{table}:{day}:{number}"
        def save(found, target): return [found, target]
        with DAG("flow", schedule=None) as dag:
            end = EmptyOperator(task_id="end")
            for number, table in enumerate(TABLES):
                with TaskGroup(f"of_{table}") as group:
                    found = PythonOperator(task_id="rows", python_callable=rows, op_args=[table, "{{ ds }}", number])
                    PythonOperator(task_id="save", python_callable=save, op_args=[found.output, f"lake.{table}"])
                    BashOperator(task_id="say", bash_command=f"echo {table} {{{{ ds }}}} {number} {table}", retries=1)
                group >> end
        """,
        {"of_items.save.save": ["items:2026-03-01:2", "lake.items"],
         "of_orders.say.say": "orders 2026-03-01 0 orders"},
    ),
    "a_choice_of_one": branching(
        """
        @dag(schedule=None)
        def flow():
            @task.branch
            def choose(rows: int):
                if rows > 3:
                    return "many"
                return "few"
            @task
            def few(): return 1
            @task
            def after_few(value): return value + 1
            @task
            def many(): return 2
            end = EmptyOperator(task_id="end", trigger_rule="none_failed_min_one_success")
            choose(2) >> [one := few(), two := many()]
            [after_few(one), two] >> end
        flow()
        """,
        "many",
    ),
    "a_list_of_choices": branching(
        """
        def choose(): return ["a", "c"]
        with DAG("flow", schedule=None):
            BranchPythonOperator(task_id="choose", python_callable=choose) >> [
                EmptyOperator(task_id=name) for name in "abc"
            ]
        """,
        "b",
    ),
    "a_list_that_is_looked_at": branching(
        """
        def choose():
            ids = ["a"]
            if not ids or len(ids) > 2:
                ids = ["b"]
            return ids if "a" in ids else ids
        """ + AB.replace("\n", "\n        "),
        "b",
    ),
    "a_constant_of_the_module": branching(
        """
        FIRST = "a"
        CHOSEN = FIRST
        def choose(mode=CHOSEN):
            FIRST = "b"
            return mode
        """ + AB.replace("\n", "\n        "),
        "b",
    ),
    "a_swallowed_exception_chooses_none": branching(
        """
        from contextlib import suppress
        def choose():
            with suppress(ValueError):
                return "a" if int("x") else "b"
        """ + AB.replace("\n", "\n        "),
        "a", "b",
    ),
    "a_long_call_in_a_branch": branching(
        """
        def choose(): return "a"
        """ + AB.replace("\n", "\n        ").replace("=None)", "=None, default_args={'retries': 3, 'pool': 'wide'})"),
        "b",
    ),
    "choices_within_choices": branching(
        """
        with DAG("flow", schedule=None):
            @task.branch
            def branch(to: str) -> str:
                return to
            first, second = branch.override(task_id="first")("no"), branch.override(task_id="second")("two")
            join = EmptyOperator(task_id="join", trigger_rule="none_failed_min_one_success")
            inner = EmptyOperator(task_id="inner", trigger_rule="none_failed_min_one_success")
            first >> EmptyOperator(task_id="yes") >> join
            first >> EmptyOperator(task_id="no") >> second
            second >> [EmptyOperator(task_id="one"), EmptyOperator(task_id="two")] >> inner >> join
        """,
        "yes", "one",
    ),
    "a_join_that_is_not_chosen": branching(JOIN.format(chosen="left"), "middle"),
    "a_join_that_is_chosen": branching(JOIN.format(chosen="join"), "left", "middle"),
    "a_group_is_chosen": branching(GROUP_CHOICE.format(option=""), "other"),
    "a_group_without_a_prefix_is_chosen": branching(GROUP_CHOICE.format(option=", prefix_group_id=False"), "other"),
    "branches_within_a_group_and_around_it": branching(
        """
        with DAG("flow", schedule=None):
            @task.branch
            def choose(): return "group"
            with TaskGroup("group") as group:
                @task.branch(task_id="pick")
                def pick(): return "group.yes"
                pick() >> [EmptyOperator(task_id="yes"), EmptyOperator(task_id="no")]
            choose() >> [group, EmptyOperator(task_id="other")]
        """,
        "group.no", "other",
    ),
    "a_short_circuit_of_all": branching(GATE.format(whole=True), "a", "b", "end"),
    "a_short_circuit_of_what_follows": branching(GATE.format(whole=False), "a", "b"),
}  # fmt: skip
