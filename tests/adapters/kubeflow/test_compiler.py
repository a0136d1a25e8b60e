"""Plan to KFP's intermediate representation."""

from __future__ import annotations

import base64
import bz2
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import Pipeline, step
from flowyml.core.errors import DefinitionError, UnknownOptionError, UnsupportedFeatureError
from flowyml.core.resources import ResourceRequirements
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.plan.bundle import build
from flowyml.plan.model import Constant, FromStep, Input, PipelineOutput, Plan, Step
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator, names, spec
from flowyml_kubeflow.compiler import Compiled, compile_pipeline
from flowyml_kubeflow.inline import with_launcher, without_prose
from flowyml_kubeflow.options import FORMS
from flowyml_kubeflow.tasks import Tasks
from tests.engines import kubeflow_ir
from tests.refusals import lacks_of, xfail_if_refused

GOLDEN = Path(__file__).parents[2] / "golden" / "kubeflow"
KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@step(outputs=["rows"])
def load() -> list[int]:
    return [1, 2, 3]


@step(outputs=["total"])
def add(rows: list[int]) -> int:
    return sum(rows)


def compiled(*, kubeflow: dict[str, Any] | None = None, form: str | None = None, **asked: Any) -> Compiled:
    steps = [step(outputs=["total"], name="add", **asked)(lambda rows: sum(rows)), load]
    pipeline = Pipeline("summing", **({"kubeflow": kubeflow} if kubeflow else {}))
    for item in reversed(steps):
        pipeline.add_step(item)
    made = compile_pipeline(pipeline.bundle(), form=form)
    assert spec.validate(made)
    return made


def container(made: Compiled, task: str = "add") -> dict[str, Any]:
    found: dict[str, Any] = made.spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    return found


def kubernetes(made: Compiled, task: str = "add") -> dict[str, Any]:
    found: dict[str, Any] = made.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    return found


@pytest.mark.kubeflow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "pipeline", [pipelines.greeting(), pipelines.hooked("/x"), pipelines.hostile()], ids=lambda p: "p"
)
def test_kfp_itself_accepts_the_file(pipeline: Pipeline, form: str, tmp_path: Path) -> None:
    from kfp import components

    made = compile_pipeline(pipeline.bundle(), form=form)
    assert spec.validate(made)
    path = tmp_path / "pipeline.yaml"
    path.write_text(spec.text(made))
    loaded = components.load_component_from_file(str(path))
    assert loaded.name == names.pipeline(pipeline.name)
    assert [*yaml.safe_load_all(path.read_text())] == made.documents


@pytest.mark.parametrize("name", ["2nd", "日本", "matches", "contains", "let", "not", "true", "nil", "9" * 80])
def test_argo_takes_no_task_for_a_number_or_a_word_of_its_own(name: str) -> None:
    """Source: Argo, validate.go, ``validateDAG``; expr-lang, lexer/state.go."""
    made = names.task(name)
    assert made[0].isalpha()
    assert made not in ("matches", "contains", "let", "not", "true", "nil")
    assert KUBERNETES_NAME.fullmatch(made)
    assert len(made) <= 60
    assert made != names.task(made), "a step that is called like this has another task"


def test_names_are_within_the_rules_of_kubernetes() -> None:
    made = compile_pipeline(pipelines.hostile().bundle())
    tasks = made.spec["root"]["dag"]["tasks"]
    for name in [made.spec["pipelineInfo"]["name"], *tasks, *made.spec["components"]]:
        assert KUBERNETES_NAME.fullmatch(name), name
    assert not {names.task(name) for name in ("executor", "root", "load-driver")} & {"executor", "root", "load-driver"}
    shown = {task["taskInfo"]["name"] for task in tasks.values()}
    assert shown > {'it\'s "1" {x} \\', "class/../.. on python3.12"}


def test_parameters_are_typed_for_kfps_run_form() -> None:
    from flowyml import pipeline as as_pipeline

    @as_pipeline(name="typed")
    def typed(rows: int = 3, share: float = 0.5, name: str = "x", fast: bool = True, many: list[int] = [1]) -> Any:
        return add([1])

    @as_pipeline(name="required")
    def required(named: dict[str, int], either: int | None = None) -> Any:
        return add([1])

    found = compile_pipeline(typed.bundle()).spec["root"]["inputDefinitions"]["parameters"]
    assert {name: (item["parameterType"], item["defaultValue"]) for name, item in found.items()} == {
        "rows": ("NUMBER_INTEGER", 3),
        "share": ("NUMBER_DOUBLE", 0.5),
        "name": ("STRING", "x"),
        "fast": ("BOOLEAN", True),
        "many": ("LIST", [1]),
    }
    found = compile_pipeline(required.bundle()).spec["root"]["inputDefinitions"]["parameters"]
    assert found["named"] == {"parameterType": "STRUCT"}
    assert (found["either"]["parameterType"], found["either"]["defaultValue"]) == ("STRING", "null")


@pytest.mark.parametrize("form", FORMS)
def test_the_code_stands_in_the_file_once_in_pieces_that_linux_takes(form: str) -> None:
    made = compiled(form=form)
    text = spec.text(made)
    words = container(made, "flowyml--bundle")["args"]
    pieces = words[words.index(made.bundle.digest) + 1 :]
    assert all(len(word) < 131_072 for item in made.spec["deploymentSpec"]["executors"].values()
               for part in ("command", "args") for word in item["container"][part])  # fmt: skip
    assert text.count(pieces[0][:500]) == 1
    assert bz2.decompress(base64.b64decode("".join(pieces))) == made.bundle.data


def test_a_large_bundle_comes_from_a_store_or_in_several_pieces(tmp_path: Path) -> None:
    import random

    bundle = build(pipelines.greeting().compile(), files={"noise.bin": random.Random(1).randbytes(300_000)})
    made = compile_pipeline(bundle)
    words = container(made, "flowyml--bundle")["args"]
    assert len([word for word in words if len(word) > 1000]) > 3
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


def test_containers_of_different_components_differ() -> None:
    """KFP's backend stores the description of a component under the hash of its container."""
    containers = [json.dumps(item) for item in compiled().spec["deploymentSpec"]["executors"].values()]
    assert len(set(containers)) == len(containers) == 3


def test_steps_with_other_retries_have_pods_of_their_own_time() -> None:
    again = OrchestratorRetryPolicy(max_attempts=5, initial_delay_seconds=1, retryable_errors=["ConnectionError"])
    steps = [Step(name=name, function="m:f", timeout_seconds=3600, retry=retry) for name, retry in
             (("plain", None), ("retried", again), ("by kfp", OrchestratorRetryPolicy()))]  # fmt: skip
    made = compile_pipeline(build(Plan(name="patient", steps=tuple(steps))))
    pods = made.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name: pod["activeDeadlineSeconds"] for name, pod in pods.items()} == {
        "exec-plain": "5401", "exec-retried": "19816",
    }  # fmt: skip


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


def test_steps_that_are_alike_share_a_component() -> None:
    twins = [step(name=f"twin {n}", outputs=[f"v{n}"])(lambda: 1) for n in range(2)]
    same = Plan(name="same", steps=tuple(Step(name=f"s{n}", function="m:f", outputs=("v",)) for n in range(5)))
    assert len(compile_pipeline(build(same)).spec["components"]) == 2
    pipeline = Pipeline("twins")
    for item in twins:
        pipeline.add_step(item)
    assert len(compile_pipeline(pipeline.bundle()).spec["components"]) == 3


def test_native_settings() -> None:
    made = compiled(
        retry=OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=10, max_delay_seconds=60),
        timeout=30,
        resources=ResourceRequirements(cpu="500m", memory="2Gi", gpu=2, gpu_type="NVIDIA-A100"),
        kubeflow={
            "image": "registry/own:1",
            "env": {"MODE": "fast"},
            "cache": True,
            "node_selector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 5}],
            "secrets": {"PASSWORD": "database/password"},
            "pvcs": {"/data": "shared-data"},
            "pull_policy": "Always",
            "pull_secrets": ["registry"],
            "labels": {"team": "a"},
        },
    )
    assert made.spec["root"]["dag"]["tasks"]["add"]["retryPolicy"] == {
        "maxRetryCount": 3, "backoffDuration": "10s", "backoffFactor": 2.0, "backoffMaxDuration": "2147483647s",
    }  # fmt: skip
    assert made.spec["root"]["dag"]["tasks"]["add"]["cachingOptions"] == {"enableCache": True}
    assert container(made)["image"] == "registry/own:1"
    assert container(made)["env"] == [{"name": "MODE", "value": "fast"}]
    resources = container(made)["resources"]
    assert (resources["resourceCpuLimit"], resources["resourceMemoryRequest"]) == ("500m", "2Gi")
    assert (resources["cpuLimit"], resources["memoryLimit"]) == (0.5, 2.147483648)
    assert resources["accelerator"]["resourceCount"] == "2"
    asked = kubernetes(made)
    assert asked["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "NVIDIA-A100", "disk": "ssd"}
    assert asked["tolerations"][0]["tolerationSeconds"] == "5"
    assert asked["secretAsEnv"][0]["keyToEnv"] == [{"envVar": "PASSWORD", "secretKey": "password"}]
    assert asked["pvcMount"][0]["mountPath"] == "/data"
    assert asked["imagePullPolicy"] == "Always"
    assert asked["activeDeadlineSeconds"] == "1831"
    assert asked["podMetadata"] == {"labels": {"team": "a"}}


@pytest.mark.kubeflow
def test_the_platform_part_is_what_kfp_kubernetes_writes(tmp_path: Path) -> None:
    """The official library, asked for the same, writes the same: both are read by its own protobuf and compared."""
    from google.protobuf.json_format import ParseDict
    from kfp import compiler, dsl
    from kfp import kubernetes as official

    @dsl.container_component
    def add():  # type: ignore[no-untyped-def]  # kfp reads annotations, and not those that are text
        return dsl.ContainerSpec(image="python:3.12-slim", command=["true"])

    @dsl.pipeline(name="summing")
    def summing():  # type: ignore[no-untyped-def]  # as above
        task = add()
        official.use_secret_as_env(task, secret_name="s", secret_key_to_env={"k": "A"})
        official.mount_pvc(task, pvc_name="c", mount_path="/d")
        official.add_node_selector(task, label_key="x", label_value="y")
        official.add_toleration(task, key="gpu", operator="Exists", effect="NoExecute", toleration_seconds=5)
        official.set_image_pull_policy(task, "Always")
        official.set_image_pull_secrets(task, ["registry"])
        official.add_pod_label(task, "team", "a")
        official.add_pod_annotation(task, "about", "b")
        official.set_timeout(task, 1806)
        official.use_secret_as_volume(task, secret_name="certificates", mount_path="/certificates")
        official.use_config_map_as_env(task, config_map_name="m", config_map_key_to_env={"k": "B"})
        official.use_config_map_as_volume(task, config_map_name="settings", mount_path="/settings")
        official.empty_dir_mount(task, volume_name="flowyml-empty-1", mount_path="/tmp")
        official.empty_dir_mount(
            task, volume_name="flowyml-empty-2", mount_path="/dev/shm", medium="Memory", size_limit="1Gi"
        )
        official.add_node_affinity(task, match_expressions=[{"key": "zone", "operator": "In", "values": ["a", "b"]}])
        official.add_node_affinity(task, match_expressions=[{"key": "fast", "operator": "Exists"}], weight=10)
        official.set_security_context(task, run_as_user=12345, run_as_group=0, run_as_non_root=True)

    compiler.Compiler().compile(summing, str(tmp_path / "official.yaml"))
    (_, platform) = yaml.safe_load_all((tmp_path / "official.yaml").read_text())
    theirs = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-add"]
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 5}
    asked: dict[str, Any] = {
        "secrets": {"A": "s/k"}, "pvcs": {"/d": "c"}, "node_selector": {"x": "y"}, "tolerations": [toleration],
        "pull_policy": "Always", "pull_secrets": ["registry"], "labels": {"team": "a"}, "annotations": {"about": "b"},
        "secret_files": {"/certificates": "certificates"}, "config_maps": {"B": "m/k"},
        "config_map_files": {"/settings": "settings"}, "empty_dirs": {"/tmp": "", "/dev/shm": "memory:1Gi"},
        "node_affinity": [
            {"match_expressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
            {"match_expressions": [{"key": "fast", "operator": "Exists"}], "weight": 10},
        ],
        "security_context": {"run_as_user": 12345, "run_as_group": 0, "run_as_non_root": True},
    }  # fmt: skip
    made = compiled(kubeflow=asked, timeout=5)
    assert kubeflow_ir.faults(made.documents) == []
    ours = kubernetes(made)
    read = [
        ParseDict(one, official.kubernetes_executor_config_pb2.KubernetesExecutorConfig()) for one in (ours, theirs)
    ]
    assert read[0] == read[1]


def test_delays_are_durations_of_protobuf() -> None:
    policy = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=1e-5)
    asked = compiled(retry=policy).spec["root"]["dag"]["tasks"]["add"]["retryPolicy"]
    assert asked["backoffDuration"] == "0.00001s"


@pytest.mark.parametrize("kept", [{"backoff_multiplier": 1.5}, {"max_delay_seconds": 3}], ids=["factor", "cap"])
def test_delays_that_kfp_could_not_keep_are_kept_in_the_pod(kept: dict[str, Any]) -> None:
    """Argo reads a factor as a whole number, and the longest delay as the time in which all retries have to begin.

    Source: Argo, operator.go, ``processNodeRetries``; KFP, argocompiler/container.go.
    """
    policy = OrchestratorRetryPolicy(max_attempts=4, initial_delay_seconds=2, **kept)
    made = compiled(retry=policy, timeout=60)
    assert "retryPolicy" not in made.spec["root"]["dag"]["tasks"]["add"]
    seconds = int(4 * 60 + sum(policy.delays))
    assert kubernetes(made)["activeDeadlineSeconds"] == str(seconds + 1801)


def test_retries_after_certain_errors_happen_in_the_pod() -> None:
    policy = OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=40, retryable_errors=["Connection"])
    made = compiled(retry=policy, timeout=60)
    assert "retryPolicy" not in made.spec["root"]["dag"]["tasks"]["add"]
    assert kubernetes(made)["activeDeadlineSeconds"] == str(3 * 60 + 40 + 80 + 1801), "the pod is there for all of them"


@pytest.mark.parametrize("form", FORMS)
def test_hooks_stand_in_an_exit_handler(form: str) -> None:
    """KFP runs it after each task that it depends on, and adds those whose outputs it takes: so it takes none."""
    made = compile_pipeline(pipelines.hooked("/x").bundle(), form=form).spec
    root = made["root"]["dag"]["tasks"]
    assert {name: task.get("dependentTasks", []) for name, task in root.items()} == {
        "flowyml--bundle": [],
        "flowyml--start": ["flowyml--bundle"],
        "flowyml--run": ["flowyml--bundle", "flowyml--start"],
    }
    around = made["components"]["comp-flowyml--run"]["dag"]["tasks"]
    assert {name: task.get("dependentTasks", []) for name, task in around.items()} == {
        "flowyml--steps": [],
        "flowyml--end": ["flowyml--steps"],
    }
    end = around["flowyml--end"]
    assert end["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert end["inputs"]["parameters"].pop("status__") == {"taskFinalStatus": {"producerTask": "flowyml--steps"}}
    assert {kind for side in end["inputs"].values() for item in side.values() for kind in item} == {
        "componentInputParameter", "componentInputArtifact",
    }  # fmt: skip


@pytest.mark.parametrize("cached", [False, True])
def test_a_dag_that_a_hook_waits_for_ends_with_a_task_that_runs_in_a_pod(cached: bool) -> None:
    """What comes from the cache does not end the DAG around it. Source: KFP, launcher_v2.go."""
    steps = tuple(Step(name=name, function="m:f", options={"kubeflow": {"cache": cached}}) for name in ("a", "b"))
    made = compile_pipeline(build(Plan(name="kept", steps=steps, hooks=("h",))))
    assert spec.validate(made)
    tasks = made.spec["components"]["comp-flowyml--steps"]["dag"]["tasks"]
    assert tasks.get("flowyml--last", {}).get("dependentTasks") == (["a", "b"] if cached else None)
    assert "cachingOptions" not in tasks.get("flowyml--last", {})


@pytest.mark.parametrize(("display", "workflow", "expected"), [("run 1", "wf-x1", "run 1"), ("", "wf-x1", "wf-x1")])
def test_hooks_get_the_name_of_the_workflow_where_a_run_has_none(
    display: str, workflow: str, expected: str, tmp_path: Path
) -> None:
    """KFP compiles the runs of a recurring run without a display name (template/v2_template.go)."""
    from flowyml_kubeflow import launcher

    made = compile_pipeline(pipelines.hooked(str(tmp_path)).bundle())
    bundle = made.bundle.write(tmp_path)
    given = made.spec["root"]["dag"]["tasks"]["flowyml--start"]["inputs"]["parameters"]
    placeholders = {"{{$.pipeline_job_name}}": display, "{{$.pipeline_job_resource_name}}": workflow}
    values = {port: placeholders[given[port]["runtimeValue"]["constant"]] for port in ("run__", "job__")}
    outputs = {"outputFile": str(tmp_path / "o.json"), "parameters": {"started__": {"outputFile": str(tmp_path / "s")}}}
    assert (
        launcher.main([str(bundle), "start", json.dumps({"inputs": {"parameterValues": values}, "outputs": outputs})])
        == 0
    )
    assert expected in (tmp_path / "journal").read_text()


def test_a_container_keeps_the_modules_compiled_that_its_step_needs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images for containers often set the variable."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    made = compiled(form="container")
    output = tmp_path / "output.json"
    given = json.dumps({"outputs": {"outputFile": str(output)}})
    _, *command = container(made)["command"]
    subprocess.run([sys.executable, *command, made.bundle.write(tmp_path), "last", given], check=True)
    assert json.loads(output.read_text()) == {"parameterValues": {}, "artifacts": {}}
    assert {path.name.split(".")[0] for path in (tmp_path / "cache").rglob("*.pyc")} >= {"launcher", "spawn"}


@pytest.mark.parametrize(
    ("state", "status"),
    [("SUCCEEDED", "COMPLETED"), ("COMPLETE", "COMPLETED"), ("CACHED", "COMPLETED"), ("CANCELED", "CANCELLED"),
     ("FAILED", "FAILED"), ("UNKNOWN", "FAILED")],
)  # fmt: skip
def test_the_last_hook_gets_the_status_in_whatever_words_kfp_has(state: str, status: str, tmp_path: Path) -> None:
    """Of the API, and of its metadata store, which is where the driver takes it from."""
    from flowyml_kubeflow import launcher

    bundle = compile_pipeline(pipelines.hooked(str(tmp_path)).bundle()).bundle.write(tmp_path)
    given = {"run__": "run 1", "started__": "1.0", "status__": {"state": state}}
    output = {"outputFile": str(tmp_path / "output.json")}
    text = json.dumps({"inputs": {"parameterValues": given}, "outputs": output})
    assert launcher.main([str(bundle), "end", text]) == 0
    assert (tmp_path / "journal").read_text() == f"pipeline_end run 1 {status} True\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imge": "x"}, "pipeline 'summing': kubeflow has no option 'imge'"),
        ({"image": 3}, "image=3 is not text"),
        ({"packages": "pandas"}, "packages='pandas' is not a list of texts"),
        ({"secrets": {"A": "no-key"}}, "write it as 'name-of-the-secret/key'"),
        ({"tolerations": [{"kee": "x"}]}, "a toleration has no 'kee'"),
        ({"form": "wasm"}, "form='wasm' must be 'container' or 'python'"),
        ({"max_concurrency": 11}, "max_concurrency=11 is not a number"),
        ({"bundle_store": 1}, "bundle_store=1 is not a URL"),
        (
            {"cpu_request": "2 cores"},
            "cpu='2 cores' is not a Kubernetes quantity. Write it like 2 or 500m.",
        ),
        ({"cpu_limit": "nan"}, "cpu='nan' is not a Kubernetes quantity"),
        ({"memory_limit": "1.5.2Gi"}, "memory='1.5.2Gi' is not a Kubernetes quantity"),
        ({"empty_dirs": {"/x": "5ki"}}, "'5ki' must be a size such as"),
        ({"tolerations": [{"toleration_seconds": "x"}]}, "toleration_seconds='x' must be a whole number of seconds"),
        ({"pull_policy": "Sometimes"}, "pull_policy='Sometimes' is none of Always, IfNotPresent, Never"),
        ({"pvcs": {"data": "claim"}}, "mounted at an absolute path without a colon, not at 'data'"),
        ({"env": {"A B": "x"}}, "Kubernetes takes no environment variable 'A B'"),
        ({"secrets": {"=": "a/b"}}, "Kubernetes takes no environment variable '='"),
        ({"config_maps": {"A": "no-key"}}, "write it as 'name-of-the-config-map/key'"),
        ({"secret_files": {"here": "s"}}, "mounted at an absolute path without a colon, not at 'here'"),
        ({"empty_dirs": {"/tmp": "much"}}, "empty_dirs '/tmp': 'much' must be a size"),
        ({"node_affinity": [{"weight": 5}]}, "neither match_expressions nor match_fields"),
        ({"node_affinity": [{"weight": 0}]}, "weight=0 must be a number from 1 to 100"),
        ({"node_affinity": [{"match": []}]}, "a node_affinity has no 'match'"),
        ({"node_affinity": [{"match_fields": [{"key": "a", "operator": "Is"}]}]}, "an operator that is none of In, "),
        (
            {"pod_affinity": []},
            "kubeflow has no option 'pod_affinity': KFP does not read affinity between pods. Known:",
        ),
        ({"security_context": {"privileged": True}}, "a security_context has no 'privileged'"),
        ({"security_context": {"run_as_user": -1}}, "run_as_user=-1 must be the number of a user or group"),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, "of operator 'Exists' takes no value"),
        ({"tolerations": [{"toleration_seconds": 5}]}, "belong to effect='NoExecute'"),
        ({"pvcs": {"/a": "x"}, "empty_dirs": {"/a": ""}}, "two volumes are mounted at '/a'"),
        ({"pvcs": {"/a": "x"}, "secret_files": {"/b": "x"}}, "'x' is mounted twice"),
        ({"env": {"A": "x"}, "secrets": {"A": "s/k"}}, "the environment variable 'A' is given by two of env, secrets"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=re.escape(message)):
        compiled(kubeflow=options)


def test_an_option_of_the_pipeline_is_none_of_a_step() -> None:
    with pytest.raises(UnknownOptionError, match=r"step 'add': kubeflow has no option 'form' .an option of the whole"):
        compile_pipeline(Pipeline("x").add_step(load).add_step(
            step(name="add", kubeflow={"form": "python"})(lambda rows: 1)).bundle())  # fmt: skip


def test_packages_belong_to_the_python_form() -> None:
    with pytest.raises(DefinitionError, match="nothing is installed in the container form"):
        compiled(kubeflow={"packages": ["pandas"]})
    with pytest.raises(DefinitionError, match=r"'load'.*test_compiler\.py, line [0-9]+\)$"):
        KubeflowOrchestrator().compile_pipeline(Pipeline("x", kubeflow={"packages": ["pandas"]}).add_step(load))
    made = compiled(kubeflow={"packages": ["pandas>=2", "x'; rm -rf /"], "form": "python"})
    assert "'pandas>=2' 'x'\"'\"'; rm -rf /'" in container(made)["command"][2]


def joining(count: int) -> Plan:
    sources = tuple(Step(name=f"s{n}", function="m:f", outputs=(f"v{n}",)) for n in range(count))
    inputs = tuple(Input(f"v{n}", FromStep(f"s{n}", f"v{n}")) for n in range(count))
    return Plan(name="wide", steps=(*sources, Step(name="join", function="m:f", inputs=inputs, outputs=("all",))))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (joining(180), "step 'join' takes 180 values of other steps and gives 1;"),
        (Plan(name="wide", steps=(Step(name="many", function="m:f", outputs=tuple(f"v{n}" for n in range(160))),)),
         "step 'many' takes 0 values of other steps and gives 160;"),
    ],
)  # fmt: skip
def test_a_step_with_too_many_values_is_refused(plan: Plan, message: str) -> None:
    """An artifact's description has 710 to 780 bytes with KFP's default MinIO, and an argument 128 KiB."""
    with pytest.raises(UnsupportedFeatureError, match=message):
        compile_pipeline(build(plan))
    compile_pipeline(build(joining(160)))


def test_the_smallest_pipelines_leave_room_for_code() -> None:
    """A driver of KFP before 2.17 gets the container as one argument, and Linux allows 131,071 bytes.

    The second carries cloudpickle too.
    """
    plain = compile_pipeline(build(Plan(name="plain", steps=(Step(name="one", function="m:f"),))))
    by_value = compile_pipeline(pipelines.greeting().bundle())
    for made, most in ((plain, 115_000), (by_value, 125_000)):
        assert len(json.dumps(container(made, "flowyml--bundle"))) < most


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


@settings(max_examples=40, deadline=None)
@given(plans())
def test_a_plan_read_back_from_its_file_is_the_same_graph(plan: Plan) -> None:
    made = compile_pipeline(build(plan), store="s3://code")
    assert spec.validate(made)
    (document, *platform) = yaml.load_all(spec.text(made), yaml.CSafeLoader)
    assert kubeflow_ir.faults([document, *platform], kfp=(2, 14)) == []
    tasks = Tasks(type("Run", (), {"run_details": None}), document)
    dag = document["components"]["comp-flowyml--steps"]["dag"] if plan.hooks else document["root"]["dag"]
    graph = {
        name: {tasks.steps[up] for up in dag["tasks"][task].get("dependentTasks", []) if up in tasks.steps}
        for task, name in tasks.steps.items()
    }
    assert graph == {item.name: set(item.upstream) for item in plan}
    data = set()
    for task, name in tasks.steps.items():
        for port, given_by in dag["tasks"][task]["inputs"]["artifacts"].items():
            if port != names.BUNDLE:
                source = given_by["taskOutputArtifact"]
                data.add((name, port, tasks.steps[source["producerTask"]], source["outputArtifactKey"]))
    assert data == {
        (item.name, names.port(each.name), each.source.step, names.artifact(each.source.output))
        for item in plan for each in item.inputs if isinstance(each.source, FromStep)
    }  # fmt: skip
    assert len(document["root"].get("outputDefinitions", {}).get("parameters", {})) == len(plan.outputs)


@given(st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_no_two_names_become_one(pair: list[str]) -> None:
    first, second = pair
    for make in (names.task, names.port, names.artifact):
        assert make(first) != make(second)
    assert names.port(first) not in (names.BUNDLE, names.STEP, names.artifact(second))


EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[3] / "examples").glob("*.py"))


@pytest.mark.kubeflow
@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_files(name: str, update_golden: bool) -> None:
    """The code of the steps is left out: it changes with FlowyML itself."""
    from kfp import components

    for pipeline in _pipelines_of(name):
        xfail_if_refused(pipeline.compile(), KubeflowOrchestrator)
        bundle = pipeline.bundle()
        text = _without_digests(compile_pipeline(bundle, store="s3://code"))
        assert text == _without_digests(compile_pipeline(pipeline.bundle(), store="s3://code"))
        path = GOLDEN / f"{names.pipeline(pipeline.name)}.yaml"
        if update_golden:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text()
        assert components.load_component_from_file(str(path)).name == names.pipeline(pipeline.name)


def test_every_golden_file_is_that_of_an_example() -> None:
    pipelines = [pipeline for name in EXAMPLES for pipeline in _pipelines_of(name)]
    made = {names.pipeline(p.name) for p in pipelines if not lacks_of(p.compile(), KubeflowOrchestrator)}
    assert made == {path.stem for path in GOLDEN.glob("*.yaml")}


def _without_digests(made: Compiled) -> str:
    assert spec.validate(made)
    text = spec.text(made)
    text = re.sub(r"-[0-9a-f]{8}\.pyz", "-DIGEST.pyz", text)
    return re.sub(r'"?[0-9a-f]{64}"?', "DIGEST", text)  # YAML quotes the ones that look like numbers


def _pipelines_of(example: str) -> list[Pipeline]:
    """All pipelines of a file in ``examples``."""
    from importlib.util import module_from_spec, spec_from_file_location

    path = Path(__file__).parents[3] / "examples" / f"{example}.py"
    found = spec_from_file_location(example, path)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[example] = module
    found.loader.exec_module(module)
    pipelines = [item for item in vars(module).values() if isinstance(item, Pipeline)]
    assert pipelines, f"{path} defines no pipeline"
    return pipelines


@pytest.mark.kubeflow
def test_the_status_map_is_total() -> None:
    from kfp_server_api import V2beta1RuntimeState

    from flowyml.core.errors import UnknownStateError
    from flowyml_kubeflow.status import BY_STATE, status_of

    assert set(BY_STATE) == set(V2beta1RuntimeState.allowable_values)
    with pytest.raises(UnknownStateError):
        status_of("NEW_STATE")


def _other_pythons() -> list[Path]:
    """Interpreters of other releases on this machine."""
    found = [
        *Path("~/.pyenv/versions").expanduser().glob("3.1[1-9]*/bin/python3"),
        *Path("/usr/bin").glob("python3.1?"),
    ]
    return [path for path in found if path.exists()]


def test_the_same_bytes_on_each_python(tmp_path: Path) -> None:
    """Bundles are the same file anywhere, and so is what they compile to, whatever the hash seed."""
    plan = Plan(name="same", steps=tuple(Step(name=f"step {n}", function="m:f", outputs=("v",)) for n in range(20)))
    pipelines = [pipeline for name in EXAMPLES for pipeline in _pipelines_of(name)]
    examples = [p.bundle() for p in pipelines if not lacks_of(p.compile(), KubeflowOrchestrator)]
    # A pickled function needs the Python that wrote it, whose image the file then names.
    plain = [bundle for bundle in examples if not any(path.startswith("objects/") for path in bundle.files)]
    assert plain
    paths = [str(bundle.write(tmp_path)) for bundle in (build(plan), *plain)]
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
    with pytest.raises(UnsupportedFeatureError, match=r"asks for timeout=60.*KFP has none for a pipeline"):
        KubeflowOrchestrator().compile_pipeline(late)


def test_the_form_of_a_target_counts() -> None:
    one = pipelines.greeting()
    (container,) = KubeflowOrchestrator().compile_files(one.bundle()).values()
    (python,) = KubeflowOrchestrator(form="python").compile_files(one.bundle()).values()
    assert python == spec.text(compile_pipeline(one.bundle(), form="python")).encode()
    assert python != container
