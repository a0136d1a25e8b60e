"""Deployments, runs through workers, and what else is Prefect's own, on a real server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import TypedDict

from flowyml import DATA_INTERVAL_START, LOGICAL_DATE, Pipeline, step
from flowyml.core.errors import ConfigurationError, OutputNotKeptError, ScheduleError, StepError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import Run
from flowyml.core.schedule import Schedule
from flowyml.orchestrators.probe import Site
from flowyml.testing import FailureConformance
from flowyml_prefect import PrefectOrchestrator
from flowyml_prefect.server import prefect_home
from tests.engines.notebook import run_notebook
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


def big(name: str) -> Pipeline:
    @step(outputs=["numbers", "note"])
    def make() -> tuple[list[int], str]:
        return list(range(100_000)), "small"

    return Pipeline(name).add_step(make)


class TestDeployments:
    def test_the_same_version_again_changes_nothing(self, make_prefect: Callable[..., Any]) -> None:
        first = make_prefect().deploy_pipeline(adding("deployed"))
        again = make_prefect().deploy_pipeline(adding("deployed"))
        assert first.changed
        assert not again.changed
        assert (first.name, first.digest, first.url) == (again.name, again.digest, again.url)

    def test_another_version_is_the_same_deployment(self, orchestrator: PrefectOrchestrator) -> None:
        first = orchestrator.deploy_pipeline(adding("evolving"))
        second = orchestrator.deploy_pipeline(adding("evolving", increment=2))
        assert (second.url, second.changed) == (first.url, True)
        assert orchestrator.deploy_pipeline(adding("evolving")).changed, "the first version stands there no more"

    def test_an_older_run_keeps_its_version(self, orchestrator: PrefectOrchestrator) -> None:
        old = orchestrator.run_pipeline(adding("replaced"))
        new = orchestrator.run_pipeline(adding("replaced", increment=10))
        assert old.wait_for_completion(240, 0.2).outputs == {"sum": 2}
        assert new.wait_for_completion(240, 0.2).outputs == {"sum": 11}

    def test_prefect_shows_version_tags_and_form(self, orchestrator: PrefectOrchestrator) -> None:
        deployment = orchestrator.deploy_pipeline(adding("shown"))
        assert deployment.url is not None
        shown = orchestrator.client.deployment_by_id(deployment.url.rpartition("/")[2])
        assert shown["version"] == deployment.digest[:16]
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


class TestRuns:
    def test_the_run_in_prefects_own_words(self, orchestrator: PrefectOrchestrator, prefect: PrefectServer) -> None:
        handle = orchestrator.run_pipeline(adding("own words"), "run/1 ü")
        handle.wait_for_completion(240, 0.2)
        assert handle.url == f"{prefect.url}/runs/flow-run/{handle.job_id}"
        assert (handle.run_id, handle.raw_status, handle.run.pipeline) == ("run/1 ü", "Completed", "own words")
        flow_run = orchestrator.client.get(f"/flow_runs/{handle.job_id}")
        assert (flow_run["name"], flow_run["idempotency_key"]) == ("run/1 ü", "run/1 ü")
        (task,) = wait_until(lambda: orchestrator.client.task_runs(handle.job_id))  # Prefect records them late
        assert task.name == "add"

    def test_all_runs_come_in_one_call(self, make_prefect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        orchestrator = make_prefect()
        calls: list[str] = []
        call = orchestrator.client.call

        def counted(method: str, path: str, **options: Any) -> Any:
            calls.append(path)
            return call(method, path, **options)

        handle = orchestrator.run_pipeline(big("listed"))
        monkeypatch.setattr(orchestrator.client, "call", counted)
        assert handle.job_id in [run.job_id for run in orchestrator.runs(limit=3)]
        assert calls == ["/flow_runs/filter"]

    def test_large_outputs_go_to_the_artifacts_folder(self, make_prefect: Callable[..., Any], tmp_path: Path) -> None:
        orchestrator = make_prefect(artifacts=tmp_path)
        handle = orchestrator.run_pipeline(big("large")).wait_for_completion(240, 0.2)
        assert handle.status is COMPLETED, handle.error
        assert handle.outputs == {"numbers": list(range(100_000)), "note": "small"}
        (artifact,) = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "outputs.json"]
        artifact.unlink()  # what is kept for a retry stands beside it
        outputs = make_prefect(artifacts=tmp_path).attach(handle.job_id).outputs
        assert outputs["note"] == "small"
        with pytest.raises(OutputNotKeptError, match="does not exist here"):
            _ = outputs["numbers"]

    def test_logs_come_while_the_run_goes_on(self, orchestrator: PrefectOrchestrator, tmp_path: Path) -> None:
        gate = tmp_path / "gate"

        @step(outputs=["done"])
        def talk() -> bool:
            import sys
            from time import sleep

            print("first")
            print("second, on stderr", file=sys.stderr)
            while not gate.exists():
                sleep(0.05)
            print("third")
            return True

        handle = orchestrator.run_pipeline(Pipeline("talking").add_step(talk))
        said = []
        for line in handle.logs(follow=True):
            if line.step == "talk" and line.message in ("first", "second, on stderr", "third"):
                said.append(line.message)
                assert line.level == "INFO"
            if line.message == "second, on stderr":
                assert not handle.status.is_terminal
                gate.touch()
        assert said == ["first", "second, on stderr", "third"]
        assert handle.status is COMPLETED

    def test_the_error_is_the_steps_own(self, orchestrator: PrefectOrchestrator) -> None:
        @step(outputs=["x"])
        def divide(by: int) -> float:
            return 1 / by

        handle = orchestrator.run_pipeline(Pipeline("dividing", context={"by": 0}).add_step(divide))
        handle.wait_for_completion(240, 0.2)
        assert handle.error == "step 'divide': ZeroDivisionError: division by zero"
        assert [run.error for run in handle.step_runs()] == ["ZeroDivisionError: division by zero"]
        with pytest.raises(StepError, match="division by zero"):
            handle.result().raise_for_status()

    def test_parameters_are_taken_as_they_are(self, orchestrator: PrefectOrchestrator) -> None:
        @step(outputs=["same"])
        def give(value: dict[str, Any], schema: int, größe: float) -> list[Any]:
            return [value, schema, größe]

        like_a_template = {"__prefect_kind": "jinja", "template": "{{ 1 + 1 }}"}
        pipeline = Pipeline("templated", context={"value": {}, "schema": 1, "größe": 1.5}).add_step(give)
        handle = orchestrator.run_pipeline(pipeline, parameters={"value": like_a_template})
        assert handle.wait_for_completion(240, 0.2).outputs == {"same": [like_a_template, 1, 1.5]}
        assert handle.run.parameters["value"] == like_a_template

    def test_a_dict_with_a_reference_is_data(self, orchestrator: PrefectOrchestrator) -> None:
        @step(outputs=["same"])
        def give(value: dict[str, Any], items: list[Any], default: dict[str, Any]) -> list[Any]:
            return [value, items, default]

        like_a_block = {"$ref": "#/definitions/x"}
        context = {"value": {}, "items": [], "default": {"a": like_a_block}}
        handle = orchestrator.run_pipeline(
            Pipeline("referring", context=context).add_step(give),
            parameters={"value": like_a_block, "items": [{"deep": [like_a_block]}]},
        )
        wanted = [like_a_block, [{"deep": [like_a_block]}], {"a": like_a_block}]
        assert handle.wait_for_completion(240, 0.2).outputs == {"same": wanted}, handle.error
        assert handle.run.parameters["value"] == like_a_block

    def test_typed_dicts_as_parameters(self, orchestrator: PrefectOrchestrator) -> None:
        @step(outputs=["total"])
        def add(items: list[Item]) -> int:
            return sum(item["price"] for item in items)

        pipeline = Pipeline("priced", context={"items": [{"price": 1}]}).add_step(add)
        handle = orchestrator.run_pipeline(pipeline, parameters={"items": [{"price": 3}, {"price": 4}]})
        assert handle.wait_for_completion(240, 0.2).outputs == {"total": 7}, handle.error

    def test_prefect_is_recognized_by_its_pages(self, prefect: PrefectServer) -> None:
        assert PrefectOrchestrator.recognizes(Site(prefect.url))
        assert PrefectOrchestrator.recognizes(Site(f"{prefect.url}/api"))

    def test_health(self, orchestrator: PrefectOrchestrator, prefect: PrefectServer) -> None:
        health = orchestrator.health()
        assert (health.reachable, health.url) == (True, prefect.url)
        assert health.version is not None
        assert health.version.startswith("3.")


def place() -> Pipeline:
    """A pipeline that tells where its step is."""

    @step(outputs=["folder", "names", "variable"])
    def look() -> tuple[str, list[str], str | None]:
        import os
        from pathlib import Path

        here = Path.cwd()
        return str(here), [path.name for path in here.iterdir()], os.environ.get("PLACE_OF_RUNS")

    return Pipeline("place").add_step(look)


def test_a_run_that_this_process_starts_has_its_folder_and_environment(
    orchestrator: PrefectOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE_OF_RUNS", "the caller's")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").touch()
    handle = orchestrator.run_pipeline(place()).wait_for_completion(240, 0.5)
    assert handle.outputs == {"folder": str(tmp_path), "names": ["mine.csv"], "variable": "the caller's"}


class TestWorkers:
    """Runs that a worker executes."""

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, prefect: PrefectServer, make_prefect: Callable[..., Any]) -> Iterator[PrefectOrchestrator]:
        made = make_prefect(work_pool="workers")
        made.client.ensure_process_pool("workers")
        with prefect.worker("workers"):
            yield made

    def test_a_run_completes(self, orchestrator: PrefectOrchestrator) -> None:
        handle = orchestrator.run_pipeline(adding("worked"), parameters={"number": 4})
        assert handle.wait_for_completion(240, 0.5).outputs == {"sum": 5}

    def test_steps_have_an_empty_folder_and_the_worker_s_environment(
        self, orchestrator: PrefectOrchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PLACE_OF_RUNS", "the caller's")
        handle = orchestrator.run_pipeline(place()).wait_for_completion(240, 0.5)
        folder, names, variable = handle.outputs["folder"], handle.outputs["names"], handle.outputs["variable"]
        assert (names, variable) == ([], None)
        assert not Path(folder).is_relative_to(prefect_home().parent)
        wait_until(lambda: not Path(folder).exists())

    def test_a_run_from_prefects_form(self, orchestrator: PrefectOrchestrator) -> None:
        """It has numbers without a point for floats, and leaves out what has a default."""

        @step(outputs=["same"])
        def give(rate: float, schema: dict[str, Any], rows: int) -> list[Any]:
            return [rate, type(rate).__name__, schema, rows]

        context = {"rate": 1.5, "schema": {"$ref": "#/x"}, "rows": 3}
        deployed = orchestrator.deploy_pipeline(Pipeline("formed", context=context).add_step(give))
        form = {"name": "by hand", "parameters": {"rate": 2}}
        handle = orchestrator.attach(orchestrator.client.create_run(str(deployed.url).rpartition("/")[2], form).id)
        assert handle.wait_for_completion(240, 0.5).outputs == {"same": [2.0, "float", {"$ref": "#/x"}, 3]}, (
            handle.error
        )

    def test_cancel_stops_the_work(self, orchestrator: PrefectOrchestrator, tmp_path: Path) -> None:
        FailureConformance().test_cancel_stops_the_work(orchestrator, str(tmp_path))
        assert orchestrator.runs("conformance beating", limit=1)[0].error == "The run was cancelled."

    def test_a_scheduled_run_has_the_dates_of_its_schedule(self, orchestrator: PrefectOrchestrator) -> None:
        @step(outputs=["dates"])
        def tell(day: str, since: str) -> list[str]:
            from flowyml import current_run

            return [day, since, str(current_run().data_interval_end)]

        values = {"day": LOGICAL_DATE, "since": DATA_INTERVAL_START}
        pipeline = Pipeline("dated by itself", context=values).add_step(tell)
        made = orchestrator.schedule_pipeline(pipeline, Schedule.of("interval", 5))
        try:
            ended = ended_runs(orchestrator, "dated by itself")
        finally:
            orchestrator.delete_schedule(made.schedule_id)
        handle = orchestrator.attach(ended[0].job_id)
        assert handle.status is COMPLETED, handle.error
        day, since, end = map(datetime.fromisoformat, handle.outputs["dates"])
        assert (day - since, end) == (timedelta(seconds=5), day)
        assert day.second % 5 == day.microsecond == 0, "the time on the schedule"

    def test_a_schedule_fires(self, orchestrator: PrefectOrchestrator) -> None:
        made = orchestrator.schedule_pipeline(
            adding("by itself"), Schedule.of("interval", 5, parameters={"number": 41})
        )
        try:
            ended = ended_runs(orchestrator, "by itself")
        finally:
            orchestrator.delete_schedule(made.schedule_id)
        handle = orchestrator.attach(ended[0].job_id)
        assert (handle.run.pipeline, handle.outputs) == ("by itself", {"sum": 42})
        assert handle.step_statuses() == {"add": COMPLETED}


class TestWorkersElsewhere:
    """Workers that share no folder with the one who submits: code and outputs go through S3, moto's fake of it."""

    @pytest.fixture(scope="class")
    @classmethod
    def orchestrator(cls, prefect: PrefectServer, make_prefect: Callable[..., Any]) -> Iterator[PrefectOrchestrator]:
        with fake_s3("code") as environment, pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            made = make_prefect(work_pool="elsewhere", artifacts="s3://code/team")
            made.client.ensure_process_pool("elsewhere")
            with prefect.worker("elsewhere"):
                yield made

    def test_a_run_completes_without_the_folder(self, orchestrator: PrefectOrchestrator) -> None:
        def large(number: int) -> str:
            return "x" * 100_000 + str(number)

        pipeline = Pipeline("fetched", context={"number": 7}).add_step(step(name="large", outputs=["text"])(large))
        deployed = orchestrator.deploy_pipeline(pipeline)
        folder = prefect_home() / "flows"
        hidden = folder.rename(folder.with_name("hidden"))
        try:
            found = orchestrator.client.deployment("fetched", "fetched on elsewhere")
            assert found is not None
            ((pull, options),) = found["pull_steps"][0].items()
            assert pull == "prefect.deployments.steps.pull_from_remote_storage"
            assert options["url"].startswith("s3://code/team/flows/fetched-")
            run = orchestrator.run_pipeline(pipeline)
            assert run.wait_for_completion(240, 0.5).status is COMPLETED, run.error
            assert run.outputs["text"] == "x" * 100_000 + "7"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            hidden.rename(folder)
        assert deployed.changed
        assert not orchestrator.deploy_pipeline(pipeline).changed


NOTEBOOK = [
    "import helpers\nfrom flowyml import Pipeline, context, step\nfrom flowyml_prefect import PrefectOrchestrator",
    "@step(outputs=['rows'])\ndef load(count: int):\n    return helpers.rows(count)",
    "@step(outputs=['total'])\ndef add(rows):\n    return sum(rows)",
    """
pipeline = Pipeline("noted", context=context(count=4)).add_step(load).add_step(add)
handle = pipeline.submit({"count": 5}, on=PrefectOrchestrator(URL)).wait_for_completion(240, 0.2, progress=False)
print("submitted", handle.status, handle.outputs, handle.error)
""",
]


def test_a_notebook_submits_its_pipeline(prefect: PrefectServer, tmp_path: Path) -> None:
    """Its functions have no file, so they travel by value; the module beside it comes along."""
    (tmp_path / "helpers.py").write_text("def rows(count):\n    return list(range(count))\n")
    printed = run_notebook(tmp_path, [cell.replace("URL", repr(prefect.url)) for cell in NOTEBOOK])
    assert "submitted COMPLETED {'total': 10} None" in printed


def test_a_compiled_file_runs_where_no_flowyml_is(prefect: PrefectServer, tmp_path: Path) -> None:
    pipeline = adding("ejected")
    bundle = pipeline.bundle(pipeline.compile())
    for name, data in PrefectOrchestrator().compile_files(bundle).items():
        (tmp_path / name).write_bytes(data)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    # Without the site module no .pth file is read, so an editable FlowyML is not found.
    without = f"import sys; sys.path.append({site!r}); import runpy; "
    probe = subprocess.run(
        [sys.executable, "-S", "-c", f"{without}import flowyml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "No module named 'flowyml'" in probe.stderr
    run = f"{without}sys.argv = ['flow.py', '{{\"number\": 6}}']; runpy.run_path('flow.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", run], cwd=tmp_path, env=prefect.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Finished in state Completed()" in done.stderr + done.stdout
    assert zipfile.is_zipfile(tmp_path / bundle.filename)
