"""The code that stands in a compiled file: how much, and what of FlowyML comes along."""

from __future__ import annotations

import colorsys
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml.testing import pipelines
from flowyml_kubeflow import names, spec
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.inline import with_launcher, without_prose
from flowyml_kubeflow.options import FORMS
from tests.engines.kubeflow_compiled import compiled, container


@pytest.mark.parametrize("form", FORMS)
def test_the_code_stands_in_the_file_once(form: str) -> None:
    made = compiled(form=form)
    code = "".join(container["args"][-1] for container in spec.code_containers(made.spec))
    assert spec.text(made).count(code[:500]) == 1


def test_a_bundle_comes_from_a_store(tmp_path: Path) -> None:
    bundle = pipelines.greeting().bundle()
    stored = compile_pipeline(bundle, store="s3://bucket/code")
    words = container(stored, "flowyml--bundle")["args"]
    assert words[2:] == [stored.bundle.digest, f"s3://bucket/code/{stored.bundle.filename}"]
    target = tmp_path / "bundle"
    (tmp_path / stored.bundle.filename).write_bytes(stored.bundle.data)
    local = compile_pipeline(bundle, store=tmp_path.as_uri())
    command = container(local, "flowyml--bundle")
    artifact = {"uri": str(target)}  # KFP names it since 2.15 only
    given = {
        "outputs": {"artifacts": {names.BUNDLE: {"artifacts": [artifact]}}, "outputFile": str(tmp_path / "output.json")}
    }
    start = [sys.executable, *command["command"][1:], json.dumps(given), str(target), *command["args"][2:]]
    subprocess.run(start, check=True)
    assert target.read_bytes() == local.bundle.data
    assert names.BUNDLE in json.loads((tmp_path / "output.json").read_text())["artifacts"]
    (tmp_path / stored.bundle.filename).write_bytes(b"another")
    refused = subprocess.run(start, capture_output=True, text=True, check=False)
    assert "its SHA-256 differs" in refused.stderr


@pytest.mark.parametrize("line", ["print(cluster.health())", "cluster.runs()", "cluster.attach('x')"])
def test_a_script_that_asks_an_engine_when_it_is_imported_gets_the_whole_adapter(line: str) -> None:
    plan = Plan(name="asks", steps=(Step(name="a", function="m:f"),))
    script = f"from flowyml_kubeflow import KubeflowOrchestrator\ncluster = KubeflowOrchestrator()\n{line}\n"
    packages = ["flowyml_kubeflow"]
    held = with_launcher(build(plan, files={"m.py": script.encode()}, packages=packages)).files
    assert {"flowyml_kubeflow/local/orchestrator.py", "flowyml_kubeflow/reading.py"} <= held.keys()
    quiet = script.replace(line, "").encode()
    small = with_launcher(build(plan, files={"m.py": quiet}, packages=packages)).files
    assert "flowyml_kubeflow/reading.py" not in small


@pytest.mark.parametrize(
    ("line", "comes"),
    [
        ("from flowyml_kubeflow import KubeflowOrchestrator", False),
        ("from flowyml.orchestrators import LocalOrchestrator as Here\nHere()", True),
        ("from flowyml.orchestrators.registry import get_orchestrator\nget_orchestrator('local')", True),
    ],
)
def test_the_local_engine_comes_along_where_a_script_may_make_one(line: str, comes: bool) -> None:
    plan = Plan(name="asks", steps=(Step(name="a", function="m:f"),))
    held = with_launcher(build(plan, files={"m.py": f"{line}\n".encode()})).files
    assert ("flowyml/orchestrators/local/orchestrator.py" in held) == comes


@pytest.mark.parametrize(("line", "comes"), [("training.run()", False), ("print(training.compile().digest)", True)])
def test_what_makes_a_plan_comes_along_where_a_script_may_make_one(line: str, comes: bool) -> None:
    plan = Plan(name="asks", steps=(Step(name="a", function="m:f"),))
    held = with_launcher(build(plan, files={"m.py": f"{line}\n".encode()})).files
    assert ("flowyml/authoring/compiler.py" in held) == comes


@pytest.mark.parametrize(
    ("line", "comes"),
    [
        ("print('hello')", []),
        ("from flowyml.testing.pipelines import greeting", ["__init__", "pipelines"]),
        ("from flowyml.testing.pipelines_loops import maps", ["__init__", "pipelines", "pipelines_loops"]),
        ("from flowyml.testing import RunConformance", ["__init__", "loops", "pipelines", "pipelines_loops", "suite"]),
    ],
)
def test_the_conformance_suite_comes_along_where_a_script_asks_for_it(line: str, comes: list[str]) -> None:
    plan = Plan(name="asks", steps=(Step(name="a", function="m:f"),))
    held = with_launcher(build(plan, files={"m.py": f"{line}\n".encode()})).files
    looked_for = ("__init__", "loops", "pipelines", "pipelines_loops", "suite")
    assert [name for name in looked_for if f"flowyml/testing/{name}.py" in held] == comes


def test_what_another_adapter_stands_on_comes_along_with_it() -> None:
    """Its ``external_dag`` and ``run_dag`` ask Airflow from within a step."""
    plan = Plan(name="asks", steps=(Step(name="a", function="m:f"),))
    script = b"from flowyml_airflow import run_dag\n"
    held = with_launcher(build(plan, files={"m.py": script}, packages={"flowyml_airflow"})).files
    assert {"flowyml/core/web.py", "flowyml_airflow/external_run.py"} <= held.keys()


def test_a_retry_policy_brings_no_engine_along() -> None:
    plan = Plan(name="asks", steps=(Step(name="a", function="m:f"),))
    import_ = b"from flowyml.core.retry_policy import OrchestratorRetryPolicy\n"
    held = with_launcher(build(plan, files={"m.py": import_}))
    assert "flowyml/core/retry_policy.py" in held.files
    assert held.files.keys() == with_launcher(build(plan, files={"m.py": b"import json\n"})).files.keys()


@pytest.mark.parametrize("form", FORMS)
def test_the_code_of_an_ordinary_pipeline_is_one_pod_and_leaves_room_for_more(form: str) -> None:
    """For a module of 4 kB. The functions of the second travel by value, with cloudpickle."""
    plain = Plan(name="plain", steps=(Step(name="one", function="m:f"),))
    for plan, given in ((plain, build(plain)), (pipelines.greeting().compile(), pipelines.greeting().bundle())):
        more = given.repacked({**given.files, "code/more.py": Path(colorsys.__file__).read_bytes()})
        assert len(spec.code_containers(compile_pipeline(more, form=form).spec)) == 1, plan.name


def test_code_without_its_prose_means_the_same() -> None:
    """All that is packed so: FlowyML's own, this adapter's and cloudpickle's."""
    import ast
    from importlib.util import find_spec

    def meaning(source: bytes) -> str:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                node.value.value = ""
        return ast.dump(tree)

    for package in ("flowyml", "flowyml_kubeflow", "cloudpickle"):
        found = find_spec(package)
        assert found is not None
        for path in Path((found.submodule_search_locations or [])[0]).rglob("*.py"):
            source = path.read_bytes()
            shorter = without_prose(source)
            assert meaning(shorter) == meaning(source), path
            assert shorter.count(b"\n") == source.count(b"\n"), path
