"""Submitted runs: processes of their own, seen through the record by any other process."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, context, step
from flowyml.core.errors import DefinitionError, OutputNotKeptError
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.runs import PipelineResult
from flowyml.orchestrators import LocalOrchestrator
from flowyml.orchestrators.base import Orchestrator, RunnablePipeline
from tests.unit.commands import python
from tests.unit.local_runs import CANCELLED, COMPLETED, FAILED, finished
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


def test_a_submitted_run(local: LocalOrchestrator, tmp_path: Path) -> None:
    @step(outputs=["words"])
    def gather(name: str) -> list[str]:
        import subprocess
        import threading

        print(f"gathering for {name}")
        subprocess.run(["sh", "-c", "echo from a program"], check=True)
        thread = threading.Thread(target=print, args=("from a thread",))
        thread.start()
        thread.join()
        return ["hello", name]

    @step(outputs=["greeting", "large"])
    def join(words: list[str]) -> tuple[str, str]:
        return " ".join(words), "x" * 100_000

    pipeline = Pipeline("greeting", context=context(name="world")).add_step(gather).add_step(join)
    handle = pipeline.submit({"name": "Ada"}, on=local, run_id="my-run-001")
    assert (handle.job_id, handle.run_id) == ("my-run-001", "my-run-001")
    assert [line.message for line in handle.logs(follow=True) if line.step] == ["gathering for Ada"]
    handle.wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.status is COMPLETED, handle.error
    assert handle.outputs == {"greeting": "hello Ada", "large": "x" * 100_000}
    assert {line.message for line in handle.logs() if not line.step} == {"from a program", "from a thread"}
    assert handle.run.parameters == {"name": "Ada"}
    wait_until(lambda: not list((tmp_path / "jobs" / "runs").iterdir()))


def test_waiting_for_no_number_of_seconds(local: LocalOrchestrator) -> None:
    handle = local.attach(Pipeline("one").add_step(step(name="a")(lambda: 7)).run(on=local).run_id)
    wrong: list[tuple[str, Any]] = [("timeout", None), ("timeout", "3"), ("timeout", math.nan), ("poll_interval", -1)]
    for name, value in wrong:
        with pytest.raises(DefinitionError, match=f"{name}={value!r} must be seconds"):
            handle.wait_for_completion(**{name: value})


def test_submitting_from_a_working_folder_that_is_gone(
    local: LocalOrchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline("one").add_step(step(name="a", outputs=["a"], cache=True)(lambda: 7))
    pipeline.compile()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.syspath_prepend("")
    (tmp_path / "gone").rmdir()
    handle = pipeline.submit(on=local).wait_for_completion(timeout=2400, poll_interval=0.1)
    assert handle.outputs == {"a": 7}


def test_a_failing_run_tells_why_and_names_the_command_that_shows_its_log(
    local: LocalOrchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    """When it is submitted and waited for, as `run(on=…)` does on engines."""

    @step
    def broken() -> None:
        raise ValueError("no luck")

    pipeline = Pipeline("failing").add_step(broken)
    assert Orchestrator.execute(local, pipeline, "unlucky", {}).status is FAILED
    (said,) = caplog.messages
    assert said == (
        "Run 'unlucky' of 'failing' ended FAILED: step 'broken': ValueError: no luck\n"
        "Its log, with the traceback: flowyml logs unlucky"
    )
    lines = [line.message for line in local.logs("unlucky") if line.step == "broken"]
    assert lines[0].startswith("Step 'broken' failed: Traceback")
    assert lines[-1] == "ValueError: no luck"
    assert not any("flowyml" in line for line in lines)


@pytest.mark.parametrize("keep", [None, False])
def test_large_outputs_of_a_submitted_run(tmp_path: Path, keep: bool | None) -> None:
    @step(outputs=["large"])
    def make() -> list[int]:
        return list(range(50_000))

    local = LocalOrchestrator(store=tmp_path / "runs.db", keep_outputs=keep)
    handle = Pipeline("keeping").add_step(make).submit(on=local)
    handle.wait_for_completion(timeout=2400, poll_interval=0.1)
    if keep is False:
        with pytest.raises(OutputNotKeptError, match="keep_outputs=True"):
            handle.outputs["large"]
    else:
        assert handle.outputs["large"] == list(range(50_000))


def test_a_subclass_executes_submitted_runs_too(tmp_path: Path) -> None:
    place = str(tmp_path)

    class Mine(LocalOrchestrator):
        def execute(self, pipeline: RunnablePipeline, run_id: str, context: Mapping[str, Any]) -> PipelineResult:
            import pathlib

            result = super().execute(pipeline, run_id, context)
            (pathlib.Path(place) / "after").write_text(f"{result['a']} {run_id}")
            return result

    pipeline = Pipeline("mine").add_step(step(name="a", outputs=["a"])(lambda: 7))
    local = Mine(store=tmp_path / "runs.db")
    assert finished(local, pipeline.submit(on=local, run_id="r").job_id).outputs == {"a": 7}
    assert wait_until(lambda: (tmp_path / "after").exists() and (tmp_path / "after").read_text()) == "7 r"


def test_a_subclass_that_never_runs_it(tmp_path: Path) -> None:
    class Silly(LocalOrchestrator):
        def execute(self, pipeline: RunnablePipeline, run_id: str, context: Mapping[str, Any]) -> PipelineResult:
            print("I would rather not")
            raise LookupError("not today")

    local = Silly(store=tmp_path / "runs.db")
    handle = Pipeline("silly").add_step(step(name="a")(lambda: 7)).submit(on=local)
    handle.wait_for_completion(timeout=2400, poll_interval=0.1)
    assert (handle.status, handle.error) == (FAILED, "LookupError: not today")
    wait_until(lambda: "I would rather not" in [line.message for line in handle.logs()])


def test_code_that_cannot_be_imported_any_more(local: LocalOrchestrator, tmp_path: Path) -> None:
    (tmp_path / "fragile.py").write_text(
        "import os\nif 'FRAGILE' in os.environ:\n    raise RuntimeError('broken on import')\n"
        "from flowyml import Pipeline, step\n@step\ndef a():\n    return 1\n"
        "pipeline = Pipeline('fragile').add_step(a)\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import fragile  # type: ignore[import-not-found]  # made by the test

        os.environ["FRAGILE"] = "1"
        handle = fragile.pipeline.submit(on=local)
    finally:
        del os.environ["FRAGILE"]
        sys.path.remove(str(tmp_path))
    handle.wait_for_completion(timeout=2400, poll_interval=0.1)
    assert (handle.status, handle.error) == (FAILED, "RuntimeError: broken on import")
    assert any("broken on import" in line.message for line in handle.logs())


ARGUMENTS = """
import argparse
from flowyml import Pipeline, context, step
from flowyml.orchestrators import LocalOrchestrator

parser = argparse.ArgumentParser()
parser.add_argument("--count", type=int, REST)
given = parser.parse_args()

@step(outputs=["double"])
def double(count):
    return 2 * count

p = Pipeline("double", context=context(count=given.count)).add_step(double)
if __name__ == "__main__":
    handle = p.submit(on=LocalOrchestrator(store="runs.db")).wait_for_completion(timeout=2400, poll_interval=0.1)
    print(str(handle.status), handle.error, dict(handle.outputs))
"""


@pytest.mark.parametrize(
    ("rest", "end"),
    [
        ("required=True", "COMPLETED None {'double': 6}"),
        (
            "choices=[3 if __name__ == '__main__' else 4]",
            "FAILED the module of step 'double' called sys.exit(2) when it was imported. Put that under",
        ),
    ],
)
def test_a_script_with_arguments_of_its_own(tmp_path: Path, rest: str, end: str) -> None:
    """Its module finds them wherever it is imported on this machine."""
    (tmp_path / "double.py").write_text(ARGUMENTS.replace("REST", rest))
    assert end in python(tmp_path, "double.py", "--count", "3").out


def test_ctrl_c_says_that_a_run_is_being_stopped_when_that_takes_a_while(tmp_path: Path) -> None:
    script, gate = tmp_path / "slow.py", tmp_path / "gate"
    os.mkfifo(gate)
    script.write_text(
        textwrap.dedent(f"""
        from flowyml import Pipeline, step
        from flowyml.orchestrators import LocalOrchestrator

        def sleep():
            open({str(gate)!r}).close()  # one call into C, which nothing interrupts in a thread

        local = LocalOrchestrator(store={str(tmp_path / "runs.db")!r})
        Pipeline("slow").add_step(step(name="a")(sleep)).add_step(step(name="b")(sleep)).run(on=local, run_id="s")
        """)
    )
    local = LocalOrchestrator(store=tmp_path / "runs.db")
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: local.store.find("s") and local.step_runs("s")[1].status is ExecutionStatus.RUNNING)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == "The run is cancelled: stopping its steps …\n"
    gate.write_text("")  # its steps may end now
    _, errors = process.communicate()
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert local.get_run("s").status is CANCELLED


SUBMITTER = """
import sys
from flowyml import Pipeline, step
from flowyml.orchestrators import LocalOrchestrator

@step(outputs=["pid"])
def count():
    import os, time
    with open({place!r}, "a") as file:
        file.write("x")
    while not os.path.exists({gate!r}):
        time.sleep(0.05)
    return os.getpid()

pipeline = Pipeline("counting").add_step(count)
if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    handle = pipeline.submit(on=LocalOrchestrator(store={store!r}), run_id="shared")
    print(handle.job_id, flush=True)
    sys.stdin.readline()
"""


def submitters(tmp_path: Path, count: int) -> list[subprocess.Popen[str]]:
    """Processes that have loaded all they need, and submit when they are given a line. The step waits for ``gate``."""
    script = tmp_path / "submitter.py"
    place, store = str(tmp_path / "executions"), str(tmp_path / "runs.db")
    script.write_text(SUBMITTER.format(place=place, store=store, gate=str(tmp_path / "gate")))
    command = [sys.executable, str(script)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return started


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_one_run_id_submitted_by_many_processes_at_once(tmp_path: Path, local: LocalOrchestrator) -> None:
    (tmp_path / "gate").touch()
    processes = submitters(tmp_path, 4)
    for process in processes:
        say(process)
    answers = [process.communicate("\n", timeout=2400)[0] for process in processes]
    assert answers == ["shared\n"] * 4
    assert finished(local, "shared").status is COMPLETED
    assert (tmp_path / "executions").read_text() == "x"
    assert len(local.runs()) == 1


def test_the_caller_is_killed_after_it_submitted(tmp_path: Path, local: LocalOrchestrator) -> None:
    (process,) = submitters(tmp_path, 1)
    say(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "shared\n"
    process.kill()
    process.communicate()
    assert local.attach("shared").status in (ExecutionStatus.QUEUED, ExecutionStatus.RUNNING)
    (tmp_path / "gate").touch()
    assert finished(local, "shared").status is COMPLETED


FORKS = """
import os, sys
from flowyml import Pipeline, step
from flowyml.core.hooks import PipelineHook
from flowyml.orchestrators import LocalOrchestrator

def forked(end):
    if (pid := os.fork()) == 0:
        end()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def failing():
    raise LookupError("the child has failed")

@step(outputs=["codes"], timeout=TIMEOUT)
def family():
    return [forked(lambda: sys.exit()), forked(lambda: sys.exit(7)), forked(lambda: sys.exit("why")), forked(failing)]

class Forking(PipelineHook):
    def on_step_end(self, step_name, outputs, duration):
        print("the hook's child ended with", forked(lambda: sys.exit(5)))

p = Pipeline("family", hooks=[Forking()]).add_step(family)
if __name__ == "__main__":
    local = LocalOrchestrator(store="runs.db")
    if sys.argv[1] == "run":
        run_id = p.run(on=local).run_id
    else:
        run_id = p.submit(on=local).wait_for_completion(timeout=2400, poll_interval=0.1).job_id
    run = local.get_run(run_id)
    print("the end", str(run.status), run.error, dict(local.outputs(run_id)))
    print("log", sorted(line.message for line in local.logs(run_id)))
"""


@pytest.mark.parametrize(("way", "timeout"), [("run", None), ("submit", 240)])  # in a thread, and in a process
def test_a_child_that_a_step_forks_ends_by_itself(tmp_path: Path, way: str, timeout: float | None) -> None:
    (tmp_path / "family.py").write_text(FORKS.replace("TIMEOUT", repr(timeout)))
    done = python(tmp_path, "-W", "ignore", "family.py", way)
    assert [line for line in done.out.splitlines() if line.startswith("the end")] == [
        "the end COMPLETED None {'codes': [0, 7, 1, 1]}"
    ]
    assert "the hook's child ended with 5" in done.out[done.out.index("log") :]
    for words in ("LookupError: the child has failed", "why"):
        assert words in (done.out if way == "submit" else done.err)
