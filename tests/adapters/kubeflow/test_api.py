"""KFP's API, through the official client: a fake of it, or the server at FLOWYML_TEST_KFP_URL."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.capabilities import Feature
from flowyml.core.errors import (
    AuthenticationError,
    EngineUnreachableError,
    ParameterError,
    RetryRefusedError,
    UnsupportedFeatureError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.logs import get_logger
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.base import Orchestrator
from flowyml.orchestrators.probe import Site
from flowyml.orchestrators.remote import RemoteOrchestrator
from flowyml.testing import (
    OrchestratorConformance,
    pipelines,
    pipelines_again,
    pipelines_branches,
    pipelines_ends,
    pipelines_loops,
)
from flowyml.testing.base import Done, sample, wait_until
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator
from flowyml_kubeflow.compiler import compile_pipeline

IS_REAL = "FLOWYML_TEST_KFP_URL" in os.environ
RUN = 900.0 if IS_REAL else 600.0  # seconds; pods wait for nodes and images

pytestmark = [
    pytest.mark.kubeflow,
    pytest.mark.filterwarnings("ignore:.*needs KFP 2.17 or newer:UserWarning"),  # steps bring this large module along
    pytest.mark.timeout(3 * RUN if IS_REAL else 900),
]


class TestConformanceOverTheApi(OrchestratorConformance):
    run_timeout = RUN
    joins_beside_failures = False  # KFP starts nothing that waits for a task that failed
    counts_retries = False  # KFP forgets the pods that it runs again
    patience = 30 if IS_REAL else 2

    @pytest.mark.xfail(reason="KFP starts nothing more in a run that was stopped", strict=True)
    def test_clean_up_after_a_cancellation(self, orchestrator: Orchestrator, folder: str) -> None:
        handle = orchestrator.run_pipeline(pipelines_ends.tidied_late(folder))
        wait_until((Path(folder) / "beats").exists, self.run_timeout, "the step begins")
        assert handle.cancel() is True
        assert self.finish(handle).status is ExecutionStatus.CANCELLED
        assert (Path(folder) / "trace").exists()

    def test_a_retry_runs_the_failed_items_of_a_loop(self, orchestrator: Orchestrator, folder: str) -> None:
        """Pods of loops succeed where their steps fail, and KFP runs only pods again that failed: it is refused."""
        handle = self.finish(orchestrator.run_pipeline(pipelines_again.items_fail_once(folder)))
        with pytest.raises(RetryRefusedError, match="KFP runs only pods again that failed"):
            handle.retry()

    @classmethod
    def engine_options(cls, folder: str) -> Mapping[str, Any]:
        return {"kubeflow": {"env": {"FLOWYML_ARTIFACTS": f"{folder}/store"}}}

    def test_a_step_of_a_group_fails_alone_and_runs_again(self, orchestrator: Orchestrator, folder: str) -> None:
        """As those of loops, its pod succeeds: a retry is refused."""
        with pytest.raises(RetryRefusedError, match="KFP runs only pods again that failed"):
            super().test_a_step_of_a_group_fails_alone_and_runs_again(orchestrator, folder)

    @pytest.fixture(scope="class")
    @classmethod
    def new_folder(cls, new_shared: Callable[[], Path]) -> Callable[[], str]:
        return lambda: str(new_shared())

    @pytest.fixture(scope="class")
    @classmethod
    def make_orchestrator(cls, kfp_api: Any) -> Callable[..., Orchestrator]:
        make: Callable[..., Orchestrator] = kfp_api.orchestrator
        return make

    @pytest.mark.skipif(not IS_REAL, reason="the fake runs one task after another")
    def test_independent_steps_run_at_the_same_time(self, orchestrator: Orchestrator, folder: str) -> None:
        super().test_independent_steps_run_at_the_same_time(orchestrator, folder)

    @sample(pipelines_branches.beside, needs=[Feature.BRANCHES, Feature.FAN_OUT], settings=["patience"])
    @pytest.mark.skipif(not IS_REAL, reason="the fake runs one task after another")
    def test_a_step_beside_a_branch_and_a_loop_does_not_wait(self, done: Done, orchestrator: Orchestrator) -> None:
        super().test_a_step_beside_a_branch_and_a_loop_does_not_wait(done, orchestrator)

    @sample(pipelines_loops.item_by_item, needs=[Feature.FAN_OUT], settings=["patience"])
    @pytest.mark.skipif(not IS_REAL, reason="the fake runs one task after another")
    def test_an_item_does_not_wait_for_the_others(self, done: Done) -> None:
        super().test_an_item_does_not_wait_for_the_others(done)

    def test_next_runs_are_in_the_time_zone(self, orchestrator: Orchestrator) -> None:
        """Of a zone that keeps its offset; others are refused, with the reason."""
        schedule = Schedule.of("daily", 6, timezone="Asia/Kolkata")
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
        try:
            assert made.next_runs[0] == schedule.next_times()[0]
        finally:
            orchestrator.delete_schedule(made.schedule_id)
        with pytest.raises(UnsupportedFeatureError, match="changes its offset in the course of the year"):
            orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("daily", 6, timezone="America/New_York"))


@pytest.fixture
def orchestrator(kfp_api: Any) -> KubeflowOrchestrator:
    return kfp_api.orchestrator()


def run_id(name: str) -> str:
    return f"{name}-{time.time_ns()}"


def test_the_url_is_recognized(kfp_api: Any) -> None:
    remote = RemoteOrchestrator(kfp_api.url)
    assert remote.name == "kubeflow"
    assert remote.health().reachable


@pytest.mark.parametrize("before", [True, False], ids=["before the run was made", "after the run was made"])
def test_a_lost_answer_makes_no_second_run(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path, before: bool
) -> None:
    kfp_api.fail("POST", "/runs$", before=before)
    handle = orchestrator.run_pipeline(pipelines.counting(str(shared)), run_id("lost"))
    handle.wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.COMPLETED, handle.error
    assert (shared / "executions").read_text() == "x"
    assert [run.run_id for run in orchestrator.runs("conformance counting")].count(handle.run_id) == 1


def test_a_slow_answer_is_a_lost_one(kfp_api: Any, shared: Path) -> None:
    impatient = kfp_api.orchestrator(timeout=2)
    kfp_api.fail("POST", "/runs$", before=False, seconds=4)
    handle = impatient.run_pipeline(pipelines.counting(str(shared)), run_id("slow"))
    handle.wait_for_completion(RUN, 0.5)
    assert (shared / "executions").read_text() == "x"


@pytest.mark.parametrize("path", ["/upload_version$", "/pipelines$", "/experiments$"])
@pytest.mark.parametrize("before", [True, False])
def test_what_comes_before_a_run_survives_lost_answers(kfp_api: Any, path: str, before: bool) -> None:
    @step
    def one() -> int:
        return 1

    name = run_id("deploy")
    orchestrator = kfp_api.orchestrator(experiment=name)
    kfp_api.fail("POST", path, before=before)
    pipeline = Pipeline(name).add_step(one)
    if before:  # nothing was made, and the error advises the caller to try again
        with pytest.raises(EngineUnreachableError, match="made to fail before"):
            orchestrator.run_pipeline(pipeline, name)
    else:
        orchestrator.run_pipeline(pipeline, name)
    handle = orchestrator.run_pipeline(pipeline, name).wait_for_completion(RUN, 0.5)
    assert handle.outputs == {"one": 1}


@pytest.mark.parametrize(("machines", "lags"), [(1, []), (2, [1.2, 0, 0.6])], ids=["one machine", "two machines"])
def test_processes_with_one_run_id_make_one_run(
    kfp_api: Any, shared: Path, machines: int, lags: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two machines no lock is shared, and a run is seen some time after the time that it bears."""
    name = run_id("both")
    code = f"""
from flowyml.testing import pipelines
from flowyml_kubeflow import KubeflowLocalOrchestrator, KubeflowOrchestrator
mine = KubeflowOrchestrator(**{kfp_api.options!r})
mine.client.api, mine.deploy_pipeline(pipelines.counting({str(shared)!r}))
print("ready", flush=True)
input()
print(mine.run_pipeline(pipelines.counting({str(shared)!r}), {name!r}).job_id)
"""
    if kfp_api.state:
        kfp_api.state.lags[:] = lags
        monkeypatch.setattr(kfp_api.state, "pods_start_after", 6 if machines > 1 else 0)
    homes = [{**os.environ, "FLOWYML_HOME": str(shared / f"machine-{n % machines}")} for n in range(3)]
    submitting = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for home in homes
    ]
    try:
        for process in submitting:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in submitting:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        job_ids = {process.communicate(timeout=60)[0].strip() for process in submitting}
    finally:
        for process in submitting:
            process.kill()
            process.wait()
    assert len(job_ids) == 1
    orchestrator = kfp_api.orchestrator()
    handle = orchestrator.attach(job_ids.pop()).wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.COMPLETED, handle.error
    assert [run.run_id for run in orchestrator.runs("conformance counting")].count(name) == 1
    assert (shared / "executions").read_text() == "x"


def test_reading_is_tried_again(kfp_api: Any, orchestrator: KubeflowOrchestrator) -> None:
    handle = orchestrator.run_pipeline(pipelines.greeting(), run_id("read")).wait_for_completion(RUN, 0.5)
    kfp_api.fail("GET", "/runs", times=2)
    assert orchestrator.attach(handle.job_id).outputs == {"greeting": "hello world"}


def test_following_a_log_outlasts_a_server_that_does_not_answer(
    kfp_api: Any, orchestrator: KubeflowOrchestrator
) -> None:
    @step
    def talking() -> None:
        print("out of the pod")

    handle = orchestrator.run_pipeline(Pipeline("outlasting").add_step(talking), run_id("outlasts"))
    handle.wait_for_completion(RUN, 0.5)
    kfp_api.fail("GET", "/runs/", status=503, times=3)  # a read is tried three times
    try:
        with pytest.raises(EngineUnreachableError):
            list(handle.logs())
        kfp_api.fail("GET", "/runs/", status=503, times=3)
        assert [line.message for line in handle.logs(follow=True) if line.step] == ["out of the pod"]
    finally:
        kfp_api.state.faults.clear()


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_log_that_is_gone_raises_nothing(kfp_api: Any, orchestrator: KubeflowOrchestrator, status: int) -> None:
    """What a server says of a pod that is gone differs by its release. The output stood in the log."""
    handle = orchestrator.run_pipeline(pipelines.greeting(), f"log-{status}-{os.getpid()}").wait_for_completion(
        RUN, 0.5
    )
    kfp_api.fail("GET", "/log$", status=status, times=9)
    try:
        assert list(handle.logs()) == []
        outputs = orchestrator.attach(handle.job_id).outputs
        with pytest.raises(LookupError, match="no longer has the log of step 'join'"):
            outputs["greeting"]
    finally:
        kfp_api.state.faults.clear()


@pytest.mark.parametrize("options", [{}, {"labels": {"team": "a"}, "annotations": {"one": "1", "two": "2"}}])
@pytest.mark.parametrize("tries", [1, 2])
def test_logs_are_found_by_the_names_of_pods(
    orchestrator: KubeflowOrchestrator, tries: int, options: dict[str, Any]
) -> None:
    """KFP tells the ids of nodes. The names of pods have the template in them, which retries and labels change."""

    @step(kubeflow=options, retry=OrchestratorRetryPolicy(max_attempts=tries, initial_delay_seconds=0.1))
    def talking() -> int:
        print("out of the pod")
        return 1

    @step
    def after(talking: int) -> int:
        print("the other pod")
        return talking + 1

    pipeline = Pipeline("talking").add_step(talking).add_step(after)
    handle = orchestrator.run_pipeline(pipeline, run_id("talking")).wait_for_completion(RUN, 0.5)
    said = [(line.step, line.message) for line in handle.logs() if "pod" in line.message]
    assert said == [("talking", "out of the pod"), ("after", "the other pod")]
    assert handle.outputs == {"after": 2}
    assert [step_run.attempt for step_run in handle.step_runs()] == [1, 1]


def talking_hooks() -> Pipeline:
    class Talks(PipelineHook):
        def on_pipeline_start(self, pipeline_name: str, run_id: str, context: Any) -> None:
            print("the start of", pipeline_name)

        def on_pipeline_end(self, pipeline_name: str, run_id: str, status: Any, duration_seconds: float) -> None:
            get_logger().warning("the end: %s", status)

    pipeline = Pipeline("talking hooks", hooks=[Talks()])
    return pipeline.add_step(step(name="between")(lambda: print("between")))


@pytest.mark.parametrize("where", ["cluster", "local runner"])
def test_what_hooks_of_the_pipeline_print_is_in_the_log(orchestrator: KubeflowOrchestrator, where: str) -> None:
    """It belongs to no step."""
    here = orchestrator if where == "cluster" else KubeflowLocalOrchestrator()
    handle = here.run_pipeline(talking_hooks(), run_id("talks")).wait_for_completion(RUN, 0.5)
    said = [(line.step, line.level, line.message) for line in handle.logs() if "e" in line.message]
    assert said == [
        ("", "INFO", "the start of talking hooks"), ("between", "INFO", "between"),
        ("", "WARNING", "the end: COMPLETED"),
    ], handle.error  # fmt: skip
    assert here.get_run(handle.job_id).revision == talking_hooks().revision, "the commit of its code"


@pytest.mark.parametrize("ends_in_a_pod", [True, False])
def test_the_hook_learns_of_success_after_a_last_step_from_the_cache(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path, ends_in_a_pod: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KFP leaves such a DAG RUNNING, so FlowyML ends it by a task that runs; without it, success is not known."""
    if kfp_api.state is None:
        pytest.skip("what a real server has in its cache is not known")
    if not ends_in_a_pod:
        monkeypatch.setattr("flowyml_kubeflow.names.LAST_TASK", "kept")
        monkeypatch.setattr("flowyml_kubeflow.compiler._Compiler._last_task", lambda _, steps: steps.tasks["kept"])

    @step(name="kept", kubeflow={"cache": True})
    def kept() -> int:
        return 1

    hooks = pipelines.hooked(str(shared)).hooks
    kfp_api.state.cached.add("kept")
    try:
        handle = orchestrator.run_pipeline(Pipeline("cached", hooks=hooks).add_step(kept), run_id("hooked"))
        handle.wait_for_completion(RUN, 0.5)
    finally:
        kfp_api.state.cached.clear()
    (ended,) = [line for line in (shared / "journal").read_text().splitlines() if line.startswith("pipeline_end")]
    assert ("COMPLETED" in ended) == ends_in_a_pod, ended


def test_an_output_from_the_cache_says_so(kfp_api: Any, orchestrator: KubeflowOrchestrator) -> None:
    """No pod runs then, so no log holds the output."""
    if kfp_api.state is None:
        pytest.skip("what a real server has in its cache is not known")

    @step(kubeflow={"cache": True})
    def kept() -> int:
        return 1

    kfp_api.state.cached.add("kept")
    try:
        handle = orchestrator.run_pipeline(Pipeline("cached").add_step(kept), run_id("cached"))
        handle.wait_for_completion(RUN, 0.5)
        assert handle.step_statuses() == {"kept": ExecutionStatus.COMPLETED}
        assert list(handle.logs()) == []
        with pytest.raises(LookupError, match="KFP took step 'kept' from its cache, so no pod ran"):
            handle.outputs["kept"]
    finally:
        kfp_api.state.cached.clear()


def test_a_run_lands_in_its_experiment(kfp_api: Any) -> None:
    name = run_id("experiment")
    mine = kfp_api.orchestrator(experiment=name)
    handle = mine.run_pipeline(pipelines.greeting(), name)
    made = mine.client.read("run_service_get_run", handle.job_id)
    found = kfp_api.orchestrator(experiment=name).pipelines.experiment_id()
    assert made.experiment_id == found
    handle.cancel()


def test_a_server_that_stays_silent_is_unreachable() -> None:
    orchestrator = KubeflowOrchestrator(url="http://127.0.0.1:9", timeout=1)
    assert not orchestrator.health().reachable
    with pytest.raises(EngineUnreachableError, match=r"127\.0\.0\.1:9"):
        orchestrator.runs()


def test_a_wrong_token_is_refused_and_not_shown(kfp_api: Any) -> None:
    if kfp_api.state is None:
        pytest.skip("the real server of this test has its own rules")
    kfp_api.state.token = "right"
    try:
        with pytest.raises(AuthenticationError) as refused:
            kfp_api.orchestrator(token="wrong-secret").runs()
        assert "wrong-secret" not in str(refused.value)
        kfp_api.orchestrator(token="right").runs()
    finally:
        kfp_api.state.token = None


def test_the_same_pipeline_is_uploaded_once(orchestrator: KubeflowOrchestrator) -> None:
    first = orchestrator.deploy_pipeline(pipelines.large())
    again = orchestrator.deploy_pipeline(pipelines.large())
    assert (again.digest, again.changed, again.url) == (first.digest, False, first.url)


@pytest.fixture(scope="module")
def s3(kfp_api: Any, load_engine: Any) -> Iterator[Any]:
    """moto's fake of S3, with a bucket ``code``, which this process, the fake of KFP and its steps can reach."""
    if kfp_api.state is None:
        pytest.skip("the pods of a real server do not reach the fake of S3")
    import s3fs

    with load_engine("s3").fake_s3("code") as environment, pytest.MonkeyPatch.context() as patch:
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
    compiled = compile_pipeline(pipeline.bundle(), form="python")
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
    made = orchestrator.client.write("run_service_create_run", body)
    handle = orchestrator.attach(made.run_id).wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.FAILED
    assert handle.step_statuses() == {"two": ExecutionStatus.CANCELLED}
    log = (kfp_api.state.folder / f"run-{made.run_id}" / "runner.log").read_text()
    assert "The bundle of the pipeline is not the one that was compiled: its SHA-256 differs." in log


def test_stopping_a_run_twice_raises_nothing(kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path) -> None:
    """KFP refuses the second time, and calls the run FAILED in the end; a reader sees that it was stopped."""
    handle = orchestrator.run_pipeline(pipelines.beating(str(shared)), run_id("stopped"))
    while not (shared / "beats").exists():
        time.sleep(0.1)
    assert handle.cancel()
    handle.cancel()
    another = kfp_api.orchestrator().attach(handle.job_id).wait_for_completion(RUN, 0.2)
    assert another.status is ExecutionStatus.CANCELLED
    assert another.raw_status in ("FAILED", "CANCELED")
    assert another.error is None
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


def test_lists_are_read_to_their_last_page(orchestrator: KubeflowOrchestrator) -> None:
    handles = [orchestrator.run_pipeline(pipelines.greeting(), run_id("page")) for _ in range(4)]
    listed = [run.job_id for run in orchestrator.runs("conformance greeting", limit=100)]
    assert {handle.job_id for handle in handles} <= set(listed)
    for handle in handles:
        handle.cancel()  # what they do is of no interest


def test_a_schedule_as_kfp_has_it(kfp_api: Any, orchestrator: KubeflowOrchestrator) -> None:
    """Six fields, seconds first; five would fire hourly what is meant daily."""
    made = orchestrator.schedule_pipeline(
        pipelines.greeting(), Schedule.of("cron", "10 10 * * MON", catch_up=True, parameters={"name": "Ada"})
    )
    try:
        (item,) = orchestrator.recurring.named(made.schedule_id)
        assert item.trigger.cron_schedule.cron == "0 10 10 * * 1"
        assert (item.no_catchup, item.max_concurrency, item.status) == (False, "1", "ENABLED")
        assert item.runtime_config.parameters == {"name": "Ada"}
    finally:
        orchestrator.delete_schedule(made.schedule_id)


def test_a_schedule_fires_until_it_is_paused(orchestrator: KubeflowOrchestrator, shared: Path) -> None:
    """KFP gives such runs a name of its own, and no description."""
    name = run_id("firing")
    pipeline = pipelines.counting(str(shared))
    pipeline.name = name
    made = orchestrator.schedule_pipeline(pipeline, Schedule.of("interval", 2))
    try:
        fired = waited_for(lambda: orchestrator.runs(name))[-1]
        assert orchestrator.pause_schedule(made.schedule_id).paused
        assert fired.pipeline == name
        handle = orchestrator.attach(fired.job_id).wait_for_completion(RUN, 0.5)
        assert handle.status is ExecutionStatus.COMPLETED, handle.error
        assert set((shared / "executions").read_text()) == {"x"}
        before = len(orchestrator.runs(name))
        time.sleep(2.5)
        assert len(orchestrator.runs(name)) == before
    finally:
        orchestrator.delete_schedule(made.schedule_id)


@pytest.mark.parametrize("catch_up", [True, False])
def test_a_schedule_fires_at_the_time_of_its_zone(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, shared: Path, catch_up: bool
) -> None:
    """6 o'clock in India is half past midnight in UTC. The clock of the fake's scheduler is put forward."""
    if kfp_api.state is None:
        pytest.skip("a real server's clock cannot be put forward")
    name = run_id("daily")
    pipeline = Pipeline(name, kubeflow={"max_concurrency": 10}).add_step(step(name="one")(lambda: 1))
    schedule = Schedule.of("daily", 6, timezone="Asia/Kolkata", catch_up=catch_up)
    made = orchestrator.schedule_pipeline(pipeline, schedule)
    ahead = made.next_runs[0] - datetime.now(UTC)
    try:
        kfp_api.state.ahead = ahead - timedelta(minutes=5)
        time.sleep(1)
        assert orchestrator.runs(name) == []
        kfp_api.state.ahead = ahead + timedelta(days=1, minutes=5)
        waited_for(lambda: orchestrator.runs(name))
        time.sleep(1)
        assert len(orchestrator.runs(name)) == (2 if catch_up else 1)
    finally:
        orchestrator.delete_schedule(made.schedule_id)
        kfp_api.state.ahead = timedelta()
        for run in orchestrator.runs(name):
            orchestrator.cancel(run.job_id)


def waited_for(found: Callable[[], list[Any]]) -> list[Any]:
    deadline = time.monotonic() + 90
    while not (items := found()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
    return items


@pytest.mark.parametrize("before", [True, False])
def test_a_schedule_survives_a_lost_answer(kfp_api: Any, orchestrator: KubeflowOrchestrator, before: bool) -> None:
    kfp_api.fail("POST", "/recurringruns$", before=before)
    schedule = Schedule.of("hourly", 5)
    try:
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
    except EngineUnreachableError:
        assert before
        made = orchestrator.schedule_pipeline(pipelines.greeting(), schedule)
    assert [info.schedule_id for info in orchestrator.schedules("conformance greeting")] == [made.schedule_id]
    orchestrator.delete_schedule(made.schedule_id)


def test_the_fake_has_only_what_the_official_client_calls(kfp_api: Any) -> None:
    """Its routes are those of the OpenAPI models, and the log that the API server serves beside them."""
    if kfp_api.state is None:
        pytest.skip("there is no fake")
    import kfp_server_api

    sources = [path.read_text() for path in (Path(kfp_server_api.__file__).parent / "api").glob("*.py")]
    official = {found for source in sources for found in re.findall(r"'(/apis/v2beta1/\S+)', '([A-Z]+)'", source)}
    verbs = {
        "runs": ("{run_id}:terminate", "{run_id}:retry"),
        "recurringruns": ("{recurring_run_id}:enable", "{recurring_run_id}:disable"),
    }
    for route in kfp_api.module.make_app(kfp_api.state).routes:
        path = getattr(route, "path", "").replace("{version_id}", "{pipeline_version_id}")
        if "v2beta1" in path:
            kinds = verbs[path.split("/")[3]] if "{run_and_verb}" in path else [""]
            ours = {(path.replace("{run_and_verb}", kind), method) for kind in kinds for method in route.methods}
            assert ours <= official


@pytest.fixture
def front(kfp_api: Any) -> Iterator[Any]:
    """The state of the fake, in which something can be put in front of it."""
    if kfp_api.state is None:
        pytest.skip("what is in front of a real server stays there")
    yield kfp_api.state
    kfp_api.state.token, kfp_api.state.login, kfp_api.state.below = None, False, ""


def test_a_login_page_is_refused(kfp_api: Any, front: Any) -> None:
    """The generated client takes it, which comes with status 200 after a redirect, for an answer without content."""
    handle = kfp_api.orchestrator().run_pipeline(pipelines.greeting(), run_id("login"))
    front.token, front.login = "right", True
    outside = kfp_api.orchestrator(token="wrong-secret")
    for asked in (
        outside.runs,
        lambda: outside.get_run(handle.job_id),
        lambda: outside.run_pipeline(pipelines.greeting(), "outside"),
        lambda: outside.client.log(handle.job_id, "pod"),
    ):
        with pytest.raises(
            AuthenticationError, match=r"A proxy, not KFP, answered at .* redirects to .*/login"
        ) as refused:
            asked()
        assert "wrong-secret" not in str(refused.value)
    health = outside.health()
    assert not health.reachable
    assert "to which it redirects" in str(health.detail)
    assert kfp_api.orchestrator(token="right").get_run(handle.job_id).job_id == handle.job_id
    front.token = None
    handle.cancel()


@pytest.mark.parametrize(
    "given", [{"token": "right"}, {"cookies": "session=right"}, {"credentials": "right"}], ids=lambda given: min(given)
)
@pytest.mark.parametrize("below", ["", "/pipeline"], ids=["the API", "the dashboard"])
def test_what_was_given_to_sign_in_is_sent_everywhere(
    kfp_api: Any, front: Any, given: dict[str, Any], below: str
) -> None:
    from kfp.client.token_credentials_base import TokenCredentialsBase

    class Credentials(TokenCredentialsBase):
        def refresh_api_key_hook(self, config: Any) -> None:
            config.api_key["authorization"] = "right"

    given = {"credentials": Credentials()} if "credentials" in given else given
    front.token, front.login, front.below = "right", True, below
    inside = kfp_api.orchestrator(**given)
    assert inside.health().reachable, inside.health().detail
    assert inside.client.connection.host == kfp_api.url + below
    inside.runs(limit=1)
    assert kfp_api.orchestrator(url=f"{kfp_api.url}{below}", **given).health().reachable
    if "credentials" not in given:
        assert RemoteOrchestrator(kfp_api.url, **given).name == "kubeflow"


def test_a_token_does_not_follow_a_redirect(front: Any, kfp_api: Any) -> None:
    """It may lead to another host."""
    front.token, front.login = "right", True
    site = Site(kfp_api.url, headers={"Authorization": "Bearer wrong"})
    assert site.get("/apis/v2beta1/healthz").redirected_to == f"{kfp_api.url}/login"
    assert front.login_headers.get("authorization") is None


def test_a_stop_that_kfps_agent_did_not_see_is_a_failure_to_others(kfp_api: Any, shared: Path) -> None:
    """KFP writes CANCELING into a run's history only when its agent reports in between; nothing else tells."""
    if kfp_api.state is None:
        pytest.skip("what a real agent sees is up to it")
    mine, watching, late = (kfp_api.orchestrator() for _ in range(3))
    handle = mine.run_pipeline(pipelines.beating(str(shared)), run_id("unseen"))
    waited_for(lambda: list(shared.glob("beats")))
    kfp_api.state.reports_canceling = False
    try:
        assert handle.cancel()
        watcher = watching.attach(handle.job_id)
        assert watcher.wait_for_completion(RUN, 0.01).raw_status == "FAILED"
        assert handle.status is ExecutionStatus.CANCELLED
        assert late.attach(handle.job_id).status is ExecutionStatus.FAILED
    finally:
        kfp_api.state.reports_canceling = True
    assert late.attach(handle.job_id).status is ExecutionStatus.CANCELLED


def test_more_runs_than_one_page(kfp_api: Any, orchestrator: KubeflowOrchestrator) -> None:
    """KFP gives 200 at once at most."""
    handles = [orchestrator.run_pipeline(pipelines.greeting(), run_id("many")) for _ in range(2)]
    listed = [run.job_id for run in orchestrator.runs(limit=10_000)]
    assert {handle.job_id for handle in handles} <= set(listed)
    assert len(set(listed)) == len(listed)
    for handle in handles:
        handle.cancel()
    if kfp_api.state:
        assert len(listed) == len(kfp_api.state.runs) > kfp_api.state.page


@pytest.mark.parametrize("start", [None, datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)])
def test_an_interval_counts_as_kfp_counts(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, start: datetime | None
) -> None:
    """From the start or from when it was made, and not before one interval is over."""
    made = orchestrator.schedule_pipeline(pipelines.greeting(), Schedule.of("interval", 3600, start=start))
    try:
        (item,) = orchestrator.recurring.named(made.schedule_id)
        beginning = start or item.created_at
        assert made.next_runs[0] > datetime.now(UTC)
        assert all((time - beginning) % timedelta(hours=1) == timedelta() for time in made.next_runs)
        assert made.next_runs[1] - made.next_runs[0] == timedelta(hours=1)
    finally:
        orchestrator.delete_schedule(made.schedule_id)


@pytest.mark.parametrize("path", ["/upload_version$", "/pipelines$", "/experiments$"])
def test_another_process_was_faster(kfp_api: Any, path: str) -> None:
    """What was missing a moment ago is there, which KFP says with 409."""
    name = run_id("rival")
    orchestrator = kfp_api.orchestrator(experiment=name)
    kfp_api.fail("POST", path, before=False, status=409)
    handle = orchestrator.run_pipeline(Pipeline(name).add_step(step(name="one")(lambda: 1)), name)
    assert handle.wait_for_completion(RUN, 0.5).outputs == {"one": 1}


@pytest.mark.parametrize("path", ["/upload_version$", "/pipelines$", "/experiments$"])
def test_a_call_that_hangs_before_anything_is_made(kfp_api: Any, path: str) -> None:
    name = run_id("hanging")
    impatient = kfp_api.orchestrator(experiment=name, timeout=4)
    pipeline = Pipeline(name).add_step(step(name="one")(lambda: 1))
    kfp_api.fail("POST", path, seconds=6)
    with pytest.raises(EngineUnreachableError, match="does not answer"):
        impatient.run_pipeline(pipeline, name)
    assert impatient.run_pipeline(pipeline, name).wait_for_completion(RUN, 0.5).outputs == {"one": 1}


def test_a_call_that_hangs_before_the_run_is_made(kfp_api: Any) -> None:
    name = run_id("hanging")
    impatient = kfp_api.orchestrator(timeout=4)
    impatient.deploy_pipeline(pipelines.greeting())
    kfp_api.fail("POST", "/runs$", seconds=6)
    handle = impatient.run_pipeline(pipelines.greeting(), name).wait_for_completion(RUN, 0.5)
    assert handle.status is ExecutionStatus.COMPLETED
    assert [run.run_id for run in impatient.runs("conformance greeting")].count(name) == 1
