"""Runs over KFP's API, through the official client: a fake of it, or the server at FLOWYML_TEST_KFP_URL."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowyml
from flowyml import Pipeline, context, pipeline, step
from flowyml.cli import main
from flowyml.core.errors import ConfigurationError, ParameterError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.logs import get_logger
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.submission_result import SubmissionResult
from flowyml.plan.bundle import build
from flowyml.plan.model import FromStep, Input, PipelineOutput, Plan, Step
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowOrchestrator, containers
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.options import StepOptions
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.engines.s3 import fake_s3
from tests.waiting import wait_until

pytestmark = OVER_THE_API


@pytest.fixture(scope="module")
def greeted(kfp_api: Any) -> SubmissionResult:
    """One finished run that several tests look at."""
    handle: SubmissionResult = kfp_api.orchestrator().run_pipeline(pipelines.greeting(), run_id("greeted"))
    return handle.wait_for_completion(RUN, 0.5)


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_log_that_is_gone_raises_nothing(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, greeted: SubmissionResult, status: int
) -> None:
    """What a server says of a pod that is gone differs by its release. The output stood in the log."""
    handle = orchestrator.attach(greeted.job_id)
    kfp_api.fail("GET", "/log$", status=status, times=9)
    try:
        assert list(handle.logs()) == []
        outputs = orchestrator.attach(handle.job_id).outputs
        with pytest.raises(LookupError, match="was in the log of step 'join', which KFP has deleted"):
            outputs["greeting"]
    finally:
        kfp_api.state.faults.clear()


def test_logs_are_found_by_the_names_of_pods(orchestrator: KubeflowOrchestrator) -> None:
    """KFP tells the ids of nodes. The names of pods have the template in them, which retries and labels change."""
    labels = {"labels": {"team": "a"}, "annotations": {"one": "1", "two": "2"}}
    policy = OrchestratorRetryPolicy(max_attempts=2, initial_delay_seconds=0.1)
    variants = [
        step(name="plain"), step(name="labelled", kubeflow=labels), step(name="retried", retry=policy),
        step(name="both", kubeflow=labels, retry=policy),
    ]  # fmt: skip

    def talk() -> int:
        print("out of the pod")
        return 1

    @step
    def after(plain: int) -> int:
        print("the other pod")
        return plain + 1

    pipeline = Pipeline("talking")
    for variant in variants:
        pipeline.add_step(variant(talk))
    handle = orchestrator.run_pipeline(pipeline.add_step(after), run_id("talking")).wait_for_completion(RUN, 0.5)
    said = {(line.step, line.message) for line in handle.logs() if "pod" in line.message}
    talked = {(name, "out of the pod") for name in ("plain", "labelled", "retried", "both")}
    assert said == {*talked, ("after", "the other pod")}
    assert handle.outputs == {"labelled": 1, "retried": 1, "both": 1, "after": 2}
    assert [step_run.attempt for step_run in handle.step_runs()] == [1] * 5


def talking_hooks() -> Pipeline:
    class Talks(PipelineHook):
        def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
            print("the start of", pipeline_name)

        def on_pipeline_end(self, pipeline_name: str, run_id: str, status: Any, duration_seconds: float) -> None:
            get_logger().warning("the end: %s", status)

    pipeline = Pipeline("talking hooks", hooks=[Talks()])
    return pipeline.add_step(step(name="between")(lambda: print("between")))


def test_what_hooks_of_the_pipeline_print_is_in_the_log(orchestrator: KubeflowOrchestrator) -> None:
    """It belongs to no step."""
    handle = orchestrator.run_pipeline(talking_hooks(), run_id("talks")).wait_for_completion(RUN, 0.5)
    said = [(line.step, line.level, line.message) for line in handle.logs() if "e" in line.message]
    assert said == [
        ("", "INFO", "the start of talking hooks"), ("between", "INFO", "between"),
        ("", "WARNING", "the end: COMPLETED"),
    ], handle.error  # fmt: skip
    assert orchestrator.get_run(handle.job_id).revision == talking_hooks().revision, "the commit of its code"


def test_the_hook_learns_of_success_after_a_last_step_from_the_cache(
    orchestrator: KubeflowOrchestrator, shared: Path
) -> None:
    """KFP leaves such a DAG RUNNING, so FlowyML ends it by a task that runs."""

    @step(name="kept", kubeflow={"cache": True})
    def kept() -> int:
        return 1

    hooks = pipelines.hooked(str(shared)).hooks
    for _ in range(2):
        handle = orchestrator.run_pipeline(Pipeline("hooked", hooks=hooks).add_step(kept), run_id("hooked"))
        handle.wait_for_completion(RUN, 0.5)
    assert "kept" not in {line.step for line in handle.logs()}, "from the cache"
    ended = [line for line in (shared / "journal").read_text().splitlines() if line.startswith("pipeline_end")]
    assert ["COMPLETED" in line for line in ended] == [True, True]


def test_a_cached_step_of_a_pipeline_without_a_cache_does_not_run_again(
    orchestrator: KubeflowOrchestrator, shared: Path
) -> None:
    """The task with the code is cached too, so the step gets the same artifact for it in each run."""
    ran = shared / "ran"
    steps = (
        Step(name="kept", function="counting:kept", outputs=("kept",), options={"kubeflow": {"cache": True}}),
        Step(name="doubled", function="counting:doubled", inputs=(Input("kept", FromStep("kept", "kept")),),
             outputs=("doubled",)),
    )  # fmt: skip
    plan = Plan(
        name="counting", steps=steps, outputs=(PipelineOutput("doubled", FromStep("doubled", "doubled")),),
        options={"kubeflow": {"cache": False}},
    )  # fmt: skip
    code = f"""
def noted(name, value):
    with open({str(ran)!r}, "a") as file:
        file.write(name + " ")
    return value

def kept():
    return noted("kept", 1)

def doubled(kept):
    return noted("doubled", 2 * kept)
"""
    bundle = build(plan, files={"counting.py": code.encode()})
    assert "flowyml--bundle" in compile_pipeline(bundle).spec["root"]["dag"]["tasks"]
    for _ in range(2):
        handle = orchestrator.attach(orchestrator.submit(bundle, run_id("counting"), {}))
        handle.wait_for_completion(RUN, 0.5)
        assert handle.step_statuses() == dict.fromkeys(("kept", "doubled"), ExecutionStatus.COMPLETED)
        assert handle.outputs["doubled"] == 2
    assert ran.read_text() == "kept doubled doubled "


def test_an_output_from_the_cache_says_so(orchestrator: KubeflowOrchestrator) -> None:
    """No pod runs then, so no log holds the output."""

    @step(kubeflow={"cache": True})
    def kept() -> int:
        return 1

    for _ in range(2):
        handle = orchestrator.run_pipeline(Pipeline("from the cache").add_step(kept), run_id("cached"))
        handle.wait_for_completion(RUN, 0.5)
    assert handle.step_statuses() == {"kept": ExecutionStatus.COMPLETED}
    assert list(handle.logs()) == []
    with pytest.raises(LookupError, match="KFP took step 'kept' from its cache, so no pod logged the value"):
        handle.outputs["kept"]


def test_a_run_lands_in_its_experiment(kfp_api: Any) -> None:
    name = run_id("experiment")
    mine = kfp_api.orchestrator(experiment=name)
    handle = mine.run_pipeline(pipelines.greeting(), name)
    made = mine.client.call("run_service_get_run", handle.job_id)
    found = kfp_api.orchestrator(experiment=name).pipelines.experiment_id()
    assert made.experiment_id == found
    handle.cancel()


def test_names_of_experiments_that_kfp_would_refuse_are_refused() -> None:
    """It counts bytes, of which many letters have two."""
    for wrong in ("ü" * 65, "x" * 129, ""):
        with pytest.raises(ConfigurationError, match=rf"experiment='{wrong}' has {len(wrong.encode())} bytes"):
            KubeflowOrchestrator(experiment=wrong)
    assert KubeflowOrchestrator(experiment="ü" * 64).experiment == "ü" * 64


def test_a_pipelines_long_name_is_shortened(orchestrator: KubeflowOrchestrator) -> None:
    for name in ("x" * 200, "ü" * 200):
        made = orchestrator.deploy_pipeline(Pipeline(name).add_step(step(name="one")(lambda: 1)))
        assert made.name == name


@pytest.fixture(scope="module")
def s3(kfp_api: Any) -> Iterator[Any]:
    """moto's fake of S3, with a bucket ``code``, which this process, the fake of KFP and its steps can reach."""
    if kfp_api.state is None:
        pytest.skip("the pods of a real server do not reach the fake of S3")
    import s3fs

    with fake_s3("code") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # of fakes that other tests had
        yield s3fs.S3FileSystem()
        s3fs.S3FileSystem.clear_instance_cache()


def test_the_code_comes_from_s3(orchestrator: KubeflowOrchestrator, s3: Any) -> None:
    @step
    def one() -> int:
        return 1

    pipeline = Pipeline(run_id("stored"), kubeflow={"bundle_store": "s3://code/team/"}).add_step(one)
    deployed = orchestrator.deploy_pipeline(pipeline)
    (stored,) = s3.ls("code/team")
    compiled = compile_pipeline(pipeline.bundle())
    assert stored == f"code/team/{compiled.bundle.filename}"
    assert hashlib.sha256(s3.cat_file(stored)).hexdigest() == compiled.bundle.digest
    assert not orchestrator.deploy_pipeline(pipeline).changed
    assert deployed.changed
    handle = orchestrator.run_pipeline(pipeline, run_id("stored")).wait_for_completion(RUN, 0.5)
    assert handle.outputs == {"one": 1}, handle.error


def test_code_that_is_too_large_for_the_file_goes_to_the_store_of_artifacts(kfp_api: Any, s3: Any) -> None:
    """The module of this test is."""

    @step
    def one() -> int:
        return 1

    orchestrator = KubeflowOrchestrator(**{**kfp_api.options, "artifacts": "s3://code/shared"})
    handle = orchestrator.run_pipeline(Pipeline(run_id("large")).add_step(one), run_id("large"))
    assert handle.wait_for_completion(RUN, 0.5).outputs == {"one": 1}, handle.error
    (stored,) = s3.ls("code/shared/bundles")
    assert stored.endswith(".pyz")


def test_code_in_s3_that_was_changed_is_not_run(kfp_api: Any, orchestrator: KubeflowOrchestrator, s3: Any) -> None:
    """A run that was created when the code was there, and begins when it is another."""

    @step
    def two() -> int:
        return 2

    pipeline = Pipeline(run_id("changed"), kubeflow={"bundle_store": "s3://code/changed"}).add_step(two)
    orchestrator.deploy_pipeline(pipeline)
    (stored,) = s3.glob(f"code/changed/{pipeline.name}-*")
    s3.pipe_file(stored, s3.cat_file(stored)[:-1] + b" ")
    (version,) = [item for item in kfp_api.state.versions.values() if stored.split("/")[-1] in str(item.pipeline_spec)]
    model = orchestrator.client.model
    reference = {"pipeline_id": version.pipeline_id, "pipeline_version_id": version.pipeline_version_id}
    body = model(
        "V2beta1Run", display_name=run_id("changed"), experiment_id=orchestrator.pipelines.experiment_id(),
        pipeline_version_reference=model("V2beta1PipelineVersionReference", **reference),
        runtime_config=model("V2beta1RuntimeConfig", parameters={}),
    )  # fmt: skip
    made = orchestrator.client.call_once("run_service_create_run", body)
    handle = orchestrator.attach(made.run_id).wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.FAILED
    assert handle.step_statuses() == {"two": ExecutionStatus.FAILED}
    reason = "The bundle of the pipeline is not the one that was compiled: its SHA-256 differs."
    (step_run,) = handle.step_runs()
    assert reason in str(handle.error)
    assert reason in str(step_run.error)


def test_stopping_a_run_twice_raises_nothing(kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path) -> None:
    """KFP refuses the second time, and calls the run FAILED in the end; a reader sees that it was stopped."""
    handle = orchestrator.run_pipeline(pipelines.beating(str(shared)), run_id("stopped"))
    wait_until((shared / "beats").exists)
    assert handle.cancel()
    handle.cancel()
    another = kfp_api.orchestrator().attach(handle.job_id).wait_for_completion(RUN, 0.2)
    assert another.status is ExecutionStatus.CANCELLED
    assert another.raw_status in ("FAILED", "CANCELED")
    assert another.error == "The run was cancelled."
    assert another.step_statuses() == {"beat": ExecutionStatus.CANCELLED}
    assert not another.cancel()


def test_parameters_keep_their_types(orchestrator: KubeflowOrchestrator) -> None:
    """KFP carries numbers as doubles, in lists too."""

    @step
    def kinds(count: int, share: float, many: list[int], named: dict[str, Any], either: int | str | None) -> list[str]:
        return [repr(value) for value in (count, share, many, named, either)]

    @step
    def takes(größe: int) -> int:
        return größe

    given = context(count=1, share=1.0, many=[1], named={"a": 1}, either=None, größe=1)
    pipeline = Pipeline("kinds", context=given).add_step(kinds).add_step(takes)
    values = {"count": 3, "share": 2.0, "many": [1, 2], "named": {"a": [3]}, "either": 4, "größe": 5}
    handle = orchestrator.run_pipeline(pipeline, run_id("kinds"), parameters=values).wait_for_completion(RUN, 0.5)
    assert handle.outputs == {"kinds": ["3", "2.0", "[1, 2]", "{'a': [3]}", "4"], "takes": 5}, handle.error
    assert sorted(handle.run.parameters.items()) == sorted(values.items())
    assert repr(handle.run.parameters["share"]) == "2.0"
    assert orchestrator.runs("kinds")[0].parameters == handle.run.parameters
    with pytest.raises(ParameterError, match="beyond 2\\*\\*53"):
        orchestrator.run_pipeline(pipeline, parameters={"count": 2**60})


def test_a_stop_that_kfps_agent_did_not_see_is_a_failure_to_others(kfp_api: Any, fake: Any, shared: Path) -> None:
    """KFP writes CANCELING into a run's history only when its agent reports in between; nothing else tells."""
    mine, watching, late = (kfp_api.orchestrator() for _ in range(3))
    handle = mine.run_pipeline(pipelines.beating(str(shared)), run_id("unseen"))
    wait_until(lambda: list(shared.glob("beats")))
    fake.reports_canceling = False
    assert handle.cancel()
    watcher = watching.attach(handle.job_id)
    assert watcher.wait_for_completion(RUN, 0.01).raw_status == "FAILED"
    assert handle.status is ExecutionStatus.CANCELLED
    assert late.attach(handle.job_id).status is ExecutionStatus.FAILED
    fake.reports_canceling = True
    assert late.attach(handle.job_id).status is ExecutionStatus.CANCELLED


def test_a_failed_run_without_a_reason_says_so(kfp_api: Any, fake: Any) -> None:
    """As one that somebody stopped in KFP's UI before it had a node, unseen by KFP's agent."""
    fake.pods_may_start.clear()
    try:
        handle = kfp_api.orchestrator().run_pipeline(pipelines.greeting(), run_id("unseen"))
        fake.reports_canceling = False
        kfp_api.orchestrator().client.call("run_service_terminate_run", handle.job_id)
    finally:
        fake.pods_may_start.set()
    assert handle.status is ExecutionStatus.FAILED
    assert handle.error == f"KFP gives no reason. See {handle.url}"


def test_no_command_advises_to_read_single_steps_of_a_failed_run(
    kfp_api: Any,
    orchestrator: KubeflowOrchestrator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    tmp_path: Path,
    shared: Path,
) -> None:
    """Pods log only the outputs of the pipeline, so ``--partial`` is refused."""
    (tmp_path / "flowyml.toml").write_text(f'[orchestrators.kfp]\nengine = "kubeflow"\nurl = "{kfp_api.url}"\n')
    monkeypatch.chdir(tmp_path)
    handle = orchestrator.run_pipeline(pipelines.failing(str(shared)), run_id("failing")).wait_for_completion(2400, 0.5)
    for options, expected in ((["--download", "files"], 0), ([], 1), (["--partial"], 2)):
        assert main(["outputs", handle.job_id, "--on", "kfp", *options]) == expected
        shown = " ".join("".join(capsys.readouterr()).split())
        assert "--partial" not in shown.replace("(outputs --partial)", "")


def test_more_runs_than_one_page(fake: Any, orchestrator: KubeflowOrchestrator) -> None:
    """KFP gives 200 at once at most."""
    fake.page_of_runs = 3
    handles = [orchestrator.run_pipeline(pipelines.greeting(), run_id("page")) for _ in range(4)]
    for handle in handles:
        handle.cancel()  # what they do is of no interest
    for listed in (orchestrator.runs(limit=10_000), orchestrator.runs("conformance greeting", limit=100)):
        job_ids = [run.job_id for run in listed]
        assert {handle.job_id for handle in handles} <= set(job_ids)
        assert len(set(job_ids)) == len(job_ids)


def test_pods_whose_image_has_flowyml_get_the_users_code_alone(
    orchestrator: KubeflowOrchestrator, kfp_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @step
    def add(one: int, other: int) -> int:
        return one + other

    @pipeline(kubeflow={"runtime": "image", "image": "own:1"})
    def added(numbers: list[int] = [1, 2]) -> Any:
        return {"sums": add.partial(other=10).map(one=numbers)}

    carried = compile_pipeline(added.bundle()).bundle.files
    assert not [path for path in carried if path.startswith("flowyml")]
    if kfp_api.state is None:
        pytest.skip("the image on a real server has no FlowyML")
    monkeypatch.setattr(kfp_api.state.pods, "starts_python", True)
    assert added.run(on=orchestrator, run_id=run_id("image")).outputs == {"sums": [11, 12]}


def test_an_image_with_another_flowyml_is_refused_by_the_pod() -> None:
    started = containers.container("step", {}, StepOptions(runtime="image"), None, ["0" * 64])
    _, option, script = started["command"]
    script = script.replace(repr(flowyml.__version__), "'0.9'")
    ran = subprocess.run([sys.executable, option, script], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert f"The image has FlowyML {flowyml.__version__}; the pipeline needs" in ran.stderr


def test_a_package_that_the_image_lacks_is_named_with_the_option(orchestrator: KubeflowOrchestrator) -> None:
    @step
    def uses_a_package() -> None:
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401  # it must be missing

    handle = orchestrator.run_pipeline(Pipeline("lacks a package").add_step(uses_a_package), run_id("package"))
    error = str(handle.wait_for_completion(RUN).error)
    assert "No module named 'no_such_package'. Pods install nothing: give an image that has the package" in error
    assert "kubeflow={'image': '…'}" in error
