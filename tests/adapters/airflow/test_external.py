"""``external_dag``: a step that runs a DAG of a real Airflow 3.3, on every engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import ConfigurationError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator
from flowyml_airflow import external_dag, run_dag
from tests.adapters.airflow.operating import foreign_dag, orchestrator_of, wait_for_dag
from tests.adapters.airflow.test_client import site
from tests.engines.airflow import Airflow
from tests.engines.web import Recorded
from tests.waiting import wait_until

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
COMPLETED, FAILED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


LONG = """
from datetime import datetime

try:
    from airflow.sdk import dag, task
except ImportError:
    from airflow.decorators import dag, task


@dag(dag_id="legacy_long", schedule=None, start_date=datetime(2026, 1, 1), is_paused_upon_creation=False)
def legacy():
    @task
    def sleep(**context):
        import time

        time.sleep(context["dag_run"].conf.get("seconds", 1))

    sleep()


legacy()
"""


@pytest.fixture(scope="module")
def dags(airflow3: Airflow) -> Airflow:
    """The Airflow, with a DAG that goes well, one that fails, and one that takes as long as its conf says."""
    foreign_dag(airflow3, "legacy_good")
    foreign_dag(airflow3, "legacy_bad", fails=True)
    (airflow3.dags_folder / "legacy_long.py").write_text(LONG)
    wait_for_dag(airflow3, "legacy_long")
    return airflow3


@pytest.fixture
def named(dags: Airflow, named: Airflow) -> Airflow:
    """The environment names it, too."""
    return named


def around(dag_id: str, **options: Any) -> Pipeline:
    """A step, the DAG that takes its output, and a step that takes what the DAG's run was."""

    @step(outputs=["rows"])
    def count() -> int:
        return 5

    @step(name="report", inputs=[dag_id], outputs=["report"])
    def report(**ran: Any) -> str:
        return f"{ran[dag_id]['dag_id']}: {ran[dag_id]['state']}"

    waits = external_dag(dag_id, inputs=["rows"], poll_interval=1, timeout=400, **options)
    return Pipeline(f"around {dag_id}", outputs=[dag_id, "report"]).add_step(count).add_step(waits).add_step(report)


def check_on(orchestrator: Orchestrator, airflow: Airflow, **options: Any) -> None:
    """The DAG ran with the input as its conf."""
    handle = orchestrator.run_pipeline(around("legacy_good", **options))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    ran = handle.outputs["legacy_good"]
    assert handle.outputs["report"] == "legacy_good: success"
    assert f"/dags/legacy_good/runs/{ran['run_id']}" in ran["url"]
    there = orchestrator_of(airflow).attach(f"legacy_good/{ran['run_id']}")
    assert (there.status, there.run.parameters) == (COMPLETED, {"rows": 5})


@pytest.mark.parametrize("fails", [False, True])
def test_a_pipeline_runs_an_existing_dag_and_fails_with_it(named: Airflow, fails: bool) -> None:
    """On the local orchestrator, in the caller's process and in one of its own, as on any engine."""
    name = f"legacy_{'bad' if fails else 'good'}"
    pipeline = Pipeline(f"around {name}").add_step(external_dag(name, conf={"rows": 5}, poll_interval=1, timeout=400))
    result = pipeline.run()
    if fails:
        assert f"The DAG '{name}' failed: see {named.url}" in (result.error or "")
    else:
        assert result.success, result.error
        assert result[name]["state"] == "success"


@pytest.mark.prefect
def test_on_prefect(named: Airflow, prefect_url: str) -> None:
    from flowyml_prefect import PrefectOrchestrator

    with closing(PrefectOrchestrator(prefect_url)) as orchestrator:
        check_on(orchestrator, named)


@pytest.mark.kubeflow
def test_on_kubeflows_local_runner(named: Airflow) -> None:
    from flowyml_kubeflow import KubeflowLocalOrchestrator

    check_on(KubeflowLocalOrchestrator(runner="subprocess"), named)


def test_on_airflow_itself(dags: Airflow) -> None:
    """The workers' own environment says who asks; see ``conftest``."""
    orchestrator = orchestrator_of(dags)
    broken = orchestrator.run_pipeline(around("legacy_bad", url=dags.url))
    check_on(orchestrator, dags, url=dags.url)
    assert broken.wait_for_completion(timeout=2400, poll_interval=1).status is FAILED
    assert f"The DAG 'legacy_bad' failed: see {dags.url}" in (broken.error or "")
    assert broken.step_statuses()["legacy_bad"] is FAILED


def test_on_its_own_airflow_it_waits_in_the_triggerer(airflow: Airflow) -> None:
    """Without a login, and without a slot of a worker. Both tries of one that fails have the same run of the DAG."""
    (airflow.dags_folder / "legacy_long.py").write_text(LONG)
    foreign_dag(airflow, "legacy_bad", fails=True)
    wait_for_dag(airflow, "legacy_long")
    orchestrator = orchestrator_of(airflow)

    @step(outputs=["seconds"])
    def count() -> int:
        return 8

    @step(inputs=["legacy_long"], outputs=["report"])
    def report(legacy_long: dict[str, str]) -> str:
        return f"{legacy_long['dag_id']}: {legacy_long['state']}"

    waits = external_dag("legacy_long", conf={"by": "its own {{ ds }}"}, inputs=["seconds", "day"], poll_interval=1)
    made = Pipeline("around its own", context=context(day="monday"), outputs=["legacy_long", "report"])
    fails = Pipeline("around a bad one").add_step(external_dag("legacy_bad", poll_interval=1, retry=1))
    began = datetime.now(UTC)
    airflow.start("triggerer")
    try:
        handle = made.add_step(count).add_step(waits).add_step(report).submit(on=orchestrator)
        failed = fails.submit(on=orchestrator)
        wait_until(lambda: {run.name: run.raw_status for run in handle.step_runs()}["legacy_long"] == "deferred")
        assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
        assert failed.wait_for_completion(timeout=2400, poll_interval=1).status is FAILED
    finally:
        airflow.stop("triggerer")
    assert handle.outputs["report"] == "legacy_long: success"
    run_id = handle.outputs["legacy_long"]["run_id"]
    assert run_id in handle.outputs["legacy_long"]["url"]
    there = orchestrator.attach(f"legacy_long/{run_id}")
    assert there.run.parameters == {"by": "its own {{ ds }}", "seconds": 8, "day": "monday"}
    for folder in (airflow.home / "logs").glob("dag_id=around_a_bad_one*"):
        shutil.rmtree(folder, ignore_errors=True)  # what is known of a step does not depend on a log
    (step_run,) = failed.step_runs()
    assert (step_run.status, step_run.attempt) == (FAILED, 2)
    stale = "Airflow ended the task: Executor .* finished with state success"  # apache/airflow#72716
    assert re.search(f"legacy_bad failed with failed state|{stale}", failed.error or ""), failed.error
    ours = [run for run in orchestrator.runs("legacy_bad") if run.run_id.startswith("flowyml-")]
    assert len({run.run_id for run in ours if run.created_at and run.created_at >= began}) == 1


def kill_running_steps() -> None:
    """Those of this test's runs: each was forked from the process that serves them."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # Airflow's own processes come and go meanwhile
            if "runtime/fork_main.py" in " ".join(child.cmdline()) and not child.children():
                child.kill()


def test_a_step_that_is_killed_and_tried_again_attaches_to_the_run(named: Airflow, tmp_path: Path) -> None:
    marks = tmp_path / "pids"
    waits = external_dag("legacy_long", conf={"seconds": 12}, poll_interval=1, retry=1)
    pipeline = Pipeline("killed in mid-wait").add_step(waits)
    local = LocalOrchestrator(workers="processes", store=tmp_path / "runs.db")
    before = len(orchestrator_of(named).runs("legacy_long"))
    thread = threading.Thread(target=lambda: marks.write_text(str(local.execute(pipeline, tmp_path.name, {}).status)))
    thread.start()
    runs = wait_until(lambda: (found := orchestrator_of(named).runs("legacy_long")) and len(found) > before and found)
    kill_running_steps()
    thread.join(400)
    assert marks.read_text() == str(COMPLETED)
    after = orchestrator_of(named).runs("legacy_long")
    assert len(after) == before + 1
    assert after[0].run_id == runs[0].run_id


def test_the_same_run_runs_the_dag_once_and_anew_after_a_failure(named: Airflow, tmp_path: Path) -> None:
    def ran(dag_id: str) -> int:
        return len(orchestrator_of(named).runs(dag_id))

    before = ran("legacy_good"), ran("legacy_bad")
    for number in (1, 2):  # two engines that give one run id to one pipeline look like one that tries again
        local = LocalOrchestrator(store=tmp_path / f"{number}.db")
        good = Pipeline("once").add_step(external_dag("legacy_good", poll_interval=1))
        assert local.execute(good, f"good-{tmp_path.name}", {}).success
    broken = Pipeline("twice").add_step(external_dag("legacy_bad", poll_interval=1, retry=1))
    assert LocalOrchestrator(store=tmp_path / "runs.db").execute(broken, f"bad-{tmp_path.name}", {}).status is FAILED
    assert (ran("legacy_good"), ran("legacy_bad")) == (before[0] + 1, before[1] + 2)
    newest, first = orchestrator_of(named).runs("legacy_bad")[:2]
    assert newest.run_id == f"{first.run_id}-2"


def test_a_signal_that_ends_the_step_fails_the_run_of_the_dag(named: Airflow, tmp_path: Path) -> None:
    pipeline = Pipeline("ended").add_step(external_dag("legacy_long", conf={"seconds": 300}, poll_interval=1))
    bundle = tmp_path / "ended.pyz"
    bundle.write_bytes(pipeline.bundle().data)
    before = len(orchestrator_of(named).runs("legacy_long"))
    command = [sys.executable, bundle, "step", "legacy_long"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("Airflow runs legacy_long: " in line for line in process.stdout)
        assert len(orchestrator_of(named).runs("legacy_long")) > before
        # Airflow's scheduler may start a queued run that was failed a moment ago: it has read it before.
        wait_until(lambda: orchestrator_of(named).runs("legacy_long")[0].raw_status == "running")
        process.terminate()
        process.stdout.read()
        assert process.wait(2400) != 0
    assert orchestrator_of(named).runs("legacy_long")[0].raw_status == "failed"


class Flaky:
    """A fake of Airflow, with the answers that it is made with."""

    def __init__(self, *answers: tuple[int, str, str], api: str = "v2") -> None:
        self.answers = list(answers)
        self.api = api
        self.details = json_answer(start_date=None, end_date="2999-01-01T00:00:00Z")
        self.asked: list[tuple[str, str, str | None]] = []

    def __call__(self, request: Recorded) -> tuple[int, str, str]:
        self.asked.append((request.method, request.path, request.headers.get("authorization")))
        if request.path.endswith("/version"):
            return json_answer(version="x") if self.api in request.path else (404, "text/html", "no")
        if request.path.endswith("/details"):
            return self.details
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def json_answer(status: int = 200, **body: Any) -> tuple[int, str, str]:
    return status, "application/json", json.dumps(body)


def fails(url: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    monkeypatch.setenv("FLOWYML_AIRFLOW_URL", url)
    result = Pipeline("strange").add_step(external_dag("d", poll_interval=0.01, **options)).run()
    assert not result.success
    return result.error or ""


MISSING = json_answer(404)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (
            [(200, "text/html", "<title>Sign in</title>")],
            "with text/html (200), which does not come from Airflow's API",
        ),
        ([(200, "application/json", "[1]")], "with application/json (200), which does not come from Airflow's API"),
        (
            [(200, "application/json", '{"status": "ok"}')],
            "without the field 'state': {'status': 'ok'}. Another program may answer there",
        ),
        ([MISSING], "has no DAG 'd'. Deploy it there first."),
        (
            [MISSING, json_answer(is_paused=True)],
            "The DAG 'd' is paused in Airflow, so its run would wait forever. Unpause it there.",
        ),
    ],
)
def test_strange_answers_are_reported(
    answers: Sequence[tuple[int, str, str]], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(fake := Flaky(*answers)) as url:
        assert error in fails(url, monkeypatch)
    assert {method for method, _, _ in fake.asked} == {"GET"}, "nothing is started"


def test_addresses_without_airflow_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with site(lambda _: (404, "text/html", "my blog")) as url:
        assert "responds, but is not Airflow" in fails(url, monkeypatch)
    assert "does not answer: " in fails("http://127.0.0.1:9", monkeypatch, patience=0)
    assert "is not the address of a server" in fails("airflow.example.org", monkeypatch)
    assert "No Airflow URL is set" in fails("", monkeypatch)


def test_silence_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    down = (503, "text/html", "down")
    states = [json_answer(state=state) for state in ("running", "success")]
    fake = Flaky(down, json_answer(404, detail="no"), json_answer(is_paused=False), json_answer(), down, *states)
    with site(fake) as url:
        monkeypatch.setenv("FLOWYML_AIRFLOW_URL", url)
        result = Pipeline("silence").add_step(external_dag("d", poll_interval=0.01)).run()
    assert result.success, result.error
    assert [method for method, path, _ in fake.asked if path.endswith("/dagRuns")] == ["POST"]


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        ({"start_date": "2999-01-01T00:00:00Z"}, "no tasks: that is before the start of the DAG, 2999-01-01"),
        ({"end_date": "2001-01-01T00:00:00Z"}, "no tasks: that is after the end of the DAG, 2001-01-01"),
    ],
)
def test_a_dag_whose_run_would_do_nothing_is_not_started(
    dates: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Flaky(json_answer(404), json_answer(is_paused=False), json_answer(), json_answer(state="success"))
    fake.details = json_answer(**dates)
    with site(fake) as url:
        assert said in fails(url, monkeypatch)
    assert {method for method, _, _ in fake.asked} == {"GET"}


def test_a_permission_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_AIRFLOW_TOKEN", "secret")
    with site(Flaky(json_answer(404), json_answer(is_paused=False), json_answer(403, detail="Forbidden"))) as url:
        assert 'dags/d/dagRuns needs the permission "can create on DAG Runs"' in fails(url, monkeypatch)


def test_an_address_that_is_a_secret_is_not_in_the_output(named: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """The DAG runs, and its step completes: an output that holds a secret would be refused after that."""
    for variable in ("URL", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"FLOWYML_SECRET_AF_{variable}", named.login[f"FLOWYML_AIRFLOW_{variable}"])
        monkeypatch.delenv(f"FLOWYML_AIRFLOW_{variable}")
    secrets = {f"FLOWYML_AIRFLOW_{name.upper()}": f"af/{name}" for name in ("url", "username", "password")}
    made = external_dag("legacy_good", conf={"rows": 5}, poll_interval=1).options(secrets=secrets)
    handle = LocalOrchestrator().run_pipeline(Pipeline("secret address").add_step(made))
    assert handle.wait_for_completion(timeout=2400, poll_interval=1).status is COMPLETED, handle.error
    ran = handle.outputs["legacy_good"]
    assert (ran["state"], ran["url"]) == ("success", "")
    assert orchestrator_of(named).attach(f"legacy_good/{ran['run_id']}").status is COMPLETED
    said = [line.message for line in handle.logs()]
    assert "The address of Airflow is a secret of this step, so its output has no url." in said
    assert any(line.startswith("Airflow runs legacy_good: ***/dags/") for line in said)


def test_airflow_2_is_asked_and_shown_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Flaky(json_answer(404), json_answer(is_paused=False), json_answer(), json_answer(state="success"), api="v1")
    with site(fake) as url:
        monkeypatch.setenv("FLOWYML_AIRFLOW_URL", url)
        monkeypatch.setenv("FLOWYML_AIRFLOW_USERNAME", "ada")
        monkeypatch.setenv("FLOWYML_AIRFLOW_PASSWORD", "secret")
        ran = Pipeline("older").add_step(external_dag("d", poll_interval=0.01)).run()["d"]
    assert ran["url"] == f"{url}/dags/d/grid?dag_run_id={ran['run_id']}"
    assert fake.asked[-1] == ("GET", f"/api/v1/dags/d/dagRuns/{ran['run_id']}", "Basic YWRhOnNlY3JldA==")


def test_credentials_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Flaky(json_answer(state="success"))
    with site(fake) as url:
        monkeypatch.setenv("FLOWYML_AIRFLOW_TOKEN", "secret\n")
        monkeypatch.setenv("FLOWYML_AIRFLOW_URL", url + "\n")
        assert Pipeline("token").add_step(external_dag("d")).run().success
        assert fake.asked[-1][2] == "Bearer secret"
        monkeypatch.setenv("FLOWYML_AIRFLOW_TOKEN", "sécret")
        error = fails(url, monkeypatch)
        assert "which a token cannot contain" in error
        assert "cret" not in error
        fake.answers = [json_answer(201, access_token="new"), json_answer(state="success")]
        monkeypatch.setenv("FLOWYML_AIRFLOW_URL", url.replace("//", "//ada:p%40ss@"))
        result = Pipeline("in the URL").add_step(external_dag("d")).run()
        assert result["d"]["url"].startswith(f"{url}/dags/d/runs/flowyml-d-")
        assert fake.asked[-1][2] == "Bearer new"
    for function in (external_dag, run_dag):
        with pytest.raises(
            ConfigurationError, match=rf"{function.__name__}\('d', url=…\).*contains credentials"
        ) as caught:
            function("d", url="http://ada:hunter2@h")
        assert "hunter2" not in str(caught.value)
