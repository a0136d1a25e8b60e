"""Deployments, runs through workers, and what else is Prefect's own, on a real server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typing_extensions import TypedDict

from flowyml import DATA_INTERVAL_START, LOGICAL_DATE, Pipeline, step
from flowyml.artifacts import open_store
from flowyml.cli import main
from flowyml.core.errors import ConfigurationError, EngineError, OutputNotKeptError, ScheduleError, WaitTimeoutError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule
from flowyml.core.submission_result import SubmissionResult
from flowyml.plan.bundle import build
from flowyml.plan.model import Plan, Step
from flowyml.testing import FailureConformance
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.server import prefect_home
from tests.engines.prefect import PrefectServer
from tests.engines.s3 import fake_s3
from tests.waiting import wait_until

pytestmark = pytest.mark.prefect

COMPLETED = ExecutionStatus.COMPLETED


class Item(TypedDict):
    price: int


def adding(name: str, increment: int = 1) -> Pipeline:
    @step(outputs=["sum"], description="Adds.", tags=["arithmetic"])
    def add(number: int) -> int:
        return number + increment

    return Pipeline(name, context={"number": 1}).add_step(add)


def ended_runs(orchestrator: PrefectOrchestrator, pipeline: str) -> list[Run]:
    """Once there are some."""
    return wait_until(lambda: [run for run in orchestrator.runs(pipeline) if run.status.is_terminal], every=0.5)


class TestDeployments:
    def test_another_version_is_the_same_deployment_of_which_prefect_shows_version_tags_and_form(
        self, orchestrator: PrefectOrchestrator
    ) -> None:
        first = orchestrator.deploy_pipeline(adding("evolving"))
        second = orchestrator.deploy_pipeline(adding("evolving", increment=2))
        assert (second.url, second.changed) == (first.url, True)
        assert orchestrator.deploy_pipeline(adding("evolving")).changed, "the first version stands there no more"
        shown = orchestrator.client.deployment_by_id(str(first.url).rpartition("/")[2])
        assert shown["version"] == first.digest[:16]
        assert "flowyml" in shown["tags"]
        assert shown["parameter_openapi_schema"]["properties"]["number"]["default"] == 1

    def test_a_work_pool_that_is_not_there(self, make_prefect: Callable[..., Any]) -> None:
        orchestrator, pipeline = make_prefect(work_pool="nowhere"), adding("poolless")
        for attempt in (
            lambda: orchestrator.run_pipeline(pipeline),
            lambda: orchestrator.check_deployable(pipeline.bundle(), force=True),
        ):
            with pytest.raises(ConfigurationError, match=r"has no work pool 'nowhere'\. `prefect work-pool create now"):
                attempt()

    def test_a_run_that_no_worker_starts_says_why(self, make_prefect: Callable[..., Any]) -> None:
        orchestrator = make_prefect(work_pool="idle")
        orchestrator.client.ensure_process_pool("idle")
        run = orchestrator.run_pipeline(adding("unserved"))
        with pytest.raises(
            WaitTimeoutError, match=r"is still QUEUED after .* 'idle' has no worker: `prefect worker st"
        ):
            run.wait_for_completion(1, progress=False)
        orchestrator.client.write("/work_pools/idle", {"is_paused": True}, method="PATCH")
        assert "'idle' is paused" in orchestrator.why_waiting(run.job_id)
        assert run.cancel()

    def test_a_rare_schedule_beside_frequent_ones_shows_its_next_runs(self, make_prefect: Callable[..., Any]) -> None:
        orchestrator = make_prefect(work_pool="busy")
        orchestrator.client.ensure_process_pool("busy")
        timings = {f"often {number}": Schedule.of("interval", 30) for number in range(3)}
        timings["rarely"] = Schedule.of("daily", 3)
        made = [orchestrator.schedule_pipeline(adding(name), schedule) for name, schedule in timings.items()]
        try:
            ids = [info.schedule_id for info in made]
            wait_until(lambda: min(map(len, orchestrator.client.planned(ids[:3], 80).values())) >= 80)
            shown = {info.pipeline: info for info in orchestrator.schedules()}
            assert {len(shown[name].next_runs) for name in timings if name != "rarely"} == {10}
            rare = shown["rarely"]
            assert rare.next_runs[0] == rare.schedule.next_times()[0]
        finally:
            for info in made:
                orchestrator.delete_schedule(info.schedule_id)

    def test_a_schedule_that_no_worker_would_run(self, orchestrator: PrefectOrchestrator) -> None:
        with pytest.raises(ScheduleError, match="needs a work pool"):
            orchestrator.schedule_pipeline(adding("unserved"), Schedule.of("hourly", 0))


REFERENCE, TEMPLATE = {"$ref": "#/definitions/x"}, {"__prefect_kind": "jinja", "template": "{{ 1 + 1 }}"}
GIVEN: dict[str, Any] = {
    "template": TEMPLATE, "items": [{"deep": [REFERENCE], "b": 1}, 1e22, "a\0b"], "größe": 1.5,
    "priced": [{"price": 3}, {"price": 4}],
}  # fmt: skip


def looking() -> Pipeline:
    """Steps that tell where they are, give back what they were given, and return much."""

    @step(outputs=["folder", "names", "variable"])
    def look() -> tuple[str, list[str], str | None]:
        import os
        from pathlib import Path

        here = Path.cwd()
        return str(here), [path.name for path in here.iterdir()], os.environ.get("PLACE_OF_RUNS")

    @step(outputs=["same"])
    def give(template: dict[str, Any], items: list[Any], default: dict[str, Any], schema: int, größe: float) -> Any:
        return [template, items, default, schema, größe, type(größe).__name__]

    @step(outputs=["total"])
    def add(priced: list[Item]) -> int:
        return sum(item["price"] for item in priced)

    @step(outputs=["numbers", "note"])
    def make() -> tuple[list[int], str]:
        return list(range(100_000)), "small"

    context = {"template": {}, "items": [], "priced": [], "default": {"a": REFERENCE}, "schema": 1, "größe": 0.5}
    return Pipeline("looking", context=context).add_step(look).add_step(give).add_step(add).add_step(make)


class TestRuns:
    """One run that this process starts; each test looks at another aspect of it."""

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("looking")

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, make_prefect: Callable[..., Any], folder: Path) -> SubmissionResult:
        (folder / "here").mkdir()
        (folder / "here/mine.csv").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PLACE_OF_RUNS", "the caller's")
            patch.chdir(folder / "here")
            orchestrator: PrefectOrchestrator = make_prefect(artifacts=folder / "artifacts")
            handle = orchestrator.run_pipeline(looking(), "run/1 ü", parameters=GIVEN)
        handle.wait_for_completion(1200, 0.2)
        assert handle.status is COMPLETED, handle.error
        return handle

    def test_it_has_the_folder_and_the_environment_of_its_caller(self, run: SubmissionResult, folder: Path) -> None:
        seen = [run.outputs[name] for name in ("folder", "names", "variable")]
        assert seen == [str(folder / "here"), ["mine.csv"], "the caller's"]

    def test_parameters_are_data_that_neither_prefect_nor_its_database_changes(self, run: SubmissionResult) -> None:
        same = [TEMPLATE, GIVEN["items"], {"a": REFERENCE}, 1, 1.5, "float"]
        assert (repr(run.outputs["same"]), run.outputs["total"]) == (repr(same), 7)
        assert {name: repr(value) for name, value in GIVEN.items()} == {
            name: repr(run.run.parameters[name]) for name in GIVEN
        }

    def test_prefects_own_words(
        self, run: SubmissionResult, orchestrator: PrefectOrchestrator, prefect: PrefectServer
    ) -> None:
        assert run.url == f"{prefect.url}/runs/flow-run/{run.job_id}"
        assert (run.run_id, run.raw_status, run.run.pipeline) == ("run/1 ü", "Completed", "looking")
        flow_run = orchestrator.client.get(f"/flow_runs/{run.job_id}")
        assert (flow_run["name"], flow_run["idempotency_key"]) == ("run/1 ü", "run/1 ü")
        names = ["add", "give", "look", "make"]
        # Prefect records them late.
        wait_until(lambda: sorted(task.name for task in orchestrator.client.task_runs(run.job_id)) == names)

    def test_all_runs_come_in_one_call(
        self, run: SubmissionResult, make_prefect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        orchestrator = make_prefect()
        calls: list[str] = []
        call = orchestrator.client.call

        def counted(method: str, path: str, **options: Any) -> Any:
            calls.append(path)
            return call(method, path, **options)

        monkeypatch.setattr(orchestrator.client, "call", counted)
        assert run.job_id in [found.job_id for found in orchestrator.runs("looking", limit=3)]
        assert calls == ["/flow_runs/filter"]

    def test_large_outputs_go_to_the_artifacts_folder(
        self, run: SubmissionResult, make_prefect: Callable[..., Any], folder: Path
    ) -> None:
        assert run.outputs["numbers"] == list(range(100_000))
        files = [path for path in (folder / "artifacts").rglob("*") if path.is_file()]
        (artifact,) = [path for path in files if path.stat().st_size > 65536]
        artifact.unlink()
        outputs = make_prefect(artifacts=folder / "artifacts").attach(run.job_id).outputs
        assert outputs["note"] == "small"
        with pytest.raises(OutputNotKeptError, match="does not exist here"):
            _ = outputs["numbers"]


class TestWorkers:
    """Runs that a worker executes, which finds S3 (moto's fake of it) where an artifact store is there."""

    @pytest.fixture(scope="class")
    @classmethod
    def make_pooled(cls, prefect: PrefectServer, make_prefect: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
        with fake_s3("code") as environment, pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            make_prefect().client.ensure_process_pool("workers")
            with prefect.worker("workers"):
                yield lambda **options: make_prefect(work_pool="workers", **options)

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, make_pooled: Callable[..., PrefectOrchestrator]) -> PrefectOrchestrator:
        return make_pooled()

    def test_a_run_from_prefects_form_has_an_empty_folder_and_the_workers_environment(
        self, orchestrator: PrefectOrchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The form has numbers without a point for floats, and leaves out what has a default."""
        monkeypatch.setenv("PLACE_OF_RUNS", "the caller's")
        deployed = orchestrator.deploy_pipeline(looking())
        form = {"name": "by hand", "parameters": {"größe": 2}}
        handle = orchestrator.attach(orchestrator.client.create_run(str(deployed.url).rpartition("/")[2], form).id)
        outputs = handle.wait_for_completion(1200, 0.5).outputs
        assert outputs["same"] == [{}, [], {"a": REFERENCE}, 1, 2.0, "float"], handle.error
        assert (outputs["names"], outputs["variable"]) == ([], None)
        assert not Path(outputs["folder"]).is_relative_to(prefect_home().parent)
        wait_until(lambda: not Path(outputs["folder"]).exists())

    def test_cancel_stops_the_work(self, orchestrator: PrefectOrchestrator, tmp_path: Path) -> None:
        FailureConformance().test_cancel_stops_the_work(orchestrator, str(tmp_path))
        assert orchestrator.runs("conformance beating", limit=1)[0].error == "The run was cancelled."

    def test_a_scheduled_run_has_the_parameters_and_the_dates_of_its_schedule(
        self, orchestrator: PrefectOrchestrator
    ) -> None:
        @step(outputs=["dates"])
        def tell(day: str, since: str, number: int, odd: list[Any]) -> list[str]:
            from flowyml import current_run

            return [day, since, str(current_run().data_interval_end), f"{number} {odd}"]

        values = {"day": LOGICAL_DATE, "since": DATA_INTERVAL_START, "number": 1, "odd": []}
        pipeline = Pipeline("dated by itself", context=values).add_step(tell)
        schedule = Schedule.of("interval", 15, parameters={"number": 41, "odd": [TEMPLATE, -0.0]})
        made = orchestrator.schedule_pipeline(pipeline, schedule)
        try:
            ended = ended_runs(orchestrator, "dated by itself")
        finally:
            orchestrator.delete_schedule(made.schedule_id)
        handle = orchestrator.attach(ended[0].job_id)
        assert handle.status is COMPLETED, handle.error
        *dates, number = handle.outputs["dates"]
        day, since, end = map(datetime.fromisoformat, dates)
        assert (day - since, end, number) == (timedelta(seconds=15), day, f"41 {[TEMPLATE, -0.0]}")
        assert day.second % 15 == day.microsecond == 0, "the time on the schedule"
        assert handle.run.pipeline == "dated by itself"
        wait_until(lambda: handle.step_statuses() == {"tell": COMPLETED})

    def test_a_run_completes_on_a_worker_that_shares_no_folder(
        self, make_pooled: Callable[..., PrefectOrchestrator]
    ) -> None:
        """Code and outputs go through the store, which may have removed old code by a rule of age."""
        orchestrator = make_pooled(artifacts="s3://code/team")

        def large(number: int) -> str:
            return "x" * 100_000 + str(number)

        pipeline = Pipeline("fetched", context={"number": 7}).add_step(step(name="large", outputs=["text"])(large))
        deployed = orchestrator.deploy_pipeline(pipeline)
        folder = prefect_home() / "flows"
        hidden = folder.rename(folder.with_name("hidden"))
        try:
            found = orchestrator.client.deployment("fetched", "fetched on workers")
            assert found is not None
            ((pull, options),) = found["pull_steps"][0].items()
            assert pull == "prefect.deployments.steps.pull_from_remote_storage"
            assert options["url"].startswith("s3://code/team/flows/fetched-")
            open_store("s3://code/team").remove("flows")
            run = make_pooled(artifacts="s3://code/team").run_pipeline(pipeline)
            assert run.wait_for_completion(1200, 0.5).status is COMPLETED, run.error
            assert run.outputs["text"] == "x" * 100_000 + "7"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            hidden.rename(folder)
        assert deployed.changed
        assert not orchestrator.deploy_pipeline(pipeline).changed


def test_a_late_run_has_the_interval_of_its_schedule_unless_that_has_changed(
    prefect: PrefectServer, make_prefect: Callable[..., PrefectOrchestrator]
) -> None:
    """A worker was down when the runs became due, and their schedules were set anew before it was up again."""
    orchestrator = make_prefect(work_pool="late")
    orchestrator.client.ensure_process_pool("late")
    tokyo, day = ZoneInfo("Asia/Tokyo"), timedelta(days=1)
    midnight = datetime.now(tokyo).replace(hour=0, minute=0, second=0, microsecond=0)
    daily = Schedule(interval_seconds=86400, timezone="Asia/Tokyo", start=midnight - 9 * day)

    @step(outputs=["dates"])
    def tell(day: str, since: str) -> list[str]:
        return [day, since]

    def late(name: str, then: Schedule) -> SubmissionResult:
        pipeline = Pipeline(name, context={"day": LOGICAL_DATE, "since": DATA_INTERVAL_START}).add_step(tell)
        made = orchestrator.schedule_pipeline(pipeline, daily)
        run = orchestrator.run_missed(made.schedule_id, midnight)
        orchestrator.schedule_pipeline(pipeline, then)
        orchestrator.pause_schedule(made.schedule_id)
        return run

    kept = late("set as before", daily)
    changed = late("set otherwise", Schedule(cron="30 2 * * *", timezone="America/New_York"))
    with prefect.worker("late"):
        assert kept.wait_for_completion(1200, 0.5).status is COMPLETED, kept.error
        assert kept.outputs["dates"] == [midnight.isoformat(), (midnight - day).isoformat()]
        assert changed.wait_for_completion(1200, 0.5).status is ExecutionStatus.FAILED
        assert "its schedule was changed before it began" in str(changed.error)


EJECTED = """
from flowyml import pipeline, step

@step
def double(rows: int) -> int:
    return 2 * rows

@pipeline
def ejected(rows: int = 3):
    return {"doubled": double(rows)}
"""


def test_versions_of_packages_are_those_of_this_environment_unless_a_pool_has_its_own(
    make_prefect: Callable[..., PrefectOrchestrator],
) -> None:
    plan = Plan(name="imports", steps=(Step(name="one", function="made:one"),))
    bundle = build(plan, files={"made.py": b"def one():\n    import typer, json\n    return 1\n"})
    packages = {"": {"typer": metadata.version("typer")}, "packages": {}}
    for pool, wanted in packages.items():
        orchestrator = make_prefect(work_pool=pool or None)
        if pool:
            orchestrator.client.ensure_process_pool(pool)
        run = orchestrator.attach(orchestrator.submit(bundle, f"imports {pool}", {}))
        assert orchestrator.get_run(run.job_id).packages == wanted
        run.cancel()


def test_a_compiled_file_runs_where_no_flowyml_is(
    prefect: PrefectServer, orchestrator: PrefectOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``flowyml compile … --to prefect -o flow.py``, and then plain ``python flow.py``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "ejected.py").write_text(EJECTED)
    assert main(["compile", "ejected.py", "--to", "prefect", "-o", "flow.py"]) == 0
    site = next(path for path in sys.path if path.endswith("site-packages"))
    # Without the site module no .pth file is read, so an editable FlowyML is not found.
    without = f"import sys; sys.path.append({site!r}); import runpy; "
    done = subprocess.run([sys.executable, "-S", "-c", f"{without}import flowyml"], capture_output=True, text=True)
    assert "No module named 'flowyml'" in done.stderr
    run = f"{without}sys.argv = ['flow.py', '{{\"rows\": 6}}']; runpy.run_path('flow.py', run_name='__main__')"
    command = [sys.executable, "-S", "-c", run]
    done = subprocess.run(command, env=prefect.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flows = {"flows": {"name": {"any_": ["ejected"]}}}
    (made,) = orchestrator.client.query("/flow_runs/filter", flows)
    assert (made["parameters"], made["state_name"], made["deployment_id"]) == ({"rows": 6}, "Completed", None)


@pytest.mark.parametrize("ended", [False, True], ids=["before it ran", "after it failed"])
def test_a_run_that_a_person_marks_as_completed_says_that_it_has_no_outputs(
    make_prefect: Callable[..., PrefectOrchestrator], orchestrator: PrefectOrchestrator, ended: bool
) -> None:
    @step
    def divide(by: int) -> float:
        return 1 / by

    made = Pipeline("marked", context={"by": 0}).add_step(divide)
    on = orchestrator if ended else make_prefect(work_pool="nobody works here")
    on.client.ensure_process_pool("nobody works here")
    handle = made.submit(on=on)
    if ended:
        assert handle.wait_for_completion(600, 0.2).status is ExecutionStatus.FAILED
    on.client.set_state(handle.job_id, {"type": "COMPLETED", "name": "Completed"}, force=True)
    assert handle.status is COMPLETED
    with pytest.raises(EngineError, match="it was set to Completed in Prefect, or through its API"):
        _ = handle.outputs
    without = Pipeline("without outputs").add_step(step(outputs=[], name="nothing")(print))
    assert without.run(on=orchestrator).outputs == {}
