"""The code that stands in a compiled file: how much, and what of FlowyML comes along."""

from __future__ import annotations

import ast
import builtins
import colorsys
import dis
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any
from zipfile import ZipFile

import cloudpickle
import pytest

from flowyml.cli.source import load
from flowyml.plan.bundle import build
from flowyml.plan.model import Caching, Plan, Step
from flowyml.testing import pipelines, pipelines_branches, pipelines_cleanup, pipelines_loops
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from flowyml_kubeflow.imports import module_name
from flowyml_kubeflow.pod_bundle import for_pods, without_prose
from tests.engines.kubeflow_compiled import compiled

ROOT = Path(__file__).parents[3]
OURS = ("flowyml", "flowyml_kubeflow")
IMAGE = {"image": "own:1", "runtime": "image"}
OPTIONAL = {"flowyml.runtime.caching", "flowyml.artifacts.content_digest", "flowyml.runtime.secrets"} | {
    "flowyml.runtime.taken", "flowyml.plan.types", "flowyml.runtime.shared", "flowyml_kubeflow.pods",
}  # fmt: skip
"""Modules that travel only with the plans that need them."""
ADAPTERS = ("flowyml_airflow", "flowyml_kubeflow", "flowyml_prefect")
PLAN = Plan(name="asks", steps=(Step(name="a", function="m:f", outputs=("made",)),))


def test_the_code_stands_in_the_file_once() -> None:
    made = compiled()
    code = "".join(container["args"][-1] for container in spec.code_containers(made.spec))
    assert spec.text(made).count(code[:500]) == 1


def test_a_bundle_comes_from_a_store(tmp_path: Path) -> None:
    bundle = pipelines.greeting().bundle()
    stored = compile_pipeline(bundle, store="s3://bucket/code")
    assert not spec.code_containers(stored.spec)
    for each in stored.spec["deploymentSpec"]["executors"].values():
        assert each["container"]["args"][3:] == [stored.bundle.digest, f"s3://bucket/code/{stored.bundle.filename}"]
    (tmp_path / stored.bundle.filename).write_bytes(stored.bundle.data)
    start, folder = started(compile_pipeline(bundle, store=tmp_path.as_uri()), tmp_path)
    subprocess.run(start, check=True)
    assert (folder / ".flowyml-code").read_bytes() == stored.bundle.data
    (tmp_path / stored.bundle.filename).write_bytes(b"another")
    refused = subprocess.run(start, capture_output=True, text=True, check=False)
    assert "its SHA-256 differs" in refused.stderr


def started(made: Compiled, tmp_path: Path) -> tuple[list[str], Path]:
    """The command of a task that does nothing, and the folder that KFP's launcher gives it."""
    words = next(iter(made.spec["deploymentSpec"]["executors"].values()))["container"]
    folder = tmp_path / "task"
    given = json.dumps({"outputs": {"outputFile": str(folder / "output.json")}})
    return [sys.executable, *words["command"][1:], "last", given, "{}", *words["args"][3:]], folder


def test_an_image_that_has_flowyml_needs_no_task_for_the_code(tmp_path: Path) -> None:
    """As long as the workflow has room for it in each container."""
    plan = Plan(name="asks", steps=(Step(name="a", function="m:f", outputs=("made",)),), options={"kubeflow": IMAGE})
    made = compile_pipeline(build(plan, files={"m.py": b"def f(): return 1\n"}))
    assert [*made.spec["root"]["dag"]["tasks"]] == ["a"]
    assert "inputs" not in compile_pipeline(build(plan), store="s3://code").spec["components"]["comp-a"]
    start, folder = started(made, tmp_path)
    subprocess.run(start, check=True)
    assert json.loads((folder / "output.json").read_text()) == {"parameterValues": {}, "artifacts": {}}
    refused = subprocess.run([*start[:-2], "0" * 64, start[-1]], capture_output=True, text=True, check=False)
    assert "its SHA-256 differs" in refused.stderr
    several = replace(plan, steps=tuple(Step(name=name, function="m:f") for name in "abcd"))
    large = compile_pipeline(build(several, files={"noise.bin": random.Random(1).randbytes(50_000)}), release=(2, 16))
    assert [*large.spec["root"]["dag"]["tasks"]] == ["flowyml--bundle", *"abcd"]


def held(script: str, *, packages: tuple[str, ...] = (), **more: bytes) -> set[str]:
    """The modules of FlowyML that come along with a step in such a script."""
    files = {"m.py": script.encode(), **{f"{name}.py": source for name, source in more.items()}}
    made = for_pods(build(PLAN, files=files, packages=packages)).files
    paths = (path for path in made if path.startswith("flowyml"))
    return {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in paths}


def test_a_file_of_a_package_of_the_image_is_stored_as_a_file(tmp_path: Path) -> None:
    """The user's code has no word of files."""
    (tmp_path / "exporter.py").write_text("from pathlib import Path\ndef export(): return Path(__file__)\n")
    script = b"from exporter import export\ndef f(): return export()\n"
    made = for_pods(build(PLAN, files={"m.py": script})).write(tmp_path)
    step = {"kind": "step", "step": "a", "attempt": 1, "index": [], "body": {}, "answer": str(tmp_path / "answer")}
    request = json.dumps({**step, "run": {"run_id": "r", "artifacts": str(tmp_path / "store")}})
    ran = subprocess.run(
        [sys.executable, "-S", str(made), "answer"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        input=request, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (value,) = json.loads((tmp_path / "answer").read_text())["outputs"].values()
    assert (value["$artifact"]["format"], value["$artifact"]["name"]) == ("file", "exporter.py")


def test_each_module_has_all_that_it_imports_in_a_pod(tmp_path: Path) -> None:
    """What has come along is imported, and so is all that functions import when a step runs."""
    cached = Step(name="a", function="m:f", outputs=("made",), secrets={"key": "K"}, caching=Caching(code="digest"))
    made = for_pods(build(Plan(name="all", steps=(cached,))))
    with ZipFile(made.write(tmp_path)) as archive:
        archive.extractall(tmp_path / "pod")  # our own
    names = sorted(held(""))
    runs = [name for name in names if name.startswith(("flowyml.runtime.", "flowyml.artifacts."))]
    later = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for name in runs
        for node in ast.walk(ast.parse((tmp_path / "pod" / f"{name.replace('.', '/')}.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    } - OPTIONAL.difference(names)  # of features that this plan does not have
    wanted = [*names, *sorted(name for name in later if name.partition(".")[0] == "flowyml")]
    code = f"import importlib; [importlib.import_module(name) for name in {wanted!r}]"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path / "pod", capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def lacking(files: Mapping[str, bytes]) -> list[str]:
    """The names that code of FlowyML in a bundle uses, and that nothing there defines."""
    codes = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): compile(data, path, "exec")
        for path, data in files.items()
        if path.startswith(("flowyml/", "flowyml_kubeflow/")) and path.endswith(".py")
    }
    bound = {name: {each.argval for each in dis.get_instructions(code) if each.opname == "STORE_NAME"} | {
        each.argval for inner in within(code) for each in dis.get_instructions(inner) if each.opname == "STORE_GLOBAL"
    } for name, code in codes.items()}  # fmt: skip
    known = {*dir(builtins), "__file__", "__name__", "__path__", "__qualname__", "__module__", "__annotations__"}
    found = []
    for name, code in codes.items():
        for inner in within(code):
            local = {each.argval for each in dis.get_instructions(inner) if each.opname == "STORE_NAME"}
            loaded = (each for each in dis.get_instructions(inner) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
            found += [f"{name}: {each.argval}" for each in loaded if each.argval not in bound[name] | known | local]
        for node in ast.walk(ast.parse(files[code.co_filename])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OURS:
                module = node.module or ""
                if module in OPTIONAL - codes.keys():
                    continue
                found += [
                    f"{name}: {module}.{alias.name}"
                    for alias in node.names
                    if f"{module}.{alias.name}" not in codes and alias.name not in bound.get(module, ())
                ]
    return found


def within(code: CodeType) -> Iterator[CodeType]:
    """A piece of code, and those of its functions and classes."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from within(constant)


def test_what_is_left_of_each_module_has_all_that_it_uses(tmp_path: Path) -> None:
    """Whatever the pipeline: definitions that nothing reaches are left out."""
    plain = Step(name="a", function="m:f", outputs=("made",))
    everything = replace(plain, secrets={"key": "K"}, caching=Caching(code="digest"))
    made = [build(PLAN), build(Plan(name="all", steps=(everything,)))]
    flows = pipelines_loops.continuing, pipelines_branches.mixed, pipelines_cleanup.handled
    for flow in flows:
        plan = flow(str(tmp_path)).compile()
        made.append(build(replace(plan, steps=tuple(replace(each, function="m:f") for each in plan))))
    for bundle in made:
        shorter, whole = for_pods(bundle), bundle.files
        assert not lacking(shorter.files)
        assert b"def check_values" in whole["flowyml/plan/parameters.py"]
        assert b"def check_values" not in shorter.files["flowyml/plan/parameters.py"]
        assert b"def is_of_type" in shorter.files["flowyml/plan/parameters.py"]
        assert b"class PipelineHook" in shorter.files["flowyml/core/hooks.py"]  # for a package of the image
        for path, data in shorter.files.items():
            if path in whole and path.startswith("flowyml/") and path != "flowyml/__init__.py":
                assert data.count(b"\n") == whole[path].count(b"\n"), path  # lines keep their numbers
    files = dict(for_pods(build(PLAN)).files)
    files["flowyml/plan/model.py"] = files["flowyml/plan/model.py"].replace(b"class Plan:", b"class Plans:")
    assert "flowyml.plan.codec: flowyml.plan.model.Plan" in lacking(files)


@pytest.mark.parametrize(
    "script",
    [
        "from flowyml_kubeflow import KubeflowOrchestrator\ncluster = KubeflowOrchestrator()\ncluster.runs()\n",
        "import flowyml_kubeflow\nflowyml_kubeflow.KubeflowOrchestrator(url='u')",
        "import flowyml_kubeflow as k\ngetattr(k, 'Kubeflow' + 'Orchestrator')",
        "import flowyml_kubeflow.names\nflowyml_kubeflow.KubeflowOrchestrator(url='u')",
        "from flowyml_kubeflow import *\nKubeflowOrchestrator(url='u')",
        "import flowyml.orchestrators as o\no.LocalOrchestrator()",
        "from flowyml import orchestrators as o\no.LocalOrchestrator()",
        "from flowyml.orchestrators import Auth, Orchestrator\nclass Own(Orchestrator): pass",
        "from flowyml_prefect import PrefectOrchestrator\nPrefectOrchestrator(url='u')",
        "from flowyml_airflow import AirflowOrchestrator\nAirflowOrchestrator(url='u')",
        "from flowyml_airflow.orchestrator import AirflowOrchestrator\nAirflowOrchestrator(url='u')",
        "import flowyml_airflow\nflowyml_airflow.AirflowOrchestrator(url='u')\nflowyml_airflow.run_dag",
        "from flowyml_airflow import *\nAirflowOrchestrator(url='u')\nwait = external_dag('d')",
        "from flowyml_airflow import airflow_operator, xcom\nairflow_operator('a.B', task_id='a', x=xcom('a'))",
    ],
)
def test_a_pod_loads_a_script_that_makes_an_orchestrator_without_any(script: str, tmp_path: Path) -> None:
    """As in a pod: what came along is all there is of FlowyML."""
    files = {"m.py": f"{script}\n\ndef f(): return 1\n".encode()}
    made = for_pods(build(PLAN, files=files, packages=ADAPTERS))
    stand_ins = [path for path, data in made.files.items() if data.startswith(b"from flowyml.runtime.definition_parts")]
    for path, data in made.files.items():
        if not path.endswith("__init__.py") and path != "code/m.py":
            assert b"(Orchestrator):" not in data
            assert not [other for other in stand_ins if module_name(other).encode() in data], path
    with ZipFile(made.write(tmp_path)) as archive:
        archive.extractall(tmp_path / "pod")  # our own
    code = "from flowyml.core.loading import loading\nwith loading(): import m\nassert m.f() == 1"
    subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path / "pod", env={**os.environ, "PYTHONPATH": "code"}, check=True
    )


@pytest.mark.parametrize("engine", ADAPTERS)
def test_a_step_that_imports_an_orchestrator_has_all_that_it_imports(engine: str) -> None:
    """That of one engine, even if the module imports another's when it is loaded."""
    for line in ("", f"import {engine}\n", "import flowyml.orchestrators\n"):
        made = held(f"{line}def f():\n    import {engine}\n    {engine}.made\n", packages=ADAPTERS)
        assert {f"{engine}.orchestrator", "flowyml.orchestrators.base", "flowyml.core.submission_result"} <= made
        assert "flowyml_kubeflow.local.orchestrator" not in made or engine == "flowyml_kubeflow"


LOCAL, CLUSTER = "flowyml.orchestrators.local.orchestrator", "flowyml_kubeflow.orchestrator"
PRUNING, BUILDING = "flowyml.core.pruning", "flowyml.authoring.pipeline"


@pytest.mark.parametrize(
    ("script", "comes"),
    [
        ("import importlib\nimportlib.import_module('flowyml_kubeflow').KubeflowOrchestrator", CLUSTER),
        ("import flowyml_kubeflow\nclass C:\n    made: 'flowyml_kubeflow.KubeflowOrchestrator | None'", CLUSTER),
        ("NAME = 'flowyml_kubeflow.KubeflowOrchestrator.health'\nimport pkgutil\npkgutil.resolve_name(NAME)", CLUSTER),
        ("import flowyml as fm\nfm.orchestrators.local.LocalOrchestrator()", LOCAL),
        ("from importlib import import_module\nimport_module('.orchestrators', 'flowyml').LocalOrchestrator", LOCAL),
        ("def module(name): return __import__(f'flowyml.{name}')\nmodule('orchestrators')", LOCAL),
        ("from flowyml.orchestrators.registry import load\nload('flowyml_kubeflow:KubeflowOrchestrator')", CLUSTER),
        ("import flowyml.core.pruning", PRUNING),
        ("from importlib import import_module\nimport_module('flowyml.core.pruning')", PRUNING),
        ("from flowyml.authoring.pipeline import Pipeline", BUILDING),
    ],
)
def test_what_a_script_takes_comes_along_however_it_is_taken(script: str, comes: str) -> None:
    assert comes in held(f"{script}\n")
    imported, _, used = script.partition("\n")
    assert comes in held(f"from helper import *\n{used}\n", helper=f"{imported}\n".encode())


def test_what_a_function_or_only_a_pod_imports_comes_along_with_what_that_imports() -> None:
    script = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\nelse:\n    {}\n"
    other, ours = "from there import Bounds", "from flowyml.core.pruning import Bounds"
    for line in (f"def f():\n    {ours}\n", script.format(other, ours)):
        assert {PRUNING, "flowyml.core.removal"} <= held(line)
        assert PRUNING in held("from helper import g\n", helper=line.encode())
    assert PRUNING not in held(script.format(ours, other))


@pytest.mark.parametrize(
    ("script", "stays"),
    [
        ("from flowyml_kubeflow import KubeflowOrchestrator", LOCAL),
        ("def f(job):\n    job.run()", LOCAL),
        ("from flowyml import pipeline\npipeline(print).compile()", BUILDING),
        ("pruning = 'flowyml'", PRUNING),
        ("from flowyml import pipeline", "flowyml.runtime.taken"),
    ],
)
def test_what_a_script_does_not_take_stays(script: str, stays: str) -> None:
    assert stays not in held(f"{script}\n")


@pytest.mark.slow
@pytest.mark.parametrize("example", ["alert_webhook", "daily_sales", "train_classifier"])
def test_a_pod_loads_the_steps_and_hooks_of_an_example_without_what_builds_pipelines(
    example: str, tmp_path: Path
) -> None:
    made = for_pods(load(str(ROOT / "examples" / f"{example}.py")).bundle()).write(tmp_path)
    code = (
        "import sys; from pathlib import Path; from runpy import run_path; bundle = Path(sys.argv[1]);"
        "folder = run_path(str(bundle), run_name='bundle')['unpack'](bundle); sys.path[:0] = [str(folder)];"
        "from flowyml.plan.codec import decode; from flowyml.runtime.loading import load_hooks, load_step;"
        "[load_step(folder, step) for step in decode((folder / 'plan.json').read_bytes())]; load_hooks(folder);"
        "assert not [name for name in sys.modules if name.startswith('flowyml.authoring')]"
    )
    subprocess.run([sys.executable, "-c", code, str(made)], cwd=tmp_path, check=True)


def test_what_a_pickled_function_imports_comes_along() -> None:
    def prune() -> None:
        from flowyml.core import pruning

        pruning.Bounds()

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def submit() -> None:
        import flowyml_kubeflow

        flowyml_kubeflow.KubeflowOrchestrator()

    def run() -> None:
        from flowyml import orchestrators as engines

        engines.LocalOrchestrator()

    def comes(function: Callable[..., Any], path: str = "flowyml/core/removal.py") -> bool:
        function.__module__ = "__main__"  # as in a notebook
        made = for_pods(build(PLAN, objects={"f": cloudpickle.dumps(function)})).files
        assert {"cloudpickle/cloudpickle.py", "flowyml/runtime/worker.py"} <= made.keys()
        return path in made

    assert comes(prune)
    assert not comes(mean)
    assert comes(submit, "flowyml_kubeflow/orchestrator.py")
    assert comes(run, "flowyml/orchestrators/local/orchestrator.py")
    assert for_pods(build(PLAN, objects={"f": b"\x80damaged"})).plan == PLAN


@pytest.mark.parametrize(
    ("line", "comes"),
    [
        ("print('hello')", []),
        ("from flowyml.testing.pipelines import greeting", ["pipelines"]),
        ("from flowyml.testing.pipelines_loops import maps", ["pipelines", "pipelines_loops"]),
        ("from flowyml.testing import OrchestratorConformance", ["loops", "pipelines", "pipelines_loops", "suite"]),
    ],
)
def test_the_conformance_suite_comes_along_where_a_script_asks_for_it(line: str, comes: list[str]) -> None:
    made = held(f"{line}\n")
    looked_for = ("loops", "pipelines", "pipelines_loops", "suite")
    assert [name for name in looked_for if f"flowyml.testing.{name}" in made] == comes


@pytest.mark.parametrize("line", ["from flowyml_airflow import AirflowOrchestrator, run_dag", "import flowyml_airflow"])
def test_a_function_for_steps_comes_along_without_the_orchestrator_beside_it(line: str) -> None:
    """``run_dag`` asks Airflow from within a step."""
    made = held(f"{line}\n", packages=ADAPTERS)
    assert {"flowyml.core.web", "flowyml_airflow.external_run", "flowyml_airflow.connection"} <= made
    assert made.isdisjoint({"flowyml_airflow.client", "flowyml_airflow.deployer", "flowyml.core.submission_result"})


def test_a_step_of_another_engine_in_a_pickle_brings_no_orchestrator_along(tmp_path: Path) -> None:
    (tmp_path / "nights.py").write_text("""
from flowyml import pipeline
from flowyml_airflow import AirflowOrchestrator, external_dag

nightly = external_dag("nightly", url="http://airflow")

@pipeline
def nights():
    return {"report": nightly()}
""")
    made = for_pods(load(str(tmp_path / "nights.py")).bundle())
    assert "objects/nightly.pkl" in made.files
    assert "flowyml_airflow/external_run.py" in made.files
    assert "flowyml_airflow/client.py" not in made.files


def test_the_adapter_of_a_third_party_comes_along_whole_with_what_it_stands_on() -> None:
    engine = b"from flowyml.orchestrators.base import Orchestrator\nclass Acme(Orchestrator): pass\n"
    made = build(PLAN, files={"m.py": b"from acme import Acme\n"})
    pods = for_pods(made.repacked({**made.files, "acme/__init__.py": engine})).files
    assert pods["acme/__init__.py"] == engine
    assert b"class Orchestrator(" in pods["flowyml/orchestrators/base.py"]


def test_the_code_of_an_ordinary_pipeline_is_one_pod_and_leaves_room_for_more() -> None:
    """For a module of 4 kB. The functions of the second travel by value, with cloudpickle."""
    plain = Plan(name="plain", steps=(Step(name="one", function="m:f"),))
    for plan, given in ((plain, build(plain)), (pipelines.greeting().compile(), pipelines.greeting().bundle())):
        more = given.repacked({**given.files, "code/more.py": Path(colorsys.__file__).read_bytes()})
        assert len(spec.code_containers(compile_pipeline(more).spec)) == 1, plan.name


def test_code_without_its_prose_means_the_same() -> None:
    """All that is packed so: FlowyML's own, this adapter's and cloudpickle's."""
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
