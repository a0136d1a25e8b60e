"""Plan to KFP's intermediate representation: names, graphs, components."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import Pipeline, step
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.plan.bundle import build
from flowyml.plan.groups import Loop
from flowyml.plan.model import Constant, FromStep, Input, PipelineOutput, Plan, Step
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator, names, spec
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.tasks import Tasks
from tests.engines import kubeflow_ir
from tests.engines.kubeflow_compiled import compiled, container


@pytest.mark.kubeflow
def test_kfp_itself_accepts_hostile_names(tmp_path: Path) -> None:
    from kfp import components

    pipeline = pipelines.hostile()
    made = compile_pipeline(pipeline.bundle())
    assert spec.validate(made)
    assert kubeflow_ir.faults(made.documents) == []
    path = tmp_path / "pipeline.yaml"
    path.write_text(spec.text(made))
    loaded = components.load_component_from_file(str(path))
    assert loaded.name == names.pipeline(pipeline.name)
    shown = {task["taskInfo"]["name"] for task in made.spec["root"]["dag"]["tasks"].values()}
    assert shown > {'it\'s "1" {x} \\', "class/../.. on python3.12"}
    assert [*yaml.safe_load_all(path.read_text())] == made.documents


def test_steps_that_are_alike_share_a_component() -> None:
    twins = [step(name=f"twin {n}", outputs=[f"v{n}"])(lambda: 1) for n in range(2)]
    same = Plan(name="same", steps=tuple(Step(name=f"s{n}", function="m:f", outputs=("v",)) for n in range(5)))
    assert len(compile_pipeline(build(same)).spec["components"]) == 2
    pipeline = Pipeline("twins")
    for item in twins:
        pipeline.add_step(item)
    assert len(compile_pipeline(pipeline.bundle(), store="s3://code").spec["components"]) == 2
    pairs = (Step(name=f"{kind}{n}", function="m:f", outputs=(kind,)) for kind in "vw" for n in range(2))
    assert kubeflow_ir.faults(compile_pipeline(build(Plan(name="pairs", steps=tuple(pairs)))).documents) == []
    secrets = (Step(name=name, function="m:f", secrets={"key": f"{name}/key"}) for name in ("one", "other"))
    apart = compile_pipeline(build(Plan(name="apart", steps=tuple(secrets))), store="s3://code")
    assert len(apart.spec["components"]) == 2, "their pods get other secrets"


def test_a_container_keeps_the_modules_compiled_that_its_step_needs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images for containers often set the variable."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    made = compiled()
    output = tmp_path / "output.json"
    given = json.dumps({"outputs": {"outputFile": str(output)}})
    _, *command = container(made)["command"]
    words = ["last", given, "{}", made.bundle.digest, made.bundle.write(tmp_path)]
    subprocess.run([sys.executable, *command, *words], check=True)
    assert json.loads(output.read_text()) == {"parameterValues": {}, "artifacts": {}}
    assert {path.name.split(".")[0] for path in (tmp_path / "cache").rglob("*.pyc")} >= {"worker", "spawn"}


def joining(count: int) -> Plan:
    sources = tuple(Step(name=f"s{n}", function="m:f", outputs=(f"v{n}",)) for n in range(count))
    inputs = tuple(Input(f"v{n}", FromStep(f"s{n}", f"v{n}")) for n in range(count))
    return Plan(name="wide", steps=(*sources, Step(name="join", function="m:f", inputs=inputs, outputs=("all",))))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (joining(180), "step 'join' takes 180 values from other steps and returns 1."),
        (Plan(name="wide", steps=(Step(name="many", function="m:f", outputs=tuple(f"v{n}" for n in range(160))),)),
         "step 'many' takes 0 values from other steps and returns 160."),
    ],
)  # fmt: skip
def test_a_step_with_too_many_values_is_refused(plan: Plan, message: str) -> None:
    """An artifact's description has 710 to 780 bytes with KFP's default MinIO, and an argument 128 KiB."""
    with pytest.raises(UnsupportedFeatureError, match=message):
        compile_pipeline(build(plan))
    compile_pipeline(build(joining(160)))


def test_no_part_of_kfp_is_imported_to_compile(tmp_path: Path) -> None:
    path = pipelines.greeting().bundle().write(tmp_path)
    code = f"""
import sys
from flowyml.plan.bundle import Bundle
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator
files = KubeflowOrchestrator().compile_files(Bundle.read({str(path)!r}))
print(next(iter(files)), "kfp" in sys.modules, "kubernetes" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["conformance-greeting-b7979573.yaml", "False", "False"]


TEXT = st.text(min_size=1, max_size=30).filter(lambda name: name == name.strip() and name.isprintable())


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of any shape, with any names that FlowyML takes."""
    step_names = draw(st.lists(TEXT, min_size=1, max_size=6, unique=True))
    steps: list[Step] = []
    for name in step_names:
        produced = [(item.name, output) for item in steps for output in item.outputs]
        chosen = draw(st.lists(st.sampled_from(produced), max_size=3, unique=True)) if produced else []
        arguments = draw(st.lists(TEXT, min_size=len(chosen), max_size=len(chosen), unique=True))
        inputs = [Input(argument, FromStep(*source)) for argument, source in zip(arguments, chosen, strict=True)]
        inputs += [Input("a constant of no step", Constant(1))]
        after = draw(st.lists(st.sampled_from([item.name for item in steps]), max_size=2, unique=True)) if steps else []
        outputs = draw(st.lists(TEXT, max_size=3, unique=True))
        steps.append(Step(name=name, function="m:f", inputs=tuple(inputs), outputs=tuple(outputs), after=tuple(after)))
    last = [PipelineOutput(f"{output} of it", FromStep(steps[-1].name, output)) for output in steps[-1].outputs]
    return Plan(name=draw(TEXT), steps=tuple(steps), outputs=tuple(last), hooks=draw(st.sampled_from([(), ("h",)])))


@settings(max_examples=25)
@given(plans())
def test_a_plan_read_back_from_its_file_is_the_same_graph(plan: Plan) -> None:
    made = compile_pipeline(build(plan), store="s3://code")
    assert spec.validate(made)
    (document, *platform) = yaml.load_all(spec.text(made), yaml.CSafeLoader)
    assert kubeflow_ir.faults([document, *platform]) == []
    tasks = Tasks(type("Run", (), {"run_details": None}), document)
    dag = document["components"]["comp-flowyml--steps"]["dag"] if plan.hooks else document["root"]["dag"]
    graph = {
        name: {tasks.steps[up] for up in dag["tasks"][task].get("dependentTasks", []) if up in tasks.steps}
        for task, name in tasks.steps.items()
    }
    assert graph == {item.name: set(item.upstream) for item in plan}
    data = set()
    for task, name in tasks.steps.items():
        for port, given_by in dag["tasks"][task].get("inputs", {}).get("artifacts", {}).items():
            source = given_by["taskOutputArtifact"]
            data.add((name, port, tasks.steps[source["producerTask"]], source["outputArtifactKey"]))
    assert data == {
        (item.name, names.port(each.name), each.source.step, names.port(each.source.output))
        for item in plan for each in item.inputs if isinstance(each.source, FromStep)
    }  # fmt: skip
    assert sorted(name for found in tasks.outputs().values() for name in found) == sorted(
        output.name for output in plan.outputs
    )


@given(st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_no_two_names_become_one(pair: list[str]) -> None:
    first, second = pair
    for make in (names.task, names.port):
        assert make(first) != make(second)
    own = (names.BUNDLE, names.STEP, names.TIME, names.RUN, names.JOB, names.STARTED, names.STATUS, names.part(1))
    assert all("-" in name and "." not in name for name in own)
    assert names.port(first).isidentifier()


def _other_pythons() -> list[Path]:
    """One interpreter of each other release on this machine."""
    found = [
        *Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3.1[1-9]"),
        *Path("/usr/bin").glob("python3.1[1-9]"),
    ]
    by_release = {path.name: path for path in found if path.exists()}
    return [path for name, path in by_release.items() if name != f"python3.{sys.version_info.minor}"]


def test_the_same_bytes_on_each_python(tmp_path: Path) -> None:
    """Bundles are the same file anywhere, and so is what they compile to, whatever the hash seed."""
    plan = Plan(name="same", steps=tuple(Step(name=f"step {n}", function="m:f", outputs=("v",)) for n in range(20)))
    # A pickled function would need the Python that wrote it, whose image the file then names.
    flow = Plan(
        name="flow", groups=(Loop(name="loop", over=(Input("n", Constant([1, 2])),)),),
        steps=tuple(Step(name=f"s{n}", function="m:f", outputs=("v",), group="loop") for n in range(5)),
    )  # fmt: skip
    paths = [str(build(each).write(tmp_path)) for each in (plan, flow)]
    root = Path(__file__).parents[3]
    code = f"""
import sys
sys.path[:0] = [{str(root)!r}, {str(root / "adapters/kubeflow")!r}]
from flowyml.plan.bundle import Bundle
from flowyml_kubeflow import spec
from flowyml_kubeflow.compiler import compile_pipeline
import hashlib
for path in {paths!r}:
    print(hashlib.sha256(spec.compact(compile_pipeline(Bundle.read(path))).encode()).hexdigest())
"""
    digests = set()
    for seed, python in enumerate([Path(sys.executable), *_other_pythons()]):
        environment = {"PYTHONHASHSEED": str(seed)}
        done = subprocess.run([str(python), "-c", code], env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1, digests


def test_the_local_runner_has_a_timeout_and_no_file_and_a_cluster_a_file_and_no_timeout() -> None:
    late = Pipeline("late", timeout=60).add_step(step(name="one")(lambda: 1))
    here = KubeflowLocalOrchestrator(runner="subprocess")
    assert here.plan(late).timeout_seconds == 60
    with pytest.raises(UnsupportedFeatureError, match="compile for 'kubeflow'"):
        here.compile_pipeline(late)
    with pytest.raises(UnsupportedFeatureError, match=r"asks for timeout=60.*KFP has no timeout of a pipeline"):
        KubeflowOrchestrator().compile_pipeline(late)
