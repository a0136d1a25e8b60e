"""Pipelines and schedules on a KFP know the project that they come from, and what deploying would change."""

from __future__ import annotations

import time
import warnings
from typing import Any

import pytest

from flowyml.core.errors import DefinitionError, EngineError, OwnershipError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.origin import Origin
from flowyml.core.schedule import Schedule
from flowyml.plan.bundle import Bundle, build
from flowyml.plan.model import FromParameter, Input, Parameter, Plan, Step
from flowyml_kubeflow import KubeflowOrchestrator
from tests.adapters.kubeflow.conftest import Scheduled
from tests.engines.kubeflow_calls import RUN

pytestmark = pytest.mark.kubeflow
OURS, THEIRS = Origin("acme", "train.py"), Origin("other", "train.py")
DAILY = Schedule.of("daily", 6)


@pytest.fixture
def name() -> str:
    return f"owned-{time.time_ns()}"


def bundle(name: str, origin: Origin = OURS, returns: int = 1, **options: Any) -> Bundle:
    parameter = options.pop("parameter", "rows")
    default = Parameter(name=parameter, schema={"type": "integer"}, default=options.pop("rows", 5))
    inputs = (Input("rows", FromParameter(parameter)),)
    code = options.pop("code", f"def work(rows):\n    return {returns}\n")
    step = Step(name="work", function="made:work", outputs=("value",), inputs=inputs, options=options)
    plan = Plan(name=name, steps=(step,), parameters=(default,))
    return build(plan, files={"made.py": code.encode()}, origin=origin)


def test_another_projects_pipeline_and_schedule_are_replaced_only_by_force(
    orchestrator: KubeflowOrchestrator, scheduled: Scheduled, name: str
) -> None:
    orchestrator.deploy(bundle(name))
    scheduled(bundle(name), DAILY)
    for refused in (
        lambda: orchestrator.deploy(bundle(name, THEIRS)),
        lambda: orchestrator.check_deployable(bundle(name, THEIRS)),
        lambda: orchestrator.create_schedule(bundle(name, THEIRS), Schedule.of("hourly", 5)),
    ):
        with pytest.raises(OwnershipError, match=r"comes from acme: train\.py; this pipeline comes from other"):
            refused()
    assert [info.schedule for info in orchestrator.schedules(name)] == [DAILY]
    orchestrator.create_schedule(bundle(name, THEIRS), Schedule.of("hourly", 5), force=True)
    with pytest.raises(OwnershipError, match=r"comes from other: train\.py; this pipeline comes from acme"):
        orchestrator.deploy(bundle(name, returns=2))


def test_a_run_of_code_under_development_replaces_nothing(
    orchestrator: KubeflowOrchestrator, scheduled: Scheduled, name: str
) -> None:
    """KFP's recurring runs name the version that they run, and one that only a run needs owns nothing."""
    made = scheduled(bundle(name), DAILY)
    before = orchestrator.scheduler.named(made.schedule_id)[0].pipeline_version_reference
    job_id = orchestrator.submit(bundle(name, THEIRS, returns=2), f"{name}-1", {"rows": 5})
    after = orchestrator.scheduler.named(made.schedule_id)[0].pipeline_version_reference
    assert after.pipeline_version_id == before.pipeline_version_id
    assert orchestrator.diff(bundle(name)) == ""
    assert not orchestrator.deploy(bundle(name)).changed
    with pytest.raises(DefinitionError, match=r"belongs to a run of .* from other: train\.py"):
        orchestrator.submit(bundle(name), f"{name}-1", {"rows": 5})
    orchestrator.cancel(job_id)


def test_deploying_moves_the_schedule_to_the_new_code(
    orchestrator: KubeflowOrchestrator, scheduled: Scheduled, name: str
) -> None:
    made = scheduled(bundle(name), Schedule.of("daily", 6, parameters={"rows": 7}))
    orchestrator.pause_schedule(made.schedule_id)
    assert "+cron 0 6 * * * UTC: this version" in orchestrator.diff(bundle(name, returns=2))
    deployed = orchestrator.deploy(bundle(name, returns=2))
    (item,) = orchestrator.scheduler.named(made.schedule_id)
    assert deployed.url is not None
    assert deployed.url.endswith(item.pipeline_version_reference.pipeline_version_id)
    (info,) = orchestrator.schedules(name)
    assert (info.schedule, info.paused) == (made.schedule, True)
    without = build(Plan(name=name, steps=(Step(name="one", function="m:f"),)), origin=OURS)
    with pytest.raises(EngineError, match="gives the parameter 'rows', which this version does not take"):
        orchestrator.deploy(without)
    orchestrator.check_deployable(bundle(name, returns=3))
    for force in (False, True):
        with pytest.raises(EngineError, match="gives the parameter 'rows', which this version does not take"):
            orchestrator.check_deployable(bundle(name, parameter="lines"), force=force)


def test_a_dry_run_shows_code_parameters_and_options(orchestrator: KubeflowOrchestrator, name: str) -> None:
    first = orchestrator.diff(bundle(name))
    assert "+++ new/code/made.py" in first
    orchestrator.deploy(bundle(name))
    assert orchestrator.diff(bundle(name)) == ""
    changed = orchestrator.diff(bundle(name, returns=2, rows=6, kubeflow={"node_selector": {"disk": "ssd"}}))
    for line in ("-    return 1", "+    return 2", '"defaultValue": 6', '"disk": "ssd"'):
        assert line in changed
    assert "flowyml/" not in changed


def test_a_schedule_whose_version_was_deleted_is_moved_and_made_again(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, scheduled: Scheduled, name: str
) -> None:
    made = scheduled(bundle(name), DAILY)
    for put in (
        lambda: orchestrator.deploy(bundle(name, returns=2)),
        lambda: orchestrator.create_schedule(bundle(name, returns=3), DAILY),
        lambda: orchestrator.create_schedule(bundle(name, THEIRS), DAILY, force=True),
    ):
        (before,) = orchestrator.scheduler.named(made.schedule_id)
        delete_version(kfp_api, before)
        assert ": a version that was deleted\n" in orchestrator.diff(bundle(name, returns=4))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* does not say which project it comes from", UserWarning)
            put()
        (after,) = orchestrator.scheduler.named(made.schedule_id)
        assert after.pipeline_version_reference != before.pipeline_version_reference


def test_a_run_whose_version_was_deleted_can_still_be_read(
    kfp_api: Any, orchestrator: KubeflowOrchestrator, name: str
) -> None:
    failing = bundle(name, code="def work(rows):\n    raise ValueError\n")
    job_id = orchestrator.submit(failing, f"{name}-1", {"rows": 5})
    run = orchestrator.attach(job_id).wait_for_completion(RUN, 0.5)
    assert run.status is ExecutionStatus.FAILED
    delete_version(kfp_api, orchestrator.reader.fetch(job_id))
    reader = kfp_api.orchestrator()
    found = reader.get_run(job_id)
    assert found.status is ExecutionStatus.FAILED
    assert str(found.error).startswith("'work': main: Error (exit code 1)"), "the workflow says it"
    assert reader.step_runs(job_id) == ()
    with pytest.raises(EngineError, match=r"The pipeline version of run .* was deleted from KFP"):
        list(reader.logs(job_id))
    assert reader.submit(failing, f"{name}-1", {"rows": 5}) == job_id


def test_a_run_that_was_made_from_a_file_is_another_run(orchestrator: KubeflowOrchestrator, name: str) -> None:
    """As ``kfp.Client().create_run_from_pipeline_package`` makes it: with a pipeline, and without a version of one."""
    pipelines = orchestrator.pipelines
    body = orchestrator.client.model(
        "V2beta1Run", display_name=f"{name}-1", experiment_id=pipelines.experiment_id(),
        pipeline_spec=pipelines.compiled(bundle(name)).spec,
        runtime_config=orchestrator.client.model("V2beta1RuntimeConfig", parameters={"rows": 5}),
    )  # fmt: skip
    made = orchestrator.client.call_once("run_service_create_run", body)
    try:
        with pytest.raises(DefinitionError, match=r"belongs to a run of ''\. Give this run of"):
            orchestrator.submit(bundle(name), f"{name}-1", {"rows": 5})
    finally:
        orchestrator.cancel(made.run_id)


def delete_version(kfp_api: Any, of: Any) -> None:
    """Delete the version of a pipeline that a run or recurring run is of, as a user can in KFP's UI."""
    if kfp_api.state is None:
        pytest.skip("deletes the version in the memory of the fake API, which a real Kubeflow does not have")
    del kfp_api.state.versions[of.pipeline_version_reference.pipeline_version_id]
