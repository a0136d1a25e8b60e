"""What was deployed stays until it is deployed again: runs, other projects and operators leave it alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowyml import Pipeline, step
from flowyml.core.errors import DefinitionError, EngineUnreachableError, OwnershipError
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.names import plan_key
from tests.waiting import wait_until

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
    second.run_pipeline(version("moved", 1))  # a deployment for runs, which stays as it is
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


@pytest.mark.parametrize("call", ["create_artifact", "ensure_automation", "update_deployment"])
def test_deploying_again_makes_up_for_a_server_that_went_away_midway(
    pool: Pool, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = pool("goes away")
    name = f"goes away at {call}"
    orchestrator.deploy_pipeline(version(name, 1))

    def away(*arguments: object) -> None:
        raise EngineUnreachableError("the server has gone away")

    with monkeypatch.context() as patched:
        patched.setattr(orchestrator.client, call, away)
        with pytest.raises(EngineUnreachableError):
            orchestrator.deploy_pipeline(version(name, 2))
    assert orchestrator.deploy_pipeline(version(name, 2)).changed
    kept = {plan["description"] for plan in orchestrator.client.artifacts(plan_key(name))}
    assert kept == {version(name, number).bundle().digest[:16] for number in (1, 2)}


def test_an_id_may_be_spelt_otherwise(pool: Pool) -> None:
    orchestrator = pool("spelt")
    info = version("spelt", 1).schedule("daily", "03:30", on=orchestrator)
    run = orchestrator.run_missed(info.schedule_id, datetime.now(UTC) - timedelta(days=1))
    for spelt in (str.upper, lambda text: text.replace("-", ""), "{{{}}}".format):
        given = spelt(info.schedule_id)
        assert orchestrator.pause_schedule(given).paused
        assert orchestrator.resume_schedule(given).schedule_id == info.schedule_id
        assert orchestrator.get_run(spelt(run.job_id)).job_id == run.job_id
        assert list(orchestrator.logs(spelt(run.job_id))) == []
    orchestrator.delete_schedule(given)
    assert orchestrator.schedules("spelt") == []


def test_another_project_needs_force_to_deploy_and_may_run(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = pool("shared")
    monkeypatch.setenv("FLOWYML_NAMESPACE", "forecasts")
    info = version("train", 1).schedule("daily", "03:30", on=shared)
    monkeypatch.setenv("FLOWYML_NAMESPACE", "churn")
    before = deployed_at(shared, "train")
    for attempt in (
        lambda: shared.deploy_pipeline(version("train", 2)),
        lambda: shared.check_deployable(version("train", 2).bundle()),
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
        '-      "default": 1,',
        '+      "default": 2,',
        '+    "nightly"',
    ):
        assert line in shown.splitlines(), shown


def test_a_schedule_that_was_edited_in_prefects_ui_is_replaced_by_force_alone(pool: Pool) -> None:
    orchestrator = pool("edited")
    info = version("edited", 1).schedule("daily", "03:30", on=orchestrator)
    assert info.drift == ()
    (there,) = deployed_at(orchestrator, "edited")["schedules"]
    theirs = {"cron": "15 4 * * *", "timezone": "UTC", "day_or": True}
    orchestrator.client.save_schedule(info.schedule_id, {"schedule": theirs, "active": False}, there["id"])
    assert orchestrator.deploy_pipeline(version("edited", 2)).changed, "its code is not what was edited"
    (seen,) = orchestrator.schedules("edited")
    assert "changed by hand" in " ".join(seen.drift)
    before = deployed_at(orchestrator, "edited")
    with pytest.raises(OwnershipError, match=r"is cron 15 4 \* \* \* UTC, and the change would be lost\. .*--force"):
        version("edited", 3).schedule("daily", "05:00", on=orchestrator)
    assert deployed_at(orchestrator, "edited") == before
    taken_over = version("edited", 3).schedule("cron", "15 4 * * *", on=orchestrator)
    assert (taken_over.drift, taken_over.paused) == ((), True)
    orchestrator.client.save_schedule(info.schedule_id, {"parameters": {"rows": 7}}, there["id"])
    with pytest.raises(OwnershipError, match="changed by hand"):
        version("edited", 3).schedule("daily", "05:00", on=orchestrator)
    forced = version("edited", 3).schedule("daily", "05:00", on=orchestrator, force=True)
    assert (str(forced.schedule), forced.drift) == ("cron 0 5 * * * UTC", ())
    assert version("edited", 4).schedule("daily", "06:00", on=orchestrator).drift == ()


def code_of(orchestrator: PrefectOrchestrator, job_id: str) -> list[str]:
    """Versions: that of a run, and the one that a worker would fetch for it now."""
    run = orchestrator.client.run(job_id)
    deployment = orchestrator.client.deployment_by_id(str(run.deployment_id))
    (pull,) = deployment["pull_steps"]
    (settings,) = pull.values()
    return [str(run.version), settings["directory"].rpartition("-")[2]]


def test_a_run_of_a_version_that_was_replaced_meanwhile_has_its_own_code(pool: Pool) -> None:
    """The process that submits knows the deployment from before."""
    service, releases = pool("replaced"), pool("replaced")
    releases.deploy_pipeline(version("replaced", 1))
    before = service.run_pipeline(version("replaced", 1), "replaced-before")
    releases.deploy_pipeline(version("replaced", 2))
    after = service.run_pipeline(version("replaced", 1), "replaced-after")
    assert code_of(service, after.job_id) == [version("replaced", 1).bundle().digest[:16]] * 2
    assert service.run_pipeline(version("replaced", 1), "replaced-after").job_id == after.job_id
    assert {run.job_id for run in service.runs("replaced")} == {before.job_id, after.job_id}, "no other is left"


def test_a_run_on_this_machine_is_of_the_version_that_was_submitted(make_prefect: Any, tmp_path: Any) -> None:
    """A retry finds its code by that, and its steps are shown by it."""
    service, other = make_prefect(), make_prefect()
    first = service.run_pipeline(version("replaced here", 1))
    other.deploy_pipeline(version("replaced here", 2))
    again = service.run_pipeline(version("replaced here", 1))
    for run in (first, again):
        assert service.client.run(run.job_id).version == version("replaced here", 1).bundle().digest[:16]
        assert run.wait_for_completion(1200, 0.2).outputs == {"one": 1}


def test_scheduled_runs_are_found_behind_many_by_hand(pool: Pool) -> None:
    """Prefect drops what it has planned when a schedule is paused, so a run that is made up comes last."""
    orchestrator = pool("by hand")
    info = version("by hand", 1).schedule("interval", 3, on=orchestrator)
    wait_until(lambda: orchestrator.scheduled_runs("by hand"))
    orchestrator.run_pipeline(version("by hand", 1))
    assert orchestrator.scheduled_runs("by hand", limit=1)
    orchestrator.pause_schedule(info.schedule_id)
    missed = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    made_up = orchestrator.run_missed(info.schedule_id, missed)
    for _ in range(2):
        orchestrator.run_pipeline(version("by hand", 1))
    found = orchestrator.scheduled_runs("by hand")
    assert found[missed].job_id == made_up.job_id
    fewer_than_all = len(found) + 2
    assert missed in orchestrator.scheduled_runs("by hand", limit=fewer_than_all)
