"""Modules that are written from DAG files: what they contain, what they leave out, and the names in them."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("libcst")

from flowyml import Pipeline
from flowyml.core.errors import ParameterError
from flowyml.migration.airflow.writer.moving import Moving
from flowyml.migration.airflow.writer.notes import Kind, Verdict
from flowyml.migration.airflow.writer.text.loops import rolled
from flowyml.migration.airflow.writer.text.modules import write_module
from flowyml.migration.airflow.writer.text.names import Names
from flowyml.plan.layout import FreeNames, text_literal
from flowyml.plan.parameters import check_values
from tests.unit.migration.dag_files import read
from tests.unit.migration.flows import FLOWS
from tests.unit.migration.modules import dag, loaded, note, of_kind, written


def test_functions_move_over_with_their_comments_and_nothing_of_airflow(tmp_path: Path) -> None:
    made = written(tmp_path, FLOWS["functions_and_values"].text)
    assert made.text == written(tmp_path, FLOWS["functions_and_values"].text).text
    for words in ('    """Read.\n\n    Twice.\n    """', "FACTOR = 2  # how much", "# Reads it.\n@step("):
        assert words in made.text
    assert "airflow" not in made.text.replace("`flowyml import airflow`", "")
    assert "import json\n" in made.text
    assert "import os" not in made.text
    flow = loaded(tmp_path, made).flow
    plan = flow.compile()
    assert plan.by_name["end"].after == ("total",)
    retry = plan.by_name["extract"].retry
    assert (retry.max_attempts, retry.initial_delay_seconds) == (3, 60)
    assert plan.schedule == {"timezone": "UTC", "cron": "0 0 * * *", "start": "2024-01-01T00:00:00+00:00"}
    assert "from flowyml import OrchestratorRetryPolicy, Schedule, pipeline, step\n" in made.text


def test_a_default_that_no_step_can_be_given_keeps_the_operator_or_is_a_hole(tmp_path: Path) -> None:
    tasks = """
    for day in [datetime(2024, 1, 1)]:
        PythonOperator(task_id="dated", python_callable=lambda day=day: day)
        PythonOperator(task_id="asks", python_callable=lambda ti, day=day.year: [ti, day])
        BashOperator(task_id="told", bash_command="true", post_execute=lambda context, day=day: None)
    for text in ["{{ ds }}"]:
        PythonOperator(task_id="text", python_callable=lambda text=text: text)
    """
    made = written(tmp_path, dag(tasks))
    assert {"task dated", "task asks"} <= of_kind(made, Kind.OPAQUE).keys()
    assert {"task told", "task text"} <= of_kind(made, Kind.REFUSED).keys()
    assert 'op_kwargs={"day": 2024}' in made.text
    assert 'op_kwargs={"day": datetime(2024, 1, 1)}' in made.text


def test_what_asks_for_airflow_stays_an_operator_with_its_function(tmp_path: Path) -> None:
    functions = "def choose(ti, **context): return 'left' if ti else 'right'\ndef reads(): return Variable.get('x')"
    tasks = """
    first = BranchPythonOperator(task_id="choose", python_callable=choose, retries=2, retry_exponential_backoff=True,
                                 max_retry_delay=timedelta(minutes=30), show_return_value_in_logs=False, doc_md="# T")
    left = PythonOperator(task_id="left", python_callable=reads)
    right = BashOperator(task_id="right", bash_command="echo {{ var.value.d }}", retries=1)
    last = BashOperator(task_id="last", bash_command="echo plain", trigger_rule="none_failed")
    first >> [left, right] >> last
    """
    made = written(tmp_path, dag(tasks, "schedule=timedelta(hours=2)", functions))
    assert made.dags[0].verdict is Verdict.AIRFLOW
    assert {"task choose", "task right"} <= of_kind(made, Kind.OPAQUE).keys()
    assert note(made, "task left").kind is Kind.KEPT
    plan = loaded(tmp_path, made).flow.compile()
    arguments = plan.by_name["choose"].options["airflow"]["arguments"]
    assert arguments["python_callable"]["$code"].endswith(":choose")
    kept = {"retries", "retry_exponential_backoff", "max_retry_delay", "show_return_value_in_logs", "doc_md"}
    assert kept <= arguments.keys()
    assert plan.by_name["right"].options["airflow"]["operator"] == "airflow.operators.bash.BashOperator"
    last = plan.by_name["last"]
    assert (last.function, last.run_if, set(last.after)) == (
        "flowyml.steps.commands:bash", "none_failed", {"left", "right"},
    )  # fmt: skip
    assert plan.schedule == {"timezone": "UTC", "interval_seconds": 7200}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("PythonOperator(task_id='t', python_callable=(lambda: 1) or (lambda: 2))", "several lambdas"),
        ("BashOperator(task_id='t', bash_command='{{ var.value.d }}', **{'__debug__': 1})",
         "cannot be the name of an argument"),
        ("BashOperator(task_id='t', bash_command=open('x').read(), sla=timedelta(1))", "only Airflow knows"),
        ("PythonOperator(task_id='t', python_callable=show, op_args=[timedelta(1)])",
         "it is given 0, which is not plain JSON"),
        ("BashOperator(task_id='t', bash_command='{{ var.value.d }}', when=datetime(2024, 1, 1).date())",
         "the date 2024-01-01 cannot be written as JSON"),
        ("PythonOperator.partial(task_id='t', python_callable=work).expand(op_args=[[1], [2]])",
         "it is mapped, and its function is in the module our.work"),
        ("PythonOperator.partial(task_id='t', python_callable=two).expand(op_args=[[1], [3, 4]])",
         "items of different kinds"),
        ("PythonOperator.partial(task_id='t', python_callable=show).expand(op_args=[[1, 2]])", "has no names for"),
        ("PythonOperator.partial(task_id='t', python_callable=many).expand(op_args=[[1], [2]])", "has no names for"),
        ("PythonOperator.partial(task_id='t', python_callable=two).expand(op_args=[[1]], op_kwargs=[{'y': 2}])",
         "over op_args and op_kwargs"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_a_step_that_says_so(tmp_path: Path, task: str, words: str) -> None:
    functions = "from our.work import work\ndef show(of): return of\ndef two(x, y=2): return x * y\n"
    functions += "def many(*args, **kwargs): return args\n"
    made = written(tmp_path, dag(task, before=functions), {"dags/our/work.py": "def work(of): return of\n"})
    said = note(made, "task t")
    assert said.place.line > 1
    assert words in said.reason
    if said.kind is Kind.REFUSED:
        assert made.dags[0].verdict is Verdict.HAND
        assert "raise NotImplementedError(" in made.text
        assert "timedelta" not in made.text, "nothing is imported for what is not written"
    loaded(tmp_path, made).flow.compile()


def test_quotes_in_a_docstring(tmp_path: Path) -> None:
    doc = 'An ""empty"" one, three: """, and at the end: ""'
    made = written(tmp_path, dag("EmptyOperator(task_id='a')", f"schedule=None, doc_md={doc!r}"))
    assert loaded(tmp_path, made).flow.__doc__ == doc


@pytest.mark.parametrize("other", ["EmptyOperator(", "BashOperator(bash_command='echo {{ ds }}', ", "Unknown("])
def test_a_task_named_like_the_value_of_another(tmp_path: Path, other: str) -> None:
    tasks = f"""
    @task
    def load(): return 1
    @task(trigger_rule="all_done")
    def use(value): return value
    @task
    def again(value): return value
    PythonOperator(task_id="use_value", python_callable=keep, op_args=["{{{{ ds }}}}"])
    again(use(load()))
    {other}task_id="load_value")
    """
    made = written(tmp_path, dag(tasks, before="from our.operators import Unknown\ndef keep(value): return value"))
    steps = {step.name for step in loaded(tmp_path, made).flow.compile()}
    assert steps == {"load", "use", "again", "use_value", "load_value"}


def test_names_of_flowyml_that_the_file_has_too(tmp_path: Path) -> None:
    made = written(
        tmp_path,
        """
        step = 3
        def pipeline(): return step
        with DAG("bash", schedule=None):
            PythonOperator(task_id="pipeline", python_callable=pipeline)
            BashOperator(task_id="step", bash_command="{{ var.value.d }}")
        """,
    )
    (found,) = [each for each in vars(loaded(tmp_path, made)).values() if isinstance(each, Pipeline)]
    assert found.name == "bash"
    assert sorted(step.name for step in found.compile()) == ["pipeline", "step"]


def test_words_of_flowyml_within_the_files_own_text_stay(tmp_path: Path) -> None:
    functions = """
    def imported(row): return f"imported({row})"
    def xcom(row): return imported(row) + "xcom("
    def load(): return xcom(1)
    """
    tasks = """
    loaded = PythonOperator(task_id="load", python_callable=load)
    BashOperator(task_id="t", bash_command="{{ var.value.d }}", env={"A": os.environ["H"], "B": loaded.output})
    """
    module = loaded(tmp_path, written(tmp_path, dag(tasks, before=functions)))
    assert module.xcom(1) == "imported(1)xcom("
    assert {step.name for step in module.flow.compile()} == {"load", "t"}


@pytest.mark.parametrize("line", ["import datetime", "from pendulum import datetime", "datetime = timedelta = None"])
def test_times_that_the_file_has_under_these_names(tmp_path: Path, line: str) -> None:
    text = textwrap.dedent(
        f"""
        {line}
        from datetime import datetime as when, timedelta as long
        from airflow import DAG
        from airflow.operators.bash import BashOperator
        from airflow.operators.python import PythonOperator
        def load(): return str(datetime)
        with DAG("d", schedule="@daily", start_date=when(2024, 1, 1)):
            PythonOperator(task_id="load", python_callable=load)
            BashOperator(task_id="t", bash_command="{{{{ var.value.d }}}}", retries=1,
                         retry_delay=long(minutes=7), at=when(2024, 1, 2))
        """
    )
    made = write_module(read(tmp_path, text), text)
    assert line in made.text
    assert "at=datetime_(2024" in made.text
    if "pendulum" not in line:  # which need not be here
        assert "class 'datetime.datetime'" not in loaded(tmp_path, made).load()


def test_what_a_task_waits_for_stands_in_the_order_of_the_file(tmp_path: Path) -> None:
    tasks = """
    end = EmptyOperator(task_id="end")
    for name in ("users", "orders"):
        BashOperator(task_id=name, bash_command="true") >> end
    """
    text = written(tmp_path, dag(tasks)).text
    assert text.index('"users"') < text.index('"orders"') < text.index('"end"')


def test_names_of_airflow_1_are_those_of_today(tmp_path: Path) -> None:
    tasks = """
    DummyOperator(task_id="a", outlets=["x"]) >> BashOperator(task_id="b", bash_command="true", trigger_rule="dummy")
    BashOperator(task_id="c", bash_command="true", trigger_rule="none_failed_or_skipped")
    """
    made = written(tmp_path, dag(tasks, before="from airflow.operators.dummy_operator import DummyOperator"))
    plan = loaded(tmp_path, made).flow.compile()
    operator = plan.by_name["a"].options["airflow"]["operator"]
    assert operator == "airflow.providers.standard.operators.empty.EmptyOperator"
    assert [plan.by_name[name].run_if for name in "bc"] == ["always", "none_failed_min_one_success"]


def test_a_dag_without_tasks_is_no_pipeline(tmp_path: Path) -> None:
    made = written(tmp_path, dag("pass"))
    assert (made.text, made.dags[0].pipeline, made.dags[0].verdict) == ("", "", Verdict.HAND)
    assert "no tasks of it are known" in made.dags[0].notes[0].reason


SHOW = "BashOperator(task_id='t', bash_command='echo {{ params.p }}')"


@pytest.mark.parametrize(("param", "right", "wrong"), [
    ("Param(3, type='integer', minimum=1, maximum=9)", 9, 10),
    ("Param(3, schema={'type': 'integer', 'minimum': 1})", 1, 0),
    ("Param(0.5, type='number', exclusiveMaximum=1)", 0.9, 1.0),
    ("Param(1, type='number')", 0.5, "a"),
    ("Param('full', enum=['full', 'delta'])", "delta", "other"),
    ("Param('u', enum=['u', None], type=['string', 'null'])", None, "v"),
    ("Param('abc', type='string', minLength=2, pattern='^a(?=b)')", "ab", "ba"),
    ("Param('2026-01-01', type='string', format='date')", "2026-02-01", "2026-13-01"),
    ("Param([1], type='array', items={'type': 'integer'}, minItems=1)", [2], ["x"]),
    ("Param(None, type=['null', 'integer'], minimum=2)", 2, 1),
    ("Param('x', type=['null', 'string'])", None, 1),
    ("Param('x', type='string', format='multiline', title='Shown', description='why', section='s')", "y", 1),
])  # fmt: skip
def test_what_a_param_checks_is_checked(tmp_path: Path, param: str, right: Any, wrong: Any) -> None:
    made = written(tmp_path, dag(SHOW, f"schedule=None, params={{'p': {param}}}"))
    assert not [construct for construct in of_kind(made, Kind.CHANGED) if "parameter" in construct]
    parameters = loaded(tmp_path, made).flow.compile().parameters
    check_values("flow", parameters, {})
    check_values("flow", parameters, {"p": right})
    with pytest.raises(ParameterError, match="'p'"):
        check_values("flow", parameters, {"p": wrong})


@pytest.mark.parametrize(("param", "construct"), [
    ("Param('a@b.c', type='string', format='email')", "format of parameter p"),
    ("Param(type='string')", "default of parameter p"),
    ("Param(None, type='integer', minimum=1)", "default of parameter p"),
    ("Param(3, type='integer', maximum=limit())", "maximum of parameter p"),
])  # fmt: skip
def test_what_no_parameter_can_check_is_named(tmp_path: Path, param: str, construct: str) -> None:
    made = written(tmp_path, dag(SHOW, f"schedule=None, params={{'p': {param}}}"))
    assert construct in of_kind(made, Kind.CHANGED)


def test_workers_need_no_pydantic(tmp_path: Path) -> None:
    made = written(tmp_path, dag(SHOW, "schedule=None, params={'p': Param(3, type='integer', minimum=1)}"))
    assert "with suppress(ImportError):  # what checks parameters has it\n    from pydantic import Field\n" in made.text


def test_no_text_of_a_param_becomes_code(tmp_path: Path) -> None:
    evil = '"] = 1, *, x=__import__("os").system("x")  # \n"""'
    for param in (
        f"Param({evil!r}, enum=[{evil!r}, 'x'], type='string')",
        f"Param({evil!r}, type='string', pattern={evil!r}, **{{{evil!r}: {evil!r}}})",
    ):
        text = written(tmp_path, dag(SHOW, f"schedule=None, params={{'p': {param}}}")).text
        calls = {ast.unparse(each.func) for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Call)}
        assert calls <= {"Field", "bash", "suppress", "t"}


def test_parameters_that_python_reads_as_others_are_said(tmp_path: Path) -> None:
    tasks = """
    BashOperator(task_id="u", bash_command="{{ params.fi }} {{ params.annotations }}")
    BashOperator(task_id="v", bash_command="{{ params['\ufb01'] }} {{ params['gr\u00f6\u00dfe'] }}")
    """
    params = "schedule=None, params={'\ufb01': 1, 'fi': 2, 'annotations': 3, 'gr\u00f6\u00dfe': 4}"
    made = written(tmp_path, dag(tasks, params))
    parameters = [each.name for each in loaded(tmp_path, made).flow.compile().parameters]
    assert parameters == ["fi", "annotations", "gr\u00f6\u00dfe"]
    assert note(made, "parameter \ufb01")


LOOPS = """
    start = EmptyOperator(task_id="start")
    for table in TABLES:
        made = BashOperator(task_id=f"make_{table}", bash_command=f"echo '\\"{{{{ var.value.x }}}}' {{{table}}}")
        start >> made >> PythonOperator(task_id=f"load_{table}", python_callable=load, op_args=[table])
    for i in range(4):
        BashOperator(task_id="run_" + str(i), bash_command="echo " + str(i))
    for number, name in enumerate(["x", "y", "z"]):
        PythonOperator(task_id=f"n-{name}", python_callable=load, op_kwargs={"table": name, "n": number})
    for pair in ("one", "two"):
        PythonOperator(task_id=pair, python_callable=load, op_args=[pair])
    for other in ("a", "b", "c"):
        task(load).override(task_id=f"first_{other}")(task(load).override(task_id=f"before_{other}")(other))
"""


def test_loops_stay_loops(tmp_path: Path) -> None:
    """Each over the same list, with the same steps as without; not two tasks, nor those whose values others take."""
    before = 'TABLES = ["sales", "stock", "staff"]\ndef load(table, n=1): return table'
    made = written(tmp_path, dag(LOOPS, before=before))
    loops = [line.strip() for line in made.text.split("\n") if line.strip().startswith("for ")]
    assert loops == [
        "for table in TABLES:", "for i in range(4):", 'for number, name in enumerate(["x", "y", "z"]):',
    ]  # fmt: skip
    steps = loaded(tmp_path, made).flow.compile().by_name
    for table in ("sales", "stock", "staff"):
        assert (
            steps[f"make_{table}"].options["airflow"]["arguments"]["bash_command"]
            == f"echo '\"{{{{ var.value.x }}}}' {{{table}}}"
        )
        assert steps[f"load_{table}"].after == (f"make_{table}",)
    assert {name for name in steps if name.startswith(("run_", "n-"))} == {
        "run_0", "run_1", "run_2", "run_3", "n-x", "n-y", "n-z",
    }  # fmt: skip
    assert {"first_c", "one", "two"} <= steps.keys()


class NoConstants(Names):
    """The names of a module without any."""

    def __init__(self) -> None:
        self.constants, self.taken, self.locals, self._needed = set(), set(), set(), frozenset()
        self._moving = Moving("")

    def source_of(self, node: ast.expr) -> str:
        return ast.unparse(node)


TEXTS = st.text(st.sampled_from("ab_- {}'\"\\\n\u2028é%"), max_size=8)


@given(
    TEXTS, TEXTS, st.lists(st.tuples(TEXTS, st.integers(0, 3)), min_size=3, max_size=5), st.integers(0, 2),
    st.sampled_from(["name in [1]", "text, number in ROWS", "number, text in enumerate(TEXTS)", "text in TEXTS"]),
)  # fmt: skip
def test_a_loop_does_what_its_iterations_did(
    before: str, after: str, rows: list[tuple[str, int]], depth: int, over: str
) -> None:
    indent = "    " * depth
    texts = [f"{indent}do({text_literal(before + text + after)})\n{indent}do({text_literal(text)}, n={number})"
             for text, number in rows]  # fmt: skip
    rows_of, texts_of = repr(rows), repr([text for text, _ in rows])
    (loop,) = ast.parse(f"for {over.replace('ROWS', rows_of).replace('TEXTS', texts_of)}: pass").body
    assert isinstance(loop, ast.For)
    made = rolled(texts, loop, NoConstants(), FreeNames({"do"}).fresh, depth)
    done: list[list[Any]] = [[], []]
    for calls, text in zip(done, ("\n".join(texts), made), strict=True):
        exec(textwrap.dedent(text), {"do": lambda *given, calls=calls, **named: calls.append((given, named))})
    assert done[0] == done[1] or not made


def test_comments_above_tasks_stay(tmp_path: Path) -> None:
    """Those of an operator above it, those of a step above its call; those in a loop once."""
    tasks = """
    # Once a day:
    #   all of it.
    BashOperator(task_id="whole", bash_command="{{ var.value.x }}")
    # Not that.

    # A shell's.
    BashOperator(task_id="plain", bash_command="true")
    for n in (1, 2):
        # Of a loop.
        EmptyOperator(task_id=f"n_{n}")
    for n in (1, 2, 3):
        # Of another.
        BashOperator(
            task_id=f"say_{n}",
            bash_command="{{ var.value.x }}",  # which Airflow knows
        )  # noqa
    """
    made = written(tmp_path, dag(tasks))
    assert "# Once a day:\n#   all of it.\nwhole = airflow_operator(" in made.text
    assert '    # A shell\'s.\n    bash.options(name="plain")' in made.text
    assert "Not that" not in made.text
    assert made.text.count("# Of a loop.") == 1
    assert "        # Of another.\n        # which Airflow knows\n        airflow_operator(" in made.text
    assert "noqa" not in made.text


def test_constants_stay_constants(tmp_path: Path) -> None:
    """Unless the file changes them, or looks into them."""
    before = """
    IMAGE = "registry/image:1"
    LABELS = {"team": "data"}
    CHANGED = {"a": 1}
    CHANGED["b"] = 2
    """
    tasks = """
    for n in range(2):
        BashOperator(task_id=f"t{n}", bash_command="{{ var.value.x }}", image=IMAGE, labels=LABELS, changed=CHANGED)
    """
    made = written(tmp_path, dag(tasks, before=before))
    assert 'IMAGE = "registry/image:1"\nLABELS = {"team": "data"}\n\n' in made.text
    assert made.text.count("image=IMAGE") == made.text.count("labels=LABELS") == 2
    assert 'changed={"a": 1, "b": 2}' in made.text
    step = loaded(tmp_path, made).flow.compile().by_name["t1"]
    assert step.options["airflow"]["arguments"]["image"] == "registry/image:1"


def test_constants_within_arguments_stay_constants(tmp_path: Path) -> None:
    """In lists, dicts and f-strings, of operators and of steps; not where the value is another one."""
    before = """
    BUCKET = "lake"
    MODELS = ["a", "b"]
    BRACES = "{x}"
    SCHEMA = os.environ.get("SCHEMA", "main")
    def train(models, bucket=None, day=None): return [models, bucket, day]
    """
    tasks = """
    BashOperator(task_id="t", bash_command="{{ var.value.x }}", a=[MODELS, BUCKET, "c"], e={"B": BUCKET, "x": BRACES},
                 schema=SCHEMA)
    BashOperator(task_id="u", bash_command=f"s3://{BUCKET}/{BRACES}/{{{{ var.value.x }}}}", schema=SCHEMA)
    PythonOperator(task_id="v", python_callable=train, op_args=[MODELS], op_kwargs={"bucket": f"{BUCKET}!"})
    PythonOperator(task_id="w", python_callable=train, op_args=[MODELS], op_kwargs={"day": "{{ ds }}"})
    BUCKET = "other"
    """
    made = written(tmp_path, dag(tasks.replace('BUCKET = "other"', ""), before=before))
    assert 'a=[MODELS, BUCKET, "c"]' in made.text
    assert 'e={"B": BUCKET, "x": BRACES}' in made.text
    assert 'bash_command=f"s3://{BUCKET}/{BRACES}/{{{{ var.value.x }}}}"' in made.text
    assert '(MODELS, bucket=f"{BUCKET}!")' in made.text
    assert 'train(MODELS, day=f"{ds}")' in made.text
    assert made.text.count('\nSCHEMA = imported("os:environ.get")("SCHEMA", "main")\n') == 1
    assert made.text.count("schema=SCHEMA") == 2
    of = loaded(tmp_path, made).flow.compile().by_name
    assert "$call" in of["u"].options["airflow"]["arguments"]["schema"]
    assert of["t"].options["airflow"]["arguments"]["e"] == {"B": "lake", "x": "{x}"}
    assert of["u"].options["airflow"]["arguments"]["bash_command"] == "s3://lake/{x}/{{ var.value.x }}"
    assert "BUCKET" not in written(tmp_path, dag(tasks, before=before)).text.partition("def flow")[0].split("train")[0]


def test_default_arguments_and_times_stay_constants(tmp_path: Path) -> None:
    """The operators take them by their name, and a loop over a call of a function stays one."""
    before = """
    DEFAULT_ARGS = {"owner": "data", "retries": 2, "retry_delay": timedelta(minutes=1), "email": "a@b.c"}
    FIRST = "orders"
    TABLES = [FIRST, "users", "items"]
    TAGS = ["b", "a"]
    def say(table, **given): return BashOperator(task_id=f"say_{table}", bash_command="{{ var.value.x }}", **given)
    """
    tasks = """
    for table in TABLES:
        say(table, queue=table)
    """
    options = "schedule=None, default_args=DEFAULT_ARGS, tags=TAGS"
    made = written(tmp_path, dag(tasks, options, before))
    assert "    for table in TABLES:\n        airflow_operator(" in made.text
    assert "tags=TAGS" in made.text
    assert made.text.count("default_args=DEFAULT_ARGS") == 1
    flow = loaded(tmp_path, made).flow.compile()
    arguments = flow.by_name["say_users"].options["airflow"]["arguments"]
    assert arguments["default_args"]["retry_delay"] == {"$timedelta": 60.0}
    assert (arguments["queue"], "retries" in arguments) == ("users", False)
