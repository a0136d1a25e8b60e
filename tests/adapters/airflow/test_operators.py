"""Steps that are operators of Airflow's own: on the real Airflows, in the compiled text, and refused elsewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, for_each, pipeline, step
from flowyml.core.errors import DefinitionError, FlowymlError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.needs import first_of_each
from flowyml.plan.bundle import Bundle
from flowyml_airflow import AirflowOrchestrator, airflow_operator, imported
from flowyml_airflow.compiler import compile_dag
from flowyml_kubeflow import KubeflowOrchestrator
from flowyml_prefect import PrefectOrchestrator
from tests.adapters.airflow import dags_operators as dags
from tests.adapters.airflow.operating import orchestrator_of
from tests.engines.airflow import Airflow

COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
RUFF = Path(sys.executable).with_name("ruff")


@pytest.mark.airflow
@pytest.mark.slow
@pytest.mark.beside
def test_operators_run_beside_steps(airflow: Airflow) -> None:
    orchestrator = orchestrator_of(airflow)
    days = {dags.with_operators.name: {"day": "friday"}}
    made = (dags.with_operators, dags.with_functions, dags.branching, dags.failing)
    runs = [orchestrator.run_pipeline(each, parameters=days.get(each.name)) for each in made]
    operators, functions, branching, failing = runs
    for handle in (operators, functions, branching):
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error

    outputs = dict(operators.outputs)
    assert re.fullmatch(r"/usr on \d{4}-\d\d-\d\d", outputs.pop("told"))
    assert outputs == {"shouted": "FRIDAY 3", "gathered": ["one", "two"], "said": "friday"}
    assert {label: dict(found) for label, found in operators.step_outputs().items()} == {
        "count": {"count": 3}, "commands": {"commands": ["echo one", "echo two"]},
        "one_of_two": {"folder": "/usr", "number": 2.5}, "shout": {"shout": "FRIDAY 3"},
        "gather": {"gather": ["one", "two"]},
    }  # fmt: skip
    assert {run.label: run.raw_status for run in operators.step_runs()} == dict.fromkeys(
        ("begin", "count", "commands", "say the day", "each[0]", "each[1]", "shout", "gather", "one_of_two", "tell"),
        "success",
    )  # fmt: skip
    assert "on friday, 3 rows" in [line.message for line in operators.logs(step="say the day")]

    assert functions.outputs == {"shout": "PUSHED 3 [3, 7] 3"}, "of the pipeline, with Airflow's context"
    assert {run.name for run in functions.step_runs()} == {"in.pushes", "pulls", "shout", "count"}
    assert {run.name: run.raw_status for run in branching.step_runs()} == {
        "said": "success", "late": "success", "early": "skipped",
    }, "what an operator returns chooses"  # fmt: skip

    assert failing.wait_for_completion(timeout=2400, poll_interval=1).status is FAILED
    steps = {run.name: run for run in failing.step_runs()}
    assert (steps["fails"].status, steps["fails"].attempt) == (FAILED, 2)
    assert "exit code 3" in (steps["fails"].error or "")
    assert "fails" in (failing.error or "")
    assert steps["last"].status is COMPLETED


def text_of(*steps: Any, name: str = "made") -> str:
    made = Pipeline(name)
    for each in steps:
        made.add_step(each)
    return compile_dag(made.bundle()).text


def test_what_is_written_imports_and_uses_its_names(tmp_path: Path) -> None:
    for made in (dags.with_operators, dags.with_functions, dags.branching, dags.failing, dags.objects):
        (tmp_path / f"{made.name}.py").write_text(compile_dag(made.bundle()).text)
    subprocess.run([RUFF, "check", "--isolated", "--select", "E4,E7,E9,F", tmp_path], check=True)


def test_values_that_are_no_json_and_names_that_clash() -> None:
    text = compile_dag(dags.objects.bundle()).text
    assert "from our.hooks import DAG as DAG_\n" in text
    assert "from airflow.models import Variable\n" in text
    assert '**{"not-a-name": Variable.get("bucket", default_var=None)}' in text
    assert "pairs=((1, 2), {3, 4})" in text
    assert 'items=tuple(["a"])' in text
    assert 'deep={"$call": ["os.system", ["x"], {}]}' in text  # a dict of the user's, and no call


def test_an_orchestrators_retry_policy_and_a_timeout_hold_unless_the_operator_has_its_own() -> None:
    bash = airflow_operator(dags.BASH, task_id="b", bash_command="true").options(retry=3, timeout=60)
    assert " retries=3, " in text_of(bash).replace("\n       ", "")
    assert "execution_timeout=timedelta(minutes=1)" in text_of(bash)
    own = airflow_operator(dags.BASH, task_id="b", bash_command="true", retries=1).options(retry=3)
    assert "retries=1)" in text_of(own)


def test_a_trigger_rule_of_airflows_alone_is_kept() -> None:
    assert 'trigger_rule="all_skipped"' in text_of(
        airflow_operator(dags.EMPTY, task_id="e", trigger_rule="all_skipped")
    )
    with pytest.raises(DefinitionError, match=r"trigger_rule='dummy' is not one of all_success, .*all_skipped"):
        airflow_operator(dags.EMPTY, task_id="e", trigger_rule="dummy")


@pytest.mark.parametrize(
    ("path", "arguments", "words"),
    [
        ("BashOperator", {}, "needs the import path of an operator"),
        ("a.b; import os", {}, "needs the import path"),
        ("a.class.B", {}, "needs the import path"),
        ("a.b:C", {}, "needs the import path"),
        ("a.B", {"dag": "x"}, "leave 'dag' out"),
        ("a.B", {"f": len}, "which is not plain data. Name what Airflow should import: imported"),
        ("a.B", {"f": [object()]}, "which is not plain"),
    ],
)
def test_what_cannot_be_said_of_an_operator(path: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        airflow_operator(path, task_id="t", **arguments)


@pytest.mark.parametrize("path", ["os.system('x')", "os", "a..b", "a.b\n", "ä.b", "a.lambda", "a.__debug__", 3, ""])
def test_what_is_no_import_path(path: Any) -> None:
    with pytest.raises(DefinitionError, match="needs the path of a name in a module"):
        imported(path)


@pytest.mark.parametrize("given", [2**64, [1, -(2**63) - 1], {"a": ({"b": 2**70},)}, {2**64: "a key"}])
def test_integers_that_airflow_3_does_not_carry_are_refused(given: Any) -> None:
    """They stand in the DAG, which its DAG processor hands on by msgpack, with integers of 64 bits."""
    large = airflow_operator("our_company.operators.LakeOperator", task_id="large", rows=given)
    with pytest.raises(DefinitionError, match=r"step 'large': .* hold -?\d+, and Airflow 3 carries 64-bit integers"):
        compile_dag(Pipeline("large").add_step(large).bundle())
    fits = airflow_operator("our_company.operators.LakeOperator", task_id="fits", rows=[2**64 - 1, str(2**64)])
    assert str(2**64 - 1) in compile_dag(Pipeline("fits").add_step(fits).bundle()).text


def test_a_plan_that_another_hand_wrote_puts_no_code_into_the_file() -> None:
    """A plan comes out of a bundle, which is a file: what the authoring function checks is checked again."""
    bundle = dags.objects.bundle()
    evil = "os.path import x\nimport os\nos.system('id') #.A"
    for arguments in (
        {"x": {"$import": evil}}, {"x": {"$call": [evil, [], {}]}}, {"x": {"$timedelta": "1)\nimport os"}},
        {"x": {"$code": "x"}}, {"x": {"$code": "os:system('id')"}},
        {"x": {"$xcom": ["DAG", "return_value"]}}, {"x": [{"$set": "abc"}]}, {"x": {"$dict": [[1]]}}, ["x"],
    ):  # fmt: skip
        with pytest.raises(FlowymlError, match=r"cannot be compiled|is not a dict"):
            compile_dag(_with_options(bundle, {"operator": "our.B", "arguments": arguments}))
    with pytest.raises(FlowymlError, match=r"not an import path|not the import path"):
        compile_dag(_with_options(bundle, {"operator": evil, "arguments": {}}))
    text = compile_dag(
        _with_options(bundle, {"operator": "our.B", "arguments": {"a=1)\nimport os#": '"""\nimport os', "ok": 1}})
    ).text
    tree = ast.parse(text)
    assert "os" not in {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def test_an_argument_may_have_any_name() -> None:
    """Also the one that no call may write before ``=``."""
    odd = {"__debug__": 2}
    made = airflow_operator("our.B", task_id="b", of=imported("our.C")(**odd), **odd)
    text = compile_dag(Pipeline("any name").add_step(made).bundle()).text
    compile(text, "dag.py", "exec")
    assert '**{"__debug__": 2}' in text


def _with_options(bundle: Bundle, options: dict[str, Any]) -> Bundle:
    plan = bundle.plan
    changed = replace(plan, steps=(replace(plan.steps[0], options={"airflow": options}),))
    return replace(bundle, plan=changed)


def test_other_engines_name_each_step_and_what_could_replace_it(tmp_path: Path) -> None:
    query = airflow_operator("airflow.providers.google.cloud.operators.bigquery.BigQueryOperator", task_id="query")
    get = airflow_operator("airflow.providers.http.operators.http.HttpOperator", task_id="get", endpoint="x")
    made = Pipeline("held back").add_step(query).add_step(get)
    words = (
        r"step 'query' is BigQueryOperator \(a step that calls the service's google-cloud client.*\); "
        r"'get' is HttpOperator \(flowyml\.steps\.http\): .*They run only on Airflow\."
    )
    for orchestrator in (LocalOrchestrator(store=tmp_path / "runs.db"), PrefectOrchestrator(url="http://127.0.0.1:1")):
        with pytest.raises(UnsupportedFeatureError, match=words):
            orchestrator.plan(made)
    with pytest.raises(UnsupportedFeatureError, match="'get' is HttpOperator"):
        KubeflowOrchestrator.capabilities.require(first_of_each(made.compile()))
    AirflowOrchestrator.capabilities.require(first_of_each(made.compile()))
    assert "query = BigQueryOperator(" in compile_dag(made.bundle()).text


def test_what_airflow_cannot_hand_to_an_operator_is_refused() -> None:
    @step
    def rows(item: str) -> str:
        return item

    bash = airflow_operator(dags.BASH, task_id="b")

    @pipeline
    def several() -> None:
        with for_each(["a", "b"]) as item:
            bash.options(name="b")(bash_command=rows(item))

    @pipeline
    def of_a_parameter(commands: list[str]) -> None:
        bash.map(bash_command=commands)

    @pipeline
    def of_two() -> None:
        bash.map(bash_command=dags.one_of_two()[0])

    for made, words in (
        (several, "one of several steps of loop"),
        (of_a_parameter, "Let a step list them"),
        (of_two, "Let a step return 'folder' alone"),
    ):
        with pytest.raises(UnsupportedFeatureError, match=words):
            compile_dag(made.bundle())
