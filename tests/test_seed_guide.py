"""Every code block of the 0.x to 1.0 guide, run as it stands there.

The blocks are in tests/seed/, with the indentation that the guide lost; only host names are replaced. Those that
show the old way must say what to do instead.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from flowyml import Pipeline, step
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.observability import ConsoleMetricsCollector, get_metrics_collector, set_metrics_collector
from flowyml.core.resources import ResourceRequirements
from flowyml.core.submission_result import SubmissionResult
from flowyml.orchestrators import LocalOrchestrator, RemoteOrchestrator
from flowyml.orchestrators.probe import Site
from flowyml.testing.pipelines import greeting
from flowyml.testing.waiting import PATIENCE
from flowyml_prefect import PrefectOrchestrator
from tests.engines.prometheus import page, pushgateway

BLOCKS = Path(__file__).parent / "seed"
GUIDE = Path(__file__).resolve().parents[2] / "shared" / "seed" / "migration-guide.txt"
REMOTE, PROMETHEUS = "http://server:8000", "http://prometheus:9090"


def block(name: str, **hosts: str) -> str:
    """The text of a block; ``hosts`` replaces REMOTE and PROMETHEUS."""
    (path,) = BLOCKS.glob(f"[0-9][0-9]_{name}.py")
    return (
        path.read_text().replace(REMOTE, hosts.get("remote", REMOTE)).replace(PROMETHEUS, hosts.get("push", PROMETHEUS))
    )


def run(source: str, **names: Any) -> dict[str, Any]:
    """Execute a block with the names that the guide takes for granted, and give all names it leaves."""
    namespace = {"Pipeline": Pipeline, "RemoteOrchestrator": RemoteOrchestrator, "step": step, **names}
    exec(compile(source, "<guide>", "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide gives none, and on a busy machine a server may take more than the usual seconds to say what it is."""
    monkeypatch.setitem(Site.__init__.__kwdefaults__, "timeout", PATIENCE)


@pytest.mark.skipif(not GUIDE.exists(), reason="the guide itself is not part of this checkout")
def test_blocks_are_those_of_the_guide_and_all_of_them() -> None:
    def ink(text: str) -> str:
        return re.sub(r"[^!-~]", "", text)

    guide = ink(GUIDE.read_text())
    for path in sorted(BLOCKS.glob("*.py"), key=lambda path: -path.stat().st_size):
        assert ink(path.read_text()) in guide, path.name
        guide = guide.replace(ink(path.read_text()), "")
    assert not re.search(r"fromflowyml\.?[a-z_.]*import|import\(|classMy|@step|\.schedule\([^)]", guide)


# Remote execution, on a real Prefect.


@pytest.mark.prefect
def test_remote_execution(prefect_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(block("remote_execution", remote=prefect_url), pipeline=greeting())
    said = capsys.readouterr().out
    assert f"Job ID: {names['submission'].job_id}\n" in said
    assert re.search(r"Status: (QUEUED|RUNNING|COMPLETED)\n", said)  # the last, where this process was slow
    assert "Final status: COMPLETED\n" in said
    assert re.search(r"Duration: \d+\.\ds\n", said)

    again = run(block("remote_execution", remote=prefect_url), pipeline=greeting())
    assert again["submission"].job_id == names["submission"].job_id, "my-run-001 never runs twice"


@pytest.mark.prefect
def test_old_remote_execution_gives_a_handle_and_does_not_wait(prefect_url: str, tmp_path: Path) -> None:
    path = str(tmp_path / "go on")

    @step
    def waits() -> None:
        while not Path(path).exists():
            time.sleep(0.1)

    handle = run(block("remote_execution_old", remote=prefect_url), pipeline=Pipeline("waits").add_step(waits))[
        "job_id"
    ]
    assert isinstance(handle, SubmissionResult)
    assert not handle.status.is_terminal
    assert not hasattr("a string", "job_id")
    handle.cancel()


def test_a_script_like_the_guides_submits_itself_once(tmp_path: Path) -> None:
    """Its run imports the script, which must not submit once more, or wait for itself."""
    script = tmp_path / "script.py"
    script.write_text(
        "from flowyml import Pipeline, step\n"
        "@step\n"
        "def one() -> int:\n"
        "    return 1\n"
        "pipeline = Pipeline('ones').add_step(one)\n"
        + block("remote_execution").replace("RemoteOrchestrator", "LocalOrchestrator").replace(f'url="{REMOTE}"', "")
    )
    environment = {**os.environ, "FLOWYML_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=2400)
    assert "Final status: COMPLETED" in done.stdout, done.stderr
    assert [run.run_id for run in LocalOrchestrator(store=tmp_path / "home" / "runs.db").runs()] == ["my-run-001"]


@pytest.mark.prefect
def test_job_id_is_an_attribute_of_the_handle(prefect_url: str) -> None:
    orchestrator = RemoteOrchestrator(prefect_url)
    old = run(block("job_id_old"), orchestrator=orchestrator, pipeline=greeting())
    assert isinstance(old["job_id"], SubmissionResult)
    new = run(block("job_id"), orchestrator=orchestrator, pipeline=greeting())
    assert new["job_id"] == new["submission"].job_id
    for submission in (old["job_id"], new["submission"]):
        submission.cancel()


def test_submission_result_has_what_the_guide_lists() -> None:
    listed = run(block("submission_result"), ExecutionStatus=ExecutionStatus, Optional=Optional)["SubmissionResult"]
    for name in listed.__annotations__:
        assert name in vars(SubmissionResult) or name == "job_id", name
    wanted = inspect.signature(listed.wait_for_completion).parameters
    given = inspect.signature(SubmissionResult.wait_for_completion).parameters
    assert list(given)[: len(wanted)] == list(wanted)
    assert [given[name].default for name in wanted] == [parameter.default for parameter in wanted.values()]
    assert inspect.signature(SubmissionResult.cancel).return_annotation == "bool"


@pytest.mark.prefect
def test_retry_policy(prefect_url: str) -> None:
    names = run(block("retry_policy", remote=prefect_url))
    assert names["policy"].delays == (10, 20)
    plan = names["orchestrator"].plan(greeting())
    assert {planned.retry for planned in plan} == {names["policy"]}


# Statuses.


class _Engine:
    """Stands for an orchestrator whose run has a certain status."""

    def __init__(self, status: ExecutionStatus) -> None:
        self.status = status

    def get_run_status(self, job_id: str) -> ExecutionStatus:
        return self.status


SAYS = {
    "RUNNING": "Still running...",
    "COMPLETED": "Done!",
    "FAILED": "Something went wrong",
    "CANCELLED": "Execution finished",
    "TIMEOUT": "Execution finished",
    "QUEUED": "Waiting in queue...",
}


@pytest.mark.parametrize("status", ExecutionStatus, ids=str)
def test_status(status: ExecutionStatus, capsys: pytest.CaptureFixture[str]) -> None:
    run(block("status"), orchestrator=_Engine(status), job_id="any")
    assert capsys.readouterr().out == SAYS[status.name] + "\n"


def test_old_status_strings_never_match_and_say_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="never equals a string") as caught:
        run(block("status_old"), orchestrator=_Engine(ExecutionStatus.RUNNING), job_id="any")
    assert "compare with ExecutionStatus.RUNNING instead of 'RUNNING'" in str(caught[0].message)
    assert capsys.readouterr().out == ""


def test_string_comparison() -> None:
    matched = "    matched = True\n"
    with pytest.warns(UserWarning, match=r"ExecutionStatus\.RUNNING"):
        old = run(block("string_comparison_old") + matched, status=ExecutionStatus.RUNNING)
    assert "matched" not in old
    assert run(block("string_comparison") + matched, status=ExecutionStatus.RUNNING)["matched"]


# Hooks.


def test_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="no steps"):  # the guide's pipeline is empty
        hook = run(block("hooks"))["MyHook"]
    said = capsys.readouterr().out
    assert "🚀 Pipeline 'my_pipeline' started (run: " in said
    assert re.search(r"🏁 Pipeline finished: COMPLETED \(\d+\.\d\ds\)", said)

    @step
    def one() -> int:
        return 1

    @step
    def broken(one: int) -> None:
        raise ValueError(f"{one} is wrong")

    Pipeline("with steps", hooks=[hook()]).add_step(one).add_step(broken).run()
    said = capsys.readouterr().out
    assert "  ▶ Step 'one' starting...\n" in said
    assert re.search(r"  ✅ Step 'one' done in \d+\.\d\ds\n", said)
    assert "  ❌ Step 'broken' failed: 1 is wrong\n" in said
    assert "🏁 Pipeline finished: FAILED" in said


def test_removed_callbacks_point_at_hooks() -> None:
    with pytest.raises(ImportError, match=r"register_callback was removed in 1\.0.*PipelineHook.*hooks="):
        run("from flowyml import register_callback")


# Schedules.


@pytest.mark.filterwarnings("ignore:.*schedule serve:UserWarning")  # nothing fires locally until it runs
def test_schedules_on_local() -> None:
    pipeline = greeting()
    run(block("schedules"), pipeline=pipeline)
    (info,) = LocalOrchestrator().schedules(pipeline.name)  # each call updates the same schedule
    assert info.schedule.cron == "0 9 * * 1"
    LocalOrchestrator().delete_schedule(info.schedule_id)


@pytest.mark.prefect
def test_schedules_on_prefect(prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWYML_ORCHESTRATOR", "scheduled")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__SCHEDULED__ENGINE", "prefect")
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__SCHEDULED__URL", prefect_url)
    monkeypatch.setenv("FLOWYML_ORCHESTRATORS__SCHEDULED__WORK_POOL", "seed-guide")  # somebody must execute the runs
    orchestrator = PrefectOrchestrator(prefect_url, "seed-guide")
    orchestrator.client.ensure_process_pool("seed-guide")
    pipeline = greeting()
    run(block("schedules"), pipeline=pipeline)
    (info,) = orchestrator.schedules(pipeline.name)
    assert info.schedule.cron == "0 9 * * 1"
    orchestrator.delete_schedule(info.schedule_id)
    orchestrator.close()


# Metrics.


@pytest.fixture
def _no_collector_afterwards() -> Iterator[None]:
    yield
    set_metrics_collector(None)


@pytest.mark.usefixtures("_no_collector_afterwards")
def test_metrics_reach_a_pushgateway() -> None:
    with pushgateway() as url:
        run(block("metrics", push=url))
        assert greeting().run().success
        metrics = page(f"{url}/metrics")
    assert re.search(
        r'^flowyml_runs_total\{.*job="flowyml",pipeline="conformance greeting",status="COMPLETED"\} 1$',
        metrics,
        re.MULTILINE,
    )
    assert re.search(r'^flowyml_step_duration_seconds_count\{.*step="gather".*\} 1$', metrics, re.MULTILINE)


@pytest.mark.usefixtures("_no_collector_afterwards")
def test_metrics_on_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    set_metrics_collector(ConsoleMetricsCollector())
    assert isinstance(get_metrics_collector(), ConsoleMetricsCollector)
    assert greeting().run().success
    said = capsys.readouterr().err
    assert "[metrics] step_finished pipeline='conformance greeting' step='gather' status=COMPLETED" in said
    assert "[metrics] run_finished pipeline='conformance greeting'" in said


# Resources.

DECORATED = "def train() -> int:\n    return 1\n"


def test_resources() -> None:
    new = run(block("resources") + DECORATED)["train"]
    assert new.step_options.resources == ResourceRequirements(cpu="2", memory="4Gi")


def test_old_resources_still_work_and_say_so() -> None:
    with pytest.warns(DeprecationWarning, match=r"Dict-style resources will be removed in 2\.0") as caught:
        old = run(block("resources_old") + DECORATED)["train"]
    assert old.step_options.resources == ResourceRequirements(cpu="2", memory="4Gi")
    assert caught[0].filename == "<guide>", "the warning points at the user's line"


# Subclasses.


def test_a_subclass_with_its_own_run_gets_an_error_that_names_the_orchestrator() -> None:
    with pytest.raises(TypeError, match=r"MyPipeline overrides Pipeline\.run\(\).*LocalOrchestrator.*execute"):
        run(block("subclass_old"))


def test_a_custom_orchestrator_runs_around_the_run() -> None:
    orchestrator = run(block("subclass"))["MyOrchestrator"]
    seen: list[Any] = []

    class Watched(orchestrator):  # type: ignore[misc, valid-type]  # made by exec
        def execute(self, pipeline: Any, run_id: str, context: Any) -> Any:
            seen.append((pipeline.name, run_id, dict(context)))
            return super().execute(pipeline, run_id, context)

    result = greeting().run({"name": "Ada"}, on=Watched(), run_id="mine")
    assert result.outputs == {"greeting": "hello Ada"}
    assert seen == [("conformance greeting", "mine", {"name": "Ada"})]
