"""Processes of a run on KFP's local runner are killed, for real."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import ConfigurationError, UnsupportedFeatureError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.process_identity import born
from flowyml.core.submission_result import SubmissionResult
from flowyml_kubeflow import KubeflowLocalOrchestrator
from flowyml_kubeflow.compiler import compile_pipeline
from flowyml_kubeflow.local.folder import RunFolder
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.kubeflow

CANCELLED, COMPLETED, FAILED = ExecutionStatus.CANCELLED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED


@step(outputs=["first"])
def first(folder: str) -> int:
    with (Path(folder) / "first").open("a") as file:
        file.write("x")
    return 1


@step(outputs=["second"])
def second(first: int, folder: str) -> int:
    """Shows that it is alive until somebody lets it go."""
    while not (Path(folder) / "go").exists():
        with (Path(folder) / "beats").open("a") as file:
            file.write("x")
        time.sleep(0.05)
    return first + 1


@step(timeout=1)
def spam() -> int:
    """Prints faster than anybody reads, and so does what it leaves behind."""
    import subprocess
    import sys

    code = "while True: print('y' * 100)"
    subprocess.Popen([sys.executable, "-c", code])
    while True:
        print("y" * 100)


@pytest.fixture
def orchestrator() -> KubeflowLocalOrchestrator:
    return KubeflowLocalOrchestrator(runner="subprocess")


@pytest.fixture
def run(orchestrator: KubeflowLocalOrchestrator, tmp_path: Path) -> Iterator[SubmissionResult]:
    """A run in the middle of its second step."""
    pipeline = Pipeline("killed", context=context(folder=str(tmp_path))).add_step(first).add_step(second)
    handle = orchestrator.run_pipeline(pipeline)
    wait_until(lambda: beats(tmp_path) > 2)
    assert handle.status is ExecutionStatus.RUNNING
    yield handle
    handle.cancel()


def beats(folder: Path) -> int:
    path = folder / "beats"
    return path.stat().st_size if path.exists() else 0


def command_line(process: psutil.Process) -> list[str]:
    """Empty of one that has ended, such as the supervisor of an earlier test that was not waited for."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def process_of(handle: SubmissionResult, module: str = "supervisor") -> psutil.Process:
    """The supervisor of a run, or KFP's own process: by its command line, among our descendants."""
    (found,) = [
        process
        for process in psutil.Process().children(recursive=True)
        for line in [command_line(process)]
        if line[1:3] == ["-m", f"flowyml_kubeflow.local.{module}"] and line[-1].endswith(f"/{handle.job_id}")
    ]
    return found


def family_of(run: SubmissionResult) -> list[int]:
    """What KFP's process of a run has started: its steps, and what these have."""
    return [child.pid for child in process_of(run, "kfp_process").children(recursive=True)]


def test_a_run_whose_supervisor_is_killed_has_failed(run: SubmissionResult) -> None:
    kfp, family = process_of(run, "kfp_process"), family_of(run)
    process_of(run).send_signal(signal.SIGKILL)
    wait_until(lambda: run.status.is_terminal)
    assert run.status is FAILED
    assert run.raw_status == "FAILED"
    assert run.error is not None
    assert "The process of the run died" in run.error
    assert run.step_statuses() == {"first": COMPLETED, "second": CANCELLED}
    wait_until(lambda: not any(map(is_running, family)))
    wait_until(lambda: born(kfp.pid) is None)
    assert run.wait_for_completion(timeout=2400).status is FAILED
    assert run.cancel() is False
    with pytest.raises(UnsupportedFeatureError, match=r"retr.*Run the pipeline again"):
        run.retry()


def test_another_process_sees_that_the_supervisor_was_killed(run: SubmissionResult) -> None:
    """The process that submitted it need not live, or have looked."""
    family = family_of(run)
    process_of(run).send_signal(signal.SIGKILL)
    code = f"""
from flowyml_kubeflow import KubeflowLocalOrchestrator
run = KubeflowLocalOrchestrator(runner="subprocess").attach({run.job_id!r})
print(run.wait_for_completion(timeout=2400, poll_interval=0.1).status.name, run.error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("FAILED The process of the run died"), done.stdout
    wait_until(lambda: not any(map(is_running, family)))


def test_a_run_whose_kfp_process_is_killed_has_failed_and_stops(run: SubmissionResult) -> None:
    family = family_of(run)
    process_of(run, "kfp_process").send_signal(signal.SIGKILL)
    assert run.wait_for_completion(2400, 0.2).status is FAILED
    assert run.error is not None
    assert run.error.startswith("KFP's local runner died")
    wait_until(lambda: not any(map(is_running, family)))


def test_a_name_like_pythons_is_not_taken_for_python(orchestrator: KubeflowLocalOrchestrator) -> None:
    """kfp.local puts the path of its own Python for every ``python3``."""

    @step(name="test on python3.12", outputs=["words"])
    def tells(word: str) -> str:
        return f"{word} python3"

    pipeline = Pipeline("migrate to python3", context=context(word="from python3")).add_step(tells)
    handle = orchestrator.run_pipeline(pipeline, "python3-upgrade").wait_for_completion(2400, 0.2)
    assert (handle.status, handle.error) == (COMPLETED, None)
    assert handle.outputs == {"words": "from python3 python3"}
    assert handle.step_statuses() == {"test on python3.12": COMPLETED}


def test_what_kfp_local_could_not_carry_arrives_all_the_same(orchestrator: KubeflowLocalOrchestrator) -> None:
    """It hands parameters to steps in one argument, and replaces what looks like its placeholders."""
    given = {"long": "y" * 200_000, "placeholder": {"a": "{{$.inputs.parameters['d']}}"}}

    @step(outputs=["arrived"])
    def check(long: str, placeholder: dict[str, str]) -> bool:
        return {"long": long, "placeholder": placeholder} == given

    pipeline = Pipeline("carried", context=context(long="", placeholder={})).add_step(check)
    handle = orchestrator.run_pipeline(pipeline, parameters=given).wait_for_completion(2400, 0.2)
    assert (handle.status, handle.error) == (COMPLETED, None)
    assert handle.outputs == {"arrived": True}


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has none, as some network file systems."""

    def refuse(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_where_no_lock_shows_whether_a_run_is_under_way_none_is_started(tmp_path: Path) -> None:
    local = KubeflowLocalOrchestrator(folder=tmp_path)
    with pytest.raises(ConfigurationError, match=r"is on a file system without locks, .* a folder on a local disk"):
        local.run_pipeline(Pipeline("held", context=context(folder="")).add_step(first))


def test_a_step_that_was_stopped_ended_with_its_run(tmp_path: Path) -> None:
    run, made = RunFolder(tmp_path / "stopped"), compile_pipeline(Pipeline("stops").add_step(spam).bundle())
    run.pods.mkdir(parents=True)
    run.write("compiled.json", {"pipeline_spec": made.spec})
    run.write("run.json", {
        "job_id": "stopped", "run_id": "stopped", "pipeline": "stops", "created": 0.0, "parameters": {},
    })  # fmt: skip
    (run.pods / "spam--1000000000000.log").touch()
    run.write("started.json", {"time": 1000.0})
    run.write("result.json", {"state": "TIMEOUT", "error": "too long", "time": 1005.0})
    (ran,) = KubeflowLocalOrchestrator(folder=tmp_path).step_runs("stopped")
    assert (ran.status, ran.attempt, ran.duration_seconds) == (ExecutionStatus.CANCELLED, 1, 5.0)


def test_a_step_that_never_stops_printing_ends_at_its_timeout(orchestrator: KubeflowLocalOrchestrator) -> None:
    handle = orchestrator.run_pipeline(Pipeline("spamming").add_step(spam)).wait_for_completion(2400, 0.2)
    (ran,) = handle.step_runs()
    assert ran.status is ExecutionStatus.TIMEOUT
    assert ran.started_at is not None
    assert ran.ended_at is not None
    assert (ran.ended_at - ran.started_at).total_seconds() >= 1


def test_a_file_in_the_working_folder_is_not_imported_for_one_of_python(tmp_path: Path) -> None:
    """Python puts the working folder on the path of ``-m``, and of what KFP's local runner starts likewise."""
    (tmp_path / "json.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    (tmp_path / "script.py").write_text(
        """
import sys
from flowyml import Pipeline, step
from flowyml_kubeflow import KubeflowLocalOrchestrator

@step
def path() -> list:
    import os
    return [name for name in ("PYTHONSAFEPATH",) if name in os.environ]

if __name__ == "__main__":
    sys.path.append("")
    run = KubeflowLocalOrchestrator(runner="subprocess").run_pipeline(Pipeline("safe").add_step(path))
    run.wait_for_completion(2400, 0.2)
    print(run.status.name, run.error, run.outputs["path"])
"""
    )
    sys_path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import script; import runpy"
    code = f"import json; {sys_path}; runpy.run_module('script', run_name='__main__', alter_sys=True)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "COMPLETED None []", done.stderr
    assert not (tmp_path / "ran").exists()


def test_hooks_get_parameters_that_no_argument_holds(tmp_path: Path) -> None:
    """Linux takes 128 KiB in one argument of a command."""

    class Hook(PipelineHook):
        def on_pipeline_start(self, pipeline_name: str, run_id: str, context: dict[str, str]) -> None:
            print("flowyml-result", run_id, len(context["text"]))

    @step
    def takes(text: str) -> int:
        return len(text)

    pipeline = Pipeline("reported", hooks=[Hook()], context=context(text="")).add_step(takes)
    bundle = compile_pipeline(pipeline.bundle()).bundle.write(tmp_path)
    started = tmp_path / "started"
    given = {
        "inputs": {"parameterValues": {"run-name": "run 1", "text": "y" * 140_000}},
        "outputs": {
            "outputFile": str(tmp_path / "output.json"), "parameters": {"started-at": {"outputFile": str(started)}},
        },
    }  # fmt: skip
    path = tmp_path / "given.json"
    path.write_text(json.dumps(given))
    code = f"from flowyml_kubeflow.worker import main; main(['{bundle}', 'start', open('{path}').read(), '{{}}'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == " flowyml-result run 1 140000\n", done.stderr
    assert float(started.read_text()) > 0


@pytest.mark.parametrize("killed", [False, True])
def test_a_failure_is_once_in_the_log_as_an_error(
    killed: bool, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In a pod's log, from which levels are read back."""
    from flowyml_kubeflow import worker
    from flowyml_kubeflow.attempts import RESULT, leveled

    @step(outputs=["total"])
    def failing() -> int:
        print("one line")
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("the number 13")

    bundle = compile_pipeline(Pipeline("failing").add_step(failing).bundle()).bundle.write(tmp_path)
    given = {
        "outputs": {"outputFile": str(tmp_path / "output.json")},
    }
    assert worker.main([str(bundle), "step", json.dumps(given), '{"step": "failing"}']) == 1
    printed = capfd.readouterr()
    every = [*printed.out.splitlines(), *printed.err.splitlines()]
    lines = [leveled(line) for line in every if not line.startswith(RESULT)]
    assert ("INFO", "one line") in lines
    errors = [line for level, line in lines if level == "ERROR"]
    wanted = "was killed" if killed else "ValueError: the number 13"
    assert [wanted in line for line in errors].count(True) == 1, lines
    assert not any("Traceback" in line or wanted in line for level, line in lines if level != "ERROR")
