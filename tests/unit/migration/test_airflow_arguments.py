"""Every argument that is written is the one of the DAG file: texts of all kinds, and values at any depth.

The DAG files are generated, so what each argument has to be is Python's own value, and not what was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("libcst")

import jinja2

from flowyml.migration.airflow.model import DagModel
from flowyml.migration.airflow.reader.reading import read_file
from flowyml.migration.airflow.writer.notes import Kind
from flowyml.migration.airflow.writer.text.modules import Written, write_module
from flowyml.plan.layout import Text, source
from flowyml_airflow.names import task_id
from flowyml_airflow.operators import encoded
from flowyml_airflow.options import pipeline_options
from tests.unit.migration.dag_files import HEAD
from tests.unit.migration.modules import IMPORTS, REPOSITORY, dag, loaded, note, of_kind, ran, written

SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u2028\u3000"
WORDS = st.sampled_from(
    ["select", "  indented", "'", '"', '"""', "\\", "\\n", "{", "}", "{{", "%s", "é", "漢字", "😀", "#"]
)
TEXTS = st.one_of(
    st.text(st.sampled_from(f"{SPACES}'\"\\{{}}%#ab"), max_size=20),
    st.lists(st.one_of(WORDS, st.text(st.sampled_from(SPACES), max_size=6)), max_size=80).map("".join),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 150)), max_size=6).map(
        lambda lines: "\n".join(" " * indent + ("x " * length)[:length] for indent, length in lines)
    ),
)
"""Texts with every kind of white space and quote, short and longer than a line; scripts with indented lines."""
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=6
)  # fmt: skip
VALUES = st.recursive(
    SCALARS
    | st.integers(-(10**6), 10**6).map(lambda seconds: timedelta(seconds=seconds))
    | st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), st.dictionaries(TEXTS, inner, max_size=4),
        st.frozensets(st.integers(0, 9) | TEXTS, max_size=4).map(set),
    ),
    max_leaves=6,
)  # fmt: skip
"""Values of an operator's argument."""


def spelled(value: Any) -> str:
    """Return a value as a DAG file has it: a text of several lines in triple quotes."""
    if isinstance(value, str) and "\n" in value and not value.isprintable():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r")
        return f'"""{escaped}"""' if not set(escaped) & set("\x0c\x1c\x85\u2028") else repr(value)
    return repr(value).replace("datetime.", "")


def imported(folder: Path, text: str) -> tuple[DagModel, Written]:
    """The DAG of a text, and its module."""
    path = folder / "flow.py"
    text = f"{HEAD}from datetime import timezone\n{text}"
    path.write_text(text, "utf-8", newline="")
    file = read_file(path, root=folder)
    return file.dags[0], write_module(file, text)


def arguments(step: Any) -> dict[str, Any]:
    """The arguments of a step's operator, encoded."""
    given: dict[str, Any] = step.options["airflow"]["arguments"]
    return given


@given(TEXTS, st.integers(0, 5))
@example('printf "a"\n' + 5 * ("    for each in range(10): print(each)" + 60 * "x" + "\n"), 1)
def test_a_text_is_laid_out_as_itself(text: str, depth: int) -> None:
    assert eval(source(Text(text), depth)) == text


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(["sql", "conf", "script", "op_args_", "wait"]), VALUES, min_size=1))
@example({"sql": "select\n" + 40 * "    a,\n"})
@example({"conf": {1, 2}})
def test_each_argument_of_an_operator_is_the_one_of_the_dag_file(
    tmp_path_factory: pytest.TempPathFactory, values: Mapping[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("arguments")
    given = ", ".join(f"{name}={spelled(value)}" for name, value in values.items())
    _, made = imported(
        folder, f"from our import Operator\nwith DAG('flow', schedule=None):\n    Operator(task_id='t', {given})\n"
    )
    (step,) = loaded(folder, made).flow.compile()
    assert arguments(step) == {name: encoded(value, "") for name, value in values.items()}


TEMPLATES = st.lists(TEXTS.filter(lambda text: "{" not in text and "}" not in text), min_size=1, max_size=4)


@settings(max_examples=15)
@given(st.dictionaries(st.sampled_from(["text", "other"]), JSON, min_size=1), TEMPLATES)
@example({"text": "a"}, ["a\n    ", "\n        b"])
def test_each_argument_of_a_function_is_the_one_of_the_dag_file(
    tmp_path_factory: pytest.TempPathFactory, values: Mapping[str, Any], between: list[str]
) -> None:
    """Plain values, and what Jinja makes of a template."""
    folder = tmp_path_factory.mktemp("functions")
    values = {name: value for name, value in values.items() if "{" not in repr(value).replace("{'", "")}
    template = "{{ ds }}".join(between)
    text = f"""
def same(text=None, other=None): return [text, other]
with DAG('flow', schedule=None):
    PythonOperator(task_id='plain', python_callable=same, op_kwargs={{
        {", ".join(f"{name!r}: {spelled(value)}" for name, value in values.items())}}})
    PythonOperator(task_id='rendered', python_callable=same, op_kwargs={{'text': {spelled(template)}}})
"""
    _, made = imported(folder, text)
    run = loaded(folder, made).flow.run({"ds": "2026-03-01"} if "{{" in template else {})
    assert run.success, run.error
    assert run.outputs["plain"] == [values.get("text"), values.get("other")]
    rendered = jinja2.Template(template).render(ds="2026-03-01") if len(between) > 1 else template
    assert run.outputs["rendered"] == [rendered, None]


def operators(folder: Path, tasks: str) -> Mapping[str, Any]:
    made = written(folder, dag(tasks, before=IMPORTS), REPOSITORY)
    return {step.name: step for step in loaded(folder, made).flow.compile() if step.options.get("airflow")}


def test_a_task_of_another_module_is_the_function_below_its_decorator(tmp_path: Path) -> None:
    """Its name there is that of the decorated object, which does nothing when Airflow calls it."""
    found = operators(
        tmp_path,
        """
        PythonOperator(task_id="plain", python_callable=plain, op_args=[1])
        task(plain).override(task_id="again")(2)
        decorated(3); parts(4); annotated(5); ready(); chooses()
        """,
    )
    paths = {name: arguments(step).pop("python_callable") for name, step in found.items()}
    assert paths == {
        "plain": {"$import": "our.tasks.plain"}, "again": {"$import": "our.tasks.plain"},
        **{name: {"$import": f"our.tasks:{name}.function"}
           for name in ("decorated", "parts", "annotated", "ready", "chooses")},
    }  # fmt: skip
    assert {name: arguments(step) for name, step in found.items()} == {
        "plain": {"op_args": [1]}, "again": {"op_args": [2]}, "decorated": {"op_args": [3]},
        "parts": {"op_args": [4], "multiple_outputs": True}, "annotated": {"op_args": [5], "multiple_outputs": True},
        "ready": {"poke_interval": 5}, "chooses": {},
    }  # fmt: skip
    assert found["ready"].operator == ("airflow", "airflow.providers.standard.sensors.python.PythonSensor")


def test_a_command_of_another_module_is_refused(tmp_path: Path) -> None:
    made = written(tmp_path, dag("command()", before=IMPORTS), REPOSITORY)
    assert note(made, "task command").kind is Kind.REFUSED


def test_what_a_class_sets_itself_is_not_given_to_it_again(tmp_path: Path) -> None:
    found = operators(tmp_path, 'Load(task_id="load", table="a", queue="q"); Say(task_id="say", text="hi")')
    assert {name: arguments(step) for name, step in found.items()} == {
        "load": {"table": "a", "queue": "q"}, "say": {"text": "hi"},
    }  # fmt: skip
    assert found["load"].run_if == "all_success"


def test_a_python_operator_leaves_out_what_its_function_does_not_take(tmp_path: Path) -> None:
    """As Airflow does, so that the module calls the function with its own arguments."""
    tasks = "PythonOperator(task_id='t', python_callable=one, op_kwargs={'a': 2, 'b': 3})"
    found, _ = ran(tmp_path, written(tmp_path, dag(tasks, before="def one(a): return a")))
    assert found["t"] == 2


@pytest.mark.parametrize(("schedule", "wanted"), [
    ("Asset('s3://x/y')", ["s3://x/y"]),
    ("Asset(name='n', uri='s3://x/y')", [{"name": "n", "uri": "s3://x/y"}]),
    ("[Asset('a'), Asset('b')]", ["a", "b"]),
    ("Asset('a') | Asset('b')", {"any": ["a", "b"]}),
])  # fmt: skip
def test_a_schedule_by_one_asset_is_a_list(tmp_path: Path, schedule: str, wanted: Any) -> None:
    made = written(tmp_path, dag("EmptyOperator(task_id='t')", f"schedule={schedule}", "from airflow.sdk import Asset"))
    plan = loaded(tmp_path, made).flow.compile()
    assert plan.options["airflow"]["schedule"] == wanted
    assert pipeline_options(plan)


@pytest.mark.parametrize("value", ["Variable.get('x')", "our.unknown()", "object()", "days_ago(2)"])
@pytest.mark.parametrize("task", [
    "BashOperator(task_id='t', bash_command='x', trigger_rule=V)",
    "PythonOperator(task_id='t', python_callable=one, trigger_rule=V, op_args=[V])",
    "PythonOperator(task_id='t', python_callable=one, params={'a': V})",
])  # fmt: skip
def test_the_report_and_the_module_say_nothing_of_the_importers_own(tmp_path: Path, task: str, value: str) -> None:
    before = "import our\nfrom airflow.utils.dates import days_ago\ndef one(a=1): return a"
    made = written(tmp_path, dag(task.replace("V", value), before=before))
    said = made.text + "".join(f"{note.construct} {note.reason}" for each in made.dags for note in each.notes)
    assert not re.findall(r"Symbolic|Place\(|Reference\(|<\w+ object", said)
    loaded(tmp_path, made)


@pytest.mark.parametrize(("params", "body", "why"), [
    ("None", "return params['x']", "it reads 'x' of params, which the DAG does not declare"),
    ("{'y': 1}", "return params.get('x', 2)", "it reads 'x' of params, which the DAG does not declare"),
    ("None", "return dict(params)", "it takes params, and the DAG declares none"),
])  # fmt: skip
def test_params_that_only_a_runs_conf_has_need_airflow(tmp_path: Path, params: str, body: str, why: str) -> None:
    made = written(tmp_path, dag("task(asks)()", f"schedule=None, params={params}", f"def asks(params): {body}"))
    assert note(made, "task asks").reason == f"{why}, so it stays an operator with its function"


def test_declared_params_reach_a_function(tmp_path: Path) -> None:
    before = "from airflow.models.param import ParamsDict\ndef asks(**kwargs): return kwargs['params']['x']"
    made = written(tmp_path, dag("task(asks)()", "schedule=None, params=ParamsDict({'x': 1})", before))
    assert ran(tmp_path, made, x=5)[0]["asks"] == 5


KEYED = """
@task
def parts() -> dict: return {"a": 1, "b": 2}
@task
def takes(a): return a
def pulls(ti): return ti.xcom_pull(task_ids="parts", key="a")
"""


@pytest.mark.parametrize("taker", [
    "EmailOperator(task_id='t', subject=made['a'])",
    "made >> EmailOperator(task_id='t', subject=\"{{ ti.xcom_pull(task_ids='parts', key='a') }}\")",
    "made >> EmailOperator(task_id='t', subject=\"{{ ti.xcom_pull(key='a') }}\")",
])  # fmt: skip
def test_a_dict_whose_parts_an_operator_takes_stays_one_with_them_as_xcoms(tmp_path: Path, taker: str) -> None:
    before = f"from airflow.operators.email import EmailOperator\n{KEYED}"
    made = written(tmp_path, dag(f"made = parts()\n{taker}", before=before))
    assert arguments(loaded(tmp_path, made).flow.compile().by_name["parts"])["multiple_outputs"] is True


@pytest.mark.parametrize("taker", [
    "takes(made['a'])",
    "made >> takes(\"{{ ti.xcom_pull(task_ids='parts', key='a') }}\")",
    "made >> PythonOperator(task_id='takes', python_callable=pulls)",
])  # fmt: skip
def test_a_part_of_a_dict_that_a_step_takes_is_a_value(tmp_path: Path, taker: str) -> None:
    found, _ = ran(tmp_path, written(tmp_path, dag(f"made = parts()\n{taker}", before=KEYED)))
    assert int(found["takes"]) == 1


def test_an_xcom_of_an_operator_is_taken_by_an_operator(tmp_path: Path) -> None:
    before = f"from our.operators import Submit\n{KEYED}"
    made = written(tmp_path, dag("takes(Submit(task_id='s').output['job'])", before=before))
    (step,) = [step for step in loaded(tmp_path, made).flow.compile() if step.name == "takes"]
    assert arguments(step)["op_args"] == [{"$xcom": ["s", "job"]}]


MACROS = """schedule=None, user_defined_macros={'team': 'us'}, jinja_environment_kwargs={}, dag_display_name='Ours',
            owner_links={'us': 'https://a.b'}"""


def test_templates_that_need_something_of_their_dag_are_refused(tmp_path: Path) -> None:
    tasks = """
    BashOperator(task_id="own", bash_command="echo {{ team }}")
    BashOperator(task_id="other", bash_command="echo {{ ds }} {{ var.value.x }}")
    """
    made = written(tmp_path, dag(tasks, MACROS))
    assert of_kind(made, Kind.REFUSED) == {
        "task own": "it has a template, and its DAG has user_defined_macros, which a pipeline has not"
    }
    assert {"user_defined_macros of the DAG", "dag_display_name of the DAG"} <= of_kind(made, Kind.CHANGED).keys()
    assert loaded(tmp_path, made).flow.compile().options["airflow"] == {"owner_links": {"us": "https://a.b"}}
    for options in ("jinja_environment_kwargs={'trim_blocks': True}", "render_template_as_native_obj=True"):
        made = written(tmp_path, dag(tasks, f"schedule=None, {options}"))
        assert of_kind(made, Kind.REFUSED).keys() == {"task own", "task other"}


@pytest.mark.parametrize(("options", "construct", "kind"), [
    ("schedule='@daily', start_date=datetime(2024, 1, 1), catchup=False", "schedule", Kind.KEPT),
    ("schedule='@daily', start_date='2024-01-01', catchup=True", "schedule", Kind.KEPT),
    ("schedule='@daily', start_date=pendulum.today(), catchup=False", "start_date", Kind.CHANGED),
    ("schedule=timedelta(hours=1), start_date=Variable.get('s'), catchup=False", "start_date", Kind.CHANGED),
    ("schedule='@daily', start_date=datetime(2024, 1, 1)", "catchup", Kind.CHANGED),
    ("start_date=datetime(2024, 1, 1)", "schedule", Kind.CHANGED),
])  # fmt: skip
def test_what_a_schedule_loses_is_said(tmp_path: Path, options: str, construct: str, kind: Kind) -> None:
    made = written(tmp_path, dag("EmptyOperator(task_id='t')", options))
    assert note(made, construct).kind is kind
    assert ("start=datetime" in made.text) is (options.startswith("schedule") and construct != "start_date")
    assert kind is Kind.CHANGED or not of_kind(made, Kind.CHANGED)


@pytest.mark.parametrize(("rule", "is_named"), [("all_done", True), ("one_failed", True), ("none_failed", False)])
def test_a_failure_that_a_later_task_handles_is_named(tmp_path: Path, rule: str, is_named: bool) -> None:
    """Airflow asks the last tasks how a run ended; here, each failure counts."""
    tasks = f"EmptyOperator(task_id='a') >> EmptyOperator(task_id='b', trigger_rule='{rule}')"
    assert ("outcome of the run" in of_kind(written(tmp_path, dag(tasks)), Kind.CHANGED)) is is_named


def test_keys_of_a_dict_that_other_dags_may_pull_are_named(tmp_path: Path) -> None:
    assert note(written(tmp_path, dag("parts()", before=KEYED)), "keys of parts").kind is Kind.CHANGED


@pytest.mark.parametrize("rule", ["Variable.get('rule')", "Variable.get('rule', 'ours')"])
def test_a_trigger_rule_that_airflow_alone_knows_is_refused(tmp_path: Path, rule: str) -> None:
    before = "from our.operators import Load"
    made = written(tmp_path, dag(f"Load(task_id='t', table='a', trigger_rule={rule})", before=before))
    assert note(made, "task t").kind is Kind.REFUSED
    loaded(tmp_path, made)


def test_an_id_that_airflow_gets_in_another_form_is_named(tmp_path: Path) -> None:
    tasks = "EmptyOperator(task_id='load_20240101'); EmptyOperator(task_id='load.2024')"
    made = written(tmp_path, dag(tasks))
    assert of_kind(made, Kind.CHANGED).keys() == {"task_id load_20240101"}
    plan = loaded(tmp_path, made).flow.compile()
    assert [task_id(step.name) == step.name for step in plan] == [False, True]
