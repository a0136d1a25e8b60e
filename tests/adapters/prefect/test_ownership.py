"""What was deployed stays until it is deployed again: runs, other projects and operators leave it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import DefinitionError, OwnershipError
from flowyml_prefect import PrefectOrchestrator

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

Pool = Callable[[str], PrefectOrchestrator]


@pytest.fixture(scope="module")
def pool(make_prefect: Any) -> Pool:
    """A work pool without a worker: what is submitted stays queued, and nothing has to be waited for."""

    def made(name: str) -> PrefectOrchestrator:
        orchestrator: PrefectOrchestrator = make_prefect(work_pool=name)
        orchestrator.client.ensure_process_pool(name)
        return orchestrator

    return made


def version(name: str, number: int) -> Pipeline:
    """Pipelines of one name whose code differs."""
    return Pipeline(name, context={"rows": number}, tags=[f"v{number}"]).add_step(step(name="one")(lambda rows: rows))


def deployed_at(orchestrator: PrefectOrchestrator, name: str) -> Any:
    found = orchestrator.client.deployment(name, f"{name} on {orchestrator.work_pool}")
    assert found is not None
    return found


def test_a_run_of_other_code_leaves_what_is_scheduled_alone(pool: Pool) -> None:
    production = pool("production")
    info = version("owned", 1).schedule("daily", "03:30", on=production)
    scheduled = deployed_at(production, "owned")
    same = production.run_pipeline(version("owned", 1))
    other = production.run_pipeline(version("owned", 2))
    assert deployed_at(production, "owned")["version"] == scheduled["version"]
    assert production.client.run(same.job_id).deployment_id == scheduled["id"], "this very code is what is scheduled"
    run = production.client.run(other.job_id)
    assert (run.deployment_id != scheduled["id"], run.version != scheduled["version"]) == (True, True)
    assert {found.job_id for found in production.runs("owned")} == {same.job_id, other.job_id}
    assert [found.schedule_id for found in production.schedules("owned")] == [info.schedule_id]


def test_deploying_moves_all_that_was_deployed_and_keeps_what_operators_set(pool: Pool) -> None:
    first, second = pool("first"), pool("second")
    info = version("moved", 1).schedule("daily", "03:30", on=first)
    first.pause_schedule(info.schedule_id)
    theirs = {"env": {"TZ": "UTC"}, "working_dir": "/tmp"}
    first.client.update_deployment(info.schedule_id, {"job_variables": theirs})
    second.run_pipeline(version("moved", 1))  # a deployment for runs: the next run changes it
    assert "+++ new/moved on first.json" in second.diff(version("moved", 2).bundle())
    made = second.deploy_pipeline(version("moved", 2))
    assert (made.changed, made.also) == (True, ("moved/moved on first",))
    moved = deployed_at(first, "moved")
    assert moved["version"] == deployed_at(second, "moved")["version"] == made.digest[:16]
    assert moved["tags"] == ["flowyml", "v2"]
    assert moved["job_variables"]["working_dir"] == "/tmp"
    assert moved["job_variables"]["env"]["TZ"] == "UTC"
    (schedule,) = first.schedules("moved")
    assert (schedule.schedule_id, schedule.paused) == (info.schedule_id, True)
    again = second.deploy_pipeline(version("moved", 2))
    assert (again.changed, again.also, second.diff(version("moved", 2).bundle())) == (False, (), "")


def test_another_project_needs_force_to_deploy_and_may_run(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = pool("shared")
    monkeypatch.setenv("FLOWYML_NAMESPACE", "forecasts")
    info = version("train", 1).schedule("daily", "03:30", on=shared)
    monkeypatch.setenv("FLOWYML_NAMESPACE", "churn")
    before = deployed_at(shared, "train")
    for attempt in (
        lambda: shared.deploy_pipeline(version("train", 2)),
        lambda: version("train", 2).schedule("hourly", 5, on=shared),
    ):
        with pytest.raises(OwnershipError, match=r"forecasts: .*churn: .*--force"):
            attempt()
    run = shared.run_pipeline(version("train", 2), "churn-1")
    assert (run.run.origin and run.run.origin.project, deployed_at(shared, "train")) == ("churn", before)
    monkeypatch.setenv("FLOWYML_NAMESPACE", "forecasts")
    with pytest.raises(DefinitionError, match=r"'churn-1' belongs to a run of 'train' from churn"):
        shared.run_pipeline(version("train", 1), "churn-1")
    monkeypatch.setenv("FLOWYML_NAMESPACE", "churn")
    assert shared.deploy_pipeline(version("train", 2), force=True).changed
    assert deployed_at(shared, "train")["id"] == info.schedule_id
    monkeypatch.setenv("FLOWYML_NAMESPACE", "forecasts")
    with pytest.raises(OwnershipError):
        shared.deploy_pipeline(version("train", 1))


def test_the_same_run_id_with_other_code_is_an_error(pool: Pool) -> None:
    shared = pool("shared")
    first = shared.run_pipeline(version("same id", 1), "same-id-1")
    assert shared.run_pipeline(version("same id", 1), "same-id-1").job_id == first.job_id
    with pytest.raises(DefinitionError, match="'same-id-1' belongs to a run of 'same id' with other code"):
        shared.run_pipeline(version("same id", 2), "same-id-1")


def test_the_difference_names_lines_parameters_and_options(pool: Pool, tmp_path: Any) -> None:
    from flowyml.cli.source import load

    shared = pool("shared")
    text = "from flowyml import Pipeline, step\n\n@step\ndef one(rows: int):\n    return rows\n\n"
    path = tmp_path / "differing.py"
    path.write_text(text + 'p = Pipeline("differing", context={"rows": 1}).add_step(one)\n')
    old = load(str(path)).bundle()
    assert "+++ new/differing on shared.json" in shared.diff(old)
    shared.deploy(old)
    assert shared.diff(old) == ""
    text = text.replace("return rows", "return rows + 1")
    path.write_text(text + 'p = Pipeline("differing", context={"rows": 2}, tags=["nightly"]).add_step(one)\n')
    shown = shared.diff(load(str(path)).bundle())
    for line in (
        "-    return rows",
        "+    return rows + 1",
        '-      "default": 1',
        '+      "default": 2',
        '+    "nightly"',
    ):
        assert line in shown.splitlines(), shown
