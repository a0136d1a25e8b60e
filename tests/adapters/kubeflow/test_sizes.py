"""The size of a workflow, beside the workflows that a real KFP ran, and what is refused because of it.

The recorded workflows are in ``shared/kubeflow-real`` beside this repository; its README says what each of them is.
"""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, pipeline, report, step
from flowyml.cli import main
from flowyml.core.errors import UnsupportedFeatureError
from flowyml.core.schedule import Schedule
from flowyml.plan.bundle import Bundle, build
from flowyml.plan.model import FromParameter, FromStep, Input, Parameter, Plan, Step
from flowyml_kubeflow import sizes, spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from flowyml_kubeflow.graph import PODS
from flowyml_kubeflow.sizes import ERROR, TEMPLATE, WORKFLOW
from tests.engines.kubeflow_calls import RUN, run_id

Json = dict[str, Any]

RECORDED = Path(__file__).parents[4] / "shared" / "kubeflow-real"
LOOPS = {
    "216-sweep20": {"train--loop": 20}, "stock-ssweep3": {"train--loop": 3}, "stock-ssweep20": {"train--loop": 20},
    "stock-snested": {"branched-square-b03f9417--loop": 3, "branched-2-square-d3a87bd8--loop": 10},
}  # fmt: skip
ENDED = (
    "216-stwo", "216-twobad", "216-chain25", "216-sweep20", "stock-stwo", "stock-stwobad", "stock-ssweep3",
    "stock-snested",
)  # fmt: skip
# Runs that were too large, lost a driver or were cancelled, and one that ended; two had their code from KFP's cache.
IN_PART = {"stock-two": None, "216-two": "bundle", "stock-ssweep20": "bundle", "stock-schain30-cancelled": None}

needs_records = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"{RECORDED} has the workflows of a real KFP")


class Recorded:
    """A workflow that a real KFP ran, and what FlowyML takes the same pipeline for."""

    def __init__(self, name: str) -> None:
        run = _read(RECORDED / name / "v1beta1.json.gz")
        self.workflow: Json = json.loads(run["pipeline_runtime"]["workflow_manifest"])
        self.status: Json = self.workflow["status"]
        if packed := self.status.pop("compressedNodes", None):
            self.status["nodes"] = json.loads(gzip.decompress(base64.b64decode(packed)))
        own = self.workflow["metadata"]["name"]
        self.nodes = {node["name"].removeprefix(own): node for node in self.status["nodes"].values()}

    @property
    def raw(self) -> int:
        return len(sizes.text(self.workflow).encode())

    @property
    def packed(self) -> int:
        rest = {**self.workflow, "status": {**self.status, "nodes": {}}}
        nodes = sizes.text(self.status["nodes"])
        return len(sizes.text(rest).encode()) + sizes.packed(nodes, set(re.findall("A{4000,}", nodes)))


def _read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def computed(name: str) -> sizes.Simulation:
    version = _read(RECORDED / name / "version.json.gz")
    pipeline, platform = spec.documents(version["pipeline_spec"])
    made = sizes.Simulation(pipeline, platform, wraps=name.startswith("stock"), iterations=LOOPS.get(name, {}))
    made.run({})
    return made


def near(number: float) -> Any:
    return pytest.approx(number, rel=ERROR)


@needs_records
@pytest.mark.parametrize("name", ENDED)
def test_a_workflow_that_ran_to_its_end_is_as_large_as_computed(name: str) -> None:
    recorded, made = Recorded(name), computed(name)
    assert {path.removeprefix(made.name) for path in made.nodes} == recorded.nodes.keys()
    size = made.size()
    assert size.raw == near(recorded.raw)
    assert size.count == len(recorded.nodes)
    if recorded.raw > WORKFLOW:
        assert size.packed == near(recorded.packed)


@needs_records
@pytest.mark.parametrize(("name", "cached"), IN_PART.items())
def test_what_ran_in_part_is_as_large_as_computed(name: str, cached: str | None) -> None:
    recorded, made = Recorded(name), computed(name)
    nodes = {path.removeprefix(made.name): node for path, node in made.nodes.items()}
    assert recorded.nodes.keys() <= nodes.keys()
    ran = [
        path for path, node in recorded.nodes.items()
        if node["phase"] in ("Succeeded", "Running") and not (cached and cached in path)
    ]  # fmt: skip
    assert len(ran) >= 8
    found, wanted = ([len(sizes.text(of[path])) for path in ran] for of in (nodes, recorded.nodes))
    assert sum(found) == near(sum(wanted))


@needs_records
def test_a_workflow_is_as_large_packed_as_argo_said() -> None:
    message = Recorded("stock-two").status["message"]
    (packed,) = re.findall(r"longer than maximum allowed size. compressed size (\d+) > maxSize 1048576", message)
    size = computed("stock-two").size()
    assert size.packed == near(int(packed))
    assert not size.is_stored


@needs_records
@pytest.mark.parametrize(
    ("name", "more", "fails"),
    [
        ("216-rbac-big128500", -1000, []), ("216-rbac-big128500", 0, [False]), ("216-rbac-big130800", 0, [True, False]),
    ],
)  # fmt: skip
def test_a_pod_is_as_large_as_argo_said(name: str, more: int, fails: list[bool]) -> None:
    """Containers of 127,366 bytes, which ran, and of 128,366 and 130,666, where the executor and the driver failed."""
    recorded = Recorded(name)
    texts = {item["name"]: json.loads(item["value"]) for item in recorded.workflow["spec"]["arguments"]["parameters"]}
    (container,) = (value for key, value in texts.items() if key.startswith("implementations-"))
    (component,) = (value for key, value in texts.items() if re.match("components-[0-9a-f]{64}", key))
    container["args"][-1] += "A" * more if more > 0 else ""
    container["args"] = [word[:more] if more < 0 and len(word) > 1000 else word for word in container["args"]]
    pipeline = {
        "pipelineInfo": {"name": name.removeprefix("216-rbac-")}, "root": texts["components-root"],
        "components": {"comp-big": component}, "deploymentSpec": {"executors": {"exec-big": {"container": container}}},
    }  # fmt: skip
    size = sizes.size_of(pipeline, {}, wraps=False, iterations={})
    assert [pod.is_driver for pod in reversed(size.pods) if pod.template >= TEMPLATE] == fails
    refused = ["big-driver" if is_driver else "executor" for is_driver in fails][:1]
    messages = {node["displayName"]: node.get("message", "") for node in recorded.nodes.values()}
    if not more:
        assert [name for name, text in messages.items() if "configmaps is forbidden" in text] == refused


# Refusals.


def noisy(noise: int, **options: str) -> Bundle:
    """A step beside so many bytes that no compression makes fewer."""
    files = {"noisy.py": b"def one():\n    return 1\n", "noise.bin": random.Random(1).randbytes(noise)}
    one = Step(name="one", function="noisy:one", outputs=("one",))
    return build(Plan(name="noisy", steps=(one,), options={"kubeflow": options}), files=files)


def compiled(noise: int, **given: Any) -> Compiled:
    return compile_pipeline(noisy(noise), **given)


def test_the_code_goes_to_the_store_only_where_it_would_not_fit() -> None:
    store = {"artifacts": "s3://bucket/it/"}
    assert compiled(0, **store).bundle_url is None
    for release in ((), (2, 17)):
        large = compiled(50_000, release=release, **store)
        assert large.bundle_url == f"s3://bucket/it/bundles/{large.bundle.filename}"
        spec.check_size(large, release)
    beside = compiled(50_000, release=(2, 16), **store)
    assert beside.bundle_url is None
    assert len(spec.code_containers(beside.spec)) == 2
    spec.check_size(beside, (2, 16))
    assert compiled(300_000, release=(2, 16), **store).bundle_url
    assert compiled(300_000, artifacts="file:///mounted").bundle_url
    assert compiled(300_000, artifacts="/a/folder").bundle_url is None


@pytest.mark.parametrize(
    ("release", "said"), [((2, 17), "computed for KFP 2.17)"), ((), "KFP 2.17, since the release is unknown")]
)
def test_code_that_does_not_fit_is_refused_with_its_files_and_a_store(release: tuple[int, ...], said: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as refused:
        spec.check_size(compiled(50_000), release)
    message = str(refused.value)
    for part in (
        said,
        "nothing was sent",
        "'noise.bin' (50.0 kB) and FlowyML's own part (",
        "out of include=",
        "artifacts='s3://…'",
        "needs fsspec",
        "'runtime': 'image'",
    ):
        assert part in message
    assert "Join small steps" not in message


@pytest.mark.parametrize(("noise", "helps"), [(50_000, True), (120_000, False), (3_000_000, False)])
def test_a_refusal_names_remedies_that_suffice_and_parts_that_are_no_larger_than_the_whole(
    noise: int, helps: bool
) -> None:
    with pytest.raises(UnsupportedFeatureError) as refused:
        spec.check_size(compiled(noise))
    message = str(refused.value)
    assert ("'runtime': 'image'" in message) is helps
    assert compile_pipeline(noisy(noise, runtime="image", image="x:1")).size().fits is helps
    assert "values of other steps" not in message, "those of the task that joins the code are FlowyML's own"
    whole, code = (float(re.findall(before + r" ([\d.]+) MB", message)[0]) for before in ("workflow of", "takes"))
    assert code < whole


def test_what_is_large_is_said_first_and_what_to_do_about_it() -> None:
    with pytest.raises(UnsupportedFeatureError) as refused:
        spec.check_size(compiled(3_000_000))
    _, files, data, store, workflow = str(refused.value).splitlines()
    assert files.startswith("Large are the files that travel with it: 'noise.bin' (3000.0 kB) and FlowyML's own part (")
    assert data == "- Take data out of include=, and have steps read it from storage."
    assert store.startswith("- Keep the code in a store")
    assert workflow.startswith("A run would make a workflow of")


def test_small_steps_are_counted_rather_than_listed() -> None:
    steps = tuple(Step(name=f"step {n}", function="m:f") for n in range(400))
    with pytest.raises(UnsupportedFeatureError, match=r"400 tasks of about 0\.\d kB\. Join small") as refused:
        spec.check_size(compile_pipeline(build(Plan(name="many", steps=steps)), store="s3://code"))
    assert "'step 1" not in str(refused.value)


def test_the_loop_of_the_docs_fits_with_its_code_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On any release, and so on a stock 2.17, in which workflows are the largest."""
    text = (Path(__file__).parents[3] / "docs" / "control-flow.md").read_text()
    (source,) = re.findall(r'```python title="sweep.py"\n(.*?)```', text, re.DOTALL)
    (tmp_path / "sweep.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    made = compile_pipeline(importlib.import_module("sweep").sweep.bundle())
    spec.check_size(made)
    assert made.bundle_url is None
    assert len(spec.code_containers(made.spec)) == 1


def joining(steps: int) -> Compiled:
    heavy = tuple(Step(name=f"step number {n}", function="m:f", outputs=("v",)) for n in range(steps))
    inputs = tuple(Input(f"input{n}", FromStep(f"step number {n}", "v")) for n in range(min(steps, 140)))
    plan = Plan(name="enormous", steps=(*heavy, Step(name="large", function="m:f", inputs=inputs)))
    return compile_pipeline(build(plan), store="s3://code")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (130, "The pod of task 'large' .* takes 130 values of other steps and returns 0, .*combine values in intermed"),
        (600, "driver of the pipeline .*The graph is in it.\nA run .*\nThe graph, .* the largest tasks are 'large' .*"),
    ],
)
def test_a_graph_or_a_step_that_does_not_fit_is_refused_by_its_name(steps: int, said: str) -> None:
    made = joining(steps)
    with pytest.raises(UnsupportedFeatureError, match=said) as refused:
        spec.check_size(made)
    assert "Keep the code in a store" not in str(refused.value)
    assert str(refused.value).count("Join small steps") == (steps == 600)
    spec.check_size(joining(90))


def shown(made: Compiled) -> set[Any]:
    """The bytes of metadata that the pods of steps may give KFP; None: as many as they like."""
    containers = [executor["container"] for executor in made.spec["deploymentSpec"]["executors"].values()]
    return {json.loads(each["args"][2]).get("facts") for each in containers if each["args"][0] == "step"}


def test_what_is_shown_of_outputs_gets_the_room_that_is_left() -> None:
    assert shown(joining(10)) == {None}
    (in_pods,) = shown(joining(70))
    assert 500 < in_pods < 1000
    first = Step(name="first", function="m:f", outputs=tuple(f"v{n}" for n in range(8)))
    inputs = tuple(Input(f"input{n}", FromStep("first", f"v{n}")) for n in range(8))
    steps = [Step(name=f"step {n}", function="m:f", inputs=inputs[n % 2 :]) for n in range(90)]
    made = compile_pipeline(build(Plan(name="wide", steps=(first, *steps))), store="s3://code")
    (in_nodes,) = shown(made)
    rest = WORKFLOW / (1 + ERROR) - made.size().stored
    assert rest - 15_000 < 6 * 90 * 7.5 * in_nodes < rest


@pytest.mark.kubeflow
def test_steps_with_much_to_show_can_be_taken_by_one(kfp_api: Any) -> None:
    """KFP describes them in its pod: a quote takes eight bytes there, in JSON in JSON in JSON."""

    def made(number: int) -> Any:
        @step(name=f"make {number}", outputs=[f"v{number}"])
        def make() -> dict[str, int]:
            report(**{f"fact {n}": '"' * 400 for n in range(3)})
            return {"value": number}

        return make

    names = [f"v{number}" for number in range(30)]
    scope: dict[str, Any] = {}
    exec(f"def total({', '.join(names)}):\n    return sum(v['value'] for v in [{', '.join(names)}])", scope)
    steps = [*map(made, range(30)), step(outputs=["total"])(scope["total"])]
    wide = Pipeline("much to show")
    for each in steps:
        wide.add_step(each)
    handle = kfp_api.orchestrator().run_pipeline(wide, run_id("much")).wait_for_completion(RUN)
    assert handle.outputs["total"] == sum(range(30)), handle.error


def test_parameters_of_a_run_count() -> None:
    given = Parameter(name="given", schema={"type": "string"}, default="")
    one = Step(name="one", function="m:f", inputs=(Input("given", FromParameter("given")),))
    made = compile_pipeline(build(Plan(name="given", steps=(one,), parameters=(given,))), store="s3://code")
    spec.check_size(made)
    with pytest.raises(UnsupportedFeatureError, match=r"(?s)configmaps is forbidden.*It fits without the parameters"):
        spec.check_size(made, (), {"given": "x" * 131_000})


def test_the_command_refuses_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "noise.bin").write_bytes(random.Random(1).randbytes(120_000))
    (tmp_path / "noisy.py").write_text(
        "from pathlib import Path\nfrom flowyml import Pipeline, step\n\n\n"
        "def made(noise):\n    @step\n    def one():\n        return len(noise)\n\n"
        "    return Pipeline('noisy').add_step(one)\n\n\n"
        "pipeline = made(Path(__file__).with_name('noise.bin').read_bytes())\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "noisy.py", "--to", "kubeflow"]) == 2
    assert "longer than maximum allowed size" in capsys.readouterr().err
    main(["backends", "--for", "noisy.py"])
    assert "longer than maximum allowed size" in " ".join(capsys.readouterr().out.split())
    main(["backends", "--for", "noisy.py", "--json"])
    (kubeflow,) = [item for item in json.loads(capsys.readouterr().out)["backends"] if item["name"] == "kubeflow"]
    (lack,) = kubeflow["lacks"]
    assert "nothing was sent. Large are the files that" in lack["reason"], "an error of several lines is one text"
    assert "\n" not in lack["reason"]


def test_compiling_says_where_the_code_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """It sends nothing: the bucket does not exist."""
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__STORED__ENGINE", "kubeflow")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__STORED__ARTIFACTS", "s3://bucket/it")
    monkeypatch.chdir(tmp_path)
    bundle = noisy(50_000).write(tmp_path).name
    compiling = ["compile", bundle, "--to", "stored"]
    assert main([*compiling, "-o", "files/noisy.yaml"]) == 0
    done = capsys.readouterr()
    (code,) = Path("files").glob("*.pyz")
    url = f"s3://bucket/it/bundles/{code.name}"
    assert done.out.split() == ["files/noisy.yaml", str(code)]
    assert f"copy {code} to {url} before the engine gets files/noisy.yaml" in done.err
    assert main([*compiling, "-o", "files/noisy.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copy"] == {str(code): url}
    assert main(compiling) == 0
    assert f"looks for {code.name} at {url}: write it too, with -o" in capsys.readouterr().err
    assert main(["compile", bundle, "--to", "kubeflow", "-o", "x/"]) == 2


@pytest.mark.kubeflow
def test_what_does_not_fit_is_not_sent(kfp_api: Any) -> None:
    orchestrator, bundle = kfp_api.orchestrator(artifacts=None), noisy(300_000)
    before = len(kfp_api.state.pipelines)
    for send in (orchestrator.deploy, orchestrator.check_deployable):
        with pytest.raises(UnsupportedFeatureError, match="nothing was sent"):
            send(bundle)
    with pytest.raises(UnsupportedFeatureError, match=r"computed for KFP 2\.17\)"):
        orchestrator.submit(bundle, "noisy", {})
    with pytest.raises(UnsupportedFeatureError, match="nothing was sent"):
        orchestrator.create_schedule(bundle, Schedule(cron="0 6 * * *"))
    assert len(kfp_api.state.pipelines) == before


@pytest.mark.slow
def test_a_container_full_of_code_can_start() -> None:
    """Argo writes its text into a larger one, with each quote escaped."""
    (empty,) = (len(json.dumps(container)) for container in spec.code_containers(compiled(0).spec))
    for size in (118_000, 122_000, 126_000, 130_000):
        made = compiled((size - empty) // 4 * 3)
        assert made.size((2, 16)).can_start, size


@pytest.mark.slow
def test_loops_have_fewer_pods_where_the_workflow_has_no_room_for_50() -> None:
    """Whatever number of items they have when they run."""

    @step
    def numbers(file: str) -> list[int]:
        return []

    @step
    def square(number: int) -> int:
        return number**2

    @step
    def half(number: int) -> float:
        return number / 2

    def loops(count: int, pad: int = 0) -> Bundle:
        @pipeline(kubeflow={"env": {"PAD": "x" * pad}})
        def squares(file: str = "") -> None:
            items = numbers(file)
            for _ in range(count):
                half.map(number=square.map(number=items))

        return squares.bundle()

    limits = []
    for count in (1, 4):
        made = compile_pipeline(loops(count), store="s3://code")
        spec.check_size(made)
        limits.append(made.pods)
        tasks = made.spec["root"]["dag"]["tasks"]
        preparing = [f"exec-{name}" for name in tasks if name.endswith("--items")]
        assert len(preparing) == 2 * count
        executors = made.spec["deploymentSpec"]["executors"]
        told = [json.loads(executors[name]["container"]["args"][2]).get("pods") for name in preparing]
        assert told == [made.pods if made.pods < PODS else None] * len(told)
    assert limits[0] == PODS
    assert 1 < limits[1] < compile_pipeline(loops(4), store="s3://code", release=(2, 16)).pods
    near = compile_pipeline(loops(4, 96), store="s3://code")  # one pod more would fit but for what the pods are told
    spec.check_size(near, parameters={"file": random.Random(1).randbytes(700).hex()})
