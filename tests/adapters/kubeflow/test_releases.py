"""What differs between releases of KFP, on a fake that plays them: fields, names, lost pods, what stays readable."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, cleanup, pipeline, step
from flowyml.cli import main
from flowyml.cli.finding import find_run
from flowyml.core.errors import ConfigurationError, EngineError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.submission_result import SubmissionResult
from flowyml.plan.bundle import Bundle, build
from flowyml.plan.model import Plan, Step
from flowyml_kubeflow import KubeflowOrchestrator, spec
from flowyml_kubeflow.workflow import Workflow
from tests.engines.kubeflow_calls import OVER_THE_API, RUN, run_id
from tests.engines.kubeflow_driver import Lost

pytestmark = OVER_THE_API


@step
def said(_: int = 0) -> int:
    print("a line of the step")
    return 1


@step(secrets={"token": "warehouse/token"})
def secret(token: str) -> None:
    pass


def finished(orchestrator: Any, what: Any) -> SubmissionResult:
    handle: SubmissionResult = orchestrator.run_pipeline(what, run_id(what.name))
    return handle.wait_for_completion(RUN, 0.5)


# Fields.


@pytest.mark.parametrize(
    ("version", "made", "said"),
    [
        ("2.14.0", Pipeline("secrets").add_step(secret), "Secrets of steps need KFP 2.15 or newer, and this"),
        ("2.15.2", Pipeline("users", kubeflow={"security_context": {"run_as_user": 7}}).add_step(said),
         "'security_context': …} need KFP 2.16 or newer, and this is KFP 2.15"),
    ],
)  # fmt: skip
def test_what_a_release_does_not_know_is_refused(kfp_api: Any, fake: Any, version: str, made: Any, said: str) -> None:
    fake.version, before = version, len(fake.versions)
    with pytest.raises(UnsupportedFeatureError, match=said):
        kfp_api.orchestrator().run_pipeline(made)
    assert len(fake.versions) == before, "nothing was sent"
    fake.says_version = False  # so it counts as the newest, which the server then denies
    with pytest.raises(
        EngineError, match=r"unknown field .* It does not say its release, so FlowyML took it for the new"
    ):
        kfp_api.orchestrator().run_pipeline(made)


def test_an_orchestrator_that_lives_through_an_upgrade_asks_again(kfp_api: Any, fake: Any) -> None:
    """The code fits in a workflow of KFP 2.16."""
    fake.version, orchestrator = "2.16.0", kfp_api.orchestrator(artifacts=None)
    orchestrator.check_deployable(noisy())
    fake.version = "2.17.0"
    for _ in range(2):
        with pytest.raises(UnsupportedFeatureError, match=r"computed for KFP 2\.17\)"):
            orchestrator.submit(noisy(), run_id("noisy"), {})
    fake.version = "2.16.0"
    orchestrator.check_deployable(noisy())


def noisy() -> Bundle:
    one = Step(name="one", function="noisy:one")
    noise = random.Random(1).randbytes(50_000)
    return build(Plan(name="noisy", steps=(one,)), files={"noisy.py": b"def one(): pass\n", "noise.bin": noise})


def test_a_file_is_compiled_for_the_release_of_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no KFP can be asked."""
    KubeflowOrchestrator(release="2.16.1").compile_files(noisy())
    with pytest.raises(UnsupportedFeatureError, match=r"computed for KFP 2\.17\)"):
        KubeflowOrchestrator(release="2.17").compile_files(noisy())
    with pytest.raises(UnsupportedFeatureError, match=r"need KFP 2\.15 or newer, and this is KFP 2\.14"):
        KubeflowOrchestrator(release="2.14").compile_pipeline(Pipeline("secrets").add_step(secret))
    with pytest.raises(ConfigurationError, match=r"release='newest' is not a release of KFP\. Write it like '2\.16'"):
        KubeflowOrchestrator(release="newest")
    with pytest.raises(ConfigurationError, match=r"release='2\.13' is too old: FlowyML needs KFP 2\.14 or newer"):
        KubeflowOrchestrator(release="2.13")
    (tmp_path / "flowyml.toml").write_text('[orchestrators.old]\nengine = "kubeflow"\nrelease = "2.16"\n')
    bundled = noisy().write(tmp_path).name
    monkeypatch.chdir(tmp_path)
    assert main(["compile", bundled, "--to", "old", "-o", "old.yaml"]) == 0
    assert main(["compile", bundled, "--to", "kubeflow", "-o", "any.yaml"]) == 2


@pytest.mark.parametrize("fault", ["protobuf", "fields"])
def test_packages_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    from google.protobuf import json_format  # type: ignore[import-untyped]  # ships no types

    from flowyml_kubeflow.compiler import compile_pipeline

    def fails(*_: object, **__: object) -> None:
        raise (
            json_format.ParseError('no field named "x"')
            if fault == "fields"
            else TypeError("Descriptors cannot be created")
        )

    if fault == "fields":
        monkeypatch.setattr(json_format, "ParseDict", fails)
    else:
        spec._messages.cache_clear()
        monkeypatch.setattr("google.protobuf.descriptor_pool.Default", fails)
    try:
        with pytest.raises(
            ConfigurationError, match=r"kfp-pipeline-spec [\d.]+ with protobuf [\d.]+: .*Install versions"
        ):
            spec.validate(compile_pipeline(Pipeline("it").add_step(said).bundle()))
    finally:
        spec._messages.cache_clear()


# Names.


@step
def numbers() -> list[int]:
    return [1]


@pipeline
def looped() -> None:
    said.map(_=numbers())


def test_a_name_that_argo_refuses_is_refused_when_a_run_is_created(kfp_api: Any, fake: Any) -> None:
    """As a real server did, for 51 characters; FlowyML's own names are shorter, so the file is damaged here."""
    fake.versions.clear()
    orchestrator, bundle = kfp_api.orchestrator(), looped.bundle()
    orchestrator.deploy(bundle)
    (made,) = fake.versions.values()
    made.pipeline_spec = json.loads(json.dumps(made.pipeline_spec).replace("said--loop", f"{'t' * 51}--loop"))
    with pytest.raises(
        EngineError, match=r"answered 500: .*'comp-t{51}--loop-t{51}--loop-iterator' is invalid: must be no"
    ):
        orchestrator.run_pipeline(looped)


# What stays readable.


@pytest.fixture
def aged(fake: Any) -> Iterator[Any]:
    """Puts the server's clock forward."""

    def by(hours: float) -> None:
        fake.ahead = timedelta(hours=hours)

    yield by
    fake.ahead = timedelta()


@pytest.mark.parametrize(
    ("version", "hours", "is_ui", "remains"),
    [
        ("2.17.0", 0.9, True, True), ("2.17.0", 2, True, True), ("2.17.0", 2, False, True),
        ("2.16.0", 23, False, True), ("2.16.0", 25, False, False), ("2.14.0", 25, False, False),
    ],
)  # fmt: skip
def test_what_stays_readable(
    kfp_api: Any, fake: Any, aged: Any, capsys: Any, version: str, hours: float, is_ui: bool, remains: bool
) -> None:
    """Where the pods are gone, the API server has the log from 2.17 on, and by the UI KFP's artifacts and Argo's
    archive have it. The steps are read from the workflow, which the API server keeps."""
    fake.version, fake.is_ui = version, is_ui
    handle = finished(kfp_api.orchestrator(), Pipeline("said").add_step(said))
    aged(hours)
    fresh = kfp_api.orchestrator().attach(handle.job_id)
    assert [line.message for line in fresh.logs()] == ["a line of the step"] * remains
    assert main(["logs", handle.job_id, "--on", kfp_api.url]) == 0
    printed = capsys.readouterr()
    assert ("a line of the step" in printed.out, "The logs of this run are gone" in printed.err) == (
        remains, not remains,
    )  # fmt: skip
    assert [run.status for run in fresh.step_runs()] == [ExecutionStatus.COMPLETED]
    if remains:
        assert fresh.outputs["said"] == 1
    else:
        with pytest.raises(LookupError, match="which KFP has deleted"):
            fresh.outputs["said"]


def test_a_pods_log_has_the_lines_of_kfp_and_argo_too(kfp_api: Any, fake: Any) -> None:
    """In the file that KFP publishes there are those of the step alone."""
    orchestrator = kfp_api.orchestrator()
    handle = finished(orchestrator, Pipeline("said").add_step(said))
    client = orchestrator.pipelines.client
    workflow = Workflow.of(client.run_of_v1(handle.job_id))
    assert workflow
    (node,) = workflow.executors("said")
    lines = [*(client.log(handle.job_id, node.pod) or ())]
    assert lines[0].endswith("main.go:67] Setting log level to: '1'")
    assert any("ExecutorOutput: {" in line for line in lines)
    assert "argo=true" in lines[-1]
    fake.is_ui = True
    published, archived = workflow.logs_of(node)
    read = kfp_api.orchestrator().reader.pod_logs.stored
    assert [line for line in read(published) if not line.startswith("flowyml-result")] == ["a line of the step"]
    assert "argo=true" not in "".join(read(archived))


@step
def fails(_: int = 0) -> int:
    raise ValueError("disk full")


@step
def tidy() -> None:
    pass


@step(cache=True)
def fails_in_vain() -> int:
    raise ValueError("disk full")


def test_each_log_is_asked_for_once(kfp_api: Any, fake: Any) -> None:
    """That of a step with notes, as one that is cached, has a failure and attempts."""
    handle = finished(kfp_api.orchestrator(), Pipeline("asked").add_step(said).add_step(fails_in_vain))
    reader = kfp_api.orchestrator().reader
    for read in (reader.step_runs, reader.get_run):
        fake.calls.clear()
        assert read(handle.job_id)
        asked = [path for _, path in fake.calls if path.endswith("/log")]
        assert asked
        assert sorted(asked) == sorted(set(asked))


@pipeline
def tidied() -> None:
    with cleanup():
        tidy()
    one_more(fails(said()))


@pytest.mark.parametrize("hours", [0, 25])
def test_without_its_log_a_pod_that_succeeded_says_nothing_of_its_step(
    kfp_api: Any, fake: Any, aged: Any, hours: float
) -> None:
    """In a pipeline with clean-up, a pod succeeds when its step fails or is not run."""
    fake.version = "2.16.0"
    handle = finished(kfp_api.orchestrator(), tidied)
    aged(hours)
    fresh = kfp_api.orchestrator().attach(handle.job_id)
    runs = {run.name: run for run in fresh.step_runs()}
    assert fresh.status is ExecutionStatus.FAILED
    if hours:
        assert {run.status for run in runs.values()} == {ExecutionStatus.CANCELLED}
        assert all("how it ended was in the log of its pod" in str(run.error) for run in runs.values())
        assert fresh.error == "step 'fails': ValueError: disk full", "as the last pod left it"
    else:
        assert [runs[name].status for name in ("said", "fails")] == [ExecutionStatus.COMPLETED, ExecutionStatus.FAILED]
        assert "disk full" in str(fresh.error)
        assert "disk full" in str(find_run(kfp_api.orchestrator(), handle.run_id).error), "by its name too"


@step(timeout=0.1)
def dawdles(said: int) -> None:
    import signal

    print(said)
    signal.pause()


@pytest.mark.parametrize("version", ["2.17.0", "2.16.0"])
def test_why_a_step_failed_outlives_its_pod(kfp_api: Any, fake: Any, aged: Any, version: str) -> None:
    """Its pod leaves the reason to Kubernetes, and Argo puts it into the node."""
    fake.version = version
    handle = finished(kfp_api.orchestrator(), Pipeline("why").add_step(said).add_step(fails).add_step(dawdles))
    aged(25)
    fresh = kfp_api.orchestrator()
    fresh.reader.pod_logs.read = lambda *_, **__: None  # nor in the archive of 2.17
    runs = {run.name: (run.status, run.error) for run in fresh.attach(handle.job_id).step_runs()}
    assert runs["said"] == (ExecutionStatus.COMPLETED, None)
    assert runs["fails"] == (ExecutionStatus.FAILED, "ValueError: disk full")
    status, error = runs["dawdles"]
    assert status is ExecutionStatus.TIMEOUT
    assert "StepTimeoutError: step 'dawdles'" in str(error)
    assert "step 'fails': ValueError: disk full" in str(fresh.attach(handle.job_id).error)


@step
def fails_at_length() -> None:
    raise ValueError("é" * 10_000)


def test_a_long_reason_is_cut(kfp_api: Any, fake: Any, aged: Any) -> None:
    fake.version = "2.16.0"
    handle = finished(kfp_api.orchestrator(), Pipeline("long").add_step(fails_at_length))
    aged(25)
    (run,) = kfp_api.orchestrator().attach(handle.job_id).step_runs()
    assert str(run.error).startswith("ValueError: ééé")
    assert 200 < len(str(run.error)) < 300


@step
def kills_its_pod() -> int:
    import signal

    import psutil

    _, pod, *_ = psutil.Process().parents()
    pod.kill()
    signal.pause()
    return 1


def test_a_step_whose_pod_was_lost_has_failed(kfp_api: Any) -> None:
    @pipeline
    def loses() -> None:
        with cleanup():
            tidy()
        kills_its_pod()

    handle = finished(kfp_api.orchestrator(), loses)
    (lost,) = [run for run in handle.step_runs() if run.name == "kills_its_pod"]
    assert (lost.status, lost.raw_status) == (ExecutionStatus.FAILED, "FAILED")
    assert "its pod was lost: " in str(lost.error)
    assert str(handle.error).startswith("step 'kills_its_pod': its pod was lost: ")
    assert "(exit code 137), killed: it may have needed more memory" in str(handle.error)
    assert "flowyml-result" not in str(handle.error)
    assert str(handle.error).endswith("\nKFP started no step after that. Not run: 'tidy'.")


ODD_LINES = [
    "I1201 03:18:28.518230      16 loader.go:373] Config loaded from file",
    "I1201 03:18:28.518230      16 launcher_v2.go:1230] ExecutorOutput: {",
    "and what comes after it",
    'time=2026-12-01T03:45:03.000Z level=INFO msg="capturing logs" argo=true',
    "ERROR: printed, not logged", " ERROR: after a space", 'flowyml-result {"outputs":{}}', "  flowyml-result {}",
]  # fmt: skip


@step
def odd() -> None:
    for line in ODD_LINES:
        print(line)
    logging.getLogger("odd").error("logged")


def test_a_step_may_print_what_looks_like_a_line_of_an_engine_or_a_record(kfp_api: Any) -> None:
    """As kubectl, helm and other programs in Go do."""
    handle = finished(kfp_api.orchestrator(), Pipeline("odd").add_step(odd))
    said = sorted((line.message, line.level) for line in handle.logs())
    assert said == sorted([("logged", "ERROR"), *((line, "INFO") for line in ODD_LINES)])


# Pods that are lost.


@pytest.mark.parametrize("version", ["2.17.0", "2.16.0"])
def test_a_lost_pod_of_a_driver_is_started_again_by_stock_2_17_alone(kfp_api: Any, fake: Any, version: str) -> None:
    """That leaves two tasks of one name in KFP's metadata, on which the next driver fails. It is KFP's fault."""
    fake.version, lost = version, ["once"]

    @pipeline
    def two() -> int:
        return one_more(said())

    def loses() -> None:
        if lost:
            lost.pop()
            raise Lost

    fake.in_drivers["said"] = loses
    handle = finished(kfp_api.orchestrator(), two)
    assert handle.status is ExecutionStatus.FAILED
    if version == "2.16.0":
        assert "KFP's driver of 'said': pod deleted" in str(handle.error)
    else:
        assert "two tasks have the same task name said_" in str(handle.error)
        assert "a fault of KFP 2.17" in str(handle.error)


@step
def one_more(said: int) -> int:
    return said + 1


@pytest.mark.parametrize("version", ["2.17.0", "2.16.0", "2.14.0"])
def test_a_server_that_gives_no_workflow_is_read_by_its_task_details(kfp_api: Any, fake: Any, version: str) -> None:
    """As one whose proxy passes on v2beta1 alone."""
    fake.version = version
    handle = finished(kfp_api.orchestrator(), Pipeline("why").add_step(said).add_step(fails))
    kfp_api.fail("GET", "/apis/v1beta1/runs/", status=404, times=100)
    fresh = kfp_api.orchestrator().attach(handle.job_id)
    runs = {run.name: (run.status, run.error) for run in fresh.step_runs()}
    assert runs == {
        "said": (ExecutionStatus.COMPLETED, None),
        "fails": (ExecutionStatus.FAILED, "ValueError: disk full"),
    }
    assert [line.message for line in fresh.logs() if line.step == "said"] == ["a line of the step"]
    assert "step 'fails': ValueError: disk full" in str(fresh.error)
